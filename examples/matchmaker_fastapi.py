"""Run a matchmaker in FastAPI: it groups players by two, and a webhook reports each READY server.

PUBLIC_URL is how Edgegap reaches this program; the emulator reaches it on this machine.

    pip install fastapi uvicorn
    PUBLIC_URL=http://127.0.0.1:8080 python examples/matchmaker_fastapi.py

    POST /join {"name": "Ada", "ip": "75.28.35.192"}   answers with host and port of the match
    DELETE /matches/ID                                 ends the match; its server is stopped

Each match is a task that holds its server. uvicorn ends at Ctrl-C and SIGTERM; the end of the
application cancels the tasks, and the end of each `client.run` block stops the server.
test_matchmaker_fastapi.py tests this program.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from urllib.parse import urlsplit

import uvicorn
from fastapi import FastAPI, HTTPException, Request
from pydantic import BaseModel

from edgegap_async import EdgegapClient, EdgegapError, WebhookReceiver

PLAYERS_IN_A_MATCH = 2


class Player(BaseModel):
    """A player who joins."""

    name: str
    ip: IPv4Address | IPv6Address


class Game(BaseModel):
    """Where the players of a match meet."""

    match: str
    host: str
    port: int
    players: list[str]


@dataclass
class Match:
    """Players of one match, the future of their server, and the task that holds it."""

    players: list[Player] = field(default_factory=list)
    game: asyncio.Future[Game | None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    task: asyncio.Task[None] = field(init=False)


class Matchmaker:
    """Holds the waiting players and the running matches."""

    def __init__(self, client: EdgegapClient) -> None:
        self.client = client
        self.waiting: Match | None = None
        self.running: dict[str, Match] = {}
        self.tasks: set[asyncio.Task[None]] = set()

    async def join(self, player: Player) -> Game:
        """Answer when the player's match has a server."""
        match = self.waiting = self.waiting or Match()
        match.players.append(player)
        if len(match.players) == PLAYERS_IN_A_MATCH:
            self.waiting = None
            match.task = asyncio.create_task(self.play(match))
            self.tasks.add(match.task)
            match.task.add_done_callback(self.tasks.discard)
        # Shielded: when one player disconnects, the others keep their server.
        game = await asyncio.shield(match.game)
        if game is None:
            raise HTTPException(503, "no server, try again")
        return game

    async def play(self, match: Match) -> None:
        """Hold a server until it has ended, or until the end of the match cancels the task."""
        names, users = [one.name for one in match.players], [str(one.ip) for one in match.players]
        try:
            async with self.client.run("arena", "v1", users=users, tags=["match"]) as server:
                at = server.endpoint("game")
                self.running[server.request_id] = match
                match.game.set_result(
                    Game(match=server.request_id, host=at.host, port=at.port, players=names)
                )
                async for change in server.changes():  # until ERROR or TERMINATED
                    print(f"{server.request_id} is {change.status}")
                self.running.pop(server.request_id, None)
        except EdgegapError as error:
            print(f"no server for {', '.join(names)}: {error}")
        finally:
            if not match.game.done():
                match.game.set_result(None)

    async def close(self) -> None:
        """End every match."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


def application(client: EdgegapClient, receiver: WebhookReceiver) -> FastAPI:
    """Make the application; the client and the receiver of its webhooks live as long as it does."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with client:
            await client.reap()  # what an earlier run has left, if it was killed
            app.state.matchmaker = Matchmaker(client)
            yield
            await app.state.matchmaker.close()
        await receiver.close()  # a mounted application gets no shutdown event

    app = FastAPI(lifespan=lifespan)
    app.mount("/edgegap/webhooks", receiver.asgi())

    @app.post("/join")
    async def join(request: Request, player: Player) -> Game:
        matchmaker: Matchmaker = request.app.state.matchmaker
        return await matchmaker.join(player)

    @app.delete("/matches/{match}", status_code=204)
    async def end(request: Request, match: str) -> None:
        ended = request.app.state.matchmaker.running.pop(match, None)
        if ended is None:
            raise HTTPException(404, "there is no such match")
        ended.task.cancel()

    return app


if __name__ == "__main__":
    url = os.environ["PUBLIC_URL"]
    webhooks = WebhookReceiver(url)
    print(f"listening on {url}", flush=True)
    # Two programs that run at the same time must not have one owner: `reap` stops its servers.
    owner = os.environ.get("POD_NAME", "matchmaker-0")
    uvicorn.run(
        application(EdgegapClient(owner=owner, webhooks=webhooks), webhooks),
        port=urlsplit(url).port or 8080,
        log_level="warning",
        timeout_graceful_shutdown=5,  # players who wait alone would wait for ever
    )
