"""Metrics as columns and rows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from edgegap_async.models import Metrics, MetricSeries, NetworkMetrics

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)


def series(values: dict[int, float | None]) -> MetricSeries:
    """Values by the second after noon."""
    return MetricSeries(
        labels=tuple(map(str, values)),
        datasets=tuple(values.values()),
        timestamps=tuple(NOON + timedelta(seconds=second) for second in values),
    )


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(
        cpu=series({30: 20.0, 0: 10.0, 60: None}),
        mem=series({0: 1e6, 60: 3e6}),
        network=NetworkMetrics(receive=series({0: 5.0, 30: 6.0, 60: 7.0})),
    )


def test_the_series_stand_side_by_side_in_order_of_time(metrics: Metrics) -> None:
    columns = metrics.columns()

    assert columns["time"] == [NOON, NOON + timedelta(seconds=30), NOON + timedelta(seconds=60)]
    assert columns["cpu"] == [10.0, 20.0, None]
    assert columns["mem"] == [1e6, None, 3e6]
    assert columns["network_receive"] == [5.0, 6.0, 7.0]
    assert columns["cpu_throttle_rate"] == [None] * 3
    assert len(columns) == 11


def test_rows_have_the_keys_of_columns(metrics: Metrics) -> None:
    rows = metrics.rows()

    assert [row["time"].second for row in rows] == [0, 30, 0]
    assert [row["mem"] for row in rows] == [1e6, None, 3e6]
    assert rows[0].keys() == metrics.columns().keys()


def test_metrics_without_values_have_empty_columns() -> None:
    assert set(map(len, Metrics().columns().values())) == {0}
    assert Metrics().rows() == []


def test_values_without_a_readable_time_are_left_out() -> None:
    broken = MetricSeries(labels=("a",), datasets=(1.0, 2.0), timestamps=(None, NOON))

    assert Metrics(cpu=broken).rows()[0]["cpu"] == 2.0


def test_pandas_takes_the_columns(metrics: Metrics) -> None:
    pandas: Any = pytest.importorskip("pandas")

    frame = pandas.DataFrame(metrics.columns()).set_index("time")

    assert str(frame.index.tz) == "UTC"
    assert frame["cpu"].mean() == 15
    assert frame["cpu"].dtype == float
    assert pandas.DataFrame(metrics.rows())["mem"].sum() == 4e6


def test_polars_takes_the_columns(metrics: Metrics) -> None:
    polars: Any = pytest.importorskip("polars")

    frame = polars.DataFrame(metrics.columns())

    assert frame["time"].dtype == polars.Datetime("us", "UTC")
    assert frame["cpu"].mean() == 15
    assert frame["cpu"].null_count() == 1
