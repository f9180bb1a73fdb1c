"""The calls about places, and the way there: locations, beacons and IP addresses.

`nearest` makes no call: it measures the round trip to beacons. A player's program, or a server in
the player's network, asks each beacon some times over UDP and TCP at once. The shortest round trip
counts, because a longer one has waited somewhere. An answer to a datagram is a round trip, and so
is the opening of a TCP connection; TCP counts only for a beacon that answers no datagram, which a
firewall may drop. How a beacon answers a datagram is not documented: any answer counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
from collections.abc import AsyncIterable, Coroutine, Hashable, Iterable
from typing import Any, Final, Literal

import attrs

from edgegap_async.api.models import Location, LocationPage
from edgegap_async.api.operations import LIST_LOCATIONS
from edgegap_async.api.requests import IpAddress
from edgegap_async.api.resources.locations import (
    GET_PUBLIC_IP,
    LIST_BEACONS,
    LOCATE_IP,
    LOCATE_IPS,
    MAX_ADDRESSES,
    Addresses,
    BeaconPage,
    LocatedAddress,
    LocationBeacon,
    PublicAddress,
)
from edgegap_async.api.validation import check_kind, check_list, check_number, items_of
from edgegap_async.api.values import Value
from edgegap_async.concurrency import ask_by_datagram, loop_time
from edgegap_async.errors import InvalidRequest

from .resource import Listing, Resource

_DATAGRAM_SIZE: Final = 8  # bytes


class Locations(Resource):
    """Lists the locations where servers can run, and their beacons."""

    def list(
        self,
        *,
        application: str | None = None,
        version: str | None = None,
        type: str | None = None,
        tags: bool | None = None,
        limit: int | None = None,
    ) -> Listing[Location, LocationPage]:
        """Lists the locations where servers can run now.

        Args:
            application: together with `version`, only locations with room for it; None for all.
            version: as `application`.
            type: only locations of a type, such as `standard`; None for all.
            tags: True to include the tags of the locations; None for the API's default.
            limit: locations of one page, 1 or more; None for the API's default.

        Raises:
            BadRequest: the application or version does not exist.
        """
        check_kind("tags", tags, bool)
        if (application is None) is not (version is None):
            raise InvalidRequest("application and version go together: pass both or neither")
        return Listing(
            self._call,
            LIST_LOCATIONS,
            lambda page: page.locations,
            _place,
            query={"app": application, "version": version, "type": type, "tags": tags},
            limit=limit,
            names_first_page=False,
        )

    def beacons(self, *, limit: int | None = None) -> Listing[LocationBeacon, BeaconPage]:
        """Lists the beacons: servers that answer pings, near which game servers can run.

        `nearest` measures which one is nearest.

        Args:
            limit: beacons of one page, 1 or more; None for the API's default.
        """
        # Its pages do not say whether another one follows; their count may be of one page.
        return Listing(
            self._call,
            LIST_BEACONS,
            lambda page: page.locations,
            _address,
            limit=limit,
            more_follow=lambda _page, _seen: None,
        )


def _address(beacon: LocationBeacon) -> Hashable:
    place = beacon.location and _place(beacon.location)
    return beacon.host, beacon.fqdn, beacon.udp_port, beacon.tcp_port, place


def _place(location: Location) -> Hashable:
    """Returns what tells a location apart: the API gives it no id."""
    return location.city, location.country, location.latitude, location.longitude, location.type


class IpAddresses(Resource):
    """Says where IP addresses are, and which one this program has. In the API since 2024."""

    async def own(self) -> PublicAddress:
        """Returns the public IP address from which this program's calls reach the API."""
        return await self._call(GET_PUBLIC_IP)

    async def locate(self, ip: str) -> LocatedAddress:
        """Returns where an IP address is, as far as the API knows it.

        Args:
            ip: an IPv4 or IPv6 address without zone.

        Raises:
            BadRequest: the API cannot locate the address.
        """
        return await self._call(LOCATE_IP, path={"ip": IpAddress(ip).ip_address})

    async def locate_many(self, ips: Iterable[str]) -> tuple[LocatedAddress, ...]:
        """Returns where IP addresses are, in one call for each 20 of them.

        Args:
            ips: IPv4 or IPv6 addresses without zone.

        Raises:
            BadRequest: the API cannot locate an address.
        """
        check_list("ips", ips)
        found: list[LocatedAddress] = []
        left = iter([IpAddress(ip).ip_address for ip in ips])
        while some := tuple(itertools.islice(left, MAX_ADDRESSES)):
            answer = await self._call(LOCATE_IPS, body=Addresses(some))
            found += answer.addresses
        return tuple(found)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class BeaconReply(Value):
    """A beacon that has answered, and how far away it is."""

    beacon: LocationBeacon
    """The beacon, with its location."""
    round_trip: float
    """Seconds from a question to its answer: the shortest of all attempts."""
    protocol: Literal["udp", "tcp"]
    """How the beacon has answered."""


async def nearest(
    beacons: Iterable[LocationBeacon] | AsyncIterable[LocationBeacon],
    *,
    attempts: int = 3,
    timeout: float = 1.0,
    concurrency: int = 20,
) -> tuple[BeaconReply, ...]:
    """Measures the round trip from here to each beacon, and returns the nearest one first.

    ::

        replies = await nearest(client.locations.beacons())

    Beacons without an answer are left out: if none answers, the result is empty. The measurement
    takes `attempts` times `timeout` for each `concurrency` beacons at most.

    Args:
        beacons: what is measured, such as `client.locations.beacons()`.
        attempts: how often each beacon is asked, 1 or more.
        timeout: seconds that one attempt waits for an answer, above 0.
        concurrency: how many beacons are asked at once, 1 or more. Many at once delay each other.

    Raises:
        InvalidRequest: an argument cannot be used.
        CallError: `beacons` is a list of the API, which could not be read.
    """
    check_number("attempts", attempts, least=1, optional=False)
    check_number("timeout", timeout, above=0, optional=False)
    check_number("concurrency", concurrency, least=1, optional=False)
    if isinstance(beacons, AsyncIterable):
        beacons = [beacon async for beacon in beacons]
    every = items_of("beacons", beacons, LocationBeacon)
    left = iter(every)
    replies: list[BeaconReply] = []

    async def measure() -> None:
        for beacon in left:  # all tasks take from one iterator
            reply = await _measured(beacon, attempts, timeout)
            replies.extend([reply] if reply else [])

    async with asyncio.TaskGroup() as tasks:
        for _ in range(min(len(every), int(concurrency))):
            tasks.create_task(measure())
    return tuple(sorted(replies, key=lambda reply: reply.round_trip))


async def _measured(beacon: LocationBeacon, attempts: int, seconds: float) -> BeaconReply | None:
    """Returns the shortest round trip; None if the beacon does not answer."""
    host = beacon.host or beacon.fqdn
    if not host:
        return None
    udp, tcp = list[float](), list[float]()
    for _ in range(int(attempts)):
        async with asyncio.TaskGroup() as tasks:
            if beacon.udp_port:
                tasks.create_task(_add(udp, _udp(host, beacon.udp_port), seconds))
            if beacon.tcp_port:
                tasks.create_task(_add(tcp, _tcp(host, beacon.tcp_port), seconds))
    if not (udp or tcp):
        return None
    return BeaconReply(beacon=beacon, round_trip=min(udp or tcp), protocol="udp" if udp else "tcp")


async def _add(times: list[float], measurement: Coroutine[Any, Any, float], seconds: float) -> None:
    """Adds a round trip, if there is one in time."""
    # OSError: no answer, in time or at all. The others: an answer of the API may name a host or a
    # port that cannot exist.
    with contextlib.suppress(OSError, ValueError, OverflowError):
        async with asyncio.timeout(seconds):
            times.append(await measurement)


async def _tcp(host: str, port: int) -> float:
    began = loop_time()
    _, writer = await asyncio.open_connection(host, port)
    round_trip = loop_time() - began
    writer.transport.abort()  # nothing was written
    return round_trip


async def _udp(host: str, port: int) -> float:
    _, round_trip = await ask_by_datagram(host, port, secrets.token_bytes(_DATAGRAM_SIZE))
    return round_trip
