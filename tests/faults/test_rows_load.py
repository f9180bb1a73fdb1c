"""Many calls at once: file descriptors, stuck connections. Rows 34 and 36."""

from __future__ import annotations

import asyncio
import sys

import pytest
from emulator_record import living, requests_by_operation
from quick_client import NO_LIMITS, USERS, quick_client
from scripted_api import Reply, ScriptedApi, deployment

from edgegap_async.emulator import Emulator

DEPLOY = ("POST", "/v2/deployments")
STATUS = ("GET", "/v1/status/abc123")
STOP = ("DELETE", "/v1/stop/abc123")
LIST = ("GET", "/v1/deployments")

OUT_OF_FILES = """
import asyncio, logging, os, resource, sys
from edgegap_async import EdgegapClient, RetryPolicy
from edgegap_async.errors import NotSent

logging.getLogger("asyncio").setLevel(logging.ERROR)  # no warnings of slow steps
opened = []

def open_all_files():
    resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
    try:
        while True:
            opened.append(os.dup(0))
    except OSError:
        pass

class ClosesFiles(logging.Handler):
    def emit(self, record):  # the log announces the retry
        while opened:
            os.close(opened.pop())

async def main(url):
    retries = RetryPolicy(first_wait=0.01)
    async with EdgegapClient("canary-t", base_url=url, retries=retries) as client:
        open_all_files()
        try:
            await client.deploy("arena", "v1", users=["8.8.8.8"])
        except NotSent as error:
            print(error.attempts, error.maybe_created, "Too many open files" in str(error))
        log = logging.getLogger("edgegap_async.http.api_client")
        log.setLevel(logging.INFO)
        log.addHandler(ClosesFiles())
        server = await client.deploy("arena", "v1", users=["8.8.8.8"])
        print(server.request_id)

asyncio.run(main(sys.argv[1]))
"""


async def test_row_34_without_free_file_descriptors_nothing_is_sent_and_a_retry_succeeds(
    emulator: Emulator,
) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-X", "dev", "-W", "error", "-c", OUT_OF_FILES, emulator.url),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    [request_id] = living(emulator)

    assert output.decode().splitlines() == ["4 False True", request_id]
    assert requests_by_operation(emulator)["deploy"] == 1


async def test_row_36_lists_without_an_answer_delay_no_other_call(api: ScriptedApi) -> None:
    released = asyncio.Event()
    api.on(*LIST, Reply(after=released))
    api.on(*STATUS, deployment("READY"))
    api.on(*STOP, Reply())
    api.on(*DEPLOY, Reply(202, {"request_id": "abc123"}))
    async with quick_client(api.url, limits=NO_LIMITS) as client:
        lists = [asyncio.create_task(client.deployments.list().page(1)) for _ in range(150)]
        await api.until_asked(*LIST, times=100)
        try:
            async with asyncio.timeout(20):
                server = await client.deploy("arena", "v1", users=USERS)
                await server.wait_ready()
                await server.stop()
            assert not any(call.done() for call in lists)
        finally:
            released.set()
        await asyncio.gather(*lists)


@pytest.mark.parametrize("others", [DEPLOY, STATUS], ids=["deploys", "status requests"])
async def test_row_36_a_stop_is_sent_while_all_other_calls_are_stuck(
    api: ScriptedApi, others: tuple[str, str]
) -> None:
    released = asyncio.Event()
    api.on(*DEPLOY, Reply(202, {"request_id": "abc123"}, after=released))
    api.on(*STATUS, Reply(200, deployment("READY").body, after=released))
    api.on(*STOP, Reply())
    async with quick_client(api.url, limits=NO_LIMITS) as client:

        async def other() -> None:
            if others is STATUS:
                await client.deployments.get("abc123")
            else:
                await client.deployments.deploy("arena", "v1", users=USERS)

        stuck = [asyncio.create_task(other()) for _ in range(150)]
        await api.until_asked(*others, times=100)
        try:
            async with asyncio.timeout(20):
                await client.deployments.stop("abc123")
        finally:
            released.set()
        await asyncio.gather(*stuck)

    assert len(api.asked(*STOP)) == 1
