"""The spans that OpenTelemetry's SDK gets of a client's calls."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from scripted_api import Reply, ScriptedApi

from edgegap_async import ApiClient
from edgegap_async.errors import NotFound, NotSent
from edgegap_async.observability import OpenTelemetryObserver

pytestmark = pytest.mark.virtual

ROOT = Path(__file__).parents[3]
STATUS = ("GET", "/v1/status/r1")
READY = Reply(body={"request_id": "r1", "current_status": "Status.READY"})


class Traces:
    """A tracer provider that keeps the spans that have ended."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.observer = OpenTelemetryObserver(tracer_provider=self.provider)

    def named(self, name: str) -> list[ReadableSpan]:
        """Returns the spans with a name, in the order of their ends."""
        return [span for span in self.exporter.get_finished_spans() if span.name == name]


@pytest.fixture
def traces() -> Iterator[Traces]:
    traces = Traces()
    yield traces
    traces.provider.shutdown()


def facts(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})


def parent_id(span: ReadableSpan) -> int | None:
    return span.parent.span_id if span.parent else None


def own_id(span: ReadableSpan) -> int | None:
    context = span.get_span_context()
    return context and context.span_id


async def test_a_call_is_one_internal_span_with_a_client_span_for_each_time_it_is_sent(
    api: ScriptedApi, traces: Traces
) -> None:
    api.on(*STATUS, Reply(503), READY)
    async with ApiClient("canary-5d1c", base_url=api.url) as client:
        client.add_observer(traces.observer)
        with traces.provider.get_tracer("program").start_as_current_span("match") as match:
            await client.deployments.get("r1")

    [call] = traces.named("edgegap.get_deployment")
    assert call.kind is SpanKind.INTERNAL
    assert call.status.status_code is StatusCode.UNSET
    assert parent_id(call) == match.get_span_context().span_id
    assert facts(call).items() >= {
        ("edgegap.operation", "get_deployment"),
        ("edgegap.request_id", "r1"),
        ("edgegap.attempts", 2),
    }
    first, second = traces.named("GET /v1/status/{request_id}")
    assert {parent_id(first), parent_id(second)} == {own_id(call)}
    assert {first.kind, second.kind} == {SpanKind.CLIENT}
    url = urlsplit(api.url)
    sent = {
        "http.request.method": "GET",
        "server.address": url.hostname,
        "server.port": url.port,
        "url.full": f"{api.url}/v1/status/r1",
        "url.template": "/v1/status/{request_id}",
    }
    assert facts(first) == {**sent, "http.response.status_code": 503, "error.type": "503"}
    assert first.status.status_code is StatusCode.ERROR
    assert facts(second) == {
        **sent,
        "http.request.resend_count": 1,
        "http.response.status_code": 200,
    }
    assert second.status.status_code is StatusCode.UNSET


async def test_a_429_that_is_repeated_is_no_error(api: ScriptedApi, traces: Traces) -> None:
    api.on(*STATUS, Reply(429, headers={"Retry-After": "2"}), READY)
    async with ApiClient("token", base_url=api.url) as client:
        client.add_observer(traces.observer)
        await client.deployments.get("r1")

    refused, _ = traces.named("GET /v1/status/{request_id}")
    assert facts(refused)["http.response.status_code"] == 429
    assert "error.type" not in facts(refused)
    assert refused.status.status_code is StatusCode.UNSET
    [call] = traces.named("edgegap.get_deployment")
    assert facts(call)["edgegap.limit_wait"] == pytest.approx(2, abs=0.5)


async def test_a_call_that_fails_is_an_error_with_its_status_or_its_class(
    api: ScriptedApi, traces: Traces, unused_tcp_port: int
) -> None:
    api.on(*STATUS, Reply(404))
    async with ApiClient("token", base_url=api.url) as client:
        client.add_observer(traces.observer)
        with pytest.raises(NotFound):
            await client.deployments.get("r1")
    async with ApiClient("token", base_url=f"http://127.0.0.1:{unused_tcp_port}") as client:
        client.add_observer(traces.observer)
        with pytest.raises(NotSent):
            await client.deployments.get("r1")

    refused, not_sent = traces.named("edgegap.get_deployment")
    assert [facts(one)["error.type"] for one in (refused, not_sent)] == ["404", "NotSent"]
    assert {one.status.status_code for one in (refused, not_sent)} == {StatusCode.ERROR}
    assert "connect" in (not_sent.status.description or "")


async def test_a_cancelled_call_ends_its_spans_and_is_no_error(
    api: ScriptedApi, traces: Traces
) -> None:
    api.on(*STATUS, Reply(delay=60))
    async with ApiClient("token", base_url=api.url) as client:
        client.add_observer(traces.observer)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await client.deployments.get("r1")

    for name in ("edgegap.get_deployment", "GET /v1/status/{request_id}"):
        [span] = traces.named(name)
        assert span.status.status_code is StatusCode.UNSET
        assert facts(span)["edgegap.cancelled"] is True


async def test_without_an_observer_there_are_no_spans(api: ScriptedApi, traces: Traces) -> None:
    api.on(*STATUS, READY)
    async with ApiClient("token", base_url=api.url) as client:
        await client.deployments.get("r1")

    assert traces.exporter.get_finished_spans() == ()


def test_a_missing_library_is_named_with_its_extra() -> None:
    program = (
        "import sys\n"
        "sys.modules['opentelemetry'] = None\n"
        "import edgegap_async, edgegap_async.observability as observability\n"
        "edgegap_async.EdgegapClient, observability.Observer\n"
        "try:\n"
        "    observability.OpenTelemetryObserver\n"
        "except ImportError as error:\n"
        "    print(error)\n"
    )
    run = [sys.executable, "-W", "error", "-c", program]
    printed = subprocess.run(run, check=True, cwd=ROOT, capture_output=True, text=True).stdout

    assert printed == (
        "OpenTelemetryObserver needs opentelemetry: pip install 'edgegap-async[otel]'\n"
    )


def test_the_client_does_not_import_the_library() -> None:
    program = (
        "import sys, edgegap_async\n"
        "edgegap_async.EdgegapClient('token')\n"
        "assert not {'opentelemetry', 'prometheus_client'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, cwd=ROOT)
