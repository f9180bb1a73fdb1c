"""A machine that runs no processes: for thousands of deployments, and for random campaigns.

::

    async with Emulator(apps, limits=False, simulate=Simulation(crash_share=0.01)) as emulator:
        ...

Statuses, limits, faults and webhooks work as always. But no process is started: a game server is a
time at which its ports are bound and, for some, a time at which it crashes. Both are drawn from a
seeded random source in the order in which servers start, and happen on the emulator's clock. A
deployment has neither logs nor metrics, and no socket listens on its ports.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import random
import signal
from collections.abc import Iterable, Sequence
from typing import ClassVar, Final

import attrs

from edgegap_async.api.validation import number
from edgegap_async.concurrency import loop_time

from .clock import Clock
from .processes import Usage
from .procfs import Binding, Route
from .timings import Duration, check_duration, draw

_CRASH_EXIT_CODE: Final = 1
"""Exit code of servers that fail."""


_SHARE: Final = number(least=0, most=1)


@attrs.frozen(kw_only=True)
class Simulation:
    """How simulated game servers behave.

    Raises:
        InvalidRequest: a share is not from 0 to 1, or a span ends before it begins.
    """

    seed: int = attrs.field(default=0, validator=number(whole=True))
    """Seed of the random source: the same seed, the same times for servers in the same order."""
    ready_after: Duration = attrs.field(default=(0.5, 3.0), validator=check_duration)
    """Seconds from the start until the ports are bound: a number, (at least, at most), or a
    function that draws them: `lambda chance: chance.lognormvariate(1.6, 0.77)`."""
    crash_share: float = attrs.field(default=0.0, validator=_SHARE)
    """Share of servers that exit with code 1, before or after READY; from 0 to 1."""
    crash_after: Duration = attrs.field(default=(0.0, 30.0), validator=check_duration)
    """Seconds from the start until a failing server exits; in the form of `ready_after`."""
    never_ready_share: float = attrs.field(default=0.0, validator=_SHARE)
    """Share of servers that never bind a port; from 0 to 1."""


class SimulatedProcess:
    """A simulated program. `SimulatedMachine.start` makes it.

    Attributes:
        pid: its number on its machine; no process id of the system.
        exited: resolves to its exit code, or to minus the number of the signal that ended it.
        reason: empty.
    """

    def __init__(
        self, pid: int, clock: Clock, *, binds_after: float, crash_after: float | None
    ) -> None:
        self.pid = pid
        self.exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.reason = ""
        self._clock = clock
        self._binds_at = clock.time() + binds_after
        self._crash = None if crash_after is None else clock.timer(crash_after)
        if self._crash is not None:
            self._crash.add_done_callback(self._crash_now)

    @property
    def has_bound(self) -> bool:
        """Whether its ports are bound now."""
        return not self.exited.done() and self._clock.time() >= self._binds_at

    def _crash_now(self, timer: asyncio.Future[None]) -> None:
        if not timer.cancelled():
            self.end(_CRASH_EXIT_CODE)

    async def stop(self, grace: float) -> None:
        """Ends it, as SIGTERM does."""
        self.end(-signal.SIGTERM)

    async def crash(self) -> None:
        """Makes it end as after a crash: by SIGKILL."""
        self.end(-signal.SIGKILL)

    def end(self, code: int) -> None:
        """Makes it exit now, unless it has exited."""
        if self._crash is not None:
            self._crash.cancel()
        if not self.exited.done():
            self.exited.set_result(code)


class SimulatedForwarder:
    """Forwards nothing."""

    traffic = None

    def close(self) -> None:
        """Does nothing."""


class SimulatedMachine:
    """Runs simulated game servers; has the methods of `processes.Machine`."""

    runs_containers: ClassVar[bool] = False
    scan_interval = 0.1

    def __init__(self, simulation: Simulation, clock: Clock) -> None:
        self._simulation = simulation
        self._clock = clock
        self._chance = random.Random(simulation.seed)  # noqa: S311 - no secret
        self._pids = itertools.count(1)
        self._processes: dict[str, SimulatedProcess] = {}

    async def prepare(self) -> None:
        """Does nothing: there is no image."""

    async def start(
        self,
        argv: Sequence[str],
        *,
        name: str,
        **_: object,
    ) -> SimulatedProcess:
        """Starts a simulated program: draws its times."""
        simulation, chance = self._simulation, self._chance
        # Always the same number of draws, so that another share changes no other time.
        binds_after, crash_after = (
            draw(span, chance) for span in (simulation.ready_after, simulation.crash_after)
        )
        is_never_ready, crashes = (
            chance.random() < share
            for share in (simulation.never_ready_share, simulation.crash_share)
        )
        self._processes[name] = SimulatedProcess(
            next(self._pids),
            self._clock,
            binds_after=math.inf if is_never_ready else binds_after,
            crash_after=crash_after if crashes else None,
        )
        return self._processes[name]

    def forget(self, name: str) -> None:
        """Forgets a program that has ended."""
        self._processes.pop(name, None)

    async def has_bound(self, process: SimulatedProcess, wanted: Iterable[Binding]) -> bool:
        """Returns whether it has bound the wanted ports: all of them or none."""
        return not list(wanted) or process.has_bound

    async def taken(
        self,
        process: SimulatedProcess,
        wanted: Iterable[Binding],
    ) -> list[Binding]:
        """Returns the ports that other programs have bound: none."""
        return []

    async def opened(self, process: SimulatedProcess) -> list[str]:
        """Returns what a program has bound: nothing."""
        return []

    async def forward(self, routes: Iterable[Route]) -> SimulatedForwarder:
        """Forwards nothing: no port is bound."""
        return SimulatedForwarder()

    async def usage(self, processes: Sequence[SimulatedProcess]) -> list[Usage]:
        """Returns the use of each program, which is zero."""
        return [Usage(at=loop_time()) for _ in processes]

    def kill_all(self) -> None:
        """Ends each program that was not stopped."""
        for process in self._processes.values():
            process.end(-signal.SIGKILL)
        self._processes.clear()

    async def close(self) -> None:
        """Ends what runs."""
        self.kill_all()


class SimulatedPorts:
    """Port numbers that never run out; two deployments may have the same."""

    def __init__(self, numbers: range) -> None:
        self._next = itertools.cycle(numbers)

    def allocate(self, count: int) -> tuple[int, ...]:
        """Returns the next `count` numbers."""
        return tuple(itertools.islice(self._next, count))

    def take(self, number: int) -> bool:
        """Returns True: any number of deployments may have a number."""
        return True

    def release(self, ports: Sequence[int]) -> None:
        """Does nothing: no port was bound."""

    def close(self) -> None:
        """Does nothing: no port was bound."""
