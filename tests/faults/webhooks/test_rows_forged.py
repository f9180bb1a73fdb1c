"""Row 40: forged webhooks, and the secrets of the URLs."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import logging

import pytest
from webhook_servers import (
    ALL_FRONTS,
    HUGE,
    USERS,
    a_cloud,
    each_front,
    head,
    polling_requests,
    post,
    receiver_in,
    send,
    status,
    statuses,
    urls,
)

from edgegap_async import Status, WebhookReceiver
from edgegap_async.concurrency import loop_time

virtual = pytest.mark.virtual


def without_date(answer: bytes) -> list[bytes]:
    return [line for line in answer.split(b"\r\n") if not line.lower().startswith(b"date:")]


@each_front
async def test_row_40_every_unknown_url_gets_the_same_answer_and_no_body_is_read(
    front: str,
) -> None:
    async with receiver_in(front) as receiver:
        subscription = receiver.open(lambda: pytest.fail("a forged webhook triggered"))
        known = subscription.url("ready")
        near = known[: -len("A/ready")] + ("B" if known[-7] == "A" else "A") + "/ready"
        unknown = (
            near,
            known.replace("/ready", "/steady"),
            known.replace("/ready", ""),
            known + "/more",
            known[:-40] + "/ready",
            known.rpartition("/edgegap")[0] + "/edgegap/webhooks/%C3%A9%FF/ready",
        )
        # The body never comes and is not awaited: the answers do not differ by it.
        requests = [head(url, "Content-Length: 1000000000") for url in unknown]
        answers = [without_date(await send(known, request)) for request in requests]

        assert {status(b"\r\n".join(answer)) for answer in answers} == {404}
        assert all(answer == answers[0] for answer in answers)
        assert receiver.stats.unknown == len(unknown)
        assert receiver.stats.refused == {}


@each_front
async def test_row_40_in_a_cluster_an_unknown_url_is_forwarded_and_no_body_is_read(
    front: str,
) -> None:
    async with receiver_in(front, max_reading=1) as receiver:
        forwarded: list[bytes] = []
        receiver.forward = forwarded.append
        subscription = receiver.open(lambda: None)
        known = subscription.url("ready")
        secret = known.split("/")[-2]
        unknown_here = known.replace(secret, secret[::-1])
        # Their bodies never come; an open connection would use up `max_reading`.
        answers = [await send(known, head(unknown_here, HUGE)) for _ in range(3)]
        short = known.replace(secret, secret[:42])
        strange = known.replace(secret, f"{secret[:-1]}~")
        malformed = [await send(known, head(url, HUGE)) for url in (short, strange)]

        assert {status(answer) for answer in answers} == {204}
        assert all(b"connection: close" in answer.lower() for answer in answers)
        assert forwarded == [hashlib.sha256(secret[::-1].encode()).digest()] * 3
        assert {status(answer) for answer in malformed} == {404}
        assert await post(known) == 204
        await receiver.close()
        assert await post(unknown_here) == 503


@virtual
@pytest.mark.parametrize("lie", ["READY", "TERMINATED", "ERROR"])
async def test_row_40_the_content_of_a_body_is_not_used(lie: str) -> None:
    async with (
        WebhookReceiver().serve() as receiver,
        a_cloud(receiver=receiver) as (emulator, client),
    ):
        server = await client.deploy("arena", "v1", users=USERS)
        waiting = asyncio.create_task(server.wait_ready())
        await asyncio.sleep(1)
        said = {"request_id": server.request_id, "current_status": f"Status.{lie}", "error": True}
        for url in urls(emulator, server).values():
            assert await post(url, json.dumps(said).encode()) == 204
        await asyncio.sleep(2)

        assert server.status is not None
        assert server.status == "DEPLOYING"
        assert (await waiting).current_status is Status.READY
        assert statuses(server) == ["DEPLOYING", "READY"]


@virtual
async def test_row_40_a_thousand_forged_webhooks_cost_two_more_status_requests_a_second() -> None:
    async with (
        WebhookReceiver().serve() as receiver,
        a_cloud(receiver=receiver) as (emulator, client),
    ):
        server = await client.deploy("arena", "v1", users=USERS)
        waiting = asyncio.create_task(server.wait_ready())
        await asyncio.sleep(1)
        url = urls(emulator, server)["ready"]
        began, polled = loop_time(), polling_requests(emulator)
        for _ in range(1000):
            assert await post(url) == 204
            await asyncio.sleep(0.01)
        spent, polled = loop_time() - began, polling_requests(emulator) - polled

        assert spent >= 10
        assert polled <= 2 * spent + 2 + 2.3 * spent  # the polling's own polling_requests too
        assert (await waiting).current_status is Status.READY


@virtual
async def test_row_40_many_webhooks_schedule_one_trigger_within_half_a_second() -> None:
    triggered: list[float] = []
    subscription = WebhookReceiver("https://mm.example").open(lambda: triggered.append(loop_time()))
    began = triggered_at = loop_time()
    for _ in range(1000):
        triggered_at = loop_time()
        subscription.trigger()
        await asyncio.sleep(0.001)
    await asyncio.sleep(60)

    assert triggered[0] - began < 0.01
    assert triggered_at <= triggered[-1] <= triggered_at + 0.51
    gaps = [later - earlier for earlier, later in itertools.pairwise(triggered)]
    assert gaps == pytest.approx([0.5] * len(gaps), abs=0.01)
    assert len(triggered) <= 4


@pytest.mark.parametrize("front", ALL_FRONTS)
async def test_row_40_82_a_webhook_arrives_and_its_secret_is_in_no_log_and_no_repr(
    front: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    access_log = logging.getLogger("uvicorn.access")
    # Another test's framework may have set up logging for the whole process.
    monkeypatch.setattr(access_log, "disabled", False)
    access_log.setLevel(logging.NOTSET)
    async with receiver_in(front) as receiver:
        subscription = receiver.open(lambda: None)
        secret = subscription.url("ready").split("/")[-2]
        answers = [
            await post(subscription.url("ready")),
            await post(f"{subscription.url('ready')}/"),
            await post(subscription.url("ready"), b"no"),
            await post(subscription.url("ready"), method="GET"),
            await post(subscription.url("ready"), b"{}", "Content-Encoding: gzip"),
            await post(subscription.url("ready"), b"{}", "Expect: made-up"),
        ]

        assert answers == [204, 204, 400, 405, 415, 204]
        assert receiver.stats.received == 3
        assert secret not in f"{subscription!r} {receiver!r} {receiver.stats!r} {vars(receiver)!r}"
    access = [r for r in caplog.records if "access" in r.name]
    assert len(access) == (0 if front == "served" else 6)
    assert all("/hidden/ready" in r.getMessage() for r in access)
    if not front.startswith("litestar"):  # they log the path below the mount
        assert all("/edgegap/webhooks/hidden/ready" in r.getMessage() for r in access)
    assert secret not in caplog.text
