"""The calls about private fleets."""

from __future__ import annotations

from typing import Any

from edgegap_async.api.resources.private_fleets import (
    Centroid,
    FleetHost,
    HostPage,
    HostSpecifications,
)
from edgegap_async.errors import BadRequest

from .catalogue import PrivateHost
from .cloud_state import CloudState
from .environment import PUBLIC_IP
from .list_queries import pagination
from .locations import CITIES


class FleetCalls(CloudState):
    """The calls about private fleets."""

    async def list_fleet_hosts(self, *, fleet_name: str) -> HostPage:
        """Returns the hosts of a fleet, with their free resources."""
        fleet = self._fleets.get(fleet_name)
        if fleet is None:
            raise BadRequest(f"There is no private fleet {fleet_name!r}")
        hosts = tuple(self._fleet_host(fleet.name, host) for host in fleet.hosts)
        if self.settings.host_shape == "pin":
            return HostPage(data=hosts)
        count = len(hosts)
        return HostPage(
            data=hosts, total_count=count, pagination=pagination(1, max(1, count), count)
        )

    def _fleet_host(self, fleet_name: str, host: PrivateHost) -> FleetHost:
        city = CITIES[host.city]
        cpu, memory = self._free_resources(host)
        older = self.settings.host_shape == "pin"
        point = Centroid(
            label=fleet_name,
            latitude=city.latitude,
            longitude=city.longitude,
            radius_km=700,
            desired_host_count=len(self._fleets[fleet_name].hosts),
            **(_pin_only(host) if older else {}),
        )
        return FleetHost(
            host_id=host.host_id,
            status=host.status,
            ip_address=PUBLIC_IP,
            latitude=city.latitude,
            longitude=city.longitude,
            city=city.city,
            country=city.country,
            continent=city.continent,
            allocated_cpu_units=host.cpu_units - cpu,
            allocated_memory_mb=host.memory_mb - memory,
            allocatable_cpu_units=cpu,
            allocatable_memory_mb=memory,
            created_at=self._created_at,
            updated_at=self._created_at,
            pin=point if older else None,
            centroid=None if older else point,
            fleet_host_specifications=None
            if older
            else HostSpecifications(
                cpu_units=host.cpu_units, memory_mb=host.memory_mb, base_clock_speed_mhz=2000
            ),
        )


def _pin_only(host: PrivateHost) -> dict[str, Any]:
    """Returns the fields of a host's point that newer descriptions do not have."""
    return {
        "radius_strategy": 1,
        "cpu_cores": host.cpu_units // 1024,
        "memory_gb": host.memory_mb // 1024,
        "clock_speed_ghz": 2,
    }
