"""One call through limits, network and repeats: counted at a real server, on a clock that jumps."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import aiohttp
import attrs
import pytest
from scripted_api import Reply, ScriptedApi

from edgegap_async.api import operations as endpoints
from edgegap_async.api.models import Stopped
from edgegap_async.api.operations import GET_DEPLOYMENT
from edgegap_async.api.requests import Token
from edgegap_async.errors import (
    BadRequest,
    CallError,
    ClientClosed,
    EdgegapError,
    Gone,
    InvalidRequest,
    LimitReached,
    NoAnswer,
    NotFound,
    RateLimited,
    ServerError,
    Unauthorized,
    UnreadableAnswer,
)
from edgegap_async.http.api_client import DEFAULT_BASE_URL, ApiClient
from edgegap_async.http.call_options import CallOptions
from edgegap_async.http.rate_limits import Limits, Priority
from edgegap_async.http.resources import Deployments
from edgegap_async.http.retries import RetryPolicy
from edgegap_async.http.transport import Timeouts

pytestmark = pytest.mark.virtual

NO_LIMITS = {"get_deployment": None}
ONCE = RetryPolicy(attempts=1)

STATUS = ("GET", "/v1/status/r1")
STOP = ("DELETE", "/v1/stop/r1")
DEPLOY = ("POST", "/v2/deployments")

CANARY = "canary-77aa"
SEEN = Reply(body={"request_id": "r1", "current_status": "Status.READY"})
LOST = Reply(lost=True)


@pytest.fixture
async def api() -> AsyncIterator[ScriptedApi]:
    async with ScriptedApi() as api:
        yield api


@pytest.fixture
async def client(api: ScriptedApi) -> AsyncIterator[ApiClient]:
    async with ApiClient(CANARY, base_url=api.url) as client:
        yield client


def now() -> float:
    return asyncio.get_running_loop().time()


async def deploy(client: ApiClient) -> str:
    return (await client.deployments.deploy("arena", "v1", users=["192.0.2.1"])).request_id


# ── repeats ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "first", [Reply(500), Reply(503, b"<html>"), Reply(429), LOST, Reply(200, b"not JSON")]
)
async def test_row_10_11_16_a_read_is_repeated(
    api: ScriptedApi, client: ApiClient, first: Reply
) -> None:
    api.on(*STATUS, first, SEEN)

    assert (await client.deployments.get("r1")).current_status.is_ready
    assert len(api.requests) == 2


@pytest.mark.parametrize(
    ("reply", "error", "attempts"),
    [
        (Reply(500), ServerError, 4),
        (Reply(429), RateLimited, 4),
        (LOST, NoAnswer, 4),
        (Reply(200, b"not JSON"), UnreadableAnswer, 2),
        (Reply(401), Unauthorized, 1),
        (Reply(404), NotFound, 1),
        (Reply(400), NotFound, 1),
    ],
)
async def test_a_read_fails_after_as_many_attempts_as_make_sense(
    api: ScriptedApi, client: ApiClient, reply: Reply, error: type[CallError], attempts: int
) -> None:
    api.on(*STATUS, reply)
    with pytest.raises(error) as caught:
        await client.deployments.get("r1")

    assert type(caught.value) is error
    assert caught.value.attempts == attempts
    assert caught.value.request_id == "r1"
    assert client.requests_sent == attempts
    if reply is not LOST:  # aiohttp sends a GET again by itself
        assert len(api.requests) == attempts


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (Reply(500), ServerError),
        (Reply(502, b"<html>"), ServerError),
        (LOST, NoAnswer),
        (Reply(202, b"not JSON"), UnreadableAnswer),
        (Reply(202), UnreadableAnswer),
        (Reply(302, headers={"Location": "/"}), UnreadableAnswer),
        (Reply(400), BadRequest),
    ],
)
async def test_a_deploy_that_may_have_been_accepted_is_never_sent_twice(
    api: ScriptedApi, client: ApiClient, reply: Reply, error: type[CallError]
) -> None:
    api.on(*DEPLOY, reply)
    with pytest.raises(error):
        await deploy(client)

    assert len(api.requests) == 1


async def test_row_13_a_deploy_that_was_refused_for_the_limit_is_sent_again(
    api: ScriptedApi, client: ApiClient
) -> None:
    api.on(*DEPLOY, Reply(429), Reply(202, {"request_id": "r1"}))

    assert await deploy(client) == "r1"
    assert len(api.requests) == 2


async def test_a_deploy_that_never_went_out_is_tried_again(api: ScriptedApi) -> None:
    class LateHost(aiohttp.ThreadedResolver):
        left = 2

        async def resolve(self, *arguments: Any, **options: Any) -> Any:
            self.left -= 1
            if self.left >= 0:
                raise OSError("no such host")
            return await super().resolve(*arguments, **options)

    api.on(*DEPLOY, Reply(202, {"request_id": "r1"}))
    connector = aiohttp.TCPConnector(resolver=LateHost(), use_dns_cache=False)
    url = api.url.replace("127.0.0.1", "localhost")
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        ApiClient(CANARY, base_url=url, session=session) as client,
    ):
        assert await deploy(client) == "r1"
        assert client.requests_sent == 3

    assert len(api.requests) == 1


async def test_row_14_retry_after_is_waited_for(api: ScriptedApi, client: ApiClient) -> None:
    api.on(*STATUS, Reply(429, headers={"Retry-After": "7"}), SEEN)
    await client.deployments.get("r1")
    first, second = api.requests

    assert 7 <= second.at - first.at <= 7.3


async def test_others_wait_too_after_a_429(api: ScriptedApi, client: ApiClient) -> None:
    api.on(*STATUS, Reply(429, headers={"Retry-After": "7"}), SEEN)
    first = asyncio.create_task(client.deployments.get("r1"))
    await api.until_asked(*STATUS)
    await asyncio.sleep(0.1)
    await client.deployments.get("r1")
    await first

    assert api.requests[1].at - api.requests[0].at >= 7


async def test_a_policy_of_one_attempt_never_repeats(api: ScriptedApi) -> None:
    api.on(*STATUS, Reply(500))
    async with ApiClient("canary-t", base_url=api.url, retries=RetryPolicy(attempts=1)) as client:
        with pytest.raises(ServerError):
            await client.deployments.get("r1")

    assert len(api.requests) == 1


async def test_an_outage_is_not_multiplied_by_the_repeats_of_many(api: ScriptedApi) -> None:
    api.on(*STATUS, Reply(500))
    policy = RetryPolicy(budget=10)
    async with ApiClient("canary-t", base_url=api.url, retries=policy, limits=NO_LIMITS) as client:
        outcomes = await asyncio.gather(
            *(client.deployments.get("r1") for _ in range(100)), return_exceptions=True
        )

    assert all(isinstance(outcome, ServerError) for outcome in outcomes)
    assert len(api.requests) == 100 + 10


async def test_a_stop_is_repeated_whatever_is_left_of_the_budget(api: ScriptedApi) -> None:
    api.on("DELETE", "/v1/stop/r1", Reply(500), Reply(500), Reply(200))
    async with ApiClient("canary-t", base_url=api.url, retries=RetryPolicy(budget=0)) as client:
        await client.deployments.stop("r1")

    assert len(api.requests) == 3


async def test_an_error_tells_how_long_was_waited_for_the_repeats(
    api: ScriptedApi, client: ApiClient
) -> None:
    api.on(*STATUS, Reply(429, headers={"Retry-After": "7"}), Reply(401))
    with pytest.raises(Unauthorized) as caught:
        await client.deployments.get("r1")

    assert caught.value.attempts == 2
    assert 7 <= caught.value.waited <= 7.3


async def test_each_attempt_has_its_own_time(api: ScriptedApi) -> None:
    api.on(*STATUS, Reply(delay=5), SEEN)
    async with ApiClient("canary-t", base_url=api.url, timeouts=Timeouts(total=2)) as client:
        await client.deployments.get("r1")

    first, second = api.requests
    assert 2 <= second.at - first.at <= 2.3


async def test_a_repeat_pays_at_the_limit_too(api: ScriptedApi) -> None:
    api.on(*STATUS, Reply(500), SEEN)
    limits = Limits({"get_deployment": 0.1})
    async with ApiClient("canary-t", base_url=api.url, limits=limits) as client:
        await client.deployments.get("r1")

    assert api.requests[1].at - api.requests[0].at >= 10


# ── limits ───────────────────────────────────────────────────────────────────────────────────────


async def test_row_14_one_that_was_refused_goes_first_when_the_time_has_come(
    api: ScriptedApi,
) -> None:
    api.on(*STATUS, Reply(429, headers={"Retry-After": "7"}), SEEN)
    api.on("GET", "/v1/status/r2", SEEN)
    async with ApiClient("canary-t", base_url=api.url, limits={"get_deployment": 1}) as client:
        first = asyncio.create_task(client.deployments.get("r1"))
        await api.until_asked(*STATUS)
        await asyncio.gather(first, *(client.deployments.get("r2") for _ in range(3)))

    assert [request.path for request in api.requests[:3]] == [STATUS[1], STATUS[1], "/v1/status/r2"]
    assert api.requests[1].at - api.requests[0].at == pytest.approx(7, abs=0.1)


async def test_row_14_nothing_is_drawn_on_top_of_what_the_api_asked_for(api: ScriptedApi) -> None:
    api.on(*STATUS, Reply(429, headers={"Retry-After": "7"}), SEEN)
    policy = RetryPolicy(first_wait=1000, max_wait=1000, deadline=8)
    async with ApiClient("canary-t", base_url=api.url, retries=policy) as client:
        await client.deployments.get("r1")

    assert api.requests[1].at - api.requests[0].at == pytest.approx(7, abs=0.1)


async def test_row_14_an_operation_without_a_limit_waits_as_long_as_it_is_told(
    api: ScriptedApi, client: ApiClient
) -> None:
    api.on(*STOP, Reply(429, headers={"Retry-After": "7"}), Reply(200))
    await client.deployments.stop("r1")

    assert 7 <= api.requests[1].at - api.requests[0].at <= 7.3


async def test_a_client_that_shall_not_wait_says_so_and_sends_nothing(api: ScriptedApi) -> None:
    api.on(*STATUS, SEEN)
    async with ApiClient("canary-t", base_url=api.url, on_limit="raise") as client:
        outcomes = await asyncio.gather(
            *(client.deployments.get("r1") for _ in range(8)), return_exceptions=True
        )

    refused = [outcome for outcome in outcomes if isinstance(outcome, LimitReached)]
    assert len(refused) == 3
    assert len(api.requests) == client.requests_sent == 5
    assert (refused[0].attempts, refused[0].request_id) == (1, "r1")
    assert str(refused[0]) == (
        "GET /v1/status/r1. the rate limit would let it go after "
        f"{refused[0].predicted_wait:.2f} s, and it may wait 0 s. Nothing was sent: "
        "try again later, or let it wait longer"
    )


async def test_a_client_may_wait_for_so_long_and_no_longer(api: ScriptedApi) -> None:
    api.on(*STATUS, SEEN)
    async with ApiClient("canary-t", base_url=api.url, max_wait=2) as client:
        outcomes = await asyncio.gather(
            *(client.deployments.get("r1") for _ in range(100)), return_exceptions=True
        )

    assert sum(isinstance(outcome, LimitReached) for outcome in outcomes) == 100 - len(api.requests)
    assert 40 <= len(api.requests) <= 45
    assert api.requests[-1].at - api.requests[0].at <= 2.05


async def test_stops_and_what_goes_before_its_usual_place_wait_whatever_is_set(
    api: ScriptedApi,
) -> None:
    api.on(*STATUS, SEEN)
    api.on(*STOP, Reply(200))
    rows = {"data": [], "total_count": 0, "pagination": {"has_next": False}}
    api.on("GET", "/v1/deployments", Reply(body=rows))
    limits = {"get_deployment": 1, "stop_deployment": 1, "list_deployments": 1}
    async with ApiClient("canary-t", base_url=api.url, limits=limits, on_limit="raise") as client:
        for _ in range(3):
            await client.deployments.stop("r1")
            assert [row async for row in client._cleanup_deployments.list()] == []
            await client.call(
                GET_DEPLOYMENT,
                path={"request_id": "r1"},
                options=CallOptions(priority=Priority.STATUS),
            )
        with pytest.raises(LimitReached):
            await client.deployments.get("r1")
        with pytest.raises(LimitReached):
            await client.deployments.list_page()


async def test_cleaning_goes_before_other_calls(api: ScriptedApi) -> None:
    rows = {"data": [], "total_count": 0, "pagination": {"has_next": False}}
    api.on("GET", "/v1/deployments", Reply(body=rows))
    async with ApiClient("canary-t", base_url=api.url, limits={"list_deployments": 1}) as client:
        served = list[str]()

        async def one(name: str, deployments: Deployments) -> None:
            await deployments.list_page()
            served.append(name)

        await client.deployments.list_page()
        others = [one(f"other {number}", client.deployments) for number in range(3)]
        await asyncio.gather(*others, one("cleanup", client._cleanup_deployments))

    assert served == ["cleanup", "other 0", "other 1", "other 2"]


async def test_a_repeat_that_may_not_wait_ends_with_what_the_first_ended_with(
    api: ScriptedApi,
) -> None:
    api.on(*STATUS, Reply(429, headers={"Retry-After": "7"}))
    async with ApiClient("canary-t", base_url=api.url, on_limit="raise") as client:
        began = now()
        with pytest.raises(RateLimited) as caught:
            await client.deployments.get("r1")

    assert now() - began < 1
    assert (caught.value.attempts, caught.value.retry_after) == (1, 7)
    assert len(api.requests) == 1


@pytest.mark.parametrize(
    "settings",
    [
        {"on_limit": "panic"},
        {"max_wait": -1},
        {"max_wait": float("nan")},
        {"max_wait": "2"},
        {"on_limit": "raise", "max_wait": 2},
    ],
)
async def test_a_wait_that_cannot_be_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match=r"on_limit|max_wait"):
        ApiClient("canary-t", **settings)


async def test_clients_of_one_loop_may_share_their_limits(api: ScriptedApi) -> None:
    api.on(*STATUS, SEEN)
    limits = Limits()
    async with (
        ApiClient("canary-t", base_url=api.url, limits=limits) as one,
        ApiClient("canary-t", base_url=api.url, limits=limits) as other,
    ):
        assert one.limits is other.limits
        await asyncio.gather(
            *(client.deployments.get("r1") for client in (one, other) for _ in range(30))
        )

    times = sorted(request.at for request in api.requests)
    assert all(later - sooner >= 1 for sooner, later in zip(times, times[20:], strict=False))


# ── a DELETE whose first answer was lost ─────────────────────────────────────────────────────────


@pytest.mark.parametrize("then", [410, 404, 400])
@pytest.mark.parametrize("first", [LOST, Reply(500)], ids=["lost", "500"])
async def test_row_08_a_stop_that_finds_its_work_done_has_succeeded(
    api: ScriptedApi, client: ApiClient, first: Reply, then: int
) -> None:
    api.on(*STOP, first, Reply(then))

    assert await client.deployments.stop("r1") == Stopped()
    assert len(api.requests) == 2


async def test_a_tag_that_is_gone_after_a_lost_answer_was_deleted(
    api: ScriptedApi, client: ApiClient
) -> None:
    api.on("DELETE", "/v1/deployments/r1/tags/eu", LOST, Reply(404))
    await client.tags.delete("r1", "eu")

    assert len(api.requests) == 2


@pytest.mark.parametrize(("status", "error"), [(410, Gone), (404, NotFound), (400, NotFound)])
@pytest.mark.parametrize("before", [(), (Reply(429),), (Reply(429), Reply(429))])
async def test_row_20_a_stop_of_what_is_not_there_fails(
    api: ScriptedApi,
    client: ApiClient,
    before: tuple[Reply, ...],
    status: int,
    error: type[CallError],
) -> None:
    api.on(*STOP, *before, Reply(status))
    with pytest.raises(error):
        await client.deployments.stop("r1")

    assert len(api.requests) == len(before) + 1


async def test_a_read_of_what_is_gone_after_a_lost_answer_fails(
    api: ScriptedApi, client: ApiClient
) -> None:
    api.on(*STATUS, LOST, Reply(404))
    with pytest.raises(NotFound):
        await client.deployments.get("r1")


# ── tokens and settings ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "token", ["canary-a", "token canary-a", "Token canary-a", " token  canary-a "]
)
async def test_a_token_goes_with_or_without_its_leading_word(api: ScriptedApi, token: str) -> None:
    api.on(*STATUS, SEEN)
    for passed in (token, Token(token, scheme="token")):
        async with ApiClient(passed, base_url=api.url) as client:
            await client.deployments.get("r1")

    assert {got.headers["Authorization"] for got in api.requests} == {"token canary-a"}


async def test_a_self_stop_sends_its_own_token_and_needs_no_other(api: ScriptedApi) -> None:
    api.on("DELETE", "/v1/self/stop/r1/42", Reply(body={"message": "bye"}))
    async with ApiClient(base_url=api.url) as client:
        stopped = await client.deployments.stop_self("r1", 42, token="canary-own")

        assert stopped.message == "bye"
        assert api.requests[0].headers["Authorization"] == "canary-own"
        with pytest.raises(InvalidRequest, match="EDGEGAP_API_TOKEN"):
            await client.deployments.get("r1")


async def test_what_is_not_passed_comes_from_the_environment(
    api: ScriptedApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.on(*STATUS, Reply(delay=5))
    monkeypatch.setenv("EDGEGAP_API_TOKEN", "token canary-from-environment")
    monkeypatch.setenv("EDGEGAP_API_URL", api.url)
    monkeypatch.setenv("EDGEGAP_TIMEOUT_MS", "1500")
    began = now()
    async with ApiClient(retries=RetryPolicy(attempts=1)) as client:
        with pytest.raises(NoAnswer):
            await client.deployments.get("r1")

    assert now() - began == pytest.approx(1.5, abs=0.1)
    assert api.requests[0].headers["Authorization"] == "token canary-from-environment"


async def test_arguments_win_over_the_environment(
    api: ScriptedApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEGAP_API_TOKEN", "canary-other")
    monkeypatch.setenv("EDGEGAP_BASE_URL", "https://other.example")
    monkeypatch.setenv("EDGEGAP_TIMEOUT_MS", "not a number")
    api.on(*STATUS, SEEN)
    async with ApiClient("canary-abc", base_url=api.url, timeouts=Timeouts()) as client:
        await client.deployments.get("r1")

    assert api.requests[0].headers["Authorization"] == "token canary-abc"


async def test_one_variable_for_the_url_wins_over_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert DEFAULT_BASE_URL in repr(ApiClient("canary-abc"))
    monkeypatch.setenv("EDGEGAP_API_URL", "https://second.example")
    monkeypatch.setenv("EDGEGAP_BASE_URL", "https://first.example")

    assert repr(ApiClient("canary-abc")) == "ApiClient(Transport('https://first.example'))"


@pytest.mark.parametrize("text", ["soon", "0", "-5", "1.5"])
async def test_a_timeout_in_the_environment_is_a_number_of_milliseconds(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("EDGEGAP_TIMEOUT_MS", text)
    with pytest.raises(InvalidRequest, match="EDGEGAP_TIMEOUT_MS"):
        ApiClient("canary-abc")


async def test_a_client_that_cannot_be_made_shows_no_token() -> None:
    with pytest.raises(InvalidRequest) as caught:
        ApiClient(CANARY, base_url="nowhere")

    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert CANARY not in "".join(shown.format())


@pytest.mark.parametrize("reply", [Reply(500), Reply(401), LOST, Reply(200, b"no JSON")])
async def test_an_error_of_a_call_shows_no_token(
    api: ScriptedApi, client: ApiClient, reply: Reply
) -> None:
    api.on(*DEPLOY, reply)
    with pytest.raises(CallError) as caught:
        await deploy(client)

    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert CANARY not in "".join(shown.format()) + repr(vars(caught.value))
    assert caught.value.__context__ is None


# ── closing ──────────────────────────────────────────────────────────────────────────────────────

Waiting = Callable[[ScriptedApi, ApiClient], Coroutine[Any, Any, Any]]


async def in_flight(api: ScriptedApi, client: ApiClient) -> None:
    api.on(*STATUS, Reply(delay=20))
    await client.deployments.get("r1")


async def in_the_limiter(api: ScriptedApi, client: ApiClient) -> None:
    api.on(*STATUS, SEEN)
    await asyncio.gather(*(client.deployments.get("r1") for _ in range(300)))


async def in_back_off(api: ScriptedApi, client: ApiClient) -> None:
    api.on(*STATUS, Reply(429, headers={"Retry-After": "30"}))
    await client.deployments.get("r1")


async def in_a_list(api: ScriptedApi, client: ApiClient) -> None:
    api.on("GET", "/v1/deployments", Reply(delay=20))
    async for _ in client.deployments.list():
        pass


WAITS = [in_flight, in_the_limiter, in_back_off, in_a_list]


@pytest.mark.parametrize("wait", WAITS)
async def test_row_31_close_ends_every_wait_at_once(
    api: ScriptedApi, client: ApiClient, wait: Waiting
) -> None:
    waiting = asyncio.create_task(wait(api, client))
    await asyncio.sleep(3)
    assert not waiting.done()
    began = now()
    await client.close()
    with pytest.raises(ClientClosed):
        await waiting

    assert now() - began < 0.1
    assert waiting.cancelling() == 0


@pytest.mark.parametrize("wait", WAITS)
async def test_the_callers_own_timeout_keeps_its_meaning(
    api: ScriptedApi, client: ApiClient, wait: Waiting
) -> None:
    began = now()
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(3):
            await wait(api, client)

    assert not isinstance(caught.value, EdgegapError)
    assert now() - began == pytest.approx(3, abs=0.1)


@pytest.mark.parametrize("wait", WAITS)
async def test_the_callers_own_cancellation_keeps_its_meaning(
    api: ScriptedApi, client: ApiClient, wait: Waiting
) -> None:
    waiting = asyncio.create_task(wait(api, client))
    await asyncio.sleep(3)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    sent = len(api.requests)
    await asyncio.sleep(60)

    assert len(api.requests) == sent


async def test_a_cancellation_wins_over_a_close_in_the_same_moment(
    api: ScriptedApi, client: ApiClient
) -> None:
    waiting = asyncio.create_task(in_flight(api, client))
    await api.until_asked(*STATUS)
    waiting.cancel()
    await client.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_call_that_ends_while_the_client_closes_is_client_closed(
    api: ScriptedApi, client: ApiClient
) -> None:
    with pytest.raises(ClientClosed):
        await asyncio.gather(in_flight(api, client), close_soon(client))


async def close_soon(client: ApiClient) -> None:
    await asyncio.sleep(1)
    await client.close()


async def test_a_call_in_the_cleanup_of_a_cancelled_task_is_client_closed_too(
    api: ScriptedApi, client: ApiClient
) -> None:
    async def work() -> str:
        try:
            await asyncio.sleep(100)
        finally:
            try:
                await in_flight(api, client)
            except ClientClosed:
                cleaned.set()
        return "not reached"

    cleaned = asyncio.Event()
    working = asyncio.create_task(work())
    await asyncio.sleep(1)
    working.cancel()
    await api.until_asked(*STATUS)
    await client.close()
    with pytest.raises(asyncio.CancelledError):
        await working

    assert cleaned.is_set()


async def test_two_closes_at_once_are_one(api: ScriptedApi, client: ApiClient) -> None:
    waiting = asyncio.create_task(in_flight(api, client))
    await api.until_asked(*STATUS)
    await asyncio.gather(client.close(), client.close())
    with pytest.raises(ClientClosed):
        await waiting


async def test_blocks_that_end_with_the_client_may_hold_each_other(
    api: ScriptedApi, client: ApiClient
) -> None:
    api.on(*STATUS, SEEN, Reply(delay=20))

    async def work() -> None:
        with client.until_closed():
            await client.deployments.get("r1")
            await client.deployments.get("r1")

    working = asyncio.create_task(work())
    await api.until_asked(*STATUS, times=2)
    await client.close()
    with pytest.raises(ClientClosed):
        await working


async def test_a_block_that_fails_as_it_is_closed_keeps_its_own_error(client: ApiClient) -> None:
    async def work() -> None:
        with client.until_closed():
            try:
                await asyncio.sleep(100)
            finally:
                raise LookupError

    working = asyncio.create_task(work())
    await asyncio.sleep(1)
    await client.close()
    with pytest.raises(LookupError):
        await working

    assert working.cancelling() == 0


async def test_after_close_nothing_is_sent_and_closing_twice_is_fine(
    api: ScriptedApi, client: ApiClient
) -> None:
    await client.close()
    await client.close()
    with pytest.raises(ClientClosed):
        await client.deployments.get("r1")

    assert not api.requests


async def test_a_session_that_was_passed_in_outlives_the_client(api: ScriptedApi) -> None:
    api.on(*STATUS, SEEN)
    async with aiohttp.ClientSession() as session:
        async with ApiClient("canary-t", base_url=api.url, session=session) as client:
            await client.deployments.get("r1")

        assert not session.closed
        assert not session.trace_configs


async def test_a_call_outside_of_a_task_is_a_programming_error(client: ApiClient) -> None:
    loop = asyncio.get_running_loop()
    told = loop.create_future()

    def step() -> None:
        coroutine = client.deployments.get("r1")
        try:
            coroutine.send(None)
        except RuntimeError as error:
            told.set_result(str(error))

    loop.call_soon(step)

    assert await told == "the client is used inside an asyncio task"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"base_url": 5}, "base_url is of type str"),
        ({"session": 3}, "session is of type ClientSession"),
        ({"timeouts": 5}, "timeouts is of type Timeouts"),
        ({"retries": 3}, "retries is of type RetryPolicy"),
        ({"guard": True}, "guard is of type Guard"),
        ({"limits": 5}, "limits is of type Mapping"),
        ({"limits": {"deploy": "20"}}, "the limit of deploy is of type int or float"),
        ({"limits": {"deploy": True}}, "the limit of deploy is of type int or float"),
    ],
)
async def test_a_setting_of_a_wrong_kind_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        ApiClient("canary-t", **settings)


async def test_waiting_for_a_connection_takes_nothing_from_a_calls_timeout(
    api: ScriptedApi,
) -> None:
    api.on("DELETE", "/v1/stop/abc123", Reply(200, {}, delay=0.5))
    async with ApiClient("canary-t", base_url=api.url, timeouts=Timeouts(total=1)) as client:
        stops = (client.deployments.stop("abc123") for _ in range(350))
        await asyncio.gather(*stops)  # a hundred at a time, so that the last begins after 1.5 s

    assert len(api.requests) == 350


async def test_while_every_connection_hangs_no_permits_are_saved_up(
    api: ScriptedApi,
) -> None:
    answered = asyncio.Event()
    api.on(*DEPLOY, Reply(202, {"request_id": "r1"}, after=answered))
    async with ApiClient(CANARY, base_url=api.url) as client:
        deploys = [asyncio.create_task(deploy(client)) for _ in range(250)]
        await asyncio.sleep(10)  # as long as it takes to give them all a permit
        assert len(api.requests) == 100
        answered.set()
        await asyncio.gather(*deploys)

    times = [request.at for request in api.requests]
    assert len(times) == 250
    assert min(later - sooner for sooner, later in zip(times, times[40:], strict=False)) > 1


async def test_who_may_not_wait_long_does_not_wait_long_for_a_connection_either(
    api: ScriptedApi,
) -> None:
    answered = asyncio.Event()
    api.on(*STATUS, attrs.evolve(SEEN, after=answered))
    async with ApiClient(
        CANARY, base_url=api.url, limits=NO_LIMITS, max_wait=0.5, retries=ONCE
    ) as client:
        looks = [asyncio.create_task(client.deployments.get("r1")) for _ in range(100)]
        await api.until_asked(*STATUS, 100)
        began = now()
        with pytest.raises(LimitReached, match="all connections are in use") as caught:
            await client.deployments.get("r1")

        assert now() - began == pytest.approx(0.5, abs=0.01)
        assert (caught.value.path, caught.value.request_id) == ("/v1/status/r1", "r1")
        answered.set()
        await asyncio.gather(*looks)


async def test_one_that_gives_up_waiting_for_its_permit_leaves_its_connection_to_others(
    api: ScriptedApi,
) -> None:
    answered = asyncio.Event()
    api.on(*STATUS, attrs.evolve(SEEN, after=answered))
    limits = {"get_deployment": 1000.0}
    async with ApiClient(CANARY, base_url=api.url, limits=limits, retries=ONCE) as client:
        looks = [asyncio.create_task(client.deployments.get("r1")) for _ in range(101)]
        await asyncio.sleep(1)  # all have their permits, and one of them no connection
        client.limits.on_rate_limited(GET_DEPLOYMENT, 60)
        answered.set()
        await asyncio.gather(*looks[:-1])
        looks[-1].cancel()  # with a connection, and no permit
        await asyncio.wait(looks)
        free = [client._transport.connection_slots(GET_DEPLOYMENT).acquire() for _ in range(100)]

        assert await asyncio.wait_for(asyncio.gather(*free), 1) == [True] * 100


@pytest.mark.parametrize(
    "answer",
    [
        Reply(403, {"message": f"'{CANARY}' is no key=value pair: 'token {CANARY}'"}),
        Reply(502, f"<html>token {CANARY}".encode()),
        Reply(200, f"<html>token {CANARY}".encode()),
        Reply(200, b"<html>" + b" " * 190 + CANARY.encode()),
    ],
)
async def test_row_11_an_answer_that_repeats_the_token_does_not_show_it(
    api: ScriptedApi, answer: Reply, caplog: pytest.LogCaptureFixture
) -> None:
    api.on(*STATUS, answer)
    async with ApiClient(CANARY, base_url=api.url) as client:
        with pytest.raises(CallError) as caught:
            await client.deployments.get("r1")

    assert CANARY[:6] not in str(caught.value) + caplog.text


async def test_the_time_for_repeats_begins_when_the_first_attempt_does(api: ScriptedApi) -> None:
    api.on(*STATUS, Reply(503), SEEN)
    client = ApiClient(
        CANARY,
        base_url=api.url,
        limits={"get_deployment": 0.1},
        retries=RetryPolicy(deadline=15),
    )
    async with client:
        await client.limits.acquire(GET_DEPLOYMENT)
        await client.limits.acquire(GET_DEPLOYMENT)  # so that the next waits for 20 s
        seen = await client.deployments.get("r1")

    assert (seen.attempts, seen.current_status.is_ready) == (2, True)


async def test_a_body_that_is_not_what_a_call_takes_is_not_sent(client: ApiClient) -> None:
    with pytest.raises(InvalidRequest, match="the body of deploy is of type DeployRequest"):
        await client.call(endpoints.DEPLOY, body={"application": "arena"})
