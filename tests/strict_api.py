"""A server in a process of its own: the documented number of calls in any second, and not one more.

Its window slides, is exactly a second, and has no slack. Run as a program it prints its port, and
once its input ends, what came: for each call the time by the machine's monotonic clock, and whether
it was answered or refused.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections import deque
from typing import Any, Self

import attrs
from aiohttp import web

__all__ = ["LIMITS", "Arrival", "StrictApi"]

LIMITS = {"deploy": 40, "get_deployment": 20, "list_deployments": 10}
"""From the published reference, on purpose not from `endpoints`."""

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


@attrs.frozen
class Arrival:
    """One call as it came."""

    at: float
    """By `time.monotonic`, which all processes of a machine share."""
    accepted: bool


class StrictApi:
    """The server; `async with` starts the process, and leaving it fills `arrivals`.

    Attributes:
        url: where it is.
        arrivals: what came, by the operation's name.
    """

    def __init__(self) -> None:
        self.url = ""
        self.arrivals: dict[str, list[Arrival]] = {}

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
