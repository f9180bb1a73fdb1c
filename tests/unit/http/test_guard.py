from __future__ import annotations

import asyncio
import contextlib
import pickle
from typing import Any

import pytest

from edgegap_async import EdgegapClient, Guard
from edgegap_async.api.operations import DEPLOY, STOP_DEPLOYMENT
from edgegap_async.api.register import OPERATIONS
from edgegap_async.api.requests import DeployRequest
from edgegap_async.emulator import Emulator, Fault, Respond, Simulation, sample_application
from edgegap_async.errors import DryRun, Gone, InvalidRequest, NotAllowed, NotFound

BODY = DeployRequest(application="arena", version="v1", users=["8.8.8.8"])


def test_without_a_guard_everything_is_allowed() -> None:
    for operation in OPERATIONS:
        Guard().check(operation, BODY)
    Guard().check_live(10_000)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_read_only_allows_reads_and_nothing_else(operation: Any) -> None:
    guard = Guard(read_only=True)
    if operation.method == "GET":
        guard.check(operation, None)
        return
    with pytest.raises(NotAllowed, match="read_only is set"):
        guard.check(operation, BODY)


def test_only_the_named_applications_may_be_deployed_and_what_runs_may_be_stopped() -> None:
    Guard(applications=["arena"]).check(DEPLOY, BODY)
    Guard(applications=["lobby"]).check(STOP_DEPLOYMENT, None)
    with pytest.raises(NotAllowed, match=r"arena is not in Guard\.applications: lobby"):
        Guard(applications=["lobby"]).check(DEPLOY, BODY)


def test_only_so_many_may_live() -> None:
    Guard(max_live=2).check_live(1)
    with pytest.raises(NotAllowed, match="max_live=2 reached: 2 deployments are live"):
        Guard(max_live=2).check_live(2)


@pytest.mark.parametrize(
    ("environment", "guard"),
    [
        ({}, Guard()),
        ({"EDGEGAP_READ_ONLY": "0"}, Guard()),
        ({"EDGEGAP_READ_ONLY": "1"}, Guard(read_only=True)),
        ({"EDGEGAP_READ_ONLY": "True"}, Guard(read_only=True)),
        ({"EDGEGAP_DRY_RUN": "no"}, Guard()),
        ({"EDGEGAP_DRY_RUN": "yes"}, Guard(dry_run=True)),
        ({"EDGEGAP_APP_ALLOWLIST": ""}, Guard()),
        ({"EDGEGAP_APP_ALLOWLIST": "arena, lobby,"}, Guard(applications=["arena", "lobby"])),
    ],
)
def test_the_environment_sets_up_rails(environment: dict[str, str], guard: Guard) -> None:
    assert Guard.from_environment(environment) == guard


@pytest.mark.parametrize("name", ["EDGEGAP_READ_ONLY", "EDGEGAP_DRY_RUN"])
def test_a_setting_that_cannot_be_read_is_an_error_and_not_a_no(name: str) -> None:
    with pytest.raises(InvalidRequest, match=f"{name} must be 1 or 0, not 'maybe'"):
        Guard.from_environment({name: "maybe"})


@pytest.mark.parametrize(
    "settings", [{"applications": "arena"}, {"max_live": -1}, {"max_live": 1.5}]
)
def test_a_guard_that_cannot_be_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        Guard(**settings)


async def test_nothing_is_sent_that_the_guard_refuses(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEGAP_READ_ONLY", "1")
    async with EdgegapClient(emulator.token, base_url=emulator.url) as client:
        await client.locations.list()
        for refused in (
            client.deploy("arena", "v1", users=["8.8.8.8"]),
            client.deployments.deploy("arena", "v1", users=["8.8.8.8"]),
            client.deployments.stop("abc"),
            client.tags.create("abc", "eu"),
        ):
            with pytest.raises(NotAllowed):
                await refused

    assert [request.operation for request in emulator.requests] == ["list_locations"]


async def test_a_dry_run_sends_reads_and_names_the_calls_that_it_would_have_sent(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with EdgegapClient(emulator.token, base_url=emulator.url, owner="mm-1") as client:
        left = await client.deploy("arena", "v1", users=["8.8.8.8"])
    monkeypatch.setenv("EDGEGAP_DRY_RUN", "1")
    async with EdgegapClient(emulator.token, base_url=emulator.url, owner="mm-1") as client:
        for call, method, path in (
            (client.deploy("arena", "v1", users=["8.8.8.8"]), "POST", "/v2/deployments"),
            (enter(client), "POST", "/v2/deployments"),
            (client.private_fleets.deploy("arena", "v1", users=["8.8.8.8"], private_host_ids=["h"]),
             "POST", "/v2/private-fleets:deploy"),
            (client.deployments.stop("abc"), "DELETE", "/v1/stop/abc"),
            (client.handle("abc").stop(wait=True), "DELETE", "/v1/stop/abc"),
            (client.deployments.stop_self("abc", 7, token="canary-own"),
             "DELETE", "/v1/self/stop/abc/7"),
            (client.tags.create("abc", "eu"), "POST", "/v1/deployments/abc/tags"),
        ):  # fmt: skip
            with pytest.raises(DryRun, match=f"{method} {path} is not sent. To send it") as caught:
                await call
            again = pickle.loads(pickle.dumps(caught.value))
            assert (again.method, again.path, str(again)) == (method, path, str(caught.value))
        await client.locations.list()
        assert await client.reap() == (left.request_id,)

    sent = ["deploy", "list_locations", "list_deployments", "list_deployments"]
    assert [request.operation for request in emulator.requests] == sent


async def enter(client: EdgegapClient) -> None:
    async with client.run("arena", "v1", users=["8.8.8.8"]):
        pytest.fail("it has a server")


async def test_a_dry_run_refuses_first_what_could_not_be_sent() -> None:
    guard = Guard(dry_run=True, applications=["arena"], max_live=0)
    async with EdgegapClient("canary-t", guard=guard) as client:
        for refused, why in (
            (
                client.deployments.deploy("lobby", "v1", users=["8.8.8.8"]),
                r"not in Guard\.applications: arena",
            ),
            (client.deploy("arena", "v1", users=["8.8.8.8"]), "max_live=0 reached"),
            (client.deploy("arena", "v1", users=[]), "users must not be empty"),
            (client.deployments.stop("../abc"), "request_id"),
        ):
            with pytest.raises((NotAllowed, InvalidRequest), match=why) as caught:
                await refused
            assert not isinstance(caught.value, DryRun)
    async with EdgegapClient(guard=Guard(dry_run=True)) as client:
        with pytest.raises(InvalidRequest, match="no API token"):
            await client.deployments.stop("abc")


async def test_so_many_live_at_once_however_many_ask_at_the_same_time(emulator: Emulator) -> None:
    guard = Guard(max_live=2)
    async with EdgegapClient(emulator.token, base_url=emulator.url, guard=guard) as client:
        deploys = (client.deploy("arena", "v1", users=["8.8.8.8"]) for _ in range(5))
        outcomes = await asyncio.gather(*deploys, return_exceptions=True)
        assert sum(isinstance(outcome, NotAllowed) for outcome in outcomes) == 3
        [first, second] = [one for one in outcomes if not isinstance(one, BaseException)]
        await first.stop()
        async with client.run("arena", "v1", users=["8.8.8.8"], timeout=20):
            with pytest.raises(NotAllowed):
                await client.deploy("arena", "v1", users=["8.8.8.8"])
        await client.deployments.stop(second.request_id)
        await second.wait_terminated(timeout=20)
        await second.stop()  # a 410 is an end too
        await client.deploy("arena", "v1", users=["8.8.8.8"])


async def test_one_that_ended_by_itself_does_not_count_for_long(emulator: Emulator) -> None:
    guard = Guard(max_live=2)
    async with (
        EdgegapClient(emulator.token, base_url=emulator.url) as other,
        EdgegapClient(emulator.token, base_url=emulator.url, guard=guard) as client,
    ):
        servers = [await client.deploy("arena", "v1", users=["8.8.8.8"]) for _ in range(2)]
        with pytest.raises(NotAllowed):
            await client.deploy("arena", "v1", users=["8.8.8.8"])
        for server in servers:
            await other.handle(server.request_id).stop(wait=True, timeout=20)
        with pytest.raises(NotAllowed):  # the ends were checked just now
            await client.deploy("arena", "v1", users=["8.8.8.8"])
        await servers[0].refresh()
        await client.deploy("arena", "v1", users=["8.8.8.8"])
        client._deployer._live_checked_at -= 10  # the time until the next check
        await client.deploy("arena", "v1", users=["8.8.8.8"])
        with pytest.raises(NotAllowed):
            await client.deploy("arena", "v1", users=["8.8.8.8"])


@pytest.mark.parametrize(
    ("status", "age", "then"),
    [
        (410, 0, contextlib.nullcontext()),
        (404, 320, contextlib.nullcontext()),
        (404, 290, pytest.raises(NotAllowed)),
    ],
)
@pytest.mark.virtual
async def test_one_that_the_api_knows_no_more_does_not_count(
    status: int, age: float, then: contextlib.AbstractContextManager[Any]
) -> None:
    guard, gone = Guard(max_live=1), Fault("get_deployment", Respond(status))
    async with (
        Emulator([sample_application()], simulate=Simulation(), faults=[gone]) as emulator,
        EdgegapClient(emulator.token, base_url=emulator.url, guard=guard) as client,
    ):
        server = await client.deploy("arena", "v1", users=["8.8.8.8"])
        await asyncio.sleep(age)
        with pytest.raises((Gone, NotFound)):
            await server.refresh()
        with then:
            await client.deploy("arena", "v1", users=["8.8.8.8"])
