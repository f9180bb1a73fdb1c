"""What exists in the emulated cloud: one coroutine for each operation, with the operation's name.

A coroutine takes the fields of the request and returns the model of the answer, or raises the error
that the client is to see. `server` does the rest of HTTP: it checks the token, also that of a
deployment, and takes the status of success from the operation. What happens to a deployment between
two calls is in `deployments`. The calls share one state, `cloud_state`.

Where the documentation is silent, the emulator does this: lists are ordered oldest first, with 20
rows a page and 100 at most; a row must pass every filter; `tags eq` means that the deployment has
that tag; a bulk stop without filters stops everything, as in production; the logs of a deployment
are gone once it is TERMINATED, and the deployment itself a minute later.
"""

from __future__ import annotations

from .app_calls import AppCalls
from .deployment_calls import DeploymentCalls
from .fleet_calls import FleetCalls
from .image_calls import ImageCalls
from .location_calls import LocationCalls
from .relay_calls import RelayCalls
from .storage_calls import StorageCalls
from .tag_calls import TagCalls


class Cloud(
    AppCalls,
    DeploymentCalls,
    FleetCalls,
    ImageCalls,
    LocationCalls,
    RelayCalls,
    StorageCalls,
    TagCalls,
):
    """The state of the emulated cloud, and what each operation does to it."""
