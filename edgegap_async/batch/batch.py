"""Many deployments as one piece of work: `client.deploy_many`.

Theory. A request becomes an outcome: a server that is READY, or the error that says why not. Until
its outcome is handed over, by the loop over the batch or by `all()`, its deployment is the batch's;
from then on it is the caller's. Whatever ends the batch (the end of the block, an error in it, a
cancellation, `client.close()`) stops what is the batch's and nothing else.

One task takes the requests, one after the other, as long as fewer than `concurrency` are worked on.
Each that is worked on is a task, from the deploy to the outcome; it is all that a waiting
deployment costs beside its handle. All are children of one task group: when one raises, because
the policy says that a failure stops the batch, the group cancels the others. One that is cancelled
in mid-deploy is undone by the client, as for any caller who goes away.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import itertools
import logging
import math
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Mapping,
)
from types import TracebackType
from typing import Final, Self

import attrs

from edgegap_async.api.requests import DeployRequest
from edgegap_async.api.validation import check_number
from edgegap_async.deployments.handle import DeploymentHandle
from edgegap_async.deployments.ownership import OwnedDeployments, wait_for_stops
from edgegap_async.errors import (
    BatchStopped,
    ClientClosed,
    DeploymentError,
    DeploymentFailed,
    EdgegapError,
    InvalidRequest,
    MaybeCreated,
    Unprocessable,
    WaitTimedOut,
    is_cancelled,
)
from edgegap_async.http.api_client import ApiClient

from .plan import AnyRequest, AnyRequests, BatchItem, BatchOptions, Outcome, Progress

__all__ = ["Batch"]

logger = logging.getLogger(__name__)

_RATE_WINDOW: Final = 10.0  # seconds over which the rate is measured


@attrs.define(eq=False)
class _Job:
    """One request that is worked on."""

    index: int
    request: DeployRequest
    began: float
    attempts: int = 0
    handle: DeploymentHandle | None = None
    error: EdgegapError | None = None
    """Why its newest attempt came to nothing, where that is known."""

    def outcome(self, error: EdgegapError | None) -> Outcome:
        """What became of it, now."""
        return Outcome(
            index=self.index,
            request=self.request,
            handle=self.handle,
            error=error,
            seconds=None if error else _now() - self.began,
            attempts=self.attempts,
        )


class _BatchAborted(Exception):
    """The batch goes no further; its cause says why."""

    def __init__(self, cause: Exception, *, by_policy: bool) -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.by_policy = by_policy


class _AbortsBatch:
    """A block in which whatever is raised ends the batch. One for all: thousands are in it."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, problem: BaseException | None, __: object) -> None:
        if isinstance(problem, asyncio.CancelledError) and not is_cancelled():
            # Raised on, it would end its task and nothing else: all others would wait for it.
            cause = RuntimeError("something that the batch waited for was cancelled")
            cause.__cause__ = problem
            raise _BatchAborted(cause, by_policy=False) from problem
        if isinstance(problem, Exception) and not isinstance(problem, _BatchAborted):
            raise _BatchAborted(problem, by_policy=False) from problem


_ABORTS_BATCH: Final = _AbortsBatch()


class Batch:
    """The deployments of one `client.deploy_many`: outcomes as they come, or all of them in order.

    ::

        async with client.deploy_many(requests) as batch:
            async for outcome in batch:
                ...

    An outcome that the loop was given, or `all()` has returned, is yours, with its deployment.
    What was not handed over when the block is left is stopped; what the API has not accepted by
    then, in the background.
    """

    def __init__(
        self,
        client: ApiClient,
        requests: AnyRequests,
        plan: BatchOptions,
        *,
        custody: OwnedDeployments,
        deploy: Callable[[DeployRequest, float | None], Awaitable[DeploymentHandle]],
        handle: Callable[[str], DeploymentHandle],
        ask_why: Callable[[DeploymentFailed, float | None], Awaitable[None]],
    ) -> None:
        if isinstance(requests, str | bytes | Mapping | DeployRequest) or not isinstance(
            requests, Iterable | AsyncIterable
        ):
            raise InvalidRequest(f"requests is a list of DeployRequest, not {requests!r}")
        self._client = client
        self._plan = plan
        self._custody = custody
        self._deploy = deploy
        self._handle = handle
        self._ask_why = ask_why
        self._total: int | None = None
        self._waiting = collections.deque[BatchItem]()  # where they came all at once
        self._given: AsyncIterator[AnyRequest] | None = None  # where they come one by one
        self._taken = 0  # from there
        if isinstance(requests, AsyncIterable):
            self._given = aiter(requests)
        elif not isinstance(requests, Collection):
            self._given = _one_by_one(requests)
        else:
            checked = list(itertools.starmap(BatchItem.of, enumerate(requests)))
            # What cannot be sent is told before anything is.
            self._waiting.extend(sorted(checked, key=lambda request: request.error is None))
            self._total = len(checked)
        self._works: dict[int, _Job] = {}
        self._fresh = collections.deque[Outcome]()  # not handed over
        self._lent: list[DeploymentHandle] = []  # handed over until the end of the block
        self._ready = self._failed = 0
        self._recent = collections.deque[float]()  # when the latest outcomes came
        self._begun_all = False
        self._stops: list[asyncio.Task[None]] = []
        self._over = asyncio.Event()  # every request has its outcome, or never will
        self._news = asyncio.Event()  # a new one for each outcome: whoever waits holds its own
        self._working: asyncio.Task[None] | None = None
        self._left = False  # the block
        self._told = False  # what ended it, to the caller
        self._began = 0.0
        self._ended: float | None = None

    def __repr__(self) -> str:
        total = "?" if self._total is None else self._total
        return f"<Batch of {total}: {self._ready} ready, {self._failed} failed>"

    async def __aenter__(self) -> Self:
        if self._working is not None:
            raise RuntimeError("a batch is used once: call deploy_many again")
        self._began = _now()
        self._working = asyncio.create_task(self._work())
        self._working.add_done_callback(self._tell_the_end)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        _: TracebackType | None,
    ) -> None:
        working = self._worker()
        working.cancel()
        self._left = True
        for outcome in self._fresh:
            self._drop(outcome)
        self._fresh.clear()
        for handle in self._lent:
            self._stop(handle)
        await asyncio.wait([working])
        await wait_for_stops(self._stops, problem)
        if problem is None and not self._told:
            self._raise_what_ended_it(working)
        elif not (self._told or working.cancelled()) and (end := working.exception()):
            assert problem is not None  # noqa: S101 - or it was raised
            problem.add_note(f"and the batch had ended by {end!r}")

    # ── outcomes ─────────────────────────────────────────────────────────────────────────────────

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Outcome:
        """The next outcome, in the order in which they come; from now on it is the caller's."""
        working = self._worker()
        while not self._fresh and not working.done():
            await self._news.wait()
        if not self._fresh:
            self._raise_what_ended_it(working)
            raise StopAsyncIteration
        return self._hand_over(self._fresh.popleft())

    async def all(self) -> tuple[Outcome, ...]:
        """The outcomes that no loop was given, in the order of the requests, once there are all.

        Without a block around it, a batch is begun and ended here.

        Raises:
            ClientClosed: the client was closed meanwhile.
            Exception: what the requests' iterator, `elsewhere` or `on_progress` has raised. In a
                block the outcomes that there are can still be iterated; without one they are gone,
                and what they had is stopped.
        """
        if self._working is None:
            if self._plan.stop_at_end:
                raise RuntimeError("stop_at_end needs a block: `async with client.deploy_many(…)`")
            await self.__aenter__()
            try:
                return await self.all()  # after that nothing is left to wait for
            except BaseException as problem:
                await self.__aexit__(type(problem), problem, None)
                raise
        while not self._working.done():
            await self._news.wait()
        self._raise_what_ended_it(self._working)
        outcomes = sorted(self._fresh, key=lambda outcome: outcome.index)
        self._fresh.clear()
        return tuple(self._hand_over(outcome) for outcome in outcomes)

    def _hand_over(self, outcome: Outcome) -> Outcome:
        handle = outcome.handle
        if handle is None:
            return outcome
        if outcome.is_ready and self._custody.closed and not self._custody.holds(handle.request_id):
            return self._not_ready(outcome, ClientClosed("the client was closed meanwhile"))
        if self._plan.stop_at_end:
            self._lent.append(handle)
        else:
            self._custody.hand_over(handle.request_id)
        return outcome

    def _not_ready(self, outcome: Outcome, cause: Exception) -> Outcome:
        """The outcome of one that was READY, and had to be stopped before it was handed over."""
        self._ready, self._failed = self._ready - 1, self._failed + 1
        error = _stopped(cause, outcome.handle)
        self._stop(outcome.handle, error)
        return attrs.evolve(outcome, error=error, seconds=None)

    def _worker(self) -> asyncio.Task[None]:
        if self._working is None:
            raise RuntimeError("use it as `async with client.deploy_many(…) as batch`")
        return self._working

    def _raise_what_ended_it(self, working: asyncio.Task[None]) -> None:
        self._told = True
        if not working.cancelled() and (problem := working.exception()) is not None:
            raise problem

    # ── progress ─────────────────────────────────────────────────────────────────────────────────

    @property
    def progress_now(self) -> Progress:
        """How far it has come."""
        now = _now() if self._ended is None else self._ended
        self._forget_before(now - _RATE_WINDOW)
        elapsed = now - self._began
        handles = (work.handle for work in self._works.values())
        return Progress(
            total=self._total,
            waiting=None if self._total is None else len(self._waiting),
            under_way=collections.Counter(handle.status if handle else None for handle in handles),
            ready=self._ready,
            failed=self._failed,
            elapsed=elapsed,
            rate=len(self._recent) / min(_RATE_WINDOW, elapsed) if elapsed else 0.0,
        )

    def _forget_before(self, moment: float) -> None:
        while self._recent and self._recent[0] < moment:
            self._recent.popleft()

    async def progress(self, every: float = 0.5) -> AsyncIterator[Progress]:
        """How far it has come: now, each so many seconds, and at the end. Takes no outcome."""
        check_number("every", every, above=0)
        self._worker()
        while not self._over.is_set():
            yield self.progress_now
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(every):
                    await self._over.wait()
        yield self.progress_now

    async def _report(self, to: Callable[[Progress], object]) -> None:
        with _ABORTS_BATCH:
            async for progress in self.progress():
                to(progress)

    # ── the work ─────────────────────────────────────────────────────────────────────────────────

    async def _work(self) -> None:
        end: _BatchAborted | None = None
        try:
            with self._client.until_closed():
                try:
                    async with asyncio.TaskGroup() as group:
                        if self._plan.on_progress is not None:
                            group.create_task(self._report(self._plan.on_progress))
                        await self._begin_all(group)
                except* _BatchAborted as several:
                    end = _first(several)
        except ClientClosed as closed:
            end = _BatchAborted(closed, by_policy=False)
        if end is not None:
            self._give_up(end.cause)
            if end.by_policy and self._plan.on_progress is not None:
                self._plan.on_progress(self.progress_now)
            if self._stops:
                # Cancelled as the block is left, which then waits for them itself.
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait(self._stops)
            if not end.by_policy:
                raise end.cause

    async def _begin_all(self, group: asyncio.TaskGroup) -> None:
        slots = asyncio.Semaphore(self._plan.concurrency)
        while True:
            has_slot = await self._acquired(slots)
            request = await self._next()
            if request is None:
                break
            error = request.error or (self._too_late() if self._is_too_late() else None)
            if error is not None:
                if has_slot:
                    slots.release()
                self._finish(Outcome(index=request.index, request=request.given, error=error))
                continue
            work = self._works[request.index] = _Job(request.index, request.given, _now())
            group.create_task(self._one(work)).add_done_callback(lambda _: slots.release())
        self._begun_all = True
        self._total = self._ready + self._failed + len(self._works)
        self._check_whether_over()

    async def _acquired(self, slots: asyncio.Semaphore) -> bool:
        """Whether there was a slot before it was too late for all that wait for one."""
        try:
            async with asyncio.timeout_at(self._deadline):
                return await slots.acquire()
        except TimeoutError:
            return False

    async def _next(self) -> BatchItem | None:
        """The next request; None if there is none, or an iterator gives it too late."""
        if self._given is None:
            return self._waiting.popleft() if self._waiting else None
        if self._is_too_late():
            return None
        limit = asyncio.timeout_at(self._deadline)
        with _ABORTS_BATCH:
            try:
                async with limit:
                    given = await anext(self._given)
            except StopAsyncIteration:
                return None
            except Exception:
                if limit.expired():
                    return None
                raise
            self._taken += 1
            return BatchItem.of(self._taken - 1, given)

    async def _one(self, work: _Job) -> None:
        """From the deploy to the outcome, as often as it takes and may."""
        with _ABORTS_BATCH:  # `elsewhere` may fail, or the client be closed
            while (error := await self._attempt(work)) is not None:
                again = (
                    work.attempts < self._plan.attempts
                    and isinstance(error, DeploymentError | Unprocessable)
                    and not self._is_too_late()
                )
                if work.handle and (again or self._plan.on_failure != "keep_going"):
                    await self._custody.release_after(error, work.handle.request_id)
                if not again:
                    break
                if self._plan.retry_with is not None:
                    work.request = _another(self._plan.retry_with(work.request, error))
            self._finish(work.outcome(error))

    async def _attempt(self, work: _Job) -> EdgegapError | None:
        """Why it is not READY; None if it is."""
        work.attempts += 1
        work.handle = work.error = None
        plan = self._plan
        try:
            work.handle = await self._deploy(work.request, self._deadline)
            self._custody.take(work.handle.request_id)
            await work.handle.wait_ready(self._time_left(), playable=plan.playable)
        except ClientClosed:
            raise
        except EdgegapError as error:
            work.error = error
            if isinstance(error, Unprocessable) and error.request_id:  # it was made all the same
                work.handle = self._handle(error.request_id)
                self._custody.take(error.request_id)
            if isinstance(error, DeploymentFailed):
                await self._ask_why(error, self._time_left())
            return error
        return None

    def _finish(self, outcome: Outcome) -> None:
        self._works.pop(outcome.index, None)
        self._add(outcome)
        if outcome.error is not None and self._plan.on_failure == "stop_all":
            raise _BatchAborted(outcome.error, by_policy=True)
        self._check_whether_over()

    def _drop(self, outcome: Outcome) -> None:
        """Nobody will be given it."""
        self._stop(outcome.handle)
        if isinstance(outcome.error, MaybeCreated):
            logger.error("what nobody was told of may go on running: %s", outcome.error)

    def _add(self, outcome: Outcome) -> None:
        if self._left:  # it came in the very step in which the block was left
            self._drop(outcome)
            return
        if outcome.is_ready:
            self._ready += 1
        else:
            self._failed += 1
        now = _now()
        self._forget_before(now - _RATE_WINDOW)
        self._recent.append(now)
        self._fresh.append(outcome)
        self._tell()

    def _give_up(self, cause: Exception) -> None:
        """Stops what was not handed over, and gives every request its outcome."""
        fresh, self._fresh = self._fresh, collections.deque()
        for outcome in fresh:
            if outcome.is_ready:
                self._fresh.append(self._not_ready(outcome, cause))
            else:
                self._fresh.append(outcome)
        for work in self._works.values():
            error = work.error or _stopped(cause, work.handle)
            self._stop(work.handle, error)
            self._add(work.outcome(error))
        self._works.clear()
        for request in self._waiting:
            error = request.error or _stopped(cause)
            self._add(Outcome(index=request.index, request=request.given, error=error))
        self._waiting.clear()

    def _stop(self, handle: DeploymentHandle | None, because: EdgegapError | None = None) -> None:
        if handle is None:
            return
        if self._custody.holds(handle.request_id):
            self._stops.append(self._custody.stop(handle.request_id, because))
        elif because is not None:  # `close` stops it, or its own failure did
            self._custody.note(because, handle.request_id)

    # ── time ─────────────────────────────────────────────────────────────────────────────────────

    @property
    def _deadline(self) -> float | None:
        return None if self._plan.timeout is None else self._began + self._plan.timeout

    def _is_too_late(self) -> bool:
        return self._deadline is not None and _now() >= self._deadline

    def _too_late(self) -> WaitTimedOut:
        return WaitTimedOut(f"its turn did not come in {self._plan.timeout:g} s; nothing was sent")

    def _time_left(self) -> float | None:
        left = math.inf if self._deadline is None else self._deadline - _now()
        each = self._plan.timeout_each
        seconds = left if each is None else min(each, left)
        return None if seconds == math.inf else max(0.0, seconds)

    def _check_whether_over(self) -> None:
        if self._begun_all and not self._works:
            self._ended = _now()
            self._over.set()

    def _tell_the_end(self, _: asyncio.Task[None]) -> None:
        for work in self._works.values():  # the block was left, or was to be
            self._stop(work.handle)
        if self._ended is None:
            self._ended = _now()
        self._over.set()
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


def _another(given: object) -> DeployRequest:
    if not isinstance(given, DeployRequest):
        raise InvalidRequest(f"elsewhere returns a DeployRequest, not {given!r}")
    return given


async def _one_by_one(requests: Iterable[AnyRequest]) -> AsyncIterator[AnyRequest]:
    for request in requests:
        yield request


def _first(several: ExceptionGroup[_BatchAborted]) -> _BatchAborted:
    """Why it ended; that something was raised which nobody expects goes before the policy."""
    ends = [end for end in several.exceptions if isinstance(end, _BatchAborted)]
    return min(ends, key=lambda end: end.by_policy)


def _stopped(cause: Exception, handle: DeploymentHandle | None = None) -> BatchStopped:
    error = BatchStopped(
        f"the batch was stopped: {cause}",
        request_id=handle.request_id if handle else "",
        last_status=handle.status if handle else None,
        history=handle.history if handle else (),
        deployment=handle.deployment if handle else None,
    )
    error.__cause__ = cause
    return error


def _now() -> float:
    return asyncio.get_running_loop().time()
