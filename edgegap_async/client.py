"""The client: deploy, wait, use, stop.

Ownership: the client owns a deployment from the moment the API accepts the deploy until the caller
has the deployment or the API accepts a stop (see `deployments.ownership`). `deploy` hands the
deployment to its caller when it returns, `deploy_many` with the outcome, and `run` never. If the
caller is cancelled before it has the deployment, the client stops the deployment in the background;
`close` waits for these stops, and logs each deployment that may go on running.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Final, Literal, Unpack

import aiohttp

from .api.requests import AnyUser, DeployOptions, DeployRequest, Filter, Token, check_options
from .api.validation import check_kind, check_number
from .concurrency import loop_time
from .deployments.deployer import Deployer
from .deployments.handle import DeploymentHandle, RecoveredDeployment, wait_ready
from .errors import DeploymentFailed, EdgegapError, InvalidRequest, Unprocessable
from .http.access import Proxy, read_secrets
from .http.api_client import ApiClient
from .http.guard import Guard
from .http.rate_limits import Limits
from .http.retries import RetryPolicy
from .http.shutdown import Closing
from .http.transport import Timeouts
from .polling.poller import StatusPoller
from .polling.schedule import PollingPolicy
from .polling.tracker import WebhookSource

if TYPE_CHECKING:
    from .api.resources.relays import AnyRelayUser, RelaySession
    from .batch.batch import Batch
    from .batch.plan import AnyRequests, FailurePolicy, Progress
    from .deployments.ownership import OwnedDeployments
    from .deployments.playable import Check
    from .relays.session import OwnedRelays

__all__ = ["EdgegapClient"]

_RECOVER_PAGE_SIZE: Final = 100  # rows


class EdgegapClient(ApiClient):
    """Runs game servers on Edgegap: deploys them, waits until they are READY, stops them.

    Use it as `async with EdgegapClient() as client`, one client for a whole program: the client
    keeps the rate limits, which Edgegap counts per organization.

    Args:
        token: the API token, with or without the word `token` before it. Default: the environment
            variable EDGEGAP_API_TOKEN. A `Token(value, scheme=…)` goes out with another word. A
            client without a token can only call `deployments.stop_self`.
        base_url: URL of the API, without /v1 or /v2. Default: EDGEGAP_BASE_URL, then
            EDGEGAP_API_URL, then https://api.edgegap.com.
        session: an aiohttp session of yours, which the client does not close. Its connections are
            shared: while many deploys hang, a stop may have to wait for a connection. Default: a
            session of the client's own.
        timeouts: seconds for one attempt of a call, or `Timeouts`, which has the time to connect
            too. Default: EDGEGAP_TIMEOUT_MS (in milliseconds), then 30 s.
        limits: calls per second by operation name, to override the documented rate limits; or a
            `Limits` object that several clients share. Default: the documented rate limits.
        on_limit: what a call does when it would have to queue for the rate limit: "wait" queues,
            "raise" raises `LimitReached` at once. Stops, clean-up, polling, and the deploys of
            `deploy_many` and of pools always queue. Default: "wait".
        max_wait: seconds that each attempt of a call may queue for the rate limit before
            `LimitReached`, 0 or more; a wait after opening a connection counts too.
            Default: None, for no limit.
        retries: how often, and for how long, a failed call is repeated. Default: `RetryPolicy()`.
        webhooks: a `WebhookReceiver`. Then `deploy`, `run`, `deploy_many` and pools send its URLs
            to the API, and a webhook ends a wait sooner than polling. Default: None, for polling
            alone.
        polling: how often the client asks for the status of a deployment that is waited for.
            Default: `PollingPolicy()`.
        guard: what the program may not do. Default: EDGEGAP_READ_ONLY, EDGEGAP_DRY_RUN and
            EDGEGAP_APP_ALLOWLIST; if none is set, everything is allowed.
        owner: name of this program, 1 to 40 characters of A-Z a-z 0-9 . _ -, the same after a
            restart, for example `matchmaker-1`. (The API's description of 2024 allowed tags of 20
            characters, so owners of 16.) Every deployment has it in a tag, by which
            `recover` and `reap` find what an earlier run left behind. Only one running program may
            use an owner: two replicas with one owner would stop each other's servers. Default:
            None, for no such tag.
        list_delay: seconds that a new deployment may be missing from lists, 0 or more. If the
            answer to a deploy is lost, the client searches the list for this time before it sends
            the deploy once more; after a 500 or 503 for three times as long as lists have lagged so
            far, once three new deployments were in lists, and at least 1 s. Default: 10 s.
        allow_insecure: True to send the token over http to another host, as in a network of
            containers. Default: EDGEGAP_ALLOW_INSECURE (1 or 0), then False.
        proxy: URL of an http or https proxy, such as `http://user:password@proxy.example:3128`. It
            opens a tunnel to the API and sees neither token nor calls, so `base_url` must have
            https. No repr, log or error shows user and password. Default: no proxy.
        trust_env: True to take the proxy from HTTPS_PROXY or ALL_PROXY, except for the hosts that
            NO_PROXY names; `proxy` goes before them. Default: False.

    Attributes:
        limits: the rate limits; `limits.snapshot()` returns the state of each.
        observers: they receive the events of calls and deployments; `add_observer` adds one.
        owner: the name of this program, from the argument; None without an owner.
        poller: polls the status of each deployment that is waited for; `poller.stats` has counts.
        requests_sent: how many requests were sent so far, retries included; 0 or more.

    Raises:
        InvalidRequest: an argument or an environment variable cannot be used.
    """

    def __init__(
        self,
        token: str | Token | None = None,
        *,
        base_url: str | None = None,
        session: aiohttp.ClientSession | None = None,
        timeouts: Timeouts | float | None = None,
        limits: Limits | Mapping[str, float | None] | None = None,
        on_limit: Literal["wait", "raise"] = "wait",
        max_wait: float | None = None,
        retries: RetryPolicy | None = None,
        webhooks: WebhookSource | None = None,
        polling: PollingPolicy | None = None,
        guard: Guard | None = None,
        owner: str | None = None,
        list_delay: float = 10.0,
        allow_insecure: bool | None = None,
        proxy: str | Proxy | None = None,
        trust_env: bool = False,
    ) -> None:
        secret, chosen_proxy, slip = read_secrets(token, proxy)
        del token, proxy  # a traceback that shows local variables must not show them
        if slip:
            raise slip
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
            proxy=chosen_proxy,
            trust_env=trust_env,
        )
        check_kind("polling", polling, PollingPolicy)
        if webhooks is not None and not callable(getattr(webhooks, "open", None)):
            raise InvalidRequest(f"webhooks must be a WebhookReceiver, not {webhooks!r}")
        check_number("list_delay", list_delay, least=0)
        check_kind("owner", owner, str)
        self._list_delay: Final = list_delay
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
        """Deploys a game server, and returns its handle once the API has accepted the deploy.

        The deployment is not READY yet: call `wait_ready` on the handle. The caller has to stop the
        deployment. If the call is cancelled, the client stops what the API may have accepted, in
        the background.

        Args:
            application: name of the application.
            version: name of its version.
            users: the players, at least one, by IP address (`"75.28.35.192"`) or by position
                (`(45.5, -73.6)`: degrees north and east).
            options: as for `deployments.deploy`; also `private_host_ids` for the hosts of a private
                fleet, `operation_tag=False` for a deploy that is not idempotent, and
                `idempotency_key` for a job that may be delivered twice: while a deployment of this
                application and key lives, the call returns it and deploys nothing.

        Raises:
            BadRequest: the application or version does not exist. There is no deployment.
            Unprocessable: the API found no location. The error's `request_id` names a deployment
                that exists, in ERROR: stop it.
            MaybeCreated: the answer was lost, and the list requests by tag failed or found nothing.
                A deployment may exist: find it with `recover(error.operation_tag)`.
            NoAnswer: the answer to a deploy with `operation_tag=False` was lost.
            NotAllowed: the client's guard refuses the deploy.
            LimitReached: the call would have to queue longer than `on_limit` and `max_wait` allow.
            CallError: the call failed in another way.
            ClientClosed: the client is closed, or was closed meanwhile.
            InvalidRequest: an argument cannot be used. Nothing was sent.
            TypeError: there is no such option.
        """
        check_options(options, self.deploy)
        return await self._deployer.deploy(application, version, users, options)

    def handle(self, request_id: str) -> DeploymentHandle:
        """Returns a handle of an existing deployment. Makes no call.

        Args:
            request_id: id of the deployment.

        Raises:
            InvalidRequest: `request_id` cannot be an id.
        """
        return self._deployer.handle(request_id)

    async def recover(self, tag: str | None = None) -> AsyncIterator[RecoveredDeployment]:
        """Yields each deployment that an earlier run of this program left behind.

        The deployments that this client has deployed, or that its pools have adopted, are not among
        them, nor are those of other owners. The caller decides whether to use or to stop each;
        until a deployment has ended, it counts for `Guard.max_live`.

        Args:
            tag: the tag that the deployments must have, such as the `operation_tag` of a
                `MaybeCreated`; None for the owner's tag.

        Raises:
            InvalidRequest: the client has no `owner`, and `tag` is None.
            CallError: a list request failed.
            ClientClosed: the client is closed, or was closed meanwhile.
        """
        wanted = tag or self._deployer.owner_tag
        if wanted is None:
            raise InvalidRequest("recover() needs EdgegapClient(owner=…), or a tag")
        for one in await self._left_behind(wanted, tag):
            self._deployer.register.add_recovered(one.handle.request_id)
            yield one

    async def _left_behind(self, wanted: str, tag: str | None = None) -> list[RecoveredDeployment]:
        filters = [Filter("tags", "in", [wanted])]
        found = dict[str, RecoveredDeployment]()
        known = -1
        # A row that vanishes shifts the rows after it, and one of them is then on no page. All
        # lists are read first: a deployment that the caller stops would shift rows, too.
        while len(found) > known:
            known = len(found)
            async for row in self.deployments.list(filters=filters, limit=_RECOVER_PAGE_SIZE):
                if row.request_id not in found and (one := self._deployer.recovered(row, tag)):
                    found[row.request_id] = one
        return list(found.values())

    async def reap(self, *, older_than: float = 0.0, dry_run: bool = False) -> tuple[str, ...]:
        """Stops the deployments that an earlier run of this program left behind.

        Args:
            older_than: seconds, 0 or more. Younger deployments are not stopped. Above 0,
                deployments of unknown age are not stopped either.
            dry_run: True to stop nothing and return the ids alone, as with `Guard.dry_run`.

        Returns:
            The ids of the deployments that were stopped, or would be.

        Raises:
            InvalidRequest: the client has no `owner`, or `older_than` cannot be used.
            ExceptionGroup: some deployments could not be stopped. Each was tried.
            CallError: a list request failed. Nothing was stopped.
            ClientClosed: the client is closed, or was closed meanwhile.
        """
        check_number("older_than", older_than, least=0, optional=False)
        wanted = self._deployer.owner_tag
        if wanted is None:
            raise InvalidRequest("reap() needs EdgegapClient(owner=…)")
        every = await self._left_behind(wanted)
        old = [found for found in every if (found.age or 0.0) >= older_than]
        if not (dry_run or self._guard.dry_run):
            stops = (found.handle.stop() for found in old)
            outcomes = await asyncio.gather(*stops, return_exceptions=True)
            failures = [one for one in outcomes if isinstance(one, Exception)]
            if failures:
                text = "some deployments of an earlier run could not be stopped"
                raise ExceptionGroup(text, failures)
        return tuple(found.handle.request_id for found in old)

    @contextlib.asynccontextmanager
    async def run(
        self,
        application: str,
        version: str,
        *,
        users: Iterable[AnyUser],
        timeout: float | None = 300.0,
        playable: Check | None = None,
        **options: Unpack[DeployOptions],
    ) -> AsyncIterator[DeploymentHandle]:
        """Deploys a game server that is READY inside the block, and stops it after the block.

        The server is stopped however the block ends: at its end, by an error, by a cancellation, by
        `client.close()`, and also if the server is not READY in time. The client does not watch the
        server inside the block: iterate `server.changes()` to learn of its end.

        Args:
            application: name of the application.
            version: name of its version.
            users: the players, as for `deploy`.
            timeout: seconds from the call until the server must be READY, above 0; None for no
                limit. It does not limit the block.
            playable: a check that must succeed before the block begins, as for
                `DeploymentHandle.wait_ready`; None for no check.
            options: as for `deploy`.

        Raises:
            WaitTimedOut: the server was not READY in time, or the API did not answer the deploy.
            DeploymentFailed: the server is in ERROR. The error has its logs, if they could be read
                within 10 s.
            DeploymentTerminated: the server has ended before it was READY.
            NotPlayable: the server was READY, and the check did not succeed.
            CallError: the deploy failed, as for `deploy`; or the block has ended without an error,
                and the server could not be stopped.
            ClientClosed: the client is closed, or was closed meanwhile.
            InvalidRequest: an argument cannot be used. Nothing was sent.
        """
        check_options(options, self.run)
        check_number("timeout", timeout, above=0)
        if playable is not None:  # before the deploy: an invalid check must not cost a server
            from .deployments.playable import as_check  # imported when asked for

            playable = as_check(playable)
        deployer, owned = self._deployer, self._deployer.owned
        deadline = None if timeout is None else loop_time() + timeout
        try:
            server = await deployer.deploy(
                application, version, users, options, deadline=deadline, timeout=timeout
            )
        except Unprocessable as problem:
            if problem.request_id:
                await owned.stop_because_of(problem, problem.request_id)
            raise
        owned.add(server.request_id)
        try:
            left = None if deadline is None else max(0.0, deadline - loop_time())
            await wait_ready(server, left, playable, f"timeout={timeout:g} s" if timeout else "")
            deadline = None  # the block itself has no time limit
            yield server
        except BaseException as problem:
            try:
                is_its_own = getattr(problem, "request_id", None) == server.request_id
                if isinstance(problem, DeploymentFailed) and is_its_own:
                    left = None if deadline is None else deadline - loop_time()
                    await deployer.fetch_logs(problem, left)
            finally:
                await owned.stop_because_of(problem, server.request_id)
            raise
        await owned.stop_and_wait(server.request_id)

    @contextlib.asynccontextmanager
    async def relay(
        self,
        users: Iterable[AnyRelayUser],
        *,
        filters: Iterable[Mapping[str, object]] = (),
        webhook_url: str | None = None,
        timeout: float | None = 60.0,
    ) -> AsyncIterator[RelaySession]:
        """Creates a relay session that is linked inside the block, and deletes it after the block.

        The session is deleted however the block ends, as the server of `run` is stopped.

        Args:
            users: the players' IP addresses, at least one.
            filters: as for `relays.create`.
            webhook_url: as for `relays.create`. A URL that no other session has makes
                `RelayMaybeCreated.candidates` sure.
            timeout: seconds from the call until the session must be linked, above 0; None for no
                limit. It does not limit the block.

        Raises:
            RelayTimedOut: the session was not linked in time, or the API did not answer the call.
            RelayNotLinked: the session has failed, or was deleted by another program.
            RelayMaybeCreated: the answer was lost. A session may exist that nothing deletes.
            CallError: the call failed, as for `relays.create`; or the block has ended without an
                error, and the session could not be deleted.
            ClientClosed: the client is closed, or was closed meanwhile.
            InvalidRequest: an argument cannot be used. Nothing was sent.
        """
        from .api.resources.relays import RelayRequest  # many programs use none

        check_number("timeout", timeout, above=0)
        body = RelayRequest(users=users, filters=filters, webhook_url=webhook_url)
        relays = self._owned_relays
        deadline = None if timeout is None else loop_time() + timeout
        session = await relays.create(body, deadline)
        try:
            yield await relays.wait_linked(session, deadline)
        except BaseException as problem:
            await relays.owned.stop_because_of(problem, session.session_id)
            raise
        await relays.owned.stop_and_wait(session.session_id)

    @functools.cached_property
    def _owned_relays(self) -> OwnedRelays:
        from .http.resources.relays import Relays
        from .relays.session import OwnedRelays

        return OwnedRelays(
            self,
            cleanup=Relays(self._call_for_cleanup),
            list_delay=self._list_delay,
            not_found_grace=self.poller.policy.not_found_grace,
            owner=self.owner,
        )

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
        """Deploys many game servers at once, as fast as the rate limits allow.

        ::

            async with client.deploy_many(requests) as batch:
                async for outcome in batch:
                    ...

        `outcomes = await client.deploy_many(requests).all()` gives all outcomes in the order of the
        requests. The caller has to stop the server of each outcome that it was given; the batch
        stops the other servers when the block is left.

        Args:
            requests: the requests, as `DeployRequest`s or mappings of their fields: a list, an
                iterator or an async iterator. A request that cannot be sent fails alone. A request
                that was not taken from an iterator by the timeout has no outcome.
            concurrency: number of requests in progress at once, each from its deploy to its
                outcome; 1 or more.
            timeout: seconds for the whole batch; None for no limit. A server that is not READY by
                then fails with `WaitTimedOut`; stopping it may take longer.
            timeout_each: seconds from the accepted deploy of a server to READY; None for no limit.
            on_failure: "stop_failed" stops a server that failed, and the batch goes on.
                "keep_going" gives a server that failed to the caller, for example to read its
                logs. "stop_all" ends the batch at the first failure.
            attempts: how often a request is deployed at most, 1 or more. Another attempt follows if
                the deployment has failed (ERROR, no capacity, not READY or not playable in time),
                after a stop of the failed one.
            retry_with: returns the request of the next attempt, from the request and its error.
                None deploys the same request again.
            playable: a check that must succeed after READY, as for `DeploymentHandle.wait_ready`;
                None for no check.
            on_progress: called with the `Progress` twice a second and at the end. An exception in
                it, or in `retry_with`, ends the batch.
            stop_at_end: True to stop every server when the block is left, also servers that the
                caller was given.

        Raises:
            InvalidRequest: an argument cannot be used.
        """
        from .batch.batch import Batch  # many programs use no batch
        from .batch.plan import BatchOptions

        batch_options = BatchOptions(
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
        return Batch(self._deployer, requests, batch_options)

    async def close(self) -> None:
        """Stops what the client owns, ends every wait, and closes the session.

        The client owns the relay sessions of `relay`, and the deployments of `run`, `deploy_many`
        and pools that were not handed to the caller. Calls and waits in progress raise
        `ClientClosed`. `close` waits 10 s at most: for stops that get no answer, and for deploys
        that were cancelled in flight, or whose answer was lost, as lists may show such a deployment
        only after `list_delay`. From its own cancellation on it waits 2 s at most. The log names
        each deployment or session that may go on running. A session that was passed in stays open.
        Further calls of `close` do nothing.

        Raises:
            WrongLoop: the client was first used in another event loop.
        """
        self._open_calls.check_loop(asyncio.get_running_loop())
        for owned in self._owned():
            owned.close()
        await super().close()

    async def _close(self, closing: Closing) -> None:
        for owned in self._owned():
            await closing.step(owned.drain)
        for owned in self._owned():
            await closing.step(owned.cancel_all, is_last=True)
        await super()._close(closing)

    def _owned(self) -> Iterator[OwnedDeployments]:
        yield self._deployer.owned
        if "_owned_relays" in vars(self):  # made at its first use
            yield self._owned_relays.owned
