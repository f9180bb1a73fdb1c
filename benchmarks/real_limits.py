"""Deploys, looks and lists at full demand against a strict server: refusals, and how much is used.

Real time, real sockets, the server in another process (`tests/support/strict_api.py`), which
accepts the documented number in any second and refuses the rest. It counts. Prints JSON. Where
the machine holds up some calls by more than 25 ms against the others (`travel_uneven_by_ms`), a
strict server does refuse some: run it on a machine that is not busy.

    python benchmarks/real_limits.py [--seconds 60]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path

import aiohttp

from edgegap_async import EdgegapClient

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/support"))
from strict_api import LIMITS, Arrival, StrictApi, demand

WARM = 2.0  # seconds; what comes later is the sustained part


def used(times: list[float], limit: float) -> float:
    """Percent of the limit between the first and the last."""
    return round(100 * (len(times) - 1) / (times[-1] - times[0]) / limit, 2)


def summary(arrivals: list[Arrival], limit: int, seconds: float) -> dict[str, object]:
    began = arrivals[0].at
    # The last of them wait for no other: what comes after the end is no demand.
    times = [one.at for one in arrivals if one.accepted and one.at < began + seconds]
    spans = [later - sooner for sooner, later in zip(times, times[limit:], strict=False)]
    return {
        "limit": limit,
        "sent": len(arrivals),
        "answered_429": sum(not one.accepted for one in arrivals),
        "percent_used": used(times, limit),
        "percent_used_after_two_seconds": used([at for at in times if at > began + WARM], limit),
        "shortest_time_for_one_more_than_the_limit": round(min(spans), 4),
    }


async def measure(seconds: float) -> dict[str, object]:
    async with (
        StrictApi() as api,
        aiohttp.ClientSession(trace_configs=[api.tracing]) as session,
        EdgegapClient("token", base_url=api.url, session=session) as client,
    ):
        await demand(client, seconds)
    return {
        "benchmark": "real_limits",
        "seconds": seconds,
        "goal": "0 answered 429, at least 97 % used",
        **{
            name: {
                **summary(api.arrivals[name], limit, seconds),
                "travel_uneven_by_ms": round(1000 * api.unevenness(name), 1),
            }
            for name, limit in LIMITS.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    print(json.dumps(asyncio.run(measure(parser.parse_args().seconds)), indent=1))


if __name__ == "__main__":
    main()
