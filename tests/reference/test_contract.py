"""Each operation is well formed, matches the reference, and is served by the emulator.

The rule for retries is repeated here, because a wrong rule would create a second server.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import AsyncIterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import aiohttp
import attrs
import pytest
from aiohttp import web

from edgegap_async.api import operations
from edgegap_async.api.operations import Auth, Operation, RetrySafety
from edgegap_async.api.register import OPERATIONS
from edgegap_async.api.resources import (
    applications,
    container_registry,
    deployments,
    endpoint_storages,
    locations,
    metrics,
    private_fleets,
    relays,
)
from edgegap_async.emulator import Emulator, Timings, sample_application
from edgegap_async.emulator.cloud import Cloud

HERE = Path(__file__).parent


def read_reference(name: str) -> dict[tuple[str, str], Any]:
    """Returns the calls of a reference by method and path."""
    return {
        (shown["method"], shown["path"].replace("{fleet-name}", "{fleet_name}")): shown
        for shown in json.loads((HERE / name).read_text("utf-8"))["operations"]
    }


PAGE = read_reference("operations.json")
SHOWN = PAGE | read_reference("newer_operations.json")

HARMLESS = {
    "get_deployment",
    "stop_deployment",
    "stop_self",
    "list_deployments",
    "get_container_logs",
    "get_metrics",
    "list_locations",
    "list_fleet_hosts",
    "list_tags",
    "get_tag",
    "delete_tag",
    "list_applications",
    "get_application",
    "delete_application",
    "list_versions",
    "get_version",
    "delete_version",
    "list_beacons",
    "get_context",
    "delete_context_tag",
    "get_public_ip",
    "locate_ip",
    "locate_ips",
    "list_relay_sessions",
    "get_relay_session",
    "delete_relay_session",
    "list_image_tags",
    "delete_image_tag",
    "list_endpoint_storages",
    "get_endpoint_storage",
    "delete_endpoint_storage",
    "list_pull_profiles",
    "get_pull_profile",
    "delete_pull_profile",
    "link_pull_profile",
    "unlink_pull_profile",
}
ONLY_IF_UNSENT = {
    "deploy",
    "deploy_to_fleet",
    "bulk_stop",
    "create_tag",
    "rename_tag",
    "create_application",
    "update_application",
    "create_version",
    "update_version",
    "report_deployment",
    "create_context_tag",
    "create_relay_session",
    "authorize_relay_user",
    "revoke_relay_user",
    "bulk_delete_image_tags",
    "create_endpoint_storage",
    "update_endpoint_storage",
    "create_pull_profile",
    "update_pull_profile",
}

MODULES = (
    operations,
    applications,
    container_registry,
    deployments,
    endpoint_storages,
    locations,
    metrics,
    private_fleets,
    relays,
)

each_operation = pytest.mark.parametrize(
    "operation", OPERATIONS, ids=lambda operation: operation.name
)


def test_the_table_and_the_references_hold_the_same_calls() -> None:
    assert {(operation.method, operation.path) for operation in OPERATIONS} == set(SHOWN)
    assert {(operation.method, operation.path) for operation in OPERATIONS[:16]} == set(PAGE)
    assert (len(PAGE), len(SHOWN)) == (16, 55)


def test_a_call_is_in_the_table_or_in_the_list_of_those_that_are_not_emulated() -> None:
    others = json.loads((HERE / "newer_operations.json").read_text("utf-8"))["others"]
    not_emulated = files("edgegap_async.emulator").joinpath("not_emulated.json").read_text("utf-8")

    assert [[method, path] for method, path, _ in json.loads(not_emulated)] == others
    assert {(method, path) for method, path in others}.isdisjoint(SHOWN)


@each_operation
def test_a_call_is_named_as_its_constant(operation: Operation[object]) -> None:
    known: dict[str, object] = {}
    for module in MODULES:
        known |= vars(module)
    constants = {name for name, value in known.items() if isinstance(value, Operation)}

    assert known[operation.name.upper()] is operation
    assert constants == {one.name.upper() for one in OPERATIONS}


@each_operation
def test_a_path_is_a_route_that_takes_its_own_urls(operation: Operation[object]) -> None:
    for path in filter(None, [operation.path, operation.newer_path]):
        resource = web.UrlDispatcher().add_resource(path)
        names = dict.fromkeys(re.findall(r"{(\w+)}", path), "x")

        assert resource.canonical == path
        assert str(resource.url_for(**names)) == path.format_map(names)


@each_operation
def test_a_call_matches_the_reference(operation: Operation[object]) -> None:
    shown = SHOWN[operation.method, operation.path]
    lenient = (
        {200} if operation is operations.BULK_STOP else set()
    )  # the description of 2024 has 200

    assert operation.limit == shown["limit_per_second"]
    assert operation.ok | operation.may_fail == set(shown["outcomes"]) | lenient
    assert (operation.body is None) is (shown["request"] is None)
    assert (operation.returns is type(None)) is (shown["answer"] is None)


@each_operation
def test_no_status_means_both_success_and_failure(operation: Operation[object]) -> None:
    assert operation.ok
    assert all(200 <= status < 300 for status in operation.ok)
    assert all(400 <= status < 600 for status in operation.may_fail)
    assert 429 not in operation.may_fail


@each_operation
def test_a_body_and_an_answer_have_the_fields_that_the_reference_shows(
    operation: Operation[Any],
) -> None:
    shown = SHOWN[operation.method, operation.path]
    for kind, example in ((operation.body, shown["request"]), (operation.returns, shown["answer"])):
        if example is not None:
            assert kind is not None
            assert set(example) <= {field.name for field in attrs.fields(kind)}


@each_operation
def test_a_call_that_may_create_a_second_object_is_retried_only_if_not_sent(
    operation: Operation[object],
) -> None:
    assert HARMLESS.isdisjoint(ONLY_IF_UNSENT)
    expected = HARMLESS if operation.retry_safety is RetrySafety.SAFE else ONLY_IF_UNSENT
    assert operation.name in expected


@each_operation
def test_only_calls_that_write_have_a_body_and_no_safe_call_has(
    operation: Operation[object],
) -> None:
    assert (operation.body is not None) is (operation.method in {"POST", "PATCH"})
    only_reads = operation is locations.LOCATE_IPS  # a POST that changes nothing
    unsafe = operation.retry_safety is RetrySafety.ONLY_IF_NOT_SENT
    assert (operation.body is not None) is (unsafe or only_reads)


@each_operation
def test_only_calls_that_read_or_stop_have_a_query(operation: Operation[object]) -> None:
    documented = {
        "stop_deployment": {"container_log_storage"},
        "stop_self": {"container_log_storage"},
        "list_deployments": {"query", "page", "limit"},
        "list_locations": {"app", "version", "type", "tags", "page", "limit"},
        "list_tags": {"page", "limit"},
        "list_applications": {"page", "limit"},
        "list_versions": {"page", "limit"},
        "list_beacons": {"page", "limit"},
        "list_relay_sessions": {"page"},  # not documented, though the answer has pages
        "list_image_tags": {"page", "limit"},
        "list_endpoint_storages": {"page", "limit"},
        "list_pull_profiles": {"page", "limit"},
        "get_metrics": {"start_time", "end_time", "steps", "raw"},
    }

    assert operation.query == documented.get(operation.name, set())


@each_operation
def test_only_the_fleet_deploy_has_a_newer_path(
    operation: Operation[object],
) -> None:
    newer = {"deploy_to_fleet": "/v2/private-fleets/deployments"}

    assert operation.newer_path == newer.get(operation.name)


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with Emulator(
        apps=[sample_application()], timings=Timings.fast(), limits=False
    ) as emulator:
        yield emulator


def url_of(path: str, emulator: Emulator) -> str:
    return f"{emulator.url}{path.replace('{', '').replace('}', '')}"


@each_operation
async def test_the_emulator_asks_for_a_token(
    operation: Operation[object], emulator: Emulator
) -> None:
    async with aiohttp.ClientSession() as session:
        for path in filter(None, [operation.path, operation.newer_path]):
            url = url_of(path, emulator)
            async with session.request(operation.method, url) as answer:
                assert answer.status == 401
                assert (await answer.json())["message"]


@each_operation
async def test_the_emulator_serves_the_call(
    operation: Operation[object], emulator: Emulator
) -> None:
    assert inspect.iscoroutinefunction(getattr(Cloud, operation.name, None))
    async with aiohttp.ClientSession(
        headers={"Authorization": f"token {emulator.token}"}
    ) as session:
        for path in filter(None, [operation.path, operation.newer_path]):
            # No call uses OPTIONS: a served path answers 405, an unknown path 404.
            async with session.options(url_of(path, emulator)) as answer:
                assert answer.status == 405
                assert operation.method in re.split(r",\s*", answer.headers["Allow"])


def test_only_calls_of_a_deployment_about_itself_take_its_own_token() -> None:
    assert [operation.name for operation in OPERATIONS if operation.auth is not Auth.API_TOKEN] == [
        "stop_self",
        "get_context",
        "create_context_tag",
        "delete_context_tag",
    ]
