"""A campaign of chance: whatever goes wrong, the world knows of no server that nobody answers for.

One run is one loop with a clock that jumps, a simulated cloud and one or two programs that share
an account, all of it drawn from one seed: what is wished for, in the cloud or on private hosts,
what goes wrong and when, who is cancelled at which step, when a client is closed, what its guard
forbids, whether webhooks come or are lost, and what a program that comes back does with what it
left. The cloud's own record is the judge, once all has come to rest. A server lives on only if
somebody has its handle and did not stop it, if an error named its tag or its id, or if a line of
the log said that it may go on running.

A run that fails says how to see it again: `pytest tests/faults/test_campaign.py --seed N`.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import functools
import gc
import random
import secrets
import warnings
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any, Literal, TypeAlias
from unittest import mock

import attrs
import pytest
from log_capture import logged_errors
from secret_scanner import MARK
from virtual_clock import run_virtually

from edgegap_async import (
    ClientClosed,
    DeploymentHandle,
    DeployOptions,
    EdgegapClient,
    EdgegapError,
    Guard,
    Limits,
    MaybeCreated,
    PollingPolicy,
    RetryPolicy,
    Status,
    Timeouts,
    Unprocessable,
    WebhookReceiver,
)
from edgegap_async.emulator import (
    Application,
    AppPort,
    Delay,
    Dribble,
    Drop,
    Emulator,
    Fault,
    Fleet,
    HangUp,
    Hide,
    LocalDeployment,
    PrivateHost,
    Respond,
    Simulation,
    Timings,
    Truncate,
)
from edgegap_async.emulator.faults import What, When

ARENA = Application(
    name="arena", version="v1", argv=["none"], ports=[AppPort("game")], time_to_deploy=5
)
FLEET = Fleet(name="mine", hosts=[PrivateHost(host_id="host-1")])
USERS = ["8.8.8.8"]
OWNERS = ("mm-1", "mm-12")
LATEST = 2.5  # seconds that the cloud may be late, at most
SETTLED = 30.0  # seconds after which each stop that was accepted is done
GARBAGE = (b"", b"{", b'{"request_id": "0', b"<html>502</html>", b"\xff\x00")
CALLS = ("deploy", "list_deployments", "get_deployment", "stop_deployment", "deploy_to_fleet")

Chance: TypeAlias = random.Random
Visible: TypeAlias = Literal["in time", "late", "never"]
"""When a deployment shows up in lists: within the client's `list_delay`; within twice that, so that
it was sent again, and is a surplus; or not as long as the client looks."""


class GameOver(Exception):
    """How the body of a `run` may end."""


# ── what is drawn ────────────────────────────────────────────────────────────────────────────────


def draw_fault(chance: Chance) -> Fault:
    """Something that goes wrong. A cloud that lies (it refused, and did it) is not among them."""
    operation = chance.choice((*CALLS, "deploy", None))
    skip = chance.choice((0, 0, 0, 1, 3))
    if chance.random() < 0.2:
        waits = chance.choice(({}, {"Retry-After": "0"}, {"Retry-After": "2"}))
        refusal = chance.choice(
            (Respond(429, headers=waits), Respond(429, headers=waits), Respond(403))
        )
        return Fault(operation, refusal, when="unread", times=chance.choice((1, 4)), skip=skip)
    when: When = chance.choice(("unread", "read", "acted"))
    times = chance.choice((1, 1, 1, 2, 3, 6, None))
    if chance.random() < 0.3:  # what fails while the answer is on its way
        what: What = chance.choice(
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
                Delay(chance.uniform(0.01, LATEST)),
                Respond(chance.choice((500, 502, 503, 504)), chance.choice((*GARBAGE, {}))),
            )
        )
    return Fault(operation, what, when=when, times=times, skip=skip)


def draw_guard(chance: Chance) -> Guard:
    forbids = chance.choice(("nothing",) * 13 + ("many",) * 5 + ("writing", "sending"))
    return Guard(
        max_live=chance.choice((1, 2)) if forbids == "many" else None,
        read_only=forbids == "writing",
        dry_run=forbids == "sending",
    )


@contextlib.asynccontextmanager
async def draw_receiver(chance: Chance) -> AsyncIterator[WebhookReceiver | None]:
    """A receiver that is told, one that nobody reaches, or none."""
    kind = chance.choice(("told", "unreachable", "none", "none"))
    if kind == "told":
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
    return EdgegapClient(
        emulator.token,
        base_url=emulator.url,
        owner=owner,
        list_delay=list_delay,
        guard=guard,
        webhooks=webhooks,
        timeouts=Timeouts(total=1.0, connect=0.5),
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
    seconds = chance.choice((0.0, 0.1))
    return Emulator(
        [ARENA],
        fleets=[FLEET],
        limits=chance.random() < 0.5,
        max_deployments=chance.choice((None, None, 2)),
        timings=Timings(seeking=seconds, deploying=seconds),
        sample_every=3600.0,
        remember=3600.0,
        simulate=Simulation(
            seed=chance.randrange(2**32),
            ready_after=(0.0, 2.0),
            failing=chance.choice((0.0, 0.3)),
            fails_after=(0.0, 4.0),
            silent=chance.choice((0.0, 0.2)),
        ),
    )


# ── one run ──────────────────────────────────────────────────────────────────────────────────────


@attrs.define
class Run:
    """What happens in one program, and what those in it who wish know of it."""

    chance: Chance
    emulator: Emulator
    client: EdgegapClient
    owner: str
    guard: Guard
    held: set[str] = attrs.field(factory=set)
    """Ids of the deployments that somebody has and means to go on."""
    in_doubt: set[str] = attrs.field(factory=set)
    """Ids of those that somebody tried to stop, and was not told that it went well."""
    named: set[str] = attrs.field(factory=set)
    """Tags and ids that errors named."""
    blocks: int = 0
    """How many are inside of a `client.run`."""
    complaints: list[str] = attrs.field(factory=list)
    closing: bool = False

    async def wish(self) -> None:
        """Wish for a server."""
        await asyncio.sleep(self.chance.uniform(0, 2))
        await (self.deploy() if self.chance.random() < 0.5 else self.run())

    async def bear(self, work: Coroutine[Any, Any, None]) -> None:
        """Take whatever comes of it; complain of what should not."""
        try:
            await work
        except MaybeCreated as error:
            self.named.add(str(error.operation_tag))
        except ClientClosed:
            if not self.closing:
                self.complaints.append("ClientClosed, and it is not")
        except (EdgegapError, GameOver, TimeoutError):
            pass
        except asyncio.CancelledError:
            if not _this_task().cancelling():
                self.complaints.append("cancelled by nobody")
        except BaseException as error:  # noqa: BLE001 - whatever else it is
            self.complaints.append(f"ended with {error!r}")

    async def deploy(self) -> None:
        chance = self.chance
        try:
            async with asyncio.timeout(chance.choice((None, None, 0.5, 3.0))):
                server = await self.client.deploy("arena", "v1", users=USERS, **self.place())
                self.held.add(server.request_id)
                self.count()
        except Unprocessable as error:
            self.named.add(str(error.request_id))
            raise
        with contextlib.suppress(TimeoutError):
            await self.use(server)
        if chance.random() < 0.7:
            await self.stop(server)

    async def stop(self, server: DeploymentHandle) -> None:
        self.held.discard(server.request_id)
        self.in_doubt.add(server.request_id)
        await server.stop(wait=self.chance.random() < 0.2, timeout=5.0)
        self.in_doubt.discard(server.request_id)

    def place(self) -> DeployOptions:
        """Where a server is wished for."""
        return {"private_host_ids": ["host-1"]} if self.chance.random() < 0.25 else {}

    def count(self) -> None:
        most, has = self.guard.max_live, len(self.held) + self.blocks
        if most is not None and has > most:
            self.complaints.append(f"it has {has}, and may have {most}")

    async def run(self) -> None:
        chance = self.chance
        ending = chance.choice(("well", "well", "badly", "late"))
        timeout = chance.choice((0.3, 3.0, 30.0))
        async with self.client.run(
            "arena", "v1", users=USERS, timeout=timeout, **self.place()
        ) as server:
            self.blocks += 1
            try:
                self.count()
                await self.use(server)
                if ending == "badly":
                    raise GameOver
                if ending == "late":
                    await asyncio.sleep(60)
            finally:
                self.blocks -= 1

    async def use(self, server: DeploymentHandle) -> None:
        """Wait for it in some way, or do not."""
        chance = self.chance
        seconds = chance.choice((0.1, 1.0, 4.0))
        way = chance.choice(("not at all", "until ready", "follow", "both"))
        if way == "not at all":
            await asyncio.sleep(seconds)
        if way == "until ready":
            await server.wait_ready(seconds)
        if way == "follow":
            await follow(server, chance.randint(1, 9), seconds)
        if way == "both":
            ready, following = server.wait_ready(seconds), follow(server, 9, seconds)
            await asyncio.gather(ready, following, return_exceptions=True)

    async def disturb(self, task: asyncio.Task[None]) -> None:
        """Cancel a wish at some step of it, now and then twice."""
        chance = self.chance
        await asyncio.sleep(chance.choice((chance.uniform(0, 3), chance.expovariate(0.3))))
        for _ in range(chance.choice((1, 1, 2))):
            for _ in range(chance.randrange(60)):
                await asyncio.sleep(0)  # so many turns of the loop
            task.cancel()

    async def worsen(self) -> None:
        """Let more go wrong later."""
        chance = self.chance
        for _ in range(chance.randrange(5)):
            await asyncio.sleep(chance.uniform(0, 2))
            self.emulator.faults.add(draw_fault(chance))

    async def close(self) -> None:
        self.closing = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.chance.choice((None, None, None, 0.0, 0.5))):
                await self.client.close()
        await self.client.close()

    async def close_early(self) -> None:
        await asyncio.sleep(self.chance.uniform(0, 6))
        await self.close()

    async def play(self) -> None:
        """All of it, until the client is closed and nobody waits for anything."""
        chance = self.chance
        async with asyncio.timeout(600), asyncio.TaskGroup() as group:
            count = chance.choice((1, 1, 2, 3, 4))
            wishes = [group.create_task(self.bear(self.wish())) for _ in range(count)]
            for task in wishes:
                if chance.random() < 0.5:
                    group.create_task(self.disturb(task))
            group.create_task(self.worsen())
            if chance.random() < 0.4:
                group.create_task(self.close_early())
        await self.close()

    async def come_back(self, client: EdgegapClient) -> None:
        """The next run of the program finds what it left, while things still go wrong."""
        self.client, self.closing = client, False
        async with asyncio.timeout(600), asyncio.TaskGroup() as group:
            adopting = group.create_task(self.bear(self.adopt()))
            if self.chance.random() < 0.3:
                group.create_task(self.disturb(adopting))
            if self.chance.random() < 0.2:
                group.create_task(self.close_early())
        await self.close()

    async def adopt(self) -> None:
        chance = self.chance
        if chance.random() < 0.3:
            self.in_doubt |= self.held
            self.held.clear()
            with contextlib.suppress(ExceptionGroup):  # of the stops that failed
                self.in_doubt -= set(await self.client.reap())
            return
        async for found in self.client.recover():
            if f"own-{self.owner}" not in found.row.tags:
                self.complaints.append(f"{found.row} is not of {self.owner}")
            way = chance.choice(("leave it", "use it", "stop it", "stop it"))
            if way == "use it":
                with contextlib.suppress(TimeoutError):
                    await self.use(found.handle)
            if way == "stop it":
                await self.stop(found.handle)


def _this_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


async def follow(server: DeploymentHandle, count: int, seconds: float) -> None:
    """See so many changes of its status, and go away in the middle of it."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            async for _ in server.changes():
                count -= 1
                if not count:
                    break


# ── the judge ────────────────────────────────────────────────────────────────────────────────────


def living(emulator: Emulator, owner: str) -> list[LocalDeployment]:
    over = {Status.TERMINATING, Status.TERMINATED}
    return [one for one in made(emulator, owner) if one.status not in over]


def made(emulator: Emulator, owner: str) -> list[LocalDeployment]:
    every = emulator.cloud.deployments.values()
    return [one for one in every if f"own-{owner}" in one.tags]


def operation_tag(deployment: LocalDeployment) -> str:
    [tag] = [name for name in deployment.tags if name.startswith("op-")]
    return tag


def judge(run: Run, said: str, visible: Visible) -> Iterator[str]:
    """What must not be."""
    if (run.guard.read_only or run.guard.dry_run) and made(run.emulator, run.owner):
        yield "it may not deploy, and did"
    alive = living(run.emulator, run.owner)
    ids = {one.request_id for one in alive}
    for request_id in run.held - ids:
        yield f"{request_id} was stopped, and its holder did not ask for it"
    by_tag = collections.defaultdict(list)
    for one in alive:  # in the order in which they were made
        by_tag[operation_tag(one)].append(one.request_id)
    for tag, siblings in by_tag.items():
        # Of two that both show up late, only the first is looked for long enough.
        promised = visible == "in time" or (visible == "late" and siblings[-1] in run.held)
        if len(siblings) > 1 and promised and tag not in said:
            yield f"{len(siblings)} live for the one wish {tag}"
    if visible != "in time":
        return  # a list that says "nothing" for too long cannot be told from the truth
    known = run.held | run.in_doubt | run.named
    for one in alive:
        names = {one.request_id, operation_tag(one)}
        if not names & known and not any(name in said for name in names):
            yield f"{one.request_id} ({operation_tag(one)}) lives, and nobody knows of it"


async def _sweep(emulator: Emulator, owner: str) -> Iterator[str]:
    """What the next run of the program does not find, or cannot end."""
    ids = {one.request_id for one in living(emulator, owner)}
    async with EdgegapClient(emulator.token, base_url=emulator.url, owner=owner) as successor:
        found = {one.handle.request_id async for one in successor.recover()}
        await successor.reap()
    await asyncio.sleep(SETTLED)
    left = [one.request_id for one in living(emulator, owner)]
    return iter(
        [f"recover() found {found}, not {ids}"] * (found != ids)
        + [f"reap() left {left}"] * bool(left)
    )


@attrs.frozen
class Outcome:
    complaints: list[str]
    requests: list[tuple[str, str, int]]
    deployed: int


async def play(seed: int) -> Outcome:
    """One run from beginning to end."""
    chance = Chance(seed)
    trouble: list[str] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: trouble.append(f"{context['message']}: {context.get('exception')!r}")
    )
    visible: Visible = chance.choice(("in time",) * 7 + ("late", "late", "never"))
    hidden = 4.0 if visible == "late" else chance.choice((0.0, 0.0, 0.3, 2.0))
    with logged_errors(nothing_less=True) as lines:
        async with draw_emulator(chance) as emulator, draw_receiver(chance) as receiver:
            if visible == "late":
                emulator.faults.add(Fault("deploy", Drop(), times=chance.choice((1, 2))))
            for _ in range(chance.randrange(6)):
                emulator.faults.add(draw_fault(chance))
            for call in ("list_deployments", "get_deployment"):
                if hidden:
                    emulator.faults.add(Fault(call, Hide(hidden), times=None))
            at_most = hidden + LATEST + 0.5  # from when the client gave up on a deploy
            list_delay = {"in time": at_most, "late": at_most / 2, "never": 0.1}[visible]
            a_client = functools.partial(
                draw_client, chance, emulator, list_delay=list_delay, webhooks=receiver
            )
            runs = []
            for owner in OWNERS[: chance.choice((1, 1, 2))]:
                guard = draw_guard(chance)
                runs.append(Run(chance, emulator, a_client(owner=owner, guard=guard), owner, guard))
            async with asyncio.TaskGroup() as group:
                for run in runs:
                    group.create_task(run.play())
            for run in runs:
                if chance.random() < 0.4:
                    await run.come_back(a_client(owner=run.owner, guard=Guard()))
            left = [task for task in asyncio.all_tasks() if _is_the_clients(task)]
            trouble += [f"after close() there is {task}" for task in left]
            emulator.faults.clear()
            await asyncio.sleep(SETTLED)
            said = "\n".join(line for line in lines if "may go on running" in line)
            for run in runs:
                trouble += run.complaints
                trouble += judge(run, said, visible)
            for run in runs:
                trouble += await _sweep(emulator, run.owner)
            requests = [(one.operation, one.path, one.status) for one in emulator.requests]
            deployed = len(emulator.cloud.deployments)
    trouble += [f"at the end there is {task}" for task in asyncio.all_tasks() - {_this_task()}]
    return Outcome(trouble, requests, deployed)


def _is_the_clients(task: asyncio.Task[Any]) -> bool:
    code = getattr(task.get_coro(), "cr_code", None)
    path = code.co_filename if code else ""
    return "edgegap_async" in path and not ("emulator" in path or "webhooks" in path)


@contextlib.contextmanager
def all_chance_from(seed: int) -> Iterator[None]:
    """Ids, tags and waits in the block are the same each time."""
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


def run_seed(seed: int) -> Outcome:
    """A run in which all chance, ids and tags too, comes from the seed."""
    with all_chance_from(seed):
        outcome = run_virtually(play(seed))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # aiohttp tells the loop as well
        gc.collect()  # what was dropped and not closed, or never asked for its exception
    return outcome


# ── the tests ────────────────────────────────────────────────────────────────────────────────────


PARTS = 5  # of the campaigns, for as many processes as there are


@pytest.fixture(params=range(PARTS))
def seeds(request: pytest.FixtureRequest, rounds: int) -> range:
    seed = request.config.getoption("--seed")
    every = range(25 * rounds) if seed is None else range(seed, seed + 1)
    return every[request.param :: PARTS]


@pytest.fixture
def _nothing_old() -> Iterator[None]:
    """What was there before need not be gone through again after each run."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.timeout(0)
@pytest.mark.usefixtures("_nothing_old")
@pytest.mark.filterwarnings("error")
def test_no_campaign_leaves_a_server_that_nobody_knows_of(seeds: range) -> None:
    deployed = 0
    for seed in seeds:
        outcome = run_seed(seed)
        deployed += outcome.deployed
        assert not outcome.complaints, (
            "\n".join(outcome.complaints)
            + f"\nsee it again: pytest tests/faults/test_campaign.py --seed {seed}"
        )
    assert deployed >= len(seeds) / 2 or len(seeds) < 10


def test_the_same_seed_is_the_same_campaign() -> None:
    assert run_seed(1) == run_seed(1)
    assert run_seed(1).requests != run_seed(2).requests
