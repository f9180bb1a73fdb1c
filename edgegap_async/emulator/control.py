"""The control API: `/_emulator/…`, for tests in any language and for people.

It needs the token. Its calls are subject to no rate limit and no fault, and stand in no record.
The emulator's README describes each of them.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import attrs
from aiohttp import web

from edgegap_async.api.codec import read_json
from edgegap_async.api.validation import check_kind, check_number
from edgegap_async.concurrency import loop_time
from edgegap_async.errors import InvalidRequest, NotFound

from .deployment_views import details, row, usage
from .deployments import LocalDeployment
from .expectations import Expectation
from .fault_tables import fault_table, faults_from_tables
from .responses import error_response, json_response

if TYPE_CHECKING:
    from .emulator import Emulator

CONTROL_PATH: Final = "/_emulator"
"""Where the paths of the control API begin."""

_MAX_WAIT: Final = 60.0  # seconds for which a call for events waits
_MAX_ADVANCE: Final = 31 * 86400.0  # seconds
_MAX_ROWS: Final = 1_000
_DEFAULT_ROWS: Final = 100

_OF_A_DEPLOYMENT: Final = re.compile("^(/deployments/)[^/]+")

_Call: TypeAlias = Callable[[], Awaitable[object]]


class Control:
    """One call of the control API.

    Args:
        emulator: what it acts on.
        request: the request, whose path begins with `CONTROL_PATH`.
        body: its body.
    """

    def __init__(self, emulator: Emulator, request: web.BaseRequest, body: bytes) -> None:
        self._emulator = emulator
        self._request = request
        self._body = body
        self._path = request.path.removeprefix(CONTROL_PATH).rstrip("/")
        self._calls: dict[str, dict[str, _Call]] = {
            "": {"GET": self._overview},
            "/faults": {
                "GET": self._list_faults,
                "POST": self._add_faults,
                "DELETE": self._clear_faults,
            },
            "/requests": {"GET": self._list_requests, "DELETE": self._clear_requests},
            "/expectations": {
                "GET": self._list_expectations,
                "POST": self._add_expectations,
                "DELETE": self._clear_expectations,
            },
            "/deployments": {"GET": self._list_deployments},
            "/deployments/ID": {"GET": self._show_deployment},
            "/deployments/ID/logs": {"GET": self._show_logs},
            "/deployments/ID/metrics": {"GET": self._show_metrics},
            "/deployments/ID/crash": {"POST": self._crash},
            "/webhooks": {"GET": self._list_webhooks},
            "/login": {"POST": self._make_login_link},
            "/events": {"GET": self._list_events},
            "/clock": {"GET": self._show_clock, "POST": self._set_clock},
            "/reset": {"POST": self._reset},
        }

    async def answer(self) -> web.Response:
        """Returns the answer to the call."""
        calls = self._calls.get(_OF_A_DEPLOYMENT.sub(r"\1ID", self._path))
        if calls is None:
            paths = ", ".join(f"{CONTROL_PATH}{known}" for known in self._calls)
            return error_response(404, f"Not Found: the control API has {paths}")
        call = calls.get(self._request.method)
        if call is None:
            return error_response(405, "Method Not Allowed", {"Allow": ", ".join(calls)})
        try:
            value = await call()
        except InvalidRequest as problem:
            return error_response(400, problem.message)
        except NotFound as problem:
            return error_response(404, problem.message)
        return json_response(200, value)

    # ── calls ────────────────────────────────────────────────────────────────────────────────────

    async def _overview(self) -> object:
        emulator = self._emulator
        return {
            "deployable": list(emulator.cloud.deployable),
            "is_simulated": emulator.cloud.settings.simulate is not None,
            "live_deployments": len(emulator.cloud.live()),
            "requests": emulator.record.total,
            "faults": len(emulator.faults.left),
            "unmet": list(emulator.expectations.unmet),
            "paths": [f"{CONTROL_PATH}{path}" for path in self._calls],
        }

    async def _list_faults(self) -> object:
        return {"faults": [fault_table(fault) for fault in self._emulator.faults.left]}

    async def _add_faults(self) -> object:
        self._emulator.faults.add(*faults_from_tables(_tables(self._body, "faults")))
        return await self._list_faults()

    async def _clear_faults(self) -> object:
        self._emulator.faults.clear()
        return await self._list_faults()

    async def _list_requests(self) -> object:
        operation = self._request.query.get("operation")
        request_id = self._request.query.get("request_id")
        count = int(_number(self._request, "limit", _DEFAULT_ROWS, _MAX_ROWS))
        chosen = [
            one
            for one in self._emulator.record
            if operation in {None, one.operation} and request_id in {None, one.request_id}
        ]
        return {
            "requests": [attrs.asdict(one) for one in chosen[-count:]] if count else [],
            "total": len(chosen),
            "now": loop_time(),
        }

    async def _clear_requests(self) -> object:
        self._emulator.record.clear()
        return await self._list_requests()

    async def _list_expectations(self) -> object:
        expectations = self._emulator.expectations
        return {"expectations": expectations.as_tables(), "unmet": list(expectations.unmet)}

    async def _add_expectations(self) -> object:
        tables = _tables(self._body, "expectations")
        self._emulator.expectations.add(*map(Expectation.from_table, tables))
        return await self._list_expectations()

    async def _clear_expectations(self) -> object:
        self._emulator.expectations.clear()
        return await self._list_expectations()

    async def _list_deployments(self) -> object:
        cloud = self._emulator.cloud
        return {"deployments": [row(cloud, one) for one in cloud.live()]}

    def _deployment(self) -> LocalDeployment:
        """Returns the deployment whose id is in the path.

        Raises:
            NotFound: there is none.
        """
        request_id = self._path.split("/")[2]
        deployment = self._emulator.cloud.deployments.get(request_id)
        if deployment is None:
            raise NotFound(f"There is no deployment {request_id}, or it has ended a while ago")
        return deployment

    async def _show_deployment(self) -> object:
        one = self._deployment()
        return details(self._emulator.cloud, one, self._emulator.events.of(one.request_id))

    async def _show_logs(self) -> object:
        deployment = self._deployment()
        text, position = deployment.output.after(int(_number(self._request, "after", 0, 10**15)))
        return {"text": text, "position": position}

    async def _show_metrics(self) -> object:
        return usage(self._deployment().samples)

    async def _crash(self) -> object:
        deployment = self._deployment()
        if deployment.process is None:
            raise InvalidRequest(
                f"{deployment.request_id} has no process to crash: it is {deployment.status}"
            )
        await deployment.process.crash()
        return row(self._emulator.cloud, deployment)

    async def _list_webhooks(self) -> object:
        return {"webhooks": [one.as_table() for one in self._emulator.webhooks.sent]}

    async def _make_login_link(self) -> object:
        return {"url": self._emulator.new_login_link()}

    async def _list_events(self) -> object:
        after = int(_number(self._request, "after", 0, 10**12))
        seconds = _number(self._request, "timeout", 0, _MAX_WAIT)
        events = await self._emulator.events.wait(after, seconds)
        return {"events": [event.as_table() for event in events]}

    async def _show_clock(self) -> object:
        clock = self._emulator.clock
        return {"now": clock.now().isoformat(), "is_paused": clock.is_paused}

    async def _set_clock(self) -> object:
        wanted = read_json(self._body)
        if not isinstance(wanted, dict) or not wanted or set(wanted) - {"paused", "advance"}:
            raise InvalidRequest('a clock is set by {"paused": true}, {"advance": seconds} or both')
        paused, seconds = wanted.get("paused"), wanted.get("advance", 0)
        check_kind("paused", paused, bool)
        check_number("advance", seconds, least=0, most=_MAX_ADVANCE, optional=False)
        clock = self._emulator.clock
        if paused is not None:
            clock.pause() if paused else clock.resume()
        await clock.advance(seconds)
        return await self._show_clock()

    async def _reset(self) -> object:
        await self._emulator.reset()
        return await self._overview()


def _tables(body: bytes, name: str) -> list[Any]:
    """Returns the tables of a body: one, a list of them, or the list in a table under this name."""
    value = read_json(body)
    if isinstance(value, dict):
        value = value.get(name, [value])
    if not isinstance(value, list):
        raise InvalidRequest(f"{name} must be a list of tables")
    return value


def _number(request: web.BaseRequest, name: str, default: float, most: float) -> float:
    text = request.query.get(name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value <= most:
        raise InvalidRequest(f"{name} must be a number from 0 to {most:g}, not {text!r}")
    return value
