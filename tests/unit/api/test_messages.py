"""Encoding of calls, and decoding of every answer that the API or a proxy may give."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any
from urllib.parse import parse_qsl, unquote, urljoin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgegap_async.api.messages import HttpRequest, HttpResponse, decode, encode
from edgegap_async.api.models import DeployAccepted, Json, Status
from edgegap_async.api.operations import (
    CREATE_TAG,
    DELETE_TAG,
    DEPLOY,
    GET_DEPLOYMENT,
    GET_TAG,
    LIST_DEPLOYMENTS,
    LIST_LOCATIONS,
    LIST_TAGS,
    STOP_DEPLOYMENT,
    Operation,
)
from edgegap_async.api.register import OPERATIONS
from edgegap_async.api.requests import DeployRequest, TagName
from edgegap_async.api.resources.metrics import GET_METRICS
from edgegap_async.api.resources.private_fleets import LIST_FLEET_HOSTS
from edgegap_async.api.status_codes import refusal
from edgegap_async.errors import (
    BadRequest,
    CallError,
    Gone,
    InvalidRequest,
    NotFound,
    RateLimited,
    Refused,
    ServerError,
    Unprocessable,
    UnreadableAnswer,
)
from edgegap_async.http.retries import is_ambiguous, is_transient

FUZZ = settings(max_examples=300)


def answer(status: int, body: object = b"", **headers: str) -> HttpResponse:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return HttpResponse(
        status=status,
        headers={name.replace("_", "-"): value for name, value in headers.items()},
        body=raw,
    )


def refused(
    request: HttpRequest[Any], status: int, body: object = b"", **headers: str
) -> CallError:
    with pytest.raises(CallError) as caught:
        decode(request, answer(status, body, **headers))
    return caught.value


GET = encode(GET_DEPLOYMENT, path={"request_id": "abc"})


# ── encode ───────────────────────────────────────────────────────────────────────────────────────


def test_a_request_has_path_query_and_body() -> None:
    request = encode(
        CREATE_TAG,
        path={"request_id": "abc"},
        query={"page": 1},
        body=TagName("v 1/ü"),
        max_bytes=5,
    )

    assert request.path == "/v1/deployments/abc/tags"
    assert request.target == "/v1/deployments/abc/tags?page=1"
    assert request.body == '{"name":"v 1/ü"}'.encode()
    assert (request.request_id, request.max_bytes) == ("abc", 5)


def test_a_request_without_a_body_has_none() -> None:
    assert (GET.body, GET.query, GET.target) == (None, "", "/v1/status/abc")
    assert encode(LIST_DEPLOYMENTS).request_id is None


def test_no_repr_shows_a_body_because_it_may_hold_secrets() -> None:
    body = DeployRequest(
        application="a",
        version="v",
        users=["10.0.0.1"],
        environment_variables={"KEY": "s3cret"},
    )
    request = encode(DEPLOY, body=body)

    assert b"s3cret" in (request.body or b"")
    assert "s3cret" not in repr(request)
    assert "s3cret" not in repr(HttpResponse(status=200, headers={}, body=b"s3cret"))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (False, "false"),
        (7, "7"),
        ("a b&c=ü", "a b&c=ü"),
        (Status.READY, "READY"),
        (datetime(2026, 9, 30, 12, tzinfo=UTC), "2026-09-30 12:00:00.000000"),
    ],
)
def test_a_query_value_is_sent_unchanged(value: object, text: str) -> None:
    request = encode(GET_METRICS, path={"request_id": "abc"}, query={"x": value, "none": None})

    assert parse_qsl(request.query) == [("x", text)]
    assert " " not in request.target


@given(st.text(min_size=1))
@FUZZ
def test_any_text_in_a_query_is_sent_unchanged_or_refused(text: str) -> None:
    try:
        request = encode(LIST_LOCATIONS, query={"app": text})
    except InvalidRequest:
        assert not text.isprintable()
    else:
        assert parse_qsl(request.query) == [("app", text)]


@pytest.mark.parametrize("text", ["a\r\nb", "\0", "\ud800"])
def test_control_characters_in_a_query_are_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="app"):
        encode(LIST_LOCATIONS, query={"app": text})


PLACED = [operation for operation in OPERATIONS if "{" in operation.path]


@given(
    operation=st.sampled_from(PLACED),
    text=st.text(st.characters())
    | st.text(st.sampled_from("./\\%2e?#:;@ \t\n"), max_size=6)
    | st.text("x", min_size=126, max_size=130),
)
@FUZZ
def test_no_text_takes_a_call_out_of_its_route(operation: Operation[object], text: str) -> None:
    names = re.findall(r"{(\w+)}", operation.path)
    try:
        path = encode(operation, path=dict.fromkeys(names, text)).path
    except InvalidRequest:
        return

    assert path.isascii()
    assert urljoin("http://localhost/", path) == "http://localhost" + path
    shown: list[str] = []
    for part in operation.path.split("/"):
        filled = re.sub(r"{\w+}", lambda _: text, part)
        # An image's name keeps its slashes; the slash of any other value is encoded.
        shown += filled.split("/") if part.strip("{}") in operation.slashes else [filled]
    assert list(map(unquote, path.split("/"))) == shown


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        ".",
        "..",
        " .. ",
        "../app/arena",
        "..\\app",
        "%2e%2e",
        "a/b",
        "a?b",
        "a#b",
        "a\nb",
        "a\0",
        "a\x7f",
        "\ud800",
        "x" * 129,
        None,
        5,
    ],
)
def test_an_id_that_would_change_the_path_is_refused(text: Any) -> None:
    with pytest.raises(InvalidRequest, match="request_id must"):
        encode(STOP_DEPLOYMENT, path={"request_id": text})


@pytest.mark.parametrize("text", ["v1.0.0", "a b", "ü", "a..b", "...a", "a:b@c;d", "x" * 128])
def test_names_with_spaces_dots_and_letters_of_any_language_are_sent(text: str) -> None:
    request = encode(GET_TAG, path={"request_id": "abc", "tag_name": text})

    assert unquote(request.path.removeprefix("/v1/deployments/abc/tags/")) == text


# ── decode ───────────────────────────────────────────────────────────────────────────────────────


def test_a_success_returns_a_model() -> None:
    request = encode(DEPLOY)

    assert decode(request, answer(202, {"request_id": "abc"})) == DeployAccepted(request_id="abc")


def test_a_success_without_content_returns_none() -> None:
    request = encode(DELETE_TAG, path={"request_id": "abc", "tag_name": "x"})

    decode(request, answer(204))


@pytest.mark.parametrize("status", range(200, 600))
def test_every_other_status_is_an_error_with_its_facts(status: int) -> None:
    request = encode(LIST_LOCATIONS, query={"type": "standard"})
    if status in LIST_LOCATIONS.ok:
        decode(request, answer(status, {}))
        return

    error = refused(request, status, {"message": "because"})

    assert type(error) is (refusal(status) if status >= 400 else UnreadableAnswer)
    assert (error.operation, error.method) == ("list_locations", "GET")
    assert (error.path, error.status) == ("/v1/locations", status)
    assert (error.request_id, error.attempts) == (None, 1)


def test_a_redirect_is_unreadable_and_its_target_is_not_shown() -> None:
    error = refused(encode(DEPLOY), 307, b"", Location="https://evil.example/?token=s3cret")

    assert isinstance(error, UnreadableAnswer)
    assert "evil" not in str(error)


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>502</html>", b'{"request_id":', b"[]", b"{}", b'{"request_id":null}', b"\xff"],
)
def test_a_success_without_a_required_field_is_unreadable(body: bytes) -> None:
    error = refused(encode(DEPLOY), 202, body, Content_Type="text/html")

    assert isinstance(error, UnreadableAnswer)
    assert error.status == 202
    assert "text/html" in str(error)


def test_row_11_the_error_of_an_unreadable_answer_shows_only_its_start() -> None:
    error = refused(encode(DEPLOY), 202, b"<html>\n  <b>" + b"x" * 1000)

    assert "(no content type: '<html> <b>xxx" in str(error)
    assert len(str(error)) < 500


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"message": "Bad token"}, "Bad token"),
        ({"message": "Bad", "errors": {"users": "too few"}}, 'Bad {"users": "too few"}'),
        ({"message": "Bad", "details": {"users": [1]}}, 'Bad {"users": [1]}'),
        ({"message": "Bad", "errors": "x"}, "Bad"),
        ({"message": ["Bad"]}, '{"message": ["Bad"]}'),
        (["Bad"], '["Bad"]'),
        (b"<h1>\n Bad\tGateway</h1>", "<h1> Bad Gateway</h1>"),
        (b"", "no explanation"),
        (b"\xff\xfe", "��"),
    ],
)
def test_an_error_has_the_text_of_the_api(body: object, message: str) -> None:
    assert refused(encode(DEPLOY), 500, body).message == message


def test_row_12_an_error_does_not_repeat_a_long_page() -> None:
    assert len(refused(encode(DEPLOY), 502, b"x" * 10**6).message) == 200
    wordy = {"message": "Bad", "details": {"x": "y" * 10**6}}
    assert len(refused(encode(DEPLOY), 400, wordy).message) < 600


@pytest.mark.parametrize("details", [{}, {"errors": {"x": "y"}}])
def test_row_12_an_error_quotes_the_text_of_an_answer_as_one_line(details: Json) -> None:
    said = {"message": "a\nERROR \x1b[2J\ud800 " + "b" * 10**6, **details}
    message = refused(encode(DEPLOY), 400, said).message

    assert message.startswith("a ERROR \ufffd[2J\ufffd bbb")
    assert message.isprintable()
    assert len(message) < 1100


def test_row_12_an_error_does_not_repeat_a_long_content_type() -> None:
    assert len(refused(GET, 200, b"x", Content_Type="x" * 60_000).message) < 1300


@given(status=st.integers(200, 599), body=st.binary(max_size=30))
@FUZZ
def test_any_bytes_with_any_status_are_a_model_or_one_of_our_errors(
    status: int, body: bytes
) -> None:
    try:
        decode(GET, HttpResponse(status=status, headers={}, body=body))
    except CallError as error:
        assert error.status == status  # noqa: PT017 - either outcome is right


@given(
    status=st.integers(400, 599),
    body=st.dictionaries(
        st.sampled_from(["message", "errors", "details", "request_id"]),
        st.recursive(
            st.none() | st.text() | st.integers(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=4,
        ),
    ),
)
@FUZZ
def test_any_json_with_an_error_status_raises_refused(status: int, body: object) -> None:
    error = refused(GET, status, body)

    assert isinstance(error, Refused)
    assert str(error)


def test_an_error_body_nested_too_deep_raises_the_error_of_its_status() -> None:
    assert isinstance(refused(encode(DEPLOY), 500, b"[" * 100_000), ServerError)


def test_row_21_a_422_names_the_deployment_that_was_created() -> None:
    error = refused(encode(DEPLOY), 422, {"request_id": "new", "message": "no room"})

    assert isinstance(error, Unprocessable)
    assert error.request_id == "new"


@pytest.mark.parametrize("odd", [None, 5, ["new"]])
def test_an_invalid_id_in_an_answer_does_not_replace_the_requested_id(odd: object) -> None:
    assert refused(GET, 500, {"request_id": odd}).request_id == "abc"


UNKNOWN = {"message": "Bad Request ID provided"}
INVALID = {"message": "container_log_storage is not a storage"}


@pytest.mark.parametrize(
    ("request_", "said", "kind"),
    [
        (GET, UNKNOWN, NotFound),
        (GET, {}, BadRequest),
        (encode(STOP_DEPLOYMENT, path={"request_id": "abc"}), INVALID, BadRequest),
        (encode(STOP_DEPLOYMENT, path={"request_id": "a"}, query={"x": "y"}), UNKNOWN, NotFound),
        (encode(STOP_DEPLOYMENT, path={"request_id": "a"}, query={"x": "y"}), INVALID, BadRequest),
        (encode(CREATE_TAG, path={"request_id": "abc"}, body=TagName("x")), UNKNOWN, NotFound),
        (encode(CREATE_TAG, path={"request_id": "abc"}, body=TagName("x")), {}, BadRequest),
        (encode(DEPLOY), UNKNOWN, BadRequest),
    ],
)
def test_a_400_is_not_found_if_it_says_so_in_the_words_of_the_api(
    request_: HttpRequest[Any], said: dict[str, str], kind: type[Refused]
) -> None:
    error = refused(request_, 400, said)

    assert type(error) is kind
    assert error.status == 400


def test_row_61_the_advice_of_a_404_in_other_words_does_not_say_that_it_never_existed() -> None:
    error = refused(GET, 404, {"message": "no Route matched with those values"})

    assert "never existed" not in str(error)
    assert "proxy" in str(error)
    assert "never existed" in str(refused(GET, 404, UNKNOWN))


# ── Retry-After ──────────────────────────────────────────────────────────────────────────────────


def retry_after(**headers: str) -> float | None:
    error = refused(GET, 429, {"message": "slow down"}, **headers)
    assert isinstance(error, RateLimited)
    return error.retry_after


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2", 2),
        (" 2 ", 2),
        ("0", 0),
        ("-5", 0),
        ("1.5", 1.5),
        ("60", 60),
        ("99999999", 60),
        ("9" * 400, 60),
        ("²", None),
        ("٣", None),
        ("1e3", None),
        ("0x10", None),
        ("nan", None),
        ("inf", None),
        ("soon", None),
        ("", None),
        ("Wed, 21 Oct 2015", None),
        ("Wed, 21 Oct 2015 07:28:00 -0000", 0),
        ("Wed, 99 Oct 2015 07:28:00 GMT", None),
        ("Wed, 21 Oct 2015 07:28:00 +99999999999", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("Wed, 21 Oct 9999 07:28:00 GMT", 60),
    ],
)
def test_row_14_retry_after_is_0_to_60_seconds_or_unknown(text: str, seconds: float | None) -> None:
    assert retry_after(Retry_After=text) == seconds


def test_row_14_a_429_without_retry_after_is_unknown() -> None:
    assert retry_after() is None


def test_row_14_a_date_is_measured_by_our_clock_if_the_server_has_none() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=20), usegmt=True)

    assert 10 < (retry_after(Retry_After=soon) or 0) <= 20


@pytest.mark.parametrize(
    ("date", "seconds"),
    [
        ("Wed, 21 Oct 2015 07:27:53 GMT", 7),
        ("Wed, 21 Oct 2015 07:28:53 GMT", 0),
        ("Wed, 21 Oct 2015 06:00:00 GMT", 60),
        ("Wed, 21 Oct 2015 09:27:53 +0200", 7),
    ],
)
def test_row_14_a_date_is_measured_by_the_servers_clock(date: str, seconds: float) -> None:
    assert retry_after(Retry_After="Wed, 21 Oct 2015 07:28:00 GMT", Date=date) == seconds


@given(
    text=st.text() | st.dates().map(str) | st.from_regex(r"[A-Z][a-z]{2}, \d+ \w+ \d+ [\d:]+ .*"),
    date=st.text(max_size=20),
)
@FUZZ
def test_row_14_any_text_is_0_to_60_seconds_or_unknown(text: str, date: str) -> None:
    for headers in ({"Retry_After": text}, {"Retry_After": text, "Date": date}):
        seconds = retry_after(**headers)

        assert seconds is None or 0 <= seconds <= 60


@pytest.mark.parametrize(("status", "seconds"), [(503, 2), (500, 2), (425, 2), (422, None)])
def test_row_65_retry_after_counts_where_the_request_may_succeed_later(
    status: int, seconds: float | None
) -> None:
    error = refused(GET, status, Retry_After="2")

    assert isinstance(error, Refused)
    assert error.retry_after == seconds


@pytest.mark.parametrize("unreadable", ["", "yesterday", "Wed, 99 Oct 2015 07:28:00 GMT"])
def test_row_14_an_unreadable_date_of_the_server_is_replaced_by_our_clock(unreadable: str) -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=30))

    assert retry_after(Retry_After=soon, Date=unreadable) == pytest.approx(29, abs=2)


@pytest.mark.parametrize("status", [404, 410])
@pytest.mark.parametrize("body", [b"404: Not Found", b"<html>", b"[]"])
def test_a_deployment_is_gone_only_if_the_answer_has_the_apis_format(
    status: int, body: bytes
) -> None:
    request = encode(STOP_DEPLOYMENT, path={"request_id": "abc123"})
    with pytest.raises(UnreadableAnswer, match="the answer is not in the API's format"):
        decode(request, HttpResponse(status=status, headers={}, body=body))
    for theirs in (b"", b"{}", b'{"message": "no such deployment"}'):
        with pytest.raises((NotFound, Gone)):
            decode(request, HttpResponse(status=status, headers={}, body=theirs))


# ── bodies of another kind ───────────────────────────────────────────────────────────────────────


NO_OBJECTS = (b"null", b"[]", b"[null]", b"5", b"1e999", b'"x"', b"true", b"\xef\xbb\xbfnull")


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_an_answer_that_is_no_object_is_transient_and_may_hide_that_the_api_has_acted(
    operation: Operation[Any],
) -> None:
    names = re.findall(r"{(\w+)}", operation.path)
    request = encode(operation, path=dict.fromkeys(names, "abc"))
    for body in NO_OBJECTS:
        for status in operation.ok if operation.returns is not type(None) else ():
            error = refused(request, status, body)
            assert type(error) is UnreadableAnswer
            assert is_transient(error)
            assert is_ambiguous(error)
        for status in {*operation.may_fail, 401, 403, 404, 410, 502} - {409, 422, 424}:
            assert is_transient(refused(request, status, body)), (status, body)
        for status in (409, 422):
            assert not isinstance(refused(request, status, body), UnreadableAnswer)


GATEWAYS_JSON = (
    {"status": "ok"},
    {"error": {"code": 17}},
    {"title": "maintenance", "detail": ""},
    {"message": ["ok"], "code": 0},
)


@pytest.mark.parametrize("body", GATEWAYS_JSON, ids=str)
@pytest.mark.parametrize(
    "operation",
    [LIST_DEPLOYMENTS, LIST_FLEET_HOSTS, LIST_TAGS],
    ids=lambda operation: operation.name,
)
def test_a_gateways_object_is_no_empty_list(operation: Operation[Any], body: object) -> None:
    request = encode(operation, path={"request_id": "abc", "fleet_name": "abc"})
    error = refused(request, 200, body)

    assert "has no field of a" in str(error)
    assert is_transient(error)
