"""A program that cancels the tasks of a cluster, and goes on to use the cluster."""

from __future__ import annotations

import asyncio
import signal

import pytest
from cancelled_tasks import cancel_library_tasks
from redis_server import RedisServer, programs, until

from edgegap_async import Cluster, WebhookReceiver
from edgegap_async.api.operations import DEPLOY
from edgegap_async.cluster import connection


async def test_row_74_a_cluster_whose_heartbeat_is_cancelled_finds_redis_again(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "REDIS_TIMEOUT", 1.0)
    async with programs(redis.url, 1) as [cluster]:
        assert cancel_library_tasks("RedisConnection._send_heartbeats")
        await redis.kill()
        await cluster.limits.acquire(DEPLOY)
        await until(lambda: not cluster.is_shared)
        await redis.start()
        await until(lambda: cluster.is_shared)


@pytest.mark.parametrize("has_begun", [False, True])
async def test_row_74_calls_get_their_permits_although_the_request_for_them_is_cancelled(
    redis: RedisServer, *, has_begun: bool
) -> None:
    async with programs(redis.url, 1) as [cluster]:
        for _ in range(3):
            calls = [asyncio.create_task(cluster.limits.acquire(DEPLOY)) for _ in range(8)]
            redis.send(signal.SIGSTOP)  # so that the request does not end meanwhile
            while not cancel_library_tasks("SharedPermits._request_lease"):
                await asyncio.sleep(0 if not has_begun else 0.01)
            redis.send(signal.SIGCONT)
            async with asyncio.timeout(20):
                await asyncio.gather(*calls)
        assert cluster.is_shared


async def test_row_74_webhooks_are_forwarded_although_reader_and_writer_are_cancelled(
    redis: RedisServer,
) -> None:
    async with programs(redis.url, 2) as [here, there]:
        own = WebhookReceiver("http://127.0.0.1:1")
        other = there.webhook_source(WebhookReceiver("http://127.0.0.1:1"))
        here.webhook_source(own)
        triggered = asyncio.Event()
        assert other.forward is not None
        for _ in range(3):
            subscription = own.open(triggered.set)
            [key] = own._subscriptions.keys()
            assert cancel_library_tasks("WebhookRelay._read")
            other.forward(key)
            assert cancel_library_tasks("WebhookRelay._write")
            await triggered.wait()
            triggered.clear()
            own._subscriptions.clear()
            del subscription


@pytest.mark.parametrize("gap", [0.0, 0.01])
async def test_row_74_a_cluster_whose_end_is_cancelled_closes_its_connections(
    redis: RedisServer, gap: float
) -> None:
    async def use() -> None:
        async with Cluster(redis.url) as cluster:
            cluster.webhook_source(WebhookReceiver("http://127.0.0.1:1"))
            opened.set()
            await asyncio.Event().wait()

    opened = asyncio.Event()
    using = asyncio.create_task(use())
    await opened.wait()
    using.cancel()
    while not cancel_library_tasks("Cluster._close"):
        await asyncio.sleep(0)
    await asyncio.sleep(gap)
    cancel_library_tasks("Cluster._close")
    await asyncio.wait([using])

    assert using.cancelled()
    await until(redis.has_no_other_client)
