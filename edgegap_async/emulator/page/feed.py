"""What has changed, for the pages that are open: the messages of the stream.

Problem: an emulator changes thousands of times a second under load, and a page can draw sixty times
a second at most. Rule: a stream keeps the ids of what has changed since its last message, not the
changes. It makes a message 50 ms after a change of status, and twice a second for calls and rates.
A stream that is read slowly gets fewer and larger messages, and its memory is bounded by the number
of deployments.

A stream listens as long as it is open, so that nothing listens while no page is.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, Final

import attrs

from edgegap_async.concurrency import loop_time
from edgegap_async.emulator.deployment_views import row
from edgegap_async.emulator.deployments import LocalDeployment
from edgegap_async.emulator.fault_tables import fault_table
from edgegap_async.emulator.locations import CITIES
from edgegap_async.emulator.recorded_requests import RecordedRequest
from edgegap_async.emulator.status_events import StatusEvent
from edgegap_async.emulator.webhook_sender import SentWebhook

if TYPE_CHECKING:
    from edgegap_async.emulator.emulator import Emulator

_COALESCE: Final = 0.05  # seconds from a change to its message; what follows goes along
_INTERVAL: Final = 0.5  # seconds between two messages without a change of status
_MAX_CALLS: Final = 60  # newest calls of one message; the page shows no more of them either
_RATE_SECONDS: Final = 60  # seconds of rates that are kept
_TOO_MANY: Final = 429  # HTTP status


class _Rates:
    """Calls and refused calls by operation in each of the last seconds."""

    def __init__(self) -> None:
        self._seconds: dict[int, tuple[Counter[str], Counter[str]]] = {}

    def add(self, request: RecordedRequest) -> None:
        """Counts a call, in the second of its arrival."""
        second = int(request.received_at)
        counts = self._seconds.get(second)
        if counts is None:
            counts = self._seconds[second] = (Counter(), Counter())
            if len(self._seconds) > _RATE_SECONDS:
                del self._seconds[min(self._seconds)]
        counts[request.status == _TOO_MANY][request.operation] += 1

    def after(self, second: int) -> list[dict[str, Any]]:
        """Returns the complete seconds after this one, oldest first, without the empty ones."""
        now = int(loop_time())
        start = time.time() - loop_time()  # the loop's zero in seconds since 1970
        return [
            {"second": one, "at": start + one, "calls": passed, "refused": refused}
            for one, (passed, refused) in sorted(self._seconds.items())
            if second < one < now
        ]


class Stream:
    """What one open page has not been sent yet.

    Args:
        shown: what the page shows.
    """

    def __init__(self, shown: Emulator) -> None:
        self._shown = shown
        self._rates = _Rates()
        self._has_changed = asyncio.Event()
        self._changed: dict[str, None] = {}  # ids, in the order of their first change
        self._known: set[str] = set()
        self._calls: deque[RecordedRequest] = deque(maxlen=_MAX_CALLS)
        self._webhooks: deque[SentWebhook] = deque(shown.webhooks.sent, maxlen=_MAX_CALLS)
        self._sent_second = 0
        self._sent_faults: tuple[object, ...] = ()
        self._sent_deployable: tuple[str, ...] | None = None

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Notes what changes during the block."""
        shown = self._shown
        since = loop_time() - _RATE_SECONDS
        for request in itertools.takewhile(
            lambda one: one.received_at > since, shown.record.newest()
        ):
            self._rates.add(request)
        self._calls.extend(itertools.islice(shown.record.newest(), _MAX_CALLS))
        self._calls.reverse()
        shown.events.listeners.append(self._on_status)
        shown.record.listeners.append(self._on_request)
        shown.webhooks.listeners.append(self._webhooks.append)
        try:
            yield
        finally:
            shown.events.listeners.remove(self._on_status)
            shown.record.listeners.remove(self._on_request)
            shown.webhooks.listeners.remove(self._webhooks.append)

    def _on_status(self, deployment: LocalDeployment, event: StatusEvent) -> None:
        del event
        self._add_change(deployment.request_id)

    def _on_request(self, request: RecordedRequest) -> None:
        self._rates.add(request)
        self._calls.append(request)
        if request.request_id is not None and request.method != "GET":
            self._add_change(request.request_id)  # its tags, or whether it is to stop

    def _add_change(self, request_id: str) -> None:
        self._changed[request_id] = None
        self._has_changed.set()

    async def messages(self) -> AsyncIterator[dict[str, Any]]:
        """Yields all that there is, then what has changed; for ever."""
        yield self._first()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_INTERVAL):
                    await self._has_changed.wait()
            if self._has_changed.is_set():
                await asyncio.sleep(_COALESCE)
            yield self._next()

    def _first(self) -> dict[str, Any]:
        shown = self._shown
        cloud = shown.cloud
        return {
            "is_first": True,
            "url": shown.url,
            "is_simulated": cloud.settings.simulate is not None,
            "limits": dict(shown.limits),
            "cities": {name: (city.latitude, city.longitude) for name, city in CITIES.items()},
            **self._next(),
            "faults": self._faults(),
        }

    def _next(self) -> dict[str, Any]:
        """Returns what is new, and forgets it."""
        self._has_changed.clear()
        cloud = self._shown.cloud
        changed, self._changed = self._changed, {}
        existing = cloud.deployments.keys()
        new = existing - self._known
        gone = self._known - existing
        self._known = set(existing)
        ids = changed | dict.fromkeys(new)
        message: dict[str, Any] = {
            "now": cloud.clock.now().isoformat(),
            "total": self._shown.record.total,
        }
        rows = [row(cloud, cloud.deployments[one]) for one in ids if one in existing]
        if rows:
            message["deployments"] = rows
        if gone:
            message["gone"] = sorted(gone)
        if self._calls:
            message["calls"] = [_call_table(one) for one in self._calls]
            self._calls.clear()
        if self._webhooks:
            message["webhooks"] = [one.as_table() for one in self._webhooks]
            self._webhooks.clear()
        if seconds := self._rates.after(self._sent_second):
            self._sent_second = seconds[-1]["second"]
            message["seconds"] = seconds
        if (deployable := cloud.deployable) != self._sent_deployable:
            self._sent_deployable = deployable
            message["deployable"] = deployable
        if self._shown.faults.left != self._sent_faults:
            message["faults"] = self._faults()
        return message

    def _faults(self) -> list[dict[str, Any]]:
        self._sent_faults = self._shown.faults.left
        return [fault_table(fault) for fault in self._shown.faults.left]


def _call_table(request: RecordedRequest) -> dict[str, Any]:
    at = time.time() - (loop_time() - request.received_at)
    return {**attrs.asdict(request, filter=attrs.filters.exclude("body")), "received_at": at}
