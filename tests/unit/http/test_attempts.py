"""Each answer says how many attempts its call took, and how long they waited."""

from __future__ import annotations

import copy
import pickle
import re
from typing import Any

import pytest
from reference_examples import SHOWN_ANSWERS
from scripted_api import Reply, ScriptedApi
from scripted_calls import LOST, STOP

from edgegap_async import ApiClient
from edgegap_async.api.operations import Operation
from edgegap_async.api.register import OPERATIONS

pytestmark = pytest.mark.virtual


WITH_AN_ANSWER = [operation for operation in OPERATIONS if operation.returns is not type(None)]


@pytest.mark.parametrize("operation", WITH_AN_ANSWER, ids=lambda operation: operation.name)
async def test_every_answer_says_how_many_attempts_it_took_and_how_long_they_waited(
    api: ScriptedApi, client: ApiClient, operation: Operation[Any]
) -> None:
    shown = SHOWN_ANSWERS[operation.returns]
    names = dict.fromkeys(re.findall(r"{(\w+)}", operation.path), str(shown.get("request_id")))
    path = operation.path.format_map(names)
    answer = Reply(min(operation.ok), shown)
    api.on(operation.method, path, Reply(429, headers={"Retry-After": "7"}), answer, answer)
    twice, once = [await client.call(operation, path=names) for _ in range(2)]

    assert twice.attempts == 2
    assert 7 <= twice.waited <= 7.3
    assert (once.attempts, once.waited) == (1, 0.0)
    assert twice == once
    assert repr(twice) == repr(once)
    for copied in (copy.deepcopy(twice), pickle.loads(pickle.dumps(twice))):
        assert (copied.attempts, copied.waited) == (2, twice.waited)


async def test_a_stop_that_succeeds_with_a_410_has_its_attempts_too(
    api: ScriptedApi, client: ApiClient
) -> None:
    api.on(*STOP, LOST, Reply(410))
    stopped = await client.deployments.stop("r1")

    assert stopped.attempts == 2
    assert stopped.waited > 0


async def test_a_call_without_an_answer_may_take_several_attempts(
    api: ScriptedApi, client: ApiClient
) -> None:
    api.on("DELETE", "/v1/deployments/r1/tags/eu", Reply(503), Reply(204))
    await client.tags.delete("r1", "eu")

    assert len(api.requests) == 2
