"""Each web example stops every server at SIGTERM, whatever its requests are doing."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Coroutine
from typing import Any

import aiohttp
import pytest
from program_runner import ServingProgram, free_port, is_listening

from edgegap_async.emulator import Emulator, Timings, sample_application

Post = Callable[[aiohttp.ClientSession], Coroutine[Any, Any, None]]

AIOHTTP_WAIT = 60  # seconds that an aiohttp server by default waits for its open requests


async def two_join(session: aiohttp.ClientSession) -> None:
    async def join(name: str) -> None:
        async with session.post("/join", json={"name": name, "ip": "8.8.8.8"}) as answer:
            assert answer.status == 200

    await asyncio.gather(join("Ada"), join("Bob"))


async def one_joins(session: aiohttp.ClientSession) -> None:
    async with session.post("/join", json={"name": "Eve", "ip": "8.8.8.8"}):
        pass


async def one_server(session: aiohttp.ClientSession) -> None:
    async with session.post("/servers") as answer:
        assert answer.status == 200


@pytest.mark.parametrize("signals", [1, 2], ids=["once", "twice"])
@pytest.mark.parametrize(
    ("example", "has_a_server", "waits"),
    [
        ("matchmaker", two_join, [two_join, one_joins]),
        ("matchmaker_fastapi", two_join, [two_join, one_joins]),
        ("webhooks_aiohttp", one_server, [one_server, one_server]),
        ("servers_litestar", one_server, [one_server, one_server]),
    ],
)
async def test_no_server_runs_on_after_sigterm(
    example: str, has_a_server: Post, waits: list[Post], signals: int
) -> None:
    """One server is in use, others are being deployed, and in the matchmakers a player waits."""
    slow = sample_application("--bind-after", "2")
    port = free_port()
    async with Emulator([slow], timings=Timings.fast()) as emulator:
        program = ServingProgram(
            emulator,
            f"examples/{example}.py",
            *(["0"] if example == "matchmaker" else []),
            ended_by=signal.SIGTERM,
            PUBLIC_URL=f"http://127.0.0.1:{port}",
        )
        async with contextlib.AsyncExitStack() as stack:
            url = await stack.enter_async_context(program)
            session = await stack.enter_async_context(aiohttp.ClientSession(url))
            while not await is_listening(int(url.rpartition(":")[2])):
                await asyncio.sleep(0.05)
            await has_a_server(session)
            waiting = [asyncio.create_task(post(session)) for post in waits]
            while len(emulator.cloud.deployments) < 1 + sum(
                post is not one_joins for post in waits
            ):
                await asyncio.sleep(0.01)
            began = time.monotonic()
            if signals > 1:
                program.send(signal.SIGTERM)
                await asyncio.sleep(0.2)  # in the middle of its end
        took = time.monotonic() - began
        await asyncio.wait(waiting)
        for task in waiting:
            task.exception()
        running = [
            one.request_id
            for one in emulator.cloud.deployments.values()
            if not one.is_stop_requested and one.status != "TERMINATED"
        ]

    assert running == []
    assert took < AIOHTTP_WAIT / 2
