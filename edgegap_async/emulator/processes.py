"""Start, watch and stop real processes.

A game server is a program started with an argument list (never a shell), in a session of its own,
with a clean environment and an empty home. What it starts itself belongs to it, even what has
left its session with `setsid`: all of them carry one unguessable value in their environment, and
`/proc/*/environ` tells who does. So a stop leaves nothing behind. SIGTERM goes to the program
alone and SIGKILL, after the grace, to the whole tree, as in a container, whose first process gets
the signal and takes the others with it.

That a game server is ready is not believed from what it prints: a socket that this tree owns must
be bound on the port. `/proc/net` says which sockets are, `/proc/PID/fd` who owns them.

All of it reads `/proc`: this is for Linux. It is no sandbox: the program runs as you, and what
clears its environment, leaves its session and outlives its parent escapes.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import resource
import shutil
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs

from .procfs import Binding, Kind, Member, SharedLook, all_members, bound_sockets, owns, tree

__all__ = ["Limits", "Machine", "Output", "ServerProcess", "Usage"]

_CHUNK: Final = 65536
_UNKILLABLE: Final = 5.0
"""Seconds after which a process that SIGKILL has not ended is left to the kernel."""
_DYING: Final = 0.005
"""Seconds for the kernel to be done with a process that was killed."""


@attrs.frozen(kw_only=True)
class Limits:
    """What one process may use; None for no limit."""

    memory_bytes: int | None = None
    """Of address space."""
    cpu_seconds: int | None = None
    """Of computing time, over its whole life."""


class Output:
    """The last that was written: at most `size` bytes, in pieces as they came.

    Pieces, not lines: a line may be longer than any buffer, and what is written may be no text.
    """

    def __init__(self, size: int = 2**20) -> None:
        self._size = size
        self._pieces: deque[bytes] = deque()
        self._held = 0

    def write(self, piece: bytes) -> None:
        """Take a piece, and let go of the oldest that are not needed any more."""
        self._pieces.append(piece)
        self._held += len(piece)
        while self._held - len(self._pieces[0]) >= self._size:
            self._held -= len(self._pieces.popleft())

    def text(self) -> str:
        """What is held, as text; bytes that are no UTF-8 are replaced."""
        return b"".join(self._pieces)[-self._size :].decode("utf-8", "replace")


# ── the processes ────────────────────────────────────────────────────────────────────────────────


@attrs.frozen(kw_only=True)
class Usage:
    """What a tree of processes has used so far, at the loop time `at`."""

    at: float
    cpu_seconds: float = 0.0
    memory_bytes: float = 0.0
    read_bytes: float = 0.0
    written_bytes: float = 0.0


class ServerProcess:
    """A program that runs, with all that it has started itself. Made by `Machine.start`."""

    def __init__(
        self,
        popen: subprocess.Popen[bytes],
        *,
        handle: int,
        pipe: int,
        mark: bytes,
        output: Output,
        census: SharedLook[list[Member]],
    ) -> None:
        self.pid = popen.pid
        self.exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        """Resolves to what `Popen.returncode` says: minus the signal's number if one ended it."""
        self.mark = mark
        self._popen = popen
        self._output = output
        self._census = census
        self._loop = asyncio.get_running_loop()
        self._pipe: int | None = pipe
        os.set_blocking(pipe, False)
        self._loop.add_reader(pipe, self._read)
        self._handle = handle
        self._loop.add_reader(self._handle, self._has_exited)

    def _read(self) -> bool:
        """Take what is there; whether there may be more."""
        if self._pipe is None:
            return False
        try:
            piece = os.read(self._pipe, _CHUNK)
        except BlockingIOError:
            return False
        if piece:
            self._output.write(piece)
        else:
            self._close_pipe()
        return bool(piece)

    @property
    def is_open(self) -> bool:
        """Whether it was not stopped yet, or not to the end."""
        return self._pipe is not None or not self.exited.done()

    def _close_pipe(self) -> None:
        if self._pipe is not None:
            self._loop.remove_reader(self._pipe)
            os.close(self._pipe)
            self._pipe = None

    def _has_exited(self) -> None:
        self._loop.remove_reader(self._handle)
        os.close(self._handle)
        code = self._popen.wait()  # at once: the handle says that it is over
        # Its last words are in the pipe; a child of it may still write, so not without end.
        for _ in range(2**20 // _CHUNK + 1):
            if not self._read():
                break
        self.exited.set_result(code)

    async def members(self) -> list[Member]:
        """The processes of this tree that are alive."""
        return tree(await self._census.take(), self.pid, self.mark)

    async def stop(self, grace: float) -> None:
        """End it and all it has started: SIGTERM, then SIGKILL after `grace` seconds."""
        known: set[Member] = set()
        if not self.exited.done():
            # Those without the mark can be found only as long as their parent lives.
            known.update(await self.members())
            self._popen.terminate()
            await asyncio.wait({self.exited}, timeout=grace)
        give_up = self._loop.time() + _UNKILLABLE
        while self._loop.time() < give_up:
            known.update(await self.members())  # again: a child may be born while we look
            known = {member for member in known if member.is_alive}
            if not known:
                break
            for member in known:
                member.kill()
            await asyncio.sleep(_DYING)
        await asyncio.wait({self.exited}, timeout=_UNKILLABLE)
        self._close_pipe()

    def reap(self) -> None:
        """Let go of it, its tree having been ended."""
        if not self.exited.done():
            self._has_exited()
        self._close_pipe()


class Machine:
    """The machine that game servers run on: this one.

    Args:
        mark: name of the environment variable whose unguessable value marks a tree.
        look_every: seconds between two looks at the ports that are bound.
    """

    def __init__(self, *, mark: str, look_every: float = 0.03) -> None:
        self.look_every = look_every
        self._mark = mark
        self._census = SharedLook(functools.partial(all_members, mark.encode()))
        self._bound: Mapping[Kind, SharedLook[dict[int, set[str]]]] = {
            "udp": SharedLook(functools.partial(bound_sockets, "udp")),
            "tcp": SharedLook(functools.partial(bound_sockets, "tcp")),
        }
        self._processes: list[ServerProcess] = []
        self._homes = Path(tempfile.mkdtemp(prefix="edgegap-async-emulator-"))

    def start(
        self,
        argv: Sequence[str],
        *,
        name: str,
        environment: Mapping[str, str],
        output: Output,
        directory: str | None = None,
        limits: Limits | None = None,
    ) -> ServerProcess:
        """Start a program. `name` names its home, which it finds again when it is restarted.

        The environment is PATH, HOME, LANG and what is given, never that of this process. Without
        a `directory` it starts in its home.

        Raises:
            OSError: it cannot be started, for the reason that the system gives.
        """
        home = self._homes / name
        home.mkdir(mode=0o700, exist_ok=True)
        reading, writing = os.pipe()
        try:
            popen = subprocess.Popen(  # noqa: S603 - an argument list from the developer's own file
                argv,
                stdin=subprocess.DEVNULL,
                stdout=writing,
                stderr=writing,
                cwd=directory or home,
                env={
                    "PATH": os.environ.get("PATH", os.defpath),
                    "HOME": str(home),
                    "LANG": "C.UTF-8",
                    **environment,
                },
                start_new_session=True,
                umask=0o077,
            )
        except (OSError, ValueError, subprocess.SubprocessError) as problem:
            os.close(reading)
            if isinstance(problem, OSError):
                raise
            raise OSError(str(problem)) from None
        finally:
            os.close(writing)
        try:
            handle = os.pidfd_open(popen.pid)
        except OSError:  # no more files may be opened: nobody would look after it
            popen.kill()
            popen.wait()
            os.close(reading)
            raise
        _limit(popen.pid, limits or Limits())
        process = ServerProcess(
            popen,
            handle=handle,
            pipe=reading,
            mark=environment[self._mark].encode(),
            output=output,
            census=self._census,
        )
        self._processes = [one for one in self._processes if one.is_open]
        self._processes.append(process)
        return process

    def forget(self, name: str) -> None:
        """Remove the home of a program that is over."""
        shutil.rmtree(self._homes / name, ignore_errors=True)

    async def has_bound(self, process: ServerProcess, wanted: Iterable[Binding]) -> bool:
        """Whether sockets of this tree are bound on each of the wanted ports."""
        bindings = list(wanted)
        bound = {
            kind: await look.take() for kind, look in self._bound.items() if kind in dict(bindings)
        }
        sockets = [bound[kind].get(port, set()) for kind, port in bindings]
        if not all(sockets):
            return False
        if all(owns(process.pid, one) for one in sockets):
            return True
        pids = [member.pid for member in await process.members()]
        return all(any(owns(pid, one) for pid in pids) for one in sockets)

    async def usage(self, processes: Sequence[ServerProcess]) -> list[Usage]:
        """What each tree has used so far."""
        everyone = await self._census.take()
        at = asyncio.get_running_loop().time()
        trees = [[one.pid for one in tree(everyone, each.pid, each.mark)] for each in processes]
        return await asyncio.to_thread(lambda: [_measure(pids, at) for pids in trees])

    def end_now(self) -> None:
        """End every process that was not stopped, and remove all homes; nothing is awaited."""
        left = [process for process in self._processes if process.is_open]
        known: set[Member] = set()
        give_up = time.monotonic() + _UNKILLABLE
        while left and time.monotonic() < give_up:
            everyone = all_members(self._mark.encode())
            known.update(*(tree(everyone, one.pid, one.mark) for one in left))
            known = {member for member in known if member.is_alive}
            if not known:
                break
            for member in known:
                member.kill()
            time.sleep(_DYING)
        for process in left:
            process.reap()
        shutil.rmtree(self._homes, ignore_errors=True)

    async def close(self) -> None:
        """End what runs, remove all homes, and finish what is under way."""
        self.end_now()
        await self._census.close()
        for look in self._bound.values():
            await look.close()


def _limit(pid: int, limits: Limits) -> None:
    # From outside and just after the start: code run between fork and exec is not safe beside
    # threads, and makes a start several times slower.
    wanted = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_AS: limits.memory_bytes,
        resource.RLIMIT_CPU: limits.cpu_seconds,
    }
    with contextlib.suppress(ProcessLookupError):  # it ended already
        for kind, value in wanted.items():
            if value is not None:
                resource.prlimit(pid, kind, (value, value))


def _measure(pids: Iterable[int], at: float) -> Usage:
    import psutil  # noqa: PLC0415 - of the extra `emulator`

    cpu = memory = read = written = 0.0
    for pid in pids:
        with contextlib.suppress(psutil.Error):  # it ended while we looked
            process = psutil.Process(pid)
            with process.oneshot():
                times, held, moved = (
                    process.cpu_times(),
                    process.memory_info(),
                    process.io_counters(),
                )
            cpu += times.user + times.system
            memory += held.rss
            read += moved.read_bytes
            written += moved.write_bytes
    return Usage(
        at=at, cpu_seconds=cpu, memory_bytes=memory, read_bytes=read, written_bytes=written
    )
