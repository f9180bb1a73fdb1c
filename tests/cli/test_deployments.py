"""deploy, ls, stop."""

from __future__ import annotations

import json
import re

import pytest
from command_line import Terminal, invoke

from edgegap_async import Status
from edgegap_async.testing import EmulatorThread

ARENA = ("deploy", "arena", "v1", "-u", "75.28.35.192")


def status_of(emulator: EmulatorThread, request_id: str) -> Status:
    return emulator.deployments[request_id].status


def test_deploy_prints_id_status_and_address_once_the_server_is_ready(
    edgegap_emulator: EmulatorThread,
) -> None:
    ran = invoke(*ARENA, "-t", "ranked")

    assert ran.status == 0
    [deployment] = edgegap_emulator.deployments.values()
    assert re.search(rf"^deployment +{deployment.request_id}$", ran.stdout, re.MULTILINE)
    assert re.search(r"^status +READY$", ran.stdout, re.MULTILINE)
    assert re.search(r"^address +127\.0\.0\.1:\d+  UDP  game$", ran.stdout, re.MULTILINE)
    ready = rf"^{deployment.request_id}  READY after [\d.]+ m?s$"
    assert re.search(ready, ran.stderr, re.MULTILINE)
    assert invoke("stop", deployment.request_id).stdout == f"{deployment.request_id}\n"


def test_data_is_json_or_an_id_alone_as_asked_before_or_after_the_command() -> None:
    as_json = invoke("--json", *ARENA)
    quiet = invoke(*ARENA, "--quiet")
    accepted = invoke(*ARENA, "--no-wait", "--json")

    [deployment], [unseen] = as_json.objects, accepted.objects
    assert deployment["current_status"] == "READY"
    assert deployment["ports"]["game"]["external"]
    assert "raw" not in deployment
    assert quiet.stderr == ""
    assert re.fullmatch(r"[0-9a-f]{12}\n", quiet.stdout)
    ids = {deployment["request_id"], quiet.stdout.strip(), unseen["request_id"]}
    assert set(invoke("stop", "--all", "--yes", "--quiet").stdout.split()) == ids


def test_a_deploy_carries_tags_variables_and_places(
    edgegap_emulator: EmulatorThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGION", "north")
    monkeypatch.setenv("PASSWORD", "canary-password")

    options = [
        "-t",
        "a",
        "-t",
        "b",
        "-e",
        "MODE=duel=1",
        "-e",
        "REGION",
        "--hidden-env",
        "PASSWORD",
    ]
    ran = invoke("deploy", "arena", "v1", "-u", "-33.9,151.2", "-u", "8.8.8.8", *options)

    assert ran.status == 0
    [request] = [one for one in edgegap_emulator.requests if one.operation == "deploy"]
    body = json.loads(str(request.body))
    assert body["tags"][:2] == ["a", "b"]
    assert body["users"][0]["user_data"] == {"latitude": -33.9, "longitude": 151.2}
    assert [(one["key"], one.get("is_hidden", False)) for one in body["environment_variables"]] == [
        ("MODE", False),
        ("REGION", False),
        ("PASSWORD", True),
    ]
    assert invoke("stop", "-t", "b", "-y").status == 0


def test_a_position_that_is_none_is_named_with_one_that_is() -> None:
    ran = invoke(*ARENA, "-u", "8.8.8.8,0")

    assert "'8.8.8.8,0' is no position such as 45.5,-73.6" in " ".join(ran.stderr.split())


@pytest.mark.parametrize(
    "options",
    [
        ("-u", "here"),
        ("-u", "95,0"),
        ("-u", "8.8.8.8,0"),
        ("-e", "ABSENT"),
        ("--hidden-env", "KEY=value"),
        ("--playable", "game"),
        ("--timeout", "soon"),
        ("--rm", "--no-wait"),
        ("--token", "canary-token"),
    ],
    ids=" ".join,
)
def test_a_wrong_word_is_status_2_and_nothing_is_sent(
    edgegap_emulator: EmulatorThread, options: tuple[str, ...]
) -> None:
    ran = invoke(*ARENA, *options)

    assert (ran.status, ran.stdout) == (2, "")
    assert ran.stderr
    assert "canary" not in ran.stderr
    assert edgegap_emulator.requests == []


def test_ls_filters_by_tag_status_and_application() -> None:
    first, second = (invoke(*ARENA, "-q", "-t", tag).stdout.strip() for tag in ("red", "blue"))

    everything = invoke("ls")
    assert everything.stdout.startswith("DEPLOYMENT ")
    assert {first, second} == {line.split()[0] for line in everything.stdout.splitlines()[1:]}
    assert [row["request_id"] for row in invoke("ls", "-t", "red", "--json").objects] == [first]
    assert invoke("ls", "--status", "ready", "-q").stdout.count("\n") == 2
    assert invoke("ls", "--app", "other").stdout == ""
    assert "there is initializing" in invoke("ls", "--status", "asleep").stderr
    assert invoke("stop", first, second, "--wait").stdout.count("\n") == 2


def test_a_dry_run_stops_nothing(edgegap_emulator: EmulatorThread) -> None:
    request_id = invoke(*ARENA, "-q", "-t", "red").stdout.strip()

    assert invoke("stop", "--tag", "red", "--dry-run", "-q").stdout.strip() == request_id
    assert invoke("stop", request_id, "--dry-run").stdout.strip() == request_id
    assert status_of(edgegap_emulator, request_id) is Status.READY
    assert invoke("stop", "--tag", "red", "--yes", "--wait").status == 0
    assert status_of(edgegap_emulator, request_id) is Status.TERMINATED


def test_without_a_terminal_stops_by_tag_and_of_all_need_yes(
    edgegap_emulator: EmulatorThread,
) -> None:
    request_id = invoke(*ARENA, "-q", "-t", "red").stdout.strip()

    for words in (("stop", "--all"), ("stop", "--tag", "red")):
        ran = invoke(*words, stdin="y\n")
        assert ran.status == 2
        assert "--yes" in ran.stderr
    assert status_of(edgegap_emulator, request_id) is Status.READY
    assert invoke("stop", "--all", "--yes").status == 0


@pytest.mark.parametrize("words", [(), ("4ff2a1b2c3d4", "--all"), ("--tag", "a", "--all")])
def test_a_stop_has_one_way_to_choose(words: tuple[str, ...]) -> None:
    assert invoke("stop", *words).status == 2


def test_a_stop_of_several_ids_stops_those_that_exist(edgegap_emulator: EmulatorThread) -> None:
    request_id = invoke(*ARENA, "-q").stdout.strip()

    ran = invoke("stop", "000000000000", request_id, "--wait")

    assert ran.status == 5
    assert ran.stdout.strip() == request_id
    assert "000000000000" in ran.stderr
    assert invoke("stop", request_id).status == 0, "a deployment that has ended is no error"


def test_status_and_wait_show_one_deployment(edgegap_emulator: EmulatorThread) -> None:
    request_id = invoke(*ARENA, "--no-wait", "-q").stdout.strip()

    waited = invoke("wait", request_id, "--playable", "udp:game")
    assert (waited.status, "READY after" in waited.stderr) == (0, True)
    assert re.search(r"^address +127", waited.stdout, re.MULTILINE)
    assert invoke("status", request_id, "--json").objects[0]["running"] is True
    assert invoke("wait", request_id, "--for", "terminated", "--timeout", "0s").status == 124
    assert invoke("wait", request_id, "--for", "terminated", "--playable", "udp:game").status == 2
    assert invoke("stop", request_id).status == 0
    assert invoke("wait", request_id, "--for", "terminated").status == 0
    assert invoke("wait", request_id, "--for", "ready").status == 3
    assert invoke("status", "000000000000").status == 5


def test_ls_watch_prints_each_change() -> None:
    with Terminal("ls", "--watch", "--interval", "0.05s") as terminal:
        request_id = invoke(*ARENA, "-q").stdout.strip()
        terminal.wait_for(rf"{request_id} +READY")
        assert invoke("stop", request_id).status == 0
        terminal.wait_for(rf"{request_id} +TERMINATED")
        terminal.press("\x03")
        assert terminal.status() == 130


def test_a_job_that_comes_twice_gets_the_same_server() -> None:
    first, second = (invoke(*ARENA, "-q", "--idempotency-key", "job-7").stdout for _ in range(2))

    assert first == second
    assert invoke("stop", first.strip()).status == 0
