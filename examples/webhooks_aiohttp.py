"""Receive webhooks in our own aiohttp application: a wait ends as soon as Edgegap reports READY.

PUBLIC_URL is how Edgegap reaches this program; the emulator reaches it on this machine.

    PUBLIC_URL=http://127.0.0.1:8080 python examples/webhooks_aiohttp.py

    POST /servers        deploys a server and answers when it is READY
    DELETE /servers/ID   stops it
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

from aiohttp import web

from edgegap_async import DeploymentHandle, EdgegapClient, WebhookReceiver

CLIENT = web.AppKey("client", EdgegapClient)
SERVERS = web.AppKey("servers", dict[str, DeploymentHandle])


async def deploy(request: web.Request) -> web.Response:
    """Deploy a server near the caller."""
    server = await request.app[CLIENT].deploy("arena", "v1", users=[request.remote or "127.0.0.1"])
    try:
        await server.wait_ready()
    except BaseException:  # failed, timed out, or this program is ending
        await server.stop()
        raise
    request.app[SERVERS][server.request_id] = server
    return web.json_response(
        {
            "request_id": server.request_id,
            "link": server.endpoint("game").link,
            "source": server.history[-1].source,
        }
    )


async def stop(request: web.Request) -> web.Response:
    """Stop a server."""
    server = request.app[SERVERS].pop(request.match_info["request_id"], None)
    if server is None:
        raise web.HTTPNotFound
    await server.stop(wait=True)
    return web.Response(status=204)


def application(public_url: str) -> web.Application:
    """Make the application and attach the receiver to it."""
    receiver = WebhookReceiver(public_url)

    async def with_client(app: web.Application) -> AsyncIterator[None]:
        async with EdgegapClient(webhooks=receiver) as client:
            app[CLIENT], app[SERVERS] = client, {}
            yield
            await asyncio.gather(*(server.stop() for server in app[SERVERS].values()))

    app = web.Application()
    app.cleanup_ctx.append(with_client)
    app.router.add_post("/servers", deploy)
    app.router.add_delete("/servers/{request_id}", stop)
    receiver.attach(app)
    return app


async def main() -> None:
    """Serve until interrupted."""
    if me := asyncio.current_task():  # without it SIGTERM would leave servers running
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, me.cancel)
    public_url = os.environ["PUBLIC_URL"]
    runner = web.AppRunner(application(public_url))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", urlsplit(public_url).port or 8080).start()
    print(f"listening on {public_url}", flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("every server is stopped")
