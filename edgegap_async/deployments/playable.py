"""Whether players can play, which is more than READY.

READY means that the machine runs the server and its ports are open. Whether the game behind them
has loaded its map and answers, only its own port tells. A check is tried again and again until it
succeeds or its time is over; then `NotPlayable` says what was tried and how it last failed.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, Protocol, TypeAlias

import attrs

from edgegap_async.api.models import Deployment, Endpoint, Status, StatusChange
from edgegap_async.api.validation import number
from edgegap_async.errors import ClientClosed, InvalidRequest, NotPlayable, is_cancelled

__all__ = [
    "Check",
    "HttpGet",
    "PlayableCheck",
    "TcpConnect",
    "UdpAnswer",
    "as_check",
    "until_playable",
]


class Server(Protocol):
    """What a check needs to know of a `DeploymentHandle`."""

    @property
    def request_id(self) -> str: ...
    @property
    def status(self) -> Status | None: ...
    @property
    def deployment(self) -> Deployment | None: ...
    @property
    def history(self) -> tuple[StatusChange, ...]: ...
    def endpoint(self, name: str | None = None) -> Endpoint: ...


class _CheckFailed(Exception):
    """An attempt came to an end, and not to a good one."""


@attrs.frozen(kw_only=True)
class PlayableCheck(abc.ABC):
    """How often a check is tried; the kinds of check are its subclasses.

    For one of your own write a coroutine function that takes the `DeploymentHandle` and raises, or
    returns False, while it is not playable; or a subclass with a method `attempt` that raises, to
    choose the times.
    """

    timeout: float = attrs.field(default=30.0, validator=number(above=0))
    """Seconds, from READY, that the server has to become playable."""
    patience: float = attrs.field(default=2.0, validator=number(above=0))
    """Seconds that one attempt may take."""
    interval: float = attrs.field(default=0.25, validator=number(above=0))
    """Seconds between two attempts."""

    shows_as: ClassVar[str] = "a check"

    @abc.abstractmethod
    async def attempt(self, server: Any) -> object:
        """Returns if players can play now; raises otherwise."""

    def tried(self, server: Any) -> str:  # noqa: ARG002 - others ask it where
        """What was tried, for the error."""
        return self.shows_as


@attrs.frozen(kw_only=True)
class _PortCheck(PlayableCheck):
    port: str | None = attrs.field(default=None, kw_only=False)
    """The port's name in the application version; may be left out if there is one port."""

    def tried(self, server: Server) -> str:
        return f"{self.shows_as} {server.endpoint(self.port)}"


@attrs.frozen(kw_only=True)
class TcpConnect(_PortCheck):
    """Playable is what takes a TCP connection: `TcpConnect("game")`."""

    shows_as: ClassVar[str] = "a TCP connection to"

    async def attempt(self, server: Server) -> None:
        """Connects, and hangs up."""
        endpoint = server.endpoint(self.port)
        _, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
        writer.close()
        with contextlib.suppress(OSError):  # how it ends is of no interest
            await writer.wait_closed()


@attrs.frozen(kw_only=True)
class UdpAnswer(_PortCheck):
    """Playable is what answers a datagram: `UdpAnswer("game", datagram=b"ping")`."""

    datagram: bytes = attrs.field(repr=False)  # it may hold a password
    expects: bytes | Callable[[bytes], bool] | None = attrs.field(default=None, repr=False)
    """What the answer begins with, or tells whether it is one; None for any answer."""

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.datagram, bytes):
            raise InvalidRequest("UdpAnswer.datagram is bytes")
        if not (self.expects is None or isinstance(self.expects, bytes) or callable(self.expects)):
            raise InvalidRequest("UdpAnswer.expects is bytes, or a function of the answer")

    shows_as: ClassVar[str] = "a datagram to"

    async def attempt(self, server: Server) -> None:
        """Sends the datagram once, and looks at the first answer."""
        endpoint = server.endpoint(self.port)
        loop = asyncio.get_running_loop()
        first: asyncio.Future[bytes] = loop.create_future()
        transport, _ = await loop.create_datagram_endpoint(
            lambda: _FirstAnswer(first), remote_addr=(endpoint.host, endpoint.port)
        )
        try:
            transport.sendto(self.datagram)
            answer = await first
        finally:
            transport.close()
        expects = self.expects
        if not (expects(answer) if callable(expects) else answer.startswith(expects or b"")):
            raise _CheckFailed(f"the answer is {answer[:100]!r}, not what is expected")


class _FirstAnswer(asyncio.DatagramProtocol):
    def __init__(self, answer: asyncio.Future[bytes]) -> None:
        self._answer = answer

    def datagram_received(self, data: bytes, addr: object) -> None:
        del addr
        if not self._answer.done():
            self._answer.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self._answer.done():
            self._answer.set_exception(exc)


@attrs.frozen(kw_only=True)
class HttpGet(_PortCheck):
    """Playable is what answers a GET: `HttpGet("status", path="/healthy")`."""

    path: str = "/"
    status: int = 200
    """What it has to answer. A redirect is not followed."""

    shows_as: ClassVar[str] = "GET"

    async def attempt(self, server: Server) -> None:
        """Asks once, on a connection of its own."""
        import aiohttp  # noqa: PLC0415 - the transport's business in all other cases

        url = self._url(server)
        async with (
            aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session,
            session.get(url, allow_redirects=False) as answer,
        ):
            if answer.status != self.status:
                raise _CheckFailed(f"answered {answer.status}, not {self.status}")

    def tried(self, server: Server) -> str:
        """The URL, and that it was asked for."""
        return f"{self.shows_as} {self._url(server)}"

    def _url(self, server: Server) -> str:
        endpoint = server.endpoint(self.port)
        scheme = "https" if endpoint.protocol == "HTTPS" else "http"
        link = endpoint.link if "://" in endpoint.link else f"{scheme}://{endpoint.link}"
        return f"{link.rstrip('/')}/{self.path.lstrip('/')}"


@attrs.frozen(kw_only=True)
class _CallableCheck(PlayableCheck):
    """A coroutine function of the caller's own."""

    function: Callable[[Any], Awaitable[object]]

    async def attempt(self, server: Server) -> None:
        answer = self.function(server)
        if not inspect.isawaitable(answer):
            raise InvalidRequest(f"playable is a coroutine function, and this is none: {answer!r}")
        if await answer is False:
            raise _CheckFailed("it returned False")

    def tried(self, server: Server) -> str:
        del server
        return getattr(self.function, "__qualname__", repr(self.function))


Check: TypeAlias = PlayableCheck | Callable[[Any], Awaitable[object]]
"""A check of one of the classes, or a coroutine function of one's own: it is given the
`DeploymentHandle`, and raises, or returns False, while it is not playable."""


def as_check(check: Check) -> PlayableCheck:
    """The check; a coroutine function has the usual times.

    Raises:
        InvalidRequest: it is neither.
    """
    if isinstance(check, PlayableCheck):
        return check
    if isinstance(check, type) or not callable(check):
        raise InvalidRequest(f"playable is a check such as TcpConnect(), not {check!r}")
    return _CallableCheck(function=check)


def _failure_text(error: Exception, *, is_late: bool) -> str:
    if is_late:
        return "no answer"
    return str(error) if isinstance(error, _CheckFailed) else f"{type(error).__name__}: {error}"


async def until_playable(server: Server, check: PlayableCheck, seconds: float | None) -> None:
    """Returns once a server that is READY is playable.

    Args:
        server: which.
        check: what tells.
        seconds: at most so many, where the check's own timeout is longer.

    Raises:
        NotPlayable: it was not in time, or was seen to fail or end. It still exists.
        InvalidRequest: there is no such port.
    """
    now = asyncio.get_running_loop().time
    limit = check.timeout if seconds is None else min(check.timeout, seconds)
    until = now() + limit
    attempts, failure = 0, "there was no time for an attempt"
    cause: Exception | None = None
    while (left := until - now()) > 0 and not (server.status and server.status.is_terminal):
        attempts += 1
        patience = asyncio.timeout(min(check.patience, left))
        cancellations = _cancellations()
        try:
            async with patience:
                await check.attempt(server)
        except (ClientClosed, InvalidRequest):
            raise
        except asyncio.CancelledError:
            if is_cancelled():
                raise
            cause, failure = None, "what it waited for was cancelled"
        except Exception as error:  # noqa: BLE001 - whatever it is, it is not playable yet
            cause = error
            failure = _failure_text(error, is_late=patience.expired())
        else:
            if _cancellations() > cancellations:  # and the check has kept it to itself
                raise asyncio.CancelledError
            if not patience.expired():
                return
            cause, failure = None, "no answer"  # likewise
        await asyncio.sleep(max(0.0, min(check.interval, until - now())))
    message = f"{check.tried(server)} failed {attempts} times in {limit:g} s; at last: {failure}"
    try:
        raise _not_playable(server, message, attempts) from cause
    finally:
        del cause  # its traceback holds this frame, and that the server


def _cancellations() -> int:
    """How often the task was cancelled; a time-out that has ended does not count."""
    task = asyncio.current_task()
    return task.cancelling() if task else 0


def _not_playable(server: Server, message: str, attempts: int) -> NotPlayable:
    problem = NotPlayable.of(server, message)
    problem.attempts = attempts
    return problem
