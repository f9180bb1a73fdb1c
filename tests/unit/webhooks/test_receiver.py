"""A webhook triggers its own deployment and does nothing else; events reach `on_event`."""

from __future__ import annotations

import asyncio
import functools
import gc
import json
import logging
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from eager_tasks import start_tasks_eagerly
from raw_server import raw_server, read_request
from webhook_servers import PUBLIC, status_of

from edgegap_async.api.requests import WEBHOOK_KINDS, WebhookKind
from edgegap_async.concurrency import loop_time
from edgegap_async.errors import InvalidRequest, WebhookNotReceived
from edgegap_async.webhooks.receiver import WebhookEvent, WebhookReceiver
from edgegap_async.webhooks.servers import WebhookSecretFilter


def test_each_deployment_has_urls_of_its_own() -> None:
    receiver = WebhookReceiver(f"{PUBLIC}/", path="/hooks/")
    one, other = receiver.open(print), receiver.open(print)

    assert one.url("ready").startswith(f"{PUBLIC}/hooks/")
    urls = {one.url("ready"), one.url("error"), one.url("terminated")}
    assert {url.rpartition("/")[2] for url in urls} == {"ready", "error", "terminated"}
    assert not urls & {other.url("ready"), other.url("error"), other.url("terminated")}
    assert len(one.url("ready").split("/")[-2]) >= 32


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
def test_max_reading_and_max_waiting_are_numbers_from_one_on(reading: int, waiting: int) -> None:
    with pytest.raises(InvalidRequest, match=r"max_(reading|waiting) must be 1 or more"):
        WebhookReceiver(PUBLIC, max_reading=reading, max_waiting=waiting)


@pytest.mark.parametrize("path", ["", "/", "//", "hooks"])
def test_a_path_begins_with_a_slash_and_is_not_empty(path: str) -> None:
    with pytest.raises(InvalidRequest, match="path must begin with /"):
        WebhookReceiver(PUBLIC, path=path)


class EventHandler:
    async def __call__(self, *_: object) -> None:
        pass

    async def handle(self, *_: object) -> None:
        pass

    def handle_synchronously(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    "on_event",
    [
        EventHandler(),
        EventHandler().handle,
        functools.partial(EventHandler().handle, "more"),
        functools.partial(functools.partial(EventHandler(), "more"), "still"),
    ],
)
def test_on_event_is_any_coroutine_function(on_event: Any) -> None:
    WebhookReceiver(PUBLIC, on_event=on_event)


@pytest.mark.parametrize(
    "on_event",
    [
        print,
        EventHandler,
        EventHandler().handle_synchronously,
        functools.partial(EventHandler().handle_synchronously, "more"),
        "handle",
    ],
)
def test_on_event_is_not_an_ordinary_function(on_event: Any) -> None:
    with pytest.raises(InvalidRequest, match="async def on_event"):
        WebhookReceiver(PUBLIC, on_event=on_event)


def test_a_receiver_without_an_address_has_no_urls() -> None:
    with pytest.raises(InvalidRequest, match="give it a public_url, or serve"):
        WebhookReceiver().open(print)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_the_own_server_puts_its_address_into_the_urls(
    session: aiohttp.ClientSession, host: str
) -> None:
    receiver = WebhookReceiver()
    triggered = asyncio.Event()
    async with receiver.serve(host) as served:
        subscription = receiver.open(triggered.set)

        assert served is receiver
        assert urlsplit(subscription.url("ready")).hostname == host
        assert await status_of(session, subscription.url("ready")) == 204
        assert triggered.is_set()
    with pytest.raises(InvalidRequest):
        receiver.open(print)


async def test_a_public_url_takes_precedence_over_the_own_servers_address() -> None:
    async with WebhookReceiver(PUBLIC).serve() as receiver:
        assert receiver.open(print).url("ready").startswith(PUBLIC)


async def test_a_port_in_use_is_an_error_at_once() -> None:
    async def talk(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with raw_server(talk) as port:
        with pytest.raises(OSError, match="address already in use"):
            await WebhookReceiver().serve(port=port).__aenter__()


@pytest.mark.parametrize("kind", WEBHOOK_KINDS.values())
async def test_a_webhook_triggers_its_own_deployment(
    session: aiohttp.ClientSession, kind: WebhookKind
) -> None:
    one, other = asyncio.Event(), asyncio.Event()
    async with WebhookReceiver().serve() as receiver:
        subscription, unused = receiver.open(one.set), receiver.open(other.set)

        assert await status_of(session, subscription.url(kind)) == 204
        assert (one.is_set(), other.is_set()) == (True, False)
        assert receiver.stats.received == 1
        assert unused.url("ready")


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (lambda url: url.replace("/ready", "/steady"), 404),
        (lambda url: url.replace("/ready", ""), 404),
        (lambda url: url[:-8] + "x/ready", 404),
        (lambda url: url + "/more", 404),
    ],
)
async def test_an_unknown_url_is_not_found(
    session: aiohttp.ClientSession, change: Callable[[str], str], status: int
) -> None:
    triggered = asyncio.Event()
    async with WebhookReceiver().serve() as receiver:
        subscription = receiver.open(triggered.set)

        assert await status_of(session, change(subscription.url("ready"))) == status
        assert not triggered.is_set()


async def test_only_a_post_is_accepted(session: aiohttp.ClientSession) -> None:
    async with WebhookReceiver().serve() as receiver:
        subscription = receiver.open(print)
        async with session.get(subscription.url("ready")) as answer:
            assert answer.status == 405


@pytest.mark.parametrize(
    "body", [b"", b"not JSON", b"[]", b"5", b"\xff\xfe", b'{"a": ' * 9_000, b"[" * 60_000]
)
async def test_a_body_that_is_not_a_json_object_is_rejected(
    session: aiohttp.ClientSession, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    triggered = asyncio.Event()
    async with WebhookReceiver().serve() as receiver:
        subscription = receiver.open(triggered.set)

        assert await status_of(session, subscription.url("ready"), body) == 400
        assert not triggered.is_set()
        assert receiver.stats.received == 0
    assert "rejected" in caplog.text
    assert subscription.url("ready").split("/")[-2] not in caplog.text


async def test_the_urls_of_a_deployment_without_a_handle_are_not_found(
    session: aiohttp.ClientSession,
) -> None:
    async with WebhookReceiver().serve() as receiver:
        subscription = receiver.open(print)
        url = subscription.url("ready")
        del subscription
        gc.collect()

        assert await status_of(session, url) == 404


async def test_a_connection_that_ends_in_the_middle_of_a_body_does_no_harm(
    session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    triggered = asyncio.Event()
    async with WebhookReceiver().serve() as receiver:
        subscription = receiver.open(triggered.set)
        url = urlsplit(subscription.url("ready"))
        _, writer = await asyncio.open_connection(url.hostname, url.port)
        head = f"POST {url.path} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{{"
        writer.write(head.encode())
        await writer.drain()
        writer.close()
        await writer.wait_closed()

        assert await status_of(session, subscription.url("ready")) == 204
    assert "Traceback" not in caplog.text


STATUS_OF_ABC123 = json.dumps({"request_id": "abc123", "current_status": "Status.READY"}).encode()


async def test_an_on_event_that_awaits_a_cancelled_future_has_failed_and_the_next_events_come(
    session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    came = asyncio.Event()
    gone = asyncio.get_running_loop().create_future()
    gone.cancel()
    triggered: list[str] = []

    async def on_event(event: WebhookEvent) -> None:
        triggered.append(event.kind)
        await came.wait()
        if event.kind == "ready":
            await gone

    async with WebhookReceiver(on_event=on_event).serve() as receiver:
        subscription = receiver.open(lambda: None)
        for url in (
            subscription.url("ready"),
            subscription.url("error"),
            subscription.url("terminated"),
        ):
            assert await status_of(session, url, STATUS_OF_ABC123) == 204
        assert triggered == ["ready"]
        came.set()

    assert triggered == ["ready", "error", "terminated"]
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
        subscription = receiver.open(lambda: None)
        assert await status_of(session, subscription.url("ready"), STATUS_OF_ABC123) == 204
        assert await status_of(session, subscription.url("error"), STATUS_OF_ABC123) == 204
        began = loop_time()

    assert 5 <= loop_time() - began < 7
    assert how == ["cancelled"]
    assert (receiver.stats.failed, receiver.stats.dropped) == (0, 2)
    assert "on_event failed" not in caplog.text


async def test_an_on_event_that_raises_when_it_is_cancelled_has_failed(
    session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    async def on_event(_: WebhookEvent) -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            raise ValueError("at the end")

    async with WebhookReceiver(on_event=on_event).serve() as receiver:
        subscription = receiver.open(lambda: None)
        assert await status_of(session, subscription.url("ready"), STATUS_OF_ABC123) == 204

    assert "on_event failed for webhook 'ready' of deployment abc123" in caplog.text


@pytest.mark.parametrize("at_once", [False, True], ids=["tasks begin later", "tasks begin at once"])
async def test_row_85_an_event_that_arrives_just_after_the_handler_has_ended_is_handled(
    *, at_once: bool
) -> None:
    if at_once:
        start_tasks_eagerly(asyncio.get_running_loop())
    handled = list[str]()

    async def on_event(event: WebhookEvent) -> None:
        handled.append(event.kind)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": STATUS_OF_ABC123}

    async def send(_: object) -> None:
        pass

    receiver = WebhookReceiver(PUBLIC, on_event=on_event)
    application, subscription = receiver.asgi(), receiver.open(lambda: None)
    for url in (subscription.url("ready"), subscription.url("error")):
        scope = {"type": "http", "method": "POST", "path": urlsplit(url).path, "headers": []}
        await application(scope, receive, send)
        if not at_once:
            await asyncio.sleep(0)  # the handler runs; callbacks of its end follow in the next step
    await receiver.close(timeout=1)

    assert handled == ["ready", "error"]


@pytest.mark.shows_secrets("an internal error is logged with its frames, and one holds the URL")
async def test_an_internal_error_is_answered_500_and_logged_with_its_traceback(
    session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    def wake() -> None:
        raise LookupError("an internal error")

    async with WebhookReceiver().serve() as receiver:
        subscription = receiver.open(wake)
        assert await status_of(session, subscription.url("ready")) == 500
    assert "LookupError: an internal error" in caplog.text
    assert subscription.url("ready").split("/")[-2] not in caplog.text


async def test_no_secret_is_logged(
    session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with WebhookReceiver().serve() as receiver:
        subscription = receiver.open(print)
        await status_of(session, subscription.url("ready"))
        await status_of(session, subscription.url("ready"), b"no")

    assert subscription.url("ready").split("/")[-2] not in caplog.text


async def test_a_receiver_can_be_served_again(session: aiohttp.ClientSession) -> None:
    receiver = WebhookReceiver()
    for _ in range(2):
        async with receiver.serve():
            subscription = receiver.open(lambda: None)
            assert await status_of(session, subscription.url("ready")) == 204


@pytest.mark.parametrize("host", ["0.0.0.0", "::", ""])
async def test_a_receiver_on_all_addresses_needs_a_public_url(host: str) -> None:
    with pytest.raises(InvalidRequest, match="needs a public_url"):
        async with WebhookReceiver().serve(host):
            pytest.fail("it listens without a public URL")


# ── logs ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "log",
    [
        lambda logger, url: logger.info("POST %s answered %d", url, 204),
        lambda logger, url: logger.info(f"POST {url}/"),  # noqa: G004 - what is tested
        lambda logger, url: logger.info("%(path)s", {"path": url, "status": 204}),
    ],
    ids=["arguments", "message", "mapping"],
)
def test_row_82_the_filter_hides_secrets_in_the_logs_of_a_program(
    log: Callable[[logging.Logger, str], None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    url = WebhookReceiver("https://a.example").open(print).url("ready")
    logger = logging.getLogger("of a program")
    hiding = WebhookSecretFilter()
    logger.addFilter(hiding)
    log(logger, url)
    logger.info("of 5")
    logger.removeFilter(hiding)

    assert url.split("/")[-2] not in caplog.text
    assert "https://a.example/edgegap/webhooks/hidden/ready" in caplog.text
    assert "of 5" in caplog.text


# ── check ────────────────────────────────────────────────────────────────────────────────────────


async def test_a_receiver_that_is_served_reaches_itself() -> None:
    events: list[WebhookEvent] = []

    async def on_event(event: WebhookEvent) -> None:
        events.append(event)

    async with WebhookReceiver(on_event=on_event).serve() as receiver:
        await receiver.check()
        await receiver.check()

        assert receiver.stats.received == 2
    assert not events
    assert receiver.stats.dropped == 0


async def test_a_receiver_that_no_client_can_reach_says_so() -> None:
    with pytest.raises(InvalidRequest, match="give it a public_url"):
        await WebhookReceiver().check()
    with pytest.raises(InvalidRequest, match="timeout must be above 0"):
        await WebhookReceiver(PUBLIC).check(timeout=0)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "answers 404"),
        (b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", "answers 302"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "nothing came in 0.3 s"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "cannot be reached"),
        (b"", "nothing came in 0.3 s"),
    ],
    ids=["404", "redirect", "another program", "no HTTP", "no answer"],
)
async def test_a_public_url_that_leads_elsewhere_is_not_received(answer: bytes, why: str) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(answer)
        await (writer.drain() if answer else asyncio.sleep(60))

    async with raw_server(talk) as port:
        url = f"http://127.0.0.1:{port}"
        receiver = WebhookReceiver(url)
        with pytest.raises(WebhookNotReceived, match=why) as caught:
            await receiver.check(timeout=0.3)

    assert f"{url}/edgegap/webhooks" in str(caught.value)
    assert "Compare public_url" in str(caught.value)
    assert caught.value.__cause__ is None


async def test_a_public_url_where_nothing_listens_is_not_received() -> None:
    with pytest.raises(WebhookNotReceived, match="cannot be reached"):
        await WebhookReceiver("http://127.0.0.1:1").check()
