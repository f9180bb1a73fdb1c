"""Receive webhooks with a small server of our own: a wait ends as soon as Edgegap reports READY.

PUBLIC_URL is how Edgegap reaches this program; the emulator reaches it on this machine.

    PUBLIC_URL=http://127.0.0.1:8080 python examples/webhooks_server.py
"""

import os
from urllib.parse import urlsplit

from edgegap_async import EdgegapClient, WebhookReceiver, run


async def main() -> None:
    """Deploy one server and say what reported that it was READY."""
    public_url = os.environ["PUBLIC_URL"]
    receiver = WebhookReceiver(public_url)
    async with (
        receiver.serve("127.0.0.1", port=urlsplit(public_url).port or 8080),
        EdgegapClient(webhooks=receiver) as client,
        client.run("arena", "v1", users=["8.8.8.8"]) as server,
    ):
        print(f"READY at {server.endpoint('game')}, reported by {server.history[-1].source}")
        print(f"the poller has sent {client.poller.stats.status_requests} status requests")


if __name__ == "__main__":
    run(main())
