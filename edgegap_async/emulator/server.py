"""The HTTP side of the emulator: routes, rate limits, faults, the record, errors in the API's form.

The routes come from `OPERATIONS`, so an operation exists here as soon as it is described there and
`Cloud` has a coroutine of its name. The order of checks: Host and Origin (403), token (401), path
(404), method (405), rate limit (429), faults, type of the body (415), then the cloud.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import random
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import unquote

import attrs
from aiohttp import web

from edgegap_async.api.codec import read_request, to_json
from edgegap_async.api.models import DeployAccepted, Stopped
from edgegap_async.api.operations import STOP_SELF, Auth, Operation
from edgegap_async.api.register import OPERATIONS
from edgegap_async.concurrency import loop_time
from edgegap_async.errors import InvalidRequest, Refused, log_fields

from .cloud import Cloud
from .connections import BodyTooSlow, Deadlines, HttpServer, MalformedBody, read_body
from .faults import Fault, Faults
from .http_guard import HttpGuard
from .rate_limits import RateLimit
from .recorded_requests import RecordedRequest, RequestRecord, scrubbed_body
from .responses import error_response, json_response, refusal_response

if TYPE_CHECKING:
    from .page import Page

_log: Final = logging.getLogger(__name__)

_CLIENT_GONE: Final = 499  # HTTP status; as web servers log it, no official one fits
_CONTROL: Final = "_emulator"  # the first segment of the control API's paths
_EXPECTATION: Final = "100-continue"  # the only value of the header Expect that is defined

RespondToControl: TypeAlias = Callable[[web.BaseRequest, bytes], Awaitable[web.Response]]
"""Answers a request of the control API, of which it gets the body too."""


@attrs.define
class Exchange:
    """One request, and what became of it."""

    request: web.BaseRequest
    """The request."""
    operation: Operation[Any] | None = None
    """The operation; None if no operation has that path and method."""
    request_id: str | None = None
    """The deployment that it is about or has made; None if there is none."""
    fault: Fault | None = None
    """The scripted fault that was applied; None if there was none."""
    body: bytes = b""
    """The body, as far as it was read."""
    is_control: bool = False
    """Whether it is a call of the control API, or of the page."""


def _not_emulated() -> dict[Operation[None], str]:
    """Returns the calls of the API's description that the emulator does not serve, and why."""
    text = files(__package__ or __name__).joinpath("not_emulated.json").read_text("utf-8")
    return {
        Operation(name="", method=method, path=path, returns=type(None)): reason
        for method, path, reason in json.loads(text)
    }


class _Routes:
    """Finds operations by method and path."""

    def __init__(self, operations: Iterable[Operation[Any]]) -> None:
        self._by_length: dict[int, list[tuple[re.Pattern[str], Operation[Any]]]] = {}
        self._of_any_length: list[
            tuple[re.Pattern[str], Operation[Any]]
        ] = []  # slashes in arguments
        for operation in operations:
            for path in filter(None, (operation.path, operation.newer_path)):
                names = re.split(r"\{(\w+)\}", path)
                pattern = "".join(
                    f"(?P<{part}>{'.+' if part in operation.slashes else '[^/]+'})"
                    if index % 2
                    else re.escape(part)
                    for index, part in enumerate(names)
                )
                same_length = (
                    self._of_any_length
                    if operation.slashes
                    else self._by_length.setdefault(path.count("/"), [])
                )
                same_length.append((re.compile(pattern), operation))

    def find(self, path: str) -> Iterator[tuple[Operation[Any], dict[str, str]]]:
        """Yields the operations of a path, of any method, with the arguments in the path."""
        candidates = (*self._by_length.get(path.count("/"), ()), *self._of_any_length)
        for pattern, operation in candidates:
            match = pattern.fullmatch(path)
            if match:
                yield operation, {name: unquote(text) for name, text in match.groupdict().items()}


class Server:
    """Serves the API on one port.

    Args:
        cloud: what the operations act on at first.
        guard: checks where requests come from.
        limits: calls a second by operation, 1 or more; other operations have no limit.
        faults: scripted faults.
        round_trip_time: seconds on the network for one call, at least and at most.
        deadlines: seconds for headers and bodies.
        control: answers the control API, which has no limits, no faults and no record.
        page: serves the page, which has no limits, no faults and no record.

    Attributes:
        cloud: what the operations act on.
        requests: the last 20,000 requests.
        open_requests: number of requests that are not answered yet.
        failures: exceptions that were answered 500, which are defects of the emulator.
    """

    def __init__(
        self,
        cloud: Cloud,
        *,
        guard: HttpGuard,
        limits: Mapping[str, float],
        faults: Faults,
        round_trip_time: tuple[float, float],
        deadlines: Deadlines,
        control: RespondToControl,
        page: Page,
    ) -> None:
        self.requests = RequestRecord()
        self.open_requests = 0
        self.failures: list[BaseException] = []
        self.faults = faults
        self.cloud = cloud
        self._guard = guard
        self._rates = dict(limits)
        self._limits: dict[str, RateLimit] = {}
        self.reset_limits()
        self._round_trip_time = round_trip_time
        self._deadlines = deadlines
        self._chance = random.Random(0)  # noqa: S311 - network delays are no secret
        self._routes = _Routes(OPERATIONS)
        self._control = control
        self._page = page
        self._not_emulated = _not_emulated()
        self._not_emulated_routes = _Routes(self._not_emulated)
        self._runner: web.ServerRunner | None = None

    async def start(self, host: str, port: int) -> int:
        """Starts to listen. Returns the number of the port."""
        runner = web.ServerRunner(HttpServer(self._respond, self._deadlines), shutdown_timeout=1.0)
        await runner.setup()
        self._runner = runner
        await web.TCPSite(runner, host, port, backlog=1024).start()
        return int(runner.addresses[0][1])

    def reset_limits(self) -> None:
        """Forgets the calls that count for rate limits."""
        self._limits = {name: RateLimit(rate) for name, rate in self._rates.items()}

    async def close(self) -> None:
        """Stops listening."""
        self._page.close()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    # ── one request ──────────────────────────────────────────────────────────────────────────────

    async def _respond(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answers and records a request."""
        one_way = self._chance.uniform(*self._round_trip_time) / 2
        if one_way:
            await asyncio.sleep(one_way)
        at = loop_time()
        exchange = Exchange(request, is_control=self._page.has(request))
        answer = await self._answer_or_error(exchange)
        if not exchange.is_control:
            self._record(exchange, answer.status, at)
        if one_way:
            await asyncio.sleep(one_way)
        return answer

    async def _answer_or_error(self, exchange: Exchange) -> web.StreamResponse:
        """Returns the answer to a request, also where an exception ends it."""
        request, is_for_page = exchange.request, exchange.is_control
        self.open_requests += not is_for_page  # a stream of the page stays open
        try:
            if is_for_page:
                return self._guard.refuse_foreign(request) or await self._page.answer(request)
            return await self._answer(exchange)
        except web.HTTPRequestEntityTooLarge:
            return error_response(413, "The body is larger than 1 MiB")
        except MalformedBody as problem:
            _log.warning(
                "%s %s: malformed body: %s",
                request.method,
                request.path,
                problem,
                extra=log_fields(problem, method=request.method, path=request.path),
            )
            answer = error_response(400, f"The body is not valid HTTP: {problem}")
        except BodyTooSlow:
            answer = error_response(408, "The body was not complete in time")
        except ConnectionError:  # the client has left; the record keeps the status
            return error_response(_CLIENT_GONE, "The client went away")
        except Exception as problem:  # noqa: BLE001 - logged, kept, and raised by `close`
            _log.exception(
                "%s %s failed",
                request.method,
                request.path,
                extra=log_fields(problem, method=request.method, path=request.path),
            )
            self.failures.append(problem)
            return error_response(500, "Internal error: see the emulator's log")
        finally:
            self.open_requests -= not is_for_page
        answer.force_close()
        return answer

    def _record(self, exchange: Exchange, status: int, at: float) -> None:
        request, operation, fault = exchange.request, exchange.operation, exchange.fault
        self.requests.add(
            RecordedRequest(
                operation="" if operation is None else operation.name,
                method=request.method,
                path=request.path,
                status=status,
                received_at=at,
                duration=loop_time() - at,
                request_id=exchange.request_id,
                fault=None if fault is None else type(fault.effect).__name__,
                body=scrubbed_body(exchange.body) if exchange.body else None,
            )
        )

    async def _answer(self, exchange: Exchange) -> web.StreamResponse:
        request = exchange.request
        arguments: dict[str, Any] = {}
        allowed = []
        for operation, found in self._routes.find(request.rel_url.raw_path):
            allowed.append(operation.method)
            if operation.method == request.method:
                exchange.operation, arguments = operation, {**found}
        refused = self._guard.refuse_foreign(request) or self._check_token(exchange)
        if refused is not None:
            return refused
        if request.path.partition("/")[2].partition("/")[0] == _CONTROL:
            exchange.is_control = True
            return self._guard.refuse_other_types(request) or await self._control(
                request, await self._read(exchange)
            )
        if request.headers.get("Expect", _EXPECTATION).lower() != _EXPECTATION:
            return error_response(417, "Expect can only be 100-continue")
        if not allowed:
            return self._unknown_path(request)
        if exchange.operation is None:
            return error_response(405, "Method Not Allowed", {"Allow": ", ".join(allowed)})
        return await self._call(exchange, exchange.operation, arguments)

    def _unknown_path(self, request: web.BaseRequest) -> web.Response:
        """Returns the 501 of a call that the API has and the emulator has not, or the 404."""
        for call, _ in self._not_emulated_routes.find(request.rel_url.raw_path):
            if call.method == request.method:
                reason = self._not_emulated[call]
                return error_response(501, f"{call.method} {call.path} is not emulated: {reason}")
        return error_response(404, "Not Found")

    def _check_token(self, exchange: Exchange) -> web.Response | None:
        """Returns the 401 for a request without its token, or None."""
        operation, header = exchange.operation, exchange.request.headers.get("Authorization")
        if operation is not None and operation.auth is Auth.DEPLOYMENT_TOKEN:
            # A session of the page stands for the API token alone. The cloud compares the token.
            return None if header else self._guard.unauthorized()
        return self._guard.refuse_unauthorized(exchange.request)

    async def _call(
        self, exchange: Exchange, operation: Operation[Any], arguments: dict[str, Any]
    ) -> web.StreamResponse:
        """Applies limits and faults to a call that is allowed."""
        request = exchange.request
        exchange.request_id = arguments.get("request_id")
        limit = self._limits.get(operation.name)
        wait = limit.try_pass(loop_time()) if limit else 0.0
        if wait:
            return error_response(
                429,
                f"Too many requests: try again in {wait:.3f} s",
                {"Retry-After": str(math.ceil(wait))},
            )
        for name in operation.query & request.query.keys():
            arguments[name] = request.query[name]
        fault = exchange.fault = self.faults.take(operation.name)
        if fault is None:
            return await self._act(exchange, operation, arguments)
        if fault.effect.hidden_for:
            arguments["hidden"] = fault.effect.hidden_for
        answer: web.Response | None = None
        for moment in ("unread", "read", "acted"):
            if moment == "read":
                await self._read(exchange)
            if moment == "acted":
                for _ in range(fault.effect.acts):
                    answer = await self._act(exchange, operation, dict(arguments))
            if moment == fault.when:
                changed = await fault.effect.apply(request, answer)
                if changed is not None:
                    return changed
        assert answer is not None  # noqa: S101 - it was made at the moment "acted"
        return answer

    async def _read(self, exchange: Exchange) -> bytes:
        if not exchange.body:
            request = exchange.request
            if request.headers.get("Expect") and request.transport is not None:
                request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            exchange.body = await read_body(request, self._deadlines)
        return exchange.body

    async def _act(
        self, exchange: Exchange, operation: Operation[Any], arguments: dict[str, Any]
    ) -> web.Response:
        """Has the cloud do what the request asks, and makes the answer."""
        refused = self._guard.refuse_other_types(exchange.request)
        if refused is not None:
            return refused
        body = await self._read(exchange)
        try:
            if operation.auth is Auth.DEPLOYMENT_TOKEN:
                self.cloud.check_own(
                    arguments["request_id"],
                    arguments.pop("access_point_id"),
                    exchange.request.headers["Authorization"],
                    is_stop=operation is STOP_SELF,
                )
            if operation.body is not None:
                arguments["body"] = read_request(operation.body, body)
            call: Callable[..., Awaitable[object]] = getattr(self.cloud, operation.name)
            model = await call(**arguments)
        except InvalidRequest as problem:
            return error_response(400, problem.message)
        except Refused as problem:
            exchange.request_id = problem.request_id or exchange.request_id
            return refusal_response(problem)
        if isinstance(model, DeployAccepted):
            exchange.request_id = model.request_id
        # Of two statuses the higher one is that of newer descriptions, but for a stop at once.
        stops_now = isinstance(model, Stopped) and model.deployment_summary is not None
        status = (min if stops_now else max)(operation.ok)
        if model is None:
            return web.Response(status=status)
        return json_response(status, to_json(model))
