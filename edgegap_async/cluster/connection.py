"""One program's connection to Redis: heartbeats, loss and return, the number of programs.

A *timeline* is the state of one operation's rate limit in Redis. A *slot* is a time on it, at which
one program may send one call. The *share* of a program is the rate at which it sends without Redis:
the rate limit divided by the number of programs that share the timelines.

**Switches.** No second may hold more calls than the limit, also when Redis is lost or comes back.
A program that loses Redis uses the slots that it has, and is then *silent* until the slots of all
programs have passed, 2.3 s after the loss (`SILENCE`). Then it sends at its share. A program that
finds Redis again reports when it sent its last call. If programs may have sent on their own,
because Redis saw none of them for 2.2 s or has lost its data, the timelines are new and have a new
id. They open 1 s after the first program has come back, and 1.05 s after the last call of each
program that comes back. Until then these programs are silent.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import re
import secrets
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Final

import attrs

from edgegap_async.concurrency import ChangeEvent, PersistentTask, loop_time, wait_within
from edgegap_async.errors import InvalidRequest, log_fields
from edgegap_async.http.learned_limit import REMEMBERED_SECONDS, LearnedState

from .slots import SILENCE, ClockOffset, Refusals, Slot, SlotReply, burst_slots, load_script

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from redis.commands.core import AsyncScript

logger = logging.getLogger(__name__)

REDIS_TIMEOUT: Final = 0.3  # seconds; without an answer in this time, Redis is lost
RECONNECT_INTERVAL: Final = 0.5  # seconds between two attempts while Redis is lost
_HEARTBEAT_INTERVAL: Final = 1.5  # seconds; a quarter of the time after which a program is gone
_ADVICE: Final = {
    "AuthenticationError": "the user or the password of the url is refused, or is missing",
    "ReadOnlyError": "the server is a replica; name the master",
}
_COMMAND: Final = re.compile(r"(?:run the|lacks) '([\w|]+)'")
_UNKNOWN_EVALSHA: Final = re.compile(r"unknown command [`'\"]?evalsha", re.IGNORECASE)
_MIN_COUNT_TIME: Final = 10.0  # seconds that a number of programs is kept before a lower one


class RedisConnection:
    """One program's connection to Redis, and whether Redis answers."""

    programs: int | None = None
    """How many programs share the timelines, 1 or more with this one; None before Redis answers."""
    alone_from: float = math.inf
    """Loop time from which this program sends at its share; infinite while Redis answers."""
    opens_at: float = -math.inf
    """Loop time at which the timelines open, which Redis said last."""
    round_trip: float = 0.0
    """Seconds that the last answer took."""

    def __init__(self, redis: Redis, prefix: str) -> None:
        self._redis = redis
        self._script: AsyncScript = redis.register_script(load_script())
        self._keys = [f"{prefix}:timelines", f"{prefix}:programs"]
        self._key_pattern = f"{prefix}:*"
        options = redis.connection_pool.connection_kwargs
        self._address = {key: options[key] for key in ("host", "port") if key in options}
        self._program = secrets.token_hex(8)
        self._clock = ClockOffset()
        self._tasks = set[PersistentTask]()
        self._scripts = set[asyncio.Future[list[Any]]]()
        self._heartbeat_task: PersistentTask | None = None
        self._answered_at = -math.inf
        self._lost_at: float | None = None
        self._count_valid_until = -math.inf
        self._timelines = ""
        self._busy_until = -math.inf
        self._change = ChangeEvent()

    async def open(self) -> None:
        """Connects and starts the heartbeat. Does not fail if Redis does not answer."""
        await self.request_slots()
        if not self.is_lost:
            await self.request_slots()  # the first answer had to connect: too slow for the clock
        self._heartbeat_task = PersistentTask(self._send_heartbeats, "the heartbeats to Redis")

    async def close(self) -> None:
        """Ends heartbeat and tasks. Calls that wait for a permit continue at this program's share.

        Takes a second at most.
        """
        # As if Redis were lost long ago; no heartbeat finds it again.
        self._lost_at = self.alone_from = loop_time()
        self._change.notify()
        if self._heartbeat_task is not None:
            self._heartbeat_task.cancel()
            for task in self._tasks:
                task.resume()
            await asyncio.wait([task.ended for task in (self._heartbeat_task, *self._tasks)])
        with contextlib.suppress(Exception):  # the script removes the program a few seconds later
            async with asyncio.timeout(REDIS_TIMEOUT):
                await self._redis.zrem(self._keys[1], self._program)
        if self._scripts:  # each would open a new connection once this one is closed
            await asyncio.wait(self._scripts, timeout=REDIS_TIMEOUT)

    @property
    def is_lost(self) -> bool:
        """Whether Redis did not answer the last request."""
        return self._lost_at is not None

    def is_shared(self, now: float) -> bool:
        """Whether Redis gives slots at the loop time `now`.

        Raises:
            InvalidRequest: the cluster is not open.
        """
        self.check_open()
        return self._lost_at is None and now >= self.opens_at

    def is_alone(self, now: float) -> bool:
        """Whether this program sends at its share at the loop time `now`.

        It is neither shared nor alone, but silent, around a loss of Redis.

        Raises:
            InvalidRequest: the cluster is not open.
        """
        self.check_open()
        return self._lost_at is not None and now >= self.alone_from

    def silent_until(self) -> float:
        """Returns the loop time at which the silence ends, if Redis stays as it is."""
        return self.opens_at if self._lost_at is None else self.alone_from

    async def wait_for_change(self, timeout: float) -> None:
        """Returns when Redis is lost, comes back, or opens the timelines later; or after a time."""
        await wait_within(asyncio.timeout(timeout), self._change.wait())

    def note_call(self, at: float) -> None:
        """Notes that this program sends a call at a loop time, now or later."""
        self._busy_until = max(self._busy_until, at)

    def check_open(self) -> None:
        """Raises `InvalidRequest` unless the cluster is open."""
        if self._heartbeat_task is None:
            raise InvalidRequest("open the cluster first: async with Cluster(...) as cluster")

    def start_task(self, work: Callable[[], Coroutine[Any, Any, None]]) -> PersistentTask:
        """Starts a task that `close` waits for."""
        task = PersistentTask(work, "a request to Redis")
        self._tasks.add(task)
        task.ended.add_done_callback(lambda _: self._tasks.discard(task))
        return task

    async def request_slots(
        self,
        name: str = "",
        *,
        limit: float = 1.0,
        wanted: int = 0,
        horizon: float = 0.0,
        rate_limited_for: float = -1.0,
        refused: float = 0.0,
        version: int = 0,
        learned: LearnedState | None = None,
        unused: Sequence[float] = (),
    ) -> SlotReply | None:
        """Asks Redis for slots on an operation's timeline; without a name, sends a heartbeat.

        Args:
            name: name of the operation. A heartbeat alone ends an outage, because the reply to a
                lease may be older.
            limit: calls a second, as the programs have learned it.
            wanted: how many slots.
            horizon: seconds that a slot may be later than the reply.
            rate_limited_for: seconds for which the API wants no call; below 0 without a 429.
            refused: slot of the refused call, by Redis's clock; 0 if unknown.
            version: of the learned limit that this program knows.
            learned: what this program has learned since; None for no change.
            unused: slots to give back, by Redis's clock.

        Returns:
            The reply, or None if Redis is lost; the reason is logged.
        """
        lead, sent = self.round_trip, loop_time()
        busy = max(self._busy_until - sent, -SILENCE)
        arguments: list[str | float] = [self._program, self._timelines, busy, name, limit]
        arguments += [burst_slots(limit), wanted, lead, lead + horizon, rate_limited_for]
        arguments += [f"{refused:.6f}", version]
        # A state that never changed is that of the documented limit.
        arguments += [
            *(
                (learned.limit, max(learned.changed_at - sent, -1e9), learned.hold)
                if learned
                else (0, 0, 0)
            )
        ]
        arguments += [f"{at:.6f}" for at in unused]
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

    async def _call_script(self, arguments: list[str | float]) -> list[Any]:
        """Runs the script on the node that has the keys, if Redis is a Cluster."""
        from redis.exceptions import MovedError  # an extra, and slow to import

        try:
            reply: list[Any] = await self._script(self._keys, arguments)
        except MovedError as moved:
            await self._reconnect(host=moved.host or self._address.get("host"), port=moved.port)
            reply = await self._script(self._keys, arguments)
        return reply

    async def _reconnect(self, **address: Any) -> None:
        """Closes the connections that are not in use, and lets new ones lead to an address."""
        pool = self._redis.connection_pool
        is_new = any(pool.connection_kwargs.get(key) != address[key] for key in address)
        pool.connection_kwargs.update(address)
        await pool.disconnect(inuse_connections=False)
        if is_new:  # the pool would connect the old connections to the old address again
            pool._available_connections.clear()  # noqa: SLF001 - no public way; a test covers it

    async def _run_script(self, arguments: list[str | float]) -> list[Any]:
        running: asyncio.Future[list[Any]] = asyncio.ensure_future(self._call_script(arguments))
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
        seconds, micros, programs, opens, timelines, *timeline = raw_reply
        redis_time = seconds + micros / 1e6
        self._clock.measure(redis_time, sent, received)

        def loop_time_of(relative: int) -> float:
            return self._clock.to_loop_time(redis_time + relative / 1e6)

        reply = SlotReply(
            programs=programs, timelines=timelines.decode(), opens_at=loop_time_of(opens)
        )
        if not timeline:
            return reply
        closed, factor, following, slots, (version, *learned), *refusals = timeline
        return attrs.evolve(
            reply,
            closed_until=loop_time_of(closed),
            rate_factor=factor / 1e6,
            next_at=loop_time_of(following),
            slots=tuple(Slot(loop_time_of(slot), redis_time + slot / 1e6) for slot in slots),
            version=version,
            learned=LearnedState(learned[0] / 1e6, loop_time_of(learned[1]), learned[2] / 1e6)
            if learned
            else None,
            refusals=_refusals(loop_time_of, *refusals) if refusals else None,
        )

    def error_text(self, error: Exception) -> str:
        """Returns what a log line says about an error of Redis: class, cause, and what to do.

        Redis repeats the arguments of a command that it does not know, and one of the commands that
        a new connection sends holds the password. redis-py has subclasses of its connection errors
        for such replies, so only the exact classes count as errors of the network. Of other replies
        only known words are repeated.
        """
        from redis import exceptions  # an extra, and slow to import

        name, text = type(error).__name__, str(error)
        if isinstance(error, OSError) or type(error) in {
            exceptions.ConnectionError,
            exceptions.TimeoutError,
        }:
            return f"{name}: {text}"
        if command := _COMMAND.search(text):
            return f"{name}: the Redis user lacks the command +{command[1]}"
        if isinstance(error, exceptions.NoPermissionError):
            return f"{name}: the Redis user may not use the keys ~{self._key_pattern}"
        if _UNKNOWN_EVALSHA.match(text):
            return f"{name}: the server does not know EVALSHA; name the master and not a Sentinel"
        advice = _ADVICE.get(name)
        return f"{name}: {advice}" if advice else name

    async def _set_lost(self, error: Exception) -> None:
        if self._lost_at is None:
            self._lost_at = loop_time()
            # A program that never had Redis has no other programs to wait for.
            self.alone_from = self._lost_at + (0.0 if self.programs is None else SILENCE)
            self._change.notify()
            logger.warning(
                "Redis is lost; this program sends at its share of the rate limits, as one of"
                " %s programs: %s",
                self.programs or "unknown",
                self.error_text(error),
                extra=log_fields(error, programs=self.programs),
            )
        # After a failover a new connection may reach another server; an old one never does. The
        # node that the url names knows which node of a Redis Cluster has the keys now.
        with contextlib.suppress(Exception):
            await self._reconnect(**self._address)

    def _update(self, reply: SlotReply, now: float) -> None:
        if self._lost_at is not None:
            logger.warning(
                "Redis is back after %.1f s; the rate limits are shared",
                now - self._lost_at,
                extra=log_fields(seconds=now - self._lost_at),
            )
            self._lost_at = None
        self.opens_at, self._timelines = reply.opens_at, reply.timelines
        self._change.notify()
        if reply.opens_at > now:
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


def _refusals(
    loop_time_of: Callable[[int], float], log: list[int], refused: list[int], *rest: int
) -> Refusals:
    known = {near for slot in refused for near in (slot - 1, slot, slot + 1)}  # they are rounded
    accepted = tuple(loop_time_of(slot) for slot in log if slot not in known)
    factor, *pause = rest
    # Before the log begins, calls may have followed the pause.
    is_remembered = pause[1] > -REMEMBERED_SECONDS * 1e6
    began, ended = map(loop_time_of, pause) if is_remembered else (-math.inf, -math.inf)
    return Refusals(accepted, factor / 1e6, (began, ended))
