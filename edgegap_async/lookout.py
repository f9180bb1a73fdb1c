"""The look-out: one task that asks about every deployment somebody waits for.

Theory. The API answers 20 status looks a second, each about one deployment, and 10 lists, each
about as many as fit in a URL. So one who waits alone is looked at by status; two or more share a
**sweep**: the list, filtered by `request_id in […]` and, where all they wait for is READY, by
`status eq ready`, so that only what changed comes back. A row that says ready has address and
ports: it is told at once.

How often. A sweep costs a request and finds something with a chance that grows with the number who
wait, so the best gap between sweeps shrinks with its square root: half a second for one, a sixth
for ten. Those who were asked about longest ago go first, so nobody starves. Where nobody new has
come for a while the gaps grow, and where webhooks prove to come they are long from the start.

What a row may not tell. Why it is in ERROR, the status alone tells; and lists may hide what is in
ERROR, and do hide what is over. So every few seconds there is a **roll call**, a sweep for all that
some ids have become; as long as few wait, every sweep is one. Who is in ERROR there, or not there
any more, gets a status look at once. Who was never listed gets one every few seconds.

What may not work, `listing` learns: if the list cannot be asked in one way it is asked in another,
and if in none, all are looked at by status, as fast as its limit allows.

A look that fails for a while (network, 429, 5xx) ends no wait; while looks fail, they come more
rarely.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import logging
import math
from collections.abc import Coroutine, Sequence
from typing import Any, Final
from weakref import WeakValueDictionary

import attrs

from .awaited import PATIENCE, Awaited, Pace, Pool
from .client import ApiClient
from .codec import list_query
from .endpoints import GET_DEPLOYMENT, LIST_DEPLOYMENTS
from .errors import (
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
from .limits import Priority
from .listing import Listing, Way, is_whole
from .models import Deployment, DeploymentPage, DeploymentRow, Status
from .requests import Filter
from .watch import ToldBy, Watched

__all__ = ["LookOut", "WatchStats"]

logger = logging.getLogger("edgegap_async.lookout")

_FASTEST: Final = 0.2  # seconds between sweeps that hold everybody
_RUNG: Final = 0.15  # seconds after a sweep that one may follow which a webhook asks for
_FEW: Final = 60  # as long as no more wait, every sweep is a roll call
_ROLL_EVERY: Final = 1.0  # seconds at least between roll calls where more do
_ROWS: Final = 100  # a page
_ID: Final = 20  # bytes of a URL, about, that each takes
_DEARER: Final = 1.35  # is a sweep than a status look; the best gap grows with the square root
_SWEEPS: Final = 4  # under way at once
_LOOKS: Final = 8  # likewise, by status
_UNPROVEN: Final = 2.0  # seconds between status looks at one that is swept by a list not proven yet
_LISTED: Final = 8  # times as rare are status looks at one that the roll calls tell of
_LONGEST_TROUBLE: Final = 5.0  # seconds between looks while they fail
_MOST_FAILURES: Final = 10
_MOST_PROOF: Final = 10  # webhooks, beyond which more proof counts no more

_PASSING = (NotSent, NoAnswer, RateLimited, ServerError, UnreadableAnswer)
"""What may be otherwise at the next look."""


@attrs.frozen(kw_only=True)
class WatchStats:
    """What a look-out has done so far."""

    waiting: int
    """Deployments that somebody waits for now."""
    looks: int
    """Status looks."""
    sweeps: int
    """Lists."""
    told_by_look: int
    """READY, ERROR or TERMINATED that a status look found."""
    told_by_list: int
    """Likewise, that a list told."""
    told_by_webhook: int
    """Likewise, by a look or a list that a webhook asked for."""
    mean_lag: float
    """Seconds between the look before and the one that found it: it was told no later than that."""
    longest_lag: float
    """The longest of those."""
    webhooks_proven: bool
    """Whether webhooks come, so that looks are rare."""
    list_asked: str
    """How the list is asked: `changed`, `by_id`, `by_page` or `not_at_all`."""


class LookOut:
    """Looks at the deployments of one client, for all who wait. It is `client.watch`.

    Args:
        client: whose they are.
        pace: how often.
    """

    def __init__(self, client: ApiClient, pace: Pace) -> None:
        self.client = client
        self.pace = pace
        self._known = WeakValueDictionary[str, Watched]()
        self._awaited: dict[str, Awaited] = {}
        self._for_ready, self._for_any = Pool(only_ready=True), Pool(only_ready=False)
        self._queue: list[tuple[float, int, Awaited]] = []
        """Whose status look is due when; an entry that is not its owner's `turn` counts no more."""
        self._turns = itertools.count()
        self._task: asyncio.Task[None] | None = None
        self._under_way = set[asyncio.Task[None]]()
        self._stir = asyncio.Event()
        self._listing = Listing()
        self._page_at = -math.inf
        self._failures = 0
        self._proof = 0  # that webhooks come, as against that they do not
        self._looking = self._sweeping = 0
        self._looks = self._sweeps = 0
        self._told: dict[ToldBy, int] = {"look": 0, "list": 0, "webhook": 0}
        self._lag = self._longest_lag = 0.0

    def __repr__(self) -> str:
        return f"<LookOut: {len(self._awaited)} waited for>"

    @property
    def stats(self) -> WatchStats:
        """What it has done so far."""
        told = sum(self._told.values())
        return WatchStats(
            waiting=len(self._awaited),
            looks=self._looks,
            sweeps=self._sweeps,
            told_by_look=self._told["look"],
            told_by_list=self._told["list"],
            told_by_webhook=self._told["webhook"],
            mean_lag=self._lag / told if told else 0.0,
            longest_lag=self._longest_lag,
            webhooks_proven=self._proof > 0,
            list_asked=self._listing.way.name.lower(),
        )

    # ── who is waited for ────────────────────────────────────────────────────────────────────────

    def watched(
        self, request_id: str, *, expects_webhook: bool = False, young_until: float = -math.inf
    ) -> Watched:
        """The deployment of that id: the same for all who hold it, so that they share the looks."""
        watched = self._known.get(request_id)
        if watched is None:
            watched = Watched(
                self, request_id, expects_webhook=expects_webhook, young_until=young_until
            )
            self._known[request_id] = watched
        return watched

    def attend(self, watched: Watched) -> None:
        """Looks at it as long as it `is_awaited`; to be told whenever that has changed."""
        one = self._awaited.get(watched.request_id)
        pool = self._for_ready if watched.awaits_only_ready else self._for_any
        if one is not None:
            if watched.is_awaited and one.pool is pool:
                return
            self._leave(one)
        elif watched.is_awaited:
            with self.client.until_closed():  # or nobody would look
                one = Awaited(watched, self._now(), pool)
        if one is not None and watched.is_awaited:
            self._awaited[watched.request_id] = one
            pool.add(one)
            self._line_up(one)
            if watched.was_rung:
                self.wake(watched)
            self._stir.set()
            if self._task is None:
                self._task = asyncio.create_task(self._keep_looking())
        elif not self._awaited:
            self._rest()

    def _leave(self, one: Awaited) -> None:
        del self._awaited[one.request_id]
        one.turn = -1
        one.pool.remove(one)
        if len(one.pool.members) == 1:
            self._line_up(*one.pool.members.values())  # it is alone now

    def _rest(self) -> None:
        """Nobody waits any more."""
        self._queue.clear()
        for task in (self._task, *self._under_way):
            if task is not None:
                task.cancel()
        self._task = None

    def wake(self, watched: Watched) -> None:
        """Makes the next look at it come at once."""
        one = self._awaited.get(watched.request_id)
        if one is None:
            if watched.expects_webhook and watched.was_rung:
                self._proof = min(self._proof + 2, _MOST_PROOF)  # it was late, and did come
            return
        if self._is_swept(one.pool):
            one.pool.is_rung = True
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
            for one in tuple(self._awaited.values()):
                one.watched.fail(error)

    def _send_what_is_due(self, now: float) -> float:
        """Sends it, and tells the loop time at which more may be due."""
        if self._listing.way is Way.BY_PAGE:
            swept = self._turn_the_page(now)
        else:
            swept = min(self._sweep(self._for_ready, now), self._sweep(self._for_any, now))
        return min(swept, self._look_at_those_due(now))

    def _is_swept(self, pool: Pool) -> bool:
        """Whether the members of a pool are asked for together."""
        works = self._listing.way < Way.BY_PAGE
        return works and len(pool.members) > 1 and self._tells_of(pool)

    def _tells_of(self, pool: Pool) -> bool:
        """Whether a row tells all that the members of a pool wait for."""
        return pool.only_ready or self._listing.rows_have_status

    def _gap(self, pool: Pool, now: float) -> float:
        """Seconds between looks at one of these, if it were alone."""
        by_webhook = self._proof > 0 and pool.all_expect_webhooks
        return self._eased(self.pace.gap_at(now - pool.newest, with_webhook=by_webhook))

    def _eased(self, gap: float) -> float:
        """A gap, made longer while looks fail."""
        return max(gap, min(gap * 2.0**self._failures, _LONGEST_TROUBLE))

    def _sweep(self, pool: Pool, now: float) -> float:
        if not self._is_swept(pool):
            return math.inf
        count = len(pool.members)
        is_roll_call = self._is_time_for_roll_call(pool, now)
        # Where one list cannot hold all, each needs its turn as often.
        share = min(1.0, self._listing.longest / (_ID * count))
        gap = max(
            self._gap(pool, now) * math.sqrt(_DEARER / count),
            self._eased(min(_FASTEST, self.pace.gap) * share),
        )
        if pool.is_rung:
            gap = min(gap, self._eased(_RUNG))
        due = max(pool.swept_at + gap, self._permitted(self._sweeping, _SWEEPS, now))
        if now < due:
            return due
        most = _ROWS if is_roll_call else count
        taken = pool.take(now, most, self._listing.longest, is_roll_call=is_roll_call)
        if taken:
            pool.swept_at, pool.is_rung = now, False
            if is_roll_call:
                pool.called_at = now
            self._begin(self._ask_for(taken, now, is_roll_call=is_roll_call))
        return now + gap

    def _is_time_for_roll_call(self, pool: Pool, now: float) -> bool:
        count = len(pool.members)
        if self._listing.way is Way.BY_ID or not pool.only_ready or count <= _FEW:
            return True
        gap = max(self.pace.check * min(1.0, _ROWS / count), min(_ROLL_EVERY, self.pace.check))
        return not pool.has_more and now >= pool.called_at + gap

    def _permitted(self, under_way: int, most: int, now: float) -> float:
        """When another request may be begun, so that those who wait for a permit stay few."""
        if under_way >= most:
            return math.inf  # the end of one stirs us
        if not under_way:
            return now
        operation = GET_DEPLOYMENT if most == _LOOKS else LIST_DEPLOYMENTS
        return now + self.client.limits.expected_wait(operation, Priority.LOOK)

    def _turn_the_page(self, now: float) -> float:
        if len(self._awaited) == 1 or self._sweeping:
            return math.inf  # what the next page is, this one tells
        due = self._page_at + self._eased(min(_RUNG, self.pace.gap))
        if now >= due:
            self._page_at = now
            self._begin(self._ask_for((), now, is_roll_call=True))
        return due

    def _line_up(self, one: Awaited) -> None:
        """Puts it in the queue of status looks, and takes its earlier entry out."""
        one.turn = next(self._turns)
        heapq.heappush(self._queue, (self._due(one, self._now()), one.turn, one))

    def _due(self, one: Awaited, now: float) -> float:
        """When the next status look at it is due."""
        gap = self._gap(one.pool, now) * one.jitter
        if one.looking:
            return one.looked_at + max(gap, PATIENCE)
        if one.is_doubted:
            return one.looked_at + (self._eased(self.pace.gap) if self._failures else 0.0)
        if self._is_swept(one.pool):
            check = self.pace.check
            if one.is_listed and self._listing.rows_have_status:
                check *= _LISTED
            elif not self._listing.is_proven:
                check = min(check, _UNPROVEN)
            return max(one.looked_at, one.since) + self._eased(max(check, gap)) * one.jitter
        if one.looked_at < one.since:
            return one.since + self.pace.first * one.jitter
        return one.looked_at + gap

    def _look_at_those_due(self, now: float) -> float:
        while self._queue:
            due, turn, one = self._queue[0]
            if turn != one.turn:
                heapq.heappop(self._queue)
                continue
            due = max(due, self._permitted(self._looking, _LOOKS, now))
            if due > now:
                return due
            heapq.heappop(self._queue)
            if (due := self._due(one, now)) <= now:
                self._begin_to_look(one, now)
            else:  # by now its gap is longer
                heapq.heappush(self._queue, (due, turn, one))
        return math.inf

    def _begin(self, asking: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(asking)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    # ── looks ────────────────────────────────────────────────────────────────────────────────────

    def _begin_to_look(self, one: Awaited, now: float) -> None:
        one.looked_at, one.is_doubted = now, False
        one.looking += 1
        one.watched.looks += 1
        self._looking += 1
        self._looks += 1
        self._line_up(one)
        self._begin(self._look(one, now))

    async def _look(self, one: Awaited, now: float) -> None:
        watched = one.watched
        rung, watched.was_rung = watched.was_rung, False
        try:
            deployment = await self.client.call(
                GET_DEPLOYMENT,
                path={"request_id": one.request_id},
                priority=Priority.LOOK,
                once=True,
            )
        except (Gone, NotFound) as error:
            self._failures = 0
            try:
                watched.vanished(error, self._now())
            except CallError:
                watched.fail(error)
        except ClientClosed:
            pass  # all who wait are told by the client
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody may wait for ever
            if not self._passes(error, [one]):
                watched.fail(error)
        else:
            self._failures = 0
            is_news = self._found(one, deployment, "webhook" if rung else "look")
            if is_news and self._is_swept(one.pool) and deployment.current_status.is_ready:
                self._listing.proofs.append(one.request_id)
            one.seen_at = now
        finally:
            one.looking -= 1
            self._looking -= 1
            if one.turn >= 0:
                self._line_up(one)
            self._stir.set()

    async def _ask_for(self, taken: Sequence[Awaited], now: float, *, is_roll_call: bool) -> None:
        """Asks the list: for those, or for a page if they are none."""
        way, page = self._listing.way, 1 if taken else self._listing.page
        proofs = tuple(self._listing.proofs) if taken else ()
        asked = {one.request_id: one for one in taken}
        rung = {one.request_id for one in taken if one.watched.was_rung}
        for one in taken:
            one.swept_at = now
            one.sweeping += 1
            one.watched.was_rung = False
        self._sweeping += 1
        self._sweeps += 1
        filters = [Filter("request_id", "in", [*asked, *proofs])] if taken else []
        if not is_roll_call:
            filters.append(Filter("status", "eq", "ready"))
        try:
            answer = await self.client.call(
                LIST_DEPLOYMENTS,
                query={"query": list_query(filters, ()), "page": page, "limit": _ROWS},
                priority=Priority.LOOK,
                once=True,
            )
        except ClientClosed:
            pass  # all who wait are told by the client
        except Exception as error:  # noqa: BLE001 - a list that cannot be asked is not needed
            if not self._passes(error, taken) and way is self._listing.way:
                self._listing.refused(error)
                self._line_all_up()
        else:
            self._failures = 0
            if way is self._listing.way:
                self._learn(answer, asked, proofs)
            for row in answer.data:
                self._read(row, "webhook" if row.request_id in rung else "list")
            self._miss(answer, asked, rung, now, is_roll_call=is_roll_call)
        finally:
            for one in taken:
                one.sweeping -= 1
                if one.watched.was_rung and one.turn >= 0:
                    self.wake(one.watched)  # it was rung for meanwhile
            self._sweeping -= 1
            self._stir.set()

    def _learn(
        self, page: DeploymentPage, asked: dict[str, Awaited], proofs: Sequence[str]
    ) -> None:
        way = self._listing.way
        if asked:
            self._listing.read(page, asked, proofs)
        else:
            self._listing.turn(page)
        if way is not self._listing.way:
            self._line_all_up()

    def _read(self, row: DeploymentRow, told_by: ToldBy) -> None:
        """Tells what a row tells."""
        one = self._awaited.get(row.request_id)
        if one is None:
            return  # told just now, waited for no more, or somebody else's
        one.is_listed = True
        if row.status == Status.ERROR:
            self._doubt(one)  # why, the status alone tells
        elif row.status is not None or row.ready:
            status = Status.READY if row.status is None else row.status
            self._found(one, _as_deployment(row, status), told_by)

    def _miss(
        self,
        page: DeploymentPage,
        asked: dict[str, Awaited],
        rung: set[str],
        now: float,
        *,
        is_roll_call: bool,
    ) -> None:
        """Draws conclusions from what was asked for and did not come."""
        ids = {row.request_id for row in page.data}
        for request_id, one in asked.items():
            if self._awaited.get(request_id) is not one:
                continue  # told just now, or waited for no more
            one.pool.has_more = not is_whole(page)
            if one.pool.has_more:
                one.pool.go_first(one)
                continue
            one.seen_at = now
            is_gone = is_roll_call and one.is_listed and request_id not in ids
            if is_gone or (request_id in rung and request_id not in ids):
                self._doubt(one)

    def _doubt(self, one: Awaited) -> None:
        """Has its status looked at, unless that was done just now."""
        if not one.looking and self._now() >= one.looked_at + self.pace.gap:
            one.is_doubted = True
            self._line_up(one)

    def _found(self, one: Awaited, deployment: Deployment, told_by: ToldBy) -> bool:
        """Tells those who wait; whether it was news to them."""
        watched, status = one.watched, deployment.current_status
        watched.trouble = None
        if not watched.take(deployment, told_by):
            return False
        if status.is_ready or status.is_terminal:
            self._told[told_by] += 1
            lag = self._now() - one.seen_at
            self._lag += lag
            self._longest_lag = max(self._longest_lag, lag)
        if status.is_ready and watched.expects_webhook:
            step = 1 if told_by == "webhook" else -1
            self._proof = max(-1, min(self._proof + step, _MOST_PROOF))
        return True

    def _passes(self, error: Exception, asked: Sequence[Awaited]) -> bool:
        """Whether a failure may be otherwise next time; then it is noted."""
        if not isinstance(error, _PASSING):
            return False
        if isinstance(error, NotSent) and not error.worth_repeating:
            return False  # a certificate that does not match will not match later
        self._failures = min(self._failures + 1, _MOST_FAILURES)
        for one in asked:
            one.watched.trouble = error
        logger.info("a look failed and will be repeated: %s", error)
        return True

    def _line_all_up(self) -> None:
        """After the list is asked in another way."""
        for one in self._awaited.values():
            self._line_up(one)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


def _as_deployment(row: DeploymentRow, status: Status) -> Deployment:
    """What a row tells of a deployment."""
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
