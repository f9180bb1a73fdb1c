"""Deploys that fail: delays between them, and the errors that callers get."""

from __future__ import annotations

import asyncio

import pytest
from arena import arena_client, arena_cloud, arena_pool, becomes_true
from emulator_record import alive, requests_by_operation

from edgegap_async import DeploymentHandle, EdgegapClient, Status
from edgegap_async.concurrency import loop_time
from edgegap_async.deployments.playable import _CallableCheck
from edgegap_async.emulator import Delay, Emulator, Fault, Respond, Simulation
from edgegap_async.errors import InvalidRequest, PoolEmpty
from edgegap_async.requests import PlayableCheck

pytestmark = pytest.mark.virtual


async def test_deploys_that_fail_repeatedly_are_delayed_and_reported(
    emulator: Emulator, client: EdgegapClient
) -> None:
    emulator.faults.add(Fault("deploy", Respond(422), when="unread", times=None))
    began = loop_time()
    async with arena_pool(client, min_ready=3) as pool:
        with pytest.raises(PoolEmpty, match="cannot be deployed") as caught:
            await pool.allocate()
        assert "422" in str(caught.value)
        assert "max_total" not in str(caught.value)  # more servers or time would not help
        assert caught.value.__cause__ is not None
        await asyncio.sleep(began + 60 - loop_time())
        in_the_first_minute = requests_by_operation(emulator)["deploy"]
        assert 3 < in_the_first_minute <= 3 + 7
        with pytest.raises(PoolEmpty):
            await pool.allocate()  # at once, without a timeout
        await asyncio.sleep(600)
        assert requests_by_operation(emulator)["deploy"] - in_the_first_minute <= 10 / 0.75 + 1
        stats = pool.stats
        assert stats.failing

        emulator.faults.clear()
        await becomes_true(lambda: pool.stats.ready == 3)
        assert not pool.stats.failing
        assert (await pool.allocate(timeout=0.001)).status is Status.READY


async def test_a_pool_with_min_ready_zero_deploys_again_when_a_caller_comes(
    emulator: Emulator, client: EdgegapClient
) -> None:
    emulator.faults.add(Fault("deploy", Respond(400), when="unread", times=None))
    async with arena_pool(client, min_ready=0) as pool:
        with pytest.raises(PoolEmpty):
            await pool.allocate()
        emulator.faults.clear()
        with pytest.raises(PoolEmpty):
            await pool.allocate()
        await asyncio.sleep(60)

        assert (await pool.allocate(timeout=20)).status is Status.READY


async def test_two_failures_are_not_reported_to_waiting_callers(
    emulator: Emulator, client: EdgegapClient
) -> None:
    emulator.faults.add(Fault("deploy", Respond(422), when="unread", times=2))
    async with arena_pool(client, min_ready=0) as pool:
        assert (await pool.allocate(timeout=30)).status is Status.READY
        assert pool.stats.failed == 2


async def test_a_slow_deploy_does_not_prevent_the_attempt_after_a_failure(
    emulator: Emulator, client: EdgegapClient
) -> None:
    checked = list[str]()

    async def the_first_never_answers(server: DeploymentHandle) -> None:
        checked.append(server.request_id)
        if server.request_id == checked[0]:
            raise OSError("no map yet")

    check = _CallableCheck(function=the_first_never_answers, timeout=300)
    emulator.faults.add(Fault("deploy", Respond(422), when="unread", skip=1))
    async with arena_pool(client, min_ready=2, playable=check) as pool:
        await becomes_true(lambda: pool.stats.failed)

        assert (await pool.allocate(timeout=20)).status is Status.READY
        assert not pool.stats.failing


async def test_deploys_that_began_before_a_failure_do_not_lengthen_the_delay(
    emulator: Emulator, client: EdgegapClient
) -> None:
    """Each of six deploys fails later than the delay that the failure before it has caused."""
    checked = list[str]()

    async def each_fails_later(server: DeploymentHandle) -> None:
        if server.request_id not in checked:
            checked.append(server.request_id)
        number = checked.index(server.request_id)
        if number < 6:
            await asyncio.sleep(3 * number)
            raise InvalidRequest("no such port")

    check = _CallableCheck(function=each_fails_later, attempt_timeout=100, timeout=100)
    async with arena_pool(client, min_ready=6, playable=check) as pool:
        await becomes_true(lambda: pool.stats.failed)

        assert (await pool.allocate(timeout=60)).status is Status.READY


async def test_an_unexpected_error_is_reported_to_callers_and_raised_by_the_block(
    emulator: Emulator, client: EdgegapClient
) -> None:
    class Broken(PlayableCheck):
        async def attempt(self, server: DeploymentHandle) -> None:
            raise OSError

        def tried(self, server: DeploymentHandle) -> str:
            raise ZeroDivisionError("mine")

    async def allocate_twice() -> None:
        async with arena_pool(client, min_ready=2, playable=Broken(timeout=1)) as pool:
            for _ in range(2):
                with pytest.raises(PoolEmpty, match="the pool has failed: ZeroDiv") as caught:
                    await pool.allocate()
                assert isinstance(caught.value.__cause__, ZeroDivisionError)

    emulator.faults.add(Fault("stop_deployment", Delay(5), times=None))
    with pytest.raises(ZeroDivisionError, match="mine"):
        await allocate_twice()
    assert alive(emulator) == set()


async def test_a_deployment_that_fails_is_stopped() -> None:
    simulation = Simulation(crash_share=1.0, ready_after=(5.0, 5.0), crash_after=(1.0, 1.0))
    async with arena_cloud(simulate=simulation) as emulator, arena_client(emulator) as client:
        async with arena_pool(client, min_ready=2) as pool:
            with pytest.raises(PoolEmpty):
                await pool.allocate()
        assert alive(emulator) == set()
