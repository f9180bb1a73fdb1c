"""What a scrape of Prometheus gets of a client."""

from __future__ import annotations

import asyncio
import threading

import pytest
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from scripted_api import Reply, ScriptedApi, deployment

from edgegap_async import ApiClient, EdgegapClient
from edgegap_async.errors import MaybeCreated, NotFound, NotSent
from edgegap_async.observability import PrometheusObserver

pytestmark = pytest.mark.virtual

DEPLOY = ("POST", "/v2/deployments")
STATUS = ("GET", "/v1/status/r1")
STOP = ("DELETE", "/v1/stop/r1")
ACCEPTED = Reply(202, body={"request_id": "r1"})
READY = deployment("READY", request_id="r1")


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def scrape(registry: CollectorRegistry, *, buckets: bool = False) -> dict[str, float]:
    """Returns the value of each sample of a scrape, by name and labels."""
    return {
        " ".join((sample.name, *sample.labels.values())): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
        if buckets or not sample.name.endswith(("_bucket", "_created"))
    }


async def test_the_life_of_a_deployment_is_counted(
    api: ScriptedApi, registry: CollectorRegistry
) -> None:
    api.on(*DEPLOY, Reply(429, headers={"Retry-After": "2"}), ACCEPTED)
    api.on(*STATUS, deployment("DEPLOYING", request_id="r1"), READY)
    api.on(*STOP, Reply(body={"message": "stopping"}))
    async with EdgegapClient("canary-token", base_url=api.url) as client:
        client.add_observer(PrometheusObserver(registry=registry))
        async with client.run("arena", "v1", users=["8.8.8.8"]):
            assert scrape(registry)["edgegap_deployments_live"] == 1

    found = scrape(registry)
    assert found["edgegap_calls_total deploy ok"] == 1
    assert found["edgegap_calls_total get_deployment ok"] == 2
    assert found["edgegap_request_duration_seconds_count deploy 429"] == 1
    assert found["edgegap_request_duration_seconds_count deploy 202"] == 1
    assert found["edgegap_limit_wait_seconds_count deploy"] == 1
    assert found["edgegap_limit_wait_seconds_sum deploy"] == pytest.approx(2, abs=0.5)
    assert found["edgegap_time_to_ready_seconds_count status"] == 1
    assert found["edgegap_status_changes_total status DEPLOYING"] == 1
    assert found["edgegap_status_changes_total status READY"] == 1
    assert found["edgegap_deployments_live"] == 0
    events = {key.split()[1] for key in found if key.startswith("edgegap_deployments_total ")}
    assert events == {"created", "ready", "stopped"}


async def test_outcomes_of_calls_are_statuses_or_names_of_errors(
    api: ScriptedApi, registry: CollectorRegistry, unused_tcp_port: int
) -> None:
    api.on(*STATUS, Reply(404), Reply(delay=60))
    observer = PrometheusObserver(registry=registry)
    async with ApiClient("canary-token", base_url=api.url) as client:
        client.add_observer(observer)
        with pytest.raises(NotFound):
            await client.deployments.get("r1")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await client.deployments.get("r1")
    async with ApiClient("canary-token", base_url=f"http://127.0.0.1:{unused_tcp_port}") as client:
        client.add_observer(observer)
        with pytest.raises(NotSent):
            await client.deployments.get("r1")

    found = scrape(registry)
    outcomes = {key.split()[2] for key in found if key.startswith("edgegap_calls_total ")}
    assert outcomes == {"404", "cancelled", "NotSent"}
    assert found["edgegap_request_duration_seconds_count get_deployment none"] >= 2


async def test_a_deployment_that_may_go_on_running_is_counted_as_lost(
    api: ScriptedApi, registry: CollectorRegistry
) -> None:
    api.on(*DEPLOY, Reply(lost=True))
    api.on("GET", "/v1/deployments", Reply(403, body={"message": "Forbidden"}))
    async with EdgegapClient("canary-token", base_url=api.url) as client:
        client.add_observer(PrometheusObserver(registry=registry))
        with pytest.raises(MaybeCreated):
            await client.deploy("arena", "v1", users=["8.8.8.8"])

    assert scrape(registry)["edgegap_deployments_total lost"] == 1


async def test_a_scrape_in_another_thread_reads_the_rate_limits(
    api: ScriptedApi, registry: CollectorRegistry
) -> None:
    api.on(*STATUS, READY)
    found = dict[str, float]()
    async with EdgegapClient("canary-token", base_url=api.url) as client:
        client.add_observer(PrometheusObserver(limits=client.limits, registry=registry))
        await client.deployments.get("r1")
        thread = threading.Thread(target=lambda: found.update(scrape(registry)))
        thread.start()
        await asyncio.to_thread(thread.join)

    assert found["edgegap_limit_limit get_deployment"] == 20
    assert found["edgegap_limit_free get_deployment"] <= 10
    assert found["edgegap_limit_queued get_deployment"] == 0
    assert found["edgegap_limit_rate get_deployment"] > 19


@pytest.mark.parametrize("taken", ["edgegap_webhooks", "edgegap_limit_free"])
async def test_after_a_clash_of_names_a_registry_is_as_it_was(
    taken: str, registry: CollectorRegistry
) -> None:
    clashing = Gauge(taken, "of the program itself", registry=registry)
    before = scrape(registry)
    limits = ApiClient("canary-token").limits
    with pytest.raises(ValueError, match=taken):
        PrometheusObserver(limits=limits, registry=registry)

    assert scrape(registry) == before
    registry.unregister(clashing)
    PrometheusObserver(limits=limits, registry=registry)
    with pytest.raises(ValueError, match="edgegap_calls"):
        PrometheusObserver(registry=registry)
