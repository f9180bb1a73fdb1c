"""Servers that are READY before anybody asks: `ServerPool`.

Theory. A pool is two things around one endless batch (`deploy_many`): a source of requests, which
gives the next one whenever a server is missing, and a loop that puts what becomes READY into the
hands of whoever has waited longest, or on the shelf. A taker who finds one on the shelf has it at
once, and a new one is begun in its place.

- What is on the shelf is looked at now and then, all by one list call, and at once when a webhook
  comes for it. A row that does not say READY is doubted, and confirmed by a status look before the
  server is given up. Where the list cannot be asked, status looks will do.
- Old ones are retired when there are more than `min_ready`; while there are not, each is replaced
  first, so that the shelf does not run empty because it was filled in one go.
- While deploys fail, one at a time is tried, each after a longer pause than the one before (1 s to
  60 s). From the third pause on, takers are told so rather than left to wait.
- What was taken keeps its place within `max_total` until the pool sees that it has ended; what is
  being stopped, until the API has taken the stop. One that fails is tried again at each look. One
  that was taken and is in ERROR is stopped after a minute, in which its logs can be read.

With an owner on the client, the next run of a killed program finds its shelf by a tag, and serves
from it. What the list does not tell of at first is found by a later look. Another tag, put on in
the background when a server is taken, says that it is in use: who is killed within the moment that
this takes finds that server again, and may hand it out twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import functools
import logging
import math
import re
from collections.abc import AsyncIterator, Iterable
from types import TracebackType
from typing import Any, Final, Self, Unpack

from edgegap_async.api.models import DeploymentRow, Status
from edgegap_async.api.requests import (
    AnyUser,
    DeployOptions,
    DeployRequest,
    Filter,
    check_options,
    deploy_request,
)
from edgegap_async.api.validation import check_kind, check_list, check_number
from edgegap_async.batch.plan import Outcome
from edgegap_async.client import EdgegapClient
from edgegap_async.deployments.handle import DeploymentHandle, RecoveredDeployment
from edgegap_async.deployments.ownership import wait_for_stops
from edgegap_async.deployments.playable import Check, as_check
from edgegap_async.errors import (
    BatchStopped,
    ClientClosed,
    EdgegapError,
    Gone,
    InvalidRequest,
    MaybeCreated,
    NotFound,
    PoolEmpty,
)

from .backoff import DeployBackoff
from .inventory import Allocation, PoolStats, ReadyQueue, ReadyServer

__all__ = ["ServerPool"]

logger = logging.getLogger(__name__)

_ERROR_GRACE: Final = 60.0  # seconds that one which was taken is left alone in ERROR
_TAG_TIMEOUT: Final = 5.0  # seconds that marks under way get at the end


class ServerPool:
    """Keeps servers READY, and hands them out in no time.

    ::

        async with ServerPool(client, "arena", "v1", users=[(48.9, 2.4)], min_ready=3) as pool:
            async with pool.take(timeout=10) as server:
                ...

    Entering it waits for no server: what cannot be deployed, as a name that is wrong, is told to
    who takes, by PoolEmpty. Leaving the block stops what was not taken, and raises what the pool
    has failed with, if it has.

    Args:
        client: what deploys. With an `owner`, the pool finds its servers again after a kill.
        application: name of the application.
        version: name of its version.
        users: where the players will be, by IP address or by (latitude, longitude).
        min_ready: servers to have READY at any time.
        max_total: the most that may exist at once, taken ones too.
        max_idle: seconds after which one that nobody took is replaced, or stopped if there are
            more than `min_ready`; None for never.
        max_age: likewise, since it became READY: less than the version's own longest duration.
        playable: what must succeed after READY, as for `wait_ready`.
        timeout_each: seconds that one has from the accepted deploy to READY.
        poll_interval: seconds between two looks at what is on the shelf.
        name: of this pool among those of the client and its owner, 1 to 14 characters: a tag has
            it, by which the pool knows its servers.
        options: as for `client.deploy`.

    Raises:
        InvalidRequest: an argument cannot be used.
    """

    def __init__(
        self,
        client: EdgegapClient,
        application: str,
        version: str,
        *,
        users: Iterable[AnyUser],
        min_ready: int = 1,
        max_total: int = 10,
        max_idle: float | None = 1800.0,
        max_age: float | None = None,
        playable: Check | None = None,
        timeout_each: float = 300.0,
        poll_interval: float = 5.0,
        name: str = "default",
        **options: Unpack[DeployOptions],
    ) -> None:
        if not isinstance(client, EdgegapClient):
            raise InvalidRequest(f"client is an EdgegapClient, not {client!r}")
        for what, number in (("min_ready", min_ready), ("max_total", max_total)):
            check_kind(what, number, int)
        if not 0 <= min_ready <= max_total or not max_total:
            raise InvalidRequest("0 <= min_ready <= max_total, and max_total is not 0")
        for what, seconds in (
            ("max_idle", max_idle),
            ("max_age", max_age),
            ("poll_interval", poll_interval),
            ("timeout_each", timeout_each),
        ):
            check_number(what, seconds, above=0)
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,14}", name):
            raise InvalidRequest(f"name is 1 to 14 of A-Z a-z 0-9 . _ -, not {name!r}")
        self._client = client
        self._tag, self._allocated_tag = f"pool-{name}", f"used-{name}"
        check_options(options)
        said: dict[str, Any] = dict(options)
        if not said.pop("operation_tag", True):
            raise InvalidRequest("what a pool deploys has an operation tag")
        check_list("tags", said.get("tags", ()))
        said["tags"] = (*said.get("tags", ()), self._tag)
        said |= {"application": application, "version": version, "users": users}
        self._request = deploy_request(said)
        self._min_ready, self._max_total = min_ready, max_total
        self._playable = None if playable is None else as_check(playable)
        self._timeout_each = timeout_each
        self._poll_interval = poll_interval
        self._queue = ReadyQueue(max_idle, max_age)
        self._starting = 0  # deploys without an outcome
        self._adopting: dict[str, asyncio.Task[None]] = {}  # what an earlier run left, at first
        self._adopted = set[str]()  # and since, also what has ended
        self._allocated = set[str]()
        self._crashed = dict[str, float]()  # of those taken, and when that was seen
        self._ending: dict[str, asyncio.Task[None]] = {}  # stops under way, and those that failed
        self._marking: dict[str, asyncio.Task[None]] = {}
        self._backoff = DeployBackoff()
        self._changed = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self._keeping_house: asyncio.Task[None] | None = None
        self._end: EdgegapError | None = None
        self._ended_by: Exception | None = None  # where nobody expects it
        self._allocated_total = self._retired = self._lost = 0

    def __repr__(self) -> str:
        return f"<ServerPool {self._request.application} {self._request.version}: {self.stats}>"

    @property
    def stats(self) -> PoolStats:
        """What it has and has done, now."""
        return PoolStats(
            ready=len(self._queue),
            starting=self._starting + len(self._adopting),
            allocated=self._queue.given + len(self._allocated),
            waiting=len(self._queue.takers),
            allocated_total=self._allocated_total,
            retired=self._retired,
            lost=self._lost,
            failed=self._backoff.failed,
            failing=self._backoff.failure is not None,
        )

    async def __aenter__(self) -> Self:
        if self._running is not None:
            raise RuntimeError("a pool is used once: make another")
        shelves = self._client.custody.shelves
        if self._tag in shelves:
            raise InvalidRequest(f"the client has a pool with the tag {self._tag}: name this one")
        shelves.add(self._tag)
        try:
            if self._client.owner is not None:
                self._recover((await self._list()).values())
        except BaseException:
            shelves.discard(self._tag)
            raise
        self._running = asyncio.create_task(self._run())
        self._keeping_house = asyncio.create_task(self._keep_house())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        _: TracebackType | None,
    ) -> None:
        running, keeping_house = self._running, self._keeping_house
        assert running and keeping_house  # noqa: S101, PT018 - it was entered
        self._finish(PoolEmpty("the block of the pool was left"))
        custody = self._client.custody
        for request_id in (*(one.server.request_id for one in self._queue), *self._adopting):
            if custody.holds(request_id):
                self._stop(request_id)
        for request_id in self._refused():
            if not custody.closed:
                self._stop(request_id)
        stops = tuple(self._ending.values())
        self._queue.servers.clear()
        under_way = [running, keeping_house, *self._adopting.values()]
        for task in under_way:
            task.cancel()
        try:
            await asyncio.wait(under_way)
            self._starting = 0
            self._adopting.clear()
            await self._finish_marks()
            await wait_for_stops(stops, problem or self._ended_by)
        finally:
            custody.shelves.discard(self._tag)
        if problem is None and self._ended_by is not None:
            raise self._ended_by
        for task in (running, keeping_house):
            if problem is None and not task.cancelled():
                task.result()

    async def _finish_marks(self) -> None:
        """A server in use that is not marked so would be taken for one of the shelf."""
        if self._marking:
            _, late = await asyncio.wait(self._marking.values(), timeout=_TAG_TIMEOUT)
            for task in late:
                task.cancel()

    # ── taking ───────────────────────────────────────────────────────────────────────────────────

    def allocate(self, timeout: float | None = None) -> Allocation:
        """A READY server: at once if there is one, else the next, first come first served.

        `server = await pool.take()` is yours to stop; one in ERROR the pool stops after a minute.
        `async with pool.take() as server` stops it at the end of the block. It can be awaited and
        is no coroutine: a task of its own is made by `asyncio.ensure_future`.

        Args:
            timeout: seconds to wait at most, None for no limit.

        Raises:
            PoolEmpty: none came in time, or the pool's deploys fail again and again.
            ClientClosed: the client is closed.
        """
        check_number("timeout", timeout, least=0)
        return Allocation(functools.partial(self._allocate, timeout), self._keep, self._give_back)

    async def _allocate(self, timeout: float | None) -> DeploymentHandle:  # noqa: ASYNC109 - as `take`
        self._check()
        if self._queue:  # then nobody else waits
            return self._hand_over(self._queue.servers.popleft())
        taker = self._queue.wait_in_line()
        self._changed.set()
        limit = asyncio.timeout(timeout)
        try:
            async with limit:
                shelved = await taker
        except BaseException as problem:
            if taker.done() and not taker.cancelled() and taker.exception() is None:
                self._queue.given -= 1
                self._give(taker.result())  # it came too late: somebody else has it
            else:
                with contextlib.suppress(ValueError):
                    self._queue.takers.remove(taker)
            if isinstance(problem, TimeoutError) and limit.expired():
                raise self._too_late(f"no server in {timeout:g} s") from self._backoff.failure
            raise
        self._queue.given -= 1
        return self._hand_over(shelved)

    def _too_late(self, what: str) -> PoolEmpty:
        why = f"; the last failure: {self._backoff.failure}" if self._backoff.failure else ""
        return PoolEmpty(f"{what}; {self.stats}{why}")

    async def filled(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - PoolEmpty says more
        """Returns when `min_ready` servers can be taken at once, as before a program takes players.

        Args:
            timeout: seconds to wait at most, None for no limit.

        Raises:
            PoolEmpty: they were not READY in time, or the pool's deploys fail again and again.
            ClientClosed: the client is closed.
        """
        check_number("timeout", timeout, least=0)
        limit = asyncio.timeout(timeout)
        try:
            async with limit:
                while self._is_short():
                    await self._queue.news.wait()
        except TimeoutError:
            if not limit.expired():
                raise
            raise self._too_late(f"not filled in {timeout:g} s") from self._backoff.failure

    def _is_short(self) -> bool:
        self._check(self._min_ready)
        return len(self._queue) < self._min_ready

    def _check(self, wanted: int = 1) -> None:
        if self._running is None:
            raise RuntimeError("use it as `async with ServerPool(…) as pool`")
        if self._end is not None:
            raise copy.copy(self._end) from self._end.__cause__
        if self._client.custody.closed:
            raise ClientClosed("the client is closed")
        # One who asks when the pause is over waits for the next try.
        hopeless = self._backoff.are_hopeless and self._backoff.pause > 0
        if hopeless and len(self._queue) < wanted:
            raise self._is_failing()

    def _is_failing(self) -> PoolEmpty:
        trials = self._backoff
        error = PoolEmpty(f"deploys fail, {trials.failed} so far; the last: {trials.failure}")
        error.__cause__ = trials.failure
        return error

    def _hand_over(self, shelved: ReadyServer) -> DeploymentHandle:
        server, custody = shelved.server, self._client.custody
        server.hear(None)
        if custody.closed and not custody.holds(server.request_id):
            raise ClientClosed("the client was closed meanwhile")
        custody.hand_over(server.request_id)
        self._allocated.add(server.request_id)
        self._allocated_total += 1
        self._changed.set()
        if self._client.owner is not None:
            self._mark(server.request_id)
        return server

    def _mark(self, request_id: str) -> None:
        """Lets whoever recovers the shelf know that this one is in use."""
        if request_id not in self._marking:
            marking = self._marking[request_id] = asyncio.create_task(self._rename_tag(request_id))
            marking.add_done_callback(lambda _: self._marking.pop(request_id))

    async def _rename_tag(self, request_id: str) -> None:
        try:
            await self._client.tags.rename(request_id, self._tag, self._allocated_tag)
        except EdgegapError as error:
            logger.info("%s is in use, and could not be marked so: %s", request_id, error)

    def _keep(self, server: DeploymentHandle) -> None:
        """Within its block a taken server is stopped by `close`, as one of `run` is."""
        self._client.custody.take(server.request_id)

    async def _give_back(self, server: DeploymentHandle, problem: BaseException | None) -> None:
        custody = self._client.custody
        self._allocated.discard(server.request_id)
        self._crashed.pop(server.request_id, None)
        if problem is None:
            await custody.release(server.request_id, self._stop)
        else:
            await custody.release_after(problem, server.request_id, self._stop)

    # ── keeping it full ──────────────────────────────────────────────────────────────────────────

    async def _run(self) -> None:
        async with self._client.deploy_many(
            self._missing(),
            concurrency=self._max_total,
            timeout_each=self._timeout_each,
            playable=self._playable,
        ) as batch:
            try:
                async for outcome in batch:
                    self._arrived(outcome)
            except ClientClosed as closed:
                self._finish(closed)
            except Exception as error:  # noqa: BLE001 - it is raised where the block is left
                self._ended_by = error
                failed = PoolEmpty(f"the pool has failed: {error!r}")
                failed.__cause__ = error
                self._finish(failed)

    async def _missing(self) -> AsyncIterator[DeployRequest]:
        """A request whenever a server is missing, and may be deployed."""
        while True:
            self._changed.clear()
            self._tidy()
            if self._lacks() > 0 and self._room() > 0:
                pause = self._backoff.pause
                if pause <= 0:
                    self._backoff.begin()
                    self._starting += 1
                    yield self._request
                    continue
            else:
                pause = math.inf
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if pause == math.inf else pause):
                    await self._changed.wait()

    def _lacks(self) -> int:
        """How many servers are missing, beside those that are coming."""
        if self._end is not None:
            return 0
        young = len(self._queue) - len(self._queue.old(_now()))
        coming = self._starting + len(self._adopting)
        return self._min_ready + len(self._queue.takers) - young - coming

    def _room(self) -> int:
        """How many more there may be."""
        here = len(self._queue) + self._queue.given + len(self._allocated) + len(self._ending)
        return self._max_total - here - self._starting - len(self._adopting)

    def _arrived(self, outcome: Outcome) -> None:
        self._starting -= 1
        if outcome.handle is not None and outcome.is_ready:
            self._backoff.succeed()
            self._client.custody.take(outcome.handle.request_id)
            self._give(ReadyServer(outcome.handle, since=_now(), made=_now()))
        else:
            self._count_failure(outcome)
        self._changed.set()

    def _count_failure(self, outcome: Outcome) -> None:
        error = outcome.error
        is_stopped = isinstance(error, BatchStopped) or (error is not None and error.stopped)
        if outcome.handle is not None and not is_stopped and not self._client.custody.closed:
            self._stop(outcome.handle.request_id)  # once more: it counts until it is stopped
        if isinstance(error, MaybeCreated):  # with no owner nobody will ever know
            logger.error("of the pool %s may go on running: %s", self._tag, error)
        else:
            logger.info("no server for the pool %s: %r", self._tag, error)
        self._backoff.fail(outcome.index, error)
        if self._backoff.are_hopeless:
            self._queue.tell(self._is_failing())

    def _give(self, shelved: ReadyServer) -> None:
        """To who has waited longest, or onto the shelf."""
        if self._end is None:
            self._queue.put(shelved)
        elif self._client.custody.holds(shelved.server.request_id):
            self._client.custody.stop(shelved.server.request_id)

    def _finish(self, end: EdgegapError) -> None:
        if isinstance(end, PoolEmpty):
            end.is_over = True
        self._end = self._end or end
        self._queue.tell(self._end)

    def _stop(self, request_id: str) -> asyncio.Task[None]:
        """Stops one, which counts until the API has taken the stop."""

        def ended(stopping: asyncio.Task[None]) -> None:
            if not stopping.cancelled() and stopping.exception() is None:
                self._ending.pop(request_id, None)
                self._changed.set()

        stopping = self._ending[request_id] = self._client.custody.stop(request_id)
        stopping.add_done_callback(ended)
        return stopping

    # ── the shelf ────────────────────────────────────────────────────────────────────────────────

    def _refused(self) -> set[str]:
        """Whose stop has failed."""
        return {one for one, stopping in self._ending.items() if stopping.done()}

    def _tidy(self) -> None:
        """Retires the old: those too many, and one to make room for its successor."""
        old = self._queue.old(_now())
        retired = old[: max(0, len(self._queue) - self._min_ready)]
        on_the_way = self._starting or self._adopting or self._ending
        if old and not retired and self._room() <= 0 and not on_the_way:
            retired = old[:1]
        for one in retired:
            self._queue.servers.remove(one)
            self._stop(one.server.request_id)
            self._retired += 1

    async def _keep_house(self) -> None:
        """Looks at all that there is, now and then, and when a webhook comes for the shelf."""
        with contextlib.suppress(ClientClosed):
            while True:
                with self._client.until_closed(), contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._poll_interval):
                        await self._queue.rung.wait()
                self._queue.rung.clear()
                await self._look()
                self._changed.set()

    async def _look(self) -> None:
        shelf, taken = tuple(self._queue), set(self._allocated)
        refused = self._refused()
        try:
            listed = await self._list()
        except ClientClosed:
            raise
        except EdgegapError as error:
            logger.info("the pool %s is looked at one by one: %s", self._tag, error)
            listed = {}
        if self._client.owner is not None:
            self._recover(listed.values())
        for one in shelf:
            row = listed.get(one.server.request_id)
            fine = row is not None and row.ready and row.status in {None, Status.READY}
            fine = fine and not one.server.webhook_pending  # which the list may not have heard yet
            seen = None if fine else await self._status_of(one.server)
            if seen is not None and not seen.is_ready and one in self._queue:
                self._queue.servers.remove(one)
                self._lost += 1
                logger.warning("%s has died in the pool %s", one.server.request_id, self._tag)
                self._stop(one.server.request_id)
        for request_id in taken | refused:
            row = listed.get(request_id)
            seen = row.status if row else await self._status_of(self._client.handle(request_id))
            if seen is Status.TERMINATED:
                self._allocated.discard(request_id)
                self._ending.pop(request_id, None)
            self._judge(request_id, seen)
        for request_id in refused & self._ending.keys():
            self._stop(request_id)
        for request_id in self._allocated & listed.keys():
            if self._client.owner is not None and self._tag in listed[request_id].tags:
                self._mark(request_id)

    async def _list(self) -> dict[str, DeploymentRow]:
        """The rows that have a tag of the pool's, by id; those of other owners too."""
        filters = [Filter("tags", "in", [self._tag, self._allocated_tag])]
        rows = self._client.deployments.list(filters=filters)
        return {row.request_id: row async for row in rows}

    async def _status_of(self, server: DeploymentHandle) -> Status | None:
        """What a look tells; None if that cannot be told now."""
        try:
            return (await server.refresh()).current_status
        except (Gone, NotFound):
            return Status.TERMINATED
        except ClientClosed:
            raise
        except EdgegapError:
            return None

    def _judge(self, request_id: str, status: Status | None) -> None:
        """Stops one that was taken and has crashed, when its logs could be read for a while."""
        if status is not Status.ERROR or request_id not in self._allocated:
            self._crashed.pop(request_id, None)
        elif _now() >= self._crashed.setdefault(request_id, _now()) + _ERROR_GRACE:
            logger.warning("%s was taken and is in ERROR: the pool stops it", request_id)
            self._allocated.discard(request_id)
            del self._crashed[request_id]
            self._stop(request_id)

    # ── the next run ─────────────────────────────────────────────────────────────────────────────

    def _recover(self, rows: Iterable[DeploymentRow]) -> None:
        """Takes over what an earlier run left, as far as it fits; each once."""
        custody = self._client.custody
        for row in rows:
            request_id = row.request_id
            found = self._client.found(row)
            if found is None or request_id in self._adopted or custody.holds(request_id):
                continue
            if self._allocated_tag in row.tags:
                self._allocated.add(request_id)
            elif self._tag in row.tags:
                custody.take(request_id)
                if self._room() > 0:
                    self._adopting[request_id] = asyncio.create_task(self._adopt(found))
                else:
                    self._stop(request_id)
            self._adopted.add(request_id)

    async def _adopt(self, found: RecoveredDeployment) -> None:
        """Puts one on the shelf once it is READY and playable."""
        server = found.handle
        fits = False
        try:
            deployment = await server.refresh()
            if deployment.app_name in {None, self._request.application} and (
                deployment.app_version in {None, self._request.version}
            ):
                await server.wait_ready(self._timeout_each, playable=self._playable)
                fits = True
        except Exception as error:  # noqa: BLE001 - a check of the caller's own may raise anything
            logger.info("%s, left by an earlier run, is of no use: %r", server.request_id, error)
        del self._adopting[server.request_id]
        if fits:
            made = _now() - (found.age or 0.0)
            self._give(ReadyServer(server, since=_now(), made=made))
        elif self._client.custody.holds(server.request_id):
            self._stop(server.request_id)
        self._changed.set()


def _now() -> float:
    return asyncio.get_running_loop().time()
