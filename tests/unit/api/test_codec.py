"""The codec reads answers leniently and requests strictly, and writes both."""

from __future__ import annotations

import copy
import ipaddress
import json
import pickle
import runpy
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
from reference_examples import SHOWN_ANSWERS, SHOWN_REQUESTS

from edgegap_async.api import codec
from edgegap_async.api.codec import (
    ListQuery,
    dumps,
    format_time,
    list_query,
    loads,
    read_answer,
    read_list_query,
    read_request,
    read_time,
    to_json,
)
from edgegap_async.api.models import (
    DeployAccepted,
    Deployment,
    DeploymentPage,
    Json,
    LocationPage,
    Pagination,
    Status,
    Stopped,
    TagPage,
)
from edgegap_async.api.requests import DeployRequest, Filter, OrderBy, StopFilters, TagName
from edgegap_async.api.resources.container_registry import ImageTagPage
from edgegap_async.api.resources.metrics import Metrics, MetricSeries
from edgegap_async.api.resources.private_fleets import Centroid, FleetHost, HostPage
from edgegap_async.errors import InvalidRequest

KIND = pytest.mark.parametrize("kind", SHOWN_ANSWERS, ids=lambda kind: kind.__name__)


def body(value: object) -> bytes:
    return json.dumps(value).encode()


# ── answers ──────────────────────────────────────────────────────────────────────────────────────


@KIND
def test_an_answer_keeps_the_json_in_raw(kind: type[Any]) -> None:
    shown = {**SHOWN_ANSWERS[kind], "of tomorrow": [1], "raw": "a field of that name"}

    assert read_answer(kind, body(shown)).raw == shown


@KIND
def test_an_answer_survives_writing_and_reading(kind: type[Any]) -> None:
    once = read_answer(kind, body(SHOWN_ANSWERS[kind]))

    assert read_answer(kind, dumps(to_json(once))) == once


def test_a_field_is_read_once() -> None:
    deployment = read_answer(Deployment, body(SHOWN_ANSWERS[Deployment]))

    assert deployment.ports["7777"].internal == 7777
    assert deployment.ports is deployment.ports


@KIND
def test_an_answer_with_only_an_id_equals_a_model_made_with_that_id(
    kind: type[Any],
) -> None:
    ids = {field.name: "x" for field in attrs.fields(kind) if field.default is attrs.NOTHING}

    assert read_answer(kind, body(ids)) == kind(**ids)


@KIND
@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, attrs.evolve, lambda answer: pickle.loads(pickle.dumps(answer))],
    ids=["copy", "deepcopy", "evolve", "pickle"],
)
def test_an_answer_can_be_copied_before_its_fields_are_read(
    kind: type[Any], copied: Callable[[Any], Any]
) -> None:
    copy_of_it = copied(read_answer(kind, body(SHOWN_ANSWERS[kind])))

    assert copy_of_it == read_answer(kind, body(SHOWN_ANSWERS[kind]))
    assert copy_of_it.raw == SHOWN_ANSWERS[kind]


@pytest.mark.parametrize(
    "answer", [Deployment(request_id="a"), read_answer(Deployment, b'{"request_id":"a","x":1}')]
)
def test_an_unknown_field_is_in_raw_only(answer: Deployment) -> None:
    with pytest.raises(AttributeError, match="'Deployment' object has no attribute 'x'"):
        answer.x  # type: ignore[attr-defined] # noqa: B018 - the access raises


@pytest.mark.parametrize("value", [None, [], "text", 5, True])
def test_an_answer_that_is_not_an_object_is_unreadable(value: object) -> None:
    with pytest.raises(ValueError, match="object is needed"):
        read_answer(Deployment, body(value))


@pytest.mark.parametrize("value", [{}, {"request_id": None}, {"request_id": ""}])
@pytest.mark.parametrize("odd", [True, [], {}])
def test_a_deployment_without_an_id_is_unreadable_and_the_error_says_so(
    value: Any, odd: object
) -> None:
    for wrong in (value, {"request_id": odd}):
        with pytest.raises(ValueError, match="request_id"):
            read_answer(Deployment, body(wrong))


def test_json_nested_too_deep_is_unreadable() -> None:
    with pytest.raises(ValueError, match=r"."):
        read_answer(Deployment, b"[" * 100_000)


@pytest.mark.parametrize("nothing", ["null", "5", '"x"', "[]", "{}"])
def test_a_missing_or_invalid_object_reads_as_empty(nothing: str) -> None:
    metrics = read_answer(Metrics, f'{{"cpu":{nothing},"total":{nothing}}}'.encode())

    assert metrics == Metrics()
    assert metrics.cpu == MetricSeries()


def test_numbers_are_read_from_texts_and_integers_stay_integers() -> None:
    deployment = read_answer(
        Deployment,
        body({"request_id": "a", "sockets": "5", "sockets_usage": 2.0, "elapsed_time": 1.5}),
    )

    assert (deployment.sockets, deployment.sockets_usage) == (5, 2)
    assert type(deployment.sockets) is type(deployment.sockets_usage) is int
    assert deployment.elapsed_time is None


@pytest.mark.parametrize("value", ["nan", "inf", "1e999", "x", "", True, False, None, [], {}])
def test_a_value_that_is_not_a_number_reads_as_none(value: object) -> None:
    location = {"latitude": value}
    read = read_answer(LocationPage, body({"locations": [location], "total_count": value}))

    assert read.locations[0].latitude is None
    assert read.total_count is None
    assert read.raw["locations"] == [location]


@pytest.mark.parametrize(
    ("value", "text"), [(7, "7"), (1.5, "1.5"), ("", ""), (True, None), ([], None), (None, None)]
)
def test_a_number_reads_as_a_text_and_a_boolean_does_not(value: object, text: str | None) -> None:
    assert read_answer(Deployment, body({"request_id": "a", "fqdn": value})).fqdn == text


@pytest.mark.parametrize(
    ("value", "truth"),
    [(True, True), ("true", True), ("True", True), (False, False), ("no", False), (1, False)],
)
def test_a_boolean_may_be_a_text(value: object, *, truth: bool) -> None:
    assert read_answer(Deployment, body({"request_id": "a", "running": value})).running is truth


def test_lists_omit_items_of_another_type() -> None:
    read = read_answer(
        Deployment,
        body({"request_id": "a", "tags": ["x", None, 5, []], "sessions": [5, {}], "ports": []}),
    )

    assert read.tags == ("x", "5")
    assert len(read.sessions) == 1
    assert read.ports == {}


def test_ports_omit_values_that_are_not_objects() -> None:
    read = read_answer(Deployment, body({"request_id": "a", "ports": {"a": {}, "b": None}}))

    assert set(read.ports) == {"a"}


def test_values_of_a_series_stay_beside_their_times() -> None:
    series = {"datasets": ["2458", None, "x", 3], "timestamps": ["2021-07-14 14:17:37.711", 5]}
    read = read_answer(Metrics, body({"cpu": series}))

    assert read.cpu.datasets == (2458.0, None, None, 3.0)
    assert read.cpu.timestamps == (datetime(2021, 7, 14, 14, 17, 37, 711000, UTC), None)


def test_unknown_and_missing_statuses_are_read() -> None:
    read = read_answer(
        Deployment,
        body({"request_id": "a", "current_status": "Status.PONDERING", "last_status": ""}),
    )

    assert read.current_status == "Status.PONDERING"
    assert read.last_status is None


def test_a_status_that_is_not_a_text_is_unknown() -> None:
    read = read_answer(Deployment, b'{"request_id":"a","current_status":5}')

    assert read.current_status == ""


def test_both_known_shapes_of_a_host_are_read_and_written_as_they_came() -> None:
    older = SHOWN_ANSWERS[HostPage]["data"][0]
    newer: dict[str, Any] = {key: older[key] for key in older if key != "delete_schedules"}
    newer["centroid"] = newer.pop("pin")
    newer["delete_schedule"] = older["delete_schedules"][0]
    newer["fleet_host_specifications"] = {
        "cpu_units": 16384,
        "memory_mb": 32768,
        "base_clock_speed_mhz": 2000,
    }
    page = read_answer(HostPage, body({"data": [older, newer]}))

    assert page.data[0].pin == page.data[1].centroid
    assert isinstance(page.data[1].centroid, Centroid)
    assert [to_json(host) for host in page.data] == [older, newer]


def test_a_host_without_times_is_written_without_times() -> None:
    assert to_json(FleetHost(host_id="h"))["created_at"] is None


def test_a_page_with_an_empty_pagination_object_has_an_empty_pagination() -> None:
    assert read_answer(TagPage, b'{"tags":[],"pagination":{}}').pagination == Pagination()


MOMENT = datetime(2025, 11, 29, 22, 35, 31, 971359, UTC)


@pytest.mark.parametrize(
    "text",
    [
        "2025-11-29 22:35:31.971359",
        "2025-11-29T22:35:31.971359",
        "2025-11-29T22:35:31.971359Z",
        "2025-11-29T22:35:31.971359+00:00",
        "2025-11-29 17:35:31.971359-05:00",
    ],
)
def test_a_time_in_every_format_is_read_as_utc(text: str) -> None:
    time = read_time(text)

    assert time is not None
    assert (time, time.tzinfo) == (MOMENT, UTC)


@pytest.mark.parametrize(
    "value", [None, "", "soon", 5, [], "2025-13-45", "0001-01-01T00:00:00+23:00"]
)
def test_a_value_that_is_not_a_time_reads_as_none(value: object) -> None:
    assert read_time(value) is None


def test_a_time_is_written_as_v1_writes_it_and_in_utc() -> None:
    elsewhere = MOMENT.astimezone(timezone(timedelta(hours=5)))

    assert format_time(elsewhere) == "2025-11-29 22:35:31.971359"


def test_an_explicit_false_is_sent() -> None:
    request = DeployRequest(
        application="a", version="v", users=["10.0.0.1"], require_cached_locations=False
    )

    assert to_json(request)["require_cached_locations"] is False


SHOWN = pytest.mark.parametrize("kind", SHOWN_REQUESTS, ids=lambda kind: kind.__name__)


@SHOWN
def test_the_requests_of_the_reference_are_read_and_written_unchanged(kind: type[Any]) -> None:
    shown = SHOWN_REQUESTS[kind]

    assert to_json(read_request(kind, body(shown))) == shown


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"application": None}, "a str is needed, not None @ $.application"),
        ({"application": 5}, "a str is needed, not 5 @ $.application"),
        ({"app_name": "a"}, "extra fields found (app_name) @ $"),
        ({"users": []}, "must not be empty"),
        ({"users": {}}, "a list is needed"),
        ({"users": [5]}, "a user has user_type and user_data @ $.users"),
        ({"users": [{"user_type": "x", "user_data": {}}]}, "user_type must be one of ip_address"),
        (
            {"users": [{"user_type": "geo_coordinates", "user_data": {"latitude": "1"}}]},
            "a float is needed, not '1' @ $.users.latitude",
        ),
        ({"environment_variables": [{"key": "a", "value": "b"}]}, "key, value and is_hidden"),
        (
            {"environment_variables": [{"key": "a", "value": "b", "is_hidden": 0}]},
            "is_hidden must be of type bool, not 0",
        ),
        (
            {"webhook_on_ready": "https://a.example"},
            "an object is needed, not 'https://a.example' @ $.webhook_on_ready",
        ),
        ({"resources": 5}, "an object is needed, not 5 @ $.resources"),
        ({"resources": {"cpu_units": 99, "memory_mib": 100}}, "must be 100 or more"),
    ],
)
def test_the_error_of_an_invalid_request_names_the_problem_and_its_place(
    changes: dict[str, object], reason: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_request(DeployRequest, body(SHOWN_REQUESTS[DeployRequest] | changes))

    assert reason in str(caught.value)


@pytest.mark.parametrize("field", ["field", "values", "filter_type"])
def test_a_stop_filter_needs_all_three_of_its_fields(field: str) -> None:
    filters = [{"field": "request_id", "values": ["a"], "filter_type": "any"}]
    del filters[0][field]

    with pytest.raises(InvalidRequest, match=field):
        read_request(StopFilters, body({"filters": filters}))


def test_an_unknown_word_of_a_query_is_refused_and_named() -> None:
    filters = [{"field": "tags", "values": ["a"], "filter_type": "any"}]

    with pytest.raises(
        InvalidRequest, match="field must be one of request_id, deployment_tags, not "
    ):
        read_request(StopFilters, body({"filters": filters}))
    with pytest.raises(InvalidRequest, match="order must be one of asc, desc, not 'up'"):
        read_list_query('{"order_by":[{"field":"created_at","order":"up"}]}')


@pytest.mark.parametrize("value", [None, [], "text", 5])
def test_a_request_that_is_not_an_object_is_refused(value: object) -> None:
    with pytest.raises(InvalidRequest, match="the body is not a JSON object"):
        read_request(TagName, body(value))


def test_a_query_is_written_and_read_as_documented() -> None:
    filters = (
        Filter("status", "eq", "ready"),
        Filter("tags", "in", ["eu"]),
        Filter("created_at", "gte", datetime(2026, 9, 30, tzinfo=UTC)),
    )
    orders = (OrderBy("created_at", "desc"),)
    text = list_query(filters, orders)

    assert read_list_query(text) == ListQuery(filters, orders)
    assert json.loads(text or "") == {
        "filters": [
            {"field": "status", "operator": "eq", "value": "ready"},
            {"field": "tags", "operator": "in", "value": ["eu"]},
            {"field": "created_at", "operator": "gte", "value": "2026-09-30T00:00:00Z"},
        ],
        "order_by": [{"field": "created_at", "order": "desc"}],
    }


@pytest.mark.parametrize("written", [Status.READY, "Status.READY", "READY", "ready"])
def test_a_status_is_sent_lower_case_and_without_prefix(written: str) -> None:
    text = list_query([Filter("status", "eq", written)], ())

    assert json.loads(text or "")["filters"][0]["value"] == "ready"


def test_a_list_without_filters_and_order_has_no_query() -> None:
    assert list_query((), ()) is None
    assert read_list_query(None) == ListQuery()


def test_two_filters_on_one_field_are_refused_both_ways() -> None:
    twice = [Filter("tags", "eq", "a"), Filter("tags", "neq", "b")]
    text = json.dumps({"filters": [{"field": "tags", "operator": "eq", "value": "a"}] * 2})

    with pytest.raises(InvalidRequest, match="two filters on tags"):
        list_query(twice, ())
    with pytest.raises(InvalidRequest, match="two filters on tags"):
        read_list_query(text)


@pytest.mark.parametrize(
    "condition",
    [
        5,
        {"field": "tags", "operator": "eq"},
        {"field": ["tags"], "operator": "eq", "value": "a"},
        {"field": "tags", "operator": {}, "value": "a"},
        {"field": "tags", "operator": "in", "value": [1]},
        {"field": "tags", "operator": "in", "value": {"a": 1}},
        {"field": "created_at", "operator": "gte", "value": "soon"},
        {"field": "created_at", "operator": "gte", "value": []},
    ],
)
def test_an_undocumented_filter_in_a_query_is_refused(condition: object) -> None:
    with pytest.raises(InvalidRequest):
        read_list_query(json.dumps({"filters": [condition]}))


# ── JSON ─────────────────────────────────────────────────────────────────────────────────────────


def test_json_is_compact_and_in_utf_8() -> None:
    assert dumps({"a": ["ü", 1]}) == '{"a":["ü",1]}'.encode()
    assert loads(dumps({"a": ["ü", 1]})) == {"a": ["ü", 1]}


def test_an_address_of_the_standard_library_is_sent_as_text() -> None:
    request = DeployRequest(
        application="a", version="v", users=[ipaddress.ip_address("2001:db8::1")]
    )

    assert loads(dumps(to_json(request)))["users"][0]["user_data"] == {"ip_address": "2001:db8::1"}


def test_without_the_extra_json_is_read_by_the_standard_library(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "orjson", None)  # None: not installed
    module = runpy.run_path(codec.__file__, run_name="edgegap_async.api.codec")

    assert module["loads"] is json.loads


def test_with_the_extra_json_is_read_by_orjson(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "orjson", SimpleNamespace(loads=lambda _: "by orjson"))
    module = runpy.run_path(codec.__file__, run_name="edgegap_async.api.codec")

    assert module["loads"](b"1") == "by orjson"


def test_nesting_beyond_the_parsers_limit_is_unreadable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "orjson", None)
    module = runpy.run_path(codec.__file__, run_name="edgegap_async.api.codec")

    with pytest.raises(ValueError, match="nested too deep"):
        module["read_answer"](Deployment, b"[" * 100_000)
    with pytest.raises(InvalidRequest, match="not JSON"):
        module["read_request"](TagName, b"[" * 100_000)


def test_a_number_too_large_for_a_float_is_none() -> None:
    read = read_answer(LocationPage, b'{"locations":[{"latitude":1' + b"0" * 400 + b"}]}")

    assert read.locations[0].latitude is None


def test_raw_is_not_written() -> None:
    came: Json = {"request_id": "a", "new": 1}

    assert to_json(DeployAccepted(request_id="a", raw=came)) == {"request_id": "a"}


def test_a_row_without_an_id_is_skipped_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    body = codec.dumps({"data": [{"request_id": "a"}, {"fqdn": "b"}, {"request_id": "c"}]})

    page = codec.read_answer(DeploymentPage, body)

    assert [row.request_id for row in page.data] == ["a", "c"]
    assert "skipping a DeploymentRow of an answer" in caplog.text


def test_a_row_without_another_required_field_is_skipped_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    page = codec.read_answer(ImageTagPage, b'{"data": [{"tag": "v1"}, {}, {"tag": "v2"}]}')

    assert [row.tag for row in page.data] == ["v1", "v2"]
    assert "skipping a ImageTag of an answer" in caplog.text


def test_an_accepted_stop_is_readable_with_any_summary() -> None:
    body = b'{"message": "will be deleted", "deployment_summary": {}}'

    stopped = codec.read_answer(Stopped, body)

    assert stopped.message == "will be deleted"
    assert stopped.deployment_summary is None


@pytest.mark.parametrize(
    ("filters", "order_by", "message"),
    [
        ({"tags": "x"}, (), "filters must be a list"),
        (Filter("tags", "eq", "x"), (), "filters must be a list"),
        (["tags"], (), "filters must be a list of Filter, not of 'tags'"),
        ((), "created_at", "order_by must be a list"),
        ((), ["created_at"], "order_by must be a list of OrderBy, not of 'created_at'"),
    ],
)
def test_the_error_names_an_invalid_filter_or_order(
    filters: Any, order_by: Any, message: str
) -> None:
    with pytest.raises(InvalidRequest, match=message):
        list_query(filters, order_by)
