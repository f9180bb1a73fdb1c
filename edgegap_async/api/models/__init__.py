"""Answers of the API as values, one module for each kind of object.

Of each object only its id is required. A field that is null, absent or unreadable is None, False or
empty. An answer and each row of a list keep the JSON object as it came in `raw`, with the fields
that have no name here.

An answer reads a field from `raw` at the first access: of a list with a hundred rows most programs
read a few fields of a few rows.

Times are aware datetimes in UTC. The docstring of a duration names its unit. What a caller sends is
in `requests`; how JSON is read is in `codec`. Models of calls beyond the published page are in
`resources`.
"""

from .deployments import (
    BulkStop,
    CrashData,
    DeployAccepted,
    Deployment,
    DeploymentPage,
    DeploymentRow,
    Endpoint,
    Logs,
    Port,
    Session,
    Stopped,
    Tag,
    TagPage,
)
from .locations import Location, LocationPage, LocationTag
from .response import (
    ApiResponse,
    Json,
    LazyModel,
    Pagination,
    Paginator,
    field_readers,
    record_attempts,
)
from .status import TRANSITIONS, Status, StatusChange, may_become

__all__ = [
    "TRANSITIONS",
    "ApiResponse",
    "BulkStop",
    "CrashData",
    "DeployAccepted",
    "Deployment",
    "DeploymentPage",
    "DeploymentRow",
    "Endpoint",
    "Json",
    "LazyModel",
    "Location",
    "LocationPage",
    "LocationTag",
    "Logs",
    "Pagination",
    "Paginator",
    "Port",
    "Session",
    "Status",
    "StatusChange",
    "Stopped",
    "Tag",
    "TagPage",
    "field_readers",
    "may_become",
    "record_attempts",
]
