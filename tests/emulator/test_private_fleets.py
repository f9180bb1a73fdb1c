"""Private fleets: deploys to their hosts, and the list of hosts."""

from __future__ import annotations

import pytest
from emulated_cloud import (
    SLEEPER,
    a_cloud,
    answer,
    python_application,
    until,
)

from edgegap_async.api.codec import to_json
from edgegap_async.emulator import (
    Fleet,
    PrivateHost,
)
from edgegap_async.errors import BadRequest, InvalidRequest
from edgegap_async.requests import FleetDeployRequest, Resources

ALPHA = Fleet(
    name="alpha",
    hosts=(
        PrivateHost(host_id="pending", status="PENDING"),
        PrivateHost(host_id="small", city="Tokyo", cpu_units=256, memory_mb=512),
        PrivateHost(host_id="big", city="Sydney", cpu_units=512, memory_mb=8192),
    ),
)


async def test_private_hosts_are_tried_in_order_and_then_the_cloud() -> None:
    application = python_application(
        "import os; print(sorted(os.environ.items())); import time; time.sleep(60)"
    )
    async with a_cloud(application, fleets=[ALPHA]) as cloud:
        for _ in range(4):
            body = FleetDeployRequest(
                application="app",
                version="v1",
                users=[(48.9, 2.4)],
                private_host_ids=["unknown", "pending", "small", "big"],
            )
            await cloud.deploy_to_fleet(body=body)
        landed = list(cloud.deployments.values())
        await until(lambda: all("\n" in one.output.text() for one in landed))
        variables = [dict(eval(one.output.text())) for one in landed]
        hosts = (await answer(cloud, "list_fleet_hosts", fleet_name="alpha")).data

    assert [one["ARBITRIUM_HOST_ID"] for one in variables] == [
        "small",
        "big",
        "big",
        "paris-emulated-1",
    ]
    assert [one["ARBITRIUM_HOST_IN_PRIVATE_FLEET"] for one in variables] == ["true"] * 3 + ["false"]
    assert [one["ARBITRIUM_PRIVATE_FLEET_ID"] for one in variables] == ["alpha"] * 3 + [
        "PUBLIC_CLOUD"
    ]
    assert [one.location.city for one in landed] == ["Tokyo", "Sydney", "Sydney", "Paris"]
    assert [host.allocated_cpu_units for host in hosts] == [0, 256, 512]
    assert [host.allocatable_cpu_units for host in hosts] == [4096, 0, 0]
    assert [host.allocatable_memory_mb for host in hosts] == [8192, 0, 7168]


async def test_resources_of_the_deploy_count_against_a_host() -> None:
    async with a_cloud(SLEEPER, fleets=[ALPHA]) as cloud:
        body = FleetDeployRequest(
            application="app",
            version="v1",
            users=[(0, 0)],
            private_host_ids=["small", "big"],
            resources=Resources(400, 600),
        )
        await cloud.deploy_to_fleet(body=body)
        (deployment,) = cloud.deployments.values()
        hosts = (await answer(cloud, "list_fleet_hosts", fleet_name="alpha")).data

    assert deployment.host_id == "big"
    assert (hosts[2].allocated_cpu_units, hosts[2].allocated_memory_mb) == (400, 600)


async def test_hosts_are_described_in_the_older_or_the_newer_shape() -> None:
    async with a_cloud(fleets=[ALPHA]) as cloud:
        older = to_json(await answer(cloud, "list_fleet_hosts", fleet_name="alpha"))
    async with a_cloud(fleets=[ALPHA], host_shape="centroid") as cloud:
        newer = to_json(await answer(cloud, "list_fleet_hosts", fleet_name="alpha"))

    assert [host["host_id"] for host in older["data"]] == ["pending", "small", "big"]
    of_both = {
        *("host_id", "status", "ip_address", "latitude", "longitude", "city", "country"),
        *("continent", "allocated_cpu_units", "allocated_memory_mb", "allocatable_cpu_units"),
        *("allocatable_memory_mb", "beacon", "created_at", "updated_at"),
    }
    assert set(older) == {"data"}
    assert set(older["data"][0]) == of_both | {"pin", "delete_schedules"}
    assert older["data"][0]["delete_schedules"] == []
    point = {"label", "latitude", "longitude", "radius_km", "desired_host_count"}
    hardware = {"radius_strategy", "cpu_cores", "memory_gb", "clock_speed_ghz"}
    assert set(older["data"][0]["pin"]) == point | hardware
    assert set(newer["data"][0]) == of_both | {
        *("centroid", "delete_schedule", "fleet_host_specifications")
    }
    assert set(newer["data"][0]["centroid"]) == point
    assert newer["data"][2]["fleet_host_specifications"]["cpu_units"] == 512
    assert (newer["total_count"], newer["pagination"]["has_next"]) == (3, False)


async def test_an_unknown_fleet_is_a_bad_request() -> None:
    async with a_cloud() as cloud:
        with pytest.raises(BadRequest, match="'beta'"):
            await cloud.list_fleet_hosts(fleet_name="beta")


def test_a_host_in_an_unknown_city_is_refused() -> None:
    with pytest.raises(
        InvalidRequest, match=r"PrivateHost\.city must be one of Montreal.*'Atlantis'"
    ):
        PrivateHost(host_id="h", city="Atlantis")
