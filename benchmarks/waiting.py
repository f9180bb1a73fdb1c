"""Measures how late a wait learns of READY, and how many requests that takes.

Compares this package with "each wait polls every second behind the limiter", on the emulator with
its rate limits and 30 to 80 ms of network. Time is virtual and random numbers are seeded, so that
every machine prints the same numbers. The delay lasts from the emulator's change of status until
the waiting task continues. The emulator counts the status requests and list requests.

    python benchmarks/waiting.py [--only NAME …] [--ours] [--seed N]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import math
import random
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import attrs

sys.path.append(str(Path(__file__).parent.parent / "tests/support"))

from virtual_clock import run_virtually

from edgegap_async import (
    OPERATIONS,
    DeploymentFailed,
    DeploymentHandle,
    EdgegapClient,
    Status,
    WebhookReceiver,
    WebhookUrls,
)
from edgegap_async.emulator import (
    Application,
    Emulator,
    Fault,
    Respond,
    Simulation,
    Timings,
)
from edgegap_async.emulator.catalogue import AppPort

ARENA = Application(
    name="arena", version="v1", argv=["arena"], ports=[AppPort("game", "UDP")], time_to_deploy=3000
)
AT_ONCE = Timings(**{field.name: 0.0 for field in attrs.fields(Timings)})
USERS = [(48.9, 2.4)]
ROUND_TRIP = (0.03, 0.08)  # seconds


def lognormal(chance: random.Random) -> float:
    """Median 5 s, 99th percentile 30 s."""
    return chance.lognormvariate(math.log(5), math.log(6) / 2.326)


def two_humps(chance: random.Random) -> float:
    return max(0.1, chance.gauss(2, 0.3) if chance.random() < 0.8 else chance.gauss(25, 2))


@attrs.frozen(kw_only=True)
class Case:
    """What is waited for."""

    count: int
    rounds: int = 1
    ready_after: Callable[[random.Random], float] = lognormal
    failing: float = 0.0
    silent: float = 0.0
    webhooks: float | None = None
    """The share of webhooks that come; None for no webhooks."""
    restart: bool = False
    """Whether all are deployed already when the waits begin."""
    foreign: int = 0
    """Deployments of others that run."""
    replicas: int = 1
    """Programs that share the limits; this is one of them."""
    emulator: dict[str, Any] = attrs.field(factory=dict)
    faults: tuple[Fault, ...] = ()
    patience: float = 600.0
    goal: tuple[float, float] | None = None
    most_requests: float | None = None


REFUSED = Fault("list_deployments", Respond(400), times=None)
CASES = {
    "1": Case(count=1, rounds=300, goal=(0.30, 0.65), most_requests=14),
    "10": Case(count=10, rounds=60, goal=(0.18, 0.6), most_requests=6),
    "100": Case(count=100, rounds=10, goal=(0.14, 0.35), most_requests=2),
    "1,000": Case(count=1000, goal=(0.20, 0.6), most_requests=1.3),
    "10,000 at 40/s": Case(count=10_000, goal=(0.25, 0.8)),
    "10,000 at once": Case(
        count=10_000, restart=True, ready_after=lambda chance: 6 + lognormal(chance), goal=(2, 5)
    ),
    "1,000, 2 % end in ERROR, unresults": Case(
        count=1000,
        failing=0.02,
        emulator={"list_includes_errors": False},
        goal=(5, 8),
    ),
    "1,000, webhooks, 5 % lost": Case(
        count=1000, webhooks=0.95, goal=(0.15, 0.45), most_requests=0.4
    ),
    "1,000, two humps": Case(count=1000, ready_after=two_humps, goal=(0.35, 1.1)),
    "1,000, all after 8 s": Case(count=1000, ready_after=lambda _: 8.0, goal=(0.35, 1.1)),
    "1,000, 2 % never": Case(count=1000, silent=0.02, patience=120, goal=(0.35, 1.1)),
    "1,000, rows without status": Case(count=1000, emulator={"list_has_status": False}),
    "1,000, half the list foreign": Case(count=1000, foreign=1000),
    "1,000, filters refused": Case(count=1000, emulator={"list_accepts_filters": False}),
    "1,000, lists refused": Case(count=1000, faults=(REFUSED,)),
    "125, an eighth of the limits": Case(count=125, replicas=8),
}


@attrs.define
class Result:
    """What came of it."""

    lags: list[float] = attrs.field(factory=list)
    error_lags: list[float] = attrs.field(factory=list)
    unresults: int = 0
    requests: int = 0
    refused: int = 0
    by: dict[str, int] = attrs.field(factory=dict)

    def as_json(self, case: Case) -> dict[str, Any]:
        """In seconds, and requests for each deployment."""
        lags = self.error_lags if case.failing else self.lags
        mean, p99 = statistics.fmean(lags), sorted(lags)[math.ceil(len(lags) * 0.99) - 1]
        each = self.requests / (case.count * case.rounds)
        said: dict[str, Any] = {
            "mean": round(mean, 3),
            "p99": round(p99, 3),
            "longest": round(max(lags), 3),
            "requests": round(each, 2),
            "results": len(lags),
            "unresults": self.unresults,
            "answers 429": self.refused,
            "by": self.by,
        }
        if case.goal is not None:
            said["goal"] = [*case.goal, case.most_requests]
            said["met"] = (
                mean <= case.goal[0]
                and p99 <= case.goal[1]
                and each <= (case.most_requests or math.inf)
            )
        return said


Wait = Callable[[EdgegapClient, DeploymentHandle, float], Awaitable[None]]


async def ours(_: EdgegapClient, server: DeploymentHandle, patience: float) -> None:
    await server.wait_ready(timeout=patience)


async def naive(client: EdgegapClient, server: DeploymentHandle, patience: float) -> None:
    """Each polls every second, behind the limiter."""
    async with asyncio.timeout(patience):
        while True:
            await asyncio.sleep(1)
            seen = await client.deployments.get(server.request_id)
            if seen.current_status.is_ready:
                return
            if seen.current_status == Status.ERROR:
                raise DeploymentFailed("", request_id=server.request_id)


class Lossy:
    """A receiver that some webhooks do not reach, and the others from afar."""

    def __init__(self, receiver: WebhookReceiver, share: float, seed: int) -> None:
        self._receiver = receiver
        self._share = share
        self._chance = random.Random(seed)

    def open(self, wake: Callable[[], None]) -> WebhookUrls:
        """As the receiver does."""
        if self._chance.random() >= self._share:
            return self._receiver.open(lambda: None)
        way, loop = self._chance.uniform(*ROUND_TRIP) / 2, asyncio.get_running_loop()

        def later() -> None:
            loop.call_later(way, wake)

        return self._receiver.open(later)


async def play(case: Case, wait: Wait, seed: int, result: Result) -> None:
    limits = {one.name: one.limit / case.replicas for one in OPERATIONS if one.limit is not None}
    simulation = Simulation(
        seed=seed,
        ready_after=case.ready_after,
        crash_share=case.failing,
        crash_after=case.ready_after,
        never_ready_share=case.silent,
    )
    many = {"deploy": 1e6} if case.restart or case.foreign else {}
    random.seed(seed)  # for the jitter of the poller
    loop = asyncio.get_running_loop()
    async with contextlib.AsyncExitStack() as stack:
        receiver = WebhookReceiver()
        if case.webhooks is not None:
            await stack.enter_async_context(receiver.serve())
        emulator = await stack.enter_async_context(
            Emulator(
                [ARENA],
                timings=AT_ONCE,
                simulate=simulation,
                limits={**limits, **many},
                round_trip_time=ROUND_TRIP,
                faults=case.faults,
                **case.emulator,
            )
        )
        others = await stack.enter_async_context(
            EdgegapClient(emulator.token, base_url=emulator.url, limits={"deploy": None})
        )
        client = await stack.enter_async_context(
            EdgegapClient(
                emulator.token,
                base_url=emulator.url,
                limits=limits,
                webhooks=None if case.webhooks is None else Lossy(receiver, case.webhooks, seed),
            )
        )
        await asyncio.gather(*(deploy(others) for _ in range(case.foreign)))
        ids: list[str | None] = [None] * case.count
        if case.restart:
            made = await asyncio.gather(*(deploy(others) for _ in range(case.count)))
            ids = [one.request_id for one in made]
        before_that, began = len(emulator.requests), loop.time()

        async def one(request_id: str | None) -> None:
            server = client.handle(request_id) if request_id else await deploy(client)
            lags = result.lags
            try:
                await wait(client, server, case.patience)
            except DeploymentFailed:
                lags = result.error_lags
            except TimeoutError:
                result.unresults += 1
                return
            lags.append(
                loop.time() - max(began, emulator.cloud.deployments[server.request_id].status_since)
            )

        await asyncio.gather(*map(one, ids))
        asked = [got for got in emulator.requests[before_that:] if got.method == "GET"]
        result.requests += len(asked)
        result.refused += sum(got.status == 429 for got in asked)
        for got in asked:
            result.by[got.operation] = result.by.get(got.operation, 0) + 1


async def deploy(client: EdgegapClient) -> DeploymentHandle:
    return await client.deploy("arena", "v1", users=USERS)


def measure(case: Case, wait: Wait, seed: int) -> dict[str, Any]:
    result, began = Result(), time.perf_counter()
    for number in range(case.rounds):
        run_virtually(play(case, wait, seed + number, result))
    return {**result.as_json(case), "took": round(time.perf_counter() - began, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", choices=CASES, default=list(CASES), metavar="NAME")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--ours", action="store_true", help="leave the naive ones out")
    arguments = parser.parse_args()
    logging.disable()
    results: dict[str, Any] = {}
    for name in arguments.only:
        results[name] = {"ours": measure(CASES[name], ours, arguments.seed)}
        if not arguments.ours:
            results[name]["naive"] = measure(CASES[name], naive, arguments.seed)
        print(json.dumps({name: results[name]}), file=sys.stderr)
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
