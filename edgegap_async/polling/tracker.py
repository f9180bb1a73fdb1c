"""Tracks one deployment: its status, its history, and the tasks that wait for it.

The API says a status only when it is asked; `poller` decides when. A webhook makes the next request
come at once, and only the answer to that request changes the status. So a webhook that is lost,
late, doubled or forged does no harm. A webhook may come before the answer to the deploy: the
`WebhookTrigger` keeps it until the request_id is known.

The API may not know a deployment for some seconds after its deploy (404, or 400). The poller and a
stop believe the answer "no such deployment" only from the loop time `believe_404_from` on.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

import attrs

from edgegap_async.api.models import Deployment, Status, StatusChange, may_become
from edgegap_async.api.requests import WebhookKind
from edgegap_async.api.validation import check_number
from edgegap_async.api.values import one_line
from edgegap_async.concurrency import ChangeEvent
from edgegap_async.errors import (
    BadRequest,
    CallError,
    DeploymentFailed,
    DeploymentTerminated,
    Gone,
    NotFound,
    Refused,
    WaitTimedOut,
    log_fields,
)
from edgegap_async.observability.observer import Observer

if TYPE_CHECKING:
    from .poller import StatusPoller

logger = logging.getLogger(__name__)

ChangeSource: TypeAlias = Literal["status", "list", "webhook"]


class WebhookUrls(Protocol):
    """The webhook URLs of one deployment. They accept webhooks as long as this object lives."""

    def url(self, kind: WebhookKind) -> str:
        """Returns the URL for the webhook of an event."""
        ...


class WebhookSource(Protocol):
    """Makes webhook URLs for deployments, such as a `WebhookReceiver`."""

    def open(self, wake: Callable[[], None]) -> WebhookUrls:
        """Returns fresh URLs for one deployment.

        Args:
            wake: called in the event loop for each webhook that comes to one of them.
        """
        ...


class WebhookTrigger:
    """Receives the webhooks of one deployment, also before its request_id is known."""

    def __init__(self) -> None:
        self._fired = False
        self._tracker: DeploymentTracker | None = None

    def fire(self) -> None:
        """Reports a webhook to the tracker, now or as soon as it is connected."""
        self._fired = True
        if self._tracker is not None:
            self._tracker.webhook_received()

    def connect(self, tracker: DeploymentTracker) -> None:
        """Connects the tracker of the deployment, and reports a webhook that came before."""
        self._tracker = tracker
        if self._fired:
            tracker.webhook_received()


class DeploymentTracker:
    """One deployment, its history, and the tasks that wait for it. The poller makes it.

    Attributes:
        request_id: the deployment's id.
        history: each status it was found in, with its time, oldest first.
        deployment: the newest answer about it, or None; from a list it has what rows have.
        status_requests: status requests sent for it.
        requested_at: loop time of the last status request.
        awaited_at: loop time at which the first wait began.
        deployed_at: loop time at which the API accepted the deploy of this client; minus infinity
            for another deployment.
        believe_404_from: loop time from which the answer "no such deployment" is believed.
        expects_webhook: whether the API was asked to send a webhook at READY.
        webhook_pending: whether a webhook came since the last request for it was sent.
        webhook_event: set at each webhook, also while no task waits; None if nothing wants that.
        ready_at: loop time at which READY was found, if a webhook was to report it.
        was_seen: whether an answer of the API has shown that it exists or existed.
        is_stopped: whether this client has begun to stop it, or made a bulk stop that may match it.
        lacks_address: whether an answer or a row has said READY without an address.
        last_failure: why the last request for it failed, or None if it did not.
    """

    def __init__(
        self, poller: StatusPoller, request_id: str, *, expects_webhook: bool = False
    ) -> None:
        self.request_id = request_id
        self.history: tuple[StatusChange, ...] = ()
        self.deployment: Deployment | None = None
        self.status_requests = 0
        self.requested_at = -math.inf
        self.awaited_at = math.inf
        self.deployed_at = self.believe_404_from = -math.inf
        self.expects_webhook = expects_webhook
        self.webhook_pending = False
        self.webhook_event: asyncio.Event | None = None
        self.ready_at = math.inf
        self.was_seen = False
        self.is_stopped = False
        self.lacks_address = False
        self.last_failure: CallError | None = None
        self._poller = poller
        self._changed = ChangeEvent()
        self._waiters_for_ready = 0
        self._waiters_for_any = 0
        self._failure: Exception | None = None
        self._failure_origin: TracebackType | None = None

    @property
    def status(self) -> Status | None:
        """The newest status, or None before the first answer."""
        return self.history[-1].status if self.history else None

    @property
    def is_awaited(self) -> bool:
        """Whether a task waits, and the deployment can still be polled."""
        return self._failure is None and (self._waiters_for_ready or self._waiters_for_any) > 0

    @property
    def awaits_only_ready(self) -> bool:
        """Whether every waiter waits for READY, so that other changes matter to none."""
        return not self._waiters_for_any

    def poll_now(self) -> None:
        """Makes the next status or list request for it due at once, if a task waits."""
        self._poller.poll_now(self)

    def webhook_received(self) -> None:
        """Notes a webhook, and makes the next request due at once, if a task waits."""
        self.webhook_pending = True
        self._poller.client.observers.report(Observer.webhook_received, self.request_id)
        if self.webhook_event is not None:
            self.webhook_event.set()
        self._poller.poll_now(self)

    async def wait_for_change(self, known: int) -> None:
        """Returns when `history` is longer than `known`.

        Raises:
            EdgegapError: it cannot be polled any more.
        """
        with self.waiting():
            await self._wait_for_change(known)

    async def _wait_for_change(self, known: int) -> None:
        while len(self.history) <= known:
            if self._failure is not None:
                # Without this, each waiter would make the traceback of the others longer.
                raise self._failure.with_traceback(self._failure_origin)
            with self._poller.client.until_closed():
                await self._changed.wait()

    async def wait_for(
        self,
        wanted: Status,
        timeout: float | None,
        limit_text: str = "",
    ) -> Deployment:
        """Returns the deployment once its status is `wanted`.

        Args:
            wanted: the status to wait for.
            timeout: seconds, or None for no limit.
            limit_text: the time limit of the caller, of which `timeout` may be the rest; for the
                text of `WaitTimedOut`.

        Raises:
            WaitTimedOut: the status was not `wanted` in time.
            DeploymentFailed: the status is ERROR instead.
            DeploymentTerminated: the deployment ended instead.
            EdgegapError: it cannot be polled any more.
        """
        check_number("timeout", timeout, least=0)
        limit = asyncio.timeout(timeout)
        try:
            async with limit:
                with self.waiting(only_ready=wanted is Status.READY):
                    while self.status != wanted:
                        self.raise_if_over(wanted)
                        await self._wait_for_change(len(self.history))
        except TimeoutError:
            if not limit.expired():
                raise
            if (
                self.status == wanted and self.deployment is not None
            ):  # found in the same turn of the loop
                return self.deployment
            seen = f"last status: {self.status}" if self.status else "no status was seen"
            message = f"not {wanted} in {limit_text or f'{round(timeout or 0, 2):g} s'}; {seen}"
            if self.status == Status.ERROR:
                message += ", in which it stays until something stops it"
            if self.last_failure is not None:
                message += f"; the last request failed: {self.last_failure.reason}"
            raise WaitTimedOut.of(self, message) from None
        assert self.deployment is not None  # noqa: S101 - its status is `wanted`
        return self.deployment

    def raise_if_over(self, wanted: Status) -> None:
        """Raises if the deployment can reach the status `wanted` no more.

        Raises:
            DeploymentFailed, DeploymentTerminated: as for `wait_for`.
        """
        if self.status is None or wanted is Status.TERMINATED:
            return
        if self.status == Status.ERROR:
            detail = self.deployment and self.deployment.error_detail
            raise DeploymentFailed.of(self, one_line(detail or "") or "the API gives no reason")
        if self.status.is_terminal:
            said = f"its status is {self.status}"
            if not self.is_stopped:
                said += (
                    ", and this handle knows of no stop: perhaps the game server has exited, or"
                    " max_duration, another program, or reap() with the same owner has ended it"
                )
            raise DeploymentTerminated.of(self, said)

    def update(self, deployment: Deployment, source: ChangeSource = "status") -> bool:
        """Takes in an answer about the deployment and notifies its waiters.

        Returns:
            Whether the status has changed.
        """
        status = deployment.current_status
        self.was_seen = True
        if not status.value:
            return False  # null or no text: the answer says nothing
        if (
            self.status is not None
            and status != self.status
            and not may_become(self.status, status)
        ):
            logger.debug(
                "%s: ignoring %s after %s, the answer is older",
                self.request_id,
                status,
                self.status,
                extra=log_fields(request_id=self.request_id, status=str(status)),
            )
            return False
        self.deployment = deployment
        if status == self.status:
            return False
        if not status.is_known:
            logger.info(
                "%s: the status %r is unknown, the wait goes on",
                self.request_id,
                status.value,
                extra=log_fields(request_id=self.request_id, status=status.value),
            )
        change = StatusChange(status, datetime.now(UTC), source)
        self.history += (change,)
        self._changed.notify()
        self._poller.client.observers.report(Observer.status_changed, self.request_id, change)
        return True

    def mark_missing(self, error: Refused, now: float, source: ChangeSource = "status") -> bool:
        """Takes in that the API does not know the deployment: it has ended, or never existed.

        Returns:
            Whether the status has changed.

        Raises:
            Refused: no answer ever showed it, and `believe_404_from` has passed.
        """
        if not is_missing(error, now, self.believe_404_from):
            return False
        if self.deployment is None:
            raise error
        over = attrs.evolve(self.deployment, current_status=Status.TERMINATED, running=False)
        return self.update(over, source)

    def fail(self, error: Exception) -> None:
        """Ends each wait with an error, because the deployment cannot be polled."""
        self._failure, self._failure_origin = error, error.__traceback__
        self._changed.notify()
        self._poller.waiters_changed(self)

    def waiting(self, *, only_ready: bool = False) -> _WaiterScope:
        """Returns a context manager; the deployment is polled while a task is inside one."""
        return _WaiterScope(self, only_ready=only_ready)

    def add_waiters(self, count: int, *, only_ready: bool) -> None:
        """Adds `count` waiters, or removes them if it is negative."""
        if count > 0:
            self._failure = self._failure_origin = None  # a new wait tries again
        if only_ready:
            self._waiters_for_ready += count
        else:
            self._waiters_for_any += count
        self._poller.waiters_changed(self)


class _WaiterScope:
    """Counts a waiter while its block runs.

    A generator would do the same and cost a third of a kilobyte for each waiter.
    """

    __slots__ = ("_only_ready", "_tracker")

    def __init__(self, tracker: DeploymentTracker, *, only_ready: bool) -> None:
        self._tracker = tracker
        self._only_ready = only_ready

    def __enter__(self) -> None:
        try:
            self._tracker.add_waiters(1, only_ready=self._only_ready)
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        self._tracker.add_waiters(-1, only_ready=self._only_ready)


def may_mean_missing(error: Exception) -> bool:
    """Returns whether an answer may mean that the API does not know a deployment.

    That is a 404 or 410, and a 400 in words that are not known. If `error.is_certain` is False, the
    list of deployments has to confirm it.
    """
    is_unclear = isinstance(error, BadRequest) and not error.is_certain
    return is_unclear or isinstance(error, Gone | NotFound)


def is_missing(error: Refused, now: float, believe_404_from: float) -> bool:
    """Returns whether it is late enough to believe that a deployment does not exist.

    Args:
        error: the answer, see `may_mean_missing`. A 410 in the API's words always counts.
        now: loop time of the answer.
        believe_404_from: loop time from which other answers are believed: right after the deploy
            the API may not know the deployment yet.
    """
    return (isinstance(error, Gone) and error.is_certain) or now >= believe_404_from
