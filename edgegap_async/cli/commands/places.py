"""Commands about the places where servers run: locations, beacons."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from edgegap_async.cli.command import command, with_client
from edgegap_async.cli.output import Column, Output

if TYPE_CHECKING:
    from edgegap_async import EdgegapClient, Location


def _degrees(location: Location) -> str:
    if location.latitude is None or location.longitude is None:
        return ""
    return f"{location.latitude:.2f},{location.longitude:.2f}"


_COLUMNS: Final = (
    Column["Location"]("CITY", lambda one: one.city),
    Column["Location"]("COUNTRY", lambda one: one.country),
    Column["Location"]("CONTINENT", lambda one: one.continent),
    Column["Location"]("LAT,LON", _degrees),
    Column["Location"]("TYPE", lambda one: one.type),
)


@command(
    "edgegap-async locations",
    "edgegap-async locations --app arena --version v1",
    "edgegap-async locations --json | jq -r .city",
)
@click.option("--app", "application", help="Only with room for this application.")
@click.option("--version", help="The version of the application.")
@click.option("--type", help="Only of this type, such as standard.")
@with_client
async def locations(
    client: EdgegapClient,
    output: Output,
    *,
    application: str | None,
    version: str | None,
    type: str | None,
) -> None:
    """List the places where servers can run now."""
    listing = client.locations.list(application=application, version=version, type=type)
    rows = [location async for location in listing]
    output.table(rows, _COLUMNS, nothing="There is no such location.")
