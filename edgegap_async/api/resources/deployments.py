"""The newer calls about deployments: reports, and what the program inside one reads and tags."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs

from edgegap_async.api.models import ApiResponse, Location, Port, Status, Tag
from edgegap_async.api.operations import Auth, Operation
from edgegap_async.api.requests import STRICT, RequestModel, TagName
from edgegap_async.api.validation import instance_of, text


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


@attrs.frozen(kw_only=True, eq=False, repr=False)
class DeploymentReport(RequestModel):
    """The body of a report that something is wrong with a deployment."""

    reason: str = attrs.field(validator=text(255))
    """What is wrong, 1 to 255 characters."""
    metadata: Mapping[str, object] | None = attrs.field(
        default=None,
        validator=instance_of(Mapping, type(None)),
        metadata={STRICT: "object"},
    )
    """More about it, as a JSON object; None for nothing."""


REPORT_DEPLOYMENT: Final = Operation(
    name="report_deployment",
    method="POST",
    path="/v1/deployments/{request_id}:report",
    body=DeploymentReport,
    returns=type(None),
    may_fail={400, 401, 403, 500, 503},
)
GET_CONTEXT: Final = Operation(
    name="get_context",
    method="GET",
    path="/v1/context/{request_id}/{access_point_id}",
    returns=DeploymentContext,
    may_fail={400, 401, 404, 500},
    auth=Auth.DEPLOYMENT_TOKEN,
)
CREATE_CONTEXT_TAG: Final = Operation(
    name="create_context_tag",
    method="POST",
    path="/v1/context/{request_id}/{access_point_id}/tags",
    body=TagName,
    returns=Tag,
    may_fail={400, 401, 404, 409, 500},
    auth=Auth.DEPLOYMENT_TOKEN,
)
DELETE_CONTEXT_TAG: Final = Operation(
    name="delete_context_tag",
    method="DELETE",
    path="/v1/context/{request_id}/{access_point_id}/tags/{tag_name}",
    returns=type(None),
    ok={200, 204},
    may_fail={400, 401, 404, 500},
    auth=Auth.DEPLOYMENT_TOKEN,
)
