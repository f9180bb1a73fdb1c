"""Reads the environment variables that Edgegap sets for a game server.

A variable that is absent or unreadable reads as None or empty, as a field of an answer does: a game
server must not fail at its start because of a variable that it may not need. The log names an
unreadable variable, without its value, which may be a secret.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

import attrs

from edgegap_async.api import codec
from edgegap_async.api.models import Json, Location, Port
from edgegap_async.api.models.response import Model
from edgegap_async.api.requests import Token
from edgegap_async.api.values import Value
from edgegap_async.errors import InvalidRequest, log_fields

Result = TypeVar("Result")

logger = logging.getLogger(__name__)

_MAX_PORT: Final = 65535
_TICKET: Final = "MM_TICKET_"
_TICKET_IDS: Final = "MM_TICKET_IDS"


@attrs.frozen(kw_only=True, eq=False, repr=False)
class HostBeacon(Value):
    """The beacon of the host: it answers pings, by which players measure their distance."""

    public_ip: str | None
    """The IP address; None if Edgegap does not say."""
    udp_port: int | None
    """The UDP port, 1 to 65535; None without one."""
    tcp_port: int | None
    """The TCP port, 1 to 65535; None without one."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class MatchmakerMatch(Model):
    """The match that Edgegap's matchmaker has deployed the server for: the MM_* variables.

    `groups`, `teams`, `equality` and `intersection` are JSON as it came, because their form depends
    on the matchmaker's configuration and version; None if the variable is absent or unreadable.
    """

    match_id: str
    """Identifies the match."""
    profile: str | None
    """The name of the matchmaker's profile; None if Edgegap does not say."""
    expansion: str | None
    """The name of the expansion stage in which the match was found; None if there was none."""
    ticket_ids: tuple[str, ...]
    """The ids of the players' tickets."""
    tickets: Mapping[str, Json]
    """The tickets by id, with the attributes of each player."""
    groups: object
    """The groups of players."""
    teams: object
    """The teams of players."""
    equality: object
    """The values of the profile's equality rules."""
    intersection: object
    """The values of the profile's intersection rules."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class OwnUrl(Value):
    """A URL that belongs to this deployment: base URL, the two ids in its path, its token."""

    base_url: str
    request_id: str
    access_point_id: str
    token: Token


@attrs.frozen(kw_only=True, eq=False, repr=False)
class _PortsMapping(Model):
    ports: Mapping[str, Port] = attrs.field(factory=dict)


class Variables:
    """The environment variables of a game server, read as the types that they stand for.

    Args:
        environ: the environment.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def text(self, name: str) -> str | None:
        """Returns the text of a variable; None if it is absent or empty."""
        return self._environ.get(name, "").strip() or None

    def number(self, name: str, *, most: float = math.inf) -> int | None:
        """Returns the whole number of a variable; None if it is absent, unreadable or 0."""

        def read(text: str) -> int:
            number = int(text)
            if not 0 <= number <= most:
                raise ValueError
            return number

        return self._read(name, read) or None

    def flag(self, *names: str) -> bool:
        """Returns whether one of the variables says true."""
        return any((self.text(name) or "").lower() in {"true", "1"} for name in names)

    def json(self, name: str) -> object:
        """Returns the JSON of a variable; None if it is absent or unreadable."""
        return self._read(name, lambda text: codec.loads(text.encode()))

    def ports(self) -> Mapping[str, Port]:
        """Returns the ports by name."""
        mapping = self._read("ARBITRIUM_PORTS_MAPPING", _reader_of(_PortsMapping))
        return {} if mapping is None else mapping.ports

    def location(self) -> Location | None:
        """Returns where the deployment runs; None if Edgegap does not say."""
        return self._read("ARBITRIUM_DEPLOYMENT_LOCATION", _reader_of(Location))

    def beacon(self) -> HostBeacon | None:
        """Returns the beacon of the host; None without one."""
        # First-party programs set one name of the flag and read the other.
        if not self.flag("ARBITRIUM_HOST_BEACON_ENABLED", "ARBITRIUM_BEACON_ENABLED"):
            return None
        return HostBeacon(
            public_ip=self.text("ARBITRIUM_HOST_BEACON_PUBLIC_IP"),
            udp_port=self.number("ARBITRIUM_HOST_BEACON_PORT_UDP_EXTERNAL", most=_MAX_PORT),
            tcp_port=self.number("ARBITRIUM_HOST_BEACON_PORT_TCP_EXTERNAL", most=_MAX_PORT),
        )

    def match(self) -> MatchmakerMatch | None:
        """Returns the matchmaker's match; None if no matchmaker has deployed the server."""
        match_id = self.text("MM_MATCH_ID")
        if match_id is None:
            return None
        tickets = {
            name.removeprefix(_TICKET): self.json(name)
            for name in self._environ
            if name.startswith(_TICKET) and name != _TICKET_IDS
        }
        ids = self.json(_TICKET_IDS)
        return MatchmakerMatch(
            match_id=match_id,
            profile=self.text("MM_MATCH_PROFILE"),
            expansion=self.text("MM_EXPANSION"),
            ticket_ids=tuple(map(str, ids if isinstance(ids, list) else tickets)),
            tickets={each: value for each, value in tickets.items() if isinstance(value, dict)},
            groups=self.json("MM_GROUPS"),
            teams=self.json("MM_TEAMS"),
            equality=self.json("MM_EQUALITY"),
            intersection=self.json("MM_INTERSECTION"),
        )

    def own_url(self, url_name: str, token_name: str) -> OwnUrl | None:
        """Returns a URL of this deployment with its token; None if either is absent."""

        def read(url: str) -> OwnUrl:
            found = re.fullmatch(r"(https?://[^/]+.*?)/v1/.+/([^/]+)/([^/]+)/?", url)
            if found is None:
                raise ValueError
            base_url, request_id, access_point_id = found.groups()
            return OwnUrl(
                base_url=base_url,
                request_id=request_id,
                access_point_id=access_point_id,
                token=Token(self._environ[token_name].strip()),
            )

        return self._read(url_name, read) if self.text(token_name) else None

    def _read(self, name: str, read: Callable[[str], Result]) -> Result | None:
        text = self.text(name)
        try:
            return None if text is None else read(text)
        except (ValueError, InvalidRequest, RecursionError):
            logger.warning(
                "the environment variable %s is unreadable", name, extra=log_fields(variable=name)
            )
            return None


def _reader_of(kind: type[Result]) -> Callable[[str], Result]:
    return lambda text: codec.read_answer(kind, text.encode())
