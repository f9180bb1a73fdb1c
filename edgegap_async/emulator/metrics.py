"""How a deployment has used this machine, as the API's time series.

Measured each second over the tree of processes: `cpu` is percent of one CPU, `mem` bytes of
resident memory, the totals are bytes read from and written to disk since the start. Linux counts no
network traffic per process, so those series are zeros. The cloud's units are not documented; its
values are whole numbers.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

import attrs

from edgegap_async.api.models import Metrics, MetricSeries, MetricTotals, NetworkMetrics

from .processes import Usage

STEPS: Final = {"30s": 30, "1m": 60, "5m": 300, "10m": 600, "1h": 3600}
"""Seconds over which values are averaged, by the API's names."""


@attrs.frozen
class Sample:
    """One measurement."""

    at: datetime
    """Time of the measurement."""
    cpu_percent: float
    """Percent of one CPU since the measurement before."""
    memory_bytes: float
    """Bytes of resident memory."""
    read_bytes: float
    """Bytes read from disk since the start."""
    written_bytes: float
    """Bytes written to disk since the start."""


_FIELDS: Final = 5  # of a sample


class Samples:
    """The last `size` measurements of one deployment, 40 bytes each."""

    def __init__(self, size: int = 900) -> None:
        self._size = size
        self._values = array("d")  # of one sample after the other; the oldest is at `_oldest`
        self._oldest = 0
        self._last: Usage | None = None

    def start_process(self, now: float) -> None:
        """Begins anew for a process that starts: its use counts from zero."""
        self._last = Usage(at=now)

    def add(self, usage: Usage, at: datetime) -> None:
        """Adds a measurement of what has been used until now."""
        last, self._last = self._last, usage
        if last is None or usage.at <= last.at:
            return
        computed = max(0.0, usage.cpu_seconds - last.cpu_seconds)  # below 0 once a child has ended
        percent = 100 * computed / (usage.at - last.at)
        values = array(
            "d",
            (at.timestamp(), percent, usage.memory_bytes, usage.read_bytes, usage.written_bytes),
        )
        if len(self._values) < _FIELDS * self._size:
            self._values += values
        else:
            self._values[self._oldest : self._oldest + _FIELDS] = values
            self._oldest = (self._oldest + _FIELDS) % len(self._values)

    def _samples(self) -> Iterator[Sample]:
        in_order = self._values[self._oldest :] + self._values[: self._oldest]
        for first in range(0, len(in_order), _FIELDS):
            at, *values = in_order[first : first + _FIELDS]
            yield Sample(datetime.fromtimestamp(at, UTC), *values)

    def series(self, *, start: datetime | None, end: datetime | None, step: int | None) -> Metrics:
        """Returns the measurements from `start` to `end`, averaged over `step` seconds if given."""
        chosen = [
            sample
            for sample in self._samples()
            if (start is None or sample.at >= start) and (end is None or sample.at <= end)
        ]
        groups = [[sample] for sample in chosen] if step is None else _grouped(chosen, step)
        times = [group[0].at if step is None else _floor(group[0].at, step) for group in groups]

        def series(value: Callable[[Sample], float]) -> MetricSeries:
            return MetricSeries(
                labels=tuple(time.strftime("%H:%M:%S") for time in times),
                datasets=tuple(round(_mean(map(value, group))) for group in groups),
                timestamps=tuple(times),
            )

        nothing = series(lambda _: 0.0)
        return Metrics(
            total=MetricTotals(
                receive_total=nothing,
                transmit_total=nothing,
                disk_read_total=series(lambda sample: sample.read_bytes),
                disk_write_total=series(lambda sample: sample.written_bytes),
            ),
            cpu=series(lambda sample: sample.cpu_percent),
            mem=series(lambda sample: sample.memory_bytes),
            network=NetworkMetrics(receive=nothing, transmit=nothing),
            cpu_throttle_rate=nothing,
            cpu_throttle_total=nothing,
        )


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return math.fsum(numbers) / len(numbers)


def _floor(time: datetime, step: int) -> datetime:
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return epoch + timedelta(seconds=(time - epoch).total_seconds() // step * step)


def _grouped(samples: Iterable[Sample], step: int) -> list[list[Sample]]:
    groups: dict[datetime, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(_floor(sample.at, step), []).append(sample)
    return list(groups.values())
