"""What all groups of calls are made of: the function that makes a call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol, TypeVar

from edgegap_async.api.operations import Operation
from edgegap_async.errors import CallError
from edgegap_async.http.call import CallOptions

Result = TypeVar("Result")


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
