"""One look-out for all who wait, on a clock that jumps: who is told, how late, and for what."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import math
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable

import pytest
from flaky_api import Asked, Fate, FlakyApi, now
from scripted_api import Reply

from edgegap_async.api.models import Deployment, Status
from edgegap_async.errors import (
    ClientClosed,
    DeploymentFailed,
    DeploymentTerminated,
    EdgegapError,
    InvalidRequest,
    NotFound,
    Refused,
    Unauthorized,
    WaitTimedOut,
    WrongLoop,
)
from edgegap_async.http.api_client import ApiClient
from edgegap_async.http.rate_limits import Limits
from edgegap_async.polling.list_strategy import ListMode
from edgegap_async.polling.poller import StatusPoller
from edgegap_async.polling.schedule import PollingPolicy
from edgegap_async.polling.tracker import DeploymentTracker

pytestmark = pytest.mark.virtual

NEVER = math.inf
REFUSED = Reply(400, {"message": "no"})
BROKEN = Reply(503)


@pytest.fixture
async def api() -> AsyncIterator[FlakyApi]:
    async with FlakyApi() as api:
        yield api


@pytest.fixture
async def client(api: FlakyApi) -> AsyncIterator[ApiClient]:
    async with ApiClient("canary-t", base_url=api.url) as client:
        yield client


@pytest.fixture
def lookout(client: ApiClient) -> StatusPoller:
    return StatusPoller(client, PollingPolicy())


async def told(
    lookout: StatusPoller, ids: Iterable[str], wanted: Status = Status.READY, patience: float = 300
) -> list[float]:
    """The loop times at which each was told."""

    async def one(watched: DeploymentTracker) -> float:
        await watched.wait_for(wanted, patience)
        return now()

    return await asyncio.gather(*map(one, map(lookout.tracker, ids)))


def lateness(api: FlakyApi, ids: Iterable[str], times: Iterable[float]) -> float:
    """How late the last one was told."""
    return max(time - api.fates[one].ready for one, time in zip(ids, times, strict=True))


@contextlib.asynccontextmanager
async def waiting_for(
    lookout: StatusPoller, ids: Iterable[str], wanted: Status = Status.READY
) -> AsyncIterator[None]:
    """While somebody waits for each, whatever it ends with."""
    waits = (lookout.tracker(one).wait_for(wanted, 3600) for one in ids)
    waiting = asyncio.gather(*waits, return_exceptions=True)
    await asyncio.sleep(0)  # they begin
    try:
        yield
    finally:
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting


def others(before: set[asyncio.Task[object]]) -> list[asyncio.Task[object]]:
    """The tasks that were not there before, the server's apart."""
    return [
        task
        for task in asyncio.all_tasks() - before
        if "aiohttp" not in repr(task.get_coro()) and "RequestHandler" not in repr(task)
    ]


def only(number: int, reply: Reply) -> Callable[[object], Reply | None]:
    """The request of that number, from 0 on, is answered so."""
    numbers = itertools.count()
    return lambda _: reply if next(numbers) == number else None


# ── how it looks ─────────────────────────────────────────────────────────────────────────────────


async def test_one_who_waits_alone_is_looked_at_by_status(
    api: FlakyApi, lookout: StatusPoller
) -> None:
    ids = api.deploy(1, ready_in=5)
    times = await told(lookout, ids)

    assert not api.lists
    assert lateness(api, ids, times) < 0.7


async def test_those_who_wait_ready_group_share_lists_and_are_told_where_it_is(
    api: FlakyApi, lookout: StatusPoller
) -> None:
    ids = api.deploy(30, ready_in=3)
    seen = await asyncio.gather(*(lookout.tracker(one).wait_for(Status.READY, 300) for one in ids))

    assert {one.public_ip for one in seen} == {"192.0.2.7"}
    assert {one.ports["game"].external for one in seen} == {31504}
    assert {one.fqdn for one in seen} == {f"{one}.pr.edgegap.net" for one in ids}
    assert len(api.lists) < 3 / 0.1
    assert lookout.stats.found_by_list > 25


async def test_of_many_only_those_that_are_ready_are_asked_for_and_now_and_then_all(
    api: FlakyApi, lookout: StatusPoller
) -> None:
    ids = api.deploy(150, ready_in=8)
    times = await told(lookout, ids)
    calls = [one.at for one in api.lists if not one.only_ready]

    assert lateness(api, ids, times) < 0.6
    assert len(calls) < len(api.lists) / 3
    assert all(0.9 < later - earlier < 3.5 for earlier, later in itertools.pairwise(calls))
    assert all(one.ids and len(one.ids) <= 100 for one in api.lists if not one.only_ready)


async def test_where_one_list_cannot_hold_all_they_come_as_often_as_they_may(
    api: FlakyApi, lookout: StatusPoller
) -> None:
    with pytest.raises(WaitTimedOut):
        await told(lookout, api.deploy(900), patience=6)

    assert 48 < len(api.lists) < 65


async def test_those_who_wait_for_the_end_share_lists_too(
    api: FlakyApi, lookout: StatusPoller
) -> None:
    ids = api.deploy(20, ready_in=1, over=6)
    began = now()
    times = await told(lookout, ids, Status.TERMINATED)

    assert max(times) - began < 7.5
    assert len(api.looks) < 60
    assert lookout.stats.found_by_status >= 20


async def test_however_many_wait_for_the_end_all_are_asked_for(
    api: FlakyApi, lookout: StatusPoller
) -> None:
    with pytest.raises(WaitTimedOut):
        await told(lookout, api.deploy(100), Status.TERMINATED, patience=5)

    assert api.lists
    assert not any(one.only_ready for one in api.lists)


async def test_one_of_each_kind_are_looked_at_one_by_one(
    api: FlakyApi, lookout: StatusPoller
) -> None:
    ready, over = api.deploy(2, ready_in=2, over=4)
    await asyncio.gather(
        told(lookout, [ready]),
        told(lookout, [over], Status.TERMINATED),
    )

    assert not api.lists


async def test_two_handles_of_one_deployment_share_the_looks(
    api: FlakyApi, lookout: StatusPoller
) -> None:
    [one] = api.deploy(1, ready_in=5)
    assert lookout.tracker(one) is lookout.tracker(one)
    await told(lookout, [one, one, one])

    assert len(api.looks) < 13
    assert not api.lists


async def test_a_second_handle_may_know_longer_that_it_is_young(
    api: FlakyApi, lookout: StatusPoller
) -> None:
    watched = lookout.tracker("abc")
    lookout.tracker("abc", not_found_until=now() + 9)

    assert watched.not_found_until == pytest.approx(now() + 9, abs=0.01)
    lookout.tracker("abc")
    assert watched.not_found_until == pytest.approx(now() + 9, abs=0.01)


async def test_who_waits_for_another_status_too_moves_over_and_back(
    api: FlakyApi, lookout: StatusPoller
) -> None:
    ids = api.deploy(3, ready_in=4)
    waiting = asyncio.create_task(told(lookout, ids))
    await asyncio.sleep(1)
    with pytest.raises(WaitTimedOut):
        await lookout.tracker(ids[0]).wait_for(Status.TERMINATED, 1)
    times = await waiting

    assert lateness(api, ids, times) < 0.7


@pytest.mark.parametrize("count", [1, 3])
async def test_who_waits_any_group_change_too_is_not_left_to_rows_that_do_not_tell(
    api: FlakyApi, lookout: StatusPoller, count: int
) -> None:
    api.change_row = lambda row: row | {"status": None}
    ids = api.deploy(6, error=8)
    some = [lookout.tracker(one) for one in ids[:count]]
    waiting = asyncio.create_task(told(lookout, ids))
    await asyncio.sleep(1)
    await asyncio.gather(*(watched.wait_for_change(0) for watched in some))
    await asyncio.gather(*(watched.wait_for_change(1) for watched in some))

    assert now() - api.fates[ids[0]].error < 0.7
    with pytest.raises(DeploymentFailed):
        await waiting


async def test_the_last_one_left_is_looked_at_by_status(
    api: FlakyApi, lookout: StatusPoller
) -> None:
    ids = [*api.deploy(3, ready_in=2), *api.deploy(1, ready_in=9)]
    times = await told(lookout, ids)
    swept = [one.at for one in api.lists]

    assert lateness(api, ids, times) < 0.7
    assert max(swept) < api.fates[ids[0]].ready + 1


async def test_gaps_grow_where_nobody_new_has_come_for_long(
    api: FlakyApi, lookout: StatusPoller
) -> None:
    api.deploy(5)
    with pytest.raises(WaitTimedOut):
        await asyncio.gather(
            *(lookout.tracker(one).wait_for(Status.READY, 400) for one in api.fates)
        )
    late = [one for one in api.lists if one.at > now() - 100]

    assert 10 < len(late) < 35


# ── nobody waits ─────────────────────────────────────────────────────────────────────────────────


async def test_nobody_waits_and_no_task_is_left(api: FlakyApi, lookout: StatusPoller) -> None:
    ids = api.deploy(40)
    before = asyncio.all_tasks()
    results = await asyncio.gather(
        *(lookout.tracker(one).wait_for(Status.READY, 3.1) for one in ids), return_exceptions=True
    )
    await asyncio.sleep(0.2)
    asked = len(api.asked)

    assert {type(one) for one in results} == {WaitTimedOut}
    assert not others(before)
    await asyncio.sleep(60)
    assert len(api.asked) == asked
    assert lookout.stats.waiting == 0
    assert repr(lookout) == "<StatusPoller: 0 deployments waited for>"


@pytest.mark.parametrize("count", [1, 5])
async def test_nobody_waits_and_what_was_asked_is_not_waited_for(
    api: FlakyApi, lookout: StatusPoller, count: int
) -> None:
    api.on_look = lambda _: Reply(delay=20)
    api.on_list = lambda _: Reply(delay=20)
    before = asyncio.all_tasks()
    waits = (lookout.tracker(one).wait_for(Status.READY, 1) for one in api.deploy(count))
    results = await asyncio.gather(*waits, return_exceptions=True)
    await asyncio.sleep(0.01)

    assert {type(one) for one in results} == {WaitTimedOut}
    assert not others(before)


async def test_waits_that_end_when_a_look_begins_use_up_no_looks(
    api: FlakyApi, client: ApiClient
) -> None:
    lookout = StatusPoller(client, PollingPolicy(first_delay=0.0))
    for request_id in api.deploy(30):
        waiting = asyncio.create_task(lookout.tracker(request_id).wait_for(Status.READY, 300))
        while not lookout.stats.status_requests:
            await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    # Each may be cancelled before its look has sent anything, and the next is looked at as ever.
    ids = api.deploy(1, ready_in=1)
    times = await told(lookout, ids, patience=20)

    assert lateness(api, ids, times) < 0.7


async def test_a_deployment_that_nobody_holds_is_forgotten(
    api: FlakyApi, lookout: StatusPoller
) -> None:
    ids = api.deploy(60, ready_in=1)
    await told(lookout, ids)
    await asyncio.sleep(0.2)

    assert not lookout._trackers


async def test_comings_and_goings_do_not_pile_up(api: FlakyApi, client: ApiClient) -> None:
    lookout = StatusPoller(client, PollingPolicy(full_list_interval=3600))
    api.hidden_until = dict.fromkeys(api.deploy(10), NEVER)
    waiting = [
        asyncio.create_task(lookout.tracker(one).wait_for(Status.READY, 60)) for one in api.fates
    ]
    for _ in range(300):
        for one in api.deploy(5):
            with pytest.raises(WaitTimedOut):
                await lookout.tracker(one).wait_for(Status.READY, 0.01)

    assert 10 <= len(lookout._status_queue) < 2 * 11 + 70
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_one_who_comes_back_again_and_again_is_told(
    api: FlakyApi, lookout: StatusPoller
) -> None:
    [one] = api.deploy(1, ready_in=2)
    watched = lookout.tracker(one)
    for _ in range(20):
        try:
            await watched.wait_for(Status.READY, 0.3)
        except WaitTimedOut:
            continue
        break

    assert now() - api.fates[one].ready < 1.2
    assert watched.status_requests < 10


async def test_one_who_comes_back_again_and_again_beside_another_is_told_what_lists_hide(
    api: FlakyApi, lookout: StatusPoller
) -> None:
    [steady, one] = [*api.deploy(1), *api.deploy(1, ready_in=5)]
    api.hidden_until = {one: NEVER}
    watched = lookout.tracker(one)
    async with waiting_for(lookout, [steady]):
        while watched.status != Status.READY and now() < api.fates[one].ready + 30:
            with contextlib.suppress(WaitTimedOut):
                await watched.wait_for(Status.READY, 1)

    assert now() - api.fates[one].ready < 6


async def test_who_comes_back_is_looked_at_no_more_often(
    api: FlakyApi, lookout: StatusPoller
) -> None:
    [one] = api.deploy(1)
    watched = lookout.tracker(one)
    for _ in range(100):
        with pytest.raises(WaitTimedOut):
            await watched.wait_for(Status.READY, 0.1)

    assert 15 < len(api.looks) < 25


async def test_who_is_rung_for_does_not_stand_behind_those_whose_look_is_routine(
    api: FlakyApi, lookout: StatusPoller
) -> None:
    api.on_list = lambda _: REFUSED
    ids = api.deploy(100)  # a look at each takes five seconds
    async with waiting_for(lookout, ids):
        while len(api.looks) < 150:
            await asyncio.sleep(0.01)
        watched = lookout.tracker(api.looks[-1].request_id or "")
        api.fates[watched.request_id] = Fate(ready=now())
        watched.webhook_received()
        await watched.wait_for(Status.READY, 60)

        assert now() - api.fates[watched.request_id].ready < 1


async def test_what_a_roll_call_tells_does_not_stand_behind_those_whose_look_is_routine(
    api: FlakyApi, client: ApiClient
) -> None:
    lookout = StatusPoller(
        client, PollingPolicy(full_list_interval=0.1)
    )  # more looks than there may be
    ids = api.deploy(100)
    async with waiting_for(lookout, ids):
        while len(api.looks) < 150:
            await asyncio.sleep(0.01)
        last = api.looks[-1].request_id or ""
        api.fates[last] = Fate(error=now())
        with pytest.raises(DeploymentFailed):
            await lookout.tracker(last).wait_for(Status.READY, 60)

        assert now() - api.fates[last].error < 1.5


async def test_those_who_are_rung_for_all_the_time_do_not_starve_the_others(
    api: FlakyApi, lookout: StatusPoller
) -> None:
    api.on_list = lambda _: REFUSED
    loud, quiet = api.deploy(15), api.deploy(15)
    async with waiting_for(lookout, [*loud, *quiet]):
        for _ in range(60):
            await asyncio.sleep(0.1)
            for one in loud:
                lookout.tracker(one).webhook_received()

    each = Counter(one.request_id for one in api.looks)
    assert min(each[one] for one in quiet) >= 3


async def test_one_in_error_whose_look_fails_is_soon_looked_at_again(
    api: FlakyApi, client: ApiClient
) -> None:
    lookout = StatusPoller(client, PollingPolicy(interval=10))
    api.on_look = only(0, BROKEN)
    [one, *_] = ids = [*api.deploy(1, error=0), *api.deploy(3)]
    async with waiting_for(lookout, ids):
        with pytest.raises(DeploymentFailed):
            await lookout.tracker(one).wait_for(Status.READY, 60)

    assert len(api.looks) == 2
    assert api.looks[1].at - api.looks[0].at < 0.6


# ── lists that do not work ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "reply",
    [
        BROKEN,
        Reply(429),
        Reply(429, headers={"Retry-After": "50"}),
        Reply(delay=60),
        Reply(lost=True),
    ],
    ids=["503", "429", "429 for long", "hung", "lost"],
)
async def test_while_lists_fail_all_are_told_by_status(
    api: FlakyApi, lookout: StatusPoller, reply: Reply
) -> None:
    api.on_list = lambda _: reply
    ids = [*api.deploy(5, ready_in=4), *api.deploy(3, ready_in=20)]
    times = await told(lookout, ids)

    assert lateness(api, ids, times) < 1
    assert len(api.lists) < 25


async def test_lists_that_fail_after_they_worked_do_not_hold_up_the_looks(
    api: FlakyApi, lookout: StatusPoller
) -> None:
    began = now()
    api.on_list = lambda asked: BROKEN if asked.at > began + 10 else None
    ids = api.deploy(5, ready_in=14)
    times = await told(lookout, ids)

    assert lateness(api, ids, times) < 1


async def test_lists_that_work_again_are_used_again(api: FlakyApi, lookout: StatusPoller) -> None:
    began = now()
    api.on_list = lambda asked: BROKEN if asked.at < began + 10 else None
    ids = api.deploy(8, ready_in=30)
    times = await told(lookout, ids)
    late = [one for one in api.looks if one.at > began + 18]

    assert lateness(api, ids, times) < 0.5
    assert len(late) < 10


async def test_looks_that_fail_do_not_hold_up_the_lists(
    api: FlakyApi, lookout: StatusPoller
) -> None:
    api.on_look = lambda _: BROKEN
    ids = api.deploy(8, ready_in=20)
    times = await told(lookout, ids)

    assert lateness(api, ids, times) < 0.5


@pytest.mark.parametrize("status", [401, 403])
async def test_lists_that_may_not_be_asked_are_asked_no_more(
    api: FlakyApi, lookout: StatusPoller, status: int
) -> None:
    api.on_list = lambda _: Reply(status)
    ids = api.deploy(5, ready_in=4)
    times = await told(lookout, ids)

    assert len(api.lists) == 1
    assert lookout.stats.list_mode == "not_at_all"
    assert lateness(api, ids, times) < 0.8


async def test_where_the_status_filter_is_refused_lists_are_asked_by_id(
    api: FlakyApi, lookout: StatusPoller
) -> None:
    api.on_list = lambda asked: REFUSED if asked.only_ready else None
    ids = api.deploy(90, ready_in=6)
    times = await told(lookout, ids)

    assert lookout.stats.list_mode == "by_id"
    assert lateness(api, ids, times) < 0.8


async def test_where_all_filters_are_refused_lists_are_turned_page_by_page(
    api: FlakyApi, lookout: StatusPoller
) -> None:
    api.deploy(150)
    api.on_list = lambda asked: REFUSED if asked.ids else None
    ids = api.deploy(40, ready_in=10)
    times = await told(lookout, ids)

    assert lookout.stats.list_mode == "by_page"
    assert {one.page for one in api.lists} == {1, 2}
    assert lateness(api, ids, times) < 1.5


async def test_the_last_one_left_turns_no_pages(api: FlakyApi, lookout: StatusPoller) -> None:
    api.on_list = lambda asked: REFUSED if asked.ids else None
    ids = [*api.deploy(2, ready_in=3), *api.deploy(1, ready_in=8)]
    times = await told(lookout, ids)

    assert lateness(api, ids, times) < 0.8
    assert max(one.at for one in api.lists) < api.fates[ids[0]].ready + 1


async def test_pages_that_fail_are_turned_more_slowly(api: FlakyApi, lookout: StatusPoller) -> None:
    api.on_list = lambda asked: REFUSED if asked.ids else BROKEN
    await told(lookout, api.deploy(2, ready_in=30))

    assert lookout.stats.list_mode == "by_page"
    assert len(api.lists) < 16


async def test_a_page_that_hangs_does_not_stop_the_others(
    api: FlakyApi, lookout: StatusPoller
) -> None:
    hangs = only(3, Reply(delay=600))
    api.on_list = lambda asked: REFUSED if asked.ids else hangs(asked)
    api.on_look = lambda _: Reply(delay=600)
    ids = api.deploy(3, ready_in=2)
    times = await told(lookout, ids)

    assert lateness(api, ids, times) < 2.5
    assert lookout.stats.list_mode == "by_page"


async def test_where_no_list_is_answered_all_are_told_by_status(
    api: FlakyApi, lookout: StatusPoller
) -> None:
    api.on_list = lambda _: REFUSED
    ids = api.deploy(30, ready_in=5)
    times = await told(lookout, ids)

    assert lookout.stats.list_mode == "not_at_all"
    assert len(api.lists) == 3
    assert lateness(api, ids, times) < 2.5


async def test_a_list_that_did_not_work_for_a_while_is_found_to_work_again(
    api: FlakyApi, client: ApiClient
) -> None:
    lookout = StatusPoller(client, PollingPolicy(fast_period=300))  # or lists were rare by then
    api.on_list = lambda asked: REFUSED if asked.at < 50 else None
    soon = api.deploy(30, ready_in=5)
    late = api.deploy(30, ready_in=90)
    waiting = asyncio.create_task(told(lookout, late))
    await told(lookout, soon)
    assert lookout.stats.list_mode == "not_at_all"
    times = await waiting

    assert lookout.stats.list_mode == "changed"
    assert lateness(api, late, times) < 0.5


async def test_a_list_that_never_works_is_tried_ever_more_rarely(
    api: FlakyApi, lookout: StatusPoller
) -> None:
    api.on_list = lambda _: REFUSED
    await told(lookout, api.deploy(2, ready_in=8000), patience=9000)
    tries = [one.at for one in api.lists[::3]]  # in each of three ways
    gaps = [later - sooner for sooner, later in itertools.pairwise(tries)]

    assert gaps == pytest.approx([60, 120, 240, 480, 960, 1920, 3600], abs=20)


async def test_refusals_that_are_far_apart_do_not_add_up(api: FlakyApi, client: ApiClient) -> None:
    lookout, gaps = StatusPoller(client, PollingPolicy(interval=5)), list[float]()
    for _ in range(2):
        await asyncio.sleep(7200)
        api.asked.clear()
        api.on_list = only(0, Reply(403))
        await told(lookout, api.deploy(2, ready_in=140))
        refused, again, *_ = [one.at for one in api.lists]
        gaps.append(again - refused)

    assert gaps == pytest.approx([60, 60], abs=15)


async def test_where_the_filter_by_id_is_ignored_all_are_told(
    api: FlakyApi, lookout: StatusPoller
) -> None:
    api.deploy(250, ready_in=0)
    api.filters_ids = False
    ids = api.deploy(30, ready_in=6)
    times = await told(lookout, ids)

    assert lookout.stats.list_mode == "by_page"
    assert lateness(api, ids, times) < 2.5


async def test_a_page_that_repeats_is_harmless(api: FlakyApi, lookout: StatusPoller) -> None:
    api.deploy(250, ready_in=0)
    api.filters_ids = api.turns_pages = False
    ids = api.deploy(10, ready_in=6)
    times = await told(lookout, ids)

    assert lateness(api, ids, times) < 2.5


async def test_where_the_filter_by_status_is_ignored_nobody_starves(
    api: FlakyApi, lookout: StatusPoller
) -> None:
    api.filters_status = False
    slow = api.deploy(200)
    ids = api.deploy(150, ready_in=10)
    waiting = [asyncio.create_task(told(lookout, [one], patience=60)) for one in slow]
    times = await told(lookout, ids)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)

    assert lookout.stats.list_mode == "by_id"
    assert lateness(api, ids, times) < 2


async def test_where_pages_are_short_nobody_starves(api: FlakyApi, lookout: StatusPoller) -> None:
    api.page_size = 20
    slow = api.deploy(60)
    ids = api.deploy(100, ready_in=10)
    waiting = [asyncio.create_task(told(lookout, [one], patience=60)) for one in slow]
    times = await told(lookout, ids)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)

    assert lateness(api, ids, times) < 2


async def test_one_that_a_page_had_no_room_for_was_not_seen(
    api: FlakyApi, lookout: StatusPoller
) -> None:
    api.page_size = 5
    ids = api.deploy(40, ready_in=6)
    times = await told(lookout, ids)

    assert lateness(api, ids, times) > 0.8
    assert lookout.stats.max_delay >= lateness(api, ids, times) - 0.1


async def test_more_than_a_page_may_be_ready_at_once(api: FlakyApi, lookout: StatusPoller) -> None:
    ids = api.deploy(400, ready_in=6)
    times = await told(lookout, ids)

    assert lateness(api, ids, times) < 1.2


async def test_those_that_a_page_had_no_room_for_come_first_on_the_next(
    api: FlakyApi, lookout: StatusPoller
) -> None:
    ids = api.deploy(900, ready_in=6)
    ready = now() + 6
    await told(lookout, ids)
    first, *later = [one.ids or () for one in api.lists if one.only_ready and one.at > ready]
    shown = sorted(first)[: api.page_size]
    looked_at = {look.request_id for look in api.looks if look.at > ready}
    left = [one for one in first if one not in {*shown, *looked_at}]
    second = next(ids for ids in later if left[0] in ids)  # one may have been on its way
    then = [one for one in second if one not in looked_at]

    assert len(left) > 4 * api.page_size
    assert then[: len(left)] == left


async def test_lists_that_leave_out_what_is_ready_are_found_out(
    api: FlakyApi, lookout: StatusPoller
) -> None:
    api.on_list = lambda asked: Reply(body={"data": []}) if asked.only_ready else None
    ids = [*api.deploy(100), *itertools.chain(*(api.deploy(10, ready_in=n) for n in range(1, 40)))]
    waiting = [asyncio.create_task(told(lookout, [one], patience=100)) for one in ids]
    await asyncio.gather(*waiting[100:])
    for task in waiting[:100]:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)

    assert lookout.stats.list_mode == "by_id"


async def test_what_a_roll_call_tells_first_is_found_out_too(
    api: FlakyApi, lookout: StatusPoller
) -> None:
    api.on_list = lambda asked: Reply(body={"data": []}) if asked.only_ready else None
    api.on_look = lambda _: Reply(delay=600)
    ids = [*api.deploy(100), *itertools.chain(*(api.deploy(10, ready_in=n) for n in range(1, 40)))]
    waiting = [asyncio.create_task(told(lookout, [one], patience=45)) for one in ids]
    await asyncio.gather(*waiting, return_exceptions=True)

    assert lookout.stats.list_mode == "by_id"


async def test_what_was_asked_for_in_an_older_way_says_nothing_of_the_newer(
    api: FlakyApi, lookout: StatusPoller
) -> None:
    api.filters_status = False
    api.on_list = lambda asked: Reply(delay=4, body=api._page(asked))
    ids = api.deploy(1500)
    await asyncio.gather(
        *(told(lookout, [one], patience=12) for one in ids), return_exceptions=True
    )

    # Three of them are enough, and three more would have been for the next step.
    assert sum(one.only_ready for one in api.lists) >= 6
    assert lookout.stats.list_mode == "by_id"


async def test_a_url_that_is_too_long_is_made_shorter(api: FlakyApi, lookout: StatusPoller) -> None:
    api.on_list = lambda asked: Reply(414) if asked.ids and len(asked.ids) > 60 else None
    ids = api.deploy(300, ready_in=8)
    times = await told(lookout, ids)

    assert lookout.stats.list_mode == "changed"
    assert sum(len(one.ids or ()) > 60 for one in api.lists) < 12
    assert lateness(api, ids, times) < 2


async def test_what_several_lists_under_way_are_refused_for_is_learnt_once(
    lookout: StatusPoller,
) -> None:
    listing, lists = lookout._lists, lookout._list_requests
    too_long = Refused("no", operation="", method="", path="", status=414)
    for _ in range(3):
        lists.note_failure(OSError("gone"))
    for _ in range(4):
        lookout._note_list_refusal(too_long, (ListMode.CHANGED, 7400))

    assert listing.max_id_bytes == 3700
    assert lists.failures == 0  # a refusal is an answer


async def test_that_it_is_not_known_yet_is_an_answer(api: FlakyApi, lookout: StatusPoller) -> None:
    began = now()
    [one] = api.deploy(1, ready_in=14)

    def answer(_: str) -> Reply | None:
        if now() > began + 14:
            return None
        return BROKEN if now() < began + 5 else Reply(404)

    api.on_look = answer
    watched = lookout.tracker(one, not_found_until=began + 60)
    await watched.wait_for(Status.READY, 30)

    assert sum(look.at > began + 10 for look in api.looks) >= 7


async def test_a_roll_call_asks_for_no_more_than_a_page_holds_proofs_included(
    api: FlakyApi, lookout: StatusPoller
) -> None:
    api.on_list = lambda asked: REFUSED if asked.only_ready else None
    ids = [one for seconds in range(4) for one in api.deploy(40, ready_in=2 + seconds / 2)]
    times = await told(lookout, ids)
    when = dict(zip(ids, times, strict=True))
    sizes = [len(one.ids or ()) for one in api.lists if not one.only_ready]

    assert max(sizes) == 100
    assert any(one.at > when[asked] for one in api.lists for asked in one.ids or ())  # proofs


async def test_lists_that_lag_behind_do_not_make_anybody_wait(
    api: FlakyApi, lookout: StatusPoller
) -> None:
    api.lag = 5
    ids = api.deploy(10, ready_in=8)
    times = await told(lookout, ids)

    assert lateness(api, ids, times) < 5.5


async def test_what_is_hidden_from_lists_is_looked_at_by_status_and_not_too_often(
    api: FlakyApi, lookout: StatusPoller
) -> None:
    ids = api.deploy(4, ready_in=9)
    api.hidden_until = dict.fromkeys(ids, now() + 20)
    times = await told(lookout, ids)
    each = Counter(one.request_id for one in api.looks)

    assert lateness(api, ids, times) < 2.5
    assert max(each.values()) < 9


# ── rows ─────────────────────────────────────────────────────────────────────────────────────────


async def test_rows_without_status_tell_of_ready(api: FlakyApi, lookout: StatusPoller) -> None:
    api.change_row = lambda row: row | {"status": None}
    ids = [*api.deploy(20, ready_in=5), *api.deploy(2, error=5)]
    results = await asyncio.gather(
        *(lookout.tracker(one).wait_for(Status.READY, 30) for one in ids), return_exceptions=True
    )

    assert [type(one) for one in results[20:]] == [DeploymentFailed] * 2
    assert lookout.stats.found_by_list >= 18
    assert now() - api.fates[ids[20]].error < 5


async def test_who_waits_for_more_than_rows_without_status_tell_is_looked_at_by_status(
    api: FlakyApi, lookout: StatusPoller
) -> None:
    began = now()
    api.change_row = lambda row: row | {"status": None} if now() > began + 5 else row
    ids = api.deploy(5, error=9)
    times = await told(lookout, ids, Status.ERROR)

    assert max(times) - began - 9 < 0.8


@pytest.mark.parametrize(
    "lie",
    [
        lambda row: row | {"ready": True, "status": "Status.DEPLOYING"},
        lambda row: row | {"ready": False, "status": "Status.READY"},
    ],
    ids=["ready and DEPLOYING", "not ready and READY"],
)
async def test_a_row_that_contradicts_itself_is_not_believed(
    api: FlakyApi, lookout: StatusPoller, lie: Callable[[dict[str, object]], dict[str, object]]
) -> None:
    api.change_row = lie
    ids = api.deploy(3, ready_in=5)
    times = await told(lookout, ids)

    assert min(times) >= api.fates[ids[0]].ready
    assert lateness(api, ids, times) < 1


async def test_rows_that_contradict_themselves_cost_a_look_now_and_then(
    api: FlakyApi, lookout: StatusPoller
) -> None:
    api.change_row = lambda row: row | {"ready": True}
    with pytest.raises(WaitTimedOut):
        await told(lookout, api.deploy(6), patience=10)

    assert 40 < len(api.looks) < 130


@pytest.mark.parametrize(
    "lack",
    [{"fqdn": None, "public_ip": None}, {"ports": {}}, {"ports": None}],
    ids=["no host", "no port", "null for ports"],
)
async def test_of_one_that_is_ready_without_an_address_the_status_is_looked_at(
    api: FlakyApi, lookout: StatusPoller, lack: dict[str, object]
) -> None:
    api.change_row = lambda row: row | lack
    ids = api.deploy(3, ready_in=5)
    seen = await asyncio.gather(*(lookout.tracker(one).wait_for(Status.READY, 300) for one in ids))

    assert all(one.fqdn and one.public_ip and one.ports for one in seen)
    assert [lookout.stats.found_by_list, lookout.stats.found_by_status] == [0, 3]


async def test_a_row_that_tells_nothing_new_does_not_replace_a_look(
    api: FlakyApi, lookout: StatusPoller
) -> None:
    ids = api.deploy(2, ready_in=0, over=10)
    api.on_look = lambda _: None
    watched = lookout.tracker(ids[0])
    full = Deployment(request_id=ids[0], current_status=Status.READY, elapsed_time=7)
    watched.update(full)
    waiting = asyncio.create_task(told(lookout, ids, Status.TERMINATED))
    await asyncio.sleep(2)

    assert watched.deployment is full
    await waiting


async def test_rows_of_others_and_rows_that_come_twice_are_harmless(
    api: FlakyApi, lookout: StatusPoller
) -> None:
    ids = api.deploy(3, ready_in=3)
    doubled = [{"request_id": ids[0], "ready": False, "status": "Status.DEPLOYING"}] * 2
    foreign = [{"request_id": "foreign", "ready": True, "status": "Status.READY"}]
    api.on_list = lambda asked: Reply(body={"data": [*doubled, *foreign]}) if asked.page else None
    times = await told(lookout, ids)

    assert lateness(api, ids, times) < 1


async def test_an_error_is_told_with_its_reason_at_once(
    api: FlakyApi, lookout: StatusPoller
) -> None:
    ids = api.deploy(5, error=4)
    results = await asyncio.gather(
        *(lookout.tracker(one).wait_for(Status.READY, 30) for one in ids), return_exceptions=True
    )

    assert {one.error_detail for one in results if isinstance(one, DeploymentFailed)} == {
        "image not found"
    }
    assert len(results) == 5
    assert now() - api.fates[ids[0]].error < 1
    assert len(api.looks) < 15


async def test_an_error_that_lists_hide_is_told_soon(api: FlakyApi, lookout: StatusPoller) -> None:
    api.lists_errors = False
    ids = api.deploy(5, error=4)
    results = await asyncio.gather(
        *(lookout.tracker(one).wait_for(Status.READY, 30) for one in ids), return_exceptions=True
    )

    assert {type(one) for one in results} == {DeploymentFailed}
    assert now() - api.fates[ids[0]].error < 1


async def test_the_last_page_is_known_by_its_number_whatever_it_says(
    api: FlakyApi, lookout: StatusPoller
) -> None:
    where = {"number": 1, "has_next": True, "paginator": {"num_pages": 1}}
    api.on_list = lambda asked: Reply(body={**api._page(asked), "pagination": where})
    api.lists_errors = False
    ids = api.deploy(5, error=4)
    async with waiting_for(lookout, [*api.deploy(1), *ids]):  # an empty page is the last one anyway
        for one in ids:
            with pytest.raises(DeploymentFailed):
                await lookout.tracker(one).wait_for(Status.READY, 60)

    assert now() - api.fates[ids[0]].error < 1


@pytest.mark.parametrize("listed", [True, False], ids=["listed", "hidden"])
async def test_the_end_of_what_is_in_error_is_not_asked_for_all_the_time(
    api: FlakyApi, lookout: StatusPoller, *, listed: bool
) -> None:
    api.lists_errors = listed
    ids = api.deploy(4, error=2, over=40)
    times = await told(lookout, ids, Status.TERMINATED)

    assert max(times) - api.fates[ids[0]].over < 5
    assert len(api.looks) < 4 * 16


async def test_one_that_ends_unseen_is_told(api: FlakyApi, lookout: StatusPoller) -> None:
    ids = api.deploy(5, over=4)
    results = await asyncio.gather(
        *(lookout.tracker(one).wait_for(Status.READY, 30) for one in ids), return_exceptions=True
    )

    assert {type(one) for one in results} == {DeploymentTerminated}
    assert now() - api.fates[ids[0]].over < 1


# ── webhooks ─────────────────────────────────────────────────────────────────────────────────────


async def test_a_webhook_makes_a_list_come_at_once(api: FlakyApi, client: ApiClient) -> None:
    lookout = StatusPoller(
        client, PollingPolicy(interval=60, full_list_interval=60, first_delay=60)
    )
    ids = api.deploy(40, ready_in=3)
    all_watched = [lookout.tracker(one) for one in ids]
    waiting = asyncio.create_task(told(lookout, ids))
    await asyncio.sleep(3)
    for watched in all_watched:
        watched.webhook_received()
    times = await waiting

    assert lateness(api, ids, times) < 0.4
    assert {watched.history[-1].source for watched in all_watched} == {"webhook"}
    assert lookout.stats.found_by_webhook == 40


async def test_a_webhook_hastens_one_list_and_not_those_after_it(
    api: FlakyApi, client: ApiClient
) -> None:
    lookout = StatusPoller(client, PollingPolicy(interval=20))
    ids = api.deploy(5)
    waiting = asyncio.create_task(told(lookout, ids))
    await asyncio.sleep(1)
    before = len(api.lists)
    lookout.tracker(ids[0]).webhook_received()
    await asyncio.sleep(5)

    assert len(api.lists) == before + 1
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_who_is_rung_for_goes_before_all_others(api: FlakyApi, client: ApiClient) -> None:
    lookout = StatusPoller(
        client, PollingPolicy(interval=60, full_list_interval=60, first_delay=60)
    )
    ids = api.deploy(700)
    waiting = asyncio.create_task(told(lookout, ids))
    await asyncio.sleep(5)
    last = next(reversed(lookout._ready_group.members))
    watched = lookout.tracker(last)
    api.fates[last] = Fate(ready=now())
    watched.webhook_received()
    await watched.wait_for(Status.READY, 5)

    assert now() - api.fates[last].ready < 0.3
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


@pytest.mark.parametrize(
    ("wanted", "way"),
    [(Status.TERMINATED, ListMode.CHANGED), (Status.READY, ListMode.BY_ID)],
    ids=["any change", "by id"],
)
async def test_who_is_rung_for_goes_first_where_all_are_asked_for_and_not_at_once(
    api: FlakyApi, client: ApiClient, wanted: Status, way: ListMode
) -> None:
    lookout = StatusPoller(
        client, PollingPolicy(interval=60, full_list_interval=60, first_delay=60)
    )
    lookout._lists.fall_back("a test", way)
    ids = api.deploy(110, ready_in=0 if wanted is Status.TERMINATED else NEVER)
    async with waiting_for(lookout, ids, wanted):
        while lookout.tracker(ids[0]).status is None:
            await asyncio.sleep(0.01)
        last = (api.lists[-1].ids or ids)[-1]
        fate = Fate(ready=now(), over=now() if wanted is Status.TERMINATED else NEVER)
        api.fates[last] = fate
        watched = lookout.tracker(last)
        watched.webhook_received()
        await watched.wait_for(wanted, 60)

        assert now() - fate.ready < 0.5


async def test_a_webhook_that_came_before_the_wait_is_heard(
    api: FlakyApi, client: ApiClient
) -> None:
    lookout = StatusPoller(client, PollingPolicy(first_delay=60))
    ids = api.deploy(1, ready_in=0)
    watched = lookout.tracker(ids[0])
    watched.webhook_received()
    times = await told(lookout, ids)

    assert lateness(api, ids, times) < 0.2
    assert watched.history[-1].source == "webhook"


@pytest.mark.parametrize("count", [1, 2])
async def test_a_webhook_that_rings_all_the_time_costs_a_few_looks_a_second(
    api: FlakyApi, lookout: StatusPoller, count: int
) -> None:
    ids = api.deploy(count)
    waiting = [asyncio.create_task(lookout.tracker(one).wait_for(Status.READY, 20)) for one in ids]
    for _ in range(2000):
        lookout.tracker(ids[0]).webhook_received()
        await asyncio.sleep(0.01)
    await asyncio.gather(*waiting, return_exceptions=True)

    assert len(api.asked) < 20 * 7.5 + 20


@pytest.mark.parametrize("count", [1, 5])
async def test_a_webhook_whose_look_fails_is_not_forgotten(
    api: FlakyApi, client: ApiClient, count: int
) -> None:
    lookout = StatusPoller(
        client, PollingPolicy(interval=30, full_list_interval=30, first_delay=30)
    )
    ids = api.deploy(count, ready_in=0)
    failing = itertools.count()

    def answer(_: object) -> Reply | None:
        return BROKEN if next(failing) < 2 else None

    api.on_look = api.on_list = answer
    waiting = asyncio.create_task(told(lookout, ids))
    await asyncio.sleep(1)
    for one in ids:
        lookout.tracker(one).webhook_received()
    began = now()
    await waiting

    assert now() - began < 3


@pytest.mark.parametrize("listed", [True, False], ids=["listed", "hidden"])
async def test_a_webhook_that_comes_right_after_a_look_is_heard(
    api: FlakyApi, client: ApiClient, *, listed: bool
) -> None:
    lookout = StatusPoller(client, PollingPolicy(interval=20))
    [one, *_] = ids = api.deploy(4)
    api.hidden_until = {one: NEVER}
    watched = lookout.tracker(one)
    async with waiting_for(lookout, ids):
        watched.webhook_received()
        while watched.status is None:
            await asyncio.sleep(0.01)
        assert [asked.request_id for asked in api.asked] == [None, one]  # and nothing is under way
        api.hidden_until = {} if listed else {one: NEVER}
        api.fates[one] = Fate(error=now())
        watched.webhook_received()
        with pytest.raises(DeploymentFailed):
            await watched.wait_for(Status.READY, 60)

    assert now() - api.fates[one].error < 1


async def test_a_webhook_is_heard_while_lists_fail(api: FlakyApi, client: ApiClient) -> None:
    lookout = StatusPoller(
        client,
        PollingPolicy(interval=5, full_list_interval=30, first_delay=30, webhook_interval=30),
    )
    api.on_list = lambda _: BROKEN
    ids = api.deploy(3, ready_in=29)
    waiting = asyncio.create_task(told(lookout, ids))
    await asyncio.sleep(29.1)
    for one in ids:
        lookout.tracker(one).webhook_received()
    times = await waiting

    assert lateness(api, ids, times) < 0.6


async def test_a_forged_webhook_tells_nothing(api: FlakyApi, lookout: StatusPoller) -> None:
    ids = api.deploy(3, ready_in=5)
    waiting = asyncio.create_task(told(lookout, ids))
    for _ in range(4):
        await asyncio.sleep(1)
        for one in ids:
            lookout.tracker(one).webhook_received()
    times = await waiting

    assert min(times) >= api.fates[ids[0]].ready


async def test_looks_are_rare_once_webhooks_have_come_and_until_they_fail(
    api: FlakyApi, lookout: StatusPoller
) -> None:
    def wait_for(seconds: float) -> tuple[DeploymentTracker, asyncio.Task[Deployment]]:
        [one] = api.deploy(1, ready_in=seconds)
        watched = lookout.tracker(one, expects_webhook=True)
        return watched, asyncio.create_task(watched.wait_for(Status.READY, 300))

    async def rung(seconds: float) -> int:
        watched, waiting = wait_for(NEVER)
        await asyncio.sleep(seconds)
        while len(lookout._status_requests):  # or that one finds out
            await asyncio.sleep(0.001)
        api.fates[watched.request_id] = Fate(ready=now())
        watched.webhook_received()
        await waiting
        assert watched.history[-1].source == "webhook"
        return watched.status_requests

    def proven() -> bool:
        return lookout.stats.webhooks_active

    assert not proven()
    assert await rung(10.3) > 15
    assert proven()
    assert await rung(10.3) < 7
    watched, waiting = wait_for(1.5)  # they come no more
    await waiting
    watched, waiting = wait_for(1.5)
    await waiting
    assert not proven()
    watched.webhook_received()  # but late
    assert proven()
    proof = lookout._reader.webhooks._score
    watched.webhook_received()  # twice proves nothing more
    assert lookout._reader.webhooks._score == proof


@pytest.mark.parametrize(("late", "proven"), [(0.1, True), (4, False)])
async def test_webhooks_prove_something_if_they_come_soon_after_ready(
    api: FlakyApi, lookout: StatusPoller, *, late: float, proven: bool
) -> None:
    for one in api.deploy(3, ready_in=0):
        watched = lookout.tracker(one, expects_webhook=True)
        await watched.wait_for(Status.READY, 60)
        await asyncio.sleep(late)
        watched.webhook_received()

    assert lookout.stats.webhooks_active is proven


async def test_that_no_webhook_comes_is_said_once(
    api: FlakyApi, lookout: StatusPoller, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    said = []
    for one in api.deploy(12, ready_in=0):
        await lookout.tracker(one, expects_webhook=True).wait_for(Status.READY, 60)
        said.append(len(caplog.messages))

    assert said == [*[0] * 9, *[1] * 3]
    assert "10 deployments" in caplog.text
    assert "public_url" in caplog.text
    ids = api.deploy(1, ready_in=5)
    assert lateness(api, ids, await told(lookout, ids)) < 0.7


async def test_webhooks_may_be_on_their_way_where_many_are_ready_at_once(
    api: FlakyApi, lookout: StatusPoller, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    ids = api.deploy(12, ready_in=0)
    held = [lookout.tracker(one, expects_webhook=True) for one in ids]
    await told(lookout, ids)
    assert not caplog.messages
    await asyncio.sleep(PollingPolicy().webhook_interval)
    [one] = api.deploy(1, ready_in=0)
    await lookout.tracker(one, expects_webhook=True).wait_for(Status.READY, 60)

    assert f"{len(held) + 1} deployments" in caplog.text


@pytest.mark.parametrize("expected", [True, False], ids=["one came", "none was to come"])
async def test_without_a_reason_it_is_not_said_that_no_webhook_comes(
    api: FlakyApi, lookout: StatusPoller, caplog: pytest.LogCaptureFixture, *, expected: bool
) -> None:
    caplog.set_level(logging.WARNING)
    for number, one in enumerate(api.deploy(15, ready_in=0)):
        watched = lookout.tracker(one, expects_webhook=expected)
        await watched.wait_for(Status.READY, 60)
        if expected and number == 0:
            await asyncio.sleep(60)
            watched.webhook_received()  # too late to prove anything

    assert not caplog.messages
    assert not lookout.stats.webhooks_active


async def test_who_expects_no_webhook_is_looked_at_as_often_as_ever(
    api: FlakyApi, lookout: StatusPoller
) -> None:
    lookout._reader.webhooks._score = 5
    ids = api.deploy(1, ready_in=10)
    times = await told(lookout, ids)

    assert lateness(api, ids, times) < 0.7


# ── hanging, and others ──────────────────────────────────────────────────────────────────────────


async def test_looks_that_hang_do_not_hold_up_others(api: FlakyApi, client: ApiClient) -> None:
    lookout = StatusPoller(client, PollingPolicy())
    api.on_list = lambda _: REFUSED
    hung = set(api.deploy(6))
    api.on_look = lambda one: Reply(delay=600) if one in hung else None
    ids = api.deploy(10, ready_in=20)
    waiting = asyncio.create_task(told(lookout, hung, patience=40))
    times = await told(lookout, ids)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)

    assert lateness(api, ids, times) < 2.5


async def test_a_look_that_hangs_is_begun_once_more_and_not_again(
    api: FlakyApi, lookout: StatusPoller
) -> None:
    [one] = api.deploy(1, ready_in=0)
    hanging = itertools.count()
    api.on_look = lambda _: Reply(delay=25) if next(hanging) < 1 else None
    began = now()
    await told(lookout, [one])

    assert now() - began == pytest.approx(2.5, abs=0.4)
    api.on_look = lambda _: Reply(delay=600)
    [other] = api.deploy(1)
    with pytest.raises(WaitTimedOut):
        await told(lookout, [other], patience=20)
    assert len([look for look in api.looks if look.request_id == other]) == 2


async def test_a_list_that_hangs_is_asked_once_more(api: FlakyApi, lookout: StatusPoller) -> None:
    hanging = itertools.count()
    api.on_list = lambda _: Reply(delay=25) if next(hanging) < 1 else None
    ids = api.deploy(100, ready_in=3)
    times = await told(lookout, ids)

    assert lateness(api, ids, times) < 1.5


async def test_those_who_look_for_themselves_get_their_permits(
    api: FlakyApi, client: ApiClient, lookout: StatusPoller
) -> None:
    api.on_list = lambda _: REFUSED
    waiting = asyncio.create_task(told(lookout, api.deploy(200), patience=60))
    await asyncio.sleep(5)
    began = now()
    await asyncio.gather(*(client.deployments.get(one) for one in list(api.fates)[:60]))
    took = now() - began
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)

    assert took < 8.5


async def test_those_who_look_for_themselves_all_the_time_do_not_starve_the_others(
    api: FlakyApi, client: ApiClient, lookout: StatusPoller
) -> None:
    api.on_list = lambda _: REFUSED
    [mine] = api.deploy(1)
    ids = api.deploy(3, ready_in=10)
    busy = [asyncio.create_task(client.deployments.get(mine)) for _ in range(600)]
    times = await told(lookout, ids)
    for task in busy:
        task.cancel()
    await asyncio.gather(*busy, return_exceptions=True)

    assert lateness(api, ids, times) < 2


async def test_the_limits_hold(api: FlakyApi, lookout: StatusPoller) -> None:
    api.on_list = lambda asked: REFUSED if asked.only_ready else None
    await told(lookout, api.deploy(500, ready_in=10))

    for asked, limit in ((api.looks, 20), (api.lists, 10)):
        times = [one.at for one in asked]
        assert all(later - times[n] > 0.95 for n, later in enumerate(times[limit:]))


async def test_while_all_are_being_asked_for_it_does_not_look_for_more_all_the_time(
    api: FlakyApi, client: ApiClient
) -> None:
    counted = itertools.count()

    class Counted(PollingPolicy):
        def interval_at(self, age: float, *, expects_webhook: bool = False) -> float:
            next(counted)
            return super().interval_at(age, expects_webhook=expects_webhook)

    lookout = StatusPoller(client, Counted(interval=0.001))
    api.on_list = lambda _: Reply(delay=600)
    api.on_look = lambda _: Reply(delay=600)
    async with waiting_for(lookout, api.deploy(61)):
        while not api.lists:
            await asyncio.sleep(0.01)
        before = next(counted)
        await asyncio.sleep(1)

        assert next(counted) - before < 100


# ── ends ─────────────────────────────────────────────────────────────────────────────────────────


async def test_closing_the_client_ends_every_wait(api: FlakyApi, client: ApiClient) -> None:
    lookout = StatusPoller(client, PollingPolicy())
    before = asyncio.all_tasks()
    ids = api.deploy(20)
    waits = [
        asyncio.create_task(lookout.tracker(one).wait_for(wanted, 300))
        for one, wanted in zip(ids * 2, [Status.READY, Status.TERMINATED] * 20, strict=True)
    ]
    await asyncio.sleep(3)
    await client.close()
    results = await asyncio.gather(*waits, return_exceptions=True)
    await asyncio.sleep(0)

    assert {type(one) for one in results} == {ClientClosed}
    assert not others(before)
    with pytest.raises(ClientClosed):
        await lookout.tracker(ids[0]).wait_for(Status.READY, 300)
    assert lookout.stats.waiting == 0


async def test_waits_in_another_event_loop_are_refused(
    api: FlakyApi, client: ApiClient, lookout: StatusPoller
) -> None:
    [one] = api.deploy(1, ready_in=3)
    watched = lookout.tracker(one)
    waiting = asyncio.create_task(watched.wait_for(Status.READY, 30))
    await asyncio.sleep(1)

    def elsewhere() -> object:
        return asyncio.run(asyncio.wait_for(lookout.tracker("other").wait_for(Status.READY, 5), 6))

    with pytest.raises(WrongLoop):
        await asyncio.to_thread(elsewhere)
    await waiting


async def test_a_look_out_that_somebody_cancelled_begins_anew(
    api: FlakyApi, lookout: StatusPoller
) -> None:
    ids = api.deploy(2, ready_in=3)
    waiting = asyncio.create_task(told(lookout, ids[:1]))
    await asyncio.sleep(1)
    assert lookout._task is not None
    lookout._task.cancel()
    await asyncio.sleep(1)
    times = await told(lookout, ids[1:])

    assert lateness(api, ids[1:], times) < 1
    await waiting


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("where", ["StatusPoller._run()", "._request_status()"])
async def test_whatever_goes_wrong_inside_is_told_to_all(
    api: FlakyApi, client: ApiClient, count: int, where: str
) -> None:
    class Failing(PollingPolicy):
        def interval_at(self, age: float, *, expects_webhook: bool = False) -> float:
            if now() > began + 3 and where in repr(asyncio.current_task()):
                raise LookupError("out of paces")
            return super().interval_at(age, expects_webhook=expects_webhook)

    lookout, began, before = StatusPoller(client, Failing()), now(), asyncio.all_tasks()
    results = await asyncio.gather(
        *(lookout.tracker(one).wait_for(Status.READY, 60) for one in api.deploy(count)),
        return_exceptions=True,
    )
    await asyncio.sleep(0.2)

    assert {type(one) for one in results} == {LookupError}
    assert now() - began < 45  # the next look at one that is listed may be far off
    assert not others(before)


async def test_one_that_may_not_be_looked_at_does_not_end_the_waits_of_others(
    api: FlakyApi, lookout: StatusPoller
) -> None:
    ids = api.deploy(4, ready_in=6)
    api.hidden_until = {ids[0]: NEVER}
    api.on_look = lambda one: Reply(401) if one == ids[0] else None
    results = await asyncio.gather(
        *(lookout.tracker(one).wait_for(Status.READY, 60) for one in ids), return_exceptions=True
    )

    assert [type(one) for one in results] == [Unauthorized, *[Deployment] * 3]


async def test_one_that_does_not_exist_ends_its_wait_among_others(
    api: FlakyApi, lookout: StatusPoller
) -> None:
    ids = ["nobody", *api.deploy(4, ready_in=6)]
    results = await asyncio.gather(
        *(lookout.tracker(one).wait_for(Status.READY, 60) for one in ids), return_exceptions=True
    )

    assert [type(one) for one in results] == [NotFound, *[Deployment] * 4]


@pytest.mark.parametrize("bad", ["../app", "", "x" * 200, 7])
async def test_an_id_that_cannot_be_one_is_refused_at_once(lookout: StatusPoller, bad: str) -> None:
    with pytest.raises(InvalidRequest, match="request_id"):
        lookout.tracker(bad)


def fails_for_a_while(answer: Reply | None) -> Callable[[object], Reply | None]:
    """Answered before and after so, and not from the second second to the fourth."""
    began = now()
    return lambda _: BROKEN if began + 2 < now() < began + 4 else answer


@pytest.mark.parametrize("answer", [None, Reply(404)], ids=["DEPLOYING", "not known yet"])
async def test_a_look_that_failed_and_works_again_is_no_reason_any_more(
    api: FlakyApi, lookout: StatusPoller, answer: Reply | None
) -> None:
    api.on_look = fails_for_a_while(answer)
    [one] = api.deploy(1)
    with pytest.raises(WaitTimedOut) as caught:
        await lookout.tracker(one, not_found_until=now() + 60).wait_for(Status.READY, 10)

    assert len(api.looks) > 6
    assert "look failed" not in str(caught.value)


async def test_a_list_that_failed_and_works_again_is_no_reason_any_more(
    api: FlakyApi, lookout: StatusPoller
) -> None:
    api.on_list = fails_for_a_while(None)
    api.on_look = lambda _: Reply(delay=600)
    with pytest.raises(WaitTimedOut) as caught:
        await told(lookout, api.deploy(20), patience=10)

    assert len(api.lists) > 6
    assert "look failed" not in str(caught.value)


async def test_lists_that_fail_are_named_when_the_time_is_up(
    api: FlakyApi, lookout: StatusPoller
) -> None:
    def answer(_: object) -> Reply:
        return BROKEN

    api.on_list = api.on_look = answer
    with pytest.raises(WaitTimedOut, match="the last request failed"):
        await told(lookout, api.deploy(2), patience=20)


async def test_stats_tell_what_was_done(api: FlakyApi, lookout: StatusPoller) -> None:
    ids = [*api.deploy(10, ready_in=4), *api.deploy(1, ready_in=9)]
    waiting = asyncio.create_task(told(lookout, ids))
    await asyncio.sleep(2)
    assert lookout.stats.waiting == 11
    times = await waiting
    stats = lookout.stats

    assert (stats.status_requests, stats.list_requests) == (len(api.looks), len(api.lists))
    assert stats.found_by_status + stats.found_by_list == 11
    assert stats.found_by_webhook == 0
    assert 0 < stats.mean_delay <= stats.max_delay < 1.3
    assert stats.max_delay >= lateness(api, ids, times) - 0.1
    assert (stats.webhooks_active, stats.list_mode) == (False, "changed")


async def test_the_lag_is_counted_from_the_last_look_that_would_have_told(
    api: FlakyApi, client: ApiClient
) -> None:
    lookout = StatusPoller(client, PollingPolicy(first_delay=1.0, interval=4.0))
    [one] = api.deploy(1, ready_in=2)
    await told(lookout, [one])

    assert lookout.stats.mean_delay == pytest.approx(4.0, rel=0.2)
    [gone] = api.deploy(1, ready_in=0, over=2)
    watched = lookout.tracker(gone)
    watched.update(Deployment(request_id=gone, current_status=Status.READY))
    await told(lookout, [gone], Status.TERMINATED)
    assert lookout.stats.found_by_status == 2


# ── everything at once ───────────────────────────────────────────────────────────────────────────


class _Campaign:
    """Comings, goings and faults of chance."""

    def __init__(self, seed: int, api: FlakyApi, client: ApiClient) -> None:
        self.chance = random.Random(seed)
        self.api, self.client = api, client
        self.lookout = StatusPoller(client, PollingPolicy())
        self.until = now() + 60
        self.wrong: list[str] = []
        self.told = self.max_id_bytes = 0.0
        self.deepest = 0
        chance = self.chance
        api.chance = chance
        api.page_size = chance.choice([100, 100, 20])
        api.lag = chance.choice([0, 0, 1.0])
        api.filters_ids = chance.random() > 0.2
        api.filters_status = chance.random() > 0.2
        api.turns_pages = chance.random() > 0.2
        api.lists_errors = chance.random() > 0.5
        if chance.random() < 0.3:
            api.change_row = lambda row: row | {"status": None}
        self.share = chance.choice([0.0, 0.1, 0.5])
        self.refuses = chance.choice([None, None, "status", "all"])
        self.webhooks = chance.choice([0.0, 0.9])
        api.on_look = lambda _: self.fault()
        api.on_list = self.on_list

    def fault(self) -> Reply | None:
        """One of chance, until the last seconds."""
        if now() > self.until or self.chance.random() >= self.share:
            return None
        return self.chance.choice(
            [BROKEN, Reply(500), Reply(200, b"<html>"), Reply(delay=40), Reply(429)]
        )

    def on_list(self, asked: Asked) -> Reply | None:
        if self.refuses == "all" or (self.refuses == "status" and asked.only_ready):
            return REFUSED
        return self.fault()

    async def one(self, request_id: str, *, expects_webhook: bool) -> None:
        """Waits, leaves, comes back, and says what is wrong."""
        watched = self.lookout.tracker(request_id, expects_webhook=expects_webhook)
        fate = self.api.fates[request_id]
        while now() < self.until and self.chance.random() < 0.4:
            try:
                async with asyncio.timeout(self.chance.uniform(0, 3)):
                    await watched.wait_for(
                        self.chance.choice([Status.READY, Status.TERMINATED]), None
                    )
            except TimeoutError:
                await asyncio.sleep(self.chance.uniform(0, 1))
            except EdgegapError:
                break
            else:
                break
        try:
            await watched.wait_for(Status.READY, 200)
        except (DeploymentFailed, DeploymentTerminated, NotFound):
            if now() < min(fate.error, fate.over):
                self.wrong.append(f"{request_id}: ended too early")
        except WaitTimedOut:
            if fate.status_at(now() - 60) != "DEPLOYING":
                self.wrong.append(f"{request_id}: never told")
        else:
            if now() < fate.ready:
                self.wrong.append(f"{request_id}: told too early")
            self.max_id_bytes = max(self.max_id_bytes, now() - max(self.until, fate.ready))
            self.told += 1
        # It is made shorter when it grows, not when many leave at once.
        self.deepest = max(
            self.deepest, len(self.lookout._status_queue) - 2 * len(self.api.fates) - 70
        )

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(self.chance.choice([1, 3, 30, 120])):
                await asyncio.sleep(self.chance.expovariate(4))
                [request_id] = self.api.deploy(1)
                ready = now() + self.chance.lognormvariate(1.6, 0.8)
                fails = self.chance.random() < 0.1
                over = ready + self.chance.uniform(0, 5)
                self.api.fates[request_id] = (
                    Fate(error=ready) if fails else Fate(ready=ready, over=NEVER)
                )
                if self.chance.random() < 0.05:
                    self.api.fates[request_id] = Fate(ready=ready, over=over)
                rings = self.chance.random() < self.webhooks
                waiting = group.create_task(self.one(request_id, expects_webhook=self.webhooks > 0))
                if rings:
                    group.create_task(self.ring(request_id, ready))
                if self.chance.random() < 0.1:
                    group.create_task(self.cancel(waiting))

    async def ring(self, request_id: str, ready: float) -> None:
        watched = self.lookout.tracker(request_id, expects_webhook=True)
        await asyncio.sleep(max(0, ready - now()) + self.chance.expovariate(10))
        watched.webhook_received()

    async def cancel(self, waiting: asyncio.Task[None]) -> None:
        await asyncio.sleep(self.chance.uniform(0, 10))
        waiting.cancel()


@pytest.mark.parametrize("seed", range(24))
async def test_whatever_happens_all_are_told_rightly_and_within_limits(seed: int) -> None:
    before = asyncio.all_tasks()
    async with (
        FlakyApi() as api,
        ApiClient("canary-t", base_url=api.url, limits=Limits()) as client,
    ):
        campaign = _Campaign(seed, api, client)
        await campaign.run()
        await asyncio.sleep(0.5)

        assert not campaign.wrong
        # Two looks that hang hold one up until they time out, which takes half a minute.
        assert campaign.max_id_bytes < 40
        assert campaign.deepest <= 0
        assert not campaign.lookout._entries
        assert not campaign.lookout._status_queue
        assert campaign.lookout._task is None
        for asked, limit in ((api.looks, 20), (api.lists, 10)):
            times = [one.at for one in asked]
            gaps = [later - times[n] for n, later in enumerate(times[limit:])]
            assert min(gaps, default=1) > 0.95
    await asyncio.sleep(0.1)
    assert not others(before)


# ── beside many ──────────────────────────────────────────────────────────────────────────────────


async def test_one_who_waits_alone_does_not_stand_behind_the_checks_of_many_others(
    api: FlakyApi, lookout: StatusPoller
) -> None:
    many = api.deploy(1000, ready_in=0)
    async with waiting_for(lookout, many, Status.TERMINATED):
        await asyncio.sleep(30)
        ids = api.deploy(1, ready_in=5)
        times = await told(lookout, ids)

    assert lateness(api, ids, times) < 2


async def test_whose_change_no_row_tells_does_not_stand_behind_the_checks_of_many_others(
    api: FlakyApi, lookout: StatusPoller
) -> None:
    api.change_row = lambda row: {name: row[name] for name in row if name != "status"}
    async with waiting_for(lookout, api.deploy(400)):
        await asyncio.sleep(20)
        ids = api.deploy(2, ready_in=0, over=5)
        [first, _] = await told(lookout, ids, Status.TERMINATED)

        assert first - api.fates[ids[0]].over < 1.5


async def test_a_list_that_has_not_heard_of_what_a_webhook_told_is_not_believed(
    api: FlakyApi, client: ApiClient
) -> None:
    api.lag = 0.5
    lookout = StatusPoller(
        client, PollingPolicy(interval=3, first_delay=3)
    )  # as where webhooks come
    ids = api.deploy(4)
    async with waiting_for(lookout, ids):
        while not api.lists:
            await asyncio.sleep(0.01)
        api.fates[ids[0]] = Fate(ready=now())
        watched = lookout.tracker(ids[0])
        watched.webhook_received()
        await watched.wait_for(Status.READY, 60)

        assert now() - api.fates[ids[0]].ready < 0.5


async def test_a_page_that_had_no_room_for_all_is_followed_at_once(
    api: FlakyApi, client: ApiClient
) -> None:
    lookout = StatusPoller(client, PollingPolicy(interval=30, first_delay=30))
    ids = api.deploy(350)
    async with waiting_for(lookout, ids):
        await asyncio.sleep(20)
        while api.lists[-1].only_ready:  # so that all are asked for next
            await asyncio.sleep(0.01)
        at = now()
        api.fates.update(dict.fromkeys(ids, Fate(ready=at)))
        before = len(api.lists)
        while not (api.lists[before:] and lookout.stats.waiting < len(ids)):
            await asyncio.sleep(0.01)
        first = now()
        while lookout.stats.waiting:
            await asyncio.sleep(0.01)

        assert now() - first < 1


async def test_roll_calls_of_thousands_give_way_only_to_what_would_have_no_room(
    api: FlakyApi, lookout: StatusPoller
) -> None:
    def calls(begin: float, end: float) -> int:
        return sum(not one.only_ready and begin <= one.at < end for one in api.lists)

    ids = api.deploy(3000)
    async with waiting_for(lookout, ids):
        quiet = now() + 2
        await asyncio.sleep(12)
        assert 8 <= calls(quiet, quiet + 10) <= 11
        api.fates.update(dict.fromkeys(ids[:2000], Fate(ready=now())))
        busy = now()
        while lookout.stats.waiting > 1200:
            await asyncio.sleep(0.01)

        assert now() - busy < 2.6
        assert calls(busy, now()) <= 1


async def test_a_roll_call_asks_for_no_more_than_a_page_holds_whatever_was_proven_meanwhile(
    api: FlakyApi, lookout: StatusPoller
) -> None:
    ids = api.deploy(150)
    async with waiting_for(lookout, ids):
        while all(one.only_ready for one in api.lists):
            await asyncio.sleep(0.01)
        members = list(lookout._ready_group.members.values())[:100]
        lookout._begin_list_request(members, now(), is_full=True)
        lookout._lists.probe_ids.append("proof")
        await asyncio.sleep(0.2)

    assert max(len(one.ids or ()) for one in api.lists if not one.only_ready) == 100


async def test_a_wait_that_cannot_begin_leaves_nobody_waiting(
    api: FlakyApi, lookout: StatusPoller
) -> None:
    [one] = api.deploy(1, ready_in=1)
    watched = lookout.tracker(one)
    await lookout.client.close()
    for _ in range(2):
        with pytest.raises(ClientClosed):
            await watched.wait_for(Status.READY, 5)

    assert not watched.is_awaited
    assert lookout.stats.waiting == 0


async def test_one_who_is_left_alone_by_many_is_looked_at_again_by_status(
    api: FlakyApi, lookout: StatusPoller
) -> None:
    many, [lone] = api.deploy(80, ready_in=10), api.deploy(1, ready_in=0, over=16)
    waiting = asyncio.create_task(told(lookout, many))
    [over] = await told(lookout, [lone], Status.TERMINATED)
    await waiting

    assert over - api.fates[lone].over < 1


async def test_those_who_are_left_when_many_were_told_are_looked_for_as_soon_as_those(
    api: FlakyApi, client: ApiClient
) -> None:
    lookout = StatusPoller(client, PollingPolicy(interval=20, first_delay=20))
    many, two = api.deploy(98), api.deploy(2)
    async with waiting_for(lookout, [*many, *two]):
        await asyncio.sleep(10)
        api.fates.update(dict.fromkeys(many, Fate(ready=now())))
        while lookout.stats.waiting > 2:
            await asyncio.sleep(0.01)
        before, at = len(api.lists), now()
        while len(api.lists) == before:
            await asyncio.sleep(0.01)

        assert now() - at < 3  # for two alone it would be 16
