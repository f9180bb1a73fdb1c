"""Lists that are stale make no wait longer than a poll of each status would."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import math
import random
import statistics
from collections.abc import Awaitable, Callable
from typing import Final

import attrs
import pytest
from flaky_api import FlakyApi, now
from scripted_api import Reply

from edgegap_async.api.models import Status
from edgegap_async.api.operations import GET_DEPLOYMENT
from edgegap_async.api.requests import StopFilter
from edgegap_async.errors import CallError, DeploymentFailed, NotFound
from edgegap_async.http.api_client import ApiClient
from edgegap_async.polling.poller import StatusPoller
from edgegap_async.polling.schedule import PollingPolicy

# Coverage would double their time, and other tests execute the same lines.
pytestmark = [pytest.mark.virtual, pytest.mark.no_cover]

DEPLOYS_PER_SECOND: Final = 40
COUNTS: Final = (2, 10, 60, 300)


def every_second() -> Callable[[], bool]:
    """Returns a function that says whether the next list is stale: every second one is."""
    turns = itertools.cycle([False, True])
    return lambda: next(turns)


def one_replica_of_two() -> Callable[[], bool]:
    """Returns a function that says whether the next list comes from the stale replica."""
    chance = random.Random(7)
    return lambda: chance.random() < 0.5


def always() -> Callable[[], bool]:
    """Returns a function that says that the next list is stale."""
    return lambda: True


KINDS: Final = {
    "frozen": (math.inf, always),
    "5 s behind": (5.0, always),
    "60 s behind": (60.0, always),
    "every second list frozen": (math.inf, every_second),
    "one replica of two frozen": (math.inf, one_replica_of_two),
}


LIMIT: Final = 1.1
"""Most that our mean delay may be, in naive delays."""


@attrs.frozen
class Delays:
    """Mean seconds from READY, 10 to 11 s after a deploy, to the end of the wait."""

    first: float
    """In a program that has just begun."""
    later: float
    """In a program that has seen deployments become READY."""


Wait = Callable[[str, Status], Awaitable[object]]


def ends(status: Status, seconds: float) -> dict[str, float]:
    """Returns the times of a deployment that gets a status after some seconds."""
    if status is Status.TERMINATED:
        return {"ready_in": 1.0, "ended_in": seconds}
    return {"ready_in" if status.is_ready else "error_in": seconds}


async def measure(
    flaky_api: FlakyApi, count: int, wait: Wait, status: Status, *, are_alike: bool
) -> float:
    """Returns the mean delay of `count` deployments that get a status."""
    alike = flaky_api.rng.uniform(10, 11)  # no phase of the polling is favoured

    async def one(number: int) -> float:
        await asyncio.sleep(number / DEPLOYS_PER_SECOND)
        after = alike if are_alike else flaky_api.rng.lognormvariate(math.log(5), 0.77)
        due = now() + after
        [request_id] = flaky_api.deploy(1, **ends(status, after))
        await wait(request_id, status)
        return now() - due

    return statistics.fmean(await asyncio.gather(*map(one, range(count))))


def rounds(count: int) -> range:
    """Returns as many rounds as a mean delay needs."""
    return range({2: 12, 10: 5, 60: 3, 300: 3}[count])


async def naive_delay(count: int, status: Status, *, are_alike: bool) -> float:
    """Returns the mean delay where each task polls every second behind the same rate limiter."""
    async with FlakyApi() as flaky_api, ApiClient("canary-t", base_url=flaky_api.url) as client:

        async def poll(request_id: str, wanted: Status) -> None:
            found = None
            while found != wanted:
                await asyncio.sleep(1)
                path = {"request_id": request_id}
                try:
                    found = (await client.call(GET_DEPLOYMENT, path=path)).current_status
                except NotFound:
                    return

        return statistics.fmean(
            [
                await measure(flaky_api, count, poll, status, are_alike=are_alike)
                for _ in rounds(count)
            ]
        )


async def our_delays(
    flaky_api: FlakyApi, client: ApiClient, count: int, status: Status, *, are_alike: bool
) -> Delays:
    """Returns the mean delays of the poller."""
    first, later = list[float](), list[float]()
    for _ in rounds(count):
        poller = StatusPoller(client, PollingPolicy())

        async def wait(request_id: str, wanted: Status, poller: StatusPoller = poller) -> None:
            tracker = poller.tracker(request_id)
            if wanted is Status.ERROR:
                with pytest.raises(DeploymentFailed):
                    await tracker.wait_for(Status.READY, 300)
            else:
                await tracker.wait_for(wanted, 300)

        for delays in (first, later):
            delays.append(await measure(flaky_api, count, wait, status, are_alike=are_alike))
    return Delays(statistics.fmean(first), statistics.fmean(later))


async def check(
    flaky_api: FlakyApi,
    client: ApiClient,
    kind: str,
    count: int,
    status: Status = Status.READY,
    *,
    are_alike: bool = True,
) -> None:
    """Asserts that the poller is no later than naive polling."""
    random.seed(76)  # of the jitter
    flaky_api.list_age, is_stale = KINDS[kind]
    flaky_api.is_list_stale = is_stale()
    naive = await naive_delay(count, status, are_alike=are_alike)
    ours = await our_delays(flaky_api, client, count, status, are_alike=are_alike)

    assert ours.first <= LIMIT * naive
    assert ours.later <= LIMIT * naive


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("kind", KINDS)
async def test_row_76_stale_lists_make_no_wait_longer_than_naive_polling(
    flaky_api: FlakyApi, client: ApiClient, count: int, kind: str
) -> None:
    await check(flaky_api, client, kind, count)


@pytest.mark.parametrize("count", [2, 10, 60])
@pytest.mark.parametrize("kind", KINDS)
async def test_row_76_deployments_that_differ_are_found_no_later_behind_stale_lists(
    flaky_api: FlakyApi, client: ApiClient, count: int, kind: str
) -> None:
    await check(flaky_api, client, kind, count, are_alike=False)


@pytest.mark.parametrize("count", [2, 10])
@pytest.mark.parametrize("kind", ["frozen", "5 s behind"])
@pytest.mark.parametrize("status", [Status.ERROR, Status.TERMINATED])
async def test_row_76_the_end_of_a_deployment_is_found_no_later_behind_stale_lists(
    flaky_api: FlakyApi, client: ApiClient, count: int, kind: str, status: Status
) -> None:
    await check(flaky_api, client, kind, count, status)


Stop = Callable[[ApiClient, str], Awaitable[object]]


async def stop(client: ApiClient, request_id: str) -> None:
    await client.deployments.stop(request_id)


async def bulk_stop(client: ApiClient, request_id: str) -> None:
    await client.deployments.bulk_stop([StopFilter("request_id", [request_id])])


@pytest.mark.parametrize(
    "reply", [Reply(202, delay=1), Reply(delay=1, lost=True)], ids=["", "lost"]
)
@pytest.mark.parametrize("stop", [stop, bulk_stop])
async def test_row_76_lists_that_omit_what_this_client_stops_are_not_called_stale(
    flaky_api: FlakyApi,
    poller: StatusPoller,
    caplog: pytest.LogCaptureFixture,
    stop: Stop,
    reply: Reply,
) -> None:
    caplog.set_level(logging.WARNING, "edgegap_async.polling")
    flaky_api.on_stop = lambda: reply

    async def use(request_id: str) -> None:
        await poller.tracker(request_id).wait_for(Status.READY, 60)
        with contextlib.suppress(CallError):  # of a lost answer
            await stop(poller.client, request_id)

    async with asyncio.TaskGroup() as tasks:
        for number in range(30):
            tasks.create_task(use(*flaky_api.deploy(1, ready_in=1 + number / 3)))

    assert poller.stats.list_requests > 10
    assert caplog.messages == []


async def test_row_76_deployments_are_checked_in_turn_while_it_is_unknown_whether_lists_are_fresh(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    ids = flaky_api.deploy(10, ready_in=100)
    waits = [asyncio.create_task(poller.tracker(one).wait_for(Status.READY, 200)) for one in ids]
    await asyncio.sleep(20)
    checked = [request.request_id for request in flaky_api.status_requests]
    for wait in waits:
        wait.cancel()
    await asyncio.wait(waits)

    rounds = [checked[first : first + 10] for first in range(0, len(checked) - 9, 10)]
    assert len(rounds) > 5
    assert all(set(one) == set(ids) for one in rounds)
