"""The jobs of a batch: each deploys one request, up to its outcome."""

from __future__ import annotations

import asyncio
import functools
import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import attrs

from edgegap_async.api.requests import DeployRequest
from edgegap_async.concurrency import is_cancelled, loop_time
from edgegap_async.deployments.deployer import Deployer
from edgegap_async.deployments.handle import DeploymentHandle, wait_ready
from edgegap_async.errors import (
    ClientClosed,
    DeploymentError,
    DeploymentFailed,
    EdgegapError,
    InvalidRequest,
    Unprocessable,
    WaitTimedOut,
)
from edgegap_async.http.transport import SendState

from .plan import BatchOptions, Outcome
from .source import RequestSource


@attrs.define(eq=False)
class Job:
    """One request in progress."""

    index: int
    request: DeployRequest
    began_at: float
    attempts: int = 0
    handle: DeploymentHandle | None = None
    error: EdgegapError | None = None
    """The error of the newest attempt, as soon as it is known."""
    accepted_at: datetime | None = None
    """When the API accepted the newest attempt; None before."""
    send_state: SendState = attrs.field(factory=SendState)
    """Whether the newest attempt was sent."""

    @property
    def waits_for_limit(self) -> bool:
        """Whether the newest attempt was not sent: it queues, or its time has run out."""
        return not (self.handle or self.error or self.send_state.times_sent)

    def outcome(self, error: EdgegapError | None) -> Outcome:
        """Returns the outcome of the job: an error, or None for READY."""
        history = self.handle.history if self.handle and not error else ()
        return Outcome(
            index=self.index,
            request=self.request,
            handle=self.handle,
            error=error,
            seconds=None if error else loop_time() - self.began_at,
            accepted_at=self.accepted_at,
            ready_at=next((one.at for one in history if one.status.is_ready), None),
            attempts=self.attempts - (not self.handle and not self.send_state.times_sent),
        )


class BatchAborted(Exception):
    """Ends the batch.

    Args:
        cause: why the batch ends.
        by_policy: whether the batch ends as its failure policy says, or for an unexpected error.
    """

    def __init__(self, cause: BaseException, *, by_policy: bool) -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.by_policy = by_policy


class AbortsBatch:
    """A block in which every exception becomes a `BatchAborted`. One object serves all tasks.

    That includes SystemExit and KeyboardInterrupt of the caller's code. From a task they would
    leave the event loop, and once more from the task group, before anything is stopped.
    """

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, problem: BaseException | None, __: object) -> None:
        if isinstance(problem, asyncio.CancelledError) and not is_cancelled():
            # A CancelledError would end this task alone, and the batch would wait for ever.
            cause = RuntimeError("something that the batch waited for was cancelled")
            cause.__cause__ = problem
            raise BatchAborted(cause, by_policy=False) from problem
        passes = BatchAborted | asyncio.CancelledError | GeneratorExit
        if problem is not None and not isinstance(problem, passes):
            raise BatchAborted(problem, by_policy=False) from problem


ABORTS_BATCH: Final = AbortsBatch()


class JobRunner:
    """Takes the requests of one batch, and runs a job for each.

    Args:
        deployer: deploys the requests.
        source: gives the requests.
        options: the options of the batch.
        add_outcome: receives each outcome.
        on_cancelled: called with a job whose task alone the program has cancelled.
    """

    def __init__(
        self,
        deployer: Deployer,
        source: RequestSource,
        options: BatchOptions,
        add_outcome: Callable[[Outcome], None],
        on_cancelled: Callable[[Job], None],
    ) -> None:
        self._source = source
        self._options = options
        self._deployer = deployer
        self._owned = deployer.owned
        self._add_outcome = add_outcome
        self._on_cancelled = on_cancelled
        self._task: asyncio.Task[Any] | None = None  # of the batch
        self._all_begun = False
        self.jobs: dict[int, Job] = {}
        """The requests in progress, by index."""
        self.finished = asyncio.Event()
        """Set when every request has its outcome, or will never have one."""
        self.is_aborting = False
        """Whether a task of the batch has raised, so that the group cancels the others."""
        self.began_at = 0.0  # loop time from which the batch's timeout counts
        self.ended_at: float | None = None  # loop time

    def end(self) -> None:
        """Records that no more outcomes will come."""
        if self.ended_at is None:
            self.ended_at = loop_time()
        self.finished.set()

    async def run(self, group: asyncio.TaskGroup) -> None:
        """Begins a job for each request, at most `concurrency` at once, as tasks of a group.

        Raises:
            BatchAborted: the requests' iterator has raised, or a failure stops the batch.
        """
        self._task = asyncio.current_task()
        job_limit = asyncio.Semaphore(self._options.concurrency)
        while True:
            acquired = await self._acquire(job_limit)
            with ABORTS_BATCH:
                item = await self._source.next(self._deadline)
            if is_cancelled():  # an iterator may suppress the cancellation
                raise asyncio.CancelledError
            if item is None:
                break
            error = item.error or (self._never_begun() if self._is_past_deadline() else None)
            if error is not None:
                if acquired:
                    job_limit.release()
                self.finish(Outcome(index=item.index, request=item.request, error=error))
                continue
            job = self.jobs[item.index] = Job(item.index, item.request, loop_time())
            task = group.create_task(self._run_job(job))
            task.add_done_callback(functools.partial(self._on_job_end, job, job_limit))
        self._all_begun = True
        self._check_finished()

    def _on_job_end(self, job: Job, job_limit: asyncio.Semaphore, task: asyncio.Task[None]) -> None:
        # A callback: a task that is cancelled before it starts runs no code of its own.
        job_limit.release()
        if self.was_cancelled_alone(task):
            self._on_cancelled(job)

    def was_cancelled_alone(self, task: asyncio.Task[None]) -> bool:
        """Whether the program has cancelled a task of the group, and the batch goes on."""
        if not task.cancelled():
            self.is_aborting = self.is_aborting or task.exception() is not None
            return False
        return not self.is_aborting and self._task is not None and not self._task.cancelling()

    async def _acquire(self, job_limit: asyncio.Semaphore) -> bool:
        """Waits until one more job may run, or for the deadline; returns whether it may."""
        try:
            async with asyncio.timeout_at(self._deadline):
                return await job_limit.acquire()
        except TimeoutError:
            return False

    async def _run_job(self, job: Job) -> None:
        """Deploys one request, as often as the options permit, and adds its outcome."""
        options = self._options
        with ABORTS_BATCH:  # `retry_with` may raise, and the client may be closed
            while (error := await self._attempt(job)) is not None:
                is_retried = (
                    job.attempts < options.attempts
                    and isinstance(error, DeploymentError | Unprocessable)
                    and not self._is_past_deadline()
                )
                if job.handle and (is_retried or options.on_failure != "keep_going"):
                    await self._owned.stop_because_of(error, job.handle.request_id)
                if not is_retried:
                    break
                if options.retry_with is not None:
                    job.request = _checked_retry(options.retry_with(job.request, error))
            self.finish(job.outcome(error))

    async def _attempt(self, job: Job) -> EdgegapError | None:
        """Deploys once; returns why the deployment is not READY, or None if it is."""
        job.attempts += 1
        job.handle = job.error = job.accepted_at = None
        job.send_state = SendState()
        try:
            job.handle = await self._deployer.deploy_request(
                job.request,
                self._deadline,
                self._options.timeout,
                ignore_wait_limit=True,
                send_state=job.send_state,
            )
            job.accepted_at = datetime.now(UTC)
            self._owned.add(job.handle.request_id)
            seconds, limit = self._time_limit()
            await wait_ready(job.handle, seconds, self._options.playable, limit)
        except ClientClosed:
            raise
        except EdgegapError as error:
            job.error = error
            if isinstance(error, Unprocessable) and error.request_id:
                # A 422 with a request_id: the API has made a deployment, which is in ERROR.
                job.handle = self._deployer.handle(error.request_id)
                self._owned.add(error.request_id)
            if isinstance(error, DeploymentFailed):
                await self._deployer.fetch_logs(error, self._time_limit()[0])
            return error
        return None

    def finish(self, outcome: Outcome) -> None:
        """Ends a job with its outcome.

        Raises:
            BatchAborted: a failure stops the batch.
        """
        self.jobs.pop(outcome.index, None)
        self._add_outcome(outcome)
        if outcome.error is not None and self._options.on_failure == "stop_all":
            raise BatchAborted(outcome.error, by_policy=True)
        self._check_finished()

    def _check_finished(self) -> None:
        if self._all_begun and not self.jobs:
            self.end()

    # ── time ─────────────────────────────────────────────────────────────────────────────────────

    @property
    def _deadline(self) -> float | None:
        timeout = self._options.timeout
        return None if timeout is None else self.began_at + timeout

    def _is_past_deadline(self) -> bool:
        return self._deadline is not None and loop_time() >= self._deadline

    def _never_begun(self) -> WaitTimedOut:
        return WaitTimedOut(
            f"timeout={self._options.timeout:g} s passed before the deploy; nothing was sent"
        )

    def _time_limit(self) -> tuple[float | None, str]:
        """Returns the seconds that the next wait may take, and the option that limits them."""
        timeout, each = self._options.timeout, self._options.timeout_each
        left = math.inf if self._deadline is None else max(0.0, self._deadline - loop_time())
        if timeout is not None and (each is None or left < each):
            return left, f"timeout={timeout:g} s of the batch"
        return each, "" if each is None else f"timeout_each={each:g} s"


def _checked_retry(request: object) -> DeployRequest:
    if not isinstance(request, DeployRequest):
        raise InvalidRequest(f"retry_with has to return a DeployRequest, not {request!r}")
    return request
