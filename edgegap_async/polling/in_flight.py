"""The requests of one kind that a look-out has under way, and how well they fare.

A few at a time, so that whoever else wants a permit of the same limit does not stand behind all
of the look-out's. One that hangs is soon counted no more, or it would hold up the others; still
there are never more than twice as many. While they fail, they come more rarely.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Coroutine
from typing import Any, Final

from edgegap_async.api.operations import Operation
from edgegap_async.http.rate_limits import Limits, Priority

from .schedule import ANSWER_TIMEOUT

__all__ = ["InFlightRequests"]

logger = logging.getLogger(__name__)

_MAX_FAILURE_GAP: Final = 5.0  # seconds between requests while they fail
_MAX_FAILURES: Final = 10
_WARN_AFTER_FAILURES: Final = (
    5  # failures in a row, so that whoever waits without a limit may know why
)
_UNUSABLE_AFTER_FAILURES: Final = 2  # failures in a row, from which on nothing is expected


class InFlightRequests:
    """The requests for one operation.

    Args:
        operation: which.
        most: how many at a time.
        ended: called with each one's task at its end.

    Attributes:
        count: how many there were so far.
        failures: how many have failed since the last one that was answered.
    """

    def __init__(
        self,
        operation: Operation[Any],
        most: int,
        ended: Callable[[asyncio.Task[None]], None],
    ) -> None:
        self.count = self.failures = 0
        self._operation = operation
        self._most = most
        self._ended = ended
        self._sent: dict[asyncio.Task[None], float] = {}  # when, those under way, oldest first
        self._answered_at = -math.inf

    def __len__(self) -> int:
        return len(self._sent)

    def begin(self, asking: Coroutine[Any, Any, None], now: float) -> None:
        """Lets one go."""
        self.count += 1
        task = asyncio.create_task(asking)
        self._sent[task] = now
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        # Not by the task itself: one that is cancelled before it has begun does nothing.
        del self._sent[task]
        self._ended(task)

    def cancel(self) -> None:
        """Nobody wants to know any more."""
        for task in self._sent:
            task.cancel()

    def answered(self, now: float) -> None:
        """One was, in whatever way."""
        self.failures = 0
        self._answered_at = now

    def failed(self, error: Exception) -> None:
        """One was not, and the next may be."""
        self.failures = min(self.failures + 1, _MAX_FAILURES)
        level = logging.WARNING if self.failures == _WARN_AFTER_FAILURES else logging.INFO
        text = "a look failed (%d in a row) and will be repeated: %s"
        logger.log(level, text, self.failures, error)

    def eased(self, gap: float) -> float:
        """A gap between requests, made longer while they fail."""
        return max(gap, min(gap * 2.0**self.failures, _MAX_FAILURE_GAP))

    def permitted(self, limits: Limits, now: float) -> float:
        """When another may be begun; infinity for not before one has ended."""
        if len(self._sent) >= 2 * self._most:
            return math.inf
        recent = [sent for sent in self._sent.values() if now < sent + ANSWER_TIMEOUT]
        if len(recent) >= self._most:
            return recent[-self._most] + ANSWER_TIMEOUT
        if not recent:
            return now
        # Behind the calls of all others, as long as one of these is waiting or on its way.
        wait = limits.expected_wait(self._operation, Priority.OTHER)
        return min(now + wait, recent[-1] + ANSWER_TIMEOUT)

    def doubtful_at(self) -> float:
        """From when on, as things are, nothing is to be expected of them."""
        if self.failures >= _UNUSABLE_AFTER_FAILURES:
            return -math.inf
        unanswered = (sent for sent in self._sent.values() if sent >= self._answered_at)
        return next(unanswered, math.inf) + ANSWER_TIMEOUT
