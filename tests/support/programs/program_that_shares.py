"""A matchmaker of several that share the limits: deploys as fast as it may, until told to end.

Says when it is ready, and at the end when its calls went, by the machine's clock.
"""

from __future__ import annotations

import asyncio
import json
import sys

import aiohttp

from edgegap_async import Cluster, EdgegapClient


async def watch_the_machine(stalls: list[float]) -> None:
    """Notes how much later than asked for it runs, for as long as it runs."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + 0.005
        await asyncio.sleep(0.005)
        stalls.append(loop.time() - due)


async def main(redis: str, api: str, token: str) -> None:
    loop = asyncio.get_running_loop()
    times: list[float] = []
    stalls: list[float] = []

    async def goes(*_: object) -> None:
        times.append(loop.time())

    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(goes)
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
        watching = asyncio.create_task(watch_the_machine(stalls))
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
