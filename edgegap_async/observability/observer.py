"""The base class of observers, and the list of observers that one client reports to.

A call has one start and one end, and between them one attempt or more::

    call_started
        attempt_started     once its rate limit and a connection let the attempt go
        attempt_failed      when another attempt follows, or the call fails with it
    call_succeeded or call_failed

All events of one call carry the same `ObservedCall`. Its identity links the events, so an adapter
for tracing keeps the span of a call, and the span of its newest attempt, in a dictionary by call.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final, TypeVarTuple

from edgegap_async.api.operations import Operation
from edgegap_async.concurrency import raise_in_loop

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

    def __init__(self, operation: Operation[Any], request_id: str | None, url: str) -> None:
        self.operation = operation
        self.request_id = request_id
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


class Observer:
    """Receives the events of each call of a client. Subclass it and override the events you need.

    Register it with `client.add_observer`. The client calls the methods in the task of the call, so
    they must return quickly and must not block. An exception in a method does not change the call;
    the client logs the first exception of each observer. The first SystemExit or KeyboardInterrupt
    leaves the event loop after that, as from a callback of the loop.
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


_EVENTS: Final = (
    Observer.call_started,
    Observer.attempt_started,
    Observer.attempt_failed,
    Observer.call_succeeded,
    Observer.call_failed,
)


class Observers:
    """The observers of one client."""

    def __init__(self) -> None:
        # An event has the methods of the observers that override it, so an unused event is cheap.
        self._methods: dict[
            Callable[..., None], tuple[tuple[Observer, Callable[..., None]], ...]
        ] = dict.fromkeys(_EVENTS, ())
        self._is_exiting = False  # whether an observer has raised SystemExit or KeyboardInterrupt
        self._failed = set[int]()  # ids of the observers whose exception was logged

    def add(self, observer: Observer) -> None:
        """Registers an observer; it receives every event from now on."""
        for event in _EVENTS:
            method = getattr(observer, event.__name__)
            if getattr(method, "__func__", None) is not event:
                self._methods[event] += ((observer, method),)

    def report(self, event: Callable[[Any, *Details], None], *details: *Details) -> None:
        """Calls one method of all observers.

        Args:
            event: the method of `Observer`, such as `Observer.call_started`.
            details: its arguments.
        """
        for observer, method in self._methods[event]:
            try:
                method(*details)
            except (Exception, SystemExit, KeyboardInterrupt) as error:
                if not isinstance(error, Exception) and not self._is_exiting:
                    self._is_exiting = True
                    raise_in_loop(error)  # the call goes on: it may have made a deployment
                if id(observer) not in self._failed:
                    self._failed.add(id(observer))
                    text = "observer %r raised in %s; its later exceptions are not logged"
                    logger.exception(text, observer, event.__name__)
