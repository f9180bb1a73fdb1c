"""What a failed deployment does to its batch: policies, retries, errors of callbacks."""

from __future__ import annotations

import asyncio
from typing import Any

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

from edgegap_async import DeployRequest, EdgegapClient, EdgegapError, Outcome, Status
from edgegap_async.concurrency import loop_time
from edgegap_async.emulator import Delay, Drop, Emulator, Fault, Respond, Simulation
from edgegap_async.errors import (
    BatchStopped,
    DeploymentFailed,
    InvalidRequest,
    MaybeCreated,
    Unprocessable,
    WaitTimedOut,
)

pytestmark = pytest.mark.virtual


def all_fail(**more: Any) -> Emulator:
    simulation = Simulation(crash_share=1.0, ready_after=(5.0, 5.0), crash_after=(0.5, 1.0))
    return arena_cloud(simulate=simulation, **more)


async def test_a_failed_deployment_is_stopped_and_the_others_go_on() -> None:
    simulation = Simulation(seed=3, crash_share=0.4, ready_after=(3.0, 3.0), crash_after=(0.5, 2.0))
    async with arena_cloud(simulate=simulation) as emulator, arena_client(emulator) as client:
        outcomes = await client.deploy_many(arena_requests(20)).all()

        failed = [outcome for outcome in outcomes if not outcome.is_ready]
        assert 0 < len(failed) < 20
        for outcome in failed:
            assert isinstance(outcome.error, DeploymentFailed)
            assert outcome.error.logs is not None  # requested before the deployment was stopped
            assert outcome.handle is not None
            assert outcome.seconds is None
            with pytest.raises(DeploymentFailed):
                outcome.result()
        assert alive(emulator) == ids(outcomes) - ids(failed)


async def test_keep_going_hands_over_a_failed_deployment() -> None:
    async with all_fail() as emulator, arena_client(emulator) as client:
        async with client.deploy_many(arena_requests(3), on_failure="keep_going") as batch:
            first = await anext(batch)

        assert isinstance(first.error, DeploymentFailed)
        assert alive(emulator) == ids([first])


async def test_stop_all_stops_the_deployments_that_were_not_handed_over() -> None:
    async with arena_cloud() as emulator, arena_client(emulator) as client:
        requests = [*arena_requests(3), arena_request(version="none"), *arena_requests(3)]
        async with client.deploy_many(
            iter(requests), concurrency=1, on_failure="stop_all"
        ) as batch:
            first = await anext(batch)
            rest = [outcome async for outcome in batch]

        by_index = {outcome.index: outcome.error for outcome in rest}
        cause = by_index.pop(3)
        assert type(cause).__name__ == "BadRequest"
        assert alive(emulator) == ids([first, *(outcome for outcome in rest if outcome.is_ready)])
        # The batch did not take the other requests from the iterator.
        assert 4 not in by_index


async def test_the_outcomes_of_stopped_deployments_name_the_cause(emulator: Emulator) -> None:
    async with arena_client(emulator) as client:
        emulator.faults.add(Fault("deploy", Respond(400), when="unread", skip=5))
        async with client.deploy_many(arena_requests(8), on_failure="stop_all") as batch:
            outcomes = await batch.all()

        assert len(outcomes) == 8
        kinds = [type(outcome.error).__name__ for outcome in outcomes]
        assert sorted(kinds) == ["BadRequest"] + ["BatchStopped"] * 7
        cause = next(
            outcome.error for outcome in outcomes if not isinstance(outcome.error, BatchStopped)
        )
        for outcome in outcomes:
            assert outcome.error is cause or (outcome.error and outcome.error.__cause__ is cause)
    assert alive(emulator) == set()


async def stopped_by_a_400(emulator: Emulator) -> tuple[Outcome, Outcome, Outcome]:
    """Returns the outcomes of a deployment before READY, of a READY one, and of none."""
    emulator.faults.add(Fault("deploy", Respond(400), when="unread", skip=2))
    async with arena_client(emulator) as client:
        requests = arena_requests(4)
        outcomes = await client.deploy_many(requests, concurrency=2, on_failure="stop_all").all()
        first, second, cause, fourth = outcomes
        assert type(cause.error).__name__ == "BadRequest"
        return first, second, fourth


async def test_deployments_stopped_with_the_batch_say_that_nothing_is_left() -> None:
    async with arena_cloud(simulate=never_ready(True, False)) as emulator:
        *made, not_begun = await stopped_by_a_400(emulator)

        for outcome, end in zip(made, ("and then ends", "It was stopped"), strict=True):
            assert isinstance(outcome.error, BatchStopped)
            assert outcome.error.stopped
            assert str(outcome.error).endswith(end)
            assert not hasattr(outcome.error, "__notes__")
        assert isinstance(not_begun.error, BatchStopped)
        assert str(not_begun.error).endswith("unless the log names one: deploy it again")
        assert alive(emulator) == set()


async def test_deployments_that_could_not_be_stopped_with_the_batch_have_a_note() -> None:
    async with arena_cloud(simulate=never_ready(True, False)) as emulator:
        emulator.faults.add(Fault("stop_deployment", Respond(403), when="unread", times=None))
        *made, not_begun = await stopped_by_a_400(emulator)

        for outcome in made:
            assert isinstance(outcome.error, BatchStopped)
            assert not outcome.error.stopped
            assert "No deployment is left" not in str(outcome.error)
            [note] = outcome.error.__notes__
            assert note.startswith(f"{outcome.error.request_id} could not be stopped: DELETE")
        assert not hasattr(not_begun.error, "__notes__")
        assert alive(emulator) == ids(made)


async def test_a_deployment_that_had_failed_keeps_its_own_error_when_the_batch_is_stopped() -> None:
    """The failure of another deployment stops the batch while the logs are being fetched."""
    simulation = Simulation(crash_share=1.0, ready_after=(50.0, 50.0), crash_after=(3.0, 6.0))
    async with arena_cloud(simulate=simulation) as emulator, arena_client(emulator) as client:
        emulator.faults.add(Fault("get_container_logs", Delay(100)))
        began = loop_time()
        outcomes = await client.deploy_many(arena_requests(2), on_failure="stop_all").all()

        assert loop_time() - began < 10  # the batch did not wait for the logs
        for outcome in outcomes:
            assert isinstance(outcome.error, DeploymentFailed)
            assert outcome.error.stopped
        assert alive(emulator) == set()


async def test_stop_all_stops_ready_deployments_that_were_not_claimed() -> None:
    async with (
        arena_cloud(simulate=never_ready(False, True)) as emulator,
        arena_client(emulator) as client,
    ):
        async with client.deploy_many(
            arena_requests(2), on_failure="stop_all", timeout_each=20, concurrency=1
        ) as batch:
            outcomes = await batch.all()

            assert [type(outcome.error) for outcome in outcomes] == [BatchStopped, WaitTimedOut]
            assert isinstance(outcomes[0].error, BatchStopped)
            assert outcomes[0].error.last_status is Status.READY
            assert (batch.progress_now.ready, batch.progress_now.failed) == (0, 2)
        assert alive(emulator) == set()


async def test_a_failed_deployment_is_stopped_and_its_request_retried_with_another() -> None:
    errors = []
    simulation = Simulation(crash_share=1.0, ready_after=(2.0, 2.0), crash_after=(0.5, 1.0))
    async with arena_cloud(simulate=simulation) as emulator, arena_client(emulator) as client:

        def retry_with(_: DeployRequest, error: EdgegapError) -> DeployRequest:
            errors.append(error)
            assert alive(emulator) == set()  # the failed deployment is stopped first
            return arena_request(99)

        [outcome] = await client.deploy_many(
            arena_requests(1), attempts=3, retry_with=retry_with
        ).all()

        assert outcome.attempts == 3
        assert outcome.request == arena_request(99)
        assert [type(error) for error in errors] == [DeploymentFailed] * 2
        assert len(emulator.cloud.deployments) == 3
        assert alive(emulator) == set()


async def test_a_deployment_that_is_never_ready_is_retried_after_timeout_each() -> None:
    async with (
        arena_cloud(simulate=never_ready(True, False)) as emulator,
        arena_client(emulator) as client,
    ):
        [outcome] = await client.deploy_many(arena_requests(1), attempts=2, timeout_each=10).all()

        assert (outcome.is_ready, outcome.attempts) == (True, 2)
        assert 10 < (outcome.seconds or 0) < 15
        assert alive(emulator) == ids([outcome])


async def test_row_21_a_deployment_made_by_a_422_is_stopped_and_retried() -> None:
    async with arena_cloud(max_deployments=0) as emulator, arena_client(emulator) as client:
        [outcome] = await client.deploy_many(arena_requests(1), attempts=2).all()

        assert isinstance(outcome.error, Unprocessable)
        assert outcome.attempts == 2
        assert requests_by_operation(emulator)["deploy"] == 2
        assert len(emulator.cloud.deployments) == requests_by_operation(emulator)["stop_deployment"]
        assert alive(emulator) == set()


async def test_row_21_keep_going_hands_over_a_deployment_made_by_a_422() -> None:
    async with arena_cloud(max_deployments=0) as emulator, arena_client(emulator) as client:
        [outcome] = await client.deploy_many(arena_requests(1), on_failure="keep_going").all()

        assert isinstance(outcome.error, Unprocessable)
        assert outcome.handle is not None
        assert alive(emulator) == ids([outcome])


async def test_a_deployment_that_may_exist_is_not_retried(emulator: Emulator) -> None:
    async with arena_client(emulator, list_delay=0.5) as client:
        emulator.faults.add(
            Fault("deploy", Drop(), when="read", times=2),
            Fault("list_deployments", Respond(503), when="unread", times=None),
        )
        [outcome] = await client.deploy_many(arena_requests(1), attempts=5).all()

    assert isinstance(outcome.error, MaybeCreated)
    assert outcome.attempts == 1


async def test_retry_with_that_raises_ends_the_batch() -> None:
    def retry_with(request: DeployRequest, error: EdgegapError) -> DeployRequest:
        raise ZeroDivisionError("mine")

    async with (
        arena_cloud(simulate=never_ready(False, True)) as emulator,
        arena_client(emulator) as client,
    ):
        async with client.deploy_many(
            arena_requests(2), attempts=2, timeout_each=10, retry_with=retry_with
        ) as batch:
            with pytest.raises(ZeroDivisionError, match="mine"):
                await batch.all()
            outcomes: list[Outcome] = []
            with pytest.raises(ZeroDivisionError, match="mine"):
                await collect(batch, outcomes)

            assert {type(outcome.error) for outcome in outcomes} == {BatchStopped, WaitTimedOut}
        assert alive(emulator) == set()


async def test_retry_with_that_returns_none_ends_the_batch() -> None:
    def retry_with(*_: object) -> Any:
        return None

    async with (
        arena_cloud(simulate=never_ready(True)) as emulator,
        arena_client(emulator) as client,
    ):
        batch = client.deploy_many(
            arena_requests(1), timeout_each=5, attempts=2, retry_with=retry_with
        )
        with pytest.raises(
            InvalidRequest, match="retry_with has to return a DeployRequest, not None"
        ):
            await batch.all()

        assert alive(emulator) == set()


async def test_retry_with_that_raises_a_cancellation_ends_the_batch(
    emulator: Emulator, client: EdgegapClient
) -> None:
    def retry_with(request: DeployRequest, error: EdgegapError) -> DeployRequest:
        raise asyncio.CancelledError

    emulator.faults.add(Fault("deploy", Respond(422), when="unread"))
    with pytest.raises(RuntimeError, match="was cancelled"):
        await client.deploy_many(arena_requests(2), attempts=2, retry_with=retry_with).all()
    assert alive(emulator) == set()
