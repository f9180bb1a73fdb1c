"""A deployment to wait for, use and stop; and one that an earlier run left behind."""

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
from edgegap_async.errors import Gone, InvalidRequest, NotFound, NotPlayable
from edgegap_async.http.api_client import ApiClient
from edgegap_async.polling.tracker import DeploymentTracker, WebhookUrls

from .ownership import stop_until_confirmed

if TYPE_CHECKING:
    from .playable import Check

__all__ = ["DeploymentHandle", "RecoveredDeployment"]

_ALIASES: Final = {"WEBSOCKET": "WS"}  # a port made as "WS" reads back as "Websocket"


class DeploymentHandle:
    """A deployment to wait for, use and stop.

    Made by `client.deploy`, `client.run` and `client.handle`. Dropping it stops nothing.
    """

    def __init__(
        self,
        client: ApiClient,
        tracker: DeploymentTracker,
        urls: WebhookUrls | None,
        accepted: DeployAccepted | None = None,
    ) -> None:
        self._client = client
        self._tracker = tracker
        self._urls = urls  # its URLs are open as long as it is held
        self._accepted = accepted

    def __repr__(self) -> str:
        status = self.status
        return f"<DeploymentHandle {self.request_id} {status.short if status else 'not seen yet'}>"

    @property
    def request_id(self) -> str:
        """Which deployment."""
        return self._tracker.request_id

    @property
    def status(self) -> Status | None:
        """The newest status that was seen, or None if none was yet. Makes no call."""
        return self._tracker.status

    @property
    def deployment(self) -> Deployment | None:
        """The newest look at it, or None if there was none yet. Makes no call."""
        return self._tracker.deployment

    @property
    def history(self) -> tuple[StatusChange, ...]:
        """Every status it was seen in, oldest first. Between two looks some pass unseen."""
        return self._tracker.history

    @property
    def status_requests(self) -> int:
        """How many times its status was asked for."""
        return self._tracker.status_requests

    @property
    def attempts(self) -> int:
        """How many times its deploy was tried; 0 where it was not deployed by this handle's client.

        More than 1 says that a deploy failed on the way; it is one deployment all the same.
        """
        return self._accepted.attempts if self._accepted else 0

    @property
    def waited(self) -> float:
        """Seconds between these attempts, and until one whose answer was lost was found."""
        return self._accepted.waited if self._accepted else 0.0

    async def refresh(self) -> Deployment:
        """The deployment as it is now. One call; raises as `deployments.get` does."""
        watched = self._tracker
        answers_ring = watched.webhook_pending and not watched.is_awaited
        if answers_ring:
            watched.webhook_pending = False  # one that comes from now on is for another look
        try:
            deployment = await self._client.deployments.get(self.request_id)
        except BaseException:
            watched.webhook_pending |= answers_ring
            raise
        watched.update(deployment)
        return deployment

    async def wait_ready(
        self,
        timeout: float | None = 300.0,  # noqa: ASYNC109 - WaitTimedOut says more
        *,
        playable: Check | None = None,
    ) -> Deployment:
        """The deployment, once it is READY: players can connect.

        Args:
            timeout: seconds, None for no limit.
            playable: what must succeed as well, such as `UdpAnswer("game", datagram=b"ping")`.

        Raises:
            NotPlayable: it is READY, and the check did not succeed. It still exists.
            WaitTimedOut: it is not READY in time. It still exists.
            DeploymentFailed: it is in Status.ERROR; see `error_detail`. It still exists.
            DeploymentTerminated: it ended before.
            NotFound: the API does not know it, also some time after the deploy.
            Unauthorized, Forbidden, ClientClosed: it cannot be looked at.
        """
        if playable is None:
            return await self._tracker.wait_for(Status.READY, timeout)
        from .playable import as_check, until_playable  # noqa: PLC0415 - imported when asked for

        check = as_check(playable)
        now = asyncio.get_running_loop().time
        began = now()
        deployment = await self._tracker.wait_for(Status.READY, timeout)
        left = None if timeout is None else max(0.0, timeout - (now() - began))
        with self._client.until_closed(), self._tracker.waiting():
            try:
                await until_playable(self, check, left)
            except (NotPlayable, InvalidRequest):  # one that ended has no endpoint any more
                self._tracker.raise_if_over(Status.READY)
                raise
        return deployment

    async def wait_terminated(self, timeout: float | None = 300.0) -> Deployment:  # noqa: ASYNC109 - WaitTimedOut says more
        """The last look at the deployment, once it has ended. It does not stop it.

        Args:
            timeout: seconds, None for no limit.

        Raises:
            WaitTimedOut: it did not end in time.
            Unauthorized, Forbidden, ClientClosed: it cannot be looked at.
        """
        return await self._tracker.wait_for(Status.TERMINATED, timeout)

    async def stop(
        self,
        *,
        wait: bool = False,
        timeout: float | None = 60.0,  # noqa: ASYNC109 - WaitTimedOut says more
        container_log_storage: str | bool | None = None,
    ) -> None:
        """Asks the API to stop it; that it is stopped already is fine.

        Args:
            wait: True to return only when it is TERMINATED.
            timeout: seconds to wait for that at most, None for no limit.
            container_log_storage: as for `deployments.stop`.

        Raises:
            WaitTimedOut: it was asked to stop, and was not TERMINATED in time.
            CallError: it could not be asked; it goes on running.
        """
        check_number("timeout", timeout, least=0)
        stop = functools.partial(
            self._client.deployments.stop,
            self.request_id,
            container_log_storage=container_log_storage,
        )
        await stop_until_confirmed(stop, not_found_until=self._tracker.not_found_until)
        self._tracker.poll_now()
        if wait:
            with contextlib.suppress(Gone, NotFound):  # it was over before anybody looked
                await self.wait_terminated(timeout)

    async def changes(self) -> AsyncIterator[StatusChange]:
        """Every change of status: those already seen first, then each as it is seen.

        Ends after ERROR or TERMINATED. Looks at the deployment while it is iterated; looks that
        fail, as where the API cannot be reached, are repeated for ever, and the fifth in a row is
        logged as a warning. `asyncio.timeout` ends it.
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

    def endpoint(self, name: str | None = None) -> Endpoint:
        """Where players connect to a port. Makes no call.

        Args:
            name: the port's name in the application version; may be left out if there is one port.

        Raises:
            InvalidRequest: it is not READY yet, or there is no such port.
        """
        if self.status is not None and self.status.is_terminal:
            raise InvalidRequest(f"{self.request_id} is {self.status.short}: deploy another")
        deployment = self.deployment
        if deployment is None or not deployment.current_status.is_ready:
            raise InvalidRequest(f"{self.request_id} is not READY: await wait_ready() first")
        names = ", ".join(deployment.ports) or "none"
        if name is None and len(deployment.ports) == 1:
            [name] = deployment.ports
        port = deployment.ports.get(name or "")
        if port is None:
            raise InvalidRequest(f"no port {name!r} on {self.request_id}; there is: {names}")
        # A certificate is for a name; where there is none, the address saves players a look-up.
        by_name, by_address = deployment.fqdn, deployment.public_ip
        host = (by_name or by_address) if port.tls_upgrade else (by_address or by_name)
        if not host or port.external is None:
            raise InvalidRequest(f"the API tells no address of port {name!r}: {port!r}")
        protocol = (port.protocol or "").upper()
        return Endpoint(
            host=host,
            port=port.external,
            protocol=_ALIASES.get(protocol, protocol),
            link=port.link or f"{host}:{port.external}",
        )


def tracker_of(handle: DeploymentHandle) -> DeploymentTracker:
    """Returns the tracker of a handle, for the pools of this package."""
    return handle._tracker  # noqa: SLF001 - no caller of the handle needs it


@attrs.frozen(kw_only=True)
class RecoveredDeployment:
    """A deployment that an earlier run of this program left behind."""

    handle: DeploymentHandle
    """To adopt it: wait for it, use it, stop it."""
    row: DeploymentRow
    """As the list has it."""
    deployed_at: datetime | None
    """When it was deployed, by the clock of the program that did; None if it does not tell."""

    @property
    def age(self) -> float | None:
        """Seconds since it was deployed, or None if it does not tell."""
        if self.deployed_at is None:
            return None
        return max(0.0, (datetime.now(UTC) - self.deployed_at).total_seconds())
