"""What a client remembers as long as it lasts, and for a while after: it may run for months."""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any, Final

__all__ = ["ActiveRegistry"]

_MAX_FINISHED: Final = 10_000
"""How many that are over are remembered: at 40 deploys a second, those of the last four minutes."""


class ActiveRegistry:
    """Names that are held, and the last thousands that were let go.

    Its length is how many are held.
    """

    def __init__(self) -> None:
        self._held = dict[Hashable, float]()
        self._let_go = OrderedDict[Hashable, None]()

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, name: Hashable) -> bool:
        return name in self._held or name in self._let_go

    def hold(self, name: Hashable, until: float = -math.inf) -> float:
        """Remembers it until it is let go, with a time that counts if it is not held already."""
        self._let_go.pop(name, None)
        return self._held.setdefault(name, until)

    def is_over(self, name: Hashable) -> bool:
        """Whether it was let go."""
        return name in self._let_go

    def next(self, most: int) -> list[Any]:
        """So many that are held, each in its turn."""
        names = list(itertools.islice(self._held, most))
        for name in names:
            self._held[name] = self._held.pop(name)  # it comes last now
        return names

    def until(self, name: Hashable) -> float:
        """The time that it is held with; minus infinity if it is not held."""
        return self._held.get(name, -math.inf)

    def let_go(self, name: Hashable) -> None:
        """Remembers it only as long as not too many others are let go."""
        if self._held.pop(name, None) is None:
            return
        self._let_go[name] = None
        if len(self._let_go) > _MAX_FINISHED:
            self._let_go.popitem(last=False)

    def forget(self, name: Hashable) -> None:
        """Remembers it no more."""
        self._held.pop(name, None)
