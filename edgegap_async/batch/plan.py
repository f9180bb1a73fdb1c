"""What is asked of many deployments, and what becomes of each: the words of `deploy_many`."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from typing import Any, ClassVar, Literal, TypeAlias

import attrs

from edgegap_async.api.models import Status
from edgegap_async.api.requests import DeployRequest, deploy_request
from edgegap_async.api.validation import is_coroutine_function, number
from edgegap_async.deployments.handle import DeploymentHandle
from edgegap_async.deployments.playable import PlayableCheck, as_check
from edgegap_async.errors import EdgegapError, InvalidRequest

__all__ = [
    "AnyRequest",
    "AnyRequests",
    "BatchItem",
    "BatchOptions",
    "FailurePolicy",
    "Outcome",
    "Progress",
]

AnyRequest: TypeAlias = DeployRequest | Mapping[str, Any]
"""What to deploy: the request, or a mapping with its fields, such as a line of a queue."""

AnyRequests: TypeAlias = Iterable[AnyRequest] | AsyncIterable[AnyRequest]

FailurePolicy: TypeAlias = Literal["stop_failed", "keep_going", "stop_all"]
"""What a failure does. In all cases it is told, with its error, as that request's outcome.

- `stop_failed`: what failed is stopped, the others go on.
- `keep_going`: what failed is handed over as it is, to read its logs; the others go on.
- `stop_all`: all is stopped that was not handed over; what befell the others is `BatchStopped`.
"""


@attrs.frozen(kw_only=True)
class Outcome:
    """What became of one request."""

    index: int
    """Its place among the requests, from 0."""
    request: DeployRequest | Any
    """As it was deployed last; one that cannot be sent is here as it was given."""
    handle: DeploymentHandle | None = None
    """Its deployment; None if there was none."""
    error: EdgegapError | None = None
    """Why it is not READY; None if it is."""
    seconds: float | None = None
    """From its first deploy, waiting for the limits included, to READY; None if it is not."""
    attempts: int = 0
    """How many times it was deployed."""

    @property
    def is_ready(self) -> bool:
        """Whether players can connect."""
        return self.error is None

    def result(self) -> DeploymentHandle:
        """The server, if it is READY.

        Raises:
            EdgegapError: it is not; this is why.
        """
        if self.error is not None:
            raise self.error
        assert self.handle is not None  # noqa: S101 - it is READY
        return self.handle


@attrs.frozen(kw_only=True)
class Progress:
    """How far a batch has come."""

    total: int | None
    """Requests in all; None while they come from an iterator that has not ended."""
    waiting: int | None
    """Requests that are not worked on yet; None as for `total`."""
    under_way: Mapping[Status | None, int]
    """Those that are worked on, by the newest status; None for those not accepted or seen yet."""
    ready: int
    failed: int
    elapsed: float
    """Seconds since the batch began."""
    rate: float
    """Outcomes a second, over the last ten seconds."""

    @property
    def done(self) -> int:
        """How many have an outcome."""
        return self.ready + self.failed

    @property
    def time_left(self) -> float | None:
        """Seconds until the last outcome, at this rate; None if that cannot be told."""
        if self.total is None:
            return None
        left = self.total - self.done
        return left / self.rate if self.rate else (None if left else 0.0)


def _policy(self: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    del self
    if value not in {"stop_failed", "keep_going", "stop_all"}:
        raise InvalidRequest(
            f"{attribute.name} is stop_failed, keep_going or stop_all, not {value!r}"
        )


@attrs.frozen(kw_only=True)
class BatchOptions:
    """How a batch goes about it; `client.deploy_many` documents each."""

    made_by: ClassVar[str] = "deploy_many"

    concurrency: int = attrs.field(validator=number(above=0, whole=True))
    timeout: float | None = attrs.field(validator=number(above=0, optional=True))
    timeout_each: float | None = attrs.field(validator=number(above=0, optional=True))
    on_failure: FailurePolicy = attrs.field(validator=_policy)
    attempts: int = attrs.field(validator=number(above=0, whole=True))
    retry_with: Callable[[DeployRequest, EdgegapError], DeployRequest] | None
    playable: PlayableCheck | None = attrs.field(converter=attrs.converters.optional(as_check))
    on_progress: Callable[[Progress], object] | None
    stop_at_end: bool

    def __attrs_post_init__(self) -> None:
        if self.retry_with is not None and not callable(self.retry_with):
            raise InvalidRequest(f"retry_with is a function, not {self.retry_with!r}")
        if self.retry_with is not None and self.attempts == 1:
            raise InvalidRequest(
                "retry_with is asked before a second attempt: attempts is 2 or more"
            )
        if self.on_progress is not None and (
            not callable(self.on_progress) or is_coroutine_function(self.on_progress)
        ):
            raise InvalidRequest(
                f"on_progress is a function, and no coroutine: {self.on_progress!r}"
            )


@attrs.frozen
class BatchItem:
    """One of the requests."""

    index: int
    """Its place among them, from 0."""
    given: Any
    """As it is deployed; as it was given if it cannot be."""
    error: InvalidRequest | None = None
    """Why it cannot be sent, if it cannot."""

    @classmethod
    def of(cls, index: int, given: object) -> BatchItem:
        """A request that was checked."""
        try:
            return cls(index, _as_request(given))
        except (InvalidRequest, TypeError) as error:
            message = error.message if isinstance(error, InvalidRequest) else str(error)
            return cls(index, given, InvalidRequest(f"requests[{index}]: {message}"))


def _as_request(given: object) -> DeployRequest:
    if isinstance(given, DeployRequest):
        return given
    if not isinstance(given, Mapping):
        raise InvalidRequest(f"a DeployRequest or a mapping is needed, not {given!r}")
    return deploy_request(given)
