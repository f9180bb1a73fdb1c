"""Objects that are used in another event loop than theirs, as fixtures of another scope make it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import attrs
import pytest
from webhook_servers import ARENA, USERS

from edgegap_async import (
    Batch,
    DeploymentHandle,
    DeployRequest,
    EdgegapClient,
    ServerPool,
    WebhookReceiver,
)
from edgegap_async.emulator import Emulator, Simulation, Timings
from edgegap_async.errors import WrongLoop

ADVICE = "with pytest-asyncio give fixtures and tests the same loop_scope"


def an_emulator() -> Emulator:
    simulate = Simulation(ready_after=(0.05, 0.05))
    return Emulator([ARENA], timings=Timings.fast(), simulate=simulate)


def a_request() -> DeployRequest:
    return DeployRequest(application="arena", version="v1", users=USERS)


def a_pool(client: EdgegapClient) -> ServerPool:
    return ServerPool(client, "arena", "v1", users=USERS, min_ready=1)


@attrs.define
class Home:
    """Objects of one event loop."""

    emulator: Emulator
    client: EdgegapClient
    server: DeploymentHandle
    batch: Batch
    pool: ServerPool
    receiver: WebhookReceiver


@contextlib.asynccontextmanager
async def a_home() -> AsyncIterator[Home]:
    async with (
        WebhookReceiver().serve() as receiver,
        an_emulator() as emulator,
        EdgegapClient(emulator.token, base_url=emulator.url) as client,
        client.run("arena", "v1", users=USERS) as server,
        client.deploy_many([a_request()]) as batch,
        a_pool(client) as pool,
    ):
        await pool.filled()
        yield Home(emulator, client, server, batch, pool, receiver)


async def enter(block: contextlib.AbstractAsyncContextManager[Any]) -> None:
    async with block:
        pass


async def first(iterator: AsyncIterator[Any]) -> object:
    return await anext(aiter(iterator))


async def allocate(pool: ServerPool) -> object:
    return await pool.allocate()


async def deploy_with_webhooks(home: Home) -> None:
    async with (
        an_emulator() as emulator,
        EdgegapClient(emulator.token, base_url=emulator.url, webhooks=home.receiver) as client,
    ):
        await client.deploy("arena", "v1", users=USERS)


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


def fails_at_once(runner: asyncio.Runner, use: Callable[[], Awaitable[object]]) -> WrongLoop:
    """Returns the WrongLoop that a use must raise instead of waiting for the other loop."""

    async def timed() -> None:
        async with asyncio.timeout(20):
            await use()

    with pytest.raises(WrongLoop, match=ADVICE) as caught:
        runner.run(timed())
    return caught.value


USES: dict[str, Callable[[Home], Awaitable[object]]] = {
    "call": lambda home: home.client.locations.list(),
    "deploy": lambda home: home.client.deploy("arena", "v1", users=USERS),
    "client's block": lambda home: enter(home.client),
    "close": lambda home: home.client.close(),
    "run": lambda home: enter(home.client.run("arena", "v1", users=USERS)),
    "recover": lambda home: first(home.client.recover("op-1")),
    "wait": lambda home: home.server.wait_ready(),
    "refresh": lambda home: home.server.refresh(),
    "stop": lambda home: home.server.stop(),
    "changes": lambda home: first(home.server.changes()),
    "batch's block": lambda home: enter(home.client.deploy_many([a_request()])),
    "batch's end": lambda home: home.batch.__aexit__(None, None, None),
    "batch's outcomes": lambda home: first(home.batch),
    "batch's all": lambda home: home.batch.all(),
    "pool's block": lambda home: enter(a_pool(home.client)),
    "pool's end": lambda home: home.pool.__aexit__(None, None, None),
    "allocate": lambda home: allocate(home.pool),
    "allocate's block": lambda home: enter(home.pool.allocate()),
    "filled": lambda home: home.pool.filled(),
    "receiver": deploy_with_webhooks,
    "receiver's close": lambda home: home.receiver.close(),
    "emulator's reset": lambda home: home.emulator.reset(),
    "emulator's close": lambda home: home.emulator.close(),
}


def test_row_35_every_object_names_the_other_loop_and_goes_on_in_its_own(
    runner: asyncio.Runner,
) -> None:
    with asyncio.Runner() as home_runner:
        block = a_home()
        home = home_runner.run(block.__aenter__())
        for use in USES.values():
            fails_at_once(runner, lambda use=use: use(home))  # type: ignore[misc]
        home_runner.run(allocate(home.pool))
        assert home_runner.run(first(home.batch))
        home_runner.run(block.__aexit__(None, None, None))


async def use_directly(client: EdgegapClient) -> None:
    await client.deploy("arena", "v1", users=USERS)


EMULATOR_USES: dict[str, Callable[[EdgegapClient], Awaitable[object]]] = {
    "client's block": enter,
    "deploy": use_directly,
    "list": lambda client: client.locations.list(),
    "wait": lambda client: client.handle("abc123").wait_ready(),
    "run": lambda client: enter(client.run("arena", "v1", users=USERS)),
    "batch": lambda client: client.deploy_many([a_request()]).all(),
    "pool": lambda client: enter(a_pool(client)),
}


@pytest.mark.parametrize("use", EMULATOR_USES.values(), ids=EMULATOR_USES)
def test_row_35_an_emulator_in_a_loop_that_does_not_run_is_named_at_once(
    use: Callable[[EdgegapClient], Awaitable[object]], runner: asyncio.Runner
) -> None:
    with asyncio.Runner() as home_runner:
        emulator = an_emulator()
        home_runner.run(emulator.start())
        client = EdgegapClient(emulator.token, base_url=emulator.url)
        error = fails_at_once(runner, lambda: use(client))
        runner.run(client.close())
        assert emulator.cloud.deployments == {}
        assert f"the emulator at {emulator.url} belongs to another event loop" in str(error)
        home_runner.run(emulator.close())


def test_row_35_an_emulator_and_a_receiver_in_the_running_loop_of_a_thread_serve_all_loops() -> (
    None
):
    started, done = threading.Event(), threading.Event()
    objects: list[Any] = []

    async def serve() -> None:
        async with an_emulator() as emulator, WebhookReceiver().serve() as receiver:
            objects.extend([emulator, receiver])
            started.set()
            while not done.is_set():
                await asyncio.sleep(0.01)

    thread = threading.Thread(target=asyncio.run, args=[serve()])
    thread.start()
    started.wait()
    emulator, receiver = objects

    async def use() -> set[str]:
        async with (
            EdgegapClient(emulator.token, base_url=emulator.url, webhooks=receiver) as client,
            client.run("arena", "v1", users=USERS) as server,
        ):
            return {change.source for change in server.history}

    try:
        began = time.monotonic()
        assert asyncio.run(use())
        assert time.monotonic() - began < 30
        assert receiver.stats.received >= 1
    finally:
        done.set()
        thread.join()
