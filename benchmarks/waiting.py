"""Measures how soon a task that waits for READY is notified, and how many requests that takes.

`ours` is the status poller; in `naive`, each task polls every second behind the same rate limiter.
Both run against the emulator with its rate limits on and 30 to 80 ms of network, in virtual time
and with a seed, so the numbers are the same on every machine. A delay begins when the deployment's
status changes in the emulator and ends when the waiting task continues. The emulator counts the
requests.

The program prints JSON: `mean`, `p99` and `max` delay in seconds, `requests` for each deployment,
how many waits `found` the change or `missed` it, and how many answers were 429:

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
from aiohttp import web

sys.path.append(str(Path(__file__).parent.parent / "tests/support"))
from figures import significant
from virtual_clock import run_virtually

from edgegap_async import DeploymentHandle, EdgegapClient, Status, WebhookReceiver
from edgegap_async.emulator import (
    Application,
    Effect,
    Emulator,
    Fault,
    Respond,
    Simulation,
    Timings,
)
from edgegap_async.emulator.catalogue import AppPort
from edgegap_async.errors import DeploymentFailed
from edgegap_async.requests import OPERATIONS, WebhookUrls

ARENA = Application(
    name="arena", version="v1", argv=["arena"], ports=[AppPort("game", "UDP")], time_to_deploy=3000
)
AT_ONCE = Timings(**{field.name: 0.0 for field in attrs.fields(Timings)})
MAX_REQUESTS = 20_000  # that the emulator remembers
USERS = [(48.9, 2.4)]
ROUND_TRIP = (0.03, 0.08)  # seconds; of the network, at least and at most


def lognormal(chance: random.Random) -> float:
    """Returns seconds with a median of 5 and a 99th percentile of 30."""
    return chance.lognormvariate(math.log(5), math.log(6) / 2.326)


def two_humps(chance: random.Random) -> float:
    """Returns about 2 seconds in four of five cases, and about 25 in the others."""
    return max(0.1, chance.gauss(2, 0.3) if chance.random() < 0.8 else chance.gauss(25, 2))


@attrs.frozen(kw_only=True)
class Case:
    """The deployments of one row of the table, and how the emulator treats them."""

    count: int
    """Deployments that tasks wait for at once."""
    rounds: int = 1
    """How often the case is repeated, each time with the next seed."""
    ready_after: Callable[[random.Random], float] = lognormal
    """Returns the seconds from a deploy to READY, or to ERROR."""
    failing: float = 0.0
    """Share of deployments that end in ERROR; if above 0, only their delays are reported."""
    silent: float = 0.0
    """Share of deployments that never become READY."""
    webhooks: float | None = None
    """Share of webhooks that arrive; None for no webhooks."""
    restart: bool = False
    """Whether all deployments exist before the waits begin."""
    foreign: int = 0
    """Deployments of other clients in the same list."""
    replicas: int = 1
    """Programs that share the rate limits; the case runs one of them."""
    emulator: dict[str, Any] = attrs.field(factory=dict)
    """Further arguments of the emulator."""
    faults: tuple[Fault, ...] = ()
    """Faults of the emulator."""
    list_age: float = 0.0
    """Seconds that stale lists are behind; infinity for lists that never change."""
    stale_share: float = 1.0
    """Share of lists that are stale where `list_age` is not 0."""
    max_wait: float = 600.0
    """Seconds after which a wait gives up."""
    goal: tuple[float, float] | None = None
    """The highest mean and p99 delay, in seconds."""
    max_requests: float | None = None
    """The most requests for each deployment."""


REFUSED = Fault("list_deployments", Respond(400), times=None)
CASES = {
    "1": Case(count=1, rounds=300, goal=(0.30, 0.65), max_requests=14),
    "10": Case(count=10, rounds=60, goal=(0.18, 0.6), max_requests=6),
    "100": Case(count=100, rounds=80, goal=(0.14, 0.35), max_requests=2),
    "1,000": Case(count=1000, goal=(0.20, 0.6), max_requests=1.3),
    "10,000 at 40/s": Case(count=10_000, goal=(0.25, 0.8)),
    "10,000 at once": Case(
        count=10_000, restart=True, ready_after=lambda chance: 6 + lognormal(chance), goal=(2, 5)
    ),
    "1,000, 2 % end in ERROR, hidden from lists": Case(
        count=1000,
        failing=0.02,
        emulator={"list_includes_errors": False},
        goal=(5, 8),
    ),
    "1,000, webhooks, 5 % lost": Case(
        count=1000, webhooks=0.95, goal=(0.15, 0.45), max_requests=0.4
    ),
    "1,000, two humps": Case(count=1000, ready_after=two_humps, goal=(0.35, 1.1)),
    "1,000, all after 8 s": Case(count=1000, ready_after=lambda _: 8.0, goal=(0.35, 1.1)),
    "1,000, 2 % never": Case(count=1000, silent=0.02, max_wait=120, goal=(0.35, 1.1)),
    "1,000, rows without status": Case(count=1000, emulator={"list_has_status": False}),
    "1,000, half the list foreign": Case(count=1000, foreign=1000),
    "1,000, filters refused": Case(count=1000, emulator={"list_accepts_filters": False}),
    "1,000, lists refused": Case(count=1000, faults=(REFUSED,)),
    "125, an eighth of the limits": Case(count=125, replicas=8),
}
STALE = {  # age in seconds and share of lists
    "frozen": (math.inf, 1.0),
    "5 s behind": (5.0, 1.0),
    "60 s behind": (60.0, 1.0),
    "half frozen": (math.inf, 0.5),
}
CASES |= {
    f"{count}, lists {name}": Case(count=count, rounds=rounds, list_age=age, stale_share=share)
    for name, (age, share) in STALE.items()
    for count, rounds in ((2, 30), (10, 6), (60, 1), (300, 1))
}


@attrs.frozen
class Outdate(Effect):
    """Lists that show the deployments as they were a while ago."""

    operations = frozenset({"list_deployments"})
    needs_answer = True

    cloud: Callable[[], Any]
    """Returns the emulator's cloud."""
    case: Case
    """The case, which says how old lists are."""
    chance: random.Random
    """Decides which lists are stale."""

    async def apply(
        self, request: web.BaseRequest, answer: web.Response | None
    ) -> web.StreamResponse | None:
        """Returns the answer of then."""
        if answer is None or self.chance.random() >= self.case.stale_share:
            return None
        page = json.loads(answer.body)  # type: ignore[arg-type] # JSON of the emulator
        then, rows = asyncio.get_running_loop().time() - self.case.list_age, []
        for row in page["data"]:
            since = self.cloud().deployments[row["request_id"]].status_since
            if not row["ready"] or since <= then:
                rows.append(row)
            elif "status" not in request.query.get("query", ""):
                rows.append({**row, "ready": False, "status": "Status.DEPLOYING"})
        return web.json_response({**page, "data": rows})


@attrs.define
class Result:
    """The measurements of a case."""

    ready_delays: list[float] = attrs.field(factory=list)
    """Seconds from READY to the end of the wait."""
    error_delays: list[float] = attrs.field(factory=list)
    """Seconds from ERROR to the end of the wait."""
    missed: int = 0
    """Waits that gave up."""
    requests: int = 0
    """Status and list requests."""
    refused: int = 0
    """Answers 429 to them."""
    by: dict[str, int] = attrs.field(factory=dict)
    """Requests by operation."""

    def as_json(self, case: Case) -> dict[str, Any]:
        """Returns the figures that the program prints."""
        delays = self.error_delays if case.failing else self.ready_delays
        mean, p99 = statistics.fmean(delays), sorted(delays)[math.ceil(len(delays) * 0.99) - 1]
        each = self.requests / (case.count * case.rounds)
        figures: dict[str, Any] = {
            "mean": significant(mean),
            "p99": significant(p99),
            "max": significant(max(delays)),
            "requests": significant(each),
            "found": len(delays),
            "missed": self.missed,
            "answers 429": self.refused,
            "by": self.by,
        }
        if case.goal is not None:
            figures["goal"] = [*case.goal, case.max_requests]
            figures["met"] = (
                mean <= case.goal[0]
                and p99 <= case.goal[1]
                and each <= (case.max_requests or math.inf)
            )
        return figures


Wait = Callable[[EdgegapClient, DeploymentHandle, float], Awaitable[None]]


async def ours(_: EdgegapClient, server: DeploymentHandle, max_wait: float) -> None:
    """Waits by the status poller of the client."""
    await server.wait_ready(timeout=max_wait)


async def naive(client: EdgegapClient, server: DeploymentHandle, max_wait: float) -> None:
    """Polls every second, behind the rate limiter of the client."""
    async with asyncio.timeout(max_wait):
        while True:
            await asyncio.sleep(1)
            found = await client.deployments.get(server.request_id)
            if found.current_status.is_ready:
                return
            if found.current_status == Status.ERROR:
                raise DeploymentFailed("", request_id=server.request_id)


class LossyReceiver:
    """A webhook receiver that loses some webhooks and gets the others after a network delay."""

    def __init__(self, receiver: WebhookReceiver, share: float, seed: int) -> None:
        self._receiver = receiver
        self._share = share
        self._chance = random.Random(seed)

    def open(self, wake: Callable[[], None]) -> WebhookUrls:
        """Returns URLs of the receiver; the API may call some in vain."""
        if self._chance.random() >= self._share:
            return self._receiver.open(lambda: None)
        delay, loop = self._chance.uniform(*ROUND_TRIP) / 2, asyncio.get_running_loop()

        def later() -> None:
            loop.call_later(delay, wake)

        return self._receiver.open(later)


async def run_round(case: Case, wait: Wait, seed: int, result: Result) -> None:
    """Runs one round of a case and adds its measurements to `result`."""
    limits = {one.name: one.limit / case.replicas for one in OPERATIONS if one.limit is not None}
    simulation = Simulation(
        seed=seed,
        ready_after=case.ready_after,
        crash_share=case.failing,
        crash_after=case.ready_after,
        never_ready_share=case.silent,
    )
    unlimited = {"deploy": 1e6} if case.restart or case.foreign else {}
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
                limits={**limits, **unlimited},
                round_trip_time=ROUND_TRIP,
                faults=case.faults,
                **case.emulator,
            )
        )
        if case.list_age:
            outdate = Outdate(lambda: emulator.cloud, case, random.Random(seed))
            emulator.faults.add(Fault("list_deployments", outdate, times=None))
        others = await stack.enter_async_context(
            EdgegapClient(emulator.token, base_url=emulator.url, limits={"deploy": None})
        )
        client = await stack.enter_async_context(
            EdgegapClient(
                emulator.token,
                base_url=emulator.url,
                limits=limits,
                webhooks=None
                if case.webhooks is None
                else LossyReceiver(receiver, case.webhooks, seed),
            )
        )
        await asyncio.gather(*(deploy(others) for _ in range(case.foreign)))
        ids: list[str | None] = [None] * case.count
        if case.restart:
            made = await asyncio.gather(*(deploy(others) for _ in range(case.count)))
            ids = [one.request_id for one in made]
        requests_before, began = len(emulator.requests), loop.time()

        async def one(request_id: str | None) -> None:
            server = client.handle(request_id) if request_id else await deploy(client)
            delays = result.ready_delays
            try:
                await wait(client, server, case.max_wait)
            except DeploymentFailed:
                delays = result.error_delays
            except TimeoutError:
                result.missed += 1
                return
            delays.append(
                loop.time() - max(began, emulator.cloud.deployments[server.request_id].status_since)
            )

        await asyncio.gather(*map(one, ids))
        if len(emulator.requests) == MAX_REQUESTS:
            raise SystemExit("the emulator has forgotten the first requests: use fewer")
        requests = [got for got in emulator.requests[requests_before:] if got.method == "GET"]
        result.requests += len(requests)
        result.refused += sum(got.status == 429 for got in requests)
        for got in requests:
            result.by[got.operation] = result.by.get(got.operation, 0) + 1


async def deploy(client: EdgegapClient) -> DeploymentHandle:
    return await client.deploy("arena", "v1", users=USERS)


def measure(case: Case, wait: Wait, seed: int) -> dict[str, Any]:
    result, began = Result(), time.perf_counter()
    for number in range(case.rounds):
        run_virtually(run_round(case, wait, seed + number, result))
    return {**result.as_json(case), "seconds": significant(time.perf_counter() - began)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", choices=CASES, default=list(CASES), metavar="NAME")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--ours", action="store_true", help="measure the poller only")
    arguments = parser.parse_args()
    logging.disable()
    figures: dict[str, Any] = {}
    for name in arguments.only:
        figures[name] = {"ours": measure(CASES[name], ours, arguments.seed)}
        if not arguments.ours:
            figures[name]["naive"] = measure(CASES[name], naive, arguments.seed)
        print(json.dumps({name: figures[name]}), file=sys.stderr)
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
