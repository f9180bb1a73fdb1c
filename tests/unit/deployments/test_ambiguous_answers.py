"""After an ambiguous answer a deploy is not sent again before a list request by its tag.

The tests play every pair of first answers to a deploy with every kind of answer to the list
request, and check the requests that the server got, in their order.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator, Iterator

import attrs
import pytest
from aiohttp import web
from scripted_api import ReceivedRequest, Reply, ScriptedApi

from edgegap_async import EdgegapClient, EdgegapError

pytestmark = pytest.mark.virtual

DEPLOY = ("POST", "/v2/deployments")
LIST = ("GET", "/v1/deployments")
STOP = ("DELETE", "/v1/stop/abc123")
USERS = ["192.0.2.1"]
LIST_DELAY = 5.0
ATTEMPTS = 4  # of a `RetryPolicy`

ACCEPTED = Reply(202, {"request_id": "abc123"})
REFUSED = {
    "429": Reply(429, headers={"Retry-After": "0"}),
    "429 and wait": Reply(429, headers={"Retry-After": "3"}),
}
AMBIGUOUS = {
    "lost": Reply(lost=True),
    "too late": Reply(delay=40),
    "202 cut": Reply(202, b'{"request_id": "abc'),
    "202 without an id": Reply(202, {}),
    "202 of a proxy": Reply(202, b"<html>", {"Content-Type": "text/html"}),
    **{str(status): Reply(status) for status in (500, 502, 503, 504)},
}
FINAL = {
    "accepted": ACCEPTED,
    "307": Reply(307, headers={"Location": "http://192.0.2.1/"}),
    **{str(status): Reply(status) for status in (400, 401, 403, 404, 409, 410)},
    "422": Reply(422, {"message": "no place"}),
}
ANSWERS = REFUSED | AMBIGUOUS | FINAL


@attrs.frozen
class Listing:
    """How the API answers list requests by tag."""

    shows: bool = False
    fails: bool = False

    def reply(self, tag: str) -> Reply:
        rows = [{"request_id": "abc123", "tags": [tag]}] if self.shows else []
        return Reply(500) if self.fails else Reply(200, {"data": rows})


LISTINGS = {"found": Listing(shows=True), "nothing": Listing(), "failing": Listing(fails=True)}


class Api(ScriptedApi):
    """An API whose list may show a deployment with the tag of the last deploy."""

    listing = Listing()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if (request.method, request.path) == LIST:
            self.on(*LIST, self.listing.reply(tag_of(self.asked(*DEPLOY)[-1])))
        return await super()._answer(request)


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with Api() as api:
        api.on(*STOP, Reply())
        yield api


def tag_of(deploy: ReceivedRequest) -> str:
    return str(next(iter(deploy.json.get("tags", ())), ""))


def violations(
    requests: list[ReceivedRequest], answers: tuple[str, str], listing: Listing
) -> Iterator[str]:
    """Yields what is wrong about the order of the requests."""
    deploys = [at for at, one in enumerate(requests) if (one.method, one.path) == DEPLOY]
    names = [*answers, *[answers[-1]] * len(deploys)]
    for name, this, following in zip(names, deploys, [*deploys[1:], None], strict=False):
        lookups = [one for one in requests[this:following] if (one.method, one.path) == LIST]
        if name not in AMBIGUOUS and following and name not in REFUSED:
            yield f"sent again after {name}"
        if name in AMBIGUOUS and not lookups:
            yield f"no list request after {name}"
        if name in AMBIGUOUS and following:
            if listing.shows or listing.fails:
                yield f"sent again after {name}, and it may have made a deployment"
            elif lookups and lookups[-1].at - lookups[0].at < LIST_DELAY - 0.1:
                yield f"sent again after {name}, before its deployment could show up"
    if len({tag_of(requests[at]) for at in deploys}) != 1:
        yield "sent again with another tag"
    ambiguous = sum(name in AMBIGUOUS for name, _ in zip(names, deploys, strict=False))
    if ambiguous > 2:
        yield f"ambiguous {ambiguous} times, and sent again"


@pytest.mark.parametrize("listing", LISTINGS)
@pytest.mark.parametrize("first", ANSWERS)
async def test_no_deploy_is_sent_again_before_a_list_request_by_its_tag(
    api: Api, first: str, listing: str
) -> None:
    api.listing = LISTINGS[listing]
    for second in ANSWERS:
        api.requests.clear()
        api.on(*DEPLOY, ANSWERS[first], ANSWERS[second])
        async with EdgegapClient("canary-t", base_url=api.url, list_delay=LIST_DELAY) as client:
            with contextlib.suppress(EdgegapError):
                await client.deploy("arena", "v1", users=USERS)

        assert not list(violations(api.requests, (first, second), api.listing)), second


@pytest.mark.parametrize("first", ANSWERS)
async def test_a_deploy_without_a_tag_is_not_sent_again_after_an_ambiguous_answer(
    api: Api, first: str
) -> None:
    async with EdgegapClient("canary-t", base_url=api.url) as client:
        for deploy in (
            lambda: client.deployments.deploy("arena", "v1", users=USERS),
            lambda: client.deploy("arena", "v1", users=USERS, operation_tag=False),
        ):
            for second in ANSWERS:
                api.requests.clear()
                api.on(*DEPLOY, ANSWERS[first], ANSWERS[second])
                with contextlib.suppress(EdgegapError):
                    await deploy()

                answers = [first, *[second] * (ATTEMPTS - 1)]
                refused = itertools.takewhile(REFUSED.__contains__, answers)
                assert [(one.method, one.path) for one in api.requests] == [DEPLOY] * min(
                    ATTEMPTS, 1 + sum(1 for _ in refused)
                )
