"""A world without HTTP, waiting for what happens in it, and what came of one with HTTP."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

from edgegap_async import DeployAccepted, Deployment, DeployRequest, GeoCoordinates, Status
from edgegap_async.api.requests import Webhook
from edgegap_async.emulator import Application, Emulator, Fleet, LocalDeployment, Timings
from edgegap_async.emulator.catalogue import Catalogue
from edgegap_async.emulator.cloud import Cloud, Settings

IN_PARIS = GeoCoordinates(48.9, 2.4)


async def until(condition: Callable[[], object]) -> None:
    """Wait until something holds that no event tells."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


def a_request(application: Application, **more: Any) -> DeployRequest:
    """A deploy of that application, for a player in Paris."""
    values: dict[str, Any] = {
        "application": application.name,
        "version": application.version,
        "users": [IN_PARIS],
    }
    return DeployRequest(**values | more)


class SentWebhooks:
    """The webhooks that a world would have sent, in order."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Deployment]] = []

    def __call__(self, webhook: Webhook, deployment: Deployment) -> None:
        self.events.append((webhook.url, deployment))


@contextlib.asynccontextmanager
async def a_cloud(
    *applications: Application,
    fleets: Iterable[Fleet] = (),
    announced: SentWebhooks | None = None,
    **settings: Any,
) -> AsyncIterator[Cloud]:
    """A world in a hurry; what fails in it fails the test."""
    chosen: dict[str, Any] = {"timings": Timings.fast(), **settings}
    world = Cloud(
        Catalogue(applications=applications, fleets=tuple(fleets)),
        Settings(**chosen),
        announce=announced or SentWebhooks(),
        base_url="http://127.0.0.1:9",
    )
    try:
        yield world
    finally:
        await world.close()
    assert world.failures == []


async def deployed(world: Cloud, application: Application, **more: Any) -> LocalDeployment:
    """A deployment that was just accepted."""
    status, accepted = await world.deploy(body=a_request(application, **more))
    assert status == 202
    assert isinstance(accepted, DeployAccepted)
    return world.deployments[accepted.request_id]


async def reached(deployment: LocalDeployment, status: Status) -> LocalDeployment:
    """Wait until a deployment has a status; fails at once if it never will."""

    def is_there() -> bool:
        assert status in _still_to_come(deployment.status), deployment
        return deployment.status is status

    await until(is_there)
    return deployment


def alive(emulator: Emulator) -> set[str]:
    """What lives, and was not asked to stop."""
    over = {Status.TERMINATING, Status.TERMINATED}
    every = emulator.cloud.deployments.values()
    stops = {
        request.path.rpartition("/")[2]
        for request in emulator.requests
        if request.operation == "stop_deployment" and request.status < 300
    }
    return {one.request_id for one in every if one.status not in over} - stops


def asked(emulator: Emulator, operation: str) -> int:
    """How many requests for an operation came."""
    return sum(request.operation == operation for request in emulator.requests)


def _still_to_come(status: Status) -> set[Status]:
    over = {Status.TERMINATING, Status.TERMINATED}
    if status in over:
        return over
    return over | {Status.ERROR} if status is Status.ERROR else set(Status)
