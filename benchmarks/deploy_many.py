"""How fast `deploy_many` is, and what a deployment that is waited for costs in memory.

Fast: so many simulated deployments on a real emulator in a process of its own, over real sockets,
with the documented limits on, in real time. Beside it what the limit allows: 40 deploys a second,
then one ready-time.

Small: so many deployments that are accepted and never READY, all waited for at once; the memory
that this program has more than before, by tracemalloc. Prints JSON.

    python benchmarks/deploy_many.py [--deployments 400] [--waiting 2000 10000]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import subprocess
import sys
import time
import tracemalloc
from collections.abc import AsyncIterator

from edgegap_async import DeployRequest, EdgegapClient, Status
from edgegap_async.emulator import Application, AppPort, Emulator, Simulation, Timings

READY_AFTER = 2.0
LIMIT = 40
REQUEST = DeployRequest(application="arena", version="v1", users=[(48.9, 2.4)])


async def serve(*, silent: bool) -> None:
    """Be the emulator, until the program that started it closes its input."""
    arena = Application(
        name="arena", version="v1", argv=["none"], ports=[AppPort("game")], time_to_deploy=3600
    )
    simulation = Simulation(ready_after=(READY_AFTER, READY_AFTER), silent=1.0 if silent else 0.0)
    async with Emulator(
        [arena], timings=Timings.fast(), limits=not silent, simulate=simulation
    ) as emulator:
        print(json.dumps({"url": emulator.url, "token": emulator.token}), flush=True)
        await asyncio.to_thread(sys.stdin.read)


@contextlib.asynccontextmanager
async def an_emulator(*, silent: bool) -> AsyncIterator[dict[str, str]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        __file__,
        "--serve",
        "silent" if silent else "ready",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield json.loads(await process.stdout.readline())
    finally:
        process.stdin.close()
        await process.wait()


async def how_fast(deployments: int) -> dict[str, object]:
    async with (
        an_emulator(silent=False) as at,
        EdgegapClient(at["token"], base_url=at["url"]) as client,
    ):
        await client.locations.list()  # connected
        began = time.perf_counter()
        async with client.deploy_many([REQUEST] * deployments) as batch:
            outcomes = await batch.all()
        spent = time.perf_counter() - began
        requests = client.requests_sent - 1
        ready = sum(outcome.is_ready for outcome in outcomes)
        attempts = sum(outcome.attempts for outcome in outcomes)
        await asyncio.gather(*(one.handle.stop() for one in outcomes if one.handle))
    allowed = deployments / LIMIT + READY_AFTER
    return {
        "deployments": deployments,
        "told_ready": ready,
        "deploys": attempts,
        "seconds": round(spent, 3),
        "allowed_seconds": round(allowed, 3),
        "ratio": round(spent / allowed, 4),
        "requests_per_deployment": round(requests / deployments, 2),
    }


async def how_small(waiting: int) -> dict[str, object]:
    limits = {"deploy": None, "get_deployment": 1000.0, "list_deployments": 100.0}
    async with (
        an_emulator(silent=True) as at,
        EdgegapClient(at["token"], base_url=at["url"], limits=limits) as client,
    ):
        await client.deploy_many([REQUEST], timeout=2.0).all()  # what is imported late, is
        requests = [REQUEST] * waiting
        gc.collect()
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        tasks = len(asyncio.all_tasks())
        async with client.deploy_many(requests, concurrency=waiting, timeout_each=None) as batch:
            async for progress in batch.progress():
                if progress.under_way[Status.DEPLOYING] == waiting:
                    break
            gc.collect()
            after, _ = tracemalloc.get_traced_memory()
            tasks = len(asyncio.all_tasks()) - tasks
            tracemalloc.stop()
    return {
        "waiting": waiting,
        "bytes_each": round((after - before) / waiting),
        "tasks_each": round(tasks / waiting, 3),
    }


async def measure(deployments: int, waiting: list[int]) -> dict[str, object]:
    return {
        "benchmark": "deploy_many",
        "real time": await how_fast(deployments) if deployments else None,
        "memory": [await how_small(number) for number in waiting],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--deployments", type=int, default=400)
    parser.add_argument("--waiting", type=int, nargs="*", default=[2000, 10_000])
    parser.add_argument("--serve", choices=("ready", "silent"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        asyncio.run(serve(silent=asked.serve == "silent"))
    else:
        print(json.dumps(asyncio.run(measure(asked.deployments, asked.waiting)), indent=1))


if __name__ == "__main__":
    main()
