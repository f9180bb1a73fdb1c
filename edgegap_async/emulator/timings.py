"""Seconds that a deployment spends in each status, fixed or drawn from a seed.

A relay session has one such time too.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import attrs

from edgegap_async.api.validation import check_number, field_name
from edgegap_async.errors import InvalidRequest

_MAX_SECONDS: Final = 1e9  # no time is longer, and a file may say `inf`

Duration: TypeAlias = float | tuple[float, float] | Callable[[random.Random], float]
"""Seconds: a number, (at least, at most) for a random number between the two, or a function that
draws them from the random source it gets."""
DrawnTimings: TypeAlias = Mapping[str, float]
"""Seconds that one deployment spends in each status, at least, by the names of `Timings`."""


def is_time_range(value: object) -> bool:
    """Returns whether it is two numbers of 0 or more in ascending order."""
    return (
        isinstance(value, tuple | list)
        and len(value) == 2  # noqa: PLR2004 - at least, at most
        and all(isinstance(end, int | float) for end in value)
        and 0 <= value[0] <= value[1] <= _MAX_SECONDS
    )


def check_duration(model: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    """A validator: a `Duration`."""
    what = field_name(model, attribute)
    if isinstance(value, tuple | list):
        if not is_time_range(value):
            raise InvalidRequest(f"{what} must be a number or (at least, at most), not {value!r}")
    elif not callable(value):
        check_number(what, value, least=0, most=_MAX_SECONDS, optional=False)


def draw(duration: Duration, chance: random.Random) -> float:
    """Returns the seconds of one time."""
    if callable(duration):
        return duration(chance)
    return chance.uniform(*duration) if isinstance(duration, tuple | list) else duration


@attrs.frozen(kw_only=True)
class Timings:
    """Seconds that a deployment spends in each status, at least.

    Each is a number of 0 or more, (at least, at most) or a function: then each deployment draws its
    own, from a seed. With the defaults READY comes about one second after the deploy, and half a
    second where a location has run the version before.

    Raises:
        InvalidRequest: a value is below 0 or no number.
    """

    initializing: Duration = attrs.field(default=(0.05, 0.15), validator=check_duration)
    """Seconds in INITIALIZING."""
    seeking: Duration = attrs.field(default=(0.1, 0.3), validator=check_duration)
    """Seconds in SEEKING."""
    seeked: Duration = attrs.field(default=(0.05, 0.1), validator=check_duration)
    """Seconds in SEEKED."""
    scanning: Duration = attrs.field(default=(0.05, 0.1), validator=check_duration)
    """Seconds in SCANNING."""
    deploying: Duration = attrs.field(default=(0.3, 0.6), validator=check_duration)
    """Seconds in DEPLOYING; longer if the process has not bound its ports."""
    deploying_cached: Duration = attrs.field(default=(0.05, 0.15), validator=check_duration)
    """Seconds in DEPLOYING at a location where the version has been READY before."""
    terminating: Duration = attrs.field(default=(0.05, 0.15), validator=check_duration)
    """Seconds in TERMINATING; longer if the process has not ended."""
    restart_delay: Duration = attrs.field(default=0.5, validator=check_duration)
    """Seconds before a process starts again after an exit; doubles each time, up to 60."""

    linking: Duration = attrs.field(default=(0.2, 0.5), validator=check_duration)
    """Seconds until a relay session has a relay."""

    @classmethod
    def fast(cls) -> Timings:
        """Returns timings for tests: 0 in each status."""
        names = [field.name for field in attrs.fields(cls)]
        return cls(**{**dict.fromkeys(names, 0.0), "restart_delay": 0.01})

    def drawn(self, chance: random.Random, *, is_cached: bool) -> DrawnTimings:
        """Returns the seconds of one deployment.

        Args:
            chance: source of random numbers.
            is_cached: whether its location has run the version before.
        """
        drawn = {
            field.name: draw(getattr(self, field.name), chance)
            for field in attrs.fields(type(self))
            if field.name != "linking"
        }
        cached = drawn.pop("deploying_cached")
        return {**drawn, "deploying": cached} if is_cached else drawn
