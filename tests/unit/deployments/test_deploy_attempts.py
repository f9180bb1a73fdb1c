"""Handles and errors of a deploy say how many attempts it took, and how long they waited."""

from __future__ import annotations

import pytest

from edgegap_async import EdgegapClient
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
from edgegap_async.emulator.effects import Effect
from edgegap_async.errors import MaybeCreated

pytestmark = pytest.mark.virtual

USERS = ["8.8.8.8"]


@pytest.mark.parametrize(
    ("faults", "attempts", "waited"),
    [
        ([], 1, 0),
        ([Fault("deploy", Respond(429, headers={"Retry-After": "2"}), when="unread")], 2, 2),
        ([Fault("deploy", Drop()), Fault("list_deployments", Hide(3), times=None)], 1, 3),
        ([Fault("deploy", Drop(), when="read")], 2, 5),  # after the list delay it is sent again
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
async def test_a_handle_says_the_attempts_of_its_deploy_and_how_long_they_waited(
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
    ids=["it does not show up", "the list is refused"],
)
async def test_an_error_counts_every_attempt_and_the_time_of_the_search(
    listed: Effect, attempts: int, waited: float
) -> None:
    async with (
        Emulator([sample_application()], simulate=Simulation(seed=1), limits=False) as emulator,
        EdgegapClient(emulator.token, base_url=emulator.url, list_delay=5) as client,
    ):
        emulator.faults.add(
            Fault("deploy", Drop(), when="read", times=None),
            Fault("list_deployments", listed, times=None),
        )
        with pytest.raises(MaybeCreated) as caught:
            await client.deploy("arena", "v1", users=USERS)

    assert caught.value.attempts == attempts
    assert waited <= caught.value.waited <= waited + 1
