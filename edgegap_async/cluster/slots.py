"""The script that reserves slots (`slots.lua`): its constants, its reply, the clock it runs by."""

from __future__ import annotations

import importlib.resources
import math
from typing import Final, NamedTuple

import attrs

from edgegap_async.http.learned_limit import (
    MIN_CUT_INTERVAL,
    MIN_RATE_FACTOR,
    REMEMBERED_SECONDS,
    LearnedState,
)
from edgegap_async.http.rate_limits import RECOVERY_PER_SECOND, burst_calls

PACE_FRACTION: Final = 0.95  # of the limit; less than one program uses, because clocks differ
LOG_WINDOW: Final = 1.05  # seconds; 25 ms more than for one program, because clocks differ
LEASE_HORIZON: Final = 1.25  # seconds; no slot is requested for a later time
SILENCE: Final = LEASE_HORIZON + LOG_WINDOW  # seconds after which no slot counts any more

_CONSTANTS: Final = {
    "PACE_FRACTION": PACE_FRACTION,
    "LOG_WINDOW": LOG_WINDOW,
    "RECOVERY_PER_SECOND": RECOVERY_PER_SECOND,
    "MIN_CUT_INTERVAL": MIN_CUT_INTERVAL,
    "MIN_RATE_FACTOR": MIN_RATE_FACTOR,
    "CUT_FACTOR": 0.95,  # of the rate after a 429; one cut slows down all programs
    "LOG_MEMORY": REMEMBERED_SECONDS,  # seconds of slots that the learned limit is read from
    "OPENING_DELAY": 1.0,  # seconds; each program asks for Redis twice in this time
    # Seconds without a call of any program, after which the timelines are new. Longer than between
    # two heartbeats, and shorter than the silence of a program before it sends on its own.
    "IDLE_TIME": SILENCE - 0.1,
    "CLOCK_PRECISION": 3e-6,  # seconds; a slot travels as millionths
    "PROGRAM_TIMEOUT": 6.0,  # seconds after which a program is not counted; three heartbeats
    "KEY_LIFETIME": 3600,  # seconds that Redis keeps the keys without any program
}
_CLOCK_DRIFT: Final = 2e-4  # seconds a second by which two clocks may drift apart


def load_script() -> str:
    """Returns the text of `slots.lua`, with its constants in front."""
    constants = "".join(f"local {name} = {value}\n" for name, value in _CONSTANTS.items())
    script = importlib.resources.files("edgegap_async.cluster").joinpath("slots.lua")
    return constants + script.read_text("utf-8")


def burst_slots(limit: float) -> float:
    """Returns how many slots an idle account may use at once, 1 or more."""
    return max(1.0, burst_calls(limit))


class Slot(NamedTuple):
    """The time of one call."""

    at: float
    """Loop time."""
    redis_at: float | None = None
    """Time by Redis's clock; None for a slot of the program's own share."""


class Refusals(NamedTuple):
    """What all programs know of the refused calls of one operation. Times are loop times."""

    accepted: tuple[float, ...]
    """The slots of the last seconds whose calls were not refused before, in order."""
    rate_factor: float
    """The part of the usual rate before the 429 that was reported, 0.8 to 1."""
    pause: tuple[float, float]
    """Begin and end of the newest pause before that 429."""


@attrs.frozen(kw_only=True)
class SlotReply:
    """The reply of the script. Times are loop times; the defaults are those of a heartbeat."""

    programs: int
    """Programs that share the timelines, 1 or more."""
    timelines: str
    """Id of the timelines; another one after an outage."""
    opens_at: float
    """When the timelines open; past if they are open."""
    closed_until: float = -math.inf
    """Until when no call goes, because of a 429."""
    rate_factor: float = 1.0
    """The part of the usual rate at present, 0.8 to 1."""
    next_at: float = -math.inf
    """The earliest time of the next slot."""
    slots: tuple[Slot, ...] = ()
    """The slots that are reserved for this program, earliest first."""
    version: int = 0
    """How often the learned limit of the programs has changed."""
    learned: LearnedState | None = None
    """The learned limit; None if it is the documented one."""
    refusals: Refusals | None = None
    """What the programs may learn from the 429 that was reported; None in other replies."""


class ClockOffset:
    """Measures how far Redis's clock is ahead of the event loop's."""

    def __init__(self) -> None:
        self._offset = 0.0
        self._error = math.inf
        self._measured_at = -math.inf

    def measure(self, redis_time: float, sent: float, received: float) -> None:
        """Takes a measurement: Redis's clock showed `redis_time` between two loop times."""
        offset, error = redis_time - (sent + received) / 2, (received - sent) / 2
        present_error = self._error + _CLOCK_DRIFT * (received - self._measured_at)
        # A faster answer is more exact. An answer that contradicts the offset comes from a
        # different clock, such as another server's after a failover.
        if error <= present_error or abs(offset - self._offset) > error + present_error:
            self._offset, self._error, self._measured_at = offset, error, received

    def to_loop_time(self, redis_time: float) -> float:
        """Returns the loop time at which Redis's clock shows `redis_time`."""
        return redis_time - self._offset
