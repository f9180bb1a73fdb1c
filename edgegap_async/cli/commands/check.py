"""The command `check`: whether token, network and limits are right."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, Literal

import attrs
import click

import edgegap_async as sdk
from edgegap_async.cli.command import command, with_client
from edgegap_async.cli.exits import FAILED, status_of, text_of
from edgegap_async.cli.output import Column, Output, plural, seconds

if TYPE_CHECKING:
    from edgegap_async import EdgegapClient
    from edgegap_async.models import LimitState


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
    "edgegap-async check",
    "edgegap-async check --public-url https://games.example.com --webhook-port 8080",
    "edgegap-async check --json | jq -r 'select(.result == \"failed\").check'",
)
@click.option(
    "--public-url",
    metavar="URL",
    help="The URL at which Edgegap reaches this machine: check that webhooks to it come here.",
)
@click.option(
    "--webhook-port",
    type=click.IntRange(0, 65535),
    default=0,
    help="The local port to which --public-url leads.",
)
@click.option(
    "--webhook-host",
    default="127.0.0.1",
    show_default=True,
    help="The local address to which it leads; 0.0.0.0 for all.",
)
@with_client
async def check(
    client: EdgegapClient,
    output: Output,
    *,
    public_url: str | None,
    webhook_port: int,
    webhook_host: str,
) -> int:
    """Check token, network, rate limits and the way of webhooks.

    Makes one request, which changes nothing; --public-url checks webhooks. The exit status is that
    of the first failed check.
    """
    before = client.limits.snapshot()
    results, status = await _check_api(client)
    results.append(_check_limits(client, before, is_answered=results[0].result == "ok"))
    if public_url is not None:
        webhooks = await _check_webhooks(public_url, webhook_host, webhook_port)
        results.append(webhooks)
        if webhooks.result == "failed":
            status = status or FAILED
    output.table(results, _COLUMNS, nothing="")
    return status


async def _check_api(client: EdgegapClient) -> tuple[list[_Result], int]:
    """Returns what one request has shown of network and token, and the exit status."""
    began = time.monotonic()
    try:
        page = await client.deployments.list(limit=1)
    except sdk.errors.CallError as problem:
        is_answer = isinstance(problem, sdk.errors.Refused)
        is_refusal = isinstance(problem, sdk.errors.Unauthorized | sdk.errors.Forbidden)
        reached = f"the API answered {problem.status}" if is_answer else text_of(problem)
        accepted = text_of(problem) if is_refusal else "not known without an answer of the API"
        results = [
            _Result(check="reachability", result="ok" if is_answer else "failed", detail=reached),
            _Result(check="token", result="failed" if is_refusal else "unknown", detail=accepted),
        ]
        return results, status_of(problem)
    took = f"the API answered after {seconds(time.monotonic() - began)}"
    listed = plural(page.total_count or 0, "deployment")
    results = [
        _Result(check="reachability", result="ok", detail=took),
        _Result(check="token", result="ok", detail=f"it may list deployments; {listed}"),
    ]
    return results, 0


def _check_limits(
    client: EdgegapClient, before: Mapping[str, LimitState], *, is_answered: bool
) -> _Result:
    """Returns which limits the client keeps, and whether one request has shown a lower one."""
    rates = ", ".join(f"{name} {one.rate:g} of {one.limit:g}" for name, one in before.items())
    kept = f"the client sends, of the calls a second that are documented: {rates}"
    after = client.limits.snapshot()
    if any(after[name].rate < one.rate for name, one in before.items()):
        said = "the API answered 429: another program uses the account, or it allows fewer calls"
    elif is_answered:
        return _Result(check="limits", result="ok", detail=f"no answer was 429; {kept}")
    else:
        said = "not known without an answer of the API"
    return _Result(check="limits", result="unknown", detail=f"{said}; {kept}")


async def _check_webhooks(public_url: str, host: str, port: int) -> _Result:
    """Returns whether a webhook that this program sends to its public URL comes here."""
    try:
        receiver = sdk.WebhookReceiver(public_url)
        async with receiver.serve(host, port=port):
            await receiver.check()
    except (sdk.errors.WebhookNotReceived, OSError) as problem:  # such as a port in use
        return _Result(check="webhooks", result="failed", detail=str(problem))
    return _Result(check="webhooks", result="ok", detail=f"{public_url} leads here")
