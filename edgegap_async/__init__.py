"""Asyncio SDK for game servers on Edgegap, with a local emulator of Edgegap's API.

Begin with `EdgegapClient`: `client.run` deploys a server, waits until it is READY and stops it at
the end of the block; `client.deployments` and its siblings call the API directly. Programs with
many servers use `client.deploy_many` or a `ServerPool`. Every error is an `EdgegapError`.

What a program creates or calls stands here. The other public names stand in

- `edgegap_async.models`: what calls return,
- `edgegap_async.requests`: what calls take,
- `edgegap_async.errors`: every error, as a tree,
- `edgegap_async.container`: for the program inside a deployment,
- `edgegap_async.observability`: traces and metrics,
- `edgegap_async.emulator`: the same API, served by this machine.

The other packages are internal: `api` describes the calls, `http` sends them, `polling` learns the
status of deployments, `deployments`, `batch` and `pool` deploy and stop them, `webhooks` receives
webhooks, `cluster` shares rate limits among programs.
"""

import sys
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import errors as errors
    from . import models as models
    from . import requests as requests
    from .api.models import Deployment, Status
    from .api.requests import DeployRequest, GeoCoordinates, IpAddress
    from .batch.batch import Batch
    from .batch.plan import Outcome, Progress
    from .client import EdgegapClient
    from .cluster import Cluster
    from .concurrency import run
    from .deployments.handle import DeploymentHandle
    from .deployments.playable import HttpGet, PortCheck, TcpConnect, UdpAnswer
    from .errors import EdgegapError
    from .http.api_client import ApiClient
    from .http.guard import Guard
    from .http.rate_limits import Limits
    from .http.resources.locations import nearest
    from .http.retries import RetryPolicy
    from .http.transport import VERSION as __version__  # noqa: N811 - the usual name
    from .http.transport import Timeouts
    from .polling.schedule import PollingPolicy
    from .pool.pool import ServerPool
    from .webhooks.receiver import WebhookReceiver
    from .webhooks.servers import WebhookSecretFilter

__all__ = [
    "ApiClient",
    "Batch",
    "Cluster",
    "DeployRequest",
    "Deployment",
    "DeploymentHandle",
    "EdgegapClient",
    "EdgegapError",
    "GeoCoordinates",
    "Guard",
    "HttpGet",
    "IpAddress",
    "Limits",
    "Outcome",
    "PollingPolicy",
    "PortCheck",
    "Progress",
    "RetryPolicy",
    "ServerPool",
    "Status",
    "TcpConnect",
    "Timeouts",
    "UdpAnswer",
    "WebhookReceiver",
    "WebhookSecretFilter",
    "__version__",
    "nearest",
    "run",
]

if not TYPE_CHECKING:  # a type checker would accept any name because of __getattr__
    # The package imports nothing until a name is used: pytest imports it for its plugin in every
    # test run, and the command line prints its help without aiohttp.
    _MODULES = {
        "Deployment": "api.models",
        "Status": "api.models",
        "DeployRequest": "api.requests",
        "GeoCoordinates": "api.requests",
        "IpAddress": "api.requests",
        "Batch": "batch.batch",
        "Outcome": "batch.plan",
        "Progress": "batch.plan",
        "EdgegapClient": "client",
        "Cluster": "cluster",
        "run": "concurrency",
        "DeploymentHandle": "deployments.handle",
        "HttpGet": "deployments.playable",
        "PortCheck": "deployments.playable",
        "TcpConnect": "deployments.playable",
        "UdpAnswer": "deployments.playable",
        "EdgegapError": "errors",
        "ApiClient": "http.api_client",
        "Guard": "http.guard",
        "Limits": "http.rate_limits",
        "nearest": "http.resources.locations",
        "RetryPolicy": "http.retries",
        "Timeouts": "http.transport",
        "PollingPolicy": "polling.schedule",
        "ServerPool": "pool.pool",
        "WebhookReceiver": "webhooks.receiver",
        "WebhookSecretFilter": "webhooks.servers",
    }

    def __getattr__(name: str) -> object:
        if name in {"errors", "models", "requests"}:
            return import_module(f".{name}", __name__)
        if name == "__version__":
            value = import_module(".http.transport", __name__).VERSION
        elif name in _MODULES:
            value = getattr(import_module(f".{_MODULES[name]}", __name__), name)
        else:
            raise _error_of_unknown(name, sys._getframe(1).f_code.co_name)  # noqa: SLF001 - no public way
        globals()[name] = value
        return value

    def _error_of_unknown(name: str, caller: str) -> Exception:
        places = list[str]()
        if not name.startswith("_"):  # tools ask for names such as `__wrapped__`
            for module in (
                "errors",
                "models",
                "requests",
                "observability",
                "container",
                "emulator",
            ):
                with suppress(ImportError):  # the emulator needs Linux
                    if name in import_module(f".{module}", __name__).__all__:
                        places.append(f"{__name__}.{module}")
        if not places:
            return AttributeError(f"module {__name__!r} has no attribute {name!r}")
        # In `from edgegap_async import …` Python replaces the text of an AttributeError.
        kind = ImportError if caller == "_handle_fromlist" else AttributeError
        return kind(f"{name} is in {' and '.join(places)}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__, "errors", "models", "requests"})
