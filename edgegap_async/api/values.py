"""Repr, equality and hash of attrs classes, written once.

attrs would generate and compile the three for each of eighty classes, which takes half of the time
that a class costs at import. Classes that inherit them are decorated with `eq=False, repr=False`.
"""

from __future__ import annotations

import functools
import re
from typing import Any, Final

import attrs

HIDDEN_NAMES: Final = "token|secret|passw|credential|authorization|api_?key"
"""A regular expression for names of values that no repr and no error shows, in any case."""


@functools.cache
def _is_secret(name: str) -> bool:
    return re.search(HIDDEN_NAMES, name, re.IGNORECASE) is not None


class HiddenText(str):
    """A text that a repr, and a traceback that shows local variables, shows as `***`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "***"


class Shown:
    """A repr with the fields, without those of `repr=False`, which may be secrets.

    It shows no value of a field whose name says that it is a secret, such as `token`.
    """

    __slots__ = ()

    def _fields(self) -> tuple[attrs.Attribute[Any], ...]:
        kind: Any = type(self)
        return tuple(attrs.fields(kind))

    def __repr__(self) -> str:
        names = (field.name for field in self._fields() if field.repr)
        values = ", ".join(f"{name}={self._shown(name)}" for name in names)
        return f"{type(self).__name__}({values})"

    def _shown(self, name: str) -> str:
        value = getattr(self, name)
        return repr(value) if value is None or not _is_secret(name) else "***"


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
