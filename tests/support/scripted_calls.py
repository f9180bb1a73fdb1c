"""Paths, replies and settings of the tests that make calls to a `ScriptedApi`."""

from __future__ import annotations

from scripted_api import Reply

from edgegap_async.http.api_client import ApiClient
from edgegap_async.http.retries import RetryPolicy

NO_LIMITS = {"get_deployment": None}
ONCE = RetryPolicy(attempts=1)
STATUS = ("GET", "/v1/status/r1")
STOP = ("DELETE", "/v1/stop/r1")
DEPLOY = ("POST", "/v2/deployments")
CANARY = "canary-77aa"
SEEN = Reply(body={"request_id": "r1", "current_status": "Status.READY"})
LOST = Reply(lost=True)


async def deploy(client: ApiClient) -> str:
    """Makes the plain deploy call and returns the id of the deployment."""
    return (await client.deployments.deploy("arena", "v1", users=["192.0.2.1"])).request_id
