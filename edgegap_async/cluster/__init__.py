"""The limits of one account, shared by many programs through Redis (or Valkey).

Theory. The documented numbers are the organization's: eight replicas of a matchmaker have 40
deploys a second between them. So each operation has one timeline, in Redis, and a script that hands
out **slots** on it: moments, by Redis's clock, at which one call may go. They are paced at 95 % of
the limit, after a burst of ten for an idle account, and no 1.05 s hold more of them than the limit.
The little less and the little more are for calls that go late or travel slowly: a slot is good for
30 ms and lost then, however long the loop stood still.

A program takes a **lease** of up to five slots when somebody waits, one lease at a time, and fewer
where there are many programs, so that all leases together reach about a second ahead. No clock of
the day is read: what is measured is how far Redis's clock is ahead of the loop's, and the answer
that came fastest tells it best.

**Alone.** A Redis that does not answer within 0.3 s, or answers with an error, is lost for all
operations at once. Nobody is told but the log, once. Each program goes on at its share: the limit
divided by the programs that were last seen, evenly, without a burst, and one call a second where
that is less or where Redis was never there to say how many there are. It starts where its last
lease would have put it next. Redis is asked again every half second.

**A new timeline** begins where nobody has been seen for a while, or by whoever finds that nobody
else got through while it could not: after a restart, a failover, an eviction, an outage, and for
the first program of all. It opens a second late and without its burst: by then all have come back,
and until then each goes on alone. So a switch costs no pause; and the second around it holds at
most a quarter more calls than the limit. What stays is that one program which cannot reach Redis
while the others can takes its share from nobody: then the API's 429 is what slows them down.

A 429 closes the timeline for all, and slows it down as `limits` does for one program.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Self, TypeVar
from urllib.parse import urlsplit

from edgegap_async.api.validation import check_kind
from edgegap_async.errors import InvalidRequest
from edgegap_async.http.rate_limits import Limits

from .connection import RedisConnection, loop_time
from .permits import SharedPermits
from .webhook_relay import Receiver, WebhookRelay

if TYPE_CHECKING:
    from redis.asyncio import Redis

__all__ = ["Cluster"]

AReceiver = TypeVar("AReceiver", bound=Receiver)


class Cluster:
    """The limits of an account for all programs that name the same Redis and the same namespace.

    Use it around the client:
    `async with Cluster(url) as cluster, EdgegapClient(limits=cluster.limits) as client`.
    It needs `pip install 'edgegap-async[redis]'`. While Redis is not there each program goes on
    with its share of the limits; no call fails because of it. The first program of all makes one
    call in its first second, for there may be others that have not found Redis yet.

    Args:
        url: `redis://`, `rediss://` (TLS), `valkey://`, `valkeys://` or `unix://`.
        namespace: the same for all programs of one organization, for the limits are the
            organization's, whatever token they use; another where two organizations share a Redis.
            Redis sees a hash of it.
        limits: calls a second by operation name, as for the client; the same in all programs.

    Attributes:
        limits: what to give to the client, or to all clients of this program.

    Raises:
        InvalidRequest: an argument cannot be used, or the package for Redis is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        namespace: str = "edgegap",
        limits: Mapping[str, float | None] | None = None,
    ) -> None:
        check_kind("namespace", namespace, str)
        if namespace is None:
            raise InvalidRequest("namespace is a name, the same for all programs that share limits")
        self._where = _where(url)
        try:
            self._redis = _client(url)
        finally:
            del url  # a traceback that shows local variables must not show its password
        account = hashlib.sha256(namespace.encode()).hexdigest()[:16]
        # Keys with the same word in braces are on the same machine, where Redis has several.
        prefix = f"{{edgegap:{account}}}"
        self._link = RedisConnection(self._redis, prefix)
        self._relay = WebhookRelay(self._link, self._redis, f"{prefix}:webhooks")
        self.limits: Final = Limits(limits, permits=self._permits)

    def __repr__(self) -> str:
        return f"Cluster({self._where!r})"

    @property
    def programs(self) -> int | None:
        """How many programs share the limits, this one included; None if Redis never told."""
        return self._link.programs

    @property
    def is_shared(self) -> bool:
        """Whether the limits are shared at present; False while this program goes by its share."""
        return not self._link.is_alone(loop_time())

    async def __aenter__(self) -> Self:
        try:
            await self._link.open()
        except BaseException:  # who does not come in does not leave
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        leaving = asyncio.create_task(self._leave())
        try:
            await asyncio.shield(leaving)
        except asyncio.CancelledError:
            await asyncio.wait([leaving])  # some seconds at most, or connections would stay open
            raise

    async def _leave(self) -> None:
        await self._relay.close()
        await self._link.close()
        await self._redis.aclose()

    def signals(self, receiver: AReceiver) -> AReceiver:
        """The same receiver; now it also gets its webhooks that reach another program's.

        For programs behind one public URL: `EdgegapClient(webhooks=cluster.signals(receiver))`,
        each with a receiver of its own that has that URL and the same path. A webhook that Redis
        does not pass on is one that was lost: the look-out finds out. The receiver's `on_event` is
        given only what reaches its own program.

        Raises:
            InvalidRequest: the cluster is not open yet.
        """
        self._link.check_open()
        self._relay.add(receiver)
        return receiver

    def _permits(self, name: str, limit: float) -> SharedPermits:
        return SharedPermits(self._link, name, limit)


def _client(url: str) -> Redis:
    try:
        from redis.asyncio import Redis  # noqa: PLC0415 - an extra, and slow to import
        from redis.asyncio.retry import Retry  # noqa: PLC0415 - as above
        from redis.backoff import NoBackoff  # noqa: PLC0415 - as above
        from redis.exceptions import ConnectionError as Dropped  # noqa: PLC0415 - as above
    except ModuleNotFoundError:
        del url
        raise InvalidRequest("a cluster needs redis: pip install 'edgegap-async[redis]'") from None
    try:
        redis = Redis.from_url(
            url.replace("valkey", "redis", 1) if url.startswith("valkey") else url,
            # Left to itself it tries ten times in four seconds. Once more is for a connection
            # that was closed while nobody used it. How long it all may take is not left to it.
            retry=Retry(NoBackoff(), 1, (Dropped,)),
        )
    except ValueError:
        redis = None
    del url
    if redis is None:
        raise InvalidRequest("url is redis://host:port, or rediss, valkey, valkeys or unix")
    if redis.connection_pool.connection_kwargs.get("decode_responses"):
        raise InvalidRequest("leave decode_responses out of the url: it reads bytes")
    return redis


def _where(url: str) -> str:
    """The URL without its user and password, and without its query, which may have them too."""
    check_kind("url", url, str)
    if url is None:
        raise InvalidRequest("a cluster needs the url of its Redis: redis://host:port")
    try:
        parts = urlsplit(url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    except ValueError:
        return ""
