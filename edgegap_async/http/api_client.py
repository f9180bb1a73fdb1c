"""Owns the parts, and takes one call through all of them.

`call` is the one way to the API: encode, then for each attempt wait for the limits, send and
decode, until it succeeds or `retries` says that the error is final.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from typing import Any, Final, Literal, Self, TypeVar

import aiohttp
import attrs

from edgegap_async.api.messages import HttpRequest, decode, encode
from edgegap_async.api.models import record_attempts
from edgegap_async.api.operations import Operation, RetrySafety
from edgegap_async.api.requests import DeployRequest, Token
from edgegap_async.api.validation import check_kind
from edgegap_async.errors import (
    CallError,
    ClientClosed,
    Gone,
    InvalidRequest,
    LimitReached,
    NoAnswer,
    NotFound,
    RateLimited,
    ServerError,
    UnreadableAnswer,
)
from edgegap_async.observability.observer import CallObserver, CallObservers, ObservedCall

from .auth import api_token, token_to_send
from .call_options import DEFAULT_OPTIONS, CallOptions
from .guard import Guard
from .rate_limits import Limits, Priority
from .resources import Deployments, Locations, PrivateFleets, Tags
from .retries import RetryBudget, RetryPolicy
from .shutdown import CloseScope, OpenCalls
from .transport import SendState, Timeouts, Transport

__all__ = ["DEFAULT_BASE_URL", "ApiClient"]

DEFAULT_BASE_URL: Final = "https://api.edgegap.com"

Result = TypeVar("Result")

logger = logging.getLogger(__name__)


class ApiClient:
    """The sixteen calls of the API, with limits and repeats. See `EdgegapClient` for the arguments.

    Attributes:
        deployments: deploy, get, stop, list, logs, metrics.
        locations: where servers can run.
        private_fleets: deploy to hosts of your own.
        tags: tags of deployments.
        limits: who may send, and when. `limits.snapshot()` tells how busy each operation is.
        requests_sent: how many requests went out so far, repeats included.
    """

    def __init__(
        self,
        token: str | Token | None = None,
        *,
        base_url: str | None = None,
        session: aiohttp.ClientSession | None = None,
        timeouts: Timeouts | None = None,
        limits: Limits | Mapping[str, float | None] | None = None,
        retries: RetryPolicy | None = None,
        guard: Guard | None = None,
        on_limit: Literal["wait", "raise"] = "wait",
        max_wait: float | None = None,
        allow_insecure: bool = False,
    ) -> None:
        self._token = api_token(token)
        del token  # a traceback that shows local variables must not show it
        check_kind("base_url", base_url, str)
        check_kind("session", session, aiohttp.ClientSession)
        check_kind("timeouts", timeouts, Timeouts)
        check_kind("retries", retries, RetryPolicy)
        check_kind("guard", guard, Guard)
        self._transport = Transport(
            base_url
            or _from_environment("EDGEGAP_BASE_URL", "EDGEGAP_API_URL")
            or DEFAULT_BASE_URL,
            session=session,
            timeouts=timeouts or _timeouts_from_environment(),
            allow_insecure=allow_insecure,
        )
        self.limits: Final = limits if isinstance(limits, Limits) else Limits(limits)
        self._max_wait = _checked_max_wait(on_limit, max_wait)
        self._guard = guard or Guard.from_environment(os.environ)
        self._retries = retries or RetryPolicy()
        self._retry_budget = RetryBudget(self._retries.budget)
        self._open_calls = OpenCalls()
        self._observers = CallObservers()
        self.requests_sent = 0
        self.deployments: Final = Deployments(self.call)
        self.locations: Final = Locations(self.call)
        self.private_fleets: Final = PrivateFleets(self.call)
        self.tags: Final = Tags(self.call)
        self._cleanup_deployments: Final = Deployments(self._call_for_cleanup)

    def __repr__(self) -> str:
        # One that could not be made has no transport, and is shown in that error's traceback.
        return f"{type(self).__name__}({getattr(self, '_transport', None)!r})"

    async def __aenter__(self) -> Self:
        if self._open_calls.is_closing:
            raise ClientClosed("the client was closed before: make another")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends every call under way with `ClientClosed`, and closes the session if it is our own.

        Twice is fine. A session that was passed in stays open.
        """
        self._open_calls.check_loop(asyncio.get_running_loop())
        await self._open_calls.cancel_all()
        await self._transport.close()

    def until_closed(self) -> CloseScope:
        """A block that ends with `ClientClosed` as soon as the client is closed.

        It must not hold a `yield`, nor await what calls `close`: `close` waits for its end.
        """
        return CloseScope(self._open_calls)

    def add_observer(self, observer: CallObserver) -> None:
        """Registers an observer, which is told of each call from now on."""
        self._observers.add(observer)

    async def call(
        self,
        operation: Operation[Result],
        *,
        path: Mapping[str, str] | None = None,
        query: Mapping[str, object] | None = None,
        body: object = None,
        options: CallOptions = DEFAULT_OPTIONS,
    ) -> Result:
        """Returns what the API answers to an operation, for calls that have no method of their own.

        Args:
            operation: one of `OPERATIONS`, or an `Operation` of your own.
            path: values for the names in the operation's path.
            query: query parameters; those that are None are left out.
            body: a model of `api.requests`, sent as JSON.
            options: how the call is made.

        Raises:
            InvalidRequest: it cannot be sent.
            NotAllowed: the client's guard refuses it.
            CallError: it did not succeed; one of its classes. `LimitReached` among them where
                the client shall not wait, unless `options.priority` puts the call before its usual
                place.
            ClientClosed: the client is closed, or was meanwhile.
            WrongLoop: the client was first used in another event loop.
        """
        with self.until_closed():
            return await self._call(operation, path=path, query=query, body=body, options=options)

    async def _call_for_cleanup(
        self,
        operation: Operation[Result],
        *,
        path: Mapping[str, str] | None = None,
        query: Mapping[str, object] | None = None,
        body: object = None,
        options: CallOptions = DEFAULT_OPTIONS,
    ) -> Result:
        """As `call`, also while the client closes, before other calls, without a wait limit."""
        priority = min(Priority.of(operation), Priority.DEPLOY)
        options = attrs.evolve(options, priority=priority)
        return await self._call(operation, path=path, query=query, body=body, options=options)

    async def _call(
        self,
        operation: Operation[Result],
        *,
        path: Mapping[str, str] | None,
        query: Mapping[str, object] | None,
        body: object,
        options: CallOptions,
    ) -> Result:
        self._guard.check(operation, body)
        request = encode(operation, path=path, query=query, body=body, max_bytes=options.max_bytes)
        sending = SendState()
        try:
            return await self.exchange(request, sending, options)
        except asyncio.CancelledError:
            if sending.sent and isinstance(body, DeployRequest):
                logger.error(  # noqa: TRY400 - the traceback of a cancellation tells nothing
                    "%s %s may go on running: its deploy was ended before an answer came,"
                    " and carries no operation tag to find it by (client.deploy gives one)",
                    body.application,
                    body.version,
                )
            raise

    async def exchange(
        self,
        request: HttpRequest[Result],
        sending: SendState,
        options: CallOptions = DEFAULT_OPTIONS,
    ) -> Result:
        """Returns the answer to a request, after as many attempts as the retry policy allows.

        Unlike `call` it goes on while the client closes, for what has to clean up.
        """
        token = token_to_send(options.token or self._token)
        self._guard.check_dry_run(request)
        call = ObservedCall(operation=request.operation, request_id=request.request_id)
        report = self._observers.report
        report(CallObserver.call_started, call)
        try:
            result = await self._attempts(call, request, sending, token, options)
        except BaseException as error:
            report(CallObserver.call_failed, call, error)
            raise
        report(CallObserver.call_succeeded, call, result)
        return result

    async def _attempts(
        self,
        call: ObservedCall,
        request: HttpRequest[Result],
        sending: SendState,
        token: Token,
        options: CallOptions,
    ) -> Result:
        operation = request.operation
        loop = asyncio.get_running_loop()
        priority = Priority.of(operation) if options.priority is None else options.priority
        max_wait = None if options.ignore_wait_limit else self._max_wait_of(operation, priority)
        waits = None
        failed: CallError | None = None  # what the last attempt ended with
        began = failed_at = 0.0
        while True:
            queued_at = loop.time()
            try:
                lane = await self._acquire_slot(
                    request, priority, max_wait, front=isinstance(failed, RateLimited)
                )
            except LimitReached as error:
                # If it was sent before, what came of that is what counts.
                raise failed or error from None
            if failed is not None:
                call.waited += loop.time() - failed_at
                failed = None  # it holds this frame
            began = began or loop.time()
            self.requests_sent += 1
            call.attempts += 1
            call.queued = loop.time() - queued_at
            self._observers.report(CallObserver.attempt_started, call)
            try:
                result = await self._send(call, request, token, sending, lane)
            except CallError as error:
                error.attempts, error.waited = call.attempts, call.waited
                error.maybe_created = (
                    operation.retry_safety is RetrySafety.ONLY_IF_NOT_SENT and is_ambiguous(error)
                )
                if isinstance(error, Gone | NotFound) and _already_deleted(operation, sending):
                    result = operation.returns()
                    record_attempts(result, attempts=call.attempts, waited=call.waited)
                    return result
                # Where the API says how long, the limits wait for that; where not, it waits here.
                is_queued = (
                    isinstance(error, RateLimited)
                    and self.limits.on_rate_limited(operation, error.retry_after or 0.0)
                    and error.retry_after is not None
                )
                waits = waits or self._retries.waits()
                failed, failed_at = error, loop.time()
                wait = self._retries.wait_after(
                    error,
                    operation,
                    attempts=call.attempts,
                    elapsed=failed_at - began,
                    wait=0.0 if is_queued else next(waits),
                )
                if (
                    options.once
                    or wait is None
                    or sending.is_abandoned
                    or not self._retry_budget.try_spend(error, operation)
                ):
                    self._observers.report(CallObserver.attempt_failed, call, error, None)
                    raise
                self._observers.report(CallObserver.attempt_failed, call, error, wait)
                if isinstance(error, RateLimited) and sending.sent:
                    sending.sent -= 1  # it was refused: as if it had not been sent
                logger.info("%s; again in %.2f s", error, wait)
            else:
                self._retry_budget.add_success()
                if call.attempts > 1:
                    record_attempts(result, attempts=call.attempts, waited=call.waited)
                return result
            if not is_queued:
                await asyncio.sleep(wait)

    async def _send(
        self,
        call: ObservedCall,
        request: HttpRequest[Result],
        token: Token,
        sending: SendState,
        lane: asyncio.Semaphore,
    ) -> Result:
        call.status = None
        try:
            response = await self._transport.send(request, token, sending)
        finally:
            lane.release()
        call.status = response.status
        try:
            return decode(request, response)
        except CallError:
            pass
        # What it says goes into the error; some proxies repeat the header that they do not like.
        return decode(request, attrs.evolve(response, body=token.hidden_in(response.body)))

    async def _acquire_slot(
        self,
        request: HttpRequest[Any],
        priority: Priority,
        max_wait: float | None,
        *,
        front: bool,
    ) -> asyncio.Semaphore:
        """Returns when a request may go, with the lane that it holds: a permit and a connection.

        The permit comes first, for who goes first is the limits' to say. Where every connection
        hangs it is of no use: kept until one is free, the permits of all who wait there would be
        used in one moment. So whoever waited there takes another one, before all others.
        """
        operation, lane = request.operation, self._transport.connection_slots(request.operation)
        try:
            await self.limits.acquire(operation, priority, max_wait=max_wait, front=front)
            if not lane.locked():
                await lane.acquire()  # which does not wait
                return lane
            async with asyncio.timeout(max_wait):
                await lane.acquire()
            try:
                await self.limits.acquire(operation, priority, max_wait=max_wait, front=True)
            except BaseException:
                lane.release()
                raise
        except TimeoutError:
            problem = LimitReached(
                "all connections are in use", operation=operation.name, method=operation.method
            )
        except LimitReached as error:
            problem = error
        else:
            return lane
        problem.path, problem.request_id = request.path, request.request_id
        raise problem

    def _max_wait_of(self, operation: Operation[Any], priority: Priority) -> float | None:
        """Seconds that a call may wait for its turn; None for as long as it takes."""
        if self._max_wait is None:
            return None
        usual = Priority.of(operation)
        # A stop, and what goes before its usual place: other work cannot go on without them.
        if usual is Priority.STOP or priority < usual:
            return None
        return self._max_wait


def _already_deleted(operation: Operation[Any], sending: SendState) -> bool:
    """Whether "it is not there" is the success of a DELETE whose first answer was lost."""
    return (
        operation.method == "DELETE"
        and operation.retry_safety is RetrySafety.SAFE
        and sending.sent > 1
    )


def is_ambiguous(error: CallError) -> bool:
    """Whether the API may have done all the same what a failed call asked for."""
    if isinstance(error, UnreadableAnswer):
        return error.status is not None and error.status < 300  # noqa: PLR2004 - not a redirect
    return isinstance(error, NoAnswer | ServerError)


def _checked_max_wait(on_limit: object, max_wait: float | None) -> float | None:
    if on_limit not in {"wait", "raise"}:
        raise InvalidRequest(f'on_limit is "wait" or "raise", not {on_limit!r}')
    check_kind("max_wait", max_wait, int, float)
    if on_limit == "raise":
        if max_wait:
            raise InvalidRequest('with on_limit="raise" nothing waits: leave max_wait out')
        return 0.0
    if max_wait is not None and not max_wait >= 0:
        raise InvalidRequest(f"max_wait is 0 seconds or more, not {max_wait!r}")
    return max_wait


def _from_environment(*names: str) -> str | None:
    return next((value for name in names if (value := os.environ.get(name))), None)


def _timeouts_from_environment() -> Timeouts:
    text = _from_environment("EDGEGAP_TIMEOUT_MS")
    if text is None:
        return Timeouts()
    if not text.isdecimal() or not int(text):
        raise InvalidRequest(f"EDGEGAP_TIMEOUT_MS is a number of milliseconds, not {text!r}")
    return Timeouts(total=int(text) / 1000)
