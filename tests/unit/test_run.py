"""`edgegap_async.run`: a program that a signal ends."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
import threading

import pytest

import edgegap_async

PROGRAM = """
import asyncio, edgegap_async

async def main():
    try:
        print("running", flush=True)
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0)
        print("cleaned up", flush=True)

edgegap_async.run(main(){arguments})
"""


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["SIGTERM", "SIGINT"]
)
@pytest.mark.parametrize("loop", ["", "uvloop"])
def test_a_signal_cancels_the_program_and_sets_its_exit_status(
    number: signal.Signals, status: int, loop: str
) -> None:
    source = PROGRAM.format(arguments="")
    if loop:
        pytest.importorskip(loop)
        source = f"import {loop}\n" + PROGRAM.format(
            arguments=f", loop_factory={loop}.new_event_loop"
        )
    with subprocess.Popen(
        [sys.executable, "-c", source], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "running\n"
        program.send_signal(number)
        printed, errors = program.communicate(timeout=50)

    assert (printed, errors, program.returncode) == ("cleaned up\n", "", status)


LEAVES_A_TASK = """
import asyncio, contextlib, edgegap_async

async def clean_up_for_ever():
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.Event().wait()
    print("cleaning up", flush=True)
    await asyncio.Event().wait()

async def main():
    task = asyncio.create_task(clean_up_for_ever())
    await asyncio.sleep(0)
    print("running", flush=True)
    await asyncio.Event().wait()

edgegap_async.run(main())
"""


def test_a_sigterm_after_the_end_of_main_ends_the_process_at_once() -> None:
    run = [sys.executable, "-c", LEAVES_A_TASK]
    with subprocess.Popen(run, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        for line in ("running\n", "cleaning up\n"):
            assert program.stdout.readline() == line
            program.send_signal(signal.SIGTERM)

        assert program.wait(timeout=50) == -signal.SIGTERM


def ended_by(signals: int, *, suppress: bool = False) -> int | str:
    """Runs a program that gets SIGTERM some times; returns its exit status, or its result."""

    async def main() -> str:
        for _ in range(signals):
            with contextlib.suppress(asyncio.CancelledError):
                signal.raise_signal(signal.SIGTERM)
                await asyncio.sleep(60)
        if not suppress:
            signal.raise_signal(signal.SIGTERM)
            await asyncio.sleep(60)
        return "done"

    try:
        return edgegap_async.run(main())
    except SystemExit as end:
        return int(end.code or 0)


def test_each_sigterm_cancels_the_program_once_more() -> None:
    assert ended_by(2) == 143


def test_a_program_that_returns_all_the_same_has_a_result() -> None:
    assert ended_by(1, suppress=True) == "done"


def test_the_handler_of_before_is_restored() -> None:
    before = signal.getsignal(signal.SIGTERM)

    assert ended_by(0) == 143
    assert signal.getsignal(signal.SIGTERM) is before


def test_errors_and_other_cancellations_pass() -> None:
    async def fail(error: BaseException) -> None:
        raise error

    for error in (ValueError("no"), asyncio.CancelledError(), SystemExit(3)):
        with pytest.raises(type(error)):
            edgegap_async.run(fail(error))


def test_on_windows_ctrl_break_ends_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "SIGBREAK", signal.SIGUSR2, raising=False)

    async def main() -> None:
        signal.raise_signal(signal.SIGUSR2)
        await asyncio.sleep(60)

    with pytest.raises(SystemExit) as end:
        edgegap_async.run(main())
    assert end.value.code == 143


def test_outside_the_main_thread_it_runs_without_signals() -> None:
    results: list[object] = []

    async def main() -> int:
        return 7

    def work() -> None:
        results.append(edgegap_async.run(main()))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert results == [7]


async def program() -> str:
    """A program without work."""
    return "done"


def test_a_function_that_was_not_called_gets_an_error_that_says_so() -> None:
    with pytest.raises(TypeError, match=r"run needs a coroutine, as in run\(main\(\)\), not <fun"):
        edgegap_async.run(program)  # type: ignore[arg-type] # the slip


async def test_in_a_notebook_the_error_says_to_await_the_program() -> None:
    with pytest.raises(RuntimeError, match=r"a notebook: use `await main\(\)`"):
        edgegap_async.run(program())
