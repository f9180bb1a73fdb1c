"""`Cluster`: the connection to Redis that a program opens around its client."""

from __future__ import annotations

import asyncio
import functools
import hashlib
from collections.abc import Mapping
from typing import Final, Self, TypeVar

from edgegap_async.api.validation import check_kind
from edgegap_async.concurrency import PersistentTask, loop_time
from edgegap_async.errors import InvalidRequest
from edgegap_async.http.rate_limits import Limits

from .connection import RedisConnection
from .permits import SharedPermits
from .redis_url import redis_client, without_secrets
from .webhook_relay import Receiver, WebhookRelay

AReceiver = TypeVar("AReceiver", bound=Receiver)


class Cluster:
    """Shares an organization's rate limits, and webhooks, between programs through Redis.

    Open it around the client:
    `async with Cluster(url) as cluster, EdgegapClient(limits=cluster.limits) as client`.
    It needs `pip install 'edgegap-async[redis]'`. If Redis stops answering, no program sends for up
    to 2.3 s, so that the limit holds; then each program sends at its share of the limits. No call
    fails. A program that has not reached Redis yet sends one call a second, because it does not
    know how many other programs there are.

    Args:
        url: `redis://`, `rediss://` (TLS), `valkey://`, `valkeys://` or `unix://`; any node of a
            Redis Cluster. Sentinels are not supported.
        namespace: the same in all programs of one organization, because the limits are the
            organization's and not the token's. Choose another one where two organizations share a
            Redis. Redis sees a hash of it.
        limits: calls a second by operation name, as for `Limits`; the same in all programs.

    Raises:
        InvalidRequest: an argument is invalid, or the package `redis` is not installed.
    """

    limits: Final[Limits]
    """The shared rate limits, for one or more clients of this program: `limits=cluster.limits`."""

    def __init__(
        self,
        url: str,
        *,
        namespace: str = "edgegap",
        limits: Mapping[str, float | None] | None = None,
    ) -> None:
        check_kind("namespace", namespace, str)
        if namespace is None:
            raise InvalidRequest(
                "namespace must be a name, the same for all programs that share limits"
            )
        self._safe_url = without_secrets(url)
        try:
            self._redis = redis_client(url)
        finally:
            del url  # a traceback that shows local variables must not show its password
        account = hashlib.sha256(namespace.encode()).hexdigest()[:16]
        # A cluster of Redis keeps keys with the same word in braces on one machine.
        prefix = f"{{edgegap:{account}}}"
        self._connection = RedisConnection(self._redis, prefix)
        self._relay = WebhookRelay(self._connection, self._redis, f"{prefix}:webhooks")
        self.limits = Limits(limits, permits=functools.partial(SharedPermits, self._connection))

    def __repr__(self) -> str:
        return f"Cluster({self._safe_url!r})"

    @property
    def programs(self) -> int | None:
        """How many programs share the limits, 1 or more with this one; None before Redis answers.

        While Redis is lost, it is the number that Redis said last.
        """
        return self._connection.programs

    @property
    def is_shared(self) -> bool:
        """Whether the limits are shared now.

        False while this program sends at its own share, or is silent before or after it.

        Raises:
            InvalidRequest: the cluster is not open.
        """
        return self._connection.is_shared(loop_time())

    async def __aenter__(self) -> Self:
        try:
            await self._connection.open()
        except BaseException:  # `__aexit__` is not called then
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        closing = PersistentTask(self._close, "the end of a cluster").ended
        try:
            await asyncio.shield(closing)
        except asyncio.CancelledError:
            await asyncio.wait([closing])  # a few seconds at most; else connections stay open
            raise

    async def _close(self) -> None:
        await self._relay.close()
        await self._connection.close()
        await self._redis.aclose()

    def webhook_source(self, receiver: AReceiver) -> AReceiver:
        """Connects a receiver to the receivers of the other programs, and returns it.

        For programs behind one public URL: a webhook may reach a program that does not wait for it,
        which forwards it through Redis. Each program has its own receiver, with the
        same public URL and path: `EdgegapClient(webhooks=cluster.webhook_source(receiver))`. If
        Redis does not forward a webhook, the status poller finds the change. `on_event` of the
        receiver gets only the webhooks that reach its own program.

        Args:
            receiver: a `WebhookReceiver` of this program.

        Raises:
            InvalidRequest: the cluster is not open.
        """
        self._connection.check_open()
        self._relay.add(receiver)
        return receiver
