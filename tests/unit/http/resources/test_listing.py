"""A list reads page after page, as a program goes through it."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest
from recorded_calls import Recorder

from edgegap_async.api.codec import read_answer
from edgegap_async.api.models import (
    DeploymentPage,
    DeploymentRow,
    Location,
    LocationPage,
    Pagination,
)
from edgegap_async.api.operations import LIST_DEPLOYMENTS
from edgegap_async.api.requests import Filter, OrderBy
from edgegap_async.errors import InvalidRequest
from edgegap_async.http.resources.deployments import Deployments
from edgegap_async.http.resources.locations import Locations


def page(*ids: str, more: bool | None = True) -> DeploymentPage:
    return DeploymentPage(
        data=tuple(DeploymentRow(request_id=request_id) for request_id in ids),
        pagination=None if more is None else Pagination(has_next=more),
    )


def decoded(*ids: str, **says: object) -> DeploymentPage:
    rows = [{"request_id": request_id} for request_id in ids]
    return read_answer(DeploymentPage, json.dumps({"data": rows, **says}).encode())


async def listed(call: Recorder, **options: Any) -> list[str]:
    return [row.request_id async for row in Deployments(call).list(**options)]


async def test_a_list_reads_page_after_page() -> None:
    call = Recorder([page("a", "b"), page("c", more=False)])

    assert await listed(call, limit=2) == ["a", "b", "c"]
    assert [said["query"]["page"] for said in call.calls] == [1, 2]
    assert {said["query"]["limit"] for said in call.calls} == {2}


async def test_a_list_says_its_filters_and_order_on_every_page() -> None:
    call = Recorder([page("a"), page("b", more=None)])
    filters = iter([Filter("tags", "in", ["eu"])])
    order = iter([OrderBy("created_at", "desc")])
    await listed(call, filters=filters, order_by=order)
    queries = {said["query"]["query"] for said in call.calls}

    assert len(call.calls) == 2
    assert len(queries) == 1
    assert '"tags"' in queries.pop()


async def test_row_26_a_deployment_comes_once_when_rows_move_to_the_next_page() -> None:
    call = Recorder([page("a", "b"), page("b", "c", more=False)])

    assert await listed(call) == ["a", "b", "c"]


async def test_a_list_without_pagination_is_one_page() -> None:
    assert await listed(Recorder([page("a", more=None)])) == ["a"]


@pytest.mark.parametrize("again", [page("a"), page()], ids=["the same page", "an empty page"])
async def test_row_26_a_list_that_goes_on_with_nothing_new_ends_with_a_warning(
    again: DeploymentPage, caplog: pytest.LogCaptureFixture
) -> None:
    call = Recorder([page("a"), *[again] * 9])

    assert await listed(call) == ["a"]
    assert len(call.calls) == 4
    assert "list_deployments: the client has stopped reading the list after page 4" in caplog.text


@pytest.mark.parametrize("again", [page("a"), page()], ids=["the same page", "an empty page"])
async def test_row_26_rows_behind_a_page_with_nothing_new_are_found(
    again: DeploymentPage, caplog: pytest.LogCaptureFixture
) -> None:
    pages = [page("a"), again, again, page("b"), again, again, page("c", more=False)]

    assert await listed(Recorder(pages)) == ["a", "b", "c"]
    assert not caplog.records


async def test_row_26_a_list_that_never_ends_is_ended_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    call = Recorder([page(f"r{number}") for number in range(10_001)])

    assert len(await listed(call)) == 10_000
    assert "after page 10000" in caplog.text


ONE_OF_TWO = {"number": 1, "paginator": {"num_pages": 2}}


@pytest.mark.parametrize(
    "says",
    [
        {"pagination": {"next_page_number": 2}},
        {"pagination": ONE_OF_TWO},
        {"pagination": {**ONE_OF_TWO, "has_next": None}},
        {"pagination": {**ONE_OF_TWO, "has_next": "yes"}},
        {"pagination": {"has_next": "True"}},
        {"pagination": {**ONE_OF_TWO, "has_next": False}},  # contradicts itself
        {"pagination": {"number": 1, "has_next": True, "paginator": {"num_pages": 1}}},
        {"pagination": {}},
        {"pagination": {"has_next": []}, "total_count": 2},
        {"pagination": [], "total_count": 2},
        {"total_count": "2"},
    ],
    ids=str,
)
async def test_row_26_a_list_goes_on_while_more_rows_may_follow(says: dict[str, Any]) -> None:
    nothing = decoded(**says)

    assert await listed(Recorder([decoded("a", **says), decoded("b", **says), *[nothing] * 3])) == [
        "a",
        "b",
    ]


@pytest.mark.parametrize(
    "says",
    [
        {},
        {"pagination": {"number": 2, "paginator": {"num_pages": 2}}},
        {"pagination": {"has_next": "false"}},
        {"pagination": {}, "total_count": 1},
        {"total_count": 1},
    ],
    ids=str,
)
async def test_a_list_ends_at_a_page_that_is_clearly_the_last(says: dict[str, Any]) -> None:
    call = Recorder([decoded("a", **says)])

    assert await listed(call) == ["a"]


@pytest.mark.parametrize(("page", "limit"), [(0, None), (1, 0), (-1, None)])
async def test_pages_and_limits_are_counted_from_one(page: int, limit: int | None) -> None:
    call = Recorder()
    with pytest.raises(InvalidRequest, match="must be 1 or more"):
        await Deployments(call).list(limit=limit).page(page)
    with pytest.raises(InvalidRequest, match="page must be a number, not None"):
        await Deployments(call).list().page(cast("Any", None))

    assert not call.calls


async def test_a_list_gives_its_pages_too() -> None:
    call = Recorder([page("a", "b"), page("b", "c"), page("c", more=False)])
    pages = [page async for page in Deployments(call).list().pages()]

    assert [len(page.data) for page in pages] == [2, 2, 1]


async def test_a_list_that_is_awaited_is_its_first_page() -> None:
    call = Recorder([page("a", "b")])

    assert await Deployments(call).list() == page("a", "b")
    assert call.calls == [{"operation": LIST_DEPLOYMENTS, "query": {"page": 1}}]


async def test_a_list_that_is_not_read_sends_nothing() -> None:
    call = Recorder()

    assert repr(Deployments(call).list()) == "<Listing of list_deployments>"
    assert call.calls == []


async def test_a_list_can_be_read_again() -> None:
    call = Recorder([page("a", more=False), page("a", "b", more=False)])
    rows = Deployments(call).list()

    assert [row.request_id async for row in rows] == ["a"]
    assert [row.request_id async for row in rows] == ["a", "b"]


async def test_a_list_that_had_no_pages_until_2026_names_only_the_later_ones() -> None:
    first, second = Location(city="Paris"), Location(city="Tokyo")
    call = Recorder(
        [
            LocationPage(locations=(first,), pagination=Pagination(has_next=True)),
            LocationPage(locations=(second,), pagination=Pagination(has_next=False)),
        ]
    )
    cities = [location.city async for location in Locations(call).list(tags=True)]

    assert cities == ["Paris", "Tokyo"]
    assert [said["query"] for said in call.calls] == [{"tags": True}, {"tags": True, "page": 2}]


async def test_a_page_is_the_first_one_if_none_is_named() -> None:
    call = Recorder([page("a")])
    await Deployments(call).list()

    assert call.calls[0]["operation"] is LIST_DEPLOYMENTS
    assert call.calls[0]["query"]["page"] == 1
