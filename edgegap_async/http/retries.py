"""Retries: whether to send a request again, and after how many seconds.

======================  ======================  ==========================================
outcome of an attempt   `RetrySafety.SAFE`      `RetrySafety.ONLY_IF_NOT_SENT`, as a deploy
======================  ======================  ==========================================
`NotSent`               retry                   retry: nothing was created
`RateLimited`           retry after the pause   retry after the pause: the API refused it
`NoAnswer`              retry                   no: the API may have accepted it
`ServerError`           retry                   no: the API may have accepted it
408, 499                retry                   no: the API may have accepted it
421, 423, 425           retry                   no
409 to a stop           retry                   -
not `is_certain`        retry                   no
a proxy's page          retry                   no
`UnreadableAnswer`      retry once              no: the API may have accepted it
any other refusal       no                      no
======================  ======================  ==========================================

What an HTTP status says is in `api.status_codes`.

**Budget.** All calls of a client share one budget, so that retries do not multiply the load of an
outage. Each retry takes 1 from the budget, and each call that succeeds adds 0.2. Retries after a
429 are free, because the API says when to come again; so are retries of a DELETE.

**Wait.** The longest wait doubles with each retry, and the wait is drawn between 0 and that ("full
jitter"), so that clients that failed together do not retry together. `Retry-After` is added,
also that of a 503. Where the operation has a rate limit, the limit waits for it, and then lets the
refused call go first.
"""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from edgegap_async.api.operations import Operation, RetrySafety
from edgegap_async.api.status_codes import Effect, meaning
from edgegap_async.api.validation import number
from edgegap_async.api.values import Value
from edgegap_async.errors import (
    CallError,
    NoAnswer,
    NotSent,
    RateLimited,
    Refused,
    ServerError,
    UnreadableAnswer,
)

_BUDGET_PER_SUCCESS = 0.2  # retries; so one retry for five calls that succeed
_DEFAULT_RETRY_AFTER = 1.0  # seconds; the window of the documented limits


@attrs.frozen(kw_only=True, eq=False, repr=False)
class RetryPolicy(Value):
    """How often, and for how long, the client retries a call.

    `RetryPolicy(attempts=1)` never retries.
    """

    attempts: int = attrs.field(default=4, validator=number(least=1, whole=True))
    """Attempts in all, the first one included; 1 or more."""
    first_wait: float = attrs.field(default=0.25, validator=number(above=0))
    """Upper bound of the first wait, in seconds above 0. Each retry doubles the bound."""
    max_wait: float = attrs.field(default=8.0, validator=number(above=0))
    """Upper bound of every wait, in seconds above 0, without `Retry-After`."""
    deadline: float = attrs.field(default=60.0, validator=number(least=0))
    """Seconds after the start of the first attempt in which a retry may begin; 0 or more."""
    budget: float = attrs.field(default=50.0, validator=number(least=0))
    """Retries that all calls of a client share, 0 or more. A call that succeeds adds 0.2 to what is
    left, up to this value."""

    def __attrs_post_init__(self) -> None:
        # Imported late, because the package must import fast; but not at the first retry, when the
        # process may be out of file descriptors, and could not open the module's file.
        import backoff  # noqa: F401 - `waits` uses it

    def waits(self) -> Iterator[float]:
        """Yields the waits of one call in seconds, one for each retry."""
        import backoff  # see __attrs_post_init__

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
        """Returns the seconds until the next attempt, or None if `error` is final.

        Args:
            error: the outcome of the last attempt.
            operation: the operation that is called.
            attempts: how many attempts were made, 1 or more.
            elapsed: seconds since the first attempt began.
            wait: the next value of `waits()`.
        """
        if attempts >= self.attempts or not _is_retryable(error, operation, attempts):
            return None
        if isinstance(error, Refused):
            wait += _retry_after(error)
        return wait if elapsed + wait <= self.deadline else None


@attrs.define(eq=False, repr=False)
class RetryBudget:
    """The retries that all calls of a client share."""

    size: float
    """Retries at most, 0 or more: `RetryPolicy.budget`."""
    left: float = attrs.field(init=False)
    """Retries that are left, 0 to `size`."""

    def __attrs_post_init__(self) -> None:
        self.left = self.size

    def try_spend(self, error: CallError, operation: Operation[object]) -> bool:
        """Takes one retry from the budget and returns whether the call may be retried."""
        # A deployment that is not stopped is billed, so stops are always retried.
        if isinstance(error, RateLimited) or operation.method == "DELETE":
            return True
        if self.left < 1:
            return False
        self.left -= 1
        return True

    def add_success(self) -> None:
        """Adds the share of one call that succeeded."""
        self.left = min(self.size, self.left + _BUDGET_PER_SUCCESS)


def is_ambiguous(error: CallError) -> bool:
    """Returns whether the API may have done what a failed call asked for."""
    if isinstance(error, UnreadableAnswer):
        return error.status is not None and error.status < 300  # noqa: PLR2004 - not a redirect
    if isinstance(error, Refused):
        return meaning(_status(error)).effect is Effect.UNKNOWN
    return isinstance(error, NoAnswer)


def is_transient(error: Exception) -> bool:
    """Returns whether a request that is safe to repeat may succeed later."""
    if isinstance(error, NotSent):
        return error.retry_may_help
    if isinstance(error, Refused):
        return not error.is_certain or meaning(_status(error), error.operation).is_transient
    return isinstance(error, NoAnswer | UnreadableAnswer)


def _status(error: Refused) -> int:
    if error.status is not None:
        return error.status
    return 500 if isinstance(error, ServerError) else 429 if isinstance(error, RateLimited) else 400


def _retry_after(error: Refused) -> float:
    """Returns the seconds that an answer asks to wait; 1 for a 429 that names none, else 0."""
    if error.retry_after is not None:
        return error.retry_after
    return _DEFAULT_RETRY_AFTER if isinstance(error, RateLimited) else 0.0


def _is_retryable(error: CallError, operation: Operation[object], attempts: int) -> bool:
    if operation.retry_safety is RetrySafety.ONLY_IF_NOT_SENT:
        return isinstance(error, NotSent | RateLimited) and is_transient(error)
    if isinstance(error, UnreadableAnswer) and (error.status or 0) < 400:  # noqa: PLR2004 - no error status
        return attempts == 1  # the API repeats what it says
    return is_transient(error)
