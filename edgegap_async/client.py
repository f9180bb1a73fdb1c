"""The client: deploy, wait, use, stop.

Ownership: the client owns a deployment from the moment the API accepts the deploy until the caller
has the deployment or the API accepts a stop (see `deployments.ownership`). `deploy` hands the
deployment to its caller when it returns, `deploy_many` with the outcome, and `run` never. If the
caller is cancelled before, the client stops the deployment in the background; `close` waits for
these stops, and logs each deployment that may go on running.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final, Literal, Unpack

import aiohttp

from .api.requests import AnyUser, DeployOptions, DeployRequest, Filter
from .api.validation import check_kind, check_number
from .concurrency import loop_time
from .deployments.deployer import Deployer
from .deployments.handle import DeploymentHandle, RecoveredDeployment
from .errors import DeploymentFailed, EdgegapError, InvalidRequest, Unprocessable
from .http.api_client import ApiClient
from .http.auth import api_token
from .http.guard import Guard
from .http.rate_limits import Limits
from .http.retries import RetryPolicy
from .http.transport import Timeouts
from .polling.poller import StatusPoller
from .polling.schedule import PollingPolicy
from .polling.tracker import WebhookSource

if TYPE_CHECKING:
    from .batch.batch import Batch
    from .batch.plan import AnyRequests, FailurePolicy, Progress
    from .deployments.playable import Check

__all__ = ["EdgegapClient"]

_CLOSE_TIMEOUT: Final = 10.0  # seconds that `close` gives to stops in progress


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
        self.poller: Final = StatusPoller(self, polling or PollingPolicy())
        self.owner: Final = owner
        self._deployer: Final = Deployer(
            self,
            self.poller,
            cleanup=self._cleanup_deployments,
            guard=self._guard,
            webhooks=webhooks,
            owner=owner,
            list_delay=list_delay,
        )

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
        return await self._deployer.deploy(application, version, users, options)

    def handle(self, request_id: str) -> DeploymentHandle:
        """A handle of a deployment that exists already. Makes no call.

        Raises:
            InvalidRequest: no deployment can have that id.
        """
        return self._deployer.handle(request_id)

    async def recover(self, tag: str | None = None) -> AsyncIterator[RecoveredDeployment]:
        """Each deployment that an earlier run of this program left behind, to adopt or to stop.

        Those that this client deployed itself are not among them, nor any of another owner.

        Args:
            tag: in place of the owner's: the `operation_tag` of a `MaybeCreated`.

        Raises:
            InvalidRequest: the client has no `owner`, and no tag is given.
        """
        wanted = tag or self._deployer.owner_tag
        if wanted is None:
            raise InvalidRequest("recover() needs EdgegapClient(owner=…), or a tag")
        filters = [Filter("tags", "in", [wanted])]
        # All before the first is given: one that is stopped meanwhile moves the others' pages.
        for row in [row async for row in self.deployments.list(filters=filters)]:
            if found := self._deployer.recovered(row, tag):
                yield found

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
        if self.owner is None:
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
        deployer, owned = self._deployer, self._deployer.owned
        deadline = None if timeout is None else loop_time() + timeout
        try:
            server = await deployer.deploy(application, version, users, options, deadline=deadline)
        except Unprocessable as problem:
            if problem.request_id:
                await owned.stop_after(problem, problem.request_id)
            raise
        owned.add(server.request_id)
        try:
            left = None if deadline is None else max(0.0, deadline - loop_time())
            await server.wait_ready(left, playable=playable)
            deadline = None  # the block itself has no time limit
            yield server
        except BaseException as problem:
            try:
                if isinstance(problem, DeploymentFailed):
                    left = None if deadline is None else deadline - loop_time()
                    await deployer.fetch_logs(problem, left)
            finally:
                await owned.stop_after(problem, server.request_id)
            raise
        await owned.stop_and_wait(server.request_id)

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
        return Batch(self._deployer, requests, plan)

    async def close(self) -> None:
        """Stops what it answers for, ends every wait with `ClientClosed`, closes what is our own.

        It answers for what `run`, `deploy_many` and pools have and did not hand over. Takes 10
        seconds at most for stops that get no answer; what may go on running is named in the log.
        Twice is fine.
        """
        owned = self._deployer.owned
        self._open_calls.check_loop(asyncio.get_running_loop())
        owned.close()
        try:
            await self._open_calls.cancel_all()
            await owned.drain(_CLOSE_TIMEOUT)
        finally:
            await self._open_calls.cancel_all()  # again: the first may have been cancelled
            await owned.cancel_all()
            await super().close()
