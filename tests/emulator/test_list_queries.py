"""What the filters of a list leave, before anything is looked through."""

from __future__ import annotations

import pytest

from edgegap_async.api.requests import Filter
from edgegap_async.emulator.list_queries import ids_in


@pytest.mark.parametrize(
    ("filters", "named"),
    [
        ([], None),
        ([Filter("status", "eq", "ready")], None),
        ([Filter("request_id", "eq", "a")], ["a"]),
        ([Filter("request_id", "in", ["a", "b"])], ["a", "b"]),
        ([Filter("status", "eq", "ready"), Filter("request_id", "in", ["a"])], ["a"]),
        ([Filter("request_id", "nin", ["a"])], None),
        ([Filter("request_id", "neq", "a")], None),
        ([Filter("tags", "in", ["a"])], None),
    ],
)
def test_ids_are_named_by_what_wants_some_and_by_nothing_else(
    filters: list[Filter], named: list[str] | None
) -> None:
    assert ids_in(filters) == (None if named is None else frozenset(named))
