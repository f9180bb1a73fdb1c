"""Test a matchmaker with no account: the pytest plugin gives each test an emulator of Edgegap.

    pip install 'edgegap-async[emulator]' pytest pytest-asyncio fastapi uvicorn
    pytest -o asyncio_mode=auto examples/test_matchmaker_fastapi.py

The matchmaker listens on a port, the emulator runs game servers as processes, and its webhooks
reach the matchmaker. A test that leaves a game server running fails.
"""

import asyncio
import socket
from collections.abc import AsyncIterator

import aiohttp
import pytest
import uvicorn
from matchmaker_fastapi import application

from edgegap_async import IpAddress, PollingPolicy, WebhookReceiver
from edgegap_async.emulator import Application, AppPort, Drop, Fault, Faults
from edgegap_async.testing import EmulatorThread


class Players:
    """What players see of a matchmaker."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session

    async def join(self, *names: str) -> list[tuple[int, dict[str, object]]]:
        """Join at the same time, and return each player's HTTP status and answer."""

        async def one(name: str) -> tuple[int, dict[str, object]]:
            player = {"name": name, "ip": "75.28.35.192"}
            async with self.session.post("/join", json=player) as answer:
                return answer.status, await answer.json()

        return await asyncio.gather(*map(one, names))

    async def end(self, match: object) -> int:
        """End a match, and return the HTTP status."""
        async with self.session.delete(f"/matches/{match}") as answer:
            return answer.status


@pytest.fixture
async def players(edgegap_emulator: EmulatorThread) -> AsyncIterator[Players]:
    """A matchmaker on a port. It asks for no status in time: only webhooks report one."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        receiver = WebhookReceiver(url)
        never = PollingPolicy(first_delay=60, interval=60)
        client = edgegap_emulator.client(owner="matchmaker", webhooks=receiver, polling=never)
        app = application(client, receiver)
        server = uvicorn.Server(uvicorn.Config(app, log_config=None))
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        while not server.started:
            await asyncio.sleep(0.01)
        async with aiohttp.ClientSession(url) as session:
            yield Players(session)
        server.should_exit = True
        await serving


async def test_two_players_meet_on_one_server(
    players: Players, edgegap_emulator: EmulatorThread
) -> None:
    """The server is stopped when the match is over."""
    [(status, ada), (_, bob)] = await players.join("Ada", "Bob")

    assert (status, ada) == (200, bob)
    [server] = edgegap_emulator.live()
    assert (server.request_id, server.port_numbers["game"]) == (ada["match"], ada["port"])
    assert list(server.request.users) == [IpAddress("75.28.35.192")] * 2
    assert [await players.end(ada["match"]) for _ in range(2)] == [204, 404]


async def test_the_end_of_the_matchmaker_stops_its_servers(players: Players) -> None:
    """No match is ended here: the test would fail if the end of the program left a server."""
    answers = await players.join("Ada", "Bob", "Eve", "Mallory")

    assert len({str(answer["match"]) for _, answer in answers}) == 2


async def test_a_lost_answer_makes_no_second_server(
    players: Players, edgegap_emulator: EmulatorThread, edgegap_faults: Faults
) -> None:
    """The emulator deploys and drops the connection; the client finds the deployment by its tag."""
    edgegap_faults.add(Fault("deploy", Drop()))

    [(status, _), _] = await players.join("Ada", "Bob")

    assert status == 200
    assert len(edgegap_emulator.deployments) == 1


class TestOfABrokenGame:
    """What players see if the game server crashes."""

    @pytest.fixture
    def edgegap_apps(self) -> list[Application]:
        """An arena that exits at once."""
        argv = ["{python}", "-c", "raise SystemExit('no map')"]
        return [Application(name="arena", version="v1", argv=argv, ports=[AppPort("game", "UDP")])]

    async def test_players_get_an_answer(
        self, players: Players, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The output of the matchmaker has the last line of the game."""
        answers = await players.join("Ada", "Bob")

        assert [status for status, _ in answers] == [503, 503]
        assert "no map" in capsys.readouterr().out
