"""The requests of a batch, from a collection or an iterator, as checked items."""

from __future__ import annotations

import asyncio
import collections
import itertools
import logging
from collections.abc import AsyncIterable, AsyncIterator, Collection, Iterable, Mapping

from edgegap_async.api.requests import DeployRequest
from edgegap_async.concurrency import loop_time
from edgegap_async.errors import InvalidRequest, log_fields

from .plan import AnyRequest, AnyRequests, BatchItem

logger = logging.getLogger(__name__)


class RequestSource:
    """Gives the requests of one batch, one after the other.

    A collection is checked at once, and its invalid requests come first: a batch that stops at a
    failure then sends nothing. An iterator is asked for a request when one more job may run.

    Raises:
        InvalidRequest: the requests are no collection and no iterable.
    """

    def __init__(self, requests: AnyRequests) -> None:
        if isinstance(requests, str | bytes | Mapping | DeployRequest) or not isinstance(
            requests, Iterable | AsyncIterable
        ):
            raise InvalidRequest(f"requests must be a list of DeployRequest, not {requests!r}")
        self.total: int | None = None
        """The number of requests; None while an iterator has not ended."""
        self._items = collections.deque[BatchItem]()  # of a collection
        self._iterator: AsyncIterator[AnyRequest] | None = None
        self._taken = 0  # from the iterator
        if isinstance(requests, AsyncIterable):
            self._iterator = aiter(requests)
        elif not isinstance(requests, Collection):
            self._iterator = _as_async(requests)
        else:
            items = list(itertools.starmap(BatchItem.of, enumerate(requests)))
            self._items.extend(sorted(items, key=lambda item: item.error is None))
            self.total = len(items)

    @property
    def remaining(self) -> int | None:
        """The number of requests that were not taken; None while an iterator has not ended."""
        return None if self.total is None else len(self._items)

    async def next(self, deadline: float | None) -> BatchItem | None:
        """Returns the next request.

        Args:
            deadline: loop time after which an iterator is not waited for, None for no limit.

        Returns:
            None if there are no more requests, or an iterator gave none by the deadline.
        """
        if self._iterator is None:
            return self._items.popleft() if self._items else None
        if deadline is None or loop_time() < deadline:
            limit = asyncio.timeout_at(deadline)
            try:
                async with limit:
                    request = await anext(self._iterator)
            except StopAsyncIteration:
                pass
            except Exception as error:
                if not limit.expired():
                    raise
                if not isinstance(error, TimeoutError):
                    logger.error(  # noqa: TRY400 - the traceback shows how the iterator was ended
                        "the iterator of a batch has raised %r at the end of the batch's timeout",
                        error,
                        extra=log_fields(error),
                    )
            else:
                self._taken += 1
                return BatchItem.of(self._taken - 1, request)
        self.total = self._taken
        return None

    def drain(self) -> list[BatchItem]:
        """Returns the requests of a collection that were not taken, and gives no more of them."""
        items = list(self._items)
        self._items.clear()
        return items


async def _as_async(requests: Iterable[AnyRequest]) -> AsyncIterator[AnyRequest]:
    for request in requests:
        yield request
