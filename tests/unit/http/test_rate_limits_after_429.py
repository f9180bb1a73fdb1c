"""What a 429 does to the rate limit of its operation. In virtual time."""

from __future__ import annotations

import asyncio

import pytest
from limited_calls import in_background, send

from edgegap_async.api.operations import (
    DEPLOY,
    STOP_DEPLOYMENT,
)
from edgegap_async.concurrency import loop_time
from edgegap_async.http.rate_limits import Limits


@pytest.mark.virtual
async def test_a_429_closes_the_bucket_until_its_time() -> None:
    limits, began = Limits(), loop_time()

    assert limits.on_rate_limited(DEPLOY, 7)
    assert limits.on_rate_limited(DEPLOY, 3)  # does not shorten it
    assert limits.snapshot()["deploy"].closed_for == pytest.approx(7, abs=0.001)
    assert limits.snapshot()["deploy"].free == 0
    await limits.acquire(DEPLOY)

    assert loop_time() - began == pytest.approx(7, abs=0.001)
    assert limits.snapshot()["deploy"].closed_for == 0


@pytest.mark.virtual
async def test_a_429_delays_calls_that_wait_already() -> None:
    limits, began = Limits({"deploy": 1}), loop_time()
    await limits.acquire(DEPLOY)
    waiting = in_background(limits.acquire(DEPLOY))
    await asyncio.sleep(0.5)
    limits.on_rate_limited(DEPLOY, 7)
    await waiting

    assert loop_time() - began == pytest.approx(7.5, abs=0.001)


@pytest.mark.virtual
async def test_a_429_cuts_the_rate_by_seven_percent_for_a_while() -> None:
    limits = Limits()

    def rate() -> float:
        return limits.snapshot()["deploy"].rate / (0.975 * 40)

    assert rate() == 1
    limits.on_rate_limited(DEPLOY, 0)
    limits.on_rate_limited(DEPLOY, 0)  # of a call that was sent before the first 429
    assert rate() == pytest.approx(0.93)
    await asyncio.sleep(10)
    assert rate() == pytest.approx(0.94)
    began = loop_time()
    await send(limits, 200)
    assert loop_time() - began > 190 / (0.97 * 0.975 * 40)
    for _ in range(20):
        limits.on_rate_limited(DEPLOY, 0)
        await asyncio.sleep(1)
    assert 0.15 < rate() < 0.25
    await asyncio.sleep(300)
    assert rate() == 1


@pytest.mark.virtual
async def test_a_429_without_a_time_closes_the_limit_for_a_pause_that_doubles() -> None:
    limits, pauses = Limits(), list[float]()

    async def refuse() -> None:
        limits.on_rate_limited(DEPLOY, 0)
        limits.on_rate_limited(DEPLOY, 0)  # of a call that was sent before
        pauses.append(round(limits.snapshot()["deploy"].closed_for, 3))
        await asyncio.sleep(pauses[-1] + 0.001)

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
    await asyncio.sleep(1.02)  # the pace lets a call through that waits for the log
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
    began = loop_time()
    await asyncio.gather(*(limits.acquire(DEPLOY) for _ in range(20)))

    assert loop_time() - began < 21 / (0.75 * limit)


@pytest.mark.virtual
async def test_an_operation_without_a_limit_is_not_closed_by_a_429() -> None:
    limits, began = Limits(), loop_time()

    assert not limits.on_rate_limited(STOP_DEPLOYMENT, 60)
    await limits.acquire(STOP_DEPLOYMENT)

    assert loop_time() - began < 0.001


@pytest.mark.virtual
async def test_after_a_429_the_log_is_longer_by_the_same_factor() -> None:
    limits = Limits()
    await limits.acquire(DEPLOY)
    limits.on_rate_limited(DEPLOY, 0)
    await asyncio.sleep(1.5)
    await limits.acquire(DEPLOY)
    await asyncio.sleep(0.5)  # so that a burst is possible, and then the long-run rate
    times = await send(limits, 60)

    longer = 1.025 / 0.94
    assert max(sum(one <= time < one + longer for time in times) for one in times) <= 40


@pytest.mark.virtual
@pytest.mark.parametrize("seconds", [0.0, 1.0])
async def test_after_a_429_the_predicted_wait_counts_no_burst(seconds: float) -> None:
    limits = Limits()
    await limits.acquire(DEPLOY)
    await asyncio.sleep(1)
    limits.on_rate_limited(DEPLOY, seconds)
    closed = limits.snapshot()["deploy"]
    waits = [limits._queues["deploy"].permits.expected_wait(ahead) for ahead in range(10)]
    began, times = loop_time(), []
    await asyncio.sleep(closed.closed_for + 1e-3)
    opened = limits.snapshot()["deploy"].free
    for _ in range(10):
        await limits.acquire(DEPLOY)
        times.append(loop_time() - began)

    assert (closed.free, opened) == (0, 1)
    assert times == pytest.approx(waits, abs=0.01)
