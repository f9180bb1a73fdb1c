"""The order in which waiting calls go, and permits of another source. In virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest
from limited_calls import cancelled, in_background, send
from virtual_clock import VirtualLoop, run_virtually

from edgegap_async.api.operations import DEPLOY, DEPLOY_TO_FLEET, STOP_DEPLOYMENT
from edgegap_async.api.register import OPERATIONS
from edgegap_async.concurrency import loop_time
from edgegap_async.http.rate_limits import Limits, LimitState, Permits, Priority

# ── order ─────────────────────────────────────────────────────────────────────────────────────────


def test_waiters_are_served_in_the_order_they_came() -> None:
    async def main() -> list[int]:
        limits, served = Limits({"deploy": 5}), list[int]()

        async def one(number: int) -> None:
            await limits.acquire(DEPLOY)
            served.append(number)

        await asyncio.gather(*(one(number) for number in range(20)))
        return served

    assert run_virtually(main()) == list(range(20))


def test_cancelled_waiters_cost_no_permit() -> None:
    async def main() -> float:
        limits, loop = Limits(), asyncio.get_running_loop()
        began = loop.time()
        waiting = [asyncio.create_task(limits.acquire(DEPLOY)) for _ in range(200)]
        await asyncio.sleep(0.1)
        for task in waiting[10:]:
            task.cancel()
        await asyncio.gather(*(send(limits, 1) for _ in range(40)))
        return loop.time() - began

    assert run_virtually(main()) < 50 / (0.97 * 40) + 0.1


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_stops_go_before_deploys_and_deploys_before_other_calls(operation: Any) -> None:
    expected = Priority.OTHER
    if operation in {DEPLOY, DEPLOY_TO_FLEET}:
        expected = Priority.DEPLOY
    elif operation.method == "DELETE":
        expected = Priority.STOP

    assert Priority.of(operation) is expected
    assert Priority.STOP < Priority.DEPLOY < Priority.STATUS < Priority.OTHER


@pytest.mark.virtual
async def test_a_call_of_higher_priority_goes_first_even_if_it_comes_later() -> None:
    limits, served = Limits({"deploy": 5}), list[str]()

    async def one(priority: Priority, number: int) -> None:
        await limits.acquire(DEPLOY, priority)
        served.append(f"{priority.name} {number}")

    await limits.acquire(DEPLOY)  # nothing is free now
    calls = [
        in_background(one(priority, number))
        for priority in (Priority.OTHER, Priority.STATUS, Priority.DEPLOY)
        for number in range(3)
    ]
    await asyncio.sleep(0.01)  # a call of the lowest priority waits for the next permit already
    late = [in_background(one(Priority.STOP, number)) for number in range(2)]
    await asyncio.gather(*calls, *late)

    expected = [f"STOP {number}" for number in range(2)]
    for name in ("DEPLOY", "STATUS", "OTHER"):
        expected += [f"{name} {number}" for number in range(3)]
    assert served == expected


@pytest.mark.virtual
async def test_a_call_that_comes_as_the_limit_opens_does_not_overtake_waiting_calls() -> None:
    limits, served = Limits({"deploy": 2}), list[str]()
    loop = cast("VirtualLoop", asyncio.get_running_loop())

    async def one(name: str) -> None:
        await limits.acquire(DEPLOY)
        served.append(name)

    limits.on_rate_limited(DEPLOY, 1)
    waiting = in_background(one("waiting"))
    await asyncio.sleep(0.5)
    loop.stall(1)  # the limit opens, and no waiting call has run yet
    await asyncio.gather(waiting, one("coming"))

    assert served == ["waiting", "coming"]


@pytest.mark.virtual
async def test_calls_that_were_refused_go_before_others_of_their_priority() -> None:
    limits, served = Limits({"deploy": 5}), list[str]()

    async def one(name: str, priority: Priority, *, front: bool = False) -> None:
        await limits.acquire(DEPLOY, priority, front=front)
        served.append(name)

    await limits.acquire(DEPLOY)
    await asyncio.gather(
        one("first", Priority.OTHER),
        one("second", Priority.OTHER),
        one("refused", Priority.OTHER, front=True),
        one("refused later", Priority.OTHER, front=True),
        one("status", Priority.STATUS),
    )

    assert served == ["status", "refused", "refused later", "first", "second"]


@pytest.mark.virtual
async def test_the_turn_of_a_call_that_is_just_cancelled_goes_to_the_next() -> None:
    limits, order = Limits({"deploy": 2}), list[int]()

    async def one(number: int) -> None:
        await limits.acquire(DEPLOY)
        order.append(number)
        if number + 1 < len(calls):
            calls[number + 1].cancel()  # which is woken at this moment

    await limits.acquire(DEPLOY)
    calls = [in_background(one(number)) for number in range(5)]
    began = loop_time()
    await asyncio.wait(calls)

    assert order == [0, 2, 4]
    assert loop_time() - began < 3 / (0.97 * 2) + 0.1


@pytest.mark.virtual
async def test_a_call_cancelled_as_its_permit_comes_leaves_it_to_the_next() -> None:
    limits = Limits({"deploy": 2})
    await limits.acquire(DEPLOY)
    began = loop_time()
    first = in_background(limits.acquire(DEPLOY))
    second = in_background(limits.acquire(DEPLOY))
    await asyncio.sleep(0.3)
    await cancelled(first)
    await second

    assert loop_time() - began < 1 / (0.97 * 2)


@pytest.mark.virtual
async def test_a_permit_of_a_cancelled_call_is_still_there() -> None:
    limits, began = Limits(), loop_time()
    await send(limits, 40)
    waiting = in_background(limits.acquire(DEPLOY))
    await asyncio.sleep(began + 0.9 - loop_time())
    await cancelled(waiting)
    await asyncio.sleep(began + 1.14 - loop_time())

    assert limits.snapshot()["deploy"].free == 10
    assert (await send(limits, 10))[-1] < 0.001


@pytest.mark.virtual
async def test_an_empty_queue_leaves_no_task_behind() -> None:
    limits = Limits({"deploy": 1})
    await limits.acquire(DEPLOY)
    waiting = [in_background(limits.acquire(DEPLOY)) for _ in range(10)]
    await asyncio.sleep(0.1)
    assert limits.snapshot()["deploy"].queued == 10

    await cancelled(*waiting)

    assert limits.snapshot()["deploy"].queued == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}


# ── permits of another source ─────────────────────────────────────────────────────────────────────


class Leased:
    """Permits of a remote source, which gives three at most, after a second."""

    rate = 3.0

    def __init__(self, name: str, limit: float) -> None:
        self.name, self.limit = name, limit
        self.free = 0
        self.fetched = list[int]()
        self.given = list[int]()  # how many it gives, in place of those asked for
        self.refusals = list[float]()
        self.is_down = False

    async def try_acquire(self, *, again: bool = False) -> bool:
        if not self.free:
            return False
        self.free -= 1
        return True

    async def wait_available(self, wanted: Callable[[], int], *, again: bool = False) -> None:
        if self.free:
            return
        await asyncio.sleep(1)
        if self.is_down:
            raise TimeoutError("no answer")
        self.free = self.given.pop() if self.given else min(wanted(), 3)
        self.fetched.append(self.free)

    def give_back(self) -> bool:
        return False

    def state(self, now: float, queued: int) -> LimitState:
        return LimitState(
            limit=self.limit,
            rate=self.rate,
            free=self.free,
            queued=queued,
            predicted_wait=self.expected_wait(queued),
            closed_for=0.0,
        )

    def on_rate_limited(self, seconds: float, sent_at: float | None = None) -> None:
        self.refusals.append(seconds)

    def expected_wait(self, ahead: int, *, again: bool = False) -> float:
        return (ahead + 1) / self.rate


def leased() -> tuple[Limits, dict[str, Leased]]:
    sources = dict[str, Leased]()

    def source(name: str, limit: float) -> Permits:
        return sources.setdefault(name, Leased(name, limit))

    return Limits({"deploy": 30}, permits=source), sources


@pytest.mark.virtual
async def test_permits_may_come_from_elsewhere_a_few_at_a_time() -> None:
    limits, sources = leased()
    began = loop_time()
    await asyncio.gather(*(limits.acquire(DEPLOY) for _ in range(7)))

    assert loop_time() - began == pytest.approx(3, abs=0.001)
    assert sources["deploy"].fetched == [3, 3, 1]
    assert (sources["deploy"].name, sources["deploy"].limit) == ("deploy", 30)
    assert STOP_DEPLOYMENT.name not in sources

    limits.on_rate_limited(DEPLOY, 5)
    assert sources["deploy"].refusals == [5]
    assert limits.snapshot()["deploy"].predicted_wait == pytest.approx(1 / 3)


@pytest.mark.virtual
async def test_a_surplus_permit_serves_the_next_call() -> None:
    limits, sources = leased()
    sources["deploy"].given = [3]
    await limits.acquire(DEPLOY)
    began = loop_time()
    await limits.acquire(DEPLOY)
    await limits.acquire(DEPLOY)

    assert loop_time() - began < 0.001
    assert sources["deploy"].fetched == [3]


@pytest.mark.virtual
async def test_a_source_that_gives_none_is_asked_again() -> None:
    limits, sources = leased()
    sources["deploy"].given = [0]
    began = loop_time()
    await limits.acquire(DEPLOY)

    assert loop_time() - began == pytest.approx(2, abs=0.001)
    assert sources["deploy"].fetched == [0, 1]


@pytest.mark.virtual
async def test_a_failing_source_fails_one_call_and_no_other_hangs() -> None:
    limits, sources = leased()
    waiting = [in_background(limits.acquire(DEPLOY, max_wait=30)) for _ in range(3)]
    await asyncio.sleep(0)
    sources["deploy"].is_down = True
    with pytest.raises(TimeoutError, match="no answer"):
        await waiting[0]
    sources["deploy"].is_down = False
    await asyncio.gather(*waiting[1:])
