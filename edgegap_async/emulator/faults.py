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
used up is gone. What a fault does is in `effects`.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable
from typing import Literal, TypeAlias

import attrs

from edgegap_async.api.validation import number, one_of
from edgegap_async.errors import InvalidRequest

from .effects import CALLS, WEBHOOKS, Effect, check_call

When: TypeAlias = Literal["unread", "read", "acted"]


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
        if self.operation is not None:
            check_call(self.operation, CALLS | WEBHOOKS)
        usable = self.effect.operations
        if not (self.operation in usable or (self.operation is None and usable >= CALLS)):
            names = "calls" if usable == CALLS else ", ".join(sorted(usable))
            raise InvalidRequest(f"{name} can be used for {names}, not for {self.operation!r}")
        if self.effect.needs_answer and self.when != "acted":
            raise InvalidRequest(f"{name} changes an answer: use it with when='acted'")


class Faults:
    """The faults that are still to happen. Any thread may add and clear them."""

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self._lock = threading.Lock()
        self._left: list[Fault] = []
        self.add(*faults)
        self._chance = random.Random(0)  # noqa: S311 - which call fails is no secret

    def add(self, *faults: Fault) -> None:
        """Adds faults after the present ones."""
        for fault in faults:
            if not isinstance(fault, Fault):
                raise InvalidRequest(f"each of faults must be of type Fault, not {fault!r}")
        with self._lock:
            self._left.extend(faults)

    def clear(self) -> None:
        """Removes all faults."""
        with self._lock:
            self._left.clear()

    @property
    def left(self) -> tuple[Fault, ...]:
        """The faults that are still to happen, with their remaining `times` and `skip`."""
        return tuple(self._left)

    def take(self, operation: str) -> Fault | None:
        """Returns the fault of a call that has just come, or of a webhook to be sent, or None."""
        with self._lock:
            for index, fault in enumerate(self._left):
                fits_any_call = fault.operation is None and operation not in WEBHOOKS
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
