"""What users import, and what the README and the examples show them, is there and runs."""

from __future__ import annotations

import ast
import asyncio
import importlib
import inspect
import json
import os
import re
import signal
import socket
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import aiohttp
import pytest

import edgegap_async
from edgegap_async import EdgegapClient
from edgegap_async.emulator import Emulator, Timings, load_apps, sample_application

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)

MODULES = (
    "polling.schedule",
    "http.api_client",
    "http.auth",
    "http.shutdown",
    "http.call_options",
    "observability.observer",
    "cluster",
    "api.operations",
    "errors",
    "batch.batch",
    "http.guard",
    "deployments.handle",
    "client",
    "http.rate_limits",
    "polling.list_strategy",
    "polling.poller",
    "api.models",
    "batch.plan",
    "deployments.playable",
    "pool.pool",
    "api.requests",
    "http.resources",
    "http.retries",
    "pool.inventory",
    "polling.stats",
    "http.transport",
    "polling.tracker",
    "webhooks.receiver",
)
FOR_PARTS_OF_THE_PACKAGE_ONLY = {
    "ApiClient.call",
    "PollEntry",
    "WebhookTrigger",
    "Call",
    "CallObservers",
    "CloseScope",
    "OpenCalls",
    "ListStrategy",
    "ListGroup",
    "StatusQueue",
    "BatchOptions",
    "BatchItem",
    "DelayCounter",
    "as_deployment",
    "is_cancelled",
    "RetryBudget",
    "DEFAULT_BASE_URL",
    "SendState",
    "Inventory",
    "PoolSettings",
    "ReadyQueue",
    "ReadyServer",
    "Transport",
    "DeploymentTracker",
    "TrackerOwner",
    "ListMode",
    "api_token",
    "token_to_send",
    "check_options",
    "deploy_request",
    "in_doubt",
    "is_whole",
    "may_become",
    "refusal",
    "record_attempts",
}


def test_the_package_exports_what_its_modules_offer_and_nothing_else() -> None:
    offered = [
        name
        for module in MODULES
        for name in importlib.import_module(f"edgegap_async.{module}").__all__
    ]

    assert len(offered) == len(set(offered))
    expected = set(offered) - FOR_PARTS_OF_THE_PACKAGE_ONLY
    constants = {name for name in expected if name.isupper()} - {"TRANSITIONS", "OPERATIONS"}
    missing = expected - constants - set(edgegap_async.__all__) - {"Auth", "RetrySafety"}
    assert not missing
    assert set(edgegap_async.__all__) <= set(offered) | {"__version__"}


def test_every_exported_name_is_there_and_says_what_it_is() -> None:
    for name in edgegap_async.__all__:
        thing = getattr(edgegap_async, name)
        assert not inspect.isclass(thing) or thing.__doc__


def test_what_many_never_use_is_imported_when_it_is_asked_for() -> None:
    program = (
        "import sys, edgegap_async\n"
        "late = 'cluster', 'batch.batch', 'batch.plan', 'deployments.playable'\n"
        "late += 'pool.pool', 'pool.inventory'\n"
        "late += 'webhooks.receiver', 'emulator'\n"
        "assert not {f'edgegap_async.{name}' for name in late} & set(sys.modules)\n"
        "assert set(edgegap_async.__all__) <= set(dir(edgegap_async))\n"
        "from edgegap_async import *\n"
        "assert ServerPool.__module__ == 'edgegap_async.pool.pool'\n"
        "assert 'ServerPool' in vars(edgegap_async)  # and not looked for again\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, cwd=ROOT)


def test_a_name_that_is_not_there_is_named() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'ServerPol'"):
        edgegap_async.ServerPol  # type: ignore[attr-defined] # noqa: B018


def test_the_version_is_that_of_the_installed_package() -> None:
    assert edgegap_async.__version__ == version("edgegap-async")


def environment(emulator: Emulator) -> dict[str, str]:
    return {
        **os.environ,
        "EDGEGAP_API_TOKEN": emulator.token,
        "EDGEGAP_BASE_URL": emulator.url,
        "PYTHONWARNINGS": "error",
        "PYTHONUNBUFFERED": "1",
    }


async def run(emulator: Emulator, *arguments: str) -> str:
    """What a program prints that ends by itself, and well, without complaints."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        env=environment(emulator),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    printed, complaints = await process.communicate()
    # In its debug mode asyncio tells of a step that took long, as on a busy machine many do.
    said = [line for line in complaints.decode().splitlines() if not line.startswith("Executing <")]
    assert (process.returncode, said) == (0, []), printed.decode()
    return printed.decode()


async def test_the_first_example_of_the_readme_runs_as_it_stands(emulator: Emulator) -> None:
    printed = await run(emulator, "-c", BLOCKS[0])

    assert re.fullmatch(r"play at 127\.0\.0\.1:\d+\n", printed)
    assert [deployment.status.short for deployment in emulator.cloud.deployments.values()] in (
        ["TERMINATING"],
        ["TERMINATED"],
    )


@pytest.mark.parametrize("number", range(1, len(BLOCKS)))
async def test_every_other_block_of_the_readme_runs(
    number: int, emulator: Emulator, client: EdgegapClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEGAP_API_TOKEN", emulator.token)
    monkeypatch.setenv("EDGEGAP_BASE_URL", emulator.url)
    names: dict[str, Any] = {
        "asyncio": asyncio,
        "signal": signal,
        "client": client,
        "EdgegapClient": EdgegapClient,
        "emulator": emulator,
    }
    block = BLOCKS[number].replace('"0.0.0.0", port=8080', '"127.0.0.1", port=0')
    code = compile(block, "README.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    running = eval(code, names)
    if inspect.isawaitable(running):
        await running


async def test_the_quickstart_runs(emulator: Emulator) -> None:
    printed = await run(emulator, "examples/quickstart.py")

    assert "welcome Ada" in printed
    assert printed.endswith("stopped\n")


async def test_the_fan_out_runs(emulator: Emulator) -> None:
    printed = await run(emulator, "examples/many_servers.py", "5")

    assert len(re.findall(r"match +\d: READY after", printed)) == 5
    assert "5 of 5 READY, 0 failed" in printed
    assert "5 servers" in printed
    assert sum(request.operation == "stop_deployment" for request in emulator.requests) == 5


async def test_the_warm_pool_runs(emulator: Emulator) -> None:
    printed = await run(emulator, "examples/warm_pool.py", "4")

    assert len(re.findall(r"match +\d: +[\d.]+ ms to a server at", printed)) == 4
    assert "4 allocated" in printed
    assert await left(emulator) == []


class Program:
    """A program that serves until it is interrupted."""

    ended_by = signal.SIGINT

    def __init__(self, emulator: Emulator, *arguments: str, **variables: str) -> None:
        self.arguments = arguments
        self.environment = environment(emulator) | variables

    async def __aenter__(self) -> str:
        """Where it serves."""
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            *self.arguments,
            env=self.environment,
            cwd=ROOT,
            stdout=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        line = (await self.process.stdout.readline()).decode()
        assert line.startswith("listening on "), line
        return line.removeprefix("listening on ").strip()

    async def __aexit__(self, *_: object) -> None:
        self.process.send_signal(self.ended_by)
        await self.process.communicate()


async def test_the_matchmaker_hands_two_players_one_server_and_stops_it(
    emulator: Emulator,
) -> None:
    async with (
        Program(emulator, "examples/matchmaker.py", "0") as url,
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

    assert await left(emulator) == []


@pytest.mark.parametrize("body", ["no JSON", "[]", '{"name": "Ada"}'])
async def test_a_matchmaker_says_what_it_must_be_told(emulator: Emulator, body: str) -> None:
    async with (
        Program(emulator, "examples/matchmaker.py", "0") as url,
        aiohttp.ClientSession(url) as players,
        players.post("/join", data=body) as answer,
    ):
        assert (answer.status, await answer.text()) == (400, "send a JSON object with name and ip")


async def left(emulator: Emulator) -> list[str]:
    """The deployments that are still there, once no stop is under way."""
    async with asyncio.timeout(20):
        while True:
            there = [
                deployment
                for deployment in emulator.cloud.deployments.values()
                if deployment.status.short != "TERMINATED"
            ]
            if not any(deployment.status.short == "TERMINATING" for deployment in there):
                return [deployment.request_id for deployment in there]
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
async def test_a_matchmaker_that_is_ended_stops_its_servers(
    emulator: Emulator, how: signal.Signals
) -> None:
    program = Program(emulator, "examples/matchmaker.py", "0")
    program.ended_by = how
    async with (
        program as url,
        aiohttp.ClientSession(url) as players,
    ):
        joining = [
            players.post("/join", json={"name": name, "ip": "8.8.8.8"}) for name in ("Ada", "Bob")
        ]
        for answer in await asyncio.gather(*joining):
            answer.close()

    assert await left(emulator) == []


@pytest.mark.parametrize("example", ["webhooks_aiohttp", "webhooks_fastapi"])
async def test_an_application_of_ones_own_is_told_by_webhook(
    emulator: Emulator, example: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    program = Program(emulator, f"examples/{example}.py", PUBLIC_URL=f"http://127.0.0.1:{port}")
    async with program as url, aiohttp.ClientSession(url) as session:
        while not await listens(port):
            await asyncio.sleep(0.05)
        async with session.post("/servers") as answer:
            server = await answer.json()
        async with session.delete(f"/servers/{server['request_id']}") as answer:
            assert answer.status == 204

    assert server["source"] == "webhook"
    assert await left(emulator) == []


async def listens(port: int) -> bool:
    """Whether somebody does on that port."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionError:
        return False
    writer.close()
    return True


async def test_the_game_server_of_the_examples_stops_itself_when_it_is_empty() -> None:
    catalogue = load_apps(ROOT / "examples/apps.toml")
    async with (
        Emulator(catalogue.applications, timings=Timings.fast()) as emulator,
        EdgegapClient(emulator.token, base_url=emulator.url) as client,
    ):
        server = await client.deploy("lobby", "v1", users=[(48.86, 2.35)])
        await server.wait_ready(timeout=20)
        game, loop = server.endpoint("game"), asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as player:
            player.setblocking(False)
            await loop.sock_connect(player, (game.host, game.port))
            answers = []
            for line in (b"hello", b"goodbye"):
                await loop.sock_sendall(player, line)
                async with asyncio.timeout(5):
                    answers.append(await loop.sock_recv(player, 100))
        await server.wait_terminated(timeout=20)

    assert answers == [b"1 here", b"0 here"]


@pytest.mark.parametrize(
    "benchmark", ["get_call.py --rounds=1 --calls=5", "import_time.py --rounds=1"]
)
async def test_the_benchmarks_of_cost_compare(emulator: Emulator, benchmark: str) -> None:
    name, *arguments = benchmark.split()
    printed = json.loads(await run(emulator, f"benchmarks/{name}", *arguments))

    assert printed["ratio"] > 0


async def test_the_benchmark_of_one_server_counts_them(emulator: Emulator) -> None:
    made = json.loads(await run(emulator, "benchmarks/one_server.py", "--wishes=1"))

    assert made["edgegap_async"]["lost answers"]["the answer is lost once"] == {
        "servers_made_per_wish": 1,
        "errors": 0,
        "left_running_and_unknown": 0,
    }


async def test_the_benchmark_of_many_tells_time_and_memory(emulator: Emulator) -> None:
    many = json.loads(
        await run(emulator, "benchmarks/deploy_many.py", "--deployments=3", "--waiting", "3")
    )

    assert many["real time"]["ready"] == many["real time"]["deploys"] == 3
    assert many["memory"][0]["bytes_each"] > 0


def test_the_sample_application_ships_with_the_package() -> None:
    assert Path(sample_application().argv[2]).is_file()
