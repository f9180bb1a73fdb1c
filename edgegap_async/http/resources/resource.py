"""What all groups of calls are made of: the function that makes a call, and lists in pages."""

from __future__ import annotations

from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Hashable,
    Iterable,
    Mapping,
)
from typing import Any, Final, Generic, Protocol, TypeVar

from edgegap_async.api.operations import Operation
from edgegap_async.api.validation import check_kind, check_number
from edgegap_async.errors import CallError
from edgegap_async.http.call import CallOptions

Result = TypeVar("Result")
Row = TypeVar("Row")
Page = TypeVar("Page")
_MAX_PAGES: Final = 10_000  # of one list, in case the API says for ever that more follow


class Call(Protocol):
    """Sends a request to the API and returns the answer, as `ApiClient.call` does."""

    def __call__(  # noqa: D102 - the class says it
        self,
        operation: Operation[Result],
        *,
        path: Mapping[str, str] | None = None,
        query: Mapping[str, object] | None = None,
        body: object = None,
        options: CallOptions = ...,
    ) -> Awaitable[Result]: ...


class Resource:
    """A group of calls about one kind of object."""

    def __init__(self, call: Call) -> None:
        self._call = call

    async def _made(
        self,
        made: Awaitable[Result],
        find: Callable[[], Awaitable[Result]],
        is_wanted: Callable[[Result], bool],
    ) -> Result:
        """Returns what a call makes under a name, also if the answer of the call is lost.

        Args:
            made: the call.
            find: reads the object by its name.
            is_wanted: whether an object is the one that the call makes, and no older one.

        Raises:
            CallError: the call failed. After a lost answer: there is no such object now.
        """
        try:
            return await made
        except CallError as error:
            if not error.maybe_created:
                raise
            lost = error
        try:
            found = await find()
        except CallError:
            raise lost from None
        if not is_wanted(found):
            raise lost
        return found


def _has_next(page: object) -> bool:
    pagination = getattr(page, "pagination", None)
    return pagination is not None and pagination.has_next


class Listing(Generic[Row, Page]):
    """A list, read page by page as a program goes through it.

    ::

        async for tag in client.tags.list(request_id):  # every row of every page
            ...
        page = await client.tags.list(request_id)  # the first page, with what it says of the list

    Nothing is sent before one of the two. Each `async for` reads the list anew, and may raise the
    errors of the method that made the list at each page. It yields a row once, even if the row
    moves to a later page during the listing. A row that moves to a page that was read before is
    missed.
    """

    def __init__(
        self,
        call: Call,
        operation: Operation[Page],
        rows: Callable[[Page], Iterable[Row]],
        key: Callable[[Row], Hashable],
        *,
        path: Mapping[str, str] | None = None,
        query: Mapping[str, object] | None = None,
        limit: int | None = None,
        has_next: Callable[[Page], bool] = _has_next,
        names_first_page: bool = True,
    ) -> None:
        _check_number("limit", limit, optional=True)
        self._call = call
        self._operation = operation
        self._rows = rows
        self._key = key  # tells two rows apart
        self._path = path
        self._query = {**(query or {}), "limit": limit}
        self._has_next = has_next
        self._names_first_page = names_first_page  # False for lists that had no pages until 2026

    def __repr__(self) -> str:
        return f"<Listing of {self._operation.name}>"

    def __await__(self) -> Generator[Any, None, Page]:
        return self.page(1).__await__()

    def __aiter__(self) -> AsyncIterator[Row]:
        return self._all()

    async def page(self, number: int) -> Page:
        """Returns one page, with what it says of the whole list, such as the total count.

        Args:
            number: number of the page, from 1.
        """
        _check_number("page", number, optional=False)
        page = number if number > 1 or self._names_first_page else None
        query = {**self._query, "page": page}
        query = {name: value for name, value in query.items() if value is not None}
        return await self._call(self._operation, path=self._path, query=query)

    async def pages(self) -> AsyncIterator[Page]:
        """Yields every page. One without new rows is the last, even if it says that more follow."""
        async for page, _ in self._turn():
            yield page

    async def _all(self) -> AsyncIterator[Row]:
        async for _, rows in self._turn():
            for row in rows:
                yield row

    async def _turn(self) -> AsyncIterator[tuple[Page, list[Row]]]:
        """Yields every page with the rows that no page before had."""
        seen = set[Hashable]()
        for number in range(1, _MAX_PAGES + 1):
            page = await self.page(number)
            fresh = {self._key(row): row for row in self._rows(page)}
            fresh = {key: row for key, row in fresh.items() if key not in seen}
            seen.update(fresh)
            yield page, list(fresh.values())
            if not fresh or not self._has_next(page):
                return


def _check_number(name: str, number: int | None, *, optional: bool) -> None:
    check_kind(name, number, int)
    check_number(name, number, least=1, optional=optional)
