"""How many requests of one kind are in flight, and what follows when they fail or hang."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator

import pytest

from edgegap_async.api.operations import GET_DEPLOYMENT
from edgegap_async.errors import NotSent
from edgegap_async.http.rate_limits import Limits, Priority
from edgegap_async.polling.in_flight import InFlightRequests
from edgegap_async.polling.schedule import DEFAULT_TUNING

pytestmark = pytest.mark.virtual


class HeldRequests(InFlightRequests):
    """Requests that wait until a test sets `answer`."""

    def __init__(self, max_in_flight: int) -> None:
        super().__init__(GET_DEPLOYMENT, max_in_flight, DEFAULT_TUNING, self._note_end)
        self.ended: list[asyncio.Task[None]] = []
        self.answer = asyncio.Event()
        self.limits = Limits()

    def _note_end(self, task: asyncio.Task[None]) -> None:
        self.ended.append(task)

    async def _wait(self) -> None:
        await self.answer.wait()

    def send(self, at: float, times: int = 1) -> None:
        for _ in range(times):
            self.begin(self._wait(), at)

    def next_at(self, now: float) -> float:
        return self.permitted_at(self.limits, now)


@pytest.fixture
async def requests() -> AsyncIterator[HeldRequests]:
    requests = HeldRequests(3)
    yield requests
    requests.cancel()
    await asyncio.sleep(0)


async def test_the_first_request_may_always_start(requests: HeldRequests) -> None:
    for _ in range(30):
        await requests.limits.acquire(GET_DEPLOYMENT)

    assert requests.next_at(7.0) == 7.0


async def test_another_request_starts_after_the_calls_of_all_others(requests: HeldRequests) -> None:
    requests.send(7.0)
    assert requests.next_at(7.0) == 7.0
    for _ in range(15):
        await requests.limits.acquire(GET_DEPLOYMENT)
    other = asyncio.create_task(requests.limits.acquire(GET_DEPLOYMENT, Priority.OTHER))
    await asyncio.sleep(0)
    free = requests.limits.expected_wait(GET_DEPLOYMENT, Priority.OTHER)

    assert free > requests.limits.expected_wait(GET_DEPLOYMENT, Priority.STATUS)
    assert requests.next_at(7.0) == pytest.approx(7.0 + free, abs=0.001)
    await other


async def test_a_hanging_request_delays_the_next_for_the_answer_timeout(
    requests: HeldRequests,
) -> None:
    requests.send(7.0)
    requests.limits.on_rate_limited(GET_DEPLOYMENT, 60)

    assert requests.next_at(7.0) == 7.0 + DEFAULT_TUNING.answer_timeout
    assert (
        requests.next_at(7.0 + DEFAULT_TUNING.answer_timeout) == 7.0 + DEFAULT_TUNING.answer_timeout
    )


async def test_max_in_flight_holds_and_hanging_requests_stop_counting(
    requests: HeldRequests,
) -> None:
    requests.send(7.0, 2)
    requests.send(8.0)
    assert requests.next_at(8.0) == 7.0 + DEFAULT_TUNING.answer_timeout
    requests.send(9.5)
    assert requests.next_at(9.5) == 9.5
    requests.send(9.5)
    assert requests.next_at(9.5) == 8.0 + DEFAULT_TUNING.answer_timeout


async def test_at_most_twice_max_in_flight_are_open(requests: HeldRequests) -> None:
    requests.send(0.0, 6)

    assert requests.next_at(100.0) == math.inf
    assert len(requests) == requests.count == 6


async def test_a_request_that_ends_is_reported_and_makes_room(requests: HeldRequests) -> None:
    requests.send(0.0, 6)
    await asyncio.sleep(0)
    requests.answer.set()
    await asyncio.sleep(0.01)

    assert (len(requests), len(requests.ended), requests.count) == (0, 6, 6)


async def test_a_request_cancelled_before_it_begins_makes_room(requests: HeldRequests) -> None:
    requests.send(0.0, 6)
    requests.cancel()
    await asyncio.sleep(0.01)

    assert (len(requests), len(requests.ended)) == (0, 6)
    assert all(task.cancelled() for task in requests.ended)


async def test_intervals_double_with_each_failure_up_to_a_limit(requests: HeldRequests) -> None:
    intervals = []
    for _ in range(6):
        intervals.append(requests.backed_off(0.5))
        requests.note_failure(NotSent("gone"))

    assert intervals == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]
    assert requests.backed_off(8.0) == 8.0  # longer than the limit already
    for _ in range(2000):
        requests.note_failure(NotSent("gone"))
    assert requests.backed_off(0.5) == 5.0
    requests.note_answer(1.0)
    assert requests.backed_off(0.5) == 0.5


async def test_two_failures_make_requests_unusable_until_an_answer(requests: HeldRequests) -> None:
    assert requests.unusable_at() == math.inf
    requests.note_failure(NotSent("gone"))
    assert requests.unusable_at() == math.inf
    requests.note_failure(NotSent("gone"))
    assert requests.unusable_at() == -math.inf
    requests.note_answer(1.0)
    assert requests.unusable_at() == math.inf


async def test_requests_without_an_answer_become_unusable(requests: HeldRequests) -> None:
    requests.send(7.0)
    requests.send(8.0)
    assert requests.unusable_at() == 7.0 + DEFAULT_TUNING.answer_timeout
    requests.note_answer(7.5)  # of the second request or a later one: the first is lost
    assert requests.unusable_at() == 8.0 + DEFAULT_TUNING.answer_timeout
    requests.note_answer(8.5)
    assert requests.unusable_at() == math.inf


async def test_the_fifth_failure_in_a_row_is_logged_as_a_warning(
    requests: HeldRequests, caplog: pytest.LogCaptureFixture
) -> None:
    def warned() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]

    caplog.set_level("INFO", "edgegap_async")
    for _ in range(4):
        requests.note_failure(NotSent("no route"))
    assert warned() == []
    for _ in range(96):
        requests.note_failure(NotSent("no route"))
    assert warned() == ["get_deployment failed (5 in a row), the poller will repeat it: no route"]
    requests.note_answer(1.0)
    for _ in range(5):
        requests.note_failure(NotSent("no route"))
    assert len(warned()) == 2
