"""The options of one call: how it is made, as opposed to what it sends."""

from __future__ import annotations

from typing import Final

import attrs

from edgegap_async.api.requests import Token

from .rate_limits import Priority


@attrs.frozen(kw_only=True)
class CallOptions:
    """How one call is made."""

    token: Token | None = None
    """Token to send, for an operation that takes the deployment's own token; None for the
    client's API token."""
    max_bytes: int = 8 * 2**20
    """Largest answer, in decompressed bytes. A larger one raises `UnreadableAnswer`."""
    priority: Priority | None = None
    """Place in the queue of the operation's rate limit; None for `Priority.of(operation)`."""
    once: bool = False
    """True to send the request at most once, without the retries of `RetryPolicy`."""
    ignore_wait_limit: bool = False
    """True to wait for the rate limit without end, as if the client had no `max_wait`."""


DEFAULT_OPTIONS: Final = CallOptions()
