"""Lists: filters, order, pages, rows."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from emulated_cloud import (
    ARENA,
    SLEEPER,
    a_cloud,
    answer,
    deployed,
    reached,
)

from edgegap_async import Status
from edgegap_async.api.requests import Filter
from edgegap_async.emulator import (
    Fleet,
    PrivateHost,
)
from edgegap_async.emulator.list_queries import ids_in
from edgegap_async.errors import InvalidRequest
from edgegap_async.requests import FleetDeployRequest


@pytest.mark.parametrize(
    ("filters", "named"),
    [
        ([], None),
        ([Filter("status", "eq", "ready")], None),
        ([Filter("request_id", "eq", "a")], ["a"]),
        ([Filter("request_id", "in", ["a", "b"])], ["a", "b"]),
        ([Filter("status", "eq", "ready"), Filter("request_id", "in", ["a"])], ["a"]),
        ([Filter("request_id", "nin", ["a"])], None),
        ([Filter("request_id", "neq", "a")], None),
        ([Filter("tags", "in", ["a"])], None),
    ],
)
def test_only_a_positive_filter_by_id_selects_ids(
    filters: list[Filter], named: list[str] | None
) -> None:
    assert ids_in(filters) == (None if named is None else frozenset(named))


def _query(*filters: tuple[str, str, object], order: str | None = None) -> str:
    query: dict[str, Any] = {
        "filters": [
            {"field": field, "operator": operator, "value": value}
            for field, operator, value in filters
        ]
    }
    if order is not None:
        query["order_by"] = [{"field": "created_at", "order": order}]
    return json.dumps(query)


async def test_a_list_shows_the_deployments_that_pass_its_filters() -> None:
    fleet = Fleet(name="Alpha", hosts=(PrivateHost(host_id="alpha-1"),))
    past = datetime.now(UTC) - timedelta(hours=1)
    async with a_cloud(SLEEPER, ARENA, fleets=[fleet]) as cloud:
        first = await deployed(cloud, SLEEPER, tags=["eu", "ranked"])
        second = await reached(await deployed(cloud, ARENA, tags=["us"]), Status.READY)
        fleet_request = FleetDeployRequest(
            application="app", version="v1", users=[(0, 0)], private_host_ids=["alpha-1"]
        )
        await cloud.deploy_to_fleet(body=fleet_request)
        third = list(cloud.deployments.values())[2]
        for one in (first, third):
            await reached(one, Status.READY)
        await cloud.stop_deployment(request_id=first.request_id)
        await reached(first, Status.TERMINATED)
        fourth = await reached(await deployed(cloud, SLEEPER, tags=["eu", "casual"]), Status.READY)
        numbers = {second.request_id: 2, third.request_id: 3, fourth.request_id: 4}

        async def listed(*filters: tuple[str, str, object], order: str | None = None) -> list[int]:
            page = await answer(cloud, "list_deployments", query=_query(*filters, order=order))
            assert page.total_count == len(page.data)
            return [numbers[row.request_id] for row in page.data]

        assert await listed() == [2, 3, 4]
        assert await listed(order="desc") == [4, 3, 2]
        assert await listed(order="asc") == [2, 3, 4]
        assert await listed(("status", "eq", "ready")) == [2, 3, 4]
        assert await listed(("status", "neq", "ready")) == []
        assert await listed(("request_id", "eq", third.request_id)) == [3]
        assert await listed(("request_id", "neq", third.request_id)) == [2, 4]
        assert await listed(("request_id", "in", [third.request_id, "x"])) == [3]
        assert await listed(("request_id", "nin", [third.request_id, "x"])) == [2, 4]
        assert await listed(("tags", "eq", "eu")) == [4]
        assert await listed(("tags", "neq", "eu")) == [2, 3]
        assert await listed(("tags", "in", ["us", "casual"])) == [2, 4]
        assert await listed(("tags", "nin", ["us", "casual"])) == [3]
        assert await listed(("application", "eq", "arena")) == [2]
        assert await listed(("version", "in", ["v1"]), ("application", "neq", "arena")) == [3, 4]
        assert await listed(("fleet_name", "eq", "Alpha")) == [3]
        assert await listed(("fleet_name", "ilike", "%PH%")) == [3]
        assert await listed(("fleet_name", "neq", "Alpha")) == [2, 4]
        assert await listed(("host_name", "ilike", "PARIS%")) == [2, 4]
        assert await listed(("host_name", "ilike", "paris")) == []
        assert await listed(("created_at", "gte", past.isoformat())) == [2, 3, 4]
        assert await listed(("created_at", "lte", past.isoformat())) == []
        assert await listed(("created_at", "eq", fourth.created_at.isoformat())) == [4]


async def test_a_row_agrees_with_the_status() -> None:
    async with a_cloud(ARENA) as cloud:
        deployment = await reached(await deployed(cloud, ARENA, tags=["eu"]), Status.READY)
        (row,) = (await answer(cloud, "list_deployments")).data
        status = deployment.deployment()

    assert (row.request_id, row.status, row.ready) == (status.request_id, Status.READY, True)
    assert (row.fqdn, row.public_ip, row.ports) == (status.fqdn, status.public_ip, status.ports)
    assert (row.start_time, row.tags) == (status.start_time, status.tags)


async def test_a_list_comes_in_pages() -> None:
    async with a_cloud(SLEEPER) as cloud:
        ids = [(await deployed(cloud, SLEEPER)).request_id for _ in range(5)]
        pages = [
            await answer(cloud, "list_deployments", page=str(number), limit="2")
            for number in (1, 2, 3, 4)
        ]

    assert [[ids.index(row.request_id) for row in page.data] for page in pages] == [
        [0, 1],
        [2, 3],
        [4],
        [],
    ]
    assert {page.total_count for page in pages} == {5}
    assert {page.pagination.paginator.num_pages for page in pages} == {3}
    assert [page.pagination.next_page_number for page in pages] == [2, 3, None, None]
    assert [page.pagination.previous_page_number for page in pages] == [None, 1, 2, 3]
    assert [page.pagination.has_next for page in pages] == [True, True, False, False]


@pytest.mark.parametrize(
    "arguments",
    [
        {"query": "{"},
        {"query": _query(("status", "in", ["ready"]))},
        {"query": _query(("tags", "eq", "a"), ("tags", "eq", "b"))},
        {"page": "0"},
        {"limit": "x"},
    ],
)
async def test_invalid_arguments_of_a_list_are_a_bad_request(arguments: dict[str, Any]) -> None:
    async with a_cloud() as cloud:
        with pytest.raises(InvalidRequest):
            await cloud.list_deployments(**arguments)


@pytest.mark.parametrize(
    ("query", "text"),
    [("{", "query is not JSON"), ("[]", "query is not a JSON object")],
)
async def test_a_query_that_cannot_be_read_is_named(query: str, text: str) -> None:
    async with a_cloud() as cloud:
        with pytest.raises(InvalidRequest, match=text):
            await cloud.list_deployments(query=query)
