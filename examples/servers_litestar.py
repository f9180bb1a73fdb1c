"""Deploy servers from a Litestar application, with webhooks. SIGTERM stops every server.

PUBLIC_URL is how Edgegap reaches this program; the emulator reaches it on this machine.

    pip install litestar uvicorn
    PUBLIC_URL=http://127.0.0.1:8080 python examples/servers_litestar.py

    POST /servers        deploys a server and answers when it is READY
    DELETE /servers/ID   stops it

uvicorn ends the application at SIGTERM, the application closes the client, and the client stops the
servers of its `run` blocks.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import uvicorn
from litestar import Litestar, asgi, delete, post
from litestar.exceptions import NotFoundException, ServiceUnavailableException
from litestar.params import FromPath

from edgegap_async import EdgegapClient, EdgegapError, WebhookReceiver

URL = os.environ["PUBLIC_URL"]
RECEIVER = WebhookReceiver(URL)
CLIENT = EdgegapClient(webhooks=RECEIVER)
TASKS: set[asyncio.Task[None]] = set()  # each holds a server, and stops it at its end
RUNNING: dict[str, asyncio.Task[None]] = {}  # the task of a server, by its id


@asynccontextmanager
async def lifespan(_: Litestar) -> AsyncIterator[None]:
    """Close the client when the application ends."""
    async with CLIENT:
        yield
    await RECEIVER.close()


async def hold(ready: asyncio.Future[str | None]) -> None:
    """Run a server until it ends, this task is cancelled, or the client is closed."""
    try:
        async with CLIENT.run("arena", "v1", users=["75.28.35.192"]) as server:
            ready.set_result(server.request_id)
            async for change in server.changes():
                print(f"{server.request_id} is {change.status}")
    except EdgegapError as error:
        print(f"no server: {error}")
    finally:
        if not ready.done():
            ready.set_result(None)


@post("/servers", status_code=200)
async def deploy() -> dict[str, str]:
    """Deploy a server."""
    ready = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(hold(ready))
    TASKS.add(task)
    task.add_done_callback(TASKS.discard)
    request_id = await asyncio.shield(ready)
    if request_id is None:
        raise ServiceUnavailableException
    RUNNING[request_id] = task
    task.add_done_callback(lambda _: RUNNING.pop(request_id, None))
    return {"request_id": request_id}


@delete("/servers/{request_id:str}")
async def stop(request_id: FromPath[str]) -> None:
    """Stop a server."""
    if request_id not in RUNNING:
        raise NotFoundException
    RUNNING.pop(request_id).cancel()  # which ends the block of `client.run`


webhooks = asgi("/edgegap/webhooks", is_mount=True, copy_scope=False)(RECEIVER.asgi())
app = Litestar([deploy, stop, webhooks], lifespan=[lifespan])

if __name__ == "__main__":
    print(f"listening on {URL}", flush=True)
    uvicorn.run(
        app,
        port=urlsplit(URL).port or 8080,
        log_level="warning",
        timeout_graceful_shutdown=2,  # a request that waits must not hold up the end
    )
