"""Share one account among several programs: rate limits and webhooks through Redis.

    pip install 'edgegap-async[redis]'
    REDIS_URL=redis://localhost python examples/shared_limits.py

Start it several times at once: all of them together keep the limits of the organization.
"""

import os

from edgegap_async import Cluster, EdgegapClient, run


async def main() -> None:
    """Deploy one server with limits that every program of this namespace shares."""
    async with (
        Cluster(os.environ["REDIS_URL"], namespace="production") as cluster,
        EdgegapClient(limits=cluster.limits) as client,
        client.run("arena", "v1", users=["8.8.8.8"]) as server,
    ):
        print(f"{cluster.programs} programs share the limits, shared: {cluster.is_shared}")
        print(f"READY at {server.endpoint('game')}")


if __name__ == "__main__":
    run(main())
