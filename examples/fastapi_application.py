"""Webhooks in a FastAPI application: the receiver is an ASGI application, and is mounted in it.

PUBLIC_URL is how Edgegap reaches this program; the emulator reaches it on this machine.

    pip install fastapi uvicorn
    PUBLIC_URL=http://127.0.0.1:8080 python examples/fastapi_application.py

    POST /servers        deploys a server, answers when it is READY, and who told: webhook or look
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
    """Print what Edgegap tells; the wait itself is ended without this."""
    print(f"{event.deployment.request_id}: {event.kind}", flush=True)


receiver = WebhookReceiver(PUBLIC_URL, on_event=log)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """The client, as long as the application runs."""
    async with EdgegapClient(webhooks=receiver) as client:
        app.state.client = client
        yield
    await receiver.close()  # what is mounted is not told of the end


app = FastAPI(lifespan=lifespan)
app.mount("/edgegap/webhooks", receiver.asgi())


@app.post("/servers")
async def deploy(request: Request) -> dict[str, str | None]:
    """A server for whoever asks."""
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
    """Its end."""
    await request.app.state.client.handle(request_id).stop(wait=True)
    return Response(status_code=204)


if __name__ == "__main__":
    print(f"listening on {PUBLIC_URL}", flush=True)
    uvicorn.run(app, port=urlsplit(PUBLIC_URL).port or 8080, log_level="warning")
