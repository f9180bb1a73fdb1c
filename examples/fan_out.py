"""Many servers at once, one for each match of a tournament round; the client keeps the limits.

python examples/fan_out.py [HOW_MANY]
"""

import asyncio
import sys
import time

from edgegap_async import EdgegapClient, EdgegapError


async def main(how_many: int) -> None:
    """Run all matches, and say what became of each."""
    began = time.monotonic()

    async def match(number: int) -> str:
        tags = ["tournament", f"match-{number}"]
        async with client.run("arena", "v1", users=[(48.86, 2.35)], tags=tags) as server:
            ready = time.monotonic() - began
            return f"match {number:>3}: READY after {ready:5.2f} s at {server.endpoint('game')}"

    async with EdgegapClient() as client:
        matches = (match(number) for number in range(how_many))
        for outcome in await asyncio.gather(*matches, return_exceptions=True):
            if isinstance(outcome, EdgegapError):
                print(f"no server: {outcome}")
            elif isinstance(outcome, BaseException):
                raise outcome
            else:
                print(outcome)
    print(f"{how_many} servers, {client.requests_sent} requests, all stopped")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 10))
