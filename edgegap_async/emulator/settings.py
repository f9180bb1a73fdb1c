"""How the emulated cloud behaves: `Settings`, with a check of each value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final, Literal

import attrs
from attrs.validators import optional

from edgegap_async.api.validation import (
    check_kind,
    check_number,
    field_name,
    instance_of,
    number,
    one_of,
    text,
)
from edgegap_async.errors import InvalidRequest

from .container_engine import check_url
from .environment import PUBLIC_IP
from .locations import CITIES, LocationFinder, Point
from .simulation import Simulation
from .timings import Timings

_MAX_PORT: Final = 65535
_MAX_HOST_NAME: Final = 253  # characters; the maximum of the DNS


def _ports(self: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    # An empty range is valid: each deploy of a server with a port is then answered 422.
    if not isinstance(value, range) or any(
        not 1 <= port <= _MAX_PORT for port in (*value[:1], *value[-1:])
    ):
        raise InvalidRequest(
            f"{field_name(self, attribute)} must be a range of ports from 1 to {_MAX_PORT}, such as"
            f" range(30000, 32768), not {value!r}"
        )


def _locations(self: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    del self, attribute
    LocationFinder(value)


def _capacities(self: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    what = field_name(self, attribute)
    check_kind(what, value, Mapping)
    for city, most in value.items():
        if city not in CITIES:
            raise InvalidRequest(f"{what}: {city!r} is no city here; there are {', '.join(CITIES)}")
        check_number(f"{what}: {city}", most, least=0, whole=True, optional=False)


def _engine(self: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    del self, attribute
    check_url(value)


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
    host: str = attrs.field(default=PUBLIC_IP, validator=instance_of(str))
    """The address of this machine on which ports of game servers are forwarded or published."""
    engine: str | None = attrs.field(default=None, validator=optional(_engine))
    """URL of the container engine for applications with an image; None for this machine's."""
    fqdn: str = attrs.field(default=PUBLIC_IP, validator=text(_MAX_HOST_NAME))
    """Host name in statuses and links; `{request_id}` in it is replaced."""
    player_locations: Mapping[str, Point] = attrs.field(factory=dict, validator=_locations)
    """Latitude and longitude of players, by network in CIDR form."""
    metrics_interval: float = attrs.field(default=1.0, validator=number(above=0))
    """Seconds between two measurements of a process."""
    keep_terminated: float = attrs.field(default=60.0, validator=number(least=0))
    """Seconds for which the API still knows a TERMINATED deployment."""
    keep_errors: float | None = attrs.field(default=600.0, validator=number(least=0, optional=True))
    """Seconds after which a deployment in ERROR ends by itself; None for never."""
    list_delay: float = attrs.field(default=0.0, validator=number(least=0))
    """Seconds after its deploy from which lists show a deployment."""
    location_capacity: Mapping[str, int] = attrs.field(factory=dict, validator=_capacities)
    """How many deployments a city can run at once, by the city's name; the others have no limit."""
    seed: int = attrs.field(default=0, validator=number(whole=True))
    """Seed of the times that are drawn from `timings`."""
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
    simulate: Simulation | None = attrs.field(
        default=None, validator=optional(instance_of(Simulation))
    )
    """Simulates game servers; None for real processes."""
