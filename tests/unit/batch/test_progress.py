"""What `progress`, `progress_now` and `on_progress` report."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from arena import arena_client, arena_request, arena_requests
from eager_tasks import start_tasks_eagerly
from emulator_record import alive, requests_by_operation

from edgegap_async import DeployRequest, EdgegapClient, Progress, Status
from edgegap_async.emulator import Emulator, Fault, Respond
from edgegap_async.errors import InvalidRequest

pytestmark = pytest.mark.virtual


async def test_progress_reports_statuses_rate_and_time_left(
    emulator: Emulator, client: EdgegapClient
) -> None:
    reported: list[Progress] = []
    async with client.deploy_many(
        arena_requests(40), concurrency=10, on_progress=reported.append
    ) as batch:
        seen = [progress async for progress in batch.progress(0.25)]
        await batch.all()

    for progress in (*reported, *seen):
        under_way = sum(progress.under_way.values())
        assert progress.total == 40
        assert progress.waiting is not None
        assert progress.waiting + under_way + progress.done == 40
    assert [progress.done for progress in seen] == sorted(progress.done for progress in seen)
    first, last = seen[0], seen[-1]
    assert (first.waiting, first.done, first.rate, first.time_left) == (40, 0, 0.0, None)
    assert (last.waiting, last.ready, last.failed, last.time_left) == (0, 40, 0, 0.0)
    assert reported[-1].ready == 40
    statuses = {status for progress in seen for status in progress.under_way}
    assert Status.DEPLOYING in statuses
    middle = next(progress for progress in seen if progress.done >= 20)
    assert middle.rate == pytest.approx(middle.done / middle.elapsed, rel=0.01)
    assert middle.time_left == pytest.approx((40 - middle.done) / middle.rate)
    assert last.elapsed == pytest.approx(40 / last.rate, rel=0.01)


async def test_requests_that_queue_for_the_rate_limit_are_waiting(emulator: Emulator) -> None:
    async with (
        arena_client(emulator, limits={"deploy": 10.0}) as client,
        client.deploy_many(arena_requests(40)) as batch,
    ):
        await asyncio.sleep(1.05)
        progress = batch.progress_now
        sent = requests_by_operation(emulator)["deploy"]

    assert 10 <= sent <= 30
    assert progress.waiting == 40 - sent
    assert sum(progress.under_way.values()) + progress.done == sent


async def test_a_request_that_a_429_sent_back_is_waiting_again(emulator: Emulator) -> None:
    refusal = Respond(429, headers={"Retry-After": "5"})
    emulator.faults.add(Fault("deploy", refusal, when="unread"))
    async with (
        arena_client(emulator) as client,
        client.deploy_many(arena_requests(1)) as batch,
    ):
        await asyncio.sleep(2)
        assert batch.progress_now.waiting == 1
        await asyncio.sleep(5)
        assert batch.progress_now.waiting == 0


async def test_progress_needs_an_interval_above_zero(client: EdgegapClient) -> None:
    async with client.deploy_many(arena_requests(1)) as batch:
        with pytest.raises(InvalidRequest, match="every must be above 0"):
            await anext(batch.progress(0))


async def test_the_rate_is_measured_over_the_last_ten_seconds(client: EdgegapClient) -> None:
    async def requests_with_a_break() -> AsyncIterator[DeployRequest]:
        for number in range(10):
            yield arena_request(number)
        await asyncio.sleep(60)
        yield arena_request()

    async with client.deploy_many(requests_with_a_break()) as batch:
        async for progress in batch.progress(1.0):
            if progress.elapsed > 30:
                assert (progress.total, progress.waiting, progress.time_left) == (None, None, None)
                assert progress.rate == 0.0
                break


async def test_the_total_is_known_as_soon_as_an_iterator_has_ended(
    client: EdgegapClient,
) -> None:
    async with client.deploy_many(iter(arena_requests(10))) as batch:
        seen = [progress async for progress in batch.progress(0.25)]

    under_way = [progress for progress in seen if progress.under_way]
    assert {(progress.total, progress.waiting) for progress in under_way} == {(10, 0)}
    assert any(progress.time_left for progress in under_way)


async def test_on_progress_is_called_at_the_end_of_a_batch_that_a_failure_has_stopped(
    emulator: Emulator, client: EdgegapClient
) -> None:
    reported: list[Progress] = []
    emulator.faults.add(Fault("deploy", Respond(400), when="unread", skip=5))
    outcomes = await client.deploy_many(
        arena_requests(8), on_failure="stop_all", on_progress=reported.append
    ).all()

    assert len(outcomes) == 8
    last = reported[-1]
    assert (last.ready, last.failed, last.waiting, last.under_way) == (0, 8, 0, {})


async def test_on_progress_that_raises_ends_the_batch(emulator: Emulator) -> None:
    def on_progress(progress: Progress) -> None:
        if progress.elapsed > 1:
            raise ZeroDivisionError("mine")

    async with arena_client(emulator) as client:
        with pytest.raises(ZeroDivisionError, match="mine"):
            await client.deploy_many(arena_requests(5), on_progress=on_progress).all()
    assert alive(emulator) == set()


async def test_row_85_progress_is_reported_where_tasks_begin_at_once(client: EdgegapClient) -> None:
    start_tasks_eagerly(asyncio.get_running_loop())
    reported: list[Progress] = []
    outcomes = await client.deploy_many(arena_requests(5), on_progress=reported.append).all()

    assert [outcome.is_ready for outcome in outcomes] == [True] * 5
    assert reported[-1].ready == 5
