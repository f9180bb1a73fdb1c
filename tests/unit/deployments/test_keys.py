"""`deploy(…, idempotency_key=…)`: a job that is delivered twice has one deployment."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from arena import PLAYERS, arena_client, arena_cloud, arena_pool, becomes_true, crash
from emulator_record import alive, living, requests_by_operation

from edgegap_async import DeploymentHandle, EdgegapClient, Guard, Status
from edgegap_async.deployments.keys import key_tag
from edgegap_async.emulator import Delay, Drop, Emulator, Fault, Hide, Respond
from edgegap_async.errors import (
    DeploymentTerminated,
    InvalidRequest,
    MaybeCreated,
    NotAllowed,
    ServerError,
)

pytestmark = pytest.mark.virtual


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with arena_cloud() as emulator:
        yield emulator


async def deploy(
    client: EdgegapClient, key: str = "match-42", application: str = "arena", **options: Any
) -> DeploymentHandle:
    return await client.deploy(application, "v1", users=PLAYERS, idempotency_key=key, **options)


def deploys(emulator: Emulator) -> int:
    return requests_by_operation(emulator)["deploy"]


async def test_a_second_deploy_with_the_key_gives_the_same_deployment(emulator: Emulator) -> None:
    async with arena_client(emulator) as client:
        first = await deploy(client)
        second = await deploy(client)
        assert (await second.wait_ready()).request_id == first.request_id
        other = await deploy(client, "match-43")

        assert living(emulator) == {first.request_id, other.request_id}
    assert deploys(emulator) == 2


async def test_deploys_with_one_key_at_the_same_time_make_one_deployment(
    emulator: Emulator,
) -> None:
    async with arena_client(emulator) as client:
        handles = await asyncio.gather(*[deploy(client) for _ in range(5)])

        assert {handle.request_id for handle in handles} == living(emulator)
    assert deploys(emulator) == 1


async def test_a_key_that_lists_do_not_show_yet_is_known_to_its_program(
    emulator: Emulator,
) -> None:
    emulator.faults.add(Fault("list_deployments", Hide(60), times=None))
    async with arena_client(emulator) as client:
        assert (await deploy(client)).request_id == (await deploy(client)).request_id


async def test_the_key_holds_after_a_restart_and_in_a_program_with_another_owner(
    emulator: Emulator,
) -> None:
    async with arena_client(emulator, owner="worker-1") as client:
        first = await deploy(client)
    async with arena_client(emulator, owner="worker-2") as client:
        second = await deploy(client)
        assert second.request_id == first.request_id
        assert second.status is not None  # a status request has shown that it lives

    async with arena_client(emulator, owner="worker-1") as restarted:
        assert await restarted.reap() == ()
    async with arena_client(emulator, owner="worker-2") as restarted:
        assert await restarted.reap() == (first.request_id,)


async def test_a_run_with_the_key_of_a_killed_program_stops_its_deployment(
    emulator: Emulator,
) -> None:
    async with arena_client(emulator) as client:
        first = await deploy(client)
    async with arena_client(emulator) as client:
        async with client.run("arena", "v1", users=PLAYERS, idempotency_key="match-42") as server:
            assert server.request_id == first.request_id
        assert alive(emulator) == set()
    assert deploys(emulator) == 1


async def test_the_applications_of_one_key_are_apart() -> None:
    assert key_tag("arena", "match-42") != key_tag("lobby", "match-42")


def test_the_tag_of_a_key_stays_the_same_in_later_versions() -> None:
    digest = hashlib.blake2b(b"arena\nmatch-42", digest_size=10).digest()
    tag = key_tag("arena", "match-42")
    assert tag == "key-" + base64.b32encode(digest).decode().lower() == "key-yzzkhkayi7p7fexs"
    assert len(tag) == 20


@pytest.mark.parametrize("end", ["stop", "error", "terminated elsewhere"])
async def test_a_deployment_that_has_ended_frees_its_key(emulator: Emulator, end: str) -> None:
    async with arena_client(emulator) as client, arena_client(emulator) as other:
        first = await deploy(client)
        await first.wait_ready()
        if end == "stop":
            await first.stop()
        elif end == "error":
            crash(emulator, first.request_id)
            await becomes_true(
                lambda: emulator.cloud.deployments[first.request_id].status == Status.ERROR
            )
        else:
            await other.handle(first.request_id).stop()
        second = await deploy(client)

        assert second.request_id != first.request_id
        assert (await deploy(other)).request_id == second.request_id


async def test_a_deployment_that_is_being_stopped_is_not_given_again(emulator: Emulator) -> None:
    """A stop before READY takes effect at READY: the API shows no sign of it until then."""
    async with arena_client(emulator) as client:
        first = await deploy(client)
        await first.stop()
        second = await deploy(client)

        assert second.request_id != first.request_id


async def test_a_lost_answer_and_a_deploy_that_may_have_been_made_are_found_by_the_key(
    emulator: Emulator,
) -> None:
    emulator.faults.add(
        Fault("deploy", Drop()), Fault("list_deployments", Respond(500), skip=1, times=9)
    )
    async with arena_client(emulator) as client:
        with pytest.raises(MaybeCreated):
            await deploy(client)
        emulator.faults.clear()
        again = await deploy(client)

        assert living(emulator) == {again.request_id}


async def test_a_list_request_that_fails_deploys_nothing(emulator: Emulator) -> None:
    emulator.faults.add(Fault("list_deployments", Respond(500), times=None))
    async with arena_client(emulator) as client:
        with pytest.raises(ServerError):
            await deploy(client)

    assert deploys(emulator) == 0


async def test_a_caller_that_is_cancelled_leaves_the_key_to_the_next_one(
    emulator: Emulator,
) -> None:
    emulator.faults.add(Fault("deploy", Delay(1.0), when="acted"))
    async with arena_client(emulator) as client:
        first, second = (asyncio.create_task(deploy(client)) for _ in range(2))
        await asyncio.sleep(0.5)
        first.cancel()
        server = await second

        await becomes_true(lambda: alive(emulator) == {server.request_id})
        assert (await server.wait_ready()).request_id == server.request_id
    assert deploys(emulator) == 2


async def test_a_caller_that_is_cancelled_does_not_stop_a_deployment_of_an_earlier_one(
    emulator: Emulator,
) -> None:
    async with arena_client(emulator, owner="worker-1") as client:
        first = await deploy(client)
    emulator.faults.add(Fault("rename_tag", Delay(5.0)))
    async with arena_client(emulator, owner="worker-2") as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2):
                await deploy(client)

    assert alive(emulator) == {first.request_id}


@pytest.mark.parametrize("hidden", [0.0, 0.5, 1.8])
async def test_of_two_programs_at_the_same_time_one_keeps_its_deployment(
    emulator: Emulator, hidden: float, caplog: pytest.LogCaptureFixture
) -> None:
    emulator.faults.add(Fault("list_deployments", Hide(hidden), times=None))
    async with arena_client(emulator) as one, arena_client(emulator) as two:
        first, second = await asyncio.gather(deploy(one), deploy(two))
        await asyncio.sleep(4)  # `list_delay` is 2 s

        [kept] = alive(emulator)
        assert kept in {first.request_id, second.request_id}
        if hidden:
            loser = {first.request_id: first, second.request_id: second}
            del loser[kept]
            with pytest.raises(DeploymentTerminated):
                await loser.popitem()[1].wait_ready()
        assert (await deploy(one)).request_id == (await deploy(two)).request_id == kept
    assert "two deploys had the same idempotency key, and" in caplog.text
    assert "carried out twice" not in caplog.text


@pytest.mark.parametrize("made", ["earlier", "later"])
async def test_the_deployment_with_the_earlier_operation_tag_is_kept(
    emulator: Emulator, made: str
) -> None:
    emulator.faults.add(Fault("list_deployments", Hide(1.0), times=None))
    operation_tag = "op-t" + ("0" if made == "earlier" else "z") * 16
    async with arena_client(emulator) as client:
        other = await client.deployments.deploy(  # of a program that has died since
            "arena", "v1", users=PLAYERS, tags=[key_tag("arena", "match-42"), operation_tag]
        )
        server = await deploy(client)
        await asyncio.sleep(4)

        kept = other.request_id if made == "earlier" else server.request_id
        assert alive(emulator) == {kept}
        assert (await deploy(client)).request_id == kept


@pytest.mark.parametrize("status", [Status.ERROR, Status.TERMINATING])
async def test_a_deployment_that_has_failed_is_not_kept_in_place_of_the_one_after_it(
    emulator: Emulator, status: Status
) -> None:
    """Also if rows have no status, as the API's description says."""
    emulator.faults.add(Fault("list_deployments", Hide(0.5), times=None))
    async with arena_client(emulator) as client:
        other = await client.deployments.deploy(
            "arena", "v1", users=PLAYERS, tags=[key_tag("arena", "match-42"), "op-t" + "0" * 16]
        )
        server = await deploy(client)
        shown = {"request_id": other.request_id, "current_status": str(status)}
        emulator.faults.add(
            Fault("get_deployment", Respond(200, shown), skip=1)  # the first is for its own
        )
        await asyncio.sleep(4)

        assert server.request_id in alive(emulator)


async def test_a_deployment_that_is_found_is_not_counted_as_new_by_the_guard(
    emulator: Emulator,
) -> None:
    async with arena_client(emulator) as client:
        first = await deploy(client)
    async with arena_client(emulator, guard=Guard(max_live=1)) as client:
        assert (await deploy(client)).request_id == first.request_id
        with pytest.raises(NotAllowed):  # it counts as live
            await deploy(client, "match-43")


async def test_a_deploy_with_a_key_makes_three_list_requests_and_one_that_finds_makes_one(
    emulator: Emulator,
) -> None:
    async with arena_client(emulator) as client:
        await deploy(client)
        await asyncio.sleep(10)
    assert requests_by_operation(emulator)["list_deployments"] == 3
    async with arena_client(emulator) as client:
        await deploy(client)
        await deploy(client)
    assert requests_by_operation(emulator)["list_deployments"] == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key": ""}, "idempotency_key must be a text that is not empty"),
        ({"key": 42}, "idempotency_key must be a text"),
        ({"key": "x" * 256}, "255 is the most"),
        ({"key": "a\nb"}, "control characters"),
        ({"operation_tag": False}, "needs the operation tag"),
    ],
)
async def test_a_key_that_cannot_be_used_is_refused(
    emulator: Emulator, options: dict[str, Any], message: str
) -> None:
    async with arena_client(emulator) as client:
        with pytest.raises(InvalidRequest, match=message):
            await deploy(client, **options)

    assert not emulator.requests


async def test_batches_and_pools_take_no_key(emulator: Emulator) -> None:
    request = {"application": "arena", "version": "v1", "users": PLAYERS, "idempotency_key": "a"}
    async with arena_client(emulator) as client:
        [outcome] = await client.deploy_many([request]).all()
        with pytest.raises(InvalidRequest, match=r"use client\.deploy"):
            outcome.result()
        with pytest.raises(InvalidRequest, match="no certain job"):
            arena_pool(client, idempotency_key="a")


async def test_close_reads_the_list_once_in_place_of_the_wait(emulator: Emulator) -> None:
    loop = asyncio.get_running_loop()
    async with arena_client(emulator, list_delay=30.0) as client:
        await deploy(client)
        began = loop.time()
    assert loop.time() - began < 1
    assert requests_by_operation(emulator)["list_deployments"] == 3
