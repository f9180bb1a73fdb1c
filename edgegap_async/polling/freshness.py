"""Decides whether lists show what has changed just now, by comparing them with status answers.

Problem. A list may come from a cache or from a replica that lags. Its rows are well-formed and
wrong, and a poller that relies on lists is then later than a task that polls the status itself.

Rule. A **probe** is an id that a status request has found READY. A list request that is sent after
that answer must show the probe as READY; one that does not is stale, whatever the reason. A list is
fresh if it shows a probe, or if it is the first answer to show a READY that was not true
`max_list_age` seconds ago, by a status answer or because the deployment did not exist.

Consequence. At first freshness is UNKNOWN: two status requests a second check deployments that
lists cover. One fresh list makes it FRESH, and checks become rare. One stale list makes it STALE:
each deployment is polled by its status too, as fast as the rate limit allows, so no wait is longer
than without lists. Lists go on meanwhile: each probe tests them, and ten right lists in a row make
them FRESH again. A cache or replica that is wrong every second time passes that once in a thousand.
After a minute without waits the state is UNKNOWN again, unless it is STALE.
"""

from __future__ import annotations

import enum
import logging
import math
from collections.abc import Iterable

from edgegap_async.api.models import DeploymentPage

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


class ListFreshness:
    """Compares lists with status answers.

    Args:
        tuning: the poller's constants.

    Attributes:
        state: what is known of the age of lists.
    """

    def __init__(self, tuning: PollerTuning = DEFAULT_TUNING) -> None:
        self.state = Freshness.UNKNOWN
        self._tuning = tuning
        self._expected = dict[str, tuple[float, bool]]()  # found when, and whether by its status
        self._right_lists = 0  # in a row, while lists are stale
        self._idle_since = math.inf

    def expect(self, request_id: str, now: float, *, by_status: bool) -> None:
        """Notes that a deployment is READY, so that list requests sent from now on must show it.

        Args:
            request_id: the deployment's id.
            now: loop time.
            by_status: whether a status answer said so; otherwise it was a list, and lists of the
                same age prove nothing when they agree.
        """
        over = now - self._tuning.probe_lifetime
        while self._expected and next(iter(self._expected.values()))[0] < over:
            del self._expected[next(iter(self._expected))]
        self._expected[request_id] = now, by_status

    def read(self, page: DeploymentPage, probes: Iterable[str], now: float) -> None:
        """Learns from the answer to a list request that asked for probes."""
        over = now - self._tuning.probe_lifetime
        known = {one: self._expected[one] for one in probes if one in self._expected}
        ready = {row.request_id for row in page.data if says_ready(row)}
        shown = {row.request_id for row in page.data}
        is_whole = is_last_page(page)  # else a probe may be on the next page
        judged = [
            one for one, (at, _) in known.items() if at >= over and (one in shown or is_whole)
        ]
        is_right = any(known[one][1] for one in judged)
        wrong = next((one for one in judged if one not in ready), None)
        if wrong is not None:
            self._right_lists = 0
            if self.state is not Freshness.STALE:
                self.state = Freshness.STALE
                logger.warning(
                    "lists are stale: %s is READY by its status, and a later list %s; each"
                    " deployment is polled by its status too",
                    wrong,
                    "shows another status" if wrong in shown else "omits it",
                )
        elif is_right and self.state is Freshness.STALE:
            self._right_lists += 1
            if self._right_lists >= self._tuning.fresh_after_probes:
                self.state = Freshness.FRESH
                logger.info("lists are fresh again")
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
            self.state = Freshness.UNKNOWN
        self._idle_since = math.inf
