"""An event loop whose clock jumps to the next timer: waiting costs no time.

Real sockets on loopback work on it: what this process has sent to itself is there before the clock
moves. Threads of the loop's executor are waited for. Other processes are not: tests with those take
real time. The clock also moves a ten-millionth of a second whenever it is read, or code that asks
for "now plus a rounding error" would ask for ever (aiolimiter does).
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

GRACE = 0.001  # real seconds that threads get each time before the clock moves


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self) -> None:
        super().__init__()
        self.jumped = 0.0
        self.threads = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if not events and (timeout is None or timeout > 0):
            if timeout is None or self.threads:
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
        # What it does at each step costs ten times the step, and looks for callbacks that are slow
        # by a clock that is not this one. Warnings are shown all the same.
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

    def time(self) -> float:
        self._reads += 1
        return self._jumping.jumped + self._reads * 1e-7

    def stall(self, seconds: float) -> None:
        """So much time passes while nothing runs, as where code computes and does not await."""
        self._jumping.jumped += seconds


def run_virtually(main: Coroutine[Any, Any, Result]) -> Result:
    """What `main` returns."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
