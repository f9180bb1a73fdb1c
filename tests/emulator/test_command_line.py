"""The command `edgegap-async emulator`, or `python -m edgegap_async.emulator`."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from bare_api import DEPLOY_BODY
from emulated_cloud import deployed, python_application, reached, until

from edgegap_async.api.models import Status
from edgegap_async.cli import main as cli
from edgegap_async.emulator import (
    Emulator,
    Fault,
    PrivateHost,
    ProxyPage,
    Respond,
    Timings,
    check_file,
    load_apps,
    sample_application,
)
from edgegap_async.emulator.catalogue import Fleet
from edgegap_async.emulator.command_line import TOKEN_VARIABLE, main
from edgegap_async.emulator.console import Console

TOKEN = "canary-command-line"
APPS = """
[[applications]]
name = "arena"
version = "{version}"
argv = ["{{python}}", "-c", "import time; time.sleep(60)"]
"""


class Shell:
    """The command in a process of its own."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "edgegap_async.emulator", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        self.output: list[str] = []
        self.login_link = ""

    def read_start(self) -> None:
        """Reads the lines that it prints once it answers; `login_link` is in the last one."""
        assert self.process.stdout is not None
        *self.output, last = [self.process.stdout.readline().strip() for _ in range(4)]
        self.login_link = last.rpartition(" ")[2]

    @property
    def url(self) -> str:
        return self.output[1].removeprefix("export EDGEGAP_BASE_URL=")

    def end(self, how: signal.Signals = signal.SIGINT) -> tuple[int, str]:
        """Ends it; returns its exit status and what it wrote to the error output."""
        self.process.send_signal(how)
        _, errors = self.process.communicate(timeout=20)
        return self.process.returncode, errors


@contextlib.contextmanager
def shell(*arguments: str, **environment: str) -> Iterator[Shell]:
    started = Shell(*arguments, **environment)
    try:
        started.read_start()
        yield started
    finally:
        if started.process.poll() is None:
            started.process.kill()
        for stream in (started.process.stdout, started.process.stderr):
            assert stream is not None
            stream.close()
        started.process.wait()


@contextlib.asynccontextmanager
async def session_of(started: Shell) -> AsyncIterator[aiohttp.ClientSession]:
    headers = {"Authorization": f"token {TOKEN}"}
    async with aiohttp.ClientSession(started.url, headers=headers) as session:
        yield session


async def deploy(session: aiohttp.ClientSession, **fields: str) -> tuple[int, Any]:
    async with session.post("/v2/deployments", json=DEPLOY_BODY | fields) as answer:
        return answer.status, await answer.json()


async def get(session: aiohttp.ClientSession, path: str) -> Any:
    async with session.get(path) as answer:
        return await answer.json()


# ── serve ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
async def test_row_59_in_a_shell_a_signal_ends_the_emulator_and_its_servers(
    how: signal.Signals,
) -> None:
    with shell("--fast", "--no-limits", "--token", TOKEN, "--quiet") as started:
        async with session_of(started) as session:
            request_id = (await deploy(session))[1]["request_id"]
            status: dict[str, Any] = {}
            while not status.get("running"):
                status = await get(session, f"/v1/status/{request_id}")
        ended = started.end(how)

    assert started.output == [
        f"The emulator answers at {started.url}, and deploys: arena v1",
        f"export EDGEGAP_BASE_URL={started.url}",
        f"export EDGEGAP_API_TOKEN={TOKEN}",
    ]
    assert ended == (0, "")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", status["ports"]["game"]["external"]))


async def test_it_prints_a_link_to_the_page() -> None:
    with shell("--fast", "--token", TOKEN, "--quiet") as started:
        link = started.login_link.removeprefix(started.url)
        async with (
            aiohttp.ClientSession(started.url) as session,
            session.get(link, headers={"Accept": "text/html"}) as answer,
        ):
            text = await answer.text()
        started.end()

    assert answer.status == 200
    assert "You are logged in" in text


async def test_each_call_and_each_change_of_status_is_one_line() -> None:
    with shell("--fast", "--token", TOKEN) as started:
        async with session_of(started) as session:
            request_id = (await deploy(session))[1]["request_id"]
            await get(session, "/_emulator/events?after=5&timeout=20")
            await get(session, "/v1/nothing")
        _, errors = started.end()

    clock = r"\d\d:\d\d:\d\d\.\d{3}"
    assert re.search(
        rf"^{clock} POST /v2/deployments 202 \d+\.\d ms {request_id}$", errors, re.MULTILINE
    )
    assert re.search(rf"^{clock} GET /v1/nothing 404 \d+\.\d ms$", errors, re.MULTILINE)
    changes = re.findall(rf"^{clock} {request_id} arena v1 (.*)$", errors, re.MULTILINE)
    assert changes[:2] == ["NEW → INITIALIZING", "INITIALIZING → SEEKING"]
    assert changes[5] == "DEPLOYING → READY"
    assert TOKEN not in errors
    assert "_emulator" not in errors


async def test_a_token_of_a_file_or_variable_is_not_printed(tmp_path: Path) -> None:
    path = tmp_path / "the token"
    path.write_text(f"{TOKEN}\n")
    sources = [
        (shell("--token-file", str(path)), {}),
        (shell(**{TOKEN_VARIABLE: TOKEN}), {TOKEN_VARIABLE: TOKEN}),
    ]
    for source, variables in sources:
        with source as started:
            async with session_of(started) as session:
                known = await get(session, "/_emulator")
            printed = "\n".join(started.output)
            read = subprocess.run(  # noqa: ASYNC221 - a short program
                ["bash", "-c", f'{started.output[2]}; printf %s "$EDGEGAP_API_TOKEN"'],
                capture_output=True,
                text=True,
                env={**os.environ, **variables},
                check=True,
            )
            _, errors = started.end()

        assert known["deployable"] == ["arena v1"]
        assert TOKEN not in printed + errors
        assert read.stdout == TOKEN


async def test_the_token_of_the_real_cloud_is_not_taken_and_not_printed() -> None:
    with shell(EDGEGAP_API_TOKEN="canary-real") as started:
        assert "canary-real" not in " ".join(started.output)
        assert started.end() == (0, "")


async def test_beyond_loopback_it_needs_a_token_and_answers_allowed_names() -> None:
    arguments = ["--host", "0.0.0.0", "--allowed-host", "edgegap", "--token", TOKEN, "--quiet"]
    with shell(*arguments) as started:
        async with session_of(started) as session:
            async with session.get("/v1/deployments", headers={"Host": "edgegap"}) as answer:
                allowed = answer.status
            async with session.get("/v1/deployments", headers={"Host": "other"}) as answer:
                other = answer.status
        started.end()

    assert (allowed, other) == (200, 403)


async def test_a_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "apps.toml"
    path.write_text(APPS.format(version="v1"))
    with shell(str(path), "--token", TOKEN, "--fast") as started:
        async with session_of(started) as session:
            assert (await deploy(session, version="v2"))[0] == 400
            path.write_text("nonsense =")
            assert started.process.stderr is not None
            errors = ""
            while "nothing is changed" not in errors:
                errors += await asyncio.to_thread(started.process.stderr.readline)
            assert (await deploy(session, version="v1"))[0] == 202
            path.write_text(APPS.format(version="v2"))
            async with asyncio.timeout(10):
                while (await get(session, "/_emulator"))["deployable"] != ["arena v2"]:
                    await asyncio.sleep(0.05)
            assert (await deploy(session, version="v2"))[0] == 202
            assert (await get(session, "/_emulator"))["live_deployments"] == 2
        errors += started.end()[1]

    assert f"the file has changed and is wrong; nothing is changed: {path}" in errors
    assert f"{path} has changed; it deploys: arena v2" in errors


@pytest.mark.parametrize(
    ("expected", "status", "lines"),
    [
        (["deploy"], 0, 0),
        (["deploy=1", "list_deployments=0"], 0, 0),
        (["deploy=2"], 3, 1),
        (["stop_deployment", "get_deployment=1"], 3, 2),
    ],
)
async def test_expected_calls_that_have_not_come_are_an_exit_status(
    expected: list[str], status: int, lines: int
) -> None:
    arguments = [word for call in expected for word in ("--expect", call)]
    with shell("--fast", "--quiet", "--token", TOKEN, *arguments) as started:
        async with session_of(started) as session:
            await deploy(session)
        code, errors = started.end()

    assert (code, errors.count("expected: ")) == (status, lines)


async def test_lines_that_are_not_read_do_not_stop_the_emulator() -> None:
    with shell("--simulate", "--fast", "--no-limits", "--token", TOKEN) as started:
        async with session_of(started) as session, asyncio.timeout(30):
            for _ in range(20):  # 64 kB fill the pipe
                await asyncio.gather(*(get(session, f"/{'x' * 900}") for _ in range(100)))
            assert (await deploy(session))[0] == 202
        began = time.monotonic()
        code, _ = started.end()

    assert (code, time.monotonic() - began < 15) == (0, True)


async def test_lines_that_are_never_read_do_not_stop_the_end_of_the_emulator() -> None:
    with shell("--simulate", "--fast", "--no-limits", "--token", TOKEN) as started:
        async with session_of(started) as session, asyncio.timeout(30):
            for _ in range(20):  # 64 kB fill the pipe
                await asyncio.gather(*(get(session, f"/{'x' * 900}") for _ in range(100)))
        started.process.send_signal(signal.SIGTERM)

        assert await asyncio.to_thread(started.process.wait, 20) == 0


# ── command line ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["/does/not/exist.toml"], "No such file"),
        (["--token-file", "/does/not/exist"], "No such file"),
        (["--token-file", sys.executable], "printable ASCII"),
        (["--host", "0.0.0.0", "--verbose"], "set a token of your own"),
        (["--webhook-allow", "x"], "webhook_allow"),
        (["--allowed-host", "a:1"], "allowed_hosts"),
        (["--expect", "redeploy"], "there is no call 'redeploy'"),
        (["--expect", "deplo"], "Did you mean deploy?"),
        (["--expect", "deploy=x"], "--expect must have the form CALL or CALL=N"),
        (["check", "/does/not/exist.toml"], "No such file"),
        (["init", "/does/not/exist.toml"], "No such file"),
    ],
)
@pytest.mark.parametrize("command", [main, lambda words: cli(["emulator", *words])])
def test_a_wrong_argument_prints_one_line(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    complaint: str,
    command: Any,
) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    assert command(arguments) == 1

    output, errors = capsys.readouterr()
    assert (output, errors.count("\n")) == ("", 1)
    assert complaint in errors


@pytest.mark.parametrize("words", [["--help"], ["check", "--help"], ["init", "--help"]])
def test_each_command_has_help(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli(["emulator", *words])

    assert end.value.code == 0
    assert "edgegap-async emulator" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("ending", "output"),
    [("", "is right; it deploys: \\u03b1\\u03b2 v1\n"), (">&-", ""), (">&- 2>&- <&-", "")],
)
def test_it_runs_with_an_output_that_is_closed_or_has_few_characters(
    tmp_path: Path, ending: str, output: str
) -> None:
    path = tmp_path / "apps.toml"
    path.write_text(APPS.format(version="v1").replace("arena", "αβ"), "utf-8")
    command = f'exec "$0" -m edgegap_async.emulator check "$1" {ending}'
    ended = subprocess.run(
        ["bash", "-c", command, sys.executable, str(path)],
        capture_output=True,
        check=False,
        text=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )

    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.endswith(output)


def test_check_says_what_a_right_file_deploys(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "apps.toml"
    path.write_text(APPS.format(version="v7"))

    assert main(["check", str(path)]) == 0
    assert "arena v7" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('[[faults]]\neffect = "dropp"\n', "faults[0]: there is no effect 'dropp'"),
        ("faults = 5\n", "faults"),
        ("faults = [5]\n", "faults[0]: a fault must be a table, not 5"),
    ],
)
def test_check_names_a_wrong_fault(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str, complaint: str
) -> None:
    path = tmp_path / "apps.toml"
    path.write_text(text)

    assert main(["check", str(path)]) == 1
    errors = capsys.readouterr().err
    assert errors.startswith(f"{path}:1: ")
    assert complaint in errors


async def test_a_file_has_faults_which_begin_anew_if_it_has_others(tmp_path: Path) -> None:
    path = tmp_path / "apps.toml"
    fault = (
        '[[faults]]\noperation = "list_locations"\neffect = {{ name = "respond", status = {} }}\n'
    )
    path.write_text(fault.format(503) * 2)
    async with Emulator(path) as emulator:
        headers = {"Authorization": f"token {emulator.token}"}
        async with aiohttp.ClientSession(emulator.url, headers=headers) as session:
            statuses = []
            for status in (503, 504):  # the first file is the same: one fault is left
                path.write_text(fault.format(status) * 2)
                emulator.reload(path)
                for _ in range(2):
                    async with session.get("/v1/locations") as answer:
                        statuses.append(answer.status)

    assert statuses == [503, 503, 504, 504]


def test_check_names_what_is_wrong(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "apps.toml"
    path.write_text(APPS.format(version="v7") + "port = 7777\n")

    assert main(["check", str(path)]) == 1
    assert str(path) in capsys.readouterr().err


def test_init_writes_an_example_and_replaces_no_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "edgegap.toml"

    assert main(["init", str(path)]) == 0
    assert main(["check", str(path)]) == 0
    assert main(["init", str(path)]) == 1
    assert "File exists" in capsys.readouterr().err


def test_every_line_of_the_example_is_right(tmp_path: Path) -> None:
    path = tmp_path / "edgegap.toml"
    main(["init", str(path)])
    text = path.read_text()
    path.write_text(re.sub(r"^# ?(?=\[|\w+ = )", "", text, flags=re.MULTILINE))
    (tmp_path / "server").mkdir()
    catalogue = load_apps(path)

    assert catalogue.applications[0].environment == {"MODE": "ranked"}
    assert [host.city for host in catalogue.fleets[0].hosts] == ["Paris"]
    assert check_file(path) == []
    assert Emulator.from_file(path).faults.left == (
        Fault("deploy", ProxyPage(502, "nginx"), when="read", times=3),
    )


# ── lines ────────────────────────────────────────────────────────────────────────────────────────


async def test_a_line_has_what_a_fault_and_a_failure_did_and_nothing_that_a_terminal_obeys() -> (
    None
):
    stream = io.StringIO()
    console = Console(stream)
    emulator = Emulator(
        [python_application("raise SystemExit(7)")],
        timings=Timings.fast(),
        faults=[Fault("list_locations", Respond(503))],
    )
    headers = {"Authorization": f"token {emulator.token}"}
    async with emulator, aiohttp.ClientSession(emulator.url, headers=headers) as session:
        emulator.record.listeners.append(console.request)
        emulator.events.listeners.append(console.status)
        await get(session, "/v1/locations")
        await get(session, "/%1b[31m")
        deployment = await deployed(emulator.cloud, python_application(""))
        await reached(deployment, Status.ERROR)
    console.close()
    lines = stream.getvalue()

    assert re.search(r"GET /v1/locations 503 \d+\.\d ms \[fault: Respond\]\n", lines)
    assert "→ ERROR: The application exited with code 7\n" in lines
    assert r"GET /\x1b[31m 404" in lines
    assert "\x1b" not in lines


# ── reload ───────────────────────────────────────────────────────────────────────────────────────


async def test_a_reload_keeps_deployments_and_the_resources_that_they_take() -> None:
    fleet = Fleet(name="alpha", hosts=(PrivateHost(host_id="h1", cpu_units=256),))
    emulator = Emulator([sample_application()], fleets=[fleet], timings=Timings.fast())
    headers = {"Authorization": f"token {emulator.token}"}
    body = DEPLOY_BODY | {"private_host_ids": ["h1"]}
    async with emulator, aiohttp.ClientSession(emulator.url, headers=headers) as session:
        async with session.post("/v2/private-fleets:deploy", json=body) as answer:
            request_id = (await answer.json())["request_id"]
        emulator.reload([sample_application(version="v2")])
        (host,) = (await get(session, "/v2/private-fleets/alpha/hosts"))["data"]
        old, _ = await deploy(session)
        new, _ = await deploy(session, version="v2")
        await until(lambda: emulator.cloud.deployments[request_id].status is Status.READY)

    assert (old, new, host["allocatable_cpu_units"]) == (400, 202, 0)
