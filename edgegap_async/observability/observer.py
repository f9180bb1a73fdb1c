"""The base class of observers, what they observe, and the observers that one client reports to.

A call has one start and one end, and between them one attempt or more::

    call_started
        attempt_started     once its rate limit and a connection let the attempt go
        attempt_failed      when another attempt follows, or the call fails with it
    call_succeeded or call_failed

All events of one call carry the same `ObservedCall`. Its identity links the events, so an adapter
for tracing keeps the span of a call, and the span of its newest attempt, in a dictionary by call.

A deployment that the client has deployed or adopted has a life, whose events carry the same
`ObservedDeployment`::

    deployment_created or deployment_adopted
        deployment_ready    once, if a task waits for it
        deployment_lost     if a stop fails for good, so that it may go on running
    deployment_stopped
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, TypeVarTuple

import attrs

from edgegap_async.api.models import StatusChange
from edgegap_async.api.operations import Operation
from edgegap_async.api.requests import as_variables
from edgegap_async.api.values import Shown
from edgegap_async.concurrency import raise_in_loop
from edgegap_async.errors import log_fields

# Upper bounds of the buckets of histograms, in seconds.
LIMIT_WAIT_BUCKETS: Final = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
READY_BUCKETS: Final = (1, 2, 3, 5, 7.5, 10, 15, 20, 30, 60, 120, 300)

Details = TypeVarTuple("Details")

logger = logging.getLogger(__name__)


class ObservedCall:
    """The state of one call of the API. Holds no token, no query and no body.

    The client updates it between events; an observer only reads it.
    """

    # Not an attrs class: each call makes an object, and this constructor costs a third less.
    __slots__ = (
        "attempts",
        "operation",
        "operation_tag",
        "queued",
        "queued_total",
        "request_id",
        "status",
        "url",
        "waited",
    )

    operation: Operation[Any]
    """The operation that is called: its name, HTTP method and path template."""
    request_id: str | None
    """The deployment that the call is about; None if it names none, as a deploy or a list."""
    operation_tag: str | None
    """The random tag of a deploy, as in `ObservedDeployment`; None for other calls, and for a
    deploy without one."""
    url: str
    """The URL without its query, which may hold names and ids of other deployments."""
    attempts: int
    """Number of the newest attempt, from 1; 0 before the first attempt."""
    queued: float
    """Seconds that the newest attempt waited for its rate limit and for one of the operation's
    connections, also if it was given up. At its end with the second wait for the rate limit, after
    a connection was opened; without the time that opening took."""
    queued_total: float
    """The `queued` of all attempts so far, added up."""
    waited: float
    """Seconds from each failed attempt to the attempt after it, added up."""
    status: int | None
    """HTTP status of the newest answer; None if the newest attempt has no answer."""

    def __init__(
        self,
        operation: Operation[Any],
        request_id: str | None,
        url: str,
        operation_tag: str | None = None,
    ) -> None:
        self.operation = operation
        self.request_id = request_id
        self.operation_tag = operation_tag
        self.url = url
        self.attempts = 0
        self.queued = self.queued_total = self.waited = 0.0
        self.status = None

    def note_queued(self, seconds: float, *, more: bool = False) -> None:
        """Adds a wait for the rate limit; the client calls it.

        Args:
            seconds: how long it was.
            more: whether the newest attempt waits for the second time.
        """
        self.queued = self.queued + seconds if more else seconds
        self.queued_total += seconds

    @property
    def resend_count(self) -> int:
        """How often the request was sent again, 0 or more."""
        return max(0, self.attempts - 1)


@attrs.define(eq=False, repr=False)
class ObservedDeployment(Shown):
    """The life of one deployment. The client updates it between events; an observer only reads it.

    `client.deploy`, `client.run`, batches and pools have such deployments. A deployment of
    `client.deployments.deploy` is the program's own.
    """

    application: str | None = None
    """The name of its application; None if this client has adopted it."""
    version: str | None = None
    """The name of its application version; None if this client has adopted it."""
    operation_tag: str | None = None
    """The random tag of its deploy; None if this client has adopted it."""
    request_id: str | None = None
    """The id that the API has given to it; None while a deploy is in progress, and if the answer
    was lost."""
    accepted_at: float | None = None
    """When the client learnt that the API has accepted the deploy, by the clock of the event loop
    in seconds; None if this client has adopted it."""
    ready_after: float | None = None
    """Seconds from `accepted_at` until the client found it READY; None before, and if this client
    has adopted it."""
    source: Literal["status", "list", "webhook"] | None = None
    """The request that found it READY, as `StatusChange.source`; None before."""


class Observer:
    """Receives what happens in a client. Subclass it and override the events you need.

    Register it with `client.add_observer`. The client calls the methods in the task where something
    happens, so they must return quickly and must not block. An exception in a method, also
    `asyncio.CancelledError`, changes nothing; the client logs the first exception of each observer.
    The first SystemExit or KeyboardInterrupt leaves the event loop after that, as from a callback
    of the loop.
    """

    def call_started(self, call: ObservedCall) -> None:
        """The call was checked and is about to queue for its rate limit."""

    def attempt_started(self, call: ObservedCall) -> None:
        """Attempt number `call.attempts` is about to be sent, after `call.queued` seconds."""

    def attempt_failed(self, call: ObservedCall, error: Exception, retry_in: float | None) -> None:
        """Attempt number `call.attempts` failed.

        Args:
            call: the call.
            error: what happened, a `CallError`.
            retry_in: seconds until the next attempt, 0 where the rate limit decides when; None if
                there is none, and `call_failed` follows.
        """

    def call_succeeded(self, call: ObservedCall, result: object) -> None:
        """The call and its newest attempt succeeded.

        Args:
            call: the call.
            result: what the caller gets, as `operation.returns` says.
        """

    def call_failed(self, call: ObservedCall, error: BaseException) -> None:
        """The call failed, and so did an attempt that has not ended yet.

        Args:
            call: the call.
            error: what the caller gets, such as a `CallError`; `asyncio.CancelledError` where the
                task was cancelled or the client was closed.
        """

    def webhook_received(self, request_id: str) -> None:
        """A webhook has come to the URL of a deployment, whose next status request is due at once.

        The call comes in the task that serves the webhook. One that came before the answer to the
        deploy is reported after that answer.
        """

    def status_changed(self, request_id: str, change: StatusChange) -> None:
        """The client has learnt a new status of a deployment that it waits for.

        Args:
            request_id: id of the deployment, which another program may have deployed.
            change: the status, and the kind of request that has found it.
        """

    def deployment_created(self, deployment: ObservedDeployment) -> None:
        """The API has accepted a deploy of this client."""

    def deployment_adopted(self, deployment: ObservedDeployment) -> None:
        """The client has taken over a deployment that no deploy of this client has returned.

        It is one of an earlier run for a pool, one of another program with the same idempotency
        key, or one that the client stops because a deploy has failed or was carried out twice.
        """

    def deployment_ready(self, deployment: ObservedDeployment) -> None:
        """The client has found a deployment READY, `deployment.ready_after` its deploy."""

    def deployment_stopped(
        self, deployment: ObservedDeployment, by: Literal["client", "other"]
    ) -> None:
        """A deployment is over, as far as this client can bring that about or know it.

        Args:
            deployment: the deployment.
            by: "client": the API has accepted a stop of this client. "other": it says that the
                deployment is over, because it has stopped itself, another program has stopped it,
                or it has reached its maximum duration.
        """

    def deployment_lost(self, deployment: ObservedDeployment) -> None:
        """A deployment may go on running: a stop has failed for good, or a deploy has no answer.

        `deployment.request_id` is None if the answer to the deploy was lost: the deployment, if it
        exists, has the tag `deployment.operation_tag`. The log has the reason.
        """

    def environment(self) -> Mapping[str, str]:
        """Returns variables for the environment of the game server that is about to be deployed.

        Each deploy of `client.deploy`, `client.run`, batches and pools asks in the task of its
        caller. A variable that the deploy sets itself goes before one of an observer. A name or
        value that a deploy cannot have counts as an exception: then none of them is set.
        """
        return {}


_EVENTS: Final[tuple[Callable[..., Any], ...]] = tuple(
    event for name, event in vars(Observer).items() if not name.startswith("_")
)


class Observers:
    """The observers of one client.

    Attributes:
        see_deployments: whether an observer wants the events of the lives of deployments.
    """

    def __init__(self) -> None:
        # An event has the methods of the observers that override it, so an unused event is cheap.
        self._methods: dict[Callable[..., Any], tuple[tuple[Observer, Callable[..., Any]], ...]] = (
            dict.fromkeys(_EVENTS, ())
        )
        self.see_deployments = False
        self._is_exiting = False  # whether an observer has raised SystemExit or KeyboardInterrupt
        self._failed = set[int]()  # ids of the observers whose exception was logged

    def add(self, observer: Observer) -> None:
        """Registers an observer; it receives every event from now on."""
        for event in _EVENTS:
            method = getattr(observer, event.__name__)
            if getattr(method, "__func__", None) is not event:
                self._methods[event] += ((observer, method),)
                self.see_deployments |= event.__name__.startswith("deployment_")

    def report(self, event: Callable[[Any, *Details], None], *details: *Details) -> None:
        """Calls one method of all observers.

        Args:
            event: the method of `Observer`, such as `Observer.call_started`.
            details: its arguments.
        """
        for observer, method in self._methods[event]:
            try:
                method(*details)
            except BaseException as error:  # noqa: BLE001 - logged
                self._note_failure(observer, event, error)

    def environment(self) -> dict[str, str]:
        """Returns the variables that all observers want in the environment of a game server."""
        variables = dict[str, str]()
        for observer, method in self._methods[Observer.environment]:
            try:
                wanted = as_variables(method())
            except BaseException as error:  # noqa: BLE001 - logged
                self._note_failure(observer, Observer.environment, error)
            else:
                variables.update({variable.key: variable.value for variable in wanted})
        return variables

    def _note_failure(
        self, observer: Observer, event: Callable[..., object], error: BaseException
    ) -> None:
        if not isinstance(error, Exception) and not self._is_exiting:
            self._is_exiting = True
            raise_in_loop(error)  # the call goes on: it may have made a deployment
        if id(observer) not in self._failed:
            self._failed.add(id(observer))
            text = "observer %r raised in %s; its later exceptions are not logged"
            fields = log_fields(error, observer=type(observer).__name__, callback=event.__name__)
            logger.error(text, observer, event.__name__, exc_info=error, extra=fields)
