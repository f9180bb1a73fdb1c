"""Whatever happens to the caller, the API's own record says what was deployed and what stopped."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import attrs
import pytest
from scripted_api import Reply, ScriptedApi, deployment

from edgegap_async.client import EdgegapClient
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
from edgegap_async.webhooks.receiver import WebhookReceiver

pytestmark = pytest.mark.virtual

DEPLOY = ("POST", "/v2/deployments")
FLEET = ("POST", "/v2/private-fleets:deploy")
STATUS = ("GET", "/v1/status/abc123")
STOP = ("DELETE", "/v1/stop/abc123")
LIST = ("GET", "/v1/deployments")
LOGS = ("GET", "/v1/deployment/abc123/container-logs")

CANARY = "canary-c0ffee"
ACCEPTED = Reply(202, {"request_id": "abc123"})
READY = deployment("READY")
DEPLOYING = deployment("DEPLOYING")
PLAYERS = ["192.0.2.1"]


@pytest.fixture
async def api() -> AsyncIterator[ScriptedApi]:
    async with ScriptedApi() as api:
        api.on(*DEPLOY, ACCEPTED)
        api.on(*STATUS, READY)
        api.on(*STOP, Reply())
        api.on(*LIST, Reply(200, {"data": []}))
        api.on(*LOGS, Reply(200, {"logs": "out of ammunition"}))
        yield api


@pytest.fixture
async def client(api: ScriptedApi) -> AsyncIterator[EdgegapClient]:
    async with EdgegapClient(CANARY, base_url=api.url) as client:
        yield client


def now() -> float:
    return asyncio.get_running_loop().time()


def operation_tag(api: ScriptedApi) -> str:
    """The tag of the wish in the last deploy."""
    return str(api.asked(*DEPLOY)[-1].json["tags"][-1])


def stops(api: ScriptedApi) -> int:
    return len(api.asked(*STOP))


async def use(client: EdgegapClient, seconds: float = 1000, **options: Any) -> None:
    """Runs a server, and uses it for a while."""
    async with client.run("arena", "v1", users=PLAYERS, **options):
        await asyncio.sleep(seconds)


# ── deploy ───────────────────────────────────────────────────────────────────────────────────────


async def test_a_deploy_gives_a_handle_and_makes_one_call(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    handle = await client.deploy("arena", "v1", users=PLAYERS, tags=["eu"])

    assert handle.request_id == "abc123"
    assert (handle.status, handle.deployment, handle.history, handle.status_requests) == (
        None,
        None,
        (),
        0,
    )
    assert repr(handle) == "<DeploymentHandle abc123 not seen yet>"
    assert len(api.requests) == 1
    assert api.requests[0].json["tags"][0] == "eu"
    assert "webhook_on_ready" not in api.requests[0].json


async def test_private_hosts_make_it_a_fleet_deploy(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    api.on(*FLEET, ACCEPTED)
    await client.deploy("arena", "v1", users=PLAYERS, private_host_ids=["h1"])
    await client.deploy("arena", "v1", users=PLAYERS, private_host_ids=[])

    assert api.requests[0].json["private_host_ids"] == ["h1"]
    assert (api.requests[1].method, api.requests[1].path) == DEPLOY


@pytest.mark.parametrize("users", [[], ["not an address"]])
async def test_a_deploy_that_cannot_be_sent_is_not(
    api: ScriptedApi, client: EdgegapClient, users: list[str]
) -> None:
    with pytest.raises(InvalidRequest):
        await client.deploy("arena", "v1", users=users)

    assert not api.requests


@attrs.define
class Bell:
    """Signals without a network: whoever holds it can ring."""

    on_ready = "https://mm.example/ready"
    on_error = "https://mm.example/error"
    on_terminated = "https://mm.example/terminated"
    ring: Callable[[], None] = print

    def open(self, wake: Callable[[], None]) -> Bell:
        self.ring = wake
        return self


async def test_signals_give_their_urls_to_the_api_and_end_a_wait(api: ScriptedApi) -> None:
    bell = Bell()
    async with EdgegapClient("canary-t", base_url=api.url, webhooks=bell) as client:
        own = "https://own.example/error"
        handle = await client.deploy("arena", "v1", users=PLAYERS, webhook_on_error=own)
        began = now()
        bell.ring()
        await handle.wait_ready()
    body = api.requests[0].json

    assert now() - began < 0.1
    assert [change.source for change in handle.history] == ["webhook"]
    assert body["webhook_on_ready"]["url"] == bell.on_ready
    assert body["webhook_on_error"]["url"] == own
    assert body["webhook_on_terminated"]["url"] == bell.on_terminated


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


async def test_a_server_that_is_gone_at_the_end_is_fine(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    api.on(*STOP, Reply(410))
    await use(client, 1)

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
        await use(client, 1)

    assert "abc123 may go on running" in caplog.text


async def test_a_server_that_cannot_be_stopped_is_noted_on_the_error_of_the_block(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    api.on(*STOP, Reply(403))
    with pytest.raises(LookupError) as caught:
        async with client.run("arena", "v1", users=PLAYERS):
            raise LookupError

    [note] = caught.value.__notes__
    assert note.startswith("and abc123 could not be stopped: DELETE /v1/stop/abc123 answered 403")


async def test_the_time_of_a_run_counts_from_the_call(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    api.on(*DEPLOY, attrs.evolve(ACCEPTED, delay=5))
    api.on(*STATUS, DEPLOYING)
    began = now()
    with pytest.raises(WaitTimedOut):
        await use(client, timeout=8)

    assert now() - began == pytest.approx(8, abs=0.1)


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
        await use(client, timeout=30)

    assert stops(api) == 1


async def test_a_deploy_that_is_refused_leaves_nothing_to_stop(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    api.on(*DEPLOY, Reply(400))
    with pytest.raises(BadRequest):
        await use(client)

    assert stops(api) == 0


@pytest.mark.parametrize(("limit", "seconds"), [(4, 4), (300, 10), (None, 10)])
async def test_logs_that_hang_are_waited_for_ten_seconds_and_never_beyond_the_time_of_the_run(
    api: ScriptedApi, client: EdgegapClient, limit: float | None, seconds: float
) -> None:
    api.on(*STATUS, deployment("ERROR"))
    api.on(*LOGS, Reply(delay=1000))
    began = now()
    with pytest.raises(DeploymentFailed) as caught:
        await use(client, timeout=limit)

    assert now() - began == pytest.approx(seconds, abs=1)
    assert caught.value.logs is None
    assert stops(api) == 1


async def test_the_time_of_a_run_is_over_with_ready_and_logs_are_fetched_however_late_it_fails(
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


@pytest.mark.parametrize("seconds", [0, -1, math.nan])
async def test_a_run_that_has_no_time_is_refused_before_anything_is_sent(
    api: ScriptedApi, client: EdgegapClient, seconds: float
) -> None:
    with pytest.raises(InvalidRequest, match="timeout must be above 0"):
        await use(client, timeout=seconds)
    for wait in (client.handle("abc123").wait_ready, client.handle("abc123").wait_terminated):
        with pytest.raises(InvalidRequest, match="timeout must be 0 or more, not -1"):
            await wait(-1)
    with pytest.raises(InvalidRequest, match="timeout must be 0 or more, not -1"):
        await client.handle("abc123").stop(wait=True, timeout=-1)

    assert not api.requests


async def test_a_client_that_is_closed_is_not_entered_again(client: EdgegapClient) -> None:
    await client.close()
    with pytest.raises(ClientClosed, match="make another"):
        async with client:
            pytest.fail("entered")


async def test_what_ended_in_its_block_and_is_forgotten_is_not_stopped_again_and_again(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    async with client.run("arena", "v1", users=PLAYERS) as server:
        await server.stop()
        await asyncio.sleep(100)
        api.on(*STOP, Reply(404))
        before, left = stops(api), now()

    assert now() - left < 0.1
    assert stops(api) == before + 1


async def test_row_21_a_deployment_that_was_made_in_error_is_stopped(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    api.on(*DEPLOY, Reply(422, {"message": "no room", "request_id": "abc123"}))
    with pytest.raises(Unprocessable, match="no room") as caught:
        await use(client)

    assert caught.value.request_id == "abc123"
    assert stops(api) == 1


async def test_a_deployment_in_error_that_cannot_be_stopped_is_noted(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    api.on(*DEPLOY, Reply(422, {"message": "no room", "request_id": "abc123"}))
    api.on(*STOP, Reply(403))
    with pytest.raises(Unprocessable, match="no room") as caught:
        await use(client)

    assert "could not be stopped" in caught.value.__notes__[0]


async def test_nothing_is_stopped_where_nothing_was_made(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    api.on(*DEPLOY, Reply(422, {"message": "no room"}))
    with pytest.raises(Unprocessable):
        await use(client)

    assert len(api.requests) == 1


# ── callers who go away ──────────────────────────────────────────────────────────────────────────


async def cancel(work: asyncio.Task[Any]) -> None:
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work


async def test_cancelled_before_the_deploy_went_out_nothing_is_sent_later(
    api: ScriptedApi,
) -> None:
    async with EdgegapClient("canary-t", base_url=api.url, limits={"deploy": 0.01}) as client:
        await client.deploy("arena", "v1", users=PLAYERS)
        working = asyncio.create_task(use(client))  # waits for its turn
        await asyncio.sleep(5)
        await cancel(working)
        await asyncio.sleep(1000)

    assert len(api.requests) == 1


async def test_cancelled_between_two_attempts_nothing_is_sent_later(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    api.on(*DEPLOY, Reply(429, headers={"Retry-After": "30"}), ACCEPTED)
    working = asyncio.create_task(use(client))
    await asyncio.sleep(5)
    await cancel(working)
    await asyncio.sleep(100)

    assert len(api.requests) == 1


async def test_cancelled_before_its_first_step_nothing_is_sent(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    working = asyncio.create_task(use(client))
    await asyncio.sleep(0)
    await cancel(working)
    await asyncio.sleep(10)

    assert not api.requests


Ending = Callable[[EdgegapClient, "asyncio.Task[None]"], Coroutine[Any, Any, None]]


async def by_cancelling(_: EdgegapClient, working: asyncio.Task[None]) -> None:
    working.cancel()


async def by_closing(client: EdgegapClient, _: asyncio.Task[None]) -> None:
    await client.close()


ENDINGS = pytest.mark.parametrize(
    ("end", "error"), [(by_cancelling, asyncio.CancelledError), (by_closing, ClientClosed)]
)


@ENDINGS
async def test_row_28_ended_while_the_answer_is_on_its_way_the_server_is_stopped(
    api: ScriptedApi, client: EdgegapClient, end: Ending, error: type[BaseException]
) -> None:
    api.on(*DEPLOY, Reply(202, {"request_id": "abc123"}, delay=5))
    working = asyncio.create_task(use(client))
    await api.until_asked(*DEPLOY)
    ending = asyncio.create_task(end(client, working))
    with pytest.raises(error):
        await working
    assert stops(api) == 0  # the caller need not wait for it
    await ending
    await client.close()

    assert stops(api) == 1
    assert len(api.asked(*DEPLOY)) == 1


@ENDINGS
async def test_ended_while_the_deploy_is_refused_for_the_limit_it_is_not_sent_again(
    api: ScriptedApi,
    client: EdgegapClient,
    caplog: pytest.LogCaptureFixture,
    end: Ending,
    error: type[BaseException],
) -> None:
    api.on(*DEPLOY, Reply(429, delay=5), ACCEPTED)
    working = asyncio.create_task(use(client))
    await api.until_asked(*DEPLOY)
    await end(client, working)
    with pytest.raises(error):
        await working
    await asyncio.sleep(60)

    assert len(api.requests) == 1
    assert "may go on running" not in caplog.text


@pytest.mark.parametrize(
    ("reply", "in_doubt"),
    [
        (Reply(422, delay=5), False),
        (Reply(400, delay=5), False),
        (Reply(500, delay=5), True),
        (Reply(202, b"no JSON", delay=5), True),
        (Reply(lost=True, delay=5), True),
        (Reply(delay=40), True),
    ],
    ids=["422", "400", "500", "unreadable", "lost", "too late"],
)
@pytest.mark.parametrize("outcome", ["stopped", "nothing was made", "named"])
async def test_a_deploy_that_nobody_waits_for_is_looked_for_and_undone_or_named(
    api: ScriptedApi,
    client: EdgegapClient,
    caplog: pytest.LogCaptureFixture,
    reply: Reply,
    outcome: str,
    *,
    in_doubt: bool,
) -> None:
    api.on(*DEPLOY, reply)
    working = asyncio.create_task(use(client))
    await api.until_asked(*DEPLOY)
    listed = {"data": [{"request_id": "abc123", "tags": [operation_tag(api)]}]}
    answers = {"stopped": Reply(200, listed), "nothing was made": Reply(200), "named": Reply(500)}
    api.on(*LIST, answers[outcome])
    await cancel(working)
    await asyncio.sleep(100)

    assert len(api.asked(*DEPLOY)) == 1
    assert stops(api) == (in_doubt and outcome == "stopped")
    lines = [line.getMessage() for line in caplog.records if line.levelname == "ERROR"]
    assert len(lines) == (in_doubt and outcome == "named")
    assert all("may go on running" in line and operation_tag(api) in line for line in lines)


async def test_a_422_that_nobody_waits_for_is_stopped(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    api.on(*DEPLOY, Reply(422, {"request_id": "abc123"}, delay=5))
    working = asyncio.create_task(use(client))
    await api.until_asked(*DEPLOY)
    await cancel(working)
    await asyncio.sleep(100)

    assert stops(api) == 1


async def test_the_callers_timeout_during_a_deploy_stops_the_server(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    api.on(*DEPLOY, Reply(202, {"request_id": "abc123"}, delay=5))
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(2):
            await client.deploy("arena", "v1", users=PLAYERS)
    assert not isinstance(caught.value, EdgegapError)
    await asyncio.sleep(10)

    assert stops(api) == 1


@pytest.mark.parametrize("status", [DEPLOYING, READY], ids=["in the wait", "in the block"])
async def test_row_29_cancelled_the_server_is_stopped_before_the_caller_goes_on(
    api: ScriptedApi, client: EdgegapClient, status: Reply
) -> None:
    api.on(*STATUS, status)
    working = asyncio.create_task(use(client))
    await asyncio.sleep(5)
    await cancel(working)

    assert stops(api) == 1


async def test_row_29_a_second_cancellation_lets_the_caller_go_and_the_stop_go_on(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    answer = asyncio.Event()
    api.on(*STOP, Reply(after=answer))
    working = asyncio.create_task(use(client))
    await asyncio.sleep(5)
    working.cancel()
    await api.until_asked(*STOP)
    await cancel(working)
    answer.set()
    await client.close()

    assert stops(api) == 1


HURRY = PollingPolicy(first_delay=1e-6, interval=1e-6)  # so that no step waits for the clock


async def test_row_28_cancelled_at_any_step_nothing_is_left_running(api: ScriptedApi) -> None:
    ran_to_its_end, steps = False, 0
    while not ran_to_its_end:
        api.requests.clear()
        async with EdgegapClient("canary-t", base_url=api.url, polling=HURRY) as client:
            working = asyncio.create_task(use(client, 0))
            for _ in range(steps):
                await asyncio.sleep(0)
            ran_to_its_end = not working.cancel()
            await asyncio.gather(working, return_exceptions=True)
        steps += 1

        assert stops(api) == len(api.asked(*DEPLOY)) <= 1
    assert steps > 20


async def test_row_31_closed_at_any_step_nothing_is_left_running(api: ScriptedApi) -> None:
    ran_to_its_end, steps = False, 0
    while not ran_to_its_end:
        api.requests.clear()
        async with EdgegapClient("canary-t", base_url=api.url, polling=HURRY) as client:
            working = asyncio.create_task(use(client, 0))
            for _ in range(steps):
                await asyncio.sleep(0)
            ran_to_its_end = working.done()
            await client.close()
            [outcome] = await asyncio.gather(working, return_exceptions=True)
        steps += 1

        assert stops(api) == len(api.asked(*DEPLOY)) <= 1
        assert outcome is None or isinstance(outcome, ClientClosed)
    assert steps > 20


# ── closing ──────────────────────────────────────────────────────────────────────────────────────


async def test_close_stops_what_run_holds_and_ends_the_wait(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    api.on(*STATUS, DEPLOYING)
    working = asyncio.create_task(use(client))
    await asyncio.sleep(5)
    await client.close()
    assert stops(api) == 1
    with pytest.raises(ClientClosed):
        await working

    assert stops(api) == 1


async def test_close_stops_what_a_block_still_uses(api: ScriptedApi, client: EdgegapClient) -> None:
    async with client.run("arena", "v1", users=PLAYERS):
        await client.close()
        assert stops(api) == 1

    assert stops(api) == 1


async def test_close_leaves_alone_what_was_handed_over(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    await client.deploy("arena", "v1", users=PLAYERS)
    await client.close()

    assert stops(api) == 0


async def test_a_closed_client_deploys_nothing(api: ScriptedApi, client: EdgegapClient) -> None:
    await client.close()
    await client.close()
    with pytest.raises(ClientClosed):
        await use(client)

    assert not api.requests


async def test_row_30_close_does_not_wait_for_ever_and_names_what_may_go_on_running(
    api: ScriptedApi, client: EdgegapClient, caplog: pytest.LogCaptureFixture
) -> None:
    api.on(*STOP, Reply(delay=29))
    working = asyncio.create_task(use(client))
    await asyncio.sleep(5)
    began = now()
    await client.close()

    assert now() - began == pytest.approx(10, abs=0.1)
    assert caplog.text.count("abc123 may go on running: closed before an answer") == 1
    await cancel(working)


async def test_close_waits_also_for_a_stop_that_begins_meanwhile(
    api: ScriptedApi, caplog: pytest.LogCaptureFixture
) -> None:
    """The first answer is lost, and what it made shows up when there is a second one."""
    api.on(*DEPLOY, Reply(lost=True), Reply(202, {"request_id": "second"}, delay=2))
    api.on("DELETE", "/v1/stop/second", Reply())
    async with EdgegapClient("canary-t", base_url=api.url, list_delay=3) as client:
        working = asyncio.create_task(use(client))
        await api.until_asked(*DEPLOY, times=2)
        rows = [{"request_id": name, "tags": [operation_tag(api)]} for name in ("abc123", "second")]
        api.on(*LIST, Reply(200, {"data": rows}))
        await client.close()

        assert stops(api) == len(api.asked("DELETE", "/v1/stop/second")) == 1
        with pytest.raises(ClientClosed):
            await working
    assert "may go on running" not in caplog.text


async def test_one_who_waits_for_a_stop_that_close_gives_up_is_not_cancelled(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    api.on(*STOP, Reply(delay=29))
    working = asyncio.create_task(use(client, 5))
    await api.until_asked(*STOP)
    await client.close()
    with pytest.raises(ClientClosed, match="closed before abc123 was stopped"):
        await working


async def test_a_close_that_is_cancelled_gives_up_at_once_and_says_so(
    api: ScriptedApi, client: EdgegapClient, caplog: pytest.LogCaptureFixture
) -> None:
    api.on(*STOP, Reply(delay=29))
    working = asyncio.create_task(use(client))
    await asyncio.sleep(5)
    began = now()
    closing = asyncio.create_task(client.close())
    await api.until_asked(*STOP)
    await cancel(closing)

    assert now() - began < 0.1
    assert "abc123 may go on running" in caplog.text
    await cancel(working)


async def test_a_close_that_is_cancelled_at_once_leaves_no_deploy_under_way_to_itself(
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


async def test_a_stop_in_the_background_that_fails_is_named(
    api: ScriptedApi, client: EdgegapClient, caplog: pytest.LogCaptureFixture
) -> None:
    api.on(*STOP, Reply(403))
    working = asyncio.create_task(use(client))
    await asyncio.sleep(5)
    await client.close()

    assert "abc123 may go on running: it could not be stopped: DELETE" in caplog.text
    await cancel(working)


async def test_a_stop_whose_answer_is_lost_is_tried_again(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    api.on(*STOP, Reply(500), Reply(lost=True), Reply(410))
    await use(client, 1)

    assert stops(api) == 3


# ── what is shown ────────────────────────────────────────────────────────────────────────────────


async def test_a_client_that_cannot_be_made_shows_no_token() -> None:
    with pytest.raises(InvalidRequest) as caught:
        EdgegapClient(CANARY, base_url="nowhere")

    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert CANARY not in "".join(shown.format())


# ── young deployments, and time ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("status", [400, 404])
async def test_a_stop_of_a_young_deployment_goes_on_until_the_api_knows_it(
    api: ScriptedApi, client: EdgegapClient, status: int
) -> None:
    api.on(*STATUS, Reply(status))
    api.on(*STOP, Reply(status), Reply(status), Reply(status), Reply())
    with pytest.raises(WaitTimedOut):
        await use(client, timeout=1)
    assert stops(api) == 4

    api.on(*STOP, Reply(status), Reply())
    handle = await client.deploy("arena", "v1", users=PLAYERS)
    await handle.stop()
    assert stops(api) == 6


async def test_a_stop_of_a_young_deployment_that_is_given_up_is_made_again_as_the_block_is_left(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    api.on(*STOP, *[Reply(404)] * 3, Reply())
    async with client.run("arena", "v1", users=PLAYERS) as server:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.7):
                await server.stop()
        assert stops(api) == 2

    assert stops(api) == 4


async def test_that_a_deployment_is_not_known_is_believed_when_it_is_not_young(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    api.on(*STOP, Reply(400))
    await client.handle("abc123").stop()
    assert stops(api) == 1
    began = now()
    await (await client.deploy("arena", "v1", users=PLAYERS)).stop()

    assert now() - began == pytest.approx(10, abs=1)


async def test_a_run_ends_in_time_also_where_the_deploy_is_not_answered(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    api.on(*DEPLOY, attrs.evolve(ACCEPTED, delay=20))
    began = now()
    with pytest.raises(WaitTimedOut, match="no answer to the deploy in 3 s"):
        await use(client, timeout=3)
    assert now() - began == pytest.approx(3, abs=0.1)

    await asyncio.sleep(30)
    assert stops(api) == 1


async def test_the_callers_own_timeout_of_a_run_is_not_ours(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    api.on(*DEPLOY, attrs.evolve(ACCEPTED, delay=20))
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(2):
            await use(client)

    assert not isinstance(caught.value, WaitTimedOut)


async def test_300_seconds_are_waited_for_ready_unless_told_otherwise(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    api.on(*STATUS, DEPLOYING)
    for waiting in (use(client), client.handle("abc123").wait_ready()):
        began = now()
        with pytest.raises(WaitTimedOut):
            await waiting
        assert now() - began == pytest.approx(300, abs=0.1)


async def test_a_stop_brings_the_next_look_forward(api: ScriptedApi, client: EdgegapClient) -> None:
    handle = client.handle("abc123")
    ending = asyncio.create_task(handle.wait_terminated(timeout=None))
    await asyncio.sleep(200)
    asked = len(api.asked(*STATUS))
    await handle.stop()
    await asyncio.sleep(0.05)

    assert len(api.asked(*STATUS)) == asked + 1
    await cancel(ending)


async def test_a_webhook_of_the_callers_own_tells_the_caller_and_not_us(api: ScriptedApi) -> None:
    receiver = WebhookReceiver("http://192.0.2.1")
    async with EdgegapClient(CANARY, base_url=api.url, webhooks=receiver) as client:
        for own, expected in (({"webhook_on_ready": "http://192.0.2.2"}, False), ({}, True)):
            handle = await client.deploy("arena", "v1", users=PLAYERS, **own)  # type: ignore[arg-type]
            assert handle._tracker.expects_webhook is expected
            del handle  # the next one has the same id


async def test_a_misspelt_option_is_named(api: ScriptedApi, client: EdgegapClient) -> None:
    with pytest.raises(TypeError, match="a deploy has no option tag"):
        await client.deploy("arena", "v1", users=PLAYERS, tag="eu")  # type: ignore[call-arg]


@pytest.mark.parametrize("reply", [Reply(500), Reply(lost=True), Reply(400)])
async def test_an_error_of_a_run_shows_no_token(
    api: ScriptedApi, client: EdgegapClient, reply: Reply, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    api.on(*DEPLOY, reply)
    with pytest.raises((ServerError, NoAnswer, BadRequest)) as caught:
        await use(client)

    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert CANARY not in "".join(shown.format()) + caplog.text


async def test_a_server_that_is_unreachable_was_sent_nothing() -> None:
    async with ScriptedApi() as api:
        url = api.url
    async with EdgegapClient("canary-t", base_url=url, retries=RetryPolicy(attempts=2)) as client:
        with pytest.raises(NotSent) as caught:
            await use(client)

    assert caught.value.attempts == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"polling": 1}, "polling is of type PollingPolicy"),
        ({"webhooks": "https://mm.example.com"}, "webhooks is a WebhookReceiver"),
        ({"list_delay": "10"}, "list_delay is of type int or float"),
        ({"list_delay": -1}, "list_delay must be 0 or more"),
        ({"owner": 5}, "owner is of type str"),
    ],
)
async def test_a_setting_of_a_wrong_kind_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        EdgegapClient("canary-t", **settings)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"tags": "ranked"}, "tags is a list, not 'ranked'"),
        ({"users": "192.0.2.1"}, "users is a list, not '192.0.2.1'"),
        ({"users": (45.5, -73.6)}, "users is a list; each is an IP address or a pair"),
        ({"environment_variables": {"MODE": 3}}, "the value of MODE is a text, not of type int"),
        ({"environment_variables": "x"}, "environment_variables is a list"),
        ({"private_host_ids": "host"}, "private_host_ids is a list"),
    ],
)
async def test_what_a_deploy_cannot_say_is_named_and_not_sent(
    api: ScriptedApi, client: EdgegapClient, said: dict[str, Any], message: str
) -> None:
    options: dict[str, Any] = {"users": ["192.0.2.1"], **said}
    with pytest.raises(InvalidRequest, match=message):
        await client.deploy("arena", "v1", **options)
    assert not api.requests


async def test_an_error_of_run_says_that_its_server_was_stopped(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    api.on(*STATUS, deployment("DEPLOYING"))
    with pytest.raises(WaitTimedOut, match=r"It was stopped$") as caught:
        async with client.run("arena", "v1", users=["192.0.2.1"], timeout=5):
            pass

    assert caught.value.stopped
    assert stops(api) == 1


async def test_an_error_of_run_does_not_say_so_where_the_stop_was_refused(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    api.on(*STATUS, deployment("DEPLOYING"))
    api.on(*STOP, Reply(403))
    with pytest.raises(WaitTimedOut, match="It still exists and is billed") as caught:
        async with client.run("arena", "v1", users=["192.0.2.1"], timeout=5):
            pass

    assert not caught.value.stopped
    assert "could not be stopped" in "".join(caught.value.__notes__)
