"""A matchmaker that never lets players wait: it takes servers from a pool that are READY already.

python examples/warm_pool.py [MATCHES]
"""

import asyncio
import random
import sys
import time

from edgegap_async import EdgegapClient, PoolEmpty, ServerPool, UdpAnswer


async def match(pool: ServerPool, number: int) -> None:
    """Take a server, play, and let it be stopped."""
    began = time.perf_counter()
    try:
        async with pool.take(timeout=30) as server:
            waited = (time.perf_counter() - began) * 1000
            print(f"match {number:>3}: {waited:7.2f} ms to a server at {server.endpoint('game')}")
            await asyncio.sleep(random.uniform(0.1, 0.3))  # noqa: S311 - so long it takes
    except PoolEmpty as error:
        print(f"match {number:>3}: {error}")


async def main(matches: int) -> None:
    """Play so many matches, one begun after the other."""
    async with (
        EdgegapClient(owner="matchmaker-1") as client,
        ServerPool(
            client,
            "arena",
            "v1",
            users=[(48.86, 2.35)],
            min_ready=2,
            max_total=8,
            playable=UdpAnswer("game", datagram=b"ping"),
        ) as pool,
        asyncio.TaskGroup() as group,
    ):
        for number in range(matches):
            group.create_task(match(pool, number))
            await asyncio.sleep(0.2)
    print(f"{pool.stats.handed_out} handed out, all stopped")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 10))
