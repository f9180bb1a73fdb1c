"""Arguments of a pool, its block, and `filled`."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from arena import arena_client, arena_pool

from edgegap_async import EdgegapClient
from edgegap_async.concurrency import loop_time
from edgegap_async.emulator import Emulator, Fault, Respond
from edgegap_async.errors import InvalidRequest, PoolEmpty

pytestmark = pytest.mark.virtual


@pytest.mark.parametrize(
    "settings",
    [
        {"min_ready": -1},
        {"min_ready": 1.5},
        {"min_ready": 3, "max_total": 2},
        {"min_ready": 0, "max_total": 0},
        {"max_idle": 0},
        {"max_age": "old"},
        {"poll_interval": -1},
        {"name": "a name"},
        {"name": "x" * 15},
        {"playable": "yes"},
        {"operation_tag": False},
        {"tags": ["x" * 50]},
        {"tags": "ranked"},
        {"timeout_each": "soon"},
    ],
)
async def test_an_invalid_argument_is_refused_at_once(
    client: EdgegapClient, settings: dict[str, Any]
) -> None:
    with pytest.raises(InvalidRequest):
        arena_pool(client, **settings)


async def test_a_pool_needs_a_block_and_can_be_used_once(client: EdgegapClient) -> None:
    pool = arena_pool(client, min_ready=0)
    with pytest.raises(RuntimeError, match="async with"):
        await pool.allocate()
    async with pool:
        assert repr(pool).startswith("<ServerPool arena v1: PoolStats(ready=0")
    with pytest.raises(RuntimeError, match="used once"):
        async with pool:
            pass


async def test_filled_returns_when_min_ready_servers_are_ready(client: EdgegapClient) -> None:
    async with arena_pool(client, min_ready=3) as pool:
        began = loop_time()
        await pool.filled(timeout=60)

        assert loop_time() - began == pytest.approx(2.2, abs=0.5)
        assert pool.stats.ready == 3
        await pool.filled(timeout=0)
        servers = [await pool.allocate(timeout=0) for _ in range(3)]
        with pytest.raises(PoolEmpty, match=r"pool default: not filled in 0 s; PoolStats\(ready=0"):
            await pool.filled(timeout=0)
        await asyncio.gather(*(server.stop() for server in servers))


async def test_filled_raises_also_if_some_servers_are_ready(
    emulator: Emulator, client: EdgegapClient
) -> None:
    async with arena_pool(client, min_ready=2) as pool:
        await pool.filled(timeout=60)
        emulator.faults.add(Fault("deploy", Respond(400), times=None))
        server = await pool.allocate()
        with pytest.raises(
            PoolEmpty, match=r"pool .*: arena v1 cannot be deployed, 3 failed; the last: POST"
        ):
            await pool.filled()
        assert pool.stats.ready == 1
        await server.stop()


async def test_filled_raises_the_reason_if_deploys_fail(emulator: Emulator) -> None:
    async with arena_client(emulator) as client, arena_pool(client, version="v9") as pool:
        with pytest.raises(PoolEmpty, match=r"not filled in 1 s.*the last failure: POST"):
            await pool.filled(timeout=1)
        with pytest.raises(
            PoolEmpty, match=r"pool .*: arena v9 cannot be deployed, 3 failed; the last: POST"
        ):
            await pool.filled()
    with pytest.raises(PoolEmpty, match=r"left$"):
        await pool.filled()
