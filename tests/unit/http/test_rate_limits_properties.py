"""What the limits promise under random calls, cancellations, stalls and 429s. In virtual time."""

from __future__ import annotations

import asyncio
from typing import cast

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from limited_calls import most_in_one_second
from virtual_clock import VirtualLoop, run_virtually

from edgegap_async.api.operations import DEPLOY
from edgegap_async.http.rate_limits import Limits, Priority

SETTINGS = settings(max_examples=150)


@attrs.frozen
class Call:
    """A call that waits for a permit: when it starts, and after how long it is cancelled."""

    at: float
    priority: Priority = Priority.OTHER
    cancelled_after: float | None = None


@attrs.define
class Course:
    """The course of all calls of one example."""

    served: list[tuple[float, int]] = attrs.field(factory=list)
    """Time and number of each call that got a permit."""
    came: list[int] = attrs.field(factory=list)
    """Numbers of the calls in the order of their start."""
    waiting: set[int] = attrs.field(factory=set)
    overtaken: list[tuple[int, int]] = attrs.field(factory=list)
    """A call that got a permit, and a waiting call of higher priority."""

    @property
    def times(self) -> list[float]:
        return [at for at, _ in self.served]


CALLS = st.lists(
    st.builds(
        Call,
        at=st.floats(0, 4) | st.sampled_from([0.0, 1.0]),
        priority=st.sampled_from(Priority),
        cancelled_after=st.none() | st.floats(0, 3),
    ),
    min_size=1,
    max_size=120,
)
STALLS = st.lists(st.tuples(st.floats(0, 5), st.floats(0, 0.3)), max_size=8)
REFUSALS = st.lists(st.tuples(st.floats(0, 5), st.floats(0, 2)), max_size=6)
RATES = st.floats(0.5, 60) | st.sampled_from([1.0, 10.0, 40.0])


def play(
    limit: float,
    calls: list[Call],
    stalls: list[tuple[float, float]] | None = None,
    refusals: list[tuple[float, float]] | None = None,
) -> Course:
    """Runs the calls and returns their course."""
    course = Course()

    async def main() -> None:
        loop = cast("VirtualLoop", asyncio.get_running_loop())
        limits = Limits({"deploy": limit})
        tasks = dict[int, asyncio.Task[None]]()

        async def one(number: int, call: Call) -> None:
            course.came.append(number)
            course.waiting.add(number)
            if call.cancelled_after is not None:
                loop.call_later(call.cancelled_after, leave, number)
            await limits.acquire(DEPLOY, call.priority)
            course.served.append((loop.time(), number))
            course.waiting.discard(number)
            course.overtaken += [
                (number, other) for other in course.waiting if calls[other].priority < call.priority
            ]

        def come(number: int, call: Call) -> None:
            tasks[number] = asyncio.create_task(one(number, call))

        def leave(number: int) -> None:
            course.waiting.discard(number)
            tasks[number].cancel()

        for number, call in enumerate(calls):
            loop.call_later(call.at, come, number, call)
        for at, seconds in stalls or []:
            # Not at the time at which a call starts: the order of the two would be random.
            loop.call_later(at + 0.0005, loop.stall, seconds)
        for at, seconds in refusals or []:
            loop.call_later(at, limits.on_rate_limited, DEPLOY, seconds)
        await asyncio.sleep(6)
        await asyncio.gather(*tasks.values(), return_exceptions=True)

    run_virtually(main())
    return course


@given(RATES, CALLS, STALLS, REFUSALS)
@SETTINGS
def test_no_window_of_a_second_holds_more_than_the_limit(
    limit: float,
    calls: list[Call],
    stalls: list[tuple[float, float]],
    refusals: list[tuple[float, float]],
) -> None:
    course = play(limit, calls, stalls, refusals)

    assert most_in_one_second(course.times) <= max(1, limit)


@given(RATES, CALLS, STALLS, REFUSALS)
@SETTINGS
def test_calls_are_served_by_priority_and_order_of_arrival(
    limit: float,
    calls: list[Call],
    stalls: list[tuple[float, float]],
    refusals: list[tuple[float, float]],
) -> None:
    course = play(limit, calls, stalls, refusals)
    served = [number for _, number in course.served]

    assert not course.overtaken
    for priority in Priority:
        came = [n for n in course.came if calls[n].priority is priority and n in served]
        assert [n for n in served if calls[n].priority is priority] == came
    assert not course.waiting
    assert set(served) >= {n for n, call in enumerate(calls) if call.cancelled_after is None}


@given(RATES, CALLS, STALLS)
@SETTINGS
def test_cancelled_calls_cost_the_others_nothing(
    limit: float, calls: list[Call], stalls: list[tuple[float, float]]
) -> None:
    course = play(limit, calls, stalls)
    served = {number for _, number in course.served}
    without = play(
        limit, [attrs.evolve(calls[n], cancelled_after=None) for n in sorted(served)], stalls
    )

    for with_them, alone in zip(course.times, without.times, strict=True):
        assert with_them <= alone + 0.001


@given(RATES, CALLS, REFUSALS)
@SETTINGS
def test_no_call_goes_while_a_429_closes_the_limit(
    limit: float, calls: list[Call], refusals: list[tuple[float, float]]
) -> None:
    course = play(limit, calls, refusals=refusals)

    for at, seconds in refusals:
        assert not [time for time in course.times if at + 1e-3 < time < at + seconds - 1e-3]


@given(st.sampled_from([3.0, 10.0, 40.0]), st.integers(100, 300), STALLS)
@settings(max_examples=30)
def test_under_full_demand_97_percent_of_the_limit_is_used(
    limit: float, count: int, stalls: list[tuple[float, float]]
) -> None:
    course = play(limit, [Call(0.0)] * count, stalls)
    lost = sum(seconds for _, seconds in stalls)

    assert course.times[-1] <= count / (0.97 * limit) + lost + 0.1
