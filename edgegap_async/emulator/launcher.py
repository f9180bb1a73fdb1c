"""The emulator's side of `guardian`: starts the guardian, and starts game servers through it.

The guardian is started with the first game server and ended by `close`. Everything that it has
started then ends at once. If the guardian is killed, every game server counts as killed, and the
next one gets another guardian.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import logging
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from pathlib import Path
from typing import Any, Final

import attrs

from edgegap_async.errors import log_fields

from .guardian import Messages, encode, kill_marked, remove_containers
from .ledger import MARK_VARIABLE, NewLedger
from .ledger import create as create_ledger

_log: Final = logging.getLogger(__name__)

_RECEIVE_BYTES: Final = 65536
_GUARDIAN: Final = Path(__file__).with_name("guardian.py")
_END_TIMEOUT: Final = 24.0
"""Seconds in which the guardian must end; it tries to kill for twice 5 seconds, and asks a
container engine for twice 5."""
_RETRY_INTERVAL: Final = 0.02
"""Seconds before a message is sent again whose descriptor the kernel could not take."""


def _future() -> asyncio.Future[Any]:
    return asyncio.get_running_loop().create_future()


@attrs.frozen(kw_only=True, eq=False)
class Program:
    """A program that the guardian has started, or will start."""

    key: int
    """Its number in messages."""
    started: asyncio.Future[int] = attrs.field(factory=_future)
    """Resolves to its process id, or to the `OSError` for which it could not be started."""
    exited: asyncio.Future[int] = attrs.field(factory=_future)
    """Resolves to its exit code, or to minus the number of the signal that ended it."""
    over: asyncio.Future[None] = attrs.field(factory=_future)
    """Resolves once each process that it has left behind has ended, too."""


class Launcher:
    """Starts and signals programs through a guardian. It belongs to the running event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._keys = itertools.count(1)
        self._programs: dict[int, Program] = {}
        self._channel: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._ledger: NewLedger | None = None
        self._messages = Messages()
        self._unsent: deque[tuple[bytes, int | None]] = deque()
        self._containers: tuple[str, str] | None = None

    # ── programs ─────────────────────────────────────────────────────────────────────────────────

    def start(self, output: int, **message: Any) -> Program:
        """Starts a program; `started` of the result tells whether it could be started.

        Args:
            output: the descriptor that the program writes to; closed by this.
            message: the rest of the message `start`, as the guardian reads it: `argv`, `name`,
                `environment`, `directory`, `home`, `limits` by their name in the module `resource`,
                and `is_sandboxed`, whether the program is bubblewrap, and signals are for the
                program inside.
        """
        program = Program(key=next(self._keys))
        self._programs[program.key] = program
        self._send({"do": "start", "key": program.key, **message}, output)
        return program

    def signal(self, program: Program, number: signal.Signals) -> None:
        """Sends a signal to a program that has not exited."""
        if not program.exited.done():
            self._send({"do": "signal", "key": program.key, "signal": int(number)})

    def remove_home(self, name: str) -> None:
        """Removes the home of a program that has ended."""
        if self._ledger is not None:
            self._send({"do": "remove", "home": str(self._ledger.homes / name)})

    def guard_containers(self, engine: str, label: str) -> None:
        """Has the guardian remove containers when the emulator ends.

        Args:
            engine: URL of their engine.
            label: the label that they have, `NAME=VALUE`.

        Raises:
            OSError: the guardian cannot be started.
        """
        self.open()
        if self._containers != (engine, label):
            self._containers = (engine, label)
            self._send({"do": "containers", "engine": engine, "label": label})

    # ── the guardian ─────────────────────────────────────────────────────────────────────────────

    def open(self) -> NewLedger:
        """Starts the guardian unless it runs. Returns its ledger.

        Raises:
            OSError: it cannot be started.
        """
        if self._ledger is not None:
            return self._ledger
        created = create_ledger()
        try:
            ours, theirs = socket.socketpair()
            with theirs:
                try:
                    self._process = _start_guardian(theirs.fileno(), created.descriptor)
                except BaseException:
                    ours.close()
                    raise
        finally:
            os.close(created.descriptor)
        ours.setblocking(False)
        self._channel, self._ledger = ours, created
        self._messages = Messages()
        self._loop.add_reader(ours, self._receive)
        return created

    def close(self) -> None:
        """Ends the guardian and with it each program, without awaiting anything."""
        self._disconnect()
        if self._process is not None:
            try:
                self._process.wait(_END_TIMEOUT)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            if self._process.returncode == 0:
                self._containers = None  # the guardian has removed them
        self._process = None
        self._end_programs()

    def _disconnect(self) -> None:
        if self._channel is None:
            return
        self._loop.remove_reader(self._channel)
        self._loop.remove_writer(self._channel)
        with contextlib.suppress(OSError):  # the guardian has ended
            # Not only closed: a process that the program has forked may have a copy.
            self._channel.shutdown(socket.SHUT_RDWR)
        self._channel.close()
        self._channel = None
        for _, descriptor in self._unsent:
            if descriptor is not None:
                os.close(descriptor)
        self._unsent.clear()

    def _end_programs(self) -> None:
        if self._ledger is not None:
            # The guardian has done it, unless it was killed.
            kill_marked(f"{MARK_VARIABLE}={self._ledger.mark}")
            self._end_containers()
            self._ledger.remove()
            self._ledger = None
        for program in self._programs.values():
            if not program.started.done():
                program.started.set_exception(OSError("the emulator has ended"))
                program.started.exception()  # so that asyncio does not report it
            if not program.exited.done():
                program.exited.set_result(-signal.SIGKILL)
            if not program.over.done():
                program.over.set_result(None)
        self._programs.clear()

    def _end_containers(self) -> None:
        containers, self._containers = self._containers, None
        if containers is None:
            return
        try:
            remove_containers(*containers)
        except OSError as problem:
            _log.warning(
                "containers with the label %s may be left: %s; the next emulator removes them",
                containers[1],
                problem,
                extra=log_fields(problem, label=containers[1]),
            )

    # ── messages ─────────────────────────────────────────────────────────────────────────────────

    def _send(self, message: dict[str, Any], descriptor: int | None = None) -> None:
        self._unsent.append((encode(message), descriptor))
        if len(self._unsent) == 1:
            self._flush()

    def _flush(self) -> None:
        while self._channel is not None and self._unsent:
            data, descriptor = self._unsent[0]
            try:
                if descriptor is None:
                    sent = self._channel.send(data)
                else:
                    sent = socket.send_fds(self._channel, [data], [descriptor])
            except BlockingIOError:
                self._loop.add_writer(self._channel, self._flush)
                return
            except OSError as problem:
                if problem.errno == errno.ETOOMANYREFS:
                    self._loop.call_later(_RETRY_INTERVAL, self._flush)
                # Else the guardian has ended, which `_receive` sees.
                return
            if descriptor is not None:
                os.close(descriptor)
            if sent < len(data):
                self._unsent[0] = (data[sent:], None)
            else:
                self._unsent.popleft()
        if self._channel is not None:
            self._loop.remove_writer(self._channel)

    def _receive(self) -> None:
        assert self._channel is not None  # noqa: S101 - else nothing calls this
        try:
            data = self._channel.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            _log.warning(
                "the guardian of the game servers was killed; their deployments fail",
                extra=log_fields(count=len(self._programs)),
            )
            self.close()
            return
        for message in self._messages.add(data):
            program = self._programs[message["key"]]
            if "pid" in message:
                program.started.set_result(message["pid"])
            elif "failed" in message:
                del self._programs[program.key]
                program.started.set_exception(OSError(*message["failed"]))
                program.started.exception()  # so that asyncio does not report it
            elif "code" in message:
                program.exited.set_result(message["code"])
            else:
                program.over.set_result(None)
                del self._programs[program.key]


def _start_guardian(channel: int, ledger_file: int) -> subprocess.Popen[bytes]:
    # Without the environment of this process, which game servers could read. A Python with a
    # shared library may need the path of it.
    path = os.environ.get("LD_LIBRARY_PATH")
    return subprocess.Popen(  # noqa: S603 - this Python and a file of this package
        [sys.executable, "-I", "-S", str(_GUARDIAN), str(channel), str(ledger_file)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env={} if path is None else {"LD_LIBRARY_PATH": path},
        pass_fds=(channel, ledger_file),
        start_new_session=True,
    )
