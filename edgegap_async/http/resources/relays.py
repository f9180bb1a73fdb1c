"""The calls about relay sessions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from edgegap_async.api.resources.relays import (
    AUTHORIZE_RELAY_USER,
    CREATE_RELAY_SESSION,
    DELETE_RELAY_SESSION,
    GET_RELAY_SESSION,
    LIST_RELAY_SESSIONS,
    REVOKE_RELAY_USER,
    AnyRelayUser,
    AuthorizedRelayUser,
    RelayAuthorization,
    RelayRequest,
    RelayRevocation,
    RelaySession,
    RelaySessionPage,
)

from .resource import Listing, Resource


class Relays(Resource):
    """Creates, reads and deletes relay sessions, and changes who may use them.

    A session costs until it is deleted. `client.relay` creates one that is deleted for certain.
    """

    async def create(
        self,
        users: Iterable[AnyRelayUser],
        *,
        filters: Iterable[Mapping[str, object]] = (),
        webhook_url: str | None = None,
    ) -> RelaySession:
        """Creates a relay session, which is not linked to a relay yet.

        This is the plain API call: if the answer is lost, or the task is cancelled before the
        answer comes, a session with an unknown id may exist.

        Args:
            users: the players' IP addresses, at least one. The API chooses a relay near them.
            filters: conditions on the location of the relay, as JSON objects such as `{"field":
                "city", "values": ["Montreal"], "filter_type": "any"}`. The API does not describe
                them; they are sent as they are.
            webhook_url: URL to which the API posts the session once it is ready; None for none.

        Raises:
            BadRequest: the API does not accept an address or a filter.
            Forbidden: the organization may not use relays.
            NoAnswer: the session may have been created.
            ServerError: as `NoAnswer`; also if no relay has room (503).
        """
        body = RelayRequest(users=users, filters=filters, webhook_url=webhook_url)
        return await self._call(CREATE_RELAY_SESSION, body=body)

    def list(self) -> Listing[RelaySession, RelaySessionPage]:
        """Lists the relay sessions of the organization that were not deleted.

        Raises:
            Forbidden: the organization may not use relays.
        """
        return Listing(
            self._call,
            LIST_RELAY_SESSIONS,
            lambda page: page.sessions,
            lambda session: session.session_id,
            names_first_page=False,
        )

    async def get(self, session_id: str) -> RelaySession:
        """Returns the current state of a relay session.

        Raises:
            NotFound: the session does not exist.
        """
        return await self._call(GET_RELAY_SESSION, path={"session_id": session_id})

    async def delete(self, session_id: str) -> None:
        """Deletes a relay session. Its players are cut off.

        Raises:
            NotFound: the session does not exist.
        """
        await self._call(DELETE_RELAY_SESSION, path={"session_id": session_id})

    async def authorize_user(self, session_id: str, user_ip: AnyRelayUser) -> AuthorizedRelayUser:
        """Adds a player to a relay session.

        Args:
            session_id: the session.
            user_ip: the player's IP address.

        Returns:
            The session; `session_user.authorization_token` is what the player's program needs.

        Raises:
            Conflict: the API refuses the player, who may be one of the session already.
            BadRequest: the session does not exist, or the address cannot be used.
        """
        body = RelayAuthorization(session_id=session_id, user_ip=user_ip)
        return await self._call(AUTHORIZE_RELAY_USER, body=body)

    async def revoke_user(self, session_id: str, authorization_token: int) -> None:
        """Removes a player from a relay session.

        Args:
            session_id: the session.
            authorization_token: the player's token, `RelayUser.authorization_token`.

        Raises:
            NotFound: the session does not exist, or no player of it has the token.
        """
        body = RelayRevocation(session_id=session_id, authorization_token=authorization_token)
        await self._call(REVOKE_RELAY_USER, body=body)
