"""Each method passes its arguments to `call` in the form that the operation needs."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import attrs
import pytest
from recorded_calls import Recorder

from edgegap_async.api import operations as endpoints
from edgegap_async.api.register import OPERATIONS
from edgegap_async.api.requests import (
    DeployRequest,
    FleetDeployRequest,
    Resources,
    StopFilter,
    StopFilters,
    TagName,
)
from edgegap_async.api.resources.applications import (
    BLANK_PICTURE,
    ApplicationChanges,
    ApplicationRequest,
)
from edgegap_async.api.resources.container_registry import ImageTags
from edgegap_async.api.resources.deployments import DeploymentReport
from edgegap_async.api.resources.endpoint_storages import (
    EndpointStorageChanges,
    EndpointStorageRequest,
    PullProfileChanges,
    PullProfileRequest,
)
from edgegap_async.api.resources.locations import Addresses, LocatedAddress, LocatedAddresses
from edgegap_async.api.resources.relays import RelayAuthorization, RelayRequest, RelayRevocation
from edgegap_async.errors import InvalidRequest
from edgegap_async.http.call import CallOptions
from edgegap_async.http.resources.applications import Applications, Versions
from edgegap_async.http.resources.container_registry import ContainerRegistry
from edgegap_async.http.resources.deployments import Deployments
from edgegap_async.http.resources.endpoint_storages import EndpointStorages, PullProfiles
from edgegap_async.http.resources.locations import IpAddresses, Locations
from edgegap_async.http.resources.private_fleets import PrivateFleets
from edgegap_async.http.resources.relays import Relays
from edgegap_async.http.resources.tags import Tags

CANARY = "canary-91b2"
WHEN = datetime(2026, 1, 2, tzinfo=UTC)


OPERATION = {operation.name: operation for operation in OPERATIONS}
ID = {"request_id": "r1"}
VERSION = {"application": "arena", "version": "v1"}
TAG = {"request_id": "r1", "tag_name": "eu"}

CASES: dict[str, tuple[str, tuple[Any, ...], dict[str, Any], dict[str, Any]]] = {
    "get_deployment": ("deployments.get", ("r1",), {}, {"path": ID}),
    "stop_deployment": (
        "deployments.stop",
        ("r1",),
        {"container_log_storage": False},
        {"path": ID, "query": {"container_log_storage": False}},
    ),
    "bulk_stop": (
        "deployments.bulk_stop",
        ([StopFilter("request_id", ["r1"])],),
        {},
        {"body": StopFilters((StopFilter("request_id", ["r1"]),))},
    ),
    "list_deployments": (
        "deployments.list",
        (),
        {"limit": 5},
        {"query": {"page": 1, "limit": 5}},
    ),
    "get_container_logs": (
        "deployments.logs",
        ("r1",),
        {},
        {"path": ID, "options": CallOptions(max_bytes=64 * 2**20)},
    ),
    "get_metrics": (
        "deployments.metrics",
        ("r1",),
        {"start": WHEN, "end": WHEN, "steps": "1m", "raw": True},
        {
            "path": ID,
            "query": {"start_time": WHEN, "end_time": WHEN, "steps": "1m", "raw": True},
        },
    ),
    "list_locations": (
        "locations.list",
        (),
        {"application": "arena", "version": "v1", "type": "standard", "tags": True},
        {"query": {"app": "arena", "version": "v1", "type": "standard", "tags": True}},
    ),
    "list_fleet_hosts": ("private_fleets.hosts", ("f",), {}, {"path": {"fleet_name": "f"}}),
    "list_tags": ("tags.list", ("r1",), {}, {"path": ID}),
    "get_tag": ("tags.get", ("r1", "eu"), {}, {"path": TAG}),
    "create_tag": ("tags.create", ("r1", "eu"), {}, {"path": ID, "body": TagName("eu")}),
    "rename_tag": ("tags.rename", ("r1", "eu", "us"), {}, {"path": TAG, "body": TagName("us")}),
    "delete_tag": ("tags.delete", ("r1", "eu"), {}, {"path": TAG}),
    "list_applications": (
        "applications.list",
        (),
        {"limit": 5},
        {"query": {"page": 1, "limit": 5}},
    ),
    "create_application": (
        "applications.create",
        ("arena",),
        {},
        {"body": ApplicationRequest(name="arena", is_active=True, image=BLANK_PICTURE)},
    ),
    "update_application": (
        "applications.update",
        ("arena",),
        {"is_active": False},
        {"path": {"application": "arena"}, "body": ApplicationChanges(is_active=False)},
    ),
    "delete_application": (
        "applications.delete",
        ("arena",),
        {},
        {"path": {"application": "arena"}},
    ),
    "list_versions": (
        "versions.list",
        ("arena",),
        {},
        {"path": {"application": "arena"}, "query": {"page": 1}},
    ),
    "get_version": ("versions.get", ("arena", "v1"), {}, {"path": VERSION}),
    "delete_version": ("versions.delete", ("arena", "v1"), {}, {"path": VERSION}),
    "report_deployment": (
        "deployments.report",
        ("r1", "lag", {"players": 4}),
        {},
        {"path": ID, "body": DeploymentReport(reason="lag", metadata={"players": 4})},
    ),
    "list_beacons": ("locations.beacons", (), {"limit": 3}, {"query": {"page": 1, "limit": 3}}),
    "get_public_ip": ("ip_addresses.own", (), {}, {}),
    "locate_ip": ("ip_addresses.locate", ("::ffff:192.0.2.7",), {}, {"path": {"ip": "192.0.2.7"}}),
    "get_application": ("applications.get", ("arena",), {}, {"path": {"application": "arena"}}),
}
STORAGE = {"endpoint_name": "logs"}
PROFILE = {"endpoint_name": "logs", "pull_profile_name": "maps"}
LINK = PROFILE | {"app_name": "arena", "version_name": "v1"}
KEY: dict[str, Any] = {"access_key_id": "key", "secret_access_key": CANARY}
BUCKET: dict[str, Any] = {"endpoint": "https://s3.example.com", "bucket": "arena"}
FILES: dict[str, Any] = {"source": "/maps", "source_type": "Folder", "destination": "/maps"}
CASES |= {
    "create_relay_session": (
        "relays.create",
        (["192.0.2.1"],),
        {"filters": [{"field": "city"}], "webhook_url": "https://mm.example/relay"},
        {
            "body": RelayRequest(
                users=["192.0.2.1"],
                filters=[{"field": "city"}],
                webhook_url="https://mm.example/relay",
            )
        },
    ),
    "list_relay_sessions": ("relays.list", (), {}, {}),
    "get_relay_session": ("relays.get", ("s-S",), {}, {"path": {"session_id": "s-S"}}),
    "delete_relay_session": ("relays.delete", ("s-S",), {}, {"path": {"session_id": "s-S"}}),
    "authorize_relay_user": (
        "relays.authorize_user",
        ("s-S", "192.0.2.1"),
        {},
        {"body": RelayAuthorization(session_id="s-S", user_ip="192.0.2.1")},
    ),
    "revoke_relay_user": (
        "relays.revoke_user",
        ("s-S", 7),
        {},
        {"body": RelayRevocation(session_id="s-S", authorization_token=7)},
    ),
    "list_image_tags": (
        "container_registry.tags",
        ("team/arena",),
        {"limit": 5},
        {"path": {"image_name": "team/arena"}, "query": {"page": 1, "limit": 5}},
    ),
    "delete_image_tag": (
        "container_registry.delete_tag",
        ("team/arena", "v1"),
        {},
        {"path": {"image_name": "team/arena", "tag_name": "v1"}},
    ),
    "bulk_delete_image_tags": (
        "container_registry.delete_tags",
        ("team/arena", ["v1", "v2"]),
        {},
        {"path": {"image_name": "team/arena"}, "body": ImageTags(("v1", "v2"))},
    ),
    "list_endpoint_storages": (
        "endpoint_storages.list",
        (),
        {"limit": 5},
        {"query": {"page": 1, "limit": 5}},
    ),
    "create_endpoint_storage": (
        "endpoint_storages.create",
        ("logs",),
        {**KEY, **BUCKET, "output_format": "NDJSON"},
        {"body": EndpointStorageRequest(name="logs", **KEY, **BUCKET, output_format="NDJSON")},
    ),
    "get_endpoint_storage": ("endpoint_storages.get", ("logs",), {}, {"path": STORAGE}),
    "update_endpoint_storage": (
        "endpoint_storages.update",
        ("logs",),
        {"name": "old", **KEY},
        {"path": STORAGE, "body": EndpointStorageChanges(name="old", **KEY)},
    ),
    "delete_endpoint_storage": ("endpoint_storages.delete", ("logs",), {}, {"path": STORAGE}),
    "list_pull_profiles": (
        "pull_profiles.list",
        ("logs",),
        {"limit": 5},
        {"path": STORAGE, "query": {"page": 1, "limit": 5}},
    ),
    "create_pull_profile": (
        "pull_profiles.create",
        ("logs", "maps"),
        FILES,
        {"path": STORAGE, "body": PullProfileRequest(name="maps", **FILES)},
    ),
    "get_pull_profile": ("pull_profiles.get", ("logs", "maps"), {}, {"path": PROFILE}),
    "update_pull_profile": (
        "pull_profiles.update",
        ("logs", "maps"),
        {"name": "old", **FILES},
        {"path": PROFILE, "body": PullProfileChanges(name="old", **FILES)},
    ),
    "delete_pull_profile": ("pull_profiles.delete", ("logs", "maps"), {}, {"path": PROFILE}),
    "link_pull_profile": (
        "pull_profiles.link",
        ("logs", "maps", "arena", "v1"),
        {},
        {"path": LINK},
    ),
    "unlink_pull_profile": (
        "pull_profiles.unlink",
        ("logs", "maps", "arena", "v1"),
        {},
        {"path": LINK},
    ),
}
WITHOUT_METHOD = {"get_context", "create_context_tag", "delete_context_tag"}
"""The calls of a game server about itself, which `container.ThisDeployment` makes."""


@pytest.mark.parametrize("name", CASES)
async def test_a_method_says_its_arguments_as_the_operation_wants_them(name: str) -> None:
    method, arguments, options, said = CASES[name]
    call = Recorder()
    groups = {
        "applications": Applications(call),
        "versions": Versions(call),
        "ip_addresses": IpAddresses(call),
        "container_registry": ContainerRegistry(call),
        "endpoint_storages": EndpointStorages(call),
        "pull_profiles": PullProfiles(call),
        "relays": Relays(call),
        "deployments": Deployments(call),
        "locations": Locations(call),
        "private_fleets": PrivateFleets(call),
        "tags": Tags(call),
    }
    group, _, verb = method.partition(".")
    await getattr(groups[group], verb)(*arguments, **options)

    assert call.calls == [{"operation": OPERATION[name]} | said]


def test_every_operation_has_a_method() -> None:
    tested_below = {"deploy", "deploy_to_fleet", "stop_self", "locate_ips"}
    tested_below |= {"create_version", "update_version"}  # in test_versions
    without_method = {operation.name for operation in OPERATIONS} - CASES.keys() - tested_below

    assert without_method == WITHOUT_METHOD


DEPLOY_FIELDS: dict[str, Any] = {
    "users": ["192.0.2.1", (45.5, -73.6)],
    "environment_variables": {"MODE": "duel"},
    "tags": ["eu"],
    "require_cached_locations": True,
    "webhook_on_ready": "https://mm.example/ready",
    "webhook_on_error": "https://mm.example/error",
    "webhook_on_terminated": "https://mm.example/terminated",
    "resources": Resources(cpu_units=512, memory_mib=512),
}


async def test_a_deploy_says_all_of_its_arguments() -> None:
    call = Recorder(["accepted"])
    accepted: object = await Deployments(call).deploy("arena", "v1", **DEPLOY_FIELDS)
    body = DeployRequest(application="arena", version="v1", **DEPLOY_FIELDS)

    assert accepted == "accepted"
    assert call.calls == [{"operation": endpoints.DEPLOY, "body": body}]


async def test_a_deploy_to_a_fleet_says_all_of_its_arguments() -> None:
    call = Recorder()
    await PrivateFleets(call).deploy("arena", "v1", private_host_ids=["h1", "h2"], **DEPLOY_FIELDS)
    body = FleetDeployRequest(
        application="arena", version="v1", private_host_ids=["h1", "h2"], **DEPLOY_FIELDS
    )

    assert call.calls == [{"operation": endpoints.DEPLOY_TO_FLEET, "body": body}]


async def test_a_server_stops_itself_with_its_own_token_sent_raw() -> None:
    call = Recorder()
    await Deployments(call).stop_self("r1", 42, token="canary-secret", container_log_storage="logs")
    [said] = call.calls

    assert said["operation"] is endpoints.STOP_SELF
    assert said["path"] == {"request_id": "r1", "access_point_id": "42"}
    assert said["query"] == {"container_log_storage": "logs"}
    assert said["options"].token.header == {"Authorization": "canary-secret"}


async def test_what_fails_in_a_self_stop_shows_no_token() -> None:
    class Failing(Recorder):
        async def __call__(self, *_: Any, **__: Any) -> Any:
            raise LookupError

    with pytest.raises(LookupError) as caught:
        await Deployments(Failing()).stop_self("r1", 42, token=CANARY)

    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert CANARY not in "".join(shown.format())


# ── bulk stop ────────────────────────────────────────────────────────────────────────────────────


async def test_no_filter_stops_everything_only_if_that_is_said_too() -> None:
    call = Recorder()
    filters = [StopFilter("request_id", ["r1"])]
    with pytest.raises(InvalidRequest, match="pass everything=True too"):
        await Deployments(call).bulk_stop([])
    with pytest.raises(InvalidRequest, match="goes with no filters"):
        await Deployments(call).bulk_stop(filters, everything=True)
    others = [StopFilter("deployment_tags", ["eu"], "not"), *filters]
    with pytest.raises(InvalidRequest, match="a filter of type not stops"):
        await Deployments(call).bulk_stop(others)
    assert not call.calls

    await Deployments(call).bulk_stop([], everything=True)
    await Deployments(call).bulk_stop(others, everything=True)
    bodies = [StopFilters(()), StopFilters(tuple(others))]
    assert call.calls == [{"operation": endpoints.BULK_STOP, "body": body} for body in bodies]


@pytest.mark.parametrize("half", [{"application": "arena"}, {"version": "v1"}])
async def test_locations_are_asked_for_by_application_and_version_together(
    half: dict[str, str],
) -> None:
    call = Recorder()
    with pytest.raises(InvalidRequest, match="go together"):
        await Locations(call).list(**half)  # type: ignore[arg-type] # strings only

    assert not call.calls


async def test_locations_need_no_arguments() -> None:
    call = Recorder()
    await Locations(call).list()

    assert len(call.calls) == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda api: api.metrics("a", steps="2s"), "steps must be one of 30s"),
        (lambda api: api.metrics("a", start="yesterday"), "start must be of type datetime"),
        (lambda api: api.metrics("a", raw="maybe"), "raw must be of type bool"),
        (
            lambda api: api.stop("a", container_log_storage=5),
            "container_log_storage must be of type str",
        ),
        (lambda api: api.stop("a", container_log_storage=""), "storage's name"),
        (lambda api: api.list().page("1"), "page must be of type int"),
        (lambda api: api.list(limit=True), "limit must be of type int"),
    ],
)
async def test_what_the_api_would_not_understand_is_not_sent(
    call: Callable[[Any], Awaitable[object]], message: str
) -> None:
    recorder = Recorder()
    with pytest.raises(InvalidRequest, match=message):
        await call(Deployments(recorder))

    assert recorder.calls == []


@pytest.mark.parametrize(
    ("deploy", "model"),
    [(Deployments.deploy, DeployRequest), (PrivateFleets.deploy, FleetDeployRequest)],
    ids=["deploy", "deploy_to_fleet"],
)
def test_a_deploy_has_an_argument_for_each_field_of_its_request(
    deploy: Callable[..., object], model: type
) -> None:
    arguments = set(inspect.signature(deploy).parameters) - {"self"}

    assert arguments == {field.name for field in attrs.fields(model)}


async def test_many_addresses_are_located_by_twenty() -> None:
    found = LocatedAddress(ip_address="192.0.2.1")
    call = Recorder([LocatedAddresses(addresses=(found,) * size) for size in (20, 5)])
    located = await IpAddresses(call).locate_many(f"192.0.2.{number}" for number in range(25))
    bodies = [said["body"] for said in call.calls]

    assert located == (found,) * 25
    assert [len(body.addresses) for body in bodies] == [20, 5]
    assert bodies[1] == Addresses([f"192.0.2.{number}" for number in range(20, 25)])


async def test_an_address_that_is_none_is_not_sent() -> None:
    call = Recorder()
    with pytest.raises(InvalidRequest, match="not an IPv4 or IPv6 address: 'x'"):
        await IpAddresses(call).locate_many(["192.0.2.1", "x"])
    with pytest.raises(InvalidRequest, match="take off the port"):
        await IpAddresses(call).locate("192.0.2.1:7777")

    assert call.calls == []
