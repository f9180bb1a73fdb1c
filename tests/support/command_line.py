"""Runs the command line: in this process by click's runner, and as a program in a terminal."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Self

from click.testing import CliRunner

from edgegap_async.cli import main

_TIMEOUT = 30.0  # seconds in which a program must print what a test waits for
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]")


class Ran(NamedTuple):
    """What a command did."""

    status: int
    stdout: str
    stderr: str

    @property
    def objects(self) -> list[Any]:
        """The JSON objects on stdout."""
        return [json.loads(line) for line in self.stdout.splitlines()]


def invoke(*words: str, stdin: str = "") -> Ran:
    """Runs a command line in this process, without a terminal."""
    with CliRunner().isolation(input=stdin) as (stdout, stderr, _):
        try:
            status = main(words)
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        sys.stdout.flush()
        sys.stderr.flush()
        return Ran(status, stdout.getvalue().decode(), stderr.getvalue().decode())


class Terminal:
    """A command as a program of its own, in a pseudo-terminal.

    Args:
        words: the command line.
        environment: variables besides those of this process.
        columns: width of the terminal.
        stdout: a file descriptor in place of the terminal, such as a pipe.
    """

    def __init__(
        self,
        *words: str,
        environment: Mapping[str, str] | None = None,
        columns: int = 100,
        stdout: int | None = None,
    ) -> None:
        self._ours, theirs = pty.openpty()
        termios.tcsetwinsize(self._ours, (24, columns))
        self._process = subprocess.Popen(
            # The terminal is the program's own, so that Ctrl-C in it is a SIGINT.
            ["setsid", "--ctty", sys.executable, "-m", "edgegap_async", *words],
            stdin=theirs,
            stdout=theirs if stdout is None else stdout,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm", **(environment or {})},
        )
        os.close(theirs)
        self._text = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        os.close(self._ours)

    @property
    def text(self) -> str:
        """What the terminal has shown so far, without colours and movements of the cursor."""
        return _CONTROL.sub("", self._text)

    @property
    def raw(self) -> str:
        """What the terminal has got so far."""
        return self._text

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Returns the first match of a regular expression once the terminal shows it."""
        deadline = time.monotonic() + _TIMEOUT
        while (found := re.search(pattern, self.text)) is None:
            if not self._read(deadline):
                raise AssertionError(f"{pattern!r} was not shown: {self._text!r}")
        return found

    def press(self, keys: str) -> None:
        """Types into the terminal; `\\x03` is Ctrl-C."""
        os.write(self._ours, keys.encode())

    def send(self, number: signal.Signals) -> None:
        """Sends a signal to the program."""
        self._process.send_signal(number)

    def status(self) -> int:
        """Returns the program's exit status, after its end."""
        deadline = time.monotonic() + _TIMEOUT
        while self._read(deadline):
            pass
        return self._process.wait(_TIMEOUT)

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._ours], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise AssertionError(f"the program goes on; it has shown {self._text!r}")
        with contextlib.suppress(OSError):  # Linux says that the other end is closed
            if read := os.read(self._ours, 65536):
                self._text += read.decode()
                return True
        return False


@contextlib.contextmanager
def closed_pipe() -> Iterator[int]:
    """Yields the writing end of a pipe that has no reader."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        yield writing
    finally:
        os.close(writing)
