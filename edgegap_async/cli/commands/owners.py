"""Commands about what an earlier run of a program left behind: recover, reap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import click

from edgegap_async.cli.command import command, confirm, with_client, yes_option
from edgegap_async.cli.deployment_texts import row_addresses, row_status
from edgegap_async.cli.output import Column, Output, plural, seconds
from edgegap_async.cli.parameters import DURATION, owner_option

if TYPE_CHECKING:
    from edgegap_async import EdgegapClient
    from edgegap_async.models import RecoveredDeployment

_NOTHING: Final = "Nothing is left behind."


def _age(found: RecoveredDeployment) -> str:
    return "" if found.age is None else seconds(found.age)


_COLUMNS: Final[Sequence[Column[RecoveredDeployment]]] = (
    Column("DEPLOYMENT", lambda one: one.row.request_id, is_whole=True),
    Column("STATUS", lambda one: row_status(one.row), is_whole=True),
    Column("AGE", _age),
    Column("ADDRESS", lambda one: row_addresses(one.row)),
    Column("TAGS", lambda one: " ".join(one.row.tags)),
)


def _print(output: Output, found: list[RecoveredDeployment]) -> None:
    if output.json:
        for one in found:
            output.json_line({"request_id": one.row.request_id, "age": one.age, "row": one.row})
    else:
        output.table(found, _COLUMNS, nothing=_NOTHING)


@command(
    "edgegap-async recover --owner matchmaker-1",
    "edgegap-async recover --tag op-tp67lotzergb77dbu",
)
@owner_option
@click.option("--tag", "-t", help="The operation tag that a command with status 6 has printed.")
@with_client
async def recover(
    client: EdgegapClient, output: Output, *, owner: str | None, tag: str | None
) -> None:
    """List the deployments that a program left behind.

    They are found by the name of their owner, or by an operation tag.
    """
    if (owner is None) is (tag is None):
        raise click.UsageError("Give one of: --owner, --tag.")
    _print(output, [one async for one in client.recover(tag)])


@command(
    "edgegap-async reap --owner ci-42 --dry-run",
    "edgegap-async reap --owner ci-42 --older-than 30min --yes",
)
@click.option("--owner", required=True, metavar="NAME", help="The name of the program.")
@click.option(
    "--older-than",
    type=DURATION,
    default="0s",
    help="Leave what is younger, and with this option also what is of unknown age.",
)
@yes_option
@click.option("--dry-run", "only_shows", is_flag=True, help="Print what would be stopped.")
@with_client
async def reap(
    client: EdgegapClient,
    output: Output,
    *,
    owner: str,
    older_than: float,
    is_sure: bool,
    only_shows: bool,
) -> None:
    """Stop the deployments that a program left behind.

    A program that runs under the same owner name loses its servers, too. Asks first.
    """
    old = [one async for one in client.recover() if (one.age or 0.0) >= older_than]
    if only_shows or not old:
        _print(output, old)
        return
    await confirm(f"Stop {plural(len(old), 'deployment')} of {owner}?", is_sure=is_sure)
    for request_id in await client.reap(older_than=older_than):
        output.print_id(request_id)
