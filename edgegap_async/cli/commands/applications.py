"""Commands about applications and their versions: apps, versions."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from edgegap_async.cli.command import Group, command, with_client
from edgegap_async.cli.output import Column, Output
from edgegap_async.cli.parameters import IMAGE, PORT, variables_option

if TYPE_CHECKING:
    from edgegap_async import EdgegapClient
    from edgegap_async.cli.parameters import ImageName
    from edgegap_async.models import Application, ApplicationVersion
    from edgegap_async.requests import EnvironmentVariable, VersionPortRequest, VersionSettings

_PASSWORD_VARIABLE: Final = "EDGEGAP_REGISTRY_PASSWORD"  # noqa: S105 - a name


def _yes(value: object) -> str:
    return "yes" if value else "no"


_APPLICATIONS: Final[Sequence[Column[Application]]] = (
    Column("APPLICATION", lambda one: one.name, is_whole=True),
    Column("ACTIVE", lambda one: _yes(one.is_active), is_whole=True),
    Column("CHANGED", lambda one: _date(one.last_updated), is_whole=True),
)


def _date(at: Any) -> str:
    return "" if at is None else f"{at:%Y-%m-%d %H:%M}"


def _image(version: ApplicationVersion) -> str:
    parts = (version.docker_repository, version.docker_image)
    return f"{'/'.join(filter(None, parts))}:{version.docker_tag}"


def _ports(version: ApplicationVersion) -> str:
    return " ".join(f"{one.name or one.port}:{one.port}/{one.protocol}" for one in version.ports)


_VERSIONS: Final[Sequence[Column[ApplicationVersion]]] = (
    Column("VERSION", lambda one: one.name, is_whole=True),
    Column("ACTIVE", lambda one: _yes(one.is_active), is_whole=True),
    Column("IMAGE", _image),
    Column("CPU", lambda one: one.req_cpu, is_whole=True),
    Column("MEMORY", lambda one: one.req_memory, is_whole=True),
    Column("PORTS", _ports),
    Column("CHANGED", lambda one: _date(one.last_updated), is_whole=True),
)


def _print(output: Output, version: ApplicationVersion) -> None:
    output.one(
        version,
        {
            "version": version.name,
            "active": _yes(version.is_active),
            "image": _image(version),
            "cpu": f"{version.req_cpu} units",
            "memory": f"{version.req_memory} MB",
            "ports": _ports(version),
        },
    )


@command("edgegap-async apps", "edgegap-async apps --json | jq -r .name")
@with_client
async def apps(client: EdgegapClient, output: Output) -> None:
    """List the applications of the organization."""
    found = [one async for one in client.applications.list()]
    output.table(found, _APPLICATIONS, nothing="There is no application.")


versions = Group("versions", help="List, create, copy and change versions of applications.")

_registry_user_option = click.option(
    "--registry-user",
    metavar="NAME",
    help=f"The name for a private registry; the password is in {_PASSWORD_VARIABLE}.",
)


def _credentials(registry_user: str | None) -> VersionSettings:
    """Returns the credentials of a private registry; the password is never an argument."""
    if registry_user is None:
        return {}
    password = os.environ.get(_PASSWORD_VARIABLE)
    if not password:
        raise click.UsageError(f"--registry-user needs the password in {_PASSWORD_VARIABLE}")
    return {"private_username": registry_user, "private_token": password}


@versions.command(
    "ls", examples=["edgegap-async versions ls arena", "edgegap-async versions ls arena --json"]
)
@click.argument("application", metavar="APP")
@with_client
async def list_versions(client: EdgegapClient, output: Output, *, application: str) -> None:
    """List the versions of an application."""
    found = [one async for one in client.versions.list(application)]
    output.table(found, _VERSIONS, nothing=f"{application} has no version.")


@versions.command(
    "create",
    examples=[
        "edgegap-async versions create arena b8 docker.io/studio/arena:b8 --port game:7777/udp",
    ],
)
@click.argument("application", metavar="APP")
@click.argument("version", metavar="VERSION")
@click.argument("image", type=IMAGE)
@click.option(
    "--cpu",
    type=click.IntRange(100),
    default=256,
    show_default=True,
    help="CPU units; 1024 are one virtual CPU.",
)
@click.option(
    "--memory", type=click.IntRange(100), default=512, show_default=True, help="Memory in MB."
)
@click.option(
    "--port",
    "-p",
    "ports",
    type=PORT,
    multiple=True,
    help="A port that the server opens; repeat it for each.",
)
@variables_option
@click.option(
    "--max-duration",
    type=click.IntRange(-1, 1440),
    help="Minutes after which a server is stopped; -1 for never.",
)
@_registry_user_option
@with_client
async def create(
    client: EdgegapClient,
    output: Output,
    *,
    application: str,
    version: str,
    image: ImageName,
    cpu: int,
    memory: int,
    ports: Sequence[VersionPortRequest],
    variables: Sequence[EnvironmentVariable],
    max_duration: int | None,
    registry_user: str | None,
) -> None:
    """Create a version of an application that exists, from an image."""
    settings = _credentials(registry_user)
    settings |= {"ports": ports, "envs": variables, "max_duration": max_duration}
    created = await client.versions.create(
        application,
        version,
        docker_repository=image.repository,
        docker_image=image.name,
        docker_tag=image.tag,
        req_cpu=cpu,
        req_memory=memory,
        **settings,
    )
    _print(output, created)


@versions.command(
    "copy",
    examples=[
        "edgegap-async versions copy arena build-7 build-8 --tag build-8",
        "edgegap-async versions copy arena v1 v2 --image docker.io/studio/arena:v2",
    ],
)
@click.argument("application", metavar="APP")
@click.argument("version", metavar="VERSION")
@click.argument("name", metavar="NEW")
@click.option("--image", type=IMAGE, help="Another image.")
@click.option("--tag", "-t", help="Another tag of the image.")
@_registry_user_option
@with_client
async def copy(
    client: EdgegapClient,
    output: Output,
    *,
    application: str,
    version: str,
    name: str,
    image: ImageName | None,
    tag: str | None,
    registry_user: str | None,
) -> None:
    """Create a version like another one, such as of a newer image.

    The API shows no secrets: a version with credentials for its registry needs --registry-user.
    """
    if image is not None and tag is not None:
        raise click.UsageError("Give --image or --tag.")
    copied = await client.versions.copy(
        application,
        version,
        name,
        docker_repository=image.repository if image else None,
        docker_image=image.name if image else None,
        docker_tag=image.tag if image else tag,
        **_credentials(registry_user),
    )
    _print(output, copied)


@versions.command(
    "set-image",
    examples=["edgegap-async versions set-image arena v1 docker.io/studio/arena:2026.11"],
)
@click.argument("application", metavar="APP")
@click.argument("version", metavar="VERSION")
@click.argument("image", type=IMAGE)
@_registry_user_option
@with_client
async def set_image(
    client: EdgegapClient,
    output: Output,
    *,
    application: str,
    version: str,
    image: ImageName,
    registry_user: str | None,
) -> None:
    """Change the image of a version. What runs already keeps the earlier one."""
    changed = await client.versions.update(
        application,
        version,
        docker_repository=image.repository,
        docker_image=image.name,
        docker_tag=image.tag,
        **_credentials(registry_user),
    )
    _print(output, changed)
