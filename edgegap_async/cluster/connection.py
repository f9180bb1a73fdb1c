"""One program's connection to Redis: heartbeats, loss and return, the number of programs.

A *timeline* is the state of one operation's rate limit in Redis. A *slot* is a time on it, at which
one program may send one call. The *share* of a program is the rate at which it sends without Redis:
the rate limit divided by the number of programs that share the timelines.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import secrets
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Final

import attrs

from edgegap_async.concurrency import create_detached_task, loop_time
from edgegap_async.errors import InvalidRequest

from .slots import IDLE_TIME, ClockOffset, SlotReply, burst_slots, load_script

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from redis.commands.core import AsyncScript

logger = logging.getLogger(__name__)

REDIS_TIMEOUT: Final = 0.3  # seconds; without an answer in this time, Redis is lost
RECONNECT_INTERVAL: Final = 0.5  # seconds between two attempts while Redis is lost
_HEARTBEAT_INTERVAL: Final = 2.0  # seconds; a third of the time after which a program is gone
_MIN_COUNT_TIME: Final = 10.0  # seconds that a number of programs is kept before a lower one


class RedisConnection:
    """One program's connection to Redis, and whether Redis answers."""

    programs: int | None = None
    """How many programs share the timelines, 1 or more with this one; None before Redis answers."""
    alone_until: float = math.inf
    """Loop time until which this program sends at its share. Infinite while Redis is lost."""
    round_trip: float = 0.0
    """Seconds that the last answer took."""

    def __init__(self, redis: Redis, prefix: str) -> None:
        self._redis = redis
        self._script: AsyncScript = redis.register_script(load_script())
        self._keys = [f"{prefix}:timelines", f"{prefix}:programs"]
        self._program = secrets.token_hex(8)
        self._clock = ClockOffset()
        self._tasks = set[asyncio.Task[None]]()
        self._scripts = set[asyncio.Future[list[Any]]]()
        self._heartbeat_task: asyncio.Task[None] | None = None
        self._answered_at = -math.inf
        self._lost_at: float | None = None
        self._count_valid_until = -math.inf

    async def open(self) -> None:
        """Connects and starts the heartbeat. Does not fail if Redis does not answer."""
        await self.request_slots()
        if not self.is_lost:
            await self.request_slots()  # the first answer had to connect: too slow for the clock
        self._heartbeat_task = create_detached_task(self._send_heartbeats())

    async def close(self) -> None:
        """Ends heartbeat and tasks. Calls that wait for a permit continue at this program's share.

        Takes a second at most.
        """
        self.alone_until = math.inf
        self._lost_at = loop_time()  # as if Redis were lost; no heartbeat finds it again
        if self._heartbeat_task is not None:
            self._heartbeat_task.cancel()
            await asyncio.wait([self._heartbeat_task, *self._tasks])
        with contextlib.suppress(Exception):  # the script removes the program a few seconds later
            async with asyncio.timeout(REDIS_TIMEOUT):
                await self._redis.zrem(self._keys[1], self._program)
        if self._scripts:  # each would open a new connection once this one is closed
            await asyncio.wait(self._scripts, timeout=REDIS_TIMEOUT)

    @property
    def is_lost(self) -> bool:
        """Whether Redis did not answer the last request."""
        return self._lost_at is not None

    def is_alone(self, now: float) -> bool:
        """Whether this program sends at its share at the loop time `now`.

        Raises:
            InvalidRequest: the cluster is not open.
        """
        self.check_open()
        return now < self.alone_until

    def check_open(self) -> None:
        """Raises `InvalidRequest` unless the cluster is open."""
        if self._heartbeat_task is None:
            raise InvalidRequest("open the cluster first: async with Cluster(...) as cluster")

    def start_task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Starts a task that `close` waits for."""
        task = create_detached_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def request_slots(
        self,
        name: str = "",
        *,
        limit: float = 1.0,
        wanted: int = 0,
        horizon: float = 0.0,
        rate_limited_for: float = -1.0,
    ) -> SlotReply | None:
        """Asks Redis for slots on an operation's timeline; without a name, sends a heartbeat.

        Args:
            name: name of the operation. A heartbeat alone ends an outage, because the reply to a
                lease may be older.
            limit: calls a second.
            wanted: how many slots.
            horizon: seconds that a slot may be later than the reply.
            rate_limited_for: seconds for which the API wants no call; below 0 without a 429.

        Returns:
            The reply, or None if Redis is lost; the reason is logged.
        """
        # The timelines are new if no program has called Redis for this time. After an outage: if no
        # program has called Redis during the outage.
        idle_time = IDLE_TIME
        if self._lost_at is not None:
            idle_time = min(idle_time, loop_time() - self._lost_at)
        lead = self.round_trip
        arguments: list[str | float] = [self._program, idle_time, name, limit]
        arguments += [burst_slots(limit), wanted, lead, lead + horizon, rate_limited_for]
        sent = loop_time()
        try:
            raw_reply = await self._run_script(arguments)
            received = loop_time()
            reply = self._parse(raw_reply, sent, received)
        except Exception as error:  # noqa: BLE001 - every error means the same: Redis is lost
            await self._set_lost(error)
            return None
        self._answered_at, self.round_trip = received, received - sent
        if self._lost_at is None or not name:
            self._update(reply, received)
        return reply

    async def _run_script(self, arguments: list[str | float]) -> list[Any]:
        running: asyncio.Future[list[Any]] = asyncio.ensure_future(
            self._script(self._keys, arguments)
        )
        self._scripts.add(running)
        running.add_done_callback(self._discard_script)
        try:
            # Three parts: an event loop that stands still uses up one of them, not the whole time.
            for _ in range(3):
                done, _ = await asyncio.wait([running], timeout=REDIS_TIMEOUT / 3)
                if done:
                    return running.result()
        finally:
            running.cancel()
        raise TimeoutError(f"no answer in {REDIS_TIMEOUT} s")

    def _discard_script(self, running: asyncio.Future[list[Any]]) -> None:
        self._scripts.discard(running)
        if not running.cancelled():
            running.exception()  # retrieved, so that asyncio does not log it after a timeout

    def _parse(self, raw_reply: list[Any], sent: float, received: float) -> SlotReply:
        seconds, micros, programs, opens, *timeline = raw_reply
        redis_time = seconds + micros / 1e6
        self._clock.measure(redis_time, sent, received)

        def loop_time_of(relative: int) -> float:
            return self._clock.to_loop_time(redis_time + relative / 1e6)

        reply = SlotReply(programs=programs, opens_at=loop_time_of(opens))
        if not timeline:
            return reply
        closed, factor, following, slots = timeline
        return attrs.evolve(
            reply,
            closed_until=loop_time_of(closed),
            rate_factor=factor / 1e6,
            next_at=loop_time_of(following),
            slots=tuple(map(loop_time_of, slots)),
        )

    async def _set_lost(self, error: Exception) -> None:
        if self._lost_at is None:
            self._lost_at = loop_time()
            self.alone_until = math.inf
            logger.warning(
                "Redis is lost; this program sends at its share of the rate limits, as one of"
                " %s programs: %s",
                self.programs or "unknown",
                _safe_error_text(error),
            )
        # After a failover a new connection may reach another server; an old one never does.
        with contextlib.suppress(Exception):
            await self._redis.connection_pool.disconnect(inuse_connections=False)

    def _update(self, reply: SlotReply, now: float) -> None:
        if self._lost_at is not None:
            logger.warning(
                "Redis is back after %.1f s; the rate limits are shared", now - self._lost_at
            )
            self._lost_at = None
        self.alone_until = reply.opens_at if reply.opens_at > now else -math.inf
        if self.alone_until > now:
            return  # the other programs have not all reconnected yet
        if reply.programs >= (self.programs or 0) or now >= self._count_valid_until:
            self.programs = reply.programs
            self._count_valid_until = now + _MIN_COUNT_TIME

    async def _send_heartbeats(self) -> None:
        while True:
            await asyncio.sleep(RECONNECT_INTERVAL)
            is_due = loop_time() >= self._answered_at + _HEARTBEAT_INTERVAL
            if self._lost_at is not None or is_due:
                await self.request_slots()


def _safe_error_text(error: Exception) -> str:
    """Returns an error's class name, and its text if the text is not Redis's own.

    Redis repeats the arguments of a command that it does not know, and one of the commands that a
    new connection sends holds the password. redis-py has subclasses of its connection errors for
    such replies, so only the exact classes count as errors of the network.
    """
    from redis import exceptions  # noqa: PLC0415 - an extra, and slow to import

    is_network_error = isinstance(error, OSError) or type(error) in {
        exceptions.ConnectionError,
        exceptions.TimeoutError,
    }
    return f"{type(error).__name__}: {error}" if is_network_error else type(error).__name__
