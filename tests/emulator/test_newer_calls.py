"""Calls of the newer description: beacons, context, reports, IP addresses, pages, and the 501s."""

from __future__ import annotations

import asyncio
import json
from importlib.resources import files
from typing import Any

import pytest
from bare_api import BareApi
from emulated_cloud import UNKNOWN_ID

NOT_EMULATED = json.loads(
    files("edgegap_async.emulator").joinpath("not_emulated.json").read_text("utf-8")
)


@pytest.mark.parametrize(("method", "path", "reason"), NOT_EMULATED)
async def test_a_call_that_is_not_emulated_is_501_and_names_itself_and_the_reason(
    api: BareApi, method: str, path: str, reason: str
) -> None:
    options: dict[str, Any] = {} if method in {"GET", "DELETE"} else {"json": {}}
    status, said = await api(method, path.replace("{", "").replace("}", ""), **options)
    refused, _ = await api(method, path.replace("{", "").replace("}", ""), authorization="")

    assert (status, said) == (501, {"message": f"{method} {path} is not emulated: {reason}"})
    assert refused == 401


async def test_beacons_answer_pings(api: BareApi) -> None:
    status, said = await api("GET", "/v1/locations/beacons?page=1&limit=3")
    beacon = said["locations"][0]
    reader, writer = await asyncio.open_connection(beacon["host"], beacon["tcp_port"])
    assert await reader.read() == b""
    writer.close()
    loop = asyncio.get_running_loop()
    answers: asyncio.Future[bytes] = loop.create_future()

    class Ping(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: object) -> None:
            answers.set_result(data)

    transport, _ = await loop.create_datagram_endpoint(
        Ping, remote_addr=(beacon["host"], beacon["udp_port"])
    )
    transport.sendto(b"ping")
    assert await asyncio.wait_for(answers, 10) == b"ping"
    transport.close()
    assert (status, len(said["locations"]), said["count"]) == (200, 3, 26)
    assert beacon["location"]["city"] == "Montreal"


async def test_locations_and_tags_come_in_pages_if_asked(api: BareApi) -> None:
    _, every = await api("GET", "/v1/locations")
    _, page = await api("GET", "/v1/locations?page=6&limit=5")
    request_id = await api.deploy(tags=["eu", "ranked"])
    _, tags = await api("GET", f"/v1/deployments/{request_id}/tags?page=2&limit=1")

    assert (len(every["locations"]), every["total_count"]) == (26, 26)
    assert every["pagination"]["has_next"] is False
    assert [city["city"] for city in page["locations"]] == ["Johannesburg"]
    assert (page["total_count"], page["pagination"]["paginator"]["num_pages"]) == (26, 6)
    assert [tag["name"] for tag in tags["tags"]] == ["ranked"]
    assert (tags["count"], tags["total_count"], tags["pagination"]["number"]) == (2, 2, 2)


@pytest.mark.parametrize(
    "path", ["/v1/locations?page=0", "/v1/deployments?query=%7B", "/v1/ip/nowhere/lookup"]
)
async def test_an_argument_that_cannot_be_read_is_a_bad_request(api: BareApi, path: str) -> None:
    status, said = await api("GET", path)

    assert status == 400
    assert said["message"]


async def test_a_deployment_reads_and_tags_itself_through_its_context(api: BareApi) -> None:
    request_id = await api.deploy(tags=["eu"])
    await api.wait_for_status(request_id, "READY")
    own = api.emulator.cloud.deployments[request_id].secrets
    path = f"/v1/context/{request_id}/{own.access_point_id}"
    token = own.context_token

    status, context = await api("GET", path, authorization=token)
    assert (status, context["status"], context["ready"]) == (200, "Status.READY", True)
    assert (context["tags"], list(context["ports"])) == (["eu"], ["game"])
    assert (await api("POST", f"{path}/tags", authorization=token, json={"name": "full"}))[0] == 200
    assert (await api("POST", f"{path}/tags", authorization=token, json={"name": "full"}))[0] == 409
    assert (await api("DELETE", f"{path}/tags/eu", authorization=token))[0] == 204
    assert list(api.emulator.cloud.deployments[request_id].tags) == ["full"]
    for wrong in (own.delete_token, f"token {api.emulator.token}"):
        assert (await api("GET", path, authorization=wrong))[0] == 401
    assert (await api("GET", f"/v1/context/{request_id}/1", authorization=token))[0] == 400
    assert (await api("GET", f"/v1/context/{UNKNOWN_ID}/1", authorization=token))[0] == 400


async def test_a_report_about_a_deployment_is_kept(api: BareApi) -> None:
    request_id = await api.deploy()
    path = f"/v1/deployments/{request_id}:report"

    assert await api("POST", path, json={"reason": "lag", "metadata": {"ping": 900}}) == (200, None)
    ((reported, report),) = api.emulator.cloud.reports
    assert (reported, report.reason, report.metadata) == (request_id, "lag", {"ping": 900})
    for reason in ("", "x" * 256):
        assert (await api("POST", path, json={"reason": reason}))[0] == 400


async def test_ip_addresses_are_located(api: BareApi) -> None:
    assert await api("GET", "/v1/ip") == (200, {"public_ip": "127.0.0.1"})
    _, here = await api("GET", "/v1/ip/10.0.0.1/lookup")
    _, there = await api("GET", "/v1/ip/2001:4860:4860::8888/lookup")
    _, both = await api("POST", "/v1/ips/lookup", json={"addresses": ["10.0.0.1", "8.8.8.8"]})

    assert here == {"ip_address": "10.0.0.1", "type": "IPv4"}
    assert (there["type"], there["location"]["country"]) == ("IPv6", {"code": "US"})
    assert both["addresses"][0] == here
    assert set(both["addresses"][1]["location"]) >= {"latitude", "longitude", "country"}
    assert (await api("GET", "/v1/ip/x/lookup"))[0] == 400
    for addresses in ([], ["x"], ["10.0.0.1"] * 21):
        assert (await api("POST", "/v1/ips/lookup", json={"addresses": addresses}))[0] == 400
