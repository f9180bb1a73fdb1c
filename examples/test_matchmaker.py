"""Test a matchmaker with no account: each test gets an emulator that runs real processes.

pip install 'edgegap-async[emulator]' pytest pytest-asyncio
pytest -o asyncio_mode=auto examples/test_matchmaker.py
"""

from collections.abc import AsyncIterator

import pytest

from edgegap_async import DeploymentFailed, EdgegapClient
from edgegap_async.emulator import (
    Application,
    AppPort,
    Drop,
    Emulator,
    Fault,
    Timings,
    sample_application,
)

CRASHES = Application(
    name="crashes",
    version="v1",
    argv=["{python}", "-c", "raise SystemExit('no map')"],
    ports=[AppPort("game", "UDP")],
)


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    """An emulator with two applications, in which a deployment is READY in half a second."""
    apps = [sample_application(), CRASHES]
    async with Emulator(apps, timings=Timings.fast()) as emulator:
        yield emulator


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[EdgegapClient]:
    """A client of that emulator."""
    async with EdgegapClient(emulator.token, base_url=emulator.url) as client:
        yield client


async def test_a_match_gets_a_server(client: EdgegapClient) -> None:
    """The usual case."""
    async with client.run("arena", "v1", users=["8.8.8.8"]) as server:
        assert server.endpoint("game").port


async def test_a_server_that_crashes_is_reported(client: EdgegapClient) -> None:
    """The error has the exit code and the last lines of the log."""
    with pytest.raises(DeploymentFailed) as failure:
        async with client.run("crashes", "v1", users=["8.8.8.8"]):
            pass
    assert failure.value.exit_code == 1
    assert "no map" in failure.value.last_lines


async def test_a_lost_answer_makes_no_second_server(
    client: EdgegapClient, emulator: Emulator
) -> None:
    """The emulator deploys and drops the connection; the client finds the deployment by its tag."""
    emulator.faults.add(Fault("deploy", Drop()))
    async with client.run("arena", "v1", users=["8.8.8.8"]):
        assert len(emulator.deployments) == 1
