"""Calls of official programs, replayed as plain HTTP: the Nakama plugin, the MCP server."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web
from bare_api import DEPLOY_BODY, BareApi
from emulated_cloud import until


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


async def test_the_tools_of_the_mcp_server_work(api: BareApi) -> None:
    assert (await api("GET", "/v1/apps?limit=50"))[0] == 200
    created = {"name": "mcp-app", "is_active": True, "image": "aGk="}
    assert (await api("POST", "/v1/app", json=created))[0] == 200
    assert (await api("GET", "/v1/app/arena/versions"))[1]["total_count"] == 2
    described = (await api("GET", "/v1/app/arena/version/v1"))[1]
    names = ("docker_repository", "docker_image", "docker_tag", "req_cpu", "req_memory", "ports")
    version = {"name": "v 1/ü".replace("/", "-"), **{name: described[name] for name in names}}
    assert (await api("POST", "/v1/app/mcp-app/version", json=version))[0] == 200
    deploy = {**DEPLOY_BODY, "application": "mcp-app", "version": version["name"], "tags": ["mcp"]}
    status, accepted = await api("POST", "/v2/deployments", json=deploy)
    assert status == 202
    request_id = accepted["request_id"]
    ready = await api.wait_for_status(request_id, "READY")
    assert ready["running"] is True
    query = json.dumps(
        {
            "filters": [{"field": "tags", "operator": "in", "value": ["mcp"]}],
            "order_by": [{"field": "created_at", "order": "desc"}],
        }
    )
    listed = (await api("GET", "/v1/deployments", params={"query": query, "limit": "100"}))[1]
    assert [row["request_id"] for row in listed["data"]] == [request_id]
    assert (await api("GET", f"/v1/deployment/{request_id}/container-logs?format=text"))[0] == 200
    assert (await api("GET", "/v1/locations/beacons"))[0] == 200
    assert (await api("GET", f"/v1/metrics/deployment/{request_id}"))[0] == 200
    assert (await api("DELETE", f"/v1/stop/{request_id}"))[0] == 200
    await api.wait_for_status(request_id, "TERMINATED")
    old_names = {"app_name": "arena", "version_name": "v1", "ip_list": ["192.0.2.1"]}
    status, said = await api("POST", "/v2/deployments", json=old_names)
    assert (status, "app_name" in said["message"]) == (400, True)
    assert (await api("GET", "/v1/status/ffffffffffff"))[1]["message"] == "Bad Request ID provided"
