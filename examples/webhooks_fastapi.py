"""Receive webhooks in a FastAPI application: the receiver is an ASGI application to mount.

PUBLIC_URL is how Edgegap reaches this program; the emulator reaches it on this machine.

    pip install fastapi uvicorn
    PUBLIC_URL=http://127.0.0.1:8080 python examples/webhooks_fastapi.py

    POST /servers        deploys a server and answers when it is READY
    DELETE /servers/ID   stops it
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import uvicorn
from fastapi import FastAPI, Request, Response

from edgegap_async import EdgegapClient, WebhookEvent, WebhookReceiver

PUBLIC_URL = os.environ["PUBLIC_URL"]


async def log(event: WebhookEvent) -> None:
    """Print each webhook; the client does not need this to end a wait."""
    print(f"{event.deployment.request_id}: {event.kind}", flush=True)


receiver = WebhookReceiver(PUBLIC_URL, on_event=log)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the client for the life of the application."""
    async with EdgegapClient(webhooks=receiver) as client:
        app.state.client = client
        yield
    await receiver.close()  # a mounted application gets no shutdown event


app = FastAPI(lifespan=lifespan)
app.mount("/edgegap/webhooks", receiver.asgi())


@app.post("/servers")
async def deploy(request: Request) -> dict[str, str | None]:
    """Deploy a server near the caller."""
    player = request.client.host if request.client else "127.0.0.1"
    server = await request.app.state.client.deploy("arena", "v1", users=[player])
    try:
        await server.wait_ready()
    except BaseException:  # failed, timed out, or this program is ending
        await server.stop()
        raise
    return {
        "request_id": server.request_id,
        "link": server.endpoint("game").link,
        "source": server.history[-1].source,
    }


@app.delete("/servers/{request_id}")
async def stop(request: Request, request_id: str) -> Response:
    """Stop a server."""
    await request.app.state.client.handle(request_id).stop(wait=True)
    return Response(status_code=204)


if __name__ == "__main__":
    print(f"listening on {PUBLIC_URL}", flush=True)
    uvicorn.run(app, port=urlsplit(PUBLIC_URL).port or 8080, log_level="warning")
