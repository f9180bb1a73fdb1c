"""Containers after the end of their emulator, and images of versions that calls create."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from bare_api import BareApi
from container_engine import FakeEngine, FakeImage, an_engine, python_image
from emulated_cloud import until
from emulator_program import EmulatorProgram

from edgegap_async.emulator import (
    Application,
    AppPort,
    Emulator,
    Image,
    Timings,
    check_file,
    game_server,
)
from edgegap_async.emulator.containers import _is_of_container, _read_tables
from edgegap_async.emulator.procfs import bound_in
from edgegap_async.errors import InvalidRequest

SERVER = FakeImage((sys.executable, "-I", str(Path(game_server.__file__)), "--address", "0.0.0.0"))
SLEEP = "import time; time.sleep(60)"


def _file(engine: str) -> str:
    return f"""
        [[applications]]
        name = "arena"
        version = "v1"
        image = "registry.test/arena:v1"
        ports = [{{ name = "game", protocol = "UDP" }}]

        [settings]
        engine = "{engine}"
        """


# ── the end of the emulator ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGQUIT])
async def test_row_47_no_container_outlives_its_emulator(
    tmp_path: Path, how: signal.Signals
) -> None:
    async with (
        an_engine(tmp_path, arena=SERVER) as engine,
        EmulatorProgram(tmp_path, tmp_path, _file(engine.url)) as emulator,
    ):
        await emulator.deploy(2)
        assert len(engine.containers) == 2
        emulator.end(how)
        await until(lambda: not engine.containers)


async def test_row_47_the_next_emulator_removes_the_containers_of_one_that_died_with_its_guardian(
    tmp_path: Path,
) -> None:
    async with an_engine(tmp_path, arena=SERVER) as engine:
        async with EmulatorProgram(tmp_path, tmp_path, _file(engine.url)) as emulator:
            await emulator.deploy(1)
            (left,) = engine.containers
            emulator.guardian().suspend()
            guardian = emulator.guardian()
            emulator.end(signal.SIGKILL)
            guardian.kill()
            guardian.wait(10)
        assert list(engine.containers) == [left]
        async with EmulatorProgram(tmp_path, tmp_path, _file(engine.url)):
            await until(lambda: not engine.containers)


async def test_row_60_containers_of_an_engine_that_was_away_at_the_end_are_removed_later(
    tmp_path: Path,
) -> None:
    async with an_engine(tmp_path, arena=SERVER) as engine:
        async with EmulatorProgram(tmp_path, tmp_path, _file(engine.url)) as emulator:
            await emulator.deploy(1)
            await engine.stop()
            emulator.end(signal.SIGKILL)
        await engine.start()
        assert len(engine.containers) == 1
        async with EmulatorProgram(tmp_path, tmp_path, _file(engine.url)):
            await until(lambda: not engine.containers)


# ── calls ────────────────────────────────────────────────────────────────────────────────────────


@contextlib.asynccontextmanager
async def _api(
    folder: Path, image: FakeImage, **settings: Any
) -> AsyncIterator[tuple[BareApi, FakeEngine]]:
    async with an_engine(folder, arena=image) as engine:
        emulator = Emulator(
            images=[Image(image="registry.test/arena", sandbox="docker")],
            engine=engine.url,
            timings=Timings.fast(),
            limits=False,
            **settings,
        )
        async with emulator, aiohttp.ClientSession(emulator.url) as session:
            api = BareApi(emulator, session)
            created = {"name": "arena", "is_active": True, "image": "aGk="}
            assert (await api("POST", "/v1/app", json=created))[0] == 200
            yield api, engine


def _version(**fields: Any) -> dict[str, Any]:
    return {
        "name": "v1",
        "docker_repository": "registry.test",
        "docker_image": "arena",
        "docker_tag": "v1",
        "req_cpu": 256,
        "req_memory": 512,
        "ports": [{"port": 0, "protocol": "UDP", "to_check": True, "name": "game"}],
        **fields,
    }


async def test_a_version_of_a_call_runs_its_image_with_the_credentials_of_the_call(
    tmp_path: Path,
) -> None:
    image = FakeImage(SERVER.argv, is_local=False, username="team", password="canary-registry")
    async with _api(tmp_path, image) as (api, engine):
        wanted = _version(private_username="team", private_token="canary-registry")
        status, created = await api("POST", "/v1/app/arena/version", json=wanted)
        assert (status, created["version"]["private_token"]) == (
            200,
            "This value is set and encrypted",
        )
        request_id = await api.deploy()
        await api.wait_for_status(request_id, "READY")

        assert [one.config["Image"] for one in engine.containers.values()] == [
            "registry.test/arena:v1"
        ]


@pytest.mark.parametrize(
    ("fields", "status", "text"),
    [
        ({}, 424, "Unable to pull image from registry: pull access denied"),
        (
            {"private_username": "x", "private_token": "canary-x"},
            400,
            "Unable to login with the given credentials",
        ),
        ({"docker_tag": "v9"}, 424, "manifest unknown"),
        ({"private_username": "team", "private_token": "canary-registry"}, 200, ""),
    ],
)
async def test_a_call_that_asks_for_a_check_of_the_image_is_answered_what_the_registry_says(
    tmp_path: Path, fields: dict[str, str], status: int, text: str
) -> None:
    image = FakeImage(SERVER.argv, is_local=False, username="team", password="canary-registry")
    async with _api(tmp_path, image) as (api, _):
        wanted = _version(verify_image=True, **fields)
        answered, said = await api("POST", "/v1/app/arena/version", json=wanted)

        assert answered == status
        assert text in said.get("message", "")
        missing = (await api("GET", "/v1/app/arena/version/v1"))[0] == 404
        assert missing is (status != 200)


async def test_a_check_of_an_image_without_an_engine_is_424(tmp_path: Path) -> None:
    async with _api(tmp_path, SERVER) as (api, engine):
        first = _version(name="v0", verify_image=True)
        assert (await api("POST", "/v1/app/arena/version", json=first))[0] == 200
        await engine.stop()
        status, said = await api("POST", "/v1/app/arena/version", json=_version(verify_image=True))

        assert status == 424
        assert f"{engine.url} does not answer" in said["message"]


async def test_a_kept_version_needs_the_password_of_its_registry_again(tmp_path: Path) -> None:
    image = FakeImage(SERVER.argv, is_local=False, username="team", password="canary-registry")
    state = tmp_path / "state"
    credentials = {"private_username": "team", "private_token": "canary-registry"}
    async with _api(tmp_path, image, state=state) as (api, _):
        await api("POST", "/v1/app/arena/version", json=_version(**credentials))
    assert b"canary-registry" not in b"".join(path.read_bytes() for path in state.iterdir())
    async with an_engine(tmp_path, arena=image) as engine:
        emulator = Emulator(
            images=[Image(image="registry.test/arena", sandbox="docker")],
            engine=engine.url,
            timings=Timings.fast(),
            state=state,
        )
        async with emulator, aiohttp.ClientSession(emulator.url) as session:
            api = BareApi(emulator, session)
            body = {
                "application": "arena",
                "version": "v1",
                "users": [{"user_type": "ip_address", "user_data": {"ip_address": "192.0.2.1"}}],
            }
            status, said = await api("POST", "/v2/deployments", json=body)
            assert (status, "private_token" in said["message"]) == (400, True)
            await api("PATCH", "/v1/app/arena/version/v1", json=credentials)
            await api.wait_for_status(await api.deploy(), "READY")


async def test_a_container_calls_the_api_by_the_name_of_its_host(tmp_path: Path) -> None:
    application = Application(name="arena", version="v1", image="registry.test/arena:v1")
    async with an_engine(tmp_path, arena=python_image(SLEEP)) as engine:
        emulator = Emulator([application], engine=engine.url, timings=Timings.fast())
        async with emulator, aiohttp.ClientSession(emulator.url) as session:
            api = BareApi(emulator, session)
            await api.wait_for_status(await api.deploy(), "READY")
            (container,) = engine.containers.values()
            port = emulator.url.rpartition(":")[2]
            (url,) = [
                entry.partition("=")[2]
                for entry in container.config["Env"]
                if entry.startswith("ARBITRIUM_CONTEXT_URL=")
            ]
            (token,) = [
                entry.partition("=")[2]
                for entry in container.config["Env"]
                if entry.startswith("ARBITRIUM_CONTEXT_TOKEN=")
            ]
            prefix = f"http://host.docker.internal:{port}"
            assert url.startswith(f"{prefix}/v1/context/")
            status, _ = await api(
                "GET",
                url.removeprefix(prefix),
                authorization=token,
                headers={"Host": f"host.docker.internal:{port}"},
            )
            assert status == 200
            assert (
                "host.docker.internal:host-gateway" in container.config["HostConfig"]["ExtraHosts"]
            )


# ── settings ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"sandbox": "docker", "argv": ["x"]}, "needs the image"),
        ({"sandbox": "bwrap", "image": "a/b"}, 'not in "bwrap"'),
        ({"image": "two words"}, "image must be a name"),
        ({"image": "--privileged"}, "image must be a name"),
        ({"image": "a/b", "private_username": "x"}, "belong together"),
        ({}, "argv must be a list"),
    ],
)
def test_an_application_that_cannot_run_as_a_container_is_refused(
    settings: dict[str, Any], text: str
) -> None:
    with pytest.raises(InvalidRequest, match=text):
        Application(name="arena", version="v1", **settings)


@pytest.mark.parametrize("engine", ["docker", "ssh://host", "unix://relative", "tcp://", 5])
def test_an_engine_that_the_emulator_cannot_reach_is_refused(engine: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"engine must be the URL of a container engine"):
        Emulator(engine=engine)


def test_a_file_with_an_image_is_right(tmp_path: Path) -> None:
    path = tmp_path / "apps.toml"
    path.write_text(_file("unix:///run/docker.sock"))

    assert check_file(path) == []


def test_the_bound_ports_of_a_process_of_this_machine_are_seen() -> None:
    pid = os.getpid()
    own = Path("/proc/self/cgroup").read_text().split()[0]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", 0))
        found = bound_in(_read_tables(pid))

        assert found["udp", bound.getsockname()[1]] == ["127.0.0.1"]
    assert _is_of_container(pid, own)
    assert not _is_of_container(pid, "0" * 64)
    assert not _is_of_container(0, own)


def test_no_repr_has_the_password_of_a_registry() -> None:
    port = AppPort("game")
    application = Application(
        name="arena",
        version="v1",
        image="registry.test/arena",
        ports=[port],
        private_username="team",
        private_token="canary-registry",
    )
    image = Image(
        image="registry.test/arena",
        sandbox="docker",
        private_username="team",
        private_token="canary-registry",
    )

    assert "canary-registry" not in f"{application!r} {image!r}"
