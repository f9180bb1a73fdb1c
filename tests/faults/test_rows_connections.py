"""Faults before a request is sent: DNS, refused connections, TLS, resets. Rows 1 to 5."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import aiohttp.abc
import pytest
import trustme
from quick_client import deploy_error, is_not_sent, quick_client
from raw_server import raw_server, read_request

from edgegap_async import Timeouts
from edgegap_async.concurrency import loop_time

UNTRUSTED_CA = trustme.CA()


class NoSuchHost(aiohttp.abc.AbstractResolver):
    """A resolver that knows no host."""

    calls = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[aiohttp.abc.ResolveResult]:
        self.calls += 1
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def close(self) -> None:
        pass


async def test_row_01_a_host_without_a_dns_entry_is_resolved_again_and_named_in_the_error() -> None:
    resolver = NoSuchHost()
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=resolver)) as session,
        quick_client("https://no-such.invalid", session=session) as client,
    ):
        error = await deploy_error(client)

    assert is_not_sent(error, attempts=4)
    assert resolver.calls == 4
    assert "no-such.invalid" in str(error)


async def test_row_02_a_refused_connection_is_retried_and_nothing_was_sent(
    closed_port: int,
) -> None:
    async with quick_client(f"http://127.0.0.1:{closed_port}") as client:
        assert is_not_sent(await deploy_error(client), attempts=4)


@contextlib.asynccontextmanager
async def counting_proxy(port: int) -> AsyncIterator[tuple[int, list[str]]]:
    """Yields a port that forwards to another, and a list with an entry for each connection."""
    connections: list[str] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append("connection")
        onward_reader, onward_writer = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.closing(onward_writer):
            directions = [forward(reader, onward_writer), forward(onward_reader, writer)]
            await asyncio.gather(*directions)

    async with raw_server(talk) as proxy:
        yield proxy, connections


async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(2**16):
            writer.write(data)
            await writer.drain()
    writer.close()


async def answer_locations(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n" + b'{"locations":[]}')
    await writer.drain()


def server_context(ca: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(name).configure_cert(context)
    return context


def session_that_trusts(ca: trustme.CA) -> aiohttp.ClientSession:
    context = ssl.create_default_context()
    ca.configure_trust(context)
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context))


@pytest.mark.parametrize(
    ("issuer", "name"),
    [(UNTRUSTED_CA, "127.0.0.1"), (None, "api.example.com")],
    ids=["another CA", "another host"],
)
async def test_row_03_a_certificate_that_does_not_verify_ends_the_call_at_once(
    issuer: trustme.CA | None, name: str
) -> None:
    ca = trustme.CA()
    async with (
        raw_server(answer_locations, tls=server_context(issuer or ca, name)) as port,
        counting_proxy(port) as (proxy, connections),
        session_that_trusts(ca) as session,
        quick_client(f"https://127.0.0.1:{proxy}", session=session) as client,
    ):
        error = await deploy_error(client)

    assert is_not_sent(error, attempts=1)
    assert connections == ["connection"]
    assert "name that CA's file in SSL_CERT_FILE" in str(error)


async def test_row_03_a_server_with_an_old_tls_version_ends_the_call_at_once() -> None:
    received: list[bytes] = []

    async def speak_old_tls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.append(await reader.read(1))
        writer.write(b"\x15\x03\x01\x00\x02\x02\x46")  # fatal alert: protocol_version
        await writer.drain()
        await reader.read()

    async with (
        raw_server(speak_old_tls) as port,
        quick_client(f"https://127.0.0.1:{port}") as client,
    ):
        assert is_not_sent(await deploy_error(client), attempts=1)

    assert received == [b"\x16"]  # one handshake, and no plain HTTP


LIST_LOCATIONS = """
import asyncio
from edgegap_async import EdgegapClient

async def main():
    async with EdgegapClient() as client:
        await client.locations.list()

asyncio.run(main())
"""


async def test_row_03_a_private_ca_is_trusted_through_a_session_or_the_environment(
    tmp_path: Path,
) -> None:
    ca, file = trustme.CA(), tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(file)
    async with raw_server(answer_locations, tls=server_context(ca, "127.0.0.1")) as port:
        url = f"https://127.0.0.1:{port}"
        async with session_that_trusts(ca) as session, quick_client(url, session=session) as client:
            assert (await client.locations.list()).locations == ()

        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-X", "dev", "-W", "error", "-c", LIST_LOCATIONS),
            env={
                **os.environ,
                "SSL_CERT_FILE": str(file),
                "EDGEGAP_BASE_URL": url,
                "EDGEGAP_API_TOKEN": "t",
            },
        )
        assert await process.wait() == 0


@pytest.mark.virtual
async def test_row_04_a_connection_that_does_not_open_in_time_is_retried(
    full_port: int,
) -> None:
    timeouts = Timeouts(connect=3)
    async with quick_client(f"http://127.0.0.1:{full_port}", timeouts=timeouts) as client:
        began = loop_time()

        assert is_not_sent(await deploy_error(client), attempts=4)
        assert 12 <= loop_time() - began <= 13


async def test_row_05_a_reset_during_the_handshake_is_retried_and_nothing_was_sent() -> None:
    connections = 0

    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.read(1)  # of the handshake, after which the client sends its request
        writer.transport.abort()

    async with raw_server(reset) as port, quick_client(f"https://127.0.0.1:{port}") as client:
        assert is_not_sent(await deploy_error(client), attempts=4)

    assert connections == 4
