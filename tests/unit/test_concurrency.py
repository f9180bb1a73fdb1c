"""The asyncio helpers that several packages use."""

from __future__ import annotations

import asyncio

import pytest

from edgegap_async.concurrency import ChangeEvent, LoopBinding, loop_time
from edgegap_async.errors import WrongLoop


async def test_loop_time_is_the_clock_of_the_running_loop() -> None:
    loop = asyncio.get_running_loop()

    assert loop.time() <= loop_time() <= loop.time()


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
