"""Who is waited for, and whose turn it is."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator

import pytest

from edgegap_async.http.api_client import ApiClient
from edgegap_async.polling.poller import StatusPoller
from edgegap_async.polling.schedule import (
    DEFAULT_TUNING,
    ListGroup,
    PollEntry,
    PollingPolicy,
    StatusQueue,
)

EACH = len("d000") + 7


@pytest.fixture
async def lookout() -> AsyncIterator[StatusPoller]:
    async with ApiClient("canary-t", base_url="http://127.0.0.1:9") as client:
        yield StatusPoller(client, PollingPolicy())


def join(
    lookout: StatusPoller, pool: ListGroup, count: int, *, webhook: bool = False
) -> list[PollEntry]:
    """So many more who wait, each since the second of its number."""
    known = len(pool.members)
    new = [
        PollEntry(lookout.tracker(f"d{number:03}", expects_webhook=webhook), float(number), pool)
        for number in range(known, known + count)
    ]
    for one in new:
        pool.add(one)
    return new


def take(
    pool: ListGroup,
    most: int = 100,
    longest: int = 7400,
    *,
    roll_call: bool = False,
    now: float = 0.0,
) -> list[int]:
    """The numbers of those whose turn it is."""
    taken = pool.take(now, most, longest, DEFAULT_TUNING.answer_timeout, is_full=roll_call)
    return [int(one.request_id[1:]) for one in taken]


@pytest.fixture
def pool() -> ListGroup:
    return ListGroup(only_ready=True)


# ── polling ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "name", ["interval", "max_interval", "webhook_interval", "full_list_interval"]
)
@pytest.mark.parametrize("value", [0, -1, math.nan])
def test_a_gap_is_more_than_nothing(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        PollingPolicy(**{name: value})


@pytest.mark.parametrize("name", ["first_delay", "fast_period", "not_found_grace"])
def test_a_pace_may_begin_at_once(name: str) -> None:
    assert getattr(PollingPolicy(**{name: 0}), name) == 0
    with pytest.raises(ValueError, match=name):
        PollingPolicy(**{name: -0.1})


# ── pools ────────────────────────────────────────────────────────────────────────────────────────


async def test_those_who_were_asked_about_longest_ago_move_to_front(
    lookout: StatusPoller, pool: ListGroup
) -> None:
    join(lookout, pool, 5)

    assert take(pool, 3) == [0, 1, 2]
    assert take(pool, 3) == [3, 4, 0]
    join(lookout, pool, 1)
    assert take(pool, 6) == [1, 2, 3, 4, 0, 5]


async def test_no_more_are_taken_than_have_room(lookout: StatusPoller, pool: ListGroup) -> None:
    join(lookout, pool, 5)

    assert take(pool, longest=3 * EACH) == [0, 1, 2]
    assert take(pool, longest=3 * EACH - 1) == [3, 4]
    assert take(pool, longest=EACH - 1) == []
    assert take(pool, most=0) == []


async def test_who_has_an_answer_on_its_way_is_passed_over_for_a_while(
    lookout: StatusPoller, pool: ListGroup
) -> None:
    first, second, third = join(lookout, pool, 3)
    first.lists_in_flight, first.listed_at = 1, 10.0
    second.listed_at = 10.0
    third.lists_in_flight, third.listed_at = 1, 10.0 - DEFAULT_TUNING.answer_timeout

    assert take(pool, now=10.0) == [1, 2]
    assert take(pool, now=10.0 + DEFAULT_TUNING.answer_timeout) == [0, 1, 2]


async def test_a_roll_call_is_for_all(lookout: StatusPoller, pool: ListGroup) -> None:
    [first, _] = join(lookout, pool, 2)
    first.lists_in_flight, first.listed_at = 1, 10.0

    assert take(pool, now=10.0, roll_call=True) == [0, 1]


async def test_a_roll_call_that_has_not_room_for_all_goes_on_where_the_last_one_ended(
    lookout: StatusPoller, pool: ListGroup
) -> None:
    join(lookout, pool, 5)

    assert take(pool, 2, roll_call=True) == [0, 1]
    assert take(pool, 4) == [2, 3, 4, 0]  # which are no roll calls
    assert take(pool, 2, roll_call=True) == [2, 3]
    assert take(pool, 2, roll_call=True) == [4, 0]
    assert sorted(take(pool, 5, roll_call=True)) == [0, 1, 2, 3, 4]


async def test_one_that_needs_confirmation_goes_first(
    lookout: StatusPoller, pool: ListGroup
) -> None:
    *_, last = join(lookout, pool, 4)
    pool.move_to_front(last)

    assert take(pool, 2) == [3, 0]


async def test_who_leaves_is_not_taken(lookout: StatusPoller, pool: ListGroup) -> None:
    join(lookout, pool, 3)
    pool.remove(pool.members["d001"])

    assert take(pool) == [0, 2]
    assert take(pool, 1, roll_call=True) == [0]
    assert take(pool, 1, roll_call=True) == [2]


async def test_the_newest_is_the_one_that_waits_since_last(
    lookout: StatusPoller, pool: ListGroup
) -> None:
    late, early = (
        PollEntry(lookout.tracker("a"), 7.0, pool),
        PollEntry(lookout.tracker("b"), 3.0, pool),
    )
    pool.add(late)
    pool.add(early)

    assert pool.newest == 7.0


async def test_it_is_known_whether_webhooks_are_to_come_for_all(
    lookout: StatusPoller, pool: ListGroup
) -> None:
    join(lookout, pool, 2, webhook=True)
    told = [pool.all_expect_webhooks]
    [other] = join(lookout, pool, 1)
    told.append(pool.all_expect_webhooks)
    pool.remove(other)
    told.append(pool.all_expect_webhooks)

    assert told == [True, False, True]


async def test_who_moves_to_another_pool_belongs_there(
    lookout: StatusPoller, pool: ListGroup
) -> None:
    [one] = join(lookout, pool, 1)
    other = ListGroup(only_ready=False)
    pool.remove(one)
    other.add(one)

    assert one.group is other
    assert take(other) == [0]
    assert take(pool) == []


async def test_what_is_awaited_was_last_seen_when_the_wait_began(lookout: StatusPoller) -> None:
    one = PollEntry(lookout.tracker("a"), 7.0, ListGroup(only_ready=True))

    assert (one.request_id, one.checked_at) == ("a", 7.0)
    assert 0.9 <= one.jitter <= 1.1


# ── turns ────────────────────────────────────────────────────────────────────────────────────────


def turns(
    lookout: StatusPoller, pool: ListGroup, *due: float
) -> tuple[StatusQueue, list[PollEntry], list[float]]:
    """So many who stand in line, and when each is due, which may be changed."""
    times, awaited = list(due), join(lookout, pool, len(due))
    line = StatusQueue(lambda one, _: times[awaited.index(one)])
    for one in awaited:
        line.add(one, 0.0)
    return line, awaited, times


async def test_they_are_looked_at_in_the_order_in_which_they_are_due(
    lookout: StatusPoller, pool: ListGroup
) -> None:
    line, [a, b, c], _ = turns(lookout, pool, 3.0, 1.0, 2.0)

    assert line.first(0.0) == 1.0
    assert [line.take(9.0) for _ in range(3)] == [b, c, a]
    assert line.first(9.0) == math.inf


async def test_one_that_needs_confirmation_does_not_stand_behind_those_due_before(
    lookout: StatusPoller, pool: ListGroup
) -> None:
    line, [*_, last], _ = turns(lookout, pool, 1.0, 2.0, 3.0)
    last.needs_confirmation = True
    line.add(last, 0.0)

    assert line.take(9.0) is last


async def test_those_doubted_and_those_not_take_turns_where_both_are_due(
    lookout: StatusPoller, pool: ListGroup
) -> None:
    line, awaited, _ = turns(lookout, pool, *range(6))
    for one in awaited[3:]:
        one.needs_confirmation = True
        line.add(one, 0.0)
    taken = []
    while line.first(9.0) < math.inf:
        taken.append(line.take(9.0).needs_confirmation)

    assert taken == [True, False] * 3


async def test_who_is_not_due_yet_gives_way(lookout: StatusPoller, pool: ListGroup) -> None:
    line, [a, b, doubted], _ = turns(lookout, pool, 1.0, 2.0, 8.0)
    doubted.needs_confirmation = True
    line.add(doubted, 0.0)

    assert [line.take(5.0), line.take(5.0)] == [a, b]
    assert line.first(5.0) == 8.0


async def test_an_earlier_place_counts_no_more(lookout: StatusPoller, pool: ListGroup) -> None:
    line, [one, other], times = turns(lookout, pool, 1.0, 2.0)
    times[0] = 5.0
    line.add(one, 0.0)
    other.queue_number = -1  # waited for no more
    first = line.first(3.0)

    assert (first, line.take(9.0)) == (5.0, one)
    assert line.first(9.0) == math.inf


async def test_one_whose_gap_has_grown_by_its_turn_waits_on(
    lookout: StatusPoller, pool: ListGroup
) -> None:
    line, [one, other], times = turns(lookout, pool, 1.0, 2.0)
    times[0] = 5.0

    assert line.first(1.0) == 2.0
    assert [line.take(2.0), line.first(2.0)] == [other, 5.0]
    assert line.take(5.0) is one


async def test_the_line_does_not_grow_with_those_who_stand_in_it_anew(
    lookout: StatusPoller, pool: ListGroup
) -> None:
    line, awaited, times = turns(lookout, pool, *(37 * number % 50 for number in range(50)))
    for _ in range(20):
        for one in awaited:
            one.needs_confirmation = not one.needs_confirmation
            line.add(one, 0.0)

    # In each of two queues no more than twice as many as count, and a few.
    assert len(line) < 2 * (2 * len(awaited) + 64) + 2
    assert [times[awaited.index(line.take(99.0))] for _ in awaited] == [*range(50)]
    line.clear()
    assert (len(line), line.first(99.0)) == (0, math.inf)
