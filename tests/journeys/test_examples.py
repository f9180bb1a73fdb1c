"""Every program of examples/ runs against the emulator and leaves no deployment behind."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import re
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from program_runner import (
    ROOT,
    ServingProgram,
    free_port,
    is_listening,
    run_program,
    running_deployments,
)
from redis_server import RedisServer
from scripted_api import Reply, ScriptedApi

from edgegap_async import DeploymentHandle, EdgegapClient, Status
from edgegap_async.emulator import Emulator, Image, Timings, load_apps, sample_application
from edgegap_async.requests import VersionPortRequest

RUN_TO_THE_END = {
    "api_calls": r"tags: \['ranked', .*'season-3'\]",
    "guard": r"refused: max_live=1 reached(.|\n)*checked and not sent: POST /v2/deployments",
    "handle": r"TERMINATED \(found by status\)",
    "handle_errors": r"no-such-application: refused with status 400",
    "playable": r"passed our own check",
    "quickstart": r"welcome Ada(.|\n)*stopped\n$",
    "rate_limits": r"30 lists took [23]\.\d s",
    "recover": r"stopped 2 servers",
    "relay": r"linked(.|\n)*joined: 203.0.113.9(.|\n)*deleted\n$",
}
"""Examples without arguments, and a pattern that their output matches."""


SEARCHING = Reply(200, {"id": "t1", "status": "SEARCHING"})
ASSIGNED = Reply(
    200, {"id": "t1", "status": "HOST_ASSIGNED", "assignment": {"fqdn": "a.example", "ports": {}}}
)


@pytest.mark.parametrize("example", RUN_TO_THE_END)
async def test_an_example_runs_and_leaves_no_deployment(emulator: Emulator, example: str) -> None:
    printed = await run_program(emulator, f"examples/{example}.py")

    assert re.search(RUN_TO_THE_END[example], printed)
    assert await running_deployments(emulator) == []


def test_every_example_has_a_test() -> None:
    tested = {
        node.value
        for node in ast.walk(ast.parse(Path(__file__).read_text("utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    tested |= {"test_matchmaker_fastapi"}  # pytest collects it
    tested |= {"servers_litestar"}  # in test_sigterm; in test_deploying:
    tested |= {"discord_bot", "jobs_taskiq", "rolling_update", "sync_script", "workers"}
    examples = {path.stem for path in (ROOT / "examples").glob("*.py")}

    assert {name for name in examples if not any(name in text for text in tested)} == set()


async def test_the_metrics_of_a_server_are_plotted(emulator: Emulator, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / "metrics.png"
    printed = await run_program(
        emulator,
        *("examples/metrics.py", "4", str(file)),
        MPLCONFIGDIR=str(tmp_path),
        PYTHONWARNINGS="default",  # of matplotlib
    )

    assert re.search(r"starting on port \d+\nready\n", printed)
    assert re.search(r"\d\d:\d\d:\d\d  CPU \d+\.0 %  memory [1-9]\d+\.0 bytes", printed)
    assert re.search(r"\d+ measurements in ", printed)
    assert file.read_bytes().startswith(b"\x89PNG")
    assert await running_deployments(emulator) == []


async def test_the_registry_example_deletes_tags() -> None:
    image = Image(image="registry.example.com/studio/arena", argv=("true",), tags=("v1", "v2"))
    async with Emulator([sample_application()], images=[image]) as emulator:
        printed = await run_program(emulator, "examples/registry.py")

    assert printed == "deleted: v1\ngone before: missing\nleft: ['v2']\n"


async def test_many_servers_deploys_a_batch(emulator: Emulator) -> None:
    printed = await run_program(emulator, "examples/many_servers.py", "5")

    assert len(re.findall(r"match +\d: READY after", printed)) == 5
    assert "5 of 5 READY, 0 failed" in printed
    assert "5 servers" in printed
    assert sum(request.operation == "stop_deployment" for request in emulator.requests) == 5


async def test_the_matchmaking_service_assigns_a_host(emulator: Emulator) -> None:
    async with ScriptedApi() as api:
        api.on("POST", "/tickets", Reply(201, SEARCHING.body))
        api.on("GET", "/tickets/t1", SEARCHING, Reply(503), ASSIGNED)
        variables = {"MATCHMAKER_URL": api.url, "MATCHMAKER_TOKEN": "canary-raw"}
        printed = await run_program(
            emulator, "examples/matchmaking_service.py", "192.0.2.1", **variables
        )

    assert [request.method for request in api.requests] == ["POST", "GET", "GET", "GET"]
    assert printed == "192.0.2.1: HOST_ASSIGNED a.example\n"
    assert {request.headers["Authorization"] for request in api.requests} == {"canary-raw"}
    assert api.requests[0].json == {
        "profile": "casual",
        "attributes": {},
        "player_ip": "192.0.2.1",
    }


async def test_the_warm_pool_allocates_servers(emulator: Emulator) -> None:
    printed = await run_program(emulator, "examples/warm_pool.py", "4")

    assert len(re.findall(r"match +\d: +[\d.]+ ms to a server at", printed)) == 4
    assert "4 allocated" in printed
    assert await running_deployments(emulator) == []


async def test_the_matchmaker_gives_two_players_one_server_and_stops_it(
    emulator: Emulator,
) -> None:
    async with (
        ServingProgram(emulator, "examples/matchmaker.py", "0") as url,
        aiohttp.ClientSession(url) as players,
    ):

        async def join(name: str, ip: str) -> dict[str, Any]:
            async with players.post("/join", json={"name": name, "ip": ip}) as answer:
                assert answer.status == 200
                return dict(await answer.json())

        ada, bob = await asyncio.gather(join("Ada", "75.28.35.192"), join("Bob", "8.8.8.8"))
        assert ada == bob
        assert sorted(ada["players"]) == ["Ada", "Bob"]
        async with players.post("/over", json={"match": ada["match"]}) as answer:
            assert answer.status == 200
        async with players.post("/over", json={"match": ada["match"]}) as answer:
            assert answer.status == 404

    assert await running_deployments(emulator) == []


@pytest.mark.parametrize(
    ("example", "arguments"), [("matchmaker", ["0"]), ("matchmaker_fastapi", [])]
)
async def test_a_matchmaker_ends_a_match_whose_server_has_crashed(
    emulator: Emulator, example: str, arguments: list[str]
) -> None:
    async with web_example(emulator, example, *arguments) as players:

        async def join(name: str) -> str:
            async with players.post("/join", json={"name": name, "ip": "8.8.8.8"}) as answer:
                return str((await answer.json())["match"])

        match, _ = await asyncio.gather(join("Ada"), join("Bob"))
        process = emulator.deployments[match].process
        assert process is not None
        await process.crash()
        async with asyncio.timeout(20):
            while not emulator.deployments[match].is_stop_requested:
                await asyncio.sleep(0.01)

    assert await running_deployments(emulator) == []


async def test_a_matchmaker_leaves_the_servers_of_one_with_another_name_alone(
    emulator: Emulator,
) -> None:
    def matchmaker(name: str) -> ServingProgram:
        return ServingProgram(emulator, "examples/matchmaker.py", "0", POD_NAME=name)

    async with matchmaker("matchmaker-0") as url, aiohttp.ClientSession(url) as players:
        joining = [
            players.post("/join", json={"name": name, "ip": "8.8.8.8"}) for name in ("Ada", "Bob")
        ]
        for answer in await asyncio.gather(*joining):
            answer.close()
        async with matchmaker("matchmaker-1"):
            [server] = emulator.deployments.values()
            assert not server.is_stop_requested

    assert await running_deployments(emulator) == []


@pytest.mark.parametrize("body", ["no JSON", "[]", '{"name": "Ada"}'])
async def test_the_matchmaker_says_what_to_send(emulator: Emulator, body: str) -> None:
    async with (
        ServingProgram(emulator, "examples/matchmaker.py", "0") as url,
        aiohttp.ClientSession(url) as players,
        players.post("/join", data=body) as answer,
    ):
        assert (answer.status, await answer.text()) == (400, "send a JSON object with name and ip")


async def test_a_release_makes_a_version_plays_on_it_and_retires_the_old_one() -> None:
    arena = sample_application()
    image = "registry.example.com/studio/arena"
    images = [
        Image(image=image, argv=arena.argv, private_username="robot", private_token="canary-ci"),
        Image(image=f"{image}:broken", argv=("false",)),
    ]
    registry = {"REGISTRY_USERNAME": "robot", "REGISTRY_TOKEN": "canary-ci"}
    release = "examples/ci_release.py", "arena"
    emulator = Emulator([arena], images=images, timings=Timings.fast())
    async with emulator, EdgegapClient(emulator.token, base_url=emulator.url) as client:
        await client.versions.create(
            "arena",
            "1",
            docker_repository="registry.example.com",
            docker_image="studio/arena",
            docker_tag="1",
            req_cpu=256,
            req_memory=512,
            private_username="robot",
            private_token="canary-ci",
            ports=[VersionPortRequest(port=0, protocol="UDP", name="game")],
        )
        with pytest.raises(AssertionError, match="pass private_username and private_token again"):
            await run_program(emulator, *release, "1", "2")
        assert "2 is playable at" in await run_program(emulator, *release, "1", "2", **registry)
        again = await run_program(emulator, *release, "1", "2", "--delete-old", **registry)
        with pytest.raises(AssertionError, match=r"deleted arena broken again"):
            await run_program(emulator, *release, "2", "broken", **registry)

        assert re.search(r"2 is there already(.|\n)*1 is deleted", again)
        assert [version.name async for version in client.versions.list("arena")] == ["v1", "2"]
        assert await running_deployments(emulator) == []


@pytest.mark.parametrize("ended_by", [signal.SIGINT, signal.SIGTERM])
async def test_the_matchmaker_stops_its_servers_when_it_is_ended(
    emulator: Emulator, ended_by: signal.Signals
) -> None:
    async with (
        ServingProgram(emulator, "examples/matchmaker.py", "0", ended_by=ended_by) as url,
        aiohttp.ClientSession(url) as players,
    ):
        joining = [
            players.post("/join", json={"name": name, "ip": "8.8.8.8"}) for name in ("Ada", "Bob")
        ]
        for answer in await asyncio.gather(*joining):
            answer.close()

    assert await running_deployments(emulator) == []


@contextlib.asynccontextmanager
async def web_example(
    emulator: Emulator, example: str, *arguments: str, ended_by: signal.Signals = signal.SIGINT
) -> AsyncIterator[aiohttp.ClientSession]:
    """Runs an example that is a web application, and yields a session to it."""
    public_url = f"http://127.0.0.1:{free_port()}"
    program = ServingProgram(
        emulator, f"examples/{example}.py", *arguments, ended_by=ended_by, PUBLIC_URL=public_url
    )
    async with program as url, aiohttp.ClientSession(url) as session:
        while not await is_listening(int(url.rpartition(":")[2])):
            await asyncio.sleep(0.05)
        yield session


async def test_an_aiohttp_application_receives_webhooks(emulator: Emulator) -> None:
    async with web_example(emulator, "webhooks_aiohttp") as session:
        async with session.post("/servers") as answer:
            server = await answer.json()
        for status in (204, 404):
            async with session.delete(f"/servers/{server['request_id']}") as answer:
                assert answer.status == status

    assert server["source"] == "webhook"
    assert await running_deployments(emulator) == []


@pytest.mark.parametrize("example", ["webhooks_aiohttp", "servers_litestar"])
async def test_an_application_stops_a_server_that_has_crashed(
    emulator: Emulator, example: str
) -> None:
    async with web_example(emulator, example) as session:
        async with session.post("/servers") as answer:
            request_id = (await answer.json())["request_id"]
        process = emulator.deployments[request_id].process
        assert process is not None
        await process.crash()
        async with asyncio.timeout(20):
            while not emulator.deployments[request_id].is_stop_requested:
                await asyncio.sleep(0.01)

    assert await running_deployments(emulator) == []


@pytest.mark.parametrize("ended_by", [signal.SIGINT, signal.SIGTERM])
async def test_an_aiohttp_application_stops_its_servers_when_it_is_ended(
    emulator: Emulator, ended_by: signal.Signals
) -> None:
    async with web_example(emulator, "webhooks_aiohttp", ended_by=ended_by) as session:
        for _ in range(2):
            async with session.post("/servers") as answer:
                assert answer.status == 200

    assert len(emulator.deployments) == 2
    assert await running_deployments(emulator) == []


@pytest.mark.parametrize("ended_by", [signal.SIGINT, signal.SIGTERM])
async def test_the_matchmaker_in_fastapi_stops_its_servers_when_it_is_ended(
    emulator: Emulator, ended_by: signal.Signals
) -> None:
    async with web_example(emulator, "matchmaker_fastapi", ended_by=ended_by) as players:
        joining = [
            players.post("/join", json={"name": name, "ip": "8.8.8.8"}) for name in ("Ada", "Bob")
        ]
        for answer in await asyncio.gather(*joining):
            assert answer.status == 200
            answer.close()

    assert len(emulator.deployments) == 1
    assert await running_deployments(emulator) == []


async def test_the_metrics_endpoint_says_what_the_program_does(emulator: Emulator) -> None:
    async with (
        ServingProgram(
            emulator, "examples/metrics_endpoint.py", "0", ended_by=signal.SIGTERM
        ) as url,
        aiohttp.ClientSession(url) as scraper,
        scraper.get("/metrics") as answer,
    ):
        lines = (await answer.text()).splitlines()

    assert 'edgegap_calls_total{operation="deploy",outcome="ok"} 1.0' in lines
    assert 'edgegap_deployments_total{event="ready"} 1.0' in lines
    assert "edgegap_deployments_live 1.0" in lines
    assert 'edgegap_limit_limit{operation="deploy"} 40.0' in lines
    assert await running_deployments(emulator) == []


async def test_the_webhooks_server_receives_webhooks(emulator: Emulator) -> None:
    printed = await run_program(
        emulator, "examples/webhooks_server.py", PUBLIC_URL=f"http://127.0.0.1:{free_port()}"
    )

    assert re.search(r"READY at \S+, reported by webhook", printed)
    assert await running_deployments(emulator) == []


async def test_shared_limits_counts_the_programs(tmp_path: Path) -> None:
    redis = RedisServer(tmp_path)
    await redis.start()
    try:
        async with Emulator([sample_application()]) as emulator:  # READY after seconds, as usual
            printed = await run_program(emulator, "examples/shared_limits.py", REDIS_URL=redis.url)
            assert await running_deployments(emulator) == []
    finally:
        await redis.kill()

    assert "1 programs share the limits, shared: True" in printed


@contextlib.asynccontextmanager
async def lobby(**variables: str) -> AsyncIterator[tuple[Emulator, DeploymentHandle]]:
    """Deploys the example of a game server, with environment variables of its own."""
    catalogue = load_apps(ROOT / "examples/apps.toml")
    async with (
        Emulator(catalogue.applications, timings=Timings.fast()) as emulator,
        EdgegapClient(emulator.token, base_url=emulator.url) as client,
    ):
        assert "game_server.py" in " ".join(catalogue.applications[0].argv)
        yield (
            emulator,
            await client.deploy(
                "lobby", "v1", users=[(48.86, 2.35)], environment_variables=variables
            ),
        )


async def test_the_game_server_stops_itself_when_it_is_idle() -> None:
    async with lobby(IDLE_SECONDS="0.5") as (emulator, server):
        ended = await server.wait_terminated(timeout=30)
        [deployment] = emulator.cloud.deployments.values()

        assert ended.current_status == Status.TERMINATED
        assert "open" in deployment.tags
        assert [one.operation for one in emulator.requests].count("stop_self") == 1


async def test_the_game_server_counts_its_players() -> None:
    async with lobby() as (_, server):
        await server.wait_ready(timeout=20)
        game, loop = server.endpoint("game"), asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as player:
            player.setblocking(False)
            await loop.sock_connect(player, (game.host, game.port))
            answers = []
            for line in (b"hello", b"goodbye"):
                await loop.sock_sendall(player, line)
                async with asyncio.timeout(20):
                    answers.append(await loop.sock_recv(player, 100))

    assert answers == [b"1 here", b"0 here"]


def test_the_sample_application_ships_with_the_package() -> None:
    assert Path(sample_application().argv[2]).is_file()
