"""Asyncio SDK for game servers on Edgegap, with a local emulator of Edgegap's API.

Begin with `EdgegapClient`: `client.run` deploys a server, waits until it is READY and stops it at
the end of the block; `client.deployments` and its siblings call the API directly. Programs with
many servers use `client.deploy_many` or a `ServerPool`. Every error is an `EdgegapError`.

Every public name stands here; in `edgegap_async.container`, for the program inside a deployment; in
`edgegap_async.observability`, for traces and metrics; or in `edgegap_async.emulator`, which serves
the same API on this machine. The other packages are internal: `api` describes the calls, `http`
sends them, `polling` learns the status of deployments, `deployments`, `batch` and `pool` deploy and
stop them, `webhooks` receives webhooks, `cluster` shares rate limits among programs.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .api.models import (
        TRANSITIONS,
        ApiResponse,
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
        LazyModel,
        Location,
        LocationPage,
        LocationTag,
        Logs,
        MetricRow,
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
    from .api.models.applications import (
        Application,
        ApplicationPage,
        ApplicationVersion,
        VersionDeleted,
        VersionPage,
        VersionPort,
        VersionSaved,
        VersionVariable,
    )
    from .api.models.beacons import (
        AddressLocation,
        BeaconPage,
        LocatedAddress,
        LocatedAddresses,
        LocationBeacon,
        PublicAddress,
        Region,
    )
    from .api.models.container_registry import (
        DeletionSummary,
        ImageArtifact,
        ImageTag,
        ImageTagDeleted,
        ImageTagPage,
        TagDeletion,
        TagDeletions,
    )
    from .api.models.context import DeploymentContext
    from .api.models.endpoint_storage import (
        EndpointStorage,
        EndpointStoragePage,
        PullProfile,
        PullProfileLink,
        PullProfilePage,
    )
    from .api.models.relays import (
        AuthorizedRelayUser,
        Relay,
        RelayPort,
        RelayPorts,
        RelaySession,
        RelaySessionPage,
        RelayUser,
    )
    from .api.newer_operations import OPERATIONS
    from .api.newer_requests import (
        Addresses,
        ApplicationChanges,
        ApplicationRequest,
        DeploymentReport,
        RestartPolicy,
        VersionChanges,
        VersionPortRequest,
        VersionRequest,
        VersionSettings,
    )
    from .api.operations import Operation
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
    from .api.resources.container_registry import ImageTags
    from .api.resources.endpoint_storage import (
        EndpointStorageChanges,
        EndpointStorageRequest,
        OutputFormat,
        PullProfileChanges,
        PullProfileRequest,
        SourceType,
    )
    from .api.resources.relays import (
        AnyRelayUser,
        RelayAuthorization,
        RelayRequest,
        RelayRevocation,
        RelayUserRequest,
    )
    from .batch.batch import Batch
    from .batch.plan import AnyRequest, AnyRequests, FailurePolicy, Outcome, Progress
    from .client import EdgegapClient
    from .cluster import Cluster
    from .concurrency import run
    from .deployments.handle import DeploymentHandle, RecoveredDeployment
    from .deployments.playable import (
        Check,
        HttpGet,
        PlayableCheck,
        PortCheck,
        TcpConnect,
        UdpAnswer,
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
        ImageUnavailable,
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
        RelayMaybeCreated,
        RelayNotLinked,
        RelayTimedOut,
        ServerError,
        Unauthorized,
        Unprocessable,
        UnreadableAnswer,
        WaitTimedOut,
        WebhookNotReceived,
        WrongLoop,
    )
    from .http.api_client import ApiClient
    from .http.call import CallOptions
    from .http.guard import Guard
    from .http.rate_limits import (
        Limits,
        LimitState,
        LocalPermits,
        Permits,
        Priority,
    )
    from .http.resources.applications import Applications
    from .http.resources.beacons import BeaconReply, nearest
    from .http.resources.container_registry import ContainerRegistry
    from .http.resources.deployments import Deployments
    from .http.resources.endpoint_storages import EndpointStorages
    from .http.resources.ip_addresses import IpAddresses
    from .http.resources.listing import Listing
    from .http.resources.locations import Locations
    from .http.resources.private_fleets import PrivateFleets
    from .http.resources.pull_profiles import PullProfiles
    from .http.resources.relays import Relays
    from .http.resources.tags import Tags
    from .http.resources.versions import Versions
    from .http.retries import RetryPolicy
    from .http.transport import (
        VERSION as __version__,  # noqa: N811 - the usual name
    )
    from .http.transport import Timeouts
    from .polling.poller import StatusPoller
    from .polling.results import PollerStats
    from .polling.schedule import PollingPolicy
    from .polling.tracker import (
        WebhookSource,
        WebhookUrls,
    )
    from .pool.inventory import Allocation, PoolStats
    from .pool.pool import ServerPool
    from .webhooks.receiver import WebhookEvent, WebhookReceiver, WebhookStats
    from .webhooks.servers import WebhookSecretFilter

__all__ = [
    "OPERATIONS",
    "TRANSITIONS",
    "AddressLocation",
    "Addresses",
    "Allocation",
    "AnyRelayUser",
    "AnyRequest",
    "AnyRequests",
    "AnyUser",
    "AnyVariables",
    "ApiClient",
    "ApiResponse",
    "Application",
    "ApplicationChanges",
    "ApplicationPage",
    "ApplicationRequest",
    "ApplicationVersion",
    "Applications",
    "AuthorizedRelayUser",
    "BadRequest",
    "Batch",
    "BatchStopped",
    "Beacon",
    "BeaconPage",
    "BeaconReply",
    "BulkStop",
    "CallError",
    "CallOptions",
    "Centroid",
    "Check",
    "ClientClosed",
    "Cluster",
    "Conflict",
    "ContainerRegistry",
    "CrashData",
    "DeleteSchedule",
    "DeletionSummary",
    "DeployAccepted",
    "DeployOptions",
    "DeployRequest",
    "Deployment",
    "DeploymentContext",
    "DeploymentError",
    "DeploymentFailed",
    "DeploymentHandle",
    "DeploymentPage",
    "DeploymentReport",
    "DeploymentRow",
    "DeploymentTerminated",
    "Deployments",
    "DryRun",
    "EdgegapClient",
    "EdgegapError",
    "Endpoint",
    "EndpointStorage",
    "EndpointStorageChanges",
    "EndpointStoragePage",
    "EndpointStorageRequest",
    "EndpointStorages",
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
    "ImageArtifact",
    "ImageTag",
    "ImageTagDeleted",
    "ImageTagPage",
    "ImageTags",
    "ImageUnavailable",
    "InvalidRequest",
    "IpAddress",
    "IpAddresses",
    "Json",
    "LazyModel",
    "LimitReached",
    "LimitState",
    "Limits",
    "Listing",
    "LocalPermits",
    "LocatedAddress",
    "LocatedAddresses",
    "Location",
    "LocationBeacon",
    "LocationPage",
    "LocationTag",
    "Locations",
    "Logs",
    "MaybeCreated",
    "MetricRow",
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
    "OutputFormat",
    "Pagination",
    "Paginator",
    "Permits",
    "PlayableCheck",
    "PollerStats",
    "PollingPolicy",
    "PoolEmpty",
    "PoolStats",
    "Port",
    "PortCheck",
    "Priority",
    "PrivateFleets",
    "Progress",
    "PublicAddress",
    "PullProfile",
    "PullProfileChanges",
    "PullProfileLink",
    "PullProfilePage",
    "PullProfileRequest",
    "PullProfiles",
    "RateLimited",
    "RecoveredDeployment",
    "Refused",
    "Region",
    "Relay",
    "RelayAuthorization",
    "RelayMaybeCreated",
    "RelayNotLinked",
    "RelayPort",
    "RelayPorts",
    "RelayRequest",
    "RelayRevocation",
    "RelaySession",
    "RelaySessionPage",
    "RelayTimedOut",
    "RelayUser",
    "RelayUserRequest",
    "Relays",
    "Resources",
    "RestartPolicy",
    "RetryPolicy",
    "ServerError",
    "ServerPool",
    "Session",
    "SourceType",
    "Status",
    "StatusChange",
    "StatusPoller",
    "StopFilter",
    "StopFilters",
    "Stopped",
    "Tag",
    "TagDeletion",
    "TagDeletions",
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
    "VersionChanges",
    "VersionDeleted",
    "VersionPage",
    "VersionPort",
    "VersionPortRequest",
    "VersionRequest",
    "VersionSaved",
    "VersionSettings",
    "VersionVariable",
    "Versions",
    "WaitTimedOut",
    "Webhook",
    "WebhookEvent",
    "WebhookNotReceived",
    "WebhookReceiver",
    "WebhookSecretFilter",
    "WebhookSource",
    "WebhookStats",
    "WebhookUrls",
    "WrongLoop",
    "__version__",
    "nearest",
    "run",
]

if not TYPE_CHECKING:  # a type checker would accept any name because of __getattr__
    # The package imports nothing until a name is used: pytest imports it for its plugin in every
    # test run. The first use of a common name imports these modules, the use of another name its
    # own, because most programs need none of the others: a quarter of the import.
    _COMMON = (
        "client",
        "api.models",
        "api.operations",
        "api.requests",
        "deployments.handle",
        "errors",
        "http.api_client",
        "http.call",
        "http.guard",
        "http.rate_limits",
        "http.resources.deployments",
        "http.resources.listing",
        "http.retries",
        "http.transport",
        "polling.poller",
        "polling.results",
        "polling.schedule",
        "polling.tracker",
    )
    _LAZY = {
        name: module
        for module, names in {
            "api.models.applications": [
                "Application",
                "ApplicationPage",
                "ApplicationVersion",
                "VersionDeleted",
                "VersionPage",
                "VersionPort",
                "VersionSaved",
                "VersionVariable",
            ],
            "api.models.beacons": [
                "AddressLocation",
                "BeaconPage",
                "LocatedAddress",
                "LocatedAddresses",
                "LocationBeacon",
                "PublicAddress",
                "Region",
            ],
            "api.models.context": ["DeploymentContext"],
            "api.models.container_registry": [
                "DeletionSummary",
                "ImageArtifact",
                "ImageTag",
                "ImageTagDeleted",
                "ImageTagPage",
                "TagDeletion",
                "TagDeletions",
            ],
            "api.models.endpoint_storage": [
                "EndpointStorage",
                "EndpointStoragePage",
                "PullProfile",
                "PullProfileLink",
                "PullProfilePage",
            ],
            "api.models.relays": [
                "AuthorizedRelayUser",
                "Relay",
                "RelayPort",
                "RelayPorts",
                "RelaySession",
                "RelaySessionPage",
                "RelayUser",
            ],
            "api.resources.container_registry": ["ImageTags"],
            "api.resources.endpoint_storage": [
                "EndpointStorageChanges",
                "EndpointStorageRequest",
                "OutputFormat",
                "PullProfileChanges",
                "PullProfileRequest",
                "SourceType",
            ],
            "api.resources.relays": [
                "AnyRelayUser",
                "RelayAuthorization",
                "RelayRequest",
                "RelayRevocation",
                "RelayUserRequest",
            ],
            "http.resources.container_registry": ["ContainerRegistry"],
            "http.resources.endpoint_storages": ["EndpointStorages"],
            "http.resources.pull_profiles": ["PullProfiles"],
            "http.resources.relays": ["Relays"],
            "api.newer_operations": ["OPERATIONS"],
            "api.newer_requests": [
                "Addresses",
                "ApplicationChanges",
                "ApplicationRequest",
                "DeploymentReport",
                "RestartPolicy",
                "VersionChanges",
                "VersionPortRequest",
                "VersionRequest",
                "VersionSettings",
            ],
            "cluster": ["Cluster"],
            "concurrency": ["run"],
            "batch.batch": ["Batch"],
            "batch.plan": ["AnyRequest", "AnyRequests", "FailurePolicy", "Outcome", "Progress"],
            "deployments.playable": [
                "Check",
                "HttpGet",
                "PlayableCheck",
                "PortCheck",
                "TcpConnect",
                "UdpAnswer",
            ],
            "http.resources.applications": ["Applications"],
            "http.resources.beacons": ["BeaconReply", "nearest"],
            "http.resources.ip_addresses": ["IpAddresses"],
            "http.resources.locations": ["Locations"],
            "http.resources.private_fleets": ["PrivateFleets"],
            "http.resources.tags": ["Tags"],
            "http.resources.versions": ["Versions"],
            "pool.pool": ["ServerPool"],
            "pool.inventory": ["PoolStats", "Allocation"],
            "webhooks.receiver": ["WebhookEvent", "WebhookReceiver", "WebhookStats"],
            "webhooks.servers": ["WebhookSecretFilter"],
        }.items()
        for name in names
    }

    def __getattr__(name: str) -> object:
        if name in _LAZY:
            value = getattr(import_module(f".{_LAZY[name]}", __name__), name)
            globals()[name] = value
            return value
        if "__version__" not in globals() and (name == "__version__" or name[:2] != "__"):
            wanted = set(__all__) - _LAZY.keys()
            for module in _COMMON:
                found = vars(import_module(f".{module}", __name__))
                globals().update((each, found[each]) for each in wanted & found.keys())
            globals()["__version__"] = import_module(".http.transport", __name__).VERSION
            if name in globals():  # a public name, or a module such as `errors`
                return globals()[name]
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
