"""Sends one request over the network, once, and says what became of it.

Whether a request reached the API is a fact here and no guess: aiohttp tells, by its trace signal
`on_request_headers_sent`, when the head of a request goes out. What failed before is `NotSent`;
what failed after is `NoAnswer`. Exception types would lie: `ServerDisconnectedError` also comes
when the server has read all of it.

Reads are sent without the trace, which would make each a tenth dearer: whether a read arrived is of
no consequence, so what aiohttp says of a connection that was never made is good enough for them.

No aiohttp exception leaves this module, not even as a cause: theirs hold the request's headers,
and with them the token.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import sys
import warnings
import weakref
from collections.abc import Awaitable, Mapping
from contextvars import ContextVar
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import attrs
from yarl import URL

from edgegap_async.api.messages import HttpRequest, HttpResponse
from edgegap_async.api.operations import Operation
from edgegap_async.api.requests import Token
from edgegap_async.api.validation import number
from edgegap_async.errors import (
    CallError,
    ClientClosed,
    InvalidRequest,
    NoAnswer,
    NotSent,
    UnreadableAnswer,
    WrongLoop,
)

__all__ = ["VERSION", "SendState", "Timeouts", "Transport"]

VERSION: Final = "0.1.0"

_USER_AGENT: Final = (
    f"edgegap-async/{VERSION}"
    f" Python/{sys.version_info.major}.{sys.version_info.minor}"
    f" aiohttp/{aiohttp.__version__}"
)
_HEADERS: Final = {"User-Agent": _USER_AGENT}
_HEADERS_OF_A_BODY: Final = {**_HEADERS, "Content-Type": "application/json"}
_NO_BASE_URL: Final = "base_url must look like https://api.edgegap.com"
_MAX_CONNECTIONS: Final = 100  # requests of one operation, each on a connection of its own
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


@attrs.frozen(kw_only=True)
class Timeouts:
    """Seconds that one attempt of a call may take. Waiting for the limits is not counted."""

    total: float = attrs.field(default=30.0, validator=number(above=0))
    """From the connection to the answer's last byte."""
    connect: float = attrs.field(default=10.0, validator=number(above=0))
    """To open a connection."""


@attrs.define
class SendState:
    """What is known of a request under way."""

    sent: int = 0
    """How often its head went out. In a session that was passed in, aiohttp may repeat it once."""
    is_abandoned: bool = False
    """True once the caller is gone, so that the request is not sent again."""


_sending: ContextVar[tuple[aiohttp.TraceConfig, SendState] | None]
_sending = ContextVar("_sending", default=None)


class Transport:
    """A way to the API: a base URL and an aiohttp session.

    A session that was passed in is used as it is, and never closed.
    """

    _base_url = ""  # of one that could not be made, and is shown in that error's traceback

    def __init__(
        self,
        base_url: str,
        *,
        session: aiohttp.ClientSession | None,
        timeouts: Timeouts,
        allow_insecure: bool,
    ) -> None:
        self._base_url = _checked(base_url, allow_insecure=allow_insecure)
        self._timeout = aiohttp.ClientTimeout(
            total=None if timeouts.total == math.inf else timeouts.total,
            sock_connect=None if timeouts.connect == math.inf else timeouts.connect,
            ceil_threshold=float("inf"),  # else it rounds longer ones up to whole seconds
        )
        self._trace = _sent_trace()
        self._given = session
        self._sessions: dict[str, aiohttp.ClientSession] = {}
        # Who waits for a connection waits here: aiohttp would count it against his timeout.
        self._lanes: dict[str, asyncio.Semaphore] = {}
        self._closed = False

    def __repr__(self) -> str:
        return f"Transport({self._base_url!r})"

    def connection_slots(self, operation: Operation[Any]) -> asyncio.Semaphore:
        """The connections that an operation may have: whoever sends holds one."""
        lane = self._lanes.get(operation.name)
        if lane is None:
            lane = self._lanes[operation.name] = asyncio.Semaphore(_MAX_CONNECTIONS)
        return lane

    def _session(self, operation: Operation[Any]) -> aiohttp.ClientSession:
        if self._closed or (self._given is not None and self._given.closed):
            raise ClientClosed("the session is closed")
        session = self._sessions.get(operation.name)
        if session is None:
            session = self._sessions[operation.name] = self._open(operation)
        return session

    def _open(self, operation: Operation[Any]) -> aiohttp.ClientSession:
        """A session for one operation, with connections of its own.

        A hundred calls that get no answer take all connections of a session: of one that all
        share they would keep even a stop from going out.
        """
        if self._given is not None:
            if not self._sessions:
                if self._given._loop is not asyncio.get_running_loop():  # noqa: SLF001 - no public way
                    raise WrongLoop("the session that was passed in belongs to another event loop")
                self._given.trace_configs.append(self._trace)
            return self._given
        if not self._sessions:
            loop = asyncio.get_running_loop()
            weakref.finalize(self, _close_leaked, self._sessions, loop, self._base_url, os.getpid())
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                # A POST on a connection that the server just dropped is lost without a trace of
                # whether it arrived: let none get stale.
                keepalive_timeout=4.0,
                limit=_MAX_CONNECTIONS,
                ttl_dns_cache=60,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            trace_configs=[] if operation.method == "GET" else [self._trace],
        )
        # By itself it would send a GET or DELETE twice on a stale connection, without a permit.
        # There is no public way to say so; a test sees that it does not.
        session._retry_connection = False  # noqa: SLF001
        return session

    async def send(
        self, request: HttpRequest[Any], token: Token, sending: SendState
    ) -> HttpResponse:
        """The answer to a request, whatever its status. The caller holds its `lane`.

        Raises:
            NotSent: it did not go out.
            NoAnswer: it went out, and no whole answer came.
            UnreadableAnswer: the answer is larger than `request.largest`, or a redirect.
            ClientClosed: the session is closed.
            WrongLoop: the session that was passed in belongs to another event loop.
        """
        operation = request.operation
        is_read = operation.method == "GET"
        headers = _HEADERS if request.body is None else _HEADERS_OF_A_BODY
        before = sending.sent
        reset = None if is_read else _sending.set((self._trace, sending))
        try:
            response = await self._session(operation).request(
                operation.method,
                URL(self._base_url + request.target, encoded=True),
                data=request.body,
                headers={**headers, **token.header},
                allow_redirects=False,
                raise_for_status=False,  # as a session that was passed in might
                auto_decompress=True,
                timeout=self._timeout,
            )
            body = await _whole(response, request.max_bytes)
            if body is not None and not 300 <= response.status < 400:  # noqa: PLR2004 - redirects
                return HttpResponse(status=response.status, headers=response.headers, body=body)
            failure = _unusable(request, response, body)
        # TimeoutError is an OSError; ValueError is what a session that was passed in raises where
        # its own settings, such as `auth`, contradict what is sent.
        except (aiohttp.ClientError, OSError, ValueError) as error:
            never = isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)
            was_sent = not never if is_read else sending.sent > before
            failure = _failure(request, error, was_sent=was_sent)
        except asyncio.CancelledError as cancelled:
            # A traceback through aiohttp's frames might show their local variables: the headers.
            cancelled.__traceback__ = None
            raise
        finally:
            if reset is not None:
                _sending.reset(reset)
        # Raised here, outside of the `except`, it has no context to leak a header from.
        raise failure

    async def close(self) -> None:
        """Closes the session if it is our own. Twice is fine."""
        self._closed = True
        sessions = dict(self._sessions)
        self._sessions.clear()
        if self._given is None:
            # Each is closed, even if the wait for another is cancelled.
            async with contextlib.AsyncExitStack() as closing:
                for session in sessions.values():
                    closing.push_async_callback(session.close)
        elif sessions:
            self._given.trace_configs.remove(self._trace)


def _sent_trace() -> aiohttp.TraceConfig:
    """A trace that does not hold its transport, which is to go when its client is dropped."""
    trace = aiohttp.TraceConfig()

    async def note_sent(*_: object) -> None:
        under_way = _sending.get()
        # In a session that several clients share, the traces of all of them see each request.
        if under_way is not None and under_way[0] is trace:
            under_way[1].sent += 1

    trace.on_request_headers_sent.append(note_sent)
    trace.freeze()
    return trace


def _close_leaked(
    sessions: Mapping[str, aiohttp.ClientSession],
    loop: asyncio.AbstractEventLoop,
    base_url: str,
    process: int,
) -> None:
    """Closes what a transport left open that is gone, or that the end of the program finds.

    Not by `__del__`: what is collected together is finalized in no order, and aiohttp's sessions
    would complain first, in words that lead to no line of the caller's. (The sockets of a loop
    that is closed are asyncio's to close, which says so itself.)
    """
    if not sessions or os.getpid() != process:  # a fork shares its parent's connections
        return
    for session in sessions.values():
        connector = session.connector
        session.detach()
        if connector is not None:
            close = connector._close  # noqa: SLF001 - `close` would have to be awaited
            if loop.is_running():  # perhaps in another thread: collected is where memory is wanted
                loop.call_soon_threadsafe(close)
            else:
                close()
    warnings.warn(
        f"a client of {base_url} was not closed: use `async with EdgegapClient() as client`,"
        " or await client.close()",
        ResourceWarning,
        stacklevel=1,
    )


def _checked(base_url: str, *, allow_insecure: bool) -> str:
    try:
        parts = urlsplit(base_url)
        port = URL(base_url).port
        (parts.hostname or "").encode("idna")
    except ValueError:  # half an IPv6 address, or a port or a name that can be none
        raise InvalidRequest(_NO_BASE_URL) from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0:
        raise InvalidRequest(_NO_BASE_URL)
    if set(base_url) & set("?# ") or not base_url.isprintable():
        raise InvalidRequest(_NO_BASE_URL)
    if parts.username or parts.password:
        raise InvalidRequest("base_url must not hold a user or password")
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK and not allow_insecure:
        raise InvalidRequest(
            f"http://{parts.hostname} would show the token to the network: use https,"
            " or allow_insecure=True if that network is yours"
        )
    return base_url.rstrip("/")


def _whole(response: aiohttp.ClientResponse, max_bytes: int) -> Awaitable[bytes | None]:
    """The whole body, decompressed; None as soon as it is larger than allowed.

    Its connection is free then, or closed if reading ends in any other way: `async with` would do
    the same once more.
    """
    length = response.content_length
    if length is not None and length <= max_bytes and "Content-Encoding" not in response.headers:
        return response.read()
    return _read(response, max_bytes)


async def _read(response: aiohttp.ClientResponse, max_bytes: int) -> bytes | None:
    body = bytearray()
    try:
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > max_bytes:
                response.close()
                return None
    except BaseException:
        response.close()
        raise
    return bytes(body)


def _facts(request: HttpRequest[Any], status: int | None = None) -> dict[str, Any]:
    return {
        "operation": request.operation.name,
        "method": request.operation.method,
        "path": request.path,
        "status": status,
        "request_id": request.request_id,
    }


def _unusable(
    request: HttpRequest[Any], response: aiohttp.ClientResponse, body: bytes | None
) -> CallError:
    facts = _facts(request, response.status)
    if body is None:
        return UnreadableAnswer(f"the answer is larger than {request.max_bytes} bytes", **facts)
    try:
        to = urlsplit(response.headers.get("Location", "")).hostname or "the same host"
    except ValueError:  # half an IPv6 address
        to = "nowhere"
    return UnreadableAnswer(f"a redirect to {to}, which is not followed", **facts)


def _failure(request: HttpRequest[Any], error: BaseException, *, was_sent: bool) -> CallError:
    if isinstance(error, TimeoutError):
        text = "no answer in time"
    elif isinstance(error, aiohttp.ClientConnectorCertificateError):
        text = f"{error}; if it is of a CA of your own, name that CA's file in SSL_CERT_FILE"
    elif isinstance(error, aiohttp.ClientResponseError):
        text = error.message  # its str() has the query in it
    else:
        text = str(error)
    why = f"{text or 'the connection failed'} ({type(error).__name__})"
    if was_sent:
        return NoAnswer(why, **_facts(request))
    failure = NotSent(why, **_facts(request))
    # A certificate does not get better by trying again.
    failure.worth_repeating = not isinstance(error, aiohttp.ClientSSLError | ValueError)
    return failure
