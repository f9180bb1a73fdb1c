"""A deployment whose process exits, crashes, cannot start or never binds its port."""

from __future__ import annotations

import asyncio

import attrs
import pytest
from emulated_cloud import (
    ARENA,
    SentWebhooks,
    a_cloud,
    answer,
    deployed,
    processes_of,
    python_application,
    reached,
    until,
)

from edgegap_async import (
    Status,
)
from edgegap_async.emulator import (
    Application,
    AppPort,
    Simulation,
    Timings,
    sample_application,
)


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
    application = python_application(program, ports=(AppPort("game"),))
    async with a_cloud(application) as cloud:
        deployment = await reached(await deployed(cloud, application), Status.ERROR)
        logs = await answer(cloud, "get_container_logs", request_id=deployment.request_id)
        seen = deployment.deployment()

    assert (seen.error, seen.error_detail, seen.running) == (True, message, False)
    assert logs.crash_logs == logs.logs == "oh no\n"
    assert (logs.crash_data.exit_code, logs.crash_data.message) == (exit_code, message)
    assert logs.crash_data.restart_count == 0


async def test_row_50_a_crash_after_ready_is_an_error_too() -> None:
    arena = sample_application("--crash-after", "0.3", "--exit-code", "4")
    async with a_cloud(arena) as cloud:
        deployment = await reached(await deployed(cloud, arena), Status.READY)
        assert deployment.logs().crash_data is None
        await reached(deployment, Status.ERROR)

        assert deployment.last_status is Status.READY
        assert deployment.crash is not None
        assert deployment.crash.exit_code == 4


async def test_a_crash_in_the_pause_before_ready_is_not_overlooked() -> None:
    arena = sample_application("--crash-after", "0.1")
    async with a_cloud(arena, timings=attrs.evolve(Timings.fast(), deploying=20)) as cloud:
        deployment = await reached(await deployed(cloud, arena), Status.ERROR)

        assert deployment.last_status is Status.DEPLOYING


async def test_row_51_a_server_that_never_opens_its_port_is_an_error_and_is_ended() -> None:
    arena = attrs.evolve(sample_application("--never-bind"), time_to_deploy=0.3)
    async with a_cloud(arena) as cloud:
        deployment = await reached(await deployed(cloud, arena), Status.ERROR)

        number = deployment.port_numbers["game"]
        expected = f"port {number}/udp not opened by the app in 0.3 s; it has opened no port"
        assert deployment.error_detail == expected
        assert deployment.logs().crash_data is None
        assert processes_of(deployment) == []


@pytest.mark.parametrize(
    ("program", "directory", "advice"),
    [
        ("/does/not/exist", None, ""),
        ("./missing", "/", ""),
        (
            "./missing",
            None,
            "; argv is relative to directory, which is an empty folder by default",
        ),
    ],
)
async def test_row_54_a_program_that_cannot_be_started_is_an_error_with_the_reason(
    program: str, directory: str | None, advice: str
) -> None:
    application = Application(name="app", version="v1", argv=(program,), directory=directory)
    async with a_cloud(application) as cloud:
        deployment = await reached(await deployed(cloud, application), Status.ERROR)

    reason = f"[Errno 2] No such file or directory: {program!r}"
    assert deployment.error_detail == f"cannot start the application: {reason}{advice}"


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
    application = python_application(program, restart_policy=policy)
    timings = attrs.evolve(Timings.fast(), deploying=0.6)  # or it is READY before it crashes
    async with a_cloud(application, timings=timings) as cloud:
        deployment = await reached(await deployed(cloud, application), Status.READY)
        await until(lambda: "stays" in deployment.output.text())
        crash = deployment.logs().crash_data

    assert crash is not None
    assert (crash.exit_code, crash.restart_count) == (code, 2)


async def test_the_policy_on_failure_does_not_restart_after_exit_code_0() -> None:
    application = python_application("pass", restart_policy="on_failure", ports=(AppPort("game"),))
    async with a_cloud(application) as cloud:
        deployment = await reached(await deployed(cloud, application), Status.ERROR)

    assert deployment.error_detail == "The application exited with code 0"


@pytest.mark.parametrize("policy", ["never", "on_failure"])
async def test_an_exit_with_code_0_after_ready_ends_the_deployment(policy: str) -> None:
    application = python_application("import time; time.sleep(0.3)", restart_policy=policy)
    webhooks = SentWebhooks()
    async with a_cloud(application, webhooks=webhooks) as cloud:
        deployment = await deployed(
            cloud,
            application,
            webhook_on_error="http://error/",
            webhook_on_terminated="http://terminated/",
        )
        await reached(deployment, Status.READY)
        await reached(deployment, Status.TERMINATED)
        seen = deployment.deployment()

    assert [url for url, _ in webhooks.events] == ["http://terminated/"]
    assert (seen.error, seen.error_detail, deployment.crash) == (False, None, None)


async def test_an_exit_with_code_1_after_ready_is_an_error_with_each_of_the_policies() -> None:
    application = python_application("import time; time.sleep(0.3); raise SystemExit(1)")
    async with a_cloud(application) as cloud:
        deployment = await reached(await deployed(cloud, application), Status.READY)
        await reached(deployment, Status.ERROR)

    assert deployment.error_detail == "The application exited with code 1"


async def test_a_stopped_deployment_still_says_why_it_was_in_error() -> None:
    application = python_application("raise SystemExit(3)", ports=(AppPort("game"),))
    async with a_cloud(application) as cloud:
        deployment = await reached(await deployed(cloud, application), Status.ERROR)
        deployment.stop()
        seen = (await reached(deployment, Status.TERMINATED)).deployment()

    assert (seen.error, seen.error_detail) == (True, "The application exited with code 3")


@pytest.mark.virtual
@pytest.mark.parametrize("ends_in", [Status.ERROR, Status.TERMINATED])
async def test_the_elapsed_time_stands_still_after_the_end(ends_in: Status) -> None:
    share = 1.0 if ends_in is Status.ERROR else 0.0
    simulation = Simulation(ready_after=(0, 0), crash_share=share, crash_after=(10, 10))
    async with a_cloud(ARENA, simulate=simulation) as cloud:
        deployment = await deployed(cloud, ARENA)
        await asyncio.sleep(9.5)
        assert deployment.status is Status.READY
        if ends_in is Status.TERMINATED:
            deployment.stop()
        await asyncio.sleep(1)
        assert deployment.status is ends_in
        elapsed = deployment.deployment().elapsed_time
        await asyncio.sleep(30)

        assert deployment.deployment().elapsed_time == elapsed


async def test_restarts_without_a_bound_port_end_in_error() -> None:
    application = python_application(
        "", restart_policy="always", ports=(AppPort("game"),), time_to_deploy=0.4
    )
    async with a_cloud(application) as cloud:
        deployment = await reached(await deployed(cloud, application), Status.ERROR)

    assert "not opened by the app in 0.4 s" in (deployment.error_detail or "")
    assert deployment.crash is not None
    assert (deployment.crash.restart_count or 0) >= 2


async def test_a_stop_ends_the_pause_before_a_restart() -> None:
    arena = attrs.evolve(sample_application("--crash-after", "0.2"), restart_policy="always")
    async with a_cloud(arena, timings=attrs.evolve(Timings.fast(), restart_delay=60)) as cloud:
        deployment = await reached(await deployed(cloud, arena), Status.READY)
        await until(lambda: deployment.crash and not deployment.process)
        assert deployment.status is Status.READY
        await cloud.stop_deployment(request_id=deployment.request_id)
        await reached(deployment, Status.TERMINATED)
