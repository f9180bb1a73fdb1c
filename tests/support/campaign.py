"""The parts that the random campaigns share: what one seed draws, and the emulator's own record.

A campaign draws a simulated cloud, its faults and a client from one seed, lets a program use the
client, and afterwards compares the emulator's record of living deployments with what the program
knows. Everything random comes from the seed, ids and operation tags too, so a seed that failed
fails again.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterator
from typing import Any, TypeAlias, TypeVar
from unittest import mock

from emulator_record import ENDED
from secret_scanner import MARK
from virtual_clock import run_virtually

from edgegap_async import (
    EdgegapClient,
    Guard,
    Limits,
    PollingPolicy,
    RetryPolicy,
    Timeouts,
    WebhookReceiver,
)
from edgegap_async.emulator import (
    ActTwice,
    Application,
    AppPort,
    Delay,
    Dribble,
    Drop,
    Emulator,
    Fault,
    Fleet,
    HangUp,
    LocalDeployment,
    PrivateHost,
    ProxyPage,
    Respond,
    Simulation,
    Timings,
    Truncate,
)
from edgegap_async.emulator.effects import Effect
from edgegap_async.emulator.faults import When
from edgegap_async.emulator.proxy_pages import PROXIES

__all__ = [
    "MAX_DELAY",
    "Chance",
    "all_chance_from",
    "cancel_all",
    "cancel_at_a_random_step",
    "deployments_of",
    "draw_client",
    "draw_doubled_deploys",
    "draw_emulator",
    "draw_fault",
    "draw_guard",
    "draw_receiver",
    "errors_of_the_loop",
    "is_of_a_client",
    "living",
    "operation_tag",
    "run_from_seed",
]

Result = TypeVar("Result")
Chance: TypeAlias = random.Random

ARENA = Application(
    name="arena", version="v1", argv=["none"], ports=[AppPort("game")], time_to_deploy=5
)
FLEET = Fleet(name="mine", hosts=[PrivateHost(host_id="host-1")])
MAX_DELAY = 2.5  # seconds; the longest delay of an answer that a fault adds
GARBAGE = (b"", b"{", b'{"request_id": "0', b"<html>502</html>", b"\xff\x00")
CALLS = ("deploy", "list_deployments", "get_deployment", "stop_deployment", "deploy_to_fleet")


# ── what is drawn ────────────────────────────────────────────────────────────────────────────────


def draw_fault(chance: Chance) -> Fault:
    """Draws a fault; none of them makes the API refuse a request and carry it out all the same."""
    operation = chance.choice((*CALLS, "deploy", None))
    skip = chance.choice((0, 0, 0, 1, 3))
    if chance.random() < 0.2:
        return _draw_proxy_fault(chance, operation, skip)
    if chance.random() < 0.1:
        slow = Delay(chance.uniform(3.0, 15.0))
        return Fault("list_deployments", slow, when="acted", times=chance.choice((1, 3)), skip=skip)
    if chance.random() < 0.2:
        waits = chance.choice(({}, {"Retry-After": "0"}, {"Retry-After": "2"}))
        refusal = chance.choice(
            (Respond(429, headers=waits), Respond(429, headers=waits), Respond(403))
        )
        return Fault(operation, refusal, when="unread", times=chance.choice((1, 4)), skip=skip)
    when: When = chance.choice(("unread", "read", "acted"))
    times = chance.choice((1, 1, 1, 2, 3, 6, None))
    if chance.random() < 0.3:  # a fault of the answer: the API has carried the request out
        what: Effect = chance.choice(
            (
                Truncate(chance.randrange(30)),
                Dribble(chance.uniform(0.001, 0.1)),
                HangUp(),
                Respond(202 if "deploy" in str(operation) else 200, chance.choice(GARBAGE)),
            )
        )
        when = "acted"
    else:
        what = chance.choice(
            (
                Drop(reset=chance.random() < 0.5),
                Delay(chance.uniform(0.01, MAX_DELAY)),
                Respond(chance.choice((500, 502, 503, 504)), chance.choice((*GARBAGE, {}))),
            )
        )
    return Fault(operation, what, when=when, times=times, skip=skip)


def _draw_proxy_fault(chance: Chance, operation: str | None, skip: int) -> Fault:
    """Draws the answer of a proxy: a refusal of its own, or an error after it passed a call on."""
    proxy, times = chance.choice(PROXIES), chance.choice((1, 2, 6))
    if chance.random() < 0.5:
        own = ProxyPage(chance.choice((400, 401, 403, 404, 410, 421)), proxy)
        return Fault(operation, own, when="unread", times=times, skip=skip)
    when: When = chance.choice(("unread", "read", "acted"))
    late = ProxyPage(chance.choice((408, 499, 502, 504)), proxy)
    return Fault(operation, late, when=when, times=times, skip=skip)


def draw_doubled_deploys(chance: Chance) -> list[Fault]:
    """Draws the faults of a proxy that sends some deploys twice, in one of six runs."""
    if chance.random() >= 1 / 6:
        return []
    times, skip = chance.choice((1, 2, None)), chance.choice((0, 0, 1))
    return [
        Fault(call, ActTwice(), times=times, skip=skip) for call in ("deploy", "deploy_to_fleet")
    ]


def draw_guard(chance: Chance) -> Guard:
    """Draws a guard, most often a guard that permits everything."""
    forbids = chance.choice(("nothing",) * 13 + ("many",) * 5 + ("writing", "sending"))
    return Guard(
        max_live=chance.choice((1, 2)) if forbids == "many" else None,
        read_only=forbids == "writing",
        dry_run=forbids == "sending",
    )


@contextlib.asynccontextmanager
async def draw_receiver(chance: Chance) -> AsyncIterator[WebhookReceiver | None]:
    """Draws a webhook receiver that the emulator can or cannot reach, or None."""
    kind = chance.choice(("reachable", "unreachable", "none", "none"))
    if kind == "reachable":
        async with WebhookReceiver().serve() as receiver:
            yield receiver
    else:
        yield WebhookReceiver("http://127.0.0.1:9") if kind == "unreachable" else None


def draw_client(
    chance: Chance,
    emulator: Emulator,
    *,
    owner: str,
    list_delay: float,
    guard: Guard,
    webhooks: WebhookReceiver | None,
) -> EdgegapClient:
    """Draws a client of the emulator, with short timeouts and random limits and retries."""
    return EdgegapClient(
        emulator.token,
        base_url=emulator.url,
        owner=owner,
        list_delay=list_delay,
        guard=guard,
        webhooks=webhooks,
        timeouts=Timeouts(total=chance.choice((1.0, 1.0, 20.0)), connect=0.5),
        limits=Limits() if chance.random() < 0.5 else dict.fromkeys(CALLS),
        retries=RetryPolicy(
            attempts=chance.choice((1, 2, 4)),
            first_wait=0.1,
            max_wait=1.0,
            deadline=chance.choice((0.0, 5.0, 30.0)),
            budget=chance.choice((0.0, 2.0, 50.0)),
        ),
        polling=PollingPolicy(
            first_delay=0.2,
            interval=0.3,
            fast_period=3.0,
            webhook_interval=1.5,
            not_found_grace=chance.choice((0.5, 5.0)),
        ),
    )


def draw_emulator(chance: Chance) -> Emulator:
    """Draws an emulator that simulates its servers; some of them fail, or never become READY."""
    seconds = chance.choice((0.0, 0.1))
    return Emulator(
        [ARENA],
        fleets=[FLEET],
        limits=chance.random() < 0.5,
        max_deployments=chance.choice((None, None, 2)),
        timings=Timings(seeking=seconds, deploying=seconds),
        metrics_interval=3600.0,
        keep_terminated=3600.0,
        simulate=Simulation(
            seed=chance.randrange(2**32),
            ready_after=(0.0, 2.0),
            crash_share=chance.choice((0.0, 0.3)),
            crash_after=(0.0, 4.0),
            never_ready_share=chance.choice((0.0, 0.2)),
        ),
    )


async def cancel_at_a_random_step(
    task: asyncio.Task[None], chance: Chance, *, max_steps: int
) -> None:
    """Cancels a task after a random number of steps of the loop, in one of three cases twice."""
    for _ in range(chance.choice((1, 1, 2))):
        for _ in range(chance.randrange(max_steps)):
            await asyncio.sleep(0)
        task.cancel()


def is_of_a_client(task: asyncio.Task[Any]) -> bool:
    """Returns whether a task was started by a client."""
    code = getattr(task.get_coro(), "cr_code", None)
    path = code.co_filename if code else ""
    return "edgegap_async" in path and not ("emulator" in path or "webhooks" in path)


async def cancel_all(chance: Chance, callers: Collection[asyncio.Task[None]]) -> None:
    """Cancels callers and every task of the clients, one to three times, as a program that ends."""
    await asyncio.sleep(chance.uniform(0, 6))
    for _ in range(chance.choice((1, 2, 3))):
        for task in asyncio.all_tasks():
            if task in callers or is_of_a_client(task):
                task.cancel()
        await asyncio.sleep(chance.choice((0.0, 0.01, 0.3)))


# ── the emulator's record ────────────────────────────────────────────────────────────────────────


def deployments_of(emulator: Emulator, owner: str) -> list[LocalDeployment]:
    """Returns every deployment that carries the owner's tag, in the order of their creation."""
    every = emulator.cloud.deployments.values()
    return [deployment for deployment in every if f"own-{owner}" in deployment.tags]


def living(emulator: Emulator, owner: str) -> list[LocalDeployment]:
    """Returns the owner's deployments that are neither stopped nor being stopped."""
    return [one for one in deployments_of(emulator, owner) if one.status not in ENDED]


def operation_tag(deployment: LocalDeployment) -> str:
    """Returns the tag that the client gave to the deploy."""
    [tag] = [name for name in deployment.tags if name.startswith("op-")]
    return tag


# ── one run ──────────────────────────────────────────────────────────────────────────────────────


def errors_of_the_loop() -> list[str]:
    """Returns a list to which the running loop adds each error that no task handles."""
    errors: list[str] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: errors.append(f"{context['message']}: {context.get('exception')!r}")
    )
    return errors


@contextlib.contextmanager
def all_chance_from(seed: int) -> Iterator[None]:
    """Makes the ids, tags and random waits in the block the same for the same seed."""
    random.seed(seed)
    source = Chance(seed)
    with mock.patch.multiple(
        secrets,
        choice=source.choice,
        randbelow=source.randrange,
        token_hex=lambda size: source.randbytes(size).hex(),
        token_urlsafe=lambda size: MARK + source.randbytes(size).hex(),
    ):
        yield


def run_from_seed(play: Callable[[int], Coroutine[Any, Any, Result]], seed: int) -> Result:
    """Returns the result of `play(seed)` on a virtual clock, with all chance from the seed."""
    with all_chance_from(seed):
        return run_virtually(play(seed))
