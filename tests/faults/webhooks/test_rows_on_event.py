"""Row 43: the application's `on_event` raises, blocks or ends late."""

from __future__ import annotations

import asyncio
import functools
import json

import pytest
from cancelled_tasks import cancel_library_tasks
from emulated_cloud import until
from webhook_servers import (
    each_front,
    post,
    receiver_in,
)

from edgegap_async.concurrency import loop_time
from edgegap_async.models import WebhookEvent

virtual = pytest.mark.virtual


def saying(request_id: str) -> bytes:
    return json.dumps({"request_id": request_id, "current_status": "Status.READY"}).encode()


@each_front
async def test_row_43_an_error_of_on_event_is_logged_and_the_next_event_is_handled(
    front: str, caplog: pytest.LogCaptureFixture
) -> None:
    taken: list[str] = []

    async def raise_first(event: WebhookEvent) -> None:
        taken.append(event.deployment.request_id)
        if len(taken) == 1:
            raise RuntimeError("an error of on_event")

    async with receiver_in(front, on_event=raise_first) as receiver:
        one, two = receiver.open(lambda: None), receiver.open(lambda: None)
        assert await post(one.url("ready"), saying("first")) == 204
        assert await post(two.url("ready"), saying("second")) == 204
        await until(lambda: receiver.stats.handled == 1)

        assert taken == ["first", "second"]
        assert receiver.stats.failed == 1
    assert "on_event failed for webhook 'ready' of deployment first" in caplog.text
    assert "an error of on_event" in caplog.text
    assert one.url("ready").split("/")[-2] not in caplog.text


@each_front
async def test_row_43_an_on_event_that_blocks_delays_no_answer_and_further_events_are_dropped(
    front: str,
) -> None:
    free = asyncio.Event()
    triggered: list[int] = []

    async def block(_: WebhookEvent) -> None:
        await free.wait()

    async with receiver_in(front, on_event=block, max_waiting=2) as receiver:
        subscriptions = [
            receiver.open(functools.partial(triggered.append, number)) for number in range(5)
        ]
        for number, subscription in enumerate(subscriptions):
            assert await post(subscription.url("ready"), saying(f"number-{number}")) == 204

        # One is being handled, two wait, two are dropped; each has triggered.
        assert triggered == [0, 1, 2, 3, 4]
        assert (receiver.stats.handled, receiver.stats.dropped) == (0, 2)
        free.set()
        await until(lambda: receiver.stats.handled == 3)


async def test_row_43_a_dropped_event_is_handled_when_it_is_sent_again() -> None:
    free = asyncio.Event()
    taken: list[str] = []

    async def block(event: WebhookEvent) -> None:
        await free.wait()
        taken.append(event.deployment.request_id)

    async with receiver_in("served", on_event=block, max_waiting=1) as receiver:
        subscriptions = [receiver.open(lambda: None) for _ in range(3)]
        for number, subscription in enumerate(subscriptions):
            await post(subscription.url("ready"), saying(f"number-{number}"))
        free.set()
        await until(lambda: receiver.stats.handled == 2)
        await post(subscriptions[2].url("ready"), saying("number-2"))
        await until(lambda: receiver.stats.handled == 3)

        assert taken == ["number-0", "number-1", "number-2"]


async def test_row_43_a_body_without_a_deployment_triggers_and_is_not_an_event() -> None:
    triggered = asyncio.Event()

    async def handle(_: WebhookEvent) -> None:
        pytest.fail("there is no event")

    async with receiver_in("served", on_event=handle) as receiver:
        subscription = receiver.open(triggered.set)
        assert await post(subscription.url("ready"), b"{}") == 204
        assert triggered.is_set()
        assert receiver.stats.dropped == 1


@virtual
@pytest.mark.parametrize("front", ["served", "attached", "asgi alone"])
async def test_row_43_a_receiver_that_ends_waits_five_seconds_for_on_event(
    front: str, caplog: pytest.LogCaptureFixture
) -> None:
    taken: list[str] = []

    async def slowly(event: WebhookEvent) -> None:
        await asyncio.sleep(2)
        taken.append(event.deployment.request_id)

    async with receiver_in(front, on_event=slowly) as receiver:
        subscriptions = [receiver.open(lambda: None) for _ in range(4)]
        for number, subscription in enumerate(subscriptions):
            await post(subscription.url("ready"), saying(f"number-{number}"))
        began = loop_time()

    assert loop_time() - began < 7
    assert taken == ["number-0", "number-1"]
    assert (receiver.stats.handled, receiver.stats.dropped) == (2, 2)
    assert "closed before on_event had handled 2 events" in caplog.text


async def test_row_43_a_closed_receiver_answers_503_and_can_be_closed_twice() -> None:
    async with receiver_in("starlette") as receiver:
        subscription = receiver.open(lambda: pytest.fail("triggered"))
        await receiver.close()
        await receiver.close()

        assert await post(subscription.url("ready")) == 503


@virtual
async def test_row_74_events_are_handled_although_the_program_cancels_the_task(
    caplog: pytest.LogCaptureFixture,
) -> None:
    begun: list[str] = []

    async def slowly(event: WebhookEvent) -> None:
        begun.append(event.deployment.request_id)
        await asyncio.sleep(1)

    async with receiver_in("served", on_event=slowly) as receiver:
        subscriptions = [receiver.open(lambda: None) for _ in range(4)]
        for number, subscription in enumerate(subscriptions):
            await post(subscription.url("ready"), saying(f"number-{number}"))
        for _ in range(2):
            cancel_library_tasks("WebhookReceiver._handle_events")
            await asyncio.sleep(0.5)
        await until(lambda: receiver.stats.handled == 2)
        cancel_library_tasks("WebhookReceiver._handle_events")

    assert begun == [f"number-{number}" for number in range(4)]
    assert (receiver.stats.failed, receiver.stats.dropped) == (2, 0)
    assert caplog.text.count("on_event failed for webhook 'ready' of deployment number-") == 2


@virtual
async def test_row_74_a_receiver_that_ends_after_a_cancellation_handles_what_waits() -> None:
    handled: list[str] = []

    async def handle(event: WebhookEvent) -> None:
        handled.append(event.deployment.request_id)

    async with receiver_in("served", on_event=handle) as receiver:
        subscription = receiver.open(lambda: None)
        await post(subscription.url("ready"), saying("first"))
        await until(lambda: handled)
        receiver._dispatch(receiver._subscriptions.popitem()[1], "error", saying("second"))
        cancel_library_tasks("WebhookReceiver._handle_events")  # before it has begun

    assert handled == ["first", "second"]
