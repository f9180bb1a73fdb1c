"""Cancels a coroutine at its n-th step, so that a test can cancel it at each of its steps.

A step ends when the coroutine, or a task that it has started, waits. A cancellation arrives only
between two steps, so the steps are all the moments at which it can arrive.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from contextvars import ContextVar
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")


class CancelledAt(Generic[Result]):
    """Runs a coroutine and cancels it at a step, counted from 1.

    Attributes:
        steps: the number of steps so far, of the coroutine and of the tasks that it started.
        reached: whether the coroutine was cancelled; False if it ended before the step.
        tasks: the coroutine's task, and the tasks that it started.
    """

    def __init__(self, step: int, *, times: int = 1) -> None:
        self._wanted = range(step, step + times)
        self.steps = 0
        self.reached = False
        self.tasks: list[asyncio.Task[Any]] = []

    async def run(self, work: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        """Runs the coroutine to its end; returns its task."""
        with _counting_steps(self):
            task = asyncio.get_running_loop().create_task(work)
            await asyncio.wait([task])
        return task

    def on_step(self) -> None:
        self.steps += 1
        if self.steps in self._wanted:
            # The cancellation comes after the step: the task must wait before it can be woken.
            asyncio.get_running_loop().call_soon(self._cancel)

    def _cancel(self) -> None:
        self.reached = self.tasks[0].cancel() or self.reached


class _Stepwise(Generic[Result]):
    """Awaits a coroutine, and calls a function after each step."""

    def __init__(self, coroutine: Coroutine[Any, Any, Result], on_step: Callable[[], None]) -> None:
        self._coroutine = coroutine
        self._on_step = on_step

    def __await__(self) -> Generator[Any, Any, Result]:
        resume: Callable[[], Any] = lambda: self._coroutine.send(None)  # noqa: E731
        while True:
            try:
                awaited = resume()
            except StopIteration as end:
                result: Result = end.value
                return result
            self._on_step()
            try:
                yield awaited
            except BaseException as error:  # noqa: BLE001 - the coroutine handles it
                thrown = error
                resume = lambda: self._coroutine.throw(thrown)  # noqa: B023, E731
            else:
                resume = lambda: self._coroutine.send(None)  # noqa: E731


_canceller: ContextVar[CancelledAt[Any] | None] = ContextVar("_canceller", default=None)


async def _stepwise(work: Awaitable[Result]) -> Result:
    return await work


def _task(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
    canceller = _canceller.get()
    if canceller is None:
        return asyncio.Task(coroutine, loop=loop, **options)
    stepwise = _stepwise(_Stepwise(coroutine, canceller.on_step))
    task = asyncio.Task(stepwise, loop=loop, **options)
    # A task that is cancelled before its first step never starts the coroutine.
    task.add_done_callback(lambda _: coroutine.close())
    canceller.tasks.append(task)
    return task


@contextlib.contextmanager
def _counting_steps(canceller: CancelledAt[Any]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    before = loop.get_task_factory()
    loop.set_task_factory(_task)
    reset = _canceller.set(canceller)
    try:
        yield
    finally:
        _canceller.reset(reset)
        loop.set_task_factory(before)
