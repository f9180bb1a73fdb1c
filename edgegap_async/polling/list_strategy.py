"""How the list of deployments can be asked, as far as it was learnt by asking.

By what a list can be filtered is documented in one place, how many rows a page may have nowhere,
and not every deployment of the API need keep to it. So nothing is taken for granted: each way of
asking is used until it is refused or found to leave something out, and then the next one. Nor is
that believed for ever: a proxy's bad minute must not slow a program down that runs for months. So
after a while the best way is tried again, and after twice as long if it still does not work.
"""

from __future__ import annotations

import enum
import logging
import math
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

from edgegap_async.api.models import Deployment, DeploymentPage, DeploymentRow, Status
from edgegap_async.errors import Forbidden, Refused, Unauthorized

__all__ = ["PAGE_SIZE", "ListMode", "ListStrategy", "as_deployment", "is_whole"]

logger = logging.getLogger(__name__)

PAGE_SIZE: Final = 100
"""How many a page is asked to hold."""

_MAX_ID_BYTES: Final = 7400  # bytes of ids: servers and proxies take 8000 and some for a URL
_MIN_ID_BYTES: Final = 500
_MIN_PAGE_SIZE: Final = 10  # rows that a page holds for sure
_TOO_LONG: Final = frozenset({413, 414, 431})
_FAILURES_BEFORE_FALLBACK: Final = 3
_MAX_PROBE_IDS: Final = 5  # asked for at once
_FIRST_FALLBACK_TIME: Final = 60.0  # seconds
_MAX_FALLBACK_TIME: Final = 3600.0


class ListMode(enum.IntEnum):
    """How the list is asked, the next one where one does not work."""

    CHANGED = 0
    """For some ids, those that are READY; and now and then for them all."""
    BY_ID = 1
    """For some ids."""
    BY_PAGE = 2
    """For all there is."""
    NOT_AT_ALL = 3


class ListStrategy:
    """What is known of the list.

    Args:
        began: loop time at which nothing was known.
        believed_for: seconds for which it is believed that something does not work.

    Attributes:
        way: how it is asked.
        is_proven: whether it has told something asked for in that way.
        rows_have_status: whether rows say more than whether they are READY.
        longest: bytes that the ids of a request may have.
        rows: how many a page holds at most.
        page: the number of the page whose turn it is, where it is asked by page.
        proofs: ids of what a status look found READY. The next answer must hold them: that it did
            not tell of them before proves nothing, for they may have become READY just then.
    """

    def __init__(
        self, began: float = -math.inf, believed_for: float = _FIRST_FALLBACK_TIME
    ) -> None:
        self._began, self._believed_for = began, believed_for
        self.way = ListMode.CHANGED
        self.is_proven = False
        self.rows_have_status = True
        self.longest = _MAX_ID_BYTES
        self.rows = PAGE_SIZE
        self.page = 1
        self.proofs = deque[str](maxlen=_MAX_PROBE_IDS)
        self._strikes = 0
        self._before: frozenset[str] = frozenset()

    def read(
        self,
        page: DeploymentPage,
        asked: Iterable[str],
        proofs: Sequence[str],
        *,
        is_roll_call: bool,
    ) -> None:
        """Learns from an answer to a request for some ids, and for what must be there too."""
        ids = {row.request_id for row in page.data}
        self.proofs = deque((one for one in self.proofs if one not in proofs), _MAX_PROBE_IDS)
        if any(row.status is None for row in page.data):
            self.rows_have_status = False
        if not is_whole(page):
            self.rows = max(_MIN_PAGE_SIZE, min(self.rows, len(page.data)))
        if not ids <= {*asked, *proofs}:
            self.step_down("it does not filter by request_id", ListMode.BY_PAGE)
        elif is_roll_call and self.way is ListMode.CHANGED:
            self.is_proven = self.is_proven or bool(ids)  # of those that filter by status, nothing
        elif not is_roll_call and not all(row.is_ready for row in page.data):
            self._strike("it does not filter by status")
        elif ids:
            self.is_proven, self._strikes = True, 0
        elif proofs:
            self._strike("it leaves out what is READY")

    def _strike(self, why: str) -> None:
        self._strikes += 1
        if self._strikes >= _FAILURES_BEFORE_FALLBACK:
            self.step_down(why)

    def turn(self, page: DeploymentPage) -> None:
        """Learns from a page which one comes next."""
        ids = frozenset(row.request_id for row in page.data)
        # A page that repeats itself for ever ends the list too.
        self.page = 1 if is_whole(page) or ids <= self._before else self.page + 1
        self._before = ids

    def refused(self, error: Exception) -> None:
        """The list cannot be asked in this way."""
        if (
            isinstance(error, Refused)
            and error.status in _TOO_LONG
            and self.longest > _MIN_ID_BYTES
        ):
            self.longest //= 2
            logger.info("asking the list for fewer at once: %s", error)
        elif isinstance(error, Refused) and not isinstance(error, Unauthorized | Forbidden):
            self.step_down(str(error))
        else:  # not by us, in any way
            self.step_down(str(error), ListMode.NOT_AT_ALL)

    @property
    def knowledge(self) -> tuple[object, ...]:
        """What decides how and whom it is asked for: another if something was learnt."""
        return self.way, self.rows_have_status, self.rows

    def believed_until(self, now: float) -> float:
        """Until when to act on what was just learnt; then it is time for a list `anew`."""
        if now > self._began + self._believed_for:  # it has worked for longer than that
            self._began, self._believed_for = now, _FIRST_FALLBACK_TIME
        return now + self._believed_for

    def anew(self, now: float) -> ListStrategy:
        """As if nothing had been learnt; what soon is learnt again is believed twice as long."""
        return ListStrategy(now, min(2 * self._believed_for, _MAX_FALLBACK_TIME))

    def step_down(self, why: str, way: ListMode | None = None) -> None:
        """Asks in the next way from now on, or in one further down."""
        self.way = (
            ListMode(min(self.way + 1, ListMode.NOT_AT_ALL)) if way is None else max(self.way, way)
        )
        self.is_proven, self._strikes = False, 0
        self.proofs.clear()
        logger.warning("the list is asked %s from now on: %s", self.way.name.lower(), why)


def is_whole(page: DeploymentPage) -> bool:
    """Whether no other page follows. After an empty one there is none, whatever it says."""
    where = page.pagination
    if not page.data or where is None or not where.has_next:
        return True
    # The published example says that there is a next page, and is the first of one.
    pages = where.paginator.num_pages if where.paginator is not None else None
    return pages is not None and where.number is not None and where.number >= pages


def as_deployment(row: DeploymentRow, status: Status) -> Deployment:
    """What a row tells of a deployment."""
    if not status.is_ready:  # thousands may be waited for: each holds only what there is to know
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
