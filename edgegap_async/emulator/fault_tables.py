"""Faults as tables: in the TOML file, and in the JSON of the control API.

::

    [[faults]]
    operation = "deploy"                            # every call if it is left out
    effect = { name = "respond", status = 503 }     # or a name alone: effect = "drop"
    when = "acted"
    times = 2                                       # or "forever"

A table has the fields of `Fault`. An effect has the name of its class in lower case with `_`
between its words, and the fields of that class.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import attrs

from edgegap_async.api.validation import read_each
from edgegap_async.errors import InvalidRequest

from .effects import EFFECTS, Effect
from .faults import Fault

_FOREVER: Final = "forever"
_MAX_SHOWN: Final = 200  # characters of a text that the list of faults shows


def effect_name(kind: type[Effect]) -> str:
    """Returns the name of an effect in tables: `hang_up` for `HangUp`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind.__name__).lower()


def _effect_fields(kind: type[Effect]) -> tuple[attrs.Attribute[Any], ...]:
    return attrs.fields(kind) if attrs.has(kind) else ()


_BY_NAME: Final = {effect_name(kind): kind for kind in EFFECTS}


def faults_from_tables(tables: Iterable[object], where: str = "faults") -> tuple[Fault, ...]:
    """Returns the faults of a file's `[[faults]]`, or of a JSON list.

    Args:
        tables: one table for each fault.
        where: the place of the tables, for errors.

    Raises:
        InvalidRequest: a table is not a fault; the message says which, and what would be right.
    """
    if not isinstance(tables, list | tuple):
        raise InvalidRequest(f"{where} must be a list of tables, not {tables!r}")
    return read_each(where, tables, _fault)


def fault_table(fault: Fault) -> dict[str, Any]:
    """Returns a fault as a table of JSON types. Long texts are cut."""
    effect = {
        field.name: _shown(getattr(fault.effect, field.name))
        for field in _effect_fields(type(fault.effect))
    }
    return {
        **attrs.asdict(fault, recurse=False),
        "effect": {"name": effect_name(type(fault.effect)), **effect},
        "times": _FOREVER if fault.times is None else fault.times,
    }


def _shown(value: object) -> object:
    if isinstance(value, bytes):
        value = value[:_MAX_SHOWN].decode(errors="replace")
    return value[:_MAX_SHOWN] if isinstance(value, str) else value


def _fault(table: object) -> Fault:
    fields = _fields(table, "a fault", {field.name for field in attrs.fields(Fault)})
    if "effect" not in fields:
        raise InvalidRequest(f"effect is missing; there are {', '.join(_BY_NAME)}")
    if fields.get("times") == _FOREVER:
        fields["times"] = None
    fields["effect"] = _effect(fields["effect"])
    return Fault(fields.pop("operation", None), fields.pop("effect"), **fields)


def _effect(table: object) -> Effect:
    if isinstance(table, str):
        table = {"name": table}
    if not isinstance(table, Mapping):
        raise InvalidRequest(f"effect must be a name or a table with a name, not {table!r}")
    name = table.get("name")
    kind = _BY_NAME.get(name) if isinstance(name, str) else None
    if kind is None:
        raise InvalidRequest(f"there is no effect {name!r}; there are {', '.join(_BY_NAME)}")
    names = {field.name for field in _effect_fields(kind)}
    fields = _fields(table, f"the effect {name}", {"name", *names})
    del fields["name"]
    missing = [
        field.name
        for field in _effect_fields(kind)
        if field.default is attrs.NOTHING and field.name not in fields
    ]
    if missing:
        raise InvalidRequest(f"the effect {name} needs {', '.join(missing)}")
    return kind(**fields)


def _fields(table: object, what: str, known: set[str]) -> dict[str, Any]:
    if not isinstance(table, Mapping):
        raise InvalidRequest(f"{what} must be a table, not {table!r}")
    unknown = [key for key in table if key not in known]
    if unknown:
        fields = ", ".join(sorted(known)) or "no fields"
        raise InvalidRequest(f"{what} has no {', '.join(map(str, unknown))}; it has {fields}")
    return dict(table)
