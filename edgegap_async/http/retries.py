"""Whether to send a request again, and after how long.

======================  ======================  =================================
what happened           a harmless operation    one that may make a second thing
======================  ======================  =================================
`NotSent`               again                   again: nothing was made
`RateLimited`           again, when allowed     again, when allowed: it was refused
`NoAnswer`              again                   no: nobody knows
`ServerError`           again                   no: it may have been accepted
`UnreadableAnswer`      once more               no: it may have been accepted
any other refusal       no                      no
======================  ======================  =================================

All calls of a client share one budget, so that an outage is not multiplied by the repeats of many:
each repeat takes one from it, each call that succeeds gives a fifth of one back. A 429 takes none,
for the API itself says when to come again; nor does a stop.

Waits grow exponentially and are drawn from zero up ("full jitter"), so that many clients that
failed together do not come back together. `Retry-After` is a floor. Where an operation has a limit
the limits wait for that time, let none of its kind pass meanwhile, and the refused one first then.
"""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from edgegap_async.api.operations import Operation, RetrySafety
from edgegap_async.api.validation import number
from edgegap_async.errors import (
    CallError,
    NoAnswer,
    NotSent,
    RateLimited,
    ServerError,
    UnreadableAnswer,
)

__all__ = ["RetryBudget", "RetryPolicy"]

_BUDGET_PER_SUCCESS = 0.2  # of a repeat, by each call that succeeds
_DEFAULT_RETRY_AFTER = 1.0  # seconds: the window that the documented limits speak of


@attrs.frozen(kw_only=True)
class RetryPolicy:
    """How often and how long a call is tried.

    `RetryPolicy(attempts=1)` never tries again.
    """

    attempts: int = attrs.field(default=4, validator=number(least=1, whole=True))
    """Attempts in all, 1 or more."""
    first_wait: float = attrs.field(default=0.25, validator=number(above=0))
    """Seconds that the first wait is at most; each next one at most twice as long."""
    max_wait: float = attrs.field(default=8.0, validator=number(above=0))
    """Seconds that no wait exceeds, `Retry-After` apart."""
    deadline: float = attrs.field(default=60.0, validator=number(least=0))
    """Seconds after the first attempt in which another may begin."""

    budget: float = attrs.field(default=50.0, validator=number(least=0))
    """Repeats that all calls of a client may make beyond one for each five that succeed."""

    def __attrs_post_init__(self) -> None:
        # Not with the package, which shall import fast; not at the first repeat either, when there
        # may be no file left to open, not even a module's.
        import backoff  # noqa: F401, PLC0415

    def waits(self) -> Iterator[float]:
        """The waits of one call, in seconds, one for each repeat."""
        import backoff  # noqa: PLC0415 - see above

        ceilings = backoff.expo(factor=self.first_wait, max_value=self.max_wait)
        ceilings.send(None)
        while True:
            yield backoff.full_jitter(next(ceilings))

    def wait_after(
        self,
        error: CallError,
        operation: Operation[object],
        *,
        attempts: int,
        elapsed: float,
        wait: float,
    ) -> float | None:
        """Seconds until the call is sent again, or None if `error` is final.

        Args:
            error: what the last attempt ended with.
            operation: what is called.
            attempts: how many attempts there were, 1 or more.
            elapsed: seconds since the first attempt began.
            wait: the next of `waits()`.
        """
        if attempts >= self.attempts or not _may_repeat(error, operation, attempts):
            return None
        if isinstance(error, RateLimited):
            wait += _asked_wait(error)
        return wait if elapsed + wait <= self.deadline else None


@attrs.define
class RetryBudget:
    """How many repeats the calls of a client still have, all together."""

    size: float
    left: float = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.left = self.size

    def try_spend(self, error: CallError, operation: Operation[object]) -> bool:
        """Takes one repeat of a call; False if there is none left for it."""
        # A stop is worth any repeat: what it does not end is billed.
        if isinstance(error, RateLimited) or operation.method == "DELETE":
            return True
        if self.left < 1:
            return False
        self.left -= 1
        return True

    def add_success(self) -> None:
        """A call has succeeded."""
        self.left = min(self.size, self.left + _BUDGET_PER_SUCCESS)


def _asked_wait(error: RateLimited) -> float:
    """Seconds that a 429 asks to wait; the limits' window where it does not say how long."""
    return _DEFAULT_RETRY_AFTER if error.retry_after is None else error.retry_after


def _may_repeat(error: CallError, operation: Operation[object], attempts: int) -> bool:
    if isinstance(error, NotSent):
        return error.worth_repeating
    if isinstance(error, RateLimited):
        return True
    if operation.retry_safety is RetrySafety.ONLY_IF_NOT_SENT:
        return False
    if isinstance(error, UnreadableAnswer):
        return attempts == 1
    return isinstance(error, NoAnswer | ServerError)
