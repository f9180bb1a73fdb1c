"""The emulator's cloud without HTTP, applications for it, and what tests read of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from edgegap_async import Deployment, DeployRequest, GeoCoordinates, Status
from edgegap_async.api.requests import Webhook
from edgegap_async.emulator import Application, Fleet, LocalDeployment, Timings, sample_application
from edgegap_async.emulator.catalogue import Catalogue
from edgegap_async.emulator.clock import Clock
from edgegap_async.emulator.cloud import Cloud
from edgegap_async.emulator.settings import Settings

IN_PARIS = GeoCoordinates(48.9, 2.4)
UNKNOWN_ID = "000000000000"


# ── applications and requests ────────────────────────────────────────────────────────────────────


def python_application(program: str, **settings: Any) -> Application:
    """An application that runs a Python program and declares no port."""
    argv = ("{python}", "-I", "-u", "-c", program)
    return Application(**{"name": "app", "version": "v1", "argv": argv} | settings)


ARENA = sample_application()
SLEEPER = python_application("import time; time.sleep(60)")


def a_request(application: Application, **fields: Any) -> DeployRequest:
    """A deploy request for that application, with a player in Paris."""
    values: dict[str, Any] = {
        "application": application.name,
        "version": application.version,
        "users": [IN_PARIS],
    }
    return DeployRequest(**values | fields)


# ── a cloud ──────────────────────────────────────────────────────────────────────────────────────


class SentWebhooks:
    """Records the webhooks that a cloud would send, in order."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Deployment]] = []

    def __call__(self, webhook: Webhook, deployment: Deployment) -> None:
        self.events.append((webhook.url, deployment))


@contextlib.asynccontextmanager
async def a_cloud(
    *applications: Application,
    fleets: Iterable[Fleet] = (),
    webhooks: SentWebhooks | None = None,
    **settings: Any,
) -> AsyncIterator[Cloud]:
    """A cloud with fast timings; an exception in a task of the cloud fails the test."""
    chosen: dict[str, Any] = {"timings": Timings.fast(), **settings}
    cloud = Cloud(
        Catalogue(applications=applications, fleets=tuple(fleets)),
        Settings(**chosen),
        send_webhook=webhooks or SentWebhooks(),
        send_session=lambda _url, _session: None,
        on_status=lambda _deployment, _earlier: None,
        clock=Clock(),
    )
    cloud.base_url = "http://127.0.0.1:9"
    try:
        yield cloud
    finally:
        await cloud.close()
    assert cloud.failures == []


async def answer(cloud: Cloud, operation: str, **arguments: Any) -> Any:
    """Returns the model of an operation's answer."""
    return await getattr(cloud, operation)(**arguments)


async def deployed(cloud: Cloud, application: Application, **fields: Any) -> LocalDeployment:
    """Deploys the application and returns the deployment."""
    accepted = await cloud.deploy(body=a_request(application, **fields))
    return cloud.deployments[accepted.request_id]


# ── waiting ──────────────────────────────────────────────────────────────────────────────────────


async def until(condition: Callable[[], object]) -> None:
    """Polls until a condition holds that no event announces."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


async def reached(deployment: LocalDeployment, status: Status) -> LocalDeployment:
    """Waits until a deployment has a status; fails at once if it cannot reach that status."""

    def is_there() -> bool:
        assert status in _later_statuses(deployment.status), deployment
        return deployment.status is status

    await until(is_there)
    return deployment


def _later_statuses(status: Status) -> set[Status]:
    ended = {Status.TERMINATING, Status.TERMINATED}
    if status in ended:
        return ended
    return ended | {Status.ERROR} if status is Status.ERROR else set(Status)


# ── processes ────────────────────────────────────────────────────────────────────────────────────


def processes_of(deployment: LocalDeployment) -> list[int]:
    """Returns the ids of all processes with the deployment's mark in their environment."""
    mark = deployment.secrets.delete_token.encode()
    found: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:  # the process has ended meanwhile
            continue
    return found


def create_go_file(pid: int) -> None:
    """Creates the file `go` in a process's working directory, for which a test program waits."""
    Path(f"/proc/{pid}/cwd/go").touch()


@contextlib.contextmanager
def files_left(count: int) -> Iterator[None]:
    """Lets this process open `count` more files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(file.name) for file in Path("/proc/self/fd").iterdir())
    with contextlib.ExitStack() as filled:  # numbers are given out from the lowest
        while (file := filled.enter_context(Path(os.devnull).open("rb"))).fileno() <= highest:
            pass
        resource.setrlimit(resource.RLIMIT_NOFILE, (file.fileno() + 1 + count, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
