"""What can become of a webhook, and what strangers can do to the receiver of webhooks.

The numbers in names are the rows of faults that this package promises to survive. What comes is the
same for each kind of server that the receiver runs in; who waits, waits for the emulator.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gzip
import hashlib
import itertools
import json
import logging
import traceback
import zlib
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from emulated_cloud import until
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from webhook_servers import FRONTS, head, post, receiver_in, send, status

from edgegap_async import DeploymentHandle, EdgegapClient, Status, WebhookEvent, WebhookReceiver
from edgegap_async.emulator import (
    Application,
    AppPort,
    Delay,
    Drop,
    Emulator,
    Fault,
    Repeat,
    Simulation,
    Timings,
)

ARENA = Application(name="arena", version="v1", argv=["no-such-program"], ports=[AppPort("game")])
USERS = ["8.8.8.8"]
WEBHOOKS = ("webhook_on_ready", "webhook_on_error", "webhook_on_terminated")

virtual = pytest.mark.virtual
each_front = pytest.mark.parametrize("front", FRONTS)


@contextlib.asynccontextmanager
async def a_cloud(
    *faults: Fault, receiver: WebhookReceiver, ready_after: float = 20.0, **simulation: Any
) -> AsyncIterator[tuple[Emulator, EdgegapClient]]:
    """An emulator where servers are READY so many seconds after they start, and its client."""
    simulate = Simulation(ready_after=(ready_after, ready_after), **simulation)
    async with (
        Emulator([ARENA], timings=Timings.fast(), simulate=simulate, faults=faults) as emulator,
        EdgegapClient(emulator.token, base_url=emulator.url, webhooks=receiver) as client,
    ):
        yield emulator, client


def now() -> float:
    return asyncio.get_running_loop().time()


def told_by(server: DeploymentHandle) -> dict[str, str]:
    return {change.status.short: change.source for change in server.history}


def statuses(server: DeploymentHandle) -> list[str]:
    return [change.status.short for change in server.history]


def looks(emulator: Emulator) -> int:
    names = {"get_deployment", "list_deployments"}
    return sum(request.operation in names for request in emulator.requests)


def urls(emulator: Emulator, server: DeploymentHandle) -> dict[str, str]:
    """The URLs that the emulator was given for a deployment, by kind."""
    request = emulator.cloud.deployments[server.request_id].request
    found = {name: getattr(request, name).url for name in WEBHOOKS}
    return {name.removeprefix("webhook_on_"): url for name, url in found.items()}


@pytest.fixture(autouse=True)
def _nothing_goes_wrong_unseen(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No server may find a mistake of ours, nor may a mistake of a caller look like one."""
    yield
    for record in caplog.get_records("call"):
        trace = traceback.extract_tb(record.exc_info[2]) if record.exc_info else []
        through_us = any("/edgegap_async/" in frame.filename for frame in trace)
        is_told = record.name.startswith("edgegap_async.webhooks")
        assert is_told or record.levelno < logging.ERROR or not through_us, record.getMessage()
        assert not record.getMessage().startswith(("Unhandled exception", "Exception in ASGI"))


# ── 37: lost ─────────────────────────────────────────────────────────────────────────────────────


@virtual
async def test_row_37_where_every_webhook_is_lost_looks_tell_of_ready_and_of_the_end() -> None:
    lost = [Fault(name, Drop(), times=None) for name in WEBHOOKS]
    async with (
        WebhookReceiver().serve() as receiver,
        a_cloud(*lost, receiver=receiver) as (_, client),
    ):
        server = await client.deploy("arena", "v1", users=USERS)
        await server.wait_ready()
        await server.stop(wait=True)

        assert set(told_by(server).values()) == {"status"}
        assert receiver.stats.received == 0


@virtual
async def test_row_37_an_error_of_which_no_webhook_tells_is_told_all_the_same() -> None:
    lost = [Fault(name, Drop(), times=None) for name in WEBHOOKS]
    failing: dict[str, Any] = {"failing": 1.0, "fails_after": (3.0, 3.0)}
    async with (
        WebhookReceiver().serve() as receiver,
        a_cloud(*lost, receiver=receiver, **failing) as (_, client),
    ):
        server = await client.deploy("arena", "v1", users=USERS)
        with pytest.raises(Exception, match="exited with code 1"):
            await server.wait_ready()

        assert server.status is Status.ERROR


# ── 38: doubled ──────────────────────────────────────────────────────────────────────────────────


@virtual
async def test_row_38_a_webhook_that_comes_three_times_is_one_change_and_one_event() -> None:
    events: list[tuple[str, str]] = []

    async def note(event: WebhookEvent) -> None:
        events.append((event.kind, event.deployment.request_id))

    doubled = [Fault(name, Repeat(3), times=None) for name in WEBHOOKS]
    async with (
        WebhookReceiver(on_event=note).serve() as receiver,
        a_cloud(*doubled, receiver=receiver) as (_, client),
    ):
        server = await client.deploy("arena", "v1", users=USERS)
        await server.wait_ready()
        await server.stop(wait=True)
        await until(lambda: receiver.stats.received == 6)

        assert statuses(server).count("READY") == statuses(server).count("TERMINATED") == 1
        assert told_by(server)["READY"] == "webhook"
        assert events == [("ready", server.request_id), ("terminated", server.request_id)]


# ── 39: early, and in another order ──────────────────────────────────────────────────────────────


@virtual
async def test_row_39_a_ready_that_comes_after_terminated_changes_nothing() -> None:
    async with (
        WebhookReceiver().serve() as receiver,
        a_cloud(Fault("webhook_on_ready", Delay(15)), receiver=receiver, ready_after=1.0) as (
            emulator,
            client,
        ),
    ):
        server = await client.deploy("arena", "v1", users=USERS)
        local = emulator.cloud.deployments[server.request_id]
        await until(lambda: local.status is Status.READY)
        await server.stop(wait=True)
        await until(lambda: receiver.stats.received == 1)
        history = server.history
        await until(lambda: receiver.stats.received == 2)
        await asyncio.sleep(30)

        assert server.status is Status.TERMINATED
        assert server.history == history


@virtual
async def test_row_39_a_webhook_that_comes_before_the_deploy_is_answered_is_not_lost() -> None:
    async with (
        WebhookReceiver().serve() as receiver,
        a_cloud(Fault("deploy", Delay(10)), receiver=receiver, ready_after=1.0) as (_, client),
    ):
        server = await client.deploy("arena", "v1", users=USERS)
        assert receiver.stats.received == 1
        began = now()
        await server.wait_ready()

        assert now() - began < 0.2
        assert told_by(server)["READY"] == "webhook"


# ── 40: forged ───────────────────────────────────────────────────────────────────────────────────


def without_date(answer: bytes) -> list[bytes]:
    return [line for line in answer.split(b"\r\n") if not line.lower().startswith(b"date:")]


@each_front
async def test_row_40_every_url_that_is_not_known_gets_the_same_answer_and_none_is_read(
    front: str,
) -> None:
    async with receiver_in(front) as receiver:
        hook = receiver.open(lambda: pytest.fail("woken by a stranger"))
        known = hook.on_ready
        near = known[: -len("A/ready")] + ("B" if known[-7] == "A" else "A") + "/ready"
        unknown = (
            near,
            known.replace("/ready", "/steady"),
            known.replace("/ready", ""),
            known + "/",
            known[:-40] + "/ready",
            known.rpartition("/edgegap")[0] + "/edgegap/webhooks/%C3%A9%FF/ready",
        )
        # The body never comes, and is not waited for: neither what it says nor how long it takes
        # to come tells one from the other.
        requests = [head(url, "Content-Length: 1000000000") for url in unknown]
        answers = [without_date(await send(known, request)) for request in requests]

        assert {status(b"\r\n".join(answer)) for answer in answers} == {404}
        assert all(answer == answers[0] for answer in answers)
        assert receiver.stats.unknown == len(unknown)
        assert receiver.stats.refused == {}


@each_front
async def test_row_40_in_a_cluster_a_url_of_nobody_here_is_passed_on_and_none_is_read(
    front: str,
) -> None:
    async with receiver_in(front, max_reading=1) as receiver:
        passed: list[bytes] = []
        receiver.forward = passed.append
        hook = receiver.open(lambda: None)
        known = hook.on_ready
        secret = known.split("/")[-2]
        elsewhere = known.replace(secret, secret[::-1])
        # Their bodies never come; who is not hung up on would take the only room.
        answers = [await send(known, head(elsewhere, HUGE)) for _ in range(3)]
        short = known.replace(secret, secret[:42])
        strange = known.replace(secret, f"{secret[:-1]}~")
        nobodys = [await send(known, head(url, HUGE)) for url in (short, strange)]

        assert {status(answer) for answer in answers} == {204}
        assert all(b"connection: close" in answer.lower() for answer in answers)
        assert passed == [hashlib.sha256(secret[::-1].encode()).digest()] * 3
        assert {status(answer) for answer in nobodys} == {404}
        assert await post(known) == 204
        await receiver.close()
        assert await post(elsewhere) == 503


@virtual
@pytest.mark.parametrize("lie", ["READY", "TERMINATED", "ERROR"])
async def test_row_40_what_a_body_says_is_not_believed(lie: str) -> None:
    async with (
        WebhookReceiver().serve() as receiver,
        a_cloud(receiver=receiver) as (emulator, client),
    ):
        server = await client.deploy("arena", "v1", users=USERS)
        waiting = asyncio.create_task(server.wait_ready())
        await asyncio.sleep(1)
        said = {"request_id": server.request_id, "current_status": f"Status.{lie}", "error": True}
        for url in urls(emulator, server).values():
            assert await post(url, json.dumps(said).encode()) == 204
        await asyncio.sleep(2)

        assert server.status is not None
        assert server.status.short == "DEPLOYING"
        assert (await waiting).current_status is Status.READY
        assert statuses(server) == ["DEPLOYING", "READY"]


@virtual
async def test_row_40_a_thousand_forged_webhooks_cost_two_looks_a_second_more() -> None:
    async with (
        WebhookReceiver().serve() as receiver,
        a_cloud(receiver=receiver) as (emulator, client),
    ):
        server = await client.deploy("arena", "v1", users=USERS)
        waiting = asyncio.create_task(server.wait_ready())
        await asyncio.sleep(1)
        url = urls(emulator, server)["ready"]
        began, looked = now(), looks(emulator)
        for _ in range(1000):
            assert await post(url) == 204
            await asyncio.sleep(0.01)
        spent, looked = now() - began, looks(emulator) - looked

        assert spent >= 10
        assert looked <= 2 * spent + 2 + 2.3 * spent  # the polling's own looks too
        assert (await waiting).current_status is Status.READY


@virtual
async def test_row_40_however_many_come_one_wake_is_pending_and_comes_soon() -> None:
    woken: list[float] = []
    hook = WebhookReceiver("https://mm.example").open(lambda: woken.append(now()))
    began = rung = now()
    for _ in range(1000):
        rung = now()
        hook.trigger()
        await asyncio.sleep(0.001)
    await asyncio.sleep(60)

    assert woken[0] - began < 0.01
    assert rung <= woken[-1] <= rung + 0.51
    gaps = [later - earlier for earlier, later in itertools.pairwise(woken)]
    assert gaps == pytest.approx([0.5] * len(gaps), abs=0.01)
    assert len(woken) <= 4


# ── 41: malformed ────────────────────────────────────────────────────────────────────────────────

NO_OBJECTS = (
    b"",
    b"not JSON",
    b"[]",
    b"5",
    b"null",
    b"\xff\xfe",
    b'{"a": "\xff"}',
    b'{"a": ' * 9_000,
    b"[" * 60_000,
    b'{"a":' + b"9" * 50_000 + b"}",
)


@each_front
async def test_row_41_what_is_no_object_is_400_and_another_method_405(front: str) -> None:
    woken = asyncio.Event()
    async with receiver_in(front) as receiver:
        url = receiver.open(woken.set).on_error
        hook = receiver.open(woken.set)
        del url
        bodies = [await post(hook.on_error, body) for body in NO_OBJECTS[:-1]]
        methods = [
            await post(hook.on_error, method=method)
            for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE")
        ]

        assert set(bodies) == {400}
        assert set(methods) == {405}
        assert not woken.is_set()
        assert receiver.stats.refused == {400: len(bodies), 405: len(methods)}
        assert await post(hook.on_error) == 204


@each_front
async def test_row_41_a_body_that_breaks_off_or_is_badly_framed_does_no_harm(front: str) -> None:
    woken = asyncio.Event()
    async with receiver_in(front) as receiver:
        hook = receiver.open(woken.set)
        url = hook.on_ready
        chunked = head(url, "Transfer-Encoding: chunked")
        answers = [
            status(await send(url, head(url, "Content-Length: 100"), b"{", end=True)),
            status(await send(url, chunked, b"zz\r\n{}\r\n")),
            status(await send(url, chunked, b"2\r\n{}XX")),
            status(await send(url, chunked, b"2\r\n", end=True)),
            status(await send(url, head(url, "Content-Length: -1"))),
            status(await send(url, head(url, "Content-Length: ²"))),
            # Nor does it from a stranger, whose body comes in after the answer.
            status(await send(url, head(url + "x", "Transfer-Encoding: chunked"), b"zz\r\n{}\r\n")),
        ]

        assert set(answers) <= {0, 400, 404}
        assert not woken.is_set()
        assert await post(url) == 204


async def test_row_41_a_server_of_its_own_says_once_a_minute_that_what_comes_is_not_http(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    async with receiver_in("served") as receiver:
        url = receiver.open(print).on_ready
        for _ in range(3):
            assert status(await send(url, head(url, "Content-Length: -1"))) == 400

    assert [record.getMessage() for record in caplog.records] == [
        "webhook rejected: it is not HTTP"
    ]
    assert capfd.readouterr().err == ""


@virtual
@pytest.mark.parametrize("front", ["served", "attached", "starlette"])
async def test_row_41_it_is_logged_once_a_minute(
    front: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with receiver_in(front) as receiver:
        hook = receiver.open(print)
        for _ in range(30):
            await post(hook.on_ready, b"no")
            await post(hook.on_ready + "x")
            await asyncio.sleep(2.5)

    lines = [r.getMessage() for r in caplog.records if r.name.startswith("edgegap_async.webhooks")]
    assert len(lines) == 2
    assert lines[0] == "webhook rejected: its body is not a JSON object"
    assert "more since the last warning" in lines[1]


METHODS = st.sampled_from(["POST", "GET", "HEAD", "PUT", "OPTIONS", "BREW", "CONNECT", "TRACE"])
NAMES = st.sampled_from(
    ["Content-Type", "Content-Encoding", "Expect", "Upgrade", "Connection", "X-A", "Content-Length"]
)
VALUES = st.one_of(
    st.sampled_from(["gzip", "deflate", "br", "zstd", "100-continue", "websocket", "upgrade", "0"]),
    st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=20),
)
BODIES = st.one_of(
    st.binary(max_size=300),
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
        max_leaves=10,
    ).map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=100).map(gzip.compress),
    st.binary(max_size=100).map(zlib.compress),
)
FRAMES = st.sampled_from(["length", "chunked", "too short", "too long", "none", "bad chunk"])


def framed(body: bytes, frame: str) -> tuple[list[str], bytes]:
    if "chunk" in frame:
        size = f"{len(body):x}" if frame == "chunked" else "x"
        return ["Transfer-Encoding: chunked"], f"{size}\r\n".encode() + body + b"\r\n0\r\n\r\n"
    off = {"too short": -1, "too long": 1}.get(frame, 0)
    return ([] if frame == "none" else [f"Content-Length: {max(len(body) + off, 0)}"]), body


@pytest.mark.timeout(300)
@pytest.mark.shows_secrets("uvicorn's frames hold the URL where its own parser fails")
@pytest.mark.parametrize("front", ["served", "attached", "starlette"])
def test_row_41_whatever_is_sent_the_answer_is_no_server_error(
    front: str, request: pytest.FixtureRequest
) -> None:
    examples = int(request.config.getoption("--rounds") or 0) * 5

    with asyncio.Runner() as runner, contextlib.ExitStack() as stack:
        running = receiver_in(front)
        receiver = runner.run(running.__aenter__())
        stack.callback(lambda: runner.run(running.__aexit__(None, None, None)))
        hook = receiver.open(lambda: None)

        @settings(
            max_examples=examples,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
            database=None,
        )
        @given(
            method=METHODS,
            headers=st.lists(st.tuples(NAMES, VALUES), max_size=3),
            body=BODIES,
            frame=FRAMES,
            known=st.booleans(),
        )
        def fuzz(
            method: str, headers: list[tuple[str, str]], body: bytes, frame: str, *, known: bool
        ) -> None:
            url = hook.on_ready if known else hook.on_ready[:-7] + "/ready"
            lines, sent = framed(body, frame)
            extra = [f"{name}: {value}" for name, value in headers]
            top = head(url, *lines, *extra, method=method)
            answer = status(runner.run(send(url, top + sent, end=True)))
            assert answer == 503 or answer < 500, (top, sent)

        fuzz()
        assert runner.run(post(hook.on_ready)) == 204


# ── 42: huge and slow ────────────────────────────────────────────────────────────────────────────

HUGE = "Content-Length: 1000000000"
CHUNKED = "Transfer-Encoding: chunked"


@each_front
async def test_row_42_what_says_that_it_is_huge_is_413_at_once(front: str) -> None:
    async with receiver_in(front) as receiver:
        hook = receiver.open(lambda: pytest.fail("woken"))
        url = hook.on_ready

        assert status(await send(url, head(url, HUGE))) == 413
        assert status(await send(url, head(url, "Content-Length: 65537"))) == 413
        assert receiver.stats.refused == {413: 2}


@each_front
async def test_row_42_chunks_for_ever_end_at_64_kilobytes(front: str) -> None:
    async with receiver_in(front) as receiver:
        hook = receiver.open(lambda: pytest.fail("woken"))
        url = hook.on_ready
        chunk = b"1000\r\n" + b" " * 0x1000 + b"\r\n"
        for_ever = itertools.chain([head(url, CHUNKED)], itertools.repeat(chunk))
        # It ends because the server hangs up: nobody else ends it. The answer may be lost then.
        assert status(await send(url, *itertools.islice(for_ever, 50_000))) in {0, 413}
        assert receiver.stats.refused == {413: 1}
        answer = await send(url, head(url, CHUNKED), *[chunk] * 16, b"1\r\n \r\n")
        assert status(answer) == 413


@virtual
@each_front
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("more", [b"1\r\n \r\n", b"this is no chunk\r\n"])
async def test_row_42_who_is_answered_before_all_has_come_is_hung_up_on(
    front: str, more: bytes, *, known: bool
) -> None:
    async with receiver_in(front) as receiver:
        hook = receiver.open(lambda: pytest.fail("woken"))
        url = hook.on_ready if known else f"{hook.on_ready}x"
        parts = urlsplit(url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.write(head(url, CHUNKED, "Content-Encoding: made-up"))
        answer = await reader.readuntil(b"\r\n\r\n")
        answered_at = now()
        with contextlib.suppress(ConnectionError):
            writer.write(more)
            assert await reader.read() == b""

        assert status(answer) == (415 if known else 404)
        assert now() - answered_at < 0.5
        writer.close()


SAID = {
    "half a line": b"POST /edg",
    "half a header": b"POST /edgegap/webhooks/x/ready HTTP/1.1\r\nHost: x\r\nX-A: ",
    "no end": b"POST /edgegap/webhooks/x/ready HTTP/1.1\r\nHost: x\r\n",
    "nothing": b"",
}


@virtual
@pytest.mark.parametrize(
    ("said", "gap"), [*itertools.product(list(SAID)[:3], [None, 1.0, 60.0]), ("nothing", None)]
)
async def test_row_42_who_is_silent_or_slow_to_say_what_he_wants_is_hung_up_on(
    said: str, gap: float | None
) -> None:
    async with receiver_in("served") as receiver:
        parts = urlsplit(receiver.open(print).on_ready)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        began = now()
        writer.write(SAID[said])

        async def go_on(gap: float) -> None:
            while not writer.is_closing():
                await asyncio.sleep(gap)
                writer.write(b"a")

        going_on = None if gap is None else asyncio.create_task(go_on(gap))
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""

        assert now() - began == pytest.approx(15, abs=1)
        if going_on is not None:
            going_on.cancel()
        writer.close()


@virtual
async def test_row_42_a_connection_is_kept_for_fifteen_seconds_after_an_answer() -> None:
    async with receiver_in("served") as receiver:
        hook = receiver.open(lambda: None)
        url = hook.on_ready
        parts = urlsplit(url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        answered = 0.0
        for _ in range(3):
            writer.write(head(url, "Content-Length: 2") + b"{}")
            assert status(await reader.readuntil(b"\r\n\r\n")) == 204
            answered = now()
            await asyncio.sleep(14)

        assert await reader.read() == b""
        assert now() - answered == pytest.approx(15, abs=0.1)
        writer.close()


@virtual
async def test_row_42_only_so_many_connections_are_open_and_those_who_have_one_are_served(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with receiver_in("served", max_reading=1) as receiver:
        hook = receiver.open(lambda: None)
        url = hook.on_ready
        parts = urlsplit(url)
        opened = [await asyncio.open_connection(parts.hostname, parts.port) for _ in range(4)]
        began = now()
        for _ in range(20):
            assert await send(url, head(url, "Content-Length: 2") + b"{}") == b""
        assert now() - began < 1

        reader, writer = opened[-1]
        writer.write(head(url, "Content-Length: 2") + b"{}")
        assert status(await reader.readuntil(b"\r\n\r\n")) == 204
        for silent, _ in opened[:-1]:
            assert await silent.read() == b""
        assert await post(url) == 204
        for _, each in opened:
            each.close()
    assert "webhook rejected: too many connections are open" in caplog.text


@each_front
async def test_row_42_exactly_64_kilobytes_are_taken(front: str) -> None:
    async with receiver_in(front) as receiver:
        hook = receiver.open(lambda: None)

        assert await post(hook.on_ready, b"{}" + b" " * 65534) == 204


@each_front
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "GZIP", "made up"])
async def test_row_42_what_is_compressed_is_refused_and_not_unpacked(
    front: str, encoding: str
) -> None:
    bomb = gzip.compress(bytes(30_000_000))
    refusals = {0, 415, 400}  # 400: aiohttp's own, of what it could not unpack if it had to
    async with receiver_in(front) as receiver:
        hook = receiver.open(lambda: pytest.fail("woken"))
        line = f"Content-Encoding: {encoding}"

        for body in (b"not compressed at all", gzip.compress(b"{}")):
            assert await post(hook.on_ready, body, line) in refusals
        assert await post(hook.on_ready, bomb, line) in refusals
        assert sum(receiver.stats.refused.values()) <= 3
        assert receiver.stats.received == 0


@virtual
@each_front
async def test_row_42_a_slow_body_is_given_five_seconds_and_others_are_served_meanwhile(
    front: str,
) -> None:
    async with receiver_in(front) as receiver:
        slow, other = receiver.open(lambda: pytest.fail("woken")), receiver.open(lambda: None)
        url = slow.on_ready
        began = now()
        sending = [
            asyncio.create_task(send(url, head(url, "Content-Length: 50"), b"{")) for _ in range(3)
        ]
        await until(lambda: slow.open_reads == 3)

        # A fourth for the same deployment is not read, one for another is.
        assert await post(slow.on_error) == 503
        assert await post(other.on_ready) == 204
        assert {status(answer) for answer in await asyncio.gather(*sending)} == {408}
        assert 5 <= now() - began < 6
        assert receiver.stats.refused == {503: 1, 408: 3}
        assert slow.open_reads == 0


@virtual
@pytest.mark.parametrize("front", ["served", "attached", "starlette"])
async def test_row_42_only_so_many_are_read_at_once(front: str) -> None:
    async with receiver_in(front, max_reading=2) as receiver:
        hooks = [receiver.open(lambda: None) for _ in range(3)]
        sending = [
            asyncio.create_task(send(hook.on_ready, head(hook.on_ready, "Content-Length: 50")))
            for hook in hooks[:2]
        ]
        await until(lambda: sum(hook.open_reads for hook in hooks) == 2)

        assert await post(hooks[2].on_ready) == 503
        await asyncio.gather(*sending)
        assert await post(hooks[2].on_ready) == 204


@each_front
async def test_row_42_who_waits_to_be_told_to_send_is_told_if_it_is_going_to_be_read(
    front: str,
) -> None:
    async with receiver_in(front) as receiver:
        hook = receiver.open(lambda: None)
        url = hook.on_ready
        lines = ("Content-Length: 2", "Expect: 100-continue")
        parts = urlsplit(url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.write(head(url, *lines))
        assert status(await reader.readuntil(b"\r\n\r\n")) == 100
        writer.write(b"{}")
        assert status(await reader.readuntil(b"\r\n\r\n")) == 204
        writer.close()

        assert status(await send(url, head(f"{url}x", *lines))) == 404


# ── 43: a handler of one's own ───────────────────────────────────────────────────────────────────


def saying(request_id: str) -> bytes:
    return json.dumps({"request_id": request_id, "current_status": "Status.READY"}).encode()


@each_front
async def test_row_43_a_handler_that_raises_is_logged_and_the_next_event_comes(
    front: str, caplog: pytest.LogCaptureFixture
) -> None:
    taken: list[str] = []

    async def fail_first(event: WebhookEvent) -> None:
        taken.append(event.deployment.request_id)
        if len(taken) == 1:
            raise RuntimeError("the handler's own mistake")

    async with receiver_in(front, on_event=fail_first) as receiver:
        one, two = receiver.open(lambda: None), receiver.open(lambda: None)
        assert await post(one.on_ready, saying("first")) == 204
        assert await post(two.on_ready, saying("second")) == 204
        await until(lambda: receiver.stats.handled == 1)

        assert taken == ["first", "second"]
        assert receiver.stats.failed == 1
    assert "on_event failed for webhook 'ready' of deployment first" in caplog.text
    assert "the handler's own mistake" in caplog.text
    assert one.on_ready.split("/")[-2] not in caplog.text


@each_front
async def test_row_43_a_handler_that_blocks_delays_no_answer_and_overflow_is_dropped(
    front: str,
) -> None:
    free = asyncio.Event()
    woken: list[int] = []

    async def block(_: WebhookEvent) -> None:
        await free.wait()

    async with receiver_in(front, on_event=block, max_waiting=2) as receiver:
        hooks = [receiver.open(functools.partial(woken.append, number)) for number in range(5)]
        for number, hook in enumerate(hooks):
            assert await post(hook.on_ready, saying(f"number-{number}")) == 204

        # One is being handled, two wait, two are dropped; but each has woken who waits.
        assert woken == [0, 1, 2, 3, 4]
        assert (receiver.stats.handled, receiver.stats.dropped) == (0, 2)
        free.set()
        await until(lambda: receiver.stats.handled == 3)


async def test_row_43_an_event_that_was_dropped_comes_when_it_is_sent_again() -> None:
    free = asyncio.Event()
    taken: list[str] = []

    async def block(event: WebhookEvent) -> None:
        await free.wait()
        taken.append(event.deployment.request_id)

    async with receiver_in("served", on_event=block, max_waiting=1) as receiver:
        hooks = [receiver.open(lambda: None) for _ in range(3)]
        for number, hook in enumerate(hooks):
            await post(hook.on_ready, saying(f"number-{number}"))
        free.set()
        await until(lambda: receiver.stats.handled == 2)
        await post(hooks[2].on_ready, saying("number-2"))
        await until(lambda: receiver.stats.handled == 3)

        assert taken == ["number-0", "number-1", "number-2"]


async def test_row_43_what_names_no_deployment_wakes_and_is_no_event() -> None:
    woken = asyncio.Event()

    async def handle(_: WebhookEvent) -> None:
        pytest.fail("there is nothing to be told")

    async with receiver_in("served", on_event=handle) as receiver:
        hook = receiver.open(woken.set)
        assert await post(hook.on_ready, b"{}") == 204
        assert woken.is_set()
        assert receiver.stats.dropped == 1


@virtual
@pytest.mark.parametrize("front", ["served", "attached", "asgi alone"])
async def test_row_43_at_its_end_a_receiver_waits_five_seconds_for_its_handler(
    front: str, caplog: pytest.LogCaptureFixture
) -> None:
    taken: list[str] = []

    async def slowly(event: WebhookEvent) -> None:
        await asyncio.sleep(2)
        taken.append(event.deployment.request_id)

    async with receiver_in(front, on_event=slowly) as receiver:
        hooks = [receiver.open(lambda: None) for _ in range(4)]
        for number, hook in enumerate(hooks):
            await post(hook.on_ready, saying(f"number-{number}"))
        began = now()

    assert now() - began < 7
    assert taken == ["number-0", "number-1"]
    assert (receiver.stats.handled, receiver.stats.dropped) == (2, 2)
    assert "closed before on_event had handled 2 events" in caplog.text


async def test_row_43_a_closed_receiver_answers_503_and_closes_twice() -> None:
    async with receiver_in("starlette") as receiver:
        hook = receiver.open(lambda: pytest.fail("woken"))
        await receiver.close()
        await receiver.close()

        assert await post(hook.on_ready) == 503


# ── 44: gone and back ────────────────────────────────────────────────────────────────────────────


@virtual
async def test_row_44_a_receiver_that_goes_away_for_good_delays_a_wait_and_does_not_end_it() -> (
    None
):
    async with contextlib.AsyncExitStack() as stack:
        receiver = await stack.enter_async_context(WebhookReceiver().serve())
        async with a_cloud(receiver=receiver) as (_, client):
            server = await client.deploy("arena", "v1", users=USERS)
            waiting = asyncio.create_task(server.wait_ready())
            await asyncio.sleep(2)
            await stack.aclose()

            assert (await waiting).current_status is Status.READY
            assert told_by(server)["READY"] == "status"


@virtual
async def test_row_44_what_an_earlier_receiver_was_told_the_api_tells_again() -> None:
    async with (
        WebhookReceiver().serve() as before,
        a_cloud(receiver=before, ready_after=1.0) as (emulator, client),
    ):
        server = await client.deploy("arena", "v1", users=USERS)
        await until(lambda: before.stats.received == 1)
        async with (
            WebhookReceiver().serve() as after,
            EdgegapClient(emulator.token, base_url=emulator.url, webhooks=after) as restarted,
        ):
            again = restarted.handle(server.request_id)
            await again.wait_ready()

            assert statuses(again) == ["READY"]
            # The URLs of the earlier one mean nothing to it.
            assert after.stats.received == after.stats.unknown == 0


# ── secrets ──────────────────────────────────────────────────────────────────────────────────────


@each_front
async def test_row_40_the_secret_of_a_url_is_in_no_log_and_no_repr(
    front: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with receiver_in(front) as receiver:
        hook = receiver.open(lambda: None)
        secret = hook.on_ready.split("/")[-2]
        answers = [
            await post(hook.on_ready),
            await post(hook.on_ready, b"no"),
            await post(hook.on_ready, method="GET"),
            await post(hook.on_ready, b"{}", "Content-Encoding: gzip"),
            await post(hook.on_ready, b"{}", "Expect: made-up"),
        ]

        assert answers == [204, 400, 405, 415, 204]
        assert secret not in f"{hook!r} {receiver!r} {receiver.stats!r} {vars(receiver)!r}"
    access = [r for r in caplog.records if "access" in r.name]
    assert len(access) == (0 if front == "served" else 5)
    assert all("/edgegap/webhooks/hidden/ready" in r.getMessage() for r in access)
    assert secret not in caplog.text
