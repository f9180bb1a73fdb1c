"""The calls about IP addresses."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from edgegap_async.api.requests import IpAddress
from edgegap_async.api.resources.locations import (
    GET_PUBLIC_IP,
    LOCATE_IP,
    LOCATE_IPS,
    MAX_ADDRESSES,
    Addresses,
    LocatedAddress,
    PublicAddress,
)
from edgegap_async.api.validation import check_list

from .resource import Resource


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
