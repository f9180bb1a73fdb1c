"""Calls of the published page, each described once as a constant.

The client builds URLs, bodies, results, rate limits and retries from these constants, and the
emulator serves the same constants. Their agreement therefore shows nothing: the tests in
`tests/reference` compare the constants with the published reference and the newer description.

The two other calls of the page, whose many models few programs need, are in `resources.metrics` and
`resources.private_fleets`. A fact that only one call needs stands in the method of that call in
`http.resources`.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, Generic, TypeVar

import attrs

from .models import (
    BulkStop,
    DeployAccepted,
    Deployment,
    DeploymentPage,
    LocationPage,
    Logs,
    Stopped,
    Tag,
    TagPage,
)
from .requests import DeployRequest, FleetDeployRequest, StopFilters, TagName
from .values import Shown

Result_co = TypeVar("Result_co", covariant=True)


class RetrySafety(enum.Enum):
    """When the client may send a request again after it failed."""

    SAFE = enum.auto()
    """Always: a second request changes nothing beyond the first."""
    ONLY_IF_NOT_SENT = enum.auto()
    """Only if the first request never left: a second one may create or change a second object."""


class Auth(enum.Enum):
    """The token of a call's Authorization header."""

    API_TOKEN = enum.auto()
    """The token of the organization, after the word `token`."""
    DEPLOYMENT_TOKEN = enum.auto()
    """A token that only the deployment has, in ARBITRIUM_DELETE_TOKEN or ARBITRIUM_CONTEXT_TOKEN,
    with no word before it."""


def _as_method(method: str) -> str:
    return method.upper()


def _as_statuses(statuses: Iterable[int]) -> frozenset[int]:
    return frozenset(statuses)


def _safety_of_method(operation: Operation[Any]) -> RetrySafety:
    creates = operation.method in {"POST", "PATCH"}
    return RetrySafety.ONLY_IF_NOT_SENT if creates else RetrySafety.SAFE


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Operation(Shown, Generic[Result_co]):
    """One call of the API.

    For `client.call` you can describe a call that this package does not know. It keeps every rule:
    guard, rate limit, retries, what an answer of a proxy means, and secrets that are not shown.
    """

    name: str
    """The name in errors, limits and faults: verb and noun in lower case. Operations with the same
    name share a rate limit."""
    method: str = attrs.field(converter=_as_method)
    """The HTTP method, in capitals."""
    path: str
    """The path of the URL, with `{names}` of arguments; also a valid aiohttp route."""
    returns: type[Result_co]
    """The model of the answer: an attrs class, such as a subclass of `ApiResponse`, or `dict` for
    the JSON object as it came; `type(None)` for an answer without a body."""
    ok: frozenset[int] = attrs.field(default=frozenset({200}), converter=_as_statuses)
    """The HTTP statuses of success; 200 by default."""
    may_fail: frozenset[int] = attrs.field(default=frozenset(), converter=_as_statuses)
    """The error statuses that the API documents. Every call can also answer 429, undocumented."""
    query: frozenset[str] = frozenset()
    """The names of the query parameters."""
    body: type | None = None
    """The model of the request's body; None for a call without one."""
    limit: float | None = attrs.field(
        default=attrs.Factory(lambda self: LIMITS.get(self.name), takes_self=True)
    )
    """Calls a second that the API documents for an organization; None where it documents none."""
    retry_safety: RetrySafety = attrs.field(
        default=attrs.Factory(_safety_of_method, takes_self=True)
    )
    """When the client may send the request again after it failed. By default a POST or PATCH is
    repeated only if it was not sent, and all other methods always."""
    auth: Auth = Auth.API_TOKEN
    """The token of the Authorization header."""
    newer_path: str | None = None
    """The path in newer descriptions of the API, if it differs. The emulator serves both."""
    slashes: frozenset[str] = frozenset()
    """The names in the path whose values keep their slashes, such as the name of an image."""


LIMITS: Final[Mapping[str, float]] = MappingProxyType(
    {
        "deploy": 40,
        "get_deployment": 20,
        "list_deployments": 10,
        "deploy_to_fleet": 40,
        "list_fleet_hosts": 10,
    }
)
"""Calls a second that the API documents, by operation name."""
PAGES: Final = frozenset({"page", "limit"})
"""The query parameters of a list that comes in pages."""

DEPLOY: Final = Operation(
    name="deploy",
    method="POST",
    path="/v2/deployments",
    body=DeployRequest,
    returns=DeployAccepted,
    ok={202},
    may_fail={400, 401, 422, 500},
)
GET_DEPLOYMENT: Final = Operation(
    name="get_deployment",
    method="GET",
    path="/v1/status/{request_id}",
    returns=Deployment,
    may_fail={400, 401, 500},
)
STOP_DEPLOYMENT: Final = Operation(
    name="stop_deployment",
    method="DELETE",
    path="/v1/stop/{request_id}",
    query=frozenset({"container_log_storage"}),
    returns=Stopped,
    ok={200, 202},
    may_fail={400, 401, 403, 404, 410, 500},
)
STOP_SELF: Final = Operation(
    name="stop_self",
    method="DELETE",
    path="/v1/self/stop/{request_id}/{access_point_id}",
    query=frozenset({"container_log_storage"}),
    returns=Stopped,
    ok={200, 202},
    may_fail={400, 401, 403, 404, 500},
    auth=Auth.DEPLOYMENT_TOKEN,
)
BULK_STOP: Final = Operation(
    name="bulk_stop",
    method="POST",
    path="/v1/deployments/bulk-stop",
    body=StopFilters,
    returns=BulkStop,
    ok={200, 202},  # the description of 2024 has 200
    may_fail={400, 401, 500},
    retry_safety=RetrySafety.ONLY_IF_NOT_SENT,  # a repeat may match newer deployments
)
LIST_DEPLOYMENTS: Final = Operation(
    name="list_deployments",
    method="GET",
    path="/v1/deployments",
    query=frozenset({"query", "page", "limit"}),
    returns=DeploymentPage,
    may_fail={400, 401, 500},
)
LIST_LOCATIONS: Final = Operation(
    name="list_locations",
    method="GET",
    path="/v1/locations",
    query=frozenset({"app", "version", "type", "tags", "page", "limit"}),  # pages since 2026
    returns=LocationPage,
    may_fail={400, 401, 500},
)
GET_CONTAINER_LOGS: Final = Operation(
    name="get_container_logs",
    method="GET",
    path="/v1/deployment/{request_id}/container-logs",
    returns=Logs,
    may_fail={400, 401, 404, 500},
)
DEPLOY_TO_FLEET: Final = Operation(
    name="deploy_to_fleet",
    method="POST",
    path="/v2/private-fleets:deploy",
    newer_path="/v2/private-fleets/deployments",
    body=FleetDeployRequest,
    returns=DeployAccepted,
    ok={202},
    may_fail={400, 401, 422, 500},
)
LIST_TAGS: Final = Operation(
    name="list_tags",
    method="GET",
    path="/v1/deployments/{request_id}/tags",
    query=PAGES,  # since 2026
    returns=TagPage,
    may_fail={400, 401, 404, 500},
)
GET_TAG: Final = Operation(
    name="get_tag",
    method="GET",
    path="/v1/deployments/{request_id}/tags/{tag_name}",
    returns=Tag,
    may_fail={400, 401, 404, 500},
)
CREATE_TAG: Final = Operation(
    name="create_tag",
    method="POST",
    path="/v1/deployments/{request_id}/tags",
    body=TagName,
    returns=Tag,
    may_fail={400, 401, 404, 409, 500},
)
RENAME_TAG: Final = Operation(
    name="rename_tag",
    method="PATCH",
    path="/v1/deployments/{request_id}/tags/{tag_name}",
    body=TagName,
    returns=Tag,
    may_fail={400, 401, 404, 409, 500},
)
DELETE_TAG: Final = Operation(
    name="delete_tag",
    method="DELETE",
    path="/v1/deployments/{request_id}/tags/{tag_name}",
    returns=type(None),
    ok={204},
    may_fail={400, 401, 404, 500},
)
