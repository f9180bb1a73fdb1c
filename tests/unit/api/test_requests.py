"""Requests refuse invalid values when they are created."""

from __future__ import annotations

import copy
import ipaddress
import math
import pickle
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgegap_async.api.models import Status
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
    Token,
    Webhook,
)
from edgegap_async.errors import InvalidRequest


def deploy(**fields: Any) -> DeployRequest:
    wanted: dict[str, Any] = {"application": "arena", "version": "v1", "users": ["75.28.35.192"]}
    return DeployRequest(**wanted | fields)


# ── users ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("written", "user"),
    [
        ("75.28.35.192", IpAddress("75.28.35.192")),
        ("2001:db8::1", IpAddress("2001:db8::1")),
        (ipaddress.IPv4Address("75.28.35.192"), IpAddress("75.28.35.192")),
        (ipaddress.IPv6Address("2001:db8::1"), IpAddress("2001:db8::1")),
        ((45.5, -73.6), GeoCoordinates(45.5, -73.6)),
        ([90, -180], GeoCoordinates(90, -180)),
        (IpAddress("75.28.35.192"), IpAddress("75.28.35.192")),
        (GeoCoordinates(0, 0), GeoCoordinates(0, 0)),
    ],
)
def test_a_user_has_several_notations(written: object, user: IpAddress | GeoCoordinates) -> None:
    assert deploy(users=[written]).users == (user,)


@pytest.mark.parametrize(
    "written",
    [
        "",
        "nobody",
        "75.28.35.256",
        "75.28.35.192/24",
        "45.5,-73.6",
        5,
        None,
        b"\x01\x02",
        (45.5,),
        (45.5, -73.6, 3),
        ("45.5", "-73.6"),
        (90.01, 0),
        (0, -180.01),
        (math.nan, 0),
        (True, False),
        {"latitude": 45.5, "longitude": -73.6},
    ],
)
def test_an_invalid_user_is_refused(written: object) -> None:
    with pytest.raises(InvalidRequest):
        deploy(users=[written])


def test_an_address_of_the_standard_library_becomes_a_text() -> None:
    address: Any = ipaddress.IPv6Address("2001:db8::1")

    assert IpAddress(address).ip_address == "2001:db8::1"


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("::FFFF:cb00:7107", "203.0.113.7"),
        ("0:0:0:0:0:ffff:203.0.113.7", "203.0.113.7"),
        (ipaddress.IPv6Address("::ffff:203.0.113.7"), "203.0.113.7"),
        ("64:ff9b::203.0.113.7", "64:ff9b::cb00:7107"),
        ("::203.0.113.7", "::cb00:7107"),
        ("2001:0DB8::0001", "2001:db8::1"),
        (" 203.0.113.7\n", "203.0.113.7"),
    ],
)
def test_an_ipv4_address_in_an_ipv6_address_is_sent_as_ipv4(written: Any, sent: str) -> None:
    assert deploy(users=[written]).users == (IpAddress(sent),)
    assert IpAddress(written).ip_address == sent


@pytest.mark.parametrize(
    ("written", "advice"),
    [
        ("fe80::1%eth0", "a zone is valid on one machine only"),
        ("::ffff:203.0.113.7%1", "a zone is valid on one machine only"),
        ("[2001:db8::1]", "take off the brackets"),
        ("[2001:db8::1]:7777", "take off the brackets, and the port"),
        ("203.0.113.7:7777", "take off the port"),
        ("203.000.113.7", "take off leading zeros"),
        ("010.1.2.3", "take off leading zeros"),
        ("203.0.113.0/24", "not a network"),
        ("203.0.113.7, 198.51.100.2", "make a user of each"),
        ("203.0.113", "not an IPv4 or IPv6 address: '203.0.113'$"),
        ("player.example", "not an IPv4 or IPv6 address: 'player.example'$"),
    ],
)
def test_an_odd_form_of_an_address_is_refused_with_advice(written: str, advice: str) -> None:
    with pytest.raises(InvalidRequest, match=advice):
        deploy(users=[written])


@pytest.mark.parametrize("users", [[], (), "75.28.35.192", b"x", None, 5, {"75.28.35.192": 1}])
def test_a_deploy_needs_a_list_of_at_least_one_user(users: object) -> None:
    with pytest.raises(InvalidRequest):
        deploy(users=users)


def test_users_may_be_a_generator() -> None:
    assert len(deploy(users=(f"10.0.0.{last}" for last in range(3))).users) == 3


# ── deploy ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("field", ["application", "version"])
@pytest.mark.parametrize("name", ["", "  ", "a\nb", "a\0", "\ud800", "x" * 129, None, 5])
def test_an_invalid_name_is_refused(field: str, name: object) -> None:
    with pytest.raises(InvalidRequest, match=field):
        deploy(**{field: name})


def test_names_with_spaces_and_letters_of_any_language_are_accepted() -> None:
    assert deploy(application="v 1/ü", version="x" * 128).application == "v 1/ü"


@pytest.mark.parametrize(
    "tags",
    ["eu", [""], ["x" * 41], [None], [5], ["a", "a"], ["a\tb"], 5],
)
def test_tags_are_a_list_of_different_short_texts(tags: object) -> None:
    with pytest.raises(InvalidRequest):
        deploy(tags=tags)


def test_tags_keep_their_order() -> None:
    assert deploy(tags=iter(["b", "a", "x" * 40])).tags == ("b", "a", "x" * 40)


@pytest.mark.parametrize(
    "fields",
    [
        {"require_cached_locations": "no"},
        {"require_cached_locations": 1},
        {"resources": 7},
        {"resources": (1024, 2048)},
    ],
)
def test_a_field_of_another_type_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest):
        deploy(**fields)


def test_a_fleet_deploy_needs_hosts_in_order_without_repetition() -> None:
    def on_hosts(*hosts: object) -> FleetDeployRequest:
        wanted: Any = hosts
        return FleetDeployRequest(
            application="arena", version="v1", users=["75.28.35.192"], private_host_ids=wanted
        )

    assert on_hosts("b", "a").private_host_ids == ("b", "a")
    for wrong in [(), ("a", "a"), ("",), (None,)]:
        with pytest.raises(InvalidRequest):
            on_hosts(*wrong)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Resources(99, 1024),
        lambda: Resources(1024, 0),
        lambda: Resources(True, 1024),
        lambda: Resources(1024.5, 1024),  # type: ignore[arg-type]  # what is tested
        lambda: Resources(1024, math.inf),  # type: ignore[arg-type]  # what is tested
        lambda: Resources("1024", 1024),  # type: ignore[arg-type]  # what is tested
    ],
)
def test_resources_are_whole_numbers_from_100(make: Callable[[], Resources]) -> None:
    with pytest.raises(InvalidRequest):
        make()


def test_resources_of_100_are_accepted() -> None:
    assert deploy(resources=Resources(100, 100)).resources == Resources(100, 100)


# ── environment variables ────────────────────────────────────────────────────────────────────────


def test_variables_may_be_a_mapping_or_a_list_where_some_are_hidden() -> None:
    hidden = EnvironmentVariable("KEY", "canary-s3cret", is_hidden=True)

    assert deploy(environment_variables={"A": "1"}).environment_variables == (
        EnvironmentVariable("A", "1"),
    )
    assert deploy(environment_variables=[hidden]).environment_variables == (hidden,)


@pytest.mark.parametrize(
    "variables",
    [[("A", "1")], ["A=1"], "A=1", 5, {"A=B": "1"}, {"": "1"}, {"A": 1}, {"A": None}, {5: "1"}],
)
def test_variables_of_another_shape_are_refused(variables: object) -> None:
    with pytest.raises(InvalidRequest):
        deploy(environment_variables=variables)


def test_a_value_has_at_most_four_kilobytes() -> None:
    assert len(EnvironmentVariable("A", "ü" * 2048).value) == 2048
    with pytest.raises(InvalidRequest, match="4096"):
        EnvironmentVariable("A", "ü" * 2048 + "x")


def test_is_hidden_is_a_boolean() -> None:
    with pytest.raises(InvalidRequest):
        EnvironmentVariable("A", "1", "no")  # type: ignore[arg-type]  # what is tested


@given(
    before=st.text(max_size=5),
    secret=st.just("s3cr3t"),
    wrong=st.sampled_from(["\0", "\ud800", "x" * 5000]),
)
def test_the_value_of_a_variable_is_in_no_repr_and_no_error(
    before: str, secret: str, wrong: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        EnvironmentVariable("A", before + secret + wrong)

    assert secret not in "".join(traceback.format_exception(caught.value))
    assert secret not in repr(EnvironmentVariable("A", secret))


# ── webhooks ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080/x", "https://a.example/s3cret?x=1"])
def test_a_webhook_is_an_http_url(url: str) -> None:
    assert deploy(webhook_on_ready=url).webhook_on_ready == Webhook(url)
    assert deploy(webhook_on_error=Webhook(url)).webhook_on_error == Webhook(url)
    assert url not in repr(deploy(webhook_on_terminated=url))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "s3cret",
        "ftp://a.example/s3cret",
        "https:///s3cret",
        "https://[::1/s3cret",
        "https://a.example:99999/s3cret",
        "https://a.example:0/s3cret",
        "https://a.example:s3cret/",
        "https://a\u2100.example/s3cret",
        "https://a.example/s3cret\n",
        "https://a.example/s3cret\ud800",
        5,
        {"url": "https://a.example/s3cret"},
    ],
)
def test_an_invalid_webhook_is_refused_and_not_shown(url: object) -> None:
    with pytest.raises(InvalidRequest) as caught:
        deploy(webhook_on_error=url)

    assert "s3cret" not in str(caught.value)


# ── filters ──────────────────────────────────────────────────────────────────────────────────────

NOON = datetime(2026, 9, 30, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("field", "operator", "value"),
    [
        ("status", "eq", "ready"),
        ("status", "neq", Status.READY),
        ("request_id", "in", ("a", "b")),
        ("tags", "nin", ("a",)),
        ("created_at", "gte", NOON),
        ("created_at", "eq", NOON),
        ("application", "neq", "arena"),
        ("version", "eq", "v1"),
        ("fleet_name", "ilike", "alpha%"),
        ("host_name", "in", ("h",)),
    ],
)
def test_every_documented_filter_is_accepted(field: Any, operator: Any, value: Any) -> None:
    assert Filter(field, operator, value).value == value


@pytest.mark.parametrize(
    ("field", "operator", "value"),
    [
        ("colour", "eq", "red"),
        (["tags"], "eq", "red"),
        ("status", "in", ["ready"]),
        ("status", "lte", "ready"),
        ("tags", "ilike", "a%"),
        ("tags", ["eq"], "a"),
        ("created_at", "neq", NOON),
        ("created_at", "gte", "2026-09-30T12:00:00Z"),
        ("version", "eq", NOON),
        ("tags", "in", "a"),
        ("tags", "eq", ["a"]),
        ("tags", "in", []),
        ("tags", "in", [None]),
        ("tags", "in", [5]),
        ("tags", "in", {"a": 1}),
        ("tags", "eq", ""),
        ("tags", "eq", "\ud800"),
        ("tags", "eq", 5),
        ("tags", "eq", None),
    ],
)
def test_an_undocumented_filter_is_refused(field: Any, operator: Any, value: Any) -> None:
    with pytest.raises(InvalidRequest):
        Filter(field, operator, value)


@pytest.mark.parametrize("fields", [{"field": "name"}, {"order": "up"}, {"field": ["created_at"]}])
def test_an_undocumented_order_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        OrderBy(**fields)


def test_the_default_order_is_oldest_first() -> None:
    assert OrderBy() == OrderBy("created_at", "asc")


@pytest.mark.parametrize(
    ("field", "values", "kind"),
    [
        ("tags", ["a"], "any"),
        ("request_ids", ["a"], "any"),
        ("request_id", [], "any"),
        ("request_id", "a", "any"),
        ("request_id", ["a", "a"], "any"),
        ("request_id", [None], "any"),
        ("request_id", ["a"], "some"),
    ],
)
def test_an_undocumented_stop_filter_is_refused(field: Any, values: Any, kind: Any) -> None:
    with pytest.raises(InvalidRequest):
        StopFilter(field, values, kind)


@pytest.mark.parametrize("filters", [5, None, "request_id", [5], [{"field": "request_id"}]])
def test_a_bulk_stop_accepts_only_stop_filters(filters: Any) -> None:
    with pytest.raises(InvalidRequest):
        StopFilters(filters)


def test_a_bulk_stop_keeps_its_filters() -> None:
    chosen = StopFilter("deployment_tags", ["a", "b"], "all")

    assert StopFilters([chosen]).filters == (chosen,)


@pytest.mark.parametrize("name", ["", " ", "x" * 41, "a\nb", None])
def test_a_tag_has_1_to_40_characters(name: Any) -> None:
    assert TagName("x" * 40).name == "x" * 40
    with pytest.raises(InvalidRequest):
        TagName(name)


# ── tokens ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("written", ["s3cret", "token s3cret", "Token  s3cret", " token s3cret\n"])
def test_a_token_may_have_the_word_of_its_scheme(written: str) -> None:
    assert Token(written, scheme="token").header == {"Authorization": "token s3cret"}


@pytest.mark.parametrize("written", ["s3cret", "Bearer s3cret", "bearer s3cret"])
def test_a_token_goes_out_with_the_word_of_its_scheme(written: str) -> None:
    assert Token(written, scheme="Bearer").header == {"Authorization": "Bearer s3cret"}


def test_a_token_without_a_scheme_is_sent_as_it_is() -> None:
    assert Token("s3cret").header == {"Authorization": "s3cret"}


@pytest.mark.parametrize("written", ["", " ", "s3 cret", "s3cret\r\nX: y", "ü"])
def test_a_token_that_a_header_cannot_have_is_refused_and_not_shown(written: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Token(written, scheme="token")

    assert "cret" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("written", "advice"),
    [
        ("", "it is empty"),
        (" \n", "it is empty"),
        ("Bearer canary-s", "take off the word before it: the client adds 'token'"),
        ("Authorization: token canary-s", "take off the word before it"),
        ("token token canary-s", "take off the word before it"),
        ("token: canary-s", "take off the word before it"),
        ("Api-Key canary-s", "take off the word before it"),
        ("Basic canary-s", "take off the word before it"),
        ('"canary-s"', "take off the quotes around it"),
        ("token 'canary-s'", "take off the quotes around it"),
        ("“canary-s”", "take off the quotes around it"),
        ("<canary-s>", "take off the quotes around it"),
        ("EDGEGAP_API_TOKEN=canary-s", "take off the name of the variable before it"),
        ("export EDGEGAP_API_TOKEN=canary-s", "take off the name of the variable before it"),
        ("canary\ncanary-s", "it has a line break in it"),
        ("canary-s\r\nX: y", "it has a line break in it"),
        ("canary -s", "it has a space in it"),
        ("\ufeffcanary-s", "it has an invisible character in it"),
        ("canary\u200b-s", "it has an invisible character in it"),
        ("canary\t-s", "it has an invisible character in it"),
        ("canary-é", "it has a character beyond ASCII"),
        (b"canary-s", "it is of type bytes"),
    ],
)
def test_row_62_each_slip_in_a_token_has_advice_and_the_token_is_not_shown(
    written: Any, advice: str
) -> None:
    with pytest.raises(InvalidRequest, match=f"^a token must be a text .*: {advice}"):
        Token(written, scheme="token")


def test_a_token_is_not_printed_copied_or_stored() -> None:
    token = Token("s3cret", scheme="token")

    assert (repr(token), str(token), f"{token}") == ("***", "***", "***")
    for leak in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError):
            leak(token)


def test_a_token_of_8_characters_or_more_is_hidden_in_answers() -> None:
    body = b'{"message": "token s3cret-and-long, take s3cret"}'

    assert Token("s3cret-and-long").hidden_in(body) == b'{"message": "token ***, take s3cret"}'
    assert Token("token").hidden_in(body) == body


def test_a_token_that_is_not_a_text_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="a token must be a text"):
        Token(None)  # type: ignore[arg-type]


def test_requests_with_equal_fields_are_equal() -> None:
    here, there = GeoCoordinates(45.5, -73.6), GeoCoordinates(45.5, 73.6)

    assert here == GeoCoordinates(45.5, -73.6)
    assert here != there
    assert here != IpAddress("192.0.2.1")
    assert here != (45.5, -73.6)
    assert len({here, there, GeoCoordinates(45.5, -73.6)}) == 2
