"""The client of the API: takes each call through guard, rate limit, network and retries.

`ApiClient.call` encodes a request. For each attempt it then waits for the rate limit, sends the
request and decodes the answer. A call ends when an attempt succeeds, or when a failed attempt is
the last: `RetryPolicy` allows no other attempt, the `RetryBudget` is used up, the call has
`CallOptions.once`, or its caller is gone (`SendState.is_abandoned`).
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeVar

import aiohttp
import attrs

from edgegap_async.api import codec
from edgegap_async.api.messages import MAX_ANSWER_BYTES, HttpRequest, decode, empty_answer, encode
from edgegap_async.api.models import record_attempts
from edgegap_async.api.operations import Operation, RetrySafety
from edgegap_async.api.requests import DeployRequest, Token
from edgegap_async.api.validation import check_kind, check_number
from edgegap_async.errors import (
    CallError,
    ClientClosed,
    Gone,
    InvalidRequest,
    LimitReached,
    NotFound,
    NotSent,
    RateLimited,
    log_fields,
)
from edgegap_async.observability.observer import ObservedCall, Observer, Observers

from .access import (
    ALLOW_INSECURE,
    Proxy,
    environment_proxy,
    is_set,
    read_secrets,
    token_to_send,
)
from .call import DEFAULT_OPTIONS, CallOptions, CallPermit
from .guard import Guard
from .rate_limits import Limits, Priority
from .resources.deployments import Deployments
from .retries import RetryBudget, RetryPolicy, is_ambiguous
from .shutdown import CloseScope, Closing, OpenCalls
from .transport import SendState, Timeouts, Transport

if TYPE_CHECKING:
    from .resources.applications import Applications, Versions
    from .resources.container_registry import ContainerRegistry
    from .resources.endpoint_storages import EndpointStorages, PullProfiles
    from .resources.locations import IpAddresses, Locations
    from .resources.private_fleets import PrivateFleets
    from .resources.relays import Relays
    from .resources.tags import Tags

DEFAULT_BASE_URL: Final = "https://api.edgegap.com"
_CLOSE_TIMEOUT: Final = 10.0  # seconds that `close` gives to calls, and to stops in progress

Result = TypeVar("Result")

logger = logging.getLogger(__name__)


class ApiClient:
    """Makes the calls of the API, with rate limits and retries. `EdgegapClient` has the arguments.

    Attributes:
        limits: the rate limits; `limits.snapshot()` returns the state of each.
        observers: they receive the events of calls and deployments; `add_observer` adds one.
        requests_sent: how many requests were sent so far, retries included; 0 or more.
    """

    def __init__(
        self,
        token: str | Token | None = None,
        *,
        base_url: str | None = None,
        session: aiohttp.ClientSession | None = None,
        timeouts: Timeouts | float | None = None,
        limits: Limits | Mapping[str, float | None] | None = None,
        retries: RetryPolicy | None = None,
        guard: Guard | None = None,
        on_limit: Literal["wait", "raise"] = "wait",
        max_wait: float | None = None,
        allow_insecure: bool | None = None,
        proxy: str | Proxy | None = None,
        trust_env: bool = False,
    ) -> None:
        self._token, chosen_proxy, slip = read_secrets(token, proxy)
        del token, proxy  # a traceback that shows local variables must not show them
        if slip:
            raise slip
        check_kind("base_url", base_url, str)
        check_kind("session", session, aiohttp.ClientSession)
        check_kind("timeouts", timeouts, Timeouts, int, float)
        if isinstance(timeouts, int | float):
            timeouts = Timeouts(total=timeouts)
        check_kind("retries", retries, RetryPolicy)
        check_kind("guard", guard, Guard)
        base_url = (
            base_url or _from_environment("EDGEGAP_BASE_URL", "EDGEGAP_API_URL") or DEFAULT_BASE_URL
        )
        if trust_env and chosen_proxy is None:
            chosen_proxy = environment_proxy(base_url)
        self._transport = Transport(
            base_url,
            session=session,
            timeouts=timeouts or _timeouts_from_environment(),
            allow_insecure=(
                is_set(os.environ, ALLOW_INSECURE) if allow_insecure is None else allow_insecure
            ),
            proxy=chosen_proxy,
        )
        self.limits: Final = limits if isinstance(limits, Limits) else Limits(limits)
        self._max_wait = _checked_max_wait(on_limit, max_wait)
        self._guard = guard or Guard.from_environment(os.environ)
        self._retries = retries or RetryPolicy()
        self._retry_budget = RetryBudget(self._retries.budget)
        self._open_calls = OpenCalls()
        self.observers: Final = Observers()
        self.requests_sent = 0
        codec.prepare()
        self._cleanup_deployments: Final = Deployments(self._call_for_cleanup)

    def __repr__(self) -> str:
        # A traceback may show a client whose constructor failed, which has no transport.
        base_url = getattr(getattr(self, "_transport", None), "base_url", None)
        return f"{type(self).__name__}({base_url!r})"

    # Each group of calls is made, and its module imported, at its first use.

    @cached_property
    def deployments(self) -> Deployments:
        """Deploys, lists and stops deployments, and reads their status, logs and metrics."""
        return Deployments(self.call)

    @cached_property
    def applications(self) -> Applications:
        """Lists, reads, creates, changes and deletes applications."""
        from .resources.applications import Applications

        return Applications(self.call)

    @cached_property
    def versions(self) -> Versions:
        """Lists, reads, creates, copies, changes and deletes versions of applications."""
        from .resources.applications import Versions

        return Versions(self.call)

    @cached_property
    def ip_addresses(self) -> IpAddresses:
        """Says where IP addresses are, and which one this program has."""
        from .resources.locations import IpAddresses

        return IpAddresses(self.call)

    @cached_property
    def container_registry(self) -> ContainerRegistry:
        """Lists and deletes the tags of images in Edgegap's container registry."""
        from .resources.container_registry import ContainerRegistry

        return ContainerRegistry(self.call)

    @cached_property
    def endpoint_storages(self) -> EndpointStorages:
        """Creates, reads, changes and deletes endpoint storages, which keep logs and files."""
        from .resources.endpoint_storages import EndpointStorages

        return EndpointStorages(self.call)

    @cached_property
    def locations(self) -> Locations:
        """Lists the locations where servers can run, and their beacons."""
        from .resources.locations import Locations

        return Locations(self.call)

    @cached_property
    def private_fleets(self) -> PrivateFleets:
        """Deploys to hosts of your own, and lists the hosts."""
        from .resources.private_fleets import PrivateFleets

        return PrivateFleets(self.call)

    @cached_property
    def pull_profiles(self) -> PullProfiles:
        """Copies files of endpoint storages into the containers of versions."""
        from .resources.endpoint_storages import PullProfiles

        return PullProfiles(self.call)

    @cached_property
    def relays(self) -> Relays:
        """Creates, reads and deletes relay sessions, and changes who may use them."""
        from .resources.relays import Relays

        return Relays(self.call)

    @cached_property
    def tags(self) -> Tags:
        """Reads and changes the tags of deployments."""
        from .resources.tags import Tags

        return Tags(self.call)

    def check_loop(self) -> None:
        """Binds the client to the running event loop on the first call, and compares it later.

        Raises:
            WrongLoop: the client was first used in another event loop, or it calls an emulator of
                this process, whose loop does not run.
        """
        self._open_calls.check_loop(asyncio.get_running_loop())
        self._transport.check_server()

    async def __aenter__(self) -> Self:
        self.check_loop()
        if self._open_calls.is_closing:
            raise ClientClosed("the client was closed: make another EdgegapClient")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends every open call with `ClientClosed`, and closes the connections.

        A session that was passed in stays open. Closing twice does nothing more.

        Raises:
            WrongLoop: the client was first used in another event loop.
        """
        self._open_calls.check_loop(asyncio.get_running_loop())
        closing = Closing(_CLOSE_TIMEOUT)
        await self._end_calls(closing)
        await self._close(closing)
        closing.end()

    async def _end_calls(self, closing: Closing) -> None:
        if not await closing.step(self._open_calls.cancel_all):
            names = sorted({scope.task.get_name() for scope in self._open_calls.open_scopes()})
            logger.warning(
                "close() does not wait longer for tasks: %s",
                ", ".join(names),
                extra=log_fields(tasks=names),
            )

    async def _close(self, closing: Closing) -> None:
        """Does what has to be done when the calls have ended."""
        await closing.step(self._transport.close, is_last=True)

    def until_closed(self) -> CloseScope:
        """Returns a block that `close` ends with `ClientClosed`.

        The block must not contain a `yield`. If its own task awaits `close`, the block goes on.
        """
        return CloseScope(self._open_calls)

    def add_observer(self, observer: Observer) -> None:
        """Registers an observer, which receives what happens from now on.

        Register observers before the first deploy: of a deployment that lives already, an observer
        gets no events, or later ones alone.

        Raises:
            InvalidRequest: `observer` is not an object of `Observer` or of a subclass.
        """
        if not isinstance(observer, Observer):
            raise InvalidRequest(f"observer must be an Observer, not {observer!r}")
        self.observers.add(observer)

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
            query: query parameters; a parameter that is None is not sent.
            body: a model of `api.requests`, an attrs object of your own, or JSON; sent as JSON.
            options: how the call is made.

        Raises:
            InvalidRequest: an argument cannot be sent, or there is no token.
            NotAllowed: the client's guard refuses the call.
            CallError: the call did not succeed; one of its subclasses. `LimitReached` is one where
                the wait exceeds the client's `max_wait`. Stops, and calls whose `options.priority`
                goes before the operation's own, wait without a limit.
            ClientClosed: the client is closed, or was closed during the call.
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
        """Makes a call also while the client closes, before other calls and without `max_wait`."""
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
        request = self.prepare(
            operation, path=path, query=query, body=body, max_bytes=options.max_bytes
        )
        send_state = SendState()
        try:
            return await self.exchange(request, send_state, options)
        except asyncio.CancelledError:
            if send_state.times_sent and isinstance(body, DeployRequest):
                logger.error(  # noqa: TRY400 - the traceback of a cancellation says nothing
                    "%s %s may go on running: %s was cancelled before its answer came, and sends"
                    " no operation tag to find the deployment by; client.deploy does",
                    body.application,
                    body.version,
                    operation.name,
                    extra=log_fields(
                        operation=operation.name,
                        application=body.application,
                        version=body.version,
                    ),
                )
            raise

    def prepare(
        self,
        operation: Operation[Result],
        *,
        path: Mapping[str, str] | None = None,
        query: Mapping[str, object] | None = None,
        body: object = None,
        max_bytes: int = MAX_ANSWER_BYTES,
    ) -> HttpRequest[Result]:
        """Returns the request of a call, for `exchange`.

        Args:
            operation: as for `call`.
            path: as for `call`.
            query: as for `call`.
            body: as for `call`.
            max_bytes: as in `CallOptions`.

        Raises:
            InvalidRequest: an argument cannot be sent.
            NotAllowed: the client's guard refuses the call.
        """
        self._guard.check(operation, body, path)
        return encode(operation, path=path, query=query, body=body, max_bytes=max_bytes)

    async def exchange(
        self,
        request: HttpRequest[Result],
        send_state: SendState,
        options: CallOptions = DEFAULT_OPTIONS,
    ) -> Result:
        """Returns the answer to a request, after as many attempts as the retry policy allows.

        Unlike `call`, it continues while the client closes, so that cleanup can finish.

        Args:
            request: what is sent, as `prepare` has made it.
            send_state: counts how often the request was sent; `is_abandoned` ends the retries.
            options: how the call is made.
        """
        token = token_to_send(options.token or self._token)
        self._guard.check_dry_run(request)
        call = ObservedCall(
            request.operation,
            request.request_id,
            self._transport.base_url + request.path,
            options.operation_tag,
        )
        report = self.observers.report
        report(Observer.call_started, call)
        try:
            result = await self._attempts(call, request, send_state, token, options)
        except BaseException as error:
            report(Observer.call_failed, call, error)
            raise
        report(Observer.call_succeeded, call, result)
        return result

    async def _attempts(
        self,
        call: ObservedCall,
        request: HttpRequest[Result],
        send_state: SendState,
        token: Token,
        options: CallOptions,
    ) -> Result:
        operation = request.operation
        loop = asyncio.get_running_loop()
        connections = self._transport.connection_slots(operation)
        needs_permit = self.limits.has_limit(operation) or self._max_wait is not None
        jittered_waits: Iterator[float] | None = None  # for the first retry
        last_error: CallError | None = None
        began = failed_at = 0.0
        while True:
            queued_at = loop.time()
            permit = self._permit(request, connections, options) if needs_permit else None
            try:
                await (
                    permit.take(front=isinstance(last_error, RateLimited))
                    if permit
                    else connections.acquire()
                )
            except LimitReached as error:
                # The error of an attempt that was sent says more than the rate limit does.
                raise last_error or error from None
            finally:
                sent_at = loop.time()
                call.note_queued(sent_at - queued_at)
            if last_error is not None:
                call.waited += sent_at - failed_at
            began = began or sent_at
            try:
                result = await self._send(call, request, token, send_state, permit)
            except LimitReached as error:  # the connection is open, and the call may not wait
                raise self._not_sent(call, error, last_error) from None
            except CallError as error:
                error.attempts, error.waited = call.attempts, call.waited
                error.maybe_created = (
                    operation.retry_safety is RetrySafety.ONLY_IF_NOT_SENT and is_ambiguous(error)
                )
                if _already_deleted(error, operation, send_state):
                    result = empty_answer(request, error)
                    record_attempts(result, attempts=call.attempts, waited=call.waited)
                    return result
                failed_at = loop.time()
                jittered_waits = jittered_waits or self._retries.waits()
                wait = self._wait_before_retry(
                    call,
                    error,
                    send_state,
                    jittered_waits,
                    elapsed=failed_at - began,
                    permit_taken_at=permit.taken_at if permit else None,
                    once=options.once,
                )
                if wait is None:
                    raise
                # Its traceback would hold this frame: a reference cycle.
                last_error = error.with_traceback(None)
            else:
                self._retry_budget.add_success()
                if call.attempts > 1:
                    record_attempts(result, attempts=call.attempts, waited=call.waited)
                return result
            if wait:
                await asyncio.sleep(wait)

    def _wait_before_retry(
        self,
        call: ObservedCall,
        error: CallError,
        send_state: SendState,
        jittered_waits: Iterator[float],
        *,
        elapsed: float,
        permit_taken_at: float | None,
        once: bool,
    ) -> float | None:
        """Decides whether a call is sent again after an error, and reports the decision.

        Args:
            call: the call, with its attempts so far.
            error: how the last attempt failed.
            send_state: counts how often the request may have been carried out.
            jittered_waits: yields the wait before each next attempt.
            elapsed: seconds since the first attempt.
            permit_taken_at: loop time of the attempt's permit; None without a rate limit.
            once: whether the caller wants one attempt only.

        Returns:
            Seconds before the next attempt; 0 if the limiter delays it; None if there is none.
        """
        operation = call.operation
        # After Retry-After the limiter delays the next attempt, if the operation has a rate limit.
        limit_waits = (
            isinstance(error, RateLimited)
            and self.limits.on_rate_limited(operation, error.retry_after or 0.0, permit_taken_at)
            and error.retry_after is not None
        )
        wait = self._retries.wait_after(
            error,
            operation,
            attempts=call.attempts,
            elapsed=elapsed,
            wait=0.0 if limit_waits else next(jittered_waits),
        )
        if (
            once
            or wait is None
            or send_state.is_abandoned
            or not self._retry_budget.try_spend(error, operation)
        ):
            self.observers.report(Observer.attempt_failed, call, error, None)
            return None
        self.observers.report(Observer.attempt_failed, call, error, wait)
        if send_state.times_sent and not is_ambiguous(error) and not isinstance(error, NotSent):
            send_state.times_sent -= 1  # it was refused, so it changed nothing
        logger.info(
            "%s; the next attempt follows in %.2f s",
            error.reason,
            wait,
            extra=log_fields(error, seconds=wait),
        )
        return 0.0 if limit_waits else wait

    def _not_sent(
        self, call: ObservedCall, error: LimitReached, last_error: CallError | None
    ) -> CallError:
        """Notes that an attempt was not sent after all, and returns what the call raises."""
        self.requests_sent -= 1
        self.observers.report(Observer.attempt_failed, call, error, None)
        return last_error or error

    async def _send(
        self,
        call: ObservedCall,
        request: HttpRequest[Result],
        token: Token,
        send_state: SendState,
        permit: CallPermit | None,
    ) -> Result:
        self.requests_sent += 1
        call.attempts += 1
        call.status = None
        try:
            self.observers.report(Observer.attempt_started, call)
            response = await self._transport.send(request, token, send_state, permit)
        finally:
            self._transport.connection_slots(request.operation).release()
            if permit is not None and permit.waited > call.queued:
                call.note_queued(permit.waited - call.queued, more=True)
        call.status = response.status
        try:
            return decode(request, response)
        except CallError:
            pass
        # The error quotes the answer, and some proxies repeat a header that they refuse.
        try:
            return decode(request, attrs.evolve(response, body=token.hidden_in(response.body)))
        except CallError as error:
            error.args = (token.hidden_in(error.message),)  # it quotes the content type, too
            raise

    def _permit(
        self, request: HttpRequest[Any], connections: asyncio.Semaphore, options: CallOptions
    ) -> CallPermit:
        default = Priority.of(request.operation)
        priority = default if options.priority is None else options.priority
        # Other work waits for a stop, and for a call whose priority was raised.
        is_urgent = default is Priority.STOP or priority < default
        max_wait = None if is_urgent or options.ignore_wait_limit else self._max_wait
        return CallPermit(self.limits, connections, request, priority, max_wait)


def _already_deleted(error: CallError, operation: Operation[Any], send_state: SendState) -> bool:
    """Returns whether a 404 or 410 is the success of a DELETE whose first answer was lost."""
    return (
        isinstance(error, Gone | NotFound)
        and error.is_certain
        and operation.method == "DELETE"
        and operation.retry_safety is RetrySafety.SAFE
        and send_state.times_sent > 1
    )


def _checked_max_wait(on_limit: object, max_wait: float | None) -> float | None:
    if on_limit not in ("wait", "raise"):
        raise InvalidRequest(f'on_limit must be "wait" or "raise", not {on_limit!r}')
    check_number("max_wait", max_wait, least=0)
    if on_limit == "raise":
        if max_wait:
            raise InvalidRequest('on_limit="raise" and max_wait exclude each other: leave one out')
        return 0.0
    return max_wait


def _from_environment(*names: str) -> str | None:
    return next((value for name in names if (value := os.environ.get(name, "").strip())), None)


def _timeouts_from_environment() -> Timeouts:
    text = _from_environment("EDGEGAP_TIMEOUT_MS")
    if text is None:
        return Timeouts()
    if not text.isdecimal() or not int(text):
        raise InvalidRequest(f"EDGEGAP_TIMEOUT_MS must be milliseconds above 0, not {text!r}")
    return Timeouts(total=int(text) / 1000)
