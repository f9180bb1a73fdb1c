"""The call that says how a deployment uses CPU, memory, network and disk over time."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, TypedDict, cast

import attrs

from edgegap_async.api.models.response import ApiResponse, Model
from edgegap_async.api.operations import Operation


class MetricRow(TypedDict):
    """The values of one time; None where the API has none. `Metrics` names the units."""

    time: datetime
    """The time, in UTC."""
    cpu: float | None
    """CPU use."""
    mem: float | None
    """Memory use."""
    network_receive: float | None
    """Data received in the step."""
    network_transmit: float | None
    """Data sent in the step."""
    receive_total: float | None
    """Data received since the start."""
    transmit_total: float | None
    """Data sent since the start."""
    disk_read_total: float | None
    """Data read from disk since the start."""
    disk_write_total: float | None
    """Data written to disk since the start."""
    cpu_throttle_rate: float | None
    """How much the CPU was throttled in the step."""
    cpu_throttle_total: float | None
    """How much the CPU was throttled since the start."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class MetricSeries(Model):
    """Values over time: three tuples of the same length."""

    labels: tuple[str, ...] = ()
    """The label of each value."""
    datasets: tuple[float | None, ...] = ()
    """The values; None where a value is missing."""
    timestamps: tuple[datetime | None, ...] = ()
    """The time of each value; None where a time is unreadable."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class MetricTotals(Model):
    """Sums since the start of the deployment. The API documents no units; probably bytes."""

    receive_total: MetricSeries = MetricSeries()
    """Data received from the network."""
    transmit_total: MetricSeries = MetricSeries()
    """Data sent to the network."""
    disk_read_total: MetricSeries = MetricSeries()
    """Data read from disk."""
    disk_write_total: MetricSeries = MetricSeries()
    """Data written to disk."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class NetworkMetrics(Model):
    """Network use in each step of time. The API documents no units."""

    receive: MetricSeries = MetricSeries()
    """Data received in each step."""
    transmit: MetricSeries = MetricSeries()
    """Data sent in each step."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Metrics(ApiResponse):
    """CPU, memory, disk and network use of a deployment.

    `columns` and `rows` have all series side by side. The API documents no units. The emulator's
    are percent of one CPU for `cpu`, and bytes for memory, disk and network; its series of network
    use are empty where it cannot measure it, and throttling is zero there.
    """

    total: MetricTotals = MetricTotals()
    """Sums of network and disk use since the start."""
    cpu: MetricSeries = MetricSeries()
    """CPU use over time."""
    mem: MetricSeries = MetricSeries()
    """Memory use over time."""
    network: NetworkMetrics = NetworkMetrics()
    """Network use over time."""
    cpu_throttle_rate: MetricSeries = MetricSeries()
    """How much the CPU was throttled in each step; empty before 2026."""
    cpu_throttle_total: MetricSeries = MetricSeries()
    """How much the CPU was throttled since the start; empty before 2026."""

    def columns(self) -> dict[str, list[Any]]:  # or each use would have to tell times from numbers
        """Returns the series as columns: `pandas.DataFrame` and `polars.DataFrame` take them so.

        Returns:
            Lists of the same length by name: datetimes in UTC as `time`, ascending, and numbers for
            each series: `cpu`, `mem`, `network_receive`, `network_transmit`, `receive_total`,
            `transmit_total`, `disk_read_total`, `disk_write_total`, `cpu_throttle_rate` and
            `cpu_throttle_total`. A value that a series does not have for a time is None.
        """
        series = {
            "cpu": self.cpu,
            "mem": self.mem,
            "network_receive": self.network.receive,
            "network_transmit": self.network.transmit,
            "receive_total": self.total.receive_total,
            "transmit_total": self.total.transmit_total,
            "disk_read_total": self.total.disk_read_total,
            "disk_write_total": self.total.disk_write_total,
            "cpu_throttle_rate": self.cpu_throttle_rate,
            "cpu_throttle_total": self.cpu_throttle_total,
        }
        values = {
            name: {
                time: value
                for time, value in zip(one.timestamps, one.datasets, strict=False)
                if time is not None
            }
            for name, one in series.items()
        }
        times = sorted({time for by_time in values.values() for time in by_time})
        return {
            "time": times,
            **{name: [by_time.get(time) for time in times] for name, by_time in values.items()},
        }

    def rows(self) -> list[MetricRow]:
        """Returns one mapping for each time, oldest first, with the keys of `columns`."""
        columns = self.columns()
        return [
            cast("MetricRow", dict(zip(columns, row, strict=True)))  # one key for each column
            for row in zip(*columns.values(), strict=True)
        ]


GET_METRICS: Final = Operation(
    name="get_metrics",
    method="GET",
    path="/v1/metrics/deployment/{request_id}",
    query=frozenset({"start_time", "end_time", "steps", "raw"}),
    returns=Metrics,
    may_fail={400, 401, 404, 422, 500},
)
