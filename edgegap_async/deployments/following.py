"""Follows the log and the metrics of a deployment: yields what is new in each answer.

Problem: the API has no stream. It answers the log as it is, and nothing says where the last answer
ended: the log may have grown, lost its oldest part, or begun anew with a container that the API has
started again after a crash.

Rule: an answer is compared with the one before. What comes after the longest end of the old log
with which the new log begins is new. If there is none, the container has started again: the rest of
the old log is in `crash_logs`, and all of the new log is new.

Gaps: one second after an answer with something new, up to ten while there is nothing new. A change
of status ends a gap, because the last lines come with the end. The API drops logs with the stop, so
the lines of the last second may be lost.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final, TypeVar

from edgegap_async.api.models import Logs
from edgegap_async.concurrency import wait_within
from edgegap_async.errors import BadRequest, CallError, Gone, NotFound, log_fields
from edgegap_async.http.retries import is_transient
from edgegap_async.polling.tracker import DeploymentTracker

Item = TypeVar("Item")

logger = logging.getLogger(__name__)

_MIN_GAP: Final = 1.0  # seconds from an answer with something new to the next request
_MAX_GAP: Final = 10.0  # seconds
_GAP_GROWTH: Final = 1.5
_MATCH: Final = 256  # characters that find the place in the old log at which the new one begins
_MAX_PLACES: Final = 1000  # of them: a log may repeat its lines
_CUT_CHARACTER: Final = "\ufffd"  # stands for the bytes of a character that an answer has cut


class LogReader:
    """Finds the new text in each answer about a log."""

    def __init__(self) -> None:
        self._seen = ""

    def new_text(self, answer: Logs) -> str:
        """Returns what the log has gained since the answer before; empty for nothing."""
        log = (answer.logs or answer.crash_logs or "").rstrip(_CUT_CHARACTER)
        seen = self._seen
        new = _continuation(seen, log)
        if new is None:
            # The container runs anew, or the API has dropped more than it had shown.
            new = (_continuation(seen, answer.crash_logs or "") or "") + log
        if log:
            self._seen = log
        return new


def _continuation(seen: str, log: str) -> str | None:
    """Returns the text of `log` after what was seen; None if it does not continue it."""
    if log.startswith(seen):
        return log[len(seen) :]
    if not log:
        return ""
    log = log.lstrip(_CUT_CHARACTER)
    head, at = log[:_MATCH], -1
    for _ in range(_MAX_PLACES):
        at = seen.find(head, at + 1)
        if at < 0:
            break
        if log.startswith(seen[at:]):
            return log[len(seen) - at :]
    shorter = (
        size for size in range(min(_MATCH, len(log)) - 1, 0, -1) if seen.endswith(log[:size])
    )
    size = next(shorter, 0)
    return log[size:] if size else None


async def follow(
    tracker: DeploymentTracker, read: Callable[[], Awaitable[Sequence[Item]]]
) -> AsyncIterator[Item]:
    """Yields what `read` returns, again and again, until the deployment is in ERROR or has ended.

    Args:
        tracker: the deployment; it is polled during the iteration.
        read: makes one request, and returns what is new.

    Raises:
        CallError: the API refuses the request. What may pass is repeated without limit.
        NotFound, Gone: as for `DeploymentHandle.changes`.
        ClientClosed: the client is closed, or was closed meanwhile.
    """
    gap, failures = _MIN_GAP, 0
    with tracker.waiting():
        while True:
            known = len(tracker.history)
            is_over = tracker.status is not None and tracker.status.is_final
            items: Sequence[Item] = ()
            try:
                items = await read()
                failures = 0
            except (BadRequest, NotFound, Gone):
                pass  # there is no container yet, or no more; the poller tells which
            except CallError as error:
                if not is_transient(error):
                    raise
                failures += 1
                logger.log(
                    logging.WARNING if failures == 1 else logging.INFO,
                    "%s; the next request follows in %.0f s",
                    error.reason,
                    gap,
                    extra=log_fields(error, seconds=gap),
                )
            for item in items:
                yield item
            if is_over:
                return
            gap = _MIN_GAP if items else min(gap * _GAP_GROWTH, _MAX_GAP)
            await wait_within(asyncio.timeout(gap), tracker.wait_for_change(known))
