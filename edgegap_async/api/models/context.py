"""What the API tells a game server about its own deployment."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from .deployments import Port
from .locations import Location
from .response import ApiResponse
from .status import Status


@attrs.frozen(kw_only=True, eq=False, repr=False)
class DeploymentContext(ApiResponse):
    """What the API tells a game server about the deployment that it runs in."""

    omits_none = True

    request_id: str
    """Identifies the deployment."""
    public_ip: str | None = None
    """The IP address that players connect to."""
    status: Status | None = None
    """The status of the deployment."""
    ready: bool = False
    """Whether the deployment is READY."""
    whitelisting_active: bool = False
    """Whether only listed IP addresses can connect."""
    fqdn: str | None = None
    """The domain name that players connect to."""
    ports: Mapping[str, Port] = attrs.field(factory=dict)
    """Ports by name, or by internal number for unnamed ports."""
    location: Location | None = None
    """Where the deployment runs; None before the API has chosen a location."""
    tags: tuple[str, ...] = ()
    """The names of its tags."""
    sockets: int | None = None
    """How many users fit in, for the older matchmaking; None without it."""
    sockets_usage: int | None = None
    """How many of `sockets` are in use, for the older matchmaking; None without it."""
    is_joinable_by_session: bool = False
    """Whether the older matchmaking may add sessions."""
