"""Decides how the poller asks the list of deployments, by what earlier answers have shown.

Problem. The documentation names the filters of the list in one place and the size of a page
nowhere, and a deployment of the API, or a proxy before it, may differ.

Rule. The poller uses the best list mode until the API refuses it, or a list turns out to be wrong;
then it uses the next mode. A list is wrong if it shows what the filter excludes, or omits a
**probe**: an id that a status request has found READY, so that the next list must show it.

Consequence. A proxy that fails for a minute must not slow down a program that runs for months. So
the best mode is tried again after a minute, and after twice as long each time it does not work.
How old the rows of a list may be, `freshness` learns from the same probes.
"""

from __future__ import annotations

import enum
import logging
import math
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

from edgegap_async.api.models import Deployment, DeploymentPage, DeploymentRow, Status
from edgegap_async.api.models.response import more_follow
from edgegap_async.errors import Forbidden, Refused, Unauthorized, log_fields

from .schedule import DEFAULT_TUNING, PollerTuning

logger = logging.getLogger(__name__)

_URL_TOO_LONG: Final = frozenset({413, 414, 431})  # HTTP statuses


class ListMode(enum.IntEnum):
    """How the list is asked. Where a mode does not work, the poller uses the next one."""

    CHANGED = 0
    """By ids, for READY ones only; and now and then for every status."""
    BY_ID = 1
    """By ids, for every status."""
    BY_PAGE = 2
    """Page by page, without a filter."""
    NOT_AT_ALL = 3
    """Not at all: by status requests."""


class ListStrategy:
    """The list mode in use, and what is known of lists.

    Args:
        tuning: the poller's constants.
        began: loop time at which nothing was known.
        fallback_time: seconds after which a mode that did not work is tried again.

    Attributes:
        mode: how the list is asked.
        is_verified: whether a list has shown a deployment that it was asked for in this mode.
        rows_have_status: whether rows say more than whether a deployment is READY.
        max_id_bytes: bytes of ids that one request may have.
        page_size: rows that a page holds at most.
        page: number of the next page in mode BY_PAGE.
        probe_ids: ids that a status request found READY. The next list must show them; an earlier
            list may have been made just before they became READY.
    """

    def __init__(
        self,
        tuning: PollerTuning = DEFAULT_TUNING,
        began: float = -math.inf,
        fallback_time: float | None = None,
    ) -> None:
        self._tuning = tuning
        self._began = began
        self._fallback_time = fallback_time or tuning.first_fallback_time
        self.mode = ListMode.CHANGED
        self.is_verified = False
        self.rows_have_status = True
        self.max_id_bytes = tuning.max_id_bytes
        self.page_size = tuning.page_size
        self.page = 1
        self.probe_ids = deque[str](maxlen=tuning.max_probe_ids)
        self._failures = 0
        self._last_page: frozenset[str] = frozenset()

    def read(
        self, page: DeploymentPage, asked: Iterable[str], probes: Sequence[str], *, is_full: bool
    ) -> None:
        """Learns from the answer to a list request.

        Args:
            page: the answer.
            asked: ids that the request asked for.
            probes: ids that it asked for only to verify the list.
            is_full: whether the request was for every status.
        """
        ids = {row.request_id for row in page.data}
        left = (one for one in self.probe_ids if one not in probes)
        self.probe_ids = deque(left, self._tuning.max_probe_ids)
        if any(row.status is None for row in page.data):
            self.rows_have_status = False
        if not is_last_page(page):
            seen = min(self.page_size, len(page.data))
            self.page_size = max(self._tuning.min_page_size, seen)
        if not ids <= {*asked, *probes}:
            self.fall_back("the list ignored the filter by request_id", ListMode.BY_PAGE)
        elif is_full and self.mode is ListMode.CHANGED:
            self.is_verified |= bool(ids)  # says nothing of lists that filter by status
        elif not is_full and not all(map(says_ready, page.data)):
            self._note_failure("the list ignored the filter by status")
        elif ids:
            self.is_verified, self._failures = True, 0
        elif probes:
            self._note_failure("the filtered list omitted READY deployments")

    def _note_failure(self, reason: str) -> None:
        self._failures += 1
        if self._failures >= self._tuning.failures_before_fallback:
            self.fall_back(reason)

    def turn_page(self, page: DeploymentPage) -> None:
        """Learns from a page of the unfiltered list which page comes next."""
        ids = frozenset(row.request_id for row in page.data)
        # A list that repeats its last page has ended too.
        is_end = is_last_page(page) or ids <= self._last_page
        self.page = 1 if is_end else self.page + 1
        self._last_page = ids

    def note_refusal(self, error: Exception) -> None:
        """Learns from an error that is final for this kind of list request."""
        reason = getattr(error, "reason", str(error))
        if not isinstance(error, Refused) or isinstance(error, Unauthorized | Forbidden):
            self.fall_back(reason, ListMode.NOT_AT_ALL)  # this client may not list at all
        elif error.status in _URL_TOO_LONG and self.max_id_bytes > self._tuning.min_id_bytes:
            self.max_id_bytes //= 2
            logger.info(
                "list requests ask for fewer deployments from now on: %s",
                error.reason,
                extra=log_fields(error),
            )
        else:
            self.fall_back(reason)

    @property
    def knowledge(self) -> tuple[object, ...]:
        """What decides how list requests are sent; it differs after something was learnt."""
        return self.mode, self.rows_have_status, self.page_size

    def valid_until(self, now: float) -> float:
        """Returns until when what was just learnt is used; then `start_over` replaces it."""
        if now > self._began + self._fallback_time:  # the mode has worked for longer than that
            self._began, self._fallback_time = now, self._tuning.first_fallback_time
        return now + self._fallback_time

    def start_over(self, now: float) -> ListStrategy:
        """Returns a strategy that knows nothing, and uses what it learns at once twice as long."""
        longer = min(2 * self._fallback_time, self._tuning.max_fallback_time)
        return ListStrategy(self._tuning, now, longer)

    def fall_back(self, reason: str, mode: ListMode | None = None) -> None:
        """Uses the next mode, or a later one, from now on."""
        next_mode = ListMode(min(self.mode + 1, ListMode.NOT_AT_ALL))
        self.mode = next_mode if mode is None else max(self.mode, mode)
        self.is_verified, self._failures = False, 0
        self.probe_ids.clear()
        logger.warning(
            "switching list mode to %s: %s",
            self.mode.name.lower(),
            reason,
            extra=log_fields(list_mode=self.mode.name.lower()),
        )


def is_last_page(page: DeploymentPage) -> bool:
    """Whether no other page follows, as far as it says. An empty page is the last in any case."""
    return not page.data or not more_follow(page, len(page.data))


def says_ready(row: DeploymentRow) -> bool:
    """Whether a row shows a READY deployment; rows may have no status."""
    return row.ready or row.status == Status.READY


def as_deployment(row: DeploymentRow, status: Status) -> Deployment:
    """Returns what a row says of a deployment."""
    if not status.is_ready:  # of thousands that wait, each holds only what there is to know
        return Deployment(request_id=row.request_id, current_status=status)
    return Deployment(
        request_id=row.request_id,
        fqdn=row.fqdn,
        current_status=status,
        running=status.is_ready,
        start_time=row.start_time,
        ports=row.ports,
        public_ip=row.public_ip,
        tags=row.tags,
        sockets=row.sockets,
        sockets_usage=row.sockets_usage,
        raw=row.raw,
    )
