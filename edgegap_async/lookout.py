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

What a row may not tell. Lists may hide what is in ERROR, and do hide what is over. So who is swept
gets a status look of his own every few seconds; and at once where a row says ERROR (why, the status
alone tells) or a deployment that should be in the list is not.

What may not work. By what a list can be filtered is documented in one place and not always tried,
so each step down is learnt: a list that refuses the filters, or leaves out what a status look finds
READY, is asked by ids alone, then page by page, then not at all; then all are looked at by status,
as fast as its limit allows.

A look that fails for a while (network, 429, 5xx) ends no wait; while looks fail, they come more
rarely.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import heapq
import itertools
import logging
import math
import random
from collections import OrderedDict
from collections.abc import Coroutine, Iterable
from typing import Any, Final
from urllib.parse import quote
from weakref import WeakValueDictionary

import attrs

from .client import ApiClient
from .codec import list_query
from .endpoints import GET_DEPLOYMENT, LIST_DEPLOYMENTS
from .errors import (
    CallError,
    ClientClosed,
    Forbidden,
    Gone,
    NoAnswer,
    NotFound,
    NotSent,
    RateLimited,
    Refused,
    ServerError,
    Unauthorized,
    UnreadableAnswer,
)
from .limits import Priority
from .models import Deployment, DeploymentPage, DeploymentRow, Status
from .requests import Filter
from .watch import ToldBy, Watched

__all__ = ["LookOut", "Pace", "WatchStats"]

logger = logging.getLogger("edgegap_async.lookout")

_FASTEST: Final = 0.18  # seconds between sweeps that hold everybody
_WOKEN: Final = 0.1  # seconds after a sweep that one which a webhook asks for may follow
_PATIENCE: Final = 2.0  # seconds for an answer, after which the same is asked once more
_SWEEPS: Final = 4  # under way at once
_LOOKS: Final = 8  # likewise, by status
_LONGEST_QUERY: Final = 6000  # bytes: servers and proxies take 8000 for a request's first line
_QUOTED: Final = len(quote('"",'))  # around each id
_ROWS: Final = 100  # a page
_ERRORS_EVERY: Final = 5  # sweeps; the others ask for READY
_UNPROVEN: Final = 2.0  # seconds between status looks at one that is swept by a list not proven yet
_STRIKES: Final = 3
_LONGEST_TROUBLE: Final = 5.0  # seconds between looks while they fail
_PROVEN: Final = 10  # webhooks, beyond which more proof counts no more

_PASSING = (NotSent, NoAnswer, RateLimited, ServerError, UnreadableAnswer)
"""What may be otherwise at the next look."""


@attrs.frozen(kw_only=True)
class Pace:
    """How often a deployment is looked at while somebody waits for it. All in seconds."""

    first: float = 0.4
    """From the start of the wait to the first look."""
    gap: float = 0.5
    """Between looks while it is expected soon, for one that is waited for alone."""
    soon: float = 60.0
    """How long that is; then each gap is half as long again as the one before."""
    longest_gap: float = 10.0
    with_webhook: float = 3.0
    """In place of `gap`, once webhooks have proved to come."""
    check: float = 6.0
    """Between status looks at one that is swept with others in the list."""
    unknown: float = 10.0
    """How long after its deploy "no such deployment" is not believed."""

    def gap_at(self, age: float, *, with_webhook: bool = False) -> float:
        """Seconds between looks at what is waited for since `age` seconds."""
        gap = self.with_webhook if with_webhook else self.gap
        return max(gap, min(gap + (age - self.soon) / 2, self.longest_gap))


class _Way(enum.IntEnum):
    """How the list is asked, the next one where one does not work."""

    CHANGED = 0
    """For some ids, those that are READY, or in ERROR."""
    BY_ID = 1
    """For some ids."""
    BY_PAGE = 2
    """For all there is."""
    NOT_AT_ALL = 3


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
    told_by_webhook: int
    """Those that a look found which a webhook asked for."""
    mean_lag: float
    """Seconds between the look before and the one that found it: it was told no later than that."""
    longest_lag: float
    webhooks_proven: bool
    """Whether webhooks come, so that looks are rare."""
    list_by: str
    """How the list is asked: `changed`, `by_id`, `by_page` or `not_at_all`."""


@attrs.define(eq=False)
class _Awaited:
    """One that somebody waits for."""

    watched: Watched
    since: float
    """Loop time at which the wait began."""
    seen_at: float = attrs.field(init=False)
    """When the last look was sent that was answered, or the wait began."""
    swept_at: float = -math.inf
    """When it was last asked for in a list."""
    looked_at: float = -math.inf
    """When it was last looked at by status."""
    sweeping: int = 0
    looking: int = 0
    doubted: bool = False
    """A status look is wanted at once."""
    turn: int = -1
    """Which entry in the queue of looks is the one that counts."""
    jitter: float = attrs.field(factory=lambda: random.uniform(0.9, 1.1))  # noqa: S311 - to spread looks
    pool: _Pool = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.seen_at = self.since


class _Pool:
    """Those who share sweeps, who was swept longest ago first."""

    def __init__(self, *, only_ready: bool) -> None:
        self.only_ready = only_ready
        self.members = OrderedDict[str, _Awaited]()
        self.newest = 0.0
        """When the last one came."""
        self.without_webhook = 0
        self.swept_at = -math.inf
        self.woken = False
        self.sweeps = 0

    def add(self, one: _Awaited) -> None:
        """Last in the row, or first if it was rung for."""
        one.pool = self
        self.members[one.watched.request_id] = one
        self.newest = max(self.newest, one.since)
        self.without_webhook += not one.watched.expects_webhook

    def remove(self, one: _Awaited) -> None:
        """It is waited for no more, or for something else."""
        del self.members[one.watched.request_id]
        self.without_webhook -= not one.watched.expects_webhook

    def first(self, one: _Awaited) -> None:
        """It is in the next sweep."""
        self.members.move_to_end(one.watched.request_id, last=False)
        self.woken = True

    def take(self, now: float, most: int, longest: int) -> list[_Awaited]:
        """Those whose turn it is: at most so many, with so many bytes of ids."""
        taken: list[_Awaited] = []
        for request_id, one in self.members.items():
            if one.sweeping and now < one.swept_at + _PATIENCE:
                continue  # its answer is on the way
            longest -= len(request_id) + _QUOTED
            if longest < 0 or len(taken) == most:
                break
            taken.append(one)
        for one in taken:
            self.members.move_to_end(one.watched.request_id)
        return taken


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
        self._awaited: dict[str, _Awaited] = {}
        self._pools = tuple(_Pool(only_ready=only_ready) for only_ready in (True, False))
        self._queue: list[tuple[float, int, _Awaited]] = []
        """Whose status look is due when; an entry that is not its owner's `turn` counts no more."""
        self._turns = itertools.count()
        self._task: asyncio.Task[None] | None = None
        self._under_way = set[asyncio.Task[None]]()
        self._stir = asyncio.Event()
        self._way = _Way.CHANGED
        self._rows_have_status = True
        self._longest_query = _LONGEST_QUERY
        self._page = 1
        self._page_at = -math.inf
        self._page_seen: frozenset[str] = frozenset()
        self._strikes = 0
        self._list_tells = False
        self._failures = 0
        self._proof = 0
        self._looking = 0
        self._sweeping = 0
        self._looks = 0
        self._sweeps = 0
        self._told: dict[ToldBy, int] = {"look": 0, "list": 0, "webhook": 0}
        self._lag = 0.0
        self._longest_lag = 0.0

    def __repr__(self) -> str:
        return f"<LookOut: {len(self._awaited)} waited for, list {self._way.name.lower()}>"

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
            list_by=self._way.name.lower(),
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
        if one is not None:
            if watched.is_awaited and one.pool.only_ready is watched.awaits_only_ready:
                return
            one.pool.remove(one)
            for left in one.pool.members.values() if len(one.pool.members) == 1 else ():
                self._line_up(left)  # it is alone now
        if not watched.is_awaited:
            if one is not None:
                del self._awaited[watched.request_id]
                one.turn = -1
            if not self._awaited:
                self._rest()
            return
        if one is None:
            with self.client.until_closed():  # or nobody would look
                one = self._awaited[watched.request_id] = _Awaited(watched, self._now())
        self._pools[not watched.awaits_only_ready].add(one)
        self._line_up(one)
        if watched.was_rung:
            self.wake(watched)
        if self._task is None:
            self._task = asyncio.create_task(self._keep_looking())

    def wake(self, watched: Watched) -> None:
        """Makes the next look at it come at once."""
        one = self._awaited.get(watched.request_id)
        if one is None:
            if watched.expects_webhook and watched.was_rung:
                self._proof = min(self._proof + 2, _PROVEN)  # a look was faster, but it did come
            return
        if self._is_swept(one.pool):
            one.pool.first(one)
        else:
            one.doubted = True
            self._line_up(one)
        self._stir.set()

    def _rest(self) -> None:
        """Nobody waits any more."""
        self._queue.clear()
        for task in (self._task, *self._under_way):
            if task is not None:
                task.cancel()
        self._task = None

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
        if self._way is _Way.BY_PAGE:
            swept = self._turn_the_page(now)
        else:
            swept = min(self._sweep(pool, now) for pool in self._pools)
        return min(swept, self._look_at_those_due(now))

    def _is_swept(self, pool: _Pool) -> bool:
        """Whether the members of a pool are asked for together."""
        works = self._way < _Way.BY_PAGE and (pool.only_ready or self._rows_have_status)
        return works and len(pool.members) > 1

    def _gap(self, pool: _Pool, now: float) -> float:
        """Seconds between looks at one of these, if it were alone."""
        rely_on_webhooks = self._proof > 0 and not pool.without_webhook
        gap = self.pace.gap_at(now - pool.newest, with_webhook=rely_on_webhooks)
        return self._in_trouble(gap)

    def _in_trouble(self, gap: float) -> float:
        return max(gap, min(gap * 2.0**self._failures, _LONGEST_TROUBLE))

    def _sweep(self, pool: _Pool, now: float) -> float:
        if not self._is_swept(pool):
            return math.inf
        # Of those whom one list does not hold each needs as many a turn.
        share = min(1.0, self._longest_query / 20 / len(pool.members))
        gap = self._gap(pool, now) / math.sqrt(len(pool.members))
        gap = max(gap, self._in_trouble(min(_FASTEST, self.pace.gap) * share))
        if pool.woken:
            gap = min(gap, self._in_trouble(_WOKEN))
        if now < pool.swept_at + gap:
            return pool.swept_at + gap
        if self._sweeping >= _SWEEPS:
            return math.inf  # the end of one stirs us
        narrow = pool.only_ready and self._way is _Way.CHANGED
        most = len(pool.members) if narrow else _ROWS
        taken = pool.take(now, most, self._longest_query)
        if not taken:
            return now + gap
        pool.swept_at, pool.woken = now, False
        pool.sweeps += 1
        filters = [Filter("request_id", "in", [one.watched.request_id for one in taken])]
        if narrow:
            word = "error" if pool.sweeps % _ERRORS_EVERY == 0 else "ready"
            filters.append(Filter("status", "eq", word))
        self._begin(self._ask_the_list(taken, filters, now))
        return now + gap

    def _turn_the_page(self, now: float) -> float:
        if len(self._awaited) == 1:
            return math.inf
        due = self._page_at + self._in_trouble(min(_WOKEN, self.pace.gap))
        if now < due:
            return due
        if self._sweeping:
            return math.inf  # what the next page is, this one tells
        self._page_at = now
        self._begin(self._ask_the_list((), (), now))
        return math.inf

    def _line_up(self, one: _Awaited) -> None:
        """Puts it in the queue of status looks, and takes its earlier entry out."""
        one.turn = next(self._turns)
        heapq.heappush(self._queue, (self._due(one, self._now()), one.turn, one))

    def _due(self, one: _Awaited, now: float) -> float:
        """When the next status look at it is due."""
        gap = self._gap(one.pool, now) * one.jitter
        if one.looking:
            return one.looked_at + max(gap, _PATIENCE)
        if one.doubted:
            return one.looked_at + (self._in_trouble(self.pace.gap) if self._failures else 0.0)
        if self._is_swept(one.pool):
            check = self.pace.check if self._list_tells else min(self.pace.check, _UNPROVEN)
            check = self._in_trouble(max(check, gap))
            return max(one.looked_at, one.since) + check * one.jitter
        if one.looked_at < one.since:
            return one.since + self.pace.first * one.jitter
        return one.looked_at + gap

    def _look_at_those_due(self, now: float) -> float:
        while self._queue:
            due, turn, one = self._queue[0]
            if turn != one.turn:
                heapq.heappop(self._queue)
                continue
            if due > now:
                return due
            if self._looking >= _LOOKS:
                return math.inf  # the end of one stirs us
            heapq.heappop(self._queue)
            if (due := self._due(one, now)) <= now:
                self._begin(self._look(one, now))
            else:  # by now its gap is longer
                heapq.heappush(self._queue, (due, turn, one))
        return math.inf

    def _begin(self, asking: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(asking)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    # ── looks ────────────────────────────────────────────────────────────────────────────────────

    async def _look(self, one: _Awaited, now: float) -> None:
        watched = one.watched
        rung, watched.was_rung = watched.was_rung, False
        one.looked_at, one.doubted = now, False
        one.looking += 1
        watched.looks += 1
        self._looking += 1
        self._looks += 1
        self._line_up(one)
        try:
            deployment = await self.client.call(
                GET_DEPLOYMENT,
                path={"request_id": watched.request_id},
                priority=Priority.LOOK,
                once=True,
            )
        except (Gone, NotFound) as error:
            self._succeeded()
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
            self._succeeded()
            if self._found(one, deployment, "webhook" if rung else "look"):
                self._compare(one, deployment.current_status)
            one.seen_at = now
        finally:
            one.looking -= 1
            self._looking -= 1
            if one.turn >= 0:
                self._line_up(one)
            self._stir.set()

    def _compare(self, one: _Awaited, status: Status) -> None:
        """Takes note if the list did not tell what a look has found."""
        if status.is_ready and one.swept_at > -math.inf and not one.sweeping:
            self._strikes += 1
            if self._strikes >= _STRIKES:
                self._step_down("it leaves out what is READY")

    async def _ask_the_list(
        self, taken: Iterable[_Awaited], filters: Iterable[Filter], now: float
    ) -> None:
        page = self._page if self._way is _Way.BY_PAGE else 1
        rung = {one.watched.request_id for one in taken if one.watched.was_rung}
        for one in taken:
            one.swept_at = now
            one.sweeping += 1
            one.watched.was_rung = False
        self._sweeping += 1
        self._sweeps += 1
        way = self._way
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
            if not self._passes(error, taken) and way is self._way:
                self._list_refused(error)
        else:
            self._succeeded()
            if way is self._way:
                self._read(answer, {one.watched.request_id: one for one in taken}, rung, now)
        finally:
            for one in taken:
                one.sweeping -= 1
                if one.watched.was_rung and one.turn >= 0:
                    one.pool.first(one)  # it was rung for meanwhile
            self._sweeping -= 1
            self._stir.set()

    def _read(
        self, page: DeploymentPage, asked: dict[str, _Awaited], rung: set[str], now: float
    ) -> None:
        """Tells what the rows tell."""
        ids = frozenset(row.request_id for row in page.data)
        if self._way is _Way.BY_PAGE:
            follows = page.pagination is not None and page.pagination.has_next
            # A page that repeats itself for ever ends the list too.
            self._page = self._page + 1 if follows and ids - self._page_seen else 1
            self._page_seen = ids
        elif not ids <= asked.keys():
            self._step_down("it does not filter by request_id", _Way.BY_PAGE)
        for row in page.data:
            one = self._awaited.get(row.request_id)
            if one is not None:
                self._read_row(one, row, "webhook" if row.request_id in rung else "list")
        is_whole = page.pagination is None or not page.pagination.has_next
        for request_id, one in asked.items():
            if self._awaited.get(request_id) is not one:
                continue  # told just now, or waited for no more
            if not is_whole:
                one.pool.members.move_to_end(request_id, last=False)
            elif request_id not in ids and (request_id in rung or not one.pool.only_ready):
                self._doubt(one)
            if is_whole:
                one.seen_at = now

    def _read_row(self, one: _Awaited, row: DeploymentRow, told_by: ToldBy) -> None:
        is_ready = row.ready or row.status == Status.READY
        if row.status is None:
            self._rows_have_status = False
        if row.status == Status.ERROR:
            self._doubt(one)  # why, the status alone tells
        elif is_ready or row.status is not None:
            status = Status.READY if row.status is None else row.status
            if is_ready:
                self._strikes, self._list_tells = 0, True
            self._found(one, _as_deployment(row, status), told_by)

    def _doubt(self, one: _Awaited) -> None:
        if not one.looking and not one.doubted and self._now() >= one.looked_at + self.pace.gap:
            one.doubted = True
            self._line_up(one)

    def _found(self, one: _Awaited, deployment: Deployment, told_by: ToldBy) -> bool:
        """Tells those who wait; whether it was news to them."""
        watched = one.watched
        watched.trouble = None
        if not watched.take(deployment, told_by):
            return False
        if deployment.current_status.is_ready or deployment.current_status.is_terminal:
            self._told[told_by] += 1
            lag = self._now() - one.seen_at
            self._lag += lag
            self._longest_lag = max(self._longest_lag, lag)
            if watched.expects_webhook and deployment.current_status.is_ready:
                step = 1 if told_by == "webhook" else -1
                self._proof = max(-_STRIKES, min(self._proof + step, _PROVEN))
        return True

    # ── what goes wrong ──────────────────────────────────────────────────────────────────────────

    def _succeeded(self) -> None:
        self._failures = 0

    def _passes(self, error: Exception, asked: Iterable[_Awaited]) -> bool:
        """Whether a failure may be otherwise next time; then it is noted."""
        if not isinstance(error, _PASSING):
            return False
        if isinstance(error, NotSent) and not error.worth_repeating:
            return False  # a certificate that does not match will not match later
        self._failures = min(self._failures + 1, 10)
        for one in asked:
            one.watched.trouble = error
        logger.info("a look failed and will be repeated: %s", error)
        return True

    def _list_refused(self, error: Exception) -> None:
        if (
            isinstance(error, Refused)
            and error.status in {413, 414, 431}
            and self._way < _Way.BY_PAGE
        ):
            self._longest_query = max(500, self._longest_query // 2)
            logger.info("the list takes no URL that long; asking for fewer at once: %s", error)
            return
        is_final = not isinstance(error, Refused) or isinstance(error, Unauthorized | Forbidden)
        self._step_down(str(error), _Way.NOT_AT_ALL if is_final else None)

    def _step_down(self, why: str, way: _Way | None = None) -> None:
        self._strikes, self._list_tells = 0, False
        self._way = max(_Way(min(self._way + 1, _Way.NOT_AT_ALL)), way or self._way)
        logger.warning("asking the list %s from now on: %s", self._way.name.lower(), why)
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
