"""What exists in the emulated cloud: one coroutine for each operation, with the operation's name.

A coroutine takes the fields of the request and returns the HTTP status and the model of the answer,
or raises the error that the client is to see. `server` does the rest of HTTP. What happens to a
deployment between two calls is in `deployments`.

Where the documentation is silent, the emulator does this: lists are ordered oldest first, with 20
rows a page and 100 at most; a row must pass every filter; `tags eq` means that the deployment has
that tag; a bulk stop without filters stops everything, as in production; the logs of a deployment
are gone once it is TERMINATED, and the deployment itself a minute later.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections.abc import Coroutine, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar, Final, Literal, TypeAlias

import attrs

from edgegap_async.api.models import (
    BulkStop,
    Centroid,
    DeployAccepted,
    DeploymentPage,
    FleetHost,
    HostPage,
    HostSpecifications,
    LocationPage,
    LocationTag,
    Status,
    Stopped,
    Tag,
    TagPage,
)
from edgegap_async.api.requests import (
    DeployRequest,
    FleetDeployRequest,
    StopFilters,
    TagName,
)
from edgegap_async.api.validation import (
    check_kind,
    check_text,
    field_name,
    instance_of,
    number,
    one_of,
)
from edgegap_async.concurrency import loop_time
from edgegap_async.errors import (
    BadRequest,
    Conflict,
    Gone,
    InvalidRequest,
    NotFound,
    Unauthorized,
    Unprocessable,
)

from .catalogue import Application, Catalogue, PrivateHost
from .deployments import LocalDeployment, Machine, SendWebhook, Timings
from .environment import MARK, PUBLIC_IP, Secrets
from .list_queries import (
    ids_in,
    matches_stop_filter,
    pagination,
    parse_list_query,
    parse_positive,
    parse_time,
    passes_filter,
)
from .locations import CITIES, LocationFinder, Point
from .metrics import STEPS
from .ports import NoFreePort, Ports
from .processes import Machine as LocalMachine
from .simulation import SimulatedMachine, SimulatedPorts, Simulation

Reply: TypeAlias = tuple[int, object]
"""HTTP status of an answer, and the model of its body."""

_UNKNOWN_ID_TEXT: Final = "Bad Request ID provided"
_DEFAULT_PAGE_SIZE: Final = 20
_MAX_PAGE_SIZE: Final = 100
_MAX_TAGS: Final = 40
_MAX_TERMINATED: Final = 1000
_MAX_PORT: Final = 65535
_MAX_HOST_NAME: Final = 253  # characters; the maximum of the DNS


def _ports(self: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    # An empty range is valid: each deploy of a server with a port is then answered 422.
    if not isinstance(value, range) or any(
        not 1 <= port <= _MAX_PORT for port in (*value[:1], *value[-1:])
    ):
        raise InvalidRequest(
            f"{field_name(self, attribute)} is a range of ports from 1 to {_MAX_PORT}, such as"
            f" range(30000, 32768), not {value!r}"
        )


def _host_name(self: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    check_text(field_name(self, attribute), value, _MAX_HOST_NAME)


def _locations(self: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    del self, attribute
    LocationFinder(value)


def _simulation(self: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    check_kind(field_name(self, attribute), value, Simulation)


@attrs.frozen(kw_only=True)
class Settings:
    """How the emulated cloud behaves. `Emulator` has the same settings as arguments.

    Raises:
        InvalidRequest: a setting has no valid value; the message says which.
    """

    made_by: ClassVar[str] = "Emulator"

    timings: Timings = attrs.field(default=Timings(), validator=instance_of(Timings))
    """Seconds that a deployment spends in each status."""
    port_range: range = attrs.field(default=range(30000, 32768), validator=_ports)
    """Ports for game servers, below the range from which Linux takes ports of clients."""
    port_reuse_delay: float = attrs.field(default=60.0, validator=number(least=0))
    """Seconds before a port is given to the next game server."""
    max_deployments: int | None = attrs.field(
        default=None, validator=number(least=0, whole=True, optional=True)
    )
    """How many may exist, those in ERROR too; a deploy beyond is answered 422. None: no limit."""
    fqdn: str = attrs.field(default=PUBLIC_IP, validator=_host_name)
    """Host name in statuses and links; `{request_id}` in it is replaced."""
    player_locations: Mapping[str, Point] = attrs.field(factory=dict, validator=_locations)
    """Latitude and longitude of players, by network in CIDR form."""
    metrics_interval: float = attrs.field(default=1.0, validator=number(above=0))
    """Seconds between two measurements of a process."""
    keep_terminated: float = attrs.field(default=60.0, validator=number(least=0))
    """Seconds for which the API still knows a TERMINATED deployment."""
    unknown_id_status: Literal[400, 404] = attrs.field(default=400, validator=one_of(400, 404))
    """Status for an unknown request_id: 400 as in the cloud, 404 as documented."""
    host_shape: Literal["pin", "centroid"] = attrs.field(
        default="pin", validator=one_of("pin", "centroid")
    )
    """Fields of private hosts: as until 2025-11 (`pin`), or since (`centroid`)."""
    list_has_status: bool = attrs.field(default=True, validator=instance_of(bool))
    """Whether list rows have the undocumented field `status`."""
    list_accepts_filters: bool = attrs.field(default=True, validator=instance_of(bool))
    """Whether lists accept a query; else they answer 400 to it."""
    list_includes_errors: bool = attrs.field(default=True, validator=instance_of(bool))
    """Whether lists show deployments in ERROR."""
    simulate: Simulation | None = attrs.field(default=None, validator=_simulation)
    """Simulates game servers; None for real processes."""


class Cloud:
    """The state of the emulated cloud, and what each operation does to it.

    Attributes:
        deployments: every deployment that the API knows, by request_id, oldest first.
        failures: exceptions in background tasks, which are defects of the emulator.
        base_url: base URL of the API, for the environment of game servers.
        settings: how it behaves.
    """

    def __init__(
        self, catalogue: Catalogue, settings: Settings, *, send_webhook: SendWebhook, base_url: str
    ) -> None:
        loop = asyncio.get_running_loop()
        self.deployments: dict[str, LocalDeployment] = {}
        self.failures: list[BaseException] = []
        self.base_url = base_url
        self.settings = settings
        self._applications = {(one.name, one.version): one for one in catalogue.applications}
        self._fleets = {fleet.name: fleet for fleet in catalogue.fleets}
        self._send_webhook = send_webhook
        self._locations = LocationFinder(settings.player_locations)
        self._machine: Machine[Any]
        self._ports: Ports | SimulatedPorts
        if settings.simulate is None:
            self._machine = LocalMachine(mark=MARK)
            self._ports = Ports(
                settings.port_range, loop.time, reuse_delay=settings.port_reuse_delay
            )
        else:
            self._machine = SimulatedMachine(settings.simulate)
            self._ports = SimulatedPorts(settings.port_range)
        self._terminated_at: dict[str, float] = {}
        self._created_at = datetime.now(UTC)
        self._tasks: set[asyncio.Task[None]] = set()
        self._spawn(self._measure_usage())

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
        await self._machine.close()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._record_failure)

    def _record_failure(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (failure := task.exception()):
            self.failures.append(failure)

    async def _measure_usage(self) -> None:
        while True:
            await asyncio.sleep(self.settings.metrics_interval)
            running = [
                (one.samples, one.process)
                for one in self.deployments.values()
                if one.process is not None
            ]
            usages = await self._machine.usage([process for _, process in running])
            now = datetime.now(UTC)
            for (samples, _), usage in zip(running, usages, strict=True):
                samples.add(usage, now)

    # ── deploy ───────────────────────────────────────────────────────────────────────────────────

    async def deploy(self, *, body: DeployRequest) -> Reply:
        """Accepts a deploy to the public cloud."""
        return self._deploy(body, None)

    async def deploy_to_fleet(self, *, body: FleetDeployRequest) -> Reply:
        """Accepts a deploy to the first private host with enough resources, else to the cloud."""
        hosts = self._private_hosts()
        application = self._find_application(body)
        needed = (
            (body.resources.cpu_units, body.resources.memory_mib)
            if body.resources
            else (application.cpu_units, application.memory_mb)
        )
        for host in filter(None, map(hosts.get, body.private_host_ids)):
            cpu, memory = self._free_resources(host)
            if host.status == "ACTIVE" and needed[0] <= cpu and needed[1] <= memory:
                return self._deploy(body, host)
        return self._deploy(body, None)

    def _deploy(self, request: DeployRequest, host: PrivateHost | None) -> Reply:
        application = self._find_application(request)
        self._remove_expired()
        request_id = secrets.token_hex(6)
        numbers: tuple[int, ...] = ()
        problem = ""
        most = self.settings.max_deployments
        if most is not None and len(self._live_deployments()) >= most:
            problem = f"No capacity: max_deployments={most} reached"
        else:
            try:
                numbers = self._ports.allocate(len(application.ports))
            except NoFreePort as nothing:
                problem = str(nothing)
        fleets = {one.host_id: fleet.name for fleet in self._fleets.values() for one in fleet.hosts}
        now = datetime.now(UTC)
        deployment = LocalDeployment(
            request_id=request_id,
            application=application,
            request=request,
            location=CITIES[host.city] if host else self._locations.nearest(request.users),
            fleet_name=fleets[host.host_id] if host else None,
            host=host,
            port_numbers=dict(
                zip((port.name for port in application.ports), numbers, strict=False)
            ),
            fqdn=self.settings.fqdn.replace("{request_id}", request_id),
            base_url=self.base_url,
            secrets=Secrets(
                access_point_id=100000 + secrets.randbelow(900000),
                delete_token=secrets.token_hex(16),
                context_token=secrets.token_hex(16),
            ),
            machine=self._machine,
            timings=self.settings.timings,
            send_webhook=self._send_webhook,
            tags={name: Tag(name=name, create_time=now, last_updated=now) for name in request.tags},
        )
        self.deployments[request_id] = deployment
        if problem:
            deployment.fail(problem)
        self._spawn(self._run(deployment, numbers))
        if problem:
            raise Unprocessable(problem, request_id=request_id)
        return 202, DeployAccepted(request_id=request_id)

    async def _run(self, deployment: LocalDeployment, numbers: Iterable[int]) -> None:
        try:
            await deployment.run()
        finally:
            self._ports.release(tuple(numbers))
            self._terminated_at[deployment.request_id] = loop_time()

    @property
    def deployable(self) -> tuple[str, ...]:
        """What can be deployed: application and version, such as `arena v1`."""
        return tuple(f"{name} {version}" for name, version in sorted(self._applications))

    def _find_application(self, request: DeployRequest) -> Application:
        application = self._applications.get((request.application, request.version))
        if application is None or not application.is_active:
            raise BadRequest(
                "Invalid Application or Application Version. No deployment has been created"
                f" (the emulator has {', '.join(self.deployable) or 'none'})"
            )
        return application

    # ── read ─────────────────────────────────────────────────────────────────────────────────────

    async def get_deployment(self, *, request_id: str, hidden: float = 0.0) -> Reply:
        """Returns the status of a deployment, from `hidden` seconds after its deploy on."""
        return 200, self._find(request_id, hidden).deployment()

    async def list_deployments(
        self,
        *,
        query: str | None = None,
        page: str | None = None,
        limit: str | None = None,
        hidden: float = 0.0,
    ) -> Reply:
        """Returns the rows of deployments that are not TERMINATED and pass the filters.

        A deployment is listed from `hidden` seconds after its deploy on.
        """
        if query is not None and not self.settings.list_accepts_filters:
            raise BadRequest("query is not supported")
        wanted = parse_list_query(query)
        chosen = [
            one
            for one in self._live_deployments(ids_in(wanted.filters))
            if one.age >= hidden
            and (self.settings.list_includes_errors or one.status is not Status.ERROR)
            and all(passes_filter(one, condition) for condition in wanted.filters)
        ]
        for order in reversed(wanted.order_by):
            if order.field == "created_at":  # deployments have no session sockets here
                chosen.sort(key=lambda one: one.created_at, reverse=order.order == "desc")
        size = min(parse_positive("limit", limit, _DEFAULT_PAGE_SIZE), _MAX_PAGE_SIZE)
        number = parse_positive("page", page, 1)
        rows = chosen[(number - 1) * size : number * size]
        return 200, DeploymentPage(
            data=tuple(one.row(with_status=self.settings.list_has_status) for one in rows),
            total_count=len(chosen),
            pagination=pagination(number, size, len(chosen)),
        )

    async def list_locations(
        self,
        *,
        app: str | None = None,
        version: str | None = None,
        type: str | None = None,
        tags: str | None = None,
    ) -> Reply:
        """Returns the cities. Each of them runs every application."""
        known = {name for pair in self._applications for name in (pair, (pair[0], None))}
        if app is not None and (app, version) not in known:
            raise BadRequest("Invalid Application or Application Version")
        labels = (LocationTag(key="emulated", value="true"),) if tags == "true" else ()
        return 200, LocationPage(
            locations=tuple(
                attrs.evolve(city, type="standard", tags=labels)
                for city in CITIES.values()
                if type in {None, "standard"}
            ),
        )

    async def get_container_logs(self, *, request_id: str) -> Reply:
        """Returns what the process has written."""
        deployment = self._find(request_id)
        if deployment.status is Status.TERMINATED:
            raise NotFound(f"The logs of {request_id} are gone: it is terminated")
        return 200, deployment.logs()

    async def get_metrics(
        self,
        *,
        request_id: str,
        start_time: str | None = None,
        end_time: str | None = None,
        steps: str | None = None,
        raw: str | None = None,
    ) -> Reply:
        """Returns how a deployment has used this machine."""
        deployment = self._find(request_id)
        start, end = parse_time("start_time", start_time), parse_time("end_time", end_time)
        if start and end and end <= start:
            raise Unprocessable("end_time must be after start_time")
        if steps is not None and steps not in STEPS:
            raise Unprocessable(f"steps is one of {', '.join(STEPS)}")
        if raw not in {None, "true", "false"}:
            raise Unprocessable("raw is true or false")
        step = None if raw == "true" else STEPS[steps or "30s"]
        return 200, deployment.samples.series(start=start, end=end, step=step)

    # ── stop ─────────────────────────────────────────────────────────────────────────────────────

    async def stop_deployment(
        self,
        *,
        request_id: str,
        container_log_storage: str | None = None,  # noqa: ARG002 - the emulator has no storage
    ) -> Reply:
        """Stops a deployment: 200 if it ends now, 202 if it ends once it is READY or in ERROR."""
        deployment = self._find(request_id)
        if deployment.status is Status.TERMINATED:
            raise Gone(f"Instance {request_id} is already terminated")
        summary = deployment.deployment()
        deployment.stop()
        if not summary.current_status.is_ready and not summary.current_status.is_terminal:
            return 202, Stopped(message=f"{request_id} - Delete request will be processed soon")
        return 200, Stopped(
            message=f"Instance {request_id} will be deleted", deployment_summary=summary
        )

    async def stop_self(
        self,
        *,
        request_id: str,
        access_point_id: str,
        token: str,
        container_log_storage: str | None = None,
    ) -> Reply:
        """Stops the deployment that sends the call; its token identifies it."""
        deployment = self._find(request_id)
        own = deployment.secrets
        if not hmac.compare_digest(own.delete_token.encode(), token.encode(errors="replace")):
            raise Unauthorized("The token is not the one of this deployment")
        if access_point_id != str(own.access_point_id):
            raise self._unknown_id_error()
        return await self.stop_deployment(
            request_id=request_id, container_log_storage=container_log_storage
        )

    async def bulk_stop(self, *, body: StopFilters) -> Reply:
        """Stops the deployments that match every filter."""
        chosen = [
            one
            for one in self._live_deployments()
            if one.status is not Status.TERMINATING
            and all(matches_stop_filter(one, condition) for condition in body.filters)
        ]
        for deployment in chosen:
            deployment.stop()
        return 202, BulkStop(
            processable=tuple(DeployAccepted(request_id=one.request_id) for one in chosen)
        )

    # ── private fleets ───────────────────────────────────────────────────────────────────────────

    async def list_fleet_hosts(self, *, fleet_name: str) -> Reply:
        """Returns the hosts of a fleet, with their free resources."""
        fleet = self._fleets.get(fleet_name)
        if fleet is None:
            raise BadRequest(f"There is no private fleet {fleet_name!r}")
        hosts = tuple(self._fleet_host(fleet.name, host) for host in fleet.hosts)
        if self.settings.host_shape == "pin":
            return 200, HostPage(data=hosts)
        count = len(hosts)
        return 200, HostPage(
            data=hosts, total_count=count, pagination=pagination(1, max(1, count), count)
        )

    def _fleet_host(self, fleet_name: str, host: PrivateHost) -> FleetHost:
        city = CITIES[host.city]
        cpu, memory = self._free_resources(host)
        point = Centroid(
            label=fleet_name,
            latitude=city.latitude,
            longitude=city.longitude,
            radius_km=700,
            radius_strategy=1 if self.settings.host_shape == "pin" else None,
            cpu_cores=host.cpu_units // 1024,
            memory_gb=host.memory_mb // 1024,
            clock_speed_ghz=2,
            desired_host_count=len(self._fleets[fleet_name].hosts),
        )
        described = FleetHost(
            host_id=host.host_id,
            status=host.status,
            ip_address=PUBLIC_IP,
            latitude=city.latitude,
            longitude=city.longitude,
            city=city.city,
            country=city.country,
            continent=city.continent,
            allocated_cpu_units=host.cpu_units - cpu,
            allocated_memory_mb=host.memory_mb - memory,
            allocatable_cpu_units=cpu,
            allocatable_memory_mb=memory,
            created_at=self._created_at,
            updated_at=self._created_at,
        )
        if self.settings.host_shape == "pin":
            return attrs.evolve(described, pin=point)
        return attrs.evolve(
            described,
            centroid=point,
            fleet_host_specifications=HostSpecifications(
                cpu_units=host.cpu_units, memory_mb=host.memory_mb, base_clock_speed_mhz=2000
            ),
        )

    def _private_hosts(self) -> dict[str, PrivateHost]:
        return {host.host_id: host for fleet in self._fleets.values() for host in fleet.hosts}

    def _free_resources(self, host: PrivateHost) -> tuple[int, int]:
        """Returns the free CPU units and megabytes of a host."""
        on_it = [one for one in self._live_deployments() if one.host is host]
        cpu = host.cpu_units - sum(one.cpu_units for one in on_it)
        return cpu, host.memory_mb - sum(one.memory_mb for one in on_it)

    # ── tags ─────────────────────────────────────────────────────────────────────────────────────

    async def list_tags(self, *, request_id: str) -> Reply:
        """Returns the tags of a deployment."""
        tags = tuple(self._find(request_id).tags.values())
        return 200, TagPage(
            tags=tags,
            count=len(tags),
            total_count=len(tags),
            pagination=pagination(1, max(1, len(tags)), len(tags)),
        )

    async def get_tag(self, *, request_id: str, tag_name: str) -> Reply:
        """Returns one tag of a deployment."""
        return 200, self._find_tag(request_id, tag_name)

    async def create_tag(self, *, request_id: str, body: TagName) -> Reply:
        """Adds a tag to a deployment. The environment of its process stays as it was."""
        tags = self._find(request_id).tags
        if body.name in tags:
            raise Conflict(f"Tag {body.name} exists already")
        if len(tags) >= _MAX_TAGS:
            raise BadRequest(f"A deployment has {_MAX_TAGS} tags at most")
        now = datetime.now(UTC)
        tags[body.name] = Tag(name=body.name, create_time=now, last_updated=now)
        return 200, tags[body.name]

    async def rename_tag(self, *, request_id: str, tag_name: str, body: TagName) -> Reply:
        """Renames a tag."""
        tag = self._find_tag(request_id, tag_name)
        tags = self.deployments[request_id].tags
        if body.name in tags and body.name != tag_name:
            raise Conflict(f"Tag {body.name} exists already")
        renamed = attrs.evolve(tag, name=body.name, last_updated=datetime.now(UTC))
        in_order = [renamed if one is tag else one for one in tags.values()]
        tags.clear()
        tags.update((one.name, one) for one in in_order)
        return 200, renamed

    async def delete_tag(self, *, request_id: str, tag_name: str) -> Reply:
        """Removes a tag."""
        self._find_tag(request_id, tag_name)
        del self.deployments[request_id].tags[tag_name]
        return 204, None

    def _find_tag(self, request_id: str, name: str) -> Tag:
        tag = self._find(request_id).tags.get(name)
        if tag is None:
            raise NotFound(f"Tag {name} not found")
        return tag

    # ── find ─────────────────────────────────────────────────────────────────────────────────────

    def _find(self, request_id: str, hidden: float = 0.0) -> LocalDeployment:
        self._remove_expired()
        deployment = self.deployments.get(request_id)
        if deployment is None or deployment.age < hidden:
            raise self._unknown_id_error()
        return deployment

    def _unknown_id_error(self) -> BadRequest | NotFound:
        kind = NotFound if self.settings.unknown_id_status == 404 else BadRequest  # noqa: PLR2004 - an HTTP status
        return kind(_UNKNOWN_ID_TEXT)

    def _live_deployments(self, named: frozenset[str] | None = None) -> list[LocalDeployment]:
        """Returns the deployments that are not TERMINATED, oldest first.

        Args:
            named: only those of these ids; None for all.
        """
        if named is None:
            candidates: Iterable[LocalDeployment] = self.deployments.values()
        else:  # a list request by ids must not go through thousands
            known = (self.deployments[name] for name in named if name in self.deployments)
            candidates = sorted(known, key=lambda one: one.created_at)
        return [one for one in candidates if one.status is not Status.TERMINATED]

    def _remove_expired(self) -> None:
        before = loop_time() - self.settings.keep_terminated
        surplus = len(self._terminated_at) - _MAX_TERMINATED
        for request_id, ended_at in list(self._terminated_at.items()):  # ordered by their end
            if ended_at > before and surplus <= 0:
                break
            del self._terminated_at[request_id], self.deployments[request_id]
            surplus -= 1
