"""An emulator in a thread of its own, for tests: it answers whatever the test's event loop does."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable, Container, Coroutine, Iterable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final, Self, TypeVar, Unpack

from edgegap_async import EdgegapClient, PollingPolicy
from edgegap_async.emulator import (
    Application,
    Emulator,
    Faults,
    LocalDeployment,
    LocalRelaySession,
    RecordedRequest,
    StatusEvent,
)
from edgegap_async.emulator.settings_file import EmulatorSettings
from edgegap_async.errors import InvalidRequest

_Result = TypeVar("_Result")

_ANSWER_TIMEOUT: Final = 30.0  # seconds in which the emulator's thread must have done a call
_POLLING: Final = PollingPolicy(first_delay=0.02, interval=0.05)
_LIST_DELAY: Final = 1.0  # seconds; lists of the emulator show a deployment at once


class EmulatorThread:
    """An `Emulator` that runs in a thread and an event loop of its own, from `start` to `close`.

    Every method and attribute can be used in every other thread, with and without an event loop.

    Args:
        apps: as for `Emulator`.
        settings: the other arguments of `Emulator`.
    """

    def __init__(
        self,
        apps: Iterable[Application] | str | Path = (),
        **settings: Unpack[EmulatorSettings],
    ) -> None:
        self._apps, self._settings = apps, settings
        self._emulator: Emulator | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closing: asyncio.Event | None = None
        self._ended: Future[None] = Future()

    def __repr__(self) -> str:
        emulator = self._emulator
        return f"<EmulatorThread {emulator.url if emulator else '(not running)'}>"

    def start(self) -> None:
        """Starts to listen. The `with` block does this.

        Raises:
            InvalidRequest: a setting has no valid value, a package is missing, or it was started
                before.
            OSError: another program has the port.
        """
        if self._loop is not None:
            raise InvalidRequest("the emulator was started before: make another one")
        self._loop = asyncio.SelectorEventLoop()  # not one of the test's policy
        started: Future[Emulator] = Future()
        self._thread = threading.Thread(
            target=self._serve, args=(self._loop, started), name="edgegap-emulator", daemon=True
        )
        self._thread.start()
        self._emulator = started.result()

    def _serve(self, loop: asyncio.AbstractEventLoop, started: Future[Emulator]) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(self._run(started))
        except BaseException as problem:  # noqa: BLE001 - it is raised in the thread that waits
            (self._ended if started.done() else started).set_exception(problem)
        else:
            self._ended.set_result(None)

    async def _run(self, started: Future[Emulator]) -> None:
        self._closing = asyncio.Event()
        async with Emulator(self._apps, **self._settings) as emulator:
            started.set_result(emulator)
            await self._closing.wait()

    def close(self) -> None:
        """Ends every process and stops listening. A second call does nothing.

        Raises:
            BaseExceptionGroup: exceptions inside the emulator, which are defects of it.
        """
        if self._emulator is not None and self._loop is not None and self._closing is not None:
            self._emulator = None
            self._loop.call_soon_threadsafe(self._closing.set)
            self._ended.result()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ── calls in its thread ──────────────────────────────────────────────────────────────────────

    def run(self, function: Callable[[Emulator], Coroutine[Any, Any, _Result]]) -> _Result:
        """Calls an async function with the emulator, in the emulator's event loop.

        For example `run(lambda emulator: emulator.clock.advance(60))`. An exception of the function
        is raised here.

        Returns:
            What the function returns.

        Raises:
            InvalidRequest: the emulator is not running, or the call comes from its own event loop,
                as in an async function that was given to `run`.
            TimeoutError: the function has not returned after 30 seconds.
        """
        if self._emulator is None or self._loop is None:
            raise InvalidRequest("the emulator is not running: use it as `with EmulatorThread(…)`")
        if threading.current_thread() is self._thread:
            raise InvalidRequest("the emulator's own thread has the `Emulator`: use that")
        call = asyncio.run_coroutine_threadsafe(function(self._emulator), self._loop)
        try:
            return call.result(_ANSWER_TIMEOUT)
        finally:
            call.cancel()

    def call(self, function: Callable[[Emulator], _Result]) -> _Result:
        """Calls a function with the emulator, as `run` does with an async one.

        Returns:
            What the function returns.
        """

        async def called(emulator: Emulator) -> _Result:
            return function(emulator)

        return self.run(called)

    # ── as on `Emulator` ─────────────────────────────────────────────────────────────────────────

    @property
    def url(self) -> str:
        """The base URL for clients on this machine."""
        return self.call(lambda emulator: emulator.url)

    @property
    def token(self) -> str:
        """The API token that clients must send."""
        return self.call(lambda emulator: emulator.token)

    @property
    def faults(self) -> Faults:
        """The scripted faults that are still to happen; add more with `faults.add`."""
        return self.call(lambda emulator: emulator.faults)

    @property
    def requests(self) -> list[RecordedRequest]:
        """The requests that came, oldest first; the last 20,000."""
        return self.call(lambda emulator: emulator.requests)

    @property
    def deployments(self) -> Mapping[str, LocalDeployment]:
        """Every deployment that the API knows now, by request_id, oldest first.

        Read their attributes; a method of them needs `call`.
        """
        return self.call(lambda emulator: dict(emulator.deployments))

    @property
    def relay_sessions(self) -> Mapping[str, LocalRelaySession]:
        """The relay sessions that exist now, by session_id, oldest first."""
        return self.call(lambda emulator: dict(emulator.relay_sessions))

    def live(self) -> tuple[LocalDeployment, ...]:
        """Returns the deployments that are not TERMINATED, those in ERROR too; oldest first."""
        return self.call(Emulator.live)

    def history(self, request_id: str) -> tuple[StatusEvent, ...]:
        """Returns the changes of status of one deployment, oldest first."""
        return self.call(lambda emulator: emulator.history(request_id))

    def reset(self, *, keep: Iterable[str] = ()) -> None:
        """Ends every process, and sets everything as it was at the start.

        Args:
            keep: ids of deployments and relay sessions that stay as they are. Default: none.
        """
        self.run(lambda emulator: emulator.reset(keep=keep))

    # ── for tests ────────────────────────────────────────────────────────────────────────────────

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables by which clients find the emulator and have its token."""
        return {"EDGEGAP_API_TOKEN": self.token, "EDGEGAP_BASE_URL": self.url}

    def client(self, **settings: Any) -> EdgegapClient:
        """Returns a client of the emulator, which is to be used as `async with emulator.client()`.

        It asks for a status every 0.05 seconds, and its `list_delay` is 1 second.

        Args:
            settings: other arguments of `EdgegapClient`, such as `owner` or `webhooks`.
        """
        defaults = {"polling": _POLLING, "list_delay": _LIST_DELAY}
        return EdgegapClient(self.token, base_url=self.url, **{**defaults, **settings})

    def left_running(self, *, besides: Container[str] = ()) -> str:
        """Describes deployments that run although no stop was requested, and relay sessions.

        A deployment in ERROR does not run.

        Args:
            besides: ids of deployments and relay sessions that may run. Default: none.

        Returns:
            A text with status, changes of status and calls of each; empty if there is none.
        """

        def described(emulator: Emulator) -> str:
            left = [
                _description(emulator, one)
                for one in emulator.live()
                if not one.status.is_terminal
                and not one.is_stop_requested
                and one.request_id not in besides
            ]
            sessions = [
                f"relay session {session_id}, players: {', '.join(session.users) or 'none'}"
                for session_id, session in emulator.relay_sessions.items()
                if session_id not in besides
            ]
            what = "deployment" if left else "relay session"
            count = len(left or sessions)
            number = f"1 {what} was" if count == 1 else f"{count} {what}s were"
            left += sessions
            return "\n\n".join([f"{number} left running:", *left]) if left else ""

        return self.call(described)


def _description(emulator: Emulator, deployment: LocalDeployment) -> str:
    """Returns what happened to a deployment: changes of status, and calls about it."""
    application = f"{deployment.application.name} {deployment.application.version}"
    groups = itertools.groupby(
        f"{request.operation} {request.status}"
        for request in emulator.requests
        if request.request_id == deployment.request_id
    )
    calls = [(call, sum(1 for _ in same)) for call, same in groups]
    tags = ", ".join(deployment.tags) or "none"
    return "\n".join(
        [
            f"{application} {deployment.request_id} is {deployment.status}, tags: {tags}",
            *(
                f"  {(one.at - deployment.created_at).total_seconds():8.3f} s  {one.later}"
                + (f": {one.reason}" if one.reason else "")
                for one in emulator.history(deployment.request_id)
            ),
            "  calls: "
            + ", ".join(call if count == 1 else f"{call} ({count} times)" for call, count in calls),
        ]
    )
