"""A scripted API that makes servers with the tags of a deploy, also if its answer is an error."""

from __future__ import annotations

import math
from typing import Any

from aiohttp import web
from one_server import ACCEPTED, DEPLOY, LIST
from scripted_api import Reply, ScriptedApi

from edgegap_async import EdgegapClient
from edgegap_async.concurrency import loop_time

__all__ = ["TaggedApi", "new_client"]


class TaggedApi(ScriptedApi):
    """An API that makes servers with the tags of a deploy, also if its answer is an error.

    Args:
        answers: the answers to the first deploys, in place of 202.
        made: servers that the first deploy makes; later ones make none, and answer `abc123`.
        listed_after: seconds from a deploy after which lists show its servers; one for each server.
        list_takes: seconds from a list request to its answer, which is of the request's time.
    """

    def __init__(
        self,
        *,
        answers: list[Reply],
        made: int,
        listed_after: tuple[float, ...] = (0, 0, 0),
        list_takes: float = 0.0,
    ) -> None:
        super().__init__()
        self.answers = answers
        self.made = made
        self.listed_after = listed_after
        self.list_takes = list_takes
        self.lists_fail_until = -math.inf
        self.rows: dict[str, tuple[float, dict[str, Any]]] = {}

    @property
    def running(self) -> list[str]:
        stopped = {one.path.rpartition("/")[2] for one in self.requests if one.method == "DELETE"}
        return [request_id for request_id in self.rows if request_id not in stopped]

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if (request.method, request.path) == DEPLOY:
            tags = (await request.json())["tags"]
            for after in self.listed_after[: self.made]:
                row = {"request_id": f"server{len(self.rows) + 1}", "tags": tags}
                self.rows[str(row["request_id"])] = (loop_time() + after, row)
                self.on("DELETE", f"/v1/stop/{row['request_id']}", Reply())
            self.made = 0
            self.on(*DEPLOY, self.answers.pop(0) if self.answers else ACCEPTED)
        if (request.method, request.path) == LIST:
            rows = [row for at, row in self.rows.values() if loop_time() >= at]
            rows = [row for row in rows if row["request_id"] in self.running]
            fails = loop_time() < self.lists_fail_until
            status = 503 if fails else 200
            self.on(*LIST, Reply(status, {"data": rows}, delay=self.list_takes))
        return await super()._answer(request)


def new_client(api: ScriptedApi) -> EdgegapClient:
    return EdgegapClient("canary-t", base_url=api.url, list_delay=10)
