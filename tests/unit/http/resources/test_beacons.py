"""`nearest` measures real sockets of this machine."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from edgegap_async import nearest
from edgegap_async.errors import InvalidRequest
from edgegap_async.models import LocationBeacon

HOST = "127.0.0.1"


class UdpBeacon(asyncio.DatagramProtocol):
    """Answers datagrams after a delay, or never, and counts the sockets that ask at once."""

    def __init__(self, delay: float | None) -> None:
        self.delay = delay
        self.asked = 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.asked += 1
        if self.delay is not None:
            loop = asyncio.get_running_loop()
            loop.call_later(self.delay, self._answer, data, addr)

    def _answer(self, data: bytes, addr: Any) -> None:
        if not self.transport.is_closing():
            self.transport.sendto(data, addr)


@contextlib.asynccontextmanager
async def udp_beacon(delay: float | None) -> AsyncIterator[tuple[UdpBeacon, LocationBeacon]]:
    loop = asyncio.get_running_loop()
    transport, beacon = await loop.create_datagram_endpoint(
        lambda: UdpBeacon(delay), local_addr=(HOST, 0)
    )
    port = transport.get_extra_info("sockname")[1]
    try:
        yield beacon, LocationBeacon(host=HOST, udp_port=port)
    finally:
        transport.close()


@contextlib.asynccontextmanager
async def tcp_beacon() -> AsyncIterator[LocationBeacon]:
    server = await asyncio.start_server(lambda _, writer: writer.close(), HOST, 0)
    async with server:
        yield LocationBeacon(host=HOST, tcp_port=server.sockets[0].getsockname()[1])


@pytest.mark.virtual
async def test_the_beacon_with_the_shortest_round_trip_is_the_first() -> None:
    async with udp_beacon(0.2) as (_, far), udp_beacon(0) as (asked, near):
        replies = await nearest([far, near], timeout=5)

    assert [reply.beacon for reply in replies] == [near, far]
    assert 0 < replies[0].round_trip < replies[1].round_trip
    assert replies[1].round_trip >= 0.2
    assert {reply.protocol for reply in replies} == {"udp"}
    assert asked.asked == 3


@pytest.mark.virtual
async def test_a_beacon_that_answers_no_datagram_is_measured_by_tcp() -> None:
    async with udp_beacon(None) as (silent, silent_beacon), tcp_beacon() as tcp:
        both = LocationBeacon(host=HOST, udp_port=silent_beacon.udp_port, tcp_port=tcp.tcp_port)
        [reply] = await nearest([both], attempts=2, timeout=0.1)

    assert (reply.beacon, reply.protocol) == (both, "tcp")
    assert silent.asked == 2


@pytest.mark.virtual
async def test_beacons_that_do_not_answer_are_left_out(closed_port: int, full_port: int) -> None:
    async with udp_beacon(None) as (_, silent), tcp_beacon() as near:
        others = [
            silent,
            LocationBeacon(host=HOST, udp_port=closed_port, tcp_port=closed_port),
            LocationBeacon(host=HOST, tcp_port=full_port),
            LocationBeacon(udp_port=7),
            LocationBeacon(host=HOST),
        ]
        found = await nearest([*others, near], attempts=1, timeout=0.2)

        assert [reply.beacon for reply in found] == [near]
        assert await nearest(others, attempts=1, timeout=0.2) == ()
    assert await nearest([]) == ()


async def test_only_so_many_beacons_are_asked_at_once() -> None:
    async with contextlib.AsyncExitStack() as stack:
        pairs = [await stack.enter_async_context(udp_beacon(None)) for _ in range(6)]
        beacons = [beacon for _, beacon in pairs]
        asking = asyncio.create_task(nearest(beacons, attempts=1, timeout=30, concurrency=2))
        async with asyncio.timeout(10):
            while sum(server.asked for server, _ in pairs) < 2:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)  # a third one would be asked by now

        assert sum(server.asked for server, _ in pairs) == 2
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking


@pytest.mark.parametrize(
    "impossible",
    [
        LocationBeacon(host="a" * 64, udp_port=1, tcp_port=1),
        LocationBeacon(fqdn="a..example", tcp_port=1),
        LocationBeacon(host="a\0b", udp_port=1),
        LocationBeacon(host="\ud800", tcp_port=1),
        LocationBeacon(host=HOST, udp_port=70_000, tcp_port=-1),
    ],
)
async def test_a_beacon_that_cannot_exist_is_left_out(impossible: LocationBeacon) -> None:
    async with tcp_beacon() as beacon:
        replies = await nearest([impossible, beacon], attempts=1)

    assert [reply.beacon for reply in replies] == [beacon]


@pytest.mark.parametrize(
    "wrong",
    [
        {"attempts": 0},
        {"timeout": 0},
        {"concurrency": 0},
        {"beacons": "b.example.com"},
        {"beacons": ["b.example.com"]},
    ],
)
async def test_arguments_of_nearest_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match=next(iter(wrong))):
        await nearest(**{"beacons": [], **wrong})
