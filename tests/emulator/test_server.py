"""HTTP: tokens, web pages, errors, rate limits."""

from __future__ import annotations

import asyncio
import io
import json
import math
from typing import Any

import aiohttp
import pytest
from bare_api import DEPLOY_BODY, BareApi, example_path
from emulated_cloud import UNKNOWN_ID

from edgegap_async.api.operations import Auth
from edgegap_async.api.register import OPERATIONS
from edgegap_async.emulator import (
    Emulator,
    sample_application,
)
from edgegap_async.emulator.cloud_state import UNKNOWN_LOGS_TEXT
from edgegap_async.emulator.rate_limits import RateLimit
from edgegap_async.errors import InvalidRequest

JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
@pytest.mark.parametrize("authorization", ["", "Bearer {token}", "{token}", "token wrong"])
async def test_a_call_without_its_token_is_unauthorized(
    api: BareApi, operation: Any, authorization: str
) -> None:
    if operation.auth is Auth.DEPLOYMENT_TOKEN:
        path = example_path(operation.path).replace(UNKNOWN_ID, await api.deploy())
    else:
        path = example_path(operation.path)

    status, said = await api(
        operation.method, path, authorization=authorization.format(token=api.emulator.token)
    )

    assert (status, list(said)) == (401, ["message"])


@pytest.mark.parametrize("authorization", ["", "token wrong"])
@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1/nothing"), ("GET", "/"), ("PUT", "/v1/deployments")]
)
async def test_without_the_token_an_unknown_path_or_method_is_unauthorized_too(
    api: BareApi, method: str, path: str, authorization: str
) -> None:
    status, said = await api(method, path, authorization=authorization)

    assert (status, list(said)) == (401, ["message"])


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "[::1"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
    ],
    ids=str,
)
async def test_a_request_of_a_web_page_is_forbidden(api: BareApi, headers: dict[str, str]) -> None:
    status, said = await api("GET", "/v1/deployments", headers=headers)

    assert (status, list(said)) == (403, ["message"])


async def test_the_emulators_own_origin_is_allowed(api: BareApi) -> None:
    status, _ = await api("GET", "/v1/deployments", headers={"Origin": api.emulator.url})

    assert status == 200


# ── errors ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (b"{", "the body is not JSON"),
        (b"[]", "the body is not a JSON object"),
        (json.dumps({**DEPLOY_BODY, "users": []}).encode(), "users must not be empty"),
        (json.dumps({**DEPLOY_BODY, "app_name": "arena"}).encode(), "extra fields"),
        (json.dumps({**DEPLOY_BODY, "version": "v9"}).encode(), "No deployment has been created"),
    ],
)
async def test_a_wrong_deploy_is_a_bad_request_that_says_why(
    api: BareApi, body: bytes, complaint: str
) -> None:
    status, said = await api("POST", "/v2/deployments", data=body, headers=JSON)

    assert status == 400
    assert complaint in said["message"]
    assert api.emulator.cloud.deployments == {}


async def test_a_body_that_is_too_large_is_refused(api: BareApi) -> None:
    status, said = await api(
        "POST", "/v2/deployments", data=io.BytesIO(b" " * (2**20 + 1)), headers=JSON
    )

    assert (status, list(said)) == (413, ["message"])


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
)
@pytest.mark.parametrize("path", ["/v2/deployments", f"/v1/deployments/{UNKNOWN_ID}/tags"])
async def test_a_body_that_is_not_declared_as_json_is_refused(
    api: BareApi, path: str, content_type: str
) -> None:
    body = json.dumps(DEPLOY_BODY).encode()
    status, said = await api("POST", path, data=body, headers={"Content-Type": content_type})

    assert (status, list(said)) == (415, ["message"])
    assert api.emulator.cloud.deployments == {}


async def test_a_charset_may_follow_the_type_json(api: BareApi) -> None:
    status, _ = await api(
        "POST",
        "/v2/deployments",
        data=json.dumps(DEPLOY_BODY).encode(),
        headers={"Content-Type": "application/json; charset=utf-8"},
    )

    assert status == 202


async def test_an_expectation_that_does_not_exist_fails_in_json(api: BareApi) -> None:
    strange = await api("GET", "/v1/deployments", headers={"Expect": "the-inquisition"})
    usual = await api(
        "POST", "/v2/deployments", json=DEPLOY_BODY, headers={"Expect": "100-continue"}
    )

    assert (strange[0], list(strange[1]), usual[0]) == (417, ["message"], 202)


async def test_an_unknown_path_or_method_is_answered_in_json(api: BareApi) -> None:
    no_path = await api("GET", "/v1/nothing")
    no_method = await api("PUT", "/v1/deployments")

    assert (no_path, no_method) == (
        (404, {"message": "Not Found"}),
        (405, {"message": "Method Not Allowed"}),
    )
    assert api.headers["Allow"] == "GET"
    assert [one.operation for one in api.emulator.requests] == ["", ""]


@pytest.mark.parametrize(
    "operation",
    [operation for operation in OPERATIONS if "{request_id}" in operation.path],
    ids=lambda operation: operation.name,
)
async def test_an_unknown_id_is_an_error_that_the_operation_declares(
    api: BareApi, operation: Any
) -> None:
    content = {"reason": "lag"} if operation.name == "report_deployment" else {"name": "eu"}
    body: dict[str, Any] = {"json": content} if operation.body else {}

    status, said = await api(
        operation.method,
        example_path(operation.path),
        headers=JSON,
        **body,
    )

    text = UNKNOWN_LOGS_TEXT if "logs" in operation.name else "Bad Request ID provided"
    assert (status, said) == (400, {"message": text})
    assert status in operation.may_fail


async def test_without_capacity_the_answer_names_the_deployment_in_error() -> None:
    emulator = Emulator([sample_application()], max_deployments=0)
    async with emulator, aiohttp.ClientSession(emulator.url) as session:
        api = BareApi(emulator, session)
        status, said = await api("POST", "/v2/deployments", json=DEPLOY_BODY)
        seen = await api.wait_for_status(said["request_id"], "ERROR")

    assert (status, set(said)) == (422, {"request_id", "message"})
    assert seen["error_detail"] == said["message"]


async def test_an_exception_inside_is_500_without_a_traceback_and_raised_at_the_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    emulator = Emulator()
    await emulator.start()
    async with aiohttp.ClientSession(emulator.url) as session:
        monkeypatch.setattr(emulator.cloud, "registry", None)
        answer = await BareApi(emulator, session)("POST", "/v2/deployments", json=DEPLOY_BODY)
    with pytest.raises(ExceptionGroup) as raised:
        await emulator.close()
    await emulator.close()

    assert answer == (500, {"message": "Internal error: see the emulator's log"})
    assert isinstance(raised.value.exceptions[0], AttributeError)
    assert "POST /v2/deployments failed" in caplog.text


# ── rate limits ─────────────────────────────────────────────────────────────────────────────────


def test_a_limit_holds_in_every_window() -> None:
    limit = RateLimit(2)

    waits = [limit.try_pass(now) for now in (0.0, 0.5, 0.6, 0.99, 1.0, 1.2, 1.5)]

    assert waits == pytest.approx([0, 0, 0.4, 0.01, 0, 0.3, 0])


@pytest.mark.parametrize("name", ["get_deployment", "list_deployments", "list_fleet_hosts"])
async def test_calls_beyond_the_documented_limit_are_answered_429(name: str) -> None:
    (operation,) = (one for one in OPERATIONS if one.name == name)
    emulator = Emulator()
    async with emulator, aiohttp.ClientSession(emulator.url) as session:
        api = BareApi(emulator, session)
        path = example_path(operation.path)
        answers = await asyncio.gather(*(api("GET", path) for _ in range(45)))
        free, _ = await api("GET", "/v1/locations")
    assert operation.limit is not None

    limited = [said for status, said in answers if status == 429]
    seconds = emulator.requests[-2].received_at - emulator.requests[0].received_at
    assert len(answers) - len(limited) <= operation.limit * math.ceil(seconds)
    assert len(limited) > 0
    assert set(limited[0]) == {"message"}
    assert free == 200


async def test_a_429_has_a_retry_after_header() -> None:
    emulator = Emulator(limits={"list_locations": 1})
    async with emulator, aiohttp.ClientSession(emulator.url) as session:
        api = BareApi(emulator, session)
        await api("GET", "/v1/locations", authorization="token wrong")  # does not count
        statuses = [(await api("GET", "/v1/locations"))[0] for _ in range(2)]

    assert statuses == [200, 429]
    assert api.headers["Retry-After"] == "1"


async def test_a_limit_of_none_lifts_the_documented_limit() -> None:
    emulator = Emulator(limits={"list_deployments": None})
    async with emulator, aiohttp.ClientSession(emulator.url) as session:
        api = BareApi(emulator, session)
        answers = await asyncio.gather(*(api("GET", "/v1/deployments") for _ in range(45)))

    assert {status for status, _ in answers} == {200}


def test_limits_of_unknown_operations_or_below_one_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="no call 'redeploy'"):
        Emulator(limits={"redeploy": 1})
    with pytest.raises(InvalidRequest, match="deploy must be 1 or more"):
        Emulator(limits={"deploy": 0})
