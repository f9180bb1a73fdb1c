"""An emulated cloud with one application, "arena", for tests of batches and pools."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

from edgegap_async import Batch, DeployRequest, EdgegapClient, Outcome, PollingPolicy, ServerPool
from edgegap_async.emulator import Application, AppPort, Emulator, Simulation, Timings

PLAYERS = [(48.9, 2.4)]


def _arena(version: str) -> Application:
    return Application(
        name="arena", version=version, argv=["none"], ports=[AppPort("game")], time_to_deploy=3600
    )


def arena_cloud(**settings: Any) -> Emulator:
    """An emulator without rate limits that simulates the servers of arena v1 and v2."""
    defaults: dict[str, Any] = {
        "simulate": Simulation(seed=7, ready_after=(0.5, 3.0)),
        "limits": False,
        "keep_terminated": 3600.0,
        "metrics_interval": 3600.0,
    }
    return Emulator([_arena("v1"), _arena("v2")], timings=Timings.fast(), **defaults | settings)


def arena_client(emulator: Emulator, **options: Any) -> EdgegapClient:
    """A client of that emulator, without rate limits, that polls fast."""
    defaults: dict[str, Any] = {
        "limits": {"deploy": None, "get_deployment": None, "list_deployments": None},
        "polling": PollingPolicy(first_delay=0.2, interval=0.2),
        "list_delay": 2.0,
    }
    return EdgegapClient(emulator.token, base_url=emulator.url, **defaults | options)


def arena_request(number: int = 0, version: str = "v1", **options: Any) -> DeployRequest:
    """A deploy request with the tag `match-NUMBER`."""
    tags = [f"match-{number}"]
    return DeployRequest(application="arena", version=version, users=PLAYERS, tags=tags, **options)


def arena_requests(count: int) -> list[DeployRequest]:
    """Deploy requests numbered from 0."""
    return [arena_request(number) for number in range(count)]


def arena_pool(client: EdgegapClient, version: str = "v1", **settings: Any) -> ServerPool:
    """A pool of arena servers."""
    return ServerPool(client, "arena", version, users=PLAYERS, **settings)


def never_ready(*servers: bool) -> Simulation:
    """A simulation in which the nth server is never READY if the nth argument is True."""
    for seed in range(10_000):
        chance = random.Random(seed)
        draws = [
            (chance.random(), chance.random(), chance.random(), chance.random()) for _ in servers
        ]
        if [draw[2] < 0.5 for draw in draws] == list(servers):
            return Simulation(seed=seed, ready_after=(0.5, 3.0), never_ready_share=0.5)
    raise AssertionError("no such seed")


def crash(emulator: Emulator, request_id: str) -> None:
    """Ends the server's program with exit code 1, which puts the deployment in ERROR."""
    process = emulator.cloud.deployments[request_id].process
    assert process is not None
    process.end(1)  # type: ignore[attr-defined]


async def becomes_true(condition: Callable[[], object]) -> None:
    """Waits in virtual time until a condition holds that no event announces."""
    async with asyncio.timeout(600):
        while not condition():
            await asyncio.sleep(0.05)


def ids(outcomes: Any) -> set[str]:
    """The ids of the deployments of some outcomes."""
    return {outcome.handle.request_id for outcome in outcomes if outcome.handle}


async def collect(batch: Batch, into: list[Outcome]) -> None:
    """Appends the outcomes of a batch to a list, which keeps them if an error ends the batch."""
    async for outcome in batch:
        into.append(outcome)  # noqa: PERF401


async def await_cancelled_task() -> None:
    """Raises CancelledError although the task that awaits this is not cancelled."""
    other = asyncio.create_task(asyncio.sleep(100))
    other.cancel()
    await other
