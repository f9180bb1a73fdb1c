"""The table of fault rows in tests/README.md and the tests named `test_row_NN_…` agree."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

TESTS = Path(__file__).parents[1]
ROWS = range(1, 61)


def rows_of_the_readme() -> dict[int, set[str]]:
    """Returns for each row of the table the test modules that it names."""
    text = (TESTS / "README.md").read_text("utf-8")
    rows = re.findall(r"^\| (\d+) \| .* \| (.*) \|$", text, re.MULTILINE)
    return {int(number): set(re.findall(r"`([\w/]+\.py)`", cell)) for number, cell in rows}


def rows_of_the_tests() -> dict[int, set[str]]:
    """Returns for each row number in the name of a test the modules of these tests."""
    modules = defaultdict(set)
    for module in TESTS.rglob("test_*.py"):
        for numbers in re.findall(
            r"^(?:async )?def test_row_((?:\d\d_)+)", module.read_text("utf-8"), re.MULTILINE
        ):
            for number in re.findall(r"\d\d", numbers):
                modules[int(number)].add(module.relative_to(TESTS).as_posix())
    return modules


def test_the_table_of_rows_names_the_modules_of_their_tests_and_no_others() -> None:
    table, tests = rows_of_the_readme(), rows_of_the_tests()

    assert list(table) == sorted(table)
    assert {number: modules for number, modules in table.items() if modules} == tests


def test_every_row_has_a_test_with_its_number_or_a_reason() -> None:
    text = (TESTS / "README.md").read_text("utf-8")
    without_test = set(
        re.findall(r"^\| (\d+) \| .* \| none(?: yet)?: \w.* \|$", text, re.MULTILINE)
    )
    table, tests = rows_of_the_readme(), rows_of_the_tests()

    assert set(ROWS) <= set(table)
    assert {int(number) for number in without_test} == set(table) - set(tests)
    assert not without_test & {str(number) for number in range(1, 45)}
