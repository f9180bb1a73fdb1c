"""A server that allows a number of calls in any second, and ways to make connecting to it slow."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Self

from aiohttp import web

from edgegap_async.http.api_client import ApiClient

__all__ = ["CALLS", "HOST", "LIMITS", "StrictServer", "call_often", "outage", "slow_dns"]

HOST = "localhost"
LIMITS = {"deploy": 40, "get_deployment": 20, "list_deployments": 10}
"""Calls a second, from the published reference and not from `edgegap_async.api.operations`."""

CALLS: dict[str, Callable[[ApiClient], Awaitable[object]]] = {
    "deploy": lambda client: client.deployments.deploy("arena", "v1", users=["192.0.2.1"]),
    "get_deployment": lambda client: client.deployments.get("abc123"),
    "list_deployments": lambda client: client.deployments.list().page(1),
}
"""How a client makes one call, by the name of its operation."""


class StrictServer:
    """The server; `async with` starts it. Its window is exactly one second long.

    Args:
        tls: the server's TLS context; None for plain HTTP.
        opening_time: seconds from the connection to the first byte that the server reads.
        limits: calls a second by operation, where fewer are allowed than documented.
        retry_after: the header of a 429; None for no header.

    Attributes:
        limits: calls a second that the server allows, by operation; may be changed.
        arrivals: the times at which calls arrived, by the loop's clock, by operation.
        refused: how many calls were answered with 429.
        connections: how many connections are open.
    """

    def __init__(
        self,
        *,
        tls: ssl.SSLContext | None = None,
        opening_time: float = 0.0,
        limits: Mapping[str, int] | None = None,
        retry_after: str | None = None,
    ) -> None:
        self._refusal = {} if retry_after is None else {"Retry-After": retry_after}
        self.limits = {**LIMITS, **(limits or {})}
        self.arrivals: dict[str, list[float]] = {name: [] for name in LIMITS}
        self.refused = 0
        self.connections = 0
        self._tls = tls
        self._opening_time = opening_time
        app = web.Application()
        deployment = {"request_id": "abc123", "current_status": "Status.READY"}
        page = {"data": [], "total_count": 0, "pagination": {"has_next": False}}
        app.router.add_post("/v2/deployments", self._answer("deploy", deployment, 202))
        app.router.add_get("/v1/status/abc123", self._answer("get_deployment", deployment, 200))
        app.router.add_get("/v1/deployments", self._answer("list_deployments", page, 200))
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)

    def _answer(
        self, name: str, body: object, status: int
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        window = deque[float]()

        async def answer(request: web.Request) -> web.Response:
            now = asyncio.get_running_loop().time()
            await request.read()
            self.arrivals[name].append(now)
            while window and window[0] <= now - 1:
                window.popleft()
            if len(window) >= self.limits[name]:
                self.refused += 1
                return web.Response(status=429, headers=self._refusal)
            window.append(now)
            return web.json_response(body, status=status)

        return answer

    @property
    def url(self) -> str:
        port = self._entrance.sockets[0].getsockname()[1]
        return f"{'https' if self._tls else 'http'}://{HOST}:{port}"

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._tls).start()
        self._entrance = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._entrance.close()
        await self._runner.cleanup()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carries the bytes of one connection to the server and back."""
        self.connections += 1
        try:
            await asyncio.sleep(self._opening_time)
            server = await asyncio.open_connection(*self._runner.addresses[0][:2])
            await asyncio.gather(_copy(reader, server[1]), _copy(server[0], writer))
        finally:
            self.connections -= 1
            writer.close()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(2**16):
            target.write(data)
    target.close()


@contextlib.asynccontextmanager
async def slow_dns(seconds: float) -> AsyncIterator[None]:
    """Makes each name resolution of this loop last a number of seconds."""
    loop: Any = asyncio.get_running_loop()
    resolve = loop.getaddrinfo

    async def slow(_: str, port: int, **options: Any) -> object:
        await asyncio.sleep(seconds)
        return await resolve("127.0.0.1", port, **options)

    loop.getaddrinfo = slow
    try:
        yield
    finally:
        loop.getaddrinfo = resolve


@contextlib.asynccontextmanager
async def outage(seconds: float) -> AsyncIterator[None]:
    """Lets no connection of this loop open for a number of seconds from now."""
    loop: Any = asyncio.get_running_loop()
    connect, ends_at = loop.sock_connect, loop.time() + seconds

    async def hang(socket: object, address: object) -> None:
        await asyncio.sleep(ends_at - loop.time())
        await connect(socket, address)

    loop.sock_connect = hang
    try:
        yield
    finally:
        loop.sock_connect = connect


async def call_often(client: ApiClient, name: str, count: int) -> None:
    """Makes a number of calls of one operation at once."""
    await asyncio.gather(*(CALLS[name](client) for _ in range(count)))
