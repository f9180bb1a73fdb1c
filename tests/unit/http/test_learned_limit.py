"""An account that allows fewer calls than documented. In virtual time."""

from __future__ import annotations

import asyncio

import pytest
from limited_calls import most_in_one_second
from slow_connections import StrictServer, call_often

from edgegap_async.api.operations import DEPLOY
from edgegap_async.concurrency import loop_time
from edgegap_async.http.api_client import ApiClient
from edgegap_async.http.learned_limit import LearnedLimit
from edgegap_async.http.rate_limits import Limits

pytestmark = pytest.mark.virtual


def client_of(server: StrictServer) -> ApiClient:
    return ApiClient("canary-t", base_url=server.url)


@pytest.mark.parametrize("allowed", [35, 30, 20, 10, 5])
async def test_an_account_that_allows_fewer_deploys_is_used_within_a_fifth_of_the_ideal(
    allowed: int,
) -> None:
    async with StrictServer(limits={"deploy": allowed}) as server, client_of(server) as client:
        began = loop_time()
        await call_often(client, "deploy", 400)

    assert loop_time() - began < 1.2 * 400 / allowed
    # A few until the limit is known, and then one for each attempt to raise it.
    assert server.refused <= 14


async def test_no_deploy_fails_on_an_account_that_allows_one_a_second() -> None:
    async with StrictServer(limits={"deploy": 1}) as server, client_of(server) as client:
        began = loop_time()
        await call_often(client, "deploy", 60)

    assert loop_time() - began < 1.2 * 60
    assert server.refused <= 20  # nine of the first burst, and the attempts to raise it


async def test_a_low_limit_is_known_after_two_refusals_and_probed_less_and_less() -> None:
    async with StrictServer(limits={"deploy": 30}) as server, client_of(server) as client:
        await call_often(client, "deploy", 150)
        assert server.refused <= 2
        assert most_in_one_second(server.arrivals["deploy"][-100:]) == 30
        await call_often(client, "deploy", 1650)

    # In the 60 s that follow, the limit is raised after 5, 15 and 35 s.
    assert server.refused <= 5


@pytest.mark.parametrize("allowed", [30, 20, 10])
async def test_a_low_limit_is_learned_from_refusals_with_a_retry_after(allowed: int) -> None:
    async with (
        StrictServer(limits={"deploy": allowed}, retry_after="1") as server,
        client_of(server) as client,
    ):
        began = loop_time()
        await call_often(client, "deploy", 400)

    assert loop_time() - began < 1.25 * 400 / allowed  # each refusal costs a second
    assert server.refused <= 12


async def test_the_rate_recovers_when_the_account_allows_more_again() -> None:
    async with StrictServer(limits={"deploy": 1}) as server, client_of(server) as client:
        await call_often(client, "deploy", 20)
        assert client.limits.snapshot()["deploy"].rate < 2
        server.limits["deploy"] = 40
        refused = server.refused
        await call_often(client, "deploy", 1200)

        assert client.limits.snapshot()["deploy"].rate == pytest.approx(39)
    arrivals = server.arrivals["deploy"]
    assert most_in_one_second(arrivals) <= 40
    assert arrivals[-1] - arrivals[-400] < 400 / 38
    assert server.refused - refused <= 1


async def test_a_single_refusal_of_a_call_does_not_lower_the_limit() -> None:
    limits = Limits()
    await limits.acquire(DEPLOY)
    limits.on_rate_limited(DEPLOY, 0, loop_time())
    await asyncio.sleep(1)

    began = loop_time()
    await asyncio.gather(*(limits.acquire(DEPLOY) for _ in range(100)))
    assert loop_time() - began < 3


async def test_the_refusals_of_a_call_that_was_sent_before_the_pause_do_not_lower_the_limit() -> (
    None
):
    limits = Limits()
    began = loop_time()
    for _ in range(10):
        await limits.acquire(DEPLOY)
    for _ in range(5):
        limits.on_rate_limited(DEPLOY, 0, began)

    assert limits.snapshot()["deploy"].rate > 0.9 * 39


@pytest.mark.parametrize("documented", [0.3, 1.0, 2.0, 40.0])
async def test_a_limit_is_never_learned_to_be_nothing(documented: float) -> None:
    learned, now = LearnedLimit(documented), 0.0
    for _ in range(50):
        now += 1
        learned.on_sent(now)
        learned.on_refused(now + 0.01, now, pause=(now - 0.6, now - 0.5), rate_factor=0.8)

    assert learned.at(now + 0.02) == min(1, 0.8 * documented)
    assert learned.at(now + 200) == documented


async def test_refusals_of_unknown_calls_change_nothing() -> None:
    learned = LearnedLimit(40)
    assert not learned.on_refused(1, None)
    learned.on_not_sent()
    assert learned.at(1) == 40
