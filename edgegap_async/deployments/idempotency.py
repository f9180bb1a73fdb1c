"""One server for one wish, whatever becomes of the answers.

Theory. The API has no idempotency key: a deploy that is sent twice makes two servers, and one whose
answer is lost makes a server that nobody knows of. What a client can choose is the tags, and the
list can be asked for a tag. So every wish has a tag of its own, made once, before the first
attempt. When it is in doubt whether the API acted (no answer, 5xx, an accepted answer that cannot
be read), the wish looks for its tag in the list before it does anything else:

- found: that is its server. Nobody notices that anything went wrong.
- not found, for as long as a deployment may take to show up (`list_delay`): it is sent once more,
  with the same tag. Should the first one show up after all, the surplus is stopped.
- the list cannot be asked, or the second answer is in doubt as well and nothing shows up:
  `MaybeCreated`, which names the tag.

A tag is `op-`, six characters of the time (seconds, base 36), eleven of chance: 20 characters, the
most that older descriptions allow. The time is what tells the age of a deployment that its program
did not live to stop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, Final

import attrs

from edgegap_async.api.messages import HttpRequest
from edgegap_async.api.models import DeployAccepted, record_attempts
from edgegap_async.api.requests import Filter
from edgegap_async.api.validation import check_name
from edgegap_async.errors import CallError, MaybeCreated
from edgegap_async.http.api_client import ApiClient
from edgegap_async.http.call_options import CallOptions
from edgegap_async.http.resources import Deployments
from edgegap_async.http.transport import SendState

__all__ = ["IdempotentDeploy", "new_operation_tag", "operation_time", "owner_tag"]

logger = logging.getLogger(__name__)

_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
_MAX_LOOKUP_GAP: Final = 2.0  # seconds between looks for a tag


def new_operation_tag() -> str:
    """A tag that no other wish has."""
    seconds, written = int(time.time()), ""
    while seconds:
        seconds, digit = divmod(seconds, 36)
        written = _DIGITS[digit] + written
    return f"op-{written:0>6}" + "".join(secrets.choice(_DIGITS) for _ in range(11))


def operation_time(tag: str) -> datetime | None:
    """When a tag was made, by the clock of the program that made it; None if it is not one."""
    if len(tag) != 20 or not tag.startswith("op-") or set(tag[3:]) - set(_DIGITS):  # noqa: PLR2004
        return None
    return datetime.fromtimestamp(int(tag[3:9], 36), UTC)


@attrs.define(eq=False)
class IdempotentDeploy:
    """A deploy that makes one server.

    Attributes:
        client: what sends it.
        cleanup: lists deployments, also while the client closes.
        request: the deploy, with the tag in it.
        tag: what to look for; None to give up at the first doubt.
        list_delay: seconds after which a deployment that is not listed does not exist.
        stop: stops a surplus deployment.
        in_background: lets work go on after the caller was answered.
        patient: whether it waits for its turn as long as it takes.
        sending: what is known of the request under way.
        attempts: how many times it was tried so far.
        waited: seconds that were spent between the attempts, and in looking for what they made.
    """

    client: ApiClient
    cleanup: Deployments
    request: HttpRequest[DeployAccepted]
    tag: str | None
    list_delay: float
    stop: Callable[[str], Coroutine[Any, Any, None]]
    in_background: Callable[[Coroutine[Any, Any, None], str], object]
    ignore_wait_limit: bool = False
    sending: SendState = attrs.field(factory=SendState)
    attempts: int = attrs.field(default=0, init=False)
    waited: float = attrs.field(default=0.0, init=False)

    async def run(self) -> DeployAccepted:
        """The one deployment.

        Raises:
            CallError: there is none.
            MaybeCreated: nobody knows.
        """
        try:
            granted = await self._run()
        except CallError as error:
            error.attempts, error.waited = self.attempts, self.waited
            raise
        record_attempts(granted, attempts=self.attempts, waited=self.waited)
        return granted

    async def _run(self) -> DeployAccepted:
        try:
            return await self._send(ignore_wait_limit=self.ignore_wait_limit)
        except CallError as error:
            if self.tag is None or not error.maybe_created:
                raise
            doubt = error
        logger.info("%s: looking for what it made by its tag %s", doubt, self.tag)
        found = await self._look(doubt, self.tag)
        if found is not None:
            return found
        if self.sending.is_abandoned:  # nobody waits for it, and it made nothing
            doubt.maybe_created = False
            raise doubt
        try:
            kept = await self._send(ignore_wait_limit=True)
        except CallError as second:
            if not second.maybe_created:  # the first may show up all the same
                self.in_background(self._stop_surplus(None, self.tag), f"what {self.tag} made")
                raise
            found = await self._look(second, self.tag)
            if found is None:
                raise self._maybe(second, "it does not show up in the list") from None
            kept = found
        self.in_background(self._stop_surplus(kept, self.tag), f"a surplus of {self.tag}")
        return kept

    async def _send(self, *, ignore_wait_limit: bool) -> DeployAccepted:
        try:
            options = CallOptions(ignore_wait_limit=ignore_wait_limit)
            accepted = await self.client.exchange(self.request, self.sending, options)
        except CallError as error:
            error.operation_tag = self.tag
            self._count(error)
            raise
        self._count(accepted)
        return accepted

    def _count(self, outcome: DeployAccepted | CallError) -> None:
        self.attempts += outcome.attempts
        self.waited += outcome.waited

    async def _look(self, doubt: CallError, tag: str) -> DeployAccepted | None:
        """What the wish has made, once it shows up; None if nothing does.

        Raises:
            MaybeCreated: the list cannot be asked.
        """
        began = self._now()
        try:
            async with contextlib.aclosing(self._looks(tag)) as looks:
                async for ids in looks:
                    if ids:
                        return DeployAccepted(request_id=ids[0])
        except CallError as error:
            raise self._maybe(doubt, f"the list cannot be asked: {error}") from None
        finally:
            self.waited += self._now() - began
        return None

    async def _stop_surplus(self, kept: DeployAccepted | None, tag: str) -> None:
        """Stops the other one of two that were sent, should it show up."""
        async with contextlib.aclosing(self._looks(tag)) as looks:
            async for ids in looks:
                for surplus in set(ids) - {kept and kept.request_id}:
                    await self.stop(surplus)
                    return

    async def _looks(self, tag: str) -> AsyncGenerator[list[str], None]:
        """The ids of the deployments that carry the tag, again and again while more may show up."""
        until, gap = self._now() + self.list_delay, 0.25
        while True:
            yield await self._listed(tag)
            left = until - self._now()
            if left <= 0:
                return
            await asyncio.sleep(min(gap, left))
            gap = min(gap * 2, _MAX_LOOKUP_GAP)

    async def _listed(self, tag: str) -> list[str]:
        rows = [
            row
            async for row in self.cleanup.list(filters=[Filter("tags", "in", [tag])])
            if tag in row.tags  # whatever the API makes of the filter
        ]
        return sorted(row.request_id for row in rows)

    def _maybe(self, doubt: CallError, why: str) -> MaybeCreated:
        error = MaybeCreated(
            f"{doubt.message}; {why}",
            operation=doubt.operation,
            method=doubt.method,
            path=doubt.path,
            status=doubt.status,
        )
        error.operation_tag, error.maybe_created = self.tag, True
        return error

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def owner_tag(owner: str) -> str:
    """The tag of all that a client with this owner deploys.

    Raises:
        InvalidRequest: it is no owner.
    """
    # With its prefix it is as long as older descriptions allow a tag to be.
    return f"own-{check_name('owner', owner, max_length=16)}"
