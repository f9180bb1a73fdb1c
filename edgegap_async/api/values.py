"""Repr, equality and hash of attrs classes, written once.

attrs would generate and compile the three for each of eighty classes, which takes half of the time
that a class costs at import. Classes that inherit them are decorated with `eq=False, repr=False`.
"""

from __future__ import annotations

from typing import Any

import attrs


class Shown:
    """A repr with the fields, without those of `repr=False`, which may be secrets."""

    __slots__ = ()

    def _fields(self) -> tuple[attrs.Attribute[Any], ...]:
        kind: Any = type(self)
        return tuple(attrs.fields(kind))

    def __repr__(self) -> str:
        shown = (field.name for field in self._fields() if field.repr)
        values = ", ".join(f"{name}={getattr(self, name)!r}" for name in shown)
        return f"{type(self).__name__}({values})"


class Value(Shown):
    """Equality and hash of an object that is its fields: of the same class, with equal fields."""

    __slots__ = ()

    def _values(self) -> tuple[object, ...]:
        return tuple(getattr(self, field.name) for field in self._fields())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Value) or type(other) is not type(self):
            return NotImplemented
        return self._values() == other._values()

    def __hash__(self) -> int:
        return hash(self._values())
