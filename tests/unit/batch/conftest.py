"""Fixtures of the tests of batches."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from arena import arena_client, arena_cloud

from edgegap_async import EdgegapClient
from edgegap_async.emulator import Emulator


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    """An emulator whose servers are READY after 0.5 to 3 seconds."""
    async with arena_cloud() as emulator:
        yield emulator


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[EdgegapClient]:
    """A client of that emulator."""
    async with arena_client(emulator) as client:
        yield client
