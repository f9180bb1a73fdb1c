"""The emulator in a thread of its own, used by sync and async tests."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgegap_async import PollingPolicy, Status, WebhookReceiver
from edgegap_async.emulator import (
    Delay,
    Emulator,
    Fault,
    Respond,
    Simulation,
    Timings,
    sample_application,
)
from edgegap_async.errors import InvalidRequest
from edgegap_async.testing import EmulatorThread


@pytest.fixture
def emulator() -> Iterator[EmulatorThread]:
    with EmulatorThread([sample_application()], timings=Timings.fast()) as emulator:
        yield emulator


def test_a_program_with_a_loop_of_its_own_uses_it(emulator: EmulatorThread) -> None:
    async def main() -> str:
        async with (
            emulator.client() as client,
            client.run("arena", "v1", users=["8.8.8.8"]) as server,
        ):
            assert [one.status for one in emulator.live()] == [Status.READY]
            return server.request_id

    request_id = asyncio.run(main())

    assert list(emulator.deployments) == [request_id]
    assert emulator.history(request_id)[0].later is Status.INITIALIZING
    assert emulator.requests[0].operation == "deploy"
    assert emulator.left_running() == ""
    emulator.reset()
    assert (emulator.deployments, emulator.requests) == ({}, [])


async def test_webhooks_reach_a_receiver_in_the_loop_of_the_test(emulator: EmulatorThread) -> None:
    rare = PollingPolicy(first_delay=60, interval=60)
    async with (
        WebhookReceiver().serve() as receiver,
        emulator.client(webhooks=receiver, polling=rare) as client,
    ):
        server = await client.deploy("arena", "v1", users=["8.8.8.8"])
        await server.wait_ready(timeout=20)
        assert server.history[-1].source == "webhook"
        await server.stop()
        began = time.monotonic()
        emulator.close()  # this loop cannot answer the webhook of the end meanwhile
        assert time.monotonic() - began < 9  # a webhook waits ten seconds for its answer


async def test_what_a_reset_keeps_goes_on(emulator: EmulatorThread) -> None:
    async with emulator.client() as client:
        kept = await client.deploy("arena", "v1", users=["8.8.8.8"])
        left = await client.deploy("arena", "v1", users=["8.8.8.8"])
        assert "2 deployments were left running:" in emulator.left_running()
        said = emulator.left_running(besides={kept.request_id})
        assert (left.request_id in said, kept.request_id in said) == (True, False)
        emulator.reset(keep=[kept.request_id])
        await kept.wait_ready(timeout=20)
        assert list(emulator.deployments) == [kept.request_id]
        await kept.stop()
        assert emulator.left_running() == ""


async def test_a_relay_session_that_is_left_is_described_and_can_be_kept(
    emulator: EmulatorThread,
) -> None:
    async with emulator.client() as client:
        kept = await client.relays.create(["192.0.2.1"])
        left = await client.relays.create(["192.0.2.2"])
        said = emulator.left_running()
        assert said.startswith("2 relay sessions were left running:\n\nrelay session ")
        assert f"{left.session_id}, players: 192.0.2.2" in said
        assert emulator.left_running(besides={kept.session_id}).startswith("1 relay session was")
        emulator.reset(keep=[kept.session_id])
        assert list(emulator.relay_sessions) == [kept.session_id]
        await client.relays.delete(kept.session_id)
        assert emulator.left_running() == ""


def test_what_runs_is_shown_in_one_line(emulator: EmulatorThread) -> None:
    assert repr(emulator) == f"<EmulatorThread {emulator.url}>"
    assert repr(EmulatorThread()) == "<EmulatorThread (not running)>"


def test_functions_run_in_its_thread_and_raise_here(emulator: EmulatorThread) -> None:
    def fail(emulator: Emulator) -> None:
        raise ValueError(emulator.url)

    assert emulator.call(lambda _: threading.current_thread().name) == "edgegap-emulator"
    emulator.run(lambda emulator: emulator.clock.advance(1))
    with pytest.raises(ValueError, match="http://127"):
        emulator.call(fail)


def test_a_wrong_setting_and_a_port_in_use_are_raised_at_the_start(
    emulator: EmulatorThread,
) -> None:
    with pytest.raises(InvalidRequest, match="port"):
        EmulatorThread(port=-1).start()
    with pytest.raises(OSError, match="in use"):
        EmulatorThread(port=int(emulator.url.rpartition(":")[2])).start()
    with pytest.raises(InvalidRequest, match="started before"):
        emulator.start()


def test_it_ends_its_servers_and_its_thread() -> None:
    emulator = EmulatorThread([sample_application()], timings=Timings.fast())
    with pytest.raises(InvalidRequest, match="as `with EmulatorThread"):
        emulator.live()
    emulator.close()

    async def deploy() -> None:
        async with emulator.client() as client:
            server = await client.deploy("arena", "v1", users=["8.8.8.8"])
            await server.wait_ready(timeout=20)

    with emulator:
        asyncio.run(deploy())
        pids = [one.process.pid for one in emulator.live() if one.process]
    emulator.close()

    assert pids
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert "edgegap-emulator" not in [thread.name for thread in threading.enumerate()]
    with pytest.raises(InvalidRequest, match="not running"):
        emulator.call(Emulator.live)


def test_a_defect_of_the_emulator_is_raised_at_its_end() -> None:
    def break_it(emulator: Emulator) -> None:
        emulator.cloud.failures.append(ValueError("a defect"))

    emulator = EmulatorThread(simulate=Simulation())
    emulator.start()
    emulator.call(break_it)
    with pytest.raises(BaseExceptionGroup, match="the emulator failed"):
        emulator.close()


def test_faults_are_added_by_any_thread_while_calls_take_them(emulator: EmulatorThread) -> None:
    wrong = Fault("list_deployments", Respond(503), times=2)
    slow = Fault(None, Delay(0), times=None, skip=10**6)

    async def main() -> int:
        async with emulator.client() as client:
            return len([row async for row in client.deployments.list()])

    emulator.faults.add(wrong, slow)
    assert asyncio.run(main()) == 0
    assert [fault.operation for fault in emulator.faults.left] == [None]
    emulator.faults.clear()
    assert emulator.call(lambda emulator: emulator.faults.left) == ()


def test_a_call_from_its_own_thread_is_refused_at_once(emulator: EmulatorThread) -> None:
    async def ask(_: Emulator) -> str:
        return emulator.url

    with pytest.raises(InvalidRequest, match="own thread"):
        emulator.run(ask)
