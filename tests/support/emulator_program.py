"""The emulator as a program of its own, and the processes that it has started."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Self

import aiohttp
import psutil
from bare_api import DEPLOY_BODY

_PROGRAM = Path(__file__).with_name("programs") / "escaping_server.py"


def processes_with(token: str) -> list[int]:
    """Returns the ids of the living processes with that text in their command line."""
    found: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # the process has ended meanwhile
            if token.encode() in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
    return found


def is_free(port: int) -> bool:
    """Whether a UDP socket can be bound to that port of this machine."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


class EmulatorProgram:
    """An emulator whose game servers leave processes behind, in a process of its own.

    Args:
        folder: a folder for its file of applications.
        temporary: its TMPDIR, in which ledgers and homes are.
        apps: its file in place of that with the servers that leave processes behind.
    """

    def __init__(self, folder: Path, temporary: Path, apps: str | None = None) -> None:
        self.token = secrets.token_hex(8)
        """In the command line of each game server and of each of its children."""
        self.ports: list[int] = []
        """Ports of its game servers."""
        self._temporary = temporary
        self._apps = folder / "apps.toml"
        argv = ["{python}", "-I", "-S", str(_PROGRAM), "{port:game}", self.token]
        self._apps.write_text(
            apps
            or "[[applications]]\n"
            'name = "arena"\nversion = "v1"\n'
            f"argv = {argv!r}\n"
            'ports = [{ name = "game", protocol = "UDP" }]\n',
            "utf-8",
        )

    async def __aenter__(self) -> Self:
        """Starts it and waits until it serves."""
        options = ["--fast", "--no-limits", "--quiet", "--token", "canary-emulator"]
        self.process = subprocess.Popen(  # noqa: ASYNC220 - it lasts milliseconds
            [sys.executable, "-m", "edgegap_async.emulator", str(self._apps), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={"TMPDIR": str(self._temporary)},
        )
        assert self.process.stdout is not None
        _, line, _ = [await asyncio.to_thread(self.process.stdout.readline) for _ in range(3)]
        self.url = line.strip().removeprefix("export EDGEGAP_BASE_URL=")
        return self

    async def __aexit__(self, *_: object) -> None:
        self.end(signal.SIGTERM)

    @contextlib.asynccontextmanager
    async def _session(self) -> AsyncIterator[aiohttp.ClientSession]:
        headers = {"Authorization": "token canary-emulator"}
        async with aiohttp.ClientSession(self.url, headers=headers) as session:
            yield session

    async def deploy(self, count: int) -> None:
        """Deploys game servers and waits until they are READY."""
        async with self._session() as session, asyncio.timeout(30):
            for _ in range(count):
                async with session.post("/v2/deployments", json=DEPLOY_BODY) as answer:
                    request_id = (await answer.json())["request_id"]
                status: dict[str, object] = {}
                while not status.get("running"):
                    async with session.get(f"/v1/status/{request_id}") as answer:
                        status = await answer.json()
                    assert not status["error"], status
                    await asyncio.sleep(0.01)
                self.ports.append(status["ports"]["game"]["external"])  # type: ignore[index]

    def guardian(self) -> psutil.Process:
        """Returns its guardian."""
        (guardian,) = psutil.Process(self.process.pid).children()
        return guardian

    def end(self, how: signal.Signals) -> tuple[int, str]:
        """Sends it a signal. Returns its exit code and what it has written to stderr."""
        self.process.send_signal(how)
        _, errors = self.process.communicate(timeout=20)
        return self.process.returncode, errors

    async def seconds_until_nothing_is_left(self) -> float:
        """Returns the seconds until no process is left and each port is free."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.timeout(20):
            while processes_with(self.token) or not all(map(is_free, self.ports)):
                await asyncio.sleep(0.01)
        return loop.time() - began
