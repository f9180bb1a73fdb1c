"""The register of deployments, and stops that the API confirms."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator

import pytest
from one_server import PLAYERS, STATUS, STOP, one_server_api, run_server, stops
from scripted_api import Reply, ScriptedApi

from edgegap_async.client import EdgegapClient
from edgegap_async.concurrency import loop_time
from edgegap_async.deployments.ownership import stop_until_confirmed
from edgegap_async.deployments.register import DeploymentRegister, DeploymentState
from edgegap_async.errors import WaitTimedOut
from edgegap_async.http.resources.deployments import is_listed
from edgegap_async.observability.observer import Observers

pytestmark = pytest.mark.virtual

MAX_ENDED = 20_000
GRACE = 10.0


@pytest.fixture
def register() -> DeploymentRegister:
    return DeploymentRegister(GRACE, Observers())


@pytest.fixture
async def api() -> AsyncIterator[ScriptedApi]:
    async with one_server_api() as api:
        yield api


@pytest.fixture
async def client(api: ScriptedApi) -> AsyncIterator[EdgegapClient]:
    async with EdgegapClient("canary-t", base_url=api.url) as client:
        yield client


# ── the register ─────────────────────────────────────────────────────────────────────────────────


async def test_a_live_deployment_is_known_however_many_others_have_ended(
    register: DeploymentRegister,
) -> None:
    register.add_deployed("kept")
    for number in range(2 * MAX_ENDED):
        register.add_deployed(f"{number}")
        register.end(f"{number}")

    assert len(register) == 1
    assert "kept" in register
    assert sum(f"{number}" in register for number in range(2 * MAX_ENDED)) == MAX_ENDED
    assert f"{MAX_ENDED}" in register
    assert f"{MAX_ENDED - 1}" not in register


async def test_the_grace_begins_with_the_deploy_and_again_with_a_new_one_of_that_id(
    register: DeploymentRegister,
) -> None:
    began = loop_time()
    assert register.believe_404_from("one") == -math.inf
    until = register.add_deployed("one")
    assert until == pytest.approx(began + GRACE, abs=0.01)
    await asyncio.sleep(4)
    assert register.add_deployed("one") == until
    assert register.believe_404_from("one") == until
    register.end("one")
    assert register.believe_404_from("one") == -math.inf
    assert register.state("one") is DeploymentState.ENDED
    assert register.add_deployed("one") == pytest.approx(until + 4, abs=0.01)
    assert register.state("one") is DeploymentState.HANDED_OVER
    assert "one" in register


async def test_each_live_deployment_has_its_turn_and_a_deploy_in_progress_has_none(
    register: DeploymentRegister,
) -> None:
    register.begin_deploy("op-1")
    for number in "01234":
        register.add_deployed(number)
    until = register.believe_404_from("3")

    turns = [register.next_live(2) for _ in range(3)]
    assert turns == [["0", "1"], ["2", "3"], ["4", "0"]]
    assert register.believe_404_from("3") == until
    assert register.next_live(9) == ["1", "2", "3", "4", "0"]


def test_the_end_of_an_unknown_deployment_is_not_remembered(register: DeploymentRegister) -> None:
    register.end("stranger")

    assert "stranger" not in register


def test_a_deploy_that_is_forgotten_is_not_remembered_when_it_ends(
    register: DeploymentRegister,
) -> None:
    register.begin_deploy("op-1")
    register.forget("op-1")
    register.end("op-1")

    assert "op-1" not in register
    assert len(register) == 0


async def test_the_state_follows_a_deployment_from_the_deploy_to_the_end(
    register: DeploymentRegister,
) -> None:
    register.begin_deploy("op-1")
    states = [register.state("op-1"), register.state("one")]
    register.end("op-1")
    register.add_deployed("one")
    states.append(register.state("one"))
    register.set_owned("one")
    states.append(register.state("one"))
    register.begin_stop("one")
    states.append(register.state("one"))

    assert states == [
        DeploymentState.DEPLOYING,
        None,
        DeploymentState.HANDED_OVER,
        DeploymentState.OWNED,
        DeploymentState.STOPPING,
    ]
    assert len(register) == 1


async def test_a_deployment_that_has_ended_gets_no_owner_and_no_grace(
    register: DeploymentRegister,
) -> None:
    register.add_deployed("one")
    register.end("one")
    register.set_owned("one")

    assert register.owned() == []
    assert register.begin_stop("one") == -math.inf
    assert register.state("one") is DeploymentState.ENDED
    assert len(register) == 0


async def test_the_grace_of_an_adopted_deployment_begins_with_its_first_stop(
    register: DeploymentRegister,
) -> None:
    register.set_owned("one")
    assert (register.owned(), len(register)) == (["one"], 1)
    assert register.believe_404_from("one") == -math.inf
    await asyncio.sleep(60)
    until = register.begin_stop("one")
    assert until == pytest.approx(loop_time() + GRACE, abs=0.01)
    await asyncio.sleep(1)

    assert register.begin_stop("one") == until
    assert register.owned() == []


# ── stops ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("status", "asked", "took"),
    [(200, 1, 0), (410, 1, 0), (404, 5, 2)],
    ids=["taken", "over", "not known"],
)
async def test_a_stop_is_repeated_until_the_answer_counts(
    api: ScriptedApi, client: EdgegapClient, status: int, asked: int, took: float
) -> None:
    api.on(*STOP, Reply(status))
    began = loop_time()
    await stop_until_confirmed(
        lambda: client.deployments.stop("abc123"),
        lambda: is_listed(client.deployments, "abc123"),
        believe_404_from=began + 2,
    )

    assert stops(api) == asked
    assert loop_time() - began == pytest.approx(took, abs=0.1)


@pytest.mark.parametrize("status", [400, 404])
async def test_a_stop_right_after_the_deploy_is_repeated_until_the_api_knows_the_deployment(
    api: ScriptedApi, client: EdgegapClient, status: int
) -> None:
    api.on(*STATUS, Reply(status))
    api.on(*STOP, Reply(status), Reply(status), Reply(status), Reply())
    with pytest.raises(WaitTimedOut):
        await run_server(client, timeout=1)
    assert stops(api) == 4

    api.on(*STOP, Reply(status), Reply())
    handle = await client.deploy("arena", "v1", users=PLAYERS)
    await handle.stop()
    assert stops(api) == 6


async def test_a_stop_that_the_caller_gave_up_is_made_again_when_the_block_is_left(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    api.on(*STOP, *[Reply(404)] * 3, Reply())
    async with client.run("arena", "v1", users=PLAYERS) as server:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.7):
                await server.stop()
        assert stops(api) == 2

    assert stops(api) == 4


async def test_the_answer_to_a_stop_that_a_deployment_does_not_exist_counts_after_the_grace(
    api: ScriptedApi, client: EdgegapClient
) -> None:
    api.on(*STOP, Reply(400))
    await client.handle("abc123").stop(missing_ok=True)
    assert stops(api) == 1
    began = loop_time()
    await (await client.deploy("arena", "v1", users=PLAYERS)).stop()

    assert loop_time() - began == pytest.approx(10, abs=1)
