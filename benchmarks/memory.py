"""Measures the memory of a program that deploys for days and never sees the end of its servers.

It deploys at a steady rate, waits for READY, drops the handle and stops nothing: the servers end by
themselves, as with a maximum duration. The API is a small server in the same process that keeps
only what lives; time is virtual. `tracemalloc` counts what Python has allocated.

The program prints JSON: for each point in time the bytes in MB, and what the client remembers:

    python benchmarks/memory.py [--hours 72] [--rate 1] [--lifetime 3600] [--points 6]
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import sys
import tracemalloc
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent.parent / "tests/support"))
from figures import significant
from short_lived_api import ShortLivedApi
from virtual_clock import run_virtually

from edgegap_async import EdgegapClient, WebhookReceiver

USERS = ["192.0.2.1"]


async def run(seconds: float, rate: float, lifetime: float, points: int) -> list[dict[str, Any]]:
    """Deploys for some virtual seconds. Returns the figures of each point in time."""
    figures = list[dict[str, Any]]()
    receiver = WebhookReceiver("http://127.0.0.1:1")
    async with (
        ShortLivedApi(lifetime=lifetime) as api,
        EdgegapClient("canary-t", base_url=api.url, owner="memory", webhooks=receiver) as client,
    ):
        count = max(points, round(seconds * rate))
        for number in range(1, count + 1):
            handle = await client.deploy("arena", "v1", users=USERS)
            await handle.refresh()
            del handle
            await asyncio.sleep(1 / rate)
            if number * points // count > len(figures):
                gc.collect()
                figures.append(
                    {
                        "hours": significant(number / rate / 3600),
                        "megabytes": significant(tracemalloc.get_traced_memory()[0] / 1e6),
                        "deployments that live": len(api.live),
                        "deployments in the register": len(client._deployer.register),  # noqa: SLF001
                    }
                )
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=72)
    parser.add_argument("--rate", type=float, default=1, help="deploys a second")
    parser.add_argument("--lifetime", type=float, default=3600, help="seconds")
    parser.add_argument("--points", type=int, default=6)
    arguments = parser.parse_args()
    logging.disable()
    tracemalloc.start()
    seconds = arguments.hours * 3600
    figures = run_virtually(run(seconds, arguments.rate, arguments.lifetime, arguments.points))
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
