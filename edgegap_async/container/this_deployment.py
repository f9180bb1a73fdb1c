"""The deployment that this program runs in: what it knows of itself, and what it may do."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import AsyncIterator, Mapping
from typing import Final, Self, TypeVar

import attrs

from edgegap_async.api.models import Location, Port, Tag
from edgegap_async.api.operations import STOP_SELF, Operation, RetrySafety
from edgegap_async.api.requests import TagName
from edgegap_async.api.resources.deployments import (
    CREATE_CONTEXT_TAG,
    DELETE_CONTEXT_TAG,
    GET_CONTEXT,
    DeploymentContext,
)
from edgegap_async.api.validation import check_number
from edgegap_async.api.values import Shown
from edgegap_async.errors import Conflict, Gone, InvalidRequest, NotFound
from edgegap_async.http.api_client import ApiClient
from edgegap_async.http.call import CallOptions
from edgegap_async.http.resources.deployments import check_storage

from .environment import HostBeacon, MatchmakerMatch, OwnUrl, Variables
from .idle import Activity, stopping_when_idle

Result = TypeVar("Result")

_DELETE: Final = ("ARBITRIUM_DELETE_URL", "ARBITRIUM_DELETE_TOKEN")
_CONTEXT: Final = ("ARBITRIUM_CONTEXT_URL", "ARBITRIUM_CONTEXT_TOKEN")

# A tag that is there already is no error, so a request whose answer is lost can be repeated.
_ADD_TAG: Final[Operation[Tag]] = attrs.evolve(CREATE_CONTEXT_TAG, retry_safety=RetrySafety.SAFE)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ThisDeployment(Shown):
    """The deployment that this program runs in.

    `ThisDeployment.from_environment()` reads it from the ARBITRIUM_* variables that Edgegap sets;
    it is None outside a deployment. The calls need no API token: they use tokens of the deployment,
    which no repr shows. Each call opens a connection of its own.
    """

    request_id: str
    """Identifies the deployment."""
    public_ip: str | None
    """The IP address that players connect to; None if Edgegap does not say."""
    ports: Mapping[str, Port]
    """The ports by name, or by internal number for unnamed ports."""
    location: Location | None
    """Where the deployment runs; None if Edgegap does not say."""
    tags: tuple[str, ...]
    """The tags at the start of the program. `context` has those of now."""
    host_id: str | None
    """Identifies the host; None if Edgegap does not say."""
    host_clock_mhz: int | None
    """The base clock frequency of the host's CPU, in MHz; None if Edgegap does not say."""
    cpu_units: int | None
    """The CPU of the deployment; 1024 is one vCPU. None if Edgegap does not say."""
    memory_mb: int | None
    """The memory of the deployment, in MB; None if Edgegap does not say."""
    private_fleet_id: str | None
    """The private fleet of the host; None in the public cloud."""
    beacon: HostBeacon | None
    """The beacon of the host; None without one."""
    match: MatchmakerMatch | None
    """The match that Edgegap's matchmaker has deployed the server for; None without one."""
    _self_stop: OwnUrl | None = attrs.field(repr=False, alias="self_stop")
    _context: OwnUrl | None = attrs.field(repr=False, alias="own_context")

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Self | None:
        """Returns the deployment that this program runs in; None outside a deployment.

        Outside means without ARBITRIUM_REQUEST_ID, as on a developer's machine.

        Args:
            environ: the environment; None for that of this program.
        """
        variables = Variables(os.environ if environ is None else environ)
        request_id = variables.text("ARBITRIUM_REQUEST_ID")
        if request_id is None:
            return None
        fleet = variables.text("ARBITRIUM_PRIVATE_FLEET_ID")
        tags = (variables.text("ARBITRIUM_DEPLOYMENT_TAGS") or "").split(",")
        return cls(
            request_id=request_id,
            public_ip=variables.text("ARBITRIUM_PUBLIC_IP"),
            ports=variables.ports(),
            location=variables.location(),
            tags=tuple(tag for tag in tags if tag),
            host_id=variables.text("ARBITRIUM_HOST_ID"),
            host_clock_mhz=variables.number("ARBITRIUM_HOST_BASE_CLOCK_FREQUENCY"),
            cpu_units=variables.number("ARBITRIUM_DEPLOYMENT_VCPU_UNITS"),
            memory_mb=variables.number("ARBITRIUM_DEPLOYMENT_MEMORY_MB"),
            private_fleet_id=None if fleet == "PUBLIC_CLOUD" else fleet,
            beacon=variables.beacon(),
            match=variables.match(),
            self_stop=variables.own_url(*_DELETE),
            own_context=variables.own_url(*_CONTEXT),
        )

    def internal_port(self, name: str | None = None) -> int:
        """Returns the number of the port that the game server has to bind, 1 to 65535.

        Args:
            name: the port's name in the application version; None if the version has one port.

        Raises:
            InvalidRequest: there is no such port, or Edgegap gives no number for it.
        """
        if name is None and len(self.ports) == 1:
            [name] = self.ports
        port = self.ports.get(name or "")
        if port is None or port.internal is None:
            names = ", ".join(self.ports) or "none"
            raise InvalidRequest(f"no port {name!r} in ARBITRIUM_PORTS_MAPPING; there is: {names}")
        return port.internal

    async def context(self) -> DeploymentContext:
        """Returns what the API says of this deployment now, with its present tags.

        Raises:
            InvalidRequest: ARBITRIUM_CONTEXT_URL or ARBITRIUM_CONTEXT_TOKEN is absent.
            CallError: the call failed.
        """
        return await _call(GET_CONTEXT, _given(self._context, _CONTEXT))

    async def add_tag(self, name: str) -> None:
        """Adds a tag to this deployment. A tag that it has already is no error.

        Args:
            name: the tag, 1 to 40 characters.

        Raises:
            InvalidRequest: `name` cannot be a tag, or ARBITRIUM_CONTEXT_URL or
                ARBITRIUM_CONTEXT_TOKEN is absent.
            CallError: the call failed.
        """
        with contextlib.suppress(Conflict):
            await _call(_ADD_TAG, _given(self._context, _CONTEXT), body=TagName(name))

    async def remove_tag(self, name: str) -> None:
        """Removes a tag of this deployment. A tag that it does not have is no error.

        Raises:
            InvalidRequest: `name` cannot be a tag, or ARBITRIUM_CONTEXT_URL or
                ARBITRIUM_CONTEXT_TOKEN is absent.
            CallError: the call failed.
        """
        with contextlib.suppress(NotFound):
            await _call(DELETE_CONTEXT_TAG, _given(self._context, _CONTEXT), tag_name=name)

    async def stop(self, *, container_log_storage: str | bool | None = None) -> None:
        """Asks the API to stop this deployment. SIGTERM follows, then SIGKILL after a grace time.

        A deployment that is not READY yet gets SIGTERM once it is: wait for SIGTERM, rather than
        exit.

        Args:
            container_log_storage: as for `deployments.stop`.

        Raises:
            InvalidRequest: an argument cannot be used, or ARBITRIUM_DELETE_URL or
                ARBITRIUM_DELETE_TOKEN is absent.
            CallError: the call failed, and the deployment may go on running.
        """
        check_storage(container_log_storage)
        own = _given(self._self_stop, _DELETE)
        with contextlib.suppress(Gone):
            await _call(STOP_SELF, own, query={"container_log_storage": container_log_storage})

    @contextlib.asynccontextmanager
    async def stop_when_idle(
        self, seconds: float, *, container_log_storage: str | bool | None = None
    ) -> AsyncIterator[Activity]:
        """Stops this deployment when the server has been idle for some time.

        The server runs inside the block and tells the block's `Activity` what players do: it sets
        `players`, calls `touch`, or enters `busy`. After `seconds` without activity the block asks
        the API to stop the deployment, until the API accepts it. The deployment then gets SIGTERM,
        which ends the block: what the block awaits is cancelled, and the code after the block has
        the grace time to save and to say goodbye. Any other SIGTERM ends the block, too.

        If the program handles SIGTERM itself, as `edgegap_async.run` and uvicorn do, or the block
        is not in the main thread, the block leaves SIGTERM to the program.

        Args:
            seconds: how long the server may be idle, above 0. The time starts with the block.
            container_log_storage: as for `deployments.stop`.

        Raises:
            InvalidRequest: an argument cannot be used, or ARBITRIUM_DELETE_URL or
                ARBITRIUM_DELETE_TOKEN is absent.
            CallError: the API has refused the stop for good. A stop that fails in another way is
                repeated while the server is idle, and the log says so.
        """
        check_number("seconds", seconds, above=0, optional=False)
        check_storage(container_log_storage)
        _given(self._self_stop, _DELETE)
        stop = functools.partial(self.stop, container_log_storage=container_log_storage)
        async with stopping_when_idle(stop, seconds) as activity:
            yield activity


def _given(own: OwnUrl | None, variables: tuple[str, str]) -> OwnUrl:
    if own is None:
        raise InvalidRequest(f"the call needs {' and '.join(variables)}")
    return own


async def _call(
    operation: Operation[Result],
    own: OwnUrl,
    *,
    query: Mapping[str, object] | None = None,
    body: object = None,
    **path: str,
) -> Result:
    """Makes a call with a token of this deployment."""
    path = {"request_id": own.request_id, "access_point_id": own.access_point_id, **path}
    # The platform has written the URL: where it says http, no https exists.
    async with ApiClient(base_url=own.base_url, allow_insecure=True) as client:
        options = CallOptions(token=own.token)
        return await client.call(operation, path=path, query=query, body=body, options=options)
