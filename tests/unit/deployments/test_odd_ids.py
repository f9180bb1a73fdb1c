"""Ids in answers that are no id of the deployment: unusable ones, a gateway's, another's."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from scripted_api import Reply, ScriptedApi, deployment

from edgegap_async import EdgegapClient, RetryPolicy
from edgegap_async.errors import MaybeCreated, Unprocessable, UnreadableAnswer, WaitTimedOut

pytestmark = pytest.mark.virtual

DEPLOY = ("POST", "/v2/deployments")
LIST = ("GET", "/v1/deployments")
REQUEST: dict[str, Any] = {"application": "arena", "version": "v1", "users": ["192.0.2.1"]}
UNUSABLE = ["../app/arena", "x" * 200, "a\nb", " "]


def connect(api: ScriptedApi, **options: Any) -> EdgegapClient:
    return EdgegapClient("canary-t", base_url=api.url, list_delay=1.0, **options)


@pytest.mark.parametrize("odd", UNUSABLE)
async def test_a_deployment_whose_id_no_url_can_have_may_exist_and_is_not_deployed_again(
    api: ScriptedApi, odd: str
) -> None:
    api.on(*DEPLOY, Reply(202, {"request_id": odd}))
    async with connect(api) as client:
        with pytest.raises(MaybeCreated, match="no URL can have the request_id") as caught:
            await client.deploy(**REQUEST)
        with pytest.raises(UnreadableAnswer, match="has accepted the deploy") as untagged:
            await client.deploy(**REQUEST, operation_tag=False)

    assert caught.value.operation_tag in api.requests[0].json["tags"]
    assert untagged.value.maybe_created
    assert len(api.requests) == 2


@pytest.mark.parametrize("odd", UNUSABLE)
async def test_a_422_with_an_unusable_id_fails_its_request_alone(
    api: ScriptedApi, odd: str
) -> None:
    api.on(*DEPLOY, Reply(422, {"request_id": odd}), Reply(202, {"request_id": "abc123"}))
    api.on("GET", "/v1/status/abc123", deployment("READY"))
    async with connect(api) as client:
        failed, ready = await client.deploy_many([REQUEST] * 2, concurrency=1).all()

    assert isinstance(failed.error, Unprocessable)
    assert failed.error.request_id is None
    assert ready.is_ready


@pytest.mark.parametrize("odd", UNUSABLE)
async def test_row_24_a_row_with_an_unusable_id_hides_no_other(api: ScriptedApi, odd: str) -> None:
    rows = [{"request_id": one, "tags": ["own-me"]} for one in (odd, "abc123")]
    api.on(*LIST, Reply(body={"data": rows}))
    api.on("DELETE", "/v1/stop/abc123", Reply(202))
    async with connect(api, owner="me") as client:
        assert await client.reap() == ("abc123",)


@pytest.mark.parametrize("status", [400, 429, 503])
async def test_row_24_the_id_that_a_gateway_gives_to_a_refused_deploy_is_no_deployment(
    api: ScriptedApi, status: int
) -> None:
    """A gateway such as Kong names its own `request_id` in the JSON of an error."""
    answered = asyncio.Event()
    api.on(*DEPLOY, Reply(status, {"message": "no", "request_id": "kong77"}, after=answered))
    api.on(*LIST, Reply(body={"data": []}))
    async with connect(api, retries=RetryPolicy(attempts=1)) as client:
        deploying = asyncio.create_task(client.deploy(**REQUEST))
        await api.until_asked(*DEPLOY)
        deploying.cancel()
        answered.set()
        with contextlib.suppress(asyncio.CancelledError):
            await deploying

    assert {one.method for one in api.requests} <= {"POST", "GET"}


async def test_row_24_the_status_of_another_deployment_ends_no_wait(api: ScriptedApi) -> None:
    """A cache may mix up answers, and its players would go to the server of others."""
    api.on(
        "GET",
        "/v1/status/abc123",
        deployment("READY", "other"),
        deployment("READY", "other"),
        deployment("DEPLOYING"),
    )
    async with connect(api) as client:
        with pytest.raises(WaitTimedOut, match="last status: DEPLOYING"):
            await client.handle("abc123").wait_ready(20)
        api.on("GET", "/v1/status/abc123", deployment("READY", "other"))
        with pytest.raises(UnreadableAnswer, match="about another deployment"):
            await client.handle("abc123").refresh()
