"""An HTTP server on loopback whose deployments end by themselves, for programs that run for days.

The server keeps only the deployments that live, so that what grows is the client's.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any, Self

import attrs
from aiohttp import web


@attrs.define
class ShortLivedApi:
    """The server; `async with` starts it. Each deployment is READY at once."""

    lifetime: float = 600.0
    """Seconds from a deploy to the end."""
    tells_ends: bool = True
    """Whether status and list requests are answered; otherwise they are refused with 403."""
    live: dict[str, float] = attrs.field(factory=dict)
    """Loop times of the ends, by request_id."""
    lists: int = 0
    """How many list requests came."""
    lasting: str = ""
    """The request_id of a deployment that does not end."""
    _numbers: Any = attrs.field(factory=itertools.count)
    _runner: Any = None

    @property
    def url(self) -> str:
        """The base URL."""
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}"

    async def __aenter__(self) -> Self:
        application = web.Application()
        application.router.add_post("/v2/deployments", self._deploy)
        application.router.add_get("/v1/status/{request_id}", self._answer_status)
        application.router.add_get("/v1/deployments", self._answer_list)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    def _end_due(self) -> None:
        now = asyncio.get_running_loop().time()
        while self.live and next(iter(self.live.values())) <= now:
            del self.live[next(iter(self.live))]

    async def _deploy(self, _: web.Request) -> web.Response:
        self._end_due()
        request_id = f"d{next(self._numbers):011}"
        self.live[request_id] = asyncio.get_running_loop().time() + self.lifetime
        return web.json_response({"request_id": request_id}, status=202)

    async def _answer_status(self, request: web.Request) -> web.Response:
        self._end_due()
        request_id = request.match_info["request_id"]
        if not self.tells_ends:
            return web.json_response({"message": "no"}, status=403)
        if request_id not in self.live and request_id != self.lasting:
            return web.json_response({"message": "Bad Request ID provided"}, status=404)
        return web.json_response({"request_id": request_id, "current_status": "Status.READY"})

    async def _answer_list(self, request: web.Request) -> web.Response:
        self.lists += 1
        self._end_due()
        if not self.tells_ends:
            return web.json_response({"message": "no"}, status=403)
        [ids] = [one["value"] for one in json.loads(request.query["query"])["filters"]]
        rows = [
            {"request_id": one, "ready": True, "status": "Status.READY"}
            for one in ids
            if one in self.live or one == self.lasting
        ]
        return web.json_response({"data": rows, "pagination": {"has_next": False}})
