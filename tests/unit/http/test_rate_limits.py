"""Virtual time: every figure is exact, whatever the machine does."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine
from typing import Any, cast

import attrs
import pytest
from virtual_clock import VirtualLoop, run_virtually

from edgegap_async.api.operations import (
    DEPLOY,
    DEPLOY_TO_FLEET,
    GET_DEPLOYMENT,
    LIST_DEPLOYMENTS,
    OPERATIONS,
    STOP_DEPLOYMENT,
)
from edgegap_async.errors import InvalidRequest, LimitReached, WrongLoop
from edgegap_async.http.rate_limits import Limits, LimitState, LocalPermits, Permits, Priority


def most_in_one_second(times: list[float]) -> int:
    """The most calls in any window of one second, wherever it starts."""
    times = sorted(times)
    return max(sum(start <= time < start + 1 for time in times) for start in times)


def now() -> float:
    return asyncio.get_running_loop().time()


def in_background(work: Coroutine[Any, Any, object]) -> asyncio.Task[object]:
    return asyncio.create_task(work)


async def cancelled(*tasks: asyncio.Task[object]) -> None:
    for task in tasks:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {asyncio.CancelledError}


async def send(limits: Limits, count: int) -> list[float]:
    """When so many calls, all asked for at once, may go."""
    loop = asyncio.get_running_loop()
    times: list[float] = []

    async def one() -> None:
        await limits.acquire(DEPLOY)
        times.append(loop.time())

    began = loop.time()
    await asyncio.gather(*(one() for _ in range(count)))
    return [time - began for time in times]


def test_no_window_of_a_second_holds_more_than_the_documented_number() -> None:
    times = run_virtually(send(Limits(), 400))

    assert most_in_one_second(times) == 40


def test_at_least_97_percent_of_the_limit_is_used() -> None:
    times = run_virtually(send(Limits(), 400))

    assert 399 / times[-1] >= 0.97 * 40


@pytest.mark.virtual
async def test_the_first_calls_after_some_quiet_may_travel_a_tenth_of_a_second_longer() -> None:
    limits = Limits()
    for quiet in (0, 6):
        await asyncio.sleep(quiet)
        times = await send(limits, 80)
        arrivals = sorted(time + 0.1 if time < 0.1 else time for time in times)
        assert most_in_one_second(arrivals) <= 40

    again = await send(limits, 40)  # with no quiet before it nothing is lost
    assert again[-1] < 1.06


def test_the_first_ten_calls_of_an_idle_client_do_not_wait() -> None:
    times = run_virtually(send(Limits(), 10))

    assert times[-1] < 0.001


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


# ── turns ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_stops_go_before_deploys_and_those_before_the_rest(operation: Any) -> None:
    expected = Priority.OTHER
    if operation in {DEPLOY, DEPLOY_TO_FLEET}:
        expected = Priority.DEPLOY
    elif operation.method == "DELETE":
        expected = Priority.STOP

    assert Priority.of(operation) is expected
    assert Priority.STOP < Priority.DEPLOY < Priority.STATUS < Priority.OTHER


@pytest.mark.virtual
async def test_whoever_has_the_higher_priority_goes_first_whenever_he_comes() -> None:
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
    await asyncio.sleep(0.01)  # one of the last in line waits for the next permit already
    late = [in_background(one(Priority.STOP, number)) for number in range(2)]
    await asyncio.gather(*calls, *late)

    expected = [f"STOP {number}" for number in range(2)]
    for name in ("DEPLOY", "STATUS", "OTHER"):
        expected += [f"{name} {number}" for number in range(3)]
    assert served == expected


@pytest.mark.virtual
async def test_nobody_who_comes_in_the_very_moment_overtakes_those_who_wait() -> None:
    limits, served = Limits({"deploy": 2}), list[str]()
    loop = cast("VirtualLoop", asyncio.get_running_loop())

    async def one(name: str) -> None:
        await limits.acquire(DEPLOY)
        served.append(name)

    limits.on_rate_limited(DEPLOY, 1)
    waiting = in_background(one("waiting"))
    await asyncio.sleep(0.5)
    loop.stall(1)  # the bucket opens, and nobody has been told
    await asyncio.gather(waiting, one("coming"))

    assert served == ["waiting", "coming"]


@pytest.mark.virtual
async def test_those_that_were_refused_go_before_all_of_their_priority() -> None:
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
        one("look", Priority.STATUS),
    )

    assert served == ["look", "refused", "refused later", "first", "second"]


@pytest.mark.virtual
async def test_a_turn_that_comes_to_one_who_is_just_cancelled_goes_to_the_next() -> None:
    limits, order = Limits({"deploy": 2}), list[int]()

    async def one(number: int) -> None:
        await limits.acquire(DEPLOY)
        order.append(number)
        if number + 1 < len(calls):
            calls[number + 1].cancel()  # which is called in this very moment

    await limits.acquire(DEPLOY)
    calls = [in_background(one(number)) for number in range(5)]
    began = now()
    await asyncio.wait(calls)

    assert order == [0, 2, 4]
    assert now() - began < 3 / (0.97 * 2) + 0.1


@pytest.mark.virtual
async def test_one_cancelled_while_the_permit_comes_leaves_it_to_the_next() -> None:
    limits = Limits({"deploy": 2})
    await limits.acquire(DEPLOY)
    began = now()
    first = in_background(limits.acquire(DEPLOY))
    second = in_background(limits.acquire(DEPLOY))
    await asyncio.sleep(0.3)
    await cancelled(first)
    await second

    assert now() - began < 1 / (0.97 * 2)


@pytest.mark.virtual
async def test_a_permit_whose_waiter_left_is_still_there() -> None:
    limits, began = Limits(), now()
    await send(limits, 40)
    waiting = in_background(limits.acquire(DEPLOY))
    await asyncio.sleep(began + 0.9 - now())
    await cancelled(waiting)
    await asyncio.sleep(began + 1.14 - now())

    assert limits.snapshot()["deploy"].free == 10
    assert (await send(limits, 10))[-1] < 0.001


@pytest.mark.virtual
async def test_when_nobody_waits_nothing_is_left_behind() -> None:
    limits = Limits({"deploy": 1})
    await limits.acquire(DEPLOY)
    waiting = [in_background(limits.acquire(DEPLOY)) for _ in range(10)]
    await asyncio.sleep(0.1)
    assert limits.snapshot()["deploy"].queued == 10

    await cancelled(*waiting)

    assert limits.snapshot()["deploy"].queued == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.virtual
async def test_a_loop_that_stands_still_makes_no_burst() -> None:
    limits, times = Limits(), list[float]()
    loop = cast("VirtualLoop", asyncio.get_running_loop())

    async def one(number: int) -> None:
        await limits.acquire(DEPLOY)
        times.append(now())  # as late as it runs
        if number % 7 == 0:
            loop.stall(0.05)

    await asyncio.gather(*(one(number) for number in range(400)))

    assert most_in_one_second(times) == 40
    assert 400 / (times[-1] - times[0]) > 0.95 * 40


# ── 429 ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.virtual
async def test_a_429_closes_the_bucket_until_its_time() -> None:
    limits, began = Limits(), now()

    assert limits.on_rate_limited(DEPLOY, 7)
    assert limits.on_rate_limited(DEPLOY, 3)  # does not shorten it
    assert limits.snapshot()["deploy"].closed_for == pytest.approx(7, abs=0.001)
    assert limits.snapshot()["deploy"].free == 0
    await limits.acquire(DEPLOY)

    assert now() - began == pytest.approx(7, abs=0.001)
    assert limits.snapshot()["deploy"].closed_for == 0


@pytest.mark.virtual
async def test_a_429_holds_up_those_who_wait_already() -> None:
    limits, began = Limits({"deploy": 1}), now()
    await limits.acquire(DEPLOY)
    waiting = in_background(limits.acquire(DEPLOY))
    await asyncio.sleep(0.5)
    limits.on_rate_limited(DEPLOY, 7)
    await waiting

    assert now() - began == pytest.approx(7.5, abs=0.001)


@pytest.mark.virtual
async def test_a_429_makes_the_rate_seven_percent_less_for_a_while() -> None:
    limits = Limits()

    def rate() -> float:
        return limits.snapshot()["deploy"].rate / (0.975 * 40)

    assert rate() == 1
    limits.on_rate_limited(DEPLOY, 0)
    limits.on_rate_limited(DEPLOY, 0)  # for the same reason
    assert rate() == pytest.approx(0.93)
    await asyncio.sleep(10)
    assert rate() == pytest.approx(0.94)
    began = now()
    await send(limits, 200)
    assert now() - began > 190 / (0.97 * 0.975 * 40)
    for _ in range(20):
        limits.on_rate_limited(DEPLOY, 0)
        await asyncio.sleep(1)
    assert rate() == pytest.approx(0.801)
    await asyncio.sleep(300)
    assert rate() == 1


@pytest.mark.virtual
async def test_a_429_that_does_not_say_how_long_closes_for_a_moment_that_doubles() -> None:
    limits, pauses = Limits(), list[float]()

    async def refuse() -> None:
        began = now()
        limits.on_rate_limited(DEPLOY, 0)
        limits.on_rate_limited(DEPLOY, 0)  # it was under way already
        await limits.acquire(DEPLOY)
        pauses.append(round(now() - began, 3))

    for _ in range(5):
        await refuse()
    await asyncio.sleep(2)
    await refuse()

    assert pauses == [0.125, 0.25, 0.5, 1, 1, 0.125]


@pytest.mark.virtual
async def test_after_a_429_there_is_no_burst() -> None:
    limits = Limits()
    await send(limits, 1)
    waiting = in_background(send(limits, 60))
    await asyncio.sleep(1.02)  # the polling let one through that waits for the log
    limits.on_rate_limited(DEPLOY, 3)
    await waiting
    limits.on_rate_limited(DEPLOY, 3)
    times = await send(limits, 5)

    assert times[-1] - times[0] > 3 / 39


@pytest.mark.virtual
@pytest.mark.parametrize("limit", [0.3, 1, 3, 40])
async def test_at_the_lowest_rate_calls_still_go(limit: float) -> None:
    limits = Limits({"deploy": limit})
    for _ in range(20):
        limits.on_rate_limited(DEPLOY, 0)
        await asyncio.sleep(1)
    began = now()
    await asyncio.gather(*(limits.acquire(DEPLOY) for _ in range(20)))

    assert now() - began < 21 / (0.75 * limit)


@pytest.mark.virtual
async def test_an_operation_without_a_limit_is_not_closed_by_a_429() -> None:
    limits, began = Limits(), now()

    assert not limits.on_rate_limited(STOP_DEPLOYMENT, 60)
    await limits.acquire(STOP_DEPLOYMENT)

    assert now() - began < 0.001


# ── those who would rather not wait ──────────────────────────────────────────────────────────────


@pytest.mark.virtual
async def test_who_may_not_wait_goes_at_once_or_is_told_how_long_it_would_take() -> None:
    limits, began = Limits(), now()
    for _ in range(10):
        await limits.acquire(DEPLOY, max_wait=0)
    with pytest.raises(LimitReached, match=r"after 0\.03 s, and it may wait 0 s") as caught:
        await limits.acquire(DEPLOY, max_wait=0)

    assert now() - began < 0.001
    assert caught.value.operation == "deploy"
    assert caught.value.predicted_wait == pytest.approx(1 / 39, abs=0.001)


@pytest.mark.virtual
async def test_who_would_wait_too_long_is_told_so_at_once() -> None:
    limits = Limits({"deploy": 10})
    waiting = [in_background(limits.acquire(DEPLOY)) for _ in range(50)]
    await asyncio.sleep(0)
    began = now()
    with pytest.raises(LimitReached) as caught:
        await limits.acquire(DEPLOY, max_wait=4)
    assert now() - began < 0.001
    assert caught.value.predicted_wait == pytest.approx(5, abs=0.3)

    await limits.acquire(DEPLOY, max_wait=6)
    assert now() - began == pytest.approx(5, abs=0.3)
    await asyncio.gather(*waiting)


@pytest.mark.virtual
async def test_who_waits_longer_than_was_predicted_is_told_in_time() -> None:
    limits, began = Limits({"deploy": 1}), now()
    await limits.acquire(DEPLOY)
    waiting = in_background(limits.acquire(DEPLOY, max_wait=2))
    await asyncio.sleep(0.5)
    limits.on_rate_limited(DEPLOY, 60)
    with pytest.raises(LimitReached) as caught:
        await waiting

    assert now() - began == pytest.approx(2, abs=0.001)
    assert caught.value.predicted_wait == pytest.approx(60.5, abs=0.1)
    assert limits.snapshot()["deploy"].queued == 0


@pytest.mark.virtual
async def test_a_time_out_of_the_callers_own_stays_a_time_out() -> None:
    limits = Limits({"deploy": 0.1})
    await limits.acquire(DEPLOY)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(limits.acquire(DEPLOY, max_wait=20), 5)


@pytest.mark.virtual
@pytest.mark.parametrize("sent", [0, 1, 9, 10, 25, 60])
@pytest.mark.parametrize("ahead", [0, 1, 20, 39, 100])
async def test_the_predicted_wait_is_what_it_takes(sent: int, ahead: int) -> None:
    limits = Limits()
    await asyncio.gather(*(limits.acquire(DEPLOY) for _ in range(sent)))
    waiting = [in_background(limits.acquire(DEPLOY)) for _ in range(ahead)]
    await asyncio.sleep(0)
    predicted, began = limits.snapshot()["deploy"].predicted_wait, now()
    await limits.acquire(DEPLOY)

    assert now() - began == pytest.approx(predicted, abs=0.11)
    await asyncio.gather(*waiting)


@pytest.mark.virtual
@pytest.mark.parametrize("limit", [0.1, 1, 3, 40])
@pytest.mark.parametrize("since", [0.0, 0.3, 0.9, 4.2])
async def test_it_is_exact_whatever_the_pace_has_saved_up_by_then(
    limit: float, since: float
) -> None:
    limits = Limits({"deploy": limit})
    for _ in range(math.ceil(limit)):
        await limits.acquire(DEPLOY)
    await asyncio.sleep(since)
    predicted, began = limits.snapshot()["deploy"].predicted_wait, now()
    await limits.acquire(DEPLOY)

    assert now() - began == pytest.approx(predicted, abs=1e-4)


@pytest.mark.virtual
@pytest.mark.parametrize("seconds", [0.0, 1.0])
async def test_after_a_429_what_was_saved_up_is_not_counted(seconds: float) -> None:
    limits = Limits()
    await limits.acquire(DEPLOY)
    await asyncio.sleep(1)
    limits.on_rate_limited(DEPLOY, seconds)
    closed = limits.snapshot()["deploy"]
    waits = [limits._queues["deploy"].permits.expected_wait(ahead) for ahead in range(10)]
    began, times = now(), []
    await asyncio.sleep(closed.closed_for + 1e-3)
    opened = limits.snapshot()["deploy"].free
    for _ in range(10):
        await limits.acquire(DEPLOY)
        times.append(now() - began)

    assert (closed.free, opened) == (0, 1)
    assert times == pytest.approx(waits, abs=0.01)


@pytest.mark.virtual
@pytest.mark.parametrize("limit", [1.9, 20 / 7])
async def test_a_part_of_a_call_goes_in_no_second_and_is_not_predicted(limit: float) -> None:
    limits = Limits({"deploy": limit})
    rate = limits.snapshot()["deploy"].rate
    waiting = [in_background(limits.acquire(DEPLOY)) for _ in range(50)]
    await asyncio.sleep(0)
    predicted, began = limits.snapshot()["deploy"].predicted_wait, now()
    await limits.acquire(DEPLOY)

    assert now() - began == pytest.approx(predicted, abs=0.11)
    assert 50 / (now() - began) == pytest.approx(rate, rel=0.05)
    await asyncio.gather(*waiting)


@pytest.mark.virtual
async def test_after_a_429_the_log_is_as_much_longer_as_the_rate_is_less() -> None:
    limits = Limits()
    await limits.acquire(DEPLOY)
    limits.on_rate_limited(DEPLOY, 0)
    await asyncio.sleep(1.5)
    await limits.acquire(DEPLOY)
    await asyncio.sleep(0.5)  # so that there is a burst, and a rate that goes on from there
    times = await send(limits, 60)

    longer = 1.025 / 0.94
    assert max(sum(one <= time < one + longer for time in times) for one in times) <= 40


class _StillLoop(asyncio.SelectorEventLoop):
    """Its clock moves when it waits for a timer, and a little at each turn."""

    moved = 0.0

    def time(self) -> float:
        return self.moved

    def _run_once(self) -> None:
        self.moved += 2e-5
        if not self._ready and self._scheduled:  # type: ignore[attr-defined]
            self.moved = max(self.moved, self._scheduled[0]._when)  # type: ignore[attr-defined]
        super()._run_once()  # type: ignore[misc]


def test_who_is_first_lets_others_run_however_the_two_accounts_of_the_pace_differ() -> None:
    async def main() -> float:
        limits = Limits({"deploy": 10})
        permits = cast("LocalPermits", limits._queues["deploy"].permits)
        await asyncio.gather(*(limits.acquire(DEPLOY) for _ in range(3)))
        permits._pace_empty_at -= 0.001  # as rounding may add up to, in years
        await asyncio.gather(*(limits.acquire(DEPLOY) for _ in range(5)))
        return now()

    with asyncio.Runner(loop_factory=_StillLoop) as runner:
        assert runner.run(main()) == pytest.approx(0.56, abs=0.1)


# ── what can be seen ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.virtual
async def test_a_snapshot_tells_how_busy_each_limited_operation_is() -> None:
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


# ── one event loop ───────────────────────────────────────────────────────────────────────────────


def test_row_35_limits_belong_to_the_loop_they_were_first_used_in() -> None:
    limits = Limits()
    asyncio.run(limits.acquire(DEPLOY))

    async def see() -> None:
        limits.snapshot()

    for use in (limits.acquire(DEPLOY), limits.acquire(STOP_DEPLOYMENT), see()):
        with pytest.raises(WrongLoop, match="another event loop"):
            asyncio.run(use)


# ── permits from elsewhere ───────────────────────────────────────────────────────────────────────


class Leased:
    """Permits of a source far away: it is asked for three at most, and answers a second later."""

    rate = 3.0
    closed_for = 0.0

    def __init__(self, name: str, limit: float) -> None:
        self.name, self.limit = name, limit
        self.free = 0
        self.fetched = list[int]()
        self.granted = list[int]()  # in place of what is asked for
        self.refusals = list[float]()
        self.is_down = False

    async def try_acquire(self) -> bool:
        if not self.free:
            return False
        self.free -= 1
        return True

    async def wait_available(self, wanted: Callable[[], int]) -> None:
        if self.free:
            return
        await asyncio.sleep(1)
        if self.is_down:
            raise TimeoutError("no answer")
        self.free = self.granted.pop() if self.granted else min(wanted(), 3)
        self.fetched.append(self.free)

    def on_rate_limited(self, seconds: float) -> None:
        self.refusals.append(seconds)

    def expected_wait(self, ahead: int) -> float:
        return (ahead + 1) / self.rate


def leased() -> tuple[Limits, dict[str, Leased]]:
    sources = dict[str, Leased]()

    def source(name: str, limit: float) -> Permits:
        return sources.setdefault(name, Leased(name, limit))

    return Limits({"deploy": 30}, permits=source), sources


@pytest.mark.virtual
async def test_permits_may_come_from_elsewhere_a_few_at_a_time() -> None:
    limits, sources = leased()
    began = now()
    await asyncio.gather(*(limits.acquire(DEPLOY) for _ in range(7)))

    assert now() - began == pytest.approx(3, abs=0.001)
    assert sources["deploy"].fetched == [3, 3, 1]
    assert (sources["deploy"].name, sources["deploy"].limit) == ("deploy", 30)
    assert STOP_DEPLOYMENT.name not in sources

    limits.on_rate_limited(DEPLOY, 5)
    assert sources["deploy"].refusals == [5]
    assert limits.snapshot()["deploy"].predicted_wait == pytest.approx(1 / 3)


@pytest.mark.virtual
async def test_what_was_fetched_too_much_is_there_for_the_next() -> None:
    limits, sources = leased()
    sources["deploy"].granted = [3]
    await limits.acquire(DEPLOY)
    began = now()
    await limits.acquire(DEPLOY)
    await limits.acquire(DEPLOY)

    assert now() - began < 0.001
    assert sources["deploy"].fetched == [3]


@pytest.mark.virtual
async def test_a_source_that_gives_none_is_asked_again() -> None:
    limits, sources = leased()
    sources["deploy"].granted = [0]
    began = now()
    await limits.acquire(DEPLOY)

    assert now() - began == pytest.approx(2, abs=0.001)
    assert sources["deploy"].fetched == [0, 1]


@pytest.mark.virtual
async def test_a_source_that_fails_fails_one_caller_and_nobody_hangs() -> None:
    limits, sources = leased()
    waiting = [in_background(limits.acquire(DEPLOY, max_wait=30)) for _ in range(3)]
    await asyncio.sleep(0)
    sources["deploy"].is_down = True
    with pytest.raises(TimeoutError, match="no answer"):
        await waiting[0]
    sources["deploy"].is_down = False
    await asyncio.gather(*waiting[1:])


# ── settings ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.virtual
async def test_an_operation_of_ones_own_has_the_limit_that_it_says() -> None:
    own, limits, times = attrs.evolve(DEPLOY, name="own", limit=5), Limits(), list[float]()
    for _ in range(12):
        await limits.acquire(own)
        times.append(now())

    assert most_in_one_second(times) == 5
    assert limits.snapshot()["own"].limit == 5


@pytest.mark.virtual
async def test_a_limit_can_be_lifted() -> None:
    limits, loop = Limits({"deploy": None}), asyncio.get_running_loop()
    began = loop.time()

    await asyncio.gather(*(limits.acquire(DEPLOY) for _ in range(500)))

    assert loop.time() - began < 0.01


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"deploys": 1}, "no operation 'deploys'"),
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
