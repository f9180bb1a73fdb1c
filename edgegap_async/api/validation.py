"""Checks of what callers pass: each says in words what was wrong, before anything is sent."""

from __future__ import annotations

import functools
import inspect
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias

import attrs

from edgegap_async.errors import InvalidRequest

__all__ = [
    "Validator",
    "check_kind",
    "check_list",
    "check_number",
    "check_segment",
    "is_coroutine_function",
    "number",
]

Validator: TypeAlias = Callable[[Any, "attrs.Attribute[Any]", Any], None]

_LEAVES_ITS_PLACE: Final = r"[\x00-\x1f\x7f/\\%?#\ud800-\udfff]"


def check_segment(what: str, value: object) -> str:
    """The value, if it can stand in a path and lead nowhere else.

    Quoting alone is not enough: `..` survives it, and `stop("../app/arena")` would be
    `DELETE /v1/app/arena`.

    Raises:
        InvalidRequest: it cannot.
    """
    if not isinstance(value, str) or not value.strip(". ") or len(value) > 128:  # noqa: PLR2004 - no name is longer
        raise InvalidRequest(f"{what} must be a text of 1 to 128 characters, not {value!r}")
    if re.search(_LEAVES_ITS_PLACE, value):
        raise InvalidRequest(
            f"{what} must not hold / \\ % ? #, control characters or half surrogates: {value!r}"
        )
    return value


def check_kind(what: str, value: object, *kinds: type) -> None:
    """Returns if the value is None or one of these.

    Raises:
        InvalidRequest: it is something else.
    """
    if value is not None and (
        not isinstance(value, kinds) or (type(value) is bool and bool not in kinds)
    ):
        names = " or ".join(kind.__name__ for kind in kinds)
        raise InvalidRequest(f"{what} is of type {names}, not {value!r}")


def check_number(
    what: str,
    value: object,
    *,
    above: float = -math.inf,
    least: float = -math.inf,
    optional: bool = True,
) -> None:
    """Returns if the value is a number above the one and not below the other, or None if it may be.

    Raises:
        InvalidRequest: it is something else.
    """
    if value is None and not optional:
        raise InvalidRequest(f"{what} is a number, not None")
    check_kind(what, value, int, float)
    if isinstance(value, int | float) and not (value > above and value >= least):
        bound = f"above {above:g}" if above > -math.inf else f"{least:g} or more"
        raise InvalidRequest(f"{what} must be {bound}, not {value!r}")


def number(
    *,
    above: float = -math.inf,
    least: float = -math.inf,
    whole: bool = False,
    optional: bool = False,
) -> Validator:
    """A validator for attrs: as `check_number`, and None only where it is `optional`."""

    def check(self: object, attribute: attrs.Attribute[Any], value: Any) -> None:
        what = f"{getattr(self, 'made_by', type(self).__name__)}.{attribute.name}"
        if whole:
            check_kind(what, value, int)
        check_number(what, value, above=above, least=least, optional=optional)

    return check


def is_coroutine_function(function: object) -> bool:
    """Whether calling it gives what is to be awaited; partials and objects that are called too."""
    while isinstance(function, functools.partial):
        function = function.func
    called = getattr(type(function), "__call__", None)  # noqa: B004 - what it is, not whether
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called)


def check_list(what: str, values: object) -> None:
    """Returns if the values are several: what can be iterated, and is no text and no mapping.

    Raises:
        InvalidRequest: they are something else.
    """
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise InvalidRequest(f"{what} is a list, not {values!r}")
