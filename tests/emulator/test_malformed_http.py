"""Requests that are not HTTP, or come too slowly: what no HTTP library would send."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import AsyncIterator

import pytest

from edgegap_async.emulator import Deadlines, Emulator, Timings, sample_application

TOKEN = "canary-malformed"
AUTHORIZED = f"Host: localhost\r\nAuthorization: token {TOKEN}\r\n"
HEAD = (
    f"POST /v1/deployments/000000000000/tags HTTP/1.1\r\n{AUTHORIZED}"
    "Content-Type: application/json\r\n"
)


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    emulator = Emulator(
        [sample_application()],
        token=TOKEN,
        timings=Timings.fast(),
        deadlines=Deadlines(headers=0.3, body=0.4),
    )
    async with emulator:
        yield emulator


async def opened(emulator: Emulator) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", int(emulator.url.rpartition(":")[2]))


async def answers(emulator: Emulator, *parts: str | bytes) -> tuple[str, object]:
    """Sends the parts one by one; returns the last status line and body until the end."""
    reader, writer = await opened(emulator)
    async with asyncio.timeout(10):
        for part in parts:
            writer.write(part.encode() if isinstance(part, str) else part)
            await writer.drain()
            await asyncio.sleep(0.02)  # so that the parts arrive one by one
        raw = await reader.read()
    writer.close()
    head, _, body = raw.decode().partition("\r\n\r\n")
    assert "application/json" in head
    return head.partition("\r\n")[0], json.loads(body)


MALFORMED = {
    "line feeds only": (f"GET /v1/deployments HTTP/1.1\n{AUTHORIZED}\n".replace("\r\n", "\n"),),
    "no HTTP": ("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",),
    "a header without a colon": (f"GET / HTTP/1.1\r\n{AUTHORIZED}nonsense\r\n\r\n",),
    "NUL in a header": (f"GET / HTTP/1.1\r\n{AUTHORIZED}X: a\0b\r\n\r\n",),
    "two lengths": (f"{HEAD}Content-Length: 2\r\nContent-Length: 3\r\n\r\n{{}}",),
    "length and chunks": (
        f"{HEAD}Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    "a huge header": (f"GET / HTTP/1.1\r\n{AUTHORIZED}X: {'a' * 20_000}\r\n\r\n",),
    "a bad first chunk": (f"{HEAD}Transfer-Encoding: chunked\r\n\r\nzz\r\n",),
    "a late bad chunk": (f"{HEAD}Transfer-Encoding: chunked\r\n\r\n1\r\n{{\r\n", "zz\r\n"),
    "no deflate": (f"{HEAD}Content-Encoding: deflate\r\nContent-Length: 5\r\n\r\nabcde",),
    "no gzip": (
        f"{HEAD}Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n",
        "5\r\nabcde\r\n",
    ),
    "gzip that breaks late": (
        f"{HEAD}Content-Encoding: deflate\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"a\r\n" + zlib.compress(b"x" * 5000)[:10] + b"\r\n",
        "5\r\nabcde\r\n0\r\n\r\n",
    ),
}


@pytest.mark.parametrize("parts", MALFORMED.values(), ids=MALFORMED)
async def test_malformed_http_is_answered_400_in_json_and_is_no_failure_of_the_emulator(
    emulator: Emulator, caplog: pytest.LogCaptureFixture, parts: tuple[str | bytes, ...]
) -> None:
    line, body = await answers(emulator, *parts)

    assert line.split()[1] == "400"
    assert isinstance(body, dict)
    assert list(body) == ["message"]
    assert TOKEN not in f"{body} {caplog.text}"
    (line,) = [one for one in caplog.messages if "malformed" in one]
    await emulator.close()  # raises what the emulator counts as its own failure


async def test_a_request_after_a_malformed_one_is_served(emulator: Emulator) -> None:
    await answers(emulator, "nonsense\r\n\r\n")
    reader, writer = await opened(emulator)
    writer.write(f"GET /v1/deployments HTTP/1.1\r\n{AUTHORIZED}\r\n".encode())
    line = await reader.readline()
    writer.close()

    assert line.split()[1] == b"200"


# ── slow clients ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("sent", ["", "G", f"GET /v1/deployments HTTP/1.1\r\n{AUTHORIZED}"])
async def test_half_open_connections_are_closed_after_the_deadline_of_headers(
    emulator: Emulator, sent: str
) -> None:
    connections = [await opened(emulator) for _ in range(250)]
    for _, writer in connections:
        writer.write(sent.encode())
    async with asyncio.timeout(10):
        ends = await asyncio.gather(*(reader.read() for reader, _ in connections))
    for _, writer in connections:
        writer.close()

    assert ends == [b""] * 250


async def test_headers_that_trickle_in_do_not_extend_their_deadline(emulator: Emulator) -> None:
    reader, writer = await opened(emulator)
    started = asyncio.get_running_loop().time()
    read = asyncio.create_task(reader.read())
    while not read.done():
        writer.write(b"G")
        await asyncio.wait({read}, timeout=0.05)
    writer.close()

    assert asyncio.get_running_loop().time() - started < 20


async def test_an_idle_connection_outlives_the_deadline_of_headers(emulator: Emulator) -> None:
    reader, writer = await opened(emulator)
    request = f"GET /v1/nothing HTTP/1.1\r\n{AUTHORIZED}\r\n".encode()
    lines = []
    for pause in (0.6, 0):
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        lines.append(head.split(b" ")[1])
        await reader.readexactly(len(b'{"message":"Not Found"}'))
        await asyncio.sleep(pause)
    writer.write(request[:20])
    async with asyncio.timeout(20):
        rest = await reader.read()  # the deadline holds for later requests too
    writer.close()

    assert (lines, rest) == ([b"404", b"404"], b"")


async def test_a_body_that_does_not_end_is_answered_408(emulator: Emulator) -> None:
    line, body = await answers(emulator, f"{HEAD}Content-Length: 100\r\n\r\n{{")

    assert line.split()[1] == "408"
    assert body == {"message": "The body was not complete in time"}
    await emulator.close()


async def test_without_the_token_a_body_is_not_waited_for(emulator: Emulator) -> None:
    line, _ = await answers(
        emulator,
        "POST /v2/deployments HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        "Connection: close\r\nContent-Length: 100\r\n\r\n{",
    )

    assert line.split()[1] == "401"
