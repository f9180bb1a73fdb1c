"""Who may use the emulator, which starts processes: the token, and what web pages cannot send.

A web page can make a browser send requests to this machine. So the guard refuses a foreign
`Origin`, a body that is not declared as JSON (a browser asks first before it sends that), and a
`Host` whose name another domain could point at this machine (DNS rebinding). IP addresses as `Host`
are allowed: no domain leads to them.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Callable, Iterable
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web

from edgegap_async.errors import InvalidRequest

from .responses import error_response

_OWN_HOSTS: Final = frozenset(
    {"localhost", "host.docker.internal", "gateway.docker.internal", "host.containers.internal"}
)
"""Names of this machine, and of the host of a container: `.internal` is in no public DNS."""


class HttpGuard:
    """Checks where a request comes from and what it carries.

    Args:
        token: the API token.
        allowed_hosts: further names in the header `Host`, such as a service of Docker Compose.
        has_session: whether a request is of a session of the page, which stands for the token.

    Raises:
        InvalidRequest: a name of `allowed_hosts` is not a host name.
    """

    def __init__(
        self,
        token: str,
        allowed_hosts: Iterable[str] = (),
        *,
        has_session: Callable[[web.BaseRequest], bool] = lambda _: False,
    ) -> None:
        self._header = f"token {token}".encode()
        del token  # a traceback that shows local variables must not show it
        for name in allowed_hosts:
            if not isinstance(name, str) or not re.fullmatch(r"\w[\w.-]*", name, re.ASCII):
                raise InvalidRequest(
                    "allowed_hosts must have host names without a port, such as 'emulator',"
                    f" not {name!r}"
                )
        self._has_session = has_session
        self._hosts = _OWN_HOSTS | {name.lower() for name in allowed_hosts}

    def refuse_foreign(self, request: web.BaseRequest) -> web.Response | None:
        """Returns the 403 for a request that another site may have made a browser send, or None."""
        if not self._is_allowed_host(request.host):
            return error_response(
                403,
                "Not from here: the name in the header Host is not one of this emulator; the"
                " setting allowed_hosts adds names",
            )
        if request.headers.get("Origin") not in {None, f"http://{request.host}"}:
            return error_response(403, "Not from here: wrong Origin")
        return None

    def refuse_unauthorized(self, request: web.BaseRequest) -> web.Response | None:
        """Returns the 401 for a request without the API token, or None."""
        header = request.headers.get("Authorization")
        if header is None:  # then a session of the page stands for the token
            is_allowed = self._has_session(request)
        else:
            given = header.encode(errors="surrogateescape")
            is_allowed = hmac.compare_digest(given, self._header)
        return None if is_allowed else self.unauthorized(header)

    @staticmethod
    def unauthorized(header: str | None = None) -> web.Response:
        """Returns the 401 for a header Authorization, of which it shows nothing."""
        if header is not None and header.startswith("token "):
            return error_response(401, "Unauthorized: the token is not the one of this emulator")
        return error_response(401, "Unauthorized: the header Authorization must be `token …`")

    @staticmethod
    def refuse_other_types(request: web.BaseRequest) -> web.Response | None:
        """Returns the 415 for a body that is not declared as JSON, or None."""
        if not request.body_exists or request.content_type == "application/json":
            return None
        return error_response(
            415, f"Content-Type must be application/json, not {request.content_type}"
        )

    def _is_allowed_host(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name.rstrip(".") in self._hosts or name.endswith(".localhost"):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True
