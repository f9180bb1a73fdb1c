"""Webhooks that reach one program are forwarded to the program that waits for them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar

import aiohttp
import pytest
from redis_server import RedisServer, programs, until

from edgegap_async import Cluster, EdgegapClient, PollingPolicy, WebhookReceiver
from edgegap_async.emulator import Emulator, Simulation, sample_application
from edgegap_async.errors import InvalidRequest


class ProgramsBehindOneUrl:
    """Programs behind one public URL: the first one receives every webhook."""

    def __init__(self, clusters: list[Cluster], url: str) -> None:
        self.receivers = [WebhookReceiver(url) for _ in clusters]
        self.triggered = [asyncio.Event() for _ in clusters]
        self.subscriptions = [
            cluster.webhook_source(receiver).open(triggered.set)
            for cluster, receiver, triggered in zip(
                clusters, self.receivers, self.triggered, strict=True
            )
        ]


@contextlib.asynccontextmanager
async def behind_one_url(clusters: list[Cluster]) -> AsyncIterator[ProgramsBehindOneUrl]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    behind = ProgramsBehindOneUrl(clusters, f"http://127.0.0.1:{port}")
    async with behind.receivers[0].serve(port=port):
        yield behind


async def post(url: str, body: str = "{}") -> int:
    async with aiohttp.ClientSession() as session, session.post(url, data=body) as response:
        return response.status


async def test_a_webhook_triggers_a_deployment_of_another_program(redis: RedisServer) -> None:
    async with programs(redis.url, 3) as clusters, behind_one_url(clusters) as behind:
        assert await post(behind.subscriptions[2].url("ready")) == 204
        await behind.triggered[2].wait()
        assert [triggered.is_set() for triggered in behind.triggered] == [False, False, True]
        assert await post(behind.subscriptions[0].url("ready")) == 204
        assert behind.triggered[0].is_set()
        assert await post(behind.subscriptions[1].url("ready")) == 204
        await behind.triggered[1].wait()
        [stream] = await redis.command("KEYS", "*:webhooks")
        assert await redis.command("XLEN", stream) == 2


async def test_an_unknown_webhook_triggers_no_deployment(redis: RedisServer) -> None:
    async with programs(redis.url, 2) as clusters, behind_one_url(clusters) as behind:
        url = behind.subscriptions[1].url("ready")
        secret = url.split("/")[-2]
        assert await post(url.replace(secret, "made-up")) == 404
        assert await post(url.replace(secret, secret[::-1])) == 204
        assert await post(url, "garbage") == 204  # the body is not read
        await behind.triggered[1].wait()
        assert [triggered.is_set() for triggered in behind.triggered] == [False, True]


async def test_an_entry_of_another_kind_in_the_stream_is_skipped(redis: RedisServer) -> None:
    async with programs(redis.url, 2) as clusters, behind_one_url(clusters) as behind:
        await redis.command("XADD", clusters[1]._relay._stream, "*", "not", "a webhook")
        assert await post(behind.subscriptions[1].url("ready")) == 204
        await behind.triggered[1].wait()


async def test_a_wait_ends_by_a_webhook_that_came_to_another_program(redis: RedisServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    own, others = WebhookReceiver(url), WebhookReceiver(url)
    async with (
        programs(redis.url, 2) as [here, there],
        there.webhook_source(others).serve(port=port),
        Emulator(
            apps=[sample_application()],
            simulate=Simulation(ready_after=(0.2, 0.2)),
        ) as emulator,
        EdgegapClient(
            emulator.token,
            base_url=emulator.url,
            limits=here.limits,
            webhooks=here.webhook_source(own),
            polling=PollingPolicy(first_delay=3600, interval=3600),
        ) as client,
    ):
        handle = await client.deploy("arena", "v1", users=["8.8.8.8"])
        await handle.wait_ready(timeout=50)

        assert (own.stats.received, others.stats.received) == (0, 1)
        assert [change.source for change in handle.history][-1] == "webhook"
        await handle.stop()


class CountingReceiver:
    """A receiver that records which hashes are triggered."""

    def __init__(self) -> None:
        self.forward: Callable[[bytes], None] | None = None
        self.triggered: list[bytes] = []

    def trigger(self, key: bytes) -> bool:
        self.triggered.append(key)
        return True


async def test_a_receiver_that_two_clients_use_is_triggered_once(redis: RedisServer) -> None:
    async with programs(redis.url, 2) as [here, there]:
        own, others = CountingReceiver(), CountingReceiver()
        for _ in range(2):
            assert here.webhook_source(own) is own
        there.webhook_source(others)
        assert others.forward is not None
        others.forward(b"key")
        await until(lambda: bool(own.triggered))

        assert own.triggered == [b"key"]


async def test_a_webhook_source_needs_an_open_cluster() -> None:
    with pytest.raises(InvalidRequest, match="open the cluster first"):
        Cluster("redis://127.0.0.1:1").webhook_source(WebhookReceiver("http://127.0.0.1:1"))


async def test_row_33_webhooks_are_forwarded_again_once_redis_is_back(redis: RedisServer) -> None:
    async with programs(redis.url, 2) as clusters, behind_one_url(clusters) as behind:
        await redis.kill()
        assert await post(behind.subscriptions[1].url("ready")) == 204
        await until(lambda: not any(cluster.is_shared for cluster in clusters))
        assert await post(behind.subscriptions[1].url("ready")) == 204
        await redis.start()
        await until(lambda: all(cluster.is_shared for cluster in clusters))

        async def arrives() -> bool:
            assert await post(behind.subscriptions[1].url("ready")) == 204
            return behind.triggered[1].is_set()

        await until(arrives)


async def test_row_81_the_relay_and_the_heartbeat_run_in_no_callers_context(
    redis: RedisServer,
) -> None:
    caller = ContextVar("caller", default="none")
    triggered_in, logged_in = asyncio.Queue[str](), asyncio.Queue[str]()
    logger = logging.getLogger("edgegap_async.cluster.connection")

    def note_context(_: logging.LogRecord) -> bool:
        logged_in.put_nowait(caller.get())
        return True

    caller.set("first")
    logger.addFilter(note_context)
    try:
        async with programs(redis.url, 2) as [here, there]:
            own, other = (
                WebhookReceiver("http://127.0.0.1:1"),
                WebhookReceiver("http://127.0.0.1:1"),
            )
            here.webhook_source(own)
            subscription = there.webhook_source(other).open(
                lambda: triggered_in.put_nowait(caller.get())
            )
            secret = subscription.url("ready").split("/")[-2]
            assert own.forward is not None
            own.forward(hashlib.sha256(secret.encode()).digest())
            assert await triggered_in.get() == "none"
            await redis.kill()
            assert await logged_in.get() == "none"  # the heartbeat reports that Redis is lost
    finally:
        logger.removeFilter(note_context)
