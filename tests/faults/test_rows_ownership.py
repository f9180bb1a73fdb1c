"""Who stops what when a program cancels, closes and recovers at odd moments. Rows 67 to 78."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import pytest
from aiohttp import web
from log_capture import logged_errors
from one_server import (
    DEPLOY,
    DEPLOYING,
    LIST,
    PLAYERS,
    STOP,
    cancel,
    one_server_api,
    run_server,
    stops,
)
from scripted_api import Reply, ScriptedApi
from tagged_api import TaggedApi, new_client

from edgegap_async import EdgegapClient, Guard
from edgegap_async.concurrency import loop_time
from edgegap_async.errors import ClientClosed, NotAllowed

pytestmark = pytest.mark.virtual


@pytest.fixture
async def api() -> AsyncIterator[ScriptedApi]:
    async with one_server_api() as api:
        yield api


@pytest.fixture
async def client(api: ScriptedApi) -> AsyncIterator[EdgegapClient]:
    async with EdgegapClient("canary-t", base_url=api.url, list_delay=5) as client:
        yield client


def cancel_all(servers: Iterable[asyncio.Task[Any]]) -> None:
    """Cancels every task of the loop but this one and those of the servers."""
    for task in asyncio.all_tasks() - {asyncio.current_task()} - set(servers):
        task.cancel()


async def cancel_all_until_none_is_left(servers: set[asyncio.Task[Any]]) -> None:
    """Cancels tasks as shutdown handlers do that begin again while tasks are left."""
    for _ in range(100):
        tasks = asyncio.all_tasks() - {asyncio.current_task()} - servers
        if not tasks:
            return
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=0.01)
    pytest.fail("the program does not come to its end")


def tasks_of_servers() -> set[asyncio.Task[Any]]:
    """Returns the tasks in progress that are not of the client: of test and HTTP servers."""
    return {task for task in asyncio.all_tasks() if "edgegap_async" not in _file_of(task)}


def _file_of(task: asyncio.Task[Any]) -> str:
    code = getattr(task.get_coro(), "cr_code", None)
    return code.co_filename if code else ""


# ── 67: a program that cancels all tasks ─────────────────────────────────────────────────────────


@pytest.mark.parametrize("gap", [0.0, 0.01, 0.3, 1.5])
async def test_row_67_stops_whose_tasks_the_program_cancels_begin_anew(
    api: ScriptedApi, client: EdgegapClient, gap: float
) -> None:
    api.on(*STOP, Reply(delay=1))
    with logged_errors() as errors:
        before = asyncio.all_tasks()
        running = asyncio.create_task(run_server(client))
        await asyncio.sleep(60)
        for _ in range(3):
            cancel_all(before | tasks_of_servers() - {running})
            await asyncio.sleep(gap)
        await asyncio.sleep(60)

    assert running.cancelled()
    assert client._deployer.register.state("abc123") is not None
    assert len(client._deployer.register) == 0
    assert not errors


async def test_row_67_a_program_that_cancels_tasks_until_none_is_left_comes_to_its_end(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    api.on(*STOP, Reply(delay=1))
    before = asyncio.all_tasks()
    running = asyncio.create_task(run_server(client))
    await asyncio.sleep(60)
    running.cancel()
    await api.until_asked(*STOP)
    await cancel_all_until_none_is_left(before | tasks_of_servers())
    assert len(client._deployer.register) == 1
    await client.close()

    assert len(client._deployer.register) == 0


@pytest.mark.parametrize("gap", [0.0, 0.01, 0.3, 1.5])
async def test_row_67_a_close_that_is_cancelled_twice_stops_what_it_can(
    api: ScriptedApi, client: EdgegapClient, gap: float
) -> None:
    api.on(*STOP, Reply(delay=1))
    with logged_errors() as errors:
        before = asyncio.all_tasks()
        running = asyncio.create_task(run_server(client))
        await asyncio.sleep(60)
        closing = asyncio.create_task(client.close())
        await api.until_asked(*STOP)
        for _ in range(2):
            cancel_all(before | tasks_of_servers() - {running, closing})
            await asyncio.sleep(gap)
        with pytest.raises(asyncio.CancelledError):
            await closing

    assert len(client._deployer.register) == 0
    assert not errors


@pytest.mark.parametrize("times", [1, 2, 3])
async def test_row_67_deploys_whose_tasks_the_program_cancels_are_undone(times: int) -> None:
    accepted = Reply(202, {"request_id": "server1"}, delay=3)
    async with TaggedApi(answers=[accepted], made=1) as api, new_client(api) as client:
        before = asyncio.all_tasks()
        deploying = asyncio.create_task(client.deploy("arena", "v1", users=PLAYERS))
        await asyncio.sleep(1)
        for _ in range(times):
            cancel_all(before | tasks_of_servers() - {deploying})
            await asyncio.sleep(0.3)
        await asyncio.sleep(60)

        assert (len(api.rows), api.running) == (1, [])
        assert len(client._deployer.register) == 0


async def test_row_67_a_deploy_without_a_tag_whose_tasks_are_cancelled_is_named(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    api.on(*DEPLOY, Reply(202, {"request_id": "abc123"}, delay=3))
    with logged_errors() as errors:
        before = asyncio.all_tasks()
        deploying = asyncio.create_task(
            client.deploy("arena", "v1", users=PLAYERS, operation_tag=False)
        )
        await asyncio.sleep(1)
        cancel_all(before | tasks_of_servers() - {deploying})
        await asyncio.sleep(60)

    [line] = errors
    assert "may go on running" in line
    assert "before the answer came" in line


@pytest.mark.parametrize("wait", [0.2, 2.5])
async def test_row_67_a_stop_of_the_caller_that_is_cancelled_goes_on(
    api: ScriptedApi, client: EdgegapClient, wait: float
) -> None:
    api.on(*STOP, Reply(503, headers={"Retry-After": "2"}), Reply(503), Reply(delay=1))
    server = await client.deploy("arena", "v1", users=PLAYERS)
    stopping = asyncio.create_task(server.stop(container_log_storage=True))
    await asyncio.sleep(wait)
    await cancel(stopping)
    await asyncio.sleep(30)

    assert client._deployer.register.state("abc123") is not None
    assert len(client._deployer.register) == 0
    assert {request.query["container_log_storage"] for request in api.asked(*STOP)} == {"true"}


async def test_row_67_a_stop_of_the_caller_that_a_close_ends_is_made_by_the_close(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    api.on(*STOP, Reply(503, headers={"Retry-After": "2"}), Reply(delay=1))
    server = await client.deploy("arena", "v1", users=PLAYERS)
    stopping = asyncio.create_task(server.stop())
    await api.until_asked(*STOP)
    await client.close()
    with pytest.raises(ClientClosed):
        await stopping

    assert len(client._deployer.register) == 0
    with pytest.raises(ClientClosed):
        await server.stop()
    assert stops(api) == 2


# ── 71: rows that vanish between pages ───────────────────────────────────────────────────────────


class VanishingApi(ScriptedApi):
    """An API that lists deployments in pages, and whose first page's rows end meanwhile.

    Args:
        ids: the deployments of an earlier run.
        vanishing: rows of page 1 that end when the page was read, each time while there are more.
        most: rows of one page at most.
    """

    def __init__(self, ids: Iterable[str], vanishing: int, most: int) -> None:
        super().__init__()
        self.live = list(ids)
        self.ended = list[str]()
        self.vanishing = vanishing
        self.most = most
        for request_id in self.live:
            self.on("DELETE", f"/v1/stop/{request_id}", Reply())

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if (request.method, request.path) == LIST:
            number, size = int(request.query["page"]), min(self.most, int(request.query["limit"]))
            shown = self.live[(number - 1) * size : number * size]
            rows = [{"request_id": one, "tags": ["own-mm-1"]} for one in shown]
            more = number * size < len(self.live)
            self.on(*LIST, Reply(200, {"data": rows, "pagination": {"has_next": more}}))
            if number == 1 and more:
                self.ended += self.live[: self.vanishing]
                self.live = self.live[self.vanishing :]
                self.vanishing //= 2
        if request.method == "DELETE":
            with contextlib.suppress(ValueError):
                self.live.remove(request.path.rpartition("/")[2])
        return await super()._answer(request)


@pytest.mark.parametrize(("count", "most"), [(45, 20), (450, 100), (450, 20)])
async def test_row_71_recover_misses_no_deployment_while_others_end(count: int, most: int) -> None:
    ids = [f"d{number:04}" for number in range(count)]
    async with (
        VanishingApi(ids, vanishing=8, most=most) as api,
        EdgegapClient("canary-t", base_url=api.url, owner="mm-1") as client,
    ):
        found = {one.handle.request_id async for one in client.recover()}

    assert set(api.live) <= found <= set(ids)


async def test_row_71_reap_leaves_no_deployment_while_others_end() -> None:
    ids = [f"d{number:04}" for number in range(145)]
    async with (
        VanishingApi(ids, vanishing=8, most=100) as api,
        EdgegapClient("canary-t", base_url=api.url, owner="mm-1") as client,
    ):
        for request_id in ids:
            api.on("DELETE", f"/v1/stop/{request_id}", Reply(410))
        stopped = await client.reap()

        assert api.live == []
        assert set(ids) - set(api.ended) <= set(stopped)


# ── 73: close in the client's own blocks ─────────────────────────────────────────────────────────


def requests_that_end(ending: Callable[[], Any]) -> AsyncIterator[Any]:
    async def requests() -> AsyncIterator[Any]:
        try:
            yield {"application": "arena", "version": "v1", "users": PLAYERS}
            raise LookupError("the queue is gone")
        finally:
            await ending()

    return requests()


async def test_row_73_an_iterator_may_close_the_client(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    began = loop_time()
    async with client.deploy_many(requests_that_end(client.close)) as batch:
        with pytest.raises((LookupError, ClientClosed)):  # as the first job has begun, or not
            _ = [outcome async for outcome in batch]
    await client.close()

    assert loop_time() - began < 5
    assert stops(api) == len(api.asked(*DEPLOY))


async def test_row_73_a_check_may_close_the_client(api: ScriptedApi, client: EdgegapClient) -> None:
    began = loop_time()

    async def closing(_: object) -> None:
        await client.close()

    request = {"application": "arena", "version": "v1", "users": PLAYERS}
    with pytest.raises(ClientClosed):
        await client.deploy_many([request] * 2, playable=closing).all()
    await client.close()

    assert loop_time() - began < 15
    assert stops(api) >= 1


async def test_row_73_an_iterator_that_suppresses_its_cancellation_ends_with_the_batch(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    async def requests() -> AsyncIterator[Any]:
        for number in itertools.count():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(3600 if number else 0)
            yield {"application": "arena", "version": "v1", "users": PLAYERS}

    began = loop_time()
    async with client.deploy_many(requests()):
        await asyncio.sleep(30)

    assert loop_time() - began < 31
    assert stops(api) == len(api.asked(*DEPLOY)) == 1


async def test_row_73_an_iterator_that_never_ends_delays_block_and_close_by_ten_seconds(
    api: ScriptedApi, client: EdgegapClient, caplog: pytest.LogCaptureFixture
) -> None:
    given_up = asyncio.Event()

    async def requests() -> AsyncIterator[Any]:
        yield {"application": "arena", "version": "v1", "users": PLAYERS}
        while not given_up.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await given_up.wait()

    began = loop_time()
    async with client.deploy_many(requests()):
        await asyncio.sleep(30)
    assert loop_time() - began == pytest.approx(40, abs=1)
    assert stops(api) == 1
    await client.close()

    assert loop_time() - began == pytest.approx(50, abs=1)
    assert "a batch does not end" in caplog.text
    assert "close() does not wait longer for tasks" in caplog.text
    given_up.set()
    await asyncio.sleep(1)


@pytest.mark.parametrize("times", [1, 2, 3])
async def test_row_73_a_close_that_is_cancelled_leaves_no_session_open(
    api: ScriptedApi, times: int
) -> None:
    for steps in range(1, 12):  # a close that is cancelled before its first step has not begun
        client = EdgegapClient("canary-t", base_url=api.url)
        await client.deploy("arena", "v1", users=PLAYERS)
        sessions = list(client._transport._sessions.values())
        waiting = asyncio.create_task(client.handle("abc123").wait_terminated(None))
        await asyncio.sleep(5)
        closing = asyncio.create_task(client.close())
        for _ in range(times):
            for _ in range(steps):
                await asyncio.sleep(0)
            closing.cancel()
        await asyncio.gather(closing, waiting, return_exceptions=True)

        assert sessions
        assert all(session.closed for session in sessions)


# ── 78: max_live ─────────────────────────────────────────────────────────────────────────────────


async def test_row_78_a_cancelled_deploy_counts_until_it_is_undone(api: ScriptedApi) -> None:
    api.on(*DEPLOY, Reply(202, {"request_id": "abc123"}, delay=5))
    api.on(*STOP, Reply(delay=5))
    guard = Guard(max_live=1)
    async with EdgegapClient("canary-t", base_url=api.url, guard=guard) as client:
        deploying = asyncio.create_task(client.deploy("arena", "v1", users=PLAYERS))
        await asyncio.sleep(1)
        await cancel(deploying)
        for _ in range(8):  # until the answer, and then until the end of the stop
            with pytest.raises(NotAllowed, match="1 deployments are live"):
                await client.deploy("arena", "v1", users=PLAYERS)
            await asyncio.sleep(1)
        await asyncio.sleep(3)
        await client.deploy("arena", "v1", users=PLAYERS)

    assert len(api.asked(*DEPLOY)) == 2


async def test_row_78_what_recover_has_given_to_the_program_counts_until_it_ends(
    api: ScriptedApi,
) -> None:
    rows = [{"request_id": "old1", "tags": ["own-mm-1"]}]
    api.on(*LIST, Reply(200, {"data": rows}))
    api.on("DELETE", "/v1/stop/old1", Reply())
    async with EdgegapClient(
        "canary-t", base_url=api.url, guard=Guard(max_live=1), owner="mm-1"
    ) as client:
        [found] = [one async for one in client.recover()]
        [found] = [one async for one in client.recover()]  # given again, and counted once
        with pytest.raises(NotAllowed, match="1 deployments are live"):
            await client.deploy("arena", "v1", users=PLAYERS)
        await found.handle.stop()
        await client.deploy("arena", "v1", users=PLAYERS)
        assert [one async for one in client.recover()] == []


async def test_row_78_a_cancelled_deploy_that_made_nothing_stops_counting(
    api: ScriptedApi,
) -> None:
    api.on(*DEPLOY, Reply(409, {"message": "no"}, delay=5), Reply(202, {"request_id": "abc123"}))
    guard = Guard(max_live=1)
    async with EdgegapClient("canary-t", base_url=api.url, guard=guard) as client:
        deploying = asyncio.create_task(client.deploy("arena", "v1", users=PLAYERS))
        await asyncio.sleep(1)
        await cancel(deploying)
        await asyncio.sleep(10)
        await client.deploy("arena", "v1", users=PLAYERS)


@pytest.mark.parametrize("status", [400, 404, 410])
async def test_row_78_a_deployment_that_the_poller_reports_as_ended_does_not_count(
    api: ScriptedApi, status: int
) -> None:
    api.on("GET", "/v1/status/abc123", DEPLOYING, DEPLOYING, Reply(status))
    async with EdgegapClient("canary-t", base_url=api.url, guard=Guard(max_live=1)) as client:
        server = await client.deploy("arena", "v1", users=PLAYERS)
        await server.wait_terminated(60)
        await asyncio.sleep(10)  # `list_delay`
        await client.deploy("arena", "v1", users=PLAYERS)

    assert len(api.asked(*DEPLOY)) == 2
