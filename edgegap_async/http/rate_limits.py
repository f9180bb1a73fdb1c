"""Rate limits: sends no more than the documented number of calls in any second.

**Problem.** The API documents 40, 20 or 10 calls a second for some operations and does not say how
it counts. A counter that restarts each second, a sliding counter and a leaky bucket agree on one
thing: no window of one second, wherever it starts, may hold more calls than the limit.

**Rule.** A call goes when two checks allow it. The *pace* is aiolimiter's leaky bucket at 97.5 % of
the limit; it lets the first calls of an idle client go at once, a quarter of the limit and ten at
most, so alone it would let these calls plus the rate through in the first second. The *log* holds
the times of the last calls, as many as the limit; the next call waits until the oldest is 1.025 s
old. The 25 ms are for calls that travel faster than the calls before them. The first calls after an
idle period travel slowest, because they open connections: the log counts the calls of the
first 0.1 s as sent at the end of it.

**After a 429** no call goes for the time that the API asks, and for at least 0.125 s; each further
429 doubles that pause, up to 1 s. No burst follows. Pace and log become 7 % slower, once a second
at most, and recover by 0.1 % a second. With 100 ms of jitter before a sliding counter no rate above
91 % is safe, and one cut is enough (`benchmarks/limits.py` measures it). An account that allows
fewer calls than documented needs more: `learned_limit` finds the limit that pace and log go by.

**Queue.** Each operation has a queue for each priority, served in order of arrival. The first call
waits for a permit, the others wait for the first, and a call that leaves wakes the next. No task
runs in the background, and one timer is enough. A call takes its permit when it is sent, so a
cancelled call takes none with it, and the log is right even if the event loop stood still.

**Connections.** A call that must open a connection first gives its permit back, and takes one again
when the connection is open, before the calls that come later (`CallPermit`). Otherwise a name
server that answers after 3 s would send the permits of 3 s at one moment. The pace lets connections
begin; a second pace, and the same log, let the calls go when their connections are open.

**Permits** come from this process (`LocalPermits`) or from another `Permits`, such as one in Redis.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import enum
import itertools
import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from typing import Final, Protocol

import attrs

from edgegap_async.api.operations import DEPLOY, DEPLOY_TO_FLEET, LIMITS, Operation
from edgegap_async.api.validation import check_kind, unknown_name
from edgegap_async.api.values import Value
from edgegap_async.concurrency import LoopBinding, limited, loop_time
from edgegap_async.errors import InvalidRequest, LimitReached

from .learned_limit import CUT_FACTOR, MIN_CUT_INTERVAL, MIN_RATE_FACTOR, LearnedLimit

_PACE_FRACTION: Final = 0.975  # of the limit, which the pace allows in the long run
_MAX_LIMIT: Final = 100_000  # calls a second, because the log holds that many times
_LOG_WINDOW: Final = 1.025  # seconds; 25 ms more than the API's second, for jitter
_BURST_CALLS: Final = 10  # calls that an idle client may send at once
_ROUNDING_ERROR: Final = 1e-9  # seconds, and permits
_IDLE_TIME: Final = 4.0  # seconds; the transport closes idle connections after this time
_CONNECT_TIME: Final = 0.1  # seconds that a call may take longer where it opens a connection

RECOVERY_PER_SECOND: Final = 0.001  # of the rate
_FIRST_PAUSE: Final = 0.125  # seconds without calls, after a 429 that asks for less
_MAX_PAUSE: Final = 1.0  # seconds; the window of the documented limits
_SNAPSHOT_WAIT: Final = 1.0  # seconds; without an answer, the loop is busy with other code
_REPEAT_WINDOW: Final = 2.0  # seconds in which the next 429 doubles the pause


class Priority(enum.IntEnum):
    """Which calls go first where several wait for the same rate limit: the lowest number."""

    STOP = 0
    """Calls that stop a deployment or delete a tag."""
    DEPLOY = 1
    """Deploys, and the list requests that search for a deploy whose answer was lost."""
    STATUS = 2
    """Status and list requests of the poller."""
    OTHER = 3
    """All other calls."""

    @classmethod
    def of(cls, operation: Operation[object]) -> Priority:
        """Returns the default priority of an operation."""
        if operation.method == "DELETE":
            return cls.STOP
        # By identity, at half the cost of a set: this runs in every call.
        is_deploy = operation is DEPLOY or operation is DEPLOY_TO_FLEET
        return cls.DEPLOY if is_deploy else cls.OTHER


@attrs.frozen(kw_only=True, eq=False, repr=False)
class LimitState(Value):
    """The state of one operation's rate limit at one moment, from `Limits.snapshot`."""

    limit: float
    """Calls a second that are allowed, as documented or as set."""
    rate: float
    """Calls a second that the client sends at most at present, in the long run."""
    free: int
    """Calls that could go at once, 0 or more."""
    queued: int
    """Calls that wait, 0 or more."""
    predicted_wait: float
    """Seconds that one more call of the lowest priority would wait, if no call overtakes it."""
    closed_for: float
    """Seconds until calls may go again after a 429; 0 if they may."""


class Permits(Protocol):
    """The source of permits for one operation. All methods are called in one event loop.

    Waiting and taking are separate: the first caller of the queue awaits `wait_available`, and may
    be cancelled at any time; only `try_acquire` uses up a permit.
    """

    def state(self, now: float, queued: int) -> LimitState:
        """Returns the state of the rate limit. Needs no running event loop.

        Args:
            now: the time by the loop's clock, in seconds.
            queued: how many calls wait, 0 or more.
        """
        ...

    async def try_acquire(self, *, again: bool = False) -> bool:
        """Takes a permit if there is one, and returns whether there was. Never waits for one.

        Args:
            again: True for a call that had a permit before it opened its connection.
        """
        ...

    async def wait_available(self, wanted: Callable[[], int], *, again: bool = False) -> None:
        """Returns when `try_acquire` may find a permit. Only one task at a time awaits it.

        Args:
            wanted: returns how many calls wait, 1 or more: how many permits are worth fetching.
            again: as for `try_acquire`.
        """
        ...

    def give_back(self) -> bool:
        """Takes back the newest permit, unused, and returns whether the source can do that."""
        ...

    def on_rate_limited(self, seconds: float, sent_at: float | None = None) -> None:
        """Handles a 429: no permit for `seconds`, and a lower rate for some time after.

        Args:
            seconds: what the API asked for, 0 or more; 0 if it did not say.
            sent_at: loop time at which the refused call took its permit; None for the newest call.
        """
        ...

    def expected_wait(self, ahead: int, *, again: bool = False) -> float:
        """Returns the seconds until a call may go, as far as the source can tell.

        Args:
            ahead: how many calls go before it, 0 or more.
            again: as for `try_acquire`.
        """
        ...


def burst_calls(limit: float) -> float:
    """Returns how many calls may go at once after an idle period, for a limit of calls a second."""
    return min(_BURST_CALLS, limit / 4)


class LocalPermits:
    """The permits of an operation whose rate limit this process has for itself.

    Args:
        limit: calls a second, above 0.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._learned = LearnedLimit(limit)
        log_size = max(1, int(limit))
        self._log: deque[float] = deque([-math.inf] * log_size, log_size)
        self._pace_empty_at = -math.inf  # when all that was drawn will have leaked from the bucket
        self._again_empty_at = -math.inf  # the same for the pace of calls that waited to connect
        self._burst_suspended = False  # after a 429, until the next call
        self._connected_at = -math.inf  # when the connections of the newest burst are open
        self._factor = 1.0  # of the rate, at the last 429
        self._pause = _FIRST_PAUSE
        self._closed_until = -math.inf
        self._rate_limited_at = self._cut_at = self._closed_at = -math.inf
        self._use_limit(limit)
        self._idle_time = max(_IDLE_TIME, 2 * self._window)

    def _use_limit(self, limit: float) -> None:
        """Makes pace and log those of a number of calls a second."""
        from aiolimiter import AsyncLimiter  # it reads its metadata from disk

        self._present_limit = limit
        # A whole number of calls fits in a second: of 2.9 a second, 2 may go.
        self._rate = _PACE_FRACTION * (limit if limit < 1 else int(limit))
        # At the lowest rate one call takes more than one unit of the bucket, and must fit in it.
        self._burst = max(1 / MIN_RATE_FACTOR, burst_calls(limit))
        self._pace = AsyncLimiter(self._burst, self._burst / self._rate)
        # A limit below 1 a second is one call in a longer window.
        self._window = _LOG_WINDOW * max(1.0, 1 / limit)
        self._log_size = max(1, int(limit))

    def _follow_limit(self, now: float) -> None:
        """Follows what was learned about the limit; a new pace begins without a burst."""
        if self._learned.is_documented and self._present_limit == self._limit:
            return
        limit = self._learned.at(now)
        if limit != self._present_limit:
            self._use_limit(limit)
            self._pace_empty_at = -math.inf
            self._suspend_burst(now)

    @property
    def rate_factor(self) -> float:
        """The part of the usual rate that goes at present: 1, or less after a 429."""
        now = loop_time()
        return self._factor_at(now) * self._learned.at(now) / self._limit

    @property
    def closed_for(self) -> float:
        """Seconds until there are permits again after a 429; 0 without one."""
        return max(0.0, self._closed_until - loop_time())

    def state(self, now: float, queued: int) -> LimitState:
        """Returns the state of the rate limit. Needs no running event loop.

        Args:
            now: the time by the loop's clock, in seconds.
            queued: how many calls wait, 0 or more.
        """
        self._follow_limit(now)
        factor = self._factor_at(now)
        free = 0
        if now >= self._closed_until:
            newest = list(self._log)[-self._log_size :]
            old_enough = sum(sent + self._window / factor <= now for sent in newest)
            by_pace = int(self._burst_left(now, factor) * factor + _ROUNDING_ERROR)
            free = min(old_enough, by_pace)
        return LimitState(
            limit=self._limit,
            rate=self._rate * factor,
            free=free,
            queued=queued,
            predicted_wait=self._expected_wait(now, queued, again=False),
            closed_for=max(0.0, self._closed_until - now),
        )

    async def try_acquire(self, *, again: bool = False) -> bool:
        """Takes a permit if there is one, and returns whether there was.

        Args:
            again: True for a call that had a permit before it opened its connection.
        """
        now = loop_time()
        self._follow_limit(now)
        factor = self._factor_at(now)
        log_allows_at = self._log[-self._log_size] + self._window / factor
        if now < max(log_allows_at, self._closed_until):
            return False
        if again:
            if self._again_allows_at(factor) > now:
                return False
            self._again_empty_at = max(self._again_empty_at, now) + 1 / factor / self._rate
        elif self._pace_allows(1, factor):
            await self._draw(factor)  # does not wait: the pace allows it
            if now > self._log[-1] + self._idle_time:
                self._connected_at = now + _CONNECT_TIME
        else:
            return False
        self._log.append(max(now, self._connected_at))
        self._learned.on_sent(now)
        return True

    async def wait_available(self, wanted: Callable[[], int], *, again: bool = False) -> None:  # noqa: ARG002 - one at a time
        """Returns when `try_acquire` finds a permit. Ignores `wanted`: permits come one by one."""
        # Only the clock makes a permit available; a 429 during the sleep makes it later.
        while (wait := self.expected_wait(0, again=again)) > 0 or not (  # noqa: ASYNC110 - no event
            again or self._pace_allows(1, self._factor_at(loop_time()))
        ):
            await asyncio.sleep(max(wait, _ROUNDING_ERROR))

    def give_back(self) -> bool:
        """Removes the newest call from the log. The pace keeps it: a connection begins instead."""
        self._log.pop()
        self._log.appendleft(-math.inf)
        self._learned.on_not_sent()
        return True

    def on_rate_limited(self, seconds: float, sent_at: float | None = None) -> None:
        """Handles a 429: no permit for `seconds`, and a lower rate for some time after.

        Args:
            seconds: what the API asked for, 0 or more; 0 if it did not say.
            sent_at: loop time at which the refused call took its permit; None for the newest call.
        """
        now = loop_time()
        self._follow_limit(now)
        self._factor = self._factor_at(now)
        self._rate_limited_at = now
        pause = (self._closed_at, self._closed_until)
        if self._learned.on_refused(now, sent_at, pause=pause, rate_factor=self._factor):
            self._factor, self._cut_at = 1.0, now
        elif now >= self._cut_at + MIN_CUT_INTERVAL:
            self._factor = max(MIN_RATE_FACTOR, self._factor * CUT_FACTOR)
            self._cut_at = now
        if now >= self._closed_until:  # else the refused call was sent before the last 429 came
            is_repeated = now < self._closed_at + _REPEAT_WINDOW
            self._pause = min(2 * self._pause, _MAX_PAUSE) if is_repeated else _FIRST_PAUSE
            self._closed_at = now
            seconds = max(seconds, self._pause)
        self._closed_until = max(self._closed_until, now + seconds)
        self._follow_limit(now)
        self._suspend_burst(self._closed_until)

    def expected_wait(self, ahead: int, *, again: bool = False) -> float:
        """Returns the seconds until a call may go, if no 429 comes.

        Args:
            ahead: how many calls go before it, 0 or more.
            again: True for a call that had a permit before it opened its connection.
        """
        now = loop_time()
        self._follow_limit(now)
        return self._expected_wait(now, ahead, again=again)

    def _expected_wait(self, now: float, ahead: int, *, again: bool) -> float:
        factor = self._factor_at(now)
        rounds, place = divmod(ahead, self._log_size)
        log_wait = self._log[place - self._log_size] + (rounds + 1) * self._window / factor - now
        opens_at = max(now, self._closed_until)
        if again:
            pace_wait = self._again_allows_at(factor) - now + ahead / factor / self._rate
            return max(0.0, log_wait, pace_wait, opens_at - now)
        beyond_burst = (ahead + 1) / factor - self._burst_left(opens_at, factor)
        pace_wait = opens_at - now + beyond_burst / self._rate
        return max(0.0, log_wait, pace_wait, opens_at - now)

    def _factor_at(self, now: float) -> float:
        if self._factor == 1:
            return 1.0
        return min(1.0, self._factor + RECOVERY_PER_SECOND * (now - self._rate_limited_at))

    def _suspend_burst(self, until: float) -> None:
        """Lets no burst go at a time: each pace has room for one call then."""
        self._burst_suspended = True
        full_for = (self._burst - 1 / self._factor) / self._rate
        self._again_empty_at = max(self._again_empty_at, until + full_for)

    def _again_allows_at(self, factor: float) -> float:
        """Returns when the second pace has room for one call."""
        return self._again_empty_at - (self._burst - 1 / factor) / self._rate - _ROUNDING_ERROR

    def _pace_allows(self, calls: int, factor: float) -> bool:
        return self._pace.has_capacity(calls / factor)

    async def _draw(self, factor: float) -> None:
        """Takes one call from the pace; after a 429, the burst that it has saved up too."""
        while self._burst_suspended and self._pace_allows(2, factor):
            await self._draw_one(factor)
        self._burst_suspended = False
        await self._draw_one(factor)

    async def _draw_one(self, factor: float) -> None:
        await self._pace.acquire(1 / factor)
        self._pace_empty_at = max(self._pace_empty_at, loop_time()) + 1 / factor / self._rate

    def _burst_left(self, at: float, factor: float) -> float:
        """Returns how much could be drawn from the pace at a time, if nothing is drawn before."""
        left = self._burst - max(0.0, self._pace_empty_at - at) * self._rate
        return min(left, 1 / factor) if self._burst_suspended else left


class _Queue:
    """The calls that wait for the permits of one operation."""

    def __init__(self, permits: Permits) -> None:
        self.permits: Final = permits
        # For each priority, the calls that had a permit before, and then the others.
        self._waiting = {
            (priority, is_new): OrderedDict[int, asyncio.Future[None]]()
            for priority in Priority
            for is_new in (False, True)
        }
        self._numbers = itertools.count()
        self._woken: int | None = None  # the call that awaits the next permit; None if none waits

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def count_ahead(self, priority: Priority, *, front: bool = False) -> int:
        """Returns how many calls would go before a call that comes now."""
        place = (priority, not front)
        return sum(len(calls) for other, calls in self._waiting.items() if other <= place)

    async def acquire(self, priority: Priority, *, front: bool, again: bool) -> None:
        """Takes a permit when the calls before this one have theirs."""
        calls, number = self._waiting[priority, not front], next(self._numbers)
        new_future = asyncio.get_running_loop().create_future
        calls[number] = new_future()
        if self._woken is None:
            self._wake_first()
        try:
            while True:
                await calls[number]
                await self.permits.wait_available(self.__len__, again=again)
                if self._first() == number:
                    if await self.permits.try_acquire(again=again):
                        return
                else:  # a call with a higher priority has come since
                    calls[number] = new_future()
                    self._wake_first()
        finally:
            del calls[number]
            if self._woken == number:
                self._wake_first()

    def is_empty(self) -> bool:
        """Returns whether no call waits."""
        return self._woken is None

    def _first(self) -> int | None:
        return next((next(iter(calls)) for calls in self._waiting.values() if calls), None)

    def _wake_first(self) -> None:
        calls = next(filter(None, self._waiting.values()), None)
        if calls is None:
            self._woken = None
            return
        self._woken, future = next(iter(calls.items()))
        if not future.done():  # a cancelled call wakes the next one when it leaves
            future.set_result(None)


class Limits:
    """The rate limits of one client, or of several clients in one event loop that share them.

    Args:
        settings: calls a second by operation name, where yours differ from the documented ones:
            `{"deploy": 20, "list_deployments": None}`. None lifts a limit. Above 1 the fraction
            is not used: a second holds a whole number of calls. Lower the limits where several
            programs share those of the organization.
        permits: makes the source of permits of an operation from its name and limit; None for
            `LocalPermits`.

    Raises:
        InvalidRequest: an operation does not exist, or a limit is not above 0 and 100,000 at most.
    """

    def __init__(
        self,
        settings: Mapping[str, float | None] | None = None,
        *,
        permits: Callable[[str, float], Permits] | None = None,
    ) -> None:
        check_kind("limits", settings, Mapping)
        limits: dict[str, float | None] = {**LIMITS}
        for name, limit in (settings or {}).items():
            if name not in limits:
                _check_name(name)
            check_kind(f"the limit of {name}", limit, int, float)
            if limit is not None and not 0 < limit <= _MAX_LIMIT:
                raise InvalidRequest(
                    f"the limit of {name} must be above 0 and {_MAX_LIMIT:,} at most,"
                    f" not {limit!r}; None lifts it"
                )
            limits[name] = limit
        self._make_permits = permits or (lambda _, limit: LocalPermits(limit))
        self._known = limits.keys()
        self._queues = dict[str, _Queue]()
        for name, limit in limits.items():
            self._add_queue(name, limit)
        self._binding = LoopBinding("the limits")

    def _add_queue(self, name: str, limit: float | None) -> _Queue | None:
        if not limit:
            return None
        queue = self._queues[name] = _Queue(self._make_permits(name, limit))
        return queue

    def _queue(self, operation: Operation[object]) -> _Queue | None:
        self._binding.check(asyncio.get_running_loop())
        queue = self._queues.get(operation.name)
        if queue is None and operation.name not in self._known:  # an operation of the caller's own
            queue = self._add_queue(operation.name, operation.limit)
        return queue

    def has_limit(self, operation: Operation[object]) -> bool:
        """Returns whether the operation has a rate limit, so that its calls need permits.

        Raises:
            WrongLoop: the limits were first used in another event loop.
        """
        return self._queue(operation) is not None

    async def acquire(
        self,
        operation: Operation[object],
        priority: Priority = Priority.OTHER,
        *,
        max_wait: float | None = None,
        front: bool = False,
        again: bool = False,
    ) -> None:
        """Returns when the operation may be sent. A cancelled call uses up no permit.

        Args:
            operation: what is to be sent.
            priority: which waiting calls it overtakes.
            max_wait: seconds that it may wait, 0 or more; None for no limit.
            front: True to go before the other calls of its priority: for a call that the API
                refused with 429.
            again: True for a call that had a permit before it opened its connection. It goes
                before the other calls of its priority too.

        Raises:
            LimitReached: the wait would be longer than `max_wait`, or was.
            WrongLoop: the limits were first used in another event loop.
        """
        queue = self._queue(operation)
        if queue is None or (queue.is_empty() and await queue.permits.try_acquire(again=again)):
            return
        front = front or again
        if max_wait is None:
            await queue.acquire(priority, front=front, again=again)
            return
        ahead = queue.count_ahead(priority, front=front)
        predicted = queue.permits.expected_wait(ahead, again=again)
        if max_wait <= 0 or predicted > max_wait:
            raise _limit_reached(operation, predicted, max_wait)

        def late() -> LimitReached:
            more = queue.permits.expected_wait(queue.count_ahead(priority), again=again)
            return _limit_reached(operation, max_wait + more, max_wait)

        async with limited(asyncio.timeout(max_wait), late):
            await queue.acquire(priority, front=front, again=again)

    def give_back(self, operation: Operation[object]) -> bool:
        """Takes back the newest permit of an operation, which was not used.

        Returns:
            Whether that is possible; False where programs share the permits.
        """
        queue = self._queues.get(operation.name)
        return queue is None or queue.permits.give_back()

    def on_rate_limited(
        self, operation: Operation[object], seconds: float, sent_at: float | None = None
    ) -> bool:
        """Handles a 429: no call of the operation for `seconds`, and a lower rate after.

        Args:
            operation: what the API refused.
            seconds: what the API asked for, 0 or more; 0 if it did not say.
            sent_at: loop time at which the refused call took its permit; None for the newest call.

        Returns:
            Whether the operation has a limit, so that `acquire` waits for that time.
        """
        queue = self._queues.get(operation.name)
        if queue is None:
            return False
        queue.permits.on_rate_limited(seconds, sent_at)
        return True

    def expected_wait(self, operation: Operation[object], priority: Priority) -> float:
        """Returns the seconds that one more call would wait, if no 429 comes; 0 without a limit."""
        queue = self._queues.get(operation.name)
        return 0.0 if queue is None else queue.permits.expected_wait(queue.count_ahead(priority))

    def snapshot(self) -> dict[str, LimitState]:
        """Returns the state of each operation that has a limit, by its name.

        It may be called in any thread, such as one that exports metrics. In a thread without an
        event loop it waits until the loop of the limits has answered, so that the numbers belong
        together; for 1 s at most, if that loop is busy.

        Raises:
            WrongLoop: called in another event loop than the one that uses the limits.
        """
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            return self._snapshot_of_another_thread()
        self._binding.check(running)
        return self._state(running.time())

    def _snapshot_of_another_thread(self) -> dict[str, LimitState]:
        loop = self._binding.loop
        if loop is None:
            state = self._state(time.monotonic())  # as the clocks of asyncio's loops
            # A loop that used the limits meanwhile has changed them.
            return state if self._binding.loop is None else self._snapshot_of_another_thread()
        if loop.is_running():
            answer = concurrent.futures.Future[dict[str, LimitState]]()

            def take() -> None:
                answer.set_result(self._state(loop.time()))

            with contextlib.suppress(TimeoutError, RuntimeError):  # it is busy, or was closed
                loop.call_soon_threadsafe(take)
                return answer.result(_SNAPSHOT_WAIT)
        return self._state(loop.time())  # the code of the limits is not running meanwhile

    def _state(self, now: float) -> dict[str, LimitState]:
        return {name: queue.permits.state(now, len(queue)) for name, queue in self._queues.items()}


def _check_name(name: str) -> None:
    from edgegap_async.api.register import OPERATIONS  # all models

    names = [operation.name for operation in OPERATIONS]
    if name not in names:
        raise InvalidRequest(f"there is no call {name!r}; {unknown_name(name, names)}")


def _limit_reached(operation: Operation[object], predicted: float, max_wait: float) -> LimitReached:
    error = LimitReached(
        f"The rate limit would let it go after {predicted:.2f} s, and it may wait {max_wait:g} s",
        operation=operation.name,
        method=operation.method,
        path=operation.path,
    )
    error.predicted_wait = predicted
    return error
