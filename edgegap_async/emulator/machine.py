"""What a deployment needs of the machine that runs its process.

`processes` has it for this machine, `containers` for a container engine, `simulation` for a
simulated machine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, Protocol, TypeVar

from .forwarder import Traffic
from .output import Output
from .processes import Limits, Usage
from .procfs import Binding, Route
from .sandbox import Sandbox


class Process(Protocol):
    """A running program: of this machine, of a container, or a simulated one."""

    pid: int
    """Process id."""
    exited: asyncio.Future[int]
    """Resolves to the exit code, or to minus the number of the signal that ended it."""
    reason: str
    """Why it has ended, if the exit code does not tell; else empty."""

    async def stop(self, grace: float) -> None:
        """Ends it: by SIGTERM, and by SIGKILL after `grace` seconds."""
        ...

    async def crash(self) -> None:
        """Makes it end as after a crash: by SIGKILL, as if it had done it itself."""
        ...


class Forwarder(Protocol):
    """Forwards ports until it is closed."""

    @property
    def traffic(self) -> Traffic | None:
        """What it has forwarded; None if it does not count."""
        ...

    def close(self) -> None:
        """Forwards no more."""
        ...


ProcessT = TypeVar("ProcessT", bound=Process)


class Machine(Protocol[ProcessT]):
    """Runs programs: this machine, a container engine or a simulated machine."""

    runs_containers: ClassVar[bool]
    """Whether a program runs in a container: of an image, and with ports of its own."""
    scan_interval: float
    """Seconds between two checks whether a program has bound its ports."""

    async def prepare(self) -> None:
        """Pulls the image. It may raise `ImageUnavailable` and `OSError`."""
        ...

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
    ) -> ProcessT:
        """Starts a program. It may raise `OSError`."""
        ...

    async def has_bound(self, process: ProcessT, wanted: Iterable[Binding]) -> bool:
        """Returns whether a program has bound each of the wanted ports."""
        ...

    async def taken(self, process: ProcessT, wanted: Iterable[Binding]) -> list[Binding]:
        """Returns the ports that other programs have bound and this one has not."""
        ...

    async def opened(self, process: ProcessT) -> list[str]:
        """Returns what a program has bound, such as `127.0.0.1:7777/udp`."""
        ...

    async def forward(self, routes: Iterable[Route]) -> Forwarder:
        """Forwards external ports to the ports of a program. It may raise `OSError`."""
        ...

    async def usage(self, processes: Sequence[ProcessT]) -> list[Usage]:
        """Returns what each program has used so far."""
        ...

    def forget(self, name: str) -> None:
        """Removes what an ended program has left."""
        ...


class WholeMachine(Machine[ProcessT], Protocol[ProcessT]):
    """A machine that runs the programs of all deployments, and ends them all."""

    def kill_all(self) -> None:
        """Kills each program that was not stopped, without awaiting anything."""
        ...

    async def close(self) -> None:
        """Kills the programs that run."""
        ...
