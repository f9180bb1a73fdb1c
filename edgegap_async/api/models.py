"""What the API says, as values; and which status of a deployment may follow which.

Read as it comes: of each object only the id is needed. A field that is null, absent or of a type
that cannot be read is None (or false, or empty). What the API answers to a call, and each row of a
list, has `raw`: the JSON object as it came, with the fields that have no name here, those of its
ports or location too. What is sent *to* the API is in `requests`.

Such an answer reads its fields from `raw` late, each when it is first looked at: of a list with a
hundred rows a program mostly wants to know which are ready, and need not wait for their ports.

Times are aware datetimes in UTC. Durations are in the unit that the field's docstring gives.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import attrs

__all__ = [
    "TRANSITIONS",
    "Beacon",
    "BulkStop",
    "Centroid",
    "CrashData",
    "DeleteSchedule",
    "DeployAccepted",
    "Deployment",
    "DeploymentPage",
    "DeploymentRow",
    "Endpoint",
    "FleetHost",
    "HostPage",
    "HostSpecifications",
    "Json",
    "Location",
    "LocationPage",
    "LocationTag",
    "Logs",
    "MetricSeries",
    "MetricTotals",
    "Metrics",
    "NetworkMetrics",
    "Pagination",
    "Paginator",
    "Port",
    "Session",
    "Status",
    "StatusChange",
    "Stopped",
    "Tag",
    "TagPage",
    "may_become",
    "record_attempts",
]


# ── status ───────────────────────────────────────────────────────────────────────────────────────


class Status(enum.StrEnum):
    """Where a deployment is in its life. Open: a status that is not listed here is normal.

    `Status("Status.READY")`, `Status("READY")` and `Status("ready")` are all `Status.READY`. Any
    other text makes a member that is not `is_known`, named UNKNOWN, whose value is that text.
    """

    INITIALIZING = "Status.INITIALIZING"
    SEEKING = "Status.SEEKING"
    SEEKED = "Status.SEEKED"
    SCANNING = "Status.SCANNING"
    DEPLOYING = "Status.DEPLOYING"
    READY = "Status.READY"
    TERMINATING = "Status.TERMINATING"
    TERMINATED = "Status.TERMINATED"
    ERROR = "Status.ERROR"

    @classmethod
    def _missing_(cls, value: object) -> Status:
        text = value if isinstance(value, str) else ""
        known = cls.__members__.get(re.sub(r"^STATUS[._]", "", text.upper()))
        if known is not None:
            return known
        unknown = str.__new__(cls, text)
        unknown._name_ = "UNKNOWN"
        unknown._value_ = text
        return unknown

    @property
    def is_known(self) -> bool:
        """Whether it is one of the statuses listed here."""
        return self.name in Status.__members__

    @property
    def is_ready(self) -> bool:
        """Whether players can connect."""
        return self == Status.READY

    @property
    def is_terminal(self) -> bool:
        """Whether the deployment will never be READY again: ERROR, TERMINATING or TERMINATED."""
        return self in {Status.ERROR, Status.TERMINATING, Status.TERMINATED}

    @property
    def is_final(self) -> bool:
        """Whether no further status follows by itself: ERROR or TERMINATED.

        A deployment in ERROR still exists until it is stopped.
        """
        return self in {Status.ERROR, Status.TERMINATED}

    @property
    def short(self) -> str:
        """The status without its prefix: `READY`; for an unknown one, the text as it came."""
        return self.name if self.is_known else self.value


TRANSITIONS: Final[Mapping[Status, frozenset[Status]]] = MappingProxyType(
    {
        Status.INITIALIZING: frozenset({Status.SEEKING, Status.ERROR}),
        Status.SEEKING: frozenset({Status.SEEKED, Status.ERROR}),
        Status.SEEKED: frozenset({Status.SCANNING, Status.DEPLOYING, Status.ERROR}),
        Status.SCANNING: frozenset({Status.DEPLOYING, Status.ERROR}),
        Status.DEPLOYING: frozenset({Status.READY, Status.ERROR}),
        Status.READY: frozenset({Status.TERMINATING, Status.ERROR}),
        Status.ERROR: frozenset({Status.TERMINATING}),
        Status.TERMINATING: frozenset({Status.TERMINATED}),
        Status.TERMINATED: frozenset(),
    }
)
"""Which status may directly follow which. The emulator takes only these steps; waiting uses
`may_become`, for between two looks several steps may pass unseen."""


def may_become(earlier: Status, later: Status) -> bool:
    """Whether a deployment seen in `earlier` may next be seen in `later`, by any number of steps.

    An unknown status may come before and after any. False means that `later` is old news.
    """
    if not (earlier.is_known and later.is_known):
        return True
    reached, todo = set[Status](), [earlier]
    while todo:
        for step in TRANSITIONS[todo.pop()] - reached:
            reached.add(step)
            todo.append(step)
    return later in reached


@attrs.frozen
class StatusChange:
    """A deployment was seen in `status`, first at `at`."""

    status: Status
    at: datetime
    """When this program learnt of it."""
    source: Literal["status", "list", "webhook"] = "status"
    """What told it: a status look, a list that was asked about many, or a look that a webhook
    asked for."""


# ── answers ─────────────────────────────────────────────────────────────────────────────────────

Json: TypeAlias = Mapping[str, object]


def _values(model: Any) -> dict[str, object]:
    fields = attrs.fields(type(model))
    return {field.name: getattr(model, field.name) for field in fields if field.repr}


class _Model:
    """How they compare and print; `raw` and what it took to get them take no part in it.

    attrs would write both out for each of thirty classes, at a cost to every import.
    """

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment] # they hold mappings

    def __eq__(self, other: object) -> bool:
        return _values(self) == _values(other) if type(other) is type(self) else NotImplemented

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={value!r}" for name, value in _values(self).items())
        return f"{type(self).__name__}({values})"


field_readers: Final[dict[type, Mapping[str, Callable[[object, None], object]]]] = {}
"""For each kind that is read late, what reads its fields from JSON. `codec` fills it in."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class LazyModel(_Model):
    """What came from the API: an answer to a call, or a row of one."""

    raw: Json = attrs.field(factory=dict, repr=False)
    """The JSON object as it came."""

    if not TYPE_CHECKING:  # pragma: no branch - to a type checker any name would be a field

        def __getattr__(self, name: str) -> object:
            """A field that was not looked at before."""
            read = field_readers.get(type(self), {}).get(name)
            if read is None:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            value = read(self.raw.get(name), None)
            object.__setattr__(self, name, value)
            return value


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ApiResponse(LazyModel):
    """What the API answers to a call."""

    attempts: int = attrs.field(default=1, init=False, repr=False)
    """How many times the request was tried until this came."""
    waited: float = attrs.field(default=0.0, init=False, repr=False)
    """Seconds that were waited between the attempts."""


def record_attempts(answer: object, *, attempts: int, waited: float) -> None:
    """Notes on an answer what it took to get it; what is none (of a call without one) stays."""
    if isinstance(answer, ApiResponse):
        object.__setattr__(answer, "attempts", attempts)
        object.__setattr__(answer, "waited", waited)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class DeployAccepted(ApiResponse):
    """The API accepted a deploy; the deployment is known by `request_id` from now on."""

    request_id: str


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Port(_Model):
    """A port of the game server, and how players reach it."""

    external: int | None = None
    internal: int | None = None
    protocol: str | None = None
    """As the API spells it: `UDP`, `TCP`, `http`, `Websocket`, …"""
    name: str | None = None
    tls_upgrade: bool = False
    link: str | None = None
    proxy: int | None = None


@attrs.frozen
class Endpoint:
    """Where players connect."""

    host: str
    port: int
    protocol: str
    """Upper case: `UDP`, `TCP`, `HTTP`, `WS`, …"""
    link: str
    """`host:port`, or a URL where TLS is added on the way."""

    def __str__(self) -> str:
        return self.link


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Session(_Model):
    """A session of the older matchmaking, linked to a deployment."""

    session_id: str | None = None
    status: Status | None = None
    ready: bool = False
    linked: bool = False
    kind: str | None = None
    user_count: int | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class LocationTag(_Model):
    """A property of a location."""

    key: str | None = None
    value: str | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Location(_Model):
    """A place where servers run. `type` and `tags` come only in lists of locations."""

    city: str | None = None
    country: str | None = None
    continent: str | None = None
    administrative_division: str | None = None
    timezone: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    type: str | None = None
    tags: tuple[LocationTag, ...] = ()


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Deployment(ApiResponse):
    """A deployment as the API sees it at one moment."""

    request_id: str
    fqdn: str | None = None
    app_name: str | None = None
    app_version: str | None = None
    current_status: Status = attrs.field(default=Status(""))
    running: bool = False
    whitelisting_active: bool = False
    start_time: datetime | None = None
    """When it became READY; None before."""
    removal_time: datetime | None = None
    """When it was, or is to be, removed."""
    elapsed_time: int | None = None
    """Seconds since it became READY."""
    last_status: Status | None = None
    """The status before this one."""
    error: bool = False
    error_detail: str | None = None
    ports: Mapping[str, Port] = attrs.field(factory=dict)
    """By the port's name, or by its internal number where it has none."""
    public_ip: str | None = None
    sessions: tuple[Session, ...] = ()
    location: Location | None = None
    tags: tuple[str, ...] = ()
    sockets: int | None = None
    sockets_usage: int | None = None
    command: str | None = None
    arguments: str | None = None
    max_duration: int | None = None
    """Minutes until the cloud stops it by itself; -1 for never."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class DeploymentRow(LazyModel):
    """A deployment as a list holds it: one that is not terminated."""

    request_id: str
    fqdn: str | None = None
    start_time: datetime | None = None
    ready: bool = False
    public_ip: str | None = None
    ports: Mapping[str, Port] = attrs.field(factory=dict)
    tags: tuple[str, ...] = ()
    sockets: int | None = None
    sockets_usage: int | None = None
    is_joinable_by_session: bool = False
    status: Status | None = None
    """Not documented, and read by first-party programs; None where it does not come."""

    @property
    def is_ready(self) -> bool:
        """Whether the row says READY, in `ready` and, where it has one, in `status`."""
        return self.ready and self.status in {None, Status.READY}


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Paginator(_Model):
    """How many pages there are."""

    num_pages: int | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Pagination(_Model):
    """Which page this is, and whether another follows."""

    number: int | None = None
    next_page_number: int | None = None
    previous_page_number: int | None = None
    paginator: Paginator | None = None
    has_next: bool = False
    has_previous: bool = False


@attrs.frozen(kw_only=True, eq=False, repr=False)
class DeploymentPage(ApiResponse):
    """One page of a list of deployments."""

    data: tuple[DeploymentRow, ...] = ()
    total_count: int | None = None
    """How many there are on all pages."""
    pagination: Pagination | None = None
    message: tuple[str, ...] = ()


@attrs.frozen(kw_only=True, eq=False, repr=False)
class LocationPage(ApiResponse):
    """Locations, with what the API has to say about them."""

    locations: tuple[Location, ...] = ()
    messages: tuple[str, ...] = ()
    total_count: int | None = None
    pagination: Pagination | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Stopped(ApiResponse):
    """The API takes a stop: at once, or as soon as the deployment is READY or in ERROR."""

    message: str | None = None
    deployment_summary: Deployment | None = None
    """The deployment as it was when the stop came; None where the API did not send it."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class BulkStop(ApiResponse):
    """The deployments that a bulk stop ends."""

    processable: tuple[DeployAccepted, ...] = ()

    @property
    def request_ids(self) -> tuple[str, ...]:
        """Their ids."""
        return tuple(item.request_id for item in self.processable)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class CrashData(_Model):
    """How the game server's process ended."""

    exit_code: int | None = None
    message: str | None = None
    restart_count: int | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Logs(ApiResponse):
    """What the game server wrote. Gone once it is stopped, unless stored elsewhere."""

    logs: str | None = None
    encoding: str | None = None
    crash_logs: str | None = None
    crash_data: CrashData | None = None
    logs_link: str | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class MetricSeries(_Model):
    """Values over time; the three have the same length. A value that is missing is None."""

    labels: tuple[str, ...] = ()
    datasets: tuple[float | None, ...] = ()
    timestamps: tuple[datetime | None, ...] = ()


@attrs.frozen(kw_only=True, eq=False, repr=False)
class MetricTotals(_Model):
    """Sums since the start. Units are not documented; bytes are assumed."""

    receive_total: MetricSeries = MetricSeries()
    transmit_total: MetricSeries = MetricSeries()
    disk_read_total: MetricSeries = MetricSeries()
    disk_write_total: MetricSeries = MetricSeries()


@attrs.frozen(kw_only=True, eq=False, repr=False)
class NetworkMetrics(_Model):
    """What went over the network in each step."""

    receive: MetricSeries = MetricSeries()
    transmit: MetricSeries = MetricSeries()


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Metrics(ApiResponse):
    """How a deployment uses its machine. Units are not documented."""

    total: MetricTotals = MetricTotals()
    cpu: MetricSeries = MetricSeries()
    mem: MetricSeries = MetricSeries()
    network: NetworkMetrics = NetworkMetrics()
    cpu_throttle_rate: MetricSeries = MetricSeries()
    cpu_throttle_total: MetricSeries = MetricSeries()


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Tag(ApiResponse):
    """A tag of a deployment."""

    name: str
    create_time: datetime | None = None
    last_updated: datetime | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class TagPage(ApiResponse):
    """The tags of a deployment."""

    tags: tuple[Tag, ...] = ()
    count: int | None = None
    total_count: int | None = None
    """What `count` is called since 2026."""
    pagination: Pagination | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Beacon(_Model):
    """Where a host answers pings."""

    tcp_port: int | None = None
    udp_port: int | None = None
    ip_address: str | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Centroid(_Model):
    """The point around which a fleet's hosts are placed; until 2025-11 it was called pin."""

    label: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    radius_km: float | None = None
    radius_strategy: int | None = None
    cpu_cores: int | None = None
    memory_gb: float | None = None
    clock_speed_ghz: float | None = None
    desired_host_count: int | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class DeleteSchedule(_Model):
    """When a host is to be deleted."""

    uuid: str | None = None
    scheduled_at: datetime | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class HostSpecifications(_Model):
    """What a fleet's hosts have (since 2025-12)."""

    cpu_units: int | None = None
    memory_mb: int | None = None
    base_clock_speed_mhz: int | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class FleetHost(LazyModel):
    """A host of a private fleet. Only an ACTIVE one takes deployments."""

    host_id: str
    status: str | None = None
    """`PENDING` or `ACTIVE`."""
    ip_address: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    city: str | None = None
    country: str | None = None
    continent: str | None = None
    allocated_cpu_units: int | None = None
    allocated_memory_mb: int | None = None
    allocatable_cpu_units: int | None = None
    allocatable_memory_mb: int | None = None
    beacon: Beacon | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    pin: Centroid | None = None
    """Until 2025-11; then `centroid`."""
    delete_schedules: tuple[DeleteSchedule, ...] = ()
    """Until 2025-11; then `delete_schedule`."""
    centroid: Centroid | None = None
    delete_schedule: DeleteSchedule | None = None
    fleet_host_specifications: HostSpecifications | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class HostPage(ApiResponse):
    """The hosts of a private fleet."""

    data: tuple[FleetHost, ...] = ()
    total_count: int | None = None
    pagination: Pagination | None = None
