"""The rates that the limits allow, their settings and state. Exact, because time is virtual."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from typing import cast

import attrs
import pytest
from limited_calls import in_background, most_in_one_second, send
from virtual_clock import VirtualLoop, run_virtually

from edgegap_async.api.operations import (
    DEPLOY,
    GET_DEPLOYMENT,
    LIST_DEPLOYMENTS,
    STOP_DEPLOYMENT,
)
from edgegap_async.api.register import OPERATIONS
from edgegap_async.concurrency import loop_time
from edgegap_async.errors import InvalidRequest, WrongLoop
from edgegap_async.http.rate_limits import Limits, LimitState

# ── rates ─────────────────────────────────────────────────────────────────────────────────────────


def test_no_window_of_a_second_holds_more_than_the_documented_number() -> None:
    times = run_virtually(send(Limits(), 400))

    assert most_in_one_second(times) == 40


def test_at_least_97_percent_of_the_limit_is_used() -> None:
    times = run_virtually(send(Limits(), 400))

    assert 399 / times[-1] >= 0.97 * 40


@pytest.mark.virtual
async def test_the_first_calls_after_an_idle_period_may_travel_a_tenth_of_a_second_longer() -> None:
    limits = Limits()
    for quiet in (0, 6):
        await asyncio.sleep(quiet)
        times = await send(limits, 80)
        arrivals = sorted(time + 0.1 if time < 0.1 else time for time in times)
        assert most_in_one_second(arrivals) <= 40

    again = await send(limits, 40)  # without an idle period before it
    assert again[-1] < 1.06


def test_the_first_ten_calls_of_an_idle_client_do_not_wait() -> None:
    times = run_virtually(send(Limits(), 10))

    assert times[-1] < 0.001


def test_row_36_operations_do_not_wait_for_each_other() -> None:
    async def main() -> float:
        limits, loop = Limits(), asyncio.get_running_loop()
        waiting = [asyncio.create_task(limits.acquire(LIST_DEPLOYMENTS)) for _ in range(100)]
        await asyncio.sleep(0.5)
        began = loop.time()
        await limits.acquire(GET_DEPLOYMENT)
        took = loop.time() - began
        for task in waiting:
            task.cancel()
        return took

    assert run_virtually(main()) < 0.001


@pytest.mark.virtual
async def test_an_operation_without_a_documented_limit_does_not_wait() -> None:
    limits, loop = Limits(), asyncio.get_running_loop()
    began = loop.time()

    for _ in range(500):
        await limits.acquire(STOP_DEPLOYMENT)

    assert loop.time() - began < 0.01


@pytest.mark.virtual
async def test_a_stalled_event_loop_makes_no_burst() -> None:
    limits, times = Limits(), list[float]()
    loop = cast("VirtualLoop", asyncio.get_running_loop())

    async def one(number: int) -> None:
        await limits.acquire(DEPLOY)
        times.append(loop_time())  # when the task runs
        if number % 7 == 0:
            loop.stall(0.05)

    await asyncio.gather(*(one(number) for number in range(400)))

    assert most_in_one_second(times) == 40
    assert 400 / (times[-1] - times[0]) > 0.95 * 40


# ── settings and state ────────────────────────────────────────────────────────────────────────────


@pytest.mark.virtual
async def test_an_operation_of_the_callers_own_has_its_own_limit() -> None:
    own, limits, times = attrs.evolve(DEPLOY, name="own", limit=5), Limits(), list[float]()
    for _ in range(12):
        await limits.acquire(own)
        times.append(loop_time())

    assert most_in_one_second(times) == 5
    assert limits.snapshot()["own"].limit == 5


@pytest.mark.virtual
async def test_a_limit_can_be_lifted() -> None:
    limits, loop = Limits({"deploy": None}), asyncio.get_running_loop()
    began = loop.time()

    await asyncio.gather(*(limits.acquire(DEPLOY) for _ in range(500)))

    assert loop.time() - began < 0.01


@pytest.mark.parametrize("name", ["get_metrics", "list_fleet_hosts", "list_relay_sessions"])
def test_any_call_can_get_a_limit(name: str) -> None:
    assert Limits({name: 7}).snapshot()[name].limit == 7


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"deploys": 1}, r"there is no call 'deploys'; there are .* Did you mean deploy\?"),
        ({"deploy": 0}, "above 0"),
        ({"deploy": -1}, "above 0"),
        ({"deploy": float("inf")}, "above 0"),
        ({"deploy": 1e9}, "100,000 at most, not 1000000000.0; None lifts it"),
        ({"deploy": float("nan")}, "above 0"),
    ],
)
def test_a_wrong_setting_says_what_is_wrong(settings: dict[str, float], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        Limits(settings)


@pytest.mark.virtual
async def test_a_snapshot_has_the_state_of_each_limited_operation() -> None:
    limits = Limits()
    before = limits.snapshot()
    assert before.keys() == {operation.name for operation in OPERATIONS if operation.limit}
    assert before["deploy"] == LimitState(
        limit=40, rate=39, free=10, queued=0, predicted_wait=0, closed_for=0
    )

    waiting = [in_background(limits.acquire(DEPLOY)) for _ in range(49)]
    await asyncio.sleep(0)
    after = limits.snapshot()
    assert after["deploy"].free == 0
    assert after["deploy"].queued == 39
    assert after["deploy"].predicted_wait == pytest.approx(1.125, abs=0.03)
    assert after["get_deployment"] == before["get_deployment"]
    await asyncio.gather(*waiting)


def test_row_35_limits_belong_to_the_loop_they_were_first_used_in() -> None:
    limits = Limits()
    asyncio.run(limits.acquire(DEPLOY))

    async def see() -> None:
        limits.snapshot()

    for use in (limits.acquire(DEPLOY), limits.acquire(STOP_DEPLOYMENT), see()):
        with pytest.raises(WrongLoop, match="another event loop"):
            asyncio.run(use)


# ── from other threads ────────────────────────────────────────────────────────────────────────────


def test_a_snapshot_can_be_taken_in_a_thread_without_an_event_loop() -> None:
    async def main() -> None:
        limits = Limits({"deploy": 1})  # so slow that a busy machine does not change the numbers
        while limits.snapshot()["deploy"].free:
            await limits.acquire(DEPLOY)
        waiting = [in_background(limits.acquire(DEPLOY)) for _ in range(30)]
        await asyncio.sleep(0)
        state = (await asyncio.to_thread(limits.snapshot))["deploy"]

        assert state.free == 0
        assert 25 <= state.queued <= 30
        assert 25 < state.predicted_wait < 35
        for call in waiting:
            call.cancel()

    asyncio.run(main())


def test_snapshots_of_other_threads_are_consistent_while_calls_go() -> None:
    ended = threading.Event()
    taken = list[LimitState]()

    async def main() -> None:
        limits = Limits({"deploy": 2000})

        def watch() -> None:
            while not ended.is_set():
                taken.append(limits.snapshot()["deploy"])

        async def call() -> None:
            while not ended.is_set():
                await limits.acquire(DEPLOY)

        watchers = [asyncio.get_running_loop().run_in_executor(None, watch) for _ in range(2)]
        calls = [asyncio.create_task(call()) for _ in range(20)]
        while len(taken) < 300:
            await asyncio.sleep(0.001)
        ended.set()
        await asyncio.gather(*watchers, *calls)

    asyncio.run(main())
    assert all(state.free == 0 or state.predicted_wait == 0 or state.queued for state in taken)
    assert all(0 <= state.queued <= 20 and 0 <= state.predicted_wait < 1.1 for state in taken)


def test_a_snapshot_of_another_thread_does_not_wait_for_a_blocked_loop() -> None:
    async def main() -> None:
        limits = Limits()
        await limits.acquire(DEPLOY)
        with concurrent.futures.ThreadPoolExecutor(1) as threads:
            state = threads.submit(limits.snapshot).result()["deploy"]  # the loop stands still

        assert state.free in {9, 10}
        assert state.queued == 0

    asyncio.run(main())


def test_a_snapshot_can_be_taken_before_the_first_call_and_after_the_loop_has_ended() -> None:
    limits = Limits()
    assert limits.snapshot()["deploy"].free == 10

    async def main() -> None:
        for _ in range(3):
            await limits.acquire(DEPLOY)

    asyncio.run(main())
    assert 7 <= limits.snapshot()["deploy"].free <= 10
