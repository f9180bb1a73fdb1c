"""Errors of the transport hold no token and nothing of aiohttp."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import traceback
from typing import Any

import aiohttp
import aiohttp.abc
import pytest
from raw_server import raw_server, read_request
from scripted_api import Reply, ScriptedApi
from transports import (
    CANARY,
    GET,
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

from edgegap_async.api.messages import HttpRequest
from edgegap_async.errors import (
    CallError,
    NoAnswer,
    NotSent,
)
from edgegap_async.http.transport import SendState


def shown(error: BaseException) -> str:
    """Everything that a log, a debugger or a crash report could show of an error."""
    texts = [repr(error), str(error), repr(vars(error))]
    with contextlib.suppress(TypeError):  # a few of Python's own errors hold frames
        texts.append(repr(pickle.dumps(error)))
    texts += traceback.format_exception(error)
    todo: list[BaseException] = [error]
    while todo:
        one = todo.pop()
        texts += traceback.TracebackException.from_exception(one, capture_locals=True).format()
        todo += [other for other in (one.__cause__, one.__context__) if other is not None]
    return "\n".join(texts)


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
    "repeats the token": answering(f"Authorization: {CANARY}\r\n\r\n".encode()),
    "repeats the token in a header": answering(f"HTTP/1.1 200 OK\r\n{CANARY}\r\n\r\n".encode()),
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


@pytest.mark.virtual
@pytest.mark.parametrize(
    "said", [b"\x00\x1b[2J" * 2000, b'{"password": "hunter2"}', b"HTTP/1.1 200 OK\r\nX\x00\r\n"]
)
async def test_an_error_quotes_what_is_no_http_as_one_short_line_without_secrets(
    said: bytes,
) -> None:
    async with raw_server(answering(said + b"\r\n\r\n")) as port, transport_to(port) as transport:
        message = (await failure(transport, GET)).message

    assert message.isprintable()
    assert len(message) < 1100
    assert "hunter2" not in message


async def test_a_redirect_to_a_host_with_the_token_does_not_show_it() -> None:
    head = f"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: http://{CANARY}.example/\r\n\r\n"
    async with raw_server(answering(head.encode())) as port, transport_to(port) as transport:
        assert "to ***.example," in (await failure(transport, POST)).message


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


async def test_the_repr_of_a_transport_shows_its_base_url_only() -> None:
    async with transport_to("https://api.edgegap.com") as transport:
        assert repr(transport) == "Transport('https://api.edgegap.com')"


@pytest.mark.parametrize(("signal", "kind"), [("start", NotSent), ("end", NoAnswer)])
async def test_an_exception_in_a_trace_hook_of_a_session_is_an_error_of_its_call(
    api: ScriptedApi, signal: str, kind: type[CallError]
) -> None:
    async def fail(*_: object) -> None:
        raise KeyError("no span")

    hooks = aiohttp.TraceConfig()
    getattr(hooks, f"on_request_{signal}").append(fail)
    api.on("POST", "/v2/deployments", Reply(202, {"request_id": "r1"}))
    async with (
        aiohttp.ClientSession(trace_configs=[hooks]) as session,
        transport_to(api.url, session=session) as transport,
    ):
        error = await failure(transport, POST)

    assert type(error) is kind
    assert "session that was passed in has failed: 'no span' (KeyError)" in str(error)
    assert CANARY not in shown(error)
    assert len(api.requests) == (kind is NoAnswer)


@pytest.mark.filterwarnings("ignore:.* is deprecated")
async def test_a_session_whose_settings_contradict_a_request_sends_nothing_and_shows_no_token() -> (
    None
):
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
