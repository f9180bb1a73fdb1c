"""The look-out: tells whoever waits as soon as a deployment's status has changed.

Theory. The API tells a status only when asked. So while somebody waits for a deployment it is
looked at, at a pace: a little after the deploy, then often, then ever more rarely. All who wait for
the same deployment share the looks. A webhook makes the next look come at once, and decides
nothing itself: what is true is what the look says. So a webhook that is lost, late, doubled or
forged does no harm, and one that comes before the deploy was answered is not lost.

A look that fails for a while (network, 429, 5xx) does not end a wait. That the API does not know
the deployment (404, 400) is believed only some time after its deploy: until then it is young, and
neither a look nor a stop takes "no such deployment" for an answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from typing import Literal, Protocol

import attrs

from .client import ApiClient
from .errors import (
    CallError,
    DeploymentFailed,
    DeploymentTerminated,
    EdgegapError,
    Gone,
    NoAnswer,
    NotFound,
    NotSent,
    RateLimited,
    ServerError,
    UnreadableAnswer,
    WaitTimedOut,
)
from .models import Deployment, Status, StatusChange, may_become

__all__ = ["Pace", "Signal", "Signals", "Watched", "stop_surely"]

_ASK_AGAIN = 0.5  # seconds between stops of a deployment that is not known yet

logger = logging.getLogger("edgegap_async.watch")


class Signal(Protocol):
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


class Signals(Protocol):
    """Something that can be told of a change of status, such as a `WebhookReceiver`."""

    def open(self, wake: Callable[[], None]) -> Signal:
        """Fresh URLs for one deployment; whatever comes to them calls `wake`, in the loop."""
        ...


@attrs.frozen(kw_only=True)
class Pace:
    """How often a deployment is looked at while somebody waits for it. All in seconds."""

    first: float = 0.4
    """From the start of the wait to the first look."""
    gap: float = 0.5
    """Between looks while it is expected soon."""
    soon: float = 20.0
    """How long that is; then each gap is half as long again as the one before."""
    longest_gap: float = 10.0
    with_webhook: float = 3.0
    """Between looks where a webhook is expected to come first."""
    unknown: float = 10.0
    """How long after its deploy "no such deployment" is not believed."""

    def gaps(self, *, with_webhook: bool) -> Iterator[float]:
        """The waits before each look, the first one first; each drawn a tenth around its mean."""
        gap = self.with_webhook if with_webhook else self.first
        spent = 0.0
        while True:
            spent += gap
            yield gap * random.uniform(0.9, 1.1)  # noqa: S311 - to spread looks, not to hide them
            if with_webhook:
                gap = self.with_webhook
            elif spent < self.soon:
                gap = self.gap
            else:
                gap = min(gap * 1.5, self.longest_gap)


_PASSING = (NotSent, NoAnswer, RateLimited, ServerError, UnreadableAnswer)
"""What may be otherwise at the next look."""


class Watched:
    """One deployment, its history, and those who wait for it.

    Attributes:
        request_id: which deployment.
        history: every status it was seen in, with its time, oldest first.
        deployment: the newest look at it, or None.
        looks: how many looks there were.
        young_until: loop time until which "no such deployment" is not believed.
    """

    def __init__(
        self,
        client: ApiClient,
        request_id: str,
        *,
        pace: Pace,
        wake: asyncio.Event | None = None,
        expects_webhook: bool = False,
        young_until: float = -math.inf,
    ) -> None:
        self.request_id = request_id
        self.history: tuple[StatusChange, ...] = ()
        self.deployment: Deployment | None = None
        self.looks = 0
        self._client = client
        self._pace = pace
        self._expects_webhook = expects_webhook
        self._wake = wake or asyncio.Event()
        self._asked_for = False  # the wake is this program's own
        self._news = asyncio.Event()  # a new one for each change: whoever waits holds its own
        self.young_until = young_until
        self._waiting = 0
        self._looking: asyncio.Task[None] | None = None
        self._failure: Exception | None = None
        self._trouble: CallError | None = None  # why the last look failed, if it did

    @property
    def status(self) -> Status | None:
        """The newest status, or None if it was not seen yet."""
        return self.history[-1].status if self.history else None

    def look_now(self) -> None:
        """Makes the next look come at once."""
        self._asked_for = True
        self._wake.set()

    async def until_news(self, known: int) -> None:
        """Returns when `history` is longer than `known`.

        Raises:
            EdgegapError: it cannot be looked at any more.
        """
        with self.being_looked_at():
            while len(self.history) <= known:
                if self._failure is not None:
                    raise self._failure
                with self._client.until_closed():
                    await self._news.wait()

    async def until(self, wanted: Status, timeout: float | None) -> Deployment:  # noqa: ASYNC109 - WaitTimedOut says more
        """The deployment, once it is seen in `wanted`.

        Raises:
            WaitTimedOut: it was not in so many seconds.
            DeploymentFailed: it is in Status.ERROR instead.
            DeploymentTerminated: it ended instead.
            EdgegapError: it cannot be looked at any more.
        """
        limit = asyncio.timeout(timeout)
        try:
            async with limit:
                with self.being_looked_at():
                    while self.status != wanted:
                        self._check(wanted)
                        await self.until_news(len(self.history))
        except TimeoutError:
            if not limit.expired():
                raise
            seen = self.status.short if self.status else "nothing of it"
            message = f"not {wanted.short} in {timeout:g} s; seen: {seen}"
            if self._trouble is not None:
                message += f"; the last look failed: {self._trouble}"
            raise self._error(WaitTimedOut, message) from None
        assert self.deployment is not None  # noqa: S101 - it was seen in `wanted`
        return self.deployment

    def _check(self, wanted: Status) -> None:
        if self.status is None or wanted is Status.TERMINATED:
            return
        if self.status == Status.ERROR:
            detail = self.deployment and self.deployment.error_detail
            raise self._error(DeploymentFailed, detail or "it failed and does not say why")
        if self.status.is_terminal:
            raise self._error(DeploymentTerminated, f"it is {self.status.short}")

    def _error(
        self,
        kind: type[WaitTimedOut | DeploymentFailed | DeploymentTerminated],
        message: str,
    ) -> EdgegapError:
        return kind(
            message,
            request_id=self.request_id,
            last_status=self.status,
            history=self.history,
            deployment=self.deployment,
        )

    def take(self, deployment: Deployment, told_by: Literal["look", "webhook"] = "look") -> None:
        """Makes a look at the deployment known to all who wait."""
        status = deployment.current_status
        if (
            self.status is not None
            and status != self.status
            and not may_become(self.status, status)
        ):
            logger.debug("%s: %s after %s is old news", self.request_id, status, self.status)
            return
        self.deployment = deployment
        if status != self.status:
            self._add(status, told_by)

    def _add(self, status: Status, told_by: Literal["look", "webhook"]) -> None:
        if not status.is_known:
            logger.info("%s: unknown status %r, waiting on", self.request_id, status.value)
        self.history += (StatusChange(status, datetime.now(UTC), told_by),)
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    @contextlib.contextmanager
    def being_looked_at(self) -> Iterator[None]:
        """While at least one waits in here, the deployment is looked at."""
        self._waiting += 1
        if self._looking is None or self._looking.done():
            self._failure = None
            self._looking = asyncio.create_task(self._keep_looking())
        try:
            yield
        finally:
            self._waiting -= 1
            if not self._waiting and self._looking is not None:
                # Forgotten at once: who comes before it has ended needs a new one.
                self._looking.cancel()
                self._looking = None

    async def _keep_looking(self) -> None:
        try:
            gaps = self._pace.gaps(with_webhook=self._expects_webhook)
            while True:
                told_by = await self._pause(next(gaps))
                await self._look(told_by)
                if self.status is Status.TERMINATED:
                    return
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody may wait for ever
            self._failure = error
            self._tell()

    async def _pause(self, gap: float) -> Literal["look", "webhook"]:
        try:
            async with asyncio.timeout(gap):
                await self._wake.wait()
        except TimeoutError:
            return "look"
        self._wake.clear()
        asked_for, self._asked_for = self._asked_for, False
        return "look" if asked_for else "webhook"

    async def _look(self, told_by: Literal["look", "webhook"]) -> None:
        self.looks += 1
        try:
            self.take(await self._client.deployments.get(self.request_id), told_by)
            self._trouble = None
        except _PASSING as error:
            if isinstance(error, NotSent) and not error.worth_repeating:
                raise  # a certificate that does not match will not match later
            self._trouble = error
            logger.info("a look failed and will be repeated: %s", error)
        except (Gone, NotFound) as error:
            self._is_gone(error)

    def _is_gone(self, error: CallError) -> None:
        if isinstance(error, NotFound) and asyncio.get_running_loop().time() < self.young_until:
            return
        if self.deployment is None:
            raise error
        self.take(attrs.evolve(self.deployment, current_status=Status.TERMINATED, running=False))


async def stop_surely(stop: Callable[[], Awaitable[object]], *, young_until: float) -> None:
    """Returns when the API takes a stop, or tells credibly that there is nothing to stop.

    Args:
        stop: asks the API once.
        young_until: loop time until which "no such deployment" is not believed.
    """
    while True:
        try:
            await stop()
        except Gone:
            return
        except NotFound:
            if asyncio.get_running_loop().time() >= young_until:
                return
        else:
            return
        await asyncio.sleep(_ASK_AGAIN)
