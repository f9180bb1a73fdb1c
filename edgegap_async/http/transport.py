"""Sends one request over the network, once, and reports what happened to it.

**Problem.** After a failure the client must know whether the request reached the API, because a
deploy that reached it must not be repeated. Exception types do not say: aiohttp also raises
`ServerDisconnectedError` when the server has read the whole request.

**Rule.** aiohttp's trace signal `on_request_headers_sent` reports when the head of a request was
sent. A failure before the signal is `NotSent`; a failure after it is `NoAnswer`.

GET requests are sent without the trace, which would add a tenth to their cost. They change nothing,
so aiohttp's exception type is exact enough: a connection that was never opened is `NotSent`.

A call that opens a connection takes its permit again when the connection is open (`CallPermit`).
Own sessions do so in their connector. A session that was passed in has a connector of its own, so
there the trace does it, where the head is about to be sent.

No aiohttp exception leaves this module, not even as a cause: aiohttp's exceptions hold the headers
of the request, and so the token.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import math
import os
import sys
import warnings
import weakref
from collections.abc import Awaitable, Mapping
from contextvars import ContextVar
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import aiohttp
import attrs
from aiohttp.client_proto import ResponseHandler
from aiohttp.tracing import Trace
from yarl import URL

from edgegap_async.api.messages import HttpRequest, HttpResponse, without_secrets
from edgegap_async.api.operations import Operation
from edgegap_async.api.requests import Token
from edgegap_async.api.validation import number
from edgegap_async.api.values import Value, one_line
from edgegap_async.concurrency import Deadline, Deadlines, local_servers, loop_time
from edgegap_async.errors import (
    CallError,
    ClientClosed,
    LimitReached,
    NoAnswer,
    NotSent,
    UnreadableAnswer,
    WrongLoop,
)

from .access import Proxy, check_proxied, checked_base_url, port_of_this_machine

if TYPE_CHECKING:
    from .call import CallPermit

VERSION: Final = "0.1.0"

_USER_AGENT: Final = (
    f"edgegap-async/{VERSION}"
    f" Python/{sys.version_info.major}.{sys.version_info.minor}"
    f" aiohttp/{aiohttp.__version__}"
)
_HEADERS: Final = {"User-Agent": _USER_AGENT}
_JSON_HEADERS: Final = {**_HEADERS, "Content-Type": "application/json"}
_MAX_CONNECTIONS: Final = 100  # of one operation, each with one request at a time
_KEEPALIVE_TIME: Final = 4.0  # seconds; a POST on a connection that the server closes is ambiguous
_DNS_CACHE_TIME: Final = 60  # seconds
_MAX_HEADER_BYTES: Final = 64 * 1024  # of one header of an answer; aiohttp allows 8 kB by itself
_MAX_HEADER_LINES: Final = 1000  # so that small headers of 64 kB together are read too


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Timeouts(Value):
    """Time limits of one attempt of a call. The wait for the rate limit does not count."""

    total: float = attrs.field(default=30.0, validator=number(above=0))
    """Seconds from opening the connection to the last byte of the answer; above 0."""
    connect: float = attrs.field(default=10.0, validator=number(above=0))
    """Seconds to open a connection; above 0."""


@attrs.define(eq=False, repr=False)
class SendState:
    """What is known about a request that is in progress."""

    times_sent: int = 0
    """How often its head was sent, without the times that a 429 refused it; 0 for a GET, which is
    not counted. In a session that was passed in, aiohttp may repeat it once by itself."""
    sent_at: float | None = None
    """Loop time at which the head was first sent; None while `times_sent` is 0."""
    is_abandoned: bool = False
    """True once the caller is gone, so that the request is not sent again."""


class _Attempt(Deadline):
    """One attempt in its time limit, with what the connector and the trace have to know of it."""

    __slots__ = ("permit", "send_state", "trace")

    def __init__(
        self,
        deadlines: Deadlines,
        trace: aiohttp.TraceConfig,
        send_state: SendState,
        permit: CallPermit | None,
    ) -> None:
        super().__init__(deadlines)
        self.trace = trace
        self.send_state = send_state
        self.permit = permit

    def give_permit_back(self) -> None:
        if self.permit is not None:
            self.permit.give_back()

    async def take_permit_again(self) -> None:
        """Takes the permit again. The wait does not count in the time limit of the attempt."""
        if self.permit is None or self.permit.is_valid():
            return
        self.pause()
        began = loop_time()
        await self.permit.take_again()
        self.resume(loop_time() - began)

    async def before_head(self) -> None:
        """Notes that the head is sent next, with the permit; a repeat needs another permit."""
        await self.take_permit_again()
        if self.permit is not None:
            self.permit.use()
        self.send_state.times_sent += 1
        if self.send_state.sent_at is None:
            self.send_state.sent_at = loop_time()


_current_attempt: ContextVar[_Attempt | None]
_current_attempt = ContextVar("_current_attempt", default=None)


class _Connector(aiohttp.TCPConnector):
    """Opens a connection without a permit, and returns it when the call has one."""

    async def _create_connection(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,
    ) -> ResponseHandler:
        attempt = _current_attempt.get()
        if attempt is None:
            return await super()._create_connection(req, traces, timeout)
        attempt.give_permit_back()
        protocol = await super()._create_connection(req, traces, timeout)
        try:
            await attempt.take_permit_again()
        except BaseException:
            protocol.close()
            raise
        if not protocol.is_connected():
            closed = ConnectionResetError(errno.ECONNRESET, "closed during the wait for a permit")
            raise aiohttp.ClientConnectorError(req.connection_key, closed)
        return protocol


class Transport:
    """Sends requests to one base URL, through aiohttp sessions.

    Args:
        base_url: scheme and host of the API, with a path prefix if there is one.
        session: a session to use as it is, which is never closed here; None for own sessions.
        timeouts: time limits of one attempt.
        allow_insecure: True to allow http to a host other than this machine.
        proxy: the proxy that all connections go through; None for none.

    Raises:
        InvalidRequest: `base_url` cannot be used, or not with a proxy.
    """

    base_url = ""  # a traceback may show a transport whose constructor failed

    def __init__(
        self,
        base_url: str,
        *,
        session: aiohttp.ClientSession | None,
        timeouts: Timeouts,
        allow_insecure: bool,
        proxy: Proxy | None = None,
    ) -> None:
        self.base_url = checked_base_url(base_url, allow_insecure=allow_insecure)
        check_proxied(proxy, self.base_url)
        self._local_port = port_of_this_machine(self.base_url)
        self._proxy = proxy
        self._proxy_url = None if proxy is None else URL(proxy.url)
        self._deadlines = Deadlines(None if timeouts.total == math.inf else timeouts.total)
        self._settings: dict[str, Any] = {
            "timeout": aiohttp.ClientTimeout(
                total=None,  # `send` has a deadline that stands still while a call awaits a permit
                sock_connect=None if timeouts.connect == math.inf else timeouts.connect,
                ceil_threshold=math.inf,  # else aiohttp rounds up to whole seconds above 5 s
            ),
            "raise_for_status": False,
            "auto_decompress": True,
            "max_line_size": _MAX_HEADER_BYTES,
            "max_field_size": _MAX_HEADER_BYTES,
            "max_headers": _MAX_HEADER_LINES,
        }
        # Own sessions have the settings; one that was passed in gets them with each request.
        self._request_settings = {} if session is None else self._settings
        self._trace = _trace_of_sent()
        self._passed_session = session
        self._sessions: dict[str, aiohttp.ClientSession] = {}
        # aiohttp counts the wait for a connection in the request's timeout; this one does not.
        self._connection_slots: dict[str, asyncio.Semaphore] = {}
        self._closed = False

    def __repr__(self) -> str:
        return f"Transport({self.base_url!r})"

    def connection_slots(self, operation: Operation[Any]) -> asyncio.Semaphore:
        """Returns the semaphore of an operation's connections; a caller of `send` holds one."""
        slots = self._connection_slots.get(operation.name)
        if slots is None:
            slots = self._connection_slots[operation.name] = asyncio.Semaphore(_MAX_CONNECTIONS)
        return slots

    def check_server(self) -> None:
        """Checks that the server, if it is an emulator of this process, can answer.

        Raises:
            WrongLoop: the event loop of the server does not run.
        """
        local_servers.check(self._local_port)

    def _session(self, operation: Operation[Any]) -> aiohttp.ClientSession:
        if self._closed or (self._passed_session is not None and self._passed_session.closed):
            raise ClientClosed("the session is closed")
        session = self._sessions.get(operation.name)
        if session is None:
            session = self._sessions[operation.name] = self._open(operation)
        return session

    def _open(self, operation: Operation[Any]) -> aiohttp.ClientSession:
        """Opens a session for one operation, with connections of its own.

        A hundred calls without an answer use up the connections of a session. In a session that
        all operations shared, such calls would hold up even a stop.
        """
        if self._passed_session is not None:
            if not self._sessions:
                if self._passed_session._loop is not asyncio.get_running_loop():  # noqa: SLF001 - no public way
                    raise WrongLoop("the session that was passed in belongs to another event loop")
                self._passed_session.trace_configs.append(self._trace)
            return self._passed_session
        if not self._sessions:
            loop = asyncio.get_running_loop()
            weakref.finalize(self, _close_leaked, self._sessions, loop, self.base_url, os.getpid())
        session = aiohttp.ClientSession(
            connector=_Connector(
                keepalive_timeout=_KEEPALIVE_TIME,
                limit=_MAX_CONNECTIONS,
                ttl_dns_cache=_DNS_CACHE_TIME,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            trace_configs=[] if operation.method == "GET" else [self._trace],
            **self._settings,
        )
        # aiohttp repeats a GET or DELETE on a dropped connection, and the repeat has no permit.
        # aiohttp has no public setting for this; a test covers it.
        session._retry_connection = False  # noqa: SLF001 - see above
        return session

    async def send(
        self,
        request: HttpRequest[Any],
        token: Token,
        send_state: SendState,
        permit: CallPermit | None = None,
    ) -> HttpResponse:
        """Returns the answer to a request, with any status. The caller holds a connection slot.

        Args:
            request: what is sent.
            token: the token that it is sent with.
            send_state: records whether it was sent.
            permit: the caller's permit, which is taken again after opening a connection; None
                for a request without a rate limit.

        Raises:
            LimitReached: after opening a connection, no permit was there within its `max_wait`.
            NotSent: the request was not sent.
            NoAnswer: the request was sent, and no complete answer came.
            UnreadableAnswer: the answer is larger than `request.max_bytes`, or a redirect.
            ClientClosed: the session is closed.
            WrongLoop: the session that was passed in belongs to another event loop, or an emulator
                of this process, whose loop does not run, has the port.
        """
        if local_servers:
            self.check_server()
        operation = request.operation
        is_read = operation.method == "GET"
        headers = _HEADERS if request.body is None else _JSON_HEADERS
        sent_before = send_state.times_sent
        attempt = _Attempt(self._deadlines, self._trace, send_state, permit)
        reset = _current_attempt.set(attempt)
        try:
            with attempt:
                response = await self._session(operation).request(
                    operation.method,
                    URL(self.base_url + request.target, encoded=True),
                    data=request.body,
                    headers={**headers, **token.header},
                    allow_redirects=False,
                    proxy=self._proxy_url,
                    proxy_headers=None if self._proxy is None else self._proxy.headers(),
                    **self._request_settings,
                )
                body = await _read_body(response, request.max_bytes)
            if body is not None and not 300 <= response.status < 400:  # noqa: PLR2004 - redirects
                return HttpResponse(response.status, response.headers, body)
            call_error = _unusable_answer(request, response, body, token)
            del response  # a traceback that shows local variables would show its headers
        # A traceback through aiohttp's frames could show the headers in local variables.
        except LimitReached as error:
            call_error = error.with_traceback(None)
        except (ClientClosed, WrongLoop):
            raise
        # A session that was passed in raises ValueError where its own settings, such as `auth`,
        # contradict the request, and anything in its own trace hooks and middlewares.
        except Exception as error:  # noqa: BLE001 - the request may have been sent
            not_connected = isinstance(
                error,
                aiohttp.ClientConnectorError
                | aiohttp.ConnectionTimeoutError
                | aiohttp.ClientHttpProxyError,
            )
            was_sent = not not_connected if is_read else send_state.times_sent > sent_before
            call_error = _network_error(request, error, token, was_sent=was_sent, proxy=self._proxy)
        except asyncio.CancelledError as cancelled:
            cancelled.__traceback__ = None
            raise
        finally:
            _current_attempt.reset(reset)
        # Raised outside of the `except` block, the error has no context that holds the headers.
        raise call_error

    async def close(self) -> None:
        """Closes the transport's own sessions. Closing twice does nothing more."""
        self._closed = True
        self._deadlines.close()
        sessions = dict(self._sessions)
        self._sessions.clear()
        if self._passed_session is None:
            # The stack closes every session, even if the wait for one is cancelled.
            async with contextlib.AsyncExitStack() as stack:
                for session in sessions.values():
                    stack.push_async_callback(session.close)
        elif sessions:
            self._passed_session.trace_configs.remove(self._trace)


def _trace_of_sent() -> aiohttp.TraceConfig:
    """Returns a trace that counts sent heads. It has no reference that keeps a transport alive."""
    trace = aiohttp.TraceConfig()

    def current() -> _Attempt | None:
        # In a session that several clients share, the traces of all clients see each request.
        attempt = _current_attempt.get()
        return attempt if attempt is not None and attempt.trace is trace else None

    async def give_permit_back(*_: object) -> None:
        if attempt := current():
            attempt.give_permit_back()

    async def note_sent(*_: object) -> None:
        if attempt := current():
            await attempt.before_head()  # aiohttp sends the signal before the head

    trace.on_connection_queued_start.append(give_permit_back)
    trace.on_connection_create_start.append(give_permit_back)
    trace.on_request_headers_sent.append(note_sent)
    trace.freeze()
    return trace


def _close_leaked(
    sessions: Mapping[str, aiohttp.ClientSession],
    loop: asyncio.AbstractEventLoop,
    base_url: str,
    process: int,
) -> None:
    """Closes the sessions of a transport that was collected without `close`, and warns.

    A `__del__` would come too late: objects that are collected together are finalized in no order,
    and aiohttp's sessions would warn first, without the caller's base URL. asyncio itself closes,
    and reports, the sockets of a closed event loop.
    """
    if not sessions or os.getpid() != process:  # a fork shares the connections of its parent
        return
    for session in sessions.values():
        connector = session.connector
        session.detach()
        if connector is not None:
            close = connector._close  # noqa: SLF001 - `close` would have to be awaited
            if loop.is_running():  # perhaps in another thread: any thread may run the collector
                loop.call_soon_threadsafe(close)
            else:
                close()
    warnings.warn(
        f"a client of {base_url} was not closed: use `async with EdgegapClient() as client`,"
        " or await client.close()",
        ResourceWarning,
        stacklevel=1,
    )


def _read_body(response: aiohttp.ClientResponse, max_bytes: int) -> Awaitable[bytes | None]:
    """Reads the whole body, decompressed; None if it is larger than `max_bytes`.

    Afterwards the connection is free, or closed after an error, so the caller needs no
    `async with`.
    """
    length = response.content_length
    if length is not None and length <= max_bytes and "Content-Encoding" not in response.headers:
        return response.read()
    return _read_up_to(response, max_bytes)


async def _read_up_to(response: aiohttp.ClientResponse, max_bytes: int) -> bytes | None:
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


def _unusable_answer(
    request: HttpRequest[Any], response: aiohttp.ClientResponse, body: bytes | None, token: Token
) -> CallError:
    facts = request.facts(response.status)
    if body is None:
        return UnreadableAnswer(f"the answer is larger than {request.max_bytes} bytes", **facts)
    try:
        location = token.hidden_in(response.headers.get("Location", ""))
        target = one_line(urlsplit(location).hostname or "the same host")
    except ValueError:  # an incomplete IPv6 address
        target = "an invalid URL"
    return UnreadableAnswer(f"a redirect to {target}, which is not followed", **facts)


def _network_error(
    request: HttpRequest[Any],
    error: BaseException,
    token: Token,
    *,
    was_sent: bool,
    proxy: Proxy | None,
) -> CallError:
    is_known = isinstance(error, aiohttp.ClientError | OSError | ValueError)
    # Otherwise the certificate, or the settings and the code of the session, are the same again.
    may_help = is_known and not isinstance(error, aiohttp.ClientSSLError | ValueError)
    if isinstance(error, TimeoutError):
        text = "no answer in time"
    elif isinstance(error, aiohttp.ClientConnectorCertificateError):
        text = f"{error}; if it is of a CA of your own, name that CA's file in SSL_CERT_FILE"
    elif isinstance(error, aiohttp.ClientHttpProxyError):
        text, may_help = _proxy_refusal(error.status, proxy)
    elif isinstance(error, aiohttp.ClientResponseError):
        text = error.message  # its str() contains the query
        if text.startswith(("Got more than", "Too many headers")):  # it quotes the header
            text = f"the answer has a header of more than {_MAX_HEADER_BYTES // 1024} kB"
            text += f", or more than {_MAX_HEADER_LINES} headers"
    else:
        text = str(error).replace(" ssl:default", "")  # aiohttp's word, for http too
        if not is_known:
            text = f"code of the session that was passed in has failed: {text}"
    # aiohttp quotes what is no HTTP, in several lines.
    text = without_secrets(one_line(token.hidden_in(text)))
    message = f"{text or 'the connection failed'} ({type(error).__name__})"
    if was_sent:
        return NoAnswer(message, **request.facts())
    not_sent = NotSent(message, **request.facts())
    not_sent.retry_may_help = may_help
    return not_sent


def _proxy_refusal(status: int, proxy: Proxy | None) -> tuple[str, bool]:
    """Returns what a proxy's answer to CONNECT means, and whether another attempt may help."""
    # The proxy's own words are left out: they may repeat the credentials.
    text = f"the proxy {proxy.url if proxy else 'of the session'} answered {status} to CONNECT"
    if status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        return f"{text}: check user and password in the proxy's URL", False
    if status == HTTPStatus.FORBIDDEN:
        return f"{text}: it does not let this program reach the API", False
    return text, status >= HTTPStatus.INTERNAL_SERVER_ERROR
