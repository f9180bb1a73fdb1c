"""A campaign of chance for batches and pools: what lives at the end was handed over.

As test_campaign.py, whose draws it takes: one loop with a clock that jumps, a simulated cloud, a
client, all of it from one seed. Here batches and a pool are used in some way, cancelled at some
step, and the client is closed at some time. The cloud's own record is the judge.

A run that fails says how to see it again: `pytest tests/faults/test_batch_campaign.py --seed N`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import attrs
import pytest
from log_capture import logged_errors
from test_campaign import (
    Chance,
    all_chance_from,
    draw_client,
    draw_emulator,
    draw_fault,
    living,
    operation_tag,
)
from virtual_clock import run_virtually

from edgegap_async import (
    Batch,
    BatchStopped,
    DeployRequest,
    EdgegapClient,
    EdgegapError,
    FailurePolicy,
    Guard,
    MaybeCreated,
    Outcome,
    ServerPool,
)
from edgegap_async.emulator import Emulator

REQUEST = DeployRequest(application="arena", version="v1", users=["8.8.8.8"])
SETTLED = 60.0  # seconds after which each stop that was accepted is done
OWNER = "mm-1"
LIST_DELAY = 4.0  # longer than an answer and a list of this cloud are late


@attrs.define
class Run:
    """What happens, and what those who were handed something know of it."""

    chance: Chance
    emulator: Emulator
    client: EdgegapClient
    held: set[str] = attrs.field(factory=set)
    named: set[str] = attrs.field(factory=set)
    complaints: list[str] = attrs.field(factory=list)

    def given(self, outcome: Outcome, policy: FailurePolicy) -> None:
        """From now on it is the caller's, unless the policy has stopped it."""
        kept = policy == "keep_going" and not isinstance(outcome.error, BatchStopped)
        # What failed before the client was closed is told after that, and stopped.
        if outcome.handle and (outcome.is_ready or (kept and not self.client.custody.closed)):
            self.held.add(outcome.handle.request_id)
        if isinstance(outcome.error, MaybeCreated):
            self.named.add(str(outcome.error.operation_tag))

    async def fan_out(self) -> None:
        chance = self.chance
        await asyncio.sleep(chance.uniform(0, 2))
        policies: tuple[FailurePolicy, ...] = ("stop_failed", "keep_going", "stop_all")
        policy = chance.choice(policies)
        batch = self.client.deploy_many(
            [REQUEST] * chance.randint(0, 6),
            concurrency=chance.choice((1, 2, 10)),
            timeout=chance.choice((None, 2.0, 20.0)),
            timeout_each=chance.choice((1.0, 30.0)),
            on_failure=policy,
            attempts=chance.choice((1, 1, 3)),
        )
        # What cannot be stopped is told of the block, and in the log.
        with contextlib.suppress(EdgegapError, TimeoutError, ExceptionGroup):
            async with asyncio.timeout(chance.choice((None, 1.0, 5.0))):
                await self.use(batch, policy)

    async def use(self, batch: Batch, policy: FailurePolicy) -> None:
        way = self.chance.choice(("all", "all in a block", "loop", "loop", "break", "look on"))
        if way == "all":
            for outcome in await batch.all():
                self.given(outcome, policy)
            return
        async with batch:
            if way == "look on":
                async for progress in batch.progress(0.3):
                    if progress.done >= 2:
                        break
            elif way == "all in a block":
                for outcome in await batch.all():
                    self.given(outcome, policy)
            else:
                async for outcome in batch:
                    self.given(outcome, policy)
                    if way == "break":
                        break
                    await asyncio.sleep(self.chance.choice((0, 0, 1.0)))

    async def draw_from_a_pool(self) -> None:
        chance = self.chance
        pool = ServerPool(
            self.client,
            "arena",
            "v1",
            users=["8.8.8.8"],
            min_ready=chance.randint(0, 2),
            max_total=4,
            max_idle=chance.choice((None, 2.0)),
            poll_interval=1.0,
            timeout_each=chance.choice((1.0, 30.0)),
        )
        with contextlib.suppress(EdgegapError, ExceptionGroup):
            async with pool, asyncio.TaskGroup() as group:
                takers = [group.create_task(self.take(pool)) for _ in range(chance.randint(0, 5))]
                for taker in takers:
                    if chance.random() < 0.4:
                        group.create_task(self.disturb(taker))
                await asyncio.sleep(chance.uniform(0, 8))

    async def take(self, pool: ServerPool) -> None:
        chance = self.chance
        await asyncio.sleep(chance.uniform(0, 4))
        with contextlib.suppress(EdgegapError):
            if chance.random() < 0.5:
                server = await pool.allocate(chance.choice((0.5, 5.0)))
                self.held.add(server.request_id)
            else:
                async with pool.allocate(5.0):
                    await asyncio.sleep(chance.uniform(0, 2))

    async def disturb(self, task: asyncio.Task[None]) -> None:
        """Cancel it at some step of it, now and then twice."""
        chance = self.chance
        await asyncio.sleep(chance.uniform(0, 5))
        for _ in range(chance.choice((1, 1, 2))):
            for _ in range(chance.randrange(40)):
                await asyncio.sleep(0)
            task.cancel()

    async def play(self) -> None:
        chance = self.chance
        async with asyncio.timeout(900), asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.fan_out()) for _ in range(chance.randint(1, 3))]
            if chance.random() < 0.5:
                tasks.append(group.create_task(self.draw_from_a_pool()))
            for task in tasks:
                if chance.random() < 0.4:
                    group.create_task(self.disturb(task))
            if chance.random() < 0.3:
                await asyncio.sleep(chance.uniform(0, 6))
                await self.client.close()
        await self.client.close()


def judge(run: Run, said: str) -> Iterator[str]:
    alive = {one.request_id: operation_tag(one) for one in living(run.emulator, OWNER)}
    for request_id in run.held - alive.keys():
        yield f"{request_id} was handed over, and stopped"
    for request_id, tag in alive.items():
        known = request_id in run.held or tag in run.named
        if not known and request_id not in said and tag not in said:
            yield f"{request_id} ({tag}) lives, and was not handed over"


async def play(seed: int) -> tuple[list[str], int]:
    """What must not be, and how many servers there were."""
    chance = Chance(seed)
    trouble: list[str] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: trouble.append(f"{context['message']}: {context.get('exception')!r}")
    )
    with logged_errors() as lines:
        async with draw_emulator(chance) as emulator:
            for _ in range(chance.randrange(5)):
                emulator.faults.add(draw_fault(chance))
            client = draw_client(
                chance,
                emulator,
                owner=OWNER,
                list_delay=LIST_DELAY,
                guard=Guard(),
                webhooks=None,
            )
            run = Run(chance, emulator, client)
            await run.play()
            emulator.faults.clear()
            await asyncio.sleep(SETTLED)
            trouble += run.complaints
            trouble += judge(run, "\n".join(line for line in lines if "may go on running" in line))
            made = len(emulator.cloud.deployments)
    left = asyncio.all_tasks() - {asyncio.current_task()}
    return trouble + [f"at the end there is {task}" for task in left], made


def run_seed(seed: int) -> tuple[list[str], int]:
    with all_chance_from(seed):
        return run_virtually(play(seed))


@pytest.fixture
def seeds(request: pytest.FixtureRequest, rounds: int) -> list[int]:
    seed = request.config.getoption("--seed")
    return list(range(5 * rounds)) if seed is None else [seed]


@pytest.mark.timeout(0)
@pytest.mark.filterwarnings("error")
def test_row_28_31_what_lives_after_batches_and_pools_was_handed_over(seeds: list[int]) -> None:
    servers = 0
    for seed in seeds:
        complaints, made = run_seed(seed)
        servers += made
        assert not complaints, (
            "\n".join(complaints)
            + f"\nsee it again: pytest tests/faults/test_batch_campaign.py --seed {seed}"
        )
    assert servers >= len(seeds) or len(seeds) < 10
