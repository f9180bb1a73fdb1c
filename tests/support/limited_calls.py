"""Calls that wait for a rate limit."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from edgegap_async.api.operations import DEPLOY
from edgegap_async.concurrency import loop_time
from edgegap_async.http.rate_limits import Limits


def most_in_one_second(times: list[float]) -> int:
    """Returns the most calls in any window of one second, wherever it starts."""
    return max((sum(start <= time < start + 1 for time in times) for start in times), default=0)


def in_background(work: Coroutine[Any, Any, object]) -> asyncio.Task[object]:
    """Starts a task whose result is not used."""
    return asyncio.create_task(work)


async def cancelled(*tasks: asyncio.Task[object]) -> None:
    """Cancels the tasks, and checks that each one ends cancelled."""
    for task in tasks:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {asyncio.CancelledError}


async def send(limits: Limits, count: int) -> list[float]:
    """Starts `count` deploys at once, and returns the seconds after which each one may go."""
    times: list[float] = []

    async def one() -> None:
        await limits.acquire(DEPLOY)
        times.append(loop_time())

    began = loop_time()
    await asyncio.gather(*(one() for _ in range(count)))
    return [time - began for time in times]
