"""Commands about deployments that exist: ls, status, wait, stop."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Literal

import click

from edgegap_async.cli.command import command, confirm, with_client, yes_option
from edgegap_async.cli.deployment_texts import (
    DEPLOYMENT_COLUMNS,
    deployment_rows,
    print_deployment,
    row_addresses,
    row_status,
)
from edgegap_async.cli.output import Output, Progress, plural, to_json, visible, while_read
from edgegap_async.cli.parameters import DURATION, playable_option, timeout_option

if TYPE_CHECKING:
    from edgegap_async import EdgegapClient
    from edgegap_async.models import DeploymentRow
    from edgegap_async.requests import Check

_NOTHING: Final = "There is no such deployment."


# ── ls ───────────────────────────────────────────────────────────────────────────────────────────


@command(
    "edgegap-async ls",
    "edgegap-async ls -t ranked --status ready",
    "edgegap-async ls --watch",
    "edgegap-async ls --json | jq -r .request_id",
)
@click.option("--tag", "-t", "tags", multiple=True, help="Only with one of these tags.")
@click.option("--status", help="Only in this status, such as ready.")
@click.option("--app", "applications", multiple=True, help="Only of these applications.")
@click.option(
    "--watch", "-w", "watches", is_flag=True, help="Go on, and print each change, until Ctrl-C."
)
@click.option(
    "--interval",
    type=DURATION,
    default="1s",
    show_default=True,
    help="With --watch: how long between two lists.",
)
@with_client
async def ls(
    client: EdgegapClient,
    output: Output,
    *,
    tags: Sequence[str],
    status: str | None,
    applications: Sequence[str],
    watches: bool,
    interval: float,
) -> None:
    """List the deployments that have not ended.

    With --watch each line is a deployment that is new, has another status, or has ended.
    """
    known: dict[str, DeploymentRow] = {}
    while True:
        rows = [row async for row in deployment_rows(client, tags, status, applications)]
        if not watches:
            output.table(rows, DEPLOYMENT_COLUMNS, nothing=_NOTHING)
            return
        listed = {row.request_id: row for row in rows}
        for row in rows:
            earlier = known.get(row.request_id)
            if earlier is None or row_status(earlier) != row_status(row):
                _print_change(output, row, row_status(row))
        for request_id in known.keys() - listed.keys():
            # A list has what has not ended. With --status it also leaves out what has changed.
            is_over = status is None
            _print_change(output, known[request_id], "TERMINATED" if is_over else "CHANGED")
        known = listed
        async with while_read():
            await asyncio.sleep(interval)


def _print_change(output: Output, row: DeploymentRow, status: str) -> None:
    now = datetime.now(UTC)
    if output.json:
        fields = to_json(row)
        assert isinstance(fields, dict)  # noqa: S101 - of a model
        output.json_line({**fields, "status": status, "at": now})
    elif output.quiet:
        output.line(visible(row.request_id))
    else:
        texts = (f"{now.astimezone():%H:%M:%S}", row.request_id, f"{status:<12}")
        output.line(visible("  ".join((*texts, row_addresses(row), " ".join(row.tags))).rstrip()))


# ── status, wait ─────────────────────────────────────────────────────────────────────────────────


@command(
    "edgegap-async status 4ff2a1b2c3d4",
    "edgegap-async status 4ff2a1b2c3d4 --json | jq -r .ports.game.link",
)
@click.argument("request_id", metavar="ID")
@with_client
async def status(client: EdgegapClient, output: Output, *, request_id: str) -> None:
    """Show a deployment: status, addresses, location, tags."""
    server = client.handle(request_id)
    await server.refresh()
    print_deployment(output, server)


@command(
    "edgegap-async wait 4ff2a1b2c3d4",
    "edgegap-async wait 4ff2a1b2c3d4 --for terminated --timeout 2h",
)
@click.argument("request_id", metavar="ID")
@click.option(
    "--for",
    "wanted",
    type=click.Choice(["ready", "terminated"]),
    default="ready",
    show_default=True,
    help="The status.",
)
@timeout_option(300, "for it")
@playable_option
@with_client
async def wait(
    client: EdgegapClient,
    output: Output,
    *,
    request_id: str,
    wanted: Literal["ready", "terminated"],
    timeout: float,
    playable: Check | None,
) -> None:
    """Wait until a deployment is READY, or until it has ended."""
    if playable is not None and wanted == "terminated":
        raise click.UsageError("--playable goes with --for ready")
    server = client.handle(request_id)
    with Progress(output, request_id) as progress:
        async with progress.of(server):
            if wanted == "ready":
                await server.wait_ready(timeout, playable=playable)
            else:
                await server.wait_terminated(timeout)
        progress.done(wanted.upper())
    print_deployment(output, server)


# ── stop ─────────────────────────────────────────────────────────────────────────────────────────


@command(
    "edgegap-async stop 4ff2a1b2c3d4",
    "edgegap-async stop --tag ranked --dry-run",
    "edgegap-async stop --all --yes --wait",
)
@click.argument("request_ids", metavar="[ID]...", nargs=-1)
@click.option("--tag", "-t", "tags", multiple=True, help="Every deployment with one of these tags.")
@click.option("--all", "everything", is_flag=True, help="Every deployment of the organization.")
@yes_option
@click.option("--wait", "waits", is_flag=True, help="Wait until each is TERMINATED.")
@timeout_option(60, "until each is TERMINATED, with --wait")
@click.option("--dry-run", "only_shows", is_flag=True, help="Print what would be stopped.")
@with_client
async def stop(
    client: EdgegapClient,
    output: Output,
    *,
    request_ids: Sequence[str],
    tags: Sequence[str],
    everything: bool,
    is_sure: bool,
    waits: bool,
    timeout: float,
    only_shows: bool,
) -> None:
    """Stop deployments, by id, by tag, or all of them.

    Prints the id of each deployment whose stop the API has accepted. --tag and --all ask first.
    """
    if sum(map(bool, (request_ids, tags, everything))) != 1:
        raise click.UsageError("Give one of: ids, --tag, --all.")
    chosen = list(dict.fromkeys(request_ids))
    if not chosen:
        rows = [row async for row in deployment_rows(client, tags)]
        if only_shows or not rows:
            output.table(rows, DEPLOYMENT_COLUMNS, nothing=_NOTHING)
            return
        await confirm(f"Stop {plural(len(rows), 'deployment')}?", is_sure=is_sure)
        chosen = [row.request_id for row in rows]
    elif only_shows:
        for request_id in chosen:
            output.print_id(request_id)
        return

    async def stop_one(request_id: str) -> None:
        stop = client.handle(request_id).stop
        # An unknown id that the caller has given is an error; one of the list may have ended.
        await stop(wait=waits, timeout=timeout, missing_ok=not request_ids)
        output.print_id(request_id)

    outcomes = await asyncio.gather(*map(stop_one, chosen), return_exceptions=True)
    failures = [one for one in outcomes if isinstance(one, Exception)]
    if len(failures) == 1:
        raise failures[0]
    if failures:
        raise ExceptionGroup("some deployments could not be stopped", failures)
