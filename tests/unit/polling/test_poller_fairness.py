"""No deployment and no call of the caller waits behind the routine requests of many others."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from flaky_api import FlakyApi, Lifecycle, now
from poller_waits import REFUSED, max_delay, wait_all, waiting_for

from edgegap_async.api.models import Status
from edgegap_async.http.api_client import ApiClient
from edgegap_async.polling.poller import StatusPoller

pytestmark = pytest.mark.virtual


async def test_a_webhook_is_served_before_routine_requests(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    flaky_api.on_list = lambda _: REFUSED
    ids = flaky_api.deploy(100)  # one status request each takes five seconds
    async with waiting_for(poller, ids):
        while len(flaky_api.status_requests) < 150:
            await asyncio.sleep(0.01)
        tracker = poller.tracker(flaky_api.status_requests[-1].request_id or "")
        flaky_api.lifecycles[tracker.request_id] = Lifecycle(ready_at=now())
        tracker.webhook_received()
        await tracker.wait_for(Status.READY, 60)

        assert now() - flaky_api.lifecycles[tracker.request_id].ready_at < 1


async def test_constant_webhooks_do_not_starve_other_deployments(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    flaky_api.on_list = lambda _: REFUSED
    frequent, quiet = flaky_api.deploy(15), flaky_api.deploy(15)
    async with waiting_for(poller, [*frequent, *quiet]):
        for _ in range(60):
            await asyncio.sleep(0.1)
            for one in frequent:
                poller.tracker(one).webhook_received()

    each = Counter(one.request_id for one in flaky_api.status_requests)
    assert min(each[one] for one in quiet) >= 3


async def test_status_calls_of_the_caller_get_their_permits(
    flaky_api: FlakyApi, client: ApiClient, poller: StatusPoller
) -> None:
    flaky_api.on_list = lambda _: REFUSED
    waiting = asyncio.create_task(wait_all(poller, flaky_api.deploy(200), max_wait=60))
    await asyncio.sleep(5)
    began = now()
    await asyncio.gather(*(client.deployments.get(one) for one in list(flaky_api.lifecycles)[:60]))
    took = now() - began
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)

    assert took < 8.5


async def test_status_calls_of_the_caller_do_not_starve_the_poller(
    flaky_api: FlakyApi, client: ApiClient, poller: StatusPoller
) -> None:
    flaky_api.on_list = lambda _: REFUSED
    [mine] = flaky_api.deploy(1)
    ids = flaky_api.deploy(3, ready_in=10)
    busy = [asyncio.create_task(client.deployments.get(mine)) for _ in range(600)]
    times = await wait_all(poller, ids)
    for task in busy:
        task.cancel()
    await asyncio.gather(*busy, return_exceptions=True)

    assert max_delay(flaky_api, ids, times) < 2


async def test_a_single_wait_is_served_beside_the_checks_of_many(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    many = flaky_api.deploy(1000, ready_in=0)
    async with waiting_for(poller, many, Status.TERMINATED):
        await asyncio.sleep(30)
        ids = flaky_api.deploy(1, ready_in=5)
        times = await wait_all(poller, ids)

    assert max_delay(flaky_api, ids, times) < 2


async def test_a_change_that_rows_omit_is_found_beside_the_checks_of_many(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    flaky_api.change_row = lambda row: {name: row[name] for name in row if name != "status"}
    async with waiting_for(poller, flaky_api.deploy(400)):
        await asyncio.sleep(20)
        ids = flaky_api.deploy(2, ready_in=0, ended_in=5)
        [first, _] = await wait_all(poller, ids, Status.TERMINATED)

        assert first - flaky_api.lifecycles[ids[0]].ended_at < 1.5
