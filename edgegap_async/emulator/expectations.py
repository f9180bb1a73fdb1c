"""Calls that a test or a CI job expects: whether they have come, and how often."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from edgegap_async.api.validation import number
from edgegap_async.errors import InvalidRequest

from .effects import CALLS, check_call
from .recorded_requests import RecordedRequest


def _call(self: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    del self, attribute
    check_call(value, CALLS)


@attrs.frozen
class Expectation:
    """Calls that are expected from now on.

    Raises:
        InvalidRequest: there is no such call, or a number is out of range.
    """

    operation: str = attrs.field(validator=_call)
    """Name of the call, such as `deploy`."""
    least: int = attrs.field(default=1, kw_only=True, validator=number(least=0, whole=True))
    """How often it must come, at least; 0 or more."""
    most: int | None = attrs.field(
        default=None, kw_only=True, validator=number(least=0, whole=True, optional=True)
    )
    """How often it may come, 0 or more; None for any number."""
    status: int | None = attrs.field(
        default=None, kw_only=True, validator=number(least=100, most=599, whole=True, optional=True)
    )
    """HTTP status of the answers that count; None for every answer."""

    def __attrs_post_init__(self) -> None:
        if self.most is not None and self.most < self.least:
            raise InvalidRequest(f"most={self.most} is below least={self.least}")

    @classmethod
    def from_table(cls, table: object) -> Expectation:
        """Returns the expectation of a table: its fields by name.

        Raises:
            InvalidRequest: it has an unknown field or a wrong value.
        """
        names = [field.name for field in attrs.fields(cls)]
        if not isinstance(table, Mapping) or "operation" not in table or set(table) - {*names}:
            raise InvalidRequest(
                f"an expectation must be a table with operation, and perhaps"
                f" {', '.join(names[1:])}, not {table!r}"
            )
        return cls(**table)


@attrs.define
class _Counted:
    expectation: Expectation
    count: int = 0

    @property
    def is_met(self) -> bool:
        most = self.expectation.most
        return self.expectation.least <= self.count and (most is None or self.count <= most)


class Expectations:
    """The expected calls, and how often each has come since it was added."""

    def __init__(self) -> None:
        self._counted: list[_Counted] = []

    def add(self, *expectations: Expectation) -> None:
        """Adds expectations; requests count from now on."""
        self._counted += [_Counted(one) for one in expectations]

    def clear(self) -> None:
        """Removes all expectations."""
        self._counted.clear()

    def count(self, request: RecordedRequest) -> None:
        """Counts a request."""
        for one in self._counted:
            if one.expectation.operation == request.operation and (
                one.expectation.status in {None, request.status}
            ):
                one.count += 1

    @property
    def unmet(self) -> tuple[str, ...]:
        """One line for each expectation that is not met, such as `deploy: 1 of at least 2`."""
        return tuple(_line(one) for one in self._counted if not one.is_met)

    def as_tables(self) -> list[dict[str, Any]]:
        """Returns the expectations with `count` and `is_met`, with values of JSON types."""
        return [
            {**attrs.asdict(one.expectation), "count": one.count, "is_met": one.is_met}
            for one in self._counted
        ]


def _line(one: _Counted) -> str:
    wanted = one.expectation
    if wanted.most is None:
        range_text = f"at least {wanted.least}"
    elif wanted.most == wanted.least:
        range_text = f"exactly {wanted.least}"
    else:
        range_text = f"{wanted.least} to {wanted.most}"
    with_status = "" if wanted.status is None else f" with status {wanted.status}"
    return f"{wanted.operation}{with_status}: {one.count} came, {range_text} expected"
