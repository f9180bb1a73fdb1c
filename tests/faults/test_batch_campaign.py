"""A random campaign for batches and pools: every server that lives at the end was handed over.

Each run draws everything from one seed, as test_campaign.py does: a simulated cloud with faults, a
client, and the way in which batches and a pool are used, at which step their tasks are cancelled
and when the client is closed. Afterwards the cloud's record of living servers is compared with the
servers that the program got.

The message of a failed run holds the command that repeats it:
`pytest tests/faults/test_batch_campaign.py --seed N`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import attrs
import pytest
from campaign import (
    Chance,
    cancel_all,
    cancel_at_a_random_step,
    draw_client,
    draw_emulator,
    draw_fault,
    errors_of_the_loop,
    living,
    operation_tag,
    run_from_seed,
)
from log_capture import logged_errors

from edgegap_async import (
    Batch,
    DeployRequest,
    EdgegapClient,
    EdgegapError,
    Guard,
    Outcome,
    ServerPool,
)
from edgegap_async.emulator import Emulator
from edgegap_async.errors import BatchStopped, MaybeCreated
from edgegap_async.requests import FailurePolicy

REQUEST = DeployRequest(application="arena", version="v1", users=["8.8.8.8"])
SETTLE_TIME = 60.0  # seconds after which every accepted stop is done
OWNER = "mm-1"
LIST_DELAY = 4.0  # seconds; more than an answer and a list of this cloud are late together


@attrs.define
class Run:
    """One run of the campaign, and the servers that its program got."""

    chance: Chance
    emulator: Emulator
    client: EdgegapClient
    held: set[str] = attrs.field(factory=set)
    """Ids of the servers that were handed over."""
    named: set[str] = attrs.field(factory=set)
    """Operation tags that a `MaybeCreated` has named."""

    def add_outcome(self, outcome: Outcome, policy: FailurePolicy) -> None:
        """Records the outcome's server as handed over, unless the policy has stopped it."""
        kept = policy == "keep_going" and not isinstance(outcome.error, BatchStopped)
        # `close` stops a failed server also if its outcome is handed over later.
        closed = self.client._deployer.owned.closed
        if outcome.handle and (outcome.is_ready or (kept and not closed)):
            self.held.add(outcome.handle.request_id)
        if isinstance(outcome.error, MaybeCreated):
            self.named.add(str(outcome.error.operation_tag))

    async def use_batch(self) -> None:
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
        # The block raises the errors of stops, and the log names their servers.
        with contextlib.suppress(EdgegapError, TimeoutError, ExceptionGroup):
            async with asyncio.timeout(chance.choice((None, 1.0, 5.0))):
                await self.claim_outcomes(batch, policy)

    async def claim_outcomes(self, batch: Batch, policy: FailurePolicy) -> None:
        way = self.chance.choice(
            ("all", "all in a block", "loop", "loop", "break", "progress only")
        )
        if way == "all":
            for outcome in await batch.all():
                self.add_outcome(outcome, policy)
            return
        async with batch:
            if way == "progress only":
                async for progress in batch.progress(0.3):
                    if progress.done >= 2:
                        break
            elif way == "all in a block":
                for outcome in await batch.all():
                    self.add_outcome(outcome, policy)
            else:
                async for outcome in batch:
                    self.add_outcome(outcome, policy)
                    if way == "break":
                        break
                    await asyncio.sleep(self.chance.choice((0, 0, 1.0)))

    async def use_pool(self) -> None:
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
                callers = [
                    group.create_task(self.allocate(pool)) for _ in range(chance.randint(0, 5))
                ]
                for caller in callers:
                    if chance.random() < 0.4:
                        group.create_task(self.cancel(caller))
                await asyncio.sleep(chance.uniform(0, 8))

    async def allocate(self, pool: ServerPool) -> None:
        chance = self.chance
        await asyncio.sleep(chance.uniform(0, 4))
        with contextlib.suppress(EdgegapError):
            if chance.random() < 0.5:
                server = await pool.allocate(chance.choice((0.5, 5.0)))
                self.held.add(server.request_id)
            else:
                async with pool.allocate(5.0):
                    await asyncio.sleep(chance.uniform(0, 2))

    async def cancel(self, task: asyncio.Task[None]) -> None:
        """Cancels a task after a random time."""
        chance = self.chance
        await asyncio.sleep(chance.uniform(0, 5))
        await cancel_at_a_random_step(task, chance, max_steps=40)

    async def run(self) -> None:
        chance = self.chance
        async with asyncio.timeout(900), asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.use_batch()) for _ in range(chance.randint(1, 3))]
            if chance.random() < 0.5:
                tasks.append(group.create_task(self.use_pool()))
            for task in tasks:
                if chance.random() < 0.4:
                    group.create_task(self.cancel(task))
            if chance.random() < 0.2:
                await cancel_all(chance, tasks)
            if chance.random() < 0.3:
                await asyncio.sleep(chance.uniform(0, 6))
                await self.client.close()
        await self.client.close()


def complaints_of(run: Run, log: str) -> Iterator[str]:
    """Yields a complaint for each server that was handed over or lives, but not both."""
    alive = {
        deployment.request_id: operation_tag(deployment)
        for deployment in living(run.emulator, OWNER)
    }
    for request_id in run.held - alive.keys():
        yield f"{request_id} was handed over and does not live"
    for request_id, tag in alive.items():
        known = request_id in run.held or tag in run.named
        if not known and request_id not in log and tag not in log:
            yield f"{request_id} ({tag}) lives and was not handed over"


async def play(seed: int) -> tuple[list[str], int]:
    """Returns the complaints of one run, and the number of servers that it made."""
    chance = Chance(seed)
    complaints = errors_of_the_loop()
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
            await run.run()
            emulator.faults.clear()
            await asyncio.sleep(SETTLE_TIME)
            log = "\n".join(line for line in lines if "may go on running" in line)
            complaints += complaints_of(run, log)
            servers = len(emulator.cloud.deployments)
    left = asyncio.all_tasks() - {asyncio.current_task()}
    return complaints + [f"left in the loop: {task}" for task in left], servers


@pytest.fixture
def seeds(request: pytest.FixtureRequest, rounds: int) -> list[int]:
    seed = request.config.getoption("--seed")
    return list(range(5 * rounds)) if seed is None else [seed]


@pytest.mark.timeout(0)
@pytest.mark.filterwarnings("error")
def test_row_28_31_every_server_that_lives_after_batches_and_pools_was_handed_over(
    seeds: list[int],
) -> None:
    servers = 0
    for seed in seeds:
        complaints, made = run_from_seed(play, seed)
        servers += made
        assert not complaints, (
            "\n".join(complaints)
            + f"\nrepeat with: pytest tests/faults/test_batch_campaign.py --seed {seed}"
        )
    assert servers >= len(seeds) or len(seeds) < 10
