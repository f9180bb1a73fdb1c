"""A program that cancels the tasks of a pool, and goes on to use the pool."""

from __future__ import annotations

import asyncio

import pytest
from arena import arena_client, arena_pool, becomes_true, crash
from cancelled_tasks import cancel_library_tasks
from emulator_record import alive, requests_by_operation

from edgegap_async import DeploymentHandle, EdgegapClient
from edgegap_async.emulator import Emulator

pytestmark = pytest.mark.virtual

TASKS = [
    *("ServerPool._deploy", "PoolMaintenance.run", "Batch._run", "JobRunner._run_job"),
    "",  # all of them
]


@pytest.mark.parametrize("after", [0.0, 1.0, 3.0], ids=["at once", "deploying", "filled"])
@pytest.mark.parametrize("name", TASKS)
async def test_row_74_a_pool_whose_tasks_the_program_cancels_goes_on(
    emulator: Emulator, client: EdgegapClient, name: str, after: float
) -> None:
    async with arena_pool(client, min_ready=2, poll_interval=1) as pool:
        if after:
            await asyncio.sleep(after)
        for _ in range(3):
            cancel_library_tasks(*filter(None, [name]))
            await asyncio.sleep(0.01)
        await pool.filled(timeout=20)
        async with pool.allocate(timeout=20) as server:
            assert server.request_id in alive(emulator)
            await pool.filled(timeout=20)
        await becomes_true(lambda: pool.stats.ready == len(alive(emulator)) == 2)
        crash(emulator, min(alive(emulator)))
        await becomes_true(lambda: pool.stats.lost == 1)
        await becomes_true(lambda: pool.stats.ready == len(alive(emulator)) == 2)
        assert (pool.stats.starting, pool.stats.failed) == (0, 0)

    assert alive(emulator) == set()


async def test_row_74_a_caller_that_is_spared_gets_a_server(
    emulator: Emulator, client: EdgegapClient
) -> None:
    async with arena_pool(client, min_ready=0) as pool:
        allocating = asyncio.ensure_future(pool.allocate(timeout=30))
        await becomes_true(lambda: pool.stats.starting)
        cancel_library_tasks("ServerPool._deploy", "Batch._run", "JobRunner._run_job")
        server = await allocating
        assert alive(emulator) == {server.request_id}
        await server.stop()


async def test_row_74_the_delay_after_a_failed_deploy_is_kept(
    emulator: Emulator, client: EdgegapClient
) -> None:
    async def refuse(_: DeploymentHandle) -> bool:
        return False

    async with arena_pool(client, min_ready=1, playable=refuse, timeout_each=3) as pool:
        await becomes_true(lambda: pool.stats.failed == 1)
        for _ in range(2):
            await becomes_true(lambda: pool.stats.starting)
            cancel_library_tasks("ServerPool._deploy")
            await asyncio.sleep(0.01)
        await becomes_true(lambda: pool.stats.failed == 3)
        assert requests_by_operation(emulator)["deploy"] <= 6


async def test_row_74_a_server_of_an_earlier_run_is_recovered_although_the_task_is_cancelled(
    emulator: Emulator,
) -> None:
    async with arena_client(emulator, owner="mm-1") as first:
        left = await first.deploy("arena", "v1", users=[(48.9, 2.4)], tags=["pool-default"])
    async with (
        arena_client(emulator, owner="mm-1") as client,
        arena_pool(client, min_ready=1) as pool,
    ):
        for _ in range(3):
            assert cancel_library_tasks("PoolMaintenance._adopt")
            await asyncio.sleep(1)
        server = await pool.allocate(timeout=20)

        assert server.request_id == left.request_id


async def test_row_74_the_tag_of_an_allocated_server_is_renamed_although_the_task_is_cancelled(
    emulator: Emulator,
) -> None:
    async with arena_client(emulator, owner="mm-1") as client:
        async with arena_pool(client, min_ready=1, poll_interval=60) as pool:
            server = await pool.allocate(timeout=20)
            assert cancel_library_tasks("PoolMaintenance._rename_tag")
            await asyncio.sleep(0)
        tags = emulator.cloud.deployments[server.request_id].tags
        await server.stop()

    assert "pool-default" not in tags
