from __future__ import annotations

from datetime import UTC, datetime, timedelta

from edgegap_async.emulator.metrics import Samples
from edgegap_async.emulator.processes import Usage

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
    assert metrics.network.receive.datasets == (0.0, 0.0)


def test_steps_average_what_falls_into_them() -> None:
    metrics = _samples(6).series(start=None, end=None, step=30)

    assert metrics.mem.datasets == (15.0, 40.0, 60.0)
    assert metrics.mem.labels == ("12:00:00", "12:00:30", "12:01:00")


def test_only_what_is_between_start_and_end_counts() -> None:
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
