"""Recover after a crash: find the servers that an earlier run of this program left running.

python examples/recover.py
"""

from edgegap_async import EdgegapClient, run


async def main() -> None:
    """Leave two servers behind, as a crash would, and find them in a second client."""
    async with EdgegapClient(owner="matchmaker-1") as client:
        for _ in range(2):
            await client.deploy("arena", "v1", users=["8.8.8.8"])
        # Here the program is killed: a handle that is dropped stops nothing.
    async with EdgegapClient(owner="matchmaker-1") as client:
        async for found in client.recover():
            print(f"adopt {found.handle.request_id}, {found.age:.0f} s old")
            await found.handle.wait_ready(timeout=60)
        stopped = await client.reap(older_than=0)  # or stop all of them in one call
        print(f"stopped {len(stopped)} servers")


if __name__ == "__main__":
    run(main())
