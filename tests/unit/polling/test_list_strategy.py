"""What is learnt of the list from its answers."""

from __future__ import annotations

import itertools
import logging

import attrs
import pytest

from edgegap_async.api.models import DeploymentPage, DeploymentRow, Pagination, Paginator, Status
from edgegap_async.errors import Forbidden, InvalidRequest, Refused, Unauthorized
from edgegap_async.polling.list_strategy import ListMode, ListStrategy, is_last_page
from edgegap_async.polling.schedule import DEFAULT_TUNING


def page(*ids: str, ready: bool = True, more: bool = False) -> DeploymentPage:
    status = Status.READY if ready else Status.DEPLOYING
    rows = tuple(DeploymentRow(request_id=one, ready=ready, status=status) for one in ids)
    return DeploymentPage(data=rows, pagination=Pagination(has_next=more))


def refusal(status: int) -> Refused:
    kind = {401: Unauthorized, 403: Forbidden}.get(status, Refused)
    return kind("no", operation="list_deployments", method="GET", path="/", status=status)


def stepped(way: ListMode) -> ListStrategy:
    listing = ListStrategy()
    while listing.mode < way:
        listing.fall_back("a test")
    return listing


def test_at_first_the_list_is_asked_for_what_has_changed() -> None:
    listing = ListStrategy()

    assert (listing.mode, listing.is_verified, listing.rows_have_status) == (
        ListMode.CHANGED,
        False,
        True,
    )
    assert listing.page_size == DEFAULT_TUNING.page_size


def test_an_answer_that_tells_proves_the_way() -> None:
    listing = ListStrategy()
    listing.read(page(), ["a", "b"], (), is_full=False)
    assert not listing.is_verified
    listing.read(page("a"), ["a", "b"], (), is_full=False)
    assert listing.is_verified


def test_a_roll_call_proves_it_too() -> None:
    listing = ListStrategy()
    listing.read(page(), ["a"], (), is_full=True)
    assert not listing.is_verified
    listing.read(page("a", ready=False), ["a"], (), is_full=True)
    listing.read(page(), ["a"], (), is_full=True)
    assert listing.is_verified


def test_what_does_not_work_is_believed_for_twice_as_long_each_time() -> None:
    listing, now, beliefs = stepped(ListMode.NOT_AT_ALL), 0.0, []
    for _ in range(8):
        until = listing.valid_until(now + 1)
        beliefs.append(until - now - 1)
        now, listing = until, listing.start_over(until)
        assert listing.mode is ListMode.CHANGED

    assert beliefs == [60, 120, 240, 480, 960, 1920, 3600, 3600]


def test_what_has_worked_for_long_is_soon_believed_in_again() -> None:
    listing = ListStrategy().start_over(1000).start_over(1000)

    assert listing.valid_until(1240) == 1480
    assert listing.valid_until(1241) == 1301


def test_rows_without_status_are_remembered() -> None:
    listing = ListStrategy()
    rows = (DeploymentRow(request_id="a", ready=True),)
    listing.read(DeploymentPage(data=rows), ["a"], (), is_full=False)

    assert not listing.rows_have_status
    assert listing.mode is ListMode.CHANGED


@pytest.mark.parametrize("is_roll_call", [True, False])
def test_a_row_that_was_not_asked_for_shows_that_ids_are_no_filter(*, is_roll_call: bool) -> None:
    listing = ListStrategy()
    listing.read(page("a", "foreign"), ["a"], (), is_full=is_roll_call)

    assert (listing.mode, listing.is_verified) == (ListMode.BY_PAGE, False)


def test_a_proof_was_asked_for_too() -> None:
    listing = ListStrategy()
    listing.probe_ids.append("proof")
    listing.read(page("proof"), ["a"], ("proof",), is_full=False)

    assert (listing.mode, listing.is_verified) == (ListMode.CHANGED, True)


def test_a_proof_counts_once_and_those_that_came_meanwhile_stay() -> None:
    listing = ListStrategy()
    listing.probe_ids.extend(["old", "new"])
    listing.read(page(), ["a"], ("old",), is_full=False)

    assert list(listing.probe_ids) == ["new"]
    listing.probe_ids.extend(map(str, range(10)))
    assert list(listing.probe_ids) == ["5", "6", "7", "8", "9"]


@pytest.mark.parametrize(
    ("way", "is_roll_call", "then"),
    [(ListMode.CHANGED, False, ListMode.BY_ID), (ListMode.BY_ID, True, ListMode.BY_PAGE)],
)
def test_a_list_that_thrice_leaves_out_what_is_ready_is_asked_in_another_way(
    *, way: ListMode, is_roll_call: bool, then: ListMode, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    listing = stepped(way)
    caplog.clear()
    for _ in range(3):
        assert listing.mode is way
        listing.read(page(), ["a"], ("proof",), is_full=is_roll_call)

    assert listing.mode is then
    assert caplog.messages == [
        f"switching list mode to {then.name.lower()}: the filtered list omitted READY deployments"
    ]


def test_strikes_are_counted_in_a_row() -> None:
    listing = ListStrategy()
    for _ in range(5):
        listing.read(page(), ["a"], ("proof",), is_full=False)
        listing.read(page(), ["a"], ("proof",), is_full=False)
        listing.read(page("a"), ["a"], ("proof",), is_full=False)

    assert listing.mode is ListMode.CHANGED


def test_that_there_is_nothing_to_tell_is_no_strike() -> None:
    listing = ListStrategy()
    for _ in range(9):
        listing.read(page(), ["a"], (), is_full=False)

    assert listing.mode is ListMode.CHANGED


def test_what_a_roll_call_tells_does_not_excuse_what_the_others_leave_out() -> None:
    listing = ListStrategy()
    for _ in range(3):
        listing.read(page("a", ready=False), ["a"], ("proof",), is_full=True)
        assert listing.mode is ListMode.CHANGED
        listing.read(page(), ["a"], ("proof",), is_full=False)

    assert listing.mode is ListMode.BY_ID


def test_a_list_that_thrice_holds_what_is_not_ready_does_not_filter_by_status() -> None:
    listing, ways = ListStrategy(), []
    for _ in range(3):
        ways.append(listing.mode)
        listing.read(page("a", ready=False), ["a"], (), is_full=False)

    assert [*ways, listing.mode] == [*[ListMode.CHANGED] * 3, ListMode.BY_ID]


def test_by_id_all_are_welcome() -> None:
    listing = stepped(ListMode.BY_ID)
    for _ in range(5):
        listing.read(page("a", ready=False), ["a"], (), is_full=True)

    assert (listing.mode, listing.is_verified) == (ListMode.BY_ID, True)


def test_a_short_page_tells_how_many_rows_a_page_may_have() -> None:
    listing = ListStrategy()
    listing.read(page("a", "b"), ["a", "b"], (), is_full=True)
    assert listing.page_size == DEFAULT_TUNING.page_size
    twenty = [str(number) for number in range(20)]
    listing.read(page(*twenty, more=True), [*twenty, "a"], (), is_full=True)
    assert listing.page_size == 20
    listing.read(page("a", more=True), ["a", "b"], (), is_full=True)
    assert listing.page_size == 10  # whatever it says


def test_an_empty_page_is_the_last_one() -> None:
    assert is_last_page(page(more=True))
    assert is_last_page(page("a"))
    assert is_last_page(DeploymentPage(data=page("a").data))
    assert not is_last_page(page("a", more=True))


@pytest.mark.parametrize(
    ("number", "pages", "last"),
    [(1, 1, True), (3, 3, True), (4, 3, True), (2, 3, False), (None, 3, False), (1, None, False)],
)
def test_the_last_page_is_known_by_its_number_whatever_it_says(
    *, number: int | None, pages: int | None, last: bool
) -> None:
    where = Pagination(number=number, has_next=True, paginator=Paginator(num_pages=pages))

    assert is_last_page(attrs.evolve(page("a"), pagination=where)) is last


def test_rows_are_not_fewer_where_the_last_page_says_that_another_follows() -> None:
    listing = ListStrategy()
    where = Pagination(number=1, has_next=True, paginator=Paginator(num_pages=1))
    whole = attrs.evolve(page("a"), pagination=where)
    listing.read(whole, ["a", "b"], (), is_full=True)
    listing.turn_page(whole)

    assert (listing.page_size, listing.page) == (DEFAULT_TUNING.page_size, 1)


def test_pages_are_turned_and_begin_anew_after_the_last() -> None:
    listing, numbers = ListStrategy(), []
    pages = [page("a", more=True), page("b", more=True), page("c")]
    for one in itertools.islice(itertools.cycle(pages), 7):
        numbers.append(listing.page)
        listing.turn_page(one)

    assert numbers == [1, 2, 3, 1, 2, 3, 1]


def test_pages_that_repeat_begin_anew() -> None:
    listing = ListStrategy()
    listing.turn_page(page("a", "b", more=True))
    assert listing.page == 2
    listing.turn_page(page("b", "a", more=True))
    assert listing.page == 1
    listing.turn_page(page("a", "c", more=True))
    assert listing.page == 2  # it is not the same any more


def test_an_empty_page_begins_anew() -> None:
    listing = ListStrategy()
    listing.turn_page(page("a", more=True))
    listing.turn_page(page(more=True))

    assert listing.page == 1


@pytest.mark.parametrize("status", [413, 414, 431])
def test_a_request_that_is_too_long_is_made_shorter_before_anything_else(status: int) -> None:
    listing, lengths = ListStrategy(), []
    while listing.mode is ListMode.CHANGED:
        lengths.append(listing.max_id_bytes)
        listing.note_refusal(refusal(status))

    assert lengths == [7400, 3700, 1850, 925, 462]
    assert listing.mode is ListMode.BY_ID


@pytest.mark.parametrize("status", [400, 404, 405, 422])
def test_what_is_refused_is_asked_in_the_next_way(status: int) -> None:
    listing, ways = ListStrategy(), []
    listing.probe_ids.append("proof")
    for _ in range(5):
        ways.append(listing.mode)
        listing.note_refusal(refusal(status))

    assert ways == [
        ListMode.CHANGED,
        ListMode.BY_ID,
        ListMode.BY_PAGE,
        ListMode.NOT_AT_ALL,
        ListMode.NOT_AT_ALL,
    ]
    assert not listing.probe_ids


@pytest.mark.parametrize("error", [refusal(401), refusal(403), InvalidRequest("no"), OSError()])
def test_what_may_not_be_asked_at_all_is_not(error: Exception) -> None:
    listing = ListStrategy()
    listing.note_refusal(error)

    assert listing.mode is ListMode.NOT_AT_ALL


def test_nothing_is_asked_in_a_better_way_again() -> None:
    listing = stepped(ListMode.NOT_AT_ALL)
    listing.fall_back("a test", ListMode.BY_PAGE)

    assert listing.mode is ListMode.NOT_AT_ALL


def test_the_next_way_begins_without_strikes_and_unproven() -> None:
    listing = ListStrategy()
    listing.read(page("a"), ["a"], (), is_full=False)
    for _ in range(3):
        listing.read(page(), ["a"], ("proof",), is_full=False)
    assert not listing.is_verified
    listing.read(page(), ["a"], ("proof",), is_full=True)

    assert listing.mode is ListMode.BY_ID
