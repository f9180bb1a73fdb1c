"""One program with a cluster: its permits, its settings, its end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from program_that_shares import measure_stalls
from redis_server import Callers, RedisServer, most_in_one_second, programs, until
from slow_connections import LIMITS, StrictServer, call_often, slow_dns

from edgegap_async import Cluster, EdgegapClient, Limits, WebhookReceiver
from edgegap_async.api.operations import DEPLOY, LIST_DEPLOYMENTS
from edgegap_async.cluster.permits import SharedPermits
from edgegap_async.concurrency import loop_time
from edgegap_async.emulator import Emulator, Simulation, sample_application
from edgegap_async.errors import InvalidRequest, LimitReached


async def test_a_client_works_with_the_limits_of_a_cluster(redis: RedisServer) -> None:
    async with (
        Emulator(apps=[sample_application()], simulate=Simulation()) as emulator,
        Cluster(redis.url) as cluster,
        EdgegapClient(emulator.token, base_url=emulator.url, limits=cluster.limits) as client,
    ):
        accepted = await client.deployments.deploy("arena", "v1", users=["8.8.8.8"])
        assert (await client.deployments.get(accepted.request_id)).request_id == accepted.request_id
        await client.deployments.stop(accepted.request_id)


async def test_row_75_slow_dns_let_no_second_exceed_the_shared_limit(
    redis: RedisServer,
) -> None:
    async with (
        StrictServer() as server,
        slow_dns(1.5),
        programs(redis.url, 2) as clusters,
        contextlib.AsyncExitStack() as stack,
    ):
        clients = [
            await stack.enter_async_context(
                EdgegapClient(
                    "canary-t",
                    base_url=server.url,
                    limits=cluster.limits,
                    allow_insecure=True,
                )
            )
            for cluster in clusters
        ]
        await asyncio.gather(*(call_often(client, "deploy", 60) for client in clients))

    # In real time, a busy machine delays some calls on their way.
    assert most_in_one_second(server.arrivals["deploy"], second=0.9) <= LIMITS["deploy"]


async def test_row_75_a_call_that_opens_a_slow_connection_uses_one_slot(
    redis: RedisServer,
) -> None:
    connector = aiohttp.TCPConnector(force_close=True, use_dns_cache=False)
    async with (
        StrictServer() as server,
        slow_dns(0.3),
        aiohttp.ClientSession(connector=connector) as session,
        programs(redis.url, 1) as [cluster],
        EdgegapClient(
            "canary-t", base_url=server.url, limits=cluster.limits, session=session
        ) as client,
    ):
        began = loop_time()
        await call_often(client, "deploy", 190)
        lasted = loop_time() - began

    # A burst of ten, and then 38 calls a second; with two slots for each call it is 19.
    assert lasted < 180 / 38 * 1.7
    assert most_in_one_second(server.arrivals["deploy"], second=0.9) <= LIMITS["deploy"]


async def test_slots_that_no_call_uses_are_given_back(redis: RedisServer) -> None:
    async with programs(redis.url, 2, limits={"deploy": 2}) as [one, other]:
        calls = [asyncio.create_task(one.limits.acquire(DEPLOY)) for _ in range(5)]
        await calls[0]
        await until(lambda: len(one.limits._queues["deploy"].permits._slots) > 0)  # type: ignore[attr-defined]
        for call in calls:
            call.cancel()
        one.limits.on_rate_limited(DEPLOY, 0)  # the slots cannot be used any more
        await until(lambda: not one._connection._tasks)
        reply = await other._connection.request_slots("deploy", limit=2, wanted=1, horizon=3)

    assert reply is not None
    # Half a second after the first call, and not after the slots that were leased.
    assert reply.slots[0].at - loop_time() < 1.2


async def test_a_call_that_would_wait_longer_than_max_wait_fails(redis: RedisServer) -> None:
    async with programs(redis.url, 1, limits={"deploy": 1}) as [cluster]:
        limits = cluster.limits
        await limits.acquire(DEPLOY, max_wait=0)
        with pytest.raises(LimitReached) as caught:
            await limits.acquire(DEPLOY, max_wait=0)
        assert 0 < (caught.value.predicted_wait or 0) <= 1.1
        with pytest.raises(LimitReached):
            await limits.acquire(DEPLOY, max_wait=0.01)
        await limits.acquire(LIST_DEPLOYMENTS, max_wait=0)


@pytest.mark.parametrize("where", ["entering", "leaving"])
async def test_a_cluster_that_is_cancelled_at_any_step_leaves_no_connection(
    redis: RedisServer, where: str
) -> None:
    async def use(entered: asyncio.Event, go_on: asyncio.Event) -> None:
        async with Cluster(redis.url):
            entered.set()
            await go_on.wait()

    is_over = False
    steps = 0
    while not is_over:
        entered, go_on = asyncio.Event(), asyncio.Event()
        using = asyncio.create_task(use(entered, go_on))
        if where == "leaving":
            await entered.wait()
            go_on.set()
        for _ in range(steps):
            await asyncio.sleep(0)
        is_over = entered.is_set() if where == "entering" else using.done()
        using.cancel()
        await asyncio.gather(using, return_exceptions=True)
        await until(redis.has_no_other_client)
        steps += 1

    assert steps > 3


async def test_a_cluster_that_is_closed_at_once_leaves_no_connection(redis: RedisServer) -> None:
    async with Cluster(redis.url) as cluster:
        cluster.webhook_source(WebhookReceiver("http://127.0.0.1:1"))

    await until(redis.has_no_other_client)


async def test_a_call_cancelled_during_the_request_to_redis_leaves_its_slot_to_the_next_call(
    redis: RedisServer,
) -> None:
    async with programs(redis.url, 1, limits={"deploy": 1}) as [cluster]:
        connection, permits = cluster._connection, cluster.limits._queues["deploy"].permits
        assert isinstance(permits, SharedPermits)
        caller = asyncio.create_task(cluster.limits.acquire(DEPLOY))
        while not connection._tasks:
            await asyncio.sleep(0)
        caller.cancel()
        await asyncio.gather(caller, return_exceptions=True)
        await until(lambda: not connection._tasks)

        assert len(permits._slots) == 1


@pytest.mark.timeout(30)
async def test_simultaneous_calls_of_one_program_are_served_in_order(
    redis: RedisServer,
) -> None:
    served: list[int] = []
    stalls: list[float] = []

    async def call(limits: Limits, number: int) -> None:
        await limits.acquire(DEPLOY)
        served.append(number)

    async with programs(redis.url, 1) as [cluster]:
        watching = asyncio.create_task(measure_stalls(stalls))
        await asyncio.gather(*(call(cluster.limits, number) for number in range(30)))
        watching.cancel()

    # If the machine stalls, a slot is lost, and the call for it goes later.
    assert served == list(range(30)) or max(stalls) > 0.015


async def test_a_call_cancelled_before_its_slot_leaves_the_slot_to_the_next_call(
    redis: RedisServer,
) -> None:
    async with programs(redis.url, 1, limits={"deploy": 1}) as [cluster]:
        permits = cluster.limits._queues["deploy"].permits
        assert isinstance(permits, SharedPermits)
        cluster._connection.round_trip = 9.0  # so the slot is nine seconds ahead
        caller = asyncio.create_task(cluster.limits.acquire(DEPLOY))
        await until(lambda: permits._next_shared_at > 0 and not cluster._connection._tasks)
        caller.cancel()
        await asyncio.gather(caller, return_exceptions=True)

        assert len(permits._slots) == 1


async def test_slots_expire_while_the_event_loop_is_blocked(redis: RedisServer) -> None:
    async with programs(redis.url, 1) as [cluster]:
        callers = Callers([cluster])
        for _ in range(4):
            await callers.more(8)
            time.sleep(0.3)  # noqa: ASYNC251 - that is the fault
        await callers.more(20)
        await callers.end()

    assert most_in_one_second(callers.times) <= 40


async def test_a_snapshot_shows_the_state_of_the_limits(redis: RedisServer) -> None:
    async with programs(redis.url, 1) as [cluster]:
        await cluster.limits.acquire(DEPLOY)
        state = cluster.limits.snapshot()["deploy"]

        assert (state.limit, state.rate, state.queued, state.closed_for) == (40, 38, 0, 0)
        assert state.free == 0  # no slot is leased
        assert state.predicted_wait == 0
        callers = Callers([cluster])
        await callers.more(5)
        # On a busy machine the slots of a moment may all have passed.
        await until(lambda: cluster.limits.snapshot()["deploy"].predicted_wait > 0)
        await callers.end()
        cluster.limits.on_rate_limited(DEPLOY, 60)
        state = cluster.limits.snapshot()["deploy"]
        assert state.free == 0
        assert 59 < state.closed_for <= 60
        assert state.predicted_wait > 59
        with pytest.raises(LimitReached):
            await cluster.limits.acquire(DEPLOY, max_wait=1)


async def test_a_cluster_that_is_not_open_is_an_error() -> None:
    cluster = Cluster("redis://127.0.0.1:1")

    with pytest.raises(InvalidRequest, match="open the cluster first"):
        await cluster.limits.acquire(DEPLOY)


async def test_a_cluster_needs_a_url_and_a_namespace() -> None:
    nothing: Any = None
    with pytest.raises(InvalidRequest, match="the url of its Redis: redis://host:port"):
        Cluster(nothing)
    with pytest.raises(InvalidRequest, match="the same for all programs"):
        Cluster("redis://127.0.0.1", namespace=nothing)


async def test_the_repr_hides_the_password() -> None:
    cluster = Cluster("rediss://me:hush@redis.example.com:6380/2?password=hush")

    assert repr(cluster) == "Cluster('rediss://redis.example.com:6380/2')"


@pytest.mark.parametrize("user", ["", "me"])
@pytest.mark.parametrize("unknown", [("HELLO",), ("AUTH",), ("HELLO", "AUTH")])
async def test_a_password_in_an_error_of_redis_is_not_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, unknown: tuple[str, ...], user: str
) -> None:
    password = "canary-redis-5d20"
    renamed = [word for name in unknown for word in ("--rename-command", name, "")]
    server = RedisServer(tmp_path, "--requirepass", password, *renamed)
    await server.start()
    try:
        async with Cluster(f"redis://{user}:{password}@127.0.0.1:{server.port}") as cluster:
            is_shared = not cluster._connection.is_lost
            await cluster.limits.acquire(DEPLOY)
    finally:
        await server.kill()

    lines = [r.getMessage() for r in caplog.records if r.name.startswith("edgegap_async.cluster")]
    assert len(lines) == (0 if is_shared else 1)
    assert not any(password in line for line in lines)
    assert all("Error" in line for line in lines)


async def test_the_text_of_a_network_error_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    async with Cluster(f"redis://127.0.0.1:{port}"):
        pass

    assert "ConnectionError: Error" in caplog.text
    assert f"127.0.0.1:{port}" in caplog.text


async def test_a_missing_redis_package_is_an_error_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)

    with pytest.raises(InvalidRequest, match=r"pip install 'edgegap-async\[redis\]'"):
        Cluster("redis://127.0.0.1")
