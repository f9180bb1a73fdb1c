"""A request at a webhook URL: read from, and answered through, either kind of server.

What is right about a webhook is decided in `webhooks`, once. Here is what differs between aiohttp
and ASGI: how a body comes in pieces, how an answer goes out, and where the server would log the
URL, whose secret is nobody's business.

Whoever is answered before all of the body was read is hung up on. Neither server would: aiohttp
reads on for ten seconds and logs what it finds wrong there as an unhandled exception, uvicorn
reads on for as long as something comes. So a stranger has one connection for one request. And only
whose body is going to be read is told to send it, if he waits for that (`Expect: 100-continue`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

if TYPE_CHECKING:
    from aiohttp import web

__all__ = [
    "AsgiApplication",
    "IncomingRequest",
    "IncompleteBody",
    "RequestHandler",
    "aiohttp_application",
    "aiohttp_server",
    "asgi_application",
]

_IDLE_TIMEOUT: Final = 15.0  # seconds for the head of a request to come, and between two

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Scope]]
Send: TypeAlias = Callable[[Scope], Awaitable[None]]
AsgiApplication: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]


class IncompleteBody(Exception):
    """A body that will not come whole."""


class IncomingRequest(Protocol):
    """A request whose body is still to be read."""

    method: str
    path: str

    def header(self, name: str) -> str:
        """A header by its lower-case name; empty if it did not come."""
        ...

    async def read(self) -> bytes:
        """The next piece of the body, empty at its end.

        Raises:
            Broken: there is no more, and no end.
        """
        ...

    def hide(self, path: str) -> None:
        """Let the server log this path in place of its own."""
        ...


RequestHandler: TypeAlias = Callable[[IncomingRequest], Awaitable[int]]
"""Returns the status of the answer."""


# ── aiohttp ──────────────────────────────────────────────────────────────────────────────────────


class _AiohttpRequest:
    def __init__(self, request: web.BaseRequest) -> None:
        self.method = request.method
        self.path = request.path
        self.is_whole = False
        self._request = request
        self._is_awaited = request.headers.get("Expect", "").lower() == "100-continue"

    def header(self, name: str) -> str:
        return self._request.headers.get(name, "")

    async def read(self) -> bytes:
        if self._is_awaited and self._request.transport is not None:
            self._is_awaited = False
            self._request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        try:
            piece = await self._request.content.readany()
        except Exception as error:
            # Chunks that are none, a compression that is none, a caller who is gone: the parsers,
            # in C and in Python, have an error of their own for each.
            raise IncompleteBody from error
        self.is_whole = not piece
        return piece

    def hide(self, path: str) -> None:
        # There is no public way; a test sees that it works.
        self._request._rel_url = self._request.rel_url.with_path(path)  # noqa: SLF001


def aiohttp_application(
    judge: RequestHandler, *, opened: Callable[[], None], close: Callable[[], Awaitable[None]]
) -> web.Application:
    """An aiohttp application; `opened` and `close` are called where it begins and ends."""
    from aiohttp import web  # noqa: PLC0415 - a tenth of the package's import time

    async def on_startup(_: web.Application) -> None:
        opened()

    async def on_shutdown(_: web.Application) -> None:
        await close()

    async def expected(_: web.Request) -> None:
        # aiohttp's own would answer before us, and leave the URL in the access log as it came.
        return

    application = web.Application()
    application.router.add_route(
        "*", "/{anything:.*}", _aiohttp_handler(judge), expect_handler=expected
    )
    application.on_startup.append(on_startup)
    application.on_shutdown.append(on_shutdown)
    return application


def aiohttp_server(
    judge: RequestHandler, *, most: int, crowded: Callable[[], None], logger: logging.Logger
) -> web.Server:
    """A bare server. It hangs up on who is silent or slow, and on who comes when it is full.

    Args:
        judge: what answers.
        most: connections that are open at once. Those beyond are closed as they come.
        crowded: called when one is.
        logger: told of what is not HTTP.
    """
    from aiohttp import web  # noqa: PLC0415 - as above

    class Server(web.Server):
        def connection_made(
            self, handler: web.RequestHandler, transport: asyncio.Transport
        ) -> None:
            super().connection_made(handler, transport)
            if len(self.connections) > most:
                crowded()
                transport.close()

    # The URLs are secret, so no access log; what is compressed is refused, not unpacked.
    return Server(
        _aiohttp_handler(judge),
        logger=logger,
        access_log=None,
        auto_decompress=False,
        handler_cancellation=True,
        keepalive_timeout=_IDLE_TIMEOUT,
    )


def _aiohttp_handler(
    judge: RequestHandler,
) -> Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]:
    from aiohttp import web  # noqa: PLC0415 - as above

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        arrival = _AiohttpRequest(request)
        status = await judge(arrival)
        answer = web.Response(status=status, headers=_allowed(status))
        if not arrival.is_whole:
            answer.force_close()
        if not request.content.is_eof():
            with contextlib.suppress(ConnectionError):  # hung up before we could
                await answer.prepare(request)
                await answer.write_eof()
            request.protocol.force_close()
        return answer

    return handle


# ── ASGI ─────────────────────────────────────────────────────────────────────────────────────────


class _AsgiRequest:
    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.is_whole = False
        self.is_gone = False
        self._scope = scope
        self._receive = receive

    def header(self, name: str) -> str:
        wanted = name.encode()
        values = (value for key, value in self._scope["headers"] if key.lower() == wanted)
        return bytes(next(values, b"")).decode("latin-1")

    async def read(self) -> bytes:
        piece = b""
        while not piece and not self.is_whole:
            message = await self._receive()
            if message["type"] != "http.request":
                self.is_gone = True
                raise IncompleteBody
            piece = message.get("body", b"")
            self.is_whole = not message.get("more_body", False)
        return piece

    def hide(self, path: str) -> None:
        # Servers log from the scope, when the answer starts.
        self._scope["path"] = path
        self._scope["raw_path"] = path.encode()


def asgi_application(
    judge: RequestHandler, *, opened: Callable[[], None], close: Callable[[], Awaitable[None]]
) -> AsgiApplication:
    """An ASGI 3 application; `opened` and `close` are called where it runs alone."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await _answer(judge, scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})
        elif scope["type"] == "lifespan":
            await receive()
            opened()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await close()
            await send({"type": "lifespan.shutdown.complete"})

    return application


async def _answer(judge: RequestHandler, scope: Scope, receive: Receive, send: Send) -> None:
    arrival = _AsgiRequest(scope, receive)
    status = await judge(arrival)
    if not arrival.is_whole:
        # Where uvicorn has refused the request's next bytes by itself, it learns of that now, or
        # takes our answer for a mistake of ours.
        await asyncio.sleep(0)
    if arrival.is_gone:
        return
    headers = _allowed(status)
    if status != HTTPStatus.NO_CONTENT:
        headers["Content-Length"] = "0"
    # Later versions of HTTP have no such header: they end the one request.
    if not arrival.is_whole and scope["http_version"].startswith("1"):
        headers["Connection"] = "close"
    lines = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": lines})
    await send({"type": "http.response.body", "body": b""})


def _allowed(status: int) -> dict[str, str]:
    return {"Allow": "POST"} if status == HTTPStatus.METHOD_NOT_ALLOWED else {}
