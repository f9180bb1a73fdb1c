"""Fixtures of the poller's tests: an API whose lists misbehave, a client of it, and its poller."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from flaky_api import FlakyApi

from edgegap_async.http.api_client import ApiClient
from edgegap_async.polling.poller import StatusPoller
from edgegap_async.polling.schedule import PollingPolicy


@pytest.fixture
async def flaky_api() -> AsyncIterator[FlakyApi]:
    """A server with lists that can misbehave."""
    async with FlakyApi() as flaky_api:
        yield flaky_api


@pytest.fixture
async def client(flaky_api: FlakyApi) -> AsyncIterator[ApiClient]:
    """A client of that server."""
    async with ApiClient("canary-t", base_url=flaky_api.url) as client:
        yield client


@pytest.fixture
def poller(client: ApiClient) -> StatusPoller:
    """A poller with the default policy."""
    return StatusPoller(client, PollingPolicy())
