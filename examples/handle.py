"""Keep a handle: deploy a server, wait until it is READY, follow its status, stop it.

python examples/handle.py
"""

from edgegap_async import EdgegapClient, run


async def main() -> None:
    """Deploy a server and print each change of its status."""
    async with EdgegapClient() as client:
        server = await client.deploy("arena", "v1", users=["75.28.35.192"], tags=["ranked"])
        try:
            await server.wait_ready(timeout=120)
            print(f"{server.request_id} is READY at {server.endpoint('game').link}")
        except BaseException:  # the wait failed or was cancelled: the server still exists
            await server.stop()
            raise
        async for change in server.changes():  # first the past changes, then each new one
            print(f"{change.at:%H:%M:%S} {change.status} (found by {change.source})")
            if change.status.is_ready:
                await server.stop()
        await server.wait_terminated(timeout=60)


if __name__ == "__main__":
    run(main())
