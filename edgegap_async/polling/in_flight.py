"""Sends the poller's requests of one kind, and notes how they end.

Few are in flight at a time, so that other calls of the same rate limit do not queue behind all of
the poller's. A request that hangs stops counting after `answer_timeout`, else it would hold up the
others; there are never more than twice the allowed number. While requests fail, they become rarer.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from edgegap_async.api.operations import Operation
from edgegap_async.concurrency import create_detached_task, loop_time
from edgegap_async.errors import CallError, RateLimited, Refused, log_fields
from edgegap_async.http.rate_limits import Limits, Priority

from .schedule import PollerTuning

logger = logging.getLogger(__name__)

T = TypeVar("T")


class InFlightRequests:
    """The poller's requests for one operation.

    Args:
        operation: the operation that the requests call.
        max_in_flight: how many may be in flight.
        tuning: the poller's constants.
        on_end: called with the task of each request when it has ended.

    Attributes:
        count: requests sent so far.
        failures: requests that failed since the last answer.
    """

    def __init__(
        self,
        operation: Operation[Any],
        max_in_flight: int,
        tuning: PollerTuning,
        on_end: Callable[[asyncio.Task[Any]], None],
    ) -> None:
        self.count = self.failures = 0
        self._operation = operation
        self._max_in_flight = max_in_flight
        self._tuning = tuning
        self._on_end = on_end
        self._sent_at: dict[asyncio.Task[Any], float] = {}  # of those in flight, oldest first
        self._answered_at = -math.inf
        self._paused_until = -math.inf  # the Retry-After of the last failure

    def __len__(self) -> int:
        return len(self._sent_at)

    def begin(self, request: Coroutine[Any, Any, T], now: float) -> asyncio.Task[T]:
        """Starts a request as a task, and returns the task."""
        self.count += 1
        task = create_detached_task(request)
        self._sent_at[task] = now
        task.add_done_callback(self._end)
        return task

    def _end(self, task: asyncio.Task[Any]) -> None:
        # A callback of the task: a task that is cancelled before it starts runs no code of its own.
        del self._sent_at[task]
        self._on_end(task)

    def cancel(self) -> None:
        """Cancels the requests in flight."""
        for task in self._sent_at:
            task.cancel()

    def note_answer(self, now: float) -> None:
        """Notes that a request was answered, with any status."""
        self.failures = 0
        self._answered_at = now

    def note_failure(self, error: CallError) -> None:
        """Notes that a request failed in a way that the next one may not."""
        is_limited = isinstance(error, RateLimited)  # then the rate limit waits
        if isinstance(error, Refused) and error.retry_after is not None and not is_limited:
            self._paused_until = loop_time() + error.retry_after
        self.failures = min(self.failures + 1, self._tuning.max_failures)
        is_warning = self.failures == self._tuning.warn_after_failures
        logger.log(
            logging.WARNING if is_warning else logging.INFO,
            "%s failed (%d in a row), the poller will repeat it: %s",
            self._operation.name,
            self.failures,
            error.reason,
            extra=log_fields(error, operation=self._operation.name, count=self.failures),
        )

    def backed_off(self, interval: float) -> float:
        """Returns the interval between requests, made longer while they fail."""
        longer = min(interval * 2.0**self.failures, self._tuning.max_failure_interval)
        return max(interval, longer)

    def permitted_at(self, limits: Limits, now: float) -> float:
        """Returns when another request may start; infinity for not before one has ended."""
        if now < self._paused_until:
            return self._paused_until
        timeout = self._tuning.answer_timeout
        if len(self._sent_at) >= 2 * self._max_in_flight:
            return math.inf
        recent = [sent for sent in self._sent_at.values() if now < sent + timeout]
        if len(recent) >= self._max_in_flight:
            return recent[-self._max_in_flight] + timeout
        if not recent:
            return now
        # While one is queued or in flight, the next one lets the calls of all others go first.
        wait = limits.expected_wait(self._operation, Priority.OTHER)
        return min(now + wait, recent[-1] + timeout)

    def unusable_at(self) -> float:
        """Returns the loop time from which on, as things are, no answer is to be expected."""
        is_paused = loop_time() < self._paused_until
        if is_paused or self.failures >= self._tuning.lists_unusable_after:
            return -math.inf
        unanswered = (sent for sent in self._sent_at.values() if sent >= self._answered_at)
        return next(unanswered, math.inf) + self._tuning.answer_timeout
