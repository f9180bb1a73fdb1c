"""The receiver in an aiohttp application and as an ASGI application."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from aiohttp import web
from webhook_servers import PUBLIC, status_of

from edgegap_async.webhooks.receiver import WebhookReceiver


def own_application(receiver: WebhookReceiver) -> web.Application:
    application = web.Application(client_max_size=2**30)
    receiver.attach(application)
    return application


async def running(application: web.Application) -> tuple[web.AppRunner, int]:
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner, runner.addresses[0][1]


async def test_a_receiver_can_be_attached_to_an_aiohttp_application(
    session: aiohttp.ClientSession,
) -> None:
    receiver = WebhookReceiver(PUBLIC)
    triggered = asyncio.Event()
    subscription = receiver.open(triggered.set)
    runner, port = await running(own_application(receiver))
    local = subscription.url("ready").replace(PUBLIC, f"http://127.0.0.1:{port}")

    assert await status_of(session, local) == 204
    assert triggered.is_set()
    await runner.cleanup()


async def test_the_aiohttp_application_can_be_mounted_as_a_sub_application(
    session: aiohttp.ClientSession,
) -> None:
    receiver = WebhookReceiver(PUBLIC, path="/here")
    subscription = receiver.open(print)
    application = web.Application()
    application.add_subapp("/here", receiver.application())
    runner, port = await running(application)
    local = subscription.url("ready").replace(PUBLIC, f"http://127.0.0.1:{port}")

    assert await status_of(session, local, b"no") == 400
    await runner.cleanup()


async def run_asgi(
    receiver: WebhookReceiver, scope: dict[str, Any], messages: Iterable[dict[str, Any]] = ()
) -> list[MutableMapping[str, Any]]:
    """Runs the ASGI application on these messages and returns what it sends."""
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


def request_message(body: bytes = b"", *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


async def test_a_body_may_come_in_chunks_of_which_some_are_empty() -> None:
    triggered = asyncio.Event()
    receiver = WebhookReceiver(PUBLIC)
    subscription = receiver.open(triggered.set)
    scope = {"type": "http", "path": urlsplit(subscription.url("ready")).path}
    pieces = [
        request_message(b"{", more=True),
        request_message(more=True),
        {"type": "http.request", "more_body": True},
    ]
    start, end = await run_asgi(receiver, scope, [*pieces, request_message(b"}")])

    assert (start["status"], start["headers"]) == (204, [])
    assert end == {"type": "http.response.body", "body": b""}
    assert triggered.is_set()


async def test_a_disconnected_caller_gets_no_answer() -> None:
    receiver = WebhookReceiver(PUBLIC)
    subscription = receiver.open(lambda: pytest.fail("triggered"))
    scope = {"type": "http", "path": urlsplit(subscription.url("ready")).path}

    messages = [request_message(b"{", more=True), {"type": "http.disconnect"}]

    assert not await run_asgi(receiver, scope, messages)


@pytest.mark.parametrize(("version", "said"), [("1.1", True), ("1.0", True), ("2", False)])
async def test_http_1_connections_are_closed_after_an_unknown_url(
    version: str, *, said: bool
) -> None:
    scope = {"type": "http", "path": "/who/knows/ready", "http_version": version}
    start, _ = await run_asgi(WebhookReceiver(PUBLIC), scope)

    assert start["status"] == 404
    assert ((b"connection", b"close") in start["headers"]) is said


async def test_a_websocket_is_closed() -> None:
    said = await run_asgi(WebhookReceiver(PUBLIC), {"type": "websocket", "path": "/"})

    assert said == [{"type": "websocket.close"}]


async def test_an_asgi_application_that_runs_alone_opens_and_closes_with_its_server() -> None:
    receiver = WebhookReceiver(PUBLIC)
    await receiver.close()
    subscription = receiver.open(lambda: None)
    scope = {"type": "http", "path": urlsplit(subscription.url("ready")).path}

    async def status() -> int:
        start, _ = await run_asgi(receiver, scope, [request_message(b"{}")])
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


async def test_a_receiver_can_be_attached_again_after_its_application_has_ended(
    session: aiohttp.ClientSession,
) -> None:
    receiver = WebhookReceiver(PUBLIC)
    subscription = receiver.open(lambda: None)
    for _ in range(2):
        runner, port = await running(own_application(receiver))
        local = subscription.url("ready").replace(PUBLIC, f"http://127.0.0.1:{port}")
        assert await status_of(session, local) == 204
        await runner.cleanup()
