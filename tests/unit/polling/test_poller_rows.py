"""What the rows and the pages of a list mean for the deployments that tasks wait for."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

import pytest
from flaky_api import FlakyApi, Lifecycle, now
from poller_waits import UNAVAILABLE, max_delay, wait_all, waiting_for
from scripted_api import Reply

from edgegap_async.api.models import Deployment, Status
from edgegap_async.errors import DeploymentFailed, WaitTimedOut
from edgegap_async.http.api_client import ApiClient
from edgegap_async.polling.poller import StatusPoller
from edgegap_async.polling.schedule import PollingPolicy

pytestmark = pytest.mark.virtual

ADDRESS = {
    "fqdn": "host.pr.edgegap.net",
    "public_ip": "192.0.2.7",
    "ports": {"game": {"external": 31504, "internal": 7777, "protocol": "UDP"}},
}


async def test_rows_without_status_still_report_ready(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    flaky_api.change_row = lambda row: row | {"status": None}
    ids = [*flaky_api.deploy(20, ready_in=5), *flaky_api.deploy(2, error_in=5)]
    results = await asyncio.gather(
        *(poller.tracker(one).wait_for(Status.READY, 30) for one in ids), return_exceptions=True
    )

    assert [type(one) for one in results[20:]] == [DeploymentFailed] * 2
    assert poller.stats.found_by_list >= 18
    assert now() - flaky_api.lifecycles[ids[20]].error_at < 5


async def test_other_statuses_are_polled_by_status_when_rows_have_no_status(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    began = now()
    flaky_api.change_row = lambda row: row | {"status": None} if now() > began + 5 else row
    ids = flaky_api.deploy(5, error_in=9)
    times = await wait_all(poller, ids, Status.ERROR)

    assert max(times) - began - 9 < 0.8


@pytest.mark.parametrize(
    "contradict",
    [
        lambda row: row | {"ready": True, "status": "Status.DEPLOYING"},
        lambda row: row | {"ready": False, "status": "Status.READY"},
    ],
    ids=["ready and DEPLOYING", "not ready and READY"],
)
async def test_a_row_that_contradicts_itself_is_confirmed_by_status(
    flaky_api: FlakyApi,
    poller: StatusPoller,
    contradict: Callable[[dict[str, object]], dict[str, object]],
) -> None:
    flaky_api.change_row = contradict
    ids = flaky_api.deploy(3, ready_in=5)
    times = await wait_all(poller, ids)

    assert min(times) >= flaky_api.lifecycles[ids[0]].ready_at
    assert max_delay(flaky_api, ids, times) < 1


async def test_contradictory_rows_cost_few_status_requests(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    flaky_api.change_row = lambda row: row | {"ready": True}
    with pytest.raises(WaitTimedOut):
        await wait_all(poller, flaky_api.deploy(6), max_wait=10)

    assert 40 < len(flaky_api.status_requests) < 130


@pytest.mark.parametrize(
    "lack",
    [
        {"fqdn": None, "public_ip": None},
        {"ports": {}},
        {"ports": None},
        {"ports": {"game": {"external": 0, "internal": 7777, "name": "game"}}},
    ],
    ids=["no host", "no port", "null for ports", "0 for a port"],
)
async def test_a_ready_row_without_an_address_is_confirmed_by_status(
    flaky_api: FlakyApi, poller: StatusPoller, lack: dict[str, object]
) -> None:
    flaky_api.change_row = lambda row: row | lack
    ids = flaky_api.deploy(3, ready_in=5)
    seen = await asyncio.gather(*(poller.tracker(one).wait_for(Status.READY, 300) for one in ids))

    assert all(one.fqdn and one.public_ip and one.ports["game"].external for one in seen)
    assert [poller.stats.found_by_list, poller.stats.found_by_status] == [0, 3]


@pytest.mark.parametrize(
    "lack",
    [{"fqdn": None, "public_ip": None}, {"ports": {}}, {"ports": None}, {"ports": {"game": {}}}],
    ids=["no host", "no port", "null for ports", "a port without a number"],
)
async def test_a_ready_status_without_an_address_is_confirmed(
    flaky_api: FlakyApi, poller: StatusPoller, lack: dict[str, object]
) -> None:
    status = {"request_id": "d0000", "current_status": "Status.READY", **ADDRESS, **lack}
    incomplete = iter([Reply(body=status)])
    ids = flaky_api.deploy(1, ready_in=5)
    ready_at = flaky_api.lifecycles[ids[0]].ready_at
    flaky_api.on_status = lambda _: next(incomplete, None) if now() >= ready_at else None
    found = await poller.tracker(ids[0]).wait_for(Status.READY, 300)

    assert found.fqdn
    assert found.public_ip
    assert found.ports["game"].external
    assert now() - ready_at < 1


@pytest.mark.parametrize("count", [1, 3])
async def test_an_application_without_ports_is_ready_after_one_confirmation(
    flaky_api: FlakyApi, poller: StatusPoller, count: int
) -> None:
    flaky_api.change_row = lambda row: row | {"ports": None}
    flaky_api.on_status = lambda request_id: Reply(
        body={
            "request_id": request_id,
            "current_status": "Status.READY"
            if now() > flaky_api.lifecycles[request_id].ready_at
            else "Status.DEPLOYING",
        }
    )
    ids = flaky_api.deploy(count, ready_in=3)
    times = await wait_all(poller, ids)

    assert max_delay(flaky_api, ids, times) < 1


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("wanted", [Status.READY, Status.TERMINATED])
async def test_null_for_a_status_ends_no_wait(
    flaky_api: FlakyApi, poller: StatusPoller, count: int, wanted: Status
) -> None:
    def has_nulls() -> bool:
        return 1 < now() - began < 4

    began, nulls = now(), itertools.cycle([None, {"request_id": "x", "current_status": None}])
    flaky_api.on_status = lambda _: Reply(body=next(nulls)) if has_nulls() else None
    flaky_api.change_row = lambda row: (
        row | ({"status": None, "ready": None} if has_nulls() else {})
    )
    ids = flaky_api.deploy(count, ready_in=5, ended_in=12)
    times = await wait_all(poller, ids, wanted)

    assert min(times) - began >= (5 if wanted is Status.READY else 12)
    assert max(times) - began < (6 if wanted is Status.READY else 14)


async def test_a_row_with_a_known_status_does_not_replace_the_status_answer(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    ids = flaky_api.deploy(2, ready_in=0, ended_in=10)
    tracker = poller.tracker(ids[0])
    full = Deployment(request_id=ids[0], current_status=Status.READY, elapsed_time=7)
    tracker.update(full)
    flaky_api.on_status = lambda _: UNAVAILABLE
    waiting = asyncio.create_task(wait_all(poller, ids, Status.TERMINATED))
    await asyncio.sleep(2)

    assert tracker.deployment is full
    flaky_api.on_status = lambda _: None
    await waiting


async def test_foreign_and_duplicate_rows_are_harmless(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    ids = flaky_api.deploy(3, ready_in=3)
    doubled = [{"request_id": ids[0], "ready": False, "status": "Status.DEPLOYING"}] * 2
    foreign = [{"request_id": "foreign", "ready": True, "status": "Status.READY"}]
    flaky_api.on_list = lambda request: (
        Reply(body={"data": [*doubled, *foreign]}) if request.page else None
    )
    times = await wait_all(poller, ids)

    assert max_delay(flaky_api, ids, times) < 1


async def test_every_deployment_is_found_when_pages_are_short(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    flaky_api.page_size = 20
    slow = flaky_api.deploy(60)
    ids = flaky_api.deploy(100, ready_in=10)
    waiting = [asyncio.create_task(wait_all(poller, [one], max_wait=60)) for one in slow]
    times = await wait_all(poller, ids)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)

    assert max_delay(flaky_api, ids, times) < 2


async def test_a_deployment_without_room_on_the_page_counts_as_unseen(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    flaky_api.page_size = 5
    ids = flaky_api.deploy(40, ready_in=6)
    times = await wait_all(poller, ids)

    assert max_delay(flaky_api, ids, times) > 0.8
    assert poller.stats.max_delay >= max_delay(flaky_api, ids, times) - 0.1


async def test_more_ready_deployments_than_a_page_holds_are_found_soon(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    ids = flaky_api.deploy(400, ready_in=6)
    times = await wait_all(poller, ids)

    assert max_delay(flaky_api, ids, times) < 1.2


async def test_deployments_without_room_on_the_page_come_first_in_the_next_request(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    ids = flaky_api.deploy(900, ready_in=6)
    ready = now() + 6
    await wait_all(poller, ids)
    first, *later = [
        one.ids or () for one in flaky_api.list_requests if one.only_ready and one.at > ready
    ]
    shown = sorted(first)[: flaky_api.page_size]
    asked_by_status = {one.request_id for one in flaky_api.status_requests if one.at > ready}
    left = [one for one in first if one not in {*shown, *asked_by_status}]
    second = next(ids for ids in later if left[0] in ids)  # a request may have been in flight
    then = [one for one in second if one not in asked_by_status]

    assert len(left) > 4 * flaky_api.page_size
    assert then[: len(left)] == left


async def test_a_page_without_room_for_all_is_followed_at_once(
    flaky_api: FlakyApi, client: ApiClient
) -> None:
    poller = StatusPoller(client, PollingPolicy(interval=30, first_delay=30))
    ids = flaky_api.deploy(350)
    async with waiting_for(poller, ids):
        await asyncio.sleep(20)
        while flaky_api.list_requests[-1].only_ready:  # a filtered list comes after a full one
            await asyncio.sleep(0.01)
        at = now()
        flaky_api.lifecycles.update(dict.fromkeys(ids, Lifecycle(ready_at=at)))
        before = len(flaky_api.list_requests)
        while not (flaky_api.list_requests[before:] and poller.stats.waiting < len(ids)):
            await asyncio.sleep(0.01)
        first = now()
        while poller.stats.waiting:
            await asyncio.sleep(0.01)

        assert now() - first < 1
