"""Where the requests of a batch come from, and which requests and options are invalid."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from arena import (
    PLAYERS,
    arena_client,
    arena_cloud,
    arena_request,
    arena_requests,
    await_cancelled_task,
    collect,
    ids,
    never_ready,
)
from emulator_record import alive, requests_by_operation

from edgegap_async import DeployRequest, EdgegapClient, Guard, Outcome, Progress
from edgegap_async.concurrency import loop_time
from edgegap_async.emulator import Emulator
from edgegap_async.errors import BatchStopped, InvalidRequest, LimitReached, WaitTimedOut

pytestmark = pytest.mark.virtual


class AsyncCallback:
    """A callable object whose result has to be awaited."""

    async def __call__(self, _: Progress) -> None:
        pass


@pytest.mark.parametrize("kind", ["generator", "async generator", "mappings", "tuple"])
async def test_requests_may_come_from_any_iterable(client: EdgegapClient, kind: str) -> None:
    async def slowly() -> AsyncIterator[DeployRequest]:
        for request in arena_requests(4):
            await asyncio.sleep(0.5)
            yield request

    mapping = {"application": "arena", "version": "v1", "users": PLAYERS}
    requests: Any = {
        "generator": iter(arena_requests(4)),
        "async generator": slowly(),
        "mappings": [mapping] * 4,
        "tuple": tuple(arena_requests(4)),
    }[kind]
    batch = client.deploy_many(requests)
    total = batch.progress_now.total
    async with batch:
        outcomes = await batch.all()

        assert total == (4 if kind in {"mappings", "tuple"} else None)
        assert batch.progress_now.total == 4
    assert [outcome.is_ready for outcome in outcomes] == [True] * 4


async def test_a_batch_without_requests_has_no_outcomes(client: EdgegapClient) -> None:
    assert await client.deploy_many([]).all() == ()
    async with client.deploy_many(iter(())) as batch:
        assert [outcome async for outcome in batch] == []
        assert batch.progress_now.time_left == 0


async def test_at_most_concurrency_requests_are_in_progress(
    emulator: Emulator, client: EdgegapClient
) -> None:
    taken = 0

    def requests() -> Iterator[DeployRequest]:
        nonlocal taken
        for request in arena_requests(12):
            taken += 1
            yield request

    max_under_way = 0
    async with client.deploy_many(requests(), concurrency=3) as batch:
        async for progress in batch.progress(0.05):
            under_way = sum(progress.under_way.values())
            max_under_way = max(max_under_way, under_way)
            assert taken - progress.done <= 4  # one request may be taken in advance
            assert under_way <= 3
        outcomes = await batch.all()

    assert max_under_way == 3
    assert len(alive(emulator)) == len(outcomes) == 12


async def test_an_invalid_request_fails_alone_and_is_named_by_its_index(
    emulator: Emulator, client: EdgegapClient
) -> None:
    said: dict[str, dict[str, Any]] = {
        "users[0]: not an IPv4 or IPv6 address: 'nowhere'": {"users": ["nowhere"]},
        "users is missing": {},
        "no field user; there are application, version, users,": {"user": PLAYERS},
    }
    game = {"application": "arena", "version": "v1"}
    invalid: list[Any] = [*({**game, **given} for given in said.values()), "arena", None]
    outcomes = await client.deploy_many([*arena_requests(2), *invalid]).all()

    assert [outcome.is_ready for outcome in outcomes] == [True, True] + [False] * 5
    for index, outcome in enumerate(outcomes[2:], start=2):
        assert isinstance(outcome.error, InvalidRequest)
        assert str(outcome.error).startswith(f"requests[{index}]: ")
        assert (outcome.attempts, outcome.handle) == (0, None)
        assert outcome.request is invalid[index - 2]
    for outcome, text in zip(outcomes[2:], said, strict=False):
        assert text in str(outcome.error)
    assert str(outcomes[4].error).endswith("Did you mean users?")
    assert requests_by_operation(emulator)["deploy"] == 2


async def test_an_invalid_request_with_stop_all_sends_nothing(
    emulator: Emulator, client: EdgegapClient
) -> None:
    requests: list[Any] = [*arena_requests(3), "arena"]
    outcomes = await client.deploy_many(requests, concurrency=1, on_failure="stop_all").all()

    assert [type(outcome.error) for outcome in outcomes] == [BatchStopped] * 3 + [InvalidRequest]
    assert emulator.requests == []


async def test_a_request_that_the_guard_forbids_is_not_sent(emulator: Emulator) -> None:
    async with arena_client(emulator, guard=Guard(max_live=2)) as client:
        outcomes = await client.deploy_many(arena_requests(4)).all()

    assert sorted(type(outcome.error).__name__ for outcome in outcomes) == [
        "NoneType",
        "NoneType",
        "NotAllowed",
        "NotAllowed",
    ]
    assert requests_by_operation(emulator)["deploy"] == 2


@pytest.mark.parametrize(
    "options",
    [
        {"concurrency": 0},
        {"concurrency": 1.5},
        {"concurrency": None},
        {"timeout": 0},
        {"timeout": "soon"},
        {"timeout_each": -1},
        {"attempts": 0},
        {"on_failure": "explode"},
        {"playable": "yes"},
        {"retry_with": lambda request, _: request},  # attempts is 1
        {"retry_with": 3},
        {"on_progress": "yes"},
        {"on_progress": asyncio.sleep},
        {"on_progress": AsyncCallback()},
    ],
)
async def test_an_invalid_option_is_refused_at_once(
    client: EdgegapClient, options: dict[str, Any]
) -> None:
    [name] = options
    with pytest.raises(InvalidRequest, match=name):
        client.deploy_many(arena_requests(1), **options)


@pytest.mark.parametrize("requests", ["arena", arena_request(), {"application": "arena"}, 7])
async def test_requests_that_are_not_a_list_are_refused_at_once(
    client: EdgegapClient, requests: Any
) -> None:
    with pytest.raises(InvalidRequest, match="a list of DeployRequest"):
        client.deploy_many(requests)


async def test_a_batch_waits_for_the_rate_limits_also_with_on_limit_raise() -> None:
    async with (
        arena_cloud() as emulator,
        arena_client(emulator, limits={"deploy": 5}, on_limit="raise") as client,
    ):
        outcomes = await client.deploy_many(arena_requests(20)).all()
        with pytest.raises(LimitReached):
            await asyncio.gather(*(client.deploy("arena", "v1", users=PLAYERS) for _ in range(9)))

    assert all(outcome.is_ready for outcome in outcomes)


async def test_an_endless_iterator_ends_at_the_deadline() -> None:
    async with (
        arena_cloud(simulate=never_ready(True, True, True)) as emulator,
        arena_client(emulator) as client,
    ):
        began = loop_time()
        endless = itertools.repeat(arena_requests(1)[0])
        outcomes = await client.deploy_many(endless, timeout=5, concurrency=3).all()

        assert loop_time() - began < 6
        assert {type(outcome.error) for outcome in outcomes} == {WaitTimedOut}
        assert len(outcomes) <= 4


async def test_no_request_is_taken_from_an_iterator_after_the_deadline(
    emulator: Emulator, client: EdgegapClient
) -> None:
    async def one_request() -> AsyncIterator[DeployRequest]:
        yield arena_request()
        await asyncio.sleep(1000)

    outcomes = await client.deploy_many(one_request(), timeout=20).all()

    assert [outcome.is_ready for outcome in outcomes] == [True]


async def test_what_an_iterator_raises_at_the_deadline_is_logged(
    emulator: Emulator, client: EdgegapClient, caplog: pytest.LogCaptureFixture
) -> None:
    async def one_request() -> AsyncIterator[DeployRequest]:
        yield arena_request()
        try:
            await asyncio.sleep(1000)
        finally:
            raise ZeroDivisionError("mine")

    outcomes = await client.deploy_many(one_request(), timeout=20).all()

    assert [outcome.is_ready for outcome in outcomes] == [True]
    [line] = [one.getMessage() for one in caplog.records if one.levelname == "ERROR"]
    assert "the iterator of a batch has raised ZeroDivisionError('mine')" in line


async def test_an_iterator_that_raises_ends_the_batch_and_loses_no_outcome(
    emulator: Emulator,
) -> None:
    def requests() -> Iterator[DeployRequest]:
        yield arena_request()
        raise ZeroDivisionError("mine")

    async with arena_client(emulator) as client:
        async with client.deploy_many(requests(), concurrency=1) as batch:
            outcomes: list[Outcome] = []
            with pytest.raises(ZeroDivisionError, match="mine"):
                await collect(batch, outcomes)

        assert [outcome.is_ready for outcome in outcomes] in ([True], [False])
        assert alive(emulator) == ids(outcome for outcome in outcomes if outcome.is_ready)


@pytest.mark.parametrize("kind", ["invalid request", "cancelled task"])
async def test_an_iterator_that_ends_a_batch_leaves_no_deployment(
    emulator: Emulator, client: EdgegapClient, kind: str
) -> None:
    async def requests() -> AsyncIterator[Any]:
        yield arena_request()
        await asyncio.sleep(0.2)
        if kind == "cancelled task":
            await await_cancelled_task()
        yield {"application": "arena", "version": "v1", "users": map(float, ["x"])}

    async with client.deploy_many(requests()) as batch:
        outcomes: list[Outcome] = []
        with pytest.raises((ValueError, RuntimeError)):
            await collect(batch, outcomes)

        assert [type(outcome.error) for outcome in outcomes] == [BatchStopped]
    assert len(emulator.cloud.deployments) == 1
    assert alive(emulator) == set()
