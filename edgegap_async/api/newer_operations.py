"""The calls beyond the published page, and the table of all calls.

They are in the newer description; those about a deployment's own context and about IP addresses
are in the description of 2024. Few programs make them, so the client does not import this module.
"""

from __future__ import annotations

from typing import Final

from .models import Tag
from .models.applications import (
    Application,
    ApplicationPage,
    ApplicationVersion,
    VersionDeleted,
    VersionPage,
    VersionSaved,
)
from .models.beacons import BeaconPage, LocatedAddress, LocatedAddresses, PublicAddress
from .models.context import DeploymentContext
from .newer_requests import (
    Addresses,
    ApplicationChanges,
    ApplicationRequest,
    DeploymentReport,
    VersionChanges,
    VersionRequest,
)
from .operations import PAGE_OPERATIONS, Auth, Operation, RetrySafety
from .requests import TagName
from .resources.container_registry import REGISTRY_OPERATIONS
from .resources.endpoint_storage import STORAGE_OPERATIONS
from .resources.relays import RELAY_OPERATIONS

_PAGES: Final = frozenset({"page", "limit"})

LIST_APPLICATIONS: Final = Operation(
    name="list_applications",
    method="GET",
    path="/v1/apps",
    query=_PAGES,
    returns=ApplicationPage,
    ok=frozenset({200}),
    may_fail=frozenset({400, 401, 403, 500}),
)
CREATE_APPLICATION: Final = Operation(
    name="create_application",
    method="POST",
    path="/v1/app",
    body=ApplicationRequest,
    returns=Application,
    ok=frozenset({200}),
    may_fail=frozenset({400, 401, 409, 500}),
    retry_safety=RetrySafety.ONLY_IF_NOT_SENT,
)
GET_APPLICATION: Final = Operation(
    name="get_application",
    method="GET",
    path="/v1/app/{application}",
    returns=Application,
    ok=frozenset({200}),
    may_fail=frozenset({400, 401, 404, 500}),
)
UPDATE_APPLICATION: Final = Operation(
    name="update_application",
    method="PATCH",
    path="/v1/app/{application}",
    body=ApplicationChanges,
    returns=Application,
    ok=frozenset({200}),
    may_fail=frozenset({400, 401, 404, 409, 500}),
    retry_safety=RetrySafety.ONLY_IF_NOT_SENT,
)
DELETE_APPLICATION: Final = Operation(
    name="delete_application",
    method="DELETE",
    path="/v1/app/{application}",
    returns=type(None),
    ok=frozenset({200}),
    may_fail=frozenset({400, 401, 404, 500}),
)
LIST_VERSIONS: Final = Operation(
    name="list_versions",
    method="GET",
    path="/v1/app/{application}/versions",
    query=_PAGES,
    returns=VersionPage,
    ok=frozenset({200}),
    may_fail=frozenset({400, 401, 404, 500}),
)
CREATE_VERSION: Final = Operation(
    name="create_version",
    method="POST",
    path="/v1/app/{application}/version",
    body=VersionRequest,
    returns=VersionSaved,
    ok=frozenset({200}),
    may_fail=frozenset({400, 401, 404, 409, 424, 500}),
    retry_safety=RetrySafety.ONLY_IF_NOT_SENT,
)
GET_VERSION: Final = Operation(
    name="get_version",
    method="GET",
    path="/v1/app/{application}/version/{version}",
    returns=ApplicationVersion,
    ok=frozenset({200}),
    may_fail=frozenset({400, 401, 404, 500}),
)
UPDATE_VERSION: Final = Operation(
    name="update_version",
    method="PATCH",
    path="/v1/app/{application}/version/{version}",
    body=VersionChanges,
    returns=VersionSaved,
    ok=frozenset({200}),
    may_fail=frozenset({400, 401, 404, 424, 500}),
    retry_safety=RetrySafety.ONLY_IF_NOT_SENT,
)
DELETE_VERSION: Final = Operation(
    name="delete_version",
    method="DELETE",
    path="/v1/app/{application}/version/{version}",
    returns=VersionDeleted,
    ok=frozenset({200}),
    may_fail=frozenset({401, 404, 500}),
)
REPORT_DEPLOYMENT: Final = Operation(
    name="report_deployment",
    method="POST",
    path="/v1/deployments/{request_id}:report",
    body=DeploymentReport,
    returns=type(None),
    ok=frozenset({200}),
    may_fail=frozenset({400, 401, 403, 500, 503}),
    retry_safety=RetrySafety.ONLY_IF_NOT_SENT,
)
LIST_BEACONS: Final = Operation(
    name="list_beacons",
    method="GET",
    path="/v1/locations/beacons",
    query=_PAGES,
    returns=BeaconPage,
    ok=frozenset({200}),
    may_fail=frozenset({400, 401, 500}),
)
GET_CONTEXT: Final = Operation(
    name="get_context",
    method="GET",
    path="/v1/context/{request_id}/{access_point_id}",
    returns=DeploymentContext,
    ok=frozenset({200}),
    may_fail=frozenset({400, 401, 404, 500}),
    auth=Auth.DEPLOYMENT_TOKEN,
)
CREATE_CONTEXT_TAG: Final = Operation(
    name="create_context_tag",
    method="POST",
    path="/v1/context/{request_id}/{access_point_id}/tags",
    body=TagName,
    returns=Tag,
    ok=frozenset({200}),
    may_fail=frozenset({400, 401, 404, 409, 500}),
    retry_safety=RetrySafety.ONLY_IF_NOT_SENT,
    auth=Auth.DEPLOYMENT_TOKEN,
)
DELETE_CONTEXT_TAG: Final = Operation(
    name="delete_context_tag",
    method="DELETE",
    path="/v1/context/{request_id}/{access_point_id}/tags/{tag_name}",
    returns=type(None),
    ok=frozenset({200, 204}),
    may_fail=frozenset({400, 401, 404, 500}),
    auth=Auth.DEPLOYMENT_TOKEN,
)
GET_PUBLIC_IP: Final = Operation(
    name="get_public_ip",
    method="GET",
    path="/v1/ip",
    returns=PublicAddress,
    ok=frozenset({200}),
    may_fail=frozenset({401, 500}),
)
LOCATE_IP: Final = Operation(
    name="locate_ip",
    method="GET",
    path="/v1/ip/{ip}/lookup",
    returns=LocatedAddress,
    ok=frozenset({200}),
    may_fail=frozenset({400, 401, 500}),
)
LOCATE_IPS: Final = Operation(
    name="locate_ips",
    method="POST",
    path="/v1/ips/lookup",
    body=Addresses,
    returns=LocatedAddresses,
    ok=frozenset({200}),
    may_fail=frozenset({400, 401, 500}),
    retry_safety=RetrySafety.SAFE,  # it changes nothing
)

OPERATIONS: Final[tuple[Operation[object], ...]] = (
    *PAGE_OPERATIONS,
    LIST_APPLICATIONS,
    CREATE_APPLICATION,
    GET_APPLICATION,
    UPDATE_APPLICATION,
    DELETE_APPLICATION,
    LIST_VERSIONS,
    CREATE_VERSION,
    GET_VERSION,
    UPDATE_VERSION,
    DELETE_VERSION,
    REPORT_DEPLOYMENT,
    LIST_BEACONS,
    GET_CONTEXT,
    CREATE_CONTEXT_TAG,
    DELETE_CONTEXT_TAG,
    GET_PUBLIC_IP,
    LOCATE_IP,
    LOCATE_IPS,
    *RELAY_OPERATIONS,
    *REGISTRY_OPERATIONS,
    *STORAGE_OPERATIONS,
)
"""Every call: first those of the published page, in its order, then the others."""
