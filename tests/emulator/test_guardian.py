"""What is left when the emulator ends in any way: nothing."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest
from emulated_cloud import ARENA, a_cloud, deployed, python_application, reached, until
from emulator_program import EmulatorProgram, processes_with

from edgegap_async import Status
from edgegap_async.emulator import ledger

IN_TIME = 10  # seconds; it takes two on a machine that is not busy


def _files_in(folder: Path) -> list[Path]:
    """The ledgers, and the folders of homes."""
    return list(folder.glob("*/*"))


async def test_row_47_after_kill_9_no_process_port_or_folder_is_left(
    tmp_path: Path, rounds: int
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    slowest = 0.0
    for _ in range(max(1, rounds // 2)):
        async with EmulatorProgram(tmp_path, temporary) as emulator:
            await emulator.deploy(2)
            await until(lambda: len(processes_with(emulator.token)) == 6)
            emulator.end(signal.SIGKILL)

            slowest = max(slowest, await emulator.seconds_until_nothing_is_left())
            await until(lambda: not _files_in(temporary))

    assert slowest < IN_TIME


@pytest.mark.parametrize("how", [signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM, signal.SIGINT])
async def test_row_84_a_signal_ends_the_emulator_in_order_and_leaves_nothing(
    tmp_path: Path, how: signal.Signals
) -> None:
    async with EmulatorProgram(tmp_path, tmp_path) as emulator:
        await emulator.deploy(1)

        assert emulator.end(how) == (0, "")
        assert await emulator.seconds_until_nothing_is_left() < IN_TIME
    assert not _files_in(tmp_path)


async def test_row_84_a_program_that_ends_without_cleaning_up_leaves_nothing(
    tmp_path: Path,
) -> None:
    program = """
        import asyncio, os, sys
        from edgegap_async.emulator import Emulator, Timings, sample_application

        async def main():
            emulator = Emulator([sample_application("--fork-setsid")], timings=Timings.fast())
            await emulator.start()
            from aiohttp import ClientSession
            sys.path.insert(0, "tests/support")
            from bare_api import DEPLOY_BODY
            headers = {"Authorization": f"token {emulator.token}"}
            async with ClientSession(emulator.url, headers=headers) as session:
                await session.post("/v2/deployments", json=DEPLOY_BODY)
            (deployment,) = emulator.cloud.deployments.values()
            while deployment.status != "READY":
                await asyncio.sleep(0.01)
            print(*(one.pid for one in await deployment.process.members()), flush=True)
            if os.fork() == 0:  # has a copy of each file of the emulator
                os.execvp("sleep", ["sleep", "0.5"])
            os._exit(3)

        asyncio.run(main())
    """
    ended = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", textwrap.dedent(program)],
        stdout=subprocess.PIPE,
        check=False,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )

    pids = [int(pid) for pid in ended.stdout.split()]
    assert (ended.returncode, len(pids)) == (3, 2)
    async with asyncio.timeout(20):
        while any(map(psutil.pid_exists, pids)) or _files_in(tmp_path):
            await asyncio.sleep(0.01)


async def test_row_84_a_forked_process_that_lives_on_delays_nothing(tmp_path: Path) -> None:
    program = """
        import asyncio, os, time
        from edgegap_async.emulator.output import Output
        from edgegap_async.emulator.processes import Machine

        async def main():
            machine = Machine(mark="MARK")
            process = await machine.start(
                ["sleep", "3600"], name="x", environment={"MARK": "x"}, output=Output()
            )
            if (child := os.fork()) == 0:
                os.close(1)
                time.sleep(3600)  # with a copy of the channel to the guardian
            print(process.pid, child, flush=True)
            os._exit(0)

        asyncio.run(main())
    """
    ended = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", textwrap.dedent(program)],
        stdout=subprocess.PIPE,
        check=False,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        timeout=20,
    )
    server, forked = (int(pid) for pid in ended.stdout.split())
    try:
        async with asyncio.timeout(20):
            while psutil.pid_exists(server):
                await asyncio.sleep(0.01)
        assert psutil.pid_exists(forked)
    finally:
        os.kill(forked, signal.SIGKILL)


async def test_row_47_the_next_emulator_ends_what_a_killed_guardian_has_left(
    tmp_path: Path,
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    async with EmulatorProgram(tmp_path, temporary) as emulator:
        await emulator.deploy(1)
        marked = _marked_processes(temporary)
        assert len(marked) == 2  # the daemon has no environment
        os.kill(emulator.process.pid, signal.SIGSTOP)
        emulator.guardian().kill()
        emulator.end(signal.SIGKILL)
        await until(lambda: len(_marked_processes(temporary)) == 1)
        for pid in set(processes_with(emulator.token)) - set(_marked_processes(temporary)):
            os.kill(pid, signal.SIGKILL)  # the daemon, which nothing tells from other programs

        async with EmulatorProgram(tmp_path, temporary) as following:
            await emulator.seconds_until_nothing_is_left()
            status, errors = following.end(signal.SIGTERM)
            assert status == 0
            assert errors.endswith("ended 1 processes of an emulator that was killed\n")
    assert not _files_in(temporary)


def _marked_processes(temporary: Path) -> list[int]:
    (found,) = temporary.glob("*/*.jsonl")
    mark = found.read_text("utf-8").partition('"mark": "')[2].partition('"')[0]
    assert mark.startswith(ledger.MARK_VARIABLE)
    pids = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes():
                pids.append(int(folder.name))
        except OSError:
            continue
    return pids


async def test_row_47_the_ledger_of_a_living_emulator_is_left_alone() -> None:
    async with a_cloud(ARENA) as one:
        deployment = await reached(await deployed(one, ARENA), Status.READY)
        async with a_cloud(ARENA):
            assert deployment.status is Status.READY
            assert deployment.process is not None
            assert psutil.pid_exists(deployment.process.pid)


async def test_deployments_fail_when_their_guardian_is_killed_and_later_ones_run() -> None:
    async with a_cloud(ARENA) as cloud:
        deployment = await reached(await deployed(cloud, ARENA), Status.READY)
        assert deployment.process is not None
        psutil.Process(deployment.process.pid).parent().kill()  # type: ignore[union-attr]
        await reached(deployment, Status.ERROR)

        assert deployment.error_detail == "The application was killed by SIGKILL"
        await reached(await deployed(cloud, ARENA), Status.READY)


async def test_row_46_a_daemon_without_an_environment_ends_with_its_server() -> None:
    token = f"daemon-{os.getpid()}"
    application = python_application(
        "import os, subprocess, sys, time\n"
        f"daemon = 'import os, time; os.fork() or (os.setsid(), time.sleep(3600)) # {token}'\n"
        "subprocess.run([sys.executable, '-c', daemon], env={})\n"
        "print('left')\n"
        "time.sleep(3600)",
        termination_grace_period_seconds=0,
    )
    async with a_cloud(application) as cloud:
        deployment = await deployed(cloud, application)
        other = await deployed(cloud, application)
        await until(lambda: deployment.output.text() == other.output.text() == "left\n")
        assert len(processes_with(token)) == 4
        deployment.stop()
        await reached(deployment, Status.TERMINATED)

        assert len(processes_with(token)) == 2
        assert other.process is not None
        await other.process.stop(0)
        assert processes_with(token) == []


async def test_a_home_that_a_cleaner_of_temporary_files_removed_is_made_again() -> None:
    application = python_application("import os; print(os.getcwd()); os._exit(1)")
    async with a_cloud(application) as cloud:
        first = await reached(await deployed(cloud, application), Status.ERROR)
        homes = Path(first.output.text().strip()).parent
        shutil.rmtree(homes)
        second = await reached(await deployed(cloud, application), Status.ERROR)

        assert second.error_detail == "The application exited with code 1"
        assert Path(second.output.text().strip()).parent == homes


async def test_a_folder_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / f"edgegap-async-emulator-{os.getuid()}").mkdir(mode=0o755)

    with pytest.raises(PermissionError, match="mode 700"):
        async with a_cloud(ARENA):
            pass


async def test_row_47_a_ledger_that_was_cut_is_read_as_far_as_it_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    created = ledger.create()
    written = created.homes.with_suffix(".jsonl")
    with written.open("ab") as file:
        file.write(b'{"pid": 1, "star')
    (written.parent / "empty.jsonl").touch()
    (written.parent / "garbage.jsonl").write_bytes(b"\xff\x00{[")
    created.homes.mkdir()
    left = await asyncio.create_subprocess_exec(
        "sleep", "3600", env={ledger.MARK_VARIABLE: created.mark}
    )
    while_it_is_held = ledger.end_left_processes()
    os.close(created.descriptor)

    assert (while_it_is_held, ledger.end_left_processes()) == (0, 1)
    assert await left.wait() == -signal.SIGKILL
    assert not _files_in(tmp_path)
