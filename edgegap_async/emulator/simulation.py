"""A machine that runs no processes: for thousands of deployments, and for campaigns of chance.

::

    async with Emulator(apps, limits=False, simulate=Simulation(seed=7, failing=0.01)) as emulator:
        ...

Statuses, limits, faults and webhooks are as ever. But nothing is started: a game server is a time
at which its ports are bound and, for some, one at which it crashes. Both are drawn from a seeded
source in the order in which servers are started, and happen on the loop's clock. What is not there
is empty: a deployment has no logs and uses nothing, its ports are numbers that nobody listens on.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import random
import signal
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeAlias

import attrs

from edgegap_async.errors import InvalidRequest

from .processes import Usage
from .procfs import Binding

__all__ = ["SimulatedMachine", "SimulatedPorts", "SimulatedProcess", "Simulation"]

_CRASHED: Final = 1
"""The exit code of those that fail."""


def _span(self: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    del self
    if not callable(value) and not is_span(value):
        raise InvalidRequest(
            f"Simulation.{attribute.name} is (at least, at most) in seconds, not {value!r}"
        )


def is_span(value: object) -> bool:
    """Whether it is two finite numbers from 0 on, the second not below the first."""
    return (
        isinstance(value, tuple)
        and len(value) == 2  # noqa: PLR2004 - a span has two ends
        and all(isinstance(end, int | float) for end in value)
        and 0 <= value[0] <= value[1] < math.inf
    )


def _share(self: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    del self
    if not isinstance(value, int | float) or not 0 <= value <= 1:
        raise InvalidRequest(f"Simulation.{attribute.name} is a share from 0 to 1, not {value!r}")


Span: TypeAlias = tuple[float, float] | Callable[[random.Random], float]
"""Seconds: at least and at most, or drawn by a function from the source of chance it is given."""


def _draw(span: Span, chance: random.Random) -> float:
    return span(chance) if callable(span) else chance.uniform(*span)


@attrs.frozen(kw_only=True)
class Simulation:
    """What becomes of game servers that are not really there.

    Raises:
        InvalidRequest: a share that is none, or a span that ends before it begins.
    """

    seed: int = 0
    """The same seed, the same fates, for servers that start in the same order."""
    ready_after: Span = attrs.field(default=(0.5, 3.0), validator=_span)
    """Seconds from the start until the ports are bound: at least, at most; or a function that
    draws them: `lambda chance: chance.lognormvariate(1.6, 0.77)`."""
    failing: float = attrs.field(default=0.0, validator=_share)
    """The share that exits with code 1, before or after READY."""
    fails_after: Span = attrs.field(default=(0.0, 30.0), validator=_span)
    """Seconds from the start until those do, likewise."""
    silent: float = attrs.field(default=0.0, validator=_share)
    """The share that never binds a port."""


class SimulatedProcess:
    """A program that is not there. Made by `SimulatedMachine.start`.

    Attributes:
        pid: a number that no other one of its machine has. It means nothing to the system.
        exited: resolves to its exit code, minus the signal's number if one ended it.
    """

    def __init__(self, pid: int, *, binds_after: float, fails_after: float | None) -> None:
        loop = asyncio.get_running_loop()
        self.pid = pid
        self.exited: asyncio.Future[int] = loop.create_future()
        self._binds_at = loop.time() + binds_after
        self._failing = (
            None if fails_after is None else loop.call_later(fails_after, self.end, _CRASHED)
        )

    @property
    def has_bound(self) -> bool:
        """Whether its ports are bound."""
        return not self.exited.done() and asyncio.get_running_loop().time() >= self._binds_at

    async def stop(self, grace: float) -> None:  # noqa: ARG002 - it goes at once
        """End it, as by SIGTERM."""
        self.end(-signal.SIGTERM)

    def end(self, code: int) -> None:
        """Let it exit now, unless it has."""
        if self._failing is not None:
            self._failing.cancel()
        if not self.exited.done():
            self.exited.set_result(code)


class SimulatedMachine:
    """The machine that simulated game servers run on; for the rest as `processes.Machine`."""

    look_every = 0.1

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._chance = random.Random(simulation.seed)  # noqa: S311 - fates are no secret
        self._pids = itertools.count(1)
        self._processes: dict[str, SimulatedProcess] = {}

    def start(
        self,
        argv: Sequence[str],  # noqa: ARG002 - nothing is run
        *,
        name: str,
        **_: object,
    ) -> SimulatedProcess:
        """Draw the fate of a program, which begins now."""
        simulation, chance = self._simulation, self._chance
        # Always as many draws, so that a share that changes leaves the other fates as they are.
        binds_after, fails_after = (
            _draw(span, chance) for span in (simulation.ready_after, simulation.fails_after)
        )
        is_silent, is_failing = (
            chance.random() < share for share in (simulation.silent, simulation.failing)
        )
        self._processes[name] = SimulatedProcess(
            next(self._pids),
            binds_after=math.inf if is_silent else binds_after,
            fails_after=fails_after if is_failing else None,
        )
        return self._processes[name]

    def forget(self, name: str) -> None:
        """Forget a program that is over."""
        self._processes.pop(name, None)

    async def has_bound(self, process: SimulatedProcess, wanted: Iterable[Binding]) -> bool:
        """Whether it has bound the wanted ports, which is all of them or none."""
        return not list(wanted) or process.has_bound

    async def usage(self, processes: Sequence[SimulatedProcess]) -> list[Usage]:
        """What each has used so far, which is nothing."""
        return [Usage(at=asyncio.get_running_loop().time()) for _ in processes]

    def end_now(self) -> None:
        """End all that were not stopped."""
        for process in self._processes.values():
            process.end(-signal.SIGKILL)
        self._processes.clear()

    async def close(self) -> None:
        """End what runs."""
        self.end_now()


class SimulatedPorts:
    """Port numbers of as many machines as it takes: they never run out, and nothing is held."""

    def __init__(self, numbers: range) -> None:
        self._next = itertools.cycle(numbers)

    def take(self, count: int) -> tuple[int, ...]:
        """The next so many numbers."""
        return tuple(itertools.islice(self._next, count))

    def give_back(self, ports: Sequence[int]) -> None:
        """Nothing to do: none of them was held."""

    def close(self) -> None:
        """Nothing to do: none of them was held."""
