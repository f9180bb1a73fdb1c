"""Knows the deployments of one client: the state of each, and which observers hear of it.

`DeploymentRegister` has one record for each deployment that the client has deployed or adopted, or
that `recover` has given to the caller, with its state. `reap` leaves these alone, `recover` all but
its own, and `Guard.max_live` counts them until they end. The rules of ownership stand in
`ownership`.

Right after a deploy the API may answer 404 although the deployment exists. The client believes such
an answer only from the record's `believe_404_from` on: `PollingPolicy.not_found_grace` seconds
(10 s) after the deploy, or after the first stop of a deployment that it did not deploy.

The register also reports the life of each deployment to observers. What an observer gets stands in
the record, in one `ObservedDeployment`, which exists only while an observer wants these events.
"""

from __future__ import annotations

import enum
import math
from collections import OrderedDict
from typing import Final, Literal

import attrs

from edgegap_async.api.models import Deployment, DeploymentRow, Status, StatusChange
from edgegap_async.api.operations import GET_DEPLOYMENT, STOP_DEPLOYMENT
from edgegap_async.concurrency import loop_time
from edgegap_async.errors import Gone, NotFound
from edgegap_async.observability.observer import (
    ObservedCall,
    ObservedDeployment,
    Observer,
    Observers,
)
from edgegap_async.polling.tracker import is_missing

# Ids and tags of 10,000 deployments: 4 minutes of 40 deploys a second.
_MAX_ENDED: Final = 20_000
# Deployments that have not ended, as far as is known: 22 MB. More live at once only if the API
# refuses status and list requests, so that the client cannot learn their ends.
_MAX_LIVE: Final = 100_000
# Seconds after `believe_404_from` before a 404 to a status request counts as the end: no API hides
# for longer what runs.
_STATUS_EXTRA_GRACE: Final = 300.0


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
    observed: ObservedDeployment | None = None  # what observers get; None if none wants it


class DeploymentRegister:
    """The deployments that one client has deployed or adopted, by id.

    A deploy in progress is in the register by its operation tag. The register remembers 20,000 ids
    and operation tags that have ended: two for each of the last 10,000 deployments. It holds up to
    100,000 that have not; beyond, the oldest that was handed over counts as ended. The deployer
    checks for ends from 1,000 on, so that happens only where the API refuses to tell.

    Args:
        not_found_grace: seconds during which the answer "no such deployment" is not believed.
        observers: get the lives of the deployments.
    """

    def __init__(self, not_found_grace: float, observers: Observers) -> None:
        self._not_found_grace = not_found_grace
        self._observers = observers
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
        record = self._live[operation_tag] = _Record(DeploymentState.DEPLOYING)
        if self._observers.see_deployments:
            record.observed = ObservedDeployment(application, version, operation_tag)

    def add_deployed(self, request_id: str, operation_tag: str | None = None) -> float:
        """Records an accepted deploy, whose caller is the owner unless the client is made it.

        Args:
            request_id: id of the deployment.
            operation_tag: the tag of the deploy in progress, which ends.

        Returns:
            The loop time from which a 404 is believed.
        """
        deploy = self._live.get(operation_tag or "")
        if operation_tag is not None:
            self.end(operation_tag, request_id)
        self._ended.pop(request_id, None)
        record = self._live.setdefault(request_id, _Record(DeploymentState.HANDED_OVER))
        if deploy is not None and deploy.observed is not None:
            record.observed = deploy.observed
            record.observed.request_id, record.observed.accepted_at = request_id, loop_time()
            self._observers.report(Observer.deployment_created, record.observed)
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
                record.observed = None  # its end is not known
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
            if self._observers.see_deployments:
                record.observed = ObservedDeployment(request_id=request_id)
                self._observers.report(Observer.deployment_adopted, record.observed)
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
        """Reports that a request has found a deployment READY, the first time."""
        observed = self._observed(request_id)
        if observed is None or observed.source is not None:
            return
        observed.source = change.source
        if observed.accepted_at is not None:
            observed.ready_after = loop_time() - observed.accepted_at
        self._observers.report(Observer.deployment_ready, observed)

    def lose(self, key: str) -> None:
        """Reports that a deployment, or that of a deploy in progress, may go on running."""
        if observed := self._observed(key):
            self._observers.report(Observer.deployment_lost, observed)

    def _observed(self, key: str) -> ObservedDeployment | None:
        record = self._live.get(key)
        return None if record is None else record.observed

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
        if record.observed is not None and record.state is not DeploymentState.DEPLOYING:
            by: Literal["client", "other"] = "client" if by_client else "other"
            self._observers.report(Observer.deployment_stopped, record.observed, by)
        self._ended[key] = made
        if len(self._ended) > _MAX_ENDED:
            self._ended.popitem(last=False)

    def forget(self, key: str) -> None:
        """Removes a deployment, or a deploy in progress, without a trace."""
        self._live.pop(key, None)

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
