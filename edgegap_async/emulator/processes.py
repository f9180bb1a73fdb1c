"""Starts, watches and stops real processes, on Linux.

A game server is a program that is started with an argument list (never a shell), in a session of
its own, with a clean environment and an empty home. Its tree is every process that it starts, also
a process that leaves the session with `setsid`: all of them inherit one unguessable value in their
environment, and `/proc/*/environ` shows it. So a stop leaves nothing behind. SIGTERM goes to the
program alone and SIGKILL, after the grace period, to the whole tree, as in a container.

READY does not follow from the output: servers print "listening" before they bind. A socket that the
tree owns must be bound on the port. `/proc/net` shows bound sockets, `/proc/PID/fd` their owners.

This is no sandbox. The program runs as the user of the emulator, and a process escapes that clears
its environment, leaves its session and outlives its parent.
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

from edgegap_async.concurrency import loop_time

from .procfs import (
    Binding,
    Kind,
    ProcessEntry,
    SharedScan,
    owns_socket,
    process_tree,
    scan_bound_sockets,
    scan_processes,
)

_READ_BYTES: Final = 65536  # of output at a time
_KILL_TIMEOUT: Final = 5.0
"""Seconds after SIGKILL after which a process that still exists is left to the kernel."""
_KILL_CHECK_INTERVAL: Final = 0.005
"""Seconds between two checks whether killed processes have ended."""


@attrs.frozen(kw_only=True)
class Limits:
    """Limits of one process; None for no limit."""

    memory_bytes: int | None = None
    """Bytes of address space."""
    cpu_seconds: int | None = None
    """Seconds of CPU time over its whole life."""


class Output:
    """The last `size` bytes of what a program has written, in pieces as they came.

    Pieces, not lines: a line may be longer than any buffer, and output may be binary.
    """

    def __init__(self, size: int = 2**20) -> None:
        self._size = size
        self._pieces: deque[bytes] = deque()
        self._held = 0

    def write(self, piece: bytes) -> None:
        """Adds a piece and drops the oldest that are not needed any more."""
        self._pieces.append(piece)
        self._held += len(piece)
        while self._held - len(self._pieces[0]) >= self._size:
            self._held -= len(self._pieces.popleft())

    def text(self) -> str:
        """Returns the output as text; bytes that are not UTF-8 are replaced."""
        return b"".join(self._pieces)[-self._size :].decode("utf-8", "replace")


# ── the processes ────────────────────────────────────────────────────────────────────────────────


@attrs.frozen(kw_only=True)
class Usage:
    """What a tree of processes has used so far."""

    at: float
    """Loop time of the measurement, in seconds."""
    cpu_seconds: float = 0.0
    """Seconds of CPU time of the processes that live."""
    memory_bytes: float = 0.0
    """Bytes of resident memory."""
    read_bytes: float = 0.0
    """Bytes read from disk."""
    written_bytes: float = 0.0
    """Bytes written to disk."""


class ServerProcess:
    """A running program with the processes that it has started. `Machine.start` makes it."""

    def __init__(
        self,
        popen: subprocess.Popen[bytes],
        *,
        handle: int,
        pipe: int,
        mark: bytes,
        output: Output,
        scan: SharedScan[list[ProcessEntry]],
    ) -> None:
        self.pid = popen.pid
        self.exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        """Resolves to `Popen.returncode`: minus the signal's number if a signal ended it."""
        self.mark = mark
        self._popen = popen
        self._output = output
        self._scan = scan
        self._loop = asyncio.get_running_loop()
        self._pipe: int | None = pipe
        os.set_blocking(pipe, False)
        self._loop.add_reader(pipe, self._read)
        self._handle = handle
        self._loop.add_reader(self._handle, self._on_exit)

    def _read(self) -> bool:
        """Reads what the pipe has. Returns whether there may be more."""
        if self._pipe is None:
            return False
        try:
            piece = os.read(self._pipe, _READ_BYTES)
        except BlockingIOError:
            return False
        if piece:
            self._output.write(piece)
        else:
            self._close_pipe()
        return bool(piece)

    @property
    def is_open(self) -> bool:
        """Whether it runs, or was not read to its end."""
        return self._pipe is not None or not self.exited.done()

    def _close_pipe(self) -> None:
        if self._pipe is not None:
            self._loop.remove_reader(self._pipe)
            os.close(self._pipe)
            self._pipe = None

    def _on_exit(self) -> None:
        self._loop.remove_reader(self._handle)
        os.close(self._handle)
        code = self._popen.wait()  # returns at once: the handle says that it has exited
        # The pipe has its last output. A child may still write, so this reads a bounded number.
        for _ in range(2**20 // _READ_BYTES + 1):
            if not self._read():
                break
        self.exited.set_result(code)

    async def members(self) -> list[ProcessEntry]:
        """Returns the living processes of this tree."""
        return process_tree(await self._scan.result(), self.pid, self.mark)

    async def stop(self, grace: float) -> None:
        """Ends the tree: SIGTERM to the program, SIGKILL to all after `grace` seconds."""
        known: set[ProcessEntry] = set()
        if not self.exited.done():
            # Processes without the mark can be found only while their parent lives.
            known.update(await self.members())
            self._popen.terminate()
            await asyncio.wait({self.exited}, timeout=grace)
        give_up = self._loop.time() + _KILL_TIMEOUT
        while self._loop.time() < give_up:
            known.update(await self.members())  # again: a child may start meanwhile
            known = {member for member in known if member.is_alive}
            if not known:
                break
            for member in known:
                member.kill()
            await asyncio.sleep(_KILL_CHECK_INTERVAL)
        await asyncio.wait({self.exited}, timeout=_KILL_TIMEOUT)
        self._close_pipe()

    def reap(self) -> None:
        """Releases its handles, after its tree has ended."""
        if not self.exited.done():
            self._on_exit()
        self._close_pipe()


class Machine:
    """Runs game servers on this machine.

    Args:
        mark: name of the environment variable whose unguessable value marks a tree.
        scan_interval: seconds between two scans of the bound ports.
    """

    def __init__(self, *, mark: str, scan_interval: float = 0.03) -> None:
        self.scan_interval = scan_interval
        self._mark = mark
        self._scan = SharedScan(functools.partial(scan_processes, mark.encode()))
        self._bound: Mapping[Kind, SharedScan[dict[int, set[str]]]] = {
            "udp": SharedScan(functools.partial(scan_bound_sockets, "udp")),
            "tcp": SharedScan(functools.partial(scan_bound_sockets, "tcp")),
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
        """Starts a program.

        Args:
            argv: the program and its arguments.
            name: name of its home directory, which a restart of it uses again.
            environment: its environment, besides PATH, HOME and LANG; nothing of this process.
            output: gets what it writes.
            directory: its working directory; its home if None.
            limits: its limits.

        Raises:
            OSError: the system cannot start it.
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
        except OSError:  # no more files can be opened, so it could not be watched
            popen.kill()
            popen.wait()
            os.close(reading)
            raise
        _set_limits(popen.pid, limits or Limits())
        process = ServerProcess(
            popen,
            handle=handle,
            pipe=reading,
            mark=environment[self._mark].encode(),
            output=output,
            scan=self._scan,
        )
        self._processes = [one for one in self._processes if one.is_open]
        self._processes.append(process)
        return process

    def forget(self, name: str) -> None:
        """Removes the home of a program that has ended."""
        shutil.rmtree(self._homes / name, ignore_errors=True)

    async def has_bound(self, process: ServerProcess, wanted: Iterable[Binding]) -> bool:
        """Returns whether sockets of this tree are bound on each of the wanted ports."""
        bindings = list(wanted)
        bound = {
            kind: await scan.result()
            for kind, scan in self._bound.items()
            if kind in dict(bindings)
        }
        sockets = [bound[kind].get(port, set()) for kind, port in bindings]
        if not all(sockets):
            return False
        if all(owns_socket(process.pid, one) for one in sockets):
            return True
        pids = [member.pid for member in await process.members()]
        return all(any(owns_socket(pid, one) for pid in pids) for one in sockets)

    async def usage(self, processes: Sequence[ServerProcess]) -> list[Usage]:
        """Returns what each tree has used so far."""
        everyone = await self._scan.result()
        at = loop_time()
        trees = [
            [one.pid for one in process_tree(everyone, each.pid, each.mark)] for each in processes
        ]
        return await asyncio.to_thread(lambda: [_measure(pids, at) for pids in trees])

    def kill_all(self) -> None:
        """Kills each process that was not stopped and removes all homes, without awaiting."""
        left = [process for process in self._processes if process.is_open]
        known: set[ProcessEntry] = set()
        give_up = time.monotonic() + _KILL_TIMEOUT
        while left and time.monotonic() < give_up:
            everyone = scan_processes(self._mark.encode())
            known.update(*(process_tree(everyone, one.pid, one.mark) for one in left))
            known = {member for member in known if member.is_alive}
            if not known:
                break
            for member in known:
                member.kill()
            time.sleep(_KILL_CHECK_INTERVAL)
        for process in left:
            process.reap()
        shutil.rmtree(self._homes, ignore_errors=True)

    async def close(self) -> None:
        """Kills what runs, removes all homes, and waits for scans that run."""
        self.kill_all()
        await self._scan.close()
        for scan in self._bound.values():
            await scan.close()


def _set_limits(pid: int, limits: Limits) -> None:
    # From outside, just after the start: code between fork and exec is unsafe beside threads, and
    # makes a start several times slower.
    wanted = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_AS: limits.memory_bytes,
        resource.RLIMIT_CPU: limits.cpu_seconds,
    }
    with contextlib.suppress(ProcessLookupError):  # it has ended
        for kind, value in wanted.items():
            if value is not None:
                resource.prlimit(pid, kind, (value, value))


def _measure(pids: Iterable[int], at: float) -> Usage:
    import psutil  # noqa: PLC0415 - of the extra `emulator`

    cpu = memory = read = written = 0.0
    for pid in pids:
        with contextlib.suppress(psutil.Error):  # it has ended meanwhile
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
