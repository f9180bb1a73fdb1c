"""Deploy, wait, use, stop: several calls that make one intention.

Ownership. From the moment the API accepts a deploy until somebody else answers for it, the client
does (see `custody`). `deploy` hands the deployment over when it returns; `deploy_many` with its
outcome; `run` never does. A caller who is cancelled before that leaves it with the client, which
stops it in the background; `close` waits for that, and names in the log what could not be stopped.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, Unpack, cast

import aiohttp
import attrs

from .api.messages import HttpRequest, encode
from .api.models import DeployAccepted, Deployment, DeploymentRow, Status
from .api.operations import DEPLOY, DEPLOY_TO_FLEET, GET_DEPLOYMENT, STOP_DEPLOYMENT
from .api.requests import (
    AnyUser,
    DeployOptions,
    DeployRequest,
    Filter,
    FleetDeployRequest,
    check_options,
    deploy_request,
)
from .api.validation import check_kind, check_list, check_number, check_segment
from .deployments.handle import DeploymentHandle, RecoveredDeployment
from .deployments.idempotency import IdempotentDeploy, new_operation_tag, operation_time, owner_tag
from .deployments.ownership import OwnedDeployments
from .deployments.registry import ActiveRegistry
from .errors import (
    CallError,
    ClientClosed,
    DeploymentFailed,
    EdgegapError,
    Gone,
    InvalidRequest,
    MaybeCreated,
    NotAllowed,
    NotFound,
    Unprocessable,
    WaitTimedOut,
)
from .http.api_client import ApiClient
from .http.auth import api_token
from .http.guard import Guard
from .http.rate_limits import Limits
from .http.retries import RetryPolicy
from .http.transport import Timeouts
from .observability.observer import CallObserver, ObservedCall
from .polling.poller import StatusPoller
from .polling.schedule import PollingPolicy
from .polling.tracker import WebhookSource, WebhookTrigger, stop_until_confirmed, with_webhook_urls

if TYPE_CHECKING:
    from .batch.batch import Batch
    from .batch.plan import AnyRequests, FailurePolicy, Progress
    from .deployments.playable import Check

__all__ = ["EdgegapClient"]

logger = logging.getLogger(__name__)

_GUARD_RECHECK: Final = 10.0  # seconds between looks for ends, while the guard refuses deploys
_MAX_LIST_DELAY: Final = 300.0  # seconds beyond which no API hides what runs
_LOG_TIMEOUT: Final = 10.0  # seconds that the logs of what has failed are waited for
_OVER: Final = Status.TERMINATED
_CLOSE_TIMEOUT: Final = 10.0  # seconds that close() gives to stops under way


class EdgegapClient(ApiClient):
    """Runs game servers on Edgegap: deploys them, waits until they are READY, stops them.

    Use it as `async with EdgegapClient() as client`. One client serves a whole program: it holds
    the limits, which are the organization's.

    Args:
        token: the API token, with or without its leading word; EDGEGAP_API_TOKEN if left out.
            None is enough for `deployments.stop_self`.
        base_url: where the API is; EDGEGAP_BASE_URL or EDGEGAP_API_URL if left out, then
            https://api.edgegap.com.
        session: an aiohttp session to use. It is never closed here. Its connections are shared: a
            stop may have to wait for one where many deploys hang.
        timeouts: seconds for one attempt of a call; EDGEGAP_TIMEOUT_MS, then 30 s.
        limits: calls a second by operation name, where yours differ from the documented ones; or
            `Limits` that several clients share.
        on_limit: "raise" for `LimitReached` at once where a call would have to wait for the limits.
            Stops, cleaning up, the looks of those who wait for a status, and the deploys of
            `deploy_many` and of pools always wait.
        max_wait: seconds that a call may wait for the limits before `LimitReached`; None for
            as long as it takes.
        retries: how often and how long a call is tried.
        webhooks: a `WebhookReceiver`. Then `deploy` and `run` hand its URLs to the API, and waits
            end as soon as it is told.
        polling: how often a deployment is looked at while somebody waits for it.
        guard: what this program may not do; EDGEGAP_READ_ONLY, EDGEGAP_DRY_RUN and
            EDGEGAP_APP_ALLOWLIST if left out, then nothing is forbidden.
        owner: name of this program, 1 to 16 characters, the same after a restart, such as
            `matchmaker-1`. Every deployment then carries it in a tag, by which `recover` and
            `reap` find what an earlier run left behind. One program that runs has it at a time:
            two replicas, or workers of one server, with one name would stop each other's servers.
        list_delay: seconds that a deployment may take to show up in lists; after a lost answer
            it is looked for that long before the deploy is sent once more.
        allow_insecure: True to send the token over http to a host that is not this one.

    Raises:
        InvalidRequest: an argument, or a variable of the environment, cannot be used.
    """

    def __init__(
        self,
        token: str | None = None,
        *,
        base_url: str | None = None,
        session: aiohttp.ClientSession | None = None,
        timeouts: Timeouts | None = None,
        limits: Limits | Mapping[str, float | None] | None = None,
        on_limit: Literal["wait", "raise"] = "wait",
        max_wait: float | None = None,
        retries: RetryPolicy | None = None,
        webhooks: WebhookSource | None = None,
        polling: PollingPolicy | None = None,
        guard: Guard | None = None,
        owner: str | None = None,
        list_delay: float = 10.0,
        allow_insecure: bool = False,
    ) -> None:
        secret = api_token(token)
        del token  # a traceback that shows local variables must not show it
        super().__init__(
            secret,
            base_url=base_url,
            session=session,
            timeouts=timeouts,
            limits=limits,
            on_limit=on_limit,
            max_wait=max_wait,
            retries=retries,
            guard=guard,
            allow_insecure=allow_insecure,
        )
        check_kind("polling", polling, PollingPolicy)
        if webhooks is not None and not callable(getattr(webhooks, "open", None)):
            raise InvalidRequest(f"webhooks is a WebhookReceiver, not {webhooks!r}")
        check_number("list_delay", list_delay, least=0)
        check_kind("owner", owner, str)
        self._webhook_source = webhooks
        self.poller: Final = StatusPoller(self, polling or PollingPolicy())
        self.owner: Final = owner
        self._owner_tag = owner_tag(owner) if owner is not None else None
        self._list_delay = list_delay
        self._deployed = ActiveRegistry()  # by this client; held until they end, and how long young
        self._deploying = 0
        self._ends_noted_at = -math.inf
        self._wishes = ActiveRegistry()  # their tags: what they make may show up before its id
        self.custody: Final = OwnedDeployments(self._stop)
        self.add_observer(_EndObserver(self._deployed, self.custody))

    async def deploy(
        self,
        application: str,
        version: str,
        *,
        users: Iterable[AnyUser],
        **options: Unpack[DeployOptions],
    ) -> DeploymentHandle:
        """A handle of a new deployment, accepted and not READY yet. It is yours to stop.

        Cancelled while the API may have accepted it, the client stops it in the background.

        Args:
            application: name of the application.
            version: name of its version.
            users: the players, by IP address or by (latitude, longitude); at least one.
            options: as for `deployments.deploy`, and `private_host_ids` for a private fleet.

        Raises:
            BadRequest, Unprocessable, NoAnswer: as for `deployments.deploy`.
            MaybeCreated: an answer was lost, and it could not be found out what it said.
            NotAllowed: the client's guard refuses it.
        """
        return await self._deploy(application, version, users, options, ignore_wait_limit=False)

    async def _deploy(
        self,
        application: str,
        version: str,
        users: Iterable[AnyUser],
        options: DeployOptions,
        *,
        ignore_wait_limit: bool,
    ) -> DeploymentHandle:
        """As `deploy`; one that is patient waits for the limits as long as it takes."""
        check_options(options)
        trigger, urls, expects_webhook = WebhookTrigger(), None, False
        if self._webhook_source is not None:
            urls = self._webhook_source.open(trigger.fire)
            # With a webhook of the caller's own in its place, READY is not told to us.
            expects_webhook = not options.get("webhook_on_ready")
            options = with_webhook_urls(options, urls)
        tag = new_operation_tag() if options.get("operation_tag", True) else None
        check_list("tags", options.get("tags", ()))
        tags = (*options.get("tags", ()), *filter(None, (self._owner_tag, tag)))
        request = self._deploy_request(application, version, users, {**options, "tags": tags})
        try:
            self._check_live()
        except NotAllowed:
            await self._note_ends()
            self._check_live()
        self._deploying += 1
        self._wishes.hold(tag)
        try:
            accepted = await self._accept(request, tag, ignore_wait_limit=ignore_wait_limit)
        except MaybeCreated:
            self._wishes.forget(tag)  # if it made one, it is for `recover` to find
            raise
        finally:
            self._deploying -= 1
            self._wishes.let_go(tag)
        tracker = self.poller.tracker(
            accepted.request_id,
            expects_webhook=expects_webhook,
            not_found_until=self._not_found_until(accepted.request_id),
        )
        trigger.connect(tracker)
        return DeploymentHandle(self, tracker, urls, accepted)

    def _check_live(self) -> None:
        self._guard.check_live(len(self._deployed) + self._deploying)

    async def _note_ends(self) -> None:
        """Looks now and then, a hundred at a time, who has ended by itself."""
        now = asyncio.get_running_loop().time()
        if not self._deployed or now < self._ends_noted_at + _GUARD_RECHECK:
            return
        self._ends_noted_at, some = now, self._deployed.next(100)
        with contextlib.suppress(CallError):
            rows = self.deployments.list(filters=[Filter("request_id", "in", some)], limit=100)
            listed = {row.request_id async for row in rows}
            for request_id in (one for one in some if one not in listed):
                with contextlib.suppress(Gone, NotFound):  # and that is noted
                    await self.deployments.get(request_id)

    def _not_found_until(self, request_id: str) -> float:
        """Until when "no such deployment" is not believed of one that this client deployed."""
        until = asyncio.get_running_loop().time() + self.poller.policy.not_found_grace
        return self._deployed.hold(request_id, until)

    def handle(self, request_id: str) -> DeploymentHandle:
        """A handle of a deployment that exists already. Makes no call.

        Raises:
            InvalidRequest: no deployment can have that id.
        """
        check_segment("request_id", request_id)
        watched = self.poller.tracker(request_id, not_found_until=self._deployed.until(request_id))
        return DeploymentHandle(self, watched, None)

    async def recover(self, tag: str | None = None) -> AsyncIterator[RecoveredDeployment]:
        """Each deployment that an earlier run of this program left behind, to adopt or to stop.

        Those that this client deployed itself are not among them, nor any of another owner.

        Args:
            tag: in place of the owner's: the `operation_tag` of a `MaybeCreated`.

        Raises:
            InvalidRequest: the client has no `owner`, and no tag is given.
        """
        wanted = tag or self._owner_tag
        if wanted is None:
            raise InvalidRequest("recover() needs EdgegapClient(owner=…), or a tag")
        filters = [Filter("tags", "in", [wanted])]
        # All before the first is given: one that is stopped meanwhile moves the others' pages.
        for row in [row async for row in self.deployments.list(filters=filters)]:
            if found := self.found(row, tag):
                yield found

    def found(self, row: DeploymentRow, tag: str | None = None) -> RecoveredDeployment | None:
        """What an earlier run left behind, as `recover` gives it, from a list of one's own.

        Args:
            row: one of the list.
            tag: in place of the owner's.

        Returns:
            None for what carries no such tag, and for what this client deploys itself.
        """
        # Whatever the API makes of a filter, what is not ours is not touched.
        if (tag or self._owner_tag) not in row.tags or row.request_id in self._deployed:
            return None
        if tag is None and any(one in self._wishes for one in row.tags):
            return None
        made = next(filter(None, map(operation_time, row.tags)), row.start_time)
        return RecoveredDeployment(handle=self.handle(row.request_id), row=row, deployed_at=made)

    async def reap(self, *, older_than: float = 0.0, dry_run: bool = False) -> tuple[str, ...]:
        """The ids of what an earlier run left behind, stopped.

        Args:
            older_than: seconds; younger ones are left alone, and those whose age is not known
                too, unless it is 0.
            dry_run: True to stop nothing, only to tell; also by the client's guard.

        Raises:
            InvalidRequest: the client has no `owner`.
            ExceptionGroup: some could not be stopped; all were tried.
        """
        check_number("older_than", older_than, least=0, optional=False)
        if self._owner_tag is None:
            raise InvalidRequest("reap() needs EdgegapClient(owner=…)")
        old = [found async for found in self.recover() if (found.age or 0.0) >= older_than]
        if not (dry_run or self._guard.dry_run):
            stops = (found.handle.stop() for found in old)
            outcomes = await asyncio.gather(*stops, return_exceptions=True)
            failures = [one for one in outcomes if isinstance(one, Exception)]
            if failures:
                raise ExceptionGroup("what an earlier run left could not all be stopped", failures)
        return tuple(found.handle.request_id for found in old)

    @contextlib.asynccontextmanager
    async def run(
        self,
        application: str,
        version: str,
        *,
        users: Iterable[AnyUser],
        timeout: float | None = 300.0,  # noqa: ASYNC109 - as in wait_ready
        playable: Check | None = None,
        **options: Unpack[DeployOptions],
    ) -> AsyncIterator[DeploymentHandle]:
        """A deployment that is READY inside the block, and stopped on the way out.

        Whatever ends the block ends the deployment: its end, an error, a cancellation, a
        deployment that is never READY, `client.close()`.

        Args:
            application: name of the application.
            version: name of its version.
            users: the players, by IP address or by (latitude, longitude); at least one.
            timeout: seconds until it must be READY, counted from the call, None for no limit.
            playable: what must succeed before the block begins, as for `wait_ready`.
            options: as for `deploy`.

        Raises:
            WaitTimedOut, DeploymentFailed, DeploymentTerminated, NotPlayable: as for `wait_ready`.
            BadRequest, Unprocessable, NoAnswer: as for `deploy`.
            CallError: the block ended well, and the deployment could not be stopped.
        """
        check_number("timeout", timeout, above=0)
        now = asyncio.get_running_loop().time
        deadline = None if timeout is None else now() + timeout
        try:
            server = await self._deploy_by(
                deadline,
                self._deploy(application, version, users, options, ignore_wait_limit=False),
            )
        except Unprocessable as problem:
            if problem.request_id:
                await self.custody.release_after(problem, problem.request_id)
            raise
        self.custody.take(server.request_id)
        try:
            left = None if deadline is None else max(0.0, deadline - now())
            await server.wait_ready(left, playable=playable)
            deadline = None  # the block has all the time it takes
            yield server
        except BaseException as problem:
            try:
                if isinstance(problem, DeploymentFailed):
                    await self._ask_why(problem, None if deadline is None else deadline - now())
            finally:
                await self.custody.release_after(problem, server.request_id)
            raise
        await self.custody.release(server.request_id)

    def deploy_many(
        self,
        requests: AnyRequests,
        *,
        concurrency: int = 1000,
        timeout: float | None = None,
        timeout_each: float | None = 300.0,
        on_failure: FailurePolicy = "stop_failed",
        attempts: int = 1,
        retry_with: Callable[[DeployRequest, EdgegapError], DeployRequest] | None = None,
        playable: Check | None = None,
        on_progress: Callable[[Progress], object] | None = None,
        stop_at_end: bool = False,
    ) -> Batch:
        """Many deployments at once, as fast as the limits allow: a block with their outcomes.

        ::

            async with client.deploy_many(requests) as batch:
                async for outcome in batch:
                    ...

        or, for all of them in order, `outcomes = await client.deploy_many(requests).all()`. An
        outcome that you were given is yours, with its deployment; leaving the block stops the rest.

        Args:
            requests: `DeployRequest`s, or mappings of their fields: a list, or anything that gives
                one after the other. One that cannot be sent fails alone, before the wire. What was
                not taken from an iterator when the time is over has no outcome.
            concurrency: how many are worked on at once, from the deploy to the outcome.
            timeout: seconds for all of it, None for no limit. What is not READY by then fails with
                `WaitTimedOut`. Its stop, which the error tells of, may take longer.
            timeout_each: seconds that one has from the accepted deploy to READY.
            on_failure: `stop_failed`, and the others go on; `keep_going`: what failed is handed
                over as it is, to read its logs; `stop_all`: the others are stopped too.
            attempts: how many times one is deployed at most, where the deployment is what failed
                (ERROR, no capacity, not READY or playable in time); the failed one is stopped.
            retry_with: what to deploy in the next attempt, from the request and its error; the same
                again if left out.
            playable: what must succeed after READY, as for `wait_ready`.
            on_progress: is called with the `Progress` twice a second and at the end. An exception
                in it, as one in `elsewhere`, ends the batch.
            stop_at_end: True to stop, when the block is left, also what you were given, as `run`
                does with its one server.

        Raises:
            InvalidRequest: an argument cannot be used.
        """
        from .batch.batch import Batch  # noqa: PLC0415 - imported when asked for
        from .batch.plan import BatchOptions  # noqa: PLC0415

        plan = BatchOptions(
            concurrency=concurrency,
            timeout=timeout,
            timeout_each=timeout_each,
            on_failure=on_failure,
            attempts=attempts,
            retry_with=retry_with,
            playable=playable,
            on_progress=on_progress,
            stop_at_end=stop_at_end,
        )
        return Batch(
            self,
            requests,
            plan,
            custody=self.custody,
            deploy=self._deploy_request_by,
            handle=self.handle,
            ask_why=self._ask_why,
        )

    async def close(self) -> None:
        """Stops what it answers for, ends every wait with `ClientClosed`, closes what is our own.

        It answers for what `run`, `deploy_many` and pools have and did not hand over. Takes 10
        seconds at most for stops that get no answer; what may go on running is named in the log.
        Twice is fine.
        """
        self._open_calls.check_loop(asyncio.get_running_loop())
        self.custody.stop_all()
        try:
            await self._open_calls.cancel_all()
            await self.custody.drain(_CLOSE_TIMEOUT)
        finally:
            await self._open_calls.cancel_all()  # again: the first may have been cancelled
            await self.custody.abandon()
            await super().close()

    async def _deploy_by(
        self, deadline: float | None, deploying: Awaitable[DeploymentHandle]
    ) -> DeploymentHandle:
        """What a deploy makes; `deadline` is when, by the loop's time, there must be an answer."""
        began = asyncio.get_running_loop().time()
        limit = asyncio.timeout_at(deadline)
        try:
            async with limit:
                return await deploying
        except TimeoutError:
            if not limit.expired() or deadline is None:
                raise
            # Cancelled, the deploy is undone in the background, as for any caller who goes away.
            seconds = deadline - began
            raise WaitTimedOut(f"no answer to the deploy in {seconds:g} s; it is undone") from None

    async def _deploy_request_by(
        self, request: DeployRequest, deadline: float | None
    ) -> DeploymentHandle:
        """As one of many, which have time: it waits for the limits whatever `on_limit` says."""
        said = {field.name: getattr(request, field.name) for field in attrs.fields(type(request))}
        deploying = self._deploy(
            said.pop("application"),
            said.pop("version"),
            said.pop("users"),
            cast("DeployOptions", said),
            ignore_wait_limit=True,
        )
        return await self._deploy_by(deadline, deploying)

    def _deploy_request(
        self, application: str, version: str, users: Iterable[AnyUser], options: DeployOptions
    ) -> HttpRequest[DeployAccepted]:
        said: dict[str, Any] = {
            "application": application,
            "version": version,
            "users": users,
            **options,
        }
        said.pop("operation_tag", None)
        body = deploy_request(said)
        operation = DEPLOY_TO_FLEET if isinstance(body, FleetDeployRequest) else DEPLOY
        self._guard.check(operation, body)
        return encode(operation, body=body)

    async def _accept(
        self, request: HttpRequest[DeployAccepted], tag: str | None, *, ignore_wait_limit: bool
    ) -> DeployAccepted:
        """Deploys; a caller who goes away meanwhile leaves nothing behind."""
        self._open_calls.check_loop(asyncio.get_running_loop())
        wish = IdempotentDeploy(
            client=self,
            cleanup=self._cleanup_deployments,
            request=request,
            tag=tag,
            list_delay=self._list_delay,
            stop=self._stop,
            in_background=self.custody.in_background,
            ignore_wait_limit=ignore_wait_limit,
        )
        accepting = asyncio.create_task(wish.run())
        try:
            with self.until_closed():
                return await asyncio.shield(accepting)
        except (asyncio.CancelledError, ClientClosed):
            if wish.sending.sent:
                wish.sending.is_abandoned = True
                what = f"what a cancelled deploy made (tag {tag})"
                self.custody.in_background(self._undo(accepting), what)
            else:
                accepting.cancel()
            raise

    async def _undo(self, accepting: asyncio.Task[DeployAccepted]) -> None:
        try:
            request_id: str | None = (await accepting).request_id
        except CallError as error:
            if error.maybe_created:
                raise
            request_id = error.request_id  # of a 422: it was made, and is in error
        if request_id:
            await self._stop(request_id)

    async def _ask_why(self, problem: DeploymentFailed, seconds: float | None) -> None:
        """Puts the logs on the error, if they come in so many seconds, and a few at most."""
        limit = asyncio.timeout(_LOG_TIMEOUT if seconds is None else min(seconds, _LOG_TIMEOUT))
        try:
            async with limit:
                problem.logs = await self.deployments.logs(problem.request_id)
        except (EdgegapError, TimeoutError) as error:
            if not isinstance(error, EdgegapError) and not limit.expired():
                raise
            logger.info("%s: no logs: %r", problem.request_id, error)

    async def _stop(self, request_id: str) -> None:
        stop = functools.partial(self._cleanup_deployments.stop, request_id)
        is_over = self._deployed.is_over(request_id)
        young_until = -math.inf if is_over else self._not_found_until(request_id)
        await stop_until_confirmed(stop, not_found_until=young_until)


class _EndObserver(CallObserver):
    """Notes the end of each deployment that a call tells of."""

    def __init__(self, deployed: ActiveRegistry, custody: OwnedDeployments) -> None:
        self._deployed = deployed
        self._custody = custody

    def call_succeeded(self, call: ObservedCall, result: object) -> None:
        """A stop was accepted, or the status of a deployment is TERMINATED."""
        is_over = isinstance(result, Deployment) and result.current_status is _OVER
        if is_over or call.operation is STOP_DEPLOYMENT:
            self._has_ended(call.request_id or "")

    def call_failed(self, call: ObservedCall, error: BaseException) -> None:
        """The API does not know the deployment, and the answer is credible."""
        if not isinstance(error, Gone | NotFound):
            return
        if call.operation not in {STOP_DEPLOYMENT, GET_DEPLOYMENT}:
            return
        request_id, is_stop = call.request_id or "", call.operation is STOP_DEPLOYMENT
        age = asyncio.get_running_loop().time() - self._deployed.until(request_id)
        if isinstance(error, Gone) or age >= (0 if is_stop else _MAX_LIST_DELAY):
            self._has_ended(request_id)

    def _has_ended(self, request_id: str) -> None:
        self._deployed.let_go(request_id)
        self._custody.hand_over(request_id)  # to nobody
