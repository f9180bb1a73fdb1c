"""Deploy one server for two players: READY inside the block, stopped at its end.

Needs EDGEGAP_API_TOKEN; with EDGEGAP_BASE_URL it runs on the emulator:

    python -m edgegap_async.emulator        # in another shell; prints both variables
    python examples/quickstart.py
"""

import asyncio
import socket

from edgegap_async import EdgegapClient, run


async def main() -> None:
    """Deploy a server, play, stop it."""
    async with EdgegapClient() as client:
        async with client.run("arena", "v1", users=["75.28.35.192", (45.5, -73.6)]) as server:
            game = server.endpoint("game")
            print(f"{server.request_id} is READY at {game}")
            print(await ask(game.host, game.port, "join Ada"))
    print("stopped")


async def ask(host: str, port: int, line: str) -> str:
    """Send a datagram to the game server and return its answer."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as player:
        player.setblocking(False)
        await loop.sock_connect(player, (host, port))
        await loop.sock_sendall(player, line.encode())
        async with asyncio.timeout(5):
            return (await loop.sock_recv(player, 2048)).decode()


if __name__ == "__main__":
    run(main())
