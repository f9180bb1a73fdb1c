"""The newer calls about places: beacons of locations, and where IP addresses are."""

from __future__ import annotations

from collections.abc import Iterable  # noqa: F401 - the annotation of `as_strings`, which pdoc evaluates here
from typing import Final

import attrs

from edgegap_async.api.models.locations import Location
from edgegap_async.api.models.response import ApiResponse, Model
from edgegap_async.api.operations import PAGES, Operation, RetrySafety
from edgegap_async.api.requests import IpAddress, RequestModel, as_strings
from edgegap_async.api.validation import not_empty
from edgegap_async.errors import InvalidRequest


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


MAX_ADDRESSES: Final = 20
"""The most IP addresses of one request."""


@attrs.frozen(eq=False, repr=False)
class Addresses(RequestModel):
    """The body of a call that asks where IP addresses are."""

    addresses: tuple[str, ...] = attrs.field(converter=as_strings, validator=not_empty)
    """The IP addresses, 1 to 20."""

    def __attrs_post_init__(self) -> None:
        if len(self.addresses) > MAX_ADDRESSES:
            raise InvalidRequest(f"{MAX_ADDRESSES} addresses at most, not {len(self.addresses)}")
        for address in self.addresses:
            IpAddress(address)


LIST_BEACONS: Final = Operation(
    name="list_beacons",
    method="GET",
    path="/v1/locations/beacons",
    query=PAGES,
    returns=BeaconPage,
    may_fail={400, 401, 500},
)
GET_PUBLIC_IP: Final = Operation(
    name="get_public_ip",
    method="GET",
    path="/v1/ip",
    returns=PublicAddress,
    may_fail={401, 500},
)
LOCATE_IP: Final = Operation(
    name="locate_ip",
    method="GET",
    path="/v1/ip/{ip}/lookup",
    returns=LocatedAddress,
    may_fail={400, 401, 500},
)
LOCATE_IPS: Final = Operation(
    name="locate_ips",
    method="POST",
    path="/v1/ips/lookup",
    body=Addresses,
    returns=LocatedAddresses,
    may_fail={400, 401, 500},
    retry_safety=RetrySafety.SAFE,  # it changes nothing
)
