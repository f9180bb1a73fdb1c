from __future__ import annotations

import asyncio
import io
import json
import math
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from emulated_cloud import until

from edgegap_async import InvalidRequest
from edgegap_async.api.operations import DEPLOY, OPERATIONS, Auth
from edgegap_async.emulator import (
    Emulator,
    Fault,
    Fleet,
    PrivateHost,
    Respond,
    Simulation,
    Timings,
    sample_application,
)
from edgegap_async.emulator.__main__ import main
from edgegap_async.emulator.server import RateLimit

DEPLOY_BODY: dict[str, Any] = {
    "application": "arena",
    "version": "v1",
    "users": [{"user_type": "geo_coordinates", "user_data": {"latitude": 48.9, "longitude": 2.4}}],
}
UNKNOWN = "000000000000"


def path_of(path: str) -> str:
    """The path with something in each of its places."""
    return (
        path.replace("{request_id}", UNKNOWN)
        .replace("{access_point_id}", "1")
        .replace("{tag_name}", "eu")
        .replace("{fleet_name}", "alpha")
    )


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def _home_of(pid: int) -> Path:
    return Path(f"/proc/{pid}/cwd").readlink()


def _exists(path: Path) -> bool:
    return path.exists()


class Api:
    """Bare HTTP, as a client in any language would speak it."""

    def __init__(self, emulator: Emulator, session: aiohttp.ClientSession) -> None:
        self.emulator = emulator
        self._session = session

    async def __call__(
        self,
        method: str,
        path: str,
        *,
        authorization: str | None = None,
        headers: dict[str, str] | None = None,
        **more: Any,
    ) -> tuple[int, Any]:
        token = f"token {self.emulator.token}" if authorization is None else authorization
        sent = {**({"Authorization": token} if token else {}), **(headers or {})}
        async with self._session.request(method, path, headers=sent, **more) as answer:
            body = await answer.read()
            self.headers = answer.headers
            return answer.status, json.loads(body) if body else None

    async def deployed(self, **more: Any) -> str:
        status, said = await self("POST", "/v2/deployments", json=DEPLOY_BODY | more)
        assert status == 202, said
        return str(said["request_id"])

    async def until(self, request_id: str, wanted: str) -> dict[str, Any]:
        async with asyncio.timeout(20):
            while (said := await self.look(request_id))["current_status"] != f"Status.{wanted}":
                await asyncio.sleep(0.01)
        return said

    async def look(self, request_id: str) -> dict[str, Any]:
        status, said = await self("GET", f"/v1/status/{request_id}")
        assert status == 200, said
        return dict(said)


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    fleet = Fleet(name="alpha", hosts=(PrivateHost(host_id="alpha-1", city="Tokyo"),))
    emulator = Emulator(
        [sample_application(), sample_application("--stop-self-after", "0.1", version="selfish")],
        fleets=[fleet],
        timings=Timings.fast(),
        limits=False,
        metrics_interval=0.05,
    )
    async with emulator, aiohttp.ClientSession(emulator.url) as session:
        yield Api(emulator, session)


# ── the whole way ────────────────────────────────────────────────────────────────────────────────


async def test_a_game_is_deployed_played_watched_and_stopped(api: Api) -> None:
    request_id = await api.deployed(tags=["eu"])
    ready = await api.until(request_id, "READY")
    host, _, port = ready["ports"]["game"]["link"].rpartition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as player:
        player.settimeout(10)
        player.connect((host, int(port)))
        player.send(b"join ANNA")
        welcome = player.recv(2048)
    _, logs = await api("GET", f"/v1/deployment/{request_id}/container-logs?format=text")
    _, tags = await api("GET", f"/v1/deployments/{request_id}/tags")
    stop_status, stopped = await api("DELETE", f"/v1/stop/{request_id}?container_log_storage=true")
    await api.until(request_id, "TERMINATED")
    gone, _ = await api("DELETE", f"/v1/stop/{request_id}")

    assert welcome == b"welcome ANNA to arena in Paris, France"
    assert "ANNA joined" in logs["logs"]
    assert (logs["encoding"], logs["crash_data"], logs["logs_link"]) == ("utf-8", None, None)
    assert [tag["name"] for tag in tags["tags"]] == ["eu"]
    assert stop_status == 200
    assert stopped["deployment_summary"]["current_status"] == "Status.READY"
    assert gone == 410


async def test_a_game_server_can_stop_itself(api: Api) -> None:
    request_id = await api.deployed(version="selfish")

    await api.until(request_id, "TERMINATED")

    (call,) = (one for one in api.emulator.requests if one.operation == "stop_self")
    assert (call.method, call.status) == ("DELETE", 200)


async def test_metrics_come_as_numbers_and_texts(api: Api) -> None:
    request_id = await api.deployed()
    await api.until(request_id, "READY")
    async with asyncio.timeout(20):
        while True:
            _, said = await api("GET", f"/v1/metrics/deployment/{request_id}?raw=true")
            if said["mem"]["datasets"]:
                break
            await asyncio.sleep(0.02)

    assert said["mem"]["datasets"][0] > 1_000_000
    assert len(said["mem"]["labels"][0]) == len("00:00:00")
    assert said["total"]["receive_total"]["datasets"][0] == 0
    status, said = await api("GET", f"/v1/metrics/deployment/{request_id}?steps=7m")
    assert (status, list(said)) == (422, ["message"])


@pytest.mark.parametrize("path", ["/v2/private-fleets:deploy", "/v2/private-fleets/deployments"])
async def test_a_fleet_deploy_is_answered_at_its_older_and_newer_path(api: Api, path: str) -> None:
    body = {**DEPLOY_BODY, "private_host_ids": ["alpha-1"]}

    status, said = await api("POST", path, json=body)
    deployment = api.emulator.cloud.deployments[said["request_id"]]
    _, hosts = await api("GET", "/v2/private-fleets/alpha/hosts")

    assert (status, deployment.host_id) == (202, "alpha-1")
    assert hosts["data"][0]["allocated_cpu_units"] == 256
    assert hosts["data"][0]["created_at"].endswith("Z")


async def test_tags_are_changed_through_their_paths(api: Api) -> None:
    request_id = await api.deployed()
    tags = f"/v1/deployments/{request_id}/tags"

    assert (await api("POST", tags, json={"name": "v 1/ü"}))[0] == 200
    assert (await api("POST", tags, json={"name": "eu"}))[1]["name"] == "eu"
    assert (await api("POST", tags, json={"name": "eu"}))[0] == 409
    assert (await api("PATCH", f"{tags}/eu", json={"name": "us"}))[0] == 200
    assert (await api("GET", f"{tags}/us"))[1]["create_time"]
    assert await api("DELETE", f"{tags}/us") == (204, None)
    assert (await api("GET", f"{tags}/us"))[0] == 404
    assert (await api("POST", tags, json={"name": "x" * 41}))[0] == 400


async def test_a_bulk_stop_names_what_it_stops(api: Api) -> None:
    request_id = await api.deployed(tags=["mine"])
    await api.deployed()
    filters = [{"field": "deployment_tags", "values": ["mine"], "filter_type": "any"}]

    status, said = await api("POST", "/v1/deployments/bulk-stop", json={"filters": filters})

    assert (status, said) == (202, {"processable": [{"request_id": request_id}]})


async def test_webhooks_tell_ready_and_terminated(api: Api) -> None:
    told: list[tuple[str, str]] = []

    async def hook(request: web.Request) -> web.Response:
        told.append((request.path, (await request.json())["current_status"]))
        return web.Response()

    app = web.Application()
    app.router.add_post("/{event}", hook)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    base = f"http://127.0.0.1:{runner.addresses[0][1]}"
    request_id = await api.deployed(
        webhook_on_ready={"url": f"{base}/ready"},
        webhook_on_error={"url": f"{base}/error"},
        webhook_on_terminated={"url": f"{base}/terminated"},
    )
    await api("DELETE", f"/v1/stop/{request_id}")
    await api.until(request_id, "TERMINATED")
    await until(lambda: len(told) == 2)
    await runner.cleanup()

    assert set(told) == {("/ready", "Status.READY"), ("/terminated", "Status.TERMINATED")}


# ── who may call ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
@pytest.mark.parametrize("authorization", ["", "Bearer {token}", "{token}", "token wrong"])
async def test_a_call_without_its_token_is_unauthorized(
    api: Api, operation: Any, authorization: str
) -> None:
    if operation.auth is Auth.DEPLOYMENT_TOKEN:
        path = path_of(operation.path).replace(UNKNOWN, await api.deployed())
    else:
        path = path_of(operation.path)

    status, said = await api(
        operation.method, path, authorization=authorization.format(token=api.emulator.token)
    )

    assert (status, list(said)) == (401, ["message"])


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "[::1"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
    ],
    ids=str,
)
async def test_what_a_web_page_could_send_is_forbidden(api: Api, headers: dict[str, str]) -> None:
    status, said = await api("GET", "/v1/deployments", headers=headers)

    assert (status, list(said)) == (403, ["message"])


async def test_its_own_origin_is_no_stranger(api: Api) -> None:
    status, _ = await api("GET", "/v1/deployments", headers={"Origin": api.emulator.url})

    assert status == 200


# ── what is wrong ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (b"{", "the body is not JSON"),
        (b"[]", "a JSON object is needed"),
        (json.dumps({**DEPLOY_BODY, "users": []}).encode(), "users must name at least one"),
        (json.dumps({**DEPLOY_BODY, "app_name": "arena"}).encode(), "extra fields"),
        (json.dumps({**DEPLOY_BODY, "version": "v9"}).encode(), "No deployment has been created"),
    ],
)
async def test_a_wrong_deploy_is_a_bad_request_that_says_why(
    api: Api, body: bytes, complaint: str
) -> None:
    status, said = await api("POST", "/v2/deployments", data=body)

    assert status == 400
    assert complaint in said["message"]
    assert api.emulator.cloud.deployments == {}


async def test_a_body_that_is_too_large_is_refused(api: Api) -> None:
    status, said = await api("POST", "/v2/deployments", data=io.BytesIO(b" " * (2**20 + 1)))

    assert (status, list(said)) == (413, ["message"])


async def test_a_path_or_method_that_is_none_is_answered_in_json(api: Api) -> None:
    no_path = await api("GET", "/v1/nothing")
    no_method = await api("PUT", "/v1/deployments")

    assert (no_path, no_method) == (
        (404, {"message": "Not Found"}),
        (405, {"message": "Method Not Allowed"}),
    )
    assert api.headers["Allow"] == "GET"
    assert [one.operation for one in api.emulator.requests] == ["", ""]


@pytest.mark.parametrize(
    "operation",
    [operation for operation in OPERATIONS if "{request_id}" in operation.path],
    ids=lambda operation: operation.name,
)
async def test_what_is_unknown_is_an_error_that_the_call_may_have(api: Api, operation: Any) -> None:
    body: dict[str, Any] = {"json": {"name": "eu"}} if operation.body else {}

    status, said = await api(
        operation.method,
        path_of(operation.path),
        headers={"Content-Type": "application/json"},
        **body,
    )

    assert (status, said) == (400, {"message": "Bad Request ID provided"})
    assert status in operation.may_fail


async def test_without_capacity_the_answer_names_the_deployment_in_error() -> None:
    emulator = Emulator([sample_application()], max_deployments=0)
    async with emulator, aiohttp.ClientSession(emulator.url) as session:
        api = Api(emulator, session)
        status, said = await api("POST", "/v2/deployments", json=DEPLOY_BODY)
        seen = await api.until(said["request_id"], "ERROR")

    assert (status, set(said)) == (422, {"request_id", "message"})
    assert seen["error_detail"] == said["message"]


async def test_what_fails_inside_is_500_without_a_trace_and_raised_at_the_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    emulator = Emulator()
    await emulator.start()
    async with aiohttp.ClientSession(emulator.url) as session:
        monkeypatch.setattr(emulator.cloud, "_applications", None)
        answer = await Api(emulator, session)("POST", "/v2/deployments", json=DEPLOY_BODY)
    with pytest.raises(ExceptionGroup) as raised:
        await emulator.close()
    await emulator.close()

    assert answer == (500, {"message": "Internal error: see the emulator's log"})
    assert isinstance(raised.value.exceptions[0], AttributeError)
    assert "POST /v2/deployments failed" in caplog.text


# ── limits ───────────────────────────────────────────────────────────────────────────────────────


def test_a_limit_holds_in_every_window() -> None:
    limit = RateLimit(2)

    waits = [limit.try_pass(now) for now in (0.0, 0.5, 0.6, 0.99, 1.0, 1.2, 1.5)]

    assert waits == pytest.approx([0, 0, 0.4, 0.01, 0, 0.3, 0])


@pytest.mark.parametrize("name", ["get_deployment", "list_deployments", "list_fleet_hosts"])
async def test_calls_beyond_the_documented_limit_are_answered_429(name: str) -> None:
    (operation,) = (one for one in OPERATIONS if one.name == name)
    emulator = Emulator()
    async with emulator, aiohttp.ClientSession(emulator.url) as session:
        api = Api(emulator, session)
        path = path_of(operation.path)
        answers = await asyncio.gather(*(api("GET", path) for _ in range(45)))
        free, _ = await api("GET", "/v1/locations")
    assert operation.limit is not None

    limited = [said for status, said in answers if status == 429]
    seconds = emulator.requests[-2].received_at - emulator.requests[0].received_at
    assert len(answers) - len(limited) <= operation.limit * math.ceil(seconds)
    assert len(limited) > 0
    assert set(limited[0]) == {"message"}
    assert free == 200


async def test_a_429_says_when_to_come_again() -> None:
    emulator = Emulator(limits={"list_locations": 1})
    async with emulator, aiohttp.ClientSession(emulator.url) as session:
        api = Api(emulator, session)
        await api("GET", "/v1/locations", authorization="token wrong")  # counts for nobody
        statuses = [(await api("GET", "/v1/locations"))[0] for _ in range(2)]

    assert statuses == [200, 429]
    assert api.headers["Retry-After"] == "1"


def test_limits_of_calls_that_are_not_there_or_below_one_are_refused() -> None:
    async def started(limits: dict[str, float]) -> None:
        async with Emulator(limits=limits):
            pass

    with pytest.raises(InvalidRequest, match="no call 'redeploy'"):
        asyncio.run(started({"redeploy": 1}))
    with pytest.raises(InvalidRequest, match="deploy must be 1 or more"):
        asyncio.run(started({"deploy": 0}))


# ── the emulator itself ──────────────────────────────────────────────────────────────────────────


async def test_every_request_is_recorded(api: Api) -> None:
    request_id = await api.deployed()
    await api("GET", "/v1/deployments?page=1&secret=x")
    await api("GET", f"/v1/status/{request_id}", authorization="")

    assert [(one.operation, one.method, one.path, one.status) for one in api.emulator.requests] == [
        (DEPLOY.name, "POST", "/v2/deployments", 202),
        ("list_deployments", "GET", "/v1/deployments", 200),
        ("get_deployment", "GET", f"/v1/status/{request_id}", 401),
    ]


async def test_closing_twice_is_fine_and_leaves_nothing() -> None:
    files, tasks = _open_files(), len(asyncio.all_tasks())
    emulator = Emulator([sample_application()], timings=Timings.fast())
    async with emulator, aiohttp.ClientSession(emulator.url) as session:
        api = Api(emulator, session)
        request_id = await api.deployed()
        await api.until(request_id, "READY")
        (deployment,) = emulator.cloud.deployments.values()
        assert deployment.process is not None
        pid = deployment.process.pid
        home = _home_of(pid)
    await emulator.close()
    await asyncio.sleep(0)

    assert not _exists(Path(f"/proc/{pid}"))
    assert not _exists(home.parent)
    assert len(asyncio.all_tasks()) == tasks
    assert _open_files() <= files
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", int(emulator.url.rpartition(":")[2]))) != 0


async def test_a_port_that_is_taken_is_said_and_leaves_nothing() -> None:
    tasks = len(asyncio.all_tasks())
    async with Emulator() as first:
        second = Emulator(port=int(first.url.rpartition(":")[2]))
        with pytest.raises(OSError, match="in use"):
            await second.start()

    assert len(asyncio.all_tasks()) == tasks


async def test_an_emulator_is_started_once() -> None:
    emulator = Emulator(token="token canary-abc")
    with pytest.raises(InvalidRequest, match="not started"):
        _ = emulator.cloud
    assert (emulator.token, emulator.requests) == ("canary-abc", [])
    await emulator.close()

    async with emulator:
        with pytest.raises(InvalidRequest, match="started before"):
            await emulator.start()


async def test_it_listens_on_ipv6_too() -> None:
    emulator = Emulator(host="::1")
    async with emulator, aiohttp.ClientSession(emulator.url) as session:
        status, _ = await Api(emulator, session)("GET", "/v1/deployments")

    assert emulator.url.startswith("http://[::1]:")
    assert status == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.0.1", "example.com", ""])
def test_it_listens_on_nothing_but_loopback(host: str) -> None:
    with pytest.raises(InvalidRequest, match="loopback"):
        Emulator(host=host)


def test_without_its_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "psutil" else 1)

    with pytest.raises(InvalidRequest, match=r"needs psutil: pip install 'edgegap-async\[emul"):
        Emulator()


# ── in a shell ───────────────────────────────────────────────────────────────────────────────────


def _shell(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "edgegap_async.emulator", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
async def test_row_59_in_a_shell_a_signal_ends_the_emulator_and_its_servers(
    how: signal.Signals,
) -> None:
    with _shell("--fast", "--no-limits", "--token", "secret") as shell:
        assert shell.stdout is not None
        answers, url, token = (shell.stdout.readline().strip() for _ in range(3))
        base = url.removeprefix("export EDGEGAP_BASE_URL=")
        headers = {"Authorization": "token secret"}
        async with aiohttp.ClientSession(base, headers=headers) as session:
            async with session.post("/v2/deployments", json=DEPLOY_BODY) as answer:
                request_id = (await answer.json())["request_id"]
            status: dict[str, Any] = {}
            while not status.get("running"):
                async with session.get(f"/v1/status/{request_id}") as answer:
                    status = await answer.json()
        port = status["ports"]["game"]["external"]
        shell.send_signal(how)
        _, errors = shell.communicate(timeout=20)

    assert answers == f"The emulator answers at {base}, and deploys: arena v1"
    assert token == "export EDGEGAP_API_TOKEN=secret"
    assert (shell.returncode, errors) == (0, "")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", port))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--apps", "/does/not/exist.toml"], "No such file"),
        (["--host", "0.0.0.0", "--verbose"], "loopback"),
        (["--webhook-allow", "x"], "webhook_allow"),
    ],
)
def test_in_a_shell_a_mistake_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str
) -> None:
    assert main(arguments) == 1

    output, errors = capsys.readouterr()
    assert (output, errors.count("\n")) == ("", 1)
    assert complaint in errors


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"simulate": True}, "simulate is of type Simulation"),
        ({"timings": 0}, "timings is of type Timings"),
        ({"apps": ["arena"]}, "each of apps is of type Application"),
        ({"round_trip_time": 5}, r"round_trip_time is \(at least, at most\) in seconds, not 5"),
        ({"round_trip_time": (0.1, "x")}, r"round_trip_time is \(at least"),
        ({"apps": sample_application()}, "apps is a list"),
        ({"faults": Fault("deploy", Respond(500))}, "faults is a list"),
        ({"unknown_id_status": 403}, "unknown_id_status must be 400 or 404"),
        ({"host_shape": "x"}, "host_shape pin or centroid"),
    ],
)
def test_a_setting_that_cannot_be_is_named(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidRequest, match=complaint):
        Emulator(**settings)


@pytest.mark.parametrize("seconds", ["x", -1, None, float("nan")])
def test_a_time_that_cannot_be_is_named(seconds: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"Timings\.deploying"):
        Timings(deploying=seconds)
    with pytest.raises(InvalidRequest, match=r"Simulation\.crash_share"):
        Simulation(crash_share=seconds)
    for span in (seconds, (seconds, 1), (0.5, seconds)):
        with pytest.raises(InvalidRequest, match=r"Simulation\.ready_after"):
            Simulation(ready_after=span)


def test_an_emulator_that_is_not_started_answers_nowhere() -> None:
    with pytest.raises(InvalidRequest, match="async with Emulator"):
        Emulator().url  # noqa: B018


@pytest.mark.parametrize("settings", [{"port": 99999}, {"port": -1}, {"max_deployments": -5}])
def test_a_number_that_cannot_be_is_refused(settings: dict[str, int]) -> None:
    with pytest.raises(InvalidRequest, match="is a number from 0"):
        Emulator(**settings)  # type: ignore[arg-type]
