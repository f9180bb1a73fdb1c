"""When a pool may deploy: at once while that works, else one at a time and ever more rarely."""

from __future__ import annotations

import asyncio
import math
import random
from typing import Final

from edgegap_async.errors import EdgegapError

__all__ = ["DeployBackoff"]

_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 60.0
_GIVE_UP_AFTER_PAUSES: Final = 3  # pauses in a row


class DeployBackoff:
    """The deploys of one pool, by their numbers from 0 on.

    Attributes:
        failed: how many came to nothing.
        failure: why the newest did; None if it did not.
    """

    def __init__(self) -> None:
        self.failed = 0
        self.failure: EdgegapError | None = None
        self._begun = 0
        self._trial: int | None = None  # which of them was begun since the newest failure
        self._pauses, self._tries_again_at = 0, -math.inf

    @property
    def are_hopeless(self) -> bool:
        """Whether so many have failed that nobody should wait for the next."""
        return self._pauses >= _GIVE_UP_AFTER_PAUSES

    @property
    def pause(self) -> float:
        """Seconds until one may begin; infinite until one that is under way has ended."""
        if self.failure is None:
            return 0.0
        now = asyncio.get_running_loop().time()
        return math.inf if self._trial is not None else self._tries_again_at - now

    def begin(self) -> None:
        """One begins."""
        if self.failure is not None:
            self._trial = self._begun
        self._begun += 1

    def succeed(self) -> None:
        """One has."""
        self._pauses, self.failure, self._trial = 0, None, None

    def fail(self, number: int, error: EdgegapError | None) -> None:
        """That one has failed. Those that were begun before the failure say nothing new."""
        if self.failure is None or number == self._trial:
            pause = min(_FIRST_PAUSE * 2**self._pauses, _LONGEST_PAUSE)
            self._pauses += 1
            now = asyncio.get_running_loop().time()
            self._tries_again_at = now + pause * random.uniform(0.75, 1)  # noqa: S311
            self._trial = None
        self.failed += 1
        self.failure = error
