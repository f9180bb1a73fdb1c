"""Run a matchmaker over HTTP: it groups players by two and gives each group a server.

    python examples/matchmaker.py [PORT]

    POST /join {"name": "Ada", "ip": "75.28.35.192"}   answers with host and port of the match
    POST /over {"match": "…"}                          ends the match; its server is stopped

Each match is a task that holds its server. Ctrl-C and SIGTERM cancel `main` and the tasks, and the
end of each `client.run` block stops the server. If the program is killed, its next run finds the
servers by their owner and stops them: programs that run at the same time need names of their own,
in POD_NAME.
"""

import asyncio
import json
import os
import sys
from dataclasses import dataclass, field

from aiohttp import web

from edgegap_async import EdgegapClient, EdgegapError, run

PLAYERS_IN_A_MATCH = 2


@dataclass
class Match:
    """Players of one match, their answer, and the task that holds their server."""

    players: dict[str, str]
    answer: asyncio.Future[dict[str, object]]
    task: asyncio.Task[None] = field(init=False)


class Matchmaker:
    """Holds the waiting players and the running matches."""

    def __init__(self, client: EdgegapClient, matches: asyncio.TaskGroup) -> None:
        self.client = client
        self.tasks = matches
        self.waiting: Match | None = None
        self.running: dict[str, Match] = {}

    async def join(self, request: web.Request) -> web.Response:
        """Answer when the player's match has a server."""
        player = await read_body(request, "name", "ip")
        match = self.waiting or Match({}, asyncio.get_running_loop().create_future())
        self.waiting = match
        match.players[player["name"]] = player["ip"]
        if len(match.players) == PLAYERS_IN_A_MATCH:
            self.waiting = None
            match.task = self.tasks.create_task(self.play(match))
        # Shielded: when one player disconnects, the others keep their server.
        answer = await asyncio.shield(match.answer)
        return web.json_response(answer, status=503 if "error" in answer else 200)

    async def play(self, match: Match) -> None:
        """Hold a server until it has ended, or until the end of the match cancels the task."""
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
                async for change in server.changes():  # until ERROR or TERMINATED
                    print(f"{server.request_id} is {change.status}")
                self.running.pop(server.request_id, None)
        except EdgegapError as error:
            print(f"no server for {', '.join(match.players)}: {error}")
            if not match.answer.done():
                match.answer.set_result({"error": "no server, try again"})

    async def over(self, request: web.Request) -> web.Response:
        """End a match."""
        match = self.running.pop((await read_body(request, "match"))["match"], None)
        if match is None:
            raise web.HTTPNotFound
        match.task.cancel()
        return web.json_response({"players": list(match.players)})


async def read_body(request: web.Request, *names: str) -> dict[str, str]:
    """Read these names from the JSON body of a request."""
    try:
        body = await request.json()
        return {name: str(body[name]) for name in names}
    except (json.JSONDecodeError, KeyError, TypeError) as problem:
        raise web.HTTPBadRequest(text=f"send a JSON object with {' and '.join(names)}") from problem


async def main(port: int) -> None:
    """Serve until the program is interrupted."""
    # Two programs that run at the same time must not have one owner: `reap` stops its servers.
    owner = os.environ.get("POD_NAME", "matchmaker-0")
    async with EdgegapClient(owner=owner) as client, asyncio.TaskGroup() as matches:
        await client.reap()
        matchmaker = Matchmaker(client, matches)
        app = web.Application()
        app.router.add_post("/join", matchmaker.join)
        app.router.add_post("/over", matchmaker.over)
        # A player who waits alone would hold up the end, and SIGKILL would leave servers running.
        runner = web.AppRunner(app, shutdown_timeout=2)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        print(f"listening on http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
        try:
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()


if __name__ == "__main__":
    run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 8080))
