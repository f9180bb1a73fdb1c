"""Applications and versions, from the client to the emulator and back."""

from __future__ import annotations

import pytest

from edgegap_async import EdgegapClient, NotFound
from edgegap_async.emulator import Emulator, sample_application


async def test_applications_are_listed_page_by_page_and_read() -> None:
    names = [f"arena-{number}" for number in range(5)]
    async with (
        Emulator([sample_application(name=name) for name in names]) as emulator,
        EdgegapClient(emulator.token, base_url=emulator.url) as client,
    ):
        found = [application.name async for application in client.applications.list(limit=2)]
        first = await client.applications.list(limit=2)
        sent = client.requests_sent

        assert found == names
        assert (len(first.applications), first.total_count, sent) == (2, 5, 4)
        assert (await client.applications.get("arena-3")).is_active
        with pytest.raises(NotFound):
            await client.applications.get("arena-9")
