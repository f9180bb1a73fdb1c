"""Relay sessions of the emulator: created, linked, players added and removed, deleted."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from bare_api import BareApi

from edgegap_async.emulator import Emulator, Timings, sample_application

PATH = "/v1/relays/sessions"
TWO = [{"ip": "75.28.35.192"}, {"ip": "10.0.0.1"}]


async def linked(api: BareApi, session_id: str) -> Any:
    """Returns the session once it is linked."""
    async with asyncio.timeout(10):
        while not (found := (await api("GET", f"{PATH}/{session_id}"))[1])["linked"]:
            await asyncio.sleep(0.01)
    return found


async def test_a_session_is_initializing_and_then_linked(api: BareApi) -> None:
    status, made = await api("POST", PATH, json={"users": TWO})
    found = await linked(api, made["session_id"])

    assert (status, made["status"], made["ready"], made["linked"]) == (
        200,
        "Initializing",
        False,
        False,
    )
    assert "relay" not in made
    assert made["session_id"].endswith("-S")
    assert (found["status"], found["ready"]) == ("Linked", True)
    assert [user["ip_address"] for user in found["session_users"]] == ["75.28.35.192", "10.0.0.1"]
    assert found["session_users"] == made["session_users"]
    assert found["session_users"][0]["latitude"] > 0  # the country's centre
    assert "latitude" not in found["session_users"][1]  # a private address is nowhere
    ports = found["relay"]["ports"]
    assert ports["server"]["port"] != ports["client"]["port"]
    assert ports["client"]["link"] == f"127.0.0.1:{ports['client']['port']}"


async def test_a_list_has_pages_of_sessions_oldest_first(api: BareApi) -> None:
    made = [(await api("POST", PATH, json={"users": TWO}))[1]["session_id"] for _ in range(21)]
    _, first = await api("GET", PATH)
    _, second = await api("GET", f"{PATH}?page=2")

    found = [one["session_id"] for page in (first, second) for one in page["sessions"]]
    assert found == made
    assert (first["total_count"], first["pagination"]["has_next"]) == (21, True)
    assert second["pagination"]["has_next"] is False


async def test_a_deleted_session_is_gone_and_gives_its_ports_back() -> None:
    async with (
        Emulator(
            [sample_application()],
            timings=Timings.fast(),
            port_range=range(30000, 30100),
            port_reuse_delay=0,
        ) as emulator,
        aiohttp.ClientSession(emulator.url) as session,
    ):
        api = BareApi(emulator, session)
        session_id = ""
        for _ in range(100):
            _, made = await api("POST", PATH, json={"users": TWO})
            session_id = made["session_id"]
            await linked(api, session_id)
            assert list(emulator.relay_sessions) == [session_id]
            assert await api("DELETE", f"{PATH}/{session_id}") == (204, None)
        for method in ("GET", "DELETE"):
            status, said = await api(method, f"{PATH}/{session_id}")
            assert (status, said) == (404, {"message": f"Session {session_id} not found"})
        assert emulator.relay_sessions == {}


async def test_a_session_that_is_deleted_before_it_is_linked_is_not_linked() -> None:
    async with (
        Emulator([sample_application()], timings=Timings(linking=5)) as emulator,
        aiohttp.ClientSession(emulator.url) as session,
    ):
        api = BareApi(emulator, session)
        emulator.clock.pause()
        made = [(await api("POST", PATH, json={"users": TWO}))[1] for _ in range(2)]
        deleted, kept = (emulator.relay_sessions[one["session_id"]] for one in made)
        await api("DELETE", f"{PATH}/{deleted.session_id}")
        await emulator.clock.advance(5)

        assert (deleted.is_linked, kept.is_linked) == (False, True)


async def test_players_are_added_once_and_removed_by_their_token(api: BareApi) -> None:
    _, made = await api("POST", PATH, json={"users": TWO})
    session_id = made["session_id"]
    add, remove = f"{PATH}:authorize-user", f"{PATH}:revoke-user"
    wanted = {"session_id": session_id, "user_ip": "192.0.2.1"}

    status, added = await api("POST", add, json=wanted)
    user = added["session_user"]
    assert (status, user["ip_address"], added["session_id"]) == (200, "192.0.2.1", session_id)
    assert added["authorization_token"] == made["authorization_token"]
    assert (await api("POST", add, json=wanted))[0] == 409
    assert api.emulator.relay_sessions[session_id].users[-1] == "192.0.2.1"

    revoked = {"session_id": session_id, "authorization_token": user["authorization_token"]}
    assert await api("POST", remove, json=revoked) == (204, None)
    assert (await api("POST", remove, json=revoked))[0] == 404
    assert "192.0.2.1" not in api.emulator.relay_sessions[session_id].users
    assert (await api("POST", add, json=wanted))[0] == 200
    unknown = {"session_id": "000000000000-S"}
    assert (await api("POST", add, json={**wanted, **unknown}))[0] == 400
    assert (await api("POST", remove, json={**revoked, **unknown}))[0] == 404


async def test_a_linked_session_is_posted_to_its_webhook() -> None:
    received: asyncio.Queue[Any] = asyncio.Queue()

    async def receive(request: web.Request) -> web.Response:
        await received.put((request.path_qs, await request.json()))
        return web.Response()

    app = web.Application()
    app.router.add_post("/hook", receive)
    async with (
        TestServer(app) as receiver,
        Emulator([sample_application()], timings=Timings.fast()) as emulator,
        aiohttp.ClientSession(emulator.url) as session,
    ):
        api = BareApi(emulator, session)
        url = f"{receiver.make_url('/hook')}?match=42"
        _, made = await api("POST", PATH, json={"users": TWO, "webhook_url": url})
        async with asyncio.timeout(10):
            path, posted = await received.get()

        assert (path, posted["session_id"]) == ("/hook?match=42", made["session_id"])
        assert (posted["linked"], posted["webhook_url"]) == (True, url)
        assert posted == (await api("GET", f"{PATH}/{made['session_id']}"))[1]


async def test_a_session_without_free_ports_has_an_error() -> None:
    async with (
        Emulator(
            [sample_application()], timings=Timings.fast(), port_range=range(30000, 30001)
        ) as emulator,
        aiohttp.ClientSession(emulator.url) as session,
    ):
        api = BareApi(emulator, session)
        _, made = await api("POST", PATH, json={"users": TWO})
        async with asyncio.timeout(10):
            while "error" not in (found := (await api("GET", f"{PATH}/{made['session_id']}"))[1]):
                await asyncio.sleep(0.01)

        assert found["error"] == "No capacity: no port is left in range(30000, 30001)"
        assert (found["linked"], found["ready"]) == (False, False)


async def test_a_session_is_listed_after_list_delay_and_ends_with_a_reset() -> None:
    async with (
        Emulator([sample_application()], timings=Timings.fast(), list_delay=5) as emulator,
        aiohttp.ClientSession(emulator.url) as session,
    ):
        api = BareApi(emulator, session)
        kept = await api.deploy()
        emulator.clock.pause()
        _, made = await api("POST", PATH, json={"users": TWO})

        assert (await api("GET", PATH))[1]["total_count"] == 0
        await emulator.clock.advance(5)
        assert (await api("GET", PATH))[1]["total_count"] == 1
        await emulator.reset(keep=[kept])
        assert emulator.relay_sessions == {}
        assert (await api("GET", f"{PATH}/{made['session_id']}"))[0] == 404


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"users": []},
        {"users": ["75.28.35.192"]},
        {"users": [{"ip": "nowhere"}]},
        {"users": TWO, "filters": ["Paris"]},
        {"users": TWO, "webhook_url": "ftp://example.com"},
        {"users": TWO, "unknown": 1},
    ],
)
async def test_a_body_that_the_api_would_not_understand_is_400(api: BareApi, body: Any) -> None:
    status, said = await api("POST", PATH, json=body)

    assert status == 400
    assert said["message"]
    assert api.emulator.relay_sessions == {}
