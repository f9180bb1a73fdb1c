"""What the network can do to a call, done to it with real sockets.

The numbers in names are the rows of faults that this package promises to survive; rows that are
proven where their module is tested are not repeated here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import socket
import ssl
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import aiohttp.abc
import pytest
import trustme
from raw_server import raw_server, read_request
from scripted_api import Reply, ScriptedApi, deployment

from edgegap_async import (
    BadRequest,
    CallError,
    Conflict,
    EdgegapClient,
    Forbidden,
    NotSent,
    PollingPolicy,
    RateLimited,
    RetryPolicy,
    ServerError,
    Status,
    Timeouts,
    Unauthorized,
    UnreadableAnswer,
)
from edgegap_async.api.operations import OPERATIONS
from edgegap_async.emulator import Dribble, Emulator, Fault, Timings, sample_application

USERS = ["8.8.8.8"]
DEPLOY = ("POST", "/v2/deployments")
STATUS = ("GET", "/v1/status/abc123")
STOP = ("DELETE", "/v1/stop/abc123")
LIST = ("GET", "/v1/deployments")
NO_LIMITS = dict.fromkeys((operation.name for operation in OPERATIONS if operation.limit), None)
QUICK = RetryPolicy(first_wait=0.01)
TRUSTED_BY_NOBODY = trustme.CA()


def a_client(url: str, **options: Any) -> EdgegapClient:
    settings: dict[str, Any] = {
        "retries": QUICK,
        "polling": PollingPolicy(first_delay=0.01, interval=0.02),
    }
    return EdgegapClient("canary-t", base_url=url, list_delay=0.3, **settings | options)


async def failure(client: EdgegapClient) -> CallError:
    with pytest.raises(CallError) as caught:
        await client.deploy("arena", "v1", users=USERS)
    return caught.value


def made_nothing(error: CallError, *, attempts: int) -> bool:
    return (type(error), error.maybe_created, error.attempts) == (NotSent, False, attempts)


@pytest.fixture
async def api() -> AsyncIterator[ScriptedApi]:
    async with ScriptedApi() as api:
        yield api


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    apps, timings = [sample_application()], Timings.fast()
    async with Emulator(apps, timings=timings, limits=False, token="canary-t") as emulator:
        yield emulator


def live(emulator: Emulator) -> list[str]:
    over = {Status.TERMINATING, Status.TERMINATED}
    return [one.request_id for one in emulator.cloud.deployments.values() if one.status not in over]


def calls(emulator: Emulator) -> Counter[str]:
    return Counter(request.operation for request in emulator.requests)


def test_every_row_has_a_test_with_its_number() -> None:
    names = "\n".join(
        line
        for module in Path(__file__).parents[1].rglob("test_*.py")
        for line in module.read_text("utf-8").splitlines()
        if re.match(r"(async )?def test_row_", line)
    )
    numbered = {int(number) for number in re.findall(r"_(\d\d)(?=_)", names)}

    assert not set(range(1, 37)) - numbered


# ── before anything is sent ──────────────────────────────────────────────────────────────────────


class NoSuchHost(aiohttp.abc.AbstractResolver):
    """What a resolver says of a name that does not exist."""

    asked = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[aiohttp.abc.ResolveResult]:
        self.asked += 1
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def close(self) -> None:
        pass


async def test_row_01_a_name_that_nobody_knows_is_looked_up_again_and_then_said() -> None:
    resolver = NoSuchHost()
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=resolver)) as session,
        a_client("https://no-such.invalid", session=session) as client,
    ):
        error = await failure(client)

    assert made_nothing(error, attempts=4)
    assert resolver.asked == 4
    assert "no-such.invalid" in str(error)


async def test_row_02_a_port_where_nobody_listens_was_sent_nothing() -> None:
    with socket.socket() as bound:  # bound and not listening: refused
        bound.bind(("127.0.0.1", 0))
        async with a_client(f"http://127.0.0.1:{bound.getsockname()[1]}") as client:
            assert made_nothing(await failure(client), attempts=4)


@contextlib.asynccontextmanager
async def counting_front(port: int) -> AsyncIterator[tuple[int, list[str]]]:
    """A port that leads to another, and a list with an entry for each connection."""
    came: list[str] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append("connection")
        onward_reader, onward_writer = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.closing(onward_writer):
            ways = [pass_on(reader, onward_writer), pass_on(onward_reader, writer)]
            await asyncio.gather(*ways)

    async with raw_server(talk) as front:
        yield front, came


async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(2**16):
            writer.write(data)
            await writer.drain()
    writer.close()


async def answer_locations(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n" + b'{"locations":[]}')
    await writer.drain()


def served_by(ca: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(name).configure_cert(context)
    return context


def trusting(ca: trustme.CA) -> aiohttp.ClientSession:
    context = ssl.create_default_context()
    ca.configure_trust(context)
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context))


@pytest.mark.parametrize(
    ("issuer", "name"),
    [(TRUSTED_BY_NOBODY, "127.0.0.1"), (None, "api.example.com")],
    ids=["another CA", "another host"],
)
async def test_row_03_a_server_that_cannot_prove_who_it_is_is_asked_once(
    issuer: trustme.CA | None, name: str
) -> None:
    ca = trustme.CA()
    async with (
        raw_server(answer_locations, tls=served_by(issuer or ca, name)) as port,
        counting_front(port) as (front, came),
        trusting(ca) as session,
        a_client(f"https://127.0.0.1:{front}", session=session) as client,
    ):
        error = await failure(client)

    assert made_nothing(error, attempts=1)
    assert came == ["connection"]
    assert "name that CA's file in SSL_CERT_FILE" in str(error)


async def test_row_03_a_server_that_speaks_no_tls_of_today_is_asked_once() -> None:
    came: list[bytes] = []

    async def speak_old_tls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(await reader.read(1))
        writer.write(b"\x15\x03\x01\x00\x02\x02\x46")  # fatal alert: protocol_version
        await writer.drain()
        await reader.read()

    async with raw_server(speak_old_tls) as port, a_client(f"https://127.0.0.1:{port}") as client:
        assert made_nothing(await failure(client), attempts=1)

    assert came == [b"\x16"]  # one handshake, and nothing in plain


ASK_FOR_LOCATIONS = """
import asyncio
from edgegap_async import EdgegapClient

async def main():
    async with EdgegapClient() as client:
        await client.locations.list()

asyncio.run(main())
"""


async def test_row_03_a_ca_of_ones_own_is_trusted_by_a_session_or_by_the_environment(
    tmp_path: Path,
) -> None:
    ca, file = trustme.CA(), tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(file)
    async with raw_server(answer_locations, tls=served_by(ca, "127.0.0.1")) as port:
        url = f"https://127.0.0.1:{port}"
        async with trusting(ca) as session, a_client(url, session=session) as client:
            assert (await client.locations.list()).locations == ()

        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-X", "dev", "-W", "error", "-c", ASK_FOR_LOCATIONS),
            env={
                **os.environ,
                "SSL_CERT_FILE": str(file),
                "EDGEGAP_BASE_URL": url,
                "EDGEGAP_API_TOKEN": "t",
            },
        )
        assert await process.wait() == 0


@pytest.fixture
def full_port() -> Iterator[int]:
    """A port whose queue of connections is full: one more hangs."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listening.getsockname())
        yield listening.getsockname()[1]


@pytest.mark.virtual
async def test_row_04_a_connection_that_does_not_open_is_given_up_and_tried_again(
    full_port: int,
) -> None:
    loop = asyncio.get_running_loop()
    timeouts = Timeouts(connect=3)
    async with a_client(f"http://127.0.0.1:{full_port}", timeouts=timeouts) as client:
        began = loop.time()

        assert made_nothing(await failure(client), attempts=4)
        assert 12 <= loop.time() - began <= 13


async def test_row_05_a_reset_before_the_request_went_out_was_sent_nothing() -> None:
    came = 0

    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal came
        came += 1
        await reader.read(1)  # of the handshake, before which no request goes out
        writer.transport.abort()

    async with raw_server(reset) as port, a_client(f"https://127.0.0.1:{port}") as client:
        assert made_nothing(await failure(client), attempts=4)

    assert came == 4


# ── through a proxy that cuts connections ────────────────────────────────────────────────────────


@contextlib.asynccontextmanager
async def cutting_proxy(url: str, cut: Callable[[bytes, int], str]) -> AsyncIterator[str]:
    """A way to a server that breaks.

    `cut` is asked about each request, with its number on its connection: "before" it is passed
    on, "after" or "" for not at all.
    """
    port = int(url.rpartition(":")[2])

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = 0
        while request := await read_request(reader):
            number += 1
            where = cut(request, number)
            if where == "before":
                break
            onward_reader, onward_writer = await asyncio.open_connection("127.0.0.1", port)
            with contextlib.closing(onward_writer):
                head, _, body = request.partition(b"\r\n\r\n")
                onward_writer.write(head + b"\r\nConnection: close\r\n\r\n" + body)
                answer = await onward_reader.read()
            if where == "after":
                writer.transport.abort()
                break
            writer.write(re.sub(rb"(?i)\r\nConnection: close", b"", answer))
            await writer.drain()

    async with raw_server(talk) as proxy:
        yield f"http://127.0.0.1:{proxy}"


async def test_row_06_a_proxy_that_loses_the_answer_makes_no_second_server(
    emulator: Emulator,
) -> None:
    to_lose = ["after"]

    def cut(request: bytes, _: int) -> str:
        return to_lose.pop() if request.startswith(b"POST") and to_lose else ""

    async with cutting_proxy(emulator.url, cut) as url, a_client(url) as client:
        server = await client.deploy("arena", "v1", users=USERS)

        assert live(emulator) == [server.request_id]
    assert to_lose == []
    assert calls(emulator)["deploy"] == 1


async def test_row_07_a_deploy_on_a_connection_that_went_stale_is_made_once(
    emulator: Emulator,
) -> None:
    stale = 0

    def cut(request: bytes, number: int) -> str:
        nonlocal stale
        if not request.startswith(b"POST") or number == 1:
            return ""
        stale += 1
        return "before"

    async with cutting_proxy(emulator.url, cut) as url, a_client(url) as client:
        servers = [await client.deploy("arena", "v1", users=USERS) for _ in range(3)]

        assert sorted(live(emulator)) == sorted(server.request_id for server in servers)
    assert stale > 0
    assert calls(emulator)["deploy"] == 3


@pytest.mark.virtual
@pytest.mark.parametrize(("idle", "connections"), [(3, 1), (5, 2), (60, 2)])
@pytest.mark.parametrize("call", ["deploy", "stop", "look"])
async def test_row_07_a_connection_that_was_idle_for_5_s_is_not_used_again(
    call: str, idle: float, connections: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # By its own clock aiohttp would not see the time pass.
    monkeypatch.setattr("aiohttp.connector.monotonic", asyncio.get_running_loop().time)
    came = 0

    async def keep_alive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal came
        came += 1
        while request := await read_request(reader):
            status = b"202 Accepted" if request.startswith(b"POST") else b"200 OK"
            body = b'{"request_id":"abc123"}'
            writer.write(b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body)
            await writer.drain()

    async with raw_server(keep_alive) as port, a_client(f"http://127.0.0.1:{port}") as client:
        for _ in range(2):
            if call == "deploy":
                await client.deployments.deploy("arena", "v1", users=USERS)
            else:
                await (client.deployments.stop if call == "stop" else client.deployments.get)("abc")
            await asyncio.sleep(idle)

    assert came == connections


async def test_row_08_a_stop_whose_answer_the_proxy_loses_has_succeeded(
    emulator: Emulator,
) -> None:
    to_lose = ["after"]

    def cut(request: bytes, _: int) -> str:
        return to_lose.pop() if request.startswith(b"DELETE") and to_lose else ""

    async with cutting_proxy(emulator.url, cut) as url, a_client(url) as client:
        server = await client.deploy("arena", "v1", users=USERS)
        await server.wait_ready(20)
        await client.deployments.stop(server.request_id)
        await server.wait_terminated(20)

        assert live(emulator) == []
    assert calls(emulator)["stop_deployment"] == 2


async def test_row_09_an_answer_that_drips_is_given_up_and_what_it_made_is_found(
    emulator: Emulator,
) -> None:
    emulator.faults.add(Fault("deploy", Dribble(every=0.05)))
    async with a_client(emulator.url, timeouts=Timeouts(total=0.3)) as client, asyncio.timeout(5):
        server = await client.deploy("arena", "v1", users=USERS)

        assert live(emulator) == [server.request_id]


# ── answers that are no use ──────────────────────────────────────────────────────────────────────

PAGE = b"<html><h1>Bad Gateway</h1>" + b"<p>very sorry</p>" * 10_000


@pytest.mark.parametrize(
    ("reply", "error", "attempts"),
    [
        (Reply(200, PAGE, {"Content-Type": "text/html"}), UnreadableAnswer, 2),
        (Reply(502, PAGE, {"Content-Type": "text/html"}), ServerError, 4),
    ],
    ids=["row 11", "row 12"],
)
async def test_row_11_12_a_page_of_a_proxy_is_told_of_and_not_shown(
    api: ScriptedApi,
    caplog: pytest.LogCaptureFixture,
    reply: Reply,
    error: type[CallError],
    attempts: int,
) -> None:
    caplog.set_level(logging.DEBUG)
    api.on(*STATUS, reply)
    async with a_client(api.url) as client:
        with pytest.raises(error, match="Bad Gateway") as caught:
            await client.deployments.get("abc123")

    assert caught.value.status == reply.status
    assert len(api.requests) == caught.value.attempts == attempts
    assert len(str(caught.value)) < 500
    assert all(len(record.getMessage()) < 500 for record in caplog.records)


@pytest.mark.virtual
async def test_row_13_a_429_that_does_not_say_how_long_is_repeated_later_and_slows_the_others(
    api: ScriptedApi,
) -> None:
    api.on(*STATUS, Reply(429), deployment("READY"))
    async with a_client(api.url) as client:
        first = asyncio.create_task(client.deployments.get("abc123"))
        await api.until_asked(*STATUS)
        await asyncio.sleep(0.05)
        assert client.limits.snapshot()["get_deployment"].rate < 0.95 * 0.975 * 20
        await client.deployments.get("abc123")
        await first

        api.on(*STATUS, Reply(429))
        with pytest.raises(RateLimited) as caught:
            await client.deployments.get("abc123")

    times = [request.at for request in api.requests]
    assert caught.value.attempts == 4
    assert times[1] - times[0] >= 0.125  # the other
    assert times[2] - times[0] >= 1
    assert all(later - sooner >= 1 for sooner, later in zip(times[-4:], times[-3:], strict=False))


@pytest.mark.parametrize(
    ("status", "error"), [(400, BadRequest), (401, Unauthorized), (403, Forbidden)]
)
async def test_row_17_what_is_refused_for_good_is_asked_once(
    api: ScriptedApi, status: int, error: type[CallError]
) -> None:
    api.on(*DEPLOY, Reply(status, {"message": "no"}))
    async with a_client(api.url) as client:
        caught = await failure(client)

    assert type(caught) is error
    assert not caught.maybe_created
    assert len(api.requests) == 1
    assert status != 401 or "Check EDGEGAP_API_TOKEN" in str(caught)


async def test_row_19_what_exists_already_is_a_conflict_and_asked_once(api: ScriptedApi) -> None:
    api.on("POST", "/v1/deployments/abc123/tags", Reply(409, {"message": "exists"}))
    async with a_client(api.url) as client:
        with pytest.raises(Conflict):
            await client.tags.create("abc123", "eu")

    assert len(api.requests) == 1


# ── too many at once ─────────────────────────────────────────────────────────────────────────────

WITHOUT_FILES = """
import asyncio, logging, os, resource, sys
from edgegap_async import EdgegapClient, NotSent, RetryPolicy

logging.getLogger("asyncio").setLevel(logging.ERROR)  # a step that took long is no news here
taken = []

def take_all_files():
    resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
    try:
        while True:
            taken.append(os.dup(0))
    except OSError:
        pass

class GivesBack(logging.Handler):
    def emit(self, record):  # before a call is repeated
        while taken:
            os.close(taken.pop())

async def main(url):
    retries = RetryPolicy(first_wait=0.01)
    async with EdgegapClient("canary-t", base_url=url, retries=retries) as client:
        take_all_files()
        try:
            await client.deploy("arena", "v1", users=["8.8.8.8"])
        except NotSent as error:
            print(error.attempts, error.maybe_created, "Too many open files" in str(error))
        log = logging.getLogger("edgegap_async.http.api_client")
        log.setLevel(logging.INFO)
        log.addHandler(GivesBack())
        server = await client.deploy("arena", "v1", users=["8.8.8.8"])
        print(server.request_id)

asyncio.run(main(sys.argv[1]))
"""


async def test_row_34_without_files_to_open_nothing_is_sent_until_there_are_some_again(
    emulator: Emulator,
) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-X", "dev", "-W", "error", "-c", WITHOUT_FILES, emulator.url),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    [request_id] = live(emulator)

    assert output.decode().splitlines() == ["4 False True", request_id]
    assert calls(emulator)["deploy"] == 1


async def test_row_36_a_call_that_gets_no_answers_keeps_no_other_waiting(api: ScriptedApi) -> None:
    at_last = asyncio.Event()
    api.on(*LIST, Reply(after=at_last))
    api.on(*STATUS, deployment("READY"))
    api.on(*STOP, Reply())
    api.on(*DEPLOY, Reply(202, {"request_id": "abc123"}))
    async with a_client(api.url, limits=NO_LIMITS) as client:
        lists = [asyncio.create_task(client.deployments.list_page()) for _ in range(150)]
        await api.until_asked(*LIST, times=100)
        try:
            async with asyncio.timeout(5):
                server = await client.deploy("arena", "v1", users=USERS)
                await server.wait_ready()
                await server.stop()
            assert not any(one.done() for one in lists)
        finally:
            at_last.set()
        await asyncio.gather(*lists)


@pytest.mark.parametrize("others", [DEPLOY, STATUS], ids=["deploys", "looks"])
async def test_row_36_a_stop_goes_out_whatever_else_is_stuck(
    api: ScriptedApi, others: tuple[str, str]
) -> None:
    at_last = asyncio.Event()
    api.on(*DEPLOY, Reply(202, {"request_id": "abc123"}, after=at_last))
    api.on(*STATUS, Reply(200, deployment("READY").body, after=at_last))
    api.on(*STOP, Reply())
    async with a_client(api.url, limits=NO_LIMITS) as client:

        async def other() -> None:
            if others is STATUS:
                await client.deployments.get("abc123")
            else:
                await client.deployments.deploy("arena", "v1", users=USERS)

        stuck = [asyncio.create_task(other()) for _ in range(150)]
        await api.until_asked(*others, times=100)
        try:
            async with asyncio.timeout(5):
                await client.deployments.stop("abc123")
        finally:
            at_last.set()
        await asyncio.gather(*stuck)

    assert len(api.asked(*STOP)) == 1
