"""The calls about applications and their versions: models, bodies and operations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final, Literal, TypeAlias, TypedDict, get_args

import attrs
from attrs.validators import optional

from edgegap_async.api.models.response import ApiResponse, Model, Pagination
from edgegap_async.api.operations import PAGES, Operation
from edgegap_async.api.requests import (
    STRICT,
    AnyVariables,
    EnvironmentVariable,
    RequestModel,
    as_variables,
)
from edgegap_async.api.validation import (
    check_list,
    check_text,
    field_name,
    instance_of,
    number,
    one_of,
    segment,
    text,
)
from edgegap_async.errors import InvalidRequest

SET_AND_ENCRYPTED: Final = "This value is set and encrypted"
"""What the API answers in place of a secret."""
BLANK_PICTURE: Final = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGBgAAAABQABpfZFQAAAAABJRU5E"
    "rkJggg=="
)
"""A PNG of one transparent pixel in base64, as the picture of an application."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Application(ApiResponse):
    """An application: a name for versions that can be deployed."""

    name: str
    """Its name, 3 to 64 characters."""
    is_active: bool = False
    """Whether its versions can be deployed."""
    image: str | None = attrs.field(default=None, repr=False)
    """A picture of it, in base64."""
    create_time: datetime | None = None
    """When it was created."""
    last_updated: datetime | None = None
    """When it was last changed."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ApplicationPage(ApiResponse):
    """One page of the applications of the organization."""

    applications: tuple[Application, ...] = ()
    """The applications of this page."""
    total_count: int | None = None
    """How many applications all pages have together."""
    pagination: Pagination | None = None
    """The position of this page."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class VersionPort(Model):
    """A port that a version opens."""

    omits_none = True

    port: int | None = None
    """The number that the server binds in its container; 0 if it binds the external number."""
    protocol: str | None = None
    """The protocol in the API's spelling, which is `Websocket` where `WS` was written."""
    to_check: bool = True
    """Whether READY waits until the server has bound it."""
    tls_upgrade: bool = False
    """Whether the API adds TLS before the port (HTTP and WebSocket only)."""
    name: str | None = None
    """Its name; None for a port without one."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class VersionVariable(Model):
    """A variable in the environment of a version's servers."""

    key: str | None = None
    """The name of the variable."""
    value: str | None = attrs.field(default=None, repr=False)
    """The value; a fixed text in place of a hidden one."""
    is_hidden: bool = False
    """Whether the API encrypts the value and never shows it again."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ApplicationVersion(ApiResponse):
    """A version of an application: a container image, and how it runs."""

    omits_none = True

    name: str
    """Its name, 1 to 64 characters."""
    is_active: bool = False
    """Whether it can be deployed."""
    docker_repository: str | None = None
    """The host name of the image's registry."""
    docker_image: str | None = None
    """The name of the image."""
    docker_tag: str | None = None
    """The tag of the image."""
    private_username: str | None = None
    """A fixed text if a name for a private registry is set; None if none is."""
    private_token: str | None = attrs.field(default=None, repr=False)
    """A fixed text if a password for a private registry is set; None if none is."""
    req_cpu: int | None = None
    """CPU units; 1024 are one virtual CPU."""
    req_memory: int | None = None
    """Memory in MB."""
    req_video: int | None = None
    """GPU units."""
    verify_image: bool = False
    """Whether the API checked that the image exists."""
    force_cache: bool = False
    """Whether the API keeps the image in the cache of its locations."""
    caching_percent: float | None = None
    """Share of the locations that have the image in their cache, 0 to 1."""
    time_to_deploy: int | None = None
    """Seconds in which a location must pull the image; then the deployment is in ERROR."""
    max_duration: int | None = None
    """Minutes after which the API stops a deployment, -1 to 1440; -1 for never."""
    restart_policy: str | None = None
    """`always`, `never` or `on_failure`: whether a server starts again after an exit by itself."""
    termination_grace_period_seconds: int | None = None
    """Seconds from SIGTERM to SIGKILL, 5 to 3600."""
    will_deploy_in_mainland_china: bool = False
    """Whether it is deployed in mainland China too."""
    dns_config: str | None = None
    """The name of a DNS configuration; None without one."""
    ports: tuple[VersionPort, ...] = ()
    """The ports that it opens."""
    envs: tuple[VersionVariable, ...] = ()
    """Its environment variables."""
    endpoint_storage: str | None = None
    """The name of the storage that keeps its logs; None without one."""
    create_time: datetime | None = None
    """When it was created."""
    last_updated: datetime | None = None
    """When it was last changed."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class VersionPage(ApiResponse):
    """One page of the versions of an application."""

    versions: tuple[ApplicationVersion, ...] = ()
    """The versions of this page."""
    total_count: int | None = None
    """How many versions all pages have together."""
    pagination: Pagination | None = None
    """The position of this page."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class VersionSaved(ApiResponse):
    """The API created or changed a version."""

    success: bool = False
    """Whether it did."""
    version: ApplicationVersion | None = None
    """The version as it is now; None if the answer does not have it."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class VersionDeleted(ApiResponse):
    """The API deleted a version."""

    success: bool = False
    """Whether it did."""
    message: str | None = None
    """A text of the API about the deletion."""


_MAX_PORT: Final = 59999
_WRITTEN: Final = {"Websocket": "WS"}  # how a protocol is written that reads back otherwise
RestartPolicy: TypeAlias = Literal["always", "never", "on_failure"]
"""Whether a server starts again after an exit by itself."""


def _image_name(model: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    check_text(field_name(model, attribute), value)
    if value != value.lower():
        raise InvalidRequest(f"{field_name(model, attribute)} must be in lower case: {value!r}")


_application_name: Final = segment(least=3, most=64)
_version_name: Final = segment(most=64)
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

    name: str | None = attrs.field(default=None, validator=optional(_application_name))
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
    protocol: str = attrs.field(validator=text())
    """UDP, TCP, TCP/UDP, HTTP, HTTPS, WS or WSS."""
    to_check: bool = attrs.field(default=True, validator=instance_of(bool))
    """Whether READY waits until the server has bound it."""
    tls_upgrade: bool = attrs.field(default=False, validator=instance_of(bool))
    """Whether the API adds TLS before the port (HTTP and WebSocket only)."""
    name: str | None = attrs.field(default=None, validator=optional(text()))
    """Its name; None for a port without one."""

    def __attrs_post_init__(self) -> None:
        if self.port == 0 and self.name is None:
            raise InvalidRequest("VersionPortRequest.name is required for the port 0")


AnyPort: TypeAlias = VersionPortRequest | VersionPort
"""A port as arguments accept it: a `VersionPortRequest`, or one that a version shows."""
AnyVersionVariables: TypeAlias = AnyVariables | Iterable[VersionVariable]
"""Variables as arguments accept them: a mapping, `EnvironmentVariable`s, or those of a version."""


def _as_port(value: object) -> VersionPortRequest:
    if isinstance(value, VersionPort):
        protocol = value.protocol or ""
        return VersionPortRequest(
            port=value.port or 0,
            protocol=_WRITTEN.get(protocol, protocol),
            to_check=value.to_check,
            tls_upgrade=value.tls_upgrade,
            name=value.name or None,
        )
    if not isinstance(value, VersionPortRequest):
        raise InvalidRequest(
            f"ports must be a list of VersionPortRequest; one of them is {value!r}"
        )
    return value


def _as_ports(values: Iterable[AnyPort]) -> tuple[VersionPortRequest, ...]:
    check_list("ports", values)
    return tuple(map(_as_port, values))


def _as_env(value: object) -> object:
    if not isinstance(value, VersionVariable):
        return value
    return EnvironmentVariable(value.key or "", value.value or "", is_hidden=value.is_hidden)


def _as_envs(values: AnyVersionVariables) -> tuple[EnvironmentVariable, ...]:
    written: Any = values  # a mapping, or a list of which `as_variables` checks the items
    if not isinstance(values, Mapping):
        check_list("envs", values)
        written = map(_as_env, values)
    return as_variables(written)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class VersionChanges(RequestModel):
    """The body of a call that changes a version; what is None stays as it is."""

    name: str | None = attrs.field(default=None, validator=optional(_version_name))
    """Its new name, 1 to 64 characters."""
    is_active: bool | None = attrs.field(default=None, validator=instance_of(bool, type(None)))
    """Whether it can be deployed."""
    docker_repository: str | None = attrs.field(default=None, validator=optional(text()))
    """The host name of the image's registry."""
    docker_image: str | None = attrs.field(default=None, validator=optional(_image_name))
    """The name of the image, in lower case."""
    docker_tag: str | None = attrs.field(default=None, validator=optional(text()))
    """The tag of the image."""
    private_username: str | None = attrs.field(default=None, validator=optional(text()))
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
        default=None, validator=optional(one_of(*get_args(RestartPolicy)))
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
    dns_config: str | None = attrs.field(default=None, validator=optional(text()))
    """The name of a DNS configuration."""
    ports: tuple[VersionPortRequest, ...] | None = attrs.field(
        default=None, converter=attrs.converters.optional(_as_ports)
    )
    """The ports that it opens."""
    envs: tuple[EnvironmentVariable, ...] | None = attrs.field(
        default=None, converter=attrs.converters.optional(_as_envs), metadata={STRICT: "variables"}
    )
    """Its environment variables."""
    endpoint_storage: str | None = attrs.field(default=None, validator=optional(text()))
    """The name of the storage that keeps its logs."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class VersionRequest(VersionChanges):
    """The body of a call that creates a version; what is None has the API's default."""

    name: str = attrs.field(validator=_version_name)
    """Its name, 1 to 64 characters."""
    docker_repository: str = attrs.field(validator=text())
    """The host name of the image's registry."""
    docker_image: str = attrs.field(validator=_image_name)
    """The name of the image, in lower case."""
    docker_tag: str = attrs.field(validator=text())
    """The tag of the image."""
    req_cpu: int = attrs.field(validator=_units)
    """CPU units, 100 or more; 1024 are one virtual CPU."""
    req_memory: int = attrs.field(validator=_units)
    """Memory in MB, 100 or more; twice `req_cpu` at most."""

    def __attrs_post_init__(self) -> None:
        if self.req_memory > 2 * self.req_cpu:
            raise InvalidRequest(
                f"VersionRequest.req_memory is {self.req_memory}; {2 * self.req_cpu} MB is the most"
                f" for {self.req_cpu} CPU units"
            )


class VersionSettings(TypedDict, total=False):
    """The settings of a version beyond its image, CPU and memory, as keyword arguments.

    Without one, or with None, a new version has the API's default. `VersionChanges` has the same
    fields.
    """

    is_active: bool | None
    """Whether the version can be deployed; the API's default is True."""
    private_username: str | None
    """The name for a private registry; None for a public image."""
    private_token: str | None
    """The password for a private registry. No repr and no error shows it."""
    req_video: int | None
    """GPU units, 0 or more; 1024 are one GPU."""
    verify_image: bool | None
    """Whether the API checks that it can pull the image, which fails here and not at a deploy."""
    force_cache: bool | None
    """Whether the API keeps the image in the cache of its locations."""
    time_to_deploy: int | None
    """Seconds in which a location must pull the image, 10 or more; then ERROR."""
    max_duration: int | None
    """Minutes after which the API stops a deployment, -1 to 1440; -1 for never."""
    restart_policy: RestartPolicy | None
    """`always`, `never` or `on_failure`: whether a server starts again after an exit by itself."""
    termination_grace_period_seconds: int | None
    """Seconds from SIGTERM to SIGKILL, 5 to 3600."""
    will_deploy_in_mainland_china: bool | None
    """Whether it is deployed in mainland China too."""
    dns_config: str | None
    """The name of a DNS configuration."""
    ports: Iterable[AnyPort] | None
    """The ports that it opens."""
    envs: AnyVersionVariables | None
    """Its environment variables."""
    endpoint_storage: str | None
    """The name of the storage that keeps its logs."""


LIST_APPLICATIONS: Final = Operation(
    name="list_applications",
    method="GET",
    path="/v1/apps",
    query=PAGES,
    returns=ApplicationPage,
    may_fail={400, 401, 403, 500},
)
CREATE_APPLICATION: Final = Operation(
    name="create_application",
    method="POST",
    path="/v1/app",
    body=ApplicationRequest,
    returns=Application,
    may_fail={400, 401, 409, 500},
)
GET_APPLICATION: Final = Operation(
    name="get_application",
    method="GET",
    path="/v1/app/{application}",
    returns=Application,
    may_fail={400, 401, 404, 500},
)
UPDATE_APPLICATION: Final = Operation(
    name="update_application",
    method="PATCH",
    path="/v1/app/{application}",
    body=ApplicationChanges,
    returns=Application,
    may_fail={400, 401, 404, 409, 500},
)
DELETE_APPLICATION: Final = Operation(
    name="delete_application",
    method="DELETE",
    path="/v1/app/{application}",
    returns=type(None),
    may_fail={400, 401, 404, 500},
)
LIST_VERSIONS: Final = Operation(
    name="list_versions",
    method="GET",
    path="/v1/app/{application}/versions",
    query=PAGES,
    returns=VersionPage,
    may_fail={400, 401, 404, 500},
)
CREATE_VERSION: Final = Operation(
    name="create_version",
    method="POST",
    path="/v1/app/{application}/version",
    body=VersionRequest,
    returns=VersionSaved,
    may_fail={400, 401, 404, 409, 424, 500},
)
GET_VERSION: Final = Operation(
    name="get_version",
    method="GET",
    path="/v1/app/{application}/version/{version}",
    returns=ApplicationVersion,
    may_fail={400, 401, 404, 500},
)
UPDATE_VERSION: Final = Operation(
    name="update_version",
    method="PATCH",
    path="/v1/app/{application}/version/{version}",
    body=VersionChanges,
    returns=VersionSaved,
    may_fail={400, 401, 404, 424, 500},
)
DELETE_VERSION: Final = Operation(
    name="delete_version",
    method="DELETE",
    path="/v1/app/{application}/version/{version}",
    returns=VersionDeleted,
    may_fail={401, 404, 500},
)
