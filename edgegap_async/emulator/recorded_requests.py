"""The record of requests: what came, what was answered, and which fault was applied.

Bodies are kept without their secrets, and only of the newest requests.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final
from urllib.parse import urlsplit

import attrs

from edgegap_async.api.values import HIDDEN_NAMES

_MAX_RECORDED: Final = 20_000  # requests; 7 MB
_MAX_WITH_BODY: Final = 1_000  # requests
_MAX_BODY_CHARACTERS: Final = 4_096
SECRET_NAME: Final = re.compile(HIDDEN_NAMES, re.IGNORECASE)
"""The names of variables and fields whose values are shown nowhere."""
_HIDDEN: Final = "***"


@attrs.frozen
class RecordedRequest:
    """A request that came, and the status of its answer. It has no headers."""

    operation: str
    """Name of the operation; empty if no operation has that path."""
    method: str
    """HTTP method."""
    path: str
    """Path of the URL."""
    status: int
    """HTTP status of the answer; 499 if the client left before it."""
    received_at: float
    """Loop time at which it came, in seconds."""
    duration: float = 0.0
    """Seconds until the answer was ready."""
    request_id: str | None = None
    """The deployment that it was about or that it made; None if there is none."""
    fault: str | None = None
    """The effect of the scripted fault that was applied to it; None if there was none."""
    body: str | None = None
    """Its JSON body, 4,096 characters at most, of the last 1,000 requests. Hidden values, secrets
    and the paths of webhooks are `***`. None if it had none, or no JSON."""


class RequestRecord:
    """The last 20,000 requests.

    Attributes:
        total: number of requests since the start.
        listeners: called with each request, at once.
    """

    def __init__(self) -> None:
        self.total = 0
        self.listeners: list[Callable[[RecordedRequest], None]] = []
        self._requests: deque[RecordedRequest] = deque(maxlen=_MAX_RECORDED)

    def add(self, request: RecordedRequest) -> None:
        """Adds the newest request, and drops the body of one that is no longer new."""
        self.total += 1
        self._requests.append(request)
        for listener in self.listeners:
            listener(request)
        if len(self._requests) > _MAX_WITH_BODY:
            aged = self._requests[-_MAX_WITH_BODY - 1]
            if aged.body is not None:
                self._requests[-_MAX_WITH_BODY - 1] = attrs.evolve(aged, body=None)

    def clear(self) -> None:
        """Forgets the requests."""
        self._requests.clear()

    def newest(self) -> Iterator[RecordedRequest]:
        """Returns the requests, newest first, while no request comes."""
        return reversed(self._requests)

    def __iter__(self) -> Iterator[RecordedRequest]:
        return iter(tuple(self._requests))


def scrubbed_body(body: bytes) -> str | None:
    """Returns a JSON body without secrets, cut to 4,096 characters; None if it is no JSON."""
    try:
        text = json.dumps(_scrubbed(json.loads(body)), ensure_ascii=False)
    except (ValueError, RecursionError):
        return None
    # Half surrogates as escapes: the body was refused for them, and the record shows it.
    return text[:_MAX_BODY_CHARACTERS].encode(errors="backslashreplace").decode()


def _scrubbed(value: Any) -> Any:
    if isinstance(value, list):
        return [_scrubbed(item) for item in value]
    if not isinstance(value, dict):
        return value
    is_hidden = (
        value.get("is_hidden") is True
        or value.get("is_secret") is True
        or SECRET_NAME.search(str(value.get("key", ""))) is not None
    )
    return {key: _scrubbed_field(key, item, is_hidden=is_hidden) for key, item in value.items()}


def _scrubbed_field(key: str, value: Any, *, is_hidden: bool) -> Any:
    if (is_hidden and key == "value") or (SECRET_NAME.search(key) and isinstance(value, str)):
        return _HIDDEN
    if isinstance(value, str) and "url" in key.lower():
        return _without_path(value)
    return _scrubbed(value)


def _without_path(url: str) -> str:
    """Returns scheme and host of a URL: its path may be a secret."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        return _HIDDEN
    return f"{parts.scheme}://{host}/{_HIDDEN}" if host else _HIDDEN
