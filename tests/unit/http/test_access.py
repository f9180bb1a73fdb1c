"""Base URLs with slips, and proxies: URLs, credentials, the environment, tunnels, refusals."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import ssl
from collections.abc import AsyncIterator

import aiohttp
import pytest
import trustme
from connect_proxy import connect_proxy
from quick_client import USERS, deploy_error, is_not_sent, quick_client
from raw_server import raw_server, read_request

from edgegap_async import EdgegapClient
from edgegap_async.errors import CallError, InvalidRequest, NotSent
from edgegap_async.http.access import as_proxy, checked_base_url, environment_proxy
from edgegap_async.http.api_client import ApiClient

# ── base URLs ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("written", "advice"),
    [
        ("", "not an empty text"),
        ("  ", "not an empty text"),
        ("api.edgegap.com", "begin with https://"),
        ("localhost:8080", "begin with https://"),
        ("https:/api.edgegap.com", "begin with https://"),
        ("https:\\\\api.edgegap.com", "begin with https://"),
        ("wss://api.edgegap.com", "begin with https://"),
        ('"https://api.edgegap.com"', "have no quotes around it"),
        ("https://api.edgegap.com'", "have no quotes around it"),
        ("“https://api.edgegap.com”", "have no quotes around it"),
        ("<https://api.edgegap.com>", "have no quotes around it"),
        ("https://api.edge\ngap.com", r"line break .* it has U\+000A"),
        ("https://api edgegap.com", r"no space.* it has U\+0020"),
        ("\ufeffhttps://api.edgegap.com", r"invisible character .* it has U\+FEFF"),
        ("https://api.edgegap.com\u200b", r"invisible character .* it has U\+200B"),
        ("https://", "have a valid host"),
        ("https://api..edgegap.com", "have a valid host"),
        ("https://api.edgegap.com:443443", "a valid port"),
        ("https://user:word@api.edgegap.com", "not hold a user or password"),
        ("https://api.edgegap.com?token=x", "be scheme, host and path alone"),
        ("https://api.edgegap.com\\v1", "have a valid host|be scheme, host and path alone"),
        ("https://api.edgegap.com/é", "letters beyond ASCII"),
        ("https://api.edgegap.com/v1", "be https://api.edgegap.com, without /v1: each call"),
        ("https://a.example/x/V2//", "be https://a.example/x, without /V2: each call"),
        ("https://a.example/v1/deployments", "be https://a.example, without /v1/deployments"),
        ("https://a.example/v2/deployments/", "be https://a.example, without /v2/deployments"),
        ("https://a.example/v1/status", "be https://a.example, without /v1/status"),
    ],
)
def test_row_62_each_slip_in_a_base_url_has_advice(written: str, advice: str) -> None:
    with pytest.raises(InvalidRequest, match=f"base_url must .*({advice})"):
        checked_base_url(written, allow_insecure=False)


@pytest.mark.parametrize(
    ("written", "used"),
    [
        (" https://api.edgegap.com/\n", "https://api.edgegap.com"),
        ("HTTPS://API.edgegap.com", "HTTPS://API.edgegap.com"),
        ("https://gateway.example/v1/edgegap", "https://gateway.example/v1/edgegap"),
        ("https://gateway.example/v10", "https://gateway.example/v10"),
        ("https://bücher.example", "https://bücher.example"),
    ],
)
def test_row_62_other_base_urls_are_used(written: str, used: str) -> None:
    assert checked_base_url(written, allow_insecure=False) == used


@pytest.mark.parametrize("blank", ["", " ", "\n"])
async def test_row_62_a_variable_with_white_space_alone_counts_as_not_set(
    blank: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("EDGEGAP_API_TOKEN", "EDGEGAP_BASE_URL", "EDGEGAP_TIMEOUT_MS"):
        monkeypatch.setenv(name, blank)
    monkeypatch.setenv("EDGEGAP_API_URL", " https://a.example\n")

    assert "a.example" in repr(EdgegapClient())


@pytest.mark.parametrize("token", ["Bearer canary-t", '"canary-t"', "canary\ncanary-t", "canary-ü"])
@pytest.mark.parametrize("kind", [ApiClient, EdgegapClient])
@pytest.mark.parametrize("by_variable", [True, False])
def test_row_62_no_frame_of_the_error_shows_the_token(
    kind: type[ApiClient], token: str, monkeypatch: pytest.MonkeyPatch, *, by_variable: bool
) -> None:
    if by_variable:
        monkeypatch.setenv("EDGEGAP_API_TOKEN", token)
    with pytest.raises(InvalidRequest, match="a token must be a text"):  # searched by the plugin
        kind(None if by_variable else token)


# ── the URLs of proxies ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("written", "url", "credentials"),
    [
        ("http://proxy.example:3128", "http://proxy.example:3128", None),
        (" https://proxy.example/\n", "https://proxy.example", None),
        ("proxy.example:3128", "http://proxy.example:3128", None),
        ("http://user:word@proxy.example:3128", "http://proxy.example:3128", "user:word"),
        ("http://user@proxy.example:3128", "http://proxy.example:3128", "user:"),
        ("http://a%40b:p%2F%3A%C3%A9@[::1]:1", "http://[::1]:1", "a@b:p/:é"),
        ("http://a@b:p@proxy.example:1", "http://proxy.example:1", "a@b:p"),
    ],
)
def test_a_proxy_is_read_from_its_url(written: str, url: str, credentials: str | None) -> None:
    proxy = as_proxy(written)
    assert proxy is not None

    assert proxy.url == url
    encoded = credentials and base64.b64encode(credentials.encode()).decode()
    assert proxy.headers() == ({"Proxy-Authorization": f"Basic {encoded}"} if encoded else {})
    assert repr(proxy) == f"Proxy({url!r})"


@pytest.mark.parametrize(
    "written",
    [
        "",
        " ",
        5,
        "socks5://canary-u:canary-p@proxy.example:1080",
        "http://canary-u:canary-p@",
        "http://canary-u:canary-p@proxy.example:http",
        "http://canary-u:canary-p/q@proxy.example:3128",
        "http://canary-u:canary-p#q@proxy.example:3128",
        "http://canary-u:canary-é@proxy.example:3128",
        "http://canary-u%3Ax:canary-p@proxy.example:3128",
        "http://proxy.example:3128/path",
        "http://proxy.example:3128?x",
    ],
)
@pytest.mark.parametrize("kind", [ApiClient, EdgegapClient])
def test_a_proxy_that_cannot_be_used_is_refused_and_not_shown(
    kind: type[ApiClient], written: str
) -> None:
    with pytest.raises(InvalidRequest, match="proxy must"):  # searched by the plugin
        kind("canary-t", proxy=written)


@pytest.mark.parametrize("base_url", ["http://127.0.0.1:1", "http://api.example"])
def test_a_proxy_needs_a_base_url_with_https(base_url: str) -> None:
    with pytest.raises(InvalidRequest, match="over http the proxy would read the token"):
        EdgegapClient("canary-t", base_url=base_url, allow_insecure=True, proxy="http://p.example")


# ── the environment ──────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ("variables", "url"),
    [
        ({}, None),
        ({"HTTP_PROXY": "http://p.example:1"}, None),
        ({"HTTPS_PROXY": ""}, None),
        ({"HTTPS_PROXY": "http://p.example:1"}, "http://p.example:1"),
        ({"https_proxy": "u:canary-p@p.example:1"}, "http://p.example:1"),
        ({"ALL_PROXY": "http://p.example:1"}, "http://p.example:1"),
        ({"HTTPS_PROXY": "http://p.example:1", "ALL_PROXY": "x"}, "http://p.example:1"),
        ({"HTTPS_PROXY": "http://p.example:1", "NO_PROXY": "a.example"}, "http://p.example:1"),
        ({"HTTPS_PROXY": "http://p.example:1", "NO_PROXY": "x, edgegap.com"}, None),
        ({"HTTPS_PROXY": "http://p.example:1", "NO_PROXY": "api.edgegap.com"}, None),
        ({"HTTPS_PROXY": "http://p.example:1", "no_proxy": "*"}, None),
    ],
)
def test_the_proxy_of_the_environment(
    variables: dict[str, str], url: str | None, environment: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        environment.setenv(name, value)
    proxy = environment_proxy("https://api.edgegap.com")

    assert (proxy and proxy.url) == url
    assert environment_proxy("http://api.edgegap.com") is None


def test_an_invalid_proxy_of_the_environment_is_named(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("HTTPS_PROXY", "socks5://canary-u:canary-p@p.example:1")

    with pytest.raises(InvalidRequest, match="variable HTTPS_PROXY or ALL_PROXY must begin with"):
        EdgegapClient("canary-t", trust_env=True)
    EdgegapClient("canary-t")  # off by default
    EdgegapClient("canary-t", trust_env=True, proxy="http://q.example")  # the argument wins


# ── tunnels ──────────────────────────────────────────────────────────────────────────────────────

HOST = "api.tunnel.example"  # known to the proxy alone


async def answer_calls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers deploys, lists and locations, one after the other."""
    while request := await read_request(reader):
        is_deploy = request.startswith(b"POST")
        body = json.dumps({"request_id": "abc123"} if is_deploy else {"data": [], "locations": []})
        status = b"202 Accepted" if is_deploy else b"200 OK"
        head = b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n" % (status, len(body))
        writer.write(head + body.encode())
        await writer.drain()


@pytest.fixture
async def ca(monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """A CA that clients trust, as if SSL_CERT_FILE named it when the program began."""
    authority = trustme.CA()
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    monkeypatch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", trusting)
    return authority


def server_context(ca: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(name).configure_cert(context)
    return context


@contextlib.asynccontextmanager
async def tls_api(ca: trustme.CA) -> AsyncIterator[int]:
    async with raw_server(answer_calls, tls=server_context(ca, HOST)) as port:
        yield port


@pytest.mark.parametrize("kind", ["http", "https"])
async def test_calls_go_through_the_proxys_tunnel_and_it_sees_no_token(
    kind: str, ca: trustme.CA
) -> None:
    tls = server_context(ca, "127.0.0.1") if kind == "https" else None
    async with (
        tls_api(ca) as port,
        connect_proxy(credentials="u:canary-p", to_port=port, tls=tls) as proxy,
        quick_client(f"https://{HOST}", proxy=proxy.url_with("u:canary-p")) as client,
    ):
        for _ in range(2):
            assert (await client.deployments.deploy("a", "v", users=USERS)).request_id == "abc123"
        await client.locations.list()

        assert [one.split(b"\r\n")[0] for one in proxy.requests] == [
            f"CONNECT {HOST}:443 HTTP/1.1".encode()
        ] * 2  # one for each operation; a deploy's connection is used again
        assert b"canary-t" not in b"".join(proxy.requests)
        assert b"authorization: token" not in b"".join(proxy.requests).lower()
        assert b"canary-t" not in proxy.passed_on
        assert b"abc123" not in proxy.passed_on
        assert "canary-p" not in f"{client!r} {vars(client)!r}"


async def test_the_proxy_of_the_environment_is_used_by_choice(
    ca: trustme.CA, environment: pytest.MonkeyPatch
) -> None:
    async with tls_api(ca) as port, connect_proxy(to_port=port) as proxy:
        environment.setenv("HTTPS_PROXY", proxy.url)
        async with quick_client(f"https://{HOST}", trust_env=True) as client:
            await client.locations.list()
        async with quick_client(f"https://127.0.0.1:{port}") as client:
            with pytest.raises(NotSent):  # not through the proxy: the certificate is for HOST
                await client.locations.list()

        assert len(proxy.requests) == 1


async def test_a_session_that_was_passed_in_goes_through_the_proxy_too(ca: trustme.CA) -> None:
    async with (
        tls_api(ca) as port,
        connect_proxy(credentials="u:canary-p", to_port=port) as proxy,
        aiohttp.ClientSession() as session,
        quick_client(
            f"https://{HOST}", session=session, proxy=proxy.url_with("u:canary-p")
        ) as client,
    ):
        await client.locations.list()
        assert len(proxy.requests) == 1


@pytest.mark.parametrize("call", ["deploy", "locations"])
@pytest.mark.parametrize(
    ("status", "attempts", "advice"),
    [
        (b"407 canary-echo", 1, "answered 407 to CONNECT: check user and password in the proxy's"),
        (b"403 Forbidden", 1, "it does not let this program reach the API"),
        (b"404 Not Found", 1, "answered 404 to CONNECT"),
        (b"502 Bad Gateway", 4, "answered 502 to CONNECT"),
        (b"503 Busy", 4, "answered 503 to CONNECT"),
    ],
)
async def test_a_proxy_that_opens_no_tunnel_is_named_and_nothing_was_sent(
    call: str, status: bytes, attempts: int, advice: str
) -> None:
    async with (
        connect_proxy(status=status) as proxy,
        quick_client(f"https://{HOST}", proxy=proxy.url_with("u:canary-p")) as client,
    ):
        if call == "deploy":
            error = await deploy_error(client)
        else:
            with pytest.raises(CallError) as caught:
                await client.locations.list()
            error = caught.value

    assert is_not_sent(error, attempts=attempts)
    assert proxy.url in str(error)
    assert advice in str(error)


async def test_a_proxy_that_does_not_listen_is_retried_and_nothing_was_sent(
    closed_port: int,
) -> None:
    url = f"http://u:canary-p@127.0.0.1:{closed_port}"
    async with quick_client(f"https://{HOST}", proxy=url) as client:
        error = await deploy_error(client)

    assert is_not_sent(error, attempts=4)
    assert f"127.0.0.1:{closed_port}" in str(error)


async def test_a_tunnel_that_breaks_after_the_deploy_is_ambiguous(ca: trustme.CA) -> None:
    async def hang_up(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await read_request(reader)

    async with (
        raw_server(hang_up, tls=server_context(ca, HOST)) as port,
        connect_proxy(to_port=port) as proxy,
        quick_client(f"https://{HOST}", proxy=proxy.url) as client,
    ):
        with pytest.raises(CallError) as caught:
            await client.deployments.deploy("a", "v", users=USERS)

    assert caught.value.maybe_created
