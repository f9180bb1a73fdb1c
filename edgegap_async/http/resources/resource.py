"""What all groups of calls are made of: the function that makes a call, and lists in pages."""

from __future__ import annotations

import logging
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

from edgegap_async.api.models.response import more_follow
from edgegap_async.api.operations import Operation
from edgegap_async.api.validation import check_number
from edgegap_async.errors import CallError, log_fields
from edgegap_async.http.call import CallOptions

Result = TypeVar("Result")
Row = TypeVar("Row")
Page = TypeVar("Page")
_MAX_PAGES: Final = 10_000  # of one list, in case the API says for ever that more follow
_MAX_OLD_PAGES: Final = 3  # in a row without a new row, as rows move to later pages meanwhile

logger = logging.getLogger(__name__)


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
        more_follow: Callable[[Page, int], bool | None] = more_follow,
        names_first_page: bool = True,
    ) -> None:
        check_number("limit", limit, least=1, whole=True)
        self._call = call
        self._operation = operation
        self._rows = rows
        self._key = key  # tells two rows apart
        self._path = path
        self._query = {**(query or {}), "limit": limit}
        self._more_follow = more_follow
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
        check_number("page", number, least=1, whole=True, optional=False)
        page = number if number > 1 or self._names_first_page else None
        query = {**self._query, "page": page}
        query = {name: value for name, value in query.items() if value is not None}
        return await self._call(self._operation, path=self._path, query=query)

    async def pages(self) -> AsyncIterator[Page]:
        """Yields every page.

        Where a page does not clearly say whether more follow, the first page without a new row is
        the last. Where pages go on to say so and have nothing new, a warning in the log names the
        list.
        """
        async for page, _ in self._turn():
            yield page

    async def _all(self) -> AsyncIterator[Row]:
        async for _, rows in self._turn():
            for row in rows:
                yield row

    async def _turn(self) -> AsyncIterator[tuple[Page, list[Row]]]:
        """Yields every page with the rows that no page before had."""
        seen, old_pages, number = set[Hashable](), 0, 0
        for number in range(1, _MAX_PAGES + 1):
            page = await self.page(number)
            fresh = {self._key(row): row for row in self._rows(page)}
            fresh = {key: row for key, row in fresh.items() if key not in seen}
            seen.update(fresh)
            yield page, list(fresh.values())
            more = self._more_follow(page, len(seen))
            if not (fresh if more is None else more):
                return
            old_pages = 0 if fresh else old_pages + 1
            if old_pages == _MAX_OLD_PAGES:
                break
        operation = self._operation.name
        logger.warning(
            "%s: the client has stopped reading the list after page %d, though the API says that"
            " more follow: rows may be missing",
            operation,
            number,
            extra=log_fields(operation=operation),
        )
