"""A program that cancels tasks of a batch while its block goes on."""

from __future__ import annotations

import asyncio

import pytest
from arena import arena_requests, becomes_true, collect, ids
from cancelled_tasks import cancel_library_tasks, library_tasks
from emulator_record import alive

from edgegap_async import EdgegapClient, Outcome, Progress
from edgegap_async.emulator import Delay, Emulator, Fault
from edgegap_async.errors import BatchStopped

pytestmark = pytest.mark.virtual

STEPS = pytest.mark.parametrize(
    "after", [None, 0.0, 0.1, 0.4], ids=["not begun", "begun", "deploying", "waiting"]
)


async def cancel_one_job(after: float | None) -> None:
    """Cancels the task of one request, `after` seconds after the tasks of all have begun."""
    while not (jobs := library_tasks("JobRunner._run_job")):
        await asyncio.sleep(0)
    if after is not None:
        await asyncio.sleep(after)
    min(jobs, key=lambda job: int(job.get_name().rpartition("-")[2])).cancel()


@STEPS
async def test_row_74_a_request_whose_task_the_program_cancels_has_an_outcome(
    emulator: Emulator, client: EdgegapClient, after: float | None
) -> None:
    emulator.faults.add(Fault("deploy", Delay(0.2), when="unread", times=None))
    async with client.deploy_many(arena_requests(4), on_failure="keep_going") as batch:
        await cancel_one_job(after)
        outcomes = await batch.all()
        assert batch.progress_now.done == 4
        await becomes_true(lambda: alive(emulator) == ids(outcomes[1:]))

    lost, *others = outcomes
    assert isinstance(lost.error, BatchStopped)
    assert "the program has cancelled the task of this request" in str(lost.error)
    assert [outcome.is_ready for outcome in others] == [True] * 3
    await becomes_true(lambda: alive(emulator) == ids(others))


@STEPS
async def test_row_74_such_a_request_is_a_failure_for_the_policy_of_the_batch(
    emulator: Emulator, client: EdgegapClient, after: float | None
) -> None:
    async with client.deploy_many(arena_requests(4), on_failure="stop_all") as batch:
        await cancel_one_job(after)
        outcomes = await batch.all()

    assert [type(outcome.error) for outcome in outcomes] == [BatchStopped] * 4
    await becomes_true(lambda: alive(emulator) == set())


async def test_row_74_a_request_that_takes_the_place_of_a_cancelled_one_begins(
    emulator: Emulator, client: EdgegapClient
) -> None:
    async with client.deploy_many(arena_requests(6), concurrency=1) as batch:
        for _ in range(3):
            await cancel_one_job(0.4)
            await asyncio.sleep(0.01)
        outcomes = await batch.all()

    assert [outcome.is_ready for outcome in outcomes] == [False] * 3 + [True] * 3
    await becomes_true(lambda: alive(emulator) == ids(outcomes[3:]))


@pytest.mark.parametrize("name", ["Batch._run", ""])
async def test_row_74_a_batch_whose_task_the_program_cancels_says_so_and_leaves_no_server(
    emulator: Emulator, client: EdgegapClient, name: str
) -> None:
    taken = list[Outcome]()
    async with client.deploy_many(arena_requests(8), stop_at_end=True) as batch:
        collecting = asyncio.create_task(collect(batch, taken))
        await becomes_true(lambda: len(taken) == 3)
        cancel_library_tasks(*filter(None, [name]))
        with pytest.raises(BatchStopped, match="the program has cancelled the task of the batch"):
            await collecting
        await becomes_true(lambda: alive(emulator) == ids(taken))
    await becomes_true(lambda: alive(emulator) == set())


async def test_row_74_progress_is_reported_although_its_task_is_cancelled(
    client: EdgegapClient,
) -> None:
    reports = list[Progress]()
    async with client.deploy_many(arena_requests(4), on_progress=reports.append) as batch:
        for _ in range(4):
            await asyncio.sleep(0.01)
            assert cancel_library_tasks("Batch._report_progress")
        outcomes = await batch.all()

    assert [outcome.is_ready for outcome in outcomes] == [True] * 4
    assert reports[-1].ready == 4
    assert len(reports) > 5
