"""Who is waited for, and whose turn it is to be looked at."""

from __future__ import annotations

import math
import random
from collections import OrderedDict
from collections.abc import Iterator
from typing import Final
from urllib.parse import quote

import attrs

from .watch import Watched

__all__ = ["Awaited", "Pace", "Pool"]

PATIENCE: Final = 2.0
"""Seconds for an answer, after which the same is asked once more."""

_QUOTED: Final = len(quote('"",', safe=","))  # bytes of a URL around each id


@attrs.frozen(kw_only=True)
class Pace:
    """How often a deployment is looked at while somebody waits for it. All in seconds."""

    first: float = attrs.field(default=0.4, validator=attrs.validators.ge(0))
    """From the start of the first wait to the first look."""
    gap: float = attrs.field(default=0.5, validator=attrs.validators.gt(0))
    """Between looks while it is expected soon, for one that is waited for alone."""
    soon: float = attrs.field(default=60.0, validator=attrs.validators.ge(0))
    """How long that is; then each gap is half as long again as the one before."""
    longest_gap: float = attrs.field(default=10.0, validator=attrs.validators.gt(0))
    with_webhook: float = attrs.field(default=3.0, validator=attrs.validators.gt(0))
    """In place of `gap`, once webhooks have proved to come."""
    check: float = attrs.field(default=4.0, validator=attrs.validators.gt(0))
    """Between two checks whether one that is swept with others is in ERROR, or gone."""
    unknown: float = attrs.field(default=10.0, validator=attrs.validators.ge(0))
    """How long after its deploy "no such deployment" is not believed."""

    def gap_at(self, age: float, *, with_webhook: bool = False) -> float:
        """Seconds between looks at what is waited for since `age` seconds."""
        gap = self.with_webhook if with_webhook else self.gap
        return max(gap, min(gap + (age - self.soon) / 2, self.longest_gap))


@attrs.define(eq=False)
class Awaited:
    """One that somebody waits for."""

    watched: Watched
    since: float
    """Loop time at which the wait began."""
    pool: Pool
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
    """Which entry in the queue of status looks is the one that counts; -1 for none."""
    jitter: float = attrs.field(factory=lambda: random.uniform(0.9, 1.1))  # noqa: S311 - to spread looks

    def __attrs_post_init__(self) -> None:
        self.seen_at = self.since

    @property
    def request_id(self) -> str:
        """Which deployment."""
        return self.watched.request_id


class Pool:
    """Those who share sweeps.

    Attributes:
        only_ready: whether READY is all that they wait for.
        members: by request_id, who was asked about longest ago first.
        newest: loop time at which the last one came.
        swept_at: loop time of the last sweep.
        called_at: loop time of the last one that told of those too who are not READY.
        is_rung: whether a webhook came for one of them since the last sweep.
    """

    def __init__(self, *, only_ready: bool) -> None:
        self.only_ready = only_ready
        self.members = OrderedDict[str, Awaited]()
        self.newest = 0.0
        self.swept_at = self.called_at = -math.inf
        self.is_rung = False
        self._uncalled = OrderedDict[str, Awaited]()  # whose roll was called longest ago first
        self._without_webhook = 0

    @property
    def all_expect_webhooks(self) -> bool:
        """Whether the API was asked to tell of each."""
        return not self._without_webhook

    def add(self, one: Awaited) -> None:
        """It is waited for, and comes last."""
        one.pool = self
        self.members[one.request_id] = self._uncalled[one.request_id] = one
        self.newest = max(self.newest, one.since)
        self._without_webhook += not one.watched.expects_webhook

    def remove(self, one: Awaited) -> None:
        """It is waited for no more, or for something else."""
        del self.members[one.request_id], self._uncalled[one.request_id]
        self._without_webhook -= not one.watched.expects_webhook

    def go_first(self, one: Awaited) -> None:
        """It is in the next sweep."""
        self.members.move_to_end(one.request_id, last=False)

    def take(self, now: float, most: int, longest: int, *, is_roll_call: bool) -> list[Awaited]:
        """Those whose turn it is: at most so many, with at most so many bytes of ids."""
        taken = list(self._take(now, most, longest, is_roll_call=is_roll_call))
        for one in taken:
            self.members.move_to_end(one.request_id)
            if is_roll_call:
                self._uncalled.move_to_end(one.request_id)
        return taken

    def _take(
        self, now: float, most: int, longest: int, *, is_roll_call: bool
    ) -> Iterator[Awaited]:
        all_fit = len(self.members) <= most
        for one in (self._uncalled if is_roll_call and not all_fit else self.members).values():
            if one.sweeping and now < one.swept_at + PATIENCE and not is_roll_call:
                continue  # its answer is on the way
            most -= 1
            longest -= len(one.request_id) + _QUOTED
            if most < 0 or longest < 0:
                return
            yield one
