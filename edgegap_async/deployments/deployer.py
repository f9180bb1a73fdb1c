"""Makes deployments for the client, batches and pools: the calls that one deploy needs.

One deploy checks the guard, carries the operation tag, the owner's tag and the webhook URLs, is
undone if its caller is cancelled, and is in the register of deployments until its end.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import math
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

import attrs

from edgegap_async.api.models import DeployAccepted, Deployment, DeploymentRow
from edgegap_async.api.operations import DEPLOY, DEPLOY_TO_FLEET
from edgegap_async.api.requests import (
    WEBHOOK_KINDS,
    AnyUser,
    DeployOptions,
    DeployRequest,
    Filter,
    FleetDeployRequest,
    Webhook,
    as_variables,
    deploy_request,
    webhook_option,
)
from edgegap_async.api.validation import check_segment, is_segment
from edgegap_async.concurrency import create_detached_task, is_cancelled, limited, loop_time
from edgegap_async.errors import (
    CallError,
    ClientClosed,
    DeploymentFailed,
    EdgegapError,
    Gone,
    InvalidRequest,
    MaybeCreated,
    NotAllowed,
    NotFound,
    WaitTimedOut,
    log_fields,
)
from edgegap_async.http.api_client import ApiClient
from edgegap_async.http.guard import Guard
from edgegap_async.http.resources.deployments import Deployments, is_listed
from edgegap_async.http.transport import SendState
from edgegap_async.polling.poller import StatusPoller
from edgegap_async.polling.tracker import WebhookSource, WebhookTrigger, WebhookUrls

from .handle import DeploymentHandle, RecoveredDeployment, tracker_of
from .idempotency import (
    OWNER_PREFIX,
    IdempotentDeploy,
    SurplusObserver,
    new_operation_tag,
    operation_time,
    owner_tag,
)
from .keys import KeyedDeployments, key_tag
from .list_lag import ListLag
from .ownership import OwnedDeployments
from .register import DeploymentRegister, RegisterObserver

logger = logging.getLogger(__name__)

_LIVE_CHECK_INTERVAL: Final = 10.0  # seconds between checks for ends while max_live is reached
_LIVE_CHECK_SIZE: Final = 100  # deployments per check; one page of the list
_END_CHECK_FROM: Final = (
    1000  # deployments in the register from which on the client checks for ends
)
_DEPLOYS_PER_END_CHECK: Final = 50  # each deploy checks two: the register is twice what lives
_UNLISTED_GRACE: Final = 300.0  # seconds; lists may omit a new deployment
_LOG_TIMEOUT: Final = 10.0  # seconds that the logs of a failed deployment may take


class Deployer:
    """Makes the deployments of one client.

    Args:
        client: makes the calls.
        poller: polls the statuses of the deployments.
        cleanup: makes calls also while the client closes.
        guard: limits the number of live deployments.
        webhooks: gives each deploy its webhook URLs; None for none.
        owner: name of the program, in the tag of every deploy; None for no such tag.
        list_delay: seconds that a new deployment may be missing from lists.

    Raises:
        InvalidRequest: `owner` cannot be used.
    """

    def __init__(
        self,
        client: ApiClient,
        poller: StatusPoller,
        *,
        cleanup: Deployments,
        guard: Guard,
        webhooks: WebhookSource | None,
        owner: str | None,
        list_delay: float,
    ) -> None:
        self.client: Final = client
        self.owner_tag: Final = owner_tag(owner) if owner is not None else None
        """The tag of every deployment of the owner; None without an owner."""
        self.register: Final = DeploymentRegister(poller.policy.not_found_grace, client.observers)
        """The deployments that this program has deployed or adopted."""
        self.owned: Final = OwnedDeployments(
            self.register,
            lambda request_id, storage: cleanup.stop(request_id, container_log_storage=storage),
            functools.partial(is_listed, cleanup),
            owner,
        )
        """The deployments that the client has to stop."""
        self.pool_tags = set[str]()
        """The tags of the client's open pools."""
        self._poller = poller
        self._cleanup = cleanup
        self._guard = guard
        self._webhooks = webhooks
        self._lag = ListLag(list_delay)
        self._keyed = KeyedDeployments(client, cleanup, self.register, self.owned, list_delay)
        self._live_checked_at = -math.inf  # loop time
        self._deploys_since_check = 0
        self._end_check: asyncio.Task[None] | None = None
        client.add_observer(self._lag)
        client.add_observer(RegisterObserver(self.register))
        client.add_observer(SurplusObserver(self.register, self.owned, poller.is_tracked))

    # ── deploys ──────────────────────────────────────────────────────────────────────────────────

    async def deploy(
        self,
        application: str,
        version: str,
        users: Iterable[AnyUser],
        options: DeployOptions,
        *,
        deadline: float | None = None,
        timeout: float | None = None,
    ) -> DeploymentHandle:
        """Deploys, and returns the handle. If the caller is cancelled, the deploy is undone.

        Args:
            application: name of the application.
            version: name of its version.
            users: the players, by IP address or by (latitude, longitude).
            options: the other fields of the deploy, and how it is made.
            deadline: loop time by which the API has to accept the deploy; None for no limit.
            timeout: the caller's seconds until the deadline, for the text of `WaitTimedOut`.

        Raises:
            WaitTimedOut: the API did not accept the deploy by the deadline. The deploy is undone.
            EdgegapError: as for `EdgegapClient.deploy`.
        """
        fields: dict[str, Any] = {**options}
        is_tagged, key = fields.pop("operation_tag", True), fields.pop("idempotency_key", None)
        if key is not None and not is_tagged:
            raise InvalidRequest("idempotency_key needs the operation tag: leave out operation_tag")
        fields |= {"application": application, "version": version, "users": users}
        return await self.deploy_request(
            deploy_request(fields), deadline, timeout, is_tagged=is_tagged, key=key
        )

    async def deploy_request(
        self,
        request: DeployRequest,
        deadline: float | None,
        timeout: float | None,
        *,
        is_tagged: bool = True,
        key: str | None = None,
        ignore_wait_limit: bool = False,
        send_state: SendState | None = None,
    ) -> DeploymentHandle:
        """Deploys a request, as `deploy` does.

        Args:
            request: what to deploy.
            deadline: as for `deploy`.
            timeout: as for `deploy`.
            is_tagged: False to deploy without an operation tag.
            key: the caller's idempotency key; None for none.
            ignore_wait_limit: whether the deploy queues for the rate limit without end.
            send_state: changes as the deploy is sent; None if the caller does not read it.

        Raises:
            EdgegapError: as for `deploy`.
        """
        state = send_state or SendState()
        async with limited(
            asyncio.timeout_at(deadline),
            lambda: _timed_out(timeout or 0.0, was_sent=state.times_sent > 0),
        ):
            return await self._deploy(
                request, state, is_tagged=is_tagged, key=key, ignore_wait_limit=ignore_wait_limit
            )

    async def _deploy(
        self,
        request: DeployRequest,
        send_state: SendState,
        *,
        is_tagged: bool,
        key: str | None,
        ignore_wait_limit: bool,
    ) -> DeploymentHandle:
        keyed = None if key is None else key_tag(request.application, key)
        trigger, urls, expects_webhook = WebhookTrigger(), None, False
        if self._webhooks is not None:
            urls = self._webhooks.open(trigger.fire)
            # If the caller has a URL for READY, the API sends that webhook to the caller only.
            expects_webhook = request.webhook_on_ready is None
        operation_tag = new_operation_tag()
        tag = operation_tag if is_tagged else None
        tags = (*request.tags, *filter(None, (self.owner_tag, tag, keyed)))
        body = attrs.evolve(request, tags=tags, **self._additions(request, urls))
        operation = DEPLOY_TO_FLEET if isinstance(body, FleetDeployRequest) else DEPLOY
        deploy = IdempotentDeploy(
            client=self.client,
            cleanup=self._cleanup,
            owned=self.owned,
            request=self.client.prepare(operation, body=body),
            tag=tag,
            lag=self._lag,
            ignore_wait_limit=ignore_wait_limit,
            send_state=send_state,
        )

        async def send() -> DeploymentHandle:
            await self._check_live()
            self.register.begin_deploy(operation_tag, body.application, body.version)
            accepted = await self._accept(deploy, operation_tag)
            tracker = self._poller.tracker(
                accepted.request_id,
                expects_webhook=expects_webhook,
                deployed_at=loop_time(),
                believe_404_from=self.register.add_deployed(accepted.request_id, operation_tag),
            )
            trigger.connect(tracker)
            self._check_ends_if_due()
            return DeploymentHandle(self.client, tracker, self.owned, urls, accepted)

        return await (send() if keyed is None else self._deploy_once(keyed, operation_tag, send))

    def _additions(self, request: DeployRequest, urls: WebhookUrls | None) -> dict[str, Any]:
        """Returns the fields to which webhooks and observers add what the caller has not set.

        The URLs are `Webhook`s, whose `repr` hides the path, because a traceback with local
        variables shows the fields.
        """
        added: dict[str, Any] = {}
        if urls is not None:
            for kind in WEBHOOK_KINDS.values():
                if getattr(request, option := webhook_option(kind)) is None:
                    added[option] = Webhook(urls.url(kind))
        if variables := self.client.observers.environment():
            given = request.environment_variables
            names = {variable.key for variable in given}
            wanted = {name: value for name, value in variables.items() if name not in names}
            added["environment_variables"] = (*given, *as_variables(wanted))
        return added

    async def _deploy_once(
        self, key: str, operation_tag: str, send: Callable[[], Awaitable[DeploymentHandle]]
    ) -> DeploymentHandle:
        """Returns the living deployment of a key, or deploys it."""
        lock = self._keyed.lock(key)
        with self.client.until_closed():
            await lock.acquire()
        try:
            if (found := await self._keyed.find(key)) is not None:
                return await self._adopt(found)
            handle = await send()
            try:
                other = await self._keyed.settle(key, (operation_tag, handle.request_id))
            except BaseException:  # the caller is cancelled before it has the handle
                self.owned.begin_stop(handle.request_id)
                raise
            return handle if other is None else await self._adopt(other)
        finally:
            lock.release()

    async def _adopt(self, deployment: Deployment) -> DeploymentHandle:
        """Makes the caller the owner of a deployment that another deploy of its key has made."""
        request_id = deployment.request_id
        if self.register.may_recover(request_id):
            self.register.set_handed_over(request_id)
        handle = self.handle(request_id)
        tracker_of(handle).update(deployment)
        mine = self.owner_tag
        theirs = [tag for tag in deployment.tags if tag.startswith(OWNER_PREFIX) and tag != mine]
        if mine and theirs:
            try:
                await self.client.tags.rename(request_id, theirs[0], mine)
            except CallError as error:
                logger.warning(
                    "reap() of the program with the tag %s may stop %s: the tag could not be"
                    " renamed: %s",
                    theirs[0],
                    request_id,
                    error.reason,
                    extra=log_fields(error, request_id=request_id, owner=self.owned.owner),
                )
        return handle

    async def _accept(self, deploy: IdempotentDeploy, operation_tag: str) -> DeployAccepted:
        """Sends the deploy in a task of its own, which outlives a caller that is cancelled."""
        register = self.register
        accepting: asyncio.Task[DeployAccepted] | None = None
        try:
            with self.client.until_closed():
                work = deploy.run
                while True:
                    accepting = asyncio.create_task(work())
                    try:
                        accepted = await asyncio.shield(accepting)
                        break
                    except asyncio.CancelledError:
                        if is_cancelled() or not accepting.cancelled():
                            raise
                    work = deploy.run_after_cancellation  # the program has spared the caller
        except MaybeCreated:
            register.lose(operation_tag)
            register.forget(operation_tag)  # so that `recover` finds the deployment
            raise
        except (asyncio.CancelledError, ClientClosed):
            if accepting is not None and deploy.send_state.times_sent:
                deploy.send_state.is_abandoned = True
                undo = functools.partial(self._undo, deploy, accepting, operation_tag)
                what = f"the deployment of a cancelled deploy (tag {deploy.tag})"
                # Until then the deploy is in progress, and counts for `Guard.max_live`.
                self.owned.in_background(undo, what).add_done_callback(
                    functools.partial(self._on_undone, operation_tag)
                )
            else:
                if accepting is not None:
                    accepting.cancel()
                register.end(operation_tag)
            raise
        except BaseException as error:
            # A 422 names a deployment in ERROR.
            register.end(operation_tag, getattr(error, "request_id", None))
            raise
        return accepted

    async def _undo(
        self,
        deploy: IdempotentDeploy,
        accepting: asyncio.Task[DeployAccepted],
        operation_tag: str,
    ) -> None:
        """Stops what a deploy makes whose caller was cancelled."""
        accepted: DeployAccepted | None
        try:
            try:
                accepted = await accepting
            except asyncio.CancelledError:
                if is_cancelled() or not accepting.cancelled():
                    raise
                accepted = await deploy.find_after_cancellation()
            request_id = accepted.request_id if accepted is not None else None
        except CallError as error:
            if error.maybe_created:
                raise
            request_id = error.request_id  # a 422 names a deployment in ERROR
        if not request_id:
            self.register.end(operation_tag)
            return
        self.register.add_deployed(request_id, operation_tag)
        await self.owned.keep_stopping(request_id)

    def _on_undone(self, operation_tag: str, undone: asyncio.Future[None]) -> None:
        if undone.cancelled() or undone.exception() is not None:
            self.register.lose(operation_tag)
        self.register.forget(operation_tag)

    # ── Guard.max_live ───────────────────────────────────────────────────────────────────────────

    async def _check_live(self) -> None:
        """Returns if the guard allows another live deployment.

        Raises:
            NotAllowed: `max_live` is reached, also after a check for deployments that have ended.
        """
        try:
            self._guard.check_live(len(self.register))
        except NotAllowed:
            await self._find_ended()
            self._guard.check_live(len(self.register))

    def _check_ends_if_due(self) -> None:
        """Checks for ends in the background: no task may wait for a deployment that has ended."""
        self._deploys_since_check += 1
        is_due = self._deploys_since_check >= _DEPLOYS_PER_END_CHECK
        if not is_due or len(self.register) <= _END_CHECK_FROM:
            return
        if loop_time() < self.register.next_404_from() + _UNLISTED_GRACE:
            return  # too young: a 404 would prove nothing
        if self._end_check is None or self._end_check.done():
            self._deploys_since_check = 0
            self._live_checked_at = -math.inf
            self._end_check = create_detached_task(self._find_ended())

    async def _find_ended(self) -> None:
        """Checks some live deployments, at intervals. The observer records their ends."""
        now = loop_time()
        if now < self._live_checked_at + _LIVE_CHECK_INTERVAL:
            return
        ids = self.register.next_live(_LIVE_CHECK_SIZE)
        if not ids:
            return
        self._live_checked_at = now
        deployments = self.client.deployments
        try:
            filters = [Filter("request_id", "in", ids)]
            rows = deployments.list(filters=filters, limit=_LIVE_CHECK_SIZE)
            listed = {row.request_id async for row in rows}
            for request_id in (one for one in ids if one not in listed):
                try:
                    await deployments.get(request_id)
                except (Gone, NotFound) as error:
                    # The list does not show it either.
                    is_sure = error.is_certain and self.register.is_shown(request_id)
                    grace = self._lag.list_delay if is_sure else _UNLISTED_GRACE
                    if now >= self.register.believe_404_from(request_id) + grace:
                        self.register.end(request_id)
        except ClientClosed:
            pass  # nothing is deployed any more
        except CallError as error:
            logger.warning(
                "the check for deployments that have ended has failed: those of this client go on"
                " counting for Guard.max_live: %s",
                error.reason,
                extra=log_fields(error, request_ids=ids, owner=self.owned.owner),
            )

    # ── deployments that exist ───────────────────────────────────────────────────────────────────

    def handle(self, request_id: str) -> DeploymentHandle:
        """Returns a handle of an existing deployment. Makes no call.

        Raises:
            InvalidRequest: `request_id` cannot be an id.
        """
        check_segment("request_id", request_id)
        believe_404_from = self.register.believe_404_from(request_id)
        tracker = self._poller.tracker(request_id, believe_404_from=believe_404_from)
        return DeploymentHandle(self.client, tracker, self.owned)

    def recovered(self, row: DeploymentRow, tag: str | None = None) -> RecoveredDeployment | None:
        """Returns the deployment of a list row, if an earlier run of this program left it behind.

        Args:
            row: the row.
            tag: the tag that the row must have; None for the owner's tag.

        Returns:
            None if the row has no such tag, or if this client has deployed or adopted it.
        """
        # The API may ignore the filter of the list request. No call can name an unusable id.
        may_recover = is_segment(row.request_id) and self.register.may_recover(row.request_id)
        if (tag or self.owner_tag) not in row.tags or not may_recover:
            return None
        operation_tags = [(one, made) for one in row.tags if (made := operation_time(one))]
        if tag is None and any(one in self.register for one, _ in operation_tags):
            return None
        deployed_at = operation_tags[0][1] if operation_tags else row.start_time
        handle = self.handle(row.request_id)
        tracker_of(handle).was_seen = True
        return RecoveredDeployment(handle=handle, row=row, deployed_at=deployed_at)

    async def fetch_logs(self, problem: DeploymentFailed, max_seconds: float | None) -> None:
        """Adds the logs of a failed deployment to its error, if the API gives them in time.

        Args:
            problem: the error.
            max_seconds: seconds that the call may take, besides its limit of 10; None for no other.
        """
        seconds = _LOG_TIMEOUT if max_seconds is None else min(max_seconds, _LOG_TIMEOUT)
        try:
            async with asyncio.timeout(seconds):
                problem.logs = await self.client.deployments.logs(problem.request_id)
        except (EdgegapError, TimeoutError) as error:
            logger.info(
                "the logs of %s could not be read: %r",
                problem.request_id,
                error,
                extra=log_fields(error, request_id=problem.request_id, owner=self.owned.owner),
            )


def _timed_out(timeout: float, *, was_sent: bool) -> WaitTimedOut:
    if was_sent:
        text = f"the API did not accept the deploy within timeout={timeout:g} s"
        return WaitTimedOut(f"{text}; what it may have made is being stopped")
    return WaitTimedOut(
        f"timeout={timeout:g} s passed before the deploy was sent, such as in the queue for its"
        " rate limit; nothing was deployed"
    )
