"""The limits of one account, shared by many programs through Redis (or Valkey).

Theory. The documented numbers are the organization's: eight replicas of a matchmaker have 40
deploys a second between them. So each operation has one timeline, in Redis, and a script that hands
out **slots** on it: moments, by Redis's clock, at which one call may go. They are paced at 95 % of
the limit, after a burst of ten for an idle account, and no 1.05 s hold more of them than the limit.
The little less and the little more are for calls that go late or travel slowly: a slot is good for
30 ms and lost then, however long the loop stood still.

A program takes a **lease** of up to five slots when somebody waits, one lease at a time, and fewer
where there are many programs, so that all leases together reach about a second ahead. No clock of
the day is read: what is measured is how far Redis's clock is ahead of the loop's, and the answer
that came fastest tells it best.

**Alone.** A Redis that does not answer within 0.3 s, or answers with an error, is lost for all
operations at once. Nobody is told but the log, once. Each program goes on at its share: the limit
divided by the programs that were last seen, evenly, without a burst, and one call a second where
that is less or where Redis was never there to say how many there are. It starts where its last
lease would have put it next. Redis is asked again every half second.

**A new timeline** begins where nobody has been seen for a while, or by whoever finds that nobody
else got through while it could not: after a restart, a failover, an eviction, an outage, and for
the first program of all. It opens a second late and without its burst: by then all have come back,
and until then each goes on alone. So a switch costs no pause; and the second around it holds at
most a quarter more calls than the limit.

A 429 closes the timeline for all, and slows it down as `limits` does for one program.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import math
import secrets
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urlsplit

import attrs

from .errors import InvalidRequest
from .limits import Limits
from .requests import check_kind

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from redis.commands.core import AsyncScript

__all__ = ["Cluster"]

logger = logging.getLogger("edgegap_async.cluster")

_PACE: Final = 0.95
_WINDOW: Final = 1.05  # seconds
_BURST: Final = 10
_GOOD_FOR: Final = 0.03  # seconds that a call may be late for its slot
_LEASE: Final = 5  # slots
_HORIZON: Final = 1.25  # seconds: no slot is given further ahead

_ANSWER: Final = 0.3  # seconds that Redis may take
_RETRY: Final = 0.5  # seconds between looks for one that is lost
_BEAT: Final = 2.0  # seconds after which a program shows that it is there
_SILENCE: Final = 3.0  # seconds without any program, and the timeline is a new one
_LATE: Final = 1.0  # seconds until it opens: all look for Redis and are answered meanwhile
_GONE: Final = 6.0  # seconds after which a program does not count any more
_REMEMBERED: Final = 10.0  # seconds for which fewer programs than before are not believed
_KEPT: Final = 3600  # seconds that Redis keeps it all when nobody comes

_DRIFT: Final = 2e-4  # seconds that two clocks may part in one
_NEVER: Final = 1e9  # seconds, for a script that has no infinity

# KEYS: the timelines, a hash; the programs, a sorted set by when they were last seen.
# What the programs tell of seconds is relative, so that Redis's clock is the only one.
_SCRIPT: Final = (
    f"""
local PACE, WINDOW, BURST = {_PACE}, {_WINDOW}, {_BURST}
local SILENCE, LATE, GONE, KEPT = {_SILENCE}, {_LATE}, {_GONE}, {_KEPT}
"""
    """
local timelines, programs = KEYS[1], KEYS[2]
local program, away, name = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6
local function micro(seconds) return math.floor(seconds * 1e6) end

redis.call('ZADD', programs, string.format('%.6f', now), program)
redis.call('ZREMRANGEBYSCORE', programs, '-inf', string.format('%.6f', now - GONE))

local marks = redis.call('HMGET', timelines, 'seen', 'opens')
local seen, opens = tonumber(marks[1] or nil), tonumber(marks[2] or nil)
if seen and seen > now then  -- the clock was set back, or is another machine's
  redis.call('DEL', timelines)
  seen = nil
end
if not seen or not opens or now - seen > math.min(SILENCE, away) then
  opens = now + LATE
end
redis.call('HSET', timelines,
           'seen', string.format('%.6f', now), 'opens', string.format('%.6f', opens))
redis.call('EXPIRE', timelines, KEPT)
redis.call('EXPIRE', programs, KEPT)
local told = {tonumber(time[1]), tonumber(time[2]), redis.call('ZCARD', programs),
              micro(opens - now)}
if name == '' then return told end

local wanted, limit = tonumber(ARGV[5]), tonumber(ARGV[4])
local lead, horizon, refused = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local packed = redis.call('HGET', timelines, 'of ' .. name)
local line = packed and cmsgpack.unpack(packed)
             or {sent = {}, next = 0, closed = 0, share = 1, refused = 0, slowed = 0}

local share = math.min(1, line.share + 0.001 * (now - line.refused))
if refused >= 0 then
  if now >= line.slowed + 1 then
    line.slowed = now
    share = math.max(0.8, share * 0.95)
  end
  line.share, line.refused = share, now
  line.closed = math.max(line.closed, now + refused)
end

local gap = 1 / (PACE * limit * share)
local window = WINDOW * math.max(1, 1 / limit) / share
local size = math.max(1, math.floor(limit))
local early = (math.max(1, math.min(BURST, limit / 4)) - 1) * gap  -- what is left of the burst
line.next = math.max(line.next, opens + early)
local function earliest()
  local sent = line.sent
  return math.max(now + lead, opens, line.closed, line.next - early, sent[#sent] or 0,
                  (sent[#sent - size + 1] or -window) + window)
end

local slots = {}
while #slots < wanted and opens <= now and earliest() <= now + horizon do
  local slot = earliest()
  line.next = math.max(line.next, slot) + gap
  line.sent[#line.sent + 1] = slot
  slots[#slots + 1] = micro(slot - now)
  if #line.sent > size then table.remove(line.sent, 1) end
end
redis.call('HSET', timelines, 'of ' .. name, cmsgpack.pack(line))
told[5], told[6] = micro(line.closed - now), micro(share)
told[7], told[8] = micro(earliest() - now), slots
return told
"""
)


class Cluster:
    """The limits of an account for all programs that name the same Redis and the same namespace.

    Use it around the client:
    `async with Cluster(url) as cluster, EdgegapClient(limits=cluster.limits) as client`.
    It needs `pip install 'edgegap-async[redis]'`. While Redis is not there each program goes on
    with its share of the limits; no call fails because of it.

    Args:
        url: `redis://`, `rediss://` (TLS), `valkey://`, `valkeys://` or `unix://`.
        namespace: the same for all programs of one organization, for the limits are the
            organization's, whatever token they use; another where two organizations share a Redis.
            Redis sees a hash of it.
        limits: calls a second by operation name, as for the client; the same in all programs.

    Attributes:
        limits: what to give to the client, or to all clients of this program.

    Raises:
        InvalidRequest: an argument cannot be used, or the package for Redis is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        namespace: str = "edgegap",
        limits: Mapping[str, float | None] | None = None,
    ) -> None:
        check_kind("namespace", namespace, str)
        self._where = _where(url)
        redis = _client(url)
        del url  # a traceback that shows local variables must not show its password
        self._link = _Link(redis, hashlib.sha256(namespace.encode()).hexdigest()[:16])
        self.limits: Final = Limits(limits, permits=self._permits)

    def __repr__(self) -> str:
        return f"Cluster({self._where!r})"

    @property
    def programs(self) -> int | None:
        """How many programs share the limits, this one included; None if Redis never told."""
        return self._link.programs

    @property
    def is_shared(self) -> bool:
        """Whether the limits are shared at present; False while this program goes by its share."""
        return not self._link.is_alone(_now())

    async def __aenter__(self) -> Self:
        await self._link.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._link.close()

    def _permits(self, name: str, limit: float) -> _SharedPermits:
        return _SharedPermits(self._link, name, limit)


@attrs.frozen(kw_only=True)
class _Answer:
    """What Redis said, in times of this loop."""

    programs: int
    opens_at: float
    closed_until: float = -math.inf
    share: float = 1.0
    next_at: float = -math.inf
    slots: tuple[float, ...] = ()


class _Clock:
    """How far Redis's clock is ahead of the loop's."""

    def __init__(self) -> None:
        self._ahead = 0.0
        self._error = math.inf
        self._at = -math.inf

    def hear(self, theirs: float, sent: float, received: float) -> None:
        """It was so late there at some time between these two."""
        ahead, error = theirs - (sent + received) / 2, (received - sent) / 2
        known_to = self._error + _DRIFT * (received - self._at)
        # An answer that came faster tells more; one that contradicts tells of another clock.
        if error <= known_to or abs(ahead - self._ahead) > error + known_to:
            self._ahead, self._error, self._at = ahead, error, received

    def here(self, theirs: float) -> float:
        """The loop's time when it is so late there."""
        return theirs - self._ahead


class _Link:
    """One program's connection to what it shares, and whether there is one.

    Attributes:
        programs: how many share it, this one included; None if Redis never told.
        alone_until: loop time until which this program goes by its share; infinity while Redis is
            lost.
        round_trip: seconds that the last answer took.
    """

    def __init__(self, redis: Redis, account: str) -> None:
        self.programs: int | None = None
        self.alone_until = math.inf
        self.round_trip = 0.0
        self._redis = redis
        self._script: AsyncScript = redis.register_script(_SCRIPT)
        # Keys with the same word in braces are on the same machine, where Redis has several.
        self._keys = [f"{{edgegap:{account}}}:timelines", f"{{edgegap:{account}}}:programs"]
        self._program = secrets.token_hex(8)
        self._clock = _Clock()
        self._tasks = set[asyncio.Task[None]]()
        self._beating: asyncio.Task[None] | None = None
        self._heard_at = -math.inf
        self._lost_at: float | None = None
        self._believed_until = -math.inf

    async def open(self) -> None:
        """Shows that this program is there, and goes on doing so; with Redis lost it just waits."""
        await self.ask()
        if self._lost_at is None:
            await self.ask()  # the first had to connect, and tells little of the clock
        self._beating = asyncio.create_task(self._beat())

    async def close(self) -> None:
        """Leaves. What still asks for permits afterwards gets this program's share."""
        self.alone_until = math.inf
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.wait([self._beating, *self._tasks])
        with contextlib.suppress(Exception):  # it is forgotten in some seconds anyway
            async with asyncio.timeout(_ANSWER):
                await self._redis.zrem(self._keys[1], self._program)
        await self._redis.aclose()

    def is_alone(self, now: float) -> bool:
        """Whether this program goes by its share.

        Raises:
            InvalidRequest: it was never opened.
        """
        if self._beating is None:
            raise InvalidRequest("open the cluster first: async with Cluster(...) as cluster")
        return now < self.alone_until

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
    ) -> _Answer | None:
        """What Redis says of an operation's timeline; None, and the log says why, if nothing.

        Args:
            name: of the operation; without one this program only shows that it is there, and
                learns what concerns all. Nothing else ends an outage: a lease may be older.
            limit: calls a second.
            wanted: how many slots.
            horizon: seconds that they may be further ahead than this answer.
            refused: seconds for which the API wants no call, if it answered 429.
        """
        away = _NEVER if self._lost_at is None else _now() - self._lost_at
        lead = self.round_trip
        sent = _now()
        try:
            told = await self._run(
                [self._program, away, name, limit, wanted, lead, lead + horizon, refused]
            )
            received = _now()
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
        try:
            for _ in range(3):  # a loop that stands still uses up one of them, and not all
                done, _ = await asyncio.wait([running], timeout=_ANSWER / 3)
                if done:
                    return running.result()
        finally:
            running.cancel()
        raise TimeoutError(f"no answer in {_ANSWER} s")

    def _read(self, told: list[Any], sent: float, received: float) -> _Answer:
        seconds, micros, programs, opens, *line = told
        now = seconds + micros / 1e6
        self._clock.hear(now, sent, received)

        def here(relative: int) -> float:
            return self._clock.here(now + relative / 1e6)

        answer = _Answer(programs=programs, opens_at=here(opens))
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
            self._lost_at = _now()
            self.alone_until = math.inf
            logger.warning(
                "Redis is lost; on with a share of the limits, as one of %s programs: %s: %s",
                self.programs or "unknown",
                type(error).__name__,
                error,
            )
        # After a failover the next connection may reach another server; this one never does.
        with contextlib.suppress(Exception):
            await self._redis.connection_pool.disconnect(inuse_connections=False)

    def _believe(self, answer: _Answer, now: float) -> None:
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
            await asyncio.sleep(_RETRY)
            if self._lost_at is not None or _now() >= self._heard_at + _BEAT:
                await self.ask()


class _SharedPermits:
    """The permits of one operation: slots leased from Redis, or this program's own while alone."""

    def __init__(self, link: _Link, name: str, limit: float) -> None:
        self._link = link
        self._name = name
        self._limit = limit
        self._slots = deque[float]()
        self._own_from = -math.inf  # where the next slot of its own would be
        self._next_at = -math.inf  # no shared one can be had before, by the last answer
        self._ask_at = -math.inf
        self._closed_until = -math.inf
        self._share = 1.0
        self._asking: asyncio.Task[None] | None = None

    @property
    def rate(self) -> float:
        """Calls a second: of all programs together, or of this one while it is alone."""
        if self._link.is_alone(_now()):
            return 1 / self._spacing
        return _PACE * self._limit * self._share

    @property
    def free(self) -> int:
        """How many could be taken now, as far as this program knows."""
        now = _now()
        if now < self._closed_until:
            return 0
        leased = sum(now - _GOOD_FOR <= slot <= now for slot in self._slots)
        return leased or (self._own_from <= now and self._link.is_alone(now))

    @property
    def closed_for(self) -> float:
        """Seconds for which there are none because the API answered 429; 0 otherwise."""
        return max(0.0, self._closed_until - _now())

    async def take(self) -> bool:
        """Takes a permit if there is one, and tells whether there was; asks Redis if need be."""
        if self._take():
            return True
        now = _now()
        earliest = max(self._closed_until, self._next_at - self._link.round_trip)
        if self._slots or self._asking or now < earliest or self._link.is_alone(now):
            return False
        await self._ask(1, horizon=0.0)
        if self._slots:
            await asyncio.sleep(self._slots[0] - _now())  # no longer than the answer took
        return self._take()

    async def ready(self, wanted: Callable[[], int]) -> None:
        """Returns when `take` would find one."""
        while True:
            now = _now()
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

    def refused(self, seconds: float) -> None:
        """The API answered 429: no permit for so many seconds, and fewer for a while after."""
        now = _now()
        self._closed_until = max(self._closed_until, now + seconds)
        self._slots.clear()
        if self._link.is_alone(now):
            self._share = max(0.8, self._share * 0.95)
            self._own_from = now + self._spacing
        else:
            self._link.start(self._tell_refused(seconds))

    def expected_wait(self, ahead: int) -> float:
        """Seconds until whoever has so many others before him may go, if no other program asks."""
        now = _now()
        closed = max(0.0, self._closed_until - now)
        if ahead < len(self._slots):
            return max(closed, self._slots[ahead] - now)
        ahead -= len(self._slots)
        if self._link.is_alone(now):
            return max(closed, self._own_from - now) + ahead * self._spacing
        if self._next_at <= now:
            ahead = max(0, ahead + 1 - int(min(_BURST, self._limit / 4)))
        return max(closed, self._next_at - now) + ahead / self.rate

    @property
    def _spacing(self) -> float:
        """Seconds between the calls of a program that is alone.

        None sends more than its whole share in any second, so all together do not exceed the limit.
        """
        fair = self._limit / (self._link.programs or math.inf)
        return _WINDOW * max(1.0, 1 / self._limit) / max(1, int(fair)) / self._share

    def _take(self) -> bool:
        now = _now()
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
            self._ask_at = max(self._next_at - horizon, _now() + _GOOD_FOR)

    async def _tell_refused(self, seconds: float) -> None:
        answer = await self._link.ask(self._name, limit=self._limit, refused=seconds)
        if answer is not None:
            self._learn(answer)

    def _learn(self, answer: _Answer) -> None:
        self._share, self._next_at = answer.share, answer.next_at
        self._closed_until = max(self._closed_until, answer.closed_until)


def _client(url: str) -> Redis:
    try:
        from redis.asyncio import Redis  # noqa: PLC0415 - an extra, and slow to import
        from redis.asyncio.retry import Retry  # noqa: PLC0415 - as above
        from redis.backoff import NoBackoff  # noqa: PLC0415 - as above
        from redis.exceptions import ConnectionError as Dropped  # noqa: PLC0415 - as above
    except ModuleNotFoundError:
        del url
        raise InvalidRequest("a cluster needs redis: pip install 'edgegap-async[redis]'") from None
    try:
        return Redis.from_url(
            url.replace("valkey", "redis", 1) if url.startswith("valkey") else url,
            # Left to itself it tries ten times in four seconds. Once more is for a connection
            # that was closed while nobody used it. How long it all may take is not left to it.
            retry=Retry(NoBackoff(), 1, (Dropped,)),
        )
    except ValueError:
        pass
    del url
    raise InvalidRequest("url is redis://host:port, or rediss, valkey, valkeys or unix")


def _where(url: str) -> str:
    """The URL without its user and password, and without its query, which may have them too."""
    check_kind("url", url, str)
    try:
        parts = urlsplit(url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    except ValueError:
        return ""


def _now() -> float:
    return asyncio.get_running_loop().time()
