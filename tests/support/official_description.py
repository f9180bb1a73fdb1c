"""The newer official description of the API, where it is at hand: it is no part of this project."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

DESCRIPTION = Path(
    os.environ.get("EDGEGAP_DESCRIPTION")
    or Path(__file__).resolve().parents[3] / "shared" / "reference" / "openapi.yaml"
)


def without_wrong_formats(*formats: str) -> Any:
    """Returns the description without those of `formats` that its own examples break.

    The example of a `date-time` is `2026-04-22 20:30:52.283949`, without a `T`; the example of a
    `date` is `2021-07-14 14:17:37.711`, with a time of day.
    """
    return _without(yaml.load(DESCRIPTION.read_text("utf-8"), yaml.CSafeLoader), formats)


def _without(part: Any, formats: tuple[str, ...]) -> Any:
    if isinstance(part, list):
        return [_without(item, formats) for item in part]
    if not isinstance(part, dict):
        return part
    example = str(part.get("example"))
    is_wrong = part.get("format") in formats and (
        ":" in example if part["format"] == "date" else "T" not in example
    )
    return {
        key: _without(value, formats)
        for key, value in part.items()
        if not (key == "format" and is_wrong)
    }
