"""What all groups of calls are made of: the function that makes a call."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Protocol, TypeVar

from edgegap_async.api.operations import Operation
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
