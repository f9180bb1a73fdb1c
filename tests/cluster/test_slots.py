"""Several programs share one timeline of slots, and measure the clock of Redis."""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
from pathlib import Path

import pytest
from program_that_shares import measure_stalls
from redis_server import RedisServer, most_in_one_second, programs, until

from edgegap_async import Cluster
from edgegap_async.api.operations import DEPLOY
from edgegap_async.cluster.slots import ClockOffset, SlotReply
from edgegap_async.concurrency import loop_time
from edgegap_async.emulator import Emulator, Simulation, sample_application

PROGRAM = Path(__file__).parents[1] / "support/programs/program_that_shares.py"


def times_of(reply: SlotReply) -> list[float]:
    return [slot.at for slot in reply.slots]


@pytest.mark.timeout(120)
async def test_four_processes_never_exceed_the_documented_limit(redis: RedisServer) -> None:
    stalls: list[float] = []
    async with Emulator(apps=[sample_application()], simulate=Simulation()) as emulator:
        children = [
            await asyncio.create_subprocess_exec(
                sys.executable,
                *(str(PROGRAM), redis.url, emulator.url, emulator.token),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            for _ in range(4)
        ]
        try:
            for child in children:
                assert child.stdout is not None
                assert await child.stdout.readline() == b"ready\n"
            watching = asyncio.create_task(measure_stalls(stalls))
            for child in children:
                assert child.stdin is not None
                child.stdin.write(b"go\n")
            before = len(emulator.requests)
            await until(lambda: len(emulator.requests) - before >= 240)
            watching.cancel()
            said = [json.loads((await child.communicate(b"end\n"))[0]) for child in children]
        finally:
            for child in children:
                if child.returncode is None:
                    child.kill()
                await child.wait()
        deploys = [request for request in emulator.requests if request.method == "POST"]

    times = sorted(stamp for one in said for stamp in one["times"])
    refused = sum(request.status == 429 for request in deploys)
    stalls += [one["stall"] for one in said]
    used = (len(times) - 10) / (times[-1] - times[0]) / 40
    print(
        f"{len(times)} calls, {used:.1%} of the limit, at most {most_in_one_second(times)} in a "
        f"second, {refused} refused, the machine late by {max(stalls) * 1000:.0f} ms at most"
    )
    assert [one["errors"] for one in said] == [[], [], [], []]
    assert most_in_one_second(times) <= 40
    # If the machine stalls, calls that were sent apart arrive together.
    assert refused == 0 or max(stalls) > 0.015
    # A program that does not get to run, or gets a 429, has less than its share.
    assert min(len(one["times"]) for one in said) >= 0.8 * len(times) / 4 or max(stalls) > 0.015


async def test_the_slots_of_all_programs_are_one_sequence_that_keeps_the_limit(
    redis: RedisServer,
) -> None:
    async with programs(redis.url, 3) as clusters:
        slots: list[float] = []
        for cluster in clusters:
            answer = await cluster._connection.request_slots(
                "deploy", limit=40, wanted=60, horizon=9
            )
            assert answer is not None
            assert len(answer.slots) == 60
            slots += times_of(answer)

    # Each program knows the time of Redis to a few milliseconds.
    assert sorted(slots) == pytest.approx(slots, abs=0.02)
    assert most_in_one_second(slots, 1.03) == 40
    assert 38 * 0.99 < 120 / (slots[-1] - slots[-121]) < 38 * 1.01


async def test_an_idle_account_lets_ten_calls_go_at_once(redis: RedisServer) -> None:
    async with programs(redis.url, 1) as [cluster]:
        # No call since the timeline opened, so the burst is available again.
        connection = cluster._connection
        await until(lambda: loop_time() > connection._answered_at + 0.4)
        answer = await connection.request_slots("deploy", limit=40, wanted=20, horizon=1)

    assert answer is not None
    times = times_of(answer)
    assert len([time for time in times if time < times[0] + 0.001]) == 10
    assert times[10] - times[9] == pytest.approx(1 / 38, abs=0.001)


async def test_no_slot_is_later_than_the_horizon(redis: RedisServer) -> None:
    async with programs(redis.url, 1) as [cluster]:
        answer = await cluster._connection.request_slots(
            "deploy", limit=40, wanted=500, horizon=1.25
        )

        assert answer is not None
        assert times_of(answer)[-1] < loop_time() + 1.25 + 0.1
        assert len(answer.slots) <= 10 + 1.3 * 40
        again = await cluster._connection.request_slots("deploy", limit=40, wanted=5, horizon=1.25)
    assert again is not None
    assert len(again.slots) <= 5
    assert again.next_at >= times_of(answer)[-1]


async def test_a_timeline_of_another_version_is_replaced_after_one_window(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with programs(redis.url, 1) as [cluster]:
        connection = cluster._connection
        await redis.command(
            *("EVAL", "redis.call('HSET', KEYS[1], 'of deploy', cmsgpack.pack({pace = 1}))", "1"),
            connection._keys[0],
        )
        asked_at = loop_time()
        reply = await connection.request_slots("deploy", limit=40, wanted=1, horizon=3)

        assert reply is not None
        assert 1 < times_of(reply)[0] - asked_at < 1.5
        assert cluster.is_shared
    assert not [line for line in caplog.records if line.levelname == "WARNING"]


async def test_a_429_in_one_program_closes_the_limit_for_all(redis: RedisServer) -> None:
    async with programs(redis.url, 2) as [one, other]:
        one.limits.on_rate_limited(DEPLOY, 0.8)
        closed = loop_time() + 0.8
        await until(lambda: not one._connection._tasks)
        await other.limits.acquire(DEPLOY)

        assert loop_time() > closed - 0.05
        assert other.limits.snapshot()["deploy"].rate == pytest.approx(0.95 * 0.95 * 40, rel=0.01)
        assert other.limits.snapshot()["list_deployments"].rate == 9.5
        one.limits.on_rate_limited(DEPLOY, 0.1)
        one.limits.on_rate_limited(DEPLOY, 0.1)
        await until(lambda: not one._connection._tasks)
        assert one.limits.snapshot()["deploy"].rate >= 0.9 * 0.95 * 40  # one more cut, not two


async def test_a_429_without_a_time_closes_the_limit_for_a_time_that_doubles(
    redis: RedisServer,
) -> None:
    async with programs(redis.url, 2) as [one, other]:
        for least in (0.125, 0.25, 0.5, 1.0, 1.0):
            await one.limits.acquire(DEPLOY)
            refused = loop_time()
            one.limits.on_rate_limited(DEPLOY, 0)
            one.limits.on_rate_limited(DEPLOY, 0)  # it was sent before the limit was closed
            assert 0.75 * least < one.limits.snapshot()["deploy"].closed_for <= least
            await until(lambda: not one._connection._tasks)
            await other.limits.acquire(DEPLOY)
            assert loop_time() - refused > least - 0.05


async def test_no_burst_follows_a_429(redis: RedisServer) -> None:
    async with programs(redis.url, 2) as [one, other]:
        connection = other._connection
        await until(
            lambda: loop_time() > connection._answered_at + 0.4
        )  # the burst is available again by now
        one.limits.on_rate_limited(DEPLOY, 0.5)
        await until(lambda: not one._connection._tasks)
        answer = await connection.request_slots("deploy", limit=40, wanted=12, horizon=2)

    assert answer is not None
    gap = 1 / (38 * 0.95)
    gaps = [later - earlier for earlier, later in itertools.pairwise(times_of(answer))]
    assert gaps == pytest.approx([gap] * 11, rel=0.01)


async def test_one_call_can_go_at_once_with_any_limit(redis: RedisServer) -> None:
    async with programs(redis.url, 1, limits={"deploy": 3, "get_deployment": 0.5}) as [cluster]:
        state = cluster.limits.snapshot()

        assert state["deploy"].predicted_wait == state["get_deployment"].predicted_wait == 0


async def test_namespaces_share_nothing_and_no_key_contains_a_namespace(
    redis: RedisServer,
) -> None:
    async with programs(redis.url, 1), programs(redis.url, 1, namespace="a-secret") as [other]:
        await other.limits.acquire(DEPLOY)
        keys = await redis.command("KEYS", "*")

    assert len({key.partition("}")[0] for key in keys}) == 2
    assert all(key.startswith("{edgegap:") for key in keys)
    assert "a-secret" not in " ".join(keys)


async def test_a_program_that_has_closed_its_cluster_is_not_counted(redis: RedisServer) -> None:
    async with programs(redis.url, 1) as [cluster]:
        async with Cluster(redis.url):
            keys = await redis.command("KEYS", "*:programs")
            assert await redis.command("ZCARD", *keys) == 2
        assert await redis.command("ZCARD", *keys) == 1
        assert await redis.command("TTL", *keys) > 0
        assert cluster.programs == 1


def test_the_fastest_answer_sets_the_clock_offset() -> None:
    clock = ClockOffset()
    clock.measure(1000.0, sent=0.0, received=0.2)
    clock.measure(1001.1, sent=1.099, received=1.101)
    clock.measure(1002.3, sent=2.1, received=2.3)  # slow on its way there

    assert clock.to_loop_time(1005.0) == pytest.approx(5.0)


def test_a_different_clock_replaces_the_offset() -> None:
    clock = ClockOffset()
    clock.measure(1000.0, sent=-0.001, received=0.001)
    clock.measure(501.0, sent=0.9, received=1.1)

    assert clock.to_loop_time(501.0) == pytest.approx(1.0)
