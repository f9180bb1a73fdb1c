"""Let players exchange packets through a relay near them, and pay for it no longer than they play.

python examples/relay.py
"""

from edgegap_async import EdgegapClient, run
from edgegap_async.errors import RelayMaybeCreated, RelayNotLinked

PLAYERS = ["192.0.2.1", "198.51.100.7"]


async def main() -> None:
    """Open a relay session for two players, and let a third one join."""
    async with EdgegapClient() as client:
        try:
            async with client.relay(PLAYERS, timeout=60) as session:
                ports = session.relay and session.relay.ports
                if ports and ports.server and ports.client:
                    print(f"linked: host {ports.server.link}, others {ports.client.link}")
                # Hand to each player: the session's token, and the player's own token.
                joined = await client.relays.authorize_user(session.session_id, "203.0.113.9")
                if joined.session_user:
                    print("joined:", joined.session_user.ip_address)
            print("deleted")
        except RelayNotLinked as error:  # failed, or not linked in time; it is deleted
            print(f"no relay: {error}")
        except RelayMaybeCreated as error:  # no answer: a session may exist that nothing deletes
            print(f"it may be one of these: {error.candidates}")


if __name__ == "__main__":
    run(main())
