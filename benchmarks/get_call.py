"""What one `deployments.get` costs, against bare aiohttp with `json.loads`, in CPU time.

Both ask the same server, in another process, with the same headers, in turns, so that a noisy
machine disturbs both alike. An answer reads its fields when they are looked at, so the call is
measured as those who wait make it, who look at the status (`ratio`), and as those who connect do,
who look at the ports too. Prints JSON: medians over the rounds of the client process's CPU time
for one call.

    python benchmarks/get_call.py [--rounds 15] [--calls 400]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import statistics
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection
from pathlib import Path

import aiohttp
from aiohttp import web

from edgegap_async import EdgegapClient, codec

REFERENCE = Path(__file__).parents[1] / "tests/reference/operations.json"
REQUEST_ID = "c0653765de3b"


def serve(ready: Connection) -> None:
    operations = json.loads(REFERENCE.read_text())["operations"]
    answer = next(op["answer"] for op in operations if op["path"] == "/v1/status/{request_id}")
    body = json.dumps(answer).encode()

    async def status(_: web.Request) -> web.Response:
        return web.Response(body=body, content_type="application/json")

    async def run() -> None:
        app = web.Application()
        app.router.add_get("/v1/status/{request_id}", status)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        ready.send(runner.addresses[0][1])
        await asyncio.Event().wait()

    asyncio.run(run())


async def cpu_per_call(call: Callable[[], Awaitable[object]], calls: int) -> float:
    began = time.process_time()
    for _ in range(calls):
        await call()
    return (time.process_time() - began) / calls * 1e6


async def measure(url: str, rounds: int, calls: int) -> dict[str, object]:
    async with (
        aiohttp.ClientSession() as session,
        EdgegapClient("token", base_url=url, limits={"get_deployment": None}) as client,
    ):

        async def bare() -> object:
            headers = {"Authorization": "token token", "User-Agent": "bare"}
            async with session.get(f"{url}/v1/status/{REQUEST_ID}", headers=headers) as response:
                return json.loads(await response.read())["current_status"]

        async def status() -> object:
            return (await client.deployments.get(REQUEST_ID)).current_status

        async def ports() -> object:
            deployment = await client.deployments.get(REQUEST_ID)
            return deployment.current_status, deployment.ports

        ways = (bare, status, ports)
        for way in ways:
            await cpu_per_call(way, calls)
        turns = [[await cpu_per_call(way, calls) for way in ways] for _ in range(rounds)]
    return {
        "benchmark": "get_call",
        "json": codec.loads.__module__,
        "rounds": rounds,
        "calls_per_round": calls,
        "bare_aiohttp_us": round(statistics.median(bare for bare, _, _ in turns), 1),
        "edgegap_async_us": round(statistics.median(status for _, status, _ in turns), 1),
        "ratio": round(statistics.median(status / bare for bare, status, _ in turns), 3),
        "ratio_with_ports": round(statistics.median(ports / bare for bare, _, ports in turns), 3),
        "goal": "ratio at most 1.15 with the extra `speed`",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--calls", type=int, default=400)
    arguments = parser.parse_args()
    receiving, sending = multiprocessing.Pipe(duplex=False)
    server = multiprocessing.Process(target=serve, args=(sending,), daemon=True)
    server.start()
    try:
        url = f"http://127.0.0.1:{receiving.recv()}"
        print(json.dumps(asyncio.run(measure(url, arguments.rounds, arguments.calls)), indent=1))
    finally:
        server.terminate()
        server.join()


if __name__ == "__main__":
    main()
