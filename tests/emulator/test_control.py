"""The control API, as a program in any language uses it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from bare_api import DEPLOY_BODY, BareApi

from edgegap_async.emulator import Emulator, Fault, Respond, Timings, sample_application

JSON = {"Content-Type": "application/json"}
PATHS = ["", "/faults", "/requests", "/expectations", "/deployments", "/events"]


@pytest.fixture
async def api() -> AsyncIterator[BareApi]:
    emulator = Emulator(
        [sample_application()],
        timings=Timings.fast(),
        limits={"deploy": 4},
        faults=[Fault("get_metrics", Respond(503))],
    )
    async with emulator, aiohttp.ClientSession(emulator.url) as session:
        yield BareApi(emulator, session)


async def control(api: BareApi, method: str, path: str, **options: Any) -> Any:
    status, body = await api(method, f"/_emulator{path}", **options)
    assert status == 200, body
    return body


@pytest.mark.parametrize("path", [*PATHS, "/reset", "/nothing"])
@pytest.mark.parametrize("headers", [{}, {"Host": "evil.example"}])
async def test_the_control_api_needs_the_token(
    api: BareApi, path: str, headers: dict[str, str]
) -> None:
    status, body = await api("GET", f"/_emulator{path}", authorization="", headers=headers)

    assert (status, list(body)) == (403 if headers else 401, ["message"])


@pytest.mark.parametrize(
    ("authorization", "said"),
    [
        ("token canary-other", "the token is not the one of this emulator"),
        ("Bearer canary-other", "the header Authorization must be `token …`"),
    ],
)
async def test_a_wrong_token_is_told_from_a_wrong_header(
    api: BareApi, authorization: str, said: str
) -> None:
    assert (await api("GET", "/v1/deployments", authorization=authorization)) == (
        401,
        {"message": f"Unauthorized: {said}"},
    )


@pytest.mark.parametrize("path", PATHS)
async def test_a_call_of_the_control_api_is_not_recorded_and_has_no_fault(
    api: BareApi, path: str
) -> None:
    api.emulator.faults.add(Fault(None, Respond(500), times=None))
    await control(api, "GET", path)

    assert api.emulator.requests == []


async def test_unknown_paths_and_methods_name_what_there_is(api: BareApi) -> None:
    unknown, text = await api("GET", "/_emulator/nothing")
    method, _ = await api("PUT", "/_emulator/faults")
    outside, _ = await api("GET", "/_emulators")

    assert (unknown, method, outside) == (404, 405, 404)
    assert api.headers.get("Allow") is None
    assert "/_emulator/faults" in text["message"]


async def test_faults_are_added_listed_and_cleared(api: BareApi) -> None:
    added = await control(
        api,
        "POST",
        "/faults",
        json={"operation": "list_locations", "effect": {"name": "proxy_page", "status": 504}},
    )
    status, _ = await api_text(api, "/v1/locations")
    left = await control(api, "GET", "/faults")
    cleared = await control(api, "DELETE", "/faults")

    assert [fault["operation"] for fault in added["faults"]] == ["get_metrics", "list_locations"]
    assert status == 504
    assert [fault["operation"] for fault in left["faults"]] == ["get_metrics"]
    assert cleared == {"faults": []}


async def api_text(api: BareApi, path: str) -> tuple[int, str]:
    headers = {"Authorization": f"token {api.emulator.token}"}
    async with api._session.get(path, headers=headers) as answer:
        return answer.status, await answer.text()


@pytest.mark.parametrize("body", [b"{", b"5", b'{"faults": 5}', b'{"effect": "dropp"}'])
async def test_a_wrong_fault_is_a_bad_request(api: BareApi, body: bytes) -> None:
    status, said = await api("POST", "/_emulator/faults", data=body, headers=JSON)

    assert (status, list(said)) == (400, ["message"])


async def test_requests_are_listed_with_what_became_of_them_and_without_secrets(
    api: BareApi,
) -> None:
    variables = [
        {"key": "MODE", "value": "ranked", "is_hidden": False},
        {"key": "PLAIN", "value": "canary-hidden", "is_hidden": True},
        {"key": "DB_PASSWORD", "value": "canary-password", "is_hidden": False},
        {"key": "API_KEY", "value": "canary-key", "is_hidden": False},
        {"key": "TLS_PRIVATE_KEY", "value": "canary-pem", "is_hidden": False},
    ]
    request_id = await api.deploy(
        environment_variables=variables,
        webhook_on_ready={"url": "http://127.0.0.1:9/canary-path"},
    )
    await api("GET", f"/v1/metrics/deployment/{request_id}")
    await api("GET", f"/v1/metrics/deployment/{request_id}")

    said = await control(api, "GET", "/requests?limit=2")
    first = (await control(api, "GET", "/requests?operation=deploy"))["requests"][0]
    of_id = await control(api, "GET", f"/requests?request_id={request_id}")

    assert said["total"] == of_id["total"] == 3
    assert [(one["status"], one["fault"]) for one in said["requests"]] == [
        (503, "Respond"),
        (200, None),
    ]
    assert (first["request_id"], first["status"], first["duration"] > 0) == (request_id, 202, True)
    assert '"ranked"' in first["body"]
    assert "http://127.0.0.1/***" in first["body"]
    assert "canary" not in first["body"]
    assert (await control(api, "DELETE", "/requests"))["total"] == 0


async def test_expectations_count_the_calls_that_come_after_them(api: BareApi) -> None:
    await api.deploy()
    said = await control(
        api,
        "POST",
        "/expectations",
        json=[{"operation": "deploy", "least": 2, "most": 2, "status": 202}],
    )
    assert said["unmet"] == ["deploy with status 202: 0 came, exactly 2 expected"]
    await api.deploy()
    await api("POST", "/v2/deployments", json=DEPLOY_BODY | {"version": "v9"})
    assert api.emulator.expectations.unmet == (
        "deploy with status 202: 1 came, exactly 2 expected",
    )
    await api.deploy()
    met = await control(api, "GET", "/expectations")
    cleared = await control(api, "DELETE", "/expectations")

    assert (met["unmet"], met["expectations"][0]["count"]) == ([], 2)
    assert cleared == {"expectations": [], "unmet": []}


@pytest.mark.parametrize(
    "table",
    [
        {"operation": "redeploy"},
        {"operation": ["deploy"]},
        {"operation": {}},
        {"least": 1},
        {"operation": "deploy", "often": 1},
        {"operation": "deploy", "least": 2, "most": 1},
        {"operation": "deploy", "least": "x"},
        {"operation": "deploy", "status": 5},
    ],
)
async def test_a_wrong_expectation_is_a_bad_request(api: BareApi, table: dict[str, Any]) -> None:
    status, _ = await api("POST", "/_emulator/expectations", json=table)

    assert status == 400


@pytest.mark.parametrize(
    "body",
    [
        b"5",
        b"[]",
        b"{}",
        b'[{"paused": true}, {"advance": 1}]',
        b'{"": [1, 2]}',
        b'{"paused": 1}',
        b'{"advance": "1"}',
        b'{"advance": NaN}',
        b'{"advance": -1}',
        b'{"\\ud800": 1}',
    ],
)
async def test_a_clock_is_set_by_one_table_alone(api: BareApi, body: bytes) -> None:
    status, _ = await api("POST", "/_emulator/clock", data=body, headers=JSON)

    assert (status, api.emulator.clock.is_paused) == (400, False)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/_emulator/faults", b'{"effect": {"name": "raw", "data": "\\ud800"}}'),
        ("/_emulator/faults", b'{"effect": {"name": "respond", "status": 500, "body": "\\udc00"}}'),
        ("/_emulator/expectations", b'{"operation": "\\ud800"}'),
        ("/v2/deployments", b'{"\\ud800": 1}'),
        ("/v2/deployments", b'{"application": "\xed\xa0\x80"}'),
        ("/v1/app", b'{"name": "\\udc00"}'),
    ],
)
async def test_half_surrogates_of_a_body_are_refused_and_recorded(
    api: BareApi, path: str, body: bytes
) -> None:
    status, answer = await api("POST", path, data=body, headers=JSON)
    requests = (await control(api, "GET", "/requests"))["requests"]

    assert (status, answer["message"]) == (400, "the body has half surrogates")
    assert len((await control(api, "GET", "/faults"))["faults"]) == 1
    assert path.startswith("/_emulator") or r"\ud" in requests[-1]["body"]


async def test_live_deployments_are_listed_with_their_processes(api: BareApi) -> None:
    request_id = await api.deploy(tags=["eu"])
    await api.wait_for_status(request_id, "READY")
    (row,) = (await control(api, "GET", "/deployments"))["deployments"]

    assert (row["request_id"], row["status"], row["tags"]) == (request_id, "READY", ["eu"])
    assert row["pid"] == api.emulator.cloud.deployments[request_id].process.pid  # type: ignore[union-attr]
    assert list(row["ports"]) == ["game"]


async def test_changes_of_status_are_listed_and_can_be_waited_for(api: BareApi) -> None:
    waiting = asyncio.create_task(control(api, "GET", "/events?after=0&timeout=10"))
    request_id = await api.deploy()
    first = (await waiting)["events"][0]
    await api.wait_for_status(request_id, "READY")
    later = (await control(api, "GET", "/events?after=1"))["events"]
    nothing = await control(api, "GET", "/events?after=100&timeout=0.01")

    assert (first["request_id"], first["from"], first["to"]) == (request_id, None, "INITIALIZING")
    assert [event["to"] for event in later] == [
        "SEEKING",
        "SEEKED",
        "SCANNING",
        "DEPLOYING",
        "READY",
    ]
    assert nothing == {"events": []}


@pytest.mark.parametrize("query", ["after=x", "after=-1", "timeout=61", "timeout=nan"])
async def test_a_wrong_number_of_a_query_is_a_bad_request(api: BareApi, query: str) -> None:
    status, _ = await api("GET", f"/_emulator/events?{query}")

    assert status == 400


async def test_reset_ends_everything_and_sets_the_state_of_the_start(api: BareApi) -> None:
    request_ids = [await api.deploy() for _ in range(3)]
    await api.wait_for_status(request_ids[0], "READY")
    processes = [one.process for one in api.emulator.cloud.live() if one.process is not None]
    await api("GET", f"/v1/metrics/deployment/{request_ids[0]}")
    await control(api, "POST", "/faults", json={"effect": "drop", "times": "forever"})
    await control(api, "POST", "/expectations", json={"operation": "deploy"})

    said = await control(api, "POST", "/reset")

    assert processes
    assert all(process.exited.done() for process in processes)
    assert (said["live_deployments"], said["unmet"]) == (0, [])
    assert (api.emulator.requests, api.emulator.events.after(0)) == ([], [])
    assert [fault.operation for fault in api.emulator.faults.left] == ["get_metrics"]
    assert (await api("GET", f"/v1/status/{request_ids[0]}"))[0] == 400
    await api.wait_for_status(await api.deploy(), "READY")  # the limit is new too


async def test_the_overview_says_what_runs(api: BareApi) -> None:
    await api.deploy()
    said = await control(api, "GET", "")

    assert said["deployable"] == ["arena v1"]
    assert (said["live_deployments"], said["requests"], said["faults"]) == (1, 1, 1)
    assert said["is_simulated"] is False
    assert "/_emulator/reset" in said["paths"]
