"""Makes one deployment per deploy and never two, also if answers of the API are lost.

Problem: the API has no idempotency key. A deploy that is sent twice makes two servers, and a deploy
whose answer is lost makes a server that the program does not know.

Rule: a client can choose tags, and the API can list deployments by tag. So each deploy carries an
operation tag, made once, before the first attempt. After an ambiguous error (sent and no answer, a
5xx, an unreadable 202) the client lists by this tag before it does anything else:

- A deployment is found: it is the result, and the caller does not notice the error. A proxy may
  have sent the deploy twice: of several deployments with the tag, one is kept, and the others are
  stopped. After a clean answer the client sends no list request; `SurplusObserver` stops those
  that any list shows later.
- No deployment is found during `list_delay`, the time in which a new deployment may be missing from
  lists: the deploy is sent once more, with the same tag. After a 500 or 503 the API is done with
  the deploy, and only lists may lag: the client searches as long as it has measured that they do
  (`ListLag`), not `list_delay`. Other errors leave open whether the deploy is still on its way.
- If the first deployment shows up after all, the surplus one is stopped: the client searches for
  it in the background during `list_delay`. The caller has its deployment by then, so `close` cuts
  this search short: it makes the last list request at once, and a warning names the tag.
- The list request fails, or the second answer is ambiguous too and no deployment is found during
  `list_delay`: whether there is one cannot be known. The caller gets `MaybeCreated`, which names
  the tag.

An operation tag is `op-`, six characters of time (seconds since 1970, base 36) and eleven random
ones: 20 characters, the most that older API descriptions allow. `recover` reads the age of a
deployment from the time in the tag.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import logging
import random
import time
from collections.abc import AsyncGenerator, Callable
from datetime import UTC, datetime
from typing import Final

import attrs

from edgegap_async.api.messages import HttpRequest
from edgegap_async.api.models import DeployAccepted, DeploymentPage, record_attempts
from edgegap_async.api.operations import LIST_DEPLOYMENTS
from edgegap_async.api.requests import MAX_TAG, Filter
from edgegap_async.api.validation import check_name, is_segment
from edgegap_async.api.values import one_line
from edgegap_async.concurrency import loop_time
from edgegap_async.errors import (
    CallError,
    MaybeCreated,
    NoAnswer,
    Refused,
    UnreadableAnswer,
    log_fields,
)
from edgegap_async.http.api_client import ApiClient
from edgegap_async.http.call import CallOptions
from edgegap_async.http.resources.deployments import Deployments
from edgegap_async.http.retries import is_transient
from edgegap_async.http.transport import SendState
from edgegap_async.observability.observer import ObservedCall, Observer

from .list_lag import ListLag
from .ownership import OwnedDeployments
from .register import DeploymentRegister

logger = logging.getLogger(__name__)

OWNER_PREFIX: Final = "own-"
"""The beginning of an owner's tag."""

_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
_SECURE: Final = random.SystemRandom()  # as in `secrets`, whose import takes 0.5 ms
_TAG_LENGTH: Final = 20  # characters of an operation tag
_FIRST_LOOKUP_GAP: Final = 0.25  # seconds between the first two list requests by tag; then doubled
_MAX_LOOKUP_GAP: Final = 2.0  # seconds
_OWNER_DIGEST: Final = 12  # hexadecimal digits
_DELIVERY_TIME: Final = 10.0  # seconds that a deploy may take to reach the API and to be accepted
_DONE: Final = frozenset({500, 503})  # after these statuses the API works on the deploy no more
_MAX_SEARCH_GAP: Final = 30.0  # seconds between searches for a cancelled deploy while lists fail


def new_operation_tag() -> str:
    """Returns a new, unique operation tag."""
    seconds, written = int(time.time()), ""
    while seconds:
        seconds, digit = divmod(seconds, 36)
        written = _DIGITS[digit] + written
    return f"op-{written:0>6}" + "".join(_SECURE.choices(_DIGITS, k=11))


def operation_time(tag: str) -> datetime | None:
    """Returns when an operation tag was made, by the clock of its program; None for other tags."""
    if len(tag) != _TAG_LENGTH or not tag.startswith("op-") or set(tag[3:]) - set(_DIGITS):
        return None
    return datetime.fromtimestamp(int(tag[3:9], 36), UTC)


def owner_tag(owner: str) -> str:
    """Returns the tag of every deployment that a client with this owner makes.

    An owner of more than 36 characters does not fit behind the prefix: a hash replaces its end.

    Raises:
        InvalidRequest: `owner` has other characters, or is too long.
    """
    tag = OWNER_PREFIX + check_name("owner", owner, max_length=MAX_TAG)
    if len(tag) <= MAX_TAG:
        return tag
    digest = hashlib.sha256(owner.encode()).hexdigest()[:_OWNER_DIGEST]
    return f"{tag[: MAX_TAG - _OWNER_DIGEST - 1]}-{digest}"


class SurplusObserver(Observer):
    """Stops each surplus deployment that the answer to any list request shows.

    A proxy may send a deploy twice, and give the client one clean answer. The client sends no
    request to find out. Polls ask for their own ids, so other lists show the surplus row:
    those of `recover`, `reap`, pools and the program, and polls without a filter.

    Args:
        register: the deployments of the client.
        owned: stops the surplus deployments.
        is_tracked: returns whether the program has a handle of a deployment.
    """

    def __init__(
        self,
        register: DeploymentRegister,
        owned: OwnedDeployments,
        is_tracked: Callable[[str], bool],
    ) -> None:
        self._register = register
        self._owned = owned
        self._is_tracked = is_tracked

    def call_succeeded(self, call: ObservedCall, result: object) -> None:
        """Stops the deployments of surplus rows."""
        if call.operation is not LIST_DEPLOYMENTS or not isinstance(result, DeploymentPage):
            return
        for row in result.data:
            kept = self._register.kept_instead_of(row)
            if kept is None or self._is_tracked(row.request_id):
                continue
            # A deploy with the tags of another one has two operation tags.
            if sum(operation_time(tag) is not None for tag in row.tags) == 1:
                self._owned.stop_surplus(row.request_id, kept)


@attrs.define(eq=False, repr=False)
class IdempotentDeploy:
    """One deploy that makes at most one deployment."""

    client: ApiClient
    """Sends the deploy."""
    cleanup: Deployments
    """Lists deployments, also while the client closes."""
    owned: OwnedDeployments
    """Stops a surplus deployment."""
    request: HttpRequest[DeployAccepted]
    """The deploy, which carries the tag."""
    tag: str | None
    """The operation tag; None to raise the first ambiguous error."""
    lag: ListLag
    """How long a new deployment may be missing from lists."""
    ignore_wait_limit: bool = False
    """Whether the first attempt queues for the rate limit without end."""
    send_state: SendState = attrs.field(factory=SendState)
    """How often the deploy was sent, and whether its caller is gone."""
    attempts: int = attrs.field(default=0, init=False)
    """Number of requests sent so far."""
    waited: float = attrs.field(default=0.0, init=False)
    """Seconds between the attempts, the list requests by tag included."""
    _first_sent_at: float | None = attrs.field(default=None, init=False)  # loop time
    _delivery_time: float = attrs.field(default=0.0, init=False)  # seconds until the API has it

    async def run(self) -> DeployAccepted:
        """Sends the deploy, and returns the deployment.

        Raises:
            CallError: there is no deployment.
            MaybeCreated: there may be one.
        """
        try:
            accepted = await self._run()
            self._check_id(accepted.request_id)
        except CallError as error:
            error.attempts, error.waited = self.attempts, self.waited
            raise
        record_attempts(accepted, attempts=self.attempts, waited=self.waited)
        return accepted

    async def _run(self) -> DeployAccepted:
        try:
            return await self._send(ignore_wait_limit=self.ignore_wait_limit)
        except CallError as error:
            if self.tag is None or not error.maybe_created:
                raise
            ambiguous = error
        logger.info(
            "%s; listing deployments with the tag %s",
            ambiguous.reason,
            self.tag,
            extra=log_fields(ambiguous, operation_tag=self.tag),
        )
        found = await self._find(ambiguous, is_first=True)
        if found is not None:
            return found
        if self.send_state.is_abandoned:
            ambiguous.maybe_created = False
            raise ambiguous
        try:
            kept = await self._send(ignore_wait_limit=True)
        except CallError as second:
            if not second.maybe_created:  # the first deployment may still show up
                # A 422 names the deployment that the second attempt made: the caller decides on it.
                self._stop_surplus_later(second.request_id, "the deployment of a failed")
                raise
            found = await self._find(second)
            if found is None:
                raise self._maybe_created(
                    second, "no deployment with its tag shows up in the list"
                ) from None
            return found
        self._stop_surplus_later(kept.request_id, "a surplus deployment of a")
        return kept

    def _check_id(self, request_id: str) -> None:
        """Checks that the client can use and stop the deployment: that a URL can have its id.

        Raises:
            UnreadableAnswer: no URL can have it, and the deploy has no tag.
            MaybeCreated: no URL can have it.
        """
        if is_segment(request_id):
            return
        error = UnreadableAnswer("the API has accepted the deploy", **self.request.facts())
        error.maybe_created = True
        why = f"no URL can have the request_id of the deployment, {one_line(request_id)[:200]!r}"
        raise error if self.tag is None else self._maybe_created(error, why)

    async def run_after_cancellation(self) -> DeployAccepted:
        """Goes on with a deploy whose task alone the program has cancelled.

        Raises:
            CallError: there is no deployment, or there may be one, as for `run`.
        """
        if self.send_state.times_sent:
            found = await self.find_after_cancellation()
            if found is not None:
                return found
            if self.send_state.is_abandoned:
                raise self._lost()
        return await self.run()

    async def find_after_cancellation(self) -> DeployAccepted | None:
        """Returns the deployment of a deploy whose task the program has cancelled; None for none.

        Raises:
            NoAnswer: the deploy has no tag.
            MaybeCreated: a list request failed.
        """
        lost = self._lost()
        lost.maybe_created = True
        if self.tag is None:
            raise lost
        self._delivery_time = _DELIVERY_TIME
        return await self._find(lost)

    def _lost(self) -> NoAnswer:
        return NoAnswer(
            "the program has cancelled the task of the deploy before the answer came",
            **self.request.facts(),
        )

    async def _send(self, *, ignore_wait_limit: bool) -> DeployAccepted:
        self.send_state.sent_at = None
        try:
            options = CallOptions(ignore_wait_limit=ignore_wait_limit, operation_tag=self.tag)
            accepted = await self.client.exchange(self.request, self.send_state, options)
        except CallError as error:
            error.operation_tag = self.tag
            self._count(error)
            raise
        finally:
            self._first_sent_at = self._first_sent_at or self.send_state.sent_at
        self._count(accepted)
        self.lag.add_deployed(accepted.request_id, self.send_state.sent_at)
        return accepted

    def _count(self, outcome: DeployAccepted | CallError) -> None:
        self.attempts += outcome.attempts
        self.waited += outcome.waited

    def _search_time(self, first: CallError | None) -> float:
        """Returns the seconds after which a deployment that exists is in lists.

        Args:
            first: the error of the first attempt, which may allow less; None for the list delay.
        """
        if first is None or first.status not in _DONE or self.send_state.is_abandoned:
            return self._delivery_time + self.lag.list_delay
        wait = first.retry_after if isinstance(first, Refused) else None
        return min(self.lag.list_delay, max(self.lag.search_time, wait or 0.0))

    async def _find(self, ambiguous: CallError, *, is_first: bool = False) -> DeployAccepted | None:
        """Returns the deployment with the tag, or None if none shows up in time.

        If the caller was cancelled, no caller is left that could recover the deployment. So the
        search goes on while list requests fail.

        Raises:
            MaybeCreated: a list request failed.
        """
        began, gap = loop_time(), _MAX_LOOKUP_GAP
        try:
            while True:
                try:
                    return await self._find_once(ambiguous if is_first else None)
                except CallError as error:
                    failed = f"the list request by its tag failed: {error.reason}"
                    if not self.send_state.is_abandoned or not is_transient(error):
                        raise self._maybe_created(ambiguous, failed) from None
                logger.warning(
                    "a deploy with the tag %s was cancelled; %s",
                    self.tag,
                    failed,
                    extra=log_fields(ambiguous, operation_tag=self.tag),
                )
                await asyncio.sleep(gap)
                gap = min(gap * 2, _MAX_SEARCH_GAP)
        finally:
            self.waited += loop_time() - began

    async def _find_once(self, first: CallError | None) -> DeployAccepted | None:
        """Keeps one of the deployments with the tag, and stops the others.

        Args:
            first: the error of the first attempt; None after the second one.
        """
        async with contextlib.aclosing(self._lookups(first)) as lookups:
            async for ids in lookups:
                if ids:
                    self.lag.add(self._first_sent_at)
                    kept, *surplus = ids
                    for request_id in surplus:
                        self.owned.stop_surplus(request_id, kept)
                    late = functools.partial(self._stop_late_rows, kept)
                    self.owned.in_background(late, f"a surplus deployment (tag {self.tag})")
                    return DeployAccepted(request_id=kept)
        return None

    async def _stop_late_rows(self, kept: str) -> None:
        """Stops each other deployment with the tag that lists show after the list delay."""
        await self.owned.sleep_until_closed(self.lag.list_delay)
        try:
            ids = await self._list()
        except CallError as error:
            logger.warning(
                "a surplus deployment with the tag %s may run, if a proxy sent the deploy of %s"
                " twice: the list request failed: %s",
                self.tag,
                kept,
                error.reason,
                extra=log_fields(error, operation_tag=self.tag, request_id=kept),
            )
            return
        for surplus in set(ids) - {kept}:
            self.owned.stop_surplus(surplus, kept)

    def _stop_surplus_later(self, kept: str | None, what: str) -> None:
        stop = functools.partial(self._stop_surplus, kept)
        self.owned.in_background(stop, f"{what} deploy (tag {self.tag})")

    async def _stop_surplus(self, kept: str | None) -> None:
        """Stops each other deployment with the tag that shows up before the client is closed."""
        until = loop_time() + self._delivery_time + self.lag.list_delay
        surplus = set[str]()
        async with contextlib.aclosing(self._lookups(until_closed=True)) as lookups:
            async for ids in lookups:
                surplus = set(ids) - {kept}
                for request_id in surplus:
                    self.owned.stop_surplus(request_id, kept)
        if not surplus and loop_time() < until:
            logger.warning(
                "the client was closed before the list was sure to show every deployment with the"
                " tag %s, whose deploy was sent twice: one may go on running; client.recover(%r)"
                " finds it",
                self.tag,
                self.tag,
                extra=log_fields(operation_tag=self.tag, request_id=kept),
            )

    async def _lookups(
        self, first: CallError | None = None, *, until_closed: bool = False
    ) -> AsyncGenerator[list[str], None]:
        """Yields the ids of the deployments with the tag, repeatedly during the list delay.

        Args:
            first: as for `_search_time`.
            until_closed: whether the last list request is made as soon as the client is closed.
        """
        start, gap = loop_time(), _FIRST_LOOKUP_GAP
        while True:
            began, is_closed = loop_time(), until_closed and self.owned.closed
            yield await self._list()
            # Shorter or longer than before, if the caller is gone.
            until = start + self._search_time(first)
            if began >= until or is_closed:  # a list that was requested earlier may be older
                return
            pause = max(0.0, min(gap, until - loop_time()))
            await (self.owned.sleep_until_closed(pause) if until_closed else asyncio.sleep(pause))
            gap = min(gap * 2, _MAX_LOOKUP_GAP)

    async def _list(self) -> list[str]:
        assert self.tag is not None  # noqa: S101 - without a tag no search begins
        rows = self.cleanup.list(filters=[Filter("tags", "in", [self.tag])])
        # The API may ignore the filter.
        return sorted([row.request_id async for row in rows if self.tag in row.tags])

    def _maybe_created(self, ambiguous: CallError, why: str) -> MaybeCreated:
        error = MaybeCreated(
            f"{ambiguous.message}; {why}",
            operation=ambiguous.operation,
            method=ambiguous.method,
            path=ambiguous.path,
            status=ambiguous.status,
        )
        error.operation_tag, error.maybe_created = self.tag, True
        return error
