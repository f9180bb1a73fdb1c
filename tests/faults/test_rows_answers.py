"""Answers that refuse a call, or that the client cannot use. Rows 11 to 19."""

from __future__ import annotations

import asyncio
import logging

import pytest
from quick_client import deploy_error, quick_client
from scripted_api import Reply, ScriptedApi, deployment

from edgegap_async.errors import (
    BadRequest,
    CallError,
    Conflict,
    Forbidden,
    RateLimited,
    ServerError,
    Unauthorized,
    UnreadableAnswer,
)

DEPLOY = ("POST", "/v2/deployments")
STATUS = ("GET", "/v1/status/abc123")

PAGE = b"<html><h1>Bad Gateway</h1>" + b"<p>very sorry</p>" * 10_000


@pytest.mark.parametrize(
    ("reply", "error", "attempts"),
    [
        (Reply(200, PAGE, {"Content-Type": "text/html"}), UnreadableAnswer, 2),
        (Reply(502, PAGE, {"Content-Type": "text/html"}), ServerError, 4),
    ],
    ids=["row 11", "row 12"],
)
async def test_row_11_12_the_error_for_the_page_of_a_proxy_quotes_its_beginning_only(
    api: ScriptedApi,
    caplog: pytest.LogCaptureFixture,
    reply: Reply,
    error: type[CallError],
    attempts: int,
) -> None:
    caplog.set_level(logging.DEBUG)
    api.on(*STATUS, reply)
    async with quick_client(api.url) as client:
        with pytest.raises(error, match="Bad Gateway") as caught:
            await client.deployments.get("abc123")

    assert caught.value.status == reply.status
    assert len(api.requests) == caught.value.attempts == attempts
    assert len(str(caught.value)) < 500
    assert all(len(record.getMessage()) < 500 for record in caplog.records)


@pytest.mark.virtual
async def test_row_13_a_429_without_retry_after_is_retried_later_and_slows_the_other_calls(
    api: ScriptedApi,
) -> None:
    api.on(*STATUS, Reply(429), deployment("READY"))
    async with quick_client(api.url) as client:
        first = asyncio.create_task(client.deployments.get("abc123"))
        await api.until_asked(*STATUS)
        await asyncio.sleep(0.05)
        assert client.limits.snapshot()["get_deployment"].rate < 0.95 * 0.975 * 20
        await client.deployments.get("abc123")
        await first

        api.on(*STATUS, Reply(429))
        with pytest.raises(RateLimited) as caught:
            await client.deployments.get("abc123")

    times = [request.at for request in api.requests]
    assert caught.value.attempts == 4
    assert times[1] - times[0] >= 0.125  # the second call
    assert times[2] - times[0] >= 1  # the retry of the first call
    assert all(later - sooner >= 1 for sooner, later in zip(times[-4:], times[-3:], strict=False))


@pytest.mark.parametrize(
    ("status", "error"), [(400, BadRequest), (401, Unauthorized), (403, Forbidden)]
)
async def test_row_17_a_400_401_or_403_is_not_retried(
    api: ScriptedApi, status: int, error: type[CallError]
) -> None:
    api.on(*DEPLOY, Reply(status, {"message": "no"}))
    async with quick_client(api.url) as client:
        caught = await deploy_error(client)

    assert type(caught) is error
    assert not caught.maybe_created
    assert len(api.requests) == 1
    assert status != 401 or "Check EDGEGAP_API_TOKEN" in str(caught)


async def test_row_19_a_409_is_a_conflict_and_is_not_retried(api: ScriptedApi) -> None:
    api.on("POST", "/v1/deployments/abc123/tags", Reply(409, {"message": "exists"}))
    async with quick_client(api.url) as client:
        with pytest.raises(Conflict):
            await client.tags.create("abc123", "eu")

    assert len(api.requests) == 1


@pytest.mark.virtual
@pytest.mark.parametrize(("size", "times_listed"), [(12_000, 0), (100_000, 1)])
async def test_row_80_a_deploy_whose_answer_has_large_headers_makes_one_server(
    api: ScriptedApi, size: int, times_listed: int
) -> None:
    api.on(*DEPLOY, Reply(202, {"request_id": "abc123"}, {"Content-Security-Policy": "a" * size}))
    api.on("GET", "/v1/deployments", Reply(after=(sent := asyncio.Event())))
    async with quick_client(api.url) as client:
        deploying = asyncio.create_task(client.deploy("arena", "v1", users=["8.8.8.8"]))
        await api.until_asked(*DEPLOY)
        row = {"request_id": "abc123", "tags": api.asked(*DEPLOY)[0].json["tags"]}
        api.on("GET", "/v1/deployments", Reply(body={"data": [row]}))
        sent.set()

        assert (await deploying).request_id == "abc123"
        await asyncio.sleep(5)  # longer than the list delay, after which surplus is searched for
    assert len(api.asked(*DEPLOY)) == 1
    assert bool(api.asked("GET", "/v1/deployments")) is bool(times_listed)
