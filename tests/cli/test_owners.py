"""recover, reap, pool run."""

from __future__ import annotations

import re
import signal

from command_line import Terminal, invoke

from edgegap_async import Status
from edgegap_async.testing import EmulatorThread

ARENA = ("deploy", "arena", "v1", "-u", "75.28.35.192")


def test_recover_and_reap_find_what_a_command_left_behind(
    edgegap_emulator: EmulatorThread,
) -> None:
    left = invoke(*ARENA, "--owner", "ci-1", "-q").stdout.strip()
    other = invoke(*ARENA, "--owner", "ci-2", "-q").stdout.strip()

    [found] = invoke("recover", "--owner", "ci-1", "--json").objects
    assert found["request_id"] == left
    assert 0 <= found["age"] < 60
    assert left in invoke("recover", "--owner", "ci-1").stdout
    tag = next(tag for tag in found["row"]["tags"] if tag.startswith("op-"))
    assert invoke("recover", "--tag", tag, "-q").stdout.strip() == left
    assert invoke("reap", "--owner", "ci-1", "--dry-run", "-q").stdout.strip() == left
    assert invoke("reap", "--owner", "ci-1", "--older-than", "1h").stdout == ""
    assert invoke("reap", "--owner", "ci-1").status == 2
    assert edgegap_emulator.deployments[left].status is Status.READY
    assert invoke("reap", "--owner", "ci-1", "--yes").stdout.strip() == left
    assert edgegap_emulator.deployments[other].status is Status.READY
    assert invoke("recover").status == 2
    assert "Give one of: --owner, --tag." in invoke("recover", "--owner", "a", "--tag", tag).stderr
    assert invoke("reap", "--owner", "ci-2", "--yes", "--json").objects == [{"request_id": other}]


def test_a_pool_keeps_servers_ready_until_its_end(edgegap_emulator: EmulatorThread) -> None:
    words = ("pool", "run", "arena", "v1", "-u", "8.8.8.8", "--min-ready", "2", "--owner", "warm-1")
    for number, status in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        with Terminal(*words) as terminal:
            terminal.wait_for("ready 2 +starting 0")
            terminal.send(number)
            assert terminal.status() == status
        assert "The servers are being stopped" in terminal.text
    assert len(edgegap_emulator.deployments) == 4
    assert {one.status for one in edgegap_emulator.live()} <= {
        Status.TERMINATING,
        Status.TERMINATED,
    }


def test_a_pool_says_why_its_deploys_fail(edgegap_emulator: EmulatorThread) -> None:
    with Terminal("pool", "run", "arena", "v404", "-u", "8.8.8.8", "--json") as terminal:
        terminal.wait_for("The last deploy has failed: POST /v2/deployments answered 400")
        assert re.search(r'"failing": true', terminal.text)
        assert "PoolStats" not in terminal.text
        terminal.press("\x03")
        assert terminal.status() == 130
