"""Cancels tasks of the library from outside, as a program does that cancels all of its tasks."""

from __future__ import annotations

import asyncio
from typing import Any

__all__ = ["cancel_library_tasks", "library_tasks"]


def library_tasks(*names: str) -> set[asyncio.Task[Any]]:
    """Returns the tasks in progress that the client side of the library has begun.

    Args:
        names: qualified names of coroutine functions, such as "Batch._run"; none for all.
    """
    return {task for task in asyncio.all_tasks() if _is_of_library(task, names)}


def _is_of_library(task: asyncio.Task[Any], names: tuple[str, ...]) -> bool:
    work: Any = task.get_coro()
    code = getattr(work, "cr_code", None)
    file = code.co_filename if code else ""
    is_client = "edgegap_async" in file and "emulator" not in file
    return is_client and "tests" not in file and (not names or work.__qualname__ in names)


def cancel_library_tasks(*names: str) -> int:
    """Cancels these tasks, and returns how many there were."""
    tasks = library_tasks(*names)
    for task in tasks:
        task.cancel()
    return len(tasks)
