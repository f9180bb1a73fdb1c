"""What can be deployed here: application versions, and the private fleets they may run on.

From code, or from a TOML file::

    [[applications]]
    name = "arena"
    version = "v1"
    argv = ["{python}", "server.py", "--port", "{port:game}"]
    ports = [{ name = "game", protocol = "UDP" }]
    environment = { MODE = "ranked" }
    hidden_environment = { DB_PASSWORD = "…" }
    max_duration = 60

    [[fleets]]
    name = "alpha"

    [[fleets.hosts]]
    host_id = "alpha-1"
    city = "Montreal"

Where the cloud runs an image, this runs `argv`. `{port:NAME}` in it becomes the number of a
declared port, `{python}` this Python. The API has names for the other settings, and they mean here
what they mean there; only `restart_policy` has another default, for a developer wants to see the
crash and not the server that came back.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import attrs

from edgegap_async.api.codec import dumps, read_request
from edgegap_async.api.requests import EnvironmentVariable
from edgegap_async.api.validation import Validator, check_segment, field_name, number, one_of
from edgegap_async.errors import InvalidRequest

__all__ = [
    "AppPort",
    "Application",
    "Catalogue",
    "Fleet",
    "PrivateHost",
    "load_apps",
    "sample_application",
]


_PLACE: Final = re.compile(r"\{port:([^{}]*)\}")
_MAX_NAME: Final = 64  # characters; the API documents this maximum for names of versions
_MAX_NUMBER: Final = 1e9  # no setting means more, and a file may say `inf`


def _name(self: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    check_segment(field_name(self, attribute), value, _MAX_NAME)


def _at_least(lowest: float) -> Validator:
    return number(least=lowest, most=_MAX_NUMBER, optional=True)


def _twice(names: Iterable[object]) -> object:
    seen: set[object] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


@attrs.frozen
class AppPort:
    """A port that an application version opens."""

    name: str = attrs.field(validator=_name)
    protocol: str = attrs.field(
        default="UDP", validator=one_of("UDP", "TCP", "TCP/UDP", "HTTP", "HTTPS", "WS", "WSS")
    )
    to_check: bool = True
    """Whether READY waits until the game server has bound it."""
    tls_upgrade: bool = False
    """Repeated in answers. Nothing here adds TLS."""

    @property
    def kinds(self) -> frozenset[Literal["udp", "tcp"]]:
        """What sockets it takes."""
        if self.protocol == "TCP/UDP":
            return frozenset({"udp", "tcp"})
        return frozenset({"udp"}) if self.protocol == "UDP" else frozenset({"tcp"})


def _texts(values: Iterable[str]) -> tuple[str, ...]:
    return () if isinstance(values, str) else tuple(values)


def _ports(values: Iterable[AppPort]) -> tuple[AppPort, ...]:
    return tuple(values)


@attrs.frozen(kw_only=True)
class Application:
    """One version of an application: what a deploy of it starts here, and its limits."""

    name: str = attrs.field(validator=_name)
    version: str = attrs.field(validator=_name)
    argv: tuple[str, ...] = attrs.field(converter=_texts)
    ports: tuple[AppPort, ...] = attrs.field(default=(), converter=_ports)
    environment: Mapping[str, str] = attrs.field(factory=dict)
    hidden_environment: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    directory: str | None = None
    """Where it starts; without one in an empty home of its own. In a file: relative to the file,
    and the file's own directory by default."""
    is_active: bool = True
    max_duration: float = attrs.field(default=1440, validator=_at_least(-1))
    """Minutes from READY to the end; -1 for no end."""
    time_to_deploy: float = attrs.field(default=30, validator=_at_least(0))
    """Seconds that it may take to bind its ports. In the cloud: to pull its image."""
    termination_grace_period_seconds: float = attrs.field(default=5, validator=_at_least(0))
    restart_policy: str = attrs.field(
        default="never", validator=one_of("always", "never", "on_failure")
    )
    """What follows when it exits by itself. In the cloud the default is `always`."""
    cpu_units: int = attrs.field(default=256, validator=_at_least(1))
    """1024 is one virtual CPU. Told to the server and taken from a private host, not enforced."""
    memory_mb: int = attrs.field(default=512, validator=_at_least(1))
    """As `cpu_units`."""
    memory_limit_mb: int | None = attrs.field(default=None, validator=_at_least(1))
    """Address space that a process may have; enforced."""
    cpu_limit_seconds: int | None = attrs.field(default=None, validator=_at_least(1))
    """Computing time that a process may use in its life; enforced."""

    def __attrs_post_init__(self) -> None:
        what = f"application {self.name!r} version {self.version!r}"
        if not all(isinstance(part, str) for part in self.argv) or not any(self.argv[:1]):
            raise InvalidRequest(f"{what}: argv is a list of texts, the program first")
        names = [port.name for port in self.ports]
        twice = _twice(names)
        if twice is not None:
            raise InvalidRequest(f"{what}: two ports are named {twice!r}")
        for part in self.argv:
            for name in _PLACE.findall(part):
                if name not in names:
                    raise InvalidRequest(
                        f"{what}: argv has {{port:{name}}}, and no port has that name"
                    )
        for key, value in {**self.environment, **self.hidden_environment}.items():
            EnvironmentVariable(key, value)

    def command(self, ports: Mapping[str, int]) -> list[str]:
        """The argument list, with the numbers of the ports in their places."""
        return [
            _PLACE.sub(lambda place: str(ports[place[1]]), part.replace("{python}", sys.executable))
            for part in self.argv
        ]


@attrs.frozen(kw_only=True)
class PrivateHost:
    """A machine of a private fleet. Here it is a share of this machine, by name."""

    host_id: str = attrs.field(validator=_name)
    status: str = attrs.field(default="ACTIVE", validator=one_of("ACTIVE", "PENDING"))
    """Only an ACTIVE one takes deployments."""
    city: str = "Montreal"
    """One of the emulator's cities."""
    cpu_units: int = attrs.field(default=4096, validator=_at_least(1))
    memory_mb: int = attrs.field(default=8192, validator=_at_least(1))


def _hosts(values: Iterable[PrivateHost]) -> tuple[PrivateHost, ...]:
    return tuple(values)


@attrs.frozen(kw_only=True)
class Fleet:
    """A private fleet."""

    name: str = attrs.field(validator=_name)
    hosts: tuple[PrivateHost, ...] = attrs.field(default=(), converter=_hosts)


@attrs.frozen(kw_only=True)
class Catalogue:
    """All that can be deployed, and where to."""

    applications: tuple[Application, ...] = ()
    fleets: tuple[Fleet, ...] = ()

    def __attrs_post_init__(self) -> None:
        unique: dict[str, Iterable[object]] = {
            "applications have the name and version": [
                (one.name, one.version) for one in self.applications
            ],
            "fleets have the name": [fleet.name for fleet in self.fleets],
            "hosts have the id": [host.host_id for fleet in self.fleets for host in fleet.hosts],
        }
        for what, names in unique.items():
            twice = _twice(names)
            if twice is not None:
                raise InvalidRequest(f"two {what} {twice!r}")


def load_apps(path: str | Path) -> Catalogue:
    """The applications and fleets of a TOML file.

    Raises:
        InvalidRequest: it cannot be read, or something in it is unknown or wrong; says where.
    """
    folder = Path(path).resolve().parent
    try:
        tables = tomllib.loads(Path(path).read_text("utf-8"))
        catalogue = Catalogue(
            applications=tuple(
                attrs.evolve(one, directory=str(folder / (one.directory or ".")))
                for one in _read_each(tables.pop("applications", []), "applications", Application)
            ),
            fleets=tuple(_read_each(tables.pop("fleets", []), "fleets", Fleet)),
        )
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as problem:
        raise InvalidRequest(f"{path}: {problem}") from None
    except InvalidRequest as problem:
        raise InvalidRequest(f"{path}: {problem.message}") from None
    if tables:
        raise InvalidRequest(f"{path}: {', '.join(tables)}: there is only applications and fleets")
    return catalogue


Model = TypeVar("Model")


def _read_each(tables: object, where: str, kind: type[Model]) -> list[Model]:
    if not isinstance(tables, list):
        raise InvalidRequest(f"{where} is written [[{where}]], once for each")
    models: list[Model] = []
    for position, table in enumerate(tables):
        try:
            # Through JSON, for requests are read strictly already.
            models.append(read_request(kind, dumps(table)))
        except (InvalidRequest, TypeError) as problem:
            why = str(problem).replace("$.", "").replace(" @ $", "")
            raise InvalidRequest(f"{where}[{position}]: {why}") from None
    return models


def sample_application(*options: str, name: str = "arena", version: str = "v1") -> Application:
    """A small real game server that ships with the emulator: UDP, on the port `game`.

    Args:
        options: of `game_server.py`, which make it misbehave, such as `"--crash-after", "1"`.
        name: of the application.
        version: of the application.
    """
    program = Path(__file__).with_name("game_server.py")
    return Application(
        name=name,
        version=version,
        argv=("{python}", "-I", str(program), "{port:game}", *options),
        ports=(AppPort("game", "UDP"),),
    )
