"""What calls take: users, filters, bodies, options, and the protocols of replaceable parts.

Most calls take plain arguments in place of these classes: `client.deploy("arena", "v1",
users=["203.0.113.7"])`. `edgegap_async` has the most used ones too.
"""

from .api.operations import Operation
from .api.register import OPERATIONS
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
from .api.resources.applications import (
    ApplicationChanges,
    ApplicationRequest,
    RestartPolicy,
    VersionChanges,
    VersionPortRequest,
    VersionRequest,
    VersionSettings,
)
from .api.resources.container_registry import ImageTags
from .api.resources.deployments import DeploymentReport
from .api.resources.endpoint_storages import (
    EndpointStorageChanges,
    EndpointStorageRequest,
    OutputFormat,
    PullProfileChanges,
    PullProfileRequest,
    SourceType,
)
from .api.resources.locations import Addresses
from .api.resources.relays import (
    AnyRelayUser,
    RelayAuthorization,
    RelayRequest,
    RelayRevocation,
    RelayUserRequest,
)
from .batch.plan import AnyRequest, AnyRequests, FailurePolicy
from .deployments.playable import Check, PlayableCheck
from .http.call import CallOptions
from .http.rate_limits import LocalPermits, Permits, Priority
from .polling.tracker import WebhookSource, WebhookUrls

__all__ = [
    "OPERATIONS",
    "Addresses",
    "AnyRelayUser",
    "AnyRequest",
    "AnyRequests",
    "AnyUser",
    "AnyVariables",
    "ApplicationChanges",
    "ApplicationRequest",
    "CallOptions",
    "Check",
    "DeployOptions",
    "DeployRequest",
    "DeploymentReport",
    "EndpointStorageChanges",
    "EndpointStorageRequest",
    "EnvironmentVariable",
    "FailurePolicy",
    "Filter",
    "FilterField",
    "FilterOperator",
    "FleetDeployRequest",
    "GeoCoordinates",
    "ImageTags",
    "IpAddress",
    "LocalPermits",
    "Operation",
    "OrderBy",
    "OutputFormat",
    "Permits",
    "PlayableCheck",
    "Priority",
    "PullProfileChanges",
    "PullProfileRequest",
    "RelayAuthorization",
    "RelayRequest",
    "RelayRevocation",
    "RelayUserRequest",
    "Resources",
    "RestartPolicy",
    "SourceType",
    "StopFilter",
    "StopFilters",
    "TagName",
    "Token",
    "User",
    "VersionChanges",
    "VersionPortRequest",
    "VersionRequest",
    "VersionSettings",
    "Webhook",
    "WebhookSource",
    "WebhookUrls",
]
