"""Runs work that goes on when its caller is cancelled, and that `close` waits for.

Problem: a program may end by cancelling all of its tasks. `asyncio.run` does so after SystemExit
and after a second Ctrl-C, and so do shutdown handlers with `asyncio.all_tasks()`. The tasks that
stop servers are among them.

Rule: work whose task the program cancels begins anew after a short delay, until the client is
closed. During the delay there is no task, so a program that cancels tasks until none is left ends.
Only `BackgroundWork.cancel_all` ends work for good.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
from collections.abc import Callable, Coroutine
from typing import Final, TypeAlias

import attrs

from edgegap_async.concurrency import create_detached_task

logger = logging.getLogger(__name__)

Work: TypeAlias = Callable[[], Coroutine[object, object, None]]
"""Begins the work; called again if the program cancels the task of the work."""

_FIRST_DELAY: Final = 0.05  # seconds from a cancellation by the program to the next begin; doubled
_MAX_DELAY: Final = 5.0  # seconds


@attrs.define(eq=False)
class _Item:
    begin: Work
    what: str
    on_failure: Callable[[BaseException], None]
    ended: asyncio.Future[None]
    delay: float = _FIRST_DELAY
    task: asyncio.Task[None] | None = None
    timer: asyncio.TimerHandle | None = None


class BackgroundWork:
    """The work of one client that no caller has to wait for."""

    def __init__(self) -> None:
        self._items = set[_Item]()
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
        item = _Item(work, what, on_failure, asyncio.get_running_loop().create_future())
        self._items.add(item)
        self._begin(item)
        return item.ended

    def _begin(self, item: _Item) -> None:
        item.timer = None
        item.task = create_detached_task(item.begin())
        item.task.add_done_callback(functools.partial(self._on_end, item))

    def _on_end(self, item: _Item, task: asyncio.Task[None]) -> None:
        item.task = None
        if not task.cancelled():
            self._end(item, task.exception())
        elif self.is_cancelling:
            self._cancel(item)
        else:
            logger.warning(
                "the program has cancelled the task that stops %s: it begins anew", item.what
            )
            loop = asyncio.get_running_loop()
            # In an empty context, as the task.
            item.timer = loop.call_later(
                item.delay, self._begin, item, context=contextvars.Context()
            )
            item.delay = min(item.delay * 2, _MAX_DELAY)

    def _end(self, item: _Item, error: BaseException | None) -> None:
        self._items.discard(item)
        if error is None:
            item.ended.set_result(None)
            return
        item.on_failure(error)
        item.ended.set_exception(error)
        item.ended.exception()  # an error that no caller reads was logged by `on_failure`

    def _cancel(self, item: _Item) -> None:
        self._items.discard(item)
        self.cancelled.add(item.what)
        item.ended.cancel()

    async def drain(self) -> None:
        """Begins work that waits for its delay, and returns when no work is in progress."""
        for item in self._items:
            if item.timer is not None:
                item.timer.cancel()
                self._begin(item)
        while self._items:  # work may begin other work
            await asyncio.wait([item.ended for item in self._items])

    async def cancel_all(self) -> None:
        """Cancels the work in progress, and notes its names in `cancelled`."""
        if not self._items:
            return
        if not self.is_cancelling:
            # A task that has not begun could not cancel the task that it waits for.
            await asyncio.sleep(0)
            self.is_cancelling = True
        items = tuple(self._items)
        for item in items:
            if item.task is not None:
                item.task.cancel()
            elif item.timer is not None:
                item.timer.cancel()
                self._cancel(item)
        if items:
            await asyncio.wait([item.ended for item in items])
