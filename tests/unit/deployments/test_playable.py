"""Checks of playability, over real sockets and against real servers."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import weakref
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web
from scripted_api import ScriptedApi, deployment

from edgegap_async import (
    DeploymentHandle,
    EdgegapClient,
    EdgegapError,
    HttpGet,
    Status,
    TcpConnect,
    UdpAnswer,
)
from edgegap_async.emulator import Emulator
from edgegap_async.errors import (
    ClientClosed,
    DeploymentFailed,
    DeploymentTerminated,
    InvalidRequest,
    NotPlayable,
    WaitTimedOut,
)
from edgegap_async.requests import Check, PlayableCheck

QUICK: dict[str, Any] = {"timeout": 0.3, "attempt_timeout": 0.05, "interval": 0.02}


@contextlib.asynccontextmanager
async def a_server(
    api: ScriptedApi, number: int, protocol: str, link: str | None = None
) -> AsyncIterator[DeploymentHandle]:
    """A deployment on this machine with this port number."""
    port = {"external": number, "protocol": protocol, "link": link}
    reply = deployment("READY", public_ip="127.0.0.1", fqdn="localhost", ports={"game": port})
    api.on("GET", "/v1/status/abc123", reply)
    async with EdgegapClient("canary-secret", base_url=api.url) as client:
        yield client.handle("abc123")


def a_free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


class Echo(asyncio.DatagramProtocol):
    """Answers datagrams, except the first ones."""

    def __init__(self, answer: bytes = b"pong", *, skip: int = 0) -> None:
        self.answer = answer
        self.skip = skip
        self.came: list[bytes] = []

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.came.append(data)
        if len(self.came) > self.skip:
            self.transport.sendto(self.answer, addr)


@contextlib.asynccontextmanager
async def listening(protocol: Echo) -> AsyncIterator[int]:
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: protocol, local_addr=("127.0.0.1", 0)
    )
    try:
        yield transport.get_extra_info("sockname")[1]
    finally:
        transport.close()


# ── datagrams ────────────────────────────────────────────────────────────────────────────────────


async def test_a_real_game_server_is_playable_when_it_answers(
    emulator: Emulator, client: EdgegapClient
) -> None:
    ping = UdpAnswer("game", datagram=b"ping", expects=b"pong")
    async with client.run("arena", "v1", users=["8.8.8.8"], timeout=20, playable=ping) as server:
        assert server.status is Status.READY


async def test_a_real_game_server_with_another_answer_is_not_playable_and_is_stopped(
    emulator: Emulator, client: EdgegapClient
) -> None:
    check = UdpAnswer("game", datagram=b"ping", expects=b"come in", timeout=3, interval=0.2)
    with pytest.raises(NotPlayable) as caught:
        async with client.run("arena", "v1", users=["8.8.8.8"], timeout=20, playable=check):
            pytest.fail("it is not playable")

    [made] = emulator.cloud.deployments.values()
    game = made.ports["game"].link
    assert f"a datagram to {game} failed" in str(caught.value)
    assert "the answer is b'pong" in str(caught.value)
    assert caught.value.attempts >= 1
    assert caught.value.request_id == made.request_id
    assert caught.value.last_status is Status.READY
    assert made.status in {Status.TERMINATING, Status.TERMINATED}


@pytest.mark.virtual
@pytest.mark.parametrize("expects", [None, b"po", b"pong", lambda answer: answer[-1:] == b"g"])
async def test_the_expected_answer_is_playable(api: ScriptedApi, expects: Any) -> None:
    game = Echo(skip=2)
    async with listening(game) as number, a_server(api, number, "UDP") as server:
        check = UdpAnswer(datagram=b"ping", expects=expects, attempt_timeout=0.05, interval=0.01)
        await server.wait_ready(20, playable=check)

    assert game.came == [b"ping"] * 3  # the first two were lost


@pytest.mark.virtual
@pytest.mark.parametrize("expects", [b"no", lambda _: False])
async def test_another_answer_is_not_playable(api: ScriptedApi, expects: Any) -> None:
    async with listening(Echo()) as number, a_server(api, number, "UDP") as server:
        check = UdpAnswer(datagram=b"ping", expects=expects, **QUICK)
        with pytest.raises(NotPlayable, match="the answer is b'pong'"):
            await server.wait_ready(20, playable=check)


@pytest.mark.virtual
async def test_a_missing_answer_is_named(api: ScriptedApi) -> None:
    async with listening(Echo(skip=10_000)) as number, a_server(api, number, "UDP") as server:
        with pytest.raises(NotPlayable, match=r"in 0\.3 s; the last failure: no answer"):
            await server.wait_ready(20, playable=UdpAnswer(datagram=b"ping", **QUICK))


@pytest.mark.virtual
async def test_a_closed_port_is_named(api: ScriptedApi) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        number = free.getsockname()[1]
    async with a_server(api, number, "UDP") as server:
        with pytest.raises(NotPlayable, match="the last failure: ConnectionRefusedError") as caught:
            await server.wait_ready(20, playable=UdpAnswer(datagram=b"secret", **QUICK))

    assert isinstance(caught.value.__cause__, ConnectionRefusedError)
    assert "secret" not in repr(UdpAnswer(datagram=b"secret"))


# ── connections ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.virtual
async def test_a_server_that_accepts_connections_late_is_playable(
    api: ScriptedApi,
) -> None:
    number, came = a_free_port(), asyncio.Event()

    def take(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.set()
        writer.close()

    async def late() -> asyncio.Server:
        await asyncio.sleep(0.1)
        return await asyncio.start_server(take, "127.0.0.1", number)

    async with a_server(api, number, "TCP") as server:
        starting = asyncio.create_task(late())
        await server.wait_ready(20, playable=TcpConnect("game", interval=0.02))
        await asyncio.wait_for(came.wait(), 20)
        (await starting).close()


@pytest.mark.virtual
async def test_a_server_that_accepts_no_connection_is_not_playable(api: ScriptedApi) -> None:
    number = a_free_port()
    async with a_server(api, number, "TCP") as server:
        with pytest.raises(NotPlayable, match=f"a TCP connection to 127.0.0.1:{number} failed"):
            await server.wait_ready(20, playable=TcpConnect(**QUICK))


@contextlib.asynccontextmanager
async def a_website(*statuses: int) -> AsyncIterator[tuple[int, list[str]]]:
    """Its port, and the paths that it was asked for; the last status repeats."""
    asked: list[str] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        asked.append(request.path_qs)
        assert "Authorization" not in request.headers
        status = statuses[min(len(asked), len(statuses)) - 1]
        return web.Response(status=status, headers={"Location": "/elsewhere"})

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield runner.addresses[0][1], asked
    finally:
        await runner.cleanup()


@pytest.mark.virtual
async def test_a_server_that_answers_a_get_is_playable(api: ScriptedApi) -> None:
    async with a_website(503, 503, 200) as (number, asked), a_server(api, number, "HTTP") as server:
        check = HttpGet("game", path="/healthy?deep=1", interval=0.02)
        await server.wait_ready(20, playable=check)

    assert asked == ["/healthy?deep=1"] * 3


@pytest.mark.virtual
async def test_a_link_that_is_a_url_is_requested(api: ScriptedApi) -> None:
    async with a_website(204) as (number, asked):
        link = f"http://127.0.0.1:{number}/"
        async with a_server(api, 1, "HTTP", link) as server:
            await server.wait_ready(20, playable=HttpGet(status=204))

    assert asked == ["/"]


@pytest.mark.virtual
@pytest.mark.parametrize("status", [302, 500])
async def test_another_http_status_is_named_and_no_redirect_is_followed(
    api: ScriptedApi, status: int
) -> None:
    async with a_website(status) as (number, asked), a_server(api, number, "HTTP") as server:
        with pytest.raises(NotPlayable, match=f"answered {status}, not 200") as caught:
            await server.wait_ready(20, playable=HttpGet(path="x", **QUICK))

    assert set(asked) == {"/x"}
    assert f"GET http://127.0.0.1:{number}/x failed" in str(caught.value)


# ── checks of the caller ─────────────────────────────────────────────────────────────────────────


@pytest.mark.virtual
async def test_a_coroutine_function_is_called_until_it_does_not_raise(
    api: ScriptedApi,
) -> None:
    asked = []

    async def loaded(server: DeploymentHandle) -> None:
        asked.append(server.endpoint("game").port)
        if len(asked) < 4:
            raise ValueError("not yet")

    async with a_server(api, 7777, "UDP") as server:
        await server.wait_ready(20, playable=loaded)

    assert asked == [7777] * 4


@pytest.mark.virtual
async def test_the_error_names_the_coroutine_function(api: ScriptedApi) -> None:
    async def map_is_loaded(_: DeploymentHandle) -> None:
        raise ValueError("no map")

    async with a_server(api, 7777, "UDP") as server:
        with pytest.raises(
            NotPlayable, match="map_is_loaded failed 120 times in 30 s; the last failure: V"
        ):
            await server.wait_ready(300, playable=map_is_loaded)


@pytest.mark.virtual
async def test_a_cancelled_task_inside_a_check_is_a_failed_attempt(api: ScriptedApi) -> None:
    async def on_a_connection_that_is_gone(_: DeploymentHandle) -> None:
        connecting = asyncio.create_task(asyncio.sleep(100))
        connecting.cancel()
        await connecting

    async with a_server(api, 7777, "UDP") as server:
        with pytest.raises(
            NotPlayable, match="the last failure: a task that it waited for was cancelled"
        ):
            await server.wait_ready(300, playable=on_a_connection_that_is_gone)

        waiting = asyncio.create_task(server.wait_ready(300, playable=on_a_connection_that_is_gone))
        await asyncio.sleep(1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting


@pytest.mark.virtual
async def test_a_subclass_chooses_its_times(api: ScriptedApi) -> None:
    class Slow(PlayableCheck):
        async def attempt(self, server: DeploymentHandle) -> None:
            await asyncio.sleep(1000)

    async with a_server(api, 7777, "UDP") as server:
        with pytest.raises(
            NotPlayable, match="a check failed 2 times in 10 s; the last failure: no answer"
        ):
            await server.wait_ready(300, playable=Slow(timeout=10, attempt_timeout=4, interval=2))


@pytest.mark.virtual
async def test_the_last_failure_is_that_of_the_last_attempt_that_was_not_cut_short(
    api: ScriptedApi,
) -> None:
    class Failing(PlayableCheck):
        attempts = 0

        async def attempt(self, server: DeploymentHandle) -> None:
            Failing.attempts += 1
            if Failing.attempts > 1:
                await asyncio.sleep(1000)
            raise ValueError("no map")

    async with a_server(api, 7777, "UDP") as server:
        with pytest.raises(NotPlayable, match="2 times in 3 s; the last failure: ValueError: no"):
            await server.wait_ready(300, playable=Failing(timeout=3, attempt_timeout=5, interval=1))


@pytest.mark.virtual
async def test_a_coroutine_function_that_returns_false_is_called_again(api: ScriptedApi) -> None:
    answers = [False, None]

    async def loaded(_: DeploymentHandle) -> bool | None:
        return answers.pop(0) if answers else False

    async with a_server(api, 7777, "UDP") as server:
        await server.wait_ready(300, playable=loaded)
        assert not answers
        with pytest.raises(NotPlayable, match="the last failure: it returned False"):
            await server.wait_ready(300, playable=loaded)


@pytest.mark.virtual
@pytest.mark.parametrize("playable", [TcpConnect, 5])
async def test_run_refuses_what_is_no_check_before_it_sends_a_deploy(
    api: ScriptedApi, playable: Any
) -> None:
    async with EdgegapClient("canary-secret", base_url=api.url) as client:
        with pytest.raises(InvalidRequest, match="playable"):
            async with client.run("arena", "v1", users=["8.8.8.8"], playable=playable):
                pytest.fail("there is no server")

    assert api.requests == []


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: TcpConnect(7777), "TcpConnect.port"),  # type: ignore[arg-type]
        (lambda: HttpGet(path=None), "HttpGet.path"),  # type: ignore[arg-type]
        (lambda: HttpGet(status="200"), "HttpGet.status"),  # type: ignore[arg-type]
    ],
)
def test_a_check_refuses_an_argument_that_no_server_could_pass(
    make: Callable[[], PlayableCheck], named: str
) -> None:
    with pytest.raises(InvalidRequest, match=named):
        make()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"datagram": "ping"}, "datagram must be bytes"),
        ({"datagram": b"ping", "expects": "pong"}, "expects must be bytes"),
    ],
)
def test_a_datagram_that_is_a_text_is_refused(more: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        UdpAnswer("game", **more)


def test_a_subclass_without_attempt_is_refused() -> None:
    class Forgotten(PlayableCheck):
        attempt_timeout = 1.0

    with pytest.raises(TypeError, match="attempt"):
        Forgotten()  # type: ignore[abstract]


@pytest.mark.virtual
async def test_the_timeout_of_the_wait_ends_the_check(api: ScriptedApi) -> None:
    async def never(_: DeploymentHandle) -> None:
        raise ValueError("never")

    loop = asyncio.get_running_loop()
    async with a_server(api, 7777, "UDP") as server:
        began = loop.time()
        with pytest.raises(NotPlayable, match="never"):
            await server.wait_ready(5, playable=never)
        assert loop.time() - began == pytest.approx(5, abs=0.01)

    api.on("GET", "/v1/status/abc123", deployment("DEPLOYING"))
    async with EdgegapClient("canary-secret", base_url=api.url) as client:
        with pytest.raises(WaitTimedOut):
            await client.handle("abc123").wait_ready(5, playable=never)


@pytest.mark.virtual
@pytest.mark.parametrize(
    ("end", "error"), [("ERROR", DeploymentFailed), ("TERMINATED", DeploymentTerminated)]
)
@pytest.mark.parametrize("kind", ["own", "built in"])
async def test_the_end_of_the_server_ends_the_check(
    api: ScriptedApi, end: str, error: type[EdgegapError], kind: str
) -> None:
    async def fails(_: DeploymentHandle) -> None:
        raise ValueError("never")

    never: Check = fails if kind == "own" else TcpConnect("game")
    loop = asyncio.get_running_loop()
    async with a_server(api, 7777, "UDP") as server:
        waiting = asyncio.create_task(server.wait_ready(300, playable=never))
        await asyncio.sleep(10)
        assert not waiting.done()
        api.on("GET", "/v1/status/abc123", deployment(end))
        ended = loop.time()
        with pytest.raises(error):
            await waiting

        assert loop.time() - ended < 2


@pytest.mark.virtual
@pytest.mark.parametrize("kept", [asyncio.CancelledError, BaseException])
async def test_a_check_that_suppresses_its_timeout_has_not_succeeded(
    api: ScriptedApi, kept: type[BaseException]
) -> None:
    async def hangs(_: DeploymentHandle) -> None:
        with contextlib.suppress(kept):
            await asyncio.sleep(1000)

    async with a_server(api, 7777, "UDP") as server:
        with pytest.raises(
            NotPlayable, match="hangs failed 14 times in 30 s; the last failure: no answer"
        ):
            await server.wait_ready(300, playable=hangs)


@pytest.mark.virtual
async def test_a_check_that_suppresses_a_cancellation_has_not_succeeded(
    api: ScriptedApi,
) -> None:
    async def hangs(_: DeploymentHandle) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(1000)

    async with a_server(api, 7777, "UDP") as server:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await server.wait_ready(300, playable=hangs)


@pytest.mark.virtual
async def test_row_72_a_cancellation_counts_also_if_the_clean_up_of_a_check_fails(
    api: ScriptedApi,
) -> None:
    async def check(_: DeploymentHandle) -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            raise ConnectionResetError("the game server has closed the connection")

    loop = asyncio.get_running_loop()
    async with a_server(api, 7777, "UDP") as server:
        waiting = asyncio.create_task(server.wait_ready(300, playable=check))
        await asyncio.sleep(1)
        cancelled_at = loop.time()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

        assert loop.time() - cancelled_at < 1


@pytest.mark.virtual
async def test_a_function_that_is_not_a_coroutine_function_is_refused_at_once(
    api: ScriptedApi,
) -> None:
    async def awaited(_: DeploymentHandle) -> bool:
        return True

    loop = asyncio.get_running_loop()
    async with a_server(api, 7777, "UDP") as server:
        await server.wait_ready(300)
        began = loop.time()
        with pytest.raises(InvalidRequest, match="playable must be a coroutine function"):
            await server.wait_ready(300, playable=lambda _: True)  # type: ignore[arg-type]
        await server.wait_ready(300, playable=lambda one: awaited(one))  # noqa: PLW0108 - that is tested

        assert loop.time() - began < 0.1


@pytest.mark.virtual
@pytest.mark.parametrize("way", ["raises", "hangs"])
async def test_the_error_keeps_no_reference_to_the_handle(api: ScriptedApi, way: str) -> None:
    async def check(_: DeploymentHandle) -> None:
        if way == "raises":
            raise ValueError("no map")
        await asyncio.sleep(1000)

    async def wait(client: EdgegapClient) -> weakref.ref[DeploymentHandle]:
        server = client.handle("abc123")
        try:
            await server.wait_ready(20, playable=check)
        except NotPlayable:
            return weakref.ref(server)
        pytest.fail("it is not playable")

    api.on("GET", "/v1/status/abc123", deployment("READY"))
    gc.collect()
    gc.disable()
    try:
        async with EdgegapClient("canary-secret", base_url=api.url) as client:
            server = await wait(client)
            assert server() is None
    finally:
        gc.enable()


@pytest.mark.virtual
async def test_closing_the_client_ends_a_check(api: ScriptedApi) -> None:
    async def never(_: DeploymentHandle) -> None:
        await asyncio.sleep(1000)

    async with a_server(api, 7777, "UDP") as server:
        waiting = asyncio.create_task(server.wait_ready(300, playable=never))
        await asyncio.sleep(10)
        assert not waiting.done()
    with pytest.raises(ClientClosed):
        await waiting


@pytest.mark.virtual
async def test_an_unknown_port_is_refused_at_once(api: ScriptedApi) -> None:
    async with a_server(api, 7777, "UDP") as server:
        with pytest.raises(InvalidRequest, match="no port 'voice'"):
            await server.wait_ready(20, playable=TcpConnect("voice"))


@pytest.mark.parametrize("seconds", [0, -1, "soon", None])
@pytest.mark.parametrize("name", ["timeout", "attempt_timeout", "interval"])
def test_invalid_times_are_refused(name: str, seconds: Any) -> None:
    with pytest.raises(InvalidRequest, match=name):
        TcpConnect(**{name: seconds})


@pytest.mark.virtual
@pytest.mark.parametrize("check", ["yes", TcpConnect])
async def test_an_object_that_is_no_check_is_refused_before_the_wait(
    api: ScriptedApi, check: Any
) -> None:
    async with EdgegapClient("canary-secret", base_url=api.url) as client:
        with pytest.raises(InvalidRequest, match="playable must be a check"):
            await client.handle("abc123").wait_ready(20, playable=check)
    assert api.requests == []
