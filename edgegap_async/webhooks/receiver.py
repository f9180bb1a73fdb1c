"""Receives the webhooks of deployments and wakes whoever waits.

Theory. Edgegap signs nothing, sends a webhook once, and its body is the deployment's status. So
each deployment gets URLs with a secret of its own, and all that a call to one of them does is to
wake the look-out of that deployment, which then asks the API. What the body says is not believed;
that it is JSON at all is asked only to turn away what strays here. As the URLs exist before the
deploy is sent, a webhook cannot come too early; as nothing is believed, none can come too late,
twice, or in the wrong order. As waits look by themselves, if rarely, none needs to come at all.

The secrets are kept as hashes, as long as somebody holds the deployment's handle. To find a hash in
a table takes a time that depends on the hash, but that tells nothing of the secret, as nobody can
make secrets whose hashes come ever nearer to one. A URL that is unknown, or not any more, is 404
before anything of its body is read, and its caller is hung up on: a stranger costs one hash. In a
cluster another program may know it, if it has the form of one of ours: it is 204 then, and its hash
is passed on, its body unread as well.

Who has a right URL can still be slow, large or many. So a body has 64 kB and five seconds, three of
one deployment are read at once, so many in all, and what comes to one makes two looks a second at
most. Who has none can still hold a connection open: a server of its own gives each fifteen seconds
to say what it wants, and has room for four times as many as it reads at once.

Four ways to use it, the receiver made first and given to the client as `webhooks`, all in the
client's event loop:

- `async with WebhookReceiver(public_url=…).serve(port=8080)`: a small server of its own;
- `receiver.attach(app)`: in an aiohttp application of yours, before it starts;
- `receiver.application()`: the same as a sub-application, to mount as you like;
- `receiver.asgi()`: for Starlette, FastAPI, or alone: `app.mount(path, receiver.asgi())`.
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
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

import attrs

from edgegap_async.api.codec import loads, read_answer
from edgegap_async.api.models import Deployment
from edgegap_async.api.requests import WEBHOOK_KINDS, WebhookKind
from edgegap_async.api.validation import is_coroutine_function
from edgegap_async.errors import InvalidRequest, is_cancelled

from .servers import (
    AsgiApplication,
    IncomingRequest,
    IncompleteBody,
    aiohttp_application,
    aiohttp_server,
    asgi_application,
)

if TYPE_CHECKING:
    from aiohttp import web

__all__ = ["WebhookEvent", "WebhookReceiver", "WebhookStats"]

logger = logging.getLogger(__name__)


_SECRET: Final = re.compile(r"[A-Za-z0-9_-]{43,86}")  # 32 bytes; room for a later version's
_KINDS: Final = frozenset(WEBHOOK_KINDS.values())
_MAX_BODY_BYTES: Final = 64 * 1024  # bytes: a status has about one thousand
_BODY_TIMEOUT: Final = 5.0  # seconds for a body to come
_MAX_READS_EACH: Final = 3  # bodies of one deployment that are read at once: one of each kind
_CONNECTIONS: Final = 4  # to a server of its own, for each body that may be read
_RECENT_KEYS: Final = 10_000
_MIN_WAKE_INTERVAL: Final = 0.5  # seconds: who has a right URL may not spend the limit on looks
_MIN_WARN_INTERVAL: Final = 60.0  # seconds
_HIDDEN: Final = "hidden"  # in logs, in place of the secret

_REJECT_REASONS: Final = {
    HTTPStatus.BAD_REQUEST: "it is not a JSON object",
    HTTPStatus.NOT_FOUND: "its URL is not known",
    HTTPStatus.METHOD_NOT_ALLOWED: "it is not a POST",
    HTTPStatus.REQUEST_TIMEOUT: f"its body took longer than {_BODY_TIMEOUT:g} s",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: f"its body has more than {_MAX_BODY_BYTES} bytes",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "its body is compressed",
    HTTPStatus.SERVICE_UNAVAILABLE: "too many are being read, or the receiver is closed",
}


class _Rejected(Exception):
    def __init__(self, status: HTTPStatus, *, is_late: bool = False) -> None:
        self.status = status
        self.is_late = is_late


@attrs.frozen
class WebhookEvent:
    """What a webhook says. Nobody signed it: look, before you act on it."""

    kind: WebhookKind
    """Which of the deployment's URLs it came to."""
    deployment: Deployment


@attrs.frozen(kw_only=True)
class WebhookStats:
    """What has come to a receiver so far."""

    received: int
    """Webhooks that were taken, doubles too."""
    unknown: int
    """Requests to a URL that is not known."""
    late: int
    """Webhooks of one whose handle nobody has any more, as TERMINATED after `run`."""
    refused: Mapping[int, int]
    """Others that were turned away, by the status they were answered."""
    handled: int
    """Events that `on_event` took."""
    failed: int
    """Events at which it raised."""
    dropped: int
    """Events it was not given: unreadable, too many waiting, or the receiver was closed."""


class _Subscription:
    """The URLs of one deployment."""

    def __init__(self, url: str, wake: Callable[[], None]) -> None:
        self.on_ready = f"{url}/ready"
        self.on_error = f"{url}/error"
        self.on_terminated = f"{url}/terminated"
        self.reading = 0
        self.told = set[WebhookKind]()
        self._wake = wake
        self._woken_at = -math.inf  # loop time; to come, if a wake is pending

    def ring(self) -> None:
        """Wakes who waits; soon, if that was just done."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        if self._woken_at > now:
            return
        if self._woken_at + _MIN_WAKE_INTERVAL > now:
            self._woken_at += _MIN_WAKE_INTERVAL
            loop.call_at(self._woken_at, self._wake)
        else:
            self._woken_at = now
            self._wake()


class WebhookReceiver:
    """Gives each deployment webhook URLs, and ends waits as soon as one is called.

    Args:
        public_url: how the API reaches this program, such as `https://mm.example.com`: without
            the path below. May be left out with `serve()` where client and API are on one
            machine, as with the emulator.
        path: below which path the webhooks come; begins with `/`.
        on_event: a coroutine function that is given each event of each deployment once, as long
            as its handle is held; one at a time, in the order they came, after they were answered.
            What it raises is logged. Where it is too slow events are dropped: it is for chat
            messages and counters, a match waits with its handle.
        max_reading: bodies that are read at once; more are answered 503. A server of its own has
            four times as many connections; more are closed as they come.
        max_waiting: events that wait for `on_event`; more are dropped.

    Raises:
        InvalidRequest: `public_url` is not an http or https URL, `path` not a path, `on_event` not
            a coroutine function, or a number is below 1.
    """

    def __init__(
        self,
        public_url: str | None = None,
        *,
        path: str = "/edgegap/webhooks",
        on_event: Callable[[WebhookEvent], Awaitable[object]] | None = None,
        max_reading: int = 100,
        max_waiting: int = 1000,
    ) -> None:
        if public_url is not None and not _reachable(public_url):
            raise InvalidRequest(f"not a URL that the API could reach: {public_url!r}")
        if not path.startswith("/") or not path.strip("/"):
            raise InvalidRequest(f"path begins with / and names something, not {path!r}")
        if on_event is not None and not is_coroutine_function(on_event):
            raise InvalidRequest("on_event is a coroutine function: async def on_event(event)")
        if min(max_reading, max_waiting) < 1:
            raise InvalidRequest("max_reading and max_waiting are numbers from 1 on")
        self._public_url = public_url and public_url.rstrip("/")
        self._path = path.rstrip("/")
        self._hooks = WeakValueDictionary[bytes, _Subscription]()
        self._recent = OrderedDict[
            bytes, None
        ]()  # keys handed out lately: a late webhook is not unknown
        self._max_reading = max_reading
        self._reading = 0
        self._answers = Counter[int]()  # by status
        self._late = 0
        self.forward: Callable[[bytes], None] | None = None
        """Called with the hash of an unknown URL; set by `Cluster.webhook_source`, else None."""
        self._on_event = on_event
        self._max_waiting = max_waiting
        self._events = deque[WebhookEvent]()
        self._outcomes = Counter[str]()  # of events
        self._handling: asyncio.Task[None] | None = None
        self._is_closed = False
        self._complaints = 0
        self._complained_at = -math.inf

    @property
    def stats(self) -> WebhookStats:
        """What has come so far."""
        answers = dict(self._answers)
        return WebhookStats(
            received=answers.pop(HTTPStatus.NO_CONTENT, 0),
            unknown=answers.pop(HTTPStatus.NOT_FOUND, 0),
            late=self._late,
            refused=answers,
            handled=self._outcomes["handled"],
            failed=self._outcomes["failed"],
            dropped=self._outcomes["dropped"],
        )

    def open(self, wake: Callable[[], None]) -> _Subscription:
        """Fresh URLs for one deployment; whatever comes to them calls `wake`, in the loop."""
        if self._public_url is None:
            raise InvalidRequest(
                "the API cannot reach this receiver: give it a public_url, or serve() it first"
            )
        secret = secrets.token_urlsafe(32)
        hook = _Subscription(f"{self._public_url}{self._path}/{secret}", wake)
        key = _hash(secret)
        self._hooks[key] = hook
        self._recent[key] = None
        if len(self._recent) > _RECENT_KEYS:
            self._recent.popitem(last=False)
        return hook

    def trigger(self, key: bytes) -> bool:
        """Wakes whoever waits for the URL with this hash, and tells whether it is known here."""
        hook = self._hooks.get(key)
        if hook is None:
            return False
        hook.ring()
        return True

    # ── where it runs ────────────────────────────────────────────────────────────────────────────

    def application(self) -> web.Application:
        """An aiohttp application that receives the webhooks, to be mounted at `path`."""
        return aiohttp_application(self._judge, opened=self._open_again, close=self.close)

    def attach(self, application: web.Application) -> None:
        """Mounts the receiver in an application of yours, which has not started yet."""
        application.add_subapp(self._path, self.application())

    def asgi(self) -> AsgiApplication:
        """An ASGI application that receives the webhooks, to be mounted at `path` or run alone.

        Mounted, it is not told of the end: call `close()` there, if you use `on_event`.
        """
        return asgi_application(self._judge, opened=self._open_again, close=self.close)

    @contextlib.asynccontextmanager
    async def serve(self, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[Self]:
        """A server of its own for the webhooks, as long as the block lasts.

        Args:
            host: address to listen on; `0.0.0.0` or `::` for all.
            port: port to listen on; 0 for a free one.

        Raises:
            InvalidRequest: it listens on all addresses and has no `public_url`.
        """
        if self._public_url is None and host in {"", "0.0.0.0", "::"}:  # noqa: S104 - what is refused
            raise InvalidRequest("a receiver that listens on all addresses needs a public_url")
        from aiohttp import web  # noqa: PLC0415 - a tenth of the package's import time
        from aiohttp.http import HttpProcessingError  # noqa: PLC0415 - as above

        def complain(record: logging.LogRecord) -> bool:
            error = record.exc_info and record.exc_info[1]
            if isinstance(error, HttpProcessingError):
                self._complain("it is not HTTP")
            else:
                logger.handle(record)
            return False

        # What is not HTTP aiohttp would log each time, with a traceback.
        quiet = logging.Logger(logger.name, logging.WARNING)  # noqa: LOG001 - this server's alone
        quiet.addFilter(complain)
        server = aiohttp_server(
            self._judge,
            most=_CONNECTIONS * self._max_reading,
            crowded=lambda: self._complain("too many connections are open"),
            logger=quiet,
        )
        runner = web.ServerRunner(server, shutdown_timeout=1.0)
        await runner.setup()
        given = self._public_url
        self._open_again()
        try:
            await web.TCPSite(runner, host, port).start()
            if given is None:
                bound_host, bound_port = runner.addresses[0][:2]
                name = f"[{bound_host}]" if ":" in bound_host else bound_host
                self._public_url = f"http://{name}:{bound_port}"
            yield self
        finally:
            self._public_url = given
            await runner.cleanup()
            await self.close()

    def _open_again(self) -> None:
        self._is_closed = False

    async def close(self, timeout: float = 5.0) -> None:  # noqa: ASYNC109 - nothing is raised
        """Answers 503 from now on, and waits for `on_event`; after so many seconds it is cancelled.

        Called where a server of its own, an aiohttp application or a lone ASGI one ends. Twice is
        fine.
        """
        self._is_closed = True
        if self._handling is None:
            return
        await asyncio.wait([self._handling], timeout=timeout)
        if not self._handling.done():
            dropped = len(self._events) + 1  # with the one that is being handled
            logger.warning("closed before on_event took %d events", dropped)
            self._outcomes["dropped"] += dropped
            self._events.clear()
            self._handling.cancel()
            await asyncio.wait([self._handling])

    # ── what comes ───────────────────────────────────────────────────────────────────────────────

    async def _judge(self, arrival: IncomingRequest) -> int:
        status = HTTPStatus.NO_CONTENT
        try:
            await self._take(arrival)
        except _Rejected as refusal:
            status = refusal.status
            if refusal.is_late:
                self._late += 1
                return status
            self._complain(_REJECT_REASONS[status])
        self._answers[status] += 1
        return status

    async def _take(self, arrival: IncomingRequest) -> None:
        # What comes before the secret is the mount's affair, or a proxy's.
        before, slash, kind = arrival.path.rpartition("/")
        before, slash, secret = before.rpartition("/")
        key = _hash(secret)
        may_be_ours = bool(slash) and kind in _KINDS and bool(_SECRET.fullmatch(secret))
        hook = self._hooks.get(key) if may_be_ours else None
        is_late = may_be_ours and hook is None and key in self._recent  # its handle is gone
        if hook is None and (is_late or self.forward is None or not may_be_ours):
            arrival.hide(f"/{_HIDDEN}")  # there may be a secret in it all the same
            raise _Rejected(HTTPStatus.NOT_FOUND, is_late=is_late)
        arrival.hide(f"{before}/{_HIDDEN}/{kind}")
        if arrival.method != "POST":
            raise _Rejected(HTTPStatus.METHOD_NOT_ALLOWED)
        if arrival.header("content-encoding").lower() not in {"", "identity"}:
            raise _Rejected(HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
        if self._is_closed:
            raise _Rejected(HTTPStatus.SERVICE_UNAVAILABLE)
        if hook is None:
            assert self.forward is not None  # noqa: S101 - or it was turned away above
            self.forward(key)  # unread: whoever makes up URLs may not take the room of others
            return
        with self._one_more(hook):
            body = await _read(arrival)
        if not _is_object(body):
            raise _Rejected(HTTPStatus.BAD_REQUEST)
        hook.ring()
        if self._on_event is not None:
            self._tell(hook, cast("WebhookKind", kind), body)

    @contextlib.contextmanager
    def _one_more(self, hook: _Subscription) -> Iterator[None]:
        if self._reading >= self._max_reading or hook.reading >= _MAX_READS_EACH:
            raise _Rejected(HTTPStatus.SERVICE_UNAVAILABLE)
        self._reading += 1
        hook.reading += 1
        try:
            yield
        finally:
            self._reading -= 1
            hook.reading -= 1

    def _complain(self, why: str) -> None:
        self._complaints += 1
        now = asyncio.get_running_loop().time()
        if now >= self._complained_at + _MIN_WARN_INTERVAL:
            more = f" (and {self._complaints - 1} before it)" if self._complaints > 1 else ""
            logger.warning("a webhook was turned away: %s%s", why, more)
            self._complained_at = now
            self._complaints = 0

    # ── events ───────────────────────────────────────────────────────────────────────────────────

    def _tell(self, hook: _Subscription, kind: WebhookKind, body: bytes) -> None:
        if kind in hook.told:
            return
        try:
            event = WebhookEvent(kind, read_answer(Deployment, body))
        except ValueError as error:
            self._outcomes["dropped"] += 1
            logger.info("a webhook is not a status, and no event: %s", error)
            return
        if self._is_closed or len(self._events) >= self._max_waiting:
            self._outcomes["dropped"] += 1
            return
        hook.told.add(kind)
        self._events.append(event)
        if self._handling is None or self._handling.done():
            self._handling = asyncio.create_task(self._handle())

    async def _handle(self) -> None:
        assert self._on_event is not None  # noqa: S101 - there are events only if it is given
        while self._events:
            event = self._events.popleft()
            try:
                await self._on_event(event)
            except (Exception, asyncio.CancelledError) as error:
                if isinstance(error, asyncio.CancelledError) and is_cancelled():
                    raise
                self._outcomes["failed"] += 1
                logger.exception(
                    "on_event failed at %s of %s", event.kind, event.deployment.request_id
                )
            else:
                self._outcomes["handled"] += 1


async def _read(arrival: IncomingRequest) -> bytes:
    body = bytearray()
    try:
        if int(arrival.header("content-length") or 0) > _MAX_BODY_BYTES:
            raise _Rejected(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        async with asyncio.timeout(_BODY_TIMEOUT):
            while piece := await arrival.read():
                body += piece
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


def _reachable(url: str) -> bool:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:  # no port number, or half an IPv6 address
        return False
    return bool(usable) and not (parts.query or parts.fragment)


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "replace")).digest()
