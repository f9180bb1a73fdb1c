"""Relay sessions of `client.relay`: linked inside a block, and deleted after it.

Problem: a session costs until it is deleted. A session has no tag and no name of the program's
choice, and the API has no idempotency key: nothing tells for certain which session a lost answer
was about.

Rule: the client owns a session from the answer to its create on, and deletes it as it stops a
deployment (`OwnedDeployments`): in the background, again and again until the client is closed. A
create goes on if its caller is cancelled, and what it makes is deleted. A create whose answer is
lost is not sent again, which could make a second session. `RelayMaybeCreated` then names the
sessions that may be it: those of the same players and the same webhook that this client does not
know. Another program may have made them, so the client does not delete them.
"""

from __future__ import annotations

import asyncio
import functools
import random
from typing import Final

from edgegap_async.api.messages import HttpRequest
from edgegap_async.api.resources.relays import CREATE_RELAY_SESSION, RelayRequest, RelaySession
from edgegap_async.concurrency import is_cancelled, limited, loop_time
from edgegap_async.deployments.ownership import OwnedDeployments
from edgegap_async.deployments.register import DeploymentRegister
from edgegap_async.errors import (
    CallError,
    ClientClosed,
    NoAnswer,
    NotFound,
    RelayMaybeCreated,
    RelayNotLinked,
    RelayTimedOut,
)
from edgegap_async.http.api_client import ApiClient
from edgegap_async.http.resources.relays import Relays
from edgegap_async.http.retries import is_transient
from edgegap_async.http.transport import SendState
from edgegap_async.observability.observer import Observers

_FIRST_GAP: Final = 0.25  # seconds between the first two requests; then doubled
_MAX_GAP: Final = 1.0  # seconds; the API documents no rate limit for these calls
_JITTER: Final = (0.8, 1.2)  # factors of a gap, so that programs do not ask in step
_WHAT: Final = "the relay session of a cancelled call"


class OwnedRelays:
    """Creates the relay sessions that one client has to delete.

    Args:
        client: makes the calls.
        cleanup: makes calls also while the client closes.
        list_delay: seconds that a new session may be missing from lists.
        not_found_grace: seconds for which the answer "no such session" is not believed after the
            create.
        owner: the name of the program, for the log; None without an owner.
    """

    def __init__(
        self,
        client: ApiClient,
        *,
        cleanup: Relays,
        list_delay: float,
        not_found_grace: float,
        owner: str | None,
    ) -> None:
        self._client = client
        self._cleanup = cleanup
        self._list_delay = list_delay
        # Observers see deployments, not sessions.
        self._register = DeploymentRegister(not_found_grace, Observers())
        self.owned: Final = OwnedDeployments(
            self._register,
            lambda session_id, _: cleanup.delete(session_id),
            self._is_listed,
            owner,
        )
        """Deletes the sessions."""

    async def _is_listed(self, session_id: str) -> bool:
        return session_id in {session.session_id async for session in self._cleanup.list()}

    # ── create ───────────────────────────────────────────────────────────────────────────────────

    async def create(self, body: RelayRequest, deadline: float | None) -> RelaySession:
        """Creates a session that the client owns. If the caller is cancelled, it is deleted.

        Args:
            body: the session.
            deadline: loop time by which the API has to answer; None for no limit.

        Raises:
            RelayTimedOut: the API did not answer by the deadline.
            RelayMaybeCreated: the answer was lost.
            EdgegapError: as for `EdgegapClient.relay`.
        """
        late = functools.partial(
            RelayTimedOut, "no answer came in time; what was created is deleted"
        )
        async with limited(asyncio.timeout_at(deadline), late):
            return await self._create(body)

    async def _create(self, body: RelayRequest) -> RelaySession:
        request, send_state = self._client.prepare(CREATE_RELAY_SESSION, body=body), SendState()
        creating: asyncio.Task[RelaySession] | None = None
        try:
            with self._client.until_closed():
                creating = asyncio.create_task(self._send(request, send_state, body))
                session = await self._result(creating, request, body)
        except (asyncio.CancelledError, ClientClosed):
            if creating is not None and send_state.times_sent:
                send_state.is_abandoned = True
                undo = functools.partial(self._undo, creating, request, body)
                self.owned.in_background(undo, _WHAT)
            elif creating is not None:
                creating.cancel()
            raise
        self._register.add_deployed(session.session_id)
        self.owned.add(session.session_id)
        return session

    async def _send(
        self, request: HttpRequest[RelaySession], send_state: SendState, body: RelayRequest
    ) -> RelaySession:
        try:
            return await self._client.exchange(request, send_state)
        except CallError as error:
            if not error.maybe_created:
                raise
            lost = error
        raise await self._maybe_created(lost, body)

    async def _result(
        self,
        creating: asyncio.Task[RelaySession],
        request: HttpRequest[RelaySession],
        body: RelayRequest,
    ) -> RelaySession:
        """Returns what a create makes; the create goes on if the caller is cancelled."""
        try:
            return await asyncio.shield(creating)
        except asyncio.CancelledError:
            if is_cancelled() or not creating.cancelled():
                raise
        text = "the program has cancelled the task of the call before the answer came"
        raise await self._maybe_created(NoAnswer(text, **request.facts()), body)

    async def _undo(
        self,
        creating: asyncio.Task[RelaySession],
        request: HttpRequest[RelaySession],
        body: RelayRequest,
    ) -> None:
        """Deletes what a create makes whose caller was cancelled."""
        try:
            session = await self._result(creating, request, body)
        except RelayMaybeCreated:
            raise
        except CallError:
            return  # nothing was created
        self._register.begin_stop(session.session_id)
        await self.owned.keep_stopping(session.session_id)

    async def _maybe_created(self, lost: CallError, body: RelayRequest) -> RelayMaybeCreated:
        """Returns the error of a create whose answer is lost, with the sessions that may be it."""
        until, gap = loop_time() + self._list_delay, _FIRST_GAP
        candidates: tuple[str, ...] = ()
        reason = lost.reason
        try:
            while not (candidates := await self._candidates(body)) and loop_time() < until:
                await asyncio.sleep(min(gap, max(0.0, until - loop_time())))
                gap = min(gap * 2, _MAX_GAP)
        except CallError as failure:
            reason = f"{reason}; the list request failed: {failure.reason}"
        error = RelayMaybeCreated(
            reason,
            operation=lost.operation,
            status=lost.status,
            attempts=lost.attempts,
            candidates=candidates,
        )
        error.maybe_created, error.waited = True, lost.waited
        error.__cause__ = lost
        return error

    async def _candidates(self, body: RelayRequest) -> tuple[str, ...]:
        players = {user.ip for user in body.users}
        return tuple(
            [
                session.session_id
                async for session in self._cleanup.list()
                if session.session_id not in self._register
                and {user.ip_address for user in session.session_users} == players
                and session.webhook_url == body.webhook_url
            ]
        )

    # ── wait ─────────────────────────────────────────────────────────────────────────────────────

    async def wait_linked(self, session: RelaySession, deadline: float | None) -> RelaySession:
        """Returns a session once it is linked to a relay.

        Args:
            session: the session.
            deadline: loop time by which it must be linked; None for no limit.

        Raises:
            RelayTimedOut: it was not linked in time.
            RelayNotLinked: it has failed, or does not exist any more.
            CallError: the API refuses to tell.
            ClientClosed: the client was closed meanwhile.
        """
        gap, session_id = _FIRST_GAP, session.session_id
        async with limited(
            asyncio.timeout_at(deadline),
            lambda: RelayTimedOut("it was not linked in time", session=session),
        ):
            while not (session.linked and session.relay is not None):
                # An error that is no text, as deployments have, is one too.
                if problem := session.error or session.raw.get("error"):
                    raise RelayNotLinked(str(problem), session=session)
                with self._client.until_closed():
                    await asyncio.sleep(gap * random.uniform(*_JITTER))  # noqa: S311 - no secret
                gap = min(gap * 2, _MAX_GAP)
                session = await self._next_state(session_id, session)
        return session

    async def _next_state(self, session_id: str, session: RelaySession) -> RelaySession:
        try:
            return await self._client.relays.get(session_id)
        except CallError as error:
            is_early = loop_time() < self._register.believe_404_from(session_id)
            if isinstance(error, NotFound) and error.is_certain and not is_early:
                raise RelayNotLinked("it does not exist any more", session=session) from error
            if not isinstance(error, NotFound) and not is_transient(error):
                raise
        return session
