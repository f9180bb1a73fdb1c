"""The beacon: a server that answers pings, at the address of every location's beacon.

All locations are on this machine, so that one socket of each kind answers for them.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import attrs

_HOST: Final = "127.0.0.1"
_MAX_PORT: Final = 59999  # of the description; the kernel gives higher ports, too


class _Echo(asyncio.DatagramProtocol):
    _transport: asyncio.DatagramTransport

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._transport.sendto(data, addr)


@attrs.define
class Beacon:
    """Sends each UDP datagram back, and accepts and closes TCP connections."""

    udp_port: int
    """The UDP port."""
    tcp_port: int
    """The TCP port."""
    _udp: asyncio.DatagramTransport = attrs.field(alias="udp")
    _tcp: asyncio.Server = attrs.field(alias="tcp")

    @classmethod
    async def start(cls) -> Beacon:
        """Starts it on free ports of loopback."""
        loop = asyncio.get_running_loop()
        while True:
            udp, _ = await loop.create_datagram_endpoint(_Echo, local_addr=(_HOST, 0))
            tcp = await asyncio.start_server(lambda _, writer: writer.close(), _HOST, 0)
            beacon = cls(
                udp_port=udp.get_extra_info("sockname")[1],
                tcp_port=tcp.sockets[0].getsockname()[1],
                udp=udp,
                tcp=tcp,
            )
            if max(beacon.udp_port, beacon.tcp_port) <= _MAX_PORT:
                return beacon
            beacon.close()

    def close(self) -> None:
        """Closes both ports."""
        self._udp.close()
        self._tcp.close()
