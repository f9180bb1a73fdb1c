"""The rate limits of the emulator: strict, so that a client that obeys them is never at fault."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import TypeAlias

from edgegap_async.api.register import OPERATIONS
from edgegap_async.api.validation import check_number, unknown_name
from edgegap_async.errors import InvalidRequest

RateLimits: TypeAlias = bool | Mapping[str, float | None]
"""True for the documented limits, False for none, or calls a second by operation: 1 or more, or
None for no limit. The documented limits hold for operations that are not named."""


class RateLimit:
    """A strict rate limit: at most `rate` calls, 1 or more, in any second."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._passed: deque[float] = deque()

    def try_pass(self, now: float) -> float:
        """Admits a call at `now` and returns 0, or returns the seconds until one is admitted."""
        while self._passed and self._passed[0] <= now - 1.0:
            self._passed.popleft()
        if len(self._passed) < self._rate:
            self._passed.append(now)
            return 0.0
        return self._passed[0] + 1.0 - now


def check_limits(limits: RateLimits) -> dict[str, float]:
    """Returns the calls a second by operation, without the operations that have no limit.

    Raises:
        InvalidRequest: an operation does not exist, or a limit is not 1 or more.
    """
    rates = {operation.name: operation.limit for operation in OPERATIONS}
    if limits is False:
        return {}
    if isinstance(limits, Mapping):
        for name, rate in limits.items():
            if name not in rates:
                advice = unknown_name(name, rates)
                raise InvalidRequest(f"limits: there is no call {name!r}; {advice}")
            check_number(f"limits: {name}", rate, least=1)
            rates[name] = rate
    elif limits is not True:
        raise InvalidRequest(
            f"limits must be True, False or calls a second by operation, not {limits!r}"
        )
    return {name: rate for name, rate in rates.items() if rate is not None}
