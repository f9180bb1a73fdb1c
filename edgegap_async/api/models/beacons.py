"""Beacons of locations, and what the API knows of IP addresses."""

from __future__ import annotations

import attrs

from .locations import Location
from .response import ApiResponse, Model


@attrs.frozen(kw_only=True, eq=False, repr=False)
class LocationBeacon(Model):
    """A server that answers pings, so that players can measure the way to a location."""

    host: str | None = None
    """Its IP address."""
    fqdn: str | None = None
    """Its domain name."""
    udp_port: int | None = None
    """The port for pings over UDP."""
    tcp_port: int | None = None
    """The port for pings over TCP."""
    location: Location | None = None
    """Where it is."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class BeaconPage(ApiResponse):
    """The beacons of the locations."""

    locations: tuple[LocationBeacon, ...] = ()
    """The beacons of this answer."""
    count: int | None = None
    """How many beacons there are."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Region(Model):
    """A country or continent."""

    omits_none = True

    code: str | None = None
    """Its code, of two letters."""
    name: str | None = None
    """Its name."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class AddressLocation(Model):
    """Where an IP address is."""

    omits_none = True

    continent: Region | None = None
    """Its continent; None if the API does not know it."""
    country: Region | None = None
    """Its country; None if the API does not know it."""
    latitude: float | None = None
    """Degrees north, -90 to 90."""
    longitude: float | None = None
    """Degrees east, -180 to 180."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class PublicAddress(ApiResponse):
    """The IP address from which a request came."""

    public_ip: str
    """The IP address."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class LocatedAddress(ApiResponse):
    """What the API knows of an IP address."""

    omits_none = True

    ip_address: str
    """The IP address."""
    type: str | None = None
    """The kind of address, such as `IPv4`."""
    location: AddressLocation | None = None
    """Where it is; None if the API does not know it."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class LocatedAddresses(ApiResponse):
    """What the API knows of several IP addresses."""

    addresses: tuple[LocatedAddress, ...] = ()
    """The IP addresses."""
