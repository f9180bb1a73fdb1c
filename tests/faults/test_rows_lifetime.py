"""Faults of clocks, of the end of a program, and of other loops and threads. Rows 27, 30, 35."""

from __future__ import annotations

import asyncio
import gc
import itertools
import multiprocessing
import random
import signal
import sys
import time
import warnings
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
from emulator_record import until_living
from raw_server import raw_server, read_request
from scripted_api import Reply, ScriptedApi, deployment

from edgegap_async import EdgegapClient, RetryPolicy
from edgegap_async.deployments.idempotency import new_operation_tag
from edgegap_async.emulator import Delay, Emulator, Fault, Respond
from edgegap_async.errors import NotSent, WrongLoop

USERS = ["192.0.2.1"]
DEPLOY = ("POST", "/v2/deployments")
STATUS = ("GET", "/v1/status/abc123")
STOP = ("DELETE", "/v1/stop/abc123")
HOUR = 3600.0


@pytest.fixture
async def api() -> AsyncIterator[ScriptedApi]:
    async with ScriptedApi() as api:
        api.on(*DEPLOY, Reply(202, {"request_id": "abc123"}))
        api.on(*STATUS, deployment("READY"))
        api.on(*STOP, Reply())
        yield api


# ── clocks ───────────────────────────────────────────────────────────────────────────────────────


async def request_times(api: ScriptedApi) -> list[float]:
    """Returns the seconds from the first request to each of two runs with limits and retries."""
    api.requests.clear()
    api.on(*DEPLOY, Reply(429, headers={"Retry-After": "5"}), Reply(202, {"request_id": "abc123"}))
    api.on(*STATUS, Reply(500), deployment("DEPLOYING"), Reply(404), deployment("READY"))
    chance = random.getstate()
    random.seed(27)
    try:
        async with EdgegapClient("canary-t", base_url=api.url, limits={"deploy": 0.1}) as client:
            for _ in range(2):
                async with client.run("arena", "v1", users=USERS):
                    pass
    finally:
        random.setstate(chance)
    return [request.at - api.requests[0].at for request in api.requests]


@pytest.mark.virtual
async def test_row_27_a_wall_clock_that_jumps_by_hours_changes_no_wait(
    api: ScriptedApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = await request_times(api)
    jumps, now = itertools.cycle((-HOUR, HOUR, 20 * HOUR, 0.0)), time.time
    monkeypatch.setattr(time, "time", lambda: now() + next(jumps))

    assert await request_times(api) == pytest.approx(expected, abs=0.01)
    assert expected[-1] > 20  # the limits, Retry-After and polling did wait


def test_row_27_tags_made_at_the_same_wall_clock_time_are_different(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_750_000_000.0)

    assert len({new_operation_tag() for _ in range(1000)}) == 1000


# ── the end of a program ─────────────────────────────────────────────────────────────────────────

BEGIN = """
import asyncio, gc, logging, os, signal, sys
from edgegap_async import EdgegapClient, PollingPolicy

logging.basicConfig(stream=sys.stdout, level=logging.WARNING, format="%(message)s")
logging.getLogger("asyncio").setLevel(logging.ERROR)  # no warnings of slow steps

def a_client():
    polling = PollingPolicy(first_delay=0.01, interval=0.02)
    return EdgegapClient("canary-t", base_url=sys.argv[1], owner="mm-1", polling=polling)

async def use(client):
    async with client.run("arena", "v1", users=["8.8.8.8"]):
        print("in use", flush=True)
        await asyncio.sleep(60)

async def use_an_own_client():
    async with a_client() as client:
        await use(client)
"""

INTERRUPTED = """
try:
    asyncio.run(use_an_own_client())
except KeyboardInterrupt:
    print("interrupted")
"""

LEFT_RUNNING = """
async def main():
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, ended.set)
    uses = [asyncio.create_task(use_an_own_client()) for _ in range(3)]
    await ended.wait()  # asyncio.run cancels what is left

asyncio.run(main())
"""

FAILING = """
async def main():
    async with a_client() as client:
        async with client.run("arena", "v1", users=["8.8.8.8"]):
            print("in use", flush=True)
            sys.exit(3)

asyncio.run(main())
"""

CLOSED_IN_USE = """
async def main():
    async with a_client() as client:
        uses = [asyncio.create_task(use(client)) for _ in range(3)]
        server = await client.deploy("arena", "v1", users=["8.8.8.8"])
        await server.wait_ready()
        await server.stop()
        waiting = asyncio.create_task(server.wait_terminated(None))
        await asyncio.sleep(0.05)
        for task in uses:
            task.cancel()
        await client.close()
    outcomes = await asyncio.gather(*uses, waiting, return_exceptions=True)
    print(len(outcomes), "ended")

asyncio.run(main())
"""

DROPPED = """
async def main():
    client = a_client()
    using = asyncio.create_task(use(client))
    await asyncio.sleep(0.3)
    using.cancel()
    await asyncio.wait([using])
    await client.close()
    del client, using
    gc.collect()
    print("dropped")

asyncio.run(main())
gc.collect()
"""

NOT_CLOSED = """
async def make_calls(client):
    await client.locations.list()
    await client.handle((await client.deploy("arena", "v1", users=["8.8.8.8"])).request_id).stop()

async def in_a_loop_that_continues():
    await make_calls(a_client())
    gc.collect()
    await asyncio.sleep(0)
    print("collected")

async def until_the_program_ends():
    global kept
    kept = a_client()
    await make_calls(kept)

async def in_a_loop_that_ends():
    await make_calls(a_client())

async def never_used():
    a_client()
    try:
        EdgegapClient("canary-t", base_url="no URL")
    except Exception:
        pass

async def in_another_thread():
    await make_calls(a_client())
    await asyncio.to_thread(gc.collect)

asyncio.run(globals()[sys.argv[2]]())
print("ended")
"""

EXITING = """
from edgegap_async import ServerPool, Status
from edgegap_async.observability import Observer

REQUEST = {"application": "arena", "version": "v1", "users": ["8.8.8.8"]}
EXIT = {"exit": SystemExit(3), "interrupt": KeyboardInterrupt()}[sys.argv[3]]

class Exiting(Observer):
    def call_succeeded(self, call, result):
        if call.operation.name == sys.argv[4]:
            raise EXIT

def exiting_progress(progress):
    if progress.ready + progress.under_way.get(Status.READY, 0) >= 2:
        raise EXIT

async def exiting_check(server):
    await asyncio.sleep(0.05)
    raise EXIT

async def exiting_requests():
    for _ in range(3):
        yield REQUEST
        await asyncio.sleep(0.2)
    raise EXIT

async def batch(client, requests=(REQUEST,) * 3, **options):
    async with client.deploy_many(requests, stop_at_end=True, **options) as batch:
        async for outcome in batch:
            pass
        await asyncio.sleep(60)

async def progress(client):
    await batch(client, on_progress=exiting_progress)

async def check(client):
    await batch(client, playable=exiting_check)

async def iterator(client):
    await batch(client, exiting_requests())

async def retry(client):
    def exiting_retry(request, error):
        raise EXIT
    async def fail(server):
        return False
    await batch(client, playable=fail, timeout_each=0.5, attempts=2, retry_with=exiting_retry)

async def pool(client):
    async with ServerPool(client, **REQUEST, min_ready=2, playable=exiting_check) as pool:
        await asyncio.sleep(60)

async def waiting_pool(client):
    async with ServerPool(client, **REQUEST, min_ready=2, playable=exiting_check) as pool:
        async with pool.allocate():
            await asyncio.sleep(60)

async def adopting_pool(client):
    tags = ["pool-default"]
    server = await client.deploy(**REQUEST, tags=tags)
    await server.wait_ready()
    async with a_client() as successor:
        await waiting_pool(successor)

async def run(client):
    async with client.run(**REQUEST, playable=exiting_check):
        pass

async def children(client):
    async def child(number):
        async with client.run(**REQUEST):
            await asyncio.sleep(0.3 if number == 2 else 60)
            raise EXIT
    async with asyncio.TaskGroup() as group:
        for number in range(3):
            group.create_task(child(number))

async def observer(client):
    client.add_observer(Exiting())
    async with client.run(**REQUEST):
        await asyncio.sleep(0.1)
    await asyncio.sleep(60)

async def main():
    async with a_client() as client:
        await globals()[sys.argv[2]](client)

try:
    asyncio.run(main())
except BaseException as error:
    print(repr(error))
"""


class Program:
    """A child process that runs a program, with every warning as an error."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @classmethod
    async def start(cls, emulator: Emulator, text: str, *arguments: object) -> Program:
        return cls(
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-X", "dev", "-W", "error", "-c", BEGIN + text, emulator.url),
                *map(str, arguments),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        )

    async def line(self) -> str:
        assert self.process.stdout is not None
        return (await self.process.stdout.readline()).decode().strip()

    async def end(self) -> tuple[int | None, str, str]:
        """Waits for the end; returns the exit status, stdout and stderr."""
        output, errors = await self.process.communicate()
        return self.process.returncode, output.decode(), errors.decode()


async def test_row_30_ctrl_c_stops_the_server_and_prints_no_error(emulator: Emulator) -> None:
    program = await Program.start(emulator, INTERRUPTED)
    assert await program.line() == "in use"
    program.process.send_signal(signal.SIGINT)

    assert await program.end() == (0, "interrupted\n", "")
    await until_living(emulator)


async def test_row_30_servers_of_tasks_that_asyncio_run_cancels_at_its_end_are_stopped(
    emulator: Emulator,
) -> None:
    program = await Program.start(emulator, LEFT_RUNNING)
    for _ in range(3):
        assert await program.line() == "in use"
    program.process.send_signal(signal.SIGUSR1)

    assert await program.end() == (0, "", "")
    assert len(emulator.cloud.deployments) == 3
    await until_living(emulator)


async def test_row_30_a_deploy_that_the_end_of_the_program_interrupts_is_found_and_stopped(
    emulator: Emulator,
) -> None:
    emulator.faults.add(Fault("deploy", Delay(30), times=3))
    program = await Program.start(emulator, LEFT_RUNNING)
    async with asyncio.timeout(20):
        while emulator.open_requests < 3:
            await asyncio.sleep(0.002)
    program.process.send_signal(signal.SIGUSR1)
    status, _, errors = await program.end()

    assert (status, errors) == (0, "")
    assert len(emulator.cloud.deployments) == 3
    await until_living(emulator)


async def test_row_30_a_deploy_that_cannot_be_found_at_the_end_is_logged_and_recovered(
    emulator: Emulator,
) -> None:
    emulator.faults.add(Fault("deploy", Delay(30), times=3))
    emulator.faults.add(Fault("list_deployments", Respond(503), times=None))
    program = await Program.start(emulator, LEFT_RUNNING)
    async with asyncio.timeout(20):
        while emulator.open_requests < 3:
            await asyncio.sleep(0.002)
    program.process.send_signal(signal.SIGUSR1)
    status, output, errors = await program.end()
    emulator.faults.clear()

    assert (status, errors) == (0, "")
    assert output.count("may go on running") == len(emulator.cloud.deployments) == 3
    async with EdgegapClient("canary-t", base_url=emulator.url, owner="mm-1") as client:
        assert len(await client.reap()) == 3
    await until_living(emulator)


@pytest.mark.parametrize(
    ("text", "status", "last"),
    [(FAILING, 3, "in use"), (CLOSED_IN_USE, 0, "4 ended"), (DROPPED, 0, "dropped")],
    ids=["exits", "closes in use", "drops its client"],
)
async def test_row_30_a_program_that_ends_early_leaves_no_server_and_shows_no_warning(
    emulator: Emulator, text: str, status: int, last: str
) -> None:
    ended, output, errors = await (await Program.start(emulator, text)).end()

    assert (ended, errors) == (status, "")
    assert output.splitlines()[-1] == last
    await until_living(emulator)


@pytest.mark.parametrize(
    ("how", "warned"),
    [
        ("in_a_loop_that_continues", 1),
        ("in_another_thread", 1),
        ("in_a_loop_that_ends", 1),
        ("until_the_program_ends", 1),
        ("never_used", 0),
    ],
)
async def test_row_30_a_client_that_was_not_closed_warns_once_and_says_what_to_do(
    emulator: Emulator, how: str, warned: int
) -> None:
    status, output, errors = await (await Program.start(emulator, NOT_CLOSED, how)).end()

    assert (status, output.splitlines()[-1]) == (0, "ended")
    assert errors.count("ResourceWarning: a client of http://127.0.0.1:") == warned
    assert errors.count("or await client.close()\n") == warned
    for warning in ("Unclosed", "destroyed", "never retrieved", "never awaited"):
        assert warning not in errors
    # Only asyncio can close the sockets of a closed loop, and asyncio warns of each.
    assert "unclosed" not in errors or how in {"in_a_loop_that_ends", "until_the_program_ends"}


async def test_row_30_a_client_that_is_collected_closes_its_connections() -> None:
    closed = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n" + b'{"locations":[]}')
        assert await reader.read() == b""
        closed.set()

    async with raw_server(answer) as port:
        client = EdgegapClient("canary-t", base_url=f"http://127.0.0.1:{port}")
        await client.locations.list()
        assert not closed.is_set()
        del client
        # pytest would turn a warning in a finalizer into an error that no test can catch.
        with warnings.catch_warnings(record=True) as shown:
            warnings.simplefilter("always")
            gc.collect()
            async with asyncio.timeout(20):
                await closed.wait()

    [text] = [str(one.message) for one in shown if one.category is ResourceWarning]
    assert text.startswith(f"a client of http://127.0.0.1:{port} was not closed: use `async with")


EXITS = [
    *(
        (place, "exit", "SystemExit(3)")
        for place in (
            *("progress", "check", "iterator", "retry", "run", "children"),
            *("pool", "waiting_pool", "adopting_pool"),
            *("observer deploy", "observer get_deployment", "observer stop_deployment"),
        )
    ),
    *(
        (place, "interrupt", "KeyboardInterrupt()")
        for place in ("check", "pool", "observer deploy")
    ),
]


@pytest.mark.parametrize(("place", "kind", "shown"), EXITS)
async def test_row_67_a_program_that_exits_in_its_own_code_leaves_no_server(
    emulator: Emulator, place: str, kind: str, shown: str
) -> None:
    name, _, operation = place.partition(" ")
    program = await Program.start(emulator, EXITING, name, kind, operation)
    async with asyncio.timeout(30):
        status, output, errors = await program.end()

    assert (status, errors) == (0, "")
    assert shown in output.splitlines()
    assert "may go on running" not in output
    assert emulator.cloud.deployments
    await until_living(emulator)


# ── other loops ──────────────────────────────────────────────────────────────────────────────────


async def get_status(client: EdgegapClient) -> None:
    await client.deployments.get("abc123")


async def deploy(client: EdgegapClient) -> None:
    await client.deploy("arena", "v1", users=USERS)


async def run(client: EdgegapClient) -> None:
    async with client.run("arena", "v1", users=USERS):
        pytest.fail("it has a server")


async def wait(client: EdgegapClient) -> None:
    await client.handle("abc123").wait_ready(5)


async def close(client: EdgegapClient) -> None:
    await client.close()


Use = Callable[[EdgegapClient], Coroutine[Any, Any, None]]
USES = pytest.mark.parametrize("use", [get_status, deploy, run, wait, close])


def outcome_of(use: Use, client: EdgegapClient) -> BaseException | None:
    """Uses a client in a new loop; returns the WrongLoop that this raises, or None."""
    try:
        asyncio.run(use(client))
    except WrongLoop as error:
        return error
    return None


@USES
async def test_row_35_a_call_from_another_thread_raises_wrong_loop(
    api: ScriptedApi, use: Use
) -> None:
    async with EdgegapClient("canary-t", base_url=api.url) as client:
        await get_status(client)
        error = await asyncio.to_thread(outcome_of, use, client)
        await get_status(client)  # the client still works in its own loop

    assert isinstance(error, WrongLoop)
    assert "Make one client for each event loop" in str(error)
    assert {request.path for request in api.requests} == {STATUS[1]}
    assert len(api.requests) == 2


@USES
def test_row_35_a_call_from_a_second_loop_raises_wrong_loop_after_the_first_has_ended(
    use: Use,
) -> None:
    async def first_use() -> EdgegapClient:
        async with ScriptedApi() as api:
            api.on(*STATUS, deployment("READY"))
            client = EdgegapClient("canary-t", base_url=api.url)
            await get_status(client)
            await client._transport.close()  # and not the client, which stays bound to the loop
            return client

    client = asyncio.run(first_use())

    assert isinstance(outcome_of(use, client), WrongLoop)


def _send_outcome(client: EdgegapClient, pipe: Any) -> None:
    pipe.send(repr(outcome_of(get_status, client)))


def test_row_35_a_call_in_a_forked_process_raises_wrong_loop() -> None:
    outcomes: list[str] = []

    async def main() -> None:
        async with ScriptedApi() as api, EdgegapClient("canary-t", base_url=api.url) as client:
            api.on(*STATUS, deployment("READY"))
            await get_status(client)
            outcomes.append(await asyncio.to_thread(fork, client))
            await get_status(client)

    def fork(client: EdgegapClient) -> str:
        forks = multiprocessing.get_context("fork")
        ours, theirs = forks.Pipe()
        process = forks.Process(target=_send_outcome, args=(client, theirs))
        process.start()
        process.join(10)
        assert ours.poll()
        return str(ours.recv())

    asyncio.run(main())

    assert "WrongLoop" in outcomes[0]


def test_row_35_a_client_made_outside_a_loop_can_be_used_in_a_loop(closed_port: int) -> None:
    url = f"http://127.0.0.1:{closed_port}"
    client = EdgegapClient("canary-t", base_url=url, retries=RetryPolicy(attempts=1))

    async def main() -> None:
        async with client:
            with pytest.raises(NotSent):
                await get_status(client)

    asyncio.run(main())
