"""What the emulator's command prints: one line for each call and each change of status.

A thread writes the lines. If the terminal or pipe takes no more, lines are left out, and the
emulator goes on: a log that nobody reads must not stop it.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from datetime import datetime
from typing import Final, TextIO

from .deployments import LocalDeployment
from .recorded_requests import RecordedRequest
from .status_events import StatusEvent

_MAX_WAITING: Final = 10_000  # lines
_CLOSE_TIMEOUT: Final = 0.5  # seconds for the lines that wait at the end


class Console:
    """Writes lines to a stream from a thread of its own.

    Args:
        stream: where the lines go.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lines: queue.Queue[str | None] = queue.Queue(_MAX_WAITING)
        self._left_out = 0
        self._thread = threading.Thread(target=self._write, name="console", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Writes the lines that wait, for half a second at most."""
        with contextlib.suppress(queue.Full):
            self._lines.put(None, timeout=_CLOSE_TIMEOUT)
        self._thread.join(_CLOSE_TIMEOUT)

    def say(self, text: str) -> None:
        """Writes a line. Characters that a terminal would act on are shown as escapes."""
        safe = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)
        try:
            self._lines.put_nowait(f"{_now()} {safe}\n")
        except queue.Full:
            self._left_out += 1

    def request(self, request: RecordedRequest) -> None:
        """Writes the line of a call: method, path, status, milliseconds."""
        fault = f" [fault: {request.fault}]" if request.fault else ""
        is_made = request.request_id and request.request_id not in request.path.split("/")
        made = f" {request.request_id}" if is_made else ""
        self.say(
            f"{request.method} {request.path} {request.status}"
            f" {request.duration * 1000:.1f} ms{made}{fault}"
        )

    def status(self, deployment: LocalDeployment, event: StatusEvent) -> None:
        """Writes the line of a change of status: deployment, application, from, to, reason."""
        del deployment
        reason = f": {event.reason}" if event.reason else ""
        before = "NEW" if event.earlier is None else str(event.earlier)
        self.say(
            f"{event.request_id} {event.application} {event.version}"
            f" {before} → {event.later}{reason}"
        )

    def _write(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # the other end of the pipe is closed
            while (line := self._lines.get()) is not None:
                if self._left_out and self._lines.empty():
                    left_out, self._left_out = self._left_out, 0
                    line += f"{_now()} {left_out} lines were left out: they were not read in time\n"
                self._stream.write(line)
                self._stream.flush()


def _now() -> str:
    return datetime.now().astimezone().strftime("%H:%M:%S.%f")[:-3]
