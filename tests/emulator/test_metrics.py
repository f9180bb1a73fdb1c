"""Metrics: the series of the measurements, and the call that returns them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from emulated_cloud import SLEEPER, a_cloud, answer, deployed, python_application, reached

from edgegap_async import Status
from edgegap_async.emulator.metrics import Samples
from edgegap_async.emulator.processes import Usage
from edgegap_async.errors import Unprocessable
from edgegap_async.models import Metrics

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def _samples(count: int, *, every: float = 10.0) -> Samples:
    """A process that computes half of the time, and gains a byte in each second."""
    samples = Samples()
    samples.start_process(0.0)
    for number in range(1, count + 1):
        at = number * every
        usage = Usage(at=at, cpu_seconds=at / 2, memory_bytes=at, read_bytes=1, written_bytes=2)
        samples.add(usage, NOON + timedelta(seconds=at))
    return samples


def test_raw_values_are_as_measured() -> None:
    metrics = _samples(2).series(start=None, end=None, step=None)

    assert metrics.cpu.datasets == (50.0, 50.0)
    assert metrics.mem.datasets == (10.0, 20.0)
    assert metrics.mem.labels == ("12:00:10", "12:00:20")
    assert metrics.mem.timestamps == (NOON + timedelta(seconds=10), NOON + timedelta(seconds=20))
    assert metrics.total.disk_read_total.datasets == (1.0, 1.0)
    assert metrics.total.disk_write_total.datasets == (2.0, 2.0)
    assert metrics.network.receive.datasets == ()
    assert [row["network_receive"] for row in metrics.rows()] == [None, None]


def test_values_are_whole_numbers_as_generated_clients_read_no_others() -> None:
    samples = _samples(2)
    samples.add(Usage(at=23.0, cpu_seconds=11.0, memory_bytes=7.5), NOON)
    samples.add(Usage(at=24.0, received_bytes=0.5, sent_bytes=1.5), NOON)
    for step in (None, 30):
        metrics = samples.series(start=None, end=None, step=step)
        series = (metrics.cpu, metrics.mem, metrics.network.receive, metrics.cpu_throttle_rate)
        for one in (*series, metrics.total.disk_read_total):
            assert {type(value) for value in one.datasets} == {int}


def test_each_step_averages_its_measurements() -> None:
    metrics = _samples(6).series(start=None, end=None, step=30)

    assert metrics.mem.datasets == (15.0, 40.0, 60.0)
    assert metrics.mem.labels == ("12:00:00", "12:00:30", "12:01:00")


def test_only_measurements_from_start_to_end_count() -> None:
    metrics = _samples(6).series(
        start=NOON + timedelta(seconds=20), end=NOON + timedelta(seconds=40), step=None
    )

    assert metrics.mem.datasets == (20.0, 30.0, 40.0)


def test_a_child_that_ended_takes_no_computing_time_back() -> None:
    samples = _samples(1)
    samples.add(Usage(at=20.0, cpu_seconds=1.0), NOON)

    assert samples.series(start=None, end=None, step=None).cpu.datasets == (50.0, 0.0)


def test_a_measurement_from_before_the_start_is_left_out() -> None:
    samples = Samples()
    samples.add(Usage(at=1.0), NOON)
    samples.start_process(5.0)
    samples.add(Usage(at=5.0), NOON)

    assert samples.series(start=None, end=None, step=None).cpu.datasets == ()


def test_only_the_last_measurements_are_kept() -> None:
    samples = Samples(size=2)
    samples.start_process(0.0)
    for number in range(1, 5):
        samples.add(Usage(at=number, memory_bytes=number), NOON)

    assert samples.series(start=None, end=None, step=None).mem.datasets == (3, 4)


def _received(totals: list[float | None], *, size: int = 900, step: int | None = None) -> Metrics:
    samples = Samples(size)
    samples.start_process(0.0)
    for at, total in enumerate(totals, 1):
        usage = Usage(at=at, received_bytes=total, sent_bytes=total)
        samples.add(usage, NOON + timedelta(seconds=at))
    return samples.series(start=None, end=None, step=step)


@pytest.mark.parametrize(
    ("totals", "received"),
    [
        ([10, 10, 25], (10, 0, 15)),
        ([10, 4], (10, 4)),  # the total of another container
        ([None, 7, None, None], (7,)),  # the engine has not answered yet, and no longer does
    ],
)
def test_traffic_is_counted_between_two_measurements(
    totals: list[float | None], received: tuple[int, ...]
) -> None:
    metrics = _received(totals)

    assert metrics.network.receive.datasets == metrics.network.transmit.datasets == received
    assert list(metrics.total.receive_total.datasets) == [one for one in totals if one is not None]


def test_the_traffic_of_a_step_is_the_sum_of_its_measurements() -> None:
    metrics = _received([5, 10, 20, 40], step=30)

    series = (metrics.network.receive, metrics.total.receive_total)
    assert [one.datasets for one in series] == [(40,), (19,)]


def test_the_traffic_before_the_oldest_measurement_that_is_kept_is_unknown() -> None:
    assert _received([5, 10, 20, 40], size=3).network.receive.datasets == (10, 20)


async def test_metrics_are_measured_while_it_runs() -> None:
    busy = python_application("while True: pass", memory_mb=64)
    async with a_cloud(busy, metrics_interval=0.1) as cloud:
        deployment = await reached(await deployed(cloud, busy), Status.READY)
        async with asyncio.timeout(20):
            while True:
                metrics = await answer(
                    cloud, "get_metrics", request_id=deployment.request_id, raw="true"
                )
                if len(metrics.cpu.datasets) >= 2:
                    break
                await asyncio.sleep(0.02)
        averaged = await answer(
            cloud,
            "get_metrics",
            request_id=deployment.request_id,
            start_time="2020-01-01 00:00:00.000000",
            end_time="2999-01-01T00:00:00Z",
            steps="1h",
        )

    assert max(metrics.cpu.datasets) > 5
    assert min(metrics.mem.datasets) > 1_000_000
    assert len(averaged.cpu.datasets) in {1, 2}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"start_time": "yesterday"}, "start_time"),
        ({"start_time": "2026-01-02 00:00:00", "end_time": "2026-01-01 00:00:00.5"}, "after"),
        ({"steps": "2m"}, "steps must be one of 30s, 1m, 5m, 10m, 1h"),
        ({"raw": "maybe"}, "raw"),
    ],
)
async def test_invalid_arguments_of_metrics_are_unprocessable(
    arguments: dict[str, str], complaint: str
) -> None:
    async with a_cloud(SLEEPER) as cloud:
        deployment = await deployed(cloud, SLEEPER)
        with pytest.raises(Unprocessable, match=complaint):
            await cloud.get_metrics(request_id=deployment.request_id, **arguments)
