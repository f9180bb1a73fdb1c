"""A program that fails in every way the emulator offers, and prints what its errors show.

Its secrets are EDGEGAP_API_TOKEN; HIDDEN, the beginning of twenty hidden variables of its game
servers; and the random parts of webhook URLs, which begin with MARK. All three are environment
variables.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import pickle
import secrets
import sys
import traceback
from collections.abc import Awaitable, Callable

from edgegap_async import (
    EdgegapClient,
    EdgegapError,
    PollingPolicy,
    RetryPolicy,
    Timeouts,
    WebhookReceiver,
)
from edgegap_async.emulator import (
    Delay,
    Dribble,
    Drop,
    Emulator,
    Fault,
    Respond,
    Timings,
    Truncate,
    sample_application,
)
from edgegap_async.emulator.effects import Effect
from edgegap_async.requests import EnvironmentVariable

USERS = ["8.8.8.8"]
PAGE = "<html>" + "sorry " * 100
FAULTS: tuple[Effect, ...] = (
    *(Drop(), Truncate(), Dribble(0.05), Delay(0.15)),
    *(Respond(status) for status in (401, 404, 422, 500)),
    Respond(429, headers={"Retry-After": "0"}),
    *(Respond(202, "{"), Respond.html(), Respond(200, PAGE), Respond(200, b" " * 9_000_000)),
    *(Respond(307, headers={"Location": "http://127.0.0.1:9/?x"}), Respond.gzip_bomb(2**24)),
)
CERTAIN: tuple[Effect, ...] = (  # faults whose errors do not depend on the speed of the machine
    *(Drop(), Respond(422), Respond(500), Respond(202, "{")),
    Respond(429, headers={"Retry-After": "0"}),
)


def write(*parts: object) -> None:
    sys.stdout.write(" ".join(map(str, parts)) + "\n")


def write_error(error: BaseException) -> None:
    """Prints what a log, a debugger or a crash report shows of an error."""
    write(type(error).__name__, repr(error), error, vars(error))
    shown = traceback.TracebackException.from_exception(error, capture_locals=True)
    write("".join(shown.format()))
    with contextlib.suppress(TypeError):  # some of Python's own errors hold frames
        write(pickle.dumps(error))


async def attempt(work: Callable[[], Awaitable[object]], limit: float = 60) -> None:
    try:
        result = await asyncio.wait_for(work(), limit)
    except (EdgegapError, TimeoutError, ExceptionGroup) as error:
        write_error(error)
    else:
        write(repr(result), pickle.dumps(result))


def a_client(
    url: str, webhooks: WebhookReceiver | None = None, *, seconds: float = 30
) -> EdgegapClient:
    return EdgegapClient(
        base_url=url,
        webhooks=webhooks,
        owner="mm-1",
        list_delay=0,
        polling=PollingPolicy(first_delay=0.01, interval=0.02),
        retries=RetryPolicy(attempts=2, first_wait=0.01),
        timeouts=Timeouts(total=seconds),
    )


def hidden() -> list[EnvironmentVariable]:
    return [
        EnvironmentVariable(f"HIDDEN_{number}", f"{os.environ['HIDDEN']}{number}", is_hidden=True)
        for number in range(20)
    ]


async def deploy(client: EdgegapClient) -> str:
    server = await client.deploy("arena", "v1", users=USERS, environment_variables=hidden())
    return server.request_id


async def run(client: EdgegapClient) -> None:
    async with client.run("arena", "v1", users=USERS, environment_variables=hidden()):
        pass


async def fail_in_every_way(emulator: Emulator) -> None:
    receiver = WebhookReceiver()
    async with receiver.serve(), a_client(emulator.url, receiver) as client:
        request_id = await deploy(client)
        await client.handle(request_id).wait_ready(60)
        server = await client.deploy(
            "arena", "v1", users=USERS
        )  # its URLs are open while it is held
        while not receiver.stats.received:
            await asyncio.sleep(0.01)
        await server.stop()
        write("webhooks that came:", receiver.stats.received)
    async with receiver.serve(), a_client(emulator.url, receiver, seconds=0.1) as client:
        works: tuple[Callable[[], Awaitable[object]], ...] = (
            lambda: deploy(client),
            lambda: run(client),
            lambda: client.deployments.get(request_id),
            lambda: client.deployments.logs(request_id),
            client.reap,
        )
        others = ("deploy", "get_deployment", "get_container_logs", "stop_deployment")
        for what in FAULTS:
            for operations in (others, ("deploy", "list_deployments")):
                emulator.faults.clear()
                emulator.faults.add(*(Fault(name, what, times=2) for name in operations))
                await asyncio.gather(*(attempt(work, 0.2) for work in works))
        emulator.faults.clear()
    async with a_client(emulator.url) as client:
        for what in CERTAIN:
            emulator.faults.clear()
            emulator.faults.add(Fault(None, what, times=None))
            await attempt(lambda: deploy(client))
            await attempt(lambda: client.deployments.get(request_id))
        emulator.faults.clear()
    for url in ("http://127.0.0.1:9", emulator.url.replace("http", "https")):
        async with a_client(url) as client:
            await attempt(lambda: deploy(client))
    await attempt(lambda: deploy(client))  # the client is closed


def write_objects() -> None:
    variables = 0
    for one in gc.get_objects():
        if str(type(one).__module__).startswith("edgegap_async"):
            write(repr(one))
            is_hidden = isinstance(one, EnvironmentVariable) and one.is_hidden
            variables += is_hidden and os.environ["HIDDEN"] in one.value
    write("variables that hold the secret:", variables)


async def main() -> None:
    apps, timings = [sample_application()], Timings.fast()
    token = os.environ["EDGEGAP_API_TOKEN"]
    async with Emulator(apps, timings=timings, limits=False, token=token) as emulator:
        await fail_in_every_way(emulator)
        write_objects()


if __name__ == "__main__":
    draw = secrets.token_urlsafe
    secrets.token_urlsafe = lambda nbytes=None: os.environ["MARK"] + draw(nbytes)
    logging.basicConfig(level=logging.DEBUG)
    asyncio.run(main())
