"""Measures how long lists omit the deployments that the client has just made.

Each deploy that a list shows is a measurement: from the moment at which the deploy was sent to the
answer of the first list that has its row. That is longer than the lag, never shorter, because the
API accepts the deploy later and the list was read earlier. The longest of the last measurements,
times three, is what the client trusts, once it has three that are ten minutes old at most. Longer
ones than `list_delay` say that no list was read, and do not count.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from edgegap_async.api.models import DeploymentPage
from edgegap_async.api.operations import LIST_DEPLOYMENTS
from edgegap_async.concurrency import loop_time
from edgegap_async.observability.observer import ObservedCall, Observer

_MARGIN: Final = 3.0  # times the longest measurement
_LEAST: Final = 1.0  # seconds; a list may come from another replica than the last one
_NEEDED: Final = 3  # measurements
_KEPT: Final = 20  # measurements
_MAX_AGE: Final = 600.0  # seconds that a measurement counts
_MAX_UNLISTED: Final = 1000  # deployments that no list has shown


class ListLag(Observer):
    """How long lists omit new deployments, as far as one client has seen.

    Args:
        list_delay: seconds that a new deployment may be missing from lists.
    """

    def __init__(self, list_delay: float) -> None:
        self.list_delay: Final = list_delay
        """Seconds that a new deployment may be missing from lists."""
        self._sent_at = dict[str, float]()  # loop time, by id, of deployments that no list showed
        self._measured = deque[tuple[float, float]](maxlen=_KEPT)  # loop time and seconds

    def add_deployed(self, request_id: str, sent_at: float | None) -> None:
        """Records a deployment that lists will show.

        Args:
            request_id: its id.
            sent_at: loop time at which its deploy was sent; None if that is not known.
        """
        if sent_at is not None:
            self._sent_at[request_id] = sent_at
        if len(self._sent_at) > _MAX_UNLISTED:
            del self._sent_at[next(iter(self._sent_at))]

    def call_succeeded(self, call: ObservedCall, result: object) -> None:
        """Measures the deployments that a list shows for the first time."""
        if call.operation is not LIST_DEPLOYMENTS or not isinstance(result, DeploymentPage):
            return
        if self._sent_at:
            for row in result.data:
                self.add(self._sent_at.pop(row.request_id, None))

    def add(self, sent_at: float | None) -> None:
        """Records that a list has just shown a deployment for the first time.

        Args:
            sent_at: loop time at which its deploy was sent; None if that is not known.
        """
        now = loop_time()
        if sent_at is not None and now - sent_at <= self.list_delay:
            self._measured.append((now, now - sent_at))

    @property
    def search_time(self) -> float:
        """Seconds after which a deployment that exists is in lists; `list_delay` at most."""
        oldest = loop_time() - _MAX_AGE
        seconds = [taken for at, taken in self._measured if at >= oldest]
        if len(seconds) < _NEEDED:
            return self.list_delay
        return min(self.list_delay, max(_LEAST, _MARGIN * max(seconds)))
