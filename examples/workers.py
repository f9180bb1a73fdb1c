"""Serve from several processes: each worker of uvicorn has a client and an owner of its own.

    pip install fastapi uvicorn
    uvicorn --workers 2 --timeout-graceful-shutdown 5 --app-dir examples workers:app

    POST /servers        deploys a server and answers when it is READY
    DELETE /servers/ID   stops it; another worker than the one that holds it answers 404

POD_NAME is the name of the pod, which Kubernetes sets (see DEPLOYING.md).
"""

import asyncio
import fcntl
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TextIO

from fastapi import FastAPI, HTTPException, Request

from edgegap_async import EdgegapClient, EdgegapError

WORKERS = 2
LOCKS: list[TextIO] = []  # held until the process ends


def claim_owner(program: str) -> str:
    """Return a name that no other worker on this machine has, and that the next run has again."""
    for number in range(64):
        path = Path(tempfile.gettempdir()) / f"{program}-{number}.lock"
        lock = path.open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # another worker has this name
            lock.close()
        else:
            LOCKS.append(lock)
            return f"{program}-{number}"
    raise RuntimeError("there are 64 workers already")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the worker's client; its end stops the worker's servers."""
    owner = claim_owner(os.environ.get("POD_NAME", "workers"))
    # The limits are the organization's: without a Cluster each worker takes its share.
    limits = {
        "deploy": 40 / WORKERS,
        "get_deployment": 20 / WORKERS,
        "list_deployments": 10 / WORKERS,
    }
    async with EdgegapClient(owner=owner, limits=limits) as client:
        await client.reap()  # what the worker of this name has left, if it was killed
        app.state.client, app.state.running, app.state.tasks = client, {}, set()
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/servers")
async def deploy(request: Request) -> dict[str, str]:
    """Deploy a server, which a task of this worker holds."""
    state = request.app.state
    ready: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()

    async def hold() -> None:
        try:
            async with state.client.run("arena", "v1", users=["75.28.35.192"]) as server:
                ready.set_result(server.request_id)
                async for change in server.changes():
                    print(f"{server.request_id} is {change.status}")
        except EdgegapError as error:
            print(f"no server: {error}")
        finally:
            if not ready.done():
                ready.set_result(None)

    task = asyncio.create_task(hold())
    state.tasks.add(task)
    task.add_done_callback(state.tasks.discard)
    request_id = await asyncio.shield(ready)
    if request_id is None:
        raise HTTPException(503, "no server, try again")
    state.running[request_id] = task
    task.add_done_callback(lambda _: state.running.pop(request_id, None))
    return {"request_id": request_id, "owner": state.client.owner}


@app.delete("/servers/{request_id}", status_code=204)
async def stop(request: Request, request_id: str) -> None:
    """Stop a server of this worker."""
    task = request.app.state.running.pop(request_id, None)
    if task is None:
        raise HTTPException(404, "this worker does not hold the server")
    task.cancel()  # which ends the block of `client.run`
