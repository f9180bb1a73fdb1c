"""Fixtures of the tests of one call."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from scripted_api import ScriptedApi
from scripted_calls import CANARY

from edgegap_async.http.api_client import ApiClient


@pytest.fixture
async def client(api: ScriptedApi) -> AsyncIterator[ApiClient]:
    """A client of that server."""
    async with ApiClient(CANARY, base_url=api.url) as client:
        yield client
