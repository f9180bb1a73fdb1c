"""Simulated game servers, and settings that a simulation makes easy to test."""

from __future__ import annotations

import asyncio
from typing import Any

import attrs
import pytest
from emulated_cloud import a_cloud, deployed
from virtual_clock import run_virtually

from edgegap_async import EdgegapClient, PollingPolicy, Status
from edgegap_async.concurrency import loop_time
from edgegap_async.emulator import Application, AppPort, Emulator, Simulation, Timings
from edgegap_async.emulator.clock import Clock
from edgegap_async.emulator.simulation import SimulatedMachine, SimulatedProcess
from edgegap_async.errors import BadRequest, InvalidRequest
from edgegap_async.requests import Filter

ARENA = Application(
    name="arena", version="v1", argv=["no-such-program"], ports=[AppPort("game"), AppPort("chat")]
)
HASTY = attrs.evolve(ARENA, time_to_deploy=3)

pytestmark = pytest.mark.virtual


def machine(**settings: Any) -> SimulatedMachine:
    return SimulatedMachine(Simulation(**settings), Clock())


async def start(machine: SimulatedMachine, count: int = 1) -> list[SimulatedProcess]:
    return [await machine.start(ARENA.argv, name=f"server-{number}") for number in range(count)]


async def test_a_simulated_server_is_deployed_and_stopped_like_a_real_one() -> None:
    async with (
        Emulator([ARENA], timings=Timings.fast(), simulate=Simulation(ready_after=(2, 2))) as cloud,
        EdgegapClient(
            cloud.token, base_url=cloud.url, polling=PollingPolicy(first_delay=0.1, interval=0.1)
        ) as client,
    ):
        began = loop_time()
        async with client.run("arena", "v1", users=["8.8.8.8"]) as server:
            assert 2 <= loop_time() - began < 2.5
            assert server.endpoint("game").port != server.endpoint("chat").port
            logs = await client.deployments.logs(server.request_id)
            assert logs.logs == ""
        await server.wait_terminated()


def test_a_thousand_servers_are_ready_and_no_port_runs_out() -> None:
    numbers = range(30000, 30010)

    async def main() -> None:
        simulation = Simulation(ready_after=(1, 5))
        async with a_cloud(ARENA, simulate=simulation, port_range=numbers) as world:
            servers = [await deployed(world, ARENA) for _ in range(1000)]
            await asyncio.sleep(6)

            assert {server.status for server in servers} == {Status.READY}
            assert all(len(server.ports) == 2 for server in servers)
            ports = {port.external for one in servers for port in one.ports.values()}
            assert ports == set(numbers)
            usage = servers[0].samples.series(start=None, end=None, step=None)
            assert usage.mem.datasets == ()

    run_virtually(main())


async def test_the_same_seed_gives_the_same_times() -> None:
    settings = {
        "crash_share": 0.3,
        "never_ready_share": 0.3,
        "crash_after": (0.0, 4.0),
        "ready_after": (0.0, 4.0),
    }

    async def outcomes(seed: int) -> list[tuple[bool, int | None]]:
        processes = await start(machine(seed=seed, **settings), 50)
        await asyncio.sleep(2)
        return [
            (one.has_bound, one.exited.result() if one.exited.done() else None) for one in processes
        ]

    assert await outcomes(1) == await outcomes(1)
    assert await outcomes(1) != await outcomes(2)


async def test_a_share_fails_at_its_time_and_is_an_error() -> None:
    simulation = Simulation(crash_share=1, crash_after=(7, 7), ready_after=(1, 1))
    async with a_cloud(ARENA, simulate=simulation) as world:
        server = await deployed(world, ARENA)
        seen = []
        for seconds in (6.9, 0.2):
            await asyncio.sleep(seconds)
            seen.append(server.status)

        assert seen == [Status.READY, Status.ERROR]
        assert server.error_detail == "The application exited with code 1"


async def test_a_server_that_crashes_first_never_binds_its_ports() -> None:
    [process] = await start(machine(crash_share=1, crash_after=(0, 0), ready_after=(1, 1)))

    assert await process.exited == 1
    await asyncio.sleep(2)
    assert not process.has_bound


async def test_a_server_that_is_never_ready_is_an_error_after_the_time_to_deploy() -> None:
    async with a_cloud(HASTY, simulate=Simulation(never_ready_share=1)) as world:
        server = await deployed(world, HASTY)
        await asyncio.sleep(3.2)

        assert server.status is Status.ERROR

        assert "not opened by the app" in (server.error_detail or "")


async def test_a_port_that_is_not_checked_is_not_waited_for() -> None:
    cloud = machine(never_ready_share=1)
    [process] = await start(cloud)

    assert await cloud.has_bound(process, [])
    assert not await cloud.has_bound(process, [("udp", 30000)])


async def test_a_stopped_server_ends_by_sigterm_and_a_second_stop_changes_nothing() -> None:
    [process] = await start(machine(crash_share=1))

    await process.stop(10)
    await process.stop(10)

    assert process.exited.result() == -15


async def test_the_end_of_the_machine_kills_servers_that_were_not_stopped() -> None:
    cloud = machine()
    stopped, forgotten, left = await start(cloud, 3)
    await stopped.stop(0)
    cloud.forget("server-1")
    cloud.forget("server-1")

    await cloud.close()

    assert (stopped.exited.result(), left.exited.result()) == (-15, -9)
    assert not forgotten.exited.done()
    assert len({stopped.pid, forgotten.pid, left.pid}) == 3


@pytest.mark.parametrize(
    "settings",
    [
        {"crash_share": 1.1},
        {"never_ready_share": -0.1},
        {"ready_after": (2, 1)},
        {"ready_after": (-1, 1)},
        {"crash_after": (0, float("inf"))},
    ],
)
def test_an_invalid_simulation_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match=next(iter(settings))):
        Simulation(**settings)


async def test_a_function_may_draw_the_times() -> None:
    async def drawn() -> list[float]:
        simulated = machine(seed=3, ready_after=lambda chance: chance.choice([1.0, 9.0]))
        began = loop_time()
        return [round(one._binds_at - began) for one in await start(simulated, 20)]

    assert set(await drawn()) == {1, 9}
    assert await drawn() == await drawn()


async def test_status_since_is_the_time_of_the_last_change() -> None:
    async with a_cloud(ARENA, simulate=Simulation(ready_after=(2, 2))) as world:
        server = await deployed(world, ARENA)
        assert server.status_since == pytest.approx(loop_time(), abs=0.01)
        while server.status is not Status.READY:
            await asyncio.sleep(0.01)
        assert server.status_since == pytest.approx(loop_time(), abs=0.02)
        ready_since = server.status_since
        await asyncio.sleep(5)
        assert server.status_since == ready_since


async def test_list_rows_without_status_still_show_ready() -> None:
    simulation = Simulation(ready_after=(0.5, 0.5))
    async with (
        Emulator(
            [ARENA], timings=Timings.fast(), simulate=simulation, list_has_status=False
        ) as cloud,
        EdgegapClient(cloud.token, base_url=cloud.url) as client,
    ):
        server = await client.deploy("arena", "v1", users=["8.8.8.8"])
        [row] = [row async for row in client.deployments.list()]
        assert (row.status, row.ready) == (None, False)
        await server.wait_ready()
        [row] = [row async for row in client.deployments.list()]
        assert (row.status, row.ready) == (None, True)


@pytest.mark.parametrize("list_errors", [True, False])
async def test_the_setting_list_includes_errors_decides_about_rows_in_error(
    *, list_errors: bool
) -> None:
    simulation = Simulation(crash_share=1, crash_after=(0, 0))
    async with (
        Emulator(
            [ARENA], timings=Timings.fast(), simulate=simulation, list_includes_errors=list_errors
        ) as cloud,
        EdgegapClient(cloud.token, base_url=cloud.url) as client,
    ):
        server = await client.deploy("arena", "v1", users=["8.8.8.8"])
        while (await server.refresh()).current_status != Status.ERROR:
            await asyncio.sleep(0.1)
        rows = [row.status async for row in client.deployments.list()]

        assert rows == ([Status.ERROR] if list_errors else [])


async def test_calls_take_the_round_trip_time() -> None:
    async with (
        Emulator([ARENA], simulate=Simulation(), round_trip_time=(0.2, 0.6)) as cloud,
        EdgegapClient(cloud.token, base_url=cloud.url, limits={"list_tags": None}) as client,
    ):
        times = []
        for _ in range(20):
            began = loop_time()
            await client.locations.list()
            times.append(loop_time() - began)
            came = cloud.requests[-1].received_at - began
            assert came == pytest.approx(times[-1] / 2, abs=0.02)

        assert 0.2 <= min(times) < 0.35
        assert 0.45 < max(times) < 0.62


@pytest.mark.parametrize("round_trip", [(-0.1, 1), (2, 1), (0, float("inf"))])
def test_an_invalid_round_trip_time_is_refused(round_trip: tuple[float, float]) -> None:
    with pytest.raises(InvalidRequest, match="round_trip_time"):
        Emulator([ARENA], round_trip_time=round_trip)


async def test_a_list_that_accepts_no_filters_refuses_them_and_shows_all_without() -> None:
    async with (
        Emulator(
            [ARENA], timings=Timings.fast(), simulate=Simulation(), list_accepts_filters=False
        ) as cloud,
        EdgegapClient(cloud.token, base_url=cloud.url) as client,
    ):
        server = await client.deploy("arena", "v1", users=[(48.9, 2.4)])
        with pytest.raises(BadRequest):
            await client.deployments.list(filters=[Filter("tags", "in", ["eu"])])
        page = await client.deployments.list()

        assert [row.request_id for row in page.data] == [server.request_id]
