"""The recipes for containers and CI in the README of the emulator: they parse, and they run."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgegap_async import EdgegapClient

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "edgegap_async/emulator/README.md").read_text("utf-8")
SECTION = README.partition("## In containers and CI")[2].partition("\n## ")[0]
TOKEN = "canary-ci"
PROGRAMS = ROOT / ".venv/bin"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", SECTION, re.DOTALL)


def recipe(part: str) -> Any:
    """The YAML recipe with this key at its top."""
    (found,) = [one for one in map(yaml.safe_load, blocks("yaml")) if part in one]
    return found


def instruction(name: str) -> list[str]:
    """The words of an instruction of the Dockerfile."""
    (line,) = re.findall(rf"^{name}\b[^\[\n]*(\[.*\])$", blocks("dockerfile")[0], re.MULTILINE)
    return list(json.loads(line))


def environment(**variables: str) -> dict[str, str]:
    path = f"{PROGRAMS}:{os.environ['PATH']}"
    return {"PATH": path, "HOME": os.environ.get("HOME", "/"), **variables}


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@contextlib.contextmanager
def container(port: str) -> Iterator[list[str]]:
    """Runs CMD of the image with another port and files of this clone."""
    files = {"/game/apps.toml": str(ROOT / "examples/apps.toml"), "8080": port}
    words = [files.get(word, word) for word in instruction("CMD")]
    process = subprocess.Popen(
        [str(PROGRAMS / words[0]), *words[1:]],
        env=environment(EDGEGAP_EMULATOR_TOKEN=TOKEN),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield [process.stdout.readline() for _ in range(3)]
    finally:
        process.send_signal(signal.SIGTERM)  # as `docker stop` does
        process.communicate(timeout=20)
    assert process.returncode == 0


def test_the_image_answers_other_containers_and_its_health_check_succeeds() -> None:
    port = free_port()
    check = [word.replace("8080", port) for word in instruction("HEALTHCHECK")]
    compose = recipe("services")["services"]["matchmaker"]["environment"]
    host = compose["EDGEGAP_BASE_URL"].removeprefix("http://")
    with container(port) as printed:
        codes = [
            subprocess.run(
                [str(PROGRAMS / check[0]), *check[1:]],
                env=environment(EDGEGAP_EMULATOR_TOKEN=token),
                capture_output=True,
                check=False,
            ).returncode
            for token in (TOKEN, "canary-wrong")
        ]
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/deployments",
            headers={"Host": host, "Authorization": f"token {TOKEN}"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            status = answer.status

    assert (codes, status) == ([0, 1], 200)
    assert TOKEN not in "".join(printed)


def test_the_files_that_the_image_copies_exist() -> None:
    for sources in re.findall(r"^COPY (.*) \S+$", blocks("dockerfile")[0], re.MULTILINE):
        assert all((ROOT / source).exists() for source in sources.split())


def test_the_steps_of_github_actions_start_the_emulator_for_the_tests(tmp_path: Path) -> None:
    workflow = recipe("jobs")
    steps = workflow["jobs"]["test"]["steps"]
    (start,) = [step["run"] for step in steps if step.get("name") == "Start the emulator"]
    (test,) = [step["run"] for step in steps if "pytest" in step.get("run", "")]
    shutil.copy(ROOT / "examples/apps.toml", tmp_path / "edgegap.toml")
    get = 'curl -sf -H "Authorization: token $EDGEGAP_API_TOKEN" "$EDGEGAP_BASE_URL/_emulator"'
    script = f"set -e\n{start}\necho $! > pid\n{test.replace('pytest', get)}"
    ran = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env=environment(**workflow["env"]),
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGTERM)

    assert ran.returncode == 0, ran.stderr + (tmp_path / "emulator.log").read_text()
    assert json.loads(ran.stdout)["deployable"] == ["lobby v1"]


@pytest.mark.parametrize("kind", ["services", "test"])
def test_clients_have_the_name_port_and_token_of_the_service(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = instruction("CMD")
    if kind == "services":
        services = recipe("services")["services"]
        client, service = services["matchmaker"]["environment"], services["edgegap"]["environment"]
        alias = "edgegap"
    else:
        job = recipe("test")["test"]
        client, (found,) = job["variables"], job["services"]
        service, alias = found["variables"], found["alias"]

    port = words[words.index("--port") + 1]
    assert client["EDGEGAP_BASE_URL"] == f"http://{alias}:{port}"
    assert client["EDGEGAP_API_TOKEN"] == service["EDGEGAP_EMULATOR_TOKEN"]
    assert words[words.index("--allowed-host") + 1] == alias
    for name, value in client.items():
        monkeypatch.setenv(name, value)
    EdgegapClient()  # it takes http to this host, as the programs of the guide call it
