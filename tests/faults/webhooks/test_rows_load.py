"""Row 42: bodies that are huge, slow or compressed, and too many connections."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import itertools
from urllib.parse import urlsplit

import pytest
from emulated_cloud import until
from webhook_servers import (
    CHUNKED,
    HUGE,
    each_front,
    head,
    post,
    receiver_in,
    send,
    status,
)

from edgegap_async.concurrency import loop_time

virtual = pytest.mark.virtual


@each_front
async def test_row_42_a_huge_content_length_is_413_at_once(front: str) -> None:
    async with receiver_in(front) as receiver:
        subscription = receiver.open(lambda: pytest.fail("triggered"))
        url = subscription.url("ready")

        assert status(await send(url, head(url, HUGE))) == 413
        assert status(await send(url, head(url, "Content-Length: 65537"))) == 413
        assert receiver.stats.refused == {413: 2}


@each_front
async def test_row_42_endless_chunks_end_at_64_kilobytes(front: str) -> None:
    async with receiver_in(front) as receiver:
        subscription = receiver.open(lambda: pytest.fail("triggered"))
        url = subscription.url("ready")
        chunk = b"1000\r\n" + b" " * 0x1000 + b"\r\n"
        for_ever = itertools.chain([head(url, CHUNKED)], itertools.repeat(chunk))
        # The server ends it by closing the connection; the answer may be lost then.
        assert status(await send(url, *itertools.islice(for_ever, 50_000))) in {0, 413}
        assert receiver.stats.refused == {413: 1}
        answer = await send(url, head(url, CHUNKED), *[chunk] * 16, b"1\r\n \r\n")
        assert status(answer) == 413


@virtual
@each_front
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("more", [b"1\r\n \r\n", b"this is no chunk\r\n"])
async def test_row_42_a_connection_answered_before_the_end_of_its_body_is_closed(
    front: str, more: bytes, *, known: bool
) -> None:
    async with receiver_in(front) as receiver:
        subscription = receiver.open(lambda: pytest.fail("triggered"))
        url = subscription.url("ready") if known else f"{subscription.url('ready')}x"
        parts = urlsplit(url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.write(head(url, CHUNKED, "Content-Encoding: made-up"))
        answer = await reader.readuntil(b"\r\n\r\n")
        answered_at = loop_time()
        with contextlib.suppress(ConnectionError):
            writer.write(more)
            assert await reader.read() == b""

        assert status(answer) == (415 if known else 404)
        assert loop_time() - answered_at < 0.5
        writer.close()


UNFINISHED_HEADS = {
    "half a line": b"POST /edg",
    "half a header": b"POST /edgegap/webhooks/x/ready HTTP/1.1\r\nHost: x\r\nX-A: ",
    "no end": b"POST /edgegap/webhooks/x/ready HTTP/1.1\r\nHost: x\r\n",
    "nothing": b"",
}


@virtual
@pytest.mark.parametrize(
    ("said", "gap"),
    [*itertools.product(list(UNFINISHED_HEADS)[:3], [None, 1.0, 60.0]), ("nothing", None)],
)
async def test_row_42_a_connection_that_is_silent_or_slow_is_closed(
    said: str, gap: float | None
) -> None:
    async with receiver_in("served") as receiver:
        parts = urlsplit(receiver.open(print).url("ready"))
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        began = loop_time()
        writer.write(UNFINISHED_HEADS[said])

        async def go_on(gap: float) -> None:
            while not writer.is_closing():
                await asyncio.sleep(gap)
                writer.write(b"a")

        going_on = None if gap is None else asyncio.create_task(go_on(gap))
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""

        assert loop_time() - began == pytest.approx(15, abs=1)
        if going_on is not None:
            going_on.cancel()
        writer.close()


@virtual
async def test_row_42_a_connection_is_kept_for_fifteen_seconds_after_an_answer() -> None:
    async with receiver_in("served") as receiver:
        subscription = receiver.open(lambda: None)
        url = subscription.url("ready")
        parts = urlsplit(url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        answered = 0.0
        for _ in range(3):
            writer.write(head(url, "Content-Length: 2") + b"{}")
            assert status(await reader.readuntil(b"\r\n\r\n")) == 204
            answered = loop_time()
            await asyncio.sleep(14)

        assert await reader.read() == b""
        assert loop_time() - answered == pytest.approx(15, abs=0.1)
        writer.close()


@virtual
async def test_row_42_connections_over_the_limit_are_closed_and_the_open_ones_are_served(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with receiver_in("served", max_reading=1) as receiver:
        subscription = receiver.open(lambda: None)
        url = subscription.url("ready")
        parts = urlsplit(url)
        opened = [await asyncio.open_connection(parts.hostname, parts.port) for _ in range(4)]
        began = loop_time()
        for _ in range(20):
            assert await send(url, head(url, "Content-Length: 2") + b"{}") == b""
        assert loop_time() - began < 1

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
async def test_row_42_exactly_64_kilobytes_are_accepted(front: str) -> None:
    async with receiver_in(front) as receiver:
        subscription = receiver.open(lambda: None)

        assert await post(subscription.url("ready"), b"{}" + b" " * 65534) == 204


@each_front
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "GZIP", "made up"])
async def test_row_42_a_compressed_body_is_rejected_and_not_decompressed(
    front: str, encoding: str
) -> None:
    bomb = gzip.compress(bytes(30_000_000))
    refusals = {0, 415, 400}  # 400: aiohttp's own answer to a body that it cannot decompress
    async with receiver_in(front) as receiver:
        subscription = receiver.open(lambda: pytest.fail("triggered"))
        line = f"Content-Encoding: {encoding}"

        for body in (b"not compressed at all", gzip.compress(b"{}")):
            assert await post(subscription.url("ready"), body, line) in refusals
        assert await post(subscription.url("ready"), bomb, line) in refusals
        assert sum(receiver.stats.refused.values()) <= 3
        assert receiver.stats.received == 0


@virtual
@each_front
async def test_row_42_a_slow_body_has_five_seconds_and_others_are_served_meanwhile(
    front: str,
) -> None:
    async with receiver_in(front) as receiver:
        slow, other = receiver.open(lambda: pytest.fail("triggered")), receiver.open(lambda: None)
        url = slow.url("ready")
        began = loop_time()
        sending = [
            asyncio.create_task(send(url, head(url, "Content-Length: 50"), b"{")) for _ in range(3)
        ]
        await until(lambda: slow.open_reads == 3)

        # A fourth for the same deployment is not read, one for another is.
        assert await post(slow.url("error")) == 503
        assert await post(other.url("ready")) == 204
        assert {status(answer) for answer in await asyncio.gather(*sending)} == {408}
        assert 5 <= loop_time() - began < 6
        assert receiver.stats.refused == {503: 1, 408: 3}
        assert slow.open_reads == 0


@virtual
@pytest.mark.parametrize("front", ["served", "attached", "starlette"])
async def test_row_42_bodies_over_max_reading_are_503(front: str) -> None:
    async with receiver_in(front, max_reading=2) as receiver:
        subscriptions = [receiver.open(lambda: None) for _ in range(3)]
        sending = [
            asyncio.create_task(
                send(
                    subscription.url("ready"), head(subscription.url("ready"), "Content-Length: 50")
                )
            )
            for subscription in subscriptions[:2]
        ]
        await until(lambda: sum(subscription.open_reads for subscription in subscriptions) == 2)

        assert await post(subscriptions[2].url("ready")) == 503
        await asyncio.gather(*sending)
        assert await post(subscriptions[2].url("ready")) == 204


@each_front
async def test_row_42_100_continue_is_sent_if_the_body_is_going_to_be_read(
    front: str,
) -> None:
    async with receiver_in(front) as receiver:
        subscription = receiver.open(lambda: None)
        url = subscription.url("ready")
        lines = ("Content-Length: 2", "Expect: 100-continue")
        parts = urlsplit(url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.write(head(url, *lines))
        assert status(await reader.readuntil(b"\r\n\r\n")) == 100
        writer.write(b"{}")
        assert status(await reader.readuntil(b"\r\n\r\n")) == 204
        writer.close()

        assert status(await send(url, head(f"{url}x", *lines))) == 404
