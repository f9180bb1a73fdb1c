"""Measures websubscriptions a second, against a bare aiohttp handler that reads no body.

One process serves, another posts full statuses over 32 connections, each to the next of a thousand
deployments; on a machine with two cores or more each process has its own core. The cases alternate,
so that a noisy machine disturbs all of them alike. If uvicorn is installed, the ASGI application in
uvicorn is measured too, against an ASGI callable that answers 204. Prints JSON: medians over the
rounds.

    python benchmarks/websubscriptions.py [--rounds 9] [--requests 6000]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import itertools
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web
from figures import significant

from edgegap_async import WebhookReceiver

REFERENCE = Path(__file__).parents[1] / "tests/reference/operations.json"
CONNECTIONS = 32
DEPLOYMENTS = 1000
ANSWER = b"HTTP/1.1 204"
PAIRS = {"served": "bare", "attached": "bare", "uvicorn": "bare_uvicorn"}


def pin(core: int) -> None:
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        os.sched_setaffinity(0, {cores[core]})


# ── the server ───────────────────────────────────────────────────────────────────────────────────


async def listen(name: str, application: web.Application, stack: Any) -> tuple[str, int]:
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return name, runner.addresses[0][1]


async def under_uvicorn(name: str, application: Any, stack: Any) -> tuple[str, int]:
    import uvicorn  # optional

    server = uvicorn.Server(
        uvicorn.Config(application, port=0, log_level="warning", access_log=False)
    )
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - it has no event to wait for
        await asyncio.sleep(0.01)

    async def end() -> None:
        server.should_exit = True
        await serving

    stack.push_async_callback(end)
    return name, server.servers[0].sockets[0].getsockname()[1]


async def bare(_: web.Request) -> web.Response:
    return web.Response(status=204)


async def bare_asgi(scope: Any, _: Any, send: Any) -> None:
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})


async def serve(pipe: Connection) -> None:
    receiver = WebhookReceiver("http://127.0.0.1")
    subscriptions = [receiver.open(lambda: None) for _ in range(DEPLOYMENTS)]
    application = web.Application()
    application.router.add_post("/bare", bare)
    attached = web.Application()
    receiver.attach(attached)
    async with contextlib.AsyncExitStack() as stack:
        own = await stack.enter_async_context(WebhookReceiver().serve())
        own_subscriptions = [own.open(lambda: None) for _ in range(DEPLOYMENTS)]
        ports = dict(
            [
                await listen("bare", application, stack),
                await listen("attached", attached, stack),
                ("served", urlsplit(own_subscriptions[0].url("ready")).port),
            ]
        )
        if importlib.util.find_spec("uvicorn"):
            ports |= [
                await under_uvicorn("bare_uvicorn", bare_asgi, stack),
                await under_uvicorn("uvicorn", receiver.asgi(), stack),
            ]
        paths = [urlsplit(subscription.url("ready")).path for subscription in subscriptions]
        own_paths = [urlsplit(subscription.url("ready")).path for subscription in own_subscriptions]
        pipe.send((ports, {"served": own_paths, "attached": paths, "uvicorn": paths}))
        requested = asyncio.Event()
        asyncio.get_running_loop().add_reader(pipe.fileno(), requested.set)
        while True:
            await requested.wait()
            requested.clear()
            while pipe.poll():
                if pipe.recv() == "end":
                    return
                pipe.send(time.process_time())


def server(pipe: Connection) -> None:
    pin(0)
    asyncio.run(serve(pipe))


# ── the load ─────────────────────────────────────────────────────────────────────────────────────


class Caller(asyncio.Protocol):
    """One connection, which sends the next request after the answer to the last one."""

    def __init__(self, requests: Iterator[bytes], over: asyncio.Future[None]) -> None:
        self.requests = requests
        self.over = over
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.send()

    def data_received(self, data: bytes) -> None:
        if not data.startswith(ANSWER):
            self.over.set_exception(RuntimeError(f"not a 204: {data[:80]!r}"))
        elif data.endswith(b"\r\n\r\n"):
            self.send()

    def send(self) -> None:
        request = next(self.requests, None)
        if request is None:
            self.over.set_result(None)
            self.transport.close()
        else:
            self.transport.write(request)


async def rate(port: int, requests: list[bytes], count: int) -> float:
    loop = asyncio.get_running_loop()
    turns = itertools.islice(itertools.cycle(requests), count)
    callers = [Caller(turns, loop.create_future()) for _ in range(CONNECTIONS)]
    waiting = iter(callers)
    began = time.perf_counter()
    for _ in callers:
        await loop.create_connection(lambda: next(waiting), "127.0.0.1", port)
    await asyncio.gather(*(caller.over for caller in callers))
    return count / (time.perf_counter() - began)


def request_to(path: str, body: bytes) -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body


def measure(pipe: Connection, rounds: int, count: int) -> dict[str, Any]:
    operations = json.loads(REFERENCE.read_text())["operations"]
    answer = next(op["answer"] for op in operations if op["path"] == "/v1/status/{request_id}")
    body = json.dumps(answer).encode()
    ports, paths = pipe.recv()
    requests = {
        name: [request_to(path, body) for path in paths.get(name, ["/bare"])] for name in ports
    }

    def one(name: str) -> tuple[float, float]:
        pipe.send("time")
        began = pipe.recv()
        per_second = asyncio.run(rate(ports[name], requests[name], count))
        pipe.send("time")
        return per_second, (pipe.recv() - began) / count * 1e6

    for name in ports:
        one(name)
    turns = [{name: one(name) for name in ports} for _ in range(rounds)]
    pairs = {name: other for name, other in PAIRS.items() if name in ports}
    return {
        "benchmark": "websubscriptions",
        "rounds": rounds,
        "requests_per_round": count,
        "body_bytes": len(body),
        "per_second": {
            name: significant(statistics.median(t[name][0] for t in turns)) for name in ports
        },
        "server_cpu_us": {
            name: significant(statistics.median(t[name][1] for t in turns)) for name in ports
        },
        "rate_of_bare": {
            name: significant(statistics.median(t[name][0] / t[other][0] for t in turns))
            for name, other in pairs.items()
        },
        "rate_of_bare_by_server_cpu": {
            name: significant(statistics.median(t[other][1] / t[name][1] for t in turns))
            for name, other in pairs.items()
        },
        "goal": "rate_of_bare at least 0.4",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--requests", type=int, default=6000)
    arguments = parser.parse_args()
    here, there = multiprocessing.Pipe()
    process = multiprocessing.Process(target=server, args=(there,), daemon=True)
    process.start()
    pin(-1)
    try:
        print(json.dumps(measure(here, arguments.rounds, arguments.requests), indent=1))
        here.send("end")
        process.join(10)
    finally:
        process.terminate()
        process.join()


if __name__ == "__main__":
    main()
