"""logs, metrics, top."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from command_line import Terminal, invoke

from edgegap_async.cli.commands.readings import sparkline
from edgegap_async.emulator import Application, AppPort, sample_application
from edgegap_async.testing import EmulatorThread

USER = ("-u", "75.28.35.192")
_SERVER = """
import datetime, os, socket, time
game = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
game.bind(("", int(os.environ["ARBITRIUM_PORT_GAME_INTERNAL"])))
"""
_RUDE = """
print("\\x1b[2J\\x1b]0;title\\x07rude", flush=True)
print("tab\\there", flush=True)
time.sleep(600)
"""
_TIMED = """
print("before", flush=True)
print("2020-01-01T00:00:00Z old", flush=True)
print("2020-13-01 00:00:00 no time", flush=True)
print(datetime.datetime.now(datetime.UTC).isoformat(sep=" "), "now", flush=True)
print("  more", flush=True)
print("end", flush=True)
time.sleep(600)
"""


@pytest.fixture
def edgegap_apps() -> Iterable[Application]:
    ports = [AppPort("game", "UDP")]
    written = {"rude": _RUDE, "timed": _TIMED}
    servers = [
        Application(
            name=name, version="v1", argv=[sys.executable, "-c", _SERVER + code], ports=ports
        )
        for name, code in written.items()
    ]
    return [sample_application(), *servers]


@pytest.fixture
def request_id(edgegap_emulator: EmulatorThread) -> Iterator[str]:
    """A server that runs, and whose use of the machine was measured."""
    request_id = invoke("deploy", "arena", "v1", *USER, "-q").stdout.strip()
    while not invoke("metrics", request_id, "--json").objects[0]["cpu"]["datasets"]:
        pass
    yield request_id
    assert invoke("stop", request_id, "--wait").status == 0


def test_logs_prints_the_last_lines(request_id: str) -> None:
    everything = invoke("logs", request_id).stdout.splitlines()

    assert len(everything) > 1
    assert invoke("logs", request_id, "-n", "1").stdout.splitlines() == everything[-1:]
    assert invoke("logs", request_id, "-n", "0").stdout == ""
    assert invoke("logs", request_id, "-n", "999").stdout.splitlines() == everything


def test_logs_follows_a_server_until_its_end(request_id: str) -> None:
    [row] = invoke("ls", "--json").objects
    with Terminal("logs", request_id, "-f", "-n", "1") as terminal:
        terminal.wait_for("ready")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as player:
            player.sendto(b"join Ada", ("127.0.0.1", row["ports"]["game"]["external"]))
        terminal.wait_for("Ada joined")
        assert invoke("stop", request_id).status == 0
        assert terminal.status() == 0
    assert "starting on port" not in terminal.text, "that is the line before the last"


@pytest.fixture
def timed_id() -> Iterator[str]:
    """A server whose log has old lines, young ones, and lines without a time."""
    request_id = invoke("deploy", "timed", "v1", *USER, "-q").stdout.strip()
    while "end" not in invoke("logs", request_id).stdout:
        pass
    yield request_id
    assert invoke("stop", request_id).status == 0


def test_since_prints_from_the_first_young_line_on(timed_id: str) -> None:
    young = invoke("logs", timed_id, "--since", "1h")

    assert (young.stdout.splitlines()[1:], young.stderr) == (["  more", "end"], "")
    assert invoke("logs", timed_id, "--since", "0s").stdout == ""
    last = invoke("logs", timed_id, "--since", "1h", "-n", "2")
    assert last.stdout.splitlines() == ["  more", "end"]
    [found] = invoke("logs", timed_id, "--since", "1h", "--json").objects
    assert found["logs"] == young.stdout.rstrip("\n")


def test_since_says_that_it_leaves_out_lines_before_the_first_time(timed_id: str) -> None:
    ran = invoke("logs", timed_id, "--since", "99999999999d")

    assert len(ran.stdout.splitlines()) == 5
    assert ran.stderr == "--since leaves out 1 line before the first time of the log.\n"


@pytest.mark.parametrize("more", [(), ("--follow",), ("--json",)], ids=str)
def test_since_needs_lines_that_begin_with_their_time(
    request_id: str, more: tuple[str, ...]
) -> None:
    ran = invoke("logs", request_id, "--since", "1h", *more)

    assert (ran.status, ran.stdout) == (1, "")
    assert "no line of the log begins with its time" in ran.stderr


def test_a_log_gives_no_orders_to_the_terminal() -> None:
    request_id = invoke("deploy", "rude", "v1", *USER, "-q").stdout.strip()
    while "tab" not in (ran := invoke("logs", request_id)).stdout:
        pass

    assert ran.stdout == "\\x1b[2J\\x1b]0;title\\x07rude\ntab\there\n"
    assert invoke("stop", request_id).status == 0


def test_metrics_are_a_table_or_a_chart_or_json(request_id: str) -> None:
    plain, plotted = invoke("metrics", request_id), invoke("metrics", request_id, "--plot")

    rows = {line.split()[0]: line.split()[1:] for line in plain.stdout.splitlines()}
    assert int(rows["memory"][0].replace(",", "")) > 1_000_000
    assert "OVER TIME" in plotted.stdout
    assert {one for one in plotted.stdout if "\u2800" < one <= "\u28ff"}
    assert invoke("metrics", request_id, "--json").objects[0]["mem"]["datasets"]


def test_a_picture_needs_matplotlib_and_the_error_says_so(
    request_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)

    ran = invoke("metrics", request_id, "--png", str(tmp_path / "server.png"))

    assert ran.status == 1
    assert "pip install matplotlib" in ran.stderr


def test_a_picture_is_a_png(request_id: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib.figure", exc_type=ImportError)
    file = tmp_path / "server.png"

    assert invoke("metrics", request_id, "--png", str(file)).status == 0
    assert file.read_bytes().startswith(b"\x89PNG")
    assert invoke("metrics", request_id, "--png", str(tmp_path / "no" / "x.png")).status == 1


def test_top_without_a_terminal_is_one_table(request_id: str) -> None:
    ran = invoke("top")

    assert ran.stdout.startswith("DEPLOYMENT")
    assert ran.stdout.splitlines()[1].split()[:2] == [request_id, "READY"]
    [load] = invoke("top", "--json").objects
    assert load["memory"] > 1_000_000
    assert [
        one["request_id"] for one in invoke("top", "--json", "-n", "2", "--interval", "0s").objects
    ] == [request_id] * 2
    assert invoke("top", "-t", "absent").stdout == ""


def test_top_in_a_terminal_changes_until_ctrl_c(request_id: str) -> None:
    with Terminal("top", "--interval", "0.1s", columns=60) as terminal:
        terminal.wait_for("1 deployment")
        second = invoke("deploy", "arena", "v1", *USER, "-q").stdout.strip()
        terminal.wait_for("2 deployments")
        terminal.wait_for(second)
        terminal.press("\x03")
        assert terminal.status() == 130
    assert "Traceback" not in terminal.text
    assert invoke("stop", second).status == 0


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ([], ""),
        ([None, None], ""),
        ([0, 1, 2, 3, 4, 5, 6, 7], "⣀⣤⣶⣿"),
        ([3, 3], "⣿"),
        ([0.0], "⡀"),
        ([None, 4], "⢸"),
        (list(range(800)), "⣀⣤⣶⣿"),
    ],
)
def test_a_sparkline_has_two_values_in_each_character(
    values: list[float | None], line: str
) -> None:
    assert sparkline(values, 4) == line
