"""Who may send, and when: never more than the documented number of calls in any second.

Theory. The API documents 40, 20 or 10 calls a second for some operations and does not say how it
counts. A counter that starts anew each second, one that slides, and a bucket that leaks all agree
on one thing: no window of one second, wherever it starts, may hold more than the limit. So:

- A **pace**: aiolimiter's leaky bucket at 97.5 % of the limit, which lets the first ten calls of an
  idle client go at once. Alone it would let `ten + the rate` through in its first second.
- A **log** of the last calls, as many as the limit, over a little more than a second: the next call
  waits until the oldest of them is old enough. The little more is for calls that travel faster than
  those before them. The first ones after some quiet travel slowest, for they have to open their
  connections: the log takes all of the first tenth of a second to have gone at its end.

Calls that travel less evenly than that are refused now and then, and so are those of programs that
share the organization's limit and do not say so. A 429 closes the bucket for as long as the API
says, and for a moment at least, which doubles if the next call is refused too; what the pace has
saved up by then is void. And it makes pace and log 7 % slower, once a second at most and never
below four fifths; they recover in the calm that follows. So each finds the rate that its network
and its neighbours allow: with up to 100 ms of jitter, before a log that slides, no rate above 91 %
is safe, and a cut of 7 % gets there at once (measured by `benchmarks/limits.py`).

**Turns.** Each operation has a queue for each priority, served in the order they came. Nobody else
serves it: the first in the queue waits for the next permit, the others wait for the first, and
whoever leaves it calls the next. There is no task, and one timer however many wait. A permit is
taken by the very caller that goes, when it runs and not before. So nobody who is cancelled can take
one along, and what is logged is when a call goes, however long the loop stood still before it.

**Permits** come from this process alone, or from any other `Permits`: a source that several
programs share answers the same few questions, and the turns here stay as they are.
"""

from __future__ import annotations

import asyncio
import enum
import itertools
import math
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from typing import Final, Protocol

import attrs

from edgegap_async.api.operations import DEPLOY, DEPLOY_TO_FLEET, OPERATIONS, Operation
from edgegap_async.api.validation import check_kind
from edgegap_async.errors import InvalidRequest, LimitReached, WrongLoop

__all__ = ["LimitState", "Limits", "LocalPermits", "Permits", "Priority"]

_RATE_FRACTION: Final = 0.975
_HIGHEST: Final = 100_000  # calls a second, each of which is logged
_WINDOW: Final = 1.025  # seconds
_BURST: Final = 10
_ROUNDING: Final = 1e-9
_IDLE_TIME: Final = 4.0  # seconds after which connections may have to be opened: the transport's
_CONNECT_TIME: Final = 0.1  # seconds that this may take longer than a call on an open one

_SLOWER: Final = 0.93  # after a 429
_MIN_CUT_INTERVAL: Final = 1.0  # seconds
_SLOWEST: Final = 0.8
_RECOVERY: Final = 0.001  # of the rate in each calm second
_FIRST_PAUSE: Final = 0.125  # seconds, after a 429 that asks for less
_LONGEST_PAUSE: Final = 1.0
_REPEAT_WINDOW: Final = 2.0  # seconds in which the next 429 doubles the pause


class Priority(enum.IntEnum):
    """Who goes first where several wait for the same limit; the lowest number does."""

    STOP = 0
    DEPLOY = 1
    """A deploy, and looking for what one has made whose answer was lost."""
    STATUS = 2
    """The look-out, for those who wait for a status."""
    OTHER = 3

    @classmethod
    def of(cls, operation: Operation[object]) -> Priority:
        """What an operation has, unless its caller says otherwise."""
        if operation.method == "DELETE":
            return cls.STOP
        return cls.DEPLOY if operation in {DEPLOY, DEPLOY_TO_FLEET} else cls.OTHER


@attrs.frozen(kw_only=True)
class LimitState:
    """How busy one operation is, at the moment it was asked for."""

    limit: float
    """Calls a second that may go, as documented or as set."""
    rate: float
    """Calls a second that go at most at present, in the long run."""
    free: int
    """How many could go at once."""
    queued: int
    """How many wait."""
    predicted_wait: float
    """Seconds that one more call would wait, if nobody goes before it who comes after it."""
    closed_for: float
    """Seconds for which the API wants none, 0 if it does not."""


class Permits(Protocol):
    """Where the permits of one operation come from. All that is asked is asked in one event loop.

    Waiting and taking are two things: `ready` is waited for by whoever is first in the queue, and
    may be cancelled at any time; `take` is called by whoever goes, and is all that costs a permit.
    """

    @property
    def rate(self) -> float:
        """Permits a second that it gives at present, in the long run."""
        ...

    @property
    def free(self) -> int:
        """How many could be taken now."""
        ...

    @property
    def closed_for(self) -> float:
        """Seconds for which there are none because the API answered 429; 0 otherwise."""
        ...

    async def try_acquire(self) -> bool:
        """Takes a permit if there is one, and tells whether there was. Never waits."""
        ...

    async def wait_available(self, wanted: Callable[[], int]) -> None:
        """Returns when `take` would find one, or may. Never called twice at a time.

        Args:
            wanted: tells how many wait for one, 1 or more: what is worth fetching at once.
        """
        ...

    def on_rate_limited(self, seconds: float) -> None:
        """The API answered 429: no permit for so many seconds, and fewer for a while after.

        Args:
            seconds: what the API asked for, 0 if it did not say.
        """
        ...

    def expected_wait(self, ahead: int) -> float:
        """Seconds until whoever has so many others before him may go, as far as can be told."""
        ...


class LocalPermits:
    """The permits of an operation whose limit this process has for itself.

    Args:
        limit: calls a second, above 0.
    """

    def __init__(self, limit: float) -> None:
        from aiolimiter import AsyncLimiter  # noqa: PLC0415 - it reads its metadata from disk

        # No second holds a part of a call: of 2.9 a second two may go.
        self._rate = _RATE_FRACTION * (limit if limit < 1 else int(limit))
        self._burst = max(1 / _SLOWEST, min(_BURST, limit / 4))  # or one slow call would not fit
        self._pace = AsyncLimiter(self._burst, self._burst / self._rate)
        self._empty_at = -math.inf  # when the pace's bucket will have leaked all that was drawn
        self._saved_is_void = False  # what the pace has saved up for a burst
        # A limit below one a second is one call in a longer window.
        self._window = _WINDOW * max(1.0, 1 / limit)
        self._quiet = max(_IDLE_TIME, 2 * self._window)
        self._warm_at = -math.inf
        size = max(1, int(limit))
        self._sent: deque[float] = deque([-math.inf] * size, size)
        self._share = 1.0  # of the rate, at the last 429
        self._pause = _FIRST_PAUSE
        self._opens_at = -math.inf
        self._refused_at = self._slowed_at = self._closed_at = -math.inf

    @property
    def rate_factor(self) -> float:
        """Which part of the usual rate goes at present: 1, or less for some time after a 429."""
        return self._share_at(_now())

    @property
    def rate(self) -> float:
        """Calls a second in the long run, less for some time after a 429."""
        return self._rate * self.rate_factor

    @property
    def free(self) -> int:
        """How many could be taken now."""
        now = _now()
        if now < self._opens_at:
            return 0
        share = self._share_at(now)
        old_enough = sum(sent + self._window / share <= now for sent in self._sent)
        return min(old_enough, int(self._saved(now, share) * share + _ROUNDING))

    @property
    def closed_for(self) -> float:
        """Seconds for which there are none because the API answered 429; 0 otherwise."""
        return max(0.0, self._opens_at - _now())

    async def try_acquire(self) -> bool:
        """Takes a permit if there is one, and tells whether there was."""
        now = _now()
        share = self._share_at(now)
        if now < self._earliest(share) or not self._has_paced(1, share):
            return False
        await self._draw(share)  # which does not wait: it is there
        if now > self._sent[-1] + self._quiet:
            self._warm_at = now + _CONNECT_TIME
        self._sent.append(max(now, self._warm_at))
        return True

    async def wait_available(self, wanted: Callable[[], int]) -> None:  # noqa: ARG002 - each comes alone
        """Returns when `take` finds one."""
        # What opens it is the clock, and a 429 meanwhile makes it later.
        while (wait := self.expected_wait(0)) > 0 or not self._has_paced(1, self.rate_factor):  # noqa: ASYNC110
            await asyncio.sleep(max(wait, _ROUNDING))

    async def _draw(self, share: float) -> None:
        """Takes one from the pace, and after a 429 all that it has saved up: no burst then."""
        while self._saved_is_void and self._has_paced(2, share):
            await self._draw_one(share)
        self._saved_is_void = False
        await self._draw_one(share)

    async def _draw_one(self, share: float) -> None:
        await self._pace.acquire(1 / share)
        self._empty_at = max(self._empty_at, _now()) + 1 / share / self._rate

    def _saved(self, at: float, share: float) -> float:
        """What of the pace's burst could be drawn at that time, if nobody draws until then."""
        saved = self._burst - max(0.0, self._empty_at - at) * self._rate
        return min(saved, 1 / share) if self._saved_is_void else saved

    def on_rate_limited(self, seconds: float) -> None:
        """The API answered 429: no permit for so many seconds, and fewer for a while after."""
        now = _now()
        self._saved_is_void = True
        if now >= self._opens_at:  # or it went out before the bucket was closed
            is_again = now < self._closed_at + _REPEAT_WINDOW
            self._pause = min(2 * self._pause, _LONGEST_PAUSE) if is_again else _FIRST_PAUSE
            self._closed_at = now
            seconds = max(seconds, self._pause)
        self._opens_at = max(self._opens_at, now + seconds)
        self._share = self._share_at(now)
        self._refused_at = now
        if now >= self._slowed_at + _MIN_CUT_INTERVAL:
            self._share = max(_SLOWEST, self._share * _SLOWER)
            self._slowed_at = now

    def expected_wait(self, ahead: int) -> float:
        """Seconds until whoever has so many others before him may go, if there is no 429."""
        now = _now()
        share = self._share_at(now)
        rounds, place = divmod(ahead, len(self._sent))
        logged = self._sent[place] + (rounds + 1) * self._window / share - now
        opens_at = max(now, self._opens_at)
        unsaved = (ahead + 1) / share - self._saved(opens_at, share)
        paced = opens_at - now + unsaved / self._rate
        return max(0.0, logged, paced, opens_at - now)

    def _share_at(self, now: float) -> float:
        if self._share == 1:
            return 1.0
        return min(1.0, self._share + _RECOVERY * (now - self._refused_at))

    def _earliest(self, share: float) -> float:
        """When the log and the API allow the next, whatever the pace says."""
        return max(self._sent[0] + self._window / share, self._opens_at)

    def _has_paced(self, count: int, share: float) -> bool:
        return self._pace.has_capacity(count / share)


class _Queue:
    """Those who wait for the permits of one operation."""

    def __init__(self, permits: Permits) -> None:
        self.permits: Final = permits
        # For each priority those who were refused before, and then the others.
        self._lines = {
            (priority, is_new): OrderedDict[int, asyncio.Future[None]]()
            for priority in Priority
            for is_new in (False, True)
        }
        self._numbers = itertools.count()
        self._called: int | None = None  # who waits for the next permit; somebody, if any wait

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    def ahead(self, priority: Priority, *, front: bool = False) -> int:
        """How many go before one that comes now."""
        place = (priority, not front)
        return sum(len(line) for other, line in self._lines.items() if other <= place)

    async def acquire(self, priority: Priority, *, front: bool) -> None:
        """Returns when it is this caller's turn, with a permit taken."""
        line, number = self._lines[priority, not front], next(self._numbers)
        new_future = asyncio.get_running_loop().create_future
        line[number] = new_future()
        if self._called is None:
            self._call_first()
        try:
            while True:
                await line[number]
                await self.permits.wait_available(self.__len__)
                if self._first() == number:
                    if await self.permits.try_acquire():
                        return
                else:  # somebody came meanwhile who goes before
                    line[number] = new_future()
                    self._call_first()
        finally:
            del line[number]
            if self._called == number:
                self._call_first()

    def is_empty(self) -> bool:
        """Whether nobody waits."""
        return self._called is None

    def _first(self) -> int | None:
        return next((next(iter(line)) for line in self._lines.values() if line), None)

    def _call_first(self) -> None:
        line = next(filter(None, self._lines.values()), None)
        if line is None:
            self._called = None
            return
        self._called, turn = next(iter(line.items()))
        if not turn.done():  # or it is cancelled, and calls the next one as it leaves
            turn.set_result(None)


class Limits:
    """The limits of one client, or of several in one event loop that share them.

    Args:
        settings: calls a second by operation name, where yours differ from the documented ones:
            `{"deploy": 20, "list_deployments": None}`; None lifts a limit, and of one above 1 a
            fraction is of no use, for no second holds a part of a call. Lower them where
            several programs share the organization's limit.
        permits: what gives the permits of an operation, by its name and limit; this process alone
            if left out.

    Raises:
        InvalidRequest: an operation that does not exist, or a limit that is not above 0.
    """

    def __init__(
        self,
        settings: Mapping[str, float | None] | None = None,
        *,
        permits: Callable[[str, float], Permits] | None = None,
    ) -> None:
        check_kind("limits", settings, Mapping)
        limits = {operation.name: operation.limit for operation in OPERATIONS}
        for name, limit in (settings or {}).items():
            if name not in limits:
                raise InvalidRequest(f"no operation {name!r}; there is {', '.join(limits)}")
            check_kind(f"the limit of {name}", limit, int, float)
            if limit is not None and not 0 < limit <= _HIGHEST:
                raise InvalidRequest(
                    f"the limit of {name} must be above 0 and {_HIGHEST:,} at most, not {limit!r};"
                    " None lifts it"
                )
            limits[name] = limit
        self._permits = permits
        self._known = limits.keys()
        self._limits = dict[str, float]()
        self._queues = dict[str, _Queue]()
        for name, limit in limits.items():
            self._open(name, limit)
        self._loop: asyncio.AbstractEventLoop | None = None

    def _open(self, name: str, limit: float | None) -> _Queue | None:
        if not limit:
            return None
        self._limits[name] = limit
        permits = self._permits(name, limit) if self._permits else LocalPermits(limit)
        queue = self._queues[name] = _Queue(permits)
        return queue

    async def acquire(
        self,
        operation: Operation[object],
        priority: Priority = Priority.OTHER,
        *,
        max_wait: float | None = None,
        front: bool = False,
    ) -> None:
        """Returns when the operation may be sent. Cancelling costs no permit.

        Args:
            operation: what is to be sent.
            priority: before whom it goes.
            max_wait: seconds that it may wait, None for as long as it takes.
            front: True to go before all of the same priority, for one that was refused.

        Raises:
            LimitReached: it would have to wait longer, or had to.
            WrongLoop: the limits were first used in another event loop.
        """
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._stay_in(loop)
        queue = self._queues.get(operation.name)
        if queue is None and operation.name not in self._known:  # it is the caller's own
            queue = self._open(operation.name, operation.limit)
        if queue is None or (queue.is_empty() and await queue.permits.try_acquire()):
            return
        if max_wait is None:
            await queue.acquire(priority, front=front)
            return
        predicted = queue.permits.expected_wait(queue.ahead(priority, front=front))
        if max_wait <= 0 or predicted > max_wait:
            raise _limit_reached(operation, predicted, max_wait)
        limit = asyncio.timeout(max_wait)
        try:
            async with limit:
                await queue.acquire(priority, front=front)
        except TimeoutError:
            if not limit.expired():
                raise
            more = queue.permits.expected_wait(queue.ahead(priority))
            raise _limit_reached(operation, max_wait + more, max_wait) from None

    def on_rate_limited(self, operation: Operation[object], seconds: float) -> bool:
        """Lets none of these pass for so many seconds, and fewer for a while: the API answered 429.

        Args:
            operation: what was refused.
            seconds: what the API asked for, 0 if it did not say.

        Returns:
            Whether the operation has a limit, so that `acquire` waits for that time.
        """
        queue = self._queues.get(operation.name)
        if queue is None:
            return False
        queue.permits.on_rate_limited(seconds)
        return True

    def expected_wait(self, operation: Operation[object], priority: Priority) -> float:
        """Seconds that one more call would wait as far as can be told; 0 without a limit."""
        queue = self._queues.get(operation.name)
        return 0.0 if queue is None else queue.permits.expected_wait(queue.ahead(priority))

    def snapshot(self) -> dict[str, LimitState]:
        """How busy each operation is that has a limit, by its name.

        Raises:
            WrongLoop: the limits were first used in another event loop.
        """
        self._stay_in(asyncio.get_running_loop())
        return {
            name: LimitState(
                limit=self._limits[name],
                rate=queue.permits.rate,
                free=queue.permits.free,
                queued=len(queue),
                predicted_wait=queue.permits.expected_wait(len(queue)),
                closed_for=queue.permits.closed_for,
            )
            for name, queue in self._queues.items()
        }

    def _stay_in(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise WrongLoop("the limits were first used in another event loop")


def _limit_reached(operation: Operation[object], predicted: float, max_wait: float) -> LimitReached:
    error = LimitReached(
        f"its turn would come after {predicted:.2f} s, and it may wait {max_wait:g} s",
        operation=operation.name,
        method=operation.method,
        path=operation.path,
    )
    error.predicted_wait = predicted
    return error


def _now() -> float:
    return asyncio.get_running_loop().time()
