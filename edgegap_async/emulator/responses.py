"""Answers of the emulator, in the API's form: JSON, errors too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from aiohttp import web

from edgegap_async.api.codec import dumps
from edgegap_async.api.status_codes import refusal
from edgegap_async.errors import Refused

_REFUSALS: Final = (400, 401, 403, 404, 409, 410, 422, 424)
_STATUSES: Final = {refusal(status): status for status in _REFUSALS}


def json_response(
    status: int, value: object, headers: Mapping[str, str] | None = None
) -> web.Response:
    """Returns an answer with a JSON body."""
    return web.Response(
        status=status, body=dumps(value), content_type="application/json", headers=headers
    )


def error_response(
    status: int, message: str, headers: Mapping[str, str] | None = None
) -> web.Response:
    """Returns an error with the body of the API's errors: `{"message": …}`."""
    return json_response(status, {"message": message}, headers)


def refusal_response(problem: Refused) -> web.Response:
    """Returns the answer that the client is to read as this error."""
    body = {"message": problem.message}
    if problem.request_id is not None:
        body = {"request_id": problem.request_id, **body}
    return json_response(_STATUSES[type(problem)], body)
