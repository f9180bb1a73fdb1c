"""Full lists and status checks find ERROR and TERMINATED, which filtered lists omit."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter

import pytest
from flaky_api import FlakyApi, Lifecycle, now
from poller_waits import REFUSED, max_delay, wait_all, waiting_for
from scripted_api import Reply

from edgegap_async.api.models import Status
from edgegap_async.errors import DeploymentFailed, DeploymentTerminated
from edgegap_async.http.api_client import ApiClient
from edgegap_async.polling.poller import StatusPoller
from edgegap_async.polling.schedule import PollingPolicy

pytestmark = pytest.mark.virtual


async def test_many_waits_share_filtered_lists_and_occasional_full_lists(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    ids = flaky_api.deploy(150, ready_in=8)
    times = await wait_all(poller, ids)
    full_lists = [one.at for one in flaky_api.list_requests if not one.only_ready]

    assert max_delay(flaky_api, ids, times) < 0.6
    assert len(full_lists) < len(flaky_api.list_requests) / 3
    assert all(0.9 < later - earlier < 3.5 for earlier, later in itertools.pairwise(full_lists))
    assert all(
        one.ids and len(one.ids) <= 100 for one in flaky_api.list_requests if not one.only_ready
    )


async def test_full_lists_give_way_only_to_ready_deployments_that_fill_pages(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    def full_lists(begin: float, end: float) -> int:
        return sum(not one.only_ready and begin <= one.at < end for one in flaky_api.list_requests)

    ids = flaky_api.deploy(3000)
    async with waiting_for(poller, ids):
        quiet_at = now() + 2
        await asyncio.sleep(12)
        assert 8 <= full_lists(quiet_at, quiet_at + 10) <= 11
        flaky_api.lifecycles.update(dict.fromkeys(ids[:2000], Lifecycle(ready_at=now())))
        busy_at = now()
        while poller.stats.waiting > 1200:
            await asyncio.sleep(0.01)

        assert now() - busy_at < 2.6
        assert full_lists(busy_at, now()) <= 1


async def test_a_full_list_asks_for_one_page_including_probes(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    flaky_api.on_list = lambda request: REFUSED if request.only_ready else None
    ids = [one for seconds in range(4) for one in flaky_api.deploy(40, ready_in=2 + seconds / 2)]
    times = await wait_all(poller, ids)
    when = dict(zip(ids, times, strict=True))
    sizes = [len(one.ids or ()) for one in flaky_api.list_requests if not one.only_ready]

    assert max(sizes) == 100
    assert any(
        one.at > when[asked] for one in flaky_api.list_requests for asked in one.ids or ()
    )  # probes


async def test_a_full_list_asks_for_one_page_when_probes_are_added_meanwhile(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    ids = flaky_api.deploy(150)
    async with waiting_for(poller, ids):
        while all(one.only_ready for one in flaky_api.list_requests):
            await asyncio.sleep(0.01)
        members = list(poller._ready_group.members.values())[:100]
        poller._begin_list_request(members, now(), is_full=True)
        poller._lists.probe_ids.append("probe")
        await asyncio.sleep(0.2)

    assert max(len(one.ids or ()) for one in flaky_api.list_requests if not one.only_ready) == 100


async def test_an_error_in_a_full_list_is_confirmed_before_routine_checks(
    flaky_api: FlakyApi, client: ApiClient
) -> None:
    # The checks alone need more status requests than the rate limit allows.
    poller = StatusPoller(client, PollingPolicy(full_list_interval=0.1))
    ids = flaky_api.deploy(100)
    async with waiting_for(poller, ids):
        while len(flaky_api.status_requests) < 150:
            await asyncio.sleep(0.01)
        last = flaky_api.status_requests[-1].request_id or ""
        flaky_api.lifecycles[last] = Lifecycle(error_at=now())
        with pytest.raises(DeploymentFailed):
            await poller.tracker(last).wait_for(Status.READY, 60)

        assert now() - flaky_api.lifecycles[last].error_at < 1.5


async def test_an_error_in_a_list_is_reported_at_once_with_its_reason(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    ids = flaky_api.deploy(5, error_in=4)
    results = await asyncio.gather(
        *(poller.tracker(one).wait_for(Status.READY, 30) for one in ids), return_exceptions=True
    )

    assert {one.error_detail for one in results if isinstance(one, DeploymentFailed)} == {
        "image not found"
    }
    assert len(results) == 5
    assert now() - flaky_api.lifecycles[ids[0]].error_at < 1
    assert len(flaky_api.status_requests) < 15


async def test_an_error_that_lists_omit_is_found_soon(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    flaky_api.lists_errors = False
    ids = flaky_api.deploy(5, error_in=4)
    results = await asyncio.gather(
        *(poller.tracker(one).wait_for(Status.READY, 30) for one in ids), return_exceptions=True
    )

    assert {type(one) for one in results} == {DeploymentFailed}
    assert now() - flaky_api.lifecycles[ids[0]].error_at < 1


@pytest.mark.parametrize("listed", [True, False], ids=["listed", "hidden"])
async def test_a_deployment_in_error_is_rarely_checked_for_its_end(
    flaky_api: FlakyApi, poller: StatusPoller, *, listed: bool
) -> None:
    flaky_api.lists_errors = listed
    ids = flaky_api.deploy(4, error_in=2, ended_in=40)
    times = await wait_all(poller, ids, Status.TERMINATED)

    assert max(times) - flaky_api.lifecycles[ids[0]].ended_at < 5
    assert len(flaky_api.status_requests) < 4 * 16


async def test_a_deployment_that_ends_unseen_ends_its_wait(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    ids = flaky_api.deploy(5, ended_in=4)
    results = await asyncio.gather(
        *(poller.tracker(one).wait_for(Status.READY, 30) for one in ids), return_exceptions=True
    )

    assert {type(one) for one in results} == {DeploymentTerminated}
    assert now() - flaky_api.lifecycles[ids[0]].ended_at < 1


async def test_an_absence_counts_when_the_page_number_says_it_is_the_last(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    where = {"number": 1, "has_next": True, "paginator": {"num_pages": 1}}
    flaky_api.on_list = lambda request: Reply(body={**flaky_api.page(request), "pagination": where})
    flaky_api.lists_errors = False
    ids = flaky_api.deploy(5, error_in=4)
    # One deployment stays listed: an empty page would be the last one in any case.
    async with waiting_for(poller, [*flaky_api.deploy(1), *ids]):
        for one in ids:
            with pytest.raises(DeploymentFailed):
                await poller.tracker(one).wait_for(Status.READY, 60)

    assert now() - flaky_api.lifecycles[ids[0]].error_at < 1


async def test_a_deployment_that_lists_omit_is_checked_rarely_by_status(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    ids = flaky_api.deploy(4, ready_in=9)
    flaky_api.hidden_until = dict.fromkeys(ids, now() + 20)
    times = await wait_all(poller, ids)
    each = Counter(one.request_id for one in flaky_api.status_requests)

    assert max_delay(flaky_api, ids, times) < 2.5
    assert max(each.values()) < 14
