"""Counts what a client does for Prometheus, with `prometheus_client` (extra `prometheus`)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, Literal

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from edgegap_async.api.models import StatusChange
from edgegap_async.errors import CallError

from .observer import LIMIT_WAIT_BUCKETS, READY_BUCKETS, ObservedCall, ObservedDeployment, Observer

if TYPE_CHECKING:
    from edgegap_async.http.rate_limits import Limits

_LIMIT_GAUGES: Final = {
    "limit": "Calls a second that are allowed",
    "rate": "Calls a second that the client sends at most at present",
    "free": "Calls that could go at once",
    "queued": "Calls that wait for the rate limit",
}
"""The fields of `LimitState` that are gauges, each with its text."""


class PrometheusObserver(Observer):
    """Counts what a client does, in a registry of `prometheus_client`.

    Register it with `client.add_observer(PrometheusObserver(limits=client.limits))`; several
    clients may share one. The names of all metrics begin with `edgegap_`; the guide lists them.

    Args:
        limits: rate limits whose state each scrape reads; None for none.
        registry: holds the metrics. A registry can hold the metrics of one observer.

    Raises:
        ValueError: the registry has a metric of one of these names. It stays as it was.
    """

    def __init__(
        self, *, limits: Limits | None = None, registry: CollectorRegistry = REGISTRY
    ) -> None:
        metrics = _Metrics()
        self._calls = Counter(
            "edgegap_calls",
            "Calls that have ended; outcome is ok, the HTTP status, or the name of an error",
            ["operation", "outcome"],
            registry=metrics,
        )
        self._requests = Histogram(
            "edgegap_request_duration_seconds",
            "Duration of one attempt; status is the HTTP status, or none",
            ["operation", "status"],
            registry=metrics,
        )
        self._limit_wait = Histogram(
            "edgegap_limit_wait_seconds",
            "Time that a call waited for its rate limit, all attempts together",
            ["operation"],
            buckets=LIMIT_WAIT_BUCKETS,
            registry=metrics,
        )
        self._time_to_ready = Histogram(
            "edgegap_time_to_ready_seconds",
            "Time from the accepted deploy until the client found it READY",
            ["source"],
            buckets=READY_BUCKETS,
            registry=metrics,
        )
        self._live = Gauge(
            "edgegap_deployments_live",
            "Deployments that the client has made or adopted and that are not over",
            registry=metrics,
        )
        self._deployments = Counter(
            "edgegap_deployments",
            "Events of the lives of deployments: created, adopted, ready, stopped, ended, lost",
            ["event"],
            registry=metrics,
        )
        self._changes = Counter(
            "edgegap_status_changes",
            "Changes of status that the client has learnt",
            ["status", "source"],
            registry=metrics,
        )
        self._webhooks = Counter(
            "edgegap_webhooks", "Webhooks received for known deployments", registry=metrics
        )
        self._began_at: dict[ObservedCall, float] = {}  # of each attempt in progress
        if limits is not None:
            metrics.register(_LimitCollector(limits))
        registry.register(metrics)  # all, or after a clash of names none

    # ── calls ────────────────────────────────────────────────────────────────────────────────────

    def attempt_started(self, call: ObservedCall) -> None:
        """Notes when an attempt has begun."""
        self._began_at[call] = time.perf_counter()

    def attempt_failed(self, call: ObservedCall, error: Exception, retry_in: float | None) -> None:
        """Records the duration of an attempt."""
        self._end_attempt(call)

    def call_succeeded(self, call: ObservedCall, result: object) -> None:
        """Counts a call, and records its newest attempt and its wait for the rate limit."""
        self._end_call(call, "ok")

    def call_failed(self, call: ObservedCall, error: BaseException) -> None:
        """Counts a call, and records an attempt in progress and the wait for the rate limit."""
        if isinstance(error, asyncio.CancelledError):
            self._end_call(call, "cancelled")
        elif isinstance(error, CallError) and error.status is not None:
            self._end_call(call, str(error.status))
        else:
            self._end_call(call, type(error).__name__)

    def _end_attempt(self, call: ObservedCall) -> None:
        began_at = self._began_at.pop(call, None)
        if began_at is not None:
            status = "none" if call.status is None else str(call.status)
            duration = self._requests.labels(call.operation.name, status)
            duration.observe(time.perf_counter() - began_at)

    def _end_call(self, call: ObservedCall, outcome: str) -> None:
        self._end_attempt(call)
        self._calls.labels(call.operation.name, outcome).inc()
        self._limit_wait.labels(call.operation.name).observe(call.queued_total)

    # ── webhooks and deployments ─────────────────────────────────────────────────────────────────

    def webhook_received(self, request_id: str) -> None:
        """Counts a webhook."""
        self._webhooks.inc()

    def status_changed(self, request_id: str, change: StatusChange) -> None:
        """Counts a change of status; a status that this package does not know as `other`."""
        status = str(change.status) if change.status.is_known else "other"
        self._changes.labels(status, change.source).inc()

    def deployment_created(self, deployment: ObservedDeployment) -> None:
        """Counts a deployment that this client has made."""
        self._live.inc()
        self._deployments.labels("created").inc()

    def deployment_adopted(self, deployment: ObservedDeployment) -> None:
        """Counts a deployment that this client has taken over."""
        self._live.inc()
        self._deployments.labels("adopted").inc()

    def deployment_ready(self, deployment: ObservedDeployment) -> None:
        """Counts a deployment that is READY, and records how long that took."""
        self._deployments.labels("ready").inc()
        if deployment.ready_after is not None:
            self._time_to_ready.labels(deployment.source).observe(deployment.ready_after)

    def deployment_stopped(
        self, deployment: ObservedDeployment, by: Literal["client", "other"]
    ) -> None:
        """Counts a deployment that is over: `stopped` by this client, or `ended`."""
        self._live.dec()
        self._deployments.labels("stopped" if by == "client" else "ended").inc()

    def deployment_lost(self, deployment: ObservedDeployment) -> None:
        """Counts a deployment that may go on running."""
        self._deployments.labels("lost").inc()


class _Metrics(CollectorRegistry):
    """The metrics of one observer, which a registry takes as a single collector."""

    describe = CollectorRegistry.collect  # tells that registry their names


class _LimitCollector(Collector):
    """Reads the state of rate limits at each scrape, in any thread."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    def collect(self) -> Iterable[GaugeMetricFamily]:
        states = self._limits.snapshot()
        for field, text in _LIMIT_GAUGES.items():
            family = GaugeMetricFamily(f"edgegap_limit_{field}", text, labels=["operation"])
            for operation, state in states.items():
                family.add_metric([operation], getattr(state, field))
            yield family
