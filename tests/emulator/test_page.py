"""The page without a browser: who may see it, what its answers say, what its stream tells."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from bare_api import BareApi
from emulated_cloud import python_application, until

from edgegap_async import Status
from edgegap_async.emulator import Emulator, Simulation, Timings, sample_application
from edgegap_async.emulator.page import Sessions

HTML = {"Accept": "text/html"}
FROM_THE_PAGE = {"X-Emulator-Page": "1"}
ASSETS = files("edgegap_async.emulator.page").joinpath("assets")


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with Emulator([sample_application()], timings=Timings.fast(), limits=False) as emulator:
        yield emulator


@pytest.fixture
async def visitor(emulator: Emulator) -> AsyncIterator[aiohttp.ClientSession]:
    """What a browser is: it keeps cookies, also those of an IP address."""
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(emulator.url, cookie_jar=jar) as session:
        yield session


async def log_in(emulator: Emulator, visitor: aiohttp.ClientSession) -> None:
    link = emulator.new_login_link().removeprefix(emulator.url)
    async with visitor.get(link, headers=HTML) as answer:
        assert answer.status == 200


async def status_of(visitor: aiohttp.ClientSession, method: str, path: str, **options: Any) -> int:
    async with visitor.request(method, path, **options) as answer:
        await answer.read()
        return answer.status


# ── who may see it ───────────────────────────────────────────────────────────────────────────────


async def test_a_login_link_gives_a_session_once(
    emulator: Emulator, visitor: aiohttp.ClientSession
) -> None:
    link = emulator.new_login_link().removeprefix(emulator.url)
    async with visitor.get(link, headers=HTML) as answer:
        cookie = answer.headers["Set-Cookie"]
    async with (
        aiohttp.ClientSession(emulator.url) as stranger,
        stranger.get(link, headers=HTML) as second,
    ):
        text, status = await second.text(), second.status

    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert await status_of(visitor, "GET", "/", headers=HTML) == 200
    assert status == 401
    assert "was used before" in text
    assert emulator.requests == []


async def test_a_browser_without_a_session_is_told_how_to_log_in(emulator: Emulator) -> None:
    async with aiohttp.ClientSession(emulator.url) as stranger:
        async with stranger.get("/", headers=HTML) as answer:
            text = await answer.text()
        unknown = await status_of(stranger, "GET", "/?login=guess", headers=HTML)
        stream = await status_of(stranger, "GET", "/_emulator/stream")
        program = await status_of(stranger, "GET", "/")

    assert answer.status == 401
    assert "You are not logged in" in text
    assert (unknown, stream, program) == (401, 401, 401)


async def test_a_session_can_do_what_the_token_can_but_only_from_the_page(
    emulator: Emulator, visitor: aiohttp.ClientSession
) -> None:
    await log_in(emulator, visitor)
    fault = {"operation": "deploy", "effect": "drop"}

    async def add(**headers: str) -> int:
        return await status_of(visitor, "POST", "/_emulator/faults", json=fault, headers=headers)

    by_a_form = await add()
    of_another_port = await add(**FROM_THE_PAGE, **{"Sec-Fetch-Site": "same-site"})
    of_another_site = await add(**FROM_THE_PAGE, Origin="http://127.0.0.1:1")
    read_elsewhere = await status_of(
        visitor, "GET", "/_emulator", headers={"Sec-Fetch-Site": "cross-site"}
    )
    assert (by_a_form, of_another_port, of_another_site, read_elsewhere) == (401, 401, 403, 401)
    assert emulator.faults.left == ()

    by_the_page = await add(**FROM_THE_PAGE, Origin=emulator.url)
    assert (by_the_page, len(emulator.faults.left)) == (200, 1)
    assert await status_of(visitor, "GET", "/_emulator") == 200


async def test_a_session_is_no_token_of_a_deployment(
    emulator: Emulator, visitor: aiohttp.ClientSession
) -> None:
    await log_in(emulator, visitor)

    assert await status_of(visitor, "GET", "/v1/context/aaaaaaaaaaaa/1") == 401
    path = "/v1/self/stop/aaaaaaaaaaaa/1"
    assert await status_of(visitor, "DELETE", path, headers=FROM_THE_PAGE) == 401


async def test_a_new_link_needs_the_token(
    emulator: Emulator, visitor: aiohttp.ClientSession
) -> None:
    assert await status_of(visitor, "POST", "/_emulator/login") == 401

    headers = {"Authorization": f"token {emulator.token}"}
    async with visitor.post("/_emulator/login", headers=headers) as answer:
        link = (await answer.json())["url"].removeprefix(emulator.url)
    assert await status_of(visitor, "GET", link, headers=HTML) == 200


def request_with(cookies: dict[str, str], host: str = "127.0.0.1:8080") -> web.BaseRequest:
    text = "; ".join(f"{name}={value}" for name, value in cookies.items())
    return make_mocked_request("GET", "/", headers={"Host": host, "Cookie": text})


def session_cookie(sessions: Sessions, host: str = "127.0.0.1:8080") -> dict[str, str]:
    answer = web.Response()
    sessions.start(request_with({}, host), answer)
    return {name: morsel.value for name, morsel in answer.cookies.items()}


def test_a_session_goes_on_after_a_restart_with_the_same_token() -> None:
    cookies = session_cookie(Sessions("canary-one"))

    assert Sessions("canary-one").allows(request_with(cookies))
    assert not Sessions("canary-other").allows(request_with(cookies))


@pytest.mark.parametrize(
    "damage", ["", ".", "9999999999.x", "{ends}.x.{signature}", "é", "nan.a.b"]
)
def test_a_damaged_cookie_is_no_session(damage: str) -> None:
    sessions = Sessions("canary-token")
    ((name, value),) = session_cookie(sessions).items()
    ends, _, signature = value.rpartition(".")

    assert not sessions.allows(request_with({name: damage.format(ends=ends, signature=signature)}))


def test_sessions_and_links_end() -> None:
    now = 1000.0
    sessions = Sessions("canary-token", lambda: now)
    link, cookies = sessions.new_link(), session_cookie(sessions)

    now += 3601
    assert "one hour" in str(sessions.refuse_link(link.partition("=")[2]))
    assert sessions.allows(request_with(cookies))
    now += 7 * 86400
    assert not sessions.allows(request_with(cookies))


def test_links_that_are_not_used_are_bounded() -> None:
    sessions = Sessions("canary-token")
    links = [sessions.new_link().partition("=")[2] for _ in range(101)]

    assert sessions.refuse_link(links[0]) is not None
    assert sessions.refuse_link(links[1]) is None


# ── what it is made of ───────────────────────────────────────────────────────────────────────────


async def test_every_file_has_a_strict_policy(
    emulator: Emulator, visitor: aiohttp.ClientSession
) -> None:
    await log_in(emulator, visitor)
    for path in ["/", *(f"/_emulator/page/{file.name}" for file in ASSETS.iterdir())]:
        async with visitor.get(path, headers=HTML) as answer:
            policy = answer.headers["Content-Security-Policy"]
            assert answer.status == 200
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in policy
        assert "trusted-types 'none'" in policy
        assert "unsafe" not in policy
    assert await status_of(visitor, "GET", "/_emulator/page/..%2Fpage.py") == 404


def test_the_files_are_small_and_name_no_other_host() -> None:
    text = {file.name: file.read_text("utf-8") for file in ASSETS.iterdir()}

    assert sum(map(len, (one.encode() for one in text.values()))) < 250_000
    for name, content in text.items():
        hosts = set(re.findall(r"https?://[\w.]+", content))
        assert hosts <= {"http://www.w3.org"}, name  # the name of SVG's namespace
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", content
        )
        if name.endswith(".html"):
            assert not re.search(r"\sstyle=|\son\w+=|<style|<script(?![^>]* src=)", content), name


# ── the stream ───────────────────────────────────────────────────────────────────────────────────


class Messages:
    """The messages of a stream."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer = answer

    async def next(self) -> dict[str, Any]:
        async with asyncio.timeout(20):
            data = await self._answer.content.readuntil(b"\n\n")
        return dict(json.loads(data.removeprefix(b"data: ")))

    async def until(self, field: str) -> Any:
        """Returns this field of the next message that has it."""
        while field not in (message := await self.next()):
            pass
        return message[field]


@asynccontextmanager
async def a_stream(emulator: Emulator) -> AsyncIterator[Messages]:
    headers = {"Authorization": f"token {emulator.token}"}
    async with (
        aiohttp.ClientSession(emulator.url, headers=headers) as session,
        session.get("/_emulator/stream") as answer,
    ):
        assert answer.content_type == "text/event-stream"
        yield Messages(answer)


@pytest.fixture
async def stream(emulator: Emulator) -> AsyncIterator[Messages]:
    async with a_stream(emulator) as stream:
        yield stream


async def deploy(emulator: Emulator, **fields: Any) -> str:
    async with aiohttp.ClientSession(emulator.url) as session:
        return await BareApi(emulator, session).deploy(**fields)


async def test_a_stream_tells_what_there_is_and_then_what_changes(
    emulator: Emulator, stream: Messages
) -> None:
    first = await stream.next()
    request_id = await deploy(emulator, tags=["eu"])
    row: dict[str, Any] = {"status": ""}
    while row["status"] != "READY":
        (row,) = await stream.until("deployments")

    assert first["is_first"]
    assert first["deployable"] == ["arena v1"]
    assert (row["request_id"], row["tags"], row["city"]) == (request_id, ["eu"], "Paris")
    assert row["players"] == [[48.9, 2.4]]


async def test_a_stream_tells_what_can_be_deployed_after_a_reload(
    emulator: Emulator, stream: Messages
) -> None:
    await stream.next()
    emulator.reload([sample_application(version="v2")])

    assert await stream.until("deployable") == ["arena v2"]


async def test_a_stream_tells_calls_rates_and_faults(emulator: Emulator, stream: Messages) -> None:
    await stream.next()
    request_id = await deploy(emulator)
    told: dict[str, Any] = {}
    while not {"calls", "seconds"} <= told.keys():  # on a busy machine one message has both
        told |= await stream.next()
    (call, *_), rates = told["calls"], told["seconds"]

    assert (call["operation"], call["request_id"], call["status"]) == ("deploy", request_id, 202)
    assert "body" not in call
    assert sum(second["calls"].get("deploy", 0) for second in rates) == 1


async def test_a_reset_empties_the_pages(emulator: Emulator, stream: Messages) -> None:
    request_id = await deploy(emulator)
    while not (await stream.next()).get("deployments"):
        pass
    await emulator.reset()

    assert await stream.until("gone") == [request_id]


async def test_a_closed_page_costs_nothing(emulator: Emulator) -> None:
    def listeners() -> list[int]:
        return [len(one.listeners) for one in (emulator.events, emulator.record, emulator.webhooks)]

    before, tasks = listeners(), len(asyncio.all_tasks())
    async with a_stream(emulator) as stream:
        await stream.next()
        assert listeners() == [count + 1 for count in before]
    await until(lambda: listeners() == before and len(asyncio.all_tasks()) == tasks)
    assert emulator.open_requests == 0


async def test_the_number_of_open_pages_is_bounded(emulator: Emulator) -> None:
    headers = {"Authorization": f"token {emulator.token}"}
    async with aiohttp.ClientSession(emulator.url, headers=headers) as session:
        answers = [await session.get("/_emulator/stream") for _ in range(33)]
        statuses = [answer.status for answer in answers]
        for answer in answers:
            answer.close()

    assert statuses == [200] * 32 + [503]


async def test_a_page_that_is_read_slowly_gets_the_newest_state(emulator: Emulator) -> None:
    simulated = Emulator(
        [sample_application()],
        timings=Timings.fast(),
        limits=False,
        simulate=Simulation(ready_after=(0, 0.1)),
    )
    async with simulated, a_stream(simulated) as stream:
        await stream.next()
        for _ in range(200):
            await deploy(simulated)
        await until(lambda: all(one.status.is_ready for one in simulated.live()))
        newest: dict[str, str] = {}
        while list(newest.values()).count("READY") < 200:
            for row in (await stream.next()).get("deployments", ()):
                newest[row["request_id"]] = row["status"]

    assert newest.keys() == simulated.deployments.keys()


async def test_an_emulator_with_an_open_page_closes_at_once() -> None:
    emulator = Emulator([sample_application()], timings=Timings.fast())
    loop = asyncio.get_running_loop()
    headers = {"Authorization": f"token {emulator.token}"}
    async with emulator, aiohttp.ClientSession(emulator.url, headers=headers) as session:
        answer = await session.get("/_emulator/stream")
        began = loop.time()
        await emulator.close()
        answer.close()

    assert loop.time() - began < 0.9  # the server would wait a second for an answer that goes on


# ── what the page reads and does ─────────────────────────────────────────────────────────────────


@pytest.fixture
async def talkative() -> AsyncIterator[BareApi]:
    """An emulator with a server that writes, and has hidden variables."""
    program = "import sys, time; print('début', flush=True); time.sleep(60)"
    application = python_application(
        program,
        environment={"MODE": "ranked"},
        hidden_environment={"KEY": "canary-hidden"},
    )
    emulator = Emulator([application], timings=Timings.fast(), limits=False, metrics_interval=0.05)
    async with emulator, aiohttp.ClientSession(emulator.url) as session:
        yield BareApi(emulator, session)


async def test_details_have_no_hidden_value(talkative: BareApi) -> None:
    (application,) = talkative.emulator.cloud.deployable
    name, version = application.split()
    variables = [
        {"key": "MAP", "value": "dust", "is_hidden": False},
        {"key": "SALT", "value": "canary-of-the-deploy", "is_hidden": True},
        {"key": "API_TOKEN", "value": "canary-by-its-name", "is_hidden": False},
    ]
    request_id = await talkative.deploy(
        application=name, version=version, environment_variables=variables
    )
    await talkative.wait_for_status(request_id, "READY")
    status, body = await talkative("GET", f"/_emulator/deployments/{request_id}")

    assert status == 200
    assert {one["key"]: one["value"] for one in body["environment"]} == {
        "API_TOKEN": None,
        "KEY": None,
        "MAP": "dust",
        "MODE": "ranked",
        "SALT": None,
    }
    assert "canary" not in json.dumps(body)
    assert [event["to"] for event in body["history"]][-1] == "READY"


async def test_logs_can_be_followed(talkative: BareApi) -> None:
    (application,) = talkative.emulator.cloud.deployable
    name, version = application.split()
    request_id = await talkative.deploy(application=name, version=version)
    path = f"/_emulator/deployments/{request_id}/logs"
    answer: dict[str, Any] = {"text": ""}
    while not answer["text"].endswith("\n"):
        _, answer = await talkative("GET", path)
    _, rest = await talkative("GET", f"{path}?after={answer['position']}")
    deployment = talkative.emulator.deployments[request_id]
    deployment.output.write("é".encode()[:1])
    _, half = await talkative("GET", f"{path}?after={answer['position']}")
    deployment.output.write("é".encode()[1:])
    _, whole = await talkative("GET", f"{path}?after={half['position']}")

    assert (answer["text"], answer["position"]) == ("début\n", len("début\n".encode()))
    assert (rest["text"], half["text"], whole["text"]) == ("", "", "é")


async def test_measurements_are_lists_of_the_same_length(talkative: BareApi) -> None:
    (application,) = talkative.emulator.cloud.deployable
    name, version = application.split()
    request_id = await talkative.deploy(application=name, version=version)
    body: dict[str, Any] = {"times": []}
    while not body["times"]:
        _, body = await talkative("GET", f"/_emulator/deployments/{request_id}/metrics")

    assert {len(values) for values in body.values()} == {len(body["times"])}
    assert max(body["memory"]) > 0
    assert {*body["received"], *body["sent"]} == {None}


@pytest.mark.parametrize("simulate", [None, Simulation(ready_after=(0, 0))])
async def test_a_crash_ends_the_program_as_a_signal_does(simulate: Simulation | None) -> None:
    emulator = Emulator([sample_application()], timings=Timings.fast(), simulate=simulate)
    async with emulator, aiohttp.ClientSession(emulator.url) as session:
        api = BareApi(emulator, session)
        request_id = await api.deploy()
        await api.wait_for_status(request_id, "READY")
        crashed, _ = await api("POST", f"/_emulator/deployments/{request_id}/crash")
        body = await api.wait_for_status(request_id, "ERROR")
        again, problem = await api("POST", f"/_emulator/deployments/{request_id}/crash")
        unknown, _ = await api("POST", "/_emulator/deployments/aaaaaaaaaaaa/crash")

    assert (crashed, again, unknown) == (200, 400, 404)
    assert "SIGKILL" in body["error_detail"]
    assert "no process to crash: it is ERROR" in problem["message"]


async def test_webhooks_and_their_answers_are_listed(emulator: Emulator) -> None:
    async with aiohttp.ClientSession(emulator.url) as session:
        api = BareApi(emulator, session)
        await api(
            "POST", "/_emulator/faults", json={"operation": "webhook_on_ready", "effect": "drop"}
        )
        hook = {"url": f"{emulator.url}/secret-path"}
        request_id = await api.deploy(webhook_on_ready=hook, webhook_on_terminated=hook)
        await api.wait_for_status(request_id, "READY")
        await api("DELETE", f"/v1/stop/{request_id}")
        await until(lambda: len(emulator.webhooks.sent) == 2)
        _, body = await api("GET", "/_emulator/webhooks")

    lost, answered = body["webhooks"]
    assert (lost["kind"], lost["fault"], lost["status"]) == ("ready", "Drop", None)
    assert (answered["kind"], answered["fault"], answered["status"]) == ("terminated", None, 401)
    assert "secret-path" not in json.dumps(body)


def test_the_page_has_a_colour_for_each_status() -> None:
    script = ASSETS.joinpath("dom.js").read_text("utf-8")
    phases = script.partition("const PHASES = {")[2].partition("}")[0]

    assert set(re.findall(r"(\w+):", phases)) == set(Status.__members__)
