"""Limit what a program may do: how many servers, which applications, or nothing at all.

python examples/guard.py
"""

from edgegap_async import EdgegapClient, Guard, run
from edgegap_async.errors import DryRun, NotAllowed


async def main() -> None:
    """Try what a guard refuses."""
    guard = Guard(max_live=1, applications=["arena"])
    async with EdgegapClient(guard=guard) as client:
        async with client.run("arena", "v1", users=["8.8.8.8"]):
            try:
                await client.deploy("arena", "v1", users=["8.8.8.8"])
            except NotAllowed as error:
                print(f"refused: {error}")
    async with EdgegapClient(guard=Guard(dry_run=True)) as client:
        print(f"reading is sent: {(await client.deployments.list()).total_count} deployments")
        try:
            await client.deploy("arena", "v1", users=["8.8.8.8"])
        except DryRun as error:
            print(f"checked and not sent: {error.method} {error.path}")


if __name__ == "__main__":
    run(main())
