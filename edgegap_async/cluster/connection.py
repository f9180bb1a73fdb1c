"""One program's connection to Redis: whether there is one, and who else has one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import secrets
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Final

import attrs

from edgegap_async.errors import InvalidRequest

from .slots import SCRIPT, ClockOffset, SlotReply

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from redis.commands.core import AsyncScript

__all__ = ["RECONNECT_INTERVAL", "REDIS_TIMEOUT", "RedisConnection", "loop_time"]

logger = logging.getLogger(__name__)

REDIS_TIMEOUT: Final = 0.3  # seconds that Redis may take
RECONNECT_INTERVAL: Final = 0.5  # seconds between looks for one that is lost
_HEARTBEAT: Final = 2.0  # seconds after which a program shows that it is there
_REMEMBERED: Final = 10.0  # seconds for which fewer programs than before are not believed
_NEVER: Final = 1e9  # seconds, for a script that has no infinity


class RedisConnection:
    """One program's connection to what it shares, and whether there is one.

    Attributes:
        programs: how many share it, this one included; None if Redis never told.
        alone_until: loop time until which this program goes by its share; infinity while Redis is
            lost.
        round_trip: seconds that the last answer took.
    """

    def __init__(self, redis: Redis, prefix: str) -> None:
        self.programs: int | None = None
        self.alone_until = math.inf
        self.round_trip = 0.0
        self._redis = redis
        self._script: AsyncScript = redis.register_script(SCRIPT)
        self._keys = [f"{prefix}:timelines", f"{prefix}:programs"]
        self._program = secrets.token_hex(8)
        self._clock = ClockOffset()
        self._tasks = set[asyncio.Task[None]]()
        self._running = set[asyncio.Future[list[Any]]]()
        self._beating: asyncio.Task[None] | None = None
        self._heard_at = -math.inf
        self._lost_at: float | None = None
        self._believed_until = -math.inf

    async def open(self) -> None:
        """Shows that this program is there, and goes on doing so; with Redis lost it just waits."""
        await self.ask()
        if not self.is_lost:
            await self.ask()  # the first had to connect, and tells little of the clock
        self._beating = asyncio.create_task(self._beat())

    async def close(self) -> None:
        """Leaves. What still asks for permits afterwards gets this program's share."""
        self.alone_until = math.inf
        self._lost_at = loop_time()  # as if it were lost, and nobody looks for it any more
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.wait([self._beating, *self._tasks])
        with contextlib.suppress(Exception):  # it is forgotten in some seconds anyway
            async with asyncio.timeout(REDIS_TIMEOUT):
                await self._redis.zrem(self._keys[1], self._program)
        if self._running:  # or they would open another connection when this one is closed
            await asyncio.wait(self._running, timeout=REDIS_TIMEOUT)

    @property
    def is_lost(self) -> bool:
        """Whether Redis did not answer when last asked."""
        return self._lost_at is not None

    def is_alone(self, now: float) -> bool:
        """Whether this program goes by its share.

        Raises:
            InvalidRequest: it was never opened.
        """
        self.check_open()
        return now < self.alone_until

    def check_open(self) -> None:
        """Does nothing if the cluster was opened.

        Raises:
            InvalidRequest: it was not.
        """
        if self._beating is None:
            raise InvalidRequest("open the cluster first: async with Cluster(...) as cluster")

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task that ends before the link is closed."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def ask(
        self,
        name: str = "",
        *,
        limit: float = 1.0,
        wanted: int = 0,
        horizon: float = 0.0,
        refused: float = -1.0,
    ) -> SlotReply | None:
        """What Redis says of an operation's timeline; None, and the log says why, if nothing.

        Args:
            name: of the operation; without one this program only shows that it is there, and
                learns what concerns all. Nothing else ends an outage: a lease may be older.
            limit: calls a second.
            wanted: how many slots.
            horizon: seconds that they may be further ahead than this answer.
            refused: seconds for which the API wants no call, if it answered 429.
        """
        away = _NEVER if self._lost_at is None else loop_time() - self._lost_at
        lead = self.round_trip
        sent = loop_time()
        try:
            told = await self._run(
                [self._program, away, name, limit, wanted, lead, lead + horizon, refused]
            )
            received = loop_time()
            answer = self._read(told, sent, received)
        except Exception as error:  # noqa: BLE001 - whatever it is, no caller could act upon it
            await self._lose(error)
            return None
        self._heard_at, self.round_trip = received, received - sent
        if self._lost_at is None or not name:
            self._believe(answer, received)
        return answer

    async def _run(self, arguments: list[str | float]) -> list[Any]:
        running: asyncio.Future[list[Any]] = asyncio.ensure_future(
            self._script(self._keys, arguments)
        )
        self._running.add(running)
        running.add_done_callback(self._ended)
        try:
            for _ in range(3):  # a loop that stands still uses up one of them, and not all
                done, _ = await asyncio.wait([running], timeout=REDIS_TIMEOUT / 3)
                if done:
                    return running.result()
        finally:
            running.cancel()
        raise TimeoutError(f"no answer in {REDIS_TIMEOUT} s")

    def _ended(self, running: asyncio.Future[list[Any]]) -> None:
        self._running.discard(running)
        if not running.cancelled():
            running.exception()  # what becomes of one that was given up is nobody's concern

    def _read(self, told: list[Any], sent: float, received: float) -> SlotReply:
        seconds, micros, programs, opens, *line = told
        now = seconds + micros / 1e6
        self._clock.hear(now, sent, received)

        def here(relative: int) -> float:
            return self._clock.here(now + relative / 1e6)

        answer = SlotReply(programs=programs, opens_at=here(opens))
        if not line:
            return answer
        closed, share, following, slots = line
        return attrs.evolve(
            answer,
            closed_until=here(closed),
            share=share / 1e6,
            next_at=here(following),
            slots=tuple(map(here, slots)),
        )

    async def _lose(self, error: Exception) -> None:
        if self._lost_at is None:
            self._lost_at = loop_time()
            self.alone_until = math.inf
            logger.warning(
                "Redis is lost; on with a share of the limits, as one of %s programs: %s",
                self.programs or "unknown",
                _safe_error_text(error),
            )
        # After a failover the next connection may reach another server; this one never does.
        with contextlib.suppress(Exception):
            await self._redis.connection_pool.disconnect(inuse_connections=False)

    def _believe(self, answer: SlotReply, now: float) -> None:
        if self._lost_at is not None:
            logger.warning("Redis is back after %.1f s", now - self._lost_at)
            self._lost_at = None
        self.alone_until = answer.opens_at if answer.opens_at > now else -math.inf
        if self.alone_until > now:
            return  # not all are back that will be counted
        if answer.programs >= (self.programs or 0) or now >= self._believed_until:
            self.programs = answer.programs
            self._believed_until = now + _REMEMBERED

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(RECONNECT_INTERVAL)
            if self._lost_at is not None or loop_time() >= self._heard_at + _HEARTBEAT:
                await self.ask()


def _safe_error_text(error: Exception) -> str:
    """What may be told of an error: its kind, and its text if that is none of Redis's own.

    A server that does not know a command repeats its arguments, and of one that is sent at each
    connection the password is one. What is a kind of connection error to redis-py may be such an
    answer too, so only the very classes count.
    """
    from redis import exceptions  # noqa: PLC0415 - an extra, and slow to import

    is_the_networks = isinstance(error, OSError) or type(error) in {
        exceptions.ConnectionError,
        exceptions.TimeoutError,
    }
    return f"{type(error).__name__}: {error}" if is_the_networks else type(error).__name__


def loop_time() -> float:
    """The loop's time."""
    return asyncio.get_running_loop().time()
