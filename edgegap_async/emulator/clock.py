"""The time of the emulated cloud, which can be paused and advanced.

Everything that a deployment waits for is on this clock: its statuses, `max_duration`, simulated
programs, how long the API knows it. Connections, webhooks, rate limits, and programs that run for
real are on the clock of the machine.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from edgegap_async.concurrency import loop_time

_STEPS: Final = 20
"""Rounds of the event loop in which tasks may react to a moment of an advance."""
_TOLERANCE: Final = 1e-6  # seconds; times that rounding has put just after now
_MIN_CANCELLED: Final = 100  # timers


class Clock:
    """A clock that runs as the event loop's clock does, unless it is paused or advanced."""

    def __init__(self) -> None:
        self._offset = 0.0
        self._paused_at: float | None = None
        self._stopped = (0.0, datetime.min.replace(tzinfo=UTC))  # time and date of the last pause
        self._timers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()
        self._cancelled = 0
        self._handle: asyncio.TimerHandle | None = None
        self._advancing = asyncio.Lock()

    def time(self) -> float:
        """Returns the time in seconds: the loop's, and what the clock was advanced by."""
        return loop_time() + self._offset if self._paused_at is None else self._paused_at

    def now(self) -> datetime:
        """Returns the time as a date."""
        if self._paused_at is None:
            return datetime.now(UTC) + timedelta(seconds=self._offset)
        return self._stopped[1] + timedelta(seconds=self._paused_at - self._stopped[0])

    @property
    def is_paused(self) -> bool:
        """Whether it stands still."""
        return self._paused_at is not None

    # ── wait ─────────────────────────────────────────────────────────────────────────────────────

    def timer(self, seconds: float) -> asyncio.Future[None]:
        """Returns a future that is done after this time. Cancel it if it is no longer needed."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._timers, (self.time() + seconds, next(self._numbers), future))
        future.add_done_callback(self._drop_cancelled)
        self._arm()
        return future

    async def sleep(self, seconds: float) -> None:
        """Returns after this time."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        await self.timer(seconds)

    async def wait(self, futures: Iterable[asyncio.Future[Any]], seconds: float | None) -> None:
        """Returns once one of the futures is done or the time is over; None for no limit."""
        timer = None if seconds is None else self.timer(max(0.0, seconds))
        every = {*futures} if timer is None else {*futures, timer}
        try:
            await asyncio.wait(every, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if timer is not None:
                timer.cancel()

    def _drop_cancelled(self, future: asyncio.Future[None]) -> None:
        """Removes cancelled timers once they are the most: one may be due in a day."""
        if not future.cancelled():
            return
        self._cancelled += 1
        if self._cancelled > _MIN_CANCELLED and self._cancelled > len(self._timers) / 2:
            self._timers = [timer for timer in self._timers if not timer[2].cancelled()]
            heapq.heapify(self._timers)
            self._cancelled = 0
            self._arm()

    def _arm(self) -> None:
        """Has the loop call when the next timer is due."""
        if self._paused_at is not None or not self._timers:
            self._disarm()
            return
        when = self._timers[0][0] - self._offset
        if self._handle is None or self._handle.when() != when:
            self._disarm()
            self._handle = asyncio.get_running_loop().call_at(when, self._ring)

    def _disarm(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _ring(self) -> None:
        """Ends the timers that are due."""
        self._handle = None
        now = self.time() + _TOLERANCE
        while self._timers and self._timers[0][0] <= now:
            _, _, future = heapq.heappop(self._timers)
            if future.cancelled():
                self._cancelled = max(0, self._cancelled - 1)
            elif not future.done():
                future.set_result(None)
        self._arm()

    # ── control ──────────────────────────────────────────────────────────────────────────────────

    def pause(self) -> None:
        """Makes the clock stand still."""
        self._stopped = (self.time(), self.now())
        self._paused_at = self._stopped[0]
        self._disarm()

    def resume(self) -> None:
        """Makes the clock run on from where it stands."""
        if self._paused_at is not None:
            self._offset = self._paused_at - loop_time()
            self._paused_at = None
            self._arm()

    async def advance(self, seconds: float) -> None:
        """Moves the clock forward, from timer to timer, so that everything happens in its order."""
        async with self._advancing:
            until = self.time() + seconds
            await self._let_tasks_react()
            while self._timers and self._timers[0][0] <= until:
                self._move_to(self._timers[0][0])
                await self._let_tasks_react()
            self._move_to(until)

    @staticmethod
    async def _let_tasks_react() -> None:
        for _ in range(_STEPS):
            await asyncio.sleep(0)

    def _move_to(self, time: float) -> None:
        if self._paused_at is not None:
            self._paused_at = max(self._paused_at, time)
        else:
            self._offset += max(0.0, time - self.time())
        self._ring()

    def close(self) -> None:
        """Forgets all timers."""
        self._disarm()
        self._timers.clear()
