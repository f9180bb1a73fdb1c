"""Runs game servers as containers of a real image, by a container engine.

The life cycle is that of processes (`processes`): clean environment, published ports, READY once a
port is bound, the last of the output, measurements, exit code, SIGTERM and then SIGKILL. A restart
makes a new container. What is different: a container has ports of its own, so a fixed number never
collides, and a socket must be bound on an address that the engine forwards to, so not on loopback.

READY follows from the tables of bound sockets in the container's network namespace. The emulator
reads them in `/proc/PID/net` if it sees the container's first process. If not (an engine in a
virtual machine, or elsewhere) it has the engine run `cat` in the container. In an image without
`cat` nothing can be seen, and READY follows from the start alone; the log says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import signal
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import attrs

from edgegap_async.concurrency import loop_time
from edgegap_async.errors import log_fields

from .container_engine import ContainerEngine, Credentials, EngineError, remove
from .output import Output
from .ports import PortInUse
from .processes import Limits, Usage
from .procfs import NETWORK_TABLES, Binding, Kind, Route, bound_in, written_bindings
from .sandbox import Sandbox

if TYPE_CHECKING:
    from aiodocker import Docker
    from aiodocker.containers import DockerContainer

_log: Final = logging.getLogger(__name__)

_SCAN_INTERVAL: Final = 0.05  # seconds between two checks of bound ports
_EXEC_INTERVAL: Final = 0.25  # the same if each check starts a program in the container
_RETRY_INTERVAL: Final = 0.5  # seconds before an engine that has gone is asked again
_RETURN_TIMEOUT: Final = 10.0
"""Seconds in which an engine that has gone must be back; then its containers count as ended."""
_KILL_TIMEOUT: Final = 10.0  # seconds from SIGKILL until the engine has reported the end
_OUTPUT_TIMEOUT: Final = 5.0  # seconds for the rest of the output after an exit
_ENGINE_FAILED: Final = 125
"""Exit code of a container whose engine is gone, as `docker run` has it for failures of Docker."""
_KILLED: Final = 128 + signal.SIGKILL
_SIGNALLED: Final = range(129, 193)  # exit codes of programs that a signal has ended
_MAX_PROCESSES: Final = 4096  # of a container
_CPU_PERIOD: Final = 100_000  # microseconds
_MIN_CPU_QUOTA: Final = 1000  # microseconds of a period; the engine's minimum
_PORT_IN_USE: Final = ("port is already allocated", "address already in use")
_LOG_OPTIONS: Final = {"max-size": "4m", "max-file": "1", "mode": "non-blocking"}
"""The engine keeps little of the output, and the program never waits for it."""
_CPU_UNITS: Final = 1024  # of one virtual CPU
_LOOPBACK: Final = ("127.", "::1")


@attrs.frozen(kw_only=True)
class ContainerSettings:
    """What the containers of one deployment are made of."""

    image: str
    """The image, with registry and tag as for `docker run`."""
    credentials: Credentials | None
    """For its registry; None for a public one."""
    cpu_units: int
    """The most CPU that it gets; 1,024 units for one virtual CPU."""
    memory_bytes: int
    """The most memory that it gets, in bytes."""


class ContainerProcess:
    """The program of a running container. `ContainerMachine.start` makes it."""

    def __init__(
        self, engine: ContainerEngine, container: DockerContainer, output: Output, pid: int
    ) -> None:
        self.pid = pid
        """Process id on the engine's machine."""
        self.exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        """Resolves to its exit code, or to minus the number of the signal that ended it."""
        self.reason = ""
        """Why it has ended, if the exit code does not tell."""
        self.usage = Usage(at=loop_time())
        """What it has used, as the engine has measured last."""
        self.container = container
        """The container."""
        self._engine = engine
        self._output = output
        self._watching = engine.in_background(self._watch())

    async def _watch(self) -> None:
        parts = [asyncio.create_task(part) for part in (self._read_output(), self._measure())]
        code = _KILLED
        try:
            code = await self._exit_code()
            if code != _ENGINE_FAILED:
                await asyncio.wait(parts[:1], timeout=_OUTPUT_TIMEOUT)
        finally:
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)
            if not self.exited.done():
                self.exited.set_result(128 - code if code in _SIGNALLED else code)

    async def _exit_code(self) -> int:
        give_up = math.inf
        while True:
            began = loop_time()
            try:
                with self._engine.errors():
                    code = int((await self.container.wait())["StatusCode"])
                    state = (await self.container.show())["State"]
            except EngineError as problem:
                if problem.status == 404:  # noqa: PLR2004 - HTTP
                    self.reason = "the container was removed"
                    return _KILLED
                if give_up is math.inf or loop_time() > began + _RETRY_INTERVAL:
                    # It has answered until now; a request to an engine that is gone fails at once.
                    _log.warning("%s", problem, extra=log_fields(problem))
                    give_up = loop_time() + _RETURN_TIMEOUT
                if loop_time() >= give_up:
                    self.reason = str(problem)
                    return _ENGINE_FAILED
                await asyncio.sleep(_RETRY_INTERVAL)
                continue
            if state.get("OOMKilled"):
                self.reason = "it has used more memory than it may (memory_mb, memory_limit_mb)"
            elif state.get("Error"):
                self.reason = str(state["Error"])
            return code

    async def _read_output(self) -> None:
        """Reads until the container has ended; begins again if the engine was gone."""
        since: dict[str, Any] = {}
        while True:
            with contextlib.suppress(EngineError), self._engine.errors():
                pieces = self.container.log(stdout=True, stderr=True, follow=True, **since)
                async for text in pieces:
                    self._output.write(text.encode())
                    since = {"since": f"{time.time():.6f}"}
                if not await self.is_running():
                    return
            await asyncio.sleep(_RETRY_INTERVAL)

    async def _measure(self) -> None:
        while True:
            with contextlib.suppress(EngineError), self._engine.errors():
                async for measured in self.container.stats():
                    self.usage = _usage(measured, loop_time())
            await asyncio.sleep(_RETRY_INTERVAL)

    async def is_running(self) -> bool:
        """Returns whether the engine says that it runs."""
        with contextlib.suppress(EngineError), self._engine.errors():
            return bool((await self.container.show())["State"]["Running"])
        return False

    async def stop(self, grace: float) -> None:
        """Ends the container: SIGTERM, SIGKILL after `grace` seconds, and then removes it."""
        if not self.exited.done():
            await self._signal("SIGTERM")
            await asyncio.wait({self.exited}, timeout=grace)
        if not self.exited.done():
            await self._signal("SIGKILL")
            await asyncio.wait({self.exited}, timeout=_KILL_TIMEOUT)
        await self._engine.remove_surely(self.container)
        self._watching.cancel()
        await asyncio.wait({self._watching})

    async def crash(self) -> None:
        """Makes the container end as after a crash: by SIGKILL."""
        await self._signal("SIGKILL")

    async def _signal(self, name: str) -> None:
        # An error: it is removed, has ended, or the engine is gone, which `_exit_code` sees.
        with contextlib.suppress(EngineError), self._engine.errors():
            await self.container.kill(signal=name)


def _usage(measured: Mapping[str, Any], at: float) -> Usage:
    """Reads a measurement of the engine, whose fields depend on the system."""
    memory = measured.get("memory_stats") or {}
    details = memory.get("stats") or {}
    cached = details.get("inactive_file", details.get("total_inactive_file", 0))
    blocks = (measured.get("blkio_stats") or {}).get("io_service_bytes_recursive") or []
    moved = {"read": 0.0, "write": 0.0}
    for entry in blocks:
        way = str(entry.get("op", "")).lower()
        moved[way] = moved.get(way, 0.0) + entry.get("value", 0)
    cpu = (measured.get("cpu_stats") or {}).get("cpu_usage") or {}
    networks = (measured.get("networks") or {}).values()  # by interface; none on the host's network
    return Usage(
        at=at,
        cpu_seconds=cpu.get("total_usage", 0) / 1e9,
        memory_bytes=max(0, memory.get("usage", 0) - cached),
        read_bytes=moved["read"],
        written_bytes=moved["write"],
        received_bytes=sum(one["rx_bytes"] for one in networks) if networks else None,
        sent_bytes=sum(one["tx_bytes"] for one in networks) if networks else None,
    )


class ContainerMachine:
    """Runs the containers of one deployment, one after the other."""

    runs_containers: ClassVar[bool] = True
    traffic = None  # the engine counts it

    def __init__(self, engine: ContainerEngine, settings: ContainerSettings) -> None:
        self.scan_interval = _SCAN_INTERVAL
        self._engine = engine
        self._settings = settings
        self._routes: tuple[Route, ...] = ()
        self._sees_nothing = False
        self._starts = 0

    async def prepare(self) -> None:
        """Pulls the image, unless the engine has it.

        Raises:
            ImageUnavailable: it cannot be pulled.
            OSError: the engine does not answer.
        """
        await self._engine.pull(self._settings.image, self._settings.credentials)

    async def forward(self, routes: Iterable[Route]) -> ContainerMachine:
        """Publishes these ports of the next container on this machine."""
        self._routes = tuple(routes)
        return self

    def close(self) -> None:
        """Publishes no ports of the next container."""
        self._routes = ()

    async def start(
        self,
        argv: Sequence[str],
        *,
        name: str,
        environment: Mapping[str, str],
        output: Output,
        directory: str | None = None,
        limits: Limits | None = None,
        sandbox: Sandbox = "docker",  # noqa: ARG002 - the container is the sandbox
    ) -> ContainerProcess:
        """Starts a container.

        Args:
            argv: program and arguments, in place of those of the image; empty for the image's.
            name: names the container.
            environment: its environment, besides that of the image.
            output: gets what it writes.
            directory: its working directory; None for that of the image.
            limits: its limits.
            sandbox: not used; the container is one.

        Raises:
            PortInUse: another program of this machine has a port of it.
            OSError: the engine refuses it, or does not answer.
        """
        config = self._config(argv, environment, directory, limits or Limits())
        docker = await self._engine.connected()
        config["Labels"] = {**self._engine.labels(), "edgegap-async-deployment": name}
        starting = self._engine.in_background(self._start(docker, config, name, output))
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            # The request may have arrived: what it has made must not stay.
            starting.add_done_callback(self._discard)
            raise

    def _discard(self, starting: asyncio.Task[ContainerProcess]) -> None:
        if not starting.cancelled() and starting.exception() is None:
            self._engine.in_background(starting.result().stop(0))

    async def _start(
        self, docker: Docker, config: dict[str, Any], name: str, output: Output
    ) -> ContainerProcess:
        # Another name for each start: the engine may not have removed the container before.
        self._starts += 1
        again = "" if self._starts == 1 else f"-{self._starts}"
        try:
            with self._engine.errors():
                container = await docker.containers.create(config, name=f"edgegap-{name}{again}")
                try:
                    await container.start()
                    state = (await container.show())["State"]
                except BaseException:
                    await remove(container)
                    raise
        except EngineError as problem:
            if any(text in str(problem) for text in _PORT_IN_USE):
                raise PortInUse(str(problem)) from problem
            raise
        return ContainerProcess(self._engine, container, output, int(state.get("Pid") or 0))

    def _config(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        directory: str | None,
        limits: Limits,
    ) -> dict[str, Any]:
        settings = self._settings
        memory = limits.memory_bytes or settings.memory_bytes
        quota = max(_MIN_CPU_QUOTA, _CPU_PERIOD * settings.cpu_units // _CPU_UNITS)
        most = {"core": 0, "nofile": limits.open_files, "cpu": limits.cpu_seconds}
        published = {
            f"{internal}/{kind}": [{"HostIp": self._engine.address, "HostPort": str(external)}]
            for kind, external, internal in self._routes
        }
        config: dict[str, Any] = {
            "Image": settings.image,
            "Env": [f"{key}={value}" for key, value in environment.items()],
            "ExposedPorts": {port: {} for port in published},
            "HostConfig": {
                "PortBindings": published,
                "CpuPeriod": _CPU_PERIOD,
                "CpuQuota": quota,
                "Memory": memory,
                "MemorySwap": memory,
                "PidsLimit": _MAX_PROCESSES,
                "Ulimits": [
                    {"Name": limit, "Soft": value, "Hard": value}
                    for limit, value in most.items()
                    if value is not None
                ],
                "SecurityOpt": ["no-new-privileges"],
                "RestartPolicy": {"Name": "no"},
                "LogConfig": {"Type": "json-file", "Config": _LOG_OPTIONS},
                "ExtraHosts": ["host.docker.internal:host-gateway"],
            },
        }
        if argv:
            config |= {"Entrypoint": [argv[0]], "Cmd": list(argv[1:])}
        if directory is not None:
            config["WorkingDir"] = directory
        return config

    # ── bound ports ──────────────────────────────────────────────────────────────────────────────

    async def has_bound(self, process: ContainerProcess, wanted: Iterable[Binding]) -> bool:
        """Returns whether each of the wanted ports is bound, and not on loopback alone."""
        bindings = list(wanted)
        if not bindings or self._sees_nothing:
            return True
        tables = await self._tables(process)
        if not tables:
            self._sees_nothing = await process.is_running()
            if self._sees_nothing:
                _log.warning(
                    "the bound ports of image %s cannot be seen (no `cat` in it): READY follows"
                    " from its start alone",
                    self._settings.image,
                    extra=log_fields(image=self._settings.image),
                )
            return self._sees_nothing
        bound = bound_in(tables)
        return all(
            any(not address.startswith(_LOOPBACK) for address in bound.get(binding, []))
            for binding in bindings
        )

    async def taken(
        self,
        process: ContainerProcess,  # noqa: ARG002 - its ports are its own
        wanted: Iterable[Binding],  # noqa: ARG002 - for the same reason
    ) -> list[Binding]:
        """Returns the ports that other programs have bound: none, for they cannot."""
        return []

    async def opened(self, process: ContainerProcess) -> list[str]:
        """Returns what a container has bound, such as `127.0.0.1:7777/udp`."""
        bound = bound_in(await self._tables(process))
        return written_bindings(
            (binding, address) for binding, addresses in bound.items() for address in addresses
        )

    async def _tables(self, process: ContainerProcess) -> list[tuple[Kind, bytes]]:
        """Returns the tables of bound sockets; none if they cannot be seen."""
        if _is_of_container(process.pid, process.container.id):
            return _read_tables(process.pid)
        self.scan_interval = _EXEC_INTERVAL
        with contextlib.suppress(EngineError), self._engine.errors():
            paths = [f"/proc/net/{name}" for name in NETWORK_TABLES]
            return _split_tables(await _run(process.container, ["cat", *paths]))
        return []

    # ── the rest ─────────────────────────────────────────────────────────────────────────────────

    async def usage(self, processes: Sequence[ContainerProcess]) -> list[Usage]:
        """Returns what each container has used, as the engine has measured last."""
        return [process.usage for process in processes]

    def forget(self, name: str) -> None:
        """Does nothing: a stop removes the container."""


def _is_of_container(pid: int, container_id: str) -> bool:
    """Returns whether this machine's process of that number is the container's."""
    try:
        return pid > 0 and container_id in Path(f"/proc/{pid}/cgroup").read_text("ascii")
    except OSError:
        return False


def _read_tables(pid: int) -> list[tuple[Kind, bytes]]:
    tables: list[tuple[Kind, bytes]] = []
    for name, kind in NETWORK_TABLES.items():
        with contextlib.suppress(OSError):  # no IPv6, or it has ended
            tables.append((kind, Path(f"/proc/{pid}/net/{name}").read_bytes()))
    return tables


def _split_tables(text: bytes) -> list[tuple[Kind, bytes]]:
    """Returns the tables of a text that has one after the other. That of UDP counts drops."""
    tables: list[tuple[Kind, bytes]] = []
    for line in text.splitlines(keepends=True):
        if b"local_address" in line:
            tables.append(("udp" if b"drops" in line else "tcp", line))
        elif tables:
            kind, lines = tables[-1]
            tables[-1] = (kind, lines + line)
    return tables


async def _run(container: DockerContainer, argv: list[str]) -> bytes:
    """Runs a program in a container. Returns what it has written to standard output."""
    pieces: list[bytes] = []
    execution = await container.exec(argv, stderr=False)
    async with execution.start() as stream:
        while (message := await stream.read_out()) is not None:
            pieces.append(message.data)
    return b"".join(pieces)
