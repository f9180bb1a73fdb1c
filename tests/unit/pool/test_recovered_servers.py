"""What a pool does with the servers of a run that was killed."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from arena import arena_client, arena_pool, becomes_true
from emulator_record import alive, living, requests_by_operation

from edgegap_async import DeploymentHandle, EdgegapClient, Status
from edgegap_async.concurrency import loop_time
from edgegap_async.emulator import Delay, Drop, Emulator, Fault, Respond
from edgegap_async.emulator.effects import Effect
from edgegap_async.errors import Forbidden, InvalidRequest

pytestmark = pytest.mark.virtual


async def killed_run(emulator: Emulator, **settings: Any) -> tuple[set[str], set[str]]:
    """The ids of the ready and of the allocated servers of a run that stopped none of them."""
    emulator.faults.add(Fault("stop_deployment", Respond(403), when="unread", times=None))
    client = arena_client(emulator, owner="mm-1")
    allocated = set()
    with contextlib.suppress(ExceptionGroup):
        async with arena_pool(client, min_ready=3, **settings) as pool:
            for _ in range(2):
                allocated.add((await pool.allocate()).request_id)
            await becomes_true(lambda: pool.stats.ready == 3)
    await client.close()
    emulator.faults.clear()
    return living(emulator) - allocated, allocated


async def test_row_32_the_next_run_recovers_ready_servers_and_keeps_allocated_servers(
    emulator: Emulator,
) -> None:
    ready, allocated = await killed_run(emulator)
    deploys = requests_by_operation(emulator)["deploy"]
    async with arena_client(emulator, owner="mm-1") as client:
        async with arena_pool(client, min_ready=3) as pool:
            assert (pool.stats.starting, pool.stats.allocated) == (3, 2)
            await becomes_true(lambda: pool.stats.ready == 3)
            server = await pool.allocate(timeout=0.001)
            assert server.endpoint("game").port
            assert server.request_id in ready
        assert deploys <= requests_by_operation(emulator)["deploy"] <= deploys + 1

    assert alive(emulator) & (ready | allocated) == {server.request_id, *allocated}


async def test_row_32_the_next_pool_of_a_client_counts_what_the_last_one_left_in_use(
    emulator: Emulator,
) -> None:
    _, allocated = await killed_run(emulator)
    async with arena_client(emulator, owner="mm-1") as client:
        for _ in range(2):
            async with arena_pool(client, min_ready=3, max_total=3) as pool:
                await becomes_true(lambda: pool.stats.ready == 1)
                assert pool.stats.allocated == 2

    assert alive(emulator) == allocated


async def test_row_32_servers_of_another_version_are_stopped_by_the_next_run(
    emulator: Emulator,
) -> None:
    ready, allocated = await killed_run(emulator)
    async with (
        arena_client(emulator, owner="mm-1") as client,
        arena_pool(client, version="v2", min_ready=1) as pool,
    ):
        assert pool.stats.ready == 0
        await pool.allocate()
    assert not alive(emulator) & ready
    assert allocated <= alive(emulator)


async def test_row_32_servers_of_other_owners_and_pools_are_not_touched(emulator: Emulator) -> None:
    ready, allocated = await killed_run(emulator)
    for owner, name in (("mm-2", "default"), ("mm-1", "ranked"), (None, "default")):
        async with (
            arena_client(emulator, owner=owner) as client,
            arena_pool(client, min_ready=1, name=name) as pool,
        ):
            assert (pool.stats.ready, pool.stats.allocated) == (0, 0)

    assert ready | allocated <= alive(emulator)


async def test_row_32_a_recovered_server_is_not_allocated_before_it_is_playable(
    emulator: Emulator,
) -> None:
    ready, _ = await killed_run(emulator)

    async def fails_for_recovered(server: DeploymentHandle) -> None:
        if server.request_id in ready:
            raise OSError("no map")

    async with (
        arena_client(emulator, owner="mm-1") as client,
        arena_pool(client, playable=fails_for_recovered) as pool,
    ):
        assert (await pool.allocate(timeout=60)).request_id not in ready
        await becomes_true(lambda: not ready & alive(emulator))


async def test_row_32_a_recovered_server_that_is_not_ready_yet_is_waited_for(
    emulator: Emulator,
) -> None:
    ready, _ = await killed_run(emulator)
    statuses = {emulator.cloud.deployments[request_id].status for request_id in ready}
    assert statuses == {Status.READY}
    for request_id in ready:
        await emulator.cloud.stop_deployment(request_id=request_id)
    emulator.faults.add(Fault("stop_deployment", Respond(403), when="unread", times=None))
    async with (
        arena_client(emulator, owner="mm-1") as before,
        arena_pool(before, min_ready=3) as pool,
    ):
        await becomes_true(lambda: len(alive(emulator)) == 5)
        starting = alive(emulator)
        assert pool.stats.ready == 0
    emulator.faults.clear()
    deploys = requests_by_operation(emulator)["deploy"]
    async with (
        arena_client(emulator, owner="mm-1") as client,
        arena_pool(client, min_ready=3) as pool,
    ):
        server = await pool.allocate(timeout=30)
        assert server.request_id in starting
        assert requests_by_operation(emulator)["deploy"] <= deploys + 1


async def test_row_32_a_pool_can_be_entered_again_after_a_failure(emulator: Emulator) -> None:
    await killed_run(emulator)
    emulator.faults.add(
        Fault("list_deployments", Respond(403), when="unread"),
        Fault("get_deployment", Respond(403), when="unread", skip=1),
    )
    async with arena_client(emulator, owner="mm-1") as client:
        pool = arena_pool(client, min_ready=3)
        with pytest.raises(Forbidden):
            await pool.__aenter__()
        async with pool:
            servers = {(await pool.allocate(timeout=30)).request_id for _ in range(4)}

            assert len(servers) == 4
            assert servers <= alive(emulator)


async def test_row_32_servers_that_the_list_shows_late_are_recovered_by_a_later_check(
    emulator: Emulator,
) -> None:
    ready, allocated = await killed_run(emulator)
    emulator.faults.add(Fault("list_deployments", Respond(200, {"data": []}), when="unread"))
    async with (
        arena_client(emulator, owner="mm-1") as client,
        arena_pool(client, min_ready=3, max_total=7) as pool,
    ):
        assert pool.stats.allocated == 0
        await becomes_true(lambda: pool.stats.allocated == 2)
        await becomes_true(lambda: not pool.stats.starting)
        assert len(living(emulator)) <= 7
    assert alive(emulator) & (ready | allocated) == allocated


async def test_row_32_a_deploy_in_progress_is_not_recovered(
    emulator: Emulator,
) -> None:
    """The list shows the deployment before the deploy is answered."""
    emulator.faults.add(Fault("deploy", Delay(8), when="acted"))
    async with (
        arena_client(emulator, owner="mm-1") as client,
        arena_pool(client, min_ready=1, poll_interval=1) as pool,
    ):
        await becomes_true(lambda: alive(emulator))
        await asyncio.sleep(5)
        assert [found async for found in client.recover()] == []
        assert (pool.stats.starting, pool.stats.ready) == (1, 0)
        await becomes_true(lambda: pool.stats.ready)
        await asyncio.sleep(5)

        assert (pool.stats.starting, pool.stats.ready) == (0, 1)
        assert len(emulator.cloud.deployments) == 1


async def test_row_32_a_server_of_a_lost_answer_is_recovered_by_a_later_check(
    emulator: Emulator,
) -> None:
    async with arena_client(emulator, owner="mm-1", list_delay=0.5) as client:
        async with arena_pool(client, min_ready=1) as pool:
            emulator.faults.add(
                Fault("deploy", Drop(), when="acted", times=2),
                Fault("list_deployments", Respond(503), when="unread", times=8),
            )
            await becomes_true(lambda: pool.stats.failed)
            await becomes_true(lambda: pool.stats.ready == len(living(emulator)) > 1)
        assert alive(emulator) == set()


async def test_row_32_a_tag_renaming_that_failed_is_repeated(emulator: Emulator) -> None:
    emulator.faults.add(Fault("rename_tag", Respond(403), when="unread"))
    async with arena_client(emulator, owner="mm-1") as client, arena_pool(client) as pool:
        server = await pool.allocate()
        made = emulator.cloud.deployments[server.request_id]
        await becomes_true(lambda: requests_by_operation(emulator)["rename_tag"])
        assert "pool-default" in made.tags
        await becomes_true(lambda: "used-default" in made.tags)


async def test_a_tag_renaming_without_an_answer_delays_the_end_by_seconds_only(
    emulator: Emulator,
) -> None:
    emulator.faults.add(Fault("rename_tag", Delay(1000), when="unread", times=None))
    async with arena_client(emulator, owner="mm-1") as client:
        async with arena_pool(client) as pool:
            await pool.allocate()
            left_at = loop_time()
        assert loop_time() - left_at < 10


async def test_two_pools_of_one_name_cannot_share_a_client(client: EdgegapClient) -> None:
    second = arena_pool(client, version="v2")
    async with arena_pool(client), arena_pool(client, name="ranked"):
        with pytest.raises(InvalidRequest, match="pool-default"):
            await second.__aenter__()
    async with second:
        assert (await second.allocate()).status is Status.READY


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        (Respond(503), 15.0),
        (Respond(503), 400.0),
        (Respond(408), 15.0),
        (Respond(499), 15.0),
        (Respond(404, {"message": "no Route matched with those values"}), 15.0),
        (Respond(410, {"message": "Gone"}), 15.0),
        (Respond(403, "<html>Just a moment...</html>"), 15.0),
        (Drop(), 15.0),
    ],
)
async def test_row_77_servers_whose_status_cannot_be_read_for_a_time_are_kept(
    emulator: Emulator, answer: Effect, seconds: float
) -> None:
    ready, _ = await killed_run(emulator)
    fault = Fault("get_deployment", answer, when="unread", times=None)
    emulator.faults.add(fault)
    async with arena_client(emulator, owner="mm-1") as client, arena_pool(client, min_ready=3):
        await asyncio.sleep(seconds)
        emulator.faults.clear()
        await asyncio.sleep(90)

        assert ready <= alive(emulator)
        assert len(emulator.cloud.deployments) == 5


@pytest.mark.parametrize("settings", [{"on_limit": "raise"}, {"max_wait": 0.2}])
async def test_row_77_servers_of_a_program_that_does_not_wait_for_limits_are_kept(
    emulator: Emulator, settings: dict[str, Any]
) -> None:
    ready, _ = await killed_run(emulator)
    limits = {"get_deployment": 1.0, "list_deployments": 1.0}
    async with (
        arena_client(emulator, owner="mm-1", limits=limits, **settings) as client,
        arena_pool(client, min_ready=3),
    ):
        await asyncio.sleep(90)

        assert ready <= alive(emulator)
        assert len(emulator.cloud.deployments) == 5


async def test_row_77_a_server_that_the_api_refuses_to_show_is_not_used(
    emulator: Emulator,
) -> None:
    ready, _ = await killed_run(emulator)
    emulator.faults.add(Fault("get_deployment", Respond(422), when="unread", times=3))
    async with (
        arena_client(emulator, owner="mm-1") as client,
        arena_pool(client, min_ready=3) as pool,
    ):
        await becomes_true(lambda: pool.stats.ready == 3)
        await asyncio.sleep(10)

        assert not ready & alive(emulator)
