"""A real HTTP server on loopback whose list of deployments can misbehave.

Each deployment has a lifecycle: loop times at which its status changes. The server answers status
requests and list requests from it, and records every request.
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


@attrs.frozen(kw_only=True)
class Lifecycle:
    """The loop times at which the status of a deployment changes; infinity for never."""

    ready_at: float = math.inf
    error_at: float = math.inf
    ended_at: float = math.inf
    """From this time on the API does not know the deployment any more."""

    def status_at(self, now: float) -> str:
        """Returns the status at a loop time."""
        if now >= self.ended_at:
            return "TERMINATED"
        if now >= self.error_at:
            return "ERROR"
        return "READY" if now >= self.ready_at else "DEPLOYING"


@attrs.frozen
class ReceivedRequest:
    """One request that the server has received."""

    at: float
    """Loop time of its arrival."""
    request_id: str | None
    """The deployment of a status request; None for a list request."""
    ids: tuple[str, ...] | None = None
    """The ids that a list request filters by; None without that filter."""
    only_ready: bool = False
    """Whether a list request filters by status."""
    page: int = 1


@attrs.define
class FlakyApi:
    """The server; `async with` starts it. A changed attribute takes effect at once."""

    lifecycles: dict[str, Lifecycle] = attrs.field(factory=dict)
    requests: list[ReceivedRequest] = attrs.field(factory=list)
    page_size: int = 100
    list_age: float = 0.0
    """Seconds; stale lists show the statuses of that long ago, or of before all if infinite."""
    is_list_stale: Callable[[], bool] = lambda: True
    """Returns whether the next list is `list_age` old, and not current."""
    hidden_until: dict[str, float] = attrs.field(factory=dict)
    """Loop time until which lists omit a deployment, by request_id."""
    filters_ids: bool = True
    """Whether lists apply the filter by request_id."""
    filters_status: bool = True
    """Whether lists apply the filter by status."""
    serves_pages: bool = True
    """Whether lists have more pages than the first, which otherwise is every page."""
    lists_errors: bool = True
    """Whether lists show deployments in ERROR."""
    change_row: Callable[[dict[str, Any]], dict[str, Any]] = lambda row: row
    """Changes each row before it is sent."""
    on_status: Callable[[str], Reply | None] = lambda _: None
    """Returns the answer to a status request, or None for the usual one."""
    on_list: Callable[[ReceivedRequest], Reply | None] = lambda _: None
    """Returns the answer to a list request, or None for the usual one."""
    on_stop: Callable[[], Reply] = lambda: Reply(202)
    """Returns the answer to a stop or a bulk stop, which takes effect before the answer."""
    round_trip: tuple[float, float] = (0.03, 0.08)
    """Seconds of the network, at least and at most."""
    rng: random.Random = attrs.field(factory=lambda: random.Random(1))
    _runner: Any = None

    @property
    def url(self) -> str:
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}"

    @property
    def status_requests(self) -> list[ReceivedRequest]:
        """The status requests received, oldest first."""
        return [one for one in self.requests if one.request_id is not None]

    @property
    def list_requests(self) -> list[ReceivedRequest]:
        """The list requests received, oldest first."""
        return [one for one in self.requests if one.request_id is None]

    def deploy(
        self,
        count: int,
        *,
        ready_in: float = math.inf,
        error_in: float = math.inf,
        ended_in: float = math.inf,
    ) -> list[str]:
        """Adds deployments, with their changes in seconds from now. Returns their ids."""
        at = now()
        ids = [f"d{len(self.lifecycles) + number:04}" for number in range(count)]
        lifecycle = Lifecycle(
            ready_at=at + ready_in, error_at=at + error_in, ended_at=at + ended_in
        )
        self.lifecycles.update(dict.fromkeys(ids, lifecycle))
        return ids

    async def __aenter__(self) -> Self:
        application = web.Application()
        application.router.add_get("/v1/status/{request_id}", self._answer_status)
        application.router.add_get("/v1/deployments", self._answer_list)
        application.router.add_delete("/v1/stop/{request_id}", self._answer_stop)
        application.router.add_post("/v1/deployments/bulk-stop", self._answer_bulk_stop)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _answer_status(self, request: web.Request) -> web.StreamResponse:
        await self._cross_network()
        request_id = request.match_info["request_id"]
        self.requests.append(ReceivedRequest(now(), request_id))
        reply = self.on_status(request_id)
        if reply is None:
            lifecycle = self.lifecycles.get(request_id, Lifecycle(ended_at=-math.inf))
            status = lifecycle.status_at(now())
            if status == "TERMINATED":
                reply = Reply(404)
            else:
                reply = Reply(body=_status(request_id, status))
        return await self._send(request, reply)

    async def _answer_list(self, request: web.Request) -> web.StreamResponse:
        await self._cross_network()
        filters = json.loads(request.query.get("query", "{}")).get("filters", [])
        ids = next((tuple(one["value"]) for one in filters if one["field"] == "request_id"), None)
        only_ready = any(one["field"] == "status" for one in filters)
        page = int(request.query["page"])
        received = ReceivedRequest(now(), None, ids, only_ready, page)
        self.requests.append(received)
        reply = self.on_list(received) or Reply(body=self.page(received))
        return await self._send(request, reply)

    async def _answer_stop(self, request: web.Request) -> web.StreamResponse:
        self._end(request.match_info["request_id"])
        return await self._send(request, self.on_stop())

    async def _answer_bulk_stop(self, request: web.Request) -> web.StreamResponse:
        for condition in (await request.json())["filters"]:
            for request_id in condition["values"]:
                self._end(request_id)
        return await self._send(request, self.on_stop())

    def _end(self, request_id: str) -> None:
        self.lifecycles[request_id] = attrs.evolve(self.lifecycles[request_id], ended_at=now())

    def page(self, request: ReceivedRequest) -> Mapping[str, object]:
        """Returns the usual answer to a list request."""
        then = now() - (self.list_age if self.is_list_stale() else 0)
        rows = []
        for request_id, lifecycle in self.lifecycles.items():
            status = lifecycle.status_at(then)
            if request.ids is not None and self.filters_ids and request_id not in request.ids:
                continue
            if status == "TERMINATED" or now() < self.hidden_until.get(request_id, 0):
                continue
            if status == "ERROR" and not self.lists_errors:
                continue
            if request.only_ready and self.filters_status and status != "READY":
                continue
            rows.append(self.change_row(_row(request_id, status)))
        number = request.page if self.serves_pages else 1
        shown = rows[(number - 1) * self.page_size : number * self.page_size]
        more = number * self.page_size < len(rows)
        return {"data": shown, "pagination": {"has_next": more}}

    async def _cross_network(self) -> None:
        await asyncio.sleep(self.rng.uniform(*self.round_trip) / 2)

    async def _send(self, request: web.Request, reply: Reply) -> web.StreamResponse:
        await asyncio.sleep(reply.delay)
        if reply.lost:
            assert request.transport is not None
            request.transport.close()
        await self._cross_network()
        body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        return web.Response(status=reply.status, body=body, headers=reply.headers)


def now() -> float:
    return asyncio.get_running_loop().time()


def _address(request_id: str) -> dict[str, object]:
    port = {"external": 31504, "internal": 7777, "protocol": "UDP", "name": "game"}
    return {
        "request_id": request_id,
        "fqdn": f"{request_id}.pr.edgegap.net",
        "public_ip": "192.0.2.7",
        "ports": {"game": port},
    }


def _status(request_id: str, status: str) -> dict[str, object]:
    reason = {"error": True, "error_detail": "image not found"} if status == "ERROR" else {}
    running = {"current_status": f"Status.{status}", "running": status == "READY"}
    return _address(request_id) | running | reason


def _row(request_id: str, status: str) -> dict[str, Any]:
    return _address(request_id) | {"ready": status == "READY", "status": f"Status.{status}"}
