"""Seconds that a deployment spends in each status, fixed or drawn from a seed.

A relay session has one such time too.
"""

from __future__ import annotations

import random
from typing import Any, Final, TypeAlias

import attrs

from edgegap_async.api.validation import check_number, field_name
from edgegap_async.errors import InvalidRequest

_MAX_SECONDS: Final = 1e9  # no time is longer, and a file may say `inf`

Duration: TypeAlias = float | tuple[float, float]
"""Seconds: a number, or (at least, at most) for a random number between the two."""


def _duration(self: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    what = field_name(self, attribute)
    if isinstance(value, tuple | list):
        if len(value) != 2 or not value[0] <= value[1]:  # noqa: PLR2004 - at least, at most
            raise InvalidRequest(f"{what} is a number or (at least, at most), not {value!r}")
        for end in value:
            check_number(what, end, least=0, most=_MAX_SECONDS, optional=False)
    else:
        check_number(what, value, least=0, most=_MAX_SECONDS, optional=False)


def _drawn(duration: Duration, chance: random.Random) -> float:
    return chance.uniform(*duration) if isinstance(duration, tuple | list) else duration


@attrs.frozen(kw_only=True)
class Timings:
    """Seconds that a deployment spends in each status, at least.

    Each is a number of 0 or more, or (at least, at most): then each deployment draws its own, from
    a seed. With the defaults READY comes about one second after the deploy, and half a second where
    a location has run the version before.

    Raises:
        InvalidRequest: a value is below 0 or no number.
    """

    initializing: Duration = attrs.field(default=(0.05, 0.15), validator=_duration)
    """Seconds in INITIALIZING."""
    seeking: Duration = attrs.field(default=(0.1, 0.3), validator=_duration)
    """Seconds in SEEKING."""
    seeked: Duration = attrs.field(default=(0.05, 0.1), validator=_duration)
    """Seconds in SEEKED."""
    scanning: Duration = attrs.field(default=(0.05, 0.1), validator=_duration)
    """Seconds in SCANNING."""
    deploying: Duration = attrs.field(default=(0.3, 0.6), validator=_duration)
    """Seconds in DEPLOYING; longer if the process has not bound its ports."""
    deploying_cached: Duration = attrs.field(default=(0.05, 0.15), validator=_duration)
    """Seconds in DEPLOYING at a location where the version has been READY before."""
    terminating: Duration = attrs.field(default=(0.05, 0.15), validator=_duration)
    """Seconds in TERMINATING; longer if the process has not ended."""
    restart_delay: Duration = attrs.field(default=0.5, validator=_duration)
    """Seconds before a process starts again after an exit; doubles each time, up to 60."""

    linking: Duration = attrs.field(default=(0.2, 0.5), validator=_duration)
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
            field.name: _drawn(getattr(self, field.name), chance)
            for field in attrs.fields(type(self))
            if field.name != "linking"
        }
        cached = drawn.pop("deploying_cached")
        return DrawnTimings(**{**drawn, **({"deploying": cached} if is_cached else {})})

    def drawn_linking(self, chance: random.Random) -> float:
        """Returns the seconds until a relay session has a relay.

        Args:
            chance: source of random numbers.
        """
        return _drawn(self.linking, chance)


@attrs.frozen(kw_only=True)
class DrawnTimings:
    """The seconds that one deployment spends in each status, at least."""

    initializing: float
    """Seconds in INITIALIZING."""
    seeking: float
    """Seconds in SEEKING."""
    seeked: float
    """Seconds in SEEKED."""
    scanning: float
    """Seconds in SCANNING."""
    deploying: float
    """Seconds in DEPLOYING."""
    terminating: float
    """Seconds in TERMINATING."""
    restart_delay: float
    """Seconds before the first restart of a process."""
