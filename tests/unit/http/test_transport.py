"""What became of a request is told truly, and nothing of aiohttp or of the token comes out."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import math
import pickle
import socket
import traceback
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import aiohttp
import aiohttp.abc
import pytest
from raw_server import raw_server, read_request
from scripted_api import Reply, ScriptedApi

from edgegap_async.api.messages import HttpRequest, encode
from edgegap_async.api.operations import (
    DEPLOY,
    GET_DEPLOYMENT,
    LIST_DEPLOYMENTS,
    STOP_DEPLOYMENT,
)
from edgegap_async.api.requests import DeployRequest, Token
from edgegap_async.errors import (
    CallError,
    ClientClosed,
    InvalidRequest,
    NoAnswer,
    NotSent,
    UnreadableAnswer,
    WrongLoop,
)
from edgegap_async.http import rate_limits as limits
from edgegap_async.http.transport import VERSION, SendState, Timeouts, Transport

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

CANARY = "canary-4f1c0d"
TOKEN = Token(CANARY, scheme="token")

GET = encode(GET_DEPLOYMENT, path={"request_id": "r1"})
LIST = encode(LIST_DEPLOYMENTS, query={"query": "who-asks-what"})
STOP = encode(STOP_DEPLOYMENT, path={"request_id": "r1"})
POST = encode(DEPLOY, body=DeployRequest(application="arena", version="v1", users=["192.0.2.1"]))


@contextlib.asynccontextmanager
async def transport_to(
    base_url: str | int,
    *,
    session: aiohttp.ClientSession | None = None,
    timeouts: Timeouts | None = None,
    allow_insecure: bool = False,
) -> AsyncIterator[Transport]:
    if isinstance(base_url, int):
        base_url = f"http://127.0.0.1:{base_url}"
    transport = Transport(
        base_url,
        session=session,
        timeouts=timeouts or Timeouts(),
        allow_insecure=allow_insecure,
    )
    try:
        yield transport
    finally:
        await transport.close()


def answering(answer: bytes) -> Talk:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(answer)
        await writer.drain()

    return talk


async def hang_up(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await read_request(reader)


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.transport.abort()


async def say_nothing(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()


@pytest.fixture
def closed_port() -> Iterator[int]:
    with socket.socket() as bound:  # bound and not listening: refused
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


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


class NoSuchHost(aiohttp.abc.AbstractResolver):
    """What a resolver says of a name that does not exist."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[aiohttp.abc.ResolveResult]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def close(self) -> None:
        pass


async def failure(
    transport: Transport, request: HttpRequest[Any], sending: SendState | None = None
) -> CallError:
    with pytest.raises(CallError) as caught:
        await transport.send(request, TOKEN, sending or SendState())
    return caught.value


def shown(error: BaseException) -> str:
    """Everything that a log, a debugger or a crash report could show of an error."""
    texts = [repr(error), str(error), repr(vars(error))]
    with contextlib.suppress(TypeError):  # frames of a few errors of Python's own
        texts.append(repr(pickle.dumps(error)))
    texts += traceback.format_exception(error)
    todo: list[BaseException] = [error]
    while todo:
        one = todo.pop()
        texts += traceback.TracebackException.from_exception(one, capture_locals=True).format()
        todo += [other for other in (one.__cause__, one.__context__) if other is not None]
    return "\n".join(texts)


# ── what is sent ─────────────────────────────────────────────────────────────────────────────────


async def test_a_request_goes_out_as_it_was_encoded() -> None:
    async with ScriptedApi() as api, transport_to(f"{api.url}/") as transport:
        api.on("POST", "/v2/deployments", Reply(202, {"request_id": "r1"}, {"X-Y": "z"}))
        sending = SendState()
        answer = await transport.send(POST, TOKEN, sending)
        [got] = api.requests

    assert (answer.status, answer.body) == (202, b'{"request_id": "r1"}')
    assert answer.headers["X-Y"] == "z"
    assert sending.sent == 1
    assert got.body == POST.body
    assert got.headers["Content-Type"] == "application/json"
    assert got.headers["Authorization"] == f"token {CANARY}"
    assert got.headers["User-Agent"].startswith(f"edgegap-async/{VERSION} Python/3.")


async def test_a_base_url_may_have_a_path() -> None:
    async with ScriptedApi() as api, transport_to(f"{api.url}/mirror") as transport:
        api.on("GET", "/mirror/v1/status/r1", Reply())
        answer = await transport.send(GET, TOKEN, SendState())

        assert answer.status == 200
        assert "Content-Type" not in api.requests[0].headers


async def test_an_error_status_is_an_answer_like_any_other() -> None:
    async with ScriptedApi() as api, transport_to(api.url) as transport:
        api.on("GET", "/v1/status/r1", Reply(500, b"oops"))

        assert (await transport.send(GET, TOKEN, SendState())).status == 500


# ── sent or not ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("request_", [GET, POST, STOP], ids=lambda request: request.operation.name)
async def test_row_02_a_refused_connection_means_that_nothing_was_sent(
    request_: HttpRequest[Any], closed_port: int
) -> None:
    async with transport_to(closed_port) as transport:
        sending = SendState()
        error = await failure(transport, request_, sending)

    assert type(error) is NotSent
    assert error.retry_may_help
    assert sending.sent == 0
    assert (error.operation, error.path) == (request_.operation.name, request_.path)


@pytest.mark.parametrize("request_", [GET, POST], ids=lambda request: request.operation.name)
async def test_row_01_an_unknown_host_means_that_nothing_was_sent(
    request_: HttpRequest[Any],
) -> None:
    connector = aiohttp.TCPConnector(resolver=NoSuchHost())
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        transport_to("https://no-such.invalid", session=session) as transport,
    ):
        assert type(await failure(transport, request_)) is NotSent


@pytest.mark.virtual
@pytest.mark.parametrize("request_", [GET, POST], ids=lambda request: request.operation.name)
async def test_row_04_a_connection_that_does_not_open_in_time_means_that_nothing_was_sent(
    request_: HttpRequest[Any], full_port: int
) -> None:
    loop = asyncio.get_running_loop()
    async with transport_to(full_port, timeouts=Timeouts(connect=3)) as transport:
        began = loop.time()
        error = await failure(transport, request_)

    assert type(error) is NotSent
    assert loop.time() - began == pytest.approx(3, abs=0.1)
    assert "no answer in time" in str(error)


async def test_row_03_a_host_without_tls_is_not_tried_again() -> None:
    async def speak_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Speak HTTP\r\n\r\n")

    async with (
        raw_server(speak_http) as port,
        transport_to(f"https://127.0.0.1:{port}") as transport,
    ):
        error = await failure(transport, POST)

    assert isinstance(error, NotSent)
    assert not error.retry_may_help


@pytest.mark.parametrize("talk", [hang_up, reset])
@pytest.mark.parametrize("request_", [GET, POST], ids=lambda request: request.operation.name)
async def test_row_06_a_server_that_hangs_up_after_reading_may_have_acted(
    request_: HttpRequest[Any], talk: Talk
) -> None:
    async with raw_server(talk) as port, transport_to(port) as transport:
        sending = SendState()
        error = await failure(transport, request_, sending)

    assert type(error) is NoAnswer
    assert sending.sent == (1 if request_ is POST else 0)  # reads are not counted


@pytest.mark.parametrize("request_", [GET, STOP], ids=lambda request: request.operation.name)
async def test_nothing_is_sent_twice_behind_the_back_of_the_limits(
    request_: HttpRequest[Any],
) -> None:
    requests: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        requests.append(await read_request(reader))

    async with raw_server(talk) as port, transport_to(port) as transport:
        error = await failure(transport, request_)

    assert type(error) is NoAnswer
    assert len(requests) == 1


async def test_in_a_session_of_the_users_aiohttp_sends_a_delete_again_and_both_are_counted() -> (
    None
):
    requests: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        requests.append(await read_request(reader))

    async with (
        raw_server(talk) as port,
        aiohttp.ClientSession() as session,
        transport_to(port, session=session) as transport,
    ):
        sending = SendState()
        error = await failure(transport, STOP, sending)

    assert type(error) is NoAnswer
    assert sending.sent == len(requests) == 2


async def test_clients_that_share_a_session_count_only_their_own_requests() -> None:
    async with (
        ScriptedApi() as api,
        aiohttp.ClientSession() as session,
        transport_to(api.url, session=session) as one,
        transport_to(api.url, session=session) as other,
    ):
        api.on("DELETE", "/v1/stop/r1", Reply())
        first, second = SendState(), SendState()
        await one.send(STOP, TOKEN, first)
        await other.send(STOP, TOKEN, second)
        await one.send(STOP, TOKEN, first)
        await session.delete(f"{api.url}/v1/stop/r1")

        assert (first.sent, second.sent) == (2, 1)


@pytest.mark.virtual
@pytest.mark.parametrize(
    ("request_", "sent"), [(GET, 0), (POST, 1), (STOP, 1)], ids=lambda value: str(value)[:20]
)
async def test_an_answer_that_does_not_come_in_time_is_no_answer(
    request_: HttpRequest[Any], sent: int
) -> None:
    loop = asyncio.get_running_loop()
    async with (
        raw_server(say_nothing) as port,
        transport_to(port, timeouts=Timeouts(total=7)) as transport,
    ):
        began, sending = loop.time(), SendState()
        error = await failure(transport, request_, sending)

    assert type(error) is NoAnswer
    assert sending.sent == sent
    assert loop.time() - began == pytest.approx(7, abs=0.1)


@pytest.mark.virtual
async def test_row_09_an_answer_that_drips_has_the_same_total_time() -> None:
    loop = asyncio.get_running_loop()

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(1)

    async with raw_server(drip) as port, transport_to(port, timeouts=Timeouts(total=5)) as to:
        began = loop.time()
        error = await failure(to, POST)

    assert type(error) is NoAnswer
    assert loop.time() - began == pytest.approx(5, abs=0.1)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 8\r\n\r\nnot gzip",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
        b"this is not HTTP\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nCont",
    ],
    ids=["short", "short chunk", "no chunk", "no gzip", "large header", "no HTTP", "half a head"],
)
async def test_row_10_half_an_answer_is_no_answer(answer: bytes) -> None:
    async with raw_server(answering(answer)) as port, transport_to(port) as transport:
        for request in (LIST, POST):
            error = await failure(transport, request)

            assert type(error) is NoAnswer
            assert "who-asks-what" not in shown_message(error)


def shown_message(error: CallError) -> str:
    return f"{error} {error!r}"


# ── answers that are not taken ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_row_22_a_redirect_is_not_followed(status: int) -> None:
    async with ScriptedApi() as elsewhere, ScriptedApi() as api, transport_to(api.url) as to:
        there = f"{elsewhere.url}/v2/deployments?secret"
        api.on("POST", "/v2/deployments", Reply(status, headers={"Location": there}))
        error = await failure(to, POST)

        assert type(error) is UnreadableAnswer
        assert error.status == status
        assert "a redirect to 127.0.0.1, which is not followed" in str(error)
        assert "secret" not in str(error)
        assert not elsewhere.requests


@pytest.mark.parametrize(
    ("headers", "where"), [({}, "the same host"), ({"Location": "http://[bad"}, "an invalid URL")]
)
async def test_a_redirect_to_nowhere_is_not_followed_either(
    headers: dict[str, str], where: str
) -> None:
    async with ScriptedApi() as api, transport_to(api.url) as transport:
        api.on("GET", "/v1/status/r1", Reply(304, headers=headers))

        assert f"a redirect to {where}" in str(await failure(transport, GET))


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: %d\r\n\r\n%b",
        b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n",
    ],
    ids=["with a length", "in chunks"],
)
async def test_row_25_an_answer_that_is_too_large_is_not_taken(head: bytes) -> None:
    request = encode(GET_DEPLOYMENT, path={"request_id": "r1"}, max_bytes=1000)
    bodies = [b"x" * 1001, b"x" * 1000]

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        body = bodies.pop(0)
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n" + head % (len(body), body))
        await writer.drain()

    async with raw_server(talk) as port, transport_to(port) as transport:
        error = await failure(transport, request)
        answer = await transport.send(request, TOKEN, SendState())

    assert type(error) is UnreadableAnswer
    assert "larger than 1000 bytes" in str(error)
    assert answer.body == b"x" * 1000


async def test_a_compressed_answer_is_read() -> None:
    async with ScriptedApi() as api, transport_to(api.url) as transport:
        body, headers = gzip.compress(b"[1, 2]"), {"Content-Encoding": "gzip"}
        api.on("GET", "/v1/status/r1", Reply(200, body, headers))

        assert (await transport.send(GET, TOKEN, SendState())).body == b"[1, 2]"


async def test_row_25_a_gzip_bomb_does_not_fill_the_memory() -> None:
    bomb = gzip.compress(bytes(256 * 2**20), compresslevel=9)
    async with ScriptedApi() as api, transport_to(api.url) as transport:
        api.on("GET", "/v1/status/r1", Reply(200, bomb, {"Content-Encoding": "gzip"}))
        tracemalloc.start()
        try:
            error = await failure(transport, GET)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

    assert type(error) is UnreadableAnswer
    assert peak < 64 * 2**20


# ── nothing comes out ────────────────────────────────────────────────────────────────────────────

FAULTS: dict[str, Talk] = {
    "hang up": hang_up,
    "reset": reset,
    "say nothing": say_nothing,
    "not HTTP": answering(b"this is not HTTP\r\n\r\n"),
    "short": answering(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}"),
    "no gzip": answering(
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 8\r\n\r\nnot gzip"
    ),
    "redirect": answering(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: /\r\n\r\n"),
    "large": answering(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n" + bytes(9 * 2**20)),
}


@pytest.mark.virtual
@pytest.mark.parametrize("request_", [GET, POST, STOP], ids=lambda request: request.operation.name)
@pytest.mark.parametrize("fault", FAULTS)
async def test_no_error_holds_the_token_or_anything_of_aiohttp(
    fault: str, request_: HttpRequest[Any]
) -> None:
    async with raw_server(FAULTS[fault]) as port, transport_to(port) as transport:
        error = await failure(transport, request_)

    assert error.__cause__ is None
    assert error.__context__ is None
    assert CANARY not in shown(error)


async def test_no_error_before_sending_holds_the_token(closed_port: int) -> None:
    async with transport_to(closed_port) as transport:
        error = await failure(transport, POST)

    assert error.__cause__ is None
    assert error.__context__ is None
    assert CANARY not in shown(error)


async def begin_and_stop(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
    await reader.read()


@pytest.mark.virtual
@pytest.mark.parametrize("request_", [GET, POST, STOP], ids=lambda request: request.operation.name)
@pytest.mark.parametrize("talk", [say_nothing, begin_and_stop])
async def test_the_callers_own_timeout_shows_no_token_either(
    talk: Talk, request_: HttpRequest[Any]
) -> None:
    async with raw_server(talk) as port, transport_to(port) as transport:
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(1):
                await transport.send(request_, TOKEN, SendState())

    assert not isinstance(caught.value, CallError)
    assert CANARY not in shown(caught.value)


@pytest.mark.virtual
async def test_a_cancellation_while_connecting_shows_no_token(full_port: int) -> None:
    async with transport_to(full_port) as transport:
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(1):
                await transport.send(POST, TOKEN, SendState())

    assert CANARY not in shown(caught.value)


async def test_a_transport_shows_where_it_leads_and_no_more() -> None:
    async with transport_to("https://api.edgegap.com") as transport:
        assert repr(transport) == "Transport('https://api.edgegap.com')"


# ── sessions ─────────────────────────────────────────────────────────────────────────────────────


async def test_a_session_that_was_passed_in_is_left_as_it_was() -> None:
    async with ScriptedApi() as api, aiohttp.ClientSession() as session:
        api.on("GET", "/v1/status/r1", Reply())
        own = aiohttp.TraceConfig()
        own.freeze()
        session.trace_configs.append(own)
        async with transport_to(api.url, session=session) as transport:
            await transport.send(GET, TOKEN, SendState())

        assert not session.closed
        assert session.trace_configs == [own]


async def test_what_a_session_that_was_passed_in_makes_of_an_answer_changes_nothing() -> None:
    async with (
        ScriptedApi() as api,
        aiohttp.ClientSession(raise_for_status=True, auto_decompress=False) as session,
        transport_to(api.url, session=session) as transport,
    ):
        body = gzip.compress(b'{"message": "no such thing"}')
        api.on("GET", "/v1/status/r1", Reply(404, body, {"Content-Encoding": "gzip"}))
        response = await transport.send(GET, TOKEN, SendState())

    assert (response.status, response.body) == (404, b'{"message": "no such thing"}')


@pytest.mark.filterwarnings("ignore:.* is deprecated")
async def test_a_session_that_contradicts_what_is_sent_sends_nothing_and_shows_no_token() -> None:
    async with (
        ScriptedApi() as api,
        aiohttp.ClientSession(auth=aiohttp.BasicAuth("player", "word")) as session,
        transport_to(api.url, session=session) as transport,
    ):
        error = await failure(transport, POST)

        assert type(error) is NotSent
        assert not error.retry_may_help
        assert CANARY not in shown(error)
        assert not api.requests


def test_a_session_of_another_event_loop_is_named() -> None:
    async def a_session() -> aiohttp.ClientSession:
        return aiohttp.ClientSession()

    async def use(session: aiohttp.ClientSession) -> None:
        async with transport_to(1, session=session) as transport:
            await transport.send(GET, TOKEN, SendState())

    with asyncio.Runner() as runner:
        session = runner.run(a_session())
        with pytest.raises(WrongLoop, match="another event loop"), asyncio.Runner() as other:
            other.run(use(session))
        runner.run(session.close())


async def test_a_time_without_end_can_be_given() -> None:
    timeouts = Timeouts(total=math.inf, connect=math.inf)
    async with ScriptedApi() as api, transport_to(api.url, timeouts=timeouts) as transport:
        api.on("GET", "/v1/status/r1", Reply())

        assert (await transport.send(GET, TOKEN, SendState())).status == 200


async def test_connections_are_kept_as_long_as_the_limits_take_them_to_be_open() -> None:
    async with ScriptedApi() as api, transport_to(api.url) as transport:
        connector = transport._session(GET.operation).connector
        assert isinstance(connector, aiohttp.TCPConnector)

        assert connector._keepalive_timeout == limits._IDLE_TIME


async def test_a_session_that_was_closed_elsewhere_is_client_closed() -> None:
    session = aiohttp.ClientSession()
    await session.close()
    async with transport_to(1, session=session) as transport:
        with pytest.raises(ClientClosed):
            await transport.send(GET, TOKEN, SendState())


async def test_after_close_nothing_is_sent_and_closing_twice_is_fine() -> None:
    async with ScriptedApi() as api, transport_to(api.url) as transport:
        api.on("GET", "/v1/status/r1", Reply())
        await transport.send(GET, TOKEN, SendState())
        await transport.close()
        await transport.close()
        with pytest.raises(ClientClosed):
            await transport.send(GET, TOKEN, SendState())

        assert len(api.requests) == 1


async def test_a_close_that_is_cancelled_closes_every_session_all_the_same() -> None:
    async with ScriptedApi() as api, transport_to(api.url) as transport:
        api.on("GET", "/v1/status/r1", Reply())
        api.on("DELETE", "/v1/stop/r1", Reply())
        for request in (GET, STOP):
            await transport.send(request, TOKEN, SendState())
        sessions = list(transport._sessions.values())
        closing = asyncio.create_task(transport.close())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait([closing])

        assert [session.closed for session in sessions] == [True, True]


async def test_cookies_are_neither_kept_nor_sent() -> None:
    async with ScriptedApi() as api, transport_to(api.url) as transport:
        api.on("GET", "/v1/status/r1", Reply(headers={"Set-Cookie": "a=b"}))
        for _ in range(2):
            await transport.send(GET, TOKEN, SendState())

        assert "Cookie" not in api.requests[1].headers


# ── base URLs ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "base_url",
    [
        "",
        "api.edgegap.com",
        "ftp://api.edgegap.com",
        "https://",
        "https://api.edgegap.com?x=y",
        "https://api.edgegap.com#x",
        "https://api.edgegap.com?",
        "https://api.edgegap.com#",
        "https://user@api.edgegap.com",
        "https://user:word@api.edgegap.com",
        "https://:word@api.edgegap.com",
        "https://api.edgegap.com:0",
        "https://api.edgegap.com:99999",
        "https://api.edgegap.com:https",
        "https://[::1",
        "https://api.edgegap.com/a b",
        "https://api.edgegap.com/\n",
        "https://api..edgegap.com",
    ],
)
def test_a_base_url_that_cannot_be_one_is_refused(base_url: str) -> None:
    with pytest.raises(InvalidRequest, match="base_url must"):
        Transport(base_url, session=None, timeouts=Timeouts(), allow_insecure=True)


def test_the_token_is_not_shown_to_the_network_unless_allowed() -> None:
    with pytest.raises(InvalidRequest, match=r"http://example\.com would show the token"):
        Transport("http://example.com", session=None, timeouts=Timeouts(), allow_insecure=False)

    Transport("http://example.com", session=None, timeouts=Timeouts(), allow_insecure=True)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "LOCALHOST:8080"])
def test_loopback_needs_no_https(host: str) -> None:
    Transport(f"http://{host}", session=None, timeouts=Timeouts(), allow_insecure=False)


@pytest.mark.parametrize("seconds", [0, -1])
def test_timeouts_are_above_zero(seconds: float) -> None:
    with pytest.raises(ValueError, match="must be above 0"):
        Timeouts(total=seconds)
    with pytest.raises(ValueError, match="must be above 0"):
        Timeouts(connect=seconds)
