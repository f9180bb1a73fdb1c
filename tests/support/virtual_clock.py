"""An event loop whose clock jumps to the next timer, so that waiting takes no real time.

Real sockets on loopback work: data that this process sends to itself arrives before the clock
moves. The loop waits for threads of its executor, but not for other processes: tests with child
processes take real time. Each reading of the clock advances it by a ten-millionth of a second;
without that, aiolimiter would wait for a rounding error for ever.
"""

from __future__ import annotations

import asyncio
import selectors
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from concurrent.futures import Executor
    from typing import Any, TypeVar, TypeVarTuple, Unpack

    Arguments = TypeVarTuple("Arguments")
    Result = TypeVar("Result")

GRACE = 0.001  # real seconds that threads get before each jump of the clock
LONG_JUMP = 5.0  # seconds; a busy kernel gets that time too before the clock jumps so far


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self) -> None:
        super().__init__()
        self.jumped = 0.0
        self.threads = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if not events and (timeout is None or timeout > 0):
            if timeout is None or self.threads or timeout > LONG_JUMP:
                events = super().select(None if timeout is None else min(GRACE, timeout))
            if not events and timeout is not None:
                self.jumped += timeout
        return events


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop on which `asyncio.sleep(3600)` takes no time."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        self._reads = 0
        super().__init__(self._jumping)
        # Debug mode makes a step ten times slower, and measures slow callbacks by another clock.
        # Python shows its warnings without debug mode too.
        self.set_debug(False)

    def run_in_executor(
        self,
        executor: Executor | None,
        func: Callable[[Unpack[Arguments]], Result],
        *args: *Arguments,
    ) -> asyncio.Future[Result]:
        future = super().run_in_executor(executor, func, *args)
        self._jumping.threads += 1
        future.add_done_callback(self._thread_has_ended)
        return future

    def _thread_has_ended(self, _: object) -> None:
        self._jumping.threads -= 1

    async def shutdown_default_executor(self, timeout: object = None) -> None:
        # Since Python 3.12 asyncio limits this wait, and the clock would jump to the limit before
        # the threads have ended.
        await super().shutdown_default_executor()

    def time(self) -> float:
        self._reads += 1
        return self._jumping.jumped + self._reads * 1e-7

    def stall(self, seconds: float) -> None:
        """Advances the clock while nothing runs, as code that computes without awaiting does."""
        self._jumping.jumped += seconds


def run_virtually(main: Coroutine[Any, Any, Result]) -> Result:
    """Runs `main` on a virtual clock; returns its result."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
