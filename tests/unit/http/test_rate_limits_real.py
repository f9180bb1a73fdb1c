"""The limits in real time, counted by a server in another process. Measures no speed."""

from __future__ import annotations

import aiohttp
from strict_api import LIMITS, StrictApi, demand

from edgegap_async import EdgegapClient

SECONDS = 3.0


async def test_no_second_at_the_server_holds_more_calls_than_the_limit() -> None:
    async with (
        StrictApi() as api,
        aiohttp.ClientSession(trace_configs=[api.tracing]) as session,
        EdgegapClient("canary-token", base_url=api.url, session=session) as client,
    ):
        await demand(client, SECONDS)

    for name, limit in LIMITS.items():
        came = sorted(arrival.at for arrival in api.arrivals[name])
        assert len(came) > limit
        # On a busy machine some calls travel longer than others, which the limits cannot prevent:
        # the measured difference is subtracted.
        spans = [later - sooner for sooner, later in zip(came, came[limit:], strict=False)]
        assert min(spans) >= 1 - api.unevenness(name), name
