"""What the package's log says that somebody should do something about."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

LOGGER = logging.getLogger("edgegap_async")


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextlib.contextmanager
def logged_errors(*, nothing_less: bool = False) -> Iterator[list[str]]:
    """The lines at ERROR that are logged in the block, as they come.

    Args:
        nothing_less: True to log nothing else meanwhile, which takes time in many short runs.
    """
    handler, level = _Lines(), LOGGER.level
    LOGGER.addHandler(handler)
    if nothing_less:
        LOGGER.setLevel(logging.ERROR)
    try:
        yield handler.lines
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(level)
