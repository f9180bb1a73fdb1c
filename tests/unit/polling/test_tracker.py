"""A server tells statuses, on a clock that jumps: when it is asked, and what is made of it."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator

import pytest
from scripted_api import Reply, ScriptedApi, deployment
from virtual_clock import VirtualLoop

from edgegap_async.api.models import Deployment, Status
from edgegap_async.deployments.handle import DeploymentHandle
from edgegap_async.errors import (
    ClientClosed,
    DeploymentFailed,
    DeploymentTerminated,
    Forbidden,
    Gone,
    NotFound,
    NotSent,
    Unauthorized,
    WaitTimedOut,
)
from edgegap_async.http.api_client import ApiClient
from edgegap_async.http.retries import RetryPolicy
from edgegap_async.polling.poller import StatusPoller
from edgegap_async.polling.schedule import PollingPolicy
from edgegap_async.polling.tracker import DeploymentTracker, WebhookTrigger

pytestmark = pytest.mark.virtual

STATUS = ("GET", "/v1/status/abc123")
ONCE = RetryPolicy(attempts=1)


@pytest.fixture
async def client(api: ScriptedApi) -> AsyncIterator[ApiClient]:
    async with ApiClient("canary-t", base_url=api.url, retries=ONCE) as client:
        yield client


@pytest.fixture
async def watched(client: ApiClient) -> DeploymentTracker:
    """One that was deployed just now."""
    until = asyncio.get_running_loop().time() + 10
    return StatusPoller(client, PollingPolicy()).tracker("abc123", not_found_until=until)


def seen(client: ApiClient, polling: PollingPolicy | None = None) -> DeploymentTracker:
    """One that was deployed long ago."""
    return StatusPoller(client, polling or PollingPolicy()).tracker("abc123")


def now() -> float:
    return asyncio.get_running_loop().time()


def at(status: Status) -> Deployment:
    return Deployment(request_id="abc123", current_status=status)


def statuses(watched: DeploymentTracker) -> list[str]:
    return [change.status.short for change in watched.history]


# ── polling ───────────────────────────────────────────────────────────────────────────────────────


def test_looks_come_often_then_ever_more_rarely() -> None:
    polling = PollingPolicy(interval=0.5, fast_period=2.0, max_interval=0.6)
    age, gaps = 0.0, list[float]()
    while len(gaps) < 10:
        gaps.append(polling.interval_at(age))
        age += gaps[-1]

    assert gaps == pytest.approx([0.5] * 5 + [0.525, 0.55125, 0.5788125, 0.6, 0.6])


def test_who_is_ready_late_is_told_a_little_later() -> None:
    assert [PollingPolicy().interval_at(age) for age in (60, 80, 160, 600)] == [0.5, 1.5, 5.5, 10.0]


def test_looks_are_slow_where_webhooks_come() -> None:
    assert [PollingPolicy().interval_at(age, expects_webhook=True) for age in (0, 20, 180)] == [
        3.0,
        3.0,
        9.0,
    ]


async def test_the_server_is_asked_at_that_pace(
    api: ScriptedApi, watched: DeploymentTracker
) -> None:
    api.on(*STATUS, *[deployment("DEPLOYING")] * 5, deployment("READY"))
    began = now()
    await watched.wait_for(Status.READY, 300)
    times = [got.at - began for got in api.requests]

    assert times[0] == pytest.approx(0.4, rel=0.15)
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert gaps == [pytest.approx(0.5, rel=0.15)] * 5
    assert watched.status_requests == 6


async def test_a_wake_makes_the_next_look_come_at_once(api: ScriptedApi, client: ApiClient) -> None:
    api.on(*STATUS, deployment("DEPLOYING"), deployment("READY"))
    watched = seen(client, PollingPolicy(first_delay=60, interval=60))
    waiting = asyncio.create_task(watched.wait_for(Status.READY, 300))
    began = now()
    await asyncio.sleep(1)
    watched.poll_now()
    await asyncio.sleep(1)
    watched.webhook_received()
    await waiting
    times = [got.at - began for got in api.requests]

    assert times == [pytest.approx(1, abs=0.1), pytest.approx(2, abs=0.1)]
    assert [change.source for change in watched.history] == ["status", "webhook"]


# ── what a wait ends with ────────────────────────────────────────────────────────────────────────


async def test_a_wait_ends_when_the_status_has_come(
    api: ScriptedApi, watched: DeploymentTracker
) -> None:
    api.on(*STATUS, *map(deployment, ["SEEKING", "SEEKING", "DEPLOYING", "READY"]))
    ready = await watched.wait_for(Status.READY, 300)

    assert ready.public_ip == "192.0.2.7"
    assert statuses(watched) == ["SEEKING", "DEPLOYING", "READY"]
    assert watched.deployment == ready
    assert all(change.source == "status" for change in watched.history)


async def test_what_is_known_already_needs_no_look(
    api: ScriptedApi, watched: DeploymentTracker
) -> None:
    watched.update(at(Status.READY))
    await watched.wait_for(Status.READY, 0)

    assert not api.requests


async def test_row_23_an_unknown_status_is_waited_through(
    api: ScriptedApi, watched: DeploymentTracker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    api.on(*STATUS, *map(deployment, ["BAKING", "BAKING", "READY"]))
    await watched.wait_for(Status.READY, 300)

    assert [change.status.value for change in watched.history] == ["Status.BAKING", "Status.READY"]
    assert caplog.text.count("the status 'Status.BAKING' is unknown") == 1


async def test_a_failed_deployment_ends_the_wait_with_its_reason(
    api: ScriptedApi, watched: DeploymentTracker
) -> None:
    why = "image not found"
    api.on(*STATUS, deployment("DEPLOYING"), deployment("ERROR", error=True, error_detail=why))
    with pytest.raises(DeploymentFailed, match=why) as caught:
        await watched.wait_for(Status.READY, 300)

    assert caught.value.error_detail == why
    assert caught.value.request_id == "abc123"
    assert caught.value.last_status == Status.ERROR
    assert caught.value.history == watched.history
    assert "DEPLOYING → ERROR" in str(caught.value)


async def test_a_deployment_may_fail_without_a_reason(
    api: ScriptedApi, watched: DeploymentTracker
) -> None:
    api.on(*STATUS, deployment("ERROR"))
    with pytest.raises(DeploymentFailed, match="the API gives no reason") as caught:
        await watched.wait_for(Status.READY, 300)

    assert caught.value.error_detail == ""


@pytest.mark.parametrize("status", ["TERMINATING", "TERMINATED"])
async def test_a_deployment_that_ends_before_it_is_ready_ends_the_wait(
    api: ScriptedApi, watched: DeploymentTracker, status: str
) -> None:
    api.on(*STATUS, deployment("DEPLOYING"), deployment(status))
    with pytest.raises(DeploymentTerminated, match=status):
        await watched.wait_for(Status.READY, 300)


async def test_a_wait_for_the_end_goes_through_error(
    api: ScriptedApi, watched: DeploymentTracker
) -> None:
    api.on(*STATUS, *map(deployment, ["ERROR", "TERMINATING", "TERMINATED"]))
    await watched.wait_for(Status.TERMINATED, 300)

    assert statuses(watched) == ["ERROR", "TERMINATING", "TERMINATED"]


async def test_a_wait_that_takes_too_long_says_what_was_seen(
    api: ScriptedApi, watched: DeploymentTracker
) -> None:
    api.on(*STATUS, deployment("DEPLOYING"))
    began = now()
    with pytest.raises(WaitTimedOut, match="not READY in 30 s; last status: DEPLOYING") as caught:
        await watched.wait_for(Status.READY, 30)

    assert now() - began == pytest.approx(30, abs=0.1)
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.last_status == Status.DEPLOYING
    assert caught.value.history == watched.history
    assert "request failed" not in str(caught.value)


async def test_one_who_waits_again_after_a_timeout_is_told(
    api: ScriptedApi, watched: DeploymentTracker
) -> None:
    api.on(*STATUS, deployment("DEPLOYING"), deployment("DEPLOYING"), deployment("READY"))
    with pytest.raises(WaitTimedOut):
        await watched.wait_for(Status.READY, 0.6)

    assert (await watched.wait_for(Status.READY, 30)).current_status.is_ready


async def test_what_comes_in_the_same_turn_as_the_deadline_has_come(
    api: ScriptedApi, client: ApiClient
) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    watched = seen(client, PollingPolicy(first_delay=60))
    waiting = asyncio.create_task(watched.wait_for(Status.READY, 5))
    await asyncio.sleep(0)
    loop.call_later(4.98, loop.stall, 1)  # then both are due
    loop.call_later(4.99, watched.update, at(Status.READY))

    assert (await waiting).current_status.is_ready
    assert not api.requests


async def test_a_wait_without_a_limit_goes_on(api: ScriptedApi, watched: DeploymentTracker) -> None:
    api.on(*STATUS, *[deployment("DEPLOYING")] * 250, deployment("READY"))
    began = now()
    await watched.wait_for(Status.READY, None)

    assert now() - began > 600


async def test_the_callers_own_timeout_is_not_ours(
    api: ScriptedApi, watched: DeploymentTracker
) -> None:
    api.on(*STATUS, deployment("DEPLOYING"))
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(5):
            await watched.wait_for(Status.READY, 300)

    assert not isinstance(caught.value, WaitTimedOut)


async def test_what_goes_wrong_inside_is_told_and_is_no_timeout_of_ours(
    client: ApiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Impatient(PollingPolicy):
        def interval_at(self, age: float, *, expects_webhook: bool = False) -> float:
            raise TimeoutError("of another kind")

    with pytest.raises(TimeoutError, match="of another kind") as caught:
        await seen(client, Impatient()).wait_for(Status.READY, 300)

    assert not isinstance(caught.value, WaitTimedOut)


# ── looks that fail ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "reply",
    [
        Reply(500),
        Reply(429),
        Reply(429, headers={"Retry-After": "2"}),
        Reply(lost=True),
        Reply(200, b"<html>"),
        Reply(200, b"{}"),
        Reply(302, headers={"Location": "/"}),
        Reply(delay=40),
    ],
)
async def test_looks_that_fail_for_a_while_do_not_end_a_wait(
    api: ScriptedApi, watched: DeploymentTracker, reply: Reply
) -> None:
    api.on(*STATUS, *[reply] * 5, deployment("READY"))
    await watched.wait_for(Status.READY, 300)

    assert statuses(watched) == ["READY"]


async def test_a_server_that_cannot_be_reached_for_a_while_does_not_end_a_wait(
    client: ApiClient,
) -> None:
    async with ScriptedApi() as gone:
        unreachable = ApiClient("canary-t", base_url=gone.url, retries=ONCE)
    watched = seen(unreachable)
    with pytest.raises(
        WaitTimedOut, match="no status yet; the last request failed: GET /v1/status"
    ):
        await watched.wait_for(Status.READY, 60)
    await unreachable.close()

    assert (
        10 < watched.status_requests < 20
    )  # a server that is down is not asked as often as one that is up


async def test_a_server_that_does_not_speak_tls_ends_the_wait_at_once(api: ScriptedApi) -> None:
    async with ApiClient("canary-t", base_url=api.url.replace("http:", "https:")) as client:
        began = now()
        with pytest.raises(NotSent):
            await seen(client).wait_for(Status.READY, 300)

        assert now() - began < 1


async def test_a_look_that_fails_for_ever_is_named_when_the_time_is_up(
    api: ScriptedApi, watched: DeploymentTracker
) -> None:
    api.on(*STATUS, deployment("DEPLOYING"), Reply(503))
    with pytest.raises(WaitTimedOut, match=r"the last request failed: GET .* answered 503"):
        await watched.wait_for(Status.READY, 60)


@pytest.mark.parametrize(
    ("status", "error"), [(401, Unauthorized), (403, Forbidden)], ids=["401", "403"]
)
async def test_a_look_that_may_not_be_ends_every_wait(
    api: ScriptedApi, watched: DeploymentTracker, status: int, error: type[Exception]
) -> None:
    api.on(*STATUS, deployment("DEPLOYING"), Reply(status))
    waits = (watched.wait_for(wanted, 300) for wanted in (Status.READY, Status.TERMINATED))
    results = await asyncio.gather(*waits, return_exceptions=True)

    assert [type(result) for result in results] == [error, error]
    assert len(api.requests) == 2


async def test_after_such_a_failure_a_new_wait_looks_again(
    api: ScriptedApi, watched: DeploymentTracker
) -> None:
    api.on(*STATUS, Reply(401), deployment("READY"))
    with pytest.raises(Unauthorized):
        await watched.wait_for(Status.READY, 300)
    await watched.wait_for(Status.READY, 300)

    assert statuses(watched) == ["READY"]


async def test_after_such_a_failure_a_new_wait_looks_again_beside_one_that_goes_on(
    api: ScriptedApi, client: ApiClient, watched: DeploymentTracker
) -> None:
    api.on(*STATUS, deployment("DEPLOYING"), *[Reply(401)] * 2, deployment("READY"))
    changes = DeploymentHandle(client, watched, None).changes()
    first = await anext(changes)  # and whoever iterates does not come back for long
    for _ in range(2):
        with pytest.raises(Unauthorized):
            await watched.wait_for(Status.READY, 300)
    await watched.wait_for(Status.READY, 300)

    assert [first.status, (await anext(changes)).status] == [Status.DEPLOYING, Status.READY]


@pytest.mark.parametrize("reply", [Reply(404), Reply(400)])
async def test_row_18_a_deployment_that_is_not_known_yet_is_waited_for(
    api: ScriptedApi, watched: DeploymentTracker, reply: Reply
) -> None:
    api.on(*STATUS, *[reply] * 5, deployment("READY"))
    await watched.wait_for(Status.READY, 300)

    assert statuses(watched) == ["READY"]


@pytest.mark.parametrize(("status", "error"), [(404, NotFound), (400, NotFound)])
async def test_a_deployment_that_stays_unknown_ends_the_wait(
    api: ScriptedApi, watched: DeploymentTracker, status: int, error: type[Exception]
) -> None:
    api.on(*STATUS, Reply(status))
    began = now()
    with pytest.raises(error):
        await watched.wait_for(Status.READY, 300)

    assert now() - began == pytest.approx(10.3, abs=0.4)


async def test_what_is_said_to_be_over_is_over_at_once(
    api: ScriptedApi, watched: DeploymentTracker
) -> None:
    api.on(*STATUS, Reply(410))
    began = now()
    with pytest.raises(Gone):
        await watched.wait_for(Status.READY, 300)

    assert now() - began < 1


async def test_of_one_that_is_not_young_it_is_believed_at_once(
    api: ScriptedApi, client: ApiClient
) -> None:
    api.on(*STATUS, Reply(400))
    began = now()
    with pytest.raises(NotFound):
        await seen(client).wait_for(Status.READY, 300)

    assert now() - began < 1


@pytest.mark.parametrize("status", [404, 400])
async def test_one_stray_answer_does_not_end_a_young_deployment(
    api: ScriptedApi, watched: DeploymentTracker, status: int
) -> None:
    api.on(*STATUS, deployment("DEPLOYING"), Reply(status), deployment("READY"))
    await watched.wait_for(Status.READY, 300)

    assert statuses(watched) == ["DEPLOYING", "READY"]


@pytest.mark.parametrize("status", [404, 400, 410])
async def test_a_deployment_that_was_seen_and_is_gone_is_terminated(
    api: ScriptedApi, watched: DeploymentTracker, status: int
) -> None:
    api.on(*STATUS, deployment("READY"), Reply(status))
    last = await watched.wait_for(Status.TERMINATED, 300)

    assert statuses(watched) == ["READY", "TERMINATED"]
    assert (last.current_status, last.running) == (Status.TERMINATED, False)
    assert last.public_ip == "192.0.2.7"


async def test_an_id_that_cannot_be_one_ends_the_wait(client: ApiClient) -> None:
    with pytest.raises(ValueError, match="request_id"):
        await StatusPoller(client, PollingPolicy()).tracker("../app").wait_for(Status.READY, 300)


# ── news ─────────────────────────────────────────────────────────────────────────────────────────


async def test_old_news_is_not_taken(watched: DeploymentTracker) -> None:
    for status in (Status.READY, Status.DEPLOYING, Status.READY):
        watched.update(at(status))

    assert statuses(watched) == ["READY"]
    assert watched.status == Status.READY


async def test_a_look_with_the_same_status_is_newer_all_the_same(
    watched: DeploymentTracker,
) -> None:
    watched.update(at(Status.READY))
    newer = Deployment(request_id="abc123", current_status=Status.READY, elapsed_time=5)
    watched.update(newer)

    assert len(watched.history) == 1
    assert watched.deployment is newer


async def test_several_who_wait_share_the_looks(
    api: ScriptedApi, watched: DeploymentTracker
) -> None:
    api.on(*STATUS, *map(deployment, ["SEEKING", "DEPLOYING", "READY"]))
    await asyncio.gather(*(watched.wait_for(Status.READY, 300) for _ in range(20)))

    assert len(api.requests) == 3


async def test_nobody_waits_and_nobody_looks(api: ScriptedApi, watched: DeploymentTracker) -> None:
    api.on(*STATUS, deployment("DEPLOYING"))
    with pytest.raises(WaitTimedOut):
        await watched.wait_for(Status.READY, 5)
    asked = len(api.requests)
    await asyncio.sleep(60)

    assert len(api.requests) == asked
    assert len(asyncio.all_tasks()) < 6  # of the test and the server; none looks


async def test_one_who_goes_away_does_not_disturb_the_others(
    api: ScriptedApi, watched: DeploymentTracker
) -> None:
    api.on(*STATUS, *[deployment("DEPLOYING")] * 10, deployment("READY"))
    one, other = (asyncio.create_task(watched.wait_for(Status.READY, 300)) for _ in range(2))
    await asyncio.sleep(1)
    one.cancel()
    with pytest.raises(asyncio.CancelledError):
        await one

    assert (await other).current_status.is_ready
    assert len(api.requests) == 11


async def test_row_31_closing_the_client_ends_every_wait_at_once(
    api: ScriptedApi, client: ApiClient, watched: DeploymentTracker
) -> None:
    api.on(*STATUS, deployment("DEPLOYING"), Reply(delay=25))
    waits = [asyncio.create_task(watched.wait_for(Status.READY, 300)) for _ in range(2)]
    await api.until_asked(*STATUS, times=2)
    began = now()
    await client.close()
    results = await asyncio.gather(*waits, return_exceptions=True)

    assert [type(result) for result in results] == [ClientClosed, ClientClosed]
    assert now() - began < 0.1


async def test_news_are_told_once_for_each_change(
    api: ScriptedApi, watched: DeploymentTracker
) -> None:
    api.on(*STATUS, *map(deployment, ["SEEKING", "SEEKING", "READY"]))
    await watched.wait_for_change(0)
    assert statuses(watched) == ["SEEKING"]
    await watched.wait_for_change(1)
    assert statuses(watched) == ["SEEKING", "READY"]


async def test_a_failure_comes_while_the_one_who_waits_is_busy_and_is_told_later(
    api: ScriptedApi, watched: DeploymentTracker
) -> None:
    api.on(*STATUS, Reply(401))
    with watched.waiting():
        await asyncio.sleep(5)
        assert len(api.requests) == 1
        with pytest.raises(Unauthorized):
            await watched.wait_for_change(0)


# ── webhooks ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("early", [True, False], ids=["before", "after"])
async def test_a_bell_is_heard_whether_it_rings_before_or_after_it_has_an_owner(
    watched: DeploymentTracker, *, early: bool
) -> None:
    bell = WebhookTrigger()
    if early:
        bell.fire()
    bell.connect(watched)
    heard_at_once = watched.webhook_pending
    bell.fire()

    assert heard_at_once is early
    assert watched.webhook_pending


def test_a_gap_that_is_longer_than_the_longest_stays_as_it_is() -> None:
    assert PollingPolicy(interval=20).interval_at(0) == 20
