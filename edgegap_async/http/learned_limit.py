"""How many calls a second the API really allows, as its answers 429 show.

**Problem.** An account may allow fewer calls than documented: it has a smaller plan, or another
program uses it too. A client that knows only the documented limit is refused again and again.

**Rule.** An API that counts the calls of a second allows as many as it accepted in the second
before it refused one. A token bucket may refuse calls of a burst that is too short to show a limit.
So the number counts where no bucket can be empty: for the first call after a pause, and for a
call in the second after a pause of a second. It counts too if the client has sent for a
second at its rate, and less than 80 % were accepted. Other 429s come from jitter, and `rate_limits`
makes pace and log 7 % slower for each; below 80 % the limit itself is lowered.

**Recovery.** A lower limit is kept for 5 s. Then it rises by 5 %, at least by one call, and every
2 s by twice as much as before, up to the documented limit. The first 429 of a rise ends it at the
number that was accepted, and the next rise begins after twice the time, up to 60 s.
"""

from __future__ import annotations

import bisect
import math
from collections import deque
from collections.abc import Iterable
from typing import Final, NamedTuple

CUT_FACTOR: Final = 0.93  # of the rate, after a 429
MIN_CUT_INTERVAL: Final = 1.0  # seconds, so that the 429s of one second cut the rate once
MIN_RATE_FACTOR: Final = 0.8  # of the rate; a further cut lowers the limit

REMEMBERED_SECONDS: Final = 4  # of calls; longer than most answers take

_SECOND: Final = 1.0  # in which the API counts
_MIN_LIMIT: Final = 1.0  # calls a second, below which no documented limit above it is lowered
_SURELY_LOWER: Final = 0.9  # of the limit; fewer accepted calls do not come from jitter
_FULL_DEMAND: Final = 0.75  # of the rate; a second with fewer calls does not show the limit
_FIRST_HOLD: Final = 5.0  # seconds that a lower limit is kept before it rises
_MAX_HOLD: Final = 60.0  # seconds
_STEP_INTERVAL: Final = 2.0  # seconds between two steps of a rise; a 429 needs one to show
_STEPS_WITHOUT_429: Final = 2  # at the documented limit, after which a rise has succeeded
_STEP_PART: Final = 0.05  # of the limit, by which the first step raises it
_MAX_STEPS: Final = 30  # from any limit to any other one


class LearnedState(NamedTuple):
    """What a `LearnedLimit` goes by, so that several programs can share it."""

    limit: float
    """Calls a second after the last change."""
    changed_at: float
    """Loop time of the last change."""
    hold: float
    """Seconds that the limit is kept from then."""


class LearnedLimit:
    """The rate limit that the API's answers show, never above the documented one.

    Args:
        limit: the documented calls a second, above 0.
    """

    def __init__(self, limit: float) -> None:
        self._documented = limit
        self._limit = limit  # after the last change
        self._changed_at = -math.inf
        self._hold = _FIRST_HOLD
        # When each call went that was not refused, as far as answers have come; in order.
        self._accepted = deque[float](maxlen=max(8, int(limit) * REMEMBERED_SECONDS))

    @property
    def is_documented(self) -> bool:
        """Whether no lower limit was learned since the documented one was last reached."""
        return self._limit == self._documented

    @property
    def state(self) -> LearnedState:
        """What was learned."""
        return LearnedState(self._limit, self._changed_at, self._hold)

    def resume(self, state: LearnedState | None, accepted: Iterable[float] = ()) -> None:
        """Continues from what another program has learned.

        Args:
            state: what it has learned; None for the documented limit.
            accepted: when the calls went that were not refused, in order, and the call that is
                handed to `on_refused` next.
        """
        self._limit, self._changed_at, self._hold = state or LearnedState(
            self._documented, -math.inf, _FIRST_HOLD
        )
        self._accepted.clear()
        self._accepted.extend(accepted)

    def at(self, now: float) -> float:
        """Returns the calls a second that are allowed at a loop time."""
        if self.is_documented:
            return self._documented
        steps = self._steps(now)
        limit = self._after_steps(steps)
        if limit == self._documented == self._after_steps(steps - _STEPS_WITHOUT_429):
            self._limit, self._changed_at = limit, now  # the rise has succeeded
        return limit

    def on_sent(self, now: float) -> None:
        """Notes that a call goes."""
        self._accepted.append(now)

    def on_not_sent(self) -> None:
        """Forgets the newest call: it opens a connection instead."""
        if self._accepted:
            self._accepted.pop()

    def on_refused(
        self,
        now: float,
        sent_at: float | None,
        *,
        pause: tuple[float, float] = (-math.inf, -math.inf),
        rate_factor: float = 1.0,
    ) -> bool:
        """Handles a 429, and returns whether it says that the limit is lower than it was.

        Args:
            now: the loop time at which the answer came.
            sent_at: the loop time at which the call went; None for the newest call.
            pause: begin and end of the newest pause after a 429.
            rate_factor: the part of the rate at which the client sends at present.
        """
        times = list(self._accepted)
        end = len(times) if sent_at is None else bisect.bisect_right(times, sent_at)
        if not end:
            return False
        sent_at = times[end - 1]
        del self._accepted[end - 1]
        begin = bisect.bisect_right(times, sent_at - _SECOND)
        accepted, sent = float(end - 1 - begin), end - begin
        present, steps = self.at(now), self._steps(now)
        if self.is_documented and now >= self._changed_at + _MAX_HOLD:
            self._hold = _FIRST_HOLD
        if steps and sent_at > self._changed_at + self._hold:
            # The rise went too far; before its last step nothing was refused.
            self._hold = min(2 * self._hold, _MAX_HOLD)
            before = self._after_steps(steps - 1)
            self._set(accepted if before < accepted < present else before, now)
            return True
        began, ended = pause
        if self._shows_limit(times, begin, end, began, ended):
            is_lower = accepted < _SURELY_LOWER * present * rate_factor
        else:
            is_full_second = sent_at - ended >= _SECOND
            is_full_demand = sent >= _FULL_DEMAND * present * rate_factor
            is_lower = is_full_second and is_full_demand and accepted < MIN_RATE_FACTOR * present
        if is_lower:
            self._set(accepted, now)
            return True
        if rate_factor * CUT_FACTOR < MIN_RATE_FACTOR and now >= (
            self._changed_at + MIN_CUT_INTERVAL
        ):
            self._set(present * rate_factor * CUT_FACTOR, now)
            return True
        return False

    @staticmethod
    def _shows_limit(
        times: list[float], begin: int, end: int, pause_began: float, pause_ended: float
    ) -> bool:
        """Returns whether a pause before the refused call had filled every bucket.

        Args:
            times: when calls went that were not refused, and the refused call.
            begin: index of the first call of the second before the refused call.
            end: index after the refused call.
            pause_began: begin of the newest pause after a 429.
            pause_ended: its end.
        """
        first_after_pause = bisect.bisect_left(times, pause_ended)
        if first_after_pause >= end or pause_ended == -math.inf:
            return False  # no pause, or the call was sent before it
        is_first = first_after_pause == end - 1
        is_long = pause_ended - pause_began >= _SECOND
        return is_first or (is_long and first_after_pause <= begin)

    def _set(self, limit: float, now: float) -> None:
        lowest = min(_MIN_LIMIT, MIN_RATE_FACTOR * self._documented)
        self._limit = min(self._documented, max(limit, lowest))
        self._changed_at = now

    def _steps(self, now: float) -> int:
        """Returns how many steps the limit has risen since it was last changed."""
        if self._limit == self._documented:
            return 0
        return max(0, math.ceil((now - self._changed_at - self._hold) / _STEP_INTERVAL))

    def _after_steps(self, steps: int) -> float:
        steps = max(0, min(steps, _MAX_STEPS))
        first_step = max(min(1.0, self._limit), _STEP_PART * self._limit)
        return min(self._documented, self._limit + first_step * ((1 << steps) - 1))
