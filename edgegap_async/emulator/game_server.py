"""A small real game server: players join over UDP, move, and see each other.

It starts with the standard library only, because emulators start hundreds of it; of this package it
uses `container`, when it stops itself. It takes its port from the first argument or from
ARBITRIUM_PORTS_MAPPING, as game servers in the cloud do. A datagram and its answer are one line::

    ping                  → pong
    join ANNA             → welcome ANNA to arena in Montreal, Canada
    move 3 4              → ANNA 3 4; BOB 1 2
    info                  → {"request_id": …, "tags": […], "location": {…}, "players": […]}
    leave                 → bye ANNA

Options make it fail on purpose, for tests.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from functools import cached_property

Address = tuple[str, int]


class Options:
    """The command line."""

    port: int | None = None
    address = "127.0.0.1"
    crash_after: float | None = None
    exit_code = 1
    bind_after = 0.0
    never_bind = False
    ignore_sigterm = False
    fork_setsid = False
    stop_self_after: float | None = None


def options() -> Options:
    """Reads the command line."""
    asked = Options()
    words = sys.argv[1:]
    if len(words) == 1 and words[0].isdecimal():  # as emulators start it
        asked.port = int(words[0])
        return asked
    import argparse  # takes a quarter of the start

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("port", type=int, nargs="?", help="default: ARBITRIUM_PORTS_MAPPING")
    parser.add_argument("--address", help=f"address to bind; 0.0.0.0 for all ({Options.address})")
    parser.add_argument("--crash-after", type=float, metavar="S", help="seconds until it exits")
    parser.add_argument("--exit-code", type=int, metavar="N", help="exit code of that crash")
    parser.add_argument("--bind-after", type=float, metavar="S", help="seconds until it binds")
    parser.add_argument("--never-bind", action="store_true", help="run without binding the port")
    parser.add_argument("--ignore-sigterm", action="store_true", help="run on after SIGTERM")
    parser.add_argument("--fork-setsid", action="store_true", help="leave a child behind")
    parser.add_argument(
        "--stop-self-after", type=float, metavar="S", help="seconds until it stops itself"
    )
    return parser.parse_args(namespace=asked)


def log(text: str) -> None:
    """Writes a line to the container's logs."""
    os.write(1, f"{text}\n".encode())  # not `print`, which a signal handler must not enter twice


def mapped_port() -> int:
    """Returns the first port that the cloud has assigned to this server."""
    import json  # takes a fifth of the start

    ports = json.loads(os.environ["ARBITRIUM_PORTS_MAPPING"])["ports"]
    return int(next(iter(ports.values()))["internal"])


class Game:
    """The players and their positions."""

    def __init__(self) -> None:
        self.players: dict[Address, str] = {}
        self.positions: dict[str, str] = {}

    @cached_property
    def location(self) -> dict[str, object]:
        """The city that the cloud has chosen; empty outside of a deployment."""
        import json  # takes a fifth of the start

        found: dict[str, object] = json.loads(os.environ.get("ARBITRIUM_DEPLOYMENT_LOCATION", "{}"))
        return found

    def answer(self, text: str, sender: Address) -> str:
        """Returns the answer to one line of a player."""
        command, _, rest = text.strip().partition(" ")
        player = self.players.get(sender)
        match command:
            case "ping":
                said = "pong"
            case "info":
                import json  # takes a fifth of the start

                said = json.dumps(self.info())
            case "join" if rest:
                self.players[sender] = rest
                log(f"{rest} joined")
                where = f"{self.location.get('city')}, {self.location.get('country')}"
                said = f"welcome {rest} to arena in {where}"
            case "move" if player and rest:
                self.positions[player] = rest
                said = "; ".join(f"{name} {position}" for name, position in self.positions.items())
            case "leave" if player:
                log(f"{player} left")
                del self.players[sender]
                self.positions.pop(player, None)
                said = f"bye {player}"
            case _:
                said = "what?" if player else "join first"
        return said

    def info(self) -> dict[str, object]:
        """Returns what this server knows of its deployment."""
        return {
            "request_id": os.environ.get("ARBITRIUM_REQUEST_ID"),
            "tags": [
                tag for tag in os.environ.get("ARBITRIUM_DEPLOYMENT_TAGS", "").split(",") if tag
            ],
            "location": self.location,
            "players": sorted(self.players.values()),
        }


def stop_self() -> None:
    """Asks the API to stop this deployment; SIGTERM follows."""
    import asyncio  # these imports take ten times as long as the start
    from pathlib import Path

    sys.path.append(str(Path(__file__).parents[2]))  # `python -I` leaves it out
    from edgegap_async.container import ThisDeployment

    here = ThisDeployment.from_environment()
    if here is None:
        log("not in a deployment: nothing to stop")
        return
    log("asking to be stopped")
    asyncio.run(here.stop())
    log("the API has accepted the stop")


def start_orphan() -> None:
    """Starts a child in a session of its own that outlives this process."""
    if os.fork() == 0:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(3600)
        os._exit(0)


def terminated(*_: object) -> None:
    """Ends with exit code 0, at once: the end of Python costs a sixth of what its start does."""
    log("terminated")
    os._exit(0)


def main() -> None:
    """Serves until SIGTERM, or until an option ends it."""
    asked = options()
    signal.signal(signal.SIGTERM, signal.SIG_IGN if asked.ignore_sigterm else terminated)
    started = time.monotonic()
    if asked.fork_setsid:
        start_orphan()
    timed_actions = sorted(
        (started + after, what)
        for after, what in ((asked.crash_after, "crash"), (asked.stop_self_after, "stop self"))
        if after is not None
    )
    port = mapped_port() if asked.port is None else asked.port
    log(f"starting on port {port}")
    time.sleep(asked.bind_after)
    game = Game()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        if not asked.never_bind:
            server.bind((asked.address, port))
            log("ready")
        while True:
            due, action = timed_actions[0] if timed_actions else (None, "")
            server.settimeout(None if due is None else max(0.001, due - time.monotonic()))
            try:
                if asked.never_bind:
                    time.sleep(3600 if due is None else max(0.0, due - time.monotonic()))
                    raise TimeoutError  # noqa: TRY301 - as without any datagram
                data, sender = server.recvfrom(2048)
            except TimeoutError:
                del timed_actions[:1]
                if action == "crash":
                    log("crashing")
                    sys.exit(asked.exit_code)
                if action:
                    stop_self()
                continue
            server.sendto(game.answer(data.decode("utf-8", "replace"), sender).encode(), sender)


if __name__ == "__main__":
    main()
