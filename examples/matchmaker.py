"""A matchmaker: groups players by two and hands each group a server.

    python examples/matchmaker.py [PORT]

    POST /join {"name": "Ada", "ip": "75.28.35.192"}   waits for a match, then tells where to play
    POST /over {"match": "…"}                          ends the match; its server is stopped

A match is a task that holds its server for as long as it lasts. Ending the program, by Ctrl-C or
SIGTERM, cancels the tasks, and leaving `client.run` stops the servers. What a run that was killed
has left is stopped by the next one, which knows it by its owner.
"""

import asyncio
import json
import signal
import sys
from dataclasses import dataclass, field

from aiohttp import web

from edgegap_async import EdgegapClient, EdgegapError

PLAYERS_IN_A_MATCH = 2


@dataclass
class Match:
    """Players who play together, where, and until when."""

    players: dict[str, str]
    answer: asyncio.Future[dict[str, object]]
    is_over: asyncio.Event = field(default_factory=asyncio.Event)


class Matchmaker:
    """Waiting players, and the matches they were put in."""

    def __init__(self, client: EdgegapClient, matches: asyncio.TaskGroup) -> None:
        self.client = client
        self.tasks = matches
        self.waiting: Match | None = None
        self.running: dict[str, Match] = {}

    async def join(self, request: web.Request) -> web.Response:
        """Answer when the player's match has a server."""
        player = await said(request, "name", "ip")
        match = self.waiting or Match({}, asyncio.get_running_loop().create_future())
        self.waiting = match
        match.players[player["name"]] = player["ip"]
        if len(match.players) == PLAYERS_IN_A_MATCH:
            self.waiting = None
            self.tasks.create_task(self.play(match))
        # Shielded: a player who hangs up takes nobody else's server away.
        answer = await asyncio.shield(match.answer)
        return web.json_response(answer, status=503 if "error" in answer else 200)

    async def play(self, match: Match) -> None:
        """Hold a server for as long as the match lasts."""
        try:
            users = list(match.players.values())
            async with self.client.run("arena", "v1", users=users, tags=["match"]) as server:
                game = server.endpoint("game")
                self.running[server.request_id] = match
                match.answer.set_result(
                    {
                        "match": server.request_id,
                        "host": game.host,
                        "port": game.port,
                        "players": list(match.players),
                    }
                )
                await match.is_over.wait()
        except EdgegapError as error:
            print(f"no server for {', '.join(match.players)}: {error}")
            if not match.answer.done():
                match.answer.set_result({"error": "no server, try again"})

    async def over(self, request: web.Request) -> web.Response:
        """End a match."""
        match = self.running.pop((await said(request, "match"))["match"], None)
        if match is None:
            raise web.HTTPNotFound
        match.is_over.set()
        return web.json_response({"players": list(match.players)})


async def said(request: web.Request, *names: str) -> dict[str, str]:
    """What a request says by these names."""
    try:
        body = await request.json()
        return {name: str(body[name]) for name in names}
    except (json.JSONDecodeError, KeyError, TypeError) as problem:
        raise web.HTTPBadRequest(text=f"a JSON object with {' and '.join(names)}") from problem


async def main(port: int) -> None:
    """Serve until interrupted."""
    if me := asyncio.current_task():  # or SIGTERM would end the program before it cleans up
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, me.cancel)
    async with EdgegapClient(owner="matchmaker") as client, asyncio.TaskGroup() as matches:
        await client.reap()
        matchmaker = Matchmaker(client, matches)
        app = web.Application()
        app.router.add_post("/join", matchmaker.join)
        app.router.add_post("/over", matchmaker.over)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        print(f"listening on http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
        try:
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()


if __name__ == "__main__":
    try:
        asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 8080))
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("every server is stopped")
