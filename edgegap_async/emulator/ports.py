"""Ports of this machine, given out so that no two game servers get the same.

A port is tried before it is given out: another program may have it. Between that and the moment
the game server binds it, other emulators on this machine must not try theirs, so each port that is
out is held by an abstract Unix socket of its name. The kernel frees that when we die.

A port that comes back rests for a while: datagrams for the game before are still under way.
"""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Callable, Sequence
from typing import Final

__all__ = ["NoPortLeft", "Ports"]

_KINDS: Final = (socket.SOCK_STREAM, socket.SOCK_DGRAM)


class NoPortLeft(Exception):
    """Every port of the range is out, rests, or belongs to another program."""


class Ports:
    """A range of ports.

    Args:
        numbers: the range.
        clock: seconds, as a loop's `time`.
        rest: seconds before a port that came back goes out again.
    """

    def __init__(self, numbers: range, clock: Callable[[], float], *, rest: float = 60.0) -> None:
        self._numbers = numbers
        self._clock = clock
        self._rest = rest
        self._out: dict[int, socket.socket] = {}
        self._back_at: dict[int, float] = {}
        self._next = random.randrange(len(numbers)) if numbers else 0  # noqa: S311 - no secret

    def take(self, count: int) -> tuple[int, ...]:
        """So many ports that are free for TCP and for UDP.

        Raises:
            NoPortLeft: there are not that many.
        """
        taken: list[int] = []
        for _ in range(len(self._numbers)):
            if len(taken) == count:
                break
            port = self._numbers[self._next]
            self._next = (self._next + 1) % len(self._numbers)
            if self._take(port):
                taken.append(port)
        if len(taken) < count:
            for port in taken:
                self._out.pop(port).close()
            raise NoPortLeft(f"No capacity: no port is left in {self._numbers}")
        return tuple(taken)

    def _take(self, port: int) -> bool:
        if port in self._out or self._clock() < self._back_at.get(port, 0.0) + self._rest:
            return False
        with contextlib.ExitStack() as undo, contextlib.suppress(OSError):
            hold = undo.enter_context(socket.socket(socket.AF_UNIX))
            hold.bind(f"\0edgegap-async-emulator-port-{port}")
            for kind in _KINDS:
                with socket.socket(socket.AF_INET, kind) as trial:
                    trial.bind(("", port))
            undo.pop_all()
            self._out[port] = hold
        return port in self._out

    def give_back(self, ports: Sequence[int]) -> None:
        """These are free again, after their rest."""
        for port in ports:
            with contextlib.suppress(KeyError):  # given back before
                self._out.pop(port).close()
                self._back_at[port] = self._clock()

    def close(self) -> None:
        """Let go of all that are out."""
        self.give_back(list(self._out))
