"""Scripted faults: which call, at which moment of the exchange, how often, with what effect.

::

    emulator.faults.add(Fault("deploy", Drop(), when="acted"))              # the answer is lost
    emulator.faults.add(Fault("deploy", Respond(503), when="acted", times=2))
    emulator.faults.add(Fault(None, Delay(0.2), times=None))                # every call, for ever
    emulator.faults.add(Fault("list_deployments", Hide(3), times=None))     # lists lag by 3 s
    emulator.faults.add(Fault("webhook_on_ready", Drop(), times=None, share=0.05))

An exchange has three moments at which it can fail, and they leave the emulator in different states:

=========  ===================================  ===========================
`when`     what the emulator has done           what a client can know
=========  ===================================  ===========================
`unread`   nothing; the body was not read       nothing
`read`     nothing; it has the whole request    nothing
`acted`    all that was asked; the answer fails nothing, and it was done
=========  ===================================  ===========================

A webhook goes the other way: it can be lost (`Drop`), late (`Delay`), and so arrive after a later
one, or arrive more than once (`Repeat`).

Faults that fit the same call take turns in the order in which they were added; a fault that was
used up is gone. A new kind of fault is a subclass of `Effect`; one that changes the body is a
subclass of `_ChangedAnswer`, with `closes = False` if the connection stays open.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import random
from collections.abc import Iterable, Mapping
from typing import Final, Literal, TypeAlias

import attrs
from aiohttp import web

from edgegap_async.api.codec import dumps
from edgegap_async.api.operations import OPERATIONS
from edgegap_async.api.requests import WEBHOOK_KINDS, webhook_option
from edgegap_async.api.validation import number, one_of
from edgegap_async.errors import InvalidRequest

When: TypeAlias = Literal["unread", "read", "acted"]

_CALLS: Final = frozenset(operation.name for operation in OPERATIONS)
_WEBHOOKS: Final = frozenset(map(webhook_option, WEBHOOK_KINDS.values()))
_SECONDS: Final = number(least=0)


class Effect:
    """What a fault does. A subclass says where it can be used, and applies itself there."""

    operations: frozenset[str] = _CALLS
    """Names of the calls and webhooks that it can be used for."""
    needs_answer: bool = False
    """Whether it changes the answer, so that it can only be used with `when="acted"`."""
    hidden_for: float = 0.0
    """Seconds after its deploy for which the call does not find a deployment."""
    acts: int = 1
    """How often the cloud does what the request asks."""

    async def apply(
        self, request: web.BaseRequest, answer: web.Response | None
    ) -> web.StreamResponse | None:
        """Applies the effect to a call.

        Args:
            request: the request of the client.
            answer: the emulator's answer; None before it has acted.

        Returns:
            What the client gets instead, or None if the exchange goes on.
        """
        del request, answer
        return None

    def webhook_delays(self) -> tuple[float, ...]:
        """Returns one number for each time that a webhook is sent: seconds until then."""
        return (0.0,)


@attrs.frozen
class Drop(Effect):
    """The connection ends without an answer; a webhook is lost."""

    operations = _CALLS | _WEBHOOKS

    reset: bool = True
    """True to end the connection by a TCP reset, False by an orderly end."""

    async def apply(
        self, request: web.BaseRequest, answer: web.Response | None
    ) -> web.StreamResponse | None:
        """Ends the connection."""
        if request.transport is not None:
            request.transport.abort() if self.reset else request.transport.close()
        return web.Response()

    def webhook_delays(self) -> tuple[float, ...]:
        """Never sends the webhook."""
        return ()


def _default_body(status: int) -> dict[str, str]:
    is_unknown_id = status in {400, 404}
    return {"message": "Bad Request ID provided" if is_unknown_id else "scripted fault"}


@attrs.frozen
class Respond(Effect):
    """Another answer in place of the emulator's."""

    status: int = attrs.field(validator=number(least=200, most=599, whole=True))
    """HTTP status of the answer, 200 to 599."""
    body: object = attrs.field(
        default=attrs.Factory(lambda self: _default_body(self.status), takes_self=True), repr=False
    )
    """Bytes are sent as they are, a text in UTF-8, anything else as JSON. By default a 400 or 404
    has the API's text for an unknown id."""
    headers: Mapping[str, str] = attrs.field(factory=dict)
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

    @property
    def as_bytes(self) -> bytes:
        """The body as it is sent."""
        if isinstance(self.body, bytes):
            return self.body
        return self.body.encode() if isinstance(self.body, str) else dumps(self.body)

    async def apply(
        self, request: web.BaseRequest, answer: web.Response | None
    ) -> web.StreamResponse | None:
        """Returns the other answer."""
        kind = {"Content-Type": "application/json"} if "Content-Type" not in self.headers else {}
        headers = {**kind, **self.headers}
        return web.Response(status=self.status, body=self.as_bytes, headers=headers)


class _ChangedAnswer(Effect):
    """An effect on how the body of the emulator's answer is sent."""

    needs_answer = True
    closes = True

    async def apply(
        self, request: web.BaseRequest, answer: web.Response | None
    ) -> web.StreamResponse | None:
        """Sends the answer's head, then its body as the effect has it."""
        body = answer.body if answer is not None and isinstance(answer.body, bytes) else b""
        changed = web.StreamResponse(
            status=answer.status if answer is not None else 200,
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
class Delay(Effect):
    """The emulator's own answer, or a webhook, late."""

    operations = _CALLS | _WEBHOOKS

    seconds: float = attrs.field(validator=_SECONDS)
    """Seconds of delay, 0 or more."""

    async def apply(
        self, request: web.BaseRequest, answer: web.Response | None
    ) -> web.StreamResponse | None:
        """Waits."""
        await asyncio.sleep(self.seconds)
        return None

    def webhook_delays(self) -> tuple[float, ...]:
        """Sends the webhook late."""
        return (self.seconds,)


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

    operations = _WEBHOOKS

    times: int = attrs.field(default=2, validator=number(least=1, whole=True))
    """How often it arrives in all; 1 or more."""

    def webhook_delays(self) -> tuple[float, ...]:
        """Sends the webhook several times."""
        return (0.0,) * self.times


@attrs.frozen
class Fault:
    """One scripted fault.

    Raises:
        InvalidRequest: there is no such call, the effect cannot be used with it, or a number is
            out of range.
    """

    operation: str | None
    """Name of the call, such as `deploy`, or of the webhook, such as `webhook_on_ready`; None for
    any call."""
    effect: Effect
    """What happens: `Drop()`, `Respond(503)`, `Delay(1.0)`, …"""
    when: When = attrs.field(
        default="acted", kw_only=True, validator=one_of("unread", "read", "acted")
    )
    """The moment of a call at which it happens; webhooks have only one."""
    times: int | None = attrs.field(
        default=1, kw_only=True, validator=number(least=1, whole=True, optional=True)
    )
    """How often it happens, 1 or more; None for ever."""
    skip: int = attrs.field(default=0, kw_only=True, validator=number(least=0, whole=True))
    """Calls that go well before the first fault, 0 or more."""
    share: float = attrs.field(default=1.0, kw_only=True, validator=number(above=0, most=1))
    """Share of the later calls that it hits, above 0 and at most 1, drawn from one seed."""

    def __attrs_post_init__(self) -> None:
        name = type(self.effect).__name__
        if not isinstance(self.effect, Effect):
            raise InvalidRequest(f"effect must be a fault such as Drop(), not {self.effect!r}")
        if self.operation is not None and self.operation not in _CALLS | _WEBHOOKS:
            names = ", ".join(sorted(_CALLS | _WEBHOOKS))
            raise InvalidRequest(f"there is no call {self.operation!r}; there are {names}")
        usable = self.effect.operations
        if not (self.operation in usable or (self.operation is None and usable >= _CALLS)):
            names = "calls" if usable == _CALLS else ", ".join(sorted(usable))
            raise InvalidRequest(f"{name} can be used for {names}, not for {self.operation!r}")
        if self.effect.needs_answer and self.when != "acted":
            raise InvalidRequest(f"{name} changes an answer: use it with when='acted'")


class Faults:
    """The faults that are still to happen."""

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self._left: list[Fault] = []
        self.add(*faults)
        self._chance = random.Random(0)  # noqa: S311 - which call fails is no secret

    def add(self, *faults: Fault) -> None:
        """Adds faults after the present ones."""
        for fault in faults:
            if not isinstance(fault, Fault):
                raise InvalidRequest(f"each of faults is of type Fault, not {fault!r}")
        self._left.extend(faults)

    def clear(self) -> None:
        """Removes all faults."""
        self._left.clear()

    @property
    def left(self) -> tuple[Fault, ...]:
        """The faults that are still to happen, with their remaining `times` and `skip`."""
        return tuple(self._left)

    def take(self, operation: str) -> Fault | None:
        """Returns the fault of a call that has just come, or of a webhook to be sent, or None."""
        for index, fault in enumerate(self._left):
            fits_any_call = fault.operation is None and operation not in _WEBHOOKS
            if fault.operation != operation and not fits_any_call:
                continue
            if fault.skip:
                self._left[index] = attrs.evolve(fault, skip=fault.skip - 1)
                return None
            if fault.share < 1 and self._chance.random() >= fault.share:
                return None
            if fault.times == 1:
                del self._left[index]
            elif fault.times is not None:
                self._left[index] = attrs.evolve(fault, times=fault.times - 1)
            return fault
        return None
