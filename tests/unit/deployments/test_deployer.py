"""Deploys: what is sent, webhook URLs, and deploys whose caller is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import attrs
import pytest
from cancelled_tasks import cancel_library_tasks, library_tasks
from one_server import (
    ACCEPTED,
    DEPLOY,
    DEPLOY_TO_FLEET,
    LIST,
    PLAYERS,
    cancel,
    one_server_api,
    operation_tag,
    run_server,
    stops,
)
from scripted_api import Reply, ScriptedApi
from tagged_api import TaggedApi, new_client

from edgegap_async.client import EdgegapClient
from edgegap_async.concurrency import loop_time
from edgegap_async.errors import (
    ClientClosed,
    EdgegapError,
    InvalidRequest,
    NoAnswer,
    NotAllowed,
    Unprocessable,
)
from edgegap_async.http.guard import Guard
from edgegap_async.webhooks.receiver import WebhookReceiver

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


# ── deploys ──────────────────────────────────────────────────────────────────────────────────────


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
    api.on(*DEPLOY_TO_FLEET, ACCEPTED)
    await client.deploy("arena", "v1", users=PLAYERS, private_host_ids=["h1"])
    await client.deploy("arena", "v1", users=PLAYERS, private_host_ids=[])

    assert api.requests[0].json["private_host_ids"] == ["h1"]
    assert (api.requests[1].method, api.requests[1].path) == DEPLOY


@pytest.mark.parametrize("users", [[], ["not an address"]])
async def test_a_deploy_with_invalid_users_is_not_sent(
    api: ScriptedApi, client: EdgegapClient, users: list[str]
) -> None:
    with pytest.raises(InvalidRequest):
        await client.deploy("arena", "v1", users=users)

    assert not api.requests


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"tags": "ranked"}, r"tags must be a list, not 'ranked': write tags=\['ranked'\]"),
        ({"users": "192.0.2.1"}, r"users must be a list, .*: write users=\['192.0.2.1'\]"),
        ({"users": (45.5, -73.6)}, r"users\[0\]: not an IP address or a pair \(latitude"),
        (
            {"users": ["192.0.2.1", "nowhere"]},
            r"users\[1\]: not an IPv4 or IPv6 address: 'nowhere'",
        ),
        ({"tags": ["eu", "a" * 41]}, r"DeployRequest.tags\[1\] has 41 characters; 40 is the most"),
        ({"environment_variables": {"MODE": 3}}, "the value of 'MODE' must be a text, not int"),
        ({"environment_variables": "x"}, "environment_variables must be a list"),
        ({"private_host_ids": "host"}, "private_host_ids must be a list"),
    ],
)
async def test_an_invalid_field_of_a_deploy_is_named_and_nothing_is_sent(
    api: ScriptedApi, client: EdgegapClient, said: dict[str, Any], message: str
) -> None:
    options: dict[str, Any] = {"users": ["192.0.2.1"], **said}
    with pytest.raises(InvalidRequest, match=message):
        await client.deploy("arena", "v1", **options)
    assert not api.requests


async def test_an_unknown_option_is_named_with_the_known_ones(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    with pytest.raises(
        TypeError, match=r"Client\.deploy has no argument tag; there are .*\. Did you mean tags\?"
    ):
        await client.deploy("arena", "v1", users=PLAYERS, tag="eu")  # type: ignore[call-arg]


async def test_a_slip_in_a_named_argument_of_run_is_named_with_what_was_meant(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    said = r"Client\.run has no argument time_out; there are .*playable.*\. Did you mean timeout\?"
    with pytest.raises(TypeError, match=said):
        async with client.run("arena", "v1", users=PLAYERS, time_out=3):  # type: ignore[call-arg]
            pytest.fail("there is no server")
    assert not api.requests


async def test_the_deployment_of_a_422_to_a_second_attempt_is_kept_and_the_first_one_stopped(
    api: ScriptedApi,
) -> None:
    """The answer to the first attempt is lost, and the list shows its deployment late."""
    api.on(*DEPLOY, Reply(lost=True), Reply(422, {"message": "no room", "request_id": "second"}))
    async with EdgegapClient("canary-t", base_url=api.url, list_delay=1) as client:
        deploying = asyncio.create_task(client.deploy("arena", "v1", users=PLAYERS))
        await api.until_asked(*DEPLOY)
        rows = [{"request_id": name, "tags": [operation_tag(api)]} for name in ("second", "abc123")]
        lists = [[], [], [], [], rows[:1], rows]
        api.on(*LIST, *(Reply(200, {"data": data}) for data in lists))
        with pytest.raises(Unprocessable) as caught:
            await deploying
        await asyncio.sleep(5)

        assert caught.value.request_id == "second"
        assert stops(api) == 1
        assert not api.asked("DELETE", "/v1/stop/second")


async def test_a_check_for_ends_that_fails_at_max_live_is_logged(
    api: ScriptedApi, caplog: pytest.LogCaptureFixture
) -> None:
    api.on(*DEPLOY, Reply(202, {"request_id": "abc123"}))
    api.on(*LIST, Reply(403, {"message": "Forbidden"}))
    async with EdgegapClient("canary-t", base_url=api.url, guard=Guard(max_live=1)) as client:
        await client.deploy("arena", "v1", users=PLAYERS)
        with pytest.raises(NotAllowed, match="max_live=1 reached"):
            await client.deploy("arena", "v1", users=PLAYERS)

    [line] = [one for one in caplog.records if one.levelname == "WARNING"]
    assert "GET /v1/deployments answered 403" in line.getMessage()
    assert vars(line)["request_ids"] == ["abc123"]


# ── webhooks ─────────────────────────────────────────────────────────────────────────────────────


@attrs.define
class FakeWebhooks:
    """A webhook source without a network; `fire` is an arriving webhook."""

    fire: Callable[[], None] = print

    def url(self, kind: str) -> str:
        return f"https://mm.example/{kind}"

    def open(self, wake: Callable[[], None]) -> FakeWebhooks:
        self.fire = wake
        return self


async def test_webhook_urls_are_sent_with_the_deploy_and_a_webhook_ends_the_wait(
    api: ScriptedApi,
) -> None:
    webhooks = FakeWebhooks()
    async with EdgegapClient("canary-t", base_url=api.url, webhooks=webhooks) as client:
        own = "https://own.example/error"
        handle = await client.deploy("arena", "v1", users=PLAYERS, webhook_on_error=own)
        began = loop_time()
        webhooks.fire()
        await handle.wait_ready()
    body = api.requests[0].json

    assert loop_time() - began < 0.1
    assert [change.source for change in handle.history] == ["webhook"]
    assert body["webhook_on_ready"]["url"] == webhooks.url("ready")
    assert body["webhook_on_error"]["url"] == own
    assert body["webhook_on_terminated"]["url"] == webhooks.url("terminated")


async def test_a_url_of_the_caller_for_ready_means_that_the_client_expects_no_webhook(
    api: ScriptedApi,
) -> None:
    receiver = WebhookReceiver("http://192.0.2.1")
    async with EdgegapClient(CANARY, base_url=api.url, webhooks=receiver) as client:
        for own, expected in (({"webhook_on_ready": "http://192.0.2.2"}, False), ({}, True)):
            handle = await client.deploy("arena", "v1", users=PLAYERS, **own)  # type: ignore[arg-type]
            assert handle._tracker.expects_webhook is expected
            del handle  # the next one has the same id


# ── cancelled deploys ────────────────────────────────────────────────────────────────────────────


async def test_a_deploy_that_is_cancelled_in_the_queue_for_its_rate_limit_is_not_sent(
    api: ScriptedApi,
) -> None:
    async with EdgegapClient("canary-t", base_url=api.url, limits={"deploy": 0.01}) as client:
        await client.deploy("arena", "v1", users=PLAYERS)
        running = asyncio.create_task(run_server(client))  # queues for the rate limit
        await asyncio.sleep(5)
        await cancel(running)
        await asyncio.sleep(1000)

    assert len(api.requests) == 1


async def test_a_deploy_that_is_cancelled_between_two_attempts_is_not_sent_again(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    api.on(*DEPLOY, Reply(429, headers={"Retry-After": "30"}), ACCEPTED)
    running = asyncio.create_task(run_server(client))
    await asyncio.sleep(5)
    await cancel(running)
    await asyncio.sleep(100)

    assert len(api.requests) == 1


async def test_a_deploy_that_is_cancelled_before_its_first_step_is_not_sent(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    running = asyncio.create_task(run_server(client))
    await asyncio.sleep(0)
    await cancel(running)
    await asyncio.sleep(10)

    assert not api.requests


Ending = Callable[[EdgegapClient, "asyncio.Task[None]"], Coroutine[Any, Any, None]]


async def by_cancelling(_: EdgegapClient, running: asyncio.Task[None]) -> None:
    running.cancel()


async def by_closing(client: EdgegapClient, _: asyncio.Task[None]) -> None:
    await client.close()


ENDINGS = pytest.mark.parametrize(
    ("end", "error"), [(by_cancelling, asyncio.CancelledError), (by_closing, ClientClosed)]
)


@ENDINGS
async def test_row_28_a_deploy_that_ends_while_its_answer_is_on_the_way_is_stopped(
    api: ScriptedApi, client: EdgegapClient, end: Ending, error: type[BaseException]
) -> None:
    api.on(*DEPLOY, Reply(202, {"request_id": "abc123"}, delay=5))
    running = asyncio.create_task(run_server(client))
    await api.until_asked(*DEPLOY)
    ending = asyncio.create_task(end(client, running))
    with pytest.raises(error):
        await running
    assert stops(api) == 0  # the caller does not wait for it
    await ending
    await client.close()

    assert stops(api) == 1
    assert len(api.asked(*DEPLOY)) == 1


@ENDINGS
async def test_a_deploy_that_ends_while_the_api_refuses_it_with_429_is_not_sent_again(
    api: ScriptedApi,
    client: EdgegapClient,
    caplog: pytest.LogCaptureFixture,
    end: Ending,
    error: type[BaseException],
) -> None:
    api.on(*DEPLOY, Reply(429, delay=5), ACCEPTED)
    running = asyncio.create_task(run_server(client))
    await api.until_asked(*DEPLOY)
    await end(client, running)
    with pytest.raises(error):
        await running
    await asyncio.sleep(60)

    assert len(api.requests) == 1
    assert "may go on running" not in caplog.text


@pytest.mark.parametrize(
    ("reply", "is_ambiguous"),
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
async def test_a_cancelled_deploy_with_an_ambiguous_answer_is_found_by_tag_and_stopped_or_logged(
    api: ScriptedApi,
    client: EdgegapClient,
    caplog: pytest.LogCaptureFixture,
    reply: Reply,
    outcome: str,
    *,
    is_ambiguous: bool,
) -> None:
    api.on(*DEPLOY, reply)
    running = asyncio.create_task(run_server(client))
    await api.until_asked(*DEPLOY)
    listed = {"data": [{"request_id": "abc123", "tags": [operation_tag(api)]}]}
    answers = {"stopped": Reply(200, listed), "nothing was made": Reply(200), "named": Reply(500)}
    api.on(*LIST, answers[outcome])
    await cancel(running)
    await asyncio.sleep(100)
    await client.close()  # the search goes on until then while lists fail

    assert len(api.asked(*DEPLOY)) == 1
    assert stops(api) == (is_ambiguous and outcome == "stopped")
    lines = [line.getMessage() for line in caplog.records if line.levelname == "ERROR"]
    assert len(lines) == (is_ambiguous and outcome == "named")
    assert all("may go on running" in line and operation_tag(api) in line for line in lines)


async def test_a_cancelled_deploy_that_is_answered_422_is_stopped(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    api.on(*DEPLOY, Reply(422, {"request_id": "abc123"}, delay=5))
    running = asyncio.create_task(run_server(client))
    await api.until_asked(*DEPLOY)
    await cancel(running)
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


# ── deploys whose own task the program cancels ───────────────────────────────────────────────────


@pytest.mark.parametrize("after", [None, 0.0, 1.0, 3.5], ids=["not begun", "begun", "sent", "late"])
@pytest.mark.parametrize("made", [0, 1])
async def test_row_74_a_deploy_whose_caller_is_spared_goes_on_and_makes_one_server(
    made: int, after: float | None
) -> None:
    accepted = Reply(202, {"request_id": "server1"}, delay=3)
    answers = [accepted] if made else [Reply(503, delay=3)]
    async with TaggedApi(answers=answers, made=made) as api, new_client(api) as client:
        deploying = asyncio.create_task(client.deploy("arena", "v1", users=PLAYERS))
        while not library_tasks("IdempotentDeploy.run"):
            await asyncio.sleep(0)
        if after is not None:
            await asyncio.sleep(after)
        cancel_library_tasks("IdempotentDeploy.run")
        server = await deploying

        assert server.request_id == ("server1" if made else "abc123")
        assert len(api.rows) == made
        assert api.running == ["server1"] * made
        assert len({one.json["tags"][-1] for one in api.asked(*DEPLOY)}) == 1


async def test_row_74_a_caller_that_is_cancelled_later_leaves_no_server() -> None:
    accepted = Reply(202, {"request_id": "server1"}, delay=3)
    async with TaggedApi(answers=[accepted], made=1, listed_after=(5,)) as api:
        async with new_client(api) as client:
            deploying = asyncio.create_task(client.deploy("arena", "v1", users=PLAYERS))
            await asyncio.sleep(1)
            assert cancel_library_tasks("IdempotentDeploy.run")
            await asyncio.sleep(1)
            await cancel(deploying)
        assert (len(api.rows), api.running) == (1, [])


async def test_row_74_a_caller_that_is_cancelled_later_sends_nothing_again() -> None:
    async with TaggedApi(answers=[Reply(503, delay=3)], made=0) as api:
        async with new_client(api) as client:
            deploying = asyncio.create_task(client.deploy("arena", "v1", users=PLAYERS))
            await asyncio.sleep(1)
            assert cancel_library_tasks("IdempotentDeploy.run")
            await asyncio.sleep(1)
            await cancel(deploying)
            await asyncio.sleep(60)
            assert len(client._deployer.register) == 0
        assert len(api.asked(*DEPLOY)) == 1


async def test_row_74_a_deploy_without_a_tag_whose_task_is_cancelled_says_so(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    api.on(*DEPLOY, Reply(202, {"request_id": "abc123"}, delay=3))
    deploying = asyncio.create_task(
        client.deploy("arena", "v1", users=PLAYERS, operation_tag=False)
    )
    await asyncio.sleep(1)
    assert cancel_library_tasks("IdempotentDeploy.run")
    with pytest.raises(NoAnswer, match="has cancelled the task of the deploy") as caught:
        await deploying

    assert caught.value.maybe_created
