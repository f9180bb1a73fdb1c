"""Virtual time: every figure is exact, whatever the machine does."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from virtual_clock import run_virtually

from edgegap_async.endpoints import DEPLOY, GET_DEPLOYMENT, LIST_DEPLOYMENTS, STOP_DEPLOYMENT
from edgegap_async.errors import InvalidRequest
from edgegap_async.limits import Limits


def most_in_one_second(times: list[float]) -> int:
    """The most calls in any window of one second, wherever it starts."""
    times = sorted(times)
    return max(sum(start <= time < start + 1 for time in times) for start in times)


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


def test_the_first_ten_calls_of_an_idle_client_do_not_wait() -> None:
    times = run_virtually(send(Limits(), 10))

    assert times[-1] < 0.001


@given(
    limit=st.floats(0.2, 60),
    arrivals=st.lists(st.floats(0, 5), min_size=1, max_size=80),
    cancelled=st.randoms(use_true_random=False),
)
@settings(max_examples=40, deadline=None)
def test_whatever_comes_and_goes_no_second_holds_more(
    limit: float, arrivals: list[float], cancelled: random.Random
) -> None:
    async def main() -> list[float]:
        limits = Limits({"deploy": limit})
        times: list[float] = []

        async def one(arrival: float) -> None:
            await asyncio.sleep(arrival)
            await limits.acquire(DEPLOY)
            times.append(asyncio.get_running_loop().time())

        calls = [asyncio.create_task(one(arrival)) for arrival in arrivals]
        await asyncio.sleep(cancelled.uniform(0, 5))
        for call in calls:
            if cancelled.random() < 0.3:
                call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        return times

    times = run_virtually(main())

    if times:
        assert most_in_one_second(times) <= max(1, limit)


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
    limits.close_for(STOP_DEPLOYMENT, 60)
    await limits.acquire(STOP_DEPLOYMENT)

    assert loop.time() - began < 0.01


@pytest.mark.virtual
async def test_a_closed_bucket_lets_nothing_pass_until_its_time() -> None:
    limits, loop = Limits(), asyncio.get_running_loop()
    began = loop.time()

    limits.close_for(DEPLOY, 7)
    limits.close_for(DEPLOY, 3)  # does not shorten it
    await limits.acquire(DEPLOY)

    assert loop.time() - began == pytest.approx(7, abs=0.001)


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
        ({"deploy": float("nan")}, "above 0"),
    ],
)
def test_a_wrong_setting_says_what_is_wrong(settings: dict[str, float], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        Limits(settings)
