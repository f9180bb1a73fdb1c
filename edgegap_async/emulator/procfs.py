"""Reads `/proc`: which processes exist, which tree they belong to, which has bound which port.

A scan of all processes takes milliseconds. It runs in a thread, once for all tasks that ask at the
same time.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ipaddress
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, Generic, Literal, TypeAlias, TypeVar

import attrs

from edgegap_async.concurrency import loop_time

from .guardian import ENDED_STATES, existing_pids, read_file, read_stat

Kind: TypeAlias = Literal["udp", "tcp"]
Binding: TypeAlias = tuple[Kind, int]
"""A protocol, and the port on which a socket must be bound."""
Route: TypeAlias = tuple[Kind, int, int]
"""A protocol, the external port, and the port of the program to which it leads."""
KINDS: Final[tuple[Kind, ...]] = ("udp", "tcp")

Result = TypeVar("Result")

_TICKS: Final = os.sysconf("SC_CLK_TCK")  # in a second of CPU time
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_SCAN_PAUSE: Final = 10.0
"""From the start of a scan to that of the next, in units of the CPU time that the scan took."""
_LISTENING: Final = b"0A"  # the state of a TCP socket in /proc/net/tcp


async def in_thread(function: Callable[[], Result]) -> Result:
    """Returns the result of a function that runs in a thread, or here if no thread can be started.

    It may run twice: the executor keeps what it could not start a thread for.
    """
    try:
        return await asyncio.to_thread(function)
    except RuntimeError as problem:
        if "start new thread" not in str(problem):  # of the system; RLIMIT_NPROC is reached
            raise
        return function()


class SharedScan(Generic[Result]):
    """A scan of `/proc`, run in a thread once for all tasks that ask at the same time.

    The more there is to read, the more tasks share a scan: scans take a tenth of one CPU at most.
    """

    def __init__(self, scan: Callable[[], Result]) -> None:
        self._scan = scan
        self._earliest = 0.0  # loop time of the next scan
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
            await asyncio.sleep(max(0.0, self._earliest - loop_time()))
            self._next = None  # later callers need a later scan
            began = loop_time()
            result, cpu_seconds = await in_thread(self._measured)
            self._earliest = began + _SCAN_PAUSE * cpu_seconds
            return result

    def _measured(self) -> tuple[Result, float]:
        began = time.thread_time()
        return self._scan(), time.thread_time() - began

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
    cpu_seconds: float = 0.0
    """Seconds of CPU time so far."""
    memory_bytes: int = 0
    """Bytes of resident memory."""


def scan_processes(variable: bytes) -> list[ProcessEntry]:
    """Returns every process with its mark; zombies have ended and are left out."""
    members: list[ProcessEntry] = []
    marker = b"\0" + variable + b"="
    for pid in existing_pids():
        try:
            stat = read_stat(pid)
            if stat[0] in ENDED_STATES:
                continue
            environment = _environment(pid)
        except (OSError, IndexError):  # it has ended meanwhile
            continue
        mark = (b"\0" + environment).partition(marker)[2].partition(b"\0")[0]
        members.append(
            ProcessEntry(
                pid,
                parent=int(stat[1]),
                session=int(stat[3]),
                mark=mark,
                cpu_seconds=(int(stat[11]) + int(stat[12])) / _TICKS,
                memory_bytes=int(stat[21]) * _PAGE_BYTES,
            )
        )
    return members


def _environment(pid: int) -> bytes:
    try:
        return read_file(f"/proc/{pid}/environ")
    except PermissionError:  # it belongs to another user
        return b""


def bytes_on_disk(pid: int) -> tuple[int, int]:
    """Returns how many bytes a process has read from disk and written to it.

    Both are 0 for a process that has ended or that belongs to another user.
    """
    try:
        lines = read_file(f"/proc/{pid}/io").splitlines()
    except OSError:
        return 0, 0
    counts = {name: int(value) for name, _, value in (line.partition(b": ") for line in lines)}
    return counts.get(b"read_bytes", 0), counts.get(b"write_bytes", 0)


def process_trees(
    everyone: Iterable[ProcessEntry], roots: Iterable[tuple[int, bytes]]
) -> list[list[ProcessEntry]]:
    """Returns the processes of each tree: with its mark, in its root's session, or descendants.

    Args:
        everyone: every process.
        roots: process id of the root, and mark, of each tree.
    """
    children: dict[int, list[ProcessEntry]] = {}
    marked: dict[bytes, list[ProcessEntry]] = {}
    sessions: dict[int, list[ProcessEntry]] = {}
    for member in everyone:
        children.setdefault(member.parent, []).append(member)
        marked.setdefault(member.mark, []).append(member)
        sessions.setdefault(member.session, []).append(member)
    trees = []
    for root, mark in roots:
        found: dict[int, ProcessEntry] = {}
        todo = [*marked.get(mark, ()), *sessions.get(root, ())]
        while todo:
            member = todo.pop()
            if member.pid not in found:
                found[member.pid] = member
                todo.extend(children.get(member.pid, ()))
        trees.append(list(found.values()))
    return trees


# ── bound ports ─────────────────────────────────────────────────────────────────────────────────


def scan_bound_sockets(kind: Kind) -> dict[int, set[str]]:
    """Returns the sockets of each bound port, as the inode numbers that `/proc/PID/fd` shows.

    A socket on an address of the loopback interface other than 127.0.0.1, such as ::1, is left out:
    no client can reach it.
    """
    bound: dict[int, set[str]] = {}
    for address, port, inode in _bound_sockets(kind):
        if _is_reachable(address):
            bound.setdefault(port, set()).add(inode)
    return bound


def _bound_sockets(kind: Kind) -> Iterator[tuple[bytes, int, str]]:
    """Yields address, port and inode number of each bound socket; for TCP, if it listens."""
    for table in (f"/proc/net/{kind}", f"/proc/net/{kind}6"):
        with contextlib.suppress(FileNotFoundError):  # a machine without IPv6
            yield from _read_table(kind, read_file(table))


def _read_table(kind: Kind, text: bytes) -> Iterator[tuple[bytes, int, str]]:
    for line in text.splitlines()[1:]:
        fields = line.split()
        if kind == "udp" or fields[3] == _LISTENING:
            address, _, port = fields[1].rpartition(b":")
            yield address, int(port, 16), fields[9].decode()


NETWORK_TABLES: Final[Mapping[str, Kind]] = {
    "udp": "udp",
    "udp6": "udp",
    "tcp": "tcp",
    "tcp6": "tcp",
}
"""The tables of bound sockets in `/proc/net`, and their kinds."""


def bound_in(tables: Iterable[tuple[Kind, bytes]]) -> dict[Binding, list[str]]:
    """Returns the addresses of each bound port of a network namespace.

    Args:
        tables: kind and text of its tables.
    """
    found: dict[Binding, list[str]] = {}
    for kind, text in tables:
        for address, port, _ in _read_table(kind, text):
            found.setdefault((kind, port), []).append(str(_address(address)))
    return found


def written_bindings(bound: Iterable[tuple[tuple[str, int], str]]) -> list[str]:
    """Returns bound ports and their addresses as texts, such as `127.0.0.1:7777/udp`."""
    return [
        f"[{host}]:{port}/{kind}" if ":" in host else f"{host}:{port}/{kind}"
        for (kind, port), host in sorted(bound)
    ]


def opened_ports(pids: Iterable[int]) -> list[str]:
    """Returns what these processes have bound, such as `127.0.0.1:7777/udp`."""
    sockets = {
        inode: (address, port, kind)
        for kind in KINDS
        for address, port, inode in _bound_sockets(kind)
    }
    owned = {sockets[inode] for pid in pids for inode in _sockets_of(pid) if inode in sockets}
    return written_bindings(((kind, port), str(_address(written))) for written, port, kind in owned)


@functools.lru_cache(maxsize=1024)
def _address(written: bytes) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Reads an address of `/proc/net`: 32-bit numbers in the byte order of this machine."""
    words = (int(written[first : first + 8], 16) for first in range(0, len(written), 8))
    found = ipaddress.ip_address(b"".join(word.to_bytes(4, sys.byteorder) for word in words))
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found


@functools.lru_cache(maxsize=1024)
def _is_reachable(written: bytes) -> bool:
    address = _address(written)
    return not address.is_loopback or str(address) == "127.0.0.1"


def owns_socket(pid: int, sockets: set[str]) -> bool:
    """Returns whether a process has one of these sockets open."""
    return any(inode in sockets for inode in _sockets_of(pid))


def _sockets_of(pid: int) -> Iterator[str]:
    """Yields the inode numbers of the sockets that a process has open."""
    folder = f"/proc/{pid}/fd"
    try:
        names = os.listdir(folder)  # noqa: PTH208 - hundreds of entries, many times a second
    except (FileNotFoundError, ProcessLookupError, PermissionError):  # ended, or of another user
        return
    for name in names:
        with contextlib.suppress(OSError):  # closed meanwhile
            kind, _, number = os.readlink(f"{folder}/{name}").partition(":")  # noqa: PTH115 - faster than a Path
            if kind == "socket":
                yield number.strip("[]")
