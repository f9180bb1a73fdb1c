"""Deploy many servers at once, one for each match of a tournament; the client keeps the limits.

python examples/many_servers.py [HOW_MANY]
"""

import asyncio
import sys

from edgegap_async import DeploymentHandle, DeployRequest, EdgegapClient, Progress, UdpAnswer, run


def show(progress: Progress) -> None:
    """Print the progress of the batch."""
    print(f"{progress.ready} of {progress.total} READY, {progress.failed} failed")


async def play(server: DeploymentHandle, number: int, seconds: float) -> None:
    """Play a match and stop its server; the end of the block might come much later."""
    print(f"match {number:>3}: READY after {seconds:5.2f} s at {server.endpoint('game')}")
    await asyncio.sleep(0.1)
    await server.stop()


async def main(how_many: int) -> None:
    """Play all matches, each as soon as its server is READY and answers players."""
    requests = [
        DeployRequest(
            application="arena",
            version="v1",
            users=[(48.86, 2.35)],
            tags=["tournament", f"match-{number}"],
        )
        for number in range(how_many)
    ]
    async with EdgegapClient() as client:
        async with (
            client.deploy_many(
                requests,
                timeout=600,
                attempts=2,  # a failed deployment is stopped and deployed once more
                playable=UdpAnswer("game", datagram=b"ping"),
                on_progress=show,
                stop_at_end=True,  # also after an error in a match
            ) as batch,
            asyncio.TaskGroup() as matches,
        ):
            async for outcome in batch:
                if outcome.is_ready:
                    seconds = outcome.seconds or 0.0
                    matches.create_task(play(outcome.result(), outcome.index, seconds))
                else:
                    print(f"match {outcome.index:>3}: no server: {outcome.error}")
    print(f"{how_many} servers, {client.requests_sent} requests, all stopped")


if __name__ == "__main__":
    run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 10))
