"""Runs work that goes on when its caller is cancelled, and that `close` waits for.

Problem: a program may end by cancelling all of its tasks. `asyncio.run` does so after SystemExit
and after a second Ctrl-C, and so do shutdown handlers with `asyncio.all_tasks()`. The tasks that
stop servers are among them.

Rule: work whose task the program cancels begins anew after a short delay (`PersistentTask`), until
the client is closed. Only `BackgroundWork.cancel_all` ends work for good.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

from edgegap_async.concurrency import PersistentTask

Work: TypeAlias = Callable[[], Coroutine[Any, Any, None]]
"""Begins the work; called again if the program cancels the task of the work."""


class BackgroundWork:
    """The work of one client that no caller has to wait for."""

    def __init__(self) -> None:
        self._tasks = set[PersistentTask]()
        self.is_cancelling = False
        """Whether `cancel_all` was called. Work that is cancelled then does not begin anew."""
        self.cancelled = set[str]()
        """The names of the work that `cancel_all` has cancelled."""

    def begin(
        self, work: Work, what: str, on_failure: Callable[[BaseException], None]
    ) -> asyncio.Future[None]:
        """Begins work, and returns a future of its end, which may be left alone.

        The future is cancelled only by `cancel_all`.

        Args:
            work: begins the work.
            what: names the work in the log.
            on_failure: called with the error if the work fails; it may begin other work.
        """
        task = PersistentTask(work, what)
        task.is_cancelling = self.is_cancelling
        self._tasks.add(task)
        task.ended.add_done_callback(functools.partial(self._on_end, task, on_failure))
        return task.ended

    def _on_end(
        self,
        task: PersistentTask,
        on_failure: Callable[[BaseException], None],
        ended: asyncio.Future[None],
    ) -> None:
        self._tasks.discard(task)
        if ended.cancelled():
            self.cancelled.add(task.what)
        elif (error := ended.exception()) is not None:
            on_failure(error)

    async def drain(self) -> None:
        """Begins work that waits for its delay, and returns when no work is in progress."""
        for task in self._tasks:
            task.resume()
        while self._tasks:  # work may begin other work
            await asyncio.wait([task.ended for task in self._tasks])

    async def cancel_all(self) -> None:
        """Cancels the work in progress, and notes its names in `cancelled`."""
        if not self._tasks:
            return
        if not self.is_cancelling:
            # A task that has not begun could not cancel the task that it waits for.
            await asyncio.sleep(0)
            self.is_cancelling = True
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait([task.ended for task in tasks])
