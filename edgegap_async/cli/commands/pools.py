"""The command `pool run`: servers kept READY in advance."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import click

import edgegap_async as sdk
from edgegap_async.cli.command import Group, with_client
from edgegap_async.cli.exits import text_of
from edgegap_async.cli.output import Output
from edgegap_async.cli.parameters import (
    DURATION,
    hidden_variables_option,
    owner_option,
    playable_option,
    tags_option,
    users_option,
    variables_option,
)

if TYPE_CHECKING:
    from edgegap_async import EdgegapClient, ServerPool
    from edgegap_async.models import PoolStats

_INTERVAL: Final = 0.1  # seconds between two readings of the pool's own counts

pool = Group("pool", help="Keep servers READY in advance.")


@pool.command(
    "run",
    examples=[
        "edgegap-async pool run arena v1 -u 75.28.35.192 --min-ready 3",
        "edgegap-async pool run arena v1 -u 75.28.35.192 --min-ready 3 --owner warm-1 --json",
    ],
)
@click.argument("application", metavar="APP")
@click.argument("version", metavar="VERSION")
@users_option
@click.option(
    "--min-ready", type=click.IntRange(0), default=1, show_default=True, help="How many are READY."
)
@click.option(
    "--max-total", type=click.IntRange(1), default=10, show_default=True, help="The most at once."
)
@click.option(
    "--max-idle",
    type=DURATION,
    default="30min",
    show_default=True,
    help="After how long a server is replaced.",
)
@click.option(
    "--name", default="default", show_default=True, help="The pool's name, in its servers' tags."
)
@tags_option
@variables_option
@hidden_variables_option
@playable_option
@owner_option
@with_client
async def run(
    client: EdgegapClient,
    output: Output,
    *,
    application: str,
    version: str,
    owner: str | None,
    variables: Sequence[Any],
    hidden_variables: Sequence[Any],
    **settings: Any,
) -> None:
    """Keep servers READY until Ctrl-C, and then stop them.

    Prints the state of the pool at each change. Servers that fail are replaced; while deploys fail,
    the pool makes one at a time. With --owner the next run adopts what a killed run left behind.
    """
    del owner  # the client has it
    servers = sdk.ServerPool(
        client,
        application,
        version,
        environment_variables=(*variables, *hidden_variables),
        **settings,
    )
    shown: PoolStats | None = None
    try:
        async with servers:
            output.say("Ctrl-C stops the servers.")
            while True:
                stats = servers.stats
                if stats != shown:
                    _print(output, stats)
                    if stats.failing and (shown is None or stats.failed > shown.failed):
                        await _explain(output, servers)
                shown = stats
                await asyncio.sleep(_INTERVAL)
    except asyncio.CancelledError:
        output.say("The servers are being stopped.")
        raise


def _print(output: Output, stats: PoolStats) -> None:
    if output.json:
        output.json_line(stats)
    elif not output.quiet:
        counts = ("ready", "starting", "allocated", "failed", "lost", "retired")
        output.line("  ".join(f"{name} {getattr(stats, name)}" for name in counts))


async def _explain(output: Output, servers: ServerPool) -> None:
    """Says why the newest deploy has failed."""
    try:
        await servers.filled(timeout=0)
    except sdk.errors.PoolEmpty as problem:
        cause = problem.__cause__
        if isinstance(cause, sdk.EdgegapError):  # the line of counts says the rest
            output.warn(f"The last deploy has failed: {text_of(cause)}")
