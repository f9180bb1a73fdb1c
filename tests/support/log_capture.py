"""Captures the error log of the package."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

LOGGER = logging.getLogger("edgegap_async")


class _Lines(logging.Handler):
    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextlib.contextmanager
def logged_errors(*, nothing_less: bool = False, least: int = logging.ERROR) -> Iterator[list[str]]:
    """Yields a list to which each line that is logged at ERROR in the block is added.

    Args:
        nothing_less: True to drop lower levels before they are formatted, which saves time.
        least: another lowest level.
    """
    handler, level = _Lines(least), LOGGER.level
    LOGGER.addHandler(handler)
    if nothing_less:
        LOGGER.setLevel(least)
    try:
        yield handler.lines
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(level)
