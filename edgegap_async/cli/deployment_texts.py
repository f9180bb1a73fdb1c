"""Deployments as text: a block for one, a row of a table for each of many."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import click

import edgegap_async as sdk

from .output import Column, Output, seconds

if TYPE_CHECKING:
    from edgegap_async import DeploymentHandle, EdgegapClient
    from edgegap_async.models import DeploymentRow

_PAGE: Final = 100  # rows of one page of the list


def print_deployment(output: Output, server: DeploymentHandle) -> None:
    """Prints what is known of a deployment; makes no call."""
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
            "status": str(deployment.current_status),
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
        with contextlib.suppress(sdk.errors.InvalidRequest):  # not READY, or no address
            endpoint = server.endpoint(name)
            lines.append(f"{endpoint}  {endpoint.protocol}  {name}")
    return lines


def row_status(row: DeploymentRow) -> str:
    """Returns the status of a row; empty if the row has none."""
    if row.status is not None:
        return str(row.status)
    return "READY" if row.is_ready else ""


def row_age(row: DeploymentRow) -> str:
    """Returns for how long a deployment has been READY; empty before."""
    if row.start_time is None:
        return ""
    return seconds(max(0, (datetime.now(UTC) - row.start_time).total_seconds()))


def row_addresses(row: DeploymentRow) -> str:
    """Returns the addresses of the ports that have one."""
    host = row.public_ip or row.fqdn
    ports = (port.link or f"{host}:{port.external}" for port in row.ports.values() if port.external)
    return " ".join(ports)


DEPLOYMENT_COLUMNS: Final[Sequence[Column[DeploymentRow]]] = (
    Column("DEPLOYMENT", lambda row: row.request_id, is_whole=True),
    Column("STATUS", row_status, is_whole=True),
    Column("READY FOR", row_age, is_whole=True),
    Column("ADDRESS", row_addresses, is_whole=True),
    Column("TAGS", lambda row: " ".join(row.tags)),
)


async def deployment_rows(
    client: EdgegapClient,
    tags: Sequence[str] = (),
    status: str | None = None,
    applications: Sequence[str] = (),
) -> AsyncIterator[DeploymentRow]:
    """Yields the deployments of a list.

    Args:
        client: makes the list requests.
        tags: the deployment has one of them; none for all deployments.
        status: the status that it has; None for all.
        applications: it is of one of them; none for all.

    Raises:
        UsageError: there is no such status.
    """
    filters = []
    if tags:
        filters.append(sdk.requests.Filter("tags", "in", tags))
    if status is not None:
        wanted = sdk.Status(status)
        if not wanted.is_known:
            names = ", ".join(one.lower() for one in sdk.Status)
            raise click.UsageError(f"no status {status!r}; there is {names}")
        filters.append(sdk.requests.Filter("status", "eq", wanted))
    if applications:
        filters.append(sdk.requests.Filter("application", "in", applications))
    async for row in client.deployments.list(filters=filters, limit=_PAGE):
        if not tags or set(tags) & set(row.tags):  # the API may ignore the filter
            yield row
