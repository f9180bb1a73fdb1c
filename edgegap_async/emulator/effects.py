"""What a fault does to a call or to a webhook: the effects that `faults` applies.

A new kind of fault is a subclass of `Effect`; one that changes the body is a subclass of
`_ChangedAnswer`, with `closes = False` if the connection stays open.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import attrs
from aiohttp import web

from edgegap_async.api.codec import dumps
from edgegap_async.api.register import OPERATIONS
from edgegap_async.api.requests import WEBHOOK_KINDS, webhook_option
from edgegap_async.api.validation import field_name, instance_of, number, one_of, unknown_name
from edgegap_async.errors import InvalidRequest

from .proxy_pages import PROXIES, proxy_page

CALLS: Final = frozenset(operation.name for operation in OPERATIONS)
"""Names of the calls."""
WEBHOOKS: Final = frozenset(map(webhook_option, WEBHOOK_KINDS.values()))
"""Names of the webhooks."""
_SECONDS: Final = number(least=0)
_LEFT_INTERVAL: Final = 0.05  # seconds between two checks whether a client has left


Answer: TypeAlias = web.Response | None
"""The emulator's answer; None before it has acted."""
Outcome: TypeAlias = web.StreamResponse | None
"""What the client gets instead of the emulator's answer; None if the exchange goes on."""


def check_call(name: object, known: frozenset[str]) -> None:
    """Checks that a name is one of the known calls and webhooks.

    Raises:
        InvalidRequest: it is another, or no text.
    """
    if not isinstance(name, str) or name not in known:
        advice = unknown_name(name, sorted(known))
        raise InvalidRequest(f"there is no call {name!r}; {advice}")


def _as_bytes(data: bytes | str) -> bytes:
    return data.encode() if isinstance(data, str) else data


class Effect:
    """What a fault does. A subclass says where it can be used, and applies itself there."""

    operations: frozenset[str] = CALLS
    """Names of the calls and webhooks that it can be used for."""
    needs_answer: bool = False
    """Whether it changes the answer, so that it can only be used with `when="acted"`."""
    hidden_for: float = 0.0
    """Seconds after its deploy for which the call does not find a deployment."""
    acts: int = 1
    """How often the cloud does what the request asks."""

    async def apply(self, request: web.BaseRequest, answer: Answer) -> Outcome:
        """Applies the effect to a call.

        Args:
            request: the request of the client.
            answer: the emulator's answer; None before it has acted.
        """
        del request, answer
        return None

    def webhook_delays(self) -> tuple[float, ...]:
        """Returns one number for each time that a webhook is sent: seconds until then."""
        return (0.0,)


@attrs.frozen
class Drop(Effect):
    """The connection ends without an answer; a webhook is lost."""

    operations = CALLS | WEBHOOKS

    reset: bool = attrs.field(default=True, validator=instance_of(bool))
    """True to end the connection by a TCP reset, False by an orderly end."""

    async def apply(self, request: web.BaseRequest, answer: Answer) -> Outcome:
        """Ends the connection."""
        if request.transport is not None:
            request.transport.abort() if self.reset else request.transport.close()
        return web.Response()

    def webhook_delays(self) -> tuple[float, ...]:
        """Never sends the webhook."""
        return ()


def _texts(self: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not isinstance(value, Mapping) or not all(
        isinstance(text, str) and "\n" not in text and "\r" not in text
        for pair in value.items()
        for text in pair
    ):
        raise InvalidRequest(
            f"{field_name(self, attribute)} must be a table of texts, not {value!r}"
        )


def _default_body(status: int) -> dict[str, str]:
    unknown = "Bad Request ID provided"
    texts = {400: unknown, 404: unknown, 410: "Instance is already terminated"}
    return {"message": texts.get(status, "scripted fault")}


@attrs.frozen
class Respond(Effect):
    """Another answer in place of the emulator's."""

    status: int = attrs.field(validator=number(least=200, most=599, whole=True))
    """HTTP status of the answer, 200 to 599."""
    body: object = attrs.field(
        default=attrs.Factory(lambda self: _default_body(self.status), takes_self=True), repr=False
    )
    """Bytes are sent as they are, a text in UTF-8, anything else as JSON. By default a 400, 404
    or 410 has the API's text for an unknown or ended deployment."""
    headers: Mapping[str, str] = attrs.field(factory=dict, validator=_texts)
    """Headers of the answer; `Content-Type` is `application/json` if it is not among them."""

    @classmethod
    def html(cls, status: int = 502) -> Respond:
        """Returns the HTML page of a proxy that cannot reach its server."""
        page = "<html><body><h1>Bad Gateway</h1></body></html>"
        return cls(status, page, {"Content-Type": "text/html"})

    @classmethod
    def gzip_bomb(cls, size: int = 2**28) -> Respond:
        """Returns a few hundred kilobytes that decompress to `size` bytes."""
        return cls(200, gzip.compress(bytes(size)), {"Content-Encoding": "gzip"})

    async def apply(self, request: web.BaseRequest, answer: Answer) -> Outcome:
        """Returns the other answer."""
        body = self.body if isinstance(self.body, bytes | str) else dumps(self.body)
        headers = {"Content-Type": "application/json", **self.headers}
        return web.Response(status=self.status, body=_as_bytes(body), headers=headers)


@attrs.frozen
class ProxyPage(Effect):
    """The answer of a proxy or gateway in place of the emulator's."""

    status: int = attrs.field(default=502, validator=number(least=400, most=599, whole=True))
    """HTTP status of the answer, 400 to 599: 502, 504, 408, nginx's 499, Cloudflare's 522, …"""
    proxy: str = attrs.field(default="nginx", validator=one_of(*PROXIES))
    """`nginx`, `haproxy`, `cloudflare`, `envoy`, or `gateway`, which answers in JSON."""

    async def apply(self, request: web.BaseRequest, answer: Answer) -> Outcome:
        """Returns the page."""
        content_type, text = proxy_page(self.proxy, self.status)
        headers = {"Content-Type": content_type, "Server": self.proxy}
        return web.Response(status=self.status, body=text.encode(), headers=headers)


@attrs.frozen
class Raw(Effect):
    """Bytes in place of an HTTP answer, after which the connection ends."""

    data: bytes = attrs.field(converter=_as_bytes, validator=instance_of(bytes))
    """The bytes that the client gets; a text is sent in UTF-8."""
    closes: bool = attrs.field(default=True, validator=instance_of(bool))
    """False to keep the connection open and silent until the client closes it."""

    async def apply(self, request: web.BaseRequest, answer: Answer) -> Outcome:
        """Sends the bytes."""
        return await _send_raw(request, self.data, closes=self.closes)


@attrs.frozen
class Delay(Effect):
    """The emulator's own answer, or a webhook, late."""

    operations = CALLS | WEBHOOKS

    seconds: float = attrs.field(validator=_SECONDS)
    """Seconds of delay, 0 or more."""

    async def apply(self, request: web.BaseRequest, answer: Answer) -> Outcome:
        """Waits."""
        await asyncio.sleep(self.seconds)
        return None

    def webhook_delays(self) -> tuple[float, ...]:
        """Sends the webhook late."""
        return (self.seconds,)


def _parts(answer: Answer) -> tuple[int, bytes]:
    """Returns status and body of the answer to an effect that needs one."""
    assert answer is not None  # noqa: S101 - such an effect is applied once the emulator has acted
    return answer.status, answer.body if isinstance(answer.body, bytes) else b""


class _ChangedAnswer(Effect):
    """An effect on how the body of the emulator's answer is sent."""

    needs_answer = True
    closes = True

    async def apply(self, request: web.BaseRequest, answer: Answer) -> Outcome:
        """Sends the answer's head, then its body as the effect has it."""
        status, body = _parts(answer)
        changed = web.StreamResponse(
            status=status,
            headers={"Content-Type": "application/json", "Content-Length": str(len(body))},
        )
        await changed.prepare(request)
        await self.send(changed, body)
        if request.transport is not None and self.closes:
            request.transport.close()
        return changed

    async def send(self, response: web.StreamResponse, body: bytes) -> None:
        """Sends the body."""
        await response.write(body)


@attrs.frozen
class Truncate(_ChangedAnswer):
    """The emulator's answer, with a connection that ends in the middle of the body."""

    body_bytes: int = attrs.field(default=5, validator=number(least=0, whole=True))
    """Bytes of the body that are sent, 0 or more."""

    async def send(self, response: web.StreamResponse, body: bytes) -> None:
        """Sends the first bytes."""
        await response.write(body[: self.body_bytes])


@attrs.frozen
class WrongLength(Effect):
    """The emulator's answer, with a Content-Length that is not the length of its body."""

    needs_answer = True

    difference: int = attrs.field(default=10, validator=number(least=-1000, most=10**9, whole=True))
    """Bytes that are announced beyond those that are sent; the client then waits for them. Below 0:
    more bytes are sent than announced."""

    async def apply(self, request: web.BaseRequest, answer: Answer) -> Outcome:
        """Sends the answer."""
        status, body = _parts(answer)
        announced = max(0, len(body) + self.difference)
        head = (
            f"HTTP/1.1 {status} OK\r\nContent-Type: application/json\r\n"
            f"Content-Length: {announced}\r\n\r\n"
        )
        return await _send_raw(request, head.encode() + body, closes=self.difference <= 0)


@attrs.frozen
class Dribble(_ChangedAnswer):
    """The emulator's answer, one byte at a time."""

    closes = False

    interval: float = attrs.field(default=0.5, validator=_SECONDS)
    """Seconds between two bytes, 0 or more."""

    async def send(self, response: web.StreamResponse, body: bytes) -> None:
        """Sends byte after byte, until the client leaves."""
        with contextlib.suppress(ConnectionError):
            for index in range(len(body)):
                await asyncio.sleep(self.interval)
                await response.write(body[index : index + 1])


@attrs.frozen
class HangUp(_ChangedAnswer):
    """The emulator's answer, after which the connection ends unannounced.

    A client that keeps the connection for its next call finds it stale.
    """


@attrs.frozen
class ActTwice(Effect):
    """A proxy sends the request twice: the cloud acts twice, the client gets the second answer."""

    needs_answer = True
    acts = 2


@attrs.frozen
class Hide(Effect):
    """A status request or a list does not find a deployment for a while after its deploy."""

    operations = frozenset({"get_deployment", "list_deployments"})

    seconds: float = attrs.field(validator=_SECONDS)
    """Seconds after its deploy, 0 or more."""

    @property
    def hidden_for(self) -> float:  # type: ignore[override] # a class attribute elsewhere
        """Seconds after its deploy for which the call does not find a deployment."""
        return self.seconds


@attrs.frozen
class Repeat(Effect):
    """A webhook that arrives more than once."""

    operations = WEBHOOKS

    times: int = attrs.field(default=2, validator=number(least=1, whole=True))
    """How often it arrives in all; 1 or more."""

    def webhook_delays(self) -> tuple[float, ...]:
        """Sends the webhook several times."""
        return (0.0,) * self.times


async def _send_raw(
    request: web.BaseRequest, data: bytes, *, closes: bool
) -> web.StreamResponse | None:
    if request.transport is not None:
        request.transport.write(data)
        if not closes:
            while request.transport is not None:  # noqa: ASYNC110 - aiohttp has no event for it
                await asyncio.sleep(_LEFT_INTERVAL)
        else:
            request.transport.close()
    return web.Response()


EFFECTS: Final = tuple(
    kind
    for name, kind in list(globals().items())
    if isinstance(kind, type) and issubclass(kind, Effect) and name[0] != "_" and kind is not Effect
)
"""Every effect that a file or the control API can name: the public subclasses of `Effect` above."""
