"""Assigns ports of this machine to game servers, each port to one at a time.

The emulator binds a port for a moment before it assigns it, since another program may have it. From
then until the game server binds it, other emulators on this machine must not assign it. So an
abstract Unix socket with the port's number in its name holds it; the kernel frees such a socket
when the emulator dies.

A port that is given back is not assigned again for a while: datagrams for the last game still
arrive.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import resource
import socket
from collections.abc import Callable, Sequence
from typing import Final

_KINDS: Final = (socket.SOCK_STREAM, socket.SOCK_DGRAM)
_RESERVED_DESCRIPTORS: Final = 32
"""File descriptors that are kept for connections to the API and for reading `/proc`."""


class NoFreePort(Exception):
    """No port can be assigned.

    Each port of the range is assigned, was just given back, or belongs to another program; or this
    process can open no more files.
    """


class PortInUse(OSError):
    """A port that was assigned belongs to another program of this machine."""


def check_descriptors(reserved: int = _RESERVED_DESCRIPTORS) -> None:
    """Checks that this process can open files.

    Args:
        reserved: the number of files that others need.

    Raises:
        OSError: it can open no more than `reserved`; the message says what to do.
    """
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        lowest_free = os.dup(0)
    except OSError as problem:
        if problem.errno != errno.EMFILE:
            raise
        lowest_free = most
    else:
        os.close(lowest_free)
    if lowest_free >= most - reserved:
        raise OSError(
            errno.EMFILE,
            f"Too many open files: the limit of the emulator's process is {most}, and a deployment"
            " needs 2; raise it with `ulimit -n`, or stop deployments",
        )


class Ports:
    """A range of ports.

    Args:
        numbers: the range.
        clock: returns seconds, as a loop's `time`.
        reuse_delay: seconds before a port that was given back is assigned again.
    """

    def __init__(
        self, numbers: range, clock: Callable[[], float], *, reuse_delay: float = 60.0
    ) -> None:
        self._numbers = numbers
        self._clock = clock
        self._reuse_delay = reuse_delay
        self._allocated: dict[int, socket.socket] = {}
        self._released_at: dict[int, float] = {}
        self._next = random.randrange(len(numbers)) if numbers else 0  # noqa: S311 - no secret

    def allocate(self, count: int) -> tuple[int, ...]:
        """Assigns ports that are free for TCP and for UDP.

        Args:
            count: how many.

        Raises:
            NoFreePort: there are not that many.
        """
        try:
            check_descriptors(_RESERVED_DESCRIPTORS + count)
        except OSError as problem:
            raise NoFreePort(f"No capacity: {problem.strerror}") from None
        taken: list[int] = []
        for _ in range(len(self._numbers)):
            if len(taken) == count:
                break
            port = self._numbers[self._next]
            self._next = (self._next + 1) % len(self._numbers)
            if self._try_allocate(port):
                taken.append(port)
        if len(taken) < count:
            for port in taken:
                self._allocated.pop(port).close()
            raise NoFreePort(f"No capacity: no port is left in {self._numbers}")
        return tuple(taken)

    def take(self, number: int) -> bool:
        """Assigns this port if no other game server and no other program has it.

        It may be outside of the range, and may have been given back just now. Returns whether it
        was assigned.
        """
        return number not in self._allocated and self._try_hold(number, reuse_address=True)

    def _try_allocate(self, port: int) -> bool:
        if (
            port in self._allocated
            or self._clock() < self._released_at.get(port, 0.0) + self._reuse_delay
        ):
            return False
        return self._try_hold(port)

    def _try_hold(self, port: int, *, reuse_address: bool = False) -> bool:
        with contextlib.ExitStack() as undo, contextlib.suppress(OSError):
            hold = undo.enter_context(socket.socket(socket.AF_UNIX))
            hold.bind(f"\0edgegap-async-emulator-port-{port}")
            for kind in _KINDS:
                with socket.socket(socket.AF_INET, kind) as probe:
                    if reuse_address and kind == socket.SOCK_STREAM:
                        # Connections that have ended do not count.
                        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(("", port))
            undo.pop_all()
            self._allocated[port] = hold
        return port in self._allocated

    def release(self, ports: Sequence[int]) -> None:
        """Takes ports back; they can be assigned again after `reuse_delay`."""
        for port in ports:
            with contextlib.suppress(KeyError):  # was given back before
                self._allocated.pop(port).close()
                self._released_at[port] = self._clock()

    def close(self) -> None:
        """Takes all assigned ports back."""
        self.release(list(self._allocated))
