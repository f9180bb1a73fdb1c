"""One deployment that somebody waits for: what was seen of it, and who is told.

The API tells a status only when asked; who asks, and when, is in `lookout`. A webhook makes the
next look come at once, and decides nothing itself: what is true is what the look says. So a webhook
that is lost, late, doubled or forged does no harm, and one that comes before the deploy was
answered is not lost.

That the API does not know a deployment (404, 400) is believed only some time after its deploy:
until then it is young, and neither a look nor a stop takes "no such deployment" for an answer.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal, Protocol, TypeAlias

import attrs

from edgegap_async.api.models import Deployment, Status, StatusChange, may_become
from edgegap_async.api.validation import check_number
from edgegap_async.errors import (
    CallError,
    DeploymentFailed,
    DeploymentTerminated,
    Gone,
    NotFound,
    WaitTimedOut,
)
from edgegap_async.http.api_client import ApiClient

__all__ = [
    "DeploymentTracker",
    "TrackerOwner",
    "WebhookSource",
    "WebhookTrigger",
    "WebhookUrls",
]

logger = logging.getLogger(__name__)

ChangeSource: TypeAlias = Literal["status", "list", "webhook"]


class WebhookUrls(Protocol):
    """The webhook URLs of one deployment, open as long as somebody holds this."""

    @property
    def on_ready(self) -> str:
        """Where the API is to tell of READY."""
        ...

    @property
    def on_error(self) -> str:
        """Where the API is to tell of ERROR."""
        ...

    @property
    def on_terminated(self) -> str:
        """Where the API is to tell of TERMINATED."""
        ...


class WebhookSource(Protocol):
    """Something that can be told of a change of status, such as a `WebhookReceiver`."""

    def open(self, wake: Callable[[], None]) -> WebhookUrls:
        """Fresh URLs for one deployment; whatever comes to them calls `wake`, in the loop."""
        ...


class TrackerOwner(Protocol):
    """Who looks at deployments for those who wait: the look-out."""

    @property
    def client(self) -> ApiClient:
        """Whose deployments they are."""
        ...

    def waiters_changed(self, tracker: DeploymentTracker) -> None:
        """Looks at it as long as it `is_awaited`; to be told whenever that has changed."""
        ...

    def poll_now(self, tracker: DeploymentTracker) -> None:
        """Makes the next look at it come at once."""
        ...


class WebhookTrigger:
    """What a webhook rings. It may ring before anybody knows which deployment it is for."""

    def __init__(self) -> None:
        self._fired = False
        self._tracker: DeploymentTracker | None = None

    def fire(self) -> None:
        """Wakes who looks at the deployment, once it is known."""
        self._fired = True
        if self._tracker is not None:
            self._tracker.webhook_received()

    def connect(self, tracker: DeploymentTracker) -> None:
        """Says which deployment it is for; what rang before is heard now."""
        self._tracker = tracker
        if self._fired:
            tracker.webhook_received()


class DeploymentTracker:
    """One deployment, its history, and those who wait for it. Made by the look-out.

    Attributes:
        request_id: which deployment.
        history: every status it was seen in, with its time, oldest first.
        deployment: the newest look at it, or None. One that a list told has what lists hold.
        looks: how many status looks there were.
        looked_at: loop time of the last one.
        awaited_at: loop time from which on somebody waited, at first.
        not_found_until: loop time until which "no such deployment" is not believed.
        expects_webhook: whether the API was asked to tell of READY.
        was_rung: whether a webhook came since the last look was asked for.
        heard: what to set when one comes, also while nobody waits.
        ready_at: loop time at which READY was told, where a webhook was to tell it.
        trouble: why the last look failed, if it did.
    """

    def __init__(
        self,
        owner: TrackerOwner,
        request_id: str,
        *,
        expects_webhook: bool = False,
        not_found_until: float = -math.inf,
    ) -> None:
        self.request_id = request_id
        self.history: tuple[StatusChange, ...] = ()
        self.deployment: Deployment | None = None
        self.status_requests = 0
        self.requested_at = -math.inf
        self.awaited_at = math.inf
        self.not_found_until = not_found_until
        self.expects_webhook = expects_webhook
        self.webhook_pending = False
        self.webhook_event: asyncio.Event | None = None
        self.ready_at = math.inf
        self.last_failure: CallError | None = None
        self._owner = owner
        self._changed = asyncio.Event()  # a new one for each change: whoever waits holds its own
        self._waiters_for_ready = 0
        self._waiters_for_any = 0
        self._failure: Exception | None = None

    @property
    def status(self) -> Status | None:
        """The newest status, or None if it was not seen yet."""
        return self.history[-1].status if self.history else None

    @property
    def is_awaited(self) -> bool:
        """Whether anybody waits, and it can still be looked at."""
        return self._failure is None and (self._waiters_for_ready or self._waiters_for_any) > 0

    @property
    def awaits_only_ready(self) -> bool:
        """Whether no other change than to READY, or away from it, matters to anybody."""
        return not self._waiters_for_any

    def poll_now(self) -> None:
        """Makes the next look come at once."""
        self._owner.poll_now(self)

    def webhook_received(self) -> None:
        """A webhook came."""
        self.webhook_pending = True
        if self.webhook_event is not None:
            self.webhook_event.set()
        self._owner.poll_now(self)

    async def wait_for_change(self, known: int) -> None:
        """Returns when `history` is longer than `known`.

        Raises:
            EdgegapError: it cannot be looked at any more.
        """
        with self.waiting():
            await self._wait_for_change(known)

    async def _wait_for_change(self, known: int) -> None:
        while len(self.history) <= known:
            if self._failure is not None:
                raise self._failure
            with self._owner.client.until_closed():
                await self._changed.wait()

    async def wait_for(self, wanted: Status, timeout: float | None) -> Deployment:  # noqa: ASYNC109 - WaitTimedOut says more
        """The deployment, once it is seen in `wanted`.

        Raises:
            WaitTimedOut: it was not in so many seconds.
            DeploymentFailed: it is in Status.ERROR instead.
            DeploymentTerminated: it ended instead.
            EdgegapError: it cannot be looked at any more.
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
            if self.status == wanted and self.deployment is not None:  # it came in the last moment
                return self.deployment
            seen = self.status.short if self.status else "nothing of it"
            message = f"not {wanted.short} in {round(timeout or 0, 2):g} s; seen: {seen}"
            if self.last_failure is not None:
                message += f"; the last look failed: {self.last_failure}"
            raise WaitTimedOut.of(self, message) from None
        assert self.deployment is not None  # noqa: S101 - it was seen in `wanted`
        return self.deployment

    def raise_if_over(self, wanted: Status) -> None:
        """Returns if it may still be seen in `wanted`.

        Raises:
            DeploymentFailed, DeploymentTerminated: as for `until`.
        """
        if self.status is None or wanted is Status.TERMINATED:
            return
        if self.status == Status.ERROR:
            detail = self.deployment and self.deployment.error_detail
            raise DeploymentFailed.of(self, detail or "it failed and does not say why")
        if self.status.is_terminal:
            raise DeploymentTerminated.of(self, f"it is {self.status.short}")

    def update(self, deployment: Deployment, source: ChangeSource = "status") -> bool:
        """Makes a look at the deployment known to all who wait; whether it is news to them."""
        status = deployment.current_status
        if (
            self.status is not None
            and status != self.status
            and not may_become(self.status, status)
        ):
            logger.debug("%s: %s after %s is old news", self.request_id, status, self.status)
            return False
        self.deployment = deployment
        if status == self.status:
            return False
        if not status.is_known:
            logger.info("%s: unknown status %r, waiting on", self.request_id, status.value)
        self.history += (StatusChange(status, datetime.now(UTC), source),)
        self._notify()
        return True

    def mark_missing(
        self, error: Gone | NotFound, now: float, source: ChangeSource = "status"
    ) -> bool:
        """The API does not know the deployment: it is over, or was never there. Whether it is news.

        Raises:
            Gone, NotFound: it was never seen, and is not young.
        """
        if not is_missing(error, now, self.not_found_until):
            return False
        if self.deployment is None:
            raise error
        over = attrs.evolve(self.deployment, current_status=Status.TERMINATED, running=False)
        return self.update(over, source)

    def fail(self, error: Exception) -> None:
        """It cannot be looked at any more, and all who wait are told why."""
        self._failure = error
        self._notify()
        self._owner.waiters_changed(self)

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def waiting(self, *, only_ready: bool = False) -> _WaiterScope:
        """A block: while at least one waits in there, the deployment is looked at."""
        return _WaiterScope(self, only_ready=only_ready)

    def add_waiters(self, count: int, *, only_ready: bool) -> None:
        """So many more, or fewer, wait for it."""
        if count > 0:
            self._failure = None  # whoever comes now has it looked at anew
        if only_ready:
            self._waiters_for_ready += count
        else:
            self._waiters_for_any += count
        self._owner.waiters_changed(self)


class _WaiterScope:
    """While at least one waits in such a block, the deployment is looked at.

    A generator would do the same, and take a third of a kilobyte of each who waits.
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


def is_missing(error: Gone | NotFound, now: float, not_found_until: float) -> bool:
    """Returns whether the API's answer proves that a deployment does not exist.

    Args:
        error: the answer. 410 always counts.
        now: loop time of the answer.
        not_found_until: loop time from which 400 and 404 count: right after the deploy the API may
            not know the deployment yet.
    """
    return isinstance(error, Gone) or now >= not_found_until
