"""Applications, their versions, and what a version runs."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import attrs

from .response import ApiResponse, Model, Pagination

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
