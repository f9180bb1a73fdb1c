"""Run inside a container: a game server that asks the API to stop it when the last player leaves.

The server reads its port and its own stop URL from ARBITRIUM_* variables, as in the cloud. Run it
on the emulator with the settings in apps.toml:

    python -m edgegap_async.emulator examples/apps.toml
"""

import asyncio
import json
import os
import signal
from typing import cast
from urllib.parse import urlsplit

from edgegap_async import EdgegapClient

Address = tuple[str | object, int]


class Lobby(asyncio.DatagramProtocol):
    """Counts the players that have said hello and not yet goodbye."""

    def __init__(self) -> None:
        self.players: set[Address] = set()
        self.is_empty = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport, to answer players."""
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: Address) -> None:
        """Answer a player."""
        if data.strip() == b"hello":
            self.players.add(addr)
        elif data.strip() == b"goodbye":
            self.players.discard(addr)
        self.transport.sendto(f"{len(self.players)} here".encode(), addr)
        if not self.players:
            self.is_empty.set()


async def stop_self() -> None:
    """Ask the API to stop this deployment; SIGTERM follows."""
    url = urlsplit(os.environ["ARBITRIUM_DELETE_URL"])
    *_, request_id, access_point_id = url.path.split("/")
    async with EdgegapClient(base_url=f"{url.scheme}://{url.netloc}") as client:
        await client.deployments.stop_self(
            request_id, access_point_id, token=os.environ["ARBITRIUM_DELETE_TOKEN"]
        )


async def main() -> None:
    """Serve until SIGTERM."""
    loop, stop_requested = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop_requested.set)
    ports = json.loads(os.environ["ARBITRIUM_PORTS_MAPPING"])["ports"]
    transport, lobby = await loop.create_datagram_endpoint(
        Lobby,
        local_addr=("0.0.0.0", ports["game"]["internal"]),  # noqa: S104 - players come from anywhere
    )
    print("open", flush=True)
    await lobby.is_empty.wait()
    await stop_self()
    await stop_requested.wait()
    print("closed", flush=True)
    transport.close()


if __name__ == "__main__":
    asyncio.run(main())
