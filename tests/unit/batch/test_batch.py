"""Many deployments at once: each request has its outcome, and what nobody was given is stopped.

The emulator's own record is the judge of what lives.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import random
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from emulated_cloud import alive, asked

from edgegap_async import (
    Batch,
    BatchStopped,
    ClientClosed,
    DeploymentFailed,
    DeploymentHandle,
    DeployRequest,
    EdgegapClient,
    EdgegapError,
    Guard,
    InvalidRequest,
    LimitReached,
    MaybeCreated,
    Outcome,
    PollingPolicy,
    Progress,
    Status,
    Unprocessable,
    WaitTimedOut,
)
from edgegap_async.emulator import (
    Application,
    AppPort,
    Delay,
    Drop,
    Emulator,
    Fault,
    Respond,
    Simulation,
    Timings,
)

pytestmark = pytest.mark.virtual

PLAYERS = [(48.9, 2.4)]
ARENA = Application(
    name="arena", version="v1", argv=["none"], ports=[AppPort("game")], time_to_deploy=3600
)


def a_request(number: int = 0, version: str = "v1", **more: Any) -> DeployRequest:
    tags = [f"match-{number}"]
    return DeployRequest(application="arena", version=version, users=PLAYERS, tags=tags, **more)


def some(count: int) -> list[DeployRequest]:
    return [a_request(number) for number in range(count)]


def silent(*fates: bool) -> Simulation:
    """Whether the first, second, … server to start never binds its port."""
    for seed in range(10_000):
        chance = random.Random(seed)
        draws = [
            (chance.random(), chance.random(), chance.random(), chance.random()) for _ in fates
        ]
        if [draw[2] < 0.5 for draw in draws] == list(fates):
            return Simulation(seed=seed, ready_after=(0.5, 3.0), silent=0.5)
    raise AssertionError("no such seed")


def a_cloud(**settings: Any) -> Emulator:
    simulation = settings.pop("simulate", Simulation(seed=7, ready_after=(0.5, 3.0)))
    given: dict[str, Any] = {"limits": False, "remember": 3600.0, **settings}
    return Emulator([ARENA], timings=Timings.fast(), simulate=simulation, **given)


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with a_cloud() as emulator:
        yield emulator


def a_client(emulator: Emulator, **more: Any) -> EdgegapClient:
    polling = PollingPolicy(first_delay=0.2, interval=0.2)
    limits = {"deploy": None, "get_deployment": None, "list_deployments": None}
    given: dict[str, Any] = {"limits": limits, "polling": polling, "list_delay": 2.0, **more}
    return EdgegapClient(emulator.token, base_url=emulator.url, **given)


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[EdgegapClient]:
    async with a_client(emulator) as client:
        yield client


def ids(outcomes: Any) -> set[str]:
    return {outcome.handle.request_id for outcome in outcomes if outcome.handle}


async def collect(batch: Batch, into: list[Outcome]) -> None:
    """Put there what comes, so that it can be seen also if an error ends it."""
    async for outcome in batch:
        into.append(outcome)  # noqa: PERF401


async def one_that_was_cancelled() -> None:
    """Raises CancelledError, though nobody cancels who waits here."""
    other = asyncio.create_task(asyncio.sleep(100))
    other.cancel()
    await other


class Asynchronous:
    """It has to be awaited, and nobody would."""

    async def __call__(self, _: Progress) -> None:
        pass


def now() -> float:
    return asyncio.get_running_loop().time()


# ── outcomes ─────────────────────────────────────────────────────────────────────────────────────


async def test_each_request_has_its_outcome_as_it_comes(
    emulator: Emulator, client: EdgegapClient
) -> None:
    requests = some(20)
    came = []
    async with client.deploy_many(requests) as batch:
        async for outcome in batch:
            assert outcome.is_ready
            assert outcome.request is requests[outcome.index]
            assert outcome.result().endpoint().port
            assert outcome.seconds is not None
            came.append(outcome)

    assert sorted(outcome.index for outcome in came) == list(range(20))
    assert [outcome.index for outcome in came] != list(range(20))
    in_order = sorted(one.seconds or 0 for one in came)
    assert [one.seconds for one in came] == pytest.approx(in_order, abs=0.001)
    assert alive(emulator) == ids(came)
    assert len(alive(emulator)) == 20


async def test_all_gives_them_in_the_order_of_the_requests(
    emulator: Emulator, client: EdgegapClient
) -> None:
    outcomes = await client.deploy_many(some(20)).all()

    assert [outcome.index for outcome in outcomes] == list(range(20))
    for outcome in outcomes:
        tags = emulator.cloud.deployments[outcome.result().request_id].tags
        assert f"match-{outcome.index}" in tags
    assert alive(emulator) == ids(outcomes)


async def test_all_gives_what_the_loop_was_not_given(client: EdgegapClient) -> None:
    async with client.deploy_many(some(5)) as batch:
        first = await anext(batch)
        rest = await batch.all()

        assert len(rest) == 4
        assert first.index not in [outcome.index for outcome in rest]
        with pytest.raises(StopAsyncIteration):
            await anext(batch)


async def test_what_the_loop_was_not_given_is_stopped_when_the_block_is_left(
    emulator: Emulator, client: EdgegapClient
) -> None:
    async with client.deploy_many(some(20)) as batch:
        given = [await anext(batch) for _ in range(3)]

    assert alive(emulator) == ids(given)


async def test_what_became_ready_and_was_not_taken_is_stopped(
    emulator: Emulator, client: EdgegapClient
) -> None:
    async with client.deploy_many(some(5)) as batch:
        async for progress in batch.progress():
            if progress.ready == 5:
                break

    assert len(emulator.cloud.deployments) == 5
    assert alive(emulator) == set()


async def test_what_becomes_ready_in_the_very_step_in_which_the_block_is_left_is_stopped(
    emulator: Emulator, client: EdgegapClient
) -> None:
    almost = asyncio.Event()

    async def in_the_next_step(_: DeploymentHandle) -> None:
        almost.set()
        await asyncio.sleep(0)

    async with client.deploy_many(some(1), playable=in_the_next_step):
        await almost.wait()

    assert len(emulator.cloud.deployments) == 1
    assert alive(emulator) == set()


async def test_what_may_exist_and_nobody_was_told_of_is_named_in_the_log(
    emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    async with a_client(emulator, list_delay=0.5) as client:
        emulator.faults.add(
            Fault("deploy", Drop(), when="acted", times=2),
            Fault("list_deployments", Respond(503), when="unread", times=None),
        )
        async with client.deploy_many(some(1)) as batch:
            async for _ in batch.progress():
                pass

    [made] = emulator.cloud.deployments.values()
    [tag] = [name for name in made.tags if name.startswith("op-")]
    assert f"may go on running: POST /v2/deployments (tag {tag})" in caplog.text


async def test_an_error_in_the_block_leaves_what_was_handed_over(
    emulator: Emulator, client: EdgegapClient
) -> None:
    given = []

    async def use() -> None:
        async with client.deploy_many(some(20)) as batch:
            async for outcome in batch:
                given.append(outcome)
                if len(given) == 2:
                    raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        await use()
    assert alive(emulator) == ids(given)
    assert len(given) == 2


@pytest.mark.parametrize("way", ["left", "error", "closed"])
async def test_what_was_given_for_the_block_only_is_stopped_at_its_end(
    emulator: Emulator, way: str
) -> None:
    client = a_client(emulator)

    async def use() -> None:
        async with client.deploy_many(some(5), stop_at_end=True) as batch:
            given = [await anext(batch), await anext(batch)]
            await asyncio.sleep(10)
            assert ids(given) < alive(emulator)
            await given[0].result().stop()  # of one's own accord
            if way == "error":
                raise ZeroDivisionError
            if way == "closed":
                await client.close()

    with contextlib.suppress(ZeroDivisionError):
        await use()
    assert alive(emulator) == set()
    await client.close()


async def test_what_is_given_for_a_block_only_needs_a_block(client: EdgegapClient) -> None:
    with pytest.raises(RuntimeError, match="needs a block"):
        await client.deploy_many(some(1), stop_at_end=True).all()


async def test_a_caller_who_goes_away_while_he_waits_for_all_is_given_nothing(
    emulator: Emulator, client: EdgegapClient
) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.5):
            await client.deploy_many(some(20)).all()

    assert alive(emulator) == set()


async def test_all_can_be_asked_for_again_after_a_time_out(client: EdgegapClient) -> None:
    async with client.deploy_many(some(5)) as batch:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await batch.all()

        assert len(await batch.all()) == 5


@pytest.mark.parametrize("kind", ["generator", "async generator", "mappings", "tuple"])
async def test_requests_come_from_anything_that_can_be_iterated(
    client: EdgegapClient, kind: str
) -> None:
    async def one_by_one() -> AsyncIterator[DeployRequest]:
        for request in some(4):
            await asyncio.sleep(0.5)
            yield request

    mapping = {"application": "arena", "version": "v1", "users": PLAYERS}
    requests: Any = {
        "generator": iter(some(4)),
        "async generator": one_by_one(),
        "mappings": [mapping] * 4,
        "tuple": tuple(some(4)),
    }[kind]
    async with client.deploy_many(requests) as batch:
        total = batch.progress_now.total
        outcomes = await batch.all()

        assert total == (4 if kind in {"mappings", "tuple"} else None)
        assert batch.progress_now.total == 4
    assert [outcome.is_ready for outcome in outcomes] == [True] * 4


async def test_no_requests_are_no_outcomes(client: EdgegapClient) -> None:
    assert await client.deploy_many([]).all() == ()
    async with client.deploy_many(iter(())) as batch:
        assert [outcome async for outcome in batch] == []
        assert batch.progress_now.time_left == 0


async def test_never_more_are_worked_on_than_the_concurrency(
    emulator: Emulator, client: EdgegapClient
) -> None:
    taken = 0

    def requests() -> Iterator[DeployRequest]:
        nonlocal taken
        for request in some(12):
            taken += 1
            yield request

    most = 0
    async with client.deploy_many(requests(), concurrency=3) as batch:
        async for progress in batch.progress(0.05):
            under_way = sum(progress.under_way.values())
            most = max(most, under_way)
            assert taken - progress.done <= 4  # one is in the hand
            assert under_way <= 3
        outcomes = await batch.all()

    assert most == 3
    assert len(alive(emulator)) == len(outcomes) == 12


# ── what cannot be sent ──────────────────────────────────────────────────────────────────────────


async def test_a_request_that_cannot_be_sent_fails_alone_and_is_named_by_its_index(
    emulator: Emulator, client: EdgegapClient
) -> None:
    bad: list[Any] = [
        {"application": "arena", "version": "v1", "users": ["nowhere"]},
        {"application": "arena", "version": "v1"},
        {"application": "arena", "version": "v1", "users": PLAYERS, "colour": "red"},
        "arena",
        None,
    ]
    outcomes = await client.deploy_many([*some(2), *bad]).all()

    assert [outcome.is_ready for outcome in outcomes] == [True, True] + [False] * 5
    for index, outcome in enumerate(outcomes[2:], start=2):
        assert isinstance(outcome.error, InvalidRequest)
        assert str(outcome.error).startswith(f"requests[{index}]: ")
        assert (outcome.attempts, outcome.handle) == (0, None)
        assert outcome.request is bad[index - 2]
    assert asked(emulator, "deploy") == 2


async def test_nothing_is_sent_if_a_bad_request_is_to_stop_all(
    emulator: Emulator, client: EdgegapClient
) -> None:
    requests: list[Any] = [*some(3), "arena"]
    outcomes = await client.deploy_many(requests, concurrency=1, on_failure="stop_all").all()

    assert [type(outcome.error) for outcome in outcomes] == [BatchStopped] * 3 + [InvalidRequest]
    assert emulator.requests == []


async def test_what_the_guard_forbids_fails_before_the_wire(emulator: Emulator) -> None:
    async with a_client(emulator, guard=Guard(max_live=2)) as client:
        outcomes = await client.deploy_many(some(4)).all()

    assert sorted(type(outcome.error).__name__ for outcome in outcomes) == [
        "NoneType",
        "NoneType",
        "NotAllowed",
        "NotAllowed",
    ]
    assert asked(emulator, "deploy") == 2


@pytest.mark.parametrize(
    "settings",
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
        {"retry_with": lambda request, _: request},  # and no second attempt
        {"retry_with": 3},
        {"on_progress": "yes"},
        {"on_progress": asyncio.sleep},
        {"on_progress": Asynchronous()},
    ],
)
async def test_what_cannot_be_meant_is_refused_at_once(
    client: EdgegapClient, settings: dict[str, Any]
) -> None:
    [name] = settings
    with pytest.raises(InvalidRequest, match=name):
        client.deploy_many(some(1), **settings)


@pytest.mark.parametrize("requests", ["arena", a_request(), {"application": "arena"}, 7])
async def test_requests_that_are_no_list_are_refused_at_once(
    client: EdgegapClient, requests: Any
) -> None:
    with pytest.raises(InvalidRequest, match="a list of DeployRequest"):
        client.deploy_many(requests)


async def test_an_elsewhere_that_is_none_ends_the_batch_and_is_named() -> None:
    def nowhere(*_: object) -> Any:
        return None

    async with a_cloud(simulate=silent(True)) as emulator, a_client(emulator) as client:
        batch = client.deploy_many(some(1), timeout_each=5, attempts=2, retry_with=nowhere)
        with pytest.raises(
            InvalidRequest, match="retry_with has to return a DeployRequest, not None"
        ):
            await batch.all()

        assert alive(emulator) == set()


async def test_progress_is_not_told_without_end_in_one_moment(client: EdgegapClient) -> None:
    async with client.deploy_many(some(1)) as batch:
        with pytest.raises(InvalidRequest, match="every must be above 0"):
            await anext(batch.progress(0))


async def test_a_batch_waits_for_the_limits_though_its_client_would_not() -> None:
    async with (
        a_cloud() as emulator,
        a_client(emulator, limits={"deploy": 5}, on_limit="raise") as client,
    ):
        outcomes = await client.deploy_many(some(20)).all()
        with pytest.raises(LimitReached):
            await asyncio.gather(*(client.deploy("arena", "v1", users=PLAYERS) for _ in range(9)))

    assert all(outcome.is_ready for outcome in outcomes)


async def test_a_batch_is_a_block_and_is_used_once(client: EdgegapClient) -> None:
    batch = client.deploy_many(some(1))
    with pytest.raises(RuntimeError, match="async with"):
        await anext(batch)
    async with batch:
        assert repr(batch) == "<Batch of 1: 0 ready, 0 failed>"
        await batch.all()
    with pytest.raises(RuntimeError, match="used once"):
        async with batch:
            pass


# ── failures ─────────────────────────────────────────────────────────────────────────────────────


def all_fail(**more: Any) -> Emulator:
    simulation = Simulation(failing=1.0, ready_after=(5.0, 5.0), fails_after=(0.5, 1.0))
    return a_cloud(simulate=simulation, **more)


async def test_what_fails_is_stopped_and_the_others_go_on() -> None:
    simulation = Simulation(seed=3, failing=0.4, ready_after=(3.0, 3.0), fails_after=(0.5, 2.0))
    async with a_cloud(simulate=simulation) as emulator, a_client(emulator) as client:
        outcomes = await client.deploy_many(some(20)).all()

        failed = [outcome for outcome in outcomes if not outcome.is_ready]
        assert 0 < len(failed) < 20
        for outcome in failed:
            assert isinstance(outcome.error, DeploymentFailed)
            assert outcome.error.logs is not None  # asked for before it went
            assert outcome.handle is not None
            assert outcome.seconds is None
            with pytest.raises(DeploymentFailed):
                outcome.result()
        assert alive(emulator) == ids(outcomes) - ids(failed)


async def test_what_fails_is_handed_over_if_it_is_to_be_kept() -> None:
    async with all_fail() as emulator, a_client(emulator) as client:
        async with client.deploy_many(some(3), on_failure="keep_going") as batch:
            first = await anext(batch)

        assert isinstance(first.error, DeploymentFailed)
        assert alive(emulator) == ids([first])


async def test_a_failure_stops_all_that_was_not_handed_over() -> None:
    async with a_cloud() as emulator, a_client(emulator) as client:
        requests = [*some(3), a_request(version="none"), *some(3)]
        async with client.deploy_many(
            iter(requests), concurrency=1, on_failure="stop_all"
        ) as batch:
            first = await anext(batch)
            rest = [outcome async for outcome in batch]

        by_index = {outcome.index: outcome.error for outcome in rest}
        cause = by_index.pop(3)
        assert type(cause).__name__ == "BadRequest"
        assert alive(emulator) == ids([first, *(o for o in rest if o.is_ready)])
        # The others were not taken from the iterator.
        assert 4 not in by_index


async def test_the_outcomes_of_those_that_were_stopped_say_why(emulator: Emulator) -> None:
    async with a_client(emulator) as client:
        emulator.faults.add(Fault("deploy", Respond(400), when="unread", skip=5))
        async with client.deploy_many(some(8), on_failure="stop_all") as batch:
            outcomes = await batch.all()

        assert len(outcomes) == 8
        kinds = [type(outcome.error).__name__ for outcome in outcomes]
        assert sorted(kinds) == ["BadRequest"] + ["BatchStopped"] * 7
        cause = next(o.error for o in outcomes if not isinstance(o.error, BatchStopped))
        for outcome in outcomes:
            assert outcome.error is cause or (outcome.error and outcome.error.__cause__ is cause)
    assert alive(emulator) == set()


async def stopped_by_a_400(emulator: Emulator) -> tuple[Outcome, Outcome, Outcome]:
    """The outcomes of one that was not READY yet, one that was, and one that was not begun."""
    emulator.faults.add(Fault("deploy", Respond(400), when="unread", skip=2))
    async with a_client(emulator) as client:
        requests = some(4)
        outcomes = await client.deploy_many(requests, concurrency=2, on_failure="stop_all").all()
        first, second, cause, fourth = outcomes
        assert type(cause.error).__name__ == "BadRequest"
        return first, second, fourth


async def test_those_that_were_stopped_with_the_batch_say_that_nothing_is_left() -> None:
    async with a_cloud(simulate=silent(True, False)) as emulator:
        *made, not_begun = await stopped_by_a_400(emulator)

        for outcome in made:
            assert isinstance(outcome.error, BatchStopped)
            assert outcome.error.stopped
            assert str(outcome.error).endswith("It was stopped")
            assert not hasattr(outcome.error, "__notes__")
        assert isinstance(not_begun.error, BatchStopped)
        assert str(not_begun.error).endswith("unless the log says so: deploy it again")
        assert alive(emulator) == set()


async def test_those_that_could_not_be_stopped_with_the_batch_have_a_note_of_it() -> None:
    async with a_cloud(simulate=silent(True, False)) as emulator:
        emulator.faults.add(Fault("stop_deployment", Respond(403), when="unread", times=None))
        *made, not_begun = await stopped_by_a_400(emulator)

        for outcome in made:
            assert isinstance(outcome.error, BatchStopped)
            assert not outcome.error.stopped
            assert "Nothing is left" not in str(outcome.error)
            [note] = outcome.error.__notes__
            assert note.startswith(f"and {outcome.error.request_id} could not be stopped: DELETE")
        assert not hasattr(not_begun.error, "__notes__")
        assert alive(emulator) == ids(made)


@pytest.mark.parametrize("stops", [True, False])
async def test_those_that_close_stops_say_how_that_went(*, stops: bool) -> None:
    async with a_cloud(simulate=silent(True, True)) as emulator, a_client(emulator) as client:
        outcomes: list[Outcome] = []

        async def wait() -> None:
            async with client.deploy_many(some(2)) as batch:
                with pytest.raises(ClientClosed):
                    await collect(batch, outcomes)

        waiting = asyncio.create_task(wait())
        while client.poller.stats.waiting < 2:
            await asyncio.sleep(0.01)
        if not stops:
            emulator.faults.add(Fault("stop_deployment", Respond(403), when="unread", times=None))
        await client.close()
        await waiting

        assert [type(outcome.error) for outcome in outcomes] == [BatchStopped] * 2
        for outcome in outcomes:
            assert outcome.error is not None
            assert outcome.error.stopped is stops
            assert hasattr(outcome.error, "__notes__") is not stops


async def test_an_endless_source_of_requests_ends_with_the_time() -> None:
    async with a_cloud(simulate=silent(True, True, True)) as emulator, a_client(emulator) as client:
        began = now()
        endless = itertools.repeat(some(1)[0])
        outcomes = await client.deploy_many(endless, timeout=5, concurrency=3).all()

        assert now() - began < 6
        assert {type(outcome.error) for outcome in outcomes} == {WaitTimedOut}
        assert len(outcomes) <= 4


async def test_one_that_had_failed_by_itself_keeps_its_own_error_when_all_are_stopped() -> None:
    """Its logs were being fetched when the failure of another stopped the batch."""
    simulation = Simulation(failing=1.0, ready_after=(50.0, 50.0), fails_after=(3.0, 6.0))
    async with a_cloud(simulate=simulation) as emulator, a_client(emulator) as client:
        emulator.faults.add(Fault("get_container_logs", Delay(100)))
        began = now()
        outcomes = await client.deploy_many(some(2), on_failure="stop_all").all()

        assert now() - began < 10  # it did not wait for those logs
        for outcome in outcomes:
            assert isinstance(outcome.error, DeploymentFailed)
            assert outcome.error.stopped
        assert alive(emulator) == set()


async def test_what_is_ready_and_not_taken_is_stopped_with_the_others() -> None:
    async with (
        a_cloud(simulate=silent(False, True)) as emulator,
        a_client(emulator) as client,
    ):
        async with client.deploy_many(
            some(2), on_failure="stop_all", timeout_each=20, concurrency=1
        ) as batch:
            outcomes = await batch.all()

            assert [type(o.error) for o in outcomes] == [BatchStopped, WaitTimedOut]
            assert isinstance(outcomes[0].error, BatchStopped)
            assert outcomes[0].error.last_status is Status.READY
            assert (batch.progress_now.ready, batch.progress_now.failed) == (0, 2)
        assert alive(emulator) == set()


# ── again ────────────────────────────────────────────────────────────────────────────────────────


async def test_a_failed_one_is_stopped_and_deployed_again_elsewhere() -> None:
    seen = []
    simulation = Simulation(failing=1.0, ready_after=(2.0, 2.0), fails_after=(0.5, 1.0))
    async with a_cloud(simulate=simulation) as cloud, a_client(cloud) as client:

        def elsewhere(_: DeployRequest, error: EdgegapError) -> DeployRequest:
            seen.append(error)
            assert alive(cloud) == set()  # the failed one is stopped first
            return a_request(99)

        [outcome] = await client.deploy_many(some(1), attempts=3, retry_with=elsewhere).all()

        assert outcome.attempts == 3
        assert outcome.request == a_request(99)
        assert [type(error) for error in seen] == [DeploymentFailed] * 2
        assert len(cloud.cloud.deployments) == 3
        assert alive(cloud) == set()


async def test_one_that_is_never_ready_is_given_up_after_its_time_and_deployed_again() -> None:
    async with (
        a_cloud(simulate=silent(True, False)) as emulator,
        a_client(emulator) as client,
    ):
        [outcome] = await client.deploy_many(some(1), attempts=2, timeout_each=10).all()

        assert (outcome.is_ready, outcome.attempts) == (True, 2)
        assert 10 < (outcome.seconds or 0) < 15
        assert alive(emulator) == ids([outcome])


async def test_row_21_what_a_422_has_made_is_stopped_and_tried_again() -> None:
    async with a_cloud(max_deployments=0) as emulator, a_client(emulator) as client:
        [outcome] = await client.deploy_many(some(1), attempts=2).all()

        assert isinstance(outcome.error, Unprocessable)
        assert outcome.attempts == 2
        assert asked(emulator, "deploy") == 2
        assert len(emulator.cloud.deployments) == asked(emulator, "stop_deployment")
        assert alive(emulator) == set()


async def test_row_21_what_a_422_has_made_is_handed_over_if_failures_are_to_be_kept() -> None:
    async with a_cloud(max_deployments=0) as emulator, a_client(emulator) as client:
        [outcome] = await client.deploy_many(some(1), on_failure="keep_going").all()

        assert isinstance(outcome.error, Unprocessable)
        assert outcome.handle is not None
        assert alive(emulator) == ids([outcome])


async def test_what_may_exist_is_not_deployed_again(emulator: Emulator) -> None:
    async with a_client(emulator, list_delay=0.5) as client:
        emulator.faults.add(
            Fault("deploy", Drop(), when="read", times=2),
            Fault("list_deployments", Respond(503), when="unread", times=None),
        )
        [outcome] = await client.deploy_many(some(1), attempts=5).all()

    assert isinstance(outcome.error, MaybeCreated)
    assert outcome.attempts == 1


async def test_an_elsewhere_that_fails_ends_the_batch() -> None:
    def elsewhere(request: DeployRequest, error: EdgegapError) -> DeployRequest:
        raise ZeroDivisionError("mine")

    async with (
        a_cloud(simulate=silent(False, True)) as emulator,
        a_client(emulator) as client,
    ):
        async with client.deploy_many(
            some(2), attempts=2, timeout_each=10, retry_with=elsewhere
        ) as batch:
            with pytest.raises(ZeroDivisionError, match="mine"):
                await batch.all()
            outcomes: list[Outcome] = []
            with pytest.raises(ZeroDivisionError, match="mine"):
                await collect(batch, outcomes)

            assert {type(outcome.error) for outcome in outcomes} == {BatchStopped, WaitTimedOut}
        assert alive(emulator) == set()


# ── the end of it ────────────────────────────────────────────────────────────────────────────────


async def test_at_the_deadline_what_is_not_ready_has_timed_out() -> None:
    async with (
        a_cloud(simulate=silent(False, True, False, False)) as emulator,
        a_client(emulator) as client,
    ):
        began = now()
        outcomes = await client.deploy_many(some(4), timeout=10).all()

        assert 10 <= now() - began < 11
        late = [outcome for outcome in outcomes if not outcome.is_ready]
        assert [type(outcome.error) for outcome in late] == [WaitTimedOut]
        assert alive(emulator) == ids(outcomes) - ids(late)


async def test_what_was_not_begun_at_the_deadline_says_so() -> None:
    async with a_cloud(simulate=silent(True)) as emulator, a_client(emulator) as client:
        outcomes = await client.deploy_many(some(3), timeout=5, concurrency=1).all()

        assert [type(outcome.error) for outcome in outcomes] == [WaitTimedOut] * 3
        assert "nothing was sent" in str(outcomes[2].error)
        assert "billed" not in str(outcomes[2].error)
        assert "It was stopped" in str(outcomes[0].error)
        assert asked(emulator, "deploy") == 1


async def test_what_waits_for_a_slot_at_the_deadline_is_told_then_though_none_is_free() -> None:
    async with a_cloud(simulate=silent(True)) as emulator, a_client(emulator) as client:
        emulator.faults.add(Fault("stop_deployment", Delay(20)))
        began, told = now(), dict[int, float]()
        async with client.deploy_many(some(3), timeout=5, concurrency=1) as batch:
            async for outcome in batch:
                assert isinstance(outcome.error, WaitTimedOut)
                told[outcome.index] = now() - began

        assert [told[1], told[2]] == pytest.approx([5, 5], abs=0.1)
        assert told[0] > 20  # it has the slot until it is stopped


@pytest.mark.parametrize(("limit", "least"), [(10, 10), (None, 15)])
async def test_logs_that_hang_are_waited_for_ten_seconds_and_never_beyond_the_deadline(
    limit: float | None, least: float
) -> None:
    simulation = Simulation(failing=1.0, ready_after=(50.0, 50.0), fails_after=(5.0, 5.0))
    async with a_cloud(simulate=simulation) as emulator, a_client(emulator) as client:
        emulator.faults.add(Fault("get_container_logs", Delay(1000), times=None))
        began = now()
        outcomes = await client.deploy_many(some(3), timeout=limit).all()

        assert least <= now() - began < least + 2
        for outcome in outcomes:
            assert isinstance(outcome.error, DeploymentFailed)
            assert outcome.error.logs is None
        assert alive(emulator) == set()


async def test_at_the_deadline_nothing_more_is_taken_from_an_iterator(
    emulator: Emulator, client: EdgegapClient
) -> None:
    async def one_and_no_other() -> AsyncIterator[DeployRequest]:
        yield a_request()
        await asyncio.sleep(1000)

    outcomes = await client.deploy_many(one_and_no_other(), timeout=20).all()

    assert [outcome.is_ready for outcome in outcomes] == [True]


async def test_an_iterator_that_fails_ends_the_batch_and_loses_no_outcome(
    emulator: Emulator,
) -> None:
    def requests() -> Iterator[DeployRequest]:
        yield a_request()
        raise ZeroDivisionError("mine")

    async with a_client(emulator) as client:
        async with client.deploy_many(requests(), concurrency=1) as batch:
            outcomes: list[Outcome] = []
            with pytest.raises(ZeroDivisionError, match="mine"):
                await collect(batch, outcomes)

        assert [outcome.is_ready for outcome in outcomes] in ([True], [False])
        assert alive(emulator) == ids(one for one in outcomes if one.is_ready)


@pytest.mark.parametrize("kind", ["a request that cannot be made", "a stray cancellation"])
async def test_whatever_an_iterator_fails_with_nothing_is_left_to_nobody(
    emulator: Emulator, client: EdgegapClient, kind: str
) -> None:
    async def requests() -> AsyncIterator[Any]:
        yield a_request()
        await asyncio.sleep(0.2)
        if kind == "a stray cancellation":
            await one_that_was_cancelled()
        yield {"application": "arena", "version": "v1", "users": map(float, ["x"])}

    async with client.deploy_many(requests()) as batch:
        outcomes: list[Outcome] = []
        with pytest.raises((ValueError, RuntimeError)):
            await collect(batch, outcomes)

        assert [type(outcome.error) for outcome in outcomes] == [BatchStopped]
    assert len(emulator.cloud.deployments) == 1
    assert alive(emulator) == set()


async def test_what_ended_a_batch_is_raised_also_if_its_stops_are_under_way(
    emulator: Emulator, client: EdgegapClient
) -> None:
    async def requests() -> AsyncIterator[DeployRequest]:
        yield a_request()
        await asyncio.sleep(1)
        raise ZeroDivisionError

    emulator.faults.add(Fault("stop_deployment", Delay(2)))
    with pytest.raises(ZeroDivisionError):
        async with client.deploy_many(requests()):
            await asyncio.sleep(2)
    assert alive(emulator) == set()


async def test_one_whose_task_somebody_else_cancels_is_stopped_at_the_end_of_the_block(
    emulator: Emulator, client: EdgegapClient
) -> None:
    before = asyncio.all_tasks()
    async with client.deploy_many(some(1)) as batch:
        await asyncio.sleep(0.3)
        assert alive(emulator)
        for task in asyncio.all_tasks() - before:
            if "JobRunner._run_job" in repr(task):
                task.cancel()
        assert await batch.all() == ()
    assert alive(emulator) == set()


async def test_what_ended_a_batch_is_raised_by_the_block_if_nobody_was_told(
    client: EdgegapClient,
) -> None:
    def requests() -> Iterator[DeployRequest]:
        yield a_request(1 // 0)

    async def watch() -> None:
        async with client.deploy_many(requests()) as batch:
            async for _ in batch.progress():
                pass

    with pytest.raises(ZeroDivisionError):
        await watch()


async def test_what_ended_a_batch_is_noted_on_an_error_of_the_block(
    emulator: Emulator, client: EdgegapClient
) -> None:
    def elsewhere(request: DeployRequest, error: EdgegapError) -> DeployRequest:
        raise ValueError("no place")

    async def use() -> None:
        async with client.deploy_many(some(1), attempts=2, retry_with=elsewhere) as batch:
            async for _ in batch.progress():
                pass
            raise LookupError

    emulator.faults.add(Fault("deploy", Respond(422), when="unread"))
    with pytest.raises(LookupError) as caught:
        await use()

    assert caught.value.__notes__ == ["the batch had ended with ValueError('no place')"]


async def test_row_31_a_client_that_is_closed_ends_it_and_stops_what_was_not_handed_over(
    emulator: Emulator,
) -> None:
    client = a_client(emulator)
    given: list[Outcome] = []

    async def use() -> None:
        async with client.deploy_many(some(20)) as batch:
            await collect(batch, given)

    using = asyncio.create_task(use())
    await asyncio.sleep(1.5)
    await client.close()
    with pytest.raises(ClientClosed):
        await using

    ready = [outcome for outcome in given if outcome.is_ready]
    assert 0 < len(ready) < 20
    assert len(given) == 20  # of the others it was told that they are stopped
    assert alive(emulator) == ids(ready)


async def test_row_31_what_a_client_has_stopped_as_it_closed_is_not_given_as_ready(
    emulator: Emulator,
) -> None:
    client = a_client(emulator)
    async with client.deploy_many(some(3)) as batch:
        first = await anext(batch)
        async for progress in batch.progress():
            assert progress.failed == 0
        await asyncio.sleep(1)
        await client.close()  # when there was nothing left to do for the batch
        second = await anext(batch)
        [third] = await batch.all()

        assert [type(one.error) for one in (second, third)] == [BatchStopped] * 2
        assert (batch.progress_now.ready, batch.progress_now.failed) == (1, 2)
    assert alive(emulator) == ids([first])


async def test_row_31_a_batch_of_a_closed_client_deploys_nothing(emulator: Emulator) -> None:
    client = a_client(emulator)
    await client.close()
    with pytest.raises(ClientClosed):
        await client.deploy_many(some(2)).all()
    assert emulator.requests == []


async def test_what_cannot_be_stopped_is_told_at_the_end_of_the_block(emulator: Emulator) -> None:
    async def use(client: EdgegapClient) -> None:
        async with client.deploy_many(some(2)) as batch:
            await anext(batch)
            emulator.faults.add(Fault("stop_deployment", Respond(403), when="unread"))

    async with a_client(emulator) as client:
        with pytest.raises(ExceptionGroup, match="could not be stopped"):
            await use(client)


# ── progress ─────────────────────────────────────────────────────────────────────────────────────


async def test_progress_counts_by_status_and_tells_rate_and_time_left(
    emulator: Emulator, client: EdgegapClient
) -> None:
    told: list[Progress] = []
    async with client.deploy_many(some(40), concurrency=10, on_progress=told.append) as batch:
        seen = [progress async for progress in batch.progress(0.25)]
        await batch.all()

    for progress in (*told, *seen):
        under_way = sum(progress.under_way.values())
        assert progress.total == 40
        assert progress.waiting is not None
        assert progress.waiting + under_way + progress.done == 40
    assert [one.done for one in seen] == sorted(one.done for one in seen)
    first, last = seen[0], seen[-1]
    assert (first.waiting, first.done, first.rate, first.time_left) == (40, 0, 0.0, None)
    assert (last.waiting, last.ready, last.failed, last.time_left) == (0, 40, 0, 0.0)
    assert told[-1].ready == 40
    statuses = {status for progress in seen for status in progress.under_way}
    assert Status.DEPLOYING in statuses
    middle = next(one for one in seen if one.done >= 20)
    assert middle.rate == pytest.approx(middle.done / middle.elapsed, rel=0.01)
    assert middle.time_left == pytest.approx((40 - middle.done) / middle.rate)
    assert last.elapsed == pytest.approx(40 / last.rate, rel=0.01)


async def test_the_rate_is_that_of_the_last_ten_seconds(client: EdgegapClient) -> None:
    async def with_a_break() -> AsyncIterator[DeployRequest]:
        for number in range(10):
            yield a_request(number)
        await asyncio.sleep(60)
        yield a_request()

    async with client.deploy_many(with_a_break()) as batch:
        async for progress in batch.progress(1.0):
            if progress.elapsed > 30:
                assert (progress.total, progress.waiting, progress.time_left) == (None, None, None)
                assert progress.rate == 0.0
                break


async def test_how_many_there_are_is_known_as_soon_as_an_iterator_has_ended(
    client: EdgegapClient,
) -> None:
    async with client.deploy_many(iter(some(10))) as batch:
        seen = [progress async for progress in batch.progress(0.25)]

    under_way = [progress for progress in seen if progress.under_way]
    assert {(progress.total, progress.waiting) for progress in under_way} == {(10, 0)}
    assert any(progress.time_left for progress in under_way)


async def test_the_end_of_a_batch_that_a_failure_has_stopped_is_told(
    emulator: Emulator, client: EdgegapClient
) -> None:
    told: list[Progress] = []
    emulator.faults.add(Fault("deploy", Respond(400), when="unread", skip=5))
    outcomes = await client.deploy_many(
        some(8), on_failure="stop_all", on_progress=told.append
    ).all()

    assert len(outcomes) == 8
    last = told[-1]
    assert (last.ready, last.failed, last.waiting, last.under_way) == (0, 8, 0, {})


async def test_an_on_progress_that_fails_ends_the_batch(emulator: Emulator) -> None:
    def on_progress(progress: Progress) -> None:
        if progress.elapsed > 1:
            raise ZeroDivisionError("mine")

    async with a_client(emulator) as client:
        with pytest.raises(ZeroDivisionError, match="mine"):
            await client.deploy_many(some(5), on_progress=on_progress).all()
    assert alive(emulator) == set()


# ── and the rest ─────────────────────────────────────────────────────────────────────────────────


async def test_a_check_decides_whether_it_is_playable(
    emulator: Emulator, client: EdgegapClient
) -> None:
    async def every_second(server: DeploymentHandle) -> None:
        if "match-1" in emulator.cloud.deployments[server.request_id].tags:
            raise OSError("no map")

    outcomes = await client.deploy_many(some(3), playable=every_second).all()

    assert [type(outcome.error).__name__ for outcome in outcomes] == [
        "NoneType",
        "NotPlayable",
        "NoneType",
    ]
    assert "no map" in str(outcomes[1].error)
    assert alive(emulator) == ids(outcome for outcome in outcomes if outcome.is_ready)


@pytest.mark.parametrize("on_progress", [None, lambda _: None], ids=["alone", "with progress"])
async def test_a_check_that_awaits_what_was_cancelled_is_tried_again(
    emulator: Emulator, client: EdgegapClient, on_progress: Any
) -> None:
    checked = 0

    async def on_a_shared_connection(_: DeploymentHandle) -> None:
        nonlocal checked
        checked += 1
        if checked == 1:
            await one_that_was_cancelled()

    async with asyncio.timeout(60):
        outcomes = await client.deploy_many(
            some(3), playable=on_a_shared_connection, on_progress=on_progress
        ).all()

    assert [outcome.is_ready for outcome in outcomes] == [True] * 3
    assert alive(emulator) == ids(outcomes)


async def test_an_elsewhere_that_raises_a_cancellation_ends_the_batch(
    emulator: Emulator, client: EdgegapClient
) -> None:
    def elsewhere(request: DeployRequest, error: EdgegapError) -> DeployRequest:
        raise asyncio.CancelledError

    emulator.faults.add(Fault("deploy", Respond(422), when="unread"))
    with pytest.raises(RuntimeError, match="was cancelled"):
        await client.deploy_many(some(2), attempts=2, retry_with=elsewhere).all()
    assert alive(emulator) == set()


async def test_all_that_a_request_says_is_sent(emulator: Emulator, client: EdgegapClient) -> None:
    request = a_request(environment_variables={"MAP": "desert"}, require_cached_locations=True)
    [outcome] = await client.deploy_many([request]).all()

    made = emulator.cloud.deployments[outcome.result().request_id]
    assert "match-0" in made.tags
    assert [one.key for one in made.request.environment_variables] == ["MAP"]


async def test_nothing_of_a_batch_is_left_in_the_loop(emulator: Emulator) -> None:
    before = asyncio.all_tasks()
    async with (
        a_client(emulator) as client,
        client.deploy_many(some(5), on_progress=lambda _: None) as batch,
    ):
        await anext(batch)
    await asyncio.sleep(1)
    gc.collect()
    left = {task for task in asyncio.all_tasks() - before if "edgegap_async/batch" in repr(task)}
    assert not left
