"""Handles of deployments: what a caller waits for, uses and stops."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import attrs

from edgegap_async.api.models import (
    DeployAccepted,
    Deployment,
    DeploymentRow,
    Endpoint,
    Status,
    StatusChange,
)
from edgegap_async.api.validation import check_number
from edgegap_async.api.values import Value
from edgegap_async.concurrency import loop_time
from edgegap_async.errors import (
    BadRequest,
    ClientClosed,
    Gone,
    InvalidRequest,
    NotFound,
    NotPlayable,
)
from edgegap_async.http.api_client import ApiClient
from edgegap_async.http.resources.deployments import is_listed
from edgegap_async.polling.tracker import DeploymentTracker, WebhookUrls

from .following import LogReader, follow
from .ownership import OwnedDeployments, stop_until_confirmed

if TYPE_CHECKING:
    from edgegap_async.api.resources.metrics import MetricRow

    from .playable import Check

_PROTOCOL_ALIASES: Final = {"WEBSOCKET": "WS"}  # the API shows a port of protocol WS so


class DeploymentHandle:
    """A deployment: waits until it is READY, gives its endpoint, stops it.

    `client.deploy`, `client.run` and `client.handle` make handles. Deleting a handle does not stop
    the deployment. Several handles of one deployment share what is known of it, and the client
    polls the deployment once for all of them.
    """

    def __init__(
        self,
        client: ApiClient,
        tracker: DeploymentTracker,
        owned: OwnedDeployments,
        urls: WebhookUrls | None = None,
        accepted: DeployAccepted | None = None,
    ) -> None:
        self._client = client
        self._tracker = tracker
        self._owned = owned
        self._urls = urls  # the webhook URLs are open while this object exists
        self._accepted = accepted

    def __repr__(self) -> str:
        status = self.status
        return f"<DeploymentHandle {self.request_id} {str(status) if status else 'not seen yet'}>"

    @property
    def request_id(self) -> str:
        """The id that the API has given to the deployment."""
        return self._tracker.request_id

    @property
    def status(self) -> Status | None:
        """The newest known status; None before the first answer. Makes no call."""
        return self._tracker.status

    @property
    def deployment(self) -> Deployment | None:
        """The newest known state; None before the first answer. Makes no call.

        If the newest status came from a list request, fields that lists do not have are None.
        """
        return self._tracker.deployment

    @property
    def history(self) -> tuple[StatusChange, ...]:
        """The known changes of status, oldest first; empty before the first answer.

        A status that begins and ends between two status requests is not among them.
        """
        return self._tracker.history

    @property
    def status_requests(self) -> int:
        """Number of status requests for this deployment so far."""
        return self._tracker.status_requests

    @property
    def attempts(self) -> int:
        """Number of deploy requests that were sent; 0 if `client.deploy` did not make the handle.

        More than 1 means that earlier requests failed. They made no other deployment.
        """
        return self._accepted.attempts if self._accepted else 0

    @property
    def waited(self) -> float:
        """Seconds between a failed deploy request and the next one, or the list that has the tag.

        0.0 if the first deploy request succeeded.
        """
        return self._accepted.waited if self._accepted else 0.0

    async def refresh(self) -> Deployment:
        """Makes one status request, and returns the deployment as it is now.

        Raises:
            Gone: the deployment has ended.
            NotFound: the API does not know the deployment.
            CallError: the request failed.
            ClientClosed: the client is closed.
        """
        tracker = self._tracker
        answers_webhook = tracker.webhook_pending and not tracker.is_awaited
        if answers_webhook:
            tracker.webhook_pending = False  # a webhook during the request needs another request
        try:
            deployment = await self._client.deployments.get(self.request_id)
        except BaseException:
            tracker.webhook_pending |= answers_webhook
            raise
        tracker.update(deployment)
        return deployment

    async def wait_ready(
        self,
        timeout: float | None = 300.0,
        *,
        playable: Check | None = None,
    ) -> Deployment:
        """Waits until the deployment is READY, so that players can connect, and returns it.

        Args:
            timeout: seconds, 0 or more; None for no limit. The check's attempts count towards it.
            playable: a check that must succeed after READY, such as
                `UdpAnswer("game", datagram=b"ping")`; None for no check.

        Raises:
            NotPlayable: the deployment is READY, and the check did not succeed. It still exists.
            WaitTimedOut: the deployment was not READY in time. It still exists.
            DeploymentFailed: the deployment is in ERROR, for a reason in `error_detail`. It still
                exists.
            DeploymentTerminated: the deployment has ended.
            NotFound: the API does not know the deployment, also after
                `PollingPolicy.not_found_grace`.
            Unauthorized, Forbidden: the API does not accept the token for this deployment.
            ClientClosed: the client is closed, or was closed meanwhile.
            InvalidRequest: `timeout` or `playable` cannot be used.
        """
        return await wait_ready(self, timeout, playable)

    async def wait_terminated(self, timeout: float | None = 300.0) -> Deployment:
        """Waits until the deployment has ended, and returns its last state. Does not stop it.

        A deployment in ERROR has not ended: it exists until something stops it, and the wait goes
        on. `changes` ends at ERROR too.

        Args:
            timeout: seconds, 0 or more; None for no limit.

        Raises:
            WaitTimedOut: the deployment did not end in time.
            NotFound, Gone: the API does not know the deployment, and has never reported a status.
            Unauthorized, Forbidden: the API does not accept the token for this deployment.
            ClientClosed: the client is closed, or was closed meanwhile.
            InvalidRequest: `timeout` cannot be used.
        """
        return await self._tracker.wait_for(Status.TERMINATED, timeout)

    async def stop(
        self,
        *,
        wait: bool = False,
        timeout: float | None = 60.0,
        container_log_storage: str | bool | None = None,
        missing_ok: bool = False,
    ) -> None:
        """Stops the deployment. A deployment that has ended already is no error.

        If the call is cancelled, or the client is closed during the call, the stop goes on in the
        background, as the stops of `client.run`.

        Args:
            wait: True to return only when the deployment is TERMINATED.
            timeout: seconds to wait for TERMINATED, 0 or more; None for no limit.
            container_log_storage: as for `deployments.stop`.
            missing_ok: True if a deployment that the API does not know is no error either. That is
                so by itself for one that this client has deployed, found or seen a status of.

        Raises:
            NotFound: the API does not know the deployment, and neither does this client: the id may
                be wrong.
            WaitTimedOut: the API has accepted the stop, and the deployment was not TERMINATED in
                time.
            CallError: the request failed, and the deployment may go on running. A 404 that a proxy
                may have sent counts as a failure while the list shows the deployment.
            ClientClosed: the client is closed, or was closed meanwhile.
            InvalidRequest: `timeout` cannot be used.
        """
        check_number("timeout", timeout, least=0)
        stop = functools.partial(
            self._client.deployments.stop,
            self.request_id,
            container_log_storage=container_log_storage,
        )
        confirm = functools.partial(is_listed, self._client.deployments, self.request_id)
        is_closed = self._owned.closed
        is_known = self._tracker.was_seen or self._owned.has_known(self.request_id)
        try:
            await stop_until_confirmed(
                stop,
                confirm,
                believe_404_from=self._tracker.believe_404_from,
                is_known=missing_ok or is_known,
            )
        except (asyncio.CancelledError, ClientClosed):
            if not is_closed:
                self._owned.begin_stop(self.request_id, container_log_storage=container_log_storage)
            raise
        self._tracker.was_seen = True
        self._tracker.poll_now()
        if wait:
            with contextlib.suppress(BadRequest, Gone, NotFound):  # no status was ever known
                await self.wait_terminated(timeout)

    async def changes(self) -> AsyncIterator[StatusChange]:
        """Yields every change of status: first the known ones, then each as the client learns it.

        The iterator ends after ERROR or TERMINATED. The client polls the deployment during the
        iteration. A status request that fails is repeated without limit, and the fifth failure in
        a row is logged as a warning. Use `asyncio.timeout` for a limit.

        Raises:
            NotFound, Gone: the API does not know the deployment, and has never reported a status.
            Unauthorized, Forbidden: the API does not accept the token for this deployment.
            ClientClosed: the client is closed, or was closed meanwhile.
        """
        known = 0
        with self._tracker.waiting():
            while True:
                await self._tracker.wait_for_change(known)
                for change in self.history[known:]:
                    yield change
                    known += 1
                    if change.status.is_final:
                        return

    def follow_logs(self) -> AsyncIterator[str]:
        """Returns an iterator over the log: first what there is, then new text as it comes.

        The pieces together are the log. A piece may end within a line. The iterator ends after
        ERROR or TERMINATED. The client polls the deployment during the iteration, and asks for the
        log after 1 to 10 seconds: sooner while there is new text, and at each change of status. A
        request that fails is repeated without limit. What the program writes in the last second
        before a stop may be missing, because the API drops logs with the stop.

        Raises:
            NotFound, Gone: the API does not know the deployment, and has never reported a status.
            Unauthorized, Forbidden: the API does not accept the token for this deployment.
            ClientClosed: the client is closed, or was closed meanwhile.
        """
        reader = LogReader()

        async def read() -> tuple[str, ...]:
            text = reader.new_text(await self._client.deployments.logs(self.request_id))
            return (text,) if text else ()

        return follow(self._tracker, read)

    def metrics(self) -> AsyncIterator[MetricRow]:
        """Returns an iterator over the measurements that there are, then new ones as they come.

        Each measurement of CPU, memory, disk and network is a mapping, as of `Metrics.rows`, with
        the values as measured. The iterator ends, asks and fails as that of `follow_logs`.
        `client.deployments.metrics` returns those of a period at once.

        Raises:
            NotFound, Gone: the API does not know the deployment, and has never reported a status.
            Unauthorized, Forbidden: the API does not accept the token for this deployment.
            ClientClosed: the client is closed, or was closed meanwhile.
        """
        newest: datetime | None = None

        async def read() -> list[MetricRow]:
            nonlocal newest
            answer = await self._client.deployments.metrics(self.request_id, start=newest, raw=True)
            rows = [row for row in answer.rows() if newest is None or row["time"] > newest]
            newest = rows[-1]["time"] if rows else newest
            return rows

        return follow(self._tracker, read)

    def endpoint(self, name: str | None = None) -> Endpoint:
        """Returns where players connect to a port. Makes no call.

        Args:
            name: the port's name in the application version; None if the version has one port.

        Raises:
            InvalidRequest: the deployment is not READY, there is no such port, or the API gives no
                address for it.
        """
        if self.status is not None and self.status.is_terminal:
            raise InvalidRequest(f"{self.request_id} is {self.status}: deploy another")
        deployment = self.deployment
        if deployment is None or not deployment.current_status.is_ready:
            raise InvalidRequest(f"{self.request_id} is not READY: await wait_ready() first")
        names = ", ".join(deployment.ports) or "none"
        if name is None and len(deployment.ports) == 1:
            [name] = deployment.ports
        port = deployment.ports.get(name or "")
        if port is None:
            raise InvalidRequest(f"no port {name!r} on {self.request_id}; there is: {names}")
        # TLS needs the name of the certificate. Without TLS the address saves a DNS query.
        by_name, by_address = deployment.fqdn, deployment.public_ip
        host = (by_name or by_address) if port.tls_upgrade else (by_address or by_name)
        if not host or port.external is None:
            raise InvalidRequest(f"the API gives no address for port {name!r}: {port!r}")
        protocol = (port.protocol or "").upper()
        return Endpoint(
            host=host,
            port=port.external,
            protocol=_PROTOCOL_ALIASES.get(protocol, protocol),
            link=port.link or f"{host}:{port.external}",
        )


async def wait_ready(
    handle: DeploymentHandle,
    timeout: float | None,
    playable: Check | None,
    limit: str = "",
) -> Deployment:
    """Waits as `DeploymentHandle.wait_ready` does.

    Args:
        handle: the deployment.
        timeout: seconds that are left of the time limit; None for no limit.
        playable: as for `DeploymentHandle.wait_ready`.
        limit: the time limit of the caller, such as `timeout=2 s`, for the text of `WaitTimedOut`;
            empty if that is `timeout` itself.
    """
    tracker = tracker_of(handle)
    if playable is None:
        return await tracker.wait_for(Status.READY, timeout, limit)
    from .playable import as_check, until_playable  # imported when asked for

    check = as_check(playable)
    began = loop_time()
    deployment = await tracker.wait_for(Status.READY, timeout, limit)
    left = None if timeout is None else max(0.0, timeout - (loop_time() - began))
    with handle._client.until_closed(), tracker.waiting():  # noqa: SLF001 - as `tracker_of`
        try:
            await until_playable(handle, check, left)
        except (NotPlayable, InvalidRequest):  # an ended deployment has no endpoint
            tracker.raise_if_over(Status.READY)
            raise
    return deployment


def tracker_of(handle: DeploymentHandle) -> DeploymentTracker:
    """Returns the tracker of a handle, for the pools of this package."""
    return handle._tracker  # noqa: SLF001 - no caller of the handle needs it


@attrs.frozen(kw_only=True, eq=False, repr=False)
class RecoveredDeployment(Value):
    """A deployment that an earlier run of this program left behind, from `client.recover`."""

    handle: DeploymentHandle
    """The handle, to use the deployment again or to stop it."""
    row: DeploymentRow
    """The deployment's row in the list."""
    deployed_at: datetime | None
    """When the deploy began, by the clock of the program that made it. If the deployment has no
    operation tag: when it started, by the clock of the API; None if the API does not say."""

    @property
    def age(self) -> float | None:
        """Seconds since `deployed_at`, 0 or more; None if that is None."""
        if self.deployed_at is None:
            return None
        return max(0.0, (datetime.now(UTC) - self.deployed_at).total_seconds())
