"""The emulator as one object: settings, start and end, and what came in."""

from __future__ import annotations

import asyncio
import importlib.util
import ipaddress
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Literal, Self, TypeVar, Unpack

import attrs

from edgegap_async.api.register import OPERATIONS
from edgegap_async.api.requests import Token
from edgegap_async.api.validation import (
    check_kind,
    check_list,
    check_number,
    is_loopback,
    needs_package,
)
from edgegap_async.concurrency import LoopBinding, local_servers
from edgegap_async.errors import InvalidRequest

from .catalogue import Application, Catalogue, Fleet, Image
from .clock import Clock
from .cloud import Cloud
from .connections import Deadlines
from .control import Control
from .deployments import LocalDeployment
from .expectations import Expectations
from .faults import Fault, Faults
from .http_guard import HttpGuard
from .page import Page, Sessions
from .rate_limits import RateLimits, check_limits
from .recorded_requests import RecordedRequest, RequestRecord
from .relays import LocalRelaySession
from .saved_applications import application_records, restore_applications
from .server import Server
from .settings import Settings
from .settings_file import EmulatorSettings, Problem, SettingsFile, load_file, read_file
from .simulation import Simulation
from .state import State
from .status_events import StatusEvent, StatusEvents
from .timings import Timings, is_time_range
from .webhook_sender import WebhookSender

_DEFAULT_TIMINGS: Final = Timings()
_DEFAULT_DEADLINES: Final = Deadlines()
_CHANGING: Final = tuple(operation for operation in OPERATIONS if operation.method != "GET")
_TAG_CALLS: Final = {one.name for one in _CHANGING if "tag" in one.name}
_APPLICATION_CALLS: Final = {one.name for one in _CHANGING if one.path.startswith("/v1/app")}
Part = TypeVar("Part")


class Emulator:
    """An Edgegap API on this machine, as long as the `async with` block runs.

    Args:
        apps: application versions that can be deployed, or the path of a TOML file with them.
        token: the API token that clients must send; a random one by default.
        host: the address to listen on. Any but loopback needs a `token` of your own, because a
            client that has the token can start processes.
        allowed_hosts: names by which clients reach it, as in the header `Host`, besides those of
            this machine and `host.docker.internal`: a service of Docker Compose, such as
            `["emulator"]`. IP addresses are always allowed.
        deadlines: seconds in which a client must have sent headers and body.
        port: the port to listen on; 0 for a free one.
        fleets: private fleets, besides those of the TOML file.
        images: the programs that images of versions stand for which calls create, besides those of
            the TOML file.
        timings: seconds that a deployment spends in each status.
        limits: True for the documented calls a second, False for no limit, or calls a second by
            operation: 1 or more, or None for no limit, such as `{"deploy": 5}`.
        max_deployments: how many deployments may exist, those in ERROR too; a deploy beyond is
            answered 422. None for no limit.
        port_range: the ports that game servers get.
        port_reuse_delay: seconds before a port is given to the next game server.
        engine: URL of the container engine for applications with an `image`, such as
            `unix:///run/docker.sock`; None for DOCKER_HOST, or the socket of Docker or Podman.
        fqdn: the host name in statuses and links; `{request_id}` in it is replaced. Clients can
            connect to the default, but not to `{request_id}.pr.edgegap.net`, as in the cloud.
        player_locations: latitude and longitude of players by network, in degrees, such as
            `{"10.0.0.0/8": (48.9, 2.4)}`.
        webhook_allow: networks that webhooks may be sent to, besides loopback, as CIDR.
        webhook_timeout: seconds that the receiver of a webhook has to answer.
        metrics_interval: seconds between two measurements of a process.
        keep_terminated: seconds for which the API still knows a TERMINATED deployment.
        keep_errors: seconds after which a deployment in ERROR ends by itself; None for never.
        list_delay: seconds after its deploy from which lists show a deployment.
        location_capacity: how many deployments a city can run at once, such as `{"Paris": 10}`; a
            deploy beyond goes to the next city. The others have no limit.
        seed: seed of the times that are drawn from `timings`.
        unknown_id_status: HTTP status for an unknown request_id: 400 as live, 404 as documented.
        host_shape: fields of private hosts: as until 2025-11 (`pin`) or since (`centroid`).
        list_has_status: False for list rows without the undocumented field `status`.
        list_accepts_filters: False for lists that refuse every filter.
        list_includes_errors: False for lists that omit deployments in ERROR.
        round_trip_time: seconds on the network for one call, (at least, at most), half of them on
            the way there.
        state: folder in which deployments, tags, and applications that calls have created are
            kept over restarts; None to keep nothing. What ran when the emulator ended is then in
            ERROR.
        simulate: simulates game servers instead of running them; None to run them.
        faults: scripted faults from the start; `faults.add` adds more.

    Raises:
        InvalidRequest: a setting has no valid value; the message says which, and why.
    """

    def __init__(
        self,
        apps: Iterable[Application] | str | Path = (),
        *,
        token: str | None = None,
        host: str = "127.0.0.1",
        allowed_hosts: Iterable[str] = (),
        deadlines: Deadlines = _DEFAULT_DEADLINES,
        port: int = 0,
        fleets: Iterable[Fleet] = (),
        images: Iterable[Image] = (),
        timings: Timings = _DEFAULT_TIMINGS,
        limits: RateLimits = True,
        max_deployments: int | None = None,
        port_range: range = range(30000, 32768),
        port_reuse_delay: float = 60.0,
        engine: str | None = None,
        fqdn: str = "127.0.0.1",
        player_locations: Mapping[str, tuple[float, float]] | None = None,
        webhook_allow: Iterable[str] = (),
        webhook_timeout: float = 10.0,
        metrics_interval: float = 1.0,
        keep_terminated: float = 60.0,
        keep_errors: float | None = 600.0,
        list_delay: float = 0.0,
        location_capacity: Mapping[str, int] | None = None,
        seed: int = 0,
        unknown_id_status: Literal[400, 404] = 400,
        host_shape: Literal["pin", "centroid"] = "pin",
        list_has_status: bool = True,
        list_accepts_filters: bool = True,
        list_includes_errors: bool = True,
        round_trip_time: tuple[float, float] = (0.0, 0.0),
        state: str | Path | None = None,
        simulate: Simulation | None = None,
        faults: Iterable[Fault] = (),
    ) -> None:
        has_own_token = token is not None
        secret = Token(secrets.token_urlsafe(24) if token is None else token, scheme="token")
        del token  # a traceback that shows local variables must not show it
        if importlib.util.find_spec("iptocc") is None:
            raise InvalidRequest(needs_package("the emulator", "iptocc"))
        check_number("port", port, least=0, most=65535, whole=True, optional=False)
        check_number("webhook_timeout", webhook_timeout, above=0, optional=False)
        _check_host(host, has_own_token=has_own_token)
        check_kind("deadlines", deadlines, Deadlines)
        check_list("allowed_hosts", allowed_hosts)
        file = _file_of(apps)
        check_list("fleets", fleets)
        check_list("images", images)
        self._own_fleets, self._own_images = tuple(fleets), tuple(images)
        self._catalogue = self._with_own(file.catalogue)
        self._settings = Settings(
            timings=timings,
            port_range=port_range,
            port_reuse_delay=port_reuse_delay,
            max_deployments=max_deployments,
            host=host,
            engine=engine,
            fqdn=fqdn,
            player_locations={} if player_locations is None else player_locations,
            metrics_interval=metrics_interval,
            keep_terminated=keep_terminated,
            keep_errors=keep_errors,
            list_delay=list_delay,
            location_capacity={} if location_capacity is None else location_capacity,
            seed=seed,
            unknown_id_status=unknown_id_status,
            host_shape=host_shape,
            list_has_status=list_has_status,
            list_accepts_filters=list_accepts_filters,
            list_includes_errors=list_includes_errors,
            simulate=simulate,
        )
        self._host, self._port = host, port
        self.limits: Mapping[str, float] = check_limits(limits)
        """Calls a second by operation, for those that have a limit."""
        if not is_time_range(round_trip_time):
            raise InvalidRequest(
                f"round_trip_time must be (at least, at most) in seconds, not {round_trip_time!r}"
            )
        self._round_trip_time = round_trip_time
        check_list("faults", faults)
        check_list("webhook_allow", webhook_allow)
        self._own_faults = tuple(faults)
        self._first_faults = (*file.faults, *self._own_faults)
        self.faults = Faults(self._first_faults)
        """The scripted faults that are still to happen; add more with `faults.add`."""
        self.events = StatusEvents()
        """The last 10,000 changes of status."""
        self.clock = Clock()
        """The clock of deployments: `pause`, `resume`, `await advance(seconds)`."""
        self.expectations = Expectations()
        """The calls that are expected; add some with `expectations.add`."""
        self._failures: list[BaseException] = []
        check_kind("state", state, str, Path)
        self._state_folder = state
        self._state: State | None = None
        self.webhooks = WebhookSender(webhook_allow, timeout=webhook_timeout, faults=self.faults)
        """The webhooks that were sent: the last 1,000 in `webhooks.sent`."""
        self._cloud: Cloud | None = None
        self._server: Server | None = None
        self._binding = LoopBinding("the emulator")
        self._is_closed = False
        self.token = secret.header["Authorization"].partition(" ")[2]
        """The API token that clients must send."""
        self._sessions = Sessions(self.token)
        self._guard = HttpGuard(self.token, allowed_hosts, has_session=self._sessions.allows)
        self._deadlines = deadlines

    @classmethod
    def from_file(cls, path: str | Path, **changes: Unpack[EmulatorSettings]) -> Self:
        """Returns an emulator with what a TOML file has: `[settings]` and `[[faults]]` too.

        Args:
            path: path of the file.
            changes: arguments of `Emulator`, which take the place of those of the file.

        Raises:
            InvalidRequest: something is wrong in the file, or an argument has no valid value.
        """
        file: Any = load_file(path)
        return cls(file, **{**file.settings, **changes})

    async def start(self) -> None:
        """Starts to listen. The `async with` block does this.

        Raises:
            OSError: another program has the port.
        """
        if self._cloud is not None:
            raise InvalidRequest("the emulator was started before: make another one")
        self._binding.check(asyncio.get_running_loop())
        try:
            self._cloud = self._make_cloud()
            self._server = Server(
                self._cloud,
                guard=self._guard,
                limits=self.limits,
                faults=self.faults,
                round_trip_time=self._round_trip_time,
                deadlines=self._deadlines,
                control=lambda request, body: Control(self, request, body).answer(),
                page=Page(self, self._sessions, self._guard.refuse_unauthorized),
            )
            self._server.requests.listeners += [self.expectations.count, self._save_changes]
            self._restore()
            self._port = await self._server.start(self._host, self._port)
        except BaseException:
            await self.close()
            raise
        local_servers.add(self._port, f"the emulator at {self.url}")
        self._cloud.base_url = self.url

    def _restore(self) -> None:
        """Opens the state, if there is one, and takes over what it has."""
        if self._state_folder is None:
            return
        self._state = State(self._state_folder, keep_terminated=self._settings.keep_terminated)
        records = self._state.read_applications()
        with self._state.readable():
            restore_applications(self.cloud.registry, records)
        deployments = self._state.read()
        self.events.listeners.append(self._state.save)
        for deployment in deployments:
            self.cloud.restore(deployment)

    def _save_changes(self, request: RecordedRequest) -> None:
        """Saves what a call has changed, before it is answered."""
        if self._state is None:
            return
        deployment = self.cloud.deployments.get(request.request_id or "")
        if deployment and request.operation in _TAG_CALLS:
            self._state.save(deployment)
        if request.operation in _APPLICATION_CALLS:
            self._state.save_applications(application_records(self.cloud.registry))

    def _make_cloud(self) -> Cloud:
        return Cloud(
            self._catalogue,
            self._settings,
            send_webhook=self.webhooks.send,
            on_status=self.events.add,
            clock=self.clock,
            send_session=self.webhooks.send_session,
        )

    def _with_own(self, catalogue: Catalogue) -> Catalogue:
        """Returns what a file or list has, with the fleets and images of the arguments."""
        return attrs.evolve(
            catalogue,
            fleets=(*catalogue.fleets, *self._own_fleets),
            images=(*catalogue.images, *self._own_images),
        )

    def reload(self, apps: Iterable[Application] | str | Path) -> None:
        """Replaces what can be deployed; deployments that exist keep what they have.

        Args:
            apps: application versions, or the path of a TOML file. A list leaves fleets, images
                and faults as they are; a file replaces those of the file before. Faults begin
                anew if the file has others than before.

        Raises:
            InvalidRequest: a setting has no valid value, or the emulator is not started; nothing
                is changed then.
        """
        faults = self._first_faults
        if isinstance(apps, str | Path):
            file = load_file(apps)
            catalogue = self._with_own(file.catalogue)
            faults = (*file.faults, *self._own_faults)
        else:
            check_list("apps", apps)
            catalogue = attrs.evolve(self._catalogue, applications=tuple(apps))
        self.cloud.load(catalogue)
        self._catalogue = catalogue
        if faults != self._first_faults:
            self._first_faults = faults
            self.faults.clear()
            self.faults.add(*faults)

    async def reset(self, *, keep: Iterable[str] = ()) -> None:
        """Ends every process, and sets everything as it was at the start.

        No webhook is sent. Deployments, requests, changes of status, expected calls and calls
        that count for rate limits are forgotten; the faults of the start are back.

        Args:
            keep: ids of deployments and relay sessions that stay as they are. With them the clock,
                and the applications and versions that calls have created, stay too. Default: none.

        Raises:
            InvalidRequest: the emulator is not started.
        """
        before, server = self.cloud, _started(self._server)
        self._binding.check(asyncio.get_running_loop())
        known = self.cloud.deployments.keys() | self.cloud.relay_sessions.keys()
        if kept := frozenset(keep) & known:
            self.clock.resume()
            await self.cloud.forget_others(kept)
        else:
            self.clock = Clock()
            self._cloud = server.cloud = self._make_cloud()
            self._cloud.base_url = self.url
            await before.close()
            self._failures += before.failures
        if self._state is not None:
            self._state.clear()
            self._state.save_applications(application_records(self.cloud.registry))
            for deployment in self.cloud.deployments.values():
                self._state.save(deployment)
        server.requests.clear()
        server.reset_limits()
        self.events.clear()
        self.expectations.clear()
        self.faults.clear()
        self.faults.add(*self._first_faults)

    async def close(self) -> None:
        """Ends every process and stops listening. A second call does nothing.

        Raises:
            BaseExceptionGroup: exceptions inside the emulator, which are defects of it.
            WrongLoop: the emulator was started in another event loop.
        """
        if not self._is_closed:
            self._binding.check(asyncio.get_running_loop())
        local_servers.remove(self._port)
        try:
            if self._server is not None:
                await self._server.close()
        finally:
            try:
                if self._cloud is not None:
                    await self._cloud.close()
            finally:
                await self.webhooks.close()
                if self._state is not None:
                    self._state.close()
                    self._state = None
        self._is_closed = True
        failures, self._failures = self._failures, []
        for part in (self._server, self._cloud):
            if part is not None:
                failures += part.failures
                part.failures.clear()
        if failures:
            raise BaseExceptionGroup("the emulator failed", failures)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def url(self) -> str:
        """The base URL for clients on this machine: `http://127.0.0.1:PORT`.

        Raises:
            InvalidRequest: the emulator is not started.
        """
        _started(self._server)
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._host, self._host)  # noqa: S104 - not bound
        return f"http://[{host}]:{self._port}" if ":" in host else f"http://{host}:{self._port}"

    def new_login_link(self) -> str:
        """Returns a link to the page, which logs one browser in within an hour.

        Raises:
            InvalidRequest: the emulator is not started.
        """
        return self.url + self._sessions.new_link()

    @property
    def cloud(self) -> Cloud:
        """What exists in the emulator.

        Raises:
            InvalidRequest: the emulator is not started.
        """
        return _started(self._cloud)

    @property
    def deployments(self) -> Mapping[str, LocalDeployment]:
        """Every deployment that the API knows, by request_id, oldest first.

        A TERMINATED one is among them for `keep_terminated` seconds.

        Raises:
            InvalidRequest: the emulator is not started.
        """
        return self.cloud.deployments

    @property
    def relay_sessions(self) -> Mapping[str, LocalRelaySession]:
        """The relay sessions that exist, by session_id, oldest first.

        In the cloud each of them costs until it is deleted.

        Raises:
            InvalidRequest: the emulator is not started.
        """
        return self.cloud.relay_sessions

    def live(self) -> tuple[LocalDeployment, ...]:
        """Returns the deployments that are not TERMINATED, those in ERROR too; oldest first.

        Raises:
            InvalidRequest: the emulator is not started.
        """
        return tuple(self.cloud.live())

    def history(self, request_id: str) -> tuple[StatusEvent, ...]:
        """Returns the changes of status of one deployment, oldest first.

        Args:
            request_id: its id. Only the last 10,000 changes of all deployments are known.
        """
        return self.events.of(request_id)

    @property
    def record(self) -> RequestRecord:
        """The requests that came, as they are kept.

        Raises:
            InvalidRequest: the emulator is not started.
        """
        return _started(self._server).requests

    @property
    def open_requests(self) -> int:
        """Number of requests that are not answered yet."""
        return 0 if self._server is None else self._server.open_requests

    @property
    def requests(self) -> list[RecordedRequest]:
        """The requests that came, oldest first; the last 20,000."""
        return [] if self._server is None else list(self._server.requests)


def _started(part: Part | None) -> Part:
    """Returns a part of an emulator that is started.

    Raises:
        InvalidRequest: the emulator is not started.
    """
    if part is None:
        raise InvalidRequest("the emulator is not started: use it as `async with Emulator(…)`")
    return part


def _check_host(host: object, *, has_own_token: bool) -> None:
    """Checks the address to listen on.

    Raises:
        InvalidRequest: it is no IP address, or it is reachable from elsewhere with a random token.
    """
    if isinstance(host, str) and is_loopback(host):
        return
    try:
        ipaddress.ip_address(host if isinstance(host, str) else "")
    except ValueError:
        raise InvalidRequest(
            f"host must be an IP address such as 127.0.0.1 or 0.0.0.0, not {host!r}"
        ) from None
    if not has_own_token:
        raise InvalidRequest(
            f"host={host!r} is reachable from other machines, and a client that has the token can"
            " start processes: set a token of your own"
        )


def _file_of(apps: Iterable[Application] | str | Path | SettingsFile) -> SettingsFile:
    """Returns what a file has, or a list in its place. `Emulator.from_file` has read the file."""
    if isinstance(apps, SettingsFile):
        return apps
    if not isinstance(apps, str | Path):
        check_list("apps", apps)
        return SettingsFile(Catalogue(applications=tuple(apps)))
    file = load_file(apps)
    if file.settings:
        raise InvalidRequest(
            f"{apps} has settings: use Emulator.from_file(path) in place of Emulator(path)"
        )
    return file


def check_file(path: str | Path) -> list[Problem]:
    """Returns what is wrong in a TOML file of the emulator; an empty list if nothing is.

    Args:
        path: path of the file.
    """
    file = read_file(path)
    problems = list(file.problems)
    for name, value in file.settings.items():
        try:
            _ = Emulator(**{name: value, "token": "not-a-token"})
        except InvalidRequest as problem:
            place = f"settings.{name}"
            problems.append(Problem(str(path), file.find_line(place), place, problem.message))
    return problems
