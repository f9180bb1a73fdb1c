"""Time series as charts: lines of braille characters for a terminal, PNG through matplotlib."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .exits import FAILED, Failure

if TYPE_CHECKING:
    from edgegap_async.models import MetricSeries

_DOTS: Final = ((0x40, 0x80), (0x04, 0x20), (0x02, 0x10), (0x01, 0x08))
"""The dots of a braille character, by row from the bottom and by column."""
_BRAILLE: Final = 0x2800  # code point of the character without dots
_ROWS: Final = len(_DOTS)
_COLUMNS: Final = 2  # values in a character


def sparkline(values: Sequence[float | None], width: int) -> str:
    """Returns values as a line of braille characters, two values in each.

    Args:
        values: the values, oldest first; None leaves a gap. If there are more than fit, each
            dot is the mean of its share of them.
        width: characters, 1 or more.
    """
    points = _means(values, width * _COLUMNS)
    known = [value for value in points if value is not None]
    if not known:
        return ""
    least, most = min(0.0, *known), max(known)
    characters = []
    for start in range(0, len(points), _COLUMNS):
        dots = 0
        for column, value in enumerate(points[start : start + _COLUMNS]):
            if value is not None:
                share = (value - least) / (most - least) if most > least else 0.0
                for row in range(1 + min(_ROWS - 1, int(share * _ROWS))):
                    dots |= _DOTS[row][column]
        characters.append(chr(_BRAILLE + dots))
    return "".join(characters)


def _means(values: Sequence[float | None], count: int) -> list[float | None]:
    if len(values) <= count:
        return list(values)
    edges = [round(index * len(values) / count) for index in range(count + 1)]
    return [_mean(values[edges[index] : edges[index + 1]]) for index in range(count)]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def write_png(path: Path, title: str, series: Mapping[str, MetricSeries]) -> None:
    """Writes a picture with one chart for each series.

    Args:
        path: the file.
        title: a title of the picture.
        series: name and values of each chart.

    Raises:
        Failure: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - 0.5 s, and an extra of the user's
    except ImportError:
        text = "--png needs matplotlib: pip install matplotlib; --plot needs nothing"
        raise Failure(FAILED, text) from None
    figure = Figure(figsize=(9, 1 + 1.8 * len(series)), layout="constrained")
    figure.suptitle(title)
    charts = figure.subplots(len(series), 1, sharex=True, squeeze=False)[:, 0]
    for chart, (name, one) in zip(charts, series.items(), strict=True):
        pairs = zip(one.timestamps, one.datasets, strict=False)
        points = [(at, value) for at, value in pairs if at is not None and value is not None]
        times: list[datetime] = [at for at, _ in points]
        chart.plot(times, [value for _, value in points], linewidth=1)
        chart.set_title(name, loc="left", fontsize="small")
        chart.set_ylim(bottom=0)
    figure.savefig(path)
