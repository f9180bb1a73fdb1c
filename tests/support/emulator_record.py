"""What an emulator has recorded: the deployments that live, and the requests that it received."""

from __future__ import annotations

import asyncio
from collections import Counter

from edgegap_async import Status
from edgegap_async.emulator import Emulator

__all__ = ["ENDED", "alive", "living", "requests_by_operation", "until_idle", "until_living"]

ENDED = frozenset({Status.TERMINATING, Status.TERMINATED})


def living(emulator: Emulator) -> set[str]:
    """Returns the ids of the deployments that are neither stopped nor being stopped.

    A deployment counts until it is TERMINATING: a stop before READY takes effect at READY.
    """
    every = emulator.cloud.deployments.values()
    return {deployment.request_id for deployment in every if deployment.status not in ENDED}


def alive(emulator: Emulator) -> set[str]:
    """Returns the ids of the living deployments for which no stop was accepted either."""
    stopped = {
        request.path.rpartition("/")[2]
        for request in emulator.requests
        if request.operation == "stop_deployment" and request.status < 300
    }
    return living(emulator) - stopped


async def until_living(emulator: Emulator, *expected: str) -> None:
    """Returns when the expected deployments live, and no others.

    Raises:
        TimeoutError: others live after 20 seconds.
    """
    async with asyncio.timeout(20):
        while living(emulator) != set(expected):
            await asyncio.sleep(0.002)


async def until_idle(emulator: Emulator) -> None:
    """Returns when the emulator handles no request, also none whose client is gone.

    Raises:
        TimeoutError: it handles a request after 20 seconds.
    """
    async with asyncio.timeout(20):
        while emulator.open_requests:
            await asyncio.sleep(0.002)


def requests_by_operation(emulator: Emulator) -> Counter[str]:
    """Returns how many requests of each operation the emulator received."""
    return Counter(request.operation for request in emulator.requests)
