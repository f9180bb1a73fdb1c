"""Run inside a container: a game server that stops its own deployment when no player is left.

Edgegap tells the server its ports, tags and location in ARBITRIUM_* variables. Run the server on
the emulator with the settings in apps.toml, where a lobby without players ends after a minute:

    python -m edgegap_async.emulator examples/apps.toml
"""

import asyncio
import os
from typing import cast

from edgegap_async.container import Activity, ThisDeployment

Address = tuple[str | object, int]


class Lobby(asyncio.DatagramProtocol):
    """Counts the players that have said hello and not yet goodbye."""

    def __init__(self, activity: Activity) -> None:
        self.activity = activity
        self.players: set[Address] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport, to answer players."""
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: Address) -> None:
        """Answer a player."""
        if data.strip() == b"hello":
            self.players.add(addr)
        elif data.strip() == b"goodbye":
            self.players.discard(addr)
        self.activity.players = len(self.players)
        self.transport.sendto(f"{len(self.players)} here".encode(), addr)


async def main() -> None:
    """Serve until the lobby is idle, or until SIGTERM."""
    here = ThisDeployment.from_environment()
    if here is None:
        raise SystemExit("this program runs inside a deployment")
    idle_time = float(os.environ.get("IDLE_SECONDS", "300"))
    async with here.stop_when_idle(idle_time) as activity:
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: Lobby(activity),
            local_addr=("0.0.0.0", here.internal_port("game")),  # noqa: S104 - players come from anywhere
        )
        await here.add_tag("open")
        print(f"open in {here.location and here.location.city}", flush=True)
        await asyncio.Event().wait()  # SIGTERM ends the block
    print("closed", flush=True)
    transport.close()


if __name__ == "__main__":
    asyncio.run(main())
