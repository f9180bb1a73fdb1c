"""A matchmaker of several that share the limits: deploys as fast as it may, until told to end.

Prints a line when it is ready, and at the end when its calls went, by the machine's clock.
"""

from __future__ import annotations

import asyncio
import json
import sys

from edgegap_async import Cluster, EdgegapClient
from edgegap_async.endpoints import DEPLOY


async def main(redis: str, api: str, token: str) -> None:
    times: list[float] = []
    async with (
        Cluster(redis) as cluster,
        EdgegapClient(token, base_url=api, limits=cluster.limits) as client,
    ):
        acquire = cluster.limits.acquire

        async def match() -> None:
            while True:
                await client.deployments.deploy("arena", "v1", users=["8.8.8.8"])

        async def stamped(*arguments: object, **more: object) -> None:
            await acquire(*arguments, **more)  # type: ignore[arg-type]
            if arguments[0] is DEPLOY:
                times.append(asyncio.get_running_loop().time())

        cluster.limits.acquire = stamped  # type: ignore[method-assign,assignment]
        while not (cluster.is_shared and cluster.programs == 4):
            await asyncio.sleep(0.05)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, sys.stdin.readline)
        matches = [asyncio.create_task(match()) for _ in range(20)]
        await loop.run_in_executor(None, sys.stdin.readline)
        ended = [task for task in matches if task.done()]
        for task in matches:
            task.cancel()
        await asyncio.gather(*matches, return_exceptions=True)
    json.dump({"times": times, "errors": [repr(task.exception()) for task in ended]}, sys.stdout)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
