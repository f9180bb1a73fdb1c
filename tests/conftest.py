"""Fixtures of the whole suite.

A test marked `virtual` runs on a clock that jumps (see virtual_clock.py); all others in real time.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
from virtual_clock import VirtualLoop

from edgegap_async import EdgegapClient, PollingPolicy
from edgegap_async.emulator import Emulator, Timings, sample_application

pytest_plugins = ["secret_scanner"]


def pytest_configure() -> None:
    # Started in the background of a shell it would be ignored, here and in every child.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rounds", type=int, default=20, help="rounds of each campaign; 20 by default"
    )
    parser.addoption("--seed", type=int, help="the one run of the campaign to see again")


@pytest.fixture
def rounds(request: pytest.FixtureRequest) -> int:
    """How many rounds a campaign has."""
    return int(request.config.getoption("--rounds") or 0)


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    virtual = item.get_closest_marker("virtual") is not None
    return {"virtual": VirtualLoop} if virtual else {"real": asyncio.new_event_loop}


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the developer's shell says of Edgegap is not for the tests."""
    for name in [name for name in os.environ if name.startswith("EDGEGAP_")]:
        monkeypatch.delenv(name)


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    """The cloud at home, with the sample game server, in a hurry."""
    async with Emulator(apps=[sample_application()], timings=Timings.fast()) as emulator:
        yield emulator


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[EdgegapClient]:
    """A client of that emulator."""
    polling = PollingPolicy(first_delay=0.02, interval=0.05)
    async with EdgegapClient(emulator.token, base_url=emulator.url, polling=polling) as client:
        yield client
