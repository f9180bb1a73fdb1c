"""A matchmaker that deploys without pause until it is killed."""

from __future__ import annotations

import asyncio
import sys

from edgegap_async import EdgegapClient, PollingPolicy


async def main(url: str, token: str) -> None:
    async with EdgegapClient(
        token,
        base_url=url,
        owner="mm-1",
        polling=PollingPolicy(first_delay=0.01, interval=0.02),
        limits={"deploy": None},
    ) as client:

        async def match() -> None:
            while True:
                async with client.run("arena", "v1", users=["8.8.8.8"]):
                    pass

        print("deploying", flush=True)
        await asyncio.gather(*(match() for _ in range(3)))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
