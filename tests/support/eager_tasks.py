"""Tasks that begin at once, as with `asyncio.eager_task_factory`, which Python 3.11 has not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

Loop = TypeVar("Loop", bound=asyncio.AbstractEventLoop)


def _begin_at_once(loop: Any, work: Any, **options: Any) -> asyncio.Task[Any]:
    task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, **options)
    if loop.is_running():
        first_step, caller = loop._ready.pop(), asyncio.current_task()
        tasks: Any = asyncio.tasks
        if caller is not None:
            tasks._leave_task(loop, caller)
        try:
            first_step._run()
        finally:
            if caller is not None:
                tasks._enter_task(loop, caller)
    return task


_factory: Callable[..., Any] = getattr(asyncio, "eager_task_factory", _begin_at_once)


def start_tasks_eagerly(loop: Loop) -> Loop:
    """Makes a loop run the first step of each task where the task is created; returns the loop."""
    loop.set_task_factory(_factory)
    return loop
