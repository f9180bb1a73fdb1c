"""The benchmarks run, and print the figures that the documents take from them."""

from __future__ import annotations

import json

import pytest
from browser import needs_chromium
from program_runner import run_program

from edgegap_async.emulator import Emulator


@pytest.mark.parametrize(
    "benchmark", ["get_call.py --rounds=1 --calls=5 --observed", "import_time.py --rounds=1"]
)
async def test_the_benchmarks_of_cost_compare(emulator: Emulator, benchmark: str) -> None:
    name, *arguments = benchmark.split()
    printed = json.loads(await run_program(emulator, f"benchmarks/{name}", *arguments))

    assert printed["ratio"] > 0


async def test_the_benchmark_of_one_server_counts_servers(emulator: Emulator) -> None:
    printed = json.loads(await run_program(emulator, "benchmarks/one_server.py", "--requests=1"))

    assert printed["edgegap_async"]["lost answers"]["the answer is lost once"] == {
        "servers_made_per_request": 1,
        "errors": 0,
        "left_running_and_unknown": 0,
    }


async def test_the_benchmark_of_many_measures_time_and_memory(emulator: Emulator) -> None:
    printed = json.loads(
        await run_program(
            emulator, "benchmarks/deploy_many.py", "--deployments=3", "--waiting", "3"
        )
    )

    assert printed["real time"]["ready"] == printed["real time"]["deploys"] == 3
    assert printed["memory"][0]["bytes_each"] > 0


async def test_the_benchmark_of_memory_counts_what_is_remembered(emulator: Emulator) -> None:
    printed = json.loads(
        await run_program(emulator, "benchmarks/memory.py", "--hours=0.002", "--points=2")
    )

    assert [point["hours"] for point in printed] == [0.00111, 0.00194]
    assert printed[1]["deployments in the register"] == 7
    assert printed[1]["megabytes"] > 0


async def test_the_benchmark_of_load_leaves_nothing(emulator: Emulator) -> None:
    options = ["--seconds=0.1", "--simulated=101", "--measure-seconds=0.1", "--log-megabytes=5"]
    options += ["--cycles=10"]
    printed = json.loads(await run_program(emulator, "benchmarks/emulator_load.py", *options))

    real = printed["real processes"]
    assert real["deploy"]["deployments"] == 4
    held = {when: figures["descriptors"] for when, figures in real["held"].items()}
    assert held["live"] > held["before"] + 4
    assert held["after"] <= held["before"] + 2  # the client's connections may still be open
    assert printed["simulated"]["deployments"] == 101
    assert printed["logging"]["servers"] == 10
    assert isinstance(printed["logging"]["megabytes_a_second"], float)
    assert printed["cycles"]["cycles"] == 10
    counts = [figures["descriptors"] for figures in printed["cycles"]["held"]]
    assert len(counts) == 6
    assert max(counts) <= counts[0] + 4


@needs_chromium
@pytest.mark.timeout(240)
async def test_the_benchmark_of_the_page_measures_each_part(emulator: Emulator) -> None:
    options = ["--deployments=4", "--events=1", "--live=5", "--seconds=0.1", "--rounds=1"]
    printed = json.loads(await run_program(emulator, "benchmarks/page.py", *options))

    assert printed["load"]["rows_seen"] == 4
    assert printed["load"]["page_tasks"]["count"] > 0
    assert len(printed["memory"]["megabytes"]) == 5
    assert printed["rate"]["kept"] > 0
    assert printed["restart"]["seconds_until_live"] > 0
