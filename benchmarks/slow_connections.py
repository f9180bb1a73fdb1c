"""Measures whether the limits hold at the server while connections open slowly.

In virtual time, over real loopback connections: for a minute of full demand of deploys, status
requests or lists, the most calls that reached the server in any second, and the answers 429. The
server allows the documented calls in any second. Name resolution lasts 0.5, 1 or 3 s, or no
connection opens for the first 3 s. Ours, beside aiohttp with `AsyncLimiter(limit, 1)`, which takes
its permit before the connection as usual code does, and repeats a refused call after a second.

    python benchmarks/slow_connections.py [--seconds 60]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections import deque
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Final

import aiohttp
from aiolimiter import AsyncLimiter

from edgegap_async.http.api_client import ApiClient

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/support"))
from figures import significant
from slow_connections import LIMITS, StrictServer, call_often, outage, slow_dns
from virtual_clock import run_virtually

SLOW: Final[dict[str, Callable[[], AbstractAsyncContextManager[None]]]] = {
    "name resolution 0.5 s": lambda: slow_dns(0.5),
    "name resolution 1 s": lambda: slow_dns(1),
    "name resolution 3 s": lambda: slow_dns(3),
    "outage of 3 s": lambda: outage(3),
}
REQUESTS: Final = {
    "deploy": ("POST", "/v2/deployments"),
    "get_deployment": ("GET", "/v1/status/abc123"),
    "list_deployments": ("GET", "/v1/deployments"),
}


def most_in_one_second(times: list[float]) -> int:
    """Returns the most calls in any window of one second, wherever it starts."""
    window, most = deque[float](), 0
    for at in sorted(times):
        window.append(at)
        while window[0] <= at - 1:
            window.popleft()
        most = max(most, len(window))
    return most


async def ours(server: StrictServer, operation: str, calls: int) -> None:
    async with ApiClient("token", base_url=server.url, allow_insecure=True) as client:
        await call_often(client, operation, calls)


async def plain(server: StrictServer, operation: str, calls: int) -> None:
    limiter, (method, path) = AsyncLimiter(LIMITS[operation], 1), REQUESTS[operation]

    async def one(session: aiohttp.ClientSession) -> None:
        while True:
            async with limiter, session.request(method, server.url + path) as response:
                if response.status != 429:
                    return
            await asyncio.sleep(1)

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(one(session) for _ in range(calls)))


async def measure(who: str, operation: str, slow: str, seconds: int) -> dict[str, float]:
    send = ours if who == "ours" else plain
    calls = LIMITS[operation] * seconds
    async with StrictServer() as server, SLOW[slow]():
        await send(server, operation, calls)
    times = server.arrivals[operation]
    return {
        "limit": LIMITS[operation],
        "worst_second": most_in_one_second(times),
        "answers_429": server.refused,
        "seconds_used": significant(times[-1] - times[0]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60)
    seconds = parser.parse_args().seconds
    results = {
        slow: {
            operation: {
                who: run_virtually(measure(who, operation, slow, seconds))
                for who in ("ours", "aiolimiter")
            }
            for operation in LIMITS
        }
        for slow in SLOW
    }
    print(json.dumps({"benchmark": "slow_connections", "seconds": seconds, **results}, indent=1))


if __name__ == "__main__":
    main()
