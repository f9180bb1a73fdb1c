"""A webhook receiver behind each kind of server that it can run in, on real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from aiohttp import web
from fastapi import FastAPI
from starlette.applications import Starlette

from edgegap_async import WebhookReceiver

__all__ = ["FRONTS", "head", "post", "receiver_in", "send", "status"]

FRONTS = ("served", "attached", "asgi alone", "starlette", "fastapi")
PATH = "/edgegap/webhooks"


@contextlib.asynccontextmanager
async def receiver_in(front: str, **options: Any) -> AsyncIterator[WebhookReceiver]:
    """A receiver that is running in such a server."""
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
    application: Any = receiver.asgi()
    if front == "starlette":
        application = Starlette()
        application.mount(PATH, receiver.asgi())
    elif front == "fastapi":
        application = FastAPI()
        application.mount(PATH, receiver.asgi())
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
    """All that comes back, until the server ends the connection or has sent one answer.

    Args:
        url: where to connect to.
        pieces: what is sent, one after the other; the rest is kept when the server has ended it.
        end: whether to send an end after the last piece.
    """
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    came = b""
    try:
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
        if end and not writer.is_closing():
            with contextlib.suppress(OSError):
                writer.write_eof()
        with contextlib.suppress(ConnectionError):
            while b"\r\n\r\n" not in came and (piece := await reader.read(65536)):
                came += piece
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    return came


def head(url: str, *lines: str, method: str = "POST") -> bytes:
    """A request up to its body."""
    return "\r\n".join(
        (f"{method} {urlsplit(url).path} HTTP/1.1", "Host: x", *lines, "", "")
    ).encode()


async def post(url: str, body: bytes = b"{}", *lines: str, method: str = "POST") -> int:
    """The status that a request is answered; 0 if its connection ended in place of an answer."""
    request = head(url, f"Content-Length: {len(body)}", *lines, method=method) + body
    return status(await send(url, request))


def status(answer: bytes) -> int:
    """The status of what `send` returned; 0 if that is nothing."""
    return int(answer.split(b" ", 2)[1]) if answer else 0
