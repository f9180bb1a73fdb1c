"""What the loop over a batch and `all()` give, and what the end of the block stops."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from datetime import timedelta
from typing import Any

import pytest
from arena import PLAYERS, arena_client, arena_request, arena_requests, await_cancelled_task, ids
from emulator_record import alive

from edgegap_async import DeploymentHandle, EdgegapClient
from edgegap_async.emulator import Drop, Emulator, Fault, Respond

pytestmark = pytest.mark.virtual


async def test_the_loop_gives_each_outcome_as_it_comes(
    emulator: Emulator, client: EdgegapClient
) -> None:
    requests = arena_requests(20)
    outcomes = []
    async with client.deploy_many(requests) as batch:
        async for outcome in batch:
            assert outcome.is_ready
            assert outcome.request is requests[outcome.index]
            assert outcome.result().endpoint().port
            assert outcome.seconds is not None
            outcomes.append(outcome)

    assert sorted(outcome.index for outcome in outcomes) == list(range(20))
    assert [outcome.index for outcome in outcomes] != list(range(20))
    seconds = [outcome.seconds or 0.0 for outcome in outcomes]
    assert seconds == pytest.approx(sorted(seconds), abs=0.001)
    assert alive(emulator) == ids(outcomes)
    assert len(alive(emulator)) == 20


async def test_all_returns_the_outcomes_in_the_order_of_the_requests(
    emulator: Emulator, client: EdgegapClient
) -> None:
    outcomes = await client.deploy_many(arena_requests(20)).all()

    assert [outcome.index for outcome in outcomes] == list(range(20))
    for outcome in outcomes:
        tags = emulator.cloud.deployments[outcome.result().request_id].tags
        assert f"match-{outcome.index}" in tags
    assert alive(emulator) == ids(outcomes)


async def test_all_returns_the_outcomes_that_the_loop_has_not_given(client: EdgegapClient) -> None:
    async with client.deploy_many(arena_requests(5)) as batch:
        first = await anext(batch)
        rest = await batch.all()

        assert len(rest) == 4
        assert first.index not in [outcome.index for outcome in rest]
        with pytest.raises(StopAsyncIteration):
            await anext(batch)


async def test_an_outcome_says_when_its_deployment_was_accepted_and_ready(
    emulator: Emulator, client: EdgegapClient
) -> None:
    wrong = {"application": "arena", "version": "v404", "users": PLAYERS}
    outcome, failed = await client.deploy_many([arena_request(), wrong]).all()

    assert outcome.accepted_at is not None
    assert outcome.ready_at is not None
    assert outcome.ready_at == outcome.result().history[-1].at
    assert outcome.accepted_at <= outcome.ready_at
    assert outcome.accepted_at.utcoffset() == timedelta(0)
    assert (failed.accepted_at, failed.ready_at) == (None, None)


async def test_leaving_the_block_stops_the_deployments_that_the_loop_has_not_given(
    emulator: Emulator, client: EdgegapClient
) -> None:
    async with client.deploy_many(arena_requests(20)) as batch:
        given = [await anext(batch) for _ in range(3)]

    assert alive(emulator) == ids(given)


async def test_leaving_the_block_stops_ready_deployments_that_were_not_claimed(
    emulator: Emulator, client: EdgegapClient
) -> None:
    async with client.deploy_many(arena_requests(5)) as batch:
        async for progress in batch.progress():
            if progress.ready == 5:
                break

    assert len(emulator.cloud.deployments) == 5
    assert alive(emulator) == set()


async def test_a_deployment_that_becomes_ready_in_the_step_in_which_the_block_is_left_is_stopped(
    emulator: Emulator, client: EdgegapClient
) -> None:
    is_checked = asyncio.Event()

    async def ready_in_the_next_step(_: DeploymentHandle) -> None:
        is_checked.set()
        await asyncio.sleep(0)

    async with client.deploy_many(arena_requests(1), playable=ready_in_the_next_step):
        await is_checked.wait()

    assert len(emulator.cloud.deployments) == 1
    assert alive(emulator) == set()


async def test_the_log_names_a_deployment_that_may_exist_and_whose_outcome_was_not_claimed(
    emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    async with arena_client(emulator, list_delay=0.5) as client:
        emulator.faults.add(
            Fault("deploy", Drop(), when="acted", times=2),
            Fault("list_deployments", Respond(503), when="unread", times=None),
        )
        async with client.deploy_many(arena_requests(1)) as batch:
            async for _ in batch.progress():
                pass

    [made] = emulator.cloud.deployments.values()
    [tag] = [name for name in made.tags if name.startswith("op-")]
    assert f"may go on running: POST /v2/deployments (tag {tag})" in caplog.text


async def test_an_error_in_the_block_keeps_the_deployments_that_were_handed_over(
    emulator: Emulator, client: EdgegapClient
) -> None:
    given = []

    async def use() -> None:
        async with client.deploy_many(arena_requests(20)) as batch:
            async for outcome in batch:
                given.append(outcome)
                if len(given) == 2:
                    raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        await use()
    assert alive(emulator) == ids(given)
    assert len(given) == 2


@pytest.mark.parametrize("end", ["left", "error", "closed"])
async def test_stop_at_end_stops_claimed_deployments_at_the_end_of_the_block(
    emulator: Emulator, end: str
) -> None:
    client = arena_client(emulator)

    async def use() -> None:
        async with client.deploy_many(arena_requests(5), stop_at_end=True) as batch:
            given = [await anext(batch), await anext(batch)]
            await asyncio.sleep(10)
            assert ids(given) < alive(emulator)
            await given[0].result().stop()  # by the caller
            if end == "error":
                raise ZeroDivisionError
            if end == "closed":
                await client.close()

    with contextlib.suppress(ZeroDivisionError):
        await use()
    assert alive(emulator) == set()
    await client.close()


async def test_stop_at_end_needs_a_block(client: EdgegapClient) -> None:
    with pytest.raises(RuntimeError, match="needs a block"):
        await client.deploy_many(arena_requests(1), stop_at_end=True).all()


async def test_cancelling_all_stops_every_deployment(
    emulator: Emulator, client: EdgegapClient
) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.5):
            await client.deploy_many(arena_requests(20)).all()

    assert alive(emulator) == set()


async def test_all_can_be_called_again_after_a_timeout(client: EdgegapClient) -> None:
    async with client.deploy_many(arena_requests(5)) as batch:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await batch.all()

        assert len(await batch.all()) == 5


async def test_a_batch_needs_a_block_and_can_be_used_once(client: EdgegapClient) -> None:
    batch = client.deploy_many(arena_requests(1))
    with pytest.raises(RuntimeError, match="async with"):
        await anext(batch)
    async with batch:
        assert repr(batch) == "<Batch of 1: 0 ready, 0 failed>"
        await batch.all()
    with pytest.raises(RuntimeError, match="used once"):
        async with batch:
            pass


async def test_a_stop_that_fails_is_raised_at_the_end_of_the_block(emulator: Emulator) -> None:
    async def use(client: EdgegapClient) -> None:
        async with client.deploy_many(arena_requests(2)) as batch:
            await anext(batch)
            emulator.faults.add(Fault("stop_deployment", Respond(403), when="unread"))

    async with arena_client(emulator) as client:
        with pytest.raises(ExceptionGroup, match="could not be stopped"):
            await use(client)


async def test_a_deployment_that_fails_the_playable_check_fails_its_request(
    emulator: Emulator, client: EdgegapClient
) -> None:
    async def fails_for_match_1(server: DeploymentHandle) -> None:
        if "match-1" in emulator.cloud.deployments[server.request_id].tags:
            raise OSError("no map")

    outcomes = await client.deploy_many(arena_requests(3), playable=fails_for_match_1).all()

    assert [type(outcome.error).__name__ for outcome in outcomes] == [
        "NoneType",
        "NotPlayable",
        "NoneType",
    ]
    assert "no map" in str(outcomes[1].error)
    assert alive(emulator) == ids(outcome for outcome in outcomes if outcome.is_ready)


@pytest.mark.parametrize("on_progress", [None, lambda _: None], ids=["alone", "with progress"])
async def test_a_check_that_awaits_a_cancelled_task_is_repeated(
    emulator: Emulator, client: EdgegapClient, on_progress: Any
) -> None:
    checked = 0

    async def cancelled_at_first(_: DeploymentHandle) -> None:
        nonlocal checked
        checked += 1
        if checked == 1:
            await await_cancelled_task()

    async with asyncio.timeout(60):
        outcomes = await client.deploy_many(
            arena_requests(3), playable=cancelled_at_first, on_progress=on_progress
        ).all()

    assert [outcome.is_ready for outcome in outcomes] == [True] * 3
    assert alive(emulator) == ids(outcomes)


async def test_every_field_of_a_request_is_sent(emulator: Emulator, client: EdgegapClient) -> None:
    await client.deploy_many([arena_request()]).all()  # its location has the version from here on
    request = arena_request(environment_variables={"MAP": "desert"}, require_cached_locations=True)
    [outcome] = await client.deploy_many([request]).all()

    made = emulator.cloud.deployments[outcome.result().request_id]
    assert "match-0" in made.tags
    assert [variable.key for variable in made.request.environment_variables] == ["MAP"]
    assert made.request.require_cached_locations


async def test_a_batch_leaves_no_task_in_the_loop(emulator: Emulator) -> None:
    before = asyncio.all_tasks()
    async with (
        arena_client(emulator) as client,
        client.deploy_many(arena_requests(5), on_progress=lambda _: None) as batch,
    ):
        await anext(batch)
    await asyncio.sleep(1)
    gc.collect()
    left = {task for task in asyncio.all_tasks() - before if "edgegap_async/batch" in repr(task)}
    assert not left
