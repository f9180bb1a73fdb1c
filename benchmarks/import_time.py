"""Measures the CPU time of importing `EdgegapClient` against aiohttp, without the start of Python.

Also of `edgegap-async --help`, with the start of Python.

Each import runs in a fresh interpreter, in interleaved rounds. Prints JSON: medians of the rounds.

    python benchmarks/import_time.py [--rounds 21]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile

from figures import significant

STATEMENTS = {
    "python": "",
    "aiohttp": "import aiohttp",
    "edgegap_async": "from edgegap_async import EdgegapClient",
    "help": "from edgegap_async.cli import main; main(['--help'])",
}


def cpu_of(statement: str, environment: dict[str, str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    program = [sys.executable, "-c", statement]
    subprocess.run(program, check=True, env=environment, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=21)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as compiled:
        # Installed packages are compiled, so both are compiled here, in a folder of their own.
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": compiled}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for statement in STATEMENTS.values():
            cpu_of(statement, environment)
        runs = [
            {name: cpu_of(statement, environment) for name, statement in STATEMENTS.items()}
            for _ in range(rounds)
        ]
    median = {name: statistics.median(run[name] for run in runs) for name in STATEMENTS}
    ours, theirs = (median[name] - median["python"] for name in ("edgegap_async", "aiohttp"))
    result = {
        "benchmark": "import_time",
        "rounds": rounds,
        "python_ms": significant(median["python"]),
        "aiohttp_over_python_ms": significant(theirs),
        "edgegap_async_over_python_ms": significant(ours),
        "ratio": significant(ours / theirs),
        "help_ms": significant(median["help"]),
        "goal": "ratio at most 1.25, help_ms at most 200",
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
