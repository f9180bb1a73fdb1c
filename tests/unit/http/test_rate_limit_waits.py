"""How long a call waits for its rate limit, is predicted to wait, and may wait. In virtual time."""

from __future__ import annotations

import asyncio
import math
from typing import cast

import pytest
from limited_calls import in_background

from edgegap_async.api.operations import (
    DEPLOY,
)
from edgegap_async.concurrency import loop_time
from edgegap_async.errors import LimitReached
from edgegap_async.http.rate_limits import Limits, LocalPermits


@pytest.mark.virtual
async def test_a_call_that_may_not_wait_goes_at_once_or_fails_with_the_predicted_wait() -> None:
    limits, began = Limits(), loop_time()
    for _ in range(10):
        await limits.acquire(DEPLOY, max_wait=0)
    with pytest.raises(LimitReached, match=r"after 0\.03 s, and it may wait 0 s") as caught:
        await limits.acquire(DEPLOY, max_wait=0)

    assert loop_time() - began < 0.001
    assert caught.value.operation == "deploy"
    assert caught.value.predicted_wait == pytest.approx(1 / 39, abs=0.001)


@pytest.mark.virtual
async def test_a_call_that_would_wait_too_long_fails_at_once() -> None:
    limits = Limits({"deploy": 10})
    waiting = [in_background(limits.acquire(DEPLOY)) for _ in range(50)]
    await asyncio.sleep(0)
    began = loop_time()
    with pytest.raises(LimitReached) as caught:
        await limits.acquire(DEPLOY, max_wait=4)
    assert loop_time() - began < 0.001
    assert caught.value.predicted_wait == pytest.approx(5, abs=0.3)

    await limits.acquire(DEPLOY, max_wait=6)
    assert loop_time() - began == pytest.approx(5, abs=0.3)
    await asyncio.gather(*waiting)


@pytest.mark.virtual
async def test_a_call_that_waits_longer_than_predicted_fails_at_its_max_wait() -> None:
    limits, began = Limits({"deploy": 1}), loop_time()
    await limits.acquire(DEPLOY)
    waiting = in_background(limits.acquire(DEPLOY, max_wait=2))
    await asyncio.sleep(0.5)
    limits.on_rate_limited(DEPLOY, 60)
    with pytest.raises(LimitReached) as caught:
        await waiting

    assert loop_time() - began == pytest.approx(2, abs=0.001)
    assert caught.value.predicted_wait == pytest.approx(60.5, abs=0.1)
    assert limits.snapshot()["deploy"].queued == 0


@pytest.mark.virtual
async def test_a_timeout_of_the_caller_stays_a_timeout() -> None:
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
    predicted, began = limits.snapshot()["deploy"].predicted_wait, loop_time()
    await limits.acquire(DEPLOY)

    assert loop_time() - began == pytest.approx(predicted, abs=0.11)
    await asyncio.gather(*waiting)


@pytest.mark.virtual
@pytest.mark.parametrize("limit", [0.1, 1, 3, 40])
@pytest.mark.parametrize("since", [0.0, 0.3, 0.9, 4.2])
async def test_the_predicted_wait_is_exact_for_any_burst_that_is_left(
    limit: float, since: float
) -> None:
    limits = Limits({"deploy": limit})
    for _ in range(math.ceil(limit)):
        await limits.acquire(DEPLOY)
    await asyncio.sleep(since)
    predicted, began = limits.snapshot()["deploy"].predicted_wait, loop_time()
    await limits.acquire(DEPLOY)

    assert loop_time() - began == pytest.approx(predicted, abs=1e-4)


@pytest.mark.virtual
@pytest.mark.parametrize("limit", [1.9, 20 / 7])
async def test_the_predicted_wait_counts_whole_calls_a_second(limit: float) -> None:
    limits = Limits({"deploy": limit})
    rate = limits.snapshot()["deploy"].rate
    waiting = [in_background(limits.acquire(DEPLOY)) for _ in range(50)]
    await asyncio.sleep(0)
    predicted, began = limits.snapshot()["deploy"].predicted_wait, loop_time()
    await limits.acquire(DEPLOY)

    assert loop_time() - began == pytest.approx(predicted, abs=0.11)
    assert 50 / (loop_time() - began) == pytest.approx(rate, rel=0.05)
    await asyncio.gather(*waiting)


class _StillLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer, and moves a little at each iteration."""

    moved = 0.0

    def time(self) -> float:
        return self.moved

    def _run_once(self) -> None:
        self.moved += 2e-5
        if not self._ready and self._scheduled:  # type: ignore[attr-defined]
            self.moved = max(self.moved, self._scheduled[0]._when)  # type: ignore[attr-defined]
        super()._run_once()  # type: ignore[misc]


def test_the_first_call_yields_even_if_the_two_accounts_of_the_pace_differ() -> None:
    async def main() -> float:
        limits = Limits({"deploy": 10})
        permits = cast("LocalPermits", limits._queues["deploy"].permits)
        await asyncio.gather(*(limits.acquire(DEPLOY) for _ in range(3)))
        permits._pace_empty_at -= 0.001  # the rounding errors of years
        await asyncio.gather(*(limits.acquire(DEPLOY) for _ in range(5)))
        return loop_time()

    with asyncio.Runner(loop_factory=_StillLoop) as runner:
        assert runner.run(main()) == pytest.approx(0.56, abs=0.1)
