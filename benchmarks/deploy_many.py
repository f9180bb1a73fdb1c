"""Measures how fast `deploy_many` is, and the memory of a deployment that is waited for.

Speed: simulated deployments on an emulator in a process of its own, over real sockets, in real
time, with the documented rate limits. `allowed_seconds` is the least that the limits permit: 40
deploys a second, then the time to READY.

Memory: deployments that are accepted and never READY, all waited for at once. `bytes_each` is the
growth of this program's memory by tracemalloc, divided by the deployments.

The program prints JSON:

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

from figures import significant

from edgegap_async import DeployRequest, EdgegapClient, Status
from edgegap_async.emulator import Application, AppPort, Emulator, Simulation, Timings

READY_AFTER = 2.0  # seconds
DEPLOY_LIMIT = 40  # requests a second, as documented
REQUEST = DeployRequest(application="arena", version="v1", users=[(48.9, 2.4)])


async def serve(*, never_ready: bool) -> None:
    """Runs the emulator until the benchmark closes the standard input of this process."""
    arena = Application(
        name="arena", version="v1", argv=["none"], ports=[AppPort("game")], time_to_deploy=3600
    )
    simulation = Simulation(
        ready_after=(READY_AFTER, READY_AFTER), never_ready_share=1.0 if never_ready else 0.0
    )
    async with Emulator(
        [arena], timings=Timings.fast(), limits=not never_ready, simulate=simulation
    ) as emulator:
        print(json.dumps({"url": emulator.url, "token": emulator.token}), flush=True)
        await asyncio.to_thread(sys.stdin.read)


@contextlib.asynccontextmanager
async def run_emulator(*, never_ready: bool) -> AsyncIterator[dict[str, str]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        __file__,
        "--serve",
        "never-ready" if never_ready else "ready",
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


async def measure_speed(deployments: int) -> dict[str, object]:
    async with (
        run_emulator(never_ready=False) as emulator,
        EdgegapClient(emulator["token"], base_url=emulator["url"]) as client,
    ):
        await client.locations.list()  # opens the connection
        began = time.perf_counter()
        async with client.deploy_many([REQUEST] * deployments) as batch:
            outcomes = await batch.all()
        seconds = time.perf_counter() - began
        requests = client.requests_sent - 1
        ready = sum(outcome.is_ready for outcome in outcomes)
        attempts = sum(outcome.attempts for outcome in outcomes)
        await asyncio.gather(*(outcome.handle.stop() for outcome in outcomes if outcome.handle))
    allowed_seconds = deployments / DEPLOY_LIMIT + READY_AFTER
    return {
        "deployments": deployments,
        "ready": ready,
        "deploys": attempts,
        "seconds": significant(seconds),
        "allowed_seconds": significant(allowed_seconds),
        "ratio": significant(seconds / allowed_seconds),
        "requests_per_deployment": significant(requests / deployments),
    }


async def measure_memory(waiting: int) -> dict[str, object]:
    limits = {"deploy": None, "get_deployment": 1000.0, "list_deployments": 100.0}
    async with (
        run_emulator(never_ready=True) as emulator,
        EdgegapClient(emulator["token"], base_url=emulator["url"], limits=limits) as client,
    ):
        await client.deploy_many([REQUEST], timeout=2.0).all()  # imports what is imported late
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
        "tasks_each": significant(tasks / waiting),
    }


async def measure(deployments: int, waiting: list[int]) -> dict[str, object]:
    return {
        "benchmark": "deploy_many",
        "real time": await measure_speed(deployments) if deployments else None,
        "memory": [await measure_memory(number) for number in waiting],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--deployments", type=int, default=400)
    parser.add_argument("--waiting", type=int, nargs="*", default=[2000, 10_000])
    parser.add_argument("--serve", choices=("ready", "never-ready"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        asyncio.run(serve(never_ready=arguments.serve == "never-ready"))
    else:
        print(json.dumps(asyncio.run(measure(arguments.deployments, arguments.waiting)), indent=1))


if __name__ == "__main__":
    main()
