"""Fixtures and options of the whole suite.

A test marked `virtual` runs on a virtual clock (see support/virtual_clock.py), every other test in
real time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping

import hypothesis
import pytest
from eager_tasks import start_tasks_eagerly
from scripted_api import ScriptedApi
from virtual_clock import VirtualLoop

from edgegap_async import EdgegapClient, PollingPolicy
from edgegap_async.emulator import Emulator, Timings, sample_application

pytest_plugins = ["secret_scanner"]


def pytest_configure() -> None:
    # A shell starts background jobs with SIGINT ignored, and child processes would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # A busy machine makes slow examples, and slow steps, which asyncio reports in debug mode.
    hypothesis.settings.register_profile(
        "suite", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
    )
    hypothesis.settings.load_profile("suite")
    logging.getLogger("asyncio").addFilter(lambda record: "Executing" not in str(record.msg))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rounds", type=int, default=20, help="length of each campaign, 20 by default"
    )
    parser.addoption("--seed", type=int, help="repeat one run of a campaign")
    parser.addoption("--eager", action="store_true", help="run the first step of each task at once")


@pytest.fixture
def rounds(request: pytest.FixtureRequest) -> int:
    """The length of each campaign: each has its own number of runs per round."""
    return int(request.config.getoption("--rounds") or 0)


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    virtual = item.get_closest_marker("virtual") is not None
    name, new_loop = ("virtual", VirtualLoop) if virtual else ("real", asyncio.new_event_loop)
    return {
        name: (lambda: start_tasks_eagerly(new_loop())) if config.getoption("--eager") else new_loop
    }


@pytest.fixture(autouse=True, scope="session")
def _no_debug_mode_in_programs() -> None:
    """Programs that the tests start show every warning, and report no slow steps."""
    if os.environ.pop("PYTHONDEVMODE", ""):
        os.environ.setdefault("PYTHONWARNINGS", "default")


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hides the EDGEGAP_ variables of the developer's shell from the tests."""
    for name in [name for name in os.environ if name.startswith("EDGEGAP_")]:
        monkeypatch.delenv(name)


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    """An emulator with the sample game server and short timings."""
    async with Emulator(apps=[sample_application()], timings=Timings.fast()) as emulator:
        yield emulator


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[EdgegapClient]:
    """A client of that emulator."""
    polling = PollingPolicy(first_delay=0.02, interval=0.05)
    async with EdgegapClient(emulator.token, base_url=emulator.url, polling=polling) as client:
        yield client


@pytest.fixture
async def api() -> AsyncIterator[ScriptedApi]:
    """A server that answers from a script."""
    async with ScriptedApi() as api:
        yield api


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that refuses connections: it is bound, and no program listens on it."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.fixture
def full_port() -> Iterator[int]:
    """A port on which a connection never opens, because its queue is full."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listening.getsockname())
        yield listening.getsockname()[1]
