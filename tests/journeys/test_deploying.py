"""The examples of DEPLOYING.md run, and end with no server that nothing will stop."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from program_runner import (
    ROOT,
    environment,
    free_port,
    is_listening,
    run_program,
    running_deployments,
)

from edgegap_async.emulator import Emulator

DOCUMENT = (ROOT / "examples/DEPLOYING.md").read_text("utf-8")
_YAML = re.compile(r"^```yaml\n(.*?)^```", re.DOTALL | re.MULTILINE)
MANIFESTS = [yaml.safe_load(block) for block in _YAML.findall(DOCUMENT)]


class Program:
    """A program that a test reads line by line, and ends by a signal."""

    def __init__(self, emulator: Emulator, *arguments: str, **variables: str) -> None:
        self._arguments = arguments
        self._environment = environment(emulator) | variables

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, *self._arguments),
            env=self._environment,
            cwd=ROOT,
            stdout=subprocess.PIPE,
        )

    async def until(self, pattern: str) -> re.Match[str]:
        assert self._process.stdout is not None
        while line := (await self._process.stdout.readline()).decode():
            if found := re.search(pattern, line):
                return found
        raise AssertionError(f"the program has not printed {pattern}")

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self._process.send_signal(number)
        return await self.wait()

    async def wait(self) -> int:
        await self._process.communicate()
        assert self._process.returncode is not None
        return self._process.returncode


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda one: str(one["kind"]))
def test_a_manifest_names_the_pod_and_leaves_time_for_the_end(manifest: dict[str, Any]) -> None:
    pod = manifest["spec"]["template"]["spec"]
    [container] = pod["containers"]
    variables = {one["name"]: one["valueFrom"] for one in container["env"]}

    assert manifest["apiVersion"] == "apps/v1"
    assert variables["POD_NAME"] == {"fieldRef": {"fieldPath": "metadata.name"}}
    assert "secretKeyRef" in variables["EDGEGAP_API_TOKEN"]
    assert pod["terminationGracePeriodSeconds"] >= 30
    labels = manifest["spec"]["template"]["metadata"]["labels"]
    assert manifest["spec"]["selector"]["matchLabels"] == labels


def test_there_is_a_manifest_of_each_kind() -> None:
    assert [one["kind"] for one in MANIFESTS] == ["StatefulSet", "Deployment"]


async def test_workers_have_owners_of_their_own_and_leave_no_server_at_sigterm(
    emulator: Emulator, tmp_path: Path
) -> None:
    port = free_port()
    arguments = ("--workers", "2", "--timeout-graceful-shutdown", "2", "--port", str(port))
    program = Program(
        emulator,
        *("-m", "uvicorn", *arguments, "--app-dir", "examples", "workers:app"),
        POD_NAME="workers",
        TMPDIR=str(tmp_path),
    )
    await program.start()
    try:
        while not await is_listening(port):
            await asyncio.sleep(0.05)
        owners = set[str]()
        async with asyncio.timeout(50):
            while len(owners) < 2:  # connections are spread by chance
                async with (
                    aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
                    session.post("/servers") as answer,
                ):
                    owners.add((await answer.json())["owner"])
    finally:
        await program.end()

    assert owners == {"workers-0", "workers-1"}
    assert await running_deployments(emulator) == []


async def test_the_next_run_adopts_what_the_last_run_has_left(emulator: Emulator) -> None:
    first = Program(emulator, "examples/rolling_update.py", POD_NAME="matchmaker-0")
    await first.start()
    await first.until("a match at")
    assert await first.end() == 143
    [left] = await running_deployments(emulator)
    second = Program(emulator, "examples/rolling_update.py", "0", POD_NAME="matchmaker-0")
    await second.start()

    assert (await second.until("adopted (.*),"))[1] == left
    await second.until("stopped 0 lost servers")
    await second.until("a match at")
    assert await second.wait() == 0
    assert left in await running_deployments(emulator)


@pytest.mark.parametrize("ended_by_signal", [False, True], ids=["to the end", "until SIGTERM"])
async def test_a_script_without_asyncio_stops_its_server(
    emulator: Emulator, *, ended_by_signal: bool
) -> None:
    pytest.importorskip("anyio")
    program = Program(emulator, "examples/sync_script.py", "60" if ended_by_signal else "0")
    await program.start()
    await program.until("is READY at")
    await program.until("starting on port")  # its log
    status = await program.end() if ended_by_signal else await program.wait()

    assert status == (143 if ended_by_signal else 0)
    assert await running_deployments(emulator) == []


async def test_a_job_that_is_delivered_twice_has_one_server(emulator: Emulator) -> None:
    pytest.importorskip("taskiq")
    printed = await run_program(emulator, "examples/jobs_taskiq.py", PYTHONWARNINGS="default")

    assert "2 deliveries, 1 server" in printed
    assert len(emulator.cloud.deployments) == 1
    assert await running_deployments(emulator) == []


async def test_the_discord_bot_stops_its_matches_when_it_is_closed(emulator: Emulator) -> None:
    pytest.importorskip("discord")
    path = os.pathsep.join([str(ROOT / "examples"), os.environ.get("PYTHONPATH", "")])
    printed = await run_program(
        emulator,
        "tests/support/programs/try_discord_bot.py",
        PYTHONPATH=path,
        PYTHONWARNINGS="ignore",  # of discord.py
    )

    assert re.fullmatch(
        r"1; match left; Play at 127\.0\.0\.1:\d+; This channel has a match: /over ends it\.;"
        r" Play at 127\.0\.0\.1:\d+; The match is over\.\n",
        printed,
    )
    assert len(emulator.cloud.deployments) == 2
    assert await running_deployments(emulator) == []


def test_the_emulator_says_on_other_systems_that_it_needs_linux() -> None:
    source = "import asyncio, sys; sys.platform = 'win32'; import edgegap_async.emulator"
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, check=False, cwd=ROOT
    )

    assert "ImportError: the emulator of Edgegap needs Linux, not win32: run it in WSL 2" in (
        done.stderr
    )
