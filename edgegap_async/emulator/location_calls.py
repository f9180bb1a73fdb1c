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
from .cloud_state import CloudState
from .environment import PUBLIC_IP
from .list_queries import page_answer
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
        **pages: str,
    ) -> LocationPage:
        """Returns the cities. Each of them runs every application."""
        if app is not None:
            stored = self.registry.applications.get(app)
            if stored is None or version not in {None, *stored.versions}:
                raise BadRequest("Invalid Application or Application Version")
        labels = (LocationTag(key="emulated", value="true"),) if tags == "true" else ()
        every = [
            attrs.evolve(city, type="standard", tags=labels)
            for city in CITIES.values()
            if type in {None, "standard"}
        ]
        return page_answer(LocationPage, "locations", every, pages, is_always_paged=False)

    async def list_beacons(self, **pages: str) -> BeaconPage:
        """Returns a beacon for each city. It answers pings over UDP and TCP, on this machine."""
        if self._beacon is None:
            self._beacon = await Beacon.start()
        beacons = [
            LocationBeacon(
                host=PUBLIC_IP,
                fqdn=PUBLIC_IP,
                udp_port=self._beacon.udp_port,
                tcp_port=self._beacon.tcp_port,
                location=city,
            )
            for city in CITIES.values()
        ]
        return page_answer(BeaconPage, "locations", beacons, pages, is_always_paged=False)

    async def get_public_ip(self) -> PublicAddress:
        """Returns the address of every client: that of loopback."""
        return PublicAddress(public_ip=PUBLIC_IP)

    async def locate_ip(self, *, ip: str) -> LocatedAddress:
        """Returns where an IP address is."""
        return self._located(IpAddress(ip))

    async def locate_ips(self, *, body: Addresses) -> LocatedAddresses:
        """Returns where some IP addresses are."""
        return LocatedAddresses(
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
