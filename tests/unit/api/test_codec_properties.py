"""Properties of the codec for generated JSON and generated requests."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_examples import SHOWN_ANSWERS, SHOWN_REQUESTS

from edgegap_async.api import codec
from edgegap_async.api.codec import (
    ListQuery,
    dumps,
    format_time,
    list_query,
    read_answer,
    read_list_query,
    read_request,
    read_time,
    to_json,
)
from edgegap_async.api.models import Deployment, Tag, TagPage
from edgegap_async.api.requests import (
    DeployRequest,
    EnvironmentVariable,
    Filter,
    FleetDeployRequest,
    GeoCoordinates,
    IpAddress,
    OrderBy,
    Resources,
    StopFilter,
    StopFilters,
    TagName,
    Webhook,
)
from edgegap_async.api.resources.applications import (
    Application,
    ApplicationPage,
    ApplicationVersion,
    VersionPage,
    VersionSaved,
)
from edgegap_async.api.resources.container_registry import ImageTagPage, TagDeletions
from edgegap_async.api.resources.endpoint_storages import (
    EndpointStorage,
    EndpointStoragePage,
    PullProfile,
    PullProfilePage,
)
from edgegap_async.api.resources.locations import PublicAddress
from edgegap_async.errors import InvalidRequest


def body(value: object) -> bytes:
    return json.dumps(value).encode()


FUZZ = settings(max_examples=200)


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(),
    st.sampled_from(["", "nan", "-inf", "1e999", "9" * 400, "true", "2025-13-45 00:00:00", "12.5"]),
)


JSON = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5) | st.sampled_from(["request_id", "raw"]), inner)
    ),
    max_leaves=8,
)


def places(value: Any, at: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Returns the path of every value inside a JSON value, the empty path first."""
    yield at
    if isinstance(value, dict):
        for key, item in value.items():
            yield from places(item, (*at, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from places(item, (*at, index))


def with_instead(value: Any, at: tuple[str | int, ...], other: object) -> Any:
    """Returns a copy of a JSON value with `other` at one path."""
    if not at:
        return other
    copied = json.loads(json.dumps(value))
    inside = copied
    for step in at[:-1]:
        inside = inside[step]
    inside[at[-1]] = other
    return copied


@FUZZ
@given(kind=st.sampled_from(list(SHOWN_ANSWERS)), data=st.data())
def test_any_json_at_any_place_of_an_answer_is_read_or_raises_value_error(
    kind: type[Any], data: st.DataObject
) -> None:
    shown = SHOWN_ANSWERS[kind]
    odd = with_instead(shown, data.draw(st.sampled_from(list(places(shown)))), data.draw(JSON))

    try:
        model = read_answer(kind, json.dumps(odd).encode())
    except ValueError:
        return
    assert isinstance(model, kind)
    json.dumps(to_json(model), allow_nan=False)


NAMED = {Tag, TagPage, Application, ApplicationPage, ApplicationVersion, VersionPage, VersionSaved}
NAMED |= {EndpointStorage, EndpointStoragePage, PullProfile, PullProfilePage}
TAGGED = {ImageTagPage, TagDeletions}


@FUZZ
@given(kind=st.sampled_from(list(SHOWN_ANSWERS)), data=st.data())
def test_row_24_only_an_invalid_id_makes_an_answer_unreadable(
    kind: type[Any], data: st.DataObject
) -> None:
    shown = SHOWN_ANSWERS[kind]
    ids = {"request_id", "host_id", "ip_address", "session_id"}
    ids |= {"public_ip"} if kind is PublicAddress else set()
    ids |= {"name"} if kind in NAMED else {"tag"} if kind in TAGGED else set()
    at = data.draw(
        st.sampled_from([at for at in places(shown) if at and at[-1] not in ids] or [()])
    )
    odd = with_instead(shown, at, data.draw(SCALARS)) if at else shown

    model = read_answer(kind, body(odd))

    assert isinstance(model, kind)
    assert repr(model)  # reads every field


@FUZZ
@given(kind=st.sampled_from(list(SHOWN_ANSWERS)), raw=st.binary())
def test_any_bytes_are_read_or_raise_value_error(kind: type[Any], raw: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(read_answer(kind, raw), kind)


MODERN = datetime(1900, 1, 1)  # noqa: DTZ001 - hypothesis wants it naive


OFFSETS = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@FUZZ
@given(st.datetimes(MODERN) | st.datetimes(MODERN, timezones=OFFSETS))
def test_a_written_time_reads_the_same(moment: datetime) -> None:
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)

    assert read_time(format_time(moment)) == aware


NAMES = st.text(
    st.characters(codec="utf-8", exclude_categories=["C", "Z"]) | st.just(" "),
    min_size=1,
    max_size=40,
).filter(str.strip)


USERS = st.builds(IpAddress, st.ip_addresses().map(str)) | st.builds(
    GeoCoordinates, st.floats(-90, 90), st.floats(-180, 180)
)


VARIABLES = st.builds(
    EnvironmentVariable,
    NAMES.filter(lambda name: "=" not in name),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=100),
    st.booleans(),
)


WEBHOOKS = st.none() | st.builds(
    Webhook, st.sampled_from(["http://127.0.0.1:80/", "https://a.example/x?y=ü"])
)


DEPLOY: dict[str, Any] = {
    "application": NAMES,
    "version": NAMES,
    "users": st.lists(USERS, min_size=1, max_size=3),
    "require_cached_locations": st.none() | st.booleans(),
    "environment_variables": st.lists(VARIABLES, max_size=3),
    "tags": st.lists(NAMES, unique=True, max_size=3),
    "webhook_on_ready": WEBHOOKS,
    "webhook_on_error": WEBHOOKS,
    "webhook_on_terminated": WEBHOOKS,
    "resources": st.none() | st.builds(Resources, st.integers(100, 10**9), st.integers(100, 10**9)),
}


STOP_FILTERS = st.builds(
    StopFilter,
    st.sampled_from(["request_id", "deployment_tags"]),
    st.lists(NAMES, min_size=1, unique=True, max_size=3),
    st.sampled_from(["any", "all", "not"]),
)


REQUESTS = st.one_of(
    st.builds(DeployRequest, **DEPLOY),
    st.builds(
        FleetDeployRequest,
        **DEPLOY,
        private_host_ids=st.lists(NAMES, min_size=1, unique=True, max_size=3),
    ),
    st.builds(StopFilters, st.lists(STOP_FILTERS, max_size=2)),
    st.builds(TagName, NAMES),
)


@FUZZ
@given(REQUESTS)
def test_every_valid_request_is_read_back_unchanged(request: Any) -> None:
    assert read_request(type(request), dumps(to_json(request))) == request


@FUZZ
@given(REQUESTS)
def test_unset_fields_are_not_sent(request: Any) -> None:
    sent = to_json(request)

    assert None not in sent.values()
    assert {
        field.name for field in attrs.fields(type(request)) if field.default is attrs.NOTHING
    } <= set(sent)


def without_unset(value: Any) -> Any:
    """Returns a JSON value without fields that are null or empty lists, which say nothing."""
    if isinstance(value, dict):
        return {key: without_unset(item) for key, item in value.items() if item not in ([], None)}
    if isinstance(value, list):
        return [without_unset(item) for item in value]
    return value


@FUZZ
@given(kind=st.sampled_from(list(SHOWN_REQUESTS)), data=st.data())
def test_any_json_at_any_place_of_a_request_is_accepted_or_refused(
    kind: type[Any], data: st.DataObject
) -> None:
    shown = SHOWN_REQUESTS[kind]
    odd = with_instead(shown, data.draw(st.sampled_from(list(places(shown)))), data.draw(JSON))

    try:
        request = read_request(kind, json.dumps(odd).encode())
    except InvalidRequest:
        return
    assert without_unset(to_json(request)) == without_unset(odd)


@FUZZ
@given(kind=st.sampled_from(list(SHOWN_REQUESTS)), raw=st.binary())
def test_a_request_that_is_not_json_is_refused(kind: type[Any], raw: bytes) -> None:
    with pytest.raises(InvalidRequest):
        read_request(kind, raw)


def filters_on(field: str) -> st.SearchStrategy[Filter]:
    words = st.sampled_from(["ready", "error"]) if field == "status" else NAMES
    many = st.builds(
        Filter,
        st.just(field),
        st.sampled_from(["in", "nin"]),
        st.lists(NAMES, min_size=1, max_size=3),
    )
    if field == "created_at":
        moments = st.datetimes(MODERN, timezones=st.just(UTC))
        return st.builds(Filter, st.just(field), st.sampled_from(["eq", "gte", "lte"]), moments)
    one = st.builds(Filter, st.just(field), st.sampled_from(["eq", "neq"]), words)
    return one if field == "status" else one | many


FIELDS = ["status", "request_id", "tags", "created_at", "application", "version", "fleet_name"]


QUERIES = st.builds(
    ListQuery,
    st.lists(st.sampled_from(FIELDS), unique=True, max_size=3)
    .flatmap(lambda fields: st.tuples(*map(filters_on, fields)))
    .map(tuple),
    st.lists(
        st.builds(
            OrderBy,
            st.sampled_from(["created_at", "available_session_sockets"]),
            st.sampled_from(["asc", "desc"]),
        ),
        max_size=2,
    ).map(tuple),
)


@FUZZ
@given(QUERIES)
def test_every_valid_query_is_read_back_unchanged(query: ListQuery) -> None:
    assert read_list_query(list_query(query.filters, query.order_by)) == query


@FUZZ
@given(st.text(st.characters()) | JSON.map(json.dumps))
def test_any_text_is_read_as_a_query_or_refused(text: str) -> None:
    with contextlib.suppress(InvalidRequest):
        assert read_list_query(text) == ListQuery()


# ── both readers of JSON ──────────────────────────────────────────────────────────────────────────


ODD_JSON = [
    b"NaN",
    b"[Infinity, -Infinity]",
    b"1e999",
    b"-1e999",
    b"1.7976931348623159e308",
    b"1e-400",
    b"-0",
    b"-0.0",
    b'"\\ud800"',
    b'"\\ude00\\ud83d"',
    b'"\\ud83d\\ude00"',
    b'"\xed\xa0\x80"',
    b"\xef\xbb\xbf{}",
    b"\xef\xbb\xbf",
    b"123456789012345678901234",
    b"9223372036854775807",
    b"18446744073709551615",
    b"18446744073709551616",
    b"-9223372036854775808",
    b"-9223372036854775809",
    b"12345678901234567890.5",
    b"9" * 5000,
    b'{"a": 1, "b": 2, "a": 3}',
    b"[" * 200 + b"]" * 200,
    '{"a": "\xe9"}'.encode("utf-16"),
    '{"a": "\xe9"}'.encode("utf-32-le"),
    '{"a": "\xe9"}'.encode("latin-1"),
    b'"\xc0\x80"',
    b'"\xf4\x90\x80\x80"',
    b'"\x00"',
    b'"\\u0000"',
    b"\x0b1",
    b"[1,]",
    b"{'a': 1}",
    b"01",
    b"1 2",
    b"",
]


def outcome(loads: Callable[[bytes], Any], raw: bytes) -> str:
    """Returns what a reader reads, as a text, because NaN is not equal to itself."""
    try:
        return repr(loads(raw))
    except ValueError:
        return "not JSON"


def test_row_80_the_fast_reader_reads_every_oddity_as_the_standard_reader_does() -> None:
    pytest.importorskip("orjson")
    assert codec.loads is not json.loads

    assert {raw: outcome(codec.loads, raw) for raw in ODD_JSON} == {
        raw: outcome(json.loads, raw) for raw in ODD_JSON
    }


@pytest.mark.parametrize("spaces", range(8))
@pytest.mark.parametrize("number", [2**63 - 1, 2**64 - 1, 2**64 + 1, -(2**63) - 1, 10**24 + 1])
def test_a_long_number_is_read_exactly_wherever_it_stands(number: int, spaces: int) -> None:
    text = f"{' ' * spaces}[{number}]"

    assert repr(codec.loads(text.encode())) == repr([number])


ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=8)
ANY_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=12,
)
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-32-be"]


@st.composite
def documents(draw: st.DrawFn) -> bytes:
    """JSON of any value, as any program may write it, or with an oddity or a fault in it."""
    text = json.dumps(draw(ANY_JSON), ensure_ascii=draw(st.booleans()))
    raw = text.encode(draw(st.sampled_from(ENCODINGS)), "surrogatepass")
    at = draw(st.integers(0, len(raw)))
    inserted = draw(st.sampled_from([b"", *ODD_JSON]) | st.binary(max_size=3))
    return raw[:at] + inserted + raw[at + draw(st.integers(0, 2)) :]


@settings(max_examples=1000)
@given(raw=documents())
def test_row_80_both_readers_of_json_agree(raw: bytes) -> None:
    pytest.importorskip("orjson")

    assert outcome(codec.loads, raw) == outcome(json.loads, raw)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999", "123456789012345678901234"])
def test_row_80_a_status_with_an_odd_number_is_read(number: str) -> None:
    raw = f'\ufeff{{"request_id": "r1", "error_detail": "\\ud800", "elapsed_time": {number}}}'
    read = read_answer(Deployment, raw.encode())

    assert (read.request_id, read.error_detail) == ("r1", "\ud800")
    assert read.elapsed_time == (int(number) if number.isdecimal() else None)
