"""A function that takes the place of `ApiClient.call` and records what a method passes to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, cast

import attrs

from edgegap_async.api.operations import Operation
from edgegap_async.http.call import DEFAULT_OPTIONS, CallOptions

Result = TypeVar("Result")


@attrs.define
class Recorder:
    """A `Call` that records its arguments, and returns or raises what a list says."""

    answers: list[Any] = attrs.field(factory=list)
    calls: list[dict[str, Any]] = attrs.field(factory=list)

    async def __call__(
        self,
        operation: Operation[Result],
        *,
        path: Mapping[str, str] | None = None,
        query: Mapping[str, object] | None = None,
        body: object = None,
        options: CallOptions = DEFAULT_OPTIONS,
    ) -> Result:
        said: dict[str, object] = {"path": path, "query": query, "body": body}
        if options != DEFAULT_OPTIONS:
            said["options"] = options
        self.calls.append({"operation": operation} | {k: v for k, v in said.items() if v})
        answer: Any = self.answers.pop(0) if self.answers else None
        if isinstance(answer, Exception):
            raise answer
        return cast("Result", answer)
