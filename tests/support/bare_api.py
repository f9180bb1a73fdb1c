"""The emulator's API over bare HTTP, without the client of this package."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
from emulated_cloud import UNKNOWN_ID

from edgegap_async.emulator import Emulator

DEPLOY_BODY: dict[str, Any] = {
    "application": "arena",
    "version": "v1",
    "users": [{"user_type": "geo_coordinates", "user_data": {"latitude": 48.9, "longitude": 2.4}}],
}


def example_path(path: str) -> str:
    """The path of an operation with an example in each of its placeholders."""
    return (
        path.replace("{request_id}", UNKNOWN_ID)
        .replace("{access_point_id}", "1")
        .replace("{tag_name}", "eu")
        .replace("{fleet_name}", "alpha")
        .replace("{application}", "arena")
        .replace("{version}", "v1")
        .replace("{ip}", "192.0.2.1")
        .replace("{session_id}", "000000000000-S")
        .replace("{image_name}", "studio/arena")
        .replace("{endpoint_name}", "logs")
        .replace("{pull_profile_name}", "maps")
        .replace("{app_name}", "arena")
        .replace("{version_name}", "v1")
    )


class BareApi:
    """Sends requests to an emulator, as a client in any language does."""

    def __init__(self, emulator: Emulator, session: aiohttp.ClientSession) -> None:
        self.emulator = emulator
        self._session = session

    async def __call__(
        self,
        method: str,
        path: str,
        *,
        authorization: str | None = None,
        headers: dict[str, str] | None = None,
        **options: Any,
    ) -> tuple[int, Any]:
        """Returns status and JSON body of an answer; its headers are kept in `headers`."""
        token = f"token {self.emulator.token}" if authorization is None else authorization
        sent = {**({"Authorization": token} if token else {}), **(headers or {})}
        async with self._session.request(method, path, headers=sent, **options) as answer:
            body = await answer.read()
            self.headers = answer.headers
            return answer.status, json.loads(body) if body else None

    async def deploy(self, **fields: Any) -> str:
        """Deploys the arena and returns the request_id."""
        status, body = await self("POST", "/v2/deployments", json=DEPLOY_BODY | fields)
        assert status == 202, body
        return str(body["request_id"])

    async def get_status(self, request_id: str) -> dict[str, Any]:
        """Returns the status of a deployment."""
        status, body = await self("GET", f"/v1/status/{request_id}")
        assert status == 200, body
        return dict(body)

    async def wait_for_status(self, request_id: str, wanted: str) -> dict[str, Any]:
        """Returns the first answer with the wanted status, such as READY."""
        async with asyncio.timeout(20):
            while (body := await self.get_status(request_id))[
                "current_status"
            ] != f"Status.{wanted}":
                await asyncio.sleep(0.055)  # within the rate limit of 20 a second
        return body
