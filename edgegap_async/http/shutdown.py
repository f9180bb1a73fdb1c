"""Ends the open calls and waits of a client when the client is closed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from edgegap_async.concurrency import CancelScope, ChangeEvent, LoopBinding, loop_time
from edgegap_async.errors import ClientClosed

_TIME_AFTER_CANCELLATION: Final = 2.0  # seconds; enough for the answer to a stop
_LAST_STEP_TIME: Final = 5.0  # seconds for a step that must not be left out


class OpenCalls:
    """The calls and waits of one client that are in progress.

    Attributes:
        scopes: the blocks that `cancel_all` ends.
        is_closing: True from the first `cancel_all` on: no block can be entered then.
        left: notified for each block that is left while the client closes.
        check_loop: binds the client to the event loop of its first use, see `LoopBinding.check`.
    """

    def __init__(self) -> None:
        self.scopes = set[CloseScope]()
        self.is_closing = False
        self.check_loop = LoopBinding("the client").check
        self.left = ChangeEvent()
        self._closers = set[asyncio.Task[object] | None]()  # the tasks in `cancel_all`

    async def cancel_all(self) -> None:
        """Cancels every open block, lets no new one in, and returns when all have been left.

        A block of a task that is in `cancel_all` itself goes on: user code that runs inside a block
        of the client may close the client.
        """
        self.is_closing = True
        closer = asyncio.current_task()
        self._closers.add(closer)
        try:
            self.left.notify()  # another task in `cancel_all` does not wait for this one
            for scope in self.open_scopes():
                scope.cancel()
            while self.open_scopes():
                await self.left.wait()
        finally:
            self._closers.discard(closer)

    def open_scopes(self) -> list[CloseScope]:
        """Returns the blocks in progress, without those of tasks that are in `cancel_all`."""
        return [scope for scope in self.scopes if scope.task not in self._closers]


class Closing:
    """The steps of one `close`, which go on for a short time if its caller is cancelled.

    A program that ends cancels all of its tasks, often twice, and also the task that closes the
    client. The steps may be run again after a cancellation, so each does what is left to do.

    Args:
        seconds: that all steps may take together.
    """

    def __init__(self, seconds: float) -> None:
        self._until = loop_time() + seconds
        self._cancellation: asyncio.CancelledError | None = None

    async def step(self, work: Callable[[], Awaitable[object]], *, is_last: bool = False) -> bool:
        """Runs one step; returns whether it has ended in time.

        Args:
            work: the step.
            is_last: whether the step has 5 s of its own, because it must not be left out.
        """
        until = loop_time() + _LAST_STEP_TIME if is_last else self._until
        while True:
            limit = asyncio.timeout_at(until)
            try:
                async with limit:
                    await work()
            except TimeoutError:
                if not limit.expired():
                    raise
                return False
            except asyncio.CancelledError as cancellation:
                self._cancellation = self._cancellation or cancellation
                self._until = min(self._until, loop_time() + _TIME_AFTER_CANCELLATION)
                until = min(until, self._until) if not is_last else until
            else:
                return True

    def end(self) -> None:
        """Ends the close.

        Raises:
            asyncio.CancelledError: the caller was cancelled meanwhile.
        """
        if self._cancellation is not None:
            raise self._cancellation


class CloseScope(CancelScope):
    """A block that raises `ClientClosed` when `OpenCalls.cancel_all` cancels it.

    A cancellation from elsewhere stays a cancellation.
    """

    __slots__ = ("_open_calls",)

    def __init__(self, open_calls: OpenCalls) -> None:
        self._open_calls = open_calls

    @property
    def task(self) -> asyncio.Task[object]:
        """The task inside the block."""
        return self._task

    def __enter__(self) -> None:
        if self._open_calls.is_closing:
            raise ClientClosed("the client is closed")
        self._open_calls.check_loop(self._enter().get_loop())
        self._open_calls.scopes.add(self)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._open_calls.scopes.remove(self)
        if self._open_calls.is_closing:
            self._open_calls.left.notify()
        if self._exit(kind):
            raise ClientClosed("the client was closed meanwhile") from None
