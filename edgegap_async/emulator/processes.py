"""Starts, watches and stops real processes, on Linux.

A game server is a program that is started with an argument list (never a shell), in a session of
its own, with a clean environment and an empty home. `guardian` starts it and finds each process
that it has left behind, so a stop leaves nothing. SIGTERM goes to the program alone and SIGKILL,
after the grace period, to the whole tree, as in a container.

READY does not follow from the output: servers print "listening" before they bind. A socket that the
tree owns must be bound on the port. `/proc/net` shows bound sockets, `/proc/PID/fd` their owners.
The processes of a tree are the descendants of the program, and those with the same unguessable
value in their environment.

This is no sandbox: the program runs as the user of the emulator.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import signal
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, Final

import attrs

from edgegap_async.concurrency import loop_time
from edgegap_async.errors import log_fields

from .forwarder import PortForwarder
from .launcher import Launcher, Program
from .ledger import MARK_VARIABLE, end_left_processes
from .output import Output, OutputPipe, OutputReader
from .ports import check_descriptors
from .procfs import (
    Binding,
    Kind,
    ProcessEntry,
    Route,
    SharedScan,
    bytes_on_disk,
    in_thread,
    opened_ports,
    owns_socket,
    process_trees,
    scan_bound_sockets,
    scan_processes,
)
from .sandbox import Sandbox, in_bubblewrap

_log: Final = logging.getLogger(__name__)

_RESERVED_DESCRIPTORS: Final = 16
"""File descriptors that a start leaves for others; less than a deploy must leave."""
_KILL_TIMEOUT: Final = 5.0
"""Seconds after SIGKILL after which a process that still exists is left to the kernel."""


@attrs.frozen(kw_only=True)
class Limits:
    """Limits of one process; None for no limit."""

    memory_bytes: int | None = None
    """Bytes of address space."""
    cpu_seconds: int | None = None
    """Seconds of CPU time over its whole life."""
    open_files: int | None = None
    """Number of files and sockets that it may have open; None for the most that is allowed."""

    def values(self) -> dict[str, int]:
        """Returns the limits by their name in the module `resource`. No process dumps core."""
        wanted = {
            "RLIMIT_CORE": 0,
            "RLIMIT_AS": self.memory_bytes,
            "RLIMIT_CPU": self.cpu_seconds,
            "RLIMIT_NOFILE": self.open_files,
        }
        return {name: value for name, value in wanted.items() if value is not None}


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
    received_bytes: float | None = None
    """Bytes received from the network; None if the machine does not count them."""
    sent_bytes: float | None = None
    """Bytes sent to the network; None if the machine does not count them."""


class ServerProcess:
    """A running program with the processes that it has started. `Machine.start` makes it."""

    def __init__(
        self,
        program: Program,
        *,
        launcher: Launcher,
        pipe: OutputPipe,
        mark: bytes,
        scan: SharedScan[list[ProcessEntry]],
    ) -> None:
        self.pid = program.started.result()
        self.exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        """Resolves to its exit code, or to minus the number of the signal that ended it."""
        self.reason = ""
        self.mark = mark
        self._program = program
        self._launcher = launcher
        self._pipe = pipe
        self._scan = scan
        program.exited.add_done_callback(self._on_exit)

    def _on_exit(self, exited: asyncio.Future[int]) -> None:
        self._pipe.read_rest()
        if not self.exited.done():
            self.exited.set_result(exited.result())

    async def members(self) -> list[ProcessEntry]:
        """Returns the living processes of this tree."""
        return process_trees(await self._scan.result(), [(self.pid, self.mark)])[0]

    async def stop(self, grace: float) -> None:
        """Ends the tree: SIGTERM to the program, SIGKILL to all after `grace` seconds."""
        if not self.exited.done():
            self._launcher.signal(self._program, signal.SIGTERM)
            await asyncio.wait({self._program.exited}, timeout=grace)
            self._launcher.signal(self._program, signal.SIGKILL)
        # The guardian kills what the program has left behind.
        await asyncio.wait({self._program.over}, timeout=_KILL_TIMEOUT)
        self._pipe.close()

    async def crash(self) -> None:
        """Makes the program end as after a crash: by SIGKILL."""
        self._launcher.signal(self._program, signal.SIGKILL)


class Machine:
    """Runs game servers on this machine.

    Args:
        mark: name of the environment variable whose unguessable value marks a tree.
        scan_interval: seconds between two checks whether a program has bound its ports.
        address: the address of this machine on which external ports are forwarded.

    Raises:
        OSError: another user has the folder of temporary files of this user's emulators.
    """

    runs_containers: ClassVar[bool] = False

    def __init__(
        self, *, mark: str, scan_interval: float = 0.03, address: str = "127.0.0.1"
    ) -> None:
        self.scan_interval = scan_interval
        self._mark = mark
        self._address = address
        self._scan = SharedScan(functools.partial(scan_processes, mark.encode()))
        self._bound: Mapping[Kind, SharedScan[dict[int, set[str]]]] = {
            "udp": SharedScan(functools.partial(scan_bound_sockets, "udp")),
            "tcp": SharedScan(functools.partial(scan_bound_sockets, "tcp")),
        }
        if left := end_left_processes():
            _log.warning(
                "ended %d processes of an emulator that was killed",
                left,
                extra=log_fields(count=left),
            )
        self.launcher = Launcher()
        """Has the guardian of all that is started."""
        self._reader = OutputReader()

    async def prepare(self) -> None:
        """Does nothing: there is no image."""

    async def start(
        self,
        argv: Sequence[str],
        *,
        name: str,
        environment: Mapping[str, str],
        output: Output,
        directory: str | None = None,
        limits: Limits | None = None,
        sandbox: Sandbox = "none",
    ) -> ServerProcess:
        """Starts a program.

        Args:
            argv: the program and its arguments.
            name: name of its home directory, which a restart of it uses again.
            environment: its environment, besides PATH, HOME and LANG; nothing of this process.
            output: gets what it writes.
            directory: its working directory; its home if None.
            limits: its limits.
            sandbox: what it runs in.

        Raises:
            OSError: the system cannot start it, the sandbox is not installed, or this process can
                open no more files.
        """
        check_descriptors(_RESERVED_DESCRIPTORS)
        created = self.launcher.open()
        home = created.homes / name
        if sandbox == "bwrap":
            argv = in_bubblewrap(argv, home=home, directory=directory)
        reading, writing = os.pipe()
        try:
            pipe = self._reader.add(reading, output)
        except OSError:
            os.close(reading)
            os.close(writing)
            raise
        program = self.launcher.start(
            writing,
            argv=list(argv),
            name=name,
            environment={
                "PATH": os.environ.get("PATH", os.defpath),
                "HOME": str(home),
                "LANG": "C.UTF-8",
                **environment,
                MARK_VARIABLE: created.mark,
            },
            directory=directory if sandbox == "none" else None,
            limits=(limits or Limits()).values(),
            is_sandboxed=sandbox == "bwrap",
            home=str(home),
        )
        try:
            await asyncio.wait({program.started})
            return ServerProcess(
                program,
                launcher=self.launcher,
                pipe=pipe,
                mark=environment[self._mark].encode(),
                scan=self._scan,
            )
        except BaseException:
            self.launcher.signal(program, signal.SIGKILL)  # if this was cancelled
            pipe.close()
            raise

    def forget(self, name: str) -> None:
        """Removes the home of a program that has ended."""
        self.launcher.remove_home(name)

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

    async def taken(self, process: ServerProcess, wanted: Iterable[Binding]) -> list[Binding]:
        """Returns the ports that other programs have bound and this tree has not."""
        found: list[Binding] = []
        for kind, port in wanted:
            sockets = (await self._bound[kind].result()).get(port, set())
            members = await process.members() if sockets else []
            if sockets and not any(owns_socket(member.pid, sockets) for member in members):
                found.append((kind, port))
        return found

    async def opened(self, process: ServerProcess) -> list[str]:
        """Returns what a tree has bound, such as `127.0.0.1:7777/udp`."""
        pids = [member.pid for member in await process.members()]
        return await in_thread(lambda: opened_ports(pids))

    async def forward(self, routes: Iterable[Route]) -> PortForwarder:
        """Forwards external ports of this machine to the ports of a program.

        Raises:
            OSError: an external port is in use.
        """
        return await PortForwarder.open(routes, self._address)

    async def usage(self, processes: Sequence[ServerProcess]) -> list[Usage]:
        """Returns what each tree has used so far."""
        everyone = await self._scan.result()
        at = loop_time()
        roots = [(each.pid, each.mark) for each in processes]
        return await in_thread(
            lambda: [_measure(tree, at) for tree in process_trees(everyone, roots)]
        )

    def kill_all(self) -> None:
        """Kills each process that was not stopped and removes all homes, without awaiting."""
        self.launcher.close()
        self._reader.close()

    async def close(self) -> None:
        """Kills what runs, removes all homes, and waits for scans that run."""
        self.kill_all()
        await self._scan.close()
        for scan in self._bound.values():
            await scan.close()


def _measure(tree: Iterable[ProcessEntry], at: float) -> Usage:
    members = list(tree)
    moved = [bytes_on_disk(member.pid) for member in members]
    return Usage(
        at=at,
        cpu_seconds=sum(member.cpu_seconds for member in members),
        memory_bytes=sum(member.memory_bytes for member in members),
        read_bytes=sum(read for read, _ in moved),
        written_bytes=sum(written for _, written in moved),
    )
