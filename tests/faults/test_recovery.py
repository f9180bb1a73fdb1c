"""A program that was killed leaves servers, which its next run recovers: its own, and no others."""

from __future__ import annotations

import asyncio
import math
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from emulator_record import living, until_living
from quick_client import NO_LIMITS, USERS, quick_client

from edgegap_async import EdgegapClient, PollingPolicy, RetryPolicy, ServerPool
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
from edgegap_async.errors import DeploymentFailed, InvalidRequest, MaybeCreated

Connect = Callable[[str | None], EdgegapClient]


@pytest.fixture
def connect(emulator: Emulator) -> Connect:
    """Returns a client for an owner, as a program that starts would make it."""

    def connect(owner: str | None) -> EdgegapClient:
        retries = RetryPolicy(attempts=1)
        return quick_client(emulator.url, owner=owner, list_delay=0.2, retries=retries)

    return connect


async def test_the_next_run_recovers_the_server_of_the_last_run(connect: Connect) -> None:
    async with connect("mm-1") as before:
        left = await before.deploy("arena", "v1", users=USERS)
        assert [found async for found in before.recover()] == []  # the client has the handle itself
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
async def test_servers_that_are_stopped_during_recover_hide_no_others() -> None:
    """A stopped server leaves the list, so that the next page begins further on."""
    async with Emulator(
        [sample_application()], timings=Timings.fast(), simulate=Simulation(), limits=False
    ) as emulator:
        settings: dict[str, Any] = {"base_url": emulator.url, "owner": "mm-1", "limits": NO_LIMITS}
        async with EdgegapClient(emulator.token, **settings) as before:
            left = [await before.deploy("arena", "v1", users=USERS) for _ in range(60)]
            await asyncio.gather(*(server.wait_ready() for server in left))
        async with EdgegapClient(emulator.token, **settings) as after:
            found = set()
            async for recovered in after.recover():
                await recovered.handle.stop(wait=True)
                found.add(recovered.handle.request_id)

        assert found == {server.request_id for server in left}


async def test_a_deploy_in_progress_is_not_recovered(emulator: Emulator, connect: Connect) -> None:
    """The list shows the deployment before the client has the answer to its deploy."""
    emulator.faults.add(Fault("deploy", Delay(0.5), when="acted"))
    async with connect("mm-1") as client:
        deploying = asyncio.create_task(client.deploy("arena", "v1", users=USERS))
        while not living(emulator):
            await asyncio.sleep(0.01)
        assert not deploying.done()
        assert await client.reap() == ()
        assert living(emulator) == {(await deploying).request_id}


async def test_servers_of_other_owners_are_not_recovered(
    emulator: Emulator, connect: Connect
) -> None:
    ids = []
    for owner in ("mm-1", "mm-12", None):
        async with connect(owner) as client:
            ids.append((await client.deploy("arena", "v1", users=USERS)).request_id)
    rows = {"data": [{"request_id": one, "tags": ["own-mm-12"]} for one in ids]}
    emulator.faults.add(Fault("list_deployments", Respond(200, rows)))  # the filter is ignored
    async with connect("mm-1") as client:
        assert await client.reap() == ()
        assert await client.reap() == (ids[0],)

    await until_living(emulator, *ids[1:])


async def test_row_70_servers_of_a_pool_are_not_recovered(
    emulator: Emulator, connect: Connect
) -> None:
    """The pool adopts two READY servers, and leaves an allocated server to its players."""
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
        assert {server.request_id for server in left} <= living(emulator)
        await server.stop()
        await client.handle(left[2].request_id).stop()

    await until_living(emulator)


async def test_reap_with_older_than_spares_young_servers_and_servers_without_an_age(
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
        assert living(emulator) == both
        assert set(await client.reap()) == both

    await until_living(emulator)


async def test_the_age_of_a_server_without_an_operation_tag_counts_from_ready(
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


async def test_reap_stops_the_others_after_a_stop_that_fails(
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
            while len(living(emulator)) > 1:
                await asyncio.sleep(0.01)
        await client.reap()

    await until_living(emulator)


async def test_a_deployment_of_a_maybe_created_is_recovered_by_its_tag(
    emulator: Emulator, connect: Connect
) -> None:
    emulator.faults.add(Fault("deploy", Drop()), Fault("list_deployments", Respond(500)))
    async with connect(None) as client:
        with pytest.raises(MaybeCreated) as error:
            await client.deploy("arena", "v1", users=USERS)
        [found] = [found async for found in client.recover(error.value.operation_tag)]
        await found.handle.stop(wait=True, timeout=20)

    assert not living(emulator)


async def test_reap_needs_an_owner(connect: Connect) -> None:
    async with connect(None) as client:
        with pytest.raises(InvalidRequest, match="owner"):
            await client.reap()


@pytest.mark.parametrize("owner", ["", "a" * 41, "mm 1", "mm/1", "ü"])
def test_an_owner_that_does_not_fit_a_tag_is_refused(owner: str) -> None:
    with pytest.raises(InvalidRequest, match="owner must be 1 to 40"):
        EdgegapClient("canary-t", owner=owner)


async def test_row_50_the_error_of_a_failed_run_quotes_the_last_lines_of_the_server() -> None:
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
                pytest.fail("the server never was READY")

        assert not living(emulator)
    assert failure.value.exit_code == 3
    assert failure.value.last_lines == "out of ammunition"
    assert "exited with code 3" in str(failure.value)
    assert failure.value.history


async def test_a_failed_run_without_logs_is_stopped_too(
    emulator: Emulator, connect: Connect
) -> None:
    application = attrs.evolve(sample_application("--never-bind"), time_to_deploy=0)
    emulator.cloud.registry.put(application)
    emulator.faults.add(Fault("get_container_logs", Respond(404)))
    async with connect(None) as client:
        with pytest.raises(DeploymentFailed) as failure:
            async with client.run("arena", "v1", users=USERS):
                pytest.fail("the server never was READY")

    assert failure.value.logs is None
    assert (failure.value.exit_code, failure.value.last_lines) == (None, "")
    assert not living(emulator)


@pytest.mark.timeout(0)
async def test_row_32_reap_finds_every_server_of_a_program_that_was_killed_at_any_time(
    emulator: Emulator, connect: Connect, rounds: int
) -> None:
    """The long form is `pytest -k row_32 --rounds 1000`."""
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
            left_behind += len(living(emulator))
            # The emulator may still handle requests of the killed program.
            while living(emulator) or emulator.open_requests:
                await client.reap()

        assert not living(emulator)
    assert left_behind or rounds < 10  # some programs were killed after a deploy


@pytest.mark.parametrize("older_than", [-5, math.nan, "60", None])
async def test_a_wrong_older_than_is_refused_and_stops_nothing(
    emulator: Emulator, older_than: Any
) -> None:
    async with EdgegapClient(emulator.token, base_url=emulator.url, owner="mm") as client:
        with pytest.raises(InvalidRequest, match="older_than"):
            await client.reap(older_than=older_than)
    async with EdgegapClient(emulator.token, base_url=emulator.url) as client:
        with pytest.raises(InvalidRequest, match=r"reap\(\) needs EdgegapClient\(owner"):
            await client.reap()

    assert not emulator.requests


@pytest.mark.parametrize("length", [1, 16, 36, 37, 40])
async def test_owners_of_each_length_have_tags_of_their_own(connect: Connect, length: int) -> None:
    ours, theirs = "a" * length, "a" * (length - 1) + "b"
    async with connect(ours) as first, connect(theirs) as second:
        mine = await first.deploy("arena", "v1", users=USERS)
        await second.deploy("arena", "v1", users=USERS)
        async with connect(ours) as restarted:
            found = [one.row async for one in restarted.recover()]

    assert [row.request_id for row in found] == [mine.request_id]
    assert max(map(len, found[0].tags)) <= 40
