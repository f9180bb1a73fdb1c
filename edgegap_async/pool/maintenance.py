"""Keeps the inventory of a pool correct: checks, retires, recovers and tags servers.

- One list request checks all servers every `poll_interval`, and at once when a webhook arrives for
  a ready server. A row that does not say READY is confirmed by a status request before the pool
  gives up the server. If the list request fails, the pool makes one status request for each server.
- An expired server is stopped while more than `min_ready` servers are in the queue. Otherwise its
  successor is deployed first; at `max_total` one expired server is stopped to make room. So a queue
  that was filled at once is not emptied at once.
- An allocated server that is in ERROR is stopped after a minute, in which its logs can be read. A
  stop that failed is repeated at each check.

With an owner on the client, the pool finds the servers of an earlier run by its tag: at the start
and at each check, because a list may show them late. The pool renames the tag of a server in the
background when it is allocated. If the program is killed before the renaming, the next run may
allocate that server a second time.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import Iterable, Mapping
from typing import Final

from edgegap_async.api.models import Deployment, DeploymentRow, Status
from edgegap_async.api.requests import DeployRequest, Filter
from edgegap_async.concurrency import PersistentTask, loop_time, wait_within
from edgegap_async.deployments.deployer import Deployer
from edgegap_async.deployments.handle import DeploymentHandle, RecoveredDeployment, tracker_of
from edgegap_async.deployments.register import DeploymentState
from edgegap_async.errors import (
    CallError,
    ClientClosed,
    EdgegapError,
    Gone,
    LimitReached,
    NotFound,
    log_fields,
)
from edgegap_async.http.resources.deployments import is_listed
from edgegap_async.http.retries import is_transient

from .inventory import Inventory, PoolSettings, ReadyServer

logger = logging.getLogger(__name__)

_FAILURES_BEFORE_WARNING: Final = 3  # list requests in a row, each with its retries
_ERROR_GRACE: Final = 60.0  # seconds; time to read the logs of an allocated server in ERROR
_FIRST_STATUS_GAP: Final = 0.5  # seconds between status requests for a recovered server; doubled
_MAX_STATUS_GAP: Final = 10.0  # seconds
_RENAME_TIMEOUT: Final = 5.0  # seconds that tag renamings get when the pool ends


class PoolMaintenance:
    """Checks, retires, recovers and tags the servers of one pool.

    Args:
        deployer: knows the deployments of the client, which makes the API calls.
        request: the deploy request of the pool, which a recovered server has to match.
        settings: the settings of the pool.
        inventory: the servers of the pool.
    """

    def __init__(
        self,
        deployer: Deployer,
        request: DeployRequest,
        settings: PoolSettings,
        inventory: Inventory,
    ) -> None:
        self._client = deployer.client
        self._deployer = deployer
        self._request = request
        self._settings = settings
        self._inventory = inventory
        self._failed_lists = 0  # in a row
        self._error_since = dict[str, float]()  # loop time, by id of an allocated server in ERROR
        self._renaming: dict[str, PersistentTask] = {}

    async def run(self) -> None:
        """Checks all servers at intervals and after webhooks, until the client is closed."""
        webhook_event = self._inventory.queue.webhook_event
        with contextlib.suppress(ClientClosed):
            while True:
                with self._client.until_closed():
                    await wait_within(
                        asyncio.timeout(self._settings.poll_interval), webhook_event.wait()
                    )
                webhook_event.clear()
                await self._check_all()
                self._inventory.changed.notify()

    def retire_expired(self) -> None:
        """Stops expired servers beyond `min_ready`, or one at `max_total` to make room."""
        inventory = self._inventory
        queue = inventory.queue
        expired = queue.expired()
        retired = expired[: max(0, len(queue) - self._settings.min_ready)]
        in_progress = inventory.starting or inventory.recovering or inventory.stopping
        if expired and not retired and inventory.capacity_left() <= 0 and not in_progress:
            retired = expired[:1]
        for ready in retired:
            queue.servers.remove(ready)
            inventory.begin_stop(ready.server.request_id)
            inventory.retired += 1

    # ── checks ───────────────────────────────────────────────────────────────────────────────────

    async def _check_all(self) -> None:
        inventory = self._inventory
        ready_servers, allocated = tuple(inventory.queue), set(inventory.allocated)
        failed_stops = inventory.failed_stops()
        for request_id in self._error_since.keys() - allocated:
            del self._error_since[request_id]
        try:
            rows = await self._list()
        except ClientClosed:
            raise
        except EdgegapError as error:
            self._failed_lists += 1
            is_lasting = self._failed_lists == _FAILURES_BEFORE_WARNING
            logger.log(
                logging.WARNING if is_lasting else logging.INFO,
                "pool %s: the list request failed (%d in a row), status requests follow: %s",
                self._settings.name,
                self._failed_lists,
                error.reason,
                extra=log_fields(error, pool=self._settings.name, count=self._failed_lists),
            )
            rows = {}
        else:
            self._failed_lists = 0
        if self._deployer.owner_tag is not None:
            self._recover(rows.values())
        for ready in ready_servers:
            await self._check_ready(ready, rows.get(ready.server.request_id))
        for request_id in allocated | failed_stops:
            row = rows.get(request_id)
            status = row.status if row else await self._status_of(self._deployer.handle(request_id))
            self._check_allocated(request_id, status)
        for request_id in failed_stops & inventory.stopping.keys():
            inventory.begin_stop(request_id)
        self._rename_missed_tags(rows)

    async def _list(self) -> dict[str, DeploymentRow]:
        """Returns the rows with a tag of the pool, by id; also those of other owners."""
        tags = [self._settings.tag, self._settings.allocated_tag]
        rows = self._client.deployments.list(filters=[Filter("tags", "in", tags)])
        return {row.request_id: row async for row in rows}

    async def _status_of(self, server: DeploymentHandle) -> Status | None:
        """Returns the status from a status request; None if the request or the answer has none.

        A 404 in words that are not known to be the API's counts if the list confirms it.
        """
        try:
            try:
                found = await server.refresh()
            except (Gone, NotFound) as error:
                is_over = error.is_certain or not await is_listed(
                    self._client.deployments, server.request_id
                )
                return Status.TERMINATED if is_over else None
        except ClientClosed:
            raise
        except EdgegapError:
            return None
        return found.current_status if found.current_status.value else None

    async def _check_ready(self, ready: ReadyServer, row: DeploymentRow | None) -> None:
        """Stops a server of the queue that is not READY any more."""
        inventory, server = self._inventory, ready.server
        # While a webhook is pending, the row may be older than the webhook.
        if row is not None and row.is_ready and not tracker_of(server).webhook_pending:
            return
        status = await self._status_of(server)
        if status is not None and not status.is_ready and ready in inventory.queue:
            inventory.queue.servers.remove(ready)
            inventory.lost += 1
            logger.warning(
                "pool %s: %s is %s before it was allocated, and is replaced",
                self._settings.name,
                server.request_id,
                status,
                extra=log_fields(
                    pool=self._settings.name, request_id=server.request_id, status=str(status)
                ),
            )
            inventory.begin_stop(server.request_id)

    def _check_allocated(self, request_id: str, status: Status | None) -> None:
        """Frees the capacity of an ended server, and stops a server that stays in ERROR."""
        inventory = self._inventory
        if status is Status.TERMINATED:
            inventory.allocated.discard(request_id)
            inventory.stopping.pop(request_id, None)
        if status is not Status.ERROR or request_id not in inventory.allocated:
            self._error_since.pop(request_id, None)
        elif loop_time() >= self._error_since.setdefault(request_id, loop_time()) + _ERROR_GRACE:
            logger.warning(
                "pool %s: stops %s, which is allocated and in ERROR",
                self._settings.name,
                request_id,
                extra=log_fields(pool=self._settings.name, request_id=request_id),
            )
            inventory.allocated.discard(request_id)
            del self._error_since[request_id]
            inventory.begin_stop(request_id)

    # ── tags ─────────────────────────────────────────────────────────────────────────────────────

    def mark_allocated(self, request_id: str) -> None:
        """Renames the server's tag in the background, for the next run of the program."""
        if self._deployer.owner_tag is not None and request_id not in self._renaming:
            task = self._renaming[request_id] = PersistentTask(
                functools.partial(self._rename_tag, request_id), f"the tag of {request_id}"
            )
            task.ended.add_done_callback(lambda _: self._renaming.pop(request_id))

    async def _rename_tag(self, request_id: str) -> None:
        settings = self._settings
        try:
            await self._client.tags.rename(request_id, settings.tag, settings.allocated_tag)
        except EdgegapError as error:
            logger.info(
                "pool %s: could not rename the tag of %s, which is allocated: %s",
                settings.name,
                request_id,
                error.reason,
                extra=log_fields(error, pool=settings.name, request_id=request_id),
            )

    def _rename_missed_tags(self, rows: Mapping[str, DeploymentRow]) -> None:
        for request_id in self._inventory.allocated & rows.keys():
            if self._settings.tag in rows[request_id].tags:
                self.mark_allocated(request_id)

    async def finish_renaming(self) -> None:
        """Waits for renamings in progress: without them, the next run allocates these servers."""
        if tasks := tuple(self._renaming.values()):
            for task in tasks:
                task.resume()
            await asyncio.wait([task.ended for task in tasks], timeout=_RENAME_TIMEOUT)
            for task in tasks:
                task.cancel()

    # ── the servers of an earlier run ────────────────────────────────────────────────────────────

    async def recover(self) -> None:
        """Takes over the servers that an earlier run left, if the client has an owner."""
        if self._deployer.owner_tag is not None:
            self._recover((await self._list()).values())

    def _recover(self, rows: Iterable[DeploymentRow]) -> None:
        """Takes over servers up to `max_total`, and stops the rest. Sees each server once."""
        deployer, inventory = self._deployer, self._inventory
        for row in rows:
            request_id = row.request_id
            found = deployer.recovered(row)
            if found is None:
                # An earlier pool of this client has left it in use: it counts in `max_total`.
                is_in_use = deployer.register.state(request_id) is DeploymentState.HANDED_OVER
                if is_in_use and self._settings.allocated_tag in row.tags:
                    inventory.allocated.add(request_id)
                continue
            if self._settings.allocated_tag in row.tags:
                deployer.register.set_handed_over(request_id)
                inventory.allocated.add(request_id)
            elif self._settings.tag in row.tags:
                deployer.owned.add(request_id)
                if inventory.capacity_left() > 0:
                    inventory.recovering[request_id] = PersistentTask(
                        functools.partial(self._adopt, found), f"the recovery of {request_id}"
                    )
                else:
                    inventory.begin_stop(request_id)

    async def _adopt(self, found: RecoveredDeployment) -> None:
        """Adds a server to the queue once it is READY and playable; else stops it."""
        server, inventory = found.handle, self._inventory
        fits = False
        try:
            deployment = await self._first_answer(server)
            if deployment.app_name in {None, self._request.application} and (
                deployment.app_version in {None, self._request.version}
            ):
                await server.wait_ready(
                    self._settings.timeout_each, playable=self._settings.playable
                )
                fits = True
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - a check of the caller may raise anything
            logger.info(
                "pool %s: cannot use %s, left by an earlier run: %r",
                self._settings.name,
                server.request_id,
                error,
                extra=log_fields(error, pool=self._settings.name, request_id=server.request_id),
            )
        except BaseException as error:  # noqa: BLE001 - also SystemExit
            inventory.fail(error)
        del inventory.recovering[server.request_id]
        if fits:
            ready_at = loop_time() - (found.age or 0.0)
            inventory.add(ReadyServer(server, queued_at=loop_time(), ready_at=ready_at))
        elif server.request_id in self._deployer.owned:
            inventory.begin_stop(server.request_id)
        inventory.changed.notify()

    async def _first_answer(self, server: DeploymentHandle) -> Deployment:
        """Returns the answer to a status request, repeated while its failures are transient.

        Raises:
            EdgegapError: the server cannot be used.
        """
        gap = _FIRST_STATUS_GAP
        while True:
            try:
                return await server.refresh()
            except CallError as error:
                if isinstance(error, Gone | NotFound) and not error.is_certain:
                    if not await self._is_listed(server):
                        raise
                elif not (is_transient(error) or isinstance(error, LimitReached)):
                    raise
                logger.info(
                    "pool %s: the status request is repeated: %s",
                    self._settings.name,
                    error.reason,
                    extra=log_fields(error, pool=self._settings.name, request_id=server.request_id),
                )
            await asyncio.sleep(gap)
            gap = min(gap * 2, _MAX_STATUS_GAP)

    async def _is_listed(self, server: DeploymentHandle) -> bool:
        """Returns whether the list shows a server; also True if the list request failed."""
        try:
            return await is_listed(self._client.deployments, server.request_id)
        except CallError:
            return True
