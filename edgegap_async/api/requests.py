"""Bodies and arguments that callers send to the API, as values that check themselves.

An invalid value raises `InvalidRequest` where it is created, before a request is sent. No message
repeats the value of an environment variable or the path of a webhook, because both may be secrets.
"""

from __future__ import annotations

import inspect
import ipaddress
import itertools
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, AnyStr, Final, Literal, NoReturn, TypeAlias, TypedDict

import attrs

from edgegap_async.errors import InvalidRequest

from .models import Status
from .validation import (
    QUOTES,
    check_list,
    check_text,
    http_url,
    instance_of,
    items_of,
    not_empty,
    number,
    one_of,
    read_each,
    text,
    texts,
    unknown_name,
)
from .values import Value

_WORDS_BEFORE_TOKENS: Final = r"(authorization|bearer|basic|token|api-?key)(:.*| .*)"


def _without_scheme(value: str, scheme: str) -> str:
    word, _, rest = value.strip().partition(" ")
    return rest.strip() if rest and word.lower() == scheme.lower() else value.strip()


def _slip_in_token(value: object, scheme: str) -> str:
    """Returns why a value is no token; empty if it may be one. The text shows nothing of it."""
    if not isinstance(value, str):
        return f"it is of type {type(value).__name__}"
    secret = _without_scheme(value, scheme)
    slips = {
        "it is empty": not secret,
        "take off the quotes around it": secret[:1] in QUOTES or secret[-1:] in QUOTES,
        "take off the name of the variable before it": re.match(r"(export )?EDGEGAP_\w+=", secret),
        f"take off the word before it{f': the client adds {scheme!r}' if scheme else ''}": (
            re.fullmatch(_WORDS_BEFORE_TOKENS, secret, re.IGNORECASE | re.DOTALL)
        ),
        "it has a line break in it": re.search(r"[\r\n]", secret),
        "it has a space in it": " " in secret,
        "it has an invisible character in it": not secret.isprintable(),
        "it has a character beyond ASCII": not secret.isascii(),
    }
    return next((slip for slip, has_slip in slips.items() if has_slip), "")


def _header_in_closure(value: str, scheme: str) -> Callable[[], str]:
    header = f"{scheme} {_without_scheme(value, scheme)}".strip()
    return lambda: header


_MIN_SECRET: Final = 8  # characters; a shorter text would be found in ordinary words


class Token:
    """A secret that prints as `***` everywhere.

    A closure holds the secret, because a dump of objects would show an attribute.

    Args:
        value: the secret, with or without the word of the scheme before it.
        scheme: the word before the secret in the Authorization header; empty for no word.

    Raises:
        InvalidRequest: the secret is empty, or has characters that an HTTP header cannot have:
            spaces, line breaks, letters beyond ASCII.
    """

    __slots__ = ("_reveal",)

    def __init__(self, value: str, *, scheme: str = "") -> None:
        slip = _slip_in_token(value, scheme)
        if not slip:
            self._reveal = _header_in_closure(value, scheme)
        del value  # a traceback that shows local variables must not show it
        if slip:
            raise InvalidRequest(
                f"a token must be a text of printable ASCII without spaces: {slip}"
            )

    @property
    def header(self) -> dict[str, str]:
        """The Authorization header. Do not keep it in a variable, which a traceback may show."""
        return {"Authorization": self._reveal()}

    def hidden_in(self, said: AnyStr) -> AnyStr:
        """Returns what was answered without the secret, which a server or proxy may repeat."""
        # The secret is in no variable, which a traceback may show.
        if len(self._reveal().rpartition(" ")[2]) < _MIN_SECRET:
            return said
        if isinstance(said, bytes):
            return said.replace(self._reveal().rpartition(" ")[2].encode(), b"***")
        return said.replace(self._reveal().rpartition(" ")[2], "***")

    def __repr__(self) -> str:
        return "***"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a token must not be stored or sent: make a client where you need one")


MAX_TAG: Final = 40
"""Characters of a tag at most, by the API's description since 2026-04 (20 in 2024)."""
_MAX_VALUE: Final = 4096  # bytes; "up to 4 KB" in the same description
_NOT_IN_VALUE: Final = "[\0\ud800-\udfff]"  # NUL, and half surrogates, which UTF-8 cannot encode


def as_strings(values: Iterable[str]) -> tuple[str, ...]:
    """A converter: a list of texts as a tuple."""
    # The validator refuses what is not a list, because it knows the name of the field.
    is_list = isinstance(values, Iterable) and not isinstance(values, str | bytes | Mapping)
    return tuple(values) if is_list else values  # type: ignore[return-value] # refused later


STRICT: Final = "strict"
"""Key in the metadata of a field which the strict reader reads in a way of its own: `object` for
any JSON object, `objects` for a list of them, `variables` for environment variables that may lack
`is_hidden`."""


class RequestModel(Value):
    """What a caller sends. A field that is None or empty by default is left out while it is."""

    __slots__ = ()

    def given(self) -> dict[str, Any]:
        """Returns the fields that are not None."""
        values = {field.name: getattr(self, field.name) for field in self._fields()}
        return {name: value for name, value in values.items() if value is not None}


_ADDRESS_SLIPS: Final = (
    (r".*,.*", "a user has one address: make a user of each"),
    (r"\[.*", "take off the brackets, and the port if there is one"),
    (r"[0-9.]+:\d+", "take off the port"),
    (r"[^/]+/\d+", "an address is needed, not a network"),
    (r"(.*\.)?0\d+(\..*)?", "take off leading zeros: some programs read them as octal"),
)


def _as_address(value: object) -> str:
    """Returns an address as the API can locate it: an IPv4 address in an IPv6 one as IPv4."""
    text = str(value).strip()
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        advice = (f" ({said})" for slip, said in _ADDRESS_SLIPS if re.fullmatch(slip, text))
        raise InvalidRequest(f"not an IPv4 or IPv6 address: {value!r}{next(advice, '')}") from None
    if "%" in text:
        raise InvalidRequest(f"an address with a zone is valid on one machine only: {value!r}")
    return str(getattr(address, "ipv4_mapped", None) or address)


@attrs.frozen(eq=False, repr=False)
class IpAddress(RequestModel):
    """A player, by IP address: the API chooses a location near it."""

    ip_address: str = attrs.field(converter=_as_address)
    """An IPv4 or IPv6 address without zone. The API cannot locate private addresses. A server that
    listens on IPv6 sees the IPv4 address 192.0.2.7 as `::ffff:192.0.2.7`; it is sent as IPv4."""


@attrs.frozen(eq=False, repr=False)
class GeoCoordinates(RequestModel):
    """A player, by place: the API chooses a location near it."""

    latitude: float = attrs.field(validator=number(least=-90, most=90))
    """Degrees north, -90 to 90."""
    longitude: float = attrs.field(validator=number(least=-180, most=180))
    """Degrees east, -180 to 180."""


User: TypeAlias = IpAddress | GeoCoordinates
"""A player, by IP address or by place."""

AnyUser: TypeAlias = (
    User | str | ipaddress.IPv4Address | ipaddress.IPv6Address | tuple[float, float]
)
"""A player as arguments accept it: `"75.28.35.192"`, `(45.5, -73.6)`, or a `User`."""


def _as_user(value: object) -> User:
    if isinstance(value, IpAddress | GeoCoordinates):
        return value
    if isinstance(value, str | ipaddress.IPv4Address | ipaddress.IPv6Address):
        return IpAddress(str(value))
    if isinstance(value, tuple | list) and len(value) == 2:  # noqa: PLR2004 - latitude, longitude
        return GeoCoordinates(*value)
    raise InvalidRequest(f"not an IP address or a pair (latitude, longitude): {value!r}")


def _as_users(values: Iterable[AnyUser]) -> tuple[User, ...]:
    check_list("users", values, of_texts=True)
    return read_each("users", values, _as_user)


@attrs.frozen(eq=False, repr=False)
class EnvironmentVariable(RequestModel):
    """A variable in the environment of the game server. No repr and no error shows its value."""

    key: str = attrs.field(validator=text())
    """The name of the variable, without `=`."""
    value: str = attrs.field(repr=False)
    """The value, up to 4096 bytes in UTF-8."""
    is_hidden: bool = attrs.field(default=False, validator=instance_of(bool))
    """Whether the API encrypts the value and never shows it again."""

    def __attrs_post_init__(self) -> None:
        if "=" in self.key:
            raise InvalidRequest(f"EnvironmentVariable.key must not hold '=': {self.key!r}")
        # No message shows the value, because it may be a secret.
        if not isinstance(self.value, str):
            raise InvalidRequest(
                f"the value of {self.key!r} must be a text, not {type(self.value).__name__}"
            )
        if re.search(_NOT_IN_VALUE, self.value):
            raise InvalidRequest(f"the value of {self.key!r} must not hold NUL or half surrogates")
        if len(self.value.encode()) > _MAX_VALUE:
            raise InvalidRequest(f"the value of {self.key!r} has more than {_MAX_VALUE} bytes")


AnyVariables: TypeAlias = Mapping[str, str] | Iterable[EnvironmentVariable]
"""Environment variables as arguments accept them: a mapping, or `EnvironmentVariable`s."""


def as_variables(values: AnyVariables) -> tuple[EnvironmentVariable, ...]:
    """A converter: a mapping or a list of variables as a tuple."""
    if isinstance(values, Mapping):
        return tuple(itertools.starmap(EnvironmentVariable, values.items()))
    check_list("environment_variables", values)
    variables = tuple(values)
    if not all(isinstance(variable, EnvironmentVariable) for variable in variables):
        raise InvalidRequest(
            "environment_variables must be a mapping or a list of EnvironmentVariable"
        )
    return variables


def _url(_self: object, _: attrs.Attribute[Any], value: Any) -> None:
    if http_url(value) is None:  # the message does not show the URL, because its path is a secret
        raise InvalidRequest("a webhook needs an http:// or https:// URL with a host")


@attrs.frozen(eq=False, repr=False)
class Webhook(RequestModel):
    """A URL to which the API posts the status of a deployment."""

    url: str = attrs.field(validator=_url, repr=False)
    """An http or https URL. No repr and no error shows it: its path may be a secret."""


WebhookKind: TypeAlias = Literal["ready", "error", "terminated"]
"""The event that a webhook announces."""

WEBHOOK_KINDS: Final[Mapping[Status, WebhookKind]] = MappingProxyType(
    {Status.READY: "ready", Status.ERROR: "error", Status.TERMINATED: "terminated"}
)
"""The kind of webhook that the API sends when a deployment reaches a status.

A new kind needs a row here, a field in `DeployRequest` and `DeployOptions`, and an argument in
`http.resources`."""


def webhook_option(kind: WebhookKind) -> str:
    """Returns the name of the deploy option and JSON field that takes a webhook's URL."""
    return f"webhook_on_{kind}"


def _as_webhook(value: Webhook | str | None) -> Webhook | None:
    return value if value is None or isinstance(value, Webhook) else Webhook(value)


@attrs.frozen(eq=False, repr=False)
class Resources(RequestModel):
    """CPU and memory of one deployment, in place of the version's. The API has it since 2026-06."""

    cpu_units: int = attrs.field(validator=number(least=100, whole=True))
    """CPU units, 100 or more; 1024 are one virtual CPU."""
    memory_mib: int = attrs.field(validator=number(least=100, whole=True))
    """Memory in MiB, 100 or more."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class DeployRequest(RequestModel):
    """The body of a deploy."""

    application: str = attrs.field(validator=text())
    """The name of the application."""
    version: str = attrs.field(validator=text())
    """The name of the application's version."""
    users: tuple[User, ...] = attrs.field(converter=_as_users, validator=not_empty)
    """The players, at least one. The API chooses a location near all of them."""
    require_cached_locations: bool | None = attrs.field(
        default=None, validator=instance_of(bool, type(None))
    )
    """Whether the API may use only locations that have the image in their cache. That is faster,
    and leaves fewer locations. None for the API's default, False."""
    environment_variables: tuple[EnvironmentVariable, ...] = attrs.field(
        default=(), converter=as_variables
    )
    """Variables of the game server; they take precedence over those of the version."""
    tags: tuple[str, ...] = attrs.field(default=(), converter=as_strings, validator=texts(MAX_TAG))
    """Tags of the deployment, each of 1 to 40 characters, none twice."""
    webhook_on_ready: Webhook | None = attrs.field(default=None, converter=_as_webhook)
    """The URL that the API calls once when the deployment is READY; None for no call."""
    webhook_on_error: Webhook | None = attrs.field(default=None, converter=_as_webhook)
    """The URL that the API calls once when the deployment is in ERROR; None for no call."""
    webhook_on_terminated: Webhook | None = attrs.field(default=None, converter=_as_webhook)
    """The URL that the API calls once when the deployment is TERMINATED; None for no call."""
    resources: Resources | None = attrs.field(
        default=None, validator=instance_of(Resources, type(None))
    )
    """CPU and memory of the deployment; None for those of the version."""

    def webhook_for(self, status: Status) -> Webhook | None:
        """Returns the webhook to call when the deployment reaches the status, or None."""
        kind = WEBHOOK_KINDS.get(status)
        webhook: Webhook | None = getattr(self, webhook_option(kind)) if kind else None
        return webhook


@attrs.frozen(kw_only=True, eq=False, repr=False)
class FleetDeployRequest(DeployRequest):
    """The body of a deploy to the hosts of a private fleet."""

    private_host_ids: tuple[str, ...] = attrs.field(
        converter=as_strings, validator=[not_empty, texts()]
    )
    """The ids of hosts. The API tries them in this order, then the public cloud."""


def deploy_request(given: Mapping[str, Any]) -> DeployRequest:
    """Returns the body of a deploy; a `FleetDeployRequest` if `private_host_ids` names a host."""
    if given.get("private_host_ids"):
        return FleetDeployRequest(**given)
    return DeployRequest(**{name: given[name] for name in given if name != "private_host_ids"})


class DeployOptions(TypedDict, total=False):
    """The options of a deploy beyond application, version and users."""

    environment_variables: AnyVariables
    """Variables of the game server; they take precedence over those of the version."""
    tags: Iterable[str]
    """Tags of the deployment, each of 1 to 40 characters, none twice."""
    require_cached_locations: bool | None
    """True if the API may use only locations that have the image in their cache."""
    webhook_on_ready: Webhook | str | None
    """The URL that the API calls once when the deployment is READY."""
    webhook_on_error: Webhook | str | None
    """The URL that the API calls once when the deployment is in ERROR."""
    webhook_on_terminated: Webhook | str | None
    """The URL that the API calls once when the deployment is TERMINATED."""
    resources: Resources | None
    """CPU and memory of the deployment; None for those of the version."""
    private_host_ids: Iterable[str]
    """The ids of a private fleet's hosts. The API tries them in order, then the public cloud."""
    operation_tag: bool
    """False to deploy without an operation tag. After a lost answer the client then raises
    `NoAnswer`, and a deployment that was created runs until its `max_duration`."""
    idempotency_key: str | None
    """A text of 1 to 255 characters, such as the id of a job. While a deployment of the same
    application and key lives, `deploy` and `run` give this deployment and make none."""


def check_options(options: DeployOptions, call: Callable[..., object]) -> None:
    """Checks that a deploy has all of these options.

    Args:
        options: the options.
        call: the function or class that was called with them, and has arguments of its own.

    Raises:
        TypeError: an option is unknown, as for an unknown argument of a function.
    """
    known = DeployOptions.__annotations__.keys()
    if unknown := options.keys() - known:
        name = min(unknown)
        # The last parameter is that of the options.
        arguments = [*list(inspect.signature(call).parameters)[:-1], *known]
        text = unknown_name(name, sorted(arguments))
        raise TypeError(f"{call.__qualname__} has no argument {name}; {text}")


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
"""A field that lists of deployments can be filtered by."""
FilterOperator: TypeAlias = Literal["eq", "neq", "gte", "lte", "in", "nin", "ilike"]
"""A comparison of a filter: equal, not equal, from, to, one of, none of, SQL pattern."""

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
    return value if isinstance(value, str | datetime) else as_strings(value)


@attrs.frozen(eq=False, repr=False)
class Filter(RequestModel):
    """A condition for a list of deployments: `Filter("tags", "in", ["eu", "ranked"])`.

    A list of deployments accepts at most one filter for each field.
    """

    field: FilterField
    """The field of the deployments to compare."""
    operator: FilterOperator
    """The comparison. `status` has `eq` and `neq`, `created_at` has `eq`, `gte` and `lte`; the
    other fields have `eq`, `neq`, `in` and `nin`, and the two names also `ilike`."""
    value: str | tuple[str, ...] | datetime = attrs.field(converter=_as_value)
    """The value to compare with: several texts for `in` and `nin`, a text with `%` as wildcard for
    `ilike`, a datetime for `created_at` (UTC if it has no time zone), a status such as `ready` or
    `Status.READY` for `status`."""

    def __attrs_post_init__(self) -> None:
        operators = _OPERATORS.get(str(self.field))
        if operators is None:
            raise InvalidRequest(f"no filter on {self.field!r}; there is {', '.join(_OPERATORS)}")
        if str(self.operator) not in operators:
            allowed = ", ".join(sorted(operators))
            raise InvalidRequest(f"{self.field} is filtered by {allowed}, not by {self.operator!r}")
        if isinstance(self.value, datetime) is not (self.field == "created_at"):
            raise InvalidRequest("created_at takes a datetime, and no other field does")
        if isinstance(self.value, tuple) is not (self.operator in {"in", "nin"}):
            raise InvalidRequest(f"{self.operator!r} takes a list for in and nin, else one value")
        if not self.value:
            raise InvalidRequest(f"the filter on {self.field} has no value")
        if not isinstance(self.value, datetime):
            for value in self.value if isinstance(self.value, tuple) else (self.value,):
                check_text(f"what {self.field} is compared with", value)


@attrs.frozen(eq=False, repr=False)
class OrderBy(RequestModel):
    """The order of a list of deployments."""

    field: Literal["created_at", "available_session_sockets"] = attrs.field(
        default="created_at", validator=one_of("created_at", "available_session_sockets")
    )
    """The field to sort by: the time of the deploy, or free places of the older matchmaking."""
    order: Literal["asc", "desc"] = attrs.field(default="asc", validator=one_of("asc", "desc"))
    """The direction: ascending or descending."""


@attrs.frozen(eq=False, repr=False)
class StopFilter(RequestModel):
    """A condition for the deployments that a bulk stop stops."""

    field: Literal["request_id", "deployment_tags"] = attrs.field(
        validator=one_of("request_id", "deployment_tags")
    )
    """The field to compare: the id, or the tags."""
    values: tuple[str, ...] = attrs.field(converter=as_strings, validator=[not_empty, texts()])
    """The values to compare with, at least one."""
    filter_type: Literal["any", "all", "not"] = attrs.field(
        default="any", validator=one_of("any", "all", "not")
    )
    """The comparison: a deployment matches with at least one of the values (`any`), with every
    value (`all`), or with none of them (`not`, which needs `everything=True`)."""


def _as_stop_filters(values: Iterable[StopFilter]) -> tuple[StopFilter, ...]:
    return items_of("filters", values, StopFilter)


@attrs.frozen(eq=False, repr=False)
class StopFilters(RequestModel):
    """The body of a bulk stop."""

    filters: tuple[StopFilter, ...] = attrs.field(converter=_as_stop_filters)
    """The conditions, which a deployment must match together. None stops **every** deployment."""


@attrs.frozen(eq=False, repr=False)
class TagName(RequestModel):
    """The body of a call that creates or renames a tag."""

    name: str = attrs.field(validator=text(MAX_TAG))
    """The text of the tag, 1 to 40 characters."""
