"""The examples of the published reference: answers and requests, by model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgegap_async.api.models import (
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
from edgegap_async.api.requests import DeployRequest, FleetDeployRequest, StopFilters, TagName
from edgegap_async.api.resources.applications import (
    Application,
    ApplicationChanges,
    ApplicationPage,
    ApplicationRequest,
    ApplicationVersion,
    VersionChanges,
    VersionDeleted,
    VersionPage,
    VersionRequest,
    VersionSaved,
)
from edgegap_async.api.resources.container_registry import (
    ImageTagDeleted,
    ImageTagPage,
    ImageTags,
    TagDeletions,
)
from edgegap_async.api.resources.deployments import DeploymentContext, DeploymentReport
from edgegap_async.api.resources.endpoint_storages import (
    EndpointStorage,
    EndpointStorageChanges,
    EndpointStoragePage,
    EndpointStorageRequest,
    PullProfile,
    PullProfileChanges,
    PullProfileLink,
    PullProfilePage,
    PullProfileRequest,
)
from edgegap_async.api.resources.locations import (
    Addresses,
    BeaconPage,
    LocatedAddress,
    LocatedAddresses,
    PublicAddress,
)
from edgegap_async.api.resources.metrics import Metrics
from edgegap_async.api.resources.private_fleets import HostPage
from edgegap_async.api.resources.relays import (
    AuthorizedRelayUser,
    RelayAuthorization,
    RelayRequest,
    RelayRevocation,
    RelaySession,
    RelaySessionPage,
)

FOLDER = Path(__file__).parents[1] / "reference"
SHOWN = [
    shown
    for name in ("operations.json", "newer_operations.json")
    for shown in json.loads((FOLDER / name).read_text("utf-8"))["operations"]
]
ANSWERS = {f"{shown['method']} {shown['path']}": shown["answer"] for shown in SHOWN}
IMAGE_TAGS = "/v1/container-registry/images/{image_name}/tags"
STORAGE = "/v1/storage/endpoint/{endpoint_name}"
PROFILE = f"{STORAGE}/pull-profile/{{pull_profile_name}}"
SHOWN_ANSWERS: dict[type[Any], Any] = {
    DeployAccepted: ANSWERS["POST /v2/deployments"],
    Deployment: ANSWERS["GET /v1/status/{request_id}"],
    Stopped: ANSWERS["DELETE /v1/stop/{request_id}"],
    BulkStop: ANSWERS["POST /v1/deployments/bulk-stop"],
    DeploymentPage: ANSWERS["GET /v1/deployments"],
    LocationPage: ANSWERS["GET /v1/locations"],
    Logs: ANSWERS["GET /v1/deployment/{request_id}/container-logs"],
    Metrics: ANSWERS["GET /v1/metrics/deployment/{request_id}"],
    HostPage: ANSWERS["GET /v2/private-fleets/{fleet-name}/hosts"],
    Tag: ANSWERS["GET /v1/deployments/{request_id}/tags/{tag_name}"],
    TagPage: ANSWERS["GET /v1/deployments/{request_id}/tags"],
    ApplicationPage: ANSWERS["GET /v1/apps"],
    Application: ANSWERS["GET /v1/app/{application}"],
    VersionPage: ANSWERS["GET /v1/app/{application}/versions"],
    ApplicationVersion: ANSWERS["GET /v1/app/{application}/version/{version}"],
    VersionSaved: ANSWERS["POST /v1/app/{application}/version"],
    VersionDeleted: ANSWERS["DELETE /v1/app/{application}/version/{version}"],
    BeaconPage: ANSWERS["GET /v1/locations/beacons"],
    DeploymentContext: ANSWERS["GET /v1/context/{request_id}/{access_point_id}"],
    PublicAddress: ANSWERS["GET /v1/ip"],
    LocatedAddress: ANSWERS["GET /v1/ip/{ip}/lookup"],
    LocatedAddresses: ANSWERS["POST /v1/ips/lookup"],
    RelaySession: ANSWERS["GET /v1/relays/sessions/{session_id}"],
    RelaySessionPage: ANSWERS["GET /v1/relays/sessions"],
    AuthorizedRelayUser: ANSWERS["POST /v1/relays/sessions:authorize-user"],
    ImageTagPage: ANSWERS[f"GET {IMAGE_TAGS}"],
    ImageTagDeleted: ANSWERS[f"DELETE {IMAGE_TAGS}/{{tag_name}}"],
    TagDeletions: ANSWERS[f"POST {IMAGE_TAGS}/bulk-delete"],
    EndpointStoragePage: ANSWERS["GET /v1/storage/endpoints"],
    EndpointStorage: ANSWERS[f"GET {STORAGE}"],
    PullProfilePage: ANSWERS[f"GET {STORAGE}/pull-profiles"],
    PullProfile: ANSWERS[f"GET {PROFILE}"],
    PullProfileLink: ANSWERS[f"PUT {PROFILE}/app/{{app_name}}/version/{{version_name}}"],
}
SHOWN_REQUESTS: dict[type[Any], Any] = {
    kind: next(shown["request"] for shown in SHOWN if f"{shown['method']} {shown['path']}" == call)
    for kind, call in {
        DeployRequest: "POST /v2/deployments",
        FleetDeployRequest: "POST /v2/private-fleets:deploy",
        StopFilters: "POST /v1/deployments/bulk-stop",
        TagName: "POST /v1/deployments/{request_id}/tags",
        ApplicationRequest: "POST /v1/app",
        ApplicationChanges: "PATCH /v1/app/{application}",
        VersionRequest: "POST /v1/app/{application}/version",
        VersionChanges: "PATCH /v1/app/{application}/version/{version}",
        DeploymentReport: "POST /v1/deployments/{request_id}:report",
        Addresses: "POST /v1/ips/lookup",
        RelayRequest: "POST /v1/relays/sessions",
        RelayAuthorization: "POST /v1/relays/sessions:authorize-user",
        RelayRevocation: "POST /v1/relays/sessions:revoke-user",
        ImageTags: f"POST {IMAGE_TAGS}/bulk-delete",
        EndpointStorageRequest: "POST /v1/storage/endpoint",
        EndpointStorageChanges: f"PATCH {STORAGE}",
        PullProfileRequest: f"POST {STORAGE}/pull-profile",
        PullProfileChanges: f"PATCH {PROFILE}",
    }.items()
}
