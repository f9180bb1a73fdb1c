"""HTTP requests and answers as plain values: what is sent, and what an answer means.

`encode` makes the request of a call, `decode` tells what an answer means: a model, or one of the
errors. Neither knows the token.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, Generic, TypeVar, cast
from urllib.parse import quote, urlencode

import attrs

from edgegap_async.errors import (
    CallError,
    InvalidRequest,
    NotFound,
    RateLimited,
    Refused,
    UnreadableAnswer,
    refusal,
)

from .codec import dumps, format_time, loads, read_answer, to_json
from .operations import Operation
from .validation import check_kind, check_segment

Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)

LONGEST_RETRY_AFTER: Final = 60.0
"""Seconds. A `Retry-After` beyond it is taken for a mistake and cut to this."""


# ── requests as values ───────────────────────────────────────────────────────────────────────────


@attrs.frozen(kw_only=True)
class HttpRequest(Generic[Result_co]):
    """A request without its token, which is added only when it is sent."""

    operation: Operation[Result_co]
    path: str
    """Escaped already: to be used as it is."""
    query: str = ""
    body: bytes | None = attrs.field(default=None, repr=False)
    request_id: str | None = None
    max_bytes: int = 8 * 2**20
    """Bytes that the answer may have, decompressed."""

    @property
    def target(self) -> str:
        """Path and query."""
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


@attrs.frozen(kw_only=True)
class HttpResponse:
    """An answer, read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes = attrs.field(repr=False)


def encode(
    operation: Operation[Result],
    *,
    path: Mapping[str, str] | None = None,
    query: Mapping[str, object] | None = None,
    body: object = None,
    max_bytes: int = 8 * 2**20,
) -> HttpRequest[Result]:
    """The request for a call. Query values that are None are left out.

    Raises:
        InvalidRequest: an id or name would lead to another path than the call's own, or the body
            is not what the call takes.
    """
    if body is not None and operation.body is not None:
        check_kind(f"the body of {operation.name}", body, operation.body)
    segments = {name: _segment(name, value) for name, value in (path or {}).items()}
    return HttpRequest(
        operation=operation,
        path=operation.path.format_map(segments),
        query=_query(query) if query else "",
        body=None if body is None else dumps(to_json(body)),
        request_id=(path or {}).get("request_id"),
        max_bytes=max_bytes,
    )


def _segment(name: str, value: object) -> str:
    if isinstance(value, str) and 0 < len(value) < 128 and value.isascii() and value.isalnum():  # noqa: PLR2004 - as in check_segment
        return value  # as every request_id is
    return quote(check_segment(name, value), safe="")


def _query(values: Mapping[str, object]) -> str:
    sent = {name: _query_text(name, value) for name, value in values.items() if value is not None}
    # Commas and colons may stay as they are in a query (RFC 3986): a list of ids is shorter so.
    return urlencode(sent, quote_via=quote, safe=",:")


def _query_text(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    text = format_time(value) if isinstance(value, datetime) else str(value)
    if not text.isprintable():
        raise InvalidRequest(f"{name} must not hold control characters: {text!r}")
    return text


def decode(request: HttpRequest[Result], response: HttpResponse) -> Result:
    """What an answer means.

    Raises:
        Refused: the API answered with an error status; one of its classes.
        UnreadableAnswer: a success that does not hold what it must, or a redirect.
    """
    if response.status not in request.operation.ok:
        raise _refused(request, response)
    if request.operation.returns is type(None):
        nothing: Result = cast("Any", None)  # the type of None is Result
        return nothing
    try:
        return read_answer(request.operation.returns, response.body)
    except ValueError as error:
        raise _unreadable(request, response, str(error)) from None


def _unreadable(request: HttpRequest[Any], response: HttpResponse, why: str) -> UnreadableAnswer:
    kind = response.headers.get("Content-Type", "no content type")
    start = " ".join(response.body[:200].decode("utf-8", "replace").split())
    return UnreadableAnswer(f"{why} ({kind}: {start!r})", **request.facts(response.status))


def _refused(request: HttpRequest[Any], response: HttpResponse) -> CallError:
    facts = request.facts(response.status)
    if response.status < 400:  # noqa: PLR2004 - not an error status, and not one that is documented
        return UnreadableAnswer("a status that this call does not have", **facts)
    said = _said(response.body)
    if said is None:
        if response.status in {404, 410} and request.request_id and response.body.strip():
            # A proxy's, or of another path: believed, it would end a wait for a server that runs.
            return _unreadable(request, response, "it is not the API that says so")
        said = {}
    if isinstance(said.get("request_id"), str):
        facts["request_id"] = said["request_id"]
    kind: type[Refused] = refusal(response.status)
    if response.status == 400 and _is_unknown(request, said):  # noqa: PLR2004 - an HTTP status
        kind = NotFound
    error = kind(_explanation(said, response), **facts)
    if isinstance(error, RateLimited):
        error.retry_after = _retry_after(response.headers)
    return error


def _is_unknown(request: HttpRequest[Any], said: Mapping[str, object]) -> bool:
    """Whether a 400 says that there is no such deployment, as the live API does."""
    if "{request_id}" not in request.operation.path:
        return False
    sent_more = bool(request.query) or request.body is not None
    return not sent_more or "request id" in str(said.get("message")).lower()


def _said(body: bytes) -> dict[str, Any] | None:
    """The JSON object of an error; None if it is none."""
    try:
        value = loads(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _explanation(said: Mapping[str, object], response: HttpResponse) -> str:
    """The API's own words: `message`, with v1's `errors` or v2's `details` by field."""
    message = said.get("message")
    if not isinstance(message, str):
        text = " ".join(response.body[:200].decode("utf-8", "replace").split())
        return text or "no explanation"
    more = said.get("errors") or said.get("details")
    with contextlib.suppress(RecursionError):  # one parser reads what is too deep for another
        if isinstance(more, dict):
            return f"{message} {json.dumps(more)[:500]}"
    return message


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a 429 asks to wait, 0 to 60; None if it does not say, or makes no sense."""
    text = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", text, re.ASCII):
        seconds = float(text)
    else:
        until = _date(text)
        if until is None:
            return None
        # By the server's own clock, where it tells it: ours may be off.
        seconds = (until - (_date(headers.get("Date", "")) or datetime.now(UTC))).total_seconds()
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER)


def _date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)
