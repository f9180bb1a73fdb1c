"""Progress on stderr: one line that changes in a terminal, else a line for each step."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator
from types import TracebackType
from typing import TYPE_CHECKING, Self

import edgegap_async as sdk

from .output import Output, console, seconds, visible

if TYPE_CHECKING:
    from rich.progress import Progress as Bar


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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
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
                        self.step(change.status.short)

        showing = asyncio.create_task(show_changes())
        try:
            yield
        finally:
            showing.cancel()
            await asyncio.wait([showing])
            if not showing.cancelled():
                showing.result()  # such as a closed pipe


def _line_with_spinner() -> Bar:
    from rich.progress import (  # noqa: PLC0415 - 60 ms, and only for a terminal
        Progress as Bar,
    )
    from rich.progress import (  # noqa: PLC0415
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
    )
    from rich.table import Column  # noqa: PLC0415

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
