"""Every exit status, reached by what really happens."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from command_line import invoke

from edgegap_async.emulator import (
    Application,
    AppPort,
    Delay,
    Drop,
    Fault,
    Faults,
    Respond,
    sample_application,
)
from edgegap_async.testing import EmulatorThread

USER = ("-u", "75.28.35.192")


@pytest.fixture
def edgegap_apps() -> Iterable[Application]:
    crash = "import sys; print('no map', file=sys.stderr); sys.exit(7)"
    broken = Application(
        name="broken",
        version="v1",
        argv=[sys.executable, "-c", crash],
        ports=[AppPort("game", "UDP")],
    )
    return [sample_application(), broken]


def test_5_the_application_version_of_a_deploy_does_not_exist() -> None:
    ran = invoke("deploy", "arena", "v404", *USER)

    assert (ran.status, ran.stdout) == (5, "")
    assert ran.stderr.startswith("BadRequest: POST /v2/deployments answered 400")


def test_3_the_deployment_failed_and_its_last_lines_are_shown() -> None:
    ran = invoke("deploy", "broken", "v1", *USER)

    assert (ran.status, ran.stdout) == (3, "")
    assert "exited with code 7. It still exists: stop it" in ran.stderr
    assert "no map" in ran.stderr
    assert "is ERROR. It goes on: edgegap-async stop " in ran.stderr
    assert invoke("stop", "--all", "--yes", "--wait").status == 0


def test_3_with_rm_nothing_is_left(edgegap_emulator: EmulatorThread) -> None:
    ran = invoke("deploy", "broken", "v1", *USER, "--rm")

    assert ran.status == 3
    assert "It goes on" not in ran.stderr
    assert {str(one.status) for one in edgegap_emulator.live()} <= {"TERMINATING", "TERMINATED"}


def test_1_the_stop_of_rm_fails_and_the_server_is_named(
    edgegap_emulator: EmulatorThread, edgegap_faults: Faults
) -> None:
    edgegap_faults.add(Fault("stop_deployment", Respond(403)))

    ran = invoke("deploy", "broken", "v1", *USER, "--rm")

    [request_id] = edgegap_emulator.deployments
    told = f"Deployment {request_id} may go on running: edgegap-async stop {request_id}"
    assert told in ran.stderr
    assert invoke("stop", request_id).status == 0


@pytest.mark.parametrize("more_settings", [{"max_deployments": 1}])
@pytest.mark.parametrize("option", ["--wait", "--rm"])
def test_3_no_location_has_room(edgegap_emulator: EmulatorThread, option: str) -> None:
    first = invoke("deploy", "arena", "v1", *USER, "-q").stdout.strip()

    ran = invoke("deploy", "arena", "v1", *USER, option)

    assert ran.status == 3
    [created] = edgegap_emulator.deployments.keys() - {first}
    assert f"Stop deployment {created}: it was created, and is in ERROR" in ran.stderr
    stops = [one.operation for one in edgegap_emulator.requests].count("stop_deployment")
    assert stops == (1 if option == "--rm" else 0)
    assert invoke("stop", first).status == 0


@pytest.mark.parametrize(
    ("token", "says"),
    [
        ("", "no API token"),
        ("canary-wrong", "Unauthorized"),
        ("canary wrong", "EDGEGAP_API_TOKEN:"),
    ],
)
def test_4_no_valid_token(monkeypatch: pytest.MonkeyPatch, token: str, says: str) -> None:
    monkeypatch.setenv("EDGEGAP_API_TOKEN", token)

    ran = invoke("ls")

    assert (ran.status, ran.stdout) == (4, "")
    assert says in ran.stderr
    assert "canary" not in ran.stderr


def test_a_token_may_be_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{os.environ['EDGEGAP_API_TOKEN']}\n")
    monkeypatch.delenv("EDGEGAP_API_TOKEN")
    monkeypatch.setenv("EDGEGAP_API_TOKEN_FILE", str(file))

    assert invoke("ls").status == 0
    file.write_text("two words")
    assert invoke("ls").status == 4
    file.unlink()
    assert "No such file" in invoke("ls").stderr


def test_5_not_found() -> None:
    assert invoke("stop", "000000000000").status == 5


def test_6_a_deployment_may_exist_and_its_tag_is_the_data(
    edgegap_emulator: EmulatorThread, edgegap_faults: Faults
) -> None:
    lost = [
        Fault("deploy", Drop(), times=None),
        Fault("list_deployments", Respond(403), times=1),
        Fault("list_deployments", Respond(403), times=1),
    ]
    edgegap_faults.add(lost[0], lost[1])
    ran = invoke("deploy", "arena", "v1", *USER, "-q")
    edgegap_faults.add(lost[2])
    as_json = invoke("deploy", "arena", "v1", *USER, "--json")

    assert (ran.status, as_json.status) == (6, 6)
    tag = ran.stdout.strip()
    assert tag.startswith("op-")
    assert f"edgegap-async recover --tag {tag}" in ran.stderr
    deployed = {tag for one in edgegap_emulator.deployments.values() for tag in one.tags}
    assert {tag, as_json.objects[0]["operation_tag"]} == deployed
    assert invoke("stop", "--all", "--yes", "--wait").status == 0


def test_124_not_in_time_and_the_deploy_is_undone(
    edgegap_faults: Faults, edgegap_emulator: EmulatorThread
) -> None:
    edgegap_faults.add(Fault("deploy", Delay(1.0)))

    ran = invoke("deploy", "arena", "v1", *USER, "--timeout", "0.2s")

    assert ran.status == 124
    assert "the API did not accept the deploy in 0.2 s; what it may have made is" in ran.stderr
    assert [one.operation for one in edgegap_emulator.requests] == ["deploy", "stop_deployment"]


@pytest.mark.parametrize("stays_in", ["deploying"])
def test_124_not_ready_in_time_names_the_limit_of_the_command_line(
    edgegap_faults: Faults, edgegap_emulator: EmulatorThread
) -> None:
    edgegap_faults.add(Fault("deploy", Delay(0.3)))

    ran = invoke("deploy", "arena", "v1", *USER, "--timeout", "4s")

    [server] = edgegap_emulator.live()
    assert ran.status == 124
    assert "not READY within --timeout 4 s; " in ran.stderr
    assert f"It goes on: edgegap-async stop {server.request_id}" in ran.stderr
    assert invoke("stop", server.request_id).status == 0


def test_1_a_check_of_a_port_that_the_deployed_server_has_not(
    edgegap_emulator: EmulatorThread,
) -> None:
    ran = invoke("deploy", "arena", "v1", *USER, "--playable", "udp:lobby")

    assert ran.status == 1
    [server] = edgegap_emulator.live()
    assert "no port 'lobby'" in ran.stderr
    assert f"It goes on: edgegap-async stop {server.request_id}" in ran.stderr
    assert invoke("stop", server.request_id).status == 0


@pytest.mark.parametrize(
    ("words", "similar"),
    [(("deploys",), "'deploy'"), (("list",), "'ls'"), (("versions", "create-image"), "'create'")],
)
def test_a_wrong_command_gets_a_similar_one(words: tuple[str, ...], similar: str) -> None:
    ran = invoke(*words)

    assert (ran.status, ran.stdout) == (2, "")
    assert similar in ran.stderr.partition("Did you mean")[2]


@pytest.mark.parametrize("words", [(), ("dance",), ("ls", "--colour"), ("demo", "--live", "arena")])
def test_2_a_wrong_command_line(words: tuple[str, ...]) -> None:
    ran = invoke(*words)

    assert (ran.status, ran.stdout) == (2, "")
    assert "usage: edgegap-async" in ran.stderr.lower()
