"""What a studio does with a game server, from deploy to stop, with real processes and sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import attrs
import psutil
import pytest
from aiohttp import web
from emulator_record import requests_by_operation

from edgegap_async import DeploymentHandle, EdgegapClient, PollingPolicy, Status, WebhookReceiver
from edgegap_async.emulator import (
    Application,
    Emulator,
    Fleet,
    PrivateHost,
    Timings,
    sample_application,
)
from edgegap_async.emulator.ports import Ports
from edgegap_async.errors import (
    Conflict,
    DeploymentFailed,
    DeploymentTerminated,
    Gone,
    NotFound,
    Unauthorized,
    Unprocessable,
    WaitTimedOut,
)
from edgegap_async.models import Endpoint
from edgegap_async.requests import EnvironmentVariable, Filter, OrderBy, StopFilter

USERS = ("75.28.35.192", (45.508888, -73.561668))
QUICK = PollingPolicy(first_delay=0.02, interval=0.05)
RARE = PollingPolicy(first_delay=30.0, interval=30.0)  # only a webhook brings a status in time

Cloud = Callable[..., AbstractAsyncContextManager[tuple[Emulator, EdgegapClient]]]


@pytest.fixture
def cloud() -> Cloud:
    """Returns a function that starts an emulator with the given applications, and a client."""

    @asynccontextmanager
    async def start(
        *applications: Application,
        webhooks: WebhookReceiver | None = None,
        polling: PollingPolicy = QUICK,
        fleets: tuple[Fleet, ...] = (),
        max_deployments: int | None = None,
        timings: Timings | None = None,
    ) -> AsyncIterator[tuple[Emulator, EdgegapClient]]:
        async with (
            Emulator(
                applications or (sample_application(),),
                timings=timings or Timings.fast(),
                fleets=fleets,
                max_deployments=max_deployments,
                metrics_interval=0.05,
            ) as emulator,
            EdgegapClient(
                emulator.token, base_url=emulator.url, webhooks=webhooks, polling=polling
            ) as client,
        ):
            yield emulator, client

    return start


async def play(game: Endpoint, *lines: str) -> list[str]:
    """Sends datagrams to a game server as a player does; returns the answers."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as player:
        player.setblocking(False)
        await loop.sock_connect(player, (game.host, game.port))
        answers = []
        for line in lines:
            await loop.sock_sendall(player, line.encode())
            answers.append((await loop.sock_recv(player, 2048)).decode())
        return answers


def statuses(server: DeploymentHandle) -> list[str]:
    return [str(change.status) for change in server.history]


def without_operation_tag(tags: Iterable[str]) -> list[str]:
    """Returns the tags without the operation tag, which the client adds."""
    return [tag for tag in tags if not tag.startswith("op-")]


async def deploy_play_and_stop(client: EdgegapClient) -> DeploymentHandle:
    server = await client.deploy(
        "arena",
        "v1",
        users=USERS,
        tags=["ranked"],
        environment_variables=[EnvironmentVariable("MODE", "canary-duel", is_hidden=True)],
    )
    deployment = await server.wait_ready(timeout=20)
    game = server.endpoint("game")

    assert deployment.running
    assert deployment.start_time is not None
    assert deployment.location is not None
    assert deployment.location.city == "Montreal"
    assert (await play(game, "ping", "join Ada", "move 3 4"))[::2] == ["pong", "Ada 3 4"]

    assert "Ada joined" in ((await client.deployments.logs(server.request_id)).logs or "")
    async with asyncio.timeout(10):
        while not (await client.deployments.metrics(server.request_id)).mem.datasets:
            await asyncio.sleep(0.05)

    await client.tags.create(server.request_id, "finals")
    with pytest.raises(Conflict):
        await client.tags.create(server.request_id, "finals")
    renamed = await client.tags.rename(server.request_id, "finals", "grand-finals")
    assert renamed == await client.tags.get(server.request_id, "grand-finals")
    listed = await client.tags.list(server.request_id)
    assert without_operation_tag(tag.name for tag in listed.tags) == ["ranked", "grand-finals"]
    await client.tags.delete(server.request_id, "grand-finals")
    assert without_operation_tag((await server.refresh()).tags) == ["ranked"]

    rows = [
        row
        async for row in client.deployments.list(
            filters=[Filter("tags", "in", ["ranked"]), Filter("status", "eq", Status.READY)],
            order_by=[OrderBy("created_at", "desc")],
        )
    ]
    assert [row.request_id for row in rows] == [server.request_id]

    await server.stop(wait=True, timeout=20)
    assert server.status is Status.TERMINATED
    return server


async def test_a_server_is_deployed_played_and_stopped_by_polling(cloud: Cloud) -> None:
    async with cloud() as (emulator, client):
        server = await deploy_play_and_stop(client)

        assert statuses(server)[-2:] in (["READY", "TERMINATED"], ["TERMINATING", "TERMINATED"])
        assert {change.source for change in server.history} == {"status"}
        assert requests_by_operation(emulator)["deploy"] == 1
        assert requests_by_operation(emulator)["stop_deployment"] == 1
        with pytest.raises(Gone):
            await client.deployments.stop(server.request_id)


async def test_a_server_is_deployed_played_and_stopped_by_webhooks(cloud: Cloud) -> None:
    async with (
        WebhookReceiver().serve() as receiver,
        cloud(webhooks=receiver, polling=RARE) as (_, client),
    ):
        server = await deploy_play_and_stop(client)

        sources = {str(change.status): change.source for change in server.history}
        assert sources["READY"] == "webhook"
        assert sources["TERMINATED"] == "webhook"
        assert receiver.stats.received == 2


async def test_a_receiver_mounted_in_the_studios_own_application_gets_the_webhooks(
    cloud: Cloud,
) -> None:
    runner = web.AppRunner(web.Application())
    with socket.create_server(("127.0.0.1", 0)) as listening:
        receiver = WebhookReceiver(f"http://127.0.0.1:{listening.getsockname()[1]}")
        receiver.attach(runner.app)
        await runner.setup()
        await web.SockSite(runner, listening).start()
        try:
            async with (
                cloud(webhooks=receiver, polling=RARE) as (_, client),
                client.run("arena", "v1", users=USERS) as server,
            ):
                assert server.history[-1].source == "webhook"
        finally:
            await runner.cleanup()


async def test_run_gives_a_server_that_players_reach_and_stops_it(cloud: Cloud) -> None:
    async with cloud() as (_, client):
        async with client.run("arena", "v1", users=USERS, timeout=20) as server:
            assert await play(server.endpoint(), "ping") == ["pong"]

        await server.wait_terminated(timeout=20)


async def test_a_crash_is_an_error_with_its_exit_code_and_last_output(cloud: Cloud) -> None:
    program = Application(
        name="broken",
        version="v1",
        argv=("{python}", "-c", "import sys; print('out of ammunition'); sys.exit(3)"),
        ports=sample_application().ports,
    )
    async with cloud(program) as (_, client):
        server = await client.deploy("broken", "v1", users=USERS)
        with pytest.raises(DeploymentFailed, match=server.request_id) as failure:
            await server.wait_ready(timeout=20)
        logs = await client.deployments.logs(server.request_id)
        await server.stop(wait=True, timeout=20)

    assert failure.value.error_detail
    assert failure.value.last_status is Status.ERROR
    assert failure.value.history == server.history[: len(failure.value.history)]
    assert logs.crash_data is not None
    assert logs.crash_data.exit_code == 3
    assert "out of ammunition" in (logs.crash_logs or "")


async def test_a_crash_during_a_match_is_a_change_to_error(cloud: Cloud) -> None:
    async with cloud(sample_application("--crash-after", "1.5")) as (_, client):
        server = await client.deploy("arena", "v1", users=USERS)
        await server.wait_ready(timeout=20)
        seen = [change.status async for change in server.changes()]

    assert seen[-2:] == [Status.READY, Status.ERROR]


async def test_a_server_that_never_opens_its_port_is_an_error_that_names_the_port(
    cloud: Cloud,
) -> None:
    silent = attrs.evolve(sample_application("--never-bind"), time_to_deploy=0.3)
    async with cloud(silent) as (_, client):
        server = await client.deploy("arena", "v1", users=USERS)
        with pytest.raises(DeploymentFailed, match="not opened") as failure:
            await server.wait_ready(timeout=20)

    assert "/udp" in failure.value.error_detail


async def test_a_wait_that_times_out_leaves_the_deployment_running(cloud: Cloud) -> None:
    async with cloud(sample_application("--bind-after", "30")) as (_, client):
        server = await client.deploy("arena", "v1", users=USERS)
        with pytest.raises(WaitTimedOut, match="still exists"):
            await server.wait_ready(timeout=0.5)

        assert (await server.refresh()).current_status is Status.DEPLOYING


async def test_a_stop_before_ready_takes_effect_once_it_is_ready(cloud: Cloud) -> None:
    timings = Timings.fast()
    async with cloud(sample_application("--bind-after", "0.5"), timings=timings) as (_, client):
        server = await client.deploy("arena", "v1", users=USERS)
        answer = await client.deployments.stop(server.request_id)
        await server.wait_terminated(timeout=20)

    assert answer.deployment_summary is None
    assert "processed soon" in (answer.message or "")


async def test_waiting_for_ready_of_a_stopped_deployment_raises_deployment_terminated(
    cloud: Cloud,
) -> None:
    async with cloud() as (_, client):
        server = await client.deploy("arena", "v1", users=USERS)
        await server.wait_ready(timeout=20)
        await server.stop(wait=True, timeout=20)
        with pytest.raises(DeploymentTerminated):
            await client.handle(server.request_id).wait_ready(timeout=20)


async def test_a_game_server_stops_itself(cloud: Cloud) -> None:
    async with cloud(sample_application("--stop-self-after", "1")) as (emulator, client):
        server = await client.deploy("arena", "v1", users=USERS)
        await server.wait_ready(timeout=20)
        await server.wait_terminated(timeout=20)

        assert requests_by_operation(emulator)["stop_self"] == 1
        assert requests_by_operation(emulator)["stop_deployment"] == 0


async def test_a_log_is_followed_until_the_crash(cloud: Cloud) -> None:
    async with cloud(sample_application("--crash-after", "2")) as (_, client):
        server = await client.deploy("arena", "v1", users=USERS)
        log = "".join([text async for text in server.follow_logs()])

        assert log.startswith("starting on port ")
        assert log.endswith("ready\ncrashing\n")
        assert server.status == Status.ERROR


async def test_private_hosts_are_tried_in_order_before_the_public_cloud(cloud: Cloud) -> None:
    small = attrs.evolve(sample_application(), cpu_units=1024, memory_mb=512)
    fleet = Fleet(
        name="alpha",
        hosts=(
            PrivateHost(host_id="alpha-1", cpu_units=1024),
            PrivateHost(host_id="alpha-2", cpu_units=1024, city="Paris"),
            PrivateHost(host_id="alpha-3", status="PENDING"),
        ),
    )
    async with cloud(small, fleets=(fleet,)) as (_, client):
        wanted = ["alpha-3", "alpha-2", "alpha-1"]
        cities = []
        for _ in range(3):
            server = await client.deploy("arena", "v1", users=USERS, private_host_ids=wanted)
            deployment = await server.wait_ready(timeout=20)
            cities.append(deployment.location.city if deployment.location else None)
        hosts = {host.host_id: host for host in (await client.private_fleets.hosts("alpha")).data}

    assert cities == ["Paris", "Montreal", "Montreal"]
    assert hosts["alpha-1"].allocated_cpu_units == 1024
    assert hosts["alpha-3"].status == "PENDING"


async def test_a_bulk_stop_ends_the_matching_deployments_and_no_others(cloud: Cloud) -> None:
    async with cloud() as (_, client):
        servers = [
            await client.deploy("arena", "v1", users=USERS, tags=[tag])
            for tag in ("casual", "casual", "ranked")
        ]
        await asyncio.gather(*(server.wait_ready(timeout=20) for server in servers))
        stopped = await client.deployments.bulk_stop([StopFilter("deployment_tags", ["casual"])])
        await asyncio.gather(*(server.wait_terminated(timeout=20) for server in servers[:2]))
        left = [row.request_id async for row in client.deployments.list()]

    assert set(stopped.request_ids) == {server.request_id for server in servers[:2]}
    assert left == [servers[2].request_id]


async def test_ten_matches_at_once_have_ten_servers(cloud: Cloud) -> None:
    async with cloud() as (emulator, client):

        async def match() -> tuple[str, int]:
            async with client.run("arena", "v1", users=USERS, timeout=30) as server:
                game = server.endpoint("game")
                assert await play(game, "ping") == ["pong"]
                return server.request_id, game.port

        ran = await asyncio.gather(*(match() for _ in range(10)))

        assert len(set(ran)) == 10
        assert requests_by_operation(emulator)["deploy"] == 10
        assert requests_by_operation(emulator)["stop_deployment"] == 10
        assert all(request.status != 429 for request in emulator.requests)


async def test_no_process_is_left_when_the_emulator_is_closed(cloud: Cloud) -> None:
    program_that_resists = sample_application("--ignore-sigterm", "--fork-setsid")
    async with cloud(program_that_resists) as (_, client):
        server = await client.deploy("arena", "v1", users=USERS)
        await server.wait_ready(timeout=20)
        program = str(Path(program_that_resists.argv[2]).name)
        children = psutil.Process().children(recursive=True)
        assert any(program in " ".join(process.cmdline()) for process in children)

    port = str(server.endpoint("game").port)
    for process in psutil.process_iter(["cmdline"]):
        assert not {program, port} <= {Path(part).name for part in process.info["cmdline"] or ()}


async def test_run_stops_the_deployment_in_error_that_a_full_cloud_has_made(cloud: Cloud) -> None:
    async with cloud(max_deployments=1) as (emulator, client):
        await client.deploy("arena", "v1", users=USERS)
        with pytest.raises(Unprocessable) as refusal:
            async with client.run("arena", "v1", users=USERS):
                pytest.fail("the cloud was full")

        assert refusal.value.request_id
        assert requests_by_operation(emulator)["stop_deployment"] == 1


async def test_the_error_of_a_wrong_token_says_what_to_check(cloud: Cloud) -> None:
    async with (
        cloud() as (emulator, _),
        EdgegapClient("canary-not-the-token", base_url=emulator.url) as stranger,
    ):
        with pytest.raises(Unauthorized, match="EDGEGAP_API_TOKEN"):
            await stranger.locations.list()


async def test_an_unknown_deployment_is_not_found_although_the_api_says_400(cloud: Cloud) -> None:
    async with cloud() as (_, client):
        with pytest.raises(NotFound) as refusal:
            await client.deployments.get("000000000000")

    assert refusal.value.status == 400


async def test_a_cancelled_run_leaves_no_server(cloud: Cloud) -> None:
    async with cloud(sample_application("--bind-after", "1")) as (emulator, client):

        async def match() -> None:
            async with client.run("arena", "v1", users=USERS):
                pytest.fail("the server was READY before the cancellation")

        running = asyncio.create_task(match())
        async with asyncio.timeout(10):
            while not requests_by_operation(emulator)["get_deployment"]:
                await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

        assert requests_by_operation(emulator)["stop_deployment"] == 1


async def test_a_port_is_used_again_after_its_server_has_ended() -> None:
    # Outside the range from which the kernel gives ports to sockets bound to port 0.
    ports = Ports(range(20000, 30000), asyncio.get_running_loop().time)
    [number] = ports.allocate(1)
    ports.close()
    async with (
        Emulator(
            [sample_application()],
            timings=Timings.fast(),
            port_range=range(number, number + 1),
            port_reuse_delay=0,
        ) as emulator,
        EdgegapClient(emulator.token, base_url=emulator.url, polling=QUICK) as client,
    ):
        for _ in range(2):
            server = await client.deploy("arena", "v1", users=USERS)
            await server.wait_ready(timeout=20)
            assert server.endpoint().port == number
            with pytest.raises(Unprocessable):
                await client.deploy("arena", "v1", users=USERS)
            await server.stop(wait=True, timeout=20)
