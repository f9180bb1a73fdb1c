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
    HostPage,
    LocationPage,
    Logs,
    Metrics,
    Stopped,
    Tag,
    TagPage,
)
from edgegap_async.api.requests import DeployRequest, FleetDeployRequest, StopFilters, TagName

REFERENCE = json.loads((Path(__file__).parents[1] / "reference/operations.json").read_text("utf-8"))
ANSWERS = {
    f"{shown['method']} {shown['path']}": shown["answer"] for shown in REFERENCE["operations"]
}
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
}
SHOWN_REQUESTS: dict[type[Any], Any] = {
    kind: next(
        shown["request"]
        for shown in REFERENCE["operations"]
        if (shown["method"], shown["path"]) == ("POST", path)
    )
    for kind, path in {
        DeployRequest: "/v2/deployments",
        FleetDeployRequest: "/v2/private-fleets:deploy",
        StopFilters: "/v1/deployments/bulk-stop",
        TagName: "/v1/deployments/{request_id}/tags",
    }.items()
}
