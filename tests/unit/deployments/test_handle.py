"""Handles: waiting for a deployment, its endpoint, stopping it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from one_server import DEPLOYING, READY, STATUS, STOP, cancel, one_server_api, stops
from scripted_api import Reply, ScriptedApi, deployment

from edgegap_async.api.models import DeployAccepted, Deployment, Endpoint, Port, Status
from edgegap_async.client import EdgegapClient
from edgegap_async.concurrency import loop_time
from edgegap_async.deployments.handle import DeploymentHandle, tracker_of
from edgegap_async.errors import Forbidden, InvalidRequest, NotFound, WaitTimedOut

pytestmark = pytest.mark.virtual


@pytest.fixture
async def api() -> AsyncIterator[ScriptedApi]:
    async with one_server_api() as api:
        yield api


@pytest.fixture
async def client(api: ScriptedApi) -> AsyncIterator[EdgegapClient]:
    async with EdgegapClient("canary-t", base_url=api.url) as client:
        yield client


# ── handles ──────────────────────────────────────────────────────────────────────────────────────


async def test_a_handle_waits_until_the_server_is_ready(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    api.on(*STATUS, DEPLOYING, READY)
    handle = client.handle("abc123")
    assert not api.requests
    ready = await handle.wait_ready()

    assert ready == handle.deployment
    assert handle.status == Status.READY
    assert [str(change.status) for change in handle.history] == ["DEPLOYING", "READY"]
    assert handle.status_requests == 2
    assert repr(handle) == "<DeploymentHandle abc123 READY>"


async def test_a_refresh_is_one_status_request(api: ScriptedApi, client: EdgegapClient) -> None:
    handle = client.handle("abc123")

    assert (await handle.refresh()).current_status.is_ready
    assert handle.status == Status.READY
    assert len(api.requests) == 1


@pytest.mark.parametrize("known_by", ["a status", "an earlier stop", "the caller", "410"])
@pytest.mark.parametrize("status", [410, 404, 400])
async def test_row_20_stopping_what_is_stopped_already_is_fine(
    api: ScriptedApi, client: EdgegapClient, status: int, known_by: str
) -> None:
    handle = client.handle("abc123")
    if known_by == "a status":
        await handle.refresh()
    if known_by == "an earlier stop":
        await handle.stop()
    api.on(*STOP, Reply(410 if known_by == "410" else status))
    await client.handle("abc123").stop(missing_ok=known_by == "the caller")

    assert stops(api) == (2 if known_by == "an earlier stop" else 1)


@pytest.mark.parametrize("status", [404, 400])
async def test_stopping_an_id_that_no_answer_has_shown_is_not_found(
    api: ScriptedApi, client: EdgegapClient, status: int
) -> None:
    api.on(*STOP, Reply(status))
    with pytest.raises(NotFound):
        await client.handle("abc123").stop()

    assert stops(api) == 1


async def test_a_stop_whose_first_answer_was_lost_has_succeeded(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    api.on(*STOP, Reply(lost=True), Reply(404))
    await client.handle("abc123").stop()

    assert stops(api) == 2


async def test_a_stop_says_where_the_logs_go(api: ScriptedApi, client: EdgegapClient) -> None:
    await client.handle("abc123").stop(container_log_storage="mine")

    assert api.requests[0].query == {"container_log_storage": "mine"}


async def test_a_stop_may_wait_for_the_end(api: ScriptedApi, client: EdgegapClient) -> None:
    handle = client.handle("abc123")
    await handle.refresh()
    api.on(*STATUS, *map(deployment, ["TERMINATING", "TERMINATED"]))
    await handle.stop(wait=True)

    assert handle.status == Status.TERMINATED
    assert {change.source for change in handle.history} == {"status"}


async def test_a_stop_that_waits_ends_also_if_no_status_was_ever_known(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    api.on(*STOP, Reply(410))
    api.on(*STATUS, Reply(404))
    await client.handle("abc123").stop(wait=True)

    assert loop_time() < 60


async def test_a_stop_that_takes_too_long_raises_wait_timed_out(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    api.on(*STATUS, deployment("TERMINATING"))
    with pytest.raises(WaitTimedOut, match="not TERMINATED in 5 s"):
        await client.handle("abc123").stop(wait=True, timeout=5)


async def test_a_wait_for_the_end_says_that_a_deployment_in_error_does_not_end(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    api.on(*STATUS, deployment("ERROR"))
    with pytest.raises(WaitTimedOut, match="ERROR, in which it stays until something stops it"):
        await client.handle("abc123").wait_terminated(timeout=5)


async def test_a_stop_brings_the_next_status_request_forward(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    handle = client.handle("abc123")
    ending = asyncio.create_task(handle.wait_terminated(timeout=None))
    await asyncio.sleep(200)
    asked = len(api.asked(*STATUS))
    await handle.stop()
    await asyncio.sleep(1)  # of the ten until the next one without the stop

    assert len(api.asked(*STATUS)) > asked
    await cancel(ending)


async def test_a_stop_that_is_refused_raises(api: ScriptedApi, client: EdgegapClient) -> None:
    api.on(*STOP, Reply(403))
    with pytest.raises(Forbidden):
        await client.handle("abc123").stop(wait=True)


async def test_changes_come_in_order_and_end_with_the_deployment(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    api.on(*STATUS, *map(deployment, ["SEEKING", "READY", "TERMINATING", "TERMINATED"]))
    handle = client.handle("abc123")
    await handle.wait_ready()
    reported = [(str(change.status), loop_time()) async for change in handle.changes()]

    assert [status for status, _ in reported] == ["SEEKING", "READY", "TERMINATING", "TERMINATED"]
    assert reported[0][1] == pytest.approx(reported[1][1], abs=0.01)
    assert reported[3][1] - reported[2][1] == pytest.approx(0.5, rel=0.2)


async def test_changes_end_with_an_error_too(api: ScriptedApi, client: EdgegapClient) -> None:
    api.on(*STATUS, *map(deployment, ["SEEKING", "ERROR"]))

    assert [str(change.status) async for change in client.handle("abc123").changes()] == [
        "SEEKING",
        "ERROR",
    ]


async def test_the_end_of_the_iteration_ends_the_polling(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    async for change in client.handle("abc123").changes():
        assert change.status == Status.READY
        break
    await asyncio.sleep(60)

    assert len(api.requests) == 1


# ── endpoints ────────────────────────────────────────────────────────────────────────────────────


def handle_of(client: EdgegapClient, *ports: Port, **more: Any) -> DeploymentHandle:
    handle = client.handle("abc123")
    named = {port.name or str(port.internal): port for port in ports}
    place: dict[str, Any] = {"fqdn": "abc123.pr.edgegap.net", "public_ip": "192.0.2.7"}
    ready = Deployment(request_id="abc123", current_status=Status.READY, ports=named)
    values = {name: getattr(ready, name) for name in ("request_id", "current_status", "ports")}
    handle._tracker.update(Deployment(**(values | place | more)))
    return handle


GAME = Port(name="game", external=31504, internal=7777, protocol="UDP")
WEB = Port(name="web", external=443, internal=80, protocol="Websocket", tls_upgrade=True)


async def test_an_endpoint_is_where_players_connect(client: EdgegapClient) -> None:
    handle = handle_of(client, GAME)

    expected = Endpoint(host="192.0.2.7", port=31504, protocol="UDP", link="192.0.2.7:31504")
    assert handle.endpoint("game") == expected
    assert handle.endpoint() == expected


async def test_an_endpoint_with_tls_goes_by_name(client: EdgegapClient) -> None:
    endpoint = handle_of(client, GAME, WEB).endpoint("web")

    assert endpoint.host == "abc123.pr.edgegap.net"
    assert endpoint.protocol == "WS"


async def test_an_endpoint_takes_the_link_that_the_api_gives(client: EdgegapClient) -> None:
    port = Port(name="web", external=443, link="https://abc123.pr.edgegap.net:443")

    assert str(handle_of(client, port).endpoint()) == "https://abc123.pr.edgegap.net:443"
    assert handle_of(client, port).endpoint().protocol == ""


@pytest.mark.parametrize(
    ("port", "missing", "host"),
    [(GAME, "public_ip", "abc123.pr.edgegap.net"), (WEB, "fqdn", "192.0.2.7")],
    ids=["no address", "no name"],
)
async def test_an_endpoint_takes_the_address_or_the_name_that_there_is(
    client: EdgegapClient, port: Port, missing: str, host: str
) -> None:
    assert handle_of(client, port, **{missing: None}).endpoint().host == host


async def test_a_port_without_an_address_is_refused(client: EdgegapClient) -> None:
    with pytest.raises(InvalidRequest, match="gives no address for port 'game'"):
        handle_of(client, GAME, fqdn=None, public_ip=None).endpoint()
    with pytest.raises(InvalidRequest, match="gives no address for port 'game'"):
        handle_of(client, Port(name="game")).endpoint()
    with pytest.raises(InvalidRequest, match="gives no address for port 'game'"):
        handle_of(client, Port(name="game", external=0, link="192.0.2.7:0")).endpoint()


async def test_a_port_that_does_not_exist_is_refused(client: EdgegapClient) -> None:
    with pytest.raises(InvalidRequest, match="no port 'gmae' on abc123; there is: game, web"):
        handle_of(client, GAME, WEB).endpoint("gmae")
    with pytest.raises(InvalidRequest, match="no port None on abc123; there is: game, web"):
        handle_of(client, GAME, WEB).endpoint()
    with pytest.raises(InvalidRequest, match="there is: none"):
        handle_of(client).endpoint()


async def test_there_is_no_endpoint_before_the_server_is_ready(client: EdgegapClient) -> None:
    with pytest.raises(InvalidRequest, match="not READY"):
        client.handle("abc123").endpoint()
    with pytest.raises(InvalidRequest, match="not READY"):
        handle_of(client, GAME, current_status=Status.DEPLOYING).endpoint()


# ── invalid arguments ────────────────────────────────────────────────────────────────────────────


async def test_a_timeout_that_is_not_a_number_is_named(client: EdgegapClient) -> None:
    handle: Any = client.handle("abc123")
    for wait in (handle.wait_ready, handle.wait_terminated):
        with pytest.raises(InvalidRequest, match="timeout must be of type int or float, not '10'"):
            await wait("10")


async def test_an_invalid_request_id_is_refused(client: EdgegapClient) -> None:
    with pytest.raises(InvalidRequest, match="request_id"):
        client.handle(DeployAccepted(request_id="abc123"))  # type: ignore[arg-type]


@pytest.mark.parametrize("status", ["ERROR", "TERMINATED"])
async def test_an_ended_deployment_has_no_endpoint(
    api: ScriptedApi, client: EdgegapClient, status: str
) -> None:
    api.on(*STATUS, deployment(status))
    handle = client.handle("abc123")
    await handle.refresh()
    with pytest.raises(InvalidRequest, match=f"is {status}: deploy another"):
        handle.endpoint("game")


async def test_a_status_request_that_fails_answers_no_webhook(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    handle = client.handle("abc123")
    tracker = tracker_of(handle)
    tracker.webhook_received()
    api.on(*STATUS, Reply(403), deployment("READY"))
    with pytest.raises(Forbidden):
        await handle.refresh()
    assert tracker.webhook_pending
    await handle.refresh()

    assert not tracker.webhook_pending
