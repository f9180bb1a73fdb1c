"""A real HTTP server on loopback whose lists misbehave in the ways that lists do.

It knows deployments by their fates, in the loop's time, and answers status looks and lists of them.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
from collections.abc import Callable, Mapping
from typing import Any, Self

import attrs
from aiohttp import web
from scripted_api import Reply

__all__ = ["Asked", "Fate", "FlakyApi"]


@attrs.frozen(kw_only=True)
class Fate:
    """When a deployment becomes what. Loop times."""

    ready: float = math.inf
    error: float = math.inf
    over: float = math.inf
    """From when on it is not known any more."""

    def status_at(self, now: float) -> str:
        """Its status then."""
        if now >= self.over:
            return "TERMINATED"
        if now >= self.error:
            return "ERROR"
        return "READY" if now >= self.ready else "DEPLOYING"


@attrs.frozen
class Asked:
    """One request."""

    at: float
    request_id: str | None
    """What was looked at; None for a list."""
    ids: tuple[str, ...] | None = None
    """What a list was asked for; None for all."""
    only_ready: bool = False
    page: int = 1


@attrs.define
class FlakyApi:
    """The server; `async with` starts it. What is set takes effect at once."""

    fates: dict[str, Fate] = attrs.field(factory=dict)
    asked: list[Asked] = attrs.field(factory=list)
    page_size: int = 100
    lag: float = 0.0
    """Seconds by which lists are behind."""
    hidden_until: dict[str, float] = attrs.field(factory=dict)
    """From when on lists hold a deployment."""
    filters_ids: bool = True
    filters_status: bool = True
    turns_pages: bool = True
    lists_errors: bool = True
    change_row: Callable[[dict[str, Any]], dict[str, Any]] = lambda row: row
    on_look: Callable[[str], Reply | None] = lambda _: None
    """What is answered in place of a status."""
    on_list: Callable[[Asked], Reply | None] = lambda _: None
    """Likewise, of a list."""
    round_trip: tuple[float, float] = (0.03, 0.08)
    chance: random.Random = attrs.field(factory=lambda: random.Random(1))
    _runner: Any = None

    @property
    def url(self) -> str:
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}"

    @property
    def looks(self) -> list[Asked]:
        """The status looks."""
        return [one for one in self.asked if one.request_id is not None]

    @property
    def lists(self) -> list[Asked]:
        """The lists."""
        return [one for one in self.asked if one.request_id is None]

    def deploy(self, count: int, *, ready_in: float = math.inf, **fate: float) -> list[str]:
        """So many more, with fates in seconds from now."""
        at = now()
        ids = [f"d{len(self.fates) + number:04}" for number in range(count)]
        fates = {name: at + seconds for name, seconds in fate.items()}
        self.fates.update(dict.fromkeys(ids, Fate(ready=at + ready_in, **fates)))
        return ids

    async def __aenter__(self) -> Self:
        application = web.Application()
        application.router.add_get("/v1/status/{request_id}", self._look)
        application.router.add_get("/v1/deployments", self._list)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _look(self, request: web.Request) -> web.StreamResponse:
        await self._way()
        request_id = request.match_info["request_id"]
        self.asked.append(Asked(now(), request_id))
        reply = self.on_look(request_id)
        if reply is None:
            fate = self.fates.get(request_id, Fate(over=-math.inf))
            status = fate.status_at(now())
            reply = Reply(404) if status == "TERMINATED" else Reply(body=_look(request_id, status))
        return await self._send(request, reply)

    async def _list(self, request: web.Request) -> web.StreamResponse:
        await self._way()
        filters = json.loads(request.query.get("query", "{}")).get("filters", [])
        ids = next((tuple(one["value"]) for one in filters if one["field"] == "request_id"), None)
        only_ready = any(one["field"] == "status" for one in filters)
        asked = Asked(now(), None, ids, only_ready, int(request.query["page"]))
        self.asked.append(asked)
        return await self._send(request, self.on_list(asked) or Reply(body=self._page(asked)))

    def _page(self, asked: Asked) -> Mapping[str, object]:
        then = now() - self.lag
        rows = []
        for request_id, fate in self.fates.items():
            status = fate.status_at(then)
            if asked.ids is not None and self.filters_ids and request_id not in asked.ids:
                continue
            if status == "TERMINATED" or now() < self.hidden_until.get(request_id, 0):
                continue
            if status == "ERROR" and not self.lists_errors:
                continue
            if asked.only_ready and self.filters_status and status != "READY":
                continue
            rows.append(self.change_row(_row(request_id, status)))
        number = asked.page if self.turns_pages else 1
        shown = rows[(number - 1) * self.page_size : number * self.page_size]
        more = number * self.page_size < len(rows)
        return {"data": shown, "pagination": {"has_next": more}}

    async def _way(self) -> None:
        await asyncio.sleep(self.chance.uniform(*self.round_trip) / 2)

    async def _send(self, request: web.Request, reply: Reply) -> web.StreamResponse:
        await asyncio.sleep(reply.delay)
        if reply.lost:
            assert request.transport is not None
            request.transport.close()
        await self._way()
        body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        return web.Response(status=reply.status, body=body, headers=reply.headers)


def now() -> float:
    return asyncio.get_running_loop().time()


def _about(request_id: str) -> dict[str, object]:
    port = {"external": 31504, "internal": 7777, "protocol": "UDP", "name": "game"}
    return {
        "request_id": request_id,
        "fqdn": f"{request_id}.pr.edgegap.net",
        "public_ip": "192.0.2.7",
        "ports": {"game": port},
    }


def _look(request_id: str, status: str) -> dict[str, object]:
    why = {"error": True, "error_detail": "image not found"} if status == "ERROR" else {}
    running = {"current_status": f"Status.{status}", "running": status == "READY"}
    return _about(request_id) | running | why


def _row(request_id: str, status: str) -> dict[str, Any]:
    return _about(request_id) | {"ready": status == "READY", "status": f"Status.{status}"}
