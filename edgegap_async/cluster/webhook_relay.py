"""Forwards webhooks through Redis to the program that waits for them.

A receiver that does not know the URL of a webhook writes the hash of the URL into a Redis stream.
All programs read the stream and trigger the URLs that they know, so no registry of URLs is needed.
A webhook that the stream loses, because it is short or Redis is lost, is an ordinary lost webhook:
the status poller finds the change. A forged or repeated entry does no harm either, so a reader that
lost its position starts again at the beginning of the stream.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

from edgegap_async.concurrency import PersistentTask
from edgegap_async.errors import log_fields

from .connection import RECONNECT_INTERVAL, REDIS_TIMEOUT, RedisConnection

if TYPE_CHECKING:
    from redis.asyncio import Redis

_MAX_ENTRIES: Final = 1000  # webhooks that the stream keeps, or some more
_MAX_WRITES: Final = 100  # webhooks that are written at once; further ones are lost
_READ_BLOCK: Final = 2.0  # seconds that one read waits for the next entry
_STREAM_START: Final = b"0-0"

logger = logging.getLogger(__name__)


class Receiver(Protocol):
    """A receiver of webhooks, such as `WebhookReceiver`."""

    forward: Callable[[bytes], None] | None
    """Called with the hash of a URL that the receiver does not know; None outside a cluster."""

    def trigger(self, key: bytes) -> bool:
        """Triggers the deployment whose URL has this hash; returns whether the hash is known."""
        ...


class WebhookRelay:
    """Forwards the webhooks of a program's receivers, and triggers what other programs forward.

    Args:
        connection: whether Redis is lost.
        redis: the connections to use; the reader keeps one for itself, because it blocks.
        stream: key of the stream.
    """

    def __init__(self, connection: RedisConnection, redis: Redis, stream: str) -> None:
        self._connection = connection
        self._redis = redis
        self._stream = stream
        self._receivers: list[Receiver] = []
        self._writes = set[PersistentTask]()
        self._reader: PersistentTask | None = None
        self._last_read = _STREAM_START  # the number of an entry
        self._is_closed = False
        self._logged = set[str]()

    def add(self, receiver: Receiver) -> None:
        """Forwards the receiver's unknown webhooks, and gives it the webhooks of other programs."""
        receiver.forward = self._forward
        if not any(receiver is other for other in self._receivers):
            self._receivers.append(receiver)
        if self._reader is None:
            self._reader = PersistentTask(self._read, "the reader of webhooks in Redis")

    async def close(self) -> None:
        """Stops forwarding and reading."""
        # redis-py can swallow a cancellation, so the flag ends the reader, and it is cancelled
        # until it ends.
        self._is_closed = True
        for receiver in self._receivers:
            receiver.forward = None
        while self._reader is not None and not self._reader.ended.done():
            self._reader.cancel()
            await asyncio.wait([self._reader.ended], timeout=REDIS_TIMEOUT)

    def _forward(self, key: bytes) -> None:
        if not self._connection.is_lost and len(self._writes) < _MAX_WRITES:
            task = self._connection.start_task(functools.partial(self._write, key))
            self._writes.add(task)
            task.ended.add_done_callback(lambda _: self._writes.discard(task))

    async def _write(self, key: bytes) -> None:
        try:
            async with asyncio.timeout(REDIS_TIMEOUT):
                await self._redis.xadd(self._stream, {"url": key}, maxlen=_MAX_ENTRIES)
        except Exception as error:  # noqa: BLE001 - the poller finds the change
            self._log_once(error)

    async def _read(self) -> None:
        while not self._is_closed:
            try:
                async with asyncio.timeout(_READ_BLOCK + REDIS_TIMEOUT):
                    streams: Any = await self._redis.xread(
                        {self._stream: self._last_read},
                        count=_MAX_ENTRIES,
                        block=int(_READ_BLOCK * 1000),
                    )
                for _, entries in streams or ():
                    for number, fields in entries:
                        self._last_read = number
                        if b"url" in fields:  # a later version may add entries of another kind
                            for receiver in self._receivers:
                                receiver.trigger(fields[b"url"])
            except Exception as error:  # noqa: BLE001 - see `_log_once`
                self._log_once(error)
                # The next connection may lead to a server with other numbers.
                self._last_read = _STREAM_START
                await asyncio.sleep(RECONNECT_INTERVAL)

    def _log_once(self, error: Exception) -> None:
        """Logs what Redis refuses, such as a right; the connection logs the loss of Redis."""
        text = self._connection.error_text(error)
        if not self._connection.is_lost and _is_reply(error) and text not in self._logged:
            self._logged.add(text)
            logger.warning(
                "Redis does not forward webhooks; waits end by polling: %s",
                text,
                extra=log_fields(error),
            )


def _is_reply(error: Exception) -> bool:
    from redis.exceptions import ResponseError  # an extra, and slow to import

    return isinstance(error, ResponseError)
