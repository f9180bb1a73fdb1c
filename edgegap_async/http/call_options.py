"""What a caller may say about how one call is made, apart from what is sent."""

from __future__ import annotations

from typing import Final

import attrs

from edgegap_async.api.requests import Token

from .rate_limits import Priority

__all__ = ["DEFAULT_OPTIONS", "CallOptions"]


@attrs.frozen(kw_only=True)
class CallOptions:
    """How one call is made."""

    token: Token | None = None
    """Sent in place of the client's API token, for an operation that takes the deployment's own
    token; None for the client's."""
    max_bytes: int = 8 * 2**20
    """Largest answer, in bytes after decompression. A larger one is an `UnreadableAnswer`."""
    priority: Priority | None = None
    """Place in the queue of the operation's rate limit; None for `Priority.of(operation)`."""
    once: bool = False
    """True to send the request at most once, whatever `RetryPolicy` says."""
    ignore_wait_limit: bool = False
    """True to queue for the rate limit without end, whatever the client's `on_limit` and
    `max_wait` say."""


DEFAULT_OPTIONS: Final = CallOptions()
