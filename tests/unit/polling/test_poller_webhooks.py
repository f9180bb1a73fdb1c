"""A webhook triggers the next request; without webhooks the poller asks as often as before."""

from __future__ import annotations

import asyncio
import itertools
import logging

import pytest
from flaky_api import FlakyApi, Lifecycle, now
from poller_waits import NEVER, UNAVAILABLE, max_delay, wait_all, waiting_for
from scripted_api import Reply

from edgegap_async.api.models import Deployment, Status
from edgegap_async.errors import DeploymentFailed
from edgegap_async.http.api_client import ApiClient
from edgegap_async.polling.list_strategy import ListMode
from edgegap_async.polling.poller import StatusPoller
from edgegap_async.polling.schedule import PollingPolicy
from edgegap_async.polling.tracker import DeploymentTracker

pytestmark = pytest.mark.virtual


async def test_a_webhook_triggers_a_list_request_at_once(
    flaky_api: FlakyApi, client: ApiClient
) -> None:
    poller = StatusPoller(client, PollingPolicy(interval=60, full_list_interval=60, first_delay=60))
    ids = flaky_api.deploy(40, ready_in=3)
    trackers = [poller.tracker(one) for one in ids]
    waiting = asyncio.create_task(wait_all(poller, ids))
    await asyncio.sleep(3)
    for tracker in trackers:
        tracker.webhook_received()
    times = await waiting

    assert max_delay(flaky_api, ids, times) < 0.4
    assert {tracker.history[-1].source for tracker in trackers} == {"webhook"}
    assert poller.stats.found_by_webhook == 40


async def test_a_webhook_hastens_only_the_next_list_request(
    flaky_api: FlakyApi, client: ApiClient
) -> None:
    poller = StatusPoller(client, PollingPolicy(interval=20))
    ids = flaky_api.deploy(5)
    waiting = asyncio.create_task(wait_all(poller, ids))
    await asyncio.sleep(1)
    before = len(flaky_api.list_requests)
    poller.tracker(ids[0]).webhook_received()
    await asyncio.sleep(5)

    assert len(flaky_api.list_requests) == before + 1
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_a_deployment_with_a_webhook_comes_first_in_the_next_list(
    flaky_api: FlakyApi, client: ApiClient
) -> None:
    poller = StatusPoller(client, PollingPolicy(interval=60, full_list_interval=60, first_delay=60))
    ids = flaky_api.deploy(700)
    waiting = asyncio.create_task(wait_all(poller, ids))
    await asyncio.sleep(5)
    last = next(reversed(poller._ready_group.members))
    tracker = poller.tracker(last)
    flaky_api.lifecycles[last] = Lifecycle(ready_at=now())
    tracker.webhook_received()
    await tracker.wait_for(Status.READY, 5)

    assert now() - flaky_api.lifecycles[last].ready_at < 0.3
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


@pytest.mark.parametrize(
    ("wanted", "mode"),
    [(Status.TERMINATED, ListMode.CHANGED), (Status.READY, ListMode.BY_ID)],
    ids=["any change", "by id"],
)
async def test_a_deployment_with_a_webhook_comes_first_in_full_lists(
    flaky_api: FlakyApi, client: ApiClient, wanted: Status, mode: ListMode
) -> None:
    poller = StatusPoller(client, PollingPolicy(interval=60, full_list_interval=60, first_delay=60))
    poller._lists.fall_back("a test", mode)
    ids = flaky_api.deploy(110, ready_in=0 if wanted is Status.TERMINATED else NEVER)
    async with waiting_for(poller, ids, wanted):
        while poller.tracker(ids[0]).status is None:
            await asyncio.sleep(0.01)
        last = (flaky_api.list_requests[-1].ids or ids)[-1]
        lifecycle = Lifecycle(
            ready_at=now(), ended_at=now() if wanted is Status.TERMINATED else NEVER
        )
        flaky_api.lifecycles[last] = lifecycle
        tracker = poller.tracker(last)
        tracker.webhook_received()
        await tracker.wait_for(wanted, 60)

        assert now() - lifecycle.ready_at < 0.5


async def test_a_webhook_before_the_wait_triggers_a_request(
    flaky_api: FlakyApi, client: ApiClient
) -> None:
    poller = StatusPoller(client, PollingPolicy(first_delay=60))
    ids = flaky_api.deploy(1, ready_in=0)
    tracker = poller.tracker(ids[0])
    tracker.webhook_received()
    times = await wait_all(poller, ids)

    assert max_delay(flaky_api, ids, times) < 0.2
    assert tracker.history[-1].source == "webhook"


@pytest.mark.parametrize("count", [1, 2])
async def test_constant_webhooks_cost_a_few_requests_a_second(
    flaky_api: FlakyApi, poller: StatusPoller, count: int
) -> None:
    ids = flaky_api.deploy(count)
    waiting = [asyncio.create_task(poller.tracker(one).wait_for(Status.READY, 20)) for one in ids]
    for _ in range(2000):
        poller.tracker(ids[0]).webhook_received()
        await asyncio.sleep(0.01)
    await asyncio.gather(*waiting, return_exceptions=True)

    assert len(flaky_api.requests) < 20 * 9 + 20


@pytest.mark.parametrize("count", [1, 5])
async def test_a_webhook_stays_pending_when_its_request_fails(
    flaky_api: FlakyApi, client: ApiClient, count: int
) -> None:
    poller = StatusPoller(client, PollingPolicy(interval=30, full_list_interval=30, first_delay=30))
    ids = flaky_api.deploy(count, ready_in=0)
    failing = itertools.count()

    def answer(_: object) -> Reply | None:
        return UNAVAILABLE if next(failing) < 2 else None

    flaky_api.on_status = flaky_api.on_list = answer
    waiting = asyncio.create_task(wait_all(poller, ids))
    await asyncio.sleep(1)
    for one in ids:
        poller.tracker(one).webhook_received()
    began = now()
    await waiting

    assert now() - began < 3


@pytest.mark.parametrize("listed", [True, False], ids=["listed", "hidden"])
async def test_a_webhook_right_after_a_status_request_triggers_another(
    flaky_api: FlakyApi, client: ApiClient, *, listed: bool
) -> None:
    poller = StatusPoller(client, PollingPolicy(interval=20))
    [one, *_] = ids = flaky_api.deploy(4)
    flaky_api.hidden_until = {one: NEVER}
    tracker = poller.tracker(one)
    async with waiting_for(poller, ids):
        tracker.webhook_received()
        while tracker.status is None:
            await asyncio.sleep(0.01)
        # No request is in flight any more.
        assert [request.request_id for request in flaky_api.requests][-2:] == [None, one]
        flaky_api.hidden_until = {} if listed else {one: NEVER}
        flaky_api.lifecycles[one] = Lifecycle(error_at=now())
        tracker.webhook_received()
        with pytest.raises(DeploymentFailed):
            await tracker.wait_for(Status.READY, 60)

    assert now() - flaky_api.lifecycles[one].error_at < 1


async def test_a_webhook_triggers_a_status_request_while_lists_fail(
    flaky_api: FlakyApi, client: ApiClient
) -> None:
    poller = StatusPoller(
        client,
        PollingPolicy(interval=5, full_list_interval=30, first_delay=30, webhook_interval=30),
    )
    flaky_api.on_list = lambda _: UNAVAILABLE
    ids = flaky_api.deploy(3, ready_in=29)
    waiting = asyncio.create_task(wait_all(poller, ids))
    await asyncio.sleep(29.1)
    for one in ids:
        poller.tracker(one).webhook_received()
    times = await waiting

    assert max_delay(flaky_api, ids, times) < 0.6


async def test_a_forged_webhook_changes_no_status(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    ids = flaky_api.deploy(3, ready_in=5)
    waiting = asyncio.create_task(wait_all(poller, ids))
    for _ in range(4):
        await asyncio.sleep(1)
        for one in ids:
            poller.tracker(one).webhook_received()
    times = await waiting

    assert min(times) >= flaky_api.lifecycles[ids[0]].ready_at


async def test_a_list_that_is_older_than_the_webhook_is_confirmed_by_status(
    flaky_api: FlakyApi, client: ApiClient
) -> None:
    flaky_api.list_age = 0.5
    poller = StatusPoller(client, PollingPolicy(interval=3, first_delay=3))
    ids = flaky_api.deploy(4)
    async with waiting_for(poller, ids):
        while not flaky_api.list_requests:
            await asyncio.sleep(0.01)
        flaky_api.lifecycles[ids[0]] = Lifecycle(ready_at=now())
        tracker = poller.tracker(ids[0])
        tracker.webhook_received()
        await tracker.wait_for(Status.READY, 60)

        assert now() - flaky_api.lifecycles[ids[0]].ready_at < 0.5


async def test_requests_are_rare_while_webhooks_arrive(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    def wait_for(seconds: float) -> tuple[DeploymentTracker, asyncio.Task[Deployment]]:
        [one] = flaky_api.deploy(1, ready_in=seconds)
        tracker = poller.tracker(one, expects_webhook=True)
        return tracker, asyncio.create_task(tracker.wait_for(Status.READY, 300))

    async def count_requests(seconds: float) -> int:
        tracker, waiting = wait_for(NEVER)
        await asyncio.sleep(seconds)
        while len(poller._status_requests):  # or that request finds READY
            await asyncio.sleep(0.001)
        flaky_api.lifecycles[tracker.request_id] = Lifecycle(ready_at=now())
        tracker.webhook_received()
        await waiting
        assert tracker.history[-1].source == "webhook"
        return tracker.status_requests

    def is_active() -> bool:
        return poller.stats.webhooks_active

    assert not is_active()
    assert await count_requests(10.3) > 15
    assert is_active()
    assert await count_requests(10.3) < 7
    tracker, waiting = wait_for(1.5)  # no webhook comes any more
    await waiting
    tracker, waiting = wait_for(1.5)
    await waiting
    assert not is_active()
    tracker.webhook_received()  # late, and still in time
    assert is_active()
    score = poller._reader.webhooks._score
    tracker.webhook_received()  # a second webhook for one READY counts no more
    assert poller._reader.webhooks._score == score


@pytest.mark.parametrize(("late", "active"), [(0.1, True), (4, False)])
async def test_webhooks_count_if_they_come_soon_after_ready(
    flaky_api: FlakyApi, poller: StatusPoller, *, late: float, active: bool
) -> None:
    for one in flaky_api.deploy(3, ready_in=0):
        tracker = poller.tracker(one, expects_webhook=True)
        await tracker.wait_for(Status.READY, 60)
        await asyncio.sleep(late)
        tracker.webhook_received()

    assert poller.stats.webhooks_active is active


async def test_missing_webhooks_are_logged_once(
    flaky_api: FlakyApi, poller: StatusPoller, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    warnings = []
    for one in flaky_api.deploy(12, ready_in=0):
        await poller.tracker(one, expects_webhook=True).wait_for(Status.READY, 60)
        warnings.append(len(caplog.messages))

    assert warnings == [*[0] * 9, *[1] * 3]
    assert "10 deployments" in caplog.text
    assert "public_url" in caplog.text
    ids = flaky_api.deploy(1, ready_in=5)
    assert max_delay(flaky_api, ids, await wait_all(poller, ids)) < 0.7


async def test_missing_webhooks_are_logged_only_after_the_webhook_interval(
    flaky_api: FlakyApi, poller: StatusPoller, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    ids = flaky_api.deploy(12, ready_in=0)
    trackers = [poller.tracker(one, expects_webhook=True) for one in ids]
    await wait_all(poller, ids)
    assert not caplog.messages
    await asyncio.sleep(PollingPolicy().webhook_interval)
    [one] = flaky_api.deploy(1, ready_in=0)
    await poller.tracker(one, expects_webhook=True).wait_for(Status.READY, 60)

    assert f"{len(trackers) + 1} deployments" in caplog.text


@pytest.mark.parametrize("expected", [True, False], ids=["one came", "none was to come"])
async def test_missing_webhooks_are_not_logged_without_a_reason(
    flaky_api: FlakyApi, poller: StatusPoller, caplog: pytest.LogCaptureFixture, *, expected: bool
) -> None:
    caplog.set_level(logging.WARNING)
    for number, one in enumerate(flaky_api.deploy(15, ready_in=0)):
        tracker = poller.tracker(one, expects_webhook=expected)
        await tracker.wait_for(Status.READY, 60)
        if expected and number == 0:
            await asyncio.sleep(60)
            tracker.webhook_received()  # too late to count

    assert not caplog.messages
    assert not poller.stats.webhooks_active


async def test_a_deployment_without_webhooks_keeps_its_interval(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    poller._reader.webhooks._score = 5
    ids = flaky_api.deploy(1, ready_in=10)
    times = await wait_all(poller, ids)

    assert max_delay(flaky_api, ids, times) < 0.7
