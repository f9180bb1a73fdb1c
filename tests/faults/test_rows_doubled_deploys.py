"""A proxy sends a deploy twice, and the client gets one clean answer. Row 69.

The client sends no request for it: it reads the tags of the rows in lists that it needs anyway.
"""

from __future__ import annotations

import asyncio
import logging
import random

import pytest
from emulator_record import living
from log_capture import logged_errors
from one_server import DEPLOY, LIST, PLAYERS
from scripted_api import Reply, deployment
from tagged_api import TaggedApi, new_client
from virtual_clock import run_virtually

from edgegap_async import DeploymentHandle, EdgegapClient, PollingPolicy
from edgegap_async.emulator import (
    ActTwice,
    Application,
    AppPort,
    Delay,
    Drop,
    Emulator,
    Fault,
    Hide,
    Simulation,
    Timings,
)
from edgegap_async.errors import Unprocessable

pytestmark = pytest.mark.virtual

ARENA = Application(name="arena", version="v1", argv=["none"], ports=[AppPort("game")])
LOGGER = "edgegap_async.deployments.ownership"
DOUBLED = Reply(202, {"request_id": "server2"})


def new_emulator(*, list_accepts_filters: bool = True) -> Emulator:
    return Emulator(
        [ARENA],
        timings=Timings(seeking=5.0, deploying=10.0),
        limits=False,
        metrics_interval=3600.0,
        simulate=Simulation(seed=1),
        list_accepts_filters=list_accepts_filters,
    )


def a_client(emulator: Emulator) -> EdgegapClient:
    polling = PollingPolicy(first_delay=0.1, interval=0.5)
    return EdgegapClient(
        emulator.token, base_url=emulator.url, polling=polling, owner="matchmaker-1"
    )


async def deploy_some(
    client: EdgegapClient, emulator: Emulator
) -> tuple[list[DeploymentHandle], set[str]]:
    """Deploys six servers, and a proxy doubles two of the deploys; returns the surplus ids too."""
    emulator.faults.add(Fault("deploy", ActTwice(), skip=2, times=2))
    servers = [await client.deploy("arena", "v1", users=PLAYERS) for _ in range(6)]
    surplus = living(emulator) - {server.request_id for server in servers}
    assert len(surplus) == 2
    return servers, surplus


def stops_of(emulator: Emulator) -> list[str]:
    return sorted(
        request.path.rpartition("/")[2]
        for request in emulator.requests
        if request.operation == "stop_deployment"
    )


async def test_row_69_polls_that_show_a_surplus_server_stop_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with new_emulator(list_accepts_filters=False) as emulator, a_client(emulator) as client:
        servers, surplus = await deploy_some(client, emulator)
        with caplog.at_level(logging.WARNING, LOGGER):
            await asyncio.gather(*[server.wait_ready(60) for server in servers])
            await asyncio.sleep(30)

        assert client.poller.stats.list_mode == "by_page"
        assert living(emulator) == {server.request_id for server in servers}
        assert stops_of(emulator) == sorted(surplus)
    lines = [record.getMessage() for record in caplog.records if record.name == LOGGER]
    kept = {server.request_id for server in servers[2:4]}
    assert len(lines) == 2
    for ids in (surplus, kept):
        assert all(sum(one in line for line in lines) == 1 for one in ids)


async def test_row_69_recover_stops_a_surplus_server_that_filtered_polls_do_not_show() -> None:
    async with new_emulator() as emulator, a_client(emulator) as client:
        servers, surplus = await deploy_some(client, emulator)
        await asyncio.gather(*[server.wait_ready(60) for server in servers])
        assert living(emulator) >= surplus
        assert [found async for found in client.recover()] == []
        await asyncio.sleep(30)

        assert living(emulator) == {server.request_id for server in servers}
        assert stops_of(emulator) == sorted(surplus)


async def test_row_69_a_surplus_server_of_one_that_was_stopped_is_stopped() -> None:
    async with new_emulator() as emulator, a_client(emulator) as client:
        servers, surplus = await deploy_some(client, emulator)
        await asyncio.gather(*[server.wait_ready(60) for server in servers])
        await asyncio.gather(*[server.stop() for server in servers])
        assert living(emulator) >= surplus
        assert await client.reap() == ()
        await asyncio.sleep(30)

        assert living(emulator) == set()


async def servers_after_a_run(emulator: Emulator, seed: int) -> tuple[set[str], set[str]]:
    """Deploys twelve servers with doubled, lost, late and cancelled deploys, then reads a list.

    Returns:
        The ids that live, and those that the program has.
    """
    chance = random.Random(seed)
    for effect in (ActTwice(), ActTwice(), Drop(), Delay(chance.uniform(0.1, 3.0))):
        skip, times = chance.randrange(6), chance.choice((1, 2, 3))
        emulator.faults.add(Fault("deploy", effect, when="acted", skip=skip, times=times))
    hide = Hide(chance.choice((0.0, 1.0, 4.0)))
    emulator.faults.add(Fault("list_deployments", hide, times=None))
    async with a_client(emulator) as client:
        deploys = []
        for _ in range(12):
            deploys.append(asyncio.create_task(client.deploy("arena", "v1", users=PLAYERS)))
            await asyncio.sleep(chance.choice((0.0, 0.1, 2.0)))
            if chance.random() < 0.2:
                chance.choice(deploys).cancel()
        outcomes = await asyncio.gather(*deploys, return_exceptions=True)
        servers = [one for one in outcomes if isinstance(one, DeploymentHandle)]
        await asyncio.gather(*[server.wait_ready(60) for server in servers])
        await asyncio.sleep(60)
        assert [found async for found in client.recover()] == []
        await asyncio.sleep(60)
        return living(emulator), {server.request_id for server in servers}


@pytest.mark.timeout(0)
def test_row_69_no_mix_of_doubled_lost_and_cancelled_deploys_leaves_a_server(rounds: int) -> None:
    async def run(seed: int) -> tuple[set[str], set[str]]:
        async with new_emulator() as emulator:
            return await servers_after_a_run(emulator, seed)

    for seed in range(rounds):
        with logged_errors() as errors:
            living_ids, known = run_virtually(run(seed))
        assert (living_ids, errors) == (known, []), f"seed {seed}"


async def read_list(client: EdgegapClient) -> list[str]:
    ids = [row.request_id async for row in client.deployments.list()]
    await asyncio.sleep(1)
    return ids


async def test_row_69_a_deploy_in_progress_whose_row_another_wait_reads_is_not_stopped() -> None:
    accepted = Reply(202, {"request_id": "server1"}, delay=20)
    async with TaggedApi(answers=[accepted], made=1) as api, new_client(api) as client:
        for request_id in ("first", "second", "third"):
            api.on("GET", f"/v1/status/{request_id}", deployment("DEPLOYING", request_id))
        waits = [
            asyncio.create_task(client.handle(request_id).wait_ready(None))
            for request_id in ("first", "second", "third")
        ]
        deploying = asyncio.create_task(client.deploy("arena", "v1", users=PLAYERS))
        await api.until_asked(*DEPLOY)
        listed = len(api.asked(*LIST))
        await asyncio.sleep(19)
        assert not deploying.done()
        assert len(api.asked(*LIST)) > listed  # each shows the row
        server = await deploying
        await asyncio.sleep(19)

        assert api.running == [server.request_id] == ["server1"]
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)


async def test_row_69_a_surplus_server_is_stopped_once() -> None:
    async with TaggedApi(answers=[DOUBLED], made=2) as api, new_client(api) as client:
        await client.deploy("arena", "v1", users=PLAYERS)
        await asyncio.gather(*[read_list(client) for _ in range(5)])

        assert api.running == ["server2"]
        assert stops_in(api) == 1


def stops_in(api: TaggedApi) -> int:
    return sum(request.method == "DELETE" for request in api.requests)


async def test_row_69_the_surplus_server_of_a_refused_deploy_is_stopped() -> None:
    refused = Reply(422, {"message": "no location", "request_id": "server2"})
    async with TaggedApi(answers=[refused], made=2) as api, new_client(api) as client:
        with pytest.raises(Unprocessable):
            await client.deploy("arena", "v1", users=PLAYERS)
        await read_list(client)

        assert api.running == ["server2"]  # the caller decides on it


async def test_a_server_that_the_program_has_a_handle_of_is_not_surplus() -> None:
    async with TaggedApi(answers=[DOUBLED], made=2) as api, new_client(api) as client:
        await client.deploy("arena", "v1", users=PLAYERS)
        adopted = client.handle("server1")
        await read_list(client)

        assert api.running == [adopted.request_id, "server2"]


async def test_a_server_with_the_tags_of_another_one_is_not_surplus() -> None:
    async with TaggedApi(answers=[DOUBLED], made=2) as api, new_client(api) as client:
        await client.deploy("arena", "v1", users=PLAYERS)
        listed_at, row = api.rows["server1"]
        api.rows["server1"] = listed_at, {**row, "tags": [*row["tags"], "op-abcdef12345678901"]}
        await read_list(client)

        assert api.running == ["server1", "server2"]


async def test_a_row_whose_tag_is_the_id_of_a_known_server_is_not_surplus() -> None:
    async with TaggedApi(answers=[DOUBLED], made=1) as api, new_client(api) as client:
        server = await client.deploy("arena", "v1", users=PLAYERS)
        api.on("DELETE", f"/v1/stop/{server.request_id}", Reply())
        await server.stop()
        api.rows["server3"] = 0, {"request_id": "server3", "tags": [server.request_id]}
        await read_list(client)

        assert "server3" in api.running
