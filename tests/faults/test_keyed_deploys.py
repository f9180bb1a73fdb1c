"""Jobs that are delivered several times, to several programs, have one server each.

One seed draws who gets which job when, which deploys are lost, doubled, late or cancelled, how much
lists lag, and which programs start again. The emulator's record decides.
"""

from __future__ import annotations

import asyncio
import collections
import random

import pytest
from arena import PLAYERS, arena_client, arena_cloud
from emulator_record import alive
from log_capture import logged_errors
from virtual_clock import run_virtually

from edgegap_async import DeploymentHandle, EdgegapClient, EdgegapError
from edgegap_async.deployments.keys import key_tag
from edgegap_async.emulator import ActTwice, Delay, Drop, Emulator, Fault, Hide, Respond
from edgegap_async.http.retries import RetryPolicy

JOBS = [f"match-{number}" for number in range(4)]
LIST_DELAY = 4.0  # seconds
SETTLE_TIME = 60.0  # seconds after which every look-up and every stop is done


def add_faults(emulator: Emulator, chance: random.Random) -> None:
    lost = (ActTwice(), Drop(), Delay(chance.uniform(0.1, 3.0)), Respond(503))
    for effect in chance.sample(lost, chance.randrange(5)):
        skip, times = chance.randrange(6), chance.choice((1, 2, 3))
        emulator.faults.add(Fault("deploy", effect, when="acted", skip=skip, times=times))
    hide = Hide(chance.choice((0.0, 0.0, 0.5, 3.0)))
    emulator.faults.add(Fault("list_deployments", hide, times=None))


async def deliver(client: EdgegapClient, job: str, chance: random.Random) -> None:
    """Works on a job as a worker of a queue does: deploys, waits, and stops at its end or not."""
    try:
        async with asyncio.timeout(chance.choice((None, None, 0.2, 2.0))):
            server = await client.deploy("arena", "v1", users=PLAYERS, idempotency_key=job)
        await server.wait_ready(30)
    except (EdgegapError, TimeoutError):
        return  # the queue delivers the job again
    if chance.random() < 0.2:
        await server.stop()


def by_job(emulator: Emulator) -> dict[str, set[str]]:
    """The ids of the servers of each job that live and that no stop was asked for."""
    found = collections.defaultdict[str, set[str]](set)
    jobs = {key_tag("arena", job): job for job in JOBS}
    for request_id in alive(emulator):
        [tag] = jobs.keys() & set(emulator.cloud.deployments[request_id].tags)
        found[jobs[tag]].add(request_id)
    return found


async def play(seed: int, *, restarts: bool) -> None:
    chance = random.Random(seed)
    async with arena_cloud() as emulator:

        def new_client(number: int) -> EdgegapClient:
            retries = RetryPolicy(attempts=chance.choice((1, 3)), first_wait=0.1)
            return arena_client(
                emulator, owner=f"worker-{number}", list_delay=LIST_DELAY, retries=retries
            )

        add_faults(emulator, chance)
        clients = [new_client(number) for number in range(3)]
        workers = []
        for _ in range(16):
            number = chance.randrange(3)
            job = chance.choice(JOBS)
            workers.append(asyncio.create_task(deliver(clients[number], job, chance)))
            await asyncio.sleep(chance.choice((0.0, 0.0, 0.1, 2.0, 5.0)))
            if chance.random() < 0.2:
                chance.choice(workers).cancel()
            if restarts and chance.random() < 0.2:
                await clients[number].close()
                clients[number] = new_client(number)
        await asyncio.wait(workers)
        for worker in workers:
            assert worker.cancelled() or worker.exception() is None, f"seed {seed}: {worker}"
        await asyncio.sleep(SETTLE_TIME)
        emulator.faults.clear()
        doubled = {job: ids for job, ids in by_job(emulator).items() if len(ids) > 1}
        assert restarts or not doubled, f"seed {seed}: {doubled}"

        kept: dict[str, DeploymentHandle] = {}
        for job in JOBS:  # one more delivery, to any program
            client = chance.choice(clients)
            kept[job] = await client.deploy("arena", "v1", users=PLAYERS, idempotency_key=job)
        await asyncio.sleep(SETTLE_TIME)
        expected = {job: {server.request_id} for job, server in kept.items()}
        assert by_job(emulator) == expected, f"seed {seed}"
        for client in clients:
            await client.close()


@pytest.mark.timeout(0)
@pytest.mark.parametrize("restarts", [False, True])
def test_each_job_has_one_server_in_the_end(rounds: int, *, restarts: bool) -> None:
    for seed in range(rounds):
        with logged_errors() as errors:
            run_virtually(play(seed, restarts=restarts))
        assert not errors, f"seed {seed}"
