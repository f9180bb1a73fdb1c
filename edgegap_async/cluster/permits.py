"""The permits of one program: slots leased from the timeline, or its share while it is alone."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from typing import Final

from edgegap_async.http.rate_limits import LocalPermits

from .connection import RedisConnection, loop_time
from .slots import BURST, PACE, WINDOW, SlotReply

__all__ = ["SharedPermits"]

_GOOD_FOR: Final = 0.03  # seconds that a call may be late for its slot
_LEASE: Final = 5  # slots
_HORIZON: Final = 1.25  # seconds: no slot is asked for further ahead


class SharedPermits:
    """The permits of one operation: slots leased from Redis, or this program's own while alone.

    Each program remembers its own refusals as one without a cluster does. They tell how long the
    limit is closed for all where the API did not, and how much slower this program is while alone.
    """

    def __init__(self, link: RedisConnection, name: str, limit: float) -> None:
        self._link = link
        self._name = name
        self._limit = limit
        self._slots = deque[float]()
        self._own_from = -math.inf  # where the next slot of its own would be
        self._next_at = -math.inf  # no shared one can be had before, by the last answer
        self._ask_at = -math.inf
        self._closed_until = -math.inf
        self._share = 1.0  # of the rate of all, by the last answer
        self._refusals = LocalPermits(limit)  # of which no permit is taken
        self._asking: asyncio.Task[None] | None = None

    @property
    def rate(self) -> float:
        """Calls a second: of all programs together, or of this one while it is alone."""
        if self._link.is_alone(loop_time()):
            return 1 / self._spacing
        return PACE * self._limit * self._share

    @property
    def free(self) -> int:
        """How many could be taken now, as far as this program knows."""
        now = loop_time()
        if now < self._closed_until:
            return 0
        leased = sum(now - _GOOD_FOR <= slot <= now for slot in self._slots)
        return leased or int(self._own_from <= now and self._link.is_alone(now))

    @property
    def closed_for(self) -> float:
        """Seconds for which there are none because the API answered 429; 0 otherwise."""
        return max(0.0, self._closed_until - loop_time())

    async def try_acquire(self) -> bool:
        """Takes a permit if there is one, and tells whether there was; asks Redis if need be."""
        if self._take():
            return True
        now = loop_time()
        earliest = max(self._closed_until, self._next_at - self._link.round_trip)
        if self._slots or self._asking or now < earliest or self._link.is_alone(now):
            return False
        await self._ask(1, horizon=0.0)
        if not self._slots:
            return self._take()
        slot = self._slots.popleft()  # or one who came later would be there first
        try:
            await asyncio.sleep(slot - loop_time())  # no longer than an answer takes
        except asyncio.CancelledError:
            self._slots.appendleft(slot)
            raise
        return max(slot, self._closed_until) <= loop_time() <= slot + _GOOD_FOR

    async def wait_available(self, wanted: Callable[[], int]) -> None:
        """Returns when `take` would find one."""
        while True:
            now = loop_time()
            self._drop_late(now)
            if now < self._closed_until:
                await asyncio.sleep(self._closed_until - now)
            elif self._slots:
                if self._slots[0] <= now:
                    return
                await asyncio.sleep(self._slots[0] - now)
            elif self._link.is_alone(now):
                due = max(now, self._own_from)
                if due < self._link.alone_until:
                    self._slots.append(due)
                    self._own_from = due + self._spacing
                else:
                    await asyncio.sleep(self._link.alone_until - now)
            elif now < self._ask_at:
                await asyncio.sleep(self._ask_at - now)
            else:
                fair = max(1, int(self._limit / (self._link.programs or 1)))
                await self._ask(min(_LEASE, fair, wanted()), horizon=_HORIZON)

    def on_rate_limited(self, seconds: float) -> None:
        """The API answered 429: no permit for so many seconds, and fewer for a while after."""
        now = loop_time()
        self._refusals.on_rate_limited(seconds)
        closed = self._refusals.closed_for
        self._closed_until = max(self._closed_until, now + closed)
        self._slots.clear()
        if self._link.is_alone(now):
            self._own_from = now + self._spacing
        else:
            self._link.start(self._tell_refused(closed))

    def expected_wait(self, ahead: int) -> float:
        """Seconds until whoever has so many others before him may go, if no other program asks."""
        now = loop_time()
        closed = max(0.0, self._closed_until - now)
        if ahead < len(self._slots):
            return max(closed, self._slots[ahead] - now)
        ahead -= len(self._slots)
        if self._link.is_alone(now):
            return max(closed, self._own_from - now) + ahead * self._spacing
        if self._next_at <= now:
            ahead = max(0, ahead + 1 - int(max(1, min(BURST, self._limit / 4))))
        return max(closed, self._next_at - now) + ahead / self.rate

    @property
    def _spacing(self) -> float:
        """Seconds between the calls of a program that is alone.

        None sends more than its whole share in any second, so all together do not exceed the limit.
        """
        fair = self._limit / (self._link.programs or math.inf)
        share = self._refusals.rate_factor
        return WINDOW * max(1.0, 1 / self._limit) / max(1, int(fair)) / share

    def _take(self) -> bool:
        now = loop_time()
        self._drop_late(now)
        if now < self._closed_until:
            return False
        if self._slots:
            if self._slots[0] > now:
                return False
            self._slots.popleft()
            return True
        if self._own_from <= now and self._link.is_alone(now):
            self._own_from = now + self._spacing
            return True
        return False

    def _drop_late(self, now: float) -> None:
        while self._slots and self._slots[0] < now - _GOOD_FOR:
            self._slots.popleft()

    async def _ask(self, wanted: int, *, horizon: float) -> None:
        """Asks for slots, or waits for the answer if that is under way.

        Whoever waits may be cancelled: the answer is for the next one then.
        """
        if self._asking is None:
            self._asking = self._link.start(self._lease(wanted, horizon))
        await asyncio.shield(self._asking)

    async def _lease(self, wanted: int, horizon: float) -> None:
        try:
            answer = await self._link.ask(
                self._name, limit=self._limit, wanted=wanted, horizon=horizon
            )
        finally:
            self._asking = None
        if answer is None:
            return
        self._learn(answer)
        slots = [slot for slot in answer.slots if slot >= self._closed_until]
        if slots:
            self._slots.extend(slots)
            self._own_from = slots[0] + len(slots) * self._spacing
        elif horizon:
            self._ask_at = max(self._next_at - horizon, loop_time() + _GOOD_FOR)

    async def _tell_refused(self, seconds: float) -> None:
        answer = await self._link.ask(self._name, limit=self._limit, refused=seconds)
        if answer is not None:
            self._learn(answer)

    def _learn(self, answer: SlotReply) -> None:
        self._share, self._next_at = answer.share, answer.next_at
        self._closed_until = max(self._closed_until, answer.closed_until)
