"""An HTTP proxy on loopback that opens tunnels with CONNECT, and records what it sees."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
from collections.abc import AsyncIterator

import attrs
from raw_server import raw_server, read_request

__all__ = ["ConnectProxy", "connect_proxy"]


@attrs.define
class ConnectProxy:
    """A running proxy."""

    url: str
    """Scheme, host and port, without credentials."""
    requests: list[bytes]
    """The heads that it received, oldest first."""
    passed_on: bytearray
    """What clients sent through its tunnels."""

    def url_with(self, credentials: str) -> str:
        """Returns its URL with credentials, such as `user:password`."""
        return self.url.replace("://", f"://{credentials}@")


@contextlib.asynccontextmanager
async def connect_proxy(
    *,
    credentials: str | None = None,
    status: bytes = b"",
    to_port: int | None = None,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[ConnectProxy]:
    """Runs a proxy.

    Args:
        credentials: what clients must send, `user:password`; None for nothing.
        status: status and reason with which it answers, to open no tunnel; empty to open tunnels.
        to_port: the port of this machine that every tunnel goes to; None for the requested one.
        tls: to speak TLS with its clients.
    """
    wanted = credentials and b"Basic " + base64.b64encode(credentials.encode())
    proxy = ConnectProxy("", [], bytearray())

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await read_request(reader)
        proxy.requests.append(head)
        answer = status
        if wanted and b"proxy-authorization: " + wanted.lower() not in head.lower():
            answer = b"407 Proxy Authentication Required"
        if answer or not head.startswith(b"CONNECT "):
            status_line = answer or b"405 Method Not Allowed"
            writer.write(b"HTTP/1.1 " + status_line + b"\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
            return
        host, _, port = head.split()[1].decode().rpartition(":")
        onward = await asyncio.open_connection(
            host if to_port is None else "127.0.0.1", to_port or int(port)
        )
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with contextlib.closing(onward[1]):
            await asyncio.gather(
                _forward(reader, onward[1], proxy.passed_on), _forward(onward[0], writer)
            )

    async with raw_server(talk, tls=tls) as port:
        proxy.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
        yield proxy


async def _forward(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: bytearray | None = None
) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(2**16):
            if seen is not None:
                seen += data
            writer.write(data)
            await writer.drain()
    writer.close()
