"""Asyncio SDK for running game servers on Edgegap, with a local emulator.

`EdgegapClient` is where to begin; `edgegap_async.emulator` is the cloud at home.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from .awaited import Pace
from .client import ApiClient
from .endpoints import (
    OPERATIONS,
    Operation,
)
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
from .guards import Guard
from .handles import DeploymentHandle, Found
from .lifecycle import EdgegapClient
from .limits import (
    Limits,
    LimitState,
    LocalPermits,
    Permits,
    Priority,
)
from .lookout import LookOut
from .models import (
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
from .requests import (
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
from .resources import (
    Deployments,
    Locations,
    PrivateFleets,
    Tags,
)
from .retries import RetryPolicy
from .tally import WatchStats
from .transport import (
    VERSION as __version__,  # noqa: N811 - the name that tools look for
)
from .transport import Timeouts
from .watch import (
    Signal,
    Signals,
)

if TYPE_CHECKING:
    from .cluster import Cluster
    from .fanout import Batch
    from .outcomes import AnyRequest, AnyRequests, FailurePolicy, Outcome, Progress
    from .playable import Check, HttpGet, PlayableCheck, TcpConnect, UdpAnswer
    from .pools import ServerPool
    from .shelf import PoolStats, Taking
    from .webhooks import WebhookEvent, WebhookReceiver, WebhookStats

__all__ = [
    "OPERATIONS",
    "TRANSITIONS",
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
    "Found",
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
    "LookOut",
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
    "Operation",
    "OrderBy",
    "Outcome",
    "Pace",
    "Pagination",
    "Paginator",
    "Permits",
    "PlayableCheck",
    "PoolEmpty",
    "PoolStats",
    "Port",
    "Priority",
    "PrivateFleets",
    "Progress",
    "RateLimited",
    "Refused",
    "Resources",
    "RetryPolicy",
    "ServerError",
    "ServerPool",
    "Session",
    "Signal",
    "Signals",
    "Status",
    "StatusChange",
    "StopFilter",
    "StopFilters",
    "Stopped",
    "Tag",
    "TagName",
    "TagPage",
    "Tags",
    "Taking",
    "TcpConnect",
    "Timeouts",
    "Token",
    "UdpAnswer",
    "Unauthorized",
    "Unprocessable",
    "UnreadableAnswer",
    "User",
    "WaitTimedOut",
    "WatchStats",
    "Webhook",
    "WebhookEvent",
    "WebhookReceiver",
    "WebhookStats",
    "WrongLoop",
    "__version__",
]

if not TYPE_CHECKING:  # else to a type checker any name would be there
    # What many programs never use is imported when it is first asked for: a quarter of it all.
    _LATER = {
        name: module
        for module, names in {
            "cluster": ["Cluster"],
            "fanout": ["Batch"],
            "outcomes": ["AnyRequest", "AnyRequests", "FailurePolicy", "Outcome", "Progress"],
            "playable": ["Check", "HttpGet", "PlayableCheck", "TcpConnect", "UdpAnswer"],
            "pools": ["ServerPool"],
            "shelf": ["PoolStats", "Taking"],
            "webhooks": ["WebhookEvent", "WebhookReceiver", "WebhookStats"],
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
