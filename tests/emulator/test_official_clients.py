"""Calls of official programs, replayed as plain HTTP: the Nakama plugin, the MCP server."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web
from bare_api import BareApi
from emulated_cloud import until

# ── the Nakama plugin ───────────────────────────────────────────────────────────────────────────


async def test_the_nakama_plugin_starts_and_synchronizes(api: BareApi) -> None:
    application, _ = await api("GET", "/v1/app/arena")
    version, described = await api("GET", "/v1/app/arena/version/v1")
    missing, _ = await api("GET", "/v1/app/arena/version/none")
    ids = [await api.deploy() for _ in range(5)]
    for request_id in ids:
        await api.wait_for_status(request_id, "READY")
    rows: list[dict[str, Any]] = []
    page: int | None = 1
    while page is not None:
        _, said = await api("GET", f"/v1/deployments?page={page}&limit=2")
        rows += said["data"]
        page = said["pagination"]["next_page_number"]

    assert (application, version, missing) == (200, 200, 404)
    assert described["is_active"] is True
    assert [row["request_id"] for row in rows] == ids
    assert {row["status"] for row in rows} == {"Status.READY"}


async def test_the_query_of_the_nakama_webhook_arrives_byte_for_byte(api: BareApi) -> None:
    arrived: list[tuple[str, list[str]]] = []
    query = "http_key=a%2Fb&unwrap&x=%C3%a9"

    async def hook(request: web.Request) -> web.Response:
        _, said = await api("GET", "/v1/deployments")
        arrived.append((request.raw_path, [row["status"] for row in said["data"]]))
        return web.Response()

    app = web.Application()
    app.router.add_post("/v2/rpc/edgegap_deployment_ready", hook)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    path = f"/v2/rpc/edgegap_deployment_ready?{query}"
    url = f"http://127.0.0.1:{runner.addresses[0][1]}{path}"
    await api.deploy(webhook_on_ready={"url": url})
    await until(lambda: arrived)
    await runner.cleanup()

    # A READY row is in the list when the webhook comes: the plugin would lose the event otherwise.
    assert arrived == [(path, ["Status.READY"])]


# ── the MCP server: ten tools, each with the calls that it makes ────────────────────────────────


class McpServer:
    """Calls as the server does: a JSON content type on every call, also where there is no body."""

    def __init__(self, api: BareApi) -> None:
        self._api = api

    async def __call__(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        return await self._api(method, path, headers=headers, **options)

    async def create_version(self, name: str, **fields: Any) -> dict[str, Any]:
        """Creates a version of the arena's image; returns it as it is answered."""
        described = (await self("GET", "/v1/app/arena/version/v1"))[1]
        names = ("docker_repository", "docker_image", "docker_tag", "req_cpu", "req_memory")
        game = {"port": 0, "protocol": "UDP", "to_check": True, "name": "game"}
        body = {"name": name, "ports": [game], **{key: described[key] for key in names}, **fields}
        status, saved = await self("POST", "/v1/app/mcp/version", json=body)
        assert (status, saved.get("success")) == (200, True), saved
        return dict(saved["version"])


@pytest.fixture
async def mcp(api: BareApi) -> McpServer:
    """The server, and an application that it has created."""
    server = McpServer(api)
    image = (
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGBgAAAABQABpfZFQAAAAABJRU5"
        "ErkJggg=="
    )
    wanted = {"name": "mcp", "is_active": True, "image": image}
    status, created = await server("POST", "/v1/app", json=wanted)
    assert (status, created["name"]) == (200, "mcp")
    return server


async def test_mcp_lists_applications_by_pages_of_its_size(mcp: McpServer) -> None:
    _, said = await mcp("GET", "/v1/apps", params={"page": "1", "limit": "50"})

    assert [one["name"] for one in said["applications"]] == ["arena", "mcp"]
    assert said["pagination"]["has_next"] is False
    assert (await mcp("POST", "/v1/app", json={"name": "mcp", "is_active": True, "image": "x"}))[
        0
    ] == 409


async def test_mcp_creates_reads_and_changes_versions(mcp: McpServer) -> None:
    web = {"port": 8080, "protocol": "WS", "to_check": False, "tls_upgrade": True, "name": "web"}
    game = {"port": 0, "protocol": "UDP", "to_check": True, "name": "game"}
    hidden = {"key": "DB", "value": "canary-db", "is_hidden": True}
    created = await mcp.create_version("v 1", ports=[game, web], envs=[hidden])
    _, listed = await mcp("GET", "/v1/app/mcp/versions", params={"limit": "50"})
    _, read = await mcp("GET", "/v1/app/mcp/version/v%201")
    changed, said = await mcp("PATCH", "/v1/app/mcp/version/v%201", json={"max_duration": 60})

    # The API reads WS back by another name, and no secret at all.
    assert [port["protocol"] for port in created["ports"]] == ["UDP", "Websocket"]
    assert created["envs"][0]["value"] == "This value is set and encrypted"
    assert [one["name"] for one in listed["versions"]] == ["v 1"]
    assert read["name"] == "v 1"
    assert (changed, said["version"]["max_duration"]) == (200, 60)


async def test_mcp_deploys_waits_lists_reads_logs_and_stops(mcp: McpServer, api: BareApi) -> None:
    await mcp.create_version("v1")
    players = [
        {"user_type": "ip_address", "user_data": {"ip_address": "8.8.8.8"}},
        {"user_type": "geo_coordinates", "user_data": {"latitude": 48.9, "longitude": 2.4}},
    ]
    body = {
        "application": "mcp",
        "version": "v1",
        "users": players,  # both kinds in one call
        "environment_variables": [{"key": "MODE", "value": "test", "is_hidden": False}],
        "tags": ["mcp"],
        "resources": {"cpu_units": 256, "memory_mib": 256},
        "require_cached_locations": False,
    }
    status, accepted = await mcp("POST", "/v2/deployments", json=body)
    assert status == 202
    request_id = accepted["request_id"]

    said: dict[str, Any] = {}
    waited = 2.0  # seconds, times 1.5 each time, 10 at most: too slow for a test
    for _ in range(200):
        _, said = await mcp("GET", f"/v1/status/{request_id}")
        # The server takes either for "playable", so none may come early.
        assert said["running"] is (said["current_status"] == "Status.READY")
        if said["running"]:
            break
        await asyncio.sleep(waited / 40)
    assert said["current_status"] == "Status.READY"
    assert list(said["ports"]) == ["game"]

    query = {
        "filters": [{"field": "tags", "operator": "in", "value": ["mcp"]}],
        "order_by": [{"field": "created_at", "order": "desc"}],
    }
    wanted = {"query": json.dumps(query), "page": "1", "limit": "50"}
    _, listed = await mcp("GET", "/v1/deployments", params=wanted)
    assert [row["request_id"] for row in listed["data"]] == [request_id]
    for field, value in (("status", "ready"), ("application", "mcp"), ("request_id", request_id)):
        one = {"filters": [{"field": field, "operator": "eq", "value": value}]}
        _, listed = await mcp("GET", "/v1/deployments", params={"query": json.dumps(one)})
        assert [row["request_id"] for row in listed["data"]] == [request_id]

    logs, text = await mcp(
        "GET", f"/v1/deployment/{request_id}/container-logs", params={"format": "text"}
    )
    assert (logs, text["encoding"]) == (200, "utf-8")
    assert (await mcp("GET", f"/v1/metrics/deployment/{request_id}"))[0] == 200

    stopped, said = await mcp("DELETE", f"/v1/stop/{request_id}")
    assert (stopped, said["message"]) == (200, f"Instance {request_id} will be deleted")
    await api.wait_for_status(request_id, "TERMINATED")
    assert (await mcp("DELETE", f"/v1/stop/{request_id}"))[0] == 410


async def test_mcp_reads_beacons_and_locations(mcp: McpServer) -> None:
    beacons, said = await mcp("GET", "/v1/locations/beacons")
    locations, found = await mcp("GET", "/v1/locations", params={"app": "arena", "version": "v1"})

    assert (beacons, said["count"]) == (200, len(said["locations"]))
    assert (locations, bool(found["locations"])) == (200, True)


async def test_mcp_gets_the_texts_by_which_it_explains_errors(mcp: McpServer) -> None:
    unknown = await mcp("GET", "/v1/status/ffffffffffff")
    logs = await mcp("GET", "/v1/deployment/ffffffffffff/container-logs")
    old_names = {"app_name": "arena", "version_name": "v1", "ip_list": ["192.0.2.1"]}
    refused, said = await mcp("POST", "/v2/deployments", json=old_names)
    version = {**old_names, "application": "arena", "version": "none", "users": []}
    bad_query = await mcp("GET", "/v1/deployments", params={"query": "not JSON"})

    assert unknown == (400, {"message": "Bad Request ID provided"})
    assert (logs[0], "could not understand" in logs[1]["message"]) == (400, True)
    assert (refused, "app_name" in said["message"]) == (400, True)
    assert (await mcp("POST", "/v2/deployments", json=version))[0] == 400
    assert (bad_query[0], "query" in bad_query[1]["message"]) == (400, True)
