"""An HTTP server on loopback that answers from a script, and records its requests.

The replies for a method and path are sent in their order; the last reply is sent again and again.
A request that is not in the script is answered with 599, and fails the test at the end of the
server's `async with` block.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Mapping
from typing import Any, Self

import attrs
from aiohttp import web

__all__ = ["ReceivedRequest", "Reply", "ScriptedApi", "deployment"]


def _body(status: int) -> dict[str, str]:
    if status == 410:
        return {"message": "Instance abc123 is already terminated"}
    return {"message": "Bad Request ID provided"} if status in {400, 404} else {}


@attrs.frozen
class Reply:
    """One answer of the script."""

    status: int = 200
    body: object = attrs.field(
        default=attrs.Factory(lambda self: _body(self.status), takes_self=True)
    )
    """Sent as JSON; bytes are sent unchanged. A 400, 404 or 410 has the API's text."""
    headers: Mapping[str, str] = attrs.field(factory=dict)
    delay: float = 0.0
    """Seconds from the request to the answer."""
    after: asyncio.Event | None = None
    """An event for which the answer waits, or None."""
    lost: bool = False
    """Whether the server closes the connection instead of answering."""


@attrs.frozen
class ReceivedRequest:
    """One request that the server received."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    at: float
    """The time of arrival, by the clock of the loop."""

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class ScriptedApi:
    """The server; `async with` starts it.

    Attributes:
        requests: the requests that it received, oldest first.
        unexpected: the requests that were not in the script.
    """

    def __init__(self) -> None:
        self.requests: list[ReceivedRequest] = []
        self.unexpected: list[str] = []
        self._replies: dict[tuple[str, str], deque[Reply]] = {}
        self._received = asyncio.Event()
        application = web.Application()
        application.router.add_route("*", "/{rest:.*}", self._answer)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0)

    @property
    def url(self) -> str:
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}"

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        await self._runner.cleanup()
        if kind is None:
            assert not self.unexpected, f"not in the script: {self.unexpected}"

    def on(self, method: str, path: str, *replies: Reply) -> None:
        """Replaces the replies for a method and path."""
        self._replies[method, path] = deque(replies)

    def asked(self, method: str, path: str) -> list[ReceivedRequest]:
        """Returns the requests with a method and path, oldest first."""
        return [one for one in self.requests if (one.method, one.path) == (method, path)]

    async def until_asked(self, method: str, path: str, times: int = 1) -> None:
        """Waits until the server has received a number of requests with a method and path."""
        while len(self.asked(method, path)) < times:
            self._received.clear()
            await self._received.wait()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(
            ReceivedRequest(
                request.method,
                request.path,
                dict(request.query),
                dict(request.headers),
                await request.read(),
                asyncio.get_running_loop().time(),
            )
        )
        self._received.set()
        replies = self._replies.get((request.method, request.path))
        if not replies:
            self.unexpected.append(f"{request.method} {request.path}")
            return web.Response(status=599)
        reply = replies.popleft() if len(replies) > 1 else replies[0]
        await asyncio.sleep(reply.delay)
        if reply.after is not None:
            await reply.after.wait()
        if reply.lost:
            assert request.transport is not None
            request.transport.close()
        if isinstance(reply.body, bytes):
            return web.Response(status=reply.status, body=reply.body, headers=reply.headers)
        return web.json_response(reply.body, status=reply.status, headers=reply.headers)


def deployment(status: str, request_id: str = "abc123", **more: object) -> Reply:
    """Returns the answer to a status request: a deployment with one port, named `game`."""
    port = {"external": 31504, "internal": 7777, "protocol": "UDP", "name": "game"}
    body = {
        "request_id": request_id,
        "fqdn": f"{request_id}.pr.edgegap.net",
        "public_ip": "192.0.2.7",
        "current_status": f"Status.{status}",
        "running": status == "READY",
        "ports": {"game": port},
    }
    return Reply(body=body | more)
