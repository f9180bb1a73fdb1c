"""Use Edgegap's Matchmaking service, which has an API of its own, by operations of your own.

MATCHMAKER_URL=https://… MATCHMAKER_TOKEN=… python examples/matchmaking_service.py 192.0.2.1
"""

import asyncio
import contextlib
import os
import sys
from collections.abc import Mapping

import attrs

from edgegap_async import ApiClient, run
from edgegap_async.errors import NotFound
from edgegap_async.models import ApiResponse
from edgegap_async.requests import Operation, Token


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Ticket(ApiResponse):
    """A player who waits for a match. Other fields of the answer are in `ticket.raw`."""

    id: str  # an answer without it is an error
    status: str = "SEARCHING"
    assignment: Mapping[str, object] | None = None  # where the match is played, once there is one


CREATE_TICKET = Operation(
    name="create_ticket", method="POST", path="/tickets", returns=Ticket, ok={200, 201}, limit=10
)
GET_TICKET = Operation(
    name="get_ticket", method="GET", path="/tickets/{ticket_id}", returns=Ticket, ok={200}, limit=10
)
DELETE_TICKET = Operation(
    name="delete_ticket",
    method="DELETE",
    path="/tickets/{ticket_id}",
    returns=type(None),
    ok={200, 204},
    limit=10,
)


async def play(client: ApiClient, player: str) -> None:
    """Wait for a match of one player."""
    wanted = {"profile": "casual", "attributes": {}, "player_ip": player}
    ticket = await client.call(CREATE_TICKET, body=wanted)
    path = {"ticket_id": ticket.id}
    try:
        async with asyncio.timeout(60):
            while ticket.status not in {"HOST_ASSIGNED", "CANCELLED"}:
                await asyncio.sleep(1)
                ticket = await client.call(GET_TICKET, path=path)
    except BaseException:
        with contextlib.suppress(NotFound):  # the player is gone, and gets no match
            await client.call(DELETE_TICKET, path=path)
        raise
    print(f"{player}: {ticket.status} {ticket.assignment and ticket.assignment['fqdn']}")


async def main() -> None:
    """Match the players that the command line names."""
    token = Token(os.environ["MATCHMAKER_TOKEN"])  # this service wants no word before it
    async with ApiClient(token, base_url=os.environ["MATCHMAKER_URL"]) as client:
        await asyncio.gather(*[play(client, player) for player in sys.argv[1:]])


if __name__ == "__main__":
    run(main())
