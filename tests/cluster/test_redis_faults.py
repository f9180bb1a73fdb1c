"""Row 33: Redis is killed, frozen, emptied or replaced, and no call fails."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import signal
import socket
from collections.abc import Awaitable, Callable, Container
from pathlib import Path

import pytest
from raw_server import raw_server
from redis_server import Callers, RedisServer, most_in_one_second, programs, until

from edgegap_async import Cluster
from edgegap_async.api.operations import DEPLOY
from edgegap_async.concurrency import loop_time
from edgegap_async.errors import LimitReached


async def killed(redis: RedisServer, callers: Callers) -> None:
    await redis.kill()
    await callers.more(10)
    await redis.start()


async def frozen_for_five_seconds(redis: RedisServer, callers: Callers) -> None:
    redis.send(signal.SIGSTOP)
    began = loop_time()
    await callers.more(10)
    await until(lambda: loop_time() > began + 5)
    redis.send(signal.SIGCONT)


async def hiccup(redis: RedisServer, callers: Callers) -> None:
    redis.send(signal.SIGSTOP)
    began = loop_time()
    await until(lambda: not any(cluster.is_shared for cluster in callers.clusters))
    await until(lambda: loop_time() > began + 0.8)
    redis.send(signal.SIGCONT)


async def read_only_replica(redis: RedisServer, callers: Callers) -> None:
    await redis.command("REPLICAOF", "127.0.0.1", "1")
    await callers.more(10)
    await redis.command("REPLICAOF", "NO", "ONE")


async def evicted(redis: RedisServer, callers: Callers) -> None:
    await redis.command("DEL", *await redis.command("KEYS", "*"))
    await callers.more(5)


async def script_flushed(redis: RedisServer, callers: Callers) -> None:
    await redis.command("SCRIPT", "FLUSH")
    await callers.more(5)


async def connections_killed(redis: RedisServer, callers: Callers) -> None:
    await redis.command("CLIENT", "KILL", "TYPE", "normal")
    await callers.more(5)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("fault", "noticed_by"),
    [
        (killed, {4}),
        (frozen_for_five_seconds, {4}),
        (hiccup, {4}),
        (read_only_replica, {4}),
        (evicted, {0}),
        (script_flushed, {0}),
        (connections_killed, range(5)),  # redis-py reconnects by itself, or does not
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_row_33_a_fault_of_redis_reaches_no_caller(
    redis: RedisServer,
    caplog: pytest.LogCaptureFixture,
    fault: Callable[[RedisServer, Callers], Awaitable[None]],
    noticed_by: Container[int],
) -> None:
    caplog.set_level(logging.INFO, "edgegap_async.cluster")
    async with programs(redis.url, 4) as clusters:
        caplog.clear()
        callers = Callers(clusters)
        await callers.more(10)
        before = loop_time()
        await fault(redis, callers)
        healed = loop_time()
        await until(lambda: callers.failed() or all(cluster.is_shared for cluster in clusters))
        await callers.more(10)
        await callers.end()

    lines = [record.getMessage() for record in caplog.records]
    lost = [line for line in lines if line.startswith("Redis is lost")]
    back = [line for line in lines if line.startswith("Redis is back")]
    print(
        f"{fault.__name__}: at most {most_in_one_second(callers.times)} in a second, "
        f"{sum(before < stamp <= healed for stamp in callers.times)} in the "
        f"{healed - before:.1f} s of the fault, {lines[:1]}"
    )
    assert most_in_one_second(callers.times) <= 40
    assert len(lost) == len(back)
    assert len(lost) in noticed_by
    assert [cluster.programs for cluster in clusters] == [4, 4, 4, 4]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("seconds", [0.5, 1.5, 2.5, 4.0])
async def test_row_83_the_limit_holds_while_redis_is_stopped_and_after_it(
    redis: RedisServer, seconds: float
) -> None:
    async with programs(redis.url, 4) as clusters:
        callers = Callers(clusters)
        await callers.more(15)
        redis.send(signal.SIGSTOP)
        stopped = loop_time()
        await until(lambda: loop_time() > stopped + seconds)
        redis.send(signal.SIGCONT)
        continued = loop_time()
        await until(lambda: callers.failed() or all(cluster.is_shared for cluster in clusters))
        shared = loop_time()
        await callers.more(15)
        await callers.end()

    assert most_in_one_second(callers.times) <= 40
    assert shared - continued < 3
    # No program is silent for longer than the slots of others may last.
    gaps = [later - sooner for sooner, later in itertools.pairwise(sorted(callers.times))]
    print(f"{seconds} s: at most {most_in_one_second(callers.times)}, {max(gaps):.1f} s silent")
    assert max(gaps) < 4


@pytest.mark.timeout(120)
async def test_row_83_the_limit_holds_if_one_program_does_not_notice_the_outage(
    redis: RedisServer,
) -> None:
    async with programs(redis.url, 3) as clusters:
        callers = Callers(clusters[:2])
        await callers.more(15)
        redis.send(signal.SIGSTOP)
        stopped = loop_time()
        await until(lambda: clusters[0]._connection.is_alone(loop_time()))
        await until(lambda: loop_time() > stopped + 4)
        others = Callers(clusters[2:])  # its first call comes when Redis is back
        redis.send(signal.SIGCONT)
        await until(lambda: all(cluster.is_shared for cluster in clusters))
        await others.more(15)
        await callers.end()
        await others.end()

    assert most_in_one_second(callers.times + others.times) <= 40


@pytest.mark.timeout(120)
async def test_row_83_more_programs_than_the_limit_keep_it_on_their_own(
    redis: RedisServer,
) -> None:
    async with programs(redis.url, 6, limits={"deploy": 3}) as clusters:
        callers = Callers(clusters)
        await callers.more(1)
        await redis.kill()
        await until(lambda: all(c._connection.is_alone(loop_time()) for c in clusters))
        began = loop_time()
        await callers.more(3)
        lasted = loop_time() - began
        sent = sum(at > began for at in callers.times)
        await callers.end()

    # Each sends once in two seconds, at a time of its own: one more than the quotient at most.
    assert sent <= 3 * lasted + 6


async def test_row_33_a_failover_reaches_no_caller(
    redis: RedisServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "edgegap_async.cluster")
    replica = RedisServer(tmp_path)
    await replica.start()
    leads_to = redis.port

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", leads_to)

        async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(2**16):
                sink.write(data)
            sink.close()

        with contextlib.closing(back):
            await asyncio.gather(copy(reader, back), copy(there, writer))

    try:
        await replica.command("REPLICAOF", "127.0.0.1", str(redis.port))
        async with (
            raw_server(forward) as port,
            programs(f"redis://127.0.0.1:{port}", 2) as clusters,
        ):
            caplog.clear()
            callers = Callers(clusters)
            await callers.more(10)
            leads_to = replica.port
            await redis.kill()
            await callers.more(10)
            assert not any(cluster.is_shared for cluster in clusters)
            await replica.command("REPLICAOF", "NO", "ONE")
            await until(lambda: callers.failed() or all(cluster.is_shared for cluster in clusters))
            await callers.more(10)
            await callers.end()
    finally:
        await replica.kill()

    lines = [record.getMessage() for record in caplog.records]
    assert most_in_one_second(callers.times) <= 40
    assert [line[:13] for line in sorted(lines)] == ["Redis is back"] * 2 + ["Redis is lost"] * 2


async def test_row_33_a_program_that_starts_without_redis_makes_one_call_a_second(
    redis: RedisServer,
) -> None:
    await redis.kill()
    async with Cluster(redis.url) as cluster:
        callers = Callers([cluster])
        await callers.more(3)
        assert most_in_one_second(callers.times) == 1
        assert cluster.programs is None
        assert cluster.limits.snapshot()["deploy"].rate == pytest.approx(1 / 1.05)
        await redis.start()
        await until(lambda: cluster.is_shared)
        await callers.more(10)
        await callers.end()


async def test_row_33_a_program_that_is_alone_slows_down_after_a_429(redis: RedisServer) -> None:
    await redis.kill()
    async with Cluster(redis.url) as cluster:
        limits = cluster.limits
        await limits.acquire(DEPLOY)
        state = limits.snapshot()["deploy"]
        assert state.free == 0
        assert 0 < state.predicted_wait < 1.05
        assert limits.snapshot()["list_deployments"].free == 1
        limits.on_rate_limited(DEPLOY, 0.2)

        with pytest.raises(LimitReached):
            await limits.acquire(DEPLOY, max_wait=0)
        state = limits.snapshot()["deploy"]
        assert state.rate == pytest.approx(0.93 / 1.05, rel=0.001)
        began = loop_time()
        await limits.acquire(DEPLOY)
        assert loop_time() - began >= 0.9


@pytest.mark.virtual
async def test_row_33_alone_the_429s_of_one_burst_cut_the_rate_once_and_it_recovers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    async with Cluster(f"redis://127.0.0.1:{port}") as cluster:

        def share() -> float:
            return cluster.limits.snapshot()["deploy"].rate * 1.05

        assert share() == pytest.approx(1)
        for _ in range(6):
            cluster.limits.on_rate_limited(DEPLOY, 0)
        assert share() == pytest.approx(0.93, rel=0.001)
        await asyncio.sleep(1.1)
        cluster.limits.on_rate_limited(DEPLOY, 0)
        assert share() == pytest.approx(0.93**2, rel=0.002)
        await asyncio.sleep(140)
        assert share() == pytest.approx(1)


async def test_row_33_foreign_keys_count_as_a_lost_redis(redis: RedisServer) -> None:
    async with programs(redis.url, 1) as [cluster]:
        for key in await redis.command("KEYS", "*"):
            await redis.command("SET", key, "something else")
        callers = Callers([cluster])
        await callers.more(20)
        await until(lambda: not cluster.is_shared)
        await callers.more(5)
        await redis.command("FLUSHALL")
        await until(lambda: cluster.is_shared)
        await callers.end()

    assert most_in_one_second(callers.times) <= 40


async def test_row_33_a_cluster_can_be_closed_while_redis_is_frozen(redis: RedisServer) -> None:
    async with programs(redis.url, 1) as [cluster]:
        callers = Callers([cluster])
        await callers.more(5)
        redis.send(signal.SIGSTOP)
    await callers.more(3)  # calls that still wait are served
    await callers.end()
    assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
