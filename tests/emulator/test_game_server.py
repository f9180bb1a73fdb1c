"""The sample game server as a program of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import psutil
import pytest

from edgegap_async.emulator import game_server

LOCATION = json.dumps({"city": "Paris", "country": "France"})


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("", 0))
        return int(free.getsockname()[1])


@contextmanager
def running(*arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """The program by itself, without this package."""
    process = subprocess.Popen(
        [sys.executable, "-I", game_server.__file__, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={"ARBITRIUM_DEPLOYMENT_LOCATION": LOCATION, **environment},
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


class Player:
    def __init__(self, port: int) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.settimeout(10)
        self._socket.connect(("127.0.0.1", port))

    def __call__(self, text: str) -> str:
        self._socket.send(text.encode())
        return self._socket.recv(4096).decode()

    def leave(self) -> None:
        self._socket.close()


def test_each_line_of_a_player_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARBITRIUM_DEPLOYMENT_LOCATION", LOCATION)
    game, anna, bob = game_server.Game(), ("127.0.0.1", 1), ("127.0.0.1", 2)

    said = [
        (text, game.answer(text, player))
        for player, text in (
            (anna, "ping"),
            (anna, "move 1"),
            (anna, "join"),
            (anna, "join ANNA\n"),
            (bob, "join BOB"),
            (anna, "move 1"),
            (bob, "move 2"),
            (bob, "move"),
            (anna, "leave"),
            (anna, "leave"),
        )
    ]

    assert said == [
        ("ping", "pong"),
        ("move 1", "join first"),
        ("join", "join first"),
        ("join ANNA\n", "welcome ANNA to arena in Paris, France"),
        ("join BOB", "welcome BOB to arena in Paris, France"),
        ("move 1", "ANNA 1"),
        ("move 2", "ANNA 1; BOB 2"),
        ("move", "what?"),
        ("leave", "bye ANNA"),
        ("leave", "join first"),
    ]
    assert game.info()["players"] == ["BOB"]


def test_players_join_move_see_each_other_and_leave() -> None:
    port = _free_port()
    with running(str(port), ARBITRIUM_REQUEST_ID="a1", ARBITRIUM_DEPLOYMENT_TAGS="eu,us") as server:
        assert [said(server), said(server)] == [f"starting on port {port}", "ready"]
        anna, bob = Player(port), Player(port)

        assert anna("ping") == "pong"
        assert anna("move 1") == "join first"
        assert anna("join ANNA") == "welcome ANNA to arena in Paris, France"
        assert bob("join BOB") == "welcome BOB to arena in Paris, France"
        assert anna("move 1 2") == "ANNA 1 2"
        assert bob("move 3 4") == "ANNA 1 2; BOB 3 4"
        assert json.loads(bob("info")) == {
            "request_id": "a1",
            "tags": ["eu", "us"],
            "location": json.loads(LOCATION),
            "players": ["ANNA", "BOB"],
        }
        assert anna("leave") == "bye ANNA"
        assert bob("move 5") == "BOB 5"
        assert bob("dance") == "what?"
        server.terminate()

        assert server.wait(10) == 0
        assert server.stdout is not None
        assert server.stdout.read().split("\n")[:-1] == [
            "ANNA joined",
            "BOB joined",
            "ANNA left",
            "terminated",
        ]
        anna.leave()
        bob.leave()


def test_without_an_argument_the_port_is_the_one_that_the_cloud_maps() -> None:
    port = _free_port()
    mapping = json.dumps({"ports": {"game": {"internal": port}}})
    with running(ARBITRIUM_PORTS_MAPPING=mapping) as server:
        assert said(server) == f"starting on port {port}"


def test_the_option_crash_after_ends_it_with_the_exit_code() -> None:
    with running(str(_free_port()), "--crash-after", "0.05", "--exit-code", "9") as server:
        assert server.wait(10) == 9


def test_the_option_never_bind_leaves_the_port_unbound() -> None:
    port = _free_port()
    with running(str(port), "--never-bind", "--crash-after", "0.05") as server:
        assert server.wait(10) == 1
        assert server.stdout is not None
        assert "ready" not in server.stdout.read()


def test_the_option_bind_after_binds_late() -> None:
    port = _free_port()
    with running(str(port), "--bind-after", "0.1") as server:
        said(server)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as still_free:
            still_free.bind(("", port))
        assert said(server) == "ready"


def test_the_option_ignore_sigterm_keeps_it_running() -> None:
    port = _free_port()
    with running(str(port), "--ignore-sigterm") as server:
        said(server)
        said(server)
        server.terminate()
        player = Player(port)

        assert player("ping") == "pong"
        player.leave()


def test_the_option_fork_setsid_leaves_a_child_in_another_session() -> None:
    with running(str(_free_port()), "--fork-setsid") as server:
        said(server)
        said(server)
        (child,) = psutil.Process(server.pid).children()
        while os.getsid(child.pid) != child.pid:
            assert child.is_running()
        child.kill()


def test_the_option_stop_self_after_requests_its_own_stop() -> None:
    calls: list[tuple[str, str, str | None]] = []

    class Cloud(BaseHTTPRequestHandler):
        def do_DELETE(self) -> None:
            calls.append((self.command, self.path, self.headers["Authorization"]))
            self.send_response(202)
            self.end_headers()
            self.wfile.write(b'{"message": "accepted"}')

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Cloud) as cloud:
        thread = Thread(target=cloud.handle_request)
        thread.start()
        url = f"http://127.0.0.1:{cloud.server_port}/v1/self/stop/a1/7"
        with running(
            str(_free_port()),
            "--stop-self-after",
            "0.05",
            ARBITRIUM_REQUEST_ID="a1",
            ARBITRIUM_DELETE_URL=url,
            ARBITRIUM_DELETE_TOKEN="raw",
        ) as server:
            lines = [said(server) for _ in range(4)]
        thread.join()

    assert lines[2:] == ["asking to be stopped", "the API has accepted the stop"]
    assert calls == [("DELETE", "/v1/self/stop/a1/7", "raw")]


def test_it_starts_without_the_modules_that_would_double_the_time_of_its_start() -> None:
    command = [sys.executable, "-I", "-X", "importtime", game_server.__file__, str(_free_port())]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        assert [said(server)[:8], said(server)] == ["starting", "ready"]
        server.terminate()
        _, imports = server.communicate(timeout=10)

    loaded = {line.rpartition("|")[2].strip() for line in imports.splitlines()}
    assert "socket" in loaded
    assert not loaded & {"argparse", "json", "typing"}


def test_sigterm_while_it_writes_a_line_ends_it_in_order() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):  # full: its first line waits for a reader
        while os.write(writing, bytes(4096)):
            pass
    os.set_blocking(writing, True)
    command = [sys.executable, "-I", game_server.__file__, str(_free_port())]
    with subprocess.Popen(command, stdout=writing) as server, os.fdopen(reading, "rb") as log:
        os.close(writing)
        _wait_until_it_writes(server.pid)
        server.terminate()

        written = log.read().strip(b"\0").decode()

    assert written.splitlines()[-1] == "terminated"
    assert server.returncode == 0


def _wait_until_it_writes(pid: int) -> None:
    """Waits until the program has its handler of SIGTERM and sleeps, which is in its first line."""

    def field(name: str) -> str:
        found = Path(f"/proc/{pid}/status").read_text().partition(f"{name}:")[2]
        return found.split()[0]

    while not int(field("SigCgt"), 16) >> (signal.SIGTERM - 1) & 1 or field("State") != "S":
        pass


def test_outside_a_deployment_it_stops_nothing() -> None:
    with running(str(_free_port()), "--stop-self-after", "0.05") as server:
        lines = [said(server) for _ in range(3)]

    assert lines[2] == "not in a deployment: nothing to stop"


@pytest.mark.parametrize("wrong", [["--what"], ["no number"]])
def test_a_wrong_argument_ends_it(wrong: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-I", game_server.__file__, *wrong], capture_output=True, check=False
    )

    assert done.returncode == 2
