"""Makes spans and metrics of what a client does, with OpenTelemetry's API (extra `otel`).

A call is an INTERNAL span, and each attempt a CLIENT span inside it, as the semantic conventions
for HTTP say: a call may be sent several times, and may wait for its rate limit in between. An
attempt that fails marks its span as an error, but for a 429 that is repeated: the rate limit does
what it is for.

The poller works in a task of its own, outside of the caller's trace. So the spans of the status
requests and stops for a deployment have a link to the span of its deploy, and so has the span of a
webhook. The status request that a webhook triggers has a link to the webhook's span.

Without an SDK the spans are empty, and cost what OpenTelemetry's API costs.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final, Literal
from urllib.parse import urlsplit

import attrs
from opentelemetry import metrics, trace
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from edgegap_async.api.models import DeployAccepted
from edgegap_async.api.operations import GET_DEPLOYMENT
from edgegap_async.errors import CallError, RateLimited

from .observer import LIMIT_WAIT_BUCKETS, READY_BUCKETS, ObservedCall, ObservedDeployment, Observer

_LIBRARY: Final = "edgegap_async"  # the instrumentation scope
_MAX_LINKED: Final = 10_000  # deployments whose span contexts are kept for links; 5 MB
# Upper bounds of the buckets of requests in seconds, those of the conventions.
_BELOW_A_SECOND: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75)
_REQUEST_BUCKETS: Final = (*_BELOW_A_SECOND, 1, 2.5, 5, 7.5, 10)


@attrs.define(eq=False)
class _CallSpans:
    call: Span
    attempt: Span | None = None  # of the newest attempt, while it is in progress
    attributes: dict[str, AttributeValue] = attrs.field(factory=dict)  # of the attempt's metric
    began_at: float = 0.0  # when the attempt began, by the performance counter
    limit_wait: float = 0.0  # the seconds of `queued_total` that the histogram has


class _SpanContexts(OrderedDict[str, SpanContext]):
    """The newest spans of the last deployments, by request_id; of lost deploys by their tag."""

    def note(self, request_id: str, span: Span) -> None:
        self[request_id] = span.get_span_context()
        if len(self) > _MAX_LINKED:
            self.popitem(last=False)


class OpenTelemetryObserver(Observer):
    """Makes OpenTelemetry spans and metrics of what a client does.

    Register it with `client.add_observer(OpenTelemetryObserver())`. Metrics:
    `http.client.request.duration`, as the conventions describe it; `edgegap.limit_wait`, seconds
    that an attempt waited for its rate limit; `edgegap.deployment.time_to_ready`, seconds from the
    accepted deploy to READY; `edgegap.deployment.live`, deployments that the client has made or
    adopted and that are not over; `edgegap.deployment.lost`, those that may go on running.

    Args:
        tracer_provider: makes the tracer; None for the program's own provider.
        meter_provider: makes the meter; None for the program's own provider.
        hand_over_trace: True to give each game server TRACEPARENT, and TRACESTATE if there is one,
            in its environment: the span in which the program has called the deploy. There is no
            such variable outside of a span.
    """

    def __init__(
        self,
        *,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
        hand_over_trace: bool = False,
    ) -> None:
        self._tracer = trace.get_tracer(_LIBRARY, tracer_provider=tracer_provider)
        self._hand_over_trace = hand_over_trace
        self._spans: dict[ObservedCall, _CallSpans] = {}
        self._deploys = _SpanContexts()
        self._webhooks = _SpanContexts()
        meter = metrics.get_meter(_LIBRARY, meter_provider=meter_provider)
        self._duration = meter.create_histogram(
            "http.client.request.duration",
            unit="s",
            description="Duration of HTTP client requests.",
            explicit_bucket_boundaries_advisory=_REQUEST_BUCKETS,
        )
        self._limit_wait = meter.create_histogram(
            "edgegap.limit_wait",
            unit="s",
            description="Time that an attempt waited for its rate limit.",
            explicit_bucket_boundaries_advisory=LIMIT_WAIT_BUCKETS,
        )
        self._time_to_ready = meter.create_histogram(
            "edgegap.deployment.time_to_ready",
            unit="s",
            description="Time from the accepted deploy until the client found it READY.",
            explicit_bucket_boundaries_advisory=READY_BUCKETS,
        )
        self._live = meter.create_up_down_counter(
            "edgegap.deployment.live",
            unit="{deployment}",
            description="Deployments that the client has made or adopted and that are not over.",
        )
        self._lost = meter.create_counter(
            "edgegap.deployment.lost",
            unit="{deployment}",
            description="Deployments that may go on running, because no stop has succeeded.",
        )

    # ── calls ────────────────────────────────────────────────────────────────────────────────────

    def call_started(self, call: ObservedCall) -> None:
        """Starts the span of a call, in the context of the caller."""
        attributes: dict[str, AttributeValue] = {"edgegap.operation": call.operation.name}
        if call.request_id is not None:
            attributes["edgegap.request_id"] = call.request_id
        span = self._tracer.start_span(
            f"edgegap.{call.operation.name}", attributes=attributes, links=self._links_of(call)
        )
        self._spans[call] = _CallSpans(span)

    def _links_of(self, call: ObservedCall) -> list[Link]:
        """Returns links to the deploy of the call's deployment, and to the webhook before it."""
        if call.request_id is None:
            return []
        links = list[Link]()
        if deploy := self._deploys.get(call.request_id):
            links.append(Link(deploy, {"edgegap.link": "deploy"}))
        is_status = call.operation is GET_DEPLOYMENT
        if is_status and (webhook := self._webhooks.pop(call.request_id, None)):
            links.append(Link(webhook, {"edgegap.link": "webhook"}))
        return links

    def attempt_started(self, call: ObservedCall) -> None:
        """Starts the span of an attempt, inside that of its call."""
        spans = self._spans.get(call)
        if spans is None:  # the call began before the observer was registered
            return
        operation = call.operation
        address, port = _server(call.url)
        spans.attributes = {
            "http.request.method": operation.method,
            "server.address": address,
            "server.port": port,
            "url.template": operation.path,
        }
        spans.began_at = time.perf_counter()
        attributes = {**spans.attributes, "url.full": call.url}
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
        if isinstance(result, DeployAccepted) and call in self._spans:
            self._deploys.note(result.request_id, self._spans[call].call)
        self._end_call(call, None)

    def call_failed(self, call: ObservedCall, error: BaseException) -> None:
        """Ends the span of a call, and that of an attempt in progress."""
        self._end_attempt(call, error)
        if call.operation_tag is not None and call in self._spans:
            self._deploys.note(call.operation_tag, self._spans[call].call)
        self._end_call(call, error)

    def _end_attempt(self, call: ObservedCall, error: BaseException | None) -> None:
        spans = self._spans.get(call)
        if spans is None or spans.attempt is None:
            return
        if call.status is not None:
            spans.attempt.set_attribute("http.response.status_code", call.status)
            spans.attributes["http.response.status_code"] = call.status
        if error is not None:
            spans.attributes["error.type"] = _error_type(error)
        self._duration.record(time.perf_counter() - spans.began_at, spans.attributes)
        self._record_limit_wait(call, spans)
        _end(spans.attempt, error)
        spans.attempt = None

    def _record_limit_wait(self, call: ObservedCall, spans: _CallSpans) -> None:
        seconds = call.queued_total - spans.limit_wait
        spans.limit_wait = call.queued_total
        self._limit_wait.record(seconds, {"edgegap.operation": call.operation.name})

    def _end_call(self, call: ObservedCall, error: BaseException | None) -> None:
        spans = self._spans.pop(call, None)
        if spans is None:
            return
        if call.queued_total > spans.limit_wait:  # a wait that was given up
            self._record_limit_wait(call, spans)
        span = spans.call
        span.set_attribute("edgegap.attempts", call.attempts)
        span.set_attribute("edgegap.limit_wait", call.queued_total)
        span.set_attribute("edgegap.retry_wait", call.waited)
        _end(span, error)

    # ── webhooks and deployments ─────────────────────────────────────────────────────────────────

    def webhook_received(self, request_id: str) -> None:
        """Makes a span of a webhook, in the context of the server that has received it."""
        deploy = self._deploys.get(request_id)
        span = self._tracer.start_span(
            "edgegap.webhook",
            kind=SpanKind.CONSUMER,
            attributes={"edgegap.request_id": request_id},
            links=[Link(deploy, {"edgegap.link": "deploy"})] if deploy else [],
        )
        self._webhooks.note(request_id, span)
        span.end()

    def deployment_created(self, deployment: ObservedDeployment) -> None:
        """Counts a deployment that lives, and links it to its deploy if the answer was lost."""
        lost = self._deploys.pop(deployment.operation_tag or "", None)
        if lost is not None and deployment.request_id is not None:
            self._deploys.setdefault(deployment.request_id, lost)
        self._live.add(1, _of(deployment))

    def deployment_adopted(self, deployment: ObservedDeployment) -> None:
        """Counts a deployment that lives."""
        self._live.add(1, _of(deployment))

    def deployment_ready(self, deployment: ObservedDeployment) -> None:
        """Records the time to READY of a deployment that this client has made."""
        if deployment.ready_after is not None:
            attributes = {**_of(deployment), "edgegap.source": deployment.source or ""}
            self._time_to_ready.record(deployment.ready_after, attributes)

    def deployment_stopped(
        self, deployment: ObservedDeployment, by: Literal["client", "other"]
    ) -> None:
        """Counts a deployment that is over, and forgets its spans."""
        self._live.add(-1, _of(deployment))
        self._deploys.pop(deployment.request_id or "", None)

    def deployment_lost(self, deployment: ObservedDeployment) -> None:
        """Counts a deployment that may go on running."""
        self._lost.add(1, _of(deployment))

    def environment(self) -> Mapping[str, str]:
        """Returns the trace of the caller, if `hand_over_trace` says so."""
        carrier = dict[str, str]()
        if self._hand_over_trace:
            TraceContextTextMapPropagator().inject(carrier)
        return {key.upper(): value for key, value in carrier.items()}


def _of(deployment: ObservedDeployment) -> dict[str, AttributeValue]:
    return {"edgegap.application": deployment.application or "unknown"}


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
    if isinstance(error, CallError) and error.status is not None and error.status >= 400:  # noqa: PLR2004 - 4xx, 5xx
        return str(error.status)
    return type(error).__qualname__


@functools.lru_cache(maxsize=64)  # a deployment has a URL of its own
def _server(url: str) -> tuple[str, int]:
    """Returns host and port of a URL."""
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
