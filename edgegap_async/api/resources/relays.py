"""The calls about relay sessions: models, bodies and operations."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias

import attrs
from attrs.validators import optional

from edgegap_async.api.models.response import ApiResponse, Model, Pagination
from edgegap_async.api.operations import Operation
from edgegap_async.api.requests import STRICT, IpAddress, RequestModel, Webhook
from edgegap_async.api.validation import check_list, not_empty, number, segment
from edgegap_async.errors import InvalidRequest


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


AnyRelayUser: TypeAlias = str | ipaddress.IPv4Address | ipaddress.IPv6Address | IpAddress
"""A player of a relay session as arguments accept it: an IP address. A place is not enough, because
the relay lets in the address."""


def _as_address(value: object) -> str:
    return value.ip_address if isinstance(value, IpAddress) else IpAddress(str(value)).ip_address


@attrs.frozen(eq=False, repr=False)
class RelayUserRequest(RequestModel):
    """A player of a relay session to come."""

    ip: str = attrs.field(converter=_as_address)
    """The player's IP address, from which the player reaches the relay."""


def _as_users(values: Iterable[AnyRelayUser | RelayUserRequest]) -> tuple[RelayUserRequest, ...]:
    check_list("users", values)
    return tuple(
        value if isinstance(value, RelayUserRequest) else RelayUserRequest(value)
        for value in values
    )


def _as_filters(values: Iterable[Mapping[str, object]]) -> tuple[Mapping[str, object], ...]:
    check_list("filters", values)
    chosen = tuple(values)
    for value in chosen:
        if not isinstance(value, Mapping):
            raise InvalidRequest(f"filters must be a list of JSON objects, not of {value!r}")
    return chosen


def _webhook(_self: object, _: attrs.Attribute[Any], value: Any) -> None:
    Webhook(value)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class RelayRequest(RequestModel):
    """The body of a call that creates a relay session."""

    users: tuple[RelayUserRequest, ...] = attrs.field(converter=_as_users, validator=not_empty)
    """The players, at least one. The API chooses a relay near them."""
    filters: tuple[Mapping[str, object], ...] = attrs.field(
        default=(), converter=_as_filters, metadata={STRICT: "objects"}
    )
    """Conditions on the location of the relay, as JSON objects. The API does not describe them."""
    webhook_url: str | None = attrs.field(default=None, validator=optional(_webhook), repr=False)
    """An http or https URL to which the API posts the session once it is ready; None for none. No
    repr and no error shows it."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class RelayAuthorization(RequestModel):
    """The body of a call that adds a player to a relay session."""

    session_id: str = attrs.field(validator=segment())
    """The session."""
    user_ip: str = attrs.field(converter=_as_address)
    """The player's IP address."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class RelayRevocation(RequestModel):
    """The body of a call that removes a player from a relay session."""

    session_id: str = attrs.field(validator=segment())
    """The session."""
    authorization_token: int = attrs.field(validator=number(least=0, whole=True))
    """The player's token, `RelayUser.authorization_token`."""


CREATE_RELAY_SESSION: Final = Operation(
    name="create_relay_session",
    method="POST",
    path="/v1/relays/sessions",
    body=RelayRequest,
    returns=RelaySession,
    may_fail={400, 401, 403, 500, 503},
)
LIST_RELAY_SESSIONS: Final = Operation(
    name="list_relay_sessions",
    method="GET",
    path="/v1/relays/sessions",
    query=frozenset({"page"}),  # undocumented, though the answer says that there are pages
    returns=RelaySessionPage,
    may_fail={401, 403, 500},
)
GET_RELAY_SESSION: Final = Operation(
    name="get_relay_session",
    method="GET",
    path="/v1/relays/sessions/{session_id}",
    returns=RelaySession,
    may_fail={401, 403, 404, 500},
)
DELETE_RELAY_SESSION: Final = Operation(
    name="delete_relay_session",
    method="DELETE",
    path="/v1/relays/sessions/{session_id}",
    returns=type(None),
    ok={204},
    may_fail={401, 403, 404, 500, 503},
)
AUTHORIZE_RELAY_USER: Final = Operation(
    name="authorize_relay_user",
    method="POST",
    path="/v1/relays/sessions:authorize-user",
    body=RelayAuthorization,
    returns=AuthorizedRelayUser,
    may_fail={400, 401, 403, 409, 500, 503},
)
REVOKE_RELAY_USER: Final = Operation(
    name="revoke_relay_user",
    method="POST",
    path="/v1/relays/sessions:revoke-user",
    body=RelayRevocation,
    returns=type(None),  # a 200 has the session, a 204 nothing
    ok={200, 204},
    may_fail={400, 401, 403, 404, 500, 503},
)
