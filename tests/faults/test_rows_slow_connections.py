"""Connections that open slowly: name resolution, TLS handshakes, outages. Row 75."""

from __future__ import annotations

import ssl

import aiohttp
import pytest
import trustme
from limited_calls import most_in_one_second
from slow_connections import (
    HOST,
    LIMITS,
    StrictServer,
    call_often,
    outage,
    slow_dns,
)

from edgegap_async.concurrency import loop_time
from edgegap_async.http.api_client import ApiClient

pytestmark = pytest.mark.virtual

SECONDS = 4  # of full demand, in calls


async def check_limit(
    server: StrictServer,
    operation: str,
    delay: float,
    session: aiohttp.ClientSession | None = None,
) -> None:
    """Makes many calls at once, and checks that the limit was kept and used."""
    limit = LIMITS[operation]
    began = loop_time()
    async with ApiClient(
        "canary-t", base_url=server.url, session=session, allow_insecure=True
    ) as client:
        await call_often(client, operation, SECONDS * limit)

    times = server.arrivals[operation]
    assert most_in_one_second(times) <= limit
    assert server.refused == 0
    assert len(times) == SECONDS * limit
    assert times[0] - began >= delay
    assert times[-1] - times[0] < SECONDS + 0.5


@pytest.mark.parametrize("is_passed", [False, True], ids=["own session", "passed session"])
@pytest.mark.parametrize("delay", [0.5, 1, 3])
@pytest.mark.parametrize("operation", LIMITS)
async def test_row_75_a_slow_dns_lets_no_second_exceed_the_limit(
    operation: str, delay: float, *, is_passed: bool
) -> None:
    async with StrictServer() as server, slow_dns(delay):
        if is_passed:
            async with aiohttp.ClientSession() as session:
                await check_limit(server, operation, delay, session)
        else:
            await check_limit(server, operation, delay)


@pytest.mark.parametrize("is_passed", [False, True], ids=["own session", "passed session"])
@pytest.mark.parametrize("operation", LIMITS)
async def test_row_75_a_slow_tls_handshake_lets_no_second_exceed_the_limit(
    operation: str, *, is_passed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca = trustme.CA()
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert(HOST).configure_cert(tls)
    trusting = ssl.create_default_context()
    ca.configure_trust(trusting)
    async with StrictServer(tls=tls, opening_time=1) as server:
        if is_passed:
            connector = aiohttp.TCPConnector(ssl=trusting)
            async with aiohttp.ClientSession(connector=connector) as session:
                await check_limit(server, operation, 1, session)
        else:
            monkeypatch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", trusting)
            await check_limit(server, operation, 1)


@pytest.mark.parametrize("is_passed", [False, True], ids=["own session", "passed session"])
@pytest.mark.parametrize("operation", LIMITS)
async def test_row_75_an_outage_lets_no_second_exceed_the_limit(
    operation: str, *, is_passed: bool
) -> None:
    async with StrictServer() as server, outage(3):
        if is_passed:
            async with aiohttp.ClientSession() as session:
                await check_limit(server, operation, 3, session)
        else:
            await check_limit(server, operation, 3)
