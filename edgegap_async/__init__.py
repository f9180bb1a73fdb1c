"""Asyncio SDK for running game servers on Edgegap, with a local emulator.

`EdgegapClient` is where to begin; `edgegap_async.emulator` is the cloud at home.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from .api.models import (
    TRANSITIONS,
    Beacon,
    BulkStop,
    Centroid,
    CrashData,
    DeleteSchedule,
    DeployAccepted,
    Deployment,
    DeploymentPage,
    DeploymentRow,
    Endpoint,
    FleetHost,
    HostPage,
    HostSpecifications,
    Json,
    Location,
    LocationPage,
    LocationTag,
    Logs,
    Metrics,
    MetricSeries,
    MetricTotals,
    NetworkMetrics,
    Pagination,
    Paginator,
    Port,
    Session,
    Status,
    StatusChange,
    Stopped,
    Tag,
    TagPage,
)
from .api.operations import (
    OPERATIONS,
    Operation,
)
from .api.requests import (
    AnyUser,
    AnyVariables,
    DeployOptions,
    DeployRequest,
    EnvironmentVariable,
    Filter,
    FilterField,
    FilterOperator,
    FleetDeployRequest,
    GeoCoordinates,
    IpAddress,
    OrderBy,
    Resources,
    StopFilter,
    StopFilters,
    TagName,
    Token,
    User,
    Webhook,
)
from .client import EdgegapClient
from .deployments.handle import DeploymentHandle, RecoveredDeployment
from .errors import (
    BadRequest,
    BatchStopped,
    CallError,
    ClientClosed,
    Conflict,
    DeploymentError,
    DeploymentFailed,
    DeploymentTerminated,
    DryRun,
    EdgegapError,
    Forbidden,
    Gone,
    InvalidRequest,
    LimitReached,
    MaybeCreated,
    NoAnswer,
    NotAllowed,
    NotFound,
    NotPlayable,
    NotSent,
    PoolEmpty,
    RateLimited,
    Refused,
    ServerError,
    Unauthorized,
    Unprocessable,
    UnreadableAnswer,
    WaitTimedOut,
    WrongLoop,
)
from .http.api_client import ApiClient
from .http.call_options import CallOptions
from .http.guard import Guard
from .http.rate_limits import (
    Limits,
    LimitState,
    LocalPermits,
    Permits,
    Priority,
)
from .http.resources import (
    Deployments,
    Locations,
    PrivateFleets,
    Tags,
)
from .http.retries import RetryPolicy
from .http.transport import (
    VERSION as __version__,  # noqa: N811 - the name that tools look for
)
from .http.transport import Timeouts
from .observability.observer import CallObserver, ObservedCall
from .polling.poller import StatusPoller
from .polling.results import PollerStats
from .polling.schedule import PollingPolicy
from .polling.tracker import (
    WebhookSource,
    WebhookUrls,
)

if TYPE_CHECKING:
    from .batch.batch import Batch
    from .batch.plan import AnyRequest, AnyRequests, FailurePolicy, Outcome, Progress
    from .cluster import Cluster
    from .deployments.playable import Check, HttpGet, PlayableCheck, TcpConnect, UdpAnswer
    from .pool.inventory import Allocation, PoolStats
    from .pool.pool import ServerPool
    from .webhooks.receiver import WebhookEvent, WebhookReceiver, WebhookStats

__all__ = [
    "OPERATIONS",
    "TRANSITIONS",
    "Allocation",
    "AnyRequest",
    "AnyRequests",
    "AnyUser",
    "AnyVariables",
    "ApiClient",
    "BadRequest",
    "Batch",
    "BatchStopped",
    "Beacon",
    "BulkStop",
    "CallError",
    "CallObserver",
    "CallOptions",
    "Centroid",
    "Check",
    "ClientClosed",
    "Cluster",
    "Conflict",
    "CrashData",
    "DeleteSchedule",
    "DeployAccepted",
    "DeployOptions",
    "DeployRequest",
    "Deployment",
    "DeploymentError",
    "DeploymentFailed",
    "DeploymentHandle",
    "DeploymentPage",
    "DeploymentRow",
    "DeploymentTerminated",
    "Deployments",
    "DryRun",
    "EdgegapClient",
    "EdgegapError",
    "Endpoint",
    "EnvironmentVariable",
    "FailurePolicy",
    "Filter",
    "FilterField",
    "FilterOperator",
    "FleetDeployRequest",
    "FleetHost",
    "Forbidden",
    "GeoCoordinates",
    "Gone",
    "Guard",
    "HostPage",
    "HostSpecifications",
    "HttpGet",
    "InvalidRequest",
    "IpAddress",
    "Json",
    "LimitReached",
    "LimitState",
    "Limits",
    "LocalPermits",
    "Location",
    "LocationPage",
    "LocationTag",
    "Locations",
    "Logs",
    "MaybeCreated",
    "MetricSeries",
    "MetricTotals",
    "Metrics",
    "NetworkMetrics",
    "NoAnswer",
    "NotAllowed",
    "NotFound",
    "NotPlayable",
    "NotSent",
    "ObservedCall",
    "Operation",
    "OrderBy",
    "Outcome",
    "Pagination",
    "Paginator",
    "Permits",
    "PlayableCheck",
    "PollerStats",
    "PollingPolicy",
    "PoolEmpty",
    "PoolStats",
    "Port",
    "Priority",
    "PrivateFleets",
    "Progress",
    "RateLimited",
    "RecoveredDeployment",
    "Refused",
    "Resources",
    "RetryPolicy",
    "ServerError",
    "ServerPool",
    "Session",
    "Status",
    "StatusChange",
    "StatusPoller",
    "StopFilter",
    "StopFilters",
    "Stopped",
    "Tag",
    "TagName",
    "TagPage",
    "Tags",
    "TcpConnect",
    "Timeouts",
    "Token",
    "UdpAnswer",
    "Unauthorized",
    "Unprocessable",
    "UnreadableAnswer",
    "User",
    "WaitTimedOut",
    "Webhook",
    "WebhookEvent",
    "WebhookReceiver",
    "WebhookSource",
    "WebhookStats",
    "WebhookUrls",
    "WrongLoop",
    "__version__",
]

if not TYPE_CHECKING:  # else to a type checker any name would be there
    # What many programs never use is imported when it is first asked for: a quarter of it all.
    _LATER = {
        name: module
        for module, names in {
            "cluster": ["Cluster"],
            "batch.batch": ["Batch"],
            "batch.plan": ["AnyRequest", "AnyRequests", "FailurePolicy", "Outcome", "Progress"],
            "deployments.playable": [
                "Check",
                "HttpGet",
                "PlayableCheck",
                "TcpConnect",
                "UdpAnswer",
            ],
            "pool.pool": ["ServerPool"],
            "pool.inventory": ["PoolStats", "Allocation"],
            "webhooks.receiver": ["WebhookEvent", "WebhookReceiver", "WebhookStats"],
        }.items()
        for name in names
    }

    def __getattr__(name: str) -> object:
        if name not in _LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        thing = getattr(import_module(f".{_LATER[name]}", __name__), name)
        globals()[name] = thing
        return thing

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
