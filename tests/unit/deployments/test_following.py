"""What is new in each answer about logs and metrics."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_api import Reply, ScriptedApi, deployment

from edgegap_async import EdgegapClient
from edgegap_async.concurrency import loop_time
from edgegap_async.deployments.following import LogReader
from edgegap_async.errors import Forbidden, NotFound
from edgegap_async.models import Logs

LOGS = ("GET", "/v1/deployment/abc123/container-logs")
METRICS = ("GET", "/v1/metrics/deployment/abc123")
STATUS = ("GET", "/v1/status/abc123")
READY = deployment("READY")
ERROR = deployment("ERROR")


def log(text: str | None, crash: str | None = None) -> Reply:
    return Reply(body={"logs": text, "encoding": "utf-8", "crash_logs": crash})


def texts(*answers: str | tuple[str, str] | None) -> list[str]:
    """The new text of each answer, which is a log, or a log and that of a crash."""
    reader = LogReader()
    read = (one if isinstance(one, tuple) else (one, None) for one in answers)
    return [reader.new_text(Logs(logs=text, crash_logs=crash)) for text, crash in read]


# ── the reader of logs ───────────────────────────────────────────────────────────────────────────


def test_what_a_log_has_gained_is_new() -> None:
    assert texts(None, "a\n", "a\n", "a\nb\n", "a\nb\nc") == ["", "a\n", "", "b\n", "c"]


def test_a_log_that_has_lost_its_oldest_part_is_continued() -> None:
    assert texts("one\ntwo\nthree\n", "two\nthree\nfour\n", "e\nfour\n5\n") == [
        "one\ntwo\nthree\n",
        "four\n",
        "5\n",
    ]


def test_a_container_that_has_started_again_begins_a_new_log() -> None:
    assert texts("start\nplay\n", ("start\n", "start\nplay\nboom\n"), "start\nplay\n") == [
        "start\nplay\n",
        "boom\nstart\n",
        "play\n",
    ]


def test_the_log_of_a_crash_continues_a_log_that_is_gone() -> None:
    reader = LogReader()
    assert reader.new_text(Logs(logs="start\n")) == "start\n"
    assert reader.new_text(Logs(logs=None, crash_logs="start\nboom\n")) == "boom\n"


def test_a_cut_character_waits_for_its_rest() -> None:
    assert texts("wei\ufffd", "weiß\n", "\ufffdiß\nmore") == ["wei", "ß\n", "more"]


@given(
    st.lists(st.integers(0, 400), min_size=1, max_size=12),
    st.integers(1, 700),
)
def test_the_pieces_are_the_log_while_the_window_is_not_outrun(
    growth: list[int], window: int
) -> None:
    whole = "".join(f"line {number}\n" for number in range(600))
    ends = [sum(growth[: count + 1]) for count in range(len(growth))]
    reader = LogReader()
    pieces = [
        reader.new_text(Logs(logs=whole[max(0, end - window - size) : end]))
        for end, size in zip(ends, growth, strict=True)
    ]

    assert "".join(pieces).endswith(whole[max(0, ends[-1] - window) : ends[-1]])
    assert "".join(pieces) == whole[: ends[-1]]


# ── the requests ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.virtual
async def test_the_log_is_followed_until_the_deployment_fails(api: ScriptedApi) -> None:
    api.on(*STATUS, *[READY] * 10, ERROR)
    api.on(*LOGS, Reply(404), log("a"), log("ab"), Reply(503), log("abc"), log("abcd"))

    async with EdgegapClient("canary-t", base_url=api.url) as client:
        pieces = [piece async for piece in client.handle("abc123").follow_logs()]

    assert "".join(pieces) == "abcd"


@pytest.mark.virtual
async def test_a_quiet_log_is_asked_for_less_and_less_often(api: ScriptedApi) -> None:
    api.on(*STATUS, READY)
    api.on(*LOGS, log("a"))

    async with EdgegapClient("canary-t", base_url=api.url) as client:
        pieces = client.handle("abc123").follow_logs()
        assert await anext(pieces) == "a"
        began = loop_time()
        waiting = asyncio.ensure_future(anext(pieces))
        await asyncio.sleep(300)
        waiting.cancel()

    at = [request.at - began for request in api.asked(*LOGS)]
    gaps = [later - earlier for earlier, later in pairwise(at)]
    assert all(later > earlier for earlier, later in pairwise(gaps[1:6]))  # after READY is known
    assert min(gaps[1:]) > 1
    assert max(gaps) == pytest.approx(10, abs=0.1)
    assert len(at) < 300 / 10 + 10


@pytest.mark.virtual
async def test_a_deployment_that_has_ended_ends_the_log(api: ScriptedApi) -> None:
    api.on(*STATUS, READY, Reply(410))
    api.on(*LOGS, log("a"), Reply(404))

    async with EdgegapClient("canary-t", base_url=api.url) as client:
        assert [piece async for piece in client.handle("abc123").follow_logs()] == ["a"]


@pytest.mark.virtual
async def test_an_unknown_deployment_has_no_log(api: ScriptedApi) -> None:
    api.on(*STATUS, Reply(404))
    api.on(*LOGS, Reply(404))

    async with EdgegapClient("canary-t", base_url=api.url) as client:
        with pytest.raises(NotFound):
            await anext(client.handle("abc123").follow_logs())


@pytest.mark.virtual
async def test_a_refusal_ends_the_iteration(api: ScriptedApi) -> None:
    api.on(*STATUS, READY)
    api.on(*LOGS, Reply(403, body={"message": "no"}))

    async with EdgegapClient("canary-t", base_url=api.url) as client:
        with pytest.raises(Forbidden):
            await anext(client.handle("abc123").follow_logs())


@pytest.mark.virtual
async def test_each_measurement_comes_once(api: ScriptedApi) -> None:
    first = datetime(2026, 11, 27, 12, tzinfo=UTC)

    def measured(count: int) -> Reply:
        times = [(first + timedelta(seconds=each)).isoformat() for each in range(count)]
        series = {"labels": times, "timestamps": times, "datasets": list(range(count))}
        return Reply(body={"cpu": series})

    api.on(*STATUS, *[READY] * 5, ERROR)
    api.on(*METRICS, measured(2), measured(2), measured(4))

    async with EdgegapClient("canary-t", base_url=api.url) as client:
        rows = [row async for row in client.handle("abc123").metrics()]

    assert [row["cpu"] for row in rows] == [0, 1, 2, 3]
    assert rows[3]["time"] == first + timedelta(seconds=3)
    assert api.asked(*METRICS)[1].query["start_time"].startswith("2026-11-27")
