"""Measures the rate limiter: 429 answers, the used part of the limit, CPU time of a permit.

In virtual time, from one seed. Compares `Limits` with `aiolimiter.AsyncLimiter(40, 1)` and the
usual code around it (backoff with full jitter after a 429), and for the CPU time also with
pyrate-limiter, where it is installed (dependency group `bench`).

Refusals: 1,000 deploys, all at once ("open") or by 20 workers ("closed"), each repeated until it is
accepted, against seven servers that count 40 a second in different ways and send no Retry-After.
One variant of `Limits` gets `Retry-After: 1`. A request travels for 30 ms plus a random jitter.
With stalls, the event loop stands still for 50 ms about once a second. Means over the rounds.

Lower limits: 400 deploys at once while the server allows fewer than documented, in any second.

Cost: CPU time of a permit while N calls wait, and the most permits in any window of one second.

    python benchmarks/limits.py [--rounds 10] [--seed 1] [--calls 1000] [--only lower]
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import itertools
import json
import random
import statistics
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, Protocol, cast

from aiolimiter import AsyncLimiter

from edgegap_async import Limits
from edgegap_async.api.operations import DEPLOY

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/support"))
from figures import significant
from virtual_clock import VirtualLoop, run_virtually

LIMIT = 40
TRAVEL = 0.03  # seconds
JITTERS = (0.0, 0.01, 0.03, 0.1)  # seconds, upper bounds
STALL = 0.05  # seconds
WORKERS = 20
GOAL = "at most 4 answers 429 in 1,000 and at least 90 % used, by the six servers at every jitter"


# ── servers that count ──────────────────────────────────────────────────────────────────────────


class Counter(Protocol):
    def accepts(self, at: float) -> bool: ...


class FixedWindow:
    """Accepts 40 calls in each second of its clock."""

    def __init__(self, phase: float) -> None:
        self.phase, self.window, self.count = phase, -1, 0

    def accepts(self, at: float) -> bool:
        window = int(at + self.phase)
        self.count = 1 if window != self.window else self.count + 1
        self.window = window
        return self.count <= LIMIT


class SlidingLog:
    """Accepts 40 calls in any second."""

    counts_refused = False

    def __init__(self, phase: float = 0.0, limit: int = LIMIT) -> None:
        del phase
        self.log = deque[float]()
        self.limit = limit

    def accepts(self, at: float) -> bool:
        while self.log and self.log[0] <= at - 1:
            self.log.popleft()
        accepted = len(self.log) < self.limit
        if accepted or self.counts_refused:
            self.log.append(at)
        return accepted


class RefusedCountLog(SlidingLog):
    """A `SlidingLog` that counts refused calls too."""

    counts_refused = True


class LeakyBucket:
    """Accepts a call each 25 ms, and 20 early (GCRA, as nginx with `burst=20 nodelay`)."""

    def __init__(self, phase: float) -> None:
        del phase
        self.expected = 0.0

    def accepts(self, at: float) -> bool:
        expected = max(at, self.expected)
        accepted = expected - at <= 20 / LIMIT
        if accepted:
            self.expected = expected + 1 / LIMIT
        return accepted


class SlidingCounter:
    """Adds the calls of this second of its clock and a share of those of the second before.

    Several gateways do this in place of a log. The goal leaves it out, because it overestimates the
    calls of a burst.
    """

    def __init__(self, phase: float) -> None:
        self.phase, self.window, self.before, self.count = phase, -1, 0, 0

    def accepts(self, at: float) -> bool:
        window, part = divmod(at + self.phase, 1)
        if window != self.window:
            self.before = self.count if window == self.window + 1 else 0
            self.window, self.count = int(window), 0
        accepted = self.before * (1 - part) + self.count + 1 <= LIMIT
        self.count += accepted
        return accepted


class TokenBucket:
    """Takes a token for each call; gets 40 tokens a second, and holds those of one second."""

    holds: float = LIMIT

    def __init__(self, phase: float) -> None:
        del phase
        self.tokens, self.filled_at = self.holds, 0.0

    def accepts(self, at: float) -> bool:
        self.tokens = min(self.holds, self.tokens + (at - self.filled_at) * LIMIT)
        self.filled_at = at
        accepted = self.tokens >= 1
        self.tokens -= accepted
        return accepted


class SmallBucket(TokenBucket):
    """A `TokenBucket` that holds the tokens of a quarter of a second."""

    holds = LIMIT / 4


COUNTERS: dict[str, Callable[[float], Counter]] = {
    "fixed window": FixedWindow,
    "sliding log": SlidingLog,
    "sliding log, refused count": RefusedCountLog,
    "token bucket": TokenBucket,
    "token bucket of a quarter": SmallBucket,
    "leaky bucket": LeakyBucket,
    "sliding counter": SlidingCounter,
}


class Network:
    """Carries requests to a server, which counts them when they arrive."""

    def __init__(self, counter: Counter, jitter: float, chance: random.Random) -> None:
        self.counter, self.jitter, self.chance = counter, jitter, chance
        self.arriving: list[tuple[float, int]] = []
        self.is_accepted = dict[int, bool]()
        self.numbers = itertools.count()
        self.accepted: list[float] = []
        self.refused = 0

    async def send(self) -> bool:
        """Sends a request and returns whether the server accepts it."""
        loop, number = asyncio.get_running_loop(), next(self.numbers)
        arrives = loop.time() + TRAVEL + self.chance.uniform(0, self.jitter)
        heapq.heappush(self.arriving, (arrives, number))
        await asyncio.sleep(arrives + TRAVEL - loop.time())
        # A request that is sent from now on arrives later than this one.
        while self.arriving and self.arriving[0][0] <= arrives:
            at, other = heapq.heappop(self.arriving)
            self.is_accepted[other] = self.counter.accepts(at)
            if self.is_accepted[other]:
                self.accepted.append(at)
            else:
                self.refused += 1
        return self.is_accepted.pop(number)


# ── limiters ────────────────────────────────────────────────────────────────────────────────────


class Limiter(Protocol):
    async def acquire(self, *, again: bool) -> None: ...
    async def back_off(self, times: int, sent_at: float) -> None: ...


class Ours:
    def __init__(self, chance: random.Random) -> None:
        self.limits, self.chance = Limits({"deploy": LIMIT}), chance

    async def acquire(self, *, again: bool) -> None:
        await self.limits.acquire(DEPLOY, front=again)

    async def back_off(self, times: int, sent_at: float) -> None:
        # As the client does without a Retry-After.
        self.limits.on_rate_limited(DEPLOY, 0.0, sent_at)
        await asyncio.sleep(1 + self.chance.uniform(0, min(8, 0.25 * 2**times)))


class OursWithRetryAfter(Ours):
    """`Ours`, where each 429 has `Retry-After: 1`."""

    async def back_off(self, times: int, sent_at: float) -> None:
        del times
        self.limits.on_rate_limited(DEPLOY, 1.0, sent_at)


class Plain:
    def __init__(self, chance: random.Random) -> None:
        self.limiter, self.chance = AsyncLimiter(LIMIT, 1), chance

    async def acquire(self, *, again: bool) -> None:
        del again
        await self.limiter.acquire()

    async def back_off(self, times: int, sent_at: float) -> None:
        del sent_at
        await asyncio.sleep(self.chance.uniform(0, min(8, 0.25 * 2**times)))


LIMITERS: dict[str, Callable[[random.Random], Limiter]] = {
    "ours": Ours,
    "ours, Retry-After 1 s": OursWithRetryAfter,
    "aiolimiter": Plain,
}


async def deploy(limiter: Limiter, network: Network) -> None:
    for times in itertools.count():
        await limiter.acquire(again=times > 0)
        sent_at = asyncio.get_running_loop().time()
        if await network.send():
            return
        await limiter.back_off(times, sent_at)


async def stalling(chance: random.Random) -> None:
    loop = cast("VirtualLoop", asyncio.get_running_loop())
    while True:
        await asyncio.sleep(chance.uniform(0.5, 1.5))
        loop.stall(STALL)


async def campaign(
    limiter: Limiter, network: Network, calls: int, *, closed: bool, stalls: random.Random | None
) -> None:
    async def worker() -> None:
        for _ in range(calls // WORKERS):
            await deploy(limiter, network)

    disturbance = asyncio.create_task(stalling(stalls)) if stalls else None
    if closed:
        await asyncio.gather(*(worker() for _ in range(WORKERS)))
    else:
        await asyncio.gather(*(deploy(limiter, network) for _ in range(calls)))
    if disturbance:
        disturbance.cancel()


def refusals(
    name: str, counter: str, jitter: float, arguments: argparse.Namespace, **how: bool
) -> tuple[float, float]:
    """Returns the 429s in 1,000 accepted calls and the used part of the limit; means."""
    refused, used = [], []
    for number in range(arguments.rounds):
        chance = random.Random(f"{arguments.seed} {number} {name} {counter} {jitter} {how}")
        network = Network(COUNTERS[counter](chance.random()), jitter, chance)
        run_virtually(
            campaign(
                LIMITERS[name](chance),
                network,
                arguments.calls,
                closed=how["closed"],
                stalls=chance if how["stalls"] else None,
            ),
        )
        duration = max(network.accepted) - min(network.accepted)
        refused.append(network.refused / len(network.accepted) * 1000)
        used.append((len(network.accepted) - 1) / duration / LIMIT)
    return statistics.mean(refused), statistics.mean(used)


def table(arguments: argparse.Namespace) -> dict[str, object]:
    results: dict[str, object] = {}
    for stalls, closed, name in itertools.product((False, True), (False, True), LIMITERS):
        rows = {
            counter: {
                f"{jitter * 1000:.0f} ms": refusals(
                    name, counter, jitter, arguments, closed=closed, stalls=stalls
                )
                for jitter in JITTERS
            }
            for counter in COUNTERS
        }
        in_goal = [row for counter, row in rows.items() if counter != "sliding counter"]
        cells = [cell for row in in_goal for cell in row.values()]
        title = f"{name}, {'closed' if closed else 'open'}{', stalls' if stalls else ''}"
        results[title] = {
            "429_in_1000_and_percent_used": {
                counter: {
                    jitter: [significant(refused), significant(100 * used)]
                    for jitter, (refused, used) in row.items()
                }
                for counter, row in rows.items()
            },
            "most_429_in_1000": significant(max(refused for refused, _ in cells)),
            "least_percent_used": significant(100 * min(used for _, used in cells)),
        }
    return results


# ── lower limits ─────────────────────────────────────────────────────────────────────────────────


def lower_limits(arguments: argparse.Namespace) -> dict[str, object]:
    """Returns what 400 deploys take, where the server allows fewer than the documented calls."""
    results: dict[str, object] = {}
    for allowed, name in itertools.product((35, 30, 20, 10, 1), LIMITERS):
        chance = random.Random(f"{arguments.seed} {allowed} {name}")
        network = Network(SlidingLog(limit=allowed), 0.01, chance)
        run_virtually(
            campaign(LIMITERS[name](chance), network, 400, closed=False, stalls=None),
        )
        duration = max(network.accepted) - min(network.accepted)
        results[f"{allowed} of {LIMIT} a second, {name}"] = {
            "times_the_ideal": significant(duration * allowed / 400),
            "answers_429": network.refused,
        }
    return results


# ── cost ─────────────────────────────────────────────────────────────────────────────────────────

PERMITS: Final = 2000
"""Permits over which the CPU time is averaged."""

WARM_UP: Final = 10_000
"""Permits before the measured ones. The cost changes a little while the first calls spread over the
second, so there are as many as calls that wait at most."""

Make = Callable[[], Callable[[], Awaitable[object]]]
"""Makes a limiter and returns its coroutine function that waits for a permit."""


def most_in_one_second(times: list[float]) -> int:
    """Returns the most permits in any window of one second, wherever it starts."""
    window, most = deque[float](), 0
    for at in sorted(times):
        window.append(at)
        while window[0] <= at - 1:
            window.popleft()
        most = max(most, len(window))
    return most


def pyrate_limiter() -> Callable[[], Awaitable[object]] | None:
    """Returns the acquire function of pyrate-limiter on the loop's clock; None without it."""
    try:
        import pyrate_limiter as pyrate  # it may not be there
        from pyrate_limiter.limiter import SingleBucketFactory
    except ImportError:
        return None

    class Bucket(pyrate.InMemoryBucket):
        def now(self) -> int:
            return int(asyncio.get_running_loop().time() * 1000)

    factory = SingleBucketFactory(Bucket([pyrate.Rate(LIMIT, 1000)]), schedule_leak=False)
    return pyrate.Limiter(factory, buffer_ms=0).try_acquire_async


def cost(make: Make, waiting: int) -> tuple[float, int]:
    """Returns the CPU time of a permit in microseconds, and the most permits in one second.

    Each of the `waiting` tasks waits again after its permit, because starting ten thousand tasks
    would cost more than their permits.
    """

    async def main() -> tuple[float, int]:
        loop, acquire, times = asyncio.get_running_loop(), make(), list[float]()
        served, began, took = itertools.count(1 - WARM_UP), 0.0, loop.create_future()

        async def one() -> None:
            nonlocal began
            while True:
                await acquire()
                times.append(loop.time())
                number = next(served)
                if number == 0:
                    began = time.process_time()
                elif number == PERMITS:
                    took.set_result(time.process_time() - began)

        tasks = [asyncio.create_task(one()) for _ in range(waiting)]
        seconds = await took
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return seconds / PERMITS * 1e6, most_in_one_second(times)

    return run_virtually(main())


def costs(rounds: int) -> dict[str, object]:
    def ours() -> Callable[[], Awaitable[object]]:
        limits = Limits({"deploy": LIMIT})
        return lambda: limits.acquire(DEPLOY)

    def aiolimiter() -> Callable[[], Awaitable[object]]:
        return AsyncLimiter(LIMIT, 1).acquire

    limiters = {"ours": ours, "aiolimiter": aiolimiter}
    if pyrate_limiter() is not None:
        limiters["pyrate-limiter"] = cast("Make", pyrate_limiter)
    measured: dict[str, dict[str, list[tuple[float, int]]]] = {}
    for _ in range(rounds):
        for waiting, name in itertools.product((100, 1_000, 10_000), limiters):
            row = measured.setdefault(name, {}).setdefault(f"{waiting:,} waiting", [])
            row.append(cost(limiters[name], waiting))
    results: dict[str, object] = {
        name: {
            waiting: {
                "cpu_us": significant(statistics.median(us for us, _ in row)),
                "most_in_one_second": max(most for _, most in row),
            }
            for waiting, row in rows.items()
        }
        for name, rows in measured.items()
    }
    return (
        results if "pyrate-limiter" in results else {**results, "pyrate-limiter": "not installed"}
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--only", choices=("refusals", "lower", "cost"))
    arguments = parser.parse_args()
    results: dict[str, object] = {
        "benchmark": "limits",
        **{key: getattr(arguments, key) for key in ("rounds", "seed", "calls")},
        "goal": GOAL,
    }
    if arguments.only in {None, "refusals"}:
        results["refusals"] = table(arguments)
    if arguments.only in {None, "lower"}:
        results["lower_limits_400_deploys"] = lower_limits(arguments)
    if arguments.only in {None, "cost"}:
        results["cost_of_a_permit"] = costs(5)
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
