"""Runs pytest over a small test suite in a process of its own, with the plugin of this project."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import tomllib
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping
from pathlib import Path

import attrs
from program_runner import ROOT

_SETTINGS = """
[pytest]
addopts = --strict-markers --strict-config -p no:randomly -p no:cacheprovider
filterwarnings = error
"""


@attrs.frozen
class PytestRun:
    """What a run of pytest has said."""

    exit_code: int
    output: str
    outcomes: Mapping[str, str]
    """By test: `passed`, or the message of its failure or error."""


def install_plugin(folder: Path) -> None:
    """Puts the metadata of this project into a folder, as an installation does."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lines = ["[pytest11]"]
    lines += [f"{name} = {module}" for name, module in project["entry-points"]["pytest11"].items()]
    metadata = folder / "edgegap_async-0.1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Name: edgegap-async\nVersion: 0.1.0\n", "utf-8")
    (metadata / "entry_points.txt").write_text("\n".join(lines), "utf-8")


def run_pytest(
    folder: Path,
    suite: str,
    *arguments: str,
    settings: str = "",
    plugins: Iterable[str] | None = (),
) -> PytestRun:
    """Runs pytest over a suite of one file.

    Args:
        folder: a folder that is empty, or has files of the suite in `tests`.
        suite: the text of the file.
        arguments: arguments of pytest.
        settings: more lines of `pytest.ini`.
        plugins: names of the plugins that are loaded besides the project's, which saves seconds;
            None for all that are installed.
    """
    installed, tests, report = folder / "installed", folder / "tests", folder / "report.xml"
    install_plugin(installed)
    tests.mkdir(exist_ok=True)
    (tests / "pytest.ini").write_text(_SETTINGS + textwrap.dedent(settings), "utf-8")
    (tests / "test_suite.py").write_text(textwrap.dedent(suite), "utf-8")
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    environment.pop("PYTEST_ADDOPTS", None)
    if plugins is not None:
        environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        arguments += tuple(f"-p{name}" for name in ("edgegap_async.testing", *plugins))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", f"--junit-xml={report}", *arguments],
        cwd=tests,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    return PytestRun(done.returncode, done.stdout, _outcomes(report))


def _outcomes(report: Path) -> dict[str, str]:
    if not report.exists():
        return {}
    outcomes: dict[str, str] = {}
    for case in ET.parse(report).iter("testcase"):
        name = case.attrib["name"]
        problems = [each.text or "" for each in case if each.tag in {"failure", "error"}]
        outcomes[name] = outcomes.get(name, "") + "\n".join(problems)
    return {name: text or "passed" for name, text in outcomes.items()}
