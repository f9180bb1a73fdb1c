"""Rows 37 to 39 and 44: webhooks are lost, doubled, early or late; a receiver ends."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from emulated_cloud import until
from webhook_servers import (
    USERS,
    WEBHOOK_FIELDS,
    a_cloud,
    sources,
    statuses,
)

from edgegap_async import EdgegapClient, Status, WebhookReceiver
from edgegap_async.concurrency import loop_time
from edgegap_async.emulator import (
    Delay,
    Drop,
    Fault,
    Repeat,
)
from edgegap_async.models import WebhookEvent

virtual = pytest.mark.virtual


@virtual
async def test_row_37_polling_finds_ready_and_the_end_when_every_webhook_is_lost() -> None:
    lost = [Fault(name, Drop(), times=None) for name in WEBHOOK_FIELDS]
    async with (
        WebhookReceiver().serve() as receiver,
        a_cloud(*lost, receiver=receiver) as (_, client),
    ):
        server = await client.deploy("arena", "v1", users=USERS)
        await server.wait_ready()
        await server.stop(wait=True)

        assert set(sources(server).values()) == {"status"}
        assert receiver.stats.received == 0


@virtual
async def test_row_37_polling_finds_an_error_when_its_webhook_is_lost() -> None:
    lost = [Fault(name, Drop(), times=None) for name in WEBHOOK_FIELDS]
    failing: dict[str, Any] = {"crash_share": 1.0, "crash_after": (3.0, 3.0)}
    async with (
        WebhookReceiver().serve() as receiver,
        a_cloud(*lost, receiver=receiver, **failing) as (_, client),
    ):
        server = await client.deploy("arena", "v1", users=USERS)
        with pytest.raises(Exception, match="exited with code 1"):
            await server.wait_ready()

        assert server.status is Status.ERROR


@virtual
async def test_row_38_a_webhook_sent_three_times_is_one_change_and_one_event() -> None:
    events: list[tuple[str, str]] = []

    async def note(event: WebhookEvent) -> None:
        events.append((event.kind, event.deployment.request_id))

    doubled = [Fault(name, Repeat(3), times=None) for name in WEBHOOK_FIELDS]
    async with (
        WebhookReceiver(on_event=note).serve() as receiver,
        a_cloud(*doubled, receiver=receiver) as (_, client),
    ):
        server = await client.deploy("arena", "v1", users=USERS)
        await server.wait_ready()
        await server.stop(wait=True)
        await until(lambda: receiver.stats.received == 6)

        assert statuses(server).count("READY") == statuses(server).count("TERMINATED") == 1
        assert sources(server)["READY"] == "webhook"
        assert events == [("ready", server.request_id), ("terminated", server.request_id)]


@virtual
async def test_row_39_a_ready_webhook_after_terminated_changes_nothing() -> None:
    async with (
        WebhookReceiver().serve() as receiver,
        a_cloud(Fault("webhook_on_ready", Delay(15)), receiver=receiver, ready_after=1.0) as (
            emulator,
            client,
        ),
    ):
        server = await client.deploy("arena", "v1", users=USERS)
        local = emulator.cloud.deployments[server.request_id]
        await until(lambda: local.status is Status.READY)
        await server.stop(wait=True)
        await until(lambda: receiver.stats.received == 1)
        history = server.history
        await until(lambda: receiver.stats.received == 2)
        await asyncio.sleep(30)

        assert server.status is Status.TERMINATED
        assert server.history == history


@virtual
async def test_row_39_a_webhook_before_the_answer_to_the_deploy_is_not_lost() -> None:
    async with (
        WebhookReceiver().serve() as receiver,
        a_cloud(Fault("deploy", Delay(10)), receiver=receiver, ready_after=1.0) as (_, client),
    ):
        server = await client.deploy("arena", "v1", users=USERS)
        assert receiver.stats.received == 1
        began = loop_time()
        await server.wait_ready()

        assert loop_time() - began < 0.2
        assert sources(server)["READY"] == "webhook"


@virtual
async def test_row_44_a_receiver_that_ends_delays_a_wait_and_does_not_end_it() -> None:
    async with contextlib.AsyncExitStack() as stack:
        receiver = await stack.enter_async_context(WebhookReceiver().serve())
        async with a_cloud(receiver=receiver) as (_, client):
            server = await client.deploy("arena", "v1", users=USERS)
            waiting = asyncio.create_task(server.wait_ready())
            await asyncio.sleep(2)
            await stack.aclose()

            assert (await waiting).current_status is Status.READY
            assert sources(server)["READY"] == "status"


@virtual
async def test_row_44_a_restarted_program_asks_the_api_for_what_it_missed() -> None:
    async with (
        WebhookReceiver().serve() as before,
        a_cloud(receiver=before, ready_after=1.0) as (emulator, client),
    ):
        server = await client.deploy("arena", "v1", users=USERS)
        await until(lambda: before.stats.received == 1)
        async with (
            WebhookReceiver().serve() as after,
            EdgegapClient(emulator.token, base_url=emulator.url, webhooks=after) as restarted,
        ):
            again = restarted.handle(server.request_id)
            await again.wait_ready()

            assert statuses(again) == ["READY"]
            # It does not know the URLs of the earlier receiver.
            assert after.stats.received == after.stats.unknown == 0
