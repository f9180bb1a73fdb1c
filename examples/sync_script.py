"""Use the client in a script without asyncio, through anyio's BlockingPortal.

pip install anyio
python examples/sync_script.py [SECONDS]
"""

import signal
import sys
import time

from anyio.from_thread import start_blocking_portal

from edgegap_async import EdgegapClient


def main(seconds: float) -> None:
    """Run a server for some seconds."""
    # At SIGTERM the blocks end, and stop the server; Python's default would end the process.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(EdgegapClient()) as client,
        portal.wrap_async_context_manager(client.run("arena", "v1", users=["8.8.8.8"])) as server,
    ):
        print(f"{server.request_id} is READY at {server.endpoint('game')}", flush=True)
        print(portal.call(client.deployments.logs, server.request_id).logs)
        time.sleep(seconds)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 0)
