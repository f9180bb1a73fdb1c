"""Changes of status of all deployments, in their order: for the log, the control API, the state."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import attrs

from edgegap_async.api.models import Status
from edgegap_async.concurrency import ChangeEvent

from .deployments import LocalDeployment

_MAX_EVENTS: Final = 10_000


@attrs.frozen(kw_only=True)
class StatusEvent:
    """One change of status."""

    number: int
    """1 for the first change since the start of the emulator, and so on."""
    at: datetime
    """Time of the change."""
    request_id: str
    """The deployment."""
    application: str
    """Name of its application."""
    version: str
    """Name of its version."""
    earlier: Status | None
    """The status before; None for a new deployment."""
    later: Status
    """The status now."""
    reason: str | None
    """Why it is in ERROR, or how its process exited; None if there is nothing to say."""

    def as_table(self) -> dict[str, Any]:
        """Returns it with values of JSON types."""
        same = attrs.asdict(self, filter=attrs.filters.exclude("at", "earlier", "later"))
        return {**same, "at": self.at.isoformat(), "from": self.earlier, "to": self.later}


class StatusEvents:
    """The last 10,000 changes of status.

    Attributes:
        listeners: called with each deployment and its event, at once.
    """

    def __init__(self) -> None:
        self.listeners: list[Callable[[LocalDeployment, StatusEvent], None]] = []
        self._events: deque[StatusEvent] = deque(maxlen=_MAX_EVENTS)
        self._number = 0
        self._added = ChangeEvent()

    def add(self, deployment: LocalDeployment, earlier: Status | None) -> None:
        """Adds the change that a deployment has just made."""
        self._number += 1
        crash = deployment.crash
        event = StatusEvent(
            number=self._number,
            at=deployment.clock.now(),
            request_id=deployment.request_id,
            application=deployment.application.name,
            version=deployment.application.version,
            earlier=earlier,
            later=deployment.status,
            reason=deployment.error_detail or (crash.message if crash else None),
        )
        self._events.append(event)
        for listener in self.listeners:
            listener(deployment, event)
        self._added.notify()

    def after(self, number: int) -> list[StatusEvent]:
        """Returns the changes after the one with this number, oldest first."""
        return [event for event in self._events if event.number > number]

    def of(self, request_id: str) -> tuple[StatusEvent, ...]:
        """Returns the changes of one deployment, oldest first."""
        return tuple(event for event in self._events if event.request_id == request_id)

    async def wait(self, number: int, seconds: float) -> list[StatusEvent]:
        """Returns the changes after that number; waits for one at most that many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._number <= number:
                    await self._added.wait()
        return self.after(number)

    def clear(self) -> None:
        """Forgets the changes; numbers go on."""
        self._events.clear()
