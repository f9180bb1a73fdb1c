"""What every answer of the API has: lazily read fields, the JSON as it came, and pages."""

# No `from __future__ import annotations`: subclasses in other modules inherit these annotations.
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeAlias

import attrs

from edgegap_async.api.values import Value

Json: TypeAlias = Mapping[str, object]
"""A JSON object."""


class Model(Value):
    """Equality and repr of all models, without fields of `repr=False` such as `raw`."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment] # fields hold mappings

    omits_none: ClassVar[bool] = False
    """Whether JSON of it has no null, which newer descriptions do not allow, for a field that is
    None by default."""
    v2_times: ClassVar[tuple[str, ...]] = ()
    """The fields of times that JSON of it has as v2 writes them."""

    def absent_fields(self) -> Collection[str]:
        """Returns the fields that JSON of it does not have."""
        return ()

    def _fields(self) -> tuple["attrs.Attribute[Any]", ...]:
        return tuple(field for field in super()._fields() if field.repr)


field_readers: Final[dict[type, Mapping[str, Callable[[object, None], object]]]] = {}
"""The readers of the fields of each `LazyModel`, from JSON to the field's type. Set by `codec`."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class LazyModel(Model):
    """An answer, or a row of an answer, that reads its fields from JSON at the first access."""

    raw: Json = attrs.field(factory=dict, repr=False)
    """The JSON object as it came, with fields that have no name in this class."""

    if not TYPE_CHECKING:  # pragma: no branch - to a type checker any name would be a field

        def __getattr__(self, name: str) -> object:
            """Reads a field that was not accessed before."""
            read = field_readers.get(type(self), {}).get(name)
            if read is None:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            value = read(self.raw.get(name), None)
            object.__setattr__(self, name, value)
            return value


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ApiResponse(LazyModel):
    """The API's answer to a call."""

    attempts: int = attrs.field(default=1, init=False, repr=False)
    """How many times the client tried to send the request, 1 or more."""
    waited: float = attrs.field(default=0.0, init=False, repr=False)
    """Seconds that the client waited between attempts."""


def record_attempts(answer: object, *, attempts: int, waited: float) -> None:
    """Sets `attempts` and `waited` of an `ApiResponse`; leaves another object as it is."""
    if isinstance(answer, ApiResponse):
        object.__setattr__(answer, "attempts", attempts)
        object.__setattr__(answer, "waited", waited)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Paginator(Model):
    """The number of pages of a list."""

    num_pages: int | None = None
    """How many pages the list has; None if the answer does not say."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Pagination(Model):
    """The position of a page in a list."""

    number: int | None = None
    """The number of this page, from 1."""
    next_page_number: int | None = None
    """The number of the next page; None on the last page."""
    previous_page_number: int | None = None
    """The number of the previous page; None on the first page."""
    paginator: Paginator | None = None
    """How many pages the list has."""
    has_next: bool | None = None
    """Whether another page follows; None if the answer does not say."""
    has_previous: bool = False
    """Whether another page comes before."""


def more_follow(page: object, seen: int) -> bool | None:
    """Returns whether an answer says that another page follows; None if that is unclear.

    The published example of a single page has `has_next: true` and `next_page_number: 1`.

    Args:
        page: the answer.
        seen: how many rows of the list were read until now, with those of this page.
    """
    where: Pagination | None = getattr(page, "pagination", None)
    says = set[bool]()
    if where is not None:
        number = where.number
        pages = None if where.paginator is None else where.paginator.num_pages
        if where.has_next is not None:
            says.add(where.has_next)
        if where.next_page_number is not None:
            says.add(where.next_page_number > (number or 0))
        if number is not None and pages is not None:
            says.add(number < pages)
    if says:
        return says.pop() if len(says) == 1 else None
    counts = (getattr(page, name, None) for name in ("total_count", "count"))
    total = next((count for count in counts if count is not None), None)
    if total is None:
        return False if where is None else None  # lists without pages have no pagination
    return None if total > seen else False  # rows that cannot be read are counted too
