"""What `/proc` says: which processes there are, who belongs to whom, who has bound which port.

A look at all processes takes a while, so it is taken in a thread, and once for all who ask at the
same time.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, Generic, Literal, TypeAlias, TypeVar

import attrs

__all__ = [
    "Binding",
    "Kind",
    "Member",
    "SharedLook",
    "all_members",
    "bound_sockets",
    "owns",
    "tree",
]

Kind: TypeAlias = Literal["udp", "tcp"]
Binding: TypeAlias = tuple[Kind, int]
"""A protocol and a port on which a socket is to be bound."""

Seen = TypeVar("Seen")

_OVER: Final = frozenset({b"Z", b"X"})  # states in /proc/PID/stat: a zombie, and less than that
_LISTENING: Final = b"0A"  # the state of a TCP socket in /proc/net/tcp


class SharedLook(Generic[Seen]):
    """A look at `/proc`, taken in a thread once for all who ask at the same time."""

    def __init__(self, look: Callable[[], Seen]) -> None:
        self._look = look
        self._one_at_a_time = asyncio.Lock()
        self._next: asyncio.Task[Seen] | None = None
        self._under_way: set[asyncio.Task[Seen]] = set()

    async def take(self) -> Seen:
        """What is seen now, and not before this was called."""
        if self._next is None or self._next.done():  # done: cancelled before it looked
            self._next = asyncio.create_task(self._take())
            self._under_way.add(self._next)
            self._next.add_done_callback(self._under_way.discard)
        return await asyncio.shield(self._next)

    async def _take(self) -> Seen:
        async with self._one_at_a_time:
            self._next = None  # who asks from here on may have missed something
            return await asyncio.to_thread(self._look)

    async def close(self) -> None:
        """Wait for the looks that are under way."""
        await asyncio.gather(*self._under_way, return_exceptions=True)


# ── who belongs to whom ──────────────────────────────────────────────────────────────────────────


@attrs.frozen
class Member:
    """One process as `/proc` shows it. `started` tells it from a later one with the same pid."""

    pid: int
    parent: int
    session: int
    started: int
    mark: bytes
    """The value in its environment by which its tree is found; empty if it has none."""

    @property
    def is_alive(self) -> bool:
        """Whether it is still there. One that is being killed is, and its environment is not."""
        try:
            stat = _stat(self.pid)
            return stat[0] not in _OVER and int(stat[19]) == self.started
        except (OSError, IndexError):
            return False

    def kill(self) -> None:
        """End it at once, and surely no other that got its pid since."""
        with contextlib.suppress(OSError):  # it is gone
            handle = os.pidfd_open(self.pid)
            try:
                if _started(self.pid) == self.started:
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
            finally:
                os.close(handle)


def _stat(pid: int) -> list[bytes]:
    # The name, in parentheses, may hold anything; after it: state, parent, group, session, …
    return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()


def _started(pid: int) -> int:
    return int(_stat(pid)[19])


def all_members(variable: bytes) -> list[Member]:
    """Every process there is, with its mark. Zombies are over already and left out."""
    members: list[Member] = []
    marker = b"\0" + variable + b"="
    for name in os.listdir("/proc"):  # noqa: PTH208 - thousands of entries, many times a second
        if not name.isdigit():
            continue
        pid = int(name)
        try:
            stat = _stat(pid)
            if stat[0] in _OVER:
                continue
            environment = _environment(pid)
        except (OSError, IndexError):  # it ended while we looked
            continue
        mark = (b"\0" + environment).partition(marker)[2].partition(b"\0")[0]
        members.append(Member(pid, int(stat[1]), int(stat[3]), int(stat[19]), mark))
    return members


def _environment(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except PermissionError:  # another user's
        return b""


def tree(everyone: Iterable[Member], root: int, mark: bytes) -> list[Member]:
    """Those with the mark, those in the root's session, and what descends from any of them."""
    children: dict[int, list[Member]] = {}
    todo: list[Member] = []
    for member in everyone:
        children.setdefault(member.parent, []).append(member)
        if member.mark == mark or member.session == root:
            todo.append(member)
    found: dict[int, Member] = {}
    while todo:
        member = todo.pop()
        if member.pid not in found:
            found[member.pid] = member
            todo.extend(children.get(member.pid, ()))
    return list(found.values())


# ── who has bound what ───────────────────────────────────────────────────────────────────────────


def bound_sockets(kind: Kind) -> dict[int, set[str]]:
    """The sockets of each bound port, by the number that also names them in `/proc/PID/fd`."""
    bound: dict[int, set[str]] = {}
    for table in (f"/proc/net/{kind}", f"/proc/net/{kind}6"):
        with contextlib.suppress(FileNotFoundError):  # a machine without IPv6
            for line in Path(table).read_bytes().splitlines()[1:]:
                fields = line.split()
                if kind == "udp" or fields[3] == _LISTENING:
                    port = int(fields[1].rpartition(b":")[2], 16)
                    bound.setdefault(port, set()).add(fields[9].decode())
    return bound


def owns(pid: int, sockets: set[str]) -> bool:
    """Whether a process has one of these sockets open."""
    folder = f"/proc/{pid}/fd"
    try:
        for name in os.listdir(folder):  # noqa: PTH208 - as above
            with contextlib.suppress(OSError):  # closed while we looked
                kind, _, number = os.readlink(f"{folder}/{name}").partition(":")  # noqa: PTH115 - so
                if kind == "socket" and number.strip("[]") in sockets:
                    return True
    except OSError:  # it ended, or is another user's
        return False
    return False
