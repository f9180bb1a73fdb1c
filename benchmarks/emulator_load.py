"""Loads the emulator, a process of its own, and measures its answers, memory and descriptors.

Four parts: deploys of real processes at a steady rate with status requests and stops; many
simulated deployments that are listed; game servers that write a lot; and, with `--cycles`, deploys
that are stopped at once. Nothing is compared: it is a tool for development, and the bar is what a
team's tests need. Prints JSON.

    python benchmarks/emulator_load.py [--rate 40] [--seconds 20] [--simulated 10000]
        [--measure-seconds 5] [--log-megabytes 100] [--cycles 10000]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shlex
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import psutil
from figures import significant

CONNECTIONS = 10  # clients that send one request after the other
LOGGERS = 10
READY_TIMEOUT = 120.0  # seconds
ANSWERS_PER_SECOND = 50.0  # status requests while game servers log
LOGGER = """
import os, sys, time
rate, written, start = float(sys.argv[1]), 0, time.monotonic()
while True:
    written += os.write(1, (b"x" * 99 + b"\\n") * 655)
    time.sleep(max(0.0, start + written / rate - time.monotonic()))
"""


class RunningEmulator:
    """The emulator, and a session with it. `running` makes it."""

    def __init__(self, process: psutil.Process, session: aiohttp.ClientSession) -> None:
        self.process = process
        self.session = session

    async def deploy(self, application: str = "arena") -> str:
        users = [{"user_type": "ip_address", "user_data": {"ip_address": "8.8.8.8"}}]
        body = {"application": application, "version": "v1", "users": users}
        async with self.session.post("/v2/deployments", json=body) as answer:
            answer.raise_for_status()
            return str((await answer.json())["request_id"])

    async def get(self, request_id: str) -> None:
        async with self.session.get(f"/v1/status/{request_id}") as answer:
            answer.raise_for_status()
            await answer.read()

    async def stop(self, request_id: str) -> None:
        async with self.session.delete(f"/v1/stop/{request_id}") as answer:
            answer.raise_for_status()
            await answer.read()

    async def page(self, number: int = 1, limit: int = 1, status: str | None = None) -> int:
        """Reads a page of the list. Returns how many deployments there are on all pages."""
        query: dict[str, str | int] = {"page": number, "limit": limit}
        if status is not None:
            condition = {"field": "status", "operator": "eq", "value": status}
            query["query"] = json.dumps({"filters": [condition]})
        async with self.session.get("/v1/deployments", params=query) as answer:
            answer.raise_for_status()
            return int((await answer.json())["total_count"])

    async def until(self, count: int, status: str | None = None) -> float:
        """Waits until so many are listed. Returns the seconds."""
        began = time.perf_counter()
        async with asyncio.timeout(READY_TIMEOUT):
            while await self.page(status=status) != count:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.02)
        return time.perf_counter() - began

    def held(self) -> dict[str, float]:
        """Returns the memory of emulator and guardian, and descriptors but those of connections.

        And the CPU seconds of both so far, which a busy machine changes less than time.
        """
        own, guardians = [self.process], self.process.children()
        memory = sum(one.memory_info().rss for one in own + guardians)
        descriptors = self.process.num_fds() - len(self.process.net_connections("tcp"))
        return {
            "megabytes": significant(memory / 1e6),
            "descriptors": descriptors,
            "emulator_cpu_s": cpu_seconds(own),
            "guardian_cpu_s": cpu_seconds(guardians),
        }


def cpu_seconds(processes: list[psutil.Process]) -> float:
    times = [process.cpu_times() for process in processes]
    return round(sum(each.user + each.system for each in times), 2)  # what the system counts


def cpu_milliseconds(
    before: dict[str, float], after: dict[str, float], count: int
) -> dict[str, float]:
    """Returns what each of `count` calls took of the CPU between two measurements."""
    names = ("emulator_cpu_s", "guardian_cpu_s")
    return {
        name.removesuffix("_cpu_s"): significant(1e3 * (after[name] - before[name]) / count)
        for name in names
    }


@asynccontextmanager
async def running(*arguments: str) -> AsyncIterator[RunningEmulator]:
    """Runs an emulator without limits and without time in each status."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "edgegap_async.emulator", "--fast", "--no-limits", "--quiet"),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        exported: dict[str, str] = {}
        while "EDGEGAP_API_TOKEN" not in exported:
            line = (await process.stdout.readline()).decode()
            assert line, "the emulator has not started"
            words = shlex.split(line)
            if words[0] == "export":
                name, _, value = words[1].partition("=")
                exported[name] = value
        async with aiohttp.ClientSession(
            exported["EDGEGAP_BASE_URL"],
            headers={"Authorization": f"token {exported['EDGEGAP_API_TOKEN']}"},
            connector=aiohttp.TCPConnector(limit=0),
        ) as session:
            yield RunningEmulator(psutil.Process(process.pid), session)
    finally:
        process.terminate()
        await process.wait()


# ── load ────────────────────────────────────────────────────────────────────────────────────────


async def at_rate(
    rate: float, count: int, call: Callable[[int], Awaitable[Any]]
) -> tuple[list[Any], list[float]]:
    """Calls at a steady rate. Returns the results, and the seconds that each call took."""
    took = list[float]()

    async def timed(number: int) -> Any:
        began = time.perf_counter()
        result = await call(number)
        took.append(time.perf_counter() - began)
        return result

    began = time.perf_counter()
    tasks = list[asyncio.Task[Any]]()
    for number in range(count):
        await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
        tasks.append(asyncio.create_task(timed(number)))
    return await asyncio.gather(*tasks), took


async def at_once(calls: list[Awaitable[Any]]) -> None:
    """Awaits calls in a few tasks, in each one after the other."""
    remaining = iter(calls)

    async def some() -> None:
        for call in remaining:
            await call

    await asyncio.gather(*(some() for _ in range(CONNECTIONS)))


async def calls_per_second(seconds: float, call: Callable[[int], Awaitable[Any]]) -> float:
    """Calls from a few tasks without a pause. Returns the calls in a second."""
    count, began = 0, time.perf_counter()

    async def some() -> None:
        nonlocal count
        while time.perf_counter() - began < seconds:
            count += 1
            await call(count)

    await asyncio.gather(*(some() for _ in range(CONNECTIONS)))
    rate: float = significant(count / (time.perf_counter() - began))
    return rate


def milliseconds(took: list[float]) -> dict[str, float]:
    took = sorted(took)
    points = {"p50_ms": 0.5, "p99_ms": 0.99, "max_ms": 1.0}
    return {name: significant(1e3 * took[int(at * (len(took) - 1))]) for name, at in points.items()}


# ── the parts ───────────────────────────────────────────────────────────────────────────────────


async def real_processes(rate: float, seconds: float, measure: float) -> dict[str, Any]:
    async with running() as emulator:
        await emulator.stop(await emulator.deploy())  # starts the guardian
        await emulator.until(0)
        before = emulator.held()
        count = max(1, round(rate * seconds))
        ids, took = await at_rate(rate, count, lambda _: emulator.deploy())
        ready_after = await emulator.until(count, "Status.READY")
        live = emulator.held()
        answers = await calls_per_second(measure, lambda each: emulator.get(ids[each % count]))
        read = emulator.held()
        began = time.perf_counter()
        await at_once([emulator.stop(request_id) for request_id in ids])
        await emulator.until(0)
        stopped_after, after = time.perf_counter() - began, emulator.held()
        return {
            "cpu_ms_of_each": {
                "deploy": cpu_milliseconds(before, live, count),
                "stop": cpu_milliseconds(read, after, count),
            },
            "deploy": {"a_second": rate, "deployments": count, **milliseconds(took)},
            "all_ready_after_last_answer_s": significant(ready_after),
            "status_requests_per_second": answers,
            "all_stopped_s": significant(stopped_after),
            "held": {"before": before, "live": live, "read": read, "after": after},
        }


async def cycles(rate: float, count: int) -> dict[str, Any]:
    """Deploys and stops real processes, and measures what the emulator holds after each fifth."""
    async with running() as emulator:

        async def cycle(_: int) -> None:
            await emulator.stop(await emulator.deploy())

        await cycle(0)  # starts the guardian
        held = [emulator.held()]
        for _ in range(5):
            await at_rate(rate, count // 5, cycle)
            await emulator.until(0)
            held.append(emulator.held())
        return {"cycles": count // 5 * 5, "held": held}


async def simulated(count: int, measure: float) -> dict[str, Any]:
    limit = 100
    async with running("--simulate") as emulator:
        await at_once([emulator.deploy() for _ in range(count)])
        await emulator.until(count, "Status.READY")
        took, pages = list[float](), -(-count // limit)
        give_up = time.perf_counter() + measure
        while not took or time.perf_counter() < give_up:
            began = time.perf_counter()
            assert await emulator.page(1 + len(took) % pages, limit) == count
            took.append(time.perf_counter() - began)
        return {"deployments": count, "rows_a_page": limit, **milliseconds(took), **emulator.held()}


async def logging_servers(megabytes: float, measure: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        async with running(write_loggers(folder, megabytes * 1e6 / LOGGERS)) as emulator:
            ids = [await emulator.deploy("logger") for _ in range(LOGGERS)]
            await emulator.until(LOGGERS, "Status.READY")
            children = emulator.process.children(recursive=True)
            began, before = time.perf_counter(), written(children)
            _, took = await at_rate(
                ANSWERS_PER_SECOND,
                max(1, round(ANSWERS_PER_SECOND * measure)),
                lambda number: emulator.get(ids[number % LOGGERS]),
            )
            logged = (written(children) - before) / (time.perf_counter() - began)
            return {
                "servers": LOGGERS,
                "megabytes_a_second_wanted": megabytes,
                "megabytes_a_second": significant(logged / 1e6),
                **milliseconds(took),
                **emulator.held(),
            }


def write_loggers(folder: str, bytes_per_second: float) -> str:
    """Writes the file with the application `logger`. Returns its path."""
    argv = json.dumps([sys.executable, "-I", "-c", LOGGER, str(bytes_per_second)])
    path = Path(folder, "loggers.toml")
    path.write_text(f'[[applications]]\nname = "logger"\nversion = "v1"\nargv = {argv}\n')
    return str(path)


def written(processes: list[psutil.Process]) -> int:
    return sum(process.io_counters().write_chars for process in processes)


async def measure(options: argparse.Namespace) -> Mapping[str, Any]:
    seconds = options.measure_seconds
    return {
        "benchmark": "emulator_load",
        "load_before": significant(os.getloadavg()[0]),
        "real processes": await real_processes(options.rate, options.seconds, seconds),
        "simulated": await simulated(options.simulated, seconds),
        "logging": await logging_servers(options.log_megabytes, seconds),
        **({"cycles": await cycles(options.rate, options.cycles)} if options.cycles else {}),
        "load_after": significant(os.getloadavg()[0]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=40, help="deploys a second")
    parser.add_argument("--seconds", type=float, default=20, help="of deploys")
    parser.add_argument("--simulated", type=int, default=10_000, help="deployments that are listed")
    parser.add_argument("--measure-seconds", type=float, default=5, help="of each other figure")
    parser.add_argument("--log-megabytes", type=float, default=100, help="a second, of ten servers")
    parser.add_argument("--cycles", type=int, default=0, help="deploys and stops; 0 for none")
    print(json.dumps(asyncio.run(measure(parser.parse_args())), indent=1))


if __name__ == "__main__":
    main()
