"""Adapts the receiver to two kinds of server, aiohttp and ASGI.

`receiver` decides what is accepted. This module holds the differences between the servers: how a
body comes in chunks, how an answer is sent, and where the server would log the URL with its secret.

A connection is closed if the request is answered before its whole body was read. Neither server
does this by itself: aiohttp reads on for ten seconds and logs what it finds as an unhandled
exception, uvicorn reads on as long as data comes. So a caller without a secret can send one request
for each connection. `100 Continue` is sent only where the body is going to be read.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from edgegap_async.api.requests import WEBHOOK_KINDS

if TYPE_CHECKING:
    from aiohttp import web

_IDLE_TIMEOUT: Final = 15.0  # seconds for the head of a request, and between two requests
_ACCESS_LOGS: Final = ("uvicorn.access", "hypercorn.access", "gunicorn.access", "litestar")
_KINDS: Final = "|".join(WEBHOOK_KINDS.values())
_SECRET_IN_TEXT: Final = re.compile(rf"/[A-Za-z0-9_-]{{43,86}}(?=/+(?:{_KINDS}))")
HIDDEN: Final = "hidden"
"""Stands in logs in place of the secret of a webhook URL."""

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Scope]]
Send: TypeAlias = Callable[[Scope], Awaitable[None]]
AsgiApplication: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]


class WebhookSecretFilter(logging.Filter):
    """Hides the secrets of webhook URLs in log records.

    The receiver's ASGI application adds it to the logs of uvicorn, hypercorn, gunicorn, Litestar.
    If your program logs the paths of requests by itself, add it to the handler of that log:
    `handler.addFilter(WebhookSecretFilter())`.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Hides the secrets in the record's message and arguments. Returns True."""
        record.msg = _without_secrets(record.msg)
        if isinstance(record.args, tuple):
            record.args = tuple(map(_without_secrets, record.args))
        elif isinstance(record.args, dict):
            record.args.update({key: _without_secrets(of) for key, of in record.args.items()})
        return True


def _without_secrets(value: Any) -> Any:
    return _SECRET_IN_TEXT.sub(f"/{HIDDEN}", value) if isinstance(value, str) else value


_SECRET_FILTER: Final = WebhookSecretFilter()


def _hide_secrets_in_access_logs() -> None:
    for name in _ACCESS_LOGS:
        logging.getLogger(name).addFilter(_SECRET_FILTER)  # adds it once


class IncompleteBody(Exception):
    """The body ends before it is complete, or is not valid HTTP."""


class IncomingRequest(Protocol):
    """A request whose head has been read, and whose body has not."""

    method: str
    """The HTTP method, in capitals."""
    path: str
    """The path of the URL, without the query."""

    def header(self, name: str) -> str:
        """Returns a header by its lower-case name; empty if the request has none."""
        ...

    async def read(self) -> bytes:
        """Returns the next chunk of the body; empty at its end.

        Raises:
            IncompleteBody: the connection ended, or the body is not valid HTTP.
        """
        ...

    def set_logged_path(self, path: str) -> None:
        """Replaces the path in the server's log."""
        ...


RequestHandler: TypeAlias = Callable[[IncomingRequest], Awaitable[int]]
"""Handles a request and returns the HTTP status of the answer."""


# ── aiohttp ──────────────────────────────────────────────────────────────────────────────────────


class _AiohttpRequest:
    def __init__(self, request: web.BaseRequest) -> None:
        self.method = request.method
        self.path = request.path
        self.is_complete = False
        self._request = request
        self._expects_continue = request.headers.get("Expect", "").lower() == "100-continue"

    def header(self, name: str) -> str:
        return self._request.headers.get(name, "")

    async def read(self) -> bytes:
        if self._expects_continue and self._request.transport is not None:
            self._expects_continue = False
            self._request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        try:
            chunk = await self._request.content.readany()
        except Exception as error:
            # An invalid chunk, invalid compression, a closed connection: aiohttp's two parsers (C
            # and Python) raise different errors for each.
            raise IncompleteBody from error
        self.is_complete = not chunk
        return chunk

    def set_logged_path(self, path: str) -> None:
        # aiohttp has no public way; a test checks that this one works.
        self._request._rel_url = self._request.rel_url.with_path(path)  # noqa: SLF001 - see above


def aiohttp_application(
    handler: RequestHandler,
    *,
    on_startup: Callable[[], None],
    on_shutdown: Callable[[], Awaitable[None]],
) -> web.Application:
    """Returns an aiohttp application that answers every request with the handler's status."""
    from aiohttp import web  # a tenth of the package's import time

    async def start(_: web.Application) -> None:
        on_startup()

    async def shut_down(_: web.Application) -> None:
        await on_shutdown()

    async def ignore_expect(_: web.Request) -> None:
        # aiohttp's own handler would answer first, and the access log would show the secret.
        return

    application = web.Application()
    application.router.add_route(
        "*", "/{anything:.*}", _aiohttp_handler(handler), expect_handler=ignore_expect
    )
    application.on_startup.append(start)
    application.on_shutdown.append(shut_down)
    return application


def aiohttp_server(
    handler: RequestHandler,
    *,
    max_connections: int,
    on_overflow: Callable[[], None],
    logger: logging.Logger,
) -> web.Server:
    """Returns an aiohttp server without routes. It closes connections that are idle for 15 s.

    Args:
        handler: answers the requests.
        max_connections: connections that are open at once; further ones are closed as they come.
        on_overflow: called for each connection that is closed so.
        logger: gets the errors of requests that are not HTTP.
    """
    from aiohttp import web  # slow to import

    class Server(web.Server):
        def connection_made(
            self, handler: web.RequestHandler, transport: asyncio.Transport
        ) -> None:
            super().connection_made(handler, transport)
            if len(self.connections) > max_connections:
                on_overflow()
                transport.close()

    # No access log, because the URLs are secret. The receiver rejects compressed bodies, so nothing
    # is decompressed.
    return Server(
        _aiohttp_handler(handler),
        logger=logger,
        access_log=None,
        auto_decompress=False,
        handler_cancellation=True,
        keepalive_timeout=_IDLE_TIMEOUT,
    )


def _aiohttp_handler(
    handler: RequestHandler,
) -> Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]:
    from aiohttp import web  # slow to import

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        incoming = _AiohttpRequest(request)
        status = await handler(incoming)
        response = web.Response(status=status, headers=_extra_headers(status))
        if not incoming.is_complete:
            response.force_close()
        if not request.content.is_eof():
            with contextlib.suppress(ConnectionError):  # the caller has closed it already
                await response.prepare(request)
                await response.write_eof()
            request.protocol.force_close()
        return response

    return handle


# ── ASGI ─────────────────────────────────────────────────────────────────────────────────────────


class _AsgiRequest:
    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.is_complete = False
        self.is_disconnected = False
        self._scope = scope
        self._receive = receive

    def header(self, name: str) -> str:
        wanted = name.encode()
        values = (value for key, value in self._scope["headers"] if key.lower() == wanted)
        return bytes(next(values, b"")).decode("latin-1")

    async def read(self) -> bytes:
        chunk = b""
        while not chunk and not self.is_complete:
            message = await self._receive()
            if message["type"] != "http.request":
                self.is_disconnected = True
                raise IncompleteBody
            chunk = message.get("body", b"")
            self.is_complete = not message.get("more_body", False)
        return chunk

    def set_logged_path(self, path: str) -> None:
        # ASGI servers log the scope's path when the answer starts. A framework may have passed on a
        # copy of the scope, or log the path itself: the filter hides the secret then.
        _hide_secrets_in_access_logs()
        self._scope["path"] = path
        self._scope["raw_path"] = path.encode()


def asgi_application(
    handler: RequestHandler,
    *,
    on_startup: Callable[[], None],
    on_shutdown: Callable[[], Awaitable[None]],
) -> AsgiApplication:
    """Returns an ASGI 3 application; `on_startup` and `on_shutdown` are called if it runs alone."""
    _hide_secrets_in_access_logs()

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await _respond(handler, scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})
        elif scope["type"] == "lifespan":
            await receive()
            on_startup()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await on_shutdown()
            await send({"type": "lifespan.shutdown.complete"})

    return application


async def _respond(handler: RequestHandler, scope: Scope, receive: Receive, send: Send) -> None:
    incoming = _AsgiRequest(scope, receive)
    status = await handler(incoming)
    if not incoming.is_complete:
        # If uvicorn has rejected the next bytes of the request itself, it processes that now.
        # Otherwise it would log our answer as an error of this application. Twice: if tasks begin
        # at once, the end of the connection comes a step later.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    if incoming.is_disconnected:
        return
    headers = _extra_headers(status)
    if status != HTTPStatus.NO_CONTENT:
        headers["Content-Length"] = "0"
    # HTTP/2 and later have no such header: they end the single request.
    if not incoming.is_complete and scope["http_version"].startswith("1"):
        headers["Connection"] = "close"
    lines = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": lines})
    await send({"type": "http.response.body", "body": b""})


def _extra_headers(status: int) -> dict[str, str]:
    return {"Allow": "POST"} if status == HTTPStatus.METHOD_NOT_ALLOWED else {}
