"""What a program that was killed leaves behind is found by its next run, and only by its own."""

from __future__ import annotations

import asyncio
import math
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

from edgegap_async import (
    DeploymentFailed,
    EdgegapClient,
    InvalidRequest,
    MaybeCreated,
    PollingPolicy,
    RetryPolicy,
    ServerPool,
    Status,
)
from edgegap_async.emulator import (
    Application,
    Delay,
    Drop,
    Emulator,
    Fault,
    Respond,
    Simulation,
    Timings,
    sample_application,
)

USERS = ["8.8.8.8"]
NO_LIMITS = {"deploy": None, "get_deployment": None, "list_deployments": None}
Connect = Callable[..., AbstractAsyncContextManager[EdgegapClient]]


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with Emulator([sample_application()], timings=Timings.fast(), limits=False) as emulator:
        yield emulator


@pytest.fixture
def connect(emulator: Emulator) -> Connect:
    @asynccontextmanager
    async def connect(owner: str | None) -> AsyncIterator[EdgegapClient]:
        async with EdgegapClient(
            emulator.token,
            base_url=emulator.url,
            owner=owner,
            list_delay=0.2,
            retries=RetryPolicy(attempts=1),
            polling=PollingPolicy(first_delay=0.01, interval=0.02),
        ) as client:
            yield client

    return connect


def live(emulator: Emulator) -> list[str]:
    over = {Status.TERMINATING, Status.TERMINATED}
    return [one.request_id for one in emulator.cloud.deployments.values() if one.status not in over]


async def comes_down_to(emulator: Emulator, *ids: str) -> bool:
    """Waits until only these are left: one that is not READY yet is stopped once it is."""
    async with asyncio.timeout(20):
        while set(live(emulator)) != set(ids):
            await asyncio.sleep(0.01)
    return True


async def test_the_next_run_finds_what_the_last_one_left_and_can_adopt_it(connect: Connect) -> None:
    async with connect("mm-1") as before:
        left = await before.deploy("arena", "v1", users=USERS)
        assert [found async for found in before.recover()] == []  # it has it itself
    async with connect("mm-1") as after:
        [found] = [found async for found in after.recover()]
        assert found.handle.request_id == left.request_id == found.row.request_id
        assert found.age is not None
        assert found.age < 30
        await found.handle.wait_ready(timeout=20)
        assert found.handle.endpoint("game").port
        await found.handle.stop(wait=True, timeout=20)

        assert [found async for found in after.recover()] == []


@pytest.mark.virtual
async def test_one_that_is_stopped_as_it_is_found_hides_none_of_the_others() -> None:
    """What is stopped leaves the list, and the next page begins further on."""
    async with Emulator(
        [sample_application()], timings=Timings.fast(), simulate=Simulation(), limits=False
    ) as emulator:
        settings: dict[str, Any] = {"base_url": emulator.url, "owner": "mm-1", "limits": NO_LIMITS}
        async with EdgegapClient(emulator.token, **settings) as before:
            left = [await before.deploy("arena", "v1", users=USERS) for _ in range(60)]
            await asyncio.gather(*(one.wait_ready() for one in left))
        async with EdgegapClient(emulator.token, **settings) as after:
            found = set()
            async for one in after.recover():
                await one.handle.stop(wait=True)
                found.add(one.handle.request_id)

        assert found == {one.request_id for one in left}


async def test_what_is_being_deployed_is_not_what_an_earlier_run_left(
    emulator: Emulator, connect: Connect
) -> None:
    """It is in the list before the answer to its deploy is here."""
    emulator.faults.add(Fault("deploy", Delay(0.5), when="acted"))
    async with connect("mm-1") as client:
        deploying = asyncio.create_task(client.deploy("arena", "v1", users=USERS))
        while not live(emulator):
            await asyncio.sleep(0.01)
        assert not deploying.done()
        assert await client.reap() == ()
        assert live(emulator) == [(await deploying).request_id]


async def test_nobody_finds_or_touches_another_owners(emulator: Emulator, connect: Connect) -> None:
    ids = []
    for owner in ("mm-1", "mm-12", None):
        async with connect(owner) as client:
            ids.append((await client.deploy("arena", "v1", users=USERS)).request_id)
    rows = {"data": [{"request_id": one, "tags": ["own-mm-12"]} for one in ids]}
    emulator.faults.add(Fault("list_deployments", Respond(200, rows)))  # the filter is ignored
    async with connect("mm-1") as client:
        assert await client.reap() == ()
        assert await client.reap() == (ids[0],)

    assert await comes_down_to(emulator, *ids[1:])


async def test_what_a_pool_has_adopted_or_handed_out_is_not_found_again(
    emulator: Emulator, connect: Connect
) -> None:
    """Two ready servers are adopted, and one that was in use before is left to its players."""
    async with connect("mm-1") as before:
        left = [
            await before.deploy("arena", "v1", users=USERS, tags=[tag])
            for tag in ("pool-default", "pool-default", "used-default")
        ]
        await asyncio.gather(*(one.wait_ready(timeout=20) for one in left))
    async with (
        connect("mm-1") as client,
        ServerPool(client, "arena", "v1", users=USERS, min_ready=1, poll_interval=3600) as pool,
    ):
        await pool.filled(timeout=20)
        server = await pool.allocate(timeout=20)
        assert [found async for found in client.recover()] == []
        assert await client.reap() == ()
        assert {one.request_id for one in left} <= set(live(emulator))
        await server.stop()
        await client.handle(left[2].request_id).stop()

    assert await comes_down_to(emulator)


async def test_reap_leaves_alone_what_is_young_and_what_tells_no_age(
    emulator: Emulator, connect: Connect
) -> None:
    async with connect("mm-1") as client:
        young = await client.deploy("arena", "v1", users=USERS)
        ageless = await client.deploy("arena", "v1", users=USERS, operation_tag=False)
        await young.wait_ready(timeout=20)
    async with connect("mm-1") as client:
        assert await client.reap(older_than=60) == ()
        both = {young.request_id, ageless.request_id}
        assert set(await client.reap(dry_run=True)) == both
        assert set(live(emulator)) == both
        assert set(await client.reap()) == both

    assert await comes_down_to(emulator)


async def test_the_age_of_one_without_a_tag_counts_from_ready(
    emulator: Emulator, connect: Connect
) -> None:
    async with connect("mm-1") as client:
        await (await client.deploy("arena", "v1", users=USERS, operation_tag=False)).wait_ready(
            timeout=20
        )
    async with connect("mm-1") as client:
        ages = [found.age async for found in client.recover()]

    assert ages[0] is not None
    assert 0 <= ages[0] < 30


async def test_a_stop_that_fails_does_not_keep_reap_from_the_others(
    emulator: Emulator, connect: Connect
) -> None:
    async with connect("mm-1") as client:
        for _ in range(3):
            await client.deploy("arena", "v1", users=USERS)
    emulator.faults.add(Fault("stop_deployment", Respond(403), when="read"))
    async with connect("mm-1") as client:
        with pytest.raises(ExceptionGroup, match="could not be stopped") as failures:
            await client.reap()
        assert len(failures.value.exceptions) == 1
        async with asyncio.timeout(10):
            while len(live(emulator)) > 1:
                await asyncio.sleep(0.01)
        await client.reap()

    assert await comes_down_to(emulator)


async def test_what_nobody_could_find_out_is_found_later_by_its_tag(
    emulator: Emulator, connect: Connect
) -> None:
    emulator.faults.add(Fault("deploy", Drop()), Fault("list_deployments", Respond(500)))
    async with connect(None) as client:
        with pytest.raises(MaybeCreated) as doubt:
            await client.deploy("arena", "v1", users=USERS)
        [found] = [found async for found in client.recover(doubt.value.operation_tag)]
        await found.handle.stop(wait=True, timeout=20)

    assert live(emulator) == []


async def test_without_an_owner_there_is_nothing_to_recover(connect: Connect) -> None:
    async with connect(None) as client:
        with pytest.raises(InvalidRequest, match="owner"):
            await client.reap()


@pytest.mark.parametrize("owner", ["", "a" * 17, "mm 1", "mm/1", "ü"])
def test_an_owner_that_does_not_fit_a_tag_is_refused(owner: str) -> None:
    with pytest.raises(InvalidRequest, match="owner is 1 to 16"):
        EdgegapClient("canary-t", owner=owner)


async def test_row_50_a_run_that_fails_says_why_in_the_servers_own_words() -> None:
    program = Application(
        name="arena",
        version="v1",
        argv=("{python}", "-c", "print('out of ammunition'); raise SystemExit(3)"),
        ports=sample_application().ports,
    )
    async with (
        Emulator([program], timings=Timings.fast()) as emulator,
        EdgegapClient(
            emulator.token, base_url=emulator.url, polling=PollingPolicy(first_delay=0.01)
        ) as client,
    ):
        with pytest.raises(DeploymentFailed, match="out of ammunition") as failure:
            async with client.run("arena", "v1", users=USERS):
                pytest.fail("it never was READY")

        assert live(emulator) == []
    assert failure.value.exit_code == 3
    assert failure.value.last_lines == "out of ammunition"
    assert "exit code 3" in str(failure.value)
    assert failure.value.history


async def test_a_run_that_fails_and_has_no_logs_is_stopped_all_the_same(
    emulator: Emulator, connect: Connect
) -> None:
    emulator.cloud._applications[("arena", "v1")] = attrs.evolve(
        sample_application("--never-bind"), time_to_deploy=0
    )
    emulator.faults.add(Fault("get_container_logs", Respond(404)))
    async with connect(None) as client:
        with pytest.raises(DeploymentFailed) as failure:
            async with client.run("arena", "v1", users=USERS):
                pytest.fail("it never was READY")

    assert failure.value.logs is None
    assert (failure.value.exit_code, failure.value.last_lines) == (None, "")
    assert live(emulator) == []


@pytest.mark.timeout(0)
async def test_row_32_a_program_killed_at_any_time_leaves_nothing_that_reap_does_not_find(
    emulator: Emulator, connect: Connect, rounds: int
) -> None:
    """A campaign: `pytest -k row_32 --rounds 1000` for the long form."""
    chance = random.Random(32)
    left_behind = 0
    for _ in range(rounds):
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(Path(__file__).parents[1] / "support/programs/program_to_kill.py"),
            emulator.url,
            emulator.token,
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        await process.stdout.readline()
        await asyncio.sleep(chance.uniform(0, 0.1))
        process.kill()
        await process.communicate()
        async with connect("mm-1") as client, asyncio.timeout(20):
            left_behind += len(live(emulator))
            # What it had sent may still be on its way to the API when it is gone.
            while live(emulator) or emulator.open_requests:
                await client.reap()

        assert live(emulator) == []
    assert left_behind or rounds < 10  # or it was not killed in the middle of anything


@pytest.mark.parametrize("older_than", [-5, math.nan, "60", None])
async def test_an_age_that_cannot_be_stops_nothing(emulator: Emulator, older_than: Any) -> None:
    async with EdgegapClient(emulator.token, base_url=emulator.url, owner="mm") as client:
        with pytest.raises(InvalidRequest, match="older_than"):
            await client.reap(older_than=older_than)
    async with EdgegapClient(emulator.token, base_url=emulator.url) as client:
        with pytest.raises(InvalidRequest, match=r"reap\(\) needs EdgegapClient\(owner"):
            await client.reap()

    assert not emulator.requests
