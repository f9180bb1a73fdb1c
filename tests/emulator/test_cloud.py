"""What the cloud refuses, how long it keeps ended deployments, and which webhooks it sends."""

from __future__ import annotations

import asyncio
from typing import Any

import attrs
import pytest
from emulated_cloud import (
    ARENA,
    SLEEPER,
    UNKNOWN_ID,
    SentWebhooks,
    a_cloud,
    a_request,
    answer,
    deployed,
    reached,
)

from edgegap_async import Status
from edgegap_async.api.requests import TagName
from edgegap_async.emulator import (
    Application,
    sample_application,
)
from edgegap_async.errors import BadRequest, NotFound, Unprocessable


async def test_an_unknown_or_inactive_version_cannot_be_deployed() -> None:
    sleeping = attrs.evolve(SLEEPER, version="off", is_active=False)
    async with a_cloud(SLEEPER, sleeping) as cloud:
        for application in (attrs.evolve(SLEEPER, version="v2"), sleeping, ARENA):
            with pytest.raises(BadRequest, match="No deployment has been created"):
                await cloud.deploy(body=a_request(application))

        assert cloud.deployments == {}


@pytest.mark.parametrize(
    ("settings", "application", "why"),
    [
        ({"max_deployments": 1}, SLEEPER, "No capacity"),
        ({"port_range": range(0)}, ARENA, "no port"),
    ],
)
async def test_without_room_a_deployment_is_made_in_error_and_named(
    settings: dict[str, Any], application: Application, why: str
) -> None:
    webhooks = SentWebhooks()
    async with a_cloud(SLEEPER, ARENA, webhooks=webhooks, **settings) as cloud:
        await deployed(cloud, SLEEPER)
        with pytest.raises(Unprocessable, match=why) as refused:
            await cloud.deploy(body=a_request(application, webhook_on_error="http://e/"))
        request_id = refused.value.request_id
        assert request_id is not None
        failed = await answer(cloud, "get_deployment", request_id=request_id)
        rows = (await answer(cloud, "list_deployments")).data
        await answer(cloud, "stop_deployment", request_id=request_id)
        await reached(cloud.deployments[request_id], Status.TERMINATED)

    assert (failed.current_status, failed.error) == (Status.ERROR, True)
    assert why in failed.error_detail
    assert request_id in {row.request_id for row in rows}
    assert [url for url, _ in webhooks.events] == ["http://e/"]


async def test_an_unknown_deployment_is_a_bad_request_for_every_call_that_names_one() -> None:
    async with a_cloud() as cloud:
        tag = {"request_id": UNKNOWN_ID, "tag_name": "eu"}
        calls: dict[str, dict[str, Any]] = {
            "get_deployment": {"request_id": UNKNOWN_ID},
            "stop_deployment": {"request_id": UNKNOWN_ID},
            "stop_self": {"request_id": UNKNOWN_ID},
            "get_container_logs": {"request_id": UNKNOWN_ID},
            "get_metrics": {"request_id": UNKNOWN_ID},
            "list_tags": {"request_id": UNKNOWN_ID},
            "get_tag": tag,
            "delete_tag": tag,
            "create_tag": {"request_id": UNKNOWN_ID, "body": TagName("eu")},
            "rename_tag": {**tag, "body": TagName("us")},
        }
        for call, arguments in calls.items():
            words = "could not understand" if "logs" in call else "Bad Request ID provided"
            with pytest.raises(BadRequest, match=words):
                await getattr(cloud, call)(**arguments)


async def test_an_unknown_deployment_can_be_not_found_as_documented() -> None:
    async with a_cloud(unknown_id_status=404) as cloud:
        with pytest.raises(NotFound):
            await cloud.get_deployment(request_id=UNKNOWN_ID)


@pytest.mark.virtual
async def test_row_58_a_terminated_deployment_is_remembered_for_a_while() -> None:
    async with a_cloud(SLEEPER, max_deployments=0, keep_terminated=60) as cloud:
        with pytest.raises(Unprocessable) as refused:
            await cloud.deploy(body=a_request(SLEEPER))
        request_id = refused.value.request_id or ""
        await cloud.stop_deployment(request_id=request_id)
        await asyncio.sleep(59)
        seen = await answer(cloud, "get_deployment", request_id=request_id)
        await asyncio.sleep(2)
        with pytest.raises(BadRequest):
            await cloud.get_deployment(request_id=request_id)

    assert seen.current_status is Status.TERMINATED
    assert cloud.deployments == {}


async def test_row_58_the_number_of_remembered_deployments_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("edgegap_async.emulator.cloud_state._MAX_TERMINATED", 2)
    async with a_cloud(SLEEPER, max_deployments=0) as cloud:
        request_id = ""
        for _ in range(5):
            with pytest.raises(Unprocessable) as refused:
                await cloud.deploy(body=a_request(SLEEPER))
            request_id = refused.value.request_id or ""
            await cloud.stop_deployment(request_id=request_id)
            await reached(cloud.deployments[request_id], Status.TERMINATED)
            await asyncio.sleep(0)
        await cloud.get_deployment(request_id=request_id)

        assert len(cloud.deployments) == 2


async def test_webhooks_come_once_each_with_the_status_of_that_moment() -> None:
    arena = sample_application("--crash-after", "0.3")
    webhooks = SentWebhooks()
    async with a_cloud(arena, webhooks=webhooks) as cloud:
        deployment = await deployed(
            cloud,
            arena,
            webhook_on_ready="http://ready/",
            webhook_on_error="http://error/",
            webhook_on_terminated="http://terminated/",
        )
        await reached(deployment, Status.ERROR)
        for _ in range(3):
            deployment.stop()
        await reached(deployment, Status.TERMINATED)

    assert [(url, sent.current_status) for url, sent in webhooks.events] == [
        ("http://ready/", Status.READY),
        ("http://error/", Status.ERROR),
        ("http://terminated/", Status.TERMINATED),
    ]


async def test_an_impossible_change_of_status_fails() -> None:
    async with a_cloud(SLEEPER) as cloud:
        deployment = await reached(await deployed(cloud, SLEEPER), Status.READY)

        with pytest.raises(AssertionError, match="cannot go from READY to SEEKING"):
            deployment._set_status(Status.SEEKING)


async def test_an_exception_inside_is_kept_until_the_end() -> None:
    async with a_cloud(SLEEPER) as cloud:

        async def broken() -> None:
            raise ZeroDivisionError

        cloud._spawn(broken())
        await asyncio.sleep(0.01)
        (failure,) = cloud.failures
        cloud.failures.clear()

    assert isinstance(failure, ZeroDivisionError)


async def test_ten_deploys_at_once_make_ten_servers() -> None:
    async with a_cloud(ARENA) as cloud:
        deployments = [await deployed(cloud, ARENA) for _ in range(10)]
        await asyncio.gather(*(reached(one, Status.READY) for one in deployments))

        assert len({one.port_numbers["game"] for one in deployments}) == 10
        assert len({one.process.pid for one in deployments if one.process}) == 10
