"""What a cloud does by itself: capacity, caches, times from a seed, lists that lag, clean-up."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from emulated_cloud import ARENA, SLEEPER, a_cloud, a_request, answer, deployed, reached, until

from edgegap_async import Status
from edgegap_async.emulator import Emulator, Simulation, Timings
from edgegap_async.errors import InvalidRequest, Unprocessable

QUICK = Simulation(ready_after=(0, 0))
BROKEN = Simulation(ready_after=(0, 0), crash_share=1, crash_after=(1, 1))


@pytest.mark.virtual
async def test_row_58_a_deployment_in_error_ends_by_itself() -> None:
    async with a_cloud(ARENA, simulate=BROKEN, keep_errors=60) as cloud:
        deployment = await deployed(cloud, ARENA)
        await asyncio.sleep(2)
        assert deployment.status is Status.ERROR
        await asyncio.sleep(58)
        assert deployment.status is Status.ERROR
        await asyncio.sleep(2)

        assert str(deployment.status) == "TERMINATED"


@pytest.mark.virtual
async def test_row_58_a_deploy_without_room_leaves_no_deployment_for_ever() -> None:
    async with a_cloud(ARENA, max_deployments=0, keep_errors=60, keep_terminated=60) as cloud:
        with pytest.raises(Unprocessable):
            await cloud.deploy(body=a_request(ARENA))
        await asyncio.sleep(122)
        page = await answer(cloud, "list_deployments")

    assert page.data == ()
    assert cloud.live() == []


@pytest.mark.virtual
async def test_row_58_the_oldest_of_too_many_in_error_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgegap_async.emulator.cloud_state._MAX_ERRORS", 2)
    async with a_cloud(ARENA, simulate=BROKEN, keep_errors=None) as cloud:
        made = [await deployed(cloud, ARENA) for _ in range(4)]
        await asyncio.sleep(10)

        assert [str(one.status) for one in made] == ["TERMINATED"] * 2 + ["ERROR"] * 2


async def test_a_deploy_goes_to_the_next_city_when_one_is_full() -> None:
    capacity = {"Paris": 1, "London": 1, "Frankfurt": 0}
    async with a_cloud(SLEEPER, simulate=QUICK, location_capacity=capacity) as cloud:
        made = [await deployed(cloud, SLEEPER) for _ in range(3)]
        cities = [one.location.city for one in made]
        made[0].stop()
        await until(lambda: made[0].status is Status.TERMINATED)
        again = await deployed(cloud, SLEEPER)

    assert cities[:2] == ["Paris", "London"]
    assert cities[2] not in capacity
    assert again.location.city == "Paris"


async def test_a_deploy_is_422_when_every_city_is_full() -> None:
    async with a_cloud() as cloud:
        names = [one.city for one in (await answer(cloud, "list_locations")).locations]
    async with a_cloud(SLEEPER, location_capacity=dict.fromkeys(names, 0)) as cloud:
        with pytest.raises(Unprocessable, match="every location is full"):
            await cloud.deploy(body=a_request(SLEEPER))


async def test_cached_locations_are_those_that_have_run_the_version() -> None:
    async with a_cloud(SLEEPER, ARENA, simulate=QUICK) as cloud:
        with pytest.raises(Unprocessable, match="no location has the version in its cache"):
            await cloud.deploy(body=a_request(SLEEPER, require_cached_locations=True))
        await reached(await deployed(cloud, SLEEPER, users=[(35.7, 139.7)]), Status.READY)
        cached = await deployed(cloud, SLEEPER, require_cached_locations=True)
        free = await deployed(cloud, SLEEPER)
        with pytest.raises(Unprocessable):
            await cloud.deploy(body=a_request(ARENA, require_cached_locations=True))

    assert (cached.location.city, free.location.city) == ("Tokyo", "Paris")


@pytest.mark.virtual
async def test_a_location_is_faster_when_it_has_run_the_version() -> None:
    timings = Timings(deploying=10, deploying_cached=1)
    async with a_cloud(SLEEPER, simulate=QUICK, timings=timings) as cloud:
        seconds = []
        for _ in range(2):
            began = asyncio.get_running_loop().time()
            await reached(await deployed(cloud, SLEEPER), Status.READY)
            seconds.append(asyncio.get_running_loop().time() - began)

    assert seconds[0] > 10
    assert seconds[1] < 2


@pytest.mark.virtual
async def test_times_are_drawn_from_a_seed() -> None:
    async def drawn(seed: int) -> list[float]:
        timings = Timings(seeking=(1, 5), deploying=(1, 5), deploying_cached=(1, 5))
        async with a_cloud(SLEEPER, simulate=QUICK, timings=timings, seed=seed) as cloud:
            made = [await deployed(cloud, SLEEPER) for _ in range(5)]
        return [one.timings["seeking"] for one in made]

    first = await drawn(1)
    assert all(1 <= seconds <= 5 for seconds in first)
    assert len(set(first)) == 5
    assert await drawn(1) == first
    assert await drawn(2) != first


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"timings": {"seeking": -1}}, "Timings.seeking must be 0 or more"),
        (
            {"timings": {"seeking": (2, 1)}},
            r"Timings.seeking must be a number or \(at least, at most\)",
        ),
        ({"location_capacity": {"Atlantis": 1}}, "'Atlantis' is no city here"),
        ({"location_capacity": {"Paris": -1}}, "Paris must be 0 or more"),
        ({"list_delay": -1}, "list_delay must be 0 or more"),
        ({"keep_errors": -1}, "keep_errors must be 0 or more"),
        ({"seed": 1.5}, "seed must be of type int"),
    ],
)
def test_an_invalid_setting_is_named(settings: dict[str, Any], complaint: str) -> None:
    timings = settings.pop("timings", None)
    make: Any = Emulator if timings is None else Timings
    with pytest.raises(InvalidRequest, match=complaint):
        make(**(settings if timings is None else timings))


@pytest.mark.virtual
async def test_lists_show_a_deployment_after_the_list_delay() -> None:
    async with a_cloud(SLEEPER, simulate=QUICK, list_delay=3) as cloud:
        deployment = await deployed(cloud, SLEEPER)
        await asyncio.sleep(2)
        early = await answer(cloud, "list_deployments")
        await answer(cloud, "get_deployment", request_id=deployment.request_id)
        await asyncio.sleep(2)
        late = await answer(cloud, "list_deployments")

    assert (len(early.data), len(late.data)) == (0, 1)


async def test_a_page_of_ten_thousand_is_filtered_in_time() -> None:
    async with a_cloud(SLEEPER, simulate=QUICK) as cloud:
        for number in range(10_000):
            await cloud.deploy(body=a_request(SLEEPER, tags=["all", f"tag-{number}"]))
        seconds: dict[str | None, float] = {}
        for text in (
            None,
            '{"filters":[{"field":"tags","operator":"in","value":["tag-9000","tag-9001"]}]}',
            (
                '{"filters":[{"field":"status","operator":"neq","value":"error"},'
                '{"field":"tags","operator":"eq","value":"all"}],'
                '"order_by":[{"field":"created_at","order":"desc"}]}'
            ),
        ):
            times = []
            for _ in range(7):
                began = time.process_time()
                await answer(cloud, "list_deployments", query=text, limit="100")
                times.append(time.process_time() - began)
            seconds[text] = sorted(times)[3]

    # CPU time beside that of a page without a query: 5 and 7 times on an idle machine.
    assert max(seconds.values()) < 20 * seconds[None]
