"""Fixtures of the tests of pools."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from arena import arena_client, arena_cloud

from edgegap_async import EdgegapClient
from edgegap_async.emulator import Emulator, Simulation


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    """An emulator whose servers are READY after 2 seconds."""
    async with arena_cloud(simulate=Simulation(seed=7, ready_after=(2.0, 2.0))) as emulator:
        yield emulator


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[EdgegapClient]:
    """A client of that emulator."""
    async with arena_client(emulator) as client:
        yield client
