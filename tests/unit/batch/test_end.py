"""What ends a batch before its last outcome: the deadline, an error, the client's end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from arena import (
    arena_client,
    arena_cloud,
    arena_request,
    arena_requests,
    collect,
    ids,
    never_ready,
)
from emulator_record import alive, requests_by_operation

from edgegap_async import DeployRequest, EdgegapClient, EdgegapError, Outcome
from edgegap_async.concurrency import loop_time
from edgegap_async.emulator import Delay, Emulator, Fault, Respond, Simulation
from edgegap_async.errors import BatchStopped, ClientClosed, DeploymentFailed, WaitTimedOut

pytestmark = pytest.mark.virtual


async def test_a_deployment_that_is_not_ready_at_the_deadline_has_timed_out() -> None:
    async with (
        arena_cloud(simulate=never_ready(False, True, False, False)) as emulator,
        arena_client(emulator) as client,
    ):
        began = loop_time()
        outcomes = await client.deploy_many(arena_requests(4), timeout=10).all()

        assert 10 <= loop_time() - began < 11
        late = [outcome for outcome in outcomes if not outcome.is_ready]
        assert [type(outcome.error) for outcome in late] == [WaitTimedOut]
        assert alive(emulator) == ids(outcomes) - ids(late)


async def test_a_request_that_was_not_begun_at_the_deadline_says_so() -> None:
    async with (
        arena_cloud(simulate=never_ready(True)) as emulator,
        arena_client(emulator) as client,
    ):
        outcomes = await client.deploy_many(arena_requests(3), timeout=5, concurrency=1).all()

        assert [type(outcome.error) for outcome in outcomes] == [WaitTimedOut] * 3
        assert "nothing was sent" in str(outcomes[2].error)
        assert "billed" not in str(outcomes[2].error)
        assert "The API has accepted its stop" in str(outcomes[0].error)
        assert requests_by_operation(emulator)["deploy"] == 1


async def test_requests_without_a_slot_get_their_outcome_at_the_deadline() -> None:
    async with (
        arena_cloud(simulate=never_ready(True)) as emulator,
        arena_client(emulator) as client,
    ):
        emulator.faults.add(Fault("stop_deployment", Delay(20)))
        began, reported = loop_time(), dict[int, float]()
        async with client.deploy_many(arena_requests(3), timeout=5, concurrency=1) as batch:
            async for outcome in batch:
                assert isinstance(outcome.error, WaitTimedOut)
                reported[outcome.index] = loop_time() - began

        assert [reported[1], reported[2]] == pytest.approx([5, 5], abs=0.1)
        assert reported[0] > 20  # the first keeps its slot until it is stopped


@pytest.mark.parametrize(("limit", "least"), [(10, 10), (None, 15)])
async def test_logs_without_an_answer_delay_an_outcome_by_ten_seconds_and_not_beyond_the_deadline(
    limit: float | None, least: float
) -> None:
    simulation = Simulation(crash_share=1.0, ready_after=(50.0, 50.0), crash_after=(5.0, 5.0))
    async with arena_cloud(simulate=simulation) as emulator, arena_client(emulator) as client:
        emulator.faults.add(Fault("get_container_logs", Delay(1000), times=None))
        began = loop_time()
        outcomes = await client.deploy_many(arena_requests(3), timeout=limit).all()

        assert least <= loop_time() - began < least + 2
        for outcome in outcomes:
            assert isinstance(outcome.error, DeploymentFailed)
            assert outcome.error.logs is None
        assert alive(emulator) == set()


async def test_the_error_that_ended_a_batch_is_raised_also_while_its_stops_are_in_progress(
    emulator: Emulator, client: EdgegapClient
) -> None:
    async def requests() -> AsyncIterator[DeployRequest]:
        yield arena_request()
        await asyncio.sleep(1)
        raise ZeroDivisionError

    emulator.faults.add(Fault("stop_deployment", Delay(2)))
    with pytest.raises(ZeroDivisionError):
        async with client.deploy_many(requests()):
            await asyncio.sleep(2)
    assert alive(emulator) == set()


async def test_the_error_that_ended_a_batch_is_raised_by_the_block_if_it_was_not_raised_before(
    client: EdgegapClient,
) -> None:
    def requests() -> Iterator[DeployRequest]:
        yield arena_request(1 // 0)

    async def use() -> None:
        async with client.deploy_many(requests()) as batch:
            async for _ in batch.progress():
                pass

    with pytest.raises(ZeroDivisionError):
        await use()


async def test_the_error_that_ended_a_batch_is_noted_on_an_error_of_the_block(
    emulator: Emulator, client: EdgegapClient
) -> None:
    def retry_with(request: DeployRequest, error: EdgegapError) -> DeployRequest:
        raise ValueError("no other request")

    async def use() -> None:
        async with client.deploy_many(
            arena_requests(1), attempts=2, retry_with=retry_with
        ) as batch:
            async for _ in batch.progress():
                pass
            raise LookupError

    emulator.faults.add(Fault("deploy", Respond(422), when="unread"))
    with pytest.raises(LookupError) as caught:
        await use()

    assert caught.value.__notes__ == ["the batch had ended with ValueError('no other request')"]


async def test_row_31_closing_the_client_ends_a_batch_and_stops_what_was_not_handed_over(
    emulator: Emulator,
) -> None:
    client = arena_client(emulator)
    given: list[Outcome] = []

    async def use() -> None:
        async with client.deploy_many(arena_requests(20)) as batch:
            await collect(batch, given)

    using = asyncio.create_task(use())
    await asyncio.sleep(1.5)
    await client.close()
    with pytest.raises(ClientClosed):
        await using

    ready = [outcome for outcome in given if outcome.is_ready]
    assert 0 < len(ready) < 20
    assert len(given) == 20  # the others have an error
    assert alive(emulator) == ids(ready)


async def test_row_31_a_deployment_that_close_has_stopped_is_not_given_as_ready(
    emulator: Emulator,
) -> None:
    client = arena_client(emulator)
    async with client.deploy_many(arena_requests(3)) as batch:
        first = await anext(batch)
        async for progress in batch.progress():
            assert progress.failed == 0
        await asyncio.sleep(1)
        await client.close()  # after the last outcome
        second = await anext(batch)
        [third] = await batch.all()

        assert [type(outcome.error) for outcome in (second, third)] == [BatchStopped] * 2
        assert (batch.progress_now.ready, batch.progress_now.failed) == (1, 2)
    assert alive(emulator) == ids([first])


async def test_row_31_a_batch_of_a_closed_client_deploys_nothing(emulator: Emulator) -> None:
    client = arena_client(emulator)
    await client.close()
    with pytest.raises(ClientClosed):
        await client.deploy_many(arena_requests(2)).all()
    assert emulator.requests == []


@pytest.mark.parametrize("stops", [True, False])
async def test_the_outcomes_of_deployments_that_close_stops_say_how_the_stops_went(
    *, stops: bool
) -> None:
    async with (
        arena_cloud(simulate=never_ready(True, True)) as emulator,
        arena_client(emulator) as client,
    ):
        outcomes: list[Outcome] = []

        async def wait() -> None:
            async with client.deploy_many(arena_requests(2)) as batch:
                with pytest.raises(ClientClosed):
                    await collect(batch, outcomes)

        waiting = asyncio.create_task(wait())
        while client.poller.stats.waiting < 2:
            await asyncio.sleep(0.01)
        if not stops:
            emulator.faults.add(Fault("stop_deployment", Respond(403), when="unread", times=None))
        await client.close()
        await waiting

        assert [type(outcome.error) for outcome in outcomes] == [BatchStopped] * 2
        for outcome in outcomes:
            assert outcome.error is not None
            assert outcome.error.stopped is stops
            assert hasattr(outcome.error, "__notes__") is not stops
