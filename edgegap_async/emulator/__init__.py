"""The API on this machine: real processes in place of the cloud's containers.

::

    async with Emulator(apps=[sample_application()]) as emulator:
        async with EdgegapClient(emulator.token, base_url=emulator.url) as client:
            ...

It serves the same constants (`endpoints`) as the client uses, from the other side, and the two
never import each other. Each module has one job: `apps` what can be deployed, `places` where,
`ports`, `processes` and `procfs` this machine, `simulation` one without processes, `environment`
what a server is told, `metrics` what it uses, `deployments` the life of one, `world` all of them,
`queries` which of them are asked for, `server` HTTP in, `deliveries` webhooks out.

It listens on loopback, for it starts the programs that its settings name, as you and with no
sandbox. Linux only.
"""

from __future__ import annotations

import importlib.util
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, Literal, Self

import attrs

from edgegap_async.api.requests import Token
from edgegap_async.api.validation import check_kind, check_list, is_loopback
from edgegap_async.errors import InvalidRequest

from .catalogue import (
    Application,
    AppPort,
    Catalogue,
    Fleet,
    PrivateHost,
    load_apps,
    sample_application,
)
from .cloud import Cloud, Settings
from .deployments import LocalDeployment, Timings
from .faults import Delay, Dribble, Drop, Fault, Faults, HangUp, Hide, Repeat, Respond, Truncate
from .server import Limits, RecordedRequest, Server
from .simulation import Simulation, is_span
from .webhook_sender import Deliveries

__all__ = [
    "AppPort",
    "Application",
    "Delay",
    "Dribble",
    "Drop",
    "Emulator",
    "Fault",
    "Faults",
    "Fleet",
    "HangUp",
    "Hide",
    "LocalDeployment",
    "PrivateHost",
    "RecordedRequest",
    "Repeat",
    "Respond",
    "Simulation",
    "Timings",
    "Truncate",
    "load_apps",
    "sample_application",
]

_DEFAULT_TIMINGS: Final = Timings()


class Emulator:
    """A small cloud on this machine, while the `async with` lasts.

    Args:
        apps: application versions, or the path of a TOML file with them (see `apps`).
        token: what a client must carry; a random one by default.
        host: a loopback address to listen on.
        port: where to listen; 0 for a free one.
        fleets: private fleets, beside those of the file.
        timings: seconds in each status.
        limits: True for the documented numbers of calls a second, False for none, or numbers by
            the name of the call, such as `{"deploy": 5}`.
        max_deployments: how many may exist, in ERROR too; a deploy beyond is answered 422.
        port_range: the ports that game servers get.
        port_rest: seconds before a port is used again.
        fqdn: what status and links say; `{request_id}` in it is replaced. The default can be
            connected to; `{request_id}.pr.edgegap.net` looks like the cloud's and can't.
        networks: where the players of some networks are, such as `{"10.0.0.0/8": (48.9, 2.4)}`.
        webhook_allow: networks that webhooks may go to, beside loopback.
        webhook_timeout: seconds that a webhook has to answer.
        sample_every: seconds between two measurements of a process.
        remember: seconds for which a deployment that is TERMINATED can still be asked for.
        unknown_status: what an unknown request_id is answered: 400 as live, 404 as documented.
        faults: what goes wrong, from the start (see `faults`); more can be added to `.faults`.
        host_shape: hosts as described until 2025-11 (`pin`) or since (`centroid`).
        row_status: False for rows of lists without `status`, which is not documented.
        list_filters: False for lists that refuse any filter.
        list_errors: False for lists that do not hold what is in ERROR.
        round_trip: seconds that a call spends on the way, at least and at most, half of them
            before it is answered: as if the cloud were far away.
        simulate: what becomes of game servers that are not really there; None to run them.

    Raises:
        InvalidRequest: a setting cannot be; the message says which and why.
    """

    def __init__(
        self,
        apps: Iterable[Application] | str | Path = (),
        *,
        token: str | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        fleets: Iterable[Fleet] = (),
        timings: Timings = _DEFAULT_TIMINGS,
        limits: Limits = True,
        max_deployments: int | None = None,
        port_range: range = range(30000, 32768),
        port_rest: float = 60.0,
        fqdn: str = "127.0.0.1",
        networks: Mapping[str, tuple[float, float]] | None = None,
        webhook_allow: Iterable[str] = (),
        webhook_timeout: float = 10.0,
        sample_every: float = 1.0,
        remember: float = 60.0,
        unknown_status: Literal[400, 404] = 400,
        host_shape: Literal["pin", "centroid"] = "pin",
        row_status: bool = True,
        list_filters: bool = True,
        list_errors: bool = True,
        round_trip: tuple[float, float] = (0.0, 0.0),
        simulate: Simulation | None = None,
        faults: Iterable[Fault] = (),
    ) -> None:
        for package in ("psutil", "iptocc"):
            if importlib.util.find_spec(package) is None:
                raise InvalidRequest(
                    f"the emulator needs {package}: pip install 'edgegap-async[emulator]'"
                )
        check_kind("simulate", simulate, Simulation)
        check_kind("timings", timings, Timings)
        check_kind("port", port, int)
        check_kind("max_deployments", max_deployments, int)
        if unknown_status not in {400, 404} or host_shape not in {"pin", "centroid"}:
            raise InvalidRequest("unknown_status is 400 or 404, and host_shape pin or centroid")
        if not 0 <= port <= 65535:  # noqa: PLR2004 - what a port number can be
            raise InvalidRequest(f"port is a number from 0 to 65535, not {port}")
        if max_deployments is not None and max_deployments < 0:
            raise InvalidRequest(f"max_deployments is a number from 0 on, not {max_deployments}")
        if not is_loopback(host):
            raise InvalidRequest(f"host is a loopback address such as 127.0.0.1, not {host!r}")
        if isinstance(apps, str | Path):
            catalogue = load_apps(apps)
        else:
            check_list("apps", apps)
            applications = tuple(apps)
            for app in applications:
                check_kind("each of apps", app, Application)
            catalogue = Catalogue(applications=applications)
        self._catalogue = attrs.evolve(catalogue, fleets=(*catalogue.fleets, *fleets))
        self._settings = Settings(
            timings=timings,
            ports=port_range,
            port_rest=port_rest,
            max_deployments=max_deployments,
            fqdn=fqdn,
            networks=dict(networks or {}),
            sample_every=sample_every,
            remember=remember,
            unknown_status=unknown_status,
            host_shape=host_shape,
            row_status=row_status,
            list_filters=list_filters,
            list_errors=list_errors,
            simulation=simulate,
        )
        self._host = host
        self._port = port
        self._limits = limits
        if not is_span(round_trip):
            raise InvalidRequest(
                f"round_trip is (at least, at most) in seconds, not {round_trip!r}"
            )
        self._round_trip = round_trip
        check_list("faults", faults)
        self.faults = Faults(faults)
        """What still goes wrong."""
        self._deliveries = Deliveries(webhook_allow, timeout=webhook_timeout, faults=self.faults)
        self._cloud: Cloud | None = None
        self._server: Server | None = None
        secret = Token(secrets.token_urlsafe(24) if token is None else token, scheme="token")
        self.token = secret.header["Authorization"].partition(" ")[2]
        """What a client must carry, as `EdgegapClient` takes it."""

    async def start(self) -> None:
        """Begin to listen. `async with` does it for you.

        Raises:
            OSError: the port is taken.
        """
        if self._cloud is not None:
            raise InvalidRequest("the emulator was started before: make another")
        try:
            self._cloud = Cloud(
                self._catalogue, self._settings, announce=self._deliveries.send, base_url=""
            )
            self._server = Server(
                self._cloud,
                token=self.token,
                limits=self._limits,
                faults=self.faults,
                round_trip=self._round_trip,
            )
            self._port = await self._server.start(self._host, self._port)
        except BaseException:
            await self.close()
            raise
        self._cloud.base_url = self.url

    async def close(self) -> None:
        """End every process, and stop listening. Twice is fine.

        Raises:
            ExceptionGroup: something failed inside that should not have.
        """
        try:
            if self._server is not None:
                await self._server.close()
        finally:
            try:
                if self._cloud is not None:
                    await self._cloud.close()
            finally:
                await self._deliveries.close()
        failures: list[BaseException] = []
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
        """Where it answers: `http://127.0.0.1:PORT`; once it is started.

        Raises:
            InvalidRequest: it is not.
        """
        if self._server is None:
            raise InvalidRequest("the emulator is not started: use it as `async with Emulator(…)`")
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    @property
    def cloud(self) -> Cloud:
        """What exists in it; once it is started."""
        if self._cloud is None:
            raise InvalidRequest("the emulator is not started: use it as `async with Emulator(…)`")
        return self._cloud

    @property
    def under_way(self) -> int:
        """How many calls have come and are not answered yet."""
        return 0 if self._server is None else self._server.under_way

    @property
    def requests(self) -> list[RecordedRequest]:
        """The requests that came, oldest first."""
        return [] if self._server is None else list(self._server.requests)
