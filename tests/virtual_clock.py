"""An event loop whose clock jumps to the next timer: waiting costs no time.

Real sockets on loopback work on it: what is on its way arrives before the clock moves. The clock
also moves a ten-millionth of a second whenever it is read, or code that asks for "now plus a
rounding error" would ask for ever (aiolimiter does).
"""

from __future__ import annotations

import asyncio
import selectors
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any, TypeVar

    Result = TypeVar("Result")

GRACE = 0.001  # real seconds that other processes and threads get before the clock moves


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self, grace: float) -> None:
        super().__init__()
        self.jumped = 0.0
        self._grace = grace

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if not events and (timeout is None or timeout > 0):
            events = super().select(None if timeout is None else min(self._grace, timeout))
            if not events and timeout is not None:
                self.jumped += timeout
        return events


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop on which `asyncio.sleep(3600)` takes a millisecond."""

    def __init__(self, grace: float = GRACE) -> None:
        self._jumping = _JumpingSelector(grace)
        self._reads = 0
        super().__init__(self._jumping)

    def time(self) -> float:
        self._reads += 1
        return self._jumping.jumped + self._reads * 1e-7

    def stall(self, seconds: float) -> None:
        """So much time passes while nothing runs, as where code computes and does not await."""
        self._jumping.jumped += seconds


def run_virtually(main: Coroutine[Any, Any, Result], *, grace: float = GRACE) -> Result:
    """What `main` returns. Without threads and other processes the grace may be 0."""
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(grace)) as runner:
        return runner.run(main)
