"""When a pool may deploy: at once while deploys succeed, after growing delays while they fail."""

from __future__ import annotations

import math
import random
from typing import Final

from edgegap_async.concurrency import loop_time
from edgegap_async.errors import EdgegapError

_FIRST_DELAY: Final = 1.0  # seconds; doubled after each failure
_MAX_DELAY: Final = 60.0  # seconds
_REPEATED_FAILURES: Final = 3  # failures in a row after which callers get an error


class DeployBackoff:
    """Delays the deploys of one pool after a failure.

    While deploys fail, the pool makes one at a time: the attempt. Only the attempt's failure
    lengthens the delay, because deploys that began before the first failure add no information.
    """

    def __init__(self) -> None:
        self.failed = 0
        """Deploys that failed, in all."""
        self.failure: EdgegapError | None = None
        """The error of the newest deploy that failed; None once a later deploy succeeded."""
        self._begun = 0
        self._attempt: int | None = None  # the number of the deploy begun since the newest failure
        self._failures_in_row = 0
        self._next_attempt_at = -math.inf  # loop time

    @property
    def fails_repeatedly(self) -> bool:
        """Whether three attempts in a row failed, so that callers should not wait for the next."""
        return self._failures_in_row >= _REPEATED_FAILURES

    @property
    def delay(self) -> float:
        """Seconds until a deploy may begin; infinite while an attempt is in progress."""
        if self.failure is None:
            return 0.0
        return math.inf if self._attempt is not None else self._next_attempt_at - loop_time()

    def begin(self) -> None:
        """Records that a deploy begins. The pool numbers its deploys from 0."""
        if self.failure is not None:
            self._attempt = self._begun
        self._begun += 1

    def restart(self) -> None:
        """Records that the deploys in progress were abandoned; the next one has the number 0."""
        self._begun, self._attempt = 0, None

    def abandon(self, number: int) -> None:
        """Records that a deploy was abandoned, from which nothing is learnt.

        Args:
            number: the number of the deploy, from 0.
        """
        if number == self._attempt:
            self._attempt = None

    def succeed(self) -> None:
        """Records that a deploy succeeded, which ends the delays."""
        self._failures_in_row, self.failure, self._attempt = 0, None, None

    def fail(self, number: int, error: EdgegapError | None) -> None:
        """Records that a deploy failed.

        Args:
            number: the number of the deploy, from 0.
            error: why the deploy failed.
        """
        if self.failure is None or number == self._attempt:
            delay = min(_FIRST_DELAY * 2**self._failures_in_row, _MAX_DELAY)
            self._failures_in_row += 1
            self._next_attempt_at = loop_time() + delay * random.uniform(0.75, 1)  # noqa: S311 - no secret
            self._attempt = None
        self.failed += 1
        self.failure = error
