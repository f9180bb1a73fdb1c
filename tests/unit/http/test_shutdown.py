"""How `close` ends the open calls and waits of a client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import aiohttp
import pytest
from scripted_api import Reply, ScriptedApi
from scripted_calls import SEEN, STATUS

from edgegap_async.concurrency import loop_time
from edgegap_async.errors import (
    ClientClosed,
    EdgegapError,
)
from edgegap_async.http.api_client import ApiClient

pytestmark = pytest.mark.virtual
Waiting = Callable[[ScriptedApi, ApiClient], Coroutine[Any, Any, Any]]


async def in_flight(api: ScriptedApi, client: ApiClient) -> None:
    api.on(*STATUS, Reply(delay=20))
    await client.deployments.get("r1")


async def in_the_limiter(api: ScriptedApi, client: ApiClient) -> None:
    api.on(*STATUS, SEEN)
    await asyncio.gather(*(client.deployments.get("r1") for _ in range(300)))


async def in_back_off(api: ScriptedApi, client: ApiClient) -> None:
    api.on(*STATUS, Reply(429, headers={"Retry-After": "30"}))
    await client.deployments.get("r1")


async def in_a_list(api: ScriptedApi, client: ApiClient) -> None:
    api.on("GET", "/v1/deployments", Reply(delay=20))
    async for _ in client.deployments.list():
        pass


WAITS = [in_flight, in_the_limiter, in_back_off, in_a_list]


@pytest.mark.parametrize("wait", WAITS)
async def test_row_31_close_ends_every_wait_at_once(
    api: ScriptedApi, client: ApiClient, wait: Waiting
) -> None:
    waiting = asyncio.create_task(wait(api, client))
    await asyncio.sleep(3)
    assert not waiting.done()
    began = loop_time()
    await client.close()
    with pytest.raises(ClientClosed):
        await waiting

    assert loop_time() - began < 0.1
    assert waiting.cancelling() == 0


@pytest.mark.parametrize("wait", WAITS)
async def test_the_callers_own_timeout_keeps_its_meaning(
    api: ScriptedApi, client: ApiClient, wait: Waiting
) -> None:
    began = loop_time()
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(3):
            await wait(api, client)

    assert not isinstance(caught.value, EdgegapError)
    assert loop_time() - began == pytest.approx(3, abs=0.1)


@pytest.mark.parametrize("wait", WAITS)
async def test_the_callers_own_cancellation_keeps_its_meaning(
    api: ScriptedApi, client: ApiClient, wait: Waiting
) -> None:
    waiting = asyncio.create_task(wait(api, client))
    await asyncio.sleep(3)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    sent = len(api.requests)
    await asyncio.sleep(60)

    assert len(api.requests) == sent


async def test_a_cancellation_wins_over_a_close_in_the_same_moment(
    api: ScriptedApi, client: ApiClient
) -> None:
    waiting = asyncio.create_task(in_flight(api, client))
    await api.until_asked(*STATUS)
    waiting.cancel()
    await client.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_call_that_ends_while_the_client_closes_is_client_closed(
    api: ScriptedApi, client: ApiClient
) -> None:
    with pytest.raises(ClientClosed):
        await asyncio.gather(in_flight(api, client), close_soon(client))


async def close_soon(client: ApiClient) -> None:
    await asyncio.sleep(1)
    await client.close()


async def test_a_call_in_the_cleanup_of_a_cancelled_task_is_client_closed_too(
    api: ScriptedApi, client: ApiClient
) -> None:
    async def work() -> str:
        try:
            await asyncio.sleep(100)
        finally:
            try:
                await in_flight(api, client)
            except ClientClosed:
                cleaned.set()
        return "not reached"

    cleaned = asyncio.Event()
    working = asyncio.create_task(work())
    await asyncio.sleep(1)
    working.cancel()
    await api.until_asked(*STATUS)
    await client.close()
    with pytest.raises(asyncio.CancelledError):
        await working

    assert cleaned.is_set()


async def test_two_closes_at_once_are_one(api: ScriptedApi, client: ApiClient) -> None:
    waiting = asyncio.create_task(in_flight(api, client))
    await api.until_asked(*STATUS)
    await asyncio.gather(client.close(), client.close())
    with pytest.raises(ClientClosed):
        await waiting


async def test_close_scopes_may_be_nested(api: ScriptedApi, client: ApiClient) -> None:
    api.on(*STATUS, SEEN, Reply(delay=20))

    async def work() -> None:
        with client.until_closed():
            await client.deployments.get("r1")
            await client.deployments.get("r1")

    working = asyncio.create_task(work())
    await api.until_asked(*STATUS, times=2)
    await client.close()
    with pytest.raises(ClientClosed):
        await working


async def test_a_close_scope_that_fails_as_it_is_closed_keeps_its_own_error(
    client: ApiClient,
) -> None:
    async def work() -> None:
        with client.until_closed():
            try:
                await asyncio.sleep(100)
            finally:
                raise LookupError

    working = asyncio.create_task(work())
    await asyncio.sleep(1)
    await client.close()
    with pytest.raises(LookupError):
        await working

    assert working.cancelling() == 0


async def test_after_close_nothing_is_sent_and_closing_twice_is_fine(
    api: ScriptedApi, client: ApiClient
) -> None:
    await client.close()
    await client.close()
    with pytest.raises(ClientClosed):
        await client.deployments.get("r1")

    assert not api.requests


async def test_a_session_that_was_passed_in_outlives_the_client(api: ScriptedApi) -> None:
    api.on(*STATUS, SEEN)
    async with aiohttp.ClientSession() as session:
        async with ApiClient("canary-t", base_url=api.url, session=session) as client:
            await client.deployments.get("r1")

        assert not session.closed
        assert not session.trace_configs


async def test_a_call_outside_of_a_task_is_a_programming_error(client: ApiClient) -> None:
    loop = asyncio.get_running_loop()
    message = loop.create_future()

    def step() -> None:
        coroutine = client.deployments.get("r1")
        try:
            coroutine.send(None)
        except RuntimeError as error:
            message.set_result(str(error))

    loop.call_soon(step)

    assert await message == "a client must be used inside an asyncio task"
