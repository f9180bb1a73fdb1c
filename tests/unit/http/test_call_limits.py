"""How a call waits for its rate limit and for a connection."""

from __future__ import annotations

import asyncio
from typing import Any

import attrs
import pytest
from scripted_api import Reply, ScriptedApi
from scripted_calls import CANARY, DEPLOY, NO_LIMITS, ONCE, SEEN, STATUS, STOP, deploy

from edgegap_async.api.operations import GET_DEPLOYMENT
from edgegap_async.concurrency import loop_time
from edgegap_async.errors import (
    InvalidRequest,
    LimitReached,
    RateLimited,
)
from edgegap_async.http.api_client import ApiClient
from edgegap_async.http.call import CallOptions
from edgegap_async.http.rate_limits import Limits, Priority
from edgegap_async.http.resources.deployments import Deployments
from edgegap_async.http.retries import RetryPolicy
from edgegap_async.http.transport import Timeouts

pytestmark = pytest.mark.virtual


# ── rate limits ───────────────────────────────────────────────────────────────────────────────────


async def test_row_14_a_refused_call_goes_first_after_its_retry_after(
    api: ScriptedApi,
) -> None:
    api.on(*STATUS, Reply(429, headers={"Retry-After": "7"}), SEEN)
    api.on("GET", "/v1/status/r2", Reply(200, {"request_id": "r2"}))
    async with ApiClient("canary-t", base_url=api.url, limits={"get_deployment": 1}) as client:
        first = asyncio.create_task(client.deployments.get("r1"))
        await api.until_asked(*STATUS)
        await asyncio.gather(first, *(client.deployments.get("r2") for _ in range(3)))

    assert [request.path for request in api.requests[:3]] == [STATUS[1], STATUS[1], "/v1/status/r2"]
    assert api.requests[1].at - api.requests[0].at == pytest.approx(7, abs=0.1)


async def test_row_14_a_retry_after_is_not_lengthened_by_jitter(api: ScriptedApi) -> None:
    api.on(*STATUS, Reply(429, headers={"Retry-After": "7"}), SEEN)
    policy = RetryPolicy(first_wait=1000, max_wait=1000, deadline=8)
    async with ApiClient("canary-t", base_url=api.url, retries=policy) as client:
        await client.deployments.get("r1")

    assert api.requests[1].at - api.requests[0].at == pytest.approx(7, abs=0.1)


async def test_row_14_an_operation_without_a_limit_waits_for_the_retry_after(
    api: ScriptedApi, client: ApiClient
) -> None:
    api.on(*STOP, Reply(429, headers={"Retry-After": "7"}), Reply(200))
    await client.deployments.stop("r1")

    assert 7 <= api.requests[1].at - api.requests[0].at <= 7.3


async def test_with_on_limit_raise_a_call_over_the_limit_fails_and_is_not_sent(
    api: ScriptedApi,
) -> None:
    api.on(*STATUS, SEEN)
    async with ApiClient("canary-t", base_url=api.url, on_limit="raise") as client:
        outcomes = await asyncio.gather(
            *(client.deployments.get("r1") for _ in range(8)), return_exceptions=True
        )

    refused = [outcome for outcome in outcomes if isinstance(outcome, LimitReached)]
    assert len(refused) == 3
    assert len(api.requests) == client.requests_sent == 5
    assert (refused[0].attempts, refused[0].request_id) == (1, "r1")
    assert str(refused[0]) == (
        "GET /v1/status/r1. The rate limit would let it go after "
        f"{refused[0].predicted_wait:.2f} s, and it may wait 0 s. Nothing was sent: "
        "try again later, or let calls wait (on_limit, max_wait)"
    )


async def test_a_call_waits_for_max_wait_and_no_longer(api: ScriptedApi) -> None:
    api.on(*STATUS, SEEN)
    async with ApiClient("canary-t", base_url=api.url, max_wait=2) as client:
        outcomes = await asyncio.gather(
            *(client.deployments.get("r1") for _ in range(100)), return_exceptions=True
        )

    assert sum(isinstance(outcome, LimitReached) for outcome in outcomes) == 100 - len(api.requests)
    assert 40 <= len(api.requests) <= 45
    assert api.requests[-1].at - api.requests[0].at <= 2.05


async def test_stops_and_calls_of_raised_priority_have_no_max_wait(
    api: ScriptedApi,
) -> None:
    api.on(*STATUS, SEEN)
    api.on(*STOP, Reply(200))
    rows = {"data": [], "total_count": 0, "pagination": {"has_next": False}}
    api.on("GET", "/v1/deployments", Reply(body=rows))
    limits = {"get_deployment": 1, "stop_deployment": 1, "list_deployments": 1}
    async with ApiClient("canary-t", base_url=api.url, limits=limits, on_limit="raise") as client:
        for _ in range(3):
            await client.deployments.stop("r1")
            assert [row async for row in client._cleanup_deployments.list()] == []
            await client.call(
                GET_DEPLOYMENT,
                path={"request_id": "r1"},
                options=CallOptions(priority=Priority.STATUS),
            )
        with pytest.raises(LimitReached):
            await client.deployments.get("r1")
        with pytest.raises(LimitReached):
            await client.deployments.list()


async def test_cleanup_calls_go_before_other_calls(api: ScriptedApi) -> None:
    rows = {"data": [], "total_count": 0, "pagination": {"has_next": False}}
    api.on("GET", "/v1/deployments", Reply(body=rows))
    async with ApiClient("canary-t", base_url=api.url, limits={"list_deployments": 1}) as client:
        served = list[str]()

        async def one(name: str, deployments: Deployments) -> None:
            await deployments.list()
            served.append(name)

        await client.deployments.list()
        others = [one(f"other {number}", client.deployments) for number in range(3)]
        await asyncio.gather(*others, one("cleanup", client._cleanup_deployments))

    assert served == ["cleanup", "other 0", "other 1", "other 2"]


async def test_a_retry_that_may_not_wait_fails_with_the_error_of_the_first_attempt(
    api: ScriptedApi,
) -> None:
    api.on(*STATUS, Reply(429, headers={"Retry-After": "7"}))
    async with ApiClient("canary-t", base_url=api.url, on_limit="raise") as client:
        began = loop_time()
        with pytest.raises(RateLimited) as caught:
            await client.deployments.get("r1")

    assert loop_time() - began < 1
    assert (caught.value.attempts, caught.value.retry_after) == (1, 7)
    assert len(api.requests) == 1


@pytest.mark.parametrize(
    "settings",
    [
        {"on_limit": "panic"},
        {"max_wait": -1},
        {"max_wait": float("nan")},
        {"max_wait": "2"},
        {"on_limit": "raise", "max_wait": 2},
    ],
)
async def test_an_invalid_wait_setting_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match=r"on_limit|max_wait"):
        ApiClient("canary-t", **settings)


async def test_clients_of_one_loop_may_share_their_limits(api: ScriptedApi) -> None:
    api.on(*STATUS, SEEN)
    limits = Limits()
    async with (
        ApiClient("canary-t", base_url=api.url, limits=limits) as one,
        ApiClient("canary-t", base_url=api.url, limits=limits) as other,
    ):
        assert one.limits is other.limits
        await asyncio.gather(
            *(client.deployments.get("r1") for client in (one, other) for _ in range(30))
        )

    times = sorted(request.at for request in api.requests)
    assert all(later - sooner >= 1 for sooner, later in zip(times, times[20:], strict=False))


# ── connections ───────────────────────────────────────────────────────────────────────────────────


async def test_waiting_for_a_connection_takes_nothing_from_a_calls_timeout(
    api: ScriptedApi,
) -> None:
    api.on("DELETE", "/v1/stop/abc123", Reply(200, {}, delay=0.5))
    async with ApiClient("canary-t", base_url=api.url, timeouts=Timeouts(total=1)) as client:
        stops = (client.deployments.stop("abc123") for _ in range(350))
        await asyncio.gather(*stops)  # a hundred at a time, so the last ones start after 1.5 s

    assert len(api.requests) == 350


async def test_while_every_connection_hangs_no_permits_are_saved_up(
    api: ScriptedApi,
) -> None:
    answered = asyncio.Event()
    api.on(*DEPLOY, Reply(202, {"request_id": "r1"}, after=answered))
    async with ApiClient(CANARY, base_url=api.url) as client:
        deploys = [asyncio.create_task(deploy(client)) for _ in range(250)]
        await asyncio.sleep(10)  # long enough for all to get a permit
        assert len(api.requests) == 100
        answered.set()
        await asyncio.gather(*deploys)

    times = [request.at for request in api.requests]
    assert len(times) == 250
    assert min(later - sooner for sooner, later in zip(times, times[40:], strict=False)) > 1


async def test_max_wait_holds_for_the_wait_for_a_connection_too(
    api: ScriptedApi,
) -> None:
    answered = asyncio.Event()
    api.on(*STATUS, attrs.evolve(SEEN, after=answered))
    async with ApiClient(
        CANARY, base_url=api.url, limits=NO_LIMITS, max_wait=0.5, retries=ONCE
    ) as client:
        reads = [asyncio.create_task(client.deployments.get("r1")) for _ in range(100)]
        await api.until_asked(*STATUS, 100)
        began = loop_time()
        with pytest.raises(LimitReached, match="all connections are in use") as caught:
            await client.deployments.get("r1")

        assert loop_time() - began == pytest.approx(0.5, abs=0.01)
        assert (caught.value.path, caught.value.request_id) == ("/v1/status/r1", "r1")
        answered.set()
        await asyncio.gather(*reads)


async def test_a_call_cancelled_while_it_waits_for_a_permit_releases_its_connection(
    api: ScriptedApi,
) -> None:
    answered = asyncio.Event()
    api.on(*STATUS, attrs.evolve(SEEN, after=answered))
    limits = {"get_deployment": 1000.0}
    async with ApiClient(CANARY, base_url=api.url, limits=limits, retries=ONCE) as client:
        reads = [asyncio.create_task(client.deployments.get("r1")) for _ in range(101)]
        await asyncio.sleep(1)  # all have their permits, and one of them no connection
        client.limits.on_rate_limited(GET_DEPLOYMENT, 60)
        answered.set()
        await asyncio.gather(*reads[:-1])
        reads[-1].cancel()  # with a connection, and no permit
        await asyncio.wait(reads)
        free = [client._transport.connection_slots(GET_DEPLOYMENT).acquire() for _ in range(100)]

        assert await asyncio.wait_for(asyncio.gather(*free), 1) == [True] * 100
