"""Fixtures of the emulator's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest
from bare_api import BareApi

from edgegap_async.emulator import Emulator, Fleet, PrivateHost, Timings, sample_application


@pytest.fixture
async def api() -> AsyncIterator[BareApi]:
    """An emulator with two versions of the arena and one private host, over bare HTTP."""
    fleet = Fleet(name="alpha", hosts=(PrivateHost(host_id="alpha-1", city="Tokyo"),))
    emulator = Emulator(
        [sample_application(), sample_application("--stop-self-after", "0.1", version="selfish")],
        fleets=[fleet],
        timings=Timings.fast(),
        limits=False,
        metrics_interval=0.05,
    )
    async with emulator, aiohttp.ClientSession(emulator.url) as session:
        yield BareApi(emulator, session)
