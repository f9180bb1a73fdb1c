"""Polls the status of every deployment that tasks of a client wait for, in one task.

Problem. The API answers 20 status requests a second, each about one deployment, and 10 list
requests, each about as many ids as fit in a URL. Thousands of tasks may wait.

Rule. A deployment that is waited for alone is asked about by status. Two or more share **list
requests**, filtered by `request_id in […]` and, where every waiter waits for READY, by `status eq
ready`, so that only changes come back. A row that says READY with an address ends the wait.

How often. A list request finds something with a chance that grows with the number that wait, so
the best interval shrinks with its square root: half a second for one, a fifth for ten. Deployments
that were asked about longest ago come first, so none starves. Intervals grow for a deployment that
is waited for longer than a minute, and are long while webhooks arrive.

What a filtered list cannot show. ERROR and TERMINATED. So every few seconds a **full list request**
asks without the status filter, and a deployment that is in ERROR there, or absent, is confirmed by
a status request. While few wait, every list request is a full one.

Checks. While it is unknown whether lists are fresh (`freshness`), status requests check the
deployments that lists cover in turn: 1.5 a second where two wait, up to 8 where sixty do.

Failures. A request that fails for a while (network, 429, 5xx) ends no wait; the next ones become
rarer. While lists fail or do not answer, each deployment is asked about by status. What lists can
do at all, `list_strategy` learns. What an answer means is in `results`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Collection, Sequence
from typing import Final
from weakref import WeakValueDictionary

from edgegap_async.api.codec import list_query
from edgegap_async.api.models import DeploymentPage, Status
from edgegap_async.api.operations import (
    BULK_STOP,
    GET_DEPLOYMENT,
    LIST_DEPLOYMENTS,
    STOP_DEPLOYMENT,
    STOP_SELF,
)
from edgegap_async.api.requests import Filter
from edgegap_async.api.validation import check_segment
from edgegap_async.concurrency import create_detached_task, loop_time, wait_within
from edgegap_async.errors import CallError, ClientClosed, EdgegapError, Refused
from edgegap_async.http.api_client import ApiClient
from edgegap_async.http.call import CallOptions
from edgegap_async.http.rate_limits import Priority
from edgegap_async.http.retries import is_transient
from edgegap_async.observability.observer import ObservedCall, Observer

from .freshness import Freshness, ListFreshness
from .in_flight import InFlightRequests
from .list_strategy import ListMode, ListStrategy, is_last_page
from .results import AnswerReader, PollerStats
from .schedule import DEFAULT_TUNING, ListGroup, PollEntry, PollerTuning, PollingPolicy, StatusQueue
from .tracker import ChangeSource, DeploymentTracker, may_mean_missing

# The poller decides itself when to send a failed request again.
_CALL_OPTIONS: Final = CallOptions(priority=Priority.STATUS, once=True)
_FEWEST: Final = 2  # deployments that share list requests
_STOPS: Final = frozenset({STOP_DEPLOYMENT, STOP_SELF, BULK_STOP})


class StatusPoller:
    """Polls the status of a client's deployments while tasks wait. It is `client.poller`.

    Args:
        client: the client whose deployments are polled, and whose rate limits are used.
        policy: how often.
        tuning: constants of the poller; the defaults suit the API's documented limits.
    """

    def __init__(
        self, client: ApiClient, policy: PollingPolicy, *, tuning: PollerTuning = DEFAULT_TUNING
    ) -> None:
        self.client = client
        self.policy = policy
        self._tuning = tuning
        self._trackers = WeakValueDictionary[str, DeploymentTracker]()
        self._entries: dict[str, PollEntry] = {}
        self._ready_group = ListGroup(only_ready=True)
        self._any_group = ListGroup(only_ready=False)
        self._status_queue = StatusQueue(self._status_due_at)
        self._task: asyncio.Task[None] | None = None
        self._wakeup = asyncio.Event()
        self._status_requests = InFlightRequests(
            GET_DEPLOYMENT, tuning.max_status_requests, tuning, self._on_request_end
        )
        self._list_requests = InFlightRequests(
            LIST_DEPLOYMENTS, tuning.max_list_requests, tuning, self._on_request_end
        )
        self._lists = ListStrategy(tuning)
        self._freshness = ListFreshness(tuning)
        self._checked_at = -math.inf  # the last check of lists whose freshness is unknown
        self._start_over_at = math.inf  # when the best list mode is tried again
        self._lists_answer = True  # as opposed to lists that fail or hang
        self._page_requested_at = -math.inf
        self._reader = AnswerReader(self._entries, policy, tuning, self._confirm, loop_time)
        client.add_observer(_StopObserver(self))

    def __repr__(self) -> str:
        return f"<StatusPoller: {len(self._entries)} deployments waited for>"

    @property
    def stats(self) -> PollerStats:
        """What the poller has done so far."""
        counter = self._reader.counter
        return PollerStats(
            waiting=len(self._entries),
            status_requests=self._status_requests.count,
            list_requests=self._list_requests.count,
            found_by_status=counter.found["status"],
            found_by_list=counter.found["list"],
            found_by_webhook=counter.found["webhook"],
            mean_delay=counter.mean_delay,
            max_delay=counter.max_delay,
            webhooks_active=self._reader.webhooks.is_active,
            list_mode=self._lists.mode.name.lower(),
        )

    # ── deployments that tasks wait for ──────────────────────────────────────────────────────────

    def tracker(
        self,
        request_id: str,
        *,
        expects_webhook: bool = False,
        deployed_at: float = -math.inf,
        believe_404_from: float = -math.inf,
    ) -> DeploymentTracker:
        """Returns the tracker of a deployment; all handles of one id share it.

        Args:
            request_id: the deployment's id.
            expects_webhook: whether the API was asked to send a webhook at READY.
            deployed_at: loop time at which the API accepted the deploy of this client; minus
                infinity for another deployment.
            believe_404_from: loop time from which the answer "no such deployment" is believed.

        Raises:
            InvalidRequest: no deployment can have that id.
        """
        check_segment("request_id", request_id)  # a wrong id would make a whole list request fail
        tracker = self._trackers.get(request_id)
        if tracker is None:
            tracker = DeploymentTracker(self, request_id, expects_webhook=expects_webhook)
            self._trackers[request_id] = tracker
        tracker.deployed_at = max(tracker.deployed_at, deployed_at)
        tracker.believe_404_from = max(tracker.believe_404_from, believe_404_from)
        return tracker

    def is_tracked(self, request_id: str) -> bool:
        """Returns whether there is a tracker, and so a handle, of a deployment."""
        return request_id in self._trackers

    def stop_begins(self, request_id: str | None) -> None:
        """Notes that this client stops a deployment: lists may omit it from now on.

        Args:
            request_id: its id; None for a bulk stop, which may match any deployment.
        """
        every = {*self._trackers, *self._lists.probe_ids}
        for one in every if request_id is None else {request_id}:
            if tracker := self._trackers.get(one):
                tracker.is_stopped = True
            self._freshness.forget(one)
            if one in self._lists.probe_ids:
                self._lists.probe_ids.remove(one)

    def waiters_changed(self, tracker: DeploymentTracker) -> None:
        """Starts, changes or ends the polling of a deployment, as its `is_awaited` says now."""
        entry = self._entries.get(tracker.request_id)
        group = self._ready_group if tracker.awaits_only_ready else self._any_group
        if entry is not None:
            if tracker.is_awaited and entry.group is group:
                return
            self._remove(entry)
        elif tracker.is_awaited:
            with self.client.until_closed():  # raises if the client is closed
                now = loop_time()
            tracker.awaited_at = min(tracker.awaited_at, now)
            entry = PollEntry(tracker, now, group, not_ready_at=tracker.deployed_at)
        if entry is not None and tracker.is_awaited:
            self._entries[tracker.request_id] = entry
            group.add(entry)
            self._schedule_status(entry)
            if tracker.webhook_pending:
                self.poll_now(tracker)
            self._wakeup.set()
            if self._task is None or self._task.done():
                self._freshness.note_busy(loop_time())
                self._start()
        elif not self._entries:
            self._stop()

    def _remove(self, entry: PollEntry) -> None:
        del self._entries[entry.request_id]
        entry.queue_number = -1
        entry.group.remove(entry)
        is_now_few = len(self._entries) == self._tuning.full_lists_up_to
        for group in (self._ready_group, self._any_group):
            if len(group.members) == 1 and (group is entry.group or is_now_few):
                self._schedule_status(*group.members.values())  # lists cover it no more

    def _start(self) -> None:
        self._task = create_detached_task(self._run())
        self._task.add_done_callback(self._start_again)

    def _start_again(self, task: asyncio.Task[None]) -> None:
        # A program that ends may cancel every task of the loop, and spare some that wait.
        if task is self._task and task.cancelled() and self._entries:
            self._start()

    def _stop(self) -> None:
        """Stops polling, when no task waits any more."""
        self._status_queue.clear()
        self._status_requests.cancel()
        self._list_requests.cancel()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            self._freshness.note_idle(loop_time())

    def poll_now(self, tracker: DeploymentTracker) -> None:
        """Makes the next status or list request for a deployment due at once, if a task waits."""
        entry, webhooks = self._entries.get(tracker.request_id), self._reader.webhooks
        if tracker.webhook_pending:
            webhooks.note_arrival()
        if entry is None:
            is_in_time = loop_time() < tracker.ready_at + self.policy.webhook_interval
            if tracker.expects_webhook and tracker.webhook_pending and is_in_time:
                tracker.expects_webhook = False  # the webhook for READY has come
                webhooks.note_late_arrival()
        elif self._is_found_by_lists(entry.group):
            entry.group.is_urgent = True
            entry.group.move_to_front(entry)
            self._wakeup.set()
        else:
            self._confirm(entry)

    def _confirm(self, entry: PollEntry) -> None:
        entry.needs_confirmation = True
        self._schedule_status(entry)
        self._wakeup.set()

    # ── what is due when ─────────────────────────────────────────────────────────────────────────

    async def _run(self) -> None:
        try:
            with self.client.until_closed():
                while True:
                    self._wakeup.clear()
                    due = self._send_due_requests(loop_time())
                    limit = asyncio.timeout_at(due if due < math.inf else None)
                    await wait_within(limit, self._wakeup.wait())
        except ClientClosed:
            pass  # each waiter raises ClientClosed itself
        except Exception as error:  # noqa: BLE001 - no waiter may wait for ever
            self._fail_all(error)

    def _fail_all(self, error: Exception) -> None:
        entries = list(self._entries.values())
        self._entries.clear()  # first: each failure changes the waiters
        self._ready_group = ListGroup(only_ready=True)
        self._any_group = ListGroup(only_ready=False)
        for entry in entries:
            entry.queue_number = -1
            entry.tracker.fail(error)

    def _on_request_end(self, task: asyncio.Task[None]) -> None:
        self._wakeup.set()  # another request may start
        if not task.cancelled() and isinstance(error := task.exception(), Exception):
            self._fail_all(error)

    def _send_due_requests(self, now: float) -> float:
        """Sends what is due. Returns the loop time at which more may be due."""
        did_answer, self._lists_answer = (
            self._lists_answer,
            now < self._list_requests.unusable_at(),
        )
        if now >= self._start_over_at:
            self._lists, self._start_over_at = self._lists.start_over(now), math.inf
            self._schedule_all()
        elif did_answer and not self._lists_answer:
            self._schedule_all()
        if self._lists.mode is ListMode.BY_PAGE:
            lists_due = self._send_page_if_due(now)
        else:
            lists_due = min(
                self._send_list_if_due(self._ready_group, now),
                self._send_list_if_due(self._any_group, now),
            )
        # Due status requests first: a check is for permits that would be left.
        return min(lists_due, self._send_due_status_requests(now), self._send_check_if_due(now))

    def _is_covered_by_lists(self, group: ListGroup) -> bool:
        """Whether list requests ask about the members of a group."""
        works = self._lists.mode < ListMode.BY_PAGE
        # Beside many, status requests for a single one would come too late.
        alone = 0 if len(self._entries) > self._tuning.full_lists_up_to else 1
        rows_suffice = group.only_ready or self._lists.rows_have_status
        return works and len(group.members) > alone and rows_suffice

    def _is_found_by_lists(self, group: ListGroup) -> bool:
        """Whether list requests find the changes of a group's members in time."""
        is_stale = self._freshness.state is Freshness.STALE
        return self._is_covered_by_lists(group) and self._lists_answer and not is_stale

    def _is_extra_list_due(self, group: ListGroup) -> bool:
        """Whether a list request for the last task that waits is to prove that lists are fresh."""
        is_last = len(group.members) == 1 and group.last_count == _FEWEST
        works = self._lists.mode < ListMode.BY_PAGE and self._lists_answer
        return is_last and works and bool(self._lists.probe_ids) and self._freshness.needs_evidence

    def _interval(self, group: ListGroup, now: float) -> float:
        """Returns the seconds between two requests for a member, if it were alone."""
        expects_webhook = self._reader.webhooks.is_active and group.all_expect_webhooks
        return self.policy.interval_at(now - group.newest, expects_webhook=expects_webhook)

    def _send_list_if_due(self, group: ListGroup, now: float) -> float:
        tuning, backed_off = self._tuning, self._list_requests.backed_off
        count = len(group.members)
        if not self._is_covered_by_lists(group) and not self._is_extra_list_due(group):
            return math.inf
        is_full = self._is_full_list_due(group, now)
        # Where one request cannot hold all ids, each id still needs its turn as often.
        share = min(1.0, self._lists.max_id_bytes / (tuning.bytes_per_id * count))
        # After a list request for many, the rest is asked about as soon as the many were: without
        # that, the 99th percentile of 100 waits rose from 0.27 to 0.30 s.
        many = max(count, group.last_count)
        interval = max(
            backed_off(self._interval(group, now)) * math.sqrt(tuning.list_cost / many),
            backed_off(min(tuning.min_list_interval, self.policy.interval) * share),
        )
        is_unknown = self._freshness.state is Freshness.UNKNOWN
        if is_unknown and _FEWEST < count <= tuning.unknown_lists_up_to:  # checks take their share
            interval *= tuning.unknown_list_factor
        if group.is_urgent:
            interval = min(interval, backed_off(tuning.webhook_list_delay))
        permitted = self._list_requests.permitted_at(self.client.limits, now)
        due = max(group.requested_at + interval, permitted)
        oldest = next(iter(self._entries.values()))
        is_new = oldest.tracker.deployed_at > -math.inf
        if is_new and not group.is_urgent:
            due = max(due, oldest.since + self.policy.first_delay)
        if now < due:
            return due
        max_probes = len(self._lists.probe_ids) + len(self._freshness.ended_ids)
        max_ids = self._lists.page_size - max_probes if is_full else count
        max_bytes, timeout = self._lists.max_id_bytes, tuning.answer_timeout
        entries = group.take(now, max_ids, max_bytes, timeout, is_full=is_full)
        if not entries:  # a request for each of them is in flight
            return now + max(interval, tuning.webhook_list_delay)
        group.requested_at, group.last_count, group.is_urgent = now, count, False
        if is_full:
            group.full_at = now
        self._begin_list_request(entries, now, is_full=is_full)
        return now + interval

    def _is_full_list_due(self, group: ListGroup, now: float) -> bool:
        count, tuning = len(group.members), self._tuning
        if self._lists.mode is ListMode.BY_ID or not group.only_ready:
            return True
        if count <= tuning.full_lists_up_to:
            return True
        if group.full_at >= group.requested_at:
            return False  # at most every second request is a full one
        share = min(1.0, self._lists.page_size / count)
        least = min(tuning.full_list_interval, self.policy.full_list_interval)
        if group.is_nearly_full:  # full lists give way to READY deployments
            least = max(self.policy.full_list_interval, least * count / tuning.full_list_batch)
        return now >= group.full_at + max(self.policy.full_list_interval * share, least)

    def _send_page_if_due(self, now: float) -> float:
        if len(self._entries) == 1:
            return math.inf
        timeout, in_flight = self._tuning.answer_timeout, len(self._list_requests)
        # The page in flight says which page is next, unless it hangs.
        interval = min(self._tuning.webhook_list_delay, self.policy.interval)
        interval = self._list_requests.backed_off(timeout if in_flight else interval)
        permitted = self._list_requests.permitted_at(self.client.limits, now)
        due = max(self._page_requested_at + interval, permitted)
        if now < due:
            return due
        self._page_requested_at = now
        self._begin_list_request((), now, is_full=True)
        return now + timeout

    def _schedule_status(self, entry: PollEntry) -> None:
        """Gives an entry a new place in the status queue."""
        is_check = self._is_found_by_lists(entry.group)
        self._status_queue.add(entry, loop_time(), is_check=is_check)

    def _schedule_all(self) -> None:
        """Gives each entry a new place, after lists became more or less useful."""
        for entry in self._entries.values():
            self._schedule_status(entry)

    def _status_due_at(self, entry: PollEntry, now: float) -> float:
        """Returns when the next status request for an entry is due."""
        tuning, tracker = self._tuning, entry.tracker
        requested_at, awaited_at = tracker.requested_at, tracker.awaited_at
        backed_off = self._status_requests.backed_off
        interval = backed_off(self._interval(entry.group, now)) * entry.jitter
        if entry.requests_in_flight >= tuning.max_requests_each:
            return math.inf
        if entry.requests_in_flight:
            return requested_at + max(interval, tuning.answer_timeout)
        if entry.needs_confirmation:  # many webhooks for one deployment are no reason to hurry
            return requested_at + backed_off(min(tuning.webhook_list_delay, self.policy.interval))
        if self._is_found_by_lists(entry.group):
            check = self.policy.full_list_interval
            if entry.is_listed and self._lists.rows_have_status:
                check *= tuning.listed_factor
            elif not self._lists.is_verified:
                check = min(check, tuning.unverified_interval)
            return max(requested_at, awaited_at) + max(check * entry.jitter, interval)
        first = awaited_at + self.policy.first_delay * entry.jitter
        return max(first, requested_at + interval)

    def _send_due_status_requests(self, now: float) -> float:
        while (first := self._status_queue.first(now)) < math.inf:
            due = max(first, self._status_requests.permitted_at(self.client.limits, now))
            if due > now:
                return due
            self._begin_status_request(self._status_queue.take(now), now)
        return math.inf

    def _send_check_if_due(self, now: float) -> float:
        """Checks an entry that lists cover while their freshness is unknown."""
        entry = self._next_check()
        if entry is None:
            return math.inf
        tuning, requests = self._tuning, self._status_requests
        interval = self._interval(entry.group, now)
        count = min(len(self._entries), tuning.checks_up_to)
        gap = requests.backed_off(tuning.check_factor * interval)
        gap *= math.sqrt(_FEWEST / max(_FEWEST, count))
        unanswered = tuning.answer_timeout if entry.requests_in_flight else 0.0
        due = max(
            self._checked_at + gap,
            entry.tracker.awaited_at + tuning.first_check_delay,
            entry.tracker.requested_at + max(unanswered, interval),
            requests.permitted_at(self.client.limits, now),
        )
        if now < due:
            return due
        self._checked_at = now
        self._begin_status_request(entry, now)
        return now + gap

    def _next_check(self) -> PollEntry | None:
        """Returns the entry that lists cover and whose last status request is longest ago."""
        if self._freshness.state is not Freshness.UNKNOWN:
            return None
        groups = filter(self._is_found_by_lists, (self._ready_group, self._any_group))
        entries = [entry for group in groups if (entry := group.next_check())]
        return min(
            entries,
            key=lambda one: max(one.tracker.requested_at, one.tracker.awaited_at),
            default=None,
        )

    # ── requests ─────────────────────────────────────────────────────────────────────────────────

    def _begin_status_request(self, entry: PollEntry, now: float) -> None:
        tracker = entry.tracker
        was_confirmation, entry.needs_confirmation = entry.needs_confirmation, False
        was_pending, tracker.webhook_pending = tracker.webhook_pending, False
        tracker.requested_at = now
        tracker.status_requests += 1
        entry.requests_in_flight += 1
        entry.group.note_status_request(entry)
        self._schedule_status(entry)
        source: ChangeSource = "webhook" if was_pending else "status"
        request = self._request_status(entry, now, source, was_confirmation=was_confirmation)
        task = self._status_requests.begin(request, now)

        def end(task: asyncio.Task[bool]) -> None:
            entry.requests_in_flight -= 1
            if task.cancelled() or task.exception() is not None or not task.result():
                tracker.webhook_pending |= was_pending  # still to be answered
                entry.needs_confirmation |= was_pending or was_confirmation
            try:
                if entry.queue_number >= 0:
                    self._schedule_status(entry)
            except Exception as error:  # noqa: BLE001 - no waiter may wait for ever
                self._fail_all(error)

        # A callback: a task that is cancelled before it starts runs no code of its own.
        task.add_done_callback(end)

    async def _request_status(
        self, entry: PollEntry, now: float, source: ChangeSource, *, was_confirmation: bool
    ) -> bool:
        """Asks for the status of an entry. Returns whether that is answered."""
        tracker, reader = entry.tracker, self._reader
        try:
            deployment = await self.client.call(
                GET_DEPLOYMENT, path={"request_id": entry.request_id}, options=_CALL_OPTIONS
            )
        except ClientClosed:
            pass  # each waiter raises ClientClosed itself
        except Exception as error:  # noqa: BLE001 - no waiter may wait for ever
            if isinstance(error, Refused) and await self._is_missing(tracker, error):
                self._status_requests.note_answer(loop_time())
                if reader.apply_missing(entry, error, source):
                    self._expect_in_lists(entry, by_status=not was_confirmation)
            elif self._is_transient(error, [entry], self._status_requests):
                return False
            else:
                tracker.fail(error)
        else:
            self._status_requests.note_answer(loop_time())
            if not deployment.current_status.is_ready:
                entry.not_ready_at = now
            if reader.read_status(entry, deployment, source):
                self._expect_in_lists(entry, by_status=not was_confirmation)
            entry.checked_at = max(entry.checked_at, now)
        return True

    def _expect_in_lists(self, entry: PollEntry, *, by_status: bool) -> None:
        """Notes that lists must show what a status request has found, if they are asked."""
        status = entry.tracker.status
        is_ready = status == Status.READY
        if status is None or not (is_ready or status.is_final):
            return
        if not self._is_covered_by_lists(entry.group):
            return
        if is_ready and entry.tracker.is_stopped:  # the next list may omit it
            return
        if is_ready:
            self._lists.probe_ids.append(entry.request_id)
        self._freshness.expect(
            entry.request_id,
            loop_time(),
            by_status=by_status or is_ready,
            has_ended=not is_ready,
            was_listed=entry.was_listed,
        )
        if self._freshness.state is Freshness.UNKNOWN:  # the next list decides
            self._checked_at = entry.group.requested_at = -math.inf
            self._wakeup.set()

    async def _is_missing(self, tracker: DeploymentTracker, error: Refused) -> bool:
        """Whether an answer means that the API does not know a deployment.

        Where the words are not known to be the API's, the list must not show the deployment.
        """
        if error.is_certain or not may_mean_missing(error):
            return may_mean_missing(error)
        if loop_time() < tracker.believe_404_from:
            return False
        filters = [Filter("request_id", "in", [tracker.request_id])]
        query = {"query": list_query(filters, ()), "page": 1, "limit": self._tuning.page_size}
        try:
            page = await self.client.call(LIST_DEPLOYMENTS, query=query, options=_CALL_OPTIONS)
        except EdgegapError:
            return False
        is_listed = any(row.request_id == tracker.request_id for row in page.data)
        return not is_listed and is_last_page(page)

    def _begin_list_request(
        self, entries: Sequence[PollEntry], now: float, *, is_full: bool
    ) -> None:
        how = self._lists.mode, self._lists.max_id_bytes
        probes = tuple(self._lists.probe_ids)  # `take` has left room for them
        ended = tuple(self._freshness.ended_ids) if is_full else ()
        request = self._request_list(entries, probes, ended, now, how, is_full=is_full)
        self._list_requests.begin(request, now)

    async def _request_list(
        self,
        entries: Sequence[PollEntry],
        probes: Sequence[str],
        ended: Sequence[str],
        now: float,
        how: tuple[ListMode, int],
        *,
        is_full: bool,
    ) -> None:
        """Asks the list about entries; about the next page if there are none."""
        page_number = 1 if entries else self._lists.page
        asked = {entry.request_id: entry for entry in entries}
        pending = {entry.request_id for entry in entries if entry.tracker.webhook_pending}
        for entry in entries:
            entry.listed_at = now
            entry.lists_in_flight += 1
            entry.tracker.webhook_pending = False
        ids = dict.fromkeys((*asked, *probes, *ended))
        filters = [Filter("request_id", "in", list(ids))] if entries else []
        if not is_full:
            filters.append(Filter("status", "eq", "ready"))
        limit = self._tuning.page_size
        query = {"query": list_query(filters, ()), "page": page_number, "limit": limit}
        is_answered = False
        try:
            page = await self.client.call(LIST_DEPLOYMENTS, query=query, options=_CALL_OPTIONS)
        except ClientClosed:
            pass  # each waiter raises ClientClosed itself
        except Exception as error:  # noqa: BLE001 - polling goes on without lists
            if not self._is_transient(error, entries, self._list_requests):
                self._note_list_refusal(error, how)
        else:
            is_answered = True
            self._list_requests.note_answer(loop_time())
            freshness = self._freshness.state
            self._freshness.read(page, (*probes, *ended), loop_time())
            if how[0] is self._lists.mode:
                self._learn(page, ids if entries else (), probes, is_full=is_full)
            found = self._reader.read_page(page, asked, pending, now, is_full=is_full)
            self._after_list(page, found, is_full=is_full)
            if self._freshness.state is not freshness:
                self._schedule_all()
        finally:
            for entry in entries:
                entry.lists_in_flight -= 1
                if not is_answered and entry.request_id in pending:
                    entry.tracker.webhook_pending = True  # still to be answered
                if entry.tracker.webhook_pending and entry.queue_number >= 0:
                    self.poll_now(entry.tracker)  # a webhook came meanwhile

    def _note_list_refusal(self, error: Exception, how: tuple[ListMode, int]) -> None:
        self._list_requests.note_answer(loop_time())  # a refusal is an answer
        if how == (self._lists.mode, self._lists.max_id_bytes):  # else an earlier one said so
            self._lists.note_refusal(error)
            self._change_list_mode()

    def _after_list(
        self, page: DeploymentPage, found: Sequence[PollEntry], *, is_full: bool
    ) -> None:
        arrived, probes = loop_time(), list[str]()
        for entry in found:
            self._freshness.note_found(arrived - entry.not_ready_at)
            if not entry.tracker.is_stopped:
                self._freshness.expect(entry.request_id, arrived, by_status=False)
                probes.append(entry.request_id)
        if not is_full:
            least = self._tuning.nearly_full_share * self._lists.page_size
            self._ready_group.is_nearly_full = len(page.data) >= least
            return
        # The next list, which may be a filtered one, must show them too.
        self._lists.probe_ids.extend(probes)

    def _learn(
        self,
        page: DeploymentPage,
        asked: Collection[str],
        probes: Sequence[str],
        *,
        is_full: bool,
    ) -> None:
        known = self._lists.knowledge
        if asked:
            self._lists.read(page, asked, probes, is_full=is_full)
        else:
            self._lists.turn_page(page)
        if known != self._lists.knowledge:
            self._change_list_mode()

    def _change_list_mode(self) -> None:
        """Uses for a while what was just learnt of lists."""
        self._start_over_at = self._lists.valid_until(loop_time())
        self._schedule_all()

    def _is_transient(
        self, error: Exception, entries: Sequence[PollEntry], requests: InFlightRequests
    ) -> bool:
        """Whether the next request may succeed; then the failure is noted."""
        if not isinstance(error, CallError) or not is_transient(error):
            return False
        requests.note_failure(error)
        for entry in entries:
            entry.tracker.last_failure = error
        return True


class _StopObserver(Observer):
    """Tells a poller which deployments its client stops."""

    def __init__(self, poller: StatusPoller) -> None:
        self._poller = poller

    def call_started(self, call: ObservedCall) -> None:
        """Notes a stop before it is sent, as its answer may be lost."""
        if call.operation in _STOPS:
            self._poller.stop_begins(call.request_id)
