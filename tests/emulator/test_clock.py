"""The clock of the emulated cloud: pause, advance, many timers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest
from bare_api import BareApi
from emulated_cloud import ARENA, a_cloud, deployed, reached

from edgegap_async.api.models import Status
from edgegap_async.concurrency import loop_time
from edgegap_async.emulator import Emulator, Simulation, sample_application
from edgegap_async.emulator.clock import Clock

DAY = 86400.0


@pytest.mark.virtual
async def test_timers_end_in_their_order_and_at_their_time() -> None:
    clock, ends = Clock(), list[tuple[str, float]]()

    async def sleep(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        ends.append((name, round(clock.time() - began, 2)))

    began = clock.time()
    await asyncio.gather(
        sleep("b", 2), sleep("a", 1), sleep("now", 0), sleep("d", 9), sleep("c", 3)
    )

    assert ends == [("now", 0), ("a", 1), ("b", 2), ("c", 3), ("d", 9)]


@pytest.mark.virtual
async def test_a_paused_clock_stands_still_and_goes_on_from_there() -> None:
    clock = Clock()
    timer = clock.timer(10)
    await asyncio.sleep(4)
    clock.pause()
    before = clock.time()
    await asyncio.sleep(1000)
    assert (timer.done(), clock.time(), clock.is_paused) == (False, before, True)

    clock.resume()
    resumed_at = loop_time()
    await timer
    assert loop_time() - resumed_at == pytest.approx(6, abs=0.01)


@pytest.mark.parametrize("paused", [True, False])
async def test_an_advance_goes_from_timer_to_timer(*, paused: bool) -> None:
    clock, ends = Clock(), list[float]()

    async def repeat() -> None:
        while True:
            await clock.sleep(600)
            ends.append(round(clock.time() - began))

    began, date = clock.time(), clock.now()
    task = asyncio.create_task(repeat())
    if paused:
        clock.pause()
    await clock.advance(3700)
    task.cancel()

    assert ends == [600, 1200, 1800, 2400, 3000, 3600]
    assert clock.time() - began == pytest.approx(3700, abs=5)
    assert (clock.now() - date).total_seconds() == pytest.approx(3700, abs=5)
    assert clock.is_paused is paused


async def test_a_wait_ends_with_the_first_future_or_at_its_time() -> None:
    clock, done = Clock(), asyncio.get_running_loop().create_future()
    clock.pause()
    waiting = asyncio.create_task(clock.wait({done}, 5))
    await asyncio.sleep(0)
    await clock.advance(5)
    await waiting
    assert not done.done()

    done.set_result(None)
    await clock.wait({done}, None)
    await clock.wait({done}, 5)


async def test_timers_that_are_cancelled_do_not_stay_for_a_day() -> None:
    clock, done = Clock(), asyncio.get_running_loop().create_future()
    done.set_result(None)
    kept = clock.timer(2 * DAY)
    for _ in range(5000):
        await clock.wait({done}, DAY)

    assert len(clock._timers) <= 200
    clock.pause()
    await clock.advance(2 * DAY)
    assert kept.done()


async def test_a_day_of_a_simulated_deployment_passes_in_an_advance() -> None:
    simulation = Simulation(ready_after=(20, 20), crash_share=1, crash_after=(7200, 7200))
    async with a_cloud(ARENA, simulate=simulation, keep_errors=None) as cloud:
        cloud.clock.pause()
        deployment = await deployed(cloud, ARENA)
        await cloud.clock.advance(19)
        before: Status = deployment.status
        await cloud.clock.advance(3600)
        ready = deployment.deployment()
        await cloud.clock.advance(7200)

        assert (before, ready.current_status) == (Status.DEPLOYING, Status.READY)
        assert ready.elapsed_time == pytest.approx(3600 + 19 - 20, abs=2)
        assert deployment.status is Status.ERROR
        assert deployment.crash is not None


async def test_the_longest_duration_of_a_real_program_passes_in_an_advance() -> None:
    async with a_cloud(ARENA) as cloud:
        deployment = await reached(await deployed(cloud, ARENA), Status.READY)
        await cloud.clock.advance(DAY + 60)
        await reached(deployment, Status.TERMINATED)


@pytest.fixture
async def api() -> AsyncIterator[BareApi]:
    emulator = Emulator([sample_application()], simulate=Simulation(ready_after=(20, 20)))
    async with emulator, aiohttp.ClientSession(emulator.url) as session:
        yield BareApi(emulator, session)


async def test_the_control_api_pauses_and_advances_the_clock(api: BareApi) -> None:
    request_id = await api.deploy()
    _, paused = await api("POST", "/_emulator/clock", json={"paused": True})
    _, advanced = await api("POST", "/_emulator/clock", json={"advance": 120})
    status = await api.get_status(request_id)
    _, shown = await api("GET", "/_emulator/clock")
    await api("POST", "/_emulator/reset")
    _, reset = await api("GET", "/_emulator/clock")

    times = [datetime.fromisoformat(said["now"]) for said in (paused, advanced, shown, reset)]
    assert status["current_status"] == "Status.READY"
    assert (times[1] - times[0]).total_seconds() == pytest.approx(120)
    assert times[2] == times[1]
    assert abs((times[3] - datetime.now(UTC)).total_seconds()) < 30
    assert [said["is_paused"] for said in (paused, advanced, reset)] == [True, True, False]


@pytest.mark.parametrize(
    "body", [{}, [], [5], {"speed": 2}, {"advance": -1}, {"advance": "x"}, {"paused": 1}]
)
async def test_a_wrong_clock_is_a_bad_request(api: BareApi, body: Any) -> None:
    status, said = await api("POST", "/_emulator/clock", json=body)

    assert (status, list(said)) == (400, ["message"])
