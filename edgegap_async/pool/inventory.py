"""The servers of a pool by state, and the callers that wait for a server.

A server is in one state at a time: starting (deployed and not READY), recovering (left by an
earlier run, and not checked yet), ready, assigned (given to a waiting caller whose task has not run
yet), allocated (the caller has it), or stopping (until the API has accepted the stop). The servers
of every state count towards `max_total`.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
import math
from collections.abc import Callable, Coroutine, Generator, Iterator
from types import TracebackType
from typing import Any, ClassVar

import attrs

from edgegap_async.api.validation import check_name, number
from edgegap_async.api.values import Documented
from edgegap_async.concurrency import ChangeEvent, PersistentTask, loop_time, raise_in_loop
from edgegap_async.deployments.handle import DeploymentHandle, tracker_of
from edgegap_async.deployments.ownership import OwnedDeployments
from edgegap_async.deployments.playable import PlayableCheck, as_check
from edgegap_async.errors import EdgegapError, InvalidRequest, PoolEmpty, log_fields

logger = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class PoolStats(Documented):
    """The servers and callers of a pool at one moment, and its counters since it was entered."""

    ready: int
    """Servers that can be allocated now."""
    starting: int
    """Servers that were deployed, or recovered from an earlier run, and are not ready yet."""
    allocated: int
    """Allocated servers that the pool has not seen end."""
    waiting: int
    """Callers that wait for a server."""
    allocated_total: int
    """Servers allocated since the pool was entered."""
    retired: int
    """Servers stopped because `max_idle` or `max_age` had passed."""
    lost: int
    """Servers replaced because they failed or ended before they were allocated."""
    failed: int
    """Deploys that gave no server."""
    failing: bool
    """Whether the newest deploy failed. The pool then deploys one server at a time, with delays."""


def _check_name(_: object, __: object, value: Any) -> None:
    check_name("name", value, max_length=14)


@attrs.frozen(kw_only=True)
class PoolSettings:
    """The settings of a pool; `ServerPool` documents each."""

    made_by: ClassVar[str] = "ServerPool"

    name: str = attrs.field(validator=_check_name)
    min_ready: int = attrs.field(validator=number(least=0, whole=True))
    max_total: int = attrs.field(validator=number(above=0, whole=True))
    max_idle: float | None = attrs.field(validator=number(above=0, optional=True))
    max_age: float | None = attrs.field(validator=number(above=0, optional=True))
    playable: PlayableCheck | None = attrs.field(converter=attrs.converters.optional(as_check))
    timeout_each: float | None = attrs.field(validator=number(above=0, optional=True))
    poll_interval: float | None = attrs.field(validator=number(above=0, optional=True))

    def __attrs_post_init__(self) -> None:
        if self.min_ready > self.max_total:
            raise InvalidRequest(
                f"min_ready={self.min_ready} is more than max_total={self.max_total}"
            )

    @property
    def tag(self) -> str:
        """The tag of a server that can be allocated."""
        return f"pool-{self.name}"

    @property
    def allocated_tag(self) -> str:
        """The tag of a server that was allocated."""
        return f"used-{self.name}"


@attrs.define(eq=False)
class ReadyServer:
    """A server that can be allocated."""

    server: DeploymentHandle
    """The handle of the server."""
    queued_at: float
    """Loop time at which the server came to the queue."""
    ready_at: float
    """Approximate loop time at which the server became READY."""


class ReadyQueue:
    """A first-in, first-out queue of ready servers, and of callers that wait for one.

    At most one of the two is not empty.

    Args:
        max_idle: seconds in the queue after which a server is expired; None for no limit.
        max_age: seconds since READY after which a server is expired; None for no limit.
    """

    def __init__(self, max_idle: float | None, max_age: float | None) -> None:
        self.servers = collections.deque[ReadyServer]()
        """The servers, in the order in which they came."""
        self.waiters = collections.deque[asyncio.Future[ReadyServer]]()
        """The futures of the callers that wait, in the order in which they came."""
        self.assigned = 0
        """Servers given to a waiting caller whose task has not run yet."""
        self.changed = ChangeEvent()
        """Notified when a server came to the queue, and when no more servers will come."""
        self.webhook_event = asyncio.Event()
        """Set when a webhook arrives for a server in the queue."""
        self._max_idle = math.inf if max_idle is None else max_idle
        self._max_age = math.inf if max_age is None else max_age

    def __iter__(self) -> Iterator[ReadyServer]:
        """Iterates over a copy, so that servers may be removed meanwhile."""
        return iter(tuple(self.servers))

    def __len__(self) -> int:
        return len(self.servers)

    def add_waiter(self) -> asyncio.Future[ReadyServer]:
        """Returns the future of another caller that waits."""
        waiter: asyncio.Future[ReadyServer] = asyncio.get_running_loop().create_future()
        self.waiters.append(waiter)
        return waiter

    def put(self, ready: ReadyServer) -> None:
        """Assigns a server to the caller that waits longest, or adds the server to the queue."""
        while self.waiters:
            waiter = self.waiters.popleft()
            if not waiter.done():
                waiter.set_result(ready)
                self.assigned += 1
                return
        self.servers.append(ready)
        tracker_of(ready.server).webhook_event = self.webhook_event
        self.changed.notify()

    def fail_waiters(self, error: EdgegapError) -> None:
        """Raises an error in every caller that waits."""
        self.changed.notify()
        while self.waiters:
            waiter = self.waiters.popleft()
            if not waiter.done():
                waiter.set_exception(error)

    def expired(self) -> list[ReadyServer]:
        """Returns the servers whose `max_idle` or `max_age` has passed."""
        now = loop_time()
        return [
            ready
            for ready in self.servers
            if now - ready.queued_at >= self._max_idle or now - ready.ready_at >= self._max_age
        ]


class Inventory:
    """Tracks every server of one pool by its state.

    Args:
        settings: the settings of the pool.
        owned: the deployments that the client has to stop.
    """

    def __init__(self, settings: PoolSettings, owned: OwnedDeployments) -> None:
        self._settings = settings
        self._owned = owned
        self.queue = ReadyQueue(settings.max_idle, settings.max_age)
        """The servers that can be allocated."""
        self.changed = ChangeEvent()
        """Notified when a server may be missing, or may be deployed, that was not before."""
        self.starting = 0
        """Deploys without an outcome."""
        self.recovering: dict[str, PersistentTask] = {}
        """The task that checks each server of an earlier run."""
        self.allocated = set[str]()
        """The ids of allocated servers that were not seen to end."""
        self.stopping: dict[str, asyncio.Future[None]] = {}
        """The newest stop of each server, until a stop succeeds."""
        self.allocated_total = self.retired = self.lost = 0
        self.end: EdgegapError | None = None
        """The error that callers get because the pool has ended; None before."""

    def missing(self) -> int:
        """Returns how many servers to deploy in addition to the servers that are starting."""
        if self.end is not None:
            return 0
        fresh = len(self.queue) - len(self.queue.expired())
        wanted = self._settings.min_ready + len(self.queue.waiters)
        return wanted - fresh - self.starting - len(self.recovering)

    def capacity_left(self) -> int:
        """Returns how many more servers `max_total` permits."""
        existing = len(self.queue) + self.queue.assigned + len(self.allocated) + len(self.stopping)
        return self._settings.max_total - existing - self.starting - len(self.recovering)

    def add(self, ready: ReadyServer) -> None:
        """Adds a server that can be allocated; stops the server if the pool has ended."""
        request_id = ready.server.request_id
        if self.end is None:
            self.queue.put(ready)
        elif request_id in self._owned:
            self._owned.begin_stop(request_id)

    async def take(self) -> ReadyServer:
        """Removes and returns the next server, and waits for one if there is none."""
        if self.queue:
            return self.queue.servers.popleft()
        waiter = self.queue.add_waiter()
        self.changed.notify()
        try:
            ready = await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                # The server was assigned in the same step in which the caller was cancelled.
                self.queue.assigned -= 1
                self.add(waiter.result())
            else:
                with contextlib.suppress(ValueError):
                    self.queue.waiters.remove(waiter)
            raise
        self.queue.assigned -= 1
        return ready

    def keep(self, request_id: str) -> None:
        """Makes `client.close` stop a server while its block runs, as a server of `run`."""
        self._owned.add(request_id)

    async def release(self, request_id: str, problem: BaseException | None) -> None:
        """Stops a server at the end of its block."""
        self.allocated.discard(request_id)
        if problem is None:
            await self._owned.stop_and_wait(request_id, self.begin_stop)
        else:
            await self._owned.stop_because_of(problem, request_id, self.begin_stop)

    def begin_stop(self, request_id: str) -> asyncio.Future[None]:
        """Stops a server in the background; `max_total` counts it until the stop is accepted."""

        def ended(stopping: asyncio.Future[None]) -> None:
            if not stopping.cancelled() and stopping.exception() is None:
                self.stopping.pop(request_id, None)
                self.changed.notify()

        stopping = self.stopping[request_id] = self._owned.begin_stop(request_id)
        stopping.add_done_callback(ended)
        return stopping

    def failed_stops(self) -> set[str]:
        """Returns the ids of the servers whose newest stop failed."""
        return {request_id for request_id, task in self.stopping.items() if task.done()}

    def close(self, end: EdgegapError) -> None:
        """Ends the pool: callers that wait get the error, and so do later callers."""
        if isinstance(end, PoolEmpty):
            end.is_over = True
        self.end = self.end or end
        self.queue.fail_waiters(self.end)

    def fail(self, error: BaseException) -> None:
        """Ends the pool because of an unexpected error, such as SystemExit in a check."""
        logger.error(
            "pool %s: has failed: %r",
            self._settings.name,
            error,
            extra=log_fields(error, pool=self._settings.name),
        )
        failed = PoolEmpty(f"the pool has failed: {error!r}")
        failed.__cause__ = error
        self.close(failed)
        raise_in_loop(error)


class Allocation:
    """A request for a server of a pool, made by `ServerPool.allocate`.

    `server = await pool.allocate()` leaves the server to the caller, who has to stop it.
    `async with pool.allocate() as server` stops the server at the end of the block. The object can
    be used once, and raises RuntimeError afterwards.
    """

    __slots__ = ("_allocate", "_inventory", "_server", "_used")

    def __init__(
        self, allocate: Callable[[], Coroutine[Any, Any, DeploymentHandle]], inventory: Inventory
    ) -> None:
        self._allocate = allocate
        self._inventory = inventory
        self._server: DeploymentHandle | None = None
        self._used = False

    def _use(self) -> Coroutine[Any, Any, DeploymentHandle]:
        if self._used:
            raise RuntimeError("an allocation can be used once: call pool.allocate() again")
        self._used = True
        return self._allocate()

    def __await__(self) -> Generator[Any, None, DeploymentHandle]:
        return self._use().__await__()

    async def __aenter__(self) -> DeploymentHandle:
        self._server = await self._use()
        self._inventory.keep(self._server.request_id)
        return self._server

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        _: TracebackType | None,
    ) -> None:
        assert self._server is not None  # noqa: S101 - it was entered
        await self._inventory.release(self._server.request_id, problem)
