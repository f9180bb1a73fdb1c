"""How a client reaches the API: the base URL, a proxy, and the token that a call carries.

A value that is copied from a document or a shell brings quotes, spaces or the path of a call with
it. Each such slip has an error that says what to change. No error shows the credentials of a URL.

The token goes to the API through a proxy only inside TLS: the proxy opens a tunnel (CONNECT) and
sees host and port. So a proxy needs a base URL with https.

`Token` (in `api.requests`) hides the secret and writes the Authorization header. Another
authentication scheme changes `Token` and this module.
"""

from __future__ import annotations

import base64
import os
import re
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

from edgegap_async.api.requests import Token
from edgegap_async.api.validation import QUOTES, is_loopback
from edgegap_async.errors import InvalidRequest

_EXAMPLE: Final = "https://api.edgegap.com"
_PROXY_EXAMPLE: Final = "http://user:password@proxy.example:3128"
_SCHEME: Final = "token"  # first word of the Authorization header
_TRUE_WORDS: Final = frozenset({"1", "true", "yes", "on"})
_FALSE_WORDS: Final = frozenset({"", "0", "false", "no", "off"})

ALLOW_INSECURE: Final = "EDGEGAP_ALLOW_INSECURE"
"""The variable that allows http to another host, such as a service of Docker Compose."""


def is_set(environment: Mapping[str, str], name: str) -> bool:
    """Returns whether a variable is 1; False without the variable.

    Raises:
        InvalidRequest: it is neither 1 nor 0, nor a word for one of them.
    """
    value = environment.get(name, "").strip().lower()
    if value not in _TRUE_WORDS | _FALSE_WORDS:
        raise InvalidRequest(f"{name} must be 1 or 0, not {value!r}")
    return value in _TRUE_WORDS


def checked_base_url(base_url: str, *, allow_insecure: bool) -> str:
    """Returns the base URL without white space around it and without a slash at its end.

    Args:
        base_url: scheme and host of the API, with a path prefix if there is one.
        allow_insecure: True to allow http to a host other than this machine.

    Raises:
        InvalidRequest: the URL would reach no call of the API, or would show the token.
    """
    base_url = base_url.strip()
    if slip := next(_slips_in(base_url), None):
        raise InvalidRequest(f"base_url must {slip}")
    parts = urlsplit(base_url)
    if parts.scheme == "http" and not is_loopback(parts.hostname or "") and not allow_insecure:
        raise InvalidRequest(
            f"http://{parts.hostname} would show the token to the network: use https, or set"
            f" {ALLOW_INSECURE}=1 (in code allow_insecure=True) if that network is yours"
        )
    return base_url.rstrip("/")


def port_of_this_machine(base_url: str) -> int | None:
    """Returns the port of a base URL that names this machine; None for another machine."""
    parts = urlsplit(base_url)
    return parts.port if is_loopback(parts.hostname or "") else None


def _slips_in(base_url: str) -> Iterator[str]:
    """Yields what a base URL must be instead; nothing if it is right."""
    if not base_url:
        yield f"be a URL such as {_EXAMPLE}, not an empty text"
    elif base_url[0] in QUOTES or base_url[-1] in QUOTES:
        yield "have no quotes around it"
    if odd := [each for each in base_url if each.isspace() or not each.isprintable()]:
        yield f"have no space, line break or invisible character in it; it has U+{ord(odd[0]):04X}"
    if not re.match(r"https?://", base_url, re.IGNORECASE):
        yield f"begin with https://, as in {_EXAMPLE}, or for an emulator with http://"
    parts = _split(base_url)
    if parts is None:
        yield f"have a valid host, and a valid port if it has one, as in {_EXAMPLE}"
    elif "@" in parts.netloc:
        yield "not hold a user or password"
    elif set(base_url) & set("?#\\") or not parts.path.isascii():
        yield "be scheme, host and path alone, without ? # \\ and letters beyond ASCII"
    elif call := _call_in(base_url, parts.path.rstrip("/")):
        yield call


def _call_in(base_url: str, path: str) -> str:
    for version in re.finditer(r"/+v[12](?=/|$)", path, re.IGNORECASE):
        from edgegap_async.api.register import OPERATIONS  # few base URLs have /v1

        call = "/" + path[version.start() :].strip("/").lower()
        if any(f"{operation.path}/".startswith(f"{call}/") for operation in OPERATIONS):
            root = base_url.rstrip("/")[: version.start() - len(path)]
            return f"be {root}, without {path[version.start() :]}: each call adds its own path"
    return ""


def _split(url: str) -> SplitResult | None:
    """Returns the parts of a URL; None if its host or port is invalid."""
    try:
        parts = urlsplit(url)
        (parts.hostname or "").encode("idna")
        is_valid = bool(parts.hostname) and parts.port != 0
    except ValueError:  # an incomplete IPv6 address, or an invalid port or name
        return None
    return parts if is_valid else None


# ── proxies ──────────────────────────────────────────────────────────────────────────────────────


class Proxy:
    """An HTTP proxy. No repr shows its credentials.

    Args:
        url: scheme, host and port.
        credentials: for the Proxy-Authorization header; None for none.
    """

    def __init__(self, url: str, credentials: Token | None) -> None:
        self.url: Final = url
        """Scheme, host and port, without credentials."""
        self._credentials = credentials

    def headers(self) -> dict[str, str]:
        """The headers for the proxy. Do not keep them in a variable, which a traceback may show."""
        if self._credentials is None:
            return {}
        return {"Proxy-Authorization": self._credentials.header["Authorization"]}

    def __repr__(self) -> str:
        return f"Proxy({self.url!r})"


def as_proxy(proxy: str | Proxy | None, *, name: str = "proxy") -> Proxy | None:
    """Returns the proxy of a URL.

    Args:
        proxy: an http or https URL of scheme, host and port, with user and password if the proxy
            needs them; None for no proxy.
        name: the name of the setting, for errors.

    Raises:
        InvalidRequest: the URL is something else.
    """
    if proxy is None or isinstance(proxy, Proxy):
        return proxy
    parsed = _parsed_proxy(proxy)
    del proxy  # a traceback that shows local variables must not show it
    if isinstance(parsed, str):
        raise InvalidRequest(f"{name} must {parsed}")
    return parsed


def environment_proxy(base_url: str) -> Proxy | None:
    """Returns the proxy that HTTPS_PROXY or ALL_PROXY names; None for a host that NO_PROXY names.

    A base URL with http gets none, whatever HTTP_PROXY says, because a proxy would read the token.

    Raises:
        InvalidRequest: the variable's value is no http or https URL.
    """
    parts = _split(base_url.strip())
    if parts is None or parts.scheme != "https" or urllib.request.proxy_bypass(parts.netloc):
        return None
    return as_proxy(_from_environment(), name="the variable HTTPS_PROXY or ALL_PROXY")


def _from_environment() -> str | None:
    proxies = urllib.request.getproxies()
    return proxies.get("https") or proxies.get("all")


def check_proxied(proxy: Proxy | None, base_url: str) -> None:
    """Checks that calls to the base URL may go through the proxy.

    Raises:
        InvalidRequest: the base URL has http.
    """
    if proxy is not None and not base_url.lower().startswith("https:"):
        raise InvalidRequest(
            "a proxy needs a base_url with https: over http the proxy would read the token."
            " Leave proxy out for this base_url"
        )


def _parsed_proxy(proxy: object) -> Proxy | str:
    """Returns the proxy, or what it must be instead. It raises nothing: its frame has secrets."""
    if not isinstance(proxy, str) or not proxy.strip():
        return f"be a URL such as {_PROXY_EXAMPLE}"
    text = proxy.strip()
    if "://" not in text:
        text = f"http://{text}"  # as in many settings of HTTPS_PROXY
    if not re.match(r"https?://", text, re.IGNORECASE):
        return "begin with http:// or https://: no other kind of proxy works, such as SOCKS"
    parts = _split(text)
    is_host_alone = parts is not None and parts.path in {"", "/"} and not set(text) & set("?#\\")
    if parts is None or not is_host_alone or not parts.netloc.isascii():
        return (
            f"be scheme, host and port alone, as in {_PROXY_EXAMPLE};"
            " in user and password write / ? # @ : % and letters beyond ASCII as %2F and so on"
        )
    url = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    if parts.username is None and parts.password is None:
        return Proxy(url, None)
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if ":" in user:
        return "have a user without ':'"
    return Proxy(
        url, Token(base64.b64encode(f"{user}:{password}".encode()).decode(), scheme="Basic")
    )


# ── tokens ───────────────────────────────────────────────────────────────────────────────────────


def api_token(token: str | Token | None) -> Token | None:
    """Returns the API token that was passed, or else EDGEGAP_API_TOKEN; None without either.

    Raises:
        InvalidRequest: the text cannot be a token.
    """
    if isinstance(token, Token):
        return token
    token = token or os.environ.get("EDGEGAP_API_TOKEN", "").strip()
    return Token(token, scheme=_SCHEME) if token else None


def read_secrets(
    token: str | Token | None, proxy: str | Proxy | None
) -> tuple[Token | None, Proxy | None, InvalidRequest | None]:
    """Returns the API token and the proxy, or the error of one of them for the caller to raise.

    The caller first deletes its own variables: a traceback that shows local variables would show
    the secrets in them. An error that came through the caller's frame would show them at once.
    """
    try:
        return api_token(token), as_proxy(proxy), None
    except InvalidRequest as error:
        return None, None, InvalidRequest(error.message)


def token_to_send(token: Token | None) -> Token:
    """Returns the token that a call carries.

    Raises:
        InvalidRequest: there is none.
    """
    if token is None:
        raise InvalidRequest(
            "no API token: set EDGEGAP_API_TOKEN, or pass token; an emulator prints its own"
        )
    return token
