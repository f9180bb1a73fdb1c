"""Connections of clients: what is not HTTP, what is too slow, and what must not be logged.

aiohttp's own server has no time limit for a body, keeps a connection without a request open for an
hour, answers malformed HTTP in plain text, and logs the raw request with its Authorization header.
A chunk that breaks in the middle of a body leaves aiohttp's handler waiting for ever. `HttpServer`
mends these five; it has no routes and knows no API.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

import attrs
from aiohttp import web
from aiohttp.http import RawRequestMessage

from edgegap_async.api.validation import number
from edgegap_async.errors import log_fields

from .responses import error_response

_log: Final = logging.getLogger(__name__)

_IDLE_TIMEOUT: Final = 300.0  # seconds between two requests; longer than pools of clients keep one
_LINGERING_TIME: Final = 2.0  # seconds for the rest of a body that is not needed
_MALFORMED: Final = "The request is not valid HTTP"

RespondTo = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@attrs.frozen(kw_only=True)
class Deadlines:
    """Seconds that a client has to send a request.

    Raises:
        InvalidRequest: a value is not above 0.
    """

    headers: float = attrs.field(default=10.0, validator=number(above=0))
    """Seconds from the opened connection, or from the first byte of a later request, until the
    headers are complete; then the connection is closed."""
    body: float = attrs.field(default=30.0, validator=number(above=0))
    """Seconds from the headers until the body is complete; then the answer is 408."""


class MalformedBody(Exception):
    """The body is not valid HTTP, or not what its Content-Encoding says."""


class BodyTooSlow(Exception):
    """The body was not complete in time."""


async def read_body(request: web.BaseRequest, deadlines: Deadlines) -> bytes:
    """Returns the body of a request.

    Raises:
        MalformedBody: the body is broken.
        BodyTooSlow: the time for it is over.
        web.HTTPRequestEntityTooLarge: it is larger than 1 MiB.
    """
    try:
        async with asyncio.timeout(deadlines.body):
            return await request.read()
    except TimeoutError:
        raise BodyTooSlow from None
    except (ConnectionError, web.HTTPException):
        raise
    except Exception as problem:  # noqa: BLE001 - see below
        # An invalid chunk, invalid compression: aiohttp's two parsers (C and Python) raise
        # different errors for each.
        raise MalformedBody(type(problem).__name__) from None


class _Connection(web.RequestHandler):
    """One connection."""

    __slots__ = ("_head_timeout", "_head_timer")

    def __init__(self, server: HttpServer, **options: Any) -> None:
        super().__init__(server, **options)
        self._head_timeout = server.deadlines.headers
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._start_head_timer()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._cancel_head_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        requests = self._request_count
        super().data_received(data)
        if self._request_count > requests:
            self._cancel_head_timer()
            self._end_broken_body()
        elif self._waiter is not None and not self._messages and self._head_timer is None:
            self._start_head_timer()  # idle until now: these bytes begin the next request

    def _start_head_timer(self) -> None:
        self._head_timer = self._loop.call_later(self._head_timeout, self.force_close)

    def _cancel_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _end_broken_body(self) -> None:
        """Ends the body that is being read if the parser has just failed in it.

        aiohttp queues the failure as another request, and the body never ends.
        """
        request = self._current_request
        if (
            request is not None
            and not isinstance(self._messages[-1][0], RawRequestMessage)
            and not request.content.is_eof()
        ):
            self._messages.clear()
            request.content.set_exception(web.RequestPayloadError(_MALFORMED))
            self.close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answers malformed HTTP. The log and the answer have nothing of what was sent."""
        del message
        name = type(exc).__name__
        is_malformed = status < 500  # noqa: PLR2004 - the client's fault
        _log.log(
            logging.WARNING if is_malformed else logging.ERROR,
            "malformed HTTP from %s: %s" if is_malformed else "a request from %s failed: %s",
            request.remote,
            name,
            extra=log_fields(status=status, remote=request.remote, error=name),
        )
        said = f"{_MALFORMED}: {name}" if is_malformed else "Internal error: see the emulator's log"
        answer = error_response(status, said)
        answer.force_close()
        return answer

    def log_exception(
        self, *_: object, exc_info: BaseException | None = None, **__: object
    ) -> None:
        """Logs an error of a connection by its type: its text may repeat the request."""
        _log.warning(
            "a connection was closed: %s", type(exc_info).__name__, extra=log_fields(exc_info)
        )


class HttpServer(web.Server):
    """Serves HTTP without routes.

    Args:
        respond: answers a request; its exceptions are answered 500 without a text.
        deadlines: seconds for headers and bodies.
    """

    def __init__(self, respond: RespondTo, deadlines: Deadlines) -> None:
        super().__init__(respond)
        self.deadlines = deadlines

    def __call__(self) -> web.RequestHandler:
        """Returns the protocol of a new connection."""
        return _Connection(
            self,
            loop=self._loop,
            access_log=None,
            keepalive_timeout=_IDLE_TIMEOUT,
            lingering_time=_LINGERING_TIME,
        )
