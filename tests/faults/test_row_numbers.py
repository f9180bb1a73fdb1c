"""Every row of the table of faults has a test with its number."""

from __future__ import annotations

import re
from pathlib import Path


def test_every_row_has_a_test_with_its_number() -> None:
    names = "\n".join(
        line
        for module in Path(__file__).parents[1].rglob("test_*.py")
        for line in module.read_text("utf-8").splitlines()
        if re.match(r"(async )?def test_row_", line)
    )
    numbered = {int(number) for number in re.findall(r"_(\d\d)(?=_)", names)}

    assert not set(range(1, 37)) - numbered
