"""What it took to get an answer is told: by the answer, by its error, by the handle."""

from __future__ import annotations

import copy
import pickle
from collections.abc import AsyncIterator
from typing import Any

import pytest
from reference_examples import SHOWN_ANSWERS
from scripted_api import Reply, ScriptedApi

from edgegap_async import EdgegapClient, MaybeCreated
from edgegap_async.api.operations import OPERATIONS, Operation
from edgegap_async.emulator import (
    Delay,
    Drop,
    Emulator,
    Fault,
    Hide,
    Respond,
    Simulation,
    sample_application,
)
from edgegap_async.emulator.faults import What

pytestmark = pytest.mark.virtual

STOP = ("DELETE", "/v1/stop/r1")
USERS = ["8.8.8.8"]
LOST = Reply(lost=True)


@pytest.fixture
async def api() -> AsyncIterator[ScriptedApi]:
    async with ScriptedApi() as api:
        yield api


@pytest.fixture
async def client(api: ScriptedApi) -> AsyncIterator[EdgegapClient]:
    async with EdgegapClient("canary-t", base_url=api.url) as client:
        yield client


# ── a call ───────────────────────────────────────────────────────────────────────────────────────


WITH_AN_ANSWER = [operation for operation in OPERATIONS if operation.returns is not type(None)]


@pytest.mark.parametrize("operation", WITH_AN_ANSWER, ids=lambda operation: operation.name)
async def test_every_answer_tells_how_many_attempts_it_took_and_how_long_they_waited(
    api: ScriptedApi, client: EdgegapClient, operation: Operation[Any]
) -> None:
    names = {"request_id": "r1", "access_point_id": "7", "tag_name": "eu", "fleet_name": "f"}
    path = operation.path.format_map(names)
    answer = Reply(min(operation.ok), SHOWN_ANSWERS[operation.returns])
    api.on(operation.method, path, Reply(429, headers={"Retry-After": "7"}), answer, answer)
    twice, once = [await client.call(operation, path=names) for _ in range(2)]

    assert twice.attempts == 2
    assert 7 <= twice.waited <= 7.3
    assert (once.attempts, once.waited) == (1, 0.0)
    assert twice == once
    assert repr(twice) == repr(once)
    for copied in (copy.deepcopy(twice), pickle.loads(pickle.dumps(twice))):
        assert (copied.attempts, copied.waited) == (2, twice.waited)


async def test_a_stop_that_is_taken_to_have_succeeded_tells_its_attempts_too(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    api.on(*STOP, LOST, Reply(410))
    stopped = await client.deployments.stop("r1")

    assert stopped.attempts == 2
    assert stopped.waited > 0


async def test_a_call_without_an_answer_may_take_several_attempts(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    api.on("DELETE", "/v1/deployments/r1/tags/eu", Reply(503), Reply(204))
    await client.tags.delete("r1", "eu")

    assert len(api.requests) == 2


# ── a deploy ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("faults", "attempts", "waited"),
    [
        ([], 1, 0),
        ([Fault("deploy", Respond(429, headers={"Retry-After": "2"}), when="unread")], 2, 2),
        ([Fault("deploy", Drop()), Fault("list_deployments", Hide(3), times=None)], 1, 3),
        ([Fault("deploy", Drop(), when="read")], 2, 5),  # looked for as long as it may be late
        (
            [
                Fault("deploy", Respond(429, headers={"Retry-After": "2"}), when="unread"),
                Fault("deploy", Drop(), when="read"),
            ],
            3,
            7,
        ),
    ],
    ids=["at once", "refused", "late", "lost", "refused and lost"],
)
async def test_a_handle_tells_how_often_its_deploy_was_tried_and_how_long_that_took(
    faults: list[Fault], attempts: int, waited: float
) -> None:
    async with (
        Emulator([sample_application()], simulate=Simulation(seed=1), limits=False) as emulator,
        EdgegapClient(emulator.token, base_url=emulator.url, list_delay=5) as client,
    ):
        emulator.faults.add(*faults)
        server = await client.deploy("arena", "v1", users=USERS)

        assert server.attempts == attempts
        assert waited <= server.waited <= (waited + 2.5 if waited else 0)
        adopted = client.handle(server.request_id)
        assert (adopted.attempts, adopted.waited) == (0, 0.0)


@pytest.mark.parametrize(
    ("listed", "attempts", "waited"),
    [(Delay(0), 2, 10), (Respond(403), 1, 0)],
    ids=["it does not show up", "it cannot be looked for"],
)
async def test_an_error_counts_every_attempt_and_the_time_that_was_spent_in_looking(
    listed: What, attempts: int, waited: float
) -> None:
    async with (
        Emulator([sample_application()], simulate=Simulation(seed=1), limits=False) as emulator,
        EdgegapClient(emulator.token, base_url=emulator.url, list_delay=5) as client,
    ):
        emulator.faults.add(
            Fault("deploy", Drop(), when="read", times=None),
            Fault("list_deployments", listed, times=None),
        )
        with pytest.raises(MaybeCreated) as doubt:
            await client.deploy("arena", "v1", users=USERS)

    assert doubt.value.attempts == attempts
    assert waited <= doubt.value.waited <= waited + 1
