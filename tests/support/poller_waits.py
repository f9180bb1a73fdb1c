"""Waits of many tasks for deployments of a `FlakyApi`, for the tests of the poller."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Final

from flaky_api import FlakyApi, now
from scripted_api import Reply

from edgegap_async.api.models import Status
from edgegap_async.polling.poller import StatusPoller
from edgegap_async.polling.tracker import DeploymentTracker

NEVER: Final = math.inf
REFUSED: Final = Reply(400, {"message": "no"})
UNAVAILABLE: Final = Reply(503)


async def wait_all(
    poller: StatusPoller, ids: Iterable[str], wanted: Status = Status.READY, max_wait: float = 300
) -> list[float]:
    """Waits for each deployment. Returns the loop times at which the waits ended."""

    async def wait(tracker: DeploymentTracker) -> float:
        await tracker.wait_for(wanted, max_wait)
        return now()

    return await asyncio.gather(*map(wait, map(poller.tracker, ids)))


def max_delay(api: FlakyApi, ids: Iterable[str], times: Iterable[float]) -> float:
    """Returns the longest time from READY to the end of the wait."""
    return max(time - api.lifecycles[one].ready_at for one, time in zip(ids, times, strict=True))


@contextlib.asynccontextmanager
async def waiting_for(
    poller: StatusPoller, ids: Iterable[str], wanted: Status = Status.READY
) -> AsyncIterator[None]:
    """Keeps a task waiting for each deployment while the block runs; its result is ignored."""
    waits = (poller.tracker(one).wait_for(wanted, 3600) for one in ids)
    waiting = asyncio.gather(*waits, return_exceptions=True)
    await asyncio.sleep(0)  # the waits begin
    try:
        yield
    finally:
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting


def tasks_since(before: set[asyncio.Task[object]]) -> list[asyncio.Task[object]]:
    """Returns the tasks that are not in `before`, without the tasks of the HTTP server."""
    return [
        task
        for task in asyncio.all_tasks() - before
        if "aiohttp" not in repr(task.get_coro()) and "RequestHandler" not in repr(task)
    ]


def reply_to_request(number: int, reply: Reply) -> Callable[[object], Reply | None]:
    """Returns a hook that answers the request of that number (from 0) with `reply`."""
    numbers = itertools.count()
    return lambda _: reply if next(numbers) == number else None
