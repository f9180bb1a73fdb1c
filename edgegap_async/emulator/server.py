"""HTTP around the world: routes, tokens, limits, and errors as the API writes them.

The routes are made from `endpoints.OPERATIONS`, so a call exists here as soon as it is described
there and `World` has a coroutine of its name. Whoever reaches this can start processes, so each
call needs the token, and what a web page could make a browser send is refused: a foreign `Origin`,
or a `Host` that is a name someone made point to this machine.
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
from edgegap_async.errors import InvalidRequest, Refused, refusal

from .cloud import Cloud, Reply
from .faults import Faults

__all__ = ["Limit", "Limits", "RecordedRequest", "Server"]

_log: Final = logging.getLogger(__name__)

Limits: TypeAlias = bool | Mapping[str, float]
"""True: as documented. False: none. Or calls a second by the operation's name; as documented for
those that are not named."""

_LARGEST_BODY: Final = 2**20
_RECORDED: Final = 100_000
_CLIENT_GONE: Final = 499  # no official status has that meaning; web servers log this one


@attrs.frozen
class RecordedRequest:
    """One request and how it was answered. It holds no header and no body."""

    operation: str
    """Name of the call; empty where there is none for that path."""
    method: str
    path: str
    status: int
    at: float
    """Time of the loop when it came."""


class Limit:
    """Lets at most `rate` calls through in any `window` seconds."""

    def __init__(self, rate: float, window: float = 1.0) -> None:
        self._rate = rate
        self._window = window
        self._passed: deque[float] = deque()

    def wait(self, now: float) -> float:
        """Let a call through at `now`, which is 0; or the seconds until the next may pass."""
        while self._passed and self._passed[0] <= now - self._window:
            self._passed.popleft()
        if len(self._passed) < self._rate:
            self._passed.append(now)
            return 0.0
        return self._passed[0] + self._window - now if self._passed else self._window


class Server:
    """A port where the API is answered.

    Args:
        world: what answers.
        token: what a call must carry.
        limits: calls a second.
        faults: what goes wrong.
        round_trip: seconds on the way, at least and at most.

    Attributes:
        requests: what came, the last hundred thousand.
        under_way: how many calls have come and are not answered yet.
        failures: exceptions that should not have been; each was answered 500.
    """

    def __init__(
        self,
        cloud: Cloud,
        *,
        token: str,
        limits: Limits = True,
        faults: Faults | None = None,
        round_trip: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        self._header = f"token {token}".encode()
        del token  # a traceback that shows local variables must not show it
        self.requests: deque[RecordedRequest] = deque(maxlen=_RECORDED)
        self.under_way = 0
        self.failures: list[BaseException] = []
        self.faults = Faults() if faults is None else faults
        self._cloud = cloud
        self._limits = _limits(limits)
        self._round_trip = round_trip
        self._chance = random.Random(0)  # noqa: S311 - distances are no secret
        self._hosts = {"127.0.0.1", "::1", "localhost"}
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; the number of the port."""
        app = web.Application(client_max_size=_LARGEST_BODY, middlewares=[self._around])
        for operation in OPERATIONS:
            handler = self._handler(operation)
            for path in filter(None, (operation.path, operation.newer_path)):
                app.router.add_route(operation.method, path, handler, name=None)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        self._runner = runner
        self._hosts.add(host)
        await web.TCPSite(runner, host, port, backlog=1024).start()
        return int(runner.addresses[0][1])

    async def close(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def _is_authorized(self, request: web.Request) -> bool:
        said = request.headers.get("Authorization", "")
        return hmac.compare_digest(said.encode(errors="surrogateescape"), self._header)

    def _handler(
        self, operation: Operation[Any]
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            arguments: dict[str, Any] = dict(request.match_info)
            if operation.auth is Auth.DEPLOYMENT_TOKEN and request.headers.get("Authorization"):
                arguments["token"] = request.headers["Authorization"]
            elif not self._is_authorized(request):
                return _error(401, "Unauthorized: the header Authorization is to be `token …`")
            limit = self._limits.get(operation.name)
            wait = limit.wait(asyncio.get_running_loop().time()) if limit else 0.0
            if wait:
                return _error(
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
            assert answer is not None  # noqa: S101 - the last moment gave it
            return answer

        handle.__name__ = operation.name
        return handle

    async def _act(
        self, operation: Operation[Any], request: web.Request, arguments: dict[str, Any]
    ) -> web.Response:
        """Let the world do what was asked, and answer."""
        try:
            if operation.body is not None:
                arguments["body"] = read_request(operation.body, await request.read())
            call: Callable[..., Awaitable[Reply]] = getattr(self._cloud, operation.name)
            status, model = await call(**arguments)
        except InvalidRequest as problem:
            return _error(400, problem.message)
        except Refused as problem:
            return _refused(problem)
        if status == 204:  # noqa: PLR2004 - nothing to say
            return web.Response(status=status)
        return _json(status, to_json(model))

    @web.middleware
    async def _around(
        self,
        request: web.Request,
        handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:
        """Refuse what a browser was made to send, turn errors into answers, and record."""
        way = self._chance.uniform(*self._round_trip) / 2
        if way:
            await asyncio.sleep(way)
        at = asyncio.get_running_loop().time()
        self.under_way += 1
        try:
            if self._is_foreign(request):
                answer: web.StreamResponse = _error(403, "Not from here: wrong Host or Origin")
            else:
                answer = await handler(request)
        except web.HTTPException as problem:  # no such path or method, body too large
            answer = _error(problem.status, problem.reason)
            if "Allow" in problem.headers:
                answer.headers["Allow"] = problem.headers["Allow"]
        except ConnectionError:  # the client is gone: nobody reads this, the record apart
            answer = _error(_CLIENT_GONE, "The client went away")
        except Exception as problem:  # noqa: BLE001 - it is logged, kept, and raised by `close`
            _log.exception("%s %s failed", request.method, request.path)
            self.failures.append(problem)
            answer = _error(500, "Internal error; the emulator's log says which")
        finally:
            self.under_way -= 1
        name = request.match_info.handler.__name__
        is_call = any(name == operation.name for operation in OPERATIONS)
        self.requests.append(
            RecordedRequest(
                name if is_call else "", request.method, request.path, answer.status, at
            )
        )
        if way:
            await asyncio.sleep(way)
        return answer

    def _is_foreign(self, request: web.Request) -> bool:
        try:
            host = urlsplit(f"//{request.host}").hostname
        except ValueError:
            return True
        origin = request.headers.get("Origin")
        return host not in self._hosts or origin not in {None, f"http://{request.host}"}


def _limits(limits: Limits) -> dict[str, Limit]:
    if limits is False:
        return {}
    own = limits if isinstance(limits, Mapping) else {}
    names = {operation.name for operation in OPERATIONS}
    for name, rate in own.items():
        if name not in names:
            raise InvalidRequest(f"limits: there is no call {name!r}")
        if rate < 1:
            raise InvalidRequest(f"limits: {name} needs a number from 1 on, not {rate!r}")
    rates = {operation.name: operation.limit for operation in OPERATIONS} | dict(own)
    return {name: Limit(rate) for name, rate in rates.items() if rate is not None}


_CODES: Final = {refusal(status): status for status in (400, 401, 403, 404, 409, 410, 422)}


def _refused(problem: Refused) -> web.Response:
    said = {"message": problem.message}
    if problem.request_id is not None:
        said = {"request_id": problem.request_id, **said}
    return _json(_CODES[type(problem)], said)


def _error(status: int, message: str, headers: Mapping[str, str] | None = None) -> web.Response:
    return _json(status, {"message": message}, headers)


def _json(status: int, value: object, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(
        status=status, body=dumps(value), content_type="application/json", headers=headers
    )
