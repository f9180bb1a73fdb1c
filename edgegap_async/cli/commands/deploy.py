"""The command `deploy`."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Final

import click

import edgegap_async as sdk
from edgegap_async.cli.command import command, with_client
from edgegap_async.cli.deployment_texts import print_deployment
from edgegap_async.cli.exits import FAILED, Failure
from edgegap_async.cli.output import Output, Progress
from edgegap_async.cli.parameters import (
    hidden_variables_option,
    owner_option,
    playable_option,
    tags_option,
    timeout_option,
    users_option,
    variables_option,
)

if TYPE_CHECKING:
    from edgegap_async import DeploymentHandle, EdgegapClient
    from edgegap_async.requests import Check

_LOG_TIMEOUT: Final = 10.0  # seconds that the logs of a failed deployment may take


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
@click.option(
    "--idempotency-key",
    metavar="KEY",
    help="The id of a job: while a server of this application and key lives, the command takes it"
    " and deploys none.",
)
@with_client
async def deploy(
    client: EdgegapClient,
    output: Output,
    *,
    application: str,
    version: str,
    waits: bool,
    timeout: float,
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
            idempotency_key=options["idempotency_key"],
        )
        try:
            server = await _accepted(deploying, output, progress, timeout)
        except sdk.errors.Unprocessable as problem:
            if removes and problem.request_id:  # it was created, and is in ERROR
                await _stop(client.handle(problem.request_id), output)
            raise
        progress.subject = server.request_id
        progress.step("accepted")
        try:
            if waits:
                left = max(0.0, timeout - (time.monotonic() - began))
                try:
                    await _wait_ready(client, progress, server, left, playable)
                except sdk.errors.WaitTimedOut as problem:
                    _, _, seen = problem.message.partition("; ")  # after the rest of the limit
                    text = f"not READY within --timeout {timeout:g} s; {seen}"
                    raise sdk.errors.WaitTimedOut.of(server, text) from None
            print_deployment(output, server)
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
                await _stop(server, output)


async def _accepted(
    deploying: Coroutine[Any, Any, DeploymentHandle],
    output: Output,
    progress: Progress,
    timeout: float,
) -> DeploymentHandle:
    limit = asyncio.timeout(timeout)
    try:
        async with limit:
            return await deploying
    except TimeoutError:
        if not limit.expired():
            raise
        text = f"the API did not accept the deploy in {timeout:g} s; what it may have made is"
        raise sdk.errors.WaitTimedOut(f"{text} being stopped") from None
    except asyncio.CancelledError:
        progress.hide()
        output.warn("Interrupted before the API had answered: what it may have made is stopped.")
        raise


async def _wait_ready(
    client: EdgegapClient,
    progress: Progress,
    server: DeploymentHandle,
    timeout: float,
    playable: Check | None,
) -> None:
    try:
        async with progress.of(server):
            await server.wait_ready(timeout, playable=playable)
    except sdk.errors.DeploymentFailed as problem:
        with contextlib.suppress(sdk.EdgegapError, TimeoutError):
            async with asyncio.timeout(_LOG_TIMEOUT):
                problem.logs = await client.deployments.logs(server.request_id)
        raise
    except sdk.errors.InvalidRequest as problem:  # the check names no port of the server
        raise Failure(FAILED, str(problem)) from None  # status 2 would say that nothing was sent
    progress.done("READY")


async def _stay(output: Output, progress: Progress, server: DeploymentHandle) -> None:
    """Returns when the server has ended."""
    output.say("Ctrl-C stops it.")
    async for change in server.changes():
        if change.status is sdk.Status.ERROR:
            detail = server.deployment.error_detail if server.deployment else None
            raise sdk.errors.DeploymentFailed.of(server, detail or "it was READY, and has failed")
    progress.done("TERMINATED")


async def _stop(server: DeploymentHandle, output: Output) -> None:
    try:
        await server.stop()
    except sdk.EdgegapError:
        request_id = server.request_id
        output.warn(f"Deployment {request_id} may go on running: edgegap-async stop {request_id}")
        raise


def _state(server: DeploymentHandle) -> str:
    status = str(server.status) if server.status else "accepted"
    return f"Deployment {server.request_id} is {status}."
