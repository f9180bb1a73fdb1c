"""The servers of a pool that can be taken, and those who take: never do both wait at once."""

from __future__ import annotations

import asyncio
import collections
import math
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from types import TracebackType
from typing import Any

import attrs

from edgegap_async.deployments.handle import DeploymentHandle
from edgegap_async.errors import EdgegapError

__all__ = ["Allocation", "PoolStats", "ReadyQueue", "ReadyServer"]


@attrs.frozen(kw_only=True)
class PoolStats:
    """What a pool has and has done."""

    ready: int
    """Servers to be taken, now."""
    starting: int
    """Deployed, or found again, and not READY and playable yet."""
    allocated: int
    """Handed out, and not seen to have ended."""
    waiting: int
    """Takers without a server."""
    allocated_total: int
    """How many were, in all."""
    retired: int
    """Stopped because they were old."""
    lost: int
    """Replaced because they had died on the shelf."""
    failed: int
    """Deploys that came to nothing."""
    failing: bool
    """Whether the newest deploy failed: then one at a time is tried, with pauses."""


@attrs.define(eq=False)
class ReadyServer:
    """A server to be taken."""

    server: DeploymentHandle
    since: float
    """Loop time at which it was put here."""
    made: float
    """Loop time at which it became READY, about."""


class ReadyQueue:
    """First come, first served.

    Args:
        max_idle: seconds on it after which a server is old; None for never.
        max_age: likewise, since it became READY.

    Attributes:
        servers: to be taken, the oldest first.
        takers: who waits, the one who waits longest first.
        given: servers that a taker has and has not come for yet.
        rung: is set when a webhook comes for one that can be taken.
        news: is set when there is one more, or there will be none; then it is another.
    """

    def __init__(self, max_idle: float | None, max_age: float | None) -> None:
        self.servers = collections.deque[ReadyServer]()
        self.takers = collections.deque[asyncio.Future[ReadyServer]]()
        self.given = 0
        self.news = asyncio.Event()
        self.rung = asyncio.Event()
        self._max_idle = math.inf if max_idle is None else max_idle
        self._max_age = math.inf if max_age is None else max_age

    def __iter__(self) -> Iterator[ReadyServer]:
        """Those that can be taken, as they are now."""
        return iter(tuple(self.servers))

    def __len__(self) -> int:
        return len(self.servers)

    def wait_in_line(self) -> asyncio.Future[ReadyServer]:
        """What another taker waits for."""
        taker: asyncio.Future[ReadyServer] = asyncio.get_running_loop().create_future()
        self.takers.append(taker)
        return taker

    def put(self, shelved: ReadyServer) -> None:
        """It goes to who has waited longest, or onto the shelf."""
        while self.takers:
            taker = self.takers.popleft()
            if not taker.done():
                taker.set_result(shelved)
                self.given += 1
                return
        self.servers.append(shelved)
        shelved.server.hear(self.rung)
        self._tell_of_news()

    def _tell_of_news(self) -> None:
        self.news.set()
        self.news = asyncio.Event()

    def tell(self, error: EdgegapError) -> None:
        """Whoever waits waits no more."""
        self._tell_of_news()
        while self.takers:
            taker = self.takers.popleft()
            if not taker.done():
                taker.set_exception(error)

    def old(self, now: float) -> list[ReadyServer]:
        """Those that have been there, or READY, for too long."""
        return [
            one
            for one in self.servers
            if now - one.since >= self._max_idle or now - one.made >= self._max_age
        ]


class Allocation:
    """A server to be taken from a pool: await it, or enter it as a block."""

    __slots__ = ("_allocate", "_give_back", "_keep", "_server")

    def __init__(
        self,
        allocate: Callable[[], Coroutine[Any, Any, DeploymentHandle]],
        keep: Callable[[DeploymentHandle], None],
        give_back: Callable[[DeploymentHandle, BaseException | None], Awaitable[None]],
    ) -> None:
        self._allocate = allocate
        self._keep = keep
        self._give_back = give_back
        self._server: DeploymentHandle | None = None

    def __await__(self) -> Generator[Any, None, DeploymentHandle]:
        return self._allocate().__await__()

    async def __aenter__(self) -> DeploymentHandle:
        self._server = await self._allocate()
        self._keep(self._server)
        return self._server

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        _: TracebackType | None,
    ) -> None:
        assert self._server is not None  # noqa: S101 - it was entered
        await self._give_back(self._server, problem)
