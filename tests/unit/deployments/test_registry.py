"""What a client remembers, and for how long."""

from __future__ import annotations

import math

import pytest

from edgegap_async.deployments.registry import ActiveRegistry

AFTERWARDS = 10_000


@pytest.fixture
def names() -> ActiveRegistry:
    return ActiveRegistry()


def test_what_is_held_is_remembered_however_much_is_let_go(names: ActiveRegistry) -> None:
    names.hold("kept")
    for number in range(2 * AFTERWARDS):
        names.hold(f"{number}")
        names.let_go(f"{number}")

    assert len(names) == 1
    assert "kept" in names
    assert sum(f"{number}" in names for number in range(2 * AFTERWARDS)) == AFTERWARDS
    assert f"{AFTERWARDS}" in names
    assert f"{AFTERWARDS - 1}" not in names


def test_the_time_is_that_of_the_first_hold(names: ActiveRegistry) -> None:
    assert names.until("one") == -math.inf
    assert names.hold("one", 5.0) == 5.0
    assert names.hold("one", 9.0) == 5.0
    assert names.until("one") == 5.0
    names.let_go("one")
    assert names.until("one") == -math.inf
    assert names.is_over("one")
    assert names.hold("one", 9.0) == 9.0
    assert not names.is_over("one")
    assert "one" in names


def test_each_that_is_held_has_its_turn(names: ActiveRegistry) -> None:
    for number in range(5):
        names.hold(number, number)

    assert [names.next(2) for _ in range(3)] == [[0, 1], [2, 3], [4, 0]]
    assert names.until(3) == 3
    assert names.next(9) == [1, 2, 3, 4, 0]


def test_what_was_never_held_is_not_remembered(names: ActiveRegistry) -> None:
    names.let_go("stranger")

    assert "stranger" not in names


def test_what_is_forgotten_is_not_remembered_when_it_is_let_go(names: ActiveRegistry) -> None:
    names.hold("one")
    names.forget("one")
    names.let_go("one")

    assert "one" not in names
    assert len(names) == 0
