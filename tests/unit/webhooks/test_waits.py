"""Webhooks end the waits of a client, and lost ones only delay them."""

from __future__ import annotations

import asyncio
import gc

import aiohttp
import pytest
from scripted_api import Reply, ScriptedApi, deployment
from webhook_servers import PUBLIC, status_of

from edgegap_async import EdgegapClient, PollingPolicy
from edgegap_async.concurrency import loop_time
from edgegap_async.webhooks.receiver import WebhookReceiver

DEPLOY = ("POST", "/v2/deployments")


STATUS = ("GET", "/v1/status/abc123")


POLLING = PollingPolicy(first_delay=3, interval=3)  # seconds; the webhook comes first


@pytest.mark.virtual
async def test_a_webhook_ends_a_wait_before_the_next_status_request(
    session: aiohttp.ClientSession,
) -> None:
    async with (
        ScriptedApi() as api,
        WebhookReceiver().serve() as receiver,
        EdgegapClient("canary-t", base_url=api.url, webhooks=receiver, polling=POLLING) as client,
    ):
        api.on(*DEPLOY, Reply(202, {"request_id": "abc123"}))
        api.on(*STATUS, deployment("READY"))
        handle = await client.deploy("arena", "v1", users=["192.0.2.1"])
        began = loop_time()
        waiting = asyncio.create_task(handle.wait_ready())
        await asyncio.sleep(1)
        assert not api.asked(*STATUS)

        url = api.requests[0].json["webhook_on_ready"]["url"]
        assert await status_of(session, url) == 204
        await waiting

        assert loop_time() - began == pytest.approx(1, abs=0.1)
        assert [change.source for change in handle.history] == ["webhook"]


@pytest.mark.virtual
async def test_a_webhook_before_the_answer_to_the_deploy_is_not_lost(
    session: aiohttp.ClientSession,
) -> None:
    async with (
        ScriptedApi() as api,
        WebhookReceiver().serve() as receiver,
        EdgegapClient("canary-t", base_url=api.url, webhooks=receiver, polling=POLLING) as client,
    ):
        answer = asyncio.Event()
        api.on(*DEPLOY, Reply(202, {"request_id": "abc123"}, after=answer))
        api.on(*STATUS, deployment("READY"))
        deploying = asyncio.create_task(client.deploy("arena", "v1", users=["192.0.2.1"]))
        await api.until_asked(*DEPLOY)
        url = api.requests[0].json["webhook_on_ready"]["url"]
        assert await status_of(session, url) == 204
        answer.set()
        began = loop_time()
        await (await deploying).wait_ready()

        assert loop_time() - began < 0.1


@pytest.mark.virtual
async def test_polling_finds_ready_after_a_lost_webhook() -> None:
    async with (
        ScriptedApi() as api,
        WebhookReceiver().serve() as receiver,
        EdgegapClient("canary-t", base_url=api.url, webhooks=receiver, polling=POLLING) as client,
    ):
        api.on(*DEPLOY, Reply(202, {"request_id": "abc123"}))
        api.on(*STATUS, deployment("DEPLOYING"), deployment("READY"))
        handle = await client.deploy("arena", "v1", users=["192.0.2.1"])
        began = loop_time()
        await handle.wait_ready()

        assert loop_time() - began == pytest.approx(6, abs=0.7)
        assert {change.source for change in handle.history} == {"status"}


@pytest.mark.virtual
async def test_the_callers_own_webhook_urls_are_kept() -> None:
    async with (
        ScriptedApi() as api,
        EdgegapClient("canary-t", base_url=api.url, webhooks=WebhookReceiver(PUBLIC)) as client,
    ):
        api.on(*DEPLOY, Reply(202, {"request_id": "abc123"}))
        own = "https://own.example/ready"
        await client.deploy("arena", "v1", users=["192.0.2.1"], webhook_on_ready=own)
        body = api.requests[0].json

        assert body["webhook_on_ready"]["url"] == own
        assert body["webhook_on_error"]["url"].startswith(PUBLIC)
        assert body["webhook_on_terminated"]["url"].startswith(PUBLIC)


@pytest.mark.virtual
async def test_a_dropped_handle_closes_its_urls_and_later_webhooks_count_as_late(
    session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        ScriptedApi() as api,
        WebhookReceiver().serve() as receiver,
        EdgegapClient("canary-t", base_url=api.url, webhooks=receiver) as client,
    ):
        api.on(*DEPLOY, Reply(202, {"request_id": "abc123"}))
        handle = await client.deploy("arena", "v1", users=["192.0.2.1"])
        url = api.requests[0].json["webhook_on_ready"]["url"]
        assert await status_of(session, url) == 204
        del handle
        gc.collect()

        assert await status_of(session, url) == 404
        assert (receiver.stats.late, receiver.stats.unknown) == (1, 0)
        assert "rejected" not in caplog.text
        assert await status_of(session, url.replace("/ready", "s/ready")) == 404
        assert (receiver.stats.late, receiver.stats.unknown) == (1, 1)
        assert "rejected: its URL is unknown" in caplog.text
