"""Holds the numbers of polling, and the queues that order the deployments for the next request."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final
from urllib.parse import quote

import attrs

from edgegap_async.api.models import Status
from edgegap_async.api.validation import number
from edgegap_async.api.values import Value

from .tracker import DeploymentTracker

_BYTES_AROUND_ID: Final = len(quote('"",', safe=","))  # bytes of a URL around each id
_MAX_STALE_ENTRIES: Final = 64  # replaced entries that a queue keeps before it drops them


@attrs.frozen(kw_only=True, eq=False, repr=False)
class PollingPolicy(Value):
    """How often the client asks for the status of a deployment while a task waits. In seconds."""

    first_delay: float = attrs.field(default=0.4, validator=number(least=0))
    """From the start of the first wait to the first request for a new deployment; 0 or more."""
    interval: float = attrs.field(default=0.5, validator=number(above=0))
    """Between two status requests for a deployment that is polled by itself; above 0."""
    fast_period: float = attrs.field(default=60.0, validator=number(least=0))
    """Age of a wait from which on each interval is a twentieth longer than the one before."""
    max_interval: float = attrs.field(default=10.0, validator=number(above=0))
    """The longest interval that a long wait leads to; above 0."""
    webhook_interval: float = attrs.field(default=3.0, validator=number(above=0))
    """In place of `interval` while webhooks arrive; above 0."""
    full_list_interval: float = attrs.field(default=4.0, validator=number(above=0))
    """Between two checks for ERROR and TERMINATED while lists are asked for READY; above 0."""
    not_found_grace: float = attrs.field(default=10.0, validator=number(least=0))
    """From the deploy on, how long "no such deployment" is ignored; 0 or more."""

    def interval_at(self, age: float, *, expects_webhook: bool = False) -> float:
        """Returns the seconds between two requests for a deployment.

        Args:
            age: seconds since the wait began.
            expects_webhook: True while webhooks arrive and report READY of this deployment.
        """
        interval = self.webhook_interval if expects_webhook else self.interval
        grown = interval + (age - self.fast_period) / 20
        return max(interval, min(grown, self.max_interval))


class PollerTuning:
    """The constants of the poller. The defaults were tuned with `benchmarks/waiting.py`.

    A plain class: an attrs class or a named tuple would compile its forty fields at import.
    """

    answer_timeout: float = 2.0
    """Seconds after which an unanswered request is sent once more."""
    max_status_requests: int = 8
    """Status requests in flight. More would delay other calls of the same rate limit."""
    max_list_requests: int = 4
    """List requests in flight."""
    max_requests_each: int = 2
    """Status requests in flight for one deployment."""
    max_failure_interval: float = 5.0
    """Seconds; the longest interval between requests while they fail."""
    max_failures: int = 10
    """Failures in a row that lengthen the interval; more make no difference."""
    warn_after_failures: int = 5
    """Failures in a row after which the log has a warning."""
    lists_unusable_after: int = 2
    """Failed list requests in a row after which the poller asks by status."""
    min_list_interval: float = 0.2
    """Seconds between list requests that hold every waiting deployment."""
    webhook_list_delay: float = 0.15
    """Seconds from a list request to the next one for webhooks, which serves many of them."""
    list_cost: float = 1.35
    """Cost of a list request, in status requests; the best interval grows with its square root."""
    full_lists_up_to: int = 60
    """Waiting deployments up to which every list request is a full one."""
    full_list_interval: float = 1.0
    """Seconds between full lists, at least, where more deployments wait."""
    nearly_full_share: float = 0.25
    """Share of a page's rows from which on the page counts as nearly full."""
    full_list_batch: int = 1000
    """Deployments for which one full list a second is sent while pages are nearly full."""
    bytes_per_id: int = 20
    """Bytes of a URL for each id, about."""
    unverified_interval: float = 2.0
    """Seconds between status checks while no list has shown a deployment yet."""
    first_check_delay: float = 1.0
    """Seconds from the start of a wait to the first check of lists whose freshness is unknown."""
    check_factor: float = 1.3
    """Factor of the interval of one deployment, which is the interval between two such checks."""
    checks_up_to: int = 60
    """Waiting deployments up to which such checks become more frequent, with the square root."""
    unknown_lists_up_to: int = 10
    """Waiting deployments up to which lists become rarer while such checks go on."""
    unknown_list_factor: float = 1.4
    """Factor of their interval then."""
    max_list_age: float = 2.5
    """Seconds; a list that shows what was not so this long ago counts as fresh."""
    probe_lifetime: float = 5.0
    """Seconds for which lists must show a READY deployment; later it may have ended."""
    proven_after_lists: int = 3
    """Right lists in a row, up to which another one is sent for this even if one task waits."""
    fresh_after_probes: int = 10
    """Right lists in a row, after which lists that were stale count as fresh."""
    freshness_lifetime: float = 60.0
    """Seconds without waits, after which lists may be stale again."""
    listed_factor: float = 8.0
    """How many times rarer the status checks of a deployment are that full lists show."""
    max_webhook_score: int = 10
    """Webhooks beyond which one more says nothing new."""
    silence_threshold: int = 10
    """Deployments found READY without any webhook, after which the log has a warning."""
    page_size: int = 100
    """Rows that a page is asked to hold."""
    min_page_size: int = 10
    """Rows that a page holds in any case."""
    max_id_bytes: int = 7400
    """Bytes of ids in a URL: servers and proxies take a little more than 8,000 for all of it."""
    min_id_bytes: int = 500
    """Bytes of ids below which the length of a URL is no reason for a refusal."""
    failures_before_fallback: int = 3
    """Wrong lists in a row, after which the next list mode is used."""
    max_probe_ids: int = 5
    """Ids in a list request that only verify that lists show what is READY."""
    first_fallback_time: float = 60.0
    """Seconds after which a list mode that did not work is tried again; doubles each time."""
    max_fallback_time: float = 3600.0
    """Seconds; the longest such time."""


DEFAULT_TUNING: Final = PollerTuning()


@attrs.define(eq=False, repr=False)
class PollEntry:
    """One deployment that a task waits for, and its place in the queues."""

    tracker: DeploymentTracker
    """The deployment, and the tasks that wait for it."""
    since: float
    """Loop time at which the wait began."""
    group: ListGroup
    """The deployments that share list requests with this one."""
    checked_at: float = attrs.field(init=False)
    """Loop time of the last request that would have found READY, at first of the wait's start."""
    listed_at: float = -math.inf
    """Loop time of the last list request for it."""
    lists_in_flight: int = 0
    """List requests in flight that ask for it."""
    requests_in_flight: int = 0
    """Status requests in flight for it."""
    is_listed: bool = False
    """Whether a list has shown it, so that its absence in a later list means something."""
    was_listed: bool = False
    """Whether a list has ever shown it."""
    not_ready_at: float = -math.inf
    """Loop time at which it was certainly not READY yet; minus infinity if that is unknown."""
    needs_confirmation: bool = False
    """Whether a status request is needed at once."""
    queue_number: int = -1
    """Number of its current place in the status queue; -1 for none."""
    jitter: float = attrs.field(factory=lambda: random.uniform(0.9, 1.1))  # noqa: S311 - spreads requests
    """Factor of its intervals, so that deployments of one moment are not asked about at once."""

    def __attrs_post_init__(self) -> None:
        self.checked_at = self.since

    @property
    def request_id(self) -> str:
        """The deployment's id."""
        return self.tracker.request_id


class ListGroup:
    """Deployments that share list requests.

    Attributes:
        only_ready: whether all their waiters wait for READY and nothing else.
        members: entries by request_id; the entry asked about longest ago comes first.
        newest: loop time at which the newest wait began.
        requested_at: loop time of the last list request.
        last_count: number of members at that time.
        full_at: loop time of the last full list request, which shows every status.
        is_urgent: whether the next list request is due at once: a webhook came for a member, or
            the last page had no room for all that changed.
        is_nearly_full: whether the last filtered list filled much of its page.
    """

    def __init__(self, *, only_ready: bool) -> None:
        self.only_ready = only_ready
        self.members = OrderedDict[str, PollEntry]()
        self.newest = 0.0
        self.requested_at = self.full_at = -math.inf
        self.last_count = 0
        self.is_urgent = self.is_nearly_full = False
        self._by_full_list = OrderedDict[str, PollEntry]()  # longest without a full list first
        self._by_status = OrderedDict[str, PollEntry]()  # longest without a status request first
        self._without_webhook = 0

    @property
    def all_expect_webhooks(self) -> bool:
        """Whether the API was asked to send a webhook for each member."""
        return not self._without_webhook

    def add(self, entry: PollEntry) -> None:
        """Adds an entry as the last one to ask about."""
        entry.group = self
        for order in (self.members, self._by_full_list, self._by_status):
            order[entry.request_id] = entry
        self.newest = max(self.newest, entry.since)
        self._without_webhook += not entry.tracker.expects_webhook

    def remove(self, entry: PollEntry) -> None:
        """Removes an entry."""
        for order in (self.members, self._by_full_list, self._by_status):
            del order[entry.request_id]
        self._without_webhook -= not entry.tracker.expects_webhook

    def move_to_front(self, entry: PollEntry) -> None:
        """Makes sure that the next list request asks about this entry."""
        self.members.move_to_end(entry.request_id, last=False)
        self._by_full_list.move_to_end(entry.request_id, last=False)

    def note_status_request(self, entry: PollEntry) -> None:
        """Moves an entry to the end of the order in which members are checked."""
        self._by_status.move_to_end(entry.request_id)

    def next_check(self) -> PollEntry | None:
        """Returns the member without a status request for longest; None if there is none.

        Members in ERROR are left out, as their end may be far off.
        """
        entries = self._by_status.values()
        return next((one for one in entries if one.tracker.status != Status.ERROR), None)

    def take(
        self, now: float, max_ids: int, max_bytes: int, answer_timeout: float, *, is_full: bool
    ) -> list[PollEntry]:
        """Returns the entries of the next list request and moves them to the end.

        Args:
            now: loop time.
            max_ids: how many at most.
            max_bytes: bytes of ids at most.
            answer_timeout: seconds for which an entry waits for the list that asks about it.
            is_full: whether the request shows every status.
        """
        taken: list[PollEntry] = []
        for entry in (self._by_full_list if is_full else self.members).values():
            is_asked = entry.lists_in_flight and now < entry.listed_at + answer_timeout
            if is_asked and not is_full:
                continue
            max_bytes -= len(entry.request_id) + _BYTES_AROUND_ID
            if len(taken) >= max_ids or max_bytes < 0:
                break
            taken.append(entry)
        for entry in taken:
            self.members.move_to_end(entry.request_id)
            if is_full:
                self._by_full_list.move_to_end(entry.request_id)
        return taken


class StatusQueue:
    """The deployments that need a status request, by the time at which it is due.

    Three queues: deployments that need confirmation, deployments polled one by one, and deployments
    that list requests cover and that are only checked now and then. Queues with due entries are
    served in turn, so none starves: measured with one queue for the last two, a deployment that is
    polled alone stood for 18 s behind the checks of a thousand others.

    Args:
        due_at: when the next status request for an entry is due, by what is known at that time.
    """

    def __init__(self, due_at: Callable[[PollEntry, float], float]) -> None:
        self._due_at = due_at
        self._numbers = itertools.count()
        self.clear()

    def __len__(self) -> int:
        return sum(map(len, self._queues))

    def add(self, entry: PollEntry, now: float, *, is_check: bool = False) -> None:
        """Puts an entry in its place; an earlier place of the entry is void."""
        entry.queue_number = next(self._numbers)
        queue = self._checks if is_check else self._polled
        if entry.needs_confirmation:
            queue = self._confirmations
        queue.add(self._due_at(entry, now), entry)

    def clear(self) -> None:
        """Removes every entry."""
        self._confirmations, self._polled, self._checks = _Queue(), _Queue(), _Queue()
        self._queues = deque((self._confirmations, self._polled, self._checks))  # next turn first

    def first(self, now: float) -> float:
        """Returns the loop time at which the first status request is due; infinity for never."""
        return min(queue.first(now, self._due_at) for queue in self._queues)

    def take(self, now: float) -> PollEntry:
        """Removes and returns an entry that is due; call it only if `first` is not after `now`."""
        queue = next(one for one in self._queues if one.first(now, self._due_at) <= now)
        self._queues.remove(queue)
        self._queues.append(queue)
        return queue.pop()


class _Queue:
    """Entries by due time. A place that was replaced stays in the heap until it is reached."""

    def __init__(self) -> None:
        self._entries: list[tuple[float, int, PollEntry]] = []
        self._max_entries = _MAX_STALE_ENTRIES

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, due: float, entry: PollEntry) -> None:
        if len(self._entries) >= self._max_entries:
            self._entries = [one for one in self._entries if one[1] == one[2].queue_number]
            heapq.heapify(self._entries)
            self._max_entries = 2 * len(self._entries) + _MAX_STALE_ENTRIES
        heapq.heappush(self._entries, (due, entry.queue_number, entry))

    def first(self, now: float, due_at: Callable[[PollEntry, float], float]) -> float:
        """Returns when the first valid entry is due, if nothing changes before."""
        while self._entries:
            due, place, entry = self._entries[0]
            if place != entry.queue_number:
                heapq.heappop(self._entries)
            elif due > now or (due := due_at(entry, now)) <= now:
                return due
            else:  # its interval has grown since it was added
                heapq.heapreplace(self._entries, (due, place, entry))
        return math.inf

    def pop(self) -> PollEntry:
        return heapq.heappop(self._entries)[2]
