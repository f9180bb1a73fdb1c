"""Checks that players can play on a server that is READY.

READY means that the server's process runs and its ports are open. It does not mean that the game
has loaded its map and answers players, which only its own ports can show. A check is attempted
repeatedly until it succeeds or its timeout has passed; then `NotPlayable` names the check, the
number of attempts and the last failure.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, ClassVar, TypeAlias

import attrs

from edgegap_async.api.validation import instance_of, number
from edgegap_async.api.values import Documented
from edgegap_async.concurrency import ask_by_datagram, is_cancelled, loop_time
from edgegap_async.errors import ClientClosed, InvalidRequest, NotPlayable

if TYPE_CHECKING:
    from .handle import DeploymentHandle


class _CheckFailed(Exception):
    """One attempt of a check failed."""


@attrs.frozen(kw_only=True)
class PlayableCheck(Documented, abc.ABC):
    """The base class of checks: how often a check is attempted, and for how long.

    For a check of your own, write a coroutine function that takes the `DeploymentHandle`, and
    raises or returns False while players cannot play. To choose the times as well, write a subclass
    with a method `attempt` that raises.
    """

    timeout: float = attrs.field(default=30.0, validator=number(above=0))
    """Seconds from READY until the check must succeed; above 0."""
    attempt_timeout: float = attrs.field(default=2.0, validator=number(above=0))
    """Seconds that one attempt may take; above 0."""
    interval: float = attrs.field(default=0.25, validator=number(above=0))
    """Seconds between the end of an attempt and the next attempt; above 0."""

    shows_as: ClassVar[str] = "a check"
    """What errors call the check, for example "a TCP connection to"; `tried` uses it."""

    @abc.abstractmethod
    async def attempt(self, server: DeploymentHandle) -> object:
        """Makes one attempt: returns if players can play now, raises otherwise.

        Args:
            server: the `DeploymentHandle`, which is READY.

        Raises:
            Exception: players cannot play yet, and the message says why. `InvalidRequest` and
                `ClientClosed` end the check.
        """

    def tried(self, server: DeploymentHandle) -> str:  # noqa: ARG002 - subclasses use it
        """Returns what the check has tried, for the text of `NotPlayable`.

        Args:
            server: the `DeploymentHandle`.
        """
        return self.shows_as


@attrs.frozen(kw_only=True)
class PortCheck(PlayableCheck):
    """The base class of checks that connect to a port: `TcpConnect`, `UdpAnswer`, `HttpGet`."""

    port: str | None = attrs.field(
        default=None, kw_only=False, validator=instance_of(str, type(None))
    )
    """The port's name in the application version; None if the version has one port."""

    def tried(self, server: DeploymentHandle) -> str:
        """Returns the kind of check and the address, for the text of `NotPlayable`."""
        return f"{self.shows_as} {server.endpoint(self.port)}"


@attrs.frozen(kw_only=True)
class TcpConnect(PortCheck):
    """Checks that a port accepts a TCP connection: `TcpConnect("game")`."""

    shows_as: ClassVar[str] = "a TCP connection to"

    async def attempt(self, server: DeploymentHandle) -> None:
        """Opens a connection, and closes it."""
        endpoint = server.endpoint(self.port)
        _, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
        writer.close()
        with contextlib.suppress(OSError):  # the connection was open, which is enough
            await writer.wait_closed()


@attrs.frozen(kw_only=True)
class UdpAnswer(PortCheck):
    """Checks that a port answers a datagram: `UdpAnswer("game", datagram=b"ping")`."""

    datagram: bytes = attrs.field(repr=False)  # it may contain a password
    """The datagram to send, once per attempt. `repr` does not show it."""
    expects: bytes | Callable[[bytes], bool] | None = attrs.field(default=None, repr=False)
    """The first bytes of the answer, or a function that returns whether an answer is the expected
    one; None for any answer. `repr` does not show it."""

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.datagram, bytes):
            raise InvalidRequest("UdpAnswer.datagram must be bytes")
        if not (self.expects is None or isinstance(self.expects, bytes) or callable(self.expects)):
            raise InvalidRequest("UdpAnswer.expects must be bytes, or a function of the answer")

    shows_as: ClassVar[str] = "a datagram to"

    async def attempt(self, server: DeploymentHandle) -> None:
        """Sends the datagram once, and compares the first answer."""
        endpoint = server.endpoint(self.port)
        answer, _ = await ask_by_datagram(endpoint.host, endpoint.port, self.datagram)
        expects = self.expects
        if not (expects(answer) if callable(expects) else answer.startswith(expects or b"")):
            raise _CheckFailed(f"the answer is {answer[:100]!r}, not what is expected")


@attrs.frozen(kw_only=True)
class HttpGet(PortCheck):
    """Checks that a port answers an HTTP GET: `HttpGet("status", path="/healthy")`."""

    path: str = attrs.field(default="/", validator=instance_of(str))
    """The path of the URL, with its query if there is one."""
    status: int = attrs.field(default=200, validator=number(least=100, most=599, whole=True))
    """The HTTP status that the answer must have. Redirects are not followed."""

    shows_as: ClassVar[str] = "GET"

    async def attempt(self, server: DeploymentHandle) -> None:
        """Sends one GET on a new connection, and compares the status of the answer."""
        import aiohttp  # most programs use no HttpGet

        url = self._url(server)
        async with (
            aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session,
            session.get(url, allow_redirects=False) as answer,
        ):
            if answer.status != self.status:
                raise _CheckFailed(f"answered {answer.status}, not {self.status}")

    def tried(self, server: DeploymentHandle) -> str:
        """Returns the method and the URL, for the text of `NotPlayable`."""
        return f"{self.shows_as} {self._url(server)}"

    def _url(self, server: DeploymentHandle) -> str:
        endpoint = server.endpoint(self.port)
        scheme = "https" if endpoint.protocol == "HTTPS" else "http"
        link = endpoint.link if "://" in endpoint.link else f"{scheme}://{endpoint.link}"
        return f"{link.rstrip('/')}/{self.path.lstrip('/')}"


@attrs.frozen(kw_only=True)
class _CallableCheck(PlayableCheck):
    """A check that calls a coroutine function of the caller."""

    function: Callable[[DeploymentHandle], Awaitable[object]]

    async def attempt(self, server: DeploymentHandle) -> None:
        answer = self.function(server)
        if not inspect.isawaitable(answer):
            raise InvalidRequest(
                f"playable must be a coroutine function; this function returned {answer!r}"
            )
        if await answer is False:
            raise _CheckFailed("it returned False")

    def tried(self, server: DeploymentHandle) -> str:
        del server
        return getattr(self.function, "__qualname__", repr(self.function))


Check: TypeAlias = PlayableCheck | Callable[["DeploymentHandle"], Awaitable[object]]
"""A `PlayableCheck`, or a coroutine function that takes the `DeploymentHandle`, and raises or
returns False while players cannot play."""


def as_check(check: Check) -> PlayableCheck:
    """Returns the check; makes one with the default times from a coroutine function.

    Raises:
        InvalidRequest: `check` is neither.
    """
    if isinstance(check, PlayableCheck):
        return check
    if isinstance(check, type) or not callable(check):
        raise InvalidRequest(f"playable must be a check such as TcpConnect(), not {check!r}")
    return _CallableCheck(function=check)


def _failure_text(error: Exception, *, is_late: bool) -> str:
    if is_late:
        return "no answer"
    return str(error) if isinstance(error, _CheckFailed) else f"{type(error).__name__}: {error}"


async def until_playable(
    server: DeploymentHandle, check: PlayableCheck, seconds: float | None
) -> None:
    """Attempts a check until it succeeds on a server that is READY.

    Args:
        server: the handle of the server.
        check: the check.
        seconds: the most seconds, if the check's own timeout is longer; None for its own.

    Raises:
        NotPlayable: the check did not succeed in time, or the server failed or ended meanwhile.
        InvalidRequest: the server has no such port.
    """
    limit = check.timeout if seconds is None else min(check.timeout, seconds)
    until = loop_time() + limit
    attempts, failure = 0, "there was no time for an attempt"
    cause: Exception | None = None
    while (left := until - loop_time()) > 0 and not (server.status and server.status.is_terminal):
        attempts += 1
        time_limit = asyncio.timeout(min(check.attempt_timeout, left))
        cancellations = _cancellations()
        try:
            async with time_limit:
                await check.attempt(server)
        except (ClientClosed, InvalidRequest):
            raise
        except asyncio.CancelledError:
            if is_cancelled():
                raise
            cause, failure = None, "a task that it waited for was cancelled"
        except Exception as error:  # any error means that players cannot play yet
            if _cancellations() > cancellations:  # the clean-up of the check has failed meanwhile
                raise asyncio.CancelledError from error
            is_late = time_limit.expired()
            # An attempt that the end has cut short says less than the one before.
            if not (is_late and attempts > 1 and left < check.attempt_timeout):
                cause, failure = error, _failure_text(error, is_late=is_late)
        else:
            if _cancellations() > cancellations:  # the check has suppressed the cancellation
                raise asyncio.CancelledError
            if not time_limit.expired():
                return
            cause, failure = None, "no answer"  # the check has suppressed the timeout
        await asyncio.sleep(max(0.0, min(check.interval, until - loop_time())))
    message = (
        f"{check.tried(server)} failed {attempts} times in {limit:g} s; the last failure: {failure}"
    )
    problem = NotPlayable.of(server, message)
    problem.attempts = attempts
    try:
        raise problem from cause
    finally:
        del cause, problem  # their tracebacks refer to this frame, which refers to the server


def _cancellations() -> int:
    """Returns the number of cancellations of the task. A timeout that has ended does not count."""
    task = asyncio.current_task()
    return task.cancelling() if task else 0
