"""Keep servers READY in advance, so that a match gets a server in less than a millisecond.

python examples/warm_pool.py [MATCHES]
"""

import asyncio
import random
import sys
import time

from edgegap_async import EdgegapClient, ServerPool, UdpAnswer, run
from edgegap_async.errors import PoolEmpty


async def match(pool: ServerPool, number: int) -> None:
    """Allocate a server, play, and stop it at the end of the block."""
    began = time.perf_counter()
    try:
        async with pool.allocate(timeout=30) as server:
            waited = (time.perf_counter() - began) * 1000
            print(f"match {number:>3}: {waited:7.2f} ms to a server at {server.endpoint('game')}")
            await asyncio.sleep(random.uniform(0.1, 0.3))  # noqa: S311 - the length of a match
    except PoolEmpty as error:
        print(f"match {number:>3}: {error}")


async def main(matches: int) -> None:
    """Start a match every half second."""
    async with (
        EdgegapClient(owner="matchmaker-1") as client,
        ServerPool(
            client,
            "arena",
            "v1",
            users=[(48.86, 2.35)],
            min_ready=4,
            max_total=12,
            playable=UdpAnswer("game", datagram=b"ping"),
        ) as pool,
        asyncio.TaskGroup() as group,
    ):
        await pool.filled(timeout=60)  # else the first players would wait for it
        for number in range(matches):
            group.create_task(match(pool, number))
            await asyncio.sleep(0.5)
    print(f"{pool.stats.allocated_total} allocated, all stopped")


if __name__ == "__main__":
    run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 10))
