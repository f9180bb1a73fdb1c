"""Fixtures of the tests of faults."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from edgegap_async.emulator import Emulator, Timings, sample_application


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    """An emulator without rate limits, with the sample game server and the token `canary-t`."""
    apps, timings = [sample_application()], Timings.fast()
    async with Emulator(apps, timings=timings, limits=False, token="canary-t") as emulator:
        yield emulator
