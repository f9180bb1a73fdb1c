"""What a batch is asked to do, and what it reports: the data types of `deploy_many`."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, ClassVar, Literal, TypeAlias

import attrs

from edgegap_async.api.models import Status
from edgegap_async.api.requests import DeployRequest, FleetDeployRequest, deploy_request
from edgegap_async.api.validation import is_coroutine_function, number, one_of, unknown_name
from edgegap_async.api.values import Documented
from edgegap_async.deployments.handle import DeploymentHandle
from edgegap_async.deployments.playable import PlayableCheck, as_check
from edgegap_async.errors import EdgegapError, InvalidRequest

AnyRequest: TypeAlias = DeployRequest | Mapping[str, Any]
"""One request of a batch: a `DeployRequest`, or a mapping with its fields, such as parsed JSON."""

AnyRequests: TypeAlias = Iterable[AnyRequest] | AsyncIterable[AnyRequest]
"""The requests of a batch: a collection, or an iterator or async iterator that need not end."""

FailurePolicy: TypeAlias = Literal["stop_failed", "keep_going", "stop_all"]
"""What a batch does when a request fails. Each policy reports the error in the request's outcome.

- `stop_failed`: stops the failed deployment; the other requests go on.
- `keep_going`: hands over the failed deployment, for example to read its logs; the other requests
  go on.
- `stop_all`: stops every deployment that was not handed over; the other outcomes hold a
  `BatchStopped`.
"""


@attrs.frozen(kw_only=True)
class Outcome(Documented):
    """The result of one request of a batch."""

    index: int
    """The position of the request among the requests, from 0."""
    request: AnyRequest
    """The request as last deployed; an invalid one as the caller gave it."""
    handle: DeploymentHandle | None = None
    """The deployment; None if the request made none."""
    error: EdgegapError | None = None
    """Why the deployment is not READY; None if it is READY."""
    seconds: float | None = None
    """Seconds from the first deploy to READY, waits for rate limits included; None on an error."""
    accepted_at: datetime | None = None
    """When the API's answer to the last deploy came, in UTC; None if it made no deployment."""
    ready_at: datetime | None = None
    """When the program learnt that the deployment is READY, in UTC; None on an error."""
    attempts: int = 0
    """How many deploys were sent, retries of one deploy not counted; 0 if none was sent."""

    @property
    def is_ready(self) -> bool:
        """Whether the deployment is READY, and playable if the batch has a check for that."""
        return self.error is None

    def result(self) -> DeploymentHandle:
        """Returns the deployment if it is READY.

        Raises:
            EdgegapError: the outcome's `error`.
        """
        if self.error is not None:
            raise self.error
        assert self.handle is not None  # noqa: S101 - a READY outcome has a handle
        return self.handle


@attrs.frozen(kw_only=True)
class Progress(Documented):
    """The state of a batch at one moment."""

    total: int | None
    """Requests in all; None while they come from an iterator that has not ended."""
    waiting: int | None
    """Requests whose deploy was not sent: those that were not begun, or queue for the rate limit.
    None while `total` is None."""
    under_way: Mapping[Status | None, int]
    """Requests whose deploy was sent, counted by the newest status of their deployment. The key
    None counts requests whose deployment was not accepted, or has no known status yet."""
    ready: int
    """Outcomes that are READY."""
    failed: int
    """Outcomes with an error."""
    elapsed: float
    """Seconds since the batch began, or that the batch took if it has ended."""
    rate: float
    """Outcomes a second, over the last ten seconds."""

    @property
    def done(self) -> int:
        """Requests with an outcome."""
        return self.ready + self.failed

    @property
    def time_left(self) -> float | None:
        """Seconds until the last outcome at the present rate; None if total or rate is unknown."""
        if self.total is None:
            return None
        left = self.total - self.done
        return left / self.rate if self.rate else (None if left else 0.0)


@attrs.frozen(kw_only=True)
class BatchOptions:
    """The options of a batch; `client.deploy_many` documents each."""

    made_by: ClassVar[str] = "deploy_many"

    concurrency: int = attrs.field(validator=number(above=0, whole=True))
    timeout: float | None = attrs.field(validator=number(above=0, optional=True))
    timeout_each: float | None = attrs.field(validator=number(above=0, optional=True))
    on_failure: FailurePolicy = attrs.field(
        validator=one_of("stop_failed", "keep_going", "stop_all")
    )
    attempts: int = attrs.field(validator=number(above=0, whole=True))
    retry_with: Callable[[DeployRequest, EdgegapError], DeployRequest] | None
    playable: PlayableCheck | None = attrs.field(converter=attrs.converters.optional(as_check))
    on_progress: Callable[[Progress], object] | None
    stop_at_end: bool

    def __attrs_post_init__(self) -> None:
        if self.retry_with is not None and not callable(self.retry_with):
            raise InvalidRequest(f"retry_with must be a function, not {self.retry_with!r}")
        if self.retry_with is not None and self.attempts == 1:
            raise InvalidRequest("retry_with needs a second attempt: pass attempts=2 or more")
        if self.on_progress is not None and (
            not callable(self.on_progress) or is_coroutine_function(self.on_progress)
        ):
            raise InvalidRequest(
                f"on_progress must be a function, not a coroutine function: {self.on_progress!r}"
            )


@attrs.frozen
class BatchItem:
    """One checked request of a batch."""

    index: int
    """The position of the request among the requests, from 0."""
    request: Any
    """The `DeployRequest`; an invalid request as the caller gave it."""
    error: InvalidRequest | None = None
    """Why the request is invalid; None if it is valid."""

    @classmethod
    def of(cls, index: int, given: object) -> BatchItem:
        """Checks one request of the caller."""
        try:
            return cls(index, _as_request(given))
        except (InvalidRequest, TypeError) as error:
            message = error.message if isinstance(error, InvalidRequest) else str(error)
            return cls(index, given, InvalidRequest(f"requests[{index}]: {message}"))


def _as_request(given: object) -> DeployRequest:
    if isinstance(given, DeployRequest):
        return given
    if not isinstance(given, Mapping):
        raise InvalidRequest(f"a request must be a DeployRequest or a mapping, not {given!r}")
    if "idempotency_key" in given:
        raise InvalidRequest("a batch takes no idempotency_key: use client.deploy or client.run")
    known = [field.name for field in attrs.fields(FleetDeployRequest)]
    for name in given:
        if name not in known:
            raise InvalidRequest(f"no field {name}; {unknown_name(name, known)}")
    for name in ("application", "version", "users"):
        if name not in given:
            raise InvalidRequest(f"{name} is missing")
    return deploy_request(given)
