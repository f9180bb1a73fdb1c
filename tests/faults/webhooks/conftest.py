"""What holds for every test of webhooks: no server logs an error of this package."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _no_server_logs_an_error_of_ours(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fails if a server logs an error that came through this package's code."""
    yield
    for record in caplog.get_records("call"):
        trace = traceback.extract_tb(record.exc_info[2]) if record.exc_info else []
        through_us = any("/edgegap_async/" in frame.filename for frame in trace)
        is_our_log = record.name.startswith("edgegap_async.webhooks")
        assert is_our_log or record.levelno < logging.ERROR or not through_us, record.getMessage()
        assert not record.getMessage().startswith(("Unhandled exception", "Exception in ASGI"))
