"""Receives the webhooks of deployments and makes the poller ask the API at once.

**Problem.** Edgegap signs no webhook and sends each one once; its body is the deployment's status.
A webhook can be lost, late, early, doubled or forged.

**Rule.** Each deployment gets webhook URLs with its own secret. A webhook makes the poller's next
request for its deployment, a status or a list request, due at once, if a task waits for the
deployment. The wait never uses the body; `on_event` gets it unverified. The URLs exist before the
deploy is sent, so no webhook comes too early; the API decides, so no webhook comes too late, twice
or in the wrong order; the poller asks by itself too, if less often, so no webhook is necessary.

**Secrets** are kept as SHA-256 hashes, as long as the program holds the deployment's handle. The
time of a dictionary lookup depends on the hash, which tells nothing about the secret.

**Unknown URLs** are answered before the body is read, so each costs one hash. A receiver that is
alone answers 404 and closes the connection. A receiver in a cluster answers 204 to a well-formed
URL and forwards the hash, because another program may know the URL.

**Limits** for a caller that has a secret: 64 kB and 5 s for a body, three bodies of one deployment
at once, `max_reading` bodies in all, and two triggers a second. For a caller without a secret:
the receiver's own server closes idle connections after 15 s and holds four times `max_reading`.

Four ways to run it; the client takes it as `webhooks=receiver` and uses the same event loop:

- `async with WebhookReceiver(public_url=…).serve(port=8080)`: its own small server;
- `receiver.attach(app)`: in an aiohttp application, before the application starts;
- `receiver.application()`: an aiohttp sub-application to mount;
- `receiver.asgi()`: for Starlette, FastAPI, Litestar, or alone: `app.mount(path, receiver.asgi())`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import math
import re
import secrets
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Self, cast
from weakref import WeakValueDictionary

import attrs

from edgegap_async.api.codec import loads, read_answer
from edgegap_async.api.models import Deployment
from edgegap_async.api.requests import WEBHOOK_KINDS, WebhookKind
from edgegap_async.api.validation import check_number, http_url, is_coroutine_function
from edgegap_async.api.values import Documented
from edgegap_async.concurrency import PersistentTask, is_cancelled, loop_time
from edgegap_async.errors import InvalidRequest, WebhookNotReceived, WrongLoop, log_fields

from .servers import (
    HIDDEN,
    AsgiApplication,
    IncomingRequest,
    IncompleteBody,
    aiohttp_application,
    aiohttp_server,
    asgi_application,
)

if TYPE_CHECKING:
    from aiohttp import web

logger = logging.getLogger(__name__)

_SECRET: Final = re.compile(r"[A-Za-z0-9_-]{43,86}")  # 32 bytes; a later version may use 64
_KINDS: Final = frozenset(WEBHOOK_KINDS.values())
_MAX_BODY_BYTES: Final = 64 * 1024  # bytes; a status has about one thousand
_BODY_TIMEOUT: Final = 5.0  # seconds for a whole body
_MAX_READS_EACH: Final = len(_KINDS)  # bodies of one deployment at once; one of each kind
_CONNECTIONS_PER_READ: Final = 4  # of the receiver's own server, for each body of `max_reading`
_MAX_RECENT_KEYS: Final = 10_000  # hashes of 32 bytes
_MIN_TRIGGER_INTERVAL: Final = 0.5  # seconds, so that forged webhooks cannot use up the rate limit
_MIN_WARN_INTERVAL: Final = 60.0  # seconds, so that forged webhooks cannot fill the log

_REJECT_REASONS: Final = {
    HTTPStatus.BAD_REQUEST: "its body is not a JSON object",
    HTTPStatus.NOT_FOUND: "its URL is unknown",
    HTTPStatus.METHOD_NOT_ALLOWED: "its method is not POST",
    HTTPStatus.REQUEST_TIMEOUT: f"its body took longer than {_BODY_TIMEOUT:g} s",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: f"its body has more than {_MAX_BODY_BYTES} bytes",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "its body is compressed",
    HTTPStatus.SERVICE_UNAVAILABLE: "max_reading bodies are being read, or three of its deployment,"
    " or the receiver is closed",
}


class _Rejected(Exception):
    def __init__(self, status: HTTPStatus, *, is_late: bool = False) -> None:
        self.status = status
        self.is_late = is_late


@attrs.frozen
class WebhookEvent(Documented):
    """The content of one webhook. Edgegap does not sign it: ask the API before you rely on it."""

    kind: WebhookKind
    """What the webhook announces: "ready", "error" or "terminated", by the URL it came to."""
    deployment: Deployment
    """The deployment's status, as the webhook's body says."""


@attrs.frozen(kw_only=True)
class WebhookStats(Documented):
    """What a receiver has received since it was made. All numbers are counts, 0 or more."""

    received: int
    """Webhooks that were accepted, repeated ones included."""
    unknown: int
    """Requests to an unknown URL, answered 404."""
    late: int
    """Webhooks of a deployment whose handle is gone, answered 404; usual after `client.run`."""
    refused: Mapping[int, int]
    """Other requests that were rejected, by the HTTP status of the answer."""
    handled: int
    """Events that `on_event` has handled."""
    failed: int
    """Events for which `on_event` raised an error."""
    dropped: int
    """Events that `on_event` did not handle: unreadable, over `max_waiting`, or at the end."""


class _Subscription:
    """The webhook URLs of one deployment."""

    def __init__(self, url: str, wake: Callable[[], None]) -> None:
        self._url = url
        self.open_reads = 0
        self.delivered = set[WebhookKind]()  # kinds that were given to `on_event`
        self.has_events = True
        self._wake = wake
        self._loop = _running_loop()
        self._triggered_at = -math.inf  # loop time; in the future while a trigger is scheduled

    def url(self, kind: WebhookKind) -> str:
        """Returns the URL for the webhook of an event."""
        return f"{self._url}/{kind}"

    def trigger(self) -> None:
        """Calls `wake` at once, or 0.5 s after the last call, in the loop of the client."""
        loop = self._loop
        if loop is not None and loop is not asyncio.get_running_loop():
            if not loop.is_closed():  # the server runs in a thread
                loop.call_soon_threadsafe(self.trigger)
            return
        now = loop_time()
        if self._triggered_at > now:
            return
        if self._triggered_at + _MIN_TRIGGER_INTERVAL > now:
            self._triggered_at += _MIN_TRIGGER_INTERVAL
            asyncio.get_running_loop().call_at(self._triggered_at, self._wake)
        else:
            self._triggered_at = now
            self._wake()


class WebhookReceiver:
    """Gives each deployment its own webhook URLs; a webhook makes the next request due at once.

    Args:
        public_url: how the API reaches this program, such as `https://mm.example.com`, without
            the path. May be omitted with `serve()` if client and API are on one machine, as with
            the emulator.
        path: path below which the webhooks come; begins with `/`.
        on_event: a coroutine function for chat messages and counters; a match waits with its
            handle. It is called once for each event of each deployment while the deployment's
            handle exists, one call at a time, in the order of arrival, after the answer was sent.
            An error that it raises is logged.
        max_reading: bodies that are read at once, 1 or more; further requests are answered 503.
            The receiver's own server holds four times as many connections, and closes further
            ones as they come.
        max_waiting: events that wait for `on_event`, 1 or more; further ones are dropped.

    Raises:
        InvalidRequest: `public_url` is not an http or https URL, `path` not a path, `on_event` not
            a coroutine function, or a number is below 1.
    """

    forward: Callable[[bytes], None] | None = None
    """Called with the hash of a URL that is unknown here, to try other programs. None outside a
    cluster; `Cluster.webhook_source` sets it."""

    def __init__(
        self,
        public_url: str | None = None,
        *,
        path: str = "/edgegap/webhooks",
        on_event: Callable[[WebhookEvent], Awaitable[object]] | None = None,
        max_reading: int = 100,
        max_waiting: int = 1000,
    ) -> None:
        parts = http_url(public_url)
        if public_url is not None and (parts is None or parts.query or parts.fragment):
            raise InvalidRequest(
                f"public_url must be an http:// or https:// URL that the API can reach,"
                f" without query or fragment, not {public_url!r}"
            )
        if not isinstance(path, str) or not path.startswith("/") or not path.strip("/"):
            raise InvalidRequest(f"path must begin with / and not be empty, not {path!r}")
        if on_event is not None and not is_coroutine_function(on_event):
            raise InvalidRequest("on_event must be a coroutine function: async def on_event(event)")
        check_number("max_reading", max_reading, least=1, whole=True, optional=False)
        check_number("max_waiting", max_waiting, least=1, whole=True, optional=False)
        self._public_url = public_url and public_url.rstrip("/")
        self._path = path.rstrip("/")
        self._subscriptions = WeakValueDictionary[bytes, _Subscription]()  # by hash of the secret
        # Hashes that were made lately: a webhook for one of them is late, not unknown.
        self._recent_keys = OrderedDict[bytes, None]()
        self._max_reading = max_reading
        self._open_reads = 0
        self._responses = Counter[int]()  # by HTTP status
        self._late = 0
        self._on_event = on_event
        self._max_waiting = max_waiting
        self._events = deque[WebhookEvent]()
        self._outcomes = Counter[str]()  # of events
        self._handler_task: PersistentTask | None = None
        self._all_handled = False  # the task ends, and takes no more events
        self._is_closed = False
        self._loop: asyncio.AbstractEventLoop | None = None  # in which it is served
        self._unreported = 0  # rejected requests since the last warning
        self._warned_at = -math.inf

    @property
    def stats(self) -> WebhookStats:
        """The counts at this moment."""
        responses = dict(self._responses)
        return WebhookStats(
            received=responses.pop(HTTPStatus.NO_CONTENT, 0),
            unknown=responses.pop(HTTPStatus.NOT_FOUND, 0),
            late=self._late,
            refused=responses,
            handled=self._outcomes["handled"],
            failed=self._outcomes["failed"],
            dropped=self._outcomes["dropped"],
        )

    def open(self, wake: Callable[[], None]) -> _Subscription:
        """Returns fresh URLs for one deployment, valid as long as the returned object exists.

        The client calls this for each deploy.

        Args:
            wake: called in the event loop for a webhook that comes to one of the URLs, twice a
                second at most.

        Raises:
            InvalidRequest: the receiver has no `public_url` and is not served.
            WrongLoop: the receiver is served in another event loop, which does not run.
        """
        loop, running = self._loop, _running_loop()
        if loop and running and loop is not running and not loop.is_running():
            raise WrongLoop(
                "the webhook receiver is served in another event loop, which does not run"
            )
        if self._public_url is None:
            raise InvalidRequest(
                "the API cannot reach this receiver: give it a public_url, or serve() it first"
            )
        secret = secrets.token_urlsafe(32)
        subscription = _Subscription(f"{self._public_url}{self._path}/{secret}", wake)
        key = _hash(secret)
        self._subscriptions[key] = subscription
        self._recent_keys[key] = None
        if len(self._recent_keys) > _MAX_RECENT_KEYS:
            self._recent_keys.popitem(last=False)
        return subscription

    def trigger(self, key: bytes) -> bool:
        """Acts as if a webhook had come to a URL. A cluster calls this for forwarded webhooks.

        Args:
            key: the SHA-256 hash of the URL's secret.

        Returns:
            Whether the URL is known here.
        """
        subscription = self._subscriptions.get(key)
        if subscription is None:
            return False
        subscription.trigger()
        return True

    async def check(self, timeout: float = 10.0) -> None:
        """Checks that the public URL reaches this program, by a webhook that it sends to itself.

        Call it while the receiver is served, for example when the program starts. It shows that
        name, TLS, proxies and path are right, and not that a firewall lets Edgegap in. Without a
        cluster, several processes behind one URL fail it, as their webhooks do. `on_event` is not
        called.

        Args:
            timeout: seconds until the webhook must have come, above 0.

        Raises:
            WebhookNotReceived: the webhook did not come, for the reason in the message.
            InvalidRequest: the receiver has no `public_url` and is not served, or `timeout` cannot
                be used.
            WrongLoop: the receiver is served in another event loop, which does not run.
        """
        check_number("timeout", timeout, above=0, optional=False)
        came = asyncio.Event()
        subscription = self.open(came.set)
        subscription.has_events = False
        problem = f"nothing came in {timeout:g} s"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                if answer := await _post(subscription.url("ready")):
                    problem = answer
                else:
                    await came.wait()  # another program of a cluster forwards it
        if not came.is_set():
            raise WebhookNotReceived(f"{self._public_url}{self._path} {problem}")

    # ── where it runs ────────────────────────────────────────────────────────────────────────────

    def application(self) -> web.Application:
        """Returns an aiohttp application that receives the webhooks, to be mounted at `path`."""
        return aiohttp_application(
            self._handle_request, on_startup=self._reopen, on_shutdown=self.close
        )

    def attach(self, application: web.Application) -> None:
        """Mounts the receiver in an aiohttp application, at `path`.

        Args:
            application: has not started yet.
        """
        application.add_subapp(self._path, self.application())

    def asgi(self) -> AsgiApplication:
        """Returns an ASGI application that receives the webhooks, to be mounted at `path`.

        For Litestar: `asgi(path, is_mount=True, copy_scope=False)(receiver.asgi())`.

        A mounted ASGI application is not notified of the end: if you use `on_event`, call `close()`
        there. It can also run alone, as `uvicorn.run(receiver.asgi())`.
        """
        return asgi_application(
            self._handle_request, on_startup=self._reopen, on_shutdown=self.close
        )

    @contextlib.asynccontextmanager
    async def serve(self, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[Self]:
        """Runs a server for the webhooks while the block lasts.

        Args:
            host: address to listen on; `0.0.0.0` or `::` for all.
            port: port to listen on, 0 to 65535; 0 for a free one.

        Raises:
            InvalidRequest: it would listen on all addresses, and the receiver has no `public_url`.
            OSError: the port is in use, or the address is not one of this machine.
            WrongLoop: the block is left in another event loop.
        """
        if self._public_url is None and host in {"", "0.0.0.0", "::"}:  # noqa: S104 - what is refused
            raise InvalidRequest("a receiver that listens on all addresses needs a public_url")
        from aiohttp import web  # a tenth of the package's import time

        max_connections = _CONNECTIONS_PER_READ * self._max_reading
        server = aiohttp_server(
            self._handle_request,
            max_connections=max_connections,
            on_overflow=lambda: self._warn_rejected(
                f"too many connections are open: {max_connections}, four times max_reading"
            ),
            logger=self._server_logger(),
        )
        runner = web.ServerRunner(server, shutdown_timeout=1.0)
        await runner.setup()
        given_url = self._public_url
        self._reopen()
        try:
            await web.TCPSite(runner, host, port).start()
            if given_url is None:
                bound_host, bound_port = runner.addresses[0][:2]
                name = f"[{bound_host}]" if ":" in bound_host else bound_host
                self._public_url = f"http://{name}:{bound_port}"
            yield self
        finally:
            self._check_loop()
            self._public_url = given_url
            await runner.cleanup()
            await self.close()

    def _server_logger(self) -> logging.Logger:
        """Returns the log of the own server: aiohttp's has a traceback of all that is not HTTP."""
        from aiohttp.http import HttpProcessingError  # slow to import

        def log_other_errors(record: logging.LogRecord) -> bool:
            error = record.exc_info and record.exc_info[1]
            if isinstance(error, HttpProcessingError):
                self._warn_rejected("it is not HTTP")
            else:
                vars(record).update(log_fields(error or None))
                logger.handle(record)
            return False

        server_logger = logging.Logger(logger.name, logging.WARNING)  # noqa: LOG001 - this server's alone
        server_logger.addFilter(log_other_errors)
        return server_logger

    def _reopen(self) -> None:
        self._is_closed = False
        self._loop = asyncio.get_running_loop()

    def _check_loop(self) -> None:
        if self._loop not in {None, asyncio.get_running_loop()}:
            raise WrongLoop("the webhook receiver is served in another event loop")

    async def close(self, timeout: float = 5.0) -> None:
        """Answers 503 from now on, and waits until `on_event` has handled the waiting events.

        The receiver's own server, an aiohttp application and an ASGI application that runs alone
        call this when they end. It may be called twice.

        Args:
            timeout: seconds after which `on_event` is cancelled and the waiting events are dropped.

        Raises:
            WrongLoop: the receiver is served in another event loop.
        """
        self._check_loop()
        self._is_closed, self._loop = True, None
        if self._handler_task is None:
            return
        self._handler_task.resume()
        await asyncio.wait([self._handler_task.ended], timeout=timeout)
        if not self._handler_task.ended.done():
            dropped = len(self._events) + 1  # with the event that is being handled
            logger.warning(
                "the webhook receiver closed before on_event had handled %d events",
                dropped,
                extra=log_fields(count=dropped),
            )
            self._outcomes["dropped"] += dropped
            self._events.clear()
            self._handler_task.cancel()
            await asyncio.wait([self._handler_task.ended])

    # ── requests ─────────────────────────────────────────────────────────────────────────────────

    async def _handle_request(self, request: IncomingRequest) -> int:
        status = HTTPStatus.NO_CONTENT
        try:
            await self._accept(request)
        except _Rejected as rejection:
            status = rejection.status
            if rejection.is_late:
                self._late += 1
                return status
            self._warn_rejected(_REJECT_REASONS[status])
        self._responses[status] += 1
        return status

    async def _accept(self, request: IncomingRequest) -> None:
        # What comes before the secret depends on where the receiver is mounted, or on a proxy.
        # Litestar ends the path of a mounted application with a slash.
        before, slash, kind = request.path.rstrip("/").rpartition("/")
        before, slash, secret = before.rpartition("/")
        key = _hash(secret)
        is_well_formed = bool(slash) and kind in _KINDS and bool(_SECRET.fullmatch(secret))
        subscription = self._subscriptions.get(key) if is_well_formed else None
        is_late = is_well_formed and subscription is None and key in self._recent_keys
        if subscription is None and (is_late or self.forward is None or not is_well_formed):
            request.set_logged_path(f"/{HIDDEN}")  # the path may hold a secret nevertheless
            raise _Rejected(HTTPStatus.NOT_FOUND, is_late=is_late)
        request.set_logged_path(f"{before}/{HIDDEN}/{kind}")
        if request.method != "POST":
            raise _Rejected(HTTPStatus.METHOD_NOT_ALLOWED)
        if request.header("content-encoding").lower() not in {"", "identity"}:
            raise _Rejected(HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
        if self._is_closed:
            raise _Rejected(HTTPStatus.SERVICE_UNAVAILABLE)
        if subscription is None:
            assert self.forward is not None  # noqa: S101 - rejected above otherwise
            self.forward(key)  # without its body: forged URLs must not use up `max_reading`
            return
        with self._count_read(subscription):
            body = await _read(request)
        if not _is_object(body):
            raise _Rejected(HTTPStatus.BAD_REQUEST)
        subscription.trigger()
        if self._on_event is not None and subscription.has_events:
            self._dispatch(subscription, cast("WebhookKind", kind), body)  # of _KINDS

    @contextlib.contextmanager
    def _count_read(self, subscription: _Subscription) -> Iterator[None]:
        is_full = self._open_reads >= self._max_reading
        if is_full or subscription.open_reads >= _MAX_READS_EACH:
            raise _Rejected(HTTPStatus.SERVICE_UNAVAILABLE)
        self._open_reads += 1
        subscription.open_reads += 1
        try:
            yield
        finally:
            self._open_reads -= 1
            subscription.open_reads -= 1

    def _warn_rejected(self, reason: str) -> None:
        self._unreported += 1
        now = loop_time()
        if now >= self._warned_at + _MIN_WARN_INTERVAL:
            earlier = self._unreported - 1
            more = f" ({earlier} more since the last warning)" if earlier else ""
            logger.warning(
                "webhook rejected: %s%s",
                reason,
                more,
                extra=log_fields(reason=reason, count=earlier + 1),
            )
            self._warned_at = now
            self._unreported = 0

    # ── events ───────────────────────────────────────────────────────────────────────────────────

    def _dispatch(self, subscription: _Subscription, kind: WebhookKind, body: bytes) -> None:
        if kind in subscription.delivered:
            return
        try:
            event = WebhookEvent(kind, read_answer(Deployment, body))
        except ValueError as error:
            self._outcomes["dropped"] += 1
            logger.info(
                "no event for on_event: a webhook's body is not a status: %s",
                error,
                extra=log_fields(error),
            )
            return
        if self._is_closed or len(self._events) >= self._max_waiting:
            self._outcomes["dropped"] += 1
            return
        subscription.delivered.add(kind)
        self._events.append(event)
        task = self._handler_task
        if task is None or task.ended.done() or self._all_handled:
            self._all_handled = False
            self._handler_task = PersistentTask(self._handle_events, "on_event")

    async def _handle_events(self) -> None:
        """Handles the waiting events; an event whose handling the program cancels has failed."""
        assert self._on_event is not None  # noqa: S101 - events are queued only if it is given
        while self._events:
            event = self._events.popleft()
            try:
                await self._on_event(event)
            except (Exception, asyncio.CancelledError) as error:
                was_cancelled = isinstance(error, asyncio.CancelledError) and is_cancelled()
                task = self._handler_task  # an eager task begins before it is known here
                if was_cancelled and task is not None and task.is_cancelling:
                    raise
                self._outcomes["failed"] += 1
                logger.exception(
                    "on_event failed for webhook %r of deployment %s",
                    event.kind,
                    event.deployment.request_id,
                    extra=log_fields(
                        error, request_id=event.deployment.request_id, kind=event.kind
                    ),
                )
                if was_cancelled:  # by the program: the other events are handled later
                    raise
            else:
                self._outcomes["handled"] += 1
        self._all_handled = True


async def _post(url: str) -> str:
    """Posts a webhook; returns what is wrong with the answer, without the secret of the URL."""
    import aiohttp  # few programs check their URL

    try:
        async with (
            aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session,
            session.post(url, json={}, allow_redirects=False) as answer,
        ):
            is_accepted = answer.status == HTTPStatus.NO_CONTENT
            return "" if is_accepted else f"answers {answer.status}: another program, or no path"
    except aiohttp.ClientConnectorCertificateError as error:
        return f"has no valid certificate: {error.certificate_error}"
    except (aiohttp.ClientError, OSError) as error:
        return f"cannot be reached: {getattr(error, 'strerror', None) or type(error).__name__}"


async def _read(request: IncomingRequest) -> bytes:
    body = bytearray()
    try:
        if int(request.header("content-length") or 0) > _MAX_BODY_BYTES:
            raise _Rejected(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        async with asyncio.timeout(_BODY_TIMEOUT):
            while chunk := await request.read():
                body += chunk
                if len(body) > _MAX_BODY_BYTES:
                    raise _Rejected(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    except TimeoutError:
        raise _Rejected(HTTPStatus.REQUEST_TIMEOUT) from None
    except (IncompleteBody, ValueError):
        raise _Rejected(HTTPStatus.BAD_REQUEST) from None
    return bytes(body)


def _is_object(body: bytes) -> bool:
    try:
        return isinstance(loads(body), dict)
    except (ValueError, RecursionError):
        return False


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "replace")).digest()
