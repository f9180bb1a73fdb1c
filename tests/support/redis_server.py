"""A Redis server that a test can kill, and the programs that share rate limits through it."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from edgegap_async import Cluster
from edgegap_async.api.operations import DEPLOY
from edgegap_async.concurrency import loop_time


class RedisServer:
    """A Redis server of the test, which can be killed and restarted on the same port.

    With settings, such as `"--requirepass"`, `answers` only opens a connection. In settings
    `{port}` is the port, and `{free}` is another free port.
    """

    def __init__(self, directory: Path, *settings: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.free_port = free.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}"
        self._directory = directory
        self._settings = [
            setting.format(port=self.port, free=self.free_port) for setting in settings
        ]
        # A file of settings must be the first argument.
        self._file = [word for word in self._settings[:1] if not word.startswith("-")]
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        if shutil.which("redis-server") is None:
            pytest.skip("no redis-server: apt-get install redis-server")
        assert self._process is None
        self._process = await asyncio.create_subprocess_exec(
            "redis-server",
            *self._file,
            *("--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"),
            *("--dir", str(self._directory), "--repl-diskless-sync-delay", "0"),
            *self._settings[len(self._file) :],
            stdout=asyncio.subprocess.DEVNULL,
        )
        await until(self.answers)

    async def answers(self) -> bool:
        with contextlib.suppress(Exception):
            if self._settings:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.close()
                return True
            return bool(await self.command("PING"))
        return False

    async def command(self, *words: str) -> Any:
        """Returns the reply to a command."""
        redis = Redis(port=self.port, decode_responses=True)
        try:
            return await redis.execute_command(*words)  # type: ignore[no-untyped-call]
        finally:
            await redis.aclose()

    async def has_no_other_client(self) -> bool:
        return len((await self.command("CLIENT", "LIST")).splitlines()) == 1

    def send(self, what: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(what)

    async def kill(self) -> None:
        if self._process is not None:
            self.send(signal.SIGKILL)
            await self._process.wait()
            self._process = None


async def until(holds: Callable[[], Awaitable[bool] | bool]) -> None:
    """Returns when the condition holds. The test's own time limit is the only one."""
    while True:
        held = holds()
        if held if isinstance(held, bool) else await held:
            return
        await asyncio.sleep(0.02)


def most_in_one_second(times: list[float], second: float = 1.0) -> int:
    times, first, most = sorted(times), 0, 0
    for last, stamp in enumerate(times):
        while times[first] <= stamp - second:
            first += 1
        most = max(most, last - first + 1)
    return most


class Callers:
    """Programs that each have more calls to send than the limits allow."""

    def __init__(self, clusters: list[Cluster]) -> None:
        self.clusters = clusters
        self.times: list[float] = []
        self.by_program = [0] * len(clusters)
        self.tasks = [
            asyncio.create_task(self._call(number))
            for number in range(len(clusters))
            for _ in "12345678"
        ]

    async def _call(self, number: int) -> None:
        while True:
            await self.clusters[number].limits.acquire(DEPLOY)
            self.times.append(loop_time())
            self.by_program[number] += 1

    async def more(self, count: int) -> None:
        """Returns when each program has made `count` more calls."""
        wanted = [made + count for made in self.by_program]
        await until(lambda: self.failed() or all(map(int.__ge__, self.by_program, wanted)))

    def failed(self) -> bool:
        return any(task.done() for task in self.tasks)

    async def end(self) -> None:
        for task in self.tasks:
            task.cancel()
        for ended in await asyncio.gather(*self.tasks, return_exceptions=True):
            assert isinstance(ended, asyncio.CancelledError), ended


@contextlib.asynccontextmanager
async def programs(url: str, count: int, **more: Any) -> AsyncIterator[list[Cluster]]:
    """Opens `count` clusters, each with its own connection, and waits until all share."""
    async with contextlib.AsyncExitStack() as stack:
        clusters = [await stack.enter_async_context(Cluster(url, **more)) for _ in range(count)]
        await until(lambda: all(c.is_shared and c.programs == count for c in clusters))
        yield clusters
