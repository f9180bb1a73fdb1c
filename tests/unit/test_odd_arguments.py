"""Arguments of types and sizes that no caller should pass raise `InvalidRequest`, and no other."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from scripted_api import ScriptedApi

from edgegap_async import EdgegapClient, Guard, PollingPolicy, RetryPolicy, WebhookReceiver
from edgegap_async.errors import InvalidRequest
from edgegap_async.requests import Filter

HUGE = 10**5000  # Python refuses to write it, and no float can hold it
EAST = timezone(timedelta(hours=23))
BEFORE_YEAR_1 = datetime(1, 1, 1, tzinfo=EAST)
STORAGE: dict[str, Any] = {
    "name": "logs",
    "bucket": "b",
    "access_key_id": "a",
    "secret_access_key": "s",
}


@pytest.mark.parametrize(
    "make",
    [
        lambda: EdgegapClient("canary-t", on_limit=[]),  # type: ignore[arg-type]
        lambda: EdgegapClient("canary-t", list_delay=HUGE),
        lambda: EdgegapClient("canary-t", timeouts=-HUGE),
        lambda: Guard(applications=5),  # type: ignore[arg-type]
        lambda: Guard(max_live=HUGE),
        lambda: RetryPolicy(attempts=HUGE),
        lambda: PollingPolicy(interval=HUGE),
        lambda: WebhookReceiver(path=5),  # type: ignore[arg-type]
        lambda: WebhookReceiver(path=b"/x"),  # type: ignore[arg-type]
        lambda: WebhookReceiver(max_reading=None),  # type: ignore[arg-type]
        lambda: WebhookReceiver(max_waiting="5"),  # type: ignore[arg-type]
        lambda: WebhookReceiver(max_waiting=0.5),  # type: ignore[arg-type]
        lambda: Filter("tags", "in", [datetime.now(UTC)]),  # type: ignore[list-item]
        lambda: Filter("status", "eq", 5),  # type: ignore[arg-type]
    ],
)
def test_an_odd_setting_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(InvalidRequest):
        make()


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.handle("abc").wait_ready(HUGE),
        lambda client: client.run("arena", "v1", users=["192.0.2.1"], timeout=HUGE).__aenter__(),
        lambda client: client.relay(["192.0.2.1"], timeout=HUGE).__aenter__(),
        lambda client: client.reap(older_than=HUGE),
        lambda client: client.deployments.metrics("abc", start=BEFORE_YEAR_1),
        lambda client: client.deployments.metrics("abc", steps=[]),
        lambda client: anext(
            client.deployments.list(filters=[Filter("created_at", "lte", BEFORE_YEAR_1)])
        ),
        lambda client: anext(client.recover(datetime.now(UTC))),
        lambda client: client.endpoint_storages.create(**STORAGE, endpoint="http://["),
    ],
)
async def test_an_odd_argument_is_refused_before_anything_is_sent(
    api: ScriptedApi, call: Callable[[Any], Any]
) -> None:
    async with EdgegapClient("canary-t", base_url=api.url) as client:
        with pytest.raises(InvalidRequest):
            await call(client)

    assert not api.requests
