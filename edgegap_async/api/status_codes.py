"""What an HTTP error status says about a request, and which answers come from the API itself.

Problem: proxies and gateways stand between the client and the API, and answer in its place. A proxy
of the Envoy kind sends 408 after it has passed the request on. The live API answers 400 for an
unknown deployment, and so does nginx for a request that it does not like.

Rule: `meaning` judges a status by two questions: did the API act on the request, and may the same
request succeed later? `says_missing` knows the texts in which the API says that a deployment
does not exist. Any other text, and any page that is not JSON, may be a proxy's.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from edgegap_async.errors import (
    BadRequest,
    Conflict,
    Forbidden,
    Gone,
    ImageUnavailable,
    NotFound,
    RateLimited,
    Refused,
    ServerError,
    Unauthorized,
    Unprocessable,
)

from .operations import GET_CONTAINER_LOGS, STOP_DEPLOYMENT, STOP_SELF, Operation


class Effect(enum.Enum):
    """Whether the API acted on a request that got an error status."""

    ACTED = enum.auto()
    """The API acted on it: a 422 names the deployment that the deploy created."""
    NOT_ACTED = enum.auto()
    """The API did not act on it."""
    UNKNOWN = enum.auto()
    """The API may have acted on it."""


class StatusMeaning(NamedTuple):
    """What an error status says about a request."""

    effect: Effect
    """Whether the API acted on the request."""
    is_transient: bool
    """Whether the same request may succeed later."""


_FINAL: Final = StatusMeaning(Effect.NOT_ACTED, is_transient=False)
_LATER: Final = StatusMeaning(Effect.NOT_ACTED, is_transient=True)
_AMBIGUOUS: Final = StatusMeaning(Effect.UNKNOWN, is_transient=True)

_MEANINGS: Final = {
    408: _AMBIGUOUS,  # Envoy: the API was slow to answer a request that was passed on
    421: _LATER,  # the request came on a connection for another host
    422: StatusMeaning(Effect.ACTED, is_transient=False),
    423: _LATER,  # another request has locked the deployment
    425: _LATER,  # the proxy passes no early data on
    429: _LATER,
    499: _AMBIGUOUS,  # nginx: its own client left after the request was passed on
}
_CONFLICT: Final = 409  # to a stop: the deployment is in a state that a stop has to wait for

_UNKNOWN_ID_TEXT: Final = "bad request id"  # "Bad Request ID provided": the live API, with 400
_GONE: Final = 410
_ENDED_TEXT: Final = "terminated"  # with 410
_UNKNOWN_LOGS_TEXT: Final = "could not understand"  # the live API, for the logs of an unknown id

OFTEN_FROM_PROXY: Final = frozenset({400, 401, 403, 404, 410, 421})
"""Statuses that say something about a deployment or a token, and that proxies send too."""


_ERRORS: Final[Mapping[int, type[Refused]]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    422: Unprocessable,
    424: ImageUnavailable,
    429: RateLimited,
}


def refusal(status: int) -> type[Refused]:
    """Returns the class of error for an HTTP error status (400 to 599)."""
    return _ERRORS.get(status) or (ServerError if status >= 500 else Refused)  # noqa: PLR2004 - 5xx


def meaning(status: int, operation: str = "") -> StatusMeaning:
    """Returns what an HTTP error status says about a request.

    Args:
        status: the status, 400 to 599.
        operation: name of the operation; empty for any.
    """
    if status >= 500:  # noqa: PLR2004 - 5xx
        return _AMBIGUOUS
    if status == _CONFLICT and operation in {STOP_DEPLOYMENT.name, STOP_SELF.name}:
        return _LATER
    return _MEANINGS.get(status, _FINAL)


def says_missing(operation: Operation[Any], status: int, content: Mapping[str, object]) -> bool:
    """Returns whether an answer says in the API's words that a deployment is unknown or has ended.

    Args:
        operation: what was called.
        status: 400, 404 or 410.
        content: the JSON of the answer.
    """
    text = str(content.get("message")).lower()
    if status == _GONE:
        return _ENDED_TEXT in text
    return _UNKNOWN_ID_TEXT in text or (
        operation is GET_CONTAINER_LOGS and _UNKNOWN_LOGS_TEXT in text
    )
