"""The settings of a client, and the tokens that its calls carry and its errors hide."""

from __future__ import annotations

import traceback
from typing import Any

import pytest
from scripted_api import Reply, ScriptedApi
from scripted_calls import CANARY, DEPLOY, LOST, SEEN, STATUS, deploy

from edgegap_async.api import operations as endpoints
from edgegap_async.api.requests import Token
from edgegap_async.concurrency import loop_time
from edgegap_async.errors import (
    CallError,
    InvalidRequest,
    NoAnswer,
)
from edgegap_async.http.api_client import DEFAULT_BASE_URL, ApiClient
from edgegap_async.http.retries import RetryPolicy
from edgegap_async.http.transport import Timeouts

pytestmark = pytest.mark.virtual


@pytest.mark.parametrize(
    "token", ["canary-a", "token canary-a", "Token canary-a", " token  canary-a "]
)
async def test_a_token_is_accepted_with_and_without_its_leading_word(
    api: ScriptedApi, token: str
) -> None:
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


async def test_settings_that_are_not_passed_come_from_the_environment(
    api: ScriptedApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.on(*STATUS, Reply(delay=5))
    monkeypatch.setenv("EDGEGAP_API_TOKEN", "token canary-from-environment")
    monkeypatch.setenv("EDGEGAP_API_URL", api.url)
    monkeypatch.setenv("EDGEGAP_TIMEOUT_MS", "1500")
    began = loop_time()
    async with ApiClient(retries=RetryPolicy(attempts=1)) as client:
        with pytest.raises(NoAnswer):
            await client.deployments.get("r1")

    assert loop_time() - began == pytest.approx(1.5, abs=0.1)
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

    assert repr(ApiClient("canary-abc")) == "ApiClient('https://first.example')"


@pytest.mark.parametrize("text", ["soon", "0", "-5", "1.5"])
async def test_a_timeout_in_the_environment_is_a_number_of_milliseconds(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("EDGEGAP_TIMEOUT_MS", text)
    with pytest.raises(InvalidRequest, match="EDGEGAP_TIMEOUT_MS"):
        ApiClient("canary-abc")


async def test_the_error_of_a_failed_constructor_shows_no_token() -> None:
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


@pytest.mark.parametrize(
    "answer",
    [
        Reply(403, {"message": f"'{CANARY}' is no key=value pair: 'token {CANARY}'"}),
        Reply(502, f"<html>token {CANARY}".encode()),
        Reply(200, f"<html>token {CANARY}".encode()),
        Reply(200, b"<html>" + b" " * 190 + CANARY.encode()),
        Reply(200, b"[]", {"Content-Type": CANARY}),
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


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"base_url": 5}, "base_url must be of type str"),
        ({"session": 3}, "session must be of type ClientSession"),
        ({"timeouts": "5"}, "timeouts must be of type Timeouts"),
        ({"retries": 3}, "retries must be of type RetryPolicy"),
        ({"guard": True}, "guard must be of type Guard"),
        ({"limits": 5}, "limits must be of type Mapping"),
        ({"limits": {"deploy": "20"}}, "the limit of deploy must be of type int or float"),
        ({"limits": {"deploy": True}}, "the limit of deploy must be of type int or float"),
    ],
)
async def test_a_setting_of_a_wrong_kind_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        ApiClient("canary-t", **settings)


async def test_a_body_of_the_wrong_type_is_not_sent(client: ApiClient) -> None:
    with pytest.raises(InvalidRequest, match="the body of deploy must be of type DeployRequest"):
        await client.call(endpoints.DEPLOY, body={"application": "arena"})


async def test_a_number_for_timeouts_is_the_total_of_an_attempt(api: ScriptedApi) -> None:
    api.on(*STATUS, Reply(delay=60))
    began = loop_time()
    async with ApiClient(
        CANARY, base_url=api.url, timeouts=5, retries=RetryPolicy(attempts=1)
    ) as client:
        with pytest.raises(NoAnswer):
            await client.deployments.get("r1")

    assert loop_time() - began == pytest.approx(5, abs=0.5)


@pytest.mark.parametrize("timeouts", [0, -1, "5", True])
def test_timeouts_that_are_no_seconds_are_refused(timeouts: Any) -> None:
    with pytest.raises(InvalidRequest):
        ApiClient(CANARY, timeouts=timeouts)
