"""The poller changes the list mode when the API refuses or ignores a filter, and tries again."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from flaky_api import FlakyApi
from poller_waits import REFUSED, UNAVAILABLE, max_delay, reply_to_request, wait_all
from scripted_api import Reply

from edgegap_async.errors import NotSent, Refused
from edgegap_async.http.api_client import ApiClient
from edgegap_async.polling.list_strategy import ListMode
from edgegap_async.polling.poller import StatusPoller
from edgegap_async.polling.schedule import PollingPolicy

pytestmark = pytest.mark.virtual


@pytest.mark.parametrize("status", [401, 403])
async def test_forbidden_lists_are_not_requested_again(
    flaky_api: FlakyApi, poller: StatusPoller, status: int
) -> None:
    flaky_api.on_list = lambda _: Reply(status)
    ids = flaky_api.deploy(5, ready_in=4)
    times = await wait_all(poller, ids)

    assert len(flaky_api.list_requests) == 1
    assert poller.stats.list_mode == "not_at_all"
    assert max_delay(flaky_api, ids, times) < 0.8


async def test_lists_filter_only_by_id_when_the_status_filter_is_refused(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    flaky_api.on_list = lambda request: REFUSED if request.only_ready else None
    ids = flaky_api.deploy(90, ready_in=6)
    times = await wait_all(poller, ids)

    assert poller.stats.list_mode == "by_id"
    assert max_delay(flaky_api, ids, times) < 0.8


async def test_lists_are_read_page_by_page_when_all_filters_are_refused(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    flaky_api.deploy(150)
    flaky_api.on_list = lambda request: REFUSED if request.ids else None
    ids = flaky_api.deploy(40, ready_in=10)
    times = await wait_all(poller, ids)

    assert poller.stats.list_mode == "by_page"
    assert {one.page for one in flaky_api.list_requests} == {1, 2}
    assert max_delay(flaky_api, ids, times) < 1.5


async def test_lists_are_read_page_by_page_when_the_id_filter_is_ignored(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    flaky_api.deploy(250, ready_in=0)
    flaky_api.filters_ids = False
    ids = flaky_api.deploy(30, ready_in=6)
    times = await wait_all(poller, ids)

    assert poller.stats.list_mode == "by_page"
    assert max_delay(flaky_api, ids, times) < 2.5


async def test_every_deployment_is_found_when_the_status_filter_is_ignored(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    flaky_api.filters_status = False
    slow = flaky_api.deploy(200)
    ids = flaky_api.deploy(150, ready_in=10)
    waiting = [asyncio.create_task(wait_all(poller, [one], max_wait=60)) for one in slow]
    times = await wait_all(poller, ids)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)

    assert poller.stats.list_mode == "by_id"
    assert max_delay(flaky_api, ids, times) < 2


async def test_a_single_wait_reads_no_pages(flaky_api: FlakyApi, poller: StatusPoller) -> None:
    flaky_api.on_list = lambda request: REFUSED if request.ids else None
    ids = [*flaky_api.deploy(2, ready_in=3), *flaky_api.deploy(1, ready_in=8)]
    times = await wait_all(poller, ids)

    assert max_delay(flaky_api, ids, times) < 0.8
    assert (
        max(one.at for one in flaky_api.list_requests) < flaky_api.lifecycles[ids[0]].ready_at + 1
    )


async def test_failing_pages_are_requested_more_slowly(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    flaky_api.on_list = lambda request: REFUSED if request.ids else UNAVAILABLE
    await wait_all(poller, flaky_api.deploy(2, ready_in=30))

    assert poller.stats.list_mode == "by_page"
    assert len(flaky_api.list_requests) < 16


async def test_a_hanging_page_does_not_stop_the_others(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    hangs = reply_to_request(3, Reply(delay=600))
    flaky_api.on_list = lambda request: REFUSED if request.ids else hangs(request)
    flaky_api.on_status = lambda _: Reply(delay=600)
    ids = flaky_api.deploy(3, ready_in=2)
    times = await wait_all(poller, ids)

    assert max_delay(flaky_api, ids, times) < 2.5
    assert poller.stats.list_mode == "by_page"


async def test_a_repeated_page_is_harmless(flaky_api: FlakyApi, poller: StatusPoller) -> None:
    flaky_api.deploy(250, ready_in=0)
    flaky_api.filters_ids = flaky_api.serves_pages = False
    ids = flaky_api.deploy(10, ready_in=6)
    times = await wait_all(poller, ids)

    assert max_delay(flaky_api, ids, times) < 2.5


async def test_all_are_polled_by_status_when_every_list_is_refused(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    flaky_api.on_list = lambda _: REFUSED
    ids = flaky_api.deploy(30, ready_in=5)
    times = await wait_all(poller, ids)

    assert poller.stats.list_mode == "not_at_all"
    assert len(flaky_api.list_requests) == 3
    assert max_delay(flaky_api, ids, times) < 2.5


async def test_a_refused_list_mode_is_tried_again(flaky_api: FlakyApi, client: ApiClient) -> None:
    poller = StatusPoller(
        client, PollingPolicy(fast_period=300)
    )  # or list requests were rare by then
    flaky_api.on_list = lambda request: REFUSED if request.at < 50 else None
    soon = flaky_api.deploy(30, ready_in=5)
    late = flaky_api.deploy(30, ready_in=90)
    waiting = asyncio.create_task(wait_all(poller, late))
    await wait_all(poller, soon)
    assert poller.stats.list_mode == "not_at_all"
    times = await waiting

    assert poller.stats.list_mode == "changed"
    assert max_delay(flaky_api, late, times) < 0.5


async def test_a_list_mode_that_never_works_is_tried_ever_more_rarely(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    flaky_api.on_list = lambda _: REFUSED
    await wait_all(poller, flaky_api.deploy(2, ready_in=8000), max_wait=9000)
    tries = [one.at for one in flaky_api.list_requests[::3]]  # the first of the three list modes
    intervals = [later - sooner for sooner, later in itertools.pairwise(tries)]

    assert intervals == pytest.approx([60, 120, 240, 480, 960, 1920, 3600], abs=20)


async def test_refusals_far_apart_do_not_add_up(flaky_api: FlakyApi, client: ApiClient) -> None:
    poller, intervals = StatusPoller(client, PollingPolicy(interval=5)), list[float]()
    for _ in range(2):
        await asyncio.sleep(7200)
        flaky_api.requests.clear()
        flaky_api.on_list = reply_to_request(0, Reply(403))
        await wait_all(poller, flaky_api.deploy(2, ready_in=140))
        refused, again, *_ = [one.at for one in flaky_api.list_requests]
        intervals.append(again - refused)

    assert intervals == pytest.approx([60, 60], abs=15)


async def test_filtered_lists_that_omit_ready_deployments_are_detected(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    flaky_api.on_list = lambda request: Reply(body={"data": []}) if request.only_ready else None
    ids = [
        *flaky_api.deploy(100),
        *itertools.chain(*(flaky_api.deploy(10, ready_in=n) for n in range(1, 40))),
    ]
    waiting = [asyncio.create_task(wait_all(poller, [one], max_wait=100)) for one in ids]
    await asyncio.gather(*waiting[100:])
    for task in waiting[:100]:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)

    assert poller.stats.list_mode == "by_id"


async def test_omissions_are_detected_when_full_lists_find_ready_first(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    flaky_api.on_list = lambda request: Reply(body={"data": []}) if request.only_ready else None
    flaky_api.on_status = lambda _: Reply(delay=600)
    ids = [
        *flaky_api.deploy(100),
        *itertools.chain(*(flaky_api.deploy(10, ready_in=n) for n in range(1, 40))),
    ]
    waiting = [asyncio.create_task(wait_all(poller, [one], max_wait=45)) for one in ids]
    await asyncio.gather(*waiting, return_exceptions=True)

    assert poller.stats.list_mode == "by_id"


async def test_answers_in_an_older_list_mode_do_not_change_the_newer(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    flaky_api.filters_status = False
    flaky_api.on_list = lambda request: Reply(delay=4, body=flaky_api.page(request))
    ids = flaky_api.deploy(1500)
    await asyncio.gather(
        *(wait_all(poller, [one], max_wait=12) for one in ids), return_exceptions=True
    )

    # Three wrong lists change the mode; the three later ones must not change it again.
    assert sum(one.only_ready for one in flaky_api.list_requests) >= 6
    assert poller.stats.list_mode == "by_id"


async def test_a_url_that_is_too_long_is_made_shorter(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    flaky_api.on_list = lambda request: (
        Reply(414) if request.ids and len(request.ids) > 60 else None
    )
    ids = flaky_api.deploy(300, ready_in=8)
    times = await wait_all(poller, ids)

    assert poller.stats.list_mode == "changed"
    assert sum(len(one.ids or ()) > 60 for one in flaky_api.list_requests) < 12
    assert max_delay(flaky_api, ids, times) < 2


async def test_one_refusal_counts_when_several_lists_in_flight_are_refused(
    poller: StatusPoller,
) -> None:
    strategy, lists = poller._lists, poller._list_requests
    too_long = Refused("no", operation="", method="", path="", status=414)
    for _ in range(3):
        lists.note_failure(NotSent("gone"))
    for _ in range(4):
        poller._note_list_refusal(too_long, (ListMode.CHANGED, 7400))

    assert strategy.max_id_bytes == 3700
    assert lists.failures == 0  # a refusal is an answer
