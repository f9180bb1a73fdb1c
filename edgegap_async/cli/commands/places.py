"""Commands about the places where servers run: locations, beacons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import click

import edgegap_async as sdk
from edgegap_async.cli.command import command, with_client
from edgegap_async.cli.output import Column, Output

if TYPE_CHECKING:
    from edgegap_async import EdgegapClient
    from edgegap_async.models import BeaconReply, Location, LocationBeacon


def _degrees(location: Location) -> str:
    if location.latitude is None or location.longitude is None:
        return ""
    return f"{location.latitude:.2f},{location.longitude:.2f}"


_COLUMNS: Final[Sequence[Column[Location]]] = (
    Column("CITY", lambda one: one.city),
    Column("COUNTRY", lambda one: one.country),
    Column("CONTINENT", lambda one: one.continent),
    Column("LAT,LON", _degrees),
    Column("TYPE", lambda one: one.type),
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
    found = client.locations.list(application=application, version=version, type=type)
    output.table([one async for one in found], _COLUMNS, nothing="There is no such location.")


def _city(beacon: LocationBeacon) -> str | None:
    return beacon.location.city if beacon.location else None


def _country(beacon: LocationBeacon) -> str | None:
    return beacon.location.country if beacon.location else None


_BEACONS: Final[Sequence[Column[LocationBeacon]]] = (
    Column("HOST", lambda one: one.host or one.fqdn, is_whole=True),
    Column("UDP", lambda one: one.udp_port, is_whole=True),
    Column("TCP", lambda one: one.tcp_port, is_whole=True),
    Column("CITY", _city),
    Column("COUNTRY", _country),
)
_REPLIES: Final[Sequence[Column[BeaconReply]]] = (
    Column("HOST", lambda one: one.beacon.host or one.beacon.fqdn, is_whole=True),
    Column("ROUND TRIP", lambda one: f"{1000 * one.round_trip:.1f} ms", is_whole=True),
    Column("BY", lambda one: one.protocol, is_whole=True),
    Column("CITY", lambda one: _city(one.beacon)),
    Column("COUNTRY", lambda one: _country(one.beacon)),
)


@command("edgegap-async beacons", "edgegap-async beacons --ping --json | head -1")
@click.option("--ping", is_flag=True, help="Measure the round trip to each, nearest first.")
@with_client
async def beacons(client: EdgegapClient, output: Output, *, ping: bool) -> None:
    """List the beacons, which answer pings of players.

    With --ping those that answer from here, by UDP, or by TCP where no datagram is answered.
    """
    found = [one async for one in client.locations.beacons()]
    if ping:
        output.table(await sdk.nearest(found), _REPLIES, nothing="No beacon answers from here.")
    else:
        output.table(found, _BEACONS, nothing="There is no beacon.")
