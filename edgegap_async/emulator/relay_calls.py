"""The calls about relay sessions."""

from __future__ import annotations

import attrs

from edgegap_async.api.resources.relays import (
    AuthorizedRelayUser,
    RelayAuthorization,
    RelayRequest,
    RelayRevocation,
    RelaySession,
    RelaySessionPage,
)
from edgegap_async.errors import BadRequest, NotFound

from .cloud_state import CloudState
from .list_queries import page_answer
from .ports import NoFreePort
from .relays import LocalRelaySession
from .timings import draw


class RelayCalls(CloudState):
    """The calls about relay sessions."""

    async def create_relay_session(self, *, body: RelayRequest) -> RelaySession:
        """Creates a session, which is linked a little later."""
        session = LocalRelaySession(
            locate=lambda ip: self._locations.point_and_country(ip)[0],
            webhook_url=body.webhook_url,
            created_at=self.clock.time(),
        )
        for ip in dict.fromkeys(user.ip for user in body.users):
            session.authorize(ip)
        self.relay_sessions[session.session_id] = session
        session.linking = self._spawn(self._link(session))
        return self._shown(session)

    async def list_relay_sessions(self, **pages: str) -> RelaySessionPage:
        """Returns the sessions, oldest first."""
        until = self.clock.time() - self.settings.list_delay
        every = [one for one in self.relay_sessions.values() if one.created_at <= until]
        return page_answer(RelaySessionPage, "sessions", every, pages, show=self._shown)

    async def get_relay_session(self, *, session_id: str) -> RelaySession:
        """Returns a session."""
        return self._shown(self._relay_session(session_id))

    async def delete_relay_session(self, *, session_id: str) -> None:
        """Deletes a session at once."""
        self.end_relay_session(self._relay_session(session_id))

    async def authorize_relay_user(self, *, body: RelayAuthorization) -> AuthorizedRelayUser:
        """Adds a player to a session."""
        session = self.relay_sessions.get(body.session_id)
        if session is None:  # the description has no 404 for this call
            raise BadRequest(f"Session {body.session_id} not found")
        user = session.authorize(body.user_ip)
        not_shown = attrs.filters.exclude("attempts", "waited", "raw")
        fields = attrs.asdict(self._shown(session), recurse=False, filter=not_shown)
        return AuthorizedRelayUser(**fields, session_user=user)

    async def revoke_relay_user(self, *, body: RelayRevocation) -> None:
        """Removes a player from a session."""
        self._relay_session(body.session_id).revoke(body.authorization_token)

    def _relay_session(self, session_id: str) -> LocalRelaySession:
        session = self.relay_sessions.get(session_id)
        if session is None:
            raise NotFound(f"Session {session_id} not found")
        return session

    def _shown(self, session: LocalRelaySession) -> RelaySession:
        host = self.settings.fqdn.replace("{request_id}", session.session_id.lower())
        return session.shown(host)

    async def _link(self, session: LocalRelaySession) -> None:
        await self.clock.sleep(draw(self.settings.timings.linking, self._chance))
        try:
            session.port_numbers = self._ports.allocate(2)
        except NoFreePort as problem:
            session.error = str(problem)
        else:
            if session.webhook_url is not None:
                self._send_session(session.webhook_url, self._shown(session))
