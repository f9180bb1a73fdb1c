from __future__ import annotations

import itertools
from typing import Any

import pytest

from edgegap_async.api.operations import (
    DEPLOY,
    GET_DEPLOYMENT,
    STOP_DEPLOYMENT,
    Operation,
    RetrySafety,
)
from edgegap_async.api.register import OPERATIONS
from edgegap_async.errors import (
    BadRequest,
    CallError,
    Gone,
    InvalidRequest,
    NoAnswer,
    NotFound,
    NotSent,
    RateLimited,
    ServerError,
    Unauthorized,
    Unprocessable,
    UnreadableAnswer,
)
from edgegap_async.http.retries import RetryBudget, RetryPolicy


def wait_after(
    error: CallError,
    operation: Operation[object] = GET_DEPLOYMENT,
    *,
    attempts: int = 1,
    elapsed: float = 0,
    policy: RetryPolicy | None = None,
) -> float | None:
    policy = policy or RetryPolicy()
    return policy.wait_after(error, operation, attempts=attempts, elapsed=elapsed, wait=0.5)


def for_good() -> NotSent:
    error = NotSent()
    error.retry_may_help = False
    return error


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
@pytest.mark.parametrize(
    ("error", "if_harmless", "if_not"),
    [
        (NotSent(), True, True),
        (for_good(), False, False),
        (RateLimited(), True, True),
        (NoAnswer(), True, False),
        (ServerError(), True, False),
        (UnreadableAnswer(), True, False),
        (BadRequest(), False, False),
        (Unauthorized(), False, False),
        (NotFound(), False, False),
        (Gone(), False, False),
        (Unprocessable(), False, False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, CallError) else None,
)
def test_a_request_is_repeated_only_where_that_makes_no_second_thing(
    operation: Operation[object], error: CallError, *, if_harmless: bool, if_not: bool
) -> None:
    expected = if_harmless if operation.retry_safety is RetrySafety.SAFE else if_not

    assert (wait_after(error, operation) is not None) == expected


def test_an_unreadable_answer_is_asked_for_once_more_only() -> None:
    assert wait_after(UnreadableAnswer(), attempts=1) == 0.5
    assert wait_after(UnreadableAnswer(), attempts=2) is None


def test_the_last_attempt_is_the_last() -> None:
    policy = RetryPolicy(attempts=3)

    assert wait_after(NoAnswer(), attempts=2, policy=policy) == 0.5
    assert wait_after(NoAnswer(), attempts=3, policy=policy) is None


def test_no_attempt_begins_after_the_deadline() -> None:
    policy = RetryPolicy(deadline=10)

    assert wait_after(NoAnswer(), elapsed=9.5, policy=policy) == 0.5
    assert wait_after(NoAnswer(), elapsed=9.6, policy=policy) is None


def test_retry_after_is_a_floor() -> None:
    error = RateLimited()
    error.retry_after = 7

    assert wait_after(error, DEPLOY) == 7.5


def test_row_13_a_429_that_does_not_say_how_long_waits_for_the_window_to_pass() -> None:
    assert wait_after(RateLimited()) == 1.5


def test_a_retry_after_of_zero_is_believed() -> None:
    error = RateLimited()
    error.retry_after = 0

    assert wait_after(error) == 0.5


def test_waits_are_drawn_below_ceilings_that_double() -> None:
    policy = RetryPolicy(first_wait=0.25, max_wait=2)
    drawn = [list(itertools.islice(policy.waits(), 6)) for _ in range(300)]

    ceilings = [max(column) for column in zip(*drawn, strict=True)]

    for ceiling, expected in zip(ceilings, [0.25, 0.5, 1, 2, 2, 2], strict=True):
        assert 0.9 * expected < ceiling <= expected
    assert min(min(waits) for waits in drawn) < 0.02


@pytest.mark.parametrize(
    "settings",
    [{"attempts": 0}, {"first_wait": 0}, {"max_wait": -1}, {"deadline": -1}, {"budget": -1}],
)
def test_a_policy_that_cannot_be_is_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        RetryPolicy(**settings)  # type: ignore[arg-type]


def test_a_budget_is_used_up_by_repeats_and_filled_by_what_succeeds() -> None:
    budget = RetryBudget(2)
    assert [budget.try_spend(NoAnswer(), GET_DEPLOYMENT) for _ in range(3)] == [True, True, False]

    for _ in range(5):
        budget.add_success()
    assert [budget.try_spend(ServerError(), DEPLOY) for _ in range(2)] == [True, False]


def test_a_429_and_a_stop_take_nothing_from_the_budget() -> None:
    budget = RetryBudget(0)

    assert budget.try_spend(RateLimited(), DEPLOY)
    assert budget.try_spend(NoAnswer(), STOP_DEPLOYMENT)


def test_a_budget_is_never_fuller_than_it_was() -> None:
    budget = RetryBudget(1)
    for _ in range(100):
        budget.add_success()

    assert budget.left == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"attempts": 0}, "RetryPolicy.attempts must be 1 or more"),
        ({"attempts": "3"}, "RetryPolicy.attempts must be of type int"),
        ({"attempts": 1.5}, "RetryPolicy.attempts must be of type int"),
        ({"first_wait": 0}, "RetryPolicy.first_wait must be above 0"),
        ({"deadline": None}, "RetryPolicy.deadline must be a number, not None"),
        ({"budget": float("nan")}, "RetryPolicy.budget must be 0 or more"),
    ],
)
def test_a_policy_that_cannot_be_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        RetryPolicy(**settings)
