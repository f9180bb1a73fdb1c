"""How one call is made: its options, and the permit that each of its attempts takes.

**Problem.** The rate limit must hold where requests arrive. A permit that a call takes before it
opens a connection says nothing about that: after a name server that answers in 3 s, the calls of
3 s would be sent at one moment, and most of them refused.

**Rule.** A call takes a permit first, because the rate limit orders the calls by priority. Where it
must then wait, for one of the operation's connections or for a new connection, it gives the permit
back and takes one again, before all other calls, when it holds the open connection. A permit that
cannot be given back is valid for 25 ms, the time by which the limits allow calls to be late.
"""

from __future__ import annotations

import asyncio
import functools
from typing import Any, Final

import attrs

from edgegap_async.api.messages import MAX_ANSWER_BYTES, HttpRequest
from edgegap_async.api.requests import Token
from edgegap_async.api.values import Value
from edgegap_async.concurrency import limited, loop_time
from edgegap_async.errors import LimitReached

from .rate_limits import Limits, Priority

_VALIDITY: Final = 0.025  # seconds from the permit to the request
_UNDO_TIME: Final = 0.005  # seconds in which the newest permit of the limits is still this one


@attrs.frozen(kw_only=True, eq=False, repr=False)
class CallOptions(Value):
    """How one call is made."""

    token: Token | None = None
    """Token to send, for an operation that takes the deployment's own token; None for the
    client's API token."""
    max_bytes: int = MAX_ANSWER_BYTES
    """Largest answer, in decompressed bytes. A larger one raises `UnreadableAnswer`."""
    priority: Priority | None = None
    """Place in the queue of the operation's rate limit; None for `Priority.of(operation)`."""
    once: bool = False
    """True to send the request at most once, without the retries of `RetryPolicy`."""
    ignore_wait_limit: bool = False
    """True to wait for the rate limit without end, as if the client had no `max_wait`."""
    operation_tag: str | None = None
    """The operation tag in the body of a deploy, for observers; None for other calls."""


DEFAULT_OPTIONS: Final = CallOptions()


@attrs.define(eq=False, repr=False)
class CallPermit:
    """The permit of one attempt of a call."""

    limits: Limits
    """Where the permit comes from."""
    connections: asyncio.Semaphore
    """The connections of the operation, of which the caller of `take` holds one afterwards."""
    request: HttpRequest[Any]
    """What is to be sent."""
    priority: Priority
    """Which waiting calls it overtakes."""
    max_wait: float | None
    """Seconds that all waits of the attempt may last together, 0 or more; None for no limit."""
    waited: float = attrs.field(default=0.0, init=False)
    """Seconds that the attempt has waited for permits and for a connection of the operation."""
    taken_at: float = attrs.field(default=0.0, init=False)
    """Loop time at which the permit was taken that the call has, or had."""
    _is_held: bool = attrs.field(default=False, init=False)

    async def take(self, *, front: bool) -> None:
        """Waits for the permit and for one of the operation's connections.

        Args:
            front: True to go before the other calls of the priority.

        Raises:
            LimitReached: the waits would be longer than `max_wait`, or were.
        """
        await self._acquire(front=front)
        if not self.connections.locked():
            await self.connections.acquire()  # does not wait
            return
        self.give_back()
        began = loop_time()
        late = functools.partial(LimitReached, "all connections are in use", **self.request.facts())
        async with limited(asyncio.timeout(self._wait_left()), late):
            await self.connections.acquire()
        self.waited += loop_time() - began
        try:
            await self.take_again()
        except BaseException:
            self.connections.release()
            raise

    def give_back(self) -> None:
        """Gives the permit back where the limits can take it, before a wait for a connection."""
        if self._is_held and loop_time() - self.taken_at < _UNDO_TIME:
            self._is_held = not self.limits.give_back(self.request.operation)

    def is_valid(self) -> bool:
        """Returns whether the request may be sent now."""
        return self._is_held and loop_time() - self.taken_at <= _VALIDITY

    async def take_again(self) -> None:
        """Waits for another permit, before the other calls of the priority.

        Raises:
            LimitReached: the waits would be longer than `max_wait`, or were.
        """
        self._is_held = False
        await self._acquire(again=True)

    def use(self) -> None:
        """Uses up the permit: what is sent from now on needs another one."""
        self._is_held = False

    async def _acquire(self, *, front: bool = False, again: bool = False) -> None:
        began = loop_time()
        try:
            await self.limits.acquire(
                self.request.operation,
                self.priority,
                max_wait=self._wait_left(),
                front=front,
                again=again,
            )
        except LimitReached as error:
            vars(error).update(self.request.facts())  # with the values in the path
            raise
        self._is_held, self.taken_at = True, loop_time()
        self.waited += self.taken_at - began

    def _wait_left(self) -> float | None:
        return None if self.max_wait is None else max(0.0, self.max_wait - self.waited)
