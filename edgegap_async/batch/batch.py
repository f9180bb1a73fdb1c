"""Makes many deployments as one piece of work: `client.deploy_many`.

Problem: many deploys fail one by one, and the program that waits for them may be cancelled at any
step. No deployment may be lost.

Rule: each request becomes one outcome, a READY deployment or an error. The batch owns a deployment
until it hands over the outcome, through the loop over the batch or `all()`; then the caller owns
the deployment. However the batch ends (the end of the block, an error in it, a cancellation,
`client.close()`), it stops the deployments that it owns, and no others.

Consequences: one task takes the requests, while fewer than `concurrency` are in progress. Each
request in progress is a task from the deploy to the outcome, which is all that a waiting deployment
costs beside its handle. All are children of one task group: if one raises, because the failure
policy says so, the group cancels the others. The client undoes a deploy that is cancelled while it
is in progress, as for every caller.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Final, Self

import attrs

from edgegap_async.api.validation import check_number
from edgegap_async.concurrency import ChangeEvent, loop_time, wait_within
from edgegap_async.deployments.deployer import Deployer
from edgegap_async.deployments.handle import DeploymentHandle
from edgegap_async.deployments.ownership import wait_for_stops
from edgegap_async.errors import BatchStopped, ClientClosed, EdgegapError, MaybeCreated, log_fields

from .jobs import ABORTS_BATCH, BatchAborted, Job, JobRunner
from .plan import AnyRequests, BatchOptions, Outcome, Progress
from .source import RequestSource

logger = logging.getLogger(__name__)

_RATE_WINDOW: Final = 10.0  # seconds over which the rate is measured
_END_TIMEOUT: Final = 10.0  # seconds that a cancelled batch may take to end


class Batch:
    """The deployments of one `client.deploy_many`: an iterator over their outcomes.

    ::

        async with client.deploy_many(requests) as batch:
            async for outcome in batch:
                ...

    The loop gives the outcomes as they come, `all` gives them in the order of the requests. The
    caller owns the deployment of each outcome that the loop or `all` has given. When the block is
    left, the batch stops every other deployment; a deploy that the API has not accepted yet is
    undone in the background.
    """

    def __init__(
        self,
        deployer: Deployer,
        requests: AnyRequests,
        options: BatchOptions,
    ) -> None:
        self._client = deployer.client
        self._source = RequestSource(requests)
        self._options = options
        self._owned = deployer.owned
        self._runner = JobRunner(
            deployer, self._source, options, self._add_outcome, self._end_cancelled
        )
        self._cancelled_abort: BatchAborted | None = None  # the end of a job that was cancelled
        self._unclaimed = collections.deque[Outcome]()  # outcomes that were not handed over
        self._stopped_at_end: list[DeploymentHandle] = []  # handed over with stop_at_end
        self._stops: list[asyncio.Future[None]] = []
        self._ready = self._failed = 0
        self._outcome_times = collections.deque[float]()  # of the last _RATE_WINDOW seconds
        self._changed = ChangeEvent()  # notified at each outcome
        self._task: asyncio.Task[None] | None = None
        self._exited = False  # whether the block was left
        self._error: BaseException | None = None  # has ended the batch
        self._reported = False  # whether the caller got this error

    def __repr__(self) -> str:
        total = "?" if self._source.total is None else self._source.total
        return f"<Batch of {total}: {self._ready} ready, {self._failed} failed>"

    async def __aenter__(self) -> Self:
        """Starts the batch.

        Raises:
            RuntimeError: the batch was entered before.
        """
        if self._task is not None:
            raise RuntimeError("a batch can be used once: call deploy_many again")
        self._client.check_loop()
        self._runner.began_at = loop_time()
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(self._on_end)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        _: TracebackType | None,
    ) -> None:
        task = self._entered()
        task.cancel()
        self._exited = True
        for outcome in self._unclaimed:
            self._discard(outcome)
        self._unclaimed.clear()
        for handle in self._stopped_at_end:
            self._stop(handle)
        await asyncio.wait([task], timeout=_END_TIMEOUT)
        if not task.done():  # the caller's code suppresses the cancellation
            logger.warning(
                "a batch does not end within %g s of its cancellation",
                _END_TIMEOUT,
                extra=log_fields(seconds=_END_TIMEOUT),
            )
            self._stop_jobs()
        await wait_for_stops(self._stops, problem)
        if problem is None and not self._reported:
            self._raise_error()
        elif problem is not None and self._error is not None and not self._reported:
            problem.add_note(f"the batch had ended with {self._error!r}")

    # ── outcomes ─────────────────────────────────────────────────────────────────────────────────

    def __aiter__(self) -> Self:
        """Returns the batch, which is its own iterator."""
        return self

    async def __anext__(self) -> Outcome:
        """Returns the next outcome, in the order in which they come. The caller then owns it.

        Raises:
            StopAsyncIteration: every outcome was handed over.
            ClientClosed: the client was closed meanwhile.
            RuntimeError: the batch was not entered.
            BaseException: what the requests' iterator, `retry_with`, `on_progress` or a check has
                raised, also SystemExit.
        """
        task = self._entered()
        while not self._unclaimed and not task.done():
            await self._changed.wait()
        if not self._unclaimed:
            self._raise_error()
            raise StopAsyncIteration
        return self._hand_over(self._unclaimed.popleft())

    async def all(self) -> tuple[Outcome, ...]:
        """Waits for all outcomes, and returns them in the order of the requests.

        Outcomes that a loop over the batch was given before are not among them. Without a block
        (`await client.deploy_many(requests).all()`) this method starts and ends the batch.

        Raises:
            ClientClosed: the client was closed meanwhile.
            RuntimeError: `stop_at_end` is set, and there is no block.
            BaseException: what the requests' iterator, `retry_with`, `on_progress` or a check has
                raised, also SystemExit. In a block the loop still gives the outcomes that there
                are. Without a block they are lost, and their deployments are stopped.
        """
        if self._task is None:
            if self._options.stop_at_end:
                raise RuntimeError("stop_at_end needs a block: `async with client.deploy_many(…)`")
            await self.__aenter__()
            try:
                return await self.all()  # afterwards there is nothing to stop
            except BaseException as problem:
                await self.__aexit__(type(problem), problem, None)
                raise
        task = self._entered()
        while not task.done():
            await self._changed.wait()
        self._raise_error()
        outcomes = sorted(self._unclaimed, key=lambda outcome: outcome.index)
        self._unclaimed.clear()
        return tuple(self._hand_over(outcome) for outcome in outcomes)

    def _hand_over(self, outcome: Outcome) -> Outcome:
        handle, owned = outcome.handle, self._owned
        if handle is None:
            return outcome
        if outcome.is_ready and owned.closed and handle.request_id not in owned:
            return self._as_stopped(outcome, ClientClosed("the client was closed meanwhile"))
        if self._options.stop_at_end:
            self._stopped_at_end.append(handle)
        else:
            owned.hand_over(handle.request_id)
        return outcome

    def _as_stopped(self, outcome: Outcome, cause: BaseException) -> Outcome:
        """Stops a READY deployment that was not handed over, and returns its new outcome."""
        self._ready, self._failed = self._ready - 1, self._failed + 1
        error = _batch_stopped(cause, outcome.handle)
        self._stop(outcome.handle, error)
        return attrs.evolve(outcome, error=error, seconds=None)

    def _entered(self) -> asyncio.Task[None]:
        if self._task is None:
            raise RuntimeError("use it as `async with client.deploy_many(…) as batch`")
        self._client.check_loop()
        return self._task

    def _raise_error(self) -> None:
        """Raises the error that has ended the batch, if one has."""
        self._reported = True
        if self._error is not None:
            raise self._error

    # ── progress ─────────────────────────────────────────────────────────────────────────────────

    @property
    def progress_now(self) -> Progress:
        """The progress of the batch now."""
        runner = self._runner
        now = loop_time() if runner.ended_at is None else runner.ended_at
        self._forget_outcomes_before(now - _RATE_WINDOW)
        elapsed = now - runner.began_at
        sent = [job for job in runner.jobs.values() if not job.waits_for_limit]
        handles = (job.handle for job in sent)
        remaining = self._source.remaining
        return Progress(
            total=self._source.total,
            waiting=None if remaining is None else remaining + len(runner.jobs) - len(sent),
            under_way=collections.Counter(handle.status if handle else None for handle in handles),
            ready=self._ready,
            failed=self._failed,
            elapsed=elapsed,
            rate=len(self._outcome_times) / min(_RATE_WINDOW, elapsed) if elapsed else 0.0,
        )

    def _forget_outcomes_before(self, moment: float) -> None:
        while self._outcome_times and self._outcome_times[0] < moment:
            self._outcome_times.popleft()

    async def progress(self, every: float = 0.5) -> AsyncIterator[Progress]:
        """Yields the progress now, at intervals, and when the batch ends. Claims no outcome.

        Args:
            every: seconds between two values, above 0.

        Raises:
            InvalidRequest: `every` cannot be used.
            RuntimeError: the batch was not entered.
        """
        check_number("every", every, above=0)
        self._entered()
        while not self._runner.finished.is_set():
            yield self.progress_now
            await wait_within(asyncio.timeout(every), self._runner.finished.wait())
        yield self.progress_now

    async def _report_progress(self, on_progress: Callable[[Progress], object]) -> None:
        with ABORTS_BATCH:
            async for progress in self.progress():
                on_progress(progress)

    def _begin_reports(
        self, group: asyncio.TaskGroup, on_progress: Callable[[Progress], object]
    ) -> None:
        def ended(task: asyncio.Task[None]) -> None:
            if self._runner.was_cancelled_alone(task) and not self._runner.finished.is_set():
                self._begin_reports(group, on_progress)

        group.create_task(self._report_progress(on_progress)).add_done_callback(ended)

    # ── jobs ─────────────────────────────────────────────────────────────────────────────────────

    async def _run(self) -> None:
        """Runs the batch until every request has its outcome, or an error ends the batch."""
        self._task = asyncio.current_task()  # an eager task begins before `__aenter__` knows it
        on_progress = self._options.on_progress
        abort: BatchAborted | None = None
        try:
            with self._client.until_closed():
                try:
                    async with asyncio.TaskGroup() as group:
                        if on_progress is not None:
                            self._begin_reports(group, on_progress)
                        try:
                            await self._runner.run(group)
                        except BaseException:
                            self._runner.is_aborting = True
                            raise
                except* BatchAborted as aborts:
                    abort = _most_important(aborts)
        except ClientClosed as closed:
            abort = BatchAborted(closed, by_policy=False)
        except asyncio.CancelledError:
            abort = self._cancelled_abort
            if abort is None or self._exited:
                raise
        if abort is None:
            return
        if not abort.by_policy:
            self._error = abort.cause
        self._abort(abort.cause)
        if not isinstance(abort.cause, Exception):
            logger.error(
                "a batch is stopped: the caller's code has raised %r",
                abort.cause,
                extra=log_fields(abort.cause),
            )
        if abort.by_policy and on_progress is not None:
            try:
                on_progress(self.progress_now)
            except BaseException as error:  # noqa: BLE001 - the caller of the batch gets it
                self._error = error
        if self._stops:
            # Leaving the block cancels this wait; __aexit__ then waits for the stops.
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait(self._stops)

    def _add_outcome(self, outcome: Outcome) -> None:
        if self._exited:  # the outcome came in the same step in which the block was left
            self._discard(outcome)
            return
        if outcome.is_ready:
            self._ready += 1
        else:
            self._failed += 1
        now = loop_time()
        self._forget_outcomes_before(now - _RATE_WINDOW)
        self._outcome_times.append(now)
        self._unclaimed.append(outcome)
        self._changed.notify()

    def _end_cancelled(self, job: Job) -> None:
        """Stops the deployment of a job whose task alone the program has cancelled."""
        if job.index not in self._runner.jobs:
            return
        message = "the program has cancelled the task of this request"
        stopped = BatchStopped.of(job.handle, message) if job.handle else BatchStopped(message)
        error = job.error or stopped
        self._stop(job.handle, error)
        try:
            self._runner.finish(job.outcome(error))
        except BatchAborted as abort:
            self._cancelled_abort = abort
            self._entered().cancel()

    def _discard(self, outcome: Outcome) -> None:
        """Stops the deployment of an outcome that the caller will not get."""
        self._stop(outcome.handle)
        if isinstance(outcome.error, MaybeCreated):
            logger.error(
                "a deployment of a batch may go on running: %s",
                outcome.error,
                extra=log_fields(outcome.error),
            )

    def _abort(self, cause: BaseException) -> None:
        """Stops what was not handed over, and adds the outcome of every other request."""
        self._unclaimed = collections.deque(
            self._as_stopped(outcome, cause) if outcome.is_ready else outcome
            for outcome in self._unclaimed
        )
        for job in self._runner.jobs.values():
            error = job.error or _batch_stopped(cause, job.handle)
            self._stop(job.handle, error)
            self._add_outcome(job.outcome(error))
        self._runner.jobs.clear()
        for item in self._source.drain():
            error = item.error or _batch_stopped(cause)
            self._add_outcome(Outcome(index=item.index, request=item.request, error=error))

    def _stop(self, handle: DeploymentHandle | None, problem: EdgegapError | None = None) -> None:
        if handle is None:
            return
        if handle.request_id in self._owned:
            self._stops.append(self._owned.begin_stop(handle.request_id, problem))
        elif problem is not None:  # its own failure or `close` stops it already
            self._owned.record_stop_on(problem, handle.request_id)

    def _stop_jobs(self) -> None:
        for job in self._runner.jobs.values():
            self._stop(job.handle)

    def _on_end(self, task: asyncio.Task[None]) -> None:
        self._stop_jobs()  # the block was left, or a task was cancelled from outside
        if task.cancelled():
            if not self._exited:
                self._error = BatchStopped("the program has cancelled the task of the batch")
        elif self._error is None:
            self._error = task.exception()
        self._runner.end()
        self._changed.notify()


def _most_important(aborts: ExceptionGroup[BatchAborted]) -> BatchAborted:
    """Returns an unexpected error if there is one, else a failure that the policy provides for."""
    found = [abort for abort in aborts.exceptions if isinstance(abort, BatchAborted)]
    return min(found, key=lambda abort: abort.by_policy)


def _batch_stopped(cause: BaseException, handle: DeploymentHandle | None = None) -> BatchStopped:
    message = f"the batch was stopped: {cause}"
    error = BatchStopped.of(handle, message) if handle else BatchStopped(message)
    error.__cause__ = cause
    return error
