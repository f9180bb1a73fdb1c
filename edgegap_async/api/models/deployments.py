"""Deployments and what the API says about them: ports, lists, stops, logs, tags."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

import attrs

from edgegap_async.api.values import Value

from .locations import Location
from .response import ApiResponse, LazyModel, Model, Pagination
from .status import Status

_MAX_PORT: Final = 65535


@attrs.frozen(kw_only=True, eq=False, repr=False)
class DeployAccepted(ApiResponse):
    """The API accepted a deploy. The deployment is not READY yet."""

    request_id: str
    """Identifies the deployment in every later call: 12 hexadecimal digits."""


def _port_number(value: int | None) -> int | None:
    """Returns the number, or None if no port has it: a 0 stands for a port without a number."""
    return value if value is not None and 0 < value <= _MAX_PORT else None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Port(Model):
    """A port of the game server. `DeploymentHandle.endpoint` gives the address for players."""

    external: int | None = attrs.field(default=None, converter=_port_number)
    """The port number that players connect to, 1 to 65535; None before the API assigns it."""
    internal: int | None = attrs.field(default=None, converter=_port_number)
    """The port number that the game server binds in its container, 1 to 65535; None if the answer
    has none."""
    protocol: str | None = None
    """The protocol in the API's spelling, which varies: `UDP`, `TCP`, `http`, `Websocket`."""
    name: str | None = None
    """The name in the application version; None or the internal number for an unnamed port."""
    tls_upgrade: bool = False
    """Whether the API adds TLS before the port (HTTP and WebSocket only)."""
    link: str | None = None
    """`host:port` for players, or a URL where the API adds TLS; None before it is assigned."""
    proxy: int | None = attrs.field(default=None, converter=_port_number)
    """A port number of an older version of the API; None since 2026."""


@attrs.frozen(eq=False, repr=False)
class Endpoint(Value):
    """The address that players connect to."""

    host: str
    """Domain name or IP address."""
    port: int
    """The external port number."""
    protocol: str
    """The protocol in upper case: `UDP`, `TCP`, `HTTP`, `WS`, …"""
    link: str
    """`host:port`, or a URL where the API adds TLS before the port."""

    def __str__(self) -> str:
        return self.link


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Session(Model):
    """A session of Edgegap's older matchmaking, removed from the API's description in 2026."""

    session_id: str | None = None
    """Identifies the session."""
    status: Status | None = None
    """The status of the session, in the statuses of deployments where they fit."""
    ready: bool = False
    """Whether the session is ready for its users."""
    linked: bool = False
    """Whether the session is linked to this deployment."""
    kind: str | None = None
    """The kind of session, such as `Seat` or `Match`."""
    user_count: int | None = None
    """How many users the session has."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Deployment(ApiResponse):
    """The state of a deployment at the time of a status request."""

    omits_none = True

    request_id: str
    """Identifies the deployment."""
    fqdn: str | None = None
    """The domain name that players connect to; None before it is assigned."""
    app_name: str | None = None
    """The name of the application."""
    app_version: str | None = None
    """The name of the application's version."""
    current_status: Status = attrs.field(default=Status(""))
    """The status; an unknown status with an empty text if the answer has none."""
    running: bool = False
    """Whether the deployment is READY."""
    whitelisting_active: bool = False
    """Whether only listed IP addresses can connect. Removed from the API's description in 2026."""
    start_time: datetime | None = None
    """When the deployment became READY; None before."""
    removal_time: datetime | None = None
    """When the API removed the deployment or will remove it; None if no time is set."""
    elapsed_time: int | None = None
    """Seconds since the deployment became READY; None before."""
    last_status: Status | None = None
    """The status before `current_status`; None if there was none."""
    error: bool = False
    """Whether the deployment is in ERROR."""
    error_detail: str | None = None
    """The reason for ERROR, as a text of the API; None if it gave none."""
    ports: Mapping[str, Port] = attrs.field(factory=dict)
    """Ports by name, or by internal number for unnamed ports; empty before they are assigned."""
    public_ip: str | None = None
    """The IP address that players connect to; None before it is assigned."""
    sessions: tuple[Session, ...] = ()
    """Sessions of the older matchmaking; empty in all other cases."""
    location: Location | None = None
    """Where the deployment runs; None before the API has chosen a location."""
    tags: tuple[str, ...] = ()
    """The names of its tags, among them those of this package."""
    sockets: int | None = None
    """How many users fit in, for the older matchmaking; None without it."""
    sockets_usage: int | None = None
    """How many of `sockets` are in use, for the older matchmaking; None without it."""
    command: str | None = None
    """The command that replaces the container's own; None if it does not."""
    arguments: str | None = None
    """The arguments that replace the container's own; None if they do not."""
    max_duration: int | None = None
    """Minutes after which the API stops the deployment, -1 to 1440; -1 for never."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class DeploymentRow(LazyModel):
    """A row of a list of deployments. Terminated deployments are in no list; those in ERROR are."""

    omits_none = True

    request_id: str
    """Identifies the deployment."""
    fqdn: str | None = None
    """The domain name that players connect to; None before it is assigned."""
    start_time: datetime | None = None
    """When the deployment became READY; None before."""
    ready: bool = False
    """The API's flag for READY; `is_ready` compares it with `status`."""
    public_ip: str | None = None
    """The IP address that players connect to; None before it is assigned."""
    ports: Mapping[str, Port] = attrs.field(factory=dict)
    """Ports by name, or by internal number for unnamed ports; empty before they are assigned."""
    tags: tuple[str, ...] = ()
    """The names of its tags, among them those of this package."""
    sockets: int | None = None
    """How many users fit in, for the older matchmaking; None without it."""
    sockets_usage: int | None = None
    """How many of `sockets` are in use, for the older matchmaking; None without it."""
    is_joinable_by_session: bool = False
    """Whether the older matchmaking may add sessions."""
    status: Status | None = None
    """The status. The API's description does not have it, first-party programs read it; None if
    the row has none."""

    @property
    def is_ready(self) -> bool:
        """Whether the row says READY, in `ready` and, where it has one, in `status`."""
        return self.ready and self.status in {None, Status.READY}


@attrs.frozen(kw_only=True, eq=False, repr=False)
class DeploymentPage(ApiResponse):
    """One page of a list of deployments."""

    data: tuple[DeploymentRow, ...] = ()
    """The rows of this page."""
    total_count: int | None = None
    """How many deployments all pages have together."""
    pagination: Pagination | None = None
    """The position of this page; None if the answer does not say."""
    message: tuple[str, ...] = ()
    """Remarks of the API about the list."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Stopped(ApiResponse):
    """The API accepted a stop.

    It stops a deployment that is not READY or in ERROR yet as soon as that status is reached.
    """

    message: str | None = None
    """A text of the API about the stop."""
    deployment_summary: Deployment | None = None
    """The deployment at the time of the stop; None if it was not READY or in ERROR yet."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class BulkStop(ApiResponse):
    """The API accepted a bulk stop."""

    processable: tuple[DeployAccepted, ...] = ()
    """The deployments that the API will stop."""

    @property
    def request_ids(self) -> tuple[str, ...]:
        """The ids of the deployments that the API will stop."""
        return tuple(item.request_id for item in self.processable)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class CrashData(Model):
    """How the process of the game server ended."""

    exit_code: int | None = None
    """The exit code of the process."""
    message: str | None = None
    """A text of the API about the end of the process."""
    restart_count: int | None = None
    """How many times the process was restarted, where the version's restart policy allows it."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Logs(ApiResponse):
    """The log of a deployment's container.

    The API drops it when the deployment is stopped, unless an endpoint storage keeps it.
    """

    logs: str | None = None
    """The log of the running container."""
    encoding: str | None = None
    """The encoding of the log, such as `utf-8`."""
    crash_logs: str | None = None
    """The log of the container before it crashed; None if it did not crash."""
    crash_data: CrashData | None = None
    """How the process ended; None if it did not crash."""
    logs_link: str | None = None
    """A URL of the log in the endpoint storage; None without such a storage."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Tag(ApiResponse):
    """A tag of a deployment."""

    name: str
    """The text of the tag, 1 to 40 characters."""
    create_time: datetime | None = None
    """When the tag was created."""
    last_updated: datetime | None = None
    """When the tag was last renamed."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class TagPage(ApiResponse):
    """The tags of a deployment."""

    tags: tuple[Tag, ...] = ()
    """The tags of this answer."""
    count: int | None = None
    """How many tags the deployment has; None since 2026, when `total_count` replaced it."""
    total_count: int | None = None
    """How many tags all pages have together; None before 2026."""
    pagination: Pagination | None = None
    """The position of this page; None before 2026."""
