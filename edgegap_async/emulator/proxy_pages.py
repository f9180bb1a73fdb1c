"""Answers of proxies and gateways in the API's place, as they send them: status, type, text."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Final

_CLOUDFLARE_REASONS: Final = {
    520: "Web server is returning an unknown error",
    521: "Web server is down",
    522: "Connection timed out",
    523: "Origin is unreachable",
    524: "A timeout occurred",
    525: "SSL handshake failed",
    526: "Invalid SSL certificate",
}
_GATEWAY_MESSAGES: Final = {
    401: "Unauthorized",
    403: "Forbidden",
    404: "no Route matched with those values",
    413: "Request Too Long",
    429: "Too Many Requests",
    502: "Internal server error",
    503: "name resolution failed",
    504: "Endpoint request timed out",
}


def _nginx(status: int, reason: str) -> str:
    return (
        f"<html>\r\n<head><title>{status} {reason}</title></head>\r\n<body>\r\n"
        f"<center><h1>{status} {reason}</h1></center>\r\n<hr><center>nginx</center>\r\n"
        "</body>\r\n</html>\r\n"
    )


def _haproxy(status: int, reason: str) -> str:
    return f"<html><body><h1>{status} {reason}</h1>\n{reason}.\n</body></html>\n"


def _cloudflare(status: int, reason: str) -> str:
    if status == HTTPStatus.FORBIDDEN:
        return (
            '<!DOCTYPE html><html lang="en-US"><head><title>Just a moment...</title></head>'
            "<body>Enable JavaScript and cookies to continue</body></html>"
        )
    return (
        f"<!DOCTYPE html><html><head><title>{status}: {reason}</title></head><body>"
        f"<h1>Error {status}</h1><h2>{reason}</h2><p>Cloudflare Ray ID: 0123456789abcdef</p>"
        "</body></html>"
    )


def _envoy(status: int, reason: str) -> str:
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        return "upstream connect error or disconnect/reset before headers. reset reason: overflow"
    return f"upstream request failed: {reason.lower()}"


def _gateway(status: int, reason: str) -> str:
    return json.dumps({"message": _GATEWAY_MESSAGES.get(status, reason)})


_PAGES: Final = {
    "nginx": (_nginx, "text/html"),
    "haproxy": (_haproxy, "text/html"),
    "cloudflare": (_cloudflare, "text/html; charset=UTF-8"),
    "envoy": (_envoy, "text/plain"),
    "gateway": (_gateway, "application/json"),
}

PROXIES: Final = tuple(_PAGES)
"""The kinds of proxy. `gateway` answers in JSON, as API gateways do."""


def proxy_page(proxy: str, status: int) -> tuple[str, str]:
    """Returns content type and text of the answer of a proxy.

    Args:
        proxy: one of `PROXIES`.
        status: HTTP status, 400 to 599; those of Cloudflare too, and nginx's 499.
    """
    page, content_type = _PAGES[proxy]
    return content_type, page(status, _reason(status))


def _reason(status: int) -> str:
    if status in _CLOUDFLARE_REASONS:
        return _CLOUDFLARE_REASONS[status]
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Client Closed Request" if status == 499 else "Unknown"  # noqa: PLR2004 - nginx's
