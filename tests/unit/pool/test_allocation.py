"""Which server a caller gets, when, and how many servers may exist."""

from __future__ import annotations

import asyncio

import pytest
from arena import arena_client, arena_pool, becomes_true, crash
from emulator_record import alive, living, requests_by_operation

from edgegap_async import DeploymentHandle, EdgegapClient, ServerPool, Status, WebhookReceiver
from edgegap_async.concurrency import loop_time
from edgegap_async.deployments.handle import tracker_of
from edgegap_async.emulator import Delay, Emulator, Fault, Respond
from edgegap_async.errors import Forbidden, PoolEmpty
from edgegap_async.models import Allocation

pytestmark = pytest.mark.virtual


async def test_a_ready_server_is_allocated_without_a_step_of_the_loop(
    emulator: Emulator, client: EdgegapClient
) -> None:
    async with arena_pool(client, min_ready=2) as pool:
        await becomes_true(lambda: pool.stats.ready == 2)
        allocating = pool.allocate().__await__()
        with pytest.raises(StopIteration) as end:
            next(allocating)  # a step of the loop would yield a future here
        server = end.value.value

        assert server.status is Status.READY
        assert server.endpoint("game").port
        assert (pool.stats.ready, pool.stats.allocated, pool.stats.allocated_total) == (1, 1, 1)

    assert alive(emulator) == {server.request_id}


async def test_an_allocated_server_is_replaced(client: EdgegapClient) -> None:
    async with arena_pool(client, min_ready=2) as pool:
        await becomes_true(lambda: pool.stats.ready == 2)
        await pool.allocate()
        await becomes_true(lambda: pool.stats.ready == 2)

        assert pool.stats.allocated == 1


async def test_a_block_stops_the_server_at_its_end_also_after_an_error(
    emulator: Emulator, client: EdgegapClient
) -> None:
    async with arena_pool(client, min_ready=1) as pool:
        async with pool.allocate() as server:
            assert server.request_id in alive(emulator)
        assert server.request_id not in alive(emulator)
        assert pool.stats.allocated == 0

        with pytest.raises(ZeroDivisionError):
            async with pool.allocate() as server:
                raise ZeroDivisionError
        assert server.request_id not in alive(emulator)


async def test_callers_are_served_in_the_order_in_which_they_came(client: EdgegapClient) -> None:
    served: list[int] = []

    async def allocate(number: int) -> None:
        await pool.allocate()
        served.append(number)

    async with arena_pool(client, min_ready=0, max_total=10) as pool, asyncio.TaskGroup() as group:
        for number in range(5):
            group.create_task(allocate(number))
            await asyncio.sleep(0.1)
        assert pool.stats.waiting == 5

    assert served == list(range(5))


async def test_a_server_assigned_to_a_cancelled_caller_goes_to_the_next(
    emulator: Emulator, client: EdgegapClient
) -> None:
    """The caller is cancelled in the step in which the server is assigned to it."""
    is_ready = asyncio.Event()

    async def about_to_be_ready(_: DeploymentHandle) -> None:
        is_ready.set()

    async with arena_pool(client, min_ready=0, max_total=1, playable=about_to_be_ready) as pool:
        first = asyncio.create_task(pool.allocate().__aenter__())
        await asyncio.sleep(0)
        second = asyncio.create_task(pool.allocate().__aenter__())
        await is_ready.wait()
        while pool.stats.waiting == 2:  # until the server is assigned to the first caller
            await asyncio.sleep(0)
        assert not first.done()
        first.cancel()

        server = await second
        assert first.cancelled()
        assert pool.stats.allocated == 1
        assert alive(emulator) == {server.request_id}
        assert len(emulator.cloud.deployments) == 1
        await server.stop()


async def test_the_server_of_a_caller_that_timed_out_stays_in_the_pool(
    emulator: Emulator, client: EdgegapClient
) -> None:
    async with arena_pool(client, min_ready=0, max_idle=None) as pool:
        with pytest.raises(PoolEmpty, match="pool default: no server in 1 s"):
            await pool.allocate(timeout=1)
        assert pool.stats.waiting == 0
        await becomes_true(lambda: pool.stats.ready == 1)

        assert (await pool.allocate(timeout=0.001)).request_id in alive(emulator)


async def test_at_most_max_total_servers_exist(emulator: Emulator, client: EdgegapClient) -> None:
    max_alive = 0

    async def use() -> None:
        nonlocal max_alive
        async with pool.allocate():
            max_alive = max(max_alive, len(alive(emulator)))
            await asyncio.sleep(1)

    async with arena_pool(client, min_ready=2, max_total=3) as pool:
        await asyncio.gather(*(use() for _ in range(12)))

    assert max_alive == 3
    await becomes_true(lambda: alive(emulator) == set())  # deploys in progress are undone


async def test_many_callers_at_once_get_at_most_max_total_servers(
    emulator: Emulator, client: EdgegapClient
) -> None:
    """Servers that are assigned to a caller whose task has not run yet count too."""
    max_alive = 0
    async with arena_pool(client, min_ready=5, max_total=10) as pool:
        allocations = [asyncio.ensure_future(pool.allocate()) for _ in range(10)]
        end = loop_time() + 20
        while loop_time() < end:
            max_alive = max(max_alive, len(living(emulator)))
            await asyncio.sleep(0.01)

        assert {(await allocation).status for allocation in allocations} == {Status.READY}
        assert (pool.stats.allocated, pool.stats.starting) == (10, 0)
    assert max_alive == 10


async def test_the_capacity_of_an_allocated_server_is_free_when_the_server_has_ended(
    emulator: Emulator, client: EdgegapClient
) -> None:
    async with arena_pool(client, min_ready=0, max_total=1, poll_interval=5) as pool:
        server = await pool.allocate()
        with pytest.raises(PoolEmpty):
            await pool.allocate(timeout=30)
        await server.stop(wait=True)

        assert (await pool.allocate(timeout=10)).status is Status.READY


@pytest.mark.parametrize("lists", ["work", "are refused"])
async def test_an_allocated_server_in_error_is_stopped_after_a_minute(
    emulator: Emulator, client: EdgegapClient, lists: str
) -> None:
    if lists == "are refused":
        emulator.faults.add(Fault("list_deployments", Respond(403), when="unread", times=None))
    async with arena_pool(client, min_ready=0, max_total=1, poll_interval=5) as pool:
        server = await pool.allocate()
        crash(emulator, server.request_id)
        with pytest.raises(PoolEmpty):
            await pool.allocate(timeout=60)
        assert server.request_id in alive(emulator)
        assert emulator.cloud.deployments[server.request_id].status is Status.ERROR
        assert pool.stats.allocated == 1

        assert (await pool.allocate(timeout=15)).request_id != server.request_id
        assert server.request_id not in alive(emulator)
        assert pool.stats.allocated == 1


async def test_the_capacity_of_an_allocated_server_in_error_is_free_when_the_caller_has_stopped_it(
    emulator: Emulator, client: EdgegapClient
) -> None:
    async with arena_pool(client, min_ready=0, max_total=1, poll_interval=5) as pool:
        server = await pool.allocate()
        crash(emulator, server.request_id)
        await asyncio.sleep(20)
        await server.stop(wait=True)

        assert (await pool.allocate(timeout=10)).status is Status.READY
        await asyncio.sleep(100)
        assert (
            requests_by_operation(emulator)["stop_deployment"] == 1
        )  # by the caller; the pool makes none


async def test_a_task_can_allocate(client: EdgegapClient) -> None:
    async with arena_pool(client) as pool:
        assert (await asyncio.ensure_future(pool.allocate(timeout=10))).status is Status.READY


@pytest.mark.parametrize("stops", ["are refused", "are slow"])
async def test_a_server_that_is_not_stopped_yet_counts_towards_max_total(
    emulator: Emulator, client: EdgegapClient, stops: str
) -> None:
    max_alive = 0
    async with arena_pool(client, min_ready=2, max_total=3, max_idle=30) as pool:
        await becomes_true(lambda: pool.stats.ready == 2)
        first = alive(emulator)
        if stops == "are refused":
            emulator.faults.add(Fault("stop_deployment", Respond(403), when="unread", times=None))
        else:
            emulator.faults.add(Fault("stop_deployment", Delay(20), when="read", times=None))
        end = loop_time() + 300
        while loop_time() < end:
            max_alive = max(max_alive, len(living(emulator)))
            await asyncio.sleep(0.2)
        assert max_alive == 3
        assert pool.stats.retired == 1 or stops == "are slow"

        emulator.faults.clear()
        await becomes_true(lambda: not first & alive(emulator))
        assert pool.stats.ready == 2
    assert alive(emulator) == set()


async def test_the_stop_at_the_end_of_a_block_is_repeated_until_it_succeeds(
    emulator: Emulator, client: EdgegapClient
) -> None:
    async def use(pool: ServerPool) -> None:
        async with pool.allocate():
            emulator.faults.add(Fault("stop_deployment", Respond(403), when="unread", times=None))

    async with arena_pool(client, min_ready=0, max_total=1) as pool:
        with pytest.raises(Forbidden):
            await use(pool)
        [used] = alive(emulator)
        with pytest.raises(PoolEmpty):
            await pool.allocate(timeout=60)
        assert len(living(emulator)) == 1
        emulator.faults.clear()

        assert (await pool.allocate(timeout=15)).request_id != used
        assert used not in alive(emulator)


async def test_a_failed_server_that_could_not_be_stopped_counts_until_it_has_ended(
    emulator: Emulator, client: EdgegapClient
) -> None:
    broken = set[str]()

    async def the_first_is_broken(server: DeploymentHandle) -> None:
        broken.add(server.request_id)
        if len(broken) == 1:
            raise OSError("no map")

    emulator.faults.add(Fault("stop_deployment", Respond(403), when="unread", times=None))
    async with arena_pool(client, max_total=1, playable=the_first_is_broken) as pool:
        await becomes_true(lambda: pool.stats.failed)
        await asyncio.sleep(60)
        assert len(living(emulator)) == 1
        [request_id] = emulator.cloud.deployments
        crash(emulator, request_id)
        emulator.faults.clear()
        await client.handle(request_id).stop(wait=True)

        assert (await pool.allocate(timeout=15)).request_id != request_id


async def test_a_server_that_is_not_playable_is_not_allocated(
    emulator: Emulator, client: EdgegapClient
) -> None:
    checked: list[str] = []

    async def the_first_is_broken(server: DeploymentHandle) -> None:
        checked.append(server.request_id)
        if len(set(checked)) == 1:
            raise OSError("no map")

    async with arena_pool(client, min_ready=1, playable=the_first_is_broken) as pool:
        server = await pool.allocate()

    assert server.request_id != checked[0]
    assert alive(emulator) == {server.request_id}


async def test_a_server_that_ends_is_found_by_its_webhook_and_not_allocated(
    emulator: Emulator,
) -> None:
    async with (
        WebhookReceiver().serve() as receiver,
        arena_client(emulator, webhooks=receiver) as client,
        arena_pool(client, min_ready=2, poll_interval=3600) as pool,
    ):
        await pool.filled(timeout=60)
        await becomes_true(
            lambda: not any(tracker_of(one.server).webhook_pending for one in pool._inventory.queue)
        )
        first = next(iter(pool._inventory.queue)).server.request_id
        async with arena_client(emulator) as other:
            await other.handle(first).stop()
        await becomes_true(lambda: pool.stats.lost)
        await pool.filled(timeout=60)
        server = await pool.allocate(timeout=0)

        assert server.request_id != first
        assert len(living(emulator)) >= 2
        await server.stop()


@pytest.mark.parametrize("first", ["await", "block"])
@pytest.mark.parametrize("second", ["await", "block"])
async def test_an_allocation_can_be_used_once(
    emulator: Emulator, client: EdgegapClient, first: str, second: str
) -> None:
    async def use(allocation: Allocation, way: str) -> str:
        if way == "await":
            return (await allocation).request_id
        async with allocation as server:
            await asyncio.sleep(1)
            return server.request_id

    async with arena_pool(client, min_ready=2) as pool:
        await pool.filled(20)
        allocation = pool.allocate()
        using = asyncio.create_task(use(allocation, first))
        await asyncio.sleep(0.5)
        with pytest.raises(RuntimeError, match="can be used once"):
            await use(allocation, second)
        used = await using
        await becomes_true(lambda: pool.stats.ready == 2)

        assert pool.stats.allocated_total == 1
        assert (used in alive(emulator)) is (first == "await")
