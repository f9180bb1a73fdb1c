"""The sixteen calls of the API, each described once.

From these constants the client builds URLs, bodies, results, limits and the rule for repeating;
the emulator serves the same constants from the other side. That both agree proves nothing:
`tests/reference/test_reference.py` compares the constants with the published reference.

Constants only. A fact that one call alone needs is written in its method in `resources`.
"""

from __future__ import annotations

import enum
from typing import Final, Generic, TypeVar

import attrs

from .models import (
    BulkStop,
    DeployAccepted,
    Deployment,
    DeploymentPage,
    HostPage,
    LocationPage,
    Logs,
    Metrics,
    Stopped,
    Tag,
    TagPage,
)
from .requests import DeployRequest, FleetDeployRequest, StopFilters, TagName

__all__ = [
    "BULK_STOP",
    "CREATE_TAG",
    "DELETE_TAG",
    "DEPLOY",
    "DEPLOY_TO_FLEET",
    "GET_CONTAINER_LOGS",
    "GET_DEPLOYMENT",
    "GET_METRICS",
    "GET_TAG",
    "LIST_DEPLOYMENTS",
    "LIST_FLEET_HOSTS",
    "LIST_LOCATIONS",
    "LIST_TAGS",
    "OPERATIONS",
    "RENAME_TAG",
    "STOP_DEPLOYMENT",
    "STOP_SELF",
    "Auth",
    "Operation",
    "RetrySafety",
]

Result_co = TypeVar("Result_co", covariant=True)


class RetrySafety(enum.Enum):
    """When a request may be sent again after it failed."""

    SAFE = enum.auto()
    """A second one changes nothing that the first did not."""
    ONLY_IF_NOT_SENT = enum.auto()
    """A second one may make or change a second thing: only if the first surely did nothing."""


class Auth(enum.Enum):
    """Whose token a call carries."""

    API_TOKEN = enum.auto()
    """The organization's, as `token …`."""
    DEPLOYMENT_TOKEN = enum.auto()
    """The one injected into a deployment as ARBITRIUM_DELETE_TOKEN, as it is."""


@attrs.frozen(kw_only=True, eq=False)
class Operation(Generic[Result_co]):
    """One call of the API."""

    name: str
    method: str
    path: str
    """With `{names}`; also a valid aiohttp route."""
    returns: type[Result_co]
    ok: frozenset[int]
    may_fail: frozenset[int]
    """The documented error statuses. 429 belongs to every call and is documented for none."""
    query: frozenset[str] = frozenset()
    body: type | None = None
    limit: float | None = None
    """Calls a second that the API documents for an organization, or None where it does not."""
    retry_safety: RetrySafety = RetrySafety.SAFE
    auth: Auth = Auth.API_TOKEN
    newer_path: str | None = None
    """What the path is called in later descriptions. The emulator serves both."""


DEPLOY: Final = Operation(
    name="deploy",
    method="POST",
    path="/v2/deployments",
    body=DeployRequest,
    returns=DeployAccepted,
    ok=frozenset({202}),
    may_fail=frozenset({400, 401, 422, 500}),
    limit=40,
    retry_safety=RetrySafety.ONLY_IF_NOT_SENT,
)
GET_DEPLOYMENT: Final = Operation(
    name="get_deployment",
    method="GET",
    path="/v1/status/{request_id}",
    returns=Deployment,
    ok=frozenset({200}),
    may_fail=frozenset({400, 401, 500}),
    limit=20,
)
STOP_DEPLOYMENT: Final = Operation(
    name="stop_deployment",
    method="DELETE",
    path="/v1/stop/{request_id}",
    query=frozenset({"container_log_storage"}),
    returns=Stopped,
    ok=frozenset({200, 202}),
    may_fail=frozenset({400, 401, 403, 404, 410, 500}),
)
STOP_SELF: Final = Operation(
    name="stop_self",
    method="DELETE",
    path="/v1/self/stop/{request_id}/{access_point_id}",
    query=frozenset({"container_log_storage"}),
    returns=Stopped,
    ok=frozenset({200, 202}),
    may_fail=frozenset({400, 401, 403, 404, 500}),
    auth=Auth.DEPLOYMENT_TOKEN,
)
BULK_STOP: Final = Operation(
    name="bulk_stop",
    method="POST",
    path="/v1/deployments/bulk-stop",
    body=StopFilters,
    returns=BulkStop,
    ok=frozenset({200, 202}),  # 200 until 2024
    may_fail=frozenset({400, 401, 500}),
    retry_safety=RetrySafety.ONLY_IF_NOT_SENT,  # by then the filters may match newer deployments
)
LIST_DEPLOYMENTS: Final = Operation(
    name="list_deployments",
    method="GET",
    path="/v1/deployments",
    query=frozenset({"query", "page", "limit"}),
    returns=DeploymentPage,
    ok=frozenset({200}),
    may_fail=frozenset({400, 401, 500}),
    limit=10,
)
LIST_LOCATIONS: Final = Operation(
    name="list_locations",
    method="GET",
    path="/v1/locations",
    query=frozenset({"app", "version", "type", "tags"}),
    returns=LocationPage,
    ok=frozenset({200}),
    may_fail=frozenset({400, 401, 500}),
)
GET_CONTAINER_LOGS: Final = Operation(
    name="get_container_logs",
    method="GET",
    path="/v1/deployment/{request_id}/container-logs",
    returns=Logs,
    ok=frozenset({200}),
    may_fail=frozenset({400, 401, 404, 500}),
)
GET_METRICS: Final = Operation(
    name="get_metrics",
    method="GET",
    path="/v1/metrics/deployment/{request_id}",
    query=frozenset({"start_time", "end_time", "steps", "raw"}),
    returns=Metrics,
    ok=frozenset({200}),
    may_fail=frozenset({400, 401, 404, 422, 500}),
)
DEPLOY_TO_FLEET: Final = Operation(
    name="deploy_to_fleet",
    method="POST",
    path="/v2/private-fleets:deploy",
    newer_path="/v2/private-fleets/deployments",
    body=FleetDeployRequest,
    returns=DeployAccepted,
    ok=frozenset({202}),
    may_fail=frozenset({400, 401, 422, 500}),
    limit=40,
    retry_safety=RetrySafety.ONLY_IF_NOT_SENT,
)
LIST_FLEET_HOSTS: Final = Operation(
    name="list_fleet_hosts",
    method="GET",
    path="/v2/private-fleets/{fleet_name}/hosts",
    returns=HostPage,
    ok=frozenset({200}),
    may_fail=frozenset({400, 401, 500}),
    limit=10,
)
LIST_TAGS: Final = Operation(
    name="list_tags",
    method="GET",
    path="/v1/deployments/{request_id}/tags",
    returns=TagPage,
    ok=frozenset({200}),
    may_fail=frozenset({400, 401, 404, 500}),
)
GET_TAG: Final = Operation(
    name="get_tag",
    method="GET",
    path="/v1/deployments/{request_id}/tags/{tag_name}",
    returns=Tag,
    ok=frozenset({200}),
    may_fail=frozenset({400, 401, 404, 500}),
)
CREATE_TAG: Final = Operation(
    name="create_tag",
    method="POST",
    path="/v1/deployments/{request_id}/tags",
    body=TagName,
    returns=Tag,
    ok=frozenset({200}),
    may_fail=frozenset({400, 401, 404, 409, 500}),
    retry_safety=RetrySafety.ONLY_IF_NOT_SENT,
)
RENAME_TAG: Final = Operation(
    name="rename_tag",
    method="PATCH",
    path="/v1/deployments/{request_id}/tags/{tag_name}",
    body=TagName,
    returns=Tag,
    ok=frozenset({200}),
    may_fail=frozenset({400, 401, 404, 409, 500}),
    retry_safety=RetrySafety.ONLY_IF_NOT_SENT,
)
DELETE_TAG: Final = Operation(
    name="delete_tag",
    method="DELETE",
    path="/v1/deployments/{request_id}/tags/{tag_name}",
    returns=type(None),
    ok=frozenset({204}),
    may_fail=frozenset({400, 401, 404, 500}),
)

OPERATIONS: Final[tuple[Operation[object], ...]] = (
    DEPLOY,
    GET_DEPLOYMENT,
    STOP_DEPLOYMENT,
    STOP_SELF,
    BULK_STOP,
    LIST_DEPLOYMENTS,
    LIST_LOCATIONS,
    GET_CONTAINER_LOGS,
    GET_METRICS,
    DEPLOY_TO_FLEET,
    LIST_FLEET_HOSTS,
    LIST_TAGS,
    GET_TAG,
    CREATE_TAG,
    RENAME_TAG,
    DELETE_TAG,
)
