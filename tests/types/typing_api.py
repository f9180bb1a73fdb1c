"""The types that users see. Only type checkers read this file; no test runs it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import assert_type

from edgegap_async import (
    Deployment,
    DeploymentHandle,
    DeployRequest,
    EdgegapClient,
    Outcome,
    ServerPool,
    Status,
    nearest,
)
from edgegap_async.api.operations import GET_DEPLOYMENT
from edgegap_async.emulator import Emulator, Timings
from edgegap_async.models import (
    Application,
    ApplicationPage,
    ApplicationVersion,
    BeaconReply,
    DeployAccepted,
    DeploymentRow,
    Endpoint,
    HostPage,
    Listing,
    Location,
    LocationPage,
    Logs,
    Metrics,
    Port,
    StatusChange,
    Stopped,
    Tag,
    TagPage,
)
from edgegap_async.requests import EnvironmentVariable, Filter, StopFilter
from edgegap_async.testing import EmulatorThread


async def calls(client: EdgegapClient) -> None:
    assert_type(
        await client.deployments.deploy("arena", "v1", users=["1.2.3.4", (45.5, -73.6)]),
        DeployAccepted,
    )
    deployment = await client.deployments.get("c0653765de3b")
    assert_type(deployment, Deployment)
    assert_type(deployment.current_status, Status)
    assert_type(deployment.start_time, dt.datetime | None)
    assert_type(deployment.elapsed_time, int | None)
    assert_type(deployment.ports, Mapping[str, Port])
    assert_type(deployment.location, Location | None)
    assert_type(deployment.raw, Mapping[str, object])
    assert_type(await client.deployments.stop("c0653765de3b"), Stopped)
    await client.deployments.bulk_stop([StopFilter("request_id", ["c0653765de3b"])])
    async for row in client.deployments.list(filters=[Filter("tags", "in", ["eu"])]):
        assert_type(row, DeploymentRow)
    assert_type(await client.deployments.logs("c0653765de3b"), Logs)
    metrics = await client.deployments.metrics("c0653765de3b", steps="30s")
    assert_type(metrics, Metrics)
    assert_type(metrics.cpu.datasets, tuple[float | None, ...])
    assert_type(await client.locations.list(tags=True), LocationPage)
    async for location in client.locations.list(tags=True):
        assert_type(location, Location)
    assert_type(client.applications.list(), Listing[Application, ApplicationPage])
    async for version in client.versions.list("arena"):
        assert_type(version, ApplicationVersion)
    copied = await client.versions.copy("arena", "v1", "v2", docker_tag="v2", max_duration=60)
    assert_type(copied, ApplicationVersion)
    assert_type(await nearest(client.locations.beacons()), tuple[BeaconReply, ...])
    assert_type(await client.private_fleets.hosts("alpha"), HostPage)
    assert_type(await client.tags.list("c0653765de3b"), TagPage)
    assert_type(await client.tags.create("c0653765de3b", "eu"), Tag)
    assert_type(await client.call(GET_DEPLOYMENT, path={"request_id": "c0653765de3b"}), Deployment)


async def lifecycle(client: EdgegapClient) -> None:
    hidden = EnvironmentVariable("KEY", "value", is_hidden=True)
    handle = await client.deploy(
        "arena", "v1", users=[(45.5, -73.6)], environment_variables=[hidden], tags=["eu"]
    )
    assert_type(handle, DeploymentHandle)
    assert_type(await handle.wait_ready(), Deployment)
    assert_type(handle.history, tuple[StatusChange, ...])
    async for change in handle.changes():
        assert_type(change.at, dt.datetime)
    async with client.run("arena", "v1", users=["1.2.3.4"], timeout=None) as server:
        assert_type(server, DeploymentHandle)
        assert_type(server.endpoint("game"), Endpoint)
        assert_type(server.endpoint().port, int)


async def many(client: EdgegapClient, requests: list[DeployRequest]) -> None:
    async def loaded(server: DeploymentHandle) -> None:
        assert_type(server.endpoint(), Endpoint)

    async with client.deploy_many(requests, playable=loaded, on_failure="stop_all") as batch:
        async for outcome in batch:
            assert_type(outcome, Outcome)
            assert_type(outcome.result(), DeploymentHandle)
        async for progress in batch.progress():
            assert_type(progress.time_left, float | None)
    assert_type(await client.deploy_many(iter(requests)).all(), tuple[Outcome, ...])
    async with ServerPool(client, "arena", "v1", users=["1.2.3.4"], playable=loaded) as pool:
        assert_type(await pool.allocate(), DeploymentHandle)
        async with pool.allocate(timeout=5) as server:
            assert_type(server, DeploymentHandle)


def emulators() -> None:
    assert_type(Emulator.from_file("edgegap.toml", port=8080, keep_errors=None), Emulator)
    with EmulatorThread(timings=Timings.fast(), limits={"deploy": 5}) as emulator:
        assert_type(emulator, EmulatorThread)


async def mistakes(client: EdgegapClient) -> None:
    await client.deploy("arena", "v1")  # type: ignore[call-arg]
    await client.deploy("arena", "v1", users=["1.2.3.4"], tag="eu")  # type: ignore[call-arg]
    await client.deploy("arena", "v1", users=[1])  # type: ignore[list-item]
    client.deploy_many([1])  # type: ignore[list-item]
    client.deploy_many([], on_failure="explode")  # type: ignore[arg-type]
    ServerPool(client, "arena", "v1", users=["1.2.3.4"], colour="red")  # type: ignore[call-arg]
    Filter("colour", "eq", "red")  # type: ignore[arg-type]
    await client.deployments.metrics("c0653765de3b", steps="2m")  # type: ignore[arg-type]
    EmulatorThread(colour="red")  # type: ignore[call-arg]
    EmulatorThread(host_shape="circle")  # type: ignore[arg-type]
    Emulator.from_file("edgegap.toml", colour="red")  # type: ignore[call-arg]
    Emulator.from_file("edgegap.toml", timings="fast")  # type: ignore[arg-type]
