"""What calls return: models of the API's answers, results of batches, counters, parts of a client.

A program seldom names these classes: calls return them, and a type checker knows them. The names
are for annotations, and for tests that make an answer. `edgegap_async` has the most used ones too.
"""

from .api.models import (
    TRANSITIONS,
    ApiResponse,
    BulkStop,
    CrashData,
    DeployAccepted,
    Deployment,
    DeploymentPage,
    DeploymentRow,
    Endpoint,
    Json,
    LazyModel,
    Location,
    LocationPage,
    LocationTag,
    Logs,
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
from .api.resources.applications import (
    Application,
    ApplicationPage,
    ApplicationVersion,
    VersionDeleted,
    VersionPage,
    VersionPort,
    VersionSaved,
    VersionVariable,
)
from .api.resources.container_registry import (
    DeletionSummary,
    ImageArtifact,
    ImageTag,
    ImageTagDeleted,
    ImageTagPage,
    TagDeletion,
    TagDeletions,
)
from .api.resources.deployments import DeploymentContext
from .api.resources.endpoint_storages import (
    EndpointStorage,
    EndpointStoragePage,
    PullProfile,
    PullProfileLink,
    PullProfilePage,
)
from .api.resources.locations import (
    AddressLocation,
    BeaconPage,
    LocatedAddress,
    LocatedAddresses,
    LocationBeacon,
    PublicAddress,
    Region,
)
from .api.resources.metrics import (
    MetricRow,
    Metrics,
    MetricSeries,
    MetricTotals,
    NetworkMetrics,
)
from .api.resources.private_fleets import (
    Beacon,
    Centroid,
    DeleteSchedule,
    FleetHost,
    HostPage,
    HostSpecifications,
)
from .api.resources.relays import (
    AuthorizedRelayUser,
    Relay,
    RelayPort,
    RelayPorts,
    RelaySession,
    RelaySessionPage,
    RelayUser,
)
from .batch.plan import Outcome, Progress
from .deployments.handle import RecoveredDeployment
from .http.rate_limits import LimitState
from .http.resources.applications import Applications, Versions
from .http.resources.container_registry import ContainerRegistry
from .http.resources.deployments import Deployments
from .http.resources.endpoint_storages import EndpointStorages, PullProfiles
from .http.resources.locations import BeaconReply, IpAddresses, Locations
from .http.resources.private_fleets import PrivateFleets
from .http.resources.relays import Relays
from .http.resources.resource import Listing
from .http.resources.tags import Tags
from .polling.poller import StatusPoller
from .polling.results import PollerStats
from .pool.inventory import Allocation, PoolStats
from .webhooks.receiver import WebhookEvent, WebhookStats

__all__ = [
    "TRANSITIONS",
    "AddressLocation",
    "Allocation",
    "ApiResponse",
    "Application",
    "ApplicationPage",
    "ApplicationVersion",
    "Applications",
    "AuthorizedRelayUser",
    "Beacon",
    "BeaconPage",
    "BeaconReply",
    "BulkStop",
    "Centroid",
    "ContainerRegistry",
    "CrashData",
    "DeleteSchedule",
    "DeletionSummary",
    "DeployAccepted",
    "Deployment",
    "DeploymentContext",
    "DeploymentPage",
    "DeploymentRow",
    "Deployments",
    "Endpoint",
    "EndpointStorage",
    "EndpointStoragePage",
    "EndpointStorages",
    "FleetHost",
    "HostPage",
    "HostSpecifications",
    "ImageArtifact",
    "ImageTag",
    "ImageTagDeleted",
    "ImageTagPage",
    "IpAddresses",
    "Json",
    "LazyModel",
    "LimitState",
    "Listing",
    "LocatedAddress",
    "LocatedAddresses",
    "Location",
    "LocationBeacon",
    "LocationPage",
    "LocationTag",
    "Locations",
    "Logs",
    "MetricRow",
    "MetricSeries",
    "MetricTotals",
    "Metrics",
    "NetworkMetrics",
    "Outcome",
    "Pagination",
    "Paginator",
    "PollerStats",
    "PoolStats",
    "Port",
    "PrivateFleets",
    "Progress",
    "PublicAddress",
    "PullProfile",
    "PullProfileLink",
    "PullProfilePage",
    "PullProfiles",
    "RecoveredDeployment",
    "Region",
    "Relay",
    "RelayPort",
    "RelayPorts",
    "RelaySession",
    "RelaySessionPage",
    "RelayUser",
    "Relays",
    "Session",
    "Status",
    "StatusChange",
    "StatusPoller",
    "Stopped",
    "Tag",
    "TagDeletion",
    "TagDeletions",
    "TagPage",
    "Tags",
    "VersionDeleted",
    "VersionPage",
    "VersionPort",
    "VersionSaved",
    "VersionVariable",
    "Versions",
    "WebhookEvent",
    "WebhookStats",
]
