"""What comes to a secret URL wakes whoever waits for that deployment, and does nothing else."""

from __future__ import annotations

import asyncio
import functools
import gc
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from aiohttp import web
from raw_server import raw_server
from scripted_api import Reply, ScriptedApi, deployment

from edgegap_async import EdgegapClient, PollingPolicy
from edgegap_async.errors import InvalidRequest
from edgegap_async.webhooks.receiver import WebhookEvent, WebhookReceiver

PUBLIC = "https://mm.example"
DEPLOY = ("POST", "/v2/deployments")
STATUS = ("GET", "/v1/status/abc123")


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def status_of(session: aiohttp.ClientSession, url: str, body: bytes = b"{}") -> int:
    async with session.post(url, data=body) as answer:
        return answer.status


# ── URLs ─────────────────────────────────────────────────────────────────────────────────────────


def test_each_deployment_has_urls_of_its_own() -> None:
    receiver = WebhookReceiver(f"{PUBLIC}/", path="/hooks/")
    one, other = receiver.open(print), receiver.open(print)

    assert one.on_ready.startswith(f"{PUBLIC}/hooks/")
    urls = {one.on_ready, one.on_error, one.on_terminated}
    assert {url.rpartition("/")[2] for url in urls} == {"ready", "error", "terminated"}
    assert not urls & {other.on_ready, other.on_error, other.on_terminated}
    assert len(one.on_ready.split("/")[-2]) >= 32


@pytest.mark.parametrize(
    "public_url",
    [
        "",
        "mm.example",
        "ftp://mm.example",
        "https://",
        "https://mm.example?x",
        "https://mm.example#x",
        "https://mm.example:99999",
        "https://mm.example:0",
        "https://[::1",
    ],
)
def test_a_public_url_is_one_that_the_api_could_reach(public_url: str) -> None:
    with pytest.raises(InvalidRequest, match="can reach"):
        WebhookReceiver(public_url)


@pytest.mark.parametrize(("reading", "waiting"), [(0, 1), (1, 0), (-1, 1)])
def test_the_limits_are_numbers_from_one_on(reading: int, waiting: int) -> None:
    with pytest.raises(InvalidRequest, match="from 1 on"):
        WebhookReceiver(PUBLIC, max_reading=reading, max_waiting=waiting)


@pytest.mark.parametrize("path", ["", "/", "//", "hooks"])
def test_the_path_names_something(path: str) -> None:
    with pytest.raises(InvalidRequest, match="path begins with /"):
        WebhookReceiver(PUBLIC, path=path)


class Teller:
    async def __call__(self, *_: object) -> None:
        pass

    async def tell(self, *_: object) -> None:
        pass

    def write_down(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    "on_event",
    [
        Teller(),
        Teller().tell,
        functools.partial(Teller().tell, "more"),
        functools.partial(functools.partial(Teller(), "more"), "still"),
    ],
)
def test_on_event_is_any_coroutine_function(on_event: Any) -> None:
    WebhookReceiver(PUBLIC, on_event=on_event)


@pytest.mark.parametrize(
    "on_event",
    [print, Teller, Teller().write_down, functools.partial(Teller().write_down, "more"), "tell"],
)
def test_on_event_is_no_other_function(on_event: Any) -> None:
    with pytest.raises(InvalidRequest, match="async def on_event"):
        WebhookReceiver(PUBLIC, on_event=on_event)


def test_without_an_address_there_are_no_urls() -> None:
    with pytest.raises(InvalidRequest, match="give it a public_url, or serve"):
        WebhookReceiver().open(print)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_server_of_its_own_tells_its_own_address(
    session: aiohttp.ClientSession, host: str
) -> None:
    receiver = WebhookReceiver()
    told = asyncio.Event()
    async with receiver.serve(host) as served:
        hook = receiver.open(told.set)

        assert served is receiver
        assert urlsplit(hook.on_ready).hostname == host
        assert await status_of(session, hook.on_ready) == 204
        assert told.is_set()
    with pytest.raises(InvalidRequest):
        receiver.open(print)


async def test_a_public_url_wins_over_the_servers_own() -> None:
    async with WebhookReceiver(PUBLIC).serve() as receiver:
        assert receiver.open(print).on_ready.startswith(PUBLIC)


async def test_a_port_that_is_taken_is_said_at_once() -> None:
    async def talk(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with raw_server(talk) as port:
        with pytest.raises(OSError, match="address already in use"):
            await WebhookReceiver().serve(port=port).__aenter__()


# ── what comes ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("event", ["on_ready", "on_error", "on_terminated"])
async def test_a_webhook_wakes_its_own_deployment(
    session: aiohttp.ClientSession, event: str
) -> None:
    one, other = asyncio.Event(), asyncio.Event()
    async with WebhookReceiver().serve() as receiver:
        hook, unused = receiver.open(one.set), receiver.open(other.set)

        assert await status_of(session, getattr(hook, event)) == 204
        assert (one.is_set(), other.is_set()) == (True, False)
        assert receiver.stats.received == 1
        assert unused.on_ready


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (lambda url: url.replace("/ready", "/steady"), 404),
        (lambda url: url.replace("/ready", ""), 404),
        (lambda url: url[:-8] + "x/ready", 404),
        (lambda url: url + "/", 404),
    ],
)
async def test_a_url_that_is_not_known_is_not_found(
    session: aiohttp.ClientSession, change: Callable[[str], str], status: int
) -> None:
    told = asyncio.Event()
    async with WebhookReceiver().serve() as receiver:
        hook = receiver.open(told.set)

        assert await status_of(session, change(hook.on_ready)) == status
        assert not told.is_set()


async def test_only_a_post_is_taken(session: aiohttp.ClientSession) -> None:
    async with WebhookReceiver().serve() as receiver:
        hook = receiver.open(print)
        async with session.get(hook.on_ready) as answer:
            assert answer.status == 405


@pytest.mark.parametrize(
    "body", [b"", b"not JSON", b"[]", b"5", b"\xff\xfe", b'{"a": ' * 9_000, b"[" * 60_000]
)
async def test_what_is_not_a_json_object_is_turned_away(
    session: aiohttp.ClientSession, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    told = asyncio.Event()
    async with WebhookReceiver().serve() as receiver:
        hook = receiver.open(told.set)

        assert await status_of(session, hook.on_ready, body) == 400
        assert not told.is_set()
        assert receiver.stats.received == 0
    assert "rejected" in caplog.text
    assert hook.on_ready.split("/")[-2] not in caplog.text


def own_application(receiver: WebhookReceiver) -> web.Application:
    application = web.Application(client_max_size=2**30)
    receiver.attach(application)
    return application


async def running(application: web.Application) -> tuple[web.AppRunner, int]:
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner, runner.addresses[0][1]


async def test_an_application_of_ones_own_can_take_the_webhooks_in(
    session: aiohttp.ClientSession,
) -> None:
    receiver = WebhookReceiver(PUBLIC)
    told = asyncio.Event()
    hook = receiver.open(told.set)
    runner, port = await running(own_application(receiver))
    local = hook.on_ready.replace(PUBLIC, f"http://127.0.0.1:{port}")

    assert await status_of(session, local) == 204
    assert told.is_set()
    await runner.cleanup()


async def test_the_application_can_be_mounted_by_hand(session: aiohttp.ClientSession) -> None:
    receiver = WebhookReceiver(PUBLIC, path="/here")
    hook = receiver.open(print)
    application = web.Application()
    application.add_subapp("/here", receiver.application())
    runner, port = await running(application)
    local = hook.on_ready.replace(PUBLIC, f"http://127.0.0.1:{port}")

    assert await status_of(session, local, b"no") == 400
    await runner.cleanup()


async def test_the_urls_of_a_deployment_that_nobody_holds_are_not_found(
    session: aiohttp.ClientSession,
) -> None:
    async with WebhookReceiver().serve() as receiver:
        hook = receiver.open(print)
        url = hook.on_ready
        del hook
        gc.collect()

        assert await status_of(session, url) == 404


async def test_a_caller_who_goes_away_in_the_middle_does_no_harm(
    session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    told = asyncio.Event()
    async with WebhookReceiver().serve() as receiver:
        hook = receiver.open(told.set)
        url = urlsplit(hook.on_ready)
        _, writer = await asyncio.open_connection(url.hostname, url.port)
        head = f"POST {url.path} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{{"
        writer.write(head.encode())
        await writer.drain()
        writer.close()
        await writer.wait_closed()

        assert await status_of(session, hook.on_ready) == 204
    assert "Traceback" not in caplog.text


STATUS_OF_ABC123 = json.dumps({"request_id": "abc123", "current_status": "Status.READY"}).encode()


async def test_an_on_event_that_awaits_what_was_cancelled_has_failed_and_the_next_are_handled(
    session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    came = asyncio.Event()
    gone = asyncio.get_running_loop().create_future()
    gone.cancel()
    told: list[str] = []

    async def on_event(event: WebhookEvent) -> None:
        told.append(event.kind)
        await came.wait()
        if event.kind == "ready":
            await gone

    async with WebhookReceiver(on_event=on_event).serve() as receiver:
        hook = receiver.open(lambda: None)
        for url in (hook.on_ready, hook.on_error, hook.on_terminated):
            assert await status_of(session, url, STATUS_OF_ABC123) == 204
        assert told == ["ready"]
        came.set()

    assert told == ["ready", "error", "terminated"]
    stats = receiver.stats
    assert (stats.handled, stats.failed, stats.dropped) == (2, 1, 0)
    assert "on_event failed for webhook 'ready' of deployment abc123" in caplog.text


@pytest.mark.virtual
async def test_an_on_event_that_hangs_is_cancelled_at_the_end_and_has_not_failed(
    session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    how = list[str]()

    async def on_event(_: WebhookEvent) -> None:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            how.append("cancelled")
            raise

    async with WebhookReceiver(on_event=on_event).serve() as receiver:
        hook = receiver.open(lambda: None)
        assert await status_of(session, hook.on_ready, STATUS_OF_ABC123) == 204
        assert await status_of(session, hook.on_error, STATUS_OF_ABC123) == 204
        began = now()

    assert 5 <= now() - began < 7
    assert how == ["cancelled"]
    assert (receiver.stats.failed, receiver.stats.dropped) == (0, 2)
    assert "on_event failed" not in caplog.text


async def test_an_on_event_that_fails_as_it_is_cancelled_has_failed(
    session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    async def on_event(_: WebhookEvent) -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            raise ValueError("at the end")

    async with WebhookReceiver(on_event=on_event).serve() as receiver:
        hook = receiver.open(lambda: None)
        assert await status_of(session, hook.on_ready, STATUS_OF_ABC123) == 204

    assert "on_event failed for webhook 'ready' of deployment abc123" in caplog.text


@pytest.mark.shows_secrets("a mistake of ours is logged with its frames, and one holds the URL")
async def test_a_mistake_of_ours_is_answered_500_and_logged_in_full(
    session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    def wake() -> None:
        raise LookupError("who waits has made a mistake")

    async with WebhookReceiver().serve() as receiver:
        hook = receiver.open(wake)
        assert await status_of(session, hook.on_ready) == 500
    assert "LookupError: who waits has made a mistake" in caplog.text
    assert hook.on_ready.split("/")[-2] not in caplog.text


async def test_no_secret_is_logged(
    session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with WebhookReceiver().serve() as receiver:
        hook = receiver.open(print)
        await status_of(session, hook.on_ready)
        await status_of(session, hook.on_ready, b"no")

    assert hook.on_ready.split("/")[-2] not in caplog.text


# ── ASGI, where servers differ ───────────────────────────────────────────────────────────────────


async def asgi_says(
    receiver: WebhookReceiver, scope: dict[str, Any], messages: Iterable[dict[str, Any]] = ()
) -> list[MutableMapping[str, Any]]:
    """What the ASGI application sends when it is sent these."""
    sent: list[MutableMapping[str, Any]] = []
    coming = iter(messages)

    async def receive() -> MutableMapping[str, Any]:
        return next(coming)

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    await receiver.asgi()(
        {"headers": [], "method": "POST", "http_version": "1.1", **scope}, receive, send
    )
    return sent


def piece(body: bytes = b"", *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


async def test_a_body_may_come_in_pieces_of_which_some_are_empty() -> None:
    told = asyncio.Event()
    receiver = WebhookReceiver(PUBLIC)
    hook = receiver.open(told.set)
    scope = {"type": "http", "path": urlsplit(hook.on_ready).path}
    pieces = [piece(b"{", more=True), piece(more=True), {"type": "http.request", "more_body": True}]
    start, end = await asgi_says(receiver, scope, [*pieces, piece(b"}")])

    assert (start["status"], start["headers"]) == (204, [])
    assert end == {"type": "http.response.body", "body": b""}
    assert told.is_set()


async def test_nothing_is_answered_to_who_is_gone() -> None:
    receiver = WebhookReceiver(PUBLIC)
    hook = receiver.open(lambda: pytest.fail("woken"))
    scope = {"type": "http", "path": urlsplit(hook.on_ready).path}

    messages = [piece(b"{", more=True), {"type": "http.disconnect"}]

    assert not await asgi_says(receiver, scope, messages)


@pytest.mark.parametrize(("version", "said"), [("1.1", True), ("1.0", True), ("2", False)])
async def test_a_connection_is_ended_where_there_is_only_one_request_on_it(
    version: str, *, said: bool
) -> None:
    scope = {"type": "http", "path": "/who/knows/ready", "http_version": version}
    start, _ = await asgi_says(WebhookReceiver(PUBLIC), scope)

    assert start["status"] == 404
    assert ((b"connection", b"close") in start["headers"]) is said


async def test_a_websocket_is_refused() -> None:
    said = await asgi_says(WebhookReceiver(PUBLIC), {"type": "websocket", "path": "/"})

    assert said == [{"type": "websocket.close"}]


async def test_run_alone_it_is_opened_and_closed_with_its_server() -> None:
    receiver = WebhookReceiver(PUBLIC)
    await receiver.close()
    hook = receiver.open(lambda: None)
    scope = {"type": "http", "path": urlsplit(hook.on_ready).path}

    async def status() -> int:
        start, _ = await asgi_says(receiver, scope, [piece(b"{}")])
        return int(start["status"])

    messages = asyncio.Queue[dict[str, Any]]()
    started = asyncio.Event()
    sent: list[str] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message["type"])
        started.set()

    life = asyncio.ensure_future(receiver.asgi()({"type": "lifespan"}, messages.get, send))
    assert await status() == 503
    messages.put_nowait({"type": "lifespan.startup"})
    await started.wait()
    assert await status() == 204
    messages.put_nowait({"type": "lifespan.shutdown"})
    await life

    assert await status() == 503
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_it_can_be_attached_again_once_an_application_has_ended(
    session: aiohttp.ClientSession,
) -> None:
    receiver = WebhookReceiver(PUBLIC)
    hook = receiver.open(lambda: None)
    for _ in range(2):
        runner, port = await running(own_application(receiver))
        local = hook.on_ready.replace(PUBLIC, f"http://127.0.0.1:{port}")
        assert await status_of(session, local) == 204
        await runner.cleanup()


async def test_it_can_be_served_again(session: aiohttp.ClientSession) -> None:
    receiver = WebhookReceiver()
    for _ in range(2):
        async with receiver.serve():
            hook = receiver.open(lambda: None)
            assert await status_of(session, hook.on_ready) == 204


# ── with a client ────────────────────────────────────────────────────────────────────────────────

PACE = PollingPolicy(first_delay=3, interval=3)  # as often as webhooks need to be made good


def now() -> float:
    return asyncio.get_running_loop().time()


@pytest.mark.virtual
async def test_a_webhook_ends_a_wait_before_the_next_look(session: aiohttp.ClientSession) -> None:
    async with (
        ScriptedApi() as api,
        WebhookReceiver().serve() as receiver,
        EdgegapClient("canary-t", base_url=api.url, webhooks=receiver, polling=PACE) as client,
    ):
        api.on(*DEPLOY, Reply(202, {"request_id": "abc123"}))
        api.on(*STATUS, deployment("READY"))
        handle = await client.deploy("arena", "v1", users=["192.0.2.1"])
        began = now()
        waiting = asyncio.create_task(handle.wait_ready())
        await asyncio.sleep(1)
        assert not api.asked(*STATUS)

        url = api.requests[0].json["webhook_on_ready"]["url"]
        assert await status_of(session, url) == 204
        await waiting

        assert now() - began == pytest.approx(1, abs=0.1)
        assert [change.source for change in handle.history] == ["webhook"]


@pytest.mark.virtual
async def test_a_webhook_that_comes_before_the_deploy_was_answered_is_not_lost(
    session: aiohttp.ClientSession,
) -> None:
    async with (
        ScriptedApi() as api,
        WebhookReceiver().serve() as receiver,
        EdgegapClient("canary-t", base_url=api.url, webhooks=receiver, polling=PACE) as client,
    ):
        answer = asyncio.Event()
        api.on(*DEPLOY, Reply(202, {"request_id": "abc123"}, after=answer))
        api.on(*STATUS, deployment("READY"))
        deploying = asyncio.create_task(client.deploy("arena", "v1", users=["192.0.2.1"]))
        await api.until_asked(*DEPLOY)
        url = api.requests[0].json["webhook_on_ready"]["url"]
        assert await status_of(session, url) == 204
        answer.set()
        began = now()
        await (await deploying).wait_ready()

        assert now() - began < 0.1


@pytest.mark.virtual
async def test_a_lost_webhook_is_made_good_by_a_slow_look() -> None:
    async with (
        ScriptedApi() as api,
        WebhookReceiver().serve() as receiver,
        EdgegapClient("canary-t", base_url=api.url, webhooks=receiver, polling=PACE) as client,
    ):
        api.on(*DEPLOY, Reply(202, {"request_id": "abc123"}))
        api.on(*STATUS, deployment("DEPLOYING"), deployment("READY"))
        handle = await client.deploy("arena", "v1", users=["192.0.2.1"])
        began = now()
        await handle.wait_ready()

        assert now() - began == pytest.approx(6, abs=0.7)
        assert {change.source for change in handle.history} == {"status"}


@pytest.mark.virtual
async def test_the_callers_own_webhooks_are_left_as_they_are() -> None:
    async with (
        ScriptedApi() as api,
        EdgegapClient("canary-t", base_url=api.url, webhooks=WebhookReceiver(PUBLIC)) as client,
    ):
        api.on(*DEPLOY, Reply(202, {"request_id": "abc123"}))
        own = "https://own.example/ready"
        await client.deploy("arena", "v1", users=["192.0.2.1"], webhook_on_ready=own)
        body = api.requests[0].json

        assert body["webhook_on_ready"]["url"] == own
        assert body["webhook_on_error"]["url"].startswith(PUBLIC)
        assert body["webhook_on_terminated"]["url"].startswith(PUBLIC)


@pytest.mark.virtual
async def test_a_dropped_handle_closes_its_urls_and_what_comes_then_is_no_strangers(
    session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        ScriptedApi() as api,
        WebhookReceiver().serve() as receiver,
        EdgegapClient("canary-t", base_url=api.url, webhooks=receiver) as client,
    ):
        api.on(*DEPLOY, Reply(202, {"request_id": "abc123"}))
        handle = await client.deploy("arena", "v1", users=["192.0.2.1"])
        url = api.requests[0].json["webhook_on_ready"]["url"]
        assert await status_of(session, url) == 204
        del handle
        gc.collect()

        assert await status_of(session, url) == 404
        assert (receiver.stats.late, receiver.stats.unknown) == (1, 0)
        assert "rejected" not in caplog.text
        assert await status_of(session, url.replace("/ready", "s/ready")) == 404
        assert (receiver.stats.late, receiver.stats.unknown) == (1, 1)
        assert "rejected: its URL is unknown" in caplog.text


@pytest.mark.parametrize("host", ["0.0.0.0", "::", ""])
async def test_a_receiver_on_all_addresses_must_say_how_it_is_reached(host: str) -> None:
    with pytest.raises(InvalidRequest, match="needs a public_url"):
        async with WebhookReceiver().serve(host):
            pytest.fail("nobody knows its URL")
