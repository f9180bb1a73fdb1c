"""A transport to test, requests for it, and servers that misbehave on the socket."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from raw_server import read_request

from edgegap_async.api.messages import HttpRequest, encode
from edgegap_async.api.operations import DEPLOY, GET_DEPLOYMENT, LIST_DEPLOYMENTS, STOP_DEPLOYMENT
from edgegap_async.api.requests import DeployRequest, Token
from edgegap_async.errors import CallError
from edgegap_async.http.transport import SendState, Timeouts, Transport

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
CANARY = "canary-4f1c0d"
TOKEN = Token(CANARY, scheme="token")
GET = encode(GET_DEPLOYMENT, path={"request_id": "r1"})
LIST = encode(LIST_DEPLOYMENTS, query={"query": "who-asks-what"})
STOP = encode(STOP_DEPLOYMENT, path={"request_id": "r1"})
POST = encode(DEPLOY, body=DeployRequest(application="arena", version="v1", users=["192.0.2.1"]))


@contextlib.asynccontextmanager
async def transport_to(
    base_url: str | int,
    *,
    session: aiohttp.ClientSession | None = None,
    timeouts: Timeouts | None = None,
    allow_insecure: bool = False,
) -> AsyncIterator[Transport]:
    """Opens a transport to a base URL, or to a port of this machine."""
    if isinstance(base_url, int):
        base_url = f"http://127.0.0.1:{base_url}"
    transport = Transport(
        base_url,
        session=session,
        timeouts=timeouts or Timeouts(),
        allow_insecure=allow_insecure,
    )
    try:
        yield transport
    finally:
        await transport.close()


def answering(answer: bytes) -> Talk:
    """Returns a server that answers a request with these bytes."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(answer)
        await writer.drain()

    return talk


async def hang_up(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    """Reads a request and closes the connection."""
    await read_request(reader)


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reads a request and resets the connection."""
    await read_request(reader)
    writer.transport.abort()


async def say_nothing(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    """Reads for ever and never answers."""
    await reader.read()


async def failure(
    transport: Transport, request: HttpRequest[Any], send_state: SendState | None = None
) -> CallError:
    """Sends a request, and returns the error that it must raise."""
    with pytest.raises(CallError) as caught:
        await transport.send(request, TOKEN, send_state or SendState())
    return caught.value
