"""The example of a service with an API of its own, against a scripted server."""

from __future__ import annotations

from program_runner import run_program
from scripted_api import Reply, ScriptedApi

from edgegap_async.emulator import Emulator

EXAMPLE = "examples/matchmaking_service.py"
SEARCHING = Reply(200, {"id": "t1", "status": "SEARCHING"})
ASSIGNED = Reply(
    200, {"id": "t1", "status": "HOST_ASSIGNED", "assignment": {"fqdn": "a.example", "ports": {}}}
)


async def test_the_matchmaking_service_assigns_a_host(emulator: Emulator) -> None:
    async with ScriptedApi() as api:
        api.on("POST", "/tickets", Reply(201, SEARCHING.body))
        api.on("GET", "/tickets/t1", SEARCHING, Reply(503), ASSIGNED)
        variables = {"MATCHMAKER_URL": api.url, "MATCHMAKER_TOKEN": "canary-raw"}
        printed = await run_program(emulator, EXAMPLE, "192.0.2.1", **variables)

    assert [request.method for request in api.requests] == ["POST", "GET", "GET", "GET"]
    assert printed == "192.0.2.1: HOST_ASSIGNED a.example\n"
    assert {request.headers["Authorization"] for request in api.requests} == {"canary-raw"}
    assert api.requests[0].json == {
        "profile": "casual",
        "attributes": {},
        "player_ip": "192.0.2.1",
    }
