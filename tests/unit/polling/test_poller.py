"""The poller asks by status or by list, as often as the policy and the rate limits allow."""

from __future__ import annotations

import asyncio
import itertools
import math

import pytest
from flaky_api import FlakyApi, Lifecycle, now
from poller_waits import REFUSED, max_delay, wait_all, waiting_for
from scripted_api import Reply

from edgegap_async.api.models import Deployment, Status
from edgegap_async.errors import DeploymentFailed, WaitTimedOut
from edgegap_async.http.api_client import ApiClient
from edgegap_async.polling.poller import StatusPoller
from edgegap_async.polling.schedule import PollingPolicy

pytestmark = pytest.mark.virtual


async def test_a_single_wait_is_polled_by_status_requests(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    ids = flaky_api.deploy(1, ready_in=5)
    times = await wait_all(poller, ids)

    assert not flaky_api.list_requests
    assert max_delay(flaky_api, ids, times) < 0.7


async def test_waits_for_ready_share_list_requests_and_return_the_address(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    ids = flaky_api.deploy(30, ready_in=3)
    seen = await asyncio.gather(*(poller.tracker(one).wait_for(Status.READY, 300) for one in ids))

    assert {one.public_ip for one in seen} == {"192.0.2.7"}
    assert {one.ports["game"].external for one in seen} == {31504}
    assert {one.fqdn for one in seen} == {f"{one}.pr.edgegap.net" for one in ids}
    assert len(flaky_api.list_requests) < 3 / 0.1
    assert poller.stats.found_by_list > 25


async def test_list_requests_are_as_frequent_as_allowed_when_one_cannot_hold_all_ids(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    with pytest.raises(WaitTimedOut):
        await wait_all(poller, flaky_api.deploy(900), max_wait=6)

    assert 48 < len(flaky_api.list_requests) < 65


async def test_waits_for_terminated_share_list_requests(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    ids = flaky_api.deploy(20, ready_in=1, ended_in=6)
    began = now()
    times = await wait_all(poller, ids, Status.TERMINATED)

    assert max(times) - began < 7.5
    assert len(flaky_api.status_requests) < 60
    assert poller.stats.found_by_status >= 20


async def test_waits_for_terminated_never_filter_by_status(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    with pytest.raises(WaitTimedOut):
        await wait_all(poller, flaky_api.deploy(100), Status.TERMINATED, max_wait=5)

    assert flaky_api.list_requests
    assert not any(one.only_ready for one in flaky_api.list_requests)


async def test_a_single_wait_of_each_kind_is_polled_by_status_requests(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    ready, ended = flaky_api.deploy(2, ready_in=2, ended_in=4)
    await asyncio.gather(
        wait_all(poller, [ready]),
        wait_all(poller, [ended], Status.TERMINATED),
    )

    assert not flaky_api.list_requests


async def test_handles_of_one_deployment_share_status_requests(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    [one] = flaky_api.deploy(1, ready_in=5)
    assert poller.tracker(one) is poller.tracker(one)
    await wait_all(poller, [one, one, one])

    assert len(flaky_api.status_requests) < 13
    assert not flaky_api.list_requests


async def test_a_second_handle_extends_the_not_found_grace(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    tracker = poller.tracker("abc")
    poller.tracker("abc", believe_404_from=now() + 9)

    assert tracker.believe_404_from == pytest.approx(now() + 9, abs=0.01)
    poller.tracker("abc")
    assert tracker.believe_404_from == pytest.approx(now() + 9, abs=0.01)


async def test_a_wait_for_another_status_moves_the_deployment_to_the_other_group_and_back(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    ids = flaky_api.deploy(3, ready_in=4)
    waiting = asyncio.create_task(wait_all(poller, ids))
    await asyncio.sleep(1)
    with pytest.raises(WaitTimedOut):
        await poller.tracker(ids[0]).wait_for(Status.TERMINATED, 1)
    times = await waiting

    assert max_delay(flaky_api, ids, times) < 0.7


@pytest.mark.parametrize("count", [1, 3])
async def test_a_wait_for_any_change_is_polled_by_status_when_rows_have_no_status(
    flaky_api: FlakyApi, poller: StatusPoller, count: int
) -> None:
    flaky_api.change_row = lambda row: row | {"status": None}
    ids = flaky_api.deploy(6, error_in=8)
    some = [poller.tracker(one) for one in ids[:count]]
    waiting = asyncio.create_task(wait_all(poller, ids))
    await asyncio.sleep(1)
    await asyncio.gather(*(tracker.wait_for_change(0) for tracker in some))
    await asyncio.gather(*(tracker.wait_for_change(1) for tracker in some))

    assert now() - flaky_api.lifecycles[ids[0]].error_at < 0.7
    with pytest.raises(DeploymentFailed):
        await waiting


async def test_the_last_waiting_deployment_is_polled_by_status_requests(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    ids = [*flaky_api.deploy(3, ready_in=2), *flaky_api.deploy(1, ready_in=9)]
    times = await wait_all(poller, ids)
    list_times = [one.at for one in flaky_api.list_requests]

    assert max_delay(flaky_api, ids, times) < 0.7
    assert max(list_times) < flaky_api.lifecycles[ids[0]].ready_at + 1


async def test_a_deployment_left_alone_by_many_is_polled_by_status_again(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    many, [lone] = flaky_api.deploy(80, ready_in=10), flaky_api.deploy(1, ready_in=0, ended_in=16)
    waiting = asyncio.create_task(wait_all(poller, many))
    [ended_at] = await wait_all(poller, [lone], Status.TERMINATED)
    await waiting

    assert ended_at - flaky_api.lifecycles[lone].ended_at < 1


async def test_the_last_few_of_many_are_asked_about_as_soon_as_the_many(
    flaky_api: FlakyApi, client: ApiClient
) -> None:
    poller = StatusPoller(client, PollingPolicy(interval=20, first_delay=20))
    many, two = flaky_api.deploy(98), flaky_api.deploy(2)
    async with waiting_for(poller, [*many, *two]):
        await asyncio.sleep(10)
        flaky_api.lifecycles.update(dict.fromkeys(many, Lifecycle(ready_at=now())))
        while poller.stats.waiting > 2:
            await asyncio.sleep(0.01)
        before, at = len(flaky_api.list_requests), now()
        while len(flaky_api.list_requests) == before:
            await asyncio.sleep(0.01)

        assert now() - at < 3  # seconds; for a group of two it would be 16


async def test_the_last_wait_of_two_is_listed_once_more_with_the_deployment_that_was_found(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    [first] = flaky_api.deploy(1, ready_in=2)
    [last] = flaky_api.deploy(1)
    async with waiting_for(poller, [first, last]):
        while poller.stats.waiting == 2:
            await asyncio.sleep(0.01)
        before = len(flaky_api.list_requests)
        await asyncio.sleep(60)
        [extra] = flaky_api.list_requests[before:]  # proves that lists are fresh

    assert set(extra.ids or ()) == {first, last}


@pytest.mark.parametrize("is_new", [True, False])
async def test_only_the_deploy_of_this_client_delays_the_first_list_request(
    flaky_api: FlakyApi, client: ApiClient, *, is_new: bool
) -> None:
    poller = StatusPoller(client, PollingPolicy(first_delay=20))
    deployed_at = now() if is_new else -math.inf
    two = flaky_api.deploy(2)
    # A stop of a deployment that another program has deployed has a grace too.
    trackers = [
        poller.tracker(one, deployed_at=deployed_at, believe_404_from=now() + 60) for one in two
    ]
    async with waiting_for(poller, two):
        await asyncio.sleep(10)

        assert bool(flaky_api.list_requests) is not is_new
    assert all(tracker.believe_404_from > now() for tracker in trackers)


async def test_intervals_grow_when_no_new_wait_begins(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    flaky_api.deploy(5)
    with pytest.raises(WaitTimedOut):
        await asyncio.gather(
            *(poller.tracker(one).wait_for(Status.READY, 400) for one in flaky_api.lifecycles)
        )
    late = [one for one in flaky_api.list_requests if one.at > now() - 100]

    assert 10 < len(late) < 35


async def test_the_poller_sleeps_while_every_deployment_has_a_request_in_flight(
    flaky_api: FlakyApi, client: ApiClient
) -> None:
    calls = itertools.count()

    class CountingPolicy(PollingPolicy):
        def interval_at(self, age: float, *, expects_webhook: bool = False) -> float:
            next(calls)
            return super().interval_at(age, expects_webhook=expects_webhook)

    poller = StatusPoller(client, CountingPolicy(interval=0.001))
    flaky_api.on_list = lambda _: Reply(delay=600)
    flaky_api.on_status = lambda _: Reply(delay=600)
    async with waiting_for(poller, flaky_api.deploy(61)):
        while not flaky_api.list_requests:
            await asyncio.sleep(0.01)
        before = next(calls)
        await asyncio.sleep(1)

        assert next(calls) - before < 100


async def test_requests_stay_within_the_rate_limits(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    flaky_api.on_list = lambda request: REFUSED if request.only_ready else None
    await wait_all(poller, flaky_api.deploy(500, ready_in=10))

    for requests, limit in ((flaky_api.status_requests, 20), (flaky_api.list_requests, 10)):
        times = [one.at for one in requests]
        assert all(later - times[n] > 0.95 for n, later in enumerate(times[limit:]))


async def test_stats_count_requests_and_found_changes(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    ids = [*flaky_api.deploy(10, ready_in=4), *flaky_api.deploy(1, ready_in=9)]
    waiting = asyncio.create_task(wait_all(poller, ids))
    await asyncio.sleep(2)
    assert poller.stats.waiting == 11
    times = await waiting
    stats = poller.stats

    assert (stats.status_requests, stats.list_requests) == (
        len(flaky_api.status_requests),
        len(flaky_api.list_requests),
    )
    assert stats.found_by_status + stats.found_by_list == 11
    assert stats.found_by_webhook == 0
    assert 0 < stats.mean_delay <= stats.max_delay < 1.3
    assert stats.max_delay >= max_delay(flaky_api, ids, times) - 0.1
    assert (stats.webhooks_active, stats.list_mode) == (False, "changed")


async def test_the_delay_is_counted_from_the_last_request_without_the_change(
    flaky_api: FlakyApi, client: ApiClient
) -> None:
    poller = StatusPoller(client, PollingPolicy(first_delay=1.0, interval=4.0))
    [one] = flaky_api.deploy(1, ready_in=2)
    await wait_all(poller, [one])

    assert poller.stats.mean_delay == pytest.approx(4.0, rel=0.2)
    [ended] = flaky_api.deploy(1, ready_in=0, ended_in=2)
    tracker = poller.tracker(ended)
    tracker.update(Deployment(request_id=ended, current_status=Status.READY))
    await wait_all(poller, [ended], Status.TERMINATED)
    assert poller.stats.found_by_status == 2
