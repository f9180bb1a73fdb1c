"""The end of a deployment: stop, self-stop, bulk stop, maximal duration, end of the cloud."""

from __future__ import annotations

import asyncio

import aiohttp
import attrs
import pytest
from bare_api import BareApi
from emulated_cloud import (
    ARENA,
    SLEEPER,
    SentWebhooks,
    a_cloud,
    answer,
    deployed,
    processes_of,
    python_application,
    reached,
)

from edgegap_async import Status
from edgegap_async.api.codec import to_json
from edgegap_async.api.requests import StopFilters
from edgegap_async.emulator import AppPort, Emulator, Simulation, Timings, sample_application
from edgegap_async.errors import Gone, NotFound
from edgegap_async.requests import StopFilter


async def test_a_stop_of_a_ready_deployment_answers_200_and_leaves_no_process() -> None:
    async with a_cloud(ARENA) as cloud:
        deployment = await reached(await deployed(cloud, ARENA), Status.READY)
        request_id = deployment.request_id

        stopped = await answer(cloud, "stop_deployment", request_id=request_id)
        again = await answer(cloud, "stop_deployment", request_id=request_id)
        await reached(deployment, Status.TERMINATED)

        assert stopped.message == f"Instance {request_id} will be deleted"
        assert stopped.deployment_summary.current_status is Status.READY
        assert again.message == stopped.message
        assert processes_of(deployment) == []
        assert deployment.deployment().removal_time is not None
        with pytest.raises(Gone):
            await cloud.stop_deployment(request_id=request_id)
        with pytest.raises(NotFound, match="gone"):
            await cloud.get_container_logs(request_id=request_id)


async def test_row_55_a_stop_before_ready_takes_effect_at_ready() -> None:
    webhooks = SentWebhooks()
    async with a_cloud(ARENA, webhooks=webhooks) as cloud:
        deployment = await deployed(
            cloud, ARENA, webhook_on_ready="http://r/", webhook_on_terminated="http://t/"
        )
        request_id = deployment.request_id

        stopped = await cloud.stop_deployment(request_id=request_id)
        await reached(deployment, Status.TERMINATED)

    assert to_json(stopped) == {
        "message": f"{request_id} - Delete request will be processed soon",
        "deployment_summary": None,
    }
    assert [url for url, _ in webhooks.events] == ["http://r/", "http://t/"]


async def test_row_55_a_stop_before_an_error_takes_effect_at_the_error() -> None:
    application = python_application("exit(1)", ports=(AppPort("game"),))
    async with a_cloud(application) as cloud:
        deployment = await deployed(cloud, application)
        await cloud.stop_deployment(request_id=deployment.request_id)
        await reached(deployment, Status.TERMINATED)

    assert deployment.error_detail == "The application exited with code 1"


async def test_row_56_a_hundred_stops_at_once_end_a_server_once() -> None:
    webhooks = SentWebhooks()
    async with a_cloud(ARENA, webhooks=webhooks) as cloud:
        deployment = await deployed(cloud, ARENA, webhook_on_terminated="http://t/")
        await reached(deployment, Status.READY)

        await asyncio.gather(
            *(
                answer(cloud, "stop_deployment", request_id=deployment.request_id)
                for _ in range(100)
            )
        )
        await reached(deployment, Status.TERMINATED)

    assert [url for url, _ in webhooks.events] == ["http://t/"]


async def test_row_50_any_exit_code_after_a_stop_is_terminated() -> None:
    application = python_application(
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))\n"
        "print('up')\n"
        "time.sleep(60)"
    )
    async with a_cloud(application) as cloud:
        deployment = await reached(await deployed(cloud, application), Status.READY)
        await cloud.stop_deployment(request_id=deployment.request_id)
        await reached(deployment, Status.TERMINATED)

    assert (deployment.crash, deployment.error_detail) == (None, None)


async def test_row_45_the_version_sets_the_grace_period_of_a_program_that_ignores_sigterm() -> None:
    arena = attrs.evolve(
        sample_application("--ignore-sigterm", "--fork-setsid"),
        termination_grace_period_seconds=0.3,
    )
    async with a_cloud(arena) as cloud:
        loop = asyncio.get_running_loop()
        deployment = await reached(await deployed(cloud, arena), Status.READY)
        assert len(processes_of(deployment)) == 2
        began = loop.time()
        await cloud.stop_deployment(request_id=deployment.request_id)
        await reached(deployment, Status.TERMINATED)

        assert 0.3 <= loop.time() - began < 5
        assert processes_of(deployment) == []


async def test_the_maximal_duration_ends_a_deployment() -> None:
    arena = attrs.evolve(ARENA, max_duration=0.3 / 60)
    webhooks = SentWebhooks()
    async with a_cloud(arena, webhooks=webhooks) as cloud:
        deployment = await deployed(cloud, arena, webhook_on_terminated="http://t/")
        await reached(deployment, Status.TERMINATED)

    assert deployment.deployment().max_duration == 1
    ((url, sent),) = webhooks.events
    assert (url, sent.current_status, sent.error) == ("http://t/", Status.TERMINATED, False)


async def test_a_max_duration_of_minus_one_never_ends_a_deployment() -> None:
    arena = attrs.evolve(ARENA, max_duration=-1)
    async with a_cloud(arena) as cloud:
        deployment = await reached(await deployed(cloud, arena), Status.READY)

        assert deployment.deployment().max_duration == -1
        deployment.stop()
        await reached(deployment, Status.TERMINATED)


async def test_row_55_a_stop_before_ready_is_answered_202_and_one_after_it_200() -> None:
    simulation = Simulation(ready_after=(60.0, 60.0))
    emulator = Emulator([ARENA], timings=Timings.fast(), simulate=simulation)
    async with emulator, aiohttp.ClientSession(emulator.url) as session:
        api = BareApi(emulator, session)
        one, other = await api.deploy(), await api.deploy()
        before, _ = await api("DELETE", f"/v1/stop/{one}")
        await emulator.clock.advance(61)
        after, _ = await api("DELETE", f"/v1/stop/{other}")

    assert (before, after) == (202, 200)


async def test_only_the_deployment_itself_can_use_its_own_stop(api: BareApi) -> None:
    one, other = await api.deploy(), await api.deploy()
    for request_id in (one, other):
        await api.wait_for_status(request_id, "READY")
    deployments = api.emulator.deployments
    own = deployments[one].secrets
    path = f"/v1/self/stop/{one}/{own.access_point_id}"

    for token in ("x", "é", deployments[other].secrets.delete_token, own.context_token):
        assert (await api("DELETE", path, authorization=token))[0] == 401
    status, said = await api("DELETE", f"/v1/self/stop/{one}/1", authorization=own.delete_token)
    assert (status, said["message"]) == (400, "Bad Request ID provided")
    path += "?container_log_storage=true"
    assert (await api("DELETE", path, authorization=own.delete_token))[0] == 200
    await api.wait_for_status(one, "TERMINATED")
    assert (await api("DELETE", path, authorization=own.delete_token))[0] == 410
    assert deployments[other].status is Status.READY


async def test_a_bulk_stop_ends_the_deployments_that_match_every_filter() -> None:
    async with a_cloud(SLEEPER) as cloud:
        tags: list[list[str]] = [["eu", "ranked"], ["eu"], ["us"], []]
        ids = [(await deployed(cloud, SLEEPER, tags=each)).request_id for each in tags]

        async def matching(*filters: StopFilter) -> list[int]:
            stops = await cloud.bulk_stop(body=StopFilters(filters))
            return [ids.index(one) for one in stops.request_ids]

        assert await matching(StopFilter("request_id", ["other"])) == []
        assert await matching(StopFilter("deployment_tags", ["eu", "ranked"], "all")) == [0]
        assert await matching(
            StopFilter("deployment_tags", ["eu", "us"]), StopFilter("request_id", ids[:2], "not")
        ) == [2]
        assert await matching(StopFilter("request_id", [ids[1]], "any")) == [1]
        assert set(await matching()) == {0, 1, 2, 3} - {
            ids.index(one.request_id)
            for one in cloud.deployments.values()
            if one.status is Status.TERMINATING
        }
        for request_id in ids:
            await reached(cloud.deployments[request_id], Status.TERMINATED)


async def test_row_59_closing_a_cloud_ends_every_process() -> None:
    arena = sample_application("--ignore-sigterm", "--fork-setsid")
    async with a_cloud(arena, SLEEPER) as cloud:
        one = await reached(await deployed(cloud, arena), Status.READY)
        other = await deployed(cloud, SLEEPER)
        assert processes_of(one)

    assert processes_of(one) + processes_of(other) == []
    assert len(asyncio.all_tasks()) == 1


async def test_row_59_a_loop_that_cancels_every_task_leaves_no_process() -> None:
    arena = sample_application("--ignore-sigterm", "--fork-setsid")
    async with a_cloud(arena) as cloud:
        deployment = await reached(await deployed(cloud, arena), Status.READY)
        for _ in range(3):  # as often as it likes
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            await asyncio.sleep(0)

    assert processes_of(deployment) == []


async def test_row_59_a_close_that_is_cancelled_leaves_no_process() -> None:
    arena = sample_application("--ignore-sigterm", "--fork-setsid")
    async with a_cloud(arena) as cloud:
        deployment = await reached(await deployed(cloud, arena), Status.READY)
        closing = asyncio.create_task(cloud.close())
        await asyncio.sleep(0.01)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing

        assert processes_of(deployment) == []
