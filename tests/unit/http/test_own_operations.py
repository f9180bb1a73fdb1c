"""`client.call` with an operation of the caller's own keeps the rules of the sixteen calls."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import attrs
import pytest
from scripted_api import Reply, ScriptedApi

from edgegap_async import EdgegapClient, Guard, RetryPolicy
from edgegap_async.concurrency import loop_time
from edgegap_async.errors import (
    BadRequest,
    CallError,
    DryRun,
    InvalidRequest,
    LimitReached,
    NoAnswer,
    NotAllowed,
    NotFound,
    NotSent,
    ServerError,
    UnreadableAnswer,
)
from edgegap_async.models import ApiResponse
from edgegap_async.requests import Operation

pytestmark = pytest.mark.virtual

PAGE = Reply(404, b"<html>no such page</html>", {"Content-Type": "text/html"})


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Ticket(ApiResponse):
    ticket_id: str
    token: str | None = None
    seats: int = 0
    players: list[str] = attrs.field(factory=list)
    labels: Mapping[str, str] | None = None


@attrs.frozen
class PlainTicket:
    ticket_id: str
    note: str | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Party(ApiResponse):
    name: str = "nameless"
    first: PlainTicket = PlainTicket("none")
    by_player: Mapping[str, PlainTicket] = attrs.field(factory=dict)
    scores: tuple[int, ...] = (1,)


@attrs.frozen
class NewTicket:
    application: str
    players: list[str]


def operation(method: str = "POST", path: str = "/v1/tickets", **more: Any) -> Operation[Any]:
    settings: dict[str, Any] = {"returns": Ticket, "ok": {200, 201, 204}} | more
    return Operation(name="a_ticket", method=method, path=path, **settings)


GET = operation("get", "/v1/tickets/{ticket_id}")
DELETE = operation("DELETE", "/v1/tickets/{ticket_id}", returns=type(None))
TICKET = {"ticket_id": "t1"}


def client_of(api: ScriptedApi, **options: Any) -> EdgegapClient:
    return EdgegapClient("canary-t", base_url=api.url, **options)


# ── guard ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("called", "path", "body"),
    [
        (operation(path="/v1/x/{application}"), {"application": "lobby"}, None),
        (operation(path="/v1/x/{app_name}"), {"app_name": "lobby"}, None),
        (operation("put", "/v1/app/{name}/version"), {"name": "lobby"}, None),
        (operation("DELETE", "/v1/app/lobby"), None, None),
        (operation(), None, {"application": "lobby"}),
        (operation(), None, {"app_name": "lobby"}),
        (operation(), None, {"deployments": [{"app": "arena"}, {"app": "lobby"}]}),
        (operation(), None, NewTicket("lobby", [])),
        (operation(), None, {"ticket": NewTicket("lobby", [])}),
    ],
)
async def test_the_guard_finds_the_application_in_path_and_body(
    api: ScriptedApi, called: Operation[Any], path: Mapping[str, str] | None, body: object
) -> None:
    async with client_of(api, guard=Guard(applications=["arena"])) as client:
        with pytest.raises(NotAllowed, match=r"lobby is not in Guard\.applications: arena"):
            await client.call(called, path=path, body=body)

    assert not api.requests


async def test_the_guard_lets_the_named_applications_and_reads_pass(api: ScriptedApi) -> None:
    api.on("POST", "/v1/app/arena/tickets", Reply(body=TICKET))
    api.on("GET", "/v1/app/lobby", Reply(body=TICKET))
    async with client_of(api, guard=Guard(applications=["arena"])) as client:
        body = NewTicket("arena", ["lobby"])
        await client.call(operation(path="/v1/app/arena/tickets"), body=body)
        await client.call(operation("GET", "/v1/app/{name}"), path={"name": "lobby"})

    assert len(api.requests) == 2


async def test_read_only_and_dry_run_hold_for_every_method_but_get(api: ScriptedApi) -> None:
    api.on("GET", "/v1/tickets/t1", Reply(body=TICKET))
    for guard, error in ((Guard(read_only=True), NotAllowed), (Guard(dry_run=True), DryRun)):
        async with client_of(api, guard=guard) as client:
            await client.call(GET, path=TICKET)
            with pytest.raises(error):
                await client.call(operation("post"), body={})

    assert {request.method for request in api.requests} == {"GET"}


# ── retries ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("method", ["POST", "PATCH", "post"])
@pytest.mark.parametrize("answer", [Reply(lost=True), Reply(503), Reply(408)])
async def test_what_may_have_created_something_is_sent_once(
    api: ScriptedApi, method: str, answer: Reply
) -> None:
    api.on(method.upper(), "/v1/tickets", answer)
    async with client_of(api) as client:
        with pytest.raises(CallError) as caught:
            await client.call(operation(method), body={})

    assert caught.value.maybe_created
    assert len(api.requests) == 1


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_other_methods_are_repeated(api: ScriptedApi, method: str) -> None:
    answers = [Reply(lost=True), Reply(503), Reply(429), Reply(body=TICKET)]
    api.on(method, "/v1/tickets", *answers)
    async with client_of(api) as client:
        assert (await client.call(operation(method))).attempts == 4


async def test_a_post_that_was_not_sent_is_repeated(closed_port: int) -> None:
    url = f"http://127.0.0.1:{closed_port}"
    async with EdgegapClient("canary-t", base_url=url) as client:
        with pytest.raises(NotSent) as caught:
            await client.call(operation(), body={})

    assert (caught.value.attempts, caught.value.maybe_created) == (4, False)


@pytest.mark.parametrize("status", [404, 410])
async def test_a_delete_succeeds_if_its_answer_was_lost_and_there_is_nothing_left(
    api: ScriptedApi, status: int
) -> None:
    gone = Reply(status, {"message": "there is no such ticket"})
    api.on("DELETE", "/v1/tickets/t1", Reply(lost=True), gone)
    async with client_of(api) as client:
        assert await client.call(DELETE, path=TICKET) is None
        with pytest.raises(CallError):  # no answer was lost
            await client.call(DELETE, path=TICKET)


@pytest.mark.parametrize("model", [Ticket, PlainTicket])
async def test_a_repeated_delete_whose_answer_needs_more_than_is_known_raises_what_came(
    api: ScriptedApi, model: type[Any]
) -> None:
    api.on("DELETE", "/v1/tickets/t1", Reply(lost=True), Reply(404, {"message": "no ticket"}))
    async with client_of(api) as client:
        with pytest.raises(NotFound, match="no ticket"):
            await client.call(attrs.evolve(DELETE, returns=model), path=TICKET)


@pytest.mark.parametrize("called", [GET, DELETE], ids=["GET", "DELETE"])
async def test_a_page_of_a_proxy_is_no_absence(api: ScriptedApi, called: Operation[Any]) -> None:
    api.on(called.method, "/v1/tickets/t1", PAGE)
    async with client_of(api) as client:
        with pytest.raises(UnreadableAnswer, match="not in the API's format") as caught:
            await client.call(called, path=TICKET)

    assert caught.value.attempts == 4


async def test_a_delete_after_a_page_of_a_proxy_is_repeated(api: ScriptedApi) -> None:
    api.on("DELETE", "/v1/tickets/t1", Reply(lost=True), PAGE, Reply(204, b""))
    async with client_of(api) as client:
        assert await client.call(DELETE, path=TICKET) is None

    assert len(api.requests) == 3


# ── limits ───────────────────────────────────────────────────────────────────────────────────────


async def test_an_own_limit_is_kept_and_shown(api: ScriptedApi) -> None:
    api.on("POST", "/v1/tickets", Reply(body=TICKET))
    async with client_of(api) as client:
        began = loop_time()
        for _ in range(40):
            await client.call(operation(limit=10), body={})

        assert loop_time() - began > 2.9
        assert client.limits.snapshot()["a_ticket"].limit == 10
    async with client_of(api, on_limit="raise") as client:
        await client.call(operation(limit=1), body={})
        with pytest.raises(LimitReached):
            await client.call(operation(limit=1), body={})


# ── secrets ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "body",
    [
        {"token": "canary-s", "ticket": "x"},
        {"sessionToken": "canary-s"},
        {"a": {"client_secret": "canary-s"}},
        {"PASSWORD": ["canary-s"]},
        {"api_key": {"value": "canary-s"}},
        {"ticket_id": {"token": "canary-s"}},
        {"token": "x" * 150 + '"canary-s' + "x" * 150},
    ],
)
@pytest.mark.parametrize("model", [Ticket, PlainTicket])
@pytest.mark.parametrize("status", [200, 400, 500])
async def test_no_error_and_no_log_shows_a_secret_of_an_answer(
    api: ScriptedApi,
    body: object,
    status: int,
    model: type[Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    api.on("POST", "/v1/tickets", Reply(status, body))
    async with client_of(api) as client:
        with pytest.raises((UnreadableAnswer, BadRequest, ServerError)) as caught:
            await client.call(operation(returns=model), body={})

    assert "canary-s" not in f"{caught.value} {caught.value!r} {vars(caught.value)}"

    assert "canary-s" not in caplog.text


async def test_details_of_an_error_hide_their_secrets(api: ScriptedApi) -> None:
    details = {"errors": {"token": "canary-s", "name": "too long"}, "message": "no"}
    api.on("POST", "/v1/tickets", Reply(400, details))
    async with client_of(api) as client:
        with pytest.raises(BadRequest, match='"token": "\\*\\*\\*", "name": "too long"'):
            await client.call(operation(), body={})


# ── definitions ──────────────────────────────────────────────────────────────────────────────────


async def test_fields_of_any_type_are_read_leniently(api: ScriptedApi) -> None:
    answers = [
        {"ticket_id": 5, "seats": "3", "players": ["a"], "labels": {"a": "b"}},
        {"ticket_id": "t1", "seats": None, "players": None, "labels": 7},
    ]
    api.on("POST", "/v1/tickets", *[Reply(body=answer) for answer in answers])
    async with client_of(api) as client:
        full, empty = [await client.call(operation(), body={}) for _ in answers]

    assert (full.ticket_id, full.seats, full.players) == ("5", 3, ["a"])
    assert (full.labels, empty.labels) == ({"a": "b"}, {})
    assert (empty.seats, empty.players) == (0, [])


async def test_a_required_field_of_any_type_makes_an_answer_unreadable(api: ScriptedApi) -> None:
    @attrs.frozen(kw_only=True, eq=False, repr=False)
    class Seats(ApiResponse):
        seats: list[int]

    api.on("POST", "/v1/tickets", Reply(body={"seats": [1]}), Reply(body={"seats": None}))
    async with client_of(api) as client:
        assert (await client.call(operation(returns=Seats), body={})).seats == [1]
        with pytest.raises(UnreadableAnswer, match=r"the value cannot be read .* @ \$\.seats"):
            await client.call(operation(returns=Seats), body={})


@pytest.mark.parametrize("model", [dict, dict[str, Any]])
async def test_an_answer_may_be_a_dict(api: ScriptedApi, model: type[Any]) -> None:
    api.on("POST", "/v1/tickets", Reply(body=TICKET | {"a": None}))
    async with client_of(api) as client:
        assert await client.call(operation(returns=model), body={}) == TICKET | {"a": None}


async def test_a_plain_class_without_a_required_field_is_unreadable(api: ScriptedApi) -> None:
    api.on("POST", "/v1/tickets", Reply(body={"note": "x"}))
    async with client_of(api, retries=RetryPolicy(attempts=1)) as client:
        with pytest.raises(UnreadableAnswer, match="ticket_id"):
            await client.call(operation(returns=PlainTicket), body={})


@pytest.mark.parametrize(
    ("called", "path", "body", "message"),
    [
        (GET, None, None, r"a_ticket needs path=\{'ticket_id': …\}"),
        (GET, {"ticket_id": "../x"}, None, "ticket_id must not hold"),
        (operation(), None, {"a": object()}, "the body of a_ticket cannot be written as JSON"),
        (operation(), None, {"a": float("nan")}, "the body of a_ticket cannot be written as JSON"),
        (operation(), None, {"a": "\ud800"}, "the body of a_ticket cannot be written as JSON"),
        (operation(returns=object), None, None, "no answer can be read as a"),
    ],
)
async def test_a_call_that_cannot_be_made_is_refused_before_it_is_sent(
    api: ScriptedApi, called: Operation[Any], path: Any, body: object, message: str
) -> None:
    async with client_of(api) as client:
        with pytest.raises(InvalidRequest, match=message):
            await client.call(called, path=path, body=body)

    assert not api.requests


async def test_a_lost_answer_names_the_call(api: ScriptedApi) -> None:
    api.on("POST", "/v1/tickets", Reply(lost=True))
    async with client_of(api) as client:
        with pytest.raises(NoAnswer, match=r"POST /v1/tickets\."):
            await client.call(operation(), body={})


@pytest.mark.parametrize("strange", [None, 5.5, [], {}, "x", [None], ["x"], {"a": {}}])
async def test_a_field_with_a_default_never_fails_at_its_access(
    api: ScriptedApi, strange: object
) -> None:
    names = [field.name for field in attrs.fields(Party) if field.init and field.name != "raw"]
    api.on("POST", "/v1/tickets", Reply(200, dict.fromkeys(names, strange)))
    async with client_of(api) as client:
        party = await client.call(operation(returns=Party), body={})

    assert party.name in {"nameless", "5.5", "x"}
    assert party.first == PlainTicket("none")
    assert party.by_player == {}
    assert party.scores in {(1,), ()}
