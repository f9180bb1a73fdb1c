"""A server in a process of its own that allows the documented number of calls in any second.

Its sliding window is exactly one second long and has no tolerance. As a program it prints its port,
and at the end of its input the calls that it received: for each its time by the machine's monotonic
clock, and whether it was accepted or refused.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Self

import aiohttp
import attrs
from aiohttp import web

if TYPE_CHECKING:
    from edgegap_async import EdgegapClient

__all__ = ["LIMITS", "Arrival", "StrictApi", "demand"]

LIMITS = {"deploy": 40, "get_deployment": 20, "list_deployments": 10}
"""Calls a second, from the published reference and not from `edgegap_async.api.operations`."""

WORKERS = 10
"""Concurrent callers for each operation, enough to reach its limit."""

ROUTES = {
    "deploy": ("POST", "/v2/deployments", 202),
    "get_deployment": ("GET", "/v1/status/{request_id}", 200),
    "list_deployments": ("GET", "/v1/deployments", 200),
}
BODIES: dict[str, object] = {
    "deploy": {"request_id": "abc123"},
    "get_deployment": {"request_id": "abc123", "current_status": "Status.READY"},
    "list_deployments": {"data": [], "total_count": 0, "pagination": {"has_next": False}},
}


def operation(method: str, path: str) -> str:
    """Returns the name of the operation that a request belongs to."""
    for name, (its_method, template, _) in ROUTES.items():
        if method == its_method and re.fullmatch(template.replace("{request_id}", r"\w+"), path):
            return name
    raise AssertionError(f"{method} {path} is not expected")


@attrs.frozen
class Arrival:
    """One call that the server received."""

    at: float
    """Time by `time.monotonic`, which all processes of a machine share."""
    accepted: bool


class StrictApi:
    """The server; `async with` starts the process, and leaving it fills `arrivals`.

    Attributes:
        url: the base URL.
        arrivals: the calls that it received, by the name of their operation.
        departures: the times at which a session with `tracing` sent its calls, by operation.
        tracing: the trace configuration that records departures.
    """

    def __init__(self) -> None:
        self.url = ""
        self.arrivals: dict[str, list[Arrival]] = {}
        self.departures: dict[str, list[float]] = {name: [] for name in LIMITS}
        self.tracing = aiohttp.TraceConfig()
        self.tracing.on_request_start.append(self._note)

    def unevenness(self, name: str) -> float:
        """Returns by how many seconds the travel times of an operation's calls differ.

        A busy machine delays calls on their way, and so moves them into another second.
        """
        came = sorted(arrival.at for arrival in self.arrivals[name])
        travel = [at - went for went, at in zip(self.departures[name], came, strict=True)]
        return max(travel) - min(travel)

    async def _note(self, _: object, __: object, going: aiohttp.TraceRequestStartParams) -> None:
        self.departures[operation(going.method, going.url.path)].append(time.monotonic())

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, __file__, stdin=subprocess.PIPE, stdout=subprocess.PIPE, limit=2**26
        )
        assert self._process.stdout is not None
        self.url = f"http://127.0.0.1:{int(await self._process.stdout.readline())}"
        return self

    async def __aexit__(self, *_: object) -> None:
        written, _nothing = await self._process.communicate(b"")
        self.arrivals = {
            name: [Arrival(*one) for one in came] for name, came in json.loads(written).items()
        }


async def demand(client: EdgegapClient, seconds: float) -> None:
    """Makes calls for a number of seconds, as often as the client's limits allow."""
    until = asyncio.get_running_loop().time() + seconds

    async def worker(call: Callable[[], Awaitable[object]]) -> None:
        while asyncio.get_running_loop().time() < until:
            await call()

    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: client.deployments.deploy("arena", "v1", users=["192.0.2.1"]),
        lambda: client.deployments.get("abc123"),
        lambda: client.deployments.list().page(1),
    ]
    await asyncio.gather(*(worker(call) for call in calls for _ in range(WORKERS)))


def serve() -> None:
    came: dict[str, list[tuple[float, bool]]] = {name: [] for name in LIMITS}

    def handler(name: str) -> Any:
        body, status = json.dumps(BODIES[name]).encode(), ROUTES[name][2]
        window = deque[float]()

        async def handle(_: web.Request) -> web.Response:
            now = time.monotonic()
            while window and window[0] <= now - 1:
                window.popleft()
            accepted = len(window) < LIMITS[name]
            came[name].append((now, accepted))
            if not accepted:
                return web.Response(status=429)
            window.append(now)
            return web.Response(body=body, status=status, content_type="application/json")

        return handle

    async def run() -> None:
        app = web.Application()
        for name, (method, path, _) in ROUTES.items():
            app.router.add_route(method, path, handler(name))
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        print(runner.addresses[0][1], flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        await runner.cleanup()
        print(json.dumps(came))

    asyncio.run(run())


if __name__ == "__main__":
    serve()
