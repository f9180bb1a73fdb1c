"""Makes spans of the calls of a client, with OpenTelemetry's API (extra `otel`).

A call is an INTERNAL span, and each attempt a CLIENT span inside it, as the semantic conventions
for HTTP say: a call may be sent several times, and may wait for its rate limit in between. An
attempt that fails marks its span as an error, but for a 429 that is repeated: the rate limit does
what it is for.

Without an SDK the spans are empty, and cost what OpenTelemetry's API costs.
"""

from __future__ import annotations

import asyncio
import functools
from typing import Final
from urllib.parse import urlsplit

import attrs
from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.util.types import AttributeValue

from edgegap_async.errors import CallError, RateLimited

from .observer import ObservedCall, Observer

_LIBRARY: Final = "edgegap_async"  # the instrumentation scope


@attrs.define(eq=False)
class _CallSpans:
    call: Span
    attempt: Span | None = None  # of the newest attempt, while it is in progress


class OpenTelemetryObserver(Observer):
    """Makes OpenTelemetry spans of the calls of a client.

    Register it with `client.add_observer(OpenTelemetryObserver())`.

    Args:
        tracer_provider: makes the tracer; None for the program's own provider.
    """

    def __init__(self, *, tracer_provider: trace.TracerProvider | None = None) -> None:
        self._tracer = trace.get_tracer(_LIBRARY, tracer_provider=tracer_provider)
        self._spans: dict[ObservedCall, _CallSpans] = {}

    # ── calls ────────────────────────────────────────────────────────────────────────────────────

    def call_started(self, call: ObservedCall) -> None:
        """Starts the span of a call, in the context of the caller."""
        attributes: dict[str, AttributeValue] = {"edgegap.operation": call.operation.name}
        if call.request_id is not None:
            attributes["edgegap.request_id"] = call.request_id
        span = self._tracer.start_span(f"edgegap.{call.operation.name}", attributes=attributes)
        self._spans[call] = _CallSpans(span)

    def attempt_started(self, call: ObservedCall) -> None:
        """Starts the span of an attempt, inside that of its call."""
        spans = self._spans[call]
        operation = call.operation
        address, port = _server(call.url)
        attributes: dict[str, AttributeValue] = {
            "http.request.method": operation.method,
            "server.address": address,
            "server.port": port,
            "url.full": call.url,
            "url.template": operation.path,
        }
        if call.resend_count:
            attributes["http.request.resend_count"] = call.resend_count
        spans.attempt = self._tracer.start_span(
            f"{operation.method} {operation.path}",
            context=trace.set_span_in_context(spans.call),
            kind=SpanKind.CLIENT,
            attributes=attributes,
        )

    def attempt_failed(self, call: ObservedCall, error: Exception, retry_in: float | None) -> None:
        """Ends the span of an attempt, as an error unless it is a 429 that is repeated."""
        is_repeated_429 = isinstance(error, RateLimited) and retry_in is not None
        self._end_attempt(call, None if is_repeated_429 else error)

    def call_succeeded(self, call: ObservedCall, result: object) -> None:
        """Ends the span of a call, and that of its newest attempt."""
        self._end_attempt(call, None)
        self._end_call(call, None)

    def call_failed(self, call: ObservedCall, error: BaseException) -> None:
        """Ends the span of a call, and that of an attempt in progress."""
        self._end_attempt(call, error)
        self._end_call(call, error)

    def _end_attempt(self, call: ObservedCall, error: BaseException | None) -> None:
        spans = self._spans[call]
        if spans.attempt is None:
            return
        if call.status is not None:
            spans.attempt.set_attribute("http.response.status_code", call.status)
        _end(spans.attempt, error)
        spans.attempt = None

    def _end_call(self, call: ObservedCall, error: BaseException | None) -> None:
        span = self._spans.pop(call).call
        span.set_attribute("edgegap.attempts", call.attempts)
        span.set_attribute("edgegap.limit_wait", call.queued_total)
        span.set_attribute("edgegap.retry_wait", call.waited)
        _end(span, error)


def _end(span: Span, error: BaseException | None) -> None:
    """Ends a span; as an error if there is one, but a cancellation, which the caller asked for."""
    if isinstance(error, asyncio.CancelledError):
        span.set_attribute("edgegap.cancelled", True)
    elif error is not None:
        span.set_attribute("error.type", _error_type(error))
        # The HTTP status says enough; the message of another error does not hold the token.
        has_status = isinstance(error, CallError) and error.status is not None
        span.set_status(Status(StatusCode.ERROR, None if has_status else str(error)))
    span.end()


def _error_type(error: BaseException) -> str:
    """Returns the HTTP status of a refusal, or the class of another error."""
    if isinstance(error, CallError) and error.status is not None and error.status >= 400:  # noqa: PLR2004
        return str(error.status)
    return type(error).__qualname__


@functools.lru_cache(maxsize=64)  # a deployment has a URL of its own
def _server(url: str) -> tuple[str, int]:
    """Returns host and port of a URL."""
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
