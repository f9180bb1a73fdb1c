"""What is said to the API, as values that check themselves.

Making one of these with something that cannot be sent raises `InvalidRequest`, so nothing wrong
reaches the wire, and an error comes from the line that has it wrong. No message repeats the value
of an environment variable or the path of a webhook: they may be secrets.
"""

from __future__ import annotations

import ipaddress
import itertools
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final, Literal, NoReturn, TypeAlias, TypedDict, TypeVar
from urllib.parse import urlsplit

import attrs

from edgegap_async.errors import InvalidRequest

from .models import Status
from .validation import (
    check_list,
    check_text,
    field_name,
    instance_of,
    not_empty,
    number,
    one_of,
)

__all__ = [
    "WEBHOOK_KINDS",
    "AnyUser",
    "AnyVariables",
    "DeployOptions",
    "DeployRequest",
    "EnvironmentVariable",
    "Filter",
    "FilterField",
    "FilterOperator",
    "FleetDeployRequest",
    "GeoCoordinates",
    "IpAddress",
    "OrderBy",
    "Resources",
    "StopFilter",
    "StopFilters",
    "TagName",
    "Token",
    "User",
    "Webhook",
    "WebhookKind",
    "check_options",
    "deploy_request",
    "webhook_option",
]


def _hidden(value: object, scheme: str) -> Callable[[], str]:
    if not isinstance(value, str):
        return str
    word, _, rest = value.strip().partition(" ")
    secret = rest.strip() if rest and word.lower() == scheme else value.strip()
    fits = secret.isascii() and secret.isprintable() and " " not in secret
    header = f"{scheme} {secret}".strip() if secret and fits else ""
    return lambda: header


_SHORTEST_SECRET: Final = 8  # characters


class Token:
    """A secret that prints as `***` wherever it turns up.

    It lives in a closure: not in an attribute that a dump of objects would show.

    Args:
        value: the secret, with or without the scheme's word before it.
        scheme: the word that the Authorization header begins with, lower case; none if empty.

    Raises:
        InvalidRequest: it is empty, or holds what an HTTP header cannot (spaces, line breaks,
            letters beyond ASCII).
    """

    __slots__ = ("_reveal",)

    def __init__(self, value: str, *, scheme: str = "") -> None:
        self._reveal = _hidden(value, scheme)
        del value  # a traceback that shows local variables must not show it
        if not self._reveal():
            raise InvalidRequest("a token is a text of printable ASCII without spaces")

    @property
    def header(self) -> dict[str, str]:
        """The Authorization header; not to be kept in a variable, which a traceback might show."""
        return {"Authorization": self._reveal()}

    def hidden_in(self, body: bytes) -> bytes:
        """An answer's body without the secret, which a server or a proxy may have repeated."""
        # In no variable, as above. As short as a word it is none, and would be found in words.
        if len(self._reveal().rpartition(" ")[2]) < _SHORTEST_SECRET:
            return body
        return body.replace(self._reveal().rpartition(" ")[2].encode(), b"***")

    def __repr__(self) -> str:
        return "***"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a token is not to be stored or sent: make a client where you need one")


Item = TypeVar("Item")

_MAX_TAG: Final = 40  # characters: the official description of 2026-04 (in 2024 it was 20)
_MAX_VALUE: Final = 4096  # bytes: "up to 4 KB", the same
_NO_VALUE: Final = "[\0\ud800-\udfff]"  # NUL, and what UTF-8 cannot say


def _text(model: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    check_text(field_name(model, attribute), value)


def _tag(model: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    check_text(field_name(model, attribute), value, _MAX_TAG)


def _strings(model: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    what = field_name(model, attribute)
    check_list(what, value)
    for item in value:
        if attribute.name == "tags":
            _tag(model, attribute, item)
        else:
            check_text(f"each of {what}", item)
    if len(set(value)) < len(value):
        raise InvalidRequest(f"{what} names something twice: {value!r}")


def _as_tuple(what: str, values: Iterable[Item]) -> tuple[Item, ...]:
    check_list(what, values)
    return tuple(values)


def _as_strings(values: Iterable[str]) -> tuple[str, ...]:
    # What is no list is left as it is, for the validator, which knows the name of the field.
    is_list = isinstance(values, Iterable) and not isinstance(values, str | bytes | Mapping)
    return tuple(values) if is_list else values  # type: ignore[return-value]


class _RequestModel:
    """How all that is said compares and prints.

    attrs would write both out for each class, at a cost to every import.
    """

    __slots__ = ()

    def _fields(self) -> tuple[attrs.Attribute[Any], ...]:
        kind: Any = type(self)
        return tuple(attrs.fields(kind))

    def _values(self) -> tuple[object, ...]:
        return tuple(getattr(self, field.name) for field in self._fields())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _RequestModel) or type(other) is not type(self):
            return NotImplemented
        return self._values() == other._values()

    def __hash__(self) -> int:
        return hash(self._values())

    def __repr__(self) -> str:
        shown = (field.name for field in self._fields() if field.repr)
        values = ", ".join(f"{name}={getattr(self, name)!r}" for name in shown)
        return f"{type(self).__name__}({values})"


def _address(_self: object, _: attrs.Attribute[Any], value: Any) -> None:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        raise InvalidRequest(f"not an IPv4 or IPv6 address: {value!r}") from None
    if "%" in value:
        raise InvalidRequest(f"an address with a zone is known on its own machine only: {value!r}")


@attrs.frozen(eq=False, repr=False)
class IpAddress(_RequestModel):
    """A player, by IPv4 or IPv6 address: a server is chosen near it."""

    ip_address: str = attrs.field(converter=str, validator=_address)


@attrs.frozen(eq=False, repr=False)
class GeoCoordinates(_RequestModel):
    """A player, by place: degrees north (-90 to 90) and degrees east (-180 to 180)."""

    latitude: float = attrs.field(validator=number(least=-90, most=90))
    longitude: float = attrs.field(validator=number(least=-180, most=180))


User: TypeAlias = IpAddress | GeoCoordinates

AnyUser: TypeAlias = (
    User | str | ipaddress.IPv4Address | ipaddress.IPv6Address | tuple[float, float]
)
"""A player as you may write one: `"75.28.35.192"`, `(45.5, -73.6)`, or one of the classes."""


def _as_user(value: object) -> User:
    if isinstance(value, IpAddress | GeoCoordinates):
        return value
    if isinstance(value, str | ipaddress.IPv4Address | ipaddress.IPv6Address):
        return IpAddress(str(value))
    if isinstance(value, tuple | list) and len(value) == 2:  # noqa: PLR2004 - latitude, longitude
        return GeoCoordinates(*value)
    raise InvalidRequest(
        f"users is a list; each is an IP address or a pair (latitude, longitude), not {value!r}"
    )


def _as_users(values: Iterable[AnyUser]) -> tuple[User, ...]:
    return tuple(map(_as_user, _as_tuple("users", values)))


@attrs.frozen(eq=False, repr=False)
class EnvironmentVariable(_RequestModel):
    """A variable in the environment of the game server. Its value appears in no repr."""

    key: str = attrs.field(validator=_text)
    value: str = attrs.field(repr=False)
    is_hidden: bool = attrs.field(default=False, validator=instance_of(bool))
    """Encrypted at rest, so that it cannot be read back through the API."""

    def __attrs_post_init__(self) -> None:
        if "=" in self.key:
            raise InvalidRequest(f"EnvironmentVariable.key must not hold '=': {self.key!r}")
        # The value itself is in no message: it may be a secret.
        if not isinstance(self.value, str) or re.search(_NO_VALUE, self.value):
            kind = type(self.value).__name__
            is_text = isinstance(self.value, str)
            wrong = "one with NUL or half surrogates" if is_text else f"of type {kind}"
            raise InvalidRequest(f"the value of {self.key} is a text, not {wrong}")
        if len(self.value.encode()) > _MAX_VALUE:
            raise InvalidRequest(f"the value of {self.key} has more than {_MAX_VALUE} bytes")


AnyVariables: TypeAlias = Mapping[str, str] | Iterable[EnvironmentVariable]
"""Environment variables as you may write them: a mapping, or a list where some are hidden."""


def _as_variables(values: AnyVariables) -> tuple[EnvironmentVariable, ...]:
    if isinstance(values, Mapping):
        return tuple(itertools.starmap(EnvironmentVariable, values.items()))
    variables: list[EnvironmentVariable] = []
    for variable in _as_tuple("environment_variables", values):
        if not isinstance(variable, EnvironmentVariable):
            raise InvalidRequest(
                "environment_variables is a mapping or a list of EnvironmentVariable"
            )
        variables.append(variable)
    return tuple(variables)


def _url(_self: object, _: attrs.Attribute[Any], value: Any) -> None:
    try:
        # A line break or half a surrogate would be dropped here, and sent nonetheless; asking for
        # a `port` that is none raises.
        parts = urlsplit(value if isinstance(value, str) and value.isprintable() else "")
        usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable:  # the URL is not in the message: the path of a webhook is a secret
        raise InvalidRequest("a webhook needs an http:// or https:// URL with a host")


@attrs.frozen(eq=False, repr=False)
class Webhook(_RequestModel):
    """Where the API posts the deployment's status: an http or https URL."""

    url: str = attrs.field(validator=_url, repr=False)


WebhookKind: TypeAlias = Literal["ready", "error", "terminated"]
"""What a webhook announces. The option of a deploy that takes its URL is `webhook_on_` + kind."""

WEBHOOK_KINDS: Final[Mapping[Status, WebhookKind]] = MappingProxyType(
    {Status.READY: "ready", Status.ERROR: "error", Status.TERMINATED: "terminated"}
)
"""The kind of webhook that the API sends when a deployment reaches a status."""


def webhook_option(kind: WebhookKind) -> str:
    """The name of the deploy option, and of the JSON field, for the URL of a webhook."""
    return f"webhook_on_{kind}"


def _as_webhook(value: Webhook | str | None) -> Webhook | None:
    return value if value is None or isinstance(value, Webhook) else Webhook(value)


@attrs.frozen(eq=False, repr=False)
class Resources(_RequestModel):
    """CPU and memory for one deployment, in place of the version's own (since 2026-06)."""

    cpu_units: int = attrs.field(validator=number(least=100, whole=True))
    """1024 is one virtual CPU."""
    memory_mib: int = attrs.field(validator=number(least=100, whole=True))


@attrs.frozen(kw_only=True, eq=False, repr=False)
class DeployRequest(_RequestModel):
    """The body of a deploy: which version of which application, for whom."""

    application: str = attrs.field(validator=_text)
    version: str = attrs.field(validator=_text)
    users: tuple[User, ...] = attrs.field(converter=_as_users, validator=not_empty)
    require_cached_locations: bool | None = attrs.field(
        default=None, validator=instance_of(bool, type(None))
    )
    """Only where the image is cached already: faster, with fewer places to choose from."""
    environment_variables: tuple[EnvironmentVariable, ...] = attrs.field(
        default=(), converter=_as_variables
    )
    tags: tuple[str, ...] = attrs.field(default=(), converter=_as_strings, validator=_strings)
    webhook_on_ready: Webhook | None = attrs.field(default=None, converter=_as_webhook)
    webhook_on_error: Webhook | None = attrs.field(default=None, converter=_as_webhook)
    webhook_on_terminated: Webhook | None = attrs.field(default=None, converter=_as_webhook)
    resources: Resources | None = attrs.field(
        default=None, validator=instance_of(Resources, type(None))
    )

    def webhook_for(self, status: Status) -> Webhook | None:
        """The webhook to send when the deployment reaches the status, or None."""
        kind = WEBHOOK_KINDS.get(status)
        webhook: Webhook | None = getattr(self, webhook_option(kind)) if kind else None
        return webhook


@attrs.frozen(kw_only=True, eq=False, repr=False)
class FleetDeployRequest(DeployRequest):
    """The body of a deploy to private hosts, tried in this order before the public cloud."""

    private_host_ids: tuple[str, ...] = attrs.field(
        converter=_as_strings, validator=[not_empty, _strings]
    )


def deploy_request(given: Mapping[str, Any]) -> DeployRequest:
    """The body of a deploy with these fields: to private hosts, where it names some."""
    if given.get("private_host_ids"):
        return FleetDeployRequest(**given)
    return DeployRequest(**{name: given[name] for name in given if name != "private_host_ids"})


class DeployOptions(TypedDict, total=False):
    """What a deploy may say beyond application, version and users; see `deployments.deploy`."""

    environment_variables: AnyVariables
    tags: Iterable[str]
    require_cached_locations: bool | None
    webhook_on_ready: Webhook | str | None
    webhook_on_error: Webhook | str | None
    webhook_on_terminated: Webhook | str | None
    resources: Resources | None
    private_host_ids: Iterable[str]
    """Hosts of a private fleet to try, in this order, before the public cloud."""
    operation_tag: bool
    """False for a deployment without the tag that names the wish. Then an answer that is lost is
    `NoAnswer`, and what it made runs until its `max_duration`, known to nobody."""


def check_options(options: DeployOptions) -> None:
    """Returns if a deploy has all of these options.

    Raises:
        TypeError: it has not, as for any argument that there is not.
    """
    if unknown := options.keys() - DeployOptions.__annotations__.keys():
        raise TypeError(f"a deploy has no option {', '.join(sorted(unknown))}")


FilterField: TypeAlias = Literal[
    "status",
    "request_id",
    "tags",
    "created_at",
    "application",
    "version",
    "fleet_name",
    "host_name",
]
FilterOperator: TypeAlias = Literal["eq", "neq", "gte", "lte", "in", "nin", "ilike"]

_OPERATORS: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "status": frozenset({"eq", "neq"}),
        "request_id": frozenset({"eq", "neq", "in", "nin"}),
        "tags": frozenset({"eq", "neq", "in", "nin"}),
        "created_at": frozenset({"eq", "gte", "lte"}),
        "application": frozenset({"eq", "neq", "in", "nin"}),
        "version": frozenset({"eq", "neq", "in", "nin"}),
        "fleet_name": frozenset({"eq", "neq", "in", "nin", "ilike"}),
        "host_name": frozenset({"eq", "neq", "in", "nin", "ilike"}),
    }
)


def _as_value(value: str | Iterable[str] | datetime) -> str | tuple[str, ...] | datetime:
    return value if isinstance(value, str | datetime) else _as_strings(value)


@attrs.frozen(eq=False, repr=False)
class Filter(_RequestModel):
    """A condition on the deployments that a list holds: `Filter("tags", "in", ["eu", "ranked"])`.

    `in` and `nin` take a list, `ilike` a text with `%` for anything, `created_at` a datetime, and
    `status` a word such as `ready` (or `Status.READY`). A datetime without a time zone is in UTC.
    A list takes at most one filter a field.
    """

    field: FilterField
    operator: FilterOperator
    value: str | tuple[str, ...] | datetime = attrs.field(converter=_as_value)

    def __attrs_post_init__(self) -> None:
        operators = _OPERATORS.get(str(self.field))
        if operators is None:
            raise InvalidRequest(f"no filter on {self.field!r}; there is {', '.join(_OPERATORS)}")
        if str(self.operator) not in operators:
            allowed = ", ".join(sorted(operators))
            raise InvalidRequest(f"{self.field} is filtered by {allowed}, not by {self.operator!r}")
        if isinstance(self.value, datetime) is not (self.field == "created_at"):
            raise InvalidRequest("created_at is compared with a datetime, and nothing else is")
        if isinstance(self.value, tuple) is not (self.operator in {"in", "nin"}):
            raise InvalidRequest(f"{self.operator!r} takes a list for in and nin, else one value")
        if not self.value:
            raise InvalidRequest(f"the filter on {self.field} has no value")
        for value in self.value if isinstance(self.value, tuple) else (self.value,):
            if not isinstance(value, datetime):
                check_text(f"what {self.field} is compared with", value)


@attrs.frozen(eq=False, repr=False)
class OrderBy(_RequestModel):
    """The order of a list of deployments."""

    field: Literal["created_at", "available_session_sockets"] = attrs.field(
        default="created_at", validator=one_of("created_at", "available_session_sockets")
    )
    order: Literal["asc", "desc"] = attrs.field(default="asc", validator=one_of("asc", "desc"))


@attrs.frozen(eq=False, repr=False)
class StopFilter(_RequestModel):
    """Which deployments a bulk stop ends.

    `any`: those with one of the values; `all`: with every one of them; `not`: with none.
    """

    field: Literal["request_id", "deployment_tags"] = attrs.field(
        validator=one_of("request_id", "deployment_tags")
    )
    values: tuple[str, ...] = attrs.field(converter=_as_strings, validator=[not_empty, _strings])
    filter_type: Literal["any", "all", "not"] = attrs.field(
        default="any", validator=one_of("any", "all", "not")
    )


def _as_stop_filters(values: Iterable[StopFilter]) -> tuple[StopFilter, ...]:
    filters = _as_tuple("filters", values)
    if not all(isinstance(item, StopFilter) for item in filters):
        raise InvalidRequest("filters is a list of StopFilter")
    return filters


@attrs.frozen(eq=False, repr=False)
class StopFilters(_RequestModel):
    """The body of a bulk stop. Several filters hold together."""

    filters: tuple[StopFilter, ...] = attrs.field(converter=_as_stop_filters)


@attrs.frozen(eq=False, repr=False)
class TagName(_RequestModel):
    """The body that makes or renames a tag: 1 to 40 characters."""

    name: str = attrs.field(validator=_tag)
