"""Reports the lives of a client's deployments to its observers.

`DeploymentRegister` knows when a life begins and ends. What an observer gets besides stands in one
`ObservedDeployment`, which exists only while an observer wants these events.
"""

from __future__ import annotations

from typing import Literal

from edgegap_async.concurrency import loop_time
from edgegap_async.observability.observer import ObservedDeployment, Observer, Observers


class DeploymentLives:
    """The deployments of one client that its observers know, by id or operation tag.

    Args:
        observers: the observers of the client.
    """

    def __init__(self, observers: Observers) -> None:
        self._observers = observers
        self._observed: dict[str, ObservedDeployment] = {}

    def deploying(self, operation_tag: str, application: str | None, version: str | None) -> None:
        """Notes a deploy in progress."""
        if self._observers.see_deployments:
            observed = ObservedDeployment(application, version, operation_tag)
            self._observed[operation_tag] = observed

    def created(self, request_id: str, operation_tag: str | None) -> None:
        """Reports the deployment of a deploy in progress."""
        observed = self._observed.pop(operation_tag or "", None)
        if observed is not None:
            observed.request_id, observed.accepted_at = request_id, loop_time()
            self._observed[request_id] = observed
            self._observers.report(Observer.deployment_created, observed)

    def adopted(self, request_id: str) -> None:
        """Reports a deployment that no deploy of the client has returned."""
        if self._observers.see_deployments:
            observed = self._observed[request_id] = ObservedDeployment(request_id=request_id)
            self._observers.report(Observer.deployment_adopted, observed)

    def ready(self, request_id: str, source: Literal["status", "list", "webhook"]) -> None:
        """Reports that a deployment was found READY."""
        observed = self._observed.get(request_id)
        if observed is None or observed.source is not None:
            return
        observed.source = source
        if observed.accepted_at is not None:
            observed.ready_after = loop_time() - observed.accepted_at
        self._observers.report(Observer.deployment_ready, observed)

    def stopped(self, request_id: str, *, by_client: bool) -> None:
        """Reports that a deployment is over."""
        observed = self._observed.pop(request_id, None)
        if observed is not None:
            by: Literal["client", "other"] = "client" if by_client else "other"
            self._observers.report(Observer.deployment_stopped, observed, by)

    def lost(self, key: str) -> None:
        """Reports that a deployment, or that of a deploy, may go on running."""
        observed = self._observed.get(key)
        if observed is not None:
            self._observers.report(Observer.deployment_lost, observed)

    def forget(self, key: str) -> None:
        """Removes a deployment, or a deploy, and reports nothing."""
        self._observed.pop(key, None)
