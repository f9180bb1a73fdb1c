"""What the answers to status and list requests mean for the deployments that tasks wait for.

A status answer is current and has the reason of an ERROR. A row of a list says less: it has no
reason, lists may hide ERROR and do hide TERMINATED, and a row may be older than a webhook. So a row
that says READY with an address ends a wait. An ERROR, a row that contradicts itself, and a
deployment that is absent from a list are confirmed by a status request.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping

import attrs

from edgegap_async.api.models import Deployment, DeploymentPage, DeploymentRow, Status
from edgegap_async.api.values import Value
from edgegap_async.errors import CallError, Refused, log_fields

from .list_strategy import as_deployment, is_last_page
from .schedule import PollEntry, PollerTuning, PollingPolicy
from .tracker import ChangeSource

logger = logging.getLogger(__name__)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class PollerStats(Value):
    """What the poller of a client has done so far."""

    waiting: int
    """Deployments that tasks wait for now."""
    status_requests: int
    """Status requests sent."""
    list_requests: int
    """List requests sent."""
    found_by_status: int
    """Changes to READY, ERROR or TERMINATED that a status request found."""
    found_by_list: int
    """Changes to READY, ERROR or TERMINATED that a list request found."""
    found_by_webhook: int
    """Changes to READY, ERROR or TERMINATED found by a request that a webhook triggered."""
    mean_delay: float
    """Mean seconds from the last request that did not show the change to the answer that did. The
    true delay is shorter, as the change came in between. 0 before the first change."""
    max_delay: float
    """The longest of these delays, in seconds."""
    webhooks_active: bool
    """Whether webhooks arrive, so that requests are rare."""
    list_mode: str
    """How lists are asked: `changed`, `by_id`, `by_page` or `not_at_all`."""


class DelayCounter:
    """Counts the changes that were found, and how late they were found at most.

    Attributes:
        found: the number of changes, by source.
        max_delay: the longest delay, in seconds.
    """

    def __init__(self) -> None:
        self.found: dict[ChangeSource, int] = {"status": 0, "list": 0, "webhook": 0}
        self.max_delay = 0.0
        self._total_delay = 0.0

    @property
    def mean_delay(self) -> float:
        """The mean delay in seconds; 0 before the first change."""
        return self._total_delay / max(1, sum(self.found.values()))

    def add(self, source: ChangeSource, delay: float) -> None:
        """Counts a change that was found no later than `delay` seconds after it happened."""
        self.found[source] += 1
        self.max_delay = max(self.max_delay, delay)
        self._total_delay += delay


class WebhookScore:
    """Whether webhooks arrive: each READY that a webhook reported counts for, every other against.

    The poller asks rarely while they do. If many deployments become READY and no webhook ever
    comes, one warning says so: the receiver is probably not reachable.
    """

    def __init__(self, policy: PollingPolicy, tuning: PollerTuning) -> None:
        self._policy = policy
        self._tuning = tuning
        self._score = 0
        self._silent: list[float] | None = []  # when READY was found; None once a webhook came

    @property
    def is_active(self) -> bool:
        """Whether webhooks can be relied on."""
        return self._score > 0

    def note_arrival(self) -> None:
        """Notes that a webhook came, of any deployment and kind."""
        self._silent = None

    def note_late_arrival(self) -> None:
        """Notes a webhook for a READY that a request found first; `note_ready` counted against."""
        self._score = min(self._score + 2, self._tuning.max_webhook_score)

    def note_ready(self, now: float, *, by_webhook: bool) -> None:
        """Notes that a deployment was found READY of which a webhook was to report it."""
        step = 1 if by_webhook else -1
        self._score = max(-1, min(self._score + step, self._tuning.max_webhook_score))
        if self._silent is None:
            return
        self._silent.append(now)
        is_many = len(self._silent) >= self._tuning.silence_threshold
        # Many may be found in one moment, each just before its webhook.
        if is_many and now >= self._silent[0] + self._policy.webhook_interval:
            logger.warning(
                "%d deployments became READY and no webhook has come, though the API has their"
                " webhook URLs: check that it can reach the receiver's public_url; the client polls"
                " as without webhooks",
                len(self._silent),
                extra=log_fields(count=len(self._silent)),
            )
            self._silent = None


class AnswerReader:
    """Reads answers into the trackers of the entries.

    Args:
        entries: the deployments that tasks wait for, by request_id.
        policy: the poller's policy.
        tuning: the poller's constants.
        confirm: sends a status request for an entry as soon as its rate limit allows.
        now: the loop's clock.

    Attributes:
        counter: the changes found so far.
        webhooks: whether webhooks arrive.
    """

    def __init__(
        self,
        entries: Mapping[str, PollEntry],
        policy: PollingPolicy,
        tuning: PollerTuning,
        confirm: Callable[[PollEntry], None],
        now: Callable[[], float],
    ) -> None:
        self._entries = entries
        self._policy = policy
        self._tuning = tuning
        self._confirm = confirm
        self._now = now
        self.counter = DelayCounter()
        self.webhooks = WebhookScore(policy, tuning)

    def read_status(self, entry: PollEntry, deployment: Deployment, source: ChangeSource) -> bool:
        """Reads the answer to a status request. Returns whether it was a change to the waiters.

        An answer that says READY without an address counts only if another answer, or a row, has
        said so before: the application may have no ports.
        """
        is_new = deployment.current_status.is_ready and entry.tracker.status != Status.READY
        if is_new and not has_address(deployment) and not entry.tracker.lacks_address:
            entry.tracker.lacks_address = True
            self._confirm(entry)
            return False
        return self.apply(entry, deployment, source)

    def apply(self, entry: PollEntry, deployment: Deployment, source: ChangeSource) -> bool:
        """Updates the tracker of an entry. Returns whether that was a change to its waiters."""
        tracker = entry.tracker
        tracker.last_failure = None
        if not tracker.update(deployment, source):
            return False
        self._count(entry, source)
        if deployment.current_status.is_ready and tracker.expects_webhook:
            tracker.ready_at = self._now()
            self.webhooks.note_ready(tracker.ready_at, by_webhook=source == "webhook")
        return True

    def apply_missing(self, entry: PollEntry, error: Refused, source: ChangeSource) -> bool:
        """Updates the tracker of a deployment that the API does not know.

        Returns:
            Whether that was a change to its waiters.
        """
        tracker = entry.tracker
        tracker.last_failure = None
        try:
            if not tracker.mark_missing(error, self._now(), source):
                return False
        except CallError as final:
            tracker.fail(final)
            return False
        self._count(entry, source)
        return True

    def _count(self, entry: PollEntry, source: ChangeSource) -> None:
        status = entry.tracker.status
        if status is not None and (status.is_ready or status.is_terminal):
            self.counter.add(source, self._now() - entry.checked_at)

    def read_page(
        self,
        page: DeploymentPage,
        asked: dict[str, PollEntry],
        pending: Collection[str],
        sent_at: float,
        *,
        is_full: bool,
    ) -> list[PollEntry]:
        """Reads the answer to a list request.

        Args:
            page: the answer.
            asked: the entries that it asks for.
            pending: ids of which a webhook came before the request was sent.
            sent_at: loop time at which it was sent.
            is_full: whether it asks for every status.

        Returns:
            The entries that a row has made READY for their waiters.
        """
        found = [
            self._entries[row.request_id]
            for row in page.data
            if self._read_row(row, "webhook" if row.request_id in pending else "list")
        ]
        self._read_absences(page, asked, pending, sent_at, is_full=is_full)
        return found

    def _read_row(self, row: DeploymentRow, source: ChangeSource) -> bool:
        """Reads a row. Returns whether it has made a deployment READY for its waiters."""
        entry = self._entries.get(row.request_id)
        if entry is None:
            return False  # no task waits for it any more, or it is not this client's
        entry.is_listed = entry.was_listed = True
        ready = Status.READY if row.ready else None
        status = ready if row.status is None else row.status
        by_webhook = source == "webhook"
        if by_webhook and not row.ready:
            self._confirm_by_status(entry)  # the row may be older than the webhook
        if status is None:
            return False
        lacks_address = row.ready and not has_address(row)
        entry.tracker.lacks_address |= lacks_address
        is_unclear = status.is_ready is not row.ready or lacks_address
        is_new = status != entry.tracker.status  # else a status answer has said more of it
        if is_unclear or (is_new and status == Status.ERROR):  # a row has no reason of an ERROR
            self._confirm_by_status(entry, by_webhook=by_webhook)
            return False
        return is_new and self.apply(entry, as_deployment(row, status), source) and status.is_ready

    def _read_absences(
        self,
        page: DeploymentPage,
        asked: dict[str, PollEntry],
        pending: Collection[str],
        sent_at: float,
        *,
        is_full: bool,
    ) -> None:
        """Draws conclusions from the ids that the list was asked for and does not show."""
        ids = {row.request_id for row in page.data}
        # The last entry first, so that entries that move to the front keep their order.
        for request_id, entry in reversed(asked.items()):
            if self._entries.get(request_id) is not entry:
                continue  # its wait has ended
            entry.tracker.last_failure = None
            is_missing = request_id not in ids
            if is_missing and not is_last_page(page):
                entry.group.move_to_front(entry)
                entry.group.is_urgent = True
                continue
            entry.checked_at = max(entry.checked_at, sent_at)
            by_webhook = request_id in pending
            is_suspicious = is_missing and ((is_full and entry.is_listed) or by_webhook)
            if is_suspicious and self._confirm_by_status(entry, by_webhook=by_webhook):
                entry.is_listed = False  # if it exists nevertheless, lists omit it for now

    def _confirm_by_status(self, entry: PollEntry, *, by_webhook: bool = False) -> bool:
        """Has the status of an entry confirmed, unless a request for it was sent just now.

        Returns:
            Whether a status request will be sent.
        """
        recent = self._now() < entry.tracker.requested_at + self._policy.interval
        if (entry.requests_in_flight or recent) and not by_webhook:  # a webhook is newer than these
            return False
        self._confirm(entry)
        return True


def has_address(found: Deployment | DeploymentRow) -> bool:
    """Returns whether an answer or a row has a host and ports, so that players can connect."""
    has_ports = bool(found.ports) and all(port.external for port in found.ports.values())
    return has_ports and (found.fqdn is not None or found.public_ip is not None)
