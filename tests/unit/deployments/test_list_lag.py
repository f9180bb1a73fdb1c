"""What a lost answer costs: searches are as short as lists have proved to be fast."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from arena import PLAYERS, arena_client, arena_cloud, becomes_true
from emulator_record import alive, requests_by_operation

from edgegap_async import EdgegapClient
from edgegap_async.concurrency import loop_time
from edgegap_async.emulator import Drop, Emulator, Fault, Hide, Respond

pytestmark = pytest.mark.virtual

LIST_DELAY = 10.0  # seconds, as by default


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with arena_cloud() as emulator:
        yield emulator


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[EdgegapClient]:
    async with arena_client(emulator, list_delay=LIST_DELAY) as client:
        yield client


async def measure(client: EdgegapClient, emulator: Emulator, after: float = 0.0) -> None:
    """Deploys three servers, which a list shows some time later."""
    for _ in range(3):
        server = await client.deploy("arena", "v1", users=PLAYERS)
        await asyncio.sleep(after)
        assert server.request_id in {row.request_id async for row in client.deployments.list()}
        await server.stop()
    await becomes_true(lambda: not alive(emulator))


async def seconds_of_a_deploy(client: EdgegapClient) -> float:
    began = loop_time()
    await client.deploy("arena", "v1", users=PLAYERS)
    return loop_time() - began


async def test_a_503_that_made_nothing_takes_the_list_delay_before_the_first_lists(
    emulator: Emulator, client: EdgegapClient
) -> None:
    emulator.faults.add(Fault("deploy", Respond(503), when="read"))

    assert LIST_DELAY <= await seconds_of_a_deploy(client) < LIST_DELAY + 1


@pytest.mark.parametrize("status", [500, 503])
@pytest.mark.parametrize(("after", "expected"), [(0.0, 1.0), (1.0, 3.0), (2.5, 7.5), (5.0, 10.0)])
async def test_after_lists_that_were_fast_it_takes_three_times_their_lag(
    emulator: Emulator, client: EdgegapClient, after: float, expected: float, status: int
) -> None:
    await measure(client, emulator, after)
    emulator.faults.add(Fault("deploy", Respond(status), when="read"))

    assert await seconds_of_a_deploy(client) == pytest.approx(expected, abs=0.5)
    assert len(alive(emulator)) == 1


@pytest.mark.parametrize("effect", [Drop(), Respond(502), Respond(504), Respond(202, "{")], ids=str)
async def test_other_lost_answers_take_the_list_delay(
    emulator: Emulator, client: EdgegapClient, effect: Drop | Respond
) -> None:
    """The API may still be working on the deploy."""
    await measure(client, emulator)
    emulator.faults.add(Fault("deploy", effect, when="read"))

    assert await seconds_of_a_deploy(client) >= LIST_DELAY


@pytest.mark.parametrize(("seconds", "expected"), [("4", 4.0), ("60", 10.0)])
async def test_the_deploy_is_not_sent_again_earlier_than_the_api_allows(
    emulator: Emulator, client: EdgegapClient, seconds: str, expected: float
) -> None:
    await measure(client, emulator)
    busy = Respond(503, headers={"Retry-After": seconds})
    emulator.faults.add(Fault("deploy", busy, when="read"))

    assert await seconds_of_a_deploy(client) == pytest.approx(expected, abs=0.5)


async def test_measurements_count_for_ten_minutes(
    emulator: Emulator, client: EdgegapClient
) -> None:
    await measure(client, emulator)
    await asyncio.sleep(600)
    emulator.faults.add(Fault("deploy", Respond(503), when="read"))

    assert await seconds_of_a_deploy(client) >= LIST_DELAY


async def test_a_list_long_after_a_deploy_measures_nothing(
    emulator: Emulator, client: EdgegapClient
) -> None:
    await measure(client, emulator)
    await client.deploy("arena", "v1", users=PLAYERS)
    await asyncio.sleep(60)
    assert [row async for row in client.deployments.list()]
    emulator.faults.add(Fault("deploy", Respond(503), when="read"))

    assert await seconds_of_a_deploy(client) == pytest.approx(1.0, abs=0.5)


async def test_a_deployment_that_a_slower_list_shows_after_the_second_deploy_is_stopped(
    emulator: Emulator, client: EdgegapClient
) -> None:
    await measure(client, emulator)
    emulator.faults.add(
        Fault("deploy", Respond(503)), Fault("list_deployments", Hide(6.0), times=None)
    )
    server = await client.deploy("arena", "v1", users=PLAYERS)
    assert len(alive(emulator)) == 2
    await asyncio.sleep(LIST_DELAY)

    assert alive(emulator) == {server.request_id}


async def test_lists_that_have_become_slower_make_later_searches_longer(
    emulator: Emulator, client: EdgegapClient
) -> None:
    await measure(client, emulator)
    emulator.faults.add(
        Fault("deploy", Respond(503), times=2), Fault("list_deployments", Hide(2.5), times=None)
    )
    await client.deploy("arena", "v1", users=PLAYERS)
    await asyncio.sleep(LIST_DELAY)
    emulator.faults.clear()
    emulator.faults.add(Fault("deploy", Respond(503), when="read"))

    assert await seconds_of_a_deploy(client) > 5


async def test_a_caller_that_is_cancelled_meanwhile_leaves_the_search_the_list_delay(
    emulator: Emulator, client: EdgegapClient
) -> None:
    await measure(client, emulator)
    emulator.faults.add(
        Fault("deploy", Respond(503)), Fault("list_deployments", Hide(6.0), times=None)
    )
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await client.deploy("arena", "v1", users=PLAYERS)
    await asyncio.sleep(LIST_DELAY)

    assert alive(emulator) == set()
    assert requests_by_operation(emulator)["deploy"] == 4


# ── close ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("when", ["read", "acted"])
async def test_close_does_not_wait_for_a_search_whose_deploy_has_its_deployment_and_says_so(
    emulator: Emulator, client: EdgegapClient, when: str, caplog: pytest.LogCaptureFixture
) -> None:
    emulator.faults.add(Fault("deploy", Respond(503), when=when))  # type: ignore[arg-type]
    server = await client.deploy("arena", "v1", users=PLAYERS)
    lists = requests_by_operation(emulator)["list_deployments"]
    began = loop_time()
    await client.close()

    assert loop_time() - began < 0.5
    assert requests_by_operation(emulator)["list_deployments"] - lists <= 2
    assert alive(emulator) == {server.request_id}
    [tag] = [name for name in emulator.deployments[server.request_id].tags if name[:3] == "op-"]
    said = [line for line in caplog.messages if "may go on running" in line]
    assert len(said) == (when == "read")  # else the list has shown the first deployment
    assert all(f"client.recover('{tag}')" in line for line in said)


async def test_the_last_list_of_close_shows_the_surplus_deployment(
    emulator: Emulator, client: EdgegapClient
) -> None:
    emulator.faults.add(
        Fault("deploy", Respond(503)), Fault("list_deployments", Hide(11.0), times=None)
    )
    server = await client.deploy("arena", "v1", users=PLAYERS)
    assert len(alive(emulator)) == 2
    await asyncio.sleep(2)
    emulator.faults.clear()
    await client.close()

    assert alive(emulator) == {server.request_id}


async def test_close_waits_for_the_search_for_a_cancelled_deploy(
    emulator: Emulator, client: EdgegapClient
) -> None:
    emulator.faults.add(Fault("deploy", Drop()), Fault("list_deployments", Hide(6.0), times=None))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await client.deploy("arena", "v1", users=PLAYERS)
    await client.close()

    assert alive(emulator) == set()
