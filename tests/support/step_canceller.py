"""Cancels a piece of work at a step of one's choice, so that a test can choose each of them.

A step ends whenever the work, or a task that it has started, waits for something. Between two
steps nothing of it runs: there is no other moment at which a cancellation could find it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from contextvars import ContextVar
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")


class CancelledAt(Generic[Result]):
    """A piece of work that is cancelled at a step, counted from 1.

    Attributes:
        steps: how many it took so far, its own and those of the tasks that it started.
        reached: whether it was cancelled: False if it was over by then.
        tasks: it, and what it started.
    """

    def __init__(self, step: int, *, times: int = 1) -> None:
        self._wanted = range(step, step + times)
        self.steps = 0
        self.reached = False
        self.tasks: list[asyncio.Task[Any]] = []

    async def run(self, work: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        """The work's task, which has ended."""
        with _counted_by(self):
            task = asyncio.get_running_loop().create_task(work)
            await asyncio.wait([task])
        return task

    def a_step_ends(self) -> None:
        self.steps += 1
        if self.steps in self._wanted:
            # Not at once: the task has to be waiting before it can be woken.
            asyncio.get_running_loop().call_soon(self._cancel)

    def _cancel(self) -> None:
        self.reached = self.tasks[0].cancel() or self.reached


class _Stepwise(Generic[Result]):
    """Awaits a coroutine, and tells of each of its steps."""

    def __init__(
        self, coroutine: Coroutine[Any, Any, Result], a_step_ends: Callable[[], None]
    ) -> None:
        self._coroutine = coroutine
        self._a_step_ends = a_step_ends

    def __await__(self) -> Generator[Any, Any, Result]:
        resume: Callable[[], Any] = lambda: self._coroutine.send(None)  # noqa: E731
        while True:
            try:
                awaited = resume()
            except StopIteration as end:
                result: Result = end.value
                return result
            self._a_step_ends()
            try:
                yield awaited
            except BaseException as error:  # noqa: BLE001 - it is the coroutine's to handle
                thrown = error
                resume = lambda: self._coroutine.throw(thrown)  # noqa: B023, E731
            else:
                resume = lambda: self._coroutine.send(None)  # noqa: E731


_counting: ContextVar[CancelledAt[Any] | None] = ContextVar("_counting", default=None)


async def _stepwise(work: Awaitable[Result]) -> Result:
    return await work


def _task(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
    counting = _counting.get()
    if counting is None:
        return asyncio.Task(coroutine, loop=loop, **options)
    stepwise = _stepwise(_Stepwise(coroutine, counting.a_step_ends))
    task = asyncio.Task(stepwise, loop=loop, **options)
    # One that is cancelled before its first step never gets to the coroutine.
    task.add_done_callback(lambda _: coroutine.close())
    counting.tasks.append(task)
    return task


@contextlib.contextmanager
def _counted_by(counting: CancelledAt[Any]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    before = loop.get_task_factory()
    loop.set_task_factory(_task)
    reset = _counting.set(counting)
    try:
        yield
    finally:
        _counting.reset(reset)
        loop.set_task_factory(before)
