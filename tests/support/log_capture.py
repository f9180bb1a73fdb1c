"""Captures the error log of the package."""

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
    """Yields a list to which each line that is logged at ERROR in the block is added.

    Args:
        nothing_less: True to drop lower levels before they are formatted, which saves time.
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
