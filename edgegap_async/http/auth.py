"""Authenticates requests: where the API token comes from, and which token a call carries.

`Token` (in `api.requests`) hides the secret and writes the Authorization header. Another
authentication scheme changes `Token` and this module.
"""

from __future__ import annotations

import os
from typing import Final

from edgegap_async.api.requests import Token
from edgegap_async.errors import InvalidRequest

from .urls import Proxy, as_proxy

_SCHEME: Final = "token"  # first word of the Authorization header


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
        raise InvalidRequest("no API token: set EDGEGAP_API_TOKEN, or pass token")
    return token
