"""The spans and metrics that OpenTelemetry's SDK gets of a client."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from scripted_api import Reply, ScriptedApi, deployment

from edgegap_async import ApiClient, EdgegapClient, WebhookReceiver
from edgegap_async.errors import MaybeCreated, NotFound, NotSent
from edgegap_async.observability import OpenTelemetryObserver

pytestmark = pytest.mark.virtual

ROOT = Path(__file__).parents[3]
STATUS = ("GET", "/v1/status/r1")
DEPLOY = ("POST", "/v2/deployments")
STOP = ("DELETE", "/v1/stop/r1")
ACCEPTED = Reply(202, body={"request_id": "r1"})
STOPPED = Reply(body={"message": "stopping"})
READY = deployment("READY", request_id="r1")


class Traces:
    """Providers that keep the spans that have ended, and the metrics."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader], shutdown_on_exit=False)
        self.observer = OpenTelemetryObserver(
            tracer_provider=self.provider, meter_provider=self.meters, hand_over_trace=True
        )

    def metrics(self) -> dict[str, list[Any]]:
        """Returns the data points of each metric, by its name."""
        data = self.reader.get_metrics_data()
        resources = data.resource_metrics if data else []
        return {
            metric.name: list(metric.data.data_points)
            for resource in resources
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def named(self, name: str) -> list[ReadableSpan]:
        """Returns the spans with a name, in the order of their ends."""
        return [span for span in self.exporter.get_finished_spans() if span.name == name]


@pytest.fixture
def traces() -> Iterator[Traces]:
    traces = Traces()
    yield traces
    traces.provider.shutdown()
    traces.meters.shutdown()


def facts(has_attributes: Any) -> dict[str, object]:
    """Returns the attributes of a span or of a data point."""
    return dict(has_attributes.attributes or {})


def links(span: ReadableSpan) -> dict[object, int]:
    """Returns the ids of the spans that a span has links to, by what they are."""
    return {(link.attributes or {})["edgegap.link"]: link.context.span_id for link in span.links}


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
    async with ApiClient("canary-token", base_url=api.url) as client:
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
    async with ApiClient("canary-token", base_url=api.url) as client:
        client.add_observer(traces.observer)
        with pytest.raises(NotFound):
            await client.deployments.get("r1")
    async with ApiClient("canary-token", base_url=f"http://127.0.0.1:{unused_tcp_port}") as client:
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
    async with ApiClient("canary-token", base_url=api.url) as client:
        client.add_observer(traces.observer)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await client.deployments.get("r1")

    for name in ("edgegap.get_deployment", "GET /v1/status/{request_id}"):
        [span] = traces.named(name)
        assert span.status.status_code is StatusCode.UNSET
        assert facts(span)["edgegap.cancelled"] is True


async def test_a_call_that_began_before_the_observer_was_registered_has_no_spans(
    api: ScriptedApi, traces: Traces, caplog: pytest.LogCaptureFixture
) -> None:
    api.on(*STATUS, Reply(503, delay=1), Reply(404, delay=1))
    async with ApiClient("canary-token", base_url=api.url) as client:
        calling = asyncio.create_task(client.deployments.get("r1"))
        await api.until_asked(*STATUS)
        client.add_observer(traces.observer)
        with pytest.raises(NotFound):
            await calling

    assert traces.exporter.get_finished_spans() == ()
    assert [one.message for one in caplog.records if one.levelname == "ERROR"] == []


async def test_without_an_observer_there_are_no_spans(api: ScriptedApi, traces: Traces) -> None:
    api.on(*STATUS, READY)
    async with ApiClient("canary-token", base_url=api.url) as client:
        await client.deployments.get("r1")

    assert traces.exporter.get_finished_spans() == ()
    assert traces.metrics() == {}


async def test_the_calls_for_a_deployment_link_to_its_deploy_and_to_the_webhook_before(
    api: ScriptedApi, traces: Traces
) -> None:
    api.on(*DEPLOY, ACCEPTED)
    api.on(*STATUS, READY)
    api.on(*STOP, STOPPED)
    receiver = WebhookReceiver("https://game.example/edgegap")
    tracer = traces.provider.get_tracer("program")
    async with EdgegapClient("canary-token", base_url=api.url, webhooks=receiver) as client:
        client.add_observer(traces.observer)
        with tracer.start_as_current_span("match"):
            server = await client.deploy("arena", "v1", users=["8.8.8.8"])
        waiting = asyncio.create_task(server.wait_ready())
        await asyncio.sleep(0)
        [key] = receiver._subscriptions
        with tracer.start_as_current_span("POST /webhook") as served:
            receiver.trigger(key)
        await waiting
        await server.stop()

    [deploy] = traces.named("edgegap.deploy")
    [webhook] = traces.named("edgegap.webhook")
    [status] = traces.named("edgegap.get_deployment")
    [stop] = traces.named("edgegap.stop_deployment")
    assert webhook.kind is SpanKind.CONSUMER
    assert parent_id(webhook) == served.get_span_context().span_id
    assert links(webhook) == {"deploy": own_id(deploy)}
    assert parent_id(status) is None
    assert links(status) == {"deploy": own_id(deploy), "webhook": own_id(webhook)}
    assert links(stop) == {"deploy": own_id(deploy)}
    assert links(deploy) == {}


async def test_a_deployment_that_a_list_shows_after_a_lost_answer_links_to_its_deploy(
    api: ScriptedApi, traces: Traces
) -> None:
    api.on(*DEPLOY, Reply(lost=True, delay=1))
    api.on(*STOP, STOPPED)
    async with EdgegapClient("canary-token", base_url=api.url) as client:
        client.add_observer(traces.observer)
        deploying = asyncio.create_task(client.deploy("arena", "v1", users=["8.8.8.8"]))
        await asyncio.sleep(0.5)
        [asked] = api.asked(*DEPLOY)
        row = {"request_id": "r1", "tags": asked.json["tags"]}
        api.on("GET", "/v1/deployments", Reply(body={"data": [row]}))
        await (await deploying).stop()

    [deploy] = traces.named("edgegap.deploy")
    [stop] = traces.named("edgegap.stop_deployment")
    assert links(stop) == {"deploy": own_id(deploy)}
    assert traces.observer._deploys.keys() == set()  # nothing is kept of what has ended


async def test_the_game_server_gets_the_trace_of_the_program(
    api: ScriptedApi, traces: Traces
) -> None:
    api.on(*DEPLOY, ACCEPTED)
    async with EdgegapClient("canary-token", base_url=api.url) as client:
        client.add_observer(traces.observer)
        with traces.provider.get_tracer("program").start_as_current_span("match") as match:
            await client.deploy("arena", "v1", users=["8.8.8.8"])
        await client.deploy("arena", "v1", users=["8.8.8.8"])

    inside, outside = [request.json for request in api.requests]
    [variable] = inside["environment_variables"]
    context = match.get_span_context()
    assert variable["key"] == "TRACEPARENT"
    assert variable["value"][:53] == f"00-{context.trace_id:032x}-{context.span_id:016x}-"
    assert "environment_variables" not in outside


async def test_the_trace_stays_in_the_program_by_default(api: ScriptedApi, traces: Traces) -> None:
    api.on(*DEPLOY, ACCEPTED)
    async with EdgegapClient("canary-token", base_url=api.url) as client:
        client.add_observer(OpenTelemetryObserver(tracer_provider=traces.provider))
        with traces.provider.get_tracer("program").start_as_current_span("match"):
            await client.deploy("arena", "v1", users=["8.8.8.8"])

    assert "environment_variables" not in api.requests[0].json


async def test_metrics_count_requests_waits_for_the_limit_and_the_time_to_ready(
    api: ScriptedApi, traces: Traces
) -> None:
    api.on(*DEPLOY, Reply(429, headers={"Retry-After": "2"}), ACCEPTED)
    api.on(*STATUS, deployment("DEPLOYING", request_id="r1"), READY)
    api.on(*STOP, STOPPED)
    async with EdgegapClient("canary-token", base_url=api.url) as client:
        client.add_observer(traces.observer)
        async with client.run("arena", "v1", users=["8.8.8.8"]):
            [live] = traces.metrics()["edgegap.deployment.live"]
            assert (live.value, facts(live)) == (1, {"edgegap.application": "arena"})

    metrics = traces.metrics()
    requests = {
        (point.attributes["url.template"], point.attributes["http.response.status_code"]): point
        for point in metrics["http.client.request.duration"]
    }
    counts = {key: point.count for key, point in requests.items()}
    assert counts == {
        ("/v2/deployments", 429): 1,
        ("/v2/deployments", 202): 1,
        ("/v1/status/{request_id}", 200): 2,
        ("/v1/stop/{request_id}", 200): 1,
    }
    waits = {
        point.attributes["edgegap.operation"]: point for point in metrics["edgegap.limit_wait"]
    }
    assert waits["deploy"].count == 2
    assert waits["deploy"].sum == pytest.approx(2, abs=0.5)
    [ready] = metrics["edgegap.deployment.time_to_ready"]
    assert facts(ready) == {"edgegap.application": "arena", "edgegap.source": "status"}
    assert ready.sum == pytest.approx(0.9, abs=0.5)
    assert [point.value for point in metrics["edgegap.deployment.live"]] == [0]
    assert "edgegap.deployment.lost" not in metrics


async def test_a_wait_for_the_limit_that_is_given_up_counts(
    api: ScriptedApi, traces: Traces
) -> None:
    api.on(*STATUS, READY)
    async with ApiClient(
        "canary-token", base_url=api.url, limits={"get_deployment": 0.1}
    ) as client:
        await client.deployments.get("r1")
        client.add_observer(traces.observer)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3):
                await client.deployments.get("r1")

    [wait] = traces.metrics()["edgegap.limit_wait"]
    assert (wait.count, wait.sum) == (1, pytest.approx(3, abs=0.1))


async def test_what_may_go_on_running_is_counted_as_lost(api: ScriptedApi, traces: Traces) -> None:
    api.on(*DEPLOY, Reply(lost=True))
    api.on("GET", "/v1/deployments", Reply(403, body={"message": "Forbidden"}))
    async with EdgegapClient("canary-token", base_url=api.url) as client:
        client.add_observer(traces.observer)
        with pytest.raises(MaybeCreated):
            await client.deploy("arena", "v1", users=["8.8.8.8"])

    [lost] = traces.metrics()["edgegap.deployment.lost"]
    assert (lost.value, facts(lost)) == (1, {"edgegap.application": "arena"})


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
