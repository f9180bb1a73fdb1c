"""Decides whether lists show what has changed just now, by comparing them with status answers.

Problem. A list may come from a cache or from a replica that lags. Its rows are well-formed and
wrong, and a poller that relies on lists is then later than a task that polls the status itself.

Rule. A **probe** is an id that a status request has found READY, in ERROR or TERMINATED. A list
request that is sent after that answer must show the probe so, or omit what has ended; one that does
not is stale, whatever the reason. A deployment that this client stops is no probe from then on; a
bulk stop may match any. A list is fresh if it agrees with a probe, or if it is the first answer to
show a READY that was not true `max_list_age` seconds ago, by a status answer or because the
deployment did not exist.

Consequence. At first freshness is UNKNOWN: two to four status requests a second check deployments
that lists cover, and lists for few deployments become rarer by as much. One fresh list makes it
FRESH, and checks become rare. One stale list makes it STALE: each deployment is polled by its
status too, as fast as the rate limit allows, so no wait is longer than without lists. Lists go on
meanwhile: each probe tests them, and ten right lists in a row make them FRESH again. A cache or
replica that is wrong every second time passes that once in a thousand. After a minute without waits
the state is UNKNOWN again, unless it is STALE.
"""

from __future__ import annotations

import enum
import logging
import math
from collections import deque
from collections.abc import Collection

import attrs

from edgegap_async.api.models import DeploymentPage, DeploymentRow, Status, may_become
from edgegap_async.errors import log_fields

from .list_strategy import is_last_page, says_ready
from .schedule import DEFAULT_TUNING, PollerTuning

logger = logging.getLogger(__name__)


class Freshness(enum.Enum):
    """What is known of the age of lists."""

    UNKNOWN = "unknown"
    """Nothing was compared yet."""
    FRESH = "fresh"
    """Lists show changes at once."""
    STALE = "stale"
    """A list has contradicted an earlier status answer."""


@attrs.frozen(eq=False, repr=False)
class _Expected:
    """What lists must show of a deployment."""

    at: float  # loop time at which it was found
    by_status: bool  # by a status request that no list had led to
    has_ended: bool  # ERROR or TERMINATED, as opposed to READY
    was_listed: bool  # else its absence means nothing

    def is_shown(self, row: DeploymentRow | None) -> bool | None:
        """Returns whether a row, or its absence, shows it; None if that is unknown."""
        if not self.has_ended:
            return row is not None and (says_ready(row) or _comes_after_ready(row.status))
        if row is None:
            return True if self.was_listed else None
        if row.status is None and not row.ready:
            return None
        return row.status is not None and row.status.is_terminal


def _comes_after_ready(status: Status | None) -> bool:
    return status is not None and status.is_known and may_become(Status.READY, status)


class ListFreshness:
    """Compares lists with status answers.

    Args:
        tuning: the poller's constants.

    Attributes:
        state: what is known of the age of lists.
        ended_ids: deployments that have ended, which the next full list must show.
    """

    def __init__(self, tuning: PollerTuning = DEFAULT_TUNING) -> None:
        self.state = Freshness.UNKNOWN
        self._tuning = tuning
        self.ended_ids = deque[str](maxlen=tuning.max_probe_ids)
        self._expected = dict[str, _Expected]()  # by request_id, oldest first
        self._right_lists = 0  # in a row, while lists are stale
        self._agreements = 0  # lists in a row that have shown what they had to, while not stale
        self._idle_since = math.inf

    @property
    def needs_evidence(self) -> bool:
        """Whether few lists have shown what they had to, since lists were first asked."""
        is_stale = self.state is Freshness.STALE
        return not is_stale and self._agreements < self._tuning.proven_after_lists

    def expect(
        self,
        request_id: str,
        now: float,
        *,
        by_status: bool,
        has_ended: bool = False,
        was_listed: bool = True,
    ) -> None:
        """Notes that a deployment is READY, so that list requests sent from now on must show it.

        Args:
            request_id: the deployment's id.
            now: loop time.
            by_status: whether a status answer said so to which no list has led; otherwise lists of
                the same age prove nothing when they agree.
            has_ended: whether its status is ERROR or TERMINATED, and not READY.
            was_listed: whether a list has shown the deployment.
        """
        over = now - self._tuning.probe_lifetime
        while self._expected and next(iter(self._expected.values())).at < over:
            del self._expected[next(iter(self._expected))]
        self._expected.pop(request_id, None)
        self._expected[request_id] = _Expected(now, by_status, has_ended, was_listed)
        if has_ended:
            self.ended_ids.append(request_id)

    def forget(self, request_id: str) -> None:
        """Notes that a deployment is about to be stopped, so that lists may omit it."""
        self._expected.pop(request_id, None)

    def read(self, page: DeploymentPage, probes: Collection[str], now: float) -> None:
        """Learns from the answer to a list request that asked for probes."""
        over = now - self._tuning.probe_lifetime
        left = (one for one in self.ended_ids if one not in probes)
        self.ended_ids = deque(left, self._tuning.max_probe_ids)
        rows = {row.request_id: row for row in page.data}
        is_whole = is_last_page(page)  # else a probe may be on the next page
        wrong, is_right = None, False
        for one in probes:
            expected = self._expected.get(one)
            if expected is None or expected.at < over or not (one in rows or is_whole):
                continue
            is_shown = expected.is_shown(rows.get(one))
            if is_shown is False:
                wrong = one
            is_right |= bool(is_shown) and expected.by_status
            self._agreements += bool(is_shown)
        if wrong is not None:
            self._right_lists = self._agreements = 0
            if self.state is not Freshness.STALE:
                self.state = Freshness.STALE
                logger.warning(
                    "lists seem stale: %s was %s by its status, and a later list %s; each"
                    " deployment is polled by its status too, until lists agree again",
                    wrong,
                    "at its end" if self._expected[wrong].has_ended else "READY",
                    "shows another status"
                    if wrong in rows
                    else "omits it, as it would if another program has stopped it",
                    extra=log_fields(request_id=wrong),
                )
        elif is_right and self.state is Freshness.STALE:
            self._right_lists += 1
            if self._right_lists >= self._tuning.fresh_after_probes:
                self.state = Freshness.FRESH
                logger.info("lists are fresh again", extra=log_fields(operation="list_deployments"))
        elif is_right:
            self.state = Freshness.FRESH

    def note_found(self, age: float) -> None:
        """Notes that a list was the first to show a READY that is `age` seconds old at most."""
        if self.state is Freshness.UNKNOWN and age <= self._tuning.max_list_age:
            self.state = Freshness.FRESH

    def note_idle(self, now: float) -> None:
        """Notes that no task waits any more."""
        self._idle_since = now

    def note_busy(self, now: float) -> None:
        """Notes that a task waits again."""
        is_old = now > self._idle_since + self._tuning.freshness_lifetime
        if is_old and self.state is Freshness.FRESH:
            self.state, self._agreements = Freshness.UNKNOWN, 0
        self._idle_since = math.inf
