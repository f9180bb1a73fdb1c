"""One deployment is tracked: when the API is asked, and how its answers end the waits."""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import traceback
from collections.abc import AsyncIterator

import pytest
from scripted_api import Reply, ScriptedApi, deployment
from virtual_clock import VirtualLoop

from edgegap_async.api.models import Deployment, Status
from edgegap_async.deployments.handle import DeploymentHandle
from edgegap_async.deployments.ownership import OwnedDeployments
from edgegap_async.deployments.register import DeploymentRegister
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
from edgegap_async.http.resources.deployments import is_listed
from edgegap_async.http.retries import RetryPolicy
from edgegap_async.observability.observer import Observers
from edgegap_async.polling.poller import StatusPoller
from edgegap_async.polling.schedule import PollingPolicy
from edgegap_async.polling.tracker import DeploymentTracker, WebhookTrigger

pytestmark = pytest.mark.virtual

STATUS = ("GET", "/v1/status/abc123")
ONE_ATTEMPT = RetryPolicy(attempts=1)


@pytest.fixture
async def client(api: ScriptedApi) -> AsyncIterator[ApiClient]:
    async with ApiClient("canary-t", base_url=api.url, retries=ONE_ATTEMPT) as client:
        yield client


@pytest.fixture
async def tracker(client: ApiClient) -> DeploymentTracker:
    """Tracks a deployment within its not-found grace."""
    until = asyncio.get_running_loop().time() + 10
    return StatusPoller(client, PollingPolicy()).tracker("abc123", believe_404_from=until)


def old_tracker(client: ApiClient, policy: PollingPolicy | None = None) -> DeploymentTracker:
    """Returns the tracker of a deployment after its not-found grace."""
    return StatusPoller(client, policy or PollingPolicy()).tracker("abc123")


def now() -> float:
    return asyncio.get_running_loop().time()


def at(status: Status) -> Deployment:
    return Deployment(request_id="abc123", current_status=status)


def statuses(tracker: DeploymentTracker) -> list[str]:
    return [str(change.status) for change in tracker.history]


# ── policy ────────────────────────────────────────────────────────────────────────────────────────


def test_intervals_grow_after_the_fast_period() -> None:
    policy = PollingPolicy(interval=0.5, fast_period=2.0, max_interval=0.6)
    age, intervals = 0.0, list[float]()
    while len(intervals) < 10:
        intervals.append(policy.interval_at(age))
        age += intervals[-1]

    assert intervals == pytest.approx([0.5] * 5 + [0.525, 0.55125, 0.5788125, 0.6, 0.6])


def test_intervals_of_long_waits_grow_to_the_maximum() -> None:
    assert [PollingPolicy().interval_at(age) for age in (60, 80, 160, 600)] == [0.5, 1.5, 5.5, 10.0]


def test_intervals_are_longer_while_webhooks_arrive() -> None:
    assert [PollingPolicy().interval_at(age, expects_webhook=True) for age in (0, 20, 180)] == [
        3.0,
        3.0,
        9.0,
    ]


async def test_status_requests_follow_the_policy(
    api: ScriptedApi, tracker: DeploymentTracker
) -> None:
    api.on(*STATUS, *[deployment("DEPLOYING")] * 5, deployment("READY"))
    began = now()
    await tracker.wait_for(Status.READY, 300)
    times = [got.at - began for got in api.requests]

    assert times[0] == pytest.approx(0.4, rel=0.15)
    intervals = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert intervals == [pytest.approx(0.5, rel=0.15)] * 5
    assert tracker.status_requests == 6


async def test_poll_now_and_webhooks_trigger_the_next_request_at_once(
    api: ScriptedApi, client: ApiClient
) -> None:
    api.on(*STATUS, deployment("DEPLOYING"), deployment("READY"))
    tracker = old_tracker(client, PollingPolicy(first_delay=60, interval=60))
    waiting = asyncio.create_task(tracker.wait_for(Status.READY, 300))
    began = now()
    await asyncio.sleep(1)
    tracker.poll_now()
    await asyncio.sleep(1)
    tracker.webhook_received()
    await waiting
    times = [got.at - began for got in api.requests]

    assert times == [pytest.approx(1, abs=0.1), pytest.approx(2, abs=0.1)]
    assert [change.source for change in tracker.history] == ["status", "webhook"]


# ── what a wait ends with ─────────────────────────────────────────────────────────────────────────


async def test_a_wait_ends_with_the_wanted_status(
    api: ScriptedApi, tracker: DeploymentTracker
) -> None:
    api.on(*STATUS, *map(deployment, ["SEEKING", "SEEKING", "DEPLOYING", "READY"]))
    ready = await tracker.wait_for(Status.READY, 300)

    assert ready.public_ip == "192.0.2.7"
    assert statuses(tracker) == ["SEEKING", "DEPLOYING", "READY"]
    assert tracker.deployment == ready
    assert all(change.source == "status" for change in tracker.history)


async def test_a_known_status_needs_no_request(
    api: ScriptedApi, tracker: DeploymentTracker
) -> None:
    tracker.update(at(Status.READY))
    await tracker.wait_for(Status.READY, 0)

    assert not api.requests


async def test_row_23_a_wait_goes_on_through_an_unknown_status(
    api: ScriptedApi, tracker: DeploymentTracker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    api.on(*STATUS, *map(deployment, ["BAKING", "BAKING", "READY"]))
    await tracker.wait_for(Status.READY, 300)

    assert [change.status.value for change in tracker.history] == ["Status.BAKING", "READY"]
    assert caplog.text.count("the status 'Status.BAKING' is unknown") == 1


async def test_a_failed_deployment_ends_the_wait_with_its_reason(
    api: ScriptedApi, tracker: DeploymentTracker
) -> None:
    reason = "image not found"
    api.on(*STATUS, deployment("DEPLOYING"), deployment("ERROR", error=True, error_detail=reason))
    with pytest.raises(DeploymentFailed, match=reason) as caught:
        await tracker.wait_for(Status.READY, 300)

    assert caught.value.error_detail == reason
    assert caught.value.request_id == "abc123"
    assert caught.value.last_status == Status.ERROR
    assert caught.value.history == tracker.history
    assert "DEPLOYING → ERROR" in str(caught.value)


async def test_waits_that_end_with_one_error_do_not_make_its_traceback_longer(
    api: ScriptedApi, tracker: DeploymentTracker
) -> None:
    api.on(*STATUS, Reply(401, {"message": "no such token"}))
    waits = [tracker.wait_for(Status.READY, 300) for _ in range(200)]
    *_, last = await asyncio.gather(*waits, return_exceptions=True)

    assert isinstance(last, Unauthorized)
    assert len(traceback.extract_tb(last.__traceback__)) < 20


async def test_the_reason_of_a_failed_deployment_is_quoted_as_one_line(
    api: ScriptedApi, tracker: DeploymentTracker
) -> None:
    api.on(*STATUS, deployment("ERROR", error_detail="no\n\x1b[2Jimage" + "!" * 10**6))
    with pytest.raises(DeploymentFailed, match="no \ufffd\\[2Jimage!!!") as caught:
        await tracker.wait_for(Status.READY, 300)

    assert len(str(caught.value)) < 1200


async def test_a_deployment_may_fail_without_a_reason(
    api: ScriptedApi, tracker: DeploymentTracker
) -> None:
    api.on(*STATUS, deployment("ERROR"))
    with pytest.raises(DeploymentFailed, match="the API gives no reason") as caught:
        await tracker.wait_for(Status.READY, 300)

    assert caught.value.error_detail == ""


@pytest.mark.parametrize("status", ["TERMINATING", "TERMINATED"])
async def test_a_deployment_that_ends_before_it_is_ready_ends_the_wait(
    api: ScriptedApi, tracker: DeploymentTracker, status: str
) -> None:
    api.on(*STATUS, deployment("DEPLOYING"), deployment(status))
    with pytest.raises(DeploymentTerminated, match=f"{status}.* no stop: .* max_duration"):
        await tracker.wait_for(Status.READY, 300)


async def test_a_wait_for_the_end_goes_through_error(
    api: ScriptedApi, tracker: DeploymentTracker
) -> None:
    api.on(*STATUS, *map(deployment, ["ERROR", "TERMINATING", "TERMINATED"]))
    await tracker.wait_for(Status.TERMINATED, 300)

    assert statuses(tracker) == ["ERROR", "TERMINATING", "TERMINATED"]


async def test_a_timeout_names_the_last_status(
    api: ScriptedApi, tracker: DeploymentTracker
) -> None:
    api.on(*STATUS, deployment("DEPLOYING"))
    began = now()
    with pytest.raises(WaitTimedOut, match="not READY in 30 s; last status: DEPLOYING") as caught:
        await tracker.wait_for(Status.READY, 30)

    assert now() - began == pytest.approx(30, abs=0.1)
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.last_status == Status.DEPLOYING
    assert caught.value.history == tracker.history
    assert "request failed" not in str(caught.value)


async def test_a_wait_after_a_timeout_finds_ready(
    api: ScriptedApi, tracker: DeploymentTracker
) -> None:
    api.on(*STATUS, deployment("DEPLOYING"), deployment("DEPLOYING"), deployment("READY"))
    with pytest.raises(WaitTimedOut):
        await tracker.wait_for(Status.READY, 0.6)

    assert (await tracker.wait_for(Status.READY, 30)).current_status.is_ready


async def test_an_answer_in_the_same_loop_step_as_the_deadline_counts(
    api: ScriptedApi, client: ApiClient
) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    tracker = old_tracker(client, PollingPolicy(first_delay=60))
    waiting = asyncio.create_task(tracker.wait_for(Status.READY, 5))
    await asyncio.sleep(0)
    loop.call_later(4.98, loop.stall, 1)  # then both are due
    loop.call_later(4.99, tracker.update, at(Status.READY))

    assert (await waiting).current_status.is_ready
    assert not api.requests


async def test_a_wait_without_a_limit_goes_on(api: ScriptedApi, tracker: DeploymentTracker) -> None:
    api.on(*STATUS, *[deployment("DEPLOYING")] * 250, deployment("READY"))
    began = now()
    await tracker.wait_for(Status.READY, None)

    assert now() - began > 600


async def test_the_timeout_of_the_caller_stays_a_timeout_error(
    api: ScriptedApi, tracker: DeploymentTracker
) -> None:
    api.on(*STATUS, deployment("DEPLOYING"))
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(5):
            await tracker.wait_for(Status.READY, 300)

    assert not isinstance(caught.value, WaitTimedOut)


async def test_an_internal_timeout_error_is_raised_unchanged(
    client: ApiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FailingPolicy(PollingPolicy):
        def interval_at(self, age: float, *, expects_webhook: bool = False) -> float:
            raise TimeoutError("of another kind")

    with pytest.raises(TimeoutError, match="of another kind") as caught:
        await old_tracker(client, FailingPolicy()).wait_for(Status.READY, 300)

    assert not isinstance(caught.value, WaitTimedOut)


# ── requests that fail ────────────────────────────────────────────────────────────────────────────


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
async def test_transient_failures_do_not_end_a_wait(
    api: ScriptedApi, tracker: DeploymentTracker, reply: Reply
) -> None:
    api.on(*STATUS, *[reply] * 5, deployment("READY"))
    await tracker.wait_for(Status.READY, 300)

    assert statuses(tracker) == ["READY"]


async def test_an_unreachable_server_does_not_end_a_wait(
    client: ApiClient,
) -> None:
    async with ScriptedApi() as gone:
        unreachable = ApiClient("canary-t", base_url=gone.url, retries=ONE_ATTEMPT)
    tracker = old_tracker(unreachable)
    with pytest.raises(
        WaitTimedOut, match="no status was seen; the last request failed: GET /v1/status"
    ):
        await tracker.wait_for(Status.READY, 60)
    await unreachable.close()

    assert 10 < tracker.status_requests < 20  # about 120 while the server answers


async def test_a_server_that_does_not_speak_tls_ends_the_wait_at_once(api: ScriptedApi) -> None:
    async with ApiClient("canary-t", base_url=api.url.replace("http:", "https:")) as client:
        began = now()
        with pytest.raises(NotSent):
            await old_tracker(client).wait_for(Status.READY, 300)

        assert now() - began < 1


async def test_a_timeout_names_the_last_failed_request(
    api: ScriptedApi, tracker: DeploymentTracker
) -> None:
    api.on(*STATUS, deployment("DEPLOYING"), Reply(503))
    with pytest.raises(WaitTimedOut, match=r"the last request failed: GET .* answered 503"):
        await tracker.wait_for(Status.READY, 60)


@pytest.mark.parametrize(
    ("status", "error"), [(401, Unauthorized), (403, Forbidden)], ids=["401", "403"]
)
async def test_a_forbidden_request_ends_every_wait(
    api: ScriptedApi, tracker: DeploymentTracker, status: int, error: type[Exception]
) -> None:
    api.on(*STATUS, deployment("DEPLOYING"), Reply(status))
    waits = (tracker.wait_for(wanted, 300) for wanted in (Status.READY, Status.TERMINATED))
    results = await asyncio.gather(*waits, return_exceptions=True)

    assert [type(result) for result in results] == [error, error]
    assert len(api.requests) == 2


async def test_a_new_wait_after_a_final_failure_polls_again(
    api: ScriptedApi, tracker: DeploymentTracker
) -> None:
    api.on(*STATUS, Reply(401), deployment("READY"))
    with pytest.raises(Unauthorized):
        await tracker.wait_for(Status.READY, 300)
    await tracker.wait_for(Status.READY, 300)

    assert statuses(tracker) == ["READY"]


async def test_a_new_wait_after_a_final_failure_polls_again_beside_an_older_wait(
    api: ScriptedApi, client: ApiClient, tracker: DeploymentTracker
) -> None:
    api.on(*STATUS, deployment("DEPLOYING"), *[Reply(401)] * 2, deployment("READY"))
    owned = OwnedDeployments(
        DeploymentRegister(0, Observers()),
        lambda request_id, _: client.deployments.stop(request_id),
        functools.partial(is_listed, client.deployments),
    )
    changes = DeploymentHandle(client, tracker, owned).changes()
    first = await anext(changes)  # the iteration stays open
    for _ in range(2):
        with pytest.raises(Unauthorized):
            await tracker.wait_for(Status.READY, 300)
    await tracker.wait_for(Status.READY, 300)

    assert [first.status, (await anext(changes)).status] == [Status.DEPLOYING, Status.READY]


@pytest.mark.parametrize("reply", [Reply(404), Reply(400)])
async def test_row_18_a_deployment_that_the_api_does_not_know_yet_is_waited_for(
    api: ScriptedApi, tracker: DeploymentTracker, reply: Reply
) -> None:
    api.on(*STATUS, *[reply] * 5, deployment("READY"))
    await tracker.wait_for(Status.READY, 300)

    assert statuses(tracker) == ["READY"]


@pytest.mark.parametrize(("status", "error"), [(404, NotFound), (400, NotFound)])
async def test_a_deployment_that_stays_unknown_ends_the_wait(
    api: ScriptedApi, tracker: DeploymentTracker, status: int, error: type[Exception]
) -> None:
    api.on(*STATUS, Reply(status))
    began = now()
    with pytest.raises(error):
        await tracker.wait_for(Status.READY, 300)

    assert now() - began == pytest.approx(10.3, abs=0.4)


async def test_gone_ends_the_wait_at_once(api: ScriptedApi, tracker: DeploymentTracker) -> None:
    api.on(*STATUS, Reply(410))
    began = now()
    with pytest.raises(Gone):
        await tracker.wait_for(Status.READY, 300)

    assert now() - began < 1


async def test_not_found_after_the_grace_ends_the_wait_at_once(
    api: ScriptedApi, client: ApiClient
) -> None:
    api.on(*STATUS, Reply(400))
    began = now()
    with pytest.raises(NotFound):
        await old_tracker(client).wait_for(Status.READY, 300)

    assert now() - began < 1


@pytest.mark.parametrize("status", [404, 400])
async def test_not_found_within_the_grace_does_not_end_the_wait(
    api: ScriptedApi, tracker: DeploymentTracker, status: int
) -> None:
    api.on(*STATUS, deployment("DEPLOYING"), Reply(status), deployment("READY"))
    await tracker.wait_for(Status.READY, 300)

    assert statuses(tracker) == ["DEPLOYING", "READY"]


@pytest.mark.parametrize("status", [404, 400, 410])
async def test_a_known_deployment_that_is_missing_is_terminated(
    api: ScriptedApi, tracker: DeploymentTracker, status: int
) -> None:
    api.on(*STATUS, deployment("READY"), Reply(status))
    last = await tracker.wait_for(Status.TERMINATED, 300)

    assert statuses(tracker) == ["READY", "TERMINATED"]
    assert (last.current_status, last.running) == (Status.TERMINATED, False)
    assert last.public_ip == "192.0.2.7"


async def test_an_invalid_id_is_refused(client: ApiClient) -> None:
    with pytest.raises(ValueError, match="request_id"):
        await StatusPoller(client, PollingPolicy()).tracker("../app").wait_for(Status.READY, 300)


# ── changes ───────────────────────────────────────────────────────────────────────────────────────


async def test_an_older_status_is_ignored(tracker: DeploymentTracker) -> None:
    for status in (Status.READY, Status.DEPLOYING, Status.READY):
        tracker.update(at(status))

    assert statuses(tracker) == ["READY"]
    assert tracker.status == Status.READY


async def test_an_answer_with_the_same_status_replaces_the_older_answer(
    tracker: DeploymentTracker,
) -> None:
    tracker.update(at(Status.READY))
    newer = Deployment(request_id="abc123", current_status=Status.READY, elapsed_time=5)
    tracker.update(newer)

    assert len(tracker.history) == 1
    assert tracker.deployment is newer


async def test_waits_for_one_deployment_share_requests(
    api: ScriptedApi, tracker: DeploymentTracker
) -> None:
    api.on(*STATUS, *map(deployment, ["SEEKING", "DEPLOYING", "READY"]))
    await asyncio.gather(*(tracker.wait_for(Status.READY, 300) for _ in range(20)))

    assert len(api.requests) == 3


async def test_polling_stops_without_a_wait(api: ScriptedApi, tracker: DeploymentTracker) -> None:
    api.on(*STATUS, deployment("DEPLOYING"))
    with pytest.raises(WaitTimedOut):
        await tracker.wait_for(Status.READY, 5)
    asked = len(api.requests)
    await asyncio.sleep(60)

    assert len(api.requests) == asked
    assert len(asyncio.all_tasks()) < 6  # of the test and the server; none polls


async def test_a_cancelled_wait_does_not_affect_others(
    api: ScriptedApi, tracker: DeploymentTracker
) -> None:
    api.on(*STATUS, *[deployment("DEPLOYING")] * 10, deployment("READY"))
    one, other = (asyncio.create_task(tracker.wait_for(Status.READY, 300)) for _ in range(2))
    await asyncio.sleep(1)
    one.cancel()
    with pytest.raises(asyncio.CancelledError):
        await one

    assert (await other).current_status.is_ready
    assert len(api.requests) == 11


async def test_row_31_closing_the_client_ends_every_wait_at_once(
    api: ScriptedApi, client: ApiClient, tracker: DeploymentTracker
) -> None:
    api.on(*STATUS, deployment("DEPLOYING"), Reply(delay=25))
    waits = [asyncio.create_task(tracker.wait_for(Status.READY, 300)) for _ in range(2)]
    await api.until_asked(*STATUS, times=2)
    began = now()
    await client.close()
    results = await asyncio.gather(*waits, return_exceptions=True)

    assert [type(result) for result in results] == [ClientClosed, ClientClosed]
    assert now() - began < 0.1


async def test_each_change_is_reported_once(api: ScriptedApi, tracker: DeploymentTracker) -> None:
    api.on(*STATUS, *map(deployment, ["SEEKING", "SEEKING", "READY"]))
    await tracker.wait_for_change(0)
    assert statuses(tracker) == ["SEEKING"]
    await tracker.wait_for_change(1)
    assert statuses(tracker) == ["SEEKING", "READY"]


async def test_a_failure_between_two_waits_is_raised_by_the_second(
    api: ScriptedApi, tracker: DeploymentTracker
) -> None:
    api.on(*STATUS, Reply(401))
    with tracker.waiting():
        await asyncio.sleep(5)
        assert len(api.requests) == 1
        with pytest.raises(Unauthorized):
            await tracker.wait_for_change(0)


# ── webhooks ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("early", [True, False], ids=["before", "after"])
async def test_a_trigger_reports_a_webhook_before_and_after_it_is_connected(
    tracker: DeploymentTracker, *, early: bool
) -> None:
    trigger = WebhookTrigger()
    if early:
        trigger.fire()
    trigger.connect(tracker)
    pending_at_once = tracker.webhook_pending
    trigger.fire()

    assert pending_at_once is early
    assert tracker.webhook_pending


def test_an_interval_above_the_maximum_stays() -> None:
    assert PollingPolicy(interval=20).interval_at(0) == 20
