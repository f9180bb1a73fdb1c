"""Each kind of call over bare HTTP, from deploy to the webhook of the end."""

from __future__ import annotations

import asyncio
import socket

import pytest
from aiohttp import web
from bare_api import DEPLOY_BODY, BareApi
from emulated_cloud import until


async def test_a_game_is_deployed_played_watched_and_stopped(api: BareApi) -> None:
    request_id = await api.deploy(tags=["eu"])
    ready = await api.wait_for_status(request_id, "READY")
    host, _, port = ready["ports"]["game"]["link"].rpartition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as player:
        player.settimeout(10)
        player.connect((host, int(port)))
        player.send(b"join ANNA")
        welcome = player.recv(2048)
    _, logs = await api("GET", f"/v1/deployment/{request_id}/container-logs?format=text")
    _, tags = await api("GET", f"/v1/deployments/{request_id}/tags")
    stop_status, stopped = await api("DELETE", f"/v1/stop/{request_id}?container_log_storage=true")
    await api.wait_for_status(request_id, "TERMINATED")
    gone, _ = await api("DELETE", f"/v1/stop/{request_id}")

    assert welcome == b"welcome ANNA to arena in Paris, France"
    assert "ANNA joined" in logs["logs"]
    assert (logs["encoding"], logs["crash_data"], logs["logs_link"]) == ("utf-8", None, None)
    assert [tag["name"] for tag in tags["tags"]] == ["eu"]
    assert stop_status == 200
    assert stopped["deployment_summary"]["current_status"] == "Status.READY"
    assert gone == 410


async def test_a_game_server_can_stop_itself(api: BareApi) -> None:
    request_id = await api.deploy(version="selfish")

    await api.wait_for_status(request_id, "TERMINATED")

    (call,) = (one for one in api.emulator.requests if one.operation == "stop_self")
    assert (call.method, call.status) == ("DELETE", 200)


async def test_metrics_come_as_numbers_and_texts(api: BareApi) -> None:
    request_id = await api.deploy()
    await api.wait_for_status(request_id, "READY")
    async with asyncio.timeout(20):
        while True:
            _, said = await api("GET", f"/v1/metrics/deployment/{request_id}?raw=true")
            if said["mem"]["datasets"]:
                break
            await asyncio.sleep(0.02)

    assert said["mem"]["datasets"][0] > 1_000_000
    assert len(said["mem"]["labels"][0]) == len("00:00:00")
    assert said["total"]["receive_total"]["datasets"] == []  # no forwarder counts its traffic
    status, said = await api("GET", f"/v1/metrics/deployment/{request_id}?steps=7m")
    assert (status, list(said)) == (422, ["message"])


@pytest.mark.parametrize("path", ["/v2/private-fleets:deploy", "/v2/private-fleets/deployments"])
async def test_a_fleet_deploy_is_answered_at_its_older_and_newer_path(
    api: BareApi, path: str
) -> None:
    body = {**DEPLOY_BODY, "private_host_ids": ["alpha-1"]}

    status, said = await api("POST", path, json=body)
    deployment = api.emulator.cloud.deployments[said["request_id"]]
    _, hosts = await api("GET", "/v2/private-fleets/alpha/hosts")

    assert (status, deployment.host_id) == (202, "alpha-1")
    assert hosts["data"][0]["allocated_cpu_units"] == 256
    assert hosts["data"][0]["created_at"].endswith("Z")


async def test_tags_are_changed_through_their_paths(api: BareApi) -> None:
    request_id = await api.deploy()
    tags = f"/v1/deployments/{request_id}/tags"

    assert (await api("POST", tags, json={"name": "v 1/ü"}))[0] == 200
    assert (await api("POST", tags, json={"name": "eu"}))[1]["name"] == "eu"
    assert (await api("POST", tags, json={"name": "eu"}))[0] == 409
    assert (await api("PATCH", f"{tags}/eu", json={"name": "us"}))[0] == 200
    assert (await api("GET", f"{tags}/us"))[1]["create_time"]
    assert await api("DELETE", f"{tags}/us") == (204, None)
    assert (await api("GET", f"{tags}/us"))[0] == 404
    assert (await api("POST", tags, json={"name": "x" * 41}))[0] == 400


async def test_a_bulk_stop_lists_the_deployments_that_it_stops(api: BareApi) -> None:
    request_id = await api.deploy(tags=["mine"])
    await api.deploy()
    filters = [{"field": "deployment_tags", "values": ["mine"], "filter_type": "any"}]

    status, said = await api("POST", "/v1/deployments/bulk-stop", json={"filters": filters})

    assert (status, said) == (202, {"processable": [{"request_id": request_id}]})


async def test_webhooks_are_sent_for_ready_and_terminated(api: BareApi) -> None:
    sent: list[tuple[str, str]] = []

    async def hook(request: web.Request) -> web.Response:
        sent.append((request.path, (await request.json())["current_status"]))
        return web.Response()

    app = web.Application()
    app.router.add_post("/{event}", hook)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    base = f"http://127.0.0.1:{runner.addresses[0][1]}"
    request_id = await api.deploy(
        webhook_on_ready={"url": f"{base}/ready"},
        webhook_on_error={"url": f"{base}/error"},
        webhook_on_terminated={"url": f"{base}/terminated"},
    )
    await api("DELETE", f"/v1/stop/{request_id}")
    await api.wait_for_status(request_id, "TERMINATED")
    await until(lambda: len(sent) == 2)
    await runner.cleanup()

    assert set(sent) == {("/ready", "Status.READY"), ("/terminated", "Status.TERMINATED")}
