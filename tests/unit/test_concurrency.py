"""The asyncio helpers that several packages use."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import itertools
import weakref

import pytest

from edgegap_async.concurrency import (
    ChangeEvent,
    Deadline,
    Deadlines,
    LocalServers,
    LoopBinding,
    PersistentTask,
    limited,
    loop_time,
    wait_within,
)
from edgegap_async.errors import WrongLoop


async def test_loop_time_is_the_clock_of_the_running_loop() -> None:
    loop = asyncio.get_running_loop()

    assert loop.time() <= loop_time() <= loop.time()


async def test_a_late_block_raises_the_error_of_its_limit_with_the_cause_of_that_error() -> None:
    def late() -> WrongLoop:
        error = WrongLoop("late")
        error.__cause__ = ValueError("why")
        return error

    with pytest.raises(WrongLoop, match="late") as raised:
        async with limited(asyncio.timeout(0), late):
            await asyncio.Event().wait()

    assert isinstance(raised.value.__cause__, ValueError)


async def test_a_timeout_that_the_block_itself_raises_is_not_the_end_of_its_time() -> None:
    with pytest.raises(TimeoutError, match="its own"):
        async with limited(asyncio.timeout(60), lambda: WrongLoop("late")):
            raise TimeoutError("its own")


async def test_a_wait_ends_with_its_time_limit_or_with_what_it_waits_for() -> None:
    event = asyncio.Event()
    await wait_within(asyncio.timeout(0), event.wait())
    event.set()
    await wait_within(asyncio.timeout(None), event.wait())


async def test_a_binding_accepts_its_first_loop_and_refuses_another() -> None:
    binding, loop = LoopBinding("the client"), asyncio.get_running_loop()
    binding.check(loop)
    binding.check(loop)
    other = asyncio.new_event_loop()
    try:
        with pytest.raises(WrongLoop, match="the client was first used in another event loop"):
            binding.check(other)
    finally:
        other.close()

    assert binding.loop is loop


async def test_a_change_wakes_every_task_that_waits_and_no_later_one() -> None:
    change, woken = ChangeEvent(), list[str]()

    async def wait(name: str) -> None:
        await change.wait()
        woken.append(name)

    async with asyncio.TaskGroup() as group:
        group.create_task(wait("first"))
        group.create_task(wait("second"))
        await asyncio.sleep(0)
        change.notify()
        late = group.create_task(wait("late"))
        await asyncio.sleep(0.01)
        assert woken == ["first", "second"]
        assert not late.done()
        change.notify()

    assert woken == ["first", "second", "late"]


# ── deadlines ─────────────────────────────────────────────────────────────────────────────────────


async def sleep_within(deadlines: Deadlines, seconds: float) -> float:
    """Sleeps in a block of `deadlines`, and returns after how many seconds the block ended."""
    began = loop_time()
    with contextlib.suppress(TimeoutError), Deadline(deadlines):
        await asyncio.sleep(seconds)
    return loop_time() - began


@pytest.mark.virtual
async def test_a_deadline_raises_at_its_end_and_leaves_no_cancellation_behind() -> None:
    began = loop_time()
    with pytest.raises(TimeoutError), Deadline(Deadlines(2)):
        await asyncio.sleep(10)

    assert loop_time() - began == pytest.approx(2)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@pytest.mark.virtual
async def test_each_of_many_blocks_ends_at_its_own_deadline() -> None:
    deadlines = Deadlines(2)

    async def later(start: float, seconds: float) -> float:
        await asyncio.sleep(start)
        return await sleep_within(deadlines, seconds)

    blocks = [(0.0, 1.0), (0.5, 9.0), (0.7, 1.0), (0.9, 9.0), (1.9, 9.0), (8.0, 9.0)]
    lasted = await asyncio.gather(*(later(*block) for block in blocks))

    assert lasted == pytest.approx([1, 2, 1, 2, 2, 2])
    assert not deadlines.running


@pytest.mark.virtual
@pytest.mark.parametrize("pause", [0.5, 3.0])
async def test_a_paused_deadline_ends_later_and_the_others_on_time(pause: float) -> None:
    deadlines = Deadlines(2)
    began = loop_time()

    async def paused() -> None:
        with Deadline(deadlines) as deadline:
            await asyncio.sleep(1)
            deadline.pause()
            await asyncio.sleep(pause)
            deadline.resume(pause)
            await asyncio.sleep(9)

    async def late() -> float:
        await asyncio.sleep(
            0.9 + pause
        )  # ends after the paused block, and starts before it resumes
        return await sleep_within(deadlines, 9)

    outcomes = await asyncio.gather(paused(), late(), return_exceptions=True)

    assert isinstance(outcomes[0], TimeoutError)
    assert outcomes[1] == pytest.approx(2)
    assert loop_time() - began == pytest.approx(2.9 + pause)


@pytest.mark.virtual
async def test_a_resumed_deadline_that_is_the_next_one_moves_the_timer() -> None:
    deadlines = Deadlines(2)
    began = loop_time()

    async def resumed() -> float:
        with contextlib.suppress(TimeoutError), Deadline(deadlines) as deadline:
            deadline.pause()
            await asyncio.sleep(2.5)  # the timer is set anew, for the other block
            deadline.resume(1)
            await asyncio.sleep(9)
        return loop_time() - began

    async def other() -> float:
        await asyncio.sleep(2.4)
        return await sleep_within(deadlines, 9)

    assert await asyncio.gather(resumed(), other()) == pytest.approx([3, 2])


async def sleep_through(deadlines: Deadlines) -> None:
    with Deadline(deadlines):
        await asyncio.sleep(9)


@pytest.mark.virtual
async def test_a_cancellation_and_a_timeout_from_outside_pass_through_a_deadline() -> None:
    deadlines = Deadlines(5)
    task = asyncio.create_task(sleep_through(deadlines))
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(sleep_through(deadlines), 1)

    assert not deadlines.running


@pytest.mark.virtual
async def test_a_cancellation_at_the_moment_of_the_deadline_is_not_swallowed() -> None:
    deadlines = Deadlines(2)
    task = asyncio.create_task(sleep_within(deadlines, 9))
    await asyncio.sleep(0)
    (deadline,) = deadlines.running
    asyncio.get_running_loop().call_at(deadline.ends_at, task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.virtual
async def test_without_a_limit_a_block_has_no_deadline() -> None:
    assert await sleep_within(Deadlines(None), 1e6) == pytest.approx(1e6)


@pytest.mark.virtual
async def test_close_leaves_the_timer_of_blocks_that_still_run() -> None:
    deadlines = Deadlines(2)
    block = asyncio.create_task(sleep_within(deadlines, 9))
    await asyncio.sleep(1)
    deadlines.close()

    assert await block == pytest.approx(2)


@pytest.mark.virtual
async def test_a_timer_does_not_keep_the_context_of_the_block_that_started_it() -> None:
    class Value: ...

    variable = contextvars.ContextVar[Value]("variable")

    async def with_value() -> weakref.ref[Value]:
        value = Value()
        variable.set(value)
        await sleep_within(deadlines, 0)
        return weakref.ref(value)

    deadlines = Deadlines(60)
    reference = await asyncio.create_task(with_value())
    await asyncio.sleep(0.1)
    gc.collect()

    assert reference() is None


# ── servers of this process ──────────────────────────────────────────────────────────────────────


def test_a_closed_loop_is_named() -> None:
    binding, servers = LoopBinding("the client"), LocalServers()

    async def use() -> None:
        binding.check(asyncio.get_running_loop())
        servers.add(8080, "the emulator")
        servers.check(8080)

    asyncio.run(use())
    with pytest.raises(WrongLoop, match="first used in another event loop, which is closed"):
        asyncio.run(use())
    with pytest.raises(WrongLoop, match="the emulator belongs to another event loop, which is clo"):
        servers.check(8080)
    for port in (None, 8081):
        servers.check(port)
    servers.remove(8080)
    servers.remove(8080)
    servers.check(8080)
    assert not servers


@pytest.mark.virtual
async def test_row_74_a_persistent_task_begins_anew_after_growing_delays() -> None:
    begun = list[float]()

    async def work() -> None:
        begun.append(loop_time())
        await asyncio.Event().wait()

    before, task = asyncio.all_tasks(), PersistentTask(work, "a test")
    await asyncio.sleep(0)
    for count in range(2, 13):
        for own in asyncio.all_tasks() - before:
            own.cancel()
        await asyncio.sleep(0.01)
        assert asyncio.all_tasks() == before  # so that a program that cancels all of them ends
        while len(begun) < count:
            await asyncio.sleep(0.01)
    gaps = [later - earlier for earlier, later in itertools.pairwise(begun)]
    task.cancel()
    await asyncio.wait([task.ended])

    assert task.ended.cancelled()
    assert gaps[:3] == pytest.approx([0.05, 0.1, 0.2], abs=0.02)
    assert gaps[-1] == pytest.approx(5, abs=0.02)
    assert asyncio.all_tasks() == before


@pytest.mark.virtual
async def test_row_74_a_persistent_task_that_waits_for_its_delay_can_be_ended_and_resumed() -> None:
    begun = list[str | None]()
    variable: contextvars.ContextVar[str | None] = contextvars.ContextVar("v", default=None)
    variable.set("of the caller")

    async def work() -> None:
        begun.append(variable.get())
        await asyncio.sleep(1)
        raise LookupError("of the work")

    before = asyncio.all_tasks()
    tasks = [PersistentTask(work, "a test") for _ in range(2)]
    await asyncio.sleep(0.1)
    for own in asyncio.all_tasks() - before:
        own.cancel()
    await asyncio.sleep(0.01)
    tasks[0].cancel()
    tasks[0].resume()
    tasks[1].resume()
    tasks[1].resume()
    await asyncio.wait([task.ended for task in tasks])

    assert begun == [None] * 3
    assert tasks[0].ended.cancelled()
    assert isinstance(tasks[1].ended.exception(), LookupError)
