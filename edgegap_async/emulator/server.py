"""The HTTP side of the emulator: routes, tokens, rate limits, faults, and errors in the API's form.

The routes come from `OPERATIONS`, so an operation exists here as soon as it is described there and
`Cloud` has a coroutine of its name. A client of this server can start processes. So each call needs
the token, and the server refuses what a web page can make a browser send: a foreign `Origin`, or a
`Host` that is not a name of loopback (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import math
import random
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

import attrs
from aiohttp import web

from edgegap_async.api.codec import dumps, read_request, to_json
from edgegap_async.api.operations import OPERATIONS, Auth, Operation
from edgegap_async.api.validation import check_number
from edgegap_async.concurrency import loop_time
from edgegap_async.errors import InvalidRequest, Refused, refusal

from .cloud import Cloud
from .cloud_state import Reply
from .faults import Faults

_log: Final = logging.getLogger(__name__)

RateLimits: TypeAlias = bool | Mapping[str, float | None]
"""True for the documented limits, False for none, or calls a second by operation: 1 or more, or
None for no limit. The documented limits hold for operations that are not named."""

_MAX_BODY_BYTES: Final = 2**20
_MAX_RECORDED: Final = 100_000  # requests
_CLIENT_GONE: Final = 499  # HTTP status; as web servers log it, no official one fits


@attrs.frozen
class RecordedRequest:
    """A request that came, and the status of its answer. It has no headers and no body."""

    operation: str
    """Name of the operation; empty if no operation has that path."""
    method: str
    """HTTP method."""
    path: str
    """Path of the URL."""
    status: int
    """HTTP status of the answer; 499 if the client left before it."""
    received_at: float
    """Loop time at which it came, in seconds."""


class RateLimit:
    """A strict rate limit: at most `rate` calls in any `window` seconds."""

    def __init__(self, rate: float, window: float = 1.0) -> None:
        self._rate = rate
        self._window = window
        self._passed: deque[float] = deque()

    def try_pass(self, now: float) -> float:
        """Admits a call at `now` and returns 0, or returns the seconds until one is admitted."""
        while self._passed and self._passed[0] <= now - self._window:
            self._passed.popleft()
        if len(self._passed) < self._rate:
            self._passed.append(now)
            return 0.0
        return self._passed[0] + self._window - now if self._passed else self._window


class Server:
    """Serves the API on one port.

    Args:
        cloud: what the operations act on.
        token: the API token that a call must carry.
        limits: calls a second by operation, 1 or more; other operations have no limit.
        faults: scripted faults.
        round_trip_time: seconds on the network for one call, at least and at most.

    Attributes:
        requests: the last 100,000 requests.
        open_requests: number of requests that are not answered yet.
        failures: exceptions that were answered 500, which are defects of the emulator.
    """

    def __init__(
        self,
        cloud: Cloud,
        *,
        token: str,
        limits: Mapping[str, float],
        faults: Faults | None = None,
        round_trip_time: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        self._header = f"token {token}".encode()
        del token  # a traceback that shows local variables must not show it
        self.requests: deque[RecordedRequest] = deque(maxlen=_MAX_RECORDED)
        self.open_requests = 0
        self.failures: list[BaseException] = []
        self.faults = Faults() if faults is None else faults
        self._cloud = cloud
        self._limits = {name: RateLimit(rate) for name, rate in limits.items()}
        self._round_trip_time = round_trip_time
        self._chance = random.Random(0)  # noqa: S311 - network delays are no secret
        self._hosts = {"127.0.0.1", "::1", "localhost"}
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int) -> int:
        """Starts to listen. Returns the number of the port."""
        app = web.Application(client_max_size=_MAX_BODY_BYTES, middlewares=[self._middleware])
        for operation in OPERATIONS:
            handler = self._make_handler(operation)
            for path in filter(None, (operation.path, operation.newer_path)):
                app.router.add_route(operation.method, path, handler, name=None)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        self._runner = runner
        self._hosts.add(host)
        await web.TCPSite(runner, host, port, backlog=1024).start()
        return int(runner.addresses[0][1])

    async def close(self) -> None:
        """Stops listening."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def _is_authorized(self, request: web.Request) -> bool:
        header = request.headers.get("Authorization", "")
        return hmac.compare_digest(header.encode(errors="surrogateescape"), self._header)

    def _make_handler(
        self, operation: Operation[Any]
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            arguments: dict[str, Any] = dict(request.match_info)
            if operation.auth is Auth.DEPLOYMENT_TOKEN and request.headers.get("Authorization"):
                arguments["token"] = request.headers["Authorization"]
            elif not self._is_authorized(request):
                return _error_response(
                    401, "Unauthorized: the header Authorization must be `token …`"
                )
            limit = self._limits.get(operation.name)
            wait = limit.try_pass(loop_time()) if limit else 0.0
            if wait:
                return _error_response(
                    429,
                    f"Too many requests: try again in {wait:.3f} s",
                    {"Retry-After": str(math.ceil(wait))},
                )
            for name in operation.query & request.query.keys():
                arguments[name] = request.query[name]
            fault = self.faults.take(operation.name)
            if fault is None:
                return await self._act(operation, request, arguments)
            if fault.effect.hidden_for:
                arguments["hidden"] = fault.effect.hidden_for
            answer: web.Response | None = None
            for moment in ("unread", "read", "acted"):
                if moment == "read":
                    await request.read()
                if moment == "acted":
                    answer = await self._act(operation, request, arguments)
                if moment == fault.when:
                    changed = await fault.effect.apply(request, answer)
                    if changed is not None:
                        return changed
            assert answer is not None  # noqa: S101 - it was made at the moment "acted"
            return answer

        handle.__name__ = operation.name
        return handle

    async def _act(
        self, operation: Operation[Any], request: web.Request, arguments: dict[str, Any]
    ) -> web.Response:
        """Has the cloud do what the request asks, and makes the answer."""
        try:
            if operation.body is not None:
                arguments["body"] = read_request(operation.body, await request.read())
            call: Callable[..., Awaitable[Reply]] = getattr(self._cloud, operation.name)
            status, model = await call(**arguments)
        except InvalidRequest as problem:
            return _error_response(400, problem.message)
        except Refused as problem:
            return _refusal_response(problem)
        if status == 204:  # noqa: PLR2004 - No Content
            return web.Response(status=status)
        return _json_response(status, to_json(model))

    @web.middleware
    async def _middleware(
        self,
        request: web.Request,
        handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:
        """Refuses requests of web pages, turns exceptions into answers, and records the request."""
        one_way = self._chance.uniform(*self._round_trip_time) / 2
        if one_way:
            await asyncio.sleep(one_way)
        at = loop_time()
        self.open_requests += 1
        try:
            if self._is_foreign(request):
                answer: web.StreamResponse = _error_response(
                    403, "Not from here: wrong Host or Origin"
                )
            else:
                answer = await handler(request)
        except web.HTTPException as problem:  # no such path or method, body too large
            answer = _error_response(problem.status, problem.reason)
            if "Allow" in problem.headers:
                answer.headers["Allow"] = problem.headers["Allow"]
        except ConnectionError:  # the client has left; the record keeps the status
            answer = _error_response(_CLIENT_GONE, "The client went away")
        except Exception as problem:  # noqa: BLE001 - logged, kept, and raised by `close`
            _log.exception("%s %s failed", request.method, request.path)
            self.failures.append(problem)
            answer = _error_response(500, "Internal error: see the emulator's log")
        finally:
            self.open_requests -= 1
        name = request.match_info.handler.__name__
        is_call = any(name == operation.name for operation in OPERATIONS)
        self.requests.append(
            RecordedRequest(
                name if is_call else "", request.method, request.path, answer.status, at
            )
        )
        if one_way:
            await asyncio.sleep(one_way)
        return answer

    def _is_foreign(self, request: web.Request) -> bool:
        try:
            host = urlsplit(f"//{request.host}").hostname
        except ValueError:
            return True
        origin = request.headers.get("Origin")
        return host not in self._hosts or origin not in {None, f"http://{request.host}"}


def check_limits(limits: RateLimits) -> dict[str, float]:
    """Returns the calls a second by operation, without the operations that have no limit.

    Raises:
        InvalidRequest: an operation does not exist, or a limit is not 1 or more.
    """
    rates = {operation.name: operation.limit for operation in OPERATIONS}
    if limits is False:
        return {}
    if isinstance(limits, Mapping):
        for name, rate in limits.items():
            if name not in rates:
                names = ", ".join(rates)
                raise InvalidRequest(f"limits: there is no call {name!r}; there are {names}")
            check_number(f"limits: {name}", rate, least=1)
            rates[name] = rate
    elif limits is not True:
        raise InvalidRequest(
            f"limits is True, False or calls a second by operation, not {limits!r}"
        )
    return {name: rate for name, rate in rates.items() if rate is not None}


_STATUSES: Final = {refusal(status): status for status in (400, 401, 403, 404, 409, 410, 422)}


def _refusal_response(problem: Refused) -> web.Response:
    body = {"message": problem.message}
    if problem.request_id is not None:
        body = {"request_id": problem.request_id, **body}
    return _json_response(_STATUSES[type(problem)], body)


def _error_response(
    status: int, message: str, headers: Mapping[str, str] | None = None
) -> web.Response:
    return _json_response(status, {"message": message}, headers)


def _json_response(
    status: int, value: object, headers: Mapping[str, str] | None = None
) -> web.Response:
    return web.Response(
        status=status, body=dumps(value), content_type="application/json", headers=headers
    )
