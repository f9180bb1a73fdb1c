"""Fixtures of the tests that use a real Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis_server import RedisServer

from edgegap_async.cluster import connection, webhook_relay


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[RedisServer]:
    server = RedisServer(tmp_path)
    await server.start()
    try:
        yield server
    finally:
        await server.kill()


@pytest.fixture(autouse=True)
def _generous_redis_timeout(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Except in the tests of its loss, a Redis that is slow on a busy machine is not lost."""
    if not {"row_33", "row_83"} & {request.node.name[5:11]}:
        for module in (connection, webhook_relay):
            monkeypatch.setattr(module, "REDIS_TIMEOUT", 20.0)
