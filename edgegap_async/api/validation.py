"""Checks of arguments and settings, so that an invalid value fails before a request is sent.

Each check raises `InvalidRequest` with the name of the argument and what it accepts. Functions
named `check_…` check one value; the others return a validator for a field of an attrs class.
"""

from __future__ import annotations

import functools
import inspect
import ipaddress
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias, TypeVar
from urllib.parse import SplitResult, urlsplit

import attrs

from edgegap_async.errors import InvalidRequest

Validator: TypeAlias = Callable[[Any, "attrs.Attribute[Any]", Any], None]
"""A validator of an attrs field: called with the object, the field and the value."""

Item = TypeVar("Item")

EXTRAS: Final[Mapping[str, str]] = {
    "aiodocker": "docker",
    "click": "cli",
    "iptocc": "emulator",
    "opentelemetry": "otel",
    "prometheus_client": "prometheus",
    "redis": "redis",
}
"""The extra of each package that may be missing, by the name to import."""

QUOTES: Final = "\"'`\u201c\u201d\u2018\u2019<>"
"""What stands around a value that was copied from a document."""

_MAX_TEXT: Final = 128  # characters; the API documents no longer name or id
_NOT_IN_SEGMENT: Final = r"[\x00-\x1f\x7f/\\%?#\ud800-\udfff]"


# ── one value ────────────────────────────────────────────────────────────────────────────────────


def check_segment(what: str, value: object, max_length: int = _MAX_TEXT) -> str:
    """Returns the value if it is safe as one segment of a URL path.

    Quoting alone is not enough: `..` survives it, and `stop("../app/arena")` would become
    `DELETE /v1/app/arena`.

    Args:
        what: name of the argument, for the error.
        value: the id or name to check.
        max_length: characters that the value may have.

    Raises:
        InvalidRequest: the value is not such a text.
    """
    if not isinstance(value, str) or not value.strip(". ") or len(value) > max_length:
        raise InvalidRequest(
            f"{what} must be a text of 1 to {max_length} characters, not {value!r}"
        )
    if re.search(_NOT_IN_SEGMENT, value):
        raise InvalidRequest(
            f"{what} must not hold / \\ % ? #, control characters or half surrogates: {value!r}"
        )
    return value


def is_segment(value: object) -> bool:
    """Returns whether `check_segment` accepts the value."""
    try:
        check_segment("the value", value)
    except InvalidRequest:
        return False
    return True


def check_name(what: str, value: object, *, max_length: int) -> str:
    """Returns the value if it is a name of ASCII letters, digits and `.`, `_`, `-`: part of a tag.

    Raises:
        InvalidRequest: the value is not such a text, or is empty or longer than `max_length`.
    """
    if not isinstance(value, str) or not re.fullmatch(rf"[A-Za-z0-9._-]{{1,{max_length}}}", value):
        raise InvalidRequest(
            f"{what} must be 1 to {max_length} of A-Z a-z 0-9 . _ -, not {value!r}"
        )
    return value


def check_text(what: str, value: object, max_length: int = _MAX_TEXT) -> None:
    """Checks that the value is a printable text that is not blank.

    Raises:
        InvalidRequest: the value is something else, or longer than `max_length` characters.
    """
    if not isinstance(value, str) or not value.strip():
        raise InvalidRequest(f"{what} must be a text that is not empty, not {value!r}")
    if len(value) > max_length:
        raise InvalidRequest(f"{what} has {len(value)} characters; {max_length} is the most")
    if not value.isprintable():
        raise InvalidRequest(f"{what} must not hold control characters: {value!r}")


def check_kind(what: str, value: object, *kinds: type) -> None:
    """Checks that the value is None or an instance of one of the types. A bool is not an int here.

    Raises:
        InvalidRequest: the value is of another type.
    """
    if value is not None and (
        not isinstance(value, kinds) or (type(value) is bool and bool not in kinds)
    ):
        names = " or ".join(kind.__name__ for kind in kinds)
        raise InvalidRequest(f"{what} must be of type {names}, not {value!r}")


def check_number(
    what: str,
    value: object,
    *,
    above: float = -math.inf,
    least: float = -math.inf,
    most: float = math.inf,
    whole: bool = False,
    optional: bool = True,
) -> None:
    """Checks that the value is a number within bounds.

    Args:
        what: name of the argument, for the error.
        value: the value to check. NaN is outside all bounds.
        above: the number must be greater than this.
        least: the number must not be less than this.
        most: the number must not be greater than this.
        whole: whether only an int passes.
        optional: whether None passes too.

    Raises:
        InvalidRequest: the value is something else.
    """
    if value is None and not optional:
        raise InvalidRequest(f"{what} must be a number, not None")
    check_kind(what, value, *((int,) if whole else (int, float)))
    if isinstance(value, int) and abs(value) > sys.float_info.max:  # no clock can count it
        raise InvalidRequest(f"{what} must be a number that a float can hold")
    if isinstance(value, int | float) and not (value > above and least <= value <= most):
        bound = f"above {above:g}" if above > -math.inf else f"{least:g} or more"
        bound += f" and {most:g} at most" if most < math.inf else ""
        raise InvalidRequest(f"{what} must be {bound}, not {value!r}")


def check_list(what: str, values: object, *, of_texts: bool = False) -> None:
    """Checks that the values can be iterated and are not a text or a mapping.

    Args:
        what: name of the argument, for the error.
        values: the values to check.
        of_texts: whether a single text is probably an item of the list, for the error.

    Raises:
        InvalidRequest: the values are something else.
    """
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        name = what.rpartition(".")[2]
        advice = f": write {name}=[{values!r}]" if of_texts and isinstance(values, str) else ""
        raise InvalidRequest(f"{what} must be a list, not {values!r}{advice}")


def items_of(what: str, values: Iterable[object], kind: type[Item]) -> tuple[Item, ...]:
    """Returns the items of a list, all of one type.

    Raises:
        InvalidRequest: the values are no list, or an item is of another type.
    """
    check_list(what, values)
    items: list[Item] = []
    for item in values:
        if not isinstance(item, kind):
            raise InvalidRequest(f"{what} must be a list of {kind.__name__}, not of {item!r}")
        items.append(item)
    return tuple(items)


def read_each(what: str, values: Iterable[object], read: Callable[[Any], Item]) -> tuple[Item, ...]:
    """Returns what a function makes of each item of a list.

    Raises:
        InvalidRequest: the function has raised it; the text then begins with the item's place.
    """
    items: list[Item] = []
    for index, value in enumerate(values):
        try:
            items.append(read(value))
        except InvalidRequest as error:
            raise InvalidRequest(f"{what}[{index}]: {error.message}") from None
    return tuple(items)


def unknown_name(name: object, known: Iterable[str]) -> str:
    """Returns the end of an error text about an unknown name: the known ones, and the nearest."""
    import difflib  # for errors alone

    names = list(known)
    close = difflib.get_close_matches(str(name), names, 1)
    return f"there are {', '.join(names)}" + (f". Did you mean {close[0]}?" if close else "")


def is_coroutine_function(function: object) -> bool:
    """Whether a call of the object returns a coroutine.

    Partials of coroutine functions and objects whose `__call__` is one count too.
    """
    while isinstance(function, functools.partial):
        function = function.func
    called = getattr(type(function), "__call__", None)  # noqa: B004 - the method is inspected, not called
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called)


def http_url(value: object) -> SplitResult | None:
    """Returns the parts of an http or https URL with a host; None for anything else."""
    try:
        # urlsplit drops line breaks, which would still be sent; an invalid `port` raises.
        parts = urlsplit(value if isinstance(value, str) and value.isprintable() else "")
        is_usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        return None
    return parts if is_usable else None


def is_loopback(host: str) -> bool:
    """Whether the host is `localhost` or an IP address of this machine's loopback interface."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    # Only Python 3.13 takes ::ffff:127.0.0.1 for what it is.
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


# ── validators of attrs fields ───────────────────────────────────────────────────────────────────


def field_name(model: object, attribute: attrs.Attribute[Any]) -> str:
    """The name of a field in errors: `RetryPolicy.attempts`.

    A class whose instances only this package makes names the public callable in `made_by`.
    """
    return f"{getattr(model, 'made_by', type(model).__name__)}.{attribute.name}"


def number(
    *,
    above: float = -math.inf,
    least: float = -math.inf,
    most: float = math.inf,
    whole: bool = False,
    optional: bool = False,
) -> Validator:
    """A validator: a number within bounds, as for `check_number`.

    Args:
        above: the number must be greater than this.
        least: the number must not be less than this.
        most: the number must not be greater than this.
        whole: whether only an int passes.
        optional: whether None passes too.
    """

    def check(model: object, attribute: attrs.Attribute[Any], value: Any) -> None:
        check_number(
            field_name(model, attribute),
            value,
            above=above,
            least=least,
            most=most,
            whole=whole,
            optional=optional,
        )

    return check


def text(most: int = _MAX_TEXT) -> Validator:
    """A validator: a text as for `check_text`."""

    def check(model: object, attribute: attrs.Attribute[Any], value: Any) -> None:
        check_text(field_name(model, attribute), value, most)

    return check


def texts(most: int = _MAX_TEXT) -> Validator:
    """A validator: a list of texts as for `check_text`, none of them twice."""

    def check(model: object, attribute: attrs.Attribute[Any], value: Any) -> None:
        what = field_name(model, attribute)
        check_list(what, value, of_texts=True)
        for index, item in enumerate(value):
            check_text(f"{what}[{index}]", item, most)
        if len(set(value)) < len(value):
            raise InvalidRequest(f"{what} has an item twice: {value!r}")

    return check


def segment(*, least: int = 1, most: int = _MAX_TEXT) -> Validator:
    """A validator: a text of so many characters that is safe as one segment of a URL path."""

    def check(model: object, attribute: attrs.Attribute[Any], value: Any) -> None:
        what = field_name(model, attribute)
        check_segment(what, value, most)
        if len(value) < least:
            raise InvalidRequest(f"{what} has {len(value)} characters; {least} is the least")

    return check


def one_of(*allowed: str | int) -> Validator:
    """A validator: one of these values."""

    def check(model: object, attribute: attrs.Attribute[Any], value: Any) -> None:
        if value not in allowed:
            what = field_name(model, attribute)
            raise InvalidRequest(
                f"{what} must be one of {', '.join(map(str, allowed))}, not {value!r}"
            )

    return check


def instance_of(*kinds: type) -> Validator:
    """A validator: an instance of one of the types, of which the error names the first.

    The error for a field that no repr shows names the type of the value, which may be a secret.
    """

    def check(model: object, attribute: attrs.Attribute[Any], value: Any) -> None:
        if not isinstance(value, kinds):
            what = field_name(model, attribute)
            shown = value if attribute.repr else type(value)
            raise InvalidRequest(f"{what} must be of type {kinds[0].__name__}, not {shown!r}")

    return check


def not_empty(model: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    """A validator: a collection with at least one item.

    Raises:
        InvalidRequest: the collection is empty.
    """
    if not value:
        raise InvalidRequest(f"{field_name(model, attribute)} must not be empty")


def needs_package(what: str, package: str) -> str:
    """Returns the text that `what` needs a package which is not installed, with its extra."""
    return f"{what} needs {package}: pip install 'edgegap-async[{EXTRAS[package]}]'"
