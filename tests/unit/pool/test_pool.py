"""A pool has servers READY before anybody asks, and never more than it may.

The emulator's own record is the judge of what lives.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from emulated_cloud import alive, asked

from edgegap_async import (
    ClientClosed,
    DeploymentHandle,
    EdgegapClient,
    Forbidden,
    InvalidRequest,
    PlayableCheck,
    PollingPolicy,
    PoolEmpty,
    ServerPool,
    Status,
    WebhookReceiver,
)
from edgegap_async.deployments.playable import _CallableCheck
from edgegap_async.emulator import (
    Application,
    AppPort,
    Delay,
    Drop,
    Emulator,
    Fault,
    Respond,
    Simulation,
    Timings,
)

pytestmark = pytest.mark.virtual

PLAYERS = [(48.9, 2.4)]
ARENA = Application(name="arena", version="v1", argv=["none"], ports=[AppPort("game")])
NEXT = Application(name="arena", version="v2", argv=["none"], ports=[AppPort("game")])


@contextlib.asynccontextmanager
async def a_cloud(**settings: Any) -> AsyncIterator[Emulator]:
    simulation = settings.pop("simulate", Simulation(seed=7, ready_after=(2.0, 2.0)))
    async with Emulator(
        [ARENA, NEXT],
        timings=Timings.fast(),
        simulate=simulation,
        remember=3600.0,
        sample_every=3600.0,
        limits=False,
        **settings,
    ) as emulator:
        yield emulator


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with a_cloud() as emulator:
        yield emulator


def a_client(emulator: Emulator, **more: Any) -> EdgegapClient:
    polling = PollingPolicy(first_delay=0.2, interval=0.2)
    return EdgegapClient(emulator.token, base_url=emulator.url, polling=polling, **more)


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[EdgegapClient]:
    async with a_client(emulator) as client:
        yield client


def a_pool(client: EdgegapClient, **settings: Any) -> ServerPool:
    return ServerPool(client, "arena", settings.pop("version", "v1"), users=PLAYERS, **settings)


def now() -> float:
    return asyncio.get_running_loop().time()


def living(emulator: Emulator) -> int:
    """How many are not stopped or being stopped, whatever was asked."""
    over = {Status.TERMINATING, Status.TERMINATED}
    return sum(one.status not in over for one in emulator.cloud.deployments.values())


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(600):
        while not condition():
            await asyncio.sleep(0.05)


def crash(emulator: Emulator, request_id: str) -> None:
    """Its program exits with code 1, and it is in ERROR."""
    process = emulator.cloud.deployments[request_id].process
    assert process is not None
    process.end(1)  # type: ignore[attr-defined]


# ── taking ───────────────────────────────────────────────────────────────────────────────────────


async def test_a_taker_is_handed_a_ready_server_without_a_step_of_the_loop(
    emulator: Emulator, client: EdgegapClient
) -> None:
    async with a_pool(client, min_ready=2) as pool:
        await until(lambda: pool.stats.ready == 2)
        taking = pool.allocate().__await__()
        with pytest.raises(StopIteration) as end:
            next(taking)  # a step would have been a future to wait for
        server = end.value.value

        assert server.status is Status.READY
        assert server.endpoint("game").port
        assert (pool.stats.ready, pool.stats.allocated, pool.stats.allocated_total) == (1, 1, 1)

    assert alive(emulator) == {server.request_id}


async def test_a_taken_server_is_replaced(client: EdgegapClient) -> None:
    async with a_pool(client, min_ready=2) as pool:
        await until(lambda: pool.stats.ready == 2)
        await pool.allocate()
        await until(lambda: pool.stats.ready == 2)

        assert pool.stats.allocated == 1


async def test_a_block_stops_the_server_at_its_end_also_after_an_error(
    emulator: Emulator, client: EdgegapClient
) -> None:
    async with a_pool(client, min_ready=1) as pool:
        async with pool.allocate() as server:
            assert server.request_id in alive(emulator)
        assert server.request_id not in alive(emulator)
        assert pool.stats.allocated == 0

        with pytest.raises(ZeroDivisionError):
            async with pool.allocate() as server:
                raise ZeroDivisionError
        assert server.request_id not in alive(emulator)


async def test_who_waits_longest_is_served_first(client: EdgegapClient) -> None:
    served: list[int] = []

    async def take(number: int) -> None:
        await pool.allocate()
        served.append(number)

    async with a_pool(client, min_ready=0, max_total=10) as pool, asyncio.TaskGroup() as group:
        for number in range(5):
            group.create_task(take(number))
            await asyncio.sleep(0.1)
        assert pool.stats.waiting == 5

    assert served == list(range(5))


async def test_a_server_that_comes_too_late_for_its_taker_goes_to_the_next(
    emulator: Emulator, client: EdgegapClient
) -> None:
    """Cancelled in the very step in which the server was given to it."""
    is_ready = asyncio.Event()

    async def about_to_be_given(_: DeploymentHandle) -> None:
        is_ready.set()

    async with a_pool(client, min_ready=0, max_total=1, playable=about_to_be_given) as pool:
        first = asyncio.create_task(pool.allocate().__aenter__())
        await asyncio.sleep(0)
        second = asyncio.create_task(pool.allocate().__aenter__())
        await is_ready.wait()
        while pool.stats.waiting == 2:  # as long as nobody was given anything
            await asyncio.sleep(0)
        assert not first.done()
        first.cancel()

        server = await second
        assert first.cancelled()
        assert pool.stats.allocated == 1
        assert alive(emulator) == {server.request_id}
        assert len(emulator.cloud.deployments) == 1
        await server.stop()


async def test_a_taker_who_goes_away_leaves_his_server_on_the_shelf(
    emulator: Emulator, client: EdgegapClient
) -> None:
    async with a_pool(client, min_ready=0, max_idle=None) as pool:
        with pytest.raises(PoolEmpty, match="no server in 1 s"):
            await pool.allocate(timeout=1)
        assert pool.stats.waiting == 0
        await until(lambda: pool.stats.ready == 1)

        assert (await pool.allocate(timeout=0.001)).request_id in alive(emulator)


async def test_there_are_never_more_than_may_be(emulator: Emulator, client: EdgegapClient) -> None:
    most = 0

    async def use() -> None:
        nonlocal most
        async with pool.allocate():
            most = max(most, len(alive(emulator)))
            await asyncio.sleep(1)

    async with a_pool(client, min_ready=2, max_total=3) as pool:
        await asyncio.gather(*(use() for _ in range(12)))

    assert most == 3
    await until(lambda: alive(emulator) == set())  # what was not accepted yet is undone


async def test_many_who_take_at_once_are_given_no_more_than_may_be(
    emulator: Emulator, client: EdgegapClient
) -> None:
    """What a taker was given, and has not come for yet, is there too."""
    most = 0
    async with a_pool(client, min_ready=5, max_total=10) as pool:
        taking = [asyncio.ensure_future(pool.allocate()) for _ in range(10)]
        until_then = now() + 20
        while now() < until_then:
            most = max(most, living(emulator))
            await asyncio.sleep(0.01)

        assert {(await one).status for one in taking} == {Status.READY}
        assert (pool.stats.allocated, pool.stats.starting) == (10, 0)
    assert most == 10


async def test_the_room_of_a_taken_server_is_free_once_it_has_ended(
    emulator: Emulator, client: EdgegapClient
) -> None:
    async with a_pool(client, min_ready=0, max_total=1, poll_interval=5) as pool:
        server = await pool.allocate()
        with pytest.raises(PoolEmpty):
            await pool.allocate(timeout=30)
        await server.stop(wait=True)

        assert (await pool.allocate(timeout=10)).status is Status.READY


@pytest.mark.parametrize("lists", ["tell of it", "are refused"])
async def test_a_taken_server_in_error_is_left_alone_for_a_minute_and_then_stopped(
    emulator: Emulator, client: EdgegapClient, lists: str
) -> None:
    if lists == "are refused":
        emulator.faults.add(Fault("list_deployments", Respond(403), when="unread", times=None))
    async with a_pool(client, min_ready=0, max_total=1, poll_interval=5) as pool:
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


async def test_the_room_of_a_taken_server_in_error_is_free_once_its_taker_has_stopped_it(
    emulator: Emulator, client: EdgegapClient
) -> None:
    async with a_pool(client, min_ready=0, max_total=1, poll_interval=5) as pool:
        server = await pool.allocate()
        crash(emulator, server.request_id)
        await asyncio.sleep(20)
        await server.stop(wait=True)

        assert (await pool.allocate(timeout=10)).status is Status.READY
        await asyncio.sleep(100)
        assert asked(emulator, "stop_deployment") == 1  # the pool asks for none of its own


async def test_a_task_can_take(client: EdgegapClient) -> None:
    async with a_pool(client) as pool:
        assert (await asyncio.ensure_future(pool.allocate(timeout=10))).status is Status.READY


@pytest.mark.parametrize("stops", ["are refused", "take long"])
async def test_what_is_not_stopped_yet_counts_among_those_there_may_be(
    emulator: Emulator, client: EdgegapClient, stops: str
) -> None:
    most = 0
    async with a_pool(client, min_ready=2, max_total=3, max_idle=30) as pool:
        await until(lambda: pool.stats.ready == 2)
        first = alive(emulator)
        if stops == "are refused":
            emulator.faults.add(Fault("stop_deployment", Respond(403), when="unread", times=None))
        else:
            emulator.faults.add(Fault("stop_deployment", Delay(20), when="read", times=None))
        until_then = now() + 300
        while now() < until_then:
            most = max(most, living(emulator))
            await asyncio.sleep(0.2)
        assert most == 3
        assert pool.stats.retired == 1 or stops == "take long"

        emulator.faults.clear()
        await until(lambda: not first & alive(emulator))
        assert pool.stats.ready == 2
    assert alive(emulator) == set()


async def test_the_stop_at_the_end_of_a_takers_block_is_tried_again_until_it_succeeds(
    emulator: Emulator, client: EdgegapClient
) -> None:
    async def use(pool: ServerPool) -> None:
        async with pool.allocate():
            emulator.faults.add(Fault("stop_deployment", Respond(403), when="unread", times=None))

    async with a_pool(client, min_ready=0, max_total=1) as pool:
        with pytest.raises(Forbidden):
            await use(pool)
        [used] = alive(emulator)
        with pytest.raises(PoolEmpty):
            await pool.allocate(timeout=60)
        assert living(emulator) == 1
        emulator.faults.clear()

        assert (await pool.allocate(timeout=15)).request_id != used
        assert used not in alive(emulator)


async def test_what_failed_and_could_not_be_stopped_keeps_its_place_until_it_is_gone(
    emulator: Emulator, client: EdgegapClient
) -> None:
    broken = set[str]()

    async def the_first_is_broken(server: DeploymentHandle) -> None:
        broken.add(server.request_id)
        if len(broken) == 1:
            raise OSError("no map")

    emulator.faults.add(Fault("stop_deployment", Respond(403), when="unread", times=None))
    async with a_pool(client, max_total=1, playable=the_first_is_broken) as pool:
        await until(lambda: pool.stats.failed)
        await asyncio.sleep(60)
        assert living(emulator) == 1
        [request_id] = emulator.cloud.deployments
        crash(emulator, request_id)
        emulator.faults.clear()
        await client.handle(request_id).stop(wait=True)

        assert (await pool.allocate(timeout=15)).request_id != request_id


# ── keeping it ───────────────────────────────────────────────────────────────────────────────────


async def test_the_block_stops_what_was_not_taken(
    emulator: Emulator, client: EdgegapClient
) -> None:
    async with a_pool(client, min_ready=4) as pool:
        await until(lambda: pool.stats.ready == 4)
        taken = [await pool.allocate() for _ in range(3)]
        await until(lambda: pool.stats.starting)

    assert alive(emulator) == {server.request_id for server in taken}
    with pytest.raises(PoolEmpty, match="was left"):
        await pool.allocate()


async def test_those_who_wait_when_the_block_is_left_are_told(client: EdgegapClient) -> None:
    async with a_pool(client, min_ready=0) as pool:
        waiting = asyncio.create_task(pool.allocate().__aenter__())
        await asyncio.sleep(0.1)
    with pytest.raises(PoolEmpty, match="was left"):
        await waiting


async def test_row_31_a_client_that_is_closed_ends_the_pool(emulator: Emulator) -> None:
    client = a_client(emulator)
    async with a_pool(client, min_ready=3, max_total=4) as pool:
        await until(lambda: pool.stats.ready == 3)
        taken = [await pool.allocate() for _ in range(4)]
        waiting = asyncio.create_task(pool.allocate().__aenter__())
        await asyncio.sleep(0.1)
        await client.close()
        with pytest.raises(ClientClosed):
            await waiting
        with pytest.raises(ClientClosed):
            await pool.allocate()

    assert alive(emulator) == {server.request_id for server in taken}


async def test_row_31_a_client_that_is_closed_as_some_are_coming_has_stopped_them(
    emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    client = a_client(emulator)
    async with a_pool(client, min_ready=3):
        await until(lambda: len(alive(emulator)) == 3)
        await client.close()
    assert alive(emulator) == set()
    assert "may go on running" not in caplog.text


async def test_a_dead_server_is_noticed_by_one_list_call_and_replaced(
    emulator: Emulator, client: EdgegapClient
) -> None:
    async with a_pool(client, min_ready=5, poll_interval=10) as pool:
        await until(lambda: pool.stats.ready == 5)
        looks, lists = (asked(emulator, call) for call in ("get_deployment", "list_deployments"))
        await asyncio.sleep(100)
        assert asked(emulator, "get_deployment") == looks
        assert 9 <= asked(emulator, "list_deployments") - lists <= 11

        victim, other = sorted(alive(emulator))[:2]
        crash(emulator, victim)
        await client.handle(other).stop(wait=True)
        await until(lambda: pool.stats.lost == 2 and pool.stats.ready == 5)

        assert not {victim, other} & alive(emulator)
        assert len(alive(emulator)) == 5
        servers = [await pool.allocate() for _ in range(5)]
        assert not {victim, other} & {server.request_id for server in servers}


async def test_a_list_that_leaves_one_out_is_not_believed(
    emulator: Emulator, client: EdgegapClient
) -> None:
    async with a_pool(client, min_ready=2, poll_interval=10) as pool:
        await until(lambda: pool.stats.ready == 2)
        emulator.faults.add(
            Fault("list_deployments", Respond(200, {"data": []}), when="unread", times=3)
        )
        await asyncio.sleep(45)

        assert (pool.stats.lost, pool.stats.ready) == (0, 2)


async def test_without_a_list_the_pool_looks_at_each(
    emulator: Emulator, client: EdgegapClient
) -> None:
    emulator.faults.add(Fault("list_deployments", Respond(403), when="unread", times=None))
    async with a_pool(client, min_ready=1, max_total=2, poll_interval=10) as pool:
        taken = await pool.allocate()
        await until(lambda: pool.stats.ready)
        [died] = alive(emulator) - {taken.request_id}
        await client.handle(died).stop(wait=True)
        await taken.stop(wait=True)
        await until(lambda: pool.stats.lost == 1 and pool.stats.allocated == 0)
        await until(lambda: pool.stats.ready)

        assert (await pool.allocate(timeout=0.001)).request_id in alive(emulator)


async def test_a_look_that_fails_changes_nothing(emulator: Emulator, client: EdgegapClient) -> None:
    async with a_pool(client, min_ready=2, poll_interval=10) as pool:
        await until(lambda: pool.stats.ready == 2)
        for call in ("list_deployments", "get_deployment"):
            emulator.faults.add(Fault(call, Respond(403), when="unread", times=4))
        await asyncio.sleep(45)

        assert (pool.stats.lost, pool.stats.ready) == (0, 2)


async def test_too_many_are_retired_when_they_are_old(
    emulator: Emulator, client: EdgegapClient
) -> None:
    async with a_pool(client, min_ready=1, max_idle=60) as pool:
        waiting = [asyncio.create_task(pool.allocate().__aenter__()) for _ in range(4)]
        await asyncio.sleep(0.5)
        for task in waiting:
            task.cancel()
        await until(lambda: pool.stats.ready == 5)
        await asyncio.sleep(50)
        assert pool.stats.ready == 5
        await asyncio.sleep(30)

        assert pool.stats.ready == len(alive(emulator)) == 1
        assert pool.stats.retired >= 4


@pytest.mark.parametrize("limit", ["max_idle", "max_age"])
async def test_an_old_one_is_replaced_before_it_is_retired(
    emulator: Emulator, client: EdgegapClient, limit: str
) -> None:
    settings: dict[str, Any] = {"max_idle": None, limit: 60}
    async with a_pool(client, min_ready=3, **settings) as pool:
        await until(lambda: pool.stats.ready == 3)
        first = alive(emulator)
        least = 3
        until_then = now() + 90
        while now() < until_then:
            least = min(least, pool.stats.ready)
            await asyncio.sleep(0.1)

        assert least == 3
        assert pool.stats.retired == 3
        assert not first & alive(emulator)
        assert len(alive(emulator)) == 3


async def test_an_old_one_makes_room_where_there_is_none(
    emulator: Emulator, client: EdgegapClient
) -> None:
    async with a_pool(client, min_ready=2, max_total=2, max_idle=60) as pool:
        await until(lambda: pool.stats.ready == 2)
        first = alive(emulator)
        await asyncio.sleep(100)

        assert not first & alive(emulator)
        assert pool.stats.ready == 2


# ── failures ─────────────────────────────────────────────────────────────────────────────────────


async def test_deploys_that_fail_again_and_again_are_no_storm_and_are_told(
    emulator: Emulator, client: EdgegapClient
) -> None:
    emulator.faults.add(Fault("deploy", Respond(422), when="unread", times=None))
    began = now()
    async with a_pool(client, min_ready=3) as pool:
        with pytest.raises(PoolEmpty, match="deploys fail") as caught:
            await pool.allocate()
        assert "422" in str(caught.value)
        assert caught.value.__cause__ is not None
        await asyncio.sleep(began + 60 - now())
        in_the_first_minute = asked(emulator, "deploy")
        assert 3 < in_the_first_minute <= 3 + 7
        with pytest.raises(PoolEmpty):
            await pool.allocate()  # at once, with no time-out
        await asyncio.sleep(600)
        assert asked(emulator, "deploy") - in_the_first_minute <= 10 / 0.75 + 1
        stats = pool.stats
        assert stats.failing

        emulator.faults.clear()
        await until(lambda: pool.stats.ready == 3)
        assert not pool.stats.failing
        assert (await pool.allocate(timeout=0.001)).status is Status.READY


async def test_a_pool_that_keeps_none_ready_tries_again_when_somebody_asks(
    emulator: Emulator, client: EdgegapClient
) -> None:
    emulator.faults.add(Fault("deploy", Respond(400), when="unread", times=None))
    async with a_pool(client, min_ready=0) as pool:
        with pytest.raises(PoolEmpty):
            await pool.allocate()
        emulator.faults.clear()
        with pytest.raises(PoolEmpty):
            await pool.allocate()
        await asyncio.sleep(60)

        assert (await pool.allocate(timeout=20)).status is Status.READY


async def test_one_failure_is_not_told_to_who_waits(
    emulator: Emulator, client: EdgegapClient
) -> None:
    emulator.faults.add(Fault("deploy", Respond(422), when="unread", times=2))
    async with a_pool(client, min_ready=0) as pool:
        assert (await pool.allocate(timeout=30)).status is Status.READY
        assert pool.stats.failed == 2


async def test_one_that_takes_long_does_not_keep_the_pool_from_trying_another_after_a_failure(
    emulator: Emulator, client: EdgegapClient
) -> None:
    checked = list[str]()

    async def the_first_never_answers(server: DeploymentHandle) -> None:
        checked.append(server.request_id)
        if server.request_id == checked[0]:
            raise OSError("no map yet")

    check = _CallableCheck(function=the_first_never_answers, timeout=300)
    emulator.faults.add(Fault("deploy", Respond(422), when="unread", skip=1))
    async with a_pool(client, min_ready=2, playable=check) as pool:
        await until(lambda: pool.stats.failed)

        assert (await pool.allocate(timeout=20)).status is Status.READY
        assert not pool.stats.failing


async def test_those_begun_before_a_failure_make_the_pause_no_longer(
    emulator: Emulator, client: EdgegapClient
) -> None:
    """They fail one after the other, each later than the pause that the one before has made."""
    checked = list[str]()

    async def each_fails_later(server: DeploymentHandle) -> None:
        if server.request_id not in checked:
            checked.append(server.request_id)
        number = checked.index(server.request_id)
        if number < 6:
            await asyncio.sleep(3 * number)
            raise InvalidRequest("no such port")

    check = _CallableCheck(function=each_fails_later, patience=100, timeout=100)
    async with a_pool(client, min_ready=6, playable=check) as pool:
        await until(lambda: pool.stats.failed)

        assert (await pool.allocate(timeout=60)).status is Status.READY


async def test_what_a_pool_has_failed_with_is_told_to_takers_and_raised_by_the_block(
    emulator: Emulator, client: EdgegapClient
) -> None:
    class Broken(PlayableCheck):
        async def attempt(self, server: DeploymentHandle) -> None:
            raise OSError

        def tried(self, server: DeploymentHandle) -> str:
            raise ZeroDivisionError("mine")

    async def take_twice() -> None:
        async with a_pool(client, min_ready=2, playable=Broken(timeout=1)) as pool:
            for _ in range(2):
                with pytest.raises(PoolEmpty, match="the pool has failed: ZeroDiv") as caught:
                    await pool.allocate()
                assert isinstance(caught.value.__cause__, ZeroDivisionError)

    emulator.faults.add(Fault("stop_deployment", Delay(5), times=None))
    with pytest.raises(ZeroDivisionError, match="mine"):
        await take_twice()
    assert alive(emulator) == set()


async def test_row_31_one_that_is_given_in_the_step_in_which_the_client_is_closed_is_not_served(
    emulator: Emulator,
) -> None:
    client = a_client(emulator)
    is_ready = asyncio.Event()

    async def about_to_be_given(_: DeploymentHandle) -> None:
        is_ready.set()

    async with a_pool(client, min_ready=0, playable=about_to_be_given) as pool:
        taking = asyncio.ensure_future(pool.allocate())
        await is_ready.wait()
        while pool.stats.waiting:
            await asyncio.sleep(0)
        assert not taking.done()
        await client.close()
        with pytest.raises(ClientClosed):
            await taking
    assert len(emulator.cloud.deployments) == 1
    assert alive(emulator) == set()


async def test_what_fails_in_the_cloud_is_stopped() -> None:
    simulation = Simulation(failing=1.0, ready_after=(5.0, 5.0), fails_after=(1.0, 1.0))
    async with a_cloud(simulate=simulation) as emulator, a_client(emulator) as client:
        async with a_pool(client, min_ready=2) as pool:
            with pytest.raises(PoolEmpty):
                await pool.allocate()
        assert alive(emulator) == set()


async def test_what_is_not_playable_is_not_handed_out(
    emulator: Emulator, client: EdgegapClient
) -> None:
    checked: list[str] = []

    async def first_ones_are_broken(server: DeploymentHandle) -> None:
        checked.append(server.request_id)
        if len(set(checked)) == 1:
            raise OSError("no map")

    async with a_pool(client, min_ready=1, playable=first_ones_are_broken) as pool:
        server = await pool.allocate()

    assert server.request_id != checked[0]
    assert alive(emulator) == {server.request_id}


# ── the next run ─────────────────────────────────────────────────────────────────────────────────


async def killed(emulator: Emulator, **settings: Any) -> tuple[set[str], set[str]]:
    """What a program leaves on its shelf, and in use, that ends without stopping anything."""
    emulator.faults.add(Fault("stop_deployment", Respond(403), when="unread", times=None))
    client = a_client(emulator, owner="mm-1")
    taken = set()
    with contextlib.suppress(ExceptionGroup):
        async with a_pool(client, min_ready=3, **settings) as pool:
            for _ in range(2):
                taken.add((await pool.allocate()).request_id)
            await until(lambda: pool.stats.ready == 3)
    await client.close()
    emulator.faults.clear()
    over = {Status.TERMINATING, Status.TERMINATED}
    every = emulator.cloud.deployments.values()
    return {one.request_id for one in every if one.status not in over} - taken, taken


async def test_row_32_a_killed_program_finds_its_shelf_again_and_leaves_what_is_in_use(
    emulator: Emulator,
) -> None:
    shelf, taken = await killed(emulator)
    deploys = asked(emulator, "deploy")
    async with a_client(emulator, owner="mm-1") as client:
        async with a_pool(client, min_ready=3) as pool:
            assert (pool.stats.starting, pool.stats.allocated) == (3, 2)
            await until(lambda: pool.stats.ready == 3)
            server = await pool.allocate(timeout=0.001)
            assert server.endpoint("game").port
            assert server.request_id in shelf
        assert deploys <= asked(emulator, "deploy") <= deploys + 1

    assert alive(emulator) & (shelf | taken) == {server.request_id, *taken}


async def test_row_32_what_does_not_fit_the_pool_of_the_next_run_is_stopped(
    emulator: Emulator,
) -> None:
    shelf, taken = await killed(emulator)
    async with (
        a_client(emulator, owner="mm-1") as client,
        a_pool(client, version="v2", min_ready=1) as pool,
    ):
        assert pool.stats.ready == 0
        await pool.allocate()
    assert not alive(emulator) & shelf
    assert taken <= alive(emulator)


async def test_row_32_the_shelves_of_others_are_left_alone(emulator: Emulator) -> None:
    shelf, taken = await killed(emulator)
    for owner, name in (("mm-2", "default"), ("mm-1", "ranked"), (None, "default")):
        async with (
            a_client(emulator, owner=owner) as client,
            a_pool(client, min_ready=1, name=name) as pool,
        ):
            assert (pool.stats.ready, pool.stats.allocated) == (0, 0)

    assert shelf | taken <= alive(emulator)


async def test_row_32_what_an_earlier_run_left_is_not_handed_out_before_it_is_playable(
    emulator: Emulator,
) -> None:
    shelf, _ = await killed(emulator)

    async def of_this_run(server: DeploymentHandle) -> None:
        if server.request_id in shelf:
            raise OSError("no map")

    async with (
        a_client(emulator, owner="mm-1") as client,
        a_pool(client, playable=of_this_run) as pool,
    ):
        assert (await pool.allocate(timeout=60)).request_id not in shelf
        await until(lambda: not shelf & alive(emulator))


async def test_row_32_what_an_earlier_run_left_and_is_not_ready_yet_is_waited_for(
    emulator: Emulator,
) -> None:
    shelf, _ = await killed(emulator)
    left = {emulator.cloud.deployments[one].status for one in shelf}
    assert left == {Status.READY}
    for one in shelf:
        await emulator.cloud.stop_deployment(request_id=one)
    emulator.faults.add(Fault("stop_deployment", Respond(403), when="unread", times=None))
    async with a_client(emulator, owner="mm-1") as before, a_pool(before, min_ready=3) as pool:
        await until(lambda: len(alive(emulator)) == 5)
        coming = alive(emulator)
        assert pool.stats.ready == 0
    emulator.faults.clear()
    deploys = asked(emulator, "deploy")
    async with a_client(emulator, owner="mm-1") as client, a_pool(client, min_ready=3) as pool:
        server = await pool.allocate(timeout=30)
        assert server.request_id in coming
        assert asked(emulator, "deploy") <= deploys + 1


async def test_row_32_entering_that_failed_can_be_tried_again(emulator: Emulator) -> None:
    await killed(emulator)
    emulator.faults.add(
        Fault("list_deployments", Respond(403), when="unread"),
        Fault("get_deployment", Respond(403), when="unread", skip=1),
    )
    async with a_client(emulator, owner="mm-1") as client:
        pool = a_pool(client, min_ready=3)
        with pytest.raises(Forbidden):
            await pool.__aenter__()
        async with pool:
            servers = {(await pool.allocate(timeout=30)).request_id for _ in range(4)}

            assert len(servers) == 4
            assert servers <= alive(emulator)


async def test_row_32_what_the_list_does_not_tell_of_at_first_is_found_by_a_later_look(
    emulator: Emulator,
) -> None:
    shelf, taken = await killed(emulator)
    emulator.faults.add(Fault("list_deployments", Respond(200, {"data": []}), when="unread"))
    async with (
        a_client(emulator, owner="mm-1") as client,
        a_pool(client, min_ready=3, max_total=7) as pool,
    ):
        assert (pool.stats.starting, pool.stats.allocated) == (0, 0)
        await until(lambda: pool.stats.allocated == 2)
        await until(lambda: not pool.stats.starting)
        assert living(emulator) <= 7
    assert alive(emulator) & (shelf | taken) == taken


async def test_row_32_what_is_being_deployed_is_not_taken_for_what_an_earlier_run_left(
    emulator: Emulator,
) -> None:
    """It is in the list before the answer to its deploy is here."""
    emulator.faults.add(Fault("deploy", Delay(8), when="acted"))
    async with (
        a_client(emulator, owner="mm-1") as client,
        a_pool(client, min_ready=1, poll_interval=1) as pool,
    ):
        await until(lambda: alive(emulator))
        await asyncio.sleep(5)
        assert [found async for found in client.recover()] == []
        assert (pool.stats.starting, pool.stats.ready) == (1, 0)
        await until(lambda: pool.stats.ready)
        await asyncio.sleep(5)

        assert (pool.stats.starting, pool.stats.ready) == (0, 1)
        assert len(emulator.cloud.deployments) == 1


async def test_row_32_what_a_lost_answer_has_made_is_found_by_a_later_look(
    emulator: Emulator,
) -> None:
    async with a_client(emulator, owner="mm-1", list_delay=0.5) as client:
        async with a_pool(client, min_ready=1) as pool:
            emulator.faults.add(
                Fault("deploy", Drop(), when="acted", times=2),
                Fault("list_deployments", Respond(503), when="unread", times=8),
            )
            await until(lambda: pool.stats.failed)
            await until(lambda: pool.stats.ready == living(emulator) > 1)
        assert alive(emulator) == set()


async def test_row_32_a_mark_that_failed_is_made_again(emulator: Emulator) -> None:
    emulator.faults.add(Fault("rename_tag", Respond(403), when="unread"))
    async with a_client(emulator, owner="mm-1") as client, a_pool(client) as pool:
        server = await pool.allocate()
        made = emulator.cloud.deployments[server.request_id]
        await until(lambda: asked(emulator, "rename_tag"))
        assert "pool-default" in made.tags
        await until(lambda: "used-default" in made.tags)


async def test_a_mark_that_hangs_holds_nobody_up(emulator: Emulator) -> None:
    emulator.faults.add(Fault("rename_tag", Delay(1000), when="unread", times=None))
    async with a_client(emulator, owner="mm-1") as client:
        async with a_pool(client) as pool:
            await pool.allocate()
            left = now()
        assert now() - left < 10


async def test_two_pools_of_one_name_cannot_share_a_client(client: EdgegapClient) -> None:
    second = a_pool(client, version="v2")
    async with a_pool(client), a_pool(client, name="ranked"):
        with pytest.raises(InvalidRequest, match="pool-default"):
            await second.__aenter__()
    async with second:
        assert (await second.allocate()).status is Status.READY


# ── arguments ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "settings",
    [
        {"min_ready": -1},
        {"min_ready": 1.5},
        {"min_ready": 3, "max_total": 2},
        {"min_ready": 0, "max_total": 0},
        {"max_idle": 0},
        {"max_age": "old"},
        {"poll_interval": -1},
        {"name": "a name"},
        {"name": "x" * 15},
        {"playable": "yes"},
        {"operation_tag": False},
        {"tags": ["x" * 50]},
        {"tags": "ranked"},
        {"timeout_each": "soon"},
    ],
)
async def test_what_cannot_be_meant_is_refused_at_once(
    client: EdgegapClient, settings: dict[str, Any]
) -> None:
    with pytest.raises(InvalidRequest):
        a_pool(client, **settings)


async def test_a_pool_is_a_block_and_is_used_once(client: EdgegapClient) -> None:
    pool = a_pool(client, min_ready=0)
    with pytest.raises(RuntimeError, match="async with"):
        await pool.allocate()
    async with pool:
        assert repr(pool).startswith("<ServerPool arena v1: PoolStats(ready=0")
    with pytest.raises(RuntimeError, match="used once"):
        async with pool:
            pass


# ── filled ───────────────────────────────────────────────────────────────────────────────────────


async def test_a_pool_is_filled_when_so_many_can_be_taken_at_once(client: EdgegapClient) -> None:
    async with a_pool(client, min_ready=3) as pool:
        began = now()
        await pool.filled(timeout=60)

        assert now() - began == pytest.approx(2.2, abs=0.5)
        assert pool.stats.ready == 3
        await pool.filled(timeout=0)
        taken = [await pool.allocate(timeout=0) for _ in range(3)]
        with pytest.raises(PoolEmpty, match=r"not filled in 0 s; PoolStats\(ready=0"):
            await pool.filled(timeout=0)
        await asyncio.gather(*(server.stop() for server in taken))


async def test_who_waits_for_a_pool_of_which_only_a_part_is_there_is_told_too(
    emulator: Emulator, client: EdgegapClient
) -> None:
    async with a_pool(client, min_ready=2) as pool:
        await pool.filled(timeout=60)
        emulator.faults.add(Fault("deploy", Respond(400), times=None))
        server = await pool.allocate()
        with pytest.raises(PoolEmpty, match="deploys fail, 3 so far"):
            await pool.filled()
        assert pool.stats.ready == 1
        await server.stop()


async def test_who_waits_for_a_pool_that_cannot_be_filled_is_told_why(emulator: Emulator) -> None:
    async with a_client(emulator) as client, a_pool(client, version="v9") as pool:
        with pytest.raises(PoolEmpty, match=r"not filled in 1 s.*the last failure: POST"):
            await pool.filled(timeout=1)
        with pytest.raises(PoolEmpty, match="deploys fail, 3 so far"):
            await pool.filled()
    with pytest.raises(PoolEmpty, match=r"left$"):
        await pool.filled()


async def test_one_that_a_webhook_tells_has_ended_is_not_handed_out(emulator: Emulator) -> None:
    async with (
        WebhookReceiver().serve() as receiver,
        a_client(emulator, webhooks=receiver) as client,
        a_pool(client, min_ready=2, poll_interval=3600) as pool,
    ):
        await pool.filled(timeout=60)
        await until(lambda: not any(one.server.webhook_pending for one in pool._inventory.queue))
        first = next(iter(pool._inventory.queue)).server.request_id
        async with a_client(emulator) as other:
            await other.handle(first).stop()
        await until(lambda: pool.stats.lost)
        await pool.filled(timeout=60)
        server = await pool.allocate(timeout=0)

        assert server.request_id != first
        assert living(emulator) >= 2
        await server.stop()


async def test_a_pool_whose_block_was_left_has_nothing_coming(client: EdgegapClient) -> None:
    async with a_pool(client, min_ready=3) as pool:
        await until(lambda: pool.stats.starting)

    assert (pool.stats.starting, pool.stats.ready, pool.stats.allocated) == (0, 0, 0)
