"""Check that players can connect: READY means that a port is open, not that the game answers.

python examples/playable.py
"""

from edgegap_async import DeploymentHandle, EdgegapClient, UdpAnswer, run
from edgegap_async.errors import NotPlayable


async def has_players_slots(server: DeploymentHandle) -> None:
    """Check the game in our own way: raise an exception as long as players cannot join."""
    game = server.endpoint("game")
    if not game.port:
        raise ConnectionError(f"{server.request_id} has no port")


async def main() -> None:
    """Deploy two servers, each with another check."""
    ping = UdpAnswer("game", datagram=b"ping")  # or TcpConnect(...), HttpGet(...)
    async with EdgegapClient() as client:
        async with client.run("arena", "v1", users=["8.8.8.8"], playable=ping) as server:
            print(f"{server.request_id} answers at {server.endpoint('game')}")
        server = await client.deploy("arena", "v1", users=["8.8.8.8"])
        try:
            await server.wait_ready(timeout=60, playable=has_players_slots)
            print(f"{server.request_id} passed our own check")
        except NotPlayable as error:
            print(f"READY, but not playable: {error}")
        finally:
            await server.stop()


if __name__ == "__main__":
    run(main())
