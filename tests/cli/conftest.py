"""Fixtures of the command line's tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from edgegap_async.emulator import Timings


@pytest.fixture(autouse=True)
def _environment(edgegap_environment: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes commands use an emulator, and print as in a terminal without settings."""
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def stays_in() -> str:
    """The status in which deployments stay for longer than a test; none by default."""
    return ""


@pytest.fixture
def more_settings() -> Mapping[str, Any]:
    """Other arguments of `Emulator`; none by default."""
    return {}


@pytest.fixture
def edgegap_settings(stays_in: str, more_settings: Mapping[str, Any]) -> Mapping[str, Any]:
    timings = fast = Timings.fast()
    if stays_in:
        times = {name: getattr(fast, name) for name in ("initializing", "seeking", "deploying")}
        timings = Timings(**{**times, stays_in: 600.0, "deploying_cached": 600.0})
    return {"timings": timings, **more_settings}
