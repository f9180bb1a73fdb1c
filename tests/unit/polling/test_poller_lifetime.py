"""Polling begins with the first wait, ends with the last one, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc

import pytest
from flaky_api import FlakyApi, now
from poller_waits import NEVER, max_delay, tasks_since, wait_all, waiting_for
from scripted_api import Reply

from edgegap_async.api.models import Status
from edgegap_async.errors import ClientClosed, InvalidRequest, WaitTimedOut, WrongLoop
from edgegap_async.http.api_client import ApiClient
from edgegap_async.polling.poller import StatusPoller
from edgegap_async.polling.schedule import PollingPolicy

pytestmark = pytest.mark.virtual


async def test_polling_stops_when_the_last_wait_ends(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    ids = flaky_api.deploy(40)
    before = asyncio.all_tasks()
    results = await asyncio.gather(
        *(poller.tracker(one).wait_for(Status.READY, 3.1) for one in ids), return_exceptions=True
    )
    await asyncio.sleep(0.2)
    count = len(flaky_api.requests)

    assert {type(one) for one in results} == {WaitTimedOut}
    assert not tasks_since(before)
    await asyncio.sleep(60)
    assert len(flaky_api.requests) == count
    assert poller.stats.waiting == 0
    assert repr(poller) == "<StatusPoller: 0 deployments waited for>"


@pytest.mark.parametrize("count", [1, 5])
async def test_requests_in_flight_are_cancelled_when_the_last_wait_ends(
    flaky_api: FlakyApi, poller: StatusPoller, count: int
) -> None:
    flaky_api.on_status = lambda _: Reply(delay=20)
    flaky_api.on_list = lambda _: Reply(delay=20)
    before = asyncio.all_tasks()
    waits = (poller.tracker(one).wait_for(Status.READY, 1) for one in flaky_api.deploy(count))
    results = await asyncio.gather(*waits, return_exceptions=True)
    await asyncio.sleep(0.01)

    assert {type(one) for one in results} == {WaitTimedOut}
    assert not tasks_since(before)


async def test_waits_that_end_as_their_request_begins_free_its_place(
    flaky_api: FlakyApi, client: ApiClient
) -> None:
    poller = StatusPoller(client, PollingPolicy(first_delay=0.0))
    for request_id in flaky_api.deploy(30):
        waiting = asyncio.create_task(poller.tracker(request_id).wait_for(Status.READY, 300))
        while not poller.stats.status_requests:
            await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    # A task may be cancelled before its request is sent; the next wait is polled as usual.
    ids = flaky_api.deploy(1, ready_in=1)
    times = await wait_all(poller, ids, max_wait=20)

    assert max_delay(flaky_api, ids, times) < 0.7


async def test_a_tracker_without_references_is_forgotten(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    ids = flaky_api.deploy(60, ready_in=2.5)
    await wait_all(poller, ids)
    await asyncio.sleep(0.2)

    assert not poller._trackers


@pytest.mark.parametrize("count", [1, 3])
async def test_a_tracker_is_forgotten_when_the_last_wait_ends_during_a_status_request(
    flaky_api: FlakyApi, poller: StatusPoller, count: int
) -> None:
    flaky_api.on_status = lambda _: Reply(delay=2)
    waits = [
        asyncio.create_task(wait_all(poller, [one], max_wait=5)) for one in flaky_api.deploy(count)
    ]
    while not poller.stats.status_requests:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.5)
    while waits:
        waits.pop().cancel()
    await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)
    gc.collect()  # asyncio keeps a cycle of the cancelled task

    assert not poller._trackers


async def test_short_waits_do_not_fill_the_status_queue(
    flaky_api: FlakyApi, client: ApiClient
) -> None:
    poller = StatusPoller(client, PollingPolicy(full_list_interval=3600))
    flaky_api.hidden_until = dict.fromkeys(flaky_api.deploy(10), NEVER)
    waiting = [
        asyncio.create_task(poller.tracker(one).wait_for(Status.READY, 60))
        for one in flaky_api.lifecycles
    ]
    for _ in range(300):
        for one in flaky_api.deploy(5):
            with pytest.raises(WaitTimedOut):
                await poller.tracker(one).wait_for(Status.READY, 0.01)

    assert 10 <= len(poller._status_queue) < 2 * 11 + 70
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_repeated_short_waits_find_ready(flaky_api: FlakyApi, poller: StatusPoller) -> None:
    [one] = flaky_api.deploy(1, ready_in=2)
    tracker = poller.tracker(one)
    for _ in range(20):
        try:
            await tracker.wait_for(Status.READY, 0.3)
        except WaitTimedOut:
            continue
        break

    assert now() - flaky_api.lifecycles[one].ready_at < 1.2
    assert tracker.status_requests < 10


async def test_repeated_short_waits_find_ready_that_lists_omit(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    [steady], [one] = flaky_api.deploy(1), flaky_api.deploy(1, ready_in=5)
    flaky_api.hidden_until = {one: NEVER}
    tracker = poller.tracker(one)
    async with waiting_for(poller, [steady]):
        while tracker.status != Status.READY and now() < flaky_api.lifecycles[one].ready_at + 30:
            with contextlib.suppress(WaitTimedOut):
                await tracker.wait_for(Status.READY, 1)

    assert now() - flaky_api.lifecycles[one].ready_at < 6


async def test_repeated_short_waits_send_no_extra_requests(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    [one] = flaky_api.deploy(1)
    tracker = poller.tracker(one)
    for _ in range(100):
        with pytest.raises(WaitTimedOut):
            await tracker.wait_for(Status.READY, 0.1)

    assert 15 < len(flaky_api.status_requests) < 25


async def test_closing_the_client_ends_every_wait(flaky_api: FlakyApi, client: ApiClient) -> None:
    poller = StatusPoller(client, PollingPolicy())
    before = asyncio.all_tasks()
    ids = flaky_api.deploy(20)
    waits = [
        asyncio.create_task(poller.tracker(one).wait_for(wanted, 300))
        for one, wanted in zip(ids * 2, [Status.READY, Status.TERMINATED] * 20, strict=True)
    ]
    await asyncio.sleep(3)
    await client.close()
    results = await asyncio.gather(*waits, return_exceptions=True)
    await asyncio.sleep(0)

    assert {type(one) for one in results} == {ClientClosed}
    assert not tasks_since(before)
    with pytest.raises(ClientClosed):
        await poller.tracker(ids[0]).wait_for(Status.READY, 300)
    assert poller.stats.waiting == 0


async def test_waits_in_another_event_loop_are_refused(
    flaky_api: FlakyApi, client: ApiClient, poller: StatusPoller
) -> None:
    [one] = flaky_api.deploy(1, ready_in=3)
    tracker = poller.tracker(one)
    waiting = asyncio.create_task(tracker.wait_for(Status.READY, 30))
    await asyncio.sleep(1)

    def elsewhere() -> object:
        return asyncio.run(asyncio.wait_for(poller.tracker("other").wait_for(Status.READY, 5), 6))

    with pytest.raises(WrongLoop):
        await asyncio.to_thread(elsewhere)
    await waiting


async def wait_one(poller: StatusPoller, request_id: str) -> float:
    """Waits for READY in this task. Returns the loop time at which the wait ended."""
    await poller.tracker(request_id).wait_for(Status.READY, 300)
    return now()


@pytest.mark.parametrize("count", [1, 5])
async def test_row_74_waits_that_are_spared_when_all_tasks_are_cancelled_go_on(
    flaky_api: FlakyApi, poller: StatusPoller, count: int
) -> None:
    ids = flaky_api.deploy(count, ready_in=4)
    before = asyncio.all_tasks()
    waits = [asyncio.create_task(wait_one(poller, one)) for one in ids]
    lost = asyncio.create_task(wait_one(poller, *flaky_api.deploy(1)))
    while now() < flaky_api.lifecycles[ids[0]].ready_at - 0.5:
        await asyncio.sleep(0.07)  # some requests are in flight, some tasks have not begun
        for task in tasks_since(before):
            if task not in waits:
                task.cancel()
    times = [await wait for wait in waits]

    assert lost.cancelled()
    assert max_delay(flaky_api, ids, times) < 0.7
    await asyncio.sleep(0.01)
    assert not tasks_since(before)


@pytest.mark.parametrize("has_begun", [False, True])
@pytest.mark.parametrize("count", [1, 5])
async def test_row_74_a_webhook_is_answered_although_its_request_is_cancelled(
    flaky_api: FlakyApi, client: ApiClient, count: int, *, has_begun: bool
) -> None:
    poller = StatusPoller(client, PollingPolicy(first_delay=60, interval=60))
    ids = flaky_api.deploy(count, ready_in=4)
    waits = [asyncio.create_task(wait_one(poller, one)) for one in ids]
    before = asyncio.all_tasks()
    await asyncio.sleep(5)
    sent = poller.stats.status_requests + poller.stats.list_requests
    poller.tracker(ids[0]).webhook_received()
    while poller.stats.status_requests + poller.stats.list_requests == sent:
        await asyncio.sleep(0)
    await asyncio.sleep(has_begun * 0.01)
    for task in tasks_since(before):
        task.cancel()
    time = await waits[0]

    assert time - flaky_api.lifecycles[ids[0]].ready_at < 2
    for wait in waits:
        wait.cancel()
    await asyncio.gather(*waits, return_exceptions=True)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(
    "where", ["StatusPoller._run()", "None"], ids=["poller", "end of a request"]
)
async def test_an_internal_error_ends_every_wait(
    flaky_api: FlakyApi, client: ApiClient, count: int, where: str
) -> None:
    class FailingPolicy(PollingPolicy):
        def interval_at(self, age: float, *, expects_webhook: bool = False) -> float:
            if now() > began + 3 and where in repr(asyncio.current_task()):
                raise LookupError("no interval")
            return super().interval_at(age, expects_webhook=expects_webhook)

    poller, began, before = StatusPoller(client, FailingPolicy()), now(), asyncio.all_tasks()
    results = await asyncio.gather(
        *(poller.tracker(one).wait_for(Status.READY, 60) for one in flaky_api.deploy(count)),
        return_exceptions=True,
    )
    await asyncio.sleep(0.2)

    assert {type(one) for one in results} == {LookupError}
    assert now() - began < 45  # the next check of a listed deployment may be far off
    assert not tasks_since(before)


@pytest.mark.parametrize("request_id", ["../app", "", "x" * 200, 7])
async def test_an_invalid_id_is_refused_at_once(poller: StatusPoller, request_id: str) -> None:
    with pytest.raises(InvalidRequest, match="request_id"):
        poller.tracker(request_id)


async def test_a_wait_refused_by_a_closed_client_leaves_no_waiter(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    [one] = flaky_api.deploy(1, ready_in=1)
    tracker = poller.tracker(one)
    await poller.client.close()
    for _ in range(2):
        with pytest.raises(ClientClosed):
            await tracker.wait_for(Status.READY, 5)

    assert not tracker.is_awaited
    assert poller.stats.waiting == 0
