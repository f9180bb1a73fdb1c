"""Who may see the page: login links, each of which works once, and the sessions that they start.

A link holds a random code. The browser that opens it first gets a session: a cookie that holds the
time of its end and a signature by a key made from the API token. So no session is stored, and one
goes on after a restart of the emulator with the same token.

A session stands for the API token, with three differences that stop other web pages of this
machine, which browsers count as the same site whatever their port: the cookie is `HttpOnly` and
`SameSite=Strict`; a request that another origin has caused is refused, by `Sec-Fetch-Site`; and a
request that changes something needs the header `X-Emulator-Page`, which no form can send.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from typing import Final

import attrs
from aiohttp import web

PAGE_HEADER: Final = "X-Emulator-Page"
"""The header of requests of the page that change something."""

_SESSION_SECONDS: Final = 7 * 86400.0
_LINK_SECONDS: Final = 3600.0
_MAX_LINKS: Final = 100  # links that are remembered, used ones too; the oldest are forgotten
_READING: Final = frozenset({"GET", "HEAD"})


@attrs.define
class _Link:
    """One login link."""

    ends_at: float
    is_used: bool = False


class Sessions:
    """Makes login links and sessions, and recognizes them.

    Args:
        token: the API token.
        now: the time in seconds since 1970.
    """

    def __init__(self, token: str, now: Callable[[], float] = time.time) -> None:
        self._key = hmac.digest(token.encode(), b"sessions of the page", "sha256")
        del token  # a traceback that shows local variables must not show it
        self._now = now
        self._links: dict[bytes, _Link] = {}  # by the digest of the code

    # ── links ────────────────────────────────────────────────────────────────────────────────────

    def new_link(self) -> str:
        """Returns path and query of a link that logs one browser in, within an hour."""
        code = secrets.token_urlsafe(24)
        self._links[_digest(code)] = _Link(self._now() + _LINK_SECONDS)
        if len(self._links) > _MAX_LINKS:
            del self._links[next(iter(self._links))]
        return f"/?login={code}"

    def refuse_link(self, code: str) -> str | None:
        """Uses a link. Returns why it logs no browser in, or None if it does."""
        link = self._links.get(_digest(code))
        if link is None:
            return "This login link is not one of this emulator."
        if link.is_used:
            return "This login link was used before: it works once."
        link.is_used = True
        if link.ends_at < self._now():
            return "This login link is over: it works for one hour."
        return None

    # ── sessions ─────────────────────────────────────────────────────────────────────────────────

    def start(self, request: web.BaseRequest, answer: web.Response) -> None:
        """Gives the browser that gets this answer a session of seven days."""
        ends = f"{self._now() + _SESSION_SECONDS:.0f}.{secrets.token_hex(8)}"
        answer.set_cookie(
            _cookie_name(request),
            f"{ends}.{self._signature(ends)}",
            max_age=int(_SESSION_SECONDS),
            path="/",
            httponly=True,
            samesite="Strict",
        )

    def allows(self, request: web.BaseRequest) -> bool:
        """Returns whether a request is of a session, and sent by the page itself."""
        if request.headers.get("Sec-Fetch-Site") not in {None, "none", "same-origin"}:
            return False
        if request.method not in _READING and PAGE_HEADER not in request.headers:
            return False
        return self.has_session(request)

    def has_session(self, request: web.BaseRequest) -> bool:
        """Returns whether a request has the cookie of a session."""
        ends, _, signature = request.cookies.get(_cookie_name(request), "").rpartition(".")
        if not hmac.compare_digest(signature.encode(), self._signature(ends).encode()):
            return False
        return float(ends.partition(".")[0]) > self._now()

    def _signature(self, text: str) -> str:
        return hmac.digest(self._key, text.encode(), "sha256").hex()


def _cookie_name(request: web.BaseRequest) -> str:
    """Returns the name of the cookie: with the port, since browsers share cookies among ports."""
    port = request.host.rpartition(":")[2]
    return f"edgegap_emulator_{port if port.isdigit() else 80}"


def _digest(code: str) -> bytes:
    return hashlib.sha256(code.encode(errors="replace")).digest()
