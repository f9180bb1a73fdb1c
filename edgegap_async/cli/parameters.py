"""The kinds of words that command lines have: players, variables, checks, durations."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import attrs
import click

import edgegap_async as sdk

if TYPE_CHECKING:
    from edgegap_async.requests import AnyUser, Check, EnvironmentVariable, VersionPortRequest

_Function = TypeVar("_Function", bound=Callable[..., Any])
_Value = TypeVar("_Value")

_UNITS: Final = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


class WordType(click.ParamType[_Value]):
    """A kind of word.

    Args:
        name: how help texts call it.
        read: returns what a word stands for. Its ValueError says why a word stands for nothing.
    """

    def __init__(self, name: str, read: Callable[[str], _Value]) -> None:
        self.name = name
        self._read = read

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> _Value:
        """Returns what a word stands for; a default that is no text stays as it is."""
        if not isinstance(value, str):
            return cast("_Value", value)  # a default, which has the type already
        try:
            return self._read(value)
        except ValueError as error:  # an InvalidRequest is one
            self.fail(str(error), param, ctx)


def _user(text: str) -> AnyUser:
    latitude, comma, longitude = text.partition(",")
    try:
        if comma:
            return sdk.GeoCoordinates(float(latitude), float(longitude))
        return sdk.IpAddress(text)
    except sdk.errors.InvalidRequest as error:
        raise ValueError(f"{text!r}: {error}") from None
    except ValueError:  # of `float`
        raise ValueError(f"{text!r} is no position such as 45.5,-73.6") from None


def _variable(text: str) -> EnvironmentVariable:
    name, equals, value = text.partition("=")
    return sdk.requests.EnvironmentVariable(name, value if equals else _of_environment(name))


def _hidden_variable(text: str) -> EnvironmentVariable:
    # A hidden value is no argument: other users of a machine see the arguments of its processes.
    name, equals, _ = text.partition("=")
    if equals:
        raise ValueError(f"set {name} in the environment, and give its name alone")
    return sdk.requests.EnvironmentVariable(name, _of_environment(name), is_hidden=True)


def _of_environment(name: str) -> str:
    if name not in os.environ:
        raise ValueError(f"{name} is not in the environment")
    return os.environ[name]


def _check(text: str) -> Check:
    kind, _, rest = text.partition(":")
    if kind == "tcp" and rest:
        return sdk.TcpConnect(rest)
    if kind == "udp" and rest:
        port, _, datagram = rest.partition(":")
        return sdk.UdpAnswer(port, datagram=(datagram or "ping").encode())
    if kind == "http" and rest:
        port, slash, path = rest.partition("/")
        return sdk.HttpGet(port, path=f"{slash}{path}" or "/")
    form = "tcp:PORT, udp:PORT[:DATAGRAM] or http:PORT[/PATH]"
    raise ValueError(f"{text!r} has not the form {form}")


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([a-z]*)", text)
    if found is None or found[2] not in _UNITS:
        raise ValueError(f"{text!r} is no duration such as 90, 90s, 5min, 2h or 1d")
    return float(found[1]) * _UNITS[found[2]]


@attrs.frozen
class ImageName:
    """The name of a container image, in the parts that the API takes."""

    repository: str
    """The host name of its registry."""
    name: str
    """Its name in the registry."""
    tag: str
    """Its tag."""


def _image(text: str) -> ImageName:
    """Returns the parts, as Docker reads them: the default registry is `docker.io`."""
    if "@" in text:
        raise ValueError(f"{text!r}: the API takes a tag, not a digest")
    first, slash, rest = text.partition("/")
    is_host = bool(slash) and ("." in first or ":" in first or first == "localhost")
    repository, path = (first, rest) if is_host else ("docker.io", text)
    name, _, tag = path.partition(":")
    if not name:
        raise ValueError(f"{text!r} is no name of an image")
    return ImageName(repository, name, tag or "latest")


def _port(text: str) -> VersionPortRequest:
    found = re.fullmatch(r"([^:]+):(\d+)/(.+)", text)
    if found is None:
        raise ValueError(f"{text!r} has not the form game:7777/udp")
    return sdk.requests.VersionPortRequest(
        name=found[1], port=int(found[2]), protocol=found[3].upper()
    )


DURATION: Final = WordType("DURATION", _seconds)
"""A number of seconds, or a number with `s`, `min` (or `m`), `h` or `d`."""
IMAGE: Final = WordType("IMAGE", _image)
"""The name of an image, `[REGISTRY/]NAME[:TAG]`."""
PORT: Final = WordType("NAME:NUMBER/PROTOCOL", _port)
"""A port of a version."""

users_option = click.option(
    "--user",
    "-u",
    "users",
    type=WordType("IP|LAT,LON", _user),
    multiple=True,
    required=True,
    help="A player, by IP address or by position in degrees north and east; repeat it for each.",
)
tags_option = click.option(
    "--tag", "-t", "tags", multiple=True, metavar="TAG", help="A tag, up to 40 characters."
)
variables_option = click.option(
    "--env",
    "-e",
    "variables",
    type=WordType("NAME[=VALUE]", _variable),
    multiple=True,
    help="A variable of the game server; NAME alone passes on the value of this environment.",
)
hidden_variables_option = click.option(
    "--hidden-env",
    "hidden_variables",
    type=WordType("NAME", _hidden_variable),
    multiple=True,
    help="As -e NAME, and the API never shows the value again.",
)
playable_option = click.option(
    "--playable",
    type=WordType("CHECK", _check),
    help="What must succeed after READY: tcp:PORT, udp:PORT[:DATAGRAM] or http:PORT[/PATH], with"
    " the name of the port.",
)
owner_option = click.option(
    "--owner",
    metavar="NAME",
    help="The name of a program; `recover` and `reap` find the deployments of an owner.",
)


def timeout_option(default: float, what: str) -> Callable[[_Function], _Function]:
    """Returns the option `--timeout`.

    Args:
        default: seconds.
        what: what has to be done in time.
    """
    return click.option(
        "--timeout",
        type=DURATION,
        default=f"{default:g}s",
        show_default=True,
        help=f"How long to wait {what}.",
    )
