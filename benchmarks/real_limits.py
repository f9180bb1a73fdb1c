"""Measures 429 answers and the used part of each limit at full demand on a strict server.

Real time, real sockets. The server (`tests/support/strict_api.py`) runs in another process, accepts
the documented number of deploys, status requests and list requests in any second, refuses the rest
and counts. Prints JSON. On a busy machine some calls travel more than 25 ms longer than others
(`travel_uneven_by_ms`), and a strict server then refuses some calls: use an idle machine.

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
from figures import significant
from strict_api import LIMITS, Arrival, StrictApi, demand

WARM_UP = 2.0  # seconds; the calls after it show the sustained rate


def used(times: list[float], limit: float) -> float:
    """Returns the used part of the limit between the first and the last call, in percent."""
    percent: float = significant(100 * (len(times) - 1) / (times[-1] - times[0]) / limit)
    return percent


def summary(arrivals: list[Arrival], limit: int, seconds: float) -> dict[str, object]:
    began = arrivals[0].at
    # After the end no new calls follow the last ones, so those are left out.
    times = [one.at for one in arrivals if one.accepted and one.at < began + seconds]
    spans = [later - sooner for sooner, later in zip(times, times[limit:], strict=False)]
    return {
        "limit": limit,
        "sent": len(arrivals),
        "answered_429": sum(not one.accepted for one in arrivals),
        "percent_used": used(times, limit),
        "percent_used_after_two_seconds": used([at for at in times if at > began + WARM_UP], limit),
        "shortest_time_for_one_more_than_the_limit": significant(min(spans), 4),
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
                "travel_uneven_by_ms": significant(1000 * api.unevenness(name)),
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
