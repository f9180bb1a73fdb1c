"""One server for one deploy, whichever answer is lost, by the emulator's own record.

The numbers in names are the rows of faults that this package promises to survive.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta

import pytest
from emulator_record import living, requests_by_operation

from edgegap_async import EdgegapClient, PollingPolicy, RetryPolicy, Timeouts
from edgegap_async.deployments.idempotency import new_operation_tag, operation_time
from edgegap_async.emulator import (
    Delay,
    Drop,
    Emulator,
    Fault,
    Hide,
    ProxyPage,
    Raw,
    Respond,
    Timings,
    Truncate,
    WrongLength,
    sample_application,
)
from edgegap_async.emulator.effects import Effect
from edgegap_async.errors import (
    BadRequest,
    CallError,
    MaybeCreated,
    NoAnswer,
    ServerError,
    Unprocessable,
)

USERS = ["8.8.8.8"]
QUICK = RetryPolicy(attempts=2, first_wait=0.01)


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with Emulator([sample_application()], timings=Timings.fast(), limits=False) as emulator:
        yield emulator


Connect = Callable[..., AbstractAsyncContextManager[EdgegapClient]]


@pytest.fixture
def connect(emulator: Emulator) -> Connect:
    @contextlib.asynccontextmanager
    async def connect(list_delay: float = 0.3) -> AsyncIterator[EdgegapClient]:
        async with EdgegapClient(
            emulator.token,
            base_url=emulator.url,
            list_delay=list_delay,
            retries=QUICK,
            polling=PollingPolicy(first_delay=0.01, interval=0.02),
        ) as client:
            yield client

    return connect


LOST: list[Effect] = [
    Drop(),
    Drop(reset=False),
    Truncate(body_bytes=0),
    Truncate(body_bytes=9),
    WrongLength(-9),
    Raw(b"SSH-2.0-OpenSSH_9.2"),
    ProxyPage(408, "haproxy"),
    ProxyPage(499),
    ProxyPage(504, "gateway"),
    *(Respond(status) for status in (500, 502, 503, 504)),
    Respond.html(),
    Respond(202, "{"),
    Respond(202, {"message": "accepted"}),
    Respond(202, "<html>", {"Content-Type": "text/html"}),
    Respond(202, b" " * 9_000_000),
]


@pytest.mark.parametrize("what", LOST, ids=str)
async def test_row_06_10_11_15_a_deployment_whose_answer_is_lost_is_found_by_its_tag(
    emulator: Emulator, connect: Connect, what: Effect
) -> None:
    emulator.faults.add(Fault("deploy", what))
    async with connect() as client:
        async with client.run("arena", "v1", users=USERS, tags=["eu"]) as server:
            assert living(emulator) == {server.request_id}

        assert not living(emulator)
    assert requests_by_operation(emulator)["deploy"] == 1


@pytest.mark.parametrize("what", [Drop(), Drop(reset=False), Respond(503), Respond.html()], ids=str)
@pytest.mark.parametrize("when", ["unread", "read"])
async def test_row_06_a_deploy_that_made_nothing_is_sent_once_more(
    emulator: Emulator, connect: Connect, what: Effect, when: str
) -> None:
    emulator.faults.add(Fault("deploy", what, when=when))  # type: ignore[arg-type]
    async with connect() as client:
        server = await client.deploy("arena", "v1", users=USERS)

        assert living(emulator) == {server.request_id}
    assert requests_by_operation(emulator)["deploy"] == 2


async def test_row_09_an_answer_that_takes_too_long_is_found(emulator: Emulator) -> None:
    emulator.faults.add(Fault("deploy", Delay(30)))
    async with EdgegapClient(
        emulator.token, base_url=emulator.url, timeouts=Timeouts(total=0.2)
    ) as client:
        server = await client.deploy("arena", "v1", users=USERS)

        assert living(emulator) == {server.request_id}
    assert requests_by_operation(emulator)["deploy"] <= 1  # it is recorded when it is answered


async def test_row_18_a_deployment_that_the_list_shows_late_is_found(
    emulator: Emulator, connect: Connect
) -> None:
    emulator.faults.add(Fault("deploy", Drop()), Fault("list_deployments", Hide(0.5), times=None))
    async with connect(list_delay=5) as client:
        server = await client.deploy("arena", "v1", users=USERS)

        assert living(emulator) == {server.request_id}
    assert requests_by_operation(emulator)["deploy"] == 1


async def test_a_deployment_that_shows_up_after_the_list_delay_is_stopped(
    emulator: Emulator, connect: Connect
) -> None:
    emulator.faults.add(Fault("deploy", Drop()), Fault("list_deployments", Hide(0.8), times=None))
    async with connect(list_delay=0.5) as client:
        server = await client.deploy("arena", "v1", users=USERS)
        assert len(living(emulator)) == 2
        async with asyncio.timeout(10):
            while len(living(emulator)) > 1:
                await asyncio.sleep(0.02)

        assert living(emulator) == {server.request_id}


@pytest.mark.parametrize("second", [Respond(400), Respond(401)], ids=str)
async def test_a_deployment_that_shows_up_after_a_refused_second_attempt_is_stopped(
    emulator: Emulator, connect: Connect, second: Effect
) -> None:
    emulator.faults.add(
        Fault("deploy", Drop()),
        Fault("deploy", second, when="read"),
        Fault("list_deployments", Hide(0.8), times=None),
    )
    async with connect(list_delay=0.5) as client:
        with pytest.raises(CallError):
            await client.deploy("arena", "v1", users=USERS)
        assert len(living(emulator)) == 1
        async with asyncio.timeout(10):
            while living(emulator):
                await asyncio.sleep(0.02)


async def test_the_deployment_of_a_422_to_the_second_attempt_is_left_to_the_caller() -> None:
    async with Emulator([sample_application()], timings=Timings.fast(), max_deployments=0) as full:
        full.faults.add(Fault("deploy", Drop(), when="read"))
        async with EdgegapClient(
            full.token, base_url=full.url, list_delay=0.2, retries=QUICK
        ) as client:
            with pytest.raises(Unprocessable) as refused:
                await client.deploy("arena", "v1", users=USERS)
        # The end of the block has waited for the search for a surplus deployment.
        assert living(full) == {refused.value.request_id}


async def test_a_second_attempt_queues_for_the_rate_limit_despite_on_limit_raise(
    emulator: Emulator,
) -> None:
    emulator.faults.add(Fault("deploy", Drop(), when="read"))
    async with EdgegapClient(
        emulator.token,
        base_url=emulator.url,
        limits={"deploy": 1},
        on_limit="raise",
        list_delay=0.0,
        retries=QUICK,
    ) as client:
        server = await client.deploy("arena", "v1", users=USERS)

        assert server.attempts == 2
        assert living(emulator) == {server.request_id}


async def test_one_of_two_deployments_that_show_up_is_stopped(
    emulator: Emulator, connect: Connect
) -> None:
    emulator.faults.add(
        Fault("deploy", Drop(), times=2), Fault("list_deployments", Hide(0.6), times=None)
    )
    async with connect(list_delay=0.5) as client:
        server = await client.deploy("arena", "v1", users=USERS)
        async with asyncio.timeout(10):
            while len(living(emulator)) > 1:
                await asyncio.sleep(0.02)

        assert living(emulator) == {server.request_id}
    assert requests_by_operation(emulator)["deploy"] == 2


async def test_the_error_names_the_tag_if_the_list_request_fails(
    emulator: Emulator, connect: Connect
) -> None:
    emulator.faults.add(
        Fault("deploy", Drop()), Fault("list_deployments", Respond(500), times=None)
    )
    async with connect() as client:
        with pytest.raises(MaybeCreated, match="may exist") as caught:
            await client.deploy("arena", "v1", users=USERS)

    [made] = emulator.cloud.deployments.values()
    assert caught.value.operation_tag in made.tags
    assert str(caught.value.operation_tag) in str(caught.value)
    assert caught.value.maybe_created
    assert requests_by_operation(emulator)["deploy"] == 1


async def test_the_error_names_the_tag_if_no_deployment_shows_up_twice(
    emulator: Emulator, connect: Connect
) -> None:
    emulator.faults.add(Fault("deploy", Drop(), when="read", times=None))
    async with connect() as client:
        with pytest.raises(MaybeCreated, match="no deployment with its tag shows up"):
            await client.deploy("arena", "v1", users=USERS)

    assert requests_by_operation(emulator)["deploy"] == 2


async def test_the_refusal_of_a_second_attempt_is_raised(
    emulator: Emulator, connect: Connect
) -> None:
    emulator.faults.add(
        Fault("deploy", Drop(), when="read"), Fault("deploy", Respond(400), when="read")
    )
    async with connect() as client:
        with pytest.raises(BadRequest) as refusal:
            await client.deploy("arena", "v1", users=USERS)

    assert not refusal.value.maybe_created
    assert refusal.value.operation_tag is not None


async def test_a_cancelled_deploy_is_not_sent_once_more(
    emulator: Emulator, connect: Connect
) -> None:
    emulator.faults.add(Fault("deploy", Drop(), when="read"))
    async with connect() as client:
        deploying = asyncio.create_task(client.deploy("arena", "v1", users=USERS))
        async with asyncio.timeout(10):
            while not any(one.operation == "list_deployments" for one in emulator.requests):
                await asyncio.sleep(0.005)
        deploying.cancel()
        with pytest.raises(asyncio.CancelledError):
            await deploying

    assert requests_by_operation(emulator)["deploy"] == 1
    assert not living(emulator)


async def test_a_deployment_of_another_program_is_not_adopted_if_the_api_ignores_the_filter(
    emulator: Emulator, connect: Connect
) -> None:
    foreign = {"data": [{"request_id": "0123456789ab", "tags": ["op-another"]}]}
    emulator.faults.add(
        Fault("deploy", Drop(), when="read"),
        Fault("list_deployments", Respond(200, foreign), times=None),
    )
    async with connect() as client:
        server = await client.deploy("arena", "v1", users=USERS)

    assert server.request_id != "0123456789ab"
    assert requests_by_operation(emulator)["deploy"] == 2


async def test_without_the_tag_a_lost_answer_raises_and_there_is_no_list_request(
    emulator: Emulator, connect: Connect
) -> None:
    emulator.faults.add(Fault("deploy", Drop(), times=2))
    async with connect() as client:
        for deploy in (
            client.deploy("arena", "v1", users=USERS, operation_tag=False),
            client.deployments.deploy("arena", "v1", users=USERS),
        ):
            with pytest.raises(NoAnswer) as lost:
                await deploy
            assert lost.value.maybe_created
            assert lost.value.operation_tag is None

    assert {request.operation for request in emulator.requests} == {"deploy"}
    assert [tuple(one.tags) for one in emulator.cloud.deployments.values()] == [(), ()]


async def test_a_refusal_is_not_ambiguous(emulator: Emulator, connect: Connect) -> None:
    async with connect() as client:
        with pytest.raises(BadRequest) as refusal:
            await client.deploy("arena", "v404", users=USERS)

    assert not refusal.value.maybe_created
    assert requests_by_operation(emulator)["deploy"] == 1


async def test_a_redirect_is_not_ambiguous(emulator: Emulator, connect: Connect) -> None:
    emulator.faults.add(
        Fault("deploy", Respond(307, headers={"Location": "http://192.0.2.1/"}), when="read")
    )
    async with connect() as client:
        with pytest.raises(Exception, match="not followed") as refusal:
            await client.deploy("arena", "v1", users=USERS)

    assert not getattr(refusal.value, "maybe_created", True)


async def test_a_read_is_never_maybe_created(emulator: Emulator, connect: Connect) -> None:
    emulator.faults.add(Fault("list_locations", Respond(500), times=None))
    async with connect() as client:
        with pytest.raises(ServerError) as failure:
            await client.locations.list()

    assert not failure.value.maybe_created


def test_operation_tags_are_unique_and_contain_the_time() -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    tags = {new_operation_tag() for _ in range(1000)}

    assert len(tags) == 1000
    for tag in tags:
        assert len(tag) == 20
        made = operation_time(tag)
        assert made is not None
        assert before <= made <= before + timedelta(seconds=5)


@pytest.mark.parametrize(
    "tag", ["", "ranked", "op-", "op-toz", "xx-tozbod0wkwdqv58cv", "op-TOZBOD0WKWDQV58CV"]
)
def test_other_tags_contain_no_time(tag: str) -> None:
    assert operation_time(tag) is None
