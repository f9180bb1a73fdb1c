"""How many requests of a kind go at once, and what is made of those that fail or hang."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator

import pytest

from edgegap_async.api.operations import GET_DEPLOYMENT
from edgegap_async.http.rate_limits import Limits, Priority
from edgegap_async.polling.in_flight import InFlightRequests
from edgegap_async.polling.schedule import DEFAULT_TUNING

pytestmark = pytest.mark.virtual


class Asked(InFlightRequests):
    """Requests that are answered when a test says so."""

    def __init__(self, most: int) -> None:
        super().__init__(GET_DEPLOYMENT, most, DEFAULT_TUNING, self.note)
        self.over: list[asyncio.Task[None]] = []
        self.answer = asyncio.Event()
        self.limits = Limits()

    def note(self, task: asyncio.Task[None]) -> None:
        self.over.append(task)

    async def ask(self) -> None:
        await self.answer.wait()

    def go(self, at: float, times: int = 1) -> None:
        for _ in range(times):
            self.begin(self.ask(), at)

    def may_go_at(self, now: float) -> float:
        return self.permitted_at(self.limits, now)


@pytest.fixture
async def asking() -> AsyncIterator[Asked]:
    asking = Asked(3)
    yield asking
    asking.cancel()
    await asyncio.sleep(0)


async def test_the_first_may_always_go(asking: Asked) -> None:
    for _ in range(30):
        await asking.limits.acquire(GET_DEPLOYMENT)

    assert asking.may_go_at(7.0) == 7.0


async def test_others_go_when_nobody_would_stand_before_them(asking: Asked) -> None:
    asking.go(7.0)
    assert asking.may_go_at(7.0) == 7.0
    for _ in range(15):
        await asking.limits.acquire(GET_DEPLOYMENT)
    other = asyncio.create_task(asking.limits.acquire(GET_DEPLOYMENT, Priority.OTHER))
    await asyncio.sleep(0)
    free = asking.limits.expected_wait(GET_DEPLOYMENT, Priority.OTHER)

    assert free > asking.limits.expected_wait(GET_DEPLOYMENT, Priority.STATUS)
    assert asking.may_go_at(7.0) == pytest.approx(7.0 + free, abs=0.001)
    await other


async def test_one_that_hangs_is_soon_not_waited_for(asking: Asked) -> None:
    asking.go(7.0)
    asking.limits.on_rate_limited(GET_DEPLOYMENT, 60)

    assert asking.may_go_at(7.0) == 7.0 + DEFAULT_TUNING.answer_timeout
    assert (
        asking.may_go_at(7.0 + DEFAULT_TUNING.answer_timeout) == 7.0 + DEFAULT_TUNING.answer_timeout
    )


async def test_only_so_many_go_at_a_time_and_those_that_hang_are_counted_no_more(
    asking: Asked,
) -> None:
    asking.go(7.0, 2)
    asking.go(8.0)
    assert asking.may_go_at(8.0) == 7.0 + DEFAULT_TUNING.answer_timeout
    asking.go(9.5)
    assert asking.may_go_at(9.5) == 9.5
    asking.go(9.5)
    assert asking.may_go_at(9.5) == 8.0 + DEFAULT_TUNING.answer_timeout


async def test_twice_as_many_are_the_most(asking: Asked) -> None:
    asking.go(0.0, 6)

    assert asking.may_go_at(100.0) == math.inf
    assert len(asking) == asking.count == 6


async def test_each_that_ends_is_told_of_and_makes_room(asking: Asked) -> None:
    asking.go(0.0, 6)
    await asyncio.sleep(0)
    asking.answer.set()
    await asyncio.sleep(0.01)

    assert (len(asking), len(asking.over), asking.count) == (0, 6, 6)


async def test_one_that_is_cancelled_before_it_has_begun_makes_room_too(asking: Asked) -> None:
    asking.go(0.0, 6)
    asking.cancel()
    await asyncio.sleep(0.01)

    assert (len(asking), len(asking.over)) == (0, 6)
    assert all(task.cancelled() for task in asking.over)


async def test_gaps_double_with_each_failure_up_to_a_few_seconds(asking: Asked) -> None:
    gaps = []
    for _ in range(6):
        gaps.append(asking.backed_off(0.5))
        asking.note_failure(OSError("gone"))

    assert gaps == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]
    assert asking.backed_off(8.0) == 8.0  # it is slow enough
    for _ in range(2000):
        asking.note_failure(OSError("gone"))
    assert asking.backed_off(0.5) == 5.0
    asking.note_answer(1.0)
    assert asking.backed_off(0.5) == 0.5


async def test_after_two_failures_nothing_is_expected_until_one_is_answered(asking: Asked) -> None:
    assert asking.unusable_at() == math.inf
    asking.note_failure(OSError("gone"))
    assert asking.unusable_at() == math.inf
    asking.note_failure(OSError("gone"))
    assert asking.unusable_at() == -math.inf
    asking.note_answer(1.0)
    assert asking.unusable_at() == math.inf


async def test_nothing_is_expected_of_what_is_not_answered_for_long(asking: Asked) -> None:
    asking.go(7.0)
    asking.go(8.0)
    assert asking.unusable_at() == 7.0 + DEFAULT_TUNING.answer_timeout
    asking.note_answer(7.5)  # a later one was: the first is lost, and the second may come
    assert asking.unusable_at() == 8.0 + DEFAULT_TUNING.answer_timeout
    asking.note_answer(8.5)
    assert asking.unusable_at() == math.inf


async def test_the_fifth_failure_in_a_row_is_a_warning(
    asking: Asked, caplog: pytest.LogCaptureFixture
) -> None:
    def warned() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]

    caplog.set_level("INFO", "edgegap_async")
    for _ in range(4):
        asking.note_failure(OSError("no route"))
    assert warned() == []
    for _ in range(96):
        asking.note_failure(OSError("no route"))
    assert warned() == ["get_deployment failed (5 in a row), the poller will repeat it: no route"]
    asking.note_answer(1.0)
    for _ in range(5):
        asking.note_failure(OSError("no route"))
    assert len(warned()) == 2
