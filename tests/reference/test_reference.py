"""The client sends and reads what the published reference shows.

`reference/operations.json` has the documented path, body, answer and statuses of each call. The
tests call public methods against a server that knows only that file, and compare requests and
attributes with it. They import no table, template or converter of the package.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer

from edgegap_async import EdgegapClient, EdgegapError, RetryPolicy, models, requests
from edgegap_async.api.requests import EnvironmentVariable, StopFilter
from edgegap_async.api.resources.applications import VersionPortRequest

HERE = Path(__file__).parent


def read_reference(name: str) -> dict[str, Any]:
    """Returns the calls of a reference by method and path."""
    every = json.loads((HERE / name).read_text("utf-8"))["operations"]
    return {f"{shown['method']} {shown['path']}": shown for shown in every}


PAGE = read_reference("operations.json")
NEWER = {  # those of a game server itself are methods of `container.ThisDeployment`
    name: shown
    for name, shown in read_reference("newer_operations.json").items()
    if "/v1/context/" not in name
}
SHOWN = PAGE | NEWER
IDS = {
    "request_id": "c0653765de3b",
    "access_point_id": "463660",
    "fleet-name": "alpha",
    "tag_name": "v0.9.0",
    "application": "arena",
    "version": "v2",
    "ip": "75.28.35.192",
    "session_id": "7349356945f1-S",
    "image_name": "studio/arena",
    "endpoint_name": "logs",
    "pull_profile_name": "maps",
    "app_name": "arena",
    "version_name": "v2",
}
TOKEN = "f3a1c7e9-0000-4000-8000-00000000abcd"
DELETE_TOKEN = "0123456789abcdef0123456789abcdef"

Call = Callable[[EdgegapClient, Any], Awaitable[Any]]


def deploy_arguments(body: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments of a deploy from the body that the reference shows."""
    written = dict(body)
    written["users"] = [
        tuple(user["user_data"].values())
        if len(user["user_data"]) == 2
        else user["user_data"]["ip_address"]
        for user in body["users"]
    ]
    written["environment_variables"] = [
        EnvironmentVariable(one["key"], one["value"], is_hidden=one["is_hidden"])
        for one in body["environment_variables"]
    ]
    for event in ("ready", "error", "terminated"):
        written[f"webhook_on_{event}"] = body[f"webhook_on_{event}"]["url"]
    return written


def version_arguments(body: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments of a call from the body that the reference shows."""
    written = dict(body)
    written["ports"] = [VersionPortRequest(**port) for port in body["ports"]]
    written["envs"] = [
        EnvironmentVariable(one["key"], one["value"], is_hidden=one["is_hidden"])
        for one in body["envs"]
    ]
    return written


CALLS: dict[str, Call] = {
    "POST /v2/deployments": lambda client, body: client.deployments.deploy(
        **deploy_arguments(body)
    ),
    "GET /v1/status/{request_id}": lambda client, _: client.deployments.get(IDS["request_id"]),
    "DELETE /v1/stop/{request_id}": lambda client, _: client.deployments.stop(IDS["request_id"]),
    "DELETE /v1/self/stop/{request_id}/{access_point_id}": lambda client, _: (
        client.deployments.stop_self(IDS["request_id"], IDS["access_point_id"], token=DELETE_TOKEN)
    ),
    "POST /v1/deployments/bulk-stop": lambda client, body: client.deployments.bulk_stop(
        [StopFilter(**condition) for condition in body["filters"]]
    ),
    "GET /v1/deployments": lambda client, _: client.deployments.list(),
    "GET /v1/locations": lambda client, _: client.locations.list(),
    "GET /v1/deployment/{request_id}/container-logs": lambda client, _: client.deployments.logs(
        IDS["request_id"]
    ),
    "GET /v1/metrics/deployment/{request_id}": lambda client, _: client.deployments.metrics(
        IDS["request_id"]
    ),
    "POST /v2/private-fleets:deploy": lambda client, body: client.private_fleets.deploy(
        **deploy_arguments(body)
    ),
    "GET /v2/private-fleets/{fleet-name}/hosts": lambda client, _: client.private_fleets.hosts(
        IDS["fleet-name"]
    ),
    "GET /v1/deployments/{request_id}/tags": lambda client, _: client.tags.list(IDS["request_id"]),
    "GET /v1/deployments/{request_id}/tags/{tag_name}": lambda client, _: client.tags.get(
        IDS["request_id"], IDS["tag_name"]
    ),
    "POST /v1/deployments/{request_id}/tags": lambda client, body: client.tags.create(
        IDS["request_id"], body["name"]
    ),
    "DELETE /v1/deployments/{request_id}/tags/{tag_name}": lambda client, _: client.tags.delete(
        IDS["request_id"], IDS["tag_name"]
    ),
    "PATCH /v1/deployments/{request_id}/tags/{tag_name}": lambda client, body: client.tags.rename(
        IDS["request_id"], IDS["tag_name"], body["name"]
    ),
}
CALLS |= {
    "GET /v1/apps": lambda client, _: client.applications.list(),
    "POST /v1/app": lambda client, body: client.applications.create(**body),
    "GET /v1/app/{application}": lambda client, _: client.applications.get("arena"),
    "PATCH /v1/app/{application}": lambda client, body: client.applications.update("arena", **body),
    "DELETE /v1/app/{application}": lambda client, _: client.applications.delete("arena"),
    "GET /v1/app/{application}/versions": lambda client, _: client.versions.list("arena"),
    "POST /v1/app/{application}/version": lambda client, body: client.versions.create(
        "arena", **version_arguments(body)
    ),
    "GET /v1/app/{application}/version/{version}": lambda client, _: client.versions.get(
        "arena", "v2"
    ),
    "PATCH /v1/app/{application}/version/{version}": lambda client, body: client.versions.update(
        "arena", "v2", **version_arguments(body)
    ),
    "DELETE /v1/app/{application}/version/{version}": lambda client, _: client.versions.delete(
        "arena", "v2"
    ),
    "POST /v1/deployments/{request_id}:report": lambda client, body: client.deployments.report(
        IDS["request_id"], **body
    ),
    "GET /v1/locations/beacons": lambda client, _: client.locations.beacons(),
    "GET /v1/ip": lambda client, _: client.ip_addresses.own(),
    "GET /v1/ip/{ip}/lookup": lambda client, _: client.ip_addresses.locate("75.28.35.192"),
    "POST /v1/ips/lookup": lambda client, body: client.ip_addresses.locate_many(body["addresses"]),
}
SESSION, IMAGE, STORAGE, PROFILE = "7349356945f1-S", "studio/arena", "logs", "maps"
OF_IMAGE = "/v1/container-registry/images/{image_name}/tags"
OF_STORAGE = "/v1/storage/endpoint/{endpoint_name}"
OF_PROFILE = f"{OF_STORAGE}/pull-profile/{{pull_profile_name}}"
OF_LINK = f"{OF_PROFILE}/app/{{app_name}}/version/{{version_name}}"
CALLS |= {
    "POST /v1/relays/sessions": lambda client, body: client.relays.create(
        **{**body, "users": [user["ip"] for user in body["users"]]}
    ),
    "GET /v1/relays/sessions": lambda client, _: client.relays.list(),
    "GET /v1/relays/sessions/{session_id}": lambda client, _: client.relays.get(SESSION),
    "DELETE /v1/relays/sessions/{session_id}": lambda client, _: client.relays.delete(SESSION),
    "POST /v1/relays/sessions:authorize-user": lambda client, body: client.relays.authorize_user(
        **body
    ),
    "POST /v1/relays/sessions:revoke-user": lambda client, body: client.relays.revoke_user(**body),
    f"GET {OF_IMAGE}": lambda client, _: client.container_registry.tags(IMAGE),
    f"DELETE {OF_IMAGE}/{{tag_name}}": lambda client, _: client.container_registry.delete_tag(
        IMAGE, IDS["tag_name"]
    ),
    f"POST {OF_IMAGE}/bulk-delete": lambda client, body: client.container_registry.delete_tags(
        IMAGE, body["tags"]
    ),
    "GET /v1/storage/endpoints": lambda client, _: client.endpoint_storages.list(),
    "POST /v1/storage/endpoint": lambda client, body: client.endpoint_storages.create(**body),
    f"GET {OF_STORAGE}": lambda client, _: client.endpoint_storages.get(STORAGE),
    f"PATCH {OF_STORAGE}": lambda client, body: client.endpoint_storages.update(STORAGE, **body),
    f"DELETE {OF_STORAGE}": lambda client, _: client.endpoint_storages.delete(STORAGE),
    f"GET {OF_STORAGE}/pull-profiles": lambda client, _: client.pull_profiles.list(STORAGE),
    f"POST {OF_STORAGE}/pull-profile": lambda client, body: client.pull_profiles.create(
        STORAGE, **body
    ),
    f"GET {OF_PROFILE}": lambda client, _: client.pull_profiles.get(STORAGE, PROFILE),
    f"PATCH {OF_PROFILE}": lambda client, body: client.pull_profiles.update(
        STORAGE, PROFILE, **body
    ),
    f"DELETE {OF_PROFILE}": lambda client, _: client.pull_profiles.delete(STORAGE, PROFILE),
    f"PUT {OF_LINK}": lambda client, _: client.pull_profiles.link(STORAGE, PROFILE, "arena", "v2"),
    f"DELETE {OF_LINK}": lambda client, _: client.pull_profiles.unlink(
        STORAGE, PROFILE, "arena", "v2"
    ),
}
PART_RETURNED = {  # a method that returns a part of the answer; None for nothing
    "POST /v1/app/{application}/version": "version",
    "PATCH /v1/app/{application}/version/{version}": "version",
    "DELETE /v1/app/{application}/version/{version}": None,
    "POST /v1/ips/lookup": "addresses",
}
PAGED = {"GET /v1/deployments", "GET /v1/apps", "GET /v1/app/{application}/versions"}
PAGED |= {"GET /v1/locations/beacons", f"GET {OF_IMAGE}", "GET /v1/storage/endpoints"}
PAGED |= {f"GET {OF_STORAGE}/pull-profiles"}
OUTCOMES = [(name, status) for name, shown in SHOWN.items() for status in shown["outcomes"]]


@attrs.define
class Seen:
    """A request as the server received it."""

    method: str
    path: str
    query: dict[str, str]
    authorization: list[str]
    body: Any


@attrs.define
class Cloud:
    """A server that records requests and gives the same answer to all of them."""

    url: str = ""
    status: int = 200
    answer: Any = None
    seen: list[Seen] = attrs.field(factory=list)

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.seen.append(
            Seen(
                method=request.method,
                path=request.raw_path.partition("?")[0],
                query=dict(request.query),
                authorization=request.headers.getall("Authorization", []),
                body=json.loads(body) if body else None,
            )
        )
        if self.answer is None:
            return web.Response(status=self.status)
        return web.json_response(self.answer, status=self.status)


@pytest.fixture
async def cloud() -> AsyncIterator[Cloud]:
    cloud = Cloud()
    app = web.Application()
    app.router.add_route("*", "/{anything:.*}", cloud.handle)
    async with TestServer(app) as server:
        cloud.url = str(server.make_url("")).rstrip("/")
        yield cloud


@pytest.fixture
async def client(cloud: Cloud) -> AsyncIterator[EdgegapClient]:
    at_once = RetryPolicy(first_wait=0.001, max_wait=0.001)
    async with EdgegapClient(TOKEN, base_url=cloud.url, retries=at_once) as client:
        yield client


def path_of(name: str) -> str:
    path = name.partition(" ")[2]
    return re.sub(r"{(.*?)}", lambda match: IDS[match[1]], path)


# ── answers, field by field ──────────────────────────────────────────────────────────────────────

# Texts in the reference that stand for numbers. Others, such as a port named "7777", are texts.
NUMBERS = {"sockets", "sockets_usage", "user_count", "latitude", "longitude", "datasets"}
A_TIME = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d")


def differences(shown: object, read: object, at: str = "") -> list[str]:
    """Returns the paths at which a model differs from the JSON that the reference shows."""
    name = at.rpartition(".")[2].partition("[")[0]
    if isinstance(read, models.Status):
        read = read.api_text
    if isinstance(shown, dict):
        found = []
        for key, value in shown.items():
            missing = key not in read if isinstance(read, Mapping) else not hasattr(read, key)
            if missing:
                found.append(f"{at}.{key} is missing")
            else:
                inner = read[key] if isinstance(read, Mapping) else getattr(read, key)
                found += differences(value, inner, f"{at}.{key}")
        if read is None or (isinstance(read, Mapping) and set(read) != set(shown)):
            found.append(f"{at} is {read!r}")
        return found
    if isinstance(shown, list):
        if not isinstance(read, tuple) or len(read) != len(shown):
            return [f"{at} is {read!r}"]
        pairs = enumerate(zip(shown, read, strict=True))
        return [
            found
            for index, (item, inner) in pairs
            for found in differences(item, inner, f"{at}[{index}]")
        ]
    if isinstance(shown, str) and A_TIME.match(shown):
        moment = datetime.fromisoformat(shown)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        same = isinstance(read, datetime) and read.tzinfo is UTC and read == moment
        return [] if same else [f"{at} is {read!r}, not {shown}"]
    if isinstance(shown, str) and name in NUMBERS:
        same = type(read) in {int, float} and read == float(shown)
        return [] if same else [f"{at} is {read!r}, not the number {shown}"]
    kinds = (int, float) if type(shown) in {int, float} else (type(shown),)
    same = isinstance(read, kinds) and isinstance(read, bool) is isinstance(shown, bool)
    return [] if same and read == shown else [f"{at} is {read!r}, not {shown!r}"]


def test_every_call_of_the_references_has_a_method() -> None:
    assert set(CALLS) == set(SHOWN)
    assert (len(PAGE), len(NEWER)) == (16, 36)


@pytest.mark.parametrize(
    ("name", "status"), [(name, status) for name, status in OUTCOMES if status < 400]
)
async def test_requests_and_answers_match_the_reference(
    name: str, status: int, cloud: Cloud, client: EdgegapClient
) -> None:
    shown = SHOWN[name]
    cloud.status, cloud.answer = status, shown["answer"]

    result = await CALLS[name](client, shown["request"])

    method = shown["method"]
    assert [(seen.method, seen.path) for seen in cloud.seen] == [(method, path_of(name))]
    assert cloud.seen[0].body == shown["request"]
    part = PART_RETURNED.get(name, "")
    if shown["answer"] is None or part is None:
        assert result is None
    else:
        assert differences(shown["answer"][part] if part else shown["answer"], result) == []


@pytest.mark.parametrize("name", CALLS)
async def test_a_call_without_options_sends_no_query(
    name: str, cloud: Cloud, client: EdgegapClient
) -> None:
    shown = SHOWN[name]
    cloud.status, cloud.answer = shown["outcomes"][0], shown["answer"]

    await CALLS[name](client, shown["request"])

    assert cloud.seen[0].query == ({"page": "1"} if name in PAGED else {})


@pytest.mark.parametrize("name", CALLS)
async def test_each_call_sends_only_the_token_it_needs(
    name: str, cloud: Cloud, client: EdgegapClient
) -> None:
    shown = SHOWN[name]
    cloud.status, cloud.answer = shown["outcomes"][0], shown["answer"]

    await CALLS[name](client, shown["request"])

    token = DELETE_TOKEN if "/self/" in name else f"token {TOKEN}"
    assert cloud.seen[0].authorization == [token]


@pytest.mark.parametrize(
    ("name", "status"), [(name, status) for name, status in OUTCOMES if status >= 400]
)
async def test_each_documented_error_status_has_its_error_class(
    name: str, status: int, cloud: Cloud, client: EdgegapClient
) -> None:
    shown = SHOWN[name]
    cloud.status, cloud.answer = status, {"message": "because of reasons", "request_id": "abc"}

    with pytest.raises(EdgegapError, match="because of reasons") as caught:
        await CALLS[name](client, shown["request"])

    error: Any = caught.value
    assert (error.status, error.method, error.path) == (status, shown["method"], path_of(name))
    assert TOKEN not in str(error) + repr(error)
    if shown["method"] in {"POST", "PATCH"} and name != "POST /v1/ips/lookup":  # which only reads
        assert [seen.method for seen in cloud.seen].count(shown["method"]) == 1


async def test_a_list_gives_the_rows_of_its_pages(cloud: Cloud, client: EdgegapClient) -> None:
    shown = SHOWN["GET /v1/deployments"]
    cloud.answer = shown["answer"]  # its pagination says that more pages follow

    rows = [row async for row in client.deployments.list()]

    assert differences(shown["answer"]["data"], tuple(rows)) == []


async def test_documented_query_parameters_have_their_documented_names(
    cloud: Cloud, client: EdgegapClient
) -> None:
    cloud.answer = {"request_id": "abc", "data": [], "locations": [], "tags": []}
    noon = datetime(2025, 11, 29, 12, tzinfo=UTC)

    await client.deployments.stop("abc", container_log_storage="my-storage")
    await client.deployments.stop("abc", container_log_storage="true")
    await client.locations.list(application="arena", version="v1", type="standard", tags=True)
    await client.deployments.metrics("abc", start=noon, end=noon, steps="1m", raw=True)
    await client.deployments.list(limit=50).page(2)

    assert [seen.query for seen in cloud.seen] == [
        {"container_log_storage": "my-storage"},
        {"container_log_storage": "true"},
        {"app": "arena", "version": "v1", "type": "standard", "tags": "true"},
        {
            "start_time": "2025-11-29 12:00:00.000000",
            "end_time": "2025-11-29 12:00:00.000000",
            "steps": "1m",
            "raw": "true",
        },
        {"page": "2", "limit": "50"},
    ]


@pytest.mark.parametrize(
    ("shown", "read"),
    [
        ({"a": 1}, None),
        ({"a": 1}, {}),
        ({"a": 1}, {"a": 1, "b": 2}),
        ({"a": 1}, {"a": True}),
        ({"a": True}, {"a": 1}),
        ({"a": "5"}, {"a": 5}),
        ({"sockets": "5"}, {"sockets": "5"}),
        ({"a": ["x"]}, {"a": ()}),
        ({"a": ["x"]}, {"a": ("y",)}),
        ({"start_time": "2025-11-29 22:35:31"}, {"start_time": "2025-11-29 22:35:31"}),
        ({"start_time": "2025-11-29 22:35:31"}, {"start_time": datetime(2025, 11, 29, 22, 35, 31)}),  # noqa: DTZ001 - a naive time is what must be noticed
    ],
)
def test_the_comparison_notices_differences(shown: object, read: object) -> None:
    assert differences(shown, read) != []


# ── the newer official description ───────────────────────────────────────────────────────────────

DESCRIPTION = HERE.parent.parent / "shared" / "reference" / "openapi.yaml"


@pytest.fixture(scope="module")
def description() -> Any:
    if not DESCRIPTION.exists():
        pytest.skip("the official description is not beside this project")
    return yaml.load(DESCRIPTION.read_text("utf-8"), yaml.CSafeLoader)


def missing(schema: Any, kind: type[Any], description: Any) -> list[str]:
    """Returns the properties of a schema, at any depth, for which a model has no field."""
    attrs.resolve_types(kind)
    fields = {field.name: field.type for field in attrs.fields(kind)}
    found = []
    for name, part in properties(schema, description).items():
        if name not in fields:
            found.append(f"{kind.__name__}.{name}")
            continue
        for inner in models_in(fields[name]):
            # `ports` has one property for each port; `users` one shape for each kind of user.
            parts = properties(part, description)
            if name == "ports":
                parts = properties(next(iter(parts.values())), description)
            if name != "users":
                found += missing({"properties": parts}, inner, description)
    return found


def properties(schema: Any, description: Any) -> dict[str, Any]:
    if "$ref" in schema:
        schema = description["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    if "allOf" in schema:
        return properties(schema["allOf"][0], description)
    if "items" in schema:
        return properties(schema["items"], description)
    found: dict[str, Any] = schema.get("properties", {})
    return found


def models_in(kind: Any) -> list[type[Any]]:
    """Returns the models that a field can hold, also inside lists and mappings."""
    if attrs.has(kind):
        return [kind]
    return [found for part in getattr(kind, "__args__", ()) for found in models_in(part)]


@pytest.mark.parametrize(
    ("schema", "kind"),
    [
        ("V1DeploymentStatus", models.Deployment),
        ("DeploymentPort", models.Port),
        ("LocationData", models.Location),
        ("MetricsModel", models.MetricSeries),
        ("DeploymentTagResponse", models.Tag),
        ("V2_DeploymentV2", requests.DeployRequest),
        ("PageV2_DeploymentCreate", requests.DeployRequest),
        ("PageV2_PrivateFleetDeploymentCreate", requests.FleetDeployRequest),
        ("PageV2_PrivateFleetHostsResponse", models.HostPage),
        ("V2_PaginatedResponse", models.HostPage),
        ("V2_PaginatedResponse", models.DeploymentPage),
        ("V2_DeploymentResponse", models.DeployAccepted),
    ],
)
def test_every_property_of_the_official_description_is_a_field(
    schema: str, kind: type[Any], description: Any
) -> None:
    assert missing(description["components"]["schemas"][schema], kind, description) == []


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("get", "/v1/status/{deployment_id}", "200", models.Deployment),
        ("get", "/v1/deployments", "200", models.DeploymentPage),
        ("get", "/v1/locations", "200", models.LocationPage),
        ("get", "/v1/metrics/deployment/{deployment_id}", "200", models.Metrics),
        ("get", "/v1/deployment/{deployment_id}/container-logs", "200", models.Logs),
        ("get", "/v1/deployments/{deployment_id}/tags", "200", models.TagPage),
        ("delete", "/v1/stop/{deployment_id}", "200", models.Stopped),
        ("post", "/v1/deployments/bulk-stop", "202", models.BulkStop),
        ("get", "/v2/private-fleets/{fleet-name}/hosts", "200", models.HostPage),
    ],
)
def test_every_property_of_an_answer_of_the_official_description_is_a_field(
    method: str, path: str, status: str, kind: type[Any], description: Any
) -> None:
    answer = description["paths"][path][method]["responses"][status]
    schema = answer["content"]["application/json"]["schema"]

    assert properties(schema, description)
    assert missing(schema, kind, description) == []
