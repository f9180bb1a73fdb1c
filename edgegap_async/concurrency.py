"""Asyncio helpers that several packages use: clock, cancellation, loop binding, changes."""

from __future__ import annotations

import asyncio

from .errors import WrongLoop


def loop_time() -> float:
    """Returns the running event loop's monotonic clock, in seconds."""
    return asyncio.get_running_loop().time()


def is_cancelled() -> bool:
    """Whether the current task is being cancelled.

    Tells apart two sources of a CancelledError: this task, or only the task that it awaits.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class LoopBinding:
    """Binds an object to the event loop that uses it first.

    Args:
        name: what the error calls the object, such as "the client".
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self.loop: asyncio.AbstractEventLoop | None = None
        """The loop of the first use, or None before it."""

    def check(self, loop: asyncio.AbstractEventLoop) -> None:
        """Binds the object to `loop` on the first call, and compares the loop on every later call.

        Raises:
            WrongLoop: the object is bound to another event loop.
        """
        if self.loop is None:
            self.loop = loop
        elif self.loop is not loop:
            raise WrongLoop(f"{self._name} was first used in another event loop")


class ChangeEvent:
    """Wakes every task that waits at the moment of a change.

    Unlike `asyncio.Event` it has no state that must be cleared: a task that starts to wait after a
    change waits for the next change.
    """

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def notify(self) -> None:
        """Wakes the tasks that wait now; tasks that wait later wait for the next change."""
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self) -> None:
        """Returns at the next change."""
        await self._event.wait()
