"""The events of a deployment's life that observers get."""

from __future__ import annotations

import asyncio
from typing import Any

import attrs
import pytest
from scripted_api import Reply, ScriptedApi, deployment

from edgegap_async import EdgegapClient, RetryPolicy, WebhookReceiver
from edgegap_async.errors import Forbidden, MaybeCreated, Unprocessable
from edgegap_async.models import StatusChange
from edgegap_async.observability import ObservedDeployment, Observer

pytestmark = pytest.mark.virtual

DEPLOY = ("POST", "/v2/deployments")
STATUS = ("GET", "/v1/status/abc123")
STOP = ("DELETE", "/v1/stop/abc123")
LIST = ("GET", "/v1/deployments")
ACCEPTED = Reply(202, body={"request_id": "abc123"})
STOPPED = Reply(body={"message": "stopping"})
NO_ROWS = Reply(body={"data": [], "total_count": 0})


@attrs.define(eq=False)
class Recorder(Observer):
    """Notes each event with the request_id and the details."""

    events: list[tuple[object, ...]] = attrs.field(factory=list)
    deployments: set[ObservedDeployment] = attrs.field(factory=set)

    def note(self, event: str, deployment: ObservedDeployment, *details: object) -> None:
        self.deployments.add(deployment)
        self.events.append((event, deployment.request_id, *details))

    def deployment_created(self, deployment: ObservedDeployment) -> None:
        self.note("created", deployment)

    def deployment_adopted(self, deployment: ObservedDeployment) -> None:
        self.note("adopted", deployment)

    def deployment_ready(self, deployment: ObservedDeployment) -> None:
        self.note("ready", deployment, deployment.source)

    def deployment_stopped(self, deployment: ObservedDeployment, by: str) -> None:
        self.note("stopped", deployment, by)

    def deployment_lost(self, deployment: ObservedDeployment) -> None:
        self.note("lost", deployment)

    def status_changed(self, request_id: str, change: StatusChange) -> None:
        self.events.append((str(change.status), request_id, change.source))

    def webhook_received(self, request_id: str) -> None:
        self.events.append(("webhook", request_id))


async def test_the_life_of_a_deployment_goes_from_its_deploy_to_its_stop(api: ScriptedApi) -> None:
    api.on(*DEPLOY, ACCEPTED)
    api.on(*STATUS, deployment("DEPLOYING"), deployment("READY"))
    api.on(*STOP, STOPPED)
    observer = Recorder()
    async with EdgegapClient("canary-token", base_url=api.url) as client:
        client.add_observer(observer)
        async with client.run("arena", "v1", users=["8.8.8.8"]) as server:
            began = server.history[0].at

    assert observer.events == [
        ("created", "abc123"),
        ("DEPLOYING", "abc123", "status"),
        ("ready", "abc123", "status"),
        ("READY", "abc123", "status"),
        ("stopped", "abc123", "client"),
    ]
    [life] = observer.deployments
    assert (life.application, life.version) == ("arena", "v1")
    assert (life.operation_tag or "").startswith("op-")
    waited = (server.history[-1].at - began).total_seconds()
    assert life.ready_after is not None
    assert 0 < life.ready_after < waited + 2


async def test_a_ready_that_a_webhook_brought_says_so(api: ScriptedApi) -> None:
    api.on(*DEPLOY, ACCEPTED)
    api.on(*STATUS, deployment("READY"))
    api.on(*STOP, STOPPED)
    observer = Recorder()
    receiver = WebhookReceiver("https://game.example/edgegap")
    async with EdgegapClient("canary-token", base_url=api.url, webhooks=receiver) as client:
        client.add_observer(observer)
        server = await client.deploy("arena", "v1", users=["8.8.8.8"])
        waiting = asyncio.create_task(server.wait_ready())
        await asyncio.sleep(0)
        [key] = receiver._subscriptions
        receiver.trigger(key)
        await waiting
        await server.stop()

    assert observer.events == [
        ("created", "abc123"),
        ("webhook", "abc123"),
        ("ready", "abc123", "webhook"),
        ("READY", "abc123", "webhook"),
        ("stopped", "abc123", "client"),
    ]


async def test_a_deployment_that_ends_by_itself_was_stopped_by_another(api: ScriptedApi) -> None:
    api.on(*DEPLOY, ACCEPTED)
    api.on(*STATUS, deployment("TERMINATED"))
    observer = Recorder()
    async with EdgegapClient("canary-token", base_url=api.url) as client:
        client.add_observer(observer)
        server = await client.deploy("arena", "v1", users=["8.8.8.8"])
        await server.wait_terminated()

    assert ("stopped", "abc123", "other") in observer.events
    assert ("stopped", "abc123", "client") not in observer.events


async def test_a_deployment_that_cannot_be_stopped_is_lost(api: ScriptedApi) -> None:
    api.on(*DEPLOY, ACCEPTED)
    api.on(*STATUS, deployment("READY"))
    api.on(*STOP, Reply(403, body={"message": "Forbidden"}))
    observer = Recorder()
    async with EdgegapClient("canary-token", base_url=api.url) as client:
        client.add_observer(observer)
        with pytest.raises(Forbidden):
            async with client.run("arena", "v1", users=["8.8.8.8"]):
                pass

    assert observer.events[-1] == ("lost", "abc123")


async def test_a_deploy_whose_answer_stays_lost_is_lost_with_its_tag(api: ScriptedApi) -> None:
    api.on(*DEPLOY, Reply(lost=True))
    api.on(*LIST, NO_ROWS)
    observer = Recorder()
    async with EdgegapClient("canary-token", base_url=api.url) as client:
        client.add_observer(observer)
        with pytest.raises(MaybeCreated) as caught:
            await client.deploy("arena", "v1", users=["8.8.8.8"])

    assert observer.events == [("lost", None)]
    [life] = observer.deployments
    assert life.operation_tag == caught.value.operation_tag


async def test_a_deploy_whose_caller_is_cancelled_is_created_and_stopped(api: ScriptedApi) -> None:
    api.on(*DEPLOY, attrs.evolve(ACCEPTED, delay=5))
    api.on(*STOP, STOPPED)
    observer = Recorder()
    async with EdgegapClient("canary-token", base_url=api.url) as client:
        client.add_observer(observer)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await client.deploy("arena", "v1", users=["8.8.8.8"])

    assert observer.events == [("created", "abc123"), ("stopped", "abc123", "client")]


async def test_a_cancelled_deploy_that_cannot_be_undone_is_lost(api: ScriptedApi) -> None:
    api.on(*DEPLOY, Reply(503, delay=5))
    api.on(*LIST, Reply(403, body={"message": "Forbidden"}))
    observer = Recorder()
    async with EdgegapClient("canary-token", base_url=api.url) as client:
        client.add_observer(observer)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await client.deploy("arena", "v1", users=["8.8.8.8"])

    assert observer.events == [("lost", None)]


async def test_a_failed_deployment_that_the_client_stops_is_adopted(api: ScriptedApi) -> None:
    api.on(*DEPLOY, Reply(422, body={"message": "no capacity", "request_id": "abc123"}))
    api.on(*STOP, STOPPED)
    observer = Recorder()
    async with EdgegapClient("canary-token", base_url=api.url) as client:
        client.add_observer(observer)
        with pytest.raises(Unprocessable):
            async with client.run("arena", "v1", users=["8.8.8.8"]):
                pass

    assert observer.events == [("adopted", "abc123"), ("stopped", "abc123", "client")]


async def test_each_event_is_rare_enough_that_an_observer_may_raise_in_all_of_them(
    api: ScriptedApi, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Recorder):
        def note(self, event: str, deployment: ObservedDeployment, *details: object) -> None:
            super().note(event, deployment, *details)
            raise LookupError(event)

        def environment(self) -> dict[str, str]:
            raise LookupError

    api.on(*DEPLOY, ACCEPTED)
    api.on(*STATUS, deployment("READY"))
    api.on(*STOP, STOPPED)
    observer = Broken()
    async with EdgegapClient(
        "canary-token", base_url=api.url, retries=RetryPolicy(attempts=1)
    ) as client:
        client.add_observer(observer)
        async with client.run("arena", "v1", users=["8.8.8.8"]):
            pass

    assert [event[0] for event in observer.events] == ["created", "ready", "READY", "stopped"]
    [record] = [one for one in caplog.records if one.levelname == "ERROR"]
    assert "raised in environment" in record.getMessage()


@pytest.mark.parametrize("wrong", [{"": "x"}, {"A=B": "x"}, {"GOOD": "x", "LONG": "x" * 5000}, 5])
async def test_a_variable_of_an_observer_that_no_deploy_can_have_changes_no_deploy(
    api: ScriptedApi, wrong: Any, caplog: pytest.LogCaptureFixture
) -> None:
    class Strange(Observer):
        def environment(self) -> dict[str, str]:
            variables: dict[str, str] = wrong
            return variables

    api.on(*DEPLOY, ACCEPTED)
    api.on(*STATUS, deployment("READY"))
    api.on(*STOP, STOPPED)
    async with EdgegapClient("canary-token", base_url=api.url) as client:
        client.add_observer(Strange())
        async with client.run("arena", "v1", users=["8.8.8.8"]):
            pass

    [request] = api.asked(*DEPLOY)
    assert "environment_variables" not in request.json
    assert "raised in environment" in caplog.text


async def test_the_environment_of_observers_reaches_the_game_server_and_the_caller_wins(
    api: ScriptedApi,
) -> None:
    class Region(Observer):
        def environment(self) -> dict[str, str]:
            return {"REGION": "eu", "MODE": "duel"}

    api.on(*DEPLOY, ACCEPTED)
    async with EdgegapClient("canary-token", base_url=api.url) as client:
        client.add_observer(Region())
        await client.deploy(
            "arena", "v1", users=["8.8.8.8"], environment_variables={"MODE": "ranked"}
        )

    [request] = api.requests
    sent = {one["key"]: one["value"] for one in request.json["environment_variables"]}
    assert sent == {"REGION": "eu", "MODE": "ranked"}
