"""The rate limit that all programs have learned together, by the rule of `LearnedLimit`.

Redis keeps the state and every slot of the last seconds. A program that gets a 429 reports the slot
of the refused call, learns from the slots of all programs, and writes the new state back, unless
another program has written one since. The version of the state tells.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final

from edgegap_async.http.learned_limit import LearnedLimit, LearnedState

from .slots import Slot, SlotReply

_MAX_CALLS: Final = 400  # whose slots are remembered; of ten seconds at most
_CLOCK_ERROR: Final = 0.005  # seconds by which two answers may place the same slot differently


class SharedLimit:
    """What one program knows of the shared limit of one operation.

    Args:
        limit: the documented calls a second, above 0.
    """

    def __init__(self, limit: float) -> None:
        self._learned = LearnedLimit(limit)
        self._known = self._learned.state
        self._sent = deque[tuple[float, Slot]](maxlen=_MAX_CALLS)
        self.version = 0
        """Version of the state that this program knows."""

    def at(self, now: float) -> float:
        """Returns the calls a second that all programs together may send at a loop time."""
        return self._learned.at(now)

    @property
    def change(self) -> LearnedState | None:
        """What this program has learned and Redis does not know; None for nothing."""
        return None if self._learned.state == self._known else self._learned.state

    def take(self, reply: SlotReply) -> None:
        """Takes the state of a reply if it is newer."""
        if reply.version != self.version:
            self.version = reply.version
            self._learned.resume(reply.learned)
            self._known = self._learned.state

    def on_sent(self, now: float, slot: Slot) -> None:
        """Notes which slot a call took, and when."""
        self._sent.append((now, slot))

    def slot_of(self, sent_at: float | None) -> Slot | None:
        """Returns the slot of a call that took its permit at a loop time; None if unknown.

        Args:
            sent_at: the loop time; None for the newest call.
        """
        for taken_at, slot in reversed(self._sent):
            if sent_at is None or taken_at <= sent_at:
                return slot if slot.redis_at is not None else None
        return None

    def learn(self, reply: SlotReply, refused: Slot, now: float) -> None:
        """Learns from the reply to the report of a refused call.

        Args:
            reply: the reply; it replaces what this program knew.
            refused: the slot of the refused call.
            now: the loop time.
        """
        refusals = reply.refusals
        if refusals is None:
            return
        sent_at = min(refusals.accepted, key=lambda at: abs(at - refused.at), default=math.inf)
        if abs(sent_at - refused.at) > _CLOCK_ERROR:
            return  # the slot was reserved on a timeline that is gone
        self._learned.resume(self._learned.state, refusals.accepted)
        self._learned.on_refused(
            now, sent_at, pause=refusals.pause, rate_factor=refusals.rate_factor
        )
