"""Repr, equality and hash of attrs classes, written once.

attrs would generate and compile the three for each of eighty classes, which takes half of the time
that a class costs at import. Classes that inherit them are decorated with `eq=False, repr=False`.
"""

from __future__ import annotations

import functools
import itertools
import re
from typing import Any, Final

import attrs

HIDDEN_NAMES: Final = "token|secret|passw|credential|authorization|(?:api|private)_?key"
"""A regular expression for names of values that no repr and no error shows, in any case."""


@functools.cache
def _is_secret(name: str) -> bool:
    return re.search(HIDDEN_NAMES, name, re.IGNORECASE) is not None


_MAX_QUOTED: Final = 1000  # characters of a text of a server in an error; the API's have a hundred


def one_line(said: str) -> str:
    """Returns what a server has said as one line of 1,000 printable characters at most.

    Errors quote it, and a log or a terminal must not take a line break or an escape sequence in it
    for more than a text.
    """
    shown = " ".join(said[: 4 * _MAX_QUOTED].split())[:_MAX_QUOTED]
    return "".join(each if each.isprintable() else "\ufffd" for each in shown)


class HiddenText(str):
    """A text that a repr, and a traceback that shows local variables, shows as `***`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "***"


class _FieldDocs(dict[str, str]):
    """The slots of a class. `help` takes the docstring of a field from such a dictionary."""

    def __init__(self, kind: type) -> None:
        super().__init__(dict.fromkeys(vars(kind)["__slots__"], ""))
        self._kind = kind

    def __getitem__(self, name: str) -> str:
        return _docs_of(self._kind).get(name, "")


@functools.cache
def _docs_of(kind: type) -> dict[str, str]:
    """Returns the texts below the fields of a class from its source: Python does not keep them."""
    import ast  # for `help` alone
    import inspect  # for `help` alone
    import textwrap  # for `help` alone

    [definition] = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    body = definition.body if isinstance(definition, ast.ClassDef) else []
    return {
        field.target.id: inspect.cleandoc(str(text.value.value))
        for field, text in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
    }


class Documented:
    """A base class of attrs classes, whose fields `help` shows with their docstrings."""

    __slots__ = ()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if vars(cls).get("__slots__"):  # attrs makes the class anew, with slots
            type.__setattr__(cls, "__slots__", _FieldDocs(cls))


class Shown(Documented):
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
