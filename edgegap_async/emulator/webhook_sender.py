"""Sends webhooks: one attempt each, in the background, so they arrive in no certain order.

A deploy can name any URL, and this machine would request it (server-side request forgery). So
webhooks go only to loopback and to the networks of the setting `webhook_allow`, and whatever that
says never to the metadata services of clouds, link-local or multicast addresses. The sender
connects to the very address that it has checked, and follows no redirects. The URL goes out as it
was given, byte for byte.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
import socket
from collections import deque
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias
from urllib.parse import quote, urlsplit

import aiohttp
import attrs
import yarl
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from edgegap_async.api.codec import dumps, to_json
from edgegap_async.api.models import Deployment
from edgegap_async.api.requests import WEBHOOK_KINDS, Webhook, webhook_option
from edgegap_async.api.resources.relays import RelaySession
from edgegap_async.api.validation import check_kind
from edgegap_async.errors import InvalidRequest, log_fields

from .faults import Faults

_log: Final = logging.getLogger(__name__)

_LOOPBACK: Final = ("127.0.0.0/8", "::1/128")
_NEVER: Final = tuple(
    map(
        ipaddress.ip_network,
        (
            "0.0.0.0/8",  # this machine by another name
            "::/128",
            "169.254.0.0/16",  # link-local, with the metadata services of most clouds
            "fe80::/10",
            "fd00:ec2::254/128",  # metadata of AWS
            "fd20:ce::254/128",  # metadata of Google Cloud
            "168.63.129.16/32",  # Azure's host
            "100.100.100.200/32",  # metadata of Alibaba Cloud
            "192.0.0.192/32",  # metadata of Oracle Cloud
            "224.0.0.0/4",  # multicast
            "ff00::/8",
            "255.255.255.255/32",
        ),
    )
)
"""Networks that get no webhook whatever `webhook_allow` says."""
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")  # an IPv4 address in the last 32 bits
_MAX_ANSWER_BYTES: Final = 65536  # of the receiver's answer; the rest is not read
_MAX_SENT: Final = 1_000  # webhooks that are remembered
_URL_CHARACTERS: Final = "".join(map(chr, range(0x21, 0x7F)))  # printable ASCII

_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address


def _forms(address: _Address) -> Iterable[_Address]:
    """Yields an address and the IPv4 addresses that it stands for."""
    yield address
    if isinstance(address, ipaddress.IPv6Address):
        yield from filter(None, (address.ipv4_mapped, address.sixtofour))
        if address in _NAT64:
            yield ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)


class _AllowedNetworks:
    def __init__(self, networks: Iterable[str]) -> None:
        networks = tuple(networks)
        for network in networks:
            check_kind("webhook_allow", network, str)
        try:
            self._networks = [ipaddress.ip_network(text) for text in (*_LOOPBACK, *networks)]
        except ValueError as problem:
            raise InvalidRequest(f"webhook_allow: {problem}") from None

    def contains(self, address: str) -> bool:
        given = ipaddress.ip_address(address.partition("%")[0])
        if any(one in network for one in _forms(given) for network in _NEVER):
            return False
        reached = getattr(given, "ipv4_mapped", None) or given
        return any(reached in network for network in self._networks)

    def refuses(self, host: str) -> bool:
        """Returns whether a host is an IP address outside the allowed networks."""
        try:
            return not self.contains(host)
        except ValueError:  # a name: `_AllowedResolver` decides
            return False


class _AllowedResolver(AbstractResolver):
    """Resolves a name to its allowed addresses only."""

    def __init__(self, allowed: _AllowedNetworks) -> None:
        self._allowed = allowed
        self._names = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._names.resolve(host, port, family)
        allowed = [one for one in found if self._allowed.contains(one["host"])]
        if not allowed:
            raise OSError(f"webhook_allow has none of the addresses of {host}")
        return allowed

    async def close(self) -> None:
        await self._names.close()


@attrs.frozen(kw_only=True)
class SentWebhook:
    """One webhook, and what became of it. It has neither the path of the URL nor the body."""

    at: datetime
    """Time of the change of status that it is about."""
    request_id: str
    """The deployment, or the relay session."""
    kind: str
    """`ready`, `error` or `terminated`; `linked` for a relay session."""
    where: str
    """Scheme and host of the URL."""
    fault: str | None = None
    """The effect of the scripted fault that was applied; None if there was none."""
    status: int | None = None
    """HTTP status of the receiver's answer; None if there was none."""
    problem: str | None = None
    """Why there is no answer; None if there is one."""
    seconds: float = 0.0
    """Seconds from the change of status until the answer, or until it was given up."""

    def as_table(self) -> dict[str, Any]:
        """Returns it with values of JSON types."""
        return {**attrs.asdict(self), "at": self.at.isoformat()}


def _sent(url: str, request_id: str, kind: str) -> SentWebhook:
    target = urlsplit(url)
    # The path of a webhook is a secret, so no log has it.
    where = f"{target.scheme}://{target.hostname}"
    return SentWebhook(at=datetime.now(UTC), request_id=request_id, kind=kind, where=where)


def _as_written(url: str) -> yarl.URL:
    """Returns a URL whose path and query go out as they are written.

    The query is left in the path: by itself yarl would drop an empty one.
    """
    scheme, _, rest = quote(url, safe=_URL_CHARACTERS).partition("#")[0].partition("://")
    authority = re.split("[/?]", rest, maxsplit=1)[0]
    target = rest.removeprefix(authority)
    path = target if target.startswith("/") else f"/{target}"
    return yarl.URL.build(scheme=scheme.lower(), authority=authority, path=path, encoded=True)


class WebhookSender:
    """Sends webhooks.

    Args:
        allow: networks besides loopback, such as `10.0.0.0/8`.
        timeout: seconds that a receiver has to answer.
        faults: scripted faults.

    Attributes:
        sent: the last 1,000 webhooks, once their end is known.
        listeners: called with each of them, at once.
    """

    def __init__(
        self, allow: Iterable[str] = (), *, timeout: float = 10.0, faults: Faults | None = None
    ) -> None:
        self._faults = Faults() if faults is None else faults
        self._allowed = _AllowedNetworks(allow)
        self._timeout = aiohttp.ClientTimeout(total=timeout, ceil_threshold=float("inf"))
        self._session: aiohttp.ClientSession | None = None
        self._deliveries: set[asyncio.Task[None]] = set()
        self.sent: deque[SentWebhook] = deque(maxlen=_MAX_SENT)
        self.listeners: list[Callable[[SentWebhook], None]] = []

    def send(self, webhook: Webhook, deployment: Deployment) -> None:
        """Posts the status of a deployment to a webhook, in the background."""
        kind = WEBHOOK_KINDS[deployment.current_status]
        fault = self._faults.take(webhook_option(kind))
        sent = _sent(webhook.url, deployment.request_id, kind)
        if fault is not None:
            sent = attrs.evolve(sent, fault=type(fault.effect).__name__)
        delays = (0.0,) if fault is None else fault.effect.webhook_delays()
        if not delays:
            self._record(sent, problem="lost by a scripted fault")
        for delay in delays:
            self._begin(webhook.url, deployment, delay, sent)

    def send_session(self, url: str, session: RelaySession) -> None:
        """Posts a relay session to its webhook, in the background."""
        self._begin(url, session, 0.0, _sent(url, session.session_id, "linked"))

    def _begin(
        self, url: str, shown: Deployment | RelaySession, delay: float, sent: SentWebhook
    ) -> None:
        task = asyncio.create_task(self._deliver(url, dumps(to_json(shown)), delay, sent))
        self._deliveries.add(task)
        task.add_done_callback(self._deliveries.discard)

    def _record(
        self, sent: SentWebhook, *, status: int | None = None, problem: str | None = None
    ) -> None:
        """Records what became of a webhook."""
        seconds = (datetime.now(UTC) - sent.at).total_seconds()
        recorded = attrs.evolve(sent, status=status, problem=problem, seconds=seconds)
        self.sent.append(recorded)
        for listener in self.listeners:
            listener(recorded)

    async def _deliver(self, url: str, body: bytes, delay: float, sent: SentWebhook) -> None:
        if delay:
            await asyncio.sleep(delay)
        where = sent.where
        if self._allowed.refuses(urlsplit(url).hostname or ""):
            _log.warning(
                "no webhook to %s: the setting webhook_allow does not include it",
                where,
                extra=log_fields(url=where),
            )
            self._record(sent, problem="not sent: webhook_allow does not include the address")
            return
        if self._session is None:
            connector = aiohttp.TCPConnector(resolver=_AllowedResolver(self._allowed), limit=0)
            self._session = aiohttp.ClientSession(connector=connector, timeout=self._timeout)
        try:
            async with self._session.post(
                _as_written(url),
                data=body,
                headers={"Content-Type": "application/json"},
                allow_redirects=False,
            ) as answer:
                await answer.content.read(_MAX_ANSWER_BYTES)
                _log.debug(
                    "webhook to %s answered %s",
                    where,
                    answer.status,
                    extra=log_fields(url=where, status=answer.status),
                )
            self._record(sent, status=answer.status)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as problem:
            _log.warning(
                "webhook to %s failed: %s",
                where,
                type(problem).__name__,
                extra=log_fields(problem, url=where),
            )
            self._record(sent, problem=f"failed: {type(problem).__name__}")

    async def close(self) -> None:
        """Cancels the webhooks in flight."""
        for task in self._deliveries:
            task.cancel()
        await asyncio.gather(*self._deliveries, return_exceptions=True)
        if self._session is not None:
            await self._session.close()
