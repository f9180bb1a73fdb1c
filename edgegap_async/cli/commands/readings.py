"""Commands that read what a server does: logs, metrics, top."""

from __future__ import annotations

import asyncio
import itertools
import math
import re
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs
import click

import edgegap_async as sdk
from edgegap_async.cli.command import command, with_client
from edgegap_async.cli.deployment_texts import deployment_rows, row_addresses, row_age, row_status
from edgegap_async.cli.exits import FAILED, Failure
from edgegap_async.cli.output import (
    Column,
    Output,
    console,
    has_rich,
    plural,
    rich_table,
    visible,
    while_read,
)
from edgegap_async.cli.parameters import DURATION

if TYPE_CHECKING:
    from edgegap_async import EdgegapClient
    from edgegap_async.models import DeploymentRow, Metrics, MetricSeries

_SERVERS_AT_ONCE: Final = 20  # whose metrics `top` asks for in a refresh
_SPARKLINE: Final = 12  # characters of a chart in `top`
_DOTS: Final = ((0x40, 0x80), (0x04, 0x20), (0x02, 0x10), (0x01, 0x08))
"""The dots of a braille character, by row from the bottom and by column."""
_BRAILLE: Final = 0x2800  # code point of the character without dots
_ROWS: Final = len(_DOTS)
_COLUMNS: Final = 2  # values in a character


# ── logs ─────────────────────────────────────────────────────────────────────────────────────────


@command(
    "edgegap-async logs 4ff2a1b2c3d4",
    "edgegap-async logs 4ff2a1b2c3d4 -f -n 20",
    "edgegap-async logs 4ff2a1b2c3d4 --since 10min",
)
@click.argument("request_id", metavar="ID")
@click.option(
    "--follow", "-f", "follows", is_flag=True, help="Go on until the server has ended, or Ctrl-C."
)
@click.option(
    "--lines", "-n", "count", type=click.IntRange(0), help="Of what there is, only the last lines."
)
@click.option(
    "--since",
    type=DURATION,
    help="Of what there is, only from the first line that is younger. Lines must begin with their"
    " date and time, which is in UTC if it names no zone.",
)
@with_client
async def logs(
    client: EdgegapClient,
    output: Output,
    *,
    request_id: str,
    follows: bool,
    count: int | None,
    since: float | None,
) -> None:
    """Print the log of a game server; after a crash, how it ended.

    With --follow and --json each line of the log is an object.
    """
    if follows:
        rest, is_first = "", True
        async with while_read():
            async for piece in client.handle(request_id).follow_logs():
                *lines, rest = (rest + piece).split("\n")
                _print_lines(output, _chosen(output, lines, count, since) if is_first else lines)
                is_first = False
        _print_lines(output, [rest] if rest else [])
        return
    found = await client.deployments.logs(request_id)
    lines = (found.crash_logs or found.logs or "").splitlines()
    chosen = _chosen(output, lines, count, since)
    if output.json:
        if chosen != lines and found.crash_logs:
            found = attrs.evolve(found, crash_logs="\n".join(chosen))
        elif chosen != lines:
            found = attrs.evolve(found, logs="\n".join(chosen))
        output.json_line(found)
        return
    _print_lines(output, chosen)
    crash = found.crash_data
    if crash is not None:
        output.say(f"The server has crashed: exit code {crash.exit_code}. {crash.message or ''}")
    if found.logs_link:
        output.say(f"All of it is at {found.logs_link}")


def _print_lines(output: Output, lines: Iterable[str]) -> None:
    for line in lines:
        if output.json:
            output.json_line({"line": line})
        else:
            output.line(visible(line.rstrip("\r"), "\t"))


def _chosen(output: Output, lines: list[str], count: int | None, since: float | None) -> list[str]:
    """Returns the young lines, and of these the last."""
    first = 0 if since is None else _first_young(output, lines, since)
    return lines[first if count is None else max(first, len(lines) - count) :]


def _first_young(output: Output, lines: list[str], since: float) -> int:
    """Returns the index of the first line that is younger than `since`, in seconds.

    Raises:
        Failure: no line begins with its time.
    """
    now = datetime.now(UTC)
    times = [(index, at) for index, line in enumerate(lines) if (at := _time_of(line)) is not None]
    if lines and not times:
        raise Failure(
            FAILED,
            "--since: no line of the log begins with its time, such as 2026-01-31T12:00:00Z;"
            " -n chooses lines without times",
        )
    young = (index for index, at in times if (now - at).total_seconds() <= since)
    # A line without a time belongs to that before it.
    first = next(young, len(lines))
    if times and 0 < first == times[0][0]:
        output.say(f"--since leaves out {plural(first, 'line')} before the first time of the log.")
    return first


def _time_of(line: str) -> datetime | None:
    """Returns the time with which a line begins, in UTC if it names no zone; None for no time."""
    found = re.match(r"\W?(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d)(?:[.,]\d+)?(Z|[+-]\d\d:?\d\d)?", line)
    if found is None:
        return None
    try:
        at = datetime.fromisoformat(found[1] + (found[2] or "Z"))
    except ValueError:  # such as month 13
        return None
    return at


# ── metrics ──────────────────────────────────────────────────────────────────────────────────────


def _series(metrics: Metrics) -> Mapping[str, MetricSeries]:
    return {
        "cpu": metrics.cpu,
        "memory": metrics.mem,
        "receive": metrics.network.receive,
        "transmit": metrics.network.transmit,
        "disk read": metrics.total.disk_read_total,
        "disk write": metrics.total.disk_write_total,
    }


@attrs.frozen
class _Reading:
    """A series by its name, as a row of a table."""

    name: str
    values: Sequence[float | None]

    @property
    def last(self) -> float | None:
        """The newest value; None without one."""
        return next((value for value in reversed(self.values) if value is not None), None)

    @property
    def most(self) -> float | None:
        """The largest value; None without one."""
        return max((value for value in self.values if value is not None), default=None)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


_READING_COLUMNS: Final[Sequence[Column[_Reading]]] = (
    Column("METRIC", lambda one: one.name, is_whole=True),
    Column("LAST", lambda one: _number(one.last)),
    Column("MOST", lambda one: _number(one.most)),
    Column("VALUES", lambda one: len(one.values)),
)


@command(
    "edgegap-async metrics 4ff2a1b2c3d4",
    "edgegap-async metrics 4ff2a1b2c3d4 --plot",
    "edgegap-async metrics 4ff2a1b2c3d4 --png server.png",
    "edgegap-async metrics 4ff2a1b2c3d4 --json | jq .mem.datasets",
)
@click.argument("request_id", metavar="ID")
@click.option("--plot", is_flag=True, help="Draw the values over time in the terminal.")
@click.option(
    "--png",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write a picture to this file, which needs matplotlib.",
)
@with_client
async def metrics(
    client: EdgegapClient, output: Output, *, request_id: str, plot: bool, png: Path | None
) -> None:
    """Show CPU, memory, network and disk use. The API documents no units.

    On the emulator CPU is percent of one CPU, and all else is in bytes.
    """
    found = await client.deployments.metrics(request_id)
    if png is not None:
        write_png(png, request_id, _series(found))
        output.say(f"{png} is written.")
        return
    if output.json:
        output.json_line(found)
        return
    readings = [_Reading(name, one.datasets) for name, one in _series(found).items()]
    columns = [*_READING_COLUMNS]
    if plot:
        width = max(10, min(60, shutil.get_terminal_size().columns - 50))
        columns.append(Column("OVER TIME", lambda one: sparkline(one.values, width)))
    output.table(readings, columns, nothing="There are no values yet.")


# ── top ──────────────────────────────────────────────────────────────────────────────────────────


@attrs.frozen
class _Load:
    """A deployment and its use of the machine, as a row of a table."""

    row: DeploymentRow
    metrics: Metrics | None
    """None before READY, and where the API gives none."""

    @property
    def cpu(self) -> _Reading:
        """Its use of CPU."""
        return _Reading("cpu", self.metrics.cpu.datasets if self.metrics else ())

    @property
    def memory(self) -> _Reading:
        """Its use of memory."""
        return _Reading("memory", self.metrics.mem.datasets if self.metrics else ())


_LOAD_COLUMNS: Final[Sequence[Column[_Load]]] = (
    Column("DEPLOYMENT", lambda one: one.row.request_id, is_whole=True),
    Column("STATUS", lambda one: row_status(one.row), is_whole=True),
    Column("READY FOR", lambda one: row_age(one.row), is_whole=True),
    Column("CPU", lambda one: _number(one.cpu.last), is_whole=True),
    Column("", lambda one: sparkline(one.cpu.values, _SPARKLINE), is_whole=True),
    Column("MEMORY", lambda one: _number(one.memory.last), is_whole=True),
    Column("", lambda one: sparkline(one.memory.values, _SPARKLINE), is_whole=True),
    Column("ADDRESS", lambda one: row_addresses(one.row), is_whole=True),
    Column("TAGS", lambda one: " ".join(one.row.tags)),
)


@command(
    "edgegap-async top",
    "edgegap-async top -t ranked --interval 5s",
    "edgegap-async top -n 1 --json",
)
@click.option("--tag", "-t", "tags", multiple=True, help="Only with one of these tags.")
@click.option(
    "--interval", type=DURATION, default="2s", show_default=True, help="Between two refreshes."
)
@click.option(
    "--refreshes",
    "-n",
    "count",
    type=click.IntRange(1),
    help="End after so many refreshes; 1 where no terminal is, else until Ctrl-C.",
)
@with_client
async def top(
    client: EdgegapClient,
    output: Output,
    *,
    tags: Sequence[str],
    interval: float,
    count: int | None,
) -> None:
    """Show deployments and their use of CPU and memory, live.

    A refresh is one list, and the metrics of the first READY servers, 20 at most.
    """
    is_live = has_rich(sys.stdout) and not (output.json or output.quiet)
    if not is_live:
        for number in range(count or 1):
            if number:
                async with while_read():
                    await asyncio.sleep(interval)
            loads = await _loads(client, tags)
            if output.json:
                for one in loads:
                    metrics = {"cpu": one.cpu.last, "memory": one.memory.last}
                    output.json_line({"request_id": one.row.request_id, **metrics, "row": one.row})
            else:
                output.table(loads, _LOAD_COLUMNS, nothing="No deployment runs.")
        return
    from rich.console import Group
    from rich.live import Live  # only for a terminal

    terminal = console(sys.stdout)
    with Live(console=terminal, auto_refresh=False) as live:
        for number in itertools.count(1):
            loads = await _loads(client, tags)
            table = rich_table(loads, _LOAD_COLUMNS, terminal.width)
            live.update(Group(plural(len(loads), "deployment"), table), refresh=True)
            if number == count:
                return
            await asyncio.sleep(interval)


async def _loads(client: EdgegapClient, tags: Sequence[str]) -> list[_Load]:
    rows = [row async for row in deployment_rows(client, tags)]
    measured = [row for row in rows if row.is_ready][:_SERVERS_AT_ONCE]

    async def read(row: DeploymentRow) -> Metrics | None:
        try:
            return await client.deployments.metrics(row.request_id)
        except (sdk.errors.NotFound, sdk.errors.Gone):  # it has ended since
            return None

    found = await asyncio.gather(*map(read, measured))
    by_id = {row.request_id: one for row, one in zip(measured, found, strict=True)}
    return [_Load(row, by_id.get(row.request_id)) for row in rows]


# ── charts: lines of braille characters for a terminal, PNG through matplotlib ────────────────────


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
        from matplotlib.figure import Figure  # 0.5 s, and an extra of the user's
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
