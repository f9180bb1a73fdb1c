"""Replace a program while matches are played: the next run adopts the servers of the last one.

    POD_NAME=matchmaker-0 python examples/rolling_update.py [SECONDS]

A deployment of `client.deploy` belongs to its caller: the end of the client stops none. The game
server ends itself when its match is over (see game_server.py).
"""

import asyncio
import os
import sys

from edgegap_async import EdgegapClient, run

LONGEST_MATCH = 3600.0  # seconds


async def main(seconds: float) -> None:
    """Adopt what the last run has left, start a match, and end."""
    async with EdgegapClient(owner=os.environ.get("POD_NAME", "matchmaker-0")) as client:
        async for found in client.recover():
            print(f"adopted {found.handle.request_id}, {found.age or 0:.0f} s old", flush=True)
        # Younger servers may have players. An older one is lost: its match must be over.
        stopped = await client.reap(older_than=LONGEST_MATCH)
        print(f"stopped {len(stopped)} lost servers", flush=True)
        server = await client.deploy("arena", "v1", users=["75.28.35.192"])
        await server.wait_ready()
        print(f"a match at {server.endpoint('game')}", flush=True)
        await asyncio.sleep(seconds)


if __name__ == "__main__":
    run(main(float(sys.argv[1]) if len(sys.argv) > 1 else 60))
