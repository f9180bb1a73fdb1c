"""Commands about deployments: deploy, ls, stop."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click

import edgegap_async as sdk
from edgegap_async.cli.command import command, confirm, with_client, yes_option
from edgegap_async.cli.output import Column, Output, plural, seconds
from edgegap_async.cli.parameters import (
    hidden_variables_option,
    owner_option,
    playable_option,
    tags_option,
    timeout_option,
    users_option,
    variables_option,
)
from edgegap_async.cli.progress import Progress

if TYPE_CHECKING:
    from edgegap_async import Check, DeploymentHandle, EdgegapClient

_LOG_TIMEOUT: Final = 10.0  # seconds that the logs of a failed deployment may take
_PAGE: Final = 100  # rows of one page of the list


# ── deploy ───────────────────────────────────────────────────────────────────────────────────────


@command(
    "edgegap-async deploy arena v1 -u 75.28.35.192",
    "edgegap-async deploy arena v1 -u 45.5,-73.6 -t ranked -e MODE=duel --playable udp:game",
    "edgegap-async deploy arena v1 -u 75.28.35.192 --rm",
    "id=$(edgegap-async deploy arena v1 -u 75.28.35.192 --quiet)",
)
@click.argument("application", metavar="APP")
@click.argument("version", metavar="VERSION")
@users_option
@tags_option
@variables_option
@hidden_variables_option
@click.option("--wait/--no-wait", "waits", default=True, help="Wait until it is READY (default).")
@timeout_option(300, "until it is READY")
@click.option(
    "--rm",
    "removes",
    is_flag=True,
    help="Stay until Ctrl-C, or until the server has ended, and then stop it.",
)
@playable_option
@owner_option
@with_client
async def deploy(
    client: EdgegapClient,
    output: Output,
    *,
    application: str,
    version: str,
    waits: bool,
    timeout: float,  # noqa: ASYNC109 - WaitTimedOut says more
    removes: bool,
    playable: Check | None,
    **options: Any,
) -> None:
    """Deploy a game server, and wait until players can connect.

    Prints its id and the addresses of its ports. A lost answer makes no second server: if the
    command cannot find out whether one exists, it ends with status 6 and prints the operation tag,
    with which `recover --tag` finds the server later.

    Ctrl-C before READY leaves the server running, and says so; with --rm the server is stopped.
    """
    if removes and not waits:
        raise click.UsageError("--rm stops the server at the end, so it has to --wait")
    began = time.monotonic()
    with Progress(output, f"{application} {version}") as progress:
        deploying = client.deploy(
            application,
            version,
            users=options["users"],
            tags=options["tags"],
            environment_variables=(*options["variables"], *options["hidden_variables"]),
        )
        server = await _accepted(deploying, output, progress, timeout)
        progress.subject = server.request_id
        progress.step("accepted")
        try:
            if waits:
                left = max(0.0, timeout - (time.monotonic() - began))
                await _wait_ready(client, progress, server, left, playable)
            _print(output, server)
            if removes:
                await _stay(output, progress, server)
        except BaseException as problem:
            progress.hide()
            if not removes:
                output.warn(f"{_state(server)} It goes on: edgegap-async stop {server.request_id}")
            elif isinstance(problem, asyncio.CancelledError):
                output.say(f"{_state(server)} It is being stopped.")
            raise
        finally:
            if removes:
                await server.stop()


async def _accepted(
    deploying: Coroutine[Any, Any, DeploymentHandle],
    output: Output,
    progress: Progress,
    timeout: float,  # noqa: ASYNC109 - WaitTimedOut says more
) -> DeploymentHandle:
    limit = asyncio.timeout(timeout)
    try:
        async with limit:
            return await deploying
    except TimeoutError:
        if not limit.expired():
            raise
        text = f"no answer to the deploy in {timeout:g} s; it is undone"
        raise sdk.WaitTimedOut(text) from None
    except asyncio.CancelledError:
        progress.hide()
        output.warn("Interrupted before the API had answered: what it may have made is stopped.")
        raise


async def _wait_ready(
    client: EdgegapClient,
    progress: Progress,
    server: DeploymentHandle,
    timeout: float,  # noqa: ASYNC109 - WaitTimedOut says more
    playable: Check | None,
) -> None:
    try:
        async with progress.of(server):
            await server.wait_ready(timeout, playable=playable)
    except sdk.DeploymentFailed as problem:
        with contextlib.suppress(sdk.EdgegapError, TimeoutError):
            async with asyncio.timeout(_LOG_TIMEOUT):
                problem.logs = await client.deployments.logs(server.request_id)
        raise
    progress.done("READY")


async def _stay(output: Output, progress: Progress, server: DeploymentHandle) -> None:
    """Returns when the server has ended."""
    output.say("Ctrl-C stops it.")
    async for change in server.changes():
        if change.status is sdk.Status.ERROR:
            detail = server.deployment.error_detail if server.deployment else None
            raise sdk.DeploymentFailed.of(server, detail or "it was READY, and has failed")
    progress.done("TERMINATED")


def _state(server: DeploymentHandle) -> str:
    status = server.status.short if server.status else "accepted"
    return f"Deployment {server.request_id} is {status}."


def _print(output: Output, server: DeploymentHandle) -> None:
    deployment = server.deployment
    if deployment is None:
        output.one({"request_id": server.request_id}, {"deployment": server.request_id})
        return
    location = deployment.location
    where = [location.city, location.country] if location else []
    output.one(
        deployment,
        {
            "deployment": server.request_id,
            "status": deployment.current_status.short,
            "version": " ".join(filter(None, (deployment.app_name, deployment.app_version))),
            "address": _addresses(server),
            "location": ", ".join(filter(None, where)),
            "tags": ", ".join(deployment.tags),
            "error": deployment.error_detail,
        },
    )


def _addresses(server: DeploymentHandle) -> list[str]:
    lines = []
    for name in server.deployment.ports if server.deployment else ():
        with contextlib.suppress(sdk.InvalidRequest):  # not READY, or no address
            endpoint = server.endpoint(name)
            lines.append(f"{endpoint}  {endpoint.protocol}  {name}")
    return lines


# ── ls ───────────────────────────────────────────────────────────────────────────────────────────


def _row_status(row: sdk.DeploymentRow) -> str:
    if row.status is not None:
        return row.status.short
    return "READY" if row.is_ready else ""


def _row_age(row: sdk.DeploymentRow) -> str:
    if row.start_time is None:
        return ""
    start = row.start_time if row.start_time.tzinfo else row.start_time.replace(tzinfo=UTC)
    return seconds(max(0, (datetime.now(UTC) - start).total_seconds()))


def _row_addresses(row: sdk.DeploymentRow) -> str:
    host = row.public_ip or row.fqdn
    ports = (port.link or f"{host}:{port.external}" for port in row.ports.values() if port.external)
    return " ".join(ports)


_COLUMNS: Final = (
    Column["sdk.DeploymentRow"]("DEPLOYMENT", lambda row: row.request_id, is_whole=True),
    Column["sdk.DeploymentRow"]("STATUS", _row_status, is_whole=True),
    Column["sdk.DeploymentRow"]("READY FOR", _row_age),
    Column["sdk.DeploymentRow"]("ADDRESS", _row_addresses),
    Column["sdk.DeploymentRow"]("TAGS", lambda row: " ".join(row.tags)),
)


@command(
    "edgegap-async ls",
    "edgegap-async ls -t ranked --status ready",
    "edgegap-async ls --json | jq -r .request_id",
)
@click.option("--tag", "-t", "tags", multiple=True, help="Only with one of these tags.")
@click.option("--status", help="Only in this status, such as ready.")
@click.option("--app", "applications", multiple=True, help="Only of these applications.")
@with_client
async def ls(
    client: EdgegapClient,
    output: Output,
    *,
    tags: Sequence[str],
    status: str | None,
    applications: Sequence[str],
) -> None:
    """List the deployments that have not ended."""
    rows = [row async for row in _rows(client, tags, status, applications)]
    output.table(rows, _COLUMNS, nothing="There is no such deployment.")


async def _rows(
    client: EdgegapClient,
    tags: Sequence[str] = (),
    status: str | None = None,
    applications: Sequence[str] = (),
) -> AsyncIterator[sdk.DeploymentRow]:
    filters = []
    if tags:
        filters.append(sdk.Filter("tags", "in", tags))
    if status is not None:
        wanted = sdk.Status(status)
        if not wanted.is_known:
            names = ", ".join(one.short.lower() for one in sdk.Status)
            raise click.UsageError(f"no status {status!r}; there is {names}")
        filters.append(sdk.Filter("status", "eq", wanted))
    if applications:
        filters.append(sdk.Filter("application", "in", applications))
    async for row in client.deployments.list(filters=filters, limit=_PAGE):
        if not tags or set(tags) & set(row.tags):  # the API may ignore the filter
            yield row


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
    timeout: float,  # noqa: ASYNC109 - WaitTimedOut says more
    only_shows: bool,
) -> None:
    """Stop deployments, by id, by tag, or all of them.

    Prints the id of each deployment whose stop the API has accepted. --tag and --all ask first.
    """
    if sum(map(bool, (request_ids, tags, everything))) != 1:
        raise click.UsageError("Give ids, or --tag, or --all.")
    chosen = list(dict.fromkeys(request_ids))
    if not chosen:
        rows = [row async for row in _rows(client, tags)]
        if only_shows or not rows:
            output.table(rows, _COLUMNS, nothing="There is no such deployment.")
            return
        confirm(f"Stop {plural(len(rows), 'deployment')}?", is_sure=is_sure)
        chosen = [row.request_id for row in rows]
    elif only_shows:
        for request_id in chosen:
            _print_id(output, request_id)
        return

    async def stop_one(request_id: str) -> None:
        server = client.handle(request_id)
        if request_ids:
            with contextlib.suppress(sdk.Gone):
                await server.refresh()  # an unknown id is an error here, and none for a stop
        await server.stop(wait=waits, timeout=timeout)
        _print_id(output, request_id)

    outcomes = await asyncio.gather(*map(stop_one, chosen), return_exceptions=True)
    failures = [one for one in outcomes if isinstance(one, Exception)]
    if len(failures) == 1:
        raise failures[0]
    if failures:
        raise ExceptionGroup("some deployments could not be stopped", failures)


def _print_id(output: Output, request_id: str) -> None:
    if output.json:
        output.json_line({"request_id": request_id})
    else:
        output.line(request_id)
