"""A caller's trace or log context is in its own calls and in no others. Row 81."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from contextvars import ContextVar
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
from arena import PLAYERS, arena_client, arena_cloud, arena_pool, becomes_true
from emulator_record import alive
from flaky_api import FlakyApi
from poller_waits import wait_all

from edgegap_async import WebhookReceiver
from edgegap_async.concurrency import create_detached_task
from edgegap_async.emulator import Simulation
from edgegap_async.http.api_client import ApiClient
from edgegap_async.models import WebhookEvent
from edgegap_async.observability import ObservedCall, Observer
from edgegap_async.polling.poller import StatusPoller
from edgegap_async.polling.schedule import PollingPolicy

pytestmark = pytest.mark.virtual

caller: Final[ContextVar[str]] = ContextVar("caller", default="none")


class Callers(Observer):
    """Records in the context of which caller each call is made.

    Attributes:
        of: the callers by operation.
    """

    def __init__(self) -> None:
        self.of = defaultdict[str, set[str]](set)

    def call_started(self, call: ObservedCall) -> None:
        """Records the context of a call."""
        self.of[call.operation.name].add(caller.get())


async def test_row_81_a_detached_task_has_an_empty_context() -> None:
    async def see() -> str:
        return caller.get()

    caller.set("first")

    assert await create_detached_task(see()) == "none"
    assert await asyncio.create_task(see()) == "first"


@pytest.mark.parametrize("count", [1, 5])
async def test_row_81_status_and_list_requests_are_in_no_callers_context(count: int) -> None:
    callers = Callers()
    async with FlakyApi() as flaky_api, ApiClient("canary-t", base_url=flaky_api.url) as client:
        client.add_observer(callers)
        poller = StatusPoller(client, PollingPolicy())
        caller.set("first")
        await wait_all(poller, flaky_api.deploy(count, ready_in=3))

    assert callers.of["list_deployments" if count > 1 else "get_deployment"] == {"none"}
    assert set().union(*callers.of.values()) == {"none"}


async def test_row_81_a_deploy_is_in_its_callers_context_and_its_stop_in_none() -> None:
    callers = Callers()
    async with arena_cloud() as emulator, arena_client(emulator) as client:
        client.add_observer(callers)
        caller.set("first")
        async with client.run("arena", "v1", users=PLAYERS):
            pass

    assert callers.of["deploy"] == {"first"}
    assert callers.of["stop_deployment"] == {"none"}


async def test_row_81_a_cancelled_deploy_is_undone_in_no_callers_context() -> None:
    callers = Callers()
    async with (
        arena_cloud(round_trip_time=(0.5, 0.5)) as emulator,
        arena_client(emulator) as client,
    ):
        client.add_observer(callers)
        caller.set("first")
        deploying = asyncio.create_task(client.deploy("arena", "v1", users=PLAYERS))
        await asyncio.sleep(0.3)
        deploying.cancel()
        await asyncio.wait([deploying])

    assert callers.of["stop_deployment"] == {"none"}
    assert alive(emulator) == set()


async def test_row_81_a_pool_works_in_no_callers_context() -> None:
    callers = Callers()
    async with (
        arena_cloud(simulate=Simulation(seed=7, ready_after=(2.0, 2.0))) as emulator,
        arena_client(emulator, owner="matchmaker") as client,
    ):
        client.add_observer(callers)
        caller.set("opener")
        async with arena_pool(client, min_ready=2, max_age=30, poll_interval=5) as pool:
            caller.set("first")
            async with pool.allocate():
                pass
            await asyncio.sleep(60)
    changes = {name: of for name, of in callers.of.items() if name != "list_deployments"}

    assert {"deploy", "get_deployment", "stop_deployment"} < set(changes)
    assert set().union(*changes.values()) == {"none"}
    assert callers.of["list_deployments"] == {"opener", "none"}  # it looks for servers as it opens


async def test_row_81_a_pool_adopts_servers_in_no_callers_context() -> None:
    callers = Callers()
    async with arena_cloud() as emulator:
        tags = ["pool-default"]
        async with arena_client(emulator, owner="matchmaker") as earlier:
            server = await earlier.deploy("arena", "v1", users=PLAYERS, tags=tags)
        async with arena_client(emulator, owner="matchmaker") as client:
            client.add_observer(callers)
            caller.set("opener")
            async with arena_pool(client, min_ready=1) as pool:
                await becomes_true(lambda: pool.stats.ready)
                assert (await pool.allocate()).request_id == server.request_id

    assert callers.of["get_deployment"] == {"none"}


async def test_row_81_on_event_runs_in_no_callers_context() -> None:
    seen, came = list[str](), asyncio.Event()

    async def on_event(_: WebhookEvent) -> None:
        seen.append(caller.get())
        came.set()

    receiver = WebhookReceiver("http://127.0.0.1:1", on_event=on_event)
    subscription = receiver.open(lambda: None)
    body = json.dumps({"request_id": "abc123", "current_status": "Status.READY"}).encode()
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "path": urlsplit(subscription.url("ready")).path,
        "headers": [],
    }
    sent = list[dict[str, Any]]()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    async def send(message: Any) -> None:
        sent.append(message)

    caller.set("the server's request")
    await receiver.asgi()(scope, receive, send)
    await came.wait()
    await receiver.close()

    assert sent[0]["status"] == 204
    assert seen == ["none"]
