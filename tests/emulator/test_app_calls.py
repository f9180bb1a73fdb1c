"""Applications and versions: created, read, changed, deleted and deployed over bare HTTP."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import attrs
import pytest
from bare_api import BareApi

from edgegap_async.api.resources.applications import SET_AND_ENCRYPTED
from edgegap_async.emulator import (
    Application,
    AppPort,
    Emulator,
    Image,
    Timings,
    sample_application,
)

ARENA = sample_application()
SECRETIVE = Application(
    name="Arena X",
    version="v 1",
    argv=("sleep", "60"),
    ports=(AppPort("web", "WS"),),
    environment={"MODE": "ranked"},
    hidden_environment={"PASSWORD": "canary-of-the-settings"},
    max_duration=0.5,
    time_to_deploy=0.5,
)
IMAGES = (
    Image(image="registry.example.com/studio/arena", argv=ARENA.argv),
    Image(image="registry.example.com/studio/arena:broken", argv=("false",)),
)
VERSION: dict[str, Any] = {
    "name": "v2",
    "docker_repository": "registry.example.com",
    "docker_image": "studio/arena",
    "docker_tag": "2026.09.30",
    "req_cpu": 1024,
    "req_memory": 2048,
    "ports": [{"port": 0, "protocol": "udp", "name": "game"}],
}


@pytest.fixture
async def apps() -> AsyncIterator[BareApi]:
    emulator = Emulator([ARENA, SECRETIVE], images=IMAGES, timings=Timings.fast(), limits=False)
    async with emulator, aiohttp.ClientSession(emulator.url) as session:
        yield BareApi(emulator, session)


async def call(api: BareApi, method: str, path: str, expected: int, **fields: Any) -> Any:
    options: dict[str, Any] = {"json": fields} if fields else {}
    status, said = await api(method, path, **options)
    assert status == expected, said
    return said


async def test_an_application_is_created_read_changed_and_deleted(apps: BareApi) -> None:
    fields = {"name": "ctf", "is_active": True, "image": "aGk="}
    created = await call(apps, "POST", "/v1/app", 200, **fields)
    assert created.items() >= fields.items()
    assert created["create_time"] == created["last_updated"]
    await call(apps, "POST", "/v1/app", 409, **fields)
    assert await call(apps, "GET", "/v1/app/ctf", 200) == created
    renamed = await call(apps, "PATCH", "/v1/app/ctf", 200, name="ctf2", is_active=False)
    assert (renamed["name"], renamed["is_active"], renamed["image"]) == ("ctf2", False, "aGk=")
    await call(apps, "PATCH", "/v1/app/ctf2", 409, name="arena")
    listed = await call(apps, "GET", "/v1/apps", 200)
    assert [one["name"] for one in listed["applications"]] == ["arena", "Arena X", "ctf2"]
    assert listed["total_count"] == 3
    assert await call(apps, "DELETE", "/v1/app/ctf2", 200) is None
    for method in ("GET", "DELETE"):
        await call(apps, method, "/v1/app/ctf2", 404)


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "ab", "is_active": True, "image": "aGk="},
        {"name": "x" * 65, "is_active": True, "image": "aGk="},
        {"name": "ctf", "is_active": "yes", "image": "aGk="},
        {"name": "ctf", "is_active": True},
        {"name": "ctf", "is_active": True, "image": "aGk=", "argv": ["id"]},
    ],
)
async def test_an_invalid_application_is_a_bad_request(
    apps: BareApi, fields: dict[str, Any]
) -> None:
    await call(apps, "POST", "/v1/app", 400, **fields)


async def test_a_version_of_a_mapped_image_is_created_and_played(apps: BareApi) -> None:
    saved = await call(apps, "POST", "/v1/app/arena/version", 200, **VERSION)
    request_id = await apps.deploy(version="v2")
    ready = await apps.wait_for_status(request_id, "READY")

    assert saved["success"] is True
    assert saved["version"].items() >= {"name": "v2", "restart_policy": "always"}.items()
    assert (ready["app_version"], list(ready["ports"])) == ("v2", ["game"])
    program = apps.emulator.cloud.deployments[request_id].application
    assert (program.argv, program.cpu_units, program.memory_mb) == (ARENA.argv, 1024, 2048)


async def test_the_port_of_a_version_is_the_one_that_its_program_opens(apps: BareApi) -> None:
    ports = [{"port": 7777, "protocol": "TCP"}, {"port": 0, "protocol": "UDP", "name": "game"}]
    await call(apps, "POST", "/v1/app/arena/version", 200, **VERSION | {"ports": ports})
    program = apps.emulator.cloud.registry.find_version("arena", "v2").program

    assert [(port.name, port.number) for port in program.ports] == [("7777", 7777), ("game", None)]
    unnamed = [{"port": 0, "protocol": "UDP"}]
    await call(apps, "POST", "/v1/app/arena/version", 400, **VERSION | {"ports": unnamed})


async def test_a_tag_with_an_entry_of_its_own_runs_that(apps: BareApi) -> None:
    await call(apps, "POST", "/v1/app/arena/version", 200, **VERSION | {"docker_tag": "broken"})

    assert apps.emulator.cloud.registry.find_version("arena", "v2").program.argv == ("false",)


async def test_an_image_that_nothing_stands_for_is_424_and_names_the_table(apps: BareApi) -> None:
    unknown: list[dict[str, Any]] = [
        {"docker_image": "other"},
        {"ports": []},
        {"docker_repository": "elsewhere"},
    ]
    for changes in unknown:
        body = VERSION | changes
        said = await call(apps, "POST", "/v1/app/arena/version", 424, **body)
        assert "[[images]]" in said["message"]
    await call(apps, "GET", "/v1/app/arena/version/v2", 404)
    said = await call(apps, "PATCH", "/v1/app/arena/version/v1", 424, docker_image="other")
    assert "[[images]]" in said["message"]


async def test_no_field_of_a_version_is_a_command(apps: BareApi) -> None:
    for name in ("argv", "command", "arguments", "directory"):
        body = VERSION | {name: "touch /tmp/x"}
        await call(apps, "POST", "/v1/app/arena/version", 400, **body)


async def test_memory_is_at_most_twice_the_cpu_units(apps: BareApi) -> None:
    body = VERSION | {"req_cpu": 512, "req_memory": 1025}
    said = await call(apps, "POST", "/v1/app/arena/version", 400, **body)

    assert "1024 MB is the most for 512 CPU units" in said["message"]


async def test_a_version_cannot_set_variables_of_loaders(apps: BareApi) -> None:
    envs = [{"key": "LD_PRELOAD", "value": "/x.so"}]
    await call(apps, "POST", "/v1/app/arena/version", 400, **VERSION | {"envs": envs})
    await call(apps, "GET", "/v1/app/arena/version/v2", 404)


async def test_a_version_is_changed_listed_and_deleted(apps: BareApi) -> None:
    await call(apps, "POST", "/v1/app/arena/version", 200, **VERSION)
    await call(apps, "POST", "/v1/app/arena/version", 409, **VERSION)
    path = "/v1/app/arena/version/v2"
    changed = await call(
        apps, "PATCH", path, 200, max_duration=30, is_active=False, restart_policy="never"
    )
    assert changed["version"]["max_duration"] == 30
    program = apps.emulator.cloud.registry.find_version("arena", "v2").program
    assert (program.max_duration, program.restart_policy) == (30, "never")
    status, _ = await apps("POST", "/v2/deployments", json=deploy_body("arena", "v2"))
    assert status == 400
    await call(apps, "PATCH", path, 400, name="v1")
    renamed = await call(apps, "PATCH", path, 200, name="v3", is_active=True)
    assert renamed["version"]["name"] == "v3"
    listed = await call(apps, "GET", "/v1/app/arena/versions?page=2&limit=1", 200)
    assert [one["name"] for one in listed["versions"]] == ["v3"]
    assert (listed["total_count"], listed["pagination"]["has_next"]) == (2, False)
    deleted = await call(apps, "DELETE", "/v1/app/arena/version/v3", 200)
    assert deleted["success"] is True
    await call(apps, "GET", "/v1/app/arena/version/v3", 404)


async def test_secrets_read_back_as_a_fixed_text_and_still_reach_the_server(apps: BareApi) -> None:
    secret = "canary-of-a-version"
    body = VERSION | {
        "private_username": "robot",
        "private_token": secret,
        "envs": [
            {"key": "PASSWORD", "value": secret, "is_hidden": True},
            {"key": "MODE", "value": "duel"},
        ],
    }
    await call(apps, "POST", "/v1/app/arena/version", 200, **body)
    said = await call(apps, "GET", "/v1/app/arena/version/v2", 200)

    assert secret not in json.dumps(said)
    assert said["private_username"] == said["private_token"] == SET_AND_ENCRYPTED
    assert [one["value"] for one in said["envs"]] == [SET_AND_ENCRYPTED, "duel"]
    program = apps.emulator.cloud.registry.find_version("arena", "v2").program
    assert (program.hidden_environment["PASSWORD"] == secret) is True
    assert program.environment == {"MODE": "duel"}


async def test_a_version_of_the_settings_reads_as_one_of_the_api_and_can_be_copied(
    apps: BareApi,
) -> None:
    read = await call(apps, "GET", "/v1/app/Arena%20X/version/v%201", 200)

    assert (read["docker_repository"], read["docker_image"]) == ("emulator", "arena-x")
    assert read["ports"] == [
        {"port": 0, "protocol": "Websocket", "to_check": True, "tls_upgrade": False, "name": "web"}
    ]
    assert [one["value"] for one in read["envs"]] == ["ranked", SET_AND_ENCRYPTED]
    assert (read["max_duration"], read["time_to_deploy"]) == (1, 15)
    only_read = {"create_time", "last_updated", "caching_percent", "envs"}
    copy = {name: value for name, value in read.items() if name not in only_read}
    await call(apps, "POST", "/v1/app/Arena%20X/version", 200, **copy | {"name": "v 2"})
    program = apps.emulator.cloud.registry.find_version("Arena X", "v 2").program
    assert (program.argv, program.ports) == (SECRETIVE.argv, SECRETIVE.ports)


async def test_a_deployment_runs_on_when_its_application_is_deleted(apps: BareApi) -> None:
    request_id = await apps.deploy()
    await apps.wait_for_status(request_id, "READY")
    await call(apps, "DELETE", "/v1/app/arena", 200)

    assert (await apps.get_status(request_id))["current_status"] == "Status.READY"
    status, said = await apps("POST", "/v2/deployments", json=deploy_body("arena", "v1"))
    assert (status, "No deployment has been created" in said["message"]) == (400, True)


async def test_an_inactive_application_cannot_be_deployed(apps: BareApi) -> None:
    await call(apps, "PATCH", "/v1/app/arena", 200, is_active=False)
    status, _ = await apps("POST", "/v2/deployments", json=deploy_body("arena", "v1"))

    assert status == 400


async def test_other_settings_take_the_place_of_the_first_ones_only() -> None:
    async with Emulator([ARENA, SECRETIVE], images=IMAGES) as emulator:
        registry = emulator.cloud.registry
        async with aiohttp.ClientSession(emulator.url) as session:
            api = BareApi(emulator, session)
            await call(api, "POST", "/v1/app/arena/version", 200, **VERSION)
        changed = attrs.evolve(ARENA, argv=(sys.executable, "{port:game}"))
        registry.load([changed], IMAGES)

        assert registry.deployable == ("arena v1", "arena v2")
        assert registry.find_version("arena", "v1").program is changed


def deploy_body(application: str, version: str) -> dict[str, Any]:
    user = {"user_type": "ip_address", "user_data": {"ip_address": "192.0.2.1"}}
    return {"application": application, "version": version, "users": [user]}
