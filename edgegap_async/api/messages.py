"""HTTP requests and responses as values: what a call sends, and what a response means.

`encode` makes the request of a call. `decode` returns the model of a response or raises the error
that the response means. Neither knows the token.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, Generic, TypeVar
from urllib.parse import quote, urlencode

import attrs

from edgegap_async.errors import (
    BadRequest,
    CallError,
    ImageUnavailable,
    InvalidRequest,
    NotFound,
    Refused,
    UnreadableAnswer,
)

from .codec import check_answer_model, dumps, format_time, read_answer, read_object, to_json
from .models import Deployment
from .operations import Operation, RetrySafety
from .status_codes import OFTEN_FROM_PROXY, Effect, meaning, refusal, says_missing
from .validation import check_kind, check_segment, is_segment
from .values import HIDDEN_NAMES, Value, one_line

Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)

# Compiled at its first use: that takes as long as the import of some modules.
_SECRET_VALUE: Final = (
    rf'("[^"\\]*(?:{HIDDEN_NAMES})[^"\\]*"\s*:\s*)("(?:[^"\\]|\\.)*"?|[\[{{].*|[^\s",}}\]]+)'
)
MAX_ANSWER_BYTES: Final = 8 * 2**20
"""The largest body of a response, in bytes after decompression, unless the call sets another."""
MAX_RETRY_AFTER: Final = 60.0
"""Seconds; a longer `Retry-After` is probably a mistake and is cut to this."""


# ── requests as values ───────────────────────────────────────────────────────────────────────────


# The next two classes are not frozen, and `encode` and the transport pass their fields by position:
# each call makes one of each, in a sixth of the time.
@attrs.define(eq=False, repr=False)
class HttpRequest(Value, Generic[Result_co]):
    """A request without its token, which the transport adds."""

    operation: Operation[Result_co]
    """The call."""
    path: str
    """The path of the URL, percent-encoded."""
    query: str = ""
    """The query of the URL, percent-encoded; empty for none."""
    body: bytes | None = attrs.field(default=None, repr=False)
    """The body as JSON; None for a call without one."""
    request_id: str | None = None
    """The deployment that the path names; None if it names none."""
    max_bytes: int = MAX_ANSWER_BYTES
    """The maximum size of the response's body in bytes, after decompression."""

    @property
    def target(self) -> str:
        """Path and query of the URL."""
        return f"{self.path}?{self.query}" if self.query else self.path

    def facts(self, status: int | None = None) -> dict[str, Any]:
        """The keyword arguments of a `CallError` about this request.

        Args:
            status: HTTP status of the response; None if none came.
        """
        return {
            "operation": self.operation.name,
            "method": self.operation.method,
            "path": self.path,
            "status": status,
            "request_id": self.request_id,
        }


@attrs.define(eq=False, repr=False)
class HttpResponse(Value):
    """A complete response."""

    status: int
    """The HTTP status."""
    headers: Mapping[str, str] = attrs.field(repr=False)
    """The headers, by name in any case."""
    body: bytes = attrs.field(repr=False)
    """The body, decompressed."""


def encode(
    operation: Operation[Result],
    *,
    path: Mapping[str, str] | None = None,
    query: Mapping[str, object] | None = None,
    body: object = None,
    max_bytes: int = MAX_ANSWER_BYTES,
) -> HttpRequest[Result]:
    """Returns the request of a call.

    Args:
        operation: the call.
        path: the arguments in its path, by name.
        query: its query parameters; those with the value None are omitted.
        body: an instance of `operation.body`, or None.
        max_bytes: the maximum size of the response's body in bytes.

    Raises:
        InvalidRequest: an id or name is missing or would change the path, the body is of another
            type or cannot be written as JSON, or `operation.returns` cannot be read.
    """
    check_answer_model(operation.returns)
    if body is not None and operation.body is not None:
        check_kind(f"the body of {operation.name}", body, operation.body)
    segments = {
        name: (_segments if name in operation.slashes else _segment)(name, value)
        for name, value in (path or {}).items()
    }
    try:
        encoded_path = operation.path.format_map(segments)
    except KeyError as missing:
        raise InvalidRequest(f"{operation.name} needs path={{{missing}: …}}") from None
    return HttpRequest(
        operation,
        encoded_path,
        _query(query) if query else "",
        None if body is None else _json_of(operation, body),
        (path or {}).get("request_id"),
        max_bytes,
    )


def _json_of(operation: Operation[Any], body: object) -> bytes:
    """Returns a body as JSON. The error does not show the body, which may hold secrets."""
    try:
        return dumps(to_json(body), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        reason = type(error).__name__
    raise InvalidRequest(f"the body of {operation.name} cannot be written as JSON ({reason})")


def _segment(name: str, value: object) -> str:
    if isinstance(value, str) and 0 < len(value) < 128 and value.isascii() and value.isalnum():  # noqa: PLR2004 - as in check_segment
        return value  # a shortcut that every request_id takes
    return quote(check_segment(name, value), safe="")


def _segments(name: str, value: object) -> str:
    if not isinstance(value, str):
        return _segment(name, value)
    return "/".join(_segment(name, part) for part in value.split("/"))


def _query(values: Mapping[str, object]) -> str:
    sent = {name: _query_text(name, value) for name, value in values.items() if value is not None}
    # A query may contain commas and colons (RFC 3986), which makes a list of ids shorter.
    return urlencode(sent, quote_via=quote, safe=",:")


def _query_text(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    text = format_time(value) if isinstance(value, datetime) else str(value)
    if not text.isprintable():
        raise InvalidRequest(f"{name} must not hold control characters: {text!r}")
    return text


def decode(request: HttpRequest[Result], response: HttpResponse) -> Result:
    """Returns the model of a response.

    Raises:
        Refused: the API answered with an error status; a subclass of it.
        UnreadableAnswer: the answer lacks a required field, is not JSON, or is a redirect.
    """
    if response.status not in request.operation.ok:
        raise _error_of(request, response)
    try:
        answer = read_answer(request.operation.returns, response.body)
    except ValueError as error:
        reason = str(error)
    else:
        if not isinstance(answer, Deployment) or answer.request_id == request.request_id:
            return answer
        reason = "the answer is about another deployment"  # a cache has mixed them up
    # Raised outside of the `except` block, the error has no context whose frames show the answer.
    raise _unreadable_answer(request, response, reason)


def empty_answer(request: HttpRequest[Result], error: CallError) -> Result:
    """Returns the answer to a DELETE that has succeeded although its answer was lost.

    Args:
        request: the DELETE.
        error: the answer to its repetition, which says that there is nothing to delete.

    Raises:
        CallError: `error`, if the answer's model needs more than the request says.
    """
    content = {} if request.request_id is None else {"request_id": request.request_id}
    try:
        answer = read_answer(request.operation.returns, dumps(content))
    except ValueError:
        raise error from None
    return answer


def _unreadable_answer(
    request: HttpRequest[Any], response: HttpResponse, reason: str
) -> UnreadableAnswer:
    content_type = one_line(response.headers.get("Content-Type", "no content type"))
    message = f"{reason} ({content_type}: {_start_of(response.body)!r})"
    return UnreadableAnswer(message, **request.facts(response.status))


def _error_of(request: HttpRequest[Any], response: HttpResponse) -> CallError:
    facts = request.facts(response.status)
    if response.status < 400:  # noqa: PLR2004 - neither a documented success nor an error
        return UnreadableAnswer("the call does not document this status", **facts)
    content: dict[str, Any] | None = None
    with contextlib.suppress(ValueError):
        content = read_object(response.body)
    if content is None and response.body.strip() and _is_probably_from_proxy(request, response):
        # Taken as the API's word, it would end a wait for a server that runs.
        return _unreadable_answer(request, response, "the answer is not in the API's format")
    is_certain = content is not None or response.status not in OFTEN_FROM_PROXY
    content = content or {}
    made = content.get("request_id")
    # Gateways put an id of their own there, that of the request.
    if (
        meaning(response.status).effect is Effect.ACTED
        and request.request_id is None
        and is_segment(made)
    ):
        facts["request_id"] = made
    kind: type[Refused] = refusal(response.status)
    if kind is BadRequest and _says_login_failed(request.operation, content):
        kind = ImageUnavailable
    if response.status in {400, 404, 410} and "{request_id}" in request.operation.path:
        if says_missing(request.operation, response.status, content):
            # The live API answers 400 where it documents 404.
            kind = NotFound if kind is BadRequest else kind
        elif _can_only_refuse_the_id(request, response.status):
            is_certain = False
    error = kind(_error_text(content, response), **facts)
    error.is_certain = is_certain
    if meaning(response.status).is_transient:
        error.retry_after = _retry_after(response.headers)
    return error


def _is_probably_from_proxy(request: HttpRequest[Any], response: HttpResponse) -> bool:
    """Returns whether a page that is not JSON hides whether the API would have answered."""
    if response.status not in OFTEN_FROM_PROXY:
        return False
    if response.status in {401, 403, 421}:
        return request.operation.retry_safety is RetrySafety.SAFE
    return "{" in request.operation.path  # it names a deployment or another object


def _can_only_refuse_the_id(request: HttpRequest[Any], status: int) -> bool:
    """Returns whether the API has no other reason for a status than a missing deployment."""
    if status == 410:  # noqa: PLR2004 - an HTTP status
        return True
    if "{tag_name}" in request.operation.path or request.body is not None:
        return False
    return status == 404 or not request.query  # noqa: PLR2004 - an HTTP status


def _says_login_failed(operation: Operation[Any], content: Mapping[str, object]) -> bool:
    """Returns whether the API refuses the credentials of an image, for which it answers 400."""
    saves_image = operation.name in {"create_version", "update_version"}
    return saves_image and "login with the given credentials" in str(content.get("message"))


def _error_text(content: Mapping[str, object], response: HttpResponse) -> str:
    """Returns the API's own text: `message`, with v1's `errors` or v2's `details`."""
    message = content.get("message")
    if not isinstance(message, str):
        return _start_of(response.body) or "no explanation"
    details = content.get("errors") or content.get("details")
    with contextlib.suppress(RecursionError):  # orjson parses a depth that json cannot write
        if isinstance(details, dict):
            return f"{one_line(message)} {without_secrets(json.dumps(details)[:500])}"
    return one_line(message)


def _start_of(body: bytes) -> str:
    """Returns the first 200 bytes of a body as one line of text, without secrets."""
    return without_secrets(one_line(body[:200].decode("utf-8", "replace")))


def without_secrets(text: str) -> str:
    """Returns JSON, or its beginning, with `***` for each value whose name says it is a secret."""
    return re.sub(_SECRET_VALUE, r'\1"***"', text, flags=re.IGNORECASE)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Returns the seconds that an answer asks to wait, 0 to 60; None without `Retry-After`."""
    text = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", text, re.ASCII):
        seconds = float(text)
    else:
        until = _date(text)
        if until is None:
            return None
        # The server's clock, if the response has it: this machine's clock may be wrong.
        now = _date(headers.get("Date", "")) or datetime.now(UTC)
        seconds = (until - now).total_seconds()
    return min(max(seconds, 0.0), MAX_RETRY_AFTER)


def _date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)
