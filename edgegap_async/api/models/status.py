"""The statuses of a deployment, and the order in which they may follow one another."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Final, Literal

import attrs

from edgegap_async.api.values import Value, one_line


class Status(enum.StrEnum):
    """The status of a deployment. A status is a text without the API's prefix: `status == "READY"`.

    `Status("Status.READY")`, `Status("READY")` and `Status("ready")` are all `Status.READY`. The
    API's description does not enumerate the statuses, so any other text becomes an unknown status:
    `is_known` is False, the name is UNKNOWN and the value is the text, as one line.
    """

    INITIALIZING = "INITIALIZING"
    """The API accepted the deploy."""
    SEEKING = "SEEKING"
    """The API searches for a location near the users."""
    SEEKED = "SEEKED"
    """The API chose a location."""
    SCANNING = "SCANNING"
    """Between SEEKED and DEPLOYING; the API does not document it."""
    DEPLOYING = "DEPLOYING"
    """The container starts."""
    READY = "READY"
    """Players can connect, as far as the API checks it: see `PlayableCheck`."""
    TERMINATING = "TERMINATING"
    """A stop is under way."""
    TERMINATED = "TERMINATED"
    """The deployment has ended and is in no list."""
    ERROR = "ERROR"
    """The deployment failed. It is listed and counts against quotas until it is stopped."""

    @classmethod
    def _missing_(cls, value: object) -> Status:
        text = one_line(value) if isinstance(value, str) else ""  # errors and logs quote it
        known = cls.__members__.get(re.sub(r"^STATUS[._]", "", text.upper()))
        if known is not None:
            return known
        unknown = str.__new__(cls, text)
        unknown._name_ = "UNKNOWN"
        unknown._value_ = text
        return unknown

    @property
    def api_text(self) -> str:
        """The text of the API, such as `Status.READY`; for an unknown status its own text."""
        return f"Status.{self.value}" if self.is_known else self.value

    @property
    def is_known(self) -> bool:
        """Whether the status is one of the members of this class."""
        return self.name in Status.__members__

    @property
    def is_ready(self) -> bool:
        """Whether the status is READY."""
        return self == Status.READY

    @property
    def is_terminal(self) -> bool:
        """Whether the deployment is, and stays, unusable: ERROR, TERMINATING or TERMINATED.

        With TERMINATING, which `is_final` leaves out because TERMINATED follows.
        """
        return self in {Status.ERROR, Status.TERMINATING, Status.TERMINATED}

    @property
    def is_final(self) -> bool:
        """Whether no further status follows by itself: ERROR or TERMINATED, not TERMINATING.

        A deployment in ERROR still exists until it is stopped.
        """
        return self in {Status.ERROR, Status.TERMINATED}


TRANSITIONS: Final[Mapping[Status, frozenset[Status]]] = MappingProxyType(
    {
        Status.INITIALIZING: frozenset({Status.SEEKING, Status.ERROR}),
        Status.SEEKING: frozenset({Status.SEEKED, Status.ERROR}),
        Status.SEEKED: frozenset({Status.SCANNING, Status.DEPLOYING, Status.ERROR}),
        Status.SCANNING: frozenset({Status.DEPLOYING, Status.ERROR}),
        Status.DEPLOYING: frozenset({Status.READY, Status.ERROR}),
        Status.READY: frozenset({Status.TERMINATING, Status.ERROR}),
        Status.ERROR: frozenset({Status.TERMINATING}),
        Status.TERMINATING: frozenset({Status.TERMINATED}),
        Status.TERMINATED: frozenset(),
    }
)
"""The statuses that may directly follow each status. The emulator takes only these steps. The
client uses `may_become`, because several steps may pass between two status requests."""


def may_become(earlier: Status, later: Status) -> bool:
    """Whether a deployment may go from one status to another, by any number of steps.

    An unknown status may come before and after any status. False means that `later` is outdated.
    """
    if not (earlier.is_known and later.is_known):
        return True
    reached, todo = set[Status](), [earlier]
    while todo:
        for step in TRANSITIONS[todo.pop()] - reached:
            reached.add(step)
            todo.append(step)
    return later in reached


@attrs.frozen(eq=False, repr=False)
class StatusChange(Value):
    """One change of a deployment's status, as this program saw it."""

    status: Status
    """The new status."""
    at: datetime
    """When this program learnt of the change."""
    source: Literal["status", "list", "webhook"] = "status"
    """The request that found the change: a status request (`status`), a list request (`list`), or
    a status request that a webhook triggered (`webhook`)."""
