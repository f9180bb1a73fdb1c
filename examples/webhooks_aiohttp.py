"""Receive webhooks in our own aiohttp application: a wait ends as soon as Edgegap reports READY.

PUBLIC_URL is how Edgegap reaches this program; the emulator reaches it on this machine.

    PUBLIC_URL=http://127.0.0.1:8080 python examples/webhooks_aiohttp.py

    POST /servers        deploys a server and answers when it is READY
    DELETE /servers/ID   stops it
"""

import asyncio
import os
from urllib.parse import urlsplit

from aiohttp import web

from edgegap_async import DeploymentHandle, EdgegapClient, EdgegapError, WebhookReceiver, run


class Servers:
    """Holds each server in a task, whose end stops it."""

    def __init__(self, client: EdgegapClient, tasks: asyncio.TaskGroup) -> None:
        self.client = client
        self.tasks = tasks
        self.running: dict[str, asyncio.Task[None]] = {}

    async def deploy(self, request: web.Request) -> web.Response:
        """Deploy a server near the caller."""
        ready = asyncio.get_running_loop().create_future()
        task = self.tasks.create_task(self.hold(ready, request.remote or "127.0.0.1"))
        handle = await asyncio.shield(ready)
        if handle is None:
            raise web.HTTPServiceUnavailable
        self.running[handle.request_id] = task
        task.add_done_callback(lambda _: self.running.pop(handle.request_id, None))
        return web.json_response(
            {
                "request_id": handle.request_id,
                "link": handle.endpoint("game").link,
                "source": handle.history[-1].source,
            }
        )

    async def hold(self, ready: asyncio.Future[DeploymentHandle | None], user: str) -> None:
        """Run a server until it ends, this task is cancelled, or this program ends."""
        try:
            async with self.client.run("arena", "v1", users=[user]) as handle:
                ready.set_result(handle)
                async for change in handle.changes():
                    print(f"{handle.request_id} is {change.status}")
        except EdgegapError as error:
            print(f"no server: {error}")
        finally:
            if not ready.done():
                ready.set_result(None)

    async def stop(self, request: web.Request) -> web.Response:
        """Stop a server."""
        task = self.running.pop(request.match_info["request_id"], None)
        if task is None:
            raise web.HTTPNotFound
        task.cancel()  # which ends the block of `client.run`
        return web.Response(status=204)


async def main() -> None:
    """Serve until interrupted."""
    public_url = os.environ["PUBLIC_URL"]
    receiver = WebhookReceiver(public_url)
    async with EdgegapClient(webhooks=receiver) as client, asyncio.TaskGroup() as tasks:
        servers = Servers(client, tasks)
        app = web.Application()
        app.router.add_post("/servers", servers.deploy)
        app.router.add_delete("/servers/{request_id}", servers.stop)
        receiver.attach(app)
        # A request that waits must not hold up the end: SIGKILL would leave servers running.
        runner = web.AppRunner(app, shutdown_timeout=2)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", urlsplit(public_url).port or 8080).start()
        print(f"listening on {public_url}", flush=True)
        try:
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()


if __name__ == "__main__":
    run(main())
