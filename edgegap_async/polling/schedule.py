"""Who is waited for, and whose turn it is to be looked at."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import Final
from urllib.parse import quote

import attrs

from edgegap_async.api.validation import number

from .tracker import DeploymentTracker

__all__ = ["ListGroup", "PollEntry", "PollingPolicy", "StatusQueue"]

ANSWER_TIMEOUT: Final = 2.0
"""Seconds for an answer, after which the same is asked once more."""

_GAP_GROWTH: Final = 1 / 20  # of the time beyond which nothing is expected soon
_STALE_ENTRIES: Final = 64  # entries of a queue that may count no more, beside as many that do
_BYTES_AROUND_ID: Final = len(quote('"",', safe=","))  # bytes of a URL around each id


@attrs.frozen(kw_only=True)
class PollingPolicy:
    """How often a deployment is looked at while somebody waits for it. All in seconds."""

    first_delay: float = attrs.field(default=0.4, validator=number(least=0))
    """From the start of the first wait to the first look."""
    interval: float = attrs.field(default=0.5, validator=number(above=0))
    """Between looks while it is expected soon, for one that is waited for alone."""
    fast_period: float = attrs.field(default=60.0, validator=number(least=0))
    """How long that is; then each gap is a twentieth longer than the one before."""
    max_interval: float = attrs.field(default=10.0, validator=number(above=0))
    webhook_interval: float = attrs.field(default=3.0, validator=number(above=0))
    """In place of `gap`, once webhooks have proved to come."""
    full_list_interval: float = attrs.field(default=4.0, validator=number(above=0))
    """Between two checks whether one that is swept with others is in ERROR, or gone."""
    not_found_grace: float = attrs.field(default=10.0, validator=number(least=0))
    """How long after its deploy "no such deployment" is not believed."""

    def interval_at(self, age: float, *, expects_webhook: bool = False) -> float:
        """Seconds between looks at what is waited for since `age` seconds."""
        gap = self.webhook_interval if expects_webhook else self.interval
        return max(gap, min(gap + (age - self.fast_period) * _GAP_GROWTH, self.max_interval))


@attrs.define(eq=False)
class PollEntry:
    """One that somebody waits for."""

    tracker: DeploymentTracker
    since: float
    """Loop time at which the wait began."""
    pool: ListGroup
    seen_at: float = attrs.field(init=False)
    """When the last look was sent that would have told of READY, or the wait began."""
    swept_at: float = -math.inf
    """When it was last asked for in a list."""
    sweeping: int = 0
    """Lists under way that ask for it."""
    looking: int = 0
    """Status looks under way."""
    is_listed: bool = False
    """Whether a list had it, so that it is gone if another has not."""
    is_doubted: bool = False
    """Whether a status look is wanted at once."""
    turn: int = -1
    """Which entry in the queues of status looks is the one that counts; -1 for none."""
    jitter: float = attrs.field(factory=lambda: random.uniform(0.9, 1.1))  # noqa: S311 - to spread looks

    def __attrs_post_init__(self) -> None:
        self.seen_at = self.since

    @property
    def request_id(self) -> str:
        """Which deployment."""
        return self.tracker.request_id


class ListGroup:
    """Those who share sweeps.

    Attributes:
        only_ready: whether READY is all that they wait for.
        members: by request_id, who was asked about longest ago first.
        newest: loop time at which the last one came.
        swept_at: loop time of the last sweep.
        last_count: how many there were then.
        called_at: loop time of the last one that told of those too who are not READY.
        is_urgent: whether the next sweep is wanted at once: a webhook came for one of them since
            the last one, or that had no room for all that it found.
        is_full: whether the last sweep found so many that room is getting short.
    """

    def __init__(self, *, only_ready: bool) -> None:
        self.only_ready = only_ready
        self.members = OrderedDict[str, PollEntry]()
        self.newest = 0.0
        self.swept_at = self.called_at = -math.inf
        self.last_count = 0
        self.is_urgent = self.is_full = False
        self._uncalled = OrderedDict[str, PollEntry]()  # whose roll was called longest ago first
        self._without_webhook = 0

    @property
    def all_expect_webhooks(self) -> bool:
        """Whether the API was asked to tell of each."""
        return not self._without_webhook

    def add(self, one: PollEntry) -> None:
        """It is waited for, and comes last."""
        one.pool = self
        self.members[one.request_id] = self._uncalled[one.request_id] = one
        self.newest = max(self.newest, one.since)
        self._without_webhook += not one.tracker.expects_webhook

    def remove(self, one: PollEntry) -> None:
        """It is waited for no more, or for something else."""
        del self.members[one.request_id], self._uncalled[one.request_id]
        self._without_webhook -= not one.tracker.expects_webhook

    def go_first(self, one: PollEntry) -> None:
        """It is in the next sweep."""
        self.members.move_to_end(one.request_id, last=False)
        self._uncalled.move_to_end(one.request_id, last=False)

    def take(self, now: float, most: int, longest: int, *, is_roll_call: bool) -> list[PollEntry]:
        """Those whose turn it is: at most so many, with at most so many bytes of ids."""
        taken = list(self._take(now, most, longest, is_roll_call=is_roll_call))
        for one in taken:
            self.members.move_to_end(one.request_id)
            if is_roll_call:
                self._uncalled.move_to_end(one.request_id)
        return taken

    def _take(
        self, now: float, most: int, longest: int, *, is_roll_call: bool
    ) -> Iterator[PollEntry]:
        for one in (self._uncalled if is_roll_call else self.members).values():
            if one.sweeping and now < one.swept_at + ANSWER_TIMEOUT and not is_roll_call:
                continue  # its answer is on the way
            most -= 1
            longest -= len(one.request_id) + _BYTES_AROUND_ID
            if most < 0 or longest < 0:
                return
            yield one


class StatusQueue:
    """Whose turn it is to be looked at by status.

    Who is doubted has a queue apart, and so have those who are swept and only checked now and
    then. Where several queues have somebody who is due they take turns: so a doubt waits for no
    routine, who is looked at by nothing else waits for no checks, and nobody starves.

    Args:
        due: when the next look at one is due, by what is known at the time given.
    """

    def __init__(self, due: Callable[[PollEntry, float], float]) -> None:
        self._due = due
        self._numbers = itertools.count()
        self.clear()

    def __len__(self) -> int:
        return sum(map(len, self._queues))

    def add(self, one: PollEntry, now: float, *, is_check: bool = False) -> None:
        """It stands in line; an earlier entry of it counts no more."""
        one.turn = next(self._numbers)
        queue = self._doubts if one.is_doubted else self._checks if is_check else self._routine
        queue.add(self._due(one, now), one)

    def clear(self) -> None:
        """Nobody does any more."""
        self._doubts, self._routine, self._checks = _Queue(), _Queue(), _Queue()
        self._queues = deque((self._doubts, self._routine, self._checks))  # whose turn is next

    def first(self, now: float) -> float:
        """When the first look is due; infinity for never."""
        return min(queue.first(now, self._due) for queue in self._queues)

    def take(self, now: float) -> PollEntry:
        """Whose turn it is, where the first look is due by now."""
        queue = next(one for one in self._queues if one.first(now, self._due) <= now)
        self._queues.remove(queue)
        self._queues.append(queue)
        return queue.pop()


class _Queue:
    """Entries by the time at which they are due, some of which count no more."""

    def __init__(self) -> None:
        self._entries: list[tuple[float, int, PollEntry]] = []
        self._most = _STALE_ENTRIES

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, due: float, one: PollEntry) -> None:
        if len(self._entries) >= self._most:
            self._entries = [entry for entry in self._entries if entry[1] == entry[2].turn]
            heapq.heapify(self._entries)
            self._most = 2 * len(self._entries) + _STALE_ENTRIES
        heapq.heappush(self._entries, (due, one.turn, one))

    def first(self, now: float, due_at: Callable[[PollEntry, float], float]) -> float:
        """When the first entry that counts is due, if nothing has come between."""
        while self._entries:
            due, turn, one = self._entries[0]
            if turn != one.turn:
                heapq.heappop(self._entries)
            elif due > now or (due := due_at(one, now)) <= now:
                return due
            else:  # by now its gap is longer
                heapq.heapreplace(self._entries, (due, turn, one))
        return math.inf

    def pop(self) -> PollEntry:
        return heapq.heappop(self._entries)[2]
