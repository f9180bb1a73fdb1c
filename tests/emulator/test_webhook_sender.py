"""Webhooks that the emulator sends: where to, how often, with which faults."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

import attrs
import pytest
from aiohttp import web
from raw_server import raw_server

from edgegap_async import Deployment, Status
from edgegap_async.api.requests import Webhook
from edgegap_async.emulator import Delay, Drop, Fault, Faults, Repeat
from edgegap_async.emulator.webhook_sender import WebhookSender
from edgegap_async.errors import InvalidRequest

READY = Deployment(request_id="aaaaaaaaaaaa", current_status=Status.READY, running=True)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Target:
    """A server that webhooks go to."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.kinds: list[str] = []
        self.came = asyncio.Event()
        self.port = 0
        self.answer: Handler = self._fine

    async def _fine(self, _: web.Request) -> web.Response:
        return web.Response(text="fine")

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.bodies.append(await request.read())
        self.kinds.append(f"{request.method} {request.path} {request.content_type}")
        self.came.set()
        return await self.answer(request)


@pytest.fixture
async def target() -> AsyncIterator[Target]:
    target = Target()
    app = web.Application()
    app.router.add_route("*", "/{anything:.*}", target.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    target.port = runner.addresses[0][1]
    yield target
    await runner.cleanup()


@pytest.fixture
async def sender() -> AsyncIterator[WebhookSender]:
    sender = WebhookSender(timeout=0.5)
    yield sender
    await sender.close()


async def _sent(sender: WebhookSender, url: str) -> None:
    sender.send(Webhook(url), READY)
    await asyncio.gather(*sender._deliveries)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_webhook_is_a_post_of_the_status(
    sender: WebhookSender, target: Target, host: str
) -> None:
    await _sent(sender, f"http://{host}:{target.port}/secret")

    assert target.kinds == ["POST /secret application/json"]
    body = json.loads(target.bodies[0])
    assert (body["request_id"], body["current_status"]) == ("aaaaaaaaaaaa", "Status.READY")
    assert set(body) >= {"running", "error", "ports", "tags"}


async def test_row_57_a_webhook_delays_no_deployment(sender: WebhookSender, target: Target) -> None:
    never = asyncio.Event()

    async def hang(_: web.Request) -> web.Response:
        await never.wait()
        return web.Response()

    target.answer = hang
    sender.send(Webhook(f"http://127.0.0.1:{target.port}/"), READY)
    await target.came.wait()
    await sender.close()
    never.set()

    assert sender._deliveries == set()


async def test_row_57_a_webhook_that_gets_no_answer_is_given_up(
    sender: WebhookSender, target: Target, caplog: pytest.LogCaptureFixture
) -> None:
    never = asyncio.Event()

    async def hang(_: web.Request) -> web.Response:
        await never.wait()
        return web.Response()

    target.answer = hang
    await _sent(sender, f"http://127.0.0.1:{target.port}/secret")
    never.set()

    assert "webhook to http://127.0.0.1 failed: TimeoutError" in caplog.text
    assert "secret" not in caplog.text


async def test_row_57_a_redirect_of_a_webhook_is_not_followed(
    sender: WebhookSender, target: Target
) -> None:
    async def redirect(_: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": "/other"})

    target.answer = redirect
    await _sent(sender, f"http://127.0.0.1:{target.port}/secret")

    assert target.kinds == ["POST /secret application/json"]


async def test_row_57_a_webhook_that_fails_is_not_repeated(
    sender: WebhookSender, target: Target, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="edgegap_async.emulator")

    async def fail(_: web.Request) -> web.Response:
        return web.Response(status=500, body=b"x" * 1_000_000)

    target.answer = fail
    await _sent(sender, f"http://127.0.0.1:{target.port}/")

    assert len(target.bodies) == 1
    assert "answered 500" in caplog.text


async def test_row_57_a_webhook_to_a_closed_port_is_logged(
    sender: WebhookSender, caplog: pytest.LogCaptureFixture
) -> None:
    await _sent(sender, "http://127.0.0.1:1/secret")

    assert "webhook to http://127.0.0.1 failed: ClientConnectorError" in caplog.text


@pytest.mark.parametrize("host", ["10.0.0.1", "169.254.169.254", "[fd00::1]", "0.0.0.0"])
async def test_an_address_beyond_loopback_gets_no_webhook(
    sender: WebhookSender, caplog: pytest.LogCaptureFixture, host: str
) -> None:
    await _sent(sender, f"http://{host}:9/secret")

    assert "webhook_allow" in caplog.text
    assert "secret" not in caplog.text


async def test_a_name_with_no_allowed_address_gets_no_webhook(target: Target) -> None:
    sender = WebhookSender(timeout=0.5)
    sender._allowed._networks.clear()  # as if localhost were elsewhere

    await _sent(sender, f"http://localhost:{target.port}/")
    await sender.close()

    assert target.bodies == []


@pytest.mark.parametrize(
    ("address", "is_allowed"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("10.2.0.1", False),
        ("192.168.0.1", False),
        ("127.0.0.1", True),
    ],
)
def test_the_networks_of_the_setting_get_webhooks(address: str, *, is_allowed: bool) -> None:
    sender = WebhookSender(["10.1.0.0/16"])

    assert sender._allowed.contains(address) is is_allowed


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "169.254.170.2",
        "fd00:ec2::254",
        "fd20:ce::254",
        "168.63.129.16",
        "100.100.100.200",
        "192.0.0.192",
        "0.0.0.0",
        "0.1.2.3",
        "::",
        "fe80::1%eth0",
        "224.0.0.251",
        "ff02::1",
        "255.255.255.255",
        "::ffff:169.254.169.254",
        "2002:a9fe:a9fe::1",
        "64:ff9b::a9fe:a9fe",
    ],
)
async def test_metadata_services_get_no_webhook_whatever_the_setting_says(
    caplog: pytest.LogCaptureFixture, address: str
) -> None:
    sender = WebhookSender(["0.0.0.0/0", "::/0"], timeout=0.5)
    host = f"[{address.partition('%')[0]}]" if ":" in address else address

    await _sent(sender, f"http://{host}:9/secret")
    await sender.close()

    assert not sender._allowed.contains(address)
    assert "no webhook to" in caplog.text


@pytest.mark.parametrize(
    "path",
    [
        "/?x=%2F&u=%c3%a9",
        "/p%2Fq/../r",
        "/a//b/./c;d?x=1&&y=+%20",
        "/%7Ehook/~hook?q=[1]|{2}",
        "//double",
        "/?",
        "/p?",
        "/p??",
        "/p?a#",
        "?a=b",
        "",
        "?",
    ],
)
async def test_the_url_of_a_webhook_goes_out_byte_for_byte(
    sender: WebhookSender, path: str
) -> None:
    heads: list[bytes] = []

    async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readline())
        writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")

    async with raw_server(keep) as port:
        await _sent(sender, f"http://127.0.0.1:{port}{path}")

    path = path.removesuffix("#")  # a fragment is no part of what is sent
    target = path if path.startswith("/") else f"/{path}"
    assert heads == [f"POST {target} HTTP/1.1\r\n".encode()]


# ── by script ────────────────────────────────────────────────────────────────────────────────────


async def _arrived(target: Target, *faults: Fault) -> list[str]:
    """The statuses that arrive of READY and then TERMINATED, in their order."""
    sender = WebhookSender(faults=Faults(faults))
    for status in (Status.READY, Status.TERMINATED):
        deployment = Deployment(request_id="aaaaaaaaaaaa", current_status=status, running=False)
        sender.send(Webhook(f"http://127.0.0.1:{target.port}/"), deployment)
    await asyncio.gather(*sender._deliveries)
    await sender.close()
    return [json.loads(body)["current_status"] for body in target.bodies]


async def test_a_webhook_of_the_script_is_lost(target: Target) -> None:
    lost = await _arrived(target, Fault("webhook_on_ready", Drop()))

    assert lost == ["Status.TERMINATED"]


@pytest.mark.virtual
async def test_a_webhook_of_the_script_comes_after_a_later_one(target: Target) -> None:
    reordered = await _arrived(target, Fault("webhook_on_ready", Delay(60)))

    assert reordered == ["Status.TERMINATED", "Status.READY"]


async def test_a_webhook_of_the_script_comes_more_than_once(target: Target) -> None:
    repeated = await _arrived(target, Fault("webhook_on_terminated", Repeat(3)))

    assert sorted(repeated) == ["Status.READY"] + ["Status.TERMINATED"] * 3


async def test_a_fault_of_every_call_leaves_webhooks_alone(target: Target) -> None:
    arrived = await _arrived(target, Fault(None, Drop(), times=None))

    assert len(arrived) == 2


@pytest.mark.virtual
async def test_a_delayed_webhook_is_given_up_when_the_emulator_ends(target: Target) -> None:
    sender = WebhookSender(faults=Faults([Fault("webhook_on_ready", Delay(3600))]))
    sender.send(Webhook(f"http://127.0.0.1:{target.port}/"), READY)
    await asyncio.sleep(1)
    await sender.close()

    assert (target.bodies, sender._deliveries) == ([], set())


def test_an_invalid_network_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="webhook_allow"):
        WebhookSender(["everywhere"])


async def test_the_newest_webhooks_are_remembered() -> None:
    sender = WebhookSender(faults=Faults([Fault("webhook_on_ready", Drop(), times=None)]))
    for number in range(1_050):
        sender.send(Webhook("http://127.0.0.1/"), attrs.evolve(READY, request_id=f"r{number}"))

    kept = [one.request_id for one in sender.sent]
    assert (len(kept), kept[0], kept[-1]) == (1_000, "r50", "r1049")
