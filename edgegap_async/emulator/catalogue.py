"""What the emulator can deploy: application versions, and the private fleets for them.

They come from code, or from a TOML file::

    [[applications]]
    name = "arena"
    version = "v1"
    argv = ["{python}", "server.py", "--port", "{port:game}"]
    ports = [{ name = "game", protocol = "UDP" }]
    environment = { MODE = "ranked" }
    hidden_environment = { DB_PASSWORD = "…" }
    max_duration = 60

    [[images]]
    image = "registry.example.com/arena"
    argv = ["{python}", "server.py", "--port", "{port:game}"]

    [[applications]]
    name = "arena"
    version = "v2"
    image = "registry.example.com/arena:v2"
    ports = [{ name = "game", protocol = "UDP", number = 7777 }]

    [[fleets]]
    name = "alpha"

    [[fleets.hosts]]
    host_id = "alpha-1"
    city = "Montreal"

The cloud runs an image; the emulator runs `argv`, or a container of `image` where a container
engine is. In `argv`, `{port:NAME}` becomes the number of a
declared port and `{python}` the path of this Python. The other settings have the API's names and
meanings. Only `restart_policy` has another default: a developer needs to see a crash, not a server
that has started again.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import attrs

from edgegap_async.api.requests import DeployRequest, EnvironmentVariable, as_strings
from edgegap_async.api.validation import (
    Validator,
    field_name,
    instance_of,
    items_of,
    number,
    one_of,
    segment,
)
from edgegap_async.errors import InvalidRequest

from .locations import CITIES
from .sandbox import Sandbox

_PORT_PLACEHOLDER: Final = re.compile(r"\{port:([^{}]*)\}")
_LIKE_A_PORT: Final = re.compile(r"\{port\b[^{}]*\}")
_IMAGE: Final = re.compile(r"[^/\s:]+(:\d+)?(/[^/\s:]+)+(:[^/\s:]+)?")
_DOCKER_IMAGE: Final = re.compile(r"[^\s/@-][^\s@]*(@sha256:[0-9a-f]{64})?")
_MAX_NUMBER: Final = 1e9  # no setting means more, and a file may say `inf`


def _at_least(lowest: float, *, optional: bool = False, whole: bool = False) -> Validator:
    return number(least=lowest, most=_MAX_NUMBER, optional=optional, whole=whole)


_NAME: Final = segment(most=64)  # characters; the API documents it for names of versions
_TEXT_OR_NONE: Final = instance_of(str, type(None))
_BOOLEAN: Final = instance_of(bool)
_MAPPING: Final = instance_of(Mapping)
_UNITS: Final = _at_least(1, whole=True)
_LIMIT: Final = _at_least(1, whole=True, optional=True)
_FILES: Final = _at_least(16, whole=True, optional=True)


def _first_duplicate(names: Iterable[object]) -> object:
    return next((name for name, count in Counter(names).items() if count > 1), None)


@attrs.frozen
class AppPort:
    """A port that an application version opens."""

    name: str = attrs.field(validator=_NAME)
    """Its name, as `endpoint(name)` and `{port:NAME}` use it; 64 characters at most."""
    protocol: str = attrs.field(
        default="UDP", validator=one_of("UDP", "TCP", "TCP/UDP", "HTTP", "HTTPS", "WS", "WSS")
    )
    """UDP, TCP, TCP/UDP, HTTP, HTTPS, WS or WSS."""
    to_check: bool = attrs.field(default=True, validator=_BOOLEAN)
    """Whether READY waits until the process has bound it."""
    tls_upgrade: bool = attrs.field(default=False, validator=_BOOLEAN)
    """Shown by the API. The emulator adds no TLS."""
    number: int | None = attrs.field(
        default=None, validator=number(least=1, most=65535, whole=True, optional=True)
    )
    """The port that the program opens, from 1 to 65535, as in the cloud: `internal` in answers. The
    emulator forwards an external port of its choice to it. None: the program opens the external
    port, of which the emulator tells it."""

    @property
    def socket_kinds(self) -> tuple[Literal["udp", "tcp"], ...]:
        """The kinds of socket that it needs."""
        if self.protocol == "TCP/UDP":
            return "tcp", "udp"
        return ("udp",) if self.protocol == "UDP" else ("tcp",)


def _check_placeholders(where: str, text: str, port_names: Collection[str]) -> None:
    for found in _LIKE_A_PORT.findall(text):
        placeholder = _PORT_PLACEHOLDER.fullmatch(found)
        if placeholder is None or placeholder[1] not in port_names:
            raise InvalidRequest(
                f"{where} has {found}: write {{port:NAME}} with the name of a port; there are"
                f" {', '.join(port_names) or 'none'}"
            )


def _filled(text: str, ports: Mapping[str, int]) -> str:
    return _PORT_PLACEHOLDER.sub(
        lambda place: str(ports[place[1]]), text.replace("{python}", sys.executable)
    )


def _check_argv(what: str, argv: object, *, has_image: bool) -> None:
    if has_image and argv == ():
        return
    words = argv if isinstance(argv, tuple) else ()
    if not all(isinstance(part, str) for part in words) or not any(words[:1]):
        raise InvalidRequest(f"{what}: argv must be a list of strings, the program first")
    if any("\0" in part for part in words):
        raise InvalidRequest(f"{what}: argv must not hold NUL: {argv!r}")


def _check_credentials(what: str, model: Application | Image) -> None:
    if (model.private_username is None) != (model.private_token is None):
        raise InvalidRequest(f"{what}: private_username and private_token belong together")


def port_names(argv: Iterable[str]) -> list[str]:
    """Returns the names of the ports that an argument list needs."""
    return [name for part in argv for name in _PORT_PLACEHOLDER.findall(part)]


def _image_name(self: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not isinstance(value, str) or not _IMAGE.fullmatch(value):
        raise InvalidRequest(
            f"{field_name(self, attribute)} must be REGISTRY/NAME or REGISTRY/NAME:TAG, such as"
            f" registry.example.com/arena:v2, not {value!r}"
        )


def split_image(name: str) -> tuple[str, str]:
    """Returns registry and name of an image, and its tag; the tag is empty if it has none."""
    repository, _, tag = name.rpartition(":")
    return (repository, tag) if repository and "/" not in tag else (name, "")


def _each(kind: type) -> Validator:
    """Returns a validator: a list of objects of one type."""

    def check(model: object, attribute: attrs.Attribute[Any], value: Any) -> None:
        items_of(field_name(model, attribute), value, kind)

    return check


# The validators refuse what is not a list, because they know the name of the field.


def _ports(values: Iterable[AppPort]) -> tuple[AppPort, ...]:
    return tuple(values) if isinstance(values, Iterable) else values


def _hosts(values: Iterable[PrivateHost]) -> tuple[PrivateHost, ...]:
    return tuple(values) if isinstance(values, Iterable) else values


@attrs.frozen(kw_only=True)
class Application:
    """One version of an application: the program that a deploy starts, and its limits.

    Raises:
        InvalidRequest: a setting has no valid value; the message says which.
    """

    name: str = attrs.field(validator=_NAME)
    """Name of the application; 64 characters at most."""
    version: str = attrs.field(validator=_NAME)
    """Name of the version; 64 characters at most."""
    argv: tuple[str, ...] = attrs.field(default=(), converter=as_strings)
    """The program and its arguments; `{port:NAME}` and `{python}` are replaced, as in the values of
    environment variables. No shell. With an `image` they take the place of its own, and may be left
    out; else they are required."""
    image: str | None = attrs.field(default=None, validator=_TEXT_OR_NONE)
    """The container image that it runs, as for `docker run`; None for a program of this machine."""
    private_username: str | None = attrs.field(default=None, validator=_TEXT_OR_NONE)
    """The name for the registry of the image; None for a public one."""
    private_token: str | None = attrs.field(default=None, validator=_TEXT_OR_NONE, repr=False)
    """The password for the registry of the image. No repr, answer or file has it."""
    ports: tuple[AppPort, ...] = attrs.field(default=(), converter=_ports, validator=_each(AppPort))
    """The ports that it opens."""
    environment: Mapping[str, str] = attrs.field(factory=dict, validator=_MAPPING)
    """Environment variables of the process."""
    hidden_environment: Mapping[str, str] = attrs.field(
        factory=dict, validator=_MAPPING, repr=False
    )
    """Environment variables whose values appear in no repr and no answer."""
    directory: str | None = attrs.field(default=None, validator=_TEXT_OR_NONE)
    """Working directory of the process; None for an empty home of its own. In a TOML file the path
    is relative to the file, whose directory is the default. With an `image`: a path in it."""
    is_active: bool = attrs.field(default=True, validator=_BOOLEAN)
    """Whether it can be deployed; else a deploy is answered 400."""
    max_duration: float = attrs.field(default=1440, validator=_at_least(-1))
    """Minutes from READY until the emulator stops it; -1 for no end."""
    time_to_deploy: float = attrs.field(default=30, validator=_at_least(0))
    """Seconds that it may take to bind its ports; then ERROR. In the cloud: to pull its image."""
    termination_grace_period_seconds: float = attrs.field(default=5, validator=_at_least(0))
    """Seconds from SIGTERM to SIGKILL."""
    restart_policy: str = attrs.field(
        default="never", validator=one_of("always", "never", "on_failure")
    )
    """Whether it starts again after an exit by itself. In the cloud the default is `always`."""
    cpu_units: int = attrs.field(default=256, validator=_UNITS)
    """CPU units, 1024 for one virtual CPU: shown to the process and taken from a private host;
    enforced for containers alone."""
    memory_mb: int = attrs.field(default=512, validator=_UNITS)
    """Megabytes of memory: shown to the process and taken from a private host; enforced for
    containers alone."""
    memory_limit_mb: int | None = attrs.field(default=None, validator=_LIMIT)
    """Megabytes of address space for a process, enforced; None for no limit. Of a container: its
    memory; None for `memory_mb`."""
    cpu_limit_seconds: int | None = attrs.field(default=None, validator=_LIMIT)
    """Seconds of CPU time for a process, enforced; None for no limit."""
    open_files_limit: int | None = attrs.field(default=4096, validator=_FILES)
    """Files and sockets that a process may have open, enforced; None for the most that the system
    allows."""
    sandbox: Sandbox = attrs.field(default="none", validator=one_of("none", "bwrap", "docker"))
    """`bwrap` runs it in bubblewrap: a read-only system, a /tmp and a home of its own, and no view
    of other processes. `docker` runs its `image`, and is what an `image` means. `none` runs it as
    any program of this user."""

    def __attrs_post_init__(self) -> None:
        what = f"application {self.name!r} version {self.version!r}"
        if self.sandbox == "docker" and self.image is None:
            raise InvalidRequest(f'{what}: sandbox = "docker" needs the image')
        if self.sandbox == "bwrap" and self.image is not None:
            raise InvalidRequest(f'{what}: an image runs in a container, not in "bwrap"')
        if self.image is not None and not _DOCKER_IMAGE.fullmatch(str(self.image)):
            raise InvalidRequest(
                f"{what}: image must be a name as for `docker run`, not {self.image!r}"
            )
        _check_argv(what, self.argv, has_image=self.image is not None)
        _check_credentials(what, self)
        names = [port.name for port in self.ports]
        twice = _first_duplicate(names)
        if twice is not None:
            raise InvalidRequest(f"{what}: two ports are named {twice!r}")
        for part in self.argv:
            _check_placeholders(f"{what}: argv", part, names)
        for key, value in {**self.environment, **self.hidden_environment}.items():
            EnvironmentVariable(key, value)
            _check_placeholders(f"{what}: environment variable {key}", value, names)

    @property
    def runs_image(self) -> bool:
        """Whether it runs as a container of its image."""
        return self.image is not None

    def resources_for(self, request: DeployRequest) -> tuple[int, int]:
        """Returns the CPU units and the megabytes of memory of a deploy: its own, or these."""
        wanted = request.resources
        if wanted is None:
            return self.cpu_units, self.memory_mb
        return wanted.cpu_units, wanted.memory_mib

    def command(self, ports: Mapping[str, int]) -> list[str]:
        """Returns the argument list with the port numbers filled in.

        Args:
            ports: the numbers of the ports that the program opens, by port name.
        """
        return [_filled(part, ports) for part in self.argv]

    def variables(self, ports: Mapping[str, int]) -> dict[str, str]:
        """Returns all environment variables with the port numbers filled in.

        Args:
            ports: as in `command`.
        """
        declared = {**self.environment, **self.hidden_environment}
        return {key: _filled(value, ports) for key, value in declared.items()}


@attrs.frozen(kw_only=True)
class Image:
    """A container image, and the program that stands for it.

    A version that a call of the API creates names an image; this says what it runs.

    Raises:
        InvalidRequest: a setting has no valid value; the message says which.
    """

    image: str = attrs.field(validator=_image_name)
    """Registry and name, such as `registry.example.com/arena`, with a tag or without one: without
    it, for each tag that has no `Image` of its own."""
    argv: tuple[str, ...] = attrs.field(default=(), converter=as_strings)
    """The program and its arguments, as in `Application`; required unless `sandbox` is `docker`."""
    private_username: str | None = attrs.field(default=None, validator=_TEXT_OR_NONE)
    """The name for the registry; None for a public image. A version of a program must have it. The
    image of a container is pulled with it if its version has none."""
    private_token: str | None = attrs.field(default=None, validator=_TEXT_OR_NONE, repr=False)
    """The password for the registry, as `private_username`. No repr, answer or file has it."""
    directory: str | None = attrs.field(default=None, validator=_TEXT_OR_NONE)
    """Working directory of the process, as in `Application`."""
    tags: tuple[str, ...] = attrs.field(default=(), converter=as_strings, validator=_each(str))
    """Tags that the container registry lists, besides that of `image` and those of versions."""
    memory_limit_mb: int | None = attrs.field(default=None, validator=_LIMIT)
    """Megabytes of address space for a process, enforced; None for no limit."""
    cpu_limit_seconds: int | None = attrs.field(default=None, validator=_LIMIT)
    """Seconds of CPU time for a process, enforced; None for no limit."""
    open_files_limit: int | None = attrs.field(default=4096, validator=_FILES)
    """Files and sockets that a process may have open, as in `Application`."""
    sandbox: Sandbox = attrs.field(default="none", validator=one_of("none", "bwrap", "docker"))
    """What it runs in, as in `Application`; `docker` runs the image itself."""

    def __attrs_post_init__(self) -> None:
        what = f"image {self.image!r}"
        _check_argv(what, self.argv, has_image=self.runs_image)
        _check_credentials(what, self)

    @property
    def runs_image(self) -> bool:
        """Whether the image itself runs, as a container."""
        return self.sandbox == "docker"


@attrs.frozen(kw_only=True)
class PrivateHost:
    """A host of a private fleet. It exists by name only: all processes run on this machine."""

    host_id: str = attrs.field(validator=_NAME)
    """Its id, as `private_host_ids` of a deploy names it."""
    status: str = attrs.field(default="ACTIVE", validator=one_of("ACTIVE", "PENDING"))
    """ACTIVE or PENDING; only an ACTIVE host gets deployments."""
    city: str = attrs.field(default="Montreal", validator=one_of(*CITIES))
    """Where it is: one of the emulator's cities."""
    cpu_units: int = attrs.field(default=4096, validator=_UNITS)
    """CPU units in all, 1024 for one virtual CPU."""
    memory_mb: int = attrs.field(default=8192, validator=_UNITS)
    """Megabytes of memory in all."""


@attrs.frozen(kw_only=True)
class Fleet:
    """A private fleet."""

    name: str = attrs.field(validator=_NAME)
    """Its name."""
    hosts: tuple[PrivateHost, ...] = attrs.field(
        default=(), converter=_hosts, validator=_each(PrivateHost)
    )
    """Its hosts."""


@attrs.frozen(kw_only=True)
class Catalogue:
    """Everything that can be deployed, and the private fleets.

    Raises:
        InvalidRequest: two of a kind have the same name, or one is of another type.
    """

    applications: tuple[Application, ...] = attrs.field(default=(), validator=_each(Application))
    """The application versions."""
    fleets: tuple[Fleet, ...] = attrs.field(default=(), validator=_each(Fleet))
    """The private fleets."""
    images: tuple[Image, ...] = attrs.field(default=(), validator=_each(Image))
    """What the images of versions stand for that calls create."""

    def __attrs_post_init__(self) -> None:
        unique: dict[str, Iterable[object]] = {
            "applications have the name and version": [
                (one.name, one.version) for one in self.applications
            ],
            "fleets have the name": [fleet.name for fleet in self.fleets],
            "images have the name": [image.image for image in self.images],
            "hosts have the id": [host.host_id for fleet in self.fleets for host in fleet.hosts],
        }
        for what, names in unique.items():
            twice = _first_duplicate(names)
            if twice is not None:
                raise InvalidRequest(f"two {what} {twice!r}")

    @property
    def has_containers(self) -> bool:
        """Whether a container engine is needed."""
        return any(one.runs_image for one in self.applications) or any(
            image.runs_image for image in self.images
        )


def sample_application(*options: str, name: str = "arena", version: str = "v1") -> Application:
    """Returns the sample game server of this package: UDP, on the port `game`.

    Args:
        options: options of `game_server.py` that make it fail, such as `"--crash-after", "1"`.
        name: name of the application.
        version: name of the version.
    """
    program = Path(__file__).with_name("game_server.py")
    return Application(
        name=name,
        version=version,
        argv=("{python}", "-I", str(program), "{port:game}", *options),
        ports=(AppPort("game", "UDP"),),
    )
