"""Who may send, and when: never more than the documented number of calls in any second.

Theory. The API documents 40, 20 or 10 calls a second for some operations and does not say how it
counts. A counter that starts anew each second, one that slides, and a bucket that leaks all agree
on one thing: no window of one second, wherever it starts, may hold more than the limit. So:

- A **pace**: aiolimiter's leaky bucket at 97.5 % of the limit, which lets the first ten calls of an
  idle client go at once. Alone it would let `ten + the rate` through in its first second.
- A **log** of the last calls, as many as the limit, over a little more than a second: the next call
  waits until the oldest of them is old enough. The little more is for calls that travel faster than
  those before them.

Waiters are served in the order they came. The permit is taken last, just before the request goes
out, and each repeat takes one too. A 429 closes the bucket for as long as the API says.
"""

from __future__ import annotations

import asyncio
import enum
import math
from collections import deque
from collections.abc import Mapping
from typing import Final

from .endpoints import DEPLOY, DEPLOY_TO_FLEET, OPERATIONS, Operation
from .errors import InvalidRequest
from .requests import check_kind

__all__ = ["Limits", "Priority"]

_PACE: Final = 0.975
_WINDOW: Final = 1.025  # seconds
_BURST: Final = 10


class Priority(enum.IntEnum):
    """Who goes first where several wait for the same limit; the lowest number does."""

    STOP = 0
    DEPLOY = 1
    """A deploy, and looking for what one has made whose answer was lost."""
    LOOK = 2
    """The look-out, for those who wait for a status."""
    REST = 3

    @classmethod
    def of(cls, operation: Operation[object]) -> Priority:
        """What an operation has, unless its caller says otherwise."""
        if operation.method == "DELETE":
            return cls.STOP
        return cls.DEPLOY if operation in {DEPLOY, DEPLOY_TO_FLEET} else cls.REST


class _Bucket:
    """The permits of one operation."""

    def __init__(self, limit: float) -> None:
        from aiolimiter import AsyncLimiter  # noqa: PLC0415 - it reads its metadata from disk

        burst = min(_BURST, max(1.0, limit / 4))
        self._pace = AsyncLimiter(burst, burst / (_PACE * limit))
        # A limit below one a second is one call in a longer window.
        self._window = _WINDOW * max(1.0, 1 / limit)
        self._sent: deque[float] = deque([-math.inf] * max(1, int(limit)), max(1, int(limit)))
        self._opens_at = -math.inf
        self._turn = asyncio.Lock()

    async def acquire(self) -> None:
        loop = asyncio.get_running_loop()
        async with self._turn:
            await self._pace.acquire()
            while True:
                wait = max(self._sent[0] + self._window, self._opens_at) - loop.time()
                if wait <= 0:
                    break
                await asyncio.sleep(wait)
            self._sent.append(loop.time())

    def close_for(self, seconds: float) -> None:
        self._opens_at = max(self._opens_at, asyncio.get_running_loop().time() + seconds)


class Limits:
    """The limits of one client, a bucket for each operation that has one.

    Args:
        settings: calls a second by operation name, where yours differ from the documented ones:
            `{"deploy": 20, "list_deployments": None}`; None lifts a limit. Lower them where
            several programs share the organization's limit.

    Raises:
        InvalidRequest: an operation that does not exist, or a limit that is not above 0.
    """

    def __init__(self, settings: Mapping[str, float | None] | None = None) -> None:
        check_kind("limits", settings, Mapping)
        limits = {operation.name: operation.limit for operation in OPERATIONS}
        for name, limit in (settings or {}).items():
            if name not in limits:
                raise InvalidRequest(f"no operation {name!r}; there is {', '.join(limits)}")
            check_kind(f"the limit of {name}", limit, int, float)
            if limit is not None and not 0 < limit < math.inf:
                raise InvalidRequest(f"the limit of {name} must be above 0, not {limit!r}")
            limits[name] = limit
        self._buckets = {name: _Bucket(limit) for name, limit in limits.items() if limit}

    async def acquire(
        self,
        operation: Operation[object],
        priority: Priority = Priority.REST,  # noqa: ARG002 - all wait in one queue so far
    ) -> None:
        """Returns when the operation may be sent. Cancelling costs no permit."""
        bucket = self._buckets.get(operation.name)
        if bucket is not None:
            await bucket.acquire()

    def close_for(self, operation: Operation[object], seconds: float) -> None:
        """Lets none of these pass for so many seconds: the API asked for it."""
        bucket = self._buckets.get(operation.name)
        if bucket is not None:
            bucket.close_for(seconds)
