"""The class `Emulator`: settings, start, end, record of requests."""

from __future__ import annotations

import asyncio
import random
import socket
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from bare_api import BareApi

from edgegap_async.api.operations import DEPLOY
from edgegap_async.emulator import (
    Emulator,
    Fault,
    Respond,
    Simulation,
    Timings,
    sample_application,
)
from edgegap_async.errors import InvalidRequest


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def _home_of(pid: int) -> Path:
    return Path(f"/proc/{pid}/cwd").readlink()


def _exists(path: Path) -> bool:
    return path.exists()


async def test_every_request_is_recorded(api: BareApi) -> None:
    request_id = await api.deploy()
    await api("GET", "/v1/deployments?page=1&secret=x")
    await api("GET", f"/v1/status/{request_id}", authorization="")

    assert [(one.operation, one.method, one.path, one.status) for one in api.emulator.requests] == [
        (DEPLOY.name, "POST", "/v2/deployments", 202),
        ("list_deployments", "GET", "/v1/deployments", 200),
        ("get_deployment", "GET", f"/v1/status/{request_id}", 401),
    ]


async def test_closing_twice_is_fine_and_leaves_nothing() -> None:
    files, tasks = _open_files(), len(asyncio.all_tasks())
    emulator = Emulator([sample_application()], timings=Timings.fast(), limits=False)
    async with emulator, aiohttp.ClientSession(emulator.url) as session:
        api = BareApi(emulator, session)
        request_id = await api.deploy()
        await api.wait_for_status(request_id, "READY")
        (deployment,) = emulator.cloud.deployments.values()
        assert deployment.process is not None
        pid = deployment.process.pid
        home = _home_of(pid)
    await emulator.close()
    await asyncio.sleep(0)

    assert not _exists(Path(f"/proc/{pid}"))
    assert not _exists(home.parent)
    assert len(asyncio.all_tasks()) == tasks
    assert _open_files() <= files
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", int(emulator.url.rpartition(":")[2]))) != 0


async def test_a_port_in_use_raises_and_leaves_nothing_open() -> None:
    tasks = len(asyncio.all_tasks())
    async with Emulator() as first:
        second = Emulator(port=int(first.url.rpartition(":")[2]))
        with pytest.raises(OSError, match="in use"):
            await second.start()

    assert len(asyncio.all_tasks()) == tasks


async def test_an_emulator_is_started_once() -> None:
    emulator = Emulator(token="token canary-abc")
    with pytest.raises(InvalidRequest, match="not started"):
        _ = emulator.cloud
    assert (emulator.token, emulator.requests) == ("canary-abc", [])
    await emulator.close()

    async with emulator:
        with pytest.raises(InvalidRequest, match="started before"):
            await emulator.start()


async def test_its_deployments_and_their_history_are_public(api: BareApi) -> None:
    emulator = api.emulator
    ended, lives, new = [await api.deploy() for _ in range(3)]
    await api.wait_for_status(ended, "READY")
    await api("DELETE", f"/v1/stop/{ended}")
    await api.wait_for_status(ended, "TERMINATED")

    assert list(emulator.deployments) == [ended, lives, new]
    assert [one.request_id for one in emulator.live()] == [lives, new]
    assert [one.is_stop_requested for one in emulator.deployments.values()] == [True, False, False]
    assert [str(one.later) for one in emulator.history(ended)] == [
        "INITIALIZING",
        "SEEKING",
        "SEEKED",
        "SCANNING",
        "DEPLOYING",
        "READY",
        "TERMINATING",
        "TERMINATED",
    ]
    assert emulator.history("unknown") == ()


async def test_a_reset_keeps_the_deployments_that_it_names(api: BareApi) -> None:
    emulator = api.emulator
    kept, ended, terminated = [await api.deploy() for _ in range(3)]
    for request_id in (kept, ended, terminated):
        await api.wait_for_status(request_id, "READY")
    await api("DELETE", f"/v1/stop/{terminated}")
    await api.wait_for_status(terminated, "TERMINATED")
    pids = {one.request_id: one.process.pid for one in emulator.live() if one.process}
    young = await api.deploy()
    emulator.faults.add(Fault("deploy", Respond(503)))
    emulator.clock.pause()

    await emulator.reset(keep=[kept, "unknown"])

    assert list(emulator.deployments) == [kept]
    assert _exists(Path(f"/proc/{pids[kept]}"))
    assert not _exists(Path(f"/proc/{pids[ended]}"))
    assert (emulator.requests, emulator.history(kept), emulator.faults.left) == ([], (), ())
    for request_id in (ended, terminated, young):
        assert (await api("GET", f"/v1/status/{request_id}"))[0] == 400
    await api.wait_for_status(await api.deploy(), "READY")
    assert (await api("DELETE", f"/v1/stop/{kept}"))[0] == 200
    await api.wait_for_status(kept, "TERMINATED")


async def test_it_listens_on_ipv6_too() -> None:
    emulator = Emulator(host="::1")
    async with emulator, aiohttp.ClientSession(emulator.url) as session:
        status, _ = await BareApi(emulator, session)("GET", "/v1/deployments")

    assert emulator.url.startswith("http://[::1]:")
    assert status == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.0.1", "::"])
def test_beyond_loopback_the_emulator_needs_a_token_of_ones_own(host: str) -> None:
    with pytest.raises(InvalidRequest, match="set a token of your own"):
        Emulator(host=host)
    Emulator(host=host, token="canary-own")


@pytest.mark.parametrize("host", ["example.com", ""])
def test_the_emulator_listens_on_an_address(host: str) -> None:
    with pytest.raises(InvalidRequest, match="host must be an IP address"):
        Emulator(host=host, token="canary-own")


async def test_an_emulator_on_all_addresses_names_loopback_and_answers_compose_services() -> None:
    emulator = Emulator(host="0.0.0.0", token="canary-own", allowed_hosts=["edgegap", "a.b"])
    async with emulator, aiohttp.ClientSession(emulator.url) as session:
        api = BareApi(emulator, session)
        statuses = [
            (await api("GET", "/v1/deployments", headers={"Host": host}))[0]
            for host in (
                "edgegap:80",
                "A.B",
                "host.docker.internal",
                "10.0.0.7:80",
                "b",
                "evil.x",
            )
        ]

    assert emulator.url.startswith("http://127.0.0.1:")
    assert statuses == [200, 200, 200, 200, 403, 403]


def test_without_its_extra_the_emulator_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "iptocc" else 1)

    with pytest.raises(InvalidRequest, match=r"needs iptocc: pip install 'edgegap-async\[emul"):
        Emulator()


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"simulate": True}, "simulate must be of type Simulation"),
        ({"timings": 0}, "timings must be of type Timings"),
        ({"apps": ["arena"]}, "must be a list of Application"),
        (
            {"round_trip_time": 5},
            r"round_trip_time must be \(at least, at most\) in seconds, not 5",
        ),
        ({"round_trip_time": (0.1, "x")}, r"round_trip_time must be \(at least"),
        ({"apps": sample_application()}, "apps must be a list"),
        ({"faults": Fault("deploy", Respond(500))}, "faults must be a list"),
        (
            {"unknown_id_status": 403},
            r"Emulator\.unknown_id_status must be one of 400, 404, not 403",
        ),
        ({"host_shape": "x"}, "host_shape must be one of pin, centroid, not 'x'"),
        ({"timings": None}, "timings must be of type Timings, not None"),
        ({"apps": [None]}, "must be a list of Application, not of None"),
        ({"fleets": 5}, "fleets must be a list, not 5"),
        ({"fleets": ["alpha"]}, "must be a list of Fleet, not of 'alpha'"),
        ({"faults": [None]}, "each of faults must be of type Fault, not None"),
        ({"host": 5}, "host must be an IP address such as 127.0.0.1 or 0.0.0.0, not 5"),
        ({"allowed_hosts": "edgegap"}, "allowed_hosts must be a list, not 'edgegap'"),
        ({"allowed_hosts": ["edgegap:80"]}, "allowed_hosts must have host names without a port"),
        ({"allowed_hosts": [5]}, "allowed_hosts must have host names without a port"),
        ({"deadlines": 5}, "deadlines must be of type Deadlines, not 5"),
        ({"port": None}, "port must be a number, not None"),
        ({"port": 1.5}, "port must be of type int, not 1.5"),
        ({"limits": 5}, "limits must be True, False or calls a second by operation, not 5"),
        ({"limits": None}, "limits must be True, False or calls a second by operation, not None"),
        ({"limits": {"deploy": "x"}}, "limits: deploy must be of type int or float, not 'x'"),
        ({"max_deployments": 1.5}, "max_deployments must be of type int, not 1.5"),
        ({"port_range": 5}, r"port_range must be a range of ports from 1 to 65535, .*, not 5"),
        ({"port_range": range(9)}, r"ports from 1 to 65535, .*, not range\(0, 9\)"),
        (
            {"port_range": range(65530, 65537)},
            r"port_range must be a range of ports from 1 to 65535",
        ),
        ({"port_reuse_delay": -1}, "port_reuse_delay must be 0 or more, not -1"),
        ({"port_reuse_delay": "x"}, "port_reuse_delay must be of type int or float, not 'x'"),
        ({"keep_terminated": -1}, "keep_terminated must be 0 or more, not -1"),
        ({"keep_terminated": "x"}, "keep_terminated must be of type int or float, not 'x'"),
        ({"metrics_interval": 0}, "metrics_interval must be above 0, not 0"),
        ({"metrics_interval": -1}, "metrics_interval must be above 0, not -1"),
        ({"metrics_interval": "x"}, "metrics_interval must be of type int or float, not 'x'"),
        ({"webhook_timeout": 0}, "webhook_timeout must be above 0, not 0"),
        ({"webhook_timeout": -1}, "webhook_timeout must be above 0, not -1"),
        ({"webhook_timeout": "x"}, "webhook_timeout must be of type int or float, not 'x'"),
        ({"webhook_allow": 5}, "webhook_allow must be a list, not 5"),
        ({"fqdn": 5}, "fqdn must be a text that is not empty, not 5"),
        ({"fqdn": ""}, "fqdn must be a text that is not empty, not ''"),
        ({"player_locations": 5}, "player_locations must be of type Mapping, not 5"),
        (
            {"player_locations": {"10.0.0.0/8": 5}},
            r"player_locations: '10.*\(latitude, long.*not 5",
        ),
        ({"player_locations": {5: (0, 0)}}, "player_locations: 5: a network must be of type str"),
        ({"list_has_status": "no"}, "list_has_status must be of type bool, not 'no'"),
        ({"list_accepts_filters": 0}, "list_accepts_filters must be of type bool, not 0"),
        ({"list_includes_errors": None}, "list_includes_errors must be of type bool, not None"),
        ({"limits": {"deployy": 3}}, r"limits: there is no call 'deployy'.*Did you mean deploy\?"),
    ],
)
def test_an_invalid_setting_is_reported_by_name(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidRequest, match=complaint):
        Emulator(**settings)


@pytest.mark.parametrize("seconds", ["x", -1, None, float("nan")])
def test_an_invalid_time_is_reported_by_name(seconds: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"Timings\.deploying"):
        Timings(deploying=seconds)
    with pytest.raises(InvalidRequest, match=r"Simulation\.crash_share"):
        Simulation(crash_share=seconds)
    for span in (seconds, (seconds, 1), (0.5, seconds)):
        with pytest.raises(InvalidRequest, match=r"Simulation\.ready_after"):
            Simulation(ready_after=span)


def test_a_time_is_a_number_a_range_or_a_function() -> None:
    timings = Timings(seeking=2, seeked=(3, 4), deploying=lambda chance: 5 + chance.random())
    drawn = timings.drawn(random.Random(0), is_cached=False)

    assert drawn["seeking"] == 2
    assert 3 <= drawn["seeked"] <= 4
    assert 5 <= drawn["deploying"] < 6
    assert Simulation(ready_after=2).ready_after == 2


def test_an_emulator_that_is_not_started_answers_nowhere() -> None:
    with pytest.raises(InvalidRequest, match="async with Emulator"):
        Emulator().url  # noqa: B018


@pytest.mark.parametrize("settings", [{"port": 99999}, {"port": -1}, {"max_deployments": -5}])
def test_a_number_out_of_range_is_refused(settings: dict[str, int]) -> None:
    with pytest.raises(InvalidRequest, match="must be 0 or more"):
        Emulator(**settings)  # type: ignore[arg-type]
