"""Relay sessions from the client to the emulator: each is deleted, however its use ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from log_capture import logged_errors
from scripted_api import Reply, ScriptedApi

from edgegap_async import EdgegapClient, PollingPolicy, RetryPolicy
from edgegap_async.emulator import (
    Delay,
    Drop,
    Emulator,
    Fault,
    Respond,
    Timings,
    sample_application,
)
from edgegap_async.errors import (
    ClientClosed,
    Conflict,
    InvalidRequest,
    NotAllowed,
    NotFound,
    RelayMaybeCreated,
    RelayNotLinked,
    RelayTimedOut,
    ServerError,
)
from edgegap_async.http.guard import Guard

PLAYERS = ["192.0.2.1", "198.51.100.7"]
ONCE = RetryPolicy(attempts=1)


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    """An emulator that has no session left at the end of the test."""
    async with Emulator([sample_application()], timings=Timings.fast()) as emulator:
        yield emulator
        assert emulator.relay_sessions == {}


@contextlib.asynccontextmanager
async def client_of(emulator: Emulator, **options: Any) -> AsyncIterator[EdgegapClient]:
    """A client that gives up a call at its first failure."""
    options = {"retries": ONCE, "list_delay": 0.0, **options}
    async with EdgegapClient(emulator.token, base_url=emulator.url, **options) as client:
        yield client


def calls(emulator: Emulator, name: str) -> int:
    return [request.operation for request in emulator.requests].count(name)


async def until_sessions(emulator: Emulator, count: int) -> None:
    async with asyncio.timeout(20):
        while len(emulator.relay_sessions) != count:
            await asyncio.sleep(0.01)


async def test_a_session_is_linked_inside_the_block_and_deleted_after_it(
    emulator: Emulator,
) -> None:
    async with client_of(emulator) as client:
        async with client.relay(PLAYERS) as session:
            assert session.linked
            assert session.relay is not None
            assert session.relay.ports is not None
            assert [user.ip_address for user in session.session_users] == PLAYERS
            assert list(emulator.relay_sessions) == [session.session_id]
        assert emulator.relay_sessions == {}
        assert calls(emulator, "create_relay_session") == 1


async def test_players_are_added_and_removed(emulator: Emulator) -> None:
    async with client_of(emulator) as client, client.relay(PLAYERS) as session:
        added = await client.relays.authorize_user(session.session_id, "203.0.113.9")
        assert added.session_user is not None
        token = added.session_user.authorization_token
        assert token is not None
        with pytest.raises(Conflict):
            await client.relays.authorize_user(session.session_id, "203.0.113.9")
        await client.relays.revoke_user(session.session_id, token)
        with pytest.raises(NotFound):
            await client.relays.revoke_user(session.session_id, token)
        assert emulator.relay_sessions[session.session_id].users == tuple(PLAYERS)


async def test_sessions_are_listed_page_by_page(emulator: Emulator) -> None:
    async with client_of(emulator) as client:
        made = [(await client.relays.create(PLAYERS)).session_id for _ in range(21)]
        found = [session.session_id async for session in client.relays.list()]
        for session_id in found:
            await client.relays.delete(session_id)

        assert found == made
        assert calls(emulator, "list_relay_sessions") == 2


async def test_a_block_that_fails_deletes_its_session(emulator: Emulator) -> None:
    async with client_of(emulator) as client:
        with pytest.raises(ZeroDivisionError):
            async with client.relay(PLAYERS):
                raise ZeroDivisionError
        assert emulator.relay_sessions == {}


async def test_a_session_that_is_never_linked_times_out_and_is_deleted() -> None:
    async with (
        Emulator([sample_application()], timings=Timings(linking=3600)) as emulator,
        client_of(emulator) as client,
    ):
        with pytest.raises(RelayTimedOut, match="was not linked in time") as caught:
            async with client.relay(PLAYERS, timeout=2):
                pytest.fail("the block must not begin")

        assert isinstance(caught.value, TimeoutError)
        assert caught.value.session is not None
        assert caught.value.session.status == "Initializing"
        assert emulator.relay_sessions == {}


async def test_a_session_that_fails_is_deleted() -> None:
    async with (
        Emulator(
            [sample_application()], timings=Timings.fast(), port_range=range(30000, 30001)
        ) as emulator,
        client_of(emulator) as client,
    ):
        with pytest.raises(RelayNotLinked, match="no port is left") as caught:
            async with client.relay(PLAYERS):
                pytest.fail("the block must not begin")

        assert not isinstance(caught.value, RelayTimedOut)
        assert emulator.relay_sessions == {}


async def test_a_create_without_an_answer_in_time_is_undone(emulator: Emulator) -> None:
    emulator.faults.add(Fault("create_relay_session", Delay(1.0)))
    async with client_of(emulator) as client:
        with pytest.raises(RelayTimedOut, match="no answer came in time"):
            async with client.relay(PLAYERS, timeout=0.3):
                pytest.fail("the block must not begin")
        await until_sessions(emulator, 0)
    assert calls(emulator, "delete_relay_session") == 1


@pytest.mark.parametrize("when", ["sent", "linking", "linked"])
async def test_a_cancelled_caller_leaves_no_session(emulator: Emulator, when: str) -> None:
    if when == "sent":
        emulator.faults.add(Fault("create_relay_session", Delay(0.5)))
    if when == "linking":
        emulator.faults.add(Fault("get_relay_session", Delay(5.0)))
    in_block = asyncio.Event()

    async def play(client: EdgegapClient) -> None:
        async with client.relay(PLAYERS):
            in_block.set()
            await asyncio.sleep(3600)

    async with client_of(emulator) as client:
        playing = asyncio.create_task(play(client))
        await until_sessions(emulator, 1)
        if when == "linked":
            await in_block.wait()
        if when == "linking":
            async with asyncio.timeout(10):
                while not emulator.open_requests:
                    await asyncio.sleep(0.01)
        playing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await playing
        await until_sessions(emulator, 0)
        assert in_block.is_set() is (when == "linked")


@pytest.mark.parametrize("when", ["sent", "linked"])
async def test_a_client_that_is_closed_leaves_no_session(emulator: Emulator, when: str) -> None:
    if when == "sent":
        emulator.faults.add(Fault("create_relay_session", Delay(0.5)))
    in_block = asyncio.Event()

    async def play(client: EdgegapClient) -> None:
        async with client.relay(PLAYERS):
            in_block.set()
            await asyncio.sleep(0.5)

    client = EdgegapClient(emulator.token, base_url=emulator.url, retries=ONCE)
    playing = asyncio.create_task(play(client))
    await (in_block.wait() if when == "linked" else until_sessions(emulator, 1))
    await client.close()
    assert emulator.relay_sessions == {}
    if when == "sent":
        with pytest.raises(ClientClosed):
            await playing
    else:
        await playing  # the session was deleted already


async def test_a_create_whose_task_the_program_cancels_says_what_may_exist(
    emulator: Emulator,
) -> None:
    emulator.faults.add(Fault("create_relay_session", Delay(0.5)))

    async def play(client: EdgegapClient) -> None:
        async with client.relay(PLAYERS):
            pytest.fail("the block must not begin")

    async with client_of(emulator) as client:
        playing = asyncio.create_task(play(client))
        await until_sessions(emulator, 1)
        spared = {playing, asyncio.current_task()}
        for task in asyncio.all_tasks() - spared:
            if getattr(task.get_coro(), "__qualname__", "").startswith("OwnedRelays."):
                task.cancel()
        with pytest.raises(RelayMaybeCreated, match="the program has cancelled") as caught:
            await playing
        assert caught.value.candidates == tuple(emulator.relay_sessions)
        await client.relays.delete(caught.value.candidates[0])


@pytest.mark.parametrize("effect", [Drop(), Respond(503)], ids=["no answer", "503"])
async def test_a_lost_answer_names_the_sessions_that_may_be_it(
    emulator: Emulator, effect: Any
) -> None:
    async with client_of(emulator) as client:
        other = await client.relays.create(["203.0.113.9"])
        async with client.relay(PLAYERS) as own:
            emulator.faults.add(Fault("create_relay_session", effect))
            with pytest.raises(RelayMaybeCreated) as caught:
                async with client.relay(PLAYERS):
                    pytest.fail("the block must not begin")
        (lost,) = caught.value.candidates
        assert lost not in {other.session_id, own.session_id}
        assert f"it is one of {lost}; delete it" in str(caught.value)
        assert caught.value.maybe_created
        assert set(emulator.relay_sessions) == {lost, other.session_id}
        for session_id in (lost, other.session_id):
            await client.relays.delete(session_id)


async def test_a_cancelled_create_whose_answer_is_lost_is_logged_with_what_may_be_it(
    emulator: Emulator,
) -> None:
    emulator.faults.add(Fault("create_relay_session", Delay(0.3)))
    emulator.faults.add(Fault("list_relay_sessions", Respond(503)))

    async def play(client: EdgegapClient) -> None:
        async with client.relay(PLAYERS):
            pytest.fail("the block must not begin")

    with logged_errors() as lines:
        async with client_of(emulator) as client:
            playing = asyncio.create_task(play(client))
            await until_sessions(emulator, 1)
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                if getattr(task.get_coro(), "__qualname__", "").startswith("OwnedRelays."):
                    task.cancel()
            playing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await playing
    (line,) = lines
    assert line.startswith("the relay session of a cancelled call may go on running")
    assert "the list request failed" in line
    emulator.cloud.end_relay_session(*emulator.relay_sessions.values())


async def test_a_delete_that_fails_is_said_and_repeated(emulator: Emulator) -> None:
    async with client_of(emulator) as client:
        emulator.faults.add(Fault("delete_relay_session", Respond(503), when="read", times=2))
        with pytest.raises(ServerError):
            async with client.relay(PLAYERS):
                pass
        await until_sessions(emulator, 0)
    assert calls(emulator, "delete_relay_session") == 3


async def test_a_block_that_fails_says_that_its_session_could_not_be_deleted(
    emulator: Emulator,
) -> None:
    async with client_of(emulator) as client:
        emulator.faults.add(Fault("delete_relay_session", Respond(503), when="read"))
        with pytest.raises(ZeroDivisionError) as caught:
            async with client.relay(PLAYERS):
                raise ZeroDivisionError
        assert "could not be stopped" in "".join(caught.value.__notes__)
    assert emulator.relay_sessions == {}


async def test_a_session_that_another_program_deletes_is_no_session_to_wait_for() -> None:
    async with (
        Emulator([sample_application()], timings=Timings(linking=3600)) as emulator,
        client_of(emulator, polling=PollingPolicy(not_found_grace=0.1)) as client,
    ):
        entering = asyncio.create_task(client.relay(PLAYERS).__aenter__())
        await until_sessions(emulator, 1)
        emulator.cloud.end_relay_session(*emulator.relay_sessions.values())
        with pytest.raises(RelayNotLinked, match="it does not exist any more"):
            await entering


async def test_a_request_for_the_state_that_fails_is_made_again(emulator: Emulator) -> None:
    emulator.faults.add(Fault("get_relay_session", Respond(503), times=2))
    emulator.faults.add(Fault("get_relay_session", Respond(404), times=1))
    async with client_of(emulator) as client, client.relay(PLAYERS) as session:
        assert session.linked
    assert calls(emulator, "get_relay_session") == 4


async def test_a_guard_refuses_a_session_before_anything_is_sent(emulator: Emulator) -> None:
    for guard in (Guard(read_only=True), Guard(dry_run=True)):
        async with client_of(emulator, guard=guard) as client:
            with pytest.raises(NotAllowed):
                async with client.relay(PLAYERS):
                    pytest.fail("the block must not begin")
            assert client.requests_sent == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"users": []},
        {"users": "192.0.2.1"},
        {"users": [(48.9, 2.4)]},
        {"users": ["nowhere"]},
        {"users": PLAYERS, "timeout": 0},
        {"users": PLAYERS, "filters": [1]},
        {"users": PLAYERS, "webhook_url": "example.com"},
    ],
)
async def test_an_argument_that_cannot_be_used_sends_nothing(
    emulator: Emulator, wrong: Any
) -> None:
    async with client_of(emulator) as client:
        with pytest.raises(InvalidRequest):
            async with client.relay(**wrong):
                pytest.fail("the block must not begin")
        assert client.requests_sent == 0


@pytest.mark.parametrize("error", [True, {"message": "no relay"}, "no relay"])
async def test_an_error_of_any_type_ends_the_wait(error: object) -> None:
    session = {"session_id": "s1", "linked": False}
    async with ScriptedApi() as api:
        api.on("POST", "/v1/relays/sessions", Reply(200, session))
        api.on("GET", "/v1/relays/sessions/s1", Reply(200, {**session, "error": error}))
        api.on("DELETE", "/v1/relays/sessions/s1", Reply(204, b""))
        async with EdgegapClient("canary-token", base_url=api.url) as client:
            with pytest.raises(RelayNotLinked):
                async with client.relay(PLAYERS, timeout=20):
                    pytest.fail("the block must not begin")


async def test_an_answer_about_another_session_does_not_change_which_one_is_asked_for() -> None:
    session = {"session_id": "s1", "linked": False}
    linked = Reply(200, {**session, "linked": True, "relay": {"ip": "192.0.2.9"}})
    async with ScriptedApi() as api:
        api.on("POST", "/v1/relays/sessions", Reply(200, session))
        other = Reply(200, {**session, "session_id": "other"})
        api.on("GET", "/v1/relays/sessions/s1", other, linked)
        api.on("DELETE", "/v1/relays/sessions/s1", Reply(204, b""))
        async with (
            EdgegapClient("canary-token", base_url=api.url) as client,
            client.relay(PLAYERS) as shown,
        ):
            assert shown.session_id == "s1"
