"""The events that observers receive, and what an observer cannot change."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import attrs
import pytest
from scripted_api import Reply, ScriptedApi

from edgegap_async import ApiClient, Deployment, RetryPolicy
from edgegap_async.errors import InvalidRequest, LimitReached, NoAnswer, NotFound, ServerError
from edgegap_async.observability import ObservedCall, Observer

pytestmark = pytest.mark.virtual

TOKEN = "canary-5d1c"
STATUS = ("GET", "/v1/status/r1")
STOP = ("DELETE", "/v1/stop/r1")
READY = Reply(body={"request_id": "r1", "current_status": "Status.READY"})


@attrs.define(eq=False)
class Recorder(Observer):
    """Notes each event with the fields of its call at that time."""

    events: list[tuple[object, ...]] = attrs.field(factory=list)
    calls: set[ObservedCall] = attrs.field(factory=set)

    def note(self, event: str, call: ObservedCall, *details: object) -> None:
        self.calls.add(call)
        self.events.append((event, call.attempts, call.status, *details))

    def call_started(self, call: ObservedCall) -> None:
        self.note("call_started", call)

    def attempt_started(self, call: ObservedCall) -> None:
        self.note("attempt_started", call)

    def attempt_failed(self, call: ObservedCall, error: Exception, retry_in: float | None) -> None:
        self.note("attempt_failed", call, type(error), retry_in is not None)

    def call_succeeded(self, call: ObservedCall, result: object) -> None:
        self.note("call_succeeded", call, type(result))

    def call_failed(self, call: ObservedCall, error: BaseException) -> None:
        self.note("call_failed", call, type(error))


async def test_a_call_and_each_of_its_attempts_have_a_start_and_an_end(api: ScriptedApi) -> None:
    api.on(*STATUS, Reply(503), Reply(lost=True), READY)
    observer = Recorder()
    async with ApiClient(TOKEN, base_url=api.url) as client:
        client.add_observer(observer)
        await client.deployments.get("r1")

    assert observer.events == [
        ("call_started", 0, None),
        ("attempt_started", 1, None),
        ("attempt_failed", 1, 503, ServerError, True),
        ("attempt_started", 2, None),
        ("attempt_failed", 2, None, NoAnswer, True),
        ("attempt_started", 3, None),
        ("call_succeeded", 3, 200, Deployment),
    ]
    [call] = observer.calls
    assert (call.operation.name, call.request_id) == ("get_deployment", "r1")
    assert call.waited > 0
    assert TOKEN not in repr(call)


async def test_a_call_that_fails_ends_with_its_last_attempt(api: ScriptedApi) -> None:
    api.on(*STATUS, Reply(404))
    observer = Recorder()
    async with ApiClient(TOKEN, base_url=api.url) as client:
        client.add_observer(observer)
        with pytest.raises(NotFound):
            await client.deployments.get("r1")

    assert observer.events[-2:] == [
        ("attempt_failed", 1, 404, NotFound, False),
        ("call_failed", 1, 404, NotFound),
    ]


async def test_a_stop_whose_first_answer_was_lost_succeeds_with_its_second_attempt(
    api: ScriptedApi,
) -> None:
    api.on(*STOP, Reply(lost=True), Reply(410, body={"message": "terminated"}))
    observer = Recorder()
    async with ApiClient(TOKEN, base_url=api.url) as client:
        client.add_observer(observer)
        await client.deployments.stop("r1")

    assert observer.events[-1][:3] == ("call_succeeded", 2, 410)


async def test_a_cancelled_call_ends_too(api: ScriptedApi) -> None:
    api.on(*STATUS, Reply(delay=60))
    observer = Recorder()
    async with ApiClient(TOKEN, base_url=api.url) as client:
        client.add_observer(observer)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await client.deployments.get("r1")

    assert observer.events[-1] == ("call_failed", 1, None, asyncio.CancelledError)


async def test_an_attempt_tells_how_long_it_queued_and_a_call_that_could_not_wait_fails(
    api: ScriptedApi,
) -> None:
    api.on(*STATUS, READY)
    observer = Recorder()
    limits = {"get_deployment": 1}
    async with ApiClient(TOKEN, base_url=api.url, limits=limits) as client:
        client.add_observer(observer)
        await client.deployments.get("r1")
        await client.deployments.get("r1")
    async with ApiClient(TOKEN, base_url=api.url, limits=limits, on_limit="raise") as client:
        await client.deployments.get("r1")
        client.add_observer(observer)
        with pytest.raises(LimitReached):
            await client.deployments.get("r1")

    first, second, third = sorted(observer.calls, key=lambda call: (-call.attempts, call.queued))
    assert first.queued == pytest.approx(0, abs=0.01)
    assert second.queued == pytest.approx(1.025, abs=0.1)
    assert third.attempts == 0
    assert observer.events[-1] == ("call_failed", 0, None, LimitReached)


@pytest.mark.parametrize("kind", [LookupError, asyncio.CancelledError, GeneratorExit])
async def test_what_an_observer_raises_is_logged_once_and_changes_no_call(
    api: ScriptedApi, caplog: pytest.LogCaptureFixture, kind: type[BaseException]
) -> None:
    class Broken(Recorder):
        def note(self, event: str, call: ObservedCall, *details: object) -> None:
            super().note(event, call, *details)
            raise kind(event)

    api.on(*STATUS, Reply(503), READY, Reply(404))
    broken, whole = Broken(), Recorder()
    async with ApiClient(TOKEN, base_url=api.url) as client:
        client.add_observer(broken)
        client.add_observer(whole)
        await client.deployments.get("r1")
        with pytest.raises(NotFound):
            await client.deployments.get("r1")

    assert len(broken.events) == len(whole.events) == 9
    [record] = [one for one in caplog.records if one.levelno >= logging.ERROR]
    assert "raised in call_started" in record.getMessage()


async def test_an_observer_needs_only_the_events_that_it_overrides(api: ScriptedApi) -> None:
    class Started(Observer):
        count = 0

        def call_started(self, call: ObservedCall) -> None:
            self.count += 1

    api.on(*STATUS, Reply(503))
    observer = Started()
    async with ApiClient(TOKEN, base_url=api.url, retries=RetryPolicy(attempts=1)) as client:
        client.add_observer(observer)
        with pytest.raises(ServerError):
            await client.deployments.get("r1")

    assert observer.count == 1


@pytest.mark.parametrize("wrong", [None, Observer, logging.getLogger()])
async def test_what_is_no_observer_is_refused(wrong: Any) -> None:
    async with ApiClient(TOKEN) as client:
        with pytest.raises(InvalidRequest, match="observer must be an Observer"):
            client.add_observer(wrong)
