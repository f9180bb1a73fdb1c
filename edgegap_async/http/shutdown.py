"""Ends the open calls and waits of a client when the client is closed."""

from __future__ import annotations

import asyncio

from edgegap_async.concurrency import CancelScope, LoopBinding
from edgegap_async.errors import ClientClosed


class OpenCalls:
    """The calls and waits of one client that are in progress.

    Attributes:
        scopes: the blocks that `cancel_all` ends.
        is_closing: True from the first `cancel_all` on: no block can be entered then.
        all_left: set when the last block is left after `cancel_all`.
        check_loop: binds the client to the event loop of its first use, see `LoopBinding.check`.
    """

    def __init__(self) -> None:
        self.scopes = set[CloseScope]()
        self.is_closing = False
        self.all_left = asyncio.Event()
        self.check_loop = LoopBinding("the client").check

    async def cancel_all(self) -> None:
        """Cancels every open block, lets no new one in, and returns when all have been left."""
        self.is_closing = True
        for scope in self.scopes:
            scope.cancel()
        if self.scopes:
            await self.all_left.wait()


class CloseScope(CancelScope):
    """A block that raises `ClientClosed` when `OpenCalls.cancel_all` cancels it.

    A cancellation from elsewhere stays a cancellation.
    """

    __slots__ = ("_open_calls",)

    def __init__(self, open_calls: OpenCalls) -> None:
        self._open_calls = open_calls

    def __enter__(self) -> None:
        if self._open_calls.is_closing:
            raise ClientClosed("the client is closed")
        self._open_calls.check_loop(self._enter().get_loop())
        self._open_calls.scopes.add(self)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        scopes = self._open_calls.scopes
        scopes.remove(self)
        if self._open_calls.is_closing and not scopes:
            self._open_calls.all_left.set()
        if self._exit(kind):
            raise ClientClosed("the client was closed meanwhile") from None
