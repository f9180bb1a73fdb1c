"""What commands print: data on stdout, progress and everything else on stderr.

Data is an aligned table or block; with `--json` one JSON object a line, with the names of the
fields of the package's models; with `--quiet` ids alone. A terminal gets colours and tables that
fit its width, from rich; a pipe gets plain text.

Texts that come from the API, such as logs, tags and reasons, may hold escape sequences, which a
terminal would obey: `visible` shows each character that is not printable as its escape.

Progress is one line that changes in a terminal, else a line for each step.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import importlib.util
import json
import os
import re
import stat
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, Self, TextIO, TypeVar

import edgegap_async as sdk

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bar
    from rich.table import Table

Row = TypeVar("Row")

_STATUS_STYLES: Final = {
    "READY": "green",
    "ERROR": "bold red",
    "TERMINATING": "yellow",
    "TERMINATED": "dim",
}
_GAP: Final = 2  # characters between two columns
_PREFIX: Final = "Status."  # of the API's spelling of a status


def visible(value: object, keep: str = "") -> str:
    """Returns a text in which every character that a terminal would obey is shown as its escape.

    Args:
        value: the text; None for an empty one.
        keep: characters that stay, such as line breaks.
    """
    text = "" if value is None else str(value)
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one in keep else _escape(one) for one in text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def to_json(value: object) -> object:
    """Returns a value as `json` takes it: a model as an object with the names of its fields.

    Fields that no repr shows, such as the whole answer as it came, are left out.
    """
    if isinstance(value, enum.Enum):
        return str(value.value).removeprefix(_PREFIX)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if (fields := getattr(type(value), "__attrs_attrs__", None)) is not None:
        return {one.name: to_json(getattr(value, one.name)) for one in fields if one.repr}
    return value


class Column(NamedTuple, Generic[Row]):
    """A column of a table."""

    title: str
    """Its title."""
    cell: Callable[[Row], object]
    """Returns the text of a row."""
    is_whole: bool = False
    """Whether the text is never cut, such as an id."""

    def text(self, row: Row) -> str:
        """Returns the text of a row, in one line."""
        return visible(self.cell(row))


class Output:
    """Prints what a command says, as its options `--json`, `--quiet` and `-v` ask."""

    def __init__(self) -> None:
        self.json = False
        """Whether data is one JSON object a line."""
        self.quiet = False
        """Whether data is ids alone, and nothing but errors comes on stderr."""
        self.verbose = 0
        """How often `-v` was given: 1 for the package's log, 2 for every detail."""

    # ── stderr ───────────────────────────────────────────────────────────────────────────────────

    def say(self, text: str) -> None:
        """Prints a remark on stderr, unless `--quiet` is given."""
        if not self.quiet:
            self.warn(text)

    def warn(self, text: str) -> None:
        """Prints a text on stderr in any case."""
        print(visible(text, "\n\t"), file=sys.stderr, flush=True)

    @property
    def shows_progress(self) -> bool:
        """Whether progress is a line that changes: stderr is a terminal, and rich is there."""
        return not self.quiet and self.verbose == 0 and has_rich(sys.stderr)

    # ── stdout ───────────────────────────────────────────────────────────────────────────────────

    def line(self, text: str) -> None:
        """Prints a line of data; a closed pipe raises BrokenPipeError here and not at the end."""
        print(text, flush=True)

    def json_line(self, value: object) -> None:
        """Prints a line of JSON."""
        self.line(json.dumps(to_json(value)))

    def print_id(self, request_id: str) -> None:
        """Prints the id of a deployment."""
        if self.json:
            self.json_line({"request_id": request_id})
        else:
            self.line(request_id)

    def one(self, value: object, fields: Mapping[str, object]) -> None:
        """Prints one object.

        Args:
            value: what `--json` prints.
            fields: name and text of each line, the id first; a list is several lines, and an empty
                value none.
        """
        if self.json:
            self.json_line(value)
            return
        if self.quiet:
            self.line(visible(next(iter(fields.values()))))
            return
        width = max(map(len, fields)) + 2
        for name, field in fields.items():
            texts = field if isinstance(field, list) else [field]
            for number, text in enumerate(text for text in texts if text not in {None, ""}):
                self.line(f"{'' if number else name:<{width}}{visible(text)}")

    def table(self, rows: Iterable[Row], columns: Sequence[Column[Row]], *, nothing: str) -> None:
        """Prints a table.

        Args:
            rows: the objects, which `--json` prints.
            columns: the columns, that of the id first.
            nothing: what to say on stderr if there is no row.
        """
        listed = list(rows)
        if self.json:
            for row in listed:
                self.json_line(row)
        elif self.quiet:
            for row in listed:
                self.line(columns[0].text(row))
        elif not listed:
            self.say(nothing)
        elif has_rich(sys.stdout):
            terminal = console(sys.stdout)
            terminal.print(rich_table(listed, columns, terminal.width))
        else:
            for line in plain_table(listed, columns):
                self.line(line)


def plain_table(rows: Sequence[Row], columns: Sequence[Column[Row]]) -> list[str]:
    """Returns the lines of a table, with columns that are as wide as their longest text."""
    cells = [[one.title for one in columns], *([one.text(row) for one in columns] for row in rows)]
    widths = [max(map(len, texts)) for texts in zip(*cells, strict=True)]
    gap = " " * _GAP
    return [
        gap.join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]


def rich_table(rows: Sequence[Row], columns: Sequence[Column[Row]], width: int) -> Table:
    """Returns a table for a terminal.

    Args:
        rows: the objects.
        columns: the columns. The last ones are left out if the terminal is too narrow for them.
        width: of the terminal, in characters.
    """
    from rich.table import Table  # 50 ms, and only for a terminal
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    left, shown = width, 0
    for column in columns:
        texts = [column.title, *(column.text(row) for row in rows)]
        longest = max(map(len, texts)) if column.is_whole else len(column.title)
        left -= longest + (_GAP if shown else 0)
        if left < 0 and shown:
            break
        table.add_column(column.title, no_wrap=True, overflow="ellipsis", min_width=longest)
        shown += 1
    for row in rows:
        cells = (column.text(row) for column in columns[:shown])
        table.add_row(*(Text(text, style=_STATUS_STYLES.get(text, "")) for text in cells))
    return table


def has_rich(stream: TextIO) -> bool:
    """Returns whether a stream is a terminal that rich can write to."""
    is_terminal = stream.isatty() and os.environ.get("TERM") != "dumb"
    return is_terminal and importlib.util.find_spec("rich") is not None


def console(stream: TextIO) -> Console:
    """Returns rich's console on a stream; it obeys NO_COLOR, and texts are no markup."""
    from rich.console import Console  # 50 ms, and only for a terminal

    return Console(file=stream, markup=False, highlight=False, emoji=False)


def release_streams() -> None:
    """Leaves stdout and stderr, whose reader has gone, to no reader at all.

    Otherwise Python's last flush fails again, and prints a traceback.
    """
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except BrokenPipeError:
                os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


@contextlib.asynccontextmanager
async def while_read() -> AsyncIterator[None]:
    """Ends its block with BrokenPipeError once the reader of stdout, a pipe, has left.

    A write would raise that error, too; but a command that waits, such as for the next line of a
    log, may not write for hours, and `| grep -m 1 PATTERN` would keep a script waiting.
    """
    loop, limit = asyncio.get_running_loop(), asyncio.timeout(None)
    pipe = _pipe_of(sys.stdout)

    def leave() -> None:
        assert pipe is not None  # noqa: S101 - it has called
        loop.remove_reader(pipe)  # else it calls again and again
        limit.reschedule(loop.time())

    try:
        async with limit:
            if pipe is not None:  # the end that writes is readable once no reader is left
                loop.add_reader(pipe, leave)
            try:
                yield
            finally:
                if pipe is not None:
                    loop.remove_reader(pipe)
    except TimeoutError:
        if not limit.expired():
            raise
        raise BrokenPipeError from None


def _pipe_of(stream: TextIO) -> int | None:
    """Returns the file descriptor of a stream that is a pipe; None for another stream."""
    try:
        number = stream.fileno()
        return number if stat.S_ISFIFO(os.fstat(number).st_mode) else None
    except (OSError, ValueError):  # it has no file, or a closed one
        return None


def seconds(duration: float) -> str:
    """Returns a duration in the two largest units that it needs, such as `3 min 5 s`."""
    if duration < 0.9995:  # noqa: PLR2004 - what does not round to a second
        return f"{1000 * duration:.0f} ms"
    if duration < 60:  # noqa: PLR2004 - seconds of a minute
        return f"{duration:.1f} s"
    minutes, rest = divmod(round(duration), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    first = next(index for index, (count, _) in enumerate(parts) if count)
    return " ".join(f"{count} {unit}" for count, unit in parts[first : first + 2] if count)


def plural(count: int, noun: str) -> str:
    """Returns a number with its noun: `1 deployment`, `3 deployments`."""
    return f"{count} {re.sub('y$', 'ie', noun) + 's' if count != 1 else noun}"


# ── progress ──────────────────────────────────────────────────────────────────────────────────────


class Progress:
    """Shows what a command waits for, and for how long already.

    Args:
        output: says whether there is a terminal.
        subject: what the steps belong to, such as an id; it may change.
    """

    def __init__(self, output: Output, subject: str) -> None:
        self.subject = subject
        """What the steps belong to."""
        self._output = output
        self._began = time.monotonic()
        self._bar: Bar | None = None

    @property
    def elapsed(self) -> float:
        """Seconds since the command began."""
        return time.monotonic() - self._began

    def __enter__(self) -> Self:
        if self._output.shows_progress:
            self._bar = _line_with_spinner()
            self._bar.add_task(visible(self.subject))
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.hide()

    def hide(self) -> None:
        """Removes the line from the terminal."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def step(self, text: str) -> None:
        """Shows a step."""
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], description=visible(f"{self.subject}  {text}"))
        else:
            self._output.say(f"{self.subject}  {text} after {seconds(self.elapsed)}")

    def done(self, text: str) -> None:
        """Shows the last step, which stays on the terminal."""
        self.hide()
        self._output.say(f"{self.subject}  {text} after {seconds(self.elapsed)}")

    @contextlib.asynccontextmanager
    async def of(self, server: sdk.DeploymentHandle) -> AsyncIterator[None]:
        """Shows each change of a deployment's status during the block, but for final ones."""

        async def show_changes() -> None:
            with contextlib.suppress(sdk.EdgegapError):  # the block gets the error, too
                async for change in server.changes():
                    if not (change.status.is_ready or change.status.is_final):
                        self.step(str(change.status))

        showing = asyncio.create_task(show_changes())
        try:
            yield
        finally:
            showing.cancel()
            await asyncio.wait([showing])
            if not showing.cancelled():
                showing.result()  # such as a closed pipe


def _line_with_spinner() -> Bar:
    from rich.progress import Progress as Bar  # 60 ms, and only for a terminal
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.table import Column

    return Bar(
        SpinnerColumn(),
        TextColumn(
            "{task.description}",
            markup=False,
            table_column=Column(no_wrap=True, overflow="ellipsis"),
        ),
        TimeElapsedColumn(),
        console=console(sys.stderr),
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
