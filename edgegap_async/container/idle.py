"""Stops an idle server: what counts as activity, and the stop after a time without.

Problem: a server that no player uses runs, and is paid for, until its maximum duration. The server
knows its players, and the API stops a deployment at the request of its own program.

Rule: the server is idle while it has no players, is in no `busy` block and was not touched. After
the idle time one task asks the API for the stop. It asks again after a failure, because the answer
may be lost, and each time only if the server is still idle. When the API has accepted the stop, the
end is certain: SIGTERM comes, at once or as soon as the deployment is READY. The program must not
exit before: an exit before READY is a crash.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Final

from edgegap_async.concurrency import ChangeEvent, create_detached_task, handling_signal, loop_time
from edgegap_async.errors import CallError, NotFound, log_fields
from edgegap_async.http.retries import is_ambiguous, is_transient

logger = logging.getLogger(__name__)

_FIRST_RETRY: Final = 1.0  # seconds from a stop that failed to the next one; doubled
_MAX_RETRY: Final = 60.0  # seconds
_SIGTERM_TIMEOUT: Final = 120.0  # seconds from an accepted stop until it is asked for again


class Activity:
    """What a server tells of its players; from `ThisDeployment.stop_when_idle`."""

    def __init__(self) -> None:
        self._changed = ChangeEvent()
        self._active_at = loop_time()
        self._blocks = 0
        self._players = 0
        self._is_stopping = False

    def touch(self) -> None:
        """Says that a player did something: the idle time begins anew."""
        self._active_at = loop_time()

    @contextlib.contextmanager
    def busy(self) -> Iterator[None]:
        """Returns a block in which the server is not idle, such as a match or a connection."""
        self._blocks += 1
        try:
            yield
        finally:
            self._blocks -= 1
            self._mark()

    @property
    def players(self) -> int:
        """How many players are on the server, 0 or more; with players it is not idle. Set it."""
        return self._players

    @players.setter
    def players(self, number: int) -> None:
        """Says how many players are on the server."""
        self._players = number
        self._mark()

    @property
    def idle_for(self) -> float:
        """Seconds since the last activity; 0.0 while the server is busy or has players."""
        return 0.0 if self.is_busy else loop_time() - self._active_at

    @property
    def is_busy(self) -> bool:
        """Whether the server has players or is in a `busy` block."""
        return self._players > 0 or self._blocks > 0

    @property
    def is_stopping(self) -> bool:
        """Whether the API has accepted the stop: SIGTERM follows, so let no more players in."""
        return self._is_stopping

    def _mark(self) -> None:
        self.touch()
        self._changed.notify()

    async def _until_idle(self, seconds: float) -> None:
        while (left := seconds - self.idle_for) > 0:
            if self.is_busy:
                await self._changed.wait()
            else:
                await asyncio.sleep(left)


@contextlib.asynccontextmanager
async def stopping_when_idle(
    stop: Callable[[], Awaitable[None]], seconds: float
) -> AsyncIterator[Activity]:
    """Returns the block of a server, which asks for its stop when it is idle and ends at SIGTERM.

    Args:
        stop: asks the API to stop this deployment.
        seconds: how long the server may be idle.

    Raises:
        CallError: the API has refused the stop for good.
    """
    activity = Activity()
    end = asyncio.timeout(None)

    def end_block(*_: object) -> None:
        # A signal or an error that comes with the end of the block may call it afterwards.
        if not end.expired():
            with contextlib.suppress(RuntimeError):
                end.reschedule(loop_time())

    watching = create_detached_task(_watch(activity, stop, seconds))
    try:
        async with end:
            watching.add_done_callback(end_block)  # it only ends by an error
            try:
                if signal.getsignal(signal.SIGTERM) in {signal.SIG_DFL, signal.SIG_IGN}:
                    with handling_signal(signal.SIGTERM, end_block):
                        yield activity
                else:
                    yield activity
            finally:
                watching.remove_done_callback(end_block)
    except TimeoutError:
        if not end.expired():
            raise
    finally:
        watching.cancel()
        await asyncio.wait([watching])
    if not watching.cancelled():
        watching.result()


async def _watch(activity: Activity, stop: Callable[[], Awaitable[None]], seconds: float) -> None:
    wait, may_be_accepted = _FIRST_RETRY, False
    while True:
        await activity._until_idle(seconds)  # noqa: SLF001 - of this module
        logger.info(
            "idle for %.0f s: asking the API to stop this deployment",
            seconds,
            extra=log_fields(seconds=seconds),
        )
        try:
            await stop()
        except CallError as error:
            if not (may_be_accepted and isinstance(error, NotFound)):
                if not is_transient(error):
                    raise
                may_be_accepted |= is_ambiguous(error)
                logger.warning(
                    "%s; the next stop follows in %.0f s",
                    error.reason,
                    wait,
                    extra=log_fields(error, seconds=wait),
                )
                await asyncio.sleep(wait)
                wait = min(2 * wait, _MAX_RETRY)
                continue
        activity._is_stopping = may_be_accepted = True  # noqa: SLF001 - of this module
        await asyncio.sleep(_SIGTERM_TIMEOUT)
        logger.warning(
            "no SIGTERM %.0f s after an accepted stop",
            _SIGTERM_TIMEOUT,
            extra=log_fields(seconds=_SIGTERM_TIMEOUT),
        )
