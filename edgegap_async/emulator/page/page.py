"""Serves the page: its files, the login, the stream of changes.

The files are static and hold no data. Each answer has a policy that lets a browser load nothing but
these files and ask nothing but this emulator, and that makes it refuse to read a text as HTML
(Trusted Types): a name or a log line with a script in it stays a text.
"""

from __future__ import annotations

import asyncio
import contextlib
import html
from collections.abc import Callable
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from aiohttp import web

from edgegap_async.api.codec import dumps
from edgegap_async.concurrency import create_detached_task
from edgegap_async.emulator.responses import error_response

from .feed import Stream
from .sessions import Sessions

if TYPE_CHECKING:
    from edgegap_async.emulator.emulator import Emulator

FILES_PATH: Final = "/_emulator/page/"
"""Where the paths of the page's files begin."""
STREAM_PATH: Final = "/_emulator/stream"
"""The path of the stream of changes."""

_MAX_STREAMS: Final = 32  # open pages
_TYPES: Final = {
    "css": "text/css",
    "html": "text/html",
    "js": "text/javascript",
    "svg": "image/svg+xml",
}
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
    " require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS: Final = {
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class Page:
    """Serves the page.

    Args:
        shown: what it shows.
        sessions: who may see it.
        refuse_unauthorized: the 401 for a request without token and session, or None.
    """

    def __init__(
        self,
        shown: Emulator,
        sessions: Sessions,
        refuse_unauthorized: Callable[[web.BaseRequest], web.Response | None],
    ) -> None:
        self._sessions = sessions
        self._refuse_unauthorized = refuse_unauthorized
        self._shown = shown
        self._streams: set[asyncio.Task[None]] = set()
        folder = files(__package__ or __name__).joinpath("assets")
        self._files = {one.name: one for one in folder.iterdir()}

    def has(self, request: web.BaseRequest) -> bool:
        """Returns whether a request is one for the page."""
        if request.method != "GET":
            return False
        path = request.path
        if path == "/":  # the API answers programs that ask for it
            return "text/html" in request.headers.get("Accept", "")
        return path == STREAM_PATH or path.startswith(FILES_PATH)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answers a request for the page."""
        if request.path == STREAM_PATH:
            return self._refuse_unauthorized(request) or await self._stream(request)
        if request.path != "/":
            return self._file(request.path.removeprefix(FILES_PATH))
        code = request.query.get("login")
        if code is not None:
            return self._log_in(request, code)
        if self._sessions.has_session(request):
            return self._file("index.html")
        return self._login_form("You are not logged in.")

    def close(self) -> None:
        """Ends the streams that are open."""
        for stream in self._streams:
            stream.cancel()

    # ── files, login ─────────────────────────────────────────────────────────────────────────────

    def _file(self, name: str, *, status: int = 200) -> web.Response:
        file = self._files.get(name)
        if file is None:
            return error_response(404, "Not Found")
        return web.Response(
            status=status,
            body=file.read_bytes(),
            content_type=_TYPES[name.rpartition(".")[2]],
            charset="utf-8",
            headers=_HEADERS,
        )

    def _log_in(self, request: web.BaseRequest, code: str) -> web.Response:
        """Exchanges a login link for a session.

        The answer is a page that goes on to `/`, and no redirect: after a click in another site a
        browser would not send the new cookie, which is `SameSite=Strict`, along a redirect.
        """
        refused = self._sessions.refuse_link(code)
        if refused is None:
            answer = self._file("welcome.html")
            self._sessions.start(request, answer)
            return answer
        if self._sessions.has_session(request):  # the link in the history of this browser
            return self._file("welcome.html")
        return self._login_form(refused)

    def _login_form(self, reason: str) -> web.Response:
        answer = self._file("login.html", status=401)
        assert answer.text is not None  # noqa: S101 - it is a file of ours
        answer.text = answer.text.replace("{reason}", html.escape(reason))
        return answer

    # ── stream ───────────────────────────────────────────────────────────────────────────────────

    async def _stream(self, request: web.BaseRequest) -> web.StreamResponse:
        if len(self._streams) >= _MAX_STREAMS:
            return error_response(503, f"{_MAX_STREAMS} pages are open: close one")
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
        )
        await response.prepare(request)
        task = create_detached_task(self._send(response))
        self._streams.add(task)
        try:
            await asyncio.wait({task})
        finally:
            task.cancel()
            self._streams.discard(task)
        return response

    async def _send(self, response: web.StreamResponse) -> None:
        """Sends the messages of a stream until the page is closed."""
        stream = Stream(self._shown)
        with stream.listening(), contextlib.suppress(ConnectionError):  # the page is closed
            async for message in stream.messages():
                await response.write(b"data: " + dumps(message) + b"\n\n")
