"""Bodies of the calls beyond the published page, as values that check themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, TypeAlias

import attrs

from edgegap_async.errors import InvalidRequest

from .requests import (
    STRICT,
    AnyVariables,
    EnvironmentVariable,
    IpAddress,
    RequestModel,
    as_strings,
    as_variables,
    check_text_field,
)
from .validation import (
    Validator,
    check_list,
    check_segment,
    check_text,
    field_name,
    instance_of,
    not_empty,
    number,
    one_of,
)

_MAX_APPLICATION: Final = 64  # characters of a name
_MIN_APPLICATION: Final = 3
_MAX_REASON: Final = 255  # characters
_MAX_ADDRESSES: Final = 20  # of one request
_MAX_PORT: Final = 59999
_RESTART_POLICIES: Final = ("always", "never", "on_failure")

RestartPolicy: TypeAlias = Literal["always", "never", "on_failure"]
"""Whether a server starts again after an exit by itself."""


def _named(least: int, most: int) -> Validator:
    def check(model: object, attribute: attrs.Attribute[Any], value: Any) -> None:
        what = field_name(model, attribute)
        check_segment(what, value, most)
        if len(value) < least:
            raise InvalidRequest(f"{what} has {len(value)} characters; {least} is the least")

    return check


def _image_name(model: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    check_text_field(model, attribute, value)
    if value != value.lower():
        raise InvalidRequest(f"{field_name(model, attribute)} must be in lower case: {value!r}")


def _optional(check: Validator) -> Validator:
    def check_unless_none(model: object, attribute: attrs.Attribute[Any], value: Any) -> None:
        if value is not None:
            check(model, attribute, value)

    return check_unless_none


_application_name: Final = _named(_MIN_APPLICATION, _MAX_APPLICATION)
_version_name: Final = _named(1, _MAX_APPLICATION)
_units: Final = number(least=100, whole=True)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ApplicationRequest(RequestModel):
    """The body of a call that creates an application."""

    name: str = attrs.field(validator=_application_name)
    """Its name, 3 to 64 characters."""
    is_active: bool = attrs.field(validator=instance_of(bool))
    """Whether its versions can be deployed."""
    image: str = attrs.field(validator=instance_of(str), repr=False)
    """A picture of it, in base64."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ApplicationChanges(RequestModel):
    """The body of a call that changes an application; what is None stays as it is."""

    name: str | None = attrs.field(default=None, validator=_optional(_application_name))
    """Its new name, 3 to 64 characters."""
    is_active: bool | None = attrs.field(default=None, validator=instance_of(bool, type(None)))
    """Whether its versions can be deployed."""
    image: str | None = attrs.field(
        default=None, validator=instance_of(str, type(None)), repr=False
    )
    """A picture of it, in base64."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class VersionPortRequest(RequestModel):
    """A port that a version opens."""

    port: int = attrs.field(validator=number(least=0, most=_MAX_PORT, whole=True))
    """The number that the server binds, 0 to 59999; 0 if it binds the external number."""
    protocol: str = attrs.field(validator=check_text_field)
    """UDP, TCP, TCP/UDP, HTTP, HTTPS, WS or WSS."""
    to_check: bool = attrs.field(default=True, validator=instance_of(bool))
    """Whether READY waits until the server has bound it."""
    tls_upgrade: bool = attrs.field(default=False, validator=instance_of(bool))
    """Whether the API adds TLS before the port (HTTP and WebSocket only)."""
    name: str | None = attrs.field(default=None, validator=_optional(check_text_field))
    """Its name; None for a port without one."""

    def __attrs_post_init__(self) -> None:
        if self.port == 0 and self.name is None:
            raise InvalidRequest("VersionPortRequest.name is required for the port 0")


def _as_ports(
    values: Iterable[VersionPortRequest] | None,
) -> tuple[VersionPortRequest, ...] | None:
    if values is None:
        return None
    check_list("ports", values)
    return tuple(values)


def _as_envs(values: AnyVariables | None) -> tuple[EnvironmentVariable, ...] | None:
    return None if values is None else as_variables(values)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class VersionChanges(RequestModel):
    """The body of a call that changes a version; what is None stays as it is."""

    name: str | None = attrs.field(default=None, validator=_optional(_version_name))
    """Its new name, 1 to 64 characters."""
    is_active: bool | None = attrs.field(default=None, validator=instance_of(bool, type(None)))
    """Whether it can be deployed."""
    docker_repository: str | None = attrs.field(default=None, validator=_optional(check_text_field))
    """The host name of the image's registry."""
    docker_image: str | None = attrs.field(default=None, validator=_optional(_image_name))
    """The name of the image, in lower case."""
    docker_tag: str | None = attrs.field(default=None, validator=_optional(check_text_field))
    """The tag of the image."""
    private_username: str | None = attrs.field(default=None, validator=_optional(check_text_field))
    """The name for a private registry; None for a public one."""
    private_token: str | None = attrs.field(
        default=None, validator=instance_of(str, type(None)), repr=False
    )
    """The password for a private registry. No repr and no error shows it."""
    req_video: int | None = attrs.field(
        default=None, validator=number(least=0, whole=True, optional=True)
    )
    """GPU units."""
    verify_image: bool | None = attrs.field(default=None, validator=instance_of(bool, type(None)))
    """Whether the API checks that the image exists."""
    force_cache: bool | None = attrs.field(default=None, validator=instance_of(bool, type(None)))
    """Whether the API keeps the image in the cache of its locations."""
    time_to_deploy: int | None = attrs.field(
        default=None, validator=number(least=10, whole=True, optional=True)
    )
    """Seconds in which a location must pull the image, 10 or more; then ERROR."""
    max_duration: int | None = attrs.field(
        default=None, validator=number(least=-1, most=1440, whole=True, optional=True)
    )
    """Minutes after which the API stops a deployment, -1 to 1440; -1 for never."""
    restart_policy: RestartPolicy | None = attrs.field(
        default=None, validator=_optional(one_of(*_RESTART_POLICIES))
    )
    """`always`, `never` or `on_failure`: whether a server starts again after an exit by itself."""
    termination_grace_period_seconds: int | None = attrs.field(
        default=None, validator=number(least=5, most=3600, whole=True, optional=True)
    )
    """Seconds from SIGTERM to SIGKILL, 5 to 3600."""
    will_deploy_in_mainland_china: bool | None = attrs.field(
        default=None, validator=instance_of(bool, type(None))
    )
    """Whether it is deployed in mainland China too."""
    dns_config: str | None = attrs.field(default=None, validator=_optional(check_text_field))
    """The name of a DNS configuration."""
    ports: tuple[VersionPortRequest, ...] | None = attrs.field(default=None, converter=_as_ports)
    """The ports that it opens."""
    envs: tuple[EnvironmentVariable, ...] | None = attrs.field(
        default=None, converter=_as_envs, metadata={STRICT: "variables"}
    )
    """Its environment variables."""
    endpoint_storage: str | None = attrs.field(default=None, validator=_optional(check_text_field))
    """The name of the storage that keeps its logs."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class VersionRequest(VersionChanges):
    """The body of a call that creates a version; what is None has the API's default."""

    name: str = attrs.field(validator=_version_name)
    """Its name, 1 to 64 characters."""
    docker_repository: str = attrs.field(validator=check_text_field)
    """The host name of the image's registry."""
    docker_image: str = attrs.field(validator=_image_name)
    """The name of the image, in lower case."""
    docker_tag: str = attrs.field(validator=check_text_field)
    """The tag of the image."""
    req_cpu: int = attrs.field(validator=_units)
    """CPU units, 100 or more; 1024 are one virtual CPU."""
    req_memory: int = attrs.field(validator=_units)
    """Memory in MB, 100 or more."""


def _reason(self: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    check_text(field_name(self, attribute), value, _MAX_REASON)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class DeploymentReport(RequestModel):
    """The body of a report that something is wrong with a deployment."""

    reason: str = attrs.field(validator=_reason)
    """What is wrong, 1 to 255 characters."""
    metadata: Mapping[str, object] | None = attrs.field(
        default=None,
        validator=instance_of(Mapping, type(None)),
        metadata={STRICT: "object"},
    )
    """More about it, as a JSON object; None for nothing."""


@attrs.frozen(eq=False, repr=False)
class Addresses(RequestModel):
    """The body of a call that asks where IP addresses are."""

    addresses: tuple[str, ...] = attrs.field(converter=as_strings, validator=not_empty)
    """The IP addresses, 1 to 20."""

    def __attrs_post_init__(self) -> None:
        if len(self.addresses) > _MAX_ADDRESSES:
            raise InvalidRequest(f"{_MAX_ADDRESSES} addresses at most, not {len(self.addresses)}")
        for address in self.addresses:
            IpAddress(address)
