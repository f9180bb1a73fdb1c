"""check, locations."""

from __future__ import annotations

import re
import socket

import pytest
from command_line import invoke

from edgegap_async.emulator import Fault, Faults, Respond
from edgegap_async.testing import EmulatorThread


@pytest.fixture
def free_port() -> int:
    """A port of this machine that no program has opened."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        number: int = server.getsockname()[1]
        return number


def results(*words: str) -> tuple[int, dict[str, str]]:
    ran = invoke("check", "--json", *words)
    return ran.status, {one["check"]: one["result"] for one in ran.objects}


def test_check_finds_everything_right(monkeypatch: pytest.MonkeyPatch) -> None:
    assert results() == (0, {"reachability": "ok", "token": "ok", "limits": "ok"})
    shown = invoke("check").stdout
    assert "deploy 39 of 40" in shown
    assert re.search(r"the API answered after \d+ ms", shown)


def test_check_shows_a_limit_that_is_used_up(edgegap_faults: Faults) -> None:
    edgegap_faults.add(Fault("list_deployments", Respond(429), times=1))
    ran = invoke("check", "--json")

    assert (ran.status, [one["result"] for one in ran.objects]) == (0, ["ok", "ok", "unknown"])
    assert ran.objects[2]["detail"].startswith("the API answered 429: another program uses")


def test_check_tells_a_wrong_token_from_an_api_that_is_away(
    monkeypatch: pytest.MonkeyPatch, edgegap_faults: Faults, closed_port: int
) -> None:
    edgegap_faults.add(Fault("list_deployments", Respond(418), times=None))
    assert results() == (1, {"reachability": "ok", "token": "unknown", "limits": "ok"})

    monkeypatch.setenv("EDGEGAP_API_TOKEN", "canary-wrong")
    edgegap_faults.clear()
    assert results() == (4, {"reachability": "ok", "token": "failed", "limits": "ok"})

    monkeypatch.setenv("EDGEGAP_BASE_URL", f"http://127.0.0.1:{closed_port}")
    assert results() == (1, {"reachability": "failed", "token": "unknown", "limits": "unknown"})
    [said, *_] = invoke("check", "--json").objects
    assert "check the network and EDGEGAP_BASE_URL" in said["detail"]
    assert "ssl:default" not in said["detail"]


def test_locations_are_listed_with_their_places() -> None:
    everything, with_room = (
        invoke("locations"),
        invoke("locations", "--app", "arena", "--version", "v1", "--json"),
    )

    assert any(line.startswith("Montreal") for line in everything.stdout.splitlines())
    assert {"city", "country", "latitude", "longitude"} <= with_room.objects[0].keys()
    assert invoke("locations", "--app", "arena").status == 2


def test_beacons_are_listed_and_measured(edgegap_emulator: EmulatorThread) -> None:
    listed, measured = invoke("beacons", "--json").objects, invoke("beacons", "--ping", "--json")

    assert {"host", "udp_port", "location"} <= listed[0].keys()
    assert all(0 < one["round_trip"] < 10 for one in measured.objects)
    assert "CITY" in invoke("beacons").stdout


def test_check_sends_a_webhook_to_the_public_url(free_port: int) -> None:
    url, port = f"http://127.0.0.1:{free_port}", ("--webhook-port", str(free_port))

    assert results("--public-url", url, *port)[1]["webhooks"] == "ok"
    status, found = results("--public-url", url)  # which leads to another port
    assert (status, found["webhooks"]) == (1, "failed")
    with socket.create_server(("127.0.0.1", free_port)):
        status, found = results("--public-url", url, *port)
        assert (status, found["webhooks"]) == (1, "failed")
    assert invoke("check", "--public-url", "here").status == 2
