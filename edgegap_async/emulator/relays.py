"""Relay sessions of the emulated cloud: `Initializing` until a relay is found, then `Linked`.

No relay runs: a session holds two ports of this machine, and its players are admitted and removed
by name only. A session without free ports stays unlinked and has an `error`.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import Final

import attrs

from edgegap_async.api.resources.relays import Relay, RelayPort, RelayPorts, RelaySession, RelayUser
from edgegap_async.errors import Conflict, NotFound

from .environment import PUBLIC_IP
from .locations import Point

_MAX_TOKEN: Final = 2**32  # tokens are below; the clients of relays send four bytes


def _new_token() -> int:
    return secrets.randbelow(_MAX_TOKEN)


@attrs.define(kw_only=True, eq=False)
class LocalRelaySession:
    """A relay session."""

    locate: Callable[[str], Point | None] = attrs.field(repr=False)
    """Returns where an IP address is; None if that is not known."""
    webhook_url: str | None = attrs.field(default=None, repr=False)
    """Where the session is posted once it is linked; None for no webhook."""
    created_at: float
    """Time of its creation by the cloud's clock, in seconds."""
    session_id: str = attrs.field(factory=lambda: f"{secrets.token_hex(6)}-S")
    """Its id."""
    error: str | None = None
    """Why it has no relay; None if it has one, or will have one."""
    port_numbers: tuple[int, ...] = ()
    """The ports of its relay, for the host and for the other players; empty until it is linked."""
    linking: asyncio.Task[None] | None = attrs.field(default=None, repr=False)
    """Links it; None before."""
    _token: int = attrs.field(factory=_new_token, repr=False)
    _users: dict[str, RelayUser] = attrs.field(factory=dict, repr=False)

    @property
    def is_linked(self) -> bool:
        """Whether it has a relay."""
        return bool(self.port_numbers)

    @property
    def users(self) -> tuple[str, ...]:
        """The IP addresses of its players, in the order in which they were added."""
        return tuple(self._users)

    def authorize(self, ip: str) -> RelayUser:
        """Adds a player.

        Raises:
            Conflict: the address is one of a player.
        """
        if ip in self._users:
            raise Conflict(f"{ip} is authorized on {self.session_id} already")
        latitude, longitude = self.locate(ip) or (None, None)
        user = self._users[ip] = RelayUser(
            ip_address=ip,
            latitude=latitude,
            longitude=longitude,
            authorization_token=_new_token(),
        )
        return user

    def revoke(self, token: int) -> None:
        """Removes a player.

        Raises:
            NotFound: no player has the token.
        """
        for ip, user in self._users.items():
            if user.authorization_token == token:
                del self._users[ip]
                return
        raise NotFound(f"No user of {self.session_id} has that authorization token")

    def shown(self, host: str) -> RelaySession:
        """Returns the session as the API shows it.

        Args:
            host: host name of its relay.
        """
        ports = [
            RelayPort(port=number, protocol="UDP", link=f"{host}:{number}")
            for number in self.port_numbers
        ]
        return RelaySession(
            session_id=self.session_id,
            authorization_token=self._token,
            status="Linked" if self.is_linked else "Initializing",
            ready=self.is_linked,
            linked=self.is_linked,
            error=self.error,
            session_users=tuple(self._users.values()),
            relay=(
                Relay(ip=PUBLIC_IP, host=host, ports=RelayPorts(server=ports[0], client=ports[1]))
                if ports
                else None
            ),
            webhook_url=self.webhook_url,
        )
