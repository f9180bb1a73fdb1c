"""`client.run`, `client.close` and the constructor, by the requests that the API gets."""

from __future__ import annotations

import asyncio
import gc
import inspect
import logging
import math
import pydoc
import re
import traceback
from collections.abc import AsyncIterator
from functools import cached_property
from typing import Any

import attrs
import pytest
from one_server import (
    ACCEPTED,
    DEPLOY,
    DEPLOYING,
    LIST,
    LOGS,
    PLAYERS,
    READY,
    STATUS,
    STOP,
    cancel,
    one_server_api,
    operation_tag,
    run_server,
    stops,
)
from scripted_api import Reply, ScriptedApi, deployment

from edgegap_async.client import EdgegapClient
from edgegap_async.concurrency import loop_time
from edgegap_async.errors import (
    BadRequest,
    ClientClosed,
    DeploymentFailed,
    DeploymentTerminated,
    EdgegapError,
    Forbidden,
    InvalidRequest,
    NoAnswer,
    NotFound,
    NotSent,
    ServerError,
    Unprocessable,
    WaitTimedOut,
)
from edgegap_async.http.retries import RetryPolicy
from edgegap_async.polling.schedule import PollingPolicy

pytestmark = pytest.mark.virtual

CANARY = "canary-c0ffee"


@pytest.fixture
async def api() -> AsyncIterator[ScriptedApi]:
    async with one_server_api() as api:
        yield api


@pytest.fixture
async def client(api: ScriptedApi) -> AsyncIterator[EdgegapClient]:
    async with EdgegapClient(CANARY, base_url=api.url) as client:
        yield client


# ── help ─────────────────────────────────────────────────────────────────────────────────────────


def test_help_describes_every_field_and_group_of_calls() -> None:
    shown = pydoc.plain(pydoc.render_doc(EdgegapClient))
    fields = {name for name in vars(EdgegapClient(CANARY)) if not name.startswith("_")}
    groups = {name for name, _ in inspect.getmembers(EdgegapClient, is_cached) if name[0] != "_"}

    assert {"limits", "owner", "poller"} <= fields
    assert {"deployments", "applications"} <= groups
    for name in fields:
        assert f"{name}: " in shown
    for name in groups:
        assert re.search(rf"^ \|  {name}\b.*\n \|      [A-Z]", shown, re.MULTILINE), name


def is_cached(value: object) -> bool:
    return isinstance(value, cached_property)


# ── run ──────────────────────────────────────────────────────────────────────────────────────────


async def test_a_server_is_ready_inside_the_block_and_stopped_after_it(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    api.on(*STATUS, DEPLOYING, READY)
    async with client.run("arena", "v1", users=PLAYERS) as server:
        assert server.endpoint("game").port == 31504
        assert stops(api) == 0

    assert stops(api) == 1
    assert len(api.asked(*DEPLOY)) == 1


async def test_a_server_that_has_ended_before_the_block_ends_is_no_error(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    api.on(*STOP, Reply(410))
    await run_server(client, 1)

    assert stops(api) == 1


async def test_an_error_in_the_block_stops_the_server(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    with pytest.raises(LookupError) as caught:
        async with client.run("arena", "v1", users=PLAYERS):
            raise LookupError

    assert stops(api) == 1
    assert not hasattr(caught.value, "__notes__")


async def test_a_server_that_cannot_be_stopped_fails_a_block_that_went_well(
    api: ScriptedApi, client: EdgegapClient, caplog: pytest.LogCaptureFixture
) -> None:
    api.on(*STOP, Reply(403))
    with pytest.raises(Forbidden):
        await run_server(client, 1)

    assert "abc123 may go on running" in caplog.text


async def test_a_server_that_cannot_be_stopped_is_noted_on_the_error_of_the_block(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    api.on(*STOP, Reply(403))
    with pytest.raises(LookupError) as caught:
        async with client.run("arena", "v1", users=PLAYERS):
            raise LookupError

    [note] = caught.value.__notes__
    assert note.startswith("abc123 could not be stopped: DELETE /v1/stop/abc123 answered 403")
    assert "may go on running and be billed" in note


async def test_a_stop_that_the_client_repeats_is_noted_as_not_stopped_yet(
    api: ScriptedApi,
) -> None:
    api.on(*STOP, Reply(500), Reply())
    once = RetryPolicy(attempts=1)
    async with EdgegapClient(CANARY, base_url=api.url, retries=once) as client:
        with pytest.raises(LookupError) as caught:
            async with client.run("arena", "v1", users=PLAYERS):
                raise LookupError

    [note] = caught.value.__notes__
    assert note.startswith("abc123 could not be stopped yet, the client repeats the stop until it")
    assert "Try again" not in note
    assert stops(api) == 2


async def test_the_timeout_of_run_counts_from_the_call(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    api.on(*DEPLOY, attrs.evolve(ACCEPTED, delay=5))
    api.on(*STATUS, DEPLOYING)
    began = loop_time()
    with pytest.raises(WaitTimedOut):
        await run_server(client, timeout=8)

    assert loop_time() - began == pytest.approx(8, abs=0.1)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (deployment("ERROR"), DeploymentFailed),
        (deployment("TERMINATED"), DeploymentTerminated),
        (DEPLOYING, WaitTimedOut),
        (Reply(404), NotFound),
        (Reply(403), Forbidden),
    ],
    ids=["ERROR", "TERMINATED", "never ready", "unknown", "forbidden"],
)
async def test_a_server_that_is_never_ready_is_stopped(
    api: ScriptedApi, client: EdgegapClient, status: Reply, error: type[EdgegapError]
) -> None:
    api.on(*STATUS, status)
    with pytest.raises(error):
        await run_server(client, timeout=30)

    assert stops(api) == 1


async def test_a_deploy_that_is_refused_leaves_nothing_to_stop(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    api.on(*DEPLOY, Reply(400))
    with pytest.raises(BadRequest):
        await run_server(client)

    assert stops(api) == 0


@pytest.mark.parametrize(("limit", "seconds"), [(4, 4), (300, 10), (None, 10)])
async def test_logs_without_an_answer_take_ten_seconds_and_no_longer_than_the_timeout_of_run(
    api: ScriptedApi, client: EdgegapClient, limit: float | None, seconds: float
) -> None:
    api.on(*STATUS, deployment("ERROR"))
    api.on(*LOGS, Reply(delay=1000))
    began = loop_time()
    with pytest.raises(DeploymentFailed) as caught:
        await run_server(client, timeout=limit)

    assert loop_time() - began == pytest.approx(seconds, abs=1)
    assert caught.value.logs is None
    assert stops(api) == 1


async def test_the_timeout_of_run_does_not_limit_the_block_nor_the_logs_of_a_later_failure(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    api.on(*STATUS, deployment("READY"), deployment("ERROR"))
    api.on(*LOGS, Reply(body={"logs": "out of memory"}))

    async def play() -> None:
        async with client.run("arena", "v1", users=PLAYERS, timeout=4) as server:
            await asyncio.sleep(100)
            await server.refresh()
            await server.wait_ready()

    with pytest.raises(DeploymentFailed) as caught:
        await play()

    assert caught.value.last_lines == "out of memory"


async def test_an_outer_run_does_not_change_the_error_of_an_inner_run(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    api.on(*DEPLOY, ACCEPTED, Reply(202, {"request_id": "def456"}))
    api.on("GET", "/v1/status/def456", deployment("ERROR", request_id="def456"))
    api.on("DELETE", "/v1/stop/def456", Reply())
    inner_logs = ("GET", "/v1/deployment/def456/container-logs")
    api.on(*inner_logs, Reply(200, {"logs": "no map"}))
    with pytest.raises(DeploymentFailed) as caught:
        async with client.run("arena", "v1", users=PLAYERS):
            await run_server(client)

    assert (caught.value.request_id, caught.value.last_lines) == ("def456", "no map")
    assert caught.value.stopped
    assert len(api.asked(*inner_logs)) == 1
    assert stops(api) == 1


@pytest.mark.parametrize("seconds", [0, -1, math.nan])
async def test_an_invalid_timeout_is_refused_and_nothing_is_sent(
    api: ScriptedApi, client: EdgegapClient, seconds: float
) -> None:
    with pytest.raises(InvalidRequest, match="timeout must be above 0"):
        await run_server(client, timeout=seconds)
    for wait in (client.handle("abc123").wait_ready, client.handle("abc123").wait_terminated):
        with pytest.raises(InvalidRequest, match="timeout must be 0 or more, not -1"):
            await wait(-1)
    with pytest.raises(InvalidRequest, match="timeout must be 0 or more, not -1"):
        await client.handle("abc123").stop(wait=True, timeout=-1)

    assert not api.requests


async def test_a_server_that_the_block_has_stopped_gets_one_more_stop_also_if_the_api_forgot_it(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    async with client.run("arena", "v1", users=PLAYERS) as server:
        await server.stop()
        await asyncio.sleep(100)
        api.on(*STOP, Reply(404))
        before, left = stops(api), loop_time()

    assert loop_time() - left < 0.1
    assert stops(api) == before + 1


async def test_row_21_a_422_with_a_deployment_in_error_stops_the_deployment(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    api.on(*DEPLOY, Reply(422, {"message": "no room", "request_id": "abc123"}))
    with pytest.raises(Unprocessable, match="no room") as caught:
        await run_server(client)

    assert caught.value.request_id == "abc123"
    assert stops(api) == 1


async def test_a_deployment_of_a_422_that_cannot_be_stopped_is_noted_on_the_error(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    api.on(*DEPLOY, Reply(422, {"message": "no room", "request_id": "abc123"}))
    api.on(*STOP, Reply(403))
    with pytest.raises(Unprocessable, match="no room") as caught:
        await run_server(client)

    assert "could not be stopped" in caught.value.__notes__[0]


async def test_a_422_without_a_deployment_stops_nothing(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    api.on(*DEPLOY, Reply(422, {"message": "no room"}))
    with pytest.raises(Unprocessable):
        await run_server(client)

    assert len(api.requests) == 1


async def test_the_timeout_of_run_also_ends_a_deploy_without_an_answer(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    api.on(*DEPLOY, attrs.evolve(ACCEPTED, delay=20))
    began = loop_time()
    with pytest.raises(WaitTimedOut, match="did not accept the deploy within timeout=3 s; what it"):
        await run_server(client, timeout=3)
    assert loop_time() - began == pytest.approx(3, abs=0.1)

    await asyncio.sleep(30)
    assert stops(api) == 1


async def test_a_timeout_in_the_queue_for_the_rate_limit_says_that_nothing_was_deployed(
    api: ScriptedApi,
) -> None:
    async with EdgegapClient(CANARY, base_url=api.url, limits={"deploy": 0.01}) as client:
        await run_server(client, 0)
        with pytest.raises(WaitTimedOut, match=r"timeout=0.3 s passed .* rate limit; nothing was"):
            await run_server(client, timeout=0.3)
        request = {"application": "arena", "version": "v1", "users": PLAYERS}
        [outcome] = await client.deploy_many([request], timeout=0.3).all()

    assert "timeout=0.3 s passed before the deploy was sent" in str(outcome.error)
    assert outcome.attempts == 0
    assert len(api.asked(*DEPLOY)) == 1


async def test_an_error_names_the_time_limit_that_the_caller_has_set(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    api.on(*DEPLOY, attrs.evolve(ACCEPTED, delay=1))
    api.on(*STATUS, DEPLOYING)
    with pytest.raises(WaitTimedOut, match="not READY in timeout=5 s; last status: DEPLOYING"):
        await run_server(client, timeout=5)
    request = {"application": "arena", "version": "v1", "users": PLAYERS}
    [late] = await client.deploy_many([request], timeout=5).all()
    [each] = await client.deploy_many([request], timeout_each=5).all()

    assert "not READY in timeout=5 s of the batch" in str(late.error)
    assert "not READY in timeout_each=5 s" in str(each.error)


async def test_a_timeout_of_the_caller_around_run_is_no_wait_timed_out(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    api.on(*DEPLOY, attrs.evolve(ACCEPTED, delay=20))
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(2):
            await run_server(client)

    assert not isinstance(caught.value, WaitTimedOut)


async def test_the_default_timeout_is_300_seconds(api: ScriptedApi, client: EdgegapClient) -> None:
    api.on(*STATUS, DEPLOYING)
    for waiting in (run_server(client), client.handle("abc123").wait_ready()):
        began = loop_time()
        with pytest.raises(WaitTimedOut):
            await waiting
        assert loop_time() - began == pytest.approx(300, abs=0.1)


@pytest.mark.parametrize("reply", [Reply(500), Reply(lost=True), Reply(400)])
async def test_an_error_of_a_run_shows_no_token(
    api: ScriptedApi, client: EdgegapClient, reply: Reply, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    api.on(*DEPLOY, reply)
    with pytest.raises((ServerError, NoAnswer, BadRequest)) as caught:
        await run_server(client)

    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert CANARY not in "".join(shown.format()) + caplog.text


async def test_an_unreachable_api_gives_not_sent() -> None:
    async with ScriptedApi() as api:
        url = api.url
    async with EdgegapClient("canary-t", base_url=url, retries=RetryPolicy(attempts=2)) as client:
        with pytest.raises(NotSent) as caught:
            await run_server(client)

    assert caught.value.attempts == 2


async def test_an_error_of_run_says_that_its_server_ends_only_once_it_is_deployed(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    api.on(*STATUS, deployment("DEPLOYING"))
    accepted = r"The API has accepted its stop: it is billed until READY or ERROR, and then ends$"
    with pytest.raises(WaitTimedOut, match=accepted) as caught:
        async with client.run("arena", "v1", users=["192.0.2.1"], timeout=5):
            pass

    assert caught.value.stopped
    assert stops(api) == 1


async def test_an_error_of_run_does_not_say_stopped_if_the_stop_was_refused(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    api.on(*STATUS, deployment("DEPLOYING"))
    api.on(*STOP, Reply(403))
    with pytest.raises(WaitTimedOut, match="It still exists and is billed") as caught:
        async with client.run("arena", "v1", users=["192.0.2.1"], timeout=5):
            pass

    assert not caught.value.stopped
    assert "could not be stopped" in "".join(caught.value.__notes__)


# ── cancellation ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("status", [DEPLOYING, READY], ids=["in the wait", "in the block"])
async def test_row_29_a_cancelled_run_stops_the_server_before_the_caller_goes_on(
    api: ScriptedApi, client: EdgegapClient, status: Reply
) -> None:
    api.on(*STATUS, status)
    running = asyncio.create_task(run_server(client))
    await asyncio.sleep(5)
    await cancel(running)

    assert stops(api) == 1


async def test_row_29_a_second_cancellation_lets_the_caller_go_and_the_stop_go_on(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    answer = asyncio.Event()
    api.on(*STOP, Reply(after=answer))
    running = asyncio.create_task(run_server(client))
    await asyncio.sleep(5)
    running.cancel()
    await api.until_asked(*STOP)
    await cancel(running)
    answer.set()
    await client.close()

    assert stops(api) == 1


POLL_AT_ONCE = PollingPolicy(first_delay=1e-6, interval=1e-6)  # so that no step waits for the clock


async def test_row_28_a_run_that_is_cancelled_at_any_step_leaves_nothing_running(
    api: ScriptedApi,
) -> None:
    ran_to_its_end, steps = False, 0
    while not ran_to_its_end:
        api.requests.clear()
        async with EdgegapClient("canary-t", base_url=api.url, polling=POLL_AT_ONCE) as client:
            running = asyncio.create_task(run_server(client, 0))
            for _ in range(steps):
                await asyncio.sleep(0)
            ran_to_its_end = not running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        steps += 1

        assert stops(api) == len(api.asked(*DEPLOY)) <= 1
    assert steps > 20


async def test_row_31_a_client_that_is_closed_at_any_step_leaves_nothing_running(
    api: ScriptedApi,
) -> None:
    ran_to_its_end, steps = False, 0
    while not ran_to_its_end:
        api.requests.clear()
        async with EdgegapClient("canary-t", base_url=api.url, polling=POLL_AT_ONCE) as client:
            running = asyncio.create_task(run_server(client, 0))
            for _ in range(steps):
                await asyncio.sleep(0)
            ran_to_its_end = running.done()
            await client.close()
            [outcome] = await asyncio.gather(running, return_exceptions=True)
        steps += 1

        assert stops(api) == len(api.asked(*DEPLOY)) <= 1
        assert outcome is None or isinstance(outcome, ClientClosed)
    assert steps > 20


# ── close ────────────────────────────────────────────────────────────────────────────────────────


async def test_close_stops_the_server_of_run_and_ends_the_wait(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    api.on(*STATUS, DEPLOYING)
    running = asyncio.create_task(run_server(client))
    await asyncio.sleep(5)
    await client.close()
    assert stops(api) == 1
    with pytest.raises(ClientClosed):
        await running

    assert stops(api) == 1


async def test_close_stops_a_server_inside_its_block(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    async with client.run("arena", "v1", users=PLAYERS):
        await client.close()
        assert stops(api) == 1

    assert stops(api) == 1


async def test_close_does_not_stop_a_server_that_the_caller_has(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    await client.deploy("arena", "v1", users=PLAYERS)
    await client.close()

    assert stops(api) == 0


async def test_a_closed_client_deploys_nothing(api: ScriptedApi, client: EdgegapClient) -> None:
    await client.close()
    await client.close()
    with pytest.raises(ClientClosed):
        await run_server(client)

    assert not api.requests


async def test_row_30_close_has_a_time_limit_and_logs_what_may_go_on_running(
    api: ScriptedApi, client: EdgegapClient, caplog: pytest.LogCaptureFixture
) -> None:
    api.on(*STOP, Reply(delay=29))
    running = asyncio.create_task(run_server(client))
    await asyncio.sleep(5)
    began = loop_time()
    await client.close()

    assert loop_time() - began == pytest.approx(10, abs=0.1)
    assert caplog.text.count("abc123 may go on running: the client was closed before") == 1
    await cancel(running)


async def test_close_waits_also_for_a_stop_that_begins_meanwhile(
    api: ScriptedApi, caplog: pytest.LogCaptureFixture
) -> None:
    """The first answer is lost, and what it made shows up when there is a second one."""
    api.on(*DEPLOY, Reply(lost=True), Reply(202, {"request_id": "second"}, delay=2))
    api.on("DELETE", "/v1/stop/second", Reply())
    async with EdgegapClient("canary-t", base_url=api.url, list_delay=3) as client:
        running = asyncio.create_task(run_server(client))
        await api.until_asked(*DEPLOY, times=2)
        rows = [{"request_id": name, "tags": [operation_tag(api)]} for name in ("abc123", "second")]
        api.on(*LIST, Reply(200, {"data": rows}))
        await client.close()

        assert stops(api) == len(api.asked("DELETE", "/v1/stop/second")) == 1
        with pytest.raises(ClientClosed):
            await running
    assert "may go on running" not in caplog.text


async def test_a_caller_whose_stop_is_given_up_by_close_gets_client_closed_and_no_cancellation(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    api.on(*STOP, Reply(delay=29))
    running = asyncio.create_task(run_server(client, 5))
    await api.until_asked(*STOP)
    await client.close()
    with pytest.raises(ClientClosed, match="closed before abc123 was stopped"):
        await running


async def test_a_cancelled_close_gives_stops_two_seconds_and_logs_what_may_go_on_running(
    api: ScriptedApi, client: EdgegapClient, caplog: pytest.LogCaptureFixture
) -> None:
    api.on(*STOP, Reply(delay=29))
    running = asyncio.create_task(run_server(client))
    await asyncio.sleep(5)
    began = loop_time()
    closing = asyncio.create_task(client.close())
    await api.until_asked(*STOP)
    await cancel(closing)

    assert loop_time() - began == pytest.approx(2, abs=0.1)
    assert "abc123 may go on running" in caplog.text
    await cancel(running)


async def test_a_close_that_is_cancelled_at_once_leaves_no_unawaited_deploy(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    api.on(*DEPLOY, Reply(202, {"request_id": "abc123"}, delay=5))
    dropped = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: dropped.append(context))
    deploying = asyncio.create_task(client.deploy("arena", "v1", users=PLAYERS))
    await api.until_asked(*DEPLOY)
    closing = asyncio.create_task(client.close())
    await asyncio.sleep(0)
    await cancel(closing)
    with pytest.raises(ClientClosed):
        await deploying
    await asyncio.sleep(0.1)
    del deploying, closing
    gc.collect()

    assert dropped == []


async def test_a_background_stop_that_fails_is_logged(
    api: ScriptedApi, client: EdgegapClient, caplog: pytest.LogCaptureFixture
) -> None:
    api.on(*STOP, Reply(403))
    running = asyncio.create_task(run_server(client))
    await asyncio.sleep(5)
    await client.close()

    assert "abc123 may go on running: it could not be stopped: DELETE" in caplog.text
    await cancel(running)


async def test_a_stop_whose_answer_is_lost_is_repeated(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    api.on(*STOP, Reply(500), Reply(lost=True), Reply(410))
    await run_server(client, 1)

    assert stops(api) == 3


# ── the constructor, and what errors show ────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"polling": 1}, "polling must be of type PollingPolicy"),
        ({"webhooks": "https://mm.example.com"}, "webhooks must be a WebhookReceiver"),
        ({"list_delay": "10"}, "list_delay must be of type int or float"),
        ({"list_delay": -1}, "list_delay must be 0 or more"),
        ({"owner": 5}, "owner must be of type str"),
    ],
)
async def test_an_argument_of_a_wrong_type_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        EdgegapClient("canary-t", **settings)


async def test_the_error_of_the_constructor_shows_no_token() -> None:
    with pytest.raises(InvalidRequest) as caught:
        EdgegapClient(CANARY, base_url="nowhere")

    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert CANARY not in "".join(shown.format())


async def test_a_closed_client_cannot_be_entered_again(client: EdgegapClient) -> None:
    await client.close()
    with pytest.raises(ClientClosed, match="make another"):
        async with client:
            pytest.fail("entered")
