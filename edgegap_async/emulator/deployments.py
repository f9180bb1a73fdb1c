"""One deployment from deploy to end: the coroutine `LocalDeployment.run`, from top to bottom.

`run` goes through the statuses in the times that `Timings` gives, starts the process in DEPLOYING,
sets READY once the process has bound its ports, and then waits for the end: a stop, the maximal
duration, or an exit of the process. A status changes in one place, `_set_status`, and only along
`TRANSITIONS`. A stop before READY waits until READY or ERROR, as in the cloud.

After an exit by itself the process starts again if the restart policy says so. If not, an exit with
code 0 after READY ends the deployment, and any other exit is ERROR. Once a stop was requested, any
exit is an orderly end: some servers exit 1 on SIGTERM.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import signal
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import attrs

from edgegap_async.api.models import (
    TRANSITIONS,
    CrashData,
    Deployment,
    DeploymentRow,
    Location,
    Logs,
    Port,
    Status,
    Tag,
)
from edgegap_async.api.requests import DeployRequest, Webhook
from edgegap_async.concurrency import loop_time
from edgegap_async.errors import ImageUnavailable, log_fields

from .catalogue import Application, AppPort, PrivateHost
from .clock import Clock
from .environment import PUBLIC_IP, Secrets, environment
from .machine import Forwarder, Machine, Process
from .metrics import Samples
from .output import Output
from .ports import NoFreePort, PortInUse, Ports
from .processes import Limits
from .procfs import Binding, Route, in_thread
from .registry import shown_protocol
from .timings import DrawnTimings

if TYPE_CHECKING:
    from .simulation import SimulatedPorts

_log: Final = logging.getLogger(__name__)

_CLOSING_GRACE: Final = 0.5
"""Seconds from SIGTERM to SIGKILL when the emulator itself ends."""

_MAX_PORT_CHANGES: Final = 4
"""How often a process gets other ports because another program has taken one of them."""
_CHECKS_BEFORE_TAKEN: Final = 16
"""Checks for bound ports, about half a second, before a check whether another program has one."""
_MAX_PLAIN_OUTPUT: Final = 4096
"""Bytes of output beyond which the output of an ended process is compressed."""

SendWebhook = Callable[[Webhook, Deployment], None]
OnStatus: TypeAlias = "Callable[[LocalDeployment, Status | None], None]"
"""Called after a change of status with the deployment and its status before; None at its deploy."""


def _cloud_time(deployment: LocalDeployment) -> float:
    return deployment.clock.time()


class _DeploymentFailed(Exception):
    """The deployment has failed; the message is its `error_detail`."""


@attrs.define(kw_only=True, eq=False, repr=False)
class LocalDeployment:
    """A deployment of the emulator. It ends at TERMINATED; `Cloud` keeps it a while longer."""

    request_id: str
    """Its id."""
    application: Application
    """The application version that it runs."""
    request: DeployRequest
    """The deploy request."""
    location: Location
    """The city that it runs in."""
    fleet_name: str | None
    """Name of the private fleet; None in the public cloud."""
    host: PrivateHost | None
    """The private host that it runs on; None in the public cloud."""
    port_numbers: Mapping[str, int]
    """Port numbers by port name; empty if there was no capacity."""
    port_source: Ports | SimulatedPorts
    """Takes the port numbers back once the process is over, or gives others."""
    fqdn: str
    """Its host name."""
    base_url: str
    """Base URL of the API, for the environment of its process."""
    secrets: Secrets = attrs.field(factory=Secrets)
    """Tokens that only its process gets."""
    machine: Machine[Any]
    """The machine that runs its process."""
    clock: Clock = attrs.field(factory=Clock)
    """The clock of everything that it waits for."""
    timings: DrawnTimings
    """How long it spends in each status."""
    send_webhook: SendWebhook
    """Sends a webhook."""
    on_status: OnStatus
    """Called after each change of status, with the status before."""

    keep_errors: float | None = None
    """Seconds in ERROR after which it ends by itself; None for never."""
    tags: dict[str, Tag] = attrs.field(factory=dict)
    """Its tags by name, in the order in which they were added."""
    status: Status = Status.INITIALIZING
    """Its status now."""
    status_since: float = attrs.field(default=attrs.Factory(_cloud_time, takes_self=True))
    """Time of the cloud's clock at the last change of status, in seconds."""
    last_status: Status | None = None
    """The status before; None at first."""
    error_detail: str | None = None
    """Why it is in ERROR; None if it is not."""
    created_at: datetime = attrs.field(
        default=attrs.Factory(lambda self: self.clock.now(), takes_self=True)
    )
    """Time of the deploy."""
    _created_time: float = attrs.field(
        default=attrs.Factory(_cloud_time, takes_self=True), alias="created_time"
    )
    ready_at: datetime | None = None
    """Time of READY; None before."""
    removed_at: datetime | None = None
    """Time of TERMINATED; None before."""
    output: Output = attrs.field(factory=Output)
    """What its process has written."""
    samples: Samples = attrs.field(factory=Samples)
    """Measurements of its process."""
    process: Process | None = None
    """Its process; None if none runs."""
    crash: CrashData | None = None
    """How its process exited by itself; None if it has not."""
    _written_at_crash: int | None = attrs.field(default=None, alias="written_at_crash")
    _has_ports: bool = attrs.field(default=True, alias="has_ports")
    _held_numbers: set[int] = attrs.field(factory=set, init=False)
    _with_external: set[str] = attrs.field(factory=set, init=False)  # names of ports
    _forwarder: Forwarder | None = attrs.field(default=None, init=False)
    _ready_time: float = attrs.field(default=0.0, alias="ready_time")
    _ended_time: float | None = attrs.field(default=None, alias="ended_time")
    _restarts: int = 0
    _stop_requested: asyncio.Future[None] = attrs.field(
        factory=lambda: asyncio.get_running_loop().create_future()
    )

    def __repr__(self) -> str:
        app = self.application
        return f"<LocalDeployment {self.request_id} {app.name} {app.version} {self.status}>"

    # ── as the API shows it ───────────────────────────────────────────────────────────────────────

    @property
    def host_id(self) -> str:
        """Name of the host that it runs on."""
        city = (self.location.city or "").lower().replace(" ", "-")
        return self.host.host_id if self.host else f"{city}-emulated-1"

    @property
    def cpu_units(self) -> int:
        """CPU units that it takes of its host; 1,024 for one virtual CPU."""
        return self.application.resources_for(self.request)[0]

    @property
    def memory_mb(self) -> int:
        """Megabytes of memory that it takes of its host."""
        return self.application.resources_for(self.request)[1]

    @property
    def ports(self) -> dict[str, Port]:
        """Its ports as the API shows them, by name."""
        return {
            port.name: Port(
                external=self.port_numbers[port.name],
                internal=self._internal(port),
                protocol=shown_protocol(port.protocol),
                name=port.name,
                tls_upgrade=port.tls_upgrade,
                link=("http://" if port.protocol == "HTTP" else "")
                + f"{self.fqdn}:{self.port_numbers[port.name]}",
            )
            for port in self.application.ports
            if port.name in self.port_numbers
        }

    @property
    def age(self) -> float:
        """Seconds since the deploy."""
        return self.clock.time() - self._created_time

    @property
    def seconds_in_status(self) -> float:
        """Seconds since the last change of status."""
        return self.clock.time() - self.status_since

    @property
    def is_placed(self) -> bool:
        """Whether the API shows yet where it runs."""
        return self.status not in {Status.INITIALIZING, Status.SEEKING}

    # The newer description requires these two as texts, so that a deployment which is not READY
    # yet has the time of its deploy, and one without a location an empty address.

    @property
    def _start_time(self) -> datetime:
        return self.ready_at or self.created_at

    @property
    def _public_ip(self) -> str:
        return PUBLIC_IP if self.is_placed else ""

    def deployment(self) -> Deployment:
        """Returns its status as the API shows it now."""
        until = self.clock.time() if self._ended_time is None else self._ended_time
        return Deployment(
            request_id=self.request_id,
            fqdn=self.fqdn,
            app_name=self.application.name,
            app_version=self.application.version,
            current_status=self.status,
            running=self.status is Status.READY,
            start_time=self._start_time,
            removal_time=self.removed_at,
            elapsed_time=int(until - self._ready_time) if self.ready_at else 0,
            last_status=self.last_status,
            error=self.error_detail is not None,
            error_detail=self.error_detail,
            ports=self.ports if self.is_placed else {},
            public_ip=self._public_ip,
            location=self.location if self.is_placed else None,
            tags=tuple(self.tags),
            sockets=0,
            sockets_usage=0,
            max_duration=math.ceil(self.application.max_duration),
        )

    def row(self, *, with_status: bool = True) -> DeploymentRow:
        """Returns its row in lists."""
        return DeploymentRow(
            request_id=self.request_id,
            fqdn=self.fqdn,
            start_time=self._start_time,
            ready=self.status is Status.READY,
            public_ip=self._public_ip,
            ports=self.ports if self.is_placed else {},
            tags=tuple(self.tags),
            sockets=0,
            sockets_usage=0,
            status=self.status if with_status else None,
        )

    @property
    def crash_output(self) -> str | None:
        """What the process had written when it exited by itself; None if it has not."""
        written = self._written_at_crash
        return None if written is None else self.output.text(written)

    def logs(self) -> Logs:
        """Returns what its process has written, and how it crashed if it did."""
        return Logs(
            logs=self.output.text(),
            encoding="utf-8",
            crash_logs=self.crash_output,
            crash_data=self.crash,
        )

    # ── from deploy to end ────────────────────────────────────────────────────────────────────────

    @property
    def is_stop_requested(self) -> bool:
        """Whether its end was requested: by a stop, by itself, or by `max_duration`."""
        return self._stop_requested.done()

    def stop(self) -> None:
        """Requests the end; it begins at READY or ERROR."""
        if not self.is_stop_requested:
            self._stop_requested.set_result(None)

    def fail(self, why: str) -> None:
        """Sets ERROR. If it comes before `run`, for want of capacity, no process is started."""
        self.error_detail = why
        self._set_status(Status.ERROR)

    async def run(self) -> None:
        """Runs until TERMINATED. If it is cancelled, it ends its processes."""
        try:
            if self.status is Status.INITIALIZING:
                await self._run_statuses()
            if self.status is Status.ERROR:
                self._release_ports()
                if self.output.written > _MAX_PLAIN_OUTPUT:
                    await in_thread(self.output.compress)
                await self.clock.wait({self._stop_requested}, self.keep_errors)
            else:
                await self._stop_requested
            self._set_status(Status.TERMINATING)
            await asyncio.gather(
                self._end_process(self.application.termination_grace_period_seconds),
                self.clock.sleep(self.timings["terminating"]),
            )
            self.removed_at = self.clock.now()
            self.output = Output()  # logs are gone after a stop, as in the cloud
            self._set_status(Status.TERMINATED)
        finally:
            await self._end_process(_CLOSING_GRACE)
            self._release_ports()
            self.machine.forget(self.request_id)

    def _release_ports(self) -> None:
        """Gives the ports back, once: later they may be of another deployment."""
        self._close_forwarder()
        if self._has_ports:
            self._has_ports = False
            self.port_source.release(tuple(self.port_numbers.values()))

    async def _run_statuses(self) -> None:
        """Goes from INITIALIZING until a stop is due or the deployment has failed."""
        try:
            await self._find_location()
            give_up = self.clock.time() + self.application.time_to_deploy
            earliest = self.clock.time() + self.timings["deploying"]
            while (code := await self._run_process(give_up, earliest)) is not None:
                await self._handle_exit(code)
                if self._stop_requested.done() and self.status is Status.READY:
                    return
                if self.status is Status.DEPLOYING and self.clock.time() >= give_up:
                    raise await self._port_not_opened(self.process)
        except _DeploymentFailed as failure:
            await self._end_process(0)
            self.fail(str(failure))

    async def _find_location(self) -> None:
        await self.clock.sleep(self.timings["initializing"])
        for status in (Status.SEEKING, Status.SEEKED, Status.SCANNING):
            self._set_status(status)
            await self.clock.sleep(self.timings[status.lower()])
        self._set_status(Status.DEPLOYING)

    async def _run_process(self, give_up: float, earliest: float) -> int | None:
        """Runs the process once. Returns its exit code, or None once a stop is due."""
        process = await self._start_and_bind(give_up)
        if self.status is Status.DEPLOYING:
            await self.clock.wait({process.exited}, earliest - self.clock.time())
            if process.exited.done():
                return process.exited.result()
            self.ready_at, self._ready_time = self.clock.now(), self.clock.time()
            self._set_status(Status.READY)
        minutes = self.application.max_duration  # below 0 for no limit
        ends: set[asyncio.Future[Any]] = {process.exited, self._stop_requested}
        await self.clock.wait(
            ends, None if minutes < 0 else self._ready_time + minutes * 60 - self.clock.time()
        )
        if not process.exited.done():
            self.stop()  # max_duration is over, or a stop was requested
        return None if self._stop_requested.done() else process.exited.result()

    async def _start_and_bind(self, give_up: float) -> Process:
        """Starts the process, and waits until it has bound its ports or has exited.

        Another program may bind a port between its assignment and the start. Then the process
        starts again, with another port.
        """
        for _ in range(_MAX_PORT_CHANGES):
            try:
                await self._open_forwarder()
                process = await self._start(give_up)
            except OSError as problem:
                extra = log_fields(problem, request_id=self.request_id)
                _log.info("%s: a program has its port: %s", self.request_id, problem, extra=extra)
            else:
                if self.status is Status.READY or not await self._wait_until_bound(
                    process, give_up
                ):
                    return process
                extra = log_fields(request_id=self.request_id)
                _log.info("%s: another program has taken its port", self.request_id, extra=extra)
            await self._end_process(0)
            self._change_ports()
        raise _DeploymentFailed(f"other programs have taken {_MAX_PORT_CHANGES} ports that it got")

    async def _open_forwarder(self) -> None:
        """Forwards external ports to those whose number the application sets.

        A container has ports of its own, and all of them are published. On this machine, if another
        deployment or program has such a number, the application gets its external port instead.

        Raises:
            OSError: an external port cannot be bound.
        """
        if self._forwarder is not None:
            return
        is_published = self.machine.runs_containers
        forwarded = set(self.port_numbers) if is_published else self._hold_numbers()
        routes: list[Route] = [
            (kind, self.port_numbers[port.name], self._internal(port))
            for port in self.application.ports
            if port.name in forwarded
            for kind in port.socket_kinds
        ]
        if routes:
            self._forwarder = await self.machine.forward(routes)
            has_all = len(forwarded) == len(self.port_numbers)  # or some traffic is not counted
            self.samples.traffic = self._forwarder.traffic if has_all else None

    def _hold_numbers(self) -> set[str]:
        """Takes the numbers that the application sets. Returns the names of those ports."""
        self._with_external.clear()
        for port in self.application.ports:
            if port.number is None or port.number in self._held_numbers:
                continue
            if self.port_source.take(port.number):
                self._held_numbers.add(port.number)
            else:
                self._with_external.add(port.name)
        return {
            port.name
            for port in self.application.ports
            if port.number is not None and port.name not in self._with_external
        }

    @property
    def _numbers_in_use(self) -> str:
        """What to add to the text of an error if other programs have the application's ports."""
        ports = [port for port in self.application.ports if port.name in self._with_external]
        if not ports:
            return ""
        numbers = ", ".join(str(port.number) for port in ports)
        return (
            f"; port {numbers} of this machine is in use by another deployment"
            " or program, so the app got another number, by {port:NAME} and"
            " ARBITRIUM_PORT_NAME_INTERNAL"
        )

    def _change_ports(self) -> None:
        """Exchanges the ports for others.

        Raises:
            _DeploymentFailed: there are none.
        """
        self._release_ports()
        try:
            numbers = self.port_source.allocate(len(self.port_numbers))
        except NoFreePort as problem:
            raise _DeploymentFailed(str(problem)) from None
        self.port_numbers = dict(zip(self.port_numbers, numbers, strict=True))
        self._has_ports = True

    def _close_forwarder(self) -> None:
        if self._forwarder is not None:
            self._forwarder.close()
            self._forwarder = None
        self.port_source.release(tuple(self._held_numbers))
        self._held_numbers.clear()

    async def _prepare(self, give_up: float) -> None:
        """Pulls the image.

        Raises:
            _DeploymentFailed: it cannot be pulled, or not in time.
        """
        pulling = asyncio.ensure_future(self.machine.prepare())
        try:
            await self.clock.wait({pulling}, give_up - self.clock.time())
            if not pulling.done():
                raise _DeploymentFailed(
                    f"Pull image timeout exceeded: {self.application.image} was not there after"
                    f" time_to_deploy = {self.application.time_to_deploy:g} s"
                )
            pulling.result()
        except ImageUnavailable as problem:
            raise _DeploymentFailed(problem.message) from problem
        except OSError as problem:
            raise _DeploymentFailed(f"cannot start the application: {problem}") from problem
        finally:
            pulling.cancel()
            await asyncio.wait({pulling})

    async def _start(self, give_up: float) -> Process:
        """Starts the process.

        Raises:
            PortInUse: another program has a port that would be published.
            _DeploymentFailed: it cannot be started.
        """
        if self.machine.runs_containers and self.status is Status.DEPLOYING:
            await self._prepare(give_up)
        application = self.application
        megabytes = application.memory_limit_mb
        try:
            process: Process = await self.machine.start(
                application.command(
                    {port.name: self._internal(port) for port in application.ports}
                ),
                name=self.request_id,
                environment=environment(self),
                output=self.output,
                directory=application.directory,
                limits=Limits(
                    memory_bytes=None if megabytes is None else megabytes * 2**20,
                    cpu_seconds=application.cpu_limit_seconds,
                    open_files=application.open_files_limit,
                ),
                sandbox=application.sandbox,
            )
        except PortInUse:
            raise
        except OSError as problem:
            text = f"cannot start the application: {problem}"
            is_in_home = not (application.image or application.directory)
            is_relative = is_in_home and application.argv[0].partition("/")[0] in {".", ".."}
            if is_relative and isinstance(problem, FileNotFoundError):
                text += "; argv is relative to directory, which is an empty folder by default"
            raise _DeploymentFailed(text) from problem
        self.process = process
        self.samples.start_process(loop_time())
        return process

    def _internal(self, port: AppPort) -> int:
        if port.number is None or port.name in self._with_external:
            return self.port_numbers[port.name]
        return port.number

    def _required_bindings(self) -> list[Binding]:
        return [
            (kind, self._internal(port))
            for port in self.application.ports
            if port.to_check
            for kind in port.socket_kinds
        ]

    async def _wait_until_bound(self, process: Process, give_up: float) -> bool:
        """Waits until the process has bound its ports or has exited.

        Returns:
            Whether it cannot bind a port, because another program has bound it.

        Raises:
            _DeploymentFailed: it has not bound its ports in time.
        """
        for check in itertools.count(1):
            if await self._has_bound(process):
                break
            has_exited = process.exited.done()
            is_due = has_exited or check % _CHECKS_BEFORE_TAKEN == 0
            if is_due and await self._is_port_taken(process):
                return True
            if has_exited:
                break
            if self.clock.time() >= give_up:
                raise await self._port_not_opened(process)
            await self.clock.wait({process.exited}, self.machine.scan_interval)
        return False

    async def _is_port_taken(self, process: Process) -> bool:
        """Returns whether another program has bound a port that this process was assigned."""
        assigned: list[Binding] = [
            (kind, self.port_numbers[port.name])
            for port in self.application.ports
            if port.number is None or port.name in self._with_external
            for kind in port.socket_kinds
        ]
        try:
            # Twice: a process may exit after its socket was seen and before its files are read.
            return bool(
                await self.machine.taken(process, assigned)
                and await self.machine.taken(process, assigned)
            )
        except OSError:  # no more files can be opened
            return False

    async def _has_bound(self, process: Process) -> bool:
        try:
            return await self.machine.has_bound(process, self._required_bindings())
        except OSError as problem:  # no more files can be opened
            extra = log_fields(problem, request_id=self.request_id)
            _log.warning("%s: cannot see its ports: %s", self.request_id, problem, extra=extra)
            return False

    async def _port_not_opened(self, process: Process | None) -> _DeploymentFailed:
        opened = [] if process is None else await self.machine.opened(process)
        ports = ", ".join(f"{number}/{kind}" for kind, number in self._required_bindings())
        text = (
            f"port {ports or 'none'} not opened by the app in {self.application.time_to_deploy:g} s"
        )
        if opened and self.machine.runs_containers:
            return _DeploymentFailed(
                f"{text}; it has opened {', '.join(opened)}: `number` is the port that it opens, on"
                " an address that is not loopback"
            )
        if opened:
            return _DeploymentFailed(
                f"{text}; it has opened {', '.join(opened)}: if that is its port, set `number` of"
                f" the port{self._numbers_in_use}"
            )
        return _DeploymentFailed(f"{text}; it has opened no port{self._numbers_in_use}")

    async def _handle_exit(self, code: int) -> None:
        """Notes how the process exited by itself, and waits until it may start again.

        If the restart policy does not start it again, exit code 0 after READY requests the end.

        Raises:
            _DeploymentFailed: any other exit that the restart policy does not follow by a start.
        """
        policy = self.application.restart_policy
        if policy != "always" and code == 0 and self.status is Status.READY:
            self.stop()
            return
        happened = (
            f"exited with code {code}" if code >= 0 else f"was killed by {_signal_name(-code)}"
        )
        if self.process is not None and self.process.reason:
            happened += f": {self.process.reason}"
        self.crash = CrashData(
            exit_code=code if code >= 0 else 128 - code,  # as container engines report it
            message=f"The application {happened}",
            restart_count=self._restarts,
        )
        self._written_at_crash = self.output.written
        if policy == "never" or (policy == "on_failure" and code == 0):
            in_use = "" if self.ready_at else self._numbers_in_use
            raise _DeploymentFailed(f"{self.crash.message}{in_use}")
        await self._end_process(0)
        pause = min(60.0, self.timings["restart_delay"] * 2.0**self._restarts)
        self._restarts += 1
        self.crash = attrs.evolve(self.crash, restart_count=self._restarts)
        if self.status is Status.READY:
            await self.clock.wait({self._stop_requested}, pause)
        else:
            await self.clock.sleep(pause)

    async def _end_process(self, grace: float) -> None:
        if self.process is not None:
            await self.process.stop(grace)  # stays set if this is cancelled: it is still to stop
            self.process = None

    def _set_status(self, status: Status) -> None:
        if status not in TRANSITIONS[self.status]:
            raise AssertionError(f"a deployment cannot go from {self.status} to {status}")
        extra = log_fields(request_id=self.request_id, status=str(status))
        _log.debug("%s: %s → %s", self.request_id, self.status, status, extra=extra)
        self.last_status, self.status, self.status_since = self.status, status, self.clock.time()
        if status.is_final and self._ended_time is None:
            self._ended_time = self.status_since
        self.announce()

    def announce(self) -> None:
        """Sends the webhook of its status, and calls `on_status`."""
        webhook = self.request.webhook_for(self.status)
        if webhook is not None:
            self.send_webhook(webhook, self.deployment())
        self.on_status(self, self.last_status)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"
