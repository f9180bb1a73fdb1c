"""What goes wrong, by script: which call, where in the exchange, how often, with what.

::

    emulator.faults.add(Fault("deploy", Drop(), when="acted"))              # the answer is lost
    emulator.faults.add(Fault("deploy", Answer(503), when="acted", times=2))
    emulator.faults.add(Fault(None, Delay(0.2), times=None))                # every call, for ever
    emulator.faults.add(Fault("list_deployments", Hide(3), times=None))     # it shows up late
    emulator.faults.add(Fault("webhook_on_ready", Drop(), times=None, share=0.05))

An exchange has three places where things go wrong, and they leave the world in different states:

=========  ==================================  ===============================
`when`     what the API has done               what a client can know
=========  ==================================  ===============================
`unread`   nothing, the body was not read      nothing
`read`     nothing, though it has it all       nothing
`acted`    everything, only the answer fails   nothing, and it was done
=========  ==================================  ===============================

A webhook goes the other way, and nobody waits for it: it can be lost (`Drop`), come late (`Delay`)
and so after one that was sent later, or come more than once (`Repeat`).

A fault that was used up is gone. Those that fit the same call take turns in the order they were
added: while one is not used up the next waits.
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
from edgegap_async.api.validation import check_kind
from edgegap_async.errors import InvalidRequest

__all__ = [
    "Delay",
    "Dribble",
    "Drop",
    "Fault",
    "Faults",
    "HangUp",
    "Hide",
    "Repeat",
    "Respond",
    "Truncate",
    "What",
    "When",
]

When: TypeAlias = Literal["unread", "read", "acted"]


@attrs.frozen
class Drop:
    """The connection ends with no answer."""

    reset: bool = True
    """By a reset, or else by an orderly end."""


@attrs.frozen
class Respond:
    """Another answer in place of the API's."""

    status: int
    body: object = attrs.field(factory=lambda: {"message": "scripted fault"}, repr=False)
    """Bytes as they are, a text in UTF-8, anything else as JSON."""
    headers: Mapping[str, str] = attrs.field(factory=dict)

    @classmethod
    def html(cls, status: int = 502) -> Respond:
        """The page of a proxy that has no server behind it."""
        page = "<html><body><h1>Bad Gateway</h1></body></html>"
        return cls(status, page, {"Content-Type": "text/html"})

    @classmethod
    def gzip_bomb(cls, size: int = 2**28) -> Respond:
        """A few hundred kilobytes that unpack to `size` bytes."""
        return cls(200, gzip.compress(bytes(size)), {"Content-Encoding": "gzip"})

    @property
    def as_bytes(self) -> bytes:
        """The body as it is sent."""
        if isinstance(self.body, bytes):
            return self.body
        return self.body.encode() if isinstance(self.body, str) else dumps(self.body)


@attrs.frozen
class Truncate:
    """The API's answer, whose connection ends in the middle of its body."""

    after: int = 5
    """Bytes of the body that come."""


@attrs.frozen
class Dribble:
    """The API's answer, a byte at a time."""

    every: float = 0.5
    """Seconds from byte to byte."""


@attrs.frozen
class Delay:
    """The API's own answer, late."""

    seconds: float


@attrs.frozen
class HangUp:
    """The API's answer, after which the connection ends without having said so.

    A client that keeps the connection for the next call finds it stale.
    """


@attrs.frozen
class Hide:
    """For so many seconds after its deploy a deployment is unknown to a look or a list."""

    seconds: float


@attrs.frozen
class Repeat:
    """A webhook that comes more than once."""

    times: int = 2
    """How often it comes in all."""


What: TypeAlias = Drop | Respond | Truncate | Dribble | Delay | HangUp | Hide | Repeat

_CALLS: Final = frozenset(operation.name for operation in OPERATIONS)
_WEBHOOKS: Final = frozenset(map(webhook_option, WEBHOOK_KINDS.values()))
_SHOWS: Final = frozenset({"get_deployment", "list_deployments"})
_NEEDS_AN_ANSWER: Final = (Truncate, Dribble, HangUp)


@attrs.frozen
class Fault:
    """One thing that goes wrong.

    Raises:
        InvalidRequest: it cannot: there is no such call, or nothing to be truncated yet.
    """

    operation: str | None
    """Name of the call, such as `deploy`, or of the webhook, such as `webhook_on_ready`; None for
    any call."""
    what: What
    when: When = attrs.field(default="acted", kw_only=True)
    times: int | None = attrs.field(default=1, kw_only=True)
    """How often; None for ever."""
    skip: int = attrs.field(default=0, kw_only=True)
    """Calls that go well before the first."""
    share: float = attrs.field(default=1.0, kw_only=True)
    """Of the calls after those, how many it hits, drawn from a seeded source; 1 for all."""

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.what, What):
            raise InvalidRequest(f"what goes wrong is one such as Drop(), not {self.what!r}")
        if self.operation is not None and self.operation not in _CALLS | _WEBHOOKS:
            raise InvalidRequest(f"there is no call {self.operation!r}")
        if not 0 < self.share <= 1:
            raise InvalidRequest(f"share is above 0 and at most 1, not {self.share!r}")
        if self.operation in _WEBHOOKS:
            if not isinstance(self.what, Drop | Delay | Repeat):
                raise InvalidRequest("what can happen to a webhook is Drop, Delay and Repeat")
            if isinstance(self.what, Repeat) and self.what.times < 1:
                raise InvalidRequest("Repeat.times is counted from 1")
        elif isinstance(self.what, Repeat):
            raise InvalidRequest(f"Repeat is for {', '.join(sorted(_WEBHOOKS))}")
        if self.when not in {"unread", "read", "acted"}:
            raise InvalidRequest(f"when is unread, read or acted, not {self.when!r}")
        if (self.times is not None and self.times < 1) or self.skip < 0:
            raise InvalidRequest("times is counted from 1, and skip from 0")
        if isinstance(self.what, _NEEDS_AN_ANSWER) and self.when != "acted":
            raise InvalidRequest(f"{type(self.what).__name__} needs an answer: when='acted'")
        if isinstance(self.what, Hide) and self.operation not in _SHOWS:
            raise InvalidRequest(f"Hide is for {' and '.join(sorted(_SHOWS))}")


class Faults:
    """The script: what still goes wrong."""

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self._left: list[Fault] = []
        self.add(*faults)
        self._chance = random.Random(0)  # noqa: S311 - what goes wrong is no secret

    def add(self, *faults: Fault) -> None:
        """Let these go wrong from now on."""
        for fault in faults:
            check_kind("each of faults", fault, Fault)
        self._left.extend(faults)

    def clear(self) -> None:
        """Let all go well from now on."""
        self._left.clear()

    @property
    def left(self) -> tuple[Fault, ...]:
        """What still goes wrong, with how often and after how many calls."""
        return tuple(self._left)

    def take(self, operation: str) -> Fault | None:
        """What goes wrong with a call that has just come, or a webhook about to go, or None."""
        for number, fault in enumerate(self._left):
            of_any_call = fault.operation is None and operation not in _WEBHOOKS
            if fault.operation != operation and not of_any_call:
                continue
            if fault.skip:
                self._left[number] = attrs.evolve(fault, skip=fault.skip - 1)
                return None
            if fault.share < 1 and self._chance.random() >= fault.share:
                return None
            if fault.times == 1:
                del self._left[number]
            elif fault.times is not None:
                self._left[number] = attrs.evolve(fault, times=fault.times - 1)
            return fault
        return None


async def spoil(
    what: What, request: web.Request, answer: web.Response | None
) -> web.StreamResponse | None:
    """What the client gets in place of `answer`, or None if it gets that after all.

    `answer` is None where the API has not acted.
    """
    transport = request.transport
    if isinstance(what, Delay):
        await asyncio.sleep(what.seconds)
        return None
    if isinstance(what, Respond):
        kind = {"Content-Type": "application/json"} if "Content-Type" not in what.headers else {}
        return web.Response(
            status=what.status, body=what.as_bytes, headers={**kind, **what.headers}
        )
    if isinstance(what, Drop):
        if transport is not None:
            transport.abort() if what.reset else transport.close()
        return web.Response()
    body = answer.body if answer is not None and isinstance(answer.body, bytes) else b""
    spoilt = web.StreamResponse(
        status=answer.status if answer is not None else 200,
        headers={"Content-Type": "application/json", "Content-Length": str(len(body))},
    )
    await spoilt.prepare(request)
    if isinstance(what, Truncate):
        await spoilt.write(body[: what.after])
    elif isinstance(what, Dribble):
        with contextlib.suppress(ConnectionError):  # the client does not wait for its end
            for number in range(len(body)):
                await asyncio.sleep(what.every)
                await spoilt.write(body[number : number + 1])
    else:
        await spoilt.write(body)
    if transport is not None and not isinstance(what, Dribble):
        transport.close()
    return spoilt
