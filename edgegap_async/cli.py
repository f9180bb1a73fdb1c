"""The command line: `python -m edgegap_async demo` shows the whole job, from deploy to stopped.

At home it starts the emulator and the sample game server that ships with it; with `--live` the
same job runs in the cloud. Exit status: 0 all went well, 1 it did not, 2 the command line is
wrong, 130 interrupted, 143 ended by SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

import attrs

from .api.models import Endpoint, Status
from .client import EdgegapClient
from .deployments.handle import DeploymentHandle
from .errors import EdgegapError, InvalidRequest
from .http.transport import VERSION
from .polling.schedule import PollingPolicy
from .webhooks.receiver import WebhookReceiver

__all__ = ["main"]

PLAYERS: Final = ("75.28.35.192", (45.508888, -73.561668))
RARE: Final = PollingPolicy(first_delay=3.0, interval=3.0)  # so that it is the webhook that tells
AT_ONCE: Final = 10
PATIENCE: Final = 2.0  # seconds that a game server has to answer a datagram


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status of the command line."""
    options = _parser().parse_args(arguments)
    try:
        asyncio.run(_demo(options))
    except (KeyboardInterrupt, asyncio.CancelledError) as end:  # Ctrl-C, SIGTERM
        print("interrupted; what was deployed has been asked to stop", file=sys.stderr)
        return 130 if isinstance(end, KeyboardInterrupt) else 143
    except EdgegapError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edgegap-async", description=(__doc__ or "").partition("\n\n")[0]
    )
    parser.add_argument("--version", action="version", version=f"edgegap-async {VERSION}")
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser(
        "demo",
        help="deploy, wait until READY, play, stop: by polling, by webhook, ten at once",
        description="Without --live it needs no account: everything runs on this machine.",
    )
    demo.add_argument(
        "--live",
        nargs=2,
        metavar=("APP", "VERSION"),
        help="in the cloud, with the token of EDGEGAP_API_TOKEN; it costs what it runs",
    )
    demo.add_argument(
        "--public-url",
        metavar="URL",
        help="with --live: how the cloud reaches this machine, for the part with webhooks",
    )
    demo.add_argument(
        "--webhook-port", type=int, default=0, metavar="PORT", help="port that URL leads to"
    )
    return parser


@attrs.frozen
class _Stage:
    """Where the demo plays."""

    application: str
    version: str
    open_client: Callable[[WebhookReceiver | None, PollingPolicy | None], EdgegapClient]
    receiver: WebhookReceiver | None


@attrs.frozen
class _Told:
    """A line of the summary."""

    part: str
    request_id: str
    ready_after: float
    told_by: str
    looks: int


async def _demo(options: argparse.Namespace) -> None:
    this = asyncio.current_task()
    assert this is not None  # noqa: S101 - a coroutine runs in a task
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
    async with _stage(options) as stage:
        told: list[_Told] = []
        requests = 0
        async with stage.open_client(None, None) as client:
            _title("One server, told by polling")
            told.append(await _one(stage, client, "polling"))
            requests += client.requests_sent
        if stage.receiver is None:
            _title("Told by webhook: left out, it needs --public-url")
        else:
            _title("One server, told by webhook")
            async with (
                stage.receiver.serve(port=options.webhook_port),
                stage.open_client(stage.receiver, RARE) as client,
            ):
                told.append(await _one(stage, client, "webhook"))
                requests += client.requests_sent
        _title(f"{AT_ONCE} servers at once")
        async with stage.open_client(None, None) as client:
            told += await _many(stage, client)
            requests += client.requests_sent
    _title("Summary")
    print("  part      deployment    READY after  told by  status looks")
    for line in told:
        print(
            f"  {line.part:<8}  {line.request_id:<12}  {line.ready_after:9.2f} s"
            f"  {line.told_by:<7}  {line.looks:>12}"
        )
    print(f"  {len(told)} deployments, {requests} requests, every server stopped")


def _from_environment(
    hooks: WebhookReceiver | None, polling: PollingPolicy | None
) -> EdgegapClient:
    return EdgegapClient(webhooks=hooks, polling=polling)


@contextlib.asynccontextmanager
async def _stage(options: argparse.Namespace) -> AsyncIterator[_Stage]:
    if options.live:
        application, version = options.live
        receiver = WebhookReceiver(options.public_url) if options.public_url else None
        yield _Stage(application, version, _from_environment, receiver)
        return
    try:
        from .emulator import Emulator, sample_application  # noqa: PLC0415 - needs an extra
    except ImportError as error:
        raise InvalidRequest(
            f"the emulator needs {error.name}: pip install 'edgegap-async[emulator]'"
        ) from None
    sample = sample_application()
    async with Emulator(apps=[sample], sample_every=0.2) as emulator:
        print(f"The emulator serves {sample.name} {sample.version} at {emulator.url}")
        token, url = emulator.token, emulator.url
        yield _Stage(
            sample.name,
            sample.version,
            lambda hooks, polling: EdgegapClient(
                token, base_url=url, webhooks=hooks, polling=polling
            ),
            WebhookReceiver(),
        )


async def _one(stage: _Stage, client: EdgegapClient, part: str) -> _Told:
    began = time.monotonic()
    server = await client.deploy(
        stage.application, stage.version, users=PLAYERS, tags=["demo", part]
    )
    ready_after, told_by = 0.0, ""
    try:
        print(f"  {0:6.2f} s  deployed for {PLAYERS[0]} and {PLAYERS[1]}: {server.request_id}")
        async for change in server.changes():
            now = time.monotonic() - began
            print(f"  {now:6.2f} s  {change.status.short:<12} ({change.source})")
            if change.status is Status.READY:
                ready_after, told_by = now, change.source
                await _use(client, server)
                await server.stop()
        if not told_by:
            await server.wait_ready()  # raises what became of it instead
    except BaseException:
        await server.stop()
        raise
    return _Told(part, server.request_id, ready_after, told_by, server.status_requests)


async def _use(client: EdgegapClient, server: DeploymentHandle) -> None:
    place = server.deployment.location if server.deployment else None
    if place is not None:
        print(f"            in {place.city}, {place.country}")
    await _play(server)
    await client.tags.create(server.request_id, "played")
    tags = await client.tags.list(server.request_id)
    print(f"            tags: {', '.join(tag.name for tag in tags.tags)}")
    await _print_logs(client, server)


async def _print_logs(client: EdgegapClient, server: DeploymentHandle) -> None:
    logs = await client.deployments.logs(server.request_id)
    for line in (logs.logs or "").splitlines()[-3:]:
        print(f"            log: {line}")
    metrics = await client.deployments.metrics(server.request_id)
    memory = [value for value in metrics.mem.datasets if value is not None]
    if memory:
        print(f"            metrics: {len(memory)} samples, memory {memory[-1]:,.0f}")


async def _many(stage: _Stage, client: EdgegapClient) -> list[_Told]:
    async def one() -> _Told:
        began = time.monotonic()
        async with client.run(
            stage.application, stage.version, users=PLAYERS, tags=["demo"]
        ) as server:
            ready_after = time.monotonic() - began
            print(f"  {ready_after:6.2f} s  READY: {server.request_id} at {_port(server)}")
            told_by = server.history[-1].source
            return _Told("at once", server.request_id, ready_after, told_by, server.status_requests)

    try:
        async with asyncio.TaskGroup() as group:  # an error ends the others, which stop theirs
            tasks = [group.create_task(one()) for _ in range(AT_ONCE)]
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]


def _port(server: DeploymentHandle) -> Endpoint:
    """The port to play on: the one for UDP, if there is one."""
    ports = server.deployment.ports if server.deployment else {}
    names = sorted(ports, key=lambda name: (ports[name].protocol or "").upper() != "UDP")
    return server.endpoint(names[0] if names else None)


async def _play(server: DeploymentHandle) -> None:
    game = _port(server)
    print(f"            playing at {game} ({game.protocol})")
    if game.protocol != "UDP":
        return
    async with _connected(game) as (send, answers):
        for words in ("join Ada", "move north", "ping"):
            send(words.encode())
            try:
                async with asyncio.timeout(PATIENCE):
                    answer = (await answers.get()).decode("utf-8", "replace").strip()
            except TimeoutError:
                answer = f"no answer in {PATIENCE:g} s"
            print(f"            {words!r} → {answer!r}")


@contextlib.asynccontextmanager
async def _connected(
    game: Endpoint,
) -> AsyncIterator[tuple[Callable[[bytes], None], asyncio.Queue[bytes]]]:
    answers = asyncio.Queue[bytes]()

    class Player(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: tuple[str | object, int]) -> None:
            del addr
            answers.put_nowait(data)

    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        Player, remote_addr=(game.host, game.port)
    )
    try:
        yield transport.sendto, answers
    finally:
        transport.close()


def _title(text: str) -> None:
    print(f"\n{text}")
