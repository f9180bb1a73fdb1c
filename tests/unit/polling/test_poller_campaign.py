"""Random waits, webhooks and faults: every wait ends correctly and within the rate limits."""

from __future__ import annotations

import asyncio
import random

import pytest
from flaky_api import FlakyApi, Lifecycle, ReceivedRequest, now
from poller_waits import REFUSED, UNAVAILABLE, tasks_since
from scripted_api import Reply

from edgegap_async.api.models import Status
from edgegap_async.errors import (
    DeploymentFailed,
    DeploymentTerminated,
    EdgegapError,
    NotFound,
    WaitTimedOut,
)
from edgegap_async.http.api_client import ApiClient
from edgegap_async.http.rate_limits import Limits
from edgegap_async.polling.poller import StatusPoller
from edgegap_async.polling.schedule import PollingPolicy

pytestmark = pytest.mark.virtual


class _Campaign:
    """Runs waits that begin, end and repeat at random, against an API with random faults."""

    def __init__(self, seed: int, flaky_api: FlakyApi, client: ApiClient) -> None:
        self.rng = rng = random.Random(seed)
        self.api, self.client = flaky_api, client
        self.poller = StatusPoller(client, PollingPolicy())
        self.faults_until = now() + 60
        self.wrong: list[str] = []
        self.max_delay = 0.0
        self.max_stale = 0
        flaky_api.rng = rng
        flaky_api.page_size = rng.choice([100, 100, 20])
        flaky_api.list_age = rng.choice([0, 0, 1.0])
        flaky_api.filters_ids = rng.random() > 0.2
        flaky_api.filters_status = rng.random() > 0.2
        flaky_api.serves_pages = rng.random() > 0.2
        flaky_api.lists_errors = rng.random() > 0.5
        if rng.random() < 0.3:
            flaky_api.change_row = lambda row: row | {"status": None}
        self.fault_share = rng.choice([0.0, 0.1, 0.5])
        self.refuses = rng.choice([None, None, "status", "all"])
        self.webhook_share = rng.choice([0.0, 0.9])
        flaky_api.on_status = lambda _: self.fault()
        flaky_api.on_list = self.on_list

    def fault(self) -> Reply | None:
        """Returns a random fault, or None; always None after `faults_until`."""
        if now() > self.faults_until or self.rng.random() >= self.fault_share:
            return None
        return self.rng.choice(
            [UNAVAILABLE, Reply(500), Reply(200, b"<html>"), Reply(delay=40), Reply(429)]
        )

    def on_list(self, request: ReceivedRequest) -> Reply | None:
        if self.refuses == "all" or (self.refuses == "status" and request.only_ready):
            return REFUSED
        return self.fault()

    async def wait(self, request_id: str, *, expects_webhook: bool) -> None:
        """Waits some times for a short while, then until the end, and notes what was wrong."""
        tracker = self.poller.tracker(request_id, expects_webhook=expects_webhook)
        lifecycle = self.api.lifecycles[request_id]
        while now() < self.faults_until and self.rng.random() < 0.4:
            try:
                async with asyncio.timeout(self.rng.uniform(0, 3)):
                    wanted = self.rng.choice([Status.READY, Status.TERMINATED])
                    await tracker.wait_for(wanted, None)
            except TimeoutError:
                await asyncio.sleep(self.rng.uniform(0, 1))
            except EdgegapError:
                break
            else:
                break
        try:
            await tracker.wait_for(Status.READY, 200)
        except (DeploymentFailed, DeploymentTerminated, NotFound):
            if now() < min(lifecycle.error_at, lifecycle.ended_at):
                self.wrong.append(f"{request_id}: the wait ended too early")
        except WaitTimedOut:
            if lifecycle.status_at(now() - 60) != "DEPLOYING":
                self.wrong.append(f"{request_id}: the change was never found")
        else:
            if now() < lifecycle.ready_at:
                self.wrong.append(f"{request_id}: READY was reported too early")
            delay = now() - max(self.faults_until, lifecycle.ready_at)
            self.max_delay = max(self.max_delay, delay)
        # The queue drops its stale entries when it grows, not when many waits end at once.
        stale = len(self.poller._status_queue) - 2 * len(self.api.lifecycles) - 70
        self.max_stale = max(self.max_stale, stale)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(self.rng.choice([1, 3, 30, 120])):
                await asyncio.sleep(self.rng.expovariate(4))
                [request_id] = self.api.deploy(1)
                ready = now() + self.rng.lognormvariate(1.6, 0.8)
                fails = self.rng.random() < 0.1
                ended = ready + self.rng.uniform(0, 5)
                self.api.lifecycles[request_id] = (
                    Lifecycle(error_at=ready) if fails else Lifecycle(ready_at=ready)
                )
                if self.rng.random() < 0.05:
                    self.api.lifecycles[request_id] = Lifecycle(ready_at=ready, ended_at=ended)
                sends_webhook = self.rng.random() < self.webhook_share
                expects_webhook = self.webhook_share > 0
                waiting = group.create_task(self.wait(request_id, expects_webhook=expects_webhook))
                if sends_webhook:
                    group.create_task(self.send_webhook(request_id, ready))
                if self.rng.random() < 0.1:
                    group.create_task(self.cancel(waiting))

    async def send_webhook(self, request_id: str, ready: float) -> None:
        tracker = self.poller.tracker(request_id, expects_webhook=True)
        await asyncio.sleep(max(0, ready - now()) + self.rng.expovariate(10))
        tracker.webhook_received()

    async def cancel(self, waiting: asyncio.Task[None]) -> None:
        await asyncio.sleep(self.rng.uniform(0, 10))
        waiting.cancel()


@pytest.mark.parametrize("seed", range(24))
async def test_random_waits_and_faults_end_correctly_within_the_limits(seed: int) -> None:
    before = asyncio.all_tasks()
    async with (
        FlakyApi() as flaky_api,
        ApiClient("canary-t", base_url=flaky_api.url, limits=Limits()) as client,
    ):
        campaign = _Campaign(seed, flaky_api, client)
        await campaign.run()
        await asyncio.sleep(0.5)

        assert not campaign.wrong
        # Two hanging status requests delay a deployment until they time out after half a minute.
        assert campaign.max_delay < 40
        assert campaign.max_stale <= 0
        assert not campaign.poller._entries
        assert not campaign.poller._status_queue
        assert campaign.poller._task is None
        for requests, limit in ((flaky_api.status_requests, 20), (flaky_api.list_requests, 10)):
            times = [one.at for one in requests]
            intervals = [later - times[n] for n, later in enumerate(times[limit:])]
            assert min(intervals, default=1) > 0.95
    await asyncio.sleep(0.1)
    assert not tasks_since(before)
