"""A webhook receiver in each kind of server, raw requests to it, and an emulator that uses it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
import uvicorn
from aiohttp import web
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount

from edgegap_async import DeploymentHandle, EdgegapClient, WebhookReceiver
from edgegap_async.emulator import Application, AppPort, Emulator, Fault, Simulation, Timings

PATH = "/edgegap/webhooks"
PUBLIC = "https://mm.example"
ARENA = Application(name="arena", version="v1", argv=["no-such-program"], ports=[AppPort("game")])
USERS = ["8.8.8.8"]
WEBHOOK_FIELDS = ("webhook_on_ready", "webhook_on_error", "webhook_on_terminated")
HUGE = "Content-Length: 1000000000"
CHUNKED = "Transfer-Encoding: chunked"


async def _pass_on(request: Request, call_next: RequestResponseEndpoint) -> Response:
    return await call_next(request)


def _starlette(application: Any, path: str = PATH, **options: Any) -> Starlette:
    return Starlette(routes=[Mount(path, application)], **options)


def _fastapi(application: Any, path: str = PATH) -> FastAPI:
    outer = FastAPI()
    outer.mount(path, application)
    return outer


def _litestar(
    application: Any, path: str = PATH, *, copy_scope: bool = False, log: bool = False
) -> Any:
    from litestar import Litestar, Router, asgi  # slow to import
    from litestar.logging import LoggingConfig  # slow to import
    from litestar.middleware.logging import LoggingMiddlewareConfig  # slow to import

    outer, _, inner = path.strip("/").partition("/")
    handler = asgi(f"/{inner}", is_mount=True, copy_scope=copy_scope)(application)
    logged = LoggingMiddlewareConfig(request_log_fields=("method", "path"))
    return Litestar(
        [Router(f"/{outer}", route_handlers=[handler])],
        logging_config=LoggingConfig(
            configure_root_logger=False,
            handlers={},
            loggers={"litestar": {"level": "INFO", "propagate": True}},
        ),
        middleware=[logged.middleware] if log else [],
    )


APPLICATIONS: dict[str, Callable[[Any], Any]] = {
    "asgi alone": lambda application: application,
    "starlette": _starlette,
    "fastapi": _fastapi,
    "litestar": _litestar,
    "starlette, slash": lambda application: _starlette(application, f"{PATH}/"),
    "starlette, two mounts": lambda application: _starlette(
        _starlette(application, "/webhooks"), "/edgegap"
    ),
    "starlette, middleware": lambda application: _starlette(
        application, middleware=[Middleware(BaseHTTPMiddleware, dispatch=_pass_on)]
    ),
    "fastapi, slash": lambda application: _fastapi(application, f"{PATH}/"),
    "fastapi, two mounts": lambda application: _fastapi(
        _fastapi(application, "/webhooks"), "/edgegap"
    ),
    "litestar, slash": lambda application: _litestar(application, f"{PATH}/"),
    "litestar, copied scope": lambda application: _litestar(application, copy_scope=True),
    "litestar, request log": lambda application: _litestar(application, log=True),
}
"""What uvicorn runs, by front: makes it from the receiver's ASGI application."""

FRONTS = ("served", "attached", "asgi alone", "starlette", "fastapi", "litestar")
ALL_FRONTS = ("served", "attached", *APPLICATIONS)

each_front = pytest.mark.parametrize("front", FRONTS)


@contextlib.asynccontextmanager
async def receiver_in(front: str, **options: Any) -> AsyncIterator[WebhookReceiver]:
    """Runs a receiver in a server of the kind `front`."""
    if front == "served":
        async with WebhookReceiver(**options).serve() as receiver:
            yield receiver
        return
    with socket.create_server(("127.0.0.1", 0)) as listening:
        receiver = WebhookReceiver(f"http://127.0.0.1:{listening.getsockname()[1]}", **options)
        running = _in_aiohttp if front == "attached" else _in_uvicorn
        async with running(front, receiver, listening):
            yield receiver


@contextlib.asynccontextmanager
async def _in_aiohttp(
    _: str, receiver: WebhookReceiver, listening: socket.socket
) -> AsyncIterator[None]:
    application = web.Application(client_max_size=2**30)
    receiver.attach(application)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.SockSite(runner, listening).start()
        yield
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def _in_uvicorn(
    front: str, receiver: WebhookReceiver, listening: socket.socket
) -> AsyncIterator[None]:
    application = APPLICATIONS[front](receiver.asgi())
    config = uvicorn.Config(application, log_config=None, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield
    finally:
        server.should_exit = True
        await serving


async def send(url: str, *pieces: bytes, end: bool = False) -> bytes:
    """Returns what the server sends until it closes the connection or has sent one answer.

    Args:
        url: where to connect to.
        pieces: what is sent, in order; the rest is not sent if the server closes the connection.
        end: whether to end the connection after the last piece.
    """
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    received = b""
    try:
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
        if end and not writer.is_closing():
            with contextlib.suppress(OSError):
                writer.write_eof()
        with contextlib.suppress(ConnectionError):
            while b"\r\n\r\n" not in received and (piece := await reader.read(65536)):
                received += piece
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    return received


def head(url: str, *lines: str, method: str = "POST") -> bytes:
    """Returns a request up to its body."""
    return "\r\n".join(
        (f"{method} {urlsplit(url).path} HTTP/1.1", "Host: x", *lines, "", "")
    ).encode()


async def post(url: str, body: bytes = b"{}", *lines: str, method: str = "POST") -> int:
    """Sends a request and returns the status of the answer; 0 if the connection ended before."""
    request = head(url, f"Content-Length: {len(body)}", *lines, method=method) + body
    return status(await send(url, request))


def status(answer: bytes) -> int:
    """Returns the status of what `send` returned; 0 if that is empty."""
    return int(answer.split(b" ", 2)[1]) if answer else 0


@contextlib.asynccontextmanager
async def a_cloud(
    *faults: Fault, receiver: WebhookReceiver, ready_after: float = 20.0, **simulation: Any
) -> AsyncIterator[tuple[Emulator, EdgegapClient]]:
    """Runs an emulator whose servers are READY after `ready_after` seconds, and a client."""
    simulate = Simulation(ready_after=(ready_after, ready_after), **simulation)
    async with (
        Emulator([ARENA], timings=Timings.fast(), simulate=simulate, faults=faults) as emulator,
        EdgegapClient(emulator.token, base_url=emulator.url, webhooks=receiver) as client,
    ):
        yield emulator, client


def sources(server: DeploymentHandle) -> dict[str, str]:
    """Returns what each status of a deployment was learned from."""
    return {str(change.status): change.source for change in server.history}


def statuses(server: DeploymentHandle) -> list[str]:
    """Returns the statuses that a deployment had, in order."""
    return [str(change.status) for change in server.history]


def polling_requests(emulator: Emulator) -> int:
    """Returns how many status and list requests an emulator has received."""
    names = {"get_deployment", "list_deployments"}
    return sum(request.operation in names for request in emulator.requests)


def urls(emulator: Emulator, server: DeploymentHandle) -> dict[str, str]:
    """Returns the webhook URLs that the emulator got for a deployment, by kind."""
    request = emulator.cloud.deployments[server.request_id].request
    found = {name: getattr(request, name).url for name in WEBHOOK_FIELDS}
    return {name.removeprefix("webhook_on_"): url for name, url in found.items()}


async def status_of(session: aiohttp.ClientSession, url: str, body: bytes = b"{}") -> int:
    """Sends a webhook through aiohttp and returns the status of the answer."""
    async with session.post(url, data=body) as answer:
        return answer.status
