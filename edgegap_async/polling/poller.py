"""The look-out: one task that asks about every deployment somebody waits for.

Theory. The API answers 20 status looks a second, each about one deployment, and 10 lists, each
about as many as fit in a URL. So one who waits alone is looked at by status; two or more share a
**sweep**: the list, filtered by `request_id in […]` and, where all they wait for is READY, by
`status eq ready`, so that only what changed comes back. A row that says ready has address and
ports: it is told at once.

How often. A sweep costs a request and finds something with a chance that grows with the number who
wait, so the best gap between sweeps shrinks with its square root: half a second for one, a fifth
for ten. Those who were asked about longest ago go first, so nobody starves. Where nobody new has
come for a while the gaps grow, and where webhooks prove to come they are long from the start.

What a row may not tell. Why it is in ERROR, the status alone tells; and lists may hide what is in
ERROR, and do hide what is over. So every few seconds there is a **roll call**, a sweep for all that
some ids have become; as long as few wait, every sweep is one. Who is in ERROR there, or not there
any more, gets a status look at once. Who was never listed gets one every few seconds.

What may not work, `listing` learns: if the list cannot be asked in one way it is asked in another,
and if in none, all are looked at by status, as fast as its limit allows.

A look that fails for a while (network, 429, 5xx) ends no wait; while looks fail, they come more
rarely. So do lists, and those who wait do not wait for them: as long as lists fail, or do not
answer, all are looked at by status as if each were alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Sequence
from typing import Final
from weakref import WeakValueDictionary

from edgegap_async.api.codec import list_query
from edgegap_async.api.models import Deployment, DeploymentPage, DeploymentRow, Status
from edgegap_async.api.operations import GET_DEPLOYMENT, LIST_DEPLOYMENTS
from edgegap_async.api.requests import Filter
from edgegap_async.api.validation import check_segment
from edgegap_async.errors import (
    CallError,
    ClientClosed,
    Gone,
    NoAnswer,
    NotFound,
    NotSent,
    RateLimited,
    ServerError,
    UnreadableAnswer,
)
from edgegap_async.http.api_client import ApiClient
from edgegap_async.http.call_options import CallOptions
from edgegap_async.http.rate_limits import Priority

from .in_flight import InFlightRequests
from .list_strategy import PAGE_SIZE, ListMode, ListStrategy, as_deployment, is_whole
from .schedule import ANSWER_TIMEOUT, ListGroup, PollEntry, PollingPolicy, StatusQueue
from .stats import DelayCounter, PollerStats
from .tracker import ChangeSource, DeploymentTracker

__all__ = ["StatusPoller"]

logger = logging.getLogger(__name__)

_MIN_LIST_INTERVAL: Final = 0.2  # seconds between sweeps that hold everybody
_WEBHOOK_LIST_DELAY: Final = (
    0.15  # seconds after a sweep that one may follow which a webhook asks for
)
_FULL_LISTS_UP_TO: Final = 60  # as long as no more wait, every sweep is a roll call
_FULL_LIST_INTERVAL: Final = 1.0  # seconds at least between roll calls where more do,
_FULL_LIST_BATCH: Final = 1000  # of so many, while they would take the room of those who are READY
_BYTES_PER_ID: Final = 20  # bytes of a URL, about, that each takes
_LIST_COST: Final = 1.35  # is a sweep than a status look; the best gap grows with the square root
_MAX_LISTS: Final = 4  # under way at once
_MAX_STATUS_REQUESTS: Final = 8  # likewise, by status
_MAX_REQUESTS_EACH: Final = 2  # as often is a look begun whose answer does not come
_UNPROVEN_INTERVAL: Final = (
    2.0  # seconds between status looks at one that is swept by a list not proven yet
)
_LISTED_FACTOR: Final = 8  # times as rare are status looks at one that the roll calls tell of
_MAX_WEBHOOK_SCORE: Final = 10  # webhooks, beyond which more proof counts no more
_SILENCE_THRESHOLD: Final = (
    10  # deployments found READY by looking, after which somebody should know
)

# The poller decides itself when to send a failed request again.
_CALL_OPTIONS: Final = CallOptions(priority=Priority.STATUS, once=True)
_TRANSIENT = (NotSent, NoAnswer, RateLimited, ServerError, UnreadableAnswer)
"""What may be otherwise at the next look."""


class StatusPoller:
    """Looks at the deployments of one client, for all who wait. It is `client.watch`.

    Args:
        client: whose they are.
        policy: how often.
    """

    def __init__(self, client: ApiClient, policy: PollingPolicy) -> None:
        self.client = client
        self.policy = policy
        self._known = WeakValueDictionary[str, DeploymentTracker]()
        self._awaited: dict[str, PollEntry] = {}
        self._for_ready, self._for_any = ListGroup(only_ready=True), ListGroup(only_ready=False)
        self._turns = StatusQueue(self._due)
        self._task: asyncio.Task[None] | None = None
        self._stir = asyncio.Event()
        self._looks = InFlightRequests(GET_DEPLOYMENT, _MAX_STATUS_REQUESTS, self._ended)
        self._lists = InFlightRequests(LIST_DEPLOYMENTS, _MAX_LISTS, self._ended)
        self._listing = ListStrategy()
        self._asks_anew_at = math.inf  # as if nothing had been learnt of the list
        self._lists_help = True  # as against that they fail, or do not answer
        self._page_at = -math.inf
        self._proof = 0  # that webhooks come, as against that they do not
        self._unheard: list[float] | None = []  # when READY was found and no webhook had come yet
        self._tally = DelayCounter()

    def __repr__(self) -> str:
        return f"<LookOut: {len(self._awaited)} waited for>"

    @property
    def stats(self) -> PollerStats:
        """What it has done so far."""
        return self._tally.stats(
            waiting=len(self._awaited),
            status_requests=self._looks.count,
            list_requests=self._lists.count,
            webhooks_active=self._proof > 0,
            list_mode=self._listing.way.name.lower(),
        )

    # ── who is waited for ────────────────────────────────────────────────────────────────────────

    def tracker(
        self, request_id: str, *, expects_webhook: bool = False, not_found_until: float = -math.inf
    ) -> DeploymentTracker:
        """The deployment of that id: the same for all who hold it, so that they share the looks.

        Raises:
            InvalidRequest: no deployment can have that id.
        """
        check_segment("request_id", request_id)  # one that cannot be would spoil a whole sweep
        tracker = self._known.get(request_id)
        if tracker is not None:
            tracker.not_found_until = max(tracker.not_found_until, not_found_until)
        else:
            tracker = DeploymentTracker(
                self, request_id, expects_webhook=expects_webhook, not_found_until=not_found_until
            )
            self._known[request_id] = tracker
        return tracker

    def waiters_changed(self, tracker: DeploymentTracker) -> None:
        """Looks at it as long as it `is_awaited`; to be told whenever that has changed."""
        one = self._awaited.get(tracker.request_id)
        pool = self._for_ready if tracker.awaits_only_ready else self._for_any
        if one is not None:
            if tracker.is_awaited and one.pool is pool:
                return
            self._leave(one)
        elif tracker.is_awaited:
            with self.client.until_closed():  # or nobody would look
                now = self._now()
            tracker.awaited_at = min(tracker.awaited_at, now)
            one = PollEntry(tracker, now, pool)
        if one is not None and tracker.is_awaited:
            self._awaited[tracker.request_id] = one
            pool.add(one)
            self._line_up(one)
            if tracker.webhook_pending:
                self.poll_now(tracker)
            self._stir.set()
            if self._task is None or self._task.done():
                self._task = asyncio.create_task(self._keep_looking())
        elif not self._awaited:
            self._rest()

    def _leave(self, one: PollEntry) -> None:
        del self._awaited[one.request_id]
        one.turn = -1
        one.pool.remove(one)
        for pool in (self._for_ready, self._for_any):
            if len(pool.members) == 1 and (
                pool is one.pool or len(self._awaited) == _FULL_LISTS_UP_TO
            ):
                self._line_up(*pool.members.values())  # it is swept no more

    def _rest(self) -> None:
        """Nobody waits any more."""
        self._turns.clear()
        self._looks.cancel()
        self._lists.cancel()
        if self._task is not None:
            self._task.cancel()
        self._task = None

    def poll_now(self, tracker: DeploymentTracker) -> None:
        """Makes the next look at it come at once."""
        one = self._awaited.get(tracker.request_id)
        if tracker.webhook_pending:
            self._unheard = None
        if one is None:
            is_of_use = self._now() < tracker.ready_at + self.policy.webhook_interval
            if tracker.expects_webhook and tracker.webhook_pending and is_of_use:
                tracker.expects_webhook = False  # for READY, that is, and proves nothing more
                self._proof = min(self._proof + 2, _MAX_WEBHOOK_SCORE)
            return
        if self._is_swept(one.pool) and self._lists_help:
            one.pool.is_urgent = True
            one.pool.go_first(one)
        else:
            one.is_doubted = True
            self._line_up(one)
        self._stir.set()

    # ── whose turn it is ─────────────────────────────────────────────────────────────────────────

    async def _keep_looking(self) -> None:
        try:
            with self.client.until_closed():
                while True:
                    self._stir.clear()
                    due = self._send_what_is_due(self._now())
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout_at(due if due < math.inf else None):
                            await self._stir.wait()
        except ClientClosed:
            pass  # all who wait are told by the client
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody may wait for ever
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        awaited, self._awaited = self._awaited, {}  # first, or each would be lined up meanwhile
        self._for_ready, self._for_any = ListGroup(only_ready=True), ListGroup(only_ready=False)
        for one in awaited.values():
            one.turn = -1
            one.tracker.fail(error)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A request has ended, and another may be begun."""
        self._stir.set()
        if not task.cancelled() and isinstance(error := task.exception(), Exception):
            self._give_up(error)

    def _send_what_is_due(self, now: float) -> float:
        """Sends it, and tells the loop time at which more may be due."""
        helped, self._lists_help = self._lists_help, now < self._lists.doubtful_at()
        if now >= self._asks_anew_at:
            self._listing, self._asks_anew_at = self._listing.anew(now), math.inf
            self._line_all_up()
        elif helped and not self._lists_help:
            self._line_all_up()
        if self._listing.way is ListMode.BY_PAGE:
            swept = self._turn_the_page(now)
        else:
            swept = min(self._sweep(self._for_ready, now), self._sweep(self._for_any, now))
        return min(swept, self._look_at_those_due(now))

    def _is_swept(self, pool: ListGroup) -> bool:
        """Whether the members of a pool are asked for together."""
        works = self._listing.way < ListMode.BY_PAGE
        few = (
            0 if len(self._awaited) > _FULL_LISTS_UP_TO else 1
        )  # beside many a look of its own would be late
        return works and len(pool.members) > few and self._tells_of(pool)

    def _tells_of(self, pool: ListGroup) -> bool:
        """Whether a row tells all that the members of a pool wait for."""
        return pool.only_ready or self._listing.rows_have_status

    def _gap(self, pool: ListGroup, now: float) -> float:
        """Seconds between looks at one of these, if it were alone."""
        by_webhook = self._proof > 0 and pool.all_expect_webhooks
        return self.policy.interval_at(now - pool.newest, expects_webhook=by_webhook)

    def _sweep(self, pool: ListGroup, now: float) -> float:
        if not self._is_swept(pool):
            return math.inf
        count = len(pool.members)
        is_roll_call = self._is_time_for_roll_call(pool, now)
        # Where one list cannot hold all, each needs its turn as often.
        share = min(1.0, self._listing.longest / (_BYTES_PER_ID * count))
        # Where many were told just now, the others are looked for as soon as those were.
        many = max(count, pool.last_count)
        gap = max(
            self._lists.eased(self._gap(pool, now)) * math.sqrt(_LIST_COST / many),
            self._lists.eased(min(_MIN_LIST_INTERVAL, self.policy.interval) * share),
        )
        if pool.is_urgent:
            gap = min(gap, self._lists.eased(_WEBHOOK_LIST_DELAY))
        due = max(pool.swept_at + gap, self._lists.permitted(self.client.limits, now))
        if now < due:
            return due
        most = self._listing.rows - len(self._listing.proofs) if is_roll_call else count
        taken = pool.take(now, most, self._listing.longest, is_roll_call=is_roll_call)
        if not taken:  # all are being asked for
            return now + max(gap, _WEBHOOK_LIST_DELAY)
        pool.swept_at, pool.last_count, pool.is_urgent = now, count, False
        if is_roll_call:
            pool.called_at = now
        self._begin_to_ask(taken, now, is_roll_call=is_roll_call)
        return now + gap

    def _is_time_for_roll_call(self, pool: ListGroup, now: float) -> bool:
        count = len(pool.members)
        if self._listing.way is ListMode.BY_ID or not pool.only_ready or count <= _FULL_LISTS_UP_TO:
            return True
        if pool.called_at >= pool.swept_at:
            return False  # however rare they are, every other one holds all
        share = min(1.0, self._listing.rows / count)
        least = min(_FULL_LIST_INTERVAL, self.policy.full_list_interval)
        if pool.is_full:
            least = max(self.policy.full_list_interval, least * count / _FULL_LIST_BATCH)
        return now >= pool.called_at + max(self.policy.full_list_interval * share, least)

    def _turn_the_page(self, now: float) -> float:
        if len(self._awaited) == 1:
            return math.inf
        # What the next page is, the one under way tells, unless it hangs.
        gap = ANSWER_TIMEOUT if len(self._lists) else min(_WEBHOOK_LIST_DELAY, self.policy.interval)
        permitted = self._lists.permitted(self.client.limits, now)
        due = max(self._page_at + self._lists.eased(gap), permitted)
        if now < due:
            return due
        self._page_at = now
        self._begin_to_ask((), now, is_roll_call=True)
        return now + ANSWER_TIMEOUT

    def _line_up(self, one: PollEntry) -> None:
        """Puts it in the line for status looks; an earlier place of it counts no more."""
        is_check = self._is_swept(one.pool) and self._lists_help
        self._turns.add(one, self._now(), is_check=is_check)

    def _due(self, one: PollEntry, now: float) -> float:
        """When the next status look at it is due."""
        looked_at = one.tracker.requested_at
        gap = self._looks.eased(self._gap(one.pool, now)) * one.jitter
        if one.looking:
            return (
                looked_at + max(gap, ANSWER_TIMEOUT)
                if one.looking < _MAX_REQUESTS_EACH
                else math.inf
            )
        if one.is_doubted:  # however often it is rung for, others need their looks too
            return looked_at + self._looks.eased(min(_WEBHOOK_LIST_DELAY, self.policy.interval))
        if self._is_swept(one.pool) and self._lists_help:
            check = self.policy.full_list_interval
            if one.is_listed and self._listing.rows_have_status:
                check *= _LISTED_FACTOR
            elif not self._listing.is_proven:
                check = min(check, _UNPROVEN_INTERVAL)
            return max(looked_at, one.tracker.awaited_at) + max(check * one.jitter, gap)
        return max(one.tracker.awaited_at + self.policy.first_delay * one.jitter, looked_at + gap)

    def _look_at_those_due(self, now: float) -> float:
        while (first := self._turns.first(now)) < math.inf:
            due = max(first, self._looks.permitted(self.client.limits, now))
            if due > now:
                return due
            self._begin_to_look(self._turns.take(now), now)
        return math.inf

    # ── looks ────────────────────────────────────────────────────────────────────────────────────

    def _begin_to_look(self, one: PollEntry, now: float) -> None:
        was_doubted, one.is_doubted = one.is_doubted, False
        one.tracker.requested_at = now
        one.tracker.status_requests += 1
        one.looking += 1
        self._line_up(one)
        self._looks.begin(self._look(one, now, was_doubted=was_doubted), now)

    async def _look(self, one: PollEntry, now: float, *, was_doubted: bool) -> None:
        watched = one.tracker
        rung, watched.webhook_pending = watched.webhook_pending, False
        try:
            deployment = await self.client.call(
                GET_DEPLOYMENT,
                path={"request_id": one.request_id},
                options=_CALL_OPTIONS,
            )
        except (Gone, NotFound) as error:
            self._looks.answered(self._now())
            watched.last_failure = None
            try:
                told_by: ChangeSource = "webhook" if rung else "status"
                if watched.mark_missing(error, self._now(), told_by):
                    self._count(one, told_by)
            except CallError:
                watched.fail(error)
        except ClientClosed:
            pass  # all who wait are told by the client
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody may wait for ever
            if not self._passes(error, [one], self._looks):
                watched.fail(error)
            elif rung or was_doubted:  # it is not heard yet
                watched.webhook_pending = watched.webhook_pending or rung
                one.is_doubted = True
        else:
            self._looks.answered(self._now())
            is_news = self._found(one, deployment, "webhook" if rung else "status")
            if is_news and self._is_swept(one.pool) and deployment.current_status.is_ready:
                self._listing.proofs.append(one.request_id)
            one.seen_at = max(one.seen_at, now)
        finally:
            one.looking -= 1
            if one.turn >= 0:
                self._line_up(one)

    def _begin_to_ask(self, taken: Sequence[PollEntry], now: float, *, is_roll_call: bool) -> None:
        way = self._listing.way, self._listing.longest
        proofs = tuple(self._listing.proofs)  # there is room for them, by now
        asking = self._ask_for(taken, proofs, now, way, is_roll_call=is_roll_call)
        self._lists.begin(asking, now)

    async def _ask_for(
        self,
        taken: Sequence[PollEntry],
        proofs: Sequence[str],
        now: float,
        way: tuple[ListMode, int],
        *,
        is_roll_call: bool,
    ) -> None:
        """Asks the list: for those, or for a page if they are none."""
        page = 1 if taken else self._listing.page
        asked = {one.request_id: one for one in taken}
        rung = {one.request_id for one in taken if one.tracker.webhook_pending}
        for one in taken:
            one.swept_at = now
            one.sweeping += 1
            one.tracker.webhook_pending = False
        filters = [Filter("request_id", "in", [*asked, *proofs])] if taken else []
        if not is_roll_call:
            filters.append(Filter("status", "eq", "ready"))
        try:
            answer = await self.client.call(
                LIST_DEPLOYMENTS,
                query={"query": list_query(filters, ()), "page": page, "limit": PAGE_SIZE},
                options=_CALL_OPTIONS,
            )
        except ClientClosed:
            pass  # all who wait are told by the client
        except Exception as error:  # noqa: BLE001 - a list that cannot be asked is not needed
            for request_id in rung:
                asked[request_id].tracker.webhook_pending = True  # it is not heard yet
            if not self._passes(error, taken, self._lists):
                self._refused(error, way)
        else:
            self._lists.answered(self._now())
            if way[0] is self._listing.way:
                self._learn(answer, asked, proofs, is_roll_call=is_roll_call)
            for row in answer.data:
                told_by: ChangeSource = "webhook" if row.request_id in rung else "list"
                self._read(row, told_by, is_roll_call=is_roll_call)
            self._miss(answer, asked, rung, now, is_roll_call=is_roll_call)
        finally:
            for one in taken:
                one.sweeping -= 1
                if one.tracker.webhook_pending and one.turn >= 0:
                    self.poll_now(one.tracker)  # it was rung for meanwhile

    def _refused(self, error: Exception, way: tuple[ListMode, int]) -> None:
        """The list cannot be asked so; unless that was known by now."""
        self._lists.answered(self._now())
        if way == (self._listing.way, self._listing.longest):
            self._listing.refused(error)
            self._ask_otherwise()

    def _learn(
        self,
        page: DeploymentPage,
        asked: dict[str, PollEntry],
        proofs: Sequence[str],
        *,
        is_roll_call: bool,
    ) -> None:
        known = self._listing.knowledge
        if asked:
            self._listing.read(page, asked, proofs, is_roll_call=is_roll_call)
        else:
            self._listing.turn(page)
        if known != self._listing.knowledge:
            self._ask_otherwise()

    def _read(self, row: DeploymentRow, told_by: ChangeSource, *, is_roll_call: bool) -> None:
        """Tells what a row tells."""
        one = self._awaited.get(row.request_id)
        if one is None:
            return  # told just now, waited for no more, or somebody else's
        one.is_listed = True
        ready = Status.READY if row.ready else None
        status = ready if row.status is None else row.status
        has_address = bool(row.ports) and (row.fqdn is not None or row.public_ip is not None)
        is_rung = told_by == "webhook"
        if is_rung and not row.ready:
            self._doubt(one, is_rung=False)  # the list may not have heard yet
        if status is None:
            return
        if status.is_ready is not row.ready or (row.ready and not has_address):
            self._doubt(one, is_rung=is_rung)  # the status tells how it is, and where
        elif status == one.tracker.status:
            pass  # and a status look knows more of it than a row
        elif status == Status.ERROR:
            self._doubt(one, is_rung=is_rung)  # why, the status alone tells
        else:
            is_news = self._found(one, as_deployment(row, status), told_by)
            if (
                is_news
                and status.is_ready
                and is_roll_call
                and len(one.pool.members) > _FULL_LISTS_UP_TO
            ):
                self._listing.proofs.append(row.request_id)

    def _miss(
        self,
        page: DeploymentPage,
        asked: dict[str, PollEntry],
        rung: set[str],
        now: float,
        *,
        is_roll_call: bool,
    ) -> None:
        """Draws conclusions from what was asked for and did not come."""
        ids = {row.request_id for row in page.data}
        if not is_roll_call:
            self._for_ready.is_full = 4 * len(ids) >= self._listing.rows
        for request_id, one in reversed(asked.items()):
            if self._awaited.get(request_id) is not one:
                continue  # told just now, or waited for no more
            one.tracker.last_failure = None
            is_missing = request_id not in ids
            if is_missing and not is_whole(page):
                one.pool.go_first(one)
                one.pool.is_urgent = True
                continue
            one.seen_at = max(one.seen_at, now)
            is_rung = request_id in rung
            is_doubtful = is_missing and ((is_roll_call and one.is_listed) or is_rung)
            if is_doubtful and self._doubt(one, is_rung=is_rung):
                one.is_listed = False  # if it is there all the same, lists do not hold it for now

    def _doubt(self, one: PollEntry, *, is_rung: bool) -> bool:
        """Has its status looked at, unless that was done just now; whether it has."""
        was_just_done = one.looking or self._now() < one.tracker.requested_at + self.policy.interval
        if was_just_done and not is_rung:  # a webhook tells what is newer
            return False
        one.is_doubted = True
        self._line_up(one)
        return True

    def _found(self, one: PollEntry, deployment: Deployment, told_by: ChangeSource) -> bool:
        """Tells those who wait; whether it was news to them."""
        watched = one.tracker
        watched.last_failure = None
        if not watched.update(deployment, told_by):
            return False
        self._count(one, told_by)
        if deployment.current_status.is_ready and watched.expects_webhook:
            watched.ready_at = self._now()
            step = 1 if told_by == "webhook" else -1
            self._proof = max(-1, min(self._proof + step, _MAX_WEBHOOK_SCORE))
            self._warn_of_silence(watched.ready_at)
        return True

    def _warn_of_silence(self, now: float) -> None:
        """READY was found though no webhook has come; once it is clear that none does, says so."""
        if self._unheard is None:
            return
        self._unheard.append(now)
        # Many may be found at once, all just before their webhooks.
        if (
            len(self._unheard) >= _SILENCE_THRESHOLD
            and now >= self._unheard[0] + self.policy.webhook_interval
        ):
            logger.warning(
                "%d deployments became READY and no webhook has come, though their URLs were handed"
                " to the API: the receiver's public_url may not be reachable; looks go on as"
                " without",
                len(self._unheard),
            )
            self._unheard = None

    def _count(self, one: PollEntry, told_by: ChangeSource) -> None:
        """Keeps the statistics."""
        status = one.tracker.status
        if status is not None and (status.is_ready or status.is_terminal):
            self._tally.add(told_by, self._now() - one.seen_at)

    def _passes(
        self, error: Exception, asked: Sequence[PollEntry], asking: InFlightRequests
    ) -> bool:
        """Whether a failure may be otherwise next time; then it is noted."""
        if not isinstance(error, _TRANSIENT):
            return False
        if isinstance(error, NotSent) and not error.retry_may_help:
            return False  # a certificate that does not match will not match later
        asking.failed(error)
        for one in asked:
            one.tracker.last_failure = error
        return True

    def _ask_otherwise(self) -> None:
        """The list is asked in another way from now on, for a while."""
        self._asks_anew_at = self._listing.believed_until(self._now())
        self._line_all_up()

    def _line_all_up(self) -> None:
        """After the list helps more, or less, than before."""
        for one in self._awaited.values():
            self._line_up(one)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
