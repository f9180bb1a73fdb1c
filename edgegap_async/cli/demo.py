"""The demo: deploys servers, waits until they are READY, plays, and stops them.

Without an application it starts the emulator with its sample game; otherwise it uses Edgegap.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Final

import attrs

from edgegap_async.api.models import Endpoint, Status
from edgegap_async.client import EdgegapClient
from edgegap_async.deployments.handle import DeploymentHandle
from edgegap_async.polling.schedule import PollingPolicy
from edgegap_async.webhooks.receiver import WebhookReceiver

_PLAYERS: Final = ("75.28.35.192", (45.508888, -73.561668))
_SLOW_POLLING: Final = PollingPolicy(first_delay=3.0, interval=3.0)  # so the webhook comes first
_SERVERS_AT_ONCE: Final = 10
_ANSWER_TIMEOUT: Final = 2.0  # seconds for the game server to answer one datagram
_METRICS_INTERVAL: Final = 0.2  # seconds; short enough for a sample while the demo plays
_LOG_LINES: Final = 3
_SOURCES: Final = {"status": "status request", "list": "list request", "webhook": "webhook"}


@attrs.frozen
class _Target:
    """What the demo deploys, and with which client."""

    application: str
    version: str
    receiver: WebhookReceiver | None
    """None if Edgegap cannot reach this machine."""
    token: str | None = attrs.field(default=None, repr=False)
    """None for that of the environment."""
    base_url: str | None = None
    """None for that of the environment."""

    def client(
        self, *, webhooks: WebhookReceiver | None = None, polling: PollingPolicy | None = None
    ) -> EdgegapClient:
        """Returns a client that can deploy it."""
        return EdgegapClient(self.token, base_url=self.base_url, webhooks=webhooks, polling=polling)


@attrs.frozen
class _Result:
    """One line of the summary."""

    part: str
    request_id: str
    ready_after: float
    """Seconds from the call of deploy to READY."""
    source: str
    """What the client learned of READY from."""
    status_requests: int


async def run_demo(
    application: str | None, version: str | None, *, public_url: str | None, webhook_port: int
) -> None:
    """Runs the three parts of the demo and prints a summary.

    Args:
        application: what to deploy on Edgegap; None for the emulator's sample game.
        version: its version; None with no application.
        public_url: the URL at which Edgegap reaches this machine; None leaves out the webhook part,
            except with the emulator.
        webhook_port: the local port that `public_url` leads to; 0 for a free one.

    Raises:
        EdgegapError: a call failed, or a setting is invalid.
    """
    results: list[_Result] = []
    requests = 0
    async with _target(application, version, public_url) as target:
        _print_title("1. One server; the client polls its status")
        async with target.client() as client:
            results.append(await _run_one(target, client, "polling"))
            requests += client.requests_sent
        if target.receiver is None:
            _print_title("2. One server with webhooks: left out, because --public-url is not given")
        else:
            _print_title("2. One server; a webhook announces READY")
            async with (
                target.receiver.serve(port=webhook_port),
                target.client(webhooks=target.receiver, polling=_SLOW_POLLING) as client,
            ):
                results.append(await _run_one(target, client, "webhook"))
                requests += client.requests_sent
        _print_title(f"3. {_SERVERS_AT_ONCE} servers at once")
        async with target.client() as client:
            results += await _run_many(target, client)
            requests += client.requests_sent
    _print_summary(results, requests)


@contextlib.asynccontextmanager
async def _target(
    application: str | None, version: str | None, public_url: str | None
) -> AsyncIterator[_Target]:
    if application is not None and version is not None:
        yield _Target(application, version, WebhookReceiver(public_url) if public_url else None)
        return
    from edgegap_async.emulator import Emulator, sample_application  # needs an extra

    sample = sample_application()
    async with Emulator(apps=[sample], metrics_interval=_METRICS_INTERVAL) as emulator:
        print(
            f"The emulator at {emulator.url} runs the sample game {sample.name!r}, version"
            f" {sample.version}.\nTimes are seconds since the client was asked to deploy."
        )
        yield _Target(
            sample.name,
            sample.version,
            WebhookReceiver(),
            token=emulator.token,
            base_url=emulator.url,
        )


async def _run_one(target: _Target, client: EdgegapClient, part: str) -> _Result:
    began = time.monotonic()

    def print_step(text: str) -> None:
        print(f"  {time.monotonic() - began:6.2f} s  {text}")

    server = await client.deploy(
        target.application, target.version, users=_PLAYERS, tags=["demo", part]
    )
    ready_after, source = 0.0, ""
    try:
        print_step(f"deployment {server.request_id} accepted, for players at {_players()}")
        async for change in server.changes():
            print_step(f"{change.status:<12} (from a {_SOURCES[change.source]})")
            if change.status is Status.READY:
                ready_after, source = time.monotonic() - began, change.source
                await _use(client, server)
                print_step("stop the server")
                await server.stop()
        if not source:
            await server.wait_ready()  # raises the reason
    except BaseException:
        await server.stop()
        raise
    return _Result(part, server.request_id, ready_after, source, server.status_requests)


async def _run_many(target: _Target, client: EdgegapClient) -> list[_Result]:
    async def run_one() -> _Result:
        began = time.monotonic()
        async with client.run(
            target.application, target.version, users=_PLAYERS, tags=["demo"]
        ) as server:
            ready_after = time.monotonic() - began
            source = server.history[-1].source
            print(
                f"  {ready_after:6.2f} s  {server.request_id} is READY at {_game_endpoint(server)}"
                f" (from a {_SOURCES[source]})"
            )
            return _Result(
                "at once", server.request_id, ready_after, source, server.status_requests
            )

    try:
        async with asyncio.TaskGroup() as group:  # an error ends the other tasks, which stop theirs
            tasks = [group.create_task(run_one()) for _ in range(_SERVERS_AT_ONCE)]
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]


async def _use(client: EdgegapClient, server: DeploymentHandle) -> None:
    location = server.deployment.location if server.deployment else None
    if location is not None:
        _print_detail(f"location: {location.city}, {location.country}")
    await _play(server)
    await client.tags.create(server.request_id, "played")
    tags = [tag.name async for tag in client.tags.list(server.request_id)]
    _print_detail(f"tags: {', '.join(tags)}")
    logs = await client.deployments.logs(server.request_id)
    for line in (logs.logs or "").splitlines()[-_LOG_LINES:]:
        _print_detail(f"server's log: {line}")
    metrics = await client.deployments.metrics(server.request_id)
    memory = [value for value in metrics.mem.datasets if value is not None]
    if memory:  # bytes in the emulator; the API documents no unit
        _print_detail(f"memory: {memory[-1]:,.0f} bytes, the last of {len(memory)} samples")


async def _play(server: DeploymentHandle) -> None:
    endpoint = _game_endpoint(server)
    _print_detail(f"address: {endpoint} ({endpoint.protocol})")
    if endpoint.protocol != "UDP":
        return
    async with _datagrams(endpoint) as (send, received):
        for message in ("join Ada", "move north", "ping"):
            send(message.encode())
            try:
                async with asyncio.timeout(_ANSWER_TIMEOUT):
                    answer = repr((await received.get()).decode("utf-8", "replace").strip())
            except TimeoutError:
                answer = f"no answer within {_ANSWER_TIMEOUT:g} s"
            _print_detail(f"sent {message!r}, received {answer}")


@contextlib.asynccontextmanager
async def _datagrams(
    endpoint: Endpoint,
) -> AsyncIterator[tuple[Callable[[bytes], None], asyncio.Queue[bytes]]]:
    received = asyncio.Queue[bytes]()

    class Player(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: tuple[str | object, int]) -> None:
            del addr
            received.put_nowait(data)

    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        Player, remote_addr=(endpoint.host, endpoint.port)
    )
    try:
        yield transport.sendto, received
    finally:
        transport.close()


def _game_endpoint(server: DeploymentHandle) -> Endpoint:
    """Returns the address to play on: of the UDP port, if the deployment has one."""
    ports = server.deployment.ports if server.deployment else {}
    names = sorted(ports, key=lambda name: (ports[name].protocol or "").upper() != "UDP")
    return server.endpoint(names[0] if names else None)


def _players() -> str:
    return " and ".join(
        player if isinstance(player, str) else "latitude {:.2f}, longitude {:.2f}".format(*player)
        for player in _PLAYERS
    )


def _print_title(text: str) -> None:
    print(f"\n{text}")


def _print_detail(text: str) -> None:
    print(f"            {text}")


def _print_summary(results: list[_Result], requests: int) -> None:
    _print_title("Summary")
    print("  part     deployment    READY after  learned from    status requests")
    for result in results:
        print(
            f"  {result.part:<7}  {result.request_id:<12}  {result.ready_after:9.2f} s"
            f"  {_SOURCES[result.source]:<14}  {result.status_requests:>15}"
        )
    print(f"  {len(results)} deployments, {requests} API requests; every server is stopped")
