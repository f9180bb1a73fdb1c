"""What deployments cost, and what they give back: ports, output, descriptors."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from emulated_cloud import (
    ARENA,
    SLEEPER,
    a_cloud,
    deployed,
    files_left,
    python_application,
    reached,
    until,
)

from edgegap_async import Status
from edgegap_async.api.resources.deployments import DeploymentReport
from edgegap_async.emulator import AppPort
from edgegap_async.emulator.deployment_views import usage
from edgegap_async.emulator.metrics import Samples
from edgegap_async.emulator.processes import Usage
from edgegap_async.emulator.recorded_requests import RecordedRequest, RequestRecord
from edgegap_async.emulator.status_events import StatusEvents
from edgegap_async.errors import Unprocessable

CRASHING = python_application("import os; os._exit(1)", ports=(AppPort("game"),))


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_row_58_a_deployment_in_error_gives_its_port_back() -> None:
    async with a_cloud(CRASHING, port_range=range(30100, 30110), port_reuse_delay=0) as cloud:
        for _ in range(30):
            await reached(await deployed(cloud, CRASHING), Status.ERROR)


async def test_row_58_a_port_that_was_given_back_is_not_given_back_again() -> None:
    settings: dict[str, Any] = {"port_range": range(30110, 30111), "port_reuse_delay": 0}
    sleeper = python_application(
        "import time; time.sleep(60)", ports=(AppPort("g", to_check=False),)
    )
    crashing = python_application("import os; os._exit(1)", name="crashing", ports=(AppPort("g"),))
    async with a_cloud(crashing, sleeper, **settings) as cloud:
        first = await reached(await deployed(cloud, crashing), Status.ERROR)
        await reached(await deployed(cloud, sleeper), Status.READY)
        first.stop()
        await reached(first, Status.TERMINATED)

        with pytest.raises(Unprocessable, match="no port is left"):
            await deployed(cloud, sleeper)


async def test_row_58_the_output_of_a_crashed_server_is_kept_once_and_compressed() -> None:
    application = python_application(
        "import os; os.write(1, b'line\\n' * 300_000); os._exit(1)", ports=(AppPort("game"),)
    )
    async with a_cloud(application) as cloud:
        deployment = await reached(await deployed(cloud, application), Status.ERROR)
        await until(lambda: deployment.output.held_bytes < 100_000)
        logs = deployment.logs()

    assert logs.crash_logs == logs.logs
    assert len(logs.logs or "") == 2**20


def test_row_58_a_full_ring_of_measurements_takes_56_bytes_for_each() -> None:
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        samples = Samples()
        samples.start_process(0.0)
        for number in range(1, 2001):
            samples.add(Usage(at=number, memory_bytes=number * 1.5), datetime.now(UTC))
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert after - before < 900 * 56 * 1.25  # an array grows in steps


async def test_a_deployment_takes_two_descriptors_and_gives_them_back() -> None:
    async with a_cloud(ARENA) as cloud:
        first = await reached(await deployed(cloud, ARENA), Status.READY)
        before = _open_files()
        others = [await deployed(cloud, ARENA) for _ in range(5)]
        for one in others:
            await reached(one, Status.READY)
        during = _open_files()
        for one in others:
            one.stop()
            await reached(one, Status.TERMINATED)

        assert during - before <= 2 * len(others)
        assert _open_files() <= before
        assert first.status is Status.READY


async def test_running_out_of_descriptors_says_so_and_ends_nothing() -> None:
    async with a_cloud(ARENA, metrics_interval=0.02) as cloud:
        running = await reached(await deployed(cloud, ARENA), Status.READY)
        starting = await deployed(cloud, ARENA)
        for left in (30, 20, 1):
            with (
                files_left(left),
                pytest.raises(Unprocessable, match=r"Too many open files.*ulimit -n"),
            ):
                await deployed(cloud, ARENA)
        with files_left(0):
            measured = len(running.samples.series(start=None, end=None, step=None).cpu.datasets)
            await until(lambda: starting.status in {Status.READY, Status.ERROR})
        await until(
            lambda: (
                len(running.samples.series(start=None, end=None, step=None).cpu.datasets)
                > measured + 2
            )
        )

        assert running.status is Status.READY
        await reached(await deployed(cloud, ARENA), Status.READY)


class NoThreads(ThreadPoolExecutor):
    """An executor of a process that may start no more threads."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        raise RuntimeError("can't start new thread")


async def test_running_out_of_threads_changes_nothing() -> None:
    asyncio.get_running_loop().set_default_executor(NoThreads())
    program = "import sys, time; time.sleep(0.3); print('x' * 5000); sys.exit(1)"
    failing = python_application(program)
    async with a_cloud(ARENA, failing, metrics_interval=0.05) as cloud:
        game = await reached(await deployed(cloud, ARENA), Status.READY)
        await until(lambda: usage(game.samples)["times"])
        failed = await reached(await deployed(cloud, failing), Status.ERROR)
        await until(lambda: failed.output.held_bytes < 5000)

        assert len(failed.output.text()) == 5001


async def test_a_start_without_descriptors_is_an_error_that_says_what_to_do() -> None:
    async with a_cloud(SLEEPER) as cloud:
        await reached(await deployed(cloud, SLEEPER), Status.READY)
        deployment = await deployed(cloud, SLEEPER)
        with files_left(10):
            await reached(deployment, Status.ERROR)

        assert "ulimit -n" in (deployment.error_detail or "")


def test_the_newest_requests_are_kept_and_the_bodies_of_few() -> None:
    record = RequestRecord()
    for number in range(20_050):
        record.add(RecordedRequest("deploy", "POST", "/v2/deployments", 202, number, body="{}"))
    kept = list(record)

    assert (record.total, len(kept)) == (20_050, 20_000)
    assert (kept[0].received_at, kept[-1].received_at) == (50, 20_049)
    assert sum(one.body is not None for one in kept) == 1_000


async def test_the_newest_changes_of_status_are_kept() -> None:
    events = StatusEvents()
    async with a_cloud(SLEEPER) as cloud:
        deployment = await deployed(cloud, SLEEPER)
        for _ in range(10_050):
            events.add(deployment, None)
    kept = events.after(0)

    assert (len(kept), kept[0].number, kept[-1].number) == (10_000, 51, 10_050)


async def test_the_newest_reports_are_kept() -> None:
    async with a_cloud(SLEEPER) as cloud:
        request_id = (await deployed(cloud, SLEEPER)).request_id
        for number in range(1_050):
            report = DeploymentReport(reason=f"lag {number}")
            await cloud.report_deployment(request_id=request_id, body=report)
    kept = [report.reason for _, report in cloud.reports]

    assert (len(kept), kept[0], kept[-1]) == (1_000, "lag 50", "lag 1049")
