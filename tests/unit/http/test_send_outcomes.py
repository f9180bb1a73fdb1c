"""Whether a failed request was sent, and which answers are refused."""

from __future__ import annotations

import asyncio
import gzip
import socket
import tracemalloc
from typing import Any

import aiohttp
import aiohttp.abc
import pytest
from raw_server import raw_server, read_request
from scripted_api import Reply, ScriptedApi
from transports import (
    GET,
    LIST,
    POST,
    STOP,
    TOKEN,
    Talk,
    answering,
    failure,
    hang_up,
    reset,
    say_nothing,
    transport_to,
)

from edgegap_async.api.messages import HttpRequest, encode
from edgegap_async.api.operations import (
    GET_DEPLOYMENT,
)
from edgegap_async.errors import (
    CallError,
    NoAnswer,
    NotSent,
    UnreadableAnswer,
)
from edgegap_async.http.transport import SendState, Timeouts

# ── sent or not ───────────────────────────────────────────────────────────────────────────────────


class NoSuchHost(aiohttp.abc.AbstractResolver):
    """A resolver that knows no name."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[aiohttp.abc.ResolveResult]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def close(self) -> None:
        pass


@pytest.mark.parametrize("request_", [GET, POST, STOP], ids=lambda request: request.operation.name)
async def test_row_02_a_refused_connection_means_that_nothing_was_sent(
    request_: HttpRequest[Any], closed_port: int
) -> None:
    async with transport_to(closed_port) as transport:
        send_state = SendState()
        error = await failure(transport, request_, send_state)

    assert type(error) is NotSent
    assert error.retry_may_help
    assert send_state.times_sent == 0
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
        send_state = SendState()
        error = await failure(transport, request_, send_state)

    assert type(error) is NoAnswer
    assert send_state.times_sent == (1 if request_ is POST else 0)  # reads are not counted


@pytest.mark.parametrize("request_", [GET, STOP], ids=lambda request: request.operation.name)
async def test_aiohttp_repeats_no_request_without_a_permit(
    request_: HttpRequest[Any],
) -> None:
    requests: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        requests.append(await read_request(reader))

    async with raw_server(talk) as port, transport_to(port) as transport:
        error = await failure(transport, request_)

    assert type(error) is NoAnswer
    assert len(requests) == 1


async def test_a_delete_that_aiohttp_repeats_in_a_passed_session_is_counted_twice() -> None:
    requests: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        requests.append(await read_request(reader))

    async with (
        raw_server(talk) as port,
        aiohttp.ClientSession() as session,
        transport_to(port, session=session) as transport,
    ):
        send_state = SendState()
        error = await failure(transport, STOP, send_state)

    assert type(error) is NoAnswer
    assert send_state.times_sent == len(requests) == 2


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

        assert (first.times_sent, second.times_sent) == (2, 1)


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
        began, send_state = loop.time(), SendState()
        error = await failure(transport, request_, send_state)

    assert type(error) is NoAnswer
    assert send_state.times_sent == sent
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


# ── answers that are refused ──────────────────────────────────────────────────────────────────────


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
async def test_a_redirect_without_a_valid_target_is_not_followed(
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
async def test_row_25_an_answer_that_is_too_large_is_refused(head: bytes) -> None:
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


# ── large headers ─────────────────────────────────────────────────────────────────────────────────


def with_headers(*lines: bytes) -> Talk:
    head = b"\r\n".join((b"HTTP/1.1 202 Accepted", *lines, b"Content-Length: 2", b"", b"{}"))
    return answering(head)


def lines_of(count: int, size: int) -> list[bytes]:
    return [b"X-%04d: " % number + b"a" * (size - 8) for number in range(count)]


@pytest.mark.parametrize("request_", [GET, POST, STOP], ids=lambda request: request.operation.name)
@pytest.mark.parametrize(
    "lines", [lines_of(1, 12_000), lines_of(1, 64_000), lines_of(640, 100)], ids=len
)
async def test_row_80_headers_of_64_kb_are_read(
    lines: list[bytes], request_: HttpRequest[Any]
) -> None:
    async with raw_server(with_headers(*lines)) as port, transport_to(port) as transport:
        answer = await transport.send(request_, TOKEN, SendState())

    assert answer.status == 202
    assert sum(map(len, answer.headers.values())) >= sum(map(len, lines)) - 8 * len(lines)


async def test_row_80_a_session_that_was_passed_in_reads_large_headers_too() -> None:
    async with (
        aiohttp.ClientSession() as session,
        raw_server(with_headers(*lines_of(1, 12_000))) as port,
        transport_to(port, session=session) as transport,
    ):
        assert (await transport.send(GET, TOKEN, SendState())).status == 202


@pytest.mark.parametrize("request_", [GET, POST], ids=lambda request: request.operation.name)
@pytest.mark.parametrize("lines", [lines_of(1, 70_000), lines_of(1100, 10)], ids=len)
async def test_row_80_larger_headers_are_no_answer_and_not_quoted(
    lines: list[bytes], request_: HttpRequest[Any]
) -> None:
    async with raw_server(with_headers(*lines)) as port, transport_to(port) as transport:
        error = await failure(transport, request_)

    assert type(error) is NoAnswer
    assert "the answer has a header of more than 64 kB, or more than 1000 headers" in str(error)
    assert "aaa" not in str(error)
