"""Forwards the external port of a game server to the fixed port that its program opens.

In a container a program opens its own port, such as 7777, and the cloud gives it another external
port. Here both are ports of this machine: datagrams and connections to the external port, on
127.0.0.1, go on to the program's port, also on 127.0.0.1. The program sees another address than
the player's; each player has one of their own, as behind a router.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, Final

import attrs

from .ports import check_descriptors
from .procfs import Route

_ADDRESS: Final = "127.0.0.1"
_MAX_PLAYERS: Final = 256  # of one UDP port; the one that was silent for longest makes room
_MAX_DATAGRAM: Final = 65536  # bytes
_DATAGRAMS_AT_ONCE: Final = 64  # before other work of the event loop
_BUFFER_BYTES: Final = 65536  # of a TCP connection, read at once


@attrs.define
class Traffic:
    """Payload that was forwarded so far."""

    received_bytes: int = 0
    """Bytes to the program."""
    sent_bytes: int = 0
    """Bytes from the program."""


class UdpForwarder:
    """Forwards datagrams from one port to another, and the answers back."""

    def __init__(self, address: str, external: int, internal: int, traffic: Traffic) -> None:
        self._loop = asyncio.get_running_loop()
        self._traffic = traffic
        self._target = (_ADDRESS, internal)
        self._players: OrderedDict[tuple[Any, ...], socket.socket] = OrderedDict()
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        try:
            self._socket.setblocking(False)
            self._socket.bind((address, external))
        except BaseException:
            self._socket.close()
            raise
        self._loop.add_reader(self._socket, self._forward)

    def _forward(self) -> None:
        for _ in range(_DATAGRAMS_AT_ONCE):
            try:
                data, player = self._socket.recvfrom(_MAX_DATAGRAM)
            except OSError:  # nothing is left, or an answer did not arrive
                return
            with contextlib.suppress(OSError):  # the program has not bound its port, or not now
                self._traffic.received_bytes += self._socket_of(player).send(data)

    def _socket_of(self, player: tuple[Any, ...]) -> socket.socket:
        known = self._players.get(player)
        if known is None:
            if len(self._players) >= _MAX_PLAYERS:
                self._forget(next(iter(self._players)))
            check_descriptors()
            known = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            known.setblocking(False)
            known.connect(self._target)
            self._players[player] = known
            self._loop.add_reader(known, functools.partial(self._answer, player, known))
        self._players.move_to_end(player)
        return known

    def _answer(self, player: tuple[Any, ...], source: socket.socket) -> None:
        for _ in range(_DATAGRAMS_AT_ONCE):
            with contextlib.suppress(ConnectionError):  # the program has closed its port
                try:
                    sent = self._socket.sendto(source.recv(_MAX_DATAGRAM), player)
                except BlockingIOError:
                    return
                self._traffic.sent_bytes += sent

    def _forget(self, player: tuple[Any, ...]) -> None:
        known = self._players.pop(player)
        self._loop.remove_reader(known)
        known.close()

    def close(self) -> None:
        """Forwards no more."""
        self._loop.remove_reader(self._socket)
        self._socket.close()
        for player in list(self._players):
            self._forget(player)


class TcpForwarder:
    """Forwards connections from one port to another."""

    def __init__(self, internal: int, traffic: Traffic) -> None:
        self._internal = internal
        self._traffic = traffic
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def open(self, address: str, external: int) -> None:
        """Starts to listen.

        Raises:
            OSError: the port is in use.
        """
        self._server = await asyncio.start_server(
            self._forward, address, external, limit=_BUFFER_BYTES
        )

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - `start_server` makes one
        self._connections.add(task)
        try:
            inside, outside = await asyncio.open_connection(_ADDRESS, self._internal)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(_copy(reader, outside, self._count_received))
                    group.create_task(_copy(inside, writer, self._count_sent))
            finally:
                outside.close()
        except* OSError:
            pass  # the program does not listen, or one of the two has gone
        except* asyncio.CancelledError:
            pass  # this is closed
        finally:
            writer.close()
            self._connections.discard(task)

    def _count_received(self, count: int) -> None:
        self._traffic.received_bytes += count

    def _count_sent(self, count: int) -> None:
        self._traffic.sent_bytes += count

    def close(self) -> None:
        """Forwards no more, and closes each connection."""
        if self._server is not None:
            self._server.close()
        for connection in self._connections:
            connection.cancel()


async def _copy(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, count: Callable[[int], None]
) -> None:
    while data := await reader.read(_BUFFER_BYTES):
        writer.write(data)
        await writer.drain()
        count(len(data))
    with contextlib.suppress(OSError):
        writer.write_eof()


class PortForwarder:
    """Forwards external ports of one deployment. `PortForwarder.open` makes it."""

    def __init__(self) -> None:
        self._parts: list[UdpForwarder | TcpForwarder] = []
        self.traffic: Traffic = Traffic()
        """What it has forwarded."""

    @classmethod
    async def open(cls, routes: Iterable[Route], address: str = _ADDRESS) -> PortForwarder:
        """Forwards these ports.

        Args:
            routes: the ports.
            address: the address of this machine on which external ports are opened.

        Raises:
            OSError: an external port is in use.
        """
        forwarder = cls()
        try:
            for kind, external, internal in routes:
                if kind == "udp":
                    forwarder._parts.append(
                        UdpForwarder(address, external, internal, forwarder.traffic)
                    )
                else:
                    tcp = TcpForwarder(internal, forwarder.traffic)
                    await tcp.open(address, external)
                    forwarder._parts.append(tcp)
        except BaseException:
            forwarder.close()
            raise
        return forwarder

    def close(self) -> None:
        """Forwards no more."""
        for part in self._parts:
            part.close()
        self._parts.clear()
