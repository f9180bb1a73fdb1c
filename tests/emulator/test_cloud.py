from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest
from emulated_cloud import SentWebhooks, a_cloud, a_request, deployed, reached, until

from edgegap_async import (
    BadRequest,
    BulkStop,
    Conflict,
    Deployment,
    EnvironmentVariable,
    FleetDeployRequest,
    Gone,
    InvalidRequest,
    NotFound,
    Resources,
    Status,
    StopFilter,
    Unauthorized,
    Unprocessable,
)
from edgegap_async.api.codec import to_json
from edgegap_async.api.requests import StopFilters, TagName
from edgegap_async.emulator import (
    Application,
    AppPort,
    Fleet,
    LocalDeployment,
    PrivateHost,
    Timings,
    sample_application,
)
from edgegap_async.emulator.cloud import Cloud

ARENA = sample_application()
UNKNOWN = "000000000000"


def python(program: str, **more: Any) -> Application:
    """An application that runs a Python program and opens no port."""
    argv = ("{python}", "-I", "-u", "-c", program)
    return Application(**{"name": "app", "version": "v1", "argv": argv} | more)


SLEEPER = python("import time; time.sleep(60)")


async def answer(world: Cloud, call: str, **arguments: Any) -> Any:
    """The model that a call is answered with, its status being 200."""
    status, model = await getattr(world, call)(**arguments)
    assert status == 200
    return model


def _processes_of(deployment: LocalDeployment) -> list[int]:
    mark = deployment.secrets.delete_token.encode()
    found: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:  # it ended while we looked
            continue
    return found


def _tell_to_go(deployment: LocalDeployment) -> None:
    assert deployment.process is not None
    Path(f"/proc/{deployment.process.pid}/cwd/go").touch()


# ── from deploy to READY ─────────────────────────────────────────────────────────────────────────


async def test_a_deployment_goes_through_every_status_and_is_running_only_in_ready() -> None:
    timings = attrs.evolve(
        Timings.fast(), initializing=0.03, seeking=0.03, seeked=0.03, scanning=0.03, deploying=0.03
    )
    async with a_cloud(ARENA, timings=timings) as world:
        deployment = await deployed(world, ARENA)
        seen: dict[Status, Deployment] = {}
        async with asyncio.timeout(20):
            while Status.READY not in seen:
                now = await answer(world, "get_deployment", request_id=deployment.request_id)
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
    assert [now.start_time is None for now in seen.values()] == [True] * 5 + [False]
    assert [now.elapsed_time for now in seen.values()] == [None] * 5 + [0]
    assert seen[Status.INITIALIZING].location is None
    assert ready.location is not None
    assert ready.location.city == "Paris"


async def test_the_times_in_each_status_are_those_of_the_settings() -> None:
    timings = Timings(
        initializing=0.05, seeking=0.05, seeked=0.05, scanning=0.05, deploying=0.3, terminating=0.2
    )
    async with a_cloud(ARENA, timings=timings) as world:
        loop = asyncio.get_running_loop()
        began = loop.time()
        deployment = await reached(await deployed(world, ARENA), Status.READY)
        ready_after = loop.time() - began
        began = loop.time()
        deployment.stop()
        await reached(deployment, Status.TERMINATED)

    assert ready_after >= 0.5
    assert loop.time() - began >= 0.2


async def test_the_ports_are_one_to_one_and_the_link_can_be_connected_to() -> None:
    application = python(
        "import os, socket, time\n"
        "a = socket.create_server(('', int(os.environ['ARBITRIUM_PORT_WEB_UI_INTERNAL'])))\n"
        "b = socket.create_server(('', int(os.environ['ARBITRIUM_PORT_CHAT_INTERNAL'])))\n"
        "time.sleep(60)",
        ports=(AppPort("web ui", "HTTP", tls_upgrade=True), AppPort("chat", "WS")),
    )
    async with a_cloud(application) as world:
        deployment = await reached(await deployed(world, application), Status.READY)
        ports = deployment.deployment().ports

    numbers = {name: port.external for name, port in ports.items()}
    assert set(numbers) == {"web ui", "chat"}
    assert {name: port.internal for name, port in ports.items()} == numbers
    assert ports["web ui"].link == f"http://127.0.0.1:{numbers['web ui']}"
    assert ports["chat"].link == f"127.0.0.1:{numbers['chat']}"
    assert ports["chat"].protocol == "Websocket"
    assert ports["web ui"].tls_upgrade


async def test_the_fqdn_can_look_like_that_of_the_cloud() -> None:
    async with a_cloud(ARENA, fqdn="{request_id}.pr.edgegap.net") as world:
        deployment = await reached(await deployed(world, ARENA), Status.READY)

        fqdn = f"{deployment.request_id}.pr.edgegap.net"
        assert deployment.deployment().fqdn == fqdn
        assert deployment.ports["game"].link == f"{fqdn}:{deployment.port_numbers['game']}"


async def test_a_game_server_finds_all_that_the_cloud_would_tell_it() -> None:
    application = python(
        "import json, os, time; print(json.dumps(dict(os.environ))); time.sleep(60)",
        ports=(AppPort("Game Port", "UDP", to_check=False),),
        environment={"MODE": "ranked", "LEVEL": "version"},
        hidden_environment={"PASSWORD": "s3cret-of-version"},
    )
    async with a_cloud(application) as world:
        deployment = await deployed(
            world,
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
        told = json.loads(deployment.output.text())
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
            "ARBITRIUM_HOST_BEACON_PUBLIC_IP": "",
            "ARBITRIUM_HOST_BEACON_PORT_UDP_EXTERNAL": "0",
            "ARBITRIUM_HOST_BEACON_PORT_TCP_EXTERNAL": "0",
        }.items() <= told.items()
        assert json.loads(told["ARBITRIUM_PORTS_MAPPING"]) == {
            "ports": {
                "Game Port": {
                    "name": "Game Port",
                    "internal": number,
                    "external": number,
                    "protocol": "UDP",
                }
            }
        }
        location = json.loads(told["ARBITRIUM_DEPLOYMENT_LOCATION"])
        assert (location["city"], location["latitude"]) == ("Paris", 48.85661)
        assert "EDGEGAP_API_TOKEN" not in told
        for secret in ("s3cret-of-version", "s3cret-of-deploy", deployment.secrets.delete_token):
            assert secret not in repr(deployment)
            assert secret not in json.dumps(to_json(deployment.deployment()))


@pytest.mark.parametrize("protocol", ["TCP", "TCP/UDP"])
async def test_row_52_ready_waits_for_each_socket_of_a_port(protocol: str) -> None:
    application = python(
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
    async with a_cloud(application) as world:
        deployment = await deployed(world, application)
        if protocol == "TCP/UDP":
            await until(lambda: "listening" in deployment.output.text())
            await asyncio.sleep(0.1)  # time in which it could be wrong
            assert deployment.status is Status.DEPLOYING
            _tell_to_go(deployment)
        await reached(deployment, Status.READY)


# ── failures ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("program", "exit_code", "message"),
    [
        ("print('oh no'); raise SystemExit(3)", 3, "The application exited with code 3"),
        ("print('oh no')", 0, "The application exited with code 0"),
        (
            "import os; print('oh no'); os.kill(os.getpid(), 11)",
            139,
            "The application was killed by SIGSEGV",
        ),
        (
            "import os; print('oh no'); os.kill(os.getpid(), 40)",
            168,
            "The application was killed by signal 40",
        ),
    ],
)
async def test_row_50_a_process_that_ends_by_itself_is_an_error_with_its_crash_data(
    program: str, exit_code: int, message: str
) -> None:
    application = python(program, ports=(AppPort("game"),))
    async with a_cloud(application) as world:
        deployment = await reached(await deployed(world, application), Status.ERROR)
        logs = await answer(world, "get_container_logs", request_id=deployment.request_id)
        seen = deployment.deployment()

    assert (seen.error, seen.error_detail, seen.running) == (True, message, False)
    assert logs.crash_logs == logs.logs == "oh no\n"
    assert (logs.crash_data.exit_code, logs.crash_data.message) == (exit_code, message)
    assert logs.crash_data.restart_count == 0


async def test_row_50_a_crash_after_ready_is_an_error_too() -> None:
    arena = sample_application("--crash-after", "0.3", "--exit-code", "4")
    async with a_cloud(arena) as world:
        deployment = await reached(await deployed(world, arena), Status.READY)
        assert deployment.logs().crash_data is None
        await reached(deployment, Status.ERROR)

        assert deployment.last_status is Status.READY
        assert deployment.crash is not None
        assert deployment.crash.exit_code == 4


async def test_a_crash_in_the_pause_before_ready_is_not_overlooked() -> None:
    arena = sample_application("--crash-after", "0.1")
    async with a_cloud(arena, timings=attrs.evolve(Timings.fast(), deploying=20)) as world:
        deployment = await reached(await deployed(world, arena), Status.ERROR)

        assert deployment.last_status is Status.DEPLOYING


async def test_row_51_a_server_that_never_opens_its_port_is_an_error_and_is_ended() -> None:
    arena = attrs.evolve(sample_application("--never-bind"), time_to_deploy=0.3)
    async with a_cloud(arena) as world:
        deployment = await reached(await deployed(world, arena), Status.ERROR)

        number = deployment.port_numbers["game"]
        expected = f"port {number}/udp not opened by the app in 0.3 s"
        assert deployment.error_detail == expected
        assert deployment.logs().crash_data is None
        assert _processes_of(deployment) == []


async def test_row_54_a_program_that_cannot_be_started_is_an_error_with_the_reason() -> None:
    application = Application(name="app", version="v1", argv=("/does/not/exist",))
    async with a_cloud(application) as world:
        deployment = await reached(await deployed(world, application), Status.ERROR)

    assert "cannot start the application" in (deployment.error_detail or "")
    assert "No such file" in (deployment.error_detail or "")


@pytest.mark.parametrize(("policy", "code"), [("always", 0), ("always", 1), ("on_failure", 1)])
async def test_a_server_is_started_again_if_its_policy_says_so(policy: str, code: int) -> None:
    program = (
        "import os, time\n"
        "count = len(os.listdir())\n"
        "open(str(count), 'w').close()\n"
        f"if count < 2: os._exit({code})\n"
        "print('stays')\n"
        "time.sleep(60)"
    )
    application = python(program, restart_policy=policy)
    timings = attrs.evolve(Timings.fast(), deploying=0.6)  # or it is READY before it crashes
    async with a_cloud(application, timings=timings) as world:
        deployment = await reached(await deployed(world, application), Status.READY)
        await until(lambda: "stays" in deployment.output.text())
        crash = deployment.logs().crash_data

    assert crash is not None
    assert (crash.exit_code, crash.restart_count) == (code, 2)


async def test_on_failure_does_not_start_again_what_ended_well() -> None:
    application = python("pass", restart_policy="on_failure", ports=(AppPort("game"),))
    async with a_cloud(application) as world:
        deployment = await reached(await deployed(world, application), Status.ERROR)

    assert deployment.error_detail == "The application exited with code 0"


async def test_what_is_started_again_and_again_and_never_opens_its_port_fails_in_the_end() -> None:
    application = python("", restart_policy="always", ports=(AppPort("game"),), time_to_deploy=0.4)
    async with a_cloud(application) as world:
        deployment = await reached(await deployed(world, application), Status.ERROR)

    assert "not opened by the app in 0.4 s" in (deployment.error_detail or "")
    assert deployment.crash is not None
    assert (deployment.crash.restart_count or 0) >= 2


async def test_a_stop_ends_the_pause_before_a_restart() -> None:
    arena = attrs.evolve(sample_application("--crash-after", "0.2"), restart_policy="always")
    async with a_cloud(arena, timings=attrs.evolve(Timings.fast(), restart_delay=60)) as world:
        deployment = await reached(await deployed(world, arena), Status.READY)
        await until(lambda: deployment.crash and not deployment.process)
        assert deployment.status is Status.READY
        await world.stop_deployment(request_id=deployment.request_id)
        await reached(deployment, Status.TERMINATED)


# ── stop ─────────────────────────────────────────────────────────────────────────────────────────


async def test_a_stop_of_what_is_ready_answers_200_and_leaves_no_process() -> None:
    async with a_cloud(ARENA) as world:
        deployment = await reached(await deployed(world, ARENA), Status.READY)
        request_id = deployment.request_id

        stopped = await answer(world, "stop_deployment", request_id=request_id)
        again = await answer(world, "stop_deployment", request_id=request_id)
        await reached(deployment, Status.TERMINATED)

        assert stopped.message == f"Instance {request_id} will be deleted"
        assert stopped.deployment_summary.current_status is Status.READY
        assert again.message == stopped.message
        assert _processes_of(deployment) == []
        assert deployment.deployment().removal_time is not None
        with pytest.raises(Gone):
            await world.stop_deployment(request_id=request_id)
        with pytest.raises(NotFound, match="gone"):
            await world.get_container_logs(request_id=request_id)


async def test_row_55_a_stop_before_ready_answers_202_and_takes_effect_at_ready() -> None:
    announced = SentWebhooks()
    async with a_cloud(ARENA, announced=announced) as world:
        deployment = await deployed(
            world, ARENA, webhook_on_ready="http://r/", webhook_on_terminated="http://t/"
        )
        request_id = deployment.request_id

        status, stopped = await world.stop_deployment(request_id=request_id)
        await reached(deployment, Status.TERMINATED)

    assert (status, to_json(stopped)) == (
        202,
        {
            "message": f"{request_id} - Delete request will be processed soon",
            "deployment_summary": None,
        },
    )
    assert [url for url, _ in announced.events] == ["http://r/", "http://t/"]


async def test_row_55_a_stop_before_an_error_takes_effect_at_the_error() -> None:
    application = python("exit(1)", ports=(AppPort("game"),))
    async with a_cloud(application) as world:
        deployment = await deployed(world, application)
        await world.stop_deployment(request_id=deployment.request_id)
        await reached(deployment, Status.TERMINATED)

    assert deployment.error_detail == "The application exited with code 1"


async def test_row_56_a_hundred_stops_at_once_end_a_server_once() -> None:
    announced = SentWebhooks()
    async with a_cloud(ARENA, announced=announced) as world:
        deployment = await deployed(world, ARENA, webhook_on_terminated="http://t/")
        await reached(deployment, Status.READY)

        await asyncio.gather(
            *(
                answer(world, "stop_deployment", request_id=deployment.request_id)
                for _ in range(100)
            )
        )
        await reached(deployment, Status.TERMINATED)

    assert [url for url, _ in announced.events] == ["http://t/"]


async def test_row_50_any_exit_code_after_a_stop_is_terminated() -> None:
    application = python(
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))\n"
        "print('up')\n"
        "time.sleep(60)"
    )
    async with a_cloud(application) as world:
        deployment = await reached(await deployed(world, application), Status.READY)
        await world.stop_deployment(request_id=deployment.request_id)
        await reached(deployment, Status.TERMINATED)

    assert (deployment.crash, deployment.error_detail) == (None, None)


async def test_row_45_the_version_sets_the_grace_period_of_a_program_that_ignores_sigterm() -> None:
    arena = attrs.evolve(
        sample_application("--ignore-sigterm", "--fork-setsid"),
        termination_grace_period_seconds=0.3,
    )
    async with a_cloud(arena) as world:
        loop = asyncio.get_running_loop()
        deployment = await reached(await deployed(world, arena), Status.READY)
        assert len(_processes_of(deployment)) == 2
        began = loop.time()
        await world.stop_deployment(request_id=deployment.request_id)
        await reached(deployment, Status.TERMINATED)

        assert 0.3 <= loop.time() - began < 5
        assert _processes_of(deployment) == []


async def test_the_maximal_duration_ends_a_deployment() -> None:
    arena = attrs.evolve(ARENA, max_duration=0.3 / 60)
    announced = SentWebhooks()
    async with a_cloud(arena, announced=announced) as world:
        deployment = await deployed(world, arena, webhook_on_terminated="http://t/")
        await reached(deployment, Status.TERMINATED)

    assert deployment.deployment().max_duration == 1
    ((url, told),) = announced.events
    assert (url, told.current_status, told.error) == ("http://t/", Status.TERMINATED, False)


async def test_a_duration_of_minus_one_has_no_end() -> None:
    arena = attrs.evolve(ARENA, max_duration=-1)
    async with a_cloud(arena) as world:
        deployment = await reached(await deployed(world, arena), Status.READY)

        assert deployment.deployment().max_duration == -1
        deployment.stop()
        await reached(deployment, Status.TERMINATED)


async def test_only_the_deployment_itself_can_use_its_own_stop() -> None:
    async with a_cloud(ARENA) as world:
        one = await reached(await deployed(world, ARENA), Status.READY)
        other = await reached(await deployed(world, ARENA), Status.READY)
        own = {"request_id": one.request_id, "access_point_id": str(one.secrets.access_point_id)}

        for token in ("", "é", other.secrets.delete_token):
            with pytest.raises(Unauthorized):
                await world.stop_self(**own, token=token)
        token = one.secrets.delete_token
        with pytest.raises(BadRequest, match="Bad Request ID"):
            await world.stop_self(**own | {"access_point_id": "1"}, token=token)
        await answer(world, "stop_self", **own, token=token, container_log_storage="true")
        await reached(one, Status.TERMINATED)
        with pytest.raises(Gone):
            await world.stop_self(**own, token=token)

        assert other.status is Status.READY


async def test_a_bulk_stop_ends_what_every_filter_matches() -> None:
    async with a_cloud(SLEEPER) as world:
        tags: list[list[str]] = [["eu", "ranked"], ["eu"], ["us"], []]
        ids = [(await deployed(world, SLEEPER, tags=each)).request_id for each in tags]

        async def matching(*filters: StopFilter) -> list[int]:
            status, stops = await world.bulk_stop(body=StopFilters(filters))
            assert status == 202
            assert isinstance(stops, BulkStop)
            return [ids.index(one) for one in stops.request_ids]

        assert await matching(StopFilter("request_id", ["other"])) == []
        assert await matching(StopFilter("deployment_tags", ["eu", "ranked"], "all")) == [0]
        assert await matching(
            StopFilter("deployment_tags", ["eu", "us"]), StopFilter("request_id", ids[:2], "not")
        ) == [2]
        assert await matching(StopFilter("request_id", [ids[1]], "any")) == [1]
        assert set(await matching()) == {0, 1, 2, 3} - {
            ids.index(one.request_id)
            for one in world.deployments.values()
            if one.status is Status.TERMINATING
        }
        for request_id in ids:
            await reached(world.deployments[request_id], Status.TERMINATED)


async def test_row_59_closing_a_cloud_ends_every_process() -> None:
    arena = sample_application("--ignore-sigterm", "--fork-setsid")
    async with a_cloud(arena, SLEEPER) as world:
        one = await reached(await deployed(world, arena), Status.READY)
        other = await deployed(world, SLEEPER)
        assert _processes_of(one)

    assert _processes_of(one) + _processes_of(other) == []
    assert len(asyncio.all_tasks()) == 1


async def test_row_59_a_loop_that_cancels_every_task_leaves_no_process() -> None:
    arena = sample_application("--ignore-sigterm", "--fork-setsid")
    async with a_cloud(arena) as world:
        deployment = await reached(await deployed(world, arena), Status.READY)
        for _ in range(3):  # as often as it likes
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            await asyncio.sleep(0)

    assert _processes_of(deployment) == []


async def test_row_59_a_close_that_is_cancelled_leaves_no_process() -> None:
    arena = sample_application("--ignore-sigterm", "--fork-setsid")
    async with a_cloud(arena) as world:
        deployment = await reached(await deployed(world, arena), Status.READY)
        closing = asyncio.create_task(world.close())
        await asyncio.sleep(0.01)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing

        assert _processes_of(deployment) == []


# ── refused ──────────────────────────────────────────────────────────────────────────────────────


async def test_what_is_not_there_or_not_active_cannot_be_deployed() -> None:
    sleeping = attrs.evolve(SLEEPER, version="off", is_active=False)
    async with a_cloud(SLEEPER, sleeping) as world:
        for application in (attrs.evolve(SLEEPER, version="v2"), sleeping, ARENA):
            with pytest.raises(BadRequest, match="No deployment has been created"):
                await world.deploy(body=a_request(application))

        assert world.deployments == {}


@pytest.mark.parametrize(
    ("settings", "application", "why"),
    [({"max_deployments": 1}, SLEEPER, "No capacity"), ({"ports": range(0)}, ARENA, "no port")],
)
async def test_without_room_a_deployment_is_made_in_error_and_named(
    settings: dict[str, Any], application: Application, why: str
) -> None:
    announced = SentWebhooks()
    async with a_cloud(SLEEPER, ARENA, announced=announced, **settings) as world:
        await deployed(world, SLEEPER)
        with pytest.raises(Unprocessable, match=why) as refused:
            await world.deploy(body=a_request(application, webhook_on_error="http://e/"))
        request_id = refused.value.request_id
        assert request_id is not None
        failed = await answer(world, "get_deployment", request_id=request_id)
        rows = (await answer(world, "list_deployments")).data
        await answer(world, "stop_deployment", request_id=request_id)
        await reached(world.deployments[request_id], Status.TERMINATED)

    assert (failed.current_status, failed.error) == (Status.ERROR, True)
    assert why in failed.error_detail
    assert request_id in {row.request_id for row in rows}
    assert [url for url, _ in announced.events] == ["http://e/"]


async def test_an_unknown_deployment_is_a_bad_request_for_every_call_that_names_one() -> None:
    async with a_cloud() as world:
        tag = {"request_id": UNKNOWN, "tag_name": "eu"}
        calls: dict[str, dict[str, Any]] = {
            "get_deployment": {"request_id": UNKNOWN},
            "stop_deployment": {"request_id": UNKNOWN},
            "stop_self": {"request_id": UNKNOWN, "access_point_id": "1", "token": "x"},
            "get_container_logs": {"request_id": UNKNOWN},
            "get_metrics": {"request_id": UNKNOWN},
            "list_tags": {"request_id": UNKNOWN},
            "get_tag": tag,
            "delete_tag": tag,
            "create_tag": {"request_id": UNKNOWN, "body": TagName("eu")},
            "rename_tag": {**tag, "body": TagName("us")},
        }
        for call, arguments in calls.items():
            with pytest.raises(BadRequest, match="Bad Request ID provided"):
                await getattr(world, call)(**arguments)


async def test_an_unknown_deployment_can_be_not_found_as_documented() -> None:
    async with a_cloud(unknown_id_status=404) as world:
        with pytest.raises(NotFound):
            await world.get_deployment(request_id=UNKNOWN)


@pytest.mark.virtual
async def test_row_58_a_terminated_deployment_is_remembered_for_a_while() -> None:
    async with a_cloud(SLEEPER, max_deployments=0, keep_terminated=60) as world:
        with pytest.raises(Unprocessable) as refused:
            await world.deploy(body=a_request(SLEEPER))
        request_id = refused.value.request_id or ""
        await world.stop_deployment(request_id=request_id)
        await asyncio.sleep(59)
        seen = await answer(world, "get_deployment", request_id=request_id)
        await asyncio.sleep(2)
        with pytest.raises(BadRequest):
            await world.get_deployment(request_id=request_id)

    assert seen.current_status is Status.TERMINATED
    assert world.deployments == {}


async def test_row_58_the_number_of_remembered_deployments_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("edgegap_async.emulator.cloud._MAX_TERMINATED", 2)
    async with a_cloud(SLEEPER, max_deployments=0) as world:
        request_id = ""
        for _ in range(5):
            with pytest.raises(Unprocessable) as refused:
                await world.deploy(body=a_request(SLEEPER))
            request_id = refused.value.request_id or ""
            await world.stop_deployment(request_id=request_id)
            await reached(world.deployments[request_id], Status.TERMINATED)
            await asyncio.sleep(0)
        await world.get_deployment(request_id=request_id)

        assert len(world.deployments) == 2


# ── list ─────────────────────────────────────────────────────────────────────────────────────────


def _query(*filters: tuple[str, str, object], order: str | None = None) -> str:
    query: dict[str, Any] = {
        "filters": [
            {"field": field, "operator": operator, "value": value}
            for field, operator, value in filters
        ]
    }
    if order is not None:
        query["order_by"] = [{"field": "created_at", "order": order}]
    return json.dumps(query)


async def test_a_list_holds_what_its_filters_leave() -> None:
    fleet = Fleet(name="Alpha", hosts=(PrivateHost(host_id="alpha-1"),))
    past = datetime.now(UTC) - timedelta(hours=1)
    async with a_cloud(SLEEPER, ARENA, fleets=[fleet]) as world:
        first = await deployed(world, SLEEPER, tags=["eu", "ranked"])
        second = await reached(await deployed(world, ARENA, tags=["us"]), Status.READY)
        fleet_request = FleetDeployRequest(
            application="app", version="v1", users=[(0, 0)], private_host_ids=["alpha-1"]
        )
        await world.deploy_to_fleet(body=fleet_request)
        third = list(world.deployments.values())[2]
        for one in (first, third):
            await reached(one, Status.READY)
        await world.stop_deployment(request_id=first.request_id)
        await reached(first, Status.TERMINATED)
        fourth = await reached(await deployed(world, SLEEPER, tags=["eu", "casual"]), Status.READY)
        numbers = {second.request_id: 2, third.request_id: 3, fourth.request_id: 4}

        async def listed(*filters: tuple[str, str, object], order: str | None = None) -> list[int]:
            page = await answer(world, "list_deployments", query=_query(*filters, order=order))
            assert page.total_count == len(page.data)
            return [numbers[row.request_id] for row in page.data]

        assert await listed() == [2, 3, 4]
        assert await listed(order="desc") == [4, 3, 2]
        assert await listed(order="asc") == [2, 3, 4]
        assert await listed(("status", "eq", "ready")) == [2, 3, 4]
        assert await listed(("status", "neq", "ready")) == []
        assert await listed(("request_id", "eq", third.request_id)) == [3]
        assert await listed(("request_id", "neq", third.request_id)) == [2, 4]
        assert await listed(("request_id", "in", [third.request_id, "x"])) == [3]
        assert await listed(("request_id", "nin", [third.request_id, "x"])) == [2, 4]
        assert await listed(("tags", "eq", "eu")) == [4]
        assert await listed(("tags", "neq", "eu")) == [2, 3]
        assert await listed(("tags", "in", ["us", "casual"])) == [2, 4]
        assert await listed(("tags", "nin", ["us", "casual"])) == [3]
        assert await listed(("application", "eq", "arena")) == [2]
        assert await listed(("version", "in", ["v1"]), ("application", "neq", "arena")) == [3, 4]
        assert await listed(("fleet_name", "eq", "Alpha")) == [3]
        assert await listed(("fleet_name", "ilike", "%PH%")) == [3]
        assert await listed(("fleet_name", "neq", "Alpha")) == [2, 4]
        assert await listed(("host_name", "ilike", "PARIS%")) == [2, 4]
        assert await listed(("host_name", "ilike", "paris")) == []
        assert await listed(("created_at", "gte", past.isoformat())) == [2, 3, 4]
        assert await listed(("created_at", "lte", past.isoformat())) == []
        assert await listed(("created_at", "eq", fourth.created_at.isoformat())) == [4]


async def test_a_row_says_what_a_look_would() -> None:
    async with a_cloud(ARENA) as world:
        deployment = await reached(await deployed(world, ARENA, tags=["eu"]), Status.READY)
        (row,) = (await answer(world, "list_deployments")).data
        look = deployment.deployment()

    assert (row.request_id, row.status, row.ready) == (look.request_id, Status.READY, True)
    assert (row.fqdn, row.public_ip, row.ports) == (look.fqdn, look.public_ip, look.ports)
    assert (row.start_time, row.tags) == (look.start_time, look.tags)


async def test_a_list_comes_in_pages() -> None:
    async with a_cloud(SLEEPER) as world:
        ids = [(await deployed(world, SLEEPER)).request_id for _ in range(5)]
        pages = [
            await answer(world, "list_deployments", page=str(number), limit="2")
            for number in (1, 2, 3, 4)
        ]

    assert [[ids.index(row.request_id) for row in page.data] for page in pages] == [
        [0, 1],
        [2, 3],
        [4],
        [],
    ]
    assert {page.total_count for page in pages} == {5}
    assert {page.pagination.paginator.num_pages for page in pages} == {3}
    assert [page.pagination.next_page_number for page in pages] == [2, 3, None, None]
    assert [page.pagination.previous_page_number for page in pages] == [None, 1, 2, 3]
    assert [page.pagination.has_next for page in pages] == [True, True, False, False]


@pytest.mark.parametrize(
    "arguments",
    [
        {"query": "{"},
        {"query": _query(("status", "in", ["ready"]))},
        {"query": _query(("tags", "eq", "a"), ("tags", "eq", "b"))},
        {"page": "0"},
        {"limit": "x"},
    ],
)
async def test_a_list_that_cannot_be_made_is_a_bad_request(arguments: dict[str, Any]) -> None:
    async with a_cloud() as world:
        with pytest.raises(BadRequest):
            await world.list_deployments(**arguments)


# ── locations, logs, metrics ─────────────────────────────────────────────────────────────────────


async def test_locations_have_type_and_if_asked_for_tags() -> None:
    async with a_cloud(ARENA) as world:
        plain = (await answer(world, "list_locations")).locations
        tagged = await answer(
            world, "list_locations", app="arena", version="v1", type="standard", tags="true"
        )
        none = (await answer(world, "list_locations", app="arena", type="other")).locations
        with pytest.raises(BadRequest):
            await world.list_locations(app="arena", version="v9")

    assert {location.type for location in plain} == {"standard"}
    assert {location.tags for location in plain} == {()}
    assert all(location.tags for location in tagged.locations)
    assert len(tagged.locations) == len(plain) >= 25
    assert none == ()


async def test_metrics_are_measured_while_it_runs() -> None:
    busy = python("while True: pass", memory_mb=64)
    async with a_cloud(busy, metrics_interval=0.1) as world:
        deployment = await reached(await deployed(world, busy), Status.READY)
        async with asyncio.timeout(20):
            while True:
                metrics = await answer(
                    world, "get_metrics", request_id=deployment.request_id, raw="true"
                )
                if len(metrics.cpu.datasets) >= 2:
                    break
                await asyncio.sleep(0.02)
        averaged = await answer(
            world,
            "get_metrics",
            request_id=deployment.request_id,
            start_time="2020-01-01 00:00:00.000000",
            end_time="2999-01-01T00:00:00Z",
            steps="1h",
        )

    assert max(metrics.cpu.datasets) > 5
    assert min(metrics.mem.datasets) > 1_000_000
    assert len(averaged.cpu.datasets) in {1, 2}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"start_time": "yesterday"}, "start_time"),
        ({"start_time": "2026-01-02 00:00:00", "end_time": "2026-01-01 00:00:00.5"}, "after"),
        ({"steps": "2m"}, "steps is one of 30s, 1m, 5m, 10m, 1h"),
        ({"raw": "maybe"}, "raw"),
    ],
)
async def test_metrics_that_cannot_be_made_are_unprocessable(
    arguments: dict[str, str], complaint: str
) -> None:
    async with a_cloud(SLEEPER) as world:
        deployment = await deployed(world, SLEEPER)
        with pytest.raises(Unprocessable, match=complaint):
            await world.get_metrics(request_id=deployment.request_id, **arguments)


# ── private fleets ───────────────────────────────────────────────────────────────────────────────

ALPHA = Fleet(
    name="alpha",
    hosts=(
        PrivateHost(host_id="pending", status="PENDING"),
        PrivateHost(host_id="small", city="Tokyo", cpu_units=256, memory_mb=512),
        PrivateHost(host_id="big", city="Sydney", cpu_units=512, memory_mb=8192),
    ),
)


async def test_private_hosts_are_tried_in_order_and_then_the_cloud() -> None:
    application = python(
        "import os; print(sorted(os.environ.items())); import time; time.sleep(60)"
    )
    async with a_cloud(application, fleets=[ALPHA]) as world:
        for _ in range(4):
            body = FleetDeployRequest(
                application="app",
                version="v1",
                users=[(48.9, 2.4)],
                private_host_ids=["unknown", "pending", "small", "big"],
            )
            status, _ = await world.deploy_to_fleet(body=body)
            assert status == 202
        landed = list(world.deployments.values())
        await until(lambda: all("\n" in one.output.text() for one in landed))
        told = [dict(eval(one.output.text())) for one in landed]
        hosts = (await answer(world, "list_fleet_hosts", fleet_name="alpha")).data

    assert [one["ARBITRIUM_HOST_ID"] for one in told] == ["small", "big", "big", "paris-emulated-1"]
    assert [one["ARBITRIUM_HOST_IN_PRIVATE_FLEET"] for one in told] == ["true"] * 3 + ["false"]
    assert [one["ARBITRIUM_PRIVATE_FLEET_ID"] for one in told] == ["alpha"] * 3 + ["PUBLIC_CLOUD"]
    assert [one.location.city for one in landed] == ["Tokyo", "Sydney", "Sydney", "Paris"]
    assert [host.allocated_cpu_units for host in hosts] == [0, 256, 512]
    assert [host.allocatable_cpu_units for host in hosts] == [4096, 0, 0]
    assert [host.allocatable_memory_mb for host in hosts] == [8192, 0, 7168]


async def test_resources_of_the_deploy_count_against_a_host() -> None:
    async with a_cloud(SLEEPER, fleets=[ALPHA]) as world:
        body = FleetDeployRequest(
            application="app",
            version="v1",
            users=[(0, 0)],
            private_host_ids=["small", "big"],
            resources=Resources(400, 600),
        )
        await world.deploy_to_fleet(body=body)
        (deployment,) = world.deployments.values()
        hosts = (await answer(world, "list_fleet_hosts", fleet_name="alpha")).data

    assert deployment.host_id == "big"
    assert (hosts[2].allocated_cpu_units, hosts[2].allocated_memory_mb) == (400, 600)


async def test_hosts_are_described_in_the_older_or_the_newer_shape() -> None:
    async with a_cloud(fleets=[ALPHA]) as world:
        older = to_json(await answer(world, "list_fleet_hosts", fleet_name="alpha"))
    async with a_cloud(fleets=[ALPHA], host_shape="centroid") as world:
        newer = to_json(await answer(world, "list_fleet_hosts", fleet_name="alpha"))

    assert [host["host_id"] for host in older["data"]] == ["pending", "small", "big"]
    assert all("pin" in host and "centroid" not in host for host in older["data"])
    assert all("centroid" in host and "pin" not in host for host in newer["data"])
    assert newer["data"][2]["fleet_host_specifications"]["cpu_units"] == 512
    assert (newer["total_count"], newer["pagination"]["has_next"]) == (3, False)


async def test_an_unknown_fleet_is_a_bad_request() -> None:
    async with a_cloud() as world:
        with pytest.raises(BadRequest, match="'beta'"):
            await world.list_fleet_hosts(fleet_name="beta")


async def test_a_host_in_a_city_that_is_not_there_is_refused() -> None:
    fleet = Fleet(name="f", hosts=(PrivateHost(host_id="h", city="Atlantis"),))
    with pytest.raises(InvalidRequest, match="host h: no city 'Atlantis'; Montreal"):
        async with a_cloud(fleets=[fleet]):
            pass


# ── tags ─────────────────────────────────────────────────────────────────────────────────────────


async def test_tags_are_made_read_renamed_and_deleted() -> None:
    async with a_cloud(SLEEPER) as world:
        deployment = await deployed(world, SLEEPER, tags=["a", "b"])
        one = {"request_id": deployment.request_id}

        made = await answer(world, "create_tag", **one, body=TagName("c"))
        renamed = await answer(world, "rename_tag", **one, tag_name="a", body=TagName("z"))
        await answer(world, "rename_tag", **one, tag_name="b", body=TagName("b"))
        assert await world.delete_tag(**one, tag_name="b") == (204, None)
        page = await answer(world, "list_tags", **one)

        assert [tag.name for tag in page.tags] == ["z", "c"]
        assert (page.count, page.total_count, page.pagination.has_next) == (2, 2, False)
        assert await answer(world, "get_tag", **one, tag_name="c") == made
        assert renamed.create_time < renamed.last_updated
        assert deployment.deployment().tags == ("z", "c")


async def test_tags_that_are_not_there_or_there_already_are_refused() -> None:
    async with a_cloud(SLEEPER) as world:
        deployment = await deployed(world, SLEEPER, tags=[f"t{number}" for number in range(39)])
        one = {"request_id": deployment.request_id}

        for call in ("get_tag", "delete_tag"):
            with pytest.raises(NotFound, match="Tag none not found"):
                await getattr(world, call)(**one, tag_name="none")
        with pytest.raises(NotFound):
            await world.rename_tag(**one, tag_name="none", body=TagName("x"))
        with pytest.raises(Conflict):
            await world.rename_tag(**one, tag_name="t1", body=TagName("t2"))
        with pytest.raises(Conflict):
            await world.create_tag(**one, body=TagName("t1"))
        await world.create_tag(**one, body=TagName("t39"))
        with pytest.raises(BadRequest, match="40 tags at most"):
            await world.create_tag(**one, body=TagName("t40"))


# ── the rest ─────────────────────────────────────────────────────────────────────────────────────


async def test_webhooks_come_once_each_with_the_status_of_that_moment() -> None:
    arena = sample_application("--crash-after", "0.3")
    announced = SentWebhooks()
    async with a_cloud(arena, announced=announced) as world:
        deployment = await deployed(
            world,
            arena,
            webhook_on_ready="http://ready/",
            webhook_on_error="http://error/",
            webhook_on_terminated="http://terminated/",
        )
        await reached(deployment, Status.ERROR)
        for _ in range(3):
            deployment.stop()
        await reached(deployment, Status.TERMINATED)

    assert [(url, told.current_status) for url, told in announced.events] == [
        ("http://ready/", Status.READY),
        ("http://error/", Status.ERROR),
        ("http://terminated/", Status.TERMINATED),
    ]


async def test_a_step_that_the_table_does_not_have_cannot_be_taken() -> None:
    async with a_cloud(SLEEPER) as world:
        deployment = await reached(await deployed(world, SLEEPER), Status.READY)

        with pytest.raises(AssertionError, match="cannot go from READY to SEEKING"):
            deployment._set_status(Status.SEEKING)


async def test_what_fails_inside_is_kept_for_whoever_closes() -> None:
    async with a_cloud(SLEEPER) as world:

        async def broken() -> None:
            raise ZeroDivisionError

        world._spawn(broken())
        await asyncio.sleep(0.01)
        (failure,) = world.failures
        world.failures.clear()

    assert isinstance(failure, ZeroDivisionError)


async def test_ten_at_once_are_ten_servers() -> None:
    async with a_cloud(ARENA) as world:
        deployments = [await deployed(world, ARENA) for _ in range(10)]
        await asyncio.gather(*(reached(one, Status.READY) for one in deployments))

        assert len({one.port_numbers["game"] for one in deployments}) == 10
        assert len({one.process.pid for one in deployments if one.process}) == 10
