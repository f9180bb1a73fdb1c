"""One of several matchmakers that share the rate limits: deploys as fast as the limits allow.

It prints "ready", starts at the first line on its standard input, and ends at the second one. Then
it prints the times of its calls by the machine's clock, its longest stall, and its errors.
"""

from __future__ import annotations

import asyncio
import json
import sys

import aiohttp

from edgegap_async import Cluster, EdgegapClient


async def measure_stalls(stalls: list[float]) -> None:
    """Records how late the event loop runs a task that sleeps for 5 ms, until it is cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + 0.005
        await asyncio.sleep(0.005)
        stalls.append(loop.time() - due)


async def main(redis: str, api: str, token: str) -> None:
    loop = asyncio.get_running_loop()
    times: list[float] = []
    stalls: list[float] = []

    async def record_start(*_: object) -> None:
        times.append(loop.time())

    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(record_start)
    async with (
        aiohttp.ClientSession(trace_configs=[trace]) as session,
        Cluster(redis) as cluster,
        EdgegapClient(token, base_url=api, session=session, limits=cluster.limits) as client,
    ):

        async def match() -> None:
            while True:
                await client.deployments.deploy("arena", "v1", users=["8.8.8.8"])

        while not (cluster.is_shared and cluster.programs == 4):
            await asyncio.sleep(0.05)
        print("ready", flush=True)
        await loop.run_in_executor(None, sys.stdin.readline)
        matches = [asyncio.create_task(match()) for _ in range(20)]
        watching = asyncio.create_task(measure_stalls(stalls))
        await loop.run_in_executor(None, sys.stdin.readline)
        watching.cancel()
        ended = [task for task in matches if task.done()]
        for task in matches:
            task.cancel()
        await asyncio.gather(*matches, return_exceptions=True)
    errors = [repr(task.exception()) for task in ended]
    print(json.dumps({"times": times, "stall": max(stalls), "errors": errors}))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
