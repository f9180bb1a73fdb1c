"""Receives the webhooks of deployments and wakes whoever waits.

Theory. Edgegap signs nothing, sends a webhook once, and its body is the deployment's status. So
each deployment gets URLs with a secret of its own, and all that a call to one of them does is to
wake the look-out of that deployment, which then asks the API. What the body says is not believed;
that it is JSON at all is asked only to turn away what strays here. The secrets are kept as hashes,
as long as somebody holds the deployment's handle; a URL that is unknown, or not any more, is 404.

Three ways to use it, the receiver made first and given to the client as `webhooks`:

- `async with WebhookReceiver(public_url=…).serve(port=8080)`: a small server of its own;
- `receiver.attach(app)`: in an aiohttp application of yours, before it starts;
- `receiver.application()`: the same as a sub-application, to mount as you like.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import secrets
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

from .codec import loads
from .errors import InvalidRequest

if TYPE_CHECKING:
    from aiohttp import web

__all__ = ["WebhookReceiver"]

logger = logging.getLogger("edgegap_async.webhooks")

_LARGEST: Final = 64 * 1024  # bytes: a status has about one thousand


class _Hook:
    """The URLs of one deployment."""

    def __init__(self, url: str, wake: Callable[[], None]) -> None:
        self.on_ready = f"{url}/ready"
        self.on_error = f"{url}/error"
        self.on_terminated = f"{url}/terminated"
        self.wake = wake


class WebhookReceiver:
    """Gives each deployment webhook URLs, and ends waits as soon as one is called.

    Args:
        public_url: how the API reaches this program, such as `https://mm.example.com`: without
            the path below. May be left out with `serve()` where client and API are on one
            machine, as with the emulator.
        path: below which path the webhooks come; begins with `/`.

    Raises:
        InvalidRequest: `public_url` is not an http or https URL, or `path` not a path.
    """

    def __init__(self, public_url: str | None = None, *, path: str = "/edgegap/webhooks") -> None:
        if public_url is not None and not _reachable(public_url):
            raise InvalidRequest(f"not a URL that the API could reach: {public_url!r}")
        if not path.startswith("/") or not path.strip("/"):
            raise InvalidRequest(f"path begins with / and names something, not {path!r}")
        self._public_url = public_url and public_url.rstrip("/")
        self._path = path.rstrip("/")
        self._hooks = WeakValueDictionary[bytes, _Hook]()
        self.received = 0
        """How many webhooks came to a URL that is known."""
        self.elsewhere: Callable[[bytes], None] | None = None
        """What to call with the hash of a URL that is not known here; see `Cluster.signals`."""

    def open(self, wake: Callable[[], None]) -> _Hook:
        """Fresh URLs for one deployment; whatever comes to them calls `wake`, in the loop."""
        if self._public_url is None:
            raise InvalidRequest(
                "the API cannot reach this receiver: give it a public_url, or serve() it first"
            )
        secret = secrets.token_urlsafe(32)
        hook = _Hook(f"{self._public_url}{self._path}/{secret}", wake)
        self._hooks[_hash(secret)] = hook
        return hook

    def wake(self, key: bytes) -> bool:
        """Wakes whoever waits for the URL with this hash, and tells whether it is known here."""
        hook = self._hooks.get(key)
        if hook is None:
            return False
        self.received += 1
        hook.wake()
        return True

    def application(self) -> web.Application:
        """An aiohttp application that receives the webhooks, to be mounted at `path`."""
        from aiohttp import web  # noqa: PLC0415 - a tenth of the package's import time

        application = web.Application(client_max_size=_LARGEST)
        application.router.add_post("/{secret}/{event:ready|error|terminated}", self._receive)
        return application

    def attach(self, application: web.Application) -> None:
        """Mounts the receiver in an application of yours, which has not started yet."""
        application.add_subapp(self._path, self.application())

    @contextlib.asynccontextmanager
    async def serve(self, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[Self]:
        """A server of its own for the webhooks, as long as the block lasts.

        Args:
            host: address to listen on; `0.0.0.0` or `::` for all.
            port: port to listen on; 0 for a free one.

        Raises:
            InvalidRequest: it listens on all addresses and has no `public_url`.
        """
        if self._public_url is None and host in {"", "0.0.0.0", "::"}:  # noqa: S104 - what is refused
            raise InvalidRequest("a receiver that listens on all addresses needs a public_url")
        from aiohttp import web  # noqa: PLC0415 - as above

        application = web.Application(client_max_size=_LARGEST)
        self.attach(application)
        # The URLs are secret, so no access log.
        runner = web.AppRunner(application, access_log=None, handler_cancellation=True)
        await runner.setup()
        given = self._public_url
        try:
            await web.TCPSite(runner, host, port).start()
            if given is None:
                bound_host, bound_port = runner.addresses[0][:2]
                name = f"[{bound_host}]" if ":" in bound_host else bound_host
                self._public_url = f"http://{name}:{bound_port}"
            yield self
        finally:
            self._public_url = given
            await runner.cleanup()

    async def _receive(self, request: web.Request) -> web.Response:
        from aiohttp import web  # noqa: PLC0415 - as above

        key = _hash(request.match_info["secret"])
        if key not in self._hooks and self.elsewhere is None:
            raise web.HTTPNotFound
        try:
            # An application that this is mounted in may allow larger ones.
            body = loads(await request.clone(client_max_size=_LARGEST).read())
        except (ValueError, RecursionError, web.RequestPayloadError):
            body = None
        if not isinstance(body, dict):
            logger.warning("a webhook that is not a JSON object was turned away")
            raise web.HTTPBadRequest
        if not self.wake(key) and self.elsewhere is not None:
            self.elsewhere(key)
        return web.Response(status=204)


def _reachable(url: str) -> bool:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:  # no port number, or half an IPv6 address
        return False
    return bool(usable) and not (parts.query or parts.fragment)


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "replace")).digest()
