"""Runs programs of examples/ and benchmarks/ against an emulator."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from edgegap_async.emulator import Emulator

ROOT = Path(__file__).parents[2]


def environment(emulator: Emulator) -> dict[str, str]:
    """Environment variables of a program that uses the emulator; warnings are errors there."""
    return {
        **os.environ,
        "EDGEGAP_API_TOKEN": emulator.token,
        "EDGEGAP_BASE_URL": emulator.url,
        "PYTHONWARNINGS": "error",
        "PYTHONUNBUFFERED": "1",
    }


async def run_program(emulator: Emulator, *arguments: str, **variables: str) -> str:
    """Returns what a program prints. The program must exit with 0 and write nothing to stderr."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        env=environment(emulator) | variables,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    stdout, stderr = await process.communicate()
    errors = stderr.decode()
    assert (process.returncode, errors) == (0, ""), stdout.decode() + errors
    return stdout.decode()


class ServingProgram:
    """A program that prints `listening on URL` and serves until it gets a signal."""

    def __init__(
        self,
        emulator: Emulator,
        *arguments: str,
        ended_by: signal.Signals = signal.SIGINT,
        **variables: str,
    ) -> None:
        self._arguments = arguments
        self._ended_by = ended_by
        self._environment = environment(emulator) | variables

    async def __aenter__(self) -> str:
        """Starts the program and returns its URL."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *self._arguments,
            env=self._environment,
            cwd=ROOT,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        line = (await self._process.stdout.readline()).decode()
        assert line.startswith("listening on "), line
        return line.removeprefix("listening on ").strip()

    async def __aexit__(self, *_: object) -> None:
        self.send(self._ended_by)
        await self._process.communicate()

    def send(self, number: signal.Signals) -> None:
        """Sends a signal, if the program still runs."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)


async def running_deployments(emulator: Emulator) -> list[str]:
    """Returns the ids of deployments that are not terminated, after all stops under way."""
    async with asyncio.timeout(20):
        while True:
            running = [
                deployment
                for deployment in emulator.cloud.deployments.values()
                if deployment.status != "TERMINATED"
            ]
            if not any(deployment.status == "TERMINATING" for deployment in running):
                return [deployment.request_id for deployment in running]
            await asyncio.sleep(0.01)


async def is_listening(port: int) -> bool:
    """Whether a program accepts connections on that port of this machine."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionError:
        return False
    writer.close()
    return True


def free_port() -> int:
    """Returns a port that no program listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])
