"""Applications with an image: containers of an engine, from pull to removal."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from container_engine import FakeEngine, FakeImage, an_engine, python_image
from emulated_cloud import a_cloud, deployed, reached, until

from edgegap_async import Status
from edgegap_async.emulator import Application, AppPort, game_server
from edgegap_async.emulator.cloud import Cloud
from edgegap_async.emulator.container_engine import EMULATOR_LABEL

SERVER = FakeImage((sys.executable, "-I", str(Path(game_server.__file__)), "--address", "0.0.0.0"))
SLEEP = "import time; time.sleep(60)"


def an_application(name: str = "arena", **settings: Any) -> Application:
    values: dict[str, Any] = {
        "name": name,
        "version": "v1",
        "image": f"registry.test/{name}:v1",
    }
    return Application(**values | settings)


@contextlib.asynccontextmanager
async def running(
    folder: Path, application: Application, image: FakeImage, **settings: Any
) -> AsyncIterator[tuple[Cloud, FakeEngine]]:
    """A cloud with one application, whose image the engine has."""
    async with (
        an_engine(folder, **{application.name: image}) as engine,
        a_cloud(application, engine=engine.url, **settings) as cloud,
    ):
        yield cloud, engine


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


async def asked(port: int, text: bytes) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as player:
        player.setblocking(False)
        player.connect(("127.0.0.1", port))
        player.send(text)
        async with asyncio.timeout(10):
            return await asyncio.get_running_loop().sock_recv(player, 1000)


def processes_of(engine: FakeEngine) -> list[int]:
    return [
        one.process.pid
        for one in engine.containers.values()
        if one.process is not None and psutil.pid_exists(one.process.pid)
    ]


def _is_a_megabyte(measured: float | None) -> bool:
    return measured is not None and measured > 1e6


# ── start ────────────────────────────────────────────────────────────────────────────────────────


async def test_a_container_is_ready_once_its_port_is_bound_and_players_reach_it(
    tmp_path: Path,
) -> None:
    number = free_port()
    application = an_application(
        ports=[AppPort("game", "UDP", number=number)], environment={"MODE": "ranked"}
    )
    async with running(tmp_path, application, SERVER) as (cloud, engine):
        deployment = await deployed(cloud, application)
        await reached(deployment, Status.READY)
        (container,) = engine.containers.values()
        port = deployment.ports["game"]

        assert (port.internal, port.external != number) == (number, True)
        assert await asked(port.external or 0, b"ping") == b"pong"
        assert "MODE=ranked" in container.config["Env"]
        assert f"ARBITRIUM_REQUEST_ID={deployment.request_id}" in container.config["Env"]
        assert not [one for one in container.config["Env"] if one.startswith(("PATH=", "HOME="))]
        assert container.config["HostConfig"]["PortBindings"] == {
            f"{number}/udp": [{"HostIp": "127.0.0.1", "HostPort": str(port.external)}]
        }
        await until(lambda: f"starting on port {number}" in deployment.output.text())

        deployment.stop()
        await reached(deployment, Status.TERMINATED)

        assert not engine.containers


async def test_two_containers_have_the_same_fixed_port(tmp_path: Path) -> None:
    application = an_application(ports=[AppPort("game", "UDP", to_check=False, number=7777)])
    async with running(tmp_path, application, python_image(SLEEP)) as (cloud, _):
        two = [await deployed(cloud, application) for _ in range(2)]
        for each in two:
            await reached(each, Status.READY)

        assert [each.ports["game"].internal for each in two] == [7777, 7777]
        assert len({each.ports["game"].external for each in two}) == 2


async def test_limits_and_program_of_a_container_are_those_of_the_application(
    tmp_path: Path,
) -> None:
    application = an_application(
        argv=["/bin/sleep", "60"], cpu_units=512, memory_mb=256, directory="/game"
    )
    async with running(tmp_path, application, python_image("")) as (cloud, engine):
        await reached(await deployed(cloud, application), Status.READY)
        (container,) = engine.containers.values()
        limits = container.config["HostConfig"]

        assert (container.config["Entrypoint"], container.config["Cmd"]) == (["/bin/sleep"], ["60"])
        assert container.config["WorkingDir"] == "/game"
        assert (limits["CpuQuota"], limits["CpuPeriod"]) == (50_000, 100_000)
        assert limits["Memory"] == limits["MemorySwap"] == 256 * 2**20
        assert {"Name": "nofile", "Soft": 4096, "Hard": 4096} in limits["Ulimits"]


async def test_a_port_that_is_bound_on_loopback_only_is_not_ready_and_the_error_names_it(
    tmp_path: Path,
) -> None:
    number = free_port()
    application = an_application(
        ports=[AppPort("game", "UDP", number=number)],
        argv=[sys.executable, "-I", str(game_server.__file__), "{port:game}"],
        time_to_deploy=1,
    )
    async with running(tmp_path, application, SERVER) as (cloud, _):
        failed = await reached(await deployed(cloud, application), Status.ERROR)

    assert f"127.0.0.1:{number}/udp" in (failed.error_detail or "")
    assert "not loopback" in (failed.error_detail or "")


async def test_an_image_without_cat_is_ready_once_it_runs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    application = an_application(ports=[AppPort("game", "UDP", number=7777)])
    async with running(tmp_path, application, python_image(SLEEP)) as (cloud, engine):
        engine.runs_programs = False
        await reached(await deployed(cloud, application), Status.READY)

    assert "no `cat` in it" in caplog.text


async def test_a_container_whose_port_another_program_has_gets_another(tmp_path: Path) -> None:
    application = an_application(ports=[AppPort("game", "UDP", number=free_port())])
    async with running(tmp_path, application, SERVER) as (cloud, engine):
        deployment = await deployed(cloud, application)
        first = deployment.port_numbers["game"]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as squatter:
            squatter.bind(("127.0.0.1", first))
            await reached(deployment, Status.READY)

        assert deployment.port_numbers["game"] != first
        assert await asked(deployment.port_numbers["game"], b"ping") == b"pong"
        assert len(engine.containers) == 1


# ── images ───────────────────────────────────────────────────────────────────────────────────────


async def test_an_image_that_the_engine_lacks_is_pulled_with_the_credentials(
    tmp_path: Path,
) -> None:
    image = python_image(SLEEP, is_local=False, username="team", password="canary-registry")
    application = an_application(private_username="team", private_token="canary-registry")
    async with running(tmp_path, application, image) as (cloud, engine):
        await reached(await deployed(cloud, application), Status.READY)
        await reached(await deployed(cloud, application), Status.READY)

        assert engine.calls["POST images/create"] == 1
    assert "canary" not in repr(application)


@pytest.mark.parametrize(
    ("credentials", "text"),
    [
        ({}, "pull access denied"),
        ({"private_username": "x", "private_token": "canary-x"}, "unauth"),
    ],
)
async def test_row_60_a_pull_error_is_the_error_of_the_deployment(
    tmp_path: Path, credentials: dict[str, str], text: str
) -> None:
    image = python_image(SLEEP, is_local=False, username="team", password="canary-registry")
    application = an_application(**credentials)
    async with running(tmp_path, application, image) as (cloud, engine):
        failed = await reached(await deployed(cloud, application), Status.ERROR)

        assert (failed.error_detail or "").startswith("Unable to pull image from registry: ")
        assert text in (failed.error_detail or "")
        assert not engine.containers


async def test_row_60_a_pull_that_takes_too_long_is_the_error_of_the_deployment(
    tmp_path: Path,
) -> None:
    image = python_image(SLEEP, is_local=False, pull_seconds=30)
    application = an_application(time_to_deploy=0.5)
    async with running(tmp_path, application, image) as (cloud, _):
        failed = await reached(await deployed(cloud, application), Status.ERROR)

    assert "Pull image timeout exceeded" in (failed.error_detail or "")


async def test_a_slow_pull_delays_ready_only(tmp_path: Path) -> None:
    image = python_image(SLEEP, is_local=False, pull_seconds=0.5)
    application = an_application()
    async with running(tmp_path, application, image) as (cloud, _):
        deployment = await deployed(cloud, application)
        await until(lambda: deployment.status is Status.DEPLOYING)
        deployment.stop()
        await reached(deployment, Status.TERMINATED)

        assert deployment.last_status is Status.TERMINATING
        assert deployment.ready_at is not None


# ── end ──────────────────────────────────────────────────────────────────────────────────────────


async def test_row_50_a_container_that_exits_is_an_error_with_code_and_output(
    tmp_path: Path,
) -> None:
    application = an_application()
    image = python_image("print('no map'); raise SystemExit(3)")
    async with running(tmp_path, application, image) as (cloud, engine):
        failed = await reached(await deployed(cloud, application), Status.ERROR)

        assert failed.error_detail == "The application exited with code 3"
        assert failed.crash_output == "no map\n"
        assert not engine.containers


async def test_a_container_that_is_made_to_crash_is_an_error_with_the_signal(
    tmp_path: Path,
) -> None:
    application = an_application()
    async with running(tmp_path, application, python_image(SLEEP)) as (cloud, _):
        deployment = await deployed(cloud, application)
        await reached(deployment, Status.READY)
        assert deployment.process is not None
        await deployment.process.crash()
        await reached(deployment, Status.ERROR)

    assert "SIGKILL" in str(deployment.error_detail)


async def test_row_50_the_error_of_a_container_that_took_too_much_memory_says_so(
    tmp_path: Path,
) -> None:
    application = an_application()
    async with running(tmp_path, application, python_image(SLEEP)) as (cloud, engine):
        deployment = await reached(await deployed(cloud, application), Status.READY)
        (container,) = engine.containers.values()
        container.was_killed_for_memory = True
        assert container.process is not None
        container.process.kill()
        await reached(deployment, Status.ERROR)

        assert deployment.crash is not None
        assert deployment.crash.exit_code == 137
        assert "was killed by SIGKILL: it has used more memory" in (deployment.error_detail or "")


async def test_row_45_a_container_that_ignores_sigterm_is_killed_after_the_grace_period(
    tmp_path: Path,
) -> None:
    program = f"import signal; signal.signal(15, signal.SIG_IGN); print('on'); {SLEEP}"
    application = an_application(termination_grace_period_seconds=0.2)
    async with running(tmp_path, application, python_image(program)) as (cloud, engine):
        deployment = await reached(await deployed(cloud, application), Status.READY)
        await until(lambda: "on" in deployment.output.text())
        deployment.stop()
        await reached(deployment, Status.TERMINATED)

        assert engine.calls["POST containers/kill"] == 2
        assert not engine.containers


async def test_a_container_starts_again_by_its_restart_policy(tmp_path: Path) -> None:
    application = an_application(restart_policy="always")
    image = python_image("import time; print('start'); time.sleep(0.3); raise SystemExit(1)")
    async with running(tmp_path, application, image) as (cloud, engine):
        deployment = await deployed(cloud, application)
        await until(lambda: deployment.output.text().count("start") >= 3)

        assert deployment.crash is not None
        assert deployment.crash.exit_code == 1
        assert len(engine.containers) <= 1


async def test_usage_of_a_container_is_measured(tmp_path: Path) -> None:
    application = an_application()
    image = python_image("while True: pass")
    async with running(tmp_path, application, image, metrics_interval=0.05) as (cloud, engine):
        deployment = await reached(await deployed(cloud, application), Status.READY)
        (container,) = engine.containers.values()
        assert container.forwarder is not None
        passed = container.forwarder.traffic
        passed.received_bytes, passed.sent_bytes = 2000, 3000

        def measured() -> bool:
            series = deployment.samples.series(start=None, end=None, step=None)
            moved = [series.total.receive_total.datasets, series.total.transmit_total.datasets]
            return (
                any(series.cpu.datasets)
                and any(map(_is_a_megabyte, series.mem.datasets))  # more than just after its fork
                and [values[-1:] for values in moved] == [(2000,), (3000,)]
            )

        await until(measured)


# ── engine ───────────────────────────────────────────────────────────────────────────────────────


async def test_row_60_without_an_engine_a_deployment_ends_in_error_with_the_reason(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    application = an_application()
    async with a_cloud(application, engine=f"unix://{tmp_path}/none.sock") as cloud:
        failed = await reached(await deployed(cloud, application), Status.ERROR)

    assert f"unix://{tmp_path}/none.sock does not answer" in (failed.error_detail or "")
    assert "applications with an image cannot be deployed now" in caplog.text


@pytest.mark.parametrize(
    ("call", "status", "text"),
    [
        ("POST containers/create", 409, "name is already in use"),
        ("POST containers/create", 500, "no space left on device"),
        ("POST containers/start", 500, "OCI runtime create failed"),
        ("POST containers/start", 404, "No such container"),
        ("GET images/registry.test", 500, "server error"),
    ],
)
async def test_row_60_what_an_engine_refuses_is_the_error_of_the_deployment(
    tmp_path: Path, call: str, status: int, text: str
) -> None:
    application = an_application()
    async with running(tmp_path, application, python_image(SLEEP)) as (cloud, engine):
        engine.fails[call] = (status, text)
        failed = await reached(await deployed(cloud, application), Status.ERROR)

        assert failed.error_detail == f"cannot start the application: {text}"
        assert not engine.containers


async def test_row_60_a_container_lives_on_while_its_engine_restarts(tmp_path: Path) -> None:
    program = "import time\nwhile True: print('tick'); time.sleep(0.05)"
    application = an_application()
    async with running(tmp_path, application, python_image(program)) as (cloud, engine):
        deployment = await reached(await deployed(cloud, application), Status.READY)
        for _ in range(2):
            await engine.stop()
            await asyncio.sleep(0.2)
            await engine.start()
            written = deployment.output.written
            await until(lambda: deployment.output.written > written)  # noqa: B023

        assert deployment.status is Status.READY
        deployment.stop()
        await reached(deployment, Status.TERMINATED)
        assert not engine.containers


async def test_row_60_an_engine_that_stays_away_is_the_error_of_its_deployments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgegap_async.emulator.containers._RETURN_TIMEOUT", 0.5)
    application = an_application()
    async with running(tmp_path, application, python_image(SLEEP)) as (cloud, engine):
        deployment = await reached(await deployed(cloud, application), Status.READY)
        await engine.stop()
        await reached(deployment, Status.ERROR)
        await engine.start()
        await until(lambda: not engine.containers)

        assert "does not answer" in (deployment.error_detail or "")
        assert deployment.crash is not None
        assert deployment.crash.exit_code == 125


async def test_a_container_whose_start_is_cancelled_is_removed(tmp_path: Path) -> None:
    application = an_application()
    async with running(tmp_path, application, python_image(SLEEP)) as (cloud, engine):
        made = engine.slow["POST containers/create"] = threading.Event()
        await deployed(cloud, application)
        await until(lambda: engine.calls["POST containers/create"])
        forgetting = asyncio.create_task(cloud.forget_others(()))
        await asyncio.sleep(0)
        made.set()
        await forgetting
        await until(lambda: not engine.containers)

        assert not processes_of(engine)


async def test_containers_of_other_emulators_stay(tmp_path: Path) -> None:
    application = an_application()
    async with running(tmp_path, application, python_image(SLEEP)) as (cloud, engine):
        first = await reached(await deployed(cloud, application), Status.READY)
        async with a_cloud(application, engine=engine.url) as other:
            await reached(await deployed(other, application), Status.READY)
            assert len(engine.containers) == 2
        await until(lambda: len(engine.containers) == 1)
        (container,) = engine.containers.values()

        assert container.name == f"edgegap-{first.request_id}"
        assert container.config["Labels"][EMULATOR_LABEL]
