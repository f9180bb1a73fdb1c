"""Row 41: requests that are not webhooks, or not HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import zlib

import pytest
from eager_tasks import start_tasks_eagerly
from hypothesis import given, settings
from hypothesis import strategies as st
from webhook_servers import (
    each_front,
    head,
    post,
    receiver_in,
    send,
    status,
)

virtual = pytest.mark.virtual


NOT_OBJECTS = (
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
async def test_row_41_a_body_that_is_not_an_object_is_400_and_another_method_405(
    front: str,
) -> None:
    triggered = asyncio.Event()
    async with receiver_in(front) as receiver:
        url = receiver.open(triggered.set).url("error")
        subscription = receiver.open(triggered.set)
        del url
        bodies = [await post(subscription.url("error"), body) for body in NOT_OBJECTS[:-1]]
        methods = [
            await post(subscription.url("error"), method=method)
            for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE")
        ]

        assert set(bodies) == {400}
        assert set(methods) == {405}
        assert not triggered.is_set()
        assert receiver.stats.refused == {400: len(bodies), 405: len(methods)}
        assert await post(subscription.url("error")) == 204


@each_front
@pytest.mark.parametrize("at_once", [False, True], ids=["tasks begin later", "tasks begin at once"])
async def test_row_41_a_truncated_or_badly_framed_body_does_no_harm(
    front: str, *, at_once: bool
) -> None:
    if at_once:
        start_tasks_eagerly(asyncio.get_running_loop())
    triggered = asyncio.Event()
    async with receiver_in(front) as receiver:
        subscription = receiver.open(triggered.set)
        url = subscription.url("ready")
        chunked = head(url, "Transfer-Encoding: chunked")
        answers = [
            status(await send(url, head(url, "Content-Length: 100"), b"{", end=True)),
            status(await send(url, chunked, b"zz\r\n{}\r\n")),
            status(await send(url, chunked, b"2\r\n{}XX")),
            status(await send(url, chunked, b"2\r\n", end=True)),
            status(await send(url, head(url, "Content-Length: -1"))),
            status(await send(url, head(url, "Content-Length: ²"))),
            # To an unknown URL too, where the body comes after the answer.
            status(await send(url, head(url + "x", "Transfer-Encoding: chunked"), b"zz\r\n{}\r\n")),
        ]

        assert set(answers) <= {0, 400, 404}
        assert not triggered.is_set()
        assert await post(url) == 204


async def test_row_41_the_own_server_warns_once_a_minute_of_requests_that_are_not_http(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    async with receiver_in("served") as receiver:
        url = receiver.open(print).url("ready")
        for _ in range(3):
            assert status(await send(url, head(url, "Content-Length: -1"))) == 400

    assert [record.getMessage() for record in caplog.records] == [
        "webhook rejected: it is not HTTP"
    ]
    assert capfd.readouterr().err == ""


@virtual
@pytest.mark.parametrize("front", ["served", "attached", "starlette"])
async def test_row_41_rejected_webhooks_are_logged_once_a_minute(
    front: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with receiver_in(front) as receiver:
        subscription = receiver.open(print)
        for _ in range(30):
            await post(subscription.url("ready"), b"no")
            await post(subscription.url("ready") + "x")
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
def test_row_41_random_requests_are_not_answered_with_a_server_error(
    front: str, request: pytest.FixtureRequest
) -> None:
    examples = int(request.config.getoption("--rounds") or 0) * 5

    with asyncio.Runner() as runner, contextlib.ExitStack() as stack:
        running = receiver_in(front)
        receiver = runner.run(running.__aenter__())
        stack.callback(lambda: runner.run(running.__aexit__(None, None, None)))
        subscription = receiver.open(lambda: None)

        @settings(max_examples=examples, database=None)
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
            url = subscription.url("ready") if known else subscription.url("ready")[:-7] + "/ready"
            lines, sent = framed(body, frame)
            extra = [f"{name}: {value}" for name, value in headers]
            top = head(url, *lines, *extra, method=method)
            answer = status(runner.run(send(url, top + sent, end=True)))
            assert answer == 503 or answer < 500, (top, sent)

        fuzz()
        assert runner.run(post(subscription.url("ready"))) == 204
