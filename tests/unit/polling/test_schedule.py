"""Which deployment the next request asks about, and how often."""

from __future__ import annotations

import math

import pytest

from edgegap_async.polling.poller import StatusPoller
from edgegap_async.polling.schedule import (
    DEFAULT_TUNING,
    ListGroup,
    PollEntry,
    PollingPolicy,
    StatusQueue,
)

BYTES_EACH = len("d000") + 7


def add_entries(
    poller: StatusPoller, group: ListGroup, count: int, *, webhook: bool = False
) -> list[PollEntry]:
    """Adds `count` entries; each one waits since the second of its number."""
    known = len(group.members)
    new = [
        PollEntry(poller.tracker(f"d{number:03}", expects_webhook=webhook), float(number), group)
        for number in range(known, known + count)
    ]
    for one in new:
        group.add(one)
    return new


def take(
    group: ListGroup,
    max_ids: int = 100,
    max_bytes: int = 7400,
    *,
    is_full: bool = False,
    now: float = 0.0,
) -> list[int]:
    """Takes entries for a list request and returns their numbers."""
    taken = group.take(now, max_ids, max_bytes, DEFAULT_TUNING.answer_timeout, is_full=is_full)
    return [int(one.request_id[1:]) for one in taken]


@pytest.fixture
def group() -> ListGroup:
    return ListGroup(only_ready=True)


# ── policy ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "name", ["interval", "max_interval", "webhook_interval", "full_list_interval"]
)
@pytest.mark.parametrize("value", [0, -1, math.nan])
def test_intervals_are_above_zero(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        PollingPolicy(**{name: value})


@pytest.mark.parametrize("name", ["first_delay", "fast_period", "not_found_grace"])
def test_delays_may_be_zero(name: str) -> None:
    assert getattr(PollingPolicy(**{name: 0}), name) == 0
    with pytest.raises(ValueError, match=name):
        PollingPolicy(**{name: -0.1})


# ── list groups ───────────────────────────────────────────────────────────────────────────────────


async def test_entries_asked_about_longest_ago_come_first(
    poller: StatusPoller, group: ListGroup
) -> None:
    add_entries(poller, group, 5)

    assert take(group, 3) == [0, 1, 2]
    assert take(group, 3) == [3, 4, 0]
    add_entries(poller, group, 1)
    assert take(group, 6) == [1, 2, 3, 4, 0, 5]


async def test_no_more_entries_are_taken_than_have_room(
    poller: StatusPoller, group: ListGroup
) -> None:
    add_entries(poller, group, 5)

    assert take(group, max_bytes=3 * BYTES_EACH) == [0, 1, 2]
    assert take(group, max_bytes=3 * BYTES_EACH - 1) == [3, 4]
    assert take(group, max_bytes=BYTES_EACH - 1) == []
    assert take(group, max_ids=0) == []


async def test_entries_with_a_list_in_flight_are_skipped_for_the_answer_timeout(
    poller: StatusPoller, group: ListGroup
) -> None:
    first, second, third = add_entries(poller, group, 3)
    first.lists_in_flight, first.listed_at = 1, 10.0
    second.listed_at = 10.0
    third.lists_in_flight, third.listed_at = 1, 10.0 - DEFAULT_TUNING.answer_timeout

    assert take(group, now=10.0) == [1, 2]
    assert take(group, now=10.0 + DEFAULT_TUNING.answer_timeout) == [0, 1, 2]


async def test_a_full_list_skips_no_entry(poller: StatusPoller, group: ListGroup) -> None:
    [first, _] = add_entries(poller, group, 2)
    first.lists_in_flight, first.listed_at = 1, 10.0

    assert take(group, now=10.0, is_full=True) == [0, 1]


async def test_a_full_list_continues_where_the_last_one_ended(
    poller: StatusPoller, group: ListGroup
) -> None:
    add_entries(poller, group, 5)

    assert take(group, 2, is_full=True) == [0, 1]
    assert take(group, 4) == [2, 3, 4, 0]  # a filtered list
    assert take(group, 2, is_full=True) == [2, 3]
    assert take(group, 2, is_full=True) == [4, 0]
    assert sorted(take(group, 5, is_full=True)) == [0, 1, 2, 3, 4]


async def test_an_entry_moved_to_the_front_is_taken_first(
    poller: StatusPoller, group: ListGroup
) -> None:
    *_, last = add_entries(poller, group, 4)
    group.move_to_front(last)

    assert take(group, 2) == [3, 0]


async def test_a_removed_entry_is_not_taken(poller: StatusPoller, group: ListGroup) -> None:
    add_entries(poller, group, 3)
    group.remove(group.members["d001"])

    assert take(group) == [0, 2]
    assert take(group, 1, is_full=True) == [0]
    assert take(group, 1, is_full=True) == [2]


async def test_newest_is_the_start_of_the_newest_wait(
    poller: StatusPoller, group: ListGroup
) -> None:
    late, early = (
        PollEntry(poller.tracker("a"), 7.0, group),
        PollEntry(poller.tracker("b"), 3.0, group),
    )
    group.add(late)
    group.add(early)

    assert group.newest == 7.0


async def test_a_group_knows_whether_every_member_expects_a_webhook(
    poller: StatusPoller, group: ListGroup
) -> None:
    add_entries(poller, group, 2, webhook=True)
    known = [group.all_expect_webhooks]
    [other] = add_entries(poller, group, 1)
    known.append(group.all_expect_webhooks)
    group.remove(other)
    known.append(group.all_expect_webhooks)

    assert known == [True, False, True]


async def test_an_entry_moves_to_another_group(poller: StatusPoller, group: ListGroup) -> None:
    [one] = add_entries(poller, group, 1)
    other = ListGroup(only_ready=False)
    group.remove(one)
    other.add(one)

    assert one.group is other
    assert take(other) == [0]
    assert take(group) == []


async def test_an_entry_counts_as_checked_when_the_wait_begins(poller: StatusPoller) -> None:
    one = PollEntry(poller.tracker("a"), 7.0, ListGroup(only_ready=True))

    assert (one.request_id, one.checked_at) == ("a", 7.0)
    assert 0.9 <= one.jitter <= 1.1


# ── status queue ──────────────────────────────────────────────────────────────────────────────────


def queue_of(
    poller: StatusPoller, group: ListGroup, *due: float
) -> tuple[StatusQueue, list[PollEntry], list[float]]:
    """Returns a queue, its entries, and their due times, which a test may change."""
    times, entries = list(due), add_entries(poller, group, len(due))
    queue = StatusQueue(lambda one, _: times[entries.index(one)])
    for one in entries:
        queue.add(one, 0.0)
    return queue, entries, times


async def test_entries_are_taken_in_the_order_in_which_they_are_due(
    poller: StatusPoller, group: ListGroup
) -> None:
    queue, [a, b, c], _ = queue_of(poller, group, 3.0, 1.0, 2.0)

    assert queue.first(0.0) == 1.0
    assert [queue.take(9.0) for _ in range(3)] == [b, c, a]
    assert queue.first(9.0) == math.inf


async def test_a_confirmation_does_not_wait_for_entries_due_before_it(
    poller: StatusPoller, group: ListGroup
) -> None:
    queue, [*_, last], _ = queue_of(poller, group, 1.0, 2.0, 3.0)
    last.needs_confirmation = True
    queue.add(last, 0.0)

    assert queue.take(9.0) is last


async def test_confirmations_and_other_entries_are_taken_in_turn(
    poller: StatusPoller, group: ListGroup
) -> None:
    queue, entries, _ = queue_of(poller, group, *range(6))
    for one in entries[3:]:
        one.needs_confirmation = True
        queue.add(one, 0.0)
    taken = []
    while queue.first(9.0) < math.inf:
        taken.append(queue.take(9.0).needs_confirmation)

    assert taken == [True, False] * 3


async def test_a_confirmation_that_is_not_due_gives_way(
    poller: StatusPoller, group: ListGroup
) -> None:
    queue, [a, b, confirmation], _ = queue_of(poller, group, 1.0, 2.0, 8.0)
    confirmation.needs_confirmation = True
    queue.add(confirmation, 0.0)

    assert [queue.take(5.0), queue.take(5.0)] == [a, b]
    assert queue.first(5.0) == 8.0


async def test_an_earlier_place_in_the_queue_is_void(
    poller: StatusPoller, group: ListGroup
) -> None:
    queue, [one, other], times = queue_of(poller, group, 1.0, 2.0)
    times[0] = 5.0
    queue.add(one, 0.0)
    other.queue_number = -1  # no task waits for it any more
    first = queue.first(3.0)

    assert (first, queue.take(9.0)) == (5.0, one)
    assert queue.first(9.0) == math.inf


async def test_an_entry_whose_interval_has_grown_waits_longer(
    poller: StatusPoller, group: ListGroup
) -> None:
    queue, [one, other], times = queue_of(poller, group, 1.0, 2.0)
    times[0] = 5.0

    assert queue.first(1.0) == 2.0
    assert [queue.take(2.0), queue.first(2.0)] == [other, 5.0]
    assert queue.take(5.0) is one


async def test_replaced_places_do_not_fill_the_queue(
    poller: StatusPoller, group: ListGroup
) -> None:
    queue, entries, times = queue_of(poller, group, *(37 * number % 50 for number in range(50)))
    for _ in range(20):
        for one in entries:
            one.needs_confirmation = not one.needs_confirmation
            queue.add(one, 0.0)

    # Each of two queues holds at most twice the valid entries and 64.
    assert len(queue) < 2 * (2 * len(entries) + 64) + 2
    assert [times[entries.index(queue.take(99.0))] for _ in entries] == [*range(50)]
    queue.clear()
    assert (len(queue), queue.first(99.0)) == (0, math.inf)
