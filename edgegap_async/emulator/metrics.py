"""How a deployment has used this machine, as the API's time series.

Measured each second over the tree of processes: `cpu` is percent of one CPU, `mem` bytes of
resident memory, the totals are bytes on the network and on disk since the start, `network` bytes in
each step. Linux counts no network traffic per process. A container engine counts it, and so does
the forwarder of ports; a series whose values are not known is empty. The cloud's units are not
documented; its values are whole numbers.
"""

from __future__ import annotations

import itertools
import math
from array import array
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from statistics import fmean
from typing import Final

import attrs

from edgegap_async.api.resources.metrics import Metrics, MetricSeries, MetricTotals, NetworkMetrics

from .forwarder import Traffic
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
    received_total: float
    """Bytes received since the start; NaN if unknown, as the next three."""
    sent_total: float
    """Bytes sent since the start."""
    received_bytes: float
    """Bytes received since the measurement before."""
    sent_bytes: float
    """Bytes sent since the measurement before."""


_FIELDS: Final = 7  # of a measurement


class Samples:
    """The last `size` measurements of one deployment, 56 bytes each."""

    def __init__(self, size: int = 900) -> None:
        self._size = size
        self._values = array("d")  # of one sample after the other; the oldest is at `_oldest`
        self._oldest = 0
        self._last: Usage | None = None
        self.traffic: Traffic | None = None
        """What has passed all ports of the deployment; None if that is not counted."""

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
        passed = usage if self.traffic is None else self.traffic
        network = (passed.received_bytes, passed.sent_bytes)
        disk = (usage.read_bytes, usage.written_bytes)
        totals = (math.nan if total is None else total for total in (*disk, *network))
        values = array("d", (at.timestamp(), percent, usage.memory_bytes, *totals))
        if len(self._values) < _FIELDS * self._size:
            self._values += values
        else:
            self._values[self._oldest : self._oldest + _FIELDS] = values
            self._oldest = (self._oldest + _FIELDS) % len(self._values)

    def _samples(self) -> Iterator[Sample]:
        in_order = self._values[self._oldest :] + self._values[: self._oldest]
        is_full = len(in_order) == _FIELDS * self._size
        known = [math.nan if is_full else 0.0] * 2  # the last totals that were measured
        for first in range(0, len(in_order), _FIELDS):
            at, *values = in_order[first : first + _FIELDS]
            moved: list[float] = []
            for way, total in enumerate(values[-2:]):
                # A total below the one before is that of another container, which began at zero.
                moved.append(total if total < known[way] else total - known[way])
                if not math.isnan(total):
                    known[way] = total
            yield Sample(datetime.fromtimestamp(at, UTC), *values, *moved)

    def series(self, *, start: datetime | None, end: datetime | None, step: int | None) -> Metrics:
        """Returns the measurements from `start` to `end`.

        With a `step` in seconds, its measurements become one value: their mean, for traffic their
        sum.
        """
        chosen = [
            sample
            for sample in self._samples()
            if (start is None or sample.at >= start) and (end is None or sample.at <= end)
        ]
        groups = [(sample.at, [sample]) for sample in chosen]
        if step is not None:
            by_step = itertools.groupby(chosen, lambda sample: _floor(sample.at, step))
            groups = [(time, list(group)) for time, group in by_step]

        def series(
            value: Callable[[Sample], float], join: Callable[[list[float]], float] = fmean
        ) -> MetricSeries:
            known = [
                (time, round(join(values)))
                for time, group in groups
                if (values := [each for each in map(value, group) if not math.isnan(each)])
            ]
            return MetricSeries(
                labels=tuple(time.strftime("%H:%M:%S") for time, _ in known),
                datasets=tuple(joined for _, joined in known),
                timestamps=tuple(time for time, _ in known),
            )

        nothing = series(lambda _: 0.0)
        return Metrics(
            total=MetricTotals(
                receive_total=series(lambda sample: sample.received_total),
                transmit_total=series(lambda sample: sample.sent_total),
                disk_read_total=series(lambda sample: sample.read_bytes),
                disk_write_total=series(lambda sample: sample.written_bytes),
            ),
            cpu=series(lambda sample: sample.cpu_percent),
            mem=series(lambda sample: sample.memory_bytes),
            network=NetworkMetrics(
                receive=series(lambda sample: sample.received_bytes, math.fsum),
                transmit=series(lambda sample: sample.sent_bytes, math.fsum),
            ),
            cpu_throttle_rate=nothing,
            cpu_throttle_total=nothing,
        )


def _floor(time: datetime, step: int) -> datetime:
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return epoch + timedelta(seconds=(time - epoch).total_seconds() // step * step)
