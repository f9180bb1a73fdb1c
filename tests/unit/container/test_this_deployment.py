"""What a game server reads from its environment, and its calls."""

from __future__ import annotations

import logging

import pytest
from inside_deployment import CONTEXT, STOP, at, here
from scripted_api import Reply, ScriptedApi

from edgegap_async.container import HostBeacon, ThisDeployment
from edgegap_async.errors import CallError, Forbidden, InvalidRequest, NoAnswer

# ── the environment ──────────────────────────────────────────────────────────────────────────────


def test_outside_a_deployment_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ARBITRIUM_REQUEST_ID", raising=False)

    assert ThisDeployment.from_environment() is None


def test_the_variables_are_read_as_their_types() -> None:
    deployment = here({})

    assert deployment.request_id == "23c01225b99d"
    assert deployment.public_ip == "162.254.141.66"
    assert deployment.tags == ("match-42", "ranked")
    assert deployment.location is not None
    assert (deployment.location.city, deployment.location.latitude) == ("Paris", 48.9)
    assert deployment.ports["game"].external == 32013
    assert deployment.internal_port() == deployment.internal_port("game") == 7777
    assert (deployment.host_id, deployment.host_clock_mhz) == ("paris-1", 2000)
    assert (deployment.cpu_units, deployment.memory_mb) == (1536, 3072)
    assert deployment.private_fleet_id is None
    assert deployment.beacon is None
    assert deployment.match is None


@pytest.mark.parametrize("name", ["ARBITRIUM_HOST_BEACON_ENABLED", "ARBITRIUM_BEACON_ENABLED"])
def test_the_flag_of_the_beacon_has_two_names(name: str) -> None:
    deployment = here(
        {
            name: "true",
            "ARBITRIUM_HOST_BEACON_PUBLIC_IP": "1.2.3.4",
            "ARBITRIUM_HOST_BEACON_PORT_UDP_EXTERNAL": "31000",
            "ARBITRIUM_HOST_BEACON_PORT_TCP_EXTERNAL": "0",
        }
    )

    assert deployment.beacon == HostBeacon(public_ip="1.2.3.4", udp_port=31000, tcp_port=None)


def test_the_variables_of_the_matchmaker_are_read() -> None:
    match = here(
        {
            "MM_MATCH_ID": "m1",
            "MM_MATCH_PROFILE": "ranked",
            "MM_EXPANSION": "initial",
            "MM_TICKET_IDS": '["t1", "t2"]',
            "MM_TICKET_t1": '{"player_ip": "8.8.8.8"}',
            "MM_TICKET_t2": '{"player_ip": "9.9.9.9"}',
            "MM_TEAMS": '{"red": ["t1"]}',
            "MM_EQUALITY": '{"mode": "duel"}',
        }
    ).match

    assert match is not None
    assert (match.match_id, match.profile, match.expansion) == ("m1", "ranked", "initial")
    assert match.ticket_ids == ("t1", "t2")
    assert match.tickets["t2"] == {"player_ip": "9.9.9.9"}
    assert (match.teams, match.groups) == ({"red": ["t1"]}, None)
    assert match.equality == {"mode": "duel"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ARBITRIUM_PORTS_MAPPING", "{"),
        ("ARBITRIUM_DEPLOYMENT_LOCATION", "[]"),
        ("ARBITRIUM_DEPLOYMENT_MEMORY_MB", "much"),
        ("ARBITRIUM_DELETE_URL", "nowhere"),
        ("ARBITRIUM_DEPLOYMENT_MEMORY_MB", "-1"),
    ],
)
def test_an_unreadable_variable_is_absent_and_named_in_the_log(
    name: str, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        deployment = here({"ARBITRIUM_DELETE_TOKEN": "canary-delete", name: text})

    assert deployment.request_id
    assert [record.getMessage() for record in caplog.records] == [
        f"the environment variable {name} is unreadable"
    ]


def test_a_port_of_the_beacon_that_cannot_exist_is_absent() -> None:
    ports = {"UDP": "65536", "TCP": "65535"}
    variables = {f"ARBITRIUM_HOST_BEACON_PORT_{kind}_EXTERNAL": ports[kind] for kind in ports}
    beacon = here({"ARBITRIUM_HOST_BEACON_ENABLED": "true", **variables}).beacon

    assert beacon is not None
    assert (beacon.udp_port, beacon.tcp_port) == (None, 65535)


def test_an_unknown_port_names_those_that_exist() -> None:
    with pytest.raises(InvalidRequest, match=r"no port 'web' .* there is: game"):
        here({}).internal_port("web")


async def test_the_repr_hides_the_tokens() -> None:
    assert "canary" not in repr(at("https://api.edgegap.com"))


# ── calls ────────────────────────────────────────────────────────────────────────────────────────


async def test_the_calls_carry_the_raw_tokens_of_the_deployment(api: ScriptedApi) -> None:
    api.on("GET", CONTEXT, Reply(body={"request_id": "23c01225b99d", "tags": ["a"]}))
    api.on("POST", f"{CONTEXT}/tags", Reply(body={"name": "open"}))
    api.on("DELETE", f"{CONTEXT}/tags/open", Reply(204))
    api.on("DELETE", STOP, Reply(202, body={"message": "accepted"}))
    deployment = at(api.url)

    assert (await deployment.context()).tags == ("a",)
    await deployment.add_tag("open")
    await deployment.remove_tag("open")
    await deployment.stop()

    assert [one.headers["Authorization"] for one in api.requests] == [
        *["canary-context"] * 3,
        "canary-delete",
    ]


async def test_a_tag_that_exists_is_no_error_and_a_lost_answer_is_repeated(
    api: ScriptedApi,
) -> None:
    api.on("POST", f"{CONTEXT}/tags", Reply(lost=True), Reply(409, body={"message": "exists"}))
    api.on("DELETE", f"{CONTEXT}/tags/gone", Reply(404, body={"message": "Tag gone not found"}))

    await at(api.url).add_tag("open")
    await at(api.url).remove_tag("gone")

    assert len(api.asked("POST", f"{CONTEXT}/tags")) == 2


async def test_a_stop_whose_answer_is_lost_is_repeated(api: ScriptedApi) -> None:
    api.on("DELETE", STOP, Reply(lost=True), Reply(410))

    await at(api.url).stop()

    assert len(api.requests) == 2


async def test_a_refused_stop_is_an_error(api: ScriptedApi) -> None:
    api.on("DELETE", STOP, Reply(403, body={"message": "another deployment"}))

    with pytest.raises(Forbidden):
        await at(api.url).stop()


async def test_without_the_variables_a_call_names_them() -> None:
    for call in (here({}).stop(), here({}).context(), here({}).add_tag("open")):
        with pytest.raises(InvalidRequest, match=r"ARBITRIUM_(DELETE|CONTEXT)_URL and ARBITRIUM_"):
            await call
    with pytest.raises(InvalidRequest, match="ARBITRIUM_DELETE_URL"):
        async with here({}).stop_when_idle(1):
            pass


async def test_an_error_shows_no_token(closed_port: int) -> None:
    deployment = at(f"http://127.0.0.1:{closed_port}")

    with pytest.raises(CallError) as caught:
        await deployment.context()

    assert not isinstance(caught.value, NoAnswer)
    assert "canary" not in repr(caught.value)
