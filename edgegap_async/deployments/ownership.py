"""Tracks who has to stop each deployment: the client, or the caller that it was handed to.

Problem: a deployment without an owner runs, and is paid for, until its maximum duration.

Rule: a deployment has an owner from the moment the API accepts the deploy until the API accepts a
stop. By default the owner is the caller of the deploy: `add_deployed` records HANDED_OVER. `run`,
batches and pools make the client the owner (`OwnedDeployments.add`) until they stop the deployment
or hand it over. If the caller of a deploy is cancelled before it has the handle, the client stops
the deployment. A stop is a task of the client (`BackgroundWork`): it goes on if the caller that
waits is cancelled, also the caller of `DeploymentHandle.stop`.

A program may end by cancelling all of its tasks. `asyncio.run` does so after SystemExit and after a
second Ctrl-C, and so do shutdown handlers with `asyncio.all_tasks()`. The tasks that stop servers
are among them. So work whose task the program cancels begins anew after a short delay
(`PersistentTask`), until the client is closed. Only `BackgroundWork.cancel_all` ends work for good.

Consequences:

- `DeploymentRegister` (`register`) has one record for each deployment, with its state.
- `OwnedDeployments` stops deployments. `client.close()` stops what the client still owns, waits for
  the stops in progress, and logs each deployment that may go on running.
- A stop in the background that fails is repeated until the client is closed, unless the API itself
  refuses the token (401, 403). So is a stop whose task the program cancels.
- A 404 is believed only from the record's `believe_404_from` on.
- A 400 or 404 whose text is not the API's may come from a proxy. The client believes it only if
  the list of deployments does not show the deployment either.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable, Collection, Coroutine
from typing import Any, Final, TypeAlias, TypeGuard

from edgegap_async.concurrency import PersistentTask, loop_time, wait_within
from edgegap_async.errors import (
    CallError,
    ClientClosed,
    DeploymentError,
    EdgegapError,
    Forbidden,
    Gone,
    NotFound,
    Refused,
    Unauthorized,
    Unprocessable,
    UnreadableAnswer,
    log_fields,
)
from edgegap_async.polling.tracker import is_missing, may_mean_missing

from .register import DeploymentRegister, DeploymentState

logger = logging.getLogger(__name__)

_FIRST_STOP_GAP: Final = 1.0  # seconds from a stop in the background that failed to the next one
_MAX_STOP_GAP: Final = 30.0  # seconds; the gaps double
_STOP_RETRY_INTERVAL: Final = 0.5  # seconds between stops that the API answers with an early 404
_CLOSED_TOO_SOON: Final = "the client was closed before the API answered"
Work: TypeAlias = Callable[[], Coroutine[Any, Any, None]]
"""Begins the work; called again if the program cancels the task of the work."""


class BackgroundWork:
    """The work of one client that no caller has to wait for."""

    def __init__(self) -> None:
        self._tasks = set[PersistentTask]()
        self.is_cancelling = False
        """Whether `cancel_all` was called. Work that is cancelled then does not begin anew."""
        self.cancelled = set[str]()
        """The names of the work that `cancel_all` has cancelled."""

    def begin(
        self, work: Work, what: str, on_failure: Callable[[BaseException], None]
    ) -> asyncio.Future[None]:
        """Begins work, and returns a future of its end, which may be left alone.

        The future is cancelled only by `cancel_all`.

        Args:
            work: begins the work.
            what: names the work in the log.
            on_failure: called with the error if the work fails; it may begin other work.
        """
        task = PersistentTask(work, what)
        task.is_cancelling = self.is_cancelling
        self._tasks.add(task)
        task.ended.add_done_callback(functools.partial(self._on_end, task, on_failure))
        return task.ended

    def _on_end(
        self,
        task: PersistentTask,
        on_failure: Callable[[BaseException], None],
        ended: asyncio.Future[None],
    ) -> None:
        self._tasks.discard(task)
        if ended.cancelled():
            self.cancelled.add(task.what)
        elif (error := ended.exception()) is not None:
            on_failure(error)

    async def drain(self) -> None:
        """Begins work that waits for its delay, and returns when no work is in progress."""
        for task in self._tasks:
            task.resume()
        while self._tasks:  # work may begin other work
            await asyncio.wait([task.ended for task in self._tasks])

    async def cancel_all(self) -> None:
        """Cancels the work in progress, and notes its names in `cancelled`."""
        if not self._tasks:
            return
        if not self.is_cancelling:
            # A task that has not begun could not cancel the task that it waits for.
            await asyncio.sleep(0)
            self.is_cancelling = True
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait([task.ended for task in tasks])


class OwnedDeployments:
    """Stops the deployments that one client owns.

    Relay sessions are owned and deleted in the same way (`relays`).

    Args:
        register: the deployments of the client.
        stop: makes one call that stops a deployment, also while the client closes. It gets the
            deployment, and where its logs are to be stored (see `deployments.stop`).
        is_listed: returns whether a list shows the deployment, also while the client closes.
        owner: the name of the program, for the log; None without an owner.
    """

    def __init__(
        self,
        register: DeploymentRegister,
        stop: Callable[[str, str | bool | None], Awaitable[object]],
        is_listed: Callable[[str], Awaitable[bool]],
        owner: str | None = None,
    ) -> None:
        self.owner: Final = owner
        self._register = register
        self._stop_once = stop
        self._is_listed = is_listed
        self._background = BackgroundWork()
        self._stops: dict[str, asyncio.Future[None]] = {}  # the newest stop of each deployment
        self._repeated_stops = set[str]()
        self._closing = asyncio.Event()
        self.closed = False
        """Whether the client is closed, or is being closed."""

    def add(self, request_id: str) -> None:
        """Makes the client the owner of a deployment."""
        self._register.set_owned(request_id)

    def hand_over(self, request_id: str) -> None:
        """Makes the caller the owner of a deployment, if the client owns it."""
        if request_id in self:
            self._register.set_handed_over(request_id)

    def has_known(self, request_id: str) -> bool:
        """Returns whether the client has deployed or adopted a deployment, or has stopped it."""
        return request_id in self._register

    def __contains__(self, request_id: str) -> bool:
        """Returns whether the client has to stop a deployment."""
        return self._register.state(request_id) is DeploymentState.OWNED

    # ── stops in the background ──────────────────────────────────────────────────────────────────

    def begin_stop(
        self,
        request_id: str,
        problem: EdgegapError | None = None,
        *,
        container_log_storage: str | bool | None = None,
    ) -> asyncio.Future[None]:
        """Stops a deployment in the background, and returns a future of the first stop's end.

        If the first stop fails, it is repeated until the client is closed. The future may be left
        alone, and is cancelled only if the client is closed before the API answers.

        Args:
            request_id: which deployment.
            problem: why it is stopped; the end of the stop is recorded on this error.
            container_log_storage: as for `deployments.stop`.
        """
        self._register.begin_stop(request_id)
        stop = functools.partial(self._stop, request_id, container_log_storage)
        on_failure = functools.partial(self._on_failed_stop, request_id)
        stopping = self._background.begin(stop, request_id, on_failure)
        self._stops[request_id] = stopping
        stopping.add_done_callback(functools.partial(self._forget_stop, request_id))
        if problem is not None:
            self.record_stop_on(problem, request_id)
        return stopping

    def stop_surplus(
        self,
        request_id: str,
        kept: str | None,
        reason: str = "a deploy was carried out twice",
        *,
        is_own: bool = False,
    ) -> None:
        """Stops a surplus deployment in the background, unless the register has it.

        Args:
            request_id: which deployment.
            kept: id of the deployment that is kept in its place; None for none.
            reason: why there are two, for the log.
            is_own: whether it is stopped also if the register has it.
        """
        if is_own or request_id not in self._register:
            logger.warning(
                "%s is stopped: %s, and %s is kept",
                request_id,
                reason,
                kept or "no deployment",
                extra=log_fields(request_id=request_id, kept=kept, owner=self.owner),
            )
            self.begin_stop(request_id)

    def _forget_stop(self, request_id: str, stopping: asyncio.Future[None]) -> None:
        if self._stops.get(request_id) is stopping:
            del self._stops[request_id]

    async def _stop(
        self,
        request_id: str,
        container_log_storage: str | bool | None = None,  # noqa: FBT001 - as `deployments.stop`
    ) -> None:
        believe_404_from = self._register.begin_stop(request_id)
        stop = functools.partial(self._stop_once, request_id, container_log_storage)
        confirm = functools.partial(self._is_listed, request_id)
        await stop_until_confirmed(stop, confirm, believe_404_from=believe_404_from)
        self._register.end(request_id)

    def _on_failed_stop(self, request_id: str, error: BaseException) -> None:
        if self._background.is_cancelling or not _is_worth_repeating(error):
            self._on_lost(request_id, error)
        elif request_id not in self._repeated_stops:
            self._repeated_stops.add(request_id)
            self._log_repeated(request_id, error)
            repeating = self.in_background(
                functools.partial(self._repeat_stop, request_id), request_id
            )
            repeating.add_done_callback(lambda _: self._repeated_stops.discard(request_id))

    async def _repeat_stop(self, request_id: str) -> None:
        gap = _FIRST_STOP_GAP
        while self._register.state(request_id) is not DeploymentState.ENDED:
            if self.closed:
                await asyncio.sleep(min(gap, _FIRST_STOP_GAP))
            else:
                await self.sleep_until_closed(gap)
            gap = min(gap * 2, _MAX_STOP_GAP)
            try:
                await self._stop(request_id)
            except EdgegapError as error:
                if not _is_worth_repeating(error):
                    raise

    async def keep_stopping(self, request_id: str) -> None:
        """Stops a deployment in the task of the caller, and repeats a stop that fails.

        Raises:
            EdgegapError: the API does not accept the token, or the client may not stop deployments.
        """
        try:
            await self._stop(request_id)
        except EdgegapError as error:
            if not _is_worth_repeating(error):
                raise
            self._log_repeated(request_id, error)
            await self._repeat_stop(request_id)

    def _log_repeated(self, request_id: str, error: EdgegapError) -> None:
        logger.warning(
            "%s could not be stopped yet, the stop is repeated: %s",
            request_id,
            error.reason,
            extra=log_fields(error, request_id=request_id, owner=self.owner),
        )

    def in_background(self, work: Work, what: str) -> asyncio.Future[None]:
        """Runs work that goes on when its caller is cancelled, and returns a future of its end.

        Args:
            work: begins the work, which ends the deployment `what`.
            what: names the deployment in the log if the work fails.
        """
        return self._background.begin(work, what, functools.partial(self._on_lost, what))

    def _on_lost(self, what: str, error: BaseException) -> None:
        logger.error(
            "%s may go on running: it could not be stopped: %s",
            what,
            error,
            extra=log_fields(error, request_id=what, owner=self.owner),
        )
        self._register.lose(what)

    async def sleep_until_closed(self, seconds: float) -> None:
        """Sleeps, and returns early when the client is closed."""
        await wait_within(asyncio.timeout(seconds), self._closing.wait())

    # ── callers that wait for a stop ─────────────────────────────────────────────────────────────

    def record_stop_on(self, problem: EdgegapError, request_id: str) -> None:
        """Records on an error how the stop in progress ends; does nothing if there is none."""
        if stopping := self._stops.get(request_id):
            stopping.add_done_callback(functools.partial(_record_stop_at_end, problem, request_id))

    async def stop_and_wait(
        self, request_id: str, begin_stop: Callable[[str], asyncio.Future[None]] | None = None
    ) -> None:
        """Stops a deployment; the stop goes on in the background if the caller is cancelled.

        Args:
            request_id: which deployment.
            begin_stop: called in place of the method, for example to count the stop.

        Raises:
            EdgegapError: the deployment could not be stopped.
        """
        if request_id in self or not self.closed:
            stopping = (begin_stop or self.begin_stop)(request_id)
            await asyncio.wait([stopping])
            if stopping.cancelled():  # by `close`, which does not cancel the caller
                raise ClientClosed(f"the client was closed before {request_id} was stopped")
            await stopping

    async def stop_because_of(
        self,
        problem: BaseException,
        request_id: str,
        begin_stop: Callable[[str], asyncio.Future[None]] | None = None,
    ) -> None:
        """Stops a deployment as `stop_and_wait` does, and records on an error how the stop ended.

        Args:
            problem: why the deployment is stopped. It gets a note if the stop fails.
            request_id: which deployment.
            begin_stop: called in place of the method, for example to count the stop.
        """
        try:
            await self.stop_and_wait(request_id, begin_stop)
        except EdgegapError as error:
            _record_stop_on(problem, request_id, error)
        else:
            _record_stop_on(problem, request_id, None)

    # ── the end of the client ────────────────────────────────────────────────────────────────────

    def close(self) -> None:
        """Stops in the background every deployment that the client owns."""
        self.closed = True
        self._closing.set()
        for request_id in self._register.owned():
            self.begin_stop(request_id)

    async def drain(self) -> None:
        """Returns when no stop or other work is in progress in the background."""
        await self._background.drain()

    async def cancel_all(self) -> None:
        """Cancels the work in the background. One line of the log names the deployments."""
        await self._background.cancel_all()
        if cancelled := sorted(self._background.cancelled):
            self._background.cancelled.clear()
            logger.error(
                "%s may go on running: %s",
                ", ".join(cancelled),
                _CLOSED_TOO_SOON,
                extra=log_fields(request_ids=cancelled, owner=self.owner),
            )
            for what in cancelled:
                self._register.lose(what)


def _record_stop_at_end(
    problem: EdgegapError, request_id: str, stopping: asyncio.Future[None]
) -> None:
    error = _CLOSED_TOO_SOON if stopping.cancelled() else stopping.exception()
    _record_stop_on(problem, request_id, error)


def _record_stop_on(problem: BaseException, request_id: str, error: object) -> None:
    """Records how a stop has ended: a note for a failure, `problem.stopped` for a success.

    Args:
        problem: why the deployment was stopped.
        request_id: which deployment.
        error: why the stop failed; None if it succeeded.
    """
    if error is not None:
        problem.add_note(f"{request_id} {_failed_stop(error)}")
    elif isinstance(problem, DeploymentError | Unprocessable) and problem.request_id == request_id:
        problem.stopped = True  # the error of another deployment says how that one ended


def _failed_stop(error: object) -> str:
    """Returns the text about a stop that failed, which the client may repeat."""
    if isinstance(error, BaseException) and _is_worth_repeating(error):
        text = "could not be stopped yet, the client repeats the stop until it is closed"
        return f"{text}: {error.reason}"
    return f"could not be stopped: {error}"


def _is_worth_repeating(error: BaseException) -> TypeGuard[CallError]:
    """Returns whether a stop that failed may succeed later, in the same client."""
    is_refusal = isinstance(error, Unauthorized | Forbidden) and error.is_certain
    return isinstance(error, CallError) and not is_refusal


async def stop_until_confirmed(
    stop: Callable[[], Awaitable[object]],
    confirm: Callable[[], Awaitable[bool]],
    *,
    believe_404_from: float,
    is_known: bool = True,
) -> None:
    """Stops a deployment, and repeats the stop while the API may not know the deployment yet.

    Args:
        stop: makes one call to the API.
        confirm: returns whether the list of deployments shows the deployment.
        believe_404_from: loop time from which the answer "no such deployment" is believed.
        is_known: whether the deployment has existed, so that its absence is its end.

    Raises:
        Refused: the API does not know the deployment, and `is_known` is False.
        UnreadableAnswer: the answer says that the deployment does not exist, in words that are not
            the API's, and the list shows it.
    """
    while True:
        try:
            await stop()
        except Refused as error:
            if not may_mean_missing(error):
                raise
            if is_missing(error, loop_time(), believe_404_from):
                if error.is_certain or not await confirm():
                    # An earlier attempt, whose answer was lost, may have stopped it.
                    if is_known or isinstance(error, Gone) or error.attempts > 1:
                        return
                    raise
                if not isinstance(error, Gone | NotFound):
                    raise
                raise UnreadableAnswer(
                    f"{error.message}; but the list shows it",
                    operation=error.operation,
                    method=error.method,
                    path=error.path,
                    status=error.status,
                    request_id=error.request_id,
                    attempts=error.attempts,
                ) from None
        else:
            return
        await asyncio.sleep(_STOP_RETRY_INTERVAL)


async def wait_for_stops(
    stops: Collection[asyncio.Future[None]], problem: BaseException | None = None
) -> None:
    """Waits for stops in progress, which go on if the caller is cancelled.

    Args:
        stops: futures that `OwnedDeployments.begin_stop` has returned.
        problem: an earlier error, which gets a note for each stop that fails.

    Raises:
        ExceptionGroup: there was no earlier error, and some deployments could not be stopped.
    """
    if stops:
        await asyncio.wait(stops)
    failures = [
        error
        for task in stops
        if not task.cancelled() and isinstance(error := task.exception(), Exception)
    ]
    if problem is not None:
        for error in failures:
            problem.add_note(f"a deployment {_failed_stop(error)}")
    elif failures:
        raise ExceptionGroup("some deployments could not be stopped", failures)
