"""What the transport sends, the sessions it uses, and the base URLs it accepts."""

from __future__ import annotations

import asyncio
import gzip
import math

import aiohttp
import aiohttp.abc
import pytest
from scripted_api import Reply, ScriptedApi, deployment
from transports import (
    CANARY,
    GET,
    POST,
    STOP,
    TOKEN,
    transport_to,
)

from edgegap_async.errors import (
    ClientClosed,
    InvalidRequest,
    WrongLoop,
)
from edgegap_async.http import rate_limits as limits
from edgegap_async.http.api_client import ApiClient
from edgegap_async.http.transport import VERSION, SendState, Timeouts, Transport

# ── requests ──────────────────────────────────────────────────────────────────────────────────────


async def test_a_request_is_sent_as_encoded() -> None:
    async with ScriptedApi() as api, transport_to(f"{api.url}/") as transport:
        api.on("POST", "/v2/deployments", Reply(202, {"request_id": "r1"}, {"X-Y": "z"}))
        send_state = SendState()
        answer = await transport.send(POST, TOKEN, send_state)
        [got] = api.requests

    assert (answer.status, answer.body) == (202, b'{"request_id": "r1"}')
    assert answer.headers["X-Y"] == "z"
    assert send_state.times_sent == 1
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


# ── sessions ──────────────────────────────────────────────────────────────────────────────────────


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


async def test_settings_of_a_passed_session_do_not_change_the_answer() -> None:
    async with (
        ScriptedApi() as api,
        aiohttp.ClientSession(raise_for_status=True, auto_decompress=False) as session,
        transport_to(api.url, session=session) as transport,
    ):
        body = gzip.compress(b'{"message": "no such thing"}')
        api.on("GET", "/v1/status/r1", Reply(404, body, {"Content-Encoding": "gzip"}))
        response = await transport.send(GET, TOKEN, SendState())

    assert (response.status, response.body) == (404, b'{"message": "no such thing"}')


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


async def test_a_timeout_may_be_infinite() -> None:
    timeouts = Timeouts(total=math.inf, connect=math.inf)
    async with ScriptedApi() as api, transport_to(api.url, timeouts=timeouts) as transport:
        api.on("GET", "/v1/status/r1", Reply())

        assert (await transport.send(GET, TOKEN, SendState())).status == 200


async def test_connections_are_kept_as_long_as_the_rate_limits_assume() -> None:
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


async def test_a_cancelled_close_still_closes_every_session() -> None:
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


# ── base URLs ─────────────────────────────────────────────────────────────────────────────────────


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
        "https://api.edgegap.com/\nx",
        "https://api.edgegap.com/v1",
        "https://api.edgegap.com/v2/",
        "https://proxy.example/edgegap/V1//",
        "https://api..edgegap.com",
    ],
)
def test_row_62_a_base_url_that_would_reach_no_call_of_the_api_is_refused(base_url: str) -> None:
    with pytest.raises(InvalidRequest, match="base_url must"):
        Transport(base_url, session=None, timeouts=Timeouts(), allow_insecure=True)


@pytest.mark.parametrize("slip", [" {}", "{}\n", "\t{}/ \r\n"])
async def test_row_62_white_space_around_base_url_and_token_is_ignored(
    api: ScriptedApi, slip: str
) -> None:
    api.on("GET", "/v1/status/abc123", deployment("READY"))
    token = slip.format("canary-t").replace("/", "")
    async with ApiClient(token, base_url=slip.format(api.url)) as client:
        await client.deployments.get("abc123")

    assert api.requests[0].headers["Authorization"] == "token canary-t"


def test_row_62_the_error_names_the_base_url_without_the_version() -> None:
    with pytest.raises(InvalidRequest, match=r"must be https://a\.example/x, without /v1"):
        ApiClient("canary-t", base_url=" https://a.example/x/v1/ ")


def test_http_to_another_host_needs_allow_insecure() -> None:
    with pytest.raises(InvalidRequest, match=r"http://example\.com would show the token"):
        Transport("http://example.com", session=None, timeouts=Timeouts(), allow_insecure=False)

    Transport("http://example.com", session=None, timeouts=Timeouts(), allow_insecure=True)


@pytest.mark.parametrize(
    ("variable", "argument", "is_allowed"),
    [
        ("", None, False),
        ("0", None, False),
        ("1", None, True),
        ("1", False, False),
        ("0", True, True),
    ],
)
def test_the_environment_allows_http_to_another_host_unless_the_argument_decides(
    monkeypatch: pytest.MonkeyPatch, *, variable: str, argument: bool | None, is_allowed: bool
) -> None:
    monkeypatch.setenv("EDGEGAP_BASE_URL", "http://emulator:8080")
    monkeypatch.setenv("EDGEGAP_ALLOW_INSECURE", variable)

    if is_allowed:
        ApiClient("canary-t", allow_insecure=argument)
    else:
        with pytest.raises(InvalidRequest, match="set EDGEGAP_ALLOW_INSECURE=1"):
            ApiClient("canary-t", allow_insecure=argument)


def test_a_word_that_is_neither_yes_nor_no_allows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEGAP_ALLOW_INSECURE", "maybe")

    with pytest.raises(InvalidRequest, match="EDGEGAP_ALLOW_INSECURE must be 1 or 0, not 'maybe'"):
        ApiClient("canary-t", base_url="http://emulator:8080")


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "LOCALHOST:80"]
)
def test_loopback_needs_no_https(host: str) -> None:
    Transport(f"http://{host}", session=None, timeouts=Timeouts(), allow_insecure=False)


@pytest.mark.parametrize("seconds", [0, -1])
def test_timeouts_are_above_zero(seconds: float) -> None:
    with pytest.raises(ValueError, match="must be above 0"):
        Timeouts(total=seconds)
    with pytest.raises(ValueError, match="must be above 0"):
        Timeouts(connect=seconds)
