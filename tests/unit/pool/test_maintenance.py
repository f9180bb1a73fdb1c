"""Servers that die, expire or cannot be checked, and the end of the pool."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from arena import arena_client, arena_pool, becomes_true, crash
from emulator_record import alive, requests_by_operation

from edgegap_async import DeploymentHandle, EdgegapClient
from edgegap_async.concurrency import loop_time
from edgegap_async.emulator import Emulator, Fault, Respond
from edgegap_async.errors import ClientClosed, PoolEmpty

pytestmark = pytest.mark.virtual


async def test_leaving_the_block_stops_the_servers_that_were_not_allocated(
    emulator: Emulator, client: EdgegapClient
) -> None:
    async with arena_pool(client, min_ready=4) as pool:
        await becomes_true(lambda: pool.stats.ready == 4)
        allocated = [await pool.allocate() for _ in range(3)]
        await becomes_true(lambda: pool.stats.starting)

    assert alive(emulator) == {server.request_id for server in allocated}
    with pytest.raises(PoolEmpty, match="was left"):
        await pool.allocate()


async def test_callers_that_wait_when_the_block_is_left_get_an_error(client: EdgegapClient) -> None:
    async with arena_pool(client, min_ready=0) as pool:
        waiting = asyncio.create_task(pool.allocate().__aenter__())
        await asyncio.sleep(0.1)
    with pytest.raises(PoolEmpty, match="was left"):
        await waiting


async def test_row_31_closing_the_client_ends_the_pool(emulator: Emulator) -> None:
    client = arena_client(emulator)
    async with arena_pool(client, min_ready=3, max_total=4) as pool:
        await becomes_true(lambda: pool.stats.ready == 3)
        allocated = [await pool.allocate() for _ in range(4)]
        waiting = asyncio.create_task(pool.allocate().__aenter__())
        await asyncio.sleep(0.1)
        await client.close()
        with pytest.raises(ClientClosed):
            await waiting
        with pytest.raises(ClientClosed):
            await pool.allocate()

    assert alive(emulator) == {server.request_id for server in allocated}


async def test_row_31_closing_the_client_stops_the_servers_that_are_starting(
    emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    client = arena_client(emulator)
    async with arena_pool(client, min_ready=3):
        await becomes_true(lambda: len(alive(emulator)) == 3)
        await client.close()
    assert alive(emulator) == set()
    assert "may go on running" not in caplog.text


async def test_row_31_a_server_assigned_in_the_step_in_which_the_client_is_closed_is_not_allocated(
    emulator: Emulator,
) -> None:
    client = arena_client(emulator)
    is_ready = asyncio.Event()

    async def about_to_be_ready(_: DeploymentHandle) -> None:
        is_ready.set()

    async with arena_pool(client, min_ready=0, playable=about_to_be_ready) as pool:
        allocating = asyncio.ensure_future(pool.allocate())
        await is_ready.wait()
        while pool.stats.waiting:
            await asyncio.sleep(0)
        assert not allocating.done()
        await client.close()
        with pytest.raises(ClientClosed):
            await allocating
    assert len(emulator.cloud.deployments) == 1
    assert alive(emulator) == set()


async def test_a_dead_server_is_found_by_one_list_request_and_replaced(
    emulator: Emulator, client: EdgegapClient
) -> None:
    async with arena_pool(client, min_ready=5, poll_interval=10) as pool:
        await becomes_true(lambda: pool.stats.ready == 5)
        status_requests, list_requests = (
            requests_by_operation(emulator)[call] for call in ("get_deployment", "list_deployments")
        )
        await asyncio.sleep(100)
        assert requests_by_operation(emulator)["get_deployment"] == status_requests
        assert 9 <= requests_by_operation(emulator)["list_deployments"] - list_requests <= 11

        crashed, stopped = sorted(alive(emulator))[:2]
        crash(emulator, crashed)
        await client.handle(stopped).stop(wait=True)
        await becomes_true(lambda: pool.stats.lost == 2 and pool.stats.ready == 5)

        assert not {crashed, stopped} & alive(emulator)
        assert len(alive(emulator)) == 5
        servers = [await pool.allocate() for _ in range(5)]
        assert not {crashed, stopped} & {server.request_id for server in servers}


async def test_a_server_that_is_missing_in_the_list_is_kept_if_it_is_ready(
    emulator: Emulator, client: EdgegapClient
) -> None:
    async with arena_pool(client, min_ready=2, poll_interval=10) as pool:
        await becomes_true(lambda: pool.stats.ready == 2)
        emulator.faults.add(
            Fault("list_deployments", Respond(200, {"data": []}), when="unread", times=3)
        )
        await asyncio.sleep(45)

        assert (pool.stats.lost, pool.stats.ready) == (0, 2)


async def test_without_the_list_the_pool_requests_each_status(
    emulator: Emulator, client: EdgegapClient
) -> None:
    emulator.faults.add(Fault("list_deployments", Respond(403), when="unread", times=None))
    async with arena_pool(client, min_ready=1, max_total=2, poll_interval=10) as pool:
        allocated = await pool.allocate()
        await becomes_true(lambda: pool.stats.ready)
        [ended] = alive(emulator) - {allocated.request_id}
        await client.handle(ended).stop(wait=True)
        await allocated.stop(wait=True)
        await becomes_true(lambda: pool.stats.lost == 1 and pool.stats.allocated == 0)
        await becomes_true(lambda: pool.stats.ready)

        assert (await pool.allocate(timeout=0.001)).request_id in alive(emulator)


async def test_row_61_a_404_of_a_gateway_takes_no_server_from_the_pool(
    emulator: Emulator, client: EdgegapClient
) -> None:
    async with arena_pool(client, min_ready=2, poll_interval=10) as pool:
        await becomes_true(lambda: pool.stats.ready == 2)
        no_route = Respond(404, {"message": "no Route matched with those values"})
        emulator.faults.add(Fault("list_deployments", Respond(503), when="unread", times=4))
        emulator.faults.add(Fault("get_deployment", no_route, when="unread", times=8))
        await asyncio.sleep(60)

        assert requests_by_operation(emulator)["deploy"] == 2
        assert (pool.stats.lost, pool.stats.ready) == (0, 2)


async def test_a_check_that_fails_changes_nothing(
    emulator: Emulator, client: EdgegapClient
) -> None:
    async with arena_pool(client, min_ready=2, poll_interval=10) as pool:
        await becomes_true(lambda: pool.stats.ready == 2)
        for call in ("list_deployments", "get_deployment"):
            emulator.faults.add(Fault(call, Respond(403), when="unread", times=4))
        await asyncio.sleep(45)

        assert (pool.stats.lost, pool.stats.ready) == (0, 2)


async def test_an_answer_without_a_status_takes_no_server_from_the_pool(
    emulator: Emulator, client: EdgegapClient
) -> None:
    async with arena_pool(client, min_ready=2, poll_interval=10) as pool:
        await becomes_true(lambda: pool.stats.ready == 2)
        [one, _] = alive(emulator)
        null = Respond(200, {"request_id": one, "current_status": None})
        emulator.faults.add(
            Fault("list_deployments", Respond(200, {"data": []}), when="unread", times=3)
        )
        emulator.faults.add(Fault("get_deployment", null, when="unread", times=6))
        await asyncio.sleep(45)

        assert (pool.stats.lost, pool.stats.ready) == (0, 2)
        server = await pool.allocate()
        assert server.endpoint("game").port


async def test_expired_servers_beyond_min_ready_are_stopped(
    emulator: Emulator, client: EdgegapClient
) -> None:
    async with arena_pool(client, min_ready=1, max_idle=60) as pool:
        waiting = [asyncio.create_task(pool.allocate().__aenter__()) for _ in range(4)]
        await asyncio.sleep(0.5)
        for task in waiting:
            task.cancel()
        await becomes_true(lambda: pool.stats.ready == 5)
        await asyncio.sleep(50)
        assert pool.stats.ready == 5
        await asyncio.sleep(30)

        assert pool.stats.ready == len(alive(emulator)) == 1
        assert pool.stats.retired >= 4


@pytest.mark.parametrize("limit", ["max_idle", "max_age"])
async def test_an_expired_server_is_replaced_before_it_is_stopped(
    emulator: Emulator, client: EdgegapClient, limit: str
) -> None:
    settings: dict[str, Any] = {"max_idle": None, limit: 60}
    async with arena_pool(client, min_ready=3, **settings) as pool:
        await becomes_true(lambda: pool.stats.ready == 3)
        first = alive(emulator)
        min_ready = 3
        end = loop_time() + 90
        while loop_time() < end:
            min_ready = min(min_ready, pool.stats.ready)
            await asyncio.sleep(0.1)

        assert min_ready == 3
        assert pool.stats.retired == 3
        assert not first & alive(emulator)
        assert len(alive(emulator)) == 3


async def test_an_expired_server_is_stopped_first_where_max_total_is_reached(
    emulator: Emulator, client: EdgegapClient
) -> None:
    async with arena_pool(client, min_ready=2, max_total=2, max_idle=60) as pool:
        await becomes_true(lambda: pool.stats.ready == 2)
        first = alive(emulator)
        await asyncio.sleep(100)

        assert not first & alive(emulator)
        assert pool.stats.ready == 2


async def test_a_pool_whose_block_was_left_has_no_servers(client: EdgegapClient) -> None:
    async with arena_pool(client, min_ready=3) as pool:
        await becomes_true(lambda: pool.stats.starting)

    assert (pool.stats.starting, pool.stats.ready, pool.stats.allocated) == (0, 0, 0)


async def test_lists_that_fail_again_and_again_are_one_warning_and_after_a_success_another(
    emulator: Emulator, client: EdgegapClient, caplog: pytest.LogCaptureFixture
) -> None:
    async with arena_pool(client, poll_interval=1) as pool:
        await pool.filled()
        for _ in range(2):
            emulator.faults.add(Fault("list_deployments", Respond(403), times=None))
            await asyncio.sleep(60)
            emulator.faults.clear()
            await asyncio.sleep(10)

    warnings = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]
    assert len(warnings) == 2
    for warning in warnings:
        assert warning.startswith("pool default: the list request failed (3 in a row), status req")
