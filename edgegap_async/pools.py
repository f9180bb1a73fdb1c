"""Servers that are READY before anybody asks: `ServerPool`.

Theory. A pool is two things around one endless batch (`deploy_many`): a source of requests, which
gives the next one whenever a server is missing, and a loop that puts what becomes READY into the
hands of whoever has waited longest, or on the shelf. A taker who finds one on the shelf has it at
once, and a new one is begun in its place.

- What is on the shelf is looked at now and then, all by one list call. A row that does not say
  READY is doubted, and confirmed by a status look before the server is given up.
- Old ones are retired when there are more than `min_ready`; while there are not, each is replaced
  first, so that the shelf does not run empty because it was filled in one go.
- While deploys fail, one at a time is tried, each after a longer pause than the one before (1 s to
  60 s). From the third pause on, takers are told so rather than left to wait.
- What was taken keeps its place within `max_total` until the pool sees that it has ended.

With an owner on the client, the next run of a killed program finds its shelf by a tag, and serves
from it. Another tag, put on in the background when a server is taken, says that it is in use.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import functools
import logging
import math
import random
import re
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Iterator,
)
from types import TracebackType
from typing import Any, Final, Self, Unpack

import attrs

from .custody import all_stopped
from .errors import (
    ClientClosed,
    EdgegapError,
    Gone,
    InvalidRequest,
    MaybeCreated,
    NotFound,
    PoolEmpty,
)
from .handles import DeploymentHandle
from .lifecycle import DeployOptions, EdgegapClient
from .models import Status
from .outcomes import Outcome
from .playable import Check, as_check
from .requests import (
    AnyUser,
    DeployRequest,
    Filter,
    FleetDeployRequest,
    check_kind,
    check_list,
    check_number,
)

__all__ = ["PoolStats", "ServerPool", "Taking"]

logger = logging.getLogger("edgegap_async.pools")

_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 60.0
_TELLS_AFTER: Final = 3  # pauses in a row


@attrs.frozen(kw_only=True)
class PoolStats:
    """What a pool has and has done."""

    ready: int
    """Servers to be taken, now."""
    coming: int
    """Deployed, and not READY yet."""
    taken: int
    """Handed out, and not seen to have ended."""
    waiting: int
    """Takers without a server."""
    handed_out: int
    """How many were, in all."""
    retired: int
    """Stopped because they were old."""
    lost: int
    """Replaced because they had died on the shelf."""
    failed: int
    """Deploys that came to nothing."""
    failing: bool
    """Whether the newest deploy failed: then one at a time is tried, with pauses."""


@attrs.define(eq=False)
class _Shelved:
    """A server to be taken."""

    server: DeploymentHandle
    since: float
    """Loop time at which it was put here."""
    made: float
    """Loop time at which it became READY, about."""


class ServerPool:
    """Keeps servers READY, and hands them out in no time.

    ::

        async with ServerPool(client, "arena", "v1", users=[(48.9, 2.4)], min_ready=3) as pool:
            async with pool.take(timeout=10) as server:
                ...

    Leaving the block stops what was not taken.

    Args:
        client: what deploys. With an `owner`, the pool finds its servers again after a kill.
        application: name of the application.
        version: name of its version.
        users: where the players will be, by IP address or by (latitude, longitude).
        min_ready: servers to have READY at any time.
        max_total: the most that may exist at once, taken ones too.
        max_idle: seconds after which one that nobody took is replaced, or stopped if there are
            more than `min_ready`; None for never.
        max_age: likewise, since it became READY: less than the version's own longest duration.
        playable: what must succeed after READY, as for `wait_ready`.
        timeout_each: seconds that one has from the accepted deploy to READY.
        look_every: seconds between two looks at what is on the shelf.
        name: of this pool among those of the client's owner, 1 to 14 characters: a tag has it.
        options: as for `client.deploy`.

    Raises:
        InvalidRequest: an argument cannot be used.
    """

    def __init__(
        self,
        client: EdgegapClient,
        application: str,
        version: str,
        *,
        users: Iterable[AnyUser],
        min_ready: int = 1,
        max_total: int = 10,
        max_idle: float | None = 1800.0,
        max_age: float | None = None,
        playable: Check | None = None,
        timeout_each: float = 300.0,
        look_every: float = 5.0,
        name: str = "default",
        **options: Unpack[DeployOptions],
    ) -> None:
        for what, number in (("min_ready", min_ready), ("max_total", max_total)):
            check_kind(what, number, int)
        if not 0 <= min_ready <= max_total or not max_total:
            raise InvalidRequest("0 <= min_ready <= max_total, and max_total is not 0")
        for what, seconds in (
            ("max_idle", max_idle),
            ("max_age", max_age),
            ("look_every", look_every),
            ("timeout_each", timeout_each),
        ):
            check_number(what, seconds, above=0)
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,14}", name):
            raise InvalidRequest(f"name is 1 to 14 of A-Z a-z 0-9 . _ -, not {name!r}")
        self._client = client
        self._tag, self._taken_tag = f"pool-{name}", f"used-{name}"
        said: dict[str, Any] = dict(options)
        if not said.pop("operation_tag", True):
            raise InvalidRequest("what a pool deploys has an operation tag")
        check_list("tags", said.get("tags", ()))
        said["tags"] = (*said.get("tags", ()), self._tag)
        kind = FleetDeployRequest if said.get("private_host_ids") else DeployRequest
        self._request = kind(application=application, version=version, users=users, **said)
        self._min_ready, self._max_total = min_ready, max_total
        self._max_idle = math.inf if max_idle is None else max_idle
        self._max_age = math.inf if max_age is None else max_age
        self._playable = None if playable is None else as_check(playable)
        self._timeout_each = timeout_each
        self._look_every = look_every
        self._shelf = collections.deque[_Shelved]()  # the oldest first
        self._takers = collections.deque[asyncio.Future[_Shelved]]()  # likewise
        self._coming = 0
        self._taken = set[str]()
        self._pauses, self._tries_again_at = 0, -math.inf
        self._failure: EdgegapError | None = None  # of the newest deploy
        self._changed = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self._marking = set[asyncio.Task[None]]()
        self._end: EdgegapError | None = None
        self._handed_out = self._retired = self._lost = self._failed = 0

    def __repr__(self) -> str:
        return f"<ServerPool {self._request.application} {self._request.version}: {self.stats}>"

    @property
    def stats(self) -> PoolStats:
        """What it has and has done, now."""
        return PoolStats(
            ready=len(self._shelf),
            coming=self._coming,
            taken=len(self._taken),
            waiting=len(self._takers),
            handed_out=self._handed_out,
            retired=self._retired,
            lost=self._lost,
            failed=self._failed,
            failing=self._failure is not None,
        )

    async def __aenter__(self) -> Self:
        if self._running is not None:
            raise RuntimeError("a pool is used once: make another")
        if self._client.owner is not None:
            await self._recover()
        self._running = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        _: TracebackType | None,
    ) -> None:
        running = self._running
        assert running is not None  # noqa: S101 - it was entered
        self._finish(PoolEmpty("the block of the pool was left"))
        running.cancel()
        custody = self._client.custody
        ids = [shelved.server.request_id for shelved in self._shelf]
        stops = [custody.stop(request_id) for request_id in ids if custody.holds(request_id)]
        self._shelf.clear()
        await asyncio.wait([running])
        await all_stopped(stops, problem)
        if problem is None and not running.cancelled():
            running.result()

    # ── taking ───────────────────────────────────────────────────────────────────────────────────

    def take(self, timeout: float | None = None) -> Taking:
        """A READY server: at once if there is one, else the next, first come first served.

        `server = await pool.take()` is yours to stop. `async with pool.take() as server` stops it
        at the end of the block.

        Args:
            timeout: seconds to wait at most, None for no limit.

        Raises:
            PoolEmpty: none came in time, or the pool's deploys fail again and again.
            ClientClosed: the client is closed.
        """
        check_number("timeout", timeout)
        return Taking(functools.partial(self._take, timeout), self._keep, self._give_back)

    async def _take(self, timeout: float | None) -> DeploymentHandle:  # noqa: ASYNC109 - as `take`
        self._check()
        if self._shelf:  # then nobody else waits
            return self._hand_over(self._shelf.popleft())
        taker: asyncio.Future[_Shelved] = asyncio.get_running_loop().create_future()
        self._takers.append(taker)
        self._changed.set()
        limit = asyncio.timeout(timeout)
        try:
            async with limit:
                shelved = await taker
        except BaseException as problem:
            if taker.done() and not taker.cancelled() and taker.exception() is None:
                self._give(taker.result())  # it came too late: somebody else has it
            else:
                with contextlib.suppress(ValueError):
                    self._takers.remove(taker)
            if isinstance(problem, TimeoutError) and limit.expired():
                raise PoolEmpty(f"no server in {timeout:g} s; {self.stats}") from self._failure
            raise
        return self._hand_over(shelved)

    def _check(self) -> None:
        if self._running is None:
            raise RuntimeError("use it as `async with ServerPool(…) as pool`")
        if self._end is not None:
            raise type(self._end)(self._end.message)
        if self._client.custody.closed:
            raise ClientClosed("the client is closed")
        # One who asks when the pause is over waits for the next try.
        if not self._shelf and self._pauses >= _TELLS_AFTER and self._pause() > 0:
            raise self._is_failing()

    def _is_failing(self) -> PoolEmpty:
        error = PoolEmpty(f"deploys fail, {self._failed} so far; the last: {self._failure}")
        error.__cause__ = self._failure
        return error

    def _hand_over(self, shelved: _Shelved) -> DeploymentHandle:
        server = shelved.server
        self._client.custody.hand_over(server.request_id)
        self._taken.add(server.request_id)
        self._handed_out += 1
        self._changed.set()
        if self._client.owner is not None:
            marking = asyncio.create_task(self._mark(server.request_id))
            self._marking.add(marking)
            marking.add_done_callback(self._marking.discard)
        return server

    async def _mark(self, request_id: str) -> None:
        """Let whoever recovers the shelf know that this one is in use."""
        try:
            await self._client.tags.rename(request_id, self._tag, self._taken_tag)
        except EdgegapError as error:
            logger.info("%s is in use, and could not be marked so: %s", request_id, error)

    def _keep(self, server: DeploymentHandle) -> None:
        """Within its block a taken server is stopped by `close`, as one of `run` is."""
        self._client.custody.take(server.request_id)

    async def _give_back(self, server: DeploymentHandle, problem: BaseException | None) -> None:
        custody = self._client.custody
        try:
            if problem is None:
                await custody.release(server.request_id)
            else:
                await custody.release_after(problem, server.request_id)
        finally:
            self._taken.discard(server.request_id)
            self._changed.set()

    # ── keeping it full ──────────────────────────────────────────────────────────────────────────

    async def _run(self) -> None:
        housekeeping = asyncio.create_task(self._keep_house())
        end: EdgegapError = ClientClosed("the pool has ended")
        try:
            async with self._client.deploy_many(
                self._missing(),
                concurrency=self._max_total,
                timeout_each=self._timeout_each,
                playable=self._playable,
            ) as batch:
                async for outcome in batch:
                    self._arrived(outcome)
        except ClientClosed as closed:
            end = closed
        finally:
            self._finish(end)
            housekeeping.cancel()
            # A server in use that is not marked so would be taken for one of the shelf.
            await asyncio.wait([housekeeping, *self._marking])

    async def _missing(self) -> AsyncIterator[DeployRequest]:
        """A request whenever a server is missing, and may be deployed."""
        while True:
            self._changed.clear()
            self._tidy()
            if self._lacks() > 0 and self._room() > 0:
                pause = self._pause()
                if pause <= 0:
                    self._coming += 1
                    yield self._request
                    continue
            else:
                pause = math.inf
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if pause == math.inf else pause):
                    await self._changed.wait()

    def _lacks(self) -> int:
        """How many servers are missing, beside those that are coming."""
        if self._end is not None:
            return 0
        young = len(self._shelf) - sum(1 for _ in self._old())
        return self._min_ready + len(self._takers) - young - self._coming

    def _room(self) -> int:
        return self._max_total - len(self._shelf) - self._coming - len(self._taken)

    def _pause(self) -> float:
        """Seconds until a deploy may begin; infinite until something changes."""
        if self._failure is None:
            return 0.0
        return math.inf if self._coming else self._tries_again_at - _now()

    def _arrived(self, outcome: Outcome) -> None:
        self._coming -= 1
        if outcome.handle is not None and outcome.is_ready:
            self._pauses, self._failure = 0, None
            self._client.custody.take(outcome.handle.request_id)
            self._give(_Shelved(outcome.handle, since=_now(), made=_now()))
        else:
            self._failed += 1
            self._failure = outcome.error
            if isinstance(outcome.error, MaybeCreated):  # nobody else will ever know
                logger.error("of the pool %s may go on running: %s", self._tag, outcome.error)
            else:
                logger.info("no server for the pool %s: %r", self._tag, outcome.error)
            if _now() >= self._tries_again_at:  # not one that was begun before the last pause
                pause = min(_FIRST_PAUSE * 2**self._pauses, _LONGEST_PAUSE)
                self._pauses += 1
                self._tries_again_at = _now() + pause * random.uniform(0.75, 1)  # noqa: S311
            if self._pauses >= _TELLS_AFTER:
                while self._takers:
                    _resolve(self._takers.popleft(), self._is_failing())
        self._changed.set()

    def _give(self, shelved: _Shelved) -> None:
        """To who has waited longest, or onto the shelf."""
        if self._end is not None:
            custody = self._client.custody
            if custody.holds(shelved.server.request_id):
                custody.stop(shelved.server.request_id)
            return
        while self._takers:
            if _resolve(self._takers.popleft(), shelved):
                return
        self._shelf.append(shelved)

    def _finish(self, end: EdgegapError) -> None:
        if self._end is None:
            self._end = end
        while self._takers:
            _resolve(self._takers.popleft(), self._end)

    # ── the shelf ────────────────────────────────────────────────────────────────────────────────

    def _old(self) -> Iterator[_Shelved]:
        now = _now()
        for one in self._shelf:
            if now - one.since >= self._max_idle or now - one.made >= self._max_age:
                yield one

    def _tidy(self) -> None:
        """Retires the old: those too many, and one to make room for its successor."""
        old = list(self._old())
        retired = old[: max(0, len(self._shelf) - self._min_ready)]
        if old and not retired and self._room() <= 0 and not self._coming:
            retired = old[:1]
        for one in retired:
            self._shelf.remove(one)
            self._client.custody.stop(one.server.request_id)
            self._retired += 1

    async def _keep_house(self) -> None:
        """Looks at all that there is, now and then."""
        with contextlib.suppress(ClientClosed):
            while True:
                with self._client.until_closed():
                    await asyncio.sleep(self._look_every)
                try:
                    await self._look()
                except ClientClosed:
                    raise
                except EdgegapError as error:
                    logger.info("the pool %s could not be looked at: %s", self._tag, error)
                self._changed.set()

    async def _look(self) -> None:
        shelf, taken = list(self._shelf), set(self._taken)
        if not shelf and not taken:
            return
        wanted = [self._tag, self._taken_tag]
        listed = {
            row.request_id: row
            async for row in self._client.deployments.list(filters=[Filter("tags", "in", wanted)])
        }
        for one in shelf:
            row = listed.get(one.server.request_id)
            fine = row is not None and row.ready and row.status in {None, Status.READY}
            if not fine and not await self._lives(one.server, ready=True) and one in self._shelf:
                self._shelf.remove(one)
                self._lost += 1
                logger.warning("%s has died in the pool %s", one.server.request_id, self._tag)
                self._client.custody.stop(one.server.request_id)
        for request_id in taken - listed.keys():
            if not await self._lives(self._client.handle(request_id), ready=False):
                self._taken.discard(request_id)

    async def _lives(self, server: DeploymentHandle, *, ready: bool) -> bool:
        try:
            status = (await server.refresh()).current_status
        except (Gone, NotFound):
            return False
        return status.is_ready if ready else status is not Status.TERMINATED

    async def _recover(self) -> None:
        """Puts on the shelf what an earlier run left there, as far as it fits."""
        async for found in self._client.recover():
            server = found.handle
            if self._taken_tag in found.row.tags:
                self._taken.add(server.request_id)
            if self._tag not in found.row.tags:
                continue
            self._client.custody.take(server.request_id)
            deployment = None
            with contextlib.suppress(Gone, NotFound):
                deployment = await server.refresh()
            if (
                deployment is not None
                and deployment.current_status.is_ready
                and deployment.app_name in {None, self._request.application}
                and deployment.app_version in {None, self._request.version}
                and self._room() > 0
            ):
                made = _now() - (found.age or 0.0)
                self._shelf.append(_Shelved(server, since=_now(), made=made))
            else:
                self._client.custody.stop(server.request_id)


class Taking:
    """A server to be taken from a pool: await it, or enter it as a block."""

    __slots__ = ("_give_back", "_keep", "_server", "_take")

    def __init__(
        self,
        take: Callable[[], Coroutine[Any, Any, DeploymentHandle]],
        keep: Callable[[DeploymentHandle], None],
        give_back: Callable[[DeploymentHandle, BaseException | None], Awaitable[None]],
    ) -> None:
        self._take = take
        self._keep = keep
        self._give_back = give_back
        self._server: DeploymentHandle | None = None

    def __await__(self) -> Generator[Any, None, DeploymentHandle]:
        return self._take().__await__()

    async def __aenter__(self) -> DeploymentHandle:
        self._server = await self._take()
        self._keep(self._server)
        return self._server

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        _: TracebackType | None,
    ) -> None:
        assert self._server is not None  # noqa: S101 - it was entered
        await self._give_back(self._server, problem)


def _resolve(taker: asyncio.Future[_Shelved], with_what: _Shelved | EdgegapError) -> bool:
    """Whether somebody still waits there."""
    if taker.done():
        return False
    if isinstance(with_what, EdgegapError):
        taker.set_exception(with_what)
    else:
        taker.set_result(with_what)
    return True


def _now() -> float:
    return asyncio.get_running_loop().time()
