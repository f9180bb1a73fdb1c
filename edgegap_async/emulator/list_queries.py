"""Reads query parameters: filters, pages, numbers and times."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from operator import eq, ge, le
from typing import Any, Final, TypeVar

import attrs

from edgegap_async.api.codec import read_time
from edgegap_async.api.models import ApiResponse, Pagination, Paginator, Status
from edgegap_async.api.requests import Filter, StopFilter
from edgegap_async.errors import InvalidRequest, Unprocessable

from .deployments import LocalDeployment

Item = TypeVar("Item")
Page = TypeVar("Page", bound=ApiResponse)

_DEFAULT_PAGE_SIZE: Final = 20
_MAX_PAGE_SIZE: Final = 100


def parse_positive(name: str, text: str | None, default: int) -> int:
    """Reads a whole number of 1 or more.

    Raises:
        InvalidRequest: it is none.
    """
    if text is None:
        return default
    if not re.fullmatch("[1-9][0-9]{0,8}", text):
        raise InvalidRequest(f"{name} must be a whole number, 1 or more")
    return int(text)


def parse_time(name: str, text: str | None) -> datetime | None:
    """Reads a time, in any format that the API uses.

    Raises:
        Unprocessable: it is none.
    """
    time = read_time(text)
    if text and time is None:
        raise Unprocessable(f"{name} must be a time such as 2025-11-29 22:35:31.971359")
    return time


def pagination(number: int, size: int, total: int) -> Pagination:
    """Returns which page of how many this is."""
    pages = max(1, -(-total // size))
    return Pagination(
        number=number,
        next_page_number=number + 1 if number < pages else None,
        previous_page_number=number - 1 if number > 1 else None,
        paginator=Paginator(num_pages=pages),
        has_next=number < pages,
        has_previous=number > 1,
    )


def page_answer(
    kind: type[Page],
    rows: str,
    items: Sequence[Item],
    pages: Mapping[str, str],
    *,
    show: Callable[[Item], object] = lambda item: item,
    is_always_paged: bool = True,
) -> Page:
    """Returns one page of a list as the model of its answer.

    Args:
        kind: the model, which has `pagination`, `count` and `total_count`, or some of them.
        rows: name of its field for the items.
        items: all of them.
        pages: the query parameters as far as the request has them: `page`, which counts from 1, and
            `limit`, of which 100 counts as the most.
        show: returns a row of an item.
        is_always_paged: whether a request without both gets a page of 20, and not everything.

    Raises:
        InvalidRequest: a parameter is no whole number of 1 or more.
    """
    count = len(items)
    if pages or is_always_paged:
        size = min(parse_positive("limit", pages.get("limit"), _DEFAULT_PAGE_SIZE), _MAX_PAGE_SIZE)
    else:
        size = max(1, count)
    number = parse_positive("page", pages.get("page"), 1)
    values: dict[str, Any] = {
        rows: tuple(map(show, items[(number - 1) * size : number * size])),
        "count": count,
        "total_count": count,
        "pagination": pagination(number, size, count),
    }
    names = attrs.fields_dict(kind)
    return kind(**{name: value for name, value in values.items() if name in names})


def ids_in(filters: Iterable[Filter]) -> frozenset[str] | None:
    """Returns the ids that a filter by id allows, or None without such a filter."""
    for condition in filters:
        if condition.field == "request_id" and condition.operator in {"eq", "in"}:
            value = condition.value
            return frozenset(value if isinstance(value, tuple) else [str(value)])
    return None


_TEXTS: Final[Mapping[str, Callable[[LocalDeployment], Collection[str]]]] = {
    "request_id": lambda one: (one.request_id,),
    "tags": lambda one: one.tags,
    "application": lambda one: (one.application.name,),
    "version": lambda one: (one.application.version,),
    "fleet_name": lambda one: (one.fleet_name,) if one.fleet_name else (),
    "host_name": lambda one: (one.host_id,),
}
"""The texts that a field of a deployment has."""


def predicate(condition: Filter) -> Callable[[LocalDeployment], bool]:
    """Returns a function that says whether a deployment passes a filter of a list."""
    value, operator = condition.value, condition.operator
    if isinstance(value, datetime):
        compare = {"eq": eq, "gte": ge, "lte": le}[operator]
        return lambda one: compare(one.created_at, value)
    if condition.field == "status":
        status, is_wanted = Status(str(value)), operator == "eq"
        return lambda one: (one.status is status) is is_wanted
    texts = _TEXTS[condition.field]
    if operator == "ilike":
        pattern = ".*".join(map(re.escape, str(value).split("%")))
        matches = re.compile(pattern, re.IGNORECASE | re.DOTALL).fullmatch
        return lambda one: any(map(matches, texts(one)))
    wanted = frozenset(value if isinstance(value, tuple) else (value,))
    if operator in {"eq", "in"}:
        return lambda one: not wanted.isdisjoint(texts(one))
    return lambda one: wanted.isdisjoint(texts(one))


def matches_stop_filter(deployment: LocalDeployment, condition: StopFilter) -> bool:
    """Returns whether a deployment passes a filter of a bulk stop."""
    has = {deployment.request_id} if condition.field == "request_id" else set(deployment.tags)
    wanted = set(condition.values)
    return {
        "any": bool(has & wanted),
        "all": wanted <= has,
        "not": not has & wanted,
    }[condition.filter_type]
