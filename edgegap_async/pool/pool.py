"""Keeps servers READY in advance and allocates them: `ServerPool`.

Problem: from a deploy to READY takes seconds, and players wait for them.

Rule: a pool is one batch (`deploy_many`) that does not end. Its source gives a request whenever a
server is missing; the servers that become READY go to the caller that waits longest, or to the
queue of ready servers. `PoolMaintenance` checks and replaces the servers in the queue.

Consequences:

- A caller gets a server of the queue without waiting, and the pool deploys a successor at once.
- An allocated server counts towards `max_total` until the pool sees that it has ended, and a server
  that is being stopped until the API has accepted the stop.
- While deploys fail, the pool makes one at a time, after delays that grow from 1 s to 60 s. From
  the third failure in a row on, callers get `PoolEmpty` at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import functools
import logging
import math
from collections.abc import AsyncIterator, Iterable
from types import TracebackType
from typing import Any, Final, Self, Unpack

from edgegap_async.api.requests import (
    AnyUser,
    DeployOptions,
    DeployRequest,
    check_options,
    deploy_request,
)
from edgegap_async.api.validation import check_list, check_number
from edgegap_async.batch.plan import Outcome
from edgegap_async.client import EdgegapClient
from edgegap_async.concurrency import PersistentTask, limited, loop_time, wait_within
from edgegap_async.deployments.handle import DeploymentHandle, tracker_of
from edgegap_async.deployments.ownership import wait_for_stops
from edgegap_async.deployments.playable import Check
from edgegap_async.errors import (
    BatchStopped,
    ClientClosed,
    InvalidRequest,
    MaybeCreated,
    PoolEmpty,
    log_fields,
)

from .backoff import DeployBackoff
from .inventory import Allocation, Inventory, PoolSettings, PoolStats, ReadyServer
from .maintenance import PoolMaintenance

logger = logging.getLogger(__name__)

_END_TIMEOUT: Final = 20.0  # seconds for the tasks of a pool; its batch gets 10 s of its own


class ServerPool:
    """Keeps servers READY in advance, and allocates them to callers.

    ::

        async with ServerPool(client, "arena", "v1", users=[(48.9, 2.4)], min_ready=3) as pool:
            async with pool.allocate(timeout=10) as server:
                ...

    Entering the block waits for no server, see `filled`. If the servers cannot be deployed, for
    example because the application's name is wrong, `allocate` raises `PoolEmpty`. Leaving the
    block stops every server that was not allocated, and raises an unexpected error that has ended
    the pool.

    Args:
        client: deploys the servers. With an `owner`, the pool recovers its servers when the program
            starts again after a kill.
        application: name of the application.
        version: name of its version.
        users: where the players will be, by IP address or by (latitude, longitude).
        min_ready: number of servers to keep READY, 0 or more.
        max_total: the most servers that may exist at once, allocated servers included.
        max_idle: seconds in the pool after which a server is replaced, or stopped if there are
            more than `min_ready`; None for no limit.
        max_age: seconds since READY after which a server is replaced or stopped as for `max_idle`;
            None for no limit. Choose less than the maximum duration of the version.
        playable: what must succeed after READY, as for `DeploymentHandle.wait_ready`.
        timeout_each: seconds from the accepted deploy to READY.
        poll_interval: seconds between two checks of the servers, by one list request.
        name: of the pool, 1 to 14 characters, unique for the client and its owner. It is part of
            the tag by which the pool finds its servers.
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
            raise InvalidRequest(f"client must be an EdgegapClient, not {client!r}")
        self._client = client
        self._deployer = client._deployer  # noqa: SLF001 - the pool is a part of this package
        self._settings = PoolSettings(
            name=name,
            min_ready=min_ready,
            max_total=max_total,
            max_idle=max_idle,
            max_age=max_age,
            playable=playable,
            timeout_each=timeout_each,
            poll_interval=poll_interval,
        )
        self._request = _deploy_request(
            application, version, users, options, tag=self._settings.tag
        )
        self._inventory = Inventory(self._settings, self._deployer.owned)
        self._maintenance = PoolMaintenance(
            self._deployer, self._request, self._settings, self._inventory
        )
        self._backoff = DeployBackoff()
        self._deploying: PersistentTask | None = None
        self._maintaining: PersistentTask | None = None
        self._failure: Exception | None = None  # an unexpected error that has ended the pool

    def __repr__(self) -> str:
        return f"<ServerPool {self._request.application} {self._request.version}: {self.stats}>"

    @property
    def stats(self) -> PoolStats:
        """The servers and callers of the pool now, and its counters since it was entered."""
        inventory, backoff = self._inventory, self._backoff
        return PoolStats(
            ready=len(inventory.queue),
            starting=inventory.starting + len(inventory.recovering),
            allocated=inventory.queue.assigned + len(inventory.allocated),
            waiting=len(inventory.queue.waiters),
            allocated_total=inventory.allocated_total,
            retired=inventory.retired,
            lost=inventory.lost,
            failed=backoff.failed,
            failing=backoff.failure is not None,
        )

    async def __aenter__(self) -> Self:
        """Starts the pool.

        Raises:
            RuntimeError: the pool was entered before.
            InvalidRequest: the client has another open pool of this name.
            EdgegapError: the client has an owner, and the servers of an earlier run could not be
                listed. The pool may be entered again.
        """
        if self._deploying is not None:
            raise RuntimeError("a pool can be used once: create another ServerPool")
        self._deployer.client.check_loop()
        tag, open_tags = self._settings.tag, self._deployer.pool_tags
        if tag in open_tags:
            raise InvalidRequest(
                f"the client has an open pool with the tag {tag}: give this pool another name"
            )
        open_tags.add(tag)
        try:
            await self._maintenance.recover()
        except BaseException:
            open_tags.discard(tag)
            raise
        name = self._settings.name
        self._deploying = PersistentTask(self._deploy, f"the deploys of the pool {name}")
        self._maintaining = PersistentTask(self._maintenance.run, f"the checks of the pool {name}")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        _: TracebackType | None,
    ) -> None:
        self._deployer.client.check_loop()
        deploying, maintaining = self._deploying, self._maintaining
        assert deploying and maintaining  # noqa: S101, PT018 - the pool was entered
        inventory, owned = self._inventory, self._deployer.owned
        inventory.close(PoolEmpty("the block of the pool was left"))
        ready_ids = [ready.server.request_id for ready in inventory.queue]
        for request_id in (*ready_ids, *inventory.recovering):
            if request_id in owned:
                inventory.begin_stop(request_id)
        for request_id in inventory.failed_stops():
            if not owned.closed:
                inventory.begin_stop(request_id)
        stops = tuple(inventory.stopping.values())
        inventory.queue.servers.clear()
        tasks = [deploying, maintaining, *inventory.recovering.values()]
        for task in tasks:
            task.cancel()
        ends = [task.ended for task in tasks]
        try:
            await asyncio.wait(ends, timeout=_END_TIMEOUT)  # a check may suppress the cancellation
            inventory.starting = 0
            inventory.recovering.clear()
            await self._maintenance.finish_renaming()
            await wait_for_stops(stops, problem or self._failure)
        finally:
            self._deployer.pool_tags.discard(self._settings.tag)
        if problem is None and self._failure is not None:
            raise self._failure
        for ended in (deploying.ended, maintaining.ended):
            if problem is None and ended.done() and not ended.cancelled():
                ended.result()

    # ── allocation ───────────────────────────────────────────────────────────────────────────────

    def allocate(self, timeout: float | None = None) -> Allocation:
        """Allocates a READY server, which leaves the pool for good. Callers are served in order.

        `server = await pool.allocate()` leaves the server to the caller to stop; the pool stops
        the server only if it is in ERROR for a minute. `async with pool.allocate() as server` stops
        the server at the end of the block. The result can be used once, by one of the two. It can
        be awaited but is no coroutine: `asyncio.ensure_future` makes a task of it.

        Args:
            timeout: seconds to wait at most, 0 or more; None for no limit.

        Raises:
            PoolEmpty: no server was READY in time, the pool's deploys fail repeatedly, or the
                block of the pool was left.
            ClientClosed: the client is closed.
            InvalidRequest: `timeout` cannot be used.
            RuntimeError: the pool was not entered.
        """
        check_number("timeout", timeout, least=0)
        return Allocation(functools.partial(self._allocate, timeout), self._inventory)

    async def _allocate(self, timeout: float | None) -> DeploymentHandle:
        self._check_usable()
        async with self._within(timeout, "no server"):
            ready = await self._inventory.take()
        server, owned = ready.server, self._deployer.owned
        tracker_of(server).webhook_event = None
        if owned.closed and server.request_id not in owned:
            raise ClientClosed("the client was closed meanwhile")
        owned.hand_over(server.request_id)
        self._inventory.allocated.add(server.request_id)
        self._inventory.allocated_total += 1
        self._inventory.changed.notify()
        self._maintenance.mark_allocated(server.request_id)
        return server

    async def filled(self, timeout: float | None = None) -> None:
        """Waits until `min_ready` servers are ready, for example before the program takes players.

        Args:
            timeout: seconds to wait at most, 0 or more; None for no limit.

        Raises:
            PoolEmpty: the servers were not READY in time, the pool's deploys fail repeatedly, or
                the block of the pool was left.
            ClientClosed: the client is closed.
            InvalidRequest: `timeout` cannot be used.
            RuntimeError: the pool was not entered.
        """
        check_number("timeout", timeout, least=0)
        async with self._within(timeout, "not filled"):
            queue, wanted = self._inventory.queue, self._settings.min_ready
            self._check_usable(wanted)
            while len(queue) < wanted:
                await queue.changed.wait()
                self._check_usable(wanted)

    def _within(
        self, timeout: float | None, problem: str
    ) -> contextlib.AbstractAsyncContextManager[None]:
        """Returns a block that raises `PoolEmpty` with the state of the pool after a time."""

        def late() -> PoolEmpty:
            failure = self._backoff.failure
            why = f"; the last failure: {failure}" if failure else ""
            name = self._settings.name
            error = PoolEmpty(f"pool {name}: {problem} in {timeout:g} s; {self.stats}{why}")
            error.__cause__ = failure
            return error

        return limited(asyncio.timeout(timeout), late)

    def _check_usable(self, needed: int = 1) -> None:
        """Raises unless `needed` servers are ready or may still become ready."""
        end = self._inventory.end
        if self._deploying is None:
            raise RuntimeError("use it as `async with ServerPool(…) as pool`")
        self._deployer.client.check_loop()
        if end is not None:
            raise copy.copy(end) from end.__cause__
        if self._deployer.owned.closed:
            raise ClientClosed("the client is closed")
        # After the delay the caller waits for the next attempt instead.
        is_failing = self._backoff.fails_repeatedly and self._backoff.delay > 0
        if is_failing and len(self._inventory.queue) < needed:
            raise self._deploys_fail()

    def _deploys_fail(self) -> PoolEmpty:
        backoff, request = self._backoff, self._request
        error = PoolEmpty(
            f"pool {self._settings.name}: {request.application} {request.version} cannot be"
            f" deployed, {backoff.failed} failed; the last: {backoff.failure}"
        )
        error.__cause__ = backoff.failure
        return error

    # ── deploys ──────────────────────────────────────────────────────────────────────────────────

    async def _deploy(self) -> None:
        """Deploys missing servers until the block is left.

        If the program cancels the task, the batch stops what has no outcome, and the pool deploys
        in a new batch.
        """
        self._inventory.starting = 0
        self._backoff.restart()
        async with self._client.deploy_many(
            self._requests(),
            concurrency=self._settings.max_total,
            timeout_each=self._settings.timeout_each,
            playable=self._settings.playable,
        ) as batch:
            try:
                async for outcome in batch:
                    self._add_outcome(outcome)
            except ClientClosed as closed:
                self._inventory.close(closed)
            except BatchStopped as stopped:  # the program has cancelled the task of the batch
                raise asyncio.CancelledError from stopped
            except asyncio.CancelledError:
                raise
            except BaseException as error:  # noqa: BLE001 - it is raised where the block is left
                if isinstance(error, Exception):
                    self._failure = error
                self._inventory.fail(error)

    async def _requests(self) -> AsyncIterator[DeployRequest]:
        """Yields a request whenever a server is missing and may be deployed."""
        inventory = self._inventory
        while True:
            self._maintenance.retire_expired()
            delay = math.inf
            if inventory.missing() > 0 and inventory.capacity_left() > 0:
                delay = self._backoff.delay
                if delay <= 0:
                    self._backoff.begin()
                    inventory.starting += 1
                    yield self._request
                    continue
            limit = asyncio.timeout(None if delay == math.inf else delay)
            await wait_within(limit, inventory.changed.wait())

    def _add_outcome(self, outcome: Outcome) -> None:
        self._inventory.starting -= 1
        if outcome.handle is not None and outcome.is_ready:
            self._backoff.succeed()
            self._deployer.owned.add(outcome.handle.request_id)
            now = loop_time()
            self._inventory.add(ReadyServer(outcome.handle, queued_at=now, ready_at=now))
        else:
            self._add_failure(outcome)
        self._inventory.changed.notify()

    def _add_failure(self, outcome: Outcome) -> None:
        error = outcome.error
        is_stopped = isinstance(error, BatchStopped) or (error is not None and error.stopped)
        if outcome.handle is not None and not is_stopped and not self._deployer.owned.closed:
            # The batch could not stop the server, which counts until a later stop succeeds.
            self._inventory.begin_stop(outcome.handle.request_id)
        if isinstance(error, MaybeCreated):  # without an owner no later run finds it
            logger.error(
                "a server of the pool %s may go on running: %s",
                self._settings.name,
                error,
                extra=log_fields(error, pool=self._settings.name),
            )
        else:
            logger.info(
                "a deploy of the pool %s failed: %r",
                self._settings.name,
                error,
                extra=log_fields(error, pool=self._settings.name),
            )
        if isinstance(error, BatchStopped):  # the program has cancelled its task
            self._backoff.abandon(outcome.index)
            return
        self._backoff.fail(outcome.index, error)
        if self._backoff.fails_repeatedly:
            self._inventory.queue.fail_waiters(self._deploys_fail())


def _deploy_request(
    application: str,
    version: str,
    users: Iterable[AnyUser],
    options: DeployOptions,
    *,
    tag: str,
) -> DeployRequest:
    """Returns the request for a server of a pool, with the pool's tag."""
    check_options(options, ServerPool)
    fields: dict[str, Any] = dict(options)
    if not fields.pop("operation_tag", True):
        raise InvalidRequest("operation_tag=False: a pool needs an operation tag on its servers")
    if fields.pop("idempotency_key", None) is not None:
        raise InvalidRequest("idempotency_key: the servers of a pool are for no certain job")
    check_list("tags", fields.get("tags", ()), of_texts=True)
    fields["tags"] = (*fields.get("tags", ()), tag)
    return deploy_request(
        {**fields, "application": application, "version": version, "users": users}
    )
