"""What the poller learns of lists from their answers."""

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


def strategy_in(mode: ListMode) -> ListStrategy:
    strategy = ListStrategy()
    while strategy.mode < mode:
        strategy.fall_back("a test")
    return strategy


def test_the_first_mode_asks_for_changes() -> None:
    strategy = ListStrategy()

    assert (strategy.mode, strategy.is_verified, strategy.rows_have_status) == (
        ListMode.CHANGED,
        False,
        True,
    )
    assert strategy.page_size == DEFAULT_TUNING.page_size


def test_a_row_verifies_the_mode() -> None:
    strategy = ListStrategy()
    strategy.read(page(), ["a", "b"], (), is_full=False)
    assert not strategy.is_verified
    strategy.read(page("a"), ["a", "b"], (), is_full=False)
    assert strategy.is_verified


def test_a_full_list_verifies_the_mode() -> None:
    strategy = ListStrategy()
    strategy.read(page(), ["a"], (), is_full=True)
    assert not strategy.is_verified
    strategy.read(page("a", ready=False), ["a"], (), is_full=True)
    strategy.read(page(), ["a"], (), is_full=True)
    assert strategy.is_verified


def test_a_fallback_lasts_twice_as_long_each_time() -> None:
    strategy, now, times = strategy_in(ListMode.NOT_AT_ALL), 0.0, []
    for _ in range(8):
        until = strategy.valid_until(now + 1)
        times.append(until - now - 1)
        now, strategy = until, strategy.start_over(until)
        assert strategy.mode is ListMode.CHANGED

    assert times == [60, 120, 240, 480, 960, 1920, 3600, 3600]


def test_the_fallback_time_starts_over_after_a_mode_has_worked_for_long() -> None:
    strategy = ListStrategy().start_over(1000).start_over(1000)

    assert strategy.valid_until(1240) == 1480
    assert strategy.valid_until(1241) == 1301


def test_rows_without_status_are_noted() -> None:
    strategy = ListStrategy()
    rows = (DeploymentRow(request_id="a", ready=True),)
    strategy.read(DeploymentPage(data=rows), ["a"], (), is_full=False)

    assert not strategy.rows_have_status
    assert strategy.mode is ListMode.CHANGED


@pytest.mark.parametrize("is_full", [True, False])
def test_a_foreign_row_shows_that_the_id_filter_is_ignored(*, is_full: bool) -> None:
    strategy = ListStrategy()
    strategy.read(page("a", "foreign"), ["a"], (), is_full=is_full)

    assert (strategy.mode, strategy.is_verified) == (ListMode.BY_PAGE, False)


def test_the_row_of_a_probe_is_no_foreign_row() -> None:
    strategy = ListStrategy()
    strategy.probe_ids.append("probe")
    strategy.read(page("probe"), ["a"], ("probe",), is_full=False)

    assert (strategy.mode, strategy.is_verified) == (ListMode.CHANGED, True)


def test_a_probe_is_used_once_and_newer_probes_stay() -> None:
    strategy = ListStrategy()
    strategy.probe_ids.extend(["old", "new"])
    strategy.read(page(), ["a"], ("old",), is_full=False)

    assert list(strategy.probe_ids) == ["new"]
    strategy.probe_ids.extend(map(str, range(10)))
    assert list(strategy.probe_ids) == ["5", "6", "7", "8", "9"]


@pytest.mark.parametrize(
    ("mode", "is_full", "next_mode"),
    [(ListMode.CHANGED, False, ListMode.BY_ID), (ListMode.BY_ID, True, ListMode.BY_PAGE)],
)
def test_three_lists_that_omit_a_ready_deployment_change_the_mode(
    *, mode: ListMode, is_full: bool, next_mode: ListMode, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    strategy = strategy_in(mode)
    caplog.clear()
    for _ in range(3):
        assert strategy.mode is mode
        strategy.read(page(), ["a"], ("probe",), is_full=is_full)

    assert strategy.mode is next_mode
    name = next_mode.name.lower()
    assert caplog.messages == [
        f"switching list mode to {name}: the filtered list omitted READY deployments"
    ]


def test_wrong_lists_count_only_in_a_row() -> None:
    strategy = ListStrategy()
    for _ in range(5):
        strategy.read(page(), ["a"], ("probe",), is_full=False)
        strategy.read(page(), ["a"], ("probe",), is_full=False)
        strategy.read(page("a"), ["a"], ("probe",), is_full=False)

    assert strategy.mode is ListMode.CHANGED


def test_an_empty_list_without_probes_is_not_wrong() -> None:
    strategy = ListStrategy()
    for _ in range(9):
        strategy.read(page(), ["a"], (), is_full=False)

    assert strategy.mode is ListMode.CHANGED


def test_full_lists_do_not_excuse_filtered_lists_that_omit_ready() -> None:
    strategy = ListStrategy()
    for _ in range(3):
        strategy.read(page("a", ready=False), ["a"], ("probe",), is_full=True)
        assert strategy.mode is ListMode.CHANGED
        strategy.read(page(), ["a"], ("probe",), is_full=False)

    assert strategy.mode is ListMode.BY_ID


def test_three_lists_with_other_statuses_show_that_the_filter_is_ignored() -> None:
    strategy, modes = ListStrategy(), []
    for _ in range(3):
        modes.append(strategy.mode)
        strategy.read(page("a", ready=False), ["a"], (), is_full=False)

    assert [*modes, strategy.mode] == [*[ListMode.CHANGED] * 3, ListMode.BY_ID]


def test_other_statuses_are_expected_in_mode_by_id() -> None:
    strategy = strategy_in(ListMode.BY_ID)
    for _ in range(5):
        strategy.read(page("a", ready=False), ["a"], (), is_full=True)

    assert (strategy.mode, strategy.is_verified) == (ListMode.BY_ID, True)


def test_a_short_page_shows_the_page_size() -> None:
    strategy = ListStrategy()
    strategy.read(page("a", "b"), ["a", "b"], (), is_full=True)
    assert strategy.page_size == DEFAULT_TUNING.page_size
    twenty = [str(number) for number in range(20)]
    strategy.read(page(*twenty, more=True), [*twenty, "a"], (), is_full=True)
    assert strategy.page_size == 20
    strategy.read(page("a", more=True), ["a", "b"], (), is_full=True)
    assert strategy.page_size == 10  # the smallest page size


def test_an_empty_page_is_the_last_page() -> None:
    assert is_last_page(page(more=True))
    assert is_last_page(page("a"))
    assert is_last_page(DeploymentPage(data=page("a").data))
    assert not is_last_page(page("a", more=True))


def test_the_number_of_pages_decides_where_a_page_does_not_say_whether_more_follow() -> None:
    first = Pagination(number=1, paginator=Paginator(num_pages=2))
    second = attrs.evolve(first, number=2)

    assert not is_last_page(attrs.evolve(page("a"), pagination=first))
    assert is_last_page(attrs.evolve(page("b"), pagination=second))


@pytest.mark.parametrize(
    ("number", "pages", "last"),
    [(1, 1, True), (3, 3, True), (4, 3, True), (2, 3, False), (None, 3, False), (1, None, False)],
)
def test_the_page_number_decides_which_page_is_the_last(
    *, number: int | None, pages: int | None, last: bool
) -> None:
    where = Pagination(number=number, has_next=True, paginator=Paginator(num_pages=pages))

    assert is_last_page(attrs.evolve(page("a"), pagination=where)) is last


def test_a_last_page_that_claims_another_does_not_reduce_the_page_size() -> None:
    strategy = ListStrategy()
    where = Pagination(number=1, has_next=True, paginator=Paginator(num_pages=1))
    whole = attrs.evolve(page("a"), pagination=where)
    strategy.read(whole, ["a", "b"], (), is_full=True)
    strategy.turn_page(whole)

    assert (strategy.page_size, strategy.page) == (DEFAULT_TUNING.page_size, 1)


def test_pages_start_again_after_the_last() -> None:
    strategy, numbers = ListStrategy(), []
    pages = [page("a", more=True), page("b", more=True), page("c")]
    for one in itertools.islice(itertools.cycle(pages), 7):
        numbers.append(strategy.page)
        strategy.turn_page(one)

    assert numbers == [1, 2, 3, 1, 2, 3, 1]


def test_pages_start_again_after_a_repeated_page() -> None:
    strategy = ListStrategy()
    strategy.turn_page(page("a", "b", more=True))
    assert strategy.page == 2
    strategy.turn_page(page("b", "a", more=True))
    assert strategy.page == 1
    strategy.turn_page(page("a", "c", more=True))
    assert strategy.page == 2  # the page differs


def test_pages_start_again_after_an_empty_page() -> None:
    strategy = ListStrategy()
    strategy.turn_page(page("a", more=True))
    strategy.turn_page(page(more=True))

    assert strategy.page == 1


@pytest.mark.parametrize("status", [413, 414, 431])
def test_a_url_that_is_too_long_is_made_shorter_before_the_mode_changes(status: int) -> None:
    strategy, lengths = ListStrategy(), []
    while strategy.mode is ListMode.CHANGED:
        lengths.append(strategy.max_id_bytes)
        strategy.note_refusal(refusal(status))

    assert lengths == [7400, 3700, 1850, 925, 462]
    assert strategy.mode is ListMode.BY_ID


@pytest.mark.parametrize("status", [400, 404, 405, 422])
def test_a_refusal_changes_to_the_next_mode(status: int) -> None:
    strategy, modes = ListStrategy(), []
    strategy.probe_ids.append("probe")
    for _ in range(5):
        modes.append(strategy.mode)
        strategy.note_refusal(refusal(status))

    assert modes == [
        ListMode.CHANGED,
        ListMode.BY_ID,
        ListMode.BY_PAGE,
        ListMode.NOT_AT_ALL,
        ListMode.NOT_AT_ALL,
    ]
    assert not strategy.probe_ids


@pytest.mark.parametrize("error", [refusal(401), refusal(403), InvalidRequest("no"), OSError()])
def test_errors_that_forbid_lists_end_them(error: Exception) -> None:
    strategy = ListStrategy()
    strategy.note_refusal(error)

    assert strategy.mode is ListMode.NOT_AT_ALL


def test_a_fallback_never_returns_to_a_better_mode() -> None:
    strategy = strategy_in(ListMode.NOT_AT_ALL)
    strategy.fall_back("a test", ListMode.BY_PAGE)

    assert strategy.mode is ListMode.NOT_AT_ALL


def test_the_next_mode_begins_unverified_and_without_failures() -> None:
    strategy = ListStrategy()
    strategy.read(page("a"), ["a"], (), is_full=False)
    for _ in range(3):
        strategy.read(page(), ["a"], ("probe",), is_full=False)
    assert not strategy.is_verified
    strategy.read(page(), ["a"], ("probe",), is_full=True)

    assert strategy.mode is ListMode.BY_ID
