"""The calls about relay sessions, and their bodies."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias

import attrs

from edgegap_async.api.models.relays import AuthorizedRelayUser, RelaySession, RelaySessionPage
from edgegap_async.api.operations import Operation, RetrySafety
from edgegap_async.api.requests import STRICT, IpAddress, RequestModel, Webhook
from edgegap_async.api.validation import check_list, check_segment, field_name, not_empty, number
from edgegap_async.errors import InvalidRequest

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
            raise InvalidRequest(f"filters is a list of JSON objects, not of {value!r}")
    return chosen


def _webhook(_self: object, _: attrs.Attribute[Any], value: Any) -> None:
    if value is not None:
        Webhook(value)


def _session_id(model: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    check_segment(field_name(model, attribute), value)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class RelayRequest(RequestModel):
    """The body of a call that creates a relay session."""

    users: tuple[RelayUserRequest, ...] = attrs.field(converter=_as_users, validator=not_empty)
    """The players, at least one. The API chooses a relay near them."""
    filters: tuple[Mapping[str, object], ...] = attrs.field(
        default=(), converter=_as_filters, metadata={STRICT: "objects"}
    )
    """Conditions on the location of the relay, as JSON objects. The API does not describe them."""
    webhook_url: str | None = attrs.field(default=None, validator=_webhook, repr=False)
    """An http or https URL to which the API posts the session once it is ready; None for none. No
    repr and no error shows it."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class RelayAuthorization(RequestModel):
    """The body of a call that adds a player to a relay session."""

    session_id: str = attrs.field(validator=_session_id)
    """The session."""
    user_ip: str = attrs.field(converter=_as_address)
    """The player's IP address."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class RelayRevocation(RequestModel):
    """The body of a call that removes a player from a relay session."""

    session_id: str = attrs.field(validator=_session_id)
    """The session."""
    authorization_token: int = attrs.field(validator=number(least=0, whole=True))
    """The player's token, `RelayUser.authorization_token`."""


CREATE_RELAY_SESSION: Final = Operation(
    name="create_relay_session",
    method="POST",
    path="/v1/relays/sessions",
    body=RelayRequest,
    returns=RelaySession,
    ok=frozenset({200}),
    may_fail=frozenset({400, 401, 403, 500, 503}),
    retry_safety=RetrySafety.ONLY_IF_NOT_SENT,
)
LIST_RELAY_SESSIONS: Final = Operation(
    name="list_relay_sessions",
    method="GET",
    path="/v1/relays/sessions",
    query=frozenset({"page"}),  # undocumented, though the answer says that there are pages
    returns=RelaySessionPage,
    ok=frozenset({200}),
    may_fail=frozenset({401, 403, 500}),
)
GET_RELAY_SESSION: Final = Operation(
    name="get_relay_session",
    method="GET",
    path="/v1/relays/sessions/{session_id}",
    returns=RelaySession,
    ok=frozenset({200}),
    may_fail=frozenset({401, 403, 404, 500}),
)
DELETE_RELAY_SESSION: Final = Operation(
    name="delete_relay_session",
    method="DELETE",
    path="/v1/relays/sessions/{session_id}",
    returns=type(None),
    ok=frozenset({204}),
    may_fail=frozenset({401, 403, 404, 500, 503}),
)
AUTHORIZE_RELAY_USER: Final = Operation(
    name="authorize_relay_user",
    method="POST",
    path="/v1/relays/sessions:authorize-user",
    body=RelayAuthorization,
    returns=AuthorizedRelayUser,
    ok=frozenset({200}),
    may_fail=frozenset({400, 401, 403, 409, 500, 503}),
    retry_safety=RetrySafety.ONLY_IF_NOT_SENT,
)
REVOKE_RELAY_USER: Final = Operation(
    name="revoke_relay_user",
    method="POST",
    path="/v1/relays/sessions:revoke-user",
    body=RelayRevocation,
    returns=type(None),  # a 200 has the session, a 204 nothing
    ok=frozenset({200, 204}),
    may_fail=frozenset({400, 401, 403, 404, 500, 503}),
    retry_safety=RetrySafety.ONLY_IF_NOT_SENT,
)

RELAY_OPERATIONS: Final[tuple[Operation[object], ...]] = (
    CREATE_RELAY_SESSION,
    LIST_RELAY_SESSIONS,
    GET_RELAY_SESSION,
    DELETE_RELAY_SESSION,
    AUTHORIZE_RELAY_USER,
    REVOKE_RELAY_USER,
)
"""The calls about relay sessions."""
