"""Webhooks that reach one program and are for another, passed on through Redis.

Whoever receives one that is not for it writes the hash of its URL into a stream, and all read that
and wake whom they know. So nobody keeps a list of who waits where. The stream is short: what falls
out of it unread, or comes while Redis is lost, is found by looking, as any webhook that is lost.
What is read twice wakes twice, which does no harm, and a forged one wakes nobody: so a reader that
lost its place begins anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

from .connection import RECONNECT_INTERVAL, REDIS_TIMEOUT, RedisConnection

if TYPE_CHECKING:
    from redis.asyncio import Redis

__all__ = ["Receiver", "WebhookRelay"]

_LENGTH: Final = 1000  # webhooks that the stream keeps, or some more
_BEGINNING: Final = b"0-0"
_BLOCK: Final = 2.0  # seconds that a reader waits for the next
_UNDER_WAY: Final = 100  # webhooks that are being passed on; those beyond are lost


class Receiver(Protocol):
    """Something that webhooks come to, such as a `WebhookReceiver`."""

    elsewhere: Callable[[bytes], None] | None
    """What to call with the hash of a URL that is not known here."""

    def wake(self, key: bytes) -> bool:
        """Wakes whoever waits for the URL with this hash, and tells whether it is known here."""
        ...


class WebhookRelay:
    """Passes webhooks on to the program that knows them, and takes those from the others.

    Args:
        link: the connection's state.
        redis: the connections. One is the reader's alone, for it waits in Redis.
        stream: key of the stream.
    """

    def __init__(self, link: RedisConnection, redis: Redis, stream: str) -> None:
        self._link = link
        self._redis = redis
        self._stream = stream
        self._receivers: list[Receiver] = []
        self._passing = set[asyncio.Task[None]]()
        self._reading: asyncio.Task[None] | None = None
        self._is_closed = False

    def add(self, receiver: Receiver) -> None:
        """From now on what comes there is for all, and what comes to the others for it."""
        receiver.elsewhere = self._pass_on
        if not any(receiver is other for other in self._receivers):
            self._receivers.append(receiver)
        if self._reading is None:
            self._reading = asyncio.create_task(self._read())

    async def close(self) -> None:
        """Passes nothing on any more."""
        self._is_closed = True  # a cancellation has been seen to get lost on its way to Redis
        for receiver in self._receivers:
            receiver.elsewhere = None
        while self._reading is not None and not self._reading.done():
            self._reading.cancel()
            await asyncio.wait([self._reading], timeout=REDIS_TIMEOUT)

    def _pass_on(self, key: bytes) -> None:
        if not self._link.is_lost and len(self._passing) < _UNDER_WAY:
            task = self._link.start(self._write(key))
            self._passing.add(task)
            task.add_done_callback(self._passing.discard)

    async def _write(self, key: bytes) -> None:
        try:
            async with asyncio.timeout(REDIS_TIMEOUT):
                await self._redis.xadd(self._stream, {"url": key}, maxlen=_LENGTH)
        except Exception:  # noqa: BLE001 - whatever it is, the link says so and the look-out looks
            return

    async def _read(self) -> None:
        last = _BEGINNING
        while not self._is_closed:
            try:
                async with asyncio.timeout(_BLOCK + REDIS_TIMEOUT):
                    told: Any = await self._redis.xread(
                        {self._stream: last}, count=_LENGTH, block=int(_BLOCK * 1000)
                    )
                for _, entries in told or ():
                    for number, fields in entries:
                        last = number
                        if b"url" in fields:  # or a later version says something else there
                            self._wake(fields[b"url"])
            except Exception:  # noqa: BLE001 - as above
                last = _BEGINNING  # the next connection may lead to a server with other numbers
                await asyncio.sleep(RECONNECT_INTERVAL)

    def _wake(self, key: bytes) -> None:
        for receiver in self._receivers:
            receiver.wake(key)
