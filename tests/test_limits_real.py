"""The limits in real time, counted by a server in another process. Says nothing of speed."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
from strict_api import LIMITS, ROUTES, StrictApi

from edgegap_async import EdgegapClient

SECONDS = 3.0
WORKERS = 10


def operation(method: str, path: str) -> str:
    """The name of the operation that a request is for."""
    for name, (its_method, template, _) in ROUTES.items():
        if method == its_method and re.fullmatch(template.replace("{request_id}", r"\w+"), path):
            return name
    raise AssertionError(f"{method} {path} is not expected")


async def test_no_second_at_the_server_holds_more_calls_than_the_limit() -> None:
    departures: dict[str, list[float]] = {name: [] for name in LIMITS}

    async def note(_: object, __: object, going: Any) -> None:
        departures[operation(going.method, going.url.path)].append(time.monotonic())

    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(note)
    async with (
        StrictApi() as api,
        aiohttp.ClientSession(trace_configs=[trace]) as session,
        EdgegapClient("token", base_url=api.url, session=session) as client,
    ):
        until = asyncio.get_running_loop().time() + SECONDS

        async def worker(call: Callable[[], Awaitable[object]]) -> None:
            while asyncio.get_running_loop().time() < until:
                await call()

        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: client.deployments.deploy("arena", "v1", users=["192.0.2.1"]),
            lambda: client.deployments.get("abc123"),
            client.deployments.list_page,
        ]
        await asyncio.gather(*(worker(call) for call in calls for _ in range(WORKERS)))

    for name, limit in LIMITS.items():
        came = sorted(arrival.at for arrival in api.arrivals[name])
        went = sorted(departures[name])
        assert len(came) == len(went) > limit
        # On a busy machine some travel longer than others, which is not the limiter's doing: the
        # times at the server are believed as far as it took them that much longer.
        travel = [arrived - left for left, arrived in zip(went, came, strict=True)]
        uneven = max(travel) - min(travel)
        spans = [later - sooner for sooner, later in zip(came, came[limit:], strict=False)]
        assert min(spans) >= 1 - uneven, name
