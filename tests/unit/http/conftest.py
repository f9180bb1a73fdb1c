"""Fixtures of the tests of one call."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Iterator

import pytest
from scripted_api import ScriptedApi
from scripted_calls import CANARY

from edgegap_async.http.api_client import ApiClient


@pytest.fixture
async def api() -> AsyncIterator[ScriptedApi]:
    """A server that answers from a script."""
    async with ScriptedApi() as api:
        yield api


@pytest.fixture
async def client(api: ScriptedApi) -> AsyncIterator[ApiClient]:
    """A client of that server."""
    async with ApiClient(CANARY, base_url=api.url) as client:
        yield client


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that refuses connections: it is bound, and no program listens on it."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.fixture
def full_port() -> Iterator[int]:
    """A port on which a connection never opens, because its queue is full."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listening.getsockname())
        yield listening.getsockname()[1]
