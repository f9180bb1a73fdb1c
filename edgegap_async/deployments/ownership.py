"""What the client answers for: deployments that nobody else would stop.

Theory. A deployment is in custody from when the API accepts it until it is handed over or a stop of
it was accepted. A stop is a task of the client, not of the caller: a caller who is cancelled while
he waits for it leaves, and the stop goes on. `client.close()` stops what is in custody, waits for
the stops under way, and names in the log what may go on running.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Collection, Coroutine

from edgegap_async.errors import ClientClosed, DeploymentError, EdgegapError, Unprocessable

__all__ = ["OwnedDeployments", "wait_for_stops"]

logger = logging.getLogger(__name__)


class OwnedDeployments:
    """The deployments that one client answers for.

    Args:
        stop: asks the API to stop one, as often as it takes.

    Attributes:
        closed: whether the client is closed, or being closed.
        shelves: the tags of the pools that are open.
    """

    def __init__(self, stop: Callable[[str], Coroutine[object, object, None]]) -> None:
        self._stop = stop
        self._held = set[str]()
        self._cleaning: dict[asyncio.Task[None], str] = {}
        self._stopping: dict[str, asyncio.Task[None]] = {}  # the newest stop of each
        self.closed = False
        self.shelves = set[str]()

    def take(self, request_id: str) -> None:
        """From now on the client answers for it."""
        self._held.add(request_id)

    def holds(self, request_id: str) -> bool:
        """Whether the client answers for it."""
        return request_id in self._held

    def hand_over(self, request_id: str) -> None:
        """From now on somebody else answers for it."""
        self._held.discard(request_id)

    def stop(self, request_id: str, because: EdgegapError | None = None) -> asyncio.Task[None]:
        """Stops it in the background; the task may be awaited or left alone.

        Args:
            request_id: which deployment.
            because: what went wrong with it; how the stop went will be noted there.
        """
        self._held.discard(request_id)
        stopping = self.in_background(self._stop(request_id), request_id)
        self._stopping[request_id] = stopping
        stopping.add_done_callback(functools.partial(self._stopped, request_id))
        if because is not None:
            self.note(because, request_id)
        return stopping

    def _stopped(self, request_id: str, stopping: asyncio.Task[None]) -> None:
        if self._stopping.get(request_id) is stopping:
            del self._stopping[request_id]

    def note(self, problem: EdgegapError, request_id: str) -> None:
        """Notes on what went wrong how the stop goes that is under way, if one is."""
        if stopping := self._stopping.get(request_id):
            stopping.add_done_callback(functools.partial(_note_end, problem, request_id))

    def in_background(self, work: Coroutine[object, object, None], what: str) -> asyncio.Task[None]:
        """Lets work go on when its caller has left; `what` may go on running if it fails."""
        task = asyncio.create_task(work)
        self._cleaning[task] = what
        task.add_done_callback(self._cleaned)
        return task

    async def release(
        self, request_id: str, stop: Callable[[str], asyncio.Task[None]] | None = None
    ) -> None:
        """Stops it; goes on in the background if the caller is cancelled.

        Args:
            request_id: which deployment.
            stop: in place of `stop`, for who takes note of what becomes of it.

        Raises:
            EdgegapError: it could not be stopped.
        """
        if request_id in self._held or not self.closed:
            stopping = (stop or self.stop)(request_id)
            await asyncio.wait([stopping])
            if stopping.cancelled():  # by `close`; the caller is not
                raise ClientClosed(f"closed before {request_id} was stopped")
            await stopping

    async def release_after(
        self,
        problem: BaseException,
        request_id: str,
        stop: Callable[[str], asyncio.Task[None]] | None = None,
    ) -> None:
        """Likewise, for what already failed; a stop that fails too is noted on it."""
        try:
            await self.release(request_id, stop)
        except EdgegapError as error:
            _note(problem, request_id, error)
        else:
            _note(problem, request_id, None)

    def stop_all(self) -> None:
        """Stops, in the background, whatever is still held; nothing is taken any more."""
        self.closed = True
        for request_id in sorted(self._held):
            self.stop(request_id)

    async def drain(self, seconds: float) -> None:
        """Returns when nothing is under way in the background, or after so many seconds."""
        now = asyncio.get_running_loop().time
        until = now() + seconds
        while self._cleaning and (left := until - now()) > 0:  # what ends may begin another
            await asyncio.wait(self._cleaning, timeout=left)

    async def abandon(self) -> None:
        """Cancels what is still under way; each is named in the log."""
        left = tuple(self._cleaning)
        if left:
            await asyncio.sleep(0)  # what has not begun yet could not take its own with it
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)

    def _cleaned(self, task: asyncio.Task[None]) -> None:
        what = self._cleaning.pop(task)
        if task.cancelled():
            logger.error("%s may go on running: closed before an answer", what)
        elif (error := task.exception()) is not None:
            logger.error("%s may go on running: it could not be stopped: %s", what, error)


def _note_end(problem: EdgegapError, request_id: str, stopping: asyncio.Task[None]) -> None:
    error = "closed before an answer" if stopping.cancelled() else stopping.exception()
    _note(problem, request_id, error)


def _note(problem: BaseException, request_id: str, error: object) -> None:
    """Notes on what went wrong how a stop went: what it failed by, or None."""
    if error is not None:
        problem.add_note(f"and {request_id} could not be stopped: {error}")
    elif isinstance(problem, DeploymentError | Unprocessable):
        problem.stopped = problem.request_id == request_id


async def wait_for_stops(
    stops: Collection[asyncio.Task[None]], problem: BaseException | None = None
) -> None:
    """Returns when these stops are over.

    Args:
        stops: tasks of a custody; they go on if the caller is cancelled.
        problem: what went wrong before; a stop that fails too is noted on it.

    Raises:
        ExceptionGroup: nothing went wrong before, and some could not be stopped.
    """
    if stops:
        await asyncio.wait(stops)
    failures = [
        error
        for task in stops
        if not task.cancelled() and isinstance(error := task.exception(), Exception)
    ]
    if problem is not None:
        for error in failures:
            problem.add_note(f"and a deployment could not be stopped: {error}")
    elif failures:
        raise ExceptionGroup("some deployments could not be stopped", failures)
