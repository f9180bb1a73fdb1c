"""When a server is idle, and how its block ends."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator

import pytest
from inside_deployment import STOP, at
from scripted_api import Reply, ScriptedApi

from edgegap_async.concurrency import loop_time
from edgegap_async.container import Activity
from edgegap_async.errors import Forbidden, InvalidRequest

pytestmark = pytest.mark.virtual
ACCEPTED = Reply(202, body={"message": "accepted"})


@pytest.fixture(autouse=True)
def _sigterm_is_as_before() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    assert signal.getsignal(signal.SIGTERM) is before


async def until_stopping(activity: Activity) -> float:
    """Waits until the API has accepted the stop, and returns the time."""
    while not activity.is_stopping:
        await asyncio.sleep(0.1)
    return loop_time()


async def test_a_server_without_players_is_stopped_after_the_idle_time(api: ScriptedApi) -> None:
    api.on("DELETE", STOP, ACCEPTED)
    began = loop_time()

    async with at(api.url).stop_when_idle(300) as activity:
        stopped_at = await until_stopping(activity)
        signal.raise_signal(signal.SIGTERM)
        await asyncio.Event().wait()

    assert stopped_at - began == pytest.approx(300, abs=0.3)
    assert len(api.requests) == 1


async def test_players_busy_blocks_and_touches_keep_the_server(api: ScriptedApi) -> None:
    api.on("DELETE", STOP, ACCEPTED)
    began = loop_time()

    async with at(api.url).stop_when_idle(100) as activity:
        activity.players = 2
        await asyncio.sleep(500)
        assert activity.idle_for == 0
        activity.players = 0
        await asyncio.sleep(90)
        with activity.busy(), activity.busy():
            await asyncio.sleep(500)
        await asyncio.sleep(90)
        assert activity.idle_for == pytest.approx(90)
        activity.touch()
        assert api.requests == []
        stopped_at = await until_stopping(activity)
        signal.raise_signal(signal.SIGTERM)
        await asyncio.Event().wait()

    assert stopped_at - began == pytest.approx(500 + 90 + 500 + 90 + 100, abs=0.3)


async def test_the_stop_is_repeated_until_the_api_accepts_it(api: ScriptedApi) -> None:
    api.on("DELETE", STOP, *[Reply(503)] * 4, *[Reply(lost=True)] * 4, Reply(404))

    async with at(api.url).stop_when_idle(10) as activity:
        await until_stopping(activity)
        signal.raise_signal(signal.SIGTERM)
        await asyncio.Event().wait()

    assert len(api.requests) == 9


async def test_no_stop_is_sent_if_players_come_while_the_api_fails(api: ScriptedApi) -> None:
    api.on("DELETE", STOP, Reply(503))

    async with at(api.url).stop_when_idle(10) as activity:
        await api.until_asked("DELETE", STOP, 4)
        activity.players = 1
        await asyncio.sleep(100)
        sent = len(api.requests)
        await asyncio.sleep(1000)

    assert len(api.requests) == sent
    assert not activity.is_stopping


async def test_a_refused_stop_ends_the_block_with_its_error(api: ScriptedApi) -> None:
    api.on("DELETE", STOP, Reply(403, body={"message": "another deployment"}))

    with pytest.raises(Forbidden):
        async with at(api.url).stop_when_idle(10):
            await asyncio.Event().wait()


async def test_the_stop_is_asked_for_again_if_no_sigterm_comes(api: ScriptedApi) -> None:
    api.on("DELETE", STOP, ACCEPTED, Reply(410))

    async with at(api.url).stop_when_idle(10) as activity:
        await api.until_asked("DELETE", STOP, 2)
        assert activity.is_stopping
        signal.raise_signal(signal.SIGTERM)
        await asyncio.Event().wait()


async def test_sigterm_ends_the_block_before_the_idle_time(api: ScriptedApi) -> None:
    async with at(api.url).stop_when_idle(300):
        asyncio.get_running_loop().call_later(5, signal.raise_signal, signal.SIGTERM)
        await asyncio.Event().wait()

    assert api.requests == []


async def test_sigterm_may_come_as_the_block_ends(api: ScriptedApi) -> None:
    problems: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
    async with at(api.url).stop_when_idle(300):
        signal.raise_signal(signal.SIGTERM)
    await asyncio.sleep(1)

    assert problems == []


async def test_a_program_that_handles_sigterm_keeps_its_handler(api: ScriptedApi) -> None:
    loop, asked = asyncio.get_running_loop(), asyncio.Event()
    before = signal.getsignal(signal.SIGTERM)
    loop.add_signal_handler(signal.SIGTERM, asked.set)
    try:
        async with at(api.url).stop_when_idle(300):
            signal.raise_signal(signal.SIGTERM)
            await asked.wait()
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
        signal.signal(signal.SIGTERM, before)


async def test_an_error_and_a_cancellation_pass_through_the_block(api: ScriptedApi) -> None:
    with pytest.raises(TimeoutError, match="of the server"):
        async with at(api.url).stop_when_idle(300):
            raise TimeoutError("of the server")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(5), at(api.url).stop_when_idle(300):
            await asyncio.Event().wait()


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), "5"])
async def test_the_idle_time_is_a_number_above_0(api: ScriptedApi, seconds: float) -> None:
    with pytest.raises(InvalidRequest, match="seconds"):
        async with at(api.url).stop_when_idle(seconds):
            pass
