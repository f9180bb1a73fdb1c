"""The command `check`: whether token, network and limits are right."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Literal

import attrs

import edgegap_async as sdk
from edgegap_async.cli.command import command, with_client
from edgegap_async.cli.exits import status_of
from edgegap_async.cli.output import Column, Output, plural, seconds

if TYPE_CHECKING:
    from edgegap_async import EdgegapClient


@attrs.frozen(kw_only=True)
class _Result:
    """What one check has found."""

    check: str
    result: Literal["ok", "failed", "unknown"]
    detail: str


_COLUMNS: Final[Sequence[Column[_Result]]] = (
    Column("CHECK", lambda one: one.check, is_whole=True),
    Column("RESULT", lambda one: one.result, is_whole=True),
    Column("DETAIL", lambda one: one.detail),
)


@command(
    "edgegap-async check", "edgegap-async check --json | jq -r 'select(.result != \"ok\").check'"
)
@with_client
async def check(client: EdgegapClient, output: Output) -> int:
    """Check that the token is valid, that the API answers, and which limits hold.

    Makes one request, which changes nothing. The exit status is that of the first failed check.
    """
    results, status = [], 0
    began = time.monotonic()
    try:
        page = await client.deployments.list_page(limit=1)
    except sdk.CallError as problem:
        status = status_of(problem)
        is_answer = isinstance(problem, sdk.Refused)
        is_refusal = isinstance(problem, sdk.Unauthorized | sdk.Forbidden)
        reached = f"the API answered {problem.status}" if is_answer else str(problem)
        accepted = str(problem) if is_refusal else "not known without an answer of the API"
        results = [
            _Result(check="reachability", result="ok" if is_answer else "failed", detail=reached),
            _Result(check="token", result="failed" if is_refusal else "unknown", detail=accepted),
        ]
    else:
        took = seconds(time.monotonic() - began)
        results = [
            _Result(check="reachability", result="ok", detail=f"the API answered after {took}"),
            _Result(
                check="token",
                result="ok",
                detail=f"it may list deployments; {plural(page.total_count or 0, 'deployment')}",
            ),
        ]
    limits = client.limits.snapshot().items()
    texts = (f"{name} {state.rate:g}" for name, state in limits)
    results.append(
        _Result(check="limits", result="ok", detail=f"calls a second: {', '.join(texts)}")
    )
    output.table(results, _COLUMNS, nothing="")
    return status
