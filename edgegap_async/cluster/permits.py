"""The permits of one program: slots that it leased from the timeline, or its share without it."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from typing import Final

from edgegap_async.concurrency import loop_time
from edgegap_async.http.rate_limits import LimitState, LocalPermits

from .connection import RedisConnection
from .slots import LOG_WINDOW, PACE_FRACTION, SlotReply, burst_slots

_SLOT_VALIDITY: Final = 0.03  # seconds that a call may start after its slot
_MAX_LEASE: Final = 5  # slots; more would stay unused in one program while others wait
_LEASE_HORIZON: Final = 1.25  # seconds; no slot is requested for a later time


class SharedPermits:
    """The permits of one operation: slots from Redis, or this program's share while it is alone.

    Each program remembers its own 429s, as `LocalPermits` does. They decide how long all programs
    pause if the API did not say, and how much slower this program sends while it is alone.
    """

    def __init__(self, connection: RedisConnection, name: str, limit: float) -> None:
        self._connection = connection
        self._name = name
        self._limit = limit
        self._slots = deque[float]()  # leased, earliest first
        self._next_own_at = -math.inf  # the next slot of this program's share
        self._next_shared_at = -math.inf  # no shared slot is earlier, by the last reply
        self._next_lease_at = -math.inf
        self._closed_until = -math.inf
        self._shared_factor = 1.0  # of the rate of all programs, by the last reply
        self._own_429s = LocalPermits(limit)  # used for its memory of 429s only
        self._lease_task: asyncio.Task[None] | None = None

    @property
    def _rate(self) -> float:
        """Permits a second, above 0: of all programs together, or of this one while it is alone."""
        if self._connection.is_alone(loop_time()):
            return 1 / self._own_interval
        return PACE_FRACTION * self._limit * self._shared_factor

    def state(self, now: float, queued: int) -> LimitState:
        """Returns the state of the rate limit; `free` counts permits that need no request to Redis.

        Args:
            now: the time by the loop's clock, in seconds.
            queued: how many calls wait, 0 or more.
        """
        free = 0
        if now >= self._closed_until:
            leased = sum(now - _SLOT_VALIDITY <= slot <= now for slot in self._slots)
            free = leased or int(self._next_own_at <= now and self._connection.is_alone(now))
        return LimitState(
            limit=self._limit,
            rate=self._rate,
            free=free,
            queued=queued,
            predicted_wait=self.expected_wait(queued),
            closed_for=max(0.0, self._closed_until - now),
        )

    async def try_acquire(self, *, again: bool = False) -> bool:  # noqa: ARG002 - a slot is a slot
        """Takes a permit if there is one, and returns whether there was. May ask Redis for one.

        A call that takes its permit `again` needs a slot like every other.
        """
        if self._try_acquire_leased():
            return True
        now = loop_time()
        earliest = max(self._closed_until, self._next_shared_at - self._connection.round_trip)
        if self._slots or self._lease_task or now < earliest or self._connection.is_alone(now):
            return False
        await self._lease(1, horizon=0.0)
        if not self._slots:
            return self._try_acquire_leased()
        slot = self._slots.popleft()  # now, or a later call would take it first
        try:
            await asyncio.sleep(slot - loop_time())  # no longer than a reply of Redis takes
        except asyncio.CancelledError:
            self._slots.appendleft(slot)
            raise
        return max(slot, self._closed_until) <= loop_time() <= slot + _SLOT_VALIDITY

    async def wait_available(self, wanted: Callable[[], int], *, again: bool = False) -> None:  # noqa: ARG002 - as above
        """Returns when `try_acquire` may find a permit. Only one task at a time awaits it.

        Args:
            wanted: returns how many calls wait, 1 or more.
            again: ignored, as in `try_acquire`.
        """
        while True:
            now = loop_time()
            self._drop_expired(now)
            if now < self._closed_until:
                await asyncio.sleep(self._closed_until - now)
            elif self._slots:
                if self._slots[0] <= now:
                    return
                await asyncio.sleep(self._slots[0] - now)
            elif self._connection.is_alone(now):
                due = max(now, self._next_own_at)
                if due < self._connection.alone_until:
                    self._slots.append(due)
                    self._next_own_at = due + self._own_interval
                else:
                    await asyncio.sleep(self._connection.alone_until - now)
            elif now < self._next_lease_at:
                await asyncio.sleep(self._next_lease_at - now)
            else:
                fair = max(1, int(self._limit / (self._connection.programs or 1)))
                await self._lease(min(_MAX_LEASE, fair, wanted()), horizon=_LEASE_HORIZON)

    def give_back(self) -> bool:
        """Returns False: a slot has its time, and expires with it."""
        return False

    def on_rate_limited(self, seconds: float, sent_at: float | None = None) -> None:  # noqa: ARG002 - the programs share a timeline
        """Handles a 429: no permit for `seconds` in any program, and a lower rate after.

        Args:
            seconds: what the API asked for, 0 or more; 0 if it did not say.
            sent_at: loop time at which the refused call took its permit; None for the newest call.
        """
        now = loop_time()
        self._own_429s.on_rate_limited(seconds)
        closed = self._own_429s.closed_for
        self._closed_until = max(self._closed_until, now + closed)
        self._slots.clear()
        if self._connection.is_alone(now):
            self._next_own_at = now + self._own_interval
        else:
            self._connection.start_task(self._report_429(closed))

    def expected_wait(self, ahead: int, *, again: bool = False) -> float:  # noqa: ARG002 - as above
        """Returns the seconds until a call may go, if no other program takes slots meanwhile.

        Args:
            ahead: how many calls go before it, 0 or more.
            again: ignored, as in `try_acquire`.
        """
        now = loop_time()
        closed = max(0.0, self._closed_until - now)
        if ahead < len(self._slots):
            return max(closed, self._slots[ahead] - now)
        ahead -= len(self._slots)
        if self._connection.is_alone(now):
            return max(closed, self._next_own_at - now) + ahead * self._own_interval
        if self._next_shared_at <= now:
            ahead = max(0, ahead + 1 - int(burst_slots(self._limit)))
        return max(closed, self._next_shared_at - now) + ahead / self._rate

    @property
    def _own_interval(self) -> float:
        """Seconds between two calls of a program that is alone.

        No program exceeds its share in any second, so all programs together keep the limit.
        """
        share = max(1, int(self._limit / (self._connection.programs or math.inf)))
        return LOG_WINDOW * max(1.0, 1 / self._limit) / share / self._own_429s.rate_factor

    def _try_acquire_leased(self) -> bool:
        now = loop_time()
        self._drop_expired(now)
        if now < self._closed_until:
            return False
        if self._slots:
            if self._slots[0] > now:
                return False
            self._slots.popleft()
            return True
        if self._next_own_at <= now and self._connection.is_alone(now):
            self._next_own_at = now + self._own_interval
            return True
        return False

    def _drop_expired(self, now: float) -> None:
        while self._slots and self._slots[0] < now - _SLOT_VALIDITY:
            self._slots.popleft()

    async def _lease(self, wanted: int, *, horizon: float) -> None:
        """Requests slots, or waits for the request that is under way.

        The request continues if the caller is cancelled: the next call uses its slots.
        """
        if self._lease_task is None:
            self._lease_task = self._connection.start_task(self._request_lease(wanted, horizon))
        await asyncio.shield(self._lease_task)

    async def _request_lease(self, wanted: int, horizon: float) -> None:
        try:
            reply = await self._connection.request_slots(
                self._name, limit=self._limit, wanted=wanted, horizon=horizon
            )
        finally:
            self._lease_task = None
        if reply is None:
            return
        self._update(reply)
        slots = [slot for slot in reply.slots if slot >= self._closed_until]
        if slots:
            self._slots.extend(slots)
            self._next_own_at = slots[0] + len(slots) * self._own_interval
        elif horizon:
            self._next_lease_at = max(self._next_shared_at - horizon, loop_time() + _SLOT_VALIDITY)

    async def _report_429(self, seconds: float) -> None:
        reply = await self._connection.request_slots(
            self._name, limit=self._limit, rate_limited_for=seconds
        )
        if reply is not None:
            self._update(reply)

    def _update(self, reply: SlotReply) -> None:
        self._shared_factor, self._next_shared_at = reply.rate_factor, reply.next_at
        self._closed_until = max(self._closed_until, reply.closed_until)
