"""Serves /metrics for Prometheus while the program runs a server.

    python examples/metrics_endpoint.py [PORT]

Needs the extra `prometheus`. The endpoint runs in the event loop of the program; Ctrl-C or SIGTERM
ends it.
"""

import asyncio
import sys

from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from edgegap_async import EdgegapClient, run
from edgegap_async.observability import PrometheusObserver


async def metrics(_: web.Request) -> web.Response:
    """Answers a scrape."""
    return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})


async def main(port: int) -> None:
    """Keeps one server running, and serves the metrics."""
    application = web.Application()
    application.router.add_get("/metrics", metrics)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        async with EdgegapClient() as client:
            client.add_observer(PrometheusObserver(limits=client.limits))
            async with client.run("arena", "v1", users=["75.28.35.192"]):
                await web.TCPSite(runner, "127.0.0.1", port).start()
                port = runner.addresses[0][1]
                print(f"listening on http://127.0.0.1:{port}", flush=True)
                await asyncio.Event().wait()  # where a program does its work
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 9090))
