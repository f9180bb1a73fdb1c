"""The calls about locations, beacons and IP addresses."""

from __future__ import annotations

import ipaddress

import attrs

from edgegap_async.api.models import LocationPage, LocationTag
from edgegap_async.api.requests import IpAddress
from edgegap_async.api.resources.locations import (
    Addresses,
    AddressLocation,
    BeaconPage,
    LocatedAddress,
    LocatedAddresses,
    LocationBeacon,
    PublicAddress,
    Region,
)
from edgegap_async.errors import BadRequest

from .beacons import Beacon
from .cloud_state import CloudState, Reply
from .environment import PUBLIC_IP
from .list_queries import page_of
from .locations import CITIES


class LocationCalls(CloudState):
    """The calls about locations, beacons and IP addresses."""

    async def list_locations(
        self,
        *,
        app: str | None = None,
        version: str | None = None,
        type: str | None = None,
        tags: str | None = None,
        page: str | None = None,
        limit: str | None = None,
    ) -> Reply:
        """Returns the cities. Each of them runs every application."""
        if app is not None:
            stored = self.registry.applications.get(app)
            if stored is None or version not in {None, *stored.versions}:
                raise BadRequest("Invalid Application or Application Version")
        labels = (LocationTag(key="emulated", value="true"),) if tags == "true" else ()
        every = list(CITIES.values()) if type in {None, "standard"} else []
        cities, position = page_of(every, page, limit)
        return 200, LocationPage(
            locations=tuple(attrs.evolve(city, type="standard", tags=labels) for city in cities),
            total_count=len(every),
            pagination=position,
        )

    async def list_beacons(self, *, page: str | None = None, limit: str | None = None) -> Reply:
        """Returns a beacon for each city. It answers pings over UDP and TCP, on this machine."""
        if self._beacon is None:
            self._beacon = await Beacon.start()
        cities, _ = page_of(list(CITIES.values()), page, limit)
        beacons = tuple(
            LocationBeacon(
                host=PUBLIC_IP,
                fqdn=PUBLIC_IP,
                udp_port=self._beacon.udp_port,
                tcp_port=self._beacon.tcp_port,
                location=city,
            )
            for city in cities
        )
        return 200, BeaconPage(locations=beacons, count=len(CITIES))

    async def get_public_ip(self) -> Reply:
        """Returns the address of every client: that of loopback."""
        return 200, PublicAddress(public_ip=PUBLIC_IP)

    async def locate_ip(self, *, ip: str) -> Reply:
        """Returns where an IP address is."""
        return 200, self._located(IpAddress(ip))

    async def locate_ips(self, *, body: Addresses) -> Reply:
        """Returns where some IP addresses are."""
        return 200, LocatedAddresses(
            addresses=tuple(self._located(IpAddress(address)) for address in body.addresses)
        )

    def _located(self, user: IpAddress) -> LocatedAddress:
        point, country = self._locations.point_and_country(user.ip_address)
        return LocatedAddress(
            ip_address=user.ip_address,
            type=f"IPv{ipaddress.ip_address(user.ip_address).version}",
            location=point
            and AddressLocation(
                country=Region(code=country) if country else None,
                latitude=point[0],
                longitude=point[1],
            ),
        )
