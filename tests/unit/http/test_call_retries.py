"""Which calls the client sends again, when, and how often; counted at a scripted server."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest
from scripted_api import Reply, ScriptedApi
from scripted_calls import CANARY, DEPLOY, LOST, NO_LIMITS, SEEN, STATUS, STOP, deploy

from edgegap_async.api.models import Stopped
from edgegap_async.api.operations import GET_DEPLOYMENT
from edgegap_async.errors import (
    BadRequest,
    CallError,
    Gone,
    NoAnswer,
    NotFound,
    RateLimited,
    ServerError,
    Unauthorized,
    UnreadableAnswer,
)
from edgegap_async.http.api_client import ApiClient
from edgegap_async.http.rate_limits import Limits
from edgegap_async.http.retries import RetryPolicy
from edgegap_async.http.transport import Timeouts

pytestmark = pytest.mark.virtual


# ── retries ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "first", [Reply(500), Reply(503, b"<html>"), Reply(429), LOST, Reply(200, b"not JSON")]
)
async def test_row_10_11_16_a_read_is_retried(
    api: ScriptedApi, client: ApiClient, first: Reply
) -> None:
    api.on(*STATUS, first, SEEN)

    assert (await client.deployments.get("r1")).current_status.is_ready
    assert len(api.requests) == 2


@pytest.mark.parametrize(
    ("reply", "error", "attempts"),
    [
        (Reply(500), ServerError, 4),
        (Reply(429), RateLimited, 4),
        (LOST, NoAnswer, 4),
        (Reply(200, b"not JSON"), UnreadableAnswer, 2),
        (Reply(401), Unauthorized, 1),
        (Reply(404), NotFound, 1),
        (Reply(400), NotFound, 1),
    ],
)
async def test_a_read_fails_after_as_many_attempts_as_make_sense(
    api: ScriptedApi, client: ApiClient, reply: Reply, error: type[CallError], attempts: int
) -> None:
    api.on(*STATUS, reply)
    with pytest.raises(error) as caught:
        await client.deployments.get("r1")

    assert type(caught.value) is error
    assert caught.value.attempts == attempts
    assert caught.value.request_id == "r1"
    assert client.requests_sent == attempts
    if reply is not LOST:  # aiohttp repeats a GET by itself
        assert len(api.requests) == attempts


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (Reply(500), ServerError),
        (Reply(502, b"<html>"), ServerError),
        (LOST, NoAnswer),
        (Reply(202, b"not JSON"), UnreadableAnswer),
        (Reply(202), UnreadableAnswer),
        (Reply(302, headers={"Location": "/"}), UnreadableAnswer),
        (Reply(400), BadRequest),
    ],
)
async def test_a_deploy_that_may_have_been_accepted_is_never_sent_twice(
    api: ScriptedApi, client: ApiClient, reply: Reply, error: type[CallError]
) -> None:
    api.on(*DEPLOY, reply)
    with pytest.raises(error):
        await deploy(client)

    assert len(api.requests) == 1


async def test_row_13_a_deploy_that_was_refused_for_the_limit_is_sent_again(
    api: ScriptedApi, client: ApiClient
) -> None:
    api.on(*DEPLOY, Reply(429), Reply(202, {"request_id": "r1"}))

    assert await deploy(client) == "r1"
    assert len(api.requests) == 2


async def test_a_deploy_that_never_went_out_is_tried_again(api: ScriptedApi) -> None:
    class LateHost(aiohttp.ThreadedResolver):
        left = 2

        async def resolve(self, *arguments: Any, **options: Any) -> Any:
            self.left -= 1
            if self.left >= 0:
                raise OSError("no such host")
            return await super().resolve(*arguments, **options)

    api.on(*DEPLOY, Reply(202, {"request_id": "r1"}))
    connector = aiohttp.TCPConnector(resolver=LateHost(), use_dns_cache=False)
    url = api.url.replace("127.0.0.1", "localhost")
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        ApiClient(CANARY, base_url=url, session=session) as client,
    ):
        assert await deploy(client) == "r1"
        assert client.requests_sent == 3

    assert len(api.requests) == 1


async def test_row_14_retry_after_is_waited_for(api: ScriptedApi, client: ApiClient) -> None:
    api.on(*STATUS, Reply(429, headers={"Retry-After": "7"}), SEEN)
    await client.deployments.get("r1")
    first, second = api.requests

    assert 7 <= second.at - first.at <= 7.3


async def test_others_wait_too_after_a_429(api: ScriptedApi, client: ApiClient) -> None:
    api.on(*STATUS, Reply(429, headers={"Retry-After": "7"}), SEEN)
    first = asyncio.create_task(client.deployments.get("r1"))
    await api.until_asked(*STATUS)
    await asyncio.sleep(0.1)
    await client.deployments.get("r1")
    await first

    assert api.requests[1].at - api.requests[0].at >= 7


async def test_a_policy_of_one_attempt_never_retries(api: ScriptedApi) -> None:
    api.on(*STATUS, Reply(500))
    async with ApiClient("canary-t", base_url=api.url, retries=RetryPolicy(attempts=1)) as client:
        with pytest.raises(ServerError):
            await client.deployments.get("r1")

    assert len(api.requests) == 1


async def test_an_outage_is_not_multiplied_by_the_retries_of_many_calls(api: ScriptedApi) -> None:
    api.on(*STATUS, Reply(500))
    policy = RetryPolicy(budget=10)
    async with ApiClient("canary-t", base_url=api.url, retries=policy, limits=NO_LIMITS) as client:
        outcomes = await asyncio.gather(
            *(client.deployments.get("r1") for _ in range(100)), return_exceptions=True
        )

    assert all(isinstance(outcome, ServerError) for outcome in outcomes)
    assert len(api.requests) == 100 + 10


async def test_a_stop_is_retried_even_without_a_budget(api: ScriptedApi) -> None:
    api.on("DELETE", "/v1/stop/r1", Reply(500), Reply(500), Reply(200))
    async with ApiClient("canary-t", base_url=api.url, retries=RetryPolicy(budget=0)) as client:
        await client.deployments.stop("r1")

    assert len(api.requests) == 3


async def test_an_error_says_how_long_the_client_waited_between_attempts(
    api: ScriptedApi, client: ApiClient
) -> None:
    api.on(*STATUS, Reply(429, headers={"Retry-After": "7"}), Reply(401))
    with pytest.raises(Unauthorized) as caught:
        await client.deployments.get("r1")

    assert caught.value.attempts == 2
    assert 7 <= caught.value.waited <= 7.3


async def test_each_attempt_has_its_own_timeout(api: ScriptedApi) -> None:
    api.on(*STATUS, Reply(delay=5), SEEN)
    async with ApiClient("canary-t", base_url=api.url, timeouts=Timeouts(total=2)) as client:
        await client.deployments.get("r1")

    first, second = api.requests
    assert 2 <= second.at - first.at <= 2.3


async def test_a_retry_takes_a_permit_too(api: ScriptedApi) -> None:
    api.on(*STATUS, Reply(500), SEEN)
    limits = Limits({"get_deployment": 0.1})
    async with ApiClient("canary-t", base_url=api.url, limits=limits) as client:
        await client.deployments.get("r1")

    assert api.requests[1].at - api.requests[0].at >= 10


async def test_the_retry_deadline_starts_with_the_first_attempt(api: ScriptedApi) -> None:
    api.on(*STATUS, Reply(503), SEEN)
    client = ApiClient(
        CANARY,
        base_url=api.url,
        limits={"get_deployment": 0.1},
        retries=RetryPolicy(deadline=15),
    )
    async with client:
        await client.limits.acquire(GET_DEPLOYMENT)
        await client.limits.acquire(GET_DEPLOYMENT)  # so that the next waits for 20 s
        seen = await client.deployments.get("r1")

    assert (seen.attempts, seen.current_status.is_ready) == (2, True)


# ── a DELETE whose first answer was lost ──────────────────────────────────────────────────────────


@pytest.mark.parametrize("then", [410, 404, 400])
@pytest.mark.parametrize("first", [LOST, Reply(500)], ids=["lost", "500"])
async def test_row_08_a_repeated_stop_of_a_stopped_deployment_succeeds(
    api: ScriptedApi, client: ApiClient, first: Reply, then: int
) -> None:
    api.on(*STOP, first, Reply(then))

    assert await client.deployments.stop("r1") == Stopped()
    assert len(api.requests) == 2


async def test_a_tag_that_is_gone_after_a_lost_answer_was_deleted(
    api: ScriptedApi, client: ApiClient
) -> None:
    api.on("DELETE", "/v1/deployments/r1/tags/eu", LOST, Reply(404))
    await client.tags.delete("r1", "eu")

    assert len(api.requests) == 2


@pytest.mark.parametrize(("status", "error"), [(410, Gone), (404, NotFound), (400, NotFound)])
@pytest.mark.parametrize("before", [(), (Reply(429),), (Reply(429), Reply(429))])
async def test_row_20_a_stop_of_what_is_not_there_fails(
    api: ScriptedApi,
    client: ApiClient,
    before: tuple[Reply, ...],
    status: int,
    error: type[CallError],
) -> None:
    api.on(*STOP, *before, Reply(status))
    with pytest.raises(error):
        await client.deployments.stop("r1")

    assert len(api.requests) == len(before) + 1


async def test_a_read_of_what_is_gone_after_a_lost_answer_fails(
    api: ScriptedApi, client: ApiClient
) -> None:
    api.on(*STATUS, LOST, Reply(404))
    with pytest.raises(NotFound):
        await client.deployments.get("r1")
