"""The state of the emulated cloud, which the calls of all modules share."""

from __future__ import annotations

import asyncio
import functools
import hmac
import logging
import math
import random
import secrets
from collections import Counter, deque
from collections.abc import Callable, Container, Coroutine, Iterable
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

import attrs

from edgegap_async.api.models import DeployAccepted, Location, Status, Tag
from edgegap_async.api.requests import DeployRequest
from edgegap_async.api.resources.deployments import DeploymentReport
from edgegap_async.api.resources.relays import RelaySession
from edgegap_async.api.validation import is_loopback
from edgegap_async.errors import BadRequest, NotFound, Unauthorized, Unprocessable, log_fields

from .beacons import Beacon
from .catalogue import Application, Catalogue, PrivateHost
from .clock import Clock
from .container_engine import ContainerEngine
from .container_images import ContainerImages
from .containers import ContainerMachine, ContainerSettings
from .deployments import LocalDeployment, OnStatus, SendWebhook
from .environment import MARK, check_variables
from .locations import CITIES, LocationFinder, Point
from .machine import Machine, WholeMachine
from .output import Output
from .ports import NoFreePort, Ports
from .processes import Machine as LocalMachine
from .registry import Registry, credentials_of
from .relays import LocalRelaySession
from .settings import Settings
from .simulation import SimulatedMachine, SimulatedPorts
from .state import OTHER_FORM, SavedDeployment
from .storages import Named, StoredStorage

_log: Final = logging.getLogger(__name__)

_UNKNOWN_ID_TEXT: Final = "Bad Request ID provided"
UNKNOWN_LOGS_TEXT: Final = (
    "The browser (or proxy) sent a request that this server could not understand."
)
"""The words of the cloud for the logs of an unknown deployment."""
_MAX_TERMINATED: Final = 1000
_MAX_REPORTS: Final = 1000
_MAX_ERRORS: Final = 1000  # deployments in ERROR; the oldest end


SendSession: TypeAlias = Callable[[str, RelaySession], None]
"""Posts a relay session to the URL of its webhook."""


class _NoCapacity(Exception):
    """A deploy finds no room; the message is the text of the 422."""


class CloudState:
    """The state of the emulated cloud.

    Attributes:
        deployments: every deployment that the API knows, by request_id, oldest first.
        failures: exceptions in background tasks, which are defects of the emulator.
        base_url: base URL of the API, for the environment of game servers.
        settings: how it behaves.
        registry: the applications and versions that can be deployed.
        reports: the last 1,000 reports about deployments, each with its request_id.
        clock: the clock of its deployments.
        engine: the container engine; None if game servers are simulated.
        relay_sessions: the relay sessions by id, oldest first; each costs until it is deleted.
        images: the tags that the container registry shows.
        storages: the endpoint storages.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        settings: Settings,
        *,
        send_webhook: SendWebhook,
        send_session: SendSession,
        on_status: OnStatus,
        clock: Clock,
    ) -> None:
        self.clock = clock
        self.deployments: dict[str, LocalDeployment] = {}
        self.failures: list[BaseException] = []
        self.reports: deque[tuple[str, DeploymentReport]] = deque(maxlen=_MAX_REPORTS)
        self.base_url = ""
        self.settings = settings
        self.registry = Registry(catalogue.applications, catalogue.images)
        self.images = ContainerImages(self.registry)
        self.storages = Named[StoredStorage]("Endpoint storage")
        self.relay_sessions: dict[str, LocalRelaySession] = {}
        self._send_session = send_session
        self._fleets = {fleet.name: fleet for fleet in catalogue.fleets}
        self._on_status = on_status
        self._locations = LocationFinder(settings.player_locations)
        self._machine: WholeMachine[Any]
        self._ports: Ports | SimulatedPorts
        self.engine: ContainerEngine | None = None
        if settings.simulate is None:
            self._machine = machine = LocalMachine(mark=MARK, address=settings.host)
            self.engine = ContainerEngine(machine.launcher, settings.engine, address=settings.host)
            self._ports = Ports(
                settings.port_range, self.clock.time, reuse_delay=settings.port_reuse_delay
            )
        else:
            self._machine = SimulatedMachine(settings.simulate, self.clock)
            self._ports = SimulatedPorts(settings.port_range)
        self._new_deployment = functools.partial(
            LocalDeployment,
            clock=clock,
            port_source=self._ports,
            keep_errors=settings.keep_errors,
            send_webhook=send_webhook,
            on_status=self._status_changed,
        )
        self._beacon: Beacon | None = None
        self._terminated_at: dict[str, float] = {}
        self._errors: dict[str, LocalDeployment] = {}
        self._cached: set[tuple[str, str, str | None]] = set()
        self._chance = random.Random(settings.seed)  # noqa: S311 - times are no secret
        self._created_at = self.clock.now()
        self._tasks: set[asyncio.Task[None]] = set()
        self._runs: dict[str, asyncio.Task[None]] = {}  # by request_id
        if self.engine is not None:
            self._spawn(self._measure_usage())
            if catalogue.has_containers:
                self._spawn(self.engine.warm_up())

    async def close(self) -> None:
        """Kills all processes at once and sends no webhook."""
        for task in self._tasks:
            task.cancel()
        try:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        finally:
            # A loop that shuts down cancels this task too. Then no task has awaited the end of the
            # processes, and none must be left.
            self._machine.kill_all()
            self._ports.close()
            if self._beacon is not None:
                self._beacon.close()
            self.clock.close()
        await self._machine.close()
        if self.engine is not None:
            await self.engine.close()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._record_failure)
        return task

    def _record_failure(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (failure := task.exception()):
            self.failures.append(failure)

    async def _measure_usage(self) -> None:
        while True:
            await asyncio.sleep(self.settings.metrics_interval)
            running: dict[Machine[Any], list[LocalDeployment]] = {}
            for one in self.deployments.values():
                if one.process is not None:
                    running.setdefault(one.machine, []).append(one)
            for machine, deployments in running.items():
                measured = [(one.samples, one.process) for one in deployments]
                try:
                    usages = await machine.usage([process for _, process in measured])
                except OSError as problem:  # no more files can be opened
                    _log.warning(
                        "no metrics are measured now: %s", problem, extra=log_fields(problem)
                    )
                    continue
                now = datetime.now(UTC)
                for (samples, _), usage in zip(measured, usages, strict=True):
                    samples.add(usage, now)

    def load(self, catalogue: Catalogue) -> None:
        """Replaces what can be deployed. Deployments that exist keep what they have.

        Applications and versions that calls of the API have created stay.
        """
        self.registry.load(catalogue.applications, catalogue.images)
        self._fleets = {fleet.name: fleet for fleet in catalogue.fleets}

    # ── restore ──────────────────────────────────────────────────────────────────────────────────

    def restore(self, saved: SavedDeployment) -> None:
        """Takes over a deployment of an emulator that has ended: it is in ERROR or TERMINATED."""
        kept = attrs.asdict(saved, recurse=False, filter=attrs.filters.exclude(*OTHER_FORM))
        output = Output()
        if saved.crash_output is not None:
            output.write(saved.crash_output.encode())
        deployment = self._new_deployment(
            **kept,
            location=CITIES[saved.city],
            host=self._private_hosts().get(saved.host_id or ""),
            base_url=self.base_url,
            machine=self._machine,
            timings=self.settings.timings.drawn(self._chance, is_cached=False),
            tags={tag.name: tag for tag in saved.tags},
            status_since=self._time_of(saved.changed_at),
            created_time=self._time_of(saved.created_at),
            ready_time=self._time_of(saved.ready_at or saved.changed_at),
            ended_time=self._time_of(saved.changed_at),
            output=output,
            written_at_crash=None if saved.crash_output is None else output.written,
            has_ports=False,
        )
        self.deployments[saved.request_id] = deployment
        if saved.status is Status.TERMINATED:
            self._terminated_at[saved.request_id] = deployment.status_since
        else:
            self._start(deployment)
        if saved.has_just_ended:
            deployment.announce()

    def _time_of(self, date: datetime) -> float:
        """Returns the clock's time of a date, in seconds."""
        return self.clock.time() - (self.clock.now() - date).total_seconds()

    # ── deploy ───────────────────────────────────────────────────────────────────────────────────

    def _deploy(self, request: DeployRequest, host: PrivateHost | None) -> DeployAccepted:
        application = self._find_application(request)
        check_variables(variable.key for variable in request.environment_variables)
        self._remove_expired()
        request_id = secrets.token_hex(6)
        numbers: tuple[int, ...] = ()
        problem = ""
        city: Location | None = None
        try:
            city = self._placed(application, request, host)
            numbers = self._ports.allocate(len(application.ports))
        except (NoFreePort, _NoCapacity) as nothing:
            problem = str(nothing)
        city = city or self._locations.nearest(request.users)
        fleets = (fleet.name for fleet in self._fleets.values() if host in fleet.hosts)
        is_cached = (application.name, application.version, city.city) in self._cached
        now = self.clock.now()
        deployment = self._new_deployment(
            request_id=request_id,
            application=application,
            request=request,
            location=city,
            fleet_name=next(fleets, None),
            host=host,
            port_numbers=dict(
                zip((port.name for port in application.ports), numbers, strict=False)
            ),
            fqdn=self.settings.fqdn.replace("{request_id}", request_id),
            base_url=self.base_url if application.image is None else self._container_url,
            machine=self._machine_for(application, request),
            timings=self.settings.timings.drawn(self._chance, is_cached=is_cached),
            tags={name: Tag(name=name, create_time=now, last_updated=now) for name in request.tags},
        )
        self.deployments[request_id] = deployment
        deployment.on_status(deployment, None)
        if problem:
            deployment.fail(problem)
        self._start(deployment)
        if problem:
            raise Unprocessable(problem, request_id=request_id)
        return DeployAccepted(request_id=request_id)

    def _start(self, deployment: LocalDeployment) -> None:
        self._runs[deployment.request_id] = self._spawn(self._run(deployment))

    def _machine_for(self, application: Application, request: DeployRequest) -> Machine[Any]:
        """Returns what runs the application."""
        if application.image is None or self.engine is None:
            return self._machine
        cpu_units, memory_mb = application.resources_for(request)
        settings = ContainerSettings(
            image=application.image,
            credentials=credentials_of(application.private_username, application.private_token),
            cpu_units=cpu_units,
            memory_bytes=memory_mb * 2**20,
        )
        return ContainerMachine(self.engine, settings)

    @property
    def _container_url(self) -> str:
        """Base URL of the API for programs in containers, whose loopback is their own."""
        url = urlsplit(self.base_url)
        if not url.hostname or not is_loopback(url.hostname):
            return self.base_url
        return url._replace(netloc=f"host.docker.internal:{url.port}").geturl()

    def _placed(
        self, application: Application, request: DeployRequest, host: PrivateHost | None
    ) -> Location:
        """Returns where a deploy runs: at its host, or in the nearest city with room.

        Raises:
            _NoCapacity: there is no room, or no location has the version in its cache.
        """
        most, limits = self.settings.max_deployments, self.settings.location_capacity
        live = self.live() if most is not None or limits else []
        if most is not None and len(live) >= most:
            raise _NoCapacity(f"No capacity: max_deployments={most} reached")
        if host is not None:
            return CITIES[host.city]
        used = Counter(one.location.city for one in live if one.host is None)
        cities = [city for name, city in CITIES.items() if used[name] < limits.get(name, math.inf)]
        if request.require_cached_locations:
            version = (application.name, application.version)
            cities = [city for city in cities if (*version, city.city) in self._cached]
            if not cities:
                raise _NoCapacity("No capacity: no location has the version in its cache")
        if not cities:
            raise _NoCapacity("No capacity: every location is full")
        return self._locations.nearest(request.users, cities)

    def _status_changed(self, deployment: LocalDeployment, earlier: Status | None) -> None:
        """Keeps which locations have run what, and ends the oldest of too many in ERROR."""
        if deployment.status is Status.READY:
            application = deployment.application
            city = deployment.location.city
            self._cached.add((application.name, application.version, city))
        self._errors.pop(deployment.request_id, None)
        if deployment.status is Status.ERROR:
            self._errors[deployment.request_id] = deployment
            if len(self._errors) > _MAX_ERRORS:
                self._errors.pop(next(iter(self._errors))).stop()
        self._on_status(deployment, earlier)

    async def _run(self, deployment: LocalDeployment) -> None:
        try:
            await deployment.run()
        finally:
            del self._runs[deployment.request_id]
            self._terminated_at[deployment.request_id] = self.clock.time()

    @property
    def deployable(self) -> tuple[str, ...]:
        """What can be deployed: application and version, such as `arena v1`."""
        return self.registry.deployable

    def _find_application(self, request: DeployRequest) -> Application:
        application = self.registry.program(request.application, request.version)
        if application is None:
            raise BadRequest(
                "Invalid Application or Application Version. No deployment has been created"
                f" (the emulator has {', '.join(self.deployable) or 'none'})"
            )
        return application

    async def forget_others(self, kept: Container[str]) -> None:
        """Ends every other deployment and relay session at once, and forgets it. Sends no webhook.

        Args:
            kept: ids of the deployments and relay sessions that stay as they are.
        """
        await asyncio.sleep(0)  # a run that has not begun would not give its ports back
        others = [request_id for request_id in self.deployments if request_id not in kept]
        runs = [self._runs[request_id] for request_id in others if request_id in self._runs]
        for run in runs:
            run.cancel()
        await asyncio.gather(*runs, return_exceptions=True)
        for session in tuple(self.relay_sessions.values()):
            if session.session_id not in kept:
                self.end_relay_session(session)
        for request_id in others:
            self.deployments.pop(request_id, None)
            self._terminated_at.pop(request_id, None)

    def player_points(self, deployment: LocalDeployment, most: int) -> list[Point]:
        """Returns the points of a deployment's first players, that many at most."""
        return [self._locations.locate(user) for user in deployment.request.users[:most]]

    def end_relay_session(self, session: LocalRelaySession) -> None:
        """Ends a relay session at once, and forgets it."""
        del self.relay_sessions[session.session_id]
        if session.linking is not None:
            session.linking.cancel()
        self._ports.release(session.port_numbers)

    # ── private hosts ────────────────────────────────────────────────────────────────────────────

    def _private_hosts(self) -> dict[str, PrivateHost]:
        return {host.host_id: host for fleet in self._fleets.values() for host in fleet.hosts}

    def _free_resources(self, host: PrivateHost) -> tuple[int, int]:
        """Returns the free CPU units and megabytes of a host."""
        # By its id: a reload of the settings makes other objects.
        on_it = [one for one in self.live() if one.host and one.host.host_id == host.host_id]
        cpu = host.cpu_units - sum(one.cpu_units for one in on_it)
        return cpu, host.memory_mb - sum(one.memory_mb for one in on_it)

    # ── find ─────────────────────────────────────────────────────────────────────────────────────

    def _find(
        self, request_id: str, hidden: float = 0.0, text: str = _UNKNOWN_ID_TEXT
    ) -> LocalDeployment:
        self._remove_expired()
        deployment = self.deployments.get(request_id)
        if deployment is None or deployment.age < hidden:
            raise self._unknown_id_error(text)
        return deployment

    def check_own(
        self, request_id: str, access_point_id: str, token: str, *, is_stop: bool
    ) -> None:
        """Checks that a call comes from the deployment's own process.

        Args:
            request_id: the deployment.
            access_point_id: the number in the URL.
            token: the token that came.
            is_stop: whether the call stops the deployment, for which the token is another one.

        Raises:
            Unauthorized: the token is another one.
            BadRequest: the deployment or the number in the URL is another one; or NotFound.
        """
        own = self._find(request_id).secrets
        expected = own.delete_token if is_stop else own.context_token
        if not hmac.compare_digest(expected.encode(), token.encode(errors="replace")):
            raise Unauthorized("The token is not the one of this deployment")
        if access_point_id != str(own.access_point_id):
            raise self._unknown_id_error()

    def _unknown_id_error(self, text: str = _UNKNOWN_ID_TEXT) -> BadRequest | NotFound:
        kind = NotFound if self.settings.unknown_id_status == 404 else BadRequest  # noqa: PLR2004 - an HTTP status
        return kind(text)

    def live(self, named: frozenset[str] | None = None) -> list[LocalDeployment]:
        """Returns the deployments that are not TERMINATED, those in ERROR too; oldest first.

        Args:
            named: only those of these ids; None for all.
        """
        if named is None:
            candidates: Iterable[LocalDeployment] = self.deployments.values()
        else:  # a list request by ids must not go through thousands
            known = (self.deployments[name] for name in named if name in self.deployments)
            candidates = sorted(known, key=lambda one: one.created_at)
        over = Status.TERMINATED
        return [one for one in candidates if one.status is not over]

    def _remove_expired(self) -> None:
        before = self.clock.time() - self.settings.keep_terminated
        surplus = len(self._terminated_at) - _MAX_TERMINATED
        for request_id, ended_at in list(self._terminated_at.items()):  # ordered by their end
            if ended_at > before and surplus <= 0:
                break
            del self._terminated_at[request_id], self.deployments[request_id]
            surplus -= 1
