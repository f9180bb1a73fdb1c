"""What a game server can see and do: bubblewrap, its environment, its limits."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import psutil
import pytest
from emulated_cloud import (
    ARENA,
    a_cloud,
    deployed,
    processes_of,
    python_application,
    reached,
    until,
)

from edgegap_async import Status
from edgegap_async.emulator import Application, LocalDeployment
from edgegap_async.emulator.ledger import MARK_VARIABLE
from edgegap_async.errors import InvalidRequest
from edgegap_async.requests import EnvironmentVariable

needs_bubblewrap = pytest.mark.skipif(
    shutil.which("bwrap") is None, reason="needs bubblewrap: apt install bubblewrap"
)


@asynccontextmanager
async def _running(application: Application, **fields: Any) -> AsyncIterator[LocalDeployment]:
    async with a_cloud(application) as cloud:
        yield await reached(await deployed(cloud, application, **fields), Status.READY)


async def _said(deployment: LocalDeployment) -> Any:
    await until(lambda: "\n" in deployment.output.text())
    return json.loads(deployment.output.text().splitlines()[0])


def _sandboxed(program: str, **settings: Any) -> Application:
    return python_application(program, sandbox="bwrap", **settings)


# ── bubblewrap ───────────────────────────────────────────────────────────────────────────────────


@needs_bubblewrap
async def test_in_a_sandbox_a_server_is_played_and_ends_by_sigterm() -> None:
    arena = attrs.evolve(ARENA, sandbox="bwrap")
    async with a_cloud(arena) as cloud:
        deployment = await reached(await deployed(cloud, arena), Status.READY)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as player:
            player.settimeout(10)
            player.connect(("127.0.0.1", deployment.port_numbers["game"]))
            player.send(b"join ANNA")
            assert player.recv(100).startswith(b"welcome ANNA")
        output = deployment.output
        deployment.stop()
        await reached(deployment, Status.TERMINATED)

        assert "terminated" in output.text()  # what it writes at SIGTERM
        assert processes_of(deployment) == []


@needs_bubblewrap
async def test_a_sandbox_has_a_read_only_system_and_folders_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret", "utf-8")
    application = _sandboxed(
        "import json, os, tempfile\n"
        "def can_write(folder):\n"
        "  try: open(os.path.join(folder, 'x'), 'w').close(); return True\n"
        "  except OSError: return False\n"
        "print(json.dumps({\n"
        "  'etc': can_write('/etc'), 'usr': can_write('/usr'), 'tmp': can_write('/tmp'),\n"
        "  'home': can_write(os.environ['HOME']), 'cwd': os.getcwd() == os.environ['HOME'],\n"
        f"  'secret': os.path.exists({str(tmp_path / 'secret')!r}),\n"
        f"  'developer': os.listdir({str(Path.home())!r}),\n"
        "  'processes': len([n for n in os.listdir('/proc') if n.isdigit()]),\n"
        "}), flush=True)\n"
        "import time; time.sleep(60)"
    )
    async with _running(application) as deployment:
        seen = await _said(deployment)

    # Of the developer's home only the folder of this Python is there.
    assert len(seen.pop("developer")) <= 1
    assert seen.pop("processes") <= 3
    assert seen == {
        "etc": False,
        "usr": False,
        "tmp": True,
        "home": True,
        "cwd": True,
        "secret": False,
    }


@needs_bubblewrap
async def test_a_sandbox_shows_the_working_directory_and_the_files_of_the_command(
    tmp_path: Path,
) -> None:
    program = tmp_path / "code" / "server.py"
    program.parent.mkdir()
    (program.parent / "helper.py").write_text("TEXT = 'helped'\n", "utf-8")
    program.write_text(
        "import json, os, time, helper\n"
        "print(json.dumps([helper.TEXT, os.getcwd(), os.listdir()]), flush=True)\n"
        "time.sleep(60)\n",
        "utf-8",
    )
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "level").touch()
    application = Application(
        name="app",
        version="v1",
        argv=("{python}", str(program)),
        directory=str(tmp_path / "data"),
        sandbox="bwrap",
    )
    async with _running(application) as deployment:
        assert await _said(deployment) == ["helped", str(tmp_path / "data"), ["level"]]


@needs_bubblewrap
@pytest.mark.parametrize(
    ("program", "code", "message"),
    [
        ("raise SystemExit(3)", 3, "exited with code 3"),
        ("import os; os.kill(os.getpid(), 11)", 139, "was killed by SIGSEGV"),
    ],
)
async def test_row_50_the_exit_of_a_program_in_a_sandbox_is_known(
    program: str, code: int, message: str
) -> None:
    application = _sandboxed(program, restart_policy="never", ports=ARENA.ports)
    async with a_cloud(application) as cloud:
        deployment = await reached(await deployed(cloud, application), Status.ERROR)

    assert deployment.error_detail == f"The application {message}"
    assert deployment.crash is not None
    assert deployment.crash.exit_code == code


@needs_bubblewrap
async def test_row_45_a_program_in_a_sandbox_that_ignores_sigterm_is_killed() -> None:
    application = _sandboxed(
        "import os, signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = [sys.executable, '-c', 'import os, time; os.setsid(); time.sleep(3600)']\n"
        "subprocess.Popen(child, env={})\n"
        "print('[]', flush=True)\n"
        "time.sleep(3600)",
        termination_grace_period_seconds=0.2,
    )
    async with a_cloud(application) as cloud:
        deployment = await reached(await deployed(cloud, application), Status.READY)
        await _said(deployment)
        assert deployment.process is not None
        inside = psutil.Process(deployment.process.pid).children(recursive=True)
        assert len(inside) == 3  # the first process of the sandbox, the program, its child
        deployment.stop()
        await reached(deployment, Status.TERMINATED)

    assert not any(one.is_running() for one in inside)


async def test_without_bubblewrap_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    application = _sandboxed("pass")
    async with a_cloud(application) as cloud:
        deployment = await reached(await deployed(cloud, application), Status.ERROR)

    assert "needs bubblewrap: install the package" in (deployment.error_detail or "")


def test_another_sandbox_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"Application\.sandbox"):
        python_application("pass", sandbox="chroot")


# ── environment and limits ───────────────────────────────────────────────────────────────────────


async def test_the_parent_of_a_server_has_none_of_the_emulators_secrets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-of-the-developer")
    application = python_application(
        "import json, os, time\n"
        "parent = f'/proc/{os.getppid()}'\n"
        "files = [open(f'{parent}/{name}').read() for name in ('environ', 'cmdline')]\n"
        "print(json.dumps([dict(os.environ), files]), flush=True)\n"
        "time.sleep(60)"
    )
    async with _running(application) as deployment:
        own, (environ, command) = await _said(deployment)

    assert "canary" not in str(own)
    assert environ in {"", f"LD_LIBRARY_PATH={os.environ.get('LD_LIBRARY_PATH')}\0"}
    assert "guardian.py" in command
    assert own[MARK_VARIABLE] not in command


@pytest.mark.parametrize(
    "name",
    [
        "LD_PRELOAD",
        "LD.LIBRARY_PATH",
        "PYTHONPATH",
        "PATH",
        "BASH_ENV",
        "NODE_OPTIONS",
        "LUA_INIT_5_4",
    ],
)
async def test_a_deploy_with_a_variable_of_the_loader_or_an_interpreter_is_refused(
    name: str,
) -> None:
    async with a_cloud(ARENA) as cloud:
        with pytest.raises(InvalidRequest, match=r"run other code.*TOML file"):
            await deployed(cloud, ARENA, environment_variables=[EnvironmentVariable(name, "/x.so")])

        assert cloud.deployments == {}


async def test_other_variables_of_interpreters_and_those_of_the_file_are_passed_on() -> None:
    application = python_application(
        "import json, os, time; print(json.dumps(dict(os.environ)), flush=True); time.sleep(60)",
        environment={"PYTHONPATH": "/x", "PATH": "/usr/bin:/bin"},
    )
    variables = [EnvironmentVariable("PYTHONUNBUFFERED", "1"), EnvironmentVariable("PATHS", "1")]
    async with _running(application, environment_variables=variables) as deployment:
        own = await _said(deployment)

    assert {"PYTHONPATH": "/x", "PATH": "/usr/bin:/bin", "PATHS": "1"}.items() <= own.items()
    assert own["PYTHONUNBUFFERED"] == "1"


async def test_limits_hold_from_the_first_instruction_of_a_program() -> None:
    application = python_application(
        "import json, os, resource, time\n"
        "names = ['NOFILE', 'CPU', 'CORE', 'AS']\n"
        "print(json.dumps([os.umask(0)] + [\n"
        "  resource.getrlimit(getattr(resource, f'RLIMIT_{name}')) for name in names\n"
        "]), flush=True)\n"
        "time.sleep(60)",
        open_files_limit=100,
        cpu_limit_seconds=50,
        memory_limit_mb=2048,
    )
    async with _running(application) as deployment:
        assert await _said(deployment) == [
            0o077,
            [100, 100],
            [50, 50],
            [0, 0],
            [2048 * 2**20] * 2,
        ]


async def test_a_server_may_open_4096_files_unless_its_application_says_otherwise() -> None:
    application = python_application(
        "import json, resource, time\n"
        "print(json.dumps(resource.getrlimit(resource.RLIMIT_NOFILE)), flush=True)\n"
        "time.sleep(60)"
    )
    async with _running(application) as deployment:
        assert await _said(deployment) == [4096, 4096]


async def test_the_sample_game_server_opens_its_port_on_loopback_only() -> None:
    async with _running(ARENA) as deployment:
        assert deployment.process is not None
        (opened,) = psutil.Process(deployment.process.pid).net_connections("udp")

    assert opened.laddr.ip == "127.0.0.1"
