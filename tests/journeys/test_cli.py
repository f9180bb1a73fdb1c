"""The demo: its output and its exit statuses; the other commands are tested in `tests/cli`."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import subprocess
import sys

import pytest

import edgegap_async
from edgegap_async import cli
from edgegap_async.emulator import Emulator


def test_the_demo_deploys_plays_and_stops_in_three_ways(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    assert cli.main(["demo"]) == 0
    assert caplog.messages == []

    printed = capsys.readouterr().out
    assert printed.count("sent 'ping', received 'pong'") == 2
    assert len(re.findall(r"READY +\(from a (?:status request|webhook)\)", printed)) == 2
    assert printed.count("TERMINATED ") == 2
    assert len(re.findall(r"^  at once ", printed, re.MULTILINE)) == 10
    assert re.search(r"^  webhook .* s  webhook ", printed, re.MULTILINE)
    assert re.search(r"tags: demo, polling, op-\w{17}, played", printed)
    assert "server's log: Ada joined" in printed
    assert re.search(r"memory: [\d,]+ bytes, the last of \d+ samples", printed)
    assert "12 deployments" in printed


async def demo(emulator: Emulator, *arguments: str) -> asyncio.subprocess.Process:
    """Starts the demo as a program, with a given emulator as its API."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-um",
        "edgegap_async",
        "demo",
        *arguments,
        env={
            **os.environ,
            "EDGEGAP_API_TOKEN": emulator.token,
            "EDGEGAP_BASE_URL": emulator.url,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


async def live(emulator: Emulator, *arguments: str) -> tuple[int | None, str]:
    """Runs the demo with `--live` and returns its exit status and output."""
    process = await demo(emulator, "--live", *arguments)
    printed, _ = await process.communicate()
    return process.returncode, printed.decode()


async def test_live_does_the_same_with_the_api_that_the_environment_names(
    emulator: Emulator,
) -> None:
    status, printed = await live(emulator, "arena", "v1")

    assert status == 0
    assert "left out, because --public-url is not given" in printed
    assert "11 deployments" in printed
    assert sum(request.operation == "deploy" for request in emulator.requests) == 11


async def test_an_error_is_one_line_and_exit_status_1(emulator: Emulator) -> None:
    status, printed = await live(emulator, "arena", "v404")

    assert status == 1
    assert "BadRequest: POST /v2/deployments answered 400" in printed
    assert "Traceback" not in printed
    assert emulator.token not in printed


def test_a_missing_token_is_an_error_before_the_first_request(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["demo", "--live", "arena", "v1"]) == 1
    assert "EDGEGAP_API_TOKEN" in capsys.readouterr().err


def test_a_missing_emulator_extra_is_an_error_that_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "iptocc", None)

    assert cli.main(["demo"]) == 1
    assert "pip install 'edgegap-async[emulator]'" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_a_signal_ends_the_demo_and_stops_its_deployments(
    emulator: Emulator, number: int, status: int
) -> None:
    process = await demo(emulator, "--live", "arena", "v1")
    assert process.stdout is not None
    while "READY" not in (line := (await process.stdout.readline()).decode()):
        assert line
    process.send_signal(number)
    printed, _ = await process.communicate()

    assert process.returncode == status
    assert "A stop was sent for each deployment" in printed.decode()
    assert {str(one.status) for one in emulator.cloud.deployments.values()} <= {
        "TERMINATING",
        "TERMINATED",
    }


def test_python_m_runs_the_command_line_and_prints_the_version() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "edgegap_async", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )

    assert ran.stdout == f"edgegap-async {edgegap_async.__version__}\n"
