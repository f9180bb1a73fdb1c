"""Requests that fail or hang delay no other request and end no wait that may still succeed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from flaky_api import FlakyApi, now
from poller_waits import (
    NEVER,
    REFUSED,
    UNAVAILABLE,
    max_delay,
    reply_to_request,
    wait_all,
    waiting_for,
)
from scripted_api import Reply

from edgegap_async.api.models import Deployment, Status
from edgegap_async.errors import DeploymentFailed, NotFound, Unauthorized, WaitTimedOut
from edgegap_async.http.api_client import ApiClient
from edgegap_async.polling.poller import StatusPoller
from edgegap_async.polling.schedule import PollingPolicy

pytestmark = pytest.mark.virtual


@pytest.mark.parametrize(
    "reply",
    [
        UNAVAILABLE,
        Reply(429),
        Reply(429, headers={"Retry-After": "50"}),
        Reply(delay=60),
        Reply(lost=True),
    ],
    ids=["503", "429", "429 for long", "hung", "lost"],
)
async def test_all_are_polled_by_status_while_lists_fail(
    flaky_api: FlakyApi, poller: StatusPoller, reply: Reply
) -> None:
    flaky_api.on_list = lambda _: reply
    ids = [*flaky_api.deploy(5, ready_in=4), *flaky_api.deploy(3, ready_in=20)]
    times = await wait_all(poller, ids)

    assert max_delay(flaky_api, ids, times) < 1
    assert len(flaky_api.list_requests) < 25


async def test_lists_that_begin_to_fail_do_not_delay_status_requests(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    began = now()
    flaky_api.on_list = lambda request: UNAVAILABLE if request.at > began + 10 else None
    ids = flaky_api.deploy(5, ready_in=14)
    times = await wait_all(poller, ids)

    assert max_delay(flaky_api, ids, times) < 1


async def test_lists_are_used_again_once_they_work(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    began = now()
    flaky_api.on_list = lambda request: UNAVAILABLE if request.at < began + 10 else None
    ids = flaky_api.deploy(8, ready_in=30)
    times = await wait_all(poller, ids)
    late = [one for one in flaky_api.status_requests if one.at > began + 18]

    assert max_delay(flaky_api, ids, times) < 0.5
    assert len(late) < 40  # three checks a second for eight, as no list has shown a READY yet


async def test_failing_status_requests_do_not_delay_lists(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    flaky_api.on_status = lambda _: UNAVAILABLE
    ids = flaky_api.deploy(8, ready_in=20)
    times = await wait_all(poller, ids)

    assert max_delay(flaky_api, ids, times) < 0.5


async def test_a_failed_confirmation_is_repeated_soon(
    flaky_api: FlakyApi, client: ApiClient
) -> None:
    poller = StatusPoller(client, PollingPolicy(interval=10))
    flaky_api.on_status = reply_to_request(0, UNAVAILABLE)
    [one, *_] = ids = [*flaky_api.deploy(1, error_in=0), *flaky_api.deploy(3)]
    async with waiting_for(poller, ids):
        with pytest.raises(DeploymentFailed):
            await poller.tracker(one).wait_for(Status.READY, 60)

    assert len(flaky_api.status_requests) == 2
    assert flaky_api.status_requests[1].at - flaky_api.status_requests[0].at < 0.6


async def test_not_found_within_the_grace_period_ends_the_backoff(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    began = now()
    [one] = flaky_api.deploy(1, ready_in=14)

    def answer(_: str) -> Reply | None:
        if now() > began + 14:
            return None
        return UNAVAILABLE if now() < began + 5 else Reply(404)

    flaky_api.on_status = answer
    tracker = poller.tracker(one, believe_404_from=began + 60)
    await tracker.wait_for(Status.READY, 30)

    assert sum(one.at > began + 10 for one in flaky_api.status_requests) >= 7


async def test_hanging_status_requests_do_not_delay_others(
    flaky_api: FlakyApi, client: ApiClient
) -> None:
    poller = StatusPoller(client, PollingPolicy())
    flaky_api.on_list = lambda _: REFUSED
    hanging = set(flaky_api.deploy(6))
    flaky_api.on_status = lambda one: Reply(delay=600) if one in hanging else None
    ids = flaky_api.deploy(10, ready_in=20)
    waiting = asyncio.create_task(wait_all(poller, hanging, max_wait=40))
    times = await wait_all(poller, ids)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)

    assert max_delay(flaky_api, ids, times) < 2.5


async def test_a_hanging_status_request_is_repeated_once(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    [one] = flaky_api.deploy(1, ready_in=0)
    flaky_api.on_status = reply_to_request(0, Reply(delay=25))
    began = now()
    await wait_all(poller, [one])

    assert now() - began == pytest.approx(2.5, abs=0.4)
    flaky_api.on_status = lambda _: Reply(delay=600)
    [other] = flaky_api.deploy(1)
    with pytest.raises(WaitTimedOut):
        await wait_all(poller, [other], max_wait=20)
    assert len([one for one in flaky_api.status_requests if one.request_id == other]) == 2


async def test_a_hanging_list_request_is_repeated(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    flaky_api.on_list = reply_to_request(0, Reply(delay=25))
    ids = flaky_api.deploy(100, ready_in=3)
    times = await wait_all(poller, ids)

    assert max_delay(flaky_api, ids, times) < 1.5


async def test_an_unauthorized_status_request_ends_only_its_own_wait(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    ids = flaky_api.deploy(4, ready_in=6)
    flaky_api.hidden_until = {ids[0]: NEVER}
    flaky_api.on_status = lambda one: Reply(401) if one == ids[0] else None
    results = await asyncio.gather(
        *(poller.tracker(one).wait_for(Status.READY, 60) for one in ids), return_exceptions=True
    )

    assert [type(one) for one in results] == [Unauthorized, *[Deployment] * 3]


async def test_an_unknown_deployment_ends_only_its_own_wait(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    ids = ["unknown", *flaky_api.deploy(4, ready_in=6)]
    results = await asyncio.gather(
        *(poller.tracker(one).wait_for(Status.READY, 60) for one in ids), return_exceptions=True
    )

    assert [type(one) for one in results] == [NotFound, *[Deployment] * 4]


def fails_for_a_while(answer: Reply | None) -> Callable[[object], Reply | None]:
    """Answers 503 from the second second to the fourth, and `answer` before and after."""
    began = now()
    return lambda _: UNAVAILABLE if began + 2 < now() < began + 4 else answer


@pytest.mark.parametrize("answer", [None, Reply(404)], ids=["DEPLOYING", "not known yet"])
async def test_a_timeout_does_not_name_a_status_request_that_works_again(
    flaky_api: FlakyApi, poller: StatusPoller, answer: Reply | None
) -> None:
    flaky_api.on_status = fails_for_a_while(answer)
    [one] = flaky_api.deploy(1)
    with pytest.raises(WaitTimedOut) as caught:
        await poller.tracker(one, believe_404_from=now() + 60).wait_for(Status.READY, 10)

    assert len(flaky_api.status_requests) > 6
    assert "request failed" not in str(caught.value)


async def test_a_timeout_does_not_name_a_list_request_that_works_again(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    flaky_api.on_list = fails_for_a_while(None)
    flaky_api.on_status = lambda _: Reply(delay=600)
    with pytest.raises(WaitTimedOut) as caught:
        await wait_all(poller, flaky_api.deploy(20), max_wait=10)

    assert len(flaky_api.list_requests) > 6
    assert "request failed" not in str(caught.value)


async def test_a_timeout_names_the_failed_list_request(
    flaky_api: FlakyApi, poller: StatusPoller
) -> None:
    flaky_api.on_list = lambda _: UNAVAILABLE
    flaky_api.on_status = lambda _: UNAVAILABLE
    with pytest.raises(WaitTimedOut, match="the last request failed"):
        await wait_all(poller, flaky_api.deploy(2), max_wait=20)
