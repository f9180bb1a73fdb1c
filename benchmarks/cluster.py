"""Measures one rate limit that several processes share through Redis: use and fairness.

Each process has forty callers that request a permit for a deploy again and again. Needs
redis-server, and starts one. Prints JSON, one entry for each number of processes: permits a second
and their share of the limit, the most in any second, the fairness between processes (Jain's index,
1 if all got the same), and how many scripts Redis ran for each permit.

    python benchmarks/cluster.py [--processes 4 8] [--seconds 14]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection

from figures import significant
from redis import ConnectionError as NotReady
from redis import Redis

from edgegap_async import Cluster
from edgegap_async.api.operations import DEPLOY

LIMIT = 40
CALLERS = 40


@contextlib.contextmanager
def redis_server() -> Iterator[int]:
    """Runs a Redis server that saves nothing, and returns its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as directory:
        server = subprocess.Popen(
            ["redis-server", "--port", str(port), "--save", "", "--dir", directory],
            stdout=subprocess.DEVNULL,
        )
        try:
            with Redis(port=port) as redis:
                while True:
                    with contextlib.suppress(NotReady):
                        redis.ping()
                        break
                    time.sleep(0.05)
            yield port
        finally:
            server.terminate()
            server.wait()


def scripts_run(port: int) -> int:
    with Redis(port=port) as redis:
        return int(redis.info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0))


def take_permits(port: int, processes: int, pipe: Connection) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        times: list[float] = []
        async with Cluster(f"redis://127.0.0.1:{port}") as cluster:

            async def call() -> None:
                while True:
                    await cluster.limits.acquire(DEPLOY)
                    times.append(loop.time())

            while not (cluster.is_shared and cluster.programs == processes):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            pipe.send("ready")
            await loop.run_in_executor(None, pipe.recv)
            callers = [asyncio.create_task(call()) for _ in range(CALLERS)]
            await loop.run_in_executor(None, pipe.recv)
            for caller in callers:
                caller.cancel()
            await asyncio.gather(*callers, return_exceptions=True)
        pipe.send(times)

    asyncio.run(run())


def most_in_one_second(times: list[float]) -> int:
    most = first = 0
    for last, stamp in enumerate(times):
        while times[first] <= stamp - 1:
            first += 1
        most = max(most, last - first + 1)
    return most


def measure(processes: int, seconds: float) -> dict[str, object]:
    fork = multiprocessing.get_context("spawn")
    with redis_server() as port:
        pipes, children = [], []
        for _ in range(processes):
            ours, theirs = fork.Pipe()
            child = fork.Process(target=take_permits, args=(port, processes, theirs))
            child.start()
            pipes.append(ours)
            children.append(child)
        for pipe in pipes:
            pipe.recv()
        scripts = scripts_run(port)
        for pipe in pipes:
            pipe.send("go")
        time.sleep(seconds)
        scripts = scripts_run(port) - scripts
        for pipe in pipes:
            pipe.send("end")
        taken = [pipe.recv() for pipe in pipes]
        for child in children:
            child.join()
    times = sorted(stamp for one in taken for stamp in one)
    counts = [len(one) for one in taken]
    rate = (len(times) - 10) / (times[-1] - times[0])  # without the first burst
    return {
        "processes": processes,
        "permits_per_second": significant(rate),
        "share_of_the_limit": significant(rate / LIMIT),
        "most_in_one_second": most_in_one_second(times),
        "jain": significant(sum(counts) ** 2 / len(counts) / sum(count**2 for count in counts), 4),
        "scripts_per_permit": significant(scripts / len(times)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--seconds", type=float, default=14)
    given = parser.parse_args()
    result = {
        "benchmark": "cluster",
        "limit_per_second": LIMIT,
        "runs": [measure(processes, given.seconds) for processes in given.processes],
        "goal": "most_in_one_second at most the limit, share at least 0.9, jain at least 0.99, "
        "scripts_per_permit at most 0.25",
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
