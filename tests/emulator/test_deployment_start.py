"""A deployment from its deploy to READY: statuses, ports, environment."""

from __future__ import annotations

import asyncio
import json
import re

import attrs
import pytest
from emulated_cloud import (
    ARENA,
    a_cloud,
    answer,
    create_go_file,
    deployed,
    python_application,
    reached,
    until,
)

from edgegap_async import Deployment, Status
from edgegap_async.api.codec import to_json
from edgegap_async.emulator import (
    AppPort,
    Timings,
)
from edgegap_async.requests import EnvironmentVariable, Resources


async def test_a_deployment_goes_through_every_status_and_is_running_only_in_ready() -> None:
    timings = attrs.evolve(
        Timings.fast(), initializing=0.03, seeking=0.03, seeked=0.03, scanning=0.03, deploying=0.03
    )
    async with a_cloud(ARENA, timings=timings) as cloud:
        deployment = await deployed(cloud, ARENA)
        seen: dict[Status, Deployment] = {}
        async with asyncio.timeout(20):
            while Status.READY not in seen:
                now = await answer(cloud, "get_deployment", request_id=deployment.request_id)
                seen.setdefault(now.current_status, now)
                await asyncio.sleep(0.005)

    ready = seen[Status.READY]
    assert list(seen) == [
        Status.INITIALIZING,
        Status.SEEKING,
        Status.SEEKED,
        Status.SCANNING,
        Status.DEPLOYING,
        Status.READY,
    ]
    assert [now.last_status for now in seen.values()] == [None, *list(seen)[:-1]]
    assert [now.running for now in seen.values()] == [False] * 5 + [True]
    assert [now.start_time for now in seen.values()] == [deployment.created_at] * 5 + [
        deployment.ready_at
    ]
    assert [now.elapsed_time for now in seen.values()] == [0] * 6
    assert seen[Status.INITIALIZING].location is None
    assert ready.location is not None
    assert ready.location.city == "Paris"


async def test_the_times_in_each_status_are_those_of_the_settings() -> None:
    timings = Timings(
        initializing=0.05, seeking=0.05, seeked=0.05, scanning=0.05, deploying=0.3, terminating=0.2
    )
    async with a_cloud(ARENA, timings=timings) as cloud:
        loop = asyncio.get_running_loop()
        began = loop.time()
        deployment = await reached(await deployed(cloud, ARENA), Status.READY)
        ready_after = loop.time() - began
        began = loop.time()
        deployment.stop()
        await reached(deployment, Status.TERMINATED)

    assert ready_after >= 0.5
    assert loop.time() - began >= 0.2


async def test_external_and_internal_ports_are_equal_and_links_name_them() -> None:
    application = python_application(
        "import os, socket, time\n"
        "a = socket.create_server(('', int(os.environ['ARBITRIUM_PORT_WEB_UI_INTERNAL'])))\n"
        "b = socket.create_server(('', int(os.environ['ARBITRIUM_PORT_CHAT_INTERNAL'])))\n"
        "time.sleep(60)",
        ports=(AppPort("web ui", "HTTP", tls_upgrade=True), AppPort("chat", "WS")),
    )
    async with a_cloud(application) as cloud:
        deployment = await reached(await deployed(cloud, application), Status.READY)
        ports = deployment.deployment().ports

    numbers = {name: port.external for name, port in ports.items()}
    assert set(numbers) == {"web ui", "chat"}
    assert {name: port.internal for name, port in ports.items()} == numbers
    assert ports["web ui"].link == f"http://127.0.0.1:{numbers['web ui']}"
    assert ports["chat"].link == f"127.0.0.1:{numbers['chat']}"
    assert ports["chat"].protocol == "Websocket"
    assert ports["web ui"].tls_upgrade


async def test_the_fqdn_can_have_the_form_of_the_cloud() -> None:
    async with a_cloud(ARENA, fqdn="{request_id}.pr.edgegap.net") as cloud:
        deployment = await reached(await deployed(cloud, ARENA), Status.READY)

        fqdn = f"{deployment.request_id}.pr.edgegap.net"
        assert deployment.deployment().fqdn == fqdn
        assert deployment.ports["game"].link == f"{fqdn}:{deployment.port_numbers['game']}"


async def test_a_game_server_has_the_environment_variables_of_the_cloud() -> None:
    application = python_application(
        "import json, os, time; print(json.dumps(dict(os.environ))); time.sleep(60)",
        ports=(AppPort("Game Port", "UDP", to_check=False),),
        environment={"MODE": "ranked", "LEVEL": "version"},
        hidden_environment={"PASSWORD": "s3cret-of-version"},
    )
    async with a_cloud(application) as cloud:
        deployment = await deployed(
            cloud,
            application,
            tags=["eu", "ranked"],
            environment_variables=[
                EnvironmentVariable("LEVEL", "deploy"),
                EnvironmentVariable("odd key", "x"),
                EnvironmentVariable("TOKEN", "s3cret-of-deploy", True),
                EnvironmentVariable("ARBITRIUM_REQUEST_ID", "forged"),
            ],
            resources=Resources(1536, 3072),
        )
        await reached(deployment, Status.READY)
        await until(lambda: "\n" in deployment.output.text())
        variables = json.loads(deployment.output.text())
        number = deployment.port_numbers["Game Port"]
        delete_url = (
            f"http://127.0.0.1:9/v1/self/stop/{deployment.request_id}/"
            f"{deployment.secrets.access_point_id}"
        )

        assert {
            "MODE": "ranked",
            "LEVEL": "deploy",
            "odd_key": "x",
            "PASSWORD": "s3cret-of-version",
            "TOKEN": "s3cret-of-deploy",
            "ARBITRIUM_REQUEST_ID": deployment.request_id,
            "ARBITRIUM_PUBLIC_IP": "127.0.0.1",
            "ARBITRIUM_DELETE_URL": delete_url,
            "ARBITRIUM_DELETE_TOKEN": deployment.secrets.delete_token,
            "ARBITRIUM_CONTEXT_URL": delete_url.replace("self/stop", "context"),
            "ARBITRIUM_CONTEXT_TOKEN": deployment.secrets.context_token,
            "ARBITRIUM_DEPLOYMENT_TAGS": "eu,ranked",
            "ARBITRIUM_PORT_GAME_PORT_INTERNAL": str(number),
            "ARBITRIUM_PORT_GAME_PORT_EXTERNAL": str(number),
            "ARBITRIUM_PORT_GAME_PORT_PROTOCOL": "UDP",
            "ARBITRIUM_HOST_ID": "paris-emulated-1",
            "ARBITRIUM_HOST_BASE_CLOCK_FREQUENCY": "2000",
            "ARBITRIUM_DEPLOYMENT_VCPU_UNITS": "1536",
            "ARBITRIUM_DEPLOYMENT_MEMORY_MB": "3072",
            "ARBITRIUM_HOST_IN_PRIVATE_FLEET": "false",
            "ARBITRIUM_PRIVATE_FLEET_ID": "PUBLIC_CLOUD",
            "ARBITRIUM_HOST_BEACON_ENABLED": "false",
            "ARBITRIUM_BEACON_ENABLED": "false",
            "ARBITRIUM_HOST_BEACON_PUBLIC_IP": "",
            "ARBITRIUM_HOST_BEACON_PORT_UDP_EXTERNAL": "0",
            "ARBITRIUM_HOST_BEACON_PORT_TCP_EXTERNAL": "0",
        }.items() <= variables.items()
        assert json.loads(variables["ARBITRIUM_PORTS_MAPPING"]) == {
            "ports": {
                "Game Port": {
                    "name": "Game Port",
                    "internal": number,
                    "external": number,
                    "protocol": "UDP",
                }
            }
        }
        location = json.loads(variables["ARBITRIUM_DEPLOYMENT_LOCATION"])
        assert (location["city"], location["latitude"]) == ("Paris", 48.85661)
        assert "EDGEGAP_API_TOKEN" not in variables
        for secret in ("s3cret-of-version", "s3cret-of-deploy", deployment.secrets.delete_token):
            assert secret not in repr(deployment)
            assert secret not in json.dumps(to_json(deployment.deployment()))
        shown = f"<LocalDeployment {deployment.request_id} "
        assert re.fullmatch(rf"{shown}\S+ \S+ {deployment.status}>", repr(deployment))


@pytest.mark.parametrize("protocol", ["TCP", "TCP/UDP"])
async def test_row_52_ready_waits_for_each_socket_of_a_port(protocol: str) -> None:
    application = python_application(
        "import os, socket, sys, time\n"
        "port = int(sys.argv[1])\n"
        "a = socket.create_server(('', port))\n"
        "print('listening')\n"
        "while not os.path.exists('go'): time.sleep(0.01)\n"
        "b = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); b.bind(('', port))\n"
        "time.sleep(60)",
        ports=(AppPort("game", protocol),),
    )
    application = attrs.evolve(application, argv=(*application.argv, "{port:game}"))
    async with a_cloud(application) as cloud:
        deployment = await deployed(cloud, application)
        if protocol == "TCP/UDP":
            await until(lambda: "listening" in deployment.output.text())
            await asyncio.sleep(0.1)  # time in which it could be wrong
            assert deployment.status is Status.DEPLOYING
            assert deployment.process is not None
            create_go_file(deployment.process.pid)
        await reached(deployment, Status.READY)


async def test_a_young_deployment_has_the_types_that_the_newer_description_requires() -> None:
    async with a_cloud(ARENA, timings=attrs.evolve(Timings.fast(), initializing=60)) as cloud:
        deployment = await deployed(cloud, ARENA)
        status = to_json(deployment.deployment())
        row = to_json(deployment.row(with_status=False))

    assert None not in status.values()
    assert None not in row.values()
    assert (status["elapsed_time"], status["public_ip"]) == (0, "")
    assert status["start_time"] == row["start_time"]
    assert {"error_detail", "location", "last_status"}.isdisjoint(status)
    assert "status" not in row
