"""Asyncio helpers of several packages: clock, tasks, time limits, loop binding, changes, UDP."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from typing import Any, Final, Self, TypeVar

from .errors import WrongLoop, log_fields

Result = TypeVar("Result")

logger = logging.getLogger(__name__)

_FIRST_RESTART_DELAY: Final = 0.05  # seconds from a cancellation by the program; doubled
_MAX_RESTART_DELAY: Final = 5.0  # seconds


def loop_time() -> float:
    """Returns the running event loop's monotonic clock, in seconds."""
    return asyncio.get_running_loop().time()


def is_cancelled() -> bool:
    """Whether the current task is being cancelled.

    Tells apart two sources of a CancelledError: this task, or only the task that it awaits.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def create_detached_task(work: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
    """Starts a task in an empty context.

    For work that serves many callers, or goes on after its caller: in the context of the caller
    that happened to start it, all its calls would be in that caller's trace and log context.
    """
    return asyncio.create_task(work, context=contextvars.Context())


@contextlib.asynccontextmanager
async def limited(limit: asyncio.Timeout, late: Callable[[], Exception]) -> AsyncIterator[None]:
    """Returns a block that raises another error than TimeoutError at the end of its time.

    A TimeoutError that the block itself raises passes.

    Args:
        limit: the time limit, such as `asyncio.timeout(5)`.
        late: makes the error.
    """
    try:
        async with limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise
        error = late()
        raise error from error.__cause__


async def wait_within(limit: asyncio.Timeout, awaited: Awaitable[object]) -> None:
    """Returns when `awaited` has ended, or the time limit is over, which cancels it."""
    with contextlib.suppress(TimeoutError):
        async with limit:
            await awaited


async def ask_by_datagram(host: str, port: int, datagram: bytes) -> tuple[bytes, float]:
    """Sends a datagram, and returns the first answer, and the seconds until it came.

    Raises:
        OSError: the datagram cannot be sent, or the host has refused it.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[tuple[bytes, float]] = loop.create_future()
    transport, _ = await loop.create_datagram_endpoint(
        lambda: _FirstAnswer(answer), remote_addr=(host, port)
    )
    try:
        sent_at = loop.time()
        transport.sendto(datagram)
        data, answered_at = await answer
        return data, answered_at - sent_at
    finally:
        transport.close()


class _FirstAnswer(asyncio.DatagramProtocol):
    """Notes the first answer, and when it came."""

    def __init__(self, answer: asyncio.Future[tuple[bytes, float]]) -> None:
        self._answer = answer

    def datagram_received(self, data: bytes, addr: object) -> None:
        del addr
        if not self._answer.done():
            self._answer.set_result((data, self._answer.get_loop().time()))

    def error_received(self, exc: Exception) -> None:
        if not self._answer.done():
            self._answer.set_exception(exc)


@contextlib.contextmanager
def handling_signal(number: signal.Signals, handler: Callable[[], None]) -> Iterator[None]:
    """Returns a block in which each signal calls a function in the running event loop.

    It works on Windows too, where `loop.add_signal_handler` does not. Outside the main thread the
    block does nothing, because Python has signal handlers in the main thread only.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()

    def handle(*_: object) -> None:
        loop.call_soon_threadsafe(handler)

    before = signal.signal(number, handle)
    try:
        yield
    finally:
        if signal.getsignal(number) is handle:
            signal.signal(number, before)


def run(
    main: Coroutine[Any, Any, Result],
    *,
    debug: bool | None = None,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> Result:
    """Runs a program like `asyncio.run`, and ends it cleanly at SIGTERM.

    SIGTERM, with which Docker, Kubernetes and systemd end a program, and on Windows Ctrl-Break
    cancel `main`, as Ctrl-C does: the blocks of `main` end, and stop their servers. The program
    then exits with status 143, after Ctrl-C with 130. If `main` returns all the same, its result is
    returned. Another SIGTERM cancels `main` once more, which shortens the end of a client to 2 s.
    After the end of `main`, while its other tasks end, SIGTERM ends the process at once.

    Args:
        main: the program.
        debug: as for `asyncio.run`.
        loop_factory: makes the event loop, such as `uvloop.new_event_loop`; None for asyncio's.

    Returns:
        What `main` returns.

    Raises:
        SystemExit: a signal has ended the program.
        RuntimeError: an event loop runs in this thread already, as in a notebook.
        TypeError: `main` is no coroutine, such as a function that was not called.
    """
    if not asyncio.iscoroutine(main):
        raise TypeError(f"run needs a coroutine, as in run(main()), not {main!r}")
    if _loop_is_running():
        main.close()  # else Python warns that nothing awaits it
        raise RuntimeError("an event loop runs here already, as in a notebook: use `await main()`")
    is_terminated = False

    async def until_terminated() -> Result:
        task = asyncio.current_task()

        def cancel() -> None:
            nonlocal is_terminated
            is_terminated = True
            if task is not None:
                task.cancel()

        with contextlib.ExitStack() as handlers:
            for number in (signal.SIGTERM, getattr(signal, "SIGBREAK", None)):
                if number is not None:
                    handlers.enter_context(handling_signal(number, cancel))
            return await main

    try:
        with asyncio.Runner(debug=debug, loop_factory=loop_factory) as runner:
            return runner.run(until_terminated())
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGINT) from None
    except asyncio.CancelledError:
        if not is_terminated:
            raise
        raise SystemExit(128 + signal.SIGTERM) from None


def _loop_is_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


class PersistentTask:
    """A detached task that begins its work anew if the program cancels it.

    A program may cancel all of its tasks, as `asyncio.run` does after SystemExit and after a second
    Ctrl-C, and go on to use the library, or close it. The work begins anew after a short delay.
    During the delay there is no task, so a program that cancels tasks until none is left ends.
    Only `cancel` ends the work for good.

    Args:
        work: begins the work; called again after a cancellation by the program.
        what: names the work in the log.
    """

    def __init__(self, work: Callable[[], Coroutine[Any, Any, None]], what: str) -> None:
        self.what = what
        """The name of the work in the log."""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """The end of the work, with its exception; cancelled only by `cancel`."""
        self.is_cancelling = False
        """Whether `cancel` was called."""
        self._work = work
        self._delay = _FIRST_RESTART_DELAY
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._begin()

    def cancel(self) -> None:
        """Cancels the work for good."""
        self.is_cancelling = True
        if self._task is not None:
            self._task.cancel()
        elif self._timer is not None:
            self._timer.cancel()
            self.ended.cancel()

    def resume(self) -> None:
        """Begins the work now if it waits for its delay."""
        if self._timer is not None and not self.is_cancelling:
            self._timer.cancel()
            self._begin()

    def _begin(self) -> None:
        self._timer = None
        self._task = create_detached_task(self._work())
        self._task.add_done_callback(self._on_end)

    def _on_end(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled():
            if (error := task.exception()) is not None:
                self.ended.set_exception(error)
            else:
                self.ended.set_result(None)
        elif self.is_cancelling:
            self.ended.cancel()
        else:
            logger.warning(
                "the program has cancelled the task for %s: it begins anew",
                self.what,
                extra=log_fields(task=self.what),
            )
            # In an empty context, as the task.
            self._timer = asyncio.get_running_loop().call_later(
                self._delay, self._begin, context=contextvars.Context()
            )
            self._delay = min(self._delay * 2, _MAX_RESTART_DELAY)


class CancelScope:
    """A block that `cancel` ends, and that tells this end from a cancellation from elsewhere.

    Subclasses call `_enter` and `_exit`. They do what `asyncio.timeout` does at a third of its cost
    (1.2 µs of 3.8), without a timer of their own and without a coroutine.
    """

    __slots__ = ("_cancelled", "_cancelling_before", "_task")

    def _enter(self) -> asyncio.Task[Any]:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a client must be used inside an asyncio task")
        self._task, self._cancelled = task, False
        self._cancelling_before = task.cancelling()
        return task

    def cancel(self) -> None:
        """Cancels the task inside the block; further calls do nothing."""
        if not self._cancelled:
            self._cancelled = True
            self._task.cancel()

    def _exit(self, kind: type[BaseException] | None) -> bool:
        """Returns whether the exception that ends the block comes from `cancel` alone."""
        task = self._task
        del self._task  # a timer of the connector keeps a copy of the context, with this object
        if not self._cancelled:
            return False
        cancelled_here_only = task.uncancel() <= self._cancelling_before
        return cancelled_here_only and kind is asyncio.CancelledError


class Deadlines:
    """The deadlines of blocks that have the same time limit, with one timer for all.

    The timer stays until it is due, so a block that ends early, as nearly all do, changes no timer.

    Args:
        seconds: the time limit of a block, above 0; None for none.
    """

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        """The time limit of a block; None for none."""
        self.running = set[Deadline]()
        """The blocks whose time runs."""
        self._timer: asyncio.TimerHandle | None = None

    def close(self) -> None:
        """Cancels the timer if no block needs it."""
        if self._timer is not None and not self.running:
            self._timer.cancel()
            self._timer = None

    def start(self, deadline: Deadline, loop: asyncio.AbstractEventLoop) -> None:
        """Lets the time of a block run."""
        self.running.add(deadline)
        if self._timer is not None:
            if self._timer.when() <= deadline.ends_at:
                return
            self._timer.cancel()
        # In an empty context: the timer outlives the caller.
        empty = contextvars.Context()
        self._timer = loop.call_at(deadline.ends_at, self._expire, loop, context=empty)

    def _expire(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now = loop.time()
        for deadline in [each for each in self.running if each.ends_at <= now]:
            self.running.remove(deadline)
            deadline.cancel()
        if self.running:
            self.start(min(self.running, key=lambda each: each.ends_at), loop)


class Deadline(CancelScope):
    """A block that raises TimeoutError at the end of the time limit of its `Deadlines`."""

    __slots__ = ("_deadlines", "ends_at")

    ends_at: float
    """When the block ends, by the clock of the event loop."""

    def __init__(self, deadlines: Deadlines) -> None:
        self._deadlines = deadlines

    def __enter__(self) -> Self:
        loop = self._enter().get_loop()
        if self._deadlines.seconds is not None:
            self.ends_at = loop.time() + self._deadlines.seconds
            self._deadlines.start(self, loop)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._deadlines.running.discard(self)
        if self._exit(kind):
            raise TimeoutError

    def pause(self) -> None:
        """Stops the time of the block, until `resume`."""
        self._deadlines.running.discard(self)

    def resume(self, seconds: float) -> None:
        """Lets the time run on.

        Args:
            seconds: how long it stood still.
        """
        if self._deadlines.seconds is not None:
            self.ends_at += seconds
            self._deadlines.start(self, self._task.get_loop())


def raise_in_loop(error: BaseException) -> None:
    """Makes SystemExit and KeyboardInterrupt leave the event loop, as from a callback of the loop.

    A task whose state has to stay whole cannot let them pass. Does nothing for other errors.
    """
    if isinstance(error, SystemExit | KeyboardInterrupt):
        asyncio.get_running_loop().call_soon(_raise, error)


def _raise(error: BaseException) -> None:
    raise error


class LoopBinding:
    """Binds an object to the event loop that uses it first.

    Args:
        name: what the error calls the object, such as "the client".
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self.loop: asyncio.AbstractEventLoop | None = None
        """The loop of the first use, or None before it."""

    def check(self, loop: asyncio.AbstractEventLoop) -> None:
        """Binds the object to `loop` on the first call, and compares the loop on every later call.

        Raises:
            WrongLoop: the object is bound to another event loop.
        """
        if self.loop is None:
            self.loop = loop
        elif self.loop is not loop:
            closed = ", which is closed" if self.loop.is_closed() else ""
            raise WrongLoop(f"{self._name} was first used in another event loop{closed}")


class LocalServers(dict[int, tuple[str, asyncio.AbstractEventLoop]]):
    """The servers of this process that its own clients may call, by port: name and event loop.

    A server whose loop does not run accepts connections, and never answers. Test suites make such
    a server with a fixture of another `loop_scope` than the test.
    """

    def add(self, port: int, name: str) -> None:
        """Registers a server that listens on a port, in the running event loop."""
        self[port] = (name, asyncio.get_running_loop())

    def remove(self, port: int) -> None:
        """Removes a server, if it is registered."""
        self.pop(port, None)

    def check(self, port: int | None) -> None:
        """Checks that the server on a port, if it is registered, can answer.

        Raises:
            WrongLoop: the event loop of the server does not run.
        """
        name, loop = self.get(port or 0, ("", None))
        if loop is not None and not loop.is_running():
            state = "is closed" if loop.is_closed() else "is not running now"
            raise WrongLoop(f"{name} belongs to another event loop, which {state}: no answer comes")


local_servers = LocalServers()
"""The servers of this process."""


class ChangeEvent:
    """Wakes every task that waits at the moment of a change.

    Unlike `asyncio.Event` it has no state that must be cleared: a task that starts to wait after a
    change waits for the next change.
    """

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def notify(self) -> None:
        """Wakes the tasks that wait now; tasks that wait later wait for the next change."""
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self) -> None:
        """Returns at the next change."""
        await self._event.wait()
