"""The permits of one program: slots that it leased from the timeline, or its share without it."""

from __future__ import annotations

import asyncio
import functools
import math
import random
from collections import deque
from collections.abc import Callable
from typing import Final

from edgegap_async.concurrency import PersistentTask, loop_time
from edgegap_async.http.rate_limits import LimitState, LocalPermits

from .connection import RedisConnection
from .shared_limit import SharedLimit
from .slots import LEASE_HORIZON, LOG_WINDOW, PACE_FRACTION, Slot, SlotReply, burst_slots

_SLOT_VALIDITY: Final = 0.03  # seconds that a call may start after its slot
_SLOT_GAP: Final = 1e-6  # seconds between slots of the same time, so that calls keep their order
_MAX_LEASE: Final = 5  # slots; more would stay unused in one program while others wait
_MAX_UNUSED: Final = 100  # slots that are remembered to be given back; a few seconds of them
_RETURN_DELAY: Final = 0.05  # seconds in which the next lease may give slots back too


class SharedPermits:
    """The permits of one operation: slots from Redis, or this program's share while it is alone.

    Each program remembers its own 429s, as `LocalPermits` does. They decide how long all programs
    pause if the API did not say, and how much slower this program sends while it is alone. The
    programs learn together how many calls the account allows (`SharedLimit`).

    A slot that no call uses is given back with the next request to Redis: that of a call which
    opens a connection instead, and what expires or is cancelled.
    """

    def __init__(self, connection: RedisConnection, name: str, limit: float) -> None:
        self._connection = connection
        self._name = name
        self._limit = limit
        self._shared = SharedLimit(limit)
        self._slots = deque[Slot]()  # leased, earliest first
        self._newest_slot: Slot | None = None  # of the newest call
        self._unused = deque[float](maxlen=_MAX_UNUSED)  # to give back, by Redis's clock
        self._newest_at = -math.inf  # the slot that was leased last
        self._next_own_at = -math.inf  # the next slot of this program's share
        self._next_shared_at = -math.inf  # no shared slot is earlier, by the last reply
        self._next_lease_at = -math.inf
        self._closed_until = -math.inf
        self._shared_factor = 1.0  # of the rate of all programs, by the last reply
        self._own_429s = LocalPermits(limit)  # used for its memory of 429s only
        self._lease_task: PersistentTask | None = None
        self._turn = random.random()  # noqa: S311 - of 1, when this program begins on its own

    def _rate(self, now: float) -> float:
        """Permits a second, above 0: of all programs together, or of this one without Redis."""
        if self._connection.is_lost:
            return 1 / self._own_interval
        return PACE_FRACTION * self._shared.at(now) * self._shared_factor

    def state(self, now: float, queued: int) -> LimitState:
        """Returns the state of the rate limit; `free` counts permits that need no request to Redis.

        Args:
            now: the time by the loop's clock, in seconds.
            queued: how many calls wait, 0 or more.
        """
        free = 0
        if now >= self._closed_until:
            leased = sum(now - _SLOT_VALIDITY <= slot.at <= now for slot in list(self._slots))
            free = leased or int(self._next_own_at <= now and self._connection.is_alone(now))
        return LimitState(
            limit=self._limit,
            rate=self._rate(now),
            free=free,
            queued=queued,
            predicted_wait=self._expected_wait(now, queued),
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
        if self._slots or self._lease_task or now < earliest or not self._connection.is_shared(now):
            return False
        await self._lease(1, horizon=0.0)
        if not self._slots:
            return self._try_acquire_leased()
        slot = self._slots.popleft()  # now, or a later call would take it first
        try:
            await asyncio.sleep(slot.at - loop_time())  # no longer than a reply of Redis takes
        except asyncio.CancelledError:
            self._slots.appendleft(slot)
            raise
        if max(slot.at, self._closed_until) <= loop_time() <= slot.at + _SLOT_VALIDITY:
            self._use(slot)
            return True
        self._return(slot)
        return False

    async def wait_available(self, wanted: Callable[[], int], *, again: bool = False) -> None:  # noqa: ARG002 - as above
        """Returns when `try_acquire` may find a permit. Only one task at a time awaits it.

        Args:
            wanted: returns how many calls wait, 1 or more.
            again: ignored, as in `try_acquire`.
        """
        connection = self._connection
        while True:
            now = loop_time()
            self._drop_expired(now)
            if now < self._closed_until:
                await asyncio.sleep(self._closed_until - now)
            elif self._slots:
                if self._slots[0].at <= now:
                    return
                await asyncio.sleep(self._slots[0].at - now)
            elif connection.is_alone(now):
                due = max(now, self._next_own_at, connection.alone_from + self._own_phase)
                self._slots.append(Slot(due))
                connection.note_call(due)
                self._next_own_at = due + self._own_interval
            elif not connection.is_shared(now):
                await connection.wait_for_change(connection.silent_until() - now)
            elif now < self._next_lease_at:
                await asyncio.sleep(self._next_lease_at - now)
            else:
                fair = max(1, int(self._shared.at(now) / (connection.programs or 1)))
                await self._lease(min(_MAX_LEASE, fair, wanted()), horizon=LEASE_HORIZON)

    def give_back(self) -> bool:
        """Gives the slot of the newest call back to Redis; False for a slot of the own share."""
        slot, self._newest_slot = self._newest_slot, None
        return slot is not None and self._return(slot)

    def on_rate_limited(self, seconds: float, sent_at: float | None = None) -> None:
        """Handles a 429: no permit for `seconds` in any program, and a lower rate after.

        Args:
            seconds: what the API asked for, 0 or more; 0 if it did not say.
            sent_at: loop time at which the refused call took its permit; None for the newest call.
        """
        now = loop_time()
        self._own_429s.on_rate_limited(seconds)
        closed = self._own_429s.closed_for
        self._closed_until = max(self._closed_until, now + closed)
        for slot in self._slots:
            self._return(slot)
        self._slots.clear()
        if self._connection.is_lost:
            self._next_own_at = now + self._own_interval
        else:
            refused = self._shared.slot_of(sent_at)
            self._connection.start_task(functools.partial(self._report_429, closed, refused))

    def expected_wait(self, ahead: int, *, again: bool = False) -> float:  # noqa: ARG002 - as above
        """Returns the seconds until a call may go, if no other program takes slots meanwhile.

        Args:
            ahead: how many calls go before it, 0 or more.
            again: ignored, as in `try_acquire`.
        """
        return self._expected_wait(loop_time(), ahead)

    def _expected_wait(self, now: float, ahead: int) -> float:
        closed = max(0.0, self._closed_until - now)
        if ahead < len(self._slots):
            return max(closed, self._slots[ahead].at - now)
        ahead -= len(self._slots)
        if not self._connection.is_shared(now):
            closed = max(closed, self._connection.silent_until() - now)
        if self._connection.is_lost:
            return max(closed, self._next_own_at - now) + ahead * self._own_interval
        if self._next_shared_at <= now:
            ahead = max(0, ahead + 1 - int(burst_slots(self._shared.at(now))))
        return max(closed, self._next_shared_at - now) + ahead / self._rate(now)

    @property
    def _own_interval(self) -> float:
        """Seconds between two calls of a program that is alone.

        No program exceeds its share in any second, so all programs together keep the limit. Where
        the programs are more than the limit, each sends less than one call a second.
        """
        limit = self._shared.at(loop_time())
        window = LOG_WINDOW * max(1.0, 1 / limit)
        factor = self._own_429s.rate_factor * self._shared_factor
        if self._connection.programs is None:  # one call a second, for nothing is known
            return window / factor
        share = max(1.0, limit) / self._connection.programs
        return window / (share if share < 1 else int(share)) / factor

    @property
    def _own_phase(self) -> float:
        """Seconds after the silence until the first call: programs of small shares take turns."""
        return self._turn * max(0.0, self._own_interval - LOG_WINDOW)

    def _try_acquire_leased(self) -> bool:
        now = loop_time()
        self._drop_expired(now)
        if now < self._closed_until:
            return False
        if self._slots:
            if self._slots[0].at > now:
                return False
            self._use(self._slots.popleft())
            return True
        if self._connection.is_alone(now) and now >= max(
            self._next_own_at, self._connection.alone_from + self._own_phase
        ):
            self._next_own_at = now + self._own_interval
            self._connection.note_call(now)
            self._newest_slot = None
            return True
        return False

    def _use(self, slot: Slot) -> None:
        self._newest_slot = slot
        self._shared.on_sent(loop_time(), slot)

    def _drop_expired(self, now: float) -> None:
        while self._slots and self._slots[0].at < now - _SLOT_VALIDITY:
            self._return(self._slots.popleft())

    def _return(self, slot: Slot) -> bool:
        """Gives a slot back with the next request; returns whether it is one of Redis's."""
        if slot.redis_at is None:
            return False
        self._unused.append(slot.redis_at)
        if len(self._unused) == 1:
            self._connection.start_task(self._return_unused)
        return True

    async def _return_unused(self) -> None:
        await asyncio.sleep(_RETURN_DELAY)
        if self._unused and not self._lease_task and not self._connection.is_lost:
            await self._request()

    async def _lease(self, wanted: int, *, horizon: float) -> None:
        """Requests slots, or waits for the request that is under way.

        The request continues if the caller is cancelled: the next call uses its slots.
        """
        if self._lease_task is None or self._lease_task.ended.done():
            self._lease_task = self._connection.start_task(
                functools.partial(self._request_lease, wanted, horizon)
            )
        await asyncio.shield(self._lease_task.ended)

    async def _request_lease(self, wanted: int, horizon: float) -> None:
        reply = await self._request(wanted=wanted, horizon=horizon)
        self._lease_task = None
        if reply is None:
            return
        for slot in reply.slots:
            if slot.at >= self._closed_until:
                self._slots.append(self._in_order(slot))
            else:
                self._return(slot)
        if self._slots:
            self._connection.note_call(self._slots[-1].at)
        elif horizon:
            self._next_lease_at = max(self._next_shared_at - horizon, loop_time() + _SLOT_VALIDITY)

    def _in_order(self, slot: Slot) -> Slot:
        """Returns the slot, not before those of earlier replies: each reply corrects the clock."""
        if 0 <= self._newest_at - slot.at < _SLOT_VALIDITY:
            slot = slot._replace(at=self._newest_at + _SLOT_GAP)
        self._newest_at = slot.at
        return slot

    async def _report_429(self, seconds: float, slot: Slot | None) -> None:
        reply = await self._request(rate_limited_for=seconds, refused=slot)
        if reply is not None and slot is not None:
            self._shared.learn(reply, slot, loop_time())
            if self._shared.change is not None:
                await self._request()

    async def _request(
        self,
        *,
        wanted: int = 0,
        horizon: float = 0.0,
        rate_limited_for: float = -1.0,
        refused: Slot | None = None,
    ) -> SlotReply | None:
        unused = list(self._unused)
        self._unused.clear()
        reply = await self._connection.request_slots(
            self._name,
            limit=self._shared.at(loop_time()),
            wanted=wanted,
            horizon=horizon,
            rate_limited_for=rate_limited_for,
            refused=(refused and refused.redis_at) or 0.0,
            version=self._shared.version,
            learned=self._shared.change,
            unused=unused,
        )
        if reply is not None:
            self._shared.take(reply)
            self._shared_factor, self._next_shared_at = reply.rate_factor, reply.next_at
            self._closed_until = max(self._closed_until, reply.closed_until)
        return reply
