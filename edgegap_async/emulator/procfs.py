"""Reads `/proc`: which processes exist, which tree they belong to, which has bound which port.

A scan of all processes takes milliseconds. It runs in a thread, once for all tasks that ask at the
same time.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, Generic, Literal, TypeAlias, TypeVar

import attrs

Kind: TypeAlias = Literal["udp", "tcp"]
Binding: TypeAlias = tuple[Kind, int]
"""A protocol, and the port on which a socket must be bound."""

Result = TypeVar("Result")

_ENDED_STATES: Final = frozenset({b"Z", b"X"})  # states in /proc/PID/stat: zombie, dead
_LISTENING: Final = b"0A"  # the state of a TCP socket in /proc/net/tcp


class SharedScan(Generic[Result]):
    """A scan of `/proc`, run in a thread once for all tasks that ask at the same time."""

    def __init__(self, scan: Callable[[], Result]) -> None:
        self._scan = scan
        self._one_at_a_time = asyncio.Lock()
        self._next: asyncio.Task[Result] | None = None
        self._running: set[asyncio.Task[Result]] = set()

    async def result(self) -> Result:
        """Returns the result of a scan that starts after this call."""
        if self._next is None or self._next.done():  # done: cancelled before it started
            self._next = asyncio.create_task(self._take())
            self._running.add(self._next)
            self._next.add_done_callback(self._running.discard)
        return await asyncio.shield(self._next)

    async def _take(self) -> Result:
        async with self._one_at_a_time:
            self._next = None  # later callers need a later scan
            return await asyncio.to_thread(self._scan)

    async def close(self) -> None:
        """Waits for scans that run."""
        await asyncio.gather(*self._running, return_exceptions=True)


# ── trees of processes ──────────────────────────────────────────────────────────────────────────


@attrs.frozen
class ProcessEntry:
    """One process as `/proc` shows it."""

    pid: int
    """Process id."""
    parent: int
    """Process id of its parent."""
    session: int
    """Its session."""
    mark: bytes
    """The value in its environment that marks its tree; empty if it has none."""


def _stat(pid: int) -> list[bytes]:
    # The name, in parentheses, may have any characters; after it: state, parent, group, session, …
    return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()


def scan_processes(variable: bytes) -> list[ProcessEntry]:
    """Returns every process with its mark; zombies have ended and are left out."""
    members: list[ProcessEntry] = []
    marker = b"\0" + variable + b"="
    for name in os.listdir("/proc"):  # noqa: PTH208 - thousands of entries, many times a second
        if not name.isdigit():
            continue
        pid = int(name)
        try:
            stat = _stat(pid)
            if stat[0] in _ENDED_STATES:
                continue
            environment = _environment(pid)
        except (OSError, IndexError):  # it has ended meanwhile
            continue
        mark = (b"\0" + environment).partition(marker)[2].partition(b"\0")[0]
        members.append(ProcessEntry(pid, int(stat[1]), int(stat[3]), mark))
    return members


def _environment(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except PermissionError:  # it belongs to another user
        return b""


def process_tree(everyone: Iterable[ProcessEntry], root: int, mark: bytes) -> list[ProcessEntry]:
    """Returns the processes with the mark, those in the root's session, and their descendants."""
    children: dict[int, list[ProcessEntry]] = {}
    todo: list[ProcessEntry] = []
    for member in everyone:
        children.setdefault(member.parent, []).append(member)
        if member.mark == mark or member.session == root:
            todo.append(member)
    found: dict[int, ProcessEntry] = {}
    while todo:
        member = todo.pop()
        if member.pid not in found:
            found[member.pid] = member
            todo.extend(children.get(member.pid, ()))
    return list(found.values())


# ── bound ports ─────────────────────────────────────────────────────────────────────────────────


def scan_bound_sockets(kind: Kind) -> dict[int, set[str]]:
    """Returns the sockets of each bound port, as the inode numbers that `/proc/PID/fd` shows."""
    bound: dict[int, set[str]] = {}
    for table in (f"/proc/net/{kind}", f"/proc/net/{kind}6"):
        with contextlib.suppress(FileNotFoundError):  # a machine without IPv6
            for line in Path(table).read_bytes().splitlines()[1:]:
                fields = line.split()
                if kind == "udp" or fields[3] == _LISTENING:
                    port = int(fields[1].rpartition(b":")[2], 16)
                    bound.setdefault(port, set()).add(fields[9].decode())
    return bound


def owns_socket(pid: int, sockets: set[str]) -> bool:
    """Returns whether a process has one of these sockets open."""
    folder = f"/proc/{pid}/fd"
    try:
        for name in os.listdir(folder):  # noqa: PTH208 - hundreds of entries, many times a second
            with contextlib.suppress(OSError):  # closed meanwhile
                kind, _, number = os.readlink(f"{folder}/{name}").partition(":")  # noqa: PTH115 - faster than a Path
                if kind == "socket" and number.strip("[]") in sockets:
                    return True
    except OSError:  # it has ended, or belongs to another user
        return False
    return False
