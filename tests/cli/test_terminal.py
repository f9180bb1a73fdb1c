"""The program in a pseudo-terminal: progress, questions, Ctrl-C, signals, pipes, widths."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import Terminal, closed_pipe, invoke

from edgegap_async import Status
from edgegap_async.testing import EmulatorThread

ARENA = ("deploy", "arena", "v1", "-u", "75.28.35.192")


def live_ids(emulator: EmulatorThread) -> list[str]:
    """The ids of deployments that no one has asked to stop."""
    return [one.request_id for one in emulator.live() if one.status is not Status.TERMINATING]


@pytest.mark.parametrize("stays_in", ["deploying"])
def test_progress_is_one_line_that_changes(edgegap_emulator: EmulatorThread) -> None:
    with Terminal(*ARENA) as terminal:
        terminal.wait_for("arena v1 .*0:00:0")
        terminal.wait_for("DEPLOYING +0:00:0")
        assert "after" not in terminal.text, "that is the form without a terminal"
        terminal.press("\x03")
        assert terminal.status() == 130
    assert "Traceback" not in terminal.text
    invoke("stop", "--all", "-y")


@pytest.mark.parametrize("stays_in", ["deploying"])
def test_ctrl_c_in_mid_deploy_says_what_goes_on_running(edgegap_emulator: EmulatorThread) -> None:
    with Terminal(*ARENA) as terminal:
        terminal.wait_for("DEPLOYING")
        terminal.press("\x03")
        assert terminal.status() == 130

    [request_id] = live_ids(edgegap_emulator)
    assert f"Deployment {request_id} is DEPLOYING. It goes on: edgegap-async stop" in terminal.text
    assert invoke("stop", request_id).status == 0


@pytest.mark.parametrize("stays_in", ["deploying"])
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_with_rm_a_signal_stops_the_server(
    edgegap_emulator: EmulatorThread, number: signal.Signals, status: int
) -> None:
    with Terminal(*ARENA, "--rm") as terminal:
        terminal.wait_for("DEPLOYING")
        terminal.send(number)
        assert terminal.status() == status

    assert "It is being stopped" in terminal.text
    assert [one.operation for one in edgegap_emulator.requests].count("stop_deployment") == 1


def test_with_rm_the_server_stays_until_ctrl_c(edgegap_emulator: EmulatorThread) -> None:
    with Terminal(*ARENA, "--rm") as terminal:
        terminal.wait_for("Ctrl-C stops it")
        assert len(live_ids(edgegap_emulator)) == 1
        terminal.press("\x03")
        assert terminal.status() == 130

    assert live_ids(edgegap_emulator) == []


def test_a_stop_of_all_asks_and_does_nothing_without_a_yes(
    edgegap_emulator: EmulatorThread,
) -> None:
    request_id = invoke(*ARENA, "-q").stdout.strip()

    for keys, status in (("n\r", 1), ("\x03", 130)):
        with Terminal("stop", "--all") as terminal:
            terminal.wait_for(r"Stop 1 deployment\? \[y/N\]")
            terminal.press(keys)
            assert terminal.status() == status
        assert live_ids(edgegap_emulator) == [request_id]
    with Terminal("stop", "--all") as terminal:
        terminal.wait_for(r"\[y/N\]")
        terminal.send(signal.SIGTERM)
        assert terminal.status() == 143
    with Terminal("stop", "--all") as terminal:
        terminal.wait_for(r"\[y/N\]")
        terminal.press("y\r")
        assert terminal.status() == 0
    assert live_ids(edgegap_emulator) == []


def test_a_reader_that_leaves_ends_a_command_silently() -> None:
    request_id = invoke(*ARENA, "-q").stdout.strip()

    with closed_pipe() as pipe, Terminal("ls", "--json", stdout=pipe) as terminal:
        assert terminal.status() == 0
    assert terminal.text == ""
    invoke("stop", request_id)


def test_a_reader_that_leaves_later_ends_a_watch_silently() -> None:
    first = invoke(*ARENA, "-q").stdout.strip()
    words = ["ls", "--watch", "--json", "--interval", "0.05s"]
    program = [sys.executable, "-m", "edgegap_async", *words]

    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as watch:
        assert watch.stdout is not None
        assert watch.stderr is not None
        assert first in watch.stdout.readline().decode()
        watch.stdout.close()
        second = invoke(*ARENA, "-q").stdout.strip()
        assert (watch.wait(30), watch.stderr.read()) == (0, b"")
    assert invoke("stop", first, second).status == 0


@pytest.mark.parametrize(
    "words",
    [("logs", "-f"), ("ls", "--watch", "--interval", "1h"), ("top", "-n", "2", "--interval", "1h")],
    ids=lambda words: words[0],
)
def test_a_reader_that_leaves_ends_a_command_that_has_nothing_to_print(
    words: tuple[str, ...],
) -> None:
    request_id = invoke(*ARENA, "-q").stdout.strip()
    ids = [request_id] if words[0] == "logs" else []
    program = [sys.executable, "-m", "edgegap_async", *words, *ids]

    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as waiting:
        assert waiting.stdout is not None
        assert waiting.stderr is not None
        last = "ready" if ids else request_id  # of what it has to print
        assert any(last in line.decode() for line in waiting.stdout)
        waiting.stdout.close()
        try:
            assert (waiting.wait(30), waiting.stderr.read()) == (0, b"")
        finally:
            waiting.kill()
    assert invoke("stop", request_id).status == 0


def test_ctrl_c_while_modules_are_imported_has_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("raise KeyboardInterrupt")
    ran = subprocess.run(
        [sys.executable, "-m", "edgegap_async", "ls"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        check=False,
    )

    assert (ran.returncode, ran.stderr) == (130, b"")


@pytest.mark.parametrize("words", [("ls",), ("ls", "--colour"), ("--help",)])
def test_both_outputs_may_be_closed(words: tuple[str, ...]) -> None:
    with closed_pipe() as pipe:
        ran = subprocess.run(
            [sys.executable, "-m", "edgegap_async", *words], stdout=pipe, stderr=pipe, check=False
        )
    assert ran.returncode in {0, 2}


@pytest.mark.parametrize("columns", [30, 200])
def test_a_table_fits_a_narrow_terminal_and_ids_stay_whole(columns: int) -> None:
    request_id = invoke(*ARENA, "-q", "-t", "a-tag-that-is-rather-long").stdout.strip()

    with Terminal("ls", columns=columns) as terminal:
        assert terminal.status() == 0
    lines = terminal.text.splitlines()
    assert max(map(len, lines)) <= columns
    assert any(request_id in line for line in lines)
    assert ("a-tag-that-is-rather-long" in terminal.text) == (columns == 200)
    invoke("stop", request_id)


def test_colours_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    request_id = invoke(*ARENA, "-q").stdout.strip()

    with Terminal("ls") as coloured, Terminal("ls", environment={"NO_COLOR": "1"}) as plain:
        coloured.status()
        plain.status()
    assert "\x1b[32mREADY" in coloured.raw
    assert "\x1b[32m" not in plain.raw
    assert "\x1b" not in invoke("ls").stdout
    invoke("stop", request_id)
