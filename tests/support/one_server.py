"""A scripted API that knows one deployment, `abc123`, for tests of one server's life."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest
from scripted_api import Reply, ScriptedApi, deployment

from edgegap_async import EdgegapClient

DEPLOY: Final = ("POST", "/v2/deployments")
DEPLOY_TO_FLEET: Final = ("POST", "/v2/private-fleets:deploy")
STATUS: Final = ("GET", "/v1/status/abc123")
STOP: Final = ("DELETE", "/v1/stop/abc123")
LIST: Final = ("GET", "/v1/deployments")
LOGS: Final = ("GET", "/v1/deployment/abc123/container-logs")

ACCEPTED: Final = Reply(202, {"request_id": "abc123"})
DEPLOYING: Final = deployment("DEPLOYING")
READY: Final = deployment("READY")
PLAYERS: Final = ["192.0.2.1"]


@contextlib.asynccontextmanager
async def one_server_api() -> AsyncIterator[ScriptedApi]:
    """An API that accepts deploys and stops, and whose deployment is READY at once."""
    async with ScriptedApi() as api:
        api.on(*DEPLOY, ACCEPTED)
        api.on(*STATUS, READY)
        api.on(*STOP, Reply())
        api.on(*LIST, Reply(200, {"data": []}))
        api.on(*LOGS, Reply(200, {"logs": "out of ammunition"}))
        yield api


def operation_tag(api: ScriptedApi) -> str:
    """The operation tag of the last deploy."""
    return str(api.asked(*DEPLOY)[-1].json["tags"][-1])


def stops(api: ScriptedApi) -> int:
    """Number of stop requests."""
    return len(api.asked(*STOP))


async def run_server(client: EdgegapClient, seconds: float = 1000, **options: Any) -> None:
    """Runs a server for some seconds."""
    async with client.run("arena", "v1", users=PLAYERS, **options):
        await asyncio.sleep(seconds)


async def cancel(task: asyncio.Task[Any]) -> None:
    """Cancels a task, and waits for its end."""
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
