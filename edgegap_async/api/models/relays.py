"""Relay sessions: players that exchange packets through a relay near them."""

from __future__ import annotations

import attrs

from .response import ApiResponse, Model, Pagination


@attrs.frozen(kw_only=True, eq=False, repr=False)
class RelayUser(Model):
    """A player of a relay session."""

    omits_none = True

    ip_address: str | None = None
    """The player's IP address."""
    latitude: float | None = None
    """Degrees north of the player, -90 to 90; None if the API does not know it."""
    longitude: float | None = None
    """Degrees east of the player, -180 to 180; None if the API does not know it."""
    authorization_token: int | None = None
    """What the player's program shows to the relay. No repr shows it."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class RelayPort(Model):
    """A port of a relay."""

    port: int | None = None
    """The number of the port."""
    protocol: str | None = None
    """The protocol, such as `UDP`."""
    link: str | None = None
    """Host name and number, such as `relay.example.net:32000`."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class RelayPorts(Model):
    """The two ports of a relay."""

    server: RelayPort | None = None
    """For the player whose program is the host of the game."""
    client: RelayPort | None = None
    """For the other players."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Relay(Model):
    """The relay that a session is linked to."""

    ip: str | None = None
    """Its IP address."""
    host: str | None = None
    """Its host name."""
    ports: RelayPorts | None = None
    """Its ports."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class RelaySession(ApiResponse):
    """A relay session. It costs until it is deleted."""

    omits_none = True

    session_id: str
    """Identifies the session, such as `7349356945f1-S`."""
    status: str | None = None
    """The API's word for its state: `Initializing` at first, `Linked` at last. The API lists no
    other words; `linked` and `error` say what counts."""
    ready: bool = False
    """Whether it can be used."""
    linked: bool = False
    """Whether it has a relay."""
    error: str | None = None
    """Why it has failed; None if it has not."""
    authorization_token: int | None = None
    """What every program of the session shows to the relay. No repr shows it."""
    session_users: tuple[RelayUser, ...] = ()
    """Its players."""
    relay: Relay | None = None
    """Its relay; None until it is linked."""
    webhook_url: str | None = attrs.field(default=None, repr=False)
    """The URL to which the API posts the session once it is ready; None for none. No repr shows
    it: its path may be a secret."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class AuthorizedRelayUser(RelaySession):
    """A relay session after a player was added to it."""

    session_user: RelayUser | None = None
    """The player that was added; None if the answer does not name it."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class RelaySessionPage(ApiResponse):
    """One page of the relay sessions of the organization."""

    sessions: tuple[RelaySession, ...] = ()
    """The sessions of this page."""
    total_count: int | None = None
    """How many sessions all pages have together."""
    pagination: Pagination | None = None
    """The position of this page."""
