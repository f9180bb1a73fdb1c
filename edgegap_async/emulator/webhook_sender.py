"""Webhooks on their way out: one try each, ten seconds, and nothing waits for them.

So they come in no certain order, and the script may lose, delay and repeat them (see `faults`).

Whoever may deploy may name a URL, and this machine would ask it: so only addresses of loopback and
of the networks in the settings are asked. The address that was checked is the one connected to, and
redirects are not followed.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from edgegap_async.api.codec import dumps, to_json
from edgegap_async.api.models import Deployment
from edgegap_async.api.requests import WEBHOOK_KINDS, Webhook, webhook_option
from edgegap_async.errors import InvalidRequest

from .faults import Faults

__all__ = ["Deliveries"]

_log: Final = logging.getLogger(__name__)

_LOOPBACK: Final = ("127.0.0.0/8", "::1/128")
_READ_AT_MOST: Final = 65536


class _Allowed:
    def __init__(self, networks: Iterable[str]) -> None:
        try:
            self._networks = [ipaddress.ip_network(text) for text in (*_LOOPBACK, *networks)]
        except ValueError as problem:
            raise InvalidRequest(f"webhook_allow: {problem}") from None

    def holds(self, address: str) -> bool:
        found = ipaddress.ip_address(address.partition("%")[0])
        return any(found in network for network in self._networks)

    def refuses(self, host: str) -> bool:
        """Whether a host is an address, and one that is not to be asked."""
        try:
            return not self.holds(host)
        except ValueError:  # a name: the resolver decides
            return False


class _Resolver(AbstractResolver):
    """Leaves of a name's addresses those that are allowed."""

    def __init__(self, allowed: _Allowed) -> None:
        self._allowed = allowed
        self._names = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._names.resolve(host, port, family)
        allowed = [one for one in found if self._allowed.holds(one["host"])]
        if not allowed:
            raise OSError("not an address that webhooks may go to")
        return allowed

    async def close(self) -> None:
        await self._names.close()


class Deliveries:
    """Sends webhooks.

    Args:
        allow: networks beside loopback, such as `10.0.0.0/8`.
        timeout: seconds that a webhook has to answer.
        faults: what goes wrong.
    """

    def __init__(
        self, allow: Iterable[str] = (), *, timeout: float = 10.0, faults: Faults | None = None
    ) -> None:
        self._faults = Faults() if faults is None else faults
        self._allowed = _Allowed(allow)
        self._timeout = aiohttp.ClientTimeout(total=timeout, ceil_threshold=float("inf"))
        self._session: aiohttp.ClientSession | None = None
        self._under_way: set[asyncio.Task[None]] = set()

    def send(self, webhook: Webhook, deployment: Deployment) -> None:
        """Post the status to the webhook. Returns at once."""
        fault = self._faults.take(webhook_option(WEBHOOK_KINDS[deployment.current_status]))
        body = dumps(to_json(deployment))
        for delay in (0.0,) if fault is None else fault.effect.webhook_delays():
            task = asyncio.create_task(self._deliver(webhook.url, body, delay))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def _deliver(self, url: str, body: bytes, delay: float) -> None:
        if delay:
            await asyncio.sleep(delay)
        await self._post(url, body)

    async def _post(self, url: str, body: bytes) -> None:
        # The path of a webhook is a secret: it is not in what is logged.
        target = urlsplit(url)
        where = f"{target.scheme}://{target.hostname}"
        if self._allowed.refuses(target.hostname or ""):
            _log.warning("no webhook to %s: the setting webhook_allow does not hold it", where)
            return
        if self._session is None:
            connector = aiohttp.TCPConnector(resolver=_Resolver(self._allowed), limit=0)
            self._session = aiohttp.ClientSession(connector=connector, timeout=self._timeout)
        try:
            async with self._session.post(
                url,
                data=body,
                headers={"Content-Type": "application/json"},
                allow_redirects=False,
            ) as answer:
                await answer.content.read(_READ_AT_MOST)
                _log.debug("webhook to %s answered %s", where, answer.status)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as problem:
            _log.warning("webhook to %s failed: %s", where, type(problem).__name__)

    async def close(self) -> None:
        """Give up those that are under way."""
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        if self._session is not None:
            await self._session.close()
