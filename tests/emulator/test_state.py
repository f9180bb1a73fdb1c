"""State that survives the emulator: in order, after kill -9, and when the file is damaged."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from bare_api import DEPLOY_BODY, BareApi
from emulated_cloud import python_application
from raw_server import raw_server, read_request

from edgegap_async.emulator import (
    Application,
    Emulator,
    Fleet,
    Image,
    PrivateHost,
    Simulation,
    Timings,
    sample_application,
)
from edgegap_async.emulator.state import State
from edgegap_async.errors import InvalidRequest

TOKEN = "canary-state"
HIDDEN = "canary-hidden-value"
CRASHING = python_application(
    "print('last words', flush=True); raise SystemExit(7)", name="crash", version="v1"
)


@contextlib.asynccontextmanager
async def emulated(folder: Path, *apps: Application, **settings: Any) -> AsyncIterator[BareApi]:
    chosen: dict[str, Any] = {"state": folder, "timings": Timings.fast(), "limits": False}
    emulator = Emulator(apps or [sample_application()], **chosen | settings)
    async with emulator, aiohttp.ClientSession(emulator.url) as session:
        yield BareApi(emulator, session)


async def rows(api: BareApi) -> list[str]:
    _, body = await api("GET", "/v1/deployments?limit=100")
    return [row["request_id"] for row in body["data"]]


async def test_a_restart_keeps_deployments_and_tags(tmp_path: Path) -> None:
    apps = [sample_application(), CRASHING]
    async with emulated(tmp_path, *apps) as api:
        live = await api.deploy(tags=["eu"])
        ready = await api.wait_for_status(live, "READY")
        crashed = await api.deploy(application="crash")
        before = await api.wait_for_status(crashed, "ERROR")
        ended = await api.deploy()
        await api.wait_for_status(ended, "READY")
        await api("DELETE", f"/v1/stop/{ended}")
        terminated = await api.wait_for_status(ended, "TERMINATED")
        await api("POST", f"/v1/deployments/{live}/tags", json={"name": "rank-7"})
        await api("PATCH", f"/v1/deployments/{live}/tags/eu", json={"name": "us"})
        own = api.emulator.deployments[live].secrets
        context = f"/v1/context/{live}/{own.access_point_id}/tags"
        await api("POST", context, authorization=own.context_token, json={"name": "full"})

    async with emulated(tmp_path, *apps) as api:
        statuses = [await api.get_status(one) for one in (live, crashed, ended)]
        _, logs = await api("GET", f"/v1/deployment/{crashed}/container-logs")
        listed = await rows(api)
        _, tags = await api("GET", f"/v1/deployments/{live}/tags")

    assert statuses[0]["current_status"] == "Status.ERROR"
    assert statuses[0]["error_detail"] == "the emulator was closed"
    assert {name: statuses[0][name] for name in ("ports", "location", "start_time", "fqdn")} == {
        name: ready[name] for name in ("ports", "location", "start_time", "fqdn")
    }
    assert statuses[1:] == [before, terminated]
    assert listed == [live, crashed]
    assert [tag["name"] for tag in tags["tags"]] == ["us", "rank-7", "full"]
    assert (logs["crash_data"]["exit_code"], logs["crash_logs"]) == (7, "last words\n")


async def test_a_restored_deployment_can_be_stopped(tmp_path: Path) -> None:
    async with emulated(tmp_path) as api:
        request_id = await api.deploy()
        await api.wait_for_status(request_id, "READY")
    async with emulated(tmp_path) as api:
        stopped, _ = await api("DELETE", f"/v1/stop/{request_id}")
        await api.wait_for_status(request_id, "TERMINATED")
        new = await api.deploy()
        await api.wait_for_status(new, "READY")
    async with emulated(tmp_path) as api:
        listed = await rows(api)

    assert (stopped, listed) == (200, [new])


async def test_what_the_end_of_the_emulator_has_ended_sends_its_webhook(tmp_path: Path) -> None:
    bodies: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await read_request(reader)
        writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        bodies.put_nowait(json.loads(request.partition(b"\r\n\r\n")[2]))

    async with raw_server(receive) as port:
        hook = {"url": f"http://127.0.0.1:{port}/error"}
        async with emulated(tmp_path) as api:
            request_id = await api.deploy(webhook_on_error=hook)
            await api.wait_for_status(request_id, "READY")
        assert bodies.empty()
        async with emulated(tmp_path) as api, asyncio.timeout(10):
            webhook = await bodies.get()
        async with emulated(tmp_path) as api:
            await api.get_status(request_id)

    assert webhook["request_id"] == request_id
    assert webhook["error_detail"] == "the emulator was closed"
    assert bodies.empty()


async def test_a_private_host_keeps_its_deployments(tmp_path: Path) -> None:
    fleets = [Fleet(name="alpha", hosts=(PrivateHost(host_id="h1", cpu_units=256),))]
    async with emulated(tmp_path, fleets=fleets) as api:
        body = DEPLOY_BODY | {"private_host_ids": ["h1"]}
        await api("POST", "/v2/private-fleets:deploy", json=body)
    async with emulated(tmp_path, fleets=fleets) as api:
        _, hosts = await api("GET", "/v2/private-fleets/alpha/hosts")

    assert hosts["data"][0]["allocatable_cpu_units"] == 0


async def test_without_a_folder_nothing_is_kept(tmp_path: Path) -> None:
    async with emulated(tmp_path, state=None) as api:
        await api.deploy()

    assert list(tmp_path.iterdir()) == []


async def test_a_reset_clears_the_state(tmp_path: Path) -> None:
    async with emulated(tmp_path) as api:
        await api.deploy()
        await api.emulator.reset()
    async with emulated(tmp_path) as api:
        assert await rows(api) == []


async def test_a_reset_that_keeps_a_deployment_keeps_it_and_created_applications_in_the_state(
    tmp_path: Path,
) -> None:
    async with emulated(tmp_path, images=[IMAGE]) as api:
        await _create(api, envs=[])
        kept, _ = [await api.deploy() for _ in range(2)]
        await api.emulator.reset(keep=[kept])
    async with emulated(tmp_path, images=[IMAGE]) as api:
        listed = await rows(api)
        status, _ = await api("GET", "/v1/app/made/version/v2")

    assert (listed, status) == ([kept], 200)


async def test_hidden_values_and_tokens_are_not_written_and_files_are_private(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "state"
    application = sample_application()
    hidden = [{"key": "DB_PASSWORD", "value": f"{HIDDEN}-2", "is_hidden": True}]
    plain = [{"key": "MODE", "value": "ranked", "is_hidden": False}]
    apps = [
        Application(
            name=application.name,
            version=application.version,
            argv=application.argv,
            ports=application.ports,
            hidden_environment={"API_KEY": f"{HIDDEN}-1"},
        )
    ]
    async with emulated(folder, *apps) as api:
        request_id = await api.deploy(environment_variables=hidden + plain)
        await api.wait_for_status(request_id, "READY")
        deployment = api.emulator.cloud.deployments[request_id]
        files = {path: path.read_bytes() for path in folder.iterdir()}
        modes = {path.stat().st_mode & 0o777 for path in folder.iterdir()}
        everything = b"".join(files.values())

    assert b"ranked" in everything
    for secret in (HIDDEN, deployment.secrets.delete_token, api.emulator.token):
        assert secret.encode() not in everything
    assert (modes, folder.stat().st_mode & 0o777) == ({0o600}, 0o700)


# ── kill -9 ──────────────────────────────────────────────────────────────────────────────────────


@contextlib.asynccontextmanager
async def program(folder: Path, *options: str) -> AsyncIterator[tuple[Any, aiohttp.ClientSession]]:
    """The emulator in a process of its own, and a session for it; it is killed at the end."""
    process = subprocess.Popen(  # noqa: ASYNC220 - it lasts milliseconds
        [
            *(sys.executable, "-m", "edgegap_async.emulator", "--state", str(folder), "--quiet"),
            *("--fast", "--no-limits", "--token", TOKEN, *options),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        _, line, _ = [await asyncio.to_thread(process.stdout.readline) for _ in range(3)]
        url = line.strip().removeprefix("export EDGEGAP_BASE_URL=")
        headers = {"Authorization": f"token {TOKEN}"}
        async with aiohttp.ClientSession(url, headers=headers) as session:
            yield process, session
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()


async def _status(session: aiohttp.ClientSession, request_id: str) -> dict[str, Any]:
    async with session.get(f"/v1/status/{request_id}") as answer:
        return dict(await answer.json())


async def _deploy(session: aiohttp.ClientSession) -> str:
    async with session.post("/v2/deployments", json=DEPLOY_BODY) as answer:
        return str((await answer.json())["request_id"])


def _is_alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return b"\nState:\tZ" not in Path(f"/proc/{pid}/status").read_bytes()
    return False


async def test_row_48_after_kill_9_what_ran_is_in_error_and_its_processes_are_ended(
    tmp_path: Path,
) -> None:
    async with program(tmp_path) as (_, session):
        request_id = await _deploy(session)
        while not (await _status(session, request_id)).get("running"):
            await asyncio.sleep(0.01)
        async with session.get("/_emulator/deployments") as answer:
            (row,) = (await answer.json())["deployments"]
    async with program(tmp_path) as (_, session):
        status = await _status(session, request_id)
        async with asyncio.timeout(10):
            while _is_alive(row["pid"]):
                await asyncio.sleep(0.01)

    assert (status["current_status"], status["last_status"]) == ("Status.ERROR", "Status.READY")
    assert status["error_detail"] == "the emulator was killed"


@pytest.mark.timeout(3600)
async def test_row_48_the_state_has_each_answered_deploy_whenever_the_emulator_is_killed(
    tmp_path: Path, rounds: int
) -> None:
    answered: set[str] = set()
    for number in range(max(5, rounds // 4)):
        async with program(tmp_path, "--simulate") as (process, session):
            async with session.get("/v1/deployments?limit=100") as answer:
                assert answer.status == 200

            async def deploy_on(session: aiohttp.ClientSession = session) -> None:
                while True:
                    answered.add(await _deploy(session))

            deploying = asyncio.gather(*(deploy_on() for _ in range(4)), return_exceptions=True)
            wanted = len(answered) + 3 + number % 5
            while len(answered) < wanted:
                await asyncio.sleep(0.001)
            process.send_signal(signal.SIGKILL)
            await deploying
        state = State(tmp_path, keep_terminated=60)
        found = {one.request_id for one in state.read()}
        state.close()
        assert answered <= found

    assert len(answered) > 10


# ── damage ───────────────────────────────────────────────────────────────────────────────────────


async def _written(folder: Path) -> Path:
    async with emulated(folder, simulate=Simulation()) as api:
        for _ in range(20):
            await api.deploy()
    return folder / "state.sqlite"


def _set_version(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 7")


def _write_noise(path: Path) -> None:
    path.write_bytes(b"noise" * 1000)


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _make_other(path: Path) -> None:
    path.unlink()
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE t (x)")


def _spoil_record(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE deployments SET record = '{}' WHERE rowid = 3")


@pytest.mark.parametrize("table", ["deployments", "applications"])
@pytest.mark.parametrize("record", ["x", "[]", "null", "5", '{"shown": 5, "versions": [[]]}'])
async def test_row_48_a_record_of_another_form_is_refused_with_the_name_of_the_file(
    tmp_path: Path, table: str, record: str
) -> None:
    path = await _written(tmp_path)
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        if table == "applications":
            database.execute("INSERT INTO applications VALUES ('other', '{}')")
        database.execute(f"UPDATE {table} SET record = ?", [record])
    with pytest.raises(InvalidRequest) as caught:
        await Emulator(state=tmp_path).start()

    assert str(caught.value).count("state.sqlite is damaged") == 1


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (_set_version, "is of version 7, and this emulator reads version 1"),
        (_make_other, "is no state of an emulator"),
        (_write_noise, r"is damaged \(file is not a database\)"),
        (_cut, "is damaged"),
        (_spoil_record, "is damaged"),
    ],
)
async def test_row_48_a_file_that_is_no_right_state_is_refused_and_left_as_it_is(
    tmp_path: Path, damage: Any, complaint: str
) -> None:
    path = await _written(tmp_path)
    damage(path)
    before = path.read_bytes()
    with pytest.raises(InvalidRequest, match=rf"state: .*state.sqlite {complaint}.*: name another"):
        await Emulator(state=tmp_path).start()

    if damage is not _spoil_record:  # reading it has taken the note of the orderly end
        assert path.read_bytes() == before


async def test_two_emulators_do_not_share_a_folder(tmp_path: Path) -> None:
    async with emulated(tmp_path):
        with pytest.raises(InvalidRequest, match="another emulator uses"):
            await Emulator(state=tmp_path).start()
    async with emulated(tmp_path) as api:  # it is free again
        await api.deploy()


async def test_row_48_a_full_disk_is_logged_once_and_nothing_is_lost_when_there_is_room_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with emulated(tmp_path, simulate=Simulation()) as api:
        state = api.emulator._state
        assert state is not None
        (pages,) = state._database.execute("PRAGMA page_count").fetchone()
        state._database.execute(f"PRAGMA max_page_count = {pages}")
        request_ids = [await api.deploy() for _ in range(30)]
        state._database.execute("PRAGMA max_page_count = 100000")
        request_ids.append(await api.deploy())
    async with emulated(tmp_path, simulate=Simulation()) as api:
        listed = await rows(api)

    assert sorted(listed) == sorted(request_ids)
    failures = [one for one in caplog.messages if "cannot be written" in one]
    path = tmp_path / "state.sqlite"
    assert failures == [f"the state in {path} cannot be written: database or disk is full"]
    assert caplog.messages[-1] == f"the state in {path} is written again"


async def test_ended_deployments_do_not_fill_the_file(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"simulate": Simulation(ready_after=(0, 0)), "keep_terminated": 0}
    async with emulated(tmp_path, **settings) as api:
        for _ in range(5):
            request_id = await api.deploy()
            await api("DELETE", f"/v1/stop/{request_id}")
            while (await api("GET", f"/v1/status/{request_id}"))[0] == 200:
                await asyncio.sleep(0.01)
    with contextlib.closing(sqlite3.connect(tmp_path / "state.sqlite")) as database:
        (count,) = database.execute("SELECT count(*) FROM deployments").fetchone()

    assert count <= 1


async def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        await Emulator(state=tmp_path / "file").start()


def test_a_state_is_a_path() -> None:
    with pytest.raises(InvalidRequest, match="state must be of type str or Path, not 5"):
        Emulator(state=5)  # type: ignore[arg-type]


# ── applications ─────────────────────────────────────────────────────────────────────────────────

IMAGE = Image(image="registry.example.com/arena", argv=sample_application().argv)
VERSION: dict[str, Any] = {
    "name": "v2",
    "docker_repository": "registry.example.com",
    "docker_image": "arena",
    "docker_tag": "7",
    "req_cpu": 1024,
    "req_memory": 2048,
    "ports": [{"port": 0, "protocol": "udp", "name": "game"}],
    "envs": [{"key": "DB_PASSWORD", "value": HIDDEN, "is_hidden": True}],
}


async def _create(api: BareApi, **fields: Any) -> None:
    picture = {"name": "made", "is_active": True, "image": ""}
    created, said = await api("POST", "/v1/app", json=picture)
    assert created == 200, said
    created, said = await api("POST", "/v1/app/made/version", json=VERSION | fields)
    assert created == 200, said


async def test_applications_of_calls_are_kept_with_what_changed(tmp_path: Path) -> None:
    async with emulated(tmp_path, images=[IMAGE]) as api:
        await _create(api, envs=[])
        await api("POST", "/v1/app", json={"name": "gone", "is_active": True, "image": ""})
        await api("DELETE", "/v1/app/gone")
        await api("PATCH", "/v1/app/made/version/v2", json={"max_duration": 7})
        before = [await api("GET", path) for path in ("/v1/apps", "/v1/app/made/versions")]
    async with emulated(tmp_path, images=[IMAGE]) as api:
        after = [await api("GET", path) for path in ("/v1/apps", "/v1/app/made/versions")]
        request_id = await api.deploy(application="made", version="v2")
        ready = await api.wait_for_status(request_id, "READY")

    named = [
        [one for one in body["applications"] if one["name"] != "arena"]
        for _, body in (before[0], after[0])
    ]
    assert named[0] == named[1]
    assert [app["name"] for app in named[1]] == ["made"]
    assert before[1] == after[1]
    assert ready["max_duration"] == 7


async def test_a_version_whose_hidden_values_are_gone_is_deployed_once_they_are_set_again(
    tmp_path: Path,
) -> None:
    async with emulated(tmp_path, images=[IMAGE]) as api:
        await _create(api)
        everything = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    async with emulated(tmp_path, images=[IMAGE]) as api:
        body = DEPLOY_BODY | {"application": "made", "version": "v2"}
        refused, said = await api("POST", "/v2/deployments", json=body)
        await api("PATCH", "/v1/app/made/version/v2", json={"max_duration": 7})
        still, _ = await api("POST", "/v2/deployments", json=body)
        await api("PATCH", "/v1/app/made/version/v2", json={"envs": VERSION["envs"]})
        accepted, _ = await api("POST", "/v2/deployments", json=body)

    assert HIDDEN.encode() not in everything
    assert (refused, still, accepted) == (400, 400, 202)
    assert "set DB_PASSWORD of made v2 again" in said["message"]


async def test_the_settings_say_what_a_kept_version_runs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with emulated(tmp_path, images=[IMAGE]) as api:
        await _create(api, envs=[], restart_policy="never")
    other = Image(image="registry.example.com/arena", argv=("false", "{port:game}"))
    async with emulated(tmp_path, images=[other]) as api:
        request_id = await api.deploy(application="made", version="v2")
        await api.wait_for_status(request_id, "ERROR")
    async with emulated(tmp_path) as api:
        status, _ = await api("GET", "/v1/app/made/version/v2")
        await api.emulator.reset()
    async with emulated(tmp_path, images=[IMAGE]) as api:
        after_reset, _ = await api("GET", "/v1/app/made")

    assert (status, after_reset) == (404, 404)
    assert "made v2 is not restored: Unable to pull image" in caplog.text
