"""Programs that share an account learn together that it allows fewer calls than documented."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from redis_server import RedisServer, programs
from slow_connections import StrictServer, call_often

from edgegap_async import Cluster
from edgegap_async.cluster.shared_limit import SharedLimit
from edgegap_async.cluster.slots import Slot, SlotReply
from edgegap_async.concurrency import loop_time
from edgegap_async.http.api_client import ApiClient
from edgegap_async.http.learned_limit import LearnedState


async def deploy_together(clusters: list[Cluster], server: StrictServer, each: int) -> None:
    """Sends as many deploys from each program, all at once."""
    async with contextlib.AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(
                ApiClient("canary-t", base_url=server.url, limits=cluster.limits)
            )
            for cluster in clusters
        ]
        await asyncio.gather(*(call_often(client, "deploy", each) for client in clients))


async def state_of(cluster: Cluster, state: LearnedState | None, version: int) -> SlotReply:
    reply = await cluster._connection.request_slots(
        "deploy", limit=40, version=version, learned=state
    )
    assert reply is not None
    return reply


@pytest.mark.timeout(120)
@pytest.mark.parametrize("allowed", [30, 15])
async def test_two_programs_learn_the_lower_limit_of_their_account(
    redis: RedisServer, allowed: int
) -> None:
    async with (
        StrictServer(limits={"deploy": allowed}) as server,
        programs(redis.url, 2) as clusters,
    ):
        await deploy_together(clusters, server, 2 * allowed)
        learning = server.refused
        await deploy_together(clusters, server, allowed)
        replies = [await state_of(cluster, None, 0) for cluster in clusters]

    assert len(server.arrivals["deploy"]) == 6 * allowed + server.refused
    assert 1 <= learning <= 20
    assert server.refused - learning <= 4  # at most one attempt to raise the limit
    for reply in replies:
        assert reply.learned is not None
        # Fewer or more than allowed, if the machine is slow: calls of one second arrive in two.
        assert 1 <= reply.learned.limit < 40


@pytest.mark.timeout(120)
async def test_no_deploy_of_two_programs_fails_where_the_account_allows_one_a_second(
    redis: RedisServer,
) -> None:
    async with StrictServer(limits={"deploy": 1}) as server, programs(redis.url, 2) as clusters:
        await deploy_together(clusters, server, 5)

    assert len(server.arrivals["deploy"]) == 10 + server.refused


async def test_of_two_programs_that_learn_at_the_same_time_the_first_one_counts(
    redis: RedisServer,
) -> None:
    async with programs(redis.url, 2) as [first, second]:
        now = loop_time()
        for_first = await state_of(first, LearnedState(30.0, now, 5.0), 0)
        for_second = await state_of(second, LearnedState(20.0, now, 5.0), 0)
        last = await state_of(second, LearnedState(25.0, now, 10.0), for_second.version)

    assert for_first.learned is not None
    assert (for_first.version, for_first.learned.limit) == (1, 30.0)
    assert for_second.learned is not None
    assert (for_second.version, for_second.learned.limit) == (1, 30.0)
    assert last.learned is not None
    assert (last.version, last.learned.limit, last.learned.hold) == (2, 25.0, 10.0)
    assert last.learned.changed_at == pytest.approx(now, abs=5)


async def test_timelines_that_redis_has_lost_begin_at_the_documented_limit(
    redis: RedisServer,
) -> None:
    async with programs(redis.url, 1) as [cluster]:
        limit, now = SharedLimit(40.0), loop_time()
        limit.take(await state_of(cluster, LearnedState(30.0, now, 60.0), 0))
        assert limit.at(now) == 30
        await redis.command("DEL", cluster._connection._keys[0])
        limit.take(await state_of(cluster, None, limit.version))

    assert limit.at(now) == 40
    assert limit.change is None


def test_a_call_that_was_sent_without_redis_teaches_nothing() -> None:
    limit = SharedLimit(40.0)
    assert limit.slot_of(None) is None
    limit.on_sent(1.0, Slot(1.0, 101.0))
    limit.on_sent(2.0, Slot(2.0))
    assert limit.slot_of(1.5) == Slot(1.0, 101.0)
    assert limit.slot_of(None) is None
    assert limit.slot_of(0.5) is None
