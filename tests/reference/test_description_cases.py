"""Random requests made from the newer official description: no 5xx, no hang, no undocumented type.

`--rounds` sets their number: 52 for each round, about 1,000 by default, 50,000 with 1,000 rounds.
Half of them have valid values, half have not; half name what exists.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from official_description import DESCRIPTION, without_wrong_formats

from edgegap_async.api.models import Status
from edgegap_async.api.requests import DeployRequest, GeoCoordinates
from edgegap_async.api.resources.endpoint_storages import EndpointStorageRequest, PullProfileRequest
from edgegap_async.api.resources.relays import RelayRequest
from edgegap_async.emulator import (
    Emulator,
    Fleet,
    Image,
    PrivateHost,
    Simulation,
    Timings,
    sample_application,
)

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")

ANSWER_TIMEOUT = 10  # seconds; a hang, and no more than a busy machine needs


def _operations() -> list[Any]:
    if not DESCRIPTION.exists():
        return []
    schema = schemathesis.openapi.from_dict(without_wrong_formats("date", "date-time"))
    return [found.ok() for found in schema.get_all_operations()]


OPERATIONS = _operations()
pytestmark = pytest.mark.skipif(not OPERATIONS, reason="the official description is not at hand")


class Target:
    """A simulated emulator in a thread, and the names of what exists in it."""

    def __init__(self) -> None:
        self.emulator = Emulator(
            [sample_application()],
            images=[Image(image="registry.example.com/arena", argv=("true",), tags=("v1",))],
            fleets=[Fleet(name="alpha", hosts=(PrivateHost(host_id="h1"),))],
            timings=Timings.fast(),
            host_shape="centroid",
            limits=False,
            max_deployments=50,
            keep_terminated=1,
            simulate=Simulation(ready_after=(0, 0)),
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.run(self.emulator.start())
        self._request_id = ""
        self.run(self._create_others())

    def run(self, work: Any) -> Any:
        """Runs a coroutine in the emulator's thread."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def close(self) -> None:
        """Ends the emulator; raises what was answered 500."""
        try:
            self.run(self.emulator.close())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    @property
    def names(self) -> dict[str, str]:
        """Values of path parameters that exist."""
        request_id = self.run(self._live_deployment())
        return {
            "deployment_id": request_id,
            "request_id": request_id,
            "tag_name": "eu",
            "app_name": "arena",
            "version_name": "v1",
            "fleet-name": "alpha",
            "session_id": next(iter(self.emulator.relay_sessions), "7349356945f1-S"),
            "image_name": "arena",
            "endpoint_name": "logs",
            "pull_profile_name": "maps",
        }

    async def _create_others(self) -> None:
        """Creates a storage with a pull profile, and a relay session."""
        cloud = self.emulator.cloud
        storage = EndpointStorageRequest(
            name="logs",
            access_key_id="key",
            secret_access_key="canary-key",
            endpoint="https://s3.example.com",
            bucket="arena",
        )
        profile = PullProfileRequest(
            name="maps", source="/maps", source_type="Folder", destination="/maps"
        )
        await cloud.create_endpoint_storage(body=storage)
        await cloud.create_pull_profile(endpoint_name="logs", body=profile)
        await cloud.create_relay_session(body=RelayRequest(users=["192.0.2.1"]))

    async def _live_deployment(self) -> str:
        cloud = self.emulator.cloud
        cloud.registry.applications.clear()  # calls have changed or deleted them
        self.emulator.reload([sample_application()])
        known = cloud.deployments.get(self._request_id)
        if known is None or known.status not in {Status.READY, Status.DEPLOYING}:
            for one in cloud.live():
                one.stop()
            request = DeployRequest(
                application="arena", version="v1", users=[GeoCoordinates(1, 2)], tags=("eu",)
            )
            accepted = await cloud.deploy(body=request)
            self._request_id = accepted.request_id
        return self._request_id


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    target = Target()
    yield target
    target.close()


def _check(case: Any, response: Any) -> None:
    checks = schemathesis.checks
    assert response.status_code < 500 or (
        response.status_code == 501 and "not emulated" in response.text
    ), (case.as_curl_command(), response.text)
    if response.content:
        assert response.headers["content-type"][0].startswith("application/json"), response.headers
        json.loads(response.content)
    case.validate_response(
        response,
        checks=[checks.content_type_conformance, checks.response_schema_conformance],
    )


def _exercise(operation: Any, mode: Any, target: Target, count: int) -> int:
    """Sends `count` random requests of an operation; returns the number of those that were sent."""
    sent = 0

    @settings(
        max_examples=count,
        database=None,
        derandomize=True,
        suppress_health_check=[
            HealthCheck.filter_too_much,
            HealthCheck.too_slow,
            HealthCheck.data_too_large,
            HealthCheck.large_base_example,
        ],
        phases=[Phase.generate],
    )
    @given(operation.as_strategy(generation_mode=mode), st.booleans())
    def send(case: Any, names_what_exists: bool) -> None:  # noqa: FBT001 - hypothesis passes it
        nonlocal sent
        if names_what_exists and case.path_parameters:
            names = target.names
            case.path_parameters = {
                key: names.get(key, value) for key, value in case.path_parameters.items()
            }
        headers = {"Authorization": f"token {target.emulator.token}"}
        response = case.call(base_url=target.emulator.url, headers=headers, timeout=ANSWER_TIMEOUT)
        sent += 1
        _check(case, response)

    call: Callable[[], None] = send
    call()
    return sent


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: f"{one.method} {one.path}")
def test_random_requests_get_an_answer_that_the_description_allows(
    target: Target, operation: Any, rounds: int
) -> None:
    sent = sum(
        _exercise(operation, mode, target, max(1, rounds // 2))
        for mode in schemathesis.GenerationMode
    )

    assert sent > 0
    assert target.emulator._server is not None
    assert target.emulator._server.failures == []
