"""Authenticates requests: where the API token comes from, and which token a call carries.

`Token` (in `api.requests`) hides the secret and writes the Authorization header. Another
authentication scheme changes `Token` and this module.
"""

from __future__ import annotations

import os
from typing import Final

from edgegap_async.api.requests import Token
from edgegap_async.errors import InvalidRequest

_SCHEME: Final = "token"  # first word of the Authorization header


def api_token(token: str | Token | None) -> Token | None:
    """Returns the API token that was passed, or else EDGEGAP_API_TOKEN; None without either.

    Raises:
        InvalidRequest: the text cannot be a token.
    """
    if isinstance(token, Token):
        return token
    token = token or os.environ.get("EDGEGAP_API_TOKEN")
    return Token(token, scheme=_SCHEME) if token else None


def token_to_send(token: Token | None) -> Token:
    """Returns the token that a call carries.

    Raises:
        InvalidRequest: there is none.
    """
    if token is None:
        raise InvalidRequest("no API token: set EDGEGAP_API_TOKEN, or pass token")
    return token
