"""Every public coroutine, cancelled at each of its steps over real sockets, leaves no server.

After the client is closed, the emulator's own record must show the deployments that the caller was
given, and no others. Rows 28 and 29.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from emulator_record import living, until_idle, until_living
from quick_client import NO_LIMITS, USERS
from step_canceller import CancelledAt

from edgegap_async import (
    Batch,
    DeploymentHandle,
    DeployRequest,
    EdgegapClient,
    EdgegapError,
    Limits,
    PollingPolicy,
    ServerPool,
    Status,
)
from edgegap_async.api.operations import LIST_LOCATIONS
from edgegap_async.api.resources.applications import VersionPortRequest
from edgegap_async.emulator import (
    Emulator,
    Fleet,
    PrivateHost,
    RecordedRequest,
    Timings,
    sample_application,
)
from edgegap_async.errors import ClientClosed
from edgegap_async.http.resources.applications import Applications, Versions
from edgegap_async.http.resources.deployments import Deployments
from edgegap_async.http.resources.locations import IpAddresses, Locations
from edgegap_async.http.resources.private_fleets import PrivateFleets
from edgegap_async.http.resources.tags import Tags
from edgegap_async.requests import StopFilter

A_REQUEST = DeployRequest(application="arena", version="v1", users=USERS)

Work = Callable[[EdgegapClient, DeploymentHandle], Awaitable[Any]]


# ── the canceller ────────────────────────────────────────────────────────────────────────────────


async def three_steps() -> str:
    await asyncio.sleep(0)
    await asyncio.create_task(asyncio.sleep(0))
    return "done"


@pytest.mark.parametrize(("step", "cancelled"), [(1, True), (2, True), (3, True), (4, False)])
async def test_the_steps_of_the_tasks_that_the_work_starts_are_counted_too(
    step: int, *, cancelled: bool
) -> None:
    canceller = CancelledAt[str](step)
    task = await canceller.run(three_steps())

    assert task.cancelled() == canceller.reached == cancelled
    assert cancelled or (task.result(), canceller.steps) == ("done", 3)


async def test_work_can_be_cancelled_twice() -> None:
    cancellations = 0

    async def suppress_cancellation() -> None:
        nonlocal cancellations
        for _ in range(3):
            try:
                await asyncio.sleep(0.001)
            except asyncio.CancelledError:
                cancellations += 1

    await CancelledAt[None](1, times=2).run(suppress_cancellation())

    assert cancellations == 2


async def test_an_error_of_the_work_is_the_error_of_its_task() -> None:
    async def fail() -> None:
        await asyncio.sleep(0)
        raise ValueError("mine")

    task = await CancelledAt[None](9).run(fail())

    assert repr(task.exception()) == "ValueError('mine')"


# ── every public coroutine ───────────────────────────────────────────────────────────────────────


async def run(client: EdgegapClient, _: DeploymentHandle) -> None:
    async with client.run("arena", "v1", users=USERS, timeout=20):
        await asyncio.sleep(0)


async def relay(client: EdgegapClient, _: DeploymentHandle) -> None:
    async with client.relay(["8.8.8.8"], timeout=20):
        await asyncio.sleep(0)


async def deploy_by_key(client: EdgegapClient, _: DeploymentHandle) -> DeploymentHandle:
    return await client.deploy("arena", "v1", users=USERS, idempotency_key="match-42")


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
    async for _found in client.recover("unused"):
        pass


async def batch_loop(client: EdgegapClient, _: DeploymentHandle) -> None:
    async with client.deploy_many([A_REQUEST], timeout_each=20) as batch:
        async for outcome in batch:
            client._deployer.owned.add(
                outcome.result().request_id
            )  # as if it were not the caller's, so that close() stops it


async def batch_all(client: EdgegapClient, _: DeploymentHandle) -> DeploymentHandle:
    [outcome] = await client.deploy_many([A_REQUEST], timeout_each=20).all()
    return outcome.result()


async def batch_progress(client: EdgegapClient, _: DeploymentHandle) -> None:
    async with client.deploy_many([A_REQUEST], timeout_each=20) as batch:
        async for _progress in batch.progress(0.05):
            pass


async def allocate(client: EdgegapClient, _: DeploymentHandle) -> None:
    async with (
        ServerPool(client, "arena", "v1", users=USERS, min_ready=0) as pool,
        pool.allocate(20),
    ):
        await asyncio.sleep(0)


async def fill_pool(client: EdgegapClient, _: DeploymentHandle) -> None:
    async with ServerPool(client, "arena", "v1", users=USERS, min_ready=1) as pool:
        await pool.filled(20)


async def list_rows(client: EdgegapClient, _: DeploymentHandle) -> None:
    async for _row in client.deployments.list():
        pass


async def create_version(client: EdgegapClient, _: DeploymentHandle) -> None:
    await client.versions.create(
        "arena",
        "v2",
        docker_repository="emulator",
        docker_image="arena",
        docker_tag="v1",
        req_cpu=256,
        req_memory=512,
        ports=[VersionPortRequest(port=0, protocol="UDP", name="game")],
    )


def tag_of(server: DeploymentHandle) -> tuple[str, str]:
    return server.request_id, "eu"


LEAVES_NOTHING: dict[str, Work] = {
    "EdgegapClient.run": run,
    "EdgegapClient.relay": relay,
    "EdgegapClient.deploy_many": batch_loop,
    "Batch.all": batch_all,
    "Batch.progress": batch_progress,
    "ServerPool.allocate": allocate,
    "ServerPool.filled": fill_pool,
    "EdgegapClient.deploy": lambda client, _: client.deploy("arena", "v1", users=USERS),
    "EdgegapClient.deploy with a key": deploy_by_key,
    "EdgegapClient.recover": recover,
    "EdgegapClient.reap": lambda client, _: client.reap(older_than=1000),
    "EdgegapClient.call": lambda client, _: client.call(LIST_LOCATIONS),
    "DeploymentHandle.refresh": lambda _, server: server.refresh(),
    "DeploymentHandle.wait_ready": lambda _, server: server.wait_ready(20),
    "DeploymentHandle.changes": follow,
    "Deployments.get": lambda client, server: client.deployments.get(server.request_id),
    "Deployments.list": list_rows,
    "Deployments.logs": lambda client, server: client.deployments.logs(server.request_id),
    "Deployments.metrics": lambda client, server: client.deployments.metrics(server.request_id),
    "Applications.list": lambda client, _: client.applications.list(),
    "Applications.create": lambda client, _: client.applications.create("tetris"),
    "Applications.update": lambda client, _: client.applications.update("arena", is_active=True),
    "Applications.delete": lambda client, _: client.applications.delete("tetris"),
    "Versions.list": lambda client, _: client.versions.list("arena"),
    "Versions.get": lambda client, _: client.versions.get("arena", "v1"),
    "Versions.create": create_version,
    "Versions.copy": lambda client, _: client.versions.copy("arena", "v1", "v3"),
    "Versions.update": lambda client, _: client.versions.update("arena", "v1", is_active=True),
    "Versions.delete": lambda client, _: client.versions.delete("arena", "v2"),
    "IpAddresses.own": lambda client, _: client.ip_addresses.own(),
    "IpAddresses.locate": lambda client, _: client.ip_addresses.locate("8.8.8.8"),
    "IpAddresses.locate_many": lambda client, _: client.ip_addresses.locate_many(["8.8.8.8"]),
    "Deployments.report": lambda client, server: client.deployments.report(
        server.request_id, "lag"
    ),
    "Locations.beacons": lambda client, _: client.locations.beacons(),
    "Applications.get": lambda client, _: client.applications.get("arena"),
    "Locations.list": lambda client, _: client.locations.list(),
    "PrivateFleets.hosts": lambda client, _: client.private_fleets.hosts("mine"),
    "Tags.list": lambda client, server: client.tags.list(server.request_id),
    "Tags.create": lambda client, server: client.tags.create(*tag_of(server)),
    "Tags.get": lambda client, server: client.tags.get(*tag_of(server)),
    "Tags.rename": lambda client, server: client.tags.rename(*tag_of(server), "us"),
    "Tags.delete": lambda client, server: client.tags.delete(*tag_of(server)),
}

STOPS_THE_SERVER: dict[str, Work] = {
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

MAY_LEAVE_ONE: dict[str, Work] = {  # bare calls, whose answer holds the only id
    "Deployments.deploy": lambda client, _: client.deployments.deploy("arena", "v1", users=USERS),
    "PrivateFleets.deploy": lambda client, _: client.private_fleets.deploy(
        "arena", "v1", users=USERS, private_host_ids=["host-1"]
    ),
}


def test_row_28_every_public_coroutine_is_tested_here() -> None:
    kinds = (
        Applications,
        IpAddresses,
        Versions,
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
            or str(inspect.signature(method).return_annotation).startswith("Listing[")
            or hasattr(method, "__wrapped__")
        )
    }
    inside = {"EdgegapClient.exchange"}  # which every other coroutine uses
    blocks = {"EdgegapClient.deploy_many", "ServerPool.allocate"}  # used with `async with`

    assert public - inside | blocks == {
        *(name.removesuffix(" with a key") for name in LEAVES_NOTHING),
        *STOPS_THE_SERVER,
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


async def until_only(emulator: Emulator, *expected: str) -> None:
    await until_living(emulator, *expected)
    await until_idle(emulator)
    await until_living(emulator, *expected)


async def cancelled_at(
    emulator: Emulator, work: Work, step: int, *, server_id: str, times: int = 1
) -> tuple[bool, Any]:
    """Returns whether the work has that many steps, and its result or error, or None."""

    async def coroutine() -> Any:
        return await work(client, server)

    canceller = CancelledAt[Any](step, times=times)
    async with a_client(emulator) as client:
        server = client.handle(server_id)
        task = await canceller.run(coroutine())
    await asyncio.wait(canceller.tasks, timeout=20)
    assert [task for task in canceller.tasks if not task.done()] == []
    if task.cancelled():
        return canceller.reached, None
    error = task.exception()
    assert error is None or isinstance(error, EdgegapError)
    return canceller.reached, error or task.result()


@pytest.mark.parametrize("times", [1, 2], ids=["once", "twice"])
@pytest.mark.parametrize("name", LEAVES_NOTHING)
async def test_row_28_29_a_coroutine_that_is_cancelled_at_any_step_leaves_no_server(
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
        if isinstance(outcome, DeploymentHandle):  # the caller has it
            await until_only(emulator, server_id, outcome.request_id)
            async with a_client(emulator) as client:
                await client.handle(outcome.request_id).stop()

        await until_only(emulator, server_id)
        assert not emulator.relay_sessions
    assert step > 1


@pytest.mark.parametrize("name", STOPS_THE_SERVER)
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
        reached, _ = await cancelled_at(
            emulator, STOPS_THE_SERVER[name], step, server_id=server.request_id
        )
        async with a_client(emulator) as client:
            await client.handle(server.request_id).stop(wait=True, timeout=20)

        await until_only(emulator)
    assert step > 1


@pytest.mark.parametrize(
    ("name", "call"),
    [("Deployments.deploy", "deploy"), ("PrivateFleets.deploy", "deploy_to_fleet")],
)
async def test_row_28_a_bare_deploy_that_is_cancelled_leaves_one_server_at_most_and_logs_it(
    emulator: Emulator, name: str, call: str, caplog: pytest.LogCaptureFixture
) -> None:
    step, reached, logged = 0, True, 0
    while reached:
        step += 1
        caplog.clear()
        reached, _ = await cancelled_at(emulator, MAY_LEAVE_ONE[name], step, server_id="none")
        await until_idle(emulator)
        left = living(emulator)
        assert len(left) <= 1
        lines = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
        assert len(lines) == 1 if reached and left else len(lines) <= reached
        for line in lines:
            logged += 1
            assert "arena v1 may go on running" in line
            assert f"{call} was cancelled before its answer came" in line
            assert "no operation tag" in line
        async with a_client(emulator) as client:
            for request_id in left:
                await client.handle(request_id).stop()
        await until_only(emulator)
    assert step - 1 > logged > 0  # steps before the request is sent log nothing


def is_a_stop(request: RecordedRequest) -> bool:
    return request.operation == "stop_deployment"


async def test_row_29_a_close_that_is_cancelled_logs_the_servers_that_it_leaves_and_reap_finds_them(
    emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    step, reached = 0, True
    while reached:
        step += 1
        caplog.clear()
        reached, _ = await cancelled_at(emulator, close_in_use, step, server_id="none")
        await until_idle(emulator)
        stopped = {
            request.path.rpartition("/")[2] for request in emulator.requests if is_a_stop(request)
        }
        left = living(emulator) - stopped
        assert not left or "may go on running" in caplog.text
        async with a_client(emulator) as client:
            assert left <= set(await client.reap())
        await until_only(emulator)
    assert step > 1
