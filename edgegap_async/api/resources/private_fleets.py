"""The call that lists the hosts of a private fleet. A deploy to them is in `operations`."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Final

import attrs

from edgegap_async.api.models.response import ApiResponse, LazyModel, Model, Pagination
from edgegap_async.api.operations import Operation


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Beacon(Model):
    """The address at which a host answers pings, for measurements of latency."""

    tcp_port: int | None = None
    """The port for pings over TCP."""
    udp_port: int | None = None
    """The port for pings over UDP."""
    ip_address: str | None = None
    """The IP address of the beacon."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Centroid(Model):
    """The point around which the API places hosts of a fleet, and what was ordered there."""

    omits_none = True

    label: str | None = None
    """The name of the point."""
    latitude: float | None = None
    """Degrees north, -90 to 90."""
    longitude: float | None = None
    """Degrees east, -180 to 180."""
    radius_km: float | None = None
    """Kilometres around the point in which the API chooses locations."""
    radius_strategy: int | None = None
    """A number of undocumented meaning; None since 2025-12."""
    cpu_cores: int | None = None
    """Virtual CPUs of a host."""
    memory_gb: float | None = None
    """Memory of a host in GB."""
    clock_speed_ghz: float | None = None
    """Clock speed of a host's CPU in GHz."""
    desired_host_count: int | None = None
    """How many hosts were ordered at this point."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class DeleteSchedule(Model):
    """The planned deletion of a host."""

    v2_times = ("scheduled_at",)

    uuid: str | None = None
    """Identifies the schedule."""
    scheduled_at: datetime | None = None
    """When the host will be deleted."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class HostSpecifications(Model):
    """The hardware of a host, since 2025-12."""

    cpu_units: int | None = None
    """CPU units; 1024 units are one virtual CPU."""
    memory_mb: int | None = None
    """Memory in MB."""
    base_clock_speed_mhz: int | None = None
    """Base clock speed of the CPU in MHz."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class FleetHost(LazyModel):
    """A host of a private fleet."""

    v2_times = ("created_at", "updated_at")

    host_id: str
    """Identifies the host, for `private_host_ids` of a deploy."""
    status: str | None = None
    """`PENDING` or `ACTIVE`; only an ACTIVE host accepts deployments."""
    ip_address: str | None = None
    """The IP address of the host; None while it is PENDING."""
    latitude: float | None = None
    """Degrees north, -90 to 90."""
    longitude: float | None = None
    """Degrees east, -180 to 180."""
    city: str | None = None
    """The city where the host is."""
    country: str | None = None
    """The country where the host is."""
    continent: str | None = None
    """The continent where the host is."""
    allocated_cpu_units: int | None = None
    """CPU units in use by deployments, the beacon and orchestration; 1024 are one virtual CPU."""
    allocated_memory_mb: int | None = None
    """Memory in MB in use by deployments, the beacon and orchestration."""
    allocatable_cpu_units: int | None = None
    """CPU units that the host has for deployments in all."""
    allocatable_memory_mb: int | None = None
    """Memory in MB that the host has for deployments in all."""
    beacon: Beacon | None = None
    """Where the host answers pings; None if it does not."""
    created_at: datetime | None = None
    """When the host was ordered."""
    updated_at: datetime | None = None
    """When the host last changed."""
    pin: Centroid | None = None
    """The name of `centroid` until 2025-11; None since then."""
    delete_schedules: tuple[DeleteSchedule, ...] = ()
    """The name of `delete_schedule` until 2025-11; empty since then."""
    centroid: Centroid | None = None
    """The point that the host was ordered for; None until 2025-11."""
    delete_schedule: DeleteSchedule | None = None
    """The planned deletion of the host; None if none is planned."""
    fleet_host_specifications: HostSpecifications | None = None
    """The hardware of the host; None until 2025-11."""

    def absent_fields(self) -> Collection[str]:
        """Returns the fields of the other description, the newer or the older."""
        if self.pin is None:
            return {"pin", "delete_schedules"}
        return {"centroid", "delete_schedule", "fleet_host_specifications"}


@attrs.frozen(kw_only=True, eq=False, repr=False)
class HostPage(ApiResponse):
    """The hosts of a private fleet."""

    omits_none = True

    data: tuple[FleetHost, ...] = ()
    """The hosts of this answer."""
    total_count: int | None = None
    """How many hosts all pages have together; None before 2026-06."""
    pagination: Pagination | None = None
    """The position of this page; None before 2026-06."""


LIST_FLEET_HOSTS: Final = Operation(
    name="list_fleet_hosts",
    method="GET",
    path="/v2/private-fleets/{fleet_name}/hosts",
    returns=HostPage,
    may_fail={400, 401, 500},
)
