"""A client with short waits, and the error of its deploy, for tests of single faults."""

from __future__ import annotations

from typing import Any

import pytest

from edgegap_async import EdgegapClient, PollingPolicy, RetryPolicy
from edgegap_async.api.register import OPERATIONS
from edgegap_async.errors import CallError, NotSent

__all__ = ["NO_LIMITS", "USERS", "deploy_error", "is_not_sent", "quick_client"]

USERS = ["8.8.8.8"]
NO_LIMITS = dict.fromkeys((operation.name for operation in OPERATIONS if operation.limit), None)


def quick_client(url: str, **options: Any) -> EdgegapClient:
    """Returns a client that retries and polls after hundredths of a second.

    Args:
        url: the base URL.
        options: further arguments of `EdgegapClient`.
    """
    settings: dict[str, Any] = {
        "retries": RetryPolicy(first_wait=0.01),
        "polling": PollingPolicy(first_delay=0.01, interval=0.02),
        "list_delay": 0.3,
    }
    return EdgegapClient("canary-t", base_url=url, **settings | options)


async def deploy_error(client: EdgegapClient) -> CallError:
    """Returns the error with which a deploy fails."""
    with pytest.raises(CallError) as caught:
        await client.deploy("arena", "v1", users=USERS)
    return caught.value


def is_not_sent(error: CallError, *, attempts: int) -> bool:
    """Returns whether the error says that no attempt was sent, after this number of attempts."""
    return (type(error), error.maybe_created, error.attempts) == (NotSent, False, attempts)
