"""Tracks who has to stop each deployment: the client, or the caller that it was handed to.

Problem: a deployment without an owner runs, and is paid for, until its maximum duration.

Rule: a deployment has an owner from the moment the API accepts the deploy until the API accepts a
stop. By default the owner is the caller of the deploy: `add_deployed` records HANDED_OVER. `run`,
batches and pools make the client the owner (`OwnedDeployments.add`) until they stop the deployment
or hand it over. If the caller of a deploy is cancelled before it has the handle, the client stops
the deployment. A stop is a task of the client (`background`): it goes on if the caller that waits
is cancelled, also the caller of `DeploymentHandle.stop`.

Consequences:

- `DeploymentRegister` has one record for each deployment that the client has deployed or adopted,
  or that `recover` has given to the caller, with its state. `reap` leaves these alone, `recover`
  all but its own, and `Guard.max_live` counts them until they end.
- `OwnedDeployments` stops deployments. `client.close()` stops what the client still owns, waits for
  the stops in progress, and logs each deployment that may go on running.
- A stop in the background that fails is repeated until the client is closed, unless the API itself
  refuses the token (401, 403). So is a stop whose task the program cancels.
- Right after a deploy the API may answer 404 although the deployment exists. The client believes
  such an answer only from the record's `believe_404_from` on: `PollingPolicy.not_found_grace`
  seconds (10 s) after the deploy, or after the first stop of a deployment that it did not deploy.
- A 400 or 404 whose text is not the API's may come from a proxy. The client believes it only if
  the list of deployments does not show the deployment either.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import functools
import logging
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection
from typing import Final

import attrs

from edgegap_async.api.models import Deployment, DeploymentRow, Status, StatusChange
from edgegap_async.api.operations import GET_DEPLOYMENT, STOP_DEPLOYMENT
from edgegap_async.concurrency import loop_time
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
from edgegap_async.observability.observer import ObservedCall, Observer
from edgegap_async.polling.tracker import is_missing, may_mean_missing

from .background import BackgroundWork, Work
from .lives import DeploymentLives

logger = logging.getLogger(__name__)

_MAX_ENDED: Final = 20_000  # id and tag of 10,000 deployments: 4 minutes of 40 deploys a second
# Deployments that have not ended, as far as is known: 22 MB. More are handed over and their ends
# cannot be learnt, because the API refuses status and list requests.
_MAX_LIVE: Final = 100_000
_FIRST_STOP_GAP: Final = 1.0  # seconds from a stop in the background that failed to the next one
_MAX_STOP_GAP: Final = 30.0  # seconds; the gaps double
_STOP_RETRY_INTERVAL: Final = 0.5  # seconds between stops that the API answers with an early 404
# seconds after `believe_404_from` before a 404 to a status request counts as the end; no API hides
# for longer what runs
_STATUS_EXTRA_GRACE: Final = 300.0
_CLOSED_TOO_SOON: Final = "the client was closed before the API answered"


class DeploymentState(enum.Enum):
    """Where a deployment is between its deploy and its end."""

    DEPLOYING = "deploying"
    """The deploy is in progress. The record has the operation tag, because no id is known."""
    OWNED = "owned"
    """The client has to stop the deployment."""
    RECOVERED = "recovered"
    """`client.recover` has given the deployment to the caller, and does so again."""
    HANDED_OVER = "handed over"
    """The caller has the deployment, and has to stop it."""
    STOPPING = "stopping"
    """The client is stopping the deployment, or a stop has failed (see the log)."""
    ENDED = "ended"
    """The API has accepted a stop, or has said that the deployment is over."""


@attrs.define(eq=False, repr=False)
class _Record:
    state: DeploymentState
    believe_404_from: float | None = None  # loop time; None before the deploy or the first stop
    is_shown: bool = False  # whether a status request has found the deployment


class DeploymentRegister:
    """The deployments that one client has deployed or adopted, by id.

    A deploy in progress is in the register by its operation tag. The register remembers 20,000 ids
    and operation tags that have ended: two for each of the last 10,000 deployments. It holds up to
    100,000 that have not; beyond, the oldest that was handed over counts as ended. The deployer
    checks for ends from 1,000 on, so that happens only where the API refuses to tell.

    Args:
        not_found_grace: seconds during which the answer "no such deployment" is not believed.
        lives: reports the lives of the deployments.
    """

    def __init__(self, not_found_grace: float, lives: DeploymentLives) -> None:
        self._not_found_grace = not_found_grace
        self._lives = lives
        self._live = dict[str, _Record]()
        # the id of the deployment that a deploy has made, by operation tag; None for ids
        self._ended = OrderedDict[str, str | None]()

    def __len__(self) -> int:
        """Returns how many deployments have not ended, deploys in progress included."""
        return len(self._live)

    def __contains__(self, key: str) -> bool:
        """Returns whether an id or operation tag is known, also of a deployment that has ended."""
        return key in self._live or key in self._ended

    def state(self, key: str) -> DeploymentState | None:
        """Returns the state of an id or operation tag; None if it is not known."""
        record = self._live.get(key)
        if record is not None:
            return record.state
        return DeploymentState.ENDED if key in self._ended else None

    def is_live(self, request_id: str) -> bool:
        """Returns whether a deployment has neither ended nor is being stopped."""
        of = DeploymentState
        return self.state(request_id) in {of.OWNED, of.RECOVERED, of.HANDED_OVER}

    def begin_deploy(
        self, operation_tag: str, application: str | None = None, version: str | None = None
    ) -> None:
        """Records a deploy in progress."""
        self._live[operation_tag] = _Record(DeploymentState.DEPLOYING)
        self._lives.deploying(operation_tag, application, version)

    def add_deployed(self, request_id: str, operation_tag: str | None = None) -> float:
        """Records an accepted deploy, whose caller is the owner unless the client is made it.

        Args:
            request_id: id of the deployment.
            operation_tag: the tag of the deploy in progress, which ends.

        Returns:
            The loop time from which a 404 is believed.
        """
        self._lives.created(request_id, operation_tag)
        if operation_tag is not None:
            self.end(operation_tag, request_id)
        self._ended.pop(request_id, None)
        self._live.setdefault(request_id, _Record(DeploymentState.HANDED_OVER))
        if len(self._live) > _MAX_LIVE:
            self._end_oldest_handed_over()
        return self._begin_grace(request_id)

    def add_recovered(self, request_id: str) -> None:
        """Records a deployment that `client.recover` gives to the caller."""
        if self.may_recover(request_id):  # a pool may have adopted it meanwhile
            self._set(request_id, DeploymentState.RECOVERED)

    def may_recover(self, request_id: str) -> bool:
        """Returns whether the client has neither deployed nor adopted a deployment."""
        return self.state(request_id) in {None, DeploymentState.RECOVERED}

    def _end_oldest_handed_over(self) -> None:
        for key, record in self._live.items():
            if record.state is DeploymentState.HANDED_OVER:
                self.lose(key)
                self._lives.forget(key)
                self.end(key)
                return

    def set_owned(self, request_id: str) -> None:
        """Records that the client has to stop a deployment, which it may have adopted."""
        self._set(request_id, DeploymentState.OWNED)

    def set_handed_over(self, request_id: str) -> None:
        """Records that a caller has a deployment, which the client may have adopted."""
        self._set(request_id, DeploymentState.HANDED_OVER)

    def begin_stop(self, request_id: str) -> float:
        """Records that the client stops a deployment.

        Returns:
            The loop time from which a 404 is believed; minus infinity if the deployment has ended.
        """
        if request_id in self._ended:
            return -math.inf
        self._set(request_id, DeploymentState.STOPPING)
        return self._begin_grace(request_id)

    def _set(self, request_id: str, state: DeploymentState) -> None:
        if request_id in self._ended:
            return
        record = self._live.get(request_id)
        if record is None:
            record = self._live[request_id] = _Record(state)
            self._lives.adopted(request_id)
        record.state = state

    def _begin_grace(self, request_id: str) -> float:
        record = self._live[request_id]
        if record.believe_404_from is None:
            record.believe_404_from = loop_time() + self._not_found_grace
        return record.believe_404_from

    def believe_404_from(self, request_id: str) -> float:
        """Returns the loop time from which a 404 is believed; minus infinity if it always is."""
        record = self._live.get(request_id)
        if record is None or record.believe_404_from is None:
            return -math.inf
        return record.believe_404_from

    def note_shown(self, request_id: str) -> None:
        """Records that a status request has found a deployment, so that the API knows it."""
        if record := self._live.get(request_id):
            record.is_shown = True

    def is_shown(self, request_id: str) -> bool:
        """Returns whether a status request has found a deployment that has not ended."""
        record = self._live.get(request_id)
        return record is not None and record.is_shown

    def note_ready(self, request_id: str, change: StatusChange) -> None:
        """Records that a request has found a deployment READY."""
        self._lives.ready(request_id, change.source)

    def lose(self, key: str) -> None:
        """Records that a deployment, or that of a deploy in progress, may go on running."""
        self._lives.lost(key)

    def end(self, key: str, made: str | None = None, *, by_client: bool = False) -> None:
        """Records that a deployment, or a deploy in progress, has ended, if the register has it.

        Args:
            key: id or operation tag.
            made: id of the deployment that the deploy has made; None if there is none.
            by_client: whether the API has accepted a stop of this client.
        """
        record = self._live.pop(key, None)
        if record is None:
            return
        if record.state is DeploymentState.DEPLOYING:
            self._lives.forget(key)
        else:
            self._lives.stopped(key, by_client=by_client)
        self._ended[key] = made
        if len(self._ended) > _MAX_ENDED:
            self._ended.popitem(last=False)

    def forget(self, key: str) -> None:
        """Removes a deployment, or a deploy in progress, without a trace."""
        self._live.pop(key, None)
        self._lives.forget(key)

    def kept_instead_of(self, row: DeploymentRow) -> str | None:
        """Returns the id of the deployment that a deploy has made, if the row is a surplus one.

        Returns:
            None if the row's deployment is known, or if no deploy of this client has made another
            one with the same operation tag. While a deploy is in progress, any may be its own.
        """
        if row.request_id not in self:
            for tag in row.tags:
                made = self._ended.get(tag)
                if made and made != row.request_id:
                    return made
        return None

    def owned(self) -> list[str]:
        """Returns the ids of the deployments that the client has to stop, sorted."""
        return sorted(
            request_id
            for request_id, record in self._live.items()
            if record.state is DeploymentState.OWNED
        )

    def next_404_from(self) -> float:
        """Returns `believe_404_from` of the first of `next_live`; infinity if there is none."""
        for key, record in self._live.items():
            if record.state is not DeploymentState.DEPLOYING:
                return self.believe_404_from(key)
        return math.inf

    def next_live(self, count: int) -> list[str]:
        """Returns ids of deployments that have not ended, `count` at most, in turn."""
        ids = list[str]()
        for key, record in self._live.items():
            if len(ids) == count:
                break
            if record.state is not DeploymentState.DEPLOYING:
                ids.append(key)
        for request_id in ids:
            self._live[request_id] = self._live.pop(request_id)  # now the last one
        return ids


class RegisterObserver(Observer):
    """Records what the answers of the API say of the deployments: READY, and their ends."""

    def __init__(self, register: DeploymentRegister) -> None:
        self._register = register

    def call_succeeded(self, call: ObservedCall, result: object) -> None:
        """Records an accepted stop, and the status TERMINATED."""
        is_over = isinstance(result, Deployment) and result.current_status is Status.TERMINATED
        if call.operation is GET_DEPLOYMENT:
            self._register.note_shown(call.request_id or "")
        is_stop = call.operation is STOP_DEPLOYMENT
        if is_over or is_stop:
            self._register.end(call.request_id or "", by_client=is_stop)

    def call_failed(self, call: ObservedCall, error: BaseException) -> None:
        """Records that the API does not know a deployment, once its answer counts."""
        if not isinstance(error, Gone | NotFound) or not error.is_certain:
            return
        if call.operation not in {STOP_DEPLOYMENT, GET_DEPLOYMENT}:
            return
        request_id = call.request_id or ""
        believe_404_from = self._register.believe_404_from(request_id)
        if call.operation is GET_DEPLOYMENT:
            believe_404_from += _STATUS_EXTRA_GRACE
        if is_missing(error, loop_time(), believe_404_from):
            self._register.end(request_id)

    def status_changed(self, request_id: str, change: StatusChange) -> None:
        """Records that a deployment was found READY."""
        if change.status.is_ready:
            self._register.note_ready(request_id, change)


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

    def stop_surplus(self, request_id: str, kept: str | None) -> None:
        """Stops a surplus deployment in the background, unless the register has it.

        Args:
            request_id: which deployment.
            kept: id of the deployment with the same operation tag that is kept; None for none.
        """
        if request_id not in self._register:
            logger.warning(
                "%s is stopped: a deploy was carried out twice, and %s is its deployment",
                request_id,
                kept,
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
            logger.warning(
                "%s could not be stopped yet, the stop is repeated: %s",
                request_id,
                error,
                extra=log_fields(error, request_id=request_id, owner=self.owner),
            )
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
            logger.warning(
                "%s could not be stopped yet, the stop is repeated: %s",
                request_id,
                error,
                extra=log_fields(error, request_id=request_id, owner=self.owner),
            )
            await self._repeat_stop(request_id)

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
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.wait()

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
        problem.add_note(f"{request_id} could not be stopped: {error}")
    elif isinstance(problem, DeploymentError | Unprocessable) and problem.request_id == request_id:
        problem.stopped = True  # the error of another deployment says how that one ended


def _is_worth_repeating(error: BaseException) -> bool:
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
            problem.add_note(f"a deployment could not be stopped: {error}")
    elif failures:
        raise ExceptionGroup("some deployments could not be stopped", failures)
