"""Whatever is awaited here may be cancelled at any step, over real sockets: nothing is left.

The emulator's own record is the judge: what lives there after the client was closed is what the
caller was handed, and nothing else. The numbers in names are the rows of faults that this package
promises to survive.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from step_canceller import CancelledAt

from edgegap_async import (
    Batch,
    ClientClosed,
    DeploymentHandle,
    DeployRequest,
    EdgegapClient,
    EdgegapError,
    Limits,
    PollingPolicy,
    ServerPool,
    Status,
    StopFilter,
)
from edgegap_async.api.operations import LIST_LOCATIONS, OPERATIONS
from edgegap_async.emulator import (
    Emulator,
    Fleet,
    PrivateHost,
    RecordedRequest,
    Timings,
    sample_application,
)
from edgegap_async.http.resources import Deployments, Locations, PrivateFleets, Tags

USERS = ["8.8.8.8"]
A_REQUEST = DeployRequest(application="arena", version="v1", users=USERS)
NO_LIMITS = dict.fromkeys((operation.name for operation in OPERATIONS if operation.limit), None)

Work = Callable[[EdgegapClient, DeploymentHandle], Awaitable[Any]]


# ── the canceller ────────────────────────────────────────────────────────────────────────────────


async def three_steps() -> str:
    await asyncio.sleep(0)
    await asyncio.create_task(asyncio.sleep(0))
    return "done"


@pytest.mark.parametrize(("step", "cancelled"), [(1, True), (2, True), (3, True), (4, False)])
async def test_the_steps_of_the_tasks_that_work_has_started_are_its_own(
    step: int, *, cancelled: bool
) -> None:
    canceller = CancelledAt[str](step)
    task = await canceller.run(three_steps())

    assert task.cancelled() == canceller.reached == cancelled
    assert cancelled or (task.result(), canceller.steps) == ("done", 3)


async def test_work_that_is_cancelled_twice_sees_both() -> None:
    seen = 0

    async def stubborn() -> None:
        nonlocal seen
        for _ in range(3):
            try:
                await asyncio.sleep(0.001)
            except asyncio.CancelledError:
                seen += 1

    await CancelledAt[None](1, times=2).run(stubborn())

    assert seen == 2


async def test_what_work_raises_is_what_its_task_holds() -> None:
    async def fail() -> None:
        await asyncio.sleep(0)
        raise ValueError("mine")

    task = await CancelledAt[None](9).run(fail())

    assert repr(task.exception()) == "ValueError('mine')"


# ── every public coroutine ───────────────────────────────────────────────────────────────────────


async def use(client: EdgegapClient, _: DeploymentHandle) -> None:
    async with client.run("arena", "v1", users=USERS, timeout=20):
        await asyncio.sleep(0)


async def follow(_: EdgegapClient, server: DeploymentHandle) -> None:
    async for _change in server.changes():
        if server.status is Status.READY:
            return


async def close_in_use(client: EdgegapClient, _: DeploymentHandle) -> None:
    async def run_to_the_end() -> None:
        with contextlib.suppress(ClientClosed):
            async with client.run("arena", "v1", users=USERS, timeout=20) as server:
                await server.wait_terminated(20)

    running = asyncio.create_task(run_to_the_end())
    await asyncio.wait([running], timeout=0.05)
    await client.close()
    await running


async def recover(client: EdgegapClient, _: DeploymentHandle) -> None:
    async for _found in client.recover("nobody's"):
        pass


async def fan_out(client: EdgegapClient, _: DeploymentHandle) -> None:
    async with client.deploy_many([A_REQUEST], timeout_each=20) as batch:
        async for outcome in batch:
            client._deployer.owned.add(outcome.result().request_id)  # it is not to be ours


async def all_of_them(client: EdgegapClient, _: DeploymentHandle) -> DeploymentHandle:
    [outcome] = await client.deploy_many([A_REQUEST], timeout_each=20).all()
    return outcome.result()


async def look_on(client: EdgegapClient, _: DeploymentHandle) -> None:
    async with client.deploy_many([A_REQUEST], timeout_each=20) as batch:
        async for _progress in batch.progress(0.05):
            pass


async def take(client: EdgegapClient, _: DeploymentHandle) -> None:
    async with (
        ServerPool(client, "arena", "v1", users=USERS, min_ready=0) as pool,
        pool.allocate(20),
    ):
        await asyncio.sleep(0)


async def fill(client: EdgegapClient, _: DeploymentHandle) -> None:
    async with ServerPool(client, "arena", "v1", users=USERS, min_ready=1) as pool:
        await pool.filled(20)


async def rows(client: EdgegapClient, _: DeploymentHandle) -> None:
    async for _row in client.deployments.list():
        pass


def tag_of(server: DeploymentHandle) -> tuple[str, str]:
    return server.request_id, "eu"


LEAVES_NOTHING: dict[str, Work] = {
    "EdgegapClient.run": use,
    "EdgegapClient.deploy_many": fan_out,
    "Batch.all": all_of_them,
    "Batch.progress": look_on,
    "ServerPool.take": take,
    "ServerPool.filled": fill,
    "EdgegapClient.deploy": lambda client, _: client.deploy("arena", "v1", users=USERS),
    "EdgegapClient.recover": recover,
    "EdgegapClient.reap": lambda client, _: client.reap(older_than=1000),
    "EdgegapClient.call": lambda client, _: client.call(LIST_LOCATIONS),
    "DeploymentHandle.refresh": lambda _, server: server.refresh(),
    "DeploymentHandle.wait_ready": lambda _, server: server.wait_ready(20),
    "DeploymentHandle.changes": follow,
    "Deployments.get": lambda client, server: client.deployments.get(server.request_id),
    "Deployments.list": rows,
    "Deployments.list_page": lambda client, _: client.deployments.list_page(),
    "Deployments.logs": lambda client, server: client.deployments.logs(server.request_id),
    "Deployments.metrics": lambda client, server: client.deployments.metrics(server.request_id),
    "Locations.list": lambda client, _: client.locations.list(),
    "PrivateFleets.hosts": lambda client, _: client.private_fleets.hosts("mine"),
    "Tags.list": lambda client, server: client.tags.list(server.request_id),
    "Tags.create": lambda client, server: client.tags.create(*tag_of(server)),
    "Tags.get": lambda client, server: client.tags.get(*tag_of(server)),
    "Tags.rename": lambda client, server: client.tags.rename(*tag_of(server), "us"),
    "Tags.delete": lambda client, server: client.tags.delete(*tag_of(server)),
}

ENDS_IT: dict[str, Work] = {
    "DeploymentHandle.stop": lambda _, server: server.stop(wait=True, timeout=20),
    "DeploymentHandle.wait_terminated": lambda _, server: server.wait_terminated(20),
    "Deployments.stop": lambda client, server: client.deployments.stop(server.request_id),
    "Deployments.stop_self": lambda client, server: client.deployments.stop_self(
        server.request_id, "1", token="canary-not-its-own"
    ),
    "Deployments.bulk_stop": lambda client, server: client.deployments.bulk_stop(
        [StopFilter("request_id", [server.request_id])]
    ),
}

MAY_LEAVE_ONE: dict[str, Work] = {  # the bare calls: what they made is in an answer nobody reads
    "Deployments.deploy": lambda client, _: client.deployments.deploy("arena", "v1", users=USERS),
    "PrivateFleets.deploy": lambda client, _: client.private_fleets.deploy(
        "arena", "v1", users=USERS, private_host_ids=["host-1"]
    ),
}


def test_row_28_every_public_coroutine_is_here() -> None:
    kinds = (
        EdgegapClient,
        Batch,
        ServerPool,
        DeploymentHandle,
        Deployments,
        Locations,
        PrivateFleets,
        Tags,
    )
    public = {
        f"{kind.__name__}.{name}"
        for kind in kinds
        for name, method in inspect.getmembers(kind, inspect.isfunction)
        if not name.startswith("_")
        and (
            inspect.iscoroutinefunction(method)
            or inspect.isasyncgenfunction(method)
            or hasattr(method, "__wrapped__")
        )
    }
    inside = {"EdgegapClient.exchange"}  # what the others are made of
    blocks = {"EdgegapClient.deploy_many", "ServerPool.take"}  # no coroutines themselves

    assert public - inside | blocks == {
        *LEAVES_NOTHING,
        *ENDS_IT,
        *MAY_LEAVE_ONE,
        "EdgegapClient.close",
    }


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with Emulator(
        [sample_application()],
        fleets=[Fleet(name="mine", hosts=[PrivateHost(host_id="host-1")])],
        timings=Timings.fast(),
        limits=False,
        port_reuse_delay=0,
    ) as emulator:
        yield emulator


def a_client(emulator: Emulator) -> EdgegapClient:
    polling = PollingPolicy(first_delay=0.005, interval=0.03)
    return EdgegapClient(
        emulator.token,
        base_url=emulator.url,
        polling=polling,
        limits=Limits(NO_LIMITS),
        owner="mm-1",
    )


def live(emulator: Emulator) -> set[str]:
    over = {Status.TERMINATING, Status.TERMINATED}
    every = emulator.cloud.deployments.values()
    return {one.request_id for one in every if one.status not in over}


async def comes_down_to(emulator: Emulator, expected: set[str]) -> None:
    """One that is not READY yet is stopped once it is."""
    async with asyncio.timeout(20):
        while live(emulator) != expected or emulator.open_requests:
            await asyncio.sleep(0.002)


async def cancelled_at(
    emulator: Emulator, work: Work, step: int, *, server_id: str, times: int = 1
) -> tuple[bool, Any]:
    """Whether it took that many steps, and what came of it."""

    async def on_its_own() -> Any:
        return await work(client, server)

    canceller = CancelledAt[Any](step, times=times)
    async with a_client(emulator) as client:
        server = client.handle(server_id)
        task = await canceller.run(on_its_own())
    await asyncio.wait(canceller.tasks, timeout=5)
    assert [left for left in canceller.tasks if not left.done()] == []
    if task.cancelled():
        return canceller.reached, None
    error = task.exception()
    assert error is None or isinstance(error, EdgegapError)
    return canceller.reached, error or task.result()


@pytest.mark.parametrize("times", [1, 2], ids=["once", "twice"])
@pytest.mark.parametrize("name", LEAVES_NOTHING)
async def test_row_28_29_cancelled_at_any_step_nothing_is_left(
    emulator: Emulator, name: str, times: int
) -> None:
    async with a_client(emulator) as client:
        server_id = (await client.deploy("arena", "v1", users=USERS)).request_id
        await client.handle(server_id).wait_ready(20)
    step, reached = 0, True
    while reached:
        step += 1
        reached, outcome = await cancelled_at(
            emulator, LEAVES_NOTHING[name], step, server_id=server_id, times=times
        )
        if isinstance(outcome, DeploymentHandle):  # handed over: it is the caller's
            await comes_down_to(emulator, {server_id, outcome.request_id})
            async with a_client(emulator) as client:
                await client.handle(outcome.request_id).stop()

        await comes_down_to(emulator, {server_id})
    assert step > 1


@pytest.mark.parametrize("name", ENDS_IT)
async def test_row_29_a_stop_that_is_cancelled_at_any_step_can_be_repeated(
    emulator: Emulator, name: str
) -> None:
    step, reached = 0, True
    while reached:
        step += 1
        async with a_client(emulator) as client:
            server = await client.deploy("arena", "v1", users=USERS)
            if name == "DeploymentHandle.wait_terminated":
                await server.stop()
        reached, _ = await cancelled_at(emulator, ENDS_IT[name], step, server_id=server.request_id)
        async with a_client(emulator) as client:
            await client.handle(server.request_id).stop(wait=True, timeout=20)

        await comes_down_to(emulator, set())
    assert step > 1


@pytest.mark.parametrize("name", MAY_LEAVE_ONE)
async def test_row_28_a_bare_deploy_that_is_cancelled_leaves_one_server_at_most_and_says_so(
    emulator: Emulator, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    step, reached, said = 0, True, 0
    while reached:
        step += 1
        caplog.clear()
        reached, _ = await cancelled_at(emulator, MAY_LEAVE_ONE[name], step, server_id="none")
        async with asyncio.timeout(20):
            while emulator.open_requests:
                await asyncio.sleep(0.002)
        left = live(emulator)
        assert len(left) <= 1
        lines = [line.getMessage() for line in caplog.records if line.levelname == "ERROR"]
        assert len(lines) == 1 if reached and left else len(lines) <= reached
        for line in lines:
            said += 1
            assert "arena v1 may go on running" in line
            assert "no operation tag" in line
        async with a_client(emulator) as client:
            for request_id in left:
                await client.handle(request_id).stop()
        await comes_down_to(emulator, set())
    assert step - 1 > said > 0  # before it is sent there is nothing to say


def is_a_stop(request: RecordedRequest) -> bool:
    return request.operation == "stop_deployment"


async def test_row_29_a_close_that_is_cancelled_names_what_it_leaves_and_reap_finds_it(
    emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    step, reached = 0, True
    while reached:
        step += 1
        caplog.clear()
        reached, _ = await cancelled_at(emulator, close_in_use, step, server_id="none")
        async with asyncio.timeout(20):
            while emulator.open_requests:
                await asyncio.sleep(0.002)
        stopped = {one.path.rpartition("/")[2] for one in emulator.requests if is_a_stop(one)}
        left = live(emulator) - stopped
        assert not left or "may go on running" in caplog.text
        async with a_client(emulator) as client:
            assert left <= set(await client.reap())
        await comes_down_to(emulator, set())
    assert step > 1
