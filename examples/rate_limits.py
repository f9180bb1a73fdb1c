"""See and share the rate limits: 40 deploys, 20 status requests and 10 lists a second.

python examples/rate_limits.py
"""

import asyncio

from edgegap_async import EdgegapClient, RetryPolicy, Timeouts, run


async def main() -> None:
    """Send 30 lists; the client keeps them within 10 a second."""
    async with EdgegapClient(
        limits={"deploy": 20},  # half of the limit: another program has the other half
        max_wait=30,  # seconds that a call may wait for its turn, then LimitReached
        retries=RetryPolicy(attempts=4, deadline=20),
        timeouts=Timeouts(total=10),  # seconds for one attempt
    ) as client:
        loop = asyncio.get_running_loop()
        began = loop.time()
        lists = [asyncio.create_task(client.deployments.list(limit=1).page(1)) for _ in range(30)]
        await asyncio.sleep(0.1)
        state = client.limits.snapshot()["list_deployments"]
        print(f"{state.limit}/s: {state.queued} calls wait, the last {state.predicted_wait:.1f} s")
        await asyncio.gather(*lists)
        print(f"30 lists took {loop.time() - began:.1f} s")


if __name__ == "__main__":
    run(main())
