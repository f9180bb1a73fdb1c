"""A real container engine: what the other tests of containers ask a small service.

EDGEGAP_ENGINE is its address, such as `unix:///run/podman/podman.sock`; Docker and Podman have the
API. The image is made of Debian's `busybox-static`.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import shutil
import signal
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
from emulated_cloud import until
from emulator_program import EmulatorProgram

from edgegap_async import EdgegapClient
from edgegap_async.emulator import Application, AppPort, Emulator, Timings
from edgegap_async.emulator.container_engine import EMULATOR_LABEL
from edgegap_async.errors import DeploymentFailed

ENGINE: Final = os.environ.get("EDGEGAP_ENGINE", "")
BUSYBOX: Final = shutil.which("busybox")
IMAGE: Final = "registry.test/edgegap-async-test:v1"
PORT: Final = AppPort("game", "TCP", number=7777)
# Serves its own environment. A first process without a handler ignores SIGTERM.
SERVER: Final = (
    "trap 'exit 0' TERM; env > /tmp/env; echo starting; busybox httpd -f -p 7777 -h /tmp & wait"
)

pytestmark = [
    pytest.mark.skipif(not ENGINE, reason="EDGEGAP_ENGINE names no engine"),
    pytest.mark.skipif(BUSYBOX is None, reason="needs busybox: apt-get install busybox-static"),
    pytest.mark.timeout(180),
]


@asynccontextmanager
async def engine_api() -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.UnixConnector(ENGINE.removeprefix("unix://"))
    async with aiohttp.ClientSession("http://engine", connector=connector) as session:
        yield session


async def containers() -> list[str]:
    """The ids of all containers that emulators have made."""
    wanted = {"all": "true", "filters": json.dumps({"label": [EMULATOR_LABEL]})}
    async with engine_api() as api, api.get("/v1.41/containers/json", params=wanted) as answer:
        return [one["Id"] for one in await answer.json()]


@pytest.fixture(autouse=True)
async def image() -> None:
    """An image with the programs of busybox."""
    assert BUSYBOX is not None
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive:
        archive.add(BUSYBOX, "bin/busybox")
        for name in ("bin/sh", "bin/env"):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(link)
        folder = tarfile.TarInfo("tmp")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o1777
        archive.addfile(folder)
    layer.seek(0)
    source = {"fromSrc": "-", "repo": IMAGE}
    async with (
        engine_api() as api,
        api.post("/v1.41/images/create", params=source, data=layer) as answer,
    ):
        assert answer.status == 200, await answer.text()
        await answer.read()


def an_application(program: str, **settings: Any) -> Application:
    return Application(
        name="arena",
        version="v1",
        image=IMAGE,
        argv=("/bin/busybox", "sh", "-c", program),
        **{"ports": [PORT], **settings},
    )


@asynccontextmanager
async def a_client(*applications: Application) -> AsyncIterator[tuple[EdgegapClient, Emulator]]:
    async with (
        Emulator(applications, engine=ENGINE, timings=Timings.fast(), limits=False) as emulator,
        EdgegapClient(emulator.token, base_url=emulator.url) as client,
    ):
        yield client, emulator


async def test_row_60_a_container_lives_as_a_process_does() -> None:
    application = an_application(SERVER, environment={"MODE": "ranked"}, memory_mb=64)
    async with a_client(application) as (client, emulator):
        async with client.run("arena", "v1", users=["203.0.113.7"], timeout=60) as server:
            endpoint = server.endpoint("game")
            async with (
                aiohttp.ClientSession() as player,
                player.get(f"http://{endpoint.host}:{endpoint.port}/env") as answer,
            ):
                variables = dict(line.split("=", 1) for line in (await answer.text()).splitlines())
            assert variables["MODE"] == "ranked"
            assert variables["ARBITRIUM_REQUEST_ID"] == server.request_id
            assert variables["ARBITRIUM_PORT_GAME_INTERNAL"] == "7777"

            async with asyncio.timeout(60):
                async for text in server.follow_logs():
                    assert text == "starting\n"
                    break
                async for row in server.metrics():
                    if row["mem"]:  # the first measurements may precede the program
                        break
            assert len(await containers()) == 1

        (deployment,) = emulator.deployments.values()
        await until(lambda: deployment.status == "TERMINATED")
        assert await containers() == []
        assert deployment.crash is None  # it has ended by itself, at SIGTERM


async def test_row_60_the_exit_code_of_a_container_is_that_of_the_deployment() -> None:
    async with a_client(an_application("echo bye; exit 3")) as (client, emulator):
        with pytest.raises(DeploymentFailed) as caught:
            async with client.run("arena", "v1", users=["203.0.113.7"], timeout=60):
                pass

        (deployment,) = emulator.deployments.values()
        assert deployment.crash is not None
        assert deployment.crash.exit_code == 3
        assert caught.value.logs is not None
        assert "bye" in str(caught.value.logs.logs)
        await until(lambda: deployment.status == "TERMINATED")
        assert await containers() == []


async def test_row_60_an_image_that_no_registry_has_is_the_error_of_the_deployment() -> None:
    missing = Application(name="arena", version="v1", image="localhost:1/none:v1", ports=[PORT])
    async with a_client(missing) as (client, _):
        with pytest.raises(DeploymentFailed, match="localhost:1/none"):
            async with client.run("arena", "v1", users=["203.0.113.7"], timeout=60):
                pass


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
async def test_row_47_no_container_of_a_real_engine_outlives_its_emulator(
    tmp_path: Path, how: signal.Signals
) -> None:
    file = f"""
        [[applications]]
        name = "arena"
        version = "v1"
        image = "{IMAGE}"
        argv = ["/bin/busybox", "sh", "-c", "{SERVER}"]
        ports = [{{ name = "game", protocol = "TCP", number = 7777 }}]

        [settings]
        engine = "{ENGINE}"
        """
    async with EmulatorProgram(tmp_path, tmp_path, file) as emulator:
        await emulator.deploy(2)
        assert len(await containers()) == 2
        emulator.end(how)
        async with asyncio.timeout(30):
            while await containers():
                await asyncio.sleep(0.1)
