"""A program that never sees the end of its servers keeps few of them."""

from __future__ import annotations

import asyncio

import pytest
from short_lived_api import ShortLivedApi

from edgegap_async.client import EdgegapClient
from edgegap_async.deployments.register import DeploymentRegister, DeploymentState
from edgegap_async.http.guard import Guard
from edgegap_async.observability.observer import Observers

pytestmark = pytest.mark.virtual

USERS = ["192.0.2.1"]
DAYS = 3
DEPLOYS = DAYS * 24 * 3600  # at 1 deploy a second
MAX_LIVE = 100_000


async def test_row_79_deployments_whose_end_no_task_sees_leave_the_register() -> None:
    async with (
        ShortLivedApi(lifetime=60) as api,
        EdgegapClient("canary-t", base_url=api.url, guard=Guard(max_live=10**9)) as client,
    ):
        sizes = []
        for _ in range(4000):  # 1.1 hours
            await client.deploy("arena", "v1", users=USERS)
            await asyncio.sleep(1)
            sizes.append(len(client._deployer.register))

        # The API's 404 counts 310 s after a deploy; the client checks for ends from 1,000 on.
        assert max(sizes) < 2000
        assert max(sizes[3000:]) <= max(sizes[:3000])
        assert len(client.poller._trackers) <= 1


async def test_young_deployments_are_not_checked_for_ends() -> None:
    async with (
        ShortLivedApi(lifetime=60) as api,
        EdgegapClient("canary-t", base_url=api.url) as client,
    ):
        for _ in range(1200):  # 30 s at the documented limit
            await client.deploy("arena", "v1", users=USERS)
        assert api.lists == 0
        await asyncio.sleep(400)
        for _ in range(100):
            await client.deploy("arena", "v1", users=USERS)
        assert api.lists > 0


async def test_row_79_a_live_deployment_stays_in_the_register() -> None:
    async with (
        ShortLivedApi(lifetime=60) as api,
        EdgegapClient("canary-t", base_url=api.url) as client,
    ):
        api.lifetime = 1e9
        lasting = await client.deploy("arena", "v1", users=USERS)
        api.lasting = api.live.popitem()[0]
        api.lifetime = 60
        short = await client.deploy("arena", "v1", users=USERS)
        for _ in range(1800):
            await client.deploy("arena", "v1", users=USERS)
            await asyncio.sleep(1)
        state = client._deployer.register.state

        assert state(lasting.request_id) is DeploymentState.HANDED_OVER
        assert state(short.request_id) is DeploymentState.ENDED


async def test_row_79_the_register_is_bounded_where_no_end_can_be_learnt() -> None:
    register = DeploymentRegister(10.0, Observers())
    register.add_deployed("owned")
    register.set_owned("owned")
    for number in range(DEPLOYS):
        register.add_deployed(f"d{number}")

    assert len(register) == MAX_LIVE
    assert register.state("owned") is DeploymentState.OWNED
    assert register.state(f"d{DEPLOYS - 1}") is DeploymentState.HANDED_OVER
