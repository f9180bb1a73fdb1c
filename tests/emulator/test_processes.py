"""Real processes: start, output, stop, bound ports, usage."""

from __future__ import annotations

import asyncio
import secrets
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from emulated_cloud import create_go_file, files_left, until

from edgegap_async.emulator.output import Output
from edgegap_async.emulator.processes import Limits, Machine, ServerProcess
from edgegap_async.emulator.procfs import ProcessEntry, SharedScan, process_trees

MARK = "MARK_OF_THE_TREE"


class Starter:
    """Starts Python programs on a machine, and ends them all."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.output = Output()
        self._processes: list[ServerProcess] = []

    async def __call__(
        self, program: str, *, limits: Limits | None = None, directory: str | None = None
    ) -> ServerProcess:
        process = await self.machine.start(
            [sys.executable, "-I", "-c", program],
            name=f"p{len(self._processes)}",
            environment={MARK: secrets.token_hex(16)},
            output=self.output,
            limits=limits,
            directory=directory,
        )
        self._processes.append(process)
        return process

    async def until_said(self, text: str) -> None:
        await until(lambda: text in self.output.text())

    async def close(self) -> None:
        for process in self._processes:
            await process.stop(0)


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def _exists(path: Path) -> bool:
    return path.exists()


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
async def start() -> AsyncIterator[Starter]:
    machine = Machine(mark=MARK)
    starter = Starter(machine)
    yield starter
    await starter.close()
    await machine.close()


@pytest.fixture
def udp_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("", 0))
        return int(free.getsockname()[1])


# ── start ────────────────────────────────────────────────────────────────────────────────────────


async def test_a_program_gets_a_clean_environment_and_an_empty_home(
    start: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret_scanner")

    process = await start(
        "import os; print(sorted(os.environ)); print(os.getcwd() == os.environ['HOME']);"
        "print(os.listdir()); print(os.getsid(0) == os.getpid())"
    )

    assert await process.exited == 0
    names, *facts = start.output.text().splitlines()
    assert set(eval(names)) - {"LC_CTYPE"} == {"HOME", "LANG", "PATH", MARK, "EDGEGAP_EMULATOR"}
    assert facts == ["True", "[]", "True"]


async def test_a_program_starts_in_the_given_directory(start: Starter, tmp_path: Path) -> None:
    await (await start("import os; print(os.getcwd())", directory=str(tmp_path))).exited

    assert start.output.text() == f"{tmp_path}\n"


@pytest.mark.parametrize("argv", [["/does/not/exist"], ["/etc/passwd"], ["nul\0"]])
async def test_row_54_a_program_that_cannot_be_started_raises_the_reason(
    start: Starter, argv: list[str]
) -> None:
    await (await start("pass")).stop(5)
    open_before = _open_files()

    with pytest.raises(OSError, match=r"No such file|Permission denied|null"):
        await start.machine.start(argv, name="x", environment={MARK: "x"}, output=start.output)

    assert _open_files() == open_before


@pytest.mark.parametrize("left", range(2))
async def test_without_files_to_open_nothing_starts_or_leaks(start: Starter, left: int) -> None:
    await (await start("pass")).stop(5)
    children = psutil.Process().children()
    open_before = _open_files()

    with files_left(left), pytest.raises(OSError, match="Too many open files"):
        await start("import time; time.sleep(60)")

    assert _open_files() == open_before
    assert psutil.Process().children() == children


async def test_limits_hold(start: Starter) -> None:
    process = await start(
        "import resource\n"
        "while resource.getrlimit(resource.RLIMIT_CPU)[0] != 7: pass\n"
        "print(resource.getrlimit(resource.RLIMIT_CORE)[0])\n"
        "bytearray(2 * 2**30)",
        limits=Limits(memory_bytes=2**30, cpu_seconds=7),
    )

    assert await process.exited == 1
    assert "0\n" in start.output.text()
    assert "MemoryError" in start.output.text()


# ── output ───────────────────────────────────────────────────────────────────────────────────────


def test_row_49_only_the_last_output_is_kept() -> None:
    output = Output(size=10)

    for piece in (b"aaaa", b"bbbbbb", b"cccc", b"d"):
        output.write(piece)

    assert output.text() == "bbbbbccccd"
    output.write(b"e" * 50)
    assert output.text() == "e" * 10


def test_row_49_the_output_until_a_point_is_what_is_kept_of_it() -> None:
    output = Output(size=10)
    output.write(b"0123456789ab")

    assert output.text(12) == "23456789ab"
    assert output.text(5) == "234"
    assert output.text(1) == ""


def test_row_58_compressed_output_is_small_and_can_be_read_and_written() -> None:
    output = Output()
    output.write(b"line\n" * 100_000)
    output.compress()
    output.compress()

    assert output.held_bytes < 10_000
    assert output.text() == "line\n" * 100_000
    output.write(b"end")
    assert output.text(output.written).endswith("line\nend")


async def test_row_49_a_busy_event_loop_does_not_block_a_program(
    start: Starter, tmp_path: Path
) -> None:
    done = tmp_path / "done"
    await start(f"import os; os.write(1, b'x' * 500_000); open({str(done)!r}, 'w')")

    give_up = time.monotonic() + 20
    while not _exists(done):  # without an await: the event loop does nothing else
        assert time.monotonic() < give_up
        time.sleep(0.01)  # noqa: ASYNC251 - it is the point


def test_row_49_output_that_is_not_utf_8_is_shown_with_replacements() -> None:
    output = Output()
    output.write(b"ok \xff\xfe")

    assert output.text() == "ok \N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}"


async def test_row_49_a_flood_of_output_without_a_line_break_is_bounded(start: Starter) -> None:
    process = await start(
        "import os\nfor _ in range(500): os.write(1, b'x' * 100_000)\nprint('end')"
    )

    assert await process.exited == 0
    assert len(start.output.text()) == 2**20
    assert start.output.text().endswith("xend\n")


async def test_the_output_has_what_a_program_has_written_before_it_is_read(
    start: Starter, udp_port: int
) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as player:
        player.bind(("127.0.0.1", udp_port))
        await start(
            "import os, socket, time\n"
            "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
            "for number in range(300):\n"
            "  os.write(1, b'%d ' % number)\n"
            f"  s.sendto(b'%d ' % number, ('127.0.0.1', {udp_port}))\n"
            "  time.sleep(0.001)\n"
        )
        for _ in range(300):
            said = await asyncio.to_thread(player.recv, 100)
            assert said.decode() in start.output.text()


async def test_row_50_the_last_output_of_a_program_is_complete_when_its_exit_is_known(
    start: Starter,
) -> None:
    process = await start("import sys; sys.stderr.write('last words'); sys.exit(3)")

    assert await process.exited == 3
    assert start.output.text() == "last words"


# ── stop ─────────────────────────────────────────────────────────────────────────────────────────


async def test_a_stop_is_sigterm_first(start: Starter) -> None:
    process = await start(
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
        "print('up', flush=True)\n"
        "time.sleep(60)"
    )
    await start.until_said("up")

    await process.stop(20)

    assert process.exited.result() == 7


async def test_row_45_a_program_that_ignores_sigterm_is_killed_after_the_grace_period(
    start: Starter,
) -> None:
    process = await start(
        "import signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('up', flush=True)\n"
        "time.sleep(60)"
    )
    await start.until_said("up")
    loop = asyncio.get_running_loop()
    before = loop.time()

    await process.stop(0.2)

    assert process.exited.result() == -signal.SIGKILL
    assert loop.time() - before >= 0.2


@pytest.mark.parametrize(
    "escape",
    ["pass", "os.setsid()", "os.setsid()\n  if os.fork(): os._exit(0)"],
    ids=["child", "setsid", "daemon"],
)
async def test_row_46_a_stop_ends_every_descendant_process(start: Starter, escape: str) -> None:
    process = await start(
        "import os, signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_DFL)\n"
        "if os.fork() == 0:\n"
        f"  {escape}\n"
        "  signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "  print('child', os.getpid(), flush=True)\n"
        "time.sleep(60)"
    )
    await start.until_said("child")
    child = int(start.output.text().split()[-1])

    await process.stop(5)

    assert not _is_alive(child)
    assert await process.members() == []


async def test_row_46_a_child_without_the_mark_is_found_through_its_parent(start: Starter) -> None:
    process = await start(
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-I', '-c', 'import time; time.sleep(60)'],"
        " env={}, start_new_session=True)\n"
        "print('child', child.pid, flush=True)\n"
        "child.wait()"
    )
    await start.until_said("child")
    child = int(start.output.text().split()[-1])

    assert {member.pid for member in await process.members()} == {process.pid, child}
    await process.stop(5)
    await until(lambda: not _is_alive(child))


async def test_many_stops_at_once_share_their_scans_and_all_succeed(start: Starter) -> None:
    processes = [await start("import time; time.sleep(60)") for _ in range(10)]

    await asyncio.gather(*(process.stop(5) for process in processes))
    await processes[0].stop(5)

    assert {process.exited.result() for process in processes} == {-signal.SIGTERM}


async def test_tasks_share_scans_which_take_a_tenth_of_a_cpu_at_most() -> None:
    scans = list[tuple[float, float]]()

    def scan() -> float:
        began, cpu = time.monotonic(), time.thread_time()
        while time.thread_time() - cpu < 0.005:
            pass
        scans.append((began, time.thread_time() - cpu))
        return began

    shared = SharedScan(scan)

    async def ask(count: int) -> None:
        for _ in range(count):
            asked = time.monotonic()
            assert await shared.result() > asked

    started = time.monotonic()
    await asyncio.gather(*(ask(4) for _ in range(10)))
    await shared.close()

    assert len(scans) <= 5
    last_began, _ = scans[-1]
    assert last_began - started > 10 * sum(cpu_seconds for _, cpu_seconds in scans[:-1])


async def test_a_stop_that_is_cancelled_can_be_made_again(start: Starter) -> None:
    process = await start(
        "import signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('up', flush=True)\n"
        "time.sleep(60)"
    )
    await start.until_said("up")

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await process.stop(60)
    await process.stop(0)

    assert process.exited.result() == -signal.SIGKILL


async def test_nothing_stays_open_after_a_stop(start: Starter) -> None:
    await (await start("pass")).stop(5)
    open_before = _open_files()

    for _ in range(5):
        await (await start("print('x')")).stop(5)

    assert _open_files() == open_before


# ── bound ports ──────────────────────────────────────────────────────────────────────────────────


async def _has_bound(machine: Machine, process: ServerProcess, port: int) -> bool:
    return await machine.has_bound(process, [("udp", port)])


async def test_row_52_a_port_is_ready_once_the_process_tree_has_bound_it(
    start: Starter, udp_port: int
) -> None:
    process = await start(
        "import os, socket, time\n"
        "print('not yet', flush=True)\n"
        "while not os.path.exists('go'): time.sleep(0.01)\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        f"s.bind(('', {udp_port}))\n"
        "print('bound', flush=True)\n"
        "os.path.exists('x')\n"
        "time.sleep(60)"
    )
    await start.until_said("not yet")
    before = await _has_bound(start.machine, process, udp_port)
    create_go_file(process.pid)
    await start.until_said("bound")

    assert (before, await _has_bound(start.machine, process, udp_port)) == (False, True)


async def test_row_52_a_port_that_a_child_has_bound_is_ready(start: Starter, udp_port: int) -> None:
    process = await start(
        "import os, socket, time\n"
        "if os.fork() == 0:\n"
        "  os.setsid()\n"
        "  s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)\n"
        f"  s.bind(('::', {udp_port}))\n"
        "  print('bound', flush=True)\n"
        "time.sleep(60)"
    )
    await start.until_said("bound")

    assert await _has_bound(start.machine, process, udp_port)


async def test_row_52_a_port_that_another_program_has_bound_is_not_ready(start: Starter) -> None:
    process = await start("import time; time.sleep(60)")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as squatter:
        squatter.bind(("127.0.0.1", 0))

        assert not await _has_bound(start.machine, process, squatter.getsockname()[1])


async def test_row_52_a_tcp_port_is_ready_when_it_listens(start: Starter) -> None:
    process = await start(
        "import socket, time\n"
        "s = socket.create_server(('127.0.0.1', 0))\n"
        "print('bound', s.getsockname()[1], flush=True)\n"
        "time.sleep(60)"
    )
    await start.until_said("\n")
    port = int(start.output.text().split()[-1])

    assert await start.machine.has_bound(process, [("tcp", port)])
    assert not await start.machine.has_bound(process, [("tcp", port), ("udp", port)])


async def test_without_ports_to_check_nothing_is_waited_for(start: Starter) -> None:
    assert await start.machine.has_bound(await start("import time; time.sleep(60)"), [])


# ── usage ────────────────────────────────────────────────────────────────────────────────────────


async def test_usage_includes_the_whole_process_tree(start: Starter) -> None:
    idle = await start("import time; print('up', flush=True); time.sleep(60)")
    busy = await start(
        "import os, time\n"
        "os.fork()\n"
        "held = b'x' * 50_000_000\n"
        "while time.process_time() < 0.25: pass\n"
        "print('done', flush=True)\n"
        "time.sleep(60)"
    )
    await until(lambda: start.output.text().count("done") == 2 and "up" in start.output.text())

    idle_usage, busy_usage = await start.machine.usage([idle, busy])

    assert busy_usage.cpu_seconds >= 0.4 > idle_usage.cpu_seconds
    assert busy_usage.memory_bytes > 100_000_000 > idle_usage.memory_bytes > 0


class _CountedEntry(ProcessEntry):
    """An entry that counts how often it is looked at."""

    looks = 0

    def __getattribute__(self, name: str) -> object:
        if name in {"mark", "session"}:
            _CountedEntry.looks += 1
        return super().__getattribute__(name)


def test_finding_many_trees_looks_at_each_process_once() -> None:
    count = 300
    everyone = [_CountedEntry(pid, 1, pid, b"%d" % pid) for pid in range(2, count + 2)]

    trees = process_trees(everyone, [(one.pid, b"%d" % one.pid) for one in everyone])

    assert trees == [[one] for one in everyone]
    assert _CountedEntry.looks <= 10 * count


async def test_an_ended_process_uses_nothing(start: Starter) -> None:
    process = await start("pass")
    await process.exited

    (usage,) = await start.machine.usage([process])

    assert (usage.cpu_seconds, usage.memory_bytes) == (0, 0)


async def test_a_machine_that_closes_leaves_no_home_behind() -> None:
    machine = Machine(mark=MARK)
    starter = Starter(machine)
    await (await starter("import os; print(os.environ['HOME']); open('file', 'w')")).exited
    home = Path(starter.output.text().strip())
    assert _exists(home)

    machine.forget(home.name)
    await until(lambda: not _exists(home))
    await starter.close()
    await machine.close()

    assert not _exists(home.parent)
