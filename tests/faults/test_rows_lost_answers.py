"""Faults after a request is sent: a proxy that cuts connections, slow answers. Rows 6 to 9."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable

import pytest
from emulator_record import living, requests_by_operation
from quick_client import USERS, quick_client
from raw_server import raw_server, read_request

from edgegap_async import Timeouts
from edgegap_async.emulator import Dribble, Emulator, Fault


@contextlib.asynccontextmanager
async def cutting_proxy(url: str, cut: Callable[[bytes, int], str]) -> AsyncIterator[str]:
    """Yields the URL of a proxy that cuts connections.

    Args:
        url: the server.
        cut: returns for a request, and its number on its connection, when the proxy closes the
            connection: "before" it forwards the request, "after", or "" for never.
    """
    port = int(url.rpartition(":")[2])

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = 0
        while request := await read_request(reader):
            number += 1
            moment = cut(request, number)
            if moment == "before":
                break
            onward_reader, onward_writer = await asyncio.open_connection("127.0.0.1", port)
            with contextlib.closing(onward_writer):
                head, _, body = request.partition(b"\r\n\r\n")
                onward_writer.write(head + b"\r\nConnection: close\r\n\r\n" + body)
                answer = await onward_reader.read()
            if moment == "after":
                writer.transport.abort()
                break
            writer.write(re.sub(rb"(?i)\r\nConnection: close", b"", answer))
            await writer.drain()

    async with raw_server(talk) as proxy:
        yield f"http://127.0.0.1:{proxy}"


async def test_row_06_an_answer_that_a_proxy_loses_makes_no_second_server(
    emulator: Emulator,
) -> None:
    to_lose = ["after"]

    def cut(request: bytes, _: int) -> str:
        return to_lose.pop() if request.startswith(b"POST") and to_lose else ""

    async with cutting_proxy(emulator.url, cut) as url, quick_client(url) as client:
        server = await client.deploy("arena", "v1", users=USERS)

        assert living(emulator) == {server.request_id}
    assert to_lose == []
    assert requests_by_operation(emulator)["deploy"] == 1


async def test_row_07_a_deploy_on_a_stale_connection_makes_one_server(
    emulator: Emulator,
) -> None:
    stale = 0

    def cut(request: bytes, number: int) -> str:
        nonlocal stale
        if not request.startswith(b"POST") or number == 1:
            return ""
        stale += 1
        return "before"

    async with cutting_proxy(emulator.url, cut) as url, quick_client(url) as client:
        servers = [await client.deploy("arena", "v1", users=USERS) for _ in range(3)]

        assert living(emulator) == {server.request_id for server in servers}
    assert stale > 0
    assert requests_by_operation(emulator)["deploy"] == 3


@pytest.mark.virtual
@pytest.mark.parametrize(("idle", "expected"), [(3, 1), (5, 2), (60, 2)])
@pytest.mark.parametrize("call", ["deploy", "stop", "status"])
async def test_row_07_a_connection_that_was_idle_for_5_s_is_not_used_again(
    call: str, idle: float, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # aiohttp measures idle time by the real clock, which does not advance here.
    monkeypatch.setattr("aiohttp.connector.monotonic", asyncio.get_running_loop().time)
    connections = 0

    async def keep_alive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while request := await read_request(reader):
            status = b"202 Accepted" if request.startswith(b"POST") else b"200 OK"
            body = b'{"request_id":"abc"}'
            writer.write(b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body)
            await writer.drain()

    async with raw_server(keep_alive) as port, quick_client(f"http://127.0.0.1:{port}") as client:
        for _ in range(2):
            if call == "deploy":
                await client.deployments.deploy("arena", "v1", users=USERS)
            else:
                await (client.deployments.stop if call == "stop" else client.deployments.get)("abc")
            await asyncio.sleep(idle)

    assert connections == expected


async def test_row_08_a_stop_whose_answer_a_proxy_loses_has_succeeded(
    emulator: Emulator,
) -> None:
    to_lose = ["after"]

    def cut(request: bytes, _: int) -> str:
        return to_lose.pop() if request.startswith(b"DELETE") and to_lose else ""

    async with cutting_proxy(emulator.url, cut) as url, quick_client(url) as client:
        server = await client.deploy("arena", "v1", users=USERS)
        await server.wait_ready(20)
        await client.deployments.stop(server.request_id)
        await server.wait_terminated(20)

        assert not living(emulator)
    assert requests_by_operation(emulator)["stop_deployment"] == 2


async def test_row_09_a_deploy_whose_answer_is_too_slow_is_found_by_its_tag(
    emulator: Emulator,
) -> None:
    emulator.faults.add(Fault("deploy", Dribble(interval=0.05)))
    async with (
        quick_client(emulator.url, timeouts=Timeouts(total=0.3)) as client,
        asyncio.timeout(20),
    ):
        server = await client.deploy("arena", "v1", users=USERS)

        assert living(emulator) == {server.request_id}
