"""Whether lists are fresh is learnt from status answers."""

from __future__ import annotations

import logging

import pytest

from edgegap_async.api.models import DeploymentPage, DeploymentRow, Pagination, Status
from edgegap_async.polling.freshness import Freshness, ListFreshness


def page(*ready: str, other: tuple[str, ...] = (), more: bool = False) -> DeploymentPage:
    rows = [
        *(DeploymentRow(request_id=one, ready=True) for one in ready),
        *(DeploymentRow(request_id=one, ready=False) for one in other),
    ]
    return DeploymentPage(data=tuple(rows), pagination=Pagination(has_next=more))


@pytest.fixture
def freshness() -> ListFreshness:
    """Lists of which nothing is known but that a status answer has found `a` READY at time 0."""
    freshness = ListFreshness()
    freshness.expect("a", 0, by_status=True)
    return freshness


def test_a_list_that_shows_what_a_status_answer_said_is_fresh(freshness: ListFreshness) -> None:
    freshness.read(page("a"), ["a"], 1)

    assert freshness.state is Freshness.FRESH


@pytest.mark.parametrize(
    ("stale", "text"),
    [(page(), "omits it"), (page("b", other=("a",)), "shows another status")],
    ids=["absent", "another status"],
)
def test_one_list_that_contradicts_a_status_answer_is_stale(
    freshness: ListFreshness, caplog: pytest.LogCaptureFixture, stale: DeploymentPage, text: str
) -> None:
    caplog.set_level(logging.WARNING)
    freshness.note_found(0.1)
    freshness.read(stale, ["a"], 1)
    freshness.read(stale, ["a"], 1)

    assert freshness.state is Freshness.STALE
    [message] = caplog.messages
    assert text in message


@pytest.mark.parametrize(
    ("answer", "probes", "at"),
    [(page("b", more=True), ["a"], 1), (page(), [], 1), (page(), ["b"], 1), (page(), ["a"], 6)],
    ids=["next page", "not asked for", "not expected", "may have ended"],
)
def test_an_absence_that_has_another_reason_says_nothing(
    freshness: ListFreshness, answer: DeploymentPage, probes: list[str], at: float
) -> None:
    freshness.read(answer, probes, at)

    assert freshness.state is Freshness.UNKNOWN


def test_a_list_that_omits_what_this_client_stops_says_nothing(freshness: ListFreshness) -> None:
    freshness.forget("a")
    freshness.read(page(), ["a"], 1)

    assert freshness.state is Freshness.UNKNOWN


def test_a_list_that_shows_a_later_status_than_the_status_answer_is_fresh(
    freshness: ListFreshness,
) -> None:
    row = DeploymentRow(request_id="a", ready=False, status=Status.TERMINATING)
    freshness.read(DeploymentPage(data=(row,)), ["a"], 1)

    assert freshness.state is Freshness.FRESH


def test_lists_that_agree_with_lists_may_be_equally_old(freshness: ListFreshness) -> None:
    freshness.expect("b", 0, by_status=False)
    states = []
    for answer in (page("b"), page()):
        freshness.read(answer, ["b"], 1)
        states.append(freshness.state)

    assert states == [Freshness.UNKNOWN, Freshness.STALE]


def test_stale_lists_are_fresh_after_ten_right_ones_in_a_row(freshness: ListFreshness) -> None:
    states = []
    for answer in [page(), *[page("a")] * 9, page(), *[page("a")] * 11]:
        freshness.read(answer, ["a"], 1)
        freshness.note_found(0)  # one list in two may be right
        states.append(freshness.state)

    assert states == [Freshness.STALE] * 20 + [Freshness.FRESH] * 2


@pytest.mark.parametrize(
    ("age", "state"), [(2.4, Freshness.FRESH), (2.6, Freshness.UNKNOWN)], ids=["new", "old"]
)
def test_a_list_that_is_first_to_show_a_recent_ready_is_fresh(
    freshness: ListFreshness, age: float, state: Freshness
) -> None:
    freshness.note_found(age)

    assert freshness.state is state


@pytest.mark.parametrize(
    ("idle", "state"), [(59, Freshness.FRESH), (61, Freshness.UNKNOWN)], ids=["short", "long"]
)
def test_fresh_lists_are_unknown_after_a_minute_without_waits(
    freshness: ListFreshness, idle: float, state: Freshness
) -> None:
    freshness.note_found(0)
    freshness.note_busy(0)
    freshness.note_idle(100)
    freshness.note_busy(100 + idle)

    assert freshness.state is state


def test_stale_lists_stay_stale_without_waits(freshness: ListFreshness) -> None:
    freshness.read(page(), ["a"], 1)
    freshness.note_idle(100)
    freshness.note_busy(1000)

    assert freshness.state is Freshness.STALE
