"""The pytest plugin in small suites, each run by pytest in a process of its own."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from program_runner import ROOT
from pytest_runs import run_pytest

SLOW = pytest.mark.timeout(150)
"""For runs that take seconds on an idle machine."""

LOBBY = f"""#!{sys.executable}
import signal, socket, sys

game = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
game.bind(("127.0.0.1", int(sys.argv[1].removeprefix("--port="))))
signal.sigwait([signal.SIGTERM])
"""


@SLOW
def test_the_example_of_the_guide_runs_a_program_that_stands_beside_it(tmp_path: Path) -> None:
    guide = (ROOT / "examples/README.md").read_text("utf-8").partition("## Test with pytest")[2]
    code = guide.partition("```python\n")[2].partition("```")[0]
    (tmp_path / "tests").mkdir()
    lobby = tmp_path / "tests" / "lobby"
    lobby.write_text(LOBBY, "utf-8")
    lobby.chmod(0o755)

    settings = "asyncio_mode = auto\nasyncio_default_fixture_loop_scope = function"
    run = run_pytest(tmp_path, code, settings=settings, plugins=["asyncio"])

    assert run.outcomes == {"test_a_lobby_opens": "passed"}, run.output


PARALLEL = """
import asyncio
import os

import pytest

from edgegap_async import EdgegapClient
from edgegap_async.errors import DeploymentFailed
from edgegap_async.emulator import Application, AppPort, Drop, Fault


async def test_run(edgegap_client, edgegap_emulator):
    async with edgegap_client.run("arena", "v1", users=["8.8.8.8"]) as server:
        assert list(edgegap_emulator.deployments) == [server.request_id]
        assert len(edgegap_emulator.live()) == 1


async def test_leak(edgegap_client):
    server = await edgegap_client.deploy("arena", "v1", users=["8.8.8.8"], tags=["left-by-test"])
    await server.wait_ready(timeout=20)


async def test_leak_of_two_at_once(edgegap_client):
    for _ in range(2):
        await edgegap_client.deploy("arena", "v1", users=["8.8.8.8"])


async def test_stop_that_is_not_awaited(edgegap_client):
    server = await edgegap_client.deploy("arena", "v1", users=["8.8.8.8"])
    await server.stop()


@pytest.mark.edgegap_leaves_deployments("it tests what a crash leaves")
async def test_leak_on_purpose(edgegap_client):
    await edgegap_client.deploy("arena", "v1", users=["8.8.8.8"])


def test_sync(edgegap_client, edgegap_emulator):
    async def main():
        async with edgegap_client, edgegap_client.run("arena", "v1", users=["8.8.8.8"]) as server:
            return server.request_id

    assert asyncio.run(main()) in edgegap_emulator.deployments


def test_environment(edgegap_environment):
    async def main():
        async with EdgegapClient() as client:
            return [row async for row in client.deployments.list()]

    assert asyncio.run(main()) == []
    assert os.environ["EDGEGAP_API_TOKEN"] == edgegap_environment["EDGEGAP_API_TOKEN"]


async def test_faults(edgegap_client, edgegap_emulator, edgegap_faults):
    edgegap_faults.add(Fault("deploy", Drop()))
    async with edgegap_client.run("arena", "v1", users=["8.8.8.8"]):
        assert len(edgegap_emulator.deployments) == 1
    assert edgegap_faults.left == ()


@pytest.fixture
async def server(edgegap_client):
    server = await edgegap_client.deploy("arena", "v1", users=["8.8.8.8"])
    yield await server.wait_ready(timeout=20) or server
    await server.stop(wait=True)


async def test_own_fixture_uses_the_client(server, edgegap_client):
    assert (await edgegap_client.deployments.get(server.request_id)).running


class TestOwnApplications:
    @pytest.fixture
    def edgegap_apps(self):
        argv = ["{python}", "-c", "raise SystemExit('no map')"]
        return [Application(name="crashes", version="v1", argv=argv, ports=[AppPort("g", "UDP")])]

    @pytest.fixture
    def edgegap_settings(self, edgegap_settings):
        return {**edgegap_settings, "max_deployments": 1}

    async def test_override(self, edgegap_client, edgegap_emulator):
        server = await edgegap_client.deploy("crashes", "v1", users=["8.8.8.8"])
        with pytest.raises(DeploymentFailed):
            await server.wait_ready(timeout=20)
        assert edgegap_emulator.history(server.request_id)[-1].later == "ERROR"
"""


@SLOW
def test_auto_mode_and_sync_tests_in_two_workers(tmp_path: Path) -> None:
    of_the_readme = re.search(
        r"^```python\n([^`]*\nasync def test_.*?)^```",
        (ROOT / "README.md").read_text("utf-8"),
        re.DOTALL | re.MULTILINE,
    )
    assert of_the_readme
    run = run_pytest(
        tmp_path,
        PARALLEL + of_the_readme[1],
        "--asyncio-mode=auto",
        "-n2",
        settings="asyncio_default_fixture_loop_scope = function",
        plugins=["asyncio", "xdist"],
    )

    failed = {name: text for name, text in run.outcomes.items() if text != "passed"}
    assert set(failed) == {"test_leak", "test_leak_of_two_at_once"}, run.output
    assert len(run.outcomes) == 11
    assert "test_a_lost_answer" in run.outcomes
    assert run.exit_code == 1
    leak = failed["test_leak"]
    assert "1 deployment was left running:\n\narena v1 " in leak
    assert "is READY, tags: left-by-test, op-" in leak
    assert re.search(r"\d\.\d{3} s  INITIALIZING\n(.*\n)+ +\d\.\d{3} s  READY\n", leak)
    assert "calls: deploy 202, get_deployment 200" in leak
    assert '@pytest.mark.edgegap_leaves_deployments("why")' in leak
    assert "2 deployments were left running:" in failed["test_leak_of_two_at_once"]


STRICT = """
import pytest
import pytest_asyncio

from edgegap_async.emulator import Delay, Fault

seen = []


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def lobby(edgegap_emulator):
    async with edgegap_emulator.client() as client:
        async with client.run("arena", "v1", users=["8.8.8.8"]) as server:
            yield server.request_id


@pytest.mark.asyncio(loop_scope="session")
async def test_session_loop(edgegap_client, edgegap_emulator, lobby):
    seen.append(edgegap_emulator)
    assert list(edgegap_emulator.deployments) == [lobby]
    await edgegap_client.deploy("arena", "v1", users=["8.8.8.8"])


@pytest.mark.asyncio(loop_scope="module")
async def test_module_loop(edgegap_client, edgegap_emulator, edgegap_faults, lobby):
    assert list(edgegap_emulator.deployments) == [lobby]
    assert (await edgegap_client.deployments.get(lobby)).running
    edgegap_faults.add(Fault(None, Delay(0.01), times=None))


@pytest.mark.asyncio
async def test_default_loop(edgegap_client, edgegap_emulator, edgegap_faults, lobby):
    assert edgegap_emulator.requests == []
    assert edgegap_faults.left == ()
    async with edgegap_client.run("arena", "v1", users=["8.8.8.8"]) as server:
        assert list(edgegap_emulator.deployments) == [lobby, server.request_id]


class TestInAClass:
    @pytest_asyncio.fixture(loop_scope="class")
    async def server(self, edgegap_client):
        async with edgegap_client.run("arena", "v1", users=["8.8.8.8"]) as server:
            yield server

    @pytest.mark.asyncio(loop_scope="class")
    @pytest.mark.edgegap_leaves_deployments("on purpose")
    async def test_class_loop(self, edgegap_client, edgegap_emulator, server, lobby):
        assert list(edgegap_emulator.deployments) == [lobby, server.request_id]
        await edgegap_client.deploy("arena", "v1", users=["8.8.8.8"])


def test_sync(edgegap_emulator, lobby):
    assert seen == [edgegap_emulator]
    assert list(edgegap_emulator.deployments) == [lobby]


def test_without_emulator():
    pass
"""


@SLOW
def test_strict_mode_with_loops_and_one_emulator_for_the_session(tmp_path: Path) -> None:
    run = run_pytest(
        tmp_path,
        STRICT,
        settings="""
            asyncio_default_fixture_loop_scope = function
            asyncio_default_test_loop_scope = function
            edgegap_scope = session
        """,
        plugins=["asyncio"],
    )

    failed = {name: text for name, text in run.outcomes.items() if text != "passed"}
    assert set(failed) == {"test_session_loop"}, run.output
    assert "1 deployment was left running" in failed["test_session_loop"]
    assert len(run.outcomes) == 6


ANYIO = """
import pytest

pytestmark = pytest.mark.anyio


@pytest.fixture
async def server(edgegap_client):
    async with edgegap_client.run("arena", "v1", users=["8.8.8.8"]) as server:
        yield server


@pytest.fixture(scope="module")
def anyio_backend():
    return "asyncio"


async def test_anyio(server, edgegap_client):
    assert (await edgegap_client.deployments.get(server.request_id)).running


class TestTrio:
    @pytest.fixture
    def anyio_backend(self):
        return "trio"

    async def test_trio(self, edgegap_client):
        pass


@pytest.fixture(scope="module")
async def left(edgegap_emulator):
    async with edgegap_emulator.client() as client:
        yield await client.deploy("arena", "v1", users=["8.8.8.8"])


async def test_fixture_of_the_module(left):
    pass
"""


@SLOW
def test_anyio_among_all_installed_plugins_but_pytest_asyncio(tmp_path: Path) -> None:
    run = run_pytest(tmp_path, ANYIO, "-p", "no:asyncio", "--edgegap-scope=module", plugins=None)

    assert run.outcomes["test_anyio"] == "passed", run.output
    assert "works on asyncio, not on trio" in run.outcomes["test_trio"]
    # What a wider fixture leaves shows when its emulator ends.
    assert "1 deployment was left running" in run.outcomes["test_fixture_of_the_module"]


IDLE = """
import sys


def test_nothing_is_imported():
    ours = {name for name in sys.modules if name.startswith("edgegap_async")}
    assert ours == {"edgegap_async", "edgegap_async.testing"}
    assert not {"aiohttp", "asyncio", "attrs", "cattrs"} & set(sys.modules)
"""


def test_without_its_fixtures_the_plugin_imports_nothing(tmp_path: Path) -> None:
    # pytest's own plugin `debugging` imports pdb, which imports asyncio since Python 3.14.
    run = run_pytest(tmp_path, IDLE, "-p", "no:debugging")

    assert run.outcomes == {"test_nothing_is_imported": "passed"}, run.output


def test_an_unknown_scope_is_refused(tmp_path: Path) -> None:
    run = run_pytest(tmp_path, "def test_nothing(): pass", settings="edgegap_scope = test")

    assert run.exit_code == pytest.ExitCode.USAGE_ERROR
    assert "edgegap_scope must be one of function, class, module, package, session, not 'test'" in (
        run.output
    )
