"""Proxies and gateways that answer in the API's place, act twice or are slow. Rows 61 to 69."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from log_capture import logged_errors
from one_server import (
    DEPLOY,
    DEPLOYING,
    LIST,
    PLAYERS,
    READY,
    STATUS,
    STOP,
    cancel,
    one_server_api,
    run_server,
    stops,
)
from scripted_api import Reply, ScriptedApi
from tagged_api import TaggedApi, new_client

from edgegap_async import EdgegapClient, Status
from edgegap_async.concurrency import loop_time
from edgegap_async.errors import (
    CallError,
    Forbidden,
    MaybeCreated,
    NotFound,
    Unauthorized,
    WaitTimedOut,
)

pytestmark = pytest.mark.virtual

HTML = b"<html><body><h1>400 Bad request</h1></body></html>"
JUST_A_MOMENT = b"<!DOCTYPE html><title>Just a moment...</title>"
NO_ROUTE = {"message": "no Route matched with those values"}
OTHER_REASON = {"message": "Deployment cannot be stopped now, try again"}
NOT_LISTED = Reply(200, {"data": []})
LISTED = Reply(200, {"data": [{"request_id": "abc123", "status": "Status.READY", "ready": True}]})

FROM_PROXIES = {
    **{f"{status} HTML": Reply(status, HTML) for status in (400, 401, 403, 404, 410, 421)},
    **{f"{status} empty": Reply(status, b"") for status in (400, 401, 403, 404, 410, 421)},
    "403 challenge": Reply(403, JUST_A_MOMENT),
    "404 gateway": Reply(404, NO_ROUTE),
    "400 other": Reply(400, OTHER_REASON),
    "410 gateway": Reply(410, {"message": "Gone"}),
}


@pytest.fixture
async def api() -> AsyncIterator[ScriptedApi]:
    async with one_server_api() as api:
        yield api


@pytest.fixture
async def client(api: ScriptedApi) -> AsyncIterator[EdgegapClient]:
    async with EdgegapClient("canary-t", base_url=api.url, list_delay=5) as client:
        yield client


# ── 61: absence and refusal count only in the API's words ────────────────────────────────────────


@pytest.mark.parametrize("answer", FROM_PROXIES.values(), ids=FROM_PROXIES)
async def test_row_61_what_a_proxy_answers_ends_no_wait(
    api: ScriptedApi, client: EdgegapClient, answer: Reply
) -> None:
    api.on(*LIST, LISTED)
    api.on(*STATUS, READY, *[answer] * 5, DEPLOYING, READY)
    handle = client.handle("abc123")
    await handle.refresh()
    with pytest.raises(WaitTimedOut):
        await handle.wait_terminated(60)

    assert handle.status == Status.READY


@pytest.mark.parametrize("answer", FROM_PROXIES.values(), ids=FROM_PROXIES)
async def test_row_61_a_stop_that_a_proxy_answers_is_repeated_or_raises(
    api: ScriptedApi, client: EdgegapClient, answer: Reply
) -> None:
    api.on(*LIST, LISTED)
    api.on(*STOP, answer, Reply())
    await client.handle("abc123").stop()
    assert stops(api) == 2

    api.on(*STOP, answer)
    with pytest.raises(CallError) as caught:
        await client.handle("abc123").stop()
    assert not isinstance(caught.value, NotFound)


@pytest.mark.parametrize(
    "answer",
    [Reply(404, NO_ROUTE), Reply(400, OTHER_REASON), Reply(410, {"message": "Gone"})],
    ids=["404", "400", "410"],
)
async def test_row_61_an_absence_in_other_words_counts_if_the_list_confirms_it(
    api: ScriptedApi, client: EdgegapClient, answer: Reply
) -> None:
    api.on(*LIST, NOT_LISTED)
    api.on(*STATUS, READY, answer)
    api.on(*STOP, answer)
    handle = client.handle("abc123")
    await handle.refresh()
    last = await handle.wait_terminated(60)
    await handle.stop()

    assert last.current_status == Status.TERMINATED
    assert len(api.asked(*LIST)) == 2


@pytest.mark.parametrize("status", [400, 404])
async def test_row_61_an_absence_in_the_words_of_the_api_needs_no_list(
    api: ScriptedApi, client: EdgegapClient, status: int
) -> None:
    api.on(*STATUS, READY, Reply(status, {"message": "Bad Request ID provided"}))
    handle = client.handle("abc123")
    await handle.refresh()
    await handle.wait_terminated(60)

    assert not api.asked(*LIST)


@pytest.mark.parametrize(
    ("status", "error", "cause"), [(401, Unauthorized, "deleted"), (403, Forbidden, "template")]
)
async def test_row_61_a_token_that_the_api_refuses_ends_the_wait_and_the_error_says_why(
    api: ScriptedApi, client: EdgegapClient, status: int, error: type[CallError], cause: str
) -> None:
    api.on(*STATUS, Reply(status, {"message": "no"}))
    with pytest.raises(error, match=cause):
        await client.handle("abc123").wait_ready(60)


@pytest.mark.parametrize("answer", FROM_PROXIES.values(), ids=FROM_PROXIES)
async def test_row_61_a_server_whose_stop_a_proxy_answers_for_long_is_stopped_at_last(
    api: ScriptedApi, client: EdgegapClient, answer: Reply
) -> None:
    api.on(*LIST, LISTED)
    api.on(*STOP, *[answer] * 12, Reply())
    with contextlib.suppress(CallError):
        await run_server(client, 60)
    await asyncio.sleep(120)

    assert stops(api) == 13


# ── 63, 64, 65: what a status says ───────────────────────────────────────────────────────────────


@pytest.mark.parametrize("status", [408, 499])
async def test_row_63_a_deploy_that_was_passed_on_is_found_by_its_tag(status: int) -> None:
    timeout = Reply(status, b"upstream request timeout")
    async with TaggedApi(answers=[timeout], made=1) as api, new_client(api) as client:
        handle = await client.deploy("arena", "v1", users=PLAYERS)

    assert handle.request_id == "server1"
    assert len(api.asked(*DEPLOY)) == 1


@pytest.mark.parametrize("status", [408, 499])
async def test_row_63_a_deploy_of_which_nothing_is_known_may_have_created_a_server(
    api: ScriptedApi, client: EdgegapClient, status: int
) -> None:
    api.on(*DEPLOY, Reply(status))
    with pytest.raises(CallError) as caught:
        await client.deploy("arena", "v1", users=PLAYERS)
    assert isinstance(caught.value, MaybeCreated)
    with pytest.raises(CallError) as caught:
        await client.deployments.deploy("arena", "v1", users=PLAYERS)

    assert caught.value.maybe_created
    assert "check before you repeat it" in str(caught.value)


@pytest.mark.parametrize("status", [408, 421, 423, 425, 499])
async def test_row_64_a_safe_call_is_repeated_after_a_transient_status(
    api: ScriptedApi, client: EdgegapClient, status: int
) -> None:
    api.on(*STATUS, Reply(status), Reply(status), READY)
    assert (await client.deployments.get("abc123")).current_status == Status.READY

    api.on(*STATUS, *[Reply(status)] * 9, READY)
    await client.handle("abc123").wait_ready(120)


@pytest.mark.parametrize("status", [408, 409, 423, 425, 499])
async def test_row_64_a_stop_is_repeated_after_a_transient_status(
    api: ScriptedApi, client: EdgegapClient, status: int
) -> None:
    api.on(*STOP, Reply(status, {"message": "being deployed"}), Reply())
    await client.deployments.stop("abc123")

    assert stops(api) == 2


async def test_row_65_a_read_waits_for_the_retry_after_of_a_503(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    api.on(*STATUS, Reply(503, headers={"Retry-After": "7"}), READY)
    await client.deployments.get("abc123")
    first, second = api.asked(*STATUS)

    assert second.at - first.at >= 7


async def test_row_65_a_wait_waits_for_the_retry_after_of_a_503(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    api.on(*STATUS, Reply(503, headers={"Retry-After": "7"}), READY)
    await client.handle("abc123").wait_ready(60)
    first, second = api.asked(*STATUS)

    assert second.at - first.at >= 7


# ── 66: background stops ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "answer",
    [
        Reply(409, {"message": "Deployment is being deployed, try again"}),
        Reply(400, OTHER_REASON),
        Reply(423),
        Reply(422, {"message": "not now"}),
        Reply(503),
        Reply(lost=True),
    ],
)
async def test_row_66_a_stop_in_the_background_is_repeated_while_the_client_lives(
    api: ScriptedApi, client: EdgegapClient, answer: Reply
) -> None:
    api.on(*LIST, LISTED)
    api.on(*STOP, *[answer] * 20, Reply())
    with logged_errors() as errors:
        running = asyncio.create_task(run_server(client))
        await asyncio.sleep(60)
        await cancel(running)
        await asyncio.sleep(600)

    assert stops(api) == 21
    assert not errors


@pytest.mark.parametrize("status", [401, 403])
async def test_row_66_a_stop_that_the_api_forbids_is_not_repeated(
    api: ScriptedApi, client: EdgegapClient, status: int
) -> None:
    api.on(*STOP, Reply(status, {"message": "no"}))
    with logged_errors() as errors:
        running = asyncio.create_task(run_server(client))
        await asyncio.sleep(60)
        await cancel(running)
        await asyncio.sleep(600)

    assert stops(api) == 1
    assert "abc123 may go on running" in errors[0]


async def test_row_66_stops_that_fail_end_with_the_client_and_one_line_of_the_log(
    api: ScriptedApi,
) -> None:
    api.on("DELETE", "/v1/stop/abc124", Reply(503))
    api.on(*STOP, Reply(503))
    client = EdgegapClient("canary-t", base_url=api.url)
    with logged_errors() as errors:
        async with client:
            for request_id in ("abc123", "abc124"):
                client._deployer.owned.begin_stop(request_id)
            await asyncio.sleep(300)
            before, closed_at = stops(api), loop_time()
        took = loop_time() - closed_at

    assert stops(api) > before  # `close` tries once more
    assert took < 15
    [line] = errors
    assert line.startswith("abc123, abc124 may go on running")


async def test_row_66_a_server_of_a_cancelled_deploy_is_found_also_if_lists_fail_for_long() -> None:
    lost = Reply(lost=True, delay=1)
    async with TaggedApi(answers=[lost], made=1) as api, new_client(api) as client:
        api.lists_fail_until = loop_time() + 90
        deploying = asyncio.create_task(client.deploy("arena", "v1", users=PLAYERS))
        await asyncio.sleep(0.5)
        await cancel(deploying)
        await asyncio.sleep(200)

        assert len(api.rows) == 1
        assert api.running == []


# ── 68, 69: lists after an ambiguous deploy ──────────────────────────────────────────────────────


async def test_row_68_the_last_list_request_begins_after_the_list_delay() -> None:
    lost = Reply(lost=True, delay=1)
    async with (
        TaggedApi(answers=[lost], made=1, listed_after=(5,), list_takes=11) as api,
        new_client(api) as client,
    ):
        deploying = asyncio.create_task(client.deploy("arena", "v1", users=PLAYERS))
        await asyncio.sleep(0.5)
        await cancel(deploying)
        await asyncio.sleep(60)

        assert len(api.rows) == 1
        assert api.running == []


async def test_row_69_of_two_servers_that_the_first_list_shows_one_is_kept() -> None:
    async with (
        TaggedApi(answers=[Reply(502, b"bad gateway")], made=2) as api,
        new_client(api) as client,
    ):
        handle = await client.deploy("arena", "v1", users=PLAYERS)
        await asyncio.sleep(1)

        assert api.running == [handle.request_id]


async def test_row_69_a_second_server_that_lists_show_later_is_stopped() -> None:
    async with (
        TaggedApi(answers=[Reply(502)], made=3, listed_after=(0, 4, 9)) as api,
        new_client(api) as client,
    ):
        handle = await client.deploy("arena", "v1", users=PLAYERS)
        assert len(api.running) == 3
        await asyncio.sleep(15)

        assert api.running == [handle.request_id]


async def test_row_69_each_surplus_server_of_a_deploy_that_was_sent_again_is_stopped() -> None:
    async with (
        TaggedApi(answers=[Reply(502)], made=2, listed_after=(12, 14)) as api,
        new_client(api) as client,
    ):
        handle = await client.deploy("arena", "v1", users=PLAYERS)
        await asyncio.sleep(60)

        assert (handle.request_id, len(api.rows)) == ("abc123", 2)
        assert api.running == []


async def test_the_text_of_maybe_created_does_not_say_that_nothing_changed(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    api.on(*DEPLOY, Reply(lost=True))
    api.on(*LIST, Reply(lost=True))
    with pytest.raises(MaybeCreated) as caught:
        await client.deploy("arena", "v1", users=PLAYERS)

    assert "changed nothing" not in str(caught.value)
    assert "the list request by its tag failed: GET /v1/deployments" in str(caught.value)
